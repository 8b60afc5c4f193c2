package engine

import (
	"fmt"
	"strings"
	"testing"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

// item is an item's id.
func item(gen ids.ObjectID, index uint32) ids.ObjectID { return gen.Task().Object(index) }

// releaseItems lets a client's items from index 2 to last go.
func (c *client) releaseItems(gen ids.ObjectID, last uint32) {
	c.t.Helper()
	for k := uint32(2); k <= last; k++ {
		c.release(item(gen, k))
	}
}

// letGo ends a client's use of a stream.
func (c *client) letGo(gen ids.ObjectID) {
	c.t.Helper()
	c.do(func(e *Engine) { e.DropStream(c.sid, gen) })
	c.release(gen)
}

func TestStreamHandsItemsOver(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.workers()
	gen := c.stream("g")
	w := onlyWorker(t, r)
	x := r.take(w)
	c.read(gen, 2)
	r.want("items")
	r.yield(w, x, 2, "a")
	r.want("items", "items 1/1/1 1.1:1 from 2: a")
	r.yield(w, x, 3, "b")
	r.yield(w, x, 4, "c")
	c.read(gen, 3)
	r.want("items", "items 1/1/2 1.1:1 from 3: b,c")
	c.get(gen)
	c.read(gen, 5) // takes the place of the get
	r.result(w, x, "3")
	r.want("items value", "items 1/1/4 1.1:1 from 5:  end")
	c.get(gen, item(gen, 3))
	r.want("value done", "value 1/1/5 1.1:1 = 3 []", "value 1/1/5 1.1:3 = b []", "done 1/1/5 false")
	c.releaseItems(gen, 4)
	c.letGo(gen)
	r.empty()
}

func TestStreamOfRefsAndLargeItems(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.workers()
	gen := c.stream("g")
	w := onlyWorker(t, r)
	x := r.take(w)
	inner := c.put("inner")
	r.yield(w, x, 2, "a", inner)
	r.yieldLarge(w, x, item(gen, 3), 300<<10)
	c.release(inner)
	c.read(gen, 2)
	r.want("items", "items 1/1/1 1.1:1 from 2: a")
	c.read(gen, 3)
	r.want("items", "items 1/1/2 1.1:1 from 3: arena")
	c.get(item(gen, 3), inner) // the item's value came with a delivery of it
	r.want("value", "value 1/1/3 1.1:3 = arena 307200 []", "value 1/1/3 1.2:1 = inner []")
	c.releaseItems(gen, 3)
	r.do(func(e *Engine) { e.Unpin(c.sid, item(gen, 3), 1) })
	c.release(inner)
	r.result(w, x, "2")
	c.letGo(gen)
	r.empty()
}

func TestErrorsEndStreams(t *testing.T) {
	for _, tc := range []struct {
		name, fn string
		do       func(r *rig, w SessionID, x Execute)
		want     string
	}{
		{"raised", "g", func(r *rig, w SessionID, x Execute) {
			r.do(func(e *Engine) {
				e.Result(w, x.Unique, 0, OutcomeRaised, []Output{{Value: []byte("none"), Size: 4}, {Status: 1, Value: []byte("oh"), Size: 2}})
			})
		}, "items 1/1/2 1.1:1 from 2: a,oh end"},
		{"the worker died", "g", func(r *rig, w SessionID, _ Execute) {
			r.do(func(e *Engine) { e.WorkerGone(w, fault.WorkerCrashed, "killed") })
		}, "items 1/1/2 1.1:1 from 2: a,!WORKER_CRASHED end"},
		{"it died while it wrote", "g", func(r *rig, w SessionID, x Execute) {
			r.do(func(e *Engine) { e.Create(Chan{w, 0}, 1, x.Unique.Object(ids.JobFromInt(1), 3), 1<<20) })
			r.do(func(e *Engine) { e.WorkerGone(w, fault.WorkerCrashed, "killed") })
		}, "items 1/1/2 1.1:1 from 2: a,!WORKER_CRASHED end"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, settings{owner: 1, cpus: 1})
			c := r.driver(1)
			r.workers()
			gen := c.stream(tc.fn)
			w := onlyWorker(t, r)
			x := r.take(w)
			r.yield(w, x, 2, "a")
			c.read(gen, 4) // not there yet
			r.told()
			tc.do(r, w, x)
			r.want("items", "items 1/1/1 1.1:1 from 4:  end")
			c.read(gen, 2)
			r.want("items", tc.want)
			c.releaseItems(gen, 3)
			c.letGo(gen)
			r.empty()
		})
	}
}

