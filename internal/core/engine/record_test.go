package engine

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

// listed are the rows of tasks as lines, the oldest id first: id, attempt, state, type, node and process, error.
func (r *rig) listed() []string {
	r.t.Helper()
	var at TaskScan
	rows := map[ids.Unique][]string{}
	var order []ids.Unique
	for more := true; more; {
		more = r.e.ScanTasks(&at, 3, func(t *TaskRow) {
			line := fmt.Sprintf("%d.%d %s %s", t.ID.Unique().Counter(), t.Attempt, t.State, t.Name)
			if t.Foreign {
				line = "foreign " + line
			}
			if t.Away {
				line += " away"
			}
			if t.PID != 0 {
				line += fmt.Sprintf(" in %d", t.PID)
			}
			if t.Fault != "" {
				line += fmt.Sprintf(" %s %q", t.Fault, t.Error)
			}
			u := t.ID.Unique()
			if rows[u] == nil {
				order = append(order, u)
			}
			rows[u] = append(rows[u], line)
			switch {
			case t.Created == 0 && !t.Foreign, t.Began != 0 && t.Began < t.Sent, t.Ended != 0 && t.Ended < t.Created && !t.Foreign:
				r.t.Errorf("times of %s: %+v", line, t)
			}
		})
	}
	out := []string{}
	for _, u := range sortedKeys(rows) {
		out = append(out, rows[u]...)
	}
	return out
}

func (r *rig) wantListed(want ...string) {
	r.t.Helper()
	if got := r.listed(); len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
		r.t.Errorf("listed\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestAttemptsAreListed(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.workers()
	first := c.call("f")
	second := c.call("g", first)
	third := c.call("f")
	w := onlyWorker(t, r)
	r.wantListed("1.0 RUNNING f in 1002", "2.0 PENDING_ARGS_AVAIL g", "3.0 PENDING_NODE_ASSIGNMENT f")
	r.run(w, "v")
	r.wantListed("1.0 FINISHED f in 1002", "2.0 PENDING_NODE_ASSIGNMENT g", "3.0 RUNNING f in 1002")
	x := r.take(w)
	r.do(func(e *Engine) {
		e.Note(w, x.Unique, "ValueError: no")
		e.Note(w, x.Unique+1, "of a task that it does not run")
		e.Result(w, x.Unique, x.Attempt, OutcomeRaised, []Output{{Status: statusError, Value: []byte("!")}})
	})
	r.run(w, "v")
	r.wantListed("1.0 FINISHED f in 1002", "2.0 FINISHED g in 1002", `3.0 FAILED f in 1002 TASK_EXECUTION_EXCEPTION "ValueError: no"`)
	c.release(first, second, third)
	r.empty()
}

func TestEachAttemptIsListed(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.workers()
	out := c.call("f retries=1")
	for _, w := range []SessionID{2, 3} {
		r.take(w)
		r.do(func(e *Engine) { e.WorkerGone(w, fault.WorkerCrashed, "it died") })
		r.workers()
	}
	got := r.listed()
	if len(got) != 2 || !strings.HasPrefix(got[0], "1.1 FAILED f retries=1 in 1003 WORKER_CRASHED") || !strings.HasPrefix(got[1], "1.0 FAILED f retries=1 in 1002 WORKER_CRASHED") || !strings.Contains(got[1], "it died") {
		t.Errorf("listed %q", got)
	}
	var exits []string
	r.e.ScanWorkers(func(w *WorkerRow) {
		if !w.Alive {
			exits = append(exits, w.Exit+" "+w.Detail)
		}
	})
	if want := []string{"SYSTEM_ERROR it died", "SYSTEM_ERROR it died"}; !reflect.DeepEqual(exits, want) {
		t.Errorf("ends of workers %q, want %q", exits, want)
	}
	c.release(out)
	r.empty()
}

func TestATaskElsewhereIsListedByBoth(t *testing.T) {
	a, b, c := pair(t)
	out := c.call("f")
	quieten(a, b)
	a.wantListed("1.0 SUBMITTED_TO_WORKER f away")
	got := b.listed()
	if len(got) != 1 || !strings.HasPrefix(got[0], "foreign 1.0 RUNNING f in 200") {
		t.Errorf("at its host %q", got)
	}
	b.run(onlyWorker(t, b), "v")
	quieten(a, b)
	if got := a.listed(); len(got) != 1 || !strings.HasPrefix(got[0], "1.0 FINISHED f in 200") {
		t.Errorf("at its owner %q", got)
	}
	b.wantListed()
	c.release(out)
	quieten(a, b)
	allEmpty(t, a, b)
}

func TestQuietCallsAreNotListed(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.workers()
	spec := r.spec(c.job, "f")
	spec.NoEvents = true
	r.do(func(e *Engine) { e.RegisterTemplate(c.sid, 7, spec) })
	yes := true
	for _, events := range []*bool{nil, &yes} {
		u := c.id().Unique()
		r.do(func(e *Engine) {
			e.Submit(c.sid, &Submission{Template: 7, Unique: u, Returns: 1, Over: Overrides{Events: events}, Bytes: 1})
		})
		r.run(onlyWorker(t, r), "v")
		c.release(u.Object(c.job, 1))
	}
	r.wantListed("2.0 FINISHED f in 1002")
	r.empty()
}

func TestTheOldestAttemptsAreForgotten(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	r.e.rec.finished.limit = 3
	c := r.driver(1)
	r.workers()
	for range 5 {
		out := c.call("f")
		r.run(onlyWorker(t, r), "v")
		c.release(out)
	}
	r.wantListed("3.0 FINISHED f in 1002", "4.0 FINISHED f in 1002", "5.0 FINISHED f in 1002")
	if known, dropped := r.e.TaskCounts(); known != 3 || dropped != 2 {
		t.Errorf("%d known, %d dropped; want 3 and 2", known, dropped)
	}
	r.empty()
}

func TestParents(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 2})
	c := r.driver(1)
	r.workers()
	c.call("f")
	w := onlyWorker(t, r)
	x := r.take(w)
	r.do(func(e *Engine) { e.RegisterTemplate(w, 1, r.spec(c.job, "g")) })
	var block ids.Unique
	r.do(func(e *Engine) { block = e.GiveIDs(w, 10) })
	r.do(func(e *Engine) { e.Submit(w, &Submission{Template: 1, Unique: block, Returns: 1, Bytes: 1}) })
	parents := map[string]string{}
	var at TaskScan
	for r.e.ScanTasks(&at, 100, func(t *TaskRow) { parents[t.Name] = t.Parent.String() }) {
	}
	if want := x.Unique.Task(c.job).String(); parents["g"] != want {
		t.Errorf("the parent of g is %s, want %s", parents["g"], want)
	}
	if want := strings.Repeat("f", 40) + "01000000"; parents["f"] != want {
		t.Errorf("the parent of f is %s, want %s", parents["f"], want)
	}
}

