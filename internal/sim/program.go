package sim

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"gray/internal/core/fault"

	"gray/internal/core/engine"
	"gray/internal/core/ids"
	"gray/internal/core/resource"
)

// Programs never block on what could wait for themselves. Each task and put has a path: its parent's, then its number
// among the parent's children. A task uses a ref only if the ref's path comes before its own and is none of its
// ancestors', or is one of its descendants'; so what waits always waits for something earlier.

// usable tells whether a task with a path may block on an object.
func (w *World) usable(path string, id ids.ObjectID) bool {
	if w.shaky[id.Unique()] {
		return false
	}
	other := w.paths[id.Unique()]
	if path == "" {
		return true // nobody waits for a driver
	}
	if strings.HasPrefix(other, path) {
		return len(other) > len(path)
	}
	return other < path && !strings.HasPrefix(path, other)
}

// spec is a remote function of the world.
type spec struct {
	name    string
	job     ids.Job
	fn      ids.ObjectID
	res     map[string]int64
	retries int32
	kind    resource.StrategyKind
	node    ids.NodeID
	soft    bool
	calls   uint32
	leaf    bool   // must not block: it holds what cannot be lent
	class   *class // of a creation or a method
	method  string
	group   string
	ordered bool
	bound   uint32
	// packages that must be there before its worker starts
	packages string
}

// specFor is a function's template in a job: a detached actor's is its own, a method's is its caller's.
func (w *World) specFor(n *node, name string, job ids.Job) engine.TemplateSpec {
	s, ok := w.specs[name]
	if !ok {
		w.failf("node %d was told of template %q, which does not exist", n.index, name)
	}
	res, err := n.names.Set(s.res)
	if err != nil {
		panic(err) // the names are constant
	}
	t := engine.TemplateSpec{
		Raw: []byte(name), Job: job, Fn: s.fn, Name: s.name, Resources: res, MaxRetries: s.retries,
		Strategy: resource.Strategy{Kind: s.kind, Node: s.node, Soft: s.soft}, MaxCalls: s.calls, Backpressure: s.bound, Env: s.packages, Packages: s.packages,
	}
	if s.class != nil {
		s.class.fill(n, &s, &t)
	}
	return t
}

// addSpecs makes a job's functions.
func (p *proc) addSpecs() {
	w := p.w
	add := func(s spec) {
		s.name = fmt.Sprintf("%s/%d", p.job, len(p.specs))
		s.job, s.fn = p.job, p.fn
		w.specs[s.name] = s
		p.specs = append(p.specs, s.name)
		w.byJob[p.job] = p.specs
	}
	cpu := func(q int64) map[string]int64 { return map[string]int64{"CPU": q} }
	retries := func() int32 { return int32([]int{0, 0, 1, 3, 3, -1}[w.rng.IntN(6)]) }
	add(spec{res: cpu(resource.Unit), retries: retries()})
	add(spec{res: cpu(resource.Unit), retries: 3, bound: uint32(w.rng.IntN(3))})
	add(spec{res: cpu(resource.Unit / 2), retries: retries()})
	if w.chance(0.3) {
		add(spec{res: nil, retries: retries()})
	}
	if w.chance(0.3) {
		add(spec{res: cpu(resource.Unit), retries: retries(), calls: 1})
	}
	if w.chance(0.5) {
		add(spec{res: cpu(resource.Unit), retries: retries(), packages: "a"})
		add(spec{res: cpu(resource.Unit / 2), retries: retries(), packages: w.packages()})
	}
	if w.cfg.Strategy {
		add(spec{res: cpu(resource.Unit), retries: retries(), kind: resource.StrategySpread})
		add(spec{res: cpu(resource.Unit), retries: retries(), kind: resource.StrategyNode, node: w.nodes[w.rng.IntN(len(w.nodes))].id, soft: w.chance(0.5)})
	}
	if w.cfg.Custom {
		add(spec{res: map[string]int64{"CPU": resource.Unit / 2, "x": resource.Unit}, retries: retries(), leaf: true})
		add(spec{res: map[string]int64{"GPU": resource.Unit / 2}, retries: retries(), leaf: true, calls: 1})
	}
}

