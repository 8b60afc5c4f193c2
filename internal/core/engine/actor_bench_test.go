package engine

import (
	"runtime"
	"testing"

	"gray/internal/core/ids"
)

// quietActor is an actor that lives, on a rig that writes nothing down.
func quietActor(t testing.TB) (*rig, *client, *handle, SessionID) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.workers()
	h := c.actor("")
	w := r.born(h.id)
	h.call("m")
	r.answer(w, OutcomeValues, "v")
	r.quiet, r.log = true, nil
	return r, c, h, w
}

// BenchmarkActorCall is a call's way through one engine, as BenchmarkNoopTask is a task's.
func BenchmarkActorCall(b *testing.B) {
	r, c, h, w := quietActor(b)
	m := ActorSubmission{Submission: Submission{Template: c.fns["method m"], Returns: 1, Args: make([]byte, 40), Bytes: 140}, Actor: h.id}
	outs := []Output{{Value: []byte("value"), Size: 5}}
	list := make(ids.List, ids.ObjectSize)
	e := r.e
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if c.next.Counter()%(1<<20) > 1<<20-10 {
			b.StopTimer()
			c.next = e.GiveIDs(c.sid, 1<<20)
			b.StartTimer()
		}
		m.Unique = c.id().Unique()
		id := h.id.Task(m.Unique).Object(1)
		e.CallActor(c.sid, &m)
		copy(list, id[:])
		e.Get(c.ch, 1, list)
		e.Flush()
		e.Result(w, m.Unique, 0, OutcomeValues, outs)
		e.Release(c.sid, id, 1)
		e.Flush()
		r.execs[w], r.taken[w] = r.execs[w][:0], 0
	}
}

// A call in steady state allocates nothing but what the rig does.
func TestActorCallAllocates(t *testing.T) {
	r, c, h, w := quietActor(t)
	m := ActorSubmission{Submission: Submission{Template: c.fns["method m"], Returns: 1, Args: make([]byte, 40), Bytes: 140}, Actor: h.id}
	outs := []Output{{Value: []byte("value"), Size: 5}}
	r.execs[w] = make([]Execute, 0, 64)
	if n := testing.AllocsPerRun(1000, func() {
		m.Unique = c.id().Unique()
		r.e.CallActor(c.sid, &m)
		r.e.Flush()
		r.e.Result(w, m.Unique, 0, OutcomeValues, outs)
		r.e.Release(c.sid, h.id.Task(m.Unique).Object(1), 1)
		r.e.Flush()
		r.execs[w], r.taken[w] = r.execs[w][:0], 0
	}); n > 0 {
		t.Errorf("a call allocates %.1f times", n)
	}
}

// TestQueuedCallMemory bounds what a queued call of an actor costs, all tables included.
func TestQueuedCallMemory(t *testing.T) {
	n := 1_000_000
	if testing.Short() {
		n = 200_000
	}
	r, c, h, w := quietActor(t)
	c.next = r.e.GiveIDs(c.sid, uint64(n)+10)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	m := ActorSubmission{Submission: Submission{Template: c.fns["method m"], Returns: 1, Args: make([]byte, 100), Bytes: 200}, Actor: h.id}
	for range n {
		m.Unique = c.id().Unique()
		r.e.CallActor(c.sid, &m)
	}
	r.e.Flush()
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := float64(after.HeapAlloc-before.HeapAlloc) / float64(n)
	t.Logf("%d queued calls of 100 bytes: %.0f bytes each", n, each)
	if each > 1200 {
		t.Errorf("a queued call takes %.0f bytes, at most 1200 are allowed", each)
	}
	if got := r.e.PendingCalls(c.sid, h.id); got != n {
		t.Errorf("%d calls are pending, want %d", got, n)
	}
	r.e.WorkerGone(w, "WORKER_CRASHED", "killed") // all of them fail
	r.e.Flush()
	if got := r.e.PendingCalls(c.sid, h.id); got != 0 {
		t.Errorf("%d calls are pending, want 0", got)
	}
}
