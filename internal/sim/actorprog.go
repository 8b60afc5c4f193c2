package sim

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"gray/internal/core/engine"
	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/core/ids"
	"gray/internal/core/resource"
)

// Programs with actors never block on what could wait for themselves either. A method never waits without a limit, so a
// call ends once its arguments are ready and it was sent; in an ordered queue also those before it must be. An id is
// firm if it becomes ready whatever programs do: a put, a handle, a call whose arguments are firm. Tasks give only firm
// arguments to ordered calls, and constructors get no others, so a queue waits only for what was submitted before.
// Drivers may give any; such a call's result is used as a task's is, by its path. Who holds a resource for life is either
// scoped (made, called and let go in one go) or shaky: nobody blocks on its results.

// class is a kind of actor of a job.
type class struct {
	create  string   // the name of the creation's template
	methods []string // of its methods'
	held    map[string]int64
	conc    int
	groups  map[string]int
	async   bool
	body    bool // it travels with its class, so it may be detached
	scoped  bool
	shaky   bool
	bound   bool // to a node
}

// ordered tells whether it runs one call at a time, on its main thread.
func (c *class) ordered() bool { return c.conc <= 1 && !c.async && len(c.groups) == 0 }

// fill makes a template one of a creation or of a method.
func (c *class) fill(n *node, s *spec, t *engine.TemplateSpec) {
	if s.method != "" {
		t.Fn, t.Method, t.Group, t.Ordered = ids.ObjectID{}, s.method, s.group, s.ordered
		return
	}
	held, err := n.names.Set(c.held)
	if err != nil {
		panic(err) // the names are constant
	}
	t.Actor = &engine.ActorLimits{Held: held, MaxConcurrency: c.conc, Groups: maps.Clone(c.groups), Async: c.async, Class: "C"}
	if c.body {
		t.Fn = ids.ObjectID{}
	}
}

// addClasses makes a job's classes.
func (p *proc) addClasses() {
	w := p.w
	add := func(c *class, s spec, ordered bool, retries ...int32) {
		k := len(w.classes[p.job])
		s.name = fmt.Sprintf("%s/C%d", p.job, k)
		s.job, s.fn, s.class, s.retries, s.packages = p.job, p.fn, c, 0, w.packages()
		w.specs[s.name] = s
		c.create = s.name
		for i, r := range retries {
			for _, g := range append(sorted(c.groups), "") {
				m := spec{name: fmt.Sprintf("%s.m%d%s", s.name, i, g), job: p.job, class: c, method: fmt.Sprint("m", i), group: g, ordered: ordered, retries: r}
				w.specs[m.name] = m
				c.methods = append(c.methods, m.name)
			}
		}
		w.classes[p.job] = append(w.classes[p.job], c)
	}
	cpu := spec{res: map[string]int64{"CPU": resource.Unit}}
	add(&class{conc: 1, body: true}, cpu, true, 0)
	add(&class{conc: 1}, cpu, true, 0, 3, -1)
	add(&class{conc: 1, body: true}, cpu, true, -1, 1)
	add(&class{conc: 1}, cpu, false, 0, 2)
	add(&class{conc: 3, body: true}, cpu, false, 0, 2)
	add(&class{conc: 1000, async: true, body: true}, cpu, false, 0, -1)
	add(&class{conc: 1, groups: map[string]int{"io": 2, "one": 1}}, cpu, true, 0, 1)
	add(&class{conc: 1, scoped: true, held: map[string]int64{"CPU": resource.Unit}}, cpu, true, 0, 2)
	if w.cfg.Each == 0 { // else not all nodes see where there is some
		add(&class{conc: 1, shaky: true, body: true, held: map[string]int64{"y": resource.Unit}}, spec{res: map[string]int64{"y": resource.Unit}}, true, 0, 2)
	}
	if w.cfg.Strategy {
		s := cpu
		s.kind, s.node, s.soft = resource.StrategyNode, w.nodes[w.rng.IntN(len(w.nodes))].id, w.chance(0.5)
		add(&class{conc: 1, bound: !s.soft}, s, true, 0, -1)
		s = cpu
		s.kind = resource.StrategySpread
		add(&class{conc: 1, body: true}, s, true, 0, -1)
	}
	if w.cfg.Custom {
		add(&class{conc: 1, scoped: true, held: map[string]int64{"GPU": resource.Unit / 2}}, spec{res: map[string]int64{"GPU": resource.Unit / 2}}, true, 0, 1)
	}
}

