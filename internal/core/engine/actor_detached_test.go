package engine

import (
	"testing"

	"gray/internal/core/actor"
	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

var detachedJob = ids.JobFromInt(77)

// registered answers for the head.
func (h *handle) registered(created bool, job ids.Job) {
	h.t.Helper()
	row := actor.Row{ID: h.id}
	if a := h.e.actors[h.id.Unique()]; a != nil {
		row = a.row
	}
	row.Job = job
	h.do(func(e *Engine) { e.ActorRegistered(h.id.Unique(), created, &row, "", "") })
}

func TestRegistration(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer func(h *handle)
		told   string
		want   string // of a call that was made before
	}{
		{"created", func(h *handle) { h.registered(true, h.job) }, "actor-reply 7 true a", ""},
		{"exists", func(h *handle) { h.registered(false, h.job) }, "actor-reply 7 false a", "!ACTOR_DIED KILLED"},
		{"taken", func(h *handle) {
			h.do(func(e *Engine) {
				e.ActorRegistered(h.id.Unique(), false, &actor.Row{}, fault.NameTaken, "The name a is already taken")
			})
		}, "fail 1/1/7 NAME_TAKEN", "!ACTOR_DIED KILLED"},
		{"killed meanwhile", func(h *handle) {
			h.do(func(e *Engine) { e.KillActor(h.id, true) })
			h.registered(true, h.job)
		}, "actor-reply 7 true a", "!ACTOR_DIED KILLED"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, c := solo(t, 1)
			arg := c.put("a")
			h := c.create("", &ActorCreation{Name: "a", Namespace: "n", Chan: 1, Req: 7, Submission: Submission{Deps: []ids.ObjectID{arg}}})
			call := h.call("m")
			r.want("register execute setup", "register a exists=false stored=false")
			if len(r.rows) > 0 || len(r.e.Actors()) > 0 {
				t.Error("the head was told of it otherwise")
			}
			tc.answer(h)
			r.want("actor-reply fail", tc.told)
			c.wantValues([]ids.ObjectID{call}, tc.want)
			tc.answer(h) // a second answer is dropped
			if tc.name == "created" {
				w := r.born(h.id)
				r.wantCalls(w, call)
				r.wantState(h.id, actor.Alive, 0, "")
				if row := r.row(h.id); row.Name != "a" || row.Namespace != "n" {
					t.Errorf("the head was told %+v", row)
				}
				h.drop()
				r.crash(w)
			} else {
				h.drop()
			}
			r.clean(c, arg, call)
		})
	}
}

// The creator ends before its actor's name is registered.
func TestCreatorEndsBeforeTheAnswer(t *testing.T) {
	for _, detached := range []bool{false, true} {
		r, c := solo(t, 1)
		h := c.create("", &ActorCreation{Name: "a", Spec: ActorSpec{Detached: detached}})
		r.do(func(e *Engine) { e.SessionGone(c.sid) })
		h.registered(true, map[bool]ids.Job{false: c.job, true: detachedJob}[detached])
		if detached {
			live(h)
			r.wantState(h.id, actor.Alive, 0, "")
		} else {
			r.wantState(h.id, actor.Dead, 0, actor.OwnerDied)
			if err := r.e.Empty(false); err != nil {
				t.Error(err)
			}
		}
	}
}

