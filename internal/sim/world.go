// Package sim runs whole clusters of the real core from one seed: the head's state machine, the members' and a number
// of engines, with simulated clients, workers, links, copies and faults around them, on a virtual clock.
//
// A World is single-threaded: everything that happens is an event in one heap, ordered by time and then by when it was
// scheduled. All choices come from one random generator, so a seed replays exactly. Programs of clients are coroutines
// that run only while an event resumes them.
//
// What is checked: the engine's structure after each event (engine.Check); that no ref ever shows two values; that a task
// starts no more often than its retries allow; that a get's answer is a value, or an error that the faults of this world
// explain; that every wait ends; and that every table of every engine is empty once all refs are gone.
package sim

import (
	"container/heap"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"gray/internal/core/ids"
)

// World is one simulated cluster.
type World struct {
	cfg    Config
	rng    *rand.Rand
	now    time.Time
	start  time.Time
	events eventHeap
	seq    uint64
	trace  io.Writer
	fail   error

	head    *head
	nodes   []*node
	byID    map[ids.NodeID]*node
	links   map[linkKey]*link
	drivers []*proc
	lastHit time.Time // when something last happened that is more than the passing of time

	values   map[ids.ObjectID]*known
	paths    map[ids.Unique]string
	tasks    map[ids.Unique]*called
	specs    map[string]spec
	byJob    map[ids.Job][]string
	over     map[ids.Job]bool // whose drivers are dead
	actors   map[ids.Unique]*actorInfo
	named    map[string][]*actorInfo
	calls    map[ids.Unique]*callInfo
	classes  map[ids.Job][]*class
	stored   map[string]*stored
	lastSpec int
	firm     map[ids.Unique]bool // what becomes ready whatever programs do
	shaky    map[ids.Unique]bool // what may not, as long as some program holds its handles
	faults   bool                // faults may still happen
	script   *script             // what the driver does, instead of anything by chance
	Stats    Stats
}

// Stats are what happened in a World, to see that a seed exercises what it should.
type Stats struct {
	Events, Tasks, Starts, Gets, Values, Errors, Crashes, NodeDeaths, Cuts, Fetches, Full                int
	Actors, Lives, Calls, Cancels, Kills, Exits, Ends, Adoptions, HeadDeaths, StartFails, Envs, EnvFails int
	Items, Reads                                                                                         int
	Virtual                                                                                              time.Duration
}

type event struct {
	at  time.Time
	seq uint64
	f   func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	if c := h[i].at.Compare(h[j].at); c != 0 {
		return c < 0
	}
	return h[i].seq < h[j].seq
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*h = old[:len(old)-1]
	return e
}

// after schedules f.
func (w *World) after(d time.Duration, f func()) { w.schedule(w.now.Add(d), f) }

func (w *World) schedule(at time.Time, f func()) {
	if at.Before(w.now) {
		at = w.now
	}
	w.seq++
	heap.Push(&w.events, event{at, w.seq, f})
}

// hit notes that something happened that may lead to more.
func (w *World) hit() { w.lastHit = w.now }

// step runs the next event; false when there is none, or the world has failed.
func (w *World) step() bool {
	if len(w.events) == 0 || w.fail != nil {
		return false
	}
	ev := heap.Pop(&w.events).(event)
	w.now = ev.at
	if w.Stats.Events++; w.Stats.Events > w.cfg.MaxEvents {
		w.failf("%d events, and no end: %s", w.cfg.MaxEvents, w.blocked())
	}
	ev.f()
	return w.fail == nil
}

// failf ends the world with what went wrong; the first word counts.
func (w *World) failf(format string, args ...any) {
	if w.fail == nil {
		w.fail = fmt.Errorf("after %s: %s", w.now.Sub(w.start), fmt.Sprintf(format, args...))
	}
}

func (w *World) tracef(format string, args ...any) {
	if w.trace != nil {
		fmt.Fprintf(w.trace, "%12s ", w.now.Sub(w.start))
		fmt.Fprintf(w.trace, format, args...)
		fmt.Fprintln(w.trace)
	}
}

// chance is true with probability p.
func (w *World) chance(p float64) bool { return w.rng.Float64() < p }

// delay is how long something takes that is usually quick.
func (w *World) delay() time.Duration {
	switch w.rng.IntN(20) {
	case 0:
		return time.Duration(w.rng.IntN(30_000)) * time.Microsecond
	case 1, 2:
		return time.Duration(w.rng.IntN(3_000)) * time.Microsecond
	case 3, 4, 5:
		return 0
	}
	return time.Duration(5+w.rng.IntN(200)) * time.Microsecond
}

func (w *World) between(lo, hi int) int { return lo + w.rng.IntN(hi-lo+1) }

// pipe delivers in order, each thing after a delay of its own.
type pipe struct {
	w    *World
	last time.Time
	down bool // nothing is delivered any more
}

func (p *pipe) send(f func()) { p.sendIn(p.w.delay(), f) }

func (p *pipe) sendIn(d time.Duration, f func()) {
	at := p.w.now.Add(d)
	if at.Before(p.last) {
		at = p.last
	}
	p.last = at
	p.w.schedule(at, func() {
		if !p.down {
			f()
		}
	})
}
