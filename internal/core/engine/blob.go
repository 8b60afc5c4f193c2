package engine

import "math/bits"

// blob names bytes in a blobs store. The zero blob is empty.
type blob struct {
	page, off, n uint32
}

// blobs keeps many small byte strings outside the sight of the garbage collector: pages of equal slots, a size class a
// page, so that a million queued tasks are a few hundred objects to it. A page is dropped when its last slot is freed.
type blobs struct {
	pages   []blobPage // index 0 unused
	spare   []uint32   // numbers of dropped pages
	classes [blobClasses]blobClass
	bytes   int64 // in live slots
}

type blobPage struct {
	data  []byte
	slot  uint32
	live  uint32
	fill  uint32 // slots handed out so far, in order
	free  []uint32
	class uint8
	open  bool // on its class's list of pages with room
}

type blobClass struct{ open []uint32 }

const (
	blobClasses  = 65 // up to 1 MiB
	blobPageSize = 64 << 10
	blobMinSlot  = 16
)

// slotSize rounds n up to a class: four steps for each power of two.
func slotSize(n uint32) (size uint32, class uint8) {
	if n <= blobMinSlot {
		return blobMinSlot, 0
	}
	k := uint32(bits.Len32(n-1)) - 1 // 2^k < n <= 2^(k+1)
	step := uint32(1) << k / 4
	q := (n - 1 - 1<<k) / step // 0..3
	return 1<<k + (q+1)*step, uint8((k-4)*4+q) + 1
}

// put copies b.
func (s *blobs) put(b []byte) blob {
	if len(b) == 0 {
		return blob{}
	}
	h := s.alloc(uint32(len(b)))
	copy(s.get(h), b)
	return h
}

// alloc gives room for n bytes; n > 0.
func (s *blobs) alloc(n uint32) blob {
	size, c := slotSize(n)
	s.bytes += int64(size)
	cl := &s.classes[c]
	if len(cl.open) == 0 {
		if len(s.pages) == 0 {
			s.pages = append(s.pages, blobPage{})
		}
		count := max(blobPageSize/size, 1)
		page := blobPage{data: make([]byte, count*size), slot: size, class: c, open: true}
		if k := len(s.spare); k > 0 {
			s.pages[s.spare[k-1]] = page
			cl.open = append(cl.open, s.spare[k-1])
			s.spare = s.spare[:k-1]
		} else {
			s.pages = append(s.pages, page)
			cl.open = append(cl.open, uint32(len(s.pages)-1))
		}
	}
	pn := cl.open[len(cl.open)-1]
	p := &s.pages[pn]
	var i uint32
	if k := len(p.free); k > 0 {
		i = p.free[k-1]
		p.free = p.free[:k-1]
	} else {
		i = p.fill
		p.fill++
	}
	p.live++
	if len(p.free) == 0 && (p.fill+1)*p.slot > uint32(len(p.data)) {
		p.open = false
		cl.open = cl.open[:len(cl.open)-1]
	}
	return blob{page: pn, off: i * size, n: n}
}

// get is the bytes of b; valid until drop.
func (s *blobs) get(b blob) []byte {
	if b.n == 0 {
		return nil
	}
	return s.pages[b.page].data[b.off : b.off+b.n : b.off+b.n]
}

// drop frees b.
func (s *blobs) drop(b blob) {
	if b.n == 0 {
		return
	}
	p := &s.pages[b.page]
	s.bytes -= int64(p.slot)
	p.live--
	cl := &s.classes[p.class]
	if p.live == 0 && !(p.open && len(cl.open) == 1) { // keep one warm page a class
		if p.open {
			for i, pn := range cl.open {
				if pn == b.page {
					cl.open = append(cl.open[:i], cl.open[i+1:]...)
					break
				}
			}
		}
		*p = blobPage{}
		s.spare = append(s.spare, b.page)
		return
	}
	p.free = append(p.free, b.off/p.slot)
	if !p.open {
		p.open = true
		cl.open = append(cl.open, b.page)
	}
}
