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

// The last handle may be in a call that the actor's process takes with it.
func TestLastHandleGoesWithProcess(t *testing.T) {
	a, b := newRig(t, settings{owner: 1, cpus: 1}), newRig(t, settings{owner: 2, cpus: 1})
	c := a.driver(1)
	h := c.actor("restarts=1")
	w := live(h)
	meet(a, b)
	b.deliver(1, &TemplateMsg{No: 1, Job: c.job, Raw: []byte("method m")})
	b.deliver(1, &TaskRun{
		Unique: ids.MakeUnique(2, 1), Job: c.job, Template: 1, Returns: 1, Flags: flagCall, Contained: []ids.ObjectID{h.id.Handle()},
		Deps: []ObjInfo{{ID: ids.MakeUnique(2, 2).Object(c.job, 1), Value: []byte("v")}}, Actor: &ActorPart{ID: h.id, Caller: 5},
	})
	h.drop()
	a.wantState(h.id, actor.Alive, 0, actor.NotDead)
	a.crash(w)
	a.wantState(h.id, actor.Dead, 0, actor.Unreferred)
}

// Calls that an old incarnation elsewhere had may be given back when the new one lives here already.
func TestCallsComeBackLate(t *testing.T) {
	a, b := newRig(t, settings{owner: 1, cpus: 1}), newRig(t, settings{owner: 2, cpus: 1})
	meet(a, b)
	c := a.driver(1)
	quieten(a, b)
	first := c.call("f")
	quieten(a, b)
	h := c.actor("restarts=1")
	a.pass(300 * time.Millisecond)
	w := live(h, b)
	a.run(a.e.tasks.at(a.e.objs.at(a.e.find(first)).task).worker, "v")
	list := []ids.ObjectID{h.call("m"), h.call("m retries=1"), h.call("m")}
	carry(a, b)
	b.crash(w)
	b.until(1, func() bool { return a.state(h.id) == actor.Restarting })
	list = append(list, h.call("m retries=1"))
	a.workers()
	w = a.born(h.id)
	a.wantCalls(w)
	carry(b)
	a.wantCalls(w, list[1], list[3])
	h.wantValues(list, "!ACTOR_UNAVAILABLE ", "v", "!ACTOR_UNAVAILABLE ", "v")
}
