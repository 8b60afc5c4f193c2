package engine

import (
	"slices"
	"testing"

	"gray/internal/core/ids"
)

// A call whose argument is late holds up the later ones of its caller and group, if they are to keep their order.
func TestLateArgument(t *testing.T) {
	for _, tc := range []struct {
		name, words, other string
		want               []int // order in which calls 0 (late), 1, 2 and 3 (of another group) run
	}{
		{"ordered", "m", "m in=io", []int{3, 0, 1, 2}},
		{"unordered", "m unordered", "m in=io unordered", []int{1, 3, 2, 0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, c := solo(t, 2)
			h := c.actor("io=1")
			w := live(h)
			late := c.call("f")
			calls := []ids.ObjectID{h.call(tc.words, late), h.call(tc.words), h.call(tc.words), h.call(tc.other)}
			var want []ids.ObjectID
			for _, k := range tc.want {
				want = append(want, calls[k])
			}
			k := slices.Index(tc.want, 0)
			r.wantCalls(w, want[:k]...)
			r.run(r.e.tasks.at(r.e.objs.at(r.e.find(late)).task).worker, "v")
			r.wantCalls(w, want[k:]...)
			h.drop()
			r.crash(w)
			r.clean(c, append(calls, late)...)
		})
	}
}

func TestCallersTakeTurns(t *testing.T) {
	r, c := solo(t, 1)
	h := c.actor("max=2 async")
	w := live(h)
	d := r.driver(2)
	g := h.by(d)
	var mine, theirs []ids.ObjectID
	for range 4 {
		mine = append(mine, h.call("m"))
	}
	for range 4 {
		theirs = append(theirs, g.call("m"))
	}
	r.wantCalls(w, mine[0], mine[1], mine[2], theirs[0], mine[3], theirs[1], theirs[2], theirs[3])
	h.drop()
	d.release(theirs...)
	r.want("exit", "exit "+itoa(w))
	r.crash(w)
	r.clean(c, mine...)
}

func TestGroupsHaveTheirLimits(t *testing.T) {
	r, c := solo(t, 1)
	h := c.actor("max=3 io=2 async")
	w := live(h)
	var list []ids.ObjectID
	for range 5 {
		list = append(list, h.call("m"), h.call("m in=io"))
	}
	if got := len(r.waiting(w)); got != 5 {
		t.Fatalf("%d calls are with the worker, want 3 and 2", got)
	}
	x, y := r.take(w), r.take(w)
	r.end(w, x, OutcomeValues, "v")
	r.end(w, y, OutcomeValues, "v")
	if got := len(r.waiting(w)); got != 5 {
		t.Fatalf("%d calls wait at the worker, want one more of each group", got)
	}
	for r.taken[w] < len(r.execs[w]) {
		r.answer(w, OutcomeValues, "v")
	}
	h.drop()
	r.crash(w)
	r.clean(c, list...)
}

// What runs one after the other is sent ahead once it is known to be short.
func TestShortCallsAreSentAhead(t *testing.T) {
	r, c := solo(t, 1)
	h := c.actor("")
	w := live(h)
	var list []ids.ObjectID
	for range 100 {
		list = append(list, h.call("m"))
	}
	if got := len(r.waiting(w)); got != 1 {
		t.Fatalf("%d calls were sent, of which nothing is known", got)
	}
	r.answer(w, OutcomeValues, "v")
	if got := len(r.waiting(w)); got != 32 {
		t.Errorf("%d calls are with the worker, want 32", got)
	}
	r.wantCalls(w, list[1:]...)
	h.drop()
	r.crash(w)
	r.clean(c, list...)
}

// Calls that are cancelled, or fail, leave no hole.
func TestCancelledCalls(t *testing.T) {
	r, c := solo(t, 2)
	h := c.actor("")
	w := live(h)
	late := c.call("f")
	calls := []ids.ObjectID{h.call("m"), h.call("m", late), h.call("m"), h.call("m")}
	for _, k := range []int{1, 2} { // one that waits for an argument, one that is queued
		r.do(func(e *Engine) { e.Cancel(c.sid, calls[k], Cancelling{Recursive: true}) })
	}
	r.do(func(e *Engine) { e.Cancel(c.sid, calls[0], Cancelling{Recursive: true}) }) // one that runs
	r.want("cancel", "cancel "+itoa(w)+" 3")
	c.wantValues(calls, "", "!CANCELLED", "!CANCELLED", "")
	r.wantCalls(w, calls[0], calls[3])
	r.do(func(e *Engine) { e.Cancel(c.sid, calls[3], Cancelling{Recursive: true}) }) // nothing happens
	c.wantValues(calls[3:], "v")
	r.run(r.e.tasks.at(r.e.objs.at(r.e.find(late)).task).worker, "v")
	h.drop()
	r.crash(w)
	r.clean(c, append(calls, late)...)
}

