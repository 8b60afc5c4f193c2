package engine

import (
	"fmt"
	"slices"
	"time"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
	"gray/internal/core/resource"
)

// Reason tells why an object is not ready. The node Ask, unless it is zero, may know more: about the object On.
type Reason struct {
	ID            ids.ObjectID
	State, Reason string
	Ask           ids.NodeID
	On            ids.ObjectID
}

// Why tells for each id what it waits for.
func (e *Engine) Why(list []ids.ObjectID) []Reason {
	out := make([]Reason, 0, len(list))
	w := teller{e: e, steps: whySteps}
	for _, id := range list {
		r := Reason{ID: id, State: "UNKNOWN", Reason: "this node does not know the object"}
		w.ask, w.on = ids.NodeID{}, id
		if i := e.find(id); i != 0 {
			r.State, r.Reason = w.object(i, 0)
		} else if i := e.remoteRun[runKey{id.Unique()}]; i != 0 { // of another owner's task
			r.State, r.Reason = w.task(i, e.tasks.at(i), 0)
			r.Reason = "it " + r.Reason
		}
		r.Ask, r.On = w.ask, w.on
		out = append(out, r)
	}
	return out
}

const (
	whySteps     = 20_000    // tasks of queues that are passed to tell somebody's place, for an error
	explainSteps = 1_000_000 // and for who asked just for that
	whyDeep      = 3         // arguments of arguments that are told of
)

// teller puts into words why things wait. It looks at long queues only as far as its steps go. Where its words end with
// something that another node knows more of, ask is that node and on the object to ask about.
type teller struct {
	e     *Engine
	steps int
	ask   ids.NodeID
	on    ids.ObjectID
}

// place is where a task stands in its queue, from 1; 0 if that is too far behind to be counted.
func (w *teller) place(c *chain, i uint32) int {
	k := 1
	for at := c.head; at != i; at = w.e.tasks.at(at).next {
		if at == 0 || w.steps <= 0 {
			return 0
		}
		w.steps--
		k++
	}
	return k
}

// nth words a place in a queue of n.
func nth(place, n int) string {
	if place == 0 {
		return fmt.Sprintf("far behind in the queue of %d", n)
	}
	return fmt.Sprintf("number %d of %d", place, n)
}

func (w *teller) object(i uint32, deep int) (state, reason string) {
	e := w.e
	o := e.objs.at(i)
	w.on = o.id
	switch {
	case o.local():
		return "READY", "it is ready on this node"
	case o.state == objElsewhere:
		return "READY", "its bytes are on other nodes"
	case o.state == objFetching:
		return "FETCHING", "its bytes are being copied here"
	case o.state == objUnknown:
		owner := fmt.Sprintf("owner %d, whose node this one does not know yet,", o.id.Owner())
		if p := e.peers[e.owners[o.id.Owner()]]; p != nil {
			owner, w.ask = "its owner, "+p.String()+",", p.id
		}
		return "PENDING", owner + " has not said that it is ready"
	case o.task == 0:
		return "CREATING", "its client is still writing it"
	}
	t := e.tasks.at(o.task)
	state, reason = w.task(o.task, t, deep)
	return state, e.taskName(t) + " " + reason
}

// task tells where a task is and what it waits for; the sentence lacks its name.
func (w *teller) task(i uint32, t *task, deep int) (state, reason string) {
	e := w.e
	state = t.state.String()
	switch t.state {
	case taskWaiting:
		for _, d := range t.refs[:t.nDeps] {
			if o := e.objs.at(d); !o.ready() && deep < whyDeep {
				_, inner := w.object(d, deep+1)
				return state, "waits for its argument " + o.id.String() + ": " + inner
			}
		}
		return state, "waits for its arguments"
	case taskQueued:
		return state, w.queued(i, t)
	case taskAway:
		if p := e.peers[t.at]; p != nil {
			w.ask = p.id
			return "RUNNING", "was sent to " + p.String()
		}
		return "RUNNING", "was sent to another node"
	case taskHeld:
		q := e.peers[t.owner].held[t.shape]
		return state, fmt.Sprintf("came from %s and waits for a place here (%s that it sent): %s", e.peers[t.owner], nth(w.place(&q.chain, i), q.n), e.lacks(e.templates[t.tmpl].spec.Resources))
	case taskFetching:
		return state, w.fetching(i, t)
	case taskAssigned:
		return state, fmt.Sprintf("has its place and its arguments, and waits with %d others for a worker process; %d are starting", max(len(e.pool.pending)-1, 0), e.pool.starting)
	case taskOrdered:
		return state, e.whyCall(i, t)
	}
	return "RUNNING", w.running(i, t, deep)
}

