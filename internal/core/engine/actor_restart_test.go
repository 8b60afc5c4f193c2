package engine

import (
	"fmt"
	"testing"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
)

// What becomes of calls when the process dies: three that it has, one that waits for an argument, one that is made
// while it is away.
func TestProcessThatDiesWithCalls(t *testing.T) {
	const died, away = "!ACTOR_DIED WORKER_DIED", "!ACTOR_UNAVAILABLE "
	for _, tc := range []struct {
		restarts, retries, crashes int
		want                       []string
		runs                       []int // which run in the end, and in which order
	}{
		{0, 0, 1, []string{died, died, died, died, died}, nil},
		{0, 5, 1, []string{died, died, died, died, died}, nil},
		{0, -1, 1, []string{died, died, died, died, died}, nil},
		{1, 0, 1, []string{away, away, away, "v", away}, []int{3}},
		{1, 1, 1, []string{"v", "v", "v", "v", "v"}, []int{0, 1, 2, 3, 4}},
		{1, -1, 1, []string{"v", "v", "v", "v", "v"}, []int{0, 1, 2, 3, 4}},
		{1, -1, 2, []string{died, died, died, died, died}, nil},
		{2, 1, 2, []string{away, away, away, "v", "v"}, []int{3, 4}},
		{-1, -1, 20, []string{"v", "v", "v", "v", "v"}, []int{0, 1, 2, 3, 4}},
		{-1, 0, 1, []string{away, away, away, "v", away}, []int{3}},
	} {
		t.Run(fmt.Sprintf("restarts %d retries %d crashes %d", tc.restarts, tc.retries, tc.crashes), func(t *testing.T) {
			r, c := solo(t, 2)
			h := c.actor(fmt.Sprintf("max=3 async restarts=%d", tc.restarts))
			w := live(h)
			m := fmt.Sprintf("m retries=%d", tc.retries)
			late := c.call("f")
			list := []ids.ObjectID{h.call(m), h.call(m), h.call(m), h.call(m, late)}
			r.take(w)
			for k := range tc.crashes {
				r.crash(w)
				if k == 0 {
					list = append(list, h.call(m))
				}
				if r.state(h.id) != actor.Dead {
					r.wantState(h.id, actor.Restarting, uint32(k+1), "")
					w = live(h)
				}
			}
			r.run(r.e.tasks.at(r.e.objs.at(r.e.find(late)).task).worker, "v")
			if tc.want[0] != died {
				var want []ids.ObjectID
				for _, k := range tc.runs {
					want = append(want, list[k])
				}
				r.wantCalls(w, want...)
				r.wantState(h.id, actor.Alive, uint32(tc.crashes), "")
			} else {
				r.wantState(h.id, actor.Dead, uint32(tc.crashes-1), actor.WorkerDied)
			}
			c.wantValues(list, tc.want...)
			h.drop()
			if tc.want[0] != died {
				r.crash(w)
			}
			r.clean(c, append(list, late)...)
		})
	}
}

// A process that dies in the constructor uses up restarts; what was called waits on.
func TestProcessThatDiesInTheConstructor(t *testing.T) {
	for _, tc := range []struct {
		restarts, crashes int
		state             actor.State
		want              string
	}{
		{0, 1, actor.Dead, "!ACTOR_DIED WORKER_DIED"},
		{1, 1, actor.Alive, "v"},
		{1, 2, actor.Dead, "!ACTOR_DIED WORKER_DIED"},
		{-1, 9, actor.Alive, "v"},
	} {
		r, c := solo(t, 1)
		h := c.actor(fmt.Sprintf("restarts=%d", tc.restarts))
		call := h.call("m")
		for range tc.crashes {
			r.workers()
			w := r.home(h.id)
			r.take(w)
			r.crash(w)
		}
		if tc.state == actor.Alive {
			r.wantState(h.id, actor.Pending, uint32(tc.crashes), "")
			w := live(h)
			r.wantCalls(w, call)
			h.drop()
			r.crash(w)
		} else {
			r.wantState(h.id, actor.Dead, uint32(tc.crashes-1), actor.WorkerDied)
			h.drop()
		}
		c.wantValues([]ids.ObjectID{call}, tc.want)
		r.clean(c, call)
	}
}

func TestProcessThatDiesBetweenCalls(t *testing.T) {
	r, c := solo(t, 1)
	arg := c.put("a")
	h := c.actor("restarts=1", arg)
	c.release(arg)
	w := live(h)
	first := h.call("m")
	r.wantCalls(w, first)
	r.told()
	r.crash(w)
	r.workers()
	r.want("execute", "execute "+itoa(r.home(h.id))+" 1.2 #1 deps 1.1:1 contained ")
	w = r.born(h.id)
	r.wantState(h.id, actor.Alive, 1, "")
	second := h.call("m")
	r.wantCalls(w, second)
	r.crash(w)
	r.wantState(h.id, actor.Dead, 1, actor.WorkerDied)
	h.drop()
	r.clean(c, first, second)
}

