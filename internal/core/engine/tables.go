package engine

import (
	"gray/internal/core/actor"
	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

// What people ask a daemon for: its tasks, the references that its clients hold, its processes. Rows are handed to a
// function one by one; what they point to is valid during the call only.

// TaskRow is an attempt of a task, as a daemon knows it. Times are microseconds since 1970, 0 where there is none.
type TaskRow struct {
	ID        ids.TaskID
	Parent    ids.TaskID
	Job       ids.Job
	Actor     ids.ActorID // zero: not of an actor
	Attempt   uint32
	Type      TaskType
	State     string // Ray's name
	Name      string // its template's
	Func      string
	Over      []byte // what the call changed, msgpack; it may have another name
	Resources map[string]int64
	Labels    map[string]string
	Env       string
	Site      string
	Node      ids.NodeID // zero: not on a node yet
	Worker    WorkerID
	PID       int
	Fault     fault.Kind
	Error     []byte

	Created, Ready, Sent, Began, Ended int64

	Foreign bool // another daemon owns it and has a row of it; this one tells how it goes here
	Away    bool // it is at another node, which has such a row
}

// TaskScan is how far a look at the tasks has come.
type TaskScan struct {
	part int
	next uint64
}

// ScanTasks hands out up to n more of the attempts that this daemon knows: first those that live, then those that failed,
// then those that finished, the newest first. It is false when there are no more.
func (e *Engine) ScanTasks(s *TaskScan, n int, take func(*TaskRow)) bool {
	var row TaskRow
	for ; s.part == 0 && n > 0; n-- {
		if s.next++; s.next >= uint64(e.tasks.limit()) {
			s.part, s.next = 1, 0
			break
		}
		if t := e.tasks.at(uint32(s.next)); t.state != taskNone && t.flags&flagQuiet == 0 {
			e.liveRow(uint32(s.next), t, &row)
			take(&row)
		}
	}
	for s.part == 1 || s.part == 2 {
		r := &e.rec.failed
		if s.part == 2 {
			r = &e.rec.finished
		}
		if s.next == 0 {
			s.next = r.next
		}
		for ; n > 0 && s.next > 0 && s.next+uint64(r.limit) > r.next; n-- {
			e.endedRow(r.back(int(r.next-s.next)), &row)
			take(&row)
			if s.next--; s.next == 0 {
				break
			}
		}
		if n == 0 {
			return true
		}
		s.part, s.next = s.part+1, 0
	}
	return s.part < 3
}

// TaskCounts tells how many attempts are listed here, and how many were and are no longer kept.
func (e *Engine) TaskCounts() (known, dropped uint64) {
	for _, r := range []*ring{&e.rec.finished, &e.rec.failed} {
		known += uint64(r.len())
		dropped += r.next - uint64(r.len())
	}
	return known + uint64(e.tasks.live), dropped
}

// parentOf is the id of the task that made a call, or of its driver's.
func (e *Engine) parentOf(by caller, job ids.Job) ids.TaskID {
	if by.task == 0 {
		t := ids.Unique(0).Task(job)
		for i := range 8 {
			t[i] = 0xff
		}
		return t
	}
	if by.actor == 0 {
		return by.task.Task(job)
	}
	id := by.actor.Actor(job)
	if a := e.actors[by.actor]; a != nil {
		id = a.id // a detached one's has the job that made it
	}
	return id.Task(by.task)
}

func (e *Engine) liveRow(i uint32, t *task, row *TaskRow) {
	tm := e.templates[t.tmpl]
	k := e.rec.kinds.at(e.kindOf(tm))
	*row = TaskRow{
		ID: e.taskID(t), Parent: e.parentOf(t.by, t.job), Job: t.job, Attempt: t.attempt, Type: k.kind, Name: k.name, Func: k.function, Over: e.blobs.get(t.over),
		Resources: k.resources, Labels: k.labels, Env: k.env, Site: e.rec.sites[t.unique], State: e.taskState(i, t),
		Created: t.when.created, Ready: t.when.ready, Foreign: t.owner != 0, Away: t.state == taskAway,
	}
	switch {
	case t.call != nil:
		row.Actor = t.call.a.id
	case t.create != nil:
		row.Actor = t.create.ID
	}
	switch t.state {
	case taskAway:
		if p := e.peers[t.at]; p != nil {
			row.Node = p.id
		}
	case taskFetching, taskAssigned:
		row.Node = e.cfg.Node
	case taskSent:
		row.Node, row.Sent = e.cfg.Node, t.when.sent
		if s := e.sessions[t.worker]; s != nil && s.proc != 0 {
			p := e.rec.procs.at(s.proc)
			row.Worker, row.PID = p.id, p.pid
		}
		if began := e.beganAt(i, t); began != 0 {
			row.Began = began
		}
	}
}

// taskState is Ray's name for what an attempt does.
func (e *Engine) taskState(i uint32, t *task) string {
	switch t.state {
	case taskWaiting:
		return "PENDING_ARGS_AVAIL"
	case taskFetching:
		return "PENDING_ARGS_FETCH"
	case taskAway:
		return "SUBMITTED_TO_WORKER"
	case taskOrdered:
		if t.call.a.state == actor.Alive || t.call.a.host != nil {
			return "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY"
		}
		return "PENDING_NODE_ASSIGNMENT" // the actor waits for a place
	case taskSent:
		return e.runState(i, t)
	}
	return "PENDING_NODE_ASSIGNMENT"
}

// runState is what an attempt does that was sent to its worker. One that waits in ray.get is RUNNING, as in Ray.
func (e *Engine) runState(i uint32, t *task) string {
	switch {
	case e.beganAt(i, t) != 0:
		return "RUNNING"
	case t.call != nil:
		return "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY"
	}
	return "SUBMITTED_TO_WORKER"
}

// beganAt is when an attempt that was sent to its worker began to run; 0 = it waits there.
func (e *Engine) beganAt(i uint32, t *task) int64 {
	w := e.pool.all[t.worker]
	switch {
	case w == nil || t.create != nil:
		return t.when.sent
	case w.host == nil:
		if len(w.fifo) == 0 || w.fifo[0] != i {
			return 0
		}
		return max(t.when.sent, micros(w.headSince))
	case w.host.ordered():
		if w.host.running(e) != i {
			return 0
		}
		return max(t.when.sent, micros(w.host.group(t.call).since))
	}
	return t.when.sent
}

func (e *Engine) endedRow(a *attempt, row *TaskRow) {
	k := e.rec.kinds.at(a.kind)
	*row = TaskRow{
		Job: a.job, Attempt: a.no, Type: k.kind, Name: k.name, Func: k.function, Over: e.rec.blobs.get(a.over), Resources: k.resources, Labels: k.labels, Env: k.env,
		Parent: e.parentOf(a.by, a.job), Site: e.rec.sites[a.unique], State: "FINISHED",
		Created: a.when.created, Ready: a.when.ready, Sent: a.when.sent, Began: a.when.began, Ended: a.when.ended,
	}
	if a.actor != 0 {
		row.Actor = a.actor.Actor(a.actorJob)
		row.ID = row.Actor.Task(a.unique)
	} else {
		row.ID = a.unique.Task(a.job)
	}
	if a.proc != 0 {
		p := e.rec.procs.at(a.proc)
		row.Worker, row.PID, row.Node = p.id, p.pid, p.node
	}
	if a.failed {
		row.State, row.Fault, row.Error = "FAILED", fault.Kind(e.rec.faults[a.fault]), e.rec.blobs.get(a.text)
	}
}

// WorkerRow is a client process of this node. Times are microseconds since 1970.
type WorkerRow struct {
	ID            WorkerID
	PID           int
	Driver        bool
	Alive         bool
	Exit, Detail  string // Ray's exit type, and why
	Since, Ended  int64
	Node          ids.NodeID
	Job           ids.Job
	Actor         ids.ActorID
	State         string
	CurrentTaskID ids.TaskID // of a busy worker
}

func (e *Engine) workerRow(s *session) WorkerRow {
	p := e.rec.procs.at(s.proc)
	row := WorkerRow{ID: p.id, PID: p.pid, Driver: s.worker == nil, Since: s.since, Node: e.cfg.Node, Job: s.job}
	if w := s.worker; w != nil {
		row.State = w.state.String()
		if w.host != nil {
			row.Actor = w.host.a.id
		}
	}
	return row
}

// ScanWorkers hands out the client processes that live here, and the last that are gone.
func (e *Engine) ScanWorkers(take func(*WorkerRow)) {
	for _, sid := range sortedKeys(e.sessions) {
		if s := e.sessions[sid]; s.proc != 0 && !(s.ended && s.worker == nil) {
			row := e.workerRow(s)
			row.Alive = true
			if s.worker != nil && len(s.worker.fifo) > 0 {
				row.CurrentTaskID = e.taskID(e.tasks.at(s.worker.fifo[0]))
			}
			take(&row)
		}
	}
	for k := range e.rec.workers {
		take(&e.rec.workers[k])
	}
}

// exitOf words the end of a worker's process.
func (w *worker) exitOf(kind fault.Kind, why string) (exit, text string) {
	switch {
	case w.host != nil && w.host.death != nil && w.host.death.ExitType != "":
		return w.host.death.ExitType, w.host.death.Text
	case kind == fault.OutOfMemory:
		return "NODE_OUT_OF_MEMORY", why
	case w.killed != "":
		return "INTENDED_SYSTEM_EXIT", "It was ended: " + w.killed + "."
	case w.leaving || w.state == workLeaving:
		return "INTENDED_USER_EXIT", "It was to leave after a number of calls (max_calls), or with its job."
	}
	return "SYSTEM_ERROR", why
}

// ObjectRow is a reference that a client process of this node holds, or what else keeps an object here.
type ObjectRow struct {
	ID      ids.ObjectID
	Size    int64 // bytes; -1 = not known
	Status  string
	Attempt uint32
	Ref     string // Ray's type of reference
	Site    string
	Driver  bool
	Worker  WorkerID
	PID     int
}

// ScanObjects hands out the references that are held on this node, in no order.
func (e *Engine) ScanObjects(take func(*ObjectRow)) {
	used := map[uint32]bool{} // arguments of tasks that have not ended
	for i := uint32(1); i < e.tasks.limit(); i++ {
		if t := e.tasks.at(i); t.state != taskNone {
			for _, r := range t.refs {
				used[r] = true
			}
		}
	}
	inside := map[uint32]bool{}
	for _, list := range e.contained {
		for _, i := range list {
			inside[i] = true
		}
	}
	for i := uint32(1); i < e.tasks.limit(); i++ { // small arguments are in the worker's memory, and nowhere pinned
		t := e.tasks.at(i)
		if s := e.sessions[t.worker]; t.state == taskSent && s != nil && s.proc != 0 {
			for _, d := range t.refs[:t.nDeps] {
				if s.pins[d] == 0 {
					e.objectRow(s, d, "PINNED_IN_MEMORY", take)
				}
			}
		}
	}
	shown := map[uint32]bool{}
	for _, sid := range sortedKeys(e.sessions) {
		s := e.sessions[sid]
		if s.proc == 0 {
			continue
		}
		for i := range s.pins {
			shown[i] = true
			e.objectRow(s, i, "PINNED_IN_MEMORY", take)
		}
		for i := range s.claims {
			if s.pins[i] == 0 {
				shown[i] = true
				e.objectRow(s, i, e.refType(s, i, used), take)
			}
		}
	}
	fns := map[uint32]bool{} // bodies of functions are nobody's references
	for _, tm := range e.templates[1:] {
		fns[tm.fn] = true
	}
	for i := uint32(1); i < e.objs.limit(); i++ {
		o := e.objs.at(i)
		if e.objIndex[keyOf(o.id)] != i || fns[i] {
			continue
		}
		if s := e.sessions[o.claimS]; o.claimS != 0 && s != nil && s.proc != 0 {
			if s.pins[i] == 0 {
				e.objectRow(s, i, e.refType(s, i, used), take)
			}
			continue
		}
		if shown[i] || !e.mine(o.id) {
			continue
		}
		ref := "UNKNOWN_STATUS"
		switch {
		case o.flags&flagHandle != 0:
			ref = "ACTOR_HANDLE"
		case used[i]:
			ref = "USED_BY_PENDING_TASK"
		case inside[i]:
			ref = "CAPTURED_IN_OBJECT"
		}
		var owner *session
		if j := e.jobs[o.id.Job()]; j != nil {
			owner = e.sessions[j.driver]
		}
		e.objectRow(owner, i, ref, take)
	}
}

func (e *Engine) refType(s *session, i uint32, used map[uint32]bool) string {
	switch o := e.objs.at(i); {
	case o.flags&flagHandle != 0 || o.id.Index() == 1 && e.actors[o.id.Unique()] != nil:
		return "ACTOR_HANDLE"
	case used[i] && s.ownsID(o.id.Unique()):
		return "USED_BY_PENDING_TASK"
	}
	return "LOCAL_REFERENCE"
}

func (e *Engine) objectRow(s *session, i uint32, ref string, take func(*ObjectRow)) {
	o := e.objs.at(i)
	row := ObjectRow{ID: o.id, Size: -1, Status: "NIL", Ref: ref, Site: e.rec.sites[o.id.Unique()]}
	switch {
	case ref == "ACTOR_HANDLE":
	case o.state == objInline:
		row.Size = int64(o.val.n)
	case o.ready():
		row.Size = int64(o.size)
	}
	if e.mine(o.id) && ref != "ACTOR_HANDLE" {
		row.Status = "FINISHED"
		if o.task != 0 {
			t := e.tasks.at(o.task)
			row.Attempt = t.attempt
			if row.Status = e.taskState(o.task, t); t.state == taskSent {
				row.Status = "SUBMITTED_TO_WORKER"
			}
		}
	}
	if s != nil && s.proc != 0 {
		p := e.rec.procs.at(s.proc)
		row.Driver, row.Worker, row.PID = s.worker == nil, p.id, p.pid
		if s.worker != nil && ref == "PINNED_IN_MEMORY" && len(s.worker.fifo) > 0 && s.claims[i] == 0 && o.claimS != s.id {
			row.Site = "(deserialize task arg) " + e.templates[e.tasks.at(s.worker.fifo[0]).tmpl].spec.Name
			row.Status = "NIL"
		}
	}
	take(&row)
}
