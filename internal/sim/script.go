package sim

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"gray/internal/core/engine"
	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/core/resource"
)

// A script is a program whose answers do not depend on when things happen, as test/metamorphic makes them: its statements
// are carried out as a client of Gray would, in a world that delays everything by chance and loses nothing.
type script struct {
	body    []*statement
	answers map[string]any
	values  map[uint64]any                // of objects, by what stands for their bytes
	calls   map[ids.Unique]*scriptCall    // what a task or call is to do
	states  map[ids.Unique]*scriptedState // of actors
	specs   map[string]string             // functions' templates, by options
	classes map[string]*class             // by kind
}

// statement is one of a script. Of is a name, a list of names or null; What differs by Op.
type statement struct {
	ID, Op, Kind, Method string
	Of, What, N          json.RawMessage
	Args                 []argument
	Cpus                 float64
	Spread, Named        bool
	Returns              uint32
	Fails, Big           bool
	GivesRef             bool `json:"gives_ref"`
	Wait                 bool
	Retries              int32
	FailsAt              *int `json:"fails_at"`
	Bound                *uint32
	After                []string
	Body                 []*statement
}

// argument is one of: a number, the value of a ref, a list of refs, an actor's handle.
type argument struct {
	Int   *int64
	Value string
	Refs  []string
	Actor string
}

func (a *argument) names() []string {
	if a.Refs != nil {
		return a.Refs
	}
	if name := a.Value + a.Actor; name != "" {
		return []string{name}
	}
	return nil
}

// scriptCall is what a task or a call has to do, and the literals among its arguments.
type scriptCall struct {
	do     string
	s      *statement
	name   string // of a method's call: it is part of the state
	actors map[int]*actorInfo
}

type scriptedState struct {
	chained, sum int64
	tries        map[string]int64
}

// Play has a world's driver carry a script out, and gives its answers; each world plays one.
func (w *World) Play(program []byte) (map[string]any, error) {
	s := &script{
		values: map[uint64]any{}, calls: map[ids.Unique]*scriptCall{}, states: map[ids.Unique]*scriptedState{}, specs: map[string]string{}, classes: map[string]*class{},
	}
	if err := json.Unmarshal(program, &s.body); err != nil {
		return nil, err
	}
	w.script = s
	err := w.Run()
	return s.answers, err
}

// Scripted is a configuration for scripts: everything takes time by chance, links break and lose, and nothing else fails.
func Scripted(seed uint64, nodes int) Config {
	c := MakeConfig(seed)
	c.Nodes, c.Late, c.Drivers = nodes, min(c.Late, nodes-1), 1
	for len(c.CPUs) < nodes {
		c.CPUs = append(c.CPUs, 2)
	}
	c.CPUs, c.Capacity, c.Credit = c.CPUs[:nodes], 64<<20, 16<<20
	c.Crash, c.Murder, c.BadCopy, c.NoPages = 0, 0, 0, 0
	c.NodeDeath, c.HeadDeath, c.Frozen, c.Strategy, c.Custom = false, false, false, false, false
	c.Cuts, c.Lossy = c.Cuts && nodes > 1, c.Lossy && nodes > 1
	return c
}

// addScripted makes the functions and classes of scripts.
func (p *proc) addScripted() {
	w := p.w
	add := func(key string, s spec) {
		s.name, s.job, s.fn = fmt.Sprintf("%s/%s", p.job, key), p.job, p.fn
		w.specs[s.name] = s
		w.script.specs[key] = s.name
	}
	kinds := map[bool]resource.StrategyKind{true: resource.StrategySpread}
	for _, spread := range []bool{false, true} {
		for _, cpus := range []float64{0, 0.5, 1} {
			res := map[string]int64{"CPU": int64(cpus * float64(resource.Unit))}
			add(keyOf(cpus, spread), spec{res: res, retries: 3, kind: kinds[spread]})
		}
		for _, kind := range []string{"sync", "async", "threads"} {
			c := &class{conc: map[string]int{"sync": 1, "async": 1000, "threads": 3}[kind], async: kind == "async", body: true}
			key := keyOf(kind, spread)
			add(key, spec{class: c, kind: kinds[spread]})
			c.create = w.script.specs[key]
			add(key+".m", spec{class: c, method: "m", ordered: c.ordered()})
			c.methods = []string{w.script.specs[key+".m"]}
			w.script.classes[key] = c
		}
	}
	for _, bound := range []uint32{1, 3} {
		add(keyOf("bound", bound), spec{retries: 3, bound: bound})
	}
}

