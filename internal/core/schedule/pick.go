package schedule

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"gray/internal/core/ids"
	"gray/internal/core/resource"
)

// Outcome says what became of a pick.
type Outcome uint8

// The outcomes.
const (
	// Placed: a node that has the resources free.
	Placed Outcome = iota
	// Busy: some node could run it, and none (or not the wanted one) has the resources free now.
	Busy
	// Infeasible: no node of the cluster could run it. It waits for one that can; Explain says what is missing.
	Infeasible
	// Unschedulable: it is bound to a node that is gone or can't run it, or that is busy and it is not to wait. It must fail.
	Unschedulable
)

// String is the outcome in a word.
func (o Outcome) String() string {
	return [...]string{"placed", "busy", "infeasible", "unschedulable"}[o]
}

// LocalityMin is how many bytes of arguments a node must have, at least, to attract a task.
const LocalityMin = 100 << 10

// Locality is how many bytes of a task's arguments a node has.
type Locality struct {
	Node  ids.NodeID
	Bytes uint64
}

// Options of a pick.
type Options struct {
	Local    ids.NodeID // the node that asks; preferred when as idle as the best
	Locality []Locality // in any order
	Rand     uint64     // a fresh random number
}

// Placement is a number of tasks for a node.
type Placement struct {
	Node  ids.NodeID
	Count int
}

// Pick chooses a node for one task of a shape. It reserves nothing.
func (v *View) Pick(s *resource.Shape, o Options) (ids.NodeID, Outcome) {
	i, out := v.choose(s, &o)
	if out != Placed {
		return ids.NodeID{}, out
	}
	return v.nodes[i].ID, Placed
}

// PickN chooses nodes for up to n tasks of a shape, as n picks in a row would, and reserves what they need; the caller
// ends each reservation with Unreserve. It appends to out, one Placement a node. The outcome is Placed if all n have a
// node, else why the next one has none.
func (v *View) PickN(s *resource.Shape, o Options, n int, out []Placement) ([]Placement, Outcome) {
	outcome := Placed
	v.touched = v.touched[:0]
	for n > 0 {
		var i int
		if i, outcome = v.choose(s, &o); outcome != Placed {
			break
		}
		c := v.fill(i, s, n)
		n -= c
		if v.counts[i] == 0 {
			v.touched = append(v.touched, i)
		}
		v.counts[i] += c
		o.Rand = mix(o.Rand)
	}
	for _, i := range v.touched {
		out = append(out, Placement{v.nodes[i].ID, v.counts[i]})
		v.counts[i] = 0
	}
	return out, outcome
}

// fill reserves up to n tasks at node i, until the choice may change: it is full, or counts as busier. SPREAD moves on
// after each.
func (v *View) fill(i int, s *resource.Shape, n int) int {
	p := &v.nodes[i]
	if s.Need.IsZero() && s.Strategy.Kind != resource.StrategySpread {
		return n
	}
	bucket := p.bucket
	c := 0
	for {
		v.reserve(i, s.Need, 1)
		c++
		if c == n || s.Strategy.Kind == resource.StrategySpread || p.bucket != bucket || !p.free.Fits(s.Need) {
			break
		}
	}
	v.changed(i)
	return c
}

// choose is the index of the node for one task: by the first of the shape's sets of labels for which one is free.
func (v *View) choose(s *resource.Shape, o *Options) (int, Outcome) {
	i, out := v.chooseBy(s, o)
	for k := 0; out != Placed && k < len(s.Else); k++ {
		j, other := v.chooseBy(s.Else[k], o)
		if other < out {
			i, out = j, other
		}
	}
	return i, out
}

// chooseBy is choose without the alternatives.
func (v *View) chooseBy(s *resource.Shape, o *Options) (int, Outcome) {
	v.clock++
	switch s.Strategy.Kind {
	case resource.StrategySpread:
		return v.spread(s, o)
	case resource.StrategyNode:
		i, ok := v.byID[s.Strategy.Node]
		able := ok && v.nodes[i].takes() && v.nodes[i].Total.Fits(s.Need) && s.Labels.Match(v.nodes[i].Labels)
		switch {
		case able && v.nodes[i].free.Fits(s.Need):
			return i, Placed
		case able && s.Strategy.Fail && !(s.Strategy.Soft && s.Strategy.Spill):
			return 0, Unschedulable
		case able && !(s.Strategy.Soft && s.Strategy.Spill):
			return 0, Busy
		case !s.Strategy.Soft:
			return 0, Unschedulable
		}
	}
	if i, ok := v.byData(s, o); ok {
		return i, Placed
	}
	return v.hybrid(s, o)
}

// fitsNow tells whether node i can take a task of s now.
func (v *View) fitsNow(i int, s *resource.Shape) bool {
	p := &v.nodes[i]
	return p.takes() && p.free.Fits(s.Need) && s.Labels.Match(p.Labels)
}

// byData is the fitting node with most of the arguments' bytes, if it has LocalityMin; of equals the local one.
func (v *View) byData(s *resource.Shape, o *Options) (int, bool) {
	at := -1
	var most uint64
	for _, l := range o.Locality {
		if l.Bytes < LocalityMin || l.Bytes < most || l.Bytes == most && l.Node != o.Local {
			continue
		}
		if i, ok := v.byID[l.Node]; ok && v.fitsNow(i, s) {
			at, most = i, l.Bytes
		}
	}
	return at, at >= 0
}

func (v *View) spread(s *resource.Shape, o *Options) (int, Outcome) {
	fresh := v.classes[s.Class] == nil
	x := v.index(s)
	if fresh && len(v.nodes) > 0 {
		x.cursor = int(o.Rand % uint64(len(v.nodes))) // not every owner starts at the same node
	}
	i := x.fits.next(x.cursor)
	if i < 0 {
		return 0, x.none()
	}
	x.cursor = i + 1
	return i, Placed
}

