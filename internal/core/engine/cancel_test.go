package engine

import (
	"slices"
	"strings"
	"testing"

	"gray/internal/core/ids"
)

var gently, forced, alone = Cancelling{Recursive: true}, Cancelling{Force: true, Recursive: true}, Cancelling{}

func (c *client) cancel(id ids.ObjectID, how Cancelling) {
	c.t.Helper()
	c.told()
	c.do(func(e *Engine) { e.Cancel(c.sid, id, how) })
}

// raise has a worker end a task with an error, of which it may say that it is worth a retry.
func (r *rig) raise(w SessionID, x Execute, outcome uint8) {
	r.t.Helper()
	r.do(func(e *Engine) {
		e.Result(w, x.Unique, x.Attempt, outcome, []Output{{Status: statusError, Value: []byte("!raised"), Size: 7}})
	})
}

// A task is cancelled in each place where it can be, here and on another node. Nothing of it is left there, another task
// runs, and there is no second attempt.
func TestCancelledWhereverItIs(t *testing.T) {
	const interrupt, kill = "interrupt", "kill"
	for _, tc := range []struct {
		name string
		how  Cancelling
		// lead brings a task to where it is cancelled; it runs on run, the owner or another node.
		lead   func(c *client, run *rig) ids.ObjectID
		effect string // at the worker
		want   string
	}{
		{"waits for an argument", gently, func(c *client, _ *rig) ids.ObjectID {
			return c.call("f retries=3", c.call("g cpu=9"))
		}, "", "!CANCELLED"},
		{"queued", gently, func(c *client, run *rig) ids.ObjectID {
			c.call("f")
			quieten(c.rig, run)
			run.take(onlyWorker(c.t, run))
			return c.call("f retries=3")
		}, "", "!CANCELLED"},
		{"waits for a process", gently, func(c *client, run *rig) ids.ObjectID {
			id := c.call("f retries=3")
			carry(c.rig, run)
			return id
		}, "", "!CANCELLED"},
		{"not received", gently, func(c *client, run *rig) ids.ObjectID {
			id := c.call("f retries=3")
			quieten(c.rig, run)
			return id
		}, "", "!CANCELLED"},
		{"runs", gently, func(c *client, run *rig) ids.ObjectID {
			id := c.call("f retries=3")
			quieten(c.rig, run)
			return id
		}, interrupt, "!raised"},
		{"runs, by force", forced, func(c *client, run *rig) ids.ObjectID {
			id := c.call("f retries=3")
			quieten(c.rig, run)
			return id
		}, kill, "!CANCELLED"},
	} {
		for _, far := range []bool{false, true} {
			title := tc.name
			if far {
				title += ", on another node"
			}
			t.Run(title, func(t *testing.T) {
				a, run, c := pair(t)
				if !far {
					a = newRig(t, settings{owner: 1, cpus: 1})
					run, c = a, a.driver(1)
				}
				id := tc.lead(c, run)
				var x Execute
				if tc.effect != "" {
					x = run.take(onlyWorker(t, run))
				}
				run.told()
				c.cancel(id, tc.how)
				carry(a, run)
				told := run.told()
				for _, what := range []string{interrupt, kill} {
					says := slices.ContainsFunc(told, func(l string) bool { return len(l) > len(what) && l[:len(what)] == what })
					if says != (what == tc.effect) {
						t.Errorf("%s: %v; told %q", what, says, told)
					}
				}
				switch tc.effect {
				case interrupt:
					run.raise(onlyWorker(t, run), x, OutcomeRetry)
				case kill:
					w := onlyWorker(t, run)
					run.do(func(e *Engine) { e.WorkerGone(w, "WORKER_CRASHED", "killed") })
				}
				carry(a, run)
				a.told()
				c.get(id)
				a.want("value", "value 1/1/1 "+name(id)+" = "+tc.want+" []")
				if n := a.e.Counts.Retried + run.e.Counts.Retried; n != 0 {
					t.Errorf("%d attempts were repeated", n)
				}
				for _, i := range a.held(c) {
					c.cancel(i, forced)
				}
				carry(a, run)
				for _, w := range run.e.pool.sorted() {
					if run.e.pool.all[w].state == workBusy {
						run.do(func(e *Engine) { e.WorkerGone(w, "WORKER_CRASHED", "killed") })
					}
				}
				quieten(a, run)
				for _, i := range a.held(c) {
					c.release(i)
				}
				quieten(a, run)
				allEmpty(t, a, run)
			})
		}
	}
}

