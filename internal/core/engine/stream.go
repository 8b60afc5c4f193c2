package engine

import (
	"fmt"
	"slices"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

// A stream is the items of a generator: of a task or a call with flagStream. Output 1, the stream's object, is ready when
// the generator has ended; item k is an object of the same stem with index k+1. Each item is held by the stream until it is
// handed to the client that called the generator.

// flagStream marks a task whose generator's items are sent one by one (docs/protocol.md); flagDynamic is the worker's.
const (
	flagStream  uint16 = 1 << 2
	flagDynamic uint16 = 1 << 3
	// FlagStream is for callers of Submit.
	FlagStream = flagStream
	// flagsOfClient are those of a task that its client sets.
	flagsOfClient = flagArgsInDep | flagStream | flagDynamic
)

const (
	handItems = 512       // items that one answer hands over, at most
	handBytes = 192 << 10 // and bytes of their values; one item may have more
	handIDs   = 4096      // ids that an item contains which is handed over with its value
	// A generator without a bound of its own waits when so many of its items are not handed over, or so many bytes of
	// small ones, unless somebody waits for its end. Workers know streamItems, too.
	streamItems = 1 << 16
	streamBytes = 64 << 20
	noBound     = 1<<32 - 1
)

// stream is what the owner of a generator's task keeps of its items.
type stream struct {
	unique  ids.Unique
	task    ids.TaskID
	session SessionID // who called it and reads it
	gen     uint32    // the stream's object
	made    uint32    // index of the last item that there is; 1 = none
	handed  uint32    // index of the last that was handed over
	read    uint32    // index of the last that the client has taken
	bound   uint32    // items that may be made and not read; 0 = no bound of its own
	bytes   int64     // of small values that are not handed over
	ended   bool      // there will be no more
	dropped bool      // nobody reads any more
	dirty   bool
	readers []reader
	ask     creditAsk
}

// reader is an unanswered NEXT.
type reader struct {
	ch     Chan
	req    uint32
	from   uint32
	beside bool
}

// creditAsk is a generator that waits until it may make more items: its worker's channel, or the node that runs it.
type creditAsk struct {
	index uint32 // that it wants to make; 0 = it does not wait
	ch    Chan
	req   uint32
	node  NodeNo
}

// yield is what the node that runs a generator of another owner keeps of it.
type yield struct {
	made    uint32
	dropped bool // its owner does not want the items
	ask     creditAsk
}

// openStream makes the record of a stream with its task.
func (e *Engine) openStream(s *session, t *task, bound uint32) {
	st := &stream{unique: t.unique, task: e.taskID(t), session: s.id, gen: t.out, made: 1, handed: 1, read: 1, bound: bound}
	if e.streams == nil {
		e.streams = map[ids.Unique]*stream{}
	}
	e.streams[t.unique] = st
	e.objs.at(t.out).flags |= flagGen
}

// itemsMade is the index of the last item of a task's stream that its owner has.
func (e *Engine) itemsMade(t *task) uint32 {
	if t.owner != 0 {
		return e.yields[t.unique].made
	}
	if st := e.streams[t.unique]; st != nil {
		return st.made
	}
	return 1
}

// Item takes what a generator yielded here.
func (e *Engine) Item(sid SessionID, u ids.Unique, attempt, index uint32, out *Output) {
	s := e.sessions[sid]
	if s == nil || s.worker == nil {
		return
	}
	t := e.runningTask(s, u)
	if t == nil || t.attempt != attempt || t.flags&flagStream == 0 {
		return // of an attempt that is over; what it wrote was taken back then
	}
	if made := e.itemsMade(t); index > made+1 {
		e.refuse(s, fmt.Sprintf("item: task %x sent item %d after item %d", uint64(u), index, made))
		return
	} else if index <= made {
		return
	}
	id := e.taskID(t).Object(index)
	if t.owner != 0 {
		e.sendItem(s, t, id, out)
		return
	}
	st := e.streams[u]
	if st == nil || st.dropped {
		if i := e.find(id); i != 0 {
			e.abortCreate(s, i)
		}
		if st != nil {
			st.made = index
		}
		return
	}
	if i, o := e.itemRecord(t, id); o.ready() {
		e.addItem(st, i, o)
	} else {
		e.fill(i, o, s, out)
		e.addItem(st, i, o)
	}
}

// itemRecord is the record of an item that is coming. If it is ready, somebody made the id up, and has it as an error.
func (e *Engine) itemRecord(t *task, id ids.ObjectID) (uint32, *object) {
	i := e.find(id)
	if i == 0 {
		i, _ = e.create(id, objPending)
	}
	o := e.objs.at(i)
	o.tmpl = t.tmpl
	return i, o
}

// counts tells whether a task may have n outputs. A generator that raises has its error as the second one: the last item.
func (t *task) counts(n int) bool {
	return uint32(n) == t.returns || n == 2 && t.flags&flagStream != 0
}

// lastItem makes the error of a generator of ours its stream's last item.
func (e *Engine) lastItem(t *task, fill func(i uint32, o *object)) {
	st := e.streams[t.unique]
	if st.dropped {
		if i := e.find(st.task.Object(st.made + 1)); i != 0 && e.objs.at(i).state == objCreating {
			e.forgetCreate(i, e.objs.at(i))
		}
		return
	}
	i, o := e.itemRecord(t, st.task.Object(st.made+1))
	if !o.ready() {
		fill(i, o)
	}
	e.addItem(st, i, o)
}

// addItem is the coming into being of a stream's next item.
func (e *Engine) addItem(st *stream, i uint32, o *object) {
	st.made++
	e.hold(i)
	if o.state == objInline {
		o.flags |= flagUnread
		st.bytes += int64(o.size)
	}
	if len(st.readers) > 0 {
		e.markStream(st)
	}
}

// endStream notes that a stream's task has ended. An error of its object, which a daemon made, is the last item, too.
func (e *Engine) endStream(t *task) {
	st := e.streams[t.unique]
	if st == nil {
		return
	}
	st.ended = true
	gen := e.objs.at(t.out)
	if gen.status == statusError {
		e.lastItem(t, func(i uint32, o *object) {
			if o.state == objCreating {
				e.forgetCreate(i, o)
			}
			e.setInline(i, statusError, e.blobs.get(gen.val), nil)
		})
	}
	if st.dropped {
		delete(e.streams, st.unique)
		return
	}
	e.markStream(st)
}

// restartStream forgets what the attempt before waited for.
func (e *Engine) restartStream(t *task) {
	if st := e.streams[t.unique]; st != nil {
		st.ask = creditAsk{}
	}
}

func (e *Engine) markStream(st *stream) {
	if !st.dirty {
		st.dirty = true
		e.dirtyStreams = append(e.dirtyStreams, st)
	}
}

// flushStreams answers those who wait for items that have come.
func (e *Engine) flushStreams() {
	for k := 0; k < len(e.dirtyStreams); k++ {
		st := e.dirtyStreams[k]
		st.dirty = false
		e.serveStream(st)
		e.giveCredit(st)
	}
	clear(e.dirtyStreams)
	e.dirtyStreams = e.dirtyStreams[:0]
}

func (e *Engine) serveStream(st *stream) {
	if st.dropped {
		return
	}
	for k := 0; k < len(st.readers); {
		if r := st.readers[k]; r.from <= st.made || st.ended {
			st.readers = slices.Delete(st.readers, k, k+1)
			e.handOver(st, r)
		} else {
			k++
		}
	}
}

// handOver answers a NEXT: one delivery of each item from the wanted one on, as many as fit. Items that were handed over
// before are so again, for a client that was interrupted; it counts each delivery.
func (e *Engine) handOver(st *stream, r reader) {
	s := e.sessions[r.ch.Session]
	list := e.scratchV[:0]
	bytes := 0
	k := r.from
fill:
	for ; k <= st.made && len(list) < handItems; k++ {
		i := e.find(st.task.Object(k))
		if i == 0 {
			break // handed over before, and released
		}
		o := e.objs.at(i)
		more := int(o.val.n) + len(e.contained[i])*ids.ObjectSize
		if bytes += more; bytes > handBytes && len(list) > 0 {
			break
		}
		v := Value{ID: o.id, Status: o.status, Size: o.size}
		alone := o.state != objInline || len(e.contained[i]) > handIDs
		switch {
		case !alone:
			v = e.valueFor(s, i)
		case len(list) > 0:
			break fill
		case o.state == objArena:
			v.Arena = true
		default:
			v.Away = true
		}
		e.claim(s, i, 1)
		if k > st.handed {
			st.handed = k
			if o.flags&flagUnread != 0 {
				o.flags &^= flagUnread
				st.bytes -= int64(o.size)
			}
			e.unhold(i)
		}
		list = append(list, v)
		if alone || st.bound > 0 { // a large item is let go for itself; what a bounded stream hands over is counted one by one
			k++
			break
		}
	}
	e.scratchV = list
	e.sink.Items(r.ch, r.req, e.objs.at(st.gen).id, r.from, st.ended && k > st.made, list)
	clear(list)
	e.readDone(r)
}

// readDone notes that a NEXT is answered.
func (e *Engine) readDone(r reader) {
	if ch := e.channelOf(r.ch.Session, r.ch.Chan); ch != nil {
		ch.reads--
		if !r.beside {
			ch.next = nil
		}
		e.noteBlocked(ch)
	}
}

// Next asks for a stream's items from an index on; those up to read are taken. With beside, it leaves the channel's other
// requests alone.
func (e *Engine) Next(c Chan, req uint32, id ids.ObjectID, from, read uint32, beside bool) {
	ch := e.channelOf(c.Session, c.Chan)
	st := e.streams[id.Unique()]
	if ch == nil && req != 0 {
		return
	}
	if st == nil || st.session != c.Session || st.dropped {
		if req != 0 {
			e.sink.Fail(c, req, fault.TaskGone, "object "+id.String()+" is no stream of this client, or it was dropped")
		}
		return
	}
	if st.read = max(st.read, min(read, from)); st.bound > 0 && st.ask.index != 0 {
		e.markStream(st)
	}
	if req == 0 {
		return
	}
	r := reader{ch: c, req: req, from: from, beside: beside}
	if !beside {
		e.cancelGet(ch)
		ch.waiting = false
		e.cancelNext(ch)
		ch.next = st
	}
	st.readers = append(st.readers, r)
	ch.reads++
	if from <= st.made || st.ended {
		e.markStream(st) // to be answered at once: it does not wait
		return
	}
	e.noteBlocked(ch)
}

// cancelNext gives up a channel's NEXT, but for those beside it.
func (e *Engine) cancelNext(ch *channel) {
	st := ch.next
	if st == nil {
		return
	}
	ch.next = nil
	ch.reads--
	st.readers = slices.DeleteFunc(st.readers, func(r reader) bool { return r.ch == ch.id && !r.beside })
}

// cancelReader gives up the NEXT with a number, and tells whether there was one.
func (e *Engine) cancelReader(c Chan, req uint32) bool {
	for _, u := range sortedKeys(e.streams) {
		st := e.streams[u]
		k := slices.IndexFunc(st.readers, func(r reader) bool { return r.ch == c && r.req == req })
		if k < 0 {
			continue
		}
		r := st.readers[k]
		st.readers = slices.Delete(st.readers, k, k+1)
		if r.from <= st.made || st.ended { // it is there: that is the answer
			e.handOver(st, r)
			e.markStream(st)
			return true
		}
		e.sink.Done(c, req, true)
		e.readDone(r)
		return true
	}
	return false
}

// dropReaders forgets all NEXTs of a channel.
func (e *Engine) dropReaders(ch *channel) {
	if ch.reads == 0 {
		return
	}
	ch.next, ch.reads = nil, 0
	for _, st := range e.streams {
		st.readers = slices.DeleteFunc(st.readers, func(r reader) bool { return r.ch == ch.id })
	}
}

// DropStream says that a client does not read on: what it has not taken is freed, and what comes is not kept.
func (e *Engine) DropStream(sid SessionID, id ids.ObjectID) {
	if st := e.streams[id.Unique()]; st != nil && st.session == sid {
		e.dropStream(st)
	}
}

func (e *Engine) dropStream(st *stream) {
	if st.dropped {
		return
	}
	st.dropped = true
	readers := st.readers
	st.readers = nil
	for _, r := range readers {
		e.sink.Done(r.ch, r.req, true)
		e.readDone(r)
	}
	for k := st.handed + 1; k <= st.made; k++ {
		i := e.find(st.task.Object(k))
		e.objs.at(i).flags &^= flagUnread
		e.unhold(i)
	}
	st.handed, st.bytes = st.made, 0
	if st.ended {
		delete(e.streams, st.unique)
		return
	}
	e.giveCredit(st)
	if i := e.remoteRun[runKey{st.unique}]; i != 0 {
		if t := e.tasks.at(i); t.owner == 0 && t.state == taskAway && e.peers[t.at] != nil {
			e.sink.Peer(t.at, &StreamCredit{Unique: st.unique, Limit: noBound, Dropped: true})
		}
	}
}

// dropStreams ends the streams of a client that is gone.
func (e *Engine) dropStreams(sid SessionID) {
	for _, u := range sortedKeys(e.streams) {
		if st := e.streams[u]; st != nil && st.session == sid {
			e.dropStream(st)
		}
	}
}

// endWanted notes that somebody waits for the end of a stream: its generator must not wait for a reader.
func (e *Engine) endWanted(o *object) {
	if st := e.streams[o.id.Unique()]; st != nil && st.bound == 0 && st.ask.index != 0 {
		e.markStream(st)
	}
}

// limit is the index up to which a stream's generator may make items now.
func (e *Engine) limit(st *stream) uint32 {
	switch {
	case st.dropped:
		return noBound
	case st.bound > 0:
		return st.read + st.bound
	case e.objs.at(st.gen).waiters != 0:
		return noBound
	case st.bytes >= streamBytes:
		return st.made
	}
	return st.handed + streamItems
}

// giveCredit lets a generator go on that waits, if it may.
func (e *Engine) giveCredit(st *stream) {
	a := st.ask
	if a.index == 0 {
		return
	}
	lim := e.limit(st)
	if lim < a.index {
		return
	}
	st.ask = creditAsk{}
	e.tellCredit(a, st.unique, lim)
}

func (e *Engine) tellCredit(a creditAsk, u ids.Unique, lim uint32) {
	if a.node != 0 {
		if e.peers[a.node] != nil {
			e.sink.Peer(a.node, &StreamCredit{Unique: u, Limit: lim})
		}
		return
	}
	if ch := e.channelOf(a.ch.Session, a.ch.Chan); ch != nil {
		e.sink.Credit(a.ch, a.req, uint64(lim))
		ch.credit = false
		e.noteBlocked(ch)
	}
}

// StreamCredit takes a generator's question whether it may make the item with an index. The answer tells how many.
func (e *Engine) StreamCredit(c Chan, req uint32, id ids.ObjectID, attempt, index uint32) {
	s := e.sessions[c.Session]
	ch := e.channelOf(c.Session, c.Chan)
	if s == nil || ch == nil {
		return
	}
	u := id.Unique()
	t := e.runningTask(s, u)
	if t == nil || t.attempt != attempt || t.flags&flagStream == 0 {
		e.sink.Credit(c, req, noBound) // it is over: nobody counts
		return
	}
	a := creditAsk{index: index, ch: c, req: req}
	ch.credit = true
	if t.owner == 0 {
		if st := e.streams[u]; st != nil {
			st.ask = a
			e.markStream(st)
		} else {
			e.tellCredit(a, u, noBound)
		}
	} else if y := e.yields[u]; y.dropped || e.peers[t.owner] == nil {
		e.tellCredit(a, u, noBound)
	} else {
		y.ask = a
		e.sink.Peer(t.owner, &StreamAsk{Unique: u, Attempt: attempt, Index: index})
	}
	e.noteBlocked(ch)
}

// Between daemons.

// sendItem passes an item on to the owner of its generator.
func (e *Engine) sendItem(s *session, t *task, id ids.ObjectID, out *Output) {
	y := e.yields[t.unique]
	y.made++
	if y.dropped || e.peers[t.owner] == nil {
		if i := e.find(id); i != 0 {
			e.abortCreate(s, i)
		}
		return
	}
	e.sink.Peer(t.owner, &StreamItem{Unique: t.unique, Attempt: t.attempt, Obj: e.collectOutput(t, s, id, out)})
}

// streamItem takes an item of a generator of ours that runs elsewhere.
func (e *Engine) streamItem(p *peer, m *StreamItem) {
	st, index := e.streams[m.Unique], m.Obj.ID.Index()
	var t *task
	if i := e.remoteRun[runKey{m.Unique}]; i != 0 {
		t = e.tasks.at(i)
	}
	ours := t != nil && t.owner == 0 && t.at == p.no && t.attempt == m.Attempt && t.state == taskAway && st != nil
	if ours && index == st.made+1 && st.dropped {
		st.made++
	}
	if !ours || index != st.made+1 || st.dropped || m.Obj.ID != st.task.Object(index) {
		if m.Obj.Arena {
			e.sink.Peer(p.no, &ObjFree{ID: m.Obj.ID})
		}
		if len(m.Obj.Contained) > 0 {
			e.sink.Peer(p.no, &ResultSettled{Unique: m.Unique, Index: index})
		}
		return
	}
	e.settleContained(p, []ObjInfo{m.Obj}, m.Unique, index)
	i, o := e.itemRecord(t, m.Obj.ID)
	if !o.ready() {
		e.takeOutput(p, i, o, &m.Obj)
	} else if m.Obj.Arena {
		e.sink.Peer(p.no, &ObjFree{ID: m.Obj.ID})
	}
	e.addItem(st, i, o)
}

// receiveStream takes a message about a stream.
func (e *Engine) receiveStream(p *peer, m Msg) {
	switch m := m.(type) {
	case *StreamItem:
		e.streamItem(p, m)
	case *StreamAsk:
		st := e.streams[m.Unique]
		a := creditAsk{index: m.Index, node: p.no}
		if st == nil {
			e.tellCredit(a, m.Unique, noBound)
			return
		}
		st.ask = a
		e.markStream(st)
	case *StreamCredit:
		y := e.yields[m.Unique]
		i := e.remoteRun[runKey{m.Unique}]
		if y == nil || e.tasks.at(i).owner != p.no {
			return
		}
		y.dropped = y.dropped || m.Dropped
		if a := y.ask; a.index != 0 && a.index <= m.Limit {
			y.ask = creditAsk{}
			e.tellCredit(a, m.Unique, m.Limit)
		}
	}
}

// endAsksOf forgets that generators on a node that is dead wait.
func (e *Engine) endAsksOf(no NodeNo) {
	for _, st := range e.streams {
		if st.ask.node == no {
			st.ask = creditAsk{}
		}
	}
}
