package engine

import (
	"slices"
	"testing"
	"time"

	"gray/internal/core/actor"
	"gray/internal/core/fault"
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

// A head that did not answer may have registered the actor: its name must be free again.
func TestRegistrationUnanswered(t *testing.T) {
	for _, tc := range []struct {
		kind fault.Kind
		want []string
	}{{fault.System, []string{"update 1 DEAD 0 KILLED"}}, {fault.NameTaken, nil}} {
		r, c := solo(t, 1)
		h := c.create("", &ActorCreation{Name: "n", Chan: 1, Req: 1})
		r.told()
		r.do(func(e *Engine) { e.ActorRegistered(h.id.Unique(), false, &actor.Row{}, tc.kind, "no answer") })
		r.want("update", tc.want...)
		r.clean(c)
	}
}

// An argument's owner that this node has not heard of yet is not gone.
func TestFetchFromUnknownOwner(t *testing.T) {
	a, b := newRig(t, settings{owner: 1, cpus: 1}), newRig(t, settings{owner: 2, cpus: 1})
	meet(a, b)
	job := ids.JobFromInt(1)
	dep := ObjInfo{ID: ids.MakeUnique(7, 1).Object(job, 1), Arena: true, Size: 5000}
	b.deliver(1, &TemplateMsg{No: 1, Job: job, Raw: []byte("f")})
	b.deliver(1, &TaskRun{Unique: ids.MakeUnique(2, 1), Job: job, Template: 1, Shape: 1, Returns: 1, Deps: []ObjInfo{dep}})
	a.want("find", "find 7")
	a.do(func(e *Engine) { e.OwnerAt(7, 2) })
	a.pass(100 * time.Millisecond)
	if !slices.Contains(a.told(), "peer 2 FetchAsk") {
		t.Error("the owner is not asked once it is found")
	}
}