// held lists the objects of the client's own that there are.
func (r *rig) held(c *client) (l []ids.ObjectID) {
	for u := r.e.sessions[c.sid].blocks[0].first; u < c.next; u++ {
		if id := u.Object(c.job, 1); r.e.find(id) != 0 {
			l = append(l, id)
		}
	}
	return l
}

// What a task has called is cancelled with it, down to tasks that others run; what it only holds is not.
func TestCancelIsRecursive(t *testing.T) {
	for _, tc := range []struct {
		how  Cancelling
		want []string // of the child that runs, the one that waits, and the driver's own
	}{
		{gently, []string{"interrupt", "!CANCELLED", ""}},
		{alone, []string{"", "", ""}},
	} {
		r := newRig(t, settings{owner: 1, cpus: 2})
		c := r.driver(1)
		parent, other := c.call("f"), c.call("g cpu=5")
		quieten(r)
		w := onlyWorker(t, r)
		r.take(w)
		next := r.e.sessions[w].blocks[0].first
		r.do(func(e *Engine) { e.RegisterTemplate(w, 1, r.spec(c.job, "f")) })
		child := func(deps ...ids.ObjectID) ids.ObjectID {
			next++
			r.do(func(e *Engine) {
				e.Submit(w, &Submission{Template: 1, Unique: next, Returns: 1, Deps: deps, Bytes: 100})
			})
			return next.Object(c.job, 1)
		}
		runs := child()
		waits := child(other)
		quieten(r)
		c.cancel(parent, tc.how)
		told := r.told()
		for k, id := range []ids.ObjectID{runs, waits, other} {
			o := r.e.objs.at(r.e.find(id))
			got := ""
			switch {
			case o.ready():
				got = "!CANCELLED"
			case slices.Contains(told, "interrupt "+itoa(r.e.tasks.at(o.task).worker)+" "+itoa(SessionID(id.Unique().Counter()))):
				got = "interrupt"
			}
			if k == 0 && tc.want[0] != "" && got == "!CANCELLED" {
				got = "interrupt" // it was not received yet
			}
			if got != tc.want[k] {
				t.Errorf("recursive %v: child %d: %q, want %q; told %q", tc.how.Recursive, k, got, tc.want[k], told)
			}
		}
	}
}

// What a task submits after it was cancelled and before its code is interrupted is cancelled as if it had been there; what
// its code submits when it has been is not.
func TestCancelOfWhatIsSubmittedMeanwhile(t *testing.T) {
	for _, tc := range []struct {
		name  string
		how   Cancelling
		heard bool
		swept bool
	}{
		{"gently", gently, false, true},
		{"by force", forced, false, true},
		{"not what it has called", alone, false, false},
		{"to clean up", gently, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, c := solo(t, 2)
			h := c.actor("")
			parent := c.call("f retries=3")
			quieten(r)
			w := r.e.tasks.at(r.e.objs.at(r.e.find(parent)).task).worker
			x := r.take(w)
			c.cancel(parent, tc.how)
			if tc.heard {
				r.do(func(e *Engine) { e.Heard(w, parent.Unique()) })
			}
			u := r.e.sessions[w].blocks[0].first + 1
			r.do(func(e *Engine) {
				e.RegisterTemplate(w, 1, r.spec(c.job, "f cpu=9 retries=3"))
				e.Submit(w, &Submission{Template: 1, Unique: u, Returns: 1, Bytes: 100})
				e.RegisterTemplate(w, 2, r.spec(c.job, "method m"))
				e.CallActor(w, &ActorSubmission{Submission: Submission{Template: 2, Unique: u + 1, Returns: 1, Bytes: 100}, Actor: h.id})
			})
			for _, child := range []ids.ObjectID{u.Object(c.job, 1), h.id.Task(u + 1).Object(1)} {
				if i := r.e.taskOf(r.e.find(child)); (i == 0 || r.e.tasks.at(i).cancelled) != tc.swept {
					t.Errorf("child %s is cancelled: %v, want %v", name(child), !tc.swept, tc.swept)
				}
			}
			if tc.how.Force {
				r.do(func(e *Engine) { e.WorkerGone(w, "WORKER_CRASHED", "killed") })
			} else {
				r.raise(w, x, OutcomeRaised)
			}
			quieten(r)
		})
	}
}

