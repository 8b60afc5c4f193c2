// Package arena is the shared memory that objects live in: one file, mapped by the daemon and by its clients.
//
// The file has no name. It is made with O_TMPFILE, or where a file system lacks that made O_EXCL under a random name and
// unlinked before it is used; clients get its descriptor over their Unix socket. So nobody can plant or guess it, and the
// kernel gives its memory back when the last process that has it is gone, whatever killed them. (Only where O_TMPFILE is
// missing, a kill between the two system calls leaves an empty file; on NFS, whose clients rename what is unlinked, so does a
// crash of the machine. /dev/shm is neither.)
//
// The file is sparse and several times as long as the capacity: offsets are cheap, pages are not. Which bytes are used is
// decided elsewhere (core/extent, core/memory); an Arena only makes pages exist (Ensure), gives them back (Punch) and shows
// them (Bytes). Pages are made before bytes are handed out, because a page that can't be made later is a SIGBUS in whoever
// touches it. All sizes and offsets are bytes; methods may be called from any goroutine.
package arena

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"gray/internal/core/extent"
	"gray/internal/core/fault"
)

// SpaceFactor is the length of the address range in capacities: with that much to spare, fragments don't matter.
const SpaceFactor = 4

// ensureStep bounds one fallocate: a signal makes tmpfs undo a whole call, and the Go runtime sends itself signals.
const ensureStep = 16 << 20

// Arena is an open arena.
type Arena struct {
	file     *os.File
	mem      []byte
	capacity int64
	dir      string
	noPunch  bool // the file system has no holes: what was made stays

	ensured atomic.Int64 // bytes made since Open
	punched atomic.Int64 // bytes given back since Open
}

// Open makes an arena as planned (see Plan).
func Open(p Plan) (*Arena, error) {
	capacity := p.Capacity / extent.Page * extent.Page
	if capacity <= 0 {
		return nil, &fault.Error{
			Op: "arena.Open", Kind: fault.System, Ref: p.Dir,
			Detail: fmt.Sprintf("a capacity of %d bytes is less than a page", p.Capacity),
		}
	}
	f, err := unnamed(p.Dir)
	if err != nil {
		return nil, &fault.Error{
			Op: "arena.Open", Kind: fault.System, Ref: p.Dir, Err: err,
			Detail: "can't make the object store's file; check that the folder exists and is writable",
		}
	}
	a := &Arena{file: f, capacity: capacity, dir: p.Dir}
	space := capacity * SpaceFactor
	if !a.hasHoles() {
		a.noPunch = true
		space = capacity // addresses would be pages for good
	}
	if err := f.Truncate(space); err != nil {
		f.Close()
		return nil, &fault.Error{
			Op: "arena.Open", Kind: fault.System, Ref: p.Dir, Err: err,
			Detail: fmt.Sprintf("can't make a sparse file of %s; check ulimit -f and the file system", extent.Human(space)),
		}
	}
	a.mem, err = unix.Mmap(int(f.Fd()), 0, int(space), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		f.Close()
		return nil, &fault.Error{
			Op: "arena.Open", Kind: fault.System, Ref: p.Dir, Err: err,
			Detail: fmt.Sprintf("can't map %s of address range; check ulimit -v", extent.Human(space)),
		}
	}
	// A core dump of the daemon is about the daemon, not about gigabytes of objects. Old kernels may refuse; nothing depends on it.
	_ = unix.Madvise(a.mem, unix.MADV_DONTDUMP)
	return a, nil
}

// unnamed opens a file in dir that has no name.
func unnamed(dir string) (*os.File, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	})
	if err == nil {
		return os.NewFile(uintptr(fd), filepath.Join(dir, "(object store)")), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	return namedOnce(dir)
}