// A detached actor outlives its handles and its job, until it is killed.
func TestDetachedActor(t *testing.T) {
	r, c := solo(t, 1)
	arg := c.put("a")
	h := c.create("restarts=1", &ActorCreation{Name: "d", Spec: ActorSpec{Detached: true}, Submission: Submission{Deps: []ids.ObjectID{arg}}})
	r.want("register", "register d exists=false stored=true")
	h.registered(true, detachedJob)
	w := live(h)
	call := h.call("m")
	h.drop()
	c.release(arg)
	r.wantCalls(w, call)
	c.release(call)
	r.do(func(e *Engine) { e.SessionGone(c.sid) })
	r.crash(w) // restarts
	w = live(h)
	r.wantState(h.id, actor.Alive, 1, "")
	d := r.driver(2)
	g := h.by(d)
	g.weak = true
	call = g.call("m")
	r.wantCalls(w, call)
	d.wantValues([]ids.ObjectID{call}, "v")
	r.do(func(e *Engine) { e.KillActor(h.id, true) })
	r.crash(w)
	r.wantState(h.id, actor.Dead, 1, actor.Killed)
	r.do(func(e *Engine) { e.SessionGone(d.sid) })
	r.do(func(e *Engine) { e.JobEnded(detachedJob) })
	for _, w := range sortedKeys(r.e.pool.all) {
		r.crash(w)
	}
	if err := r.e.Empty(false); err != nil {
		t.Error(err)
	}
}

// adopted has node 1 create a detached actor on node 2 and die; what node 3 needs to take it over is returned.
func adopted(t *testing.T, words string, until func(a, b *rig, h *handle)) (b, d *rig, h *handle, row actor.Row, st *StoredActor) {
	t.Helper()
	a, b, d, c, _ := trio(t)
	arg := c.put("a")
	h = c.create(words, &ActorCreation{Name: "d", Spec: ActorSpec{Detached: true}, Submission: Submission{Args: []byte("args"), Contained: []ids.ObjectID{arg}}})
	h.registered(true, detachedJob)
	until(a, b, h)
	row = a.row(h.id)
	st = &StoredActor{Template: []byte("actor " + words), Args: []byte("args")}
	gone(a, b, d)
	return b, d, h, row, st
}

func (r *rig) adopt(row actor.Row, st *StoredActor) {
	r.t.Helper()
	r.do(func(e *Engine) { e.AdoptActor(&row, st, r.spec(row.Job, string(st.Template)), r.nodeOf(row.Node)) })
}

func TestAdoption(t *testing.T) {
	lives := func(a, b *rig, h *handle) { live(h, b) }
	t.Run("its host lives", func(t *testing.T) {
		b, d, h, row, st := adopted(t, "node=2 restarts=1", lives)
		w := b.home(h.id)
		d.adopt(row, st)
		d.wantState(h.id, actor.Alive, 0, "")
		if d.row(h.id).Manager != d.e.cfg.Node || d.row(h.id).Node != b.e.cfg.Node {
			t.Errorf("the head was told %+v", d.row(h.id))
		}
		carry(b, d)
		b.crash(w)
		quieten(b, d)
		d.wantState(h.id, actor.Restarting, 1, "")
		w = b.born(h.id)
		carry(b, d)
		d.wantState(h.id, actor.Alive, 1, "")
		d.do(func(e *Engine) { e.KillActor(h.id, true) })
		carry(b, d)
		b.crash(w)
		carry(b, d)
		d.wantState(h.id, actor.Dead, 1, actor.Killed)
		endJobs(t, []ids.Job{h.job, detachedJob}, b, d)
	})
	t.Run("its host died meanwhile", func(t *testing.T) {
		b, d, h, row, st := adopted(t, "node=2 restarts=1", lives)
		b.crash(b.home(h.id))
		d.adopt(row, st)
		quieten(b, d)
		d.wantState(h.id, actor.Restarting, 1, "")
		b.born(h.id)
		carry(b, d)
		d.wantState(h.id, actor.Alive, 1, "")
	})
	t.Run("its host is dead too", func(t *testing.T) {
		b, d, h, row, st := adopted(t, "node=2 soft", lives)
		gone(b, d)
		d.adopt(row, st)
		d.wantState(h.id, actor.Dead, 0, actor.NodeDied)
		endJobs(t, []ids.Job{h.job, detachedJob}, d)
	})
	t.Run("by its host", func(t *testing.T) {
		b, d, h, row, st := adopted(t, "node=2 restarts=1", lives)
		b.adopt(row, st)
		b.wantState(h.id, actor.Alive, 0, "")
		b.crash(b.home(h.id))
		b.workers()
		b.born(h.id)
		b.wantState(h.id, actor.Alive, 1, "")
		_ = d
	})
	for _, where := range []string{"the host", "another node"} {
		t.Run("while it is made, by "+where, func(t *testing.T) {
			b, d, h, row, st := adopted(t, "node=2", func(a, b *rig, h *handle) { quieten(a, b) })
			old := b.home(h.id)
			by := d
			if where == "the host" {
				by = b
			}
			by.adopt(row, st)
			quieten(b, d)
			if b.home(h.id) != old {
				t.Fatal("it is made anew while the old process may still run")
			}
			b.crash(old)
			quieten(b, d)
			w := b.born(h.id)
			quieten(b, d)
			by.wantState(h.id, actor.Alive, 0, "")
			by.do(func(e *Engine) { e.KillActor(h.id, true) })
			carry(b, d)
			b.crash(w)
			carry(b, d)
			by.wantState(h.id, actor.Dead, 0, actor.Killed)
			endJobs(t, []ids.Job{h.job, detachedJob}, b, d)
		})
		t.Run("its manager had not heard that it lives, by "+where, func(t *testing.T) {
			b, d, h, row, st := adopted(t, "node=2", func(a, b *rig, h *handle) {
				quieten(a, b)
				b.born(h.id)
			})
			old := b.home(h.id)
			if _, on := b.watched[h.id]; !on {
				t.Fatal("the host does not ask the head")
			}
			b.told()
			if where == "the host" {
				b.adopt(row, st)
			} else {
				d.adopt(row, st)
				b.changed(d.row(h.id))
				quieten(b, d)
			}
			b.want("kill", "kill "+itoa(old))
			b.crash(old)
			quieten(b, d)
			b.born(h.id)
			quieten(b, d)
		})
	}
}

