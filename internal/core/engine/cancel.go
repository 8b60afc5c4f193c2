package engine

import (
	"slices"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

// Cancelling is how a task is to be cancelled.
type Cancelling struct {
	Force     bool // kill the worker that runs it; calls of actors are never killed
	Recursive bool // and what it has called, and so on
}

// Cancel ends the task of which an object is an output or an item, wherever it is. What has ended stays as it is.
func (e *Engine) Cancel(sid SessionID, id ids.ObjectID, c Cancelling) {
	i := e.find(id)
	if i == 0 || e.sessions[sid] == nil {
		return
	}
	if f := e.foreign[i]; f != nil {
		e.cancelAtOwner(i, f, c)
		return
	}
	e.cancelObject(i, c)
}

// cancelAtOwner passes a cancellation on to who knows the task.
func (e *Engine) cancelAtOwner(i uint32, f *foreign, c Cancelling) {
	id := e.objs.at(i).id
	if _, dead := e.deadOwners[id.Owner()]; dead || e.objs.at(i).ready() {
		return
	}
	if no, ok := e.owners[id.Owner()]; ok {
		e.sink.Peer(no, &ObjCancel{ID: id, Force: c.Force, Recursive: c.Recursive})
		return
	}
	f.cancel = &c
	f.subscribed = false // so that the owner is asked for, if it is not already; OwnerAt goes on
	if !slices.Contains(e.lookups[id.Owner()], i) {
		e.subscribe(i)
	}
}

func (e *Engine) cancelObject(i uint32, c Cancelling) {
	if ti := e.taskOf(i); ti != 0 {
		e.cancelTask(ti, e.tasks.at(ti), c)
	}
}

// taskOf is the task of ours that makes an object, or makes more items of its stream; 0 if it has ended.
func (e *Engine) taskOf(i uint32) uint32 {
	o := e.objs.at(i)
	if o.task != 0 {
		return o.task
	}
	if st := e.streams[o.id.Unique()]; st != nil && !st.ended {
		return e.objs.at(st.gen).task
	}
	return 0
}

// cancelTask ends a task of ours, or stops it where it runs. It is not run again.
func (e *Engine) cancelTask(i uint32, t *task, c Cancelling) {
	if t.create != nil {
		return // it ends with its actor
	}
	t.retries, t.cancelled = 0, true
	switch {
	case t.state == taskAway:
		e.sink.Peer(t.at, &TaskCancel{Unique: t.unique, Cancelled: true, Force: c.Force, Recursive: c.Recursive})
	case t.state == taskSent:
		e.stopRun(i, t, c)
	case t.call != nil:
		e.cancelCall(i, t, e.cancelled(t))
	case t.state == taskFetching || t.state == taskAssigned:
		e.stopFetching(i, t)
		slot := t.slot
		t.slot = 0
		e.failWith(i, t, e.cancelled(t))
		e.slotDone(slot, nil, nil)
	default:
		if t.state == taskQueued {
			e.unqueue(t)
		} else {
			e.unwaitDeps(i, t)
		}
		e.failWith(i, t, e.cancelled(t))
	}
}

// stopRun stops a task or a call that was sent to a worker here.
func (e *Engine) stopRun(i uint32, t *task, c Cancelling) {
	u, attempt := t.unique, t.attempt
	if t.call != nil {
		e.sink.CancelRun(t.worker, u, attempt, false)
	} else {
		w := e.pool.all[t.worker]
		e.takeBack(w) // what the worker has not received goes elsewhere: it reads on in its task, and would have it then
		if len(w.fifo) == 0 && w.state == workBusy {
			e.goIdle(w)
		}
		if t.unique != u || t.state != taskSent || t.worker != w.s.id {
			return
		}
		if c.Force {
			e.killFor(t, "it ran a task that was cancelled with force=True")
		} else {
			e.sink.CancelRun(w.s.id, u, attempt, true)
		}
	}
	if c.Recursive {
		if t.call == nil {
			t.sweeps = &Cancelling{c.Force, true}
		}
		e.cancelChildren(u, c)
	}
}

// cancelAlong cancels what a worker submits for a task that is cancelled with all that it calls, and that does not know yet.
func (e *Engine) cancelAlong(w *worker, i uint32, t *task) {
	if w.host != nil || len(w.fifo) == 0 {
		return
	}
	if c := e.tasks.at(w.fifo[0]).sweeps; c != nil {
		e.cancelTask(i, t, *c)
	}
}

// Heard says that a worker's task knows that it is cancelled: what it submits from now on is to run.
func (e *Engine) Heard(sid SessionID, u ids.Unique) {
	if s := e.sessions[sid]; s != nil && s.worker != nil {
		if k := s.worker.position(e, u); k >= 0 {
			e.tasks.at(s.worker.fifo[k]).sweeps = nil
		}
	}
}

// cancelChildren cancels what a task that runs here has called. This node owns all of that.
func (e *Engine) cancelChildren(of ids.Unique, c Cancelling) {
	for i := uint32(1); i < e.tasks.limit(); i++ {
		if t := e.tasks.at(i); t.state != taskNone && t.owner == 0 && t.by.task == of && !t.cancelled {
			e.cancelTask(i, t, c)
		}
	}
}

// cancelledHere stops, or ends, a task of another owner who says that it is cancelled.
func (e *Engine) cancelledHere(i uint32, t *task, c Cancelling) {
	t.cancelled = true
	done := &TaskDone{Unique: t.unique, Attempt: t.attempt, Lost: string(fault.Cancelled), Why: cancelledText(e.taskID(t))}
	switch q := t.call; t.state {
	case taskSent:
		e.stopRun(i, t, c)
	case taskHeld:
		e.unlink(&e.peers[t.owner].held[t.shape].chain, t)
		e.sendDone(i, t, done)
	case taskOrdered:
		e.sendDone(i, t, done)
		e.offer(q)
	case taskFetching, taskAssigned:
		e.stopFetching(i, t)
		slot := t.slot
		t.slot = 0
		if slot != 0 {
			e.slotDone(slot, nil, done)
		}
		if q != nil {
			e.toTask(t, taskOrdered)
		}
		e.sendDone(i, t, done)
		if q != nil {
			e.offer(q)
		}
	}
}

// cancelled is the error of a task that was cancelled.
func (e *Engine) cancelled(t *task) failure {
	return e.failure(fault.Cancelled, cancelledText(e.taskID(t)))
}

func cancelledText(id ids.TaskID) string { return "Task: " + id.String() + " was cancelled." }
