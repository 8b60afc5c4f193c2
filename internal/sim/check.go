package sim

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"time"

	"gray/internal/core/engine"
	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/core/headstate/member"
	"gray/internal/core/ids"
)

// known is what is known of an object's value: what attempts made of it, and which one was seen.
type known struct {
	made map[uint64][]ids.ObjectID // contained, by tag
	tag  uint64                    // seen first
	kind string                    // error seen first; "" for a value
	seen bool
}

// called is a task, as its caller sees it.
type called struct {
	retries   int32
	starts    int32
	at        *node // whose client called it: its owner
	cancelled bool  // its owner knows that it is
	before    int32 // starts by then
}

// make notes that somebody makes a value of an object.
func (w *World) make(id ids.ObjectID, contained []ids.ObjectID) uint64 {
	k := w.values[id]
	if k == nil {
		k = &known{made: map[uint64][]ids.ObjectID{}}
		w.values[id] = k
	}
	tag := w.rng.Uint64()
	k.made[tag] = slices.Clone(contained)
	return tag
}

// lost are errors that one node may see of an object that others can read.
var lost = map[string]bool{string(fault.ObjectLost): true, string(fault.OwnerDied): true, string(fault.StoreFull): true, string(fault.TaskGone): true}

// explained are the errors that a world's faults may lead to.
func (w *World) explained(kind string) bool {
	switch fault.Kind(kind) {
	case "RAISED":
		return true
	case fault.WorkerCrashed:
		return w.Stats.Crashes > 0 || w.Stats.NodeDeaths > 0 || w.fenced()
	case fault.OwnerDied, fault.ObjectLost:
		return w.Stats.NodeDeaths > 0 || w.fenced() || (kind == string(fault.ObjectLost) && w.cfg.BadCopy > 0)
	case fault.StoreFull:
		return w.cfg.Capacity < 64<<20 || w.cfg.NoPages > 0
	case fault.Unschedulable:
		return w.cfg.Strategy
	case fault.Cancelled:
		return w.cfg.Frozen || w.Stats.Crashes > 0 || w.Stats.NodeDeaths > 0 || w.fenced()
	case fault.RuntimeEnv:
		return w.Stats.EnvFails > 0
	case fault.System:
		return w.cfg.Crash > 0 // no worker could be started
	}
	return false
}

func (w *World) fenced() bool {
	for _, n := range w.nodes {
		if n.fences > 0 || (n.born != time.Time{} && !n.alive) {
			return true
		}
	}
	return false
}

// seen checks a value that a process looks at.
func (w *World) seen(p *proc, v *val) {
	w.Stats.Values++
	k := w.values[v.id]
	if k == nil {
		k = &known{made: map[uint64][]ids.ObjectID{}}
		w.values[v.id] = k
	}
	if kind := v.errorKind(); kind != "" {
		w.Stats.Errors++
		if w.over[p.job] {
			return // its job has ended: it is being killed
		}
		if !w.explainedOf(p, v, kind) || strings.Contains(string(v.inline), "does not exist") && w.Stats.NodeDeaths == 0 && w.Stats.Crashes == 0 && !w.fenced() {
			w.failf("%s reads %s: error %q, which nothing in this world explains", p, v.id, v.inline)
		}
		if k.seen && k.kind != kind && !(lost[kind] && v.inline[0] == 4) {
			w.failf("%s reads %s: error %q, where %s was seen before", p, v.id, v.inline, k)
		}
		if !k.seen && !lost[kind] {
			k.seen, k.kind = true, kind
		}
		return
	}
	if w.actors[v.id.Unique()] != nil {
		if string(v.inline) != "\x00N." {
			w.failf("%s reads the handle %s: %q", p, v.id, v.inline)
		}
		return
	}
	var tag uint64
	if v.arena {
		var ok bool
		if tag, ok = p.n.store.read(v.off, v.size); !ok {
			w.failf("%s reads %s at %d: its bytes were written over", p, v.id, v.off)
			return
		}
	} else {
		tag = binary.LittleEndian.Uint64(v.inline[1:])
	}
	contained, ok := k.made[tag]
	switch {
	case !ok:
		w.failf("%s reads %s: the value %x, which nobody made of it", p, v.id, tag)
	case k.seen && (k.kind != "" || k.tag != tag):
		w.failf("%s reads %s: the value %x, where %s was seen before", p, v.id, tag, k)
	case v.contained != nil && !slices.Equal(v.contained, contained):
		w.failf("%s reads %s: it contains %s, its maker put %s in", p, v.id, shorts(v.contained), shorts(contained))
	}
	k.seen, k.tag = true, tag
}

