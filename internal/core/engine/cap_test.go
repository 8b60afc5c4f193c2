package engine

import (
	"slices"
	"testing"
	"time"

	"gray/internal/core/ids"
)

// runs lists the counters of the tasks that workers were sent and have not ended.
func (r *rig) runs() (list []uint64) {
	for i := uint32(1); i < r.e.tasks.limit(); i++ {
		if t := r.e.tasks.at(i); t.state == taskSent || t.state == taskAssigned {
			list = append(list, t.unique.Counter())
		}
	}
	return list
}

// waitFor has a worker's main thread wait for objects.
func (r *rig) waitFor(w SessionID, list ...ids.ObjectID) {
	r.t.Helper()
	r.do(func(e *Engine) { e.Get(Chan{w, 0}, 1, pack(list)) })
}

// blockAll has all workers wait for an object that never comes, those that are started meanwhile, too.
func (r *rig) blockAll(never ids.ObjectID) {
	r.t.Helper()
	for {
		r.workers()
		n := 0
		for w := range r.execs {
			if p := r.e.pool.all[w]; p != nil && !p.blocked && len(p.fifo) > 0 {
				r.take(w)
				r.waitFor(w, never)
				n++
			}
		}
		if n == 0 {
			return
		}
	}
}

func TestTasksThatWaitStartMoreAndMoreSlowly(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 2})
	c := r.driver(1)
	never := c.call("never cpu=99")
	for range 50 {
		c.call("f")
	}
	r.blockAll(never)
	if n := len(r.runs()); n != 2 {
		t.Fatalf("%d wait at once, want as many as there are CPUs", n)
	}
	for k, seconds := range []int{1, 2, 4, 8, 10, 10} {
		pause := time.Duration(seconds) * time.Second
		r.pass(pause - 3*TickEvery)
		r.blockAll(never)
		if n := len(r.runs()); n != 2+k {
			t.Fatalf("%d run just before the pause of %s has ended, want %d", n, pause, 2+k)
		}
		r.pass(3 * TickEvery)
		r.blockAll(never)
		if n := len(r.runs()); n != 3+k {
			t.Fatalf("%d run just after a pause of %s, want %d", n, pause, 3+k)
		}
	}
	// Another function's tasks, that stand behind them, need not wait.
	other := c.call("g")
	r.workers()
	if runs := r.runs(); runs[len(runs)-1] != other.Unique().Counter() {
		t.Errorf("another function's task does not run: %v", runs)
	}
	// Nor do those that need no CPU.
	idle := c.call("zero cpu=0")
	r.workers()
	if runs := r.runs(); runs[len(runs)-1] != idle.Unique().Counter() {
		t.Errorf("a task without CPU does not run: %v", runs)
	}
}

// Tasks that wait do not keep those back that tasks and actors call, of the same function: each depth is counted for itself.
func TestEachDepthHasItsRoom(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	never := c.call("never cpu=99")
	c.call("f")
	r.workers()
	w := onlyWorker(t, r)
	r.take(w)
	in := r.asClient(w)
	inner, second := in.call("f"), in.call("f") // nobody waits for them
	r.waitFor(w, never)
	sibling := c.call("f")
	r.blockAll(never)
	running := func(id ids.ObjectID) bool { return slices.Contains(r.runs(), id.Unique().Counter()) }
	if !running(inner) || running(second) || running(sibling) {
		t.Errorf("running are %v, want the first of the inner tasks", r.runs())
	}
	r.pass(firstPause + 3*TickEvery)
	r.blockAll(never)
	if !running(second) || !running(sibling) {
		t.Errorf("running are %v after the pause of each depth, want all", r.runs())
	}
}

// What a running task waits for starts at once, before what was called earlier, also if it is the same function.
func TestAwaitedTasksComeFirst(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	outer := c.call("f")
	r.workers()
	w := onlyWorker(t, r)
	r.take(w)
	var others []ids.ObjectID
	for range 300 {
		others = append(others, c.call("f"))
	}
	in := r.asClient(w)
	children := []ids.ObjectID{in.call("f"), in.call("f"), in.call("f")}
	r.waitFor(w, children...)
	for k, child := range children {
		r.workers()
		var w2 SessionID
		for s := range r.execs {
			if p := r.e.pool.all[s]; s != w && p != nil && len(p.fifo) > 0 {
				w2 = s
			}
		}
		if w2 == 0 || r.e.tasks.at(r.e.pool.all[w2].fifo[0]).unique != child.Unique() {
			t.Fatalf("child %d does not run: %v", k, r.runs())
		}
		r.run(w2, "v")
	}
	if r.e.pool.all[w].blocked {
		t.Error("the outer task waits though its children have ended")
	}
	_, _ = outer, others
}

// Once they go on, nothing is held back any more.
func TestNothingIsHeldBackWithoutNeed(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	gate := c.call("gate cpu=99")
	c.call("f")
	r.workers()
	w := onlyWorker(t, r)
	x := r.take(w)
	second := c.call("f")
	r.waitFor(w, gate)
	r.pass(500 * time.Millisecond)
	if n := len(r.runs()); n != 1 {
		t.Fatalf("%d run while one waits", n)
	}
	r.do(func(e *Engine) { e.CancelReq(Chan{w, 0}, 1) })
	r.result(w, x, "v")
	r.workers()
	if runs := r.runs(); len(runs) != 1 || runs[0] != second.Unique().Counter() {
		t.Errorf("running are %v, want the second", runs)
	}
	for _, tm := range r.e.templates[1:] {
		for depth, o := range tm.overs {
			if *o != (over{}) {
				t.Errorf("a function is still counted at depth %d: %+v", depth, o)
			}
		}
	}
}
