package engine

import (
	"slices"
	"strings"
	"testing"
	"time"

	"gray/internal/core/ids"
)

// pair is an owner with no CPU of its own and a node that runs its tasks.
func pair(t *testing.T) (a, b *rig, c *client) {
	t.Helper()
	a, b = newRig(t, settings{owner: 1, cpus: 0}), newRig(t, settings{owner: 2, cpus: 1})
	meet(a, b)
	return a, b, a.driver(1)
}

// quieten delivers everything and starts the workers that were asked for.
func quieten(rigs ...*rig) {
	for range 3 {
		carry(rigs...)
		for _, r := range rigs {
			r.workers()
		}
	}
	carry(rigs...)
}

func allEmpty(t *testing.T, rigs ...*rig) {
	t.Helper()
	for _, r := range rigs {
		if err := r.e.Empty(true); err != nil {
			t.Errorf("node %d: %v", r.e.cfg.Owner, err)
		}
	}
}

func TestTaskRunsOnAnotherNode(t *testing.T) {
	a, b, c := pair(t)
	arg := c.put("a")
	out := c.call("f", arg)
	quieten(a, b)
	b.want("execute", "execute 1 1.2 #0 deps 1.1:1 contained ")
	b.run(onlyWorker(t, b), "v")
	quieten(a, b)
	c.get(out)
	a.want("value", "value 1/1/1 1.2:1 = v []")
	c.release(arg, out)
	quieten(a, b)
	allEmpty(t, a, b)
}

// A worker keeps a ref that came with a task of another owner: it is claimed before the task's end is told.
func TestKeptRefIsClaimedBeforeTheTaskEnds(t *testing.T) {
	a, b, c := pair(t)
	kept := c.put("kept")
	out := c.submit("f", 1, nil, []ids.ObjectID{kept}).Object(c.job, 1)
	quieten(a, b)
	w := onlyWorker(t, b)
	x := b.take(w)
	b.told()
	b.result(w, x, "v")
	b.want("peer", "peer 1 Claim", "peer 1 TaskDone")
	c.release(kept, out) // the driver has no ref any more, the worker has
	quieten(a, b)
	b.do(func(e *Engine) { e.Get(Chan{w, 0}, 1, pack([]ids.ObjectID{kept})) })
	quieten(a, b)
	b.want("value", "value 1/0/1 1.1:1 = kept []")
	b.do(func(e *Engine) { e.Release(w, kept, 1) })
	quieten(a, b)
	allEmpty(t, a, b)
}

// A result holds a ref that its node owns: it is held there until the task's owner has claimed it.
func TestRefInAResultIsHeldUntilItIsClaimed(t *testing.T) {
	a, b, c := pair(t)
	out := c.call("f")
	quieten(a, b)
	w := onlyWorker(t, b)
	x := b.take(w)
	mine := b.e.sessions[w].blocks[0].first.Object(c.job, 1)
	b.do(func(e *Engine) { e.Put(w, mine, 0, nil, []byte("inner")) })
	b.result(w, x, "outer", mine)
	b.do(func(e *Engine) { e.Release(w, mine, 1) })
	if b.e.find(mine) == 0 {
		t.Fatal("the ref in the result was freed on its way")
	}
	quieten(a, b)
	c.get(out)
	c.get(mine)
	quieten(a, b)
	var got []string
	for _, l := range a.told() {
		if strings.HasPrefix(l, "value") {
			got = append(got, l)
		}
	}
	want := []string{"value 1/1/1 1.1:1 = outer [" + name(mine) + "]", "value 1/1/2 " + name(mine) + " = inner []"}
	if !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
	c.release(out, mine)
	quieten(a, b)
	allEmpty(t, a, b)
}

