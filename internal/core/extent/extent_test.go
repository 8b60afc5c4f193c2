package extent

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

const mib = 1 << 20

func mustAllocate(t testing.TB, a *Alloc, size int64, owner uint64) Granted {
	t.Helper()
	g, ok := a.Allocate(size, owner)
	if !ok {
		t.Fatalf("Allocate(%d, %d) refused with %d used, %d warm of %d", size, owner, a.Used(), a.Warm(), a.Capacity())
	}
	return g
}

func TestClassesWasteLittle(t *testing.T) {
	for i, c := range classes {
		if c%Align != 0 {
			t.Errorf("class %d is not a multiple of %d", c, Align)
		}
		if c > 512 && 5*c > 4*classes[i]+5*classes[i-1] && 4*c > 5*classes[i-1]+4*Align {
			t.Errorf("class %d is more than a quarter over %d", c, classes[i-1])
		}
		if lost := Chunk - Chunk/c*c; lost > Chunk/50 && lost >= c/2+Align {
			t.Errorf("class %d leaves %d bytes of a chunk unused", c, lost)
		}
	}
	if last := classes[len(classes)-1]; last != SmallMax {
		t.Errorf("the last class is %d, want %d", last, SmallMax)
	}
}

func TestAlignmentAndRounding(t *testing.T) {
	a := New(64*mib, 16*mib)
	for _, tc := range []struct{ size, align, want int64 }{
		{0, 64, 64},
		{1, 64, 64},
		{64, 64, 64},
		{65, 64, 128},
		{1000, 64, 1088},
		{16384, 64, 16384},
		{16385, Page, 20480},
		{65536, Page, 65536},
		{100_000, Page, 102400},
		{mib + 1, Page, mib + Page},
	} {
		g := mustAllocate(t, a, tc.size, 1)
		if g.Off%tc.align != 0 || g.Size != tc.want {
			t.Errorf("Allocate(%d) = %+v, want size %d aligned to %d", tc.size, g, tc.want, tc.align)
		}
	}
	if err := a.Check(); err != nil {
		t.Error(err)
	}
}

func TestWarmPagesGoBackToTheirOwnerMostRecentFirst(t *testing.T) {
	a := New(64*mib, 16*mib)
	var one, gap []Granted
	for range 3 {
		one = append(one, mustAllocate(t, a, mib, 1))
		gap = append(gap, mustAllocate(t, a, mib, 9))
	}
	two := mustAllocate(t, a, mib, 2)
	_ = gap // keeps the extents of owner 1 apart
	a.Free(one[1].Off)
	a.Free(one[0].Off)
	a.Free(two.Off)
	a.Free(one[2].Off)
	for i, want := range []Granted{one[2], one[0], one[1]} {
		g := mustAllocate(t, a, mib, 1)
		if g.Extent != want.Extent || g.Commit.Size != 0 {
			t.Errorf("allocation %d = %+v, want %+v without commit", i, g, want.Extent)
		}
	}
	if g := mustAllocate(t, a, mib, 1); g.Extent != two.Extent {
		t.Errorf("with none of its own left: %+v, want the other's %+v", g, two.Extent)
	}
	if g := mustAllocate(t, a, mib, 1); g.Commit != g.Extent {
		t.Errorf("with nothing warm left: %+v, want new pages", g)
	}
}

func TestALargeWarmStretchIsNotCutUpForAnotherWhileNewPagesAreFree(t *testing.T) {
	a := New(64*mib, 16*mib)
	big := mustAllocate(t, a, 8*mib, 1)
	a.Free(big.Off)
	if g := mustAllocate(t, a, mib, 2); g.Commit.Size == 0 {
		t.Errorf("owner 2 got %+v out of owner 1's stretch", g)
	}
	mustAllocate(t, a, 3*mib, 2)
	mustAllocate(t, a, 3*mib, 2)
	mustAllocate(t, a, mib, 2)
	if g := mustAllocate(t, a, mib, 2); g.Off != big.Off || g.Commit.Size != 0 {
		t.Errorf("at the capacity: %+v, want the front of %+v", g, big.Extent)
	}
	if err := a.Check(); err != nil {
		t.Error(err)
	}
}

