// Package session owns what a cluster keeps in the temp dir of a machine: the root folder, one folder a session, the
// files by which nodes are found (nodes/<id>.json), the sockets' places and the token.
//
// Nothing in the temp dir is trusted for its name: a folder or file counts only if it is no symlink and belongs to our
// uid, and secret ones only if nobody else may read them. Every look-up goes from an open directory to a name in it, so
// nothing can be swapped between the check and the use. A session is alive while a process holds its folder's lock
// (Dir.Close, or the process's end, lets it go); a node is alive while its pid with its start time is.
package session

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"gray/internal/core/fault"

	"golang.org/x/sys/unix"
)

// Names below a root.
const (
	LatestLink     = "session_latest"
	CurrentCluster = "ray_current_cluster"
)

// Keep is how many sessions stay in a root.
const Keep = 10

const defaultRoot = "/tmp/ray"

// Root is an open temp dir that has been checked.
type Root struct {
	Path string // absolute
	dir  *os.File
}

// OpenRoot opens the temp dir, and makes it if it is missing: tempDir if given, else $RAY_TMPDIR/ray, else /tmp/ray, or
// /tmp/ray-<uid> when /tmp/ray is another user's.
func OpenRoot(tempDir string) (*Root, error) { return openRoot(tempDir, true) }

// FindRoot opens the temp dir without making it; a missing one is os.ErrNotExist.
func FindRoot(tempDir string) (*Root, error) { return openRoot(tempDir, false) }

func openRoot(tempDir string, create bool) (*Root, error) {
	path, given := tempDir, true
	if path == "" {
		if base := os.Getenv("RAY_TMPDIR"); base != "" {
			path = filepath.Join(base, "ray")
		} else {
			path, given = defaultRoot, false
		}
	}
	return openRootAt(path, given, create)
}

func openRootAt(path string, given, create bool) (*Root, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, rootError(path, "", err)
	}
	r, err := checkRoot(path, given, create)
	var foreign *foreignError
	if !given && errors.As(err, &foreign) {
		return checkRoot(fmt.Sprintf("%s-%d", path, os.Getuid()), false, create)
	}
	return r, err
}

type foreignError struct{ what string }

func (e *foreignError) Error() string { return e.what }

func rootError(path, detail string, err error) error {
	return &fault.Error{Op: "open temp dir", Ref: path, Kind: fault.System, Detail: detail, Err: err}
}

func checkRoot(path string, given, create bool) (*Root, error) {
	if create {
		// Something else of that name is told of below.
		if err := os.MkdirAll(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) && !errors.Is(err, unix.ENOTDIR) {
			return nil, rootError(path, "choose another with --temp-dir", err)
		}
	}
	dir, err := openDir(unix.AT_FDCWD, path)
	if err != nil {
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			detail := "it must be a real directory, not a symlink or file; remove it or choose another with --temp-dir"
			return nil, rootError(path, detail, err)
		}
		// A folder that we may not even open is another's: that is the common case of two users on one machine.
		var st unix.Stat_t
		if errors.Is(err, unix.EACCES) && unix.Lstat(path, &st) == nil && int(st.Uid) != os.Getuid() {
			return nil, rootError(path, "choose another with --temp-dir", &foreignError{foreignText(st.Uid)})
		}
		return nil, rootError(path, "", err)
	}
	st, err := stat(dir)
	if err != nil {
		dir.Close()
		return nil, rootError(path, "", err)
	}
	switch {
	case int(st.Uid) != os.Getuid():
		dir.Close()
		return nil, rootError(path, "choose another with --temp-dir", &foreignError{foreignText(st.Uid)})
	case st.Mode&0o022 == 0 || st.Mode&unix.S_ISVTX != 0:
	case given:
		dir.Close()
		return nil, rootError(path, fmt.Sprintf("others may write in it (mode %04o); run: chmod 700 %s", st.Mode&0o7777, path), nil)
	default: // Ray itself leaves /tmp/ray open to all; what is in it is checked one by one
		if err := dir.Chmod(0o700); err != nil {
			dir.Close()
			return nil, rootError(path, "others may write in it", err)
		}
	}
	return &Root{Path: path, dir: dir}, nil
}

func foreignText(uid uint32) string {
	return fmt.Sprintf("it belongs to uid %d, and this process is uid %d", uid, os.Getuid())
}

// Close lets the root's descriptor go.
func (r *Root) Close() error { return r.dir.Close() }

func (r *Root) fd() int { return int(r.dir.Fd()) }

// nameForm: a 9 stands for any digit. Not a regexp, whose compilation every command would pay for at its start.
const nameForm = "session_9999-99-99_99-99-99_999999_"

// ValidName reports whether name has the form of a session's name. Names come from other machines, too.
func ValidName(name string) bool {
	if len(name) <= len(nameForm) || len(name) >= 64 {
		return false
	}
	for i := range len(name) {
		digit := name[i] >= '0' && name[i] <= '9'
		if i >= len(nameForm) || nameForm[i] == '9' {
			if !digit {
				return false
			}
		} else if name[i] != nameForm[i] {
			return false
		}
	}
	return true
}

// Name is the name of a session that starts at t (local time) in process pid.
func Name(t time.Time, pid int) string {
	return "session_" + t.Format("2006-01-02_15-04-05") + fmt.Sprintf("_%06d_%d", t.Nanosecond()/1000, pid)
}

// Dir is an open session folder, locked as alive until Close.
type Dir struct {
	Path string
	Name string
	dir  *os.File
}

