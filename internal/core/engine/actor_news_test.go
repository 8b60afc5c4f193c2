package engine

import (
	"testing"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
)

// stranger is a rig whose driver has a weak handle of an actor that others manage, and two nodes where it may live.
func stranger(t *testing.T) (*rig, *handle) {
	t.Helper()
	a := newRig(t, settings{owner: 1, cpus: 1})
	b, d := newRig(t, settings{owner: 2, cpus: 1}), newRig(t, settings{owner: 3, cpus: 1})
	meet(a, b)
	meet(a, d)
	c := a.driver(1)
	return a, &handle{client: c, id: ids.MakeUnique(9, 9).Actor(c.job), weak: true}
}

// runs lists the tasks and calls among messages.
func runs(list []Msg) (us []ids.Unique) {
	for _, m := range list {
		if r, ok := m.(*TaskRun); ok {
			us = append(us, r.Unique)
		}
	}
	return us
}

// News of an actor may come late, twice, or out of order.
func TestNews(t *testing.T) {
	const b, d, far = byte(2), byte(3), byte(7)
	type news struct {
		state actor.State
		inc   uint32
		node  byte
	}
	for _, tc := range []struct {
		name string
		news []news
		to   []NodeNo // where the call is sent, in the end
		want string
	}{
		{"unknown", nil, nil, ""},
		{"is being made", []news{{actor.Pending, 0, 0}}, nil, ""},
		{"alive", []news{{actor.Alive, 0, b}}, []NodeNo{2}, ""},
		{"alive twice", []news{{actor.Alive, 0, b}, {actor.Alive, 0, b}}, []NodeNo{2}, ""},
		{"on a node that is not known", []news{{actor.Alive, 0, far}}, nil, ""},
		{"on a node that is known then", []news{{actor.Alive, 0, far}, {actor.Alive, 0, b}}, []NodeNo{2}, ""},
		{"restarts", []news{{actor.Restarting, 1, 0}}, nil, "!ACTOR_UNAVAILABLE "},
		{"the old incarnation's after the new one's", []news{{actor.Alive, 1, d}, {actor.Alive, 0, b}}, []NodeNo{3}, ""},
		{"restarting after it has", []news{{actor.Alive, 1, d}, {actor.Restarting, 1, 0}}, []NodeNo{3}, ""},
		{"being made after it is alive", []news{{actor.Alive, 0, d}, {actor.Pending, 0, 0}}, []NodeNo{3}, ""},
		{"dead", []news{{actor.Dead, 0, 0}}, nil, "!ACTOR_DIED "},
		{"alive after its death", []news{{actor.Dead, 0, 0}, {actor.Alive, 0, b}}, nil, "!ACTOR_DIED "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, h := stranger(t)
			call := func(early bool) (ids.ObjectID, []NodeNo) {
				for no := range a.wires {
					a.wires[no] = nil
				}
				var id ids.ObjectID
				if early {
					id = h.call("m")
				}
				for _, n := range tc.news {
					a.changed(actor.Row{ID: h.id, State: n.state, Incarnation: n.inc, Node: ids.NodeID{n.node}})
				}
				if !early {
					id = h.call("m")
					if len(tc.news) > 0 && tc.news[0].state == actor.Dead { // forgotten, so the head is asked again
						a.changed(actor.Row{ID: h.id, State: actor.Dead})
					}
				}
				var to []NodeNo
				for _, no := range sortedKeys(a.wires) {
					for range runs(a.wires[no]) {
						to = append(to, no)
					}
				}
				return id, to
			}
			for _, early := range []bool{true, false} {
				id, to := call(early)
				if last := len(tc.news) - 1; early && len(to) > 0 && last > 0 && tc.news[0].inc != tc.news[last].inc {
					continue
				}
				if len(to) != len(tc.to) || len(to) > 0 && to[0] != tc.to[0] {
					t.Errorf("sent to %v, want %v", to, tc.to)
				}
				h.wantValues([]ids.ObjectID{id}, tc.want)
			}
		})
	}
}

// News that an incarnation lives which this daemon knows to be lost are old.
func TestNewsOfALostIncarnation(t *testing.T) {
	for _, how := range []string{"its node is dead", "its node says so"} {
		a, h := stranger(t)
		alive := actor.Row{ID: h.id, State: actor.Alive, Node: ids.NodeID{2}}
		list := []ids.ObjectID{h.call("m retries=1"), h.call("m")}
		a.changed(alive)
		if n := len(runs(a.wires[2])); n != 2 {
			t.Fatalf("%d calls were sent", n)
		}
		if how == "its node is dead" {
			a.do(func(e *Engine) { e.PeerGone(2, "silent") })
		} else {
			a.do(func(e *Engine) { e.Receive(2, &TaskDone{Unique: list[0].Unique(), Lost: "ACTOR_DIED"}) })
		}
		a.told()
		a.changed(alive)
		a.want("peer")
		late := h.call("m retries=1")
		a.changed(actor.Row{ID: h.id, State: actor.Restarting, Incarnation: 1})
		a.changed(actor.Row{ID: h.id, State: actor.Alive, Incarnation: 1, Node: ids.NodeID{3}})
		if how == "its node says so" { // the other's end is still to come: what was called after it waits
			if sent := runs(a.wires[3]); len(sent) != 1 {
				t.Errorf("sent %v again", sent)
			}
			a.do(func(e *Engine) { e.Receive(2, &TaskDone{Unique: list[1].Unique(), Lost: "ACTOR_DIED"}) })
		}
		if sent := runs(a.wires[3]); len(sent) != 2 || sent[0] != list[0].Unique() || sent[1] != late.Unique() {
			t.Errorf("%s: sent %v again", how, sent)
		}
		h.wantValues(list, "", "!ACTOR_UNAVAILABLE ")
	}
}

// The manager hears that a host's process is gone, and makes the next incarnation, before the calls come back.
func TestCallsThatComeBackLate(t *testing.T) {
	for _, local := range []bool{true, false} { // where the next incarnation is
		a, b := newRig(t, settings{owner: 1, cpus: 1}), newRig(t, settings{owner: 2, cpus: 1, more: map[string]int64{"x": 10000}})
		meet(a, b)
		c := a.driver(1)
		a.workers()
		busy := c.actor("hold") // so that the actor goes to the other
		live(busy, b)
		h := c.actor("restarts=1")
		w := live(h, b)
		list := []ids.ObjectID{h.call("m retries=1"), h.call("m retries=1"), h.call("m retries=1")}
		quieten(a, b)
		if local {
			a.crash(a.home(busy.id))
			busy.drop()
			b.do(func(e *Engine) { e.Fence(true) })
		}
		carry(a, b)
		b.take(w)
		b.crash(w)
		b.until(1, func() bool { return a.state(h.id) == actor.Restarting })
		a.see(b)
		late := h.call("m retries=1")
		if local {
			a.pass(patience * 2)
			a.workers()
			a.born(h.id)
			w = a.home(h.id)
		}
		quieten(a, b)
		r := a
		if !local {
			r = b
			w = b.born(h.id)
			quieten(a, b)
		}
		for range 5 {
			for r.taken[w] < len(r.execs[w]) {
				r.answer(w, OutcomeValues, "v")
			}
			quieten(a, b)
		}
		c.wantValues(append(list, late), "v", "v", "v", "v")
	}
}