// packages are those of an environment, of which there are few: jobs share them.
func (w *World) packages() string { return []string{"", "a", "b"}[w.rng.IntN(3)] }

// submit calls a function of the world with some of the refs.
func (t *thread) submit(name string, depth int, deps, contained []ids.ObjectID) []ids.ObjectID {
	p, w := t.p, t.p.w
	s := w.specs[name]
	args := make([]byte, 10+w.size(2000))
	if w.chance(0.01) {
		args = make([]byte, 100_000+w.rng.IntN(30_000))
	}
	binary.LittleEndian.PutUint64(args, w.rng.Uint64())
	args[8] = byte(depth)
	if s.leaf {
		args[9] = 1
	}
	t.spend(len(args) + 100)
	u := p.nextID(t)
	m := engine.Submission{
		Template: p.register(name), Unique: u, Returns: uint32([]int{1, 1, 1, 2, 0, 3}[w.rng.IntN(6)]), Deps: slices.Clone(deps),
		Contained: slices.Clone(contained), Args: args, Bytes: uint32(len(args) + 100),
	}
	stream := !s.leaf && depth >= 0 && w.chance(0.2)
	if stream {
		m.Flags, m.Returns = engine.FlagStream, 1
	}
	retries := s.retries
	if w.chance(0.1) {
		r := int32(w.rng.IntN(3))
		m.Over.MaxRetries, m.Over.Raw, retries = &r, []byte{byte(r)}, r
	}
	outs := t.send(&m, name, retries, depth)
	if stream {
		t.streams = append(t.streams, &reading{outs[0], 2})
		return nil // who waits for its end waits for those who read it
	}
	return outs
}

// send submits a task, and owns its outputs.
func (t *thread) send(m *engine.Submission, name string, retries int32, depth int) (outs []ids.ObjectID) {
	p, w := t.p, t.p.w
	w.tasks[m.Unique] = &called{retries: retries, at: p.n}
	w.Stats.Tasks++
	w.tracef("%s submits %s %x deps %s contained %s returns %d retries %d depth %d", p, name, uint64(m.Unique), shorts(m.Deps), shorts(m.Contained), m.Returns, retries, depth)
	for k := range m.Returns {
		outs = append(outs, p.own(m.Unique.Object(p.job, k+1)))
	}
	p.write(func(e *engine.Engine) { e.Submit(p.sid, m) })
	return outs
}

// nextID is an id of the process's own block, with its path.
func (p *proc) nextID(t *thread) ids.Unique {
	u := p.next
	p.next++
	t.kids++
	path := fmt.Sprintf("%s%04x", t.path, t.kids)
	if t.path == "" {
		p.count++
		path = fmt.Sprintf("%08x", p.count)
	}
	p.w.paths[u] = path
	return u
}

// register is the number of a template on the process's stream.
func (p *proc) register(name string) uint32 {
	if no, ok := p.tmpl[name]; ok {
		return no
	}
	no := uint32(len(p.tmpl) + 1)
	p.tmpl[name] = no
	p.write(func(e *engine.Engine) { e.RegisterTemplate(p.sid, no, p.w.specFor(p.n, name, p.job)) })
	return no
}

// size draws a size that is usually small.
func (w *World) size(most int) int {
	if !(w.cfg.Heavy && w.chance(0.6)) && w.chance(0.8) {
		return w.rng.IntN(min(most, 60) + 1)
	}
	return w.rng.IntN(most + 1)
}

// put stores a value that holds refs; nil when there was no room.
func (t *thread) put(contained []ids.ObjectID) []ids.ObjectID {
	p, w := t.p, t.p.w
	id := p.nextID(t).Object(p.job, 1)
	w.firm[id.Unique()] = true
	tag := w.make(id, contained)
	inner := slices.Clone(contained)
	if w.chance(0.5) {
		v := inlineValue(tag, w.size(inlineMax-16))
		t.spend(len(v))
		p.own(id)
		p.write(func(e *engine.Engine) { e.Put(p.sid, id, 0, inner, v) })
		return []ids.ObjectID{id}
	}
	size := uint64(inlineMax + w.size(w.cfg.Large))
	p.own(id)
	off, ok := t.create(id, size)
	if !ok {
		p.drop(id)
		return nil
	}
	t.sleep(w.delay())
	if w.chance(0.05) {
		p.write(func(e *engine.Engine) { e.Abort(p.sid, id) })
		p.drop(id)
		return nil
	}
	p.n.store.write(off, size, tag)
	p.write(func(e *engine.Engine) { e.Seal(p.sid, id, 0, inner) })
	return []ids.ObjectID{id}
}

