package engine

import (
	"slices"
	"time"

	"gray/internal/core/ids"
	"gray/internal/core/resource"
)

// shape is what tasks must have in common to be interchangeable to a slot: resources, strategy and environment.
type shape struct {
	no      uint32
	rs      *resource.Shape
	queues  []*queue // one a job, taking turns
	turn    int
	backlog int
	slots   int // of ours, here
	local   int // to be started here, by the last plan
	away    map[NodeNo]*awaySlots
	since   time.Time // since when it has had a backlog that nothing was done for
	stuck   string    // why, as far as known
}

// awaySlots is what a shape has at another node.
type awaySlots struct {
	asked    int // slots wanted there, not granted yet
	reserved int // of those, counted as taken in the view
	slots    int // granted there
	busy     int // tasks there
}

// queue is a job's tasks of one shape that wait for a slot.
type queue struct {
	job     ids.Job
	noticed bool // its job was told that nothing can run them
	chain
}

func (e *Engine) push(q *queue, i uint32, t *task, front bool) {
	before := uint32(0)
	if front {
		before = q.head
	}
	e.insert(&q.chain, i, t, before)
}

// turn is how long a slot may serve one owner and shape while others wait for the same resources.
const turnTime = 20 * time.Millisecond

func (e *Engine) shapeOf(sp *TemplateSpec) uint32 {
	rs := e.shapeTable.Intern(sp.Resources, sp.Strategy, sp.Labels, sp.Env, sp.Fallback...)
	if n := e.shapeNo[rs.ID]; n != 0 {
		return n
	}
	n := uint32(len(e.shapes))
	e.shapes = append(e.shapes, &shape{no: n, rs: rs, away: map[NodeNo]*awaySlots{}})
	e.shapeNo[rs.ID] = n
	return n
}

// sweepShapes forgets the shapes that no function, task, slot or node has to do with. Their numbers are not given again: a
// node may still grant slots for one, which go back.
func (e *Engine) sweepShapes() {
	used := make([]bool, len(e.shapes))
	for _, tm := range e.templates[1:] {
		used[tm.shape] = true
	}
	for i := uint32(1); i < e.tasks.limit(); i++ {
		if t := e.tasks.at(i); t.state != taskNone && t.owner == 0 {
			used[t.shape] = true
		}
	}
	for n := uint32(1); n < e.slots.limit(); n++ {
		if s := e.slots.at(n); s.owner == 0 {
			used[s.shape] = true
		}
	}
	for n, sh := range e.shapes {
		if sh != nil && !used[n] && sh.backlog == 0 && len(sh.away) == 0 {
			delete(e.shapeNo, sh.rs.ID)
			e.shapeTable.Forget(sh.rs)
			e.shapes[n] = nil
		}
	}
}

func (sh *shape) queueOf(j ids.Job) *queue {
	for _, q := range sh.queues {
		if q.job == j {
			return q
		}
	}
	return nil
}

func (e *Engine) enqueue(i uint32, t *task) { e.line(i, t, false) }

// requeue puts a task back that had left its queue and not started.
func (e *Engine) requeue(i uint32, t *task) {
	if t.owner != 0 {
		e.holdTask(i, t, true)
		return
	}
	e.line(i, t, true)
}

func (e *Engine) line(i uint32, t *task, front bool) {
	e.toTask(t, taskQueued)
	sh := e.shapes[t.shape]
	q := sh.queueOf(t.job)
	if q == nil {
		if q = e.spareQ; q != nil {
			e.spareQ, q.job, q.noticed = nil, t.job, false
		} else {
			q = &queue{job: t.job}
		}
		sh.queues = append(sh.queues, q)
	}
	e.push(q, i, t, front)
	if sh.backlog == 0 {
		sh.since = e.now
		e.active = append(e.active, sh)
	}
	sh.backlog++
	e.dirtyQ = true
}

func (e *Engine) unqueue(t *task) {
	sh := e.shapes[t.shape]
	q := sh.queueOf(t.job)
	e.unlink(&q.chain, t)
	e.shrunk(sh, q)
}

// shrunk keeps the lists of queues and shapes to those that have tasks.
func (e *Engine) shrunk(sh *shape, q *queue) {
	sh.backlog--
	if q.n == 0 {
		k := slices.Index(sh.queues, q)
		sh.queues = slices.Delete(sh.queues, k, k+1)
		if sh.turn > k {
			sh.turn--
		}
		e.spareQ = q
	}
	if sh.backlog == 0 {
		sh.stuck = ""
		if e.demands != 0 { // Tick may have nothing to watch any more
			e.demands = 0
			e.noteLoad()
		}
		e.withdraw(sh)
		e.active = slices.DeleteFunc(e.active, func(s *shape) bool { return s == sh })
	}
}

