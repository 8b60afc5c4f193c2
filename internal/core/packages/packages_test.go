package packages

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
)

func TestEvents(t *testing.T) {
	type event func(*State) []Effect
	want := func(key string, uris ...string) event { return func(s *State) []Effect { return s.Want(key, uris) } }
	drop := func(key string) event { return func(s *State) []Effect { return s.Drop(key) } }
	fetched := func(uri string, size int64) event {
		return func(s *State) []Effect { return s.Fetched(uri, size, "") }
	}
	failed := func(uri string) event { return func(s *State) []Effect { return s.Fetched(uri, 0, "no") } }
	removed := func(uri string) event { return func(s *State) []Effect { return s.Removed(uri) } }
	for _, tc := range []struct {
		name string
		in   []event
		want []Effect // of the last event
	}{
		{"each package is fetched", []event{want("e", "a", "b")}, []Effect{Fetch{"a"}, Fetch{"b"}}},
		{"not ready before all are there", []event{want("e", "a", "b"), fetched("a", 1)}, nil},
		{"ready when all are there", []event{want("e", "a", "b"), fetched("a", 1), fetched("b", 1)}, []Effect{Ready{"e"}}},
		{"fetched once for two", []event{want("e", "a"), want("f", "a", "b")}, []Effect{Fetch{"b"}}},
		{"both become ready", []event{want("e", "a"), want("f", "a"), fetched("a", 1)}, []Effect{Ready{"e"}, Ready{"f"}}},
		{"what is there is ready at once", []event{want("e", "a"), fetched("a", 1), drop("e"), want("f", "a")}, []Effect{Ready{"f"}}},
		{"all who want it fail", []event{want("e", "a"), want("f", "a", "b"), failed("a")}, []Effect{Failed{"e", "no"}, Failed{"f", "no"}}},
		{"tried again after a failure", []event{want("e", "a"), failed("a"), want("e", "a")}, []Effect{Fetch{"a"}}},
		{"what is unused stays within the limit", []event{want("e", "a"), fetched("a", 10), drop("e")}, nil},
		{"what is in use is never removed", []event{want("e", "a"), fetched("a", 99)}, []Effect{Ready{"e"}}},
		{"too much goes once unused", []event{want("e", "a"), fetched("a", 99), drop("e")}, []Effect{Remove{"a"}}},
		{"least recently used first", []event{
			want("e", "a"), fetched("a", 4), want("f", "b"), fetched("b", 4), drop("f"), drop("e"), want("g", "c"), fetched("c", 4),
		}, []Effect{Ready{"g"}, Remove{"b"}}},
		{"wanted while it is removed: fetched anew", []event{want("e", "a"), fetched("a", 99), drop("e"), want("f", "a"), removed("a")}, []Effect{Fetch{"a"}}},
		{"removed for good", []event{want("e", "a"), fetched("a", 99), drop("e"), removed("a"), want("f", "a")}, []Effect{Fetch{"a"}}},
		{"given up while it is fetched", []event{want("e", "a"), drop("e"), fetched("a", 99)}, []Effect{Remove{"a"}}},
		{"nothing for one without packages but that it is ready", []event{want("e")}, []Effect{Ready{"e"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := New(10)
			var got []Effect
			for _, ev := range tc.in {
				got = ev(s)
				check(t, s)
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("effects = %+v, want %+v", got, tc.want)
			}
		})
	}
}

// check compares the tables with each other.
func check(t *testing.T, s *State) {
	t.Helper()
	var size int64
	for uri, p := range s.pkgs {
		size += p.size
		for key := range p.wanted {
			if e := s.envs[key]; e == nil {
				t.Fatalf("package %s is wanted by %s, which is not in use", uri, key)
			} else if e.ready && p.status != unpacked {
				t.Fatalf("environment %s is ready without %s", key, uri)
			}
		}
	}
	for key, e := range s.envs {
		for _, uri := range e.uris {
			if p := s.pkgs[uri]; p == nil || !p.wanted[key] {
				t.Fatalf("environment %s wants %s, which does not know", key, uri)
			}
		}
	}
	if size != s.size {
		t.Fatalf("packages take %d bytes, %d are counted", size, s.size)
	}
}

// Whatever happens in whatever order, what is in use stays, each wish is answered once, and the limit holds for the rest.
func TestRandom(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := New(20)
		disk := map[string]bool{}      // unpacked or being removed
		waiting := map[string]bool{}   // environments without an answer
		ready := map[string][]string{} // and those that are ready
		wishes := map[string][]string{}
		var open []Effect // Fetch and Remove that nobody has answered
		carry := func(out []Effect) {
			for _, e := range out {
				switch e := e.(type) {
				case Fetch:
					if disk[e.URI] {
						t.Fatalf("seed %d: %s is fetched and is there", seed, e.URI)
					}
					open = append(open, e)
				case Remove:
					for key, uris := range ready {
						for _, u := range uris {
							if u == e.URI {
								t.Fatalf("seed %d: %s is removed while %s uses it", seed, u, key)
							}
						}
					}
					open = append(open, e)
				case Ready:
					if !waiting[e.Key] {
						t.Fatalf("seed %d: %s is ready and nobody asked", seed, e.Key)
					}
					delete(waiting, e.Key)
					ready[e.Key] = wishes[e.Key]
					for _, u := range wishes[e.Key] {
						if !disk[u] {
							t.Fatalf("seed %d: %s is ready without %s", seed, e.Key, u)
						}
					}
				case Failed:
					if !waiting[e.Key] {
						t.Fatalf("seed %d: %s failed and nobody asked", seed, e.Key)
					}
					delete(waiting, e.Key)
				}
			}
			check(t, s)
		}
		answer := func() {
			k := r.IntN(len(open))
			e := open[k]
			open = append(open[:k], open[k+1:]...)
			switch e := e.(type) {
			case Fetch:
				if r.IntN(5) == 0 {
					carry(s.Fetched(e.URI, 0, "no"))
					return
				}
				disk[e.URI] = true
				carry(s.Fetched(e.URI, int64(1+r.IntN(9)), ""))
			case Remove:
				delete(disk, e.URI)
				carry(s.Removed(e.URI))
			}
		}
		for range 300 {
			key := fmt.Sprint("e", r.IntN(6))
			_, isReady := ready[key]
			switch {
			case len(open) > 0 && r.IntN(2) == 0:
				answer()
			case isReady || waiting[key]:
				delete(ready, key)
				delete(waiting, key)
				carry(s.Drop(key))
			default:
				var uris []string
				for u := range 8 {
					if r.IntN(4) == 0 {
						uris = append(uris, fmt.Sprint("u", u))
					}
				}
				waiting[key], wishes[key] = true, uris
				carry(s.Want(key, uris))
			}
		}
		for key := range ready {
			delete(ready, key)
			carry(s.Drop(key))
		}
		for len(open) > 0 {
			answer()
			for key := range ready {
				delete(ready, key)
				carry(s.Drop(key))
			}
		}
		if len(waiting) > 0 || s.Size() > 20 {
			t.Fatalf("seed %d: %d environments got no answer, %d bytes stay", seed, len(waiting), s.Size())
		}
	}
}
