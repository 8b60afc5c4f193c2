package extent

import (
	"fmt"
	"math/bits"
)

// chunk is a span cut into equal slots.
type chunk struct {
	span       *span
	slot       int64
	class      int
	free       int
	prev, next *chunk // among the chunks of the class that have a free slot
	bitmap     [Chunk / Align / 64]uint64
}

// classes are the slot sizes: 64-byte steps up to 512 bytes, then steps of a fifth or, where that is not a whole fraction of a
// chunk, of the next fraction (a quarter at most).
var classes = func() (c []int64) {
	size := int64(0)
	for size < 512 {
		size += Align
		c = append(c, size)
	}
	for size < SmallMax {
		k := (Chunk*5 + size*6 - 1) / (size * 6) // slots a chunk
		for Chunk/k/Align*Align <= size {
			k--
		}
		size = Chunk / k / Align * Align
		c = append(c, size)
	}
	return c
}()

// classOf maps a size in units of Align, rounded up, to its class.
var classOf = func() (t [SmallMax/Align + 1]uint8) {
	class := 0
	for i := range t {
		for classes[class] < int64(i)*Align {
			class++
		}
		t[i] = uint8(class)
	}
	return t
}()

// Pages is what extents of these sizes take of the capacity of an empty allocator.
func Pages(sizes func(yield func(int64) bool)) (total int64) {
	slots := make([]int64, len(classes))
	for size := range sizes {
		if size > SmallMax {
			total += Rounded(size)
		} else {
			slots[classOf[(size+Align-1)/Align]]++
		}
	}
	for class, n := range slots {
		per := Chunk / classes[class]
		total += (n + per - 1) / per * Chunk
	}
	return total
}

func (a *Alloc) allocSlot(size int64) (Granted, bool) {
	class := int(classOf[(size+Align-1)/Align])
	c := a.partial[class]
	var commit Extent
	if c == nil {
		s, fresh, ok := a.allocPages(Chunk, 0)
		if !ok {
			return Granted{}, false
		}
		c = &chunk{span: s, slot: classes[class], class: class, free: int(Chunk / classes[class])}
		for i := range c.free {
			c.bitmap[i/64] |= 1 << (i % 64)
		}
		s.slots = c
		a.chunks[s.off/Chunk] = c
		a.pushPartial(c)
		if fresh {
			commit = s.extent()
		}
	}
	i := 0
	for w, word := range c.bitmap {
		if word != 0 {
			i = w*64 + bits.TrailingZeros64(word)
			break
		}
	}
	c.bitmap[i/64] &^= 1 << (i % 64)
	if c.free--; c.free == 0 {
		a.dropPartial(c)
	}
	return Granted{Extent{c.span.off + int64(i)*c.slot, c.slot}, commit}, true
}

func (a *Alloc) freeSlot(off int64, committed bool) {
	c := a.chunkAt(off)
	if c == nil || (off-c.span.off)%c.slot != 0 {
		panic(fmt.Sprintf("extent: free at %d, where no extent starts", off))
	}
	i := int((off - c.span.off) / c.slot)
	if c.bitmap[i/64]&(1<<(i%64)) != 0 || i >= int(Chunk/c.slot) {
		panic(fmt.Sprintf("extent: free of the slot at %d, which is not in use", off))
	}
	c.bitmap[i/64] |= 1 << (i % 64)
	if c.free++; c.free == 1 {
		a.pushPartial(c)
	}
	if c.free == int(Chunk/c.slot) {
		a.dropPartial(c)
		delete(a.chunks, c.span.off/Chunk)
		a.freePages(c.span, committed)
	}
}

// chunkAt finds the chunk that covers off: it starts in off's stretch of Chunk bytes or in the one before.
func (a *Alloc) chunkAt(off int64) *chunk {
	if c := a.chunks[off/Chunk]; c != nil && c.span.off <= off {
		return c
	}
	if c := a.chunks[off/Chunk-1]; c != nil && off < c.span.off+Chunk {
		return c
	}
	return nil
}

func (a *Alloc) pushPartial(c *chunk) {
	c.prev, c.next = nil, a.partial[c.class]
	if c.next != nil {
		c.next.prev = c
	}
	a.partial[c.class] = c
}

func (a *Alloc) dropPartial(c *chunk) {
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		a.partial[c.class] = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.prev, c.next = nil, nil
}