// names are few, so that there are races for them.
func (w *World) someName() string { return fmt.Sprint("n", w.rng.IntN(w.cfg.Names)) }

// actActor does one thing with actors.
func (t *thread) actActor(mine []ids.ObjectID, block bool) []ids.ObjectID {
	p, w := t.p, t.p.w
	switch k := w.rng.IntN(20); {
	case k < 5 && w.Stats.Actors < w.cfg.MaxActors:
		if cs := w.classes[p.job]; len(cs) > 0 {
			if c := cs[w.rng.IntN(len(cs))]; !c.scoped {
				mine = t.createActor(c, mine)
			}
		}
	case k < 7 && w.Stats.Actors < w.cfg.MaxActors:
		t.scoped()
	case k < 14:
		info, weak := t.pickActor(mine)
		if info == nil {
			break
		}
		n := w.between(1, 4)
		if w.chance(0.1) {
			n = 25
		}
		for range n {
			outs := t.callActor(info, weak, mine, true)
			if n > 4 { // a burst of which little is kept
				for len(outs) > 0 && w.chance(0.8) {
					p.drop(outs[0])
					outs = outs[1:]
				}
			}
			mine = append(mine, outs...)
		}
	case k < 15:
		t.lookup(w.someName())
	case k < 17:
		if info, _ := t.pickActor(mine); info != nil && w.chance(0.6) {
			t.killActor(info, w.chance(0.4))
		}
	case k < 18:
		t.cancel(mine)
	case k < 19:
		t.askAny(mine)
	default: // results of whatever stands, for a moment
		if len(mine) > 0 {
			for _, v := range t.get([]ids.ObjectID{mine[w.rng.IntN(len(mine))]}, w.delay()+time.Millisecond) {
				p.discard(v)
			}
		}
	}
	return mine
}

// pickActor draws an actor of which the program has a handle.
func (t *thread) pickActor(mine []ids.ObjectID) (info *actorInfo, weak bool) {
	w := t.p.w
	var have []*actorInfo
	for _, id := range mine {
		if a := w.actors[id.Unique()]; a != nil && !slices.Contains(have, a) {
			have = append(have, a)
		}
	}
	n := len(have)
	for _, id := range t.p.weak {
		have = append(have, w.actors[id.Unique()])
	}
	if len(have) == 0 {
		return nil, false
	}
	k := w.rng.IntN(len(have))
	return have[k], k >= n
}

// firmOf draws up to n firm refs.
func (t *thread) firmOf(mine []ids.ObjectID, n int) []ids.ObjectID {
	w := t.p.w
	return t.pick(slices.DeleteFunc(slices.Clone(mine), func(id ids.ObjectID) bool { return !w.firm[id.Unique()] }), n)
}

func (t *thread) argBytes(most int) []byte {
	w := t.p.w
	args := make([]byte, 10+w.size(most))
	binary.LittleEndian.PutUint64(args, w.rng.Uint64())
	return args
}

// createActor makes an actor, and a handle for it.
func (t *thread) createActor(c *class, mine []ids.ObjectID) []ids.ObjectID {
	w := t.p.w
	m := engine.ActorCreation{Class: "C", Chan: t.ch.Chan, Namespace: "ns"}
	if w.chance(0.3) && !c.scoped {
		m.Name, m.Spec.GetIfExists = w.someName(), w.chance(0.6)
	}
	if c.body {
		m.Spec.Detached = w.chance(0.3)
		m.Body = []byte("body")
	}
	m.Spec.MaxRestarts = []int32{0, 0, 1, 3, -1}[w.rng.IntN(5)]
	m.Args = t.argBytes(200)
	if !c.scoped && !c.shaky && (!m.Spec.Detached || w.chance(0.2)) {
		m.Deps, m.Contained = t.firmOf(mine, w.rng.IntN(3)), t.firmOf(mine, w.rng.IntN(2))
	}
	if !c.scoped {
		t.spend(len(m.Args) + 100)
	}
	return t.sendCreation(c, &m, mine)
}

