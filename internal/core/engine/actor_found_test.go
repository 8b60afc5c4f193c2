package engine

import (
	"testing"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
)

// What the simulator found first.

// A head that was started again knows no actor that is dead, and so no incarnation of it.
func TestDeathWithoutIncarnation(t *testing.T) {
	a, h := stranger(t)
	a.changed(actor.Row{ID: h.id, State: actor.Alive})
	id := h.call("m")
	a.changed(actor.Row{ID: h.id, State: actor.Alive, Incarnation: 3, Node: ids.NodeID{2}})
	a.do(func(e *Engine) { e.PeerGone(2, "silent") })
	again := h.call("m")
	a.changed(actor.Row{ID: h.id, State: actor.Dead, Death: actor.Death{Cause: actor.OwnerDied}})
	h.wantValues([]ids.ObjectID{id, again}, "!ACTOR_DIED OWNER_DIED", "!ACTOR_DIED OWNER_DIED")
}

// An actor that goes on calling itself ends all the same once nobody else has a handle.
func TestLeavesThoughItCallsItself(t *testing.T) {
	r, c := solo(t, 1)
	h := c.actor("")
	w := live(h)
	self := &handle{client: r.asClient(w), id: h.id, weak: true}
	first := h.call("m")
	x := r.take(w)
	second := self.call("m")
	h.drop()
	r.end(w, x, OutcomeValues, "v")
	for k := 0; k < 10 && r.taken[w] < len(r.execs[w]); k++ {
		x = r.take(w)
		self.call("m")
		r.end(w, x, OutcomeValues, "v")
	}
	r.want("exit", "exit "+itoa(w))
	r.crash(w)
	r.wantState(h.id, actor.Dead, 0, actor.Unreferred)
	_ = second
	r.clean(c, first)
}

// An idle worker that has run tasks gets no creation that waits for a process.
func TestCreationWantsNewProcess(t *testing.T) {
	r, c := solo(t, 1)
	id := c.call("f")
	w := r.e.tasks.at(r.e.objs.at(r.e.find(id)).task).worker
	h := c.actor("")
	r.run(w, "v")
	r.workers()
	if on := r.home(h.id); on == w {
		t.Errorf("worker %d, which has run a task, runs the actor", w)
	}
	r.crash(live(h))
	h.drop()
	r.clean(c, id)
}

// An actor whose process had the last handle of it, and dies with a call from elsewhere.
func TestDiesWithItsLastHandle(t *testing.T) {
	a, b := newRig(t, settings{owner: 1, cpus: 1}), newRig(t, settings{owner: 2, cpus: 0})
	meet(a, b)
	hd := newHead(a, b)
	c := a.driver(1)
	h := c.actor("restarts=1")
	w := live(h, b)
	took := h.send("m", &ActorSubmission{Submission: Submission{Contained: []ids.ObjectID{h.id.Handle()}, Returns: 1}})
	a.answer(w, OutcomeValues, "v")
	h.drop()
	guest := &handle{client: b.driver(1), id: h.id, weak: true}
	inside := guest.put("x")
	out := guest.send("m", &ActorSubmission{Submission: Submission{Contained: []ids.ObjectID{inside}, Returns: 1}})
	hd.settle()
	a.take(w)
	a.crash(w)
	hd.settle()
	guest.wantValues([]ids.ObjectID{out}, "!ACTOR_DIED OUT_OF_SCOPE")
	a.wantState(h.id, actor.Dead, 0, actor.Unreferred)
	c.release(took)
	guest.release(out, inside)
	quieten(a, b)
	allEmpty(t, a, b)
}
