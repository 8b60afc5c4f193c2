package memory

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gray/internal/core/extent"
)

// shell carries out effects as a daemon would, and remembers what it owes.
type shell struct {
	s        *State
	t        *rapid.T
	now      time.Time
	nextID   uint64
	nextKey  uint64
	reqs     map[uint64]Req    // live, from our point of view
	granted  map[uint64]bool   // of these, granted
	running  map[uint64]bool   // of these, running
	creating map[uint64]uint64 // create's id by its key, granted and not sealed
	fetching map[uint64]bool   // being fetched
	stopping map[uint64]bool   // being fetched, and told to stop
	sizes    map[uint64]int64  // of remote objects
	primary  map[uint64]bool
	pins     map[uint64]int
	bytes    map[uint64]extent.Extent // where each object here is
	pages    map[int64]bool
	failed   int
}

func newShell(t *rapid.T, capacity int64) *shell {
	return &shell{
		s: New(4*capacity, capacity), t: t, now: t0, nextKey: 1000,
		reqs: map[uint64]Req{}, granted: map[uint64]bool{}, running: map[uint64]bool{}, creating: map[uint64]uint64{},
		fetching: map[uint64]bool{}, stopping: map[uint64]bool{}, sizes: map[uint64]int64{}, primary: map[uint64]bool{},
		pins: map[uint64]int{}, bytes: map[uint64]extent.Extent{}, pages: map[int64]bool{},
	}
}

func (h *shell) carryOut(out []Effect) {
	for _, e := range out {
		switch e.Kind {
		case Punch:
			for at := e.At.Off; at < e.At.End(); at += extent.Page {
				delete(h.pages, at)
			}
		case Grant:
			q, ok := h.reqs[e.ID]
			if !ok || h.granted[e.ID] {
				h.t.Fatalf("grant of %d, which does not wait", e.ID)
			}
			for _, p := range e.Placed {
				h.place(q, p)
			}
			if q.Class == Create {
				delete(h.reqs, e.ID)
				continue
			}
			h.granted[e.ID] = true
			for _, it := range q.Bundle {
				if _, here := h.bytes[it.Key]; !here {
					h.t.Fatalf("request %d was granted without object %d", e.ID, it.Key)
				}
			}
		case Evict:
			if h.fetching[e.Key] || h.primary[e.Key] || h.pins[e.Key] > 0 || h.heldBy(e.Key) != 0 {
				h.t.Fatalf("object %d was evicted while in use", e.Key)
			}
			delete(h.bytes, e.Key)
		case Displace:
			if !h.granted[e.ID] || h.running[e.ID] {
				h.t.Fatalf("request %d was displaced: granted %v, running %v", e.ID, h.granted[e.ID], h.running[e.ID])
			}
			delete(h.granted, e.ID)
		case Abandon:
			if !h.fetching[e.Key] {
				h.t.Fatalf("object %d is abandoned, but nobody fetches it", e.Key)
			}
			h.stopping[e.Key] = true
		case Fail:
			if e.Full.Error() == "" || h.granted[e.ID] {
				h.t.Fatalf("request %d failed: %v", e.ID, e.Full)
			}
			h.failed++
			delete(h.reqs, e.ID)
		}
	}
	h.check()
}

func (h *shell) place(q Req, p Placed) {
	for key, e := range h.bytes {
		if p.Off < e.End() && e.Off < p.End() {
			h.t.Fatalf("object %d at %+v overlaps object %d at %+v", p.Key, p.Extent, key, e)
		}
	}
	for at := p.Commit.Off; at < p.Commit.End(); at += extent.Page {
		h.pages[at] = true
	}
	for at := p.Off / extent.Page * extent.Page; at < p.End(); at += extent.Page {
		if !h.pages[at] {
			h.t.Fatalf("object %d at %+v has no page at %d", p.Key, p.Extent, at)
		}
	}
	h.bytes[p.Key] = p.Extent
	if q.Class == Create {
		h.creating[p.Key] = q.ID
	} else {
		h.fetching[p.Key] = true
	}
}

