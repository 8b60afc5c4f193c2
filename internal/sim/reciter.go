package sim

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"gray/internal/core/engine"
	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

// reciter carries out one body of a script.
type reciter struct {
	t       *thread
	env     map[string]any // refs, *actorInfo and *yielding, by the names of the statements that made them
	answers map[string]any
}

var plainTask = keyOf(1.0, false)

// yielding is a generator that is being read.
type yielding struct {
	r     *reading
	items []ids.ObjectID // handed over, not yet read
	ended bool
}

// perform carries out statements. One that mentions what is not there is left out.
func (r *reciter) perform(body []*statement) {
	for _, s := range body {
		if w := r.t.p.w; w.fail == nil && !slices.ContainsFunc(s.needs(), func(n string) bool { return r.env[n] == nil }) {
			r.do(s)
		}
	}
}

// needs lists the names that a statement mentions.
func (s *statement) needs() (names []string) {
	if s.Op == "put" {
		return s.what().Refs
	}
	names = s.of()
	for k := range s.Args {
		names = append(names, s.Args[k].names()...)
	}
	return names
}

// of is what the statement is about.
func (s *statement) of() (names []string) {
	var one string
	if json.Unmarshal(s.Of, &one) == nil && one != "" {
		return []string{one}
	}
	_ = json.Unmarshal(s.Of, &names) // null, or a list
	return names
}

// count is N, or -1 where it is null.
func (s *statement) count() int {
	n := -1
	_ = json.Unmarshal(s.N, &n)
	return n
}

// stuff is what a put stores.
type stuff struct {
	Refs  []string
	Bytes int
}

// what is a put's value.
func (s *statement) what() (v stuff) {
	_ = json.Unmarshal(s.What, &v)
	return v
}

func (r *reciter) ref(name string) ids.ObjectID { return r.env[name].(ids.ObjectID) }

func (r *reciter) actor(s *statement) *actorInfo { return r.env[s.of()[0]].(*actorInfo) }

// do carries out one statement.
func (r *reciter) do(s *statement) {
	t, p := r.t, r.t.p
	switch s.Op {
	case "put":
		var value any
		if what := s.what(); what.Refs != nil {
			list := []any{}
			for _, n := range what.Refs {
				list = append(list, r.ref(n))
			}
			value = list
		} else {
			value = pattern(what.Bytes, s.ID)
		}
		r.env[s.ID] = r.put(value)
	case "call":
		outs := r.call(s, &scriptCall{do: "task", s: s}, p.w.script.specs[keyOf(s.Cpus, s.Spread)], s.Returns, 0, nil)
		if len(outs) > 1 {
			for k, id := range outs {
				r.env[fmt.Sprintf("%s_%d", s.ID, k)] = id
			}
			p.copyRef(outs[len(outs)-1])
		}
		r.env[s.ID] = outs[len(outs)-1]
	case "actor":
		r.env[s.ID] = r.create(s.ID, keyOf(s.Kind, s.Spread), s.Named)
	case "method":
		ref := r.ask(r.actor(s), s, s.Method)
		if r.env[s.ID] = ref; s.Wait {
			r.answers[s.ID] = r.value(ref)
		}
	case "total":
		r.settle(s.After)
		r.answers[s.ID] = r.asked(r.actor(s), s, "total")
	case "gen":
		r.env[s.ID] = r.generator(s)
	case "read":
		r.answers[s.ID] = r.read(r.env[s.of()[0]].(*yielding), s.count())
	case "get":
		r.answers[s.ID] = r.value(r.ref(s.of()[0]))
	case "wait":
		var list []ids.ObjectID
		for _, n := range s.of() {
			if id := r.ref(n); !slices.Contains(list, id) {
				list = append(list, id)
			}
		}
		n := min(s.count(), len(list))
		t.wait(list, n, true, 0)
		r.answers[s.ID] = []any{int64(n), int64(len(list) - n)}
	case "flaky":
		c := &scriptCall{do: "flaky", s: s, actors: map[int]*actorInfo{0: r.actor(s)}}
		r.env[s.ID] = r.call(s, c, p.w.script.specs[plainTask], 1, 0, &s.Retries)[0]
	case "cancel":
		r.answers[s.ID] = r.cancelled(s)
	case "kill":
		r.settle(s.After)
		for _, n := range sorted(r.env) {
			if strings.HasPrefix(n, "gen") { // it may be the actor's
				r.forget(n)
			}
		}
		t.killActor(r.actor(s), true)
		r.answers[s.ID] = r.asked(r.actor(s), s, "total")
	case "drop":
		r.forget(s.of()[0])
	default:
		p.w.failf("a script with %q", s.Op)
	}
}

