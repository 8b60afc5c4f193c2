package engine

import (
	"slices"
	"testing"
	"time"

	"gray/internal/core/ids"
)

// large puts an object of n bytes into a rig's store.
func (c *client) large(n uint64) ids.ObjectID {
	c.t.Helper()
	id := c.id()
	c.do(func(e *Engine) { e.Create(c.ch, 99, id, n) })
	c.do(func(e *Engine) { e.Seal(c.sid, id, 0, nil) })
	return id
}

// Arguments that are elsewhere are copied before a call is sent; calls behind it wait, other callers do not.
func TestCallsArgumentIsFetched(t *testing.T) {
	a, b, c := pair(t)
	h := c.actor("")
	w := live(h, b)
	arg := c.large(1 << 20)
	list := []ids.ObjectID{h.call("m", arg), h.call("m")}
	d := b.driver(2)
	g := h.by(d)
	g.weak = true
	quieten(a, b)
	b.changed(a.row(h.id))
	other := g.call("m")
	b.wantCalls(w, other)
	b.do(func(e *Engine) { e.Fetched(b.fetches[0].key, true) })
	b.wantCalls(w, list...)
	quieten(a, b)
	c.wantValues(list, "v", "v")
	h.drop()
	quieten(a, b)
	b.crash(w)
	d.release(other)
	c.release(append(list, arg)...)
	b.do(func(e *Engine) { e.SessionGone(d.sid) })
	quieten(a, b)
	allEmpty(t, a, b)
}

// A call whose argument has come waits for room at the actor like any other.
func TestFetchedCallKeepsTheLimit(t *testing.T) {
	a, b, c := pair(t)
	h := c.actor("max=2 async")
	w := live(h, b)
	arg := c.large(1 << 20)
	first := h.call("m", arg)
	quieten(a, b)
	d := b.driver(2)
	g := h.by(d)
	g.weak = true
	others := []ids.ObjectID{g.call("m"), g.call("m"), g.call("m")}
	b.do(func(e *Engine) { e.Fetched(b.fetches[0].key, true) })
	if n := len(b.waiting(w)); n != 2 {
		t.Errorf("%d calls are with the worker, of which 2 may be", n)
	}
	b.wantCalls(w, others[0], others[1], others[2], first)
}

// What becomes of a call whose argument is lost on its way: it runs with the error.
func TestCallsArgumentIsLost(t *testing.T) {
	a, b, c := pair(t)
	h := c.actor("")
	w := live(h, b)
	arg := c.large(1 << 20)
	list := []ids.ObjectID{h.call("m", arg), h.call("m")}
	quieten(a, b)
	for k := range maxFetches {
		b.do(func(e *Engine) { e.Fetched(b.fetches[k].key, false) })
		b.pass(2 * time.Second)
		carry(a, b)
	}
	if x := b.execs[w][1]; string(x.Deps[0].Inline) != "!OBJECT_LOST" {
		t.Errorf("sent with %q", x.Deps[0].Inline)
	}
	b.wantCalls(w, list...)
}

// A call that is too large for a packet goes by way of the store; one that does not fit there fails.
func TestLargeCalls(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1, store: 256 << 10})
	c := r.driver(1)
	r.workers()
	h := c.actor("")
	w := live(h)
	r.told()
	send := func(n int) ids.ObjectID {
		return h.send("m", &ActorSubmission{Submission: Submission{Args: make([]byte, n), Returns: 1}})
	}
	list := []ids.ObjectID{send(150 << 10), send(500 << 10), send(10)}
	r.want("execute execute-at", "execute-at "+itoa(w)+" 1.2 size 153728")
	r.answer(w, OutcomeValues, "v")
	r.pass(30 * time.Second)
	r.wantCalls(w, list[2])
	c.wantValues(list, "v", "!STORE_FULL", "v")
	h.drop()
	r.crash(w)
	r.clean(c, list...)
}

