// Package linkstate makes an ordered stream of messages between two daemons out of connections that break.
//
// A State is one side of one link. It is pure: bytes and the time go in, bytes and messages come out; link.Link runs it
// over sockets. Messages are cut into chunks, and chunks are numbered from 1 and kept until the peer has acknowledged
// them. A connection starts with a hello from each side that says what it has received, and sending goes on from there:
// so each message arrives once and in order however often connections break, as long as both States live.
//
// A State has an incarnation, a number that no other State for the same peer ever had. A hello with another incarnation
// than before says that the peer has started afresh: numbering starts again, what was not acknowledged is dropped, and
// PeerReset tells the owner to compare inventories. What was sent before the first hello is kept for the first peer.
//
// On a connection only one side dials; a newer connection replaces the older.
//
//	frame  u32 length | u8 type | body      length = 1 + len(body), little-endian like all integers
//	hello  "GLNK" | u16 version | u64 incarnation | u64 the peer's incarnation, 0 unknown | u64 last chunk received of it
//	data   u64 number | u64 ack | u8 1 = the message goes on in the next chunk | bytes
//	ack    u64 ack; also sent when there was nothing to send for Keepalive
package linkstate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"gray/internal/core/fault"
)

// Version is the version of the link protocol.
const Version = 1

// MaxFrame is the largest value of a frame's length field.
const MaxFrame = 1 << 20

// MaxChunk is the most bytes of a message in one frame.
const MaxChunk = MaxFrame - 1 - dataHead

// Type is the type byte of a frame.
type Type uint8

// The types.
const (
	TypeHello Type = 1
	TypeData  Type = 2
	TypeAck   Type = 3
)

const (
	frameHead = 5
	helloSize = 4 + 2 + 8 + 8 + 8
	dataHead  = 8 + 8 + 1
	// chunkCost is what a queued chunk counts besides its bytes, so that many small messages are bounded too.
	chunkCost = 64
)

const magic = "GLNK"

// ErrFull says that too many bytes wait for the peer's acknowledgement; EventDrained follows when there is room.
var ErrFull = errors.New("link: too much is not acknowledged by the peer")

// Config is a State's settings; New sets defaults for zeros.
type Config struct {
	Incarnation uint64 // not 0, and never used before for this peer
	// MaxUnacked is how many bytes may wait for acknowledgement before Send refuses; from half of it the link is
	// Congested. Default 64 MiB.
	MaxUnacked int
	// MaxMessage is the largest message, sent or received, in bytes. Default 64 MiB.
	MaxMessage int
	// Chunk is how many bytes of a message go into one frame, at most MaxChunk, the default.
	Chunk int
	// AckBytes and AckDelay are how much may be received, and how long, before it is acknowledged by a frame of its
	// own. Defaults 64 KiB and 10 ms.
	AckBytes int
	AckDelay time.Duration
	// Keepalive is how long nothing is sent before an ack is, to show that this side lives. Default 5 s.
	Keepalive time.Duration
	// PeerTimeout is how long a connection may be silent before it counts as broken. Default 15 s.
	PeerTimeout time.Duration
}

func (c *Config) setDefaults() {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	dur := func(p *time.Duration, v time.Duration) {
		if *p == 0 {
			*p = v
		}
	}
	def(&c.MaxUnacked, 64<<20)
	def(&c.MaxMessage, 64<<20)
	def(&c.Chunk, MaxChunk)
	def(&c.AckBytes, 64<<10)
	dur(&c.AckDelay, 10*time.Millisecond)
	dur(&c.Keepalive, 5*time.Second)
	dur(&c.PeerTimeout, 15*time.Second)
}

// Validate lists what is wrong with c.
func (c *Config) Validate() error {
	var errs []error
	if c.Incarnation == 0 {
		errs = append(errs, errors.New("Incarnation is 0"))
	}
	if c.MaxUnacked < 0 || c.MaxMessage < 0 || c.AckBytes < 0 || c.AckDelay < 0 || c.Keepalive < 0 || c.PeerTimeout < 0 {
		errs = append(errs, errors.New("a limit is negative"))
	}
	if c.Chunk < 0 || c.Chunk > MaxChunk {
		errs = append(errs, fmt.Errorf("Chunk is not in 1…%d", MaxChunk))
	}
	return errors.Join(errs...)
}

