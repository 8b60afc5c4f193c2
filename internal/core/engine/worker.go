package engine

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

// workState is what a worker is doing. Names and transitions: docs/states.md.
type workState uint8

const (
	workStarting workState = iota // asked for
	workBlank                     // forked, for no job yet
	workIdle                      // of a job, without a task
	workBusy                      // of a job, with tasks
	workLeaving                   // told to leave
)

var workStateNames = [...]string{"STARTING", "BLANK", "IDLE", "BUSY", "LEAVING"}

func (s workState) String() string { return workStateNames[s] }

// workNext is the table of legal transitions; a worker whose process is dead has no state any more.
var workNext = [...][]workState{
	workStarting: {workBlank},
	workBlank:    {workIdle, workLeaving},
	workIdle:     {workBusy, workLeaving},
	workBusy:     {workIdle, workLeaving},
	workLeaving:  {},
}

// to moves a worker to a state; a step that the table does not have is a bug.
func (w *worker) to(st workState) {
	if !slices.Contains(workNext[w.state], st) {
		panic("engine: " + w.String() + " cannot go from " + w.state.String() + " to " + st.String())
	}
	w.state = st
}

// worker is one worker process. It belongs to one job, environment and set of accelerators for life.
type worker struct {
	s         *session
	state     workState
	key       string // of its pool; "" while blank
	job       ids.Job
	fifo      []uint32 // tasks sent to it without a result, oldest first
	known     map[uint32]bool
	headSince time.Time
	idleSince time.Time
	blocked   bool
	leaving   bool // goes after what it has
	killed    string
	exit      string // Ray's type of its end, once its process is gone
	exitText  string
	waits     *over  // of the task that it runs, while it is blocked
	host      *host  // of an actor's worker
	preload   string // how it was forked, see TemplateSpec; "" = as the node's own
	packages  string // of its environment
	kin       string // the workers that are set up in the same way
	inEnv     bool   // that is a runtime environment
	served    bool   // it has ended a task
}

// workers is the pool: who is idle, who is starting, which tasks wait for one.
type workers struct {
	all      map[SessionID]*worker
	blank    []*worker
	idle     map[string][]*worker // by key; lists may be empty
	nIdle    int
	starting int
	failed   int            // starts in a row
	failing  time.Time      // when the first of those failed
	startAt  time.Time      // no worker is started before
	early    map[string]int // by kin; how many in a row have died before they received a task
	pending  []uint32       // tasks with a slot and their arguments, oldest first
	blocked  int
	actors   int // workers that have an actor
	leaving  int // of those, how many were told to leave
}

func (p *workers) init() {
	p.all, p.idle, p.early = map[SessionID]*worker{}, map[string][]*worker{}, map[string]int{}
}

// workerKey tells which workers may run a task: same job, environment and accelerators. An actor's process has done
// nothing else before.
func (e *Engine) workerKey(t *task, sl *slot) string {
	if t.create != nil {
		return "actor " + t.create.ID.String()
	}
	key := e.templates[t.tmpl].workers
	if len(sl.alloc.Instances) == 0 {
		return key
	}
	return key + "\x00" + fmt.Sprint(sl.alloc.Instances)
}

// accelerators lists the numbered instances that a slot holds, by resource name.
func (e *Engine) accelerators(sl *slot) map[string][]int {
	if len(sl.alloc.Instances) == 0 {
		return nil
	}
	m := map[string][]int{}
	for _, in := range sl.alloc.Instances {
		name := e.cfg.Names.Text(in.Name)
		m[name] = append(m[name], in.Index)
	}
	return m
}

// Prestart asks for blank workers up to n, so that the first tasks find them warm.
func (e *Engine) Prestart(n int) {
	for len(e.pool.blank)+e.pool.starting < n {
		e.startWorker("")
	}
}

func (e *Engine) prestart() { e.Prestart(e.cfg.CPUs) }

