package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gray/internal/core/actor"
	"gray/internal/core/explain"
	"gray/internal/core/extent"
	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/core/memory"
	"gray/internal/core/resource"
)

var t0 = time.Unix(1_000_000, 0)

// rig is an engine with a sink that writes down what it is told, in words.
type rig struct {
	done    int // calls of do
	t       testing.TB
	e       *Engine
	names   *resource.Names
	log     []string
	quiet   bool
	started []SessionID    // workers asked for
	envs    map[string]int // times that an environment's packages were asked for; 0 once dropped
	execs   map[SessionID][]Execute
	taken   map[SessionID]int // of these, received by the worker
	peers   map[NodeNo]*rig
	myNo    map[*rig]NodeNo
	wires   map[NodeNo][]Msg // sent and not delivered
	fetches []fetch
	full    bool // the next Value says that the client does not read
	now     time.Time
	later   bool                // Commit takes a while
	rows    []actor.Row         // what the head was told
	watched map[ids.ActorID]int // how much of the head's news of an actor was heard; -1: only the last counts
	cancels []ids.Unique        // calls that were cancelled at their worker
	dies    func(SessionID)     // a worker was told to leave, or killed
	failed  string              // the last error's text
	onItem  func(Value)
}

type fetch struct {
	key  uint64
	id   ids.ObjectID
	from NodeNo
}

type settings struct {
	owner ids.Owner
	cpus  int
	store int64
	more  map[string]int64
}

func newRig(t testing.TB, s settings) *rig {
	t.Helper()
	names := resource.NewNames()
	res := map[string]int64{"CPU": int64(s.cpus) * resource.Unit}
	for k, v := range s.more {
		res[k] = v
	}
	total, err := names.Set(res)
	if err != nil {
		t.Fatal(err)
	}
	if s.store == 0 {
		s.store = 64 << 20
	}
	r := &rig{
		t: t, names: names, execs: map[SessionID][]Execute{}, taken: map[SessionID]int{}, peers: map[NodeNo]*rig{}, myNo: map[*rig]NodeNo{},
		wires: map[NodeNo][]Msg{}, now: t0, watched: map[ids.ActorID]int{}, dies: func(SessionID) {},
	}
	r.e = New(Config{
		Node: ids.NodeID{byte(s.owner)}, Owner: s.owner, Names: names, Total: total, Memory: memory.New(4*s.store, s.store), Inline: 100 << 10,
		CPUs: s.cpus, Credit: 1 << 30, IdleTime: time.Second, Seed: 1,
	}, r)
	r.e.Advance(t0)
	return r
}

// do runs f, flushes, and checks every invariant.
func (r *rig) do(f func(e *Engine)) {
	r.t.Helper()
	f(r.e)
	r.e.Flush()
	if err := r.e.Check(); err != nil {
		r.t.Fatalf("%v\n%s", err, strings.Join(r.log, "\n"))
	}
	if r.done++; !r.quiet && r.done%16 == 0 {
		r.explainSome()
	}
}

// explainSome explains some of all that there is: whatever state it is in, there are words for it.
func (r *rig) explainSome() {
	r.t.Helper()
	const some = 8
	ask := func(s explain.Subject) {
		if x := r.e.Explain(s); x == nil || x.State == "" || x.Why == "" || x.Text() == "" {
			r.t.Fatalf("%s %s is explained by %+v\n%s", s.Kind, s, x, strings.Join(r.log, "\n"))
		}
	}
	for i, n := uint32(1), 0; i < r.e.tasks.limit() && n < some; i++ {
		if t := r.e.tasks.at(i); t.state != taskNone {
			ask(explain.Subject{Kind: explain.Task, Task: r.e.taskID(t)})
			n++
		}
	}
	for i, n := uint32(1), 0; i < r.e.objs.limit() && n < some; i++ {
		if o := r.e.objs.at(i); r.e.objIndex[keyOf(o.id)] == i {
			ask(explain.Subject{Kind: explain.Object, Object: o.id})
			n++
		}
	}
	for k, u := range sortedKeys(r.e.actors) {
		if k < some {
			ask(explain.Subject{Kind: explain.Actor, Actor: r.e.actors[u].id})
		}
	}
}

