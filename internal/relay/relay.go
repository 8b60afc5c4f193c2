// Package relay carries a driver's connections to a node daemon over one TCP connection: ray://.
//
// The near half runs beside the driver, in a process of its own, and is the driver's daemon as far as that can tell: it
// takes the same frames on Unix sockets and has an arena to map. The far half runs in the daemon and is a driver on its
// machine as far as the daemon can tell. Between them goes a link (internal/link) with the messages below, so a connection
// that breaks is made anew and nothing is lost.
//
// Frames pass unchanged but for those of values in the arena, whose bytes travel in pieces of their own:
//
//   - a driver's large put: CREATE and CREATED make room in both arenas, then the driver writes into the near one and seals.
//     The near half sends the bytes and SEAL behind them. Other frames overtake them, for what they name is known to the
//     daemon since CREATE; only RELEASE waits, as it may name what the value contains.
//   - a large value that the driver gets: VALUE, the bytes, and only then what follows on that channel. The far half gives
//     its pin back at once; the driver's pins are of the near half's copy, which is shared by all pins of the object.
//
// A value's bytes are at most a window ahead of their reader, on each channel and for puts, so small frames wait behind
// windows and not behind values.
package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"gray/internal/core/fault"
	"gray/internal/link"
	"gray/internal/wire"
)

// A message is u8 kind | u32 stream | body. Stream 1 is the driver's; each channel has one of its own.
const (
	msgOpen   = 200 // near → far: a connection; its HELLO
	msgFrames = 201 // whole frames
	msgBytes  = 202 // far → near: the next piece of the stream's VALUE; near → far: id | the next piece of what was CREATEd
	msgCredit = 203 // u32 bytes that have found their reader; of stream 0 those of puts
	msgClose  = 204 // nothing follows on this stream
	msgDrop   = 205 // far → near: id: no pin of the near half's copy is on its way
	msgEnd    = 206 // far → near: the session is over
)

const (
	driverStream = 1
	puts         = 0 // stream of the credit for puts
	msgHead      = 5

	windowSize = 2 << 20   // bytes ahead of their reader
	creditAt   = 256 << 10 // bytes after which their reader is told of
	piece      = 128 << 10 // bytes of a value in one message
	batch      = 128 << 10 // bytes of frames in one message, about
)

// fresh and held stand in a VALUE's offset: the bytes follow, or the near half has them already.
const (
	fresh = 0
	held  = 1
)

const (
	graceEnv  = "RAY_CLIENT_RECONNECT_GRACE_PERIOD"
	graceTime = 30 * time.Second
)

// Grace is how long a ray:// session lives without a connection.
func Grace() time.Duration {
	if s, err := strconv.ParseFloat(os.Getenv(graceEnv), 64); err == nil && s >= 0 && s < 1e6 {
		return time.Duration(s * float64(time.Second))
	}
	return graceTime
}

// MaxUnacked bounds what a half keeps for the other while there is no connection.
const MaxUnacked = 64 << 20

// tube is a link with senders that wait while it is congested.
type tube struct {
	link *link.Link

	mu     sync.Mutex
	change *sync.Cond
	closed bool // guarded by mu
}

func (t *tube) init() { t.change = sync.NewCond(&t.mu) }

// drained wakes who waits for room.
func (t *tube) drained() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.change.Broadcast()
}

func (t *tube) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.change.Broadcast()
}

func message(kind byte, stream uint32, size int) []byte {
	b := make([]byte, msgHead, msgHead+size)
	b[0] = kind
	binary.LittleEndian.PutUint32(b[1:], stream)
	return b
}

// say sends a short message at once.
func (t *tube) say(kind byte, stream uint32, body ...byte) error {
	return t.link.Send(append(message(kind, stream, len(body)), body...))
}

// send sends a message when the link has room.
func (t *tube) send(msg []byte) error {
	if !t.wait() {
		return link.ErrClosed
	}
	return t.link.Send(msg)
}

// wait waits until the link has room; false if it is closed.
func (t *tube) wait() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for !t.closed && t.link.Congested() {
		t.change.Wait()
	}
	return !t.closed
}

// window is how much may be sent before the other half says that it found its reader.
type window struct {
	mu     sync.Mutex
	change *sync.Cond
	left   int  // guarded by mu
	closed bool // guarded by mu
}

func newWindow() *window {
	w := &window{left: windowSize}
	w.change = sync.NewCond(&w.mu)
	return w
}

// take waits until something may be sent and takes n bytes, be they more than there are; false once it is closed.
func (w *window) take(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.left <= 0 && !w.closed {
		w.change.Wait()
	}
	w.left -= n
	return !w.closed
}

func (w *window) give(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left += n
	w.change.Broadcast()
}

func (w *window) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.change.Broadcast()
}

// meter counts what has found its reader, and says when to tell.
type meter struct{ n int }

func (m *meter) add(n int) (tell []byte) {
	if m.n += n; m.n < creditAt {
		return nil
	}
	tell = binary.LittleEndian.AppendUint32(nil, uint32(m.n))
	m.n = 0
	return tell
}

// queue is bytes on their way to one reader, in order.
type queue struct {
	mu      sync.Mutex
	change  *sync.Cond
	buf     []byte // guarded by mu
	skipped int    // guarded by mu; bytes to be counted as read besides those in buf
	ended   bool   // guarded by mu
}

func newQueue() *queue {
	q := &queue{}
	q.change = sync.NewCond(&q.mu)
	return q
}

// put adds bytes, and to the count of those that were read what was taken out of them before.
func (q *queue) put(b []byte, skipped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.ended {
		q.buf = append(q.buf, b...)
		q.skipped += skipped
		q.change.Signal()
	}
}

// end lets the reader come to the end, after what is there.
func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.change.Signal()
}

// take waits for bytes and gives all that there are, in place of a buffer that is not needed any more; false at the end.
func (q *queue) take(old []byte) (b []byte, skipped int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.buf) == 0 && q.skipped == 0 && !q.ended {
		q.change.Wait()
	}
	b, skipped = q.buf, q.skipped
	q.skipped = 0
	if q.buf = old[:0]; cap(old) > 4*batch {
		q.buf = nil
	}
	return b, skipped, len(b) > 0 || !q.ended
}

// whole appends a frame as it came.
func whole(b []byte, f wire.Frame) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(1+len(f.Body)))
	return append(append(b, byte(f.Kind)), f.Body...)
}

// split reads a message's head.
func split(msg []byte) (kind byte, stream uint32, body []byte, err error) {
	if len(msg) < msgHead {
		return 0, 0, nil, broken("a message of %d bytes", len(msg))
	}
	return msg[0], binary.LittleEndian.Uint32(msg[1:]), msg[msgHead:], nil
}

// request names what a CREATE is answered by.
type request struct{ channel, req uint32 }

// streamOf is the stream of the driver's channel with a number, which are from 1.
func streamOf(channel uint32) uint32 { return channel + driverStream }

var errEnded = errors.New("relay: the session is over")

func broken(format string, a ...any) error {
	return &fault.Error{Op: "relay", Kind: fault.Protocol, Detail: fmt.Sprintf(format, a...)}
}