// sendCreation has an actor made, and adds its handle to those that the program has.
func (t *thread) sendCreation(c *class, m *engine.ActorCreation, mine []ids.ObjectID) []ids.ObjectID {
	p, w := t.p, t.p.w
	m.Bytes = uint32(len(m.Args) + 100)
	m.Template = p.register(c.create)
	m.Unique = p.nextID(t)
	id := m.Unique.Actor(p.job)
	info := &actorInfo{id: id, class: c, job: p.job, name: m.Name, detached: m.Spec.Detached, restarts: m.Spec.MaxRestarts, manager: p.n, maker: p}
	w.actors[m.Unique] = info
	if m.Name != "" {
		w.named[m.Name] = append(w.named[m.Name], info)
	}
	w.firm[m.Unique] = true
	w.Stats.Actors++
	w.tracef("%s creates actor %x of %s name %q detached %v restarts %d deps %s", p, uint64(m.Unique), c.create, m.Name, m.Spec.Detached, m.Spec.MaxRestarts, shorts(m.Deps))
	p.own(id.Handle())
	if m.Name == "" && !m.Spec.Detached {
		p.write(func(e *engine.Engine) { e.CreateActor(p.sid, m) })
		return append(mine, id.Handle())
	}
	a := t.begin(fmt.Sprintf("create actor %x", uint64(m.Unique)))
	m.Req = a.req
	p.write(func(e *engine.Engine) { e.CreateActor(p.sid, m) })
	for a.reply == nil && a.failed == "" {
		t.park()
	}
	t.finish()
	r, ok := a.reply.(actorReply)
	if ok && r.created {
		return append(mine, id.Handle())
	}
	delete(p.refs, id.Handle()) // the daemon took the delivery back
	info.doomed = "its name was taken"
	if ok {
		if !m.Spec.GetIfExists {
			w.failf("%s: the name %q went to actor %s, and nobody asked for that", p, m.Name, r.id)
		}
		p.knows(r.id)
	}
	return mine
}

// knows adds a weak handle.
func (p *proc) knows(id ids.ActorID) {
	if p.w.actors[id.Unique()] == nil {
		p.w.failf("%s is told of actor %s, which nobody made", p, id)
		return
	}
	if !slices.Contains(p.weak, id) {
		if p.weak = append(p.weak, id); len(p.weak) > 20 {
			p.weak = p.weak[1:]
		}
	}
}

// makeMany is a driver's program in a world that is about actors: it makes them one after the other, calls each, hands
// some on, kills some, and holds no more than a few.
func (t *thread) makeMany() (mine []ids.ObjectID) {
	p, w := t.p, t.p.w
	for range w.cfg.Each {
		cs := w.classes[p.job]
		c := cs[w.rng.IntN(len(cs))]
		if c.scoped {
			t.scoped()
			continue
		}
		n := len(mine)
		if mine = t.createActor(c, mine); len(mine) == n {
			continue // its name was taken
		}
		info := w.actors[mine[n].Unique()]
		for range w.between(1, 3) {
			mine = append(mine, t.callActor(info, false, mine, true)...)
		}
		switch w.rng.IntN(8) {
		case 0:
			t.killActor(info, w.chance(0.5))
			mine = append(mine, t.callActor(info, false, mine, true)...)
		case 1:
			t.lookup(w.someName())
			if info, weak := t.pickActor(nil); info != nil {
				mine = append(mine, t.callActor(info, weak, mine, true)...)
			}
		case 2:
			mine = append(mine, t.submit(p.specs[w.rng.IntN(2)], 0, nil, mine[n:n+1])...)
		case 3, 4:
			if list := t.pick(mine, 3); len(list) > 0 {
				for _, v := range t.get(list, 0) {
					p.discard(v)
				}
			}
		}
		for len(mine) > 40 {
			p.drop(mine[0])
			mine = mine[1:]
		}
		if w.chance(0.5) {
			t.sleep(20 * w.delay())
		}
	}
	return mine
}

// scoped makes an actor that holds a resource, calls it and lets it go; what it holds comes back whatever others do.
func (t *thread) scoped() {
	p, w := t.p, t.p.w
	var of []*class
	for _, c := range w.classes[p.job] {
		if c.scoped {
			of = append(of, c)
		}
	}
	if len(of) == 0 {
		return
	}
	t.spend(5 * 400) // nothing may wait once it is made
	mine := t.createActor(of[w.rng.IntN(len(of))], nil)
	info := w.actors[mine[0].Unique()]
	for range w.rng.IntN(4) {
		mine = append(mine, t.callActor(info, false, nil, false)...)
	}
	p.drop(mine[0])
	mine = mine[1:]
	if len(mine) > 0 && w.chance(0.7) {
		for _, v := range t.get(mine, 10*w.delay()+time.Millisecond) {
			p.discard(v)
		}
	}
	for _, id := range mine {
		p.drop(id)
	}
}

