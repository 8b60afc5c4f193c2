package engine

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gray/internal/core/actor"
	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

// TestRandomActors has the drivers of one to three nodes create, call, kill and drop actors, with links that deliver in any
// interleaving, processes and nodes that die at any time, and a head whose news are late. All invariants must hold after
// each event; in the end every call has one answer, what may not run twice did not, the calls of a caller ran in their
// order, and nothing is left anywhere.
func TestRandomActors(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, rt)
		rt.Repeat(map[string]func(*rapid.T){
			"put": w.put, "task": w.task, "create": w.create, "call": w.call, "call-again": w.call, "visit": w.visit, "drop": w.drop, "kill": w.kill,
			"cancel": w.cancel, "deliver": w.deliver, "deliver-more": w.deliver, "news": w.news, "start": w.start, "receive": w.receive,
			"receive-more": w.receive, "end": w.end, "end-more": w.end, "crash": w.crash, "reap": w.reap, "copied": w.copied, "tick": w.tick,
			"fence": w.fence, "node-dies": w.nodeDies, "node-is-gone": w.nodeIsGone,
		})
		w.finish()
	})
}

type world struct {
	rt       *rapid.T
	rigs     []*rig // alive
	all      []*rig
	clients  map[*rig]*client
	hd       *head
	actors   []*handle
	held     map[*rig][]ids.ObjectID
	calls    map[ids.Unique]*oneCall
	list     []*oneCall
	running  map[place][]Execute
	dying    map[place]bool // told to leave, or killed
	visits   map[ids.Unique]*handle
	visitors map[place]*handle
	last     map[string]int // per caller and group: the latest call that started
	dead     []*rig
	unaware  map[*rig][]*rig    // who has not heard of a dead rig
	known    map[ids.Owner]bool // dead rigs that somebody has heard of
}

type place struct {
	r *rig
	w SessionID
}

// oneCall is a call as the test sees it.
type oneCall struct {
	n      int
	key    string
	once   bool // may not run twice
	sorted bool
	starts int
	out    ids.ObjectID
	by     *client
	driver bool
}

// inRapid has a rig report to rapid, which then looks for a smaller case.
type inRapid struct {
	testing.TB
	rt *rapid.T
}

func (t inRapid) Helper()                         { t.rt.Helper() }
func (t inRapid) Fatal(args ...any)               { t.rt.Fatal(args...) }
func (t inRapid) Fatalf(text string, args ...any) { t.rt.Fatalf(text, args...) }

func newWorld(t *testing.T, rt *rapid.T) *world {
	w := &world{
		rt: rt, clients: map[*rig]*client{}, held: map[*rig][]ids.ObjectID{}, calls: map[ids.Unique]*oneCall{}, running: map[place][]Execute{},
		dying: map[place]bool{}, visits: map[ids.Unique]*handle{}, visitors: map[place]*handle{}, last: map[string]int{}, unaware: map[*rig][]*rig{}, known: map[ids.Owner]bool{},
	}
	for k := range rapid.IntRange(1, 3).Draw(rt, "nodes") {
		r := newRig(inRapid{t, rt}, settings{owner: ids.Owner(k + 1), cpus: rapid.IntRange(1, 2).Draw(rt, "cpus"), store: 1 << 20})
		r.quiet = true
		r.dies = func(sid SessionID) { w.dying[place{r, sid}] = true }
		for _, o := range w.rigs {
			meet(o, r)
		}
		w.rigs = append(w.rigs, r)
		w.clients[r] = r.driver(uint32(k + 1))
	}
	w.all = w.rigs
	w.hd = newHead(w.rigs...)
	return w
}

func pick[T any](rt *rapid.T, what string, list []T) T {
	if len(list) == 0 {
		rt.Skip("no " + what)
	}
	return list[rapid.IntRange(0, len(list)-1).Draw(rt, what)]
}

func (w *world) some(rt *rapid.T, r *rig, n int) (l []ids.ObjectID) {
	for range rapid.IntRange(0, min(n, len(w.held[r]))).Draw(rt, "refs") {
		l = append(l, pick(rt, "ref", w.held[r]))
	}
	return l
}

