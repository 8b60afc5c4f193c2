package sim

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"gray/internal/core/engine"
	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

const inlineMax = 256

// proc is a client process: a driver or a worker.
type proc struct {
	w       *World
	n       *node
	sid     engine.SessionID
	driver  bool
	job     ids.Job
	alive   bool
	through bool                     // it leaves by itself: all that it wrote is read
	stream  []func(e *engine.Engine) // written, not yet read by the daemon
	reading bool
	eof     func() // what happens when the stream has been read to its end
	threads map[uint32]*thread
	refs    map[ids.ObjectID]*ref
	views   map[ids.ObjectID]int
	next    ids.Unique
	exec    []*packet
	fns     map[uint32]bool
	tmpl    map[string]uint32
	globals []ids.ObjectID
	sent    uint64
	limit   uint64
	// packages are its environment's, of a worker.
	packages  string
	fn        ids.ObjectID
	specs     []string
	count     int
	quiet     int                 // threads that have ended
	weak      []ids.ActorID       // actors that it knows by name
	loose     map[ids.Unique]bool // actors whose queue here may wait for a task
	seqs      map[queueKey]int
	body      *body // of an actor's worker
	running   run   // of a worker: the task whose code runs
	cancelled bool  // that was cancelled
}

// ref is what a process counts of an id: handles in the program, deliveries from the daemon.
type ref struct {
	handles    int
	deliveries uint32
}

// packet is one thing on a worker's exec queue.
type packet struct {
	kind  packetKind
	x     *execute
	no    uint32
	at    uint64
	size  uint64
	stamp uint64
}

type packetKind uint8

const (
	packSetup packetKind = iota
	packTemplate
	packExecute
	packExit
)

// execute is an EXECUTE as a worker has decoded it.
type execute struct {
	u         ids.Unique
	attempt   uint32
	tmpl      uint32
	returns   uint32
	flags     uint16
	job       ids.Job
	stream    bool
	deps      []*val
	contained []ids.ObjectID
	args      []byte
}

// val is a value in a process. It holds its contained refs, and a view of the arena if it lies there.
type val struct {
	id        ids.ObjectID
	status    uint8
	arena     bool
	off, size uint64
	contained []ids.ObjectID
	inline    []byte
	away      bool // an item that came without its value
}

func copyVal(v *engine.Value) *val {
	return &val{id: v.ID, status: v.Status, arena: v.Arena, off: v.Off, size: v.Size, contained: slices.Clone(v.Contained), inline: slices.Clone(v.Inline)}
}

// errorKind is the kind of error that a value is, or "".
func (v *val) errorKind() string {
	if v.status == 0 {
		return ""
	}
	kind, _, _ := strings.Cut(string(v.inline[1:]), "\x00")
	return kind
}

func (w *World) newProc(n *node, sid engine.SessionID, driver bool) *proc {
	return &proc{
		w: w, n: n, sid: sid, driver: driver, alive: true, threads: map[uint32]*thread{}, refs: map[ids.ObjectID]*ref{},
		views: map[ids.ObjectID]int{}, fns: map[uint32]bool{}, loose: map[ids.Unique]bool{}, seqs: map[queueKey]int{}, tmpl: map[string]uint32{},
	}
}

func (p *proc) String() string { return fmt.Sprintf("node %d session %d", p.n.index, p.sid) }

// write puts a frame on the stream.
func (p *proc) write(f func(e *engine.Engine)) {
	if !p.alive {
		return
	}
	p.stream = append(p.stream, f)
	p.read()
}

// read lets the daemon read some frames of the stream at a time.
func (p *proc) read() {
	if p.reading {
		return
	}
	p.reading = true
	p.w.after(p.w.delay(), func() {
		p.reading = false
		if !p.n.alive {
			return
		}
		if len(p.stream) > 0 {
			p.w.hit()
			k := 1 + p.w.rng.IntN(len(p.stream))
			batch := p.stream[:k:k]
			p.stream = p.stream[k:]
			p.n.do(func(e *engine.Engine) {
				for _, f := range batch {
					f(e)
				}
			})
		}
		if len(p.stream) > 0 {
			p.read()
		} else if p.eof != nil {
			f := p.eof
			p.eof = nil
			p.w.after(p.w.delay(), f)
		}
	})
}