func (e *Engine) startWorker(preload string) {
	s := e.newSession(ids.Job{})
	w := &worker{s: s, known: map[uint32]bool{}, preload: preload}
	s.worker = w
	e.pool.all[s.id] = w
	e.pool.starting++
	e.sink.StartWorker(s.id, preload)
}

// WorkerStarted says that a worker asked for is there; its channel 0 is open.
func (e *Engine) WorkerStarted(sid SessionID) {
	w := e.pool.all[sid]
	if w == nil || w.state != workStarting {
		return
	}
	e.pool.starting--
	e.pool.failed, e.pool.startAt = 0, time.Time{}
	w.s.chans[0] = &channel{id: Chan{sid, 0}}
	w.to(workBlank)
	w.idleSince = e.now
	e.pool.blank = append(e.pool.blank, w)
	e.serve()
}

// WorkerFailed says that a worker asked for could not be started: at a limit (fault.Limit), which others' ends may lift, or for
// a reason that is likely to stay.
func (e *Engine) WorkerFailed(sid SessionID, kind fault.Kind, why string) {
	w := e.pool.all[sid]
	if w == nil || w.state != workStarting {
		return
	}
	e.pool.starting--
	delete(e.pool.all, sid)
	delete(e.sessions, sid)
	e.sink.Warn("a worker could not be started: " + why)
	if w.preload != "" {
		what, variables, _ := strings.Cut(w.preload, "\x00")
		if what = "modules " + what + " could not be preloaded"; variables != "" {
			what = "no worker could be started with " + strings.ReplaceAll(variables, "\x00", ", ")
		}
		e.failPending(func(t *task) bool { return e.preloadOf(t) == w.preload }, fault.RuntimeEnv, what+": "+why)
		return
	}
	if e.pool.failed++; e.pool.failed == 1 {
		e.pool.failing = e.now
	}
	if len(e.pool.all) > 0 && (kind == fault.Limit || e.pool.starting > 0 || e.now.Sub(e.pool.failing) < failingTime) {
		e.pool.startAt = e.now.Add(min(TickEvery<<min(e.pool.failed, 10), maxStartPause))
		return // the workers that there are may serve; Tick tries again
	}
	if e.pool.failed < maxFailedStarts {
		return // Tick tries again
	}
	e.failPending(func(*task) bool { return true }, fault.System, "no worker process could be started on its node: "+why)
}

// failPending ends the tasks that wait for a worker and that which names.
func (e *Engine) failPending(which func(*task) bool, kind fault.Kind, why string) {
	pending := e.pool.pending
	e.pool.pending = nil
	for _, i := range pending {
		if !which(e.tasks.at(i)) {
			e.pool.pending = append(e.pool.pending, i)
			continue
		}
		e.endBundle(i)
		e.cannotRun(i, kind, why)
	}
}

// preloadOf is what the worker of a task must be forked with.
func (e *Engine) preloadOf(t *task) string { return e.templates[t.tmpl].spec.Preload }

// takeBlank gives a blank worker that was forked with these modules, or nil.
func (p *workers) takeBlank(preload string) *worker {
	for k := len(p.blank) - 1; k >= 0; k-- {
		if w := p.blank[k]; w.preload == preload {
			p.blank = slices.Delete(p.blank, k, k+1)
			return w
		}
	}
	return nil
}

// maxFailedStarts is after how many failures in a row to start a worker the tasks that wait for one fail.
const maxFailedStarts = 3

const (
	// failingTime is how long no worker can be started before tasks that wait for one fail though there are others: those may
	// be of another kind, or actors, which serve nobody else.
	failingTime = 5 * time.Second
	// maxStartPause is the longest time between two tries meanwhile.
	maxStartPause = time.Second
)

// runHere starts a task that has a slot on this node: arguments first, then a worker.
func (e *Engine) runHere(i uint32, t *task, slot uint32) {
	t.slot = slot
	e.slots.at(slot).task = i
	if t.create != nil {
		e.placeActor(i, t, slot)
	}
	if e.fetchArgs(i, t) {
		e.toTask(t, taskAssigned)
		e.assign(i, t)
	}
}

