package memory

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gray/internal/core/extent"
)

const mib = 1 << 20

var t0 = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// store is a State of 100 MiB with a clock and a story: its effects as words.
type store struct {
	*State
	t   testing.TB
	now time.Time
}

func newStore(t testing.TB) *store { return &store{New(400*mib, 100*mib), t, t0} }

// do runs one call and tells its effects, without the punches.
func (s *store) do(f func(out []Effect) []Effect) string {
	s.t.Helper()
	out := f(nil)
	if err := s.Check(); err != nil {
		s.t.Fatal(err)
	}
	var story []string
	for _, e := range out {
		switch e.Kind {
		case Punch:
		case Grant:
			var keys []string
			for _, p := range e.Placed {
				keys = append(keys, fmt.Sprint(p.Key))
			}
			story = append(story, fmt.Sprintf("grant %d [%s]", e.ID, strings.Join(keys, " ")))
		case Evict, Abandon:
			story = append(story, fmt.Sprintf("%s %d", e.Kind, e.Key))
		case Displace, Fail:
			story = append(story, fmt.Sprintf("%s %d", e.Kind, e.ID))
		}
	}
	return strings.Join(story, ", ")
}

// request asks for objects whose key's hundreds are their MiB: key 307 is 3 MiB.
func (s *store) request(id uint64, c Class, keys ...uint64) string {
	s.t.Helper()
	return s.do(func(out []Effect) []Effect {
		q := Req{ID: id, Class: c, Since: s.now}
		for _, k := range keys {
			q.Bundle = append(q.Bundle, Item{k, int64(k/100) * mib})
		}
		return s.Request(s.now, q, out)
	})
}

func (s *store) end(id uint64) string {
	s.t.Helper()
	return s.do(func(out []Effect) []Effect { return s.End(s.now, id, out) })
}

func (s *store) seal(key uint64, isPrimary bool) string {
	s.t.Helper()
	return s.do(func(out []Effect) []Effect {
		ok, out := s.Seal(s.now, key, isPrimary, out)
		if !ok {
			s.t.Fatalf("Seal(%d) found no unsealed object", key)
		}
		return out
	})
}

func (s *store) abort(key uint64) string {
	s.t.Helper()
	return s.do(func(out []Effect) []Effect {
		ok, out := s.Abort(s.now, key, out)
		if !ok {
			s.t.Fatalf("Abort(%d) found no unsealed object", key)
		}
		return out
	})
}

func (s *store) unpin(key uint64) string {
	s.t.Helper()
	return s.do(func(out []Effect) []Effect { return s.Unpin(s.now, key, 1, out) })
}

func (s *store) free(key uint64) string {
	s.t.Helper()
	return s.do(func(out []Effect) []Effect { return s.Free(s.now, key, out) })
}

func (s *store) tick(d time.Duration, couldRelease bool) string {
	s.t.Helper()
	s.now = s.now.Add(d)
	return s.do(func(out []Effect) []Effect { return s.Tick(s.now, couldRelease, out) })
}

// expect fails unless a call told this story.
func (s *store) expect(got, want string) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("effects: %q, want %q", got, want)
	}
}

func (s *store) create(id, key uint64, isPrimary bool) {
	s.t.Helper()
	s.expect(s.request(id, Create, key), fmt.Sprintf("grant %d [%d]", id, key))
	s.expect(s.seal(key, isPrimary), "")
}

// copyOf brings a copy that nobody uses.
func (s *store) copyOf(id, key uint64) {
	s.t.Helper()
	s.expect(s.request(id, Wait, key), fmt.Sprintf("grant %d [%d]", id, key))
	s.expect(s.seal(key, false), "")
	s.expect(s.end(id), "")
}

