package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/core/resource"
)

// Each job is told once, after a while, that nothing can run tasks of its; of those that only wait for others nobody is told.
func TestJobsAreToldOfWhatNoNodeHas(t *testing.T) {
	const huge = ": Warning: The following resource request cannot be scheduled right now: {'CPU': 9.0}, as no node of the cluster has that much " +
		"(this one has {'CPU': 1.0}); add a node or ask for less. It waits; `ray status` shows what the cluster has."
	r := newRig(t, settings{owner: 1, cpus: 1})
	c, other := r.driver(1), r.driver(2)
	r.workers()
	c.call("f")
	c.call("f")
	never, nor := c.call("huge cpu=9"), c.call("huge cpu=9")
	r.pass(infeasibleAfter - time.Second)
	r.want("notice")
	r.pass(2 * time.Second)
	r.want("notice", "notice to job "+c.job.String()+huge)
	r.pass(time.Minute)
	r.want("notice")
	other.call("huge cpu=9")
	r.pass(time.Second)
	r.want("notice", "notice to job "+other.job.String()+huge)

	for _, id := range []ids.ObjectID{never, nor} {
		r.do(func(e *Engine) { e.Cancel(c.sid, id, Cancelling{}) })
	}
	r.pass(time.Second)
	c.call("huge cpu=9")
	r.pass(time.Second)
	r.want("notice", "notice to job "+c.job.String()+huge)
}

// What a node that joins later has, though it is in use, ends the wait for what no node has.
func TestANodeThatCouldRunItIsEnough(t *testing.T) {
	a, b := newRig(t, settings{owner: 1, cpus: 1}), newRig(t, settings{owner: 2, cpus: 9})
	other := b.driver(2)
	b.workers()
	other.call("all cpu=9")
	c := a.driver(1)
	c.call("huge cpu=9")
	a.pass(time.Second)
	meet(a, b)
	a.pass(time.Minute)
	a.want("notice")
	if _, _, demands := a.e.Load(); len(demands) != 1 || demands[0].Infeasible || demands[0].Reason != "" {
		t.Errorf("demands %+v, want one that waits for its turn", demands)
	}
}

// Where a node joins and has it not either, its job is told so in the cluster's name.
func TestANodeThatHasItNeither(t *testing.T) {
	a, b := newRig(t, settings{owner: 1, cpus: 1}), newRig(t, settings{owner: 2, cpus: 2})
	meet(a, b)
	c := a.driver(1)
	c.call("huge cpu=9")
	a.pass(time.Minute)
	told := a.told()
	if n := slices.IndexFunc(told, func(l string) bool { return strings.HasPrefix(l, "notice to job "+c.job.String()) }); n < 0 || !strings.Contains(told[n], "no node of the cluster has that much") {
		t.Fatalf("told %q", told)
	}
	a.see(b)
	grown, err := a.names.Set(map[string]int64{"CPU": 9 * resource.Unit})
	if err != nil {
		t.Fatal(err)
	}
	a.do(func(e *Engine) { e.NodeView(2, grown, nil, nil, 0) })
	a.pass(time.Second)
	if _, _, demands := a.e.Load(); len(demands) != 1 || demands[0].Infeasible {
		t.Errorf("demands %+v of a node that has it, in use", demands)
	}
}

// A job is told of attempts that fail and are made again: of the first few, and then of how many.
func TestJobsAreToldOfRetries(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	out := c.call("f retries=20")
	fall := func(kind fault.Kind, why string) {
		r.workers()
		for _, sid := range r.e.pool.sorted() {
			if len(r.e.pool.all[sid].fifo) > 0 {
				r.take(sid)
				r.do(func(e *Engine) { e.WorkerGone(sid, kind, why) })
				return
			}
		}
		t.Fatal("no worker has the task")
	}
	for range 8 {
		fall(fault.WorkerCrashed, "it fell")
	}
	said := "notice to job " + c.job.String() + ": "
	var lines []string
	for k := range mostNotices {
		lines = append(lines, fmt.Sprintf("%sTask f retries=20 failed. There are %d retries remaining, so the task will be retried. Error: it fell", said, 20-k))
	}
	r.want("notice", lines...)
	r.pass(noticeSpan + time.Second)
	told := r.told()
	more := slices.IndexFunc(told, func(l string) bool { return strings.HasPrefix(l, said+"3 further attempts of tasks failed within 5 s") })
	if more < 0 {
		t.Fatalf("told %q", told)
	}
	fall(fault.OutOfMemory, "memory ran out")
	r.want("notice", said+"Task f retries=20 failed. There are 12 retries remaining, so the task will be retried. Error: memory ran out")
	c.release(out)
}