// Hello is what each side says first on a connection.
type Hello struct {
	Incarnation uint64
	Peer        uint64 // the incarnation that Received is about; 0: none known
	Received    uint64 // number of the last chunk received
}

// Stats counts what a State did; for metrics and tests.
type Stats struct {
	Sent, Resent, Received, Duplicates, Resets uint64 // chunks; resets of the peer
}

type chunk struct {
	data []byte
	more bool
}

// State is one side of a link. The zero State is of no use; call New.
type State struct {
	cfg  Config
	peer uint64 // incarnation, 0 until the first hello

	// queue holds the chunks not acknowledged, from number base on; those before next were written on this connection.
	queue     []chunk
	base      uint64
	next      int
	written   uint64 // highest number ever written to this incarnation of the peer
	unacked   int    // bytes
	congested bool

	received  uint64 // number of the last chunk received
	partial   []byte // of a message whose last chunk has not come
	inMessage bool

	open     bool // a connection exists
	ready    bool // and the peer's hello has come on it
	lastIn   time.Time
	lastOut  time.Time
	ackBytes int       // received since the last ack
	ackSince time.Time // when the first of them came; zero if none
	ackNow   bool

	stats Stats
}

// New makes a State that has no connection.
func New(cfg Config) (*State, error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("linkstate.New: %w", err)
	}
	return &State{cfg: cfg, base: 1}, nil
}

// Config is the settings, with the defaults that apply.
func (s *State) Config() Config { return s.cfg }

// Send queues a message, which must not be changed any more. It returns ErrFull if too much is queued, and an error of
// kind fault.Limit if the message is larger than any may be.
func (s *State) Send(msg []byte) error {
	if len(msg) > s.cfg.MaxMessage {
		return &fault.Error{Op: "link.Send", Kind: fault.Limit, Detail: fmt.Sprintf("message of %d bytes is over the limit of %d", len(msg), s.cfg.MaxMessage)}
	}
	chunks := max(1, (len(msg)+s.cfg.Chunk-1)/s.cfg.Chunk)
	cost := len(msg) + chunks*chunkCost
	if len(s.queue) > 0 && s.unacked+cost > s.cfg.MaxUnacked {
		s.congested = true
		return ErrFull
	}
	s.unacked += cost
	s.congested = s.congested || s.unacked >= s.cfg.MaxUnacked/2
	for len(msg) > s.cfg.Chunk {
		s.queue = append(s.queue, chunk{msg[:s.cfg.Chunk], true})
		msg = msg[s.cfg.Chunk:]
	}
	s.queue = append(s.queue, chunk{msg, false})
	return nil
}

// Congested tells whether senders that can wait should: from half of MaxUnacked until Input says Drained.
func (s *State) Congested() bool { return s.congested }

// Unacked is the bytes that wait for the peer's acknowledgement.
func (s *State) Unacked() int { return s.unacked }

// Ready tells whether a connection is up.
func (s *State) Ready() bool { return s.ready }

// Peer is the peer's incarnation, 0 before its first hello.
func (s *State) Peer() uint64 { return s.peer }

// Stats are the counts so far.
func (s *State) Stats() Stats { return s.stats }

// Open notes a new connection, in place of any older one, and appends the hello to be written first on it.
func (s *State) Open(now time.Time, dst []byte) []byte {
	s.open, s.ready = true, false
	s.lastIn, s.lastOut = now, now
	dst = append(dst, 1+helloSize, 0, 0, 0, byte(TypeHello))
	dst = append(dst, magic...)
	dst = binary.LittleEndian.AppendUint16(dst, Version)
	for _, v := range [...]uint64{s.cfg.Incarnation, s.peer, s.received} {
		dst = binary.LittleEndian.AppendUint64(dst, v)
	}
	return dst
}

// Broke notes that the connection is gone.
func (s *State) Broke() { s.open, s.ready = false, false }

// Input is what a frame brought.
type Input struct {
	Message []byte // if HasMessage; aliases the frame or the State and holds until the next call of Receive
	Dropped int    // if Reset: messages and parts of such that the old incarnation had not acknowledged

	HasMessage bool
	Ready      bool // the hello: the connection is up
	Reset      bool // the peer has started afresh
	Drained    bool // Send has room again
}