// assign gives a task to an idle worker, or lines it up for one.
func (e *Engine) assign(i uint32, t *task) {
	sl := e.slots.at(t.slot)
	key := e.workerKey(t, sl)
	if w := e.pool.takeIdle(key); w != nil {
		e.send(w, i, t)
		return
	}
	if !e.envReady(t) {
		e.pool.pending = append(e.pool.pending, i)
		return
	}
	if w := e.pool.takeBlank(e.preloadOf(t)); w != nil {
		e.specialise(w, t, key)
		if t.create != nil {
			e.sendCreation(w, i, t)
			return
		}
		e.send(w, i, t)
		return
	}
	e.pool.pending = append(e.pool.pending, i)
	e.startWanted()
}

// startWanted starts workers for the tasks that wait for one, a few at a time.
func (e *Engine) startWanted() {
	most := max(2, e.cfg.CPUs)
	if e.pool.starting >= most || len(e.pool.pending) == 0 || e.now.Before(e.pool.startAt) {
		return
	}
	coming := map[string]int{}
	if e.pool.starting > 0 {
		for _, w := range e.pool.all {
			if w.state == workStarting {
				coming[w.preload]++
			}
		}
	}
	for _, i := range e.pool.pending {
		if e.pool.starting >= most {
			return
		}
		t := e.tasks.at(i)
		if !e.envReady(t) {
			continue // a worker is forked soon enough then
		}
		if p := e.preloadOf(t); coming[p] > 0 {
			coming[p]--
		} else {
			e.startWorker(p)
		}
	}
}

// serve gives waiting tasks to the workers that have become free.
func (e *Engine) serve() {
	pending := e.pool.pending
	e.pool.pending = nil
	for k, i := range pending {
		if len(e.pool.blank) == 0 && e.pool.nIdle == 0 {
			e.pool.pending = append(e.pool.pending, pending[k:]...)
			break
		}
		e.assign(i, e.tasks.at(i))
	}
	e.startWanted()
}

const workerIDs = 1 << 16

func (e *Engine) specialise(w *worker, t *task, key string) {
	tm := e.templates[t.tmpl]
	sl := e.slots.at(t.slot)
	w.key, w.job, w.s.job = key, t.job, t.job
	w.kin, w.inEnv = tm.workers, tm.spec.Env != ""
	w.to(workIdle)
	e.joinEnv(w, tm.spec.Packages)
	first := e.GiveIDs(w.s.id, workerIDs)
	setup := Setup{Job: t.job, Env: tm.spec.Env, Packages: tm.spec.Packages, Accelerators: e.accelerators(sl), Resources: e.cfg.Names.Map(sl.alloc.Need), IDs: first, IDCount: workerIDs}
	if t.create != nil {
		setup.Actor, setup.Incarnation, setup.Limits = t.create, t.attempt, tm.spec.Actor
	}
	e.sink.Setup(w.s.id, setup)
}

// send puts a task on a worker's exec channel.
func (e *Engine) send(w *worker, i uint32, t *task) {
	if len(w.fifo) == 0 {
		w.headSince = e.now
	}
	w.fifo = append(w.fifo, i)
	if w.state != workBusy {
		w.to(workBusy)
	}
	e.toTask(t, taskSent)
	t.worker = w.s.id
	e.runsIn(t, w.s)
	e.Counts.Dispatched++
	e.execute(w, i, t)
	if e.templates[t.tmpl].spec.MaxCalls > 0 && len(w.fifo) > 1 {
		panic("engine: a task was sent behind one of a worker that leaves")
	}
}

