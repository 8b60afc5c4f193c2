package engine

import (
	"testing"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
)

// A call that is on its way to the host when the actor's process dies comes back, and goes on as others do.
func TestCallThatComesTooLate(t *testing.T) {
	for _, tc := range []struct {
		name, words, call string
		state             actor.State
		want              []string // of a call that the process had, and of one that was on its way
	}{
		{"no restart", "", "m retries=-1", actor.Dead, []string{"!ACTOR_DIED WORKER_DIED", "!ACTOR_DIED WORKER_DIED"}},
		{"restart, no retry", "restarts=1", "m", actor.Alive, []string{"!ACTOR_UNAVAILABLE ", "!ACTOR_UNAVAILABLE "}},
		{"restart and retry", "restarts=1", "m retries=1", actor.Alive, []string{"v", "v"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, b, c := pair(t)
			h := c.actor(tc.words)
			w := live(h, b)
			list := []ids.ObjectID{h.call(tc.call)}
			carry(a, b)
			b.take(w)
			list = append(list, h.call(tc.call)) // not delivered
			b.crash(w)
			carry(a, b)
			quieten(a, b)
			if tc.state == actor.Alive {
				w = live(h, b)
				for b.taken[w] < len(b.execs[w]) {
					b.answer(w, OutcomeValues, "v")
					carry(a, b)
				}
			}
			a.wantState(h.id, tc.state, a.row(h.id).Incarnation, a.row(h.id).Death.Cause)
			c.wantValues(list, tc.want...)
			h.drop()
			carry(a, b)
			if tc.state == actor.Alive {
				b.crash(w)
			}
			c.release(list...)
			quieten(a, b)
			allEmpty(t, a, b)
		})
	}
}

// An actor that is killed before it has a process leaves nothing at the node that was to run it.
func TestKillBeforeTheProcess(t *testing.T) {
	a, b, c := pair(t)
	h := c.actor("restarts=3")
	call := h.call("m retries=-1")
	carry(a, b)
	if x := b.e.actors[h.id.Unique()]; x == nil || x.host == nil || x.host.w != nil {
		t.Fatal("the creation does not wait for a process")
	}
	a.do(func(e *Engine) { e.KillActor(h.id, true) })
	carry(a, b)
	a.wantState(h.id, actor.Dead, 0, actor.Killed)
	if b.e.actors[h.id.Unique()] != nil {
		t.Error("the node that was to run it still knows it")
	}
	c.wantValues([]ids.ObjectID{call}, "!ACTOR_DIED KILLED")
	h.drop()
	c.release(call)
	quieten(a, b)
	allEmpty(t, a, b)
}

// A process dies with the last calls that other nodes had sent it: the node forgets the actor, and does not watch it.
func TestHostThatLosesItsCallersWithTheProcess(t *testing.T) {
	for _, calls := range []int{0, 1, 2} {
		a, b, c := pair(t)
		h := c.actor("restarts=1")
		w := live(h, b)
		var list []ids.ObjectID
		for range calls {
			list = append(list, h.call("m"))
		}
		carry(a, b)
		b.crash(w)
		_, watched := b.watched[h.id]
		if known := b.e.actors[h.id.Unique()] != nil; known || watched {
			t.Errorf("%d calls: the host knows the actor: %v, watches it: %v", calls, known, watched)
		}
		w = live(h, b)
		h.drop()
		carry(a, b)
		b.crash(w)
		c.release(list...)
		quieten(a, b)
		allEmpty(t, a, b)
	}
}