// A host whose manager died goes on if the head says that its incarnation lives.
func TestHostWithoutManagerGoesOn(t *testing.T) {
	b, _, h, row, _ := adopted(t, "node=2 restarts=1", func(a, b *rig, h *handle) { live(h, b) })
	b.told()
	b.changed(row)
	b.want("kill")
	row.State, row.Incarnation = actor.Restarting, 1
	b.changed(row)
	b.want("kill", "kill "+itoa(b.home(h.id)))
}

// The constructor's refs are claimed anew from who lives.
func TestAdopterClaimsRefs(t *testing.T) {
	b, d, h, row, st := adopted(t, "node=2 restarts=1", func(a, b *rig, h *handle) { live(h, b) })
	c := b.driver(5)
	ref := c.put("kept")
	st.Contained = []ids.ObjectID{ref}
	d.adopt(row, st)
	carry(b, d)
	c.release(ref)
	if b.e.find(ref) == 0 {
		t.Fatal("the ref was freed, which a new incarnation needs")
	}
	d.do(func(e *Engine) { e.KillActor(h.id, true) })
	carry(b, d)
	b.crash(b.home(h.id))
	carry(b, d)
	if b.e.find(ref) != 0 {
		t.Error("the ref is kept although the actor is dead")
	}
}

// endJobs ends jobs and processes, and looks whether anything is left.
func endJobs(t *testing.T, jobs []ids.Job, rigs ...*rig) {
	t.Helper()
	for _, r := range rigs {
		for _, j := range jobs {
			r.do(func(e *Engine) { e.JobEnded(j) })
		}
	}
	carry(rigs...)
	for _, r := range rigs {
		for _, w := range sortedKeys(r.e.pool.all) {
			r.crash(w)
		}
	}
	carry(rigs...)
	for _, r := range rigs {
		if err := r.e.Empty(false); err != nil {
			t.Errorf("node %d: %v", r.e.cfg.Owner, err)
		}
	}
}