// settle waits for what is named, and for all calls here.
func (r *reciter) settle(names []string) {
	for _, n := range sorted(r.env) {
		if strings.HasPrefix(n, "method") || strings.HasPrefix(n, "flaky") || strings.HasPrefix(n, "call") {
			names = append(slices.Clone(names), n)
		}
	}
	for _, n := range names {
		if id, ok := r.env[n].(ids.ObjectID); ok {
			r.value(id)
		}
	}
}

// got is an object's value, or the kind of its error.
func (r *reciter) got(id ids.ObjectID) (value any, bad string) {
	p := r.t.p
	if p.cancelled { // before it came here
		return nil, string(fault.Cancelled)
	}
	vals := r.t.get([]ids.ObjectID{id}, 0)
	if p.cancelled {
		bad = string(fault.Cancelled)
	}
	for _, v := range vals {
		if bad = v.errorKind(); bad == "" {
			value = p.w.valueOf(p, v)
		}
		p.discard(v)
	}
	return value, bad
}

// value is what a get gives: the digest of the value, refs in it followed, or the word for the error.
func (r *reciter) value(id ids.ObjectID) any {
	p := r.t.p
	vals := r.t.get([]ids.ObjectID{id}, 0)
	if len(vals) != 1 {
		p.w.failf("%s: a get of %s gave %d values", p, short(id), len(vals))
		return nil
	}
	defer p.discard(vals[0]) // refs in it are followed while it is held
	if bad := vals[0].errorKind(); bad != "" {
		return kindWord(bad)
	}
	return r.followed(p.w.valueOf(p, vals[0]))
}

func (r *reciter) followed(value any) any {
	switch v := value.(type) {
	case ids.ObjectID:
		return r.value(v)
	case []any:
		list := make([]any, len(v))
		for k, x := range v {
			list[k] = r.followed(x)
		}
		return digest(list)
	}
	return digest(value)
}

func (r *reciter) put(value any) ids.ObjectID {
	p := r.t.p
	id := p.own(p.nextID(r.t).Object(p.job, 1))
	out := r.output(id, value)
	if out.Arena {
		p.write(func(e *engine.Engine) { e.Seal(p.sid, id, 0, nil) })
	} else {
		p.write(func(e *engine.Engine) { e.Put(p.sid, id, 0, out.Contained, out.Value) })
	}
	return id
}

// arguments are the refs whose values are passed, and those that are passed themselves; actors' handles are among these.
func (r *reciter) arguments(s *statement, c *scriptCall) (deps, contained []ids.ObjectID) {
	for k := range s.Args {
		switch a := &s.Args[k]; {
		case a.Value != "":
			deps = append(deps, r.ref(a.Value))
		case a.Actor != "":
			if c.actors == nil {
				c.actors = map[int]*actorInfo{}
			}
			c.actors[k] = r.env[a.Actor].(*actorInfo)
		default:
			for _, n := range a.Refs {
				contained = append(contained, r.ref(n))
			}
		}
	}
	for _, k := range sorted(c.actors) {
		contained = append(contained, c.actors[k].id.Handle())
	}
	return deps, contained
}

// call submits a task.
func (r *reciter) call(s *statement, c *scriptCall, template string, returns uint32, flags uint16, retries *int32) []ids.ObjectID {
	t, p := r.t, r.t.p
	deps, contained := r.arguments(s, c)
	u := p.nextID(t)
	p.w.script.calls[u] = c
	args := make([]byte, 10+p.w.size(2000))
	t.spend(len(args) + 100)
	m := &engine.Submission{Template: p.register(template), Unique: u, Returns: returns, Flags: flags, Deps: deps, Contained: contained, Args: args, Bytes: uint32(len(args) + 100)}
	most := int32(3)
	if retries != nil {
		most = *retries
		m.Over.MaxRetries, m.Over.Raw = retries, []byte{byte(most)}
	}
	return t.send(m, template, most, 0)
}