func (k *known) String() string {
	if k.kind != "" {
		return "the error " + k.kind
	}
	return fmt.Sprintf("the value %x", k.tag)
}

// started counts the starts of a task.
func (w *World) started(p *proc, x *execute) {
	w.Stats.Starts++
	w.tracef("%s starts %x attempt %d", p, uint64(x.u), x.attempt)
	c := w.tasks[x.u]
	if c == nil {
		w.failf("%s starts task %x, which nobody called", p, uint64(x.u))
		return
	}
	if c.starts++; c.cancelled && c.starts > c.before+1 { // one may have been on its way
		w.failf("%s starts task %x for the %d. time, which was cancelled after %d", p, uint64(x.u), c.starts, c.before)
	}
	if c.retries >= 0 && c.starts > c.retries+1 {
		w.failf("%s starts task %x for the %d. time; it may be retried %d times", p, uint64(x.u), c.starts, c.retries)
	}
}

func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func sortedJobs(m map[ids.Job]bool) []ids.Job {
	return slices.SortedFunc(maps.Keys(m), func(a, b ids.Job) int { return bytes.Compare(a[:], b[:]) })
}

func (w *World) sortedLinks() []*link {
	keys := slices.SortedFunc(maps.Keys(w.links), func(a, b linkKey) int { return cmp.Or(cmp.Compare(a.a, b.a), cmp.Compare(a.b, b.b)) })
	out := make([]*link, 0, len(keys))
	for _, k := range keys {
		out = append(out, w.links[k])
	}
	return out
}

func short(id ids.ObjectID) string { return fmt.Sprintf("%x:%d", uint64(id.Unique()), id.Index()) }

func shorts(list []ids.ObjectID) string {
	s := make([]string, 0, len(list))
	for _, id := range list {
		s = append(s, short(id))
	}
	return "[" + strings.Join(s, " ") + "]"
}

func (n *node) reportLoad(avail map[string]int64, queued int) {
	n.member(member.Loaded{Report: &headstate.Report{Available: avail, Queued: int64(queued)}})
}

// endJob tells the head that a job is over.
func (w *World) endJob(n *node, j ids.Job) {
	n.call(&headstate.JobEnd{Job: j}, func(_ headstate.Answer, err error) {
		if err != nil {
			w.tracef("the head was not told of the end of job %s: %v", j, err)
		}
	})
}

// New makes the world of a configuration; nothing has happened in it.
func New(cfg Config) *World {
	start := time.Unix(1_000_000, 0)
	w := &World{
		cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 1)), now: start, start: start, lastHit: start, byID: map[ids.NodeID]*node{},
		links: map[linkKey]*link{}, values: map[ids.ObjectID]*known{}, paths: map[ids.Unique]string{}, tasks: map[ids.Unique]*called{},
		specs: map[string]spec{}, byJob: map[ids.Job][]string{}, over: map[ids.Job]bool{}, faults: true,
		actors: map[ids.Unique]*actorInfo{}, named: map[string][]*actorInfo{}, calls: map[ids.Unique]*callInfo{}, classes: map[ids.Job][]*class{}, stored: map[string]*stored{}, firm: map[ids.Unique]bool{}, shaky: map[ids.Unique]bool{},
	}
	w.head = newHead(w)
	for k := range cfg.Nodes {
		n := w.newNode(k)
		w.nodes = append(w.nodes, n)
		w.byID[n.id] = n
	}
	return w
}

// joined starts the drivers that live on a node.
func (w *World) joined(n *node) {
	for k := range w.cfg.Drivers {
		on := 0
		if k > 0 {
			on = k % (w.cfg.Nodes - w.cfg.Late)
		}
		if on == n.index {
			w.openDriver(n, k)
		}
	}
}

func (w *World) openDriver(n *node, k int) {
	n.call(&headstate.JobStart{Key: [16]byte{byte(k + 1)}}, func(a headstate.Answer, err error) {
		if err != nil {
			w.tracef("no job id: %v", err)
			return
		}
		p := w.newProc(n, 0, true)
		p.job = a.(*headstate.JobStarted).Job
		n.jobs[p.job] = true
		p.limit = uint64(w.cfg.Credit / 4)
		n.do(func(e *engine.Engine) { p.sid, p.next = e.OpenDriver(p.job, 1<<20) })
		n.introduce(p.sid)
		n.procs[p.sid] = p
		w.drivers = append(w.drivers, p)
		p.openThread(1)
		if w.cfg.Frozen && w.chance(0.7) {
			w.after(time.Duration(w.rng.IntN(300))*time.Millisecond, func() {
				if p.alive && w.faults {
					w.tracef("%s: driver is killed", p)
					p.kill(true)
				}
			})
		}
	})
}

