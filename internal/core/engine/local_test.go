package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

func TestSubmitRunsAndAnswers(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.workers()
	a := c.put("a")
	out := c.submit("f", 1, []ids.ObjectID{a}, []ids.ObjectID{a}).Object(c.job, 1)
	w := onlyWorker(t, r)
	r.want("execute", "execute 2 1.2 #0 deps 1.1:1 contained 1.1:1")
	c.get(out, a)
	r.want("value done", "value 1/1/1 1.1:1 = a []")
	r.run(w, "result")
	r.want("value done", "value 1/1/1 1.2:1 = result []", "done 1/1/1 false")
	c.release(out, a)
	r.do(func(e *Engine) { e.Release(w, a, 1) }) // the ref that came with the task
	r.empty()
}

func TestDependencyWaits(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 2})
	c := r.driver(1)
	r.workers()
	first := c.call("f")
	second := c.call("f", first)
	w := onlyWorker(t, r)
	if len(r.execs[w]) != 1 {
		t.Fatal("a task was sent before its argument was ready")
	}
	if why := r.e.Why([]ids.ObjectID{second})[0]; why.State != "PENDING_ARGS_AVAIL" {
		t.Errorf("second is %s (%s)", why.State, why.Reason)
	}
	r.run(w, "one")
	r.run(w, "two")
	c.get(second)
	r.want("value", "value 1/1/1 1.2:1 = two []")
	c.release(first, second)
	r.empty()
}

func TestRetries(t *testing.T) {
	for _, tc := range []struct {
		name    string
		fn      string
		crashes int
		want    string
	}{
		{"none", "f", 1, "value 1/1/1 1.1:1 = !WORKER_CRASHED []"},
		{"one is enough", "f retries=1", 1, "value 1/1/1 1.1:1 = v []"},
		{"one is not enough", "f retries=1", 2, "value 1/1/1 1.1:1 = !WORKER_CRASHED []"},
		{"without end", "f retries=-1", 20, "value 1/1/1 1.1:1 = v []"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, settings{owner: 1, cpus: 1})
			c := r.driver(1)
			r.workers()
			out := c.call(tc.fn)
			c.get(out)
			for range tc.crashes {
				w := onlyWorker(t, r)
				r.take(w)
				r.do(func(e *Engine) { e.WorkerGone(w, fault.WorkerCrashed, "killed") })
				delete(r.execs, w)
				r.workers()
			}
			if len(r.execs) > 0 {
				r.run(onlyWorker(t, r), "v")
			}
			r.want("value", tc.want)
			c.release(out)
			r.empty()
		})
	}
}

func TestRaisedIsRetriedOnlyIfAsked(t *testing.T) {
	for outcome, want := range map[uint8][]string{
		OutcomeRaised: {"value 1/1/1 1.1:1 = error []"},
		OutcomeRetry:  {"execute 2 1.1 #1 deps  contained "},
	} {
		r := newRig(t, settings{owner: 1, cpus: 1})
		c := r.driver(1)
		r.workers()
		c.get(c.call("f retries=1"))
		w := onlyWorker(t, r)
		x := r.take(w)
		r.told()
		r.do(func(e *Engine) {
			e.Result(w, x.Unique, x.Attempt, outcome, []Output{{Status: 1, Value: []byte("error"), Size: 5}})
		})
		r.want("value execute", want...)
		if outcome == OutcomeRetry { // the first attempt is over: what it still says does not count
			r.do(func(e *Engine) { e.Result(w, x.Unique, 0, OutcomeValues, []Output{{Value: []byte("stale")}}) })
			r.want("value")
			r.run(w, "second")
			r.want("value", "value 1/1/1 1.1:1 = second []")
		}
	}
}