// pick draws up to n of the refs that the thread may use.
func (t *thread) pick(from []ids.ObjectID, n int) []ids.ObjectID {
	var ok []ids.ObjectID
	for _, id := range from {
		if t.p.w.usable(t.path, id) {
			ok = append(ok, id)
		}
	}
	var out []ids.ObjectID
	for range min(n, len(ok)) {
		out = append(out, ok[t.p.w.rng.IntN(len(ok))])
	}
	return out
}

// act does one thing that both drivers and tasks do, with the handles that the program holds.
func (t *thread) act(mine []ids.ObjectID, names []string, depth int, block bool) []ids.ObjectID {
	p, w := t.p, t.p.w
	if w.cfg.Cancel > 0 && w.chance(w.cfg.Cancel) {
		t.cancel(mine)
		return mine
	}
	if w.cfg.Actors > 0 && w.chance(w.cfg.Actors) {
		return t.actActor(mine, block)
	}
	switch k := w.rng.IntN(23); {
	case k >= 20:
		if len(t.streams) == 0 || !block {
			break
		}
		k := w.rng.IntN(len(t.streams))
		if w.chance(0.2) {
			t.leave(k)
			break
		}
		items, ended := t.read(t.streams[k])
		mine = append(mine, items...)
		if ended {
			t.leave(k)
		}
	case k < 8:
		if depth < 0 || len(names) == 0 {
			break
		}
		deps := t.pick(mine, w.between(0, 3))
		mine = append(mine, t.submit(names[w.rng.IntN(len(names))], depth, deps, t.pick(mine, w.size(2)))...)
	case k < 11:
		mine = append(mine, t.put(t.pick(mine, w.rng.IntN(3)))...)
	case k < 15:
		list := t.pick(mine, w.between(1, 4))
		if len(list) == 0 {
			break
		}
		var patience time.Duration
		if !block || w.chance(0.2) {
			patience = w.delay() + time.Microsecond
		}
		for _, v := range t.get(list, patience) {
			if w.chance(0.5) {
				for _, c := range v.contained {
					mine = append(mine, p.copyRef(c))
				}
			}
			if w.chance(0.2) {
				t.sleep(w.delay()) // a view stays in use
			}
			p.discard(v)
		}
	case k < 17:
		list := t.pick(mine, w.between(1, 5))
		slices.SortFunc(list, func(a, b ids.ObjectID) int { return slices.Compare(a[:], b[:]) })
		list = slices.Compact(list)
		if len(list) == 0 {
			break
		}
		var patience time.Duration
		if !block || w.chance(0.3) {
			patience = w.delay() + time.Microsecond
		}
		t.wait(list, w.between(1, len(list)), w.chance(0.5), patience)
	default:
		for range w.rng.IntN(4) {
			if len(mine) > 0 {
				k := w.rng.IntN(len(mine))
				p.drop(mine[k])
				mine = slices.Delete(mine, k, k+1)
			}
		}
	}
	return mine
}

