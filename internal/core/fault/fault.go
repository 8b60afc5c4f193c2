// Package fault is the one error type of the engine: what was tried, on what, why it failed and what to do next.
// Its Kind survives the wire and picks the Python exception class.
package fault

import (
	"errors"
	"strings"
)

// Kind says what a caller can do about an error. Its names go on the wire (docs/protocol.md, "Daemon error kinds").
type Kind string

// The kinds that a daemon sends to clients.
const (
	System           Kind = "SYSTEM"
	WorkerCrashed    Kind = "WORKER_CRASHED"
	ObjectLost       Kind = "OBJECT_LOST"
	OwnerDied        Kind = "OWNER_DIED"
	StoreFull        Kind = "STORE_FULL"
	Cancelled        Kind = "CANCELLED"
	Unschedulable    Kind = "UNSCHEDULABLE"
	OutOfMemory      Kind = "OUT_OF_MEMORY"
	NodeDied         Kind = "NODE_DIED"
	RuntimeEnv       Kind = "RUNTIME_ENV"
	NotImplemented   Kind = "NOT_IMPLEMENTED"
	TaskGone         Kind = "TASK_GONE"
	ActorDied        Kind = "ACTOR_DIED"
	ActorUnavailable Kind = "ACTOR_UNAVAILABLE"
	NameTaken        Kind = "NAME_TAKEN"
	NotFound         Kind = "NOT_FOUND"
	Auth             Kind = "auth"
	Version          Kind = "version"
	Python           Kind = "python"
	Limit            Kind = "limit"
	Protocol         Kind = "protocol"
	Cluster          Kind = "cluster" // the peer is of another cluster
)

// Error is an error with its story.
type Error struct {
	Op     string // what was tried: "arena.Create"
	Kind   Kind
	Ref    string // on what: an id, an address, a path
	Detail string // figures, and what to do next
	Err    error  // cause, or nil
}

// Error renders "op ref: detail: cause".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Ref != "" {
		b.WriteByte(' ')
		b.WriteString(e.Ref)
	}
	if e.Detail != "" {
		b.WriteString(": ")
		b.WriteString(e.Detail)
	}
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf is the kind of the first *Error in err's chain, or System.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) && e.Kind != "" {
		return e.Kind
	}
	return System
}
