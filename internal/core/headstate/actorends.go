package headstate

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
)

// maxPickled bounds the exception that a DEAD actor's row keeps for those who ask later; its text stays.
const maxPickled = 64 << 10

func ownerDied(node ids.NodeID) actor.Death {
	return actor.Death{
		Cause: actor.OwnerDied, ExitType: "SYSTEM_ERROR",
		Text: fmt.Sprintf("The actor is dead because its owner has died. Owner Id: %s", node),
	}
}

// bury makes a row DEAD, for ever: its name is free from here on.
func (s *State) bury(now time.Duration, r *actorRec, death actor.Death) {
	s.unindex(r)
	r.row.State, r.row.Death, r.row.EndMs, r.row.Meta = actor.Dead, death, s.wallMs(now), nil
	r.row.Dying = false
	r.spec, r.kill, r.adopting = nil, nil, false
	s.actors.parked = append(s.actors.parked, r.heirs...)
	r.heirs = nil
	s.touch(r)
	if r.row.Detached {
		s.remove(&ActorSpec{ID: r.row.ID})
		s.putActor(r)
		if j := s.jobs[r.row.Job]; j != nil {
			s.endJob(now, j, false, "its detached actor is dead: "+death.Text)
		}
	}
	r.inDead = s.actors.dead.PushBack(r)
	for s.actors.dead.Len() > s.cfg.MaxDeadActors {
		s.forgetActor(s.actors.dead.Front().Value.(*actorRec))
	}
}

// forgetActor drops a DEAD row.
func (s *State) forgetActor(r *actorRec) {
	s.actors.dead.Remove(r.inDead)
	delete(s.actors.byID, r.row.ID)
	if r.row.Detached {
		s.remove(&ActorRecord{Row: actor.Row{ID: r.row.ID}})
	}
}

// endActorsOf ends the actors of a job that ends in this Step.
func (s *State) endActorsOf(now time.Duration, id ids.Job) {
	for _, r := range s.actors.byJob[id].sorted() {
		s.decided(r)
		s.bury(now, r, ownerDied(r.row.Manager))
	}
}

// actorsOfDead sees to the actors that a node managed which dies in this Step, and to what it asked for.
func (s *State) actorsOfDead(now time.Duration, n *node) {
	s.stopWatching(n)
	s.actors.recheck = true // of what only it could tell
	s.actors.safe = s.next
	for _, r := range n.managed.sorted() {
		if r.row.Detached {
			s.adopt(r)
			continue
		}
		s.decided(r)
		s.bury(now, r, ownerDied(n.id()))
	}
}

// adopt gives a detached actor a new manager, or notes that there is none.
func (s *State) adopt(r *actorRec) {
	if old := s.nodes[r.row.Manager]; old != nil {
		delete(old.managed, r.row.ID)
	}
	to := s.adopter()
	if to == nil {
		if _, orphan := s.actors.orphans[r.row.ID]; !orphan {
			s.actors.orphans[r.row.ID] = r
			r.row.Manager, r.adopting = ids.NodeID{}, false
			s.putActor(r)
			s.touch(r)
		}
		return
	}
	delete(s.actors.orphans, r.row.ID)
	r.row.Manager, r.adopting = to.id(), true
	to.manage(r)
	s.putActor(r)
	s.touch(r)
	s.tellAdopted(r)
}

// tellAdopted tells a detached actor's new manager, when that is safe.
func (s *State) tellAdopted(r *actorRec) {
	seq := max(r.said, s.settled())
	s.sendAfter(seq, r.row.Manager, &ActorAdopt{Row: r.row, Spec: r.spec})
	if r.kill != nil {
		s.sendAfter(seq, r.row.Manager, r.kill)
	}
}

// adopter is the node that adopts actors: the head's own, or the one that joined first.
func (s *State) adopter() *node {
	var first *node
	for e := s.joined.Front(); e != nil; e = e.Next() {
		n := e.Value.(*node)
		if n.state != Alive {
			continue
		}
		if n.row.Info.Head {
			return n
		}
		if first == nil {
			first = n
		}
	}
	return first
}

