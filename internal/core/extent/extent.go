// Package extent decides which bytes of a shared address range belong to whom. It is the arena's allocator without the
// arena: offsets in, offsets out, no I/O.
//
// The range is several times the capacity, so fragments seldom matter; what is limited is the number of bytes whose pages
// exist. A byte range is in one of three states: a hole (no pages), used, or warm (free, but its pages still exist and are
// mapped by the process that wrote it last). Used and warm together never exceed the capacity: Allocate punches the coldest
// warm ranges when it needs new pages, and lists them in Punched. Warm ranges go back to the owner that wrote them, because
// the first touch of a fresh page costs twenty times a write to a touched one.
//
// Ranges over 16 KiB are page-aligned and whole pages. Smaller ones share chunks of 64 KiB cut into equal slots, aligned to
// 64 bytes. All quantities are bytes. An Alloc belongs to one goroutine.
package extent

import (
	"fmt"
)

const (
	// Align is the alignment of every extent.
	Align = 64
	// Page is the unit in which capacity is counted.
	Page = 4096
	// Chunk is the size of a run of equal small slots.
	Chunk = 64 << 10
	// SmallMax is the largest extent that is a slot of a chunk.
	SmallMax = 16 << 10
)

// Extent is a range of bytes of the arena. Size is what was set aside, at least what was asked for.
type Extent struct{ Off, Size int64 }

// End is the first offset after e.
func (e Extent) End() int64 { return e.Off + e.Size }

// Granted is the outcome of Allocate.
type Granted struct {
	Extent
	// Commit is the range whose pages don't exist yet; Size 0 when all do. For a slot it is the whole new chunk, which must
	// be committed before another slot of it is handed out.
	Commit Extent
}

type spanState uint8

const (
	hole spanState = iota
	warm
	used
)

// span is a run of pages. Spans form a list in address order that covers the whole range.
type span struct {
	off, size    int64
	prev, next   *span
	older, newer *span // among warm spans, by time of freeing
	owner        uint64
	seq          uint64 // for a warm span: when it was freed
	state        spanState
	slots        *chunk // the chunk that the span is, or nil
}

func (s *span) extent() Extent { return Extent{s.off, s.size} }

// Alloc is the allocator. The zero value is not usable; see New.
type Alloc struct {
	space, capacity  int64
	usedBytes, warmB int64
	seq              uint64

	first            *span
	byOff            map[int64]*span // used spans
	holes            tree            // (0, size, off)
	owned            tree            // warm: (owner, size, newest first)
	anyWarm          tree            // warm: (0, size, newest first)
	coldest, hottest *span
	punched          []Extent

	partial []*chunk         // chunks with a free slot, per class
	chunks  map[int64]*chunk // by off / Chunk: at most one chunk starts in each such stretch
}

// New makes an allocator of capacity bytes over an address range of space bytes. Both are rounded down to pages; space is at
// least capacity.
func New(space, capacity int64) *Alloc {
	capacity = capacity / Page * Page
	space = max(space/Page*Page, capacity)
	a := &Alloc{
		space: space, capacity: capacity,
		byOff: map[int64]*span{}, chunks: map[int64]*chunk{}, partial: make([]*chunk, len(classes)),
	}
	if space > 0 {
		a.first = &span{size: space}
		a.index(a.first)
	}
	return a
}

// Capacity is the limit on bytes whose pages exist.
func (a *Alloc) Capacity() int64 { return a.capacity }

// Space is the size of the address range.
func (a *Alloc) Space() int64 { return a.space }

// Used is the number of bytes in pages that hold extents.
func (a *Alloc) Used() int64 { return a.usedBytes }

// Warm is the number of free bytes whose pages still exist.
func (a *Alloc) Warm() int64 { return a.warmB }

// Rounded is size in whole pages: what a large extent takes of the capacity.
func Rounded(size int64) int64 {
	return (size + Page - 1) &^ (Page - 1)
}

// Allocate sets size bytes aside for a process (owner 0: nobody in particular). False means that they don't fit now: either
// the capacity is used, or no free stretch of addresses is long enough.
func (a *Alloc) Allocate(size int64, owner uint64) (Granted, bool) {
	if size < 0 {
		panic(fmt.Sprintf("extent: size %d", size))
	}
	if size <= SmallMax {
		return a.allocSlot(size)
	}
	if size > a.capacity {
		return Granted{}, false // also keeps Rounded from overflowing
	}
	s, commit, ok := a.allocPages(Rounded(size), owner)
	if !ok {
		return Granted{}, false
	}
	g := Granted{Extent: s.extent()}
	if commit {
		g.Commit = g.Extent
	}
	return g, true
}

// Free gives the extent that starts at off back; its pages stay warm for the process it was allocated for.
func (a *Alloc) Free(off int64) { a.free(off, true) }

// Uncommitted gives back an extent whose pages could not be made: it becomes a hole.
func (a *Alloc) Uncommitted(off int64) { a.free(off, false) }

func (a *Alloc) free(off int64, committed bool) {
	if s := a.byOff[off]; s != nil && s.slots == nil {
		a.freePages(s, committed)
		return
	}
	a.freeSlot(off, committed)
}

// Forget makes a dead process's warm bytes anybody's.
func (a *Alloc) Forget(owner uint64) {
	if owner == 0 {
		return
	}
	for {
		s := a.owned.ceil(key{a: owner})
		if s == nil || s.owner != owner {
			return
		}
		a.unindex(s)
		s.owner = 0
		a.insertWarm(a.merge(s))
	}
}

// Trim punches the coldest warm bytes until at most keep are left.
func (a *Alloc) Trim(keep int64) {
	for a.warmB > keep && a.coldest != nil {
		a.punch(a.coldest)
	}
}

