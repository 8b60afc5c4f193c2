// Package schedule decides which node runs tasks of which shape.
//
// A View is what a daemon knows of its cluster. It is pure and belongs to one goroutine. Nodes come and change by
// Upsert, SetAvail, SetDraining and Remove; Pick and PickN choose, and where they need chance it comes from a number
// that the caller draws. A View is never quite up to date: the node that was picked may refuse, and then the caller
// picks again with the newer view that came with the refusal.
//
// What was picked and has not been answered yet is kept apart from what nodes report: PickN reserves what it hands out,
// and Unreserve ends that when the node has answered.
//
// No choice looks at every node. For each class of shapes in use (the same resources and labels) an index says which
// nodes fit it now, in bitmaps by how busy they are; it learns of changes from a log when next it is asked.
//
//	v := schedule.NewView(names)
//	v.Upsert(schedule.Node{ID: a, Total: total, Avail: total})
//	node, outcome := v.Pick(shape, schedule.Options{Local: a, Rand: rng.Uint64()})
package schedule

import (
	"maps"

	"gray/internal/core/ids"
	"gray/internal/core/resource"
)

// Node is what is known of one node.
type Node struct {
	ID       ids.NodeID
	Total    resource.Set
	Avail    resource.Set // as the node reported it
	Labels   map[string]string
	Draining bool // takes no new work
	Queue    int  // tasks that wait at the node's own owner table; for display
}

// node is a Node in the view.
type node struct {
	Node
	live   bool
	free   resource.Set // Avail less what is reserved
	held   resource.Set // reserved
	bucket uint8        // how busy, see bucketOf
	tier   int          // 1 with a GPU
}

// View is a cluster's nodes, indexed for picking.
type View struct {
	names *resource.Names
	byID  map[ids.NodeID]int
	nodes []node
	spare []int // indexes of removed nodes

	// all holds every node that takes work, by bucket.
	all index
	// log lists the nodes that changed, oldest first: index<<1, and 1 if more changed than what is free. logBase is the
	// number of its first entry.
	log     []int32
	logBase uint64

	classes map[resource.ClassID]*index
	clock   uint64    // counts picks, to find the class unused for longest
	seen    [256]seen // picks of classes that have no index yet
	counts  []int     // scratch of PickN: tasks a node
	touched []int     // scratch of PickN: nodes with counts
}

// NewView makes an empty view.
func NewView(names *resource.Names) *View {
	return &View{names: names, byID: map[ids.NodeID]int{}, classes: map[resource.ClassID]*index{}}
}

// Len is the number of nodes.
func (v *View) Len() int { return len(v.byID) }

// Node is what is known of a node. Its sets must not be changed.
func (v *View) Node(id ids.NodeID) (Node, bool) {
	i, ok := v.byID[id]
	if !ok {
		return Node{}, false
	}
	return v.nodes[i].Node, true
}

// Over says whether more of what a task needs is reserved on a node than it has.
func (v *View) Over(id ids.NodeID, need resource.Set) bool {
	i, ok := v.byID[id]
	if !ok {
		return false
	}
	for _, want := range need {
		if v.nodes[i].free.Get(want.Name) < 0 {
			return true
		}
	}
	return false
}

// Free is a node's Avail less what is reserved there. It must not be changed.
func (v *View) Free(id ids.NodeID) resource.Set {
	i, ok := v.byID[id]
	if !ok {
		return nil
	}
	return v.nodes[i].free
}

// Upsert adds a node, or replaces what is known of it. Reservations stay. It is as cheap as SetAvail if no more than
// Avail and Queue have changed.
func (v *View) Upsert(n Node) {
	i, ok := v.byID[n.ID]
	if ok {
		p := &v.nodes[i]
		if p.Draining == n.Draining && p.Total.Equal(n.Total) && maps.Equal(p.Labels, n.Labels) {
			p.Queue = n.Queue
			v.SetAvail(n.ID, n.Avail)
			return
		}
	}
	if !ok {
		if k := len(v.spare); k > 0 {
			i, v.spare = v.spare[k-1], v.spare[:k-1]
		} else {
			i = len(v.nodes)
			v.nodes = append(v.nodes, node{})
			v.counts = append(v.counts, 0)
		}
		v.byID[n.ID] = i
	}
	n.Total, n.Avail = n.Total.Clone(), n.Avail.Clone()
	p := &v.nodes[i]
	p.Node, p.live = n, true
	p.tier = 0
	if n.Total.Get(resource.GPU) > 0 {
		p.tier = 1
	}
	v.refresh(p)
	v.structural(i)
}

