package engine

import "time"

// TickEvery is how often Tick wants to be called while there is work.
const TickEvery = 10 * time.Millisecond

// Tick does what time alone makes due: surplus workers leave, tasks that were sent ahead to a worker that takes long are
// taken back, a store that is stuck says so.
func (e *Engine) Tick() {
	e.reap()
	e.startWanted() // if starting one failed before
	idle := len(e.pool.blank) > 0 || e.pool.nIdle > 0 || len(e.asks) > 0
	e.tickActors()
	e.tickEnvs()
	for _, sid := range e.pool.sorted() {
		w := e.pool.all[sid]
		if w.state != workBusy || len(w.fifo) < 2 {
			continue
		}
		mean := e.templates[e.tasks.at(w.fifo[0]).tmpl].mean
		if late := e.now.Sub(w.headSince); late > 2*time.Millisecond && late > 8*mean && (idle || late > 5*TickEvery) {
			e.takeBack(w)
			if len(w.fifo) == 0 { // it had not even received the first
				e.goIdle(w)
			}
		}
	}
	e.tickFetches()
	e.tellDemands()
	e.memRun(e.mem.Tick(e.now, e.couldRelease(), nil))
	e.dirtyQ = e.dirtyQ || len(e.active) > 0
}

// demandEvery is how long a shape waits before the head hears of it, and the time between two looks.
const demandEvery = 200 * time.Millisecond

// tellDemands reports the load again when what waits has changed: a task that nothing can start changes nothing else.
func (e *Engine) tellDemands() {
	if e.now.Sub(e.demandsAt) < demandEvery {
		return
	}
	e.demandsAt = e.now
	e.tickNotices()
	sum := uint64(0)
	for _, sh := range e.active {
		e.noticeInfeasible(sh)
		if e.now.Sub(sh.since) >= demandEvery {
			sum += uint64(sh.backlog) * uint64(sh.no+1)
		}
	}
	if sum != e.demands {
		e.demands = sum
		e.noteLoad()
	}
}

// Busy tells whether Tick has anything to watch.
func (e *Engine) Busy() bool {
	return len(e.active) > 0 || len(e.pool.all)-e.pool.actors > e.cfg.CPUs || e.pool.leaving > 0 || e.envsLoose > 0 || e.tasks.live > 0 || len(e.memWants) > 0
}

// writesSoon tells whether the session itself waits for store bytes.
func (s *session) writesSoon() bool {
	for _, request := range s.creates {
		if request != 0 {
			return true
		}
	}
	return false
}

// couldRelease tells whether a running task may still give store bytes back.
func (e *Engine) couldRelease() bool {
	for _, w := range e.pool.all {
		idle := w.host != nil && w.host.task == 0 && len(w.host.calls) == 0
		if w.state == workBusy && !idle && !w.blocked && !w.s.writesSoon() {
			return true
		}
	}
	return false
}