// A ref goes through three nodes; the claim on its owner is acknowledged before the one in the middle lets go.
func TestRefThroughThreeNodes(t *testing.T) {
	a, b, c := pair(t)
	d := newRig(t, settings{owner: 3, cpus: 1})
	meet(a, d)
	meet(b, d)
	// Node 2 runs a task that returns a ref to its own put; node 1 passes that on to node 3, whose worker keeps it.
	out := c.call("f node=2")
	quieten(a, b, d)
	w2 := onlyWorker(t, b)
	x := b.take(w2)
	inner := b.e.sessions[w2].blocks[0].first.Object(c.job, 1)
	b.do(func(e *Engine) { e.Put(w2, inner, 0, nil, []byte("inner")) })
	b.result(w2, x, "outer", inner)
	b.do(func(e *Engine) { e.Release(w2, inner, 1) })
	quieten(a, b, d)
	c.get(out)
	second := c.submit("f node=3", 1, nil, []ids.ObjectID{inner}).Object(c.job, 1)
	quieten(a, b, d)
	w3 := onlyWorker(t, d)
	y := d.take(w3)
	d.told()
	d.result(w3, y, "v")
	d.want("peer", "peer 2 Claim", "peer 1 TaskDone")
	// Everything but node 3's claim is delivered, and node 1's driver lets go: node 1 must hold on.
	held := d.wires[2]
	d.wires[2] = nil
	c.release(inner, out, second)
	quieten(a, b, d)
	if b.e.find(inner) == 0 {
		t.Fatal("the ref was freed while a claim was on its way")
	}
	d.wires[2] = held
	quieten(a, b, d)
	d.do(func(e *Engine) { e.Get(Chan{w3, 0}, 1, pack([]ids.ObjectID{inner})) })
	quieten(a, b, d)
	d.want("value", "value 1/0/1 "+name(inner)+" = inner []")
	d.do(func(e *Engine) { e.Release(w3, inner, 1) })
	quieten(a, b, d)
	allEmpty(t, a, b, d)
}

func TestLargeResultStaysAndIsCopied(t *testing.T) {
	a, b, c := pair(t)
	out := c.call("f")
	quieten(a, b)
	w := onlyWorker(t, b)
	x := b.take(w)
	b.do(func(e *Engine) { e.Create(Chan{w, 0}, 1, out, 1<<20) })
	b.do(func(e *Engine) { e.Result(w, x.Unique, 0, OutcomeValues, []Output{{Arena: true, Size: 1 << 20}}) })
	quieten(a, b)
	c.get(out)
	a.want("fetch value", "fetch 1.1:1 from 2")
	if s, ok := b.e.Serve(out); !ok || s.Size != 1<<20 {
		t.Fatalf("node 2 serves %+v, %v", s, ok)
	}
	a.do(func(e *Engine) { e.Fetched(a.fetches[0].key, true) })
	b.do(func(e *Engine) { e.Served(out, b.e.objs.at(b.e.find(out)).mem) })
	a.want("fetch value", "value 1/1/1 1.1:1 = arena 1048576 []")
	c.release(out)
	if a.e.find(out) == 0 {
		t.Fatal("the object was freed under a view")
	}
	a.do(func(e *Engine) { e.Unpin(c.sid, out, 1) })
	quieten(a, b)
	allEmpty(t, a, b)
}

func TestCopyThatFailsIsTriedAgain(t *testing.T) {
	a, b, c := pair(t)
	out := c.call("f")
	quieten(a, b)
	w := onlyWorker(t, b)
	x := b.take(w)
	b.do(func(e *Engine) { e.Create(Chan{w, 0}, 1, out, 1<<20) })
	b.do(func(e *Engine) { e.Result(w, x.Unique, 0, OutcomeValues, []Output{{Arena: true, Size: 1 << 20}}) })
	quieten(a, b)
	c.get(out)
	for k := range maxFetches {
		if len(a.fetches) != k+1 {
			t.Fatalf("%d copies were started, want %d", len(a.fetches), k+1)
		}
		a.do(func(e *Engine) { e.Fetched(a.fetches[k].key, false) })
		a.pass(2 * time.Second)
	}
	a.want("value", "value 1/1/1 1.1:1 = !OBJECT_LOST []")
	c.release(out)
	quieten(a, b)
	allEmpty(t, a, b)
}