// kill ends the process. Of what it wrote, a part may not have left it. With tell the daemon notices.
func (p *proc) kill(tell bool) {
	if !p.alive {
		return
	}
	p.w.hit()
	p.alive = false
	if p.driver {
		p.w.over[p.job] = true
	}
	for _, c := range sorted(p.threads) {
		p.threads[c].stop()
	}
	if len(p.stream) > 0 && !p.through {
		p.stream = p.stream[:p.w.rng.IntN(len(p.stream)+1)]
	}
	if !tell {
		return
	}
	if p.driver && p.w.chance(0.5) { // its death is seen before its last words are read
		p.w.after(p.w.delay(), p.gone)
		return
	}
	p.eof = p.gone
	p.read()
}

// gone tells the daemon that the process is dead.
func (p *proc) gone() {
	n := p.n
	if n.procs[p.sid] != p || !n.alive {
		return
	}
	delete(n.procs, p.sid)
	p.w.hit()
	if !p.driver {
		p.w.tracef("%s: worker gone", p)
		if p.body != nil {
			p.w.Stats.Ends++
		}
		n.do(func(e *engine.Engine) { e.WorkerGone(p.sid, fault.WorkerCrashed, "its process died") })
		n.do(func(e *engine.Engine) { e.SessionGone(p.sid) })
		return
	}
	p.w.tracef("%s: driver gone", p)
	n.do(func(e *engine.Engine) { e.SessionGone(p.sid) })
	delete(n.jobs, p.job)
	p.w.endJob(n, p.job)
}

// deliver counts a delivery of an id, with a handle for it.
func (p *proc) deliver(id ids.ObjectID) {
	r := p.refs[id]
	if r == nil {
		r = &ref{}
		p.refs[id] = r
	}
	r.handles++
	r.deliveries++
}

// own is a handle for an id that the process makes itself.
func (p *proc) own(id ids.ObjectID) ids.ObjectID {
	p.deliver(id)
	return id
}

func (p *proc) copyRef(id ids.ObjectID) ids.ObjectID {
	p.refs[id].handles++
	return id
}

// drop ends a handle; with the last one the claim is released.
func (p *proc) drop(id ids.ObjectID) {
	r := p.refs[id]
	if r == nil {
		p.w.failf("sim: %s drops a ref to %s that it does not hold", p, id)
		return
	}
	if r.handles--; r.handles > 0 {
		return
	}
	delete(p.refs, id)
	for _, c := range sorted(p.threads) {
		delete(p.threads[c].watched, id)
		delete(p.threads[c].ready, id)
	}
	d := r.deliveries
	p.write(func(e *engine.Engine) { e.Release(p.sid, id, d) })
}

// take makes a value the process's own: its refs are delivered, its bytes are looked at.
func (p *proc) take(v *val) *val {
	for _, c := range v.contained {
		p.deliver(c)
	}
	if v.arena {
		p.views[v.id]++
	}
	p.w.seen(p, v)
	return v
}

// discard ends the use of a value.
func (p *proc) discard(v *val) {
	if v.arena {
		p.w.seen(p, v) // its bytes must still be the same
		p.views[v.id]--
		id := v.id
		p.write(func(e *engine.Engine) { e.Unpin(p.sid, id, 1) })
	}
	for _, c := range v.contained {
		p.drop(c)
	}
	v.contained = nil
}

// thread is a thread of a client with its channel; its program is a coroutine.
type thread struct {
	p       *proc
	ch      engine.Chan
	pipe    *pipe
	resumeF func() (struct{}, bool)
	stopF   func()
	yield   func(struct{}) bool
	req     uint32
	cur     *answers // of the present request
	watched map[ids.ObjectID]bool
	ready   map[ids.ObjectID]bool
	doing   string
	cut     bool // the present request is to be given up
	ended   bool
	path    string // of the task that it runs; "" in a driver
	streams []*reading
	kids    int
}

// answers is what has come for a request.
type answers struct {
	req     uint32
	vals    []*val
	done    bool
	failed  fault.Kind
	off     uint64
	created bool
	limit   uint64
	items   []ids.ObjectID
	ended   bool
	reply   any
}

