package engine

import (
	"gray/internal/core/actor"
	"gray/internal/core/ids"
)

// Msg is a message between two daemons. The link delivers each once and in order while both live; docs/protocol.md
// lists them. Fields are what is sent, so they are exported; a slice received belongs to the receiver.
type Msg interface{ Kind() MsgKind }

// MsgKind numbers a message on the wire: append only.
type MsgKind uint8

// Kinds of messages.
const (
	KindSlotAsk MsgKind = iota + 1
	KindSlotGrant
	KindSlotReturn
	KindTemplate
	KindTaskRun
	KindTaskDone
	KindTaskCancel
	KindSettled
	KindResultSettled
	KindClaim
	KindClaimAck
	KindUnclaim
	KindObjAsk
	KindObjReady
	KindObjCopy
	KindObjFree
	KindFetchAsk
	KindFetchFrom
	KindActorStop
	KindActorGone
	KindActorMine
	KindObjKeep
	KindStreamItem
	KindStreamAsk
	KindStreamCredit
	KindObjCancel
)

type (
	// SlotAsk: the sender, an owner, wants Want slots of its shape (absolute; 0 = none any more).
	SlotAsk struct {
		Shape uint32
		Res   map[string]int64
		Want  int
	}
	// SlotGrant: n slots of the receiver's shape are its own until it returns them, or a TaskDone without Keep ends them.
	SlotGrant struct {
		Shape uint32
		N     int
	}
	// SlotReturn gives n granted slots back unused.
	SlotReturn struct {
		Shape uint32
		N     int
	}
	// TemplateMsg tells a template's content, before the first TaskRun that names it. Job is what workers need to know of the job.
	TemplateMsg struct {
		No  uint32
		Job ids.Job
		Raw []byte
		// JobInfo is what workers must know of the job; the shell adds it to the first template of a job on a link.
		JobInfo []byte
	}
	// TaskRun runs a task on a granted slot, or, sent ahead, on the next one that comes free.
	TaskRun struct {
		Unique    ids.Unique
		Job       ids.Job
		Attempt   uint32
		Shape     uint32
		Template  uint32
		Returns   uint32
		Flags     uint16
		Over      []byte
		Deps      []ObjInfo
		Contained []ids.ObjectID
		Args      []byte
		Actor     *ActorPart  // of a call
		Create    *CreatePart // of a creation
		Depth     uint8       // of the chain of calls
	}
	// ActorPart says whose method a TaskRun runs, and for which of the sender's clients.
	ActorPart struct {
		ID          ids.ActorID
		Incarnation uint32
		Caller      uint32
	}
	// CreatePart says which actor a TaskRun creates; its attempt is the incarnation.
	CreatePart struct {
		ID                     ids.ActorID
		Name, Namespace, Class string
		Body                   []byte
		Detached               bool
	}
	// ActorUp is what a TaskDone says of the actor that was created, or of how that ended.
	ActorUp struct {
		Repr  string
		PID   int
		Death *actor.Death
	}
	// ActorStop: end the incarnation, at once or when what it was sent is done.
	ActorStop struct {
		ID          ids.ActorID
		Incarnation uint32
		Death       actor.Death
		Graceful    bool
	}
	// ActorGone: the incarnation's process is dead.
	ActorGone struct {
		ID          ids.ActorID
		Incarnation uint32
		Death       actor.Death
	}
	// ActorMine: the sender manages the actor from now on.
	ActorMine struct {
		ID          ids.ActorID
		Incarnation uint32
	}
	// ObjInfo is what the sender knows of a ready object: its small value, or its size.
	ObjInfo struct {
		ID        ids.ObjectID
		Status    uint8
		Arena     bool
		Size      uint64
		Contained []ids.ObjectID
		Value     []byte
	}
	// TaskDone answers TaskRun. Lost names the error kind when the attempt ended without a result.
	TaskDone struct {
		Unique  ids.Unique
		Attempt uint32
		Outcome uint8
		Keep    bool // the slot stays the owner's
		Micros  uint32
		Ran     RanPart // where and when, if it is to be listed
		Outputs []ObjInfo
		Kept    []ids.ObjectID // refs that stay in use here and are being claimed from third nodes
		Lost    string
		Why     string
		Up      *ActorUp // of a creation
	}
	// RanPart says in which process an attempt ran (none: 0), when (microseconds since 1970), and what the process said of its error.
	RanPart struct {
		Worker             WorkerID
		PID                int
		Sent, Began, Ended int64
		Exited             bool // its actor left with it, because it wanted to
		Note               string
	}
	// TaskCancel: the task's job has ended, so its worker is killed; or, if Cancelled, the task was cancelled: what runs is
	// interrupted, or with Force killed, and with Recursive what it has called is cancelled, too. Answered by TaskDone.
	TaskCancel struct {
		Unique                      ids.Unique
		Cancelled, Force, Recursive bool
	}
	// ObjCancel: cancel the task of the receiver's that makes this object.
	ObjCancel struct {
		ID               ids.ObjectID
		Force, Recursive bool
	}
	// Settled: the claims on TaskDone.Kept are registered; the owner may let the task's arguments go.
	Settled struct{ Unique ids.Unique }
	// ResultSettled: the owner has registered claims on what the outputs contain, or on what the item with this index of a
	// stream does; the executor may let go.
	ResultSettled struct {
		Unique ids.Unique
		Index  uint32 // 1 = the outputs
	}
	// StreamItem is an item that a generator of the receiver's has yielded; its index is in its id.
	StreamItem struct {
		Unique  ids.Unique
		Attempt uint32
		Obj     ObjInfo
	}
	// StreamAsk: a generator of the receiver's waits until it may make the item with this index.
	StreamAsk struct {
		Unique  ids.Unique
		Attempt uint32
		Index   uint32
	}
	// StreamCredit: the generator may make items up to this index; if Dropped, nobody wants them.
	StreamCredit struct {
		Unique  ids.Unique
		Limit   uint32
		Dropped bool
	}
	// Claim registers the sender as a holder of the receiver's objects; Seq ≠ 0 asks for an acknowledgement.
	Claim struct {
		Seq uint64
		IDs []ids.ObjectID
	}
	// ClaimAck: the Claim with this Seq is registered.
	ClaimAck struct{ Seq uint64 }
	// Unclaim ends the sender's claims.
	Unclaim struct{ IDs []ids.ObjectID }
	// ObjAsk asks the owner to tell when the object is ready.
	ObjAsk struct{ ID ids.ObjectID }
	// ObjReady answers ObjAsk.
	ObjReady struct{ Obj ObjInfo }
	// ObjCopy tells the owner that the sender has, or no longer has, the bytes.
	ObjCopy struct {
		ID   ids.ObjectID
		Have bool
	}
	// ObjFree: the owner has dropped the object.
	ObjFree struct{ ID ids.ObjectID }
	// ObjKeep: the primary copy is lost, the receiver's takes its place and is not to be evicted.
	ObjKeep struct{ ID ids.ObjectID }
	// FetchAsk asks the owner from whom to copy.
	FetchAsk struct {
		ID  ids.ObjectID
		Key uint64 // echoed
	}
	// FetchFrom answers FetchAsk with a node; Lost when there is none, and then the object is the Error.
	FetchFrom struct {
		ID   ids.ObjectID
		Node ids.NodeID
		Lost bool
		Key  uint64
		// Owner is an owner number of the node, for a receiver that does not know it.
		Owner ids.Owner
		// Error is the value that a lost object has at its owner.
		Error []byte
	}
)

