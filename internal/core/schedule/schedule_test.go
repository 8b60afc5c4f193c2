package schedule

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"gray/internal/core/ids"
	"gray/internal/core/resource"
)

type res = map[string]float64

// world is a view with short ways to fill and ask it.
type world struct {
	t      testing.TB
	names  *resource.Names
	shapes *resource.Shapes
	v      *View
}

func newWorld(t testing.TB) *world {
	n := resource.NewNames()
	return &world{t, n, resource.NewShapes(), NewView(n)}
}

func (w *world) set(m res) resource.Set {
	q := map[string]int64{}
	for k, v := range m {
		q[k] = int64(v*resource.Unit + 0.5)
	}
	s, err := w.names.Set(q)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func id(n int) ids.NodeID { return ids.NodeID{0: byte(n), 1: byte(n >> 8), 27: 1} }

func (w *world) node(n int, total res, labels ...string) {
	l := map[string]string{}
	for i := 0; i < len(labels); i += 2 {
		l[labels[i]] = labels[i+1]
	}
	s := w.set(total)
	w.v.Upsert(Node{ID: id(n), Total: s, Avail: s, Labels: l})
}

func (w *world) shape(need res, st resource.Strategy, labels map[string]string) *resource.Shape {
	sel, err := resource.ParseSelector(labels)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.shapes.Intern(w.set(need), st, sel, "")
}

var (
	dflt   = resource.Strategy{}
	spread = resource.Strategy{Kind: resource.StrategySpread}
)

func on(n int) resource.Strategy {
	return resource.Strategy{Kind: resource.StrategyNode, Node: id(n)}
}

func TestPickN(t *testing.T) {
	type nodes func(w *world)
	two := func(w *world) { w.node(1, res{"CPU": 4}); w.node(2, res{"CPU": 4}) }
	soft := on(1)
	soft.Soft = true
	spill := soft
	spill.Spill = true
	fail := on(1)
	fail.Fail = true
	spillFail := spill
	spillFail.Fail = true
	for _, tc := range []struct {
		name   string
		nodes  nodes
		need   res
		st     resource.Strategy
		labels map[string]string
		opts   Options
		n      int
		want   map[int]int // tasks by node
		out    Outcome
	}{
		{name: "no node", nodes: func(*world) {}, need: res{"CPU": 1}, n: 1, out: Infeasible},
		{name: "two pack on the local node", nodes: two, need: res{"CPU": 1}, n: 2, want: map[int]int{1: 2}},
		{name: "local is the other one", nodes: two, need: res{"CPU": 1}, n: 2, opts: Options{Local: id(2)}, want: map[int]int{2: 2}},
		{name: "four split", nodes: two, need: res{"CPU": 1}, n: 4, want: map[int]int{1: 2, 2: 2}},
		{name: "eight fill both", nodes: two, need: res{"CPU": 1}, n: 8, want: map[int]int{1: 4, 2: 4}},
		{name: "the ninth waits", nodes: two, need: res{"CPU": 1}, n: 9, want: map[int]int{1: 4, 2: 4}, out: Busy},
		{name: "too large for any", nodes: two, need: res{"CPU": 5}, n: 1, out: Infeasible},
		{name: "no such resource", nodes: two, need: res{"x": 1}, n: 1, out: Infeasible},
		{name: "needs nothing: local", nodes: two, need: res{}, n: 1000, want: map[int]int{1: 1000}},
		{name: "spread", nodes: two, need: res{"CPU": 1}, st: spread, n: 2, want: map[int]int{1: 1, 2: 1}},
		{name: "spread needs nothing", nodes: two, need: res{}, st: spread, n: 10, want: map[int]int{1: 5, 2: 5}},
		{name: "spread fills", nodes: two, need: res{"CPU": 1}, st: spread, n: 9, want: map[int]int{1: 4, 2: 4}, out: Busy},
		{name: "spread infeasible", nodes: two, need: res{"CPU": 9}, st: spread, n: 9, out: Infeasible},
		{name: "hard affinity", nodes: two, need: res{"CPU": 1}, st: on(1), n: 3, opts: Options{Local: id(2)}, want: map[int]int{1: 3}},
		{name: "hard affinity, busy", nodes: two, need: res{"CPU": 1}, st: on(1), n: 5, want: map[int]int{1: 4}, out: Busy},
		{name: "hard affinity, gone", nodes: two, need: res{"CPU": 1}, st: on(3), n: 1, out: Unschedulable},
		{name: "hard affinity, can't", nodes: two, need: res{"GPU": 1}, st: on(1), n: 1, out: Unschedulable},
		{name: "soft affinity, gone", nodes: func(w *world) { w.node(2, res{"CPU": 4}) }, need: res{"CPU": 1}, st: soft, n: 1, want: map[int]int{2: 1}},
		{name: "soft affinity, busy", nodes: two, need: res{"CPU": 4}, st: soft, n: 2, want: map[int]int{1: 1}, out: Busy},
		{name: "soft affinity, busy, spill", nodes: two, need: res{"CPU": 4}, st: spill, n: 2, want: map[int]int{1: 1, 2: 1}},
		{name: "affinity, busy, fail", nodes: two, need: res{"CPU": 4}, st: fail, n: 2, want: map[int]int{1: 1}, out: Unschedulable},
		{name: "spill goes before fail", nodes: two, need: res{"CPU": 4}, st: spillFail, n: 2, want: map[int]int{1: 1, 2: 1}},
		{name: "CPU work avoids the GPU node", nodes: func(w *world) { w.node(1, res{"CPU": 4, "GPU": 1}); w.node(2, res{"CPU": 4}) }, need: res{"CPU": 1}, n: 5, want: map[int]int{1: 1, 2: 4}},
		{name: "GPU work does not", nodes: func(w *world) { w.node(1, res{"CPU": 4, "GPU": 1}); w.node(2, res{"CPU": 4}) }, need: res{"CPU": 1, "GPU": 0.5}, n: 3, want: map[int]int{1: 2}, out: Busy},
		{name: "label", nodes: func(w *world) { w.node(1, res{"CPU": 1}); w.node(2, res{"CPU": 1}, "r", "eu") }, need: res{"CPU": 1}, labels: map[string]string{"r": "in(eu,us)"}, n: 2, want: map[int]int{2: 1}, out: Busy},
		{name: "not label", nodes: func(w *world) { w.node(1, res{"CPU": 1}); w.node(2, res{"CPU": 1}, "r", "eu") }, need: res{"CPU": 1}, labels: map[string]string{"r": "!eu"}, n: 1, want: map[int]int{1: 1}},
		{name: "label of none", nodes: two, need: res{"CPU": 1}, labels: map[string]string{"r": "eu"}, n: 1, out: Infeasible},
		{name: "data attracts", nodes: two, need: res{"CPU": 1}, opts: Options{Locality: []Locality{{id(2), 100 << 10}}}, n: 1, want: map[int]int{2: 1}},
		{name: "more data attracts more", nodes: two, need: res{"CPU": 1}, opts: Options{Locality: []Locality{{id(1), 200 << 10}, {id(2), 300 << 10}}}, n: 1, want: map[int]int{2: 1}},
		{name: "equal data: local", nodes: two, need: res{"CPU": 1}, opts: Options{Locality: []Locality{{id(2), 200 << 10}, {id(1), 200 << 10}}}, n: 1, want: map[int]int{1: 1}},
		{name: "little data does not", nodes: two, need: res{"CPU": 1}, opts: Options{Locality: []Locality{{id(2), 100<<10 - 1}}}, n: 1, want: map[int]int{1: 1}},
		{name: "data on a full node", nodes: two, need: res{"CPU": 4}, opts: Options{Locality: []Locality{{id(2), 1 << 30}}}, n: 2, want: map[int]int{1: 1, 2: 1}},
		{name: "data on a node that is gone", nodes: two, need: res{"CPU": 1}, opts: Options{Locality: []Locality{{id(7), 1 << 30}}}, n: 1, want: map[int]int{1: 1}},
		{name: "memory counts as use", nodes: func(w *world) { w.node(1, res{"CPU": 8, "memory": 100}); w.node(2, res{"CPU": 8, "memory": 100}) }, need: res{"CPU": 1, "memory": 50}, n: 2, want: map[int]int{1: 1, 2: 1}},
		{name: "a draining node gets none", nodes: func(w *world) { two(w); w.v.SetDraining(id(1), true) }, need: res{"CPU": 4}, n: 2, want: map[int]int{2: 1}, out: Busy},
		{name: "bound to a draining node", nodes: func(w *world) { two(w); w.v.SetDraining(id(1), true) }, need: res{"CPU": 4}, st: on(1), n: 1, out: Unschedulable},
		{name: "pinned by its ip", nodes: func(w *world) { two(w); w.node(3, res{"CPU": 4, "node:10.0.0.3": 1}) }, need: res{"CPU": 1, "node:10.0.0.3": 0.01}, n: 3, want: map[int]int{3: 3}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for seed := range uint64(8) {
				w := newWorld(t)
				tc.nodes(w)
				o := tc.opts
				if o.Local == (ids.NodeID{}) {
					o.Local = id(1)
				}
				o.Rand = mix(seed)
				pl, out := w.v.PickN(w.shape(tc.need, tc.st, tc.labels), o, tc.n, nil)
				got := map[int]int{}
				for _, p := range pl {
					got[int(p.Node[0])] += p.Count
				}
				if tc.want == nil {
					tc.want = map[int]int{}
				}
				if out != tc.out || !reflect.DeepEqual(got, tc.want) {
					t.Fatalf("seed %d: %v %s, want %v %s", seed, got, out, tc.want, tc.out)
				}
			}
		})
	}
}