func TestNodeThatDies(t *testing.T) {
	t.Run("runs a task", func(t *testing.T) {
		a, b, c := pair(t)
		out := c.call("f retries=0")
		quieten(a, b)
		a.do(func(e *Engine) { e.PeerGone(2, "silent") })
		c.get(out)
		a.want("value", "value 1/1/1 1.1:1 = !WORKER_CRASHED []")
		c.release(out)
		allEmpty(t, a)
	})
	t.Run("has the only copy", func(t *testing.T) {
		a, b, c := pair(t)
		out := c.call("f")
		quieten(a, b)
		w := onlyWorker(t, b)
		x := b.take(w)
		b.do(func(e *Engine) { e.Create(Chan{w, 0}, 1, out, 1<<20) })
		b.do(func(e *Engine) { e.Result(w, x.Unique, 0, OutcomeValues, []Output{{Arena: true, Size: 1 << 20}}) })
		quieten(a, b)
		a.do(func(e *Engine) { e.PeerGone(2, "silent") })
		c.get(out)
		a.want("value", "value 1/1/1 1.1:1 = !OBJECT_LOST []")
		c.release(out)
		allEmpty(t, a)
	})
	t.Run("owns a ref and a running task", func(t *testing.T) {
		a, b, c := pair(t)
		ref := c.put("kept")
		c.submit("f", 1, []ids.ObjectID{ref}, []ids.ObjectID{c.id()})
		quieten(a, b)
		w := onlyWorker(t, b)
		b.take(w)
		b.told()
		b.do(func(e *Engine) { e.PeerGone(1, "silent") })
		b.want("kill", "kill 1")
		b.do(func(e *Engine) { e.JobEnded(c.job) })
		b.do(func(e *Engine) { e.WorkerGone(w, "WORKER_CRASHED", "killed") })
		if err := b.e.Empty(false); err != nil {
			t.Error(err)
		}
	})
}

// The node with the primary copy dies while others have copies that may be evicted: one of them takes its place.
func TestCopyTakesThePlaceOfThePrimary(t *testing.T) {
	const size = 40 << 20
	// large makes an object on node 2 that its owner, node 1, knows to be there.
	large := func(t *testing.T) (a, b *rig, c *client, out ids.ObjectID) {
		a, b, c = pair(t)
		out = c.call("f")
		quieten(a, b)
		w := onlyWorker(t, b)
		x := b.take(w)
		b.do(func(e *Engine) { e.Create(Chan{w, 0}, 1, out, size) })
		b.do(func(e *Engine) { e.Result(w, x.Unique, 0, OutcomeValues, []Output{{Arena: true, Size: size}}) })
		quieten(a, b)
		return a, b, c, out
	}
	crowd := func(r *rig, c *client) { // an object that does not fit beside it
		r.do(func(e *Engine) { e.Create(Chan{c.sid, 1}, 9, c.id(), size) })
	}
	t.Run("on the owner's node", func(t *testing.T) {
		a, _, c, out := large(t)
		c.get(out)
		a.do(func(e *Engine) { e.Fetched(a.fetches[0].key, true) })
		a.do(func(e *Engine) { e.Unpin(c.sid, out, 1) })
		a.do(func(e *Engine) { e.PeerGone(2, "silent") })
		a.told()
		crowd(a, c)
		c.get(out)
		a.want("value created", "value 1/1/2 1.1:1 = arena 41943040 []")
	})
	// third has a third node's driver copy the object, and keep a ref to it in a put.
	third := func(t *testing.T) (a, b, d *rig, c, other *client, out, holder ids.ObjectID) {
		a, b, c, out = large(t)
		d = newRig(t, settings{owner: 3, cpus: 1})
		meet(a, d)
		meet(b, d)
		other = d.driver(2)
		holder = other.put("holder", out)
		other.get(out)
		quieten(a, b, d)
		d.do(func(e *Engine) { e.Fetched(d.fetches[0].key, true) })
		d.do(func(e *Engine) { e.Unpin(other.sid, out, 1) })
		quieten(a, b, d)
		a.told()
		d.told()
		return a, b, d, c, other, out, holder
	}
	t.Run("on a third node", func(t *testing.T) {
		a, b, d, c, other, out, holder := third(t)
		d.do(func(e *Engine) { e.PeerGone(2, "silent") })
		a.do(func(e *Engine) { e.PeerGone(2, "silent") })
		a.want("peer", "peer 3 ObjKeep")
		quieten(a, b, d)
		crowd(d, other)
		other.release(holder) // nobody on node 3 wants it any more
		quieten(a, b, d)
		d.want("created")
		c.get(out)
		quieten(a, b, d)
		a.want("fetch", "fetch 1.1:1 from 3")
		a.do(func(e *Engine) { e.Fetched(a.fetches[0].key, true) })
		a.do(func(e *Engine) { e.Unpin(c.sid, out, 1) })
		c.release(out)
		quieten(a, b, d)
		d.want("created", "created 1/1/9") // its bytes went with the last ref
		allEmpty(t, a)
	})
	t.Run("on a third node that is giving it up", func(t *testing.T) {
		a, b, d, c, other, out, _ := third(t)
		crowd(d, other)
		d.want("created peer", "peer 1 ObjCopy", "created 1/1/9")
		d.do(func(e *Engine) { e.PeerGone(2, "silent") })
		a.do(func(e *Engine) { e.PeerGone(2, "silent") })
		quieten(a, b, d)
		c.get(out)
		a.want("peer value", "peer 3 ObjKeep", "value 1/1/1 1.1:1 = !OBJECT_LOST []")
	})
}

