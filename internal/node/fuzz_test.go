package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"gray/internal/core/engine"
	"gray/internal/core/extent"
	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/core/memory"
	"gray/internal/core/resource"
	"gray/internal/head/headlink"
	"gray/internal/wire"
)

// bench is a node without sockets: an engine behind the frame handler, on a made-up clock, with a driver that keeps the
// rules, and one that sends whatever it is told to, as do its workers.
type bench struct {
	t     testing.TB
	n     *Node
	now   time.Time
	good  *client
	bad   *client
	first map[engine.SessionID]ids.Unique

	got    map[engine.SessionID][]engine.Value
	ran    []ran // what the good driver's workers were sent
	badRan []ran
	wanted []engine.SessionID // workers asked for
	dying  []engine.SessionID
	asked  []ids.Owner
}

type ran struct {
	worker engine.SessionID
	x      engine.Execute
}

// benchSink does what the real one does with the node's tables, and nothing with processes, sockets or memory.
type benchSink struct {
	*sink
	b *bench
}

func (s *benchSink) Value(ch engine.Chan, req uint32, v engine.Value) int {
	s.sink.Value(ch, req, v)
	v.Inline = bytes.Clone(v.Inline)
	s.b.got[ch.Session] = append(s.b.got[ch.Session], v)
	return 0
}

func (s *benchSink) Refuse(engine.SessionID, fault.Kind, string) {}

func (s *benchSink) PrepareEnv(string) {}

func (s *benchSink) DropEnv(string) {}

func (s *benchSink) StartWorker(sid engine.SessionID, _ string) {
	cl := &client{id: sid, chans: map[uint32]*outbox{}, carry: map[carryKey][]ids.ObjectID{}}
	s.n.clients[sid] = cl
	s.b.wanted = append(s.b.wanted, sid)
}

func (s *benchSink) Setup(sid engine.SessionID, x engine.Setup) { s.n.clients[sid].job = x.Job }
func (s *benchSink) Template(engine.SessionID, uint32)          {}

func (s *benchSink) Execute(sid engine.SessionID, x *engine.Execute) {
	if wire.ExecuteBody(toWire(x)) == nil {
		s.b.t.Errorf("an EXECUTE of nothing: %+v", x)
	}
	r := ran{sid, engine.Execute{Unique: x.Unique, Attempt: x.Attempt, Returns: x.Returns, Job: x.Job}}
	if s.n.clients[sid].job == s.b.good.job {
		s.b.ran = append(s.b.ran, r)
	} else {
		s.b.badRan = append(s.b.badRan, r)
	}
}

func (s *benchSink) ExecuteAt(sid engine.SessionID, x *engine.Execute, _, _ uint64) {
	s.Execute(sid, x)
}
func (s *benchSink) TakeBack(engine.SessionID) []ids.Unique { return nil }
func (s *benchSink) ExitWorker(sid engine.SessionID)        { s.KillWorker(sid, "") }

func (s *benchSink) KillWorker(sid engine.SessionID, _ string) { s.b.dying = append(s.b.dying, sid) }

func (s *benchSink) Commit(uint64, extent.Extent) engine.Commit { return engine.CommitDone }
func (s *benchSink) Punch(extent.Extent)                        {}
func (s *benchSink) Load()                                      { s.n.eng.Load() }

func (s *benchSink) FindOwner(o ids.Owner) { s.b.asked = append(s.b.asked, o) }

const (
	benchOwner = ids.Owner(1)
	goodIDs    = 1 // the first number of the good driver's block
	badIDs     = goodIDs + driverIDs
)

var (
	goodJob, badJob = ids.Job{1}, ids.Job{2}
	goodText        = []byte("\x00what the good driver stored")
)

