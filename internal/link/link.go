// Package link runs a core/linkstate State over connections: messages to another daemon arrive once and in order,
// however often the connection between them breaks.
//
// A Link lives as long as its owner cares for the peer; connections come and go by Attach. One side dials, and on its
// own schedule again after Events.Down; the other attaches what it accepted. Send never blocks: it queues, and a
// goroutine writes all that is queued at once.
//
// Two goroutines run a connection. The reader calls the Events, one at a time and in order; a call must not block for
// long, and must not call Attach or Close. After Up messages come from that life of the peer, until PeerReset.
package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"gray/internal/core/linkstate"
)

// Events are what a Link tells its owner. Those that are nil are not told.
type Events struct {
	// Message is a message of the peer. msg holds until Message returns: copy what is kept.
	Message func(msg []byte)
	// Up says that a connection to the peer's life of this incarnation is there.
	Up func(incarnation uint64)
	// Down says that the connection is gone, and why, also when it never was Up. It is told once for each Attach, but not
	// when another connection replaces this one, nor at Close.
	Down func(err error)
	// PeerReset comes before Up: the peer has started afresh, and dropped messages that it had not acknowledged are gone.
	PeerReset func(incarnation uint64, dropped int)
	// Drained says that Send has room again after it was Congested.
	Drained func()
}

// ErrClosed is what a closed Link answers.
var ErrClosed = errors.New("link: closed")

// Reasons why a connection went: another was attached, or nothing was heard on it.
var (
	errReplaced = errors.New("link: replaced by a newer connection")
	errSilent   = errors.New("link: nothing was heard from the peer for too long")
)

// writeBudget is about how many bytes are copied into one write.
const writeBudget = 256 << 10

// Link is a link to one peer.
type Link struct {
	ev      Events
	timeout time.Duration // of silence

	mu     sync.Mutex
	state  *linkstate.State // guarded by mu
	cur    *connection      // guarded by mu; nil if there is none
	sleep  time.Time        // guarded by mu; until when cur's writer sleeps
	closed bool             // guarded by mu

	attach sync.Mutex  // held while connections change; taken before mu
	last   *connection // guarded by attach; the latest one, whose goroutines may have ended
}

type connection struct {
	conn net.Conn
	wake chan struct{} // one slot: there is something to write
	done sync.WaitGroup
	once sync.Once
	gone chan struct{} // closed when it ends
	why  error         // set before gone is closed
}

// New makes a Link without a connection.
func New(cfg linkstate.Config, ev Events) (*Link, error) {
	s, err := linkstate.New(cfg)
	if err != nil {
		return nil, err
	}
	return &Link{ev: ev, state: s, timeout: s.Config().PeerTimeout}, nil
}

// Send queues a message, which must not be changed any more. It never blocks. It returns linkstate.ErrFull if the
// peer has left too much unacknowledged, and ErrClosed after Close.
func (l *Link) Send(msg []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	err := l.state.Send(msg)
	l.wakeLocked()
	return err
}

// Congested tells whether senders that can wait should, until Events.Drained.
func (l *Link) Congested() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.Congested()
}

// Ready tells whether a connection is up.
func (l *Link) Ready() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.Ready()
}

// Attached tells whether there is a connection whose end Events.Down has yet to tell of.
func (l *Link) Attached() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cur != nil
}

// Owes tells whether there are messages that the peer has not acknowledged.
func (l *Link) Owes() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.Unacked() > 0
}

// Stats are the link's counts so far.
func (l *Link) Stats() linkstate.Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.Stats()
}

// wakeLocked wakes the writer if it has something to write now, or sooner than it wakes by itself.
func (l *Link) wakeLocked() {
	if l.cur == nil || !l.state.Pending() && !l.state.Deadline().Before(l.sleep) {
		return
	}
	select {
	case l.cur.wake <- struct{}{}:
	default: // the writer has not slept since the last one
	}
}

// Attach makes conn the link's connection, in place of any older one, and takes it over. It returns once the older one's
// goroutines have ended; conn's own start with the hellos. On a closed Link it closes conn and returns ErrClosed.
func (l *Link) Attach(conn net.Conn) error {
	l.attach.Lock()
	defer l.attach.Unlock()
	l.detach(errReplaced)

	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errors.Join(ErrClosed, conn.Close())
	}
	c := &connection{conn: conn, wake: make(chan struct{}, 1), gone: make(chan struct{})}
	l.cur, l.last = c, c
	hello := l.state.Open(time.Now(), nil)
	c.done.Add(2)
	go l.write(c, hello)
	go l.read(c)
	return nil
}

