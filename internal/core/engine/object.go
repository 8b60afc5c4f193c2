package engine

import (
	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

// objState is where an object's value is. Names and transitions: docs/states.md.
type objState uint8

const (
	objUnknown   objState = iota // another daemon's; its owner has not told anything yet
	objPending                   // its task has not ended
	objCreating                  // a client writes it into the arena
	objInline                    // the value is here, on the heap
	objArena                     // the value is here, in the arena
	objElsewhere                 // the value exists in arenas of other nodes only
	objFetching                  // as elsewhere, and being copied to here
)

var objStateNames = [...]string{"UNKNOWN", "PENDING", "CREATING", "INLINE", "ARENA", "ELSEWHERE", "FETCHING"}

func (s objState) String() string { return objStateNames[s] }

// objNext is the table of legal transitions.
var objNext = [...][]objState{
	objUnknown:   {objInline, objElsewhere, objCreating, objPending},
	objPending:   {objCreating, objInline, objElsewhere, objArena},
	objCreating:  {objArena, objPending, objUnknown, objInline},
	objInline:    {},
	objArena:     {objElsewhere, objInline},
	objElsewhere: {objFetching, objInline},
	objFetching:  {objArena, objElsewhere, objInline},
}

type objFlag uint8

const (
	flagPrimary objFlag = 1 << iota // the copy here is the one that its owner counts on
	flagCopy                        // the copy here may be evicted
	flagPut                         // made by a put, not by a task
	flagHandle                      // counts an actor's handles
	flagGen                         // a stream of ours: ready when its generator has ended
	flagUnread                      // an item whose bytes its stream counts
)

// object is what the daemon knows of one id, its own or another's.
type object struct {
	id      ids.ObjectID
	state   objState
	status  uint8 // of the value: 0 value, 1 error
	flags   objFlag
	fails   uint8     // copies tried in vain
	holds   uint32    // reasons to exist: sessions that claim it, tasks that need it, values that contain it, nodes that know it
	pins    uint32    // readers of its arena bytes
	task    uint32    // the task here that makes it, until it ends
	waiters uint32    // list of who waits for it
	claimS  SessionID // the first session that claims it; further ones are in session.claims
	claimN  uint32    // deliveries to that session that it has not released
	val     blob
	tmpl    uint32 // the function whose task makes or made it; 0 for puts, and where that is not known
	off     uint64
	size    uint64
	mem     uint64 // key in the memory admission; 0 = none
}

// statusError marks a value that is an exception.
const statusError = 1

func (o *object) ready() bool {
	return o.state == objInline || o.state == objArena || o.state == objElsewhere || o.state == objFetching
}

func (o *object) local() bool { return o.state == objInline || o.state == objArena }

func (e *Engine) mine(id ids.ObjectID) bool { return id.Owner() == e.cfg.Owner }

func keyOf(id ids.ObjectID) objKey { return objKey{id.Unique(), id.Index()} }

// find is the object's index, or 0.
func (e *Engine) find(id ids.ObjectID) uint32 { return e.objIndex[keyOf(id)] }

// create makes a record for an id that has none.
func (e *Engine) create(id ids.ObjectID, st objState) (uint32, *object) {
	i, o := e.objs.alloc()
	o.id, o.state = id, st
	e.objIndex[keyOf(id)] = i
	return i, o
}

// know is the record of id, made if there is none. A new record that nothing comes to hold in this step is swept away.
func (e *Engine) know(id ids.ObjectID) uint32 {
	if i := e.find(id); i != 0 {
		return i
	}
	i, _ := e.create(id, objUnknown)
	e.freeList = append(e.freeList, i)
	if e.mine(id) {
		// A claim on an id whose record is gone: the holder released it before it used it, or made it up.
		e.setError(i, fault.ObjectLost, "object "+id.String()+" does not exist: every reference to it had been released, or its driver has ended")
		return i
	}
	e.foreign[i] = &foreign{}
	return i
}

// to moves an object to a state; a step that the table does not have is a bug.
func (e *Engine) to(i uint32, o *object, st objState) {
	for _, ok := range objNext[o.state] {
		if ok == st {
			o.state = st
			return
		}
	}
	panic("engine: object " + o.id.String() + " cannot go from " + o.state.String() + " to " + st.String())
}

func (e *Engine) hold(i uint32) { e.objs.at(i).holds++ }

func (e *Engine) unhold(i uint32) {
	o := e.objs.at(i)
	if o.holds == 0 {
		panic("engine: object " + o.id.String() + " released more often than held")
	}
	o.holds--
	if o.holds == 0 || (o.holds == 1 && o.flags&flagPrimary != 0) {
		e.freeList = append(e.freeList, i)
	}
}

// sweep frees the objects that nothing holds any more.
func (e *Engine) sweep() {
	for len(e.freeList) > 0 {
		i := e.freeList[len(e.freeList)-1]
		e.freeList = e.freeList[:len(e.freeList)-1]
		if i < e.objs.limit() {
			e.tryFree(i)
		}
	}
}

// tryFree drops the object's record and bytes unless something still needs them.
func (e *Engine) tryFree(i uint32) {
	o := e.objs.at(i)
	if o.flags&(flagPrimary|flagGen) != 0 {
		if o.holds == 1 && o.flags&flagPrimary != 0 {
			e.keptForOwner(i, o)
			return
		}
		if st := e.streams[o.id.Unique()]; o.holds == 0 && o.flags&flagGen != 0 && st != nil {
			e.dropStream(st)
		}
	}
	if o.holds > 0 || o.id == (ids.ObjectID{}) || o.pins > 0 || o.task != 0 || o.state == objCreating {
		return
	}
	f := e.foreign[i]
	if f != nil && (f.cover > 0 || f.unsettled > 0) {
		return
	}
	if o.state == objFetching || o.state == objElsewhere {
		e.stopCopy(i)
	}
	for w := o.waiters; w != 0; {
		next := e.waiters.at(w).next
		e.wakeGone(o, e.waiters.at(w))
		e.waiters.release(w)
		w = next
	}
	o.waiters = 0
	e.dropBytes(o)
	gone := o.flags&flagHandle != 0
	id := o.id
	if f != nil {
		e.forgetForeign(i, o, f)
		if a := e.actors[id.Unique()]; a != nil && a.mgr == nil && id == a.id.Handle() {
			e.forgetActor(a)
		}
	} else if s := e.spread[i]; s != nil {
		e.freeCopies(i, o, s)
	}
	inner := e.contained[i]
	delete(e.contained, i)
	delete(e.objIndex, keyOf(o.id))
	if len(e.rec.sites) > 0 && o.id.Index() == 1 {
		delete(e.rec.sites, o.id.Unique())
	}
	e.objs.release(i)
	for _, c := range inner {
		e.unhold(c)
	}
	if gone {
		e.handleGone(id)
	}
}

// keptForOwner ends our claim on an object whose bytes are here for its owner only: else each would wait for the other.
func (e *Engine) keptForOwner(i uint32, o *object) {
	f := e.foreign[i]
	if f == nil || !f.claimed || f.cover > 0 || f.unsettled > 0 {
		return
	}
	f.claimed = false
	if no, ok := e.owners[o.id.Owner()]; ok {
		e.sink.Peer(no, &Unclaim{IDs: []ids.ObjectID{o.id}})
	}
}

// dropBytes gives the value's room back.
func (e *Engine) dropBytes(o *object) {
	if o.val.n > 0 {
		if o.flags&flagPut != 0 {
			e.credit(o.id.Job(), -int64(o.val.n))
		}
		e.blobs.drop(o.val)
		o.val = blob{}
	}
	if o.mem != 0 {
		e.memFree(o)
	}
}

// setInline gives an object its value; b is copied.
func (e *Engine) setInline(i uint32, status uint8, b []byte, contained []uint32) {
	o := e.objs.at(i)
	if o.mem != 0 {
		e.memFree(o)
	}
	e.to(i, o, objInline)
	o.status, o.size, o.val = status, uint64(len(b)), e.blobs.put(b)
	e.setContained(i, contained)
	e.wake(i)
}

// setContained records what the value holds; each inner object was held for it already.
func (e *Engine) setContained(i uint32, inner []uint32) {
	if len(inner) > 0 {
		e.contained[i] = append(e.contained[i], inner...)
	}
}

// setError makes the object an error made by the daemon.
func (e *Engine) setError(i uint32, kind fault.Kind, text string) {
	e.setInline(i, statusError, e.sink.ErrorValue(kind, text), nil)
}

// waiter stands in an object's list for somebody who wants to hear of it.
type waiter struct {
	next uint32
	kind waitKind
	a, b uint32 // task; or session and channel; or peer
	req  uint32
}

type waitKind uint8

const (
	waitDep   waitKind = iota // a task of ours needs the object ready: a = task
	waitGet                   // a client's get: a = session, b = channel
	waitWatch                 // a client's wait, ready anywhere
	waitHere                  // a client's wait, ready on this node
	waitPeer                  // a node that knows the object: a = node
	waitAsk                   // a node that wants to copy it: a = node, b and req = its key
	waitRun                   // a task that runs here needs the value here: a = task
)

func (e *Engine) await(i uint32, w waiter) {
	n, p := e.waiters.alloc()
	*p = w
	o := e.objs.at(i)
	p.next = o.waiters
	o.waiters = n
	if o.flags&flagGen != 0 {
		e.endWanted(o)
	}
}

// unwait removes one waiter that equals w but for its place in the list.
func (e *Engine) unwait(i uint32, w waiter) bool {
	o := e.objs.at(i)
	for at := &o.waiters; *at != 0; {
		p := e.waiters.at(*at)
		if p.kind == w.kind && p.a == w.a && p.b == w.b && p.req == w.req {
			n := *at
			*at = p.next
			e.waiters.release(n)
			return true
		}
		at = &p.next
	}
	return false
}

// wake tells those who wait for what the object now is; the others go on waiting, and a copy is fetched for them.
func (e *Engine) wake(i uint32) {
	o := e.objs.at(i)
	list := o.waiters
	o.waiters = 0
	var rev uint32 // first come, first told
	for list != 0 {
		p := e.waiters.at(list)
		next := p.next
		p.next = rev
		rev = list
		list = next
	}
	fetch := false
	for n := rev; n != 0; {
		p := e.waiters.at(n)
		next := p.next
		if o.ready() && (o.local() || p.kind == waitDep || p.kind == waitWatch || p.kind == waitPeer || p.kind == waitAsk) {
			w := *p
			e.waiters.release(n)
			e.tell(i, w)
		} else {
			fetch = fetch || o.ready()
			p.next = o.waiters
			o.waiters = n
		}
		n = next
	}
	if fetch && o.state == objElsewhere {
		e.startFetch(i)
	}
}

func (e *Engine) tell(i uint32, w waiter) {
	switch w.kind {
	case waitDep:
		e.depReady(w.a)
	case waitRun:
		e.argHere(w.a)
	case waitGet:
		if ch := e.channelOf(SessionID(w.a), w.b); ch != nil && ch.get != nil && ch.get.req == w.req {
			e.answer(ch, i)
		}
	case waitWatch, waitHere:
		if ch := e.channelOf(SessionID(w.a), w.b); ch != nil {
			e.watched(ch, e.objs.at(i).id)
		}
	case waitPeer:
		e.tellPeer(NodeNo(w.a), i)
	case waitAsk:
		if p := e.peers[NodeNo(w.a)]; p != nil {
			e.fetchAsk(p, &FetchAsk{ID: e.objs.at(i).id, Key: uint64(w.b)<<32 | uint64(w.req)})
		}
	}
}

// wakeGone tells a waiter that the object was freed under it, which only a client that releases what it waits for can cause.
func (e *Engine) wakeGone(o *object, w *waiter) {
	if w.kind != waitGet {
		return
	}
	if ch := e.channelOf(SessionID(w.a), w.b); ch != nil && ch.get != nil && ch.get.req == w.req {
		e.sink.Value(ch.id, w.req, Value{
			ID: o.id, Status: statusError,
			Inline: e.sink.ErrorValue(fault.TaskGone, "object "+o.id.String()+": nobody holds a reference to it; it was released while a get waited for it, or the reference does not come from this cluster"),
		})
		ch.get.answered(e, ch)
	}
}