func TestForgetGivesADeadOwnersPagesToAnybody(t *testing.T) {
	a := New(64*mib, 16*mib)
	big := mustAllocate(t, a, 8*mib, 1)
	a.Free(big.Off)
	a.Forget(1)
	if g := mustAllocate(t, a, mib, 2); g.Off != big.Off || g.Commit.Size != 0 {
		t.Errorf("got %+v, want the front of %+v", g, big.Extent)
	}
	if err := a.Check(); err != nil {
		t.Error(err)
	}
}

func TestColdestArePunchedForNewPages(t *testing.T) {
	a := New(64*mib, 16*mib)
	var gs []Granted
	for i := range 16 {
		gs = append(gs, mustAllocate(t, a, mib, uint64(i)+1))
	}
	order := []int{2, 7, 4, 12, 10}
	for _, i := range order {
		a.Free(gs[i].Off)
	}
	g := mustAllocate(t, a, 3*mib, 99)
	if g.Commit != g.Extent {
		t.Errorf("granted %+v, want new pages", g)
	}
	if got, want := a.Punched(), []Extent{gs[2].Extent, gs[7].Extent, gs[4].Extent}; !slices.Equal(got, want) {
		t.Errorf("punched %v, want the coldest %v", got, want)
	}
	if again := a.Punched(); len(again) != 0 {
		t.Errorf("told twice to punch %v", again)
	}
	a.Trim(0)
	if a.Warm() != 0 || len(a.Punched()) != 2 {
		t.Errorf("Trim(0) left %d warm bytes", a.Warm())
	}
	if err := a.Check(); err != nil {
		t.Error(err)
	}
}

func TestFragmentsDontCount(t *testing.T) {
	// Every other page stays in use: a stretch of half the capacity must still be found, in the spare addresses.
	a := New(64*mib, 16*mib)
	var gs []Granted
	for range 16 * mib / (32 << 10) {
		gs = append(gs, mustAllocate(t, a, 32<<10, 1))
	}
	for i := 0; i < len(gs); i += 2 {
		a.Free(gs[i].Off)
	}
	g := mustAllocate(t, a, 8*mib, 1)
	if g.Commit != g.Extent {
		t.Errorf("granted %+v, want new pages", g)
	}
	if err := a.Check(); err != nil {
		t.Error(err)
	}
}

func TestOverCapacityIsRefused(t *testing.T) {
	a := New(64*mib, 16*mib)
	if _, ok := a.Allocate(16*mib+1, 1); ok {
		t.Error("an extent over the capacity was granted")
	}
	if _, ok := a.Allocate(1<<62, 1); ok {
		t.Error("an absurd extent was granted")
	}
	g := mustAllocate(t, a, 16*mib, 1)
	for _, size := range []int64{1, 5000, mib} {
		if _, ok := a.Allocate(size, 1); ok {
			t.Errorf("%d bytes were granted from a full arena", size)
		}
	}
	a.Free(g.Off)
	mustAllocate(t, a, 1, 1)
}

func TestUncommittedBecomesAHole(t *testing.T) {
	a := New(64*mib, 16*mib)
	a.Uncommitted(mustAllocate(t, a, mib, 1).Off)
	a.Uncommitted(mustAllocate(t, a, 100, 1).Off)
	if a.Warm() != 0 || a.Used() != 0 {
		t.Errorf("used %d, warm %d, want none", a.Used(), a.Warm())
	}
	if err := a.Check(); err != nil {
		t.Error(err)
	}
}

func TestWrongFreesPanic(t *testing.T) {
	for name, free := range map[string]func(a *Alloc, large, small Granted){
		"large twice":     func(a *Alloc, l, _ Granted) { a.Free(l.Off); a.Free(l.Off) },
		"small twice":     func(a *Alloc, _, s Granted) { a.Free(s.Off); a.Free(s.Off) },
		"inside a large":  func(a *Alloc, l, _ Granted) { a.Free(l.Off + Page) },
		"between slots":   func(a *Alloc, _, s Granted) { a.Free(s.Off + Align) },
		"never allocated": func(a *Alloc, _, _ Granted) { a.Free(60 * mib) },
	} {
		t.Run(name, func(t *testing.T) {
			a := New(64*mib, 16*mib)
			large, small := mustAllocate(t, a, mib, 1), mustAllocate(t, a, 1000, 1)
			mustAllocate(t, a, 1000, 1) // keeps the chunk
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			free(a, large, small)
		})
	}
}