// The children that an attempt leaves behind end with its process, those that run by force; not those that somebody else
// holds, nor those of an attempt that has returned.
func TestRunningChildrenOfACrashedTask(t *testing.T) {
	for _, tc := range []struct {
		name          string
		crash, wanted bool
		want          bool // that it is killed
	}{
		{"crashed", true, false, true},
		{"crashed, and somebody holds the child's result", true, true, false},
		{"returned", false, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, settings{owner: 1, cpus: 2})
			c := r.driver(1)
			c.call("f retries=1")
			quieten(r)
			w := onlyWorker(t, r)
			x := r.take(w)
			u := r.e.sessions[w].blocks[0].first + 1
			r.do(func(e *Engine) {
				e.RegisterTemplate(w, 1, r.spec(c.job, "f retries=3"))
				e.Submit(w, &Submission{Template: 1, Unique: u, Returns: 1, Bytes: 100})
			})
			quieten(r)
			child := u.Object(c.job, 1)
			at := r.e.tasks.at(r.e.objs.at(r.e.find(child)).task).worker
			if at == w {
				t.Fatal("the child is behind its parent")
			}
			r.take(at)
			if tc.wanted {
				c.put("holds it", child)
			}
			r.told()
			if tc.crash {
				r.do(func(e *Engine) { e.WorkerGone(w, "WORKER_CRASHED", "killed") })
			} else {
				r.result(w, x, "v")
			}
			killed := slices.Contains(r.told(), "kill "+itoa(at))
			if killed != tc.want {
				t.Fatalf("the child's worker is killed: %v, want %v", killed, tc.want)
			}
			if killed {
				r.do(func(e *Engine) { e.WorkerGone(at, "WORKER_CRASHED", "killed") })
				if r.e.Counts.Retried != 1 {
					t.Errorf("%d attempts were repeated, want the parent's alone", r.e.Counts.Retried)
				}
			}
			quieten(r)
		})
	}
}

// A call that an attempt has left running at an actor goes on when the attempt's process dies: the actor is none of its own.
func TestRunningCallOfACrashedTask(t *testing.T) {
	r, c := solo(t, 2)
	h := c.actor("async max=10")
	live(h)
	parent := c.call("f")
	quieten(r)
	w := r.e.tasks.at(r.e.objs.at(r.e.find(parent)).task).worker
	r.take(w)
	u := r.e.sessions[w].blocks[0].first + 1
	r.do(func(e *Engine) {
		e.RegisterTemplate(w, 1, r.spec(c.job, "method m"))
		e.CallActor(w, &ActorSubmission{Submission: Submission{Template: 1, Unique: u, Returns: 1, Bytes: 100}, Actor: h.id})
	})
	quieten(r)
	r.told()
	r.do(func(e *Engine) { e.WorkerGone(w, "WORKER_CRASHED", "killed") })
	for _, line := range r.told() {
		if strings.HasPrefix(line, "cancel") || strings.HasPrefix(line, "kill") {
			t.Errorf("the actor is told to %s", line)
		}
	}
}

// The same of an actor's process, unless the actor ends itself.
func TestRunningChildrenOfADeadActor(t *testing.T) {
	for _, exits := range []bool{false, true} {
		r, c := solo(t, 2)
		h := c.actor("")
		w := live(h)
		call := h.call("m")
		x := r.take(w)
		child := r.asClient(w).call("f retries=3")
		quieten(r)
		at := r.e.tasks.at(r.e.objs.at(r.e.find(child)).task).worker
		r.take(at)
		r.do(func(e *Engine) { e.Release(w, child, 1) })
		r.told()
		if exits {
			r.end(w, x, OutcomeExit, "")
		}
		r.crash(w)
		if killed := slices.Contains(r.told(), "kill "+itoa(at)); killed == exits {
			t.Errorf("exit_actor %v: the child's worker is killed: %v", exits, killed)
		}
		c.release(call)
	}
}

