// Package actor holds the plain values that daemons and the head say of actors: where one stands, what it is, how it
// died. Who decides what: the manager of an actor, the daemon whose client created it, makes each incarnation and
// decides on restarts (core/engine); the head knows names and places, and tells those who ask (core/headstate).
package actor

import "gray/internal/core/ids"

// State is where an actor stands. Its names are those of docs/states.md, and Ray's.
type State string

// States of an actor.
const (
	Waiting    State = "DEPENDENCIES_UNREADY" // an argument of its constructor is not ready
	Pending    State = "PENDING_CREATION"     // waits for a place, a process, or its constructor
	Alive      State = "ALIVE"
	Restarting State = "RESTARTING" // as PENDING_CREATION, but it was alive before
	Dead       State = "DEAD"
)

// next are all the changes of state that an actor makes.
var next = map[State][]State{
	"":         {Waiting, Pending, Alive, Restarting, Dead}, // the first that is heard of it
	Waiting:    {Pending, Alive, Restarting, Dead},
	Pending:    {Alive, Waiting, Restarting, Dead},
	Alive:      {Restarting, Dead},
	Restarting: {Alive, Dead},
	Dead:       nil,
}

// CanGo tells whether an actor may go from s to t.
func (s State) CanGo(t State) bool {
	for _, ok := range next[s] {
		if ok == t {
			return true
		}
	}
	return false
}

// Cause says what kind of end an actor came to.
type Cause string

// Causes of death.
const (
	NotDead     Cause = ""
	Killed      Cause = "KILLED"       // ray.kill
	Unreferred  Cause = "OUT_OF_SCOPE" // its last handle is gone
	OwnerDied   Cause = "OWNER_DIED"   // who created it is gone
	WorkerDied  Cause = "WORKER_DIED"  // its process died
	Exited      Cause = "EXITED"       // it left by itself
	NodeDied    Cause = "NODE_DIED"    // its machine is gone
	InitFailed  Cause = "CREATION_TASK_ERROR"
	Unplaceable Cause = "UNSCHEDULABLE"
	NoEnv       Cause = "RUNTIME_ENV_SETUP_FAILED" // its runtime environment cannot be made
)

// Death is how an actor, or one incarnation of it, ended.
type Death struct {
	Cause    Cause
	Text     string // a sentence, worded as Ray's
	ExitType string // Ray's names: SYSTEM_ERROR, INTENDED_USER_EXIT, INTENDED_SYSTEM_EXIT, USER_ERROR
	Pickled  []byte // of InitFailed: the constructor's exception, a value of format 3
	Never    bool   // it never ran
}

// Row is all that others are told of an actor.
type Row struct {
	ID          ids.ActorID
	Job         ids.Job
	Manager     ids.NodeID // who makes its incarnations
	Name        string
	Namespace   string
	Class       string
	Repr        string
	Detached    bool
	MaxRestarts int32  // -1 = for ever
	Meta        []byte // what clients need to make a handle
	Resources   map[string]int64
	State       State
	Node        ids.NodeID // of the present or last incarnation
	IP          string
	PID         int
	Incarnation uint32 // 0 is the first; counts restarts
	Death       Death
	StartMs     int64               // Unix time; set by the head
	EndMs       int64               // Unix time, 0 while it lives; set by the head
	Labels      map[string]string   // that its node must have
	Fallback    []map[string]string // labels that will do where no node with Labels is free, in order
	Site        string              // where in its program it was created, if that is recorded
	Dying       bool                // it is being ended for ever; its process may still be there, and its name is not free yet
}