// A call that runs again keeps its arguments until then.
func TestRetriedCallKeepsItsArguments(t *testing.T) {
	r, c := solo(t, 1)
	h := c.actor("restarts=1")
	w := live(h)
	arg, inner := c.put("a"), c.put("b")
	call := h.send("m retries=1", &ActorSubmission{Submission: Submission{Deps: []ids.ObjectID{arg}, Contained: []ids.ObjectID{inner}, Returns: 2}})
	c.release(arg, inner)
	r.take(w)
	r.crash(w)
	w = live(h)
	r.told()
	if x := r.execs[w][r.taken[w]]; x.Attempt != 1 || string(x.Deps[0].Inline) != "a" || x.Contained[0] != inner {
		t.Fatalf("sent again: %+v", x)
	}
	r.wantCalls(w, call)
	h.drop()
	r.crash(w)
	r.clean(c, call, h.id.Task(call.Unique()).Object(2))
}

func TestKill(t *testing.T) {
	for _, tc := range []struct {
		name      string
		restarts  int
		noRestart bool
		comes     bool
		want      string // of a running call that may be retried
	}{
		{"no restart", 3, true, false, "!ACTOR_DIED KILLED"},
		{"restart", 1, false, true, "v"},
		{"restart, of which none is left", 0, false, false, "!ACTOR_DIED KILLED"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, c := solo(t, 1)
			h := c.actor(fmt.Sprintf("restarts=%d", tc.restarts))
			w := live(h)
			list := []ids.ObjectID{h.call("m retries=-1"), h.call("m")}
			r.take(w)
			for range 2 { // once more does nothing
				r.do(func(e *Engine) { e.KillActor(h.id, tc.noRestart) })
			}
			if len(r.waiting(w)) != 0 {
				t.Error("a call was sent to an actor that is being killed")
			}
			r.crash(w)
			if tc.comes {
				r.wantState(h.id, actor.Restarting, 1, "")
				w = live(h)
				r.wantCalls(w, list[0])
				c.wantValues(list, "v", "!ACTOR_UNAVAILABLE ")
				h.drop()
				r.crash(w)
			} else {
				r.wantState(h.id, actor.Dead, 0, actor.Killed)
				c.wantValues(list, tc.want, "!ACTOR_DIED KILLED")
				r.do(func(e *Engine) { e.KillActor(h.id, true) })
				h.drop()
			}
			if r.e.KillActor(h.id, true) {
				t.Error("an actor that is gone was killed")
			}
			r.clean(c, list...)
		})
	}
}

// Kill in each state of the making.
func TestKillWhileItIsMade(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(r *rig, c *client) (*handle, []ids.ObjectID)
	}{
		{"waits for an argument", func(_ *rig, c *client) (*handle, []ids.ObjectID) {
			arg := c.call("f cpu=9")
			return c.actor("restarts=3", arg), []ids.ObjectID{arg}
		}},
		{"waits for a slot", func(_ *rig, c *client) (*handle, []ids.ObjectID) { return c.actor("cpu=9 restarts=3"), nil }},
		{"waits for a process", func(r *rig, c *client) (*handle, []ids.ObjectID) {
			b := c.actor("") // takes the blank one
			live(b)
			b.drop()
			for _, w := range r.e.pool.blank {
				r.crash(w.s.id)
			}
			r.started = nil
			return c.actor("restarts=3"), nil
		}},
		{"in the constructor", func(_ *rig, c *client) (*handle, []ids.ObjectID) { return c.actor("restarts=3"), nil }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, c := solo(t, 1)
			h, list := tc.make(r, c)
			call := h.call("m retries=-1")
			r.do(func(e *Engine) { e.KillActor(h.id, true) })
			if a := r.e.actors[h.id.Unique()]; a.host != nil {
				r.crash(r.home(h.id))
			}
			r.wantState(h.id, actor.Dead, 0, actor.Killed)
			if !r.row(h.id).Death.Never {
				t.Error("it is not said that it never ran")
			}
			c.wantValues([]ids.ObjectID{call}, "!ACTOR_DIED KILLED")
			h.drop()
			c.release(append(list, call)...)
			r.do(func(e *Engine) { e.SessionGone(c.sid) })
			for _, w := range sortedKeys(r.e.pool.all) {
				r.crash(w)
			}
			if err := r.e.Empty(false); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A constructor ends although its actor was killed meanwhile: nothing is sent to it any more.
func TestConstructorEndsAfterTheKill(t *testing.T) {
	r, c := solo(t, 1)
	h := c.actor("restarts=3")
	call := h.call("m retries=-1")
	r.do(func(e *Engine) { e.KillActor(h.id, true) })
	w := r.born(h.id)
	if len(r.waiting(w)) != 0 {
		t.Error("a call was sent to an actor that is being killed")
	}
	r.crash(w)
	r.wantState(h.id, actor.Dead, 0, actor.Killed)
	c.wantValues([]ids.ObjectID{call}, "!ACTOR_DIED KILLED")
	h.drop()
	r.clean(c, call)
}