// pass lets time go by, with its ticks.
func (r *rig) pass(d time.Duration) {
	r.t.Helper()
	for end := r.now.Add(d); r.now.Before(end); {
		r.now = r.now.Add(TickEvery)
		r.e.Advance(r.now)
		r.do(func(e *Engine) { e.Tick() })
	}
}

func (r *rig) say(format string, args ...any) {
	if !r.quiet {
		r.log = append(r.log, fmt.Sprintf(format, args...))
	}
}

// told is what was said since the last call, and forgets it.
func (r *rig) told() []string {
	l := r.log
	r.log = nil
	return l
}

// want compares what was said since the last call that starts with one of the words.
func (r *rig) want(words string, lines ...string) {
	r.t.Helper()
	var got []string
	for _, l := range r.told() {
		if slices.Contains(strings.Fields(words), strings.Fields(l)[0]) {
			got = append(got, l)
		}
	}
	if !slices.Equal(got, lines) {
		r.t.Fatalf("told %q, want %q", got, lines)
	}
}

func name(id ids.ObjectID) string {
	return fmt.Sprintf("%d.%d:%d", id.Owner(), id.Unique().Counter(), id.Index())
}

func listed(l []ids.ObjectID) string {
	var s []string
	for _, id := range l {
		s = append(s, name(id))
	}
	return strings.Join(s, ",")
}

func (r *rig) Value(ch Chan, req uint32, v Value) int {
	if r.quiet {
		return 0
	}
	what := string(v.Inline)
	if v.Arena {
		what = fmt.Sprintf("arena %d", v.Size)
	}
	r.say("value %d/%d/%d %s = %s [%s]", ch.Session, ch.Chan, req, name(v.ID), what, listed(v.Contained))
	if r.full {
		r.full = false
		return 2 << 20
	}
	return 0
}

func (r *rig) Ready(ch Chan, req uint32, ready []ids.ObjectID) {
	r.say("ready %d/%d/%d %s", ch.Session, ch.Chan, req, listed(ready))
}

func (r *rig) Created(ch Chan, req uint32, _ uint64) {
	r.say("created %d/%d/%d", ch.Session, ch.Chan, req)
}

func (r *rig) Done(ch Chan, req uint32, cancelled bool) {
	r.say("done %d/%d/%d %v", ch.Session, ch.Chan, req, cancelled)
}

func (r *rig) Fail(ch Chan, req uint32, kind fault.Kind, text string) {
	r.failed = text
	r.say("fail %d/%d/%d %s", ch.Session, ch.Chan, req, kind)
}

func (r *rig) Credit(ch Chan, req uint32, limit uint64) {
	r.say("credit %d/%d/%d %d", ch.Session, ch.Chan, req, limit)
}

func (r *rig) Items(ch Chan, req uint32, stream ids.ObjectID, first uint32, ended bool, items []Value) {
	var l []string
	for _, v := range items {
		what := string(v.Inline)
		switch {
		case v.Arena:
			what = "arena"
		case v.Away:
			what = "away"
		}
		l = append(l, what)
		if r.onItem != nil {
			r.onItem(v)
		}
	}
	end := ""
	if ended {
		end = " end"
	}
	r.say("items %d/%d/%d %s from %d: %s%s", ch.Session, ch.Chan, req, name(stream), first, strings.Join(l, ","), end)
}

func (r *rig) Refuse(s SessionID, kind fault.Kind, text string) {
	r.say("refuse %d %s %s", s, kind, text)
}

func (r *rig) StartWorker(s SessionID, _ string) {
	r.started = append(r.started, s)
	r.say("start %d", s)
}

func (r *rig) PrepareEnv(key string) {
	if r.envs == nil {
		r.envs = map[string]int{}
	}
	r.envs[key]++
	r.say("prepare %s", key)
}

