package engine

import (
	"time"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/core/resource"
	"gray/internal/core/schedule"
)

const (
	// planStep is how many tasks of a shape are planned for at once.
	planStep = 4096
	// standing is how many busy nodes an owner lets know that it waits for their slots.
	standing = 16
	// patience is how long tasks wait for a node that policy prefers before a free local one takes them.
	patience = 20 * time.Millisecond
	// unknownNode is how long a task waits for news of the node that it is bound to.
	unknownNode = 500 * time.Millisecond
)

// NodeView tells what another node has, and what of it is free, as the head sees it.
func (e *Engine) NodeView(no NodeNo, total, avail resource.Set, labels map[string]string, queued int) {
	if p := e.peers[no]; p != nil {
		e.view.Upsert(schedule.Node{ID: p.id, Total: total, Avail: avail, Labels: labels, Queue: queued})
		e.dirtyQ = e.dirtyQ || len(e.active) > 0
	}
}

// NodeViewDrop forgets a node in the view.
func (e *Engine) NodeViewDrop(no NodeNo) {
	if p := e.peers[no]; p != nil {
		e.view.Remove(p.id)
	}
}

// seeSelf puts this node's own state into the view.
func (e *Engine) seeSelf() {
	e.view.Upsert(schedule.Node{ID: e.cfg.Node, Total: e.res.Total(), Avail: e.res.Avail().Clone(), Labels: e.cfg.Labels})
}

// plan spreads a shape's waiting tasks over the nodes: here as many as policy says, and for the others slots are asked for.
func (e *Engine) plan(sh *shape) {
	want := sh.backlog
	for _, no := range sortedKeys(sh.away) {
		want -= e.coming(sh, no, sh.away[no])
	}
	sh.local = 0
	if want <= 0 {
		return
	}
	e.rand = e.rand*6364136223846793005 + 1442695040888963407
	o := schedule.Options{Local: e.cfg.Node, Rand: e.rand, Locality: e.locality(sh)}
	places, outcome := e.view.PickN(sh.rs, o, min(want, planStep), e.scratchP[:0])
	e.scratchP = places
	for _, p := range places {
		if p.Node == e.cfg.Node {
			e.view.Unreserve(p.Node, sh.rs.Need, p.Count)
			sh.local += p.Count
			continue
		}
		if no, ok := e.peerIDs[p.Node]; ok {
			a := e.awayAt(sh, no)
			a.reserved += p.Count
			e.askSlots(sh, no, a, a.asked+p.Count)
		} else {
			e.view.Unreserve(p.Node, sh.rs.Need, p.Count)
		}
	}
	switch outcome {
	case schedule.Busy:
		sh.stuck = ""
		e.stand(sh)
	case schedule.Infeasible:
		sh.stuck = e.view.Explain(sh.rs)
	case schedule.Unschedulable:
		e.unschedulable(sh)
	case schedule.Placed:
		sh.stuck = ""
	}
}

// coming is how many of the slots that a node was asked for may come at once. A node may turn out to have less than it seemed
// to when it was asked: what was asked for beyond that may come as others leave, but no task counts on it, lest it wait there
// while another node has room.
func (e *Engine) coming(sh *shape, no NodeNo, a *awaySlots) int {
	p := e.peers[no]
	if p == nil {
		return a.reserved
	}
	for a.reserved > 0 && e.view.Over(p.id, sh.rs.Need) {
		e.view.Unreserve(p.id, sh.rs.Need, 1)
		a.reserved--
	}
	return a.reserved
}

// locality is where the arguments of the shape's next task are.
func (e *Engine) locality(sh *shape) []schedule.Locality {
	if len(e.peers) == 0 {
		return nil
	}
	q := sh.queues[sh.turn%len(sh.queues)]
	return e.bytesAt(e.tasks.at(q.head))
}

// bytesAt lists on which nodes the large arguments of a task are.
func (e *Engine) bytesAt(t *task) (l []schedule.Locality) {
	add := func(id ids.NodeID, n uint64) {
		for k := range l {
			if l[k].Node == id {
				l[k].Bytes += n
				return
			}
		}
		l = append(l, schedule.Locality{Node: id, Bytes: n})
	}
	for _, d := range t.refs[:t.nDeps] {
		o := e.objs.at(d)
		if o.size < schedule.LocalityMin {
			continue
		}
		if o.state == objArena {
			add(e.cfg.Node, o.size)
		}
		if s := e.spread[d]; s != nil {
			for _, c := range s.sources {
				if p := e.peers[c.node]; p != nil && c.complete {
					add(p.id, o.size)
				}
			}
		}
	}
	return l
}

