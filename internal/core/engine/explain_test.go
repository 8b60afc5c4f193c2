package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gray/internal/core/explain"
	"gray/internal/core/ids"
)

// tell explains an object's task, an object, or an actor.
func (r *rig) tell(id any) *explain.Report {
	r.t.Helper()
	s := explain.Subject{}
	switch id := id.(type) {
	case ids.TaskID:
		s = explain.Subject{Kind: explain.Task, Task: id}
	case ids.ObjectID:
		s = explain.Subject{Kind: explain.Object, Object: id}
	case ids.ActorID:
		s = explain.Subject{Kind: explain.Actor, Actor: id}
	}
	x := r.e.Explain(s)
	if x == nil {
		r.t.Fatalf("%v: nothing is known of it", id)
	}
	if x.ID != s.String() || x.Kind != s.Kind {
		r.t.Errorf("asked for %s, told of %s %s", s, x.Kind, x.ID)
	}
	return x
}

func wantWhy(t *testing.T, what string, x *explain.Report, state, why string) {
	t.Helper()
	if x.State != state || !strings.Contains(x.Why, why) {
		t.Errorf("%s: %s: %s; want %s: …%s…", what, x.State, x.Why, state, why)
	}
}

func TestExplainTasksOfOneNode(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	other := r.driver(2)
	r.workers()
	running := c.call("f")
	queued := []ids.ObjectID{c.call("f"), c.call("g"), c.call("f")}
	others := other.call("f")
	big := c.call("big cpu=9")
	later := c.call("late", running, big)
	r.pass(2 * time.Second)
	for _, tc := range []struct {
		name  string
		task  ids.ObjectID
		state string
		why   string
	}{
		{"running", running, "RUNNING", "it is running on this node in process 2 for 2.0 s"},
		{"first", queued[0], "PENDING_NODE_ASSIGNMENT", "number 1 of 3 of its job that wait for {'CPU': 1.0}, taking turns with 1 of 1 other jobs: all that the nodes have is in use"},
		{"third", queued[2], "PENDING_NODE_ASSIGNMENT", "number 3 of 3"},
		{"another job's", others, "PENDING_NODE_ASSIGNMENT", "number 1 of 1 of its job that wait for {'CPU': 1.0}, taking turns with 3 of 1 other jobs"},
		{"too large", big, "PENDING_NODE_ASSIGNMENT", "no node of the cluster has that much"},
		{"with arguments", later, "PENDING_ARGS_AVAIL", "waits for its argument " + running.String() + ": task f"},
	} {
		x := r.tell(tc.task.Task())
		wantWhy(t, tc.name, x, tc.state, tc.why)
		if y := r.tell(tc.task); y.State != tc.state || len(y.Holders) == 0 {
			t.Errorf("%s: of its output: %s, held by %v", tc.name, y.State, y.Holders)
		}
	}
	x := r.tell(queued[1].Task())
	if q := x.Queue; q == nil || *q != (explain.Queue{Place: 2, Of: 3, Jobs: 2, Tasks: 4, Needs: "{'CPU': 1.0}"}) {
		t.Errorf("the queue is %+v", q)
	}
	if len(x.Nodes) != 1 || x.Nodes[0].Why != "has free only {'CPU': 0.0} of {'CPU': 1.0}" {
		t.Errorf("nodes lack %+v", x.Nodes)
	}
	if x := r.tell(running.Task()); x.PID != 1002 || x.Seconds < 2 || x.Retries == nil || *x.Retries != 0 {
		t.Errorf("the running task: %+v", x)
	}
	x = r.tell(later.Task())
	if len(x.Missing) != 2 || x.Missing[0].ID != running.String() || x.Missing[1].State != "PENDING_NODE_ASSIGNMENT" {
		t.Errorf("missing are %+v", x.Missing)
	}
	if x := r.tell(big); len(x.Waiters) != 1 || !strings.Contains(x.Waiters[0].What, "task late") || len(x.Holders) != 2 {
		t.Errorf("of the argument: %+v", x)
	}
	if r.e.Explain(explain.Subject{Kind: explain.Task, Task: ids.Unique(77).Task(c.job)}) != nil {
		t.Error("a task that never was is explained")
	}
}

func TestExplainWhatATaskLeft(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.workers()
	out := c.call("f")
	r.run(onlyWorker(t, r), "value")
	x := r.tell(out.Task())
	wantWhy(t, "ended", x, "FINISHED", "it has ended")
	if len(x.Returned) != 1 || x.Returned[0].ID != out.String() {
		t.Errorf("it returned %+v", x.Returned)
	}
	inner := c.put("x")
	box := c.put("box", inner)
	c.release(inner)
	x = r.tell(inner)
	wantWhy(t, "in a box", x, "READY", "put by job")
	if len(x.Holders) != 1 || x.Holders[0].What != "in ObjectRef("+box.String()+")" || len(x.Copies) != 1 {
		t.Errorf("of what is in a box: %+v", x)
	}
	c.release(out, box)
	r.empty()
	if r.e.Explain(explain.Subject{Kind: explain.Task, Task: out.Task()}) != nil {
		t.Error("a task of which nothing is left is explained")
	}
}

