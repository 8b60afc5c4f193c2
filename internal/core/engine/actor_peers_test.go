package engine

import (
	"fmt"
	"testing"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
)

// trio is a manager without CPUs, and two nodes that can be host.
func trio(t *testing.T) (a, b, d *rig, c *client, hd *head) {
	t.Helper()
	a = newRig(t, settings{owner: 1, cpus: 0})
	b = newRig(t, settings{owner: 2, cpus: 2})
	d = newRig(t, settings{owner: 3, cpus: 2})
	meet(a, b)
	meet(a, d)
	meet(b, d)
	return a, b, d, a.driver(1), newHead(a, b, d)
}

// visitor is a task of c's that runs on a rig, as a client: it holds a handle of h's actor.
func visitor(c *client, h *handle, words string, r *rig, others ...*rig) (*handle, ids.ObjectID, Execute) {
	c.t.Helper()
	before := len(r.execs)
	out := c.submit(words, 1, nil, []ids.ObjectID{h.id.Handle()}).Object(c.job, 1)
	quieten(append(others, c.rig, r)...)
	for _, w := range sortedKeys(r.execs) {
		if wk := r.e.pool.all[w]; wk != nil && wk.host == nil && r.taken[w] < len(r.execs[w]) {
			return h.by(r.asClient(w)), out, r.take(w)
		}
	}
	c.t.Fatalf("the visitor has not come; %d workers had work before", before)
	return nil, out, Execute{}
}

func TestActorOnAnotherNode(t *testing.T) {
	a, b, c := pair(t)
	arg := c.put("a")
	h := c.actor("restarts=1", arg)
	early := h.call("m")
	w := live(h, b)
	a.wantState(h.id, actor.Alive, 0, "")
	if row := a.row(h.id); row.Node != b.e.cfg.Node || row.PID == 0 || row.Repr != "repr" {
		t.Errorf("the head was told %+v", row)
	}
	if b.freeCPU() != 1 {
		t.Error("its placement was not given back")
	}
	list := []ids.ObjectID{early, h.call("m", arg), h.call("m")}
	quieten(a, b)
	b.wantCalls(w, list...)
	quieten(a, b)
	c.wantValues(list, "v", "v", "v")
	h.drop()
	quieten(a, b)
	b.want("exit", "exit "+itoa(w))
	b.crash(w)
	quieten(a, b)
	a.wantState(h.id, actor.Dead, 0, actor.Unreferred)
	c.release(append(list, arg)...)
	quieten(a, b)
	allEmpty(t, a, b)
}

// What becomes of calls that are at the host, when the process there dies: manager and caller are elsewhere.
func TestProcessElsewhereDiesWithCalls(t *testing.T) {
	const died, away = "!ACTOR_DIED WORKER_DIED", "!ACTOR_UNAVAILABLE "
	for _, tc := range []struct {
		words string
		m     string
		want  []string
		runs  bool
	}{
		{"", "m", []string{died, died, died}, false},
		{"", "m retries=1", []string{died, died, died}, false},
		{"restarts=1", "m", []string{away, away, away}, false},
		{"restarts=1", "m retries=1", []string{"v", "v", "v"}, true},
		{"restarts=-1", "m retries=-1", []string{"v", "v", "v"}, true},
	} {
		t.Run(tc.words+"/"+tc.m, func(t *testing.T) {
			a, b, c := pair(t)
			h := c.actor(tc.words)
			w := live(h, b)
			list := []ids.ObjectID{h.call(tc.m), h.call(tc.m)}
			quieten(a, b)
			b.take(w)
			b.crash(w)
			list = append(list, h.call(tc.m))
			for range 2 {
				quieten(a, b)
			}
			if tc.runs {
				w = live(h, b)
				b.wantCalls(w, list...)
				quieten(a, b)
			}
			if a.state(h.id) == actor.Restarting {
				live(h, b)
			}
			c.wantValues(list, tc.want...)
			last := a.state(h.id) == actor.Alive
			h.drop()
			quieten(a, b)
			if last {
				b.crash(b.home(h.id))
				quieten(a, b)
			}
			c.release(list...)
			quieten(a, b)
			allEmpty(t, a, b)
		})
	}
}