func TestBlockedWorkerLendsItsCPU(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.workers()
	c.call("outer")
	w := onlyWorker(t, r)
	outer := r.take(w)
	inner := c.call("inner")
	if len(r.started) != 0 || r.e.res.Avail().Get(r.e.cpu) != 0 {
		t.Fatal("a second task started on one CPU")
	}
	r.do(func(e *Engine) { e.Get(Chan{w, 0}, 1, pack([]ids.ObjectID{inner})) })
	r.workers() // one more is forked, as the CPU is free again
	delete(r.execs, w)
	w2 := onlyWorker(t, r)
	x := r.take(w2)
	third := c.call("inner")
	r.result(w2, x, "v")
	if got := r.e.res.Avail().Get(r.e.cpu); got != 0 {
		t.Errorf("free CPU is %d while the woken worker runs, want 0", got)
	}
	if len(r.execs[w2]) != 1 {
		t.Error("a task was started while the woken worker has the only CPU")
	}
	r.result(w, outer, "done")
	if len(r.execs[w2])+len(r.execs[w]) != 2 {
		t.Error("the third task did not start when the CPU was free")
	}
	_ = third
}

func TestTakeBackFromABlockedWorker(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.workers()
	c.call("f")
	w := onlyWorker(t, r)
	r.run(w, "v") // so short that many are sent ahead
	list := make([]ids.ObjectID, 10)
	for k := range list {
		list[k] = c.call("f")
	}
	r.take(w)
	if ahead := len(r.execs[w]) - r.taken[w]; ahead < 5 {
		t.Fatalf("%d tasks were sent ahead", ahead)
	}
	r.told()
	never := c.call("g cpu=1", list[9])
	r.do(func(e *Engine) { e.Get(Chan{w, 0}, 1, pack([]ids.ObjectID{never})) })
	if len(r.execs[w]) != r.taken[w] {
		t.Errorf("%d tasks stay with the blocked worker", len(r.execs[w])-r.taken[w])
	}
	if len(r.e.pool.pending) > 0 {
		t.Error("one of the same function started at once on the lent CPU")
	}
	// A second later the lent CPU goes to the first that was taken back, which waits for a worker; the others queue behind it in order.
	r.pass(firstPause)
	if p := r.e.tasks.at(r.e.pool.pending[0]).unique; p != list[1].Unique() {
		t.Errorf("%x waits for a worker, want the first that was taken back", uint64(p))
	}
	if q := r.e.tasks.at(r.e.shapes[1].queues[0].head).unique; q != list[2].Unique() {
		t.Errorf("%x is the first in the queue, want the second that was taken back", uint64(q))
	}
}

func TestGetIsReplacedAndCancelled(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	out := c.call("f")
	c.get(out)
	c.get(out) // replaces the first
	r.do(func(e *Engine) { e.CancelReq(c.ch, 1) })
	r.want("done")
	r.do(func(e *Engine) { e.CancelReq(c.ch, 2) })
	r.want("done", "done 1/1/2 true")
	r.do(func(e *Engine) { e.Wait(c.ch, 3, false, pack([]ids.ObjectID{out})) })
	r.workers()
	r.run(onlyWorker(t, r), "v")
	r.want("value ready", "ready 1/1/3 1.1:1")
	c.get()
	r.want("done", "done 1/1/3 false")
}

func TestChannelThatIsNotRead(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	a, b := c.put("a"), c.put("b")
	r.full = true
	c.get(a, b)
	r.want("value done", "value 1/1/1 1.1:1 = a []")
	c.release(b) // what is held back is kept
	r.do(func(e *Engine) { e.Drained(c.ch) })
	r.want("value done", "value 1/1/1 1.2:1 = b []", "done 1/1/1 false")
	c.release(a)
	r.empty()
}

func TestDeliveriesCrossReleases(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	inner := c.put("inner")
	outer := c.put("outer", inner)
	c.get(outer)     // delivers inner a second time
	c.release(inner) // of the first delivery only
	c.get(inner)
	r.want("value", "value 1/1/1 1.2:1 = outer [1.1:1]", "value 1/1/2 1.1:1 = inner []")
	c.release(outer)
	c.get(inner) // still held by the second delivery
	r.want("value", "value 1/1/3 1.1:1 = inner []")
	c.release(inner)
	r.empty()
}

