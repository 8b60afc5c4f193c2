package engine

import (
	"fmt"
	"testing"
	"time"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
)

func TestActorLivesAndAnswers(t *testing.T) {
	r, c := solo(t, 1)
	arg := c.put("a")
	h := c.actor("", arg)
	early := h.call("m")
	r.want("update execute setup", "update 2 PENDING_CREATION 0", "setup 2 map[]", "execute 2 1.2 #0 deps 1.1:1 contained ")
	w := r.born(h.id)
	r.want("update execute", "update 2 ALIVE 0", "execute 2 1.3 #0 deps  contained ")
	if row := r.row(h.id); row.PID != 1002 || row.Repr != "repr" || row.Node != r.e.cfg.Node {
		t.Errorf("the head was told %+v", row)
	}
	late := h.call("m", arg)
	c.get(early, late)
	r.wantCalls(w, early, late)
	r.want("value done", "value 1/1/1 1.3:1 = v []", "value 1/1/1 1.4:1 = v []", "done 1/1/1 false")
	if n := r.e.PendingCalls(c.sid, h.id); n != 0 {
		t.Errorf("%d calls are pending", n)
	}
	h.drop()
	r.want("exit kill", "exit 2")
	r.crash(w)
	r.wantState(h.id, actor.Dead, 0, actor.Unreferred)
	r.clean(c, arg, early, late)
}

func TestCreationWaitsForItsArguments(t *testing.T) {
	r, c := solo(t, 2)
	arg := c.call("f")
	h := c.actor("", arg)
	r.wantState(h.id, actor.Waiting, 0, "")
	call := h.call("m")
	r.run(onlyWorker(t, r), "v")
	r.wantState(h.id, actor.Pending, 0, "")
	w := live(h)
	r.wantState(h.id, actor.Alive, 0, "")
	r.wantCalls(w, call)
	h.drop()
	r.crash(w)
	r.clean(c, arg, call)
}

// An actor that holds no CPU gives the one that it was placed with back at once.
func TestActorGivesItsPlacementBack(t *testing.T) {
	for _, tc := range []struct {
		words        string
		making, free int64
	}{
		{"", 1, 1},
		{"hold", 0, 0},
		{"cpu=0", 1, 1},
	} {
		r, c := solo(t, 1)
		h := c.actor(tc.words)
		if r.freeCPU() != tc.making {
			t.Errorf("%q: %d CPUs are free while it is made, want %d", tc.words, r.freeCPU(), tc.making)
		}
		w := live(h)
		if r.freeCPU() != tc.free {
			t.Errorf("%q: %d CPUs are free while it lives, want %d", tc.words, r.freeCPU(), tc.free)
		}
		h.drop()
		r.want("kill exit", "exit "+itoa(w))
		if r.freeCPU() != tc.free {
			t.Errorf("%q: its CPU is free before its process is gone", tc.words)
		}
		r.crash(w)
		if r.freeCPU() != 1 {
			t.Errorf("%q: %d CPUs are free at the end", tc.words, r.freeCPU())
		}
		r.empty()
	}
}

func TestAcceleratorsAreFreeWhenTheProcessIsGone(t *testing.T) {
	r, c := solo(t, 2)
	first := c.actor("GPU=1")
	second := c.actor("GPU=1")
	third := c.actor("GPU=1")
	r.workers()
	var got []string
	for _, l := range r.told() {
		if l[:5] == "setup" {
			got = append(got, l[7:])
		}
	}
	if len(got) != 2 || got[0] != " map[GPU:[0]]" || got[1] != " map[GPU:[1]]" {
		t.Fatalf("set up %q", got)
	}
	w := r.born(second.id)
	r.born(first.id)
	r.do(func(e *Engine) { e.KillActor(second.id, true) })
	r.workers()
	if r.e.actors[third.id.Unique()].host != nil {
		t.Fatal("the GPU was given on while the killed process may still use it")
	}
	r.crash(w)
	r.workers()
	r.want("setup", "setup "+itoa(r.home(third.id))+" map[GPU:[1]]")
}

func itoa(w SessionID) string { return fmt.Sprint(uint32(w)) }

