package engine

import (
	"slices"
	"time"

	"gray/internal/core/actor"
	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

// host is what the daemon that runs an actor keeps of it.
type host struct {
	a       *actorRec
	inc     uint32
	w       *worker // nil until it has a process
	slot    uint32
	task    uint32 // its creation, until that has ended
	mgr     NodeNo // 0 = this daemon; NoNode while a detached actor has none
	job     ids.Job
	own     bool // detached: it does not end with its manager
	info    *CreatePart
	limits  *ActorLimits
	groups  map[string]*group
	inTurn  []*group              // the same, by name
	calls   map[ids.Unique]uint32 // sent to the worker and not answered
	sent    int64                 // when the last was, in microseconds since 1970
	up      bool                  // the constructor has returned
	leaving bool                  // told to leave once what was sent is done
	since   time.Time             // when it was told
	death   *actor.Death          // why it is being ended, or how it said that it leaves
	depth   uint8                 // of its creation in the chain of calls
	made    []ids.Unique          // actors that it created, which end with it
	next    *successor
}

// makes notes that the actor has created another. Before the list grows it forgets those that are gone.
func (h *host) makes(e *Engine, u ids.Unique) {
	if len(h.made) == cap(h.made) {
		h.made = slices.DeleteFunc(h.made, func(u ids.Unique) bool { a := e.actors[u]; return a == nil || a.mgr == nil })
	}
	h.made = append(h.made, u)
}

// successor is a creation that waits for the process of an earlier one to be gone.
type successor struct {
	from NodeNo
	run  *TaskRun
}

// group is a concurrency group of a hosted actor.
type group struct {
	limit  int
	sent   int
	queues []*callq // with something to send, taking turns
	turn   int
	since  time.Time // of an ordered group: when the running call became the first
}

// leaveTime is how long an actor that was told to leave may take; its __ray_shutdown__ has 30 s.
const leaveTime = 35 * time.Second

// newHost makes a creation's host record once the creation has its slot here.
func (e *Engine) newHost(i uint32, t *task) *host {
	a := e.actorOf(t.create.ID)
	lim := e.templates[t.tmpl].spec.Actor
	h := &host{
		a: a, inc: t.attempt, task: i, mgr: t.owner, job: t.job, own: t.create.Detached, info: t.create, limits: lim, depth: t.depth,
		groups: map[string]*group{}, calls: map[ids.Unique]uint32{},
	}
	h.groups[""] = &group{limit: max(lim.MaxConcurrency, 1)}
	for name, n := range lim.Groups {
		h.groups[name] = &group{limit: max(n, 1)}
	}
	for _, name := range sortedKeys(h.groups) {
		h.inTurn = append(h.inTurn, h.groups[name])
	}
	if a.mgr == nil {
		a.row.Class, a.row.Name, a.row.Namespace = t.create.Class, t.create.Name, t.create.Namespace
		if a.state == "" && a.node != NoNode && t.attempt > a.inc { // so this is what became of the one that we lost
			a.state, a.node = actor.Restarting, NoNode
		}
	}
	a.host, a.inc = h, t.attempt
	e.verdict(a)
	return h
}

// keepSlot makes a slot the actor's own, with what the actor holds while it lives.
func (e *Engine) keepSlot(h *host, n uint32) {
	s := e.slots.at(n)
	if s.shape != 0 && s.owner == 0 {
		e.shapes[s.shape].slots--
	}
	e.res.Keep(&s.alloc, h.limits.Held)
	*s = slot{alloc: s.alloc, since: e.now, actor: h.a.id.Unique(), task: h.task}
	h.slot = n
	e.dirtyQ = true
	e.noteLoad()
}

// placeActor starts a creation that has a slot here.
func (e *Engine) placeActor(i uint32, t *task, n uint32) {
	h := e.newHost(i, t)
	e.keepSlot(h, n)
}

// sendCreation gives a blank worker to an actor.
func (e *Engine) sendCreation(w *worker, i uint32, t *task) {
	h := e.actors[t.create.ID.Unique()].host
	h.w, w.host = w, h
	e.pool.actors++
	e.deliver(w, i, t)
	if e.cfg.CPUs > len(e.pool.blank)+e.pool.starting {
		e.startWorker(w.preload) // so that the next finds one
	}
}

// deliver packs a call, or a creation, for an actor's worker.
func (e *Engine) deliver(w *worker, i uint32, t *task) {
	if w.state != workBusy {
		w.to(workBusy)
	}
	e.toTask(t, taskSent)
	t.worker = w.s.id
	e.runsIn(t, w.s)
	e.Counts.Dispatched++
	e.execute(w, i, t)
}

// list lines a queue up with those of its group.
func (h *host) list(q *callq) {
	if q.listed || q.next == 0 {
		return
	}
	g := h.group(q)
	q.listed = true
	g.queues = append(g.queues, q)
}

func (h *host) unlist(q *callq) {
	if !q.listed {
		return
	}
	q.listed = false
	g := h.group(q)
	k := slices.Index(g.queues, q)
	g.queues = slices.Delete(g.queues, k, k+1)
	if g.turn > k {
		g.turn--
	}
}

// systemGroup is a concurrency group that every actor has: one call at a time, beside all others.
const systemGroup = "_ray_system"

// group is the concurrency group of a queue; clients check names, so an unknown one is the default's.
func (h *host) group(q *callq) *group {
	if g := h.groups[q.key.group]; g != nil {
		return g
	}
	if q.key.group != systemGroup {
		return h.groups[""]
	}
	g := &group{limit: 1}
	h.groups[systemGroup] = g
	h.inTurn = append(h.inTurn, g)
	return g
}

// ordered tells whether the actor runs one call at a time, on its main thread.
func (h *host) ordered() bool {
	return h.limits.MaxConcurrency <= 1 && !h.limits.Async && len(h.limits.Groups) == 0
}

// pumpHost sends calls to the worker of an actor that lives here, callers in turn.
func (e *Engine) pumpHost(a *actorRec) {
	h := a.host
	if h == nil || !h.up || h.death != nil && !h.leaving || !h.since.IsZero() {
		return
	}
	if !h.leaving {
		for _, g := range h.inTurn {
			e.pumpGroup(h, g)
		}
	} else if len(h.calls) == 0 { // what waits came by weak handles, and may never end: the actor may call itself
		e.leave(h)
	}
}

func (e *Engine) pumpGroup(h *host, g *group) {
	for len(g.queues) > 0 {
		g.turn %= len(g.queues)
		q := g.queues[g.turn]
		i, t := e.ready(q)
		if t == nil {
			h.unlist(q) // offer lists it again
			continue
		}
		if g.sent >= e.room(h, g, t) {
			return
		}
		if t.state == taskOrdered && !e.fetchArgs(i, t) {
			continue // its arguments are there at once, or come later, or never: then it has failed
		}
		e.sendCall(h, g, i, t)
		g.turn++
	}
}

// room is how many calls of a group the worker may have: those that run at once, and, but for coroutines, about a
// millisecond's worth that waits for its turn there.
func (e *Engine) room(h *host, g *group, t *task) int {
	if h.limits.Async && g.limit > 1 {
		return g.limit
	}
	return g.limit - 1 + e.depth(e.templates[t.tmpl])
}

func (e *Engine) sendCall(h *host, g *group, i uint32, t *task) {
	q := t.call
	q.next = t.next
	t.inc = h.inc
	if g.sent == 0 {
		g.since = e.now
	}
	q.sent++
	g.sent++
	h.calls[t.unique] = i
	e.deliver(h.w, i, t)
	t.when.sent = max(t.when.sent, h.sent+1) // no two at the same time: it tells which one runs
	h.sent = t.when.sent
}

// actorResult takes a RESULT of an actor's worker.
func (e *Engine) actorResult(s *session, u ids.Unique, attempt uint32, outcome uint8, outs []Output) {
	h := s.worker.host
	if h.task != 0 && e.tasks.at(h.task).unique == u {
		if h.inc == attempt {
			e.pool.serves(s.worker)
			e.created(h, outcome, outs)
		}
		return
	}
	i := h.calls[u]
	if i == 0 {
		return
	}
	t := e.tasks.at(i)
	if t.attempt != attempt {
		return
	}
	if outcome == OutcomeExit {
		t.exited = true
		h.exits()
		return // it ends with the process, as all calls that wait do
	}
	again := outcome == OutcomeRetry && t.retries != 0 && t.owner == 0 && !t.gone
	if !again && !t.counts(len(outs)) {
		e.refuse(s, "result: a call's number of returns is not what was asked for")
		return
	}
	q := t.call
	g := h.group(q)
	if h.ordered() && q.key.group != systemGroup {
		e.wentOn(s.worker)
	}
	t.when.began = t.when.sent
	if h.ordered() {
		t.when.began = max(t.when.sent, micros(g.since))
	}
	delete(h.calls, u)
	q.sent--
	g.sent--
	if g.limit == 1 || !h.limits.Async {
		e.measureCall(g, t)
	}
	e.endBundle(i)
	t.worker = 0
	e.markActor(h.a)
	if again {
		e.abortOutputs(s, t)
		e.failedOnce(t, taskError, e.noted(t))
		e.again(i, t)
		return
	}
	e.finish(i, t, s, outcome, outs, 0, nil)
}

// exits notes that the actor leaves because it wants to.
func (h *host) exits() {
	h.death = &actor.Death{
		Cause: actor.Exited, ExitType: "INTENDED_USER_EXIT",
		Text: "The actor is dead because its worker process has died. Worker exit type: INTENDED_USER_EXIT Worker exit detail: Worker exits by an user request. exit_actor() is called.",
	}
}

// created takes the end of an actor's constructor.
func (e *Engine) created(h *host, outcome uint8, outs []Output) {
	i := h.task
	t := e.tasks.at(i)
	if outcome == OutcomeExit || len(outs) != 1 {
		h.exits()
		return
	}
	e.wentOn(h.w)
	repr, text, pickled := e.sink.CreationResult(outs[0].Value)
	if outcome != OutcomeValues { // told when its process is gone
		h.death = &actor.Death{Cause: actor.InitFailed, ExitType: "USER_ERROR", Text: "The actor died because of an error raised in its creation task, " + text, Pickled: pickled}
		e.leave(h)
		return
	}
	e.endBundle(i)
	t.when.began = t.when.sent
	t.worker, t.slot = 0, 0
	h.task = 0
	e.slots.at(h.slot).task = 0
	up := &ActorUp{Repr: repr, PID: e.sink.PID(h.w.s.id)}
	h.up = true
	for _, q := range h.a.order {
		h.list(q)
	}
	h.a.state, h.a.node = actor.Alive, 0
	e.verdict(h.a) // on calls of ours that were lost with the one before
	if t.owner != 0 {
		e.sendDone(i, t, &TaskDone{Unique: t.unique, Attempt: t.attempt, Up: up, Ran: e.ran(t)})
		return
	}
	e.record(t, "", "")
	e.endTask(i, t)
	e.actorUp(h.a, 0, up)
}

// leave tells an actor's worker to end what it has, and to go.
func (e *Engine) leave(h *host) {
	if h.since.IsZero() {
		h.since = e.now
		e.pool.leaving++
		e.sink.ExitWorker(h.w.s.id)
	}
}

// stopHost ends a hosted actor: at once, or when what it was sent is done.
func (e *Engine) stopHost(h *host, death *actor.Death, graceful bool) {
	if graceful && h.death != nil {
		return // it is on its way already
	}
	h.death = death
	switch {
	case graceful && h.up:
		h.leaving = true
		e.markActor(h.a)
	case h.w != nil:
		h.leaving = false
		e.sink.KillWorker(h.w.s.id, death.Text)
	default: // it waits for arguments or for a process
		e.dropCreation(h)
	}
}

// dropCreation ends a creation that has a slot here and no process.
func (e *Engine) dropCreation(h *host) {
	i := h.task
	t := e.tasks.at(i)
	e.stopFetching(i, t)
	h.task, t.slot = 0, 0
	death := h.death
	e.endHost(h)
	if t.owner == 0 {
		e.lostCreation(i, t, death)
		return
	}
	e.sendDone(i, t, &TaskDone{Unique: t.unique, Attempt: t.attempt, Lost: string(fault.ActorDied), Why: death.Text, Up: &ActorUp{Death: death}, Ran: e.ran(t)})
	e.succeed(h.a, h.next)
	e.dropActor(h.a)
}

// endHost forgets that an actor was here.
func (e *Engine) endHost(h *host) {
	h.a.host = nil
	if h.slot != 0 {
		e.slots.at(h.slot).task = 0
		e.freeSlot(h.slot)
		h.slot = 0
	}
	for _, q := range h.a.order {
		q.listed = false
	}
	e.dirtyQ = true
}

// hostGone takes the end of an actor's process. Calls that other daemons sent here go back to them; what becomes of
// ours, the manager decides.
func (e *Engine) hostGone(h *host, kind fault.Kind, why string) {
	a, death := h.a, h.death
	if death == nil {
		death = workerDeath(kind, why)
	}
	e.pool.actors--
	if !h.since.IsZero() {
		e.pool.leaving--
	}
	creation, made := h.task, h.made
	h.task = 0
	if creation != 0 {
		e.endBundle(creation)
	}
	e.endHost(h)
	e.orphans(a.id.Unique(), death.Cause != actor.Exited)
	for _, u := range made {
		if b := e.actors[u]; b != nil && b.mgr != nil && !b.mgr.spec.Detached {
			e.stopActor(b, ownerDied("the actor that had created it, "+a.id.String()+", died"), false)
		}
	}
	if creation != 0 {
		t := e.tasks.at(creation)
		t.worker, t.slot = 0, 0
		if t.owner == 0 {
			e.lostCreation(creation, t, death)
		} else {
			e.sendDone(creation, t, &TaskDone{Unique: t.unique, Attempt: t.attempt, Lost: string(fault.ActorDied), Why: death.Text, Up: &ActorUp{Death: death}, Ran: e.ran(t)})
		}
	} else if h.mgr != 0 && h.mgr != NoNode {
		e.sink.Peer(h.mgr, &ActorGone{ID: a.id, Incarnation: h.inc, Death: *death})
	}
	e.returnCalls(a, death)
	if a.mgr == nil {
		e.lostIncarnation(a)
	} else if creation == 0 && h.mgr == 0 {
		e.incarnationLost(a, death)
	}
	e.succeed(a, h.next)
	e.dropActor(a)
}

// succeed goes on with a new manager's creation of an actor, now that the process that an earlier one had made is gone.
func (e *Engine) succeed(a *actorRec, next *successor) {
	if next != nil && e.peers[next.from] != nil {
		e.taskRun(e.peers[next.from], next.run)
	}
	switch m := a.mgr; {
	case m == nil || m.task != 0 || m.registering || a.state == actor.Alive || a.state == actor.Dead:
	case m.killing != nil:
		e.actorDead(a, m.killing)
	default:
		e.startActor(a)
	}
}

// returnCalls takes the calls of an actor that is no longer here from where they were.
func (e *Engine) returnCalls(a *actorRec, death *actor.Death) {
	for _, q := range slices.Clone(a.order) {
		for i := q.head; i != 0; {
			t := e.tasks.at(i)
			next := t.next
			switch t.state {
			case taskSent:
				e.endBundle(i)
				t.worker = 0
				q.sent--
				e.callLost(i, t, death)
			case taskFetching:
				e.stopFetching(i, t)
				if t.owner != 0 {
					e.callLost(i, t, death)
				} else {
					e.toTask(t, taskOrdered) // it was not there yet
				}
			case taskOrdered:
				if t.owner != 0 {
					e.callLost(i, t, death)
				}
			}
			i = next
		}
		q.next = q.head
	}
}

// callLost gives a call that was here back to its owner.
func (e *Engine) callLost(i uint32, t *task, death *actor.Death) {
	if t.owner == 0 {
		e.lostCall(i, t, t.inc)
		return
	}
	e.sendDone(i, t, &TaskDone{Unique: t.unique, Attempt: t.attempt, Lost: string(fault.ActorDied), Why: death.Text, Ran: e.ran(t)})
}

// actorRun takes a call that another daemon sent to an actor here.
func (e *Engine) actorRun(p *peer, i uint32, t *task, m *ActorPart) {
	e.toTask(t, taskOrdered)
	a := e.actors[m.ID.Unique()]
	if a == nil || a.host == nil || !a.host.up || a.host.inc != m.Incarnation || a.host.death != nil && !a.host.leaving {
		e.sendDone(i, t, &TaskDone{Unique: t.unique, Attempt: t.attempt, Lost: string(fault.ActorDied), Why: "the actor is no longer on this node"})
		return
	}
	q := a.callqOf(callerKey{p.no, m.Caller, e.templates[t.tmpl].spec.Group})
	t.call = q
	e.pushCall(q, i, t)
	e.offer(q)
}

// tickActors ends actors that were told to leave and take too long.
func (e *Engine) tickActors() {
	if e.pool.leaving == 0 {
		return
	}
	for _, sid := range e.pool.sorted() {
		w := e.pool.all[sid]
		if h := w.host; h != nil && !h.since.IsZero() && e.now.Sub(h.since) > leaveTime && w.state != workLeaving {
			e.sink.KillWorker(w.s.id, "it was told to leave and did not")
			h.since = e.now
		}
	}
}

// current is the unique under which what a worker submits is its child.
func (w *worker) current(e *Engine) ids.Unique {
	if w.host != nil {
		return w.host.a.id.Unique()
	}
	if len(w.fifo) > 0 {
		return e.tasks.at(w.fifo[0]).unique
	}
	return 0
}

// holds is the slot of what a worker runs; 0 if it runs nothing.
func (w *worker) holds(e *Engine) uint32 {
	if w.host != nil {
		return w.host.slot
	}
	if len(w.fifo) > 0 {
		return e.tasks.at(w.fifo[0]).slot
	}
	return 0
}