// queued tells what keeps a task in its queue.
func (w *teller) queued(i uint32, t *task) string {
	e := w.e
	sh := e.shapes[t.shape]
	q := sh.queueOf(t.job)
	text := fmt.Sprintf("is %s of its job that wait for %s", nth(w.place(&q.chain, i), q.n), e.cfg.Names.Format(sh.rs.Need))
	if n := len(sh.queues) - 1; n > 0 {
		text += fmt.Sprintf(", taking turns with %d of %d other jobs", sh.backlog-q.n, n)
	}
	if d := e.capped(sh, t); d > 0 {
		return fmt.Sprintf("%s: %d of its function wait in ray.get here, so that a further one starts only in %.1f s", text, e.overOf(t).blocked, d.Seconds())
	}
	return text + ": " + e.stuckText(sh)
}

// lacks tells what of a need this node has not free.
func (e *Engine) lacks(need resource.Set) string {
	if avail := e.res.Avail(); !avail.Fits(need) {
		return "it needs " + e.cfg.Names.Format(need) + ", of which this node has free " + e.cfg.Names.Format(only(avail, need))
	}
	return "it is the next one's turn"
}

// only is what of s is named in need.
func only(s, need resource.Set) (out resource.Set) {
	for _, n := range need {
		out = append(out, resource.Entry{Name: n.Name, Amount: s.Get(n.Name)})
	}
	return out
}

// fetching tells what a task that has its place lacks of its arguments.
func (w *teller) fetching(i uint32, t *task) string {
	e := w.e
	if b := e.bundles[i]; b != nil && !b.granted {
		if why := e.mem.Why(e.now, b.req); why != "" {
			return why
		}
		return "waits for room in the object store for its arguments"
	}
	missing := 0
	first := ids.ObjectID{}
	for _, d := range t.refs[:t.nDeps] {
		if o := e.objs.at(d); !o.local() {
			if missing++; missing == 1 {
				first = o.id
			}
		}
	}
	if missing == 0 {
		return "waits for its arguments to be copied to this node"
	}
	return fmt.Sprintf("waits for %d of its arguments to be copied to this node, first %s", missing, first)
}

// running tells what a task that a worker has does.
func (w *teller) running(i uint32, t *task, deep int) string {
	e := w.e
	s := e.sessions[t.worker]
	if s == nil || s.worker == nil {
		return "is running on this node"
	}
	at := e.sink.Process(s.id)
	if k := slices.Index(s.worker.fifo, i); k > 0 {
		return fmt.Sprintf("was sent to %s on this node, and waits there for %d before it, the first of which %s", at, k, w.running(s.worker.fifo[0], e.tasks.at(s.worker.fifo[0]), deep))
	}
	if q := t.call; q != nil && s.worker.host != nil && s.worker.host.ordered() && q.head != i && q.key.group != systemGroup {
		return "was sent to " + at + " on this node, where its caller's earlier calls come first"
	}
	text := "is running on this node in " + at
	if d := e.runsFor(t); d >= time.Second {
		text += fmt.Sprintf(" for %.1f s", d.Seconds())
	}
	return text + w.blocked(s, deep)
}

// runsFor is since when a task has its place here.
func (e *Engine) runsFor(t *task) time.Duration {
	if t.started == 0 {
		return 0
	}
	return time.Duration(e.us-t.started) * time.Microsecond
}