func TestRetriedStreamGoesOn(t *testing.T) {
	for name, lose := range map[string]func(r *rig, w SessionID, x Execute){
		"crash": func(r *rig, w SessionID, _ Execute) {
			r.do(func(e *Engine) { e.WorkerGone(w, fault.WorkerCrashed, "killed") })
			delete(r.execs, w)
			r.workers()
		},
		"raised": func(r *rig, w SessionID, x Execute) {
			r.do(func(e *Engine) { e.Result(w, x.Unique, 0, OutcomeRetry, []Output{{Status: 1}}) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, settings{owner: 1, cpus: 1})
			c := r.driver(1)
			r.workers()
			gen := c.stream("g retries=1")
			w := onlyWorker(t, r)
			x := r.take(w)
			if x.Returns != 0 {
				t.Fatalf("told that %d items are there", x.Returns)
			}
			r.yield(w, x, 2, "a")
			r.yield(w, x, 3, "b")
			c.read(gen, 2)
			lose(r, w, x)
			w2 := onlyWorker(t, r)
			y := r.take(w2)
			if y.Returns != 2 || y.Attempt != 1 {
				t.Fatalf("attempt %d is told that %d items are there, want 2", y.Attempt, y.Returns)
			}
			r.yield(w2, x, 4, "stale")
			r.yield(w2, y, 3, "again")
			r.yield(w2, y, 4, "c")
			r.result(w2, y, "3")
			c.read(gen, 3)
			r.want("items refuse", "items 1/1/1 1.1:1 from 2: a,b", "items 1/1/2 1.1:1 from 3: b,c end")
			c.releaseItems(gen, 4)
			c.release(item(gen, 3)) // which was handed over twice
			c.letGo(gen)
			r.empty()
		})
	}
}

func TestDroppedStreamFreesItems(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.workers()
	gen := c.stream("g")
	w := onlyWorker(t, r)
	x := r.take(w)
	r.yield(w, x, 2, "a")
	c.read(gen, 2)
	r.yieldLarge(w, x, item(gen, 3), 300<<10)
	before := r.e.objs.live
	r.do(func(e *Engine) { e.DropStream(c.sid, gen) })
	if got := before - r.e.objs.live; got != 1 {
		t.Errorf("%d items were freed, want the one that was not read", got)
	}
	r.yield(w, x, 4, "nobody reads it")
	r.yieldLarge(w, x, item(gen, 5), 300<<10)
	c.read(gen, 3)
	r.want("items fail", "items 1/1/1 1.1:1 from 2: a", "fail 1/1/2 TASK_GONE")
	c.get(item(gen, 2), gen)
	r.result(w, x, "4") // who asks for its end hears of it
	r.want("value", "value 1/1/3 1.1:2 = a []", "value 1/1/3 1.1:1 = 4 []")
	c.release(item(gen, 2), gen)
	r.empty()
}

func TestBoundedGeneratorWaits(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.workers()
	gen := c.stream("g bound=2")
	w := onlyWorker(t, r)
	x := r.take(w)
	ask := func(index uint32) { r.do(func(e *Engine) { e.StreamCredit(Chan{w, 0}, index, gen, 0, index) }) }
	ask(3)
	r.want("credit", fmt.Sprintf("credit %d/0/3 3", w))
	r.yield(w, x, 2, "a")
	r.yield(w, x, 3, "b")
	ask(4)
	if r.want("credit"); r.e.res.Avail().Get(r.e.cpu) == 0 {
		t.Error("a generator that waits keeps its CPU")
	}
	c.read(gen, 2)
	r.want("items credit", "items 1/1/1 1.1:1 from 2: a", fmt.Sprintf("credit %d/0/4 4", w))
	if r.e.res.Avail().Get(r.e.cpu) != 0 {
		t.Error("a generator that goes on has no CPU")
	}
	r.yield(w, x, 4, "c")
	ask(5)
	c.do(func(e *Engine) { e.Next(c.ch, 9, gen, 3, 2, true) }) // looks, and does not take
	r.want("items credit", "items 1/1/9 1.1:1 from 3: b")
	c.do(func(e *Engine) { e.Next(c.ch, 0, gen, 3, 3, true) })
	r.want("items credit", fmt.Sprintf("credit %d/0/5 5", w))
	ask(6)
	c.release(item(gen, 2), item(gen, 3))
	c.letGo(gen)
	r.want("credit", fmt.Sprintf("credit %d/0/6 4294967295", w))
	r.result(w, x, "")
	r.empty()
}

