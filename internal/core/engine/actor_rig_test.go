package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gray/internal/core/actor"
	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

// handle is a client's handle of an actor.
type handle struct {
	*client
	id   ids.ActorID
	weak bool
}

// actor creates an actor from words: "actor cpu=1 hold x=1 max=3 async io=2 restarts=1 node=2"; io and io2 are groups.
func (c *client) actor(words string, deps ...ids.ObjectID) *handle {
	c.t.Helper()
	return c.create(words, &ActorCreation{Submission: Submission{Deps: deps}})
}

func (c *client) create(words string, m *ActorCreation) *handle {
	c.t.Helper()
	for _, f := range strings.Fields(words) {
		if n, ok := strings.CutPrefix(f, "restarts="); ok {
			if _, err := fmt.Sscan(n, &m.Spec.MaxRestarts); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	m.Template, m.Unique, m.Bytes, m.Class = c.template("actor "+words), c.id().Unique(), 100, "A"
	c.do(func(e *Engine) { e.CreateActor(c.sid, m) })
	return &handle{client: c, id: m.Unique.Actor(c.job)}
}

// template is the client's number of a function, class or method given by words.
func (c *client) template(words string) uint32 {
	c.t.Helper()
	no, ok := c.fns[words]
	if !ok {
		no = uint32(len(c.fns) + 1)
		c.fns[words] = no
		c.do(func(e *Engine) { e.RegisterTemplate(c.sid, no, c.spec(c.job, words)) })
	}
	return no
}

// call calls a method given by words: "retries=1 in=io unordered"; it returns output 1.
func (h *handle) call(words string, deps ...ids.ObjectID) ids.ObjectID {
	h.t.Helper()
	return h.send(words, &ActorSubmission{Submission: Submission{Deps: deps, Returns: 1}})
}

func (h *handle) send(words string, m *ActorSubmission) ids.ObjectID {
	h.t.Helper()
	m.Template, m.Unique, m.Actor, m.Weak = h.template("method "+words), h.client.id().Unique(), h.id, h.weak
	m.Bytes = 100
	h.do(func(e *Engine) { e.CallActor(h.sid, m) })
	return h.id.Task(m.Unique).Object(1)
}

// by is another client's handle of the same actor.
func (h *handle) by(c *client) *handle { return &handle{client: c, id: h.id} }

// drop releases the handle.
func (h *handle) drop() {
	h.t.Helper()
	h.release(h.id.Handle())
}

// asClient is a worker as a client, on its channel 0.
func (r *rig) asClient(w SessionID) *client {
	s := r.e.sessions[w]
	return &client{rig: r, sid: w, job: s.job, next: s.blocks[len(s.blocks)-1].first, ch: Chan{w, 0}, fns: map[string]uint32{}}
}

// home is the worker that has an actor.
func (r *rig) home(id ids.ActorID) SessionID {
	r.t.Helper()
	a := r.e.actors[id.Unique()]
	if a == nil || a.host == nil || a.host.w == nil {
		r.t.Fatalf("actor %d has no process\n%s", id.Unique().Counter(), strings.Join(r.log, "\n"))
	}
	return a.host.w.s.id
}

// born ends an actor's constructor.
func (r *rig) born(id ids.ActorID) SessionID {
	r.t.Helper()
	w := r.home(id)
	r.answer(w, OutcomeValues, "repr")
	return w
}

// live makes an actor's process and ends its constructor, wherever it is placed.
func live(h *handle, rigs ...*rig) SessionID {
	h.t.Helper()
	quieten(append([]*rig{h.rig}, rigs...)...)
	for _, r := range append(rigs, h.rig) {
		if a := r.e.actors[h.id.Unique()]; a != nil && a.host != nil {
			w := r.born(h.id)
			quieten(append([]*rig{h.rig}, rigs...)...)
			return w
		}
	}
	h.t.Fatal("the actor was placed nowhere")
	return 0
}

// answer has a worker receive its next task, and end it with an outcome.
func (r *rig) answer(w SessionID, outcome uint8, v string) Execute {
	r.t.Helper()
	x := r.take(w)
	r.end(w, x, outcome, v)
	return x
}

func (r *rig) end(w SessionID, x Execute, outcome uint8, v string) {
	r.t.Helper()
	outs := make([]Output, r.returns(w, x.Unique))
	for k := range outs {
		outs[k] = Output{Value: []byte(v), Size: uint64(len(v))}
	}
	r.do(func(e *Engine) { e.Result(w, x.Unique, x.Attempt, outcome, outs) })
}

// crash ends a worker's process.
func (r *rig) crash(w SessionID) {
	r.t.Helper()
	r.do(func(e *Engine) { e.WorkerGone(w, fault.WorkerCrashed, "killed") })
	delete(r.execs, w)
	delete(r.taken, w)
}

// waiting lists the calls that were sent to a worker and not received, by the counters of their ids.
func (r *rig) waiting(w SessionID) (list []uint64) {
	for _, x := range r.execs[w][r.taken[w]:] {
		list = append(list, x.Unique.Counter())
	}
	return list
}

// wantCalls receives and answers all that a worker has, and compares the order.
func (r *rig) wantCalls(w SessionID, want ...ids.ObjectID) {
	r.t.Helper()
	var got, list []uint64
	for r.taken[w] < len(r.execs[w]) {
		got = append(got, r.answer(w, OutcomeValues, "v").Unique.Counter())
	}
	for _, id := range want {
		list = append(list, id.Unique().Counter())
	}
	if !slices.Equal(got, list) {
		r.t.Fatalf("ran %d, want %d\n%s", got, list, strings.Join(r.log, "\n"))
	}
}

// wantValues gets objects one after the other and compares; "" stands for one that is not ready.
func (c *client) wantValues(list []ids.ObjectID, want ...string) {
	c.t.Helper()
	var got []string
	for _, id := range list {
		c.told()
		c.get(id)
		v := ""
		for _, l := range c.told() {
			if rest, ok := strings.CutPrefix(l, "value "); ok {
				_, v, _ = strings.Cut(rest, " = ")
				v = strings.TrimSuffix(v, " []")
			}
		}
		got = append(got, v)
		c.do(func(e *Engine) { e.CancelReq(c.ch, c.req) })
	}
	if !slices.Equal(got, want) {
		c.t.Fatalf("values %q, want %q", got, want)
	}
}

// state is what a rig knows of an actor.
func (r *rig) state(id ids.ActorID) actor.State {
	if a := r.e.actors[id.Unique()]; a != nil {
		return a.state
	}
	return "NONE"
}

// row is the last that a rig told the head of an actor.
func (r *rig) row(id ids.ActorID) actor.Row {
	for k := len(r.rows) - 1; k >= 0; k-- {
		if r.rows[k].ID == id {
			return r.rows[k]
		}
	}
	return actor.Row{}
}

func (r *rig) wantState(id ids.ActorID, st actor.State, inc uint32, cause actor.Cause) {
	r.t.Helper()
	row := r.row(id)
	if row.State != st || row.Incarnation != inc || row.Death.Cause != cause {
		r.t.Fatalf("the head was told %s %d %q, want %s %d %q", row.State, row.Incarnation, row.Death.Cause, st, inc, cause)
	}
}

func (r *rig) freeCPU() int64 { return r.e.res.Avail().Get(r.e.cpu) / 10000 }

// clean lets everything go and checks that nothing is left.
func (r *rig) clean(c *client, list ...ids.ObjectID) {
	r.t.Helper()
	c.release(list...)
	r.empty()
}

// solo is a rig of one node with a driver and blank workers.
func solo(t *testing.T, cpus int) (*rig, *client) {
	t.Helper()
	r := newRig(t, settings{owner: 1, cpus: cpus, more: map[string]int64{"x": 10000, "GPU": 20000}})
	c := r.driver(1)
	r.workers()
	return r, c
}

// head tells daemons of actors what others have told it.
type head struct {
	rigs []*rig
	seen map[*rig]int
	rows map[ids.ActorID][]actor.Row
}

func newHead(rigs ...*rig) *head {
	return &head{rigs: rigs, seen: map[*rig]int{}, rows: map[ids.ActorID][]actor.Row{}}
}

// hear takes in what the daemons have said.
func (h *head) hear() {
	for _, r := range h.rigs {
		for _, row := range r.rows[h.seen[r]:] {
			h.rows[row.ID] = append(h.rows[row.ID], row)
		}
		h.seen[r] = len(r.rows)
	}
}

// next brings a rig one piece of news, if there is one.
func (h *head) next(r *rig) bool {
	h.hear()
	for _, id := range sortedActors(r.watched) {
		at, rows := r.watched[id], h.rows[id]
		if at < 0 && len(rows) > 0 {
			at = len(rows) - 1
		}
		if at >= 0 && at < len(rows) {
			r.watched[id] = at + 1
			r.changed(rows[at])
			return true
		}
	}
	return false
}

// news brings everybody all news.
func (h *head) news() {
	for again := true; again; {
		again = false
		for _, r := range h.rigs {
			again = h.next(r) || again
		}
	}
}

// settle delivers all messages and all news, and starts the workers that were asked for.
func (h *head) settle() {
	for range 3 {
		quieten(h.rigs...)
		h.news()
	}
	quieten(h.rigs...)
}

func sortedActors[V any](m map[ids.ActorID]V) []ids.ActorID {
	var list []ids.ActorID
	for id := range m {
		list = append(list, id)
	}
	slices.SortFunc(list, func(a, b ids.ActorID) int { return strings.Compare(string(a[:]), string(b[:])) })
	return list
}

// changed tells a rig of an actor.
func (r *rig) changed(row actor.Row) {
	r.t.Helper()
	r.do(func(e *Engine) { e.ActorChanged(&row, r.nodeOf(row.Node)) })
}

// nodeOf is a rig's number of a node.
func (r *rig) nodeOf(id ids.NodeID) NodeNo {
	no := NodeNo(id[0])
	switch {
	case id == r.e.cfg.Node:
		return 0
	case r.e.peers[no] != nil:
		return no
	}
	return NoNode
}

// gone has the others know that a rig's node is dead; what it sent is lost.
func gone(dead *rig, others ...*rig) {
	for _, r := range others {
		r.wires[NodeNo(dead.e.cfg.Owner)] = nil
		delete(r.peers, NodeNo(dead.e.cfg.Owner))
		r.do(func(e *Engine) { e.PeerGone(NodeNo(dead.e.cfg.Owner), "silent") })
	}
	dead.wires = map[NodeNo][]Msg{}
}

// until delivers a rig's messages to a peer, one after the other, until something holds.
func (r *rig) until(no NodeNo, ok func() bool) {
	r.t.Helper()
	for !ok() {
		if len(r.wires[no]) == 0 {
			r.t.Fatal("all is delivered, and it does not hold")
		}
		m := r.wires[no][0]
		r.wires[no] = r.wires[no][1:]
		r.deliver(no, m)
	}
}