func TestOwnerThatIsFoundLate(t *testing.T) {
	a := newRig(t, settings{owner: 1, cpus: 1})
	c := a.driver(1)
	far := ids.MakeUnique(2, 1).Object(c.job, 1)
	holder := c.put("holder", far)
	c.get(far)
	a.want("find", "find 2")
	a.do(func(e *Engine) { e.OwnerDead(2, "silent") })
	a.want("value", "value 1/1/1 2.1:1 = !OWNER_DIED []")
	c.get(far) // known to be dead by now
	a.want("value find", "value 1/1/2 2.1:1 = !OWNER_DIED []")
	c.release(holder)
	a.empty()
	// The number had been made up; now the head gives it to a node.
	b := newRig(t, settings{owner: 2, cpus: 1})
	meet(a, b)
	other := b.driver(2)
	real := other.put("real")
	c.put("holder", real)
	c.get(real)
	quieten(a, b)
	a.want("value", "value 1/1/3 2.1:1 = real []")
}

func TestUnschedulable(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	out := c.call("f node=9")
	r.told()
	r.pass(time.Second) // news of the node may be on their way
	c.get(out)
	r.want("value", "value 1/1/1 1.1:1 = !UNSCHEDULABLE []")
	c.release(out)
	r.empty()
}

func TestQueuedTasksMoveToALateNode(t *testing.T) {
	a := newRig(t, settings{owner: 1, cpus: 1})
	c := a.driver(1)
	a.workers()
	for range 10 {
		c.call("f")
	}
	b := newRig(t, settings{owner: 2, cpus: 3})
	meet(a, b)
	a.pass(100 * time.Millisecond)
	quieten(a, b)
	if n := b.e.tasks.live; n < 3 {
		t.Errorf("%d of 10 queued tasks went to the node that joined with 3 CPUs", n)
	}
}

// A node that seemed to be free is asked for slots and has none: its tasks go where there is room, they do not wait for it.
func TestTasksLeaveANodeThatSeemedToBeFree(t *testing.T) {
	a, b := newRig(t, settings{owner: 1, cpus: 0}), newRig(t, settings{owner: 2, cpus: 2})
	meet(a, b)
	own := b.driver(2)
	own.call("g")
	own.call("g")
	quieten(b)
	c := a.driver(1)
	c.call("f")
	c.call("f")
	quieten(a, b)
	d := newRig(t, settings{owner: 3, cpus: 2})
	meet(a, d)
	a.see(b)
	a.pass(100 * time.Millisecond)
	quieten(a, b, d)
	if n := d.e.tasks.live; n != 2 {
		t.Errorf("%d of 2 tasks went to the node with 2 free CPUs", n)
	}
}