// namedOnce is unnamed for file systems without O_TMPFILE.
func namedOnce(dir string) (*os.File, error) {
	name := filepath.Join(dir, "gray-"+rand.Text())
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(name); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// hasHoles tries whether pages can be given back.
func (a *Arena) hasHoles() bool {
	return a.file.Truncate(extent.Page) == nil && a.punchRange(extent.Extent{Size: extent.Page}) == nil
}

// Close unmaps the arena. Nothing may use its bytes any more: not a transfer, not a view.
func (a *Arena) Close() error {
	mem := a.mem
	a.mem = nil
	return errors.Join(unix.Munmap(mem), a.file.Close())
}

// File is the arena's file, to be passed to clients and to sendfile. Its read offset is shared: read with ReadAt only.
func (a *Arena) File() *os.File { return a.file }

// Capacity is the number of bytes that may exist at once.
func (a *Arena) Capacity() int64 { return a.capacity }

// Space is the length of the address range: the size that clients map.
func (a *Arena) Space() int64 { return int64(len(a.mem)) }

// Bytes shows a range. The slice is valid until Close; its capacity ends where it ends. A range outside the arena is a bug of
// the caller and panics.
func (a *Arena) Bytes(off, size int64) []byte { return a.mem[off : off+size : off+size] }

// Ensure makes the pages of a range exist, so that touching them can't fail. The range has no pages yet (extent.Granted's
// Commit). It takes up to a second for some gigabytes. On an error none of the pages stays.
func (a *Arena) Ensure(e extent.Extent) error {
	for off := e.Off; off < e.End(); {
		n := min(ensureStep, e.End()-off)
		err := interruptible(func() error { return unix.Fallocate(int(a.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, off, n) })
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
			err = a.fill(off, n)
		}
		if err != nil {
			failed := a.full(e, err)
			if undo := a.Punch(extent.Extent{Off: e.Off, Size: off + n - e.Off}); undo != nil {
				return errors.Join(failed, undo)
			}
			return failed
		}
		off += n
	}
	a.ensured.Add(e.Size)
	return nil
}

// fill makes pages by writing them, for file systems without fallocate.
func (a *Arena) fill(off, n int64) error {
	var zeros [64 << 10]byte
	for n > 0 {
		w, err := a.file.WriteAt(zeros[:min(n, int64(len(zeros)))], off)
		if err != nil {
			return err
		}
		off, n = off+int64(w), n-int64(w)
	}
	return nil
}

func (a *Arena) full(e extent.Extent, cause error) error {
	detail := fmt.Sprintf("the object store can't get %s of memory", extent.Human(e.Size))
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(a.file.Fd()), &fs); err == nil {
		detail += fmt.Sprintf(": %s has %s free of %s, and the store's capacity is %s; make room there, or start with a smaller --object-store-memory",
			a.dir, extent.Human(int64(fs.Bavail)*fs.Bsize), extent.Human(int64(fs.Blocks)*fs.Bsize), extent.Human(a.capacity))
	}
	return &fault.Error{Op: "arena.Ensure", Kind: fault.StoreFull, Detail: detail, Err: cause}
}

// Punch gives the pages of a range back to the system; whoever reads it later sees zeros.
func (a *Arena) Punch(e extent.Extent) error {
	if a.noPunch || e.Size == 0 {
		return nil
	}
	if err := a.punchRange(e); err != nil {
		return &fault.Error{Op: "arena.Punch", Kind: fault.System, Ref: fmt.Sprintf("%d+%d", e.Off, e.Size), Err: err}
	}
	a.punched.Add(e.Size)
	return nil
}

func (a *Arena) punchRange(e extent.Extent) error {
	return interruptible(func() error {
		return unix.Fallocate(int(a.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, e.Off, e.Size)
	})
}

// Stats are figures since Open.
type Stats struct {
	Ensured, Punched int64 // bytes made and given back
	Resident         int64 // bytes whose pages exist now, or -1
}

// Stats reads the arena's figures.
func (a *Arena) Stats() Stats {
	s := Stats{Ensured: a.ensured.Load(), Punched: a.punched.Load(), Resident: -1}
	var st unix.Stat_t
	if err := unix.Fstat(int(a.file.Fd()), &st); err == nil {
		s.Resident = st.Blocks * 512
	}
	return s
}

func interruptible(f func() error) error {
	_, err := retry(func() (struct{}, error) { return struct{}{}, f() })
	return err
}

// retry repeats a system call that a signal interrupted.
func retry[T any](f func() (T, error)) (T, error) {
	for {
		v, err := f()
		if !errors.Is(err, unix.EINTR) {
			return v, err
		}
	}
}
