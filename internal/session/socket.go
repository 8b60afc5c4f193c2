package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"gray/internal/core/fault"

	"golang.org/x/sys/unix"
)

// maxSocketPath is the longest path that fits a sockaddr_un with its closing zero.
const maxSocketPath = 107

// maxSockets is how many daemons may share a session folder on one machine.
const maxSockets = 4096

// Socket is a Unix socket in a session's sockets folder that is listened on.
type Socket struct {
	*net.UnixListener
	Path string // what clients dial, maybe longer than a sockaddr holds (see Dial)
	name string
	dir  *os.File
}

// Listen binds sockets/<name>, or <name>.1, <name>.2, … if other daemons have those, with mode 0600. What a dead daemon
// left behind is replaced.
func (d *Dir) Listen(name string) (*Socket, error) {
	path := filepath.Join(d.Path, "sockets", name)
	fail := func(err error) (*Socket, error) {
		return nil, &fault.Error{Op: "listen", Ref: path, Kind: fault.System, Err: err}
	}
	dir, err := openOwnDir(d.fd(), "sockets")
	if err != nil {
		return fail(err)
	}
	// The lock makes "is it stale? then replace it" one step among daemons that start together. It goes with lock.
	lock, err := openDir(int(dir.Fd()), ".")
	if err == nil {
		defer lock.Close()
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		dir.Close()
		return fail(err)
	}
	for i := range maxSockets {
		try := name
		if i > 0 {
			try = fmt.Sprintf("%s.%d", name, i)
		}
		l, err := bind(dir, try)
		if errors.Is(err, unix.EADDRINUSE) && stale(dir, try) {
			if err = unix.Unlinkat(int(dir.Fd()), try, 0); err == nil {
				l, err = bind(dir, try)
			}
		}
		if errors.Is(err, unix.EADDRINUSE) {
			continue
		}
		if err != nil {
			dir.Close()
			return fail(err)
		}
		return &Socket{UnixListener: l, Path: filepath.Join(d.Path, "sockets", try), name: try, dir: dir}, nil
	}
	dir.Close()
	return fail(fmt.Errorf("%d daemons hold sockets here", maxSockets))
}

func procPath(dir *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
}

func bind(dir *os.File, name string) (*net.UnixListener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: procPath(dir, name), Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	// Between bind and chmod the folder's 0700 protects the socket.
	if err := unix.Fchmodat(int(dir.Fd()), name, 0o600, 0); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// stale reports whether nobody listens on the socket.
func stale(dir *os.File, name string) bool {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: procPath(dir, name), Net: "unix"})
	if err == nil {
		c.Close()
	}
	return errors.Is(err, unix.ECONNREFUSED)
}

// Close stops listening and removes the socket.
func (s *Socket) Close() error {
	defer s.dir.Close()
	err := unix.Unlinkat(int(s.dir.Fd()), s.name, 0)
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return errors.Join(s.UnixListener.Close(), err)
}

// Dial connects to a Unix socket whose path may be longer than a sockaddr holds.
func Dial(ctx context.Context, path string) (*net.UnixConn, error) {
	name := path
	if len(path) > maxSocketPath {
		dir, err := os.Open(filepath.Dir(path))
		if err != nil {
			return nil, &fault.Error{Op: "connect", Ref: path, Kind: fault.System, Err: err}
		}
		defer dir.Close()
		name = procPath(dir, filepath.Base(path))
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", name)
	if err != nil {
		return nil, &fault.Error{Op: "connect", Ref: path, Kind: fault.System, Err: err}
	}
	return c.(*net.UnixConn), nil
}

// PeerUID is the uid of the process at the other end of a Unix socket.
func PeerUID(c *net.UnixConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	uid := -1
	cerr := raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid = int(cred.Uid)
		}
	})
	return uid, errors.Join(cerr, err)
}