func newBench(t testing.TB, link *headlink.Client) *bench {
	names := resource.NewNames()
	total, err := names.Set(map[string]int64{"CPU": 4 * quantum})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, now: time.Unix(1_700_000_000, 0), got: map[engine.SessionID][]engine.Value{}, first: map[engine.SessionID]ids.Unique{}}
	b.n = &Node{
		id: ids.NodeID{1}, log: slog.New(slog.DiscardHandler), names: names, total: total, link: link,
		clients: map[engine.SessionID]*client{}, byKey: map[[wire.SessionSize]byte]engine.SessionID{}, jobs: map[ids.Job]*jobInfo{}, warnings: map[string]time.Time{},
		peers:  peerTable{byID: map[ids.NodeID]*peer{}, byNo: map[engine.NodeNo]*peer{}, dead: map[ids.NodeID]bool{}},
		closed: true, // no timers: the test tells the time
	}
	b.n.eng = engine.New(engine.Config{
		Node: b.n.id, Owner: benchOwner, Names: names, Total: total, Memory: memory.New(1<<30, 128<<20), Inline: inlineMax, CPUs: 4, Credit: jobCredit,
		IdleTime: time.Second, Seed: 1,
	}, &benchSink{&sink{b.n}, b})
	b.good, b.bad = b.driver(goodJob), b.driver(badJob)
	return b
}

func (b *bench) driver(job ids.Job) *client {
	cl := &client{job: job, chans: map[uint32]*outbox{}, carry: map[carryKey][]ids.ObjectID{}}
	b.event(func(e *engine.Engine) {
		var first ids.Unique
		cl.id, first = e.OpenDriver(job, driverIDs)
		b.n.clients[cl.id], b.first[cl.id] = cl, first
		e.OpenChannel(engine.Chan{Session: cl.id, Chan: 1})
	})
	return cl
}

// event is Node.locked on the bench's clock, and what the world answers to it.
func (b *bench) event(f func(*engine.Engine)) {
	b.step(f)
	for len(b.wanted)+len(b.dying)+len(b.asked) > 0 {
		wanted, dying, asked := b.wanted, b.dying, b.asked
		b.wanted, b.dying, b.asked = nil, nil, nil
		for _, sid := range wanted {
			b.step(func(e *engine.Engine) { e.WorkerStarted(sid) })
		}
		for _, sid := range dying {
			b.end(sid)
		}
		for _, o := range asked {
			b.step(func(e *engine.Engine) { e.OwnerDead(o, "no such node") })
		}
	}
}

func (b *bench) step(f func(*engine.Engine)) {
	b.n.mu.Lock()
	b.n.eng.Advance(b.now)
	f(b.n.eng)
	b.n.finishLocked()
}

// end is the death of a client's process.
func (b *bench) end(sid engine.SessionID) {
	cl := b.n.clients[sid]
	if cl == nil {
		return
	}
	delete(b.n.clients, sid)
	b.step(func(e *engine.Engine) {
		e.WorkerGone(sid, fault.WorkerCrashed, "it was killed")
		e.SessionGone(sid)
	})
}

func (b *bench) pass(d time.Duration) {
	b.now = b.now.Add(d)
	b.event(func(e *engine.Engine) { e.Tick() })
}

func (b *bench) check(what string) {
	b.t.Helper()
	if err := b.n.eng.Check(); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

// feed gives a client's stream to the frame handler, as Node.readFrames does, and tells whether the session may go on. It
// does, to the end of the stream, also where the engine has refused it.
func (b *bench) feed(cl *client, stream []byte) (goesOn bool) {
	st := wire.NewStream(bytes.NewReader(stream), 4096)
	for {
		f, err := st.Next()
		if err == nil && tooLarge(f) {
			continue
		}
		if err == nil {
			b.event(func(*engine.Engine) { err = b.n.handle(cl, f) })
		}
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return true
		}
		if fault.KindOf(err) != fault.Protocol {
			b.t.Fatalf("%v is of kind %s", err, fault.KindOf(err))
		}
		return false
	}
}

