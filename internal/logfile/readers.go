package logfile

import (
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// fileKey names a file whatever it is renamed to.
type fileKey struct{ dev, ino uint64 }

// The readings that are open in this process, by their files. A reader can't see that a file is cut: what it reads next lies
// elsewhere afterwards. So who cuts one, which this process does for its own workers' files, moves its readers along.
var (
	readersMu sync.Mutex
	readers   = map[fileKey]map[*Reading]bool{} // guarded by readersMu
)

// maxBehind is how many backups a reader that is behind may hold: as long as it does, they take their room on disk.
const maxBehind = 2

// part is a part of a backup that a reader has still to read, from off to its end.
type part struct {
	f   *os.File
	off int64
}

func keyOf(f *os.File) (fileKey, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fileKey{}, os.NewSyscallError("fstat", err)
	}
	return fileKey{st.Dev, st.Ino}, nil
}

func (r *Reading) register() (err error) {
	if r.key, err = keyOf(r.f); err != nil {
		return err
	}
	readersMu.Lock()
	defer readersMu.Unlock()
	if readers[r.key] == nil {
		readers[r.key] = map[*Reading]bool{}
	}
	readers[r.key][r] = true
	return nil
}

func (r *Reading) unregister() {
	readersMu.Lock()
	defer readersMu.Unlock()
	delete(readers[r.key], r)
	if len(readers[r.key]) == 0 {
		delete(readers, r.key)
	}
}

// whileStill runs what cuts f while nobody reads it, and moves its readers along. backup is where the bytes are now; "" if
// they are gone.
func whileStill(f *os.File, backup string, cut func() (Cutting, error)) (Cutting, error) {
	key, err := keyOf(f)
	if err != nil {
		return Cutting{}, err
	}
	readersMu.Lock()
	defer readersMu.Unlock()
	for r := range readers[key] {
		r.mu.Lock()
		defer r.mu.Unlock()
	}
	c, err := cut()
	if err != nil {
		return c, err
	}
	for r := range readers[key] {
		r.movedLocked(c, backup)
	}
	return c, nil
}

func (r *Reading) movedLocked(c Cutting, backup string) {
	if behind := c.To - max(r.off, c.From); behind > 0 {
		r.fallBackLocked(max(r.off, c.From)-c.From, behind, backup)
		r.off = c.To
	}
	if c.Shorter {
		r.off -= c.To
	}
}

// fallBackLocked has a part of a backup read before what is left in the file.
func (r *Reading) fallBackLocked(off, size int64, backup string) {
	f, err := os.Open(backup)
	if err != nil {
		r.lost, r.where = r.lost+size, ""
		return
	}
	r.behind = append(r.behind, part{f, off})
	r.where = filepath.Base(backup)
	for len(r.behind) > maxBehind {
		old := r.behind[0]
		if st, err := old.f.Stat(); err == nil {
			r.lost += st.Size() - old.off
		}
		_ = old.f.Close() // it was only read
		r.behind = r.behind[1:]
	}
}

// readBehindLocked reads from what was cut off before it was read.
func (r *Reading) readBehindLocked(p []byte) int {
	for len(r.behind) > 0 {
		b := &r.behind[0]
		if n, _ := b.f.ReadAt(p, b.off); n > 0 {
			b.off += int64(n)
			return n
		}
		_ = b.f.Close() // it was only read
		r.behind = r.behind[1:]
	}
	return 0
}

// takeLost tells how many bytes were cut off that can't be read any more, once, and which backup may have the latest of them.
func (r *Reading) takeLost() (n int64, where string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, r.lost = r.lost, 0
	return n, r.where
}