func (w *world) put(rt *rapid.T) {
	r := pick(rt, "node", w.rigs)
	c := w.clients[r]
	if rapid.IntRange(0, 3).Draw(rt, "large") > 0 {
		w.held[r] = append(w.held[r], c.put("v", w.some(rt, r, 1)...))
		return
	}
	id := c.id()
	r.do(func(e *Engine) { e.Create(c.ch, 1, id, 200<<10) })
	r.do(func(e *Engine) {
		if req, ok := e.sessions[c.sid].creates[e.find(id)]; ok && req == 0 {
			e.Seal(c.sid, id, 0, nil)
		} else {
			e.Abort(c.sid, id)
		}
	})
	w.held[r] = append(w.held[r], id)
}

func (w *world) task(rt *rapid.T) {
	r := pick(rt, "node", w.rigs)
	w.held[r] = append(w.held[r], w.clients[r].submit(pick(rt, "fn", []string{"f", "f retries=2"}), 1, w.some(rt, r, 1), nil).Object(w.clients[r].job, 1))
}

func (w *world) create(rt *rapid.T) {
	r := pick(rt, "node", w.rigs)
	words := pick(rt, "words", []string{"", "restarts=1", "restarts=-1", "max=2 async io=1", "hold", "restarts=2 spread", "hold spread", "max=3 restarts=-1", "cpu=0"})
	w.actors = append(w.actors, w.clients[r].actor(words, w.some(rt, r, 1)...))
}

var methods = []string{"m", "m", "m retries=1", "m retries=-1", "m unordered", "m in=io", "m in=io retries=2"}

func (w *world) call(rt *rapid.T) {
	h := pick(rt, "actor", w.actors)
	r := pick(rt, "caller's node", w.rigs)
	h = &handle{client: w.clients[r], id: h.id, weak: true}
	words := pick(rt, "method", methods)
	w.called(h, words, h.send(words, &ActorSubmission{Submission: Submission{Deps: w.some(rt, r, 1), Contained: w.some(rt, r, 1), Returns: 1}}), true)
}

func (w *world) called(h *handle, words string, out ids.ObjectID, driver bool) {
	spec := h.spec(h.job, "method "+words)
	c := &oneCall{n: len(w.calls), once: spec.MaxRetries == 0, sorted: spec.Ordered && spec.MaxRetries == 0, out: out, by: h.client, driver: driver}
	c.key = fmt.Sprintf("%d %d %s %s", h.e.cfg.Owner, h.sid, h.id, spec.Group)
	w.calls[out.Unique()] = c
	w.list = append(w.list, c)
}

// visit runs a task that has a handle, somewhere.
func (w *world) visit(rt *rapid.T) {
	h := pick(rt, "actor", w.actors)
	if !slices.Contains(w.rigs, h.rig) || h.weak {
		rt.Skip("no handle that counts")
	}
	u := h.submit(pick(rt, "fn", []string{"visit", "visit spread"}), 1, nil, []ids.ObjectID{h.id.Handle()})
	w.visits[u] = h
	w.held[h.rig] = append(w.held[h.rig], u.Object(h.job, 1))
}

func (w *world) drop(rt *rapid.T) {
	if rapid.Bool().Draw(rt, "handle") {
		h := pick(rt, "actor", w.actors)
		if !h.weak && slices.Contains(w.rigs, h.rig) {
			h.weak = true
			h.drop()
		}
		return
	}
	r := pick(rt, "node", w.rigs)
	id := pick(rt, "ref", w.held[r])
	k := slices.Index(w.held[r], id)
	w.held[r] = slices.Delete(w.held[r], k, k+1)
	w.clients[r].release(id)
}

func (w *world) kill(rt *rapid.T) {
	h := pick(rt, "actor", w.actors)
	no := rapid.Bool().Draw(rt, "no restart")
	if slices.Contains(w.rigs, h.rig) {
		h.do(func(e *Engine) { e.KillActor(h.id, no) })
	}
}

func (w *world) cancel(rt *rapid.T) {
	c := pick(rt, "call", w.list)
	if c.driver && slices.Contains(w.rigs, c.by.rig) {
		c.by.do(func(e *Engine) { e.Cancel(c.by.sid, c.out, Cancelling{Recursive: true}) })
	}
}

