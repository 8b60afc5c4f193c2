package headstate

import (
	"container/list"
	"fmt"
	"slices"
	"time"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
)

// watched is an actor that nodes want to hear of. While the head knows nothing of it, it is in unknown.
type watched struct {
	id    ids.ActorID
	by    []*node
	since time.Duration
	elem  *list.Element // in unknown
}

// parkedCall waits until every node that a head came back to has been heard.
type parkedCall struct {
	from *node
	call Call
}

func (s *State) park(n *node, c Call) { s.actors.parked = append(s.actors.parked, parkedCall{n, c}) }

// mayTell is the node that made an actor, if it lives: news of the actor may be on their way from it.
func (s *State) mayTell(id ids.ActorID) *node {
	if o := s.owners[id.Unique().Owner()]; o != nil && o.state == Alive {
		return o
	}
	return nil
}

func (s *State) actorWatch(now time.Duration, n *node, m *ActorWatch) {
	s.unwatch(n, m.ID)
	if !m.On {
		return
	}
	r := s.actors.byID[m.ID]
	if r == nil && s.restored == 0 && s.mayTell(m.ID) == nil {
		s.sendAfter(s.actors.safe, n.id(), &ActorChanged{Row: s.unknownActor(m.ID)})
		return
	}
	if r != nil {
		s.sendAfter(r.said, n.id(), &ActorChanged{Row: r.row})
		if r.row.State == actor.Dead {
			return
		}
	}
	w := s.actors.watched[m.ID]
	if w == nil {
		w = &watched{id: m.ID, since: now}
		s.actors.watched[m.ID] = w
		if r == nil {
			w.elem = s.actors.unknown.PushBack(w)
		}
	}
	w.by = append(w.by, n)
	if n.watches == nil {
		n.watches = map[ids.ActorID]*watched{}
	}
	n.watches[m.ID] = w
}

// watchersOf are the nodes that want to hear of an actor, maxWatchers at most.
func (s *State) watchersOf(id ids.ActorID) (list []ids.NodeID) {
	if w := s.actors.watched[id]; w != nil {
		for _, n := range w.by[:min(len(w.by), maxWatchers)] {
			list = append(list, n.id())
		}
	}
	return list
}

// maxWatchers bounds an answer that names them.
const maxWatchers = 100

// watchUnknown goes on watching an actor whose row is dropped.
func (s *State) watchUnknown(now time.Duration, id ids.ActorID) {
	if w := s.actors.watched[id]; w != nil && w.elem == nil {
		w.since, w.elem = now, s.actors.unknown.PushBack(w)
	}
}

func (s *State) unwatch(n *node, id ids.ActorID) {
	w := n.watches[id]
	if w == nil {
		return
	}
	delete(n.watches, id)
	i := slices.Index(w.by, n)
	w.by = slices.Delete(w.by, i, i+1)
	if len(w.by) == 0 {
		s.dropWatched(w)
	}
}

func (s *State) dropWatched(w *watched) {
	for _, n := range w.by {
		delete(n.watches, w.id)
	}
	delete(s.actors.watched, w.id)
	if w.elem != nil {
		s.actors.unknown.Remove(w.elem)
	}
}

// stopWatching forgets what a node asked for: it is dead, or says it anew.
func (s *State) stopWatching(n *node) {
	for id := range n.watches {
		s.unwatch(n, id)
	}
	of := func(p parkedCall) bool { return p.from == n }
	s.actors.parked = slices.DeleteFunc(s.actors.parked, of)
	for _, ns := range s.actors.names {
		for _, r := range ns {
			r.heirs = slices.DeleteFunc(r.heirs, of)
		}
	}
}

// touch has an actor's watchers told when this Step ends.
func (s *State) touch(r *actorRec) {
	if !r.dirty {
		r.dirty = true
		s.actors.changed = append(s.actors.changed, r)
	}
}

// tellWatchers tells of what changed in this Step, and answers what had to wait for others to be heard.
func (s *State) tellWatchers(now time.Duration) {
	t := &s.actors
	if s.restored == 0 && len(t.parked) > 0 {
		parked := t.parked
		t.parked = nil
		for _, p := range parked {
			s.call(now, p.from, p.call)
		}
	}
	for _, r := range t.changed {
		r.dirty = false
		w := t.watched[r.row.ID]
		if w != nil {
			if w.elem != nil {
				t.unknown.Remove(w.elem)
				w.elem = nil
			}
			m := &ActorChanged{Row: r.row}
			for _, n := range w.by {
				s.sendAfter(r.said, n.id(), m)
			}
		}
		if r.row.State == actor.Dead {
			if w != nil {
				s.dropWatched(w)
			}
			if len(r.row.Death.Pickled) > maxPickled {
				r.row.Death.Pickled = nil
			}
		}
	}
	t.changed = t.changed[:0]
	s.giveUp(now)
}

// giveUp answers watches of actors that nobody can tell of any more: their maker is dead, or has been heard since without
// a word of them.
func (s *State) giveUp(now time.Duration) {
	t := &s.actors
	if s.restored > 0 {
		return
	}
	all := t.recheck
	t.recheck = false
	for e := t.unknown.Front(); e != nil; {
		w := e.Value.(*watched)
		e = e.Next()
		late := now-w.since >= s.cfg.DeadAfter
		if !late && !all {
			return
		}
		if late || s.mayTell(w.id) == nil {
			m := &ActorChanged{Row: s.unknownActor(w.id)}
			for _, n := range w.by {
				s.sendAfter(s.settled(), n.id(), m)
			}
			s.dropWatched(w)
		}
	}
}

// unknownActor is what is said of an actor that the head has no row of.
func (s *State) unknownActor(id ids.ActorID) actor.Row {
	row := actor.Row{ID: id, Job: id.Job(), State: actor.Dead}
	if o := s.owners[id.Unique().Owner()]; o != nil && o.state == Dead {
		row.Manager = o.id()
		row.Death = ownerDied(o.id())
		return row
	}
	row.Death = actor.Death{
		Cause: actor.OwnerDied, ExitType: "SYSTEM_ERROR",
		Text: fmt.Sprintf("The actor is dead because its owner has died, or it died long ago: the head of the cluster no longer knows actor %s.", id),
	}
	return row
}
