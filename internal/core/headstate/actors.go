package headstate

import (
	"bytes"
	"container/list"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
)

// actorRec is a row of the actor table.
type actorRec struct {
	row      actor.Row
	spec     []byte // of a detached actor that lives
	said     uint64 // what is said of it waits for this batch
	heard    bool   // its manager has told of it, and not only registered it
	adopting bool   // its manager was told to adopt it and has not told of it yet
	kill     *ActorDo
	killed   uint32       // the incarnation that kill is about
	heirs    []parkedCall // registrations of its name, once it is free: it is dying
	dirty    bool         // its watchers are to be told in this Step
	inDead   *list.Element
}

// actors is the actor table and its indexes. Of an actor that is not DEAD, names, byJob and its manager's node know; no
// event about one actor looks at all of them.
type actors struct {
	byID    map[ids.ActorID]*actorRec
	names   map[string]map[string]*actorRec // by namespace and name
	byJob   map[ids.Job]actorSet            // those that end with the job
	orphans actorSet                        // detached ones that no node could adopt yet
	dead    *list.List                      // of *actorRec, the longest dead first
	safe    uint64                          // last batch that changed the table, or on which a change of it depends
	changed []*actorRec                     // whose watchers are to be told in this Step

	watched map[ids.ActorID]*watched
	unknown *list.List // of *watched without a row, the longest watched first
	recheck bool       // some of unknown may be answered
	parked  []parkedCall
}

type actorSet map[ids.ActorID]*actorRec

// sorted are the set's members by id, so that the same events have the same effects.
func (set actorSet) sorted() []*actorRec {
	return slices.SortedFunc(maps.Values(set), func(a, b *actorRec) int { return bytes.Compare(a.row.ID[:], b.row.ID[:]) })
}

func (t *actors) init() {
	*t = actors{
		byID: map[ids.ActorID]*actorRec{}, names: map[string]map[string]*actorRec{}, byJob: map[ids.Job]actorSet{},
		orphans: actorSet{}, dead: list.New(), watched: map[ids.ActorID]*watched{}, unknown: list.New(),
	}
}

// named is the actor that has a name.
func (t *actors) named(namespace, name string) *actorRec { return t.names[namespace][name] }

func (t *actors) setName(r *actorRec) {
	ns := t.names[r.row.Namespace]
	if ns == nil {
		ns = map[string]*actorRec{}
		t.names[r.row.Namespace] = ns
	}
	ns[r.row.Name] = r
}

func (t *actors) freeName(r *actorRec) {
	if ns := t.names[r.row.Namespace]; r.row.Name != "" && ns[r.row.Name] == r {
		delete(ns, r.row.Name)
		if len(ns) == 0 {
			delete(t.names, r.row.Namespace)
		}
	}
}

// jobOver tells whether a job's actors must be dead. A job that the head does not know ended long ago.
func (s *State) jobOver(id ids.Job) bool {
	j := s.jobs[id]
	return j == nil || j.row.State != JobRunning
}

func (s *State) actorRegister(now time.Duration, n *node, m *ActorRegister) {
	row := m.Row
	old := s.actors.byID[row.ID]
	holder := s.actors.named(row.Namespace, row.Name)
	switch {
	case old == nil:
	case old.row.Manager != n.id():
		s.fail(n, m, faultSystem, "head.ActorRegister: actor %s is another node's (%s)", row.ID, old.row.Manager)
		return
	case old.row.State == actor.Dead && !old.heard:
		// A link broke between the call and its answer, and the node's inventory did not have it.
		s.forgetActor(old)
	case row.Name == "" || holder == old || old.row.State == actor.Dead:
		s.sendAfter(old.said, n.id(), &ActorRegistered{Req: m.Req, Created: true, Row: old.row})
		return
	case holder == nil: // an inventory came before this call, when the name was not free
		old.said = max(old.said, s.actors.safe)
		s.actors.setName(old)
		s.sendAfter(old.said, n.id(), &ActorRegistered{Req: m.Req, Created: true, Row: old.row})
		return
	default: // or such an inventory, and the name is another's
		s.unindex(old)
		delete(s.actors.byID, row.ID)
		s.watchUnknown(now, row.ID)
	}
	switch {
	case row.Name == "":
	case holder != nil && holder.row.Dying:
		holder.heirs = append(holder.heirs, parkedCall{n, m})
		return
	case holder != nil && m.GetIfExists:
		s.sendAfter(holder.said, n.id(), &ActorRegistered{Req: m.Req, Row: holder.row})
		return
	case holder != nil:
		s.sendAfter(holder.said, n.id(), &Failed{Req: m.Req, Fault: faultNameTaken, Error: fmt.Sprintf(
			"The name %[1]s (namespace=%[2]s) is already taken. Please use a different name or get the existing actor using ray.get_actor('%[1]s', namespace='%[2]s')",
			row.Name, row.Namespace)})
		return
	case s.restored > 0: // it may have the name's holder
		s.park(n, m)
		return
	}
	if s.jobOver(row.Job) {
		s.fail(n, m, faultSystem, "head.ActorRegister: job %s, which creates actor %s, has ended", row.Job, row.ID)
		return
	}
	if row.Detached && s.meta.NextJob == math.MaxUint32 {
		s.fail(n, m, faultLimit, "head.ActorRegister: all job ids of this cluster are used up; start a new cluster")
		return
	}
	if len(m.Packages) > maxPackages {
		s.fail(n, m, faultLimit, "head.ActorRegister: its environment has %d packages; at most %d are possible", len(m.Packages), maxPackages)
		return
	}
	s.sendAfter(s.createActor(now, n, row, m.Spec, m.Packages), n.id(), &ActorRegistered{Req: m.Req, Created: true, Row: s.actors.byID[row.ID].row})
}