func (w *world) deliver(rt *rapid.T) {
	type link struct {
		r  *rig
		no NodeNo
	}
	var links []link
	for _, r := range w.all {
		for _, no := range sortedKeys(r.wires) {
			if len(r.wires[no]) > 0 && slices.Contains(w.rigs, r.peers[no]) {
				links = append(links, link{r, no})
			}
		}
	}
	l := pick(rt, "link", links)
	m := l.r.wires[l.no][0]
	l.r.wires[l.no] = l.r.wires[l.no][1:]
	l.r.deliver(l.no, m)
}

func (w *world) news(rt *rapid.T) {
	w.hear()
	w.hd.next(pick(rt, "node", w.rigs))
}

// hear has the head take in what was said of actors, and looks whether it makes sense.
func (w *world) hear() {
	was := map[ids.ActorID]int{}
	for id, rows := range w.hd.rows {
		was[id] = len(rows)
	}
	w.hd.hear()
	for _, r := range w.rigs { // actors of which their manager had not told anything when it died
		for _, id := range sortedActors(r.watched) {
			if len(w.hd.rows[id]) == 0 && w.known[id.Unique().Owner()] {
				w.hd.rows[id] = []actor.Row{{ID: id, State: actor.Dead, Death: actor.Death{Cause: actor.OwnerDied}}}
			}
		}
	}
	for _, id := range sortedActors(w.hd.rows) {
		rows := w.hd.rows[id]
		for k := max(was[id], 1); k < len(rows); k++ {
			o, n := rows[k-1], rows[k]
			further := n.State == o.State && n.Incarnation == o.Incarnation+1 && o.State != actor.Alive
			dying := n.State == o.State && n.Incarnation == o.Incarnation && n.Dying && !o.Dying
			if !o.State.CanGo(n.State) && !further && !dying || n.Incarnation < o.Incarnation {
				w.rt.Fatalf("an actor goes from %s %d to %s %d", o.State, o.Incarnation, n.State, n.Incarnation)
			}
		}
	}
}

func (w *world) start(rt *rapid.T) { pick(rt, "node", w.rigs).workers() }

// places are the workers to which something may happen.
func (w *world) places(ok func(p place, wk *worker) bool) (list []place) {
	for _, r := range w.rigs {
		for _, sid := range r.e.pool.sorted() {
			if p := (place{r, sid}); ok(p, r.e.pool.all[sid]) {
				list = append(list, p)
			}
		}
	}
	return list
}

func (w *world) receives(p place, wk *worker) bool {
	return p.r.taken[p.w] < len(p.r.execs[p.w]) && (len(w.running[p]) == 0 || wk.host != nil && !wk.host.ordered())
}

func (w *world) receive(rt *rapid.T) { w.takeAt(pick(rt, "worker", w.places(w.receives))) }

func (w *world) takeAt(p place) {
	x := p.r.take(p.w)
	w.running[p] = append(w.running[p], x)
	if h := w.visits[x.Unique]; h != nil && p.r.e.pool.all[p.w].host == nil {
		w.visitors[p] = h.by(p.r.asClient(p.w))
	}
	c := w.calls[x.Unique]
	if c == nil {
		return
	}
	if c.starts++; c.starts > 1 && c.once {
		w.rt.Fatalf("call %d, which may not run twice, ran %d times", c.n, c.starts)
	}
	if c.sorted {
		if last, ok := w.last[c.key]; ok && last > c.n {
			w.rt.Fatalf("call %d of %q ran after call %d", c.n, c.key, last)
		}
		w.last[c.key] = c.n
	}
}

func (w *world) end(rt *rapid.T) {
	p := pick(rt, "worker", w.places(func(p place, _ *worker) bool { return len(w.running[p]) > 0 }))
	if v := w.visitors[p]; v != nil && rapid.Bool().Draw(rt, "calls") {
		words := pick(rt, "method", methods)
		if v.next >= v.e.sessions[p.w].blocks[0].end-1 {
			rt.Skip("no more ids")
		}
		w.called(v, words, v.call(words), false)
		return
	}
	outcome := pick(rt, "outcome", []uint8{OutcomeValues, OutcomeValues, OutcomeValues, OutcomeRaised, OutcomeRetry, OutcomeExit})
	w.endAt(p, rapid.IntRange(0, len(w.running[p])-1).Draw(rt, "which"), outcome)
}