func (r *rig) DropEnv(key string) {
	r.envs[key]--
	r.say("drop %s", key)
}

func (r *rig) Setup(w SessionID, s Setup) { r.say("setup %d %v", w, s.Accelerators) }

func (r *rig) Template(w SessionID, no uint32) { r.say("template %d %d", w, no) }

func (r *rig) Execute(w SessionID, x *Execute) {
	if r.quiet {
		r.execs[w] = append(r.execs[w], Execute{Unique: x.Unique, Attempt: x.Attempt, Returns: x.Returns, Flags: x.Flags})
		return
	}
	c := *x
	c.Deps, c.Contained, c.Args = slices.Clone(x.Deps), slices.Clone(x.Contained), slices.Clone(x.Args)
	r.execs[w] = append(r.execs[w], c)
	var deps []string
	for _, d := range x.Deps {
		deps = append(deps, name(d.ID))
	}
	r.say("execute %d %d.%d #%d deps %s contained %s", w, x.Unique.Owner(), x.Unique.Counter(), x.Attempt, strings.Join(deps, ","), listed(x.Contained))
}

func (r *rig) ExecuteAt(w SessionID, x *Execute, _, size uint64) {
	r.execs[w] = append(r.execs[w], Execute{Unique: x.Unique, Attempt: x.Attempt, Returns: x.Returns, Flags: x.Flags})
	r.say("execute-at %d %d.%d size %d", w, x.Unique.Owner(), x.Unique.Counter(), size)
}

// TakeBack gives back all but what take has received.
func (r *rig) TakeBack(w SessionID) (back []ids.Unique) {
	for _, x := range r.execs[w][r.taken[w]:] {
		back = append(back, x.Unique)
	}
	r.execs[w] = r.execs[w][:r.taken[w]]
	if len(back) > 0 {
		r.say("take-back %d %d", w, len(back))
	}
	return back
}

// take is the next task that a worker receives.
func (r *rig) take(w SessionID) Execute {
	r.t.Helper()
	if r.taken[w] >= len(r.execs[w]) {
		r.t.Fatalf("worker %d has nothing to receive\n%s", w, strings.Join(r.log, "\n"))
	}
	r.taken[w]++
	return r.execs[w][r.taken[w]-1]
}

func (r *rig) ExitWorker(w SessionID) {
	r.dies(w)
	r.say("exit %d", w)
}

func (r *rig) KillWorker(w SessionID, _ string) {
	r.dies(w)
	r.say("kill %d", w)
}

func (r *rig) CancelRun(w SessionID, u ids.Unique, _ uint32, interrupt bool) {
	r.cancels = append(r.cancels, u)
	what := "cancel"
	if interrupt {
		what = "interrupt"
	}
	r.say("%s %d %d", what, w, u.Counter())
}
func (r *rig) PID(w SessionID) int { return 1000 + int(w) }

func (r *rig) RegisterActor(row *actor.Row, getIfExists bool, stored *StoredActor) {
	r.say("register %s exists=%v stored=%v", row.Name, getIfExists, stored != nil)
}

func (r *rig) ActorReply(_ Chan, req uint32, created bool, row *actor.Row) {
	r.say("actor-reply %d %v %s", req, created, row.Name)
}

func (r *rig) ActorUpdate(row *actor.Row) {
	cause := ""
	if row.Death.Cause != "" {
		cause = " " + string(row.Death.Cause)
	}
	r.rows = append(r.rows, *row)
	r.say("update %d %s %d%s", row.ID.Unique().Counter(), row.State, row.Incarnation, cause)
}

func (r *rig) WatchActor(id ids.ActorID, on bool) {
	if _, is := r.watched[id]; is && on {
		r.t.Errorf("actor %d is watched already: the head would not be asked again", id.Unique().Counter())
	}
	if delete(r.watched, id); on {
		r.watched[id] = -1
	}
	r.say("watch %d %v", id.Unique().Counter(), on)
}