type queueKey struct {
	actor ids.Unique
	group string
}

// callActor calls one of the actor's methods.
func (t *thread) callActor(info *actorInfo, weak bool, mine []ids.ObjectID, credit bool) []ids.ObjectID {
	p, w := t.p, t.p.w
	c := info.class
	s := w.specs[c.methods[w.rng.IntN(len(c.methods))]]
	var deps, contained []ids.ObjectID
	most := 200
	if !c.scoped && !c.shaky {
		most = 2000
		if p.driver && w.chance(0.3) || !s.ordered {
			deps = t.pick(mine, w.rng.IntN(3))
		} else {
			deps = t.firmOf(mine, w.rng.IntN(3))
		}
		contained = t.pick(mine, w.size(2))
	}
	args := t.argBytes(most)
	if most == 2000 && w.chance(0.01) {
		args = make([]byte, 100_000+w.rng.IntN(30_000))
	}
	args[8] = byte(w.rng.IntN(2))
	if credit {
		t.spend(len(args) + 100)
	}
	u := p.nextID(t)
	m := engine.ActorSubmission{Actor: info.id, Weak: weak, Submission: engine.Submission{
		Template: p.register(s.name), Unique: u, Returns: uint32([]int{1, 1, 1, 2, 0}[w.rng.IntN(5)]), Deps: deps, Contained: contained,
		Args: args, Bytes: uint32(len(args) + 100),
	}}
	stream := !c.shaky && w.chance(0.15)
	if stream {
		m.Flags, m.Returns = engine.FlagStream, 1
	}
	retries := s.retries
	if w.chance(0.1) {
		r := int32(w.rng.IntN(3))
		m.Over.MaxRetries, m.Over.Raw, retries = &r, []byte{byte(r)}, r
	}
	firm := !slices.ContainsFunc(deps, func(id ids.ObjectID) bool { return !w.firm[id.Unique()] })
	if s.ordered && p.loose[info.id.Unique()] {
		firm = false
	}
	if !firm {
		p.loose[info.id.Unique()] = true
	}
	switch {
	case c.shaky:
		w.shaky[u] = true
	case firm:
		w.firm[u] = true
	}
	outs := t.sendCall(info, &m, s, retries)
	if stream {
		t.streams = append(t.streams, &reading{outs[0], 2})
		return nil
	}
	return outs
}

// sendCall calls an actor, and owns the outputs.
func (t *thread) sendCall(info *actorInfo, m *engine.ActorSubmission, s spec, retries int32) (outs []ids.ObjectID) {
	p, w := t.p, t.p.w
	k := queueKey{info.id.Unique(), s.group}
	p.seqs[k]++
	w.tasks[m.Unique] = &called{retries: retries}
	w.calls[m.Unique] = &callInfo{info: info, weak: m.Weak, from: p, group: s.group, ordered: s.ordered, seq: p.seqs[k]}
	w.Stats.Calls++
	w.tracef("%s calls %x of actor %x (%s) no %d weak %v deps %s contained %s returns %d retries %d", p, uint64(m.Unique), uint64(info.id.Unique()), s.name, p.seqs[k], m.Weak, shorts(m.Deps), shorts(m.Contained), m.Returns, retries)
	task := info.id.Task(m.Unique)
	for k := range m.Returns {
		outs = append(outs, p.own(task.Object(k+1)))
	}
	p.write(func(e *engine.Engine) { e.CallActor(p.sid, m) })
	return outs
}

// question asks the daemon something that it, or the head, answers.
func (t *thread) question(doing string, f func(e *engine.Engine, req uint32)) any {
	a := t.begin(doing)
	t.p.write(func(e *engine.Engine) { f(e, a.req) })
	for a.reply == nil {
		t.park()
	}
	t.finish()
	return a.reply
}

// lookup is get_actor.
func (t *thread) lookup(name string) {
	p := t.p
	r := t.question("get actor "+name, func(_ *engine.Engine, req uint32) {
		p.n.question(t.ch, req, &headstate.ActorGet{Name: name, Namespace: "ns"})
	})
	if g, ok := r.(*headstate.ActorGot); ok && g.Found {
		if a := p.w.actors[g.Row.ID.Unique()]; a != nil && a.name != name {
			p.w.failf("%s asks for %q and gets actor %s, whose name is %q", p, name, g.Row.ID, a.name)
		}
		p.knows(g.Row.ID)
	}
}

