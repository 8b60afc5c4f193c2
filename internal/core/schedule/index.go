package schedule

import (
	"math/bits"

	"gray/internal/core/resource"
)

// bitset is a set of node indexes with its size.
type bitset struct {
	words []uint64
	n     int
}

func (b *bitset) has(i int) bool { return i>>6 < len(b.words) && b.words[i>>6]>>(i&63)&1 != 0 }

func (b *bitset) put(i int, in bool) {
	if b.has(i) == in {
		return
	}
	for i>>6 >= len(b.words) {
		b.words = append(b.words, 0)
	}
	b.words[i>>6] ^= 1 << (i & 63)
	if in {
		b.n++
	} else {
		b.n--
	}
}

// nth is the k-th member, from 0; there must be one.
func (b *bitset) nth(k int) int {
	for w, word := range b.words {
		c := bits.OnesCount64(word)
		if k >= c {
			k -= c
			continue
		}
		for ; k > 0; k-- {
			word &= word - 1
		}
		return w<<6 + bits.TrailingZeros64(word)
	}
	panic("schedule: bitset has fewer members than it counted")
}

// next is the first member at or after i, else the first of all; -1 if there is none.
func (b *bitset) next(i int) int {
	if b.n == 0 {
		return -1
	}
	if w := i >> 6; w < len(b.words) {
		if word := b.words[w] >> (i & 63); word != 0 {
			return i + bits.TrailingZeros64(word)
		}
		for w++; w < len(b.words); w++ {
			if b.words[w] != 0 {
				return w<<6 + bits.TrailingZeros64(b.words[w])
			}
		}
	}
	return b.nth(0)
}

// Tiers: nodes without a GPU come first. Work that needs one fits none of those.
const tiers = 2

// index says which nodes fit a class now, by tier and bucket.
type index struct {
	need     resource.Set
	labels   resource.Selector
	at       uint64 // the log has been read to here
	used     uint64 // clock of the last pick
	feasible bitset // nodes that could run it when empty
	where    []uint8
	fits     bitset // all that stand somewhere
	sets     [tiers][buckets]bitset
	count    [tiers]int
	cursor   int // of SPREAD: the next pick looks from here
}

func (x *index) grow(n int) {
	for len(x.where) < n {
		x.where = append(x.where, 0)
	}
}

// place puts node i under its tier and bucket, or nowhere.
func (x *index) place(i int, in bool, tier int, bucket uint8) {
	to := uint8(0)
	if in {
		to = 1 + uint8(tier)*buckets + bucket
	}
	from := x.where[i]
	if from == to {
		return
	}
	x.where[i] = to
	if from != 0 {
		t, b := (from-1)/buckets, (from-1)%buckets
		x.sets[t][b].put(i, false)
		x.count[t]--
	}
	if in {
		x.sets[tier][bucket].put(i, true)
		x.count[tier]++
	}
	x.fits.put(i, in)
}

// spot is where node i stands.
func (x *index) spot(i int) (tier int, bucket uint8, ok bool) {
	if i < 0 || i >= len(x.where) || x.where[i] == 0 {
		return 0, 0, false
	}
	w := x.where[i] - 1
	return int(w / buckets), w % buckets, true
}

// update learns of a change of node i.
func (x *index) update(v *View, i int, structural bool) {
	p := &v.nodes[i]
	if structural {
		x.feasible.put(i, p.takes() && p.Total.Fits(x.need) && x.labels.Match(p.Labels))
	}
	x.place(i, x.feasible.has(i) && p.free.Fits(x.need), p.tier, p.bucket)
}

// maxClasses bounds the indexes kept: each takes about four bytes a node.
const maxClasses = 512

// index is the up-to-date index of a shape's class.
func (v *View) index(s *resource.Shape) *index {
	x := v.classes[s.Class]
	end := v.logBase + uint64(len(v.log))
	switch {
	case x == nil:
		if len(v.classes) >= maxClasses {
			v.dropOldest()
		}
		x = &index{need: s.Need, labels: s.Labels}
		v.classes[s.Class] = x
		fallthrough
	case x.at < v.logBase || end-x.at > uint64(2*len(v.nodes)):
		x.grow(len(v.nodes))
		for i := range v.nodes {
			x.update(v, i, true)
		}
	default:
		x.grow(len(v.nodes))
		for _, e := range v.log[x.at-v.logBase:] {
			x.update(v, int(e>>1), e&1 != 0)
		}
	}
	x.at, x.used = end, v.clock
	return x
}

func (v *View) dropOldest() {
	var oldest resource.ClassID
	var at *index
	for c, x := range v.classes {
		if at == nil || x.used < at.used || x.used == at.used && c < oldest {
			oldest, at = c, x
		}
	}
	delete(v.classes, oldest)
}

// seen counts the picks of a class that has no index. Classes share its slots.
type seen struct {
	class resource.ClassID
	picks uint8
}

// worthIndex tells whether a class has been picked for often enough to get an index.
func (v *View) worthIndex(c resource.ClassID) bool {
	if v.classes[c] != nil {
		return true
	}
	s := &v.seen[c%resource.ClassID(len(v.seen))]
	if s.class != c {
		*s = seen{class: c}
	}
	s.picks++
	return s.picks > 3
}

// rank is how many members are below i.
func (b *bitset) rank(i int) int {
	n := 0
	for w := range i >> 6 {
		n += bits.OnesCount64(b.words[w])
	}
	return n + bits.OnesCount64(b.words[i>>6]&(1<<(i&63)-1))
}