// blocked tells what a worker's threads wait for in a get; "" if for nothing.
func (w *teller) blocked(s *session, deep int) string {
	e := w.e
	for _, c := range sortedKeys(s.chans) {
		ch := s.chans[c]
		switch {
		case ch.get != nil:
			for _, i := range ch.get.want {
				if o := e.objs.at(i); !o.local() && deep < whyDeep {
					_, inner := w.object(i, deep+1)
					return fmt.Sprintf(", where a ray.get waits for %d objects, first %s: %s", ch.get.left, o.id, inner)
				}
			}
		case ch.waiting:
			return ", where a ray.wait waits"
		case ch.reads > 0:
			return ", which waits for an item of a generator"
		case ch.credit:
			return ", which waits for room to submit or yield more"
		}
	}
	return ""
}

// whyCall tells why an actor's call was not sent yet.
func (e *Engine) whyCall(i uint32, t *task) string {
	a := t.call.a
	what := "actor " + a.id.String()
	if a.row.Class != "" {
		what += " (" + a.row.Class + ")"
	}
	switch {
	case t.lost:
		return "waits to hear whether " + what + " comes back: its process died while it had the call"
	case a.state == "":
		return "waits to hear where " + what + " is"
	case a.state != actor.Alive:
		return "waits until " + what + " lives: it is " + string(a.state)
	case t.call.next != i:
		return "waits for the calls before it to " + what
	}
	return fmt.Sprintf("waits until %s, which has %d calls of this caller, takes more", what, t.call.sent)
}

// infeasible tells whether no node that is known could ever run a shape's tasks.
func (e *Engine) infeasible(sh *shape) bool {
	return sh.stuck != "" || (len(e.peers) == 0 && !e.res.Feasible(sh.rs.Need))
}

// stuckText tells why a shape's tasks wait.
func (e *Engine) stuckText(sh *shape) string {
	if sh.stuck != "" {
		return sh.stuck
	}
	if e.infeasible(sh) {
		return "no node of the cluster has that much (this one has " + e.cfg.Names.Format(e.res.Total()) + "); add a node or ask for less"
	}
	return "all that the nodes have is in use"
}

// StoreInfo is what the object store of this node holds.
type StoreInfo struct {
	Capacity, Used int64
	Objects        int
	Holders        []Holder // the largest that cannot go
}

// Store tells how full the store is.
func (e *Engine) Store() StoreInfo {
	return StoreInfo{e.mem.Capacity(), e.mem.Used(), len(e.memObjs), e.holders(e.mem.Holders(maxHolders))}
}

// Location is where an object's bytes are.
type Location struct {
	ID    ids.ObjectID
	Nodes []ids.NodeID
	Size  uint64
}

// Locations tells where objects are, as far as this node knows.
func (e *Engine) Locations(list []ids.ObjectID) []Location {
	out := make([]Location, 0, len(list))
	for _, id := range list {
		l := Location{ID: id}
		if i := e.find(id); i != 0 {
			o := e.objs.at(i)
			l.Size = o.size
			if o.local() {
				l.Nodes = append(l.Nodes, e.cfg.Node)
			}
			if s := e.spread[i]; s != nil {
				for _, c := range s.sources {
					if p := e.peers[c.node]; p != nil && c.complete {
						l.Nodes = append(l.Nodes, p.id)
					}
				}
			}
		}
		out = append(out, l)
	}
	return out
}

// Demand is how many tasks of a shape wait here, and why.
type Demand struct {
	Resources  map[string]int64
	Count      int
	Infeasible bool
	Reason     string
}

// Load is what this node has free and what waits at it.
func (e *Engine) Load() (avail map[string]int64, queued int, demands []Demand) {
	avail = e.cfg.Names.Map(e.res.Avail())
	for _, sh := range e.active {
		queued += sh.backlog
		if len(demands) < maxDemands {
			d := Demand{Resources: e.cfg.Names.Map(sh.rs.Need), Count: sh.backlog}
			if e.infeasible(sh) {
				d.Infeasible, d.Reason = true, e.stuckText(sh)
			}
			demands = append(demands, d)
		}
	}
	return avail, queued, demands
}

const maxDemands = 64