type killed struct{}

// start runs body as a coroutine.
func (p *proc) start(no uint32, body func(t *thread)) *thread {
	t := &thread{p: p, ch: engine.Chan{Session: p.sid, Chan: no}, pipe: &pipe{w: p.w}, watched: map[ids.ObjectID]bool{}, ready: map[ids.ObjectID]bool{}}
	p.threads[no] = t
	t.resumeF, t.stopF = iter.Pull(func(yield func(struct{}) bool) {
		defer func() {
			t.ended = true
			if r := recover(); r != nil {
				if _, ok := r.(killed); !ok {
					panic(fmt.Sprintf("%v, in a program\n%s", r, frames()))
				}
			}
		}()
		t.yield = yield
		body(t)
	})
	return t
}

func (t *thread) resume() {
	if !t.ended && t.p.alive && t.p.w.fail == nil {
		t.resumeF()
	}
}

func (t *thread) stop() {
	t.ended = true
	t.pipe.down = true
	t.stopF()
}

// park gives the control back until something happens to the thread.
func (t *thread) park() {
	if !t.yield(struct{}{}) {
		panic(killed{})
	}
}

func (t *thread) sleep(d time.Duration) {
	woke := false
	t.p.w.after(d, func() {
		woke = true
		t.p.w.hit()
		t.resume()
	})
	for !woke {
		t.park()
	}
}

// begin starts a request.
func (t *thread) begin(doing string) *answers {
	t.req++
	t.cur = &answers{req: t.req}
	t.doing, t.cut = doing, false
	return t.cur
}

func (t *thread) finish() {
	t.cur, t.doing = nil, ""
}

// get asks for values; patience 0 waits for ever. It returns what came, in the order in which it came.
func (t *thread) get(list []ids.ObjectID, patience time.Duration) []*val {
	t.p.w.Stats.Gets++
	a := t.begin(fmt.Sprintf("get %s", shorts(list)))
	packed := pack(list)
	t.p.write(func(e *engine.Engine) { e.Get(t.ch, a.req, packed) })
	if patience > 0 {
		t.p.w.after(patience, func() {
			if t.cur == a {
				t.cut = true
				t.resume()
			}
		})
	}
	told := false
	for !a.done {
		if t.cut && !told {
			told = true
			if t.p.w.chance(0.3) {
				break // the next request on the channel replaces it
			}
			t.p.write(func(e *engine.Engine) { e.CancelReq(t.ch, a.req) })
			continue
		}
		t.park()
	}
	if !t.cut && len(a.vals) != len(list) {
		t.p.w.failf("%s: get of %d objects was done after %d values", t.p, len(list), len(a.vals))
	}
	if a.done || t.p.w.chance(0.5) {
		t.finish()
		return a.vals
	}
	// A get that is merely forgotten goes on holding the channel, so it is replaced by an empty one.
	t.finish()
	t.get(nil, 0)
	return a.vals
}

// wait waits until need of the ids are ready.
func (t *thread) wait(list []ids.ObjectID, need int, here bool, patience time.Duration) {
	a := t.begin(fmt.Sprintf("wait %d of %s", need, shorts(list)))
	if patience > 0 {
		t.p.w.after(patience, func() {
			if t.cur == a {
				t.cut = true
				t.resume()
			}
		})
	}
	var fresh []ids.ObjectID
	for _, id := range list {
		if !t.watched[id] {
			t.watched[id] = true
			fresh = append(fresh, id)
		}
	}
	count := func() (k int) {
		for _, id := range list {
			if t.ready[id] {
				k++
			}
		}
		return k
	}
	for first := true; count() < need && !t.cut; first = false {
		if first || a.done {
			if !first {
				t.req++
				a.req, a.done = t.req, false
			}
			req, packed := a.req, pack(fresh)
			fresh = nil
			t.p.write(func(e *engine.Engine) { e.Wait(t.ch, req, here, packed) })
		}
		t.park()
	}
	if len(fresh) > 0 || (t.cut && !a.done) {
		req, packed := a.req, pack(fresh)
		t.p.write(func(e *engine.Engine) {
			if len(packed) > 0 {
				e.Wait(t.ch, req, here, packed)
			}
			e.CancelReq(t.ch, req)
		})
	}
	t.finish()
}