// The process dies, or the call is cancelled, while its argument is fetched: the room for it is given back, and the
// call was not sent, so it may be run by the next incarnation.
func TestFetchIsGivenUp(t *testing.T) {
	for _, how := range []string{"dies", "cancelled", "caller's node dies"} {
		t.Run(how, func(t *testing.T) {
			a, b, c := pair(t)
			h := c.actor("restarts=1")
			w := live(h, b)
			arg := c.large(1 << 20)
			call := h.call("m retries=1", arg)
			quieten(a, b)
			switch how {
			case "dies":
				b.crash(w)
			case "cancelled":
				a.do(func(e *Engine) { e.Cancel(c.sid, call, Cancelling{Recursive: true}) })
			default:
				gone(a, b)
			}
			carry(a, b)
			b.do(func(e *Engine) { e.Fetched(b.fetches[0].key, false) })
			if len(b.e.bundles) != 0 || len(b.e.fetches) != 0 {
				t.Error("room is kept for an argument that nobody waits for")
			}
			switch how {
			case "dies":
				quieten(a, b)
				w = b.born(h.id)
				quieten(a, b)
				b.do(func(e *Engine) { e.Fetched(b.fetches[1].key, true) })
				b.wantCalls(w, call)
				quieten(a, b)
				c.wantValues([]ids.ObjectID{call}, "v")
			case "cancelled":
				c.wantValues([]ids.ObjectID{call}, "!CANCELLED")
			}
		})
	}
}

// An actor's worker writes outputs of its calls into the store, also of several at once.
func TestCallsLargeOutputs(t *testing.T) {
	a, b, c := pair(t)
	h := c.actor("max=2 async")
	w := live(h, b)
	list := []ids.ObjectID{h.call("m"), h.call("m")}
	quieten(a, b)
	x, y := b.take(w), b.take(w)
	for _, id := range list {
		b.do(func(e *Engine) { e.Create(Chan{w, 0}, 1, id, 1<<20) })
	}
	for _, x := range []Execute{y, x} {
		b.do(func(e *Engine) { e.Result(w, x.Unique, 0, OutcomeValues, []Output{{Arena: true, Size: 1 << 20}}) })
	}
	quieten(a, b)
	a.told()
	c.get(list...)
	a.want("fetch", "fetch 1.2:1 from 2", "fetch 1.3:1 from 2")
	for _, f := range slices.Clone(a.fetches) {
		a.do(func(e *Engine) { e.Fetched(f.key, true) })
	}
	a.want("value", "value 1/1/1 1.2:1 = arena 1048576 []", "value 1/1/1 1.3:1 = arena 1048576 []")
	for _, id := range list {
		a.do(func(e *Engine) { e.Unpin(c.sid, id, 1) })
	}
	h.drop()
	c.release(list...)
	quieten(a, b)
	b.crash(w)
	quieten(a, b)
	allEmpty(t, a, b)
}

// A fenced node ends its actors and makes none; when it may go on, they come back.
func TestFenceEndsActors(t *testing.T) {
	r, c := solo(t, 1)
	h := c.actor("restarts=1")
	w := live(h)
	call := h.call("m retries=1")
	r.take(w)
	r.told()
	r.do(func(e *Engine) { e.Fence(true) })
	r.want("kill", "kill "+itoa(w), "kill 3")
	r.crash(w)
	r.crash(3)
	r.workers()
	if a := r.e.actors[h.id.Unique()]; a.host != nil {
		t.Fatal("an actor was placed on a fenced node")
	}
	r.do(func(e *Engine) { e.Fence(false) })
	w = live(h)
	r.wantCalls(w, call)
	h.drop()
	r.crash(w)
	r.clean(c, call)
}

// A stuck store says so although an actor lives that does nothing: it will release nothing.
func TestStoreIsFullWhileAnActorIsIdle(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1, store: 1 << 20})
	c := r.driver(1)
	r.workers()
	h := c.actor("")
	w := live(h)
	held := c.large(900 << 10)
	for _, busy := range []bool{true, false} {
		if busy {
			h.call("m")
			r.take(w)
		} else {
			r.end(w, r.execs[w][1], OutcomeValues, "v")
		}
		r.told()
		id := c.id()
		r.do(func(e *Engine) { e.Create(c.ch, 5, id, 900<<10) })
		r.pass(30 * time.Second)
		if busy {
			r.want("fail created")
			r.do(func(e *Engine) { e.Abort(c.sid, id) })
		} else {
			r.want("fail created", "fail 1/1/5 STORE_FULL")
		}
	}
	_ = held
}
