// Package explain holds what daemons say of a task, an object or an actor to who asks why it is where it is, and puts it
// into words. Each daemon reports what is in its own tables (core/engine); whoever was asked joins the reports of the
// daemons that know something with Join.
package explain

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"gray/internal/core/ids"
)

// Kind is what can be explained.
type Kind string

// The kinds, told apart by the length of their ids.
const (
	Task   Kind = "task"
	Object Kind = "object"
	Actor  Kind = "actor"
)

// Subject is what is asked about.
type Subject struct {
	Kind   Kind
	Task   ids.TaskID   // of a Task
	Object ids.ObjectID // of an Object
	Actor  ids.ActorID  // of an Actor
}

// Parse reads an id in hexadecimal, also as Python shows it: ObjectRef(…), TaskID(…), Actor(Class, …).
func Parse(text string) (Subject, error) {
	inner := text
	if _, after, ok := strings.Cut(text, "("); ok {
		inner = strings.TrimSuffix(after, ")")
		inner = inner[strings.LastIndexAny(inner, " ,")+1:]
	}
	b, err := hex.DecodeString(strings.TrimSpace(inner))
	switch {
	case err != nil:
	case len(b) == ids.TaskSize:
		return Subject{Kind: Task, Task: ids.TaskID(b)}, nil
	case len(b) == ids.ObjectSize:
		return Subject{Kind: Object, Object: ids.ObjectID(b)}, nil
	case len(b) == ids.ActorSize:
		return Subject{Kind: Actor, Actor: ids.ActorID(b)}, nil
	}
	return Subject{}, fmt.Errorf("%q is not the id of a task (%d hexadecimal digits), an object (%d) or an actor (%d)", text, 2*ids.TaskSize, 2*ids.ObjectSize, 2*ids.ActorSize)
}

// Unique is the unique part of the id, which names its owner.
func (s Subject) Unique() ids.Unique {
	switch s.Kind {
	case Task:
		return s.Task.Unique()
	case Object:
		return s.Object.Unique()
	}
	return s.Actor.Unique()
}

// String is the id in hexadecimal.
func (s Subject) String() string {
	switch s.Kind {
	case Task:
		return s.Task.String()
	case Object:
		return s.Object.String()
	}
	return s.Actor.String()
}

// Report is what one daemon knows of a subject. What does not apply is zero.
type Report struct {
	Kind  Kind   `json:"kind"`
	ID    string `json:"id"`
	Name  string `json:"name,omitempty"` // of the function, or the class
	Job   string `json:"job_id,omitempty"`
	State string `json:"state"`   // docs/states.md
	Why   string `json:"why"`     // a sentence: why it is where it is
	Node  string `json:"node_id"` // whose tables say so

	// Of a task.
	RunsOn   string    `json:"runs_on,omitempty"` // the node that it was sent to, or where the actor lives
	PID      int       `json:"pid,omitempty"`
	Seconds  float64   `json:"seconds,omitempty"` // since it got its place there
	Attempt  uint32    `json:"attempt,omitempty"` // 0 is the first
	Retries  *int32    `json:"retries_left,omitempty"`
	Actor    string    `json:"actor_id,omitempty"` // of a call or a creation
	Queue    *Queue    `json:"queue,omitempty"`
	Nodes    []Verdict `json:"nodes,omitempty"` // what each node lacks for it
	More     int       `json:"more_nodes,omitempty"`
	Missing  []Missing `json:"missing,omitempty"`    // arguments that are not ready, or not here
	Blocked  []Missing `json:"blocked_on,omitempty"` // what a running task waits for in ray.get
	Returned []Missing `json:"returned,omitempty"`

	// Of an object.
	Size    uint64   `json:"size,omitempty"`
	Error   bool     `json:"is_error,omitempty"` // its value is an exception
	Copies  []Copy   `json:"copies,omitempty"`   // nodes that have its bytes
	Holders []Holder `json:"holders,omitempty"`  // who references it
	Waiters []Holder `json:"waiters,omitempty"`  // who waits for it

	Life *Life `json:"actor,omitempty"` // of an actor

	Elsewhere []*Report    `json:"elsewhere,omitempty"` // what other nodes say of it
	Notes     []string     `json:"notes,omitempty"`     // what could not be found out
	Ask       []ids.NodeID `json:"-"`                   // nodes that know more
	AskHex    []string     `json:"ask,omitempty"`       // the same between daemons
}

// Queue is where a task stands among those that wait for a place.
type Queue struct {
	Place    int    `json:"place,omitempty"` // from 1; 0 if it is far behind
	Of       int    `json:"of"`              // tasks of its job with the same needs
	Jobs     int    `json:"jobs"`            // that have such tasks and take turns
	Tasks    int    `json:"tasks"`           // of all of them
	Needs    string `json:"needs"`
	Strategy string `json:"strategy,omitempty"`
}

