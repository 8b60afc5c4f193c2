package headstate

import (
	"container/list"
	"fmt"
	"maps"
	"slices"
	"time"

	"gray/internal/core/ids"
)

// NodeState is where a node stands. Its names are those of docs/states.md.
type NodeState string

// Node states.
const (
	Joining  NodeState = "JOINING"
	Alive    NodeState = "ALIVE"
	Restored NodeState = "RESTORED"
	Dead     NodeState = "DEAD"
)

// transitions are all the changes of state that a node makes.
var transitions = map[NodeState][]NodeState{
	"":       {Joining, Restored, Dead}, // Restored and Dead: from the store
	Joining:  {Alive, Dead},
	Restored: {Alive, Dead},
	Alive:    {Dead},
	Dead:     nil,
}

// node is a row of the node table.
type node struct {
	row   NodeRow
	state NodeState
	heard time.Duration
	died  uint64 // batch that records the death

	queued  int64
	demands []Demand

	managed actorSet                 // those that are not DEAD
	watches map[ids.ActorID]*watched // actors that it wants to hear of

	inJoined, inDead *list.Element
	seen             viewed
	sub              *subscription
}

func (n *node) id() ids.NodeID { return n.row.Info.ID }

func (n *node) to(state NodeState) {
	if !slices.Contains(transitions[n.state], state) {
		panic(fmt.Sprintf("headstate: node %s can't go from %s to %s", n.id(), n.state, state))
	}
	n.state = state
}

const silenceAdvice = "look at the daemon's log on that machine, or whether the machine and its network are up"

// adviceOn says how to find out what became of a silent node.
func (s *State) adviceOn(n *node) string {
	if host := n.row.Info.Hostname; s.cfg.Pods && host != "" {
		return fmt.Sprintf("whether its container ended, and why (OOMKilled is want of memory), says: kubectl get pod %s -o jsonpath='{.status.containerStatuses[*].lastState}'; "+
			"if that pod is gone: kubectl get events", host)
	}
	return silenceAdvice
}

// MaxResources bounds the resource names and labels of a node, and the demands of a report.
const MaxResources = 4096

func (i *NodeInfo) validate() error {
	switch {
	case i.ID == ids.NodeID{}:
		return fmt.Errorf("its node id is empty")
	case i.IP == "":
		return fmt.Errorf("its IP address is empty")
	case i.Port < 0 || i.Port > 65535 || i.ObjectPort < 0 || i.ObjectPort > 65535:
		return fmt.Errorf("its ports %d and %d are not both between 0 and 65535", i.Port, i.ObjectPort)
	case len(i.Total) > MaxResources || len(i.Labels) > MaxResources:
		return fmt.Errorf("it has %d resources and %d labels, more than %d", len(i.Total), len(i.Labels), MaxResources)
	}
	for name, q := range i.Total {
		if name == "" || q < 0 {
			return fmt.Errorf("its resource %q has the quantity %d/10000", name, q)
		}
	}
	return nil
}

func (s *State) register(now time.Duration, from ids.NodeID, m *Register) {
	refuse := func(reason, format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		s.note(true, "head: node %s at %s is refused: %s", from, m.Node.IP, text)
		s.send(from, &Refused{Reason: reason, Error: text})
	}
	if m.Node.ID != from {
		refuse(RefusedInvalid, "it registers as node %s, but its certificate says %s", m.Node.ID, from)
		return
	}
	if err := m.Node.validate(); err != nil {
		refuse(RefusedInvalid, "%v", err)
		return
	}
	if c := m.Inventory.Cluster; c != s.meta.Cluster && c != (ClusterID{}) {
		refuse(RefusedCluster, "it belongs to another cluster; the head at this address was started anew, so the daemon must be, too")
		return
	}
	n := s.nodes[from]
	if n != nil && n.state != Dead && n.row.Info.Epoch != m.Node.Epoch {
		// A node id names one life of a daemon; whoever has it a second time is not who the others know.
		refuse(RefusedFenced, "its node id is in use by another incarnation (%d, now %d); start it with a new node id", n.row.Info.Epoch, m.Node.Epoch)
		return
	}
	switch {
	case n == nil && m.Inventory.Owner != 0:
		refuse(RefusedFenced, "the head no longer knows it, so it was declared dead long ago; start it anew")
	case n == nil:
		s.join(now, m)
	case n.state == Dead:
		s.refuseDead(n)
	case m.Inventory.Owner != 0 && m.Inventory.Owner != n.row.Owner:
		refuse(RefusedInvalid, "it says that its owner number is %d, but the head gave it %d", m.Inventory.Owner, n.row.Owner)
	case n.state == Joining:
		// The link broke before the record was committed: the answer that is held will do.
	default:
		s.rejoin(now, n, m)
	}
}

