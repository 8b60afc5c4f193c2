package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

// ErrIncomplete says that the buffer ends before the frame does: more bytes may complete it.
var ErrIncomplete = errors.New("wire: frame is incomplete")

// Frame is one frame. Body aliases the buffer that it was read from.
type Frame struct {
	Kind Kind
	Body []byte
}

// Size is the frame's bytes on the wire.
func (f Frame) Size() int { return HeaderSize + len(f.Body) }

// Reader cuts a buffer into frames.
type Reader struct {
	buf []byte
}

// NewReader reads frames from buf.
func NewReader(buf []byte) *Reader { return &Reader{buf} }

// Rest is what Next has not consumed.
func (r *Reader) Rest() []byte { return r.buf }

// Next gives the next frame. It returns ErrIncomplete when the buffer ends within a frame, and an error of kind
// fault.Protocol when the bytes are no frame; then the stream is of no more use.
func (r *Reader) Next() (Frame, error) {
	b := r.buf
	if len(b) < 4 {
		return Frame{}, ErrIncomplete
	}
	n := binary.LittleEndian.Uint32(b)
	if n < 1 || n > MaxFrame {
		return Frame{}, badLength(n)
	}
	if len(b) < HeaderSize {
		return Frame{}, ErrIncomplete
	}
	k := Kind(b[4])
	if !k.Known() {
		return Frame{}, badKind(k)
	}
	end := 4 + int(n)
	if len(b) < end {
		return Frame{}, ErrIncomplete
	}
	r.buf = b[end:]
	return Frame{k, b[HeaderSize:end:end]}, nil
}

func badLength(n uint32) error {
	return &fault.Error{Op: "wire.Next", Kind: fault.Protocol, Detail: fmt.Sprintf("frame length %d is not in 1…%d; is the peer speaking another protocol?", n, MaxFrame)}
}

func badKind(k Kind) error {
	return &fault.Error{Op: "wire.Next", Kind: fault.Protocol, Detail: fmt.Sprintf("unknown frame kind 0x%02x in protocol version %d", uint8(k), Version)}
}

// Stream reads frames from a byte stream through one buffer of its own, which grows to the largest frame met.
type Stream struct {
	r     io.Reader
	buf   []byte
	start int // of the bytes not yet handed out
	end   int
}

// NewStream reads frames from r through a buffer of at first size bytes.
func NewStream(r io.Reader, size int) *Stream {
	return &Stream{r: r, buf: make([]byte, max(size, 64))}
}

// Use reads on from r; what is buffered comes first.
func (s *Stream) Use(r io.Reader) { s.r = r }

// Next gives the next frame, reading when the buffer holds no whole one. The frame's body is valid until the next call
// that reads: Buffered tells whether one will. At the stream's end it returns io.EOF, or io.ErrUnexpectedEOF inside a frame.
func (s *Stream) Next() (Frame, error) {
	for {
		rd := Reader{s.buf[s.start:s.end]}
		f, err := rd.Next()
		if err == nil {
			s.start = s.end - len(rd.buf)
			return f, nil
		}
		if !errors.Is(err, ErrIncomplete) {
			return Frame{}, err
		}
		if err := s.fill(); err != nil {
			return Frame{}, err
		}
	}
}

// Buffered tells whether the next call of Next returns without reading.
func (s *Stream) Buffered() bool {
	rd := Reader{s.buf[s.start:s.end]}
	_, err := rd.Next()
	return !errors.Is(err, ErrIncomplete)
}