func (h *shell) heldBy(key uint64) uint64 {
	for id, q := range h.reqs {
		if h.granted[id] && slices.ContainsFunc(q.Bundle, func(it Item) bool { return it.Key == key }) {
			return id
		}
	}
	return 0
}

func (h *shell) check() {
	if err := h.s.Check(); err != nil {
		h.t.Fatal(err)
	}
	if got := int64(len(h.pages)) * extent.Page; got > h.s.Capacity() {
		h.t.Fatalf("%d bytes of pages exist, capacity %d", got, h.s.Capacity())
	}
	for id := range h.reqs {
		st, ok := h.s.StatusOf(id)
		want := Waiting
		if h.running[id] {
			want = Running
		} else if h.granted[id] {
			want = Granted
		}
		if !ok || st != want {
			h.t.Fatalf("request %d is %s, %v, want %s", id, st, ok, want)
		}
		if st == Waiting && h.s.Why(h.now, id) == "" {
			h.t.Fatalf("request %d waits for no reason", id)
		}
	}
	for key := range h.bytes {
		if _, ok := h.s.Lookup(key); !ok {
			h.t.Fatalf("object %d is gone, and nobody said so", key)
		}
	}
}

func (h *shell) request(c Class, bundle []Item) {
	h.nextID++
	q := Req{ID: h.nextID, Class: c, Since: h.now, Owner: h.nextID % 3, Bundle: bundle}
	h.reqs[q.ID] = q
	h.carryOut(h.s.Request(h.now, q, nil))
}

func (h *shell) end(id uint64) {
	delete(h.reqs, id)
	delete(h.granted, id)
	delete(h.running, id)
	h.carryOut(h.s.End(h.now, id, nil))
}

func (h *shell) seal(key uint64) {
	_, made := h.creating[key]
	delete(h.creating, key)
	delete(h.fetching, key)
	delete(h.stopping, key)
	if made {
		h.primary[key] = true
	}
	ok, out := h.s.Seal(h.now, key, made, nil)
	if !ok {
		h.t.Fatalf("object %d can't be sealed", key)
	}
	h.carryOut(out)
}

func (h *shell) abort(key uint64) {
	delete(h.creating, key)
	delete(h.fetching, key)
	delete(h.stopping, key)
	delete(h.bytes, key)
	ok, out := h.s.Abort(h.now, key, nil)
	if !ok {
		h.t.Fatalf("object %d can't be aborted", key)
	}
	h.carryOut(out)
}

// free drops the refs to an object that was made here.
func (h *shell) free(key uint64) {
	delete(h.primary, key)
	if h.pins[key] == 0 && h.heldBy(key) == 0 {
		delete(h.bytes, key)
	}
	h.carryOut(h.s.Free(h.now, key, nil))
	h.forgetGone(key)
}

func (h *shell) unpin(key uint64) {
	h.pins[key]--
	if h.pins[key] == 0 {
		delete(h.pins, key)
	}
	if o, _ := h.s.Lookup(key); o.State == Freed && o.Pins == 1 && o.Holders == 0 {
		delete(h.bytes, key)
	}
	h.carryOut(h.s.Unpin(h.now, key, 1, nil))
}

func (h *shell) forgetGone(key uint64) {
	if _, ok := h.s.Lookup(key); !ok {
		delete(h.bytes, key)
	}
}

// ready reports whether a granted request has all its objects sealed.
func (h *shell) ready(id uint64) bool {
	for _, it := range h.reqs[id].Bundle {
		if o, ok := h.s.Lookup(it.Key); !ok || !o.Sealed {
			return false
		}
	}
	return true
}

