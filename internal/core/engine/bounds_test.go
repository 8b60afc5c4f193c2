package engine

import (
	"fmt"
	"testing"

	"gray/internal/core/ids"
)

// A daemon lives longer than its jobs: of what these had, it keeps nothing.
func TestShapesGoWithTheirJobs(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 1, more: map[string]int64{"x": 1000 * 10000}})
	stays := r.driver(1000)
	r.workers()
	waits := stays.call("f x=1000 cpu=900") // which this node never has
	for j := range uint32(50) {
		c := r.driver(j + 1)
		c.call(fmt.Sprintf("f cpu=0 x=%d", j+1))
		c.call(fmt.Sprintf("f cpu=0 x=%d", 500+j))
		r.do(func(e *Engine) { e.SessionGone(c.sid) })
		for _, w := range r.e.pool.sorted() {
			if r.e.pool.all[w].leaving || r.e.pool.all[w].job == c.job {
				r.crash(w)
			}
		}
	}
	live := 0
	for _, sh := range r.e.shapes {
		if sh != nil {
			live++
		}
	}
	if live > 3 || r.e.shapeTable.Len() != live || len(r.e.shapeNo) != live {
		t.Errorf("%d shapes are left of 100, %d interned, %d numbered", live, r.e.shapeTable.Len(), len(r.e.shapeNo))
	}
	if why := r.e.Why([]ids.ObjectID{waits})[0]; why.State != "PENDING_NODE_ASSIGNMENT" {
		t.Errorf("what a living job waits for is %s", why.State)
	}
}

// Slots that come for a shape which is forgotten go back.
func TestSlotsOfForgottenShapesGoBack(t *testing.T) {
	a, _, c := pair(t)
	c.call("f cpu=77")
	no := uint32(len(a.e.shapes) - 1)
	a.do(func(e *Engine) { e.SessionGone(c.sid) })
	if a.e.shapes[no] != nil {
		t.Fatal("the shape is not forgotten")
	}
	var peer NodeNo
	for n := range a.e.peers {
		peer = n
	}
	a.told()
	a.do(func(e *Engine) { e.Receive(peer, &SlotGrant{Shape: no, N: 2}) })
	a.want("peer", fmt.Sprintf("peer %d SlotReturn", peer))
	if back := a.wires[peer][len(a.wires[peer])-1].(*SlotReturn); back.Shape != no || back.N != 2 {
		t.Errorf("what goes back is %+v", back)
	}
}

// An actor that makes actors for ever remembers those that live.
func TestActorForgetsTheActorsThatItMade(t *testing.T) {
	r, c := solo(t, 4)
	h := c.actor("")
	w := live(h)
	in := r.asClient(w)
	stays := in.actor("")
	live(stays)
	for range 300 {
		child := in.actor("")
		live(child)
		child.drop()
		r.crash(r.home(child.id))
		r.workers()
	}
	made := r.e.actors[h.id.Unique()].host.made
	if len(made) > 64 || cap(made) > 64 {
		t.Errorf("it remembers %d actors, with room for %d", len(made), cap(made))
	}
	r.crash(w)
	r.crash(r.home(stays.id))
	if st := r.row(stays.id).State; st != "DEAD" {
		t.Errorf("the first actor that it made is %s when it is dead", st)
	}
}
