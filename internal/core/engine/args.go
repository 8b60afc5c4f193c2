package engine

import (
	"slices"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/core/memory"
)

// bundle is what a task's arguments hold of the store on the node that runs it.
type bundle struct {
	req      uint64
	granted  bool
	body     uint64 // key of the EXECUTE's own bytes, when it is too large for a packet
	bodyOff  uint64
	bodySize uint64
	bodyHere bool
}

// noRoom ends a request that can never be granted.
func (e *Engine) noRoom(req uint64, text string) {
	w := e.memWants[req]
	delete(e.memWants, req)
	switch w.kind {
	case wantCreate:
		if s := e.sessions[w.sess]; s != nil {
			e.abortCreate(s, w.obj)
		}
		e.sink.Fail(w.ch, w.req, fault.StoreFull, text)
	case wantFetch:
		delete(e.fetches, w.obj)
		e.noRoomHere(w.obj, "object "+e.objs.at(w.obj).id.String()+" does not fit into this node's object store: "+text)
	case wantArgs:
		e.stopWaiting(w.task, e.tasks.at(w.task))
		delete(e.bundles, w.task)
		e.cannotRun(w.task, fault.StoreFull, "its arguments do not fit into the node's object store: "+text)
	}
}

// noRoomHere tells those who wait for a copy of an object on this node that there is no room for it; the object itself
// is as good as before.
func (e *Engine) noRoomHere(i uint32, text string) {
	o := e.objs.at(i)
	var told []waiter
	for at := &o.waiters; *at != 0; {
		n := *at
		p := e.waiters.at(n)
		if p.kind != waitGet && p.kind != waitHere {
			at = &p.next
			continue
		}
		told = append(told, *p)
		*at = p.next
		e.waiters.release(n)
	}
	slices.Reverse(told) // first come, first told
	for _, w := range told {
		ch := e.channelOf(SessionID(w.a), w.b)
		switch {
		case ch == nil:
		case w.kind == waitHere:
			e.watched(ch, o.id) // a get will say why it is not here
		case ch.get != nil && ch.get.req == w.req:
			e.sink.Value(ch.id, w.req, Value{ID: o.id, Status: statusError, Inline: e.sink.ErrorValue(fault.StoreFull, text)})
			ch.get.answered(e, ch)
		}
	}
}

// fetchArgs brings a task's arguments here; true if they are all here now. Arguments on the heap take no room.
func (e *Engine) fetchArgs(i uint32, t *task) bool {
	t.started = e.us
	size := uint64(128) + uint64(t.args.n) + uint64(t.over.n) + uint64(len(t.refs))*ids.ObjectSize
	ask := false
	for _, d := range t.refs[:t.nDeps] {
		o := e.objs.at(d)
		if o.state == objInline {
			size += 64 + o.size + uint64(len(e.contained[d]))*ids.ObjectSize
			continue
		}
		size += 64 + uint64(len(e.contained[d]))*ids.ObjectSize
		ask = ask || o.state != objArena || o.flags&flagCopy != 0
	}
	if size <= maxPacket && !ask {
		return true
	}
	if t.state != taskFetching {
		e.toTask(t, taskFetching)
	}
	b := &bundle{req: e.newKey()}
	var items []memory.Item
	if size > maxPacket {
		b.body, b.bodySize = e.newKey(), size
		items = append(items, memory.Item{Key: b.body, Size: int64(size)})
	}
	for _, d := range t.refs[:t.nDeps] {
		if o := e.objs.at(d); o.state != objInline {
			items = append(items, memory.Item{Key: e.keyFor(d, o), Size: int64(o.size)})
		}
	}
	e.bundles[i] = b
	e.memWants[b.req] = memWant{kind: wantArgs, task: i}
	t.missing = 0
	e.memRun(e.mem.Request(e.now, memory.Req{ID: b.req, Class: memory.Args, Since: e.now, Bundle: items}, nil))
	return false
}

// argsGranted waits for the arguments that are on their way, now that there is room for all.
func (e *Engine) argsGranted(i uint32) {
	b := e.bundles[i]
	if b == nil || b.granted {
		return
	}
	if st, ok := e.mem.StatusOf(b.req); !ok || st != memory.Granted {
		return // displaced since
	}
	b.granted = true
	t := e.tasks.at(i)
	t.missing = 0
	for _, d := range t.refs[:t.nDeps] {
		if o := e.objs.at(d); !o.local() {
			t.missing++
			e.await(d, waiter{kind: waitRun, a: i})
		}
	}
	e.bundleStep(i)
}

// bundleStep goes on with a task once nothing of its bundle is missing.
func (e *Engine) bundleStep(i uint32) {
	t := e.tasks.at(i)
	if t.state == taskFetching && e.bundleHere(i, t) {
		if t.call != nil {
			e.offer(t.call) // it is sent when there is room for it
			return
		}
		e.toTask(t, taskAssigned)
		e.assign(i, t)
	}
}

// bundleHere tells whether nothing of a task's bundle is missing.
func (e *Engine) bundleHere(i uint32, t *task) bool {
	b := e.bundles[i]
	return b != nil && b.granted && t.missing == 0 && (b.body == 0 || b.bodyHere)
}

// argHere counts one argument that arrived for a task that fetches.
func (e *Engine) argHere(i uint32) {
	e.tasks.at(i).missing--
	e.bundleStep(i)
}

// displaced takes a task's room away again before it has started; the admission will grant it anew.
func (e *Engine) displaced(req uint64) {
	w := e.memWants[req]
	b := e.bundles[w.task]
	if b == nil {
		return
	}
	t := e.tasks.at(w.task)
	b.granted, b.bodyHere = false, false
	e.stopWaiting(w.task, t)
	if t.state == taskAssigned {
		e.toTask(t, taskFetching)
	}
}

// stopWaiting forgets that a task waits for arguments or for a worker.
func (e *Engine) stopWaiting(i uint32, t *task) {
	for _, d := range t.refs[:t.nDeps] {
		for e.unwait(d, waiter{kind: waitRun, a: i}) {
		}
	}
	t.missing = 0
	e.pool.pending = slices.DeleteFunc(e.pool.pending, func(k uint32) bool { return k == i })
}

// stopFetching ends a task's claim on room here.
func (e *Engine) stopFetching(i uint32, t *task) {
	e.stopWaiting(i, t)
	e.endBundle(i)
}

// endBundle gives a task's room back.
func (e *Engine) endBundle(i uint32) {
	b := e.bundles[i]
	if b == nil {
		return
	}
	delete(e.bundles, i)
	delete(e.memWants, b.req)
	e.memRun(e.mem.End(e.now, b.req, nil))
	if b.body != 0 && b.bodyHere {
		e.memRun(e.mem.Free(e.now, b.body, nil))
	}
}