// TestAgainstAModel runs random programs beside a list of what is allocated.
func TestAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const capacity = 4 * mib
		a := New(4*capacity, capacity)
		var live []Extent
		pages := map[int64]bool{} // pages that exist
		sizes := rapid.OneOf(rapid.Int64Range(0, 2000), rapid.Int64Range(1000, 40_000), rapid.Int64Range(40_000, capacity+1))
		apply := func() {
			for _, p := range a.Punched() {
				for at := p.Off; at < p.End(); at += Page {
					if !pages[at] {
						t.Fatalf("punched %+v, where there is no page at %d", p, at)
					}
					delete(pages, at)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"allocate": func(t *rapid.T) {
				size, owner := sizes.Draw(t, "size"), rapid.Uint64Range(0, 3).Draw(t, "owner")
				before := a.Used()
				g, ok := a.Allocate(size, owner)
				apply()
				if !ok {
					if before+max(Chunk, Rounded(size)) <= capacity/4 {
						t.Fatalf("%d bytes refused with %d used", size, before)
					}
					return
				}
				if g.Size < size || g.Off%Align != 0 || g.Off < 0 || g.End() > a.Space() || (size >= Chunk && g.Off%Page != 0) {
					t.Fatalf("Allocate(%d) = %+v", size, g)
				}
				for at := g.Commit.Off; at < g.Commit.End(); at += Page {
					if pages[at] {
						t.Fatalf("told to commit %+v, but the page at %d exists", g.Commit, at)
					}
					pages[at] = true
				}
				for at := g.Off / Page * Page; at < g.End(); at += Page {
					if !pages[at] {
						t.Fatalf("granted %+v, but nobody made the page at %d", g, at)
					}
				}
				if int64(len(pages))*Page > capacity {
					t.Fatalf("%d bytes exist, capacity %d", int64(len(pages))*Page, capacity)
				}
				i, _ := slices.BinarySearchFunc(live, g.Off, func(e Extent, off int64) int { return int(e.Off - off) })
				if (i > 0 && live[i-1].End() > g.Off) || (i < len(live) && g.End() > live[i].Off) {
					t.Fatalf("%+v overlaps its neighbours", g)
				}
				live = slices.Insert(live, i, g.Extent)
			},
			"free": func(t *rapid.T) {
				if len(live) == 0 {
					t.Skip("nothing to free")
				}
				i := rapid.IntRange(0, len(live)-1).Draw(t, "which")
				a.Free(live[i].Off)
				live = slices.Delete(live, i, i+1)
			},
			"forget": func(t *rapid.T) { a.Forget(rapid.Uint64Range(0, 3).Draw(t, "owner")) },
			"trim": func(t *rapid.T) {
				a.Trim(rapid.Int64Range(0, capacity).Draw(t, "keep"))
				apply()
			},
			"": func(t *rapid.T) {
				if err := a.Check(); err != nil {
					t.Fatal(err)
				}
			},
		})
		for _, e := range live {
			a.Free(e.Off)
		}
		if a.Used() != 0 {
			t.Fatalf("%d bytes in use after everything was freed", a.Used())
		}
		if _, ok := a.Allocate(capacity, 1); !ok {
			t.Fatal("the whole capacity can't be had again")
		}
	})
}

func BenchmarkSmall(b *testing.B) {
	a := New(4<<30, 1<<30)
	b.ReportAllocs()
	for b.Loop() {
		g, _ := a.Allocate(2000, 1)
		a.Free(g.Off)
	}
}

func BenchmarkLargeAmongManyFree(b *testing.B) {
	a := New(64<<30, 16<<30)
	var gs []Granted
	for i := range 20_000 {
		gs = append(gs, mustAllocate(b, a, 100_000+int64(i)*7, uint64(i%8)))
	}
	for i := 0; i < len(gs); i += 2 {
		a.Free(gs[i].Off)
	}
	b.ReportAllocs()
	for b.Loop() {
		g, _ := a.Allocate(150_000, 3)
		a.Free(g.Off)
	}
}

func TestPagesIsExactInAnEmptyAllocator(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.OneOf(rapid.Int64Range(0, 3000), rapid.Int64Range(0, 100_000)), 0, 50).Draw(t, "sizes")
		want := Pages(slices.Values(sizes))
		a := New(64*mib, 64*mib)
		for _, size := range sizes {
			if _, ok := a.Allocate(size, 0); !ok {
				t.Fatalf("%d bytes refused", size)
			}
		}
		if a.Used() != want {
			t.Fatalf("used %d, Pages said %d", a.Used(), want)
		}
	})
}