// createActor makes the row of a new actor, and gives the batch for which its registration waits: one may free the name.
func (s *State) createActor(now time.Duration, n *node, row actor.Row, spec []byte, packages []string) uint64 {
	row.Manager, row.StartMs, row.EndMs = n.id(), 0, 0
	if row.State == actor.Dead || !actor.State("").CanGo(row.State) {
		row.State = actor.Pending
	}
	r := &actorRec{row: row, said: s.actors.safe}
	if row.Detached {
		r.row.Job, r.spec = s.startVirtualJob(now, row, packages), spec
		s.put(&ActorSpec{ID: row.ID, Spec: spec})
		s.putActor(r)
	}
	s.addActor(n, r)
	return r.said
}

// startVirtualJob gives a detached actor a job that ends with it and with nothing else.
func (s *State) startVirtualJob(now time.Duration, row actor.Row, packages []string) ids.Job {
	j := &job{made: s.next, row: JobRow{
		ID: ids.JobFromInt(s.meta.NextJob), Key: [16]byte(row.ID), Driver: Driver{Namespace: row.Namespace}, State: JobRunning,
		StartMs: s.wallMs(now), Virtual: true, Packages: packages,
	}}
	s.meta.NextJob++
	s.jobs[j.row.ID] = j
	s.putMeta()
	s.putJob(j)
	return j.row.ID
}

// addActor puts a row that is not DEAD into the table; n may be nil.
func (s *State) addActor(n *node, r *actorRec) {
	t := &s.actors
	t.byID[r.row.ID] = r
	if r.row.Name != "" && t.named(r.row.Namespace, r.row.Name) == nil {
		t.setName(r)
	}
	if !r.row.Detached {
		if t.byJob[r.row.Job] == nil {
			t.byJob[r.row.Job] = actorSet{}
		}
		t.byJob[r.row.Job][r.row.ID] = r
	}
	if n != nil {
		n.manage(r)
	}
	if t.watched[r.row.ID] != nil {
		s.touch(r)
	}
}

func (n *node) manage(r *actorRec) {
	if n.managed == nil {
		n.managed = actorSet{}
	}
	n.managed[r.row.ID] = r
}

// unindex takes a row out of everything but byID.
func (s *State) unindex(r *actorRec) {
	t := &s.actors
	t.freeName(r)
	delete(t.orphans, r.row.ID)
	if of := t.byJob[r.row.Job]; of[r.row.ID] == r {
		delete(of, r.row.ID)
		if len(of) == 0 {
			delete(t.byJob, r.row.Job)
		}
	}
	if n := s.nodes[r.row.Manager]; n != nil {
		delete(n.managed, r.row.ID)
	}
}

// putActor stores a detached actor's row; what is said of it waits for that.
func (s *State) putActor(r *actorRec) {
	s.put(&ActorRecord{Row: r.row, Heard: r.heard, Adopting: r.adopting})
	s.decided(r)
}

// decided notes that a row depends on what this Step stores.
func (s *State) decided(r *actorRec) { r.said, s.actors.safe = s.next, s.next }

// actorUpdate takes in what a node says of an actor.
func (s *State) actorUpdate(now time.Duration, n *node, row actor.Row) {
	r := s.actors.byID[row.ID]
	switch {
	case r == nil:
		s.firstNews(now, n, row)
		return
	case r.row.Manager != n.id():
		s.note(true, "head: node %s tells of actor %s, which node %s manages; it is ignored", n.id(), row.ID, r.row.Manager)
		return
	case r.row.State == actor.Dead: // of the job's end, for one: its manager has heard of that by now
		r.heard = true
		return
	case row.Incarnation < r.row.Incarnation:
		s.note(true, "head: node %s tells of incarnation %d of actor %s, which has had incarnation %d; it is ignored", n.id(), row.Incarnation, row.ID, r.row.Incarnation)
		return
	case !legal(r.row, row):
		s.note(true, "head: node %s says that actor %s went from %s to %s, which can't be; it is ignored", n.id(), row.ID, r.row.State, row.State)
		return
	}
	s.apply(now, r, row)
}

// legal tells whether an actor may go from one row to another. News may be lost with a link, but a newer incarnation of
// one that was ALIVE was RESTARTING first.
func legal(from, to actor.Row) bool {
	via := actor.Restarting
	switch {
	case from.State.CanGo(to.State):
		return true
	case to.Incarnation == from.Incarnation || from.State == actor.Waiting || from.State == actor.Pending:
		return to.State == from.State
	}
	return (from.State == via || from.State.CanGo(via)) && (to.State == via || via.CanGo(to.State))
}