// A cancelled call is not run again when its actor restarts.
func TestCancelledCallIsNotRetried(t *testing.T) {
	r, c := solo(t, 2)
	h := c.actor("restarts=1")
	w := live(h)
	call := h.call("m retries=-1")
	r.take(w)
	r.do(func(e *Engine) { e.Cancel(c.sid, call, Cancelling{Recursive: true}) })
	r.crash(w)
	w = live(h)
	r.wantCalls(w)
	c.wantValues([]ids.ObjectID{call}, "!ACTOR_UNAVAILABLE ")
	h.drop()
	r.crash(w)
	r.clean(c, call)
}

func TestRetryOfExceptions(t *testing.T) {
	r, c := solo(t, 1)
	h := c.actor("")
	w := live(h)
	first, second := h.call("m retries=1"), h.call("m retries=1")
	x := r.answer(w, OutcomeRetry, "error")
	r.end(w, x, OutcomeValues, "stale") // the first attempt is over
	c.wantValues([]ids.ObjectID{first}, "")
	if y := r.answer(w, OutcomeValues, "v"); y.Unique != second.Unique() {
		t.Fatalf("ran %x #%d, want the call after the one that is to be run again", uint64(y.Unique), y.Attempt)
	}
	y := r.answer(w, OutcomeRetry, "error")
	if y.Unique != first.Unique() || y.Attempt != 1 {
		t.Fatalf("ran %x #%d, want the second attempt of the first call", uint64(y.Unique), y.Attempt)
	}
	c.wantValues([]ids.ObjectID{first}, "error")
	h.drop()
	r.crash(w)
	r.clean(c, first, second)
}

func TestRetryAmongManySent(t *testing.T) {
	r, c := solo(t, 1)
	h := c.actor("max=3 async")
	w := live(h)
	var list []ids.ObjectID
	for range 5 {
		list = append(list, h.call("m retries=-1"))
	}
	x, y, z := r.take(w), r.take(w), r.take(w)
	r.end(w, y, OutcomeRetry, "error")
	r.end(w, z, OutcomeRetry, "error")
	r.end(w, x, OutcomeRetry, "error")
	r.wantCalls(w, list[3], list[4], list[1], list[2], list[0])
	h.drop()
	r.crash(w)
	r.clean(c, list...)
}

// A call that need not keep its order, and waits for an argument, has no place yet: it ends with its actor all the same.
func TestUnorderedCallThatWaitsWhenItsActorDies(t *testing.T) {
	for _, keep := range []bool{true, false} {
		r, c := solo(t, 2)
		h := c.actor("restarts=1")
		w := live(h)
		h.weak = true
		late := c.call("f")
		list := []ids.ObjectID{h.call("m unordered", late), h.call("m unordered retries=1", late), h.call("m unordered")}
		if n := r.e.PendingCalls(c.sid, h.id); n != 3 {
			t.Errorf("%d calls are pending, want 3", n)
		}
		r.do(func(e *Engine) { e.Cancel(c.sid, list[1], Cancelling{Recursive: true}) })
		r.crash(w)
		c.wantValues(list, "", "!CANCELLED", "!ACTOR_UNAVAILABLE ") // the first has not come to it yet
		w = live(h)
		if keep {
			r.do(func(e *Engine) { e.KillActor(h.id, true) })
		} else {
			h.drop()
		}
		r.crash(w)
		cause := map[bool]string{true: "KILLED", false: "OUT_OF_SCOPE"}[keep]
		c.wantValues(list[:1], "!ACTOR_DIED "+cause)
		if keep {
			h.drop()
		}
		r.run(r.e.tasks.at(r.e.objs.at(r.e.find(late)).task).worker, "v")
		r.clean(c, append(list, late)...)
	}
}

// A call that is repeated goes ahead of those that wait for an argument: one of them may wait for its value.
func TestARepeatedCallIsAheadOfWhatNeedsIt(t *testing.T) {
	r, c := solo(t, 1)
	h := c.actor("")
	w := live(h)
	first := h.call("m retries=1")
	h.call("m")
	needs := h.call("m", first)
	last := h.call("m")
	r.answer(w, OutcomeRetry, "error")
	for range 4 {
		quieten(r)
		r.answer(w, OutcomeValues, "v")
	}
	r.told()
	c.get(needs, last)
	r.want("value", "value 1/1/1 "+name(needs)+" = v []", "value 1/1/1 "+name(last)+" = v []")
}
