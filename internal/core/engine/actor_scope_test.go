package engine

import (
	"testing"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
)

// The last counted handle's end is the actor's, but not before what was called.
func TestLastHandle(t *testing.T) {
	r, c := solo(t, 2)
	h := c.actor("")
	w := live(h)
	late := c.call("f")
	list := []ids.ObjectID{h.call("m"), h.call("m", late), h.call("m")}
	h.drop()
	r.want("exit kill")
	r.wantCalls(w, list[0])
	r.want("exit kill")
	r.run(r.e.tasks.at(r.e.objs.at(r.e.find(late)).task).worker, "v")
	r.wantCalls(w, list[1], list[2])
	r.want("exit kill", "exit "+itoa(w))
	r.crash(w)
	r.wantState(h.id, actor.Dead, 0, actor.Unreferred)
	r.clean(c, append(list, late)...)
}

func TestHandleElsewhereKeepsIt(t *testing.T) {
	for _, tc := range []struct {
		name  string
		keep  func(c *client, h *handle) ids.ObjectID
		keeps bool
	}{
		{"in an object", func(c *client, h *handle) ids.ObjectID { return c.put("o", h.id.Handle()) }, true},
		{"in a task", func(c *client, h *handle) ids.ObjectID {
			return c.submit("f cpu=9", 1, nil, []ids.ObjectID{h.id.Handle()}).Object(c.job, 1)
		}, true},
		{"in a call of another actor", func(c *client, h *handle) ids.ObjectID {
			b := c.actor("cpu=9")
			return b.send("m", &ActorSubmission{Submission: Submission{Contained: []ids.ObjectID{h.id.Handle()}, Returns: 1}})
		}, true},
		{"in another actor's constructor", func(c *client, h *handle) ids.ObjectID {
			b := c.create("cpu=9", &ActorCreation{Submission: Submission{Contained: []ids.ObjectID{h.id.Handle()}}})
			return b.id.Handle()
		}, true},
		{"a call of its own", func(_ *client, h *handle) ids.ObjectID { return h.call("m") }, true},
		{"a weak call", func(_ *client, h *handle) ids.ObjectID { h.weak = true; return h.call("m") }, false},
		{"nothing", func(c *client, _ *handle) ids.ObjectID { return c.put("o") }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, c := solo(t, 1)
			h := c.actor("")
			w := live(h)
			kept := tc.keep(c, h)
			h.drop()
			r.do(func(*Engine) {})
			if ends := r.e.actors[h.id.Unique()].host.leaving; ends == tc.keeps {
				t.Errorf("it ends: %v", ends)
			}
			for r.taken[w] < len(r.execs[w]) {
				r.answer(w, OutcomeValues, "v")
			}
			c.release(kept)
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

func TestActorThatNobodyWantsIsNotMade(t *testing.T) {
	for _, words := range []string{"cpu=9", "", "restarts=-1"} {
		r, c := solo(t, 1)
		h := c.actor(words)
		h.drop()
		if a := r.e.actors[h.id.Unique()]; a != nil {
			r.crash(r.home(h.id))
		}
		r.wantState(h.id, actor.Dead, 0, actor.Unreferred)
		if !r.row(h.id).Death.Never {
			t.Errorf("%q: it is not said that it never ran", words)
		}
		r.empty()
	}
}

// A call that comes when its actor was told to leave is not sent any more.
func TestCallAfterTheLastHandle(t *testing.T) {
	r, c := solo(t, 1)
	h := c.actor("restarts=1")
	w := live(h)
	h.drop()
	r.want("exit", "exit "+itoa(w))
	h.weak = true
	call := h.call("m retries=-1")
	if len(r.waiting(w)) != 0 {
		t.Error("a call was sent to an actor that was told to leave")
	}
	r.crash(w)
	c.wantValues([]ids.ObjectID{call}, "!ACTOR_DIED OUT_OF_SCOPE")
	c.release(call)
	r.do(func(e *Engine) { e.SessionGone(c.sid) })
	for _, w := range sortedKeys(r.e.pool.all) {
		r.crash(w)
	}
	if err := r.e.Empty(false); err != nil {
		t.Fatal(err)
	}
}

func TestJobEndsWithItsActors(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(r *rig, c *client)
	}{
		{"alive", func(_ *rig, c *client) { live(c.actor("restarts=3")) }},
		{"with a running call", func(r *rig, c *client) {
			h := c.actor("restarts=3")
			w := live(h)
			h.call("m retries=-1")
			h.call("m retries=-1")
			r.take(w)
		}},
		{"in the constructor", func(_ *rig, c *client) { c.actor("restarts=3").call("m") }},
		{"waits for a slot", func(_ *rig, c *client) { c.actor("cpu=9 restarts=3").call("m") }},
		{"waits for an argument", func(_ *rig, c *client) { c.actor("restarts=3", c.call("f cpu=9")).call("m", c.call("f cpu=9")) }},
		{"restarts", func(r *rig, c *client) {
			h := c.actor("restarts=3")
			w := live(h)
			h.call("m retries=-1")
			r.crash(w)
		}},
		{"waits for its name", func(_ *rig, c *client) { c.create("", &ActorCreation{Name: "a"}).call("m") }},
	} {
		for _, over := range []bool{false, true} { // the driver's end, or news of it
			t.Run(tc.name, func(t *testing.T) {
				r, c := solo(t, 1)
				tc.make(r, c)
				if over {
					r.do(func(e *Engine) { e.JobEnded(c.job) })
				}
				r.do(func(e *Engine) { e.SessionGone(c.sid) })
				for _, w := range sortedKeys(r.e.pool.all) {
					r.crash(w)
				}
				for _, u := range sortedKeys(r.e.actors) {
					row := r.e.actors[u].row
					r.do(func(e *Engine) { e.ActorRegistered(u, true, &row, "", "") })
				}
				if err := r.e.Empty(false); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// A session's connection ends before its process, and its call between the two.
func TestCallEndsBetweenConnectionAndProcess(t *testing.T) {
	r, c := solo(t, 2)
	h := c.actor("")
	w := live(h)
	outer := c.call("f")
	w2 := r.e.tasks.at(r.e.objs.at(r.e.find(outer)).task).worker
	r.take(w2)
	g := h.by(r.asClient(w2))
	g.call("m")
	h.call("m")
	r.do(func(e *Engine) { e.SessionEnded(w2) })
	for r.taken[w] < len(r.execs[w]) {
		r.answer(w, OutcomeValues, "v")
	}
	r.crash(w2)
	if n := len(r.e.actors[h.id.Unique()].queues); n != 1 {
		t.Errorf("the actor has the queues of %d callers, of which one is left", n)
	}
}

// Calls of callers that are gone are resolved with the others when the process dies.
func TestCallersThatAreGone(t *testing.T) {
	r, c := solo(t, 4)
	h := c.actor("max=9 async restarts=1")
	w := live(h)
	var callers []SessionID
	for range 3 {
		w2 := r.e.tasks.at(r.e.objs.at(r.e.find(c.call("f"))).task).worker
		r.take(w2)
		h.by(r.asClient(w2)).call("m")
		callers = append(callers, w2)
	}
	mine := h.call("m")
	for _, w2 := range callers {
		r.crash(w2)
	}
	r.crash(w)
	c.wantValues([]ids.ObjectID{mine}, "!ACTOR_UNAVAILABLE ")
	if n := len(r.e.actors[h.id.Unique()].queues); n != 1 {
		t.Errorf("the actor has the queues of %d callers, of which one is left", n)
	}
}

// What an actor has created ends with its process, but for detached ones.
func TestChildrenEndWithTheirActor(t *testing.T) {
	r, c := solo(t, 2)
	h := c.actor("restarts=1")
	w := live(h)
	in := r.asClient(w)
	child := in.actor("restarts=5")
	live(child)
	far := in.create("", &ActorCreation{Name: "d", Spec: ActorSpec{Detached: true}})
	row := r.e.actors[far.id.Unique()].row
	r.do(func(e *Engine) { e.ActorRegistered(far.id.Unique(), true, &row, "", "") })
	live(far)
	wc := r.home(child.id)
	call := child.by(c).call("m retries=-1")
	r.take(wc)
	r.told()
	r.crash(w)
	r.want("kill", "kill "+itoa(wc))
	r.crash(wc)
	r.wantState(child.id, actor.Dead, 0, actor.OwnerDied)
	r.wantState(far.id, actor.Alive, 0, "")
	c.wantValues([]ids.ObjectID{call}, "!ACTOR_DIED OWNER_DIED")
}