// keyOf names a function or class by its options.
func keyOf(what, option any) string { return fmt.Sprintf("%v/%v", what, option) }

// recite is a driver's program.
func (t *thread) recite() {
	t.p.addScripted()
	r := &reciter{t: t, env: map[string]any{}, answers: map[string]any{}}
	r.perform(t.p.w.script.body)
	r.end()
	t.p.w.script.answers = r.answers
}

// runScripted executes a task.
func (t *thread) runScripted(x *execute) {
	p, w := t.p, t.p.w
	mine, bad := t.open(x)
	if !p.fns[x.tmpl] {
		for _, v := range t.get([]ids.ObjectID{w.specs[string(p.n.eng.Template(x.tmpl))].fn}, 0) {
			p.discard(v)
		}
		p.fns[x.tmpl] = true
	}
	t.pause()
	c := w.script.calls[x.u]
	r := &reciter{t: t, env: map[string]any{}, answers: map[string]any{}}
	var value any
	if bad == "" {
		switch c.do {
		case "task":
			value, bad = r.task(c, x, mine)
		case "flaky":
			value, bad = r.flaky(c)
		case "waits":
			if _, bad = r.got(mine[0]); bad == "" {
				w.failf("%s: %s has got what never comes", p, c.s.ID)
			}
		case "items":
			bad = r.items(c, x)
		default:
			w.failf("%s: task %s is to %s", p, c.s.ID, c.do)
		}
	}
	r.result(x, value, bad, c.do == "flaky")
	r.end()
	t.let(x, mine)
}

// bear is an actor's constructor.
func (t *thread) bear(x *execute) {
	p := t.p
	mine, _ := t.open(x)
	t.pause()
	p.write(func(e *engine.Engine) {
		e.Result(p.sid, x.u, x.attempt, engine.OutcomeValues, []engine.Output{{Value: []byte("ok"), Size: 2}})
	})
	t.let(x, mine)
}

// performScripted executes a call.
func (t *thread) performScripted(x *execute) {
	p, w := t.p, t.p.w
	c := w.script.calls[x.u]
	mine, bad := t.open(x)
	r := &reciter{t: t, env: map[string]any{}, answers: map[string]any{}}
	var value any
	if bad == "" {
		switch c.do {
		case "items":
			bad = r.items(c, x)
		case "block":
			for !p.body.cancelled[run{x.u, x.attempt}] {
				t.doing = endless
				t.park()
			}
			t.doing, bad = "", string(fault.Cancelled)
		case "reached":
		default:
			value, bad = w.script.states[p.body.info.id.Unique()].method(c, r.literal(c, x))
		}
	}
	t.pause() // after what it does: the order is that of the calls
	r.result(x, value, bad, false)
	t.let(x, mine)
}

const endless = "wait without end"

// pause lets some time pass.
func (t *thread) pause() {
	if w := t.p.w; w.chance(0.2) {
		t.sleep(time.Duration(w.rng.IntN(30_000)) * time.Microsecond)
	} else {
		t.sleep(time.Duration(w.rng.IntN(300)) * time.Microsecond)
	}
}

// let drops what came with a task.
func (t *thread) let(x *execute, mine []ids.ObjectID) {
	for _, v := range x.deps {
		t.p.discard(v)
	}
	for _, id := range mine {
		t.p.drop(id)
	}
	t.path = ""
}