// pop takes the next task of a shape, jobs in turn.
func (e *Engine) pop(sh *shape) (uint32, *task) {
	if sh.backlog == 0 {
		return 0, nil
	}
	if sh.turn >= len(sh.queues) {
		sh.turn = 0
	}
	q := sh.queues[sh.turn]
	sh.turn++
	return e.popFrom(sh, q)
}

func (e *Engine) popFrom(sh *shape, q *queue) (uint32, *task) {
	i := q.head
	t := e.tasks.at(i)
	e.unlink(&q.chain, t)
	e.shrunk(sh, q)
	return i, t
}

// slot is a share of this node's resources, lent to one owner for one shape, that runs one task at a time.
type slot struct {
	shape  uint32 // ours, or 0
	owner  NodeNo // 0 = this daemon
	theirs uint32 // the owner's number of the shape
	alloc  resource.Alloc
	task   uint32
	since  time.Time
	actor  ids.Unique // that has it for its life; then it is nobody's shape
}

func (e *Engine) newSlot(res resource.Set) (uint32, *slot) {
	a, ok := e.res.Alloc(res)
	if !ok {
		return 0, nil
	}
	n, s := e.slots.alloc()
	s.alloc, s.since = a, e.now
	e.noteLoad()
	return n, s
}

func (e *Engine) freeSlot(n uint32) {
	s := e.slots.at(n)
	if s.shape != 0 && s.owner == 0 {
		e.shapes[s.shape].slots--
	}
	e.res.Free(&s.alloc)
	e.slots.release(n)
	e.dirtyQ = true
	e.noteLoad()
}

func (e *Engine) lend(n uint32) {
	e.res.Lend(&e.slots.at(n).alloc)
	e.noteLoad()
}

func (e *Engine) reclaim(n uint32) {
	if a := &e.slots.at(n).alloc; a.Lent {
		e.res.Reclaim(a)
		e.noteLoad()
	}
}

// dispatch gives this node's free resources to those that wait for them, in turn: shapes of our own and other owners'
// asks; then it looks to other nodes for what is left.
func (e *Engine) dispatch() {
	e.scratchS = append(e.scratchS[:0], e.active...)
	for _, sh := range e.scratchS {
		e.lookAway(sh)
	}
	for again := true; again; {
		again = false
		for n := len(e.active); n > 0 && len(e.active) > 0; n-- {
			e.turnAt++
			sh := e.active[e.turnAt%len(e.active)]
			again = e.startOne(sh) || again
		}
		again = e.grantAsks() || again
	}
	e.scratchS = append(e.scratchS[:0], e.active...)
	for _, sh := range e.scratchS {
		e.sendAhead(sh)
	}
}

// startOne starts one task of a shape here, if policy and resources allow.
func (e *Engine) startOne(sh *shape) bool {
	if sh.backlog == 0 || !e.startable(sh) || !e.localNext(sh) {
		return false
	}
	n, s := e.newSlot(sh.rs.Need)
	if s == nil {
		return false
	}
	s.shape = sh.no
	sh.slots++
	sh.since, sh.stuck = e.now, ""
	i, t := e.pop(sh)
	e.startedOver(sh, t)
	e.Counts.Placed++
	e.runHere(i, t, n)
	return true
}

// sendAhead fills the workers that run short tasks of the shape, evenly.
func (e *Engine) sendAhead(sh *shape) {
	if sh.backlog == 0 || sh.slots == 0 || len(sh.away) > 0 && e.roomAway(sh) {
		return
	}
	for _, w := range e.busyOn(sh) {
		e.topUp(w)
	}
}

// busyOn lists the workers whose running task is of a shape of ours.
func (e *Engine) busyOn(sh *shape) []*worker {
	ws := e.scratchW[:0]
	for n := uint32(1); n < e.slots.limit(); n++ {
		s := e.slots.at(n)
		if s.owner != 0 || s.shape != sh.no || s.task == 0 {
			continue
		}
		if w := e.pool.all[e.tasks.at(s.task).worker]; w != nil {
			ws = append(ws, w)
		}
	}
	e.scratchW = ws
	return ws
}

// topUp sends tasks ahead to a worker, to about a millisecond's work, and leaves the others their share.
func (e *Engine) topUp(w *worker) {
	if w.blocked || w.leaving || w.state != workBusy || len(w.fifo) == 0 {
		return
	}
	head := e.tasks.at(w.fifo[0])
	tm := e.templates[head.tmpl]
	depth := e.depth(tm)
	if depth <= 1 || len(w.fifo) > depth/2 {
		return
	}
	sl := e.slots.at(head.slot)
	if sl.owner == 0 {
		sh := e.shapes[head.shape]
		depth = min(depth, len(w.fifo)+(sh.backlog+max(sh.slots, 1)-1)/max(sh.slots, 1))
	}
	for len(w.fifo) < depth {
		i, t := e.peekFor(sl, w)
		if t == nil || t.create != nil || e.templates[t.tmpl].spec.MaxCalls > 0 || e.depth(e.templates[t.tmpl]) <= 1 || !e.argsHere(t) {
			return
		}
		e.takeNext(sl, t)
		e.send(w, i, t)
	}
}

