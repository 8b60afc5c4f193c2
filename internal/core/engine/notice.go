package engine

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

// infeasibleAfter is how long a node that could run a shape's tasks may be on its way before their jobs are told.
const infeasibleAfter = 5 * time.Second

// noticeInfeasible tells jobs once that tasks of theirs wait for what no node has: a program that does not wait for them, or
// waits with a timeout again and again, is told by nothing else.
func (e *Engine) noticeInfeasible(sh *shape) {
	if e.now.Sub(sh.since) < infeasibleAfter || !e.infeasible(sh) {
		return
	}
	for _, q := range sh.queues {
		if !q.noticed {
			q.noticed = true
			e.sink.Notice(q.job, "Warning: The following resource request cannot be scheduled right now: "+
				e.cfg.Names.Format(sh.rs.Need)+", as "+e.stuckText(sh)+". It waits; `ray status` shows what the cluster has.")
		}
	}
}

const (
	// noticeSpan and mostNotices bound how much a job is told of its failed attempts: when a node dies there are thousands.
	noticeSpan  = 5 * time.Second
	mostNotices = 5
)

// notices counts what a job was told, since when.
type notices struct {
	since     time.Time
	told, not int
}

// failedOnce records that an attempt failed after which another follows, and tells the job.
func (e *Engine) failedOnce(t *task, kind fault.Kind, why string) {
	e.record(t, kind, why)
	n := e.told[t.job]
	if n == nil {
		if e.told == nil {
			e.told = map[ids.Job]*notices{}
		}
		n = &notices{since: e.now}
		e.told[t.job] = n
	}
	if n.told == mostNotices {
		n.not++
		return
	}
	n.told++
	left := "infinite retries"
	if t.retries >= 0 {
		left = fmt.Sprintf("%d retries", t.retries)
	}
	e.sink.Notice(t.job, fmt.Sprintf("Task %s failed. There are %s remaining, so the task will be retried. Error: %s", e.nameOf(t), left, why))
}

// tickNotices says how many attempts a job was not told of, and lets it be told anew.
func (e *Engine) tickNotices() {
	for _, j := range slices.SortedFunc(maps.Keys(e.told), func(a, b ids.Job) int { return bytes.Compare(a[:], b[:]) }) {
		n := e.told[j]
		if e.now.Sub(n.since) < noticeSpan {
			continue
		}
		if n.not == 0 {
			delete(e.told, j)
			continue
		}
		e.sink.Notice(j, fmt.Sprintf("%d further attempts of tasks failed within %.0f s, which are retried as well.", n.not, e.now.Sub(n.since).Seconds()))
		*n = notices{since: e.now}
	}
}