// askSlots tells a node how many slots of a shape are wanted there.
func (e *Engine) askSlots(sh *shape, no NodeNo, a *awaySlots, want int) {
	if a.asked == want {
		return
	}
	a.asked = want
	e.sink.Peer(no, &SlotAsk{Shape: sh.no, Res: e.cfg.Names.Map(sh.rs.Need), Want: want})
	if want == 0 && a.reserved > 0 {
		if p := e.peers[no]; p != nil {
			e.view.Unreserve(p.id, sh.rs.Need, a.reserved)
		}
		a.reserved = 0
	}
}

// withdraw ends the shape's wishes: nothing of it waits any more.
func (e *Engine) withdraw(sh *shape) {
	for _, no := range sortedKeys(sh.away) {
		a := sh.away[no]
		if a.asked > 0 && e.peers[no] != nil {
			e.askSlots(sh, no, a, 0)
		}
		e.dropAway(sh, no, a)
	}
}

// stand lets some nodes that could run the shape know that it waits for what they use for others.
func (e *Engine) stand(sh *shape) {
	told := 0
	for _, no := range sortedKeys(e.peers) {
		if told >= standing || sh.backlog <= told {
			return
		}
		p := e.peers[no]
		n, ok := e.view.Node(p.id)
		if !ok || !n.Total.Fits(sh.rs.Need) || !sh.rs.Suits(n.Labels) || n.Draining {
			continue
		}
		if st := sh.rs.Strategy; st.Kind == resource.StrategyNode && st.Node != p.id && !(st.Soft && st.Spill) {
			continue
		}
		told++
		if a := e.awayAt(sh, no); a.asked == 0 && a.slots == 0 {
			e.askSlots(sh, no, a, 1)
		}
	}
}

// unschedulable fails the shape's tasks: the node that they are bound to cannot run them.
func (e *Engine) unschedulable(sh *shape) {
	node := sh.rs.Strategy.Node
	if _, known := e.view.Node(node); !known && e.now.Sub(sh.since) < unknownNode {
		return
	}
	state := "doesn't exist any more or is infeasible, and soft=False was specified"
	if n, ok := e.view.Node(node); ok && !n.Draining && n.Total.Fits(sh.rs.Need) && sh.rs.Suits(n.Labels) {
		state = "is busy, and _fail_on_unavailable=True was specified"
	}
	why := "The node specified via NodeAffinitySchedulingStrategy " + state + " (node " + node.String() + ": " + e.view.Explain(sh.rs) + ")"
	for sh.backlog > 0 {
		i, t := e.pop(sh)
		e.failTask(i, t, fault.Unschedulable, why)
	}
}

// localNext tells whether the shape's next task may start on this node, if it fits.
func (e *Engine) localNext(sh *shape) bool {
	if e.fenced {
		return false
	}
	if len(e.peers) == 0 && sh.rs.Anywhere() {
		return true
	}
	if sh.local > 0 {
		sh.local--
		return true
	}
	return sh.rs.Strategy.Kind == resource.StrategyDefault && sh.rs.Suits(e.cfg.Labels) && e.now.Sub(sh.since) > patience
}

// roomAway tells whether other nodes were asked for slots that may come at once.
func (e *Engine) roomAway(sh *shape) bool {
	for _, a := range sh.away {
		if a.reserved > 0 {
			return true
		}
	}
	return false
}

// lookAway plans with the cluster for what this node did not start.
func (e *Engine) lookAway(sh *shape) {
	if sh.backlog > 0 && (len(e.peers) > 0 || !sh.rs.Anywhere()) {
		if e.seen != e.loadSeq {
			e.seen = e.loadSeq
			e.seeSelf()
		}
		e.plan(sh)
	}
}

// Fence stops all work on this node, or lets it go on: it may be declared dead, and its work given to others.
func (e *Engine) Fence(on bool) {
	e.fenced = on
	e.dirtyQ = true
	if !on {
		return
	}
	for _, sid := range e.pool.sorted() {
		w := e.pool.all[sid]
		if w.state != workStarting && w.state != workLeaving {
			w.killed = "its node lost its lease with the head"
			e.sink.KillWorker(sid, w.killed)
		}
	}
}