// SetAvail notes what a node reports as free.
func (v *View) SetAvail(id ids.NodeID, avail resource.Set) {
	if i, ok := v.byID[id]; ok && !v.nodes[i].Avail.Equal(avail) {
		p := &v.nodes[i]
		p.Avail = append(p.Avail[:0], avail...)
		v.refresh(p)
		v.changed(i)
	}
}

// SetQueue notes the length of a node's queue.
func (v *View) SetQueue(id ids.NodeID, n int) {
	if i, ok := v.byID[id]; ok {
		v.nodes[i].Queue = n
	}
}

// SetDraining notes whether a node takes new work.
func (v *View) SetDraining(id ids.NodeID, draining bool) {
	if i, ok := v.byID[id]; ok && v.nodes[i].Draining != draining {
		v.nodes[i].Draining = draining
		v.structural(i)
	}
}

// Remove forgets a node and what is reserved there.
func (v *View) Remove(id ids.NodeID) {
	i, ok := v.byID[id]
	if !ok {
		return
	}
	delete(v.byID, id)
	v.nodes[i] = node{}
	v.structural(i)
	v.spare = append(v.spare, i)
}

// Reserve counts times need of a node's free resources as taken.
func (v *View) Reserve(id ids.NodeID, need resource.Set, times int) {
	if i, ok := v.byID[id]; ok {
		v.reserve(i, need, int64(times))
		v.changed(i)
	}
}

// Unreserve ends the reservation of times need at a node: it has answered, and what it reports counts what it granted.
func (v *View) Unreserve(id ids.NodeID, need resource.Set, times int) {
	if i, ok := v.byID[id]; ok {
		v.reserve(i, need, -int64(times))
		v.changed(i)
	}
}

func (v *View) reserve(i int, need resource.Set, times int64) {
	p := &v.nodes[i]
	for _, e := range need {
		one := resource.Set{{Name: e.Name, Amount: e.Amount * times}}
		p.free = p.free.Sub(one)
		p.held = addHeld(p.held, one[0])
	}
	p.bucket = bucketOf(p)
}

// addHeld adds to reserved quantities, of which an implicit resource has none by itself.
func addHeld(s resource.Set, e resource.Entry) resource.Set {
	for i := range s {
		if s[i].Name == e.Name {
			s[i].Amount += e.Amount
			return s
		}
	}
	i := 0
	for i < len(s) && s[i].Name < e.Name {
		i++
	}
	s = append(s, resource.Entry{})
	copy(s[i+1:], s[i:])
	s[i] = e
	return s
}

// refresh computes what follows from Total, Avail and held.
func (v *View) refresh(p *node) {
	p.free = append(p.free[:0], p.Avail...).Sub(p.held)
	p.bucket = bucketOf(p)
}

// Buckets: 0 is below half used, the last is all used (or more), between them steps of 5 %.
const buckets = 12

// bucketOf says how busy a node is: by the most used of CPU, memory and object store.
func bucketOf(p *node) uint8 {
	worst := int64(0)
	for _, e := range p.Total {
		if e.Amount <= 0 || e.Name != resource.CPU && e.Name != resource.Memory && e.Name != resource.ObjectStoreMemory {
			continue
		}
		used := e.Amount - p.free.Get(e.Name)
		if used >= e.Amount {
			return buckets - 1
		}
		if e.Amount > 1<<58 { // 20 × used must not overflow
			used, e.Amount = used>>8, e.Amount>>8
		}
		worst = max(worst, used*20/e.Amount)
	}
	if worst < 10 {
		return 0
	}
	return uint8(worst - 9)
}

// takes tells whether the node takes new work.
func (p *node) takes() bool { return p.live && !p.Draining }

// changed notes that what is free at node i has changed.
func (v *View) changed(i int) { v.note(i, 0) }

// structural notes that node i came, went, or changed in what it could ever run.
func (v *View) structural(i int) { v.note(i, 1) }

func (v *View) note(i int, structural int32) {
	p := &v.nodes[i]
	v.all.grow(len(v.nodes))
	v.all.place(i, p.takes(), p.tier, p.bucket)
	v.log = append(v.log, int32(i)<<1|structural)
	if len(v.log) > 4*len(v.nodes)+1024 {
		drop := len(v.log) / 2
		v.log = append(v.log[:0], v.log[drop:]...)
		v.logBase += uint64(drop)
	}
}