func (s *State) join(now time.Duration, m *Register) {
	if s.meta.NextOwner > ids.MaxOwner {
		s.send(m.Node.ID, &Refused{Reason: RefusedLimit, Error: fmt.Sprintf("all %d owner numbers of this cluster are used up; start a new cluster", ids.MaxOwner)})
		return
	}
	n := &node{row: NodeRow{
		Info: m.Node, Owner: s.meta.NextOwner, Alive: true, StartMs: s.wallMs(now), Available: maps.Clone(m.Node.Total),
	}}
	n.to(Joining)
	s.meta.NextOwner++
	s.meta.OwnerMoves++
	s.nodes[n.id()] = n
	s.owners[n.row.Owner] = n
	s.putMeta()
	s.putNode(n)
	s.after(s.next, heldItem{join: n, inv: m.Inventory})
}

// letIn makes a node whose record is safe a member.
func (s *State) letIn(now time.Duration, n *node, inv Inventory) {
	if n.state != Joining {
		return // it left meanwhile
	}
	n.to(Alive)
	n.heard = now
	n.inJoined = s.joined.PushBack(n)
	s.live++
	s.scan = min(s.scan, now+s.cfg.DeadAfter)
	s.view.changed(n, true)
	s.note(false, "head: node %s (%s) joined, owner number %d", n.id(), n.row.Info.IP, n.row.Owner)
	s.welcome(n, inv)
	s.adoptOrphans()
}

// rejoin takes a node back that lost its link or outlived the head's process.
func (s *State) rejoin(now time.Duration, n *node, m *Register) {
	if n.state == Restored {
		n.to(Alive)
		s.restored--
		s.actors.recheck = true
		n.row.Available = m.Node.Total // its report follows, if it ever made one
		s.note(false, "head: node %s (%s) is back", n.id(), n.row.Info.IP)
	}
	n.heard = now
	s.unsubscribe(n)
	s.stopWatching(n)
	if n.row.Info.Port != m.Node.Port || n.row.Info.ObjectPort != m.Node.ObjectPort || n.row.Info.IP != m.Node.IP {
		n.row.Info = m.Node
		s.putNode(n)
	}
	n.row.Info = m.Node
	s.view.changed(n, true)
	// A job whose driver was on this node and is no longer there ended while the head was away.
	for _, id := range s.runningOn(n.id()) {
		if !slices.Contains(m.Inventory.Drivers, id) {
			s.endJob(now, s.jobs[id], true, "the driver ended while the head was away")
		}
	}
	s.takeActors(now, n, m.Inventory.Actors)
	s.welcome(n, m.Inventory)
	s.remindActors(n)
	s.adoptOrphans()
}

func (s *State) welcome(n *node, inv Inventory) {
	w := &Registered{
		Cluster: s.meta.Cluster, SessionName: s.meta.SessionName, Owner: n.row.Owner,
		LeaseMs: s.cfg.LeaseEvery.Milliseconds(), DeadMs: s.cfg.DeadAfter.Milliseconds(),
	}
	for _, id := range inv.Jobs {
		// One that ends or dies in a batch under way is told to all when that batch is safe.
		if j := s.jobs[id]; j == nil || j.row.State != JobRunning && j.ended <= s.committed {
			w.EndedJobs = append(w.EndedJobs, id)
		}
	}
	for _, id := range inv.Peers {
		if p := s.nodes[id]; p == nil || p.state == Dead && p.died <= s.committed {
			w.DeadPeers = append(w.DeadPeers, id)
		}
	}
	// Not before what the store still works on: the daemon may know it from before the link broke.
	s.sendAfter(s.settled(), n.id(), w)
}

// settled is the last batch that is made, this Step's included.
func (s *State) settled() uint64 {
	if len(s.ops) > 0 {
		return s.next
	}
	return s.next - 1
}

func (s *State) refuseDead(n *node) {
	s.sendAfter(n.died, n.id(), &Refused{
		Reason: RefusedFenced,
		Error:  "the head declared it dead (" + n.row.DeathMessage + "); what it owned is gone, so it must start afresh with a new node id",
	})
}

func (s *State) leave(now time.Duration, n *node, m *Leave) {
	id := n.id()
	text := m.Message
	if text == "" {
		text = "the daemon was stopped"
	}
	s.die(now, n, ExpectedTermination, text)
	s.sendAfter(s.next, id, &Left{})
}

// leaseEnds is when n counts as dead if it stays silent.
func (s *State) leaseEnds(n *node) time.Duration { return max(n.heard, s.floor) + s.cfg.DeadAfter }

