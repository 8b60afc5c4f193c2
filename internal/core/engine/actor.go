package engine

import (
	"slices"

	"gray/internal/core/actor"
	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/core/resource"
)

// An actor has up to three roles on a daemon. Its *manager* is the daemon whose client created it (manager.go): it makes
// each incarnation and decides on restarts. Its *host* runs it (host.go). A daemon whose clients call it keeps their
// calls in order, and the way to the host (callq.go).

// actorRec is what this daemon knows of an actor.
type actorRec struct {
	id    ids.ActorID
	row   actor.Row // as far as known; of its state only what stands below counts
	state actor.State
	node  NodeNo // where its present incarnation is; 0 = here
	inc   uint32 // of the present incarnation, or the one being made
	death actor.Death

	queues map[callerKey]*callq
	order  []*callq // the same, the longest known first
	watch  bool     // the head tells us of its changes
	dirty  bool

	host *host
	mgr  *managed
}

// NoNode stands for a node that is not known.
const NoNode = ^NodeNo(0)

// ActorLimits is what a template that creates an actor says of it.
type ActorLimits struct {
	Held           resource.Set
	MaxConcurrency int
	Groups         map[string]int
	Async          bool
	Class          string
}

// actorOf is the record of an actor, made if there is none.
func (e *Engine) actorOf(id ids.ActorID) *actorRec {
	if a := e.actors[id.Unique()]; a != nil {
		return a
	}
	a := &actorRec{id: id, node: NoNode, queues: map[callerKey]*callq{}}
	a.row.ID = id
	e.actors[id.Unique()] = a
	return a
}

// watchActor has the head tell of an actor that somebody here calls and that this daemon does not manage.
func (e *Engine) watchActor(a *actorRec) {
	if a.mgr == nil && !a.watch && e.actors[a.id.Unique()] == a { // its last caller may have gone with the process
		a.watch = true
		e.sink.WatchActor(a.id, true)
	}
}

// dropActor forgets an actor that nobody here has to do with any more.
func (e *Engine) dropActor(a *actorRec) {
	if a.mgr != nil || a.host != nil || len(a.queues) > 0 || e.actors[a.id.Unique()] != a {
		return
	}
	delete(e.actors, a.id.Unique())
	if a.watch {
		a.watch = false
		e.sink.WatchActor(a.id, false)
	}
}

// markActor has Flush look at an actor's calls.
func (e *Engine) markActor(a *actorRec) {
	if !a.dirty {
		a.dirty = true
		e.dirtyActors = append(e.dirtyActors, a)
	}
}

// flushActors sends the calls that can go.
func (e *Engine) flushActors() {
	for k := 0; k < len(e.dirtyActors); k++ {
		a := e.dirtyActors[k]
		a.dirty = false
		e.pump(a)
	}
	clear(e.dirtyActors)
	e.dirtyActors = e.dirtyActors[:0]
}

// pump moves an actor's calls on, by its state.
func (e *Engine) pump(a *actorRec) {
	switch a.state {
	case actor.Alive:
		if a.node == 0 {
			e.pumpHost(a)
		} else {
			e.pumpAway(a)
		}
	case actor.Restarting:
		e.failCalls(a)
	case actor.Dead:
		e.failCalls(a)
		e.forgetActor(a)
	}
}

// ActorChanged takes what the head says of an actor of which this daemon is not the manager. node is where it lives, if
// this daemon has a record of that node.
func (e *Engine) ActorChanged(row *actor.Row, node NodeNo) {
	a := e.actors[row.ID.Unique()]
	if a == nil || a.mgr != nil || a.state == actor.Dead || row.Incarnation < a.inc && row.State != actor.Dead {
		return // a head that does not know an actor any more says that it is dead, and no incarnation
	}
	if h := a.host; h != nil {
		if h.mgr == NoNode && (row.State != actor.Alive || row.Incarnation != h.inc) {
			e.stopHost(h, ownerDied("the manager that had it made died before it heard that it lives"), false)
		}
		if row.State != actor.Dead && row.Incarnation == a.inc {
			return // we run it and know better
		}
	}
	if row.Incarnation == a.inc && row.State != actor.Dead && a.node != NoNode && (a.state == "" || row.State != actor.Alive) {
		return // old news: this incarnation was lost to us already, or is known to live
	}
	a.row = *row
	a.row.Meta = nil
	a.inc, a.death = max(a.inc, row.Incarnation), row.Death
	a.state, a.node = row.State, NoNode
	if row.State == actor.Alive {
		a.node = node
		if node == NoNode {
			a.state = "" // its node is dead to us: another change will follow
		}
	}
	e.verdict(a)
}

// verdict resolves the calls that were lost with an incarnation, now that it is known what became of the actor, and
// sends the others.
func (e *Engine) verdict(a *actorRec) {
	if a.state == "" {
		return
	}
	for _, q := range slices.Clone(a.order) {
		if q.key.peer != 0 {
			continue
		}
		for i := q.head; i != 0; {
			t := e.tasks.at(i)
			next := t.next
			if t.lost && a.state != actor.Dead {
				t.lost = false
				if t.retries == 0 {
					e.failCall(i, t, e.unavailable(a, processDied))
				} else {
					e.failedOnce(t, fault.ActorUnavailable, processDied)
					e.nextAttempt(t)
				}
			}
			i = next
		}
		q.next = q.head // what an old incarnation still has comes back, and goes before what was never sent
	}
	e.markActor(a)
}

// processDied is why a call that an actor had comes back.
const processDied = "its process died while it had the call"

// lostIncarnation notes that the way to an actor is gone, until the manager or the head tells what became of it.
func (e *Engine) lostIncarnation(a *actorRec) {
	if a.state == actor.Alive && a.mgr == nil {
		a.state = ""
		e.watchActor(a)
	}
	for _, q := range a.order {
		q.next = q.head
	}
}

// died is the error of a call to an actor that is dead.
func (e *Engine) died(a *actorRec) failure {
	return failure{fault.ActorDied, a.death.Text, e.sink.ActorError(fault.ActorDied, &a.row, &a.death)}
}

// unavailable is the error of a call to an actor that may come back.
func (e *Engine) unavailable(a *actorRec, why string) failure {
	return failure{fault.ActorUnavailable, why, e.sink.ActorError(fault.ActorUnavailable, &a.row, &actor.Death{Text: why})}
}

// tellActor tells the head how an actor that we manage stands.
func (e *Engine) tellActor(a *actorRec) {
	a.row.State, a.row.Incarnation, a.row.Death = a.state, a.inc, a.death
	row := a.row
	e.sink.ActorUpdate(&row)
}

// Actors lists the actors that this daemon manages, for a head that has come back.
func (e *Engine) Actors() []actor.Row {
	var rows []actor.Row
	for _, u := range sortedKeys(e.actors) {
		if a := e.actors[u]; a.mgr != nil && a.state != actor.Dead && !a.mgr.registering {
			a.row.State, a.row.Incarnation = a.state, a.inc
			rows = append(rows, a.row)
		}
	}
	return rows
}

// PendingCalls is how many calls of a session to an actor have not ended.
func (e *Engine) PendingCalls(sid SessionID, id ids.ActorID) int {
	a, n := e.actors[id.Unique()], 0
	if a == nil {
		return 0
	}
	for _, q := range a.order {
		if q.key.peer == 0 && q.key.caller == uint32(sid) {
			n += q.n + q.late.n
		}
	}
	return n
}
