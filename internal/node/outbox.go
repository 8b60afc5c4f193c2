package node

import (
	"errors"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// outbox is what is to be written to one channel. Frames are appended under the node's lock; writing happens outside of
// it, at once if the socket has room, else on a goroutine that lives until all is written.
type outbox struct {
	conn *net.UnixConn
	raw  syscall.RawConn

	mu      sync.Mutex
	buf     []byte // guarded by mu
	writing bool   // guarded by mu
	dead    bool   // guarded by mu
	full    bool   // guarded by mu; the engine holds values back for this channel
	queued  bool   // on the node's list of outboxes to flush; guarded by the node's lock
	ending  bool   // guarded by mu; nothing is written after what is in buf
	drained func() // tells the engine that the client reads again
}

func newOutbox(c *net.UnixConn, drained func()) (*outbox, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &outbox{conn: c, raw: raw, drained: drained}, nil
}

const (
	outboxFull = 1 << 20  // unread bytes above which the engine holds values back
	outboxLow  = 64 << 10 // and below which it goes on
	outboxKeep = 256 << 10
	outboxMax  = 128 << 20 // unread bytes above which the client is disconnected: it makes the daemon keep what it asks for
)

// flush writes what is buffered, without waiting.
func (o *outbox) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writing || o.dead || len(o.buf) == 0 {
		return
	}
	n, err := o.try(o.buf)
	switch {
	case err != nil:
		o.dead, o.buf = true, nil
	case n == len(o.buf):
		o.buf = o.buf[:0]
		if cap(o.buf) > outboxKeep {
			o.buf = nil
		}
		if o.full { // not from here: the caller may hold the node's lock by now
			o.full = false
			go o.drained()
		}
	default:
		rest := o.buf[n:]
		o.buf = nil
		o.writing = true
		go o.drain(rest)
	}
}

// try writes as much as the socket takes now.
func (o *outbox) try(b []byte) (n int, err error) {
	cerr := o.raw.Write(func(fd uintptr) bool {
		for n < len(b) {
			k, e := unix.SendmsgN(int(fd), b[n:], nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if errors.Is(e, unix.EINTR) {
				continue
			}
			if errors.Is(e, unix.EAGAIN) {
				return true
			}
			if e != nil {
				err = e
				return true
			}
			n += k
		}
		return true
	})
	return n, errors.Join(err, cerr)
}

// drain writes b and whatever is appended meanwhile, as fast as the client reads.
func (o *outbox) drain(b []byte) {
	for {
		_, err := o.conn.Write(b)
		o.mu.Lock()
		if err != nil {
			o.dead, o.buf, o.writing = true, nil, false
			o.mu.Unlock()
			return
		}
		tell := o.full && len(o.buf) < outboxLow
		if tell {
			o.full = false
		}
		b, o.buf = o.buf, nil
		if len(b) == 0 {
			o.writing = false
			o.endLocked()
		}
		o.mu.Unlock()
		if tell {
			o.drained()
		}
		if len(b) == 0 {
			return
		}
	}
}

// drop forgets what is buffered; nothing more is written.
func (o *outbox) drop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.dead, o.buf = true, nil
	_ = o.conn.Close() // so that a write that waits for the client ends
}

// end closes the connection for writing once everything is written.
func (o *outbox) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ending = true
	if !o.writing {
		o.endLocked()
	}
}

func (o *outbox) endLocked() {
	if o.ending && !o.dead {
		o.dead = true
		_ = o.conn.CloseWrite() // the client may be gone
	}
}

// add appends a frame built by f and tells how many bytes the client has not taken.
func (o *outbox) add(f func(b []byte) []byte) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.dead {
		return 0
	}
	o.buf = f(o.buf)
	if len(o.buf) > outboxFull {
		o.full = true
	}
	return len(o.buf)
}