// tooLarge leaves out what is allowed, and costs a test its time.
func tooLarge(f wire.Frame) bool {
	if f.Kind != wire.KindSubmit {
		return false
	}
	m, err := wire.DecodeSubmit(f.Body)
	return err == nil && m.NumReturns > 1000
}

// goodTask sends a task of the good driver and lets its worker answer.
func (b *bench) goodTask(no uint64, value []byte) {
	b.t.Helper()
	u := ids.MakeUnique(benchOwner, no)
	b.ran = nil
	b.feedGood(must(wire.AppendSubmit(nil, &wire.Submit{Template: 1, Unique: u, NumReturns: 1, Args: []byte("args")})))
	for k := 0; len(b.ran) == 0; k++ {
		if k == 1000 {
			b.t.Fatalf("the good driver's task is not run: %+v", b.n.eng.Why([]ids.ObjectID{u.Object(goodJob, 1)}))
		}
		b.pass(100 * time.Millisecond)
	}
	r := b.ran[len(b.ran)-1]
	if r.x.Unique != u {
		b.t.Fatalf("task %x was run, not %x", uint64(r.x.Unique), uint64(u))
	}
	m := wire.Result{Unique: u, Attempt: r.x.Attempt}
	m.Outputs.Append(&wire.Output{Value: value})
	f, err := wire.NewReader(must(wire.AppendResult(nil, &m))).Next()
	if err != nil {
		b.t.Fatal(err)
	}
	b.event(func(*engine.Engine) { err = b.n.handle(b.n.clients[r.worker], f) })
	if err != nil {
		b.t.Fatal(err)
	}
	b.wantGood(u.Object(goodJob, 1), value)
}

// wantGood gets an object of the good driver.
func (b *bench) wantGood(id ids.ObjectID, value []byte) {
	b.t.Helper()
	b.got[b.good.id] = nil
	b.feedGood(must(wire.AppendGet(nil, &wire.Get{Chan: 1, Req: 1, IDs: pack([]ids.ObjectID{id})})))
	got := b.got[b.good.id]
	if len(got) != 1 || got[0].ID != id || got[0].Status != 0 || !bytes.Equal(got[0].Inline, value) {
		b.t.Fatalf("the good driver got %+v, want %q", got, value)
	}
}

