package engine

// slab is a table of records addressed by small integers that stay valid while the record lives. Index 0 is never used.
// Records are kept in chunks, so a pointer from at stays good when the table grows.
type slab[T any] struct {
	chunks [][]T
	free   []uint32
	next   uint32
	live   int
}

const slabChunk = 1024

// alloc gives a zeroed record.
func (s *slab[T]) alloc() (uint32, *T) {
	s.live++
	if n := len(s.free); n > 0 {
		i := s.free[n-1]
		s.free = s.free[:n-1]
		p := s.at(i)
		var zero T
		*p = zero
		return i, p
	}
	s.next++
	i := s.next
	if int(i/slabChunk) == len(s.chunks) {
		s.chunks = append(s.chunks, make([]T, slabChunk))
	}
	return i, s.at(i)
}

func (s *slab[T]) at(i uint32) *T { return &s.chunks[i/slabChunk][i%slabChunk] }

// release returns a record. The whole table is dropped when its last record goes, so that a burst's memory is given back.
func (s *slab[T]) release(i uint32) {
	var zero T
	*s.at(i) = zero
	s.live--
	if s.live == 0 && len(s.chunks) > 1 {
		*s = slab[T]{}
		return
	}
	s.free = append(s.free, i)
}

// limit is one more than the largest index ever used.
func (s *slab[T]) limit() uint32 { return s.next + 1 }