// Create makes a new session folder for this process.
func (r *Root) Create(now time.Time) (*Dir, error) {
	for range 100 {
		name := Name(now, os.Getpid())
		d, err := r.open(name, true)
		if err == nil {
			return d, nil
		}
		if !errors.Is(err, os.ErrExist) && !errors.Is(err, errVanished) {
			return nil, err
		}
		now = now.Add(time.Microsecond)
	}
	return nil, rootError(r.Path, "no free session name after 100 tries", nil)
}

// OpenOrCreate opens the session of that name (which the head gave), made here if this machine has none yet.
func (r *Root) OpenOrCreate(name string) (*Dir, error) {
	if !ValidName(name) {
		return nil, &fault.Error{Op: "open session", Ref: strconv.Quote(name), Kind: fault.Protocol, Detail: "not a session name"}
	}
	for range 100 {
		d, err := r.open(name, true)
		if errors.Is(err, os.ErrExist) {
			d, err = r.open(name, false)
		}
		if !errors.Is(err, errVanished) {
			return d, err
		}
	}
	return nil, &fault.Error{Op: "open session", Ref: name, Kind: fault.System, Detail: "it is removed as fast as it is made"}
}

// errVanished: a cleaner removed the folder between its making and its locking.
var errVanished = errors.New("session folder was removed meanwhile")

func (r *Root) open(name string, create bool) (*Dir, error) {
	path := filepath.Join(r.Path, name)
	fail := func(err error) (*Dir, error) {
		return nil, &fault.Error{Op: "open session", Ref: path, Kind: fault.System, Err: err}
	}
	if create {
		if err := unix.Mkdirat(r.fd(), name, 0o700); err != nil {
			return fail(err)
		}
	}
	dir, err := openOwnDir(r.fd(), name)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = errVanished
		}
		return fail(err)
	}
	d := &Dir{Path: path, Name: name, dir: dir}
	if err := d.hold(r); err != nil {
		d.Close()
		return fail(err)
	}
	for _, sub := range []string{"logs", "sockets", "nodes"} {
		if err := unix.Mkdirat(d.fd(), sub, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			d.Close()
			return fail(fmt.Errorf("%s: %w", sub, err))
		}
		f, err := openOwnDir(d.fd(), sub)
		if err != nil {
			d.Close()
			return fail(fmt.Errorf("%s: %w", sub, err))
		}
		f.Close()
	}
	return d, nil
}

// hold takes the lock that keeps cleaners away. One may have been at work already: then the folder has lost its name.
func (d *Dir) hold(r *Root) error {
	for {
		err := unix.Flock(d.fd(), unix.LOCK_SH)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	held, err := stat(d.dir)
	if err != nil {
		return err
	}
	var named unix.Stat_t
	if unix.Fstatat(r.fd(), d.Name, &named, unix.AT_SYMLINK_NOFOLLOW) != nil || named.Ino != held.Ino {
		return errVanished
	}
	return nil
}

// Close ends this process's hold on the session; the folder stays.
func (d *Dir) Close() error { return d.dir.Close() }

func (d *Dir) fd() int { return int(d.dir.Fd()) }

// LogDir is the folder of the session's logs.
func (d *Dir) LogDir() string { return filepath.Join(d.Path, "logs") }

// WriteFile puts data into name below the session, atomically and readable by its owner only.
func (d *Dir) WriteFile(name string, data []byte) error {
	return writeFileAt(d.fd(), name, data, d.Path)
}

// ReadFile reads a file of the session that is ours and nobody else's to read.
func (d *Dir) ReadFile(name string) ([]byte, error) { return readFileAt(d.fd(), name) }

// Remove removes a file of the session; a missing one is no error.
func (d *Dir) Remove(name string) error {
	if err := unix.Unlinkat(d.fd(), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fault.Error{Op: "remove", Ref: filepath.Join(d.Path, name), Kind: fault.System, Err: err}
	}
	return nil
}

// SetLatest points session_latest at the session.
func (r *Root) SetLatest(name string) error {
	tmp := tempName(LatestLink)
	err := unix.Symlinkat(filepath.Join(r.Path, name), r.fd(), tmp)
	if err == nil {
		err = unix.Renameat(r.fd(), tmp, r.fd(), LatestLink)
		if err != nil {
			_ = unix.Unlinkat(r.fd(), tmp, 0) // best effort: the rename's error is the one to tell
		}
	}
	if err != nil {
		return &fault.Error{Op: "link", Ref: filepath.Join(r.Path, LatestLink), Kind: fault.System, Err: err}
	}
	return nil
}

// SetCurrent names ip:port as the cluster that commands without an address mean.
func (r *Root) SetCurrent(address string) error {
	return writeFileAt(r.fd(), CurrentCluster, []byte(address), r.Path)
}

// Current is the address in ray_current_cluster, or "" if there is none.
func (r *Root) Current() (string, error) {
	b, err := readFileAt(r.fd(), CurrentCluster)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", &fault.Error{Op: "read", Ref: filepath.Join(r.Path, CurrentCluster), Kind: fault.System, Err: err}
	}
	return string(trimSpace(b)), nil
}

// ClearCurrent removes ray_current_cluster if it names address ("" = whatever it names).
func (r *Root) ClearCurrent(address string) error {
	if address != "" {
		if current, err := r.Current(); err != nil || current != address {
			return err
		}
	}
	if err := unix.Unlinkat(r.fd(), CurrentCluster, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fault.Error{Op: "remove", Ref: filepath.Join(r.Path, CurrentCluster), Kind: fault.System, Err: err}
	}
	return nil
}
