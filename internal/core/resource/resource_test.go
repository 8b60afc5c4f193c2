package resource

import (
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"gray/internal/core/ids"
)

func set(t testing.TB, n *Names, m map[string]float64) Set {
	t.Helper()
	q := map[string]int64{}
	for k, v := range m {
		q[k] = int64(v*Unit + 0.5)
	}
	s, err := n.Set(q)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type res = map[string]float64

func TestFits(t *testing.T) {
	for _, tc := range []struct {
		name       string
		have, need res
		want       bool
	}{
		{"nothing of nothing", res{}, res{}, true},
		{"nothing of something", res{"CPU": 1}, res{}, true},
		{"exactly", res{"CPU": 1, "memory": 5}, res{"CPU": 1, "memory": 5}, true},
		{"a ten-thousandth short", res{"CPU": 0.9999}, res{"CPU": 1}, false},
		{"one of two short", res{"CPU": 4, "x": 1}, res{"CPU": 1, "x": 2}, false},
		{"has no such", res{"CPU": 4}, res{"GPU": 0.0001}, false},
		{"last has no such", res{"CPU": 4, "a": 1}, res{"CPU": 1, "z": 1}, false},
		{"implicit", res{"CPU": 1}, res{"node:__internal_implicit_resource_a": 0.5}, true},
		{"too much of implicit", res{"CPU": 1}, res{"node:__internal_implicit_resource_a": 1.5}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := NewNames()
			if got := set(t, n, tc.have).Fits(set(t, n, tc.need)); got != tc.want {
				t.Errorf("Fits = %t, want %t", got, tc.want)
			}
		})
	}
}

func TestImplicitResourceRunsOut(t *testing.T) {
	n := NewNames()
	node := NewNode(n, set(t, n, res{"CPU": 8}))
	need := set(t, n, res{"node:__internal_implicit_resource_r": 0.5})
	a, ok1 := node.Alloc(need)
	_, ok2 := node.Alloc(need)
	_, ok3 := node.Alloc(need)
	if !ok1 || !ok2 || ok3 {
		t.Fatalf("halves of one whole: %t %t %t, want true true false", ok1, ok2, ok3)
	}
	node.Free(&a)
	if !node.Fits(need) {
		t.Error("does not fit after a half was given back")
	}
}

func TestFormat(t *testing.T) {
	n := NewNames()
	for want, in := range map[string]res{
		"{}":           {},
		"{'CPU': 1.0}": {"CPU": 1},
		"{'CPU': 0.5, 'accel': 2.0, 'x': 0.0001}": {"x": 0.0001, "accel": 2, "CPU": 0.5},
		"{'memory': 1000000000.0}":                {"memory": 1e9},
	} {
		if got := n.Format(set(t, n, in)); got != want {
			t.Errorf("Format = %s, want %s", got, want)
		}
	}
	if _, err := n.Set(map[string]int64{"CPU": -1}); err == nil {
		t.Error("a negative quantity was taken")
	}
	if _, err := n.Set(map[string]int64{"": 1}); err == nil {
		t.Error("a quantity without a name was taken")
	}
	if got := n.Floats(set(t, n, res{"CPU": 0.5})); !reflect.DeepEqual(got, res{"CPU": 0.5}) {
		t.Errorf("Floats = %v", got)
	}
}