func TestUnboundedGeneratorWaitsForMemory(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.workers()
	gen := c.stream("g")
	w := onlyWorker(t, r)
	x := r.take(w)
	big := strings.Repeat("x", 1<<19)
	index := uint32(2)
	for ; index < 2+streamBytes>>19; index++ {
		r.yield(w, x, index, big)
	}
	ask := func(req uint32) { r.do(func(e *Engine) { e.StreamCredit(Chan{w, 0}, req, gen, 0, index) }) }
	ask(1)
	r.want("credit")
	c.read(gen, 2)
	r.want("credit", fmt.Sprintf("credit %d/0/1 %d", w, 2+streamItems))
	r.yield(w, x, index, big)
	index++
	ask(2)
	r.want("credit")
	c.get(gen) // waits for the end
	r.want("credit", fmt.Sprintf("credit %d/0/2 4294967295", w))
	c.releaseItems(gen, 2)
	r.result(w, x, "")
	c.letGo(gen)
	r.empty()
}

func TestReadersOfStreams(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.workers()
	gen, other := c.stream("g"), c.stream("g cpu=0")
	w := r.e.tasks.at(r.e.objs.at(r.e.find(gen)).task).worker
	x := r.take(w)
	// Two beside each other and a get on one channel.
	c.do(func(e *Engine) { e.Next(c.ch, 1, gen, 2, 1, true) })
	c.do(func(e *Engine) { e.Next(c.ch, 2, other, 2, 1, true) })
	c.req = 2
	c.get(gen)
	r.yield(w, x, 2, "a")
	r.want("items done", "items 1/1/1 1.1:1 from 2: a")
	r.do(func(e *Engine) { e.CancelReq(c.ch, 2) })
	r.do(func(e *Engine) { e.CancelReq(c.ch, 2) })
	r.want("items done", "done 1/1/2 true")
	// What is there is the answer, also to who gives up; and it may be had again.
	c.do(func(e *Engine) {
		e.Next(c.ch, 4, gen, 2, 2, false)
		e.CancelReq(c.ch, 4)
	})
	r.want("items done", "items 1/1/4 1.1:1 from 2: a")
	c.release(item(gen, 2), item(gen, 2))
	// Strangers get nothing.
	d := r.driver(2)
	d.read(gen, 2)
	r.want("fail", "fail 4/1/1 TASK_GONE")
	d.do(func(e *Engine) { e.DropStream(d.sid, gen) })
	c.read(gen, 3)
	r.yield(w, x, 3, "b")
	r.want("items", "items 1/1/4 1.1:1 from 3: b")
	// A gap is a lie.
	r.yield(w, x, 5, "d")
	if told := r.told(); !strings.Contains(told[len(told)-1], "sent item 5 after item 3") {
		t.Errorf("told %q", told)
	}
	r.do(func(e *Engine) { e.SessionGone(d.sid) })
	r.do(func(e *Engine) { e.SessionGone(c.sid) })
	for _, w := range sortedKeys(r.e.pool.all) {
		r.do(func(e *Engine) { e.WorkerGone(w, fault.WorkerCrashed, "its job has ended") })
	}
	if err := r.e.Empty(false); err != nil {
		t.Error(err)
	}
}

// away starts a generator on another node.
func away(t *testing.T, fn string) (a, b *rig, c *client, gen ids.ObjectID, w SessionID, x Execute) {
	a, b = newRig(t, settings{owner: 1, cpus: 1}), newRig(t, settings{owner: 2, cpus: 1})
	meet(a, b)
	c = a.driver(1)
	gen = c.stream(fn + " node=2")
	carry(a, b)
	b.workers()
	carry(a, b)
	w = onlyWorker(t, b)
	return a, b, c, gen, w, b.take(w)
}

func TestStreamFromAnotherNode(t *testing.T) {
	a, b, c, gen, w, x := away(t, "g bound=2")
	inner := c.put("inner")
	b.yield(w, x, 2, "a", inner)
	b.yieldLarge(w, x, item(gen, 3), 300<<10)
	b.do(func(e *Engine) { e.StreamCredit(Chan{w, 0}, 5, gen, 0, 4) })
	carry(a, b)
	b.want("credit")
	c.read(gen, 2)
	carry(a, b)
	b.want("credit", fmt.Sprintf("credit %d/0/5 4", w))
	c.read(gen, 3)
	b.yield(w, x, 4, "c")
	carry(a, b)
	c.read(gen, 4)
	a.want("items", "items 1/1/1 1.1:1 from 2: a", "items 1/1/2 1.1:1 from 3: away", "items 1/1/3 1.1:1 from 4: c")
	b.do(func(e *Engine) {
		e.Result(w, x.Unique, 0, OutcomeRaised, []Output{{Value: []byte("none")}, {Status: 1, Value: []byte("oh"), Contained: []ids.ObjectID{inner}}})
	})
	carry(a, b)
	c.read(gen, 5)
	a.want("items", "items 1/1/4 1.1:1 from 5: oh end")
	c.release(inner, inner, inner)
	c.releaseItems(gen, 5)
	c.letGo(gen)
	carry(a, b)
	a.empty()
	b.empty()
}