// firstNews is of an actor that was not registered by a call, or of one that a head forgot when it was started again.
func (s *State) firstNews(now time.Duration, n *node, row actor.Row) {
	if row.Manager != n.id() || !actor.State("").CanGo(row.State) {
		s.note(true, "head: node %s tells of an unknown actor %s that is %q and which node %s manages; it is ignored", n.id(), row.ID, row.State, row.Manager)
		return
	}
	if row.State == actor.Dead { // its registration was given up
		s.actors.parked = slices.DeleteFunc(s.actors.parked, func(p parkedCall) bool {
			m, ok := p.call.(*ActorRegister)
			return ok && m.Row.ID == row.ID && p.from == n
		})
	}
	if row.Detached {
		// The head forgets none that is registered, so a call that does so is on its way.
		return
	}
	death := row.Death
	state := row.State
	if state == actor.Dead {
		row.State = actor.Pending
	}
	row.StartMs, row.EndMs = 0, 0
	r := &actorRec{row: row, heard: true}
	if row.Name != "" {
		r.said = s.actors.safe
	}
	if row.State == actor.Alive {
		r.row.StartMs = s.wallMs(now)
	}
	s.addActor(n, r)
	switch {
	case state == actor.Dead:
		s.bury(now, r, death)
	case s.jobOver(row.Job):
		if j := s.jobs[row.Job]; j != nil {
			r.said = max(r.said, j.ended)
		}
		s.bury(now, r, ownerDied(n.id()))
	}
}

// apply takes in news of a row that are in order.
func (s *State) apply(now time.Duration, r *actorRec, row actor.Row) {
	before, first := r.row, !r.heard || r.adopting
	r.heard, r.adopting = true, false
	to := &r.row
	to.Dying = to.Dying || row.Dying
	to.Node, to.IP, to.PID, to.Incarnation, to.Repr, to.MaxRestarts = row.Node, row.IP, row.PID, row.Incarnation, row.Repr, row.MaxRestarts
	if len(row.Meta) > 0 {
		to.Meta = row.Meta
	}
	if row.Resources != nil {
		to.Resources = row.Resources
	}
	if row.Class != "" {
		to.Class = row.Class
	}
	if r.kill != nil && (row.Incarnation != r.killed || row.State == actor.Restarting) && !r.kill.NoRestart {
		r.kill = nil
	}
	if row.State == actor.Dead {
		s.bury(now, r, row.Death)
		return
	}
	to.State, to.Death = row.State, row.Death
	if to.State == actor.Alive && to.StartMs == 0 {
		to.StartMs = s.wallMs(now)
	}
	same := sameRow(&before, to)
	if to.Detached && (first || !same) {
		s.putActor(r)
	}
	if !same {
		s.touch(r)
	}
}

// sameRow compares what may change while an actor is not DEAD.
func sameRow(a, b *actor.Row) bool {
	return a.State == b.State && a.Node == b.Node && a.IP == b.IP && a.PID == b.PID && a.Incarnation == b.Incarnation &&
		a.Repr == b.Repr && a.Class == b.Class && a.MaxRestarts == b.MaxRestarts && a.Death.Text == b.Death.Text &&
		bytes.Equal(a.Meta, b.Meta) && maps.Equal(a.Resources, b.Resources)
}

func (s *State) actorGet(n *node, m *ActorGet) {
	r := s.actors.byID[m.ID]
	if m.ID == (ids.ActorID{}) {
		if r = s.actors.named(m.Namespace, m.Name); r != nil && r.row.Dying {
			s.sendAfter(s.actors.safe, n.id(), &ActorGot{Req: m.Req})
			return
		}
	}
	switch {
	case r != nil:
		s.sendAfter(r.said, n.id(), &ActorGot{Req: m.Req, Found: true, Row: r.row, Watchers: s.watchersOf(r.row.ID)})
	case s.restored > 0:
		s.park(n, m)
	default:
		s.sendAfter(s.actors.safe, n.id(), &ActorGot{Req: m.Req})
	}
}

func (s *State) actorNames(n *node, m *ActorNames) {
	if s.restored > 0 {
		s.park(n, m)
		return
	}
	a := &ActorNameList{Req: m.Req, Names: [][2]string{}}
	for ns, of := range s.actors.names {
		if m.Namespace != "" && m.Namespace != ns {
			continue
		}
		for name, r := range of {
			if r.row.Dying {
				continue
			}
			a.Names = append(a.Names, [2]string{ns, name})
		}
	}
	slices.SortFunc(a.Names, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	s.sendAfter(s.actors.safe, n.id(), a)
}

// ActorRows are all actors that are kept, by id, without what only machines read.
func (s *State) ActorRows() []actor.Row {
	rows := make([]actor.Row, 0, len(s.actors.byID))
	for _, r := range s.actors.byID {
		row := r.row
		row.Meta, row.Death.Pickled = nil, nil
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b actor.Row) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return rows
}
