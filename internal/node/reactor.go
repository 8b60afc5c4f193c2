package node

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"gray/internal/machine"
)

// reactor waits for the sockets of all clients of this machine on one thread of its own. A frame that arrives wakes that
// thread and nobody else: Go's poller would wake another thread for each frame, and one more whenever a client reads.
// Measured on 2 cores, one task after the other: 78 µs of the daemon's CPU a task with Go's poller, a third of that here.
type reactor struct {
	ep   int
	stop int // eventfd: written to end run
	done chan struct{}
	spin spinner // the thread's own

	mu      sync.Mutex
	last    uint64            // guarded by mu
	watches map[uint64]*watch // guarded by mu
}

// watch is one socket. ready is called on the reactor's thread and must not block.
type watch struct {
	r      *reactor
	token  uint64
	c      *conn
	ready  func(events uint32)
	events uint32 // guarded by c.mu
}

// stopToken names the eventfd.
const stopToken = 0

func startReactor() (*reactor, error) {
	cpus, err := machine.CPUs()
	if err != nil {
		return nil, err
	}
	r := &reactor{done: make(chan struct{}), watches: map[uint64]*watch{}, spin: spinner{alone: cpus < 2}}
	if r.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if r.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, errors.Join(os.NewSyscallError("eventfd", err), unix.Close(r.ep))
	}
	ev := tokenEvent(stopToken, unix.EPOLLIN)
	if err := unix.EpollCtl(r.ep, unix.EPOLL_CTL_ADD, r.stop, &ev); err != nil {
		return nil, errors.Join(os.NewSyscallError("epoll_ctl", err), unix.Close(r.ep), unix.Close(r.stop))
	}
	go r.run()
	return r, nil
}

func tokenEvent(token uint64, events uint32) unix.EpollEvent {
	return unix.EpollEvent{Events: events, Fd: int32(uint32(token)), Pad: int32(token >> 32)}
}

func (r *reactor) run() {
	runtime.LockOSThread()
	defer close(r.done)
	var events [128]unix.EpollEvent
	for {
		n, err := r.wait(events[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			panic("node: epoll_wait: " + err.Error())
		}
		for _, ev := range events[:n] {
			token := uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32
			if token == stopToken {
				return
			}
			r.mu.Lock()
			w := r.watches[token]
			r.mu.Unlock()
			if w != nil { // else it has ended since
				w.ready(ev.Events)
			}
		}
	}
}

// wait returns the next events.
func (r *reactor) wait(events []unix.EpollEvent) (int, error) {
	if r.spin.spins() {
		n, err := r.poll(events)
		if err != nil {
			return 0, err
		}
		r.spin.spun(n > 0)
		if n > 0 {
			return n, nil
		}
		return unix.EpollWait(r.ep, events, -1)
	}
	start := time.Now()
	n, err := unix.EpollWait(r.ep, events, -1)
	r.spin.slept(time.Since(start))
	return n, err
}

// poll asks for events until there are some or the limit is over. Each turn is a bare system call: the bookkeeping that Go
// does around one that may block wakes a thread of its own now and then, and costs what the spinning gains. The thread
// yields at each turn, so that a client that was woken on its CPU runs at once.
func (r *reactor) poll(events []unix.EpollEvent) (int, error) {
	for start := time.Now(); ; {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(r.ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		if errno != 0 {
			return 0, errno
		}
		if n > 0 || time.Since(start) > spinLimit {
			return int(n), nil
		}
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) // it cannot fail
	}
}

// add watches a socket until end. The first call of ready may come before add returns.
func (r *reactor) add(c *conn, events uint32, ready func(events uint32)) (*watch, error) {
	w := &watch{r: r, c: c, ready: ready, events: events}
	r.mu.Lock()
	r.last++
	w.token = r.last
	r.watches[w.token] = w
	r.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	ev := tokenEvent(w.token, events)
	if err := c.control(unix.EPOLL_CTL_ADD, r.ep, &ev); err != nil {
		r.drop(w.token)
		return nil, err
	}
	return w, nil
}

func (r *reactor) drop(token uint64) {
	r.mu.Lock()
	delete(r.watches, token)
	r.mu.Unlock()
}

// want changes what is watched for.
func (w *watch) want(events uint32) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	if w.events == events {
		return
	}
	w.events = events
	ev := tokenEvent(w.token, events)
	_ = w.c.control(unix.EPOLL_CTL_MOD, w.r.ep, &ev) // it may be closed: then nothing comes any more
}

// end stops watching; a call of ready may be under way.
func (w *watch) end() {
	w.r.drop(w.token)
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	_ = w.c.control(unix.EPOLL_CTL_DEL, w.r.ep, nil) // it may be closed
}

// close ends the thread, and returns when no call of ready runs any more.
func (r *reactor) close() {
	if _, err := unix.Write(r.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		panic("node: eventfd: " + err.Error())
	}
	<-r.done
	_, _ = unix.Close(r.ep), unix.Close(r.stop)
}

// conn is a client's Unix socket, out of the sight of Go's poller. No method blocks.
type conn struct {
	mu sync.Mutex
	fd int // guarded by mu; -1 once closed
}

// errAgain says that a socket has nothing to read, or no room, now.
var errAgain = unix.EAGAIN

// quiet takes a socket over from Go's poller.
func quiet(c *net.UnixConn) (*conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	q := &conn{fd: -1}
	var derr error
	err = raw.Control(func(fd uintptr) { q.fd, derr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(err, derr); err != nil {
		return nil, err
	}
	return q, c.Close()
}

func (c *conn) control(op, ep int, ev *unix.EpollEvent) error {
	if c.fd < 0 {
		return net.ErrClosed
	}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(ep, op, c.fd, ev))
}

// Read reads what is there, or fails with errAgain. It is of a stream: 0 bytes are its end.
func (c *conn) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if c.fd < 0 {
			return 0, net.ErrClosed
		}
		n, err := unix.Read(c.fd, b)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// send writes as much as the socket takes now.
func (c *conn) send(b []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n < len(b) {
		if c.fd < 0 {
			return n, net.ErrClosed
		}
		k, err := unix.SendmsgN(c.fd, b[n:], nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return n, nil
		case err != nil:
			return n, err
		default:
			n += k
		}
	}
	return n, nil
}

func (c *conn) shutdown(how int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		_ = unix.Shutdown(c.fd, how) // the other end may be gone
	}
}

// hangUp ends the connection both ways: who reads it comes to its end, and closes it.
func (c *conn) hangUp() { c.shutdown(unix.SHUT_RDWR) }

// Close closes the socket. Who watches it hears nothing of that, so it is for the one who has seen its end.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil
	}
	err := unix.Close(c.fd)
	c.fd = -1
	return err
}