func (r *rig) ActorError(kind fault.Kind, _ *actor.Row, death *actor.Death) []byte {
	return []byte("!" + string(kind) + " " + string(death.Cause))
}

// CreationResult reads "repr" or "!error".
func (r *rig) CreationResult(v []byte) (repr, text string, pickled []byte) {
	if len(v) > 0 && v[0] == '!' {
		return "", string(v[1:]), v
	}
	return string(v), "", nil
}

func (r *rig) Peer(n NodeNo, m Msg) {
	r.say("peer %d %s", n, strings.TrimPrefix(fmt.Sprintf("%T", m), "*engine."))
	if r.peers[n] != nil {
		r.wires[n] = append(r.wires[n], m)
	}
}

func (r *rig) FindOwner(o ids.Owner) { r.say("find %d", o) }

func (r *rig) Fetch(key uint64, id ids.ObjectID, from NodeNo, _, _ uint64) {
	r.fetches = append(r.fetches, fetch{key, id, from})
	r.say("fetch %s from %d", name(id), from)
}

func (r *rig) CancelFetch(uint64) { r.say("cancel-fetch") }

func (r *rig) Commit(uint64, extent.Extent) Commit {
	if r.later {
		return CommitLater
	}
	return CommitDone
}

func (r *rig) Punch(extent.Extent) {}
func (r *rig) Load()               {}

func (r *rig) ErrorValue(kind fault.Kind, text string) []byte {
	r.failed = text
	return []byte("!" + string(kind))
}

func (r *rig) Process(s SessionID) string { return fmt.Sprintf("process %d", s) }

func (r *rig) Warn(text string) { r.say("warn %s", text) }

func (r *rig) Notice(job ids.Job, text string) { r.say("notice to job %s: %s", job, text) }

// meet makes two rigs know each other.
func meet(a, b *rig) {
	for _, p := range [][2]*rig{{a, b}, {b, a}} {
		x, y := p[0], p[1]
		no := NodeNo(y.e.cfg.Owner)
		x.peers[no], x.myNo[y] = y, no
		x.do(func(e *Engine) { e.PeerUp(no, y.e.cfg.Node, y.e.cfg.Owner) })
		x.see(y)
	}
}

// see tells a rig what another has free.
func (r *rig) see(o *rig) {
	total, err1 := r.names.Set(o.names.Map(o.e.res.Total()))
	avail, err2 := r.names.Set(o.names.Map(o.e.res.Avail()))
	if err1 != nil || err2 != nil {
		r.t.Fatal(err1, err2)
	}
	r.do(func(e *Engine) { e.NodeView(NodeNo(o.e.cfg.Owner), total, avail, nil, 0) })
}

// carry delivers the messages of all links, in turn, until there are none.
func carry(rigs ...*rig) {
	for again := true; again; {
		again = false
		for _, r := range rigs {
			for _, no := range sortedKeys(r.wires) {
				if q := r.wires[no]; len(q) > 0 {
					r.wires[no] = q[1:]
					r.deliver(no, q[0])
					again = true
				}
			}
		}
	}
}

// deliver brings one message to a peer.
func (r *rig) deliver(no NodeNo, m Msg) {
	to := r.peers[no]
	if t, ok := m.(*TemplateMsg); ok {
		to.do(func(e *Engine) { e.PeerTemplate(to.myNo[r], t.No, to.spec(t.Job, string(t.Raw))) })
		return
	}
	to.do(func(e *Engine) { e.Receive(to.myNo[r], m) })
}