func pick[V any](t *rapid.T, m map[uint64]V, name string) uint64 {
	if len(m) == 0 {
		t.Skip("none")
	}
	keys := make([]uint64, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys[rapid.IntRange(0, len(keys)-1).Draw(t, name)]
}

// remote draws an object of another node.
func (h *shell) remote(t *rapid.T, largest int64) Item {
	key := rapid.Uint64Range(1, 12).Draw(t, "key")
	if h.sizes[key] == 0 {
		h.sizes[key] = rapid.Int64Range(1, largest).Draw(t, "size")
	}
	return Item{key, h.sizes[key]}
}

func (h *shell) endGone(id uint64) {
	q := h.reqs[id]
	h.end(id)
	for _, it := range q.Bundle {
		h.forgetGone(it.Key)
	}
}

func TestRandomPrograms(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const capacity = 2 * mib
		h := newShell(t, capacity)
		t.Repeat(map[string]func(*rapid.T){
			"create": func(t *rapid.T) {
				h.nextKey++
				h.request(Create, []Item{{h.nextKey, rapid.Int64Range(0, capacity+capacity/8).Draw(t, "size")}})
			},
			"fetch": func(t *rapid.T) {
				h.request(Class(rapid.IntRange(int(Get), int(Wait)).Draw(t, "class")), []Item{h.remote(t, capacity/2)})
			},
			"arguments": func(t *rapid.T) {
				var bundle []Item
				for range rapid.IntRange(1, 4).Draw(t, "items") {
					bundle = append(bundle, h.remote(t, capacity/2))
				}
				h.request(Args, bundle)
			},
			"seal":        func(t *rapid.T) { h.seal(pick(t, h.fetching, "key")) },
			"seal create": func(t *rapid.T) { h.seal(pick(t, h.creating, "key")) },
			"give up":     func(t *rapid.T) { h.abort(pick(t, h.creating, "key")) },
			"lose source": func(t *rapid.T) { h.abort(pick(t, h.fetching, "key")) },
			"stop":        func(t *rapid.T) { h.abort(pick(t, h.stopping, "key")) },
			"run": func(t *rapid.T) {
				id := pick(t, h.granted, "id")
				if h.reqs[id].Class != Args || !h.ready(id) {
					t.Skip("can't run")
				}
				if !h.s.Running(id) {
					t.Fatalf("granted request %d may not run", id)
				}
				h.running[id] = true
				h.check()
			},
			"take back": func(t *rapid.T) {
				id := pick(t, h.running, "id")
				delete(h.running, id)
				h.carryOut(h.s.Idle(h.now, id, nil))
			},
			"end": func(t *rapid.T) { h.endGone(pick(t, h.reqs, "id")) },
			"pin": func(t *rapid.T) {
				key := pick(t, h.bytes, "key")
				o, _ := h.s.Lookup(key)
				if h.s.Pin(key, 1) != o.Sealed {
					t.Fatalf("pin of %+v", o)
				}
				if o.Sealed {
					h.pins[key]++
				}
				h.check()
			},
			"unpin":  func(t *rapid.T) { h.unpin(pick(t, h.pins, "key")) },
			"free":   func(t *rapid.T) { h.free(pick(t, h.primary, "key")) },
			"forget": func(t *rapid.T) { h.s.Forget(rapid.Uint64Range(0, 2).Draw(t, "owner")); h.check() },
			"trim":   func(t *rapid.T) { h.carryOut(h.s.Trim(rapid.Int64Range(0, capacity).Draw(t, "keep"), nil)) },
			"tick": func(t *rapid.T) {
				h.now = h.now.Add(time.Duration(rapid.IntRange(0, 6).Draw(t, "seconds")) * time.Second)
				h.carryOut(h.s.Tick(h.now, rapid.Bool().Draw(t, "could"), nil))
			},
		})
		h.drain()
		if rest := h.s.Usage(); rest.Evictable.Bytes != sum(h.bytes) || rest.Waiting != 0 {
			t.Fatalf("after everything has ended: %+v", rest)
		}
		h.request(Create, []Item{{1 << 40, capacity}})
		if len(h.creating) != 1 {
			t.Fatalf("the whole capacity can't be had again: %+v", h.s.Usage())
		}
	})
}