func TestReservationsOutliveReports(t *testing.T) {
	w := newWorld(t)
	w.node(1, res{"CPU": 4})
	s := w.shape(res{"CPU": 1}, dflt, nil)
	w.v.PickN(s, Options{}, 3, nil)
	w.v.SetAvail(id(1), w.set(res{"CPU": 3})) // the node has granted one of the three
	if got := w.names.Format(w.v.Free(id(1))); got != "{'CPU': 0.0}" {
		t.Errorf("free = %s, want none: 3 reported, 3 reserved", got)
	}
	if _, out := w.v.Pick(s, Options{}); out != Busy {
		t.Errorf("outcome %s, want busy", out)
	}
	w.v.Unreserve(id(1), s.Need, 3)
	w.v.SetAvail(id(1), w.set(res{"CPU": 1}))
	if n, out := w.v.Pick(s, Options{}); out != Placed || n != id(1) {
		t.Errorf("outcome %s, want placed", out)
	}
	w.v.Remove(id(1))
	w.v.Unreserve(id(1), s.Need, 3) // of a node that is gone
	if _, out := w.v.Pick(s, Options{}); out != Infeasible || w.v.Len() != 0 {
		t.Errorf("outcome %s, want infeasible", out)
	}
}

func TestNodesThatJoinAreSeen(t *testing.T) {
	w := newWorld(t)
	s := w.shape(res{"CPU": 1}, dflt, nil)
	big := w.shape(res{"CPU": 8}, spread, nil)
	for range 10 { // long enough for an index
		if _, out := w.v.Pick(s, Options{}); out != Infeasible {
			t.Fatalf("%s", out)
		}
	}
	w.node(1, res{"CPU": 1})
	if n, out := w.v.Pick(s, Options{}); n != id(1) || out != Placed {
		t.Errorf("after a node joined: %s", out)
	}
	w.v.SetAvail(id(1), w.set(res{}))
	if _, out := w.v.Pick(s, Options{}); out != Busy {
		t.Errorf("after it filled: %s", out)
	}
	if _, out := w.v.Pick(big, Options{}); out != Infeasible {
		t.Errorf("too big: %s", out)
	}
	w.node(1, res{"CPU": 8}) // the node's total grew
	if _, out := w.v.Pick(big, Options{}); out != Placed {
		t.Errorf("after the total grew: %s", out)
	}
}