// drive is a driver's program; the first thread makes the functions, then starts the others.
func (p *proc) drive(t *thread) {
	w := p.w
	t.sleep(w.delay())
	if t.ch.Chan == 1 {
		fn := p.nextID(t).Object(p.job, 1)
		p.fn = p.own(fn)
		v := inlineValue(w.make(fn, nil), 40)
		p.write(func(e *engine.Engine) { e.Put(p.sid, fn, 0, nil, v) })
		if w.script != nil {
			t.recite()
			p.quiet++
			p.drop(p.fn)
			return
		}
		p.addSpecs()
		if w.cfg.Actors > 0 {
			p.addClasses()
		}
		for no := uint32(2); no <= uint32(1+w.rng.IntN(2)); no++ {
			p.openThread(no)
		}
	}
	var mine []ids.ObjectID
	if w.cfg.Each > 0 && t.ch.Chan == 1 {
		mine = t.makeMany()
	}
	for range w.cfg.Ops {
		mine = t.act(mine, p.specs, w.cfg.Depth, true)
		if w.chance(0.3) {
			t.sleep(w.delay())
		}
		if w.chance(0.05) {
			t.sleep(time.Duration(w.rng.IntN(1000)) * time.Millisecond)
		}
		for len(mine) > 60 {
			p.drop(mine[0])
			mine = mine[1:]
		}
	}
	for len(t.streams) > 0 {
		for w.chance(0.8) {
			items, ended := t.read(t.streams[0])
			mine = append(mine, items...)
			if ended {
				break
			}
		}
		t.leave(0)
	}
	if all := slices.DeleteFunc(slices.Clone(mine), func(id ids.ObjectID) bool { return w.shaky[id.Unique()] }); len(all) > 0 && w.chance(0.8) {
		for _, v := range t.get(all, 0) {
			p.discard(v)
		}
	}
	for _, id := range mine {
		p.drop(id)
	}
	if p.quiet++; p.quiet == len(p.threads) {
		w.tracef("%s: driver is done", p)
		p.drop(p.fn)
	}
}

// openThread starts a driver's thread with a channel of its own.
func (p *proc) openThread(no uint32) {
	t := p.start(no, p.drive)
	p.w.after(p.w.delay(), func() {
		if !p.alive {
			return
		}
		p.n.do(func(e *engine.Engine) {
			if !e.OpenChannel(t.ch) {
				p.w.failf("%s: channel %d could not be opened", p, no)
			}
		})
		t.resume()
	})
}

// Flags of an EXECUTE.
const (
	flagCreation = 0x10
	flagCall     = 0x20
)

// work is a worker's main thread.
func (p *proc) work(t *thread) {
	w := p.w
	for {
		for len(p.exec) == 0 {
			t.park()
		}
		t.sleep(w.delay() / 4)
		if len(p.exec) == 0 {
			continue // taken back meanwhile
		}
		k := p.exec[0]
		p.exec = p.exec[1:]
		switch k.kind {
		case packExecute:
			if k.size > 0 {
				if s, ok := p.n.store.read(k.at, k.size); !ok || s != k.stamp {
					w.failf("%s: the body of task %x is not what was written", p, uint64(k.x.u))
				}
			}
			switch {
			case k.x.flags&flagCreation != 0:
				t.construct(k.x)
			case k.x.flags&flagCall != 0:
				p.receive(t, k.x)
			default:
				t.run(k.x)
			}
		case packExit:
			for p.body != nil && len(p.threads) > 1 {
				t.park()
			}
			p.through = p.body != nil
			w.after(0, func() { p.kill(true) })
			for {
				t.park()
			}
		case packSetup, packTemplate:
		}
	}
}

// maybeDie kills the process here, in a world where workers crash.
func (t *thread) maybeDie() {
	w := t.p.w
	if !w.faults || !w.chance(w.cfg.Crash) {
		return
	}
	w.tracef("%s crashes", t.p)
	t.p.murdered()
	w.after(0, func() { t.p.kill(true) })
	for {
		t.park()
	}
}