// method changes the state of an actor; args are plain values.
func (s *scriptedState) method(c *scriptCall, args []any) (any, string) {
	switch c.do {
	case "chain":
		list := []any{}
		for _, a := range args {
			list = append(list, digestPlain(a))
		}
		s.chained = digest([]any{s.chained, c.name, list})
		return s.chained, ""
	case "add":
		s.sum += digest(c.name) % 1000
		return c.name, ""
	case "fail":
		return nil, "RAISED"
	case "total":
		return []any{s.sum, s.chained}, ""
	case "tried":
		s.tries[c.name]++
		return s.tries[c.name], ""
	}
	return nil, "no method " + c.do
}

// result sends what a task or call gives.
func (r *reciter) result(x *execute, value any, bad string, again bool) {
	p, w := r.t.p, r.t.p.w
	outcome := uint8(engine.OutcomeValues)
	var outs []engine.Output
	n := x.returns
	if x.stream {
		n = 1
	}
	if bad != "" {
		if outcome = engine.OutcomeRaised; again && bad == "RAISED" {
			outcome = engine.OutcomeRetry
		}
	}
	if x.stream && bad != "" {
		outs = append(outs, r.output(x.out(p, 1), nil))
	}
	for k := range n {
		switch {
		case bad != "":
			v := append([]byte{3}, bad...)
			outs = append(outs, engine.Output{Status: 1, Value: v, Size: uint64(len(v))})
		case k > 0:
			outs = append(outs, r.output(x.out(p, k+1), int64(k)))
		default:
			outs = append(outs, r.output(x.out(p, 1), value))
		}
	}
	w.tracef("%s ends %x attempt %d outcome %d %s", p, uint64(x.u), x.attempt, outcome, bad)
	p.write(func(e *engine.Engine) { e.Result(p.sid, x.u, x.attempt, outcome, outs) })
}

// output makes a value an output.
func (r *reciter) output(id ids.ObjectID, value any) engine.Output {
	p, w := r.t.p, r.t.p.w
	contained := refsIn(value)
	tag := w.make(id, contained)
	w.script.values[tag] = value
	if b, ok := value.([]byte); ok && len(b) > inlineMax {
		size := uint64(len(b))
		off, ok := r.t.create(id, size)
		if !ok {
			w.failf("%s: there is no room for %d bytes", p, size)
		}
		p.n.store.write(off, size, tag)
		return engine.Output{Arena: true, Size: size}
	}
	v := inlineValue(tag, w.size(100))
	return engine.Output{Value: v, Size: uint64(len(v)), Contained: contained}
}

// valueOf is what an object's bytes stand for.
func (w *World) valueOf(p *proc, v *val) any {
	if v.arena {
		tag, _ := p.n.store.read(v.off, v.size)
		return w.script.values[tag]
	}
	return w.script.values[binary.LittleEndian.Uint64(v.inline[1:])]
}

// kindWord is what a script calls an error.
func kindWord(kind string) string {
	words := map[string]string{"RAISED": "Failed", string(fault.Cancelled): "Cancelled", string(fault.ActorDied): "Dead"}
	if word, ok := words[kind]; ok {
		return word
	}
	return kind
}

// refsIn lists the refs of a value in order.
func refsIn(value any) (list []ids.ObjectID) {
	switch v := value.(type) {
	case ids.ObjectID:
		return []ids.ObjectID{v}
	case []any:
		for _, x := range v {
			list = append(list, refsIn(x)...)
		}
	}
	return list
}

// pattern is bytes that tell where they come from.
func pattern(n int, salt string) []byte {
	if n <= 1 {
		return []byte(salt[:1])
	}
	return []byte(strings.Repeat(salt+"|", n/(len(salt)+1)+1))
}

const small, big = 100, 150_000 // bytes of a pattern

func patternOf(isBig bool, salt string) []byte {
	if isBig {
		return pattern(big, salt)
	}
	return pattern(small, salt)
}