func (s *State) adoptOrphans() {
	for _, r := range s.actors.orphans.sorted() {
		s.adopt(r)
	}
}

// takeActors compares what a node that registers again manages with what the head knows of that.
func (s *State) takeActors(now time.Duration, n *node, rows []actor.Row) {
	seen := make(map[ids.ActorID]bool, len(rows))
	for _, row := range rows {
		seen[row.ID] = true
		s.actorUpdate(now, n, row)
	}
	for _, r := range n.managed.sorted() {
		if seen[r.row.ID] || r.adopting {
			continue
		}
		s.bury(now, r, actor.Death{
			Cause: actor.OwnerDied, ExitType: "SYSTEM_ERROR", Never: r.row.StartMs == 0,
			Text: fmt.Sprintf("The actor is dead: node %s, which managed it, no longer has it, and how it ended was lost with a link to the head.", n.id()),
		})
	}
}

// remindActors says again, to a node that is registered again, what may have been lost with its link.
func (s *State) remindActors(n *node) {
	for _, r := range n.managed.sorted() {
		switch {
		case r.adopting:
			s.tellAdopted(r)
		case r.kill != nil:
			s.sendAfter(s.settled(), n.id(), r.kill)
		}
	}
}

func (s *State) actorKill(n *node, m *ActorKill) {
	do := &ActorDo{ID: m.ID, NoRestart: m.NoRestart}
	r := s.actors.byID[m.ID]
	switch {
	case r == nil && s.restored > 0:
		s.park(n, m)
		return
	case r == nil:
		// News of it may be on their way from the node that made it.
		if o := s.mayTell(m.ID); o != nil {
			s.send(o.id(), do)
		}
	case r.row.State != actor.Dead:
		if r.kill == nil || !r.kill.NoRestart {
			r.kill, r.killed = do, r.row.Incarnation
			r.row.Dying = r.row.Dying || m.NoRestart
		}
		if s.nodes[r.row.Manager] != nil { // else the next manager is told
			s.sendAfter(r.said, r.row.Manager, do)
		}
	}
	s.send(n.id(), &Done{Req: m.Req})
}

// loadActors takes in the detached actors that the store holds, once nodes and jobs are loaded.
func (s *State) loadActors(rows []*ActorRecord, specs map[ids.ActorID][]byte) error {
	var dead []*actorRec
	for _, rec := range rows {
		r := &actorRec{row: rec.Row, heard: rec.Heard, adopting: rec.Adopting, spec: specs[rec.Row.ID]}
		if r.row.State == actor.Dead {
			s.actors.byID[r.row.ID] = r
			dead = append(dead, r)
			continue
		}
		if r.row.Dying { // who manages it may not have heard
			r.kill, r.killed = &ActorDo{ID: r.row.ID, NoRestart: true}, r.row.Incarnation
		}
		if j := s.jobs[r.row.Job]; j == nil || !j.row.Virtual {
			return fmt.Errorf("headstate: the store holds actor %s but not its job %s", r.row.ID, r.row.Job)
		}
		if h := s.actors.named(r.row.Namespace, r.row.Name); h != nil && r.row.Name != "" {
			return fmt.Errorf("headstate: the store holds two actors, %s and %s, with the name %q in namespace %q", h.row.ID, r.row.ID, r.row.Name, r.row.Namespace)
		}
		n := s.nodes[r.row.Manager]
		if n == nil || n.state == Dead {
			n = nil
			s.actors.orphans[r.row.ID] = r
		}
		s.addActor(n, r)
	}
	slices.SortFunc(dead, func(a, b *actorRec) int {
		return cmp.Or(cmp.Compare(a.row.EndMs, b.row.EndMs), slices.Compare(a.row.ID[:], b.row.ID[:]))
	})
	for _, r := range dead {
		r.inDead = s.actors.dead.PushBack(r)
	}
	return nil
}