func (w *world) endAt(p place, k int, outcome uint8) {
	x := w.running[p][k]
	wk := p.r.e.pool.all[p.w]
	creation := wk.host != nil && wk.host.task != 0
	switch {
	case wk.host == nil && outcome == OutcomeExit, creation && outcome == OutcomeRetry:
		outcome = OutcomeRaised
	}
	w.running[p] = slices.Delete(w.running[p], k, k+1)
	v := "v"
	if creation && outcome == OutcomeRaised {
		v = "!raised"
	}
	p.r.end(p.w, x, outcome, v)
	if outcome == OutcomeExit {
		w.dying[p] = true
		return
	}
	if creation && outcome == OutcomeValues {
		w.onlyOne(wk.host.a.id)
	}
	if len(w.running[p]) == 0 {
		w.letGo(p)
	}
}

// onlyOne checks that an actor lives once at most.
func (w *world) onlyOne(id ids.ActorID) {
	n := 0
	for _, r := range w.rigs {
		if a := r.e.actors[id.Unique()]; a != nil && a.host != nil && a.host.up && len(w.unaware[r]) == 0 {
			n++
		}
	}
	if n > 1 {
		w.rt.Fatalf("actor %s lives %d times", id, n)
	}
}

// letGo has a worker release all that it was given.
func (w *world) letGo(p place) {
	delete(w.visitors, p)
	p.r.do(func(e *Engine) {
		if s := e.sessions[p.w]; s != nil {
			e.dropClaims(s)
			for _, i := range sortedKeys(s.pins) {
				e.unpin(s, i, s.pins[i])
			}
		}
	})
}

func (w *world) crash(rt *rapid.T) {
	w.die(pick(rt, "worker", w.places(func(place, *worker) bool { return true })))
}

// reap ends a process that was told to.
func (w *world) reap(rt *rapid.T) {
	w.die(pick(rt, "worker", w.places(func(p place, _ *worker) bool { return w.dying[p] })))
}

func (w *world) die(p place) {
	delete(w.running, p)
	delete(w.dying, p)
	delete(w.visitors, p)
	p.r.started = slices.DeleteFunc(p.r.started, func(s SessionID) bool { return s == p.w })
	p.r.do(func(e *Engine) { e.WorkerGone(p.w, fault.WorkerCrashed, "killed") })
	delete(p.r.execs, p.w)
	delete(p.r.taken, p.w)
}

func (w *world) copied(rt *rapid.T) {
	r := pick(rt, "node", w.rigs)
	f := pick(rt, "copy", r.fetches)
	r.fetches = slices.Delete(r.fetches, slices.Index(r.fetches, f), slices.Index(r.fetches, f)+1)
	r.do(func(e *Engine) {
		e.Fetched(f.key, r.e.peers[f.from] != nil && rapid.IntRange(0, 4).Draw(rt, "fails") > 0)
	})
}

func (w *world) tick(rt *rapid.T) {
	pick(rt, "node", w.rigs).pass(time.Duration(rapid.IntRange(1, 30).Draw(rt, "ms")) * time.Millisecond)
}

// fence stops a node's work, or lets it go on.
func (w *world) fence(rt *rapid.T) {
	r := pick(rt, "node", w.rigs)
	if !r.e.fenced && rapid.IntRange(0, 3).Draw(rt, "really") > 0 {
		rt.Skip("it lives")
	}
	r.do(func(e *Engine) { e.Fence(!e.fenced) })
}

// nodeDies ends a node. What it has sent may still arrive, until the others hear that it is dead, each in its time.
func (w *world) nodeDies(rt *rapid.T) {
	if len(w.rigs) == 1 || rapid.IntRange(0, 4).Draw(rt, "really") > 0 {
		rt.Skip("it lives")
	}
	w.hear()
	r := pick(rt, "node", w.rigs)
	w.rigs = slices.DeleteFunc(slices.Clone(w.rigs), func(o *rig) bool { return o == r })
	for _, o := range w.rigs {
		o.wires[NodeNo(r.e.cfg.Owner)] = nil
		w.unaware[o] = append(w.unaware[o], r)
	}
	w.dead = append(w.dead, r)
}

func (w *world) nodeIsGone(rt *rapid.T) {
	var list []*rig
	for _, r := range w.rigs {
		if len(w.unaware[r]) > 0 {
			list = append(list, r)
		}
	}
	w.tellDead(pick(rt, "node", list))
}