// execute sends a worker what to run.
func (e *Engine) execute(w *worker, i uint32, t *task) {
	if !w.known[t.tmpl] {
		w.known[t.tmpl] = true
		e.sink.Template(w.s.id, t.tmpl)
	}
	x := e.packExecute(w.s, t)
	if len(w.fifo) == 1 || w.host != nil && len(w.host.calls) == 1 {
		x.Flags |= flagAlone
	}
	if b := e.bundles[i]; b != nil {
		e.mem.Running(b.req)
		if b.body != 0 {
			e.sink.ExecuteAt(w.s.id, x, b.bodyOff, b.bodySize)
			_, out := e.mem.Seal(e.now, b.body, true, nil)
			e.memRun(out)
			return
		}
	}
	e.sink.Execute(w.s.id, x)
}

// maxPacket is the largest EXECUTE that goes by packet.
const maxPacket = 96 << 10

// packExecute builds a task's EXECUTE for a session, and counts its deliveries and pins.
func (e *Engine) packExecute(s *session, t *task) *Execute {
	x := &e.scratchX
	*x = Execute{
		Unique: t.unique, Attempt: t.attempt, Job: t.job, Template: t.tmpl, Returns: t.returns, Flags: t.flags,
		Overrides: e.blobs.get(t.over), Args: e.blobs.get(t.args), Deps: x.Deps[:0], Contained: x.Contained[:0],
	}
	if t.create != nil {
		x.Returns = 1 // what became of it
	}
	if t.flags&flagStream != 0 {
		x.Returns = e.itemsMade(t) - 1 // which are not sent again
	}
	for _, d := range t.refs[:t.nDeps] {
		x.Deps = append(x.Deps, e.valueFor(s, d))
	}
	for _, c := range t.refs[t.nDeps:] {
		e.claim(s, c, 1)
		x.Contained = append(x.Contained, e.objs.at(c).id)
	}
	return x
}

func (w *worker) position(e *Engine, u ids.Unique) int {
	for k, i := range w.fifo {
		if e.tasks.at(i).unique == u {
			return k
		}
	}
	return -1
}

func (w *worker) drop(k int) { w.fifo = slices.Delete(w.fifo, k, k+1) }

// setBlocked notes that a worker's main thread waits for an answer, or goes on. A blocked worker lends its CPU, and
// what was sent ahead to it goes to others.
func (e *Engine) setBlocked(w *worker, blocked bool) {
	if w.blocked == blocked || w.state != workBusy && blocked {
		return
	}
	w.blocked = blocked
	if len(w.fifo) == 0 && w.host == nil {
		return
	}
	slot := w.holds(e)
	if blocked {
		e.noteWaits(w)
		if slot != 0 {
			e.lend(slot)
		}
		e.takeBack(w)
		e.dirtyQ = true
	} else {
		e.noteGoesOn(w)
		if slot != 0 {
			e.reclaim(slot)
		}
	}
}

// wentOn notes that a worker's main thread has ended a task: whatever it asked for before, it does not wait for it.
func (e *Engine) wentOn(w *worker) {
	if ch := w.s.chans[0]; ch != nil {
		e.cancelGet(ch)
		if ch.reads > 0 {
			e.dropReaders(ch)
		}
		ch.waiting, ch.credit = false, false
	}
	e.setBlocked(w, false)
}

// takeBack withdraws the tasks that the worker has not received.
func (e *Engine) takeBack(w *worker) {
	if len(w.fifo) == 0 {
		return
	}
	e.takenBack(w, e.sink.TakeBack(w.s.id), "", "")
}

// takenBack queues tasks that a worker has not received again, or ends their attempts for a reason.
func (e *Engine) takenBack(w *worker, back []ids.Unique, kind fault.Kind, why string) {
	for k := len(back) - 1; k >= 0; k-- { // the last one first, so that each goes before those taken back already
		p := w.position(e, back[k])
		if p < 0 {
			continue
		}
		i := w.fifo[p]
		w.drop(p)
		e.unsend(w.s, i, e.tasks.at(i), kind, why)
	}
}

