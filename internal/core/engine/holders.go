package engine

import (
	"fmt"
	"slices"
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

// holders tells who keeps objects in the store. It looks at every session, task and container once: errors and people ask,
// not the hot path.
func (e *Engine) holders(list []memory.Holder) []Holder {
	out := make([]Holder, len(list))
	at := map[uint32]int{} // object → its place in out
	for k, m := range list {
		out[k].Size = m.Size
		if i := e.memObjs[m.Key]; i != 0 {
			out[k].ID = e.objs.at(i).id
			at[i] = k
			continue
		}
		for _, ti := range sortedKeys(e.bundles) {
			if e.bundles[ti].body == m.Key {
				out[k].By = append(out[k].By, "of "+e.taskName(e.tasks.at(ti)))
			}
		}
	}
	more := make([]int, len(list))
	e.keepers(at, func(i uint32, format string, args ...any) {
		k := at[i]
		if len(out[k].By) == maxKeepers {
			more[k]++
			return
		}
		out[k].By = append(out[k].By, fmt.Sprintf(format, args...))
	})
	for k := range out {
		switch {
		case more[k] > 0:
			out[k].By = append(out[k].By, fmt.Sprintf("and %d more", more[k]))
		case len(out[k].By) == 0:
			out[k].By = []string{"state " + list[k].State.String()}
		}
	}
	return out
}

// keepers says who keeps the bytes of objects here.
func (e *Engine) keepers(objs map[uint32]int, add func(i uint32, format string, args ...any)) {
	for _, sid := range sortedKeys(e.sessions) {
		s := e.sessions[sid]
		for _, i := range sortedKeys(objs) {
			if _, writes := s.creates[i]; writes {
				add(i, "written by %s", e.process(s))
			}
			if s.pins[i] > 0 {
				add(i, "read by %s", e.process(s))
			}
			if e.objs.at(i).claimS == sid || s.claims[i] > 0 {
				add(i, "refs in %s", e.process(s))
			}
		}
	}
	for ti := uint32(1); ti < e.tasks.limit(); ti++ {
		t := e.tasks.at(ti)
		for k, i := range t.refs {
			switch _, ok := objs[i]; {
			case !ok || slices.Contains(t.refs[:k], i):
			case k < int(t.nDeps):
				add(i, "argument of %s", e.taskName(t))
			default:
				add(i, "in an argument of %s", e.taskName(t))
			}
		}
	}
	in := map[uint32][]uint32{} // object → objects that contain it
	for c, inner := range e.contained {
		for k, i := range inner {
			if _, ok := objs[i]; ok && !slices.Contains(inner[:k], i) {
				in[i] = append(in[i], c)
			}
		}
	}
	for _, i := range sortedKeys(in) {
		slices.Sort(in[i])
		for _, c := range in[i] {
			add(i, "in ObjectRef(%s)", e.objs.at(c).id)
		}
	}
	for _, i := range sortedKeys(objs) {
		o := e.objs.at(i)
		if s := e.spread[i]; s != nil {
			for _, no := range sortedKeys(s.borrowers) {
				if p := e.peers[no]; p != nil {
					add(i, "refs on %s", p)
				}
			}
		}
		if o.flags&flagPrimary != 0 {
			owner := "its owner"
			if p := e.peers[e.owners[o.id.Owner()]]; p != nil {
				owner = p.String()
			}
			add(i, "kept for %s", owner)
		}
	}
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
	return fmt.Sprintf("task %s (%s)", e.nameOf(t), e.taskID(t))
}

// nameOf is what a task is called: by its call, or by its function.
func (e *Engine) nameOf(t *task) string {
	if name := nameIn(e.blobs.get(t.over)); name != "" {
		return name
	}
	return e.templates[t.tmpl].spec.Name
}

// nameIn is the name in the overrides of a call, a small msgpack map that begins with it if there is one.
func nameIn(over []byte) string {
	const key = "\xa4name"
	if len(over) < 2+len(key) || over[0]&0xf0 != 0x80 || string(over[1:1+len(key)]) != key {
		return ""
	}
	at := 1 + len(key)
	var n int
	switch c := over[at]; {
	case c&0xe0 == 0xa0:
		n = int(c & 0x1f)
	case c == 0xd9 && len(over) > at+1:
		n = int(over[at+1])
		at++
	case c == 0xda && len(over) > at+2:
		n = int(over[at+1])<<8 | int(over[at+2])
		at += 2
	default:
		return ""
	}
	if len(over) < at+1+n {
		return ""
	}
	return string(over[at+1 : at+1+n])
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