func TestUpsertOfWhatIsKnownAllocatesNothing(t *testing.T) {
	w := newWorld(t)
	w.node(1, res{"CPU": 8}, "r", "eu")
	w.v.Pick(w.shape(res{"CPU": 1}, spread, nil), Options{})
	total, labels := w.set(res{"CPU": 8}), map[string]string{"r": "eu"}
	avail := []resource.Set{w.set(res{"CPU": 3}), w.set(res{"CPU": 4})}
	i := 0
	up := func() {
		i++
		w.v.Upsert(Node{ID: id(1), Total: total, Avail: avail[i%2], Labels: labels, Queue: i})
	}
	for range 3000 { // until the log has its size
		up()
	}
	if n := testing.AllocsPerRun(1000, up); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n, _ := w.v.Node(id(1)); n.Queue != i || !n.Avail.Equal(avail[i%2]) {
		t.Errorf("known: %+v", n)
	}
}

func TestExplain(t *testing.T) {
	w := newWorld(t)
	s := w.shape(res{"CPU": 8}, dflt, map[string]string{"r": "eu"})
	if got := w.v.Explain(s); got != "the cluster has no node" {
		t.Error(got)
	}
	w.node(1, res{"CPU": 4}, "r", "eu")
	w.node(2, res{"CPU": 4}, "r", "eu")
	w.node(3, res{"CPU": 8})
	w.node(4, res{"CPU": 8}, "r", "us")
	w.node(5, res{"CPU": 8}, "r", "eu")
	w.v.SetDraining(id(5), true)
	w.node(6, res{"CPU": 8}, "r", "eu")
	w.v.SetAvail(id(6), w.set(res{"CPU": 7.5}))
	got := w.v.Explain(s)
	for _, want := range []string{
		"2 nodes: has only {'CPU': 4.0} of {'CPU': 8.0}", "1 node: no label r, wanted r: eu", `1 node: label r is "us", wanted r: eu`,
		"1 node: draining", "1 node: has free only {'CPU': 7.5} of {'CPU': 8.0}",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("Explain = %s\nlacks %s", got, want)
		}
	}
	if got := w.v.Explain(w.shape(res{"CPU": 9}, dflt, nil)); !strings.HasPrefix(got, "no node of the cluster has that much (") ||
		!strings.HasSuffix(got, "); add a node or ask for less") {
		t.Error(got)
	}
	if strings.Contains(got, "that much") {
		t.Error(got)
	}
	if got := w.v.Explain(w.shape(res{}, on(1), nil)); !strings.Contains(got, "not the node that the task is bound to") || !strings.Contains(got, "1 node: fits") {
		t.Error(got)
	}
}