// reading is a stream that a thread has called.
type reading struct {
	gen  ids.ObjectID
	next uint32
}

// read takes the next items of one of the thread's streams; sometimes it gives up.
func (t *thread) read(r *reading) (items []ids.ObjectID, ended bool) {
	p, w := t.p, t.p.w
	w.Stats.Reads++
	a := t.begin("read " + short(r.gen))
	from, read, beside := r.next, r.next-uint32(w.rng.IntN(2)), w.chance(0.3)
	p.write(func(e *engine.Engine) { e.Next(t.ch, a.req, r.gen, from, read, beside) })
	if w.chance(0.3) {
		p.write(func(e *engine.Engine) { e.CancelReq(t.ch, a.req) })
	}
	for !a.done {
		t.park()
	}
	t.finish()
	r.next += uint32(len(a.items))
	return a.items, a.ended
}

// leave ends the use of a stream.
func (t *thread) leave(k int) {
	gen := t.streams[k].gen
	t.streams = slices.Delete(t.streams, k, k+1)
	if t.p.w.chance(0.7) {
		t.p.write(func(e *engine.Engine) { e.DropStream(t.p.sid, gen) })
	}
	t.p.drop(gen)
}

// generate sends a generator's items; it returns what it raises.
func (t *thread) generate(x *execute, mine []ids.ObjectID) string {
	w := t.p.w
	index := x.returns + 2
	for range w.rng.IntN(8) {
		if !t.item(x, index, mine) {
			return "STORE_FULL"
		}
		index++
		if w.chance(0.3) {
			t.sleep(w.delay())
		}
		t.maybeDie()
	}
	return ""
}

// item sends what a generator yields; false if the store has no room for it.
func (t *thread) item(x *execute, index uint32, mine []ids.ObjectID) bool {
	p, w := t.p, t.p.w
	id := x.out(p, index)
	if w.chance(0.3) {
		t.credit(x, index)
	}
	contained := t.pick(mine, w.rng.IntN(3))
	tag := w.make(id, contained)
	out := engine.Output{Contained: contained}
	if w.chance(0.6) {
		out.Value = inlineValue(tag, w.size(inlineMax-16))
		out.Size = uint64(len(out.Value))
	} else {
		out.Arena, out.Size = true, uint64(inlineMax+w.size(w.cfg.Large))
		off, ok := t.create(id, out.Size)
		if !ok {
			return false
		}
		p.n.store.write(off, out.Size, tag)
	}
	w.Stats.Items++
	p.write(func(e *engine.Engine) { e.Item(p.sid, x.u, x.attempt, index, &out) })
	return true
}

// credit waits until a generator may yield an item.
func (t *thread) credit(x *execute, index uint32) {
	id := x.out(t.p, index)
	a := t.begin("stream credit " + short(id))
	t.p.write(func(e *engine.Engine) { e.StreamCredit(t.ch, a.req, id, x.attempt, index) })
	for a.limit == 0 {
		t.park()
	}
	t.finish()
}

// create asks for room in the arena; false when there was none.
func (t *thread) create(id ids.ObjectID, size uint64) (uint64, bool) {
	a := t.begin("create " + short(id))
	t.p.write(func(e *engine.Engine) { e.Create(t.ch, a.req, id, size) })
	for !a.created && a.failed == "" {
		t.park()
	}
	t.finish()
	return a.off, a.created
}

// spend takes a frame from the job's credit, and waits for more if there is none.
func (t *thread) spend(bytes int) {
	p := t.p
	for p.sent+uint64(bytes) > p.limit {
		a := t.begin("credit")
		total := p.sent
		p.write(func(e *engine.Engine) { e.NeedCredit(t.ch, a.req, total) })
		for a.limit == 0 {
			t.park()
		}
		p.limit = max(p.limit, a.limit)
		t.finish()
	}
	p.sent += uint64(bytes)
}

func pack(list []ids.ObjectID) ids.List {
	l := make(ids.List, 0, len(list)*ids.ObjectSize)
	for k := range list {
		l = append(l, list[k][:]...)
	}
	return l
}
