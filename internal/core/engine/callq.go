package engine

import (
	"fmt"
	"slices"
	"time"

	"gray/internal/core/actor"
	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

// Flags of a task (docs/protocol.md, EXECUTE).
const (
	flagArgsInDep uint16 = 1 << 0
	flagCreation  uint16 = 1 << 4
	flagCall      uint16 = 1 << 5
	flagQuiet     uint16 = 1 << 15 // no daemon lists its attempts
	flagAlone     uint16 = 1 << 6  // the worker has nothing else: its answer need not wait for company
)

// callerKey names a caller of an actor: a session of this daemon or of another, and a concurrency group.
type callerKey struct {
	peer   NodeNo // 0 = this daemon
	caller uint32
	group  string
}

// callq is a caller's calls to an actor that have not ended, in their order: first those that were sent, to the worker
// or to the host, then those that wait.
type callq struct {
	a   *actorRec
	key callerKey
	chain
	next   uint32 // the first that was not sent
	late   chain  // those that need not keep the order and wait for an argument: they have no place yet
	sent   int
	bytes  int  // of arguments, in what was sent to another node
	listed bool // among its group's queues with something to send
}

// A caller's calls that may be at another node unanswered. The host sends them on to its worker as fast as that goes.
const (
	awayCalls = 2048
	awayBytes = 16 << 20
)

// ActorSubmission is a decoded ACTOR_CALL. Slices are valid during the call only.
type ActorSubmission struct {
	Submission
	Actor ids.ActorID
	Weak  bool
}

func (a *actorRec) callqOf(key callerKey) *callq {
	q := a.queues[key]
	if q == nil {
		q = &callq{a: a, key: key}
		a.queues[key] = q
		a.order = append(a.order, q)
	}
	return q
}

// CallActor takes a call that a client of this node makes; this daemon owns it.
func (e *Engine) CallActor(sid SessionID, m *ActorSubmission) {
	s := e.sessions[sid]
	if s == nil || e.overJobs[s.job] {
		return
	}
	tn, ok := s.templates[m.Template]
	switch {
	case !ok || e.templates[tn].spec.Method == "":
		e.refuse(s, fmt.Sprintf("actor call: template %d was not registered on this stream, or names no method", m.Template))
		return
	case !s.ownsID(m.Unique) || m.Returns > maxReturns:
		e.refuse(s, fmt.Sprintf("actor call: task %x with %d returns: not an id of this session's blocks, or over %d returns", uint64(m.Unique), m.Returns, maxReturns))
		return
	case m.Flags&flagStream != 0 && m.Returns != 1:
		e.refuse(s, fmt.Sprintf("actor call: stream %x asks for %d returns; it has one", uint64(m.Unique), m.Returns))
		return
	case e.outputsTaken(m.Unique, m.Returns):
		e.refuse(s, fmt.Sprintf("actor call: task id %x was used before", uint64(m.Unique)))
		return
	}
	tm := e.templates[tn]
	a := e.actorOf(m.Actor)
	e.watchActor(a)
	i, t := e.tasks.alloc()
	e.Counts.Submitted++
	t.unique, t.job, t.tmpl, t.flags = m.Unique, s.job, tn, m.Flags&flagsOfClient|flagCall
	t.retries, t.returns, t.bytes = tm.spec.MaxRetries, m.Returns, creditFor(m.Bytes, m.Returns)
	if m.Over.MaxRetries != nil {
		t.retries = *m.Over.MaxRetries
	}
	q := a.callqOf(callerKey{caller: uint32(sid), group: tm.spec.Group})
	t.call = q
	if s.worker != nil {
		t.parent = s.worker.current(e)
	}
	e.begin(s, t, m.By, m.Over.Events)
	tm.uses++
	t.args, t.over = e.blobs.put(m.Args), e.blobs.put(m.Over.Raw)
	e.credit(t.job, int64(t.bytes))
	e.jobOf(t.job).tasks++
	if !m.Weak {
		t.handle = e.know(m.Actor.Handle())
		e.hold(t.handle)
	}
	task := m.Actor.Task(m.Unique)
	for k := uint32(1); k <= m.Returns; k++ {
		oi, o := e.create(task.Object(k), objPending)
		o.task = i
		e.claim(s, oi, 1)
		if k == 1 {
			t.out = oi
		}
	}
	if t.flags&flagStream != 0 {
		e.openStream(s, t, tm.spec.Backpressure)
	}
	e.takeRefs(t, m.Deps, m.Contained)
	if tm.spec.Ordered {
		e.pushCall(q, i, t)
	} else {
		e.insert(&q.late, i, t, q.late.head)
	}
	e.awaitDeps(i, t)
	if s.worker != nil {
		e.cancelAlong(s.worker, i, t)
	}
}

// ripe lets a call go whose arguments are ready.
func (e *Engine) ripe(i uint32, t *task) {
	e.toTask(t, taskOrdered)
	if !t.linked {
		e.unlink(&t.call.late, t)
		e.pushCall(t.call, i, t)
	}
	e.offer(t.call)
}

// idle tells whether a caller has no calls that have not ended.
func (q *callq) idle() bool { return q.n == 0 && q.late.n == 0 }

// pushCall puts a call at the end of its caller's queue.
func (e *Engine) pushCall(q *callq, i uint32, t *task) {
	t.linked = true
	e.insert(&q.chain, i, t, 0)
	if q.next == 0 {
		q.next = i
	}
}

// unlinkCall takes a call out of its caller's queue, which goes with its last when the caller is gone.
func (e *Engine) unlinkCall(i uint32, t *task) {
	q := t.call
	if t.linked {
		t.linked = false
		if q.next == i {
			q.next = t.next
		}
		e.unlink(&q.chain, t)
	} else {
		e.unlink(&q.late, t)
	}
	if !q.idle() {
		return
	}
	if s := e.sessions[SessionID(q.key.caller)]; q.key.peer != 0 || s == nil || s.ended {
		e.dropQueue(q)
	}
}

// dropQueue forgets a caller that has no calls.
func (e *Engine) dropQueue(q *callq) {
	a := q.a
	if a.queues[q.key] != q {
		return
	}
	delete(a.queues, q.key)
	a.order = slices.DeleteFunc(a.order, func(o *callq) bool { return o == q })
	if a.host != nil {
		a.host.unlist(q)
	}
	e.dropActor(a)
}

// dropCaller forgets a caller that is gone; calls of its that have not ended keep its queues until they have.
func (e *Engine) dropCaller(sid SessionID) {
	for _, u := range sortedKeys(e.actors) {
		a := e.actors[u]
		if a == nil {
			continue
		}
		for _, q := range append([]*callq(nil), a.order...) {
			if q.key.peer == 0 && q.key.caller == uint32(sid) && q.idle() {
				e.dropQueue(q)
			}
		}
	}
}

// offer notes that a queue has something that may be sent.
func (e *Engine) offer(q *callq) {
	if h := q.a.host; h != nil && h.up {
		h.list(q)
	}
	e.markActor(q.a)
}

// nextAttempt counts a call's coming attempt.
func (e *Engine) nextAttempt(t *task) {
	if t.retries > 0 {
		t.retries--
	}
	t.attempt++
	e.renew(t)
	e.Counts.Retried++
	if t.flags&flagStream != 0 {
		e.restartStream(t)
	}
}

// again runs a call of ours once more, behind those that were made by now, as in Ray: another attempt may come as often as
// it likes, and those that were sent cannot wait for it.
func (e *Engine) again(i uint32, t *task) {
	q := t.call
	e.nextAttempt(t)
	if t.inc != q.a.inc { // its turn is as it was, with what else comes back from an old incarnation
		e.toTask(t, taskOrdered)
		q.next = q.head
		e.offer(q)
		return
	}
	e.ready(q) // goes on to the first that was not sent
	e.toTask(t, taskOrdered)
	before := t.next // the first that waits for an argument, which may be what this call is to return
	for before != 0 && e.tasks.at(before).state != taskWaiting {
		before = e.tasks.at(before).next
	}
	if t.next != before {
		e.unlink(&q.chain, t)
		e.insert(&q.chain, i, t, before)
	}
	if q.next == before {
		q.next = i
	}
	e.offer(q)
}

// ready finds the next call of a queue that can be sent; 0 if it has to wait.
func (e *Engine) ready(q *callq) (uint32, *task) {
	for q.next != 0 {
		t := e.tasks.at(q.next)
		switch {
		case t.state == taskOrdered && !t.lost:
			return q.next, t
		case t.state == taskFetching && e.bundleHere(q.next, t):
			return q.next, t
		case t.inc == q.a.inc && (t.state == taskAway || t.state == taskSent): // sent already, to this incarnation
			q.next = t.next
		default:
			return 0, nil
		}
	}
	return 0, nil
}

// pumpAway sends calls to the node where the actor lives.
func (e *Engine) pumpAway(a *actorRec) {
	p := e.peers[a.node]
	if p == nil {
		return // PeerGone has seen, or will see, to it
	}
	for _, q := range a.order {
		if q.key.peer != 0 {
			continue
		}
		for q.sent < awayCalls && q.bytes < awayBytes {
			i, t := e.ready(q)
			if t == nil {
				break
			}
			q.next = t.next
			e.sendCallAway(p, a, i, t)
		}
	}
}

func (e *Engine) sendCallAway(p *peer, a *actorRec, i uint32, t *task) {
	q := t.call
	m := e.packRun(p, t)
	m.Actor = &ActorPart{ID: a.id, Incarnation: a.inc, Caller: q.key.caller}
	e.toTask(t, taskAway)
	t.at, t.inc = p.no, a.inc
	e.remoteRun[runKey{t.unique}] = i
	q.sent++
	q.bytes += int(t.args.n)
	e.Counts.SentAway++
	e.sink.Peer(p.no, m)
}

// callBack takes a call back from the node it was sent to.
func (e *Engine) callBack(t *task) {
	delete(e.remoteRun, runKey{t.unique})
	t.at = 0
	t.call.sent--
	t.call.bytes -= int(t.args.n)
}

// callDone takes the end of a call of ours that was sent to another node.
func (e *Engine) callDone(p *peer, i uint32, t *task, m *TaskDone) {
	q, inc := t.call, t.inc
	e.callBack(t)
	e.heard(p, t, &m.Ran)
	e.settleResult(p, m)
	switch {
	case m.Lost == string(fault.ActorDied):
		e.lostCall(i, t, inc)
	case m.Lost != "" && t.cancelled:
		e.failCall(i, t, e.cancelled(t))
	case m.Lost != "":
		e.failCall(i, t, e.failure(fault.Kind(m.Lost), m.Why+" (on node "+p.id.String()+")"))
	case m.Outcome == OutcomeRetry && t.retries != 0 && !t.gone:
		e.failedOnce(t, taskError, e.noted(t))
		e.again(i, t)
	case !t.counts(len(m.Outputs)):
		e.failCall(i, t, e.failure(fault.System, fmt.Sprintf("node %s returned %d outputs for a call with %d", p.id, len(m.Outputs), t.returns)))
	default:
		e.recordResult(t, m.Outcome)
		e.takeOutputs(p, t, m)
		if len(m.Kept) > 0 {
			e.keeps[t.unique] = &keep{node: p.no, refs: t.refs}
			t.refs, t.nDeps = nil, 0
		}
		e.endTask(i, t)
	}
	e.offer(q) // those behind it may go: to an incarnation that lives here by now
}

// lostCall keeps a call whose incarnation ended until it is known whether the actor comes back.
func (e *Engine) lostCall(i uint32, t *task, inc uint32) {
	q := t.call
	a := q.a
	e.toTask(t, taskOrdered)
	switch {
	case t.gone || (e.jobs[t.job] != nil && e.jobs[t.job].ended):
		e.failCall(i, t, e.failure(fault.Cancelled, "the call's job has ended"))
	case a.state == actor.Dead:
		e.failCall(i, t, e.died(a))
	case a.inc <= inc && a.state != actor.Restarting:
		t.lost = true
		e.lostIncarnation(a)
		return
	case t.retries == 0: // what became of the actor is known already
		e.failCall(i, t, e.unavailable(a, processDied))
	default:
		e.failedOnce(t, fault.ActorUnavailable, processDied)
		e.nextAttempt(t)
		q.next = q.head
	}
	e.offer(q)
}

// failCall ends a call of ours with an error.
func (e *Engine) failCall(i uint32, t *task, f failure) {
	if t.state == taskWaiting {
		e.unwaitDeps(i, t)
	}
	e.failWith(i, t, f)
}

// failCalls ends the calls that an actor will not take: all of a dead one; of one that restarts, those that are not to
// be retried.
func (e *Engine) failCalls(a *actorRec) {
	for _, q := range slices.Clone(a.order) {
		if q.key.peer != 0 {
			continue
		}
		for i := q.head; i != 0; {
			t := e.tasks.at(i)
			next := t.next
			switch {
			case t.state == taskAway || t.state == taskSent || t.state == taskFetching:
			case a.state == actor.Dead:
				e.failCall(i, t, e.died(a))
			case t.state == taskOrdered && t.retries == 0 && t.attempt == 0: // a further attempt was granted before
				e.failCall(i, t, e.unavailable(a, "it is restarting"))
			}
			i = next
		}
		for a.state == actor.Dead && q.late.n != 0 {
			e.failCall(q.late.head, e.tasks.at(q.late.head), e.died(a))
		}
	}
}

// cancelCall ends a call of ours, or stops it where it runs.
func (e *Engine) cancelCall(i uint32, t *task, f failure) {
	switch t.state {
	case taskWaiting, taskOrdered:
		q := t.call
		e.failCall(i, t, f)
		e.offer(q)
	case taskAway:
		e.sink.Peer(t.at, &TaskCancel{Unique: t.unique})
	case taskFetching:
		q := t.call
		e.stopFetching(i, t)
		e.toTask(t, taskOrdered)
		e.failCall(i, t, f)
		e.offer(q)
	case taskSent:
		e.sink.CancelRun(t.worker, t.unique, t.attempt, false)
	}
}

// measureCall notes how long an ordered group's call took.
func (e *Engine) measureCall(g *group, t *task) {
	d := max(e.now.Sub(g.since), time.Microsecond)
	g.since = e.now
	tm := e.templates[t.tmpl]
	if tm.mean == 0 {
		tm.mean = d
		return
	}
	tm.mean = max(tm.mean+(d-tm.mean)/8, time.Microsecond)
}
