package engine

import (
	"fmt"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

// taskState is where a task is. Names and transitions: docs/states.md.
type taskState uint8

const (
	taskNone     taskState = iota
	taskWaiting            // some argument is not ready; waits at its owner
	taskQueued             // waits at its owner for a slot on some node
	taskAway               // sent to another node
	taskHeld               // came from another owner, has no slot here yet
	taskFetching           // has a slot here; an argument is being fetched
	taskAssigned           // has a slot and its arguments; waits for a worker
	taskSent               // sent to a worker
	taskOrdered            // an actor's call whose arguments are ready: waits for its turn
)

var taskStateNames = [...]string{"NIL", "PENDING_ARGS_AVAIL", "PENDING_NODE_ASSIGNMENT", "AWAY", "HELD", "PENDING_ARGS_FETCH", "PENDING_WORKER", "SUBMITTED_TO_WORKER", "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY"}

func (s taskState) String() string { return taskStateNames[s] }

var taskNext = [...][]taskState{
	taskNone:     {taskWaiting, taskQueued, taskHeld, taskOrdered},
	taskWaiting:  {taskQueued, taskOrdered, taskNone},
	taskQueued:   {taskAway, taskFetching, taskAssigned, taskSent, taskWaiting, taskNone},
	taskAway:     {taskWaiting, taskQueued, taskOrdered, taskNone},
	taskHeld:     {taskFetching, taskAssigned, taskSent, taskNone},
	taskFetching: {taskAssigned, taskQueued, taskWaiting, taskHeld, taskOrdered, taskSent, taskNone},
	taskAssigned: {taskSent, taskFetching, taskQueued, taskWaiting, taskHeld, taskNone},
	taskSent:     {taskQueued, taskWaiting, taskHeld, taskOrdered, taskNone},
	taskOrdered:  {taskAway, taskFetching, taskSent, taskNone},
}

// task is one remote function call: at its owner, at the node that runs it, or both in one.
type task struct {
	unique    ids.Unique
	parent    ids.Unique // the task that submitted it; 0 = the driver
	job       ids.Job
	state     taskState
	depth     uint8 // of the chain of calls: 1 for what a driver calls, and so on; no more than 255
	flags     uint16
	tmpl      uint32
	shape     uint32
	attempt   uint32
	retries   int32 // left; negative = without end
	returns   uint32
	out       uint32 // index of output 1
	args      blob
	over      blob
	refs      []uint32 // arguments first, then ids that travel inside
	nDeps     uint32
	missing   uint32 // arguments that are not ready, or not here
	owner     NodeNo // who owns it; 0 = we
	at        NodeNo // where it runs, when away
	slot      uint32
	worker    SessionID
	next      uint32 // in its queue
	prev      uint32
	started   int64 // when it got its slot here, in microseconds since 1970
	when      times // of this attempt
	by        caller
	proc      uint32      // where it ran last, counted; in records.procs
	exited    bool        // the actor that ran it left with it, because it wanted to
	bytes     uint32      // of its frame, for the job's credit
	gone      bool        // its job ended while it runs: its outputs are not wanted
	cancelled bool        // no attempt follows
	sweeps    *Cancelling // what its worker submits before its code is interrupted is cancelled like this

	create *CreatePart // of an actor's creation; its attempt is the incarnation
	call   *callq      // of an actor's call: the queue of its caller
	handle uint32      // of a call: the object that counts the actor's handles, held
	inc    uint32      // of a call that was sent: to which incarnation
	linked bool        // it is in its caller's queue
	lost   bool        // its incarnation ended while it was there
}

// Overrides are what a SUBMIT changes of its template. Raw is handed to the worker.
type Overrides struct {
	Raw        []byte
	MaxRetries *int32
	Strategy   *Strategy
	Events     *bool // false: the call is not listed
}

// Submission is a decoded SUBMIT. Slices are valid during the call only.
type Submission struct {
	Template  uint32 // the session's number
	Unique    ids.Unique
	By        ids.Unique // the actor's call that makes it, where the client has several
	Returns   uint32
	Flags     uint16
	Deps      []ids.ObjectID
	Contained []ids.ObjectID
	Over      Overrides
	Args      []byte
	Bytes     uint32
}

// maxReturns is how many outputs fit into one RESULT. A call counts against its job's credit with its frame and with what
// its records take here: callCost, and returnCost for each output beyond the first; in the client's account, too
// (docs/protocol.md).
const (
	maxReturns = 1 << 16
	callCost   = 384
	returnCost = 128
)

// creditFor is what a call with a frame of so many bytes counts.
func creditFor(frame, returns uint32) uint32 {
	n := frame + callCost
	if returns > 1 {
		n += (returns - 1) * returnCost
	}
	return n
}

func (e *Engine) toTask(t *task, st taskState) {
	for _, ok := range taskNext[t.state] {
		if ok == st {
			t.state = st
			return
		}
	}
	panic("engine: task " + e.taskID(t).String() + " cannot go from " + t.state.String() + " to " + st.String())
}

// Submit takes a task that a client of this node calls; this daemon owns it.
func (e *Engine) Submit(sid SessionID, m *Submission) {
	s := e.sessions[sid]
	if s == nil || e.overJobs[s.job] {
		return // the worker that still calls something is being killed
	}
	tn, ok := s.templates[m.Template]
	switch {
	case !ok:
		e.refuse(s, fmt.Sprintf("submit: template %d was not registered on this stream", m.Template))
		return
	case e.templates[tn].spec.Method != "" || e.templates[tn].spec.Actor != nil:
		e.refuse(s, fmt.Sprintf("submit: template %d is of an actor", m.Template))
		return
	case !s.ownsID(m.Unique):
		e.refuse(s, fmt.Sprintf("submit: task id %x is not of this session's blocks", uint64(m.Unique)))
		return
	case m.Flags&flagStream != 0 && m.Returns != 1:
		e.refuse(s, fmt.Sprintf("submit: stream %x asks for %d returns; it has one", uint64(m.Unique), m.Returns))
		return
	case m.Returns > maxReturns:
		e.refuse(s, fmt.Sprintf("submit: task %x asks for %d returns; a task has at most %d", uint64(m.Unique), m.Returns, maxReturns))
		return
	case e.outputsTaken(m.Unique, m.Returns):
		e.refuse(s, fmt.Sprintf("submit: task id %x was used before", uint64(m.Unique)))
		return
	}
	tm := e.templates[tn]
	i, t := e.tasks.alloc()
	e.Counts.Submitted++
	t.unique, t.job, t.tmpl, t.shape, t.flags = m.Unique, s.job, tn, tm.shape, m.Flags&flagsOfClient
	t.retries, t.returns, t.bytes = tm.spec.MaxRetries, m.Returns, creditFor(m.Bytes, m.Returns)
	if m.Over.MaxRetries != nil {
		t.retries = *m.Over.MaxRetries
	}
	if m.Over.Strategy != nil {
		sp := tm.spec
		sp.Strategy = *m.Over.Strategy
		t.shape = e.shapeOf(&sp)
	}
	if s.worker != nil {
		t.parent = s.worker.current(e)
	}
	e.begin(s, t, m.By, m.Over.Events)
	tm.uses++
	t.args, t.over = e.blobs.put(m.Args), e.blobs.put(m.Over.Raw)
	e.credit(t.job, int64(t.bytes))
	e.jobOf(t.job).tasks++
	for k := uint32(1); k <= m.Returns; k++ {
		oi, o := e.create(m.Unique.Object(s.job, k), objPending)
		o.task, o.tmpl = i, tn
		e.claim(s, oi, 1)
		if k == 1 {
			t.out = oi
		}
	}
	if t.flags&flagStream != 0 {
		e.openStream(s, t, tm.spec.Backpressure)
	}
	e.takeRefs(t, m.Deps, m.Contained)
	e.awaitDeps(i, t)
	if s.worker != nil {
		e.cancelAlong(s.worker, i, t)
	}
}

// taskID is a task's id: that of a call, or a creation, names its actor.
func (e *Engine) taskID(t *task) ids.TaskID {
	switch {
	case t.call != nil:
		return t.call.a.id.Task(t.unique)
	case t.create != nil:
		return t.create.ID.Task(t.unique)
	}
	return t.unique.Task(t.job)
}

// outputsTaken tells whether an output of a new task exists already.
func (e *Engine) outputsTaken(u ids.Unique, returns uint32) bool {
	for k := uint32(1); k <= returns; k++ {
		if e.objIndex[objKey{u, k}] != 0 {
			return true
		}
	}
	return false
}

func (e *Engine) takeRefs(t *task, deps, contained []ids.ObjectID) {
	t.nDeps = uint32(len(deps))
	if n := len(deps) + len(contained); n > 0 {
		t.refs = make([]uint32, 0, n)
		for _, id := range deps {
			t.refs = append(t.refs, e.know(id))
		}
		for _, id := range contained {
			t.refs = append(t.refs, e.know(id))
		}
		for _, r := range t.refs {
			e.hold(r)
		}
	}
}

// awaitDeps queues a task of ours once its arguments are ready.
func (e *Engine) awaitDeps(i uint32, t *task) {
	t.missing = 1 // until all are looked at: an owner may be known to be dead
	for _, d := range t.refs[:t.nDeps] {
		o := e.objs.at(d)
		if o.ready() {
			continue
		}
		t.missing++
		e.await(d, waiter{kind: waitDep, a: i})
		if o.state == objUnknown {
			e.subscribe(d)
		}
	}
	if t.missing--; t.missing == 0 {
		e.argsReady(i, t)
	} else {
		e.toTask(t, taskWaiting)
	}
}

// argsReady lets a task of ours go whose arguments are ready.
func (e *Engine) argsReady(i uint32, t *task) {
	t.when.ready = e.us
	switch {
	case t.call != nil:
		e.ripe(i, t)
	case t.create != nil:
		e.enqueue(i, t)
		e.creationQueued(t)
	default:
		e.enqueue(i, t)
	}
}

// unwaitDeps takes a task that waits for arguments from their lists.
func (e *Engine) unwaitDeps(i uint32, t *task) {
	for _, d := range t.refs[:t.nDeps] {
		for e.unwait(d, waiter{kind: waitDep, a: i}) {
		}
	}
	t.missing = 0
}

func (e *Engine) depReady(i uint32) {
	t := e.tasks.at(i)
	if t.missing--; t.missing == 0 {
		e.argsReady(i, t)
	}
}

// Output is one value that a task returned.
type Output struct {
	Status    uint8
	Arena     bool
	Size      uint64
	Contained []ids.ObjectID
	Value     []byte
}

// Outcomes of a RESULT (docs/protocol.md).
const (
	OutcomeValues  = 0
	OutcomeRaised  = 1
	OutcomeRetry   = 2
	OutcomeLeaving = 3
	OutcomeExit    = 4
)

// Result is what a worker says of a task that it has run. Stale ones are dropped; what they carried was claimed by the
// worker's session and goes with its releases.
func (e *Engine) Result(sid SessionID, u ids.Unique, attempt uint32, outcome uint8, outs []Output) {
	s := e.sessions[sid]
	if s == nil || s.worker == nil {
		return
	}
	w := s.worker
	if w.host != nil {
		e.actorResult(s, u, attempt, outcome, outs)
		return
	}
	k := w.position(e, u)
	if k < 0 {
		return
	}
	i := w.fifo[k]
	t := e.tasks.at(i)
	if t.attempt != attempt {
		return
	}
	again := outcome == OutcomeRetry && t.retries != 0 && t.owner == 0 && !t.gone
	if !again && !t.counts(len(outs)) {
		e.refuse(s, fmt.Sprintf("result: task %x has %d returns, %d were sent", uint64(u), t.returns, len(outs)))
		return
	}
	e.wentOn(w)
	if !w.served {
		e.pool.serves(w)
	}
	w.drop(k)
	e.endBundle(i)
	t.when.began = max(t.when.sent, micros(w.headSince))
	e.measure(w, t)
	if outcome == OutcomeLeaving {
		w.leaving = true
	}
	slot := t.slot
	t.slot, t.worker = 0, 0
	if again {
		e.abortOutputs(s, t)
		e.failedOnce(t, taskError, e.noted(t))
		e.retry(i, t)
		e.slotDone(slot, w, nil)
		return
	}
	e.finish(i, t, s, outcome, outs, slot, w)
}

// finish hands a task's outputs to their owner and its slot to the next task.
func (e *Engine) finish(i uint32, t *task, s *session, outcome uint8, outs []Output, slot uint32, w *worker) {
	if t.owner != 0 {
		done := &TaskDone{Unique: t.unique, Attempt: t.attempt, Outcome: outcome, Ran: e.ran(t)}
		e.collectOutputs(t, s, outs, done)
		e.slotDone(slot, w, done)
		e.sendDone(i, t, done)
		return
	}
	if outcome == OutcomeValues || outcome == OutcomeLeaving {
		e.Counts.Finished++
	} else {
		e.Counts.Failed++
	}
	e.recordResult(t, outcome)
	for k := range outs {
		if k > 0 && t.flags&flagStream != 0 {
			e.lastItem(t, func(i uint32, o *object) { e.fill(i, o, s, &outs[k]) })
			continue
		}
		e.store(t, s, uint32(k+1), &outs[k])
	}
	e.endTask(i, t)
	e.slotDone(slot, w, nil)
}

func (e *Engine) output(t *task, k uint32) uint32 {
	if k == 1 {
		return t.out
	}
	return e.objIndex[objKey{t.unique, k}]
}

// store gives output k of an own task its value.
func (e *Engine) store(t *task, s *session, k uint32, out *Output) {
	i := e.output(t, k)
	o := e.objs.at(i)
	e.fill(i, o, s, out)
}

// fill gives an object that a worker here has made its value.
func (e *Engine) fill(i uint32, o *object, s *session, out *Output) {
	inner := e.holdAll(out.Contained)
	if o.state == objCreating && !(out.Arena && s.wrote(i, o, out)) {
		e.abortCreate(s, i) // while o.task says that its value comes otherwise
	}
	o.task = 0
	if o.state == objCreating {
		o.size, o.status = out.Size, out.Status
		e.sealed(s, i, o, true)
		e.setContained(i, inner)
		e.wake(i)
	} else {
		if out.Arena {
			e.setInline(i, statusError, e.notWritten(o.id), inner)
		} else {
			e.setInline(i, out.Status, out.Value, inner)
		}
	}
	if o.holds == 0 {
		e.freeList = append(e.freeList, i)
	}
}

// wrote tells whether the session was given the bytes that an output is said to lie in.
func (s *session) wrote(i uint32, o *object, out *Output) bool {
	request, creates := s.creates[i]
	return creates && request == 0 && o.size == out.Size
}

// notWritten is the value of an output that is said to lie where it does not.
func (e *Engine) notWritten(id ids.ObjectID) []byte {
	return e.sink.ErrorValue(fault.System, "output "+id.String()+" was said to lie in the arena, but was not created there with that size")
}

// endTask drops the record of a task of ours that has ended.
func (e *Engine) endTask(i uint32, t *task) {
	if t.flags&flagStream != 0 {
		e.endStream(t)
	}
	e.toTask(t, taskNone)
	e.leaves(t)
	e.noted(t)
	if t.call != nil {
		e.unlinkCall(i, t)
	}
	if t.handle != 0 {
		e.unhold(t.handle)
	}
	for _, r := range t.refs {
		e.unhold(r)
	}
	e.blobs.drop(t.args)
	e.blobs.drop(t.over)
	e.credit(t.job, -int64(t.bytes))
	if t.owner == 0 {
		j := e.jobOf(t.job)
		j.tasks--
		if j.ended && j.tasks == 0 {
			delete(e.jobs, t.job)
		}
	}
	e.unuseTemplate(t.tmpl)
	e.tasks.release(i)
}

// failTask ends a task of ours with an error made by the daemon, on all its outputs.
func (e *Engine) failTask(i uint32, t *task, kind fault.Kind, text string) {
	if t.create != nil {
		e.Counts.Failed++
		e.lostCreation(i, t, deathOf(kind, text))
		return
	}
	e.failWith(i, t, e.failure(kind, text))
}

// failure is an error that the daemon makes.
type failure struct {
	kind  fault.Kind
	text  string
	value []byte
}

func (e *Engine) failure(kind fault.Kind, text string) failure {
	return failure{kind, text, e.sink.ErrorValue(kind, text)}
}

// failWith ends a task of ours with an error value on all its outputs.
func (e *Engine) failWith(i uint32, t *task, f failure) {
	e.Counts.Failed++
	e.record(t, f.kind, f.text)
	for k := uint32(1); k <= t.returns; k++ {
		oi := e.output(t, k)
		o := e.objs.at(oi)
		if o.state == objCreating {
			e.forgetCreate(oi, o)
		}
		o.task = 0
		e.setInline(oi, statusError, f.value, nil)
		if o.holds == 0 {
			e.freeList = append(e.freeList, oi)
		}
	}
	e.endTask(i, t)
}

// retry runs a task of ours again.
func (e *Engine) retry(i uint32, t *task) {
	if t.retries > 0 {
		t.retries--
	}
	t.attempt++
	e.renew(t)
	e.Counts.Retried++
	if t.flags&flagStream != 0 {
		e.restartStream(t)
	}
	e.awaitDeps(i, t)
}

// crashed decides what becomes of a task whose attempt was lost with its worker or its node.
func (e *Engine) crashed(i uint32, t *task, kind fault.Kind, why string) {
	if t.create != nil {
		e.lostCreation(i, t, deathOf(kind, why))
		return
	}
	if t.gone || (e.jobs[t.job] != nil && e.jobs[t.job].ended) {
		e.failTask(i, t, fault.Cancelled, "the task's job has ended")
		return
	}
	if t.cancelled {
		e.orphans(t.unique, true)
		e.failWith(i, t, e.cancelled(t))
		return
	}
	if t.retries == 0 || kind == fault.StoreFull || kind == fault.RuntimeEnv { // another attempt would fail the same way
		e.orphans(t.unique, true)
		e.failTask(i, t, kind, fmt.Sprintf("Task %s (%s), attempt %d: %s", t.unique.Task(t.job), e.templates[t.tmpl].spec.Name, t.attempt, why))
		return
	}
	e.orphans(t.unique, true)
	e.failedOnce(t, kind, why)
	e.retry(i, t)
}

// orphans cancels the children of a dead attempt that nobody else holds; running says whether those, too, that run: another
// attempt makes its own. Calls of actors that run go on.
func (e *Engine) orphans(parent ids.Unique, running bool) {
	for i := uint32(1); i < e.tasks.limit(); i++ {
		t := e.tasks.at(i)
		if t.state == taskNone || t.parent != parent || t.owner != 0 || t.create != nil || t.cancelled {
			continue
		}
		waits := t.state == taskQueued || t.state == taskWaiting || t.state == taskOrdered
		if !waits && (!running || t.call != nil) {
			continue
		}
		wanted := false
		for k := uint32(1); k <= t.returns; k++ {
			wanted = wanted || e.objs.at(e.output(t, k)).holds > 0
		}
		switch {
		case wanted:
		case !waits:
			e.cancelTask(i, t, Cancelling{Force: true, Recursive: true})
		default:
			e.cancel(i, t, "the task that had called it died, and nobody else holds its result")
		}
	}
}

// cancel ends a task of ours that has not started.
func (e *Engine) cancel(i uint32, t *task, why string) {
	if t.call != nil { // those behind it may go now
		e.cancelCall(i, t, e.failure(fault.Cancelled, why))
		return
	}
	switch t.state {
	case taskQueued:
		e.unqueue(t)
	case taskWaiting:
		e.unwaitDeps(i, t)
	}
	e.failTask(i, t, fault.Cancelled, why)
}