// The views of a random history pick what a look at every node would allow, and never place beyond what is free.
func TestPicksEqualBruteForce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		n := rapid.IntRange(1, 40).Draw(rt, "nodes")
		add := func(i int) {
			total := res{"CPU": float64(rapid.IntRange(0, 8).Draw(rt, "CPU")), "memory": float64(rapid.IntRange(0, 100).Draw(rt, "memory"))}
			if rapid.IntRange(0, 4).Draw(rt, "has GPU") == 0 {
				total["GPU"] = 2
			}
			w.node(i, total, "zone", rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "zone"))
		}
		for i := range n {
			add(i)
		}
		var shapes []*resource.Shape
		for _, cpu := range []float64{0, 0.5, 1, 3} {
			shapes = append(shapes, w.shape(res{"CPU": cpu}, dflt, nil), w.shape(res{"CPU": cpu, "memory": 20}, spread, nil))
		}
		shapes = append(shapes, w.shape(res{"CPU": 1, "GPU": 1}, dflt, nil), w.shape(res{"CPU": 1}, dflt, map[string]string{"zone": "b"}), w.shape(res{"CPU": 1, "node:__internal_implicit_resource_z": 0.5}, dflt, nil))
		type held struct {
			node ids.NodeID
			need resource.Set
			n    int
		}
		var holds []held
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			i := rapid.IntRange(0, n-1).Draw(rt, "node")
			switch rapid.IntRange(0, 9).Draw(rt, "op") {
			case 0:
				w.v.Remove(id(i))
				kept := holds[:0]
				for _, h := range holds {
					if h.node != id(i) {
						kept = append(kept, h)
					}
				}
				holds = kept
			case 1:
				if _, ok := w.v.Node(id(i)); !ok {
					add(i)
				}
			case 2:
				w.v.SetDraining(id(i), rapid.Bool().Draw(rt, "draining"))
			case 3:
				if len(holds) > 0 {
					h := holds[len(holds)-1]
					holds = holds[:len(holds)-1]
					w.v.Unreserve(h.node, h.need, h.n)
				}
			case 4:
				if nd, ok := w.v.Node(id(i)); ok {
					avail := nd.Total.Clone()
					for j := range avail {
						avail[j].Amount = int64(rapid.IntRange(-1, 4).Draw(rt, "quarter")) * avail[j].Amount / 4
					}
					w.v.SetAvail(id(i), avail)
				}
			default:
				s := rapid.SampledFrom(shapes).Draw(rt, "shape")
				o := Options{Local: id(rapid.IntRange(0, n).Draw(rt, "local")), Rand: rapid.Uint64().Draw(rt, "rand")}
				got, out := w.v.Pick(s, o)
				w.checkPick(rt, s, o, got, out)
				before := map[ids.NodeID]resource.Set{}
				for _, p := range w.v.nodes {
					before[p.ID] = p.free.Clone()
				}
				want := rapid.IntRange(1, 20).Draw(rt, "n")
				pl, out := w.v.PickN(s, o, want, nil)
				sum := 0
				for _, p := range pl {
					sum += p.Count
					holds = append(holds, held{p.Node, s.Need, p.Count})
					for _, e := range s.Need {
						if e.Amount*int64(p.Count) > before[p.Node].Get(e.Name) {
							rt.Fatalf("%d of %s on a node with %s", p.Count, w.names.Format(s.Need), w.names.Format(before[p.Node]))
						}
					}
				}
				if (sum == want) != (out == Placed) || sum > want {
					rt.Fatalf("%d of %d placed, outcome %s", sum, want, out)
				}
				if out != Placed {
					w.checkPick(rt, s, o, ids.NodeID{}, out)
				}
			}
		}
		for _, h := range holds {
			w.v.Unreserve(h.node, h.need, h.n)
		}
		for _, p := range w.v.nodes {
			if p.live && !p.held.IsZero() {
				rt.Fatalf("%s still reserved", w.names.Format(p.held))
			}
			for _, e := range p.Avail {
				if p.free.Get(e.Name) != e.Amount {
					rt.Fatalf("free %s, reported %s", w.names.Format(p.free), w.names.Format(p.Avail))
				}
			}
		}
	})
}

