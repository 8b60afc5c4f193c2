package engine

import (
	"gray/internal/core/actor"
	"gray/internal/core/extent"
	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

// NodeNo numbers the nodes that this daemon has heard of; 0 is itself.
type NodeNo uint32

// Value is an object's value on its way to a client. Slices are valid during the call only.
type Value struct {
	ID        ids.ObjectID
	Status    uint8
	Arena     bool
	Away      bool // of Items: it is not here, or does not come along
	Off, Size uint64
	Contained []ids.ObjectID
	Inline    []byte
}

// Execute is a task on its way to a worker. Slices are valid during the call only.
type Execute struct {
	Unique    ids.Unique
	Attempt   uint32
	Job       ids.Job
	Template  uint32
	Returns   uint32
	Flags     uint16
	Overrides []byte
	Deps      []Value
	Contained []ids.ObjectID
	Args      []byte
}

// Setup specialises a blank worker.
type Setup struct {
	Job          ids.Job
	Env          string           // environment key, "" = the job's own
	Packages     string           // that lie unpacked for it
	Accelerators map[string][]int // instance numbers by resource
	Resources    map[string]int64
	IDs          ids.Unique
	IDCount      uint64
	Actor        *CreatePart // of an actor's worker
	Incarnation  uint32
	Limits       *ActorLimits
}

// Commit says what became of pages that were asked for.
type Commit uint8

// The outcomes of Sink.Commit.
const (
	CommitDone   Commit = iota // they exist
	CommitLater                // Committed will tell
	CommitFailed               // the system has no room for them
)

// Sink takes an Engine's effects, in order. Its methods must not call the Engine. They never fail: a client or a peer
// that is gone is reported to the Engine as an event of its own.
type Sink interface {
	// Value, Ready, Created, Done, Fail and Reply answer a request; Value returns the bytes that the channel has not taken yet.
	Value(ch Chan, req uint32, v Value) (unread int)
	Ready(ch Chan, req uint32, ready []ids.ObjectID)
	Created(ch Chan, req uint32, off uint64)
	Done(ch Chan, req uint32, cancelled bool)
	Fail(ch Chan, req uint32, kind fault.Kind, text string)
	Credit(ch Chan, req uint32, limit uint64)
	// Items hands over a stream's objects from index first on; there are no more if it has ended.
	Items(ch Chan, req uint32, stream ids.ObjectID, first uint32, ended bool, items []Value)
	// Refuse ends a session that broke the protocol.
	Refuse(s SessionID, kind fault.Kind, text string)

	// StartWorker asks for a blank worker with a session number, forked as TemplateSpec.Preload says; WorkerStarted or
	// WorkerFailed answers.
	StartWorker(s SessionID, preload string)
	Setup(w SessionID, setup Setup)
	// PrepareEnv asks for the packages of an environment, named by TemplateSpec.Packages; EnvReady or EnvFailed answers.
	// They stay until DropEnv.
	PrepareEnv(packages string)
	DropEnv(packages string)
	Template(w SessionID, no uint32)
	Execute(w SessionID, x *Execute)
	// ExecuteAt writes the body of x at an arena offset and sends a note of it.
	ExecuteAt(w SessionID, x *Execute, off, size uint64)
	// TakeBack asks for the tasks that the worker has not received; the answer comes at once, in order.
	TakeBack(w SessionID) []ids.Unique
	ExitWorker(w SessionID)
	KillWorker(w SessionID, why string)
	// CancelRun tells a worker that a task or a call that it has is cancelled. With interrupt its main thread is disturbed at
	// what it does, to look.
	CancelRun(w SessionID, u ids.Unique, attempt uint32, interrupt bool)
	// PID is the process of a worker.
	PID(w SessionID) int

	// RegisterActor asks the head for a named or detached actor's name; ActorRegistered answers. stored is nil unless it
	// is detached; it is valid during the call only.
	RegisterActor(row *actor.Row, getIfExists bool, stored *StoredActor)
	// ActorReply tells a client what ActorRegistered said.
	ActorReply(ch Chan, req uint32, created bool, row *actor.Row)
	// ActorUpdate tells the head how an actor of ours stands; WatchActor has it tell of another's, or no longer.
	ActorUpdate(row *actor.Row)
	WatchActor(id ids.ActorID, on bool)

	// Peer sends a message to another daemon.
	Peer(n NodeNo, m Msg)
	// FindOwner asks the head which node has an owner number; OwnerAt answers.
	FindOwner(o ids.Owner)
	// Fetch copies an object's bytes from another node to an arena offset; Fetched answers, also after CancelFetch.
	Fetch(key uint64, id ids.ObjectID, from NodeNo, off, size uint64)
	CancelFetch(key uint64)
	// Commit makes pages exist, at once or later. Punch gives pages back.
	Commit(key uint64, at extent.Extent) Commit
	Punch(at extent.Extent)
	// Load tells that what this node has free, or wants, has changed.
	Load()

	// ErrorValue is the value (docs/protocol.md, format 4) of an error that the daemon made.
	ErrorValue(kind fault.Kind, text string) []byte
	// ActorError is the value of an error of kind fault.ActorDied or fault.ActorUnavailable.
	ActorError(kind fault.Kind, row *actor.Row, death *actor.Death) []byte
	// CreationResult reads the output of an actor's constructor: its repr, or its error as text and pickled.
	CreationResult(value []byte) (repr, text string, pickled []byte)
	// Process names a client's process for people.
	Process(s SessionID) string
	// Warn is for the daemon's log, Notice for those who look at what a job prints.
	Warn(text string)
	Notice(job ids.Job, text string)
}