func TestSlots(t *testing.T) {
	type step struct {
		need float64 // GPUs; < 0 frees the alloc with that number (-1: the first)
		want []int   // instances; nil: does not fit
	}
	for _, tc := range []struct {
		name  string
		gpus  float64
		steps []step
	}{
		{"whole ones in order", 2, []step{{1, []int{0}}, {1, []int{1}}, {1, nil}}},
		{"halves share one", 2, []step{{0.5, []int{0}}, {0.5, []int{0}}, {1, []int{1}}, {0.1, nil}}},
		{"whole skips a used one", 2, []step{{0.25, []int{0}}, {1, []int{1}}, {1, nil}}},
		{"two whole", 4, []step{{1, []int{0}}, {2, []int{1, 2}}, {2, nil}, {-1, nil}, {2, []int{0, 3}}}},
		{"free sum is not enough", 2, []step{{0.6, []int{0}}, {0.6, []int{1}}, {0.5, nil}, {0.4, []int{0}}}},
		{"shares pack on the fullest", 2, []step{{0.2, []int{0}}, {0.9, []int{1}}, {0.1, []int{1}}}},
		{"given back", 1, []step{{0.5, []int{0}}, {0.7, nil}, {-1, nil}, {0.7, []int{0}}}},
		{"one and a half", 4, []step{{1.5, nil}}},
		{"half a GPU in all", 0.5, []step{{1, nil}, {0.5, []int{0}}, {0.1, nil}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := NewNames()
			node := NewNode(n, set(t, n, res{"CPU": 8, "GPU": tc.gpus}))
			var allocs []Alloc
			for i, s := range tc.steps {
				if s.need < 0 {
					node.Free(&allocs[int(-s.need)-1])
					continue
				}
				need := set(t, n, res{"GPU": s.need})
				fits := node.Fits(need)
				a, ok := node.Alloc(need)
				if ok != fits || ok != (s.want != nil) {
					t.Fatalf("step %d: Fits %t, Alloc %t, want %t", i, fits, ok, s.want != nil)
				}
				var got []int
				for _, in := range a.Instances {
					got = append(got, in.Index)
				}
				if !reflect.DeepEqual(got, s.want) {
					t.Fatalf("step %d: instances %v, want %v", i, got, s.want)
				}
				allocs = append(allocs, a)
			}
		})
	}
}

func TestLend(t *testing.T) {
	n := NewNames()
	node := NewNode(n, set(t, n, res{"CPU": 1, "GPU": 1}))
	a, _ := node.Alloc(set(t, n, res{"CPU": 1, "GPU": 1}))
	one := set(t, n, res{"CPU": 1})
	if node.Fits(one) {
		t.Fatal("the only CPU fits twice")
	}
	node.Lend(&a)
	node.Lend(&a)
	if node.Fits(set(t, n, res{"GPU": 1})) {
		t.Error("the GPU was lent")
	}
	b, ok := node.Alloc(one)
	if !ok {
		t.Fatal("the lent CPU does not fit")
	}
	node.Reclaim(&a)
	if got := node.Avail().Get(CPU); got != -Unit {
		t.Errorf("free CPU = %d, want %d", got, -Unit)
	}
	if !node.Fits(nil) || node.Fits(set(t, n, res{"CPU": 0.0001})) {
		t.Error("below zero, what needs no CPU fits and nothing else")
	}
	node.Free(&b)
	node.Lend(&a)
	node.Free(&a)
	if !node.Avail().Equal(node.Total()) {
		t.Errorf("all given back leaves %s", n.Format(node.Avail()))
	}
}

func TestKeep(t *testing.T) {
	for _, tc := range []struct{ has, keep, want res }{
		{res{"CPU": 1}, nil, nil},
		{res{"CPU": 1}, res{"CPU": 1}, res{"CPU": 1}},
		{res{"CPU": 2, "x": 0.5}, res{"CPU": 1, "x": 0.5}, res{"CPU": 1, "x": 0.5}},
		{res{"CPU": 1}, res{"CPU": 3, "GPU": 1}, res{"CPU": 1}}, // never more than it has
		{res{"CPU": 1, "GPU": 0.5}, res{"GPU": 0.5}, res{"GPU": 0.5}},
		{res{"CPU": 1, "GPU": 2}, res{"CPU": 1}, res{"CPU": 1}},
	} {
		n := NewNames()
		node := NewNode(n, set(t, n, res{"CPU": 4, "GPU": 2, "x": 1}))
		a, _ := node.Alloc(set(t, n, tc.has))
		lent := node.Reclaim
		if len(tc.keep) == 0 {
			lent = node.Lend
		}
		lent(&a)
		node.Keep(&a, set(t, n, tc.keep))
		if want := set(t, n, tc.want); !a.Need.Equal(want) && len(a.Need)+len(want) > 0 {
			t.Errorf("%v less all but %v keeps %s", tc.has, tc.keep, n.Format(a.Need))
		}
		if got, want := node.Avail(), node.Total().Clone().Sub(a.Need); !got.Equal(want) {
			t.Errorf("%v less all but %v leaves %s, want %s", tc.has, tc.keep, n.Format(got), n.Format(want))
		}
		node.Free(&a)
		if !node.Avail().Equal(node.Total()) {
			t.Errorf("all given back leaves %s", n.Format(node.Avail()))
		}
	}
}