func (s *Stream) fill() error {
	have := s.end - s.start
	need := HeaderSize
	if have >= 4 {
		need = 4 + int(binary.LittleEndian.Uint32(s.buf[s.start:]))
	}
	if need > len(s.buf) {
		grown := make([]byte, max(need, 2*len(s.buf)))
		copy(grown, s.buf[s.start:s.end])
		s.buf, s.start, s.end = grown, 0, have
	} else if s.start > 0 && (have == 0 || len(s.buf)-s.start < need) {
		copy(s.buf, s.buf[s.start:s.end])
		s.start, s.end = 0, have
	}
	for range 100 {
		n, err := s.r.Read(s.buf[s.end:])
		s.end += n
		if n > 0 {
			return nil
		}
		if err != nil {
			if errors.Is(err, io.EOF) && have > 0 {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return io.ErrNoProgress
}

// Counts is a packed list of (object id, u32 count) that aliases the frame it came in.
type Counts []byte

const countSize = ids.ObjectSize + 4

// Len is the number of pairs.
func (c Counts) Len() int { return len(c) / countSize }

// At is the i-th pair.
func (c Counts) At(i int) (ids.ObjectID, uint32) {
	e := c[i*countSize : (i+1)*countSize]
	return ids.ObjectID(e[:ids.ObjectSize]), binary.LittleEndian.Uint32(e[ids.ObjectSize:])
}

// Append adds a pair.
func (c Counts) Append(o ids.ObjectID, n uint32) Counts {
	return binary.LittleEndian.AppendUint32(append(c, o[:]...), n)
}

// cursor reads a body from front to back. The first read that the body is too short for sets short, and that and
// all later reads give zeros.
type cursor struct {
	b     []byte
	what  string // the field that was bad
	need  uint64
	short bool
}

func (c *cursor) take(n uint64, what string) []byte {
	if n > uint64(len(c.b)) {
		if !c.short {
			c.short, c.what, c.need = true, what, n
		}
		c.b = nil
		return nil
	}
	p := c.b[:n:n]
	c.b = c.b[n:]
	return p
}

func (c *cursor) u8(what string) uint8 {
	if p := c.take(1, what); p != nil {
		return p[0]
	}
	return 0
}

func (c *cursor) u16(what string) uint16 {
	if p := c.take(2, what); p != nil {
		return binary.LittleEndian.Uint16(p)
	}
	return 0
}

func (c *cursor) u32(what string) uint32 {
	if p := c.take(4, what); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (c *cursor) u64(what string) uint64 {
	if p := c.take(8, what); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

func (c *cursor) unique() ids.Unique {
	if p := c.take(8, "unique"); p != nil {
		return ids.Unique(binary.BigEndian.Uint64(p))
	}
	return 0
}

func (c *cursor) id() (o ids.ObjectID) {
	if p := c.take(ids.ObjectSize, "id"); p != nil {
		return ids.ObjectID(p)
	}
	return o
}

func (c *cursor) list(n uint32, what string) ids.List {
	return ids.List(c.take(uint64(n)*ids.ObjectSize, what))
}

func (c *cursor) rest() []byte {
	p := c.b
	c.b = nil
	return p
}

// enum reads a byte that must be ≤ top.
func (c *cursor) enum(top uint8, what string) uint8 {
	v := c.u8(what)
	if v > top && !c.short {
		c.short, c.what, c.need = true, what, 0
		c.b = nil
	}
	return v
}

// tail is done for kinds whose last field takes the rest.
func (c *cursor) tail(k Kind) error {
	if c.short {
		return c.fail(k)
	}
	return nil
}

// done checks that the body was long enough and is used up.
func (c *cursor) done(k Kind) error {
	if c.short || len(c.b) != 0 {
		return c.fail(k)
	}
	return nil
}

func (c *cursor) fail(k Kind) error {
	var d string
	switch {
	case !c.short:
		d = fmt.Sprintf("%d bytes too many", len(c.b))
	case c.need == 0:
		d = c.what + " has no such value"
	default:
		d = fmt.Sprintf("truncated: %s needs %d bytes", c.what, c.need)
	}
	return malformed(k, d)
}

func malformed(k Kind, detail string) error {
	return &fault.Error{Op: "wire.Decode", Kind: fault.Protocol, Ref: k.String(), Detail: detail}
}

// begin appends a frame's header with a length to be set by finish.
func begin(b []byte, k Kind) []byte { return append(b, 0, 0, 0, 0, byte(k)) }

// finish sets the length of the frame that started at start. extra counts bytes of the frame that follow elsewhere.
func finish(b []byte, start, extra int) ([]byte, error) {
	n := len(b) - start - 4 + extra
	if n > MaxFrame {
		k := Kind(b[start+4])
		return b[:start], &fault.Error{Op: "wire.Append", Kind: fault.Protocol, Ref: k.String(), Detail: fmt.Sprintf("frame of %d bytes is over the limit of %d: split it, or put its value into the arena", n, MaxFrame)}
	}
	binary.LittleEndian.PutUint32(b[start:], uint32(n))
	return b, nil
}

// fixed sets the length of a frame that is always small.
func fixed(b []byte, start int) []byte {
	binary.LittleEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

func le32(b []byte, v uint32) []byte { return binary.LittleEndian.AppendUint32(b, v) }
func le64(b []byte, v uint64) []byte { return binary.LittleEndian.AppendUint64(b, v) }

func appendUnique(b []byte, u ids.Unique) []byte { return binary.BigEndian.AppendUint64(b, uint64(u)) }

func appendIDs(b []byte, l ids.List) []byte { return append(le32(b, uint32(l.Len())), l...) }