// spec makes a function from words: "f cpu=2 retries=1 calls=1 x=1 spread node=3 soft".
func (r *rig) spec(j ids.Job, words string) TemplateSpec {
	s := TemplateSpec{Raw: []byte(words), Job: j, Name: words, Fn: ids.MakeUnique(99, 1).Object(j, 1)}
	need := map[string]int64{"CPU": resource.Unit}
	if strings.HasPrefix(words, "actor") {
		s.Actor = &ActorLimits{MaxConcurrency: 1, Class: "A", Groups: map[string]int{}}
	} else if strings.HasPrefix(words, "method") {
		s.Method, s.Ordered, s.Fn = "m", true, ids.ObjectID{}
		need = map[string]int64{}
	}
	for _, f := range strings.Fields(words) {
		k, v, ok := strings.Cut(f, "=")
		if k == "packages" {
			s.Packages, s.Env = v, v
			continue
		}
		if k == "in" {
			s.Group = v
			continue
		}
		var n int64
		if ok {
			if _, err := fmt.Sscan(v, &n); err != nil {
				r.t.Fatal(err)
			}
		}
		switch {
		case k == "retries":
			s.MaxRetries = int32(n)
		case k == "calls":
			s.MaxCalls = uint32(n)
		case k == "bound":
			s.Backpressure = uint32(n)
		case k == "cpu":
			need["CPU"] = n * resource.Unit
		case k == "spread":
			s.Strategy.Kind = resource.StrategySpread
		case k == "node":
			s.Strategy.Kind, s.Strategy.Node = resource.StrategyNode, ids.NodeID{byte(n)}
		case k == "soft":
			s.Strategy.Soft = true
		case k == "max":
			s.Actor.MaxConcurrency = int(n)
		case k == "async":
			s.Actor.Async = true
		case k == "io", k == "io2":
			s.Actor.Groups[k] = int(n)
		case k == "preload":
			s.Preload = "numpy,torch"
		case k == "unordered":
			s.Ordered = false
		case k == "hold", k == "restarts":
		case ok:
			need[k] = n * resource.Unit
		}
	}
	set, err := r.names.Set(need)
	if err != nil {
		r.t.Fatal(err)
	}
	s.Resources = set
	if s.Actor != nil {
		if !strings.Contains(words, " hold") {
			delete(need, "CPU") // it is for the constructor only
		}
		if s.Actor.Held, err = r.names.Set(need); err != nil {
			r.t.Fatal(err)
		}
	}
	return s
}

// client is a driver of a rig, with channel 1 open.
type client struct {
	*rig
	sid  SessionID
	job  ids.Job
	next ids.Unique
	ch   Chan
	req  uint32
	fns  map[string]uint32
}

func (r *rig) driver(j uint32) *client {
	c := &client{rig: r, job: ids.JobFromInt(j), fns: map[string]uint32{}}
	r.do(func(e *Engine) { c.sid, c.next = e.OpenDriver(c.job, 1<<20) })
	r.introduce(c.sid)
	c.ch = Chan{c.sid, 1}
	r.do(func(e *Engine) { e.OpenChannel(c.ch) })
	return c
}

// id is a fresh id of the client's block.
func (c *client) id() ids.ObjectID {
	c.next++
	return (c.next - 1).Object(c.job, 1)
}

func (c *client) put(v string, contained ...ids.ObjectID) ids.ObjectID {
	c.t.Helper()
	id := c.id()
	c.do(func(e *Engine) { e.Put(c.sid, id, 0, contained, []byte(v)) })
	return id
}

// call submits a task of a function given by words; it returns output 1.
func (c *client) call(fn string, deps ...ids.ObjectID) ids.ObjectID {
	c.t.Helper()
	return c.submit(fn, 1, deps, nil).Object(c.job, 1)
}

func (c *client) submit(fn string, returns uint32, deps, contained []ids.ObjectID) ids.Unique {
	c.t.Helper()
	return c.submitAs(fn, 0, returns, deps, contained)
}

// stream submits a generator; it returns the stream's object.
func (c *client) stream(fn string, deps ...ids.ObjectID) ids.ObjectID {
	c.t.Helper()
	return c.submitAs(fn, flagStream, 1, deps, nil).Object(c.job, 1)
}

