package engine

import (
	"fmt"
	"strings"

	"gray/internal/core/extent"
	"gray/internal/core/ids"
	"gray/internal/core/memory"
)

// Holder is an object whose bytes cannot go, and who keeps them.
type Holder struct {
	ID   ids.ObjectID // zero: the arguments of a task
	Size int64
	By   []string
}

const (
	maxHolders = 5 // that an error names
	maxKeepers = 4 // that are named of each
)

// fullText is why a request for room fails: sizes, and who holds the largest objects.
func (e *Engine) fullText(f *memory.Full) string {
	text := f.String()
	for k, h := range e.holders(f.Holders) {
		sep := ", "
		if k == 0 {
			sep = "; the largest: "
		}
		what := "the arguments of a task"
		if h.ID != (ids.ObjectID{}) {
			what = "ObjectRef(" + h.ID.String() + ")"
		}
		text += fmt.Sprintf("%s%s %s (%s)", sep, extent.Human(h.Size), what, strings.Join(h.By, "; "))
	}
	return text
}

// holders tells who keeps objects in the store. It looks at every session and task: errors and people ask, not the hot path.
func (e *Engine) holders(list []memory.Holder) []Holder {
	out := make([]Holder, 0, len(list))
	for _, m := range list {
		h := Holder{Size: m.Size}
		if i := e.memObjs[m.Key]; i != 0 {
			h.ID, h.By = e.objs.at(i).id, e.keepers(i)
		} else {
			for _, ti := range sortedKeys(e.bundles) {
				if e.bundles[ti].body == m.Key {
					h.By = append(h.By, "of "+e.taskName(e.tasks.at(ti)))
				}
			}
		}
		if len(h.By) == 0 {
			h.By = []string{"state " + m.State.String()}
		}
		out = append(out, h)
	}
	return out
}

// keepers says who keeps an object's bytes here.
func (e *Engine) keepers(i uint32) (by []string) {
	o := e.objs.at(i)
	more := 0
	add := func(format string, args ...any) {
		if len(by) == maxKeepers {
			more++
			return
		}
		by = append(by, fmt.Sprintf(format, args...))
	}
	for _, sid := range sortedKeys(e.sessions) {
		s := e.sessions[sid]
		if _, writes := s.creates[i]; writes {
			add("written by %s", e.process(s))
		}
		if s.pins[i] > 0 {
			add("read by %s", e.process(s))
		}
		if o.claimS == sid || s.claims[i] > 0 {
			add("refs in %s", e.process(s))
		}
	}
	for ti := uint32(1); ti < e.tasks.limit(); ti++ {
		t := e.tasks.at(ti)
		for k, r := range t.refs {
			if r == i {
				what := "in an argument of"
				if k < int(t.nDeps) {
					what = "argument of"
				}
				add("%s %s", what, e.taskName(t))
				break
			}
		}
	}
	for _, c := range sortedKeys(e.contained) {
		for _, r := range e.contained[c] {
			if r == i {
				add("in ObjectRef(%s)", e.objs.at(c).id)
				break
			}
		}
	}
	if s := e.spread[i]; s != nil {
		for _, no := range sortedKeys(s.borrowers) {
			if p := e.peers[no]; p != nil {
				add("refs on %s", p)
			}
		}
	}
	if o.flags&flagPrimary != 0 {
		owner := "its owner"
		if p := e.peers[e.owners[o.id.Owner()]]; p != nil {
			owner = p.String()
		}
		add("kept for %s", owner)
	}
	if more > 0 {
		by = append(by, fmt.Sprintf("and %d more", more))
	}
	return by
}

// process names a client, and the task that it runs.
func (e *Engine) process(s *session) string {
	text := e.sink.Process(s.id)
	if s.worker != nil && len(s.worker.fifo) > 0 {
		text += ", which runs " + e.taskName(e.tasks.at(s.worker.fifo[0]))
	}
	if s.ended {
		text += ", which has disconnected"
	}
	return text
}

// taskName names a task for people.
func (e *Engine) taskName(t *task) string {
	return fmt.Sprintf("task %s (%s)", e.templates[t.tmpl].spec.Name, t.unique.Task(t.job))
}

// madeBy says where an object comes from.
func (e *Engine) madeBy(o *object) string {
	if tm := e.templates[o.tmpl]; o.tmpl != 0 && tm.spec.Job == o.id.Job() {
		return fmt.Sprintf("made by task %s (%s)", tm.spec.Name, o.id.Task())
	}
	if e.mine(o.id) {
		return "put by job " + o.id.Job().String()
	}
	return "made by task " + o.id.Task().String()
}

// lostText is the sentence of an object whose bytes are gone.
func (e *Engine) lostText(o *object, why string) string {
	return "object " + o.id.String() + ", " + e.madeBy(o) + ", is lost: " + why
}