func TestStreamFromAnotherNodeIsDropped(t *testing.T) {
	a, b, c, gen, w, x := away(t, "g bound=2")
	inner := c.put("inner")
	b.yieldLarge(w, x, item(gen, 2), 300<<10)
	carry(a, b)
	b.yieldLarge(w, x, item(gen, 3), 300<<10)
	b.yield(w, x, 4, "crosses", inner)
	c.letGo(gen)
	carry(a, b)
	b.do(func(e *Engine) { e.StreamCredit(Chan{w, 0}, 5, gen, 0, 5) })
	b.want("credit", fmt.Sprintf("credit %d/0/5 4294967295", w))
	b.yieldLarge(w, x, item(gen, 5), 300<<10)
	c.release(inner)
	b.result(w, x, "4")
	carry(a, b)
	a.empty()
	b.empty()
}

func TestNodeOfAStreamDies(t *testing.T) {
	for fn, want := range map[string]string{
		"g":           "items 1/1/1 1.1:1 from 2: a,!WORKER_CRASHED end",
		"g retries=1": "items 1/1/1 1.1:1 from 2: a",
	} {
		a, b, c, gen, w, x := away(t, fn)
		b.yield(w, x, 2, "a")
		b.do(func(e *Engine) { e.StreamCredit(Chan{w, 0}, 5, gen, 0, 1<<20) })
		carry(a, b)
		a.do(func(e *Engine) { e.PeerGone(2, "killed") })
		b.do(func(e *Engine) { e.PeerGone(1, "it is we who are dead") })
		c.read(gen, 2)
		a.want("items", want)
	}
}

func TestStreamOfAnActor(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	h := c.actor("")
	w := live(h)
	gen := h.send("", &ActorSubmission{Submission: Submission{Returns: 1, Flags: flagStream}})
	x := r.take(w)
	r.yield(w, x, 2, "a")
	c.read(gen, 2)
	r.want("items", "items 1/1/1 "+name(gen)+" from 2: a")
	r.crash(w)
	c.read(gen, 3)
	r.want("items", "items 1/1/2 "+name(gen)+" from 3: !ACTOR_DIED WORKER_DIED end")
	c.releaseItems(gen, 3)
	c.letGo(gen)
	h.drop()
	r.empty()
}

func TestMadeUpItems(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.workers()
	gen := c.stream("g")
	w := onlyWorker(t, r)
	x := r.take(w)
	holder := c.put("holds what is not there", item(gen, 2), item(gen, 3))
	r.yield(w, x, 2, "a")
	c.read(gen, 2)
	r.want("items", "items 1/1/1 1.1:1 from 2: !OBJECT_LOST")
	r.do(func(e *Engine) {
		e.Result(w, x.Unique, 0, OutcomeRaised, []Output{{Value: []byte("none")}, {Status: 1, Value: []byte("oh"), Size: 2}})
	})
	c.read(gen, 3)
	r.want("items", "items 1/1/2 1.1:1 from 3: !OBJECT_LOST end")
	c.releaseItems(gen, 3)
	c.release(holder)
	c.letGo(gen)
	r.empty()
}

func TestLargeErrorIsTheLastItem(t *testing.T) {
	for _, dropped := range []bool{false, true} {
		r := newRig(t, settings{owner: 1, cpus: 1})
		c := r.driver(1)
		r.workers()
		gen := c.stream("g")
		w := onlyWorker(t, r)
		x := r.take(w)
		r.do(func(e *Engine) { e.Create(Chan{w, 0}, 1, item(gen, 2), 300<<10) })
		r.do(func(e *Engine) {
			if dropped {
				e.DropStream(c.sid, gen)
			}
			e.Result(w, x.Unique, 0, OutcomeRaised, []Output{{Value: []byte("none")}, {Status: 1, Arena: true, Size: 300 << 10}})
		})
		if c.read(gen, 2); !dropped {
			r.want("items", "items 1/1/1 1.1:1 from 2: arena end")
			c.releaseItems(gen, 2)
		}
		c.letGo(gen)
		r.empty()
	}
}