// Verdict is what a node lacks for a task.
type Verdict struct {
	Node string `json:"node_id"`
	Name string `json:"name,omitempty"`
	Why  string `json:"why"`
}

// Missing is an argument that is waited for, and why it is not there.
type Missing struct {
	ID    string `json:"object_id"`
	State string `json:"state"`
	Why   string `json:"why"`
	Ask   string `json:"ask,omitempty"` // a node that may know more, about the object On; not left in a whole report
	On    string `json:"on,omitempty"`
}

// Copy is a node that has an object's bytes.
type Copy struct {
	Node    string `json:"node_id"`
	Primary bool   `json:"primary,omitempty"` // it must keep them
	Partial bool   `json:"partial,omitempty"` // they are still arriving there
}

// Holder is somebody who references an object, or waits for it.
type Holder struct {
	Node string `json:"node_id"`
	What string `json:"what"`
}

// Life is what is known of an actor.
type Life struct {
	Name        string   `json:"name,omitempty"`
	Namespace   string   `json:"namespace,omitempty"`
	Detached    bool     `json:"detached,omitempty"`
	Manager     string   `json:"manager_node_id,omitempty"` // who decides on restarts
	Incarnation uint32   `json:"incarnation"`               // 0 is the first
	MaxRestarts int32    `json:"max_restarts"`              // -1: without end
	Left        *int32   `json:"restarts_left,omitempty"`
	Past        []Past   `json:"past,omitempty"`    // incarnations that ended, the latest last
	Running     []string `json:"running,omitempty"` // calls that its process has
	Callers     []Calls  `json:"callers,omitempty"` // with calls that have not ended
	Death       *Past    `json:"death,omitempty"`
	Creation    *Report  `json:"creation,omitempty"` // of the incarnation that is being made
}

// Past is how an incarnation ended.
type Past struct {
	Incarnation uint32 `json:"incarnation"`
	Node        string `json:"node_id,omitempty"`
	PID         int    `json:"pid,omitempty"`
	Cause       string `json:"cause"`
	Text        string `json:"text"`
}

// Calls are a caller's calls of an actor that have not ended.
type Calls struct {
	Node    string `json:"node_id"`
	Caller  string `json:"caller"`
	Group   string `json:"group,omitempty"`
	Waiting int    `json:"waiting"`
	Sent    int    `json:"sent"` // on their way to the actor, or with it
}

// Join adds to r what another daemon says of the same subject.
func (r *Report) Join(o *Report) {
	r.Notes = append(r.Notes, o.Notes...)
	if r.Kind == Object {
		r.Holders = append(r.Holders, o.Holders...)
		r.Waiters = append(r.Waiters, o.Waiters...)
		if o.State == "FETCHING" || o.State == "CREATING" {
			r.Notes = append(r.Notes, "on node "+o.Node+": "+o.Why)
		}
		return
	}
	if r.Life != nil && o.Life != nil {
		r.Life.Callers = append(r.Life.Callers, o.Life.Callers...)
		r.Life.Running = append(r.Life.Running, o.Life.Running...)
		if o.Life.Creation == nil && !o.hosts() {
			return
		}
	}
	if r.PID == 0 {
		r.PID, r.Seconds = o.PID, o.Seconds
	}
	r.Elsewhere = append(r.Elsewhere, o)
}

// Open are the reasons, in this report and those in it, to which another node may add more.
func (r *Report) Open() (list []*Missing) {
	for _, part := range [][]Missing{r.Missing, r.Blocked} {
		for k := range part {
			if part[k].Ask != "" {
				list = append(list, &part[k])
			}
		}
	}
	if r.Life != nil && r.Life.Creation != nil {
		list = append(list, r.Life.Creation.Open()...)
	}
	for _, o := range r.Elsewhere {
		list = append(list, o.Open()...)
	}
	return list
}

// hosts tells whether the daemon that reports runs the actor.
func (r *Report) hosts() bool { return r.RunsOn != "" && r.RunsOn == r.Node }

// PrepareToSend writes Ask where it travels; Received reads it.
func (r *Report) PrepareToSend() {
	r.AskHex = nil
	for _, id := range r.Ask {
		r.AskHex = append(r.AskHex, id.String())
	}
}

// Received takes a report that another daemon sent.
func (r *Report) Received() error {
	for _, text := range r.AskHex {
		id, err := ids.ParseNode(text)
		if err != nil {
			return err
		}
		if !slices.Contains(r.Ask, id) {
			r.Ask = append(r.Ask, id)
		}
	}
	r.AskHex = nil
	return nil
}