// Receive takes one frame. After an error the connection must be closed; the link goes on with the next one.
func (s *State) Receive(now time.Time, t Type, body []byte) (Input, error) {
	s.lastIn = now
	switch {
	case !s.open:
		return Input{}, bad("a frame came without a connection")
	case t == TypeHello && !s.ready:
		return s.hello(body)
	case t == TypeData && s.ready && len(body) >= dataHead:
		return s.data(now, body)
	case t == TypeAck && s.ready && len(body) == 8:
		drained, err := s.acked(binary.LittleEndian.Uint64(body))
		return Input{Drained: drained}, err
	}
	return Input{}, bad("frame of type %d with %d bytes, when the hello had come: %t", t, len(body), s.ready)
}

func bad(format string, args ...any) error {
	return &fault.Error{Op: "link.Receive", Kind: fault.Protocol, Detail: fmt.Sprintf(format, args...)}
}

// DecodeHello reads a hello's body.
func DecodeHello(body []byte) (Hello, error) {
	if len(body) != helloSize || string(body[:4]) != magic {
		return Hello{}, bad("the connection does not start with a hello of the link protocol")
	}
	if v := binary.LittleEndian.Uint16(body[4:]); v != Version {
		return Hello{}, &fault.Error{Op: "link.Receive", Kind: fault.Version, Detail: fmt.Sprintf("the peer speaks link protocol %d, this daemon %d: install the same version on both machines", v, Version)}
	}
	le := binary.LittleEndian
	return Hello{le.Uint64(body[6:]), le.Uint64(body[14:]), le.Uint64(body[22:])}, nil
}

func (s *State) hello(body []byte) (in Input, err error) {
	h, err := DecodeHello(body)
	if err != nil {
		return in, err
	}
	if h.Incarnation == 0 {
		return in, bad("the peer's incarnation is 0")
	}
	received := h.Received
	if h.Peer != s.cfg.Incarnation {
		received = 0 // of another life of ours
	}
	if s.peer != 0 && h.Incarnation != s.peer {
		in.Reset, in.Dropped = true, s.messages()
		s.stats.Resets++
		in.Drained = s.congested
		s.queue, s.base, s.written, s.unacked, s.congested = nil, 1, 0, 0, false
		s.received, s.partial, s.inMessage = 0, nil, false
	}
	if received+1 < s.base || received > s.written {
		return Input{}, bad("the peer says it has received up to %d; it had acknowledged %d of %d sent", received, s.base-1, s.written)
	}
	s.peer = h.Incarnation
	drained := s.drop(received)
	in.Drained = in.Drained || drained
	s.next = 0
	s.ready, in.Ready = true, true
	s.ackBytes, s.ackSince, s.ackNow = 0, time.Time{}, false // our hello said it
	return in, nil
}

// messages is how many messages the queue has chunks of.
func (s *State) messages() (n int) {
	for _, c := range s.queue {
		if !c.more {
			n++
		}
	}
	return n
}

func (s *State) acked(n uint64) (drained bool, err error) {
	if n >= s.base+uint64(s.next) {
		return false, bad("the peer acknowledges %d, %d was sent", n, s.base+uint64(s.next)-1)
	}
	return s.drop(n), nil
}

// drop forgets the chunks up to n, and tells whether that ended congestion.
func (s *State) drop(n uint64) (drained bool) {
	for s.base <= n {
		s.unacked -= len(s.queue[0].data) + chunkCost
		s.queue[0].data = nil
		s.queue = s.queue[1:]
		s.base++
		s.next = max(0, s.next-1)
	}
	if len(s.queue) == 0 {
		s.queue = nil // the next append starts a new array, and the old one can go
	}
	if s.congested && s.unacked <= s.cfg.MaxUnacked/4 {
		s.congested = false
		return true
	}
	return false
}