func (c *client) submitAs(fn string, flags uint16, returns uint32, deps, contained []ids.ObjectID) ids.Unique {
	c.t.Helper()
	no, ok := c.fns[fn]
	if !ok {
		no = uint32(len(c.fns) + 1)
		c.fns[fn] = no
		c.do(func(e *Engine) { e.RegisterTemplate(c.sid, no, c.spec(c.job, fn)) })
	}
	u := c.id().Unique()
	c.do(func(e *Engine) {
		e.Submit(c.sid, &Submission{Template: no, Unique: u, Returns: returns, Flags: flags, Deps: deps, Contained: contained, Bytes: 100})
	})
	return u
}

// get asks on the client's channel.
func (c *client) get(list ...ids.ObjectID) {
	c.t.Helper()
	c.req++
	c.do(func(e *Engine) { e.Get(c.ch, c.req, pack(list)) })
}

func (c *client) release(list ...ids.ObjectID) {
	c.t.Helper()
	for _, id := range list {
		c.do(func(e *Engine) { e.Release(c.sid, id, 1) })
	}
}

func pack(list []ids.ObjectID) (l ids.List) {
	for k := range list {
		l = append(l, list[k][:]...)
	}
	return l
}

// workers starts the workers that were asked for.
func (r *rig) workers() {
	r.t.Helper()
	for len(r.started) > 0 {
		s := r.started[0]
		r.started = r.started[1:]
		r.introduce(s)
		r.do(func(e *Engine) { e.WorkerStarted(s) })
	}
}

// introduce gives a client the process 1000 times its node's owner number plus its session.
func (r *rig) introduce(s SessionID) {
	r.do(func(e *Engine) {
		e.Introduce(s, WorkerID{byte(e.cfg.Owner), byte(s), byte(s >> 8)}, 1000*int(e.cfg.Owner)+int(s))
	})
}

// result ends a task with one inline value for each return.
func (r *rig) result(w SessionID, x Execute, v string, contained ...ids.ObjectID) {
	r.t.Helper()
	outs := make([]Output, r.returns(w, x.Unique))
	for k := range outs {
		outs[k] = Output{Value: []byte(v), Size: uint64(len(v)), Contained: contained}
	}
	r.do(func(e *Engine) { e.Result(w, x.Unique, x.Attempt, OutcomeValues, outs) })
}

// yield has a worker send an item of the generator that it runs.
func (r *rig) yield(w SessionID, x Execute, index uint32, v string, contained ...ids.ObjectID) {
	r.t.Helper()
	r.do(func(e *Engine) {
		e.Item(w, x.Unique, x.Attempt, index, &Output{Value: []byte(v), Size: uint64(len(v)), Contained: contained})
	})
}

// yieldLarge does so through the arena.
func (r *rig) yieldLarge(w SessionID, x Execute, id ids.ObjectID, size uint64) {
	r.t.Helper()
	r.do(func(e *Engine) { e.Create(Chan{w, 0}, 77, id, size) })
	r.do(func(e *Engine) { e.Item(w, x.Unique, x.Attempt, id.Index(), &Output{Arena: true, Size: size}) })
}

// read asks for a stream's items from an index on.
func (c *client) read(gen ids.ObjectID, from uint32) {
	c.t.Helper()
	c.req++
	c.do(func(e *Engine) { e.Next(c.ch, c.req, gen, from, from, false) })
}

// returns is how many outputs a worker owes for what it runs.
func (r *rig) returns(w SessionID, u ids.Unique) uint32 {
	h := r.e.pool.all[w].host
	switch {
	case h == nil:
		return r.e.tasks.at(r.e.pool.all[w].fifo[0]).returns
	case h.calls[u] != 0:
		return r.e.tasks.at(h.calls[u]).returns
	}
	return 1
}

// run has a worker receive its next task and end it.
func (r *rig) run(w SessionID, v string) Execute {
	r.t.Helper()
	x := r.take(w)
	r.result(w, x, v)
	return x
}

// empty checks that nothing is left.
func (r *rig) empty() {
	r.t.Helper()
	if err := r.e.Empty(true); err != nil {
		r.t.Fatal(err)
	}
}