// A task that waits for one that cannot run says so, whatever lies between.
func TestExplainAGetInATask(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	r.workers()
	out := c.call("f")
	w := onlyWorker(t, r)
	r.take(w)
	inner := r.asClient(w)
	never := inner.call("huge cpu=50")
	inner.get(never)
	x := r.tell(out.Task())
	wantWhy(t, "the outer task", x, "RUNNING", "where a ray.get waits for 1 objects, first "+never.String()+": task huge cpu=50")
	if why := r.e.Why([]ids.ObjectID{out})[0]; !strings.Contains(why.Reason, "no node of the cluster has that much") {
		t.Errorf("a client that waits is told %q", why.Reason)
	}
	if x := r.tell(never); len(x.Waiters) != 1 || !strings.HasPrefix(x.Waiters[0].What, "ray.get in process") {
		t.Errorf("waiters of the inner task: %+v", x.Waiters)
	}
}

func TestExplainAcrossNodes(t *testing.T) {
	a, b, c := pair(t)
	arg := c.put("a")
	box := c.put("box", arg)
	first, second := c.call("f", box), c.call("f")
	quieten(a, b)
	x := a.tell(first.Task())
	wantWhy(t, "at its owner", x, "RUNNING", "was sent to node "+b.e.cfg.Node.String())
	if !slices.Equal(x.Ask, []ids.NodeID{b.e.cfg.Node}) || x.RunsOn != b.e.cfg.Node.String() {
		t.Errorf("its owner names %v", x.Ask)
	}
	there := b.tell(first.Task())
	wantWhy(t, "where it runs", there, "RUNNING", "is running on this node in process")
	if there.Retries != nil || there.PID == 0 {
		t.Errorf("where it runs: %+v", there)
	}
	if why := b.e.Why([]ids.ObjectID{first})[0]; why.State != "RUNNING" {
		t.Errorf("where it runs, its output is %+v", why)
	}
	x.Join(there)
	if text := x.Text(); x.PID != there.PID || !strings.Contains(text, "node "+b.e.cfg.Node.String()+": RUNNING: it is running") {
		t.Errorf("joined:\n%s", text)
	}
	wantWhy(t, "the second", a.tell(second.Task()), "PENDING_NODE_ASSIGNMENT", "number 1 of 1")
	// The ref inside the argument is known there, too.
	if x := b.tell(arg); x.State != "PENDING" || !slices.Contains(x.Ask, a.e.cfg.Node) {
		t.Errorf("of a borrowed ref: %+v", x)
	}
}

func TestExplainActors(t *testing.T) {
	r, c := solo(t, 1)
	never := c.call("huge cpu=50")
	waits := c.actor("", never)
	x := r.tell(waits.id)
	wantWhy(t, "an argument is missing", x, "DEPENDENCIES_UNREADY", "its creation waits for its argument "+never.String())
	h := c.actor("restarts=2")
	w := live(h)
	wantWhy(t, "idle", r.tell(h.id), "ALIVE", "it is idle")
	calls := []ids.ObjectID{h.call("m"), h.call("m"), h.call("m")}
	x = r.tell(h.id)
	wantWhy(t, "busy", x, "ALIVE", "it lives and has 1 calls")
	if l := x.Life; len(l.Callers) != 1 || l.Callers[0].Sent != 1 || l.Callers[0].Waiting != 2 || len(l.Running) != 1 || *l.Left != 2 {
		t.Errorf("busy: %+v", l)
	}
	if y := r.tell(calls[2].Task()); y.Actor != h.id.String() || y.State != "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY" {
		t.Errorf("a call that waits: %+v", y)
	}
	r.crash(w)
	quieten(r)
	x = r.tell(h.id)
	if p := x.Life.Past; len(p) != 1 || p[0].PID != 1000+int(w) || p[0].Cause != "WORKER_DIED" || *x.Life.Left != 1 || x.Life.Incarnation != 1 {
		t.Errorf("after a crash: %+v", x.Life)
	}
	wantWhy(t, "restarting", x, "RESTARTING", "its creation is running on this node")
	live(h)
	r.do(func(e *Engine) { e.KillActor(h.id, true) })
	r.crash(r.home(h.id))
	wantWhy(t, "killed", r.tell(h.id), "DEAD", "it is dead for ever (KILLED)")
	if text := r.tell(h.id).Text(); !strings.Contains(text, "incarnations that ended:\n    0 on node") {
		t.Errorf("in words:\n%s", text)
	}
}

// Incarnations that ended are remembered, but not all of an actor that dies for ever.
func TestPastOfAnActorIsBounded(t *testing.T) {
	r, c := solo(t, 1)
	h := c.actor("restarts=-1")
	for range maxPast + 5 {
		r.crash(live(h))
	}
	x := r.tell(h.id)
	if p := x.Life.Past; len(p) != maxPast || p[0].Incarnation != 5 {
		t.Errorf("%d are remembered, from %+v", len(p), p[0])
	}
}

// An error's reasons cost no walk through a queue that is long.
func TestPlacesFarBehindAreNotCounted(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	r.quiet = true
	c := r.driver(1)
	var last ids.ObjectID
	for range whySteps + 10 {
		u := c.id().Unique()
		c.template("f")
		r.e.Submit(c.sid, &Submission{Template: 1, Unique: u, Returns: 1, Bytes: 100})
		last = u.Object(c.job, 1)
	}
	r.e.Flush()
	if why := r.e.Why([]ids.ObjectID{last})[0]; !strings.Contains(why.Reason, "far behind in the queue of ") {
		t.Errorf("the last is told %q", why.Reason)
	}
	want := fmt.Sprintf("number %d of", whySteps+9)
	wantWhy(t, "asked for itself", r.tell(last.Task()), "PENDING_NODE_ASSIGNMENT", want)
}