func TestEveryTransition(t *testing.T) {
	fetch := func(s *store) { s.request(1, Get, 100) }
	told := func(s *store) { fetch(s); s.end(1) }
	pinned := func(s *store) { s.Pin(100, 1) }
	reached := map[[2]ObjectState]bool{}
	for _, tc := range []struct {
		from, to ObjectState
		before   func(s *store)
		step     func(s *store) string
		want     string
	}{
		{Writing, Primary, func(s *store) { s.request(1, Create, 100) }, func(s *store) string { return s.seal(100, true) }, ""},
		{Writing, Copy, fetch, func(s *store) string { return s.seal(100, false) }, ""},
		{Writing, Abandoned, fetch, func(s *store) string { return s.end(1) }, "abandon 100"},
		{Writing, Freed, func(s *store) { s.request(1, Create, 100) }, func(s *store) string { return s.free(100) }, ""},
		{Writing, Gone, func(s *store) { s.request(1, Create, 100) }, func(s *store) string { return s.abort(100) }, ""},
		{Abandoned, Copy, told, func(s *store) string { return s.seal(100, true) }, ""},
		{Abandoned, Freed, told, func(s *store) string { return s.free(100) }, ""},
		{Abandoned, Gone, told, func(s *store) string { return s.abort(100) }, ""},
		{Primary, Copy, func(s *store) { s.create(1, 100, true) }, func(s *store) string {
			return s.do(func(out []Effect) []Effect { return s.Demote(s.now, 100, out) })
		}, ""},
		{Primary, Freed, func(s *store) { s.create(1, 100, true); pinned(s) }, func(s *store) string { return s.free(100) }, ""},
		{Primary, Gone, func(s *store) { s.create(1, 100, true) }, func(s *store) string { return s.free(100) }, ""},
		{Copy, Primary, func(s *store) { s.copyOf(1, 100) }, func(s *store) string {
			return s.do(func(out []Effect) []Effect { s.Promote(100); return out })
		}, ""},
		{Copy, Freed, func(s *store) { s.copyOf(1, 100); pinned(s) }, func(s *store) string { return s.free(100) }, ""},
		{Copy, Gone, func(s *store) { s.copyOf(1, 100) }, func(s *store) string { return s.request(2, Create, 9901) + s.request(3, Create, 101) }, "grant 2 [9901]evict 100, grant 3 [101]"},
		{Freed, Gone, func(s *store) { s.create(1, 100, true); pinned(s); s.free(100) }, func(s *store) string { return s.unpin(100) }, ""},
	} {
		t.Run(tc.from.String()+" to "+tc.to.String(), func(t *testing.T) {
			reached[[2]ObjectState{tc.from, tc.to}] = true
			s := newStore(t)
			tc.before(s)
			if o, ok := s.Lookup(100); !ok || o.State != tc.from {
				t.Fatalf("before: %+v, %v, want %s", o, ok, tc.from)
			}
			s.expect(tc.step(s), tc.want)
			if o, ok := s.Lookup(100); ok != (tc.to != Gone) || (ok && o.State != tc.to) {
				t.Errorf("after: %+v, %v, want %s", o, ok, tc.to)
			}
		})
	}
	for pair := range transitions {
		if !reached[pair] {
			t.Errorf("no test from %s to %s", pair[0], pair[1])
		}
	}
}

