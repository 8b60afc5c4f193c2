package headstate

import (
	"container/list"
	"maps"
	"slices"
	"time"

	"gray/internal/core/ids"
)

// view is the part of the node table that schedulers need, with a version for every change. A subscriber that knows
// version v gets what changed after v, once it has acknowledged v, and at most one message every FlushEvery.
type view struct {
	version uint64
	order   *list.List    // of *node, the one whose row changed last at the back
	dropped uint64        // newest version of a row that is no longer in order
	idle    *list.List    // of *node: subscribers without an unacknowledged message
	dirty   bool          // some idle subscriber may be behind
	next    time.Duration // no flush before
}

// viewed is a node's place in the view.
type viewed struct {
	at     uint64 // version of its last change
	infoAt uint64 // version of the last change of more than its load
	elem   *list.Element
}

// subscription is what a node knows of the view.
type subscription struct {
	sent uint64
	all  bool          // needs a Snapshot
	idle *list.Element // nil while a message is not acknowledged
}

func (v *view) init() { v.order, v.idle = list.New(), list.New() }

func (v *view) changed(n *node, info bool) {
	v.version++
	n.seen.at = v.version
	if info {
		n.seen.infoAt = v.version
	}
	if n.seen.elem == nil {
		n.seen.elem = v.order.PushBack(n)
	} else {
		v.order.MoveToBack(n.seen.elem)
	}
	v.dirty = true
}

func (v *view) forget(n *node) {
	if n.seen.elem != nil {
		v.order.Remove(n.seen.elem)
		v.dropped = max(v.dropped, n.seen.at)
	}
}

// due is when flush has something to send.
func (v *view) due() (time.Duration, bool) { return v.next, v.dirty && v.idle.Len() > 0 }

func (s *State) report(n *node, m *Report) {
	if len(m.Available) > MaxResources || len(m.Demands) > MaxResources {
		s.note(true, "head: node %s reports %d resources and %d demands, more than %d; the report is ignored", n.id(), len(m.Available), len(m.Demands), MaxResources)
		return
	}
	n.demands = m.Demands
	if n.queued == m.Queued && maps.Equal(n.row.Available, m.Available) {
		return
	}
	n.row.Available, n.queued = m.Available, m.Queued
	s.view.changed(n, false)
}

func (s *State) subscribe(n *node, on bool) {
	s.unsubscribe(n)
	if on {
		n.sub = &subscription{all: true}
		n.sub.idle = s.view.idle.PushBack(n)
		s.view.dirty = true
	}
}

func (s *State) unsubscribe(n *node) {
	if n.sub != nil && n.sub.idle != nil {
		s.view.idle.Remove(n.sub.idle)
	}
	n.sub = nil
}

func (s *State) viewAck(n *node, version uint64) {
	if n.sub == nil || n.sub.idle != nil || version != n.sub.sent {
		return // about a subscription that has ended
	}
	n.sub.idle = s.view.idle.PushBack(n)
	if version < s.view.version {
		s.view.dirty = true
	}
}

// flush sends what changed to the subscribers that can take it.
func (s *State) flush(now time.Duration) {
	v := &s.view
	if at, ok := v.due(); !ok || now < at {
		return
	}
	v.dirty = false
	rows := 0
	deltas := map[uint64]*Delta{}
	var whole *Snapshot
	for e := v.idle.Front(); e != nil; {
		n := e.Value.(*node)
		e = e.Next()
		sub := n.sub
		switch {
		case sub.all || sub.sent < v.dropped:
			if whole == nil {
				whole = s.snapshot()
			}
			s.send(n.id(), whole)
			rows += len(whole.Nodes)
		case sub.sent < v.version:
			if deltas[sub.sent] == nil {
				deltas[sub.sent] = s.since(sub.sent)
			}
			d := deltas[sub.sent]
			s.send(n.id(), d)
			rows += len(d.Changed) + len(d.Gone)
		default:
			continue
		}
		v.idle.Remove(sub.idle)
		*sub = subscription{sent: v.version}
	}
	// When all of a large cluster follows all of it, rows grow with the square of the nodes: then news come later.
	v.next = now + max(s.cfg.FlushEvery, time.Duration(rows)*time.Second/time.Duration(s.cfg.RowsPerSec))
}

func (s *State) snapshot() *Snapshot {
	m := &Snapshot{Version: s.view.version}
	for e := s.joined.Front(); e != nil; e = e.Next() {
		if n := e.Value.(*node); n.state != Dead {
			m.Nodes = append(m.Nodes, n.viewSince(0))
		}
	}
	return m
}

func (s *State) since(from uint64) *Delta {
	d := &Delta{From: from, Version: s.view.version}
	for e := s.view.order.Back(); e != nil; e = e.Prev() {
		n := e.Value.(*node)
		if n.seen.at <= from {
			break
		}
		if n.state == Dead {
			d.Gone = append(d.Gone, n.id())
		} else {
			d.Changed = append(d.Changed, n.viewSince(from))
		}
	}
	return d
}

func (n *node) viewSince(from uint64) NodeView {
	v := NodeView{ID: n.id(), Owner: n.row.Owner, Available: n.row.Available, Queued: n.queued}
	if from == 0 || n.seen.infoAt > from {
		info := n.row.Info
		v.Info = &info
	}
	return v
}

// ShapeDemand is the number of tasks of one shape that wait in the whole cluster.
type ShapeDemand struct {
	Shape      Resources
	Count      int64
	Infeasible bool
	Reason     string     // of the first node that gives one
	Node       ids.NodeID // that node
}

// Demands adds up what nodes report, the largest count first; shapes with the same count stay in the nodes' order.
func (s *State) Demands() []ShapeDemand {
	var sums []ShapeDemand
	at := map[string]int{}
	for e := s.joined.Front(); e != nil; e = e.Next() {
		n := e.Value.(*node)
		for _, d := range n.demands {
			key := shapeKey(d.Shape)
			i, ok := at[key]
			if !ok {
				i = len(sums)
				at[key] = i
				sums = append(sums, ShapeDemand{Shape: d.Shape})
			}
			sums[i].Count += d.Count
			sums[i].Infeasible = sums[i].Infeasible || d.Infeasible
			if d.Reason != "" && (sums[i].Reason == "" || d.Infeasible) {
				sums[i].Reason, sums[i].Node = d.Reason, n.id()
			}
		}
	}
	slices.SortStableFunc(sums, func(a, b ShapeDemand) int { return int(max(-1, min(1, b.Count-a.Count))) })
	return sums
}
