package engine

import (
	"runtime"
	"testing"

	"gray/internal/core/ids"
	"gray/internal/core/resource"
)

// BenchmarkNoopTask is a task's way through one engine: submit, execute, result, get, release.
func BenchmarkNoopTask(b *testing.B) {
	r := newRig(b, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.workers()
	c.call("f")
	w := onlyWorker(b, r)
	r.run(w, "v")
	r.quiet, r.log = true, nil
	m := Submission{Template: c.fns["f"], Returns: 1, Args: make([]byte, 40), Bytes: 140}
	outs := []Output{{Value: []byte("value"), Size: 5}}
	list := make(ids.List, ids.ObjectSize)
	e := r.e
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		id := c.id()
		if c.next.Counter()%(1<<20) > 1<<20-10 {
			b.StopTimer()
			c.next = e.GiveIDs(c.sid, 1<<20)
			b.StartTimer()
		}
		m.Unique = id.Unique()
		e.Submit(c.sid, &m)
		copy(list, id[:])
		e.Get(c.ch, 1, list)
		e.Flush()
		e.Result(w, id.Unique(), 0, OutcomeValues, outs)
		e.Release(c.sid, id, 1)
		e.Flush()
		r.execs[w], r.taken[w] = r.execs[w][:0], 0
	}
}

func onlyWorker(t testing.TB, r *rig) SessionID {
	t.Helper()
	for w := range r.execs {
		return w
	}
	t.Fatal("no worker has a task")
	return 0
}

// TestQueuedTaskMemory bounds what a queued task costs, all tables included.
func TestQueuedTaskMemory(t *testing.T) {
	n := 1_000_000
	if testing.Short() {
		n = 200_000
	}
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.quiet, r.log = true, nil
	c.call("f")
	c.next = r.e.GiveIDs(c.sid, uint64(n)+10)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	m := Submission{Template: c.fns["f"], Returns: 1, Args: make([]byte, 100), Bytes: 200}
	for range n {
		m.Unique = c.id().Unique()
		r.e.Submit(c.sid, &m)
	}
	r.e.Flush()
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := float64(after.HeapAlloc-before.HeapAlloc) / float64(n)
	t.Logf("%d queued tasks of 100 bytes: %.0f bytes each", n, each)
	if each > 1200 {
		t.Errorf("a queued task takes %.0f bytes, at most 1200 are allowed", each)
	}
	runtime.KeepAlive(r)
}

// BenchmarkPlace2000Nodes places tasks on a cluster of 2,000 nodes with 64 CPUs each: plan, ask, be granted, send.
func BenchmarkPlace2000Nodes(b *testing.B) {
	const nodes, tasks = 2000, 100_000
	for range b.N {
		b.StopTimer()
		r := newRig(b, settings{owner: 1, cpus: 1})
		total, err := r.names.Set(map[string]int64{"CPU": 64 * resource.Unit})
		if err != nil {
			b.Fatal(err)
		}
		for k := range nodes {
			no := NodeNo(k + 2)
			r.e.PeerUp(no, ids.NodeID{byte(k), byte(k >> 8), 1}, ids.Owner(no))
			r.e.NodeView(no, total, total, nil, 0)
		}
		c := r.driver(1)
		r.quiet, r.log = true, nil
		g := &grants{rig: r}
		r.e.sink = g
		no := uint32(1)
		r.e.RegisterTemplate(c.sid, no, r.spec(c.job, "f"))
		m := Submission{Template: no, Returns: 1, Args: make([]byte, 40), Bytes: 140}
		b.StartTimer()
		for k := range tasks {
			m.Unique = c.id().Unique()
			r.e.Submit(c.sid, &m)
			if k%100 == 99 {
				r.e.Flush()
				g.answer()
			}
		}
		for g.sent < tasks-64 && g.answer() {
		}
		if g.sent < tasks*9/10 {
			b.Fatalf("only %d of %d tasks were sent", g.sent, tasks)
		}
	}
	b.ReportMetric(float64(tasks)*float64(b.N)/b.Elapsed().Seconds(), "placements/s")
}

// grants answers asks for slots at once.
type grants struct {
	*rig
	asks []*SlotAsk
	from []NodeNo
	sent int
}

func (g *grants) Peer(n NodeNo, m Msg) {
	switch m := m.(type) {
	case *SlotAsk:
		if m.Want > 0 {
			g.asks, g.from = append(g.asks, m), append(g.from, n)
		}
	case *TaskRun:
		g.sent++
	}
}

func (g *grants) answer() bool {
	asks, from := g.asks, g.from
	g.asks, g.from = nil, nil
	for k, a := range asks {
		g.e.Receive(from[k], &SlotGrant{Shape: a.Shape, N: a.Want})
	}
	g.e.Flush()
	return len(asks) > 0
}