// killActor is ray.kill.
func (t *thread) killActor(info *actorInfo, noRestart bool) {
	p, w := t.p, t.p.w
	w.Stats.Kills++
	w.tracef("%s kills actor %x, no restart %v", p, uint64(info.id.Unique()), noRestart)
	info.losses++
	if noRestart {
		info.doomed = "it was killed"
	}
	t.question(fmt.Sprintf("kill actor %x", uint64(info.id.Unique())), func(e *engine.Engine, req uint32) { p.n.killActor(e, t.ch, req, info.id, noRestart) })
}

// askAny asks what people ask.
func (t *thread) askAny(mine []ids.ObjectID) {
	p, w := t.p, t.p.w
	if info, _ := t.pickActor(mine); info != nil && w.chance(0.5) {
		t.question("pending calls", func(e *engine.Engine, req uint32) { p.n.reply(t.ch, req, e.PendingCalls(p.sid, info.id)) })
		return
	}
	t.question("names", func(_ *engine.Engine, req uint32) { p.n.question(t.ch, req, &headstate.ActorNames{Namespace: "ns"}) })
}

// body is what an actor's worker has of its actor.
type body struct {
	info      *actorInfo
	life      *life
	last      map[orderKey]int
	running   map[string]int        // calls of each group
	waiting   map[string][]*execute // for a thread of the group
	cancelled map[run]bool
	threads   uint32
}

type run struct {
	u       ids.Unique
	attempt uint32
}

type orderKey struct {
	from  *proc
	group string
}

// embody makes a worker an actor's.
func (p *proc) embody(s *engine.Setup) {
	w := p.w
	info := w.actors[s.Actor.ID.Unique()]
	p.body = &body{info: info, last: map[orderKey]int{}, running: map[string]int{}, waiting: map[string][]*execute{}, cancelled: map[run]bool{}}
	p.weak = append(p.weak, info.id)
	w.housed(p, s)
	if w.faults && w.chance(w.cfg.Murder) {
		w.after(time.Duration(w.rng.IntN(60_000))*time.Microsecond*time.Duration(1+w.rng.IntN(10)), func() {
			if p.alive && w.faults {
				w.tracef("%s is killed", p)
				p.murdered()
				p.kill(true)
			}
		})
	}
}

func (p *proc) murdered() {
	p.w.Stats.Crashes++
	if p.body != nil {
		p.body.info.losses++
	}
}

// open takes what came with a task: its refs are the program's.
func (t *thread) open(x *execute) (mine []ids.ObjectID, bad string) {
	p := t.p
	for _, v := range x.deps {
		p.take(v)
		if k := v.errorKind(); k != "" {
			bad = k
		}
	}
	for _, id := range x.contained {
		p.deliver(id)
		mine = append(mine, id)
	}
	return mine, bad
}

// construct runs an actor's constructor.
func (t *thread) construct(x *execute) {
	p, w := t.p, t.p.w
	b := p.body
	w.born(p, x)
	t.path, t.kids = w.paths[x.u], 1000*int(x.attempt)
	if w.script != nil {
		t.bear(x)
		return
	}
	mine, bad := t.open(x)
	if !b.info.class.body {
		for _, v := range t.get([]ids.ObjectID{w.specs[b.info.class.create].fn}, 0) {
			if k := v.errorKind(); k != "" {
				bad = k
			}
			p.discard(v)
		}
	}
	t.maybeDie()
	t.sleep(time.Duration(w.rng.IntN(5_000)) * time.Microsecond)
	if w.chance(0.1) {
		t.sleep(time.Duration(w.rng.IntN(500)) * time.Millisecond)
	}
	if bad == "" && w.chance(0.2) && !b.info.class.scoped {
		mine = t.act(mine, w.byJob[p.job], 0, false)
	}
	t.maybeDie()
	outcome, value := uint8(engine.OutcomeValues), "ok"
	switch {
	case bad != "" || w.chance(0.03):
		outcome, value = engine.OutcomeRaised, "raised "+bad
		b.info.doomed = "its constructor raised " + bad
	case w.chance(0.02):
		outcome, value = engine.OutcomeExit, ""
		b.info.doomed = "its constructor left"
	}
	w.tracef("%s: the constructor of %x ends: %d %s", p, uint64(x.u), outcome, value)
	p.write(func(e *engine.Engine) {
		e.Result(p.sid, x.u, x.attempt, outcome, []engine.Output{{Value: []byte(value), Size: uint64(len(value))}})
	})
	t.close(x, mine)
	if outcome == engine.OutcomeExit {
		p.exit(t)
	}
}