// Kind is the message's number.
func (*SlotAsk) Kind() MsgKind       { return KindSlotAsk }
func (*SlotGrant) Kind() MsgKind     { return KindSlotGrant }
func (*SlotReturn) Kind() MsgKind    { return KindSlotReturn }
func (*TemplateMsg) Kind() MsgKind   { return KindTemplate }
func (*TaskRun) Kind() MsgKind       { return KindTaskRun }
func (*TaskDone) Kind() MsgKind      { return KindTaskDone }
func (*TaskCancel) Kind() MsgKind    { return KindTaskCancel }
func (*Settled) Kind() MsgKind       { return KindSettled }
func (*ResultSettled) Kind() MsgKind { return KindResultSettled }
func (*Claim) Kind() MsgKind         { return KindClaim }
func (*ClaimAck) Kind() MsgKind      { return KindClaimAck }
func (*Unclaim) Kind() MsgKind       { return KindUnclaim }
func (*ObjAsk) Kind() MsgKind        { return KindObjAsk }
func (*ObjReady) Kind() MsgKind      { return KindObjReady }
func (*ObjCopy) Kind() MsgKind       { return KindObjCopy }
func (*ObjFree) Kind() MsgKind       { return KindObjFree }
func (*FetchAsk) Kind() MsgKind      { return KindFetchAsk }
func (*FetchFrom) Kind() MsgKind     { return KindFetchFrom }
func (*ActorStop) Kind() MsgKind     { return KindActorStop }
func (*ActorGone) Kind() MsgKind     { return KindActorGone }
func (*ActorMine) Kind() MsgKind     { return KindActorMine }
func (*ObjKeep) Kind() MsgKind       { return KindObjKeep }
func (*StreamItem) Kind() MsgKind    { return KindStreamItem }
func (*StreamAsk) Kind() MsgKind     { return KindStreamAsk }
func (*StreamCredit) Kind() MsgKind  { return KindStreamCredit }

// Kind is the message's number.
func (*ObjCancel) Kind() MsgKind { return KindObjCancel }

// NewMsg is an empty message of a kind, to decode into; nil for an unknown kind.
func NewMsg(k MsgKind) Msg {
	switch k {
	case KindSlotAsk:
		return &SlotAsk{}
	case KindSlotGrant:
		return &SlotGrant{}
	case KindSlotReturn:
		return &SlotReturn{}
	case KindTemplate:
		return &TemplateMsg{}
	case KindTaskRun:
		return &TaskRun{}
	case KindTaskDone:
		return &TaskDone{}
	case KindTaskCancel:
		return &TaskCancel{}
	case KindSettled:
		return &Settled{}
	case KindResultSettled:
		return &ResultSettled{}
	case KindClaim:
		return &Claim{}
	case KindClaimAck:
		return &ClaimAck{}
	case KindUnclaim:
		return &Unclaim{}
	case KindObjAsk:
		return &ObjAsk{}
	case KindObjReady:
		return &ObjReady{}
	case KindObjCopy:
		return &ObjCopy{}
	case KindObjFree:
		return &ObjFree{}
	case KindFetchAsk:
		return &FetchAsk{}
	case KindFetchFrom:
		return &FetchFrom{}
	case KindActorStop:
		return &ActorStop{}
	case KindActorGone:
		return &ActorGone{}
	case KindActorMine:
		return &ActorMine{}
	case KindObjKeep:
		return &ObjKeep{}
	case KindStreamItem:
		return &StreamItem{}
	case KindStreamAsk:
		return &StreamAsk{}
	case KindStreamCredit:
		return &StreamCredit{}
	case KindObjCancel:
		return &ObjCancel{}
	}
	return nil
}