// unsend undoes send for a task that the worker never saw: its deliveries and pins come back, and it queues again, unless
// there is a reason why that is of no use.
func (e *Engine) unsend(s *session, i uint32, t *task, kind fault.Kind, why string) {
	e.undeliver(s, t)
	e.endBundle(i)
	e.leaves(t)
	t.when.sent = 0
	slot := t.slot
	t.slot, t.worker = 0, 0
	switch {
	case t.cancelled:
		e.lostHere(i, fault.Cancelled, cancelledText(e.taskID(t)))
	case t.gone:
		e.lostHere(i, fault.Cancelled, "its job has ended")
	case why != "":
		e.lostHere(i, kind, why)
	default:
		e.requeue(i, t)
	}
	if slot != 0 {
		e.slotDone(slot, nil, nil)
	}
}

// undeliver takes back what packExecute counted.
func (e *Engine) undeliver(s *session, t *task) {
	for _, d := range t.refs[:t.nDeps] {
		for _, c := range e.contained[d] {
			e.unclaim(s, c, 1)
		}
		if e.objs.at(d).state == objArena {
			e.unpin(s, d, 1)
		}
	}
	for _, c := range t.refs[t.nDeps:] {
		e.unclaim(s, c, 1)
	}
}

// goIdle gives a worker without tasks to whoever waits for one like it, or keeps it warm.
func (e *Engine) goIdle(w *worker) {
	if w.blocked { // its main thread asked something and went on to end its task: nothing is lent any more
		w.blocked = false
		e.noteGoesOn(w)
	}
	if w.state == workLeaving {
		return
	}
	j := e.jobs[w.job]
	if w.leaving || j == nil || j.ended {
		w.to(workLeaving)
		e.sink.ExitWorker(w.s.id)
		return
	}
	w.to(workIdle)
	w.idleSince = e.now
	for k, i := range e.pool.pending {
		t := e.tasks.at(i)
		if e.workerKey(t, e.slots.at(t.slot)) == w.key {
			e.pool.pending = slices.Delete(e.pool.pending, k, k+1)
			e.send(w, i, t)
			return
		}
	}
	e.pool.putIdle(w)
}

func (p *workers) putIdle(w *worker) {
	p.idle[w.key] = append(p.idle[w.key], w)
	p.nIdle++
}

// takeIdle gives the worker with a key that was idle for the shortest time, or nil.
func (p *workers) takeIdle(key string) *worker {
	ws := p.idle[key]
	if len(ws) == 0 {
		return nil
	}
	w := ws[len(ws)-1]
	p.idle[key] = ws[:len(ws)-1]
	p.nIdle--
	return w
}

// WorkerGone says that a worker's process is dead, and why as far as is known.
func (e *Engine) WorkerGone(sid SessionID, kind fault.Kind, why string) {
	w := e.pool.all[sid]
	if w == nil {
		return
	}
	if w.state == workStarting {
		e.WorkerFailed(sid, kind, why)
		return
	}
	if w.killed != "" {
		why = w.killed
	}
	w.exit, w.exitText = w.exitOf(kind, why)
	e.takeFromDead(w, why)
	delete(e.pool.all, sid)
	e.pool.remove(w)
	e.leaveEnv(w)
	if w.blocked {
		w.blocked = false
		e.noteGoesOn(w)
	}
	if w.state != workLeaving {
		w.to(workLeaving)
	}
	fifo := w.fifo
	w.fifo = nil
	s := w.s
	for _, i := range sortedKeys(s.creates) {
		e.abortCreate(s, i)
	}
	e.dropClaims(s) // before its tasks are seen to: they may have children that nobody else holds
	if w.host != nil {
		e.hostGone(w.host, kind, why)
	}
	for k, i := range fifo {
		t := e.tasks.at(i)
		if k == 0 {
			t.when.began = max(t.when.sent, micros(w.headSince))
		}
		slot := t.slot
		e.endBundle(i)
		t.slot, t.worker = 0, 0
		e.lostHere(i, kind, why)
		if slot != 0 {
			e.slotDone(slot, nil, nil)
		}
	}
	e.SessionGone(sid)
	e.startWanted()
}