func (b *bench) feedGood(stream []byte) {
	b.t.Helper()
	r := wire.NewReader(stream)
	for len(r.Rest()) > 0 {
		f, err := r.Next()
		if err == nil {
			b.event(func(*engine.Engine) { err = b.n.handle(b.good, f) })
		}
		if err != nil {
			b.t.Fatalf("the good driver: %v", err)
		}
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func spec(fn ids.ObjectID, change func(*wire.Spec)) []byte {
	s := wire.Spec{Fn: fn, FnHash: []byte("hash"), Name: "f", Qualname: "f", Resources: map[string]int64{"CPU": quantum}, MaxRetries: 3}
	if change != nil {
		change(&s)
	}
	return must(s.Marshal())
}

func put(id ids.ObjectID, value []byte, in ...ids.ObjectID) []byte {
	return must(wire.AppendPut(nil, &wire.Put{ID: id, Contained: pack(in), Value: value}))
}

// badStreams are what a driver, its worker, and then the driver again may send, to start from: what is right, and what is not.
func badStreams() (streams [][3][]byte) {
	obj := func(no uint64, index uint32) ids.ObjectID {
		return ids.MakeUnique(benchOwner, no).Object(badJob, index)
	}
	u := func(no uint64) ids.Unique { return ids.MakeUnique(benchOwner, badIDs+no) }
	fn := obj(badIDs, 1)
	list := func(l ...ids.ObjectID) ids.List { return pack(l) }
	join := func(b ...[]byte) []byte { return bytes.Join(b, nil) }
	template := func(no uint32, change func(*wire.Spec)) []byte {
		return must(wire.AppendTemplate(nil, &wire.Template{No: no, Map: spec(fn, change)}))
	}
	submit := func(no uint64, returns uint32, deps, in ids.List) []byte {
		return must(wire.AppendSubmit(nil, &wire.Submit{Template: 1, Unique: u(no), NumReturns: returns, Deps: deps, Contained: in, Args: []byte("args")}))
	}
	result := func(no uint64, attempt uint32, outcome wire.Outcome, outs ...wire.Output) []byte {
		m := wire.Result{Unique: u(no), Attempt: attempt, Outcome: outcome}
		for k := range outs {
			m.Outputs.Append(&outs[k])
		}
		return must(wire.AppendResult(nil, &m))
	}
	get := func(req uint32, l ...ids.ObjectID) []byte {
		return must(wire.AppendGet(nil, &wire.Get{Chan: 1, Req: req, IDs: list(l...)}))
	}
	wait := func(req, need uint32, flags uint8, l ...ids.ObjectID) []byte {
		return must(wire.AppendWait(nil, &wire.Wait{Chan: 1, Req: req, Need: need, Flags: flags, IDs: list(l...)}))
	}
	counts := func(f func([]byte, wire.Counts) ([]byte, error), id ids.ObjectID, n uint32) []byte {
		return must(f(nil, wire.Counts(nil).Append(id, n)))
	}
	start := join(put(fn, []byte("\x00code")), template(1, nil))
	value := wire.Output{Value: []byte("\x00v")}
	foreign := ids.MakeUnique(77, 5).Object(badJob, 1)

	add := func(driver, worker []byte, later ...[]byte) {
		streams = append(streams, [3][]byte{driver, worker, join(later...)})
	}
	release := func(id ids.ObjectID, n uint32) []byte { return counts(wire.AppendRelease, id, n) }
	add(join(start, submit(1, 1, nil, nil), get(1, obj(badIDs+1, 1))), result(1, 0, 0, value), release(obj(badIDs+1, 1), 1), wire.AppendTemplateDrop(nil, 1), submit(2, 1, nil, nil))
	add(join(start, submit(1, 2, nil, nil), submit(2, 1, list(obj(badIDs+1, 1), obj(badIDs+1, 2)), list(fn)), wait(1, 1, 1, obj(badIDs+2, 1))), join(result(1, 0, 0, value, value), result(2, 0, 1, value)))
	add(join(start, submit(1, 1, nil, nil), release(obj(badIDs+1, 1), 1), submit(1, 1, nil, nil)), result(1, 0, 2))
	add(join(start, submit(1, 3, nil, nil), release(obj(badIDs+1, 1), 1), get(1, obj(badIDs+1, 2))), result(1, 0, 3, value, value, value), submit(1, 3, nil, nil))
	add(join(start, submit(1, 0, nil, nil), submit(1, 0, nil, nil)), join(result(1, 0, 0), result(1, 0, 0)))
	add(join(start, template(1, nil), wire.AppendTemplateDrop(nil, 1), submit(1, 1, nil, nil)), nil)
	add(join(start, template(2, func(s *wire.Spec) { s.Resources = map[string]int64{"CPU": math.MaxInt64, "x": math.MaxInt64} }), must(wire.AppendSubmit(nil, &wire.Submit{Template: 2, Unique: u(1), NumReturns: 1})), get(1, obj(badIDs+1, 1))), nil)
	add(join(start, template(2, func(s *wire.Spec) { s.Strategy = wire.Strategy{Kind: resource.StrategyNode, Soft: true} }), must(wire.AppendSubmit(nil, &wire.Submit{Template: 2, Unique: u(1), NumReturns: 1}))), nil)
	add(join(start, template(2, func(s *wire.Spec) {
		s.Strategy = wire.Strategy{Kind: resource.StrategySpread}
		s.MaxCalls = 1
		s.Resources = nil
	}), must(wire.AppendSubmit(nil, &wire.Submit{Template: 2, Unique: u(1), NumReturns: 1}))), result(1, 0, 3, value))
	add(join(wire.AppendCreate(nil, wire.Create{Chan: 1, Req: 1, ID: obj(badIDs+3, 1), Size: 1 << 20}), must(wire.AppendSeal(nil, &wire.Seal{ID: obj(badIDs+3, 1), Contained: list(fn)})), get(2, obj(badIDs+3, 1)), counts(wire.AppendUnpin, obj(badIDs+3, 1), 1)), nil)
	add(join(wire.AppendCreate(nil, wire.Create{Chan: 1, Req: 1, ID: obj(badIDs+3, 1), Size: 1 << 20}), get(2, obj(badIDs+3, 1)), wire.AppendAbort(nil, obj(badIDs+3, 1)), wire.AppendAbort(nil, obj(badIDs+3, 1))), nil)
	add(join(wire.AppendCreate(nil, wire.Create{Chan: 1, Req: 1, ID: obj(badIDs+3, 1), Size: math.MaxUint64}), wire.AppendCreate(nil, wire.Create{Chan: 1, Req: 2, ID: obj(badIDs+4, 1), Size: 127 << 20}), wire.AppendCreate(nil, wire.Create{Chan: 1, Req: 3, ID: obj(badIDs+5, 1), Size: 127 << 20})), nil)
	add(join(start, submit(1, 1, nil, nil)), join(wire.AppendCreate(nil, wire.Create{Req: 1, ID: obj(badIDs+1, 1), Size: 1 << 20}), result(1, 0, 0, wire.Output{Where: wire.Arena, Size: 1 << 20})), get(1, obj(badIDs+1, 1)), counts(wire.AppendUnpin, obj(badIDs+1, 1), 7), release(obj(badIDs+1, 1), 1))
	add(join(start, submit(1, 1, nil, nil)), join(wire.AppendCreate(nil, wire.Create{Req: 1, ID: obj(badIDs+1, 1), Size: 1 << 20}), result(1, 0, 1, wire.Output{Where: wire.Arena, Size: 1 << 60})))
	add(join(put(obj(badIDs+1, 1), goodText, obj(badIDs+2, 1)), put(obj(badIDs+2, 1), nil, obj(badIDs+1, 1)), get(1, obj(badIDs+1, 1)), release(obj(badIDs+2, 1), 5), release(obj(badIDs+1, 1), math.MaxUint32)), nil)
	add(join(get(1, foreign), wait(2, 1, 0, foreign, foreign), wire.AppendCancelReq(nil, wire.CancelReq{Chan: 1, Req: 2}), submit(1, 1, list(foreign), nil), wire.AppendChannelClose(nil, 1), get(3, foreign)), nil)
	add(join(start, submit(1, 1, list(foreign), list(foreign)), get(1, obj(badIDs+1, 1))), nil)
	add(join(must(wire.AppendIDs(nil, &wire.IDs{ID: obj(badIDs+6, 1), Contained: list(fn, foreign)})), put(obj(badIDs+6, 1), []byte("\x00")), get(1, obj(badIDs+6, 1))), nil)
	add(join(get(1, ids.MakeUnique(benchOwner, goodIDs).Object(goodJob, 1)), release(ids.MakeUnique(benchOwner, goodIDs).Object(goodJob, 1), 9), counts(wire.AppendUnpin, ids.MakeUnique(benchOwner, goodIDs).Object(goodJob, 1), 9), wire.AppendAbort(nil, ids.MakeUnique(benchOwner, goodIDs).Object(goodJob, 1)), put(ids.MakeUnique(benchOwner, goodIDs).Object(goodJob, 1), []byte("\x00x"))), nil)
	add(must(wire.AppendCall(nil, &wire.Call{Chan: 1, Req: 1, Map: must(wire.Marshal(map[string]any{"m": "why", "ids": [][]byte{fn[:], foreign[:]}}))})), must(wire.AppendCall(nil, &wire.Call{Req: 1, Map: must(wire.Marshal(map[string]any{"m": "ids"}))})))
	for _, m := range []string{"store", "nodes", "kv_put", "locations", "no such"} {
		add(must(wire.AppendCall(nil, &wire.Call{Chan: 1, Req: 1, Map: must(wire.Marshal(map[string]any{"m": m, "ids": [][]byte{fn[:]}, "key": "k", "value": []byte("v")}))})), nil)
	}
	add(wire.AppendCredit(nil, wire.Credit{Chan: 1, Req: 1, Total: math.MaxUint64}), must(wire.AppendHello(nil, &wire.Hello{Role: wire.RoleDriver})))
	add([]byte{0xff, 0xff, 0xff, 0xff, 0x12}, []byte{1, 0, 0, 0, 0x99})
	return streams
}

// FuzzStreams: whatever a driver and its workers send, the engine stays whole, another driver's objects and tasks are
// as they were, and when the processes are dead nothing of theirs is left.
func FuzzStreams(f *testing.F) {
	for _, s := range badStreams() {
		f.Add(s[0], s[1], s[2])
	}
	link := noHead()
	f.Fuzz(func(t *testing.T, driver, worker, later []byte) {
		b := newBench(t, link)
		b.misbehaves(func() {
			goesOn := b.feed(b.bad, driver)
			b.check("after the driver's stream")
			if len(b.badRan) > 0 {
				if cl := b.n.clients[b.badRan[0].worker]; cl != nil && !b.feed(cl, worker) {
					b.event(func(*engine.Engine) { b.dying = append(b.dying, cl.id) })
				}
				b.check("after the worker's stream")
			}
			if goesOn {
				b.feed(b.bad, later)
				b.check("after the driver's second stream")
			}
		})
	})
}

// noHead is a link on which all that is asked fails at once.
func noHead() *headlink.Client {
	link := headlink.Start(headlink.Config{Log: slog.New(slog.DiscardHandler)})
	link.Close()
	return link
}

// misbehaves lets the bad driver and its workers do what f says, kills them, and looks at what the good driver has.
func (b *bench) misbehaves(f func()) {
	b.t.Helper()
	if got, want := b.first[b.bad.id], ids.MakeUnique(benchOwner, badIDs); got != want {
		b.t.Fatalf("the bad driver's ids begin at %x, the tests say %x", uint64(got), uint64(want))
	}
	fn := ids.MakeUnique(benchOwner, goodIDs).Object(goodJob, 1)
	kept := ids.MakeUnique(benchOwner, goodIDs+1).Object(goodJob, 1)
	b.feedGood(put(fn, []byte("\x00code")))
	b.feedGood(put(kept, goodText))
	b.feedGood(must(wire.AppendTemplate(nil, &wire.Template{No: 1, Map: spec(fn, nil)})))
	b.goodTask(goodIDs+2, []byte("\x00before"))
	f()
	b.event(func(e *engine.Engine) { e.SessionEnded(b.bad.id) })
	b.check("after the connection's end")
	b.pass(time.Second)
	b.check("a second later")
	b.event(func(*engine.Engine) { b.dying = append(b.dying, b.bad.id) })
	for _, sid := range slices.Sorted(maps.Keys(b.n.clients)) {
		if cl := b.n.clients[sid]; cl != nil && cl.job == badJob {
			b.event(func(*engine.Engine) { b.dying = append(b.dying, sid) })
		}
	}
	b.pass(time.Second)
	b.check("after the deaths")
	b.wantGood(kept, goodText)
	b.goodTask(goodIDs+3, []byte("\x00after"))
	b.event(func(*engine.Engine) { b.dying = append(b.dying, b.good.id) })
	for k := range 100 {
		if b.pass(time.Second); k == 99 || b.n.eng.Empty(false) == nil {
			break
		}
	}
	if err := b.n.eng.Empty(false); err != nil {
		b.t.Fatal(fmt.Errorf("after all: %w", err))
	}
}