func (s *State) data(now time.Time, body []byte) (in Input, err error) {
	n, ack := binary.LittleEndian.Uint64(body), binary.LittleEndian.Uint64(body[8:])
	more, data := body[16], body[dataHead:]
	if in.Drained, err = s.acked(ack); err != nil {
		return in, err
	}
	switch {
	case more > 1:
		return in, bad("chunk with flags %d", more)
	case n <= s.received:
		s.stats.Duplicates++
		s.ackNow = true // the peer seems not to know
		return in, nil
	case n != s.received+1:
		return in, bad("chunk %d came after %d", n, s.received)
	case len(s.partial)+len(data) > s.cfg.MaxMessage:
		return in, bad("a message of more than %d bytes came", s.cfg.MaxMessage)
	}
	s.received = n
	s.stats.Received++
	s.ackBytes += len(data) + chunkCost
	if s.ackSince.IsZero() {
		s.ackSince = now
	}
	s.ackNow = s.ackNow || s.ackBytes >= s.cfg.AckBytes
	if more == 1 {
		s.partial = append(s.partial, data...)
		s.inMessage = true
		return in, nil
	}
	in.Message, in.HasMessage = data, true
	if s.inMessage {
		in.Message = append(s.partial, data...)
		s.partial, s.inMessage = nil, false
	}
	return in, nil
}

// Output appends frames to be written now: data, at most about budget bytes of it and at least one chunk, or an ack if
// one is due. It appends nothing if nothing is to be written.
func (s *State) Output(now time.Time, dst []byte, budget int) []byte {
	if !s.ready {
		return dst
	}
	start := len(dst)
	for s.next < len(s.queue) && len(dst)-start < budget {
		c := s.queue[s.next]
		n := s.base + uint64(s.next)
		dst = binary.LittleEndian.AppendUint32(dst, uint32(1+dataHead+len(c.data)))
		dst = append(dst, byte(TypeData))
		dst = binary.LittleEndian.AppendUint64(dst, n)
		dst = binary.LittleEndian.AppendUint64(dst, s.received)
		more := byte(0)
		if c.more {
			more = 1
		}
		dst = append(append(dst, more), c.data...)
		s.next++
		if n > s.written {
			s.written = n
			s.stats.Sent++
		} else {
			s.stats.Resent++
		}
	}
	if len(dst) == start {
		due, _ := s.nextAck()
		if due.After(now) {
			return dst
		}
		dst = append(dst, 1+8, 0, 0, 0, byte(TypeAck))
		dst = binary.LittleEndian.AppendUint64(dst, s.received)
	}
	s.lastOut = now
	s.ackBytes, s.ackSince, s.ackNow = 0, time.Time{}, false
	return dst
}

// nextAck is when an ack is to be sent unless data is before; pending tells an ack from a keepalive.
func (s *State) nextAck() (at time.Time, pending bool) {
	switch {
	case s.ackNow:
		return s.lastOut, true
	case !s.ackSince.IsZero():
		return s.ackSince.Add(s.cfg.AckDelay), true
	}
	return s.lastOut.Add(s.cfg.Keepalive), false
}

// Pending tells whether Output has something to write at once.
func (s *State) Pending() bool { return s.ready && (s.next < len(s.queue) || s.ackNow) }

// Deadline is when Output or Expired should be called next, if nothing happens before; zero without a connection.
func (s *State) Deadline() time.Time {
	if !s.open {
		return time.Time{}
	}
	dead := s.lastIn.Add(s.cfg.PeerTimeout)
	if !s.ready {
		return dead
	}
	if ack, _ := s.nextAck(); ack.Before(dead) {
		return ack
	}
	return dead
}

// Expired tells whether the connection has been silent for too long and should be closed.
func (s *State) Expired(now time.Time) bool {
	return s.open && !now.Before(s.lastIn.Add(s.cfg.PeerTimeout))
}

// Cut finds the first frame of buf: its type, body and the bytes of buf it takes; 0 bytes if it is not whole.
func Cut(buf []byte) (t Type, body []byte, n int, err error) {
	if len(buf) < 4 {
		return 0, nil, 0, nil
	}
	size := binary.LittleEndian.Uint32(buf)
	if size < 1 || size > MaxFrame {
		return 0, nil, 0, bad("frame length %d is not in 1…%d", size, MaxFrame)
	}
	if uint32(len(buf)-4) < size {
		return 0, nil, 0, nil
	}
	return Type(buf[4]), buf[frameHead : 4+size : 4+size], 4 + int(size), nil
}

// Need is how many bytes from its start buf must have to hold its first frame whole, as far as can be told.
func Need(buf []byte) int {
	if len(buf) < 4 {
		return frameHead
	}
	return 4 + int(binary.LittleEndian.Uint32(buf))
}
