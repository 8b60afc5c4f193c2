package engine

import (
	"slices"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/core/memory"
)

// memWant is who asked the memory admission for something.
type memWant struct {
	kind wantKind
	sess SessionID // create
	ch   Chan
	req  uint32
	obj  uint32 // create, fetch
	task uint32 // args
}

type wantKind uint8

const (
	wantCreate wantKind = iota + 1
	wantFetch
	wantArgs
)

// memAct is a decision of the admission that is still to be acted on.
type memAct struct {
	id     uint64
	placed []memory.Placed
	key    uint64 // whose pages could not be made, if not 0
	full   *memory.Full
}

func (e *Engine) newKey() uint64 { e.memKey++; return e.memKey }

// memRun carries out what the admission decided. What was taken away is noted at once, before anything else can rely on
// it; what was given is acted on afterwards, in order, as that may lead to further decisions. So a grant may be void
// when its turn comes.
func (e *Engine) memRun(out []memory.Effect) {
	failed := map[uint64]bool(nil)
	for _, eff := range out {
		switch eff.Kind {
		case memory.Punch:
			e.sink.Punch(eff.At)
		case memory.Grant:
			for _, p := range eff.Placed {
				if p.Commit.Size == 0 {
					continue
				}
				switch e.sink.Commit(p.Key, p.Commit) {
				case CommitLater:
					e.commits[p.Key] = placedAt{eff.ID, uint64(p.Off)}
				case CommitFailed:
					if failed == nil {
						failed = map[uint64]bool{}
					}
					failed[p.Key] = true
				case CommitDone:
				}
			}
		}
	}
	for _, eff := range out {
		switch eff.Kind {
		case memory.Evict:
			e.evicted(eff.Key)
		case memory.Displace:
			e.displaced(eff.ID)
		case memory.Abandon:
			e.abandon(eff.Key)
		case memory.Fail:
			e.memActs = append(e.memActs, memAct{id: eff.ID, full: eff.Full})
		case memory.Grant:
			e.memActs = append(e.memActs, memAct{id: eff.ID, placed: eff.Placed})
			for _, p := range eff.Placed {
				if failed[p.Key] {
					e.memActs = append(e.memActs, memAct{id: eff.ID, key: p.Key})
				}
			}
		}
	}
	if e.memBusy {
		return
	}
	e.memBusy = true
	for k := 0; k < len(e.memActs); k++ {
		switch a := e.memActs[k]; {
		case a.full != nil:
			e.noRoom(a.id, e.fullText(a.full))
		case a.key != 0:
			e.uncommitted(a.id, a.key)
		default:
			e.granted(a.id, a.placed, e.memActs[k+1:])
		}
	}
	clear(e.memActs)
	e.memActs = e.memActs[:0]
	e.memBusy = false
}

// granted hands out bytes, but those whose pages are still to be made, or could not be, as the acts that follow tell.
func (e *Engine) granted(req uint64, placed []memory.Placed, follow []memAct) {
	for _, p := range placed {
		_, later := e.commits[p.Key]
		if later || slices.ContainsFunc(follow, func(a memAct) bool { return a.id == req && a.key == p.Key }) {
			continue
		}
		e.placed(p.Key, placedAt{req, uint64(p.Off)})
	}
	if w := e.memWants[req]; w.kind == wantArgs {
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
	switch {
	case !found:
	case ok:
		e.placed(key, pl)
	default:
		e.uncommitted(pl.req, key)
	}
}

// uncommitted ends a request for bytes that the system does not have, though the store's size allows for them.
func (e *Engine) uncommitted(req, key uint64) {
	e.sink.Warn("the object store's pages could not be made: the machine has less shared memory than the store's size; see --object-store-memory")
	w := e.memWants[req]
	e.memRun(e.mem.Uncommitted(e.now, key, nil))
	if w.kind == wantCreate {
		e.noRoom(req, "the system has less memory left than the object store's size allows for; start the node with a smaller --object-store-memory")
	}
}

// Trim gives pages of free store bytes back to the system, but for keep bytes: for an idle node.
func (e *Engine) Trim(keep int64) { e.memRun(e.mem.Trim(keep, nil)) }

// placed gives bytes to whoever wanted them: a client that writes, a task too large for a packet, or a fetch.
func (e *Engine) placed(key uint64, pl placedAt) {
	m, ok := e.mem.Lookup(key)
	if !ok || m.Sealed || uint64(m.At.Off) != pl.off {
		return // taken away since
	}
	w, live := e.memWants[pl.req]
	if live && w.kind == wantCreate {
		o := e.objs.at(w.obj)
		if s := e.sessions[w.sess]; s != nil && o.mem == key {
			delete(e.memWants, pl.req)
			o.off = pl.off
			s.creates[w.obj] = 0
			e.sink.Created(w.ch, w.req, pl.off)
			return
		}
	}
	if live && w.kind == wantArgs && m.State == memory.Writing {
		if b := e.bundles[w.task]; b != nil && b.body == key {
			b.bodyOff, b.bodyHere = pl.off, true
			e.bundleStep(w.task)
			return
		}
	}
	if i := e.memObjs[key]; i != 0 && m.State == memory.Writing && e.objs.at(i).state == objElsewhere {
		o := e.objs.at(i)
		o.off = pl.off
		e.to(i, o, objFetching)
		e.askSource(i)
		return
	}
	e.memAbort(key)
}

// memAbort says that nobody writes to a key's bytes any more, and that they are void.
func (e *Engine) memAbort(key uint64) {
	_, out := e.mem.Abort(e.now, key, nil)
	e.memRun(out)
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
	t := e.runningTask(s, id.Unique())
	if item := t != nil && t.flags&flagStream != 0 && id.Index() > 1; t != nil && (item || id.Index() >= 1 && id.Index() <= t.returns) {
		switch {
		case i != 0:
		case item && e.mine(id):
			i, _ = e.create(id, objPending)
		default:
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
	e.memWants[r] = memWant{kind: wantCreate, sess: s.id, ch: c, req: req, obj: i}
	e.memRun(e.mem.Request(e.now, memory.Req{ID: r, Class: memory.Create, Since: e.now, Owner: uint64(s.id), Bundle: []memory.Item{{Key: o.mem, Size: int64(size)}}}, nil))
}

// runningTask is the task u, if the session's worker runs it.
func (e *Engine) runningTask(s *session, u ids.Unique) *task {
	if s.worker == nil {
		return nil
	}
	if h := s.worker.host; h != nil {
		if i := h.calls[u]; i != 0 {
			return e.tasks.at(i)
		}
		return nil
	}
	if len(s.worker.fifo) == 0 || e.tasks.at(s.worker.fifo[0]).unique != u {
		return nil
	}
	return e.tasks.at(s.worker.fifo[0])
}

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
	if o.holds == 0 { // released before it was written
		e.freeList = append(e.freeList, i)
	}
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
	delete(e.memObjs, key)
	if e.mine(o.id) {
		e.to(i, o, objPending)
	} else {
		e.to(i, o, objUnknown)
	}
	if r != 0 {
		delete(e.memWants, r)
		e.memRun(e.mem.End(e.now, r, nil)) // bytes that were granted and not handed out are taken back by placed
	} else {
		e.memAbort(key)
	}
	if o.task == 0 && e.mine(o.id) && o.holds > 0 {
		e.setError(i, fault.ObjectLost, "object "+o.id.String()+" was not written to its end: its client gave up or died")
	}
	if o.state == objUnknown && o.waiters != 0 {
		e.subscribe(i) // they came while it was written here, and its owner was not asked
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