// none is the outcome when nothing fits now.
func (x *index) none() Outcome {
	if x.feasible.n > 0 {
		return Busy
	}
	return Infeasible
}

// hybrid packs nodes to half-full, the local one first, and spreads work beyond that.
func (v *View) hybrid(s *resource.Shape, o *Options) (int, Outcome) {
	local := -1
	if i, ok := v.byID[o.Local]; ok {
		local = i
	}
	if !v.worthIndex(s.Class) {
		if i, ok := v.probe(s, local, o.Rand); ok {
			return i, Placed
		}
	}
	x := v.index(s)
	for tier := range tiers {
		if x.count[tier] > 0 {
			return x.pick(tier, local, v.all.fits.n, o.Rand), Placed
		}
	}
	return 0, x.none()
}

// pick chooses in a tier that has members: the local node if none is less busy, else one by chance of the least busy
// fifth of the cluster's nodes, and at least of all that are as little busy as the best.
func (x *index) pick(tier, local, nodes int, rand uint64) int {
	best := 0
	for x.sets[tier][best].n == 0 {
		best++
	}
	others := x.count[tier]
	lt, lb, ok := x.spot(local)
	if ok && lt == tier {
		if int(lb) <= best {
			return local
		}
		others--
	}
	k := int(rand % uint64(max(x.sets[tier][best].n, min(nodes/5, others))))
	for b := best; ; b++ {
		set := &x.sets[tier][b]
		n := set.n
		at := n // local's place among the set's members
		if ok && lt == tier && int(lb) == b {
			n--
			at = set.rank(local)
		}
		if k < n {
			if k >= at {
				k++
			}
			return set.nth(k)
		}
		k -= n
	}
}

// probes is how many nodes of a bucket are tried for a class that has no index.
const probes = 16

// probe picks as hybrid does but without an index, by trying nodes of the least busy buckets. It gives up when a bucket
// has more nodes than it tries and none of those fits. So a class that is used once costs no look at every node.
func (v *View) probe(s *resource.Shape, local int, rand uint64) (int, bool) {
	for tier := range tiers {
		for b := range buckets {
			set := &v.all.sets[tier][b]
			if set.n == 0 {
				continue
			}
			if local >= 0 && set.has(local) && v.fitsNow(local, s) {
				return local, true
			}
			start, tries := int(rand%uint64(set.n)), min(set.n, probes)
			i := set.nth(start)
			for range tries {
				if v.fitsNow(i, s) {
					return i, true
				}
				i = set.next(i + 1)
			}
			if tries < set.n {
				return 0, false
			}
		}
	}
	return 0, false
}

// Explain says for what reasons nodes do not run a shape now, one class of nodes a clause: "3 nodes have 4.0 of the
// 8.0 CPU needed; …". It looks at every node: for display, not for picking.
func (v *View) Explain(s *resource.Shape) string {
	count, enough := map[string]int{}, false
	for i := range v.nodes {
		if p := &v.nodes[i]; p.live {
			count[v.why(p, s)]++
			enough = enough || !slices.ContainsFunc(s.Need, func(e resource.Entry) bool { return p.Total.Get(e.Name) < e.Amount })
		}
	}
	if len(count) == 0 {
		return "the cluster has no node"
	}
	reasons := make([]string, 0, len(count))
	for r, n := range count {
		nodes := "nodes: "
		if n == 1 {
			nodes = "node: "
		}
		reasons = append(reasons, fmt.Sprint(n, " ", nodes, r))
	}
	slices.Sort(reasons)
	text := strings.Join(reasons, "; ")
	if !enough {
		return "no node of the cluster has that much (" + text + "); add a node or ask for less"
	}
	return text
}

// Verdict is what one node lacks for a task.
type Verdict struct {
	Node ids.NodeID
	Why  string
}

// Verdicts says of each node why it does not run a shape now, as Explain does: of most nodes at most, by id, and how many
// more there are.
func (v *View) Verdicts(s *resource.Shape, most int) (list []Verdict, more int) {
	for i := range v.nodes {
		if p := &v.nodes[i]; p.live {
			list = append(list, Verdict{p.ID, v.why(p, s)})
		}
	}
	slices.SortFunc(list, func(a, b Verdict) int { return bytes.Compare(a.Node[:], b.Node[:]) })
	if len(list) > most {
		list, more = list[:most], len(list)-most
	}
	return list, more
}

func (v *View) why(p *node, s *resource.Shape) string {
	if st := s.Strategy; st.Kind == resource.StrategyNode && !st.Soft && st.Node != p.ID {
		return "not the node that the task is bound to"
	}
	if p.Draining {
		return "draining"
	}
	if t, bad := s.Labels.Mismatch(p.Labels); bad && !s.Suits(p.Labels) {
		if have, ok := p.Labels[t.Key]; ok {
			return fmt.Sprintf("label %s is %q, wanted %s", t.Key, have, t)
		}
		return fmt.Sprintf("no label %s, wanted %s", t.Key, t)
	}
	for _, e := range s.Need {
		if have := p.Total.Get(e.Name); have < e.Amount {
			return v.lack("has only", have, e)
		}
	}
	for _, e := range s.Need {
		if have := p.free.Get(e.Name); have < e.Amount {
			return v.lack("has free only", have, e)
		}
	}
	return "fits"
}

func (v *View) lack(verb string, have int64, want resource.Entry) string {
	have = max(have, 0) // more may be reserved than there is
	return fmt.Sprintf("%s %s of %s", verb, v.names.Format(resource.Set{{Name: want.Name, Amount: have}}), v.names.Format(resource.Set{want}))
}

// mix makes the next of a sequence of random numbers (splitmix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