// create makes an actor.
func (r *reciter) create(id, kind string, named bool) *actorInfo {
	t, w := r.t, r.t.p.w
	m := &engine.ActorCreation{Class: "C", Chan: t.ch.Chan, Namespace: "ns", Body: []byte("body")}
	m.Args = make([]byte, 10+w.size(200))
	if named {
		m.Name = fmt.Sprintf("%s of %x", id, uint64(t.p.next))
	}
	t.spend(len(m.Args) + 100)
	made := t.sendCreation(w.script.classes[kind], m, nil)
	if len(made) == 0 {
		w.failf("%s: actor %s was not made", t.p, id)
		return nil
	}
	w.script.states[made[0].Unique()] = &scriptedState{tries: map[string]int64{}}
	return w.actors[made[0].Unique()]
}

// ask calls a method with the statement's arguments.
func (r *reciter) ask(info *actorInfo, s *statement, method string) ids.ObjectID {
	return r.submit(info, &scriptCall{do: method, s: s, name: s.ID}, 0)
}

// asked is what a method gives.
func (r *reciter) asked(info *actorInfo, s *statement, method string) any {
	id := r.ask(info, s, method)
	defer r.t.p.drop(id)
	return r.value(id)
}

func (r *reciter) submit(info *actorInfo, c *scriptCall, flags uint16) ids.ObjectID {
	t, p := r.t, r.t.p
	deps, contained := r.arguments(c.s, c)
	s := p.w.specs[info.class.methods[0]]
	args := make([]byte, 10+p.w.size(2000))
	t.spend(len(args) + 100)
	m := &engine.ActorSubmission{Actor: info.id, Submission: engine.Submission{
		Template: p.register(s.name), Unique: p.nextID(t), Returns: 1, Flags: flags, Deps: deps, Contained: contained, Args: args, Bytes: uint32(len(args) + 100),
	}}
	p.w.script.calls[m.Unique] = c
	return t.sendCall(info, m, s, 0)[0]
}

// generator calls one, of a task or of an actor.
func (r *reciter) generator(s *statement) *yielding {
	c := &scriptCall{do: "items", s: s}
	if of := s.of(); of != nil {
		return &yielding{r: &reading{r.submit(r.env[of[0]].(*actorInfo), c, engine.FlagStream), 2}}
	}
	template := plainTask
	if s.Bound != nil {
		template = keyOf("bound", *s.Bound) // it needs no CPU: it may wait for its reader as long as the program lives
	}
	return &yielding{r: &reading{r.call(s, c, r.t.p.w.script.specs[template], 1, engine.FlagStream, nil)[0], 2}}
}

// read reads up to n items, or all.
func (r *reciter) read(g *yielding, n int) any {
	out := []any{}
	for n < 0 || len(out) < n {
		for len(g.items) == 0 && !g.ended {
			g.items, g.ended = r.t.read(g.r)
		}
		if len(g.items) == 0 {
			return append(out, "end")
		}
		out = append(out, r.value(g.items[0]))
		r.t.p.drop(g.items[0])
		g.items = g.items[1:]
	}
	return out
}

// cancelled cancels something that never ends, and says what becomes of it.
func (r *reciter) cancelled(s *statement) any {
	t, p := r.t, r.t.p
	blocker := r.create(s.ID, keyOf("async", false), false)
	none := &statement{ID: s.ID}
	held := []ids.ObjectID{blocker.id.Handle(), r.ask(blocker, none, "block")}
	var how string
	_ = json.Unmarshal(s.What, &how)
	switch how {
	case "waits": // a task that waits for its argument
		r.env["never"] = held[1]
		held = append(held, r.call(&statement{ID: s.ID, Args: []argument{{Value: "never"}}}, &scriptCall{do: "after", s: s}, p.w.script.specs[plainTask], 1, 0, nil)[0])
	case "blocked": // a task that waits for it in a get
		r.env["never"] = held[1]
		held = append(held, r.call(&statement{ID: s.ID, Args: []argument{{Refs: []string{"never"}}}}, &scriptCall{do: "waits", s: s}, p.w.script.specs[plainTask], 1, 0, nil)[0])
		r.asked(blocker, none, "reached")
	}
	delete(r.env, "never")
	victim := held[len(held)-1]
	t.cancelOne(victim, engine.Cancelling{Recursive: true})
	answer := r.value(victim)
	t.killActor(blocker, true)
	for _, id := range held {
		p.drop(id)
	}
	return answer
}