func TestReferencesAreListed(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.workers()
	a := c.put("value")
	r.do(func(e *Engine) { e.Site(c.sid, c.next, "a.py:f:3") })
	out := c.call("f", a)
	var got []string
	list := func() []string {
		got = nil
		r.e.ScanObjects(func(o *ObjectRow) {
			got = append(got, fmt.Sprintf("%d %s %s %d %q %v", o.ID.Unique().Counter(), o.Ref, o.Status, o.Size, o.Site, o.PID))
		})
		return got
	}
	want := []string{`1 PINNED_IN_MEMORY NIL 5 "(deserialize task arg) f" 1002`, `1 USED_BY_PENDING_TASK FINISHED 5 "" 1001`, `2 LOCAL_REFERENCE SUBMITTED_TO_WORKER -1 "a.py:f:3" 1001`}
	if list(); !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	r.run(onlyWorker(t, r), "v")
	c.release(a)
	want = []string{`2 LOCAL_REFERENCE FINISHED 1 "a.py:f:3" 1001`}
	if list(); !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	c.release(out)
	if len(r.e.rec.sites) != 0 {
		t.Errorf("sites are left: %v", r.e.rec.sites)
	}
	r.empty()
}

func TestTimesOfAnAttempt(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	pass := func(d time.Duration) { r.now = r.now.Add(d); r.do(func(e *Engine) { e.Advance(r.now) }) }
	pass(time.Second)
	t0 := r.now
	out := c.call("f")
	pass(2 * time.Second)
	r.workers()
	pass(3 * time.Second)
	r.run(onlyWorker(t, r), "v")
	var at TaskScan
	r.e.ScanTasks(&at, 10, func(row *TaskRow) {
		got := [4]int64{row.Created, row.Sent, row.Began, row.Ended}
		for k := range got {
			got[k] -= t0.UnixMicro()
		}
		if want := [4]int64{0, 2e6, 2e6, 5e6}; got != want {
			t.Errorf("created, sent, began, ended: %v, want %v µs", got, want)
		}
	})
	c.release(out)
}

// An actor's process that fetches its class does not wait for a task: nobody else may have its CPU meanwhile.
func TestLoadingAClassLendsNoCPU(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.workers()
	h := c.actor("hold")
	w := r.home(h.id)
	fn := r.e.templates[r.e.tasks.at(r.e.actors[h.id.Unique()].host.task).tmpl].spec.Fn
	r.do(func(e *Engine) { e.Get(Chan{w, 0}, 1, pack([]ids.ObjectID{fn})) })
	if free := r.e.res.Avail().Get(r.e.cpu); free != 0 {
		t.Errorf("free is %d, want 0", free)
	}
}

// Of calls that were sent to an actor in one go, the first one runs.
func TestTheFirstOfSeveralCallsRuns(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.workers()
	h := c.actor("hold")
	r.born(h.id)
	r.e.templates[r.e.sessions[c.sid].templates[h.template("method a")]].mean = time.Microsecond // so that some are sent ahead
	r.do(func(*Engine) {
		for range 5 {
			m := &ActorSubmission{Submission: Submission{Returns: 1, Template: h.template("method a"), Unique: h.client.id().Unique(), Bytes: 1}, Actor: h.id}
			r.e.CallActor(h.sid, m)
		}
	})
	if n := len(r.e.actors[h.id.Unique()].host.calls); n < 2 {
		t.Fatalf("%d calls were sent, want some ahead", n)
	}
	want := []string{"FINISHED", "RUNNING"}
	for range 4 {
		want = append(want, "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY")
	}
	var got []string
	for _, line := range r.listed() {
		got = append(got, strings.Fields(line)[1])
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