// expire declares dead who was silent for too long, and finds out when to look again.
func (s *State) expire(now time.Duration) {
	s.scan = now + s.cfg.DeadAfter
	var silent []*node
	for e := s.joined.Front(); e != nil; e = e.Next() {
		n := e.Value.(*node)
		if n.state == Dead {
			continue
		}
		if ends := s.leaseEnds(n); ends <= now {
			silent = append(silent, n)
		} else {
			s.scan = min(s.scan, ends)
		}
	}
	for _, n := range silent {
		s.die(now, n, UnexpectedTermination, fmt.Sprintf("the head heard nothing from it for %.0f s; %s",
			(now-max(n.heard, s.floor)).Seconds(), s.adviceOn(n)))
	}
}

func (s *State) die(now time.Duration, n *node, why DeathReason, text string) {
	if n.state == Joining {
		n.inJoined = s.joined.PushBack(n)
	} else {
		s.live--
	}
	if n.state == Restored {
		s.restored--
	}
	n.to(Dead)
	s.unsubscribe(n)
	n.row.Alive, n.row.DeathReason, n.row.DeathMessage, n.row.EndMs = false, why, text, s.wallMs(now)
	n.row.Available, n.demands, n.queued = nil, nil, 0
	n.died = s.next
	n.inDead = s.dead.PushBack(n)
	s.view.changed(n, true)
	s.meta.OwnerMoves++
	s.putMeta()
	s.putNode(n)
	for _, id := range s.runningOn(n.id()) {
		s.endJob(now, s.jobs[id], true, "the driver's node is dead: "+text)
	}
	s.note(why != ExpectedTermination, "head: node %s (%s) is dead: %s", n.id(), n.row.Info.IP, text)
	s.broadcastAfter(s.next, &NodeDead{Node: n.id(), Owners: []ids.Owner{n.row.Owner}, Reason: why, Message: text})
	s.actorsOfDead(now, n)
	for s.dead.Len() > s.cfg.MaxDead {
		s.forget(s.dead.Front().Value.(*node))
	}
}

// forget drops a dead node's row. Its owner number stays taken: numbers below NextOwner that nobody has are dead.
func (s *State) forget(n *node) {
	s.dead.Remove(n.inDead)
	s.joined.Remove(n.inJoined)
	delete(s.nodes, n.id())
	delete(s.owners, n.row.Owner)
	s.view.forget(n)
	row := n.row
	s.remove(&row)
}

func (s *State) putNode(n *node) {
	row := n.row
	row.Available = nil
	s.put(&row)
}

func (s *State) lookup(n *node, m *Lookup) {
	a := &Owned{Req: m.Req, Owner: m.Owner, Version: s.meta.OwnerMoves}
	o := s.owners[m.Owner]
	byNode := m.Owner == 0 && m.Node != ids.NodeID{}
	if byNode {
		if o = s.nodes[m.Node]; o != nil && o.state == Joining {
			o = nil // seen by nobody yet
		}
		a.Node = m.Node
	}
	if o != nil {
		a.Owner = o.row.Owner
	}
	switch {
	case byNode && o == nil:
		a.Message = "no such node is known to the head, or it died long ago"
	case m.Owner == 0 && !byNode || m.Owner >= s.meta.NextOwner:
		s.fail(n, m, faultSystem, "head.Lookup: owner number %d was never given out by this cluster (the last one is %d); the reference comes from another cluster", m.Owner, s.meta.NextOwner-1)
		return
	case o == nil:
		a.Message = "its node died long ago"
	case o.state == Dead:
		a.Node, a.IP, a.Message = o.id(), o.row.Info.IP, o.row.DeathMessage
	default:
		a.Alive, a.Node, a.IP, a.Port, a.ObjectPort = true, o.id(), o.row.Info.IP, o.row.Info.Port, o.row.Info.ObjectPort
	}
	seq := uint64(0)
	if o != nil && o.state == Dead {
		seq = o.died
	}
	s.sendAfter(seq, n.id(), a)
}

// NodeRows are all nodes that are or were members, in the order in which they joined.
func (s *State) NodeRows() []NodeRow {
	rows := make([]NodeRow, 0, s.joined.Len())
	for e := s.joined.Front(); e != nil; e = e.Next() {
		row := e.Value.(*node).row
		row.Available = maps.Clone(row.Available)
		rows = append(rows, row)
	}
	return rows
}

// Totals are the sums of what live nodes have and have free.
func (s *State) Totals() (total, available Resources) {
	total, available = Resources{}, Resources{}
	for e := s.joined.Front(); e != nil; e = e.Next() {
		n := e.Value.(*node)
		if n.state == Dead {
			continue
		}
		for k, v := range n.row.Info.Total {
			total[k] += v
		}
		for k, v := range n.row.Available {
			available[k] += v
		}
	}
	return total, available
}
