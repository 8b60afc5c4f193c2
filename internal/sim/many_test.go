package sim

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gray/internal/core/headstate"
)

var (
	many = flag.Bool("many", false, "play TestManyActors with 2,000 nodes and 40,000 actors")
	only = flag.String("only", "", "with -trace, of TestManyActors: print only lines with this in them")
)

// TestManyActors has thousands of actors made, called, killed and restarted on a large cluster while processes, nodes,
// links and the head fail, and measures what the head does for each.
//
//	go test ./internal/sim -run TestManyActors -timeout 60m -v -args -many
func TestManyActors(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	c := Config{
		Seed: 1, Nodes: 100, Drivers: 10, Each: 200, Capacity: 1 << 18, Large: 2000, Credit: 16 << 20, Crash: 0.002, Murder: 0.05, NodeDeath: true,
		Cuts: true, Spared: 0.95, HeadDeath: true, HeadEvery: 4 * time.Second, Actors: 0.3, Strategy: true, Depth: 1, Check: 20, MaxActors: 1 << 30,
		Names: 50, MaxEvents: 1 << 30,
	}
	if *many {
		c.Nodes, c.Drivers, c.Each, c.Names, c.Check, c.Spared, c.HeadEvery, c.Rows = 2000, 100, 400, 1000, 2000, 0.97, 10*time.Second, 100_000
	}
	for range c.Nodes {
		c.CPUs = append(c.CPUs, 2)
	}
	w := New(c)
	if *trace {
		w.trace = &filter{to: os.Stdout, only: []byte(*only)}
	}
	head := measureHead(w)
	start := time.Now()
	if err := w.Run(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f s: %+v", time.Since(start).Seconds(), w.Stats)
	each := head.spent / time.Duration(w.Stats.Actors)
	t.Logf("the head: %d events in %.2f s of CPU, %s an actor; %.1f events an actor are about actors", head.events, head.spent.Seconds(), each, float64(head.actors)/float64(w.Stats.Actors))
	if want := c.Drivers * c.Each * 9 / 10; w.Stats.Actors < want {
		t.Errorf("%d actors were made, want %d", w.Stats.Actors, want)
	}
	if each > 200*time.Microsecond {
		t.Errorf("the head needs %s of CPU for an actor, want 200 µs", each)
	}
}

// filter passes on the lines that have something in them.
type filter struct {
	to   io.Writer
	only []byte
	line []byte
}

func (f *filter) Write(b []byte) (int, error) {
	f.line = append(f.line, b...)
	if b[len(b)-1] == '\n' {
		if bytes.Contains(f.line, f.only) {
			_, _ = f.to.Write(f.line)
		}
		f.line = f.line[:0]
	}
	return len(b), nil
}

// meter is the CPU time that the head's state machine takes.
type meter struct {
	events, actors int
	spent          time.Duration
}

func measureHead(w *World) *meter {
	m := &meter{}
	w.head.timed = func(ev headstate.Event, step func()) {
		m.events++
		if r, ok := ev.(headstate.Received); ok {
			switch r.Msg.(type) {
			case *headstate.ActorRegister, *headstate.ActorUpdate, *headstate.ActorWatch, *headstate.ActorGet, *headstate.ActorKill:
				m.actors++
			}
		}
		runtime.LockOSThread()
		before := threadTime()
		step()
		m.spent += threadTime() - before
		runtime.UnlockOSThread()
	}
	return m
}

func threadTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		panic(fmt.Sprintf("no clock of the thread's: %v", err))
	}
	return time.Duration(ts.Nano())
}
