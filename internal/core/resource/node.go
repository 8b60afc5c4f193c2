package resource

import "fmt"

// Node is the account of one machine: what it has, what is free, and which accelerator slots are taken.
type Node struct {
	names *Names
	total Set
	avail Set
	slots []slots // one a slotted resource that the node has
}

// slots are the free shares of a resource's instances; each instance has at most Unit.
type slots struct {
	name Name
	free []int64
}

// Instance is a share of one numbered instance: of GPU 2, a half.
type Instance struct {
	Name   Name
	Index  int
	Amount int64
}

// Alloc is what a task or actor holds of a node.
type Alloc struct {
	Need      Set
	Instances []Instance // by name, then index
	Lent      bool       // its CPU is lent while its worker is blocked
}

// NewNode accounts for a machine that has total.
func NewNode(names *Names, total Set) *Node {
	n := &Node{names: names, total: total.Clone(), avail: total.Clone()}
	for _, e := range total {
		if !names.Slotted(e.Name) {
			continue
		}
		sl := slots{name: e.Name}
		for left := e.Amount; left > 0; left -= Unit {
			sl.free = append(sl.free, min(left, Unit))
		}
		n.slots = append(n.slots, sl)
	}
	return n
}

// Total is all that the node has. The caller must not change it.
func (n *Node) Total() Set { return n.total }

// Avail is what is free now; CPU may be negative. The caller must not change it, nor keep it over a change of n.
func (n *Node) Avail() Set { return n.avail }

// Feasible tells whether the node could ever hold need.
func (n *Node) Feasible(need Set) bool { return n.total.Fits(need) && n.wholeSlots(need) }

// wholeSlots tells whether each need of a slotted resource is a share of one instance or a number of whole ones.
func (n *Node) wholeSlots(need Set) bool {
	for _, e := range need {
		if e.Amount > Unit && e.Amount%Unit != 0 && n.names.Slotted(e.Name) {
			return false
		}
	}
	return true
}

// Fits tells whether Alloc would succeed now.
func (n *Node) Fits(need Set) bool {
	if !n.avail.Fits(need) || !n.wholeSlots(need) {
		return false
	}
	for i := range n.slots {
		sl := &n.slots[i]
		q := need.Get(sl.name)
		switch {
		case q == 0:
		case q < Unit:
			if sl.best(q) < 0 {
				return false
			}
		default:
			if int64(sl.whole()) < q/Unit {
				return false
			}
		}
	}
	return true
}

// best is the fullest instance that has q free, so that shares pack and whole instances stay whole; -1 if none has.
func (s *slots) best(q int64) int {
	at := -1
	for i, f := range s.free {
		if f >= q && (at < 0 || f < s.free[at]) {
			at = i
		}
	}
	return at
}

func (s *slots) whole() (n int) {
	for _, f := range s.free {
		if f == Unit {
			n++
		}
	}
	return n
}

// Alloc takes need from what is free, if it is all there. The Alloc aliases need.
func (n *Node) Alloc(need Set) (Alloc, bool) {
	if !n.Fits(need) {
		return Alloc{}, false
	}
	a := Alloc{Need: need}
	for i := range n.slots {
		sl := &n.slots[i]
		q := need.Get(sl.name)
		if q > 0 && q < Unit {
			at := sl.best(q)
			sl.free[at] -= q
			a.Instances = append(a.Instances, Instance{sl.name, at, q})
			continue
		}
		for at := 0; q > 0; at++ {
			if sl.free[at] == Unit {
				sl.free[at] = 0
				q -= Unit
				a.Instances = append(a.Instances, Instance{sl.name, at, Unit})
			}
		}
	}
	n.avail = n.avail.Sub(need)
	return a, true
}

// Free gives back what a holds, and empties a.
func (n *Node) Free(a *Alloc) {
	if a.Lent {
		n.Reclaim(a)
	}
	n.avail = n.avail.Add(a.Need)
	for _, in := range a.Instances {
		for i := range n.slots {
			if n.slots[i].name != in.Name {
				continue
			}
			f := &n.slots[i].free[in.Index]
			if *f += in.Amount; *f > Unit {
				panic(fmt.Sprintf("resource: %s %d given back twice: %s free of 1", n.names.Text(in.Name), in.Index, number(*f)))
			}
		}
	}
	*a = Alloc{}
}

// Keep gives back what a holds beyond keep: it never fails, also while free CPU is below zero. What keep has more of
// than a does not count; a share of a numbered instance is kept whole or not at all.
func (n *Node) Keep(a *Alloc, keep Set) {
	if a.Need.Equal(keep) {
		return
	}
	n.Reclaim(a)
	var kept, rest Set
	for _, e := range a.Need {
		have := int64(0)
		if k, ok := keep.find(e.Name); ok {
			have = min(keep[k].Amount, e.Amount)
		}
		if have > 0 && n.names.Slotted(e.Name) {
			have = e.Amount
		}
		if have > 0 {
			kept = append(kept, Entry{e.Name, have})
		}
		if have < e.Amount {
			rest = append(rest, Entry{e.Name, e.Amount - have})
		}
	}
	back := Alloc{Need: rest}
	var instances []Instance
	for _, in := range a.Instances {
		if kept.Has(in.Name) {
			instances = append(instances, in)
		} else {
			back.Instances = append(back.Instances, in)
		}
	}
	*a = Alloc{Need: kept, Instances: instances}
	n.Free(&back)
}

// Lend makes a's CPU free for others while its worker is blocked. Lending twice is lending once.
func (n *Node) Lend(a *Alloc) {
	if !a.Lent {
		a.Lent = true
		n.avail = n.avail.Add(a.Need.CPUOnly())
	}
}

// Reclaim takes a's lent CPU back at once; free CPU may go below zero, and nothing fits until it is not.
func (n *Node) Reclaim(a *Alloc) {
	if a.Lent {
		a.Lent = false
		n.avail = n.avail.Sub(a.Need.CPUOnly())
	}
}