// detach ends the latest connection, if it has not ended, and waits for its goroutines. attach is held.
func (l *Link) detach(why error) {
	if l.last != nil {
		l.last.end(why)
		l.last.done.Wait()
		l.last = nil
	}
}

// Close ends the link and its connection, and returns when its goroutines have ended. What is queued is not sent.
func (l *Link) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.attach.Lock()
	defer l.attach.Unlock()
	l.detach(ErrClosed)
}

// end closes the connection for a reason; the first reason counts.
func (c *connection) end(why error) {
	c.once.Do(func() {
		c.why = why
		close(c.gone)
		// Closing is how the reader and a blocked write learn of the end. Its own error says nothing that why does not.
		_ = c.conn.Close()
	})
}

// write writes what the state has to say, until the connection ends.
func (l *Link) write(c *connection, out []byte) {
	defer c.done.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if len(out) > 0 {
			if _, err := c.conn.Write(out); err != nil {
				c.end(fmt.Errorf("link: write: %w", err))
				return
			}
		}
		if cap(out) > 4*writeBudget {
			out = nil
		}
		now := time.Now()
		l.mu.Lock()
		out = l.state.Output(now, out[:0], writeBudget)
		deadline, expired := l.state.Deadline(), l.state.Expired(now)
		l.sleep = deadline
		l.mu.Unlock()
		if expired {
			c.end(errSilent)
			return
		}
		if len(out) > 0 {
			continue
		}
		timer.Reset(time.Until(deadline))
		select {
		case <-c.wake:
		case <-timer.C:
		case <-c.gone:
			return
		}
	}
}

// read hands the peer's frames to the state and tells the owner what they bring, until the connection ends.
func (l *Link) read(c *connection) {
	defer c.done.Done()
	c.end(l.readFrames(c))
	l.mu.Lock()
	l.state.Broke()
	l.cur = nil
	closed := l.closed
	l.mu.Unlock()
	if !closed && !errors.Is(c.why, errReplaced) && l.ev.Down != nil {
		l.ev.Down(c.why)
	}
}

func (l *Link) readFrames(c *connection) error {
	buf := make([]byte, 64<<10)
	start, end := 0, 0
	for {
		for {
			t, body, n, err := linkstate.Cut(buf[start:end])
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			start += n
			if err := l.receive(t, body); err != nil {
				return err
			}
		}
		if need := linkstate.Need(buf[start:end]); need > len(buf)-start {
			grown := buf
			if need > len(buf) {
				grown = make([]byte, need)
			}
			end = copy(grown, buf[start:end])
			buf, start = grown, 0
		} else if start == end {
			start, end = 0, 0
		}
		// The writer may be stuck in a write to a peer that hangs: so the reader watches for silence.
		if err := c.conn.SetReadDeadline(time.Now().Add(l.timeout)); err != nil {
			return fmt.Errorf("link: read: %w", err)
		}
		n, err := c.conn.Read(buf[end:])
		end += n
		switch {
		case err == nil || n > 0:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return errSilent
		case errors.Is(err, io.EOF):
			return fmt.Errorf("link: the peer closed the connection: %w", err)
		default:
			return fmt.Errorf("link: read: %w", err)
		}
	}
}

func (l *Link) receive(t linkstate.Type, body []byte) error {
	l.mu.Lock()
	in, err := l.state.Receive(time.Now(), t, body)
	peer := l.state.Peer()
	l.wakeLocked()
	l.mu.Unlock()
	if err != nil {
		return err
	}
	if in.Reset && l.ev.PeerReset != nil {
		l.ev.PeerReset(peer, in.Dropped)
	}
	if in.Ready && l.ev.Up != nil {
		l.ev.Up(peer)
	}
	if in.Drained && l.ev.Drained != nil {
		l.ev.Drained()
	}
	if in.HasMessage && l.ev.Message != nil {
		l.ev.Message(in.Message)
	}
	return nil
}
