package logfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gray/internal/core/fault"
)

// MaxFiles bounds a list of files.
const MaxFiles = 10_000

// Poll is how often a file that is followed is looked at, unless the one who follows asks for something else.
const Poll = 500 * time.Millisecond

// List are the names of the files in a folder that match a pattern of path.Match; each is relative to the folder. The
// folder may not be left: a pattern is held against names, never against paths outside.
func List(folder, pattern string) (names []string, err error) {
	defer func() {
		if err != nil {
			err = &fault.Error{Op: "list logs", Kind: fault.NotFound, Ref: pattern, Err: err}
		}
	}()
	if pattern == "" {
		pattern = "*"
	}
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." {
			if errors.Is(err, fs.ErrNotExist) { // it went meanwhile
				return nil
			}
			return err
		}
		if d.Type().IsRegular() {
			if ok, err := path.Match(pattern, p); ok && err == nil && len(names) < MaxFiles {
				names = append(names, p)
			}
		}
		return nil
	})
	slices.Sort(names)
	return names, err
}

// Newest is the file that was written last of those that match a pattern, "" if none does.
func Newest(folder, pattern string) (string, error) {
	names, err := List(folder, pattern)
	if err != nil {
		return "", err
	}
	var newest string
	var at time.Time
	for _, name := range names {
		st, err := os.Lstat(filepath.Join(folder, name))
		if err == nil && (newest == "" || st.ModTime().After(at)) {
			newest, at = name, st.ModTime()
		}
	}
	return newest, nil
}

// Reading is a log file that is read. If this process cuts it meanwhile, it goes on where it was.
type Reading struct {
	f   *os.File
	key fileKey

	mu     sync.Mutex
	off    int64  // guarded by mu
	behind []part // guarded by mu; what was cut off before it was read, the oldest first
	lost   int64  // guarded by mu; bytes that were cut off before they were read, and are not in behind
	where  string // guarded by mu; the latest backup
}

// Open opens a file of a folder by its name there. No name and no symbolic link leads out of the folder, and only regular
// files are opened.
func Open(folder, name string) (r *Reading, err error) {
	defer func() {
		if err != nil {
			err = &fault.Error{Op: "read a log", Kind: fault.NotFound, Ref: name, Err: err, Detail: "`ray logs` lists the files of a node"}
		}
	}()
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe must not block
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(err, f.Close(), errors.New("it is no regular file"))
	}
	r = &Reading{f: f}
	if err := r.register(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return r, nil
}

// Close ends the reading.
func (r *Reading) Close() error {
	r.unregister()
	errs := []error{r.f.Close()}
	for _, b := range r.behind {
		errs = append(errs, b.f.Close())
	}
	r.behind = nil
	return errors.Join(errs...)
}

// Offset is where the next byte is read.
func (r *Reading) Offset() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.off
}

// SeekTo sets where the next byte is read.
func (r *Reading) SeekTo(off int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.off = off
}

// Tail moves to the begin of the last n lines, or of the file if n is negative. What a cut left as a hole is passed over.
func (r *Reading) Tail(n int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	st, err := r.f.Stat()
	if err != nil {
		return err
	}
	begin, err := unix.Seek(int(r.f.Fd()), 0, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		begin, err = st.Size(), nil // nothing but a hole, or nothing at all
	}
	if err != nil {
		return os.NewSyscallError("lseek", err)
	}
	r.off = begin
	if n < 0 {
		return nil
	}
	if n == 0 {
		r.off = st.Size()
		return nil
	}
	buf := make([]byte, 64<<10)
	for end := st.Size(); end > begin; {
		k := min(int64(len(buf)), end-begin)
		if _, err := r.f.ReadAt(buf[:k], end-k); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for i := k - 1; i >= 0; i-- {
			if buf[i] != '\n' || end-k+i == st.Size()-1 { // the last line's own end
				continue
			}
			if n--; n == 0 {
				r.off = end - k + i + 1
				return nil
			}
		}
		end -= k
	}
	return nil
}

// Read reads from Offset on. A file that somebody else has cut shorter is read on from its new begin.
func (r *Reading) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.readBehindLocked(p); n > 0 {
		return n, nil
	}
	n, err := r.f.ReadAt(p, r.off)
	if n == 0 && errors.Is(err, io.EOF) {
		st, err := r.f.Stat()
		if err != nil {
			return 0, err
		}
		if st.Size() < r.off {
			r.off = 0
			n, _ = r.f.ReadAt(p, 0)
		}
	}
	r.off += int64(n)
	if n > 0 {
		return n, nil
	}
	return 0, err
}

// Stream writes what there is, and with follow what comes, until ctx ends or the reader of w is gone; flush is called
// after each piece that was written.
func (r *Reading) Stream(ctx context.Context, w io.Writer, follow bool, every time.Duration, flush func()) error {
	if every <= 0 {
		every = Poll
	}
	buf := make([]byte, 64<<10)
	timer := time.NewTimer(every)
	defer timer.Stop()
	for {
		n, err := r.Read(buf)
		if lost, where := r.takeLost(); lost > 0 {
			note := fmt.Sprintf("\n[%d bytes are not shown: they were printed faster than they were read", lost)
			if where != "" {
				note += "; the latest of them may be in " + where
			}
			if _, err := io.WriteString(w, note+"]\n"); err != nil {
				return err
			}
		}
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			flush()
			continue
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if !follow {
			return nil
		}
		timer.Reset(every)
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Component names who writes a file, by Ray's categories.
func Component(name string) string {
	base := path.Base(name)
	is := func(begin string) bool { return strings.HasPrefix(base, begin) }
	switch {
	case is("worker-") && strings.HasSuffix(base, ".out"):
		return "worker_out"
	case is("worker-") && strings.HasSuffix(base, ".err"):
		return "worker_err"
	case is("python-core-worker"):
		return "core_worker"
	case is("python-core-driver"):
		return "driver"
	case is("raylet"):
		return "raylet"
	case is("gcs_server"):
		return "gcs_server"
	case is("monitor"):
		return "autoscaler"
	case is("dashboard_agent"):
		return "agent"
	case is("dashboard"):
		return "dashboard"
	}
	return "internal"
}