func sum(m map[uint64]extent.Extent) (n int64) {
	for _, e := range m {
		n += e.Size
	}
	return n
}

// drain plays a cluster in which all work ends and all refs go: every request must be granted or failed.
func (h *shell) drain() {
	for round := 0; len(h.reqs)+len(h.creating)+len(h.fetching)+len(h.primary)+len(h.pins) > 0; round++ {
		if round > 400 {
			h.t.Fatalf("these requests never end: %v; %+v", h.reqs, h.s.Usage())
		}
		for _, key := range sorted(h.stopping) {
			h.abort(key)
		}
		for _, key := range append(sorted(h.fetching), sorted(h.creating)...) {
			if !h.stopping[key] && (h.fetching[key] || h.creating[key] != 0) {
				h.seal(key)
			}
		}
		for _, id := range sorted(h.granted) {
			if !h.granted[id] || !h.ready(id) {
				continue
			}
			if h.reqs[id].Class == Args && !h.running[id] {
				if !h.s.Running(id) {
					h.t.Fatalf("granted request %d may not run", id)
				}
				h.running[id] = true
			}
			h.endGone(id)
		}
		for _, key := range sorted(h.pins) {
			for h.pins[key] > 0 {
				h.unpin(key)
			}
		}
		for _, key := range sorted(h.primary) {
			h.free(key)
		}
		h.now = h.now.Add(time.Second)
		h.carryOut(h.s.Tick(h.now, true, nil))
	}
	if h.t != nil {
		h.check()
	}
}

func sorted[V any](m map[uint64]V) []uint64 {
	keys := make([]uint64, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// TestTheOldestIsNotStarved keeps small tasks coming for ever while a large bundle waits; each lasts for a few rounds.
func TestTheOldestIsNotStarved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const capacity = 100 * mib
		s := New(4*capacity, capacity)
		lasts := rapid.IntRange(1, 5).Draw(t, "lasts")
		size := rapid.Int64Range(1, 30).Draw(t, "size") * mib
		class := Class(rapid.IntRange(int(Create), int(Args)).Draw(t, "class of the many"))
		type job struct {
			id, key uint64
			until   int
		}
		var jobs []job
		now, id, big := t0, uint64(10), false
		effects := func(round int, out []Effect) {
			for _, e := range out {
				switch {
				case e.Kind == Grant && e.ID == 1:
					big = true
				case e.Kind == Grant:
					jobs = append(jobs, job{e.ID, e.ID, round + lasts})
					if class == Args {
						s.Running(e.ID)
					}
				case e.Kind == Fail:
					t.Fatalf("request %d failed: %v", e.ID, e.Full)
				}
			}
		}
		for round := 0; !big; round++ {
			if round > 200 {
				t.Fatalf("the oldest starves: %s", s.Why(now, 1))
			}
			now = now.Add(100 * time.Millisecond)
			for range 4 {
				id++
				effects(round, s.Request(now, Req{ID: id, Class: class, Since: now, Bundle: []Item{{id, size}}}, nil))
			}
			if round == 2 {
				first := Req{ID: 1, Class: min(class, Get), Since: t0, Bundle: []Item{{1, rapid.Int64Range(50, 100).Draw(t, "big") * mib}}}
				effects(round, s.Request(now, first, nil))
			}
			keep := jobs[:0:0]
			for _, j := range jobs {
				if j.until > round {
					keep = append(keep, j)
				}
			}
			done := slices.DeleteFunc(jobs, func(j job) bool { return j.until > round })
			jobs = keep
			for _, j := range done {
				ok, out := s.Seal(now, j.key, false, nil)
				if !ok {
					t.Fatalf("object %d can't be sealed", j.key)
				}
				out = s.End(now, j.id, out)
				out = s.Free(now, j.key, out)
				effects(round, out)
			}
			effects(round, s.Tick(now, true, nil))
			if err := s.Check(); err != nil {
				t.Fatal(fmt.Errorf("round %d: %w", round, err))
			}
		}
	})
}