func TestCreateWaitsForRoomAndFails(t *testing.T) {
	const store = 1 << 20
	r := newRig(t, settings{owner: 1, cpus: 1, store: store})
	c := r.driver(1)
	a, b := c.id(), c.id()
	r.do(func(e *Engine) { e.Create(c.ch, 1, a, store*3/4) })
	r.do(func(e *Engine) { e.Seal(c.sid, a, 0, nil) })
	r.do(func(e *Engine) { e.Create(c.ch, 2, b, store/2) })
	r.want("created fail", "created 1/1/1")
	c.get(a) // a view stays when the ref goes
	c.release(a)
	r.want("created fail")
	r.do(func(e *Engine) { e.Unpin(c.sid, a, 1) })
	r.want("created fail", "created 1/1/2")
	r.do(func(e *Engine) { e.Seal(c.sid, b, 0, nil) })
	d := c.id()
	r.do(func(e *Engine) { e.Create(c.ch, 3, d, store) })
	r.pass(30 * time.Second)
	r.want("created fail", "fail 1/1/3 STORE_FULL")
	c.release(b, d)
	r.empty()
}

func TestReturnsAreBounded(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	before := r.e.objs.live
	c.submit("f", maxReturns+1, nil, nil)
	if told := r.told(); !strings.Contains(told[len(told)-1], "asks for 65537 returns; a task has at most 65536") {
		t.Errorf("told %q", told)
	}
	if grown := r.e.objs.live - before; grown > 1 { // the function's
		t.Errorf("%d objects were made", grown)
	}
	c.submit("f", 1000, nil, nil)
	if got := r.e.jobs[c.job].bytes; got != 100+callCost+999*returnCost {
		t.Errorf("a task with 1,000 returns counts %d bytes", got)
	}
}

// A worker says that an output lies in the arena: only what it was given, whole, is believed.
func TestOutputThatIsNotWhereItIsSaidToBe(t *testing.T) {
	for _, tc := range []struct {
		name   string
		create func(r *rig, ch Chan, out ids.ObjectID)
		want   string
	}{
		{"as created", func(r *rig, ch Chan, out ids.ObjectID) { r.do(func(e *Engine) { e.Create(ch, 1, out, 1<<20) }) }, "arena 1048576"},
		{"not created", func(*rig, Chan, ids.ObjectID) {}, "!SYSTEM"},
		{"smaller", func(r *rig, ch Chan, out ids.ObjectID) { r.do(func(e *Engine) { e.Create(ch, 1, out, 1<<10) }) }, "!SYSTEM"},
		{"not granted yet", func(r *rig, ch Chan, out ids.ObjectID) {
			r.later = true
			r.do(func(e *Engine) { e.Create(ch, 1, out, 1<<20) })
		}, "!SYSTEM"},
	} {
		for _, away := range []bool{false, true} {
			t.Run(tc.name, func(t *testing.T) {
				a := newRig(t, settings{owner: 1, cpus: 1})
				b := a
				if away {
					a, b = newRig(t, settings{owner: 1, cpus: 0}), newRig(t, settings{owner: 2, cpus: 1})
					meet(a, b)
				}
				c := a.driver(1)
				out := c.call("f")
				quieten(a, b)
				w := onlyWorker(t, b)
				x := b.take(w)
				tc.create(b, Chan{w, 0}, out)
				b.do(func(e *Engine) {
					e.Result(w, x.Unique, 0, OutcomeValues, []Output{{Arena: true, Size: 1 << 20}})
				})
				for b.later && len(b.e.commits) > 0 {
					b.do(func(e *Engine) { e.Committed(b.onlyCommit(), true) })
				}
				quieten(a, b)
				c.get(out)
				for _, f := range a.fetches {
					a.do(func(e *Engine) { e.Fetched(f.key, true) })
				}
				a.want("value", "value 1/1/1 1.1:1 = "+tc.want+" []")
				if len(b.e.sessions[w].creates) != 0 {
					t.Error("the worker still writes")
				}
			})
		}
	}
}

