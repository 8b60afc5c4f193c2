package engine

import (
	"fmt"
	"slices"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

// maxEarly is how many workers of a job and an environment may die in a row before they have received a task. What they had
// not received only queues again, so that no attempt is lost to a process that dies by chance; if the environment itself ends
// them, that would go on for ever.
const maxEarly = 3

// takeFromDead sees to the tasks that a dead worker has not received.
func (e *Engine) takeFromDead(w *worker, why string) {
	if len(w.fifo) == 0 && (w.host == nil || w.host.task == 0) {
		return
	}
	back := e.sink.TakeBack(w.s.id)
	switch {
	case w.killed != "" || w.served || w.host != nil && w.host.death != nil: // it says nothing of others
		e.takenBack(w, back, "", "")
		return
	case !w.receivedNone(e, back):
		e.pool.serves(w)
		e.takenBack(w, back, "", "")
		return
	}
	e.pool.early[w.kin]++
	n := e.pool.early[w.kin]
	e.sink.Warn("a worker ended before it took its first task: " + why)
	if n < maxEarly {
		e.takenBack(w, back, "", "")
		return
	}
	why = fmt.Sprintf("the worker processes for it end before they take a task, %d in a row; of the last one: %s", n, why)
	kind := fault.WorkerCrashed
	if w.inEnv {
		kind = fault.RuntimeEnv
	}
	if w.host != nil {
		w.host.death = deathOf(kind, why)
	}
	e.takenBack(w, back, kind, why)
}

// receivedNone tells whether all that was sent to a worker came back.
func (w *worker) receivedNone(e *Engine, back []ids.Unique) bool {
	if w.host != nil {
		return slices.Contains(back, e.tasks.at(w.host.task).unique)
	}
	return len(back) >= len(w.fifo)
}

// serves notes that a worker has had a task: its kind of workers can run some.
func (p *workers) serves(w *worker) {
	w.served = true
	delete(p.early, w.kin)
}