// tellDead has a node hear of the first dead one that it does not know of. The head ends the actors that it managed.
func (w *world) tellDead(r *rig) {
	d := w.unaware[r][0]
	w.unaware[r] = w.unaware[r][1:]
	w.hear()
	for _, id := range sortedActors(w.hd.rows) {
		rows := w.hd.rows[id]
		if row := rows[len(rows)-1]; row.Manager == d.e.cfg.Node && row.State != actor.Dead {
			row.State, row.Death.Cause = actor.Dead, actor.OwnerDied
			w.hd.rows[id] = append(rows, row)
		}
	}
	w.known[d.e.cfg.Owner] = true
	d.wires[NodeNo(r.e.cfg.Owner)] = nil
	no := NodeNo(d.e.cfg.Owner)
	r.wires[no] = nil
	delete(r.peers, no)
	r.do(func(e *Engine) { e.PeerGone(no, "silent") })
	r.do(func(e *Engine) { e.JobEnded(w.clients[d].job) })
}

// quiet lets everything run to its end.
func (w *world) quiet() {
	for k := range 200 {
		busy := k < 3
		for _, r := range w.rigs {
			for len(w.unaware[r]) > 0 {
				w.tellDead(r)
				busy = true
			}
			if r.e.fenced {
				r.do(func(e *Engine) { e.Fence(false) })
			}
			busy = busy || len(r.started) > 0
			r.workers()
			for len(r.fetches) > 0 {
				f := r.fetches[0]
				r.fetches = r.fetches[1:]
				r.do(func(e *Engine) { e.Fetched(f.key, e.peers[f.from] != nil) })
				busy = true
			}
			for _, no := range sortedKeys(r.wires) {
				busy = busy || len(r.wires[no]) > 0
			}
		}
		carry(w.rigs...)
		w.hear()
		for _, r := range w.rigs {
			for w.hd.next(r) {
				busy = true
			}
		}
		for _, p := range w.places(func(place, *worker) bool { return true }) {
			for p.r.e.pool.all[p.w] != nil && w.receives(p, p.r.e.pool.all[p.w]) {
				w.takeAt(p)
				if len(w.running[p]) > 0 && p.r.e.pool.all[p.w].host == nil {
					break
				}
			}
			for len(w.running[p]) > 0 {
				w.endAt(p, 0, OutcomeValues)
				busy = true
			}
			if w.dying[p] && p.r.taken[p.w] == len(p.r.execs[p.w]) || w.dying[p] && p.r.e.pool.all[p.w].host != nil {
				w.die(p)
				busy = true
			}
		}
		for _, r := range w.rigs {
			r.pass(100 * time.Millisecond)
			for _, o := range w.rigs {
				if o != r && r.peers[NodeNo(o.e.cfg.Owner)] != nil {
					r.see(o)
				}
			}
		}
		if !busy {
			return
		}
	}
	w.rt.Fatal("it does not come to rest")
}

func (w *world) finish() {
	w.quiet()
	for _, h := range w.actors { // some wait for what others hold
		if slices.Contains(w.rigs, h.rig) {
			h.do(func(e *Engine) { e.KillActor(h.id, true) })
		}
	}
	w.quiet()
	for _, c := range w.list {
		if !slices.Contains(w.rigs, c.by.rig) || !c.driver {
			continue
		}
		if i := c.by.e.find(c.out); i == 0 || !c.by.e.objs.at(i).ready() {
			w.rt.Fatalf("call %d (%s) has no answer: %+v%s", c.n, c.key, c.by.e.Why([]ids.ObjectID{c.out}), c.by.e.Dump())
		}
	}
	for _, r := range w.rigs {
		r.do(func(e *Engine) { e.SessionGone(w.clients[r].sid) })
		for _, o := range w.all {
			r.do(func(e *Engine) { e.JobEnded(w.clients[o].job) })
		}
	}
	for range 3 {
		w.quiet()
		for _, p := range w.places(func(place, *worker) bool { return true }) {
			w.die(p)
		}
	}
	for _, r := range w.rigs {
		if err := r.e.Empty(false); err != nil {
			w.rt.Fatalf("node %d: %v%s", r.e.cfg.Owner, err, r.e.Dump())
		}
	}
}
