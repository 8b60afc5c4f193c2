package engine

import (
	"time"

	"gray/internal/core/ids"
)

// A task that waits in a ray.get lends its CPU, so another can start, which may wait, too: a thousand tasks that wait for
// something slow would be a thousand processes. So of one function of which some wait, and as many run as would fill the
// node's CPUs, a further one starts after a second, the next after two, and so on. What tasks and actors call is counted for
// itself, by its depth, as those who wait may need it; and a task that some running task waits for starts at once, before all
// others: it is what they need.

const (
	firstPause = time.Second
	mostPause  = 10 * time.Second
	capLook    = 256  // tasks of a queue that are looked at for one that may start
	maxHasten  = 1000 // awaited tasks that go to the front for one request
)

// over is what is kept of a function whose tasks of one depth wait.
type over struct {
	blocked int // its running tasks that wait
	pause   time.Duration
	next    time.Time // when a further one may start
}

// noteWaits counts a worker that has begun to wait, with the function that it runs.
func (e *Engine) noteWaits(w *worker) {
	e.pool.blocked++
	if w.host == nil && len(w.fifo) > 0 {
		t := e.tasks.at(w.fifo[0])
		if w.waits = e.overOf(t); w.waits == nil {
			tm := e.templates[t.tmpl]
			if tm.overs == nil {
				tm.overs = map[uint8]*over{}
			}
			w.waits = &over{}
			tm.overs[t.depth] = w.waits
		}
		w.waits.blocked++
	}
}

// overOf is what is kept of a task's function at its depth; nil if none of it has waited.
func (e *Engine) overOf(t *task) *over { return e.templates[t.tmpl].overs[t.depth] }

// depthBelow is the depth of what a session calls. What an actor calls is one below its creation.
func (e *Engine) depthBelow(s *session) uint8 {
	depth := uint8(0)
	switch w := s.worker; {
	case w == nil:
	case w.host != nil:
		depth = w.host.depth
	case len(w.fifo) > 0:
		depth = e.tasks.at(w.fifo[0]).depth
	}
	return max(depth, depth+1)
}

// noteGoesOn undoes noteWaits.
func (e *Engine) noteGoesOn(w *worker) {
	e.pool.blocked--
	if o := w.waits; o != nil {
		if o.blocked--; o.blocked == 0 {
			*o = over{}
		}
		e.dirtyQ = true
	}
	w.waits = nil
}

// cpuRoom is how many tasks of a shape this node has CPUs for.
func (e *Engine) cpuRoom(sh *shape) int {
	need := sh.rs.Need.Get(e.cpu)
	if need <= 0 {
		return 0
	}
	return int(max(e.res.Total().Get(e.cpu)/need, 1))
}

// full tells whether so many of a task's function and depth run here that this node's CPUs would be taken if none waited.
func (e *Engine) full(sh *shape, t *task) bool {
	room := e.cpuRoom(sh)
	if o := e.overOf(t); room == 0 || t.create != nil || o == nil || o.blocked == 0 {
		return false
	}
	for n := uint32(1); n < e.slots.limit() && room > 0; n++ {
		if s := e.slots.at(n); s.task != 0 && s.actor == 0 {
			if x := e.tasks.at(s.task); x.tmpl == t.tmpl && x.depth == t.depth {
				room--
			}
		}
	}
	return room == 0
}

// capped tells for how long a task should not start, because too many of its function wait.
func (e *Engine) capped(sh *shape, t *task) time.Duration {
	if !e.full(sh, t) || e.awaited(t) {
		return 0
	}
	o := e.overOf(t)
	if o.pause == 0 {
		o.pause, o.next = firstPause, e.now.Add(firstPause)
	}
	return max(o.next.Sub(e.now), 0)
}

// startable has the next task that pop takes be one that may start now; false if there is none near.
func (e *Engine) startable(sh *shape) bool {
	if e.pool.blocked == 0 {
		return true
	}
	for k := range sh.queues {
		at := (sh.turn + k) % len(sh.queues)
		q := sh.queues[at]
		held, at0 := uint32(0), uint8(0) // a function and depth whose tasks have to wait
		for i, looked := q.head, 0; i != 0 && looked < capLook; looked++ {
			t := e.tasks.at(i)
			if t.tmpl != held || t.depth != at0 || e.awaited(t) {
				if e.capped(sh, t) == 0 {
					e.toFront(&q.chain, i, t)
					sh.turn = at
					return true
				}
				held, at0 = t.tmpl, t.depth
			}
			i = t.next
		}
	}
	return false
}

// startedOver notes that a task started although many of its function wait.
func (e *Engine) startedOver(sh *shape, t *task) {
	o := e.overOf(t)
	if o == nil || o.pause == 0 || !e.full(sh, t) || e.awaited(t) {
		return
	}
	o.pause = min(2*o.pause, mostPause)
	o.next = e.now.Add(o.pause)
}

// awaited tells whether a running task waits for the first output of t.
func (e *Engine) awaited(t *task) bool {
	if t.out == 0 {
		return false
	}
	for n := e.objs.at(t.out).waiters; n != 0; n = e.waiters.at(n).next {
		switch w := e.waiters.at(n); w.kind {
		case waitGet, waitWatch, waitHere:
			if s := e.sessions[SessionID(w.a)]; s != nil && s.worker != nil && s.worker.host == nil {
				return true
			}
		}
	}
	return false
}

func (e *Engine) toFront(c *chain, i uint32, t *task) {
	if c.head != i {
		e.unlink(c, t)
		e.insert(c, i, t, c.head)
	}
}

// hasten brings the tasks to the front of their queues whose outputs a worker is about to wait for, in their order.
func (e *Engine) hasten(s *session, list ids.List) {
	if s.worker == nil || s.worker.host != nil {
		return
	}
	for k := min(list.Len(), maxHasten) - 1; k >= 0; k-- {
		i := e.find(list.At(k))
		if i == 0 || e.objs.at(i).task == 0 {
			continue
		}
		ti := e.objs.at(i).task
		if t := e.tasks.at(ti); t.state == taskQueued {
			e.toFront(&e.shapes[t.shape].queueOf(t.job).chain, ti, t)
			e.dirtyQ = true
		}
	}
}
