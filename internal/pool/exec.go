package pool

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// MaxPacket is the largest packet that a Conn carries, in bytes.
const MaxPacket = 131072

// Errors of Conn.Send.
var (
	ErrFull   = errors.New("the worker's queue is full")
	ErrPacket = errors.New("a packet has 1 to 131072 bytes")
)

var packets = sync.Pool{New: func() any { b := make([]byte, MaxPacket); return &b }}

// Conn is the daemon's end of a worker's exec queue, a SOCK_SEQPACKET pair, and a duplicate of the worker's end.
// Safe for concurrent use. Because of the duplicate it never fails when the worker dies: that is told by Config.Died.
type Conn struct {
	poll *poller

	mu     sync.Mutex
	end    int // guarded by mu; the daemon's end, -1 once closed
	worker int // guarded by mu; the worker's end
}

func newConn(poll *poller) (*Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	if err := unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 2*MaxPacket); err != nil {
		return nil, errors.Join(os.NewSyscallError("setsockopt", err), unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return &Conn{poll: poll, end: fds[0], worker: fds[1]}, nil
}

// Send queues one packet for the worker, or fails with ErrFull if its queue has no room now.
func (c *Conn) Send(packet []byte) error {
	if len(packet) == 0 || len(packet) > MaxPacket {
		return ErrPacket
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end < 0 {
		return os.ErrClosed
	}
	for {
		err := unix.Sendto(c.end, packet, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EAGAIN):
			return ErrFull
		case !errors.Is(err, unix.EINTR):
			return os.NewSyscallError("sendto", err)
		}
	}
}

// TakeBack takes the packets that the worker has not received out of its queue, in the order they were sent. A packet
// that is missing has been received: each packet goes to exactly one of both. What comes back is the end of what was sent
// without a gap if the worker is blocked or dead; one that is receiving at this moment may take packets in between.
func (c *Conn) TakeBack() ([][]byte, error) {
	buf := packets.Get().(*[]byte)
	defer packets.Put(buf)
	c.mu.Lock()
	defer c.mu.Unlock()
	var back [][]byte
	for {
		if c.end < 0 {
			return back, os.ErrClosed
		}
		n, _, err := unix.Recvfrom(c.worker, *buf, unix.MSG_DONTWAIT)
		switch {
		case err == nil:
			back = append(back, append([]byte(nil), (*buf)[:n]...))
		case errors.Is(err, unix.EAGAIN):
			return back, nil
		case !errors.Is(err, unix.EINTR):
			return back, os.NewSyscallError("recvfrom", err)
		}
	}
}

// NotifyWritable calls f once, from a goroutine of the pool, when the queue has room again: for use after ErrFull.
func (c *Conn) NotifyWritable(f func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end < 0 {
		return os.ErrClosed
	}
	fd, err := unix.FcntlInt(uintptr(c.end), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	_, err = c.poll.watch(fd, unix.EPOLLOUT, true, f)
	return err
}

// Close closes both ends. Packets that were not taken back are gone.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end < 0 {
		return nil
	}
	err := errors.Join(unix.Close(c.end), unix.Close(c.worker))
	c.end, c.worker = -1, -1
	return err
}
