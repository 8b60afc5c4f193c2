package sim

import (
	"strings"

	"gray/internal/core/engine"
	"gray/internal/core/ids"
)

// cancel is ray.cancel of whatever the thread has a ref of.
func (t *thread) cancel(mine []ids.ObjectID) {
	w := t.p.w
	var id ids.ObjectID
	switch k := w.rng.IntN(len(mine) + len(t.streams) + 1); {
	case k < len(mine):
		id = mine[k]
	case k < len(mine)+len(t.streams):
		id = t.streams[k-len(mine)].gen
	default:
		return
	}
	t.cancelOne(id, engine.Cancelling{Force: w.chance(0.2), Recursive: w.chance(0.7)})
}

func (t *thread) cancelOne(id ids.ObjectID, how engine.Cancelling) {
	p, w := t.p, t.p.w
	w.Stats.Cancels++
	w.tracef("%s cancels %s %+v", p, short(id), how)
	p.write(func(e *engine.Engine) {
		if c := w.tasks[id.Unique()]; c != nil && c.at == p.n && !c.cancelled {
			c.cancelled, c.before = true, c.starts
		}
		e.Cancel(p.sid, id, how)
	})
}

// CancelRun tells a worker that a task or a call that it has is cancelled.
func (n *node) CancelRun(sid engine.SessionID, u ids.Unique, attempt uint32, interrupt bool) {
	p := n.procs[sid]
	switch {
	case p == nil:
	case p.body != nil:
		n.w.after(n.w.delay(), func() {
			p.body.cancelled[run{u, attempt}] = true
			for _, no := range sorted(p.threads) {
				if t := p.threads[no]; t.doing == endless {
					t.resume()
				}
			}
		})
	case interrupt:
		n.w.after(n.w.delay(), func() { p.interrupt(run{u, attempt}) })
	}
}

// interrupt is KeyboardInterrupt in the code of a task, if that is what runs: a get or a wait ends at once.
func (p *proc) interrupt(r run) {
	if !p.alive || p.running != r {
		return
	}
	p.cancelled = true
	p.write(func(e *engine.Engine) { e.Heard(p.sid, r.u) })
	t := p.threads[0]
	if t.cur != nil && (strings.HasPrefix(t.doing, "get") || strings.HasPrefix(t.doing, "wait")) {
		t.cut = true
		t.resume()
	}
}