// Run plays the world to its end and tells what was wrong in it.
func (w *World) Run() (err error) {
	defer func() {
		for _, n := range w.nodes { // programs that are not through
			for _, p := range n.procs {
				for _, t := range p.threads {
					t.stop()
				}
			}
		}
		if r := recover(); r != nil {
			err = fmt.Errorf("seed %d: after %s: panic: %v\n%s", w.cfg.Seed, w.now.Sub(w.start), r, frames())
		}
	}()
	for _, n := range w.nodes {
		d := time.Duration(0)
		if n.index >= w.cfg.Nodes-w.cfg.Late {
			d = time.Duration(w.rng.IntN(300)) * time.Millisecond
		}
		w.after(d, n.boot)
	}
	w.head.mortal()
	w.until(w.driversDone)
	w.faults = false
	w.head.back()
	for _, n := range w.nodes { // whoever lost the head finds it, or hears that it is dead
		if n.alive && (n.up == nil || n.up.down) {
			w.after(0, n.relink)
		}
	}
	w.dropGlobals()
	w.settle()
	w.endDetached()
	w.settle()
	w.checkActors()
	w.checkEmpty(true)
	for _, p := range w.drivers {
		if p.alive {
			if w.chance(0.5) { // ray.shutdown(): the connection first
				p.n.do(func(e *engine.Engine) { e.SessionEnded(p.sid) })
			}
			p.kill(true)
		}
	}
	w.settle()
	w.checkEmpty(false)
	w.Stats.Virtual = w.now.Sub(w.start)
	if w.fail != nil {
		return fmt.Errorf("seed %d: %w", w.cfg.Seed, w.fail)
	}
	return nil
}

// frames is where a panic came from, in the code that is simulated.
func frames() string {
	var b strings.Builder
	pcs := make([]uintptr, 64)
	for it := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)]); ; {
		f, more := it.Next()
		if strings.Contains(f.Function, "gray/") {
			fmt.Fprintf(&b, "  %s %s:%d\n", f.Function[strings.LastIndex(f.Function, "/")+1:], f.File[strings.LastIndex(f.File, "/")+1:], f.Line)
		}
		if !more {
			return b.String()
		}
	}
}

func (w *World) driversDone() bool {
	if len(w.drivers) < w.cfg.Drivers {
		return w.now.Sub(w.start) > 30*time.Second // a node that died early starts none
	}
	for _, p := range w.drivers {
		if p.alive && (len(p.threads) == 0 || p.quiet < len(p.threads)) {
			return false
		}
	}
	return true
}

// until runs the world to a condition; a world in which nothing happens for long is stuck.
func (w *World) until(done func() bool) {
	for !done() && w.step() {
		if w.now.Sub(w.lastHit) > limit {
			w.failf("nothing happens any more: %s", w.blocked())
		}
	}
}

// blocked lists who waits for what.
func (w *World) blocked() string {
	var b strings.Builder
	for _, n := range w.nodes {
		if !n.alive || n.eng == nil {
			continue
		}
		for _, sid := range sorted(n.procs) {
			p := n.procs[sid]
			for _, c := range sorted(p.threads) {
				if t := p.threads[c]; p.alive && t.cur != nil {
					fmt.Fprintf(&b, "\n%s channel %d: %s", p, c, t.doing)
				}
			}
		}
		fmt.Fprintf(&b, "\nnode %d: %s", n.index, n.eng.Dump())
	}
	for _, l := range w.sortedLinks() {
		fmt.Fprintf(&b, "\nlink %v: up %v dead %v queued %d and %d, lossy %d and %d", l.key, l.up, l.dead, len(l.half[0].queue), len(l.half[1].queue), len(l.half[0].box), len(l.half[1].box))
	}
	return b.String()
}

// settle runs the world until nothing has happened for a while.
func (w *World) settle() {
	for w.now.Sub(w.lastHit) < 3*time.Second && w.step() {
	}
	for end := w.now.Add(15 * time.Second); w.now.Before(end) && w.step(); { // dead nodes are noticed
	}
}

func (w *World) dropGlobals() {
	for _, n := range w.nodes {
		for _, sid := range sorted(n.procs) {
			p := n.procs[sid]
			for _, id := range p.globals {
				p.drop(id)
			}
			p.globals = nil
		}
	}
}

// checkEmpty looks for what is left on live nodes.
func (w *World) checkEmpty(jobs bool) {
	if w.fail != nil {
		return
	}
	for _, n := range w.nodes {
		if n.alive && n.eng != nil {
			if err := n.eng.Empty(jobs); err != nil {
				w.failf("node %d, after all refs are gone: %v", n.index, err)
				w.tracef("%s", w.blocked())
			}
		}
	}
}