// task is what a task of a script does: its body, then its answer.
func (r *reciter) task(c *scriptCall, x *execute, mine []ids.ObjectID) (value any, bad string) {
	p, s := r.t.p, c.s
	at := 0
	for k := range s.Args {
		for j := range s.Args[k].Refs {
			r.env[fmt.Sprintf("_%d_%d", k, j)] = p.copyRef(mine[at])
			at++
		}
	}
	for _, k := range sorted(c.actors) {
		p.copyRef(c.actors[k].id.Handle())
		r.env[fmt.Sprintf("_%d", k)] = c.actors[k]
	}
	r.perform(s.Body)
	for _, b := range s.Body { // who asks for a sum waits for this task, not for those below it
		if id, ok := r.env[b.ID].(ids.ObjectID); ok && slices.ContainsFunc(b.Args, func(a argument) bool { return a.Actor != "" }) {
			r.value(id)
		}
	}
	plain := []any{}
	for _, v := range r.literal(c, x) {
		plain = append(plain, r.followed(v))
	}
	if s.Fails {
		return nil, "RAISED"
	}
	items := []any{}
	for _, k := range sorted(r.answers) {
		items = append(items, []any{k, r.answers[k]})
	}
	value = digest([]any{s.ID, items, plain})
	if s.Big {
		value = pattern(big, fmt.Sprint(value))
	}
	if s.GivesRef {
		r.env["given"] = r.put(value)
		value = []any{r.ref("given")}
	}
	return value, ""
}

// literal lists the arguments that came as values; of a method's, lists of refs, too.
func (r *reciter) literal(c *scriptCall, x *execute) (list []any) {
	deps := x.deps
	for k := range c.s.Args {
		switch a := &c.s.Args[k]; {
		case a.Int != nil:
			list = append(list, *a.Int)
		case a.Value != "":
			list = append(list, r.t.p.w.valueOf(r.t.p, deps[0]))
			deps = deps[1:]
		case a.Refs != nil && c.do != "task":
			refs := []any{}
			for range a.Refs {
				refs = append(refs, ids.ObjectID{})
			}
			list = append(list, refs)
		}
	}
	return list
}

// flaky is a task that fails for some attempts, which an actor counts.
func (r *reciter) flaky(c *scriptCall) (value any, bad string) {
	id := r.ask(c.actors[0], &statement{ID: c.s.ID}, "tried")
	defer r.t.p.drop(id)
	if value, bad = r.got(id); bad != "" {
		return nil, bad
	}
	if value.(int64) <= int64(c.s.count()) {
		return nil, "RAISED"
	}
	return c.s.ID, ""
}

// items is a generator; it returns what it raises.
func (r *reciter) items(c *scriptCall, x *execute) string {
	t, p := r.t, r.t.p
	s, index := c.s, x.returns+2
	fails := func(k int) bool { return s.FailsAt != nil && *s.FailsAt == k }
	for k := range s.count() {
		if fails(k) {
			return "RAISED"
		}
		if s.Bound != nil {
			t.credit(x, index)
		}
		t.pause()
		out := r.output(x.out(p, index), patternOf(s.Big, fmt.Sprintf("%s.%d.%d", s.ID, k, len(s.Args))))
		at := index
		p.w.Stats.Items++
		p.write(func(e *engine.Engine) { e.Item(p.sid, x.u, x.attempt, at, &out) })
		index++
	}
	if fails(s.count()) {
		return "RAISED"
	}
	return ""
}

// forget ends a name.
func (r *reciter) forget(name string) {
	p := r.t.p
	switch v := r.env[name].(type) {
	case ids.ObjectID:
		p.drop(v)
	case *actorInfo:
		p.drop(v.id.Handle())
	case *yielding:
		for _, id := range v.items {
			p.drop(id)
		}
		gen := v.r.gen
		p.write(func(e *engine.Engine) { e.DropStream(p.sid, gen) })
		p.drop(gen)
	}
	delete(r.env, name)
}

// end forgets all names.
func (r *reciter) end() {
	for _, n := range sorted(r.env) {
		r.forget(n)
	}
}