func TestSelector(t *testing.T) {
	labels := map[string]string{"region": "eu", "zone": "a"}
	for _, tc := range []struct {
		sel  map[string]string
		want bool
		bad  string
	}{
		{map[string]string{}, true, ""},
		{map[string]string{"region": "eu"}, true, ""},
		{map[string]string{"region": "us"}, false, ""},
		{map[string]string{"region": "!eu"}, false, ""},
		{map[string]string{"region": "!us"}, true, ""},
		{map[string]string{"region": "in(us, eu)"}, true, ""},
		{map[string]string{"region": "in(us)"}, false, ""},
		{map[string]string{"region": "!in(us,eu)"}, false, ""},
		{map[string]string{"region": "!in(us,asia)"}, true, ""},
		{map[string]string{"none": "x"}, false, ""},
		{map[string]string{"none": "!x"}, true, ""},
		{map[string]string{"none": "!in(x,y)"}, true, ""},
		{map[string]string{"region": "eu", "zone": "b"}, false, ""},
		{map[string]string{"region": "*"}, true, ""},
		{map[string]string{"region": "*&in(us,eu)"}, true, ""},
		{map[string]string{"region": "in(us,eu)&!eu"}, false, ""},
		{map[string]string{"none": "*"}, false, ""},
		{map[string]string{"region": "!*"}, false, ""},
		{map[string]string{"none": "!*"}, true, ""},
		{map[string]string{"region": "in(a"}, false, "closing"},
		{map[string]string{"region": "in(a,,b)"}, false, "empty"},
		{map[string]string{"region": "!!a"}, false, "character"},
		{map[string]string{"": "a"}, false, "no label"},
	} {
		s, err := ParseSelector(tc.sel)
		if tc.bad != "" {
			if err == nil || !strings.Contains(err.Error(), tc.bad) {
				t.Errorf("%v: err = %v, want %q", tc.sel, err, tc.bad)
			}
			continue
		}
		if err != nil || s.Match(labels) != tc.want {
			t.Errorf("%v: Match = %t, %v; want %t", tc.sel, s.Match(labels), err, tc.want)
		}
	}
}

func TestShapes(t *testing.T) {
	n := NewNames()
	sh := NewShapes()
	one := func() Set { return set(t, n, res{"CPU": 1}) }
	sel, err := ParseSelector(map[string]string{"a": "b"})
	if err != nil {
		t.Fatal(err)
	}
	a := sh.Intern(one(), Strategy{}, nil, "")
	if sh.Intern(one(), Strategy{}, nil, "") != a {
		t.Error("the same properties gave another shape")
	}
	seen := map[ShapeID]bool{a.ID: true}
	for _, s := range []*Shape{
		sh.Intern(set(t, n, res{"CPU": 2}), Strategy{}, nil, ""),
		sh.Intern(one(), Strategy{Kind: StrategySpread}, nil, ""),
		sh.Intern(one(), Strategy{Kind: StrategyNode, Node: ids.NodeID{1}}, nil, ""),
		sh.Intern(one(), Strategy{Kind: StrategyNode, Node: ids.NodeID{2}}, nil, ""),
		sh.Intern(one(), Strategy{Kind: StrategyNode, Node: ids.NodeID{2}, Soft: true}, nil, ""),
		sh.Intern(one(), Strategy{}, sel, ""),
		sh.Intern(one(), Strategy{}, nil, "env"),
	} {
		if seen[s.ID] {
			t.Errorf("shape %+v shares an id", s)
		}
		seen[s.ID] = true
		if same := s.Need.Equal(a.Need) && s.Labels == nil; same != (s.Class == a.Class) {
			t.Errorf("shape %+v: class %d, the plain one's is %d", s, s.Class, a.Class)
		}
	}
	sh.Release(a)
	sh.Release(a)
	if b := sh.Intern(one(), Strategy{}, nil, ""); b.ID == a.ID {
		t.Error("a released shape's id came back")
	}
	if sh.Len() != 8 {
		t.Errorf("Len = %d, want 8", sh.Len())
	}
}