func TestBlockedActorLendsItsCPU(t *testing.T) {
	r, c := solo(t, 1)
	h := c.actor("hold")
	w := live(h)
	h.call("m")
	x := r.take(w)
	inner := c.call("inner")
	if r.e.tasks.at(r.e.objs.at(r.e.find(inner)).task).state != taskQueued {
		t.Fatal("a task started on the actor's CPU")
	}
	r.do(func(e *Engine) { e.Get(Chan{w, 0}, 1, pack([]ids.ObjectID{inner})) })
	r.workers()
	w2 := r.e.tasks.at(r.e.objs.at(r.e.find(inner)).task).worker
	r.run(w2, "v")
	if r.freeCPU() != 0 {
		t.Errorf("%d CPUs are free while the woken actor runs", r.freeCPU())
	}
	r.end(w, x, OutcomeValues, "v")
	if r.freeCPU() != 0 {
		t.Errorf("%d CPUs are free while the actor lives", r.freeCPU())
	}
	r.do(func(e *Engine) { e.Get(Chan{w, 0}, 2, pack([]ids.ObjectID{c.call("f")})) })
	r.crash(w)
	if r.freeCPU() != 0 { // f runs
		t.Errorf("%d CPUs are free, of 1 that a task uses", r.freeCPU())
	}
}

// A creation's process has done nothing else before, whoever has the same shape.
func TestActorGetsABlankProcess(t *testing.T) {
	r, c := solo(t, 1)
	task := c.call("f")
	h := c.actor("")
	w := onlyWorker(t, r)
	r.run(w, "v")
	r.workers()
	if got := r.home(h.id); got == w {
		t.Fatal("the actor got the process of a task")
	}
	for k := range 3 { // nor does one that waits for a process
		b := c.actor("")
		c.call("f")
		r.run(w, "v")
		r.workers()
		if r.home(b.id) == w {
			t.Fatalf("actor %d got the process of a task", k)
		}
	}
	_ = task
}

func TestConstructorRaises(t *testing.T) {
	r, c := solo(t, 1)
	h := c.actor("restarts=5")
	calls := []ids.ObjectID{h.call("m"), h.call("m retries=-1")}
	w := r.home(h.id)
	r.answer(w, OutcomeRaised, "!boom")
	r.want("exit kill", "exit 2")
	c.wantValues(calls, "", "") // not before its process is gone
	r.crash(w)
	r.wantState(h.id, actor.Dead, 0, actor.InitFailed)
	if row := r.row(h.id); string(row.Death.Pickled) != "!boom" || row.Death.Never {
		t.Errorf("died of %+v", row.Death)
	}
	calls = append(calls, h.call("m"))
	c.wantValues(calls, "!ACTOR_DIED CREATION_TASK_ERROR", "!ACTOR_DIED CREATION_TASK_ERROR", "!ACTOR_DIED CREATION_TASK_ERROR")
	h.drop()
	r.clean(c, calls...)
}

func TestConstructorExits(t *testing.T) {
	r, c := solo(t, 1)
	h := c.actor("restarts=5")
	call := h.call("m")
	w := r.home(h.id)
	r.answer(w, OutcomeExit, "")
	r.crash(w)
	r.wantState(h.id, actor.Dead, 0, actor.Exited)
	c.wantValues([]ids.ObjectID{call}, "!ACTOR_DIED EXITED")
	h.drop()
	r.clean(c, call)
}

func TestExitEndsQueuedCalls(t *testing.T) {
	r, c := solo(t, 1)
	h := c.actor("restarts=-1")
	w := live(h)
	exit := h.call("m retries=3")
	queued := h.call("m retries=3")
	r.answer(w, OutcomeExit, "")
	after := h.call("m retries=3")
	if len(r.waiting(w)) != 0 {
		t.Error("a call was sent to an actor that exits")
	}
	r.crash(w)
	r.wantState(h.id, actor.Dead, 0, actor.Exited)
	c.wantValues([]ids.ObjectID{exit, queued, after}, "!ACTOR_DIED EXITED", "!ACTOR_DIED EXITED", "!ACTOR_DIED EXITED")
	h.drop()
	r.clean(c, exit, queued, after)
}

