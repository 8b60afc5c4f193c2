package engine

import (
	"fmt"
	"slices"
)

// Check verifies the engine's structure: that its tables agree with each other. It is for tests, and costs time
// proportional to what there is. The first fault found is returned.
func (e *Engine) Check() error {
	c := &checker{e: e}
	c.tasks()
	c.queues()
	c.slots()
	c.workers()
	c.environs()
	c.actors()
	c.objects()
	c.holds()
	c.waiters()
	c.streams()
	c.memory()
	c.records()
	return c.err
}

type checker struct {
	e   *Engine
	err error
}

func (c *checker) failf(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

// tasks looks at each task by its state.
func (c *checker) tasks() {
	e, live := c.e, 0
	pending := map[uint32]int{}
	for _, i := range e.pool.pending {
		pending[i]++
	}
	for i := uint32(1); i < e.tasks.limit(); i++ {
		t := e.tasks.at(i)
		if t.state == taskNone {
			if t.unique != 0 {
				c.failf("task %x is in no state, but not released", uint64(t.unique))
			}
			continue
		}
		live++
		name := fmt.Sprintf("task %x (%s)", uint64(t.unique), t.state)
		own := t.owner == 0
		if at := e.remoteRun[runKey{t.unique}]; (at == i) != (!own || t.state == taskAway) {
			c.failf("%s: remoteRun names %d, the task is %d", name, at, i)
		}
		if hasSlot := t.slot != 0; hasSlot && e.slots.at(t.slot).task != i {
			c.failf("%s: its slot %d runs task %d", name, t.slot, e.slots.at(t.slot).task)
		}
		switch t.state {
		case taskWaiting, taskQueued, taskAway, taskHeld, taskOrdered:
			if t.slot != 0 || t.worker != 0 || e.bundles[i] != nil {
				c.failf("%s: has slot %d, worker %d, bundle %v", name, t.slot, t.worker, e.bundles[i] != nil)
			}
			if (t.state == taskHeld) == own && t.state != taskOrdered {
				c.failf("%s: owner %d", name, t.owner)
			}
		case taskFetching:
			if (t.slot == 0) != (t.call != nil) || e.bundles[i] == nil || t.worker != 0 {
				c.failf("%s: has slot %d, bundle %v, worker %d", name, t.slot, e.bundles[i] != nil, t.worker)
			}
		case taskAssigned:
			if t.slot == 0 || pending[i] != 1 {
				c.failf("%s: has slot %d, waits for a worker %d times", name, t.slot, pending[i])
			}
			delete(pending, i)
		case taskSent:
			if w := e.pool.all[t.worker]; w == nil || !w.has(i, t) {
				c.failf("%s: its worker %d does not have it", name, t.worker)
			}
		}
	}
	if live != e.tasks.live {
		c.failf("%d tasks live, %d are counted", live, e.tasks.live)
	}
	if len(pending) > 0 {
		c.failf("tasks %v wait for a worker, but are not assigned", sortedKeys(pending))
	}
	for i := range e.bundles {
		if st := e.tasks.at(i).state; st != taskFetching && st != taskAssigned && st != taskSent {
			c.failf("a bundle belongs to task %d, which is %s", i, st)
		}
	}
	for i := range e.covered {
		if t := e.tasks.at(i); t.state == taskNone || t.owner == 0 {
			c.failf("covered refs belong to task %d, which is %s of owner %d", i, t.state, t.owner)
		}
	}
}

// queues looks at the lists of tasks that wait for slots.
func (c *checker) queues() {
	e := c.e
	listed := 0
	walk := func(q *queue, want taskState, what string) {
		n, prev := 0, uint32(0)
		for i := q.head; i != 0; i = e.tasks.at(i).next {
			t := e.tasks.at(i)
			if t.state != want || t.prev != prev {
				c.failf("%s: task %x is %s, prev %d want %d", what, uint64(t.unique), t.state, t.prev, prev)
				return
			}
			prev = i
			n++
		}
		if n != q.n || (q.n > 0 && q.tail != prev) {
			c.failf("%s: %d tasks, %d counted, tail %d want %d", what, n, q.n, q.tail, prev)
		}
		listed += n
	}
	for _, sh := range e.shapes[1:] {
		if sh == nil {
			continue
		}
		sum := 0
		for _, q := range sh.queues {
			if q.n == 0 {
				c.failf("shape %d keeps an empty queue", sh.no)
			}
			sum += q.n
			walk(q, taskQueued, fmt.Sprintf("queue of shape %d", sh.no))
		}
		if sum != sh.backlog || (sum > 0) != slices.Contains(e.active, sh) {
			c.failf("shape %d: %d tasks, backlog %d, active %v", sh.no, sum, sh.backlog, slices.Contains(e.active, sh))
		}
		for no, a := range sh.away {
			if a.asked < 0 || a.reserved < 0 || a.slots < 0 || a.busy < 0 || a.reserved > a.asked {
				c.failf("shape %d at node %d: %+v", sh.no, no, *a)
			}
		}
	}
	for _, p := range e.peers {
		for _, q := range p.held {
			walk(q, taskHeld, fmt.Sprintf("tasks held for node %d", p.no))
		}
	}
	waiting := 0
	for i := uint32(1); i < e.tasks.limit(); i++ {
		if st := e.tasks.at(i).state; st == taskQueued || st == taskHeld {
			waiting++
		}
	}
	if waiting != listed {
		c.failf("%d tasks are queued, %d are in queues", waiting, listed)
	}
	for k, a := range e.asks {
		if e.peers[a.node] == nil || a.want <= 0 {
			c.failf("ask %d of node %d wants %d slots", k, a.node, a.want)
		}
	}
}

// slots adds up what is taken of the node's resources.
func (c *checker) slots() {
	e := c.e
	idle := map[uint32]bool{}
	for _, p := range e.peers {
		for _, l := range p.idle {
			for _, n := range l {
				if idle[n] {
					c.failf("slot %d is idle twice", n)
				}
				idle[n] = true
			}
		}
	}
	sum := e.res.Total().Clone()
	perShape := map[uint32]int{}
	n := 0
	for i := uint32(1); i < e.slots.limit(); i++ {
		s := e.slots.at(i)
		if s.since.IsZero() {
			continue
		}
		n++
		need := s.alloc.Need
		sum = sum.Sub(need)
		if s.alloc.Lent {
			sum = sum.Add(need.CPUOnly())
		}
		if s.owner == 0 && s.shape != 0 {
			perShape[s.shape]++
		}
		switch {
		case s.task == 0 && !idle[i] && s.actor == 0:
			c.failf("slot %d of owner %d runs nothing, and is not known to be idle", i, s.owner)
		case s.task != 0 && (idle[i] || e.tasks.at(s.task).slot != i):
			c.failf("slot %d runs task %d, whose slot is %d; idle %v", i, s.task, e.tasks.at(s.task).slot, idle[i])
		}
	}
	if n != e.slots.live {
		c.failf("%d slots live, %d are counted", n, e.slots.live)
	}
	for _, en := range e.res.Avail() {
		if sum.Get(en.Name) != en.Amount {
			c.failf("%d of %s is free, %d is the total less what slots have", en.Amount, e.cfg.Names.Text(en.Name), sum.Get(en.Name))
		}
		if en.Amount < 0 && en.Name != e.cpu {
			c.failf("%s is overdrawn: %d", e.cfg.Names.Text(en.Name), en.Amount)
		}
	}
	for _, sh := range e.shapes[1:] {
		if sh != nil && sh.slots != perShape[sh.no] {
			c.failf("shape %d counts %d slots, has %d", sh.no, sh.slots, perShape[sh.no])
		}
	}
}

// workers looks at the pool.
func (c *checker) workers() {
	e := c.e
	starting, blocked := 0, 0
	in, idle := map[*worker]string{}, 0
	for _, w := range e.pool.blank {
		in[w] = "blank"
	}
	for key, ws := range e.pool.idle {
		for _, w := range ws {
			if in[w] != "" || w.key != key {
				c.failf("%s is idle twice, or under the wrong key", w)
			}
			in[w] = "idle"
			idle++
		}
	}
	for sid, w := range e.pool.all {
		if w.state == workStarting {
			starting++
		}
		if w.blocked {
			blocked++
		}
		if (w.state == workIdle) != (in[w] == "idle") || (w.state == workBlank) != (in[w] == "blank") {
			c.failf("%s is %s, and listed as %q", w, w.state, in[w])
		}
		if (w.state == workBusy) != (len(w.fifo) > 0 || w.host != nil) && w.state != workLeaving {
			c.failf("%s is %s with %d tasks", w, w.state, len(w.fifo))
		}
		if e.sessions[sid] != w.s {
			c.failf("%s has no session", w)
		}
		for k, i := range w.fifo {
			t := e.tasks.at(i)
			if t.state != taskSent || t.worker != sid || (t.slot != 0) != (k == 0) {
				c.failf("%s: task %d of %d is %s, of worker %d, slot %d", w, k, len(w.fifo), t.state, t.worker, t.slot)
			}
		}
		if n := w.holds(e); w.blocked && n != 0 {
			if sl := e.slots.at(n); !sl.alloc.Lent && len(sl.alloc.Need.CPUOnly()) > 0 {
				c.failf("%s is blocked and lends nothing", w)
			}
		}
	}
	if idle != e.pool.nIdle {
		c.failf("%d workers are idle, %d are counted", idle, e.pool.nIdle)
	}
	if starting != e.pool.starting || blocked != e.pool.blocked {
		c.failf("%d workers start (%d counted), %d are blocked (%d counted)", starting, e.pool.starting, blocked, e.pool.blocked)
	}
}

// has tells whether a worker was sent a task.
func (w *worker) has(i uint32, t *task) bool {
	if w.host == nil {
		return slices.Contains(w.fifo, i)
	}
	return w.host.task == i || w.host.calls[t.unique] == i
}

// actors looks at the queues of callers, and at what hosts and managers keep.
func (c *checker) actors() {
	e, linked, hosts := c.e, 0, 0
	for u, a := range e.actors {
		if a.id.Unique() != u || len(a.order) != len(a.queues) {
			c.failf("actor %s: it is filed under %x, with %d queues of %d", a.id, uint64(u), len(a.order), len(a.queues))
		}
		if a.mgr == nil && a.host == nil && len(a.queues) == 0 {
			c.failf("actor %s: nobody here has to do with it", a.id)
		}
		sent := map[*group]int{}
		for _, q := range a.order {
			linked += c.callq(a, q, sent)
		}
		if h := a.host; h != nil {
			hosts++
			c.host(a, h, sent)
		}
		if m := a.mgr; m != nil {
			if m.task != 0 && (e.tasks.at(m.task).create == nil || e.tasks.at(m.task).unique != u) {
				c.failf("actor %s: its creation is task %d, which is something else", a.id, m.task)
			}
			if m.handle != (e.find(a.id.Handle()) != 0) && e.mine(a.id.Handle()) {
				c.failf("actor %s: handles %v", a.id, m.handle)
			}
		}
	}
	n, actors := 0, 0
	for i := uint32(1); i < e.tasks.limit(); i++ {
		if t := e.tasks.at(i); t.state != taskNone && t.call != nil {
			n++
			if t.call.a.queues[t.call.key] != t.call || e.actors[t.call.a.id.Unique()] != t.call.a {
				c.failf("call %x: its queue, or its actor, is forgotten", uint64(t.unique))
			}
		}
	}
	for _, w := range e.pool.all {
		if w.host != nil {
			actors++
		}
	}
	if n != linked || actors != e.pool.actors || hosts < actors {
		c.failf("%d calls are in queues, of %d; %d workers have actors, %d are counted, %d hosts", linked, n, actors, e.pool.actors, hosts)
	}
}

func (c *checker) callq(a *actorRec, q *callq, sent map[*group]int) (n int) {
	e, prev, seen, away := c.e, uint32(0), q.next == 0, 0
	var g *group
	if a.host != nil {
		g = a.host.group(q)
	}
	for i := q.head; i != 0; i = e.tasks.at(i).next {
		t := e.tasks.at(i)
		seen = seen || i == q.next
		switch {
		case t.call != q || !t.linked || t.prev != prev:
			c.failf("actor %s: call %x is misplaced in its queue", a.id, uint64(t.unique))
			return n
		case t.state == taskSent:
			sent[g]++
			away++
		case t.state == taskAway:
			away++
		case t.state == taskOrdered && !seen && a.state == "ALIVE" && !t.lost:
			c.failf("actor %s: call %x waits before the next to be sent", a.id, uint64(t.unique))
		}
		prev = i
		n++
	}
	late := 0
	for i := q.late.head; i != 0; i = e.tasks.at(i).next {
		t := e.tasks.at(i)
		if late++; t.call != q || t.linked || t.state != taskWaiting {
			c.failf("actor %s: call %x (%s) is said to wait for an argument", a.id, uint64(t.unique), t.state)
		}
	}
	if late != q.late.n {
		c.failf("actor %s: %d calls wait for arguments, %d are counted", a.id, late, q.late.n)
	}
	if n != q.n || q.tail != prev || !seen || away != q.sent {
		c.failf("actor %s: %d calls, %d counted; %d sent, %d counted; next is there: %v", a.id, n, q.n, away, q.sent, seen)
	}
	next := q.next
	if i, _ := e.ready(q); i != 0 && !a.dirty { // what can go is sent, or waits for room
		h := a.host
		switch {
		case q.key.peer == 0 && a.state == "ALIVE" && a.node != 0 && e.peers[a.node] != nil && q.sent < awayCalls && q.bytes < awayBytes,
			h != nil && h.up && h.since.IsZero() && (h.death == nil || h.leaving) && !q.listed:
			c.failf("actor %s: call %x could be sent, and was not", a.id, uint64(e.tasks.at(i).unique))
		}
	}
	q.next = next
	if g != nil && q.listed != slices.Contains(g.queues, q) {
		c.failf("actor %s: a queue is listed: %v; its group does not agree", a.id, q.listed)
	}
	return n + late
}

func (c *checker) host(a *actorRec, h *host, sent map[*group]int) {
	e := c.e
	if h.slot == 0 || e.slots.at(h.slot).actor != a.id.Unique() {
		c.failf("actor %s: its slot %d is not its own", a.id, h.slot)
	}
	if h.w != nil && (h.w.host != h || e.pool.all[h.w.s.id] != h.w) {
		c.failf("actor %s: its worker is another's", a.id)
	}
	sum := 0
	for name, g := range h.groups {
		sum += g.sent
		if g.sent != sent[g] {
			c.failf("actor %s: group %q has %d calls, %d are counted", a.id, name, sent[g], g.sent)
		}
		for _, q := range g.queues {
			if !q.listed {
				c.failf("actor %s: a queue of group %q does not know that it is listed", a.id, name)
			}
		}
	}
	if sum != len(h.calls) {
		c.failf("actor %s: %d calls are with its worker, %d are counted", a.id, len(h.calls), sum)
	}
}

// objects looks at each object by its state.
func (c *checker) objects() {
	e, live := c.e, 0
	for i := uint32(1); i < e.objs.limit(); i++ {
		o := e.objs.at(i)
		if e.objIndex[keyOf(o.id)] != i {
			if o.holds != 0 || o.mem != 0 || o.waiters != 0 {
				c.failf("object %s is not in the index, but in use", o.id)
			}
			continue
		}
		live++
		name := fmt.Sprintf("object %s (%s)", o.id, o.state)
		if (e.foreign[i] == nil) != e.mine(o.id) {
			c.failf("%s: mine %v, foreign record %v", name, e.mine(o.id), e.foreign[i] != nil)
		}
		hasBytes := o.state == objArena || o.state == objFetching || o.state == objCreating
		if hasBytes && (o.mem == 0 || e.memObjs[o.mem] != i) {
			c.failf("%s: its memory key %d is object %d's", name, o.mem, e.memObjs[o.mem])
		}
		if o.state == objInline && o.mem != 0 {
			c.failf("%s: it has arena bytes too", name)
		}
		if o.pins > 0 && o.state != objArena {
			c.failf("%s: it is pinned", name)
		}
		if o.task != 0 {
			t := e.tasks.at(o.task)
			if t.unique != o.id.Unique() || t.owner != 0 || o.ready() {
				c.failf("%s: task %x makes it", name, uint64(t.unique))
			}
		}
		if o.holds == 0 && o.task == 0 && o.pins == 0 && o.state != objCreating {
			f := e.foreign[i]
			if f == nil || (f.cover == 0 && f.unsettled == 0) {
				c.failf("%s: nothing needs it, and it is still here", name)
			}
		}
	}
	if live != e.objs.live || live != len(e.objIndex) {
		c.failf("%d objects live, %d are counted, %d are in the index", live, e.objs.live, len(e.objIndex))
	}
	for key, i := range e.memObjs {
		if e.objs.at(i).mem != key {
			c.failf("memory key %d names object %s, whose key is %d", key, e.objs.at(i).id, e.objs.at(i).mem)
		}
	}
	for i := range e.foreign {
		if o := e.objs.at(i); e.objIndex[keyOf(o.id)] != i || e.mine(o.id) {
			c.failf("a foreign record belongs to %s", o.id)
		}
	}
	for i := range e.spread {
		if o := e.objs.at(i); e.objIndex[keyOf(o.id)] != i || !e.mine(o.id) {
			c.failf("borrowers or copies are kept of %s", o.id)
		}
	}
}

// holds counts every reason to keep an object, and compares.
func (c *checker) holds() {
	e := c.e
	holds, pins, covers := map[uint32]int{}, map[uint32]int{}, map[uint32]int{}
	add := func(list []uint32) {
		for _, i := range list {
			holds[i]++
		}
	}
	claims := map[SessionID]int{}
	for i := uint32(1); i < e.objs.limit(); i++ {
		o := e.objs.at(i)
		if o.claimS != 0 {
			holds[i]++
			claims[o.claimS]++
		}
		if o.flags&flagPrimary != 0 {
			holds[i]++
		}
	}
	for sid, s := range e.sessions {
		for i := range s.claims {
			holds[i]++
		}
		if claims[sid]+len(s.claims) != s.nClaims {
			c.failf("session %d has %d claims, counted %d", sid, claims[sid]+len(s.claims), s.nClaims)
		}
		for i, n := range s.pins {
			pins[i] += int(n)
		}
		for _, ch := range s.chans {
			add(ch.queue)
		}
		for i := range s.creates {
			if e.objs.at(i).state != objCreating {
				c.failf("session %d writes %s, which is %s", sid, e.objs.at(i).id, e.objs.at(i).state)
			}
		}
	}
	for i := uint32(1); i < e.tasks.limit(); i++ {
		add(e.tasks.at(i).refs)
		if h := e.tasks.at(i).handle; h != 0 {
			holds[h]++
		}
	}
	for i, inner := range e.contained {
		add(inner)
		if e.objIndex[keyOf(e.objs.at(i).id)] != i {
			c.failf("contents are kept of object %d, which is gone", i)
		}
	}
	for _, tm := range e.templates[1:] {
		if e.tmplIndex[tm.key] != 0 && tm.key != "" {
			if tm.fn != 0 {
				holds[tm.fn]++
			}
		}
	}
	for i, s := range e.spread {
		holds[i] += len(s.borrowers)
	}
	for _, a := range e.actors {
		if a.mgr == nil {
			continue
		}
		add(a.mgr.refs)
		if i := e.find(a.id.Handle()); a.mgr.spec.Detached && e.mine(a.id.Handle()) {
			holds[i]++
		}
	}
	for _, k := range e.keeps {
		add(k.refs)
	}
	for _, st := range e.streams {
		for k := st.handed + 1; k <= st.made && !st.dropped; k++ {
			holds[e.find(st.task.Object(k))]++
		}
	}
	for _, k := range e.results {
		add(k.refs)
	}
	for _, cov := range e.covered {
		for _, i := range cov {
			covers[i]++
		}
	}
	readers := 0
	for _, n := range e.readers {
		readers += n
	}
	over := 0
	for i := uint32(1); i < e.objs.limit(); i++ {
		o := e.objs.at(i)
		if e.objIndex[keyOf(o.id)] != i {
			if holds[i] > 0 || pins[i] > 0 {
				c.failf("object %d is gone, but held %d times and pinned %d times", i, holds[i], pins[i])
			}
			continue
		}
		sent := int(o.pins) - pins[i] // served to other nodes
		extra := int(o.holds) - holds[i] - sent
		if sent < 0 || extra < 0 {
			c.failf("object %s (%s): %d holds for %d reasons, %d pins for %d", o.id, o.state, o.holds, holds[i], o.pins, pins[i])
		}
		over += extra
		if f := e.foreign[i]; f != nil && int(f.cover) > covers[i] {
			c.failf("object %s: covered %d times by %d refs of tasks", o.id, f.cover, covers[i])
		}
	}
	if over != readers {
		c.failf("%d holds have no reason but %d readers of bytes that arrive", over, readers)
	}
}

// waiters looks at the lists of who waits for what.
func (c *checker) waiters() {
	e, n := c.e, 0
	missing := map[uint32]uint32{}
	for i := uint32(1); i < e.objs.limit(); i++ {
		o := e.objs.at(i)
		here := false
		for w := o.waiters; w != 0; w = e.waiters.at(w).next {
			p := e.waiters.at(w)
			n++
			switch p.kind {
			case waitDep, waitRun:
				missing[p.a]++
				want := taskWaiting
				if p.kind == waitRun {
					want = taskFetching
				}
				if e.tasks.at(p.a).state != want {
					c.failf("task %d (%s) waits for %s", p.a, e.tasks.at(p.a).state, o.id)
				}
			}
			switch p.kind {
			case waitDep, waitWatch, waitPeer, waitAsk:
				if o.ready() {
					c.failf("object %s is %s, and a waiter of kind %d was not told", o.id, o.state, p.kind)
				}
			case waitGet, waitHere:
				if ch := e.channelOf(SessionID(p.a), p.b); ch == nil || (p.kind == waitGet && (ch.get == nil || ch.get.req != p.req)) {
					break // nobody listens any more
				}
				here = true
				if o.local() {
					c.failf("object %s is %s, and a waiter of kind %d was not told", o.id, o.state, p.kind)
				}
			case waitRun:
				if o.local() {
					c.failf("object %s is %s, and a task was not told", o.id, o.state)
				}
			}
		}
		if f := e.foreign[i]; o.waiters != 0 && o.state == objUnknown && !f.subscribed {
			c.failf("object %s is unknown and waited for, and its owner was not asked", o.id)
		}
		if here && (o.state == objElsewhere || o.state == objFetching) && e.fetches[i] == 0 {
			c.failf("object %s is elsewhere, wanted here, and not fetched", o.id)
		}
	}
	if n != e.waiters.live {
		c.failf("%d waiters are in lists, %d live", n, e.waiters.live)
	}
	for i := uint32(1); i < e.tasks.limit(); i++ {
		if t := e.tasks.at(i); (t.state == taskWaiting || t.state == taskFetching) && t.missing != missing[i] {
			c.failf("task %x (%s) misses %d arguments, waits for %d", uint64(t.unique), t.state, t.missing, missing[i])
		}
	}
}

// streams looks at the generators of ours and of others.
func (c *checker) streams() {
	e := c.e
	reads := map[Chan]int{}
	for u, st := range e.streams {
		for _, r := range st.readers {
			reads[r.ch]++
		}
		o := e.objs.at(st.gen)
		name := fmt.Sprintf("stream %x", uint64(u))
		if o.id != st.task.Object(1) || o.flags&flagGen == 0 {
			c.failf("%s: its object is %s", name, o.id)
		}
		if st.ended != (o.task == 0) || st.ended && st.dropped {
			c.failf("%s: ended %v, dropped %v, task %d makes its object", name, st.ended, st.dropped, o.task)
		}
		if st.handed > st.made || st.dropped && (len(st.readers) > 0 || st.bytes != 0) {
			c.failf("%s: %d items made, %d handed over, dropped %v with %d readers", name, st.made, st.handed, st.dropped, len(st.readers))
		}
		bytes := int64(0)
		for k := st.handed + 1; k <= st.made && !st.dropped; k++ {
			i := e.find(st.task.Object(k))
			if i == 0 || !e.objs.at(i).ready() {
				c.failf("%s: item %d is not there", name, k)
			} else if e.objs.at(i).flags&flagUnread != 0 {
				bytes += int64(e.objs.at(i).size)
			}
		}
		if bytes != st.bytes {
			c.failf("%s: %d bytes are not handed over, %d are counted", name, bytes, st.bytes)
		}
		for _, r := range st.readers {
			if ch := e.channelOf(r.ch.Session, r.ch.Chan); ch == nil || ch.next != st && !r.beside {
				c.failf("%s: who reads it is gone, or does not know", name)
			}
			if r.from <= st.made || st.ended {
				c.failf("%s: a reader of item %d was not told", name, r.from)
			}
		}
		if st.ask.index != 0 && e.limit(st) >= st.ask.index {
			c.failf("%s: its generator may make item %d, and was not told", name, st.ask.index)
		}
	}
	for _, s := range e.sessions {
		for _, ch := range s.chans {
			if ch.reads != reads[ch.id] {
				c.failf("channel %v: %d NEXTs are counted, %d are there", ch.id, ch.reads, reads[ch.id])
			}
		}
	}
	for u := range e.yields {
		i := e.remoteRun[runKey{u}]
		if t := e.tasks.at(max(i, 1)); i == 0 || t.owner == 0 || t.flags&flagStream == 0 {
			c.failf("generator %x is kept for another node, and does not run", uint64(u))
		}
	}
}

func (c *checker) memory() {
	e := c.e
	if e.mem == nil {
		return
	}
	if err := e.mem.Check(); err != nil {
		c.failf("memory: %w", err)
	}
	if len(e.memActs) > 0 {
		c.failf("%d decisions of the store are not carried out", len(e.memActs))
	}
	for i, req := range e.fetches {
		if w, ok := e.memWants[req]; !ok || w.obj != i || w.kind != wantFetch {
			c.failf("fetch %d of %s has no request", req, e.objs.at(i).id)
		}
	}
	for req, w := range e.memWants {
		_, live := e.mem.StatusOf(req)
		ok := live
		switch w.kind {
		case wantFetch:
			ok = ok && e.fetches[w.obj] == req
		case wantArgs:
			ok = ok && e.bundles[w.task] != nil && e.bundles[w.task].req == req
		case wantCreate:
			ok = ok || len(e.commits) > 0
		}
		if !ok {
			c.failf("request %d (kind %d, object %d, task %d) is wanted by nobody, or not known to the store: %v", req, w.kind, w.obj, w.task, live)
		}
	}
}
