package engine

import (
	"strings"
	"time"

	"gray/internal/core/actor"
	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

// What this daemon remembers of attempts that have ended: of its own tasks only, so that each stands in one daemon's
// books. Two rings of entries of one size, written in place; the failed have one of their own, because a stream of tasks
// that succeed would push them out within a second, and they are what people look for. An entry holds no pointers:
// texts are blobs, and what many tasks share (names, resources, processes) are numbers of counted records.
const (
	keptFinished = 32 << 10 // attempts
	keptFailed   = 8 << 10
	keptOver     = 512     // bytes of a call's overrides, for its name; of larger ones the template's stands
	keptError    = 2 << 10 // bytes of an error's text
	keptWorkers  = 1 << 10 // processes that are gone
)

// WorkerID names a client process, as its WELCOME told it.
type WorkerID [28]byte

// TaskType is what kind of call a task is.
type TaskType uint8

// The types, and their names in Ray.
const (
	NormalTask TaskType = iota
	ActorCreationTask
	ActorTask
)

func (t TaskType) String() string {
	return [...]string{"NORMAL_TASK", "ACTOR_CREATION_TASK", "ACTOR_TASK"}[t]
}

// times are what a daemon notes of an attempt, in microseconds since 1970; 0 = not yet.
type times struct {
	created int64 // submitted, or to be run again
	ready   int64 // its arguments are
	sent    int64 // to its worker
	began   int64 // to run, as far as the daemon can tell
	ended   int64
}

// caller is who made a call: a task, or the driver.
type caller struct {
	task  ids.Unique // 0 = the driver
	actor ids.Unique // the creation of the actor that task ran in, or 0
}

// attempt is an attempt that has ended.
type attempt struct {
	unique   ids.Unique
	actor    ids.Unique // of a call or a creation
	by       caller
	when     times
	job      ids.Job
	actorJob ids.Job
	kind     uint32 // in records.kinds
	proc     uint32 // in records.procs
	no       uint32
	over     blob
	text     blob // of its error
	fault    uint16
	failed   bool
}

// ring keeps the last attempts. It grows by chunks, to its limit.
type ring struct {
	chunks [][]attempt
	limit  int
	next   uint64 // attempts ever
}

func (r *ring) len() int { return int(min(r.next, uint64(r.limit))) }

// slot is the place of the next attempt; taken tells that an older one stands there.
func (r *ring) slot() (a *attempt, taken bool) {
	k := int(r.next % uint64(r.limit))
	if k/slabChunk == len(r.chunks) {
		r.chunks = append(r.chunks, make([]attempt, min(slabChunk, r.limit)))
	}
	taken = r.next >= uint64(r.limit)
	r.next++
	return &r.chunks[k/slabChunk][k%slabChunk], taken
}

// back is the k-th last attempt, from 0.
func (r *ring) back(k int) *attempt {
	k = int((r.next - 1 - uint64(k)) % uint64(r.limit))
	return &r.chunks[k/slabChunk][k%slabChunk]
}

// taskKind is what the attempts of a function have in common.
type taskKind struct {
	name      string
	function  string // as its module has it
	kind      TaskType
	resources map[string]int64
	labels    map[string]string
	env       string
	uses      int
}

// process is a client process that tasks ran in.
type process struct {
	id   WorkerID
	pid  int
	node ids.NodeID
	uses int
}

// records are a daemon's books of what was.
type records struct {
	finished, failed ring
	blobs            blobs
	kinds            slab[taskKind]
	procs            slab[process]
	procAt           map[WorkerID]uint32
	faults           []string              // kinds of errors; an attempt has its number
	notes            map[ids.Unique]string // errors of attempts that have not ended yet, as their workers told them
	sites            map[ids.Unique]string // where calls and puts stand in their program, while they are known
	workers          []WorkerRow           // that are gone, the oldest first
	gone             uint64                // how many ever
}

func (r *records) init() {
	r.finished.limit, r.failed.limit = keptFinished, keptFailed
	r.procAt, r.notes, r.sites, r.faults = map[WorkerID]uint32{}, map[ids.Unique]string{}, map[ids.Unique]string{}, []string{""}
}

// Introduce tells of a client what its WELCOME or SETUP says: its id and process.
func (e *Engine) Introduce(sid SessionID, id WorkerID, pid int) {
	s := e.sessions[sid]
	if s == nil || s.proc != 0 {
		return
	}
	s.proc = e.rec.process(id, pid, e.cfg.Node)
	s.since = e.us
}

// process is the record of a process, counted.
func (r *records) process(id WorkerID, pid int, node ids.NodeID) uint32 {
	if id == (WorkerID{}) {
		return 0
	}
	p := r.procAt[id]
	if p == 0 {
		var rec *process
		p, rec = r.procs.alloc()
		rec.id, rec.pid, rec.node = id, pid, node
		r.procAt[id] = p
	}
	r.procs.at(p).uses++
	return p
}

func (r *records) dropProcess(p uint32) {
	if p == 0 {
		return
	}
	rec := r.procs.at(p)
	if rec.uses--; rec.uses == 0 {
		delete(r.procAt, rec.id)
		r.procs.release(p)
	}
}

// kindOf is what a template's attempts have in common; the template counts as one user.
func (e *Engine) kindOf(tm *template) uint32 {
	if tm.kind == 0 {
		i, k := e.rec.kinds.alloc()
		k.name, k.uses, k.env = strings.Clone(tm.spec.Name), 1, strings.Clone(tm.spec.Env)
		k.function = strings.Clone(tm.spec.Func)
		k.resources, k.labels = e.cfg.Names.Map(tm.spec.Resources), tm.spec.Labels.Map()
		switch {
		case tm.spec.Actor != nil:
			k.kind = ActorCreationTask
			k.resources = e.cfg.Names.Map(tm.spec.Actor.Held)
		case tm.spec.Method != "":
			k.kind = ActorTask
		}
		tm.kind = i
	}
	return tm.kind
}

func (r *records) dropKind(i uint32) {
	if i == 0 {
		return
	}
	k := r.kinds.at(i)
	if k.uses--; k.uses == 0 {
		r.kinds.release(i)
	}
}

// fault is the number of an error's kind.
func (r *records) fault(kind string) uint16 {
	for i, k := range r.faults {
		if k == kind {
			return uint16(i)
		}
	}
	if len(r.faults) > 1000 { // another daemon's words
		return 0
	}
	r.faults = append(r.faults, kind)
	return uint16(len(r.faults) - 1)
}

// runsIn notes in which process an attempt is, before it is sent there.
func (e *Engine) runsIn(t *task, s *session) {
	e.leaves(t)
	if t.when.sent = e.us; s.proc != 0 {
		t.proc = s.proc
		e.rec.procs.at(t.proc).uses++
	}
}

func (e *Engine) leaves(t *task) {
	if t.proc != 0 {
		e.rec.dropProcess(t.proc)
		t.proc = 0
	}
}

// ran is what the owner of an attempt that ends here is told of it.
func (e *Engine) ran(t *task) RanPart {
	if t.flags&flagQuiet != 0 || t.proc == 0 {
		return RanPart{}
	}
	p := e.rec.procs.at(t.proc)
	return RanPart{Worker: p.id, PID: p.pid, Sent: t.when.sent, Began: t.when.began, Ended: e.us, Exited: t.exited, Note: e.noted(t)}
}

// heard takes what another node says of where an attempt of ours ran.
func (e *Engine) heard(p *peer, t *task, r *RanPart) {
	if r.PID == 0 {
		return
	}
	e.leaves(t)
	t.proc = e.rec.process(r.Worker, r.PID, p.id)
	t.when.sent, t.when.began, t.when.ended, t.exited = r.Sent, r.Began, r.Ended, r.Exited
	if r.Note != "" {
		e.rec.notes[t.unique] = r.Note
	}
}

// begin notes who makes a call, and when.
func (e *Engine) begin(s *session, t *task, by ids.Unique, events *bool) {
	t.by, t.depth = e.callerOf(s), e.depthBelow(s)
	if by != 0 && t.by.actor != 0 {
		t.by.task = by
	}
	t.when.created = e.us
	if quiet := e.templates[t.tmpl].spec.NoEvents; quiet && events == nil || events != nil && !*events {
		t.flags |= flagQuiet
	}
}

// callerOf is who calls through a session: what its worker runs. Of an actor that runs several calls, only its process can
// tell which of them it is; where it does not, it is said to be its creation.
func (e *Engine) callerOf(s *session) caller {
	w := s.worker
	switch {
	case w == nil:
		return caller{}
	case w.host == nil:
		return caller{task: w.current(e)}
	}
	h := w.host
	by := caller{task: h.a.id.Unique(), actor: h.a.id.Unique()}
	if len(h.calls) == 1 {
		for u := range h.calls {
			by.task = u
		}
	} else if h.ordered() {
		if i := h.running(e); i != 0 {
			by.task = e.tasks.at(i).unique
		}
	}
	return by
}

// running is the call that an ordered actor runs: of those sent to it the first to have been. 0 if there is none.
func (h *host) running(e *Engine) (first uint32) {
	for _, i := range h.calls {
		if first == 0 || e.tasks.at(i).when.sent < e.tasks.at(first).when.sent {
			first = i
		}
	}
	return first
}

// deathKind is the kind of error that an actor's death is to its creation.
func deathKind(d *actor.Death) fault.Kind {
	switch d.Cause {
	case actor.InitFailed:
		return taskError
	case actor.NoEnv:
		return fault.RuntimeEnv
	case actor.Unplaceable:
		return fault.Unschedulable
	case actor.NodeDied:
		return fault.NodeDied
	case actor.WorkerDied, actor.Exited:
		return fault.WorkerCrashed
	}
	return fault.ActorDied
}

// sessionOver notes the end of a client's process.
func (e *Engine) sessionOver(s *session) {
	if s.proc == 0 {
		return
	}
	row := e.workerRow(s)
	row.Ended = e.us
	row.Exit, row.Detail = "INTENDED_USER_EXIT", "Driver exits."
	if s.worker != nil {
		row.Exit, row.Detail = s.worker.exit, shortened(s.worker.exitText, keptError)
	}
	if e.rec.gone++; len(e.rec.workers) < keptWorkers {
		e.rec.workers = append(e.rec.workers, row)
	} else {
		e.rec.workers[(e.rec.gone-1)%keptWorkers] = row
	}
	e.rec.dropProcess(s.proc)
	s.proc = 0
}

// record notes the end of an attempt of ours. kind is "" if it succeeded.
func (e *Engine) record(t *task, kind fault.Kind, text string) {
	if t.flags&flagQuiet != 0 {
		return
	}
	if t.exited { // exit_actor() is no failure of the call
		kind, text = "", ""
	}
	if kind == fault.ActorDied && t.when.sent != 0 { // the actor had begun with it
		kind = fault.WorkerCrashed
	}
	r, failed := &e.rec.finished, kind != ""
	if failed {
		r = &e.rec.failed
	}
	a, taken := r.slot()
	if taken {
		e.forget(a)
	}
	tm := e.templates[t.tmpl]
	a.unique, a.by, a.when, a.job, a.no, a.proc, a.failed = t.unique, t.by, t.when, t.job, t.attempt, t.proc, failed
	if a.when.ended == 0 {
		a.when.ended = e.us
	}
	a.actor, a.actorJob, a.over, a.text, a.fault = 0, ids.Job{}, blob{}, blob{}, 0
	a.kind = e.kindOf(tm)
	e.rec.kinds.at(a.kind).uses++
	if a.proc != 0 {
		e.rec.procs.at(a.proc).uses++
	}
	switch {
	case t.call != nil:
		a.actor, a.actorJob = t.call.a.id.Unique(), t.call.a.id.Job()
	case t.create != nil:
		a.actor, a.actorJob = t.create.ID.Unique(), t.create.ID.Job()
	}
	if t.over.n > 0 && t.over.n <= keptOver {
		a.over = e.rec.blobs.put(e.blobs.get(t.over))
	}
	if failed {
		a.fault = e.rec.fault(string(kind))
		a.text = e.rec.blobs.put([]byte(shortened(text, keptError)))
	}
}

// forget empties an entry that is to be used again.
func (e *Engine) forget(a *attempt) {
	e.rec.dropKind(a.kind)
	e.rec.dropProcess(a.proc)
	e.rec.blobs.drop(a.over)
	e.rec.blobs.drop(a.text)
}

// shortened is a text of at most n bytes: its end is what says most of a traceback.
func shortened(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return "…" + strings.ToValidUTF8(text[len(text)-n+len("…"):], "")
}

// renew starts the times of an attempt.
func (e *Engine) renew(t *task) {
	e.leaves(t)
	t.when, t.exited = times{created: e.us}, false
}

// Note takes a worker's word on why an attempt that it runs fails, before its RESULT.
func (e *Engine) Note(sid SessionID, u ids.Unique, text string) {
	s := e.sessions[sid]
	if s == nil || s.worker == nil {
		return
	}
	w := s.worker
	runs := w.position(e, u) >= 0
	if h := w.host; h != nil {
		runs = h.calls[u] != 0 || h.task != 0 && e.tasks.at(h.task).unique == u
	}
	if runs {
		e.rec.notes[u] = strings.Clone(shortened(text, keptError))
	}
}

// noted takes what a worker has said of an attempt.
func (e *Engine) noted(t *task) string {
	if len(e.rec.notes) == 0 {
		return ""
	}
	text := e.rec.notes[t.unique]
	delete(e.rec.notes, t.unique)
	return text
}

// Site tells where in its program a client makes a call or a put, before it does. It is kept while its object is known here.
func (e *Engine) Site(sid SessionID, u ids.Unique, text string) {
	s := e.sessions[sid]
	if s != nil && s.ownsID(u) && len(e.rec.sites) < maxSites {
		e.rec.sites[u] = strings.Clone(shortened(text, keptError))
	}
}

// maxSites bounds the call sites that are kept.
const maxSites = 1 << 16

// taskError is the kind of an attempt that raised.
const taskError fault.Kind = "TASK_EXECUTION_EXCEPTION"

// recordResult notes the end of an attempt of ours that its worker has answered for good.
func (e *Engine) recordResult(t *task, outcome uint8) {
	if outcome == OutcomeRaised || outcome == OutcomeRetry {
		e.record(t, taskError, e.noted(t))
		return
	}
	e.record(t, "", "")
}

// micros is a time as it is noted.
func micros(t time.Time) int64 { return t.UnixMicro() }