// peekFor is the next waiting task that a slot and its worker could run, still in its queue.
func (e *Engine) peekFor(sl *slot, w *worker) (uint32, *task) {
	var q *queue
	if sl.owner != 0 {
		if p := e.peers[sl.owner]; p != nil {
			q = p.held[sl.theirs]
		}
	} else if sh := e.shapes[sl.shape]; sh.allMeant() {
		return 0, nil
	} else if w != nil {
		q = sh.queueOf(w.job)
	} else if len(sh.queues) > 0 {
		q = sh.queues[sh.turn%len(sh.queues)]
	}
	if q == nil || q.n == 0 {
		return 0, nil
	}
	t := e.tasks.at(q.head)
	if w != nil && t.job != w.job {
		return 0, nil
	}
	return q.head, t
}

// takeNext takes a peeked task out of its queue.
func (e *Engine) takeNext(sl *slot, t *task) {
	if sl.owner != 0 {
		e.unlink(&e.peers[sl.owner].held[sl.theirs].chain, t)
		return
	}
	sh := e.shapes[sl.shape]
	q := sh.queueOf(t.job)
	e.unlink(&q.chain, t)
	e.shrunk(sh, q)
	e.Counts.Placed++
}

// argsHere tells whether a task could start at once.
func (e *Engine) argsHere(t *task) bool {
	for _, d := range t.refs[:t.nDeps] {
		if !e.objs.at(d).local() {
			return false
		}
	}
	return true
}

// slotDone moves a slot whose task ended on to the next task, or gives it back. w is the worker that is free now, if
// any; done is the answer to another owner, which then learns whether the slot stays its own.
func (e *Engine) slotDone(n uint32, w *worker, done *TaskDone) {
	if n == 0 {
		if w != nil && len(w.fifo) == 0 {
			e.goIdle(w)
		}
		return
	}
	e.reclaim(n)
	sl := e.slots.at(n)
	sl.task = 0
	yield := e.deficit() || (e.now.Sub(sl.since) > turnTime && e.othersWait(sl)) || e.ownerEnded(sl)
	if w != nil && len(w.fifo) > 0 && (yield || w.leaving) {
		e.takeBack(w)
	}
	if w != nil && len(w.fifo) > 0 {
		next := w.fifo[0]
		e.tasks.at(next).slot = n
		sl.task = next
		if !yield {
			e.topUp(w)
		}
		return
	}
	if !yield {
		free := w
		if w != nil && (w.leaving || w.state != workBusy) {
			free = nil
		}
		i, t := e.peekFor(sl, free)
		if t == nil && free != nil {
			i, t = e.peekFor(sl, nil)
			if t != nil && t.job == free.job {
				panic("engine: a queue hides its job's task")
			}
		}
		if t != nil {
			e.takeNext(sl, t)
			if free != nil && free.key == e.workerKey(t, sl) && e.argsHere(t) {
				t.slot, sl.task = n, i
				e.send(free, i, t)
				e.topUp(free)
				return
			}
			if w != nil {
				e.goIdle(w)
			}
			e.runHere(i, t, n)
			return
		}
	}
	if done != nil && !yield {
		done.Keep = true
		p := e.peers[sl.owner]
		p.idle[sl.theirs] = append(p.idle[sl.theirs], n)
	} else {
		e.freeSlot(n)
	}
	if w != nil {
		e.goIdle(w)
	}
}

// ownerEnded tells whether a slot's owner is no longer there.
func (e *Engine) ownerEnded(sl *slot) bool { return sl.owner != 0 && e.peers[sl.owner] == nil }

// othersWait tells whether somebody else than the slot's owner and shape waits for resources here.
func (e *Engine) othersWait(sl *slot) bool {
	for _, sh := range e.active {
		if sl.owner != 0 || sh.no != sl.shape || len(sh.queues) > 1 {
			return true
		}
	}
	for _, a := range e.asks {
		if a.node != sl.owner || a.theirs != sl.theirs {
			return true
		}
	}
	return false
}

// deficit tells whether workers that went on after a get use more CPU than there is: nothing is started until they do not.
func (e *Engine) deficit() bool { return e.res.Avail().Get(e.cpu) < 0 }

func (e *Engine) noteLoad() { e.loadDirty = true; e.loadSeq++ }
