package node

import (
	"testing"
	"time"
)

func TestSpinner(t *testing.T) {
	short, long := shortWait, shortWait+1
	type step struct {
		times int
		event func(*spinner)
		spins bool // afterwards
	}
	slept := func(d time.Duration) func(*spinner) { return func(s *spinner) { s.slept(d) } }
	spun := func(hit bool) func(*spinner) { return func(s *spinner) { s.spun(hit) } }
	for name, tc := range map[string]struct {
		alone bool
		steps []step
	}{
		"one wait after the other": {steps: []step{{spinAfter - 1, slept(short), false}, {1, slept(short), true}, {1000, spun(true), true}}},
		"a long wait begins anew":  {steps: []step{{spinAfter - 1, slept(short), false}, {1, slept(long), false}, {spinAfter - 1, slept(short), false}, {1, slept(short), true}}},
		"in vain at once":          {steps: []step{{spinAfter, slept(short), true}, {1, spun(false), false}, {spinCost - 1, slept(short), false}, {1, slept(short), true}}},
		"in vain after many hits":  {steps: []step{{spinAfter, slept(short), true}, {1000, spun(true), true}, {3, spun(false), true}, {1, spun(false), false}}},
		"idle":                     {steps: []step{{1000, slept(long), false}}},
		"one CPU":                  {alone: true, steps: []step{{1000, slept(short), false}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := spinner{alone: tc.alone}
			for i, st := range tc.steps {
				for range st.times {
					st.event(&s)
				}
				if s.spins() != st.spins {
					t.Fatalf("after step %d: spins %v, score %d", i, s.spins(), s.score)
				}
			}
		})
	}
}