func TestPagesThatCannotBeMade(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.later = true
	a := c.id()
	r.do(func(e *Engine) { e.Create(c.ch, 1, a, 1<<20) })
	r.want("created fail")
	r.do(func(e *Engine) { e.Committed(r.onlyCommit(), false) })
	r.want("created fail", "fail 1/1/1 STORE_FULL")
	c.release(a)
	r.empty()
}

func (r *rig) onlyCommit() uint64 {
	for k := range r.e.commits {
		return k
	}
	r.t.Fatal("no pages are being made")
	return 0
}

func TestDriverThatDies(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.workers()
	c.put("a", c.put("b"))
	c.call("f", c.call("f"))
	r.told()
	r.do(func(e *Engine) { e.SessionGone(c.sid) })
	w := onlyWorker(t, r)
	r.want("kill", "kill 2")
	r.do(func(e *Engine) { e.WorkerGone(w, fault.WorkerCrashed, "killed") })
	if err := r.e.Empty(false); err != nil {
		t.Error(err)
	}
}

func TestOrphansAreCancelled(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.workers()
	out := c.call("f")
	w := onlyWorker(t, r)
	r.take(w)
	blocks := r.e.sessions[w].blocks
	child := blocks[0].first
	r.do(func(e *Engine) { e.RegisterTemplate(w, 1, r.spec(c.job, "child x=1")) })
	r.do(func(e *Engine) { e.Submit(w, &Submission{Template: 1, Unique: child, Returns: 1}) })
	r.do(func(e *Engine) { e.WorkerGone(w, fault.WorkerCrashed, "killed") })
	c.get(out)
	r.want("value", "value 1/1/1 1.1:1 = !WORKER_CRASHED []")
	c.release(out)
	r.empty() // the child, which nothing could have run, is gone
}

func TestRulesAreEnforced(t *testing.T) {
	for name, breaks := range map[string]func(c *client){
		"template twice": func(c *client) {
			c.call("f")
			c.do(func(e *Engine) { e.RegisterTemplate(c.sid, 1, c.spec(c.job, "g")) })
		},
		"no such template": func(c *client) {
			c.do(func(e *Engine) { e.Submit(c.sid, &Submission{Template: 9, Unique: c.id().Unique()}) })
		},
		"id of another's block": func(c *client) {
			c.do(func(e *Engine) { e.Put(c.sid, ids.MakeUnique(7, 7).Object(c.job, 1), 0, nil, nil) })
		},
		"id twice": func(c *client) {
			id := c.put("a")
			c.do(func(e *Engine) { e.Put(c.sid, id, 0, nil, nil) })
		},
		"task id twice": func(c *client) {
			id := c.call("f")
			c.do(func(e *Engine) { e.Submit(c.sid, &Submission{Template: 1, Unique: id.Unique(), Returns: 1}) })
		},
		"seal of nothing": func(c *client) {
			c.do(func(e *Engine) { e.Seal(c.sid, c.id(), 0, nil) })
		},
	} {
		r := newRig(t, settings{owner: 1, cpus: 1})
		c := r.driver(1)
		breaks(c)
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

func TestCreditIsGivenWhenTasksEnd(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	r.e.cfg.Credit = 4 * (100 + callCost)
	c := r.driver(1)
	r.workers()
	for range 4 { // 100 bytes each
		c.call("f")
	}
	r.do(func(e *Engine) { e.NeedCredit(c.ch, 1, uint64(e.cfg.Credit)) })
	r.want("credit")
	w := onlyWorker(t, r)
	r.run(w, "v")
	r.want("credit", fmt.Sprintf("credit 1/1/1 %d", 5*(100+callCost)))
}
