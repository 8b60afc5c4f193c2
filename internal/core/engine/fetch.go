package engine

import (
	"fmt"
	"time"

	"gray/internal/core/fault"
	"gray/internal/core/memory"
)

// An object's bytes that are elsewhere keep one memory key here while the object is known: requests name it. When its
// bytes are given room, the object is FETCHING, and one copy at most is under way (copying) for a key.

// askSource finds out from whom to copy an object that has its bytes' place.
func (e *Engine) askSource(i uint32) {
	o := e.objs.at(i)
	if e.mine(o.id) {
		from, ok := e.pickSource(i, 0)
		if !ok || from == 0 {
			e.noSource(i, "no node has a copy any more")
			return
		}
		e.copyFrom(o, from)
		return
	}
	no, ok := e.owners[o.id.Owner()]
	if !ok {
		if _, dead := e.deadOwners[o.id.Owner()]; dead {
			e.noSource(i, "its owner is gone")
			return
		}
		e.sink.FindOwner(o.id.Owner()) // whoever brought the ref knows it, this node not yet
		e.fetchLater(o)
		return
	}
	e.sink.Peer(no, &FetchAsk{ID: o.id, Key: o.mem})
}

func (e *Engine) copyFrom(o *object, from NodeNo) {
	e.copying[o.mem] = true
	e.sink.Fetch(o.mem, o.id, from, o.off, o.size)
}

func (e *Engine) fetchFrom(m *FetchFrom) {
	i := e.memObjs[m.Key]
	if i == 0 || e.copying[m.Key] {
		return // given up since
	}
	o := e.objs.at(i)
	if o.state != objFetching || o.id != m.ID {
		return
	}
	if m.Lost {
		if len(m.Error) > 0 {
			e.loseAs(i, m.Error)
		} else {
			e.noSource(i, "its owner does not know it any more")
		}
		return
	}
	if from, ok := e.peerIDs[m.Node]; ok {
		e.copyFrom(o, from)
		return
	}
	// A node that this one has not heard of yet, or that its owner does not know to be dead.
	if _, dead := e.deadOwners[m.Owner]; !dead {
		e.sink.FindOwner(m.Owner)
	}
	e.fetchLater(o)
}

// fetchLater has Tick ask anew from whom to copy an object.
func (e *Engine) fetchLater(o *object) {
	wait := min(TickEvery<<min(o.fails, 10), time.Second)
	e.refetch = append(e.refetch, refetch{o.mem, e.now.Add(wait)})
}

type refetch struct {
	key uint64
	at  time.Time
}

// tickFetches asks anew for copies that failed some time ago.
func (e *Engine) tickFetches() {
	due := e.refetch
	e.refetch = nil
	for _, r := range due {
		i := e.memObjs[r.key]
		switch {
		case i == 0 || e.objs.at(i).state != objFetching || e.copying[r.key]:
		case r.at.After(e.now):
			e.refetch = append(e.refetch, r)
		default:
			e.askSource(i)
		}
	}
}

// noSource ends a fetch that nobody can serve.
func (e *Engine) noSource(i uint32, why string) {
	e.loseValue(i, fault.ObjectLost, e.lostText(e.objs.at(i), why))
}

// loseValue makes an object whose bytes are elsewhere, or on their way, an error.
func (e *Engine) loseValue(i uint32, kind fault.Kind, text string) {
	e.loseAs(i, e.sink.ErrorValue(kind, text))
}

// loseAs is loseValue with the error's value. Tasks whose arguments wait for the object go on with that.
func (e *Engine) loseAs(i uint32, value []byte) {
	var hurt []uint32
	for _, ti := range sortedKeys(e.bundles) {
		t := e.tasks.at(ti)
		if t.state == taskSent {
			continue
		}
		for _, d := range t.refs[:t.nDeps] {
			if d == i {
				hurt = append(hurt, ti)
				break
			}
		}
	}
	for _, ti := range hurt {
		t := e.tasks.at(ti)
		e.stopFetching(ti, t)
		if t.state == taskAssigned {
			e.toTask(t, taskFetching)
		}
	}
	e.stopCopy(i)
	e.setInline(i, statusError, value, nil)
	for _, ti := range hurt {
		switch t := e.tasks.at(ti); {
		case t.state != taskFetching || e.bundles[ti] != nil:
		case t.call != nil: // its turn is as it was
			e.toTask(t, taskOrdered)
			e.offer(t.call)
		case e.fetchArgs(ti, t):
			e.toTask(t, taskAssigned)
			e.assign(ti, t)
		}
	}
}

// maxFetches is how many sources are tried for an object before it is given up.
const maxFetches = 12

// Fetched ends a Fetch: ok when all bytes are there.
func (e *Engine) Fetched(key uint64, ok bool) {
	delete(e.copying, key)
	i := e.memObjs[key]
	if i == 0 || e.objs.at(i).state != objFetching {
		e.memAbort(key)
		return
	}
	o := e.objs.at(i)
	if !ok {
		if o.fails++; o.fails >= maxFetches {
			e.noSource(i, fmt.Sprintf("copying it failed %d times, from every node that has it", maxFetches))
			return
		}
		e.fetchLater(o)
		return
	}
	o.fails = 0
	o.flags |= flagCopy
	e.to(i, o, objArena)
	_, out := e.mem.Seal(e.now, key, false, nil)
	e.memRun(out)
	e.pinReaders(o)
	if no, ok := e.owners[o.id.Owner()]; ok && !e.mine(o.id) {
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

// keyFor is the admission's key of an object's bytes here, a new one when there is none.
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

// stopCopy gives up a copy, and the room for it, of an object that goes or becomes an error.
func (e *Engine) stopCopy(i uint32) {
	e.endFetch(i) // abandons the copy, if nobody else wants it
	o := e.objs.at(i)
	if o.state == objFetching {
		e.unfetch(i, o)
	}
	key := o.mem
	if key == 0 {
		return
	}
	o.mem = 0
	delete(e.memObjs, key)
	e.memRun(e.mem.Free(e.now, key, nil))
	e.stopWriting(key)
}

// unfetch notes that an object is not being copied here any more.
func (e *Engine) unfetch(i uint32, o *object) {
	e.to(i, o, objElsewhere)
	if no, ok := e.owners[o.id.Owner()]; ok && !e.mine(o.id) {
		e.sink.Peer(no, &ObjCopy{ID: o.id})
	}
}

// stopWriting stops whatever writes to a key's bytes; they are void once it has stopped.
func (e *Engine) stopWriting(key uint64) {
	if e.copying[key] {
		e.sink.CancelFetch(key)
		return
	}
	if _, pending := e.commits[key]; !pending { // else placed sees that nobody wants it any more
		e.memAbort(key)
	}
}

// abandon stops a copy that no request holds room for any more.
func (e *Engine) abandon(key uint64) {
	if i := e.memObjs[key]; i != 0 {
		if o := e.objs.at(i); o.state == objFetching {
			e.unfetch(i, o)
		}
	}
	e.stopWriting(key)
}

// evicted forgets a copy's bytes.
func (e *Engine) evicted(key uint64) {
	i := e.memObjs[key]
	if i == 0 {
		return
	}
	o := e.objs.at(i)
	o.flags &^= flagCopy
	e.unfetch(i, o)
}
