package engine

import (
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
		want := "v"
		if early {
			b.until(1, func() bool { return a.state(h.id) == actor.Restarting })
			hd.news()
			want = "!ACTOR_UNAVAILABLE "
		}
		quieten(a, b, d)
		w = b.born(h.id)
		for b.taken[w] < len(b.execs[w]) {
			b.answer(w, OutcomeValues, "v")
		}
		hd.settle()
		g.wantValues(list, "v", want, "v")
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
