package node

import (
	"sync"

	"golang.org/x/sys/unix"
)

// outbox is what is to be written to one channel. Frames are appended under the node's lock; writing happens outside of
// it, at once as far as the socket has room, and for the rest when the reactor says that it has.
type outbox struct {
	conn    *conn
	watch   *watch
	drained func() // tells the engine that the client reads again
	closed  func() // the other end is gone; on the reactor's thread

	mu      sync.Mutex
	buf     []byte // guarded by mu
	blocked bool   // guarded by mu; the reactor goes on with what is in buf
	dead    bool   // guarded by mu
	full    bool   // guarded by mu; the engine holds values back for this channel
	queued  bool   // on the node's list of outboxes to flush; guarded by the node's lock
	ending  bool   // guarded by mu; nothing is written after what is in buf
}

// newOutbox writes to a channel until the other end is gone, which closed is told on the reactor's thread.
func newOutbox(r *reactor, c *conn, drained, closed func()) (*outbox, error) {
	o := &outbox{conn: c, drained: drained, closed: closed}
	o.mu.Lock()
	defer o.mu.Unlock()
	var err error
	o.watch, err = r.add(c, unix.EPOLLRDHUP, o.event)
	return o, err
}

const (
	outboxFull = 1 << 20  // unread bytes above which the engine holds values back
	outboxLow  = 64 << 10 // and below which it goes on
	outboxKeep = 256 << 10
	outboxMax  = 128 << 20 // unread bytes above which the client is disconnected: it makes the daemon keep what it asks for
)

// event is the reactor's word that the socket has room, or that the other end is gone.
func (o *outbox) event(events uint32) {
	if events&unix.EPOLLOUT != 0 {
		o.mu.Lock()
		tell := o.moreLocked()
		o.mu.Unlock()
		if tell {
			o.drained()
		}
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		o.mu.Lock()
		o.dead, o.buf = true, nil
		o.mu.Unlock()
		o.watch.end()
		o.closed()
	}
}

// flush writes what is buffered, without waiting.
func (o *outbox) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.blocked || len(o.buf) == 0 {
		return
	}
	if o.moreLocked() { // not from here: the caller may hold the node's lock by now
		go o.drained()
	}
}

// moreLocked writes as much as the socket takes now; true if the engine is to be told that the client reads again.
func (o *outbox) moreLocked() (tell bool) {
	if o.dead {
		o.buf = nil
		return false
	}
	n, err := o.conn.send(o.buf)
	switch {
	case err != nil:
		o.dead, o.buf = true, nil
		return false
	case n == len(o.buf):
		o.buf = o.buf[:0]
		if cap(o.buf) > outboxKeep {
			o.buf = nil
		}
		if o.blocked {
			o.blocked = false
			o.watch.want(unix.EPOLLRDHUP)
		}
		o.endLocked()
	default:
		o.buf = append(o.buf[:0], o.buf[n:]...)
		if !o.blocked {
			o.blocked = true
			o.watch.want(unix.EPOLLRDHUP | unix.EPOLLOUT)
		}
	}
	if tell = o.full && len(o.buf) < outboxLow; tell {
		o.full = false
	}
	return tell
}

// drop forgets what is buffered; nothing more is written.
func (o *outbox) drop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.dead, o.buf = true, nil
	o.conn.hangUp()
}

// end closes the connection for writing once everything is written.
func (o *outbox) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ending = true
	if !o.blocked {
		o.endLocked()
	}
}

func (o *outbox) endLocked() {
	if o.ending && !o.dead {
		o.dead = true
		o.conn.shutdown(unix.SHUT_WR)
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