// Punched returns, once, the ranges whose pages must now be given back to the system, before any Commit that came after.
func (a *Alloc) Punched() []Extent {
	p := a.punched
	a.punched = nil
	return p
}

// allocPages finds n bytes of whole pages: what the owner wrote last; what nobody or somebody else wrote, of about that size;
// new pages while the capacity has room for them; a part of somebody's larger stretch; new pages for the coldest old ones.
func (a *Alloc) allocPages(n int64, owner uint64) (s *span, commit, ok bool) {
	if a.usedBytes+n > a.capacity {
		return nil, false, false
	}
	if s := a.owned.ceil(key{a: owner, b: uint64(n)}); s != nil && s.owner == owner {
		return a.take(s, n, owner), false, true
	}
	if s := a.owned.ceil(key{b: uint64(n)}); s != nil && s.owner == 0 {
		return a.take(s, n, owner), false, true
	}
	other := a.anyWarm.ceil(key{b: uint64(n)})
	if other != nil && other.size <= 2*n {
		return a.take(other, n, owner), false, true
	}
	if a.usedBytes+a.warmB+n <= a.capacity {
		if h := a.holes.ceil(key{b: uint64(n)}); h != nil {
			return a.take(h, n, owner), true, true
		}
	}
	if other != nil {
		return a.take(other, n, owner), false, true
	}
	for {
		if a.usedBytes+a.warmB+n <= a.capacity {
			if h := a.holes.ceil(key{b: uint64(n)}); h != nil {
				return a.take(h, n, owner), true, true
			}
		}
		if a.coldest == nil {
			return nil, false, false
		}
		a.punch(a.coldest)
	}
}

// take cuts n bytes off the front of a free span and marks them used.
func (a *Alloc) take(s *span, n int64, owner uint64) *span {
	a.unindexKeepAge(s)
	if s.size > n {
		rest := &span{off: s.off + n, size: s.size - n, state: s.state, owner: s.owner, seq: s.seq, prev: s, next: s.next}
		if s.next != nil {
			s.next.prev = rest
		}
		s.next = rest
		s.size = n
		if rest.state == warm {
			rest.older, rest.newer = s.older, s.newer
			a.relink(rest)
		}
		a.indexTrees(rest)
	} else if s.state == warm {
		a.unlink(s)
	}
	if s.state == warm {
		a.warmB -= n
	}
	s.older, s.newer = nil, nil
	s.state, s.owner = used, owner
	a.usedBytes += n
	a.byOff[s.off] = s
	return s
}

func (a *Alloc) freePages(s *span, committed bool) {
	if s.state != used {
		panic(fmt.Sprintf("extent: free of %d bytes at %d that are not in use", s.size, s.off))
	}
	delete(a.byOff, s.off)
	a.usedBytes -= s.size
	s.slots = nil
	if !committed {
		s.state = hole
		a.index(a.merge(s))
		return
	}
	a.warmB += s.size
	s.state = warm
	a.insertWarm(a.merge(s))
}

// insertWarm puts a warm span at the hot end.
func (a *Alloc) insertWarm(s *span) {
	a.seq++
	s.seq = a.seq
	s.older, s.newer = a.hottest, nil
	a.relink(s)
	a.indexTrees(s)
}

func (a *Alloc) punch(s *span) {
	a.unindex(s)
	a.warmB -= s.size
	a.punched = append(a.punched, s.extent())
	s.state, s.owner = hole, 0
	a.index(a.merge(s))
}

// merge joins s, which is in no index, with neighbours of the same state and owner.
func (a *Alloc) merge(s *span) *span {
	same := func(n *span) bool {
		return n != nil && n.state == s.state && (s.state == hole || n.owner == s.owner)
	}
	if n := s.next; same(n) {
		a.unindex(n)
		s.size += n.size
		s.next = n.next
		if n.next != nil {
			n.next.prev = s
		}
	}
	if p := s.prev; same(p) {
		a.unindex(p)
		p.size += s.size
		p.next = s.next
		if s.next != nil {
			s.next.prev = p
		}
		s = p
	}
	return s
}

// index enters a hole; insertWarm does so for warm spans.
func (a *Alloc) index(s *span) {
	s.owner = 0
	a.indexTrees(s)
}

func (a *Alloc) indexTrees(s *span) {
	if s.state == hole {
		a.holes.insert(key{b: uint64(s.size), c: uint64(s.off)}, s)
		return
	}
	a.owned.insert(key{s.owner, uint64(s.size), ^s.seq}, s)
	a.anyWarm.insert(key{0, uint64(s.size), ^s.seq}, s)
}

func (a *Alloc) unindexKeepAge(s *span) {
	if s.state == hole {
		a.holes.remove(key{b: uint64(s.size), c: uint64(s.off)})
		return
	}
	a.owned.remove(key{s.owner, uint64(s.size), ^s.seq})
	a.anyWarm.remove(key{0, uint64(s.size), ^s.seq})
}

func (a *Alloc) unindex(s *span) {
	a.unindexKeepAge(s)
	if s.state == warm {
		a.unlink(s)
	}
}

// relink makes s's neighbours in age point to it.
func (a *Alloc) relink(s *span) {
	if s.older != nil {
		s.older.newer = s
	} else {
		a.coldest = s
	}
	if s.newer != nil {
		s.newer.older = s
	} else {
		a.hottest = s
	}
}

func (a *Alloc) unlink(s *span) {
	if s.older != nil {
		s.older.newer = s.newer
	} else {
		a.coldest = s.newer
	}
	if s.newer != nil {
		s.newer.older = s.older
	} else {
		a.hottest = s.older
	}
	s.older, s.newer = nil, nil
}

// Human renders bytes for people.
func Human(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}