// run executes one task.
func (t *thread) run(x *execute) {
	p, w := t.p, t.p.w
	w.started(p, x)
	t.path, t.kids = w.paths[x.u], 1000*int(x.attempt)
	p.running = run{x.u, x.attempt}
	if w.script != nil {
		t.runScripted(x)
		p.running, p.cancelled = run{}, false
		return
	}
	depth, leaf := int(x.args[8]), x.args[9] == 1
	mine, bad := t.open(x)
	fn := w.specs[string(p.n.eng.Template(x.tmpl))].fn
	if !p.fns[x.tmpl] && !leaf {
		for _, v := range t.get([]ids.ObjectID{fn}, 0) {
			if k := v.errorKind(); k != "" {
				bad = k
			}
			p.discard(v)
		}
		p.fns[x.tmpl] = true
	}
	t.maybeDie()
	if w.chance(0.4) {
		t.sleep(time.Duration(w.rng.IntN(50_000)) * time.Microsecond)
	} else {
		t.sleep(time.Duration(w.rng.IntN(300)) * time.Microsecond)
	}
	if bad == "" && !leaf {
		for _, v := range x.deps {
			for _, c := range v.contained {
				mine = append(mine, p.copyRef(c))
			}
		}
		for _, c := range p.globals {
			if w.chance(0.2) {
				mine = append(mine, p.copyRef(c))
			}
		}
		names := w.byJob[p.job]
		for range w.rng.IntN(4) {
			mine = t.act(mine, names, depth-1, true)
			if t.maybeDie(); p.cancelled && w.chance(0.8) {
				bad = string(fault.Cancelled)
				break
			}
		}
	}
	for len(t.streams) > 0 {
		t.leave(0)
	}
	if x.stream && bad == "" {
		bad = t.generate(x, mine)
	}
	p.running, p.cancelled = run{}, false
	t.result(x, bad, &mine)
	t.close(x, mine)
}

// result sends a task's outputs.
func (t *thread) result(x *execute, bad string, mine *[]ids.ObjectID) {
	p, w := t.p, t.p.w
	outcome := uint8(engine.OutcomeValues)
	switch {
	case bad != "":
		outcome = engine.OutcomeRaised
	case w.chance(0.05):
		outcome, bad = engine.OutcomeRaised, "RAISED"
	case w.chance(0.05):
		outcome, bad = engine.OutcomeRetry, "RAISED"
	}
	var outs []engine.Output
	returns := x.returns
	if x.stream {
		returns = 1
		if bad != "" {
			v := inlineValue(w.make(x.out(p, 1), nil), 0)
			outs = append(outs, engine.Output{Value: v, Size: uint64(len(v))})
		}
	}
	for k := range returns {
		id := x.out(p, k+1)
		if bad != "" {
			v := append([]byte{3}, bad...)
			if w.chance(0.1) && outcome == engine.OutcomeRetry {
				t.create(id, 5000) // and gives up what it has begun
			}
			// An exception may have refs in it, too.
			outs = append(outs, engine.Output{Status: 1, Value: v, Size: uint64(len(v)), Contained: t.pick(*mine, w.rng.IntN(2))})
			continue
		}
		contained := t.pick(*mine, w.rng.IntN(3))
		tag := w.make(id, contained)
		if w.chance(0.6) {
			v := inlineValue(tag, w.size(inlineMax-16))
			outs = append(outs, engine.Output{Value: v, Size: uint64(len(v)), Contained: contained})
			continue
		}
		size := uint64(inlineMax + w.size(w.cfg.Large))
		off, ok := t.create(id, size)
		if !ok {
			v := append([]byte{3}, "STORE_FULL"...)
			outs = append(outs, engine.Output{Status: 1, Value: v, Size: uint64(len(v))})
			continue
		}
		p.n.store.write(off, size, tag)
		outs = append(outs, engine.Output{Arena: true, Size: size, Contained: contained})
	}
	t.maybeDie()
	if s := w.specs[string(p.n.eng.Template(x.tmpl))]; s.calls == 1 && outcome == engine.OutcomeValues {
		outcome = engine.OutcomeLeaving
	}
	if c := w.calls[x.u]; c != nil && outcome == engine.OutcomeRetry {
		c.again = true
	}
	w.tracef("%s ends %x attempt %d outcome %d %s", p, uint64(x.u), x.attempt, outcome, bad)
	p.write(func(e *engine.Engine) { e.Result(p.sid, x.u, x.attempt, outcome, outs) })
	if outcome == engine.OutcomeLeaving {
		return
	}
}

// out is the id of an output.
func (x *execute) out(p *proc, index uint32) ids.ObjectID {
	if c := p.w.calls[x.u]; c != nil {
		task := c.info.id.Task(x.u)
		return task.Object(index)
	}
	return x.u.Object(p.job, index)
}

// inlineValue is a small value with a tag.
func inlineValue(tag uint64, pad int) []byte {
	return append(binary.LittleEndian.AppendUint64([]byte{0}, tag), make([]byte, pad)...)
}