// close drops a task's refs; an actor keeps some of them.
func (t *thread) close(x *execute, mine []ids.ObjectID) {
	p, w := t.p, t.p.w
	for _, v := range x.deps {
		p.discard(v)
	}
	for _, id := range mine {
		if w.chance(0.15) && w.faults && len(p.globals) < 10 && id.Job() == p.job {
			p.globals = append(p.globals, id)
		} else {
			p.drop(id)
		}
	}
	for len(p.globals) > 0 && w.chance(0.2) {
		p.drop(p.globals[0])
		p.globals = p.globals[1:]
	}
	t.path = ""
}

// exit ends the process on purpose: what it wrote is read.
func (p *proc) exit(t *thread) {
	p.w.Stats.Exits++
	p.through = true
	p.w.after(p.w.delay(), func() { p.kill(true) })
	for {
		t.park()
	}
}

// receive takes a call: to be run now, or by a thread of its own.
func (p *proc) receive(t *thread, x *execute) {
	w, b := p.w, p.body
	c := w.calls[x.u]
	if w.ordered(p, c, x); w.fail != nil {
		return
	}
	if b.info.class.ordered() {
		t.perform(x)
		return
	}
	limit, ok := b.info.class.groups[c.group]
	if !ok {
		limit = b.info.class.conc
	}
	switch {
	case limit <= 1 || b.running[c.group] < limit:
	case b.info.class.async:
		w.failf("%s: %d calls of group %q at once, the limit is %d", p, b.running[c.group]+1, c.group, limit)
	default:
		b.waiting[c.group] = append(b.waiting[c.group], x)
		return
	}
	p.thread(x, c.group)
}

// thread runs a call in a thread of its group, and then those that wait for one.
func (p *proc) thread(x *execute, group string) {
	w, b := p.w, p.body
	b.running[group]++
	b.threads++
	no := b.threads
	et := p.start(no, func(et *thread) {
		et.perform(x)
		if b.running[group]--; len(b.waiting[group]) > 0 {
			next := b.waiting[group][0]
			b.waiting[group] = b.waiting[group][1:]
			w.after(0, func() {
				if p.alive {
					p.thread(next, group)
				}
			})
		}
		w.after(0, func() {
			if p.alive {
				delete(p.threads, no)
				p.n.do(func(e *engine.Engine) { e.CloseChannel(et.ch) })
				p.threads[0].resume()
			}
		})
	})
	w.after(w.delay()/4, func() {
		if !p.alive {
			return
		}
		ok := false
		if p.n.do(func(e *engine.Engine) { ok = e.OpenChannel(et.ch) }); ok {
			et.resume()
		}
	})
}

// perform runs a call.
func (t *thread) perform(x *execute) {
	p, w, b := t.p, t.p.w, t.p.body
	w.started(p, x)
	t.path, t.kids = w.paths[x.u], 1000*int(x.attempt)
	if w.script != nil {
		t.performScripted(x)
		return
	}
	mine, bad := t.open(x)
	t.maybeDie()
	if w.chance(0.3) {
		t.sleep(time.Duration(w.rng.IntN(30_000)) * time.Microsecond)
	} else {
		t.sleep(time.Duration(w.rng.IntN(300)) * time.Microsecond)
	}
	if bad == "" && !b.info.class.scoped {
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
		for range w.rng.IntN(3) {
			mine = t.act(mine, w.byJob[p.job], int(x.args[8])-1, false)
			t.maybeDie()
		}
	}
	if b.cancelled[run{x.u, x.attempt}] && b.info.class.async {
		bad = string(fault.Cancelled)
	}
	if bad == "" && w.chance(0.01) {
		b.info.doomed = "it left"
		w.tracef("%s: the actor leaves with %x", p, uint64(x.u))
		outs := make([]engine.Output, x.returns)
		p.write(func(e *engine.Engine) { e.Result(p.sid, x.u, x.attempt, engine.OutcomeExit, outs) })
		p.exit(t)
	}
	for len(t.streams) > 0 {
		t.leave(0)
	}
	if x.stream && bad == "" {
		bad = t.generate(x, mine)
	}
	t.result(x, bad, &mine)
	t.close(x, mine)
}
