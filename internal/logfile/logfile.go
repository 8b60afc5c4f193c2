// Package logfile bounds the files that processes write their output to, and tells when these grow.
//
// The writers hold plain descriptors, opened for appending, and know nothing of it: what C code, threads and children of a
// worker write is kept as well. So a file cannot be replaced by a new one; its beginning is copied to a backup and then
// taken out of it, in one step of the file system, while the writers go on.
package logfile

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"gray/internal/core/fault"
)

// Limit says when a file is cut, and how much is kept of what was cut off.
type Limit struct {
	MaxBytes int64 // of a file; 0: it may grow
	Backups  int   // files of that size that are kept, named as the file with .1 (the latest), .2, …
}

// Cutting is what Cut did.
type Cutting struct {
	From, To int64 // the bytes that are not in the file any more, counted from its begin as it was
	Shorter  bool  // the file is shorter by To; else it has a hole there
}

// Due tells whether a file is to be cut: one of size bytes of which the first start are a hole.
func (l Limit) Due(size, start int64) bool { return l.MaxBytes > 0 && size-start > l.MaxBytes }

// Cut moves what path holds from start on, up to the last whole block, to a new backup. What is written meanwhile stays.
// On file systems that cannot take out a file's beginning (FALLOC_FL_COLLAPSE_RANGE) a hole is made in its place, so the
// file keeps its length and frees its blocks; start of the next Cut is To of this one then.
func (l Limit) Cut(path string, start int64) (c Cutting, err error) {
	defer func() {
		if err != nil {
			err = &fault.Error{Op: "rotate", Kind: fault.System, Ref: path, Err: err, Detail: "the file grows on; set RAY_ROTATION_MAX_BYTES=0 to have it so"}
		}
	}()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return c, err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return c, os.NewSyscallError("fstatfs", err)
	}
	block := max(fs.Bsize, 1)
	c.From, c.To = start, (st.Size()-1)/block*block // the last byte stays: a whole file cannot be taken out
	if c.To <= start {
		return Cutting{}, nil
	}
	if err := l.backup(f, path, c.From, c.To); err != nil {
		return Cutting{}, err
	}
	backup := ""
	if l.Backups > 0 {
		backup = name(path, 1)
	}
	return whileStill(f, backup, func() (Cutting, error) {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_COLLAPSE_RANGE, 0, c.To)
		if err == nil {
			c.Shorter = true
			return c, nil
		}
		if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, c.From, c.To-c.From); err != nil {
			return Cutting{}, os.NewSyscallError("fallocate", err)
		}
		return c, nil
	})
}

// backup copies a part of f to path.1, after it has made room.
func (l Limit) backup(f *os.File, path string, from, to int64) (err error) {
	if l.Backups <= 0 {
		return nil
	}
	for k := l.Backups - 1; k > 0; k-- {
		err := os.Rename(name(path, k), name(path, k+1))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	// Who still reads the last one goes on in it.
	if err := os.Remove(name(path, 1)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	dst, err := os.OpenFile(name(path, 1), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return err
	}
	_, err = io.CopyN(dst, f, to-from) // by copy_file_range, within the kernel
	return err
}

func name(path string, k int) string { return fmt.Sprintf("%s.%d", path, k) }