// cannotRun ends what has a slot here and no worker.
func (e *Engine) cannotRun(i uint32, kind fault.Kind, why string) {
	t := e.tasks.at(i)
	switch {
	case t.create != nil:
		h := e.actors[t.create.ID.Unique()].host
		h.death = deathOf(kind, why)
		e.dropCreation(h)
	case t.call != nil:
		q := t.call
		if e.toTask(t, taskOrdered); t.owner == 0 {
			e.failTask(i, t, kind, why)
		} else {
			e.sendDone(i, t, &TaskDone{Unique: t.unique, Attempt: t.attempt, Lost: string(kind), Why: why})
		}
		e.offer(q)
	default:
		slot := t.slot
		t.slot = 0
		e.lostHere(i, kind, why)
		e.slotDone(slot, nil, nil)
	}
}

// lostHere ends an attempt that ran, or was to run, here.
func (e *Engine) lostHere(i uint32, kind fault.Kind, why string) {
	t := e.tasks.at(i)
	if t.owner == 0 {
		e.crashed(i, t, kind, why)
		return
	}
	e.orphans(t.unique, true)
	done := &TaskDone{Unique: t.unique, Attempt: t.attempt, Lost: string(kind), Why: why, Ran: e.ran(t)}
	e.sendDone(i, t, done)
}

func (p *workers) remove(w *worker) {
	p.blank = without(p.blank, w)
	if ws := p.idle[w.key]; slices.Contains(ws, w) {
		p.idle[w.key] = without(ws, w)
		p.nIdle--
	}
}

func without(ws []*worker, w *worker) []*worker {
	if k := slices.Index(ws, w); k >= 0 {
		return slices.Delete(ws, k, k+1)
	}
	return ws
}

// endJob ends the workers of a job, whatever they do.
func (p *workers) endJob(e *Engine, id ids.Job) {
	for _, sid := range p.sorted() {
		w := p.all[sid]
		if w.job != id || w.state == workStarting || w.state == workBlank || w.key == "" {
			continue
		}
		p.remove(w)
		if w.state != workLeaving {
			w.to(workLeaving)
		}
		w.killed = "its job has ended"
		e.sink.KillWorker(w.s.id, w.killed)
	}
	for key, ws := range p.idle {
		if len(ws) == 0 && strings.HasPrefix(key, string(id[:])) {
			delete(p.idle, key)
		}
	}
	for kin := range p.early {
		if strings.HasPrefix(kin, string(id[:])) {
			delete(p.early, kin)
		}
	}
}

func (p *workers) sorted() []SessionID {
	list := make([]SessionID, 0, len(p.all))
	for s := range p.all {
		list = append(list, s)
	}
	slices.Sort(list)
	return list
}

// reap lets surplus workers go that were idle for long.
func (e *Engine) reap() {
	warm := len(e.pool.blank) + e.pool.nIdle
	if warm <= e.cfg.CPUs {
		return
	}
	for _, k := range sortedKeys(e.pool.idle) {
		ws := e.pool.idle[k]
		for len(ws) > 0 && warm > e.cfg.CPUs && e.now.Sub(ws[0].idleSince) > e.cfg.IdleTime {
			w := ws[0]
			ws = ws[1:]
			warm--
			e.pool.nIdle--
			w.to(workLeaving)
			w.killed = "it was idle"
			e.sink.ExitWorker(w.s.id)
		}
		if len(ws) == 0 {
			delete(e.pool.idle, k)
		} else {
			e.pool.idle[k] = slices.Clone(ws)
		}
	}
}

// killFor ends the worker that runs a task, for a caller that must have the task stopped.
func (e *Engine) killFor(t *task, why string) {
	if w := e.pool.all[t.worker]; w != nil && w.state != workLeaving {
		w.killed = why
		e.sink.KillWorker(w.s.id, why)
	}
}

func (w *worker) String() string { return fmt.Sprintf("worker %d of job %s", w.s.id, w.job) }