// A caller on a third node learns from the head where the actor is.
func TestCallerOnAThirdNode(t *testing.T) {
	a, b, d, c, hd := trio(t)
	h := c.actor("node=2 restarts=1")
	w := live(h, b, d)
	g, out, x := visitor(c, h, "f node=3", d, a, b)
	list := []ids.ObjectID{g.call("m retries=1"), g.call("m retries=1")}
	if len(d.watched) != 1 {
		t.Fatal("the head was not asked where the actor is")
	}
	hd.settle()
	b.wantCalls(w, list...)
	hd.settle()
	g.wantValues(list, "v", "v")
	// Its process dies with two more: they wait until it is known what becomes of the actor, and go to the new one.
	more := []ids.ObjectID{g.call("m retries=1"), g.call("m"), g.call("m retries=1")}
	quieten(a, b, d)
	b.take(w)
	b.crash(w)
	quieten(a, b, d)
	g.wantValues(more, "", "", "")
	hd.news()
	g.wantValues(more, "", "!ACTOR_UNAVAILABLE ", "")
	quieten(a, b, d)
	w = b.born(h.id)
	hd.settle()
	b.wantCalls(w, more[0], more[2])
	hd.settle()
	g.wantValues(more, "v", "!ACTOR_UNAVAILABLE ", "v")
	// The caller goes, then the creator's handle.
	g.release(append(list, more...)...)
	d.end(g.sid, x, OutcomeValues, "v")
	d.do(func(e *Engine) { e.Release(g.sid, h.id.Handle(), 1) })
	hd.settle()
	if len(d.watched) != 0 || d.state(h.id) != "NONE" {
		t.Errorf("node 3 still watches the actor, as %s", d.state(h.id))
	}
	c.release(out)
	h.drop()
	hd.settle()
	b.crash(w)
	hd.settle()
	allEmpty(t, a, b, d)
}

// A host that is also a caller hears first that the next incarnation is here, then of the restart.
func TestCallerOnTheHost(t *testing.T) {
	for _, early := range []bool{false, true} { // the head's news
		a, b, d, c, hd := trio(t)
		h := c.actor("node=2 restarts=1")
		w := live(h, b, d)
		g, out, x := visitor(c, h, "f node=2", b, a, d)
		list := []ids.ObjectID{g.call("m retries=1"), g.call("m"), g.call("m retries=1")}
		if len(b.e.actors[h.id.Unique()].order) != 1 {
			t.Fatal("the calls are not there")
		}
		b.take(w)
		b.crash(w)
		if early {
			b.until(1, func() bool { return a.state(h.id) == actor.Restarting })
			hd.news()
		}
		quieten(a, b, d)
		w = b.born(h.id)
		for b.taken[w] < len(b.execs[w]) {
			b.answer(w, OutcomeValues, "v")
		}
		hd.settle()
		g.wantValues(list, "v", "!ACTOR_UNAVAILABLE ", "v")
		g.release(list...)
		b.end(g.sid, x, OutcomeValues, "v")
		b.do(func(e *Engine) { e.Release(g.sid, h.id.Handle(), 1) })
		c.release(out)
		h.drop()
		hd.settle()
		b.crash(w)
		hd.settle()
		allEmpty(t, a, b, d)
	}
}

// An actor is stopped while its making is elsewhere, in each of its states there.
func TestStopWhileItIsMadeElsewhere(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(a, b *rig, c *client) *handle
	}{
		{"sent ahead", func(a, b *rig, c *client) *handle {
			live(c.actor("hold"), b)
			h := c.actor("hold")
			quieten(a, b)
			i := a.e.actors[h.id.Unique()].mgr.task
			a.do(func(e *Engine) {
				sh := e.shapes[e.tasks.at(i).shape]
				e.unqueue(e.tasks.at(i))
				e.sendAway(e.peers[2], sh, i, e.tasks.at(i))
			})
			carry(a, b)
			return h
		}},
		{"waits for a process", func(a, b *rig, c *client) *handle {
			h := c.actor("")
			carry(a, b)
			return h
		}},
		{"in the constructor", func(a, b *rig, c *client) *handle {
			h := c.actor("")
			quieten(a, b)
			return h
		}},
		{"lives, and its manager has not heard", func(a, b *rig, c *client) *handle {
			h := c.actor("")
			quieten(a, b)
			b.born(h.id)
			return h
		}},
	} {
		for _, how := range []string{"killed", "dropped", "killed, and may restart"} {
			t.Run(tc.name+"/"+how, func(t *testing.T) {
				a, b, c := pair(t)
				h := tc.make(a, b, c)
				cause := actor.Killed
				switch how {
				case "killed":
					a.do(func(e *Engine) { e.KillActor(h.id, true) })
				case "dropped":
					h.drop()
					cause = actor.Unreferred
				default:
					a.e.actors[h.id.Unique()].mgr.left = 1
					a.do(func(e *Engine) { e.KillActor(h.id, false) })
				}
				quieten(a, b)
				if ba := b.e.actors[h.id.Unique()]; ba != nil && ba.host != nil && ba.host.w != nil && ba.inc == 0 {
					b.crash(b.home(h.id))
				}
				carry(a, b)
				if cause == actor.Killed && how != "killed" {
					if st := a.state(h.id); a.e.actors[h.id.Unique()].inc != 1 || st == actor.Dead {
						t.Errorf("it is %s", st)
					}
					return
				}
				a.wantState(h.id, actor.Dead, 0, cause)
				if cause == actor.Killed {
					h.drop()
				}
				a.do(func(e *Engine) { e.SessionGone(c.sid) })
				b.do(func(e *Engine) { e.JobEnded(c.job) })
				for _, w := range sortedKeys(b.e.pool.all) {
					b.crash(w)
				}
				carry(a, b)
				for _, r := range []*rig{a, b} {
					if err := r.e.Empty(false); err != nil {
						t.Errorf("node %d: %v", r.e.cfg.Owner, err)
					}
				}
			})
		}
	}
}