func TestActorThatDoesNotLeaveIsKilled(t *testing.T) {
	r, c := solo(t, 1)
	h := c.actor("")
	w := live(h)
	h.drop()
	r.want("exit kill", "exit 2")
	r.pass(leaveTime + time.Second)
	r.want("exit kill", "kill 2")
	r.crash(w)
	r.empty()
	if r.e.pool.leaving != 0 {
		t.Errorf("%d actors are said to leave", r.e.pool.leaving)
	}
}

func TestActorRulesAreEnforced(t *testing.T) {
	for name, breaks := range map[string]func(c *client, h *handle){
		"a method's template creates": func(c *client, _ *handle) {
			m := &ActorCreation{Submission: Submission{Template: c.template("method"), Unique: c.id().Unique()}}
			c.do(func(e *Engine) { e.CreateActor(c.sid, m) })
		},
		"a class's template calls": func(c *client, h *handle) {
			m := &ActorSubmission{Submission: Submission{Template: c.template("actor "), Unique: c.id().Unique()}, Actor: h.id}
			c.do(func(e *Engine) { e.CallActor(c.sid, m) })
		},
		"an actor's id twice": func(c *client, h *handle) {
			m := &ActorCreation{Submission: Submission{Template: c.template("actor "), Unique: h.id.Unique()}}
			c.do(func(e *Engine) { e.CreateActor(c.sid, m) })
		},
		"a call's id twice": func(c *client, h *handle) {
			id := h.call("m")
			m := &ActorSubmission{Submission: Submission{Template: c.template("method m"), Unique: id.Unique(), Returns: 1}, Actor: h.id}
			c.do(func(e *Engine) { e.CallActor(c.sid, m) })
		},
		"a task of a method's template": func(c *client, _ *handle) {
			c.do(func(e *Engine) {
				e.Submit(c.sid, &Submission{Template: c.template("method"), Unique: c.id().Unique(), Returns: 1})
			})
		},
		"a task of a class's template": func(c *client, _ *handle) {
			c.do(func(e *Engine) {
				e.Submit(c.sid, &Submission{Template: c.template("actor "), Unique: c.id().Unique(), Returns: 1})
			})
		},
		"an id of another's block": func(c *client, h *handle) {
			m := &ActorSubmission{Submission: Submission{Template: c.template("method"), Unique: ids.MakeUnique(7, 7), Returns: 1}, Actor: h.id}
			c.do(func(e *Engine) { e.CallActor(c.sid, m) })
		},
		"a call with too few returns": func(c *client, h *handle) {
			h.call("m")
			w := live(h)
			x := c.take(w)
			c.do(func(e *Engine) { e.Result(w, x.Unique, 0, OutcomeValues, nil) })
		},
	} {
		r, c := solo(t, 1)
		h := c.actor("")
		breaks(c, h)
		refused := 0
		for _, l := range r.told() {
			if len(l) > 6 && l[:6] == "refuse" {
				refused++
			}
		}
		if refused != 1 {
			t.Errorf("%s: refused %d times, want once", name, refused)
		}
	}
}

// A slot that another node was granted is used by an actor while free CPU is below zero.
func TestActorIsPlacedWhileCPUIsOverdrawn(t *testing.T) {
	a, b := newRig(t, settings{owner: 1, cpus: 0}), newRig(t, settings{owner: 2, cpus: 1})
	meet(a, b)
	c, d := a.driver(1), b.driver(2)
	b.workers()
	d.call("f")
	w := onlyWorker(t, b)
	b.take(w)
	inner := d.put("a")
	late := d.call("f cpu=9")
	b.do(func(e *Engine) { e.Get(Chan{w, 0}, 1, pack([]ids.ObjectID{late})) }) // lends its CPU
	h := c.actor("hold")
	for _, r := range []*rig{a, b} { // the slot is asked for, and granted
		for no, q := range r.wires {
			r.wires[no] = nil
			for _, m := range q {
				r.deliver(no, m)
			}
		}
	}
	b.do(func(e *Engine) { e.Get(Chan{w, 0}, 2, pack([]ids.ObjectID{inner})) }) // goes on
	if b.freeCPU() != -1 {
		t.Fatalf("%d CPUs are free, want -1", b.freeCPU())
	}
	carry(a, b)
	live(h, b)
	if b.freeCPU() != -1 {
		t.Errorf("%d CPUs are free, want -1", b.freeCPU())
	}
}
