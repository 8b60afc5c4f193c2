package session

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"gray/internal/core/fault"

	"golang.org/x/sys/unix"
)

// maxFile bounds what is read of a file in the temp dir: all that belongs there is small.
const maxFile = 1 << 20

func openat(dirfd int, name string, flags int, perm uint32) (*os.File, error) {
	for {
		fd, err := unix.Openat(dirfd, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, perm)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), name), nil
		case !errors.Is(err, unix.EINTR):
			return nil, err
		}
	}
}

func openDir(dirfd int, name string) (*os.File, error) {
	return openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

func stat(f *os.File) (st unix.Stat_t, err error) {
	err = unix.Fstat(int(f.Fd()), &st)
	return st, err
}

// openOwnDir opens a folder that is ours alone; one that others could look into is closed to them first.
func openOwnDir(dirfd int, name string) (*os.File, error) {
	f, err := openDir(dirfd, name)
	if err != nil {
		if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
			err = fmt.Errorf("it must be a real directory, not a symlink or file: %w", err)
		}
		return nil, err
	}
	st, err := stat(f)
	switch {
	case err != nil:
	case int(st.Uid) != os.Getuid():
		err = &foreignError{foreignText(st.Uid)}
	case st.Mode&0o022 != 0:
		err = fmt.Errorf("others may write in it (mode %04o), so what it holds cannot be trusted; remove it", st.Mode&0o7777)
	case st.Mode&0o055 != 0:
		err = f.Chmod(0o700)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readFileAt reads a small regular file that is ours and that nobody else may read or write.
func readFileAt(dirfd int, name string) ([]byte, error) {
	// O_NONBLOCK: a planted fifo must not hang us before it is seen for what it is.
	f, err := openat(dirfd, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readOwn(f)
}

func readOwn(f *os.File) ([]byte, error) {
	st, err := stat(f)
	switch {
	case err != nil:
		return nil, err
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, errors.New("not a regular file")
	case int(st.Uid) != os.Getuid():
		return nil, &foreignError{foreignText(st.Uid)}
	case st.Mode&0o077 != 0:
		return nil, fmt.Errorf("others may read or change it (mode %04o); if you trust it, run: chmod 600 %s", st.Mode&0o7777, f.Name())
	case st.Size > maxFile:
		return nil, fmt.Errorf("%d bytes are too many for this file", st.Size)
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}

func tempName(name string) string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process if the system has no randomness
	return "." + filepath.Base(name) + "." + hex.EncodeToString(b[:])
}

// writeFileAt replaces name (which may have a folder in front) in one step; where is for the error.
func writeFileAt(dirfd int, name string, data []byte, where string) error {
	tmp := filepath.Join(filepath.Dir(name), tempName(name))
	err := func() error {
		f, err := openat(dirfd, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err == nil {
			err = unix.Renameat(dirfd, tmp, dirfd, name)
		}
		if err != nil {
			_ = unix.Unlinkat(dirfd, tmp, 0) // best effort: the first error is the one to tell
		}
		return err
	}()
	if err != nil {
		return &fault.Error{Op: "write", Ref: filepath.Join(where, name), Kind: fault.System, Err: err}
	}
	return nil
}

func trimSpace(b []byte) []byte { return bytes.TrimSpace(b) }