func TestCallsOnWhatIsNotThere(t *testing.T) {
	s := newStore(t)
	s.create(1, 100, true)
	if ok, _ := s.Seal(s.now, 100, true, nil); ok {
		t.Error("an object was sealed twice")
	}
	if ok, _ := s.Abort(s.now, 100, nil); ok {
		t.Error("a sealed object was aborted")
	}
	if s.Pin(200, 1) || s.Promote(200) || s.Running(9) {
		t.Error("something that doesn't exist was pinned, promoted or run")
	}
	s.expect(s.free(200), "")
	s.expect(s.end(9), "")
	s.expect(s.do(func(out []Effect) []Effect { return s.Demote(s.now, 200, out) }), "")
	s.expect(s.do(func(out []Effect) []Effect { return s.Idle(s.now, 9, out) }), "")
	s.expect(s.request(2, Create, 300), "grant 2 [300]")
	if s.Pin(300, 1) {
		t.Error("an unsealed object was pinned")
	}
	for name, f := range map[string]func(){
		"unpin too much":     func() { s.Unpin(s.now, 100, 1, nil) },
		"create a key twice": func() { s.request(3, Create, 100) },
		"request twice":      func() { s.request(4, Get, 9000); s.request(5, Get, 9001); s.request(5, Get, 100) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

func TestUnpinnedCopiesGoOldestFirst(t *testing.T) {
	s := newStore(t)
	s.copyOf(1, 2001)
	s.copyOf(2, 2002)
	s.copyOf(3, 2003)
	s.copyOf(4, 2004)
	s.Pin(2002, 1)
	s.Pin(2001, 1)
	s.expect(s.unpin(2001), "") // used last
	s.expect(s.request(5, Create, 5001), "evict 2003, evict 2004, grant 5 [5001]")
	s.expect(s.request(6, Create, 4001), "")
	s.expect(s.unpin(2002), "evict 2001, evict 2002, grant 6 [4001]")
}

func TestABundleIsAdmittedWholeOrNotAtAll(t *testing.T) {
	s := newStore(t)
	s.create(1, 5001, true)
	s.copyOf(2, 3001)
	s.expect(s.request(3, Args, 3001, 3002), "") // 3001 is here, but 3002 has no room: 3001 isn't held
	if o, _ := s.Lookup(3001); o.Holders != 0 {
		t.Errorf("a bundle in line holds %+v", o)
	}
	s.expect(s.request(4, Create, 4101), "evict 3001, grant 4 [4101]")
	s.expect(s.seal(4101, true), "")
	s.expect(s.free(5001), "")
	s.expect(s.free(4101), "grant 3 [3001 3002]")
}

func TestBundlesShareObjects(t *testing.T) {
	s := newStore(t)
	s.expect(s.request(1, Args, 3001, 1001), "grant 1 [3001 1001]")
	s.expect(s.request(2, Args, 3001, 3001, 1002), "grant 2 [1002]")
	s.expect(s.end(1), "abandon 1001")
	s.expect(s.abort(1001), "")
	s.expect(s.seal(3001, false), "")
	s.expect(s.end(2), "abandon 1002")
	if o, ok := s.Lookup(3001); !ok || o.Holders != 0 {
		t.Errorf("the shared object: %+v, %v", o, ok)
	}
}

func TestOrderIsClassThenAge(t *testing.T) {
	s := newStore(t)
	s.create(1, 9001, true)
	s.request(10, Args, 5001)
	s.now = s.now.Add(time.Second)
	s.request(11, Wait, 5002)
	s.request(12, Get, 5003)
	s.request(14, Create, 5005)
	s.request(13, Create, 5004) // as old: by number
	s.expect(s.free(9001), "grant 13 [5004], grant 14 [5005]")
	s.expect(s.seal(5004, true), "")
	s.expect(s.seal(5005, true), "")
	s.expect(s.free(5004), "grant 12 [5003]")
	s.expect(s.free(5005), "grant 11 [5002]")
	s.expect(s.seal(5003, false), "")
	s.expect(s.end(12), "evict 5003, grant 10 [5001]")
}

func TestTheFirstInLineDisplacesTheYoungestThatHaveNotStarted(t *testing.T) {
	s := newStore(t)
	s.expect(s.request(1, Args, 2001), "grant 1 [2001]")
	for id := uint64(2); id <= 5; id++ {
		s.now = s.now.Add(time.Second)
		s.expect(s.request(id, Args, 2000+id), fmt.Sprintf("grant %d [%d]", id, 2000+id))
	}
	s.expect(s.seal(2001, false), "")
	s.expect(s.seal(2003, false), "")
	s.expect(s.seal(2005, false), "")
	if !s.Running(5) {
		t.Fatal("a granted task may not start")
	}
	// 5 runs; 4 is the youngest that doesn't, but its fetch must stop first; 3's is complete.
	s.expect(s.request(6, Create, 4001), "displace 4, abandon 2004, displace 3")
	if s.Running(4) {
		t.Error("a displaced task may start")
	}
	s.expect(s.request(7, Get, 1001), "") // what is coming is for 6
	s.expect(s.abort(2004), "evict 2003, grant 6 [4001], displace 2, abandon 2002")
	s.expect(s.end(5), "evict 2005, grant 7 [1001]")
	s.expect(s.end(2), "")
	s.expect(s.abort(2002), "grant 3 [2003]")
	s.expect(s.seal(4001, true), "")
	s.expect(s.free(4001), "grant 4 [2004]")
}

func TestATaskTakenBackMayBeDisplaced(t *testing.T) {
	s := newStore(t)
	s.expect(s.request(1, Args, 9001), "grant 1 [9001]")
	s.expect(s.seal(9001, false), "")
	s.Running(1)
	s.expect(s.request(2, Get, 5001), "")
	s.expect(s.do(func(out []Effect) []Effect { return s.Idle(s.now, 1, out) }), "displace 1, evict 9001, grant 2 [5001]")
}

func TestNobodyIsDisplacedInVain(t *testing.T) {
	s := newStore(t)
	s.create(1, 6001, true)
	s.expect(s.request(2, Args, 1001), "grant 2 [1001]")
	s.expect(s.request(3, Create, 5001), "") // even with 2's bytes there isn't room
	s.expect(s.request(4, Args, 6001), "grant 4 []")
	s.expect(s.end(3), "")
	s.expect(s.request(5, Create, 3501), "displace 2, abandon 1001")
}

func TestWhatTheFirstWantsIsNotAbandoned(t *testing.T) {
	s := newStore(t)
	s.create(1, 5001, true)
	s.expect(s.request(2, Args, 2001), "grant 2 [2001]")
	s.expect(s.request(3, Args, 2002), "grant 3 [2002]")
	s.expect(s.request(4, Get, 2001, 3001), "displace 3, abandon 2002")
	s.expect(s.abort(2002), "grant 4 [3001]")
}

func TestLaterRequestsPassWithinBounds(t *testing.T) {
	s := newStore(t)
	s.create(1, 5001, true)
	s.expect(s.request(2, Create, 6001), "")
	for i := uint64(0); i < 6; i++ { // 60 MiB may pass
		s.create(10+i, 1000+i, true)
		s.expect(s.free(1000+i), "")
	}
	s.expect(s.request(20, Create, 1020), "")
	s.expect(s.free(5001), "grant 2 [6001], grant 20 [1020]")
}

func TestTasksPassWhatWaitsForRefs(t *testing.T) {
	s := newStore(t)
	s.create(1, 5001, true)
	s.expect(s.request(2, Args, 6001), "")
	for i := uint64(0); i < 30; i++ { // as long as the ref to 5001 lives, they take nothing from it
		s.copyOf(10+i, 1000+i%10)
		s.expect(s.free(1000+i%10), "")
	}
	s.expect(s.free(5001), "grant 2 [6001]")
}

func TestRetryKeepsItsPlace(t *testing.T) {
	s := newStore(t)
	s.create(1, 9001, true)
	s.now = s.now.Add(time.Second)
	s.request(2, Args, 5001)
	s.now = s.now.Add(time.Second)
	s.expect(s.do(func(out []Effect) []Effect {
		return s.Request(s.now, Req{ID: 3, Class: Args, Since: t0, Bundle: []Item{{8001, 80 * mib}}}, out)
	}), "")
	s.expect(s.free(9001), "grant 3 [8001]")
}

func TestFreedWhileWritten(t *testing.T) {
	s := newStore(t)
	s.expect(s.request(1, Create, 1001), "grant 1 [1001]")
	s.expect(s.free(1001), "")
	s.expect(s.seal(1001, true), "")
	if _, ok := s.Lookup(1001); ok || s.Used() != 0 {
		t.Errorf("%d bytes are used after the freed object was sealed", s.Used())
	}
	// A fetch that somebody still waits for.
	s.expect(s.request(2, Get, 1002), "grant 2 [1002]")
	s.expect(s.free(1002), "")
	s.expect(s.end(2), "abandon 1002")
	s.expect(s.abort(1002), "")
	if s.Used() != 0 {
		t.Errorf("%d bytes are used after the freed fetch has stopped", s.Used())
	}
}

func TestAbortPutsHoldersInLineAgain(t *testing.T) {
	s := newStore(t)
	s.expect(s.request(1, Args, 1001, 1002), "grant 1 [1001 1002]")
	s.expect(s.seal(1002, false), "")
	s.expect(s.abort(1001), "displace 1, grant 1 [1001]")
	s.expect(s.free(1001), "")
	s.expect(s.abort(1001), "displace 1, grant 1 [1001]")
}

func TestARequestForWhatIsOnItsWayOutWaits(t *testing.T) {
	s := newStore(t)
	s.expect(s.request(1, Get, 1001), "grant 1 [1001]")
	s.expect(s.end(1), "abandon 1001")
	s.expect(s.request(2, Get, 1001), "")
	s.expect(s.abort(1001), "grant 2 [1001]")
}

func TestPagesThatCanNotBeMade(t *testing.T) {
	s := newStore(t)
	s.expect(s.request(1, Args, 1001, 1002), "grant 1 [1001 1002]")
	s.expect(s.do(func(out []Effect) []Effect { return s.Uncommitted(s.now, 1001, out) }), "fail 1, abandon 1002")
	s.expect(s.abort(1002), "")
	s.expect(s.request(2, Create, 1003), "grant 2 [1003]")
	s.expect(s.do(func(out []Effect) []Effect { return s.Uncommitted(s.now, 1003, out) }), "")
	if s.Used() != 0 {
		t.Errorf("%d bytes are used, want none", s.Used())
	}
}

func TestTooBigFailsAtOnce(t *testing.T) {
	s := newStore(t)
	s.expect(s.request(1, Create, 10001), "grant 1 [10001]")
	s.expect(s.request(2, Create, 10100), "fail 2")
	s.expect(s.request(3, Args, 5000, 5001, 100), "fail 3")
	out := s.Request(s.now, Req{ID: 4, Class: Create, Bundle: []Item{{1, 1 << 62}}}, nil)
	if len(out) != 1 || !strings.Contains(out[0].Full.Error(), "whole object store of 100.0 MiB") {
		t.Errorf("effects %+v", out)
	}
}

func TestAStalledCreateFails(t *testing.T) {
	s := newStore(t)
	s.create(1, 9001, true)
	s.Pin(9001, 2)
	s.copyOf(2, 500)
	s.expect(s.request(3, Get, 2001), "")
	s.expect(s.request(4, Create, 3001), "")
	s.now = s.now.Add(time.Second)
	s.expect(s.request(5, Create, 3002), "")
	if at, ok := s.Deadline(); !ok || !at.Equal(t0.Add(StallAfter)) {
		t.Errorf("Deadline = %v, %v", at, ok)
	}
	s.expect(s.tick(3*time.Second, false), "")
	s.expect(s.tick(time.Second, true), "") // 5 s, but a task may release
	var full *Full
	s.expect(s.do(func(out []Effect) []Effect {
		out = s.Tick(s.now, false, out)
		for _, e := range out {
			full = e.Full
		}
		return out
	}), "fail 4")
	if full.Need != 30*mib || full.Usage.Primary != (Share{1, 90 * mib}) || full.Usage.Evictable.Bytes != 5*mib || full.Waited != 5*time.Second {
		t.Errorf("why: %+v", full)
	}
	if want := (Holder{9001, 90 * mib, Primary, 2, 0}); len(full.Holders) != 1 || full.Holders[0] != want {
		t.Errorf("holders: %+v, want %+v", full.Holders, want)
	}
	for _, part := range []string{"needs 30.0 MiB", "10.0 MiB of 100.0 MiB can be had", "90.0 MiB in 1 objects that refs name", "waited 5s"} {
		if !strings.Contains(full.Error(), part) {
			t.Errorf("%q does not say %q", full.Error(), part)
		}
	}
	s.expect(s.tick(time.Second, false), "fail 5")
	s.expect(s.tick(time.Second, false), "fail 3")
	if _, ok := s.Deadline(); ok || s.Why(s.now, 3) != "" {
		t.Error("something still waits")
	}
}

func TestHoldersAreTheLargest(t *testing.T) {
	s := newStore(t)
	for i, key := range []uint64{300, 900, 500, 700, 901, 100} {
		s.create(uint64(i+1), key, true)
	}
	s.copyOf(9, 2000)
	var keys []uint64
	for _, h := range s.Holders(4) {
		keys = append(keys, h.Key)
	}
	if want := []uint64{900, 901, 700, 500}; !slices.Equal(keys, want) {
		t.Errorf("largest: %v, want %v", keys, want)
	}
	if n, all := len(s.Holders(0)), len(s.Holders(100)); n != 0 || all != 6 {
		t.Errorf("%d of 0 and %d of all", n, all)
	}
}

func TestAReleaseStartsTheClockAgain(t *testing.T) {
	s := newStore(t)
	s.create(1, 8001, true)
	s.create(2, 1001, true)
	s.expect(s.request(3, Create, 5001), "")
	s.now = s.now.Add(4 * time.Second)
	s.expect(s.free(1001), "")
	s.expect(s.tick(4*time.Second, false), "")
	s.expect(s.tick(time.Second, false), "fail 3")
}

func TestArgumentsWaitButLetOthersPass(t *testing.T) {
	s := newStore(t)
	s.create(1, 5001, true)
	s.expect(s.request(2, Args, 5002), "grant 2 [5002]")
	s.expect(s.seal(5002, false), "")
	s.Running(2)
	s.expect(s.request(3, Args, 2001), "")
	s.expect(s.tick(6*time.Second, false), "")
	s.expect(s.tick(6*time.Second, false), "")
	if why := s.Why(s.now, 3); !strings.Contains(why, "50.0 MiB in 1 objects that running tasks have as arguments") {
		t.Errorf("Why = %q", why)
	}
	s.expect(s.end(2), "evict 5002, grant 3 [2001]")
}

func TestAStallLetsOthersPassBeforeItFails(t *testing.T) {
	s := newStore(t)
	s.create(1, 5001, true)
	s.expect(s.request(2, Create, 6001), "")
	for i := uint64(0); i < 6; i++ {
		s.create(10+i, 1000+i, true)
		s.expect(s.free(1000+i), "")
	}
	s.expect(s.request(20, Create, 1020), "")
	s.expect(s.tick(StallAfter, false), "grant 20 [1020]")
	s.expect(s.tick(StallAfter-1, false), "")
	s.expect(s.tick(1, false), "fail 2")
}

func TestTakeDoesNotWait(t *testing.T) {
	s := newStore(t)
	take := func(key uint64, size int64) (ok bool, story string) {
		story = s.do(func(out []Effect) []Effect {
			_, ok, out = s.Take(s.now, Item{key, size}, 0, out)
			return out
		})
		return ok, story
	}
	if ok, _ := take(1, 2000); !ok {
		t.Error("an empty store has no room for 2000 bytes")
	}
	s.copyOf(1, 9900)
	if ok, story := take(2, 20*mib); !ok || story != "evict 9900" {
		t.Errorf("Take with a copy in the way: %v, %s", ok, story)
	}
	s.create(2, 7000, true)
	if ok, _ := take(3, 20*mib); ok {
		t.Error("20 MiB from a store with 10")
	}
	s.expect(s.request(3, Create, 5000), "")
	if ok, _ := take(4, 100); ok {
		t.Error("a small value passed a create that waits")
	}
	if got := s.Used(); got%extent.Page != 0 || got > s.Capacity() {
		t.Errorf("Used = %d", got)
	}
}

func TestTrimAndForget(t *testing.T) {
	s := newStore(t)
	s.expect(s.do(func(out []Effect) []Effect {
		return s.Request(s.now, Req{ID: 1, Class: Create, Owner: 7, Since: s.now, Bundle: []Item{{1001, 10 * mib}}}, out)
	}), "grant 1 [1001]")
	s.expect(s.abort(1001), "")
	s.Forget(7)
	out := s.Trim(0, nil)
	if len(out) != 1 || out[0].Kind != Punch || out[0].At.Size != 10*mib {
		t.Errorf("Trim(0) = %+v", out)
	}
}

func TestSmallItemsShareChunks(t *testing.T) {
	s := newStore(t)
	q := Req{ID: 1, Class: Args, Since: s.now}
	for k := range uint64(10_000) {
		q.Bundle = append(q.Bundle, Item{k + 1, 1000})
	}
	var placed []Placed
	s.do(func(out []Effect) []Effect {
		out = s.Request(s.now, q, out)
		placed = out[len(out)-1].Placed
		return out
	})
	if len(placed) != 10_000 || s.Used() > 12*mib {
		t.Errorf("10,000 small arguments: %d placed, %d bytes used", len(placed), s.Used())
	}
	if !slices.ContainsFunc(placed, func(p Placed) bool { return p.Commit.Size == 0 }) {
		t.Error("every small item has a chunk of its own")
	}
}

func BenchmarkCreateSealFree(b *testing.B) {
	s := New(4<<30, 1<<30)
	out := make([]Effect, 0, 16)
	bundle := []Item{{Size: 200_000}}
	b.ReportAllocs()
	for id := uint64(1); b.Loop(); id++ {
		bundle[0].Key = id
		out = s.Request(t0, Req{ID: id, Class: Create, Bundle: bundle}, out[:0])
		_, out = s.Seal(t0, id, true, out)
		out = s.Free(t0, id, out)
	}
}