// Tasks that are to be spread wait for the node that is meant for them, though others are done with theirs before it answers.
func TestSpreadWaitsForASlowNode(t *testing.T) {
	var rigs []*rig
	for k := range 3 {
		rigs = append(rigs, newRig(t, settings{owner: ids.Owner(k + 1), cpus: 2}))
		for _, r := range rigs[:k] {
			meet(r, rigs[k])
		}
	}
	a, slow := rigs[0], rigs[2]
	c := a.driver(1)
	for range 6 {
		c.call("f cpu=0 spread")
	}
	ran := 0
	for range 6 {
		carry(a, rigs[1])
		for _, r := range rigs[:2] {
			r.workers()
			for _, sid := range r.e.pool.sorted() {
				if len(r.e.pool.all[sid].fifo) > 0 {
					r.run(sid, "v")
					ran++
				}
			}
		}
	}
	quieten(rigs...)
	if n := slow.e.tasks.live; ran != 4 || n != 2 {
		t.Errorf("%d of 4 tasks ran at two nodes, %d of 2 at the one that answered late", ran, n)
	}
}

// Template numbers are used again once their job has ended, here and on nodes that hear of its end late.
func TestTemplateNumbersAreUsedAgain(t *testing.T) {
	a, b := newRig(t, settings{owner: 1, cpus: 0}), newRig(t, settings{owner: 2, cpus: 1})
	meet(a, b)
	for k := range uint32(20) {
		c := a.driver(k + 1)
		fn := "f" + strings.Repeat("x", int(k))
		out := c.call(fn)
		quieten(a, b)
		w := lastWorker(b)
		if got := string(b.e.Template(b.e.tasks.at(b.e.pool.all[w].fifo[0]).tmpl)); got != fn {
			t.Fatalf("job %d runs %q, want %q", k+1, got, fn)
		}
		b.run(w, "v")
		quieten(a, b)
		c.release(out)
		a.do(func(e *Engine) { e.SessionGone(c.sid) })
		quieten(a, b)
		if k%2 == 1 { // the end of two jobs is heard of at once, after both were there
			for _, j := range []uint32{k, k + 1} {
				b.do(func(e *Engine) { e.JobEnded(ids.JobFromInt(j)) })
			}
			for _, sid := range b.e.pool.sorted() {
				b.do(func(e *Engine) { e.WorkerGone(sid, "WORKER_CRASHED", "its job has ended") })
			}
		}
	}
	for _, r := range []*rig{a, b} {
		if n := len(r.e.templates); n > 4 {
			t.Errorf("node %d has %d templates after 20 jobs", r.e.cfg.Owner, n)
		}
	}
}

// lastWorker is the worker that was started last.
func lastWorker(r *rig) SessionID { return slices.Max(r.e.pool.sorted()) }

// A node that has just joined claims a ref of an owner that it has not heard of when it has; until then the sender keeps it.
func TestClaimToAnOwnerNotKnownYet(t *testing.T) {
	for _, dies := range []bool{false, true} {
		a, b, d := newRig(t, settings{owner: 1, cpus: 0}), newRig(t, settings{owner: 2, cpus: 1}), newRig(t, settings{owner: 3, cpus: 1})
		meet(a, b)
		meet(b, d)
		theirs := d.driver(7)
		far := theirs.put("far")
		c := a.driver(1)
		out := c.call("f")
		quieten(a, b, d)
		w := onlyWorker(t, b)
		x := b.take(w)
		b.do(func(e *Engine) { // the worker got the ref somewhere
			i := e.know(far)
			e.claim(e.sessions[w], i, 1)
			e.claimAll([]ids.ObjectID{far}, 0)
		})
		quieten(a, b, d)
		theirs.release(far)
		a.told()
		b.result(w, x, "outer", far)
		b.do(func(e *Engine) { e.Release(w, far, 1) })
		quieten(a, b, d)
		a.want("find", "find 3")
		if b.e.find(far) == 0 || len(a.e.dueClaims) != 1 {
			t.Fatal("the sender let go of a ref that nobody has claimed")
		}
		if dies {
			a.do(func(e *Engine) { e.OwnerDead(3, "it died") })
		} else {
			meet(a, d)
		}
		quieten(a, b, d)
		if b.e.find(far) != 0 {
			t.Error("the sender keeps the ref though it is claimed, or its owner dead")
		}
		if !dies {
			if d.e.find(far) == 0 {
				t.Fatal("its owner has freed it")
			}
			c.get(out)
			c.get(far)
			quieten(a, b, d)
			c.release(far)
		}
		c.release(out)
		quieten(a, b, d)
		allEmpty(t, a, b)
		if !dies {
			allEmpty(t, d)
		}
	}
}
