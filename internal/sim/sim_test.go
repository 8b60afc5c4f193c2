package sim

import (
	"crypto/sha256"
	"flag"
	"os"
	"testing"
	"time"
)

var (
	seeds = flag.Int("seeds", 0, "how many worlds to play; 0: a few")
	first = flag.Uint64("first", 1, "the first seed")
	one   = flag.Uint64("seed", 0, "play this seed only")
	trace = flag.Bool("trace", false, "with -seed: print what happens")
)

// TestSeeds plays worlds. A failing one is played again with
//
//	go test ./internal/sim -run TestSeeds -args -seed=N -trace
func TestSeeds(t *testing.T) {
	if *one != 0 {
		w := New(MakeConfig(*one))
		if *trace {
			w.trace = os.Stdout
		}
		t.Logf("%+v", w.cfg)
		err := w.Run()
		t.Logf("%+v", w.Stats)
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	n := *seeds
	if n == 0 {
		n = 30
	}
	var sum Stats
	start := time.Now()
	for seed := *first; seed < *first+uint64(n); seed++ {
		w := New(MakeConfig(seed))
		if err := w.Run(); err != nil {
			t.Errorf("%v\nreplay: go test ./internal/sim -run TestSeeds -args -seed=%d -trace", err, seed)
		}
		sum.add(&w.Stats)
	}
	t.Logf("%d seeds in %.1f s (%.1f a second): %+v", n, time.Since(start).Seconds(), float64(n)/time.Since(start).Seconds(), sum)
}

// TestReplay plays worlds twice: a seed must give the same story, to the last event.
func TestReplay(t *testing.T) {
	for seed := uint64(1); seed <= 24; seed++ {
		story := func() ([32]byte, Stats) {
			h := sha256.New()
			w := New(MakeConfig(seed))
			w.trace = h
			if err := w.Run(); err != nil {
				t.Fatal(err)
			}
			return [32]byte(h.Sum(nil)), w.Stats
		}
		h1, s1 := story()
		h2, s2 := story()
		if h1 != h2 || s1 != s2 {
			t.Errorf("seed %d played twice gives two stories: %+v and %+v", seed, s1, s2)
		}
	}
}

func (s *Stats) add(o *Stats) {
	s.Events += o.Events
	s.Tasks += o.Tasks
	s.Starts += o.Starts
	s.Gets += o.Gets
	s.Values += o.Values
	s.Errors += o.Errors
	s.Crashes += o.Crashes
	s.NodeDeaths += o.NodeDeaths
	s.Cuts += o.Cuts
	s.Fetches += o.Fetches
	s.Full += o.Full
	s.Items += o.Items
	s.Reads += o.Reads
	s.Actors += o.Actors
	s.Lives += o.Lives
	s.Calls += o.Calls
	s.Kills += o.Kills
	s.Cancels += o.Cancels
	s.Exits += o.Exits
	s.Ends += o.Ends
	s.Adoptions += o.Adoptions
	s.HeadDeaths += o.HeadDeaths
	s.StartFails += o.StartFails
	s.Envs += o.Envs
	s.EnvFails += o.EnvFails
	s.Virtual += o.Virtual
}
