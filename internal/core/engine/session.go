package engine

import (
	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

// session is one client process: a driver or a worker.
type session struct {
	id        SessionID
	job       ids.Job
	worker    *worker // nil for a driver
	claims    map[uint32]uint32
	nClaims   int // claims of all objects, those kept in the objects too
	pins      map[uint32]uint32
	creates   map[uint32]uint64 // objects being written → memory request or 0 once granted
	templates map[uint32]uint32
	chans     map[uint32]*channel
	blocks    []idBlock
	proc      uint32 // in records.procs
	since     int64  // when it was introduced, in microseconds since 1970
	ended     bool   // the connection is gone, the process may live: its pins stay
}

type idBlock struct{ first, end ids.Unique }

// channel is where a session's thread reads its answers.
type channel struct {
	id      Chan
	get     *getReq // own, or nil
	own     getReq
	waitReq uint32 // unanswered WAIT; 0 none
	waiting bool
	look    bool           // the WAIT wants an answer at once
	ready   []ids.ObjectID // to be told
	dirty   bool
	full    bool     // the client does not read: hold back
	queue   []uint32 // objects to be answered when it reads again, each held
	next    *stream  // of an unanswered NEXT that does not stand beside the others
	reads   int      // unanswered NEXTs, those beside, too
	credit  bool     // a generator asks whether it may go on
}

// getReq is an unanswered GET.
type getReq struct {
	req  uint32
	left int
	want []uint32
}

const (
	channelFull  = 1 << 20  // unread bytes above which a channel gets no more values
	channelEmpty = 64 << 10 // and below which it does again
)

// OpenDriver makes a session for a driver of a job and gives it a block of ids.
func (e *Engine) OpenDriver(j ids.Job, idCount uint64) (SessionID, ids.Unique) {
	s := e.newSession(j)
	e.jobOf(j).driver = s.id
	u := e.GiveIDs(s.id, idCount)
	e.prestart()
	return s.id, u
}

func (e *Engine) newSession(j ids.Job) *session {
	e.lastSess++
	s := &session{
		id: e.lastSess, job: j, claims: map[uint32]uint32{}, pins: map[uint32]uint32{}, creates: map[uint32]uint64{},
		templates: map[uint32]uint32{}, chans: map[uint32]*channel{},
	}
	e.sessions[s.id] = s
	return s
}

// GiveIDs reserves count ids for a session.
func (e *Engine) GiveIDs(s SessionID, count uint64) ids.Unique {
	u := e.IDs(count)
	if p := e.sessions[s]; p != nil {
		p.blocks = append(p.blocks, idBlock{u, u + ids.Unique(count)})
	}
	return u
}

// ownsID tells whether an id comes from a block that the session was given.
func (s *session) ownsID(u ids.Unique) bool {
	for k := len(s.blocks) - 1; k >= 0; k-- {
		if b := s.blocks[k]; u >= b.first && u < b.end {
			return true
		}
	}
	return false
}

// OpenChannel makes a session's channel; it is false if the number is taken or the session gone.
func (e *Engine) OpenChannel(c Chan) bool {
	s := e.sessions[c.Session]
	if s == nil || s.chans[c.Chan] != nil {
		return false
	}
	s.chans[c.Chan] = &channel{id: c}
	return true
}

// CloseChannel forgets a channel and what was asked on it.
func (e *Engine) CloseChannel(c Chan) {
	ch := e.channelOf(c.Session, c.Chan)
	if ch == nil {
		return
	}
	e.cancelGet(ch)
	if ch.next != nil {
		e.cancelNext(ch)
	}
	e.dropReaders(ch)
	for _, i := range ch.queue {
		e.unhold(i)
	}
	delete(e.sessions[c.Session].chans, c.Chan)
}

func (e *Engine) channelOf(s SessionID, c uint32) *channel {
	if p := e.sessions[s]; p != nil {
		return p.chans[c]
	}
	return nil
}

// refuse ends a session that broke a rule. The shell answers with SessionGone when the process is dead.
func (e *Engine) refuse(s *session, text string) {
	e.sink.Refuse(s.id, fault.Protocol, text)
}

// claim counts n deliveries of an object to a session.
func (e *Engine) claim(s *session, i, n uint32) {
	o := e.objs.at(i)
	switch {
	case o.claimS == s.id:
		o.claimN += n
		return
	case s.claims[i] > 0:
		s.claims[i] += n
		return
	case o.claimS == 0:
		o.claimS, o.claimN = s.id, n
	default:
		s.claims[i] = n
	}
	s.nClaims++
	o.holds++
}

// unclaim takes n deliveries back; the claim ends with the last.
func (e *Engine) unclaim(s *session, i, n uint32) {
	o := e.objs.at(i)
	if o.claimS == s.id {
		if o.claimN > n {
			o.claimN -= n
			return
		}
		o.claimS, o.claimN = 0, 0
	} else if have := s.claims[i]; have > n {
		s.claims[i] = have - n
		return
	} else if have == 0 {
		return
	} else {
		delete(s.claims, i)
	}
	s.nClaims--
	e.unhold(i)
}

// Release consumes n deliveries of id to session s.
func (e *Engine) Release(s SessionID, id ids.ObjectID, n uint32) {
	if p, i := e.sessions[s], e.find(id); p != nil && i != 0 {
		e.unclaim(p, i, n)
	}
}

func (e *Engine) pin(s *session, i uint32) {
	o := e.objs.at(i)
	s.pins[i]++
	o.pins++
	e.memPin(o)
}

// Unpin ends n reads of an object's arena bytes.
func (e *Engine) Unpin(s SessionID, id ids.ObjectID, n uint32) {
	if p, i := e.sessions[s], e.find(id); p != nil && i != 0 {
		e.unpin(p, i, n)
	}
}

func (e *Engine) unpin(s *session, i, n uint32) {
	n = min(n, s.pins[i])
	if n == 0 {
		return
	}
	if s.pins[i] -= n; s.pins[i] == 0 {
		delete(s.pins, i)
	}
	o := e.objs.at(i)
	o.pins -= n
	for ; n > 0; n-- {
		e.memUnpin(o)
	}
	if o.pins == 0 && o.holds == 0 {
		e.freeList = append(e.freeList, i)
	}
}

// Put stores a small value under a new id of the session's own.
func (e *Engine) Put(sid SessionID, id ids.ObjectID, status uint8, contained []ids.ObjectID, value []byte) {
	s := e.sessions[sid]
	if s == nil {
		return
	}
	if !e.freshPut(s, id) {
		return
	}
	i, o := e.create(id, objPending)
	o.flags |= flagPut
	e.claim(s, i, 1)
	e.credit(id.Job(), int64(len(value)))
	e.setInline(i, status, value, e.holdAll(contained))
}

// freshPut checks that a put's id is the session's and unused.
func (e *Engine) freshPut(s *session, id ids.ObjectID) bool {
	if id.Index() != 1 || !s.ownsID(id.Unique()) || id.Job() != s.job || e.find(id) != 0 {
		e.refuse(s, "put: id "+id.String()+" is not an unused id of this session's block")
		return false
	}
	return true
}

// holdAll makes a value or a task hold the ids in it.
func (e *Engine) holdAll(list []ids.ObjectID) []uint32 {
	if len(list) == 0 {
		return nil
	}
	in := make([]uint32, len(list))
	for k, id := range list {
		in[k] = e.know(id)
		e.hold(in[k])
	}
	return in
}

// Get asks for values on a channel; what is there is answered at once. A new Get replaces an older one.
func (e *Engine) Get(c Chan, req uint32, list ids.List) {
	ch := e.channelOf(c.Session, c.Chan)
	if ch == nil {
		return
	}
	e.cancelGet(ch)
	if ch.next != nil {
		e.cancelNext(ch)
	}
	ch.waiting = false
	g := &ch.own
	*g = getReq{req: req, left: list.Len(), want: g.want[:0]}
	if g.left == 0 {
		e.sink.Done(c, req, false)
		e.noteBlocked(ch)
		return
	}
	ch.get = g
	for k := range list.Len() {
		i := e.know(list.At(k))
		o := e.objs.at(i)
		if o.local() {
			e.answer(ch, i)
			continue
		}
		g.want = append(g.want, i)
		e.await(i, waiter{kind: waitGet, a: uint32(c.Session), b: c.Chan, req: req})
		e.want(i)
	}
	e.noteBlocked(ch)
	if c.Chan == 0 && ch.get != nil {
		e.hasten(e.sessions[c.Session], list)
	}
}

// want makes sure that an object which is not here comes here, or that its owner will tell.
func (e *Engine) want(i uint32) {
	o := e.objs.at(i)
	switch o.state {
	case objUnknown:
		e.subscribe(i)
	case objElsewhere, objFetching: // a copy under way for a task may be given up
		e.startFetch(i)
	}
}

// answer sends one object of the channel's GET, or keeps it back while the client does not read.
func (e *Engine) answer(ch *channel, i uint32) {
	if ch.full {
		e.hold(i)
		ch.queue = append(ch.queue, i)
		return
	}
	e.sendValue(ch, i)
	ch.get.answered(e, ch)
}

// answered counts one answer of the request, and ends it with the last.
func (g *getReq) answered(e *Engine, ch *channel) {
	g.left--
	if g.left > 0 {
		return
	}
	e.sink.Done(ch.id, g.req, false)
	ch.get = nil
	e.noteBlocked(ch)
}

func (e *Engine) sendValue(ch *channel, i uint32) {
	s := e.sessions[ch.id.Session]
	v := e.valueFor(s, i)
	if e.sink.Value(ch.id, ch.get.req, v) > channelFull {
		ch.full = true
	}
}

// valueFor builds an object's value for a session and counts the deliveries and the pin in it.
func (e *Engine) valueFor(s *session, i uint32) Value {
	o := e.objs.at(i)
	v := Value{ID: o.id, Status: o.status}
	for _, c := range e.contained[i] {
		e.claim(s, c, 1)
		v.Contained = append(v.Contained, e.objs.at(c).id)
	}
	if o.state == objArena {
		e.pin(s, i)
		v.Arena, v.Off, v.Size = true, o.off, o.size
	} else {
		v.Inline = e.blobs.get(o.val)
	}
	return v
}

// Drained says that a channel's client has read nearly everything.
func (e *Engine) Drained(c Chan) {
	ch := e.channelOf(c.Session, c.Chan)
	if ch == nil || !ch.full {
		return
	}
	ch.full = false
	q := ch.queue
	ch.queue = nil
	for k, i := range q {
		if ch.full {
			ch.queue = append(ch.queue, q[k:]...)
			break
		}
		if ch.get != nil {
			switch e.objs.at(i).local() {
			case true:
				e.answer(ch, i)
			case false: // evicted since
				e.await(i, waiter{kind: waitGet, a: uint32(c.Session), b: c.Chan, req: ch.get.req})
				e.want(i)
			}
		}
		e.unhold(i)
	}
	e.noteBlocked(ch)
}

// CancelReq gives up an unanswered GET or WAIT.
func (e *Engine) CancelReq(c Chan, req uint32) {
	ch := e.channelOf(c.Session, c.Chan)
	if ch == nil {
		return
	}
	if ch.get != nil && ch.get.req == req {
		e.cancelGet(ch)
		e.sink.Done(c, req, true)
	} else if ch.waitReq == req && ch.waiting {
		ch.waiting = false
		e.sink.Done(c, req, true)
	} else if len(e.streams) > 0 {
		e.cancelReader(c, req)
	}
	e.noteBlocked(ch)
}

func (e *Engine) cancelGet(ch *channel) {
	if ch.get == nil {
		return
	}
	for _, i := range ch.get.want {
		if i < e.objs.limit() {
			e.unwait(i, waiter{kind: waitGet, a: uint32(ch.id.Session), b: ch.id.Chan, req: ch.get.req})
		}
	}
	for _, i := range ch.queue {
		e.unhold(i)
	}
	ch.queue, ch.get = nil, nil
}

// Wait adds ids to a channel's watch set; the answer lists those of the set that became ready, as soon as there are any.
func (e *Engine) Wait(c Chan, req uint32, here bool, list ids.List) {
	ch := e.channelOf(c.Session, c.Chan)
	if ch == nil {
		return
	}
	e.cancelGet(ch)
	if ch.next != nil {
		e.cancelNext(ch)
	}
	ch.waitReq, ch.waiting, ch.look = req, true, false
	kind := waitWatch
	if here {
		kind = waitHere
	}
	for k := range list.Len() {
		i := e.know(list.At(k))
		o := e.objs.at(i)
		if o.local() || (!here && o.ready()) {
			e.watched(ch, o.id)
			continue
		}
		e.await(i, waiter{kind: kind, a: uint32(c.Session), b: c.Chan})
		if here || o.state == objUnknown {
			e.want(i)
		}
	}
	e.markDirty(ch)
	if c.Chan == 0 {
		e.hasten(e.sessions[c.Session], list)
	}
}

// Look is a Wait that is answered at once, if need be with an empty list: a client whose time is over asks so.
func (e *Engine) Look(c Chan, req uint32, here bool, list ids.List) {
	e.Wait(c, req, here, list)
	if ch := e.channelOf(c.Session, c.Chan); ch != nil {
		ch.look = true
	}
}

func (e *Engine) watched(ch *channel, id ids.ObjectID) {
	ch.ready = append(ch.ready, id)
	e.markDirty(ch)
}

func (e *Engine) markDirty(ch *channel) {
	if !ch.dirty {
		ch.dirty = true
		e.dirtyChans = append(e.dirtyChans, ch)
	}
}

// flushChans answers the waits that have something to hear.
func (e *Engine) flushChans() {
	for _, ch := range e.dirtyChans {
		ch.dirty = false
		if ch.waiting && (len(ch.ready) > 0 || ch.look) {
			e.sink.Ready(ch.id, ch.waitReq, ch.ready)
			ch.ready = ch.ready[:0]
			ch.waiting = false
		}
		e.noteBlocked(ch)
	}
	e.dirtyChans = e.dirtyChans[:0]
}

// noteBlocked lends or takes back a worker's CPU, by whether its main thread has an unanswered request.
func (e *Engine) noteBlocked(ch *channel) {
	if ch.id.Chan != 0 {
		return
	}
	if s := e.sessions[ch.id.Session]; s != nil && s.worker != nil {
		gets := ch.get != nil && len(ch.queue) == 0 && !e.loads(s.worker, ch.get)
		e.setBlocked(s.worker, gets || (ch.waiting && len(ch.ready) == 0) || ch.reads > 0 || ch.credit)
	}
}

// loads tells whether a worker only waits for the function of the task that it is about to run: that is over soon and
// waits for no task, so lending its CPU would only start one task too many.
func (e *Engine) loads(w *worker, g *getReq) bool {
	var runs uint32
	switch {
	case len(g.want) != 1:
		return false
	case w.host != nil:
		runs = w.host.task // its class, for the constructor
	case len(w.fifo) > 0:
		runs = w.fifo[0]
	}
	return runs != 0 && e.objs.at(g.want[0]).id == e.templates[e.tasks.at(runs).tmpl].spec.Fn
}

// SessionEnded says that a client's connection is gone while its process may live: its requests end, what it has
// mapped stays.
func (e *Engine) SessionEnded(sid SessionID) {
	s := e.sessions[sid]
	if s == nil || s.ended {
		return
	}
	s.ended = true
	for _, c := range sortedKeys(s.chans) {
		e.CloseChannel(s.chans[c].id)
	}
	if len(e.streams) > 0 {
		e.dropStreams(sid)
	}
	e.dropClaims(s)
	if s.worker == nil {
		e.endJob(s.job)
	}
	e.dropCaller(sid)
}

// Maps tells whether a client may still read or write the arena.
func (e *Engine) Maps(sid SessionID) bool {
	s := e.sessions[sid]
	return s != nil && len(s.pins)+len(s.creates) > 0
}

// SessionGone says that a client's process is dead, or maps nothing any more.
func (e *Engine) SessionGone(sid SessionID) {
	s := e.sessions[sid]
	if s == nil {
		return
	}
	e.SessionEnded(sid)
	for _, i := range sortedKeys(s.pins) {
		e.unpin(s, i, s.pins[i])
	}
	for _, i := range sortedKeys(s.creates) {
		e.abortCreate(s, i)
	}
	for _, no := range sortedKeys(s.templates) {
		e.unuseTemplate(s.templates[no])
	}
	e.sessionOver(s)
	delete(e.sessions, sid)
	e.mem.Forget(uint64(sid))
	if s.worker == nil {
		e.sweepShapes()
	}
}

func (e *Engine) dropClaims(s *session) {
	for _, i := range sortedKeys(s.claims) {
		delete(s.claims, i)
		s.nClaims--
		e.unhold(i)
	}
	if s.nClaims == 0 {
		return
	}
	for i := uint32(1); i < e.objs.limit() && s.nClaims > 0; i++ {
		if o := e.objs.at(i); o.claimS == s.id {
			o.claimS, o.claimN = 0, 0
			s.nClaims--
			e.unhold(i)
		}
	}
}
