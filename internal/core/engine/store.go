package engine

import (
	"slices"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/core/memory"
)

// memWant is who asked the memory admission for something.
type memWant struct {
	kind  wantKind
	sess  SessionID // create
	ch    Chan
	req   uint32
	obj   uint32 // create, fetch
	task  uint32 // args
	key   uint64 // create
	since bool
}

type wantKind uint8

const (
	wantCreate wantKind = iota + 1
	wantFetch
	wantArgs
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

func (e *Engine) newKey() uint64 { e.memKey++; return e.memKey }

// memRun carries out what the admission decided; that may lead to further decisions.
func (e *Engine) memRun(out []memory.Effect) {
	e.memEff = append(e.memEff, out...)
	if e.memBusy {
		return
	}
	e.memBusy = true
	for k := 0; k < len(e.memEff); k++ {
		eff := e.memEff[k]
		switch eff.Kind {
		case memory.Punch:
			e.sink.Punch(eff.At)
		case memory.Grant:
			e.granted(eff.ID, eff.Placed)
		case memory.Evict:
			e.evicted(eff.Key)
		case memory.Displace:
			e.displaced(eff.ID)
		case memory.Abandon:
			e.abandon(eff.Key)
		case memory.Fail:
			e.noRoom(eff.ID, eff.Full)
		}
	}
	e.memEff = e.memEff[:0]
	e.memBusy = false
}

// granted hands out bytes. Those whose pages must be made first wait for the shell.
func (e *Engine) granted(req uint64, placed []memory.Placed) {
	w := e.memWants[req]
	for _, p := range placed {
		pl := placedAt{req: req, off: uint64(p.Off)}
		made := CommitDone
		if p.Commit.Size > 0 {
			made = e.sink.Commit(p.Key, p.Commit)
		}
		switch made {
		case CommitDone:
			e.placed(p.Key, pl)
		case CommitLater:
			e.commits[p.Key] = pl
		case CommitFailed:
			e.uncommitted(p.Key)
		}
	}
	if w.kind == wantArgs {
		e.argsGranted(w.task)
	}
}

type placedAt struct {
	req uint64
	off uint64
}

// Committed says whether the pages that Commit asked for exist now.
func (e *Engine) Committed(key uint64, ok bool) {
	pl, found := e.commits[key]
	delete(e.commits, key)
	if !found {
		return
	}
	if !ok {
		e.uncommitted(key)
		return
	}
	e.placed(key, pl)
}

// uncommitted tells the admission that the system has less memory than the store's size.
func (e *Engine) uncommitted(key uint64) {
	e.sink.Warn("the object store's pages could not be made: the machine has less shared memory than the store's size; see --object-store-memory")
	e.memRun(e.mem.Uncommitted(e.now, key, nil))
}

// Trim gives pages of free store bytes back to the system, but for keep bytes: for an idle node.
func (e *Engine) Trim(keep int64) { e.memRun(e.mem.Trim(keep, nil)) }

// placed gives bytes to whoever wanted them: a client that writes, or a fetch.
func (e *Engine) placed(key uint64, pl placedAt) {
	w, live := e.memWants[pl.req]
	if live && w.kind == wantCreate {
		delete(e.memWants, pl.req)
		o := e.objs.at(w.obj)
		s := e.sessions[w.sess]
		if s == nil || o.mem != key {
			e.memAbort(key)
			return
		}
		o.off = pl.off
		s.creates[w.obj] = 0
		e.sink.Created(w.ch, w.req, pl.off)
		e.unblockCreate(s, w.ch)
		return
	}
	if live && w.kind == wantArgs {
		if b := e.bundles[w.task]; b != nil && b.body == key {
			b.bodyOff, b.bodyHere = pl.off, true
			e.bundleStep(w.task)
			return
		}
	}
	i := e.memObjs[key]
	if i == 0 || e.objs.at(i).mem != key {
		e.memAbort(key)
		return
	}
	o := e.objs.at(i)
	o.off = pl.off
	e.to(i, o, objFetching)
	e.askSource(i)
}

func (e *Engine) memAbort(key uint64) {
	_, out := e.mem.Abort(e.now, key, nil)
	delete(e.memObjs, key)
	e.memRun(out)
}

// askSource finds out from whom to copy an object that has its bytes' place.
func (e *Engine) askSource(i uint32) {
	o := e.objs.at(i)
	if e.mine(o.id) {
		from, ok := e.pickSource(i, 0)
		if !ok || from == 0 {
			e.noSource(i, "no node has a copy any more")
			return
		}
		e.sink.Fetch(o.mem, o.id, from, o.off, o.size)
		return
	}
	no, ok := e.owners[o.id.Owner()]
	if !ok {
		e.noSource(i, "its owner is gone")
		return
	}
	e.sink.Peer(no, &FetchAsk{ID: o.id})
}

func (e *Engine) fetchFrom(m *FetchFrom) {
	i := e.find(m.ID)
	if i == 0 {
		return
	}
	o := e.objs.at(i)
	if o.state != objFetching {
		return
	}
	from, ok := e.peerIDs[m.Node]
	if m.Lost || !ok {
		e.noSource(i, "no node that can be reached has a copy")
		return
	}
	e.sink.Fetch(o.mem, o.id, from, o.off, o.size)
}

// noSource ends a fetch that nobody can serve.
func (e *Engine) noSource(i uint32, why string) {
	o := e.objs.at(i)
	key := o.mem
	o.mem = 0
	e.memAbort(key)
	e.setError(i, fault.ObjectLost, "object "+o.id.String()+", made by task "+o.id.Task().String()+", is lost: "+why)
	e.endFetch(i)
}

// maxFetches is how many sources are tried for an object before it is given up.
const maxFetches = 5

// Fetched ends a Fetch: ok when all bytes are there.
func (e *Engine) Fetched(key uint64, ok bool) {
	i := e.memObjs[key]
	if i == 0 || e.objs.at(i).mem != key || e.objs.at(i).state != objFetching {
		e.memAbort(key)
		return
	}
	o := e.objs.at(i)
	if !ok {
		if o.fails++; o.fails >= maxFetches {
			e.noSource(i, "copying it failed from every node that has it")
			return
		}
		e.askSource(i)
		return
	}
	o.fails = 0
	o.flags |= flagCopy
	e.to(i, o, objArena)
	_, out := e.mem.Seal(e.now, key, false, nil)
	e.memRun(out)
	e.pinReaders(o)
	if e.mine(o.id) {
		_ = e.spreadOf(i)
	} else if no, ok := e.owners[o.id.Owner()]; ok {
		e.sink.Peer(no, &ObjCopy{ID: o.id, Have: true})
	}
	e.wake(i)
	e.endFetch(i)
}

// startFetch asks for room to copy an object here, for a get or a wait.
func (e *Engine) startFetch(i uint32) {
	o := e.objs.at(i)
	if e.fetches[i] != 0 {
		return
	}
	req := e.newKey()
	e.fetches[i] = req
	e.memWants[req] = memWant{kind: wantFetch, obj: i}
	e.memRun(e.mem.Request(e.now, memory.Req{ID: req, Class: memory.Get, Since: e.now, Bundle: []memory.Item{{Key: e.keyFor(i, o), Size: int64(o.size)}}}, nil))
}

// keyFor is the admission's key of an object's bytes here, a new one when they are not.
func (e *Engine) keyFor(i uint32, o *object) uint64 {
	if o.mem == 0 {
		o.mem = e.newKey()
		e.memObjs[o.mem] = i
	}
	return o.mem
}

func (e *Engine) endFetch(i uint32) {
	if req := e.fetches[i]; req != 0 {
		delete(e.fetches, i)
		delete(e.memWants, req)
		e.memRun(e.mem.End(e.now, req, nil))
	}
}

// cancelFetch stops a fetch of an object that goes, or whose value comes otherwise.
func (e *Engine) cancelFetch(i uint32, o *object) {
	e.endFetch(i)
	if o.mem != 0 {
		key := o.mem
		e.sink.CancelFetch(key)
		e.to(i, o, objElsewhere)
		o.mem = 0
		delete(e.memObjs, key)
		e.memRun(e.mem.Free(e.now, key, nil))
	}
}

func (e *Engine) abandon(key uint64) {
	i := e.memObjs[key]
	delete(e.memObjs, key)
	if i != 0 && e.objs.at(i).mem == key {
		o := e.objs.at(i)
		o.mem = 0
		if o.state == objFetching {
			e.to(i, o, objElsewhere)
			e.sink.CancelFetch(key)
			return
		}
	}
	if _, pending := e.commits[key]; pending {
		return // placed sees that nobody wants it any more
	}
	e.memAbort(key)
}

// evicted forgets a copy's bytes.
func (e *Engine) evicted(key uint64) {
	i := e.memObjs[key]
	delete(e.memObjs, key)
	if i == 0 || e.objs.at(i).mem != key {
		return
	}
	o := e.objs.at(i)
	o.mem = 0
	o.flags &^= flagCopy
	e.to(i, o, objElsewhere)
	if !e.mine(o.id) {
		if no, ok := e.owners[o.id.Owner()]; ok {
			e.sink.Peer(no, &ObjCopy{ID: o.id})
		}
	}
	if o.waiters != 0 {
		e.wake(i)
	}
}

func (e *Engine) memPin(o *object) { e.mem.Pin(o.mem, 1) }

func (e *Engine) memUnpin(o *object) { e.memRun(e.mem.Unpin(e.now, o.mem, 1, nil)) }

func (e *Engine) memFree(o *object) {
	key := o.mem
	o.mem = 0
	delete(e.memObjs, key)
	e.memRun(e.mem.Free(e.now, key, nil))
}

// Create asks for arena bytes for an object that a client is about to write: a put, or an output of the task it runs.
func (e *Engine) Create(c Chan, req uint32, id ids.ObjectID, size uint64) {
	s := e.sessions[c.Session]
	if s == nil {
		return
	}
	i := e.find(id)
	if t := e.runningTask(s); t != nil && t.unique == id.Unique() && id.Index() >= 1 && id.Index() <= t.returns {
		if i == 0 {
			i = e.know(id)
		}
		if st := e.objs.at(i).state; st != objPending && st != objUnknown {
			e.refuse(s, "create: output "+id.String()+" was created before")
			return
		}
	} else {
		if !e.freshPut(s, id) {
			return
		}
		i, _ = e.create(id, objPending)
		e.claim(s, i, 1)
	}
	o := e.objs.at(i)
	e.to(i, o, objCreating)
	o.size, o.mem = size, e.newKey()
	e.memObjs[o.mem] = i
	r := e.newKey()
	s.creates[i] = r
	e.memWants[r] = memWant{kind: wantCreate, sess: s.id, ch: c, req: req, obj: i, key: o.mem}
	e.memRun(e.mem.Request(e.now, memory.Req{ID: r, Class: memory.Create, Since: e.now, Owner: uint64(s.id), Bundle: []memory.Item{{Key: o.mem, Size: int64(size)}}}, nil))
}

func (e *Engine) runningTask(s *session) *task {
	if s.worker == nil || len(s.worker.fifo) == 0 {
		return nil
	}
	return e.tasks.at(s.worker.fifo[0])
}

// unblockCreate is the place where a writer that waited for room goes on; such a wait is no blocked worker.
func (e *Engine) unblockCreate(*session, Chan) {}

// Seal ends a client's writing of an object.
func (e *Engine) Seal(sid SessionID, id ids.ObjectID, status uint8, contained []ids.ObjectID) {
	s := e.sessions[sid]
	if s == nil {
		return
	}
	i := e.find(id)
	if r, ok := s.creates[i]; !ok || r != 0 || e.objs.at(i).task != 0 {
		e.refuse(s, "seal: object "+id.String()+" is not being written by this session")
		return
	}
	o := e.objs.at(i)
	o.status = status
	inner := e.holdAll(contained)
	e.sealed(s, i, o, true)
	e.setContained(i, inner)
	e.wake(i)
}

// sealed makes written bytes an object's value.
func (e *Engine) sealed(s *session, i uint32, o *object, primary bool) {
	delete(s.creates, i)
	e.to(i, o, objArena)
	if primary && !e.mine(o.id) {
		o.flags |= flagPrimary
	}
	_, out := e.mem.Seal(e.now, o.mem, primary, nil)
	e.memRun(out)
}

// Abort gives up an object that the session was writing.
func (e *Engine) Abort(sid SessionID, id ids.ObjectID) {
	if s, i := e.sessions[sid], e.find(id); s != nil && i != 0 {
		if _, ok := s.creates[i]; ok {
			e.abortCreate(s, i)
		}
	}
}

// abortCreate takes back the bytes that a session was writing to.
func (e *Engine) abortCreate(s *session, i uint32) {
	r, ok := s.creates[i]
	if !ok {
		return
	}
	delete(s.creates, i)
	o := e.objs.at(i)
	key := o.mem
	o.mem = 0
	if r != 0 {
		delete(e.memWants, r)
		e.memRun(e.mem.End(e.now, r, nil))
		if _, pending := e.commits[key]; !pending {
			delete(e.memObjs, key)
		}
	} else {
		e.memAbort(key)
	}
	if e.mine(o.id) {
		e.to(i, o, objPending)
	} else {
		e.to(i, o, objUnknown)
	}
	if o.task == 0 && e.mine(o.id) && o.holds > 0 {
		e.setError(i, fault.ObjectLost, "object "+o.id.String()+" was not written to its end: its client gave up or died")
	}
	e.freeList = append(e.freeList, i)
}

// forgetCreate takes an output away from the session that was writing it.
func (e *Engine) forgetCreate(i uint32, o *object) {
	for _, sid := range sortedKeys(e.sessions) {
		if s := e.sessions[sid]; s != nil {
			if _, ok := s.creates[i]; ok {
				e.abortCreate(s, i)
				return
			}
		}
	}
	panic("engine: object " + o.id.String() + " is being created by nobody")
}

// abortOutputs takes back what an attempt that is retried had written.
func (e *Engine) abortOutputs(s *session, t *task) {
	for _, i := range sortedKeys(s.creates) {
		if e.objs.at(i).id.Unique() == t.unique {
			e.abortCreate(s, i)
		}
	}
}

// noRoom ends a request that can never be granted.
func (e *Engine) noRoom(req uint64, full *memory.Full) {
	w := e.memWants[req]
	delete(e.memWants, req)
	switch w.kind {
	case wantCreate:
		if s := e.sessions[w.sess]; s != nil {
			e.abortCreate(s, w.obj)
		}
		e.sink.Fail(w.ch, w.req, fault.StoreFull, full.String())
	case wantFetch:
		delete(e.fetches, w.obj)
		o := e.objs.at(w.obj)
		if o.mem != 0 && o.state == objElsewhere {
			delete(e.memObjs, o.mem)
			o.mem = 0
		}
		e.setError(w.obj, fault.StoreFull, "object "+o.id.String()+" does not fit into this node's object store: "+full.String())
	case wantArgs:
		if b := e.bundles[w.task]; b != nil {
			delete(e.bundles, w.task)
			t := e.tasks.at(w.task)
			slot := t.slot
			t.slot = 0
			e.stopWaiting(w.task, t)
			e.lostHere(w.task, fault.StoreFull, "its arguments do not fit into the node's object store: "+full.String())
			e.slotDone(slot, nil, nil)
		}
	}
}

// fetchArgs brings a task's arguments here; true if they are all here now. Arguments on the heap take no room.
func (e *Engine) fetchArgs(i uint32, t *task) bool {
	t.started = e.now
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
	e.toTask(t, taskFetching)
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
	b, t := e.bundles[i], e.tasks.at(i)
	if b.granted && t.missing == 0 && (b.body == 0 || b.bodyHere) && t.state == taskFetching {
		e.toTask(t, taskAssigned)
		e.assign(i, t)
	}
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