// Of an actor's calls that run at once, only the children of the one that is cancelled are.
func TestCancelKnowsWhichCallSubmitted(t *testing.T) {
	r, c := solo(t, 4)
	h := c.actor("max=2")
	w := live(h)
	calls := []ids.ObjectID{h.call("m"), h.call("m")}
	r.take(w)
	r.take(w)
	next := r.e.sessions[w].blocks[0].first
	r.do(func(e *Engine) { e.RegisterTemplate(w, 1, r.spec(c.job, "f cpu=9")) })
	var children []ids.ObjectID
	for _, call := range calls {
		next++
		children = append(children, next.Object(c.job, 1))
		r.do(func(e *Engine) {
			e.Submit(w, &Submission{Template: 1, Unique: next, By: call.Unique(), Returns: 1, Bytes: 100})
		})
	}
	c.cancel(calls[1], gently)
	for k, want := range []bool{false, true} {
		if got := r.e.objs.at(r.e.find(children[k])).ready(); got != want {
			t.Errorf("the child of call %d is cancelled: %v, want %v", k, got, want)
		}
	}
}

// Who has only borrowed a ref cancels the task at its owner, who may have to be found first.
func TestCancelByABorrower(t *testing.T) {
	for _, known := range []bool{true, false} {
		a, b := newRig(t, settings{owner: 1, cpus: 1}), newRig(t, settings{owner: 2, cpus: 1})
		c := a.driver(1)
		id := c.call("f cpu=9")
		d := b.driver(2)
		if known {
			meet(a, b)
		}
		b.do(func(e *Engine) { e.Put(d.sid, d.id(), 0, []ids.ObjectID{id}, []byte("holds it")) })
		d.cancel(id, gently)
		if !known {
			b.want("find", "find 1")
			meet(a, b)
		}
		carry(a, b)
		if !a.e.objs.at(a.e.find(id)).ready() {
			t.Errorf("owner known %v: the task goes on", known)
		}
	}
}

// A generator that is cancelled by one of its items ends; what it had yielded stays.
func TestCancelAGenerator(t *testing.T) {
	for _, how := range []Cancelling{gently, forced} {
		r := newRig(t, settings{owner: 1, cpus: 1})
		c := r.driver(1)
		gen := c.stream("f retries=3")
		quieten(r)
		w := onlyWorker(t, r)
		x := r.take(w)
		r.yield(w, x, 2, "one")
		c.read(gen, 2)
		c.cancel(gen.Unique().Object(c.job, 2), how)
		if how.Force {
			r.want("kill", "kill "+itoa(w))
			r.do(func(e *Engine) { e.WorkerGone(w, "WORKER_CRASHED", "killed") })
		} else {
			r.want("interrupt", "interrupt "+itoa(w)+" "+itoa(SessionID(gen.Unique().Counter())))
			r.do(func(e *Engine) {
				e.Result(w, x.Unique, x.Attempt, OutcomeRetry, []Output{{Value: []byte("end"), Size: 3}, {Status: statusError, Value: []byte("!CANCELLED"), Size: 10}})
			})
		}
		r.told()
		c.read(gen, 3)
		r.want("items", "items 1/1/2 "+name(gen)+" from 3: !CANCELLED end")
	}
}

// What was put, and what has ended, is not touched by a cancellation, nor is anybody by an id that nobody has.
func TestCancelOfWhatHasEnded(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1})
	c := r.driver(1)
	put, done := c.put("v"), c.call("f")
	quieten(r)
	r.run(onlyWorker(t, r), "w")
	for _, id := range []ids.ObjectID{put, done, ids.MakeUnique(1, 77).Object(c.job, 1), ids.MakeUnique(9, 77).Object(c.job, 1)} {
		c.cancel(id, forced)
	}
	c.told()
	c.get(put, done)
	r.want("value", "value 1/1/1 "+name(put)+" = v []", "value 1/1/1 "+name(done)+" = w []")
	c.release(put, done)
	r.empty()
}