// checkPick compares an outcome with a look at every node.
func (w *world) checkPick(t *rapid.T, s *resource.Shape, o Options, got ids.NodeID, out Outcome) {
	var fits []*node
	feasible, takes := false, 0
	gpuless := false
	for i := range w.v.nodes {
		p := &w.v.nodes[i]
		if !p.takes() {
			continue
		}
		takes++
		if !p.Total.Fits(s.Need) || !s.Labels.Match(p.Labels) {
			continue
		}
		feasible = true
		if p.free.Fits(s.Need) {
			fits = append(fits, p)
			gpuless = gpuless || p.tier == 0
		}
	}
	switch {
	case len(fits) == 0 && feasible && out != Busy, len(fits) == 0 && !feasible && out != Infeasible, len(fits) > 0 && out != Placed:
		t.Fatalf("outcome %s; %d fit, feasible %t", out, len(fits), feasible)
	case len(fits) == 0:
		return
	}
	var chosen *node
	for _, p := range fits {
		if p.ID == got {
			chosen = p
		}
	}
	if chosen == nil {
		t.Fatalf("picked a node that does not fit")
	}
	if s.Strategy.Kind == resource.StrategySpread {
		return
	}
	if s.Need.Get(resource.GPU) == 0 && gpuless && chosen.tier == 1 {
		t.Fatal("CPU work on a GPU node although another fits")
	}
	better, others := 0, 0
	var local *node
	for _, p := range fits {
		if s.Need.Get(resource.GPU) == 0 && gpuless && p.tier == 1 {
			continue
		}
		if p.ID == o.Local {
			local = p
			continue
		}
		others++
		if p.bucket < chosen.bucket {
			better++
		}
	}
	if chosen == local {
		if better > 0 {
			t.Fatal("picked the local node although a less busy one fits")
		}
		return
	}
	if local != nil {
		idler := 0
		for _, p := range fits {
			if p.bucket < local.bucket && (!gpuless || s.Need.Get(resource.GPU) > 0 || p.tier == 0) {
				idler++
			}
		}
		if idler == 0 {
			t.Fatal("passed over the local node, than which none is less busy")
		}
	}
	if better >= max(1, min(takes/5, others)) {
		t.Fatalf("%d of %d nodes are less busy than the one picked", better, takes)
	}
}

// Of nodes of every degree of use, chance picks among the least busy fifth of the cluster, and never the busier local one.
func TestChanceAmongTheLeastBusyFifth(t *testing.T) {
	const nodes = 100
	for local := range 30 {
		w := newWorld(t)
		for i := range nodes {
			w.node(i, res{"CPU": 100})
			w.v.SetAvail(id(i), w.set(res{"CPU": float64(50 - i%50)})) // two nodes of each degree
		}
		s := w.shape(res{"CPU": 1}, dflt, nil)
		picked := map[ids.NodeID]bool{}
		for i := range 3000 {
			n, out := w.v.Pick(s, Options{Local: id(local), Rand: mix(uint64(i))})
			if out != Placed {
				t.Fatal(out)
			}
			picked[n] = true
		}
		if local%50 < 5 { // none is less busy than the first step of 5 %
			if len(picked) != 1 || !picked[id(local)] {
				t.Fatalf("local %d: picked %d nodes", local, len(picked))
			}
			continue
		}
		if len(picked) != nodes/5 || picked[id(local)] {
			t.Fatalf("local %d: %d nodes picked, want %d others; itself %t", local, len(picked), nodes/5, picked[id(local)])
		}
	}
}