// Nodes that die: what becomes of an actor and its calls.
func TestActorsNodeDies(t *testing.T) {
	for _, tc := range []struct {
		words, m, want string
		again          bool
	}{
		{"", "m retries=1", "!ACTOR_DIED NODE_DIED", false},
		{"restarts=1", "m", "!ACTOR_UNAVAILABLE ", false},
		{"restarts=1", "m retries=1", "v", true},
	} {
		t.Run("the host/"+tc.words+"/"+tc.m, func(t *testing.T) {
			a, b, d, c, hd := trio(t)
			h := c.actor(tc.words + " node=2 soft")
			live(h, b, d)
			g, out, x := visitor(c, h, "f node=3", d, a, b)
			mine, theirs := h.call(tc.m), g.call(tc.m)
			hd.settle()
			gone(b, a, d)
			hd.rigs = []*rig{a, d}
			hd.settle()
			if tc.again {
				w := d.born(h.id)
				for range 2 {
					for d.taken[w] < len(d.execs[w]) {
						d.answer(w, OutcomeValues, "v")
					}
					hd.settle()
				}
			}
			c.wantValues([]ids.ObjectID{mine}, tc.want)
			g.wantValues([]ids.ObjectID{theirs}, tc.want)
			g.release(theirs)
			d.end(g.sid, x, OutcomeValues, "v")
			d.do(func(e *Engine) { e.Release(g.sid, h.id.Handle(), 1) })
			c.release(mine, out)
			h.drop()
			hd.settle()
			if tc.words != "" {
				d.crash(d.home(h.id))
				hd.settle()
			}
			allEmpty(t, a, d)
		})
	}
	t.Run("the manager", func(t *testing.T) {
		a, b, d, c, _ := trio(t)
		h := c.actor("node=2 restarts=5")
		w := live(h, b, d)
		making := c.actor("node=2")
		quieten(a, b, d)
		h.call("m")
		quieten(a, b, d)
		b.take(w)
		b.told()
		gone(a, b, d)
		b.want("kill", "kill "+itoa(w), "kill "+itoa(b.home(making.id)))
		b.do(func(e *Engine) { e.JobEnded(c.job) })
		for _, w := range sortedKeys(b.e.pool.all) {
			b.crash(w)
		}
		if err := b.e.Empty(false); err != nil {
			t.Error(err)
		}
	})
	t.Run("a caller", func(t *testing.T) {
		a, b, d, c, hd := trio(t)
		h := c.actor("node=2")
		w := live(h, b, d)
		g, out, _ := visitor(c, h, "f node=3", d, a, b)
		list := []ids.ObjectID{g.call("m"), g.call("m"), g.call("m", c.put("a"))}
		hd.settle()
		x := b.take(w)
		b.told()
		gone(d, a, b)
		b.want("cancel", "cancel "+itoa(w)+" "+fmt.Sprint(list[0].Unique().Counter()))
		mine := h.call("m")
		quieten(a, b)
		b.end(w, x, OutcomeValues, "v")
		b.wantCalls(w, mine) // the dead caller's others are not run
		quieten(a, b)
		c.wantValues([]ids.ObjectID{mine, out}, "v", "!WORKER_CRASHED")
	})
}