// Whatever is taken and given back, nothing is handed out twice and all is there in the end.
func TestNodeKeepsItsAccount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := NewNames()
		draw := func(max int, label string) int64 { return int64(rapid.IntRange(0, max).Draw(t, label)) }
		total, err := n.Set(map[string]int64{"CPU": draw(8, "CPU") * Unit, "GPU": draw(4, "GPU") * Unit, "x": draw(30000, "x")})
		if err != nil {
			t.Fatal(err)
		}
		node := NewNode(n, total)
		var held []*Alloc
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch op := rapid.IntRange(0, 5).Draw(t, "op"); {
			case op <= 1 || len(held) == 0:
				gpu := rapid.SampledFrom([]int64{0, 1000, 2500, 5000, Unit, 2 * Unit}).Draw(t, "gpu")
				need, err := n.Set(map[string]int64{"CPU": draw(3*Unit, "c"), "GPU": gpu, "x": draw(9000, "xs")})
				if err != nil {
					t.Fatal(err)
				}
				if a, ok := node.Alloc(need); ok {
					held = append(held, &a)
				}
			case op == 2:
				i := rapid.IntRange(0, len(held)-1).Draw(t, "free")
				node.Free(held[i])
				held = append(held[:i], held[i+1:]...)
			case op == 3:
				node.Lend(held[rapid.IntRange(0, len(held)-1).Draw(t, "lend")])
			case op == 4:
				node.Reclaim(held[rapid.IntRange(0, len(held)-1).Draw(t, "reclaim")])
			case op == 5:
				keep, err := n.Set(map[string]int64{"CPU": draw(2, "kc") * Unit, "GPU": draw(1, "kg") * Unit, "x": draw(9000, "kx")})
				if err != nil {
					t.Fatal(err)
				}
				node.Keep(held[rapid.IntRange(0, len(held)-1).Draw(t, "keep")], keep)
			}
			want := total.Clone()
			gpus := map[int]int64{}
			for _, a := range held {
				want = want.Sub(a.Need)
				if a.Lent {
					want = want.Add(a.Need.CPUOnly())
				}
				var sum int64
				for _, in := range a.Instances {
					gpus[in.Index] += in.Amount
					sum += in.Amount
				}
				if sum != a.Need.Get(GPU) {
					t.Fatalf("%d of GPU slots for a need of %d", sum, a.Need.Get(GPU))
				}
			}
			for i, q := range gpus {
				if q > Unit || int64(i) >= total.Get(GPU)/Unit {
					t.Fatalf("GPU %d is lent %d/10000", i, q)
				}
			}
			for _, e := range want {
				if node.Avail().Get(e.Name) != e.Amount {
					t.Fatalf("%s free, want %s", n.Format(node.Avail()), n.Format(want))
				}
				if e.Name != CPU && e.Amount < 0 {
					t.Fatalf("%s below zero: %s", n.Text(e.Name), n.Format(want))
				}
			}
		}
		for _, a := range held {
			node.Free(a)
		}
		if !node.Avail().Equal(total) {
			t.Fatalf("in the end %s, want %s", n.Format(node.Avail()), n.Format(total))
		}
	})
}

func TestShapesWithAlternatives(t *testing.T) {
	n, sh := NewNames(), NewShapes()
	sel := func(m map[string]string) Selector {
		s, err := ParseSelector(m)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	one := func() Set { return set(t, n, res{"CPU": 1}) }
	first, other := sel(map[string]string{"x": "1"}), sel(map[string]string{"x": "2"})
	plain := sh.Intern(one(), Strategy{}, first, "")
	a := sh.Intern(one(), Strategy{}, first, "", other, nil)
	if a == plain || a != sh.Intern(one(), Strategy{}, first, "", other, nil) || a == sh.Intern(one(), Strategy{}, first, "", nil, other) {
		t.Error("shapes with alternatives are taken for one another")
	}
	if a.Class != plain.Class || len(a.Else) != 2 || a.Else[0].Class == a.Class {
		t.Errorf("alternatives are %+v", a.Else)
	}
	for _, tc := range []struct {
		s      *Shape
		labels map[string]string
		want   bool
	}{
		{plain, map[string]string{"x": "1"}, true}, {plain, map[string]string{"x": "2"}, false}, {a, map[string]string{"x": "2"}, true}, {a, nil, true},
	} {
		if tc.s.Suits(tc.labels) != tc.want {
			t.Errorf("labels %v suit: want %v", tc.labels, tc.want)
		}
	}
	if plain.Anywhere() || a.Anywhere() || !sh.Intern(one(), Strategy{}, nil, "").Anywhere() {
		t.Error("a shape with labels may run anywhere, or one without may not")
	}
	for _, s := range []*Shape{plain, a, a, sh.Intern(one(), Strategy{}, first, "", nil, other)} {
		sh.Release(s)
	}
	if m := first.Map(); m["x"] != "1" || sel(map[string]string{"x": "*&!in(a,b)"}).Map()["x"] != "*&!in(a,b)" {
		t.Errorf("as a map: %v", m)
	}
}