// Of many idle nodes one has what is needed, and of busy ones another: at the first pick, before there is an index, the
// idle one has its even chance although it is not among those that are tried.
func TestOneAmongMany(t *testing.T) {
	idle := 0
	for seed := range uint64(100) {
		w := newWorld(t)
		for i := range 100 {
			w.node(i, res{"CPU": 8})
		}
		w.node(50, res{"CPU": 8, "x": 1})
		w.node(51, res{"CPU": 8, "x": 1})
		w.v.SetAvail(id(51), w.set(res{"CPU": 1, "x": 1}))
		n, out := w.v.Pick(w.shape(res{"x": 1}, dflt, nil), Options{Local: id(3), Rand: mix(seed)})
		if out != Placed || n != id(50) && n != id(51) {
			t.Fatalf("seed %d: %s", seed, out)
		}
		if n == id(50) {
			idle++
		}
	}
	if idle < 40 {
		t.Errorf("the idle node was picked %d times of 100", idle)
	}
}

// Many classes at once: the oldest indexes go, and picks stay right.
func TestManyClasses(t *testing.T) {
	w := newWorld(t)
	for i := range 30 {
		w.node(i, res{"CPU": 64})
	}
	for round := range 6 {
		for c := range maxClasses + 50 {
			s := w.shape(res{"CPU": float64(c+1) / 100}, dflt, nil)
			if _, out := w.v.Pick(s, Options{Rand: mix(uint64(c))}); out != Placed {
				t.Fatalf("round %d class %d: %s", round, c, out)
			}
			w.shapes.Release(s)
		}
	}
	if len(w.v.classes) > maxClasses {
		t.Errorf("%d indexes, want at most %d", len(w.v.classes), maxClasses)
	}
	keep := w.shape(res{"CPU": 64}, dflt, nil)
	for range 10 {
		w.v.Pick(keep, Options{})
	}
	for i := range 30 { // more changes than the log holds
		for range 200 {
			w.v.SetAvail(id(i), w.set(res{"CPU": 63}))
		}
	}
	if _, out := w.v.Pick(keep, Options{}); out != Busy {
		t.Errorf("after every node filled: %s, want busy", out)
	}
}

func bench2000(b *testing.B, one bool) {
	const nodes, tasks = 2000, 100_000
	w := newWorld(b)
	for i := range nodes {
		w.node(i, res{"CPU": 64, "memory": 1e6, fmt.Sprintf("node:10.0.%d.%d", i/250, i%250): 1})
	}
	shapes := []*resource.Shape{
		w.shape(res{"CPU": 1}, dflt, nil), w.shape(res{"CPU": 0.5, "memory": 1000}, dflt, nil),
		w.shape(res{"CPU": 2}, spread, nil), w.shape(res{"CPU": 1, "node:10.0.3.7": 0.001}, dflt, nil),
	}
	rng := rand.New(rand.NewPCG(1, 2))
	full := w.set(res{"CPU": 64, "memory": 1e6})
	half := w.set(res{"CPU": 20, "memory": 5e5})
	type run struct {
		s *resource.Shape
		p Placement
	}
	var running []run
	var pl []Placement
	free := func(k int) {
		for range k {
			r := running[len(running)-1]
			running = running[:len(running)-1]
			w.v.Unreserve(r.p.Node, r.s.Need, r.p.Count)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		for placed := 0; placed < tasks; {
			s := shapes[rng.IntN(len(shapes))]
			n := 1
			if !one {
				n = 100
			}
			pl, _ = w.v.PickN(s, Options{Local: id(rng.IntN(nodes)), Rand: rng.Uint64()}, n, pl[:0])
			for _, p := range pl {
				running = append(running, run{s, p})
				placed += p.Count
			}
			if len(pl) == 0 && len(running) > 0 {
				free(min(100, len(running)))
			}
			if rng.IntN(2) == 0 { // what nodes report, in between
				avail := full
				if rng.IntN(2) == 0 {
					avail = half
				}
				w.v.SetAvail(id(rng.IntN(nodes)), avail)
			}
			if len(running) > 20_000 {
				free(1000)
			}
		}
	}
	b.ReportMetric(float64(b.N)*tasks/b.Elapsed().Seconds(), "placements/s")
}

// 2,000 nodes, 100,000 placements an iteration, with node reports in between.
func BenchmarkPlaceOneByOne(b *testing.B) { bench2000(b, true) }
func BenchmarkPlaceInBulk(b *testing.B)   { bench2000(b, false) }
