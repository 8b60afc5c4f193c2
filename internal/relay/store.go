package relay

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"gray/internal/core/extent"
)

// store is the near half's arena: what its driver has of large values, and writes of them. Its file is in no file system,
// so that a small /dev/shm does not matter. The caller holds the near half's lock.
type store struct {
	file  *os.File
	mem   []byte
	alloc *extent.Alloc
}

// spaceFactor is the length of the address range in capacities: with that much to spare, fragments don't matter.
const spaceFactor = 4

// warmMax is how many bytes of free pages are kept for the next value.
const warmMax = 256 << 20

func openStore(capacity int64) (*store, error) {
	fd, err := unix.MemfdCreate("ray-client-values", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	s := &store{file: os.NewFile(uintptr(fd), "values"), alloc: extent.New(spaceFactor*capacity, capacity)}
	if err := s.file.Truncate(spaceFactor * capacity); err != nil {
		return nil, err
	}
	s.mem, err = unix.Mmap(fd, 0, int(spaceFactor*capacity), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return s, os.NewSyscallError("mmap", err)
}

// room sets bytes aside; false if there are not enough.
func (s *store) room(size int64) (int64, bool) {
	at, ok := s.alloc.Allocate(size, 1)
	s.punch()
	return at.Off, ok
}

func (s *store) free(off int64) {
	s.alloc.Free(off)
	s.alloc.Trim(warmMax)
	s.punch()
}

func (s *store) punch() {
	for _, e := range s.alloc.Punched() {
		// Best effort: the pages are used again when it fails.
		_ = unix.Fallocate(int(s.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, e.Off, e.Size)
	}
}

func (s *store) bytes(off, size int64) []byte { return s.mem[off : off+size : off+size] }

// full says why a value of so many bytes has no room.
func (s *store) full(size int64) string {
	return fmt.Sprintf("the memory of this ray:// client for large values is full: %d bytes were wanted, and %d of %d are taken by values that the program holds; "+
		"drop arrays that were got, or work on the data in tasks instead of bringing it here", size, s.alloc.Used(), s.alloc.Capacity())
}
