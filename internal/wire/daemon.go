package wire

import (
	"encoding/binary"
	"iter"

	"gray/internal/core/ids"
)

// Value answers one id of a GET.
type Value struct {
	Req       uint32
	ID        ids.ObjectID
	Status    Status
	Where     Where
	Contained ids.List
	Value     []byte // if Where is Inline
	Offset    uint64 // in the arena, if Where is Arena
	Size      uint64 // bytes; of an inline value the length of Value
}

// DecodeValue reads VALUE's body.
func DecodeValue(body []byte) (Value, error) {
	c := cursor{b: body}
	m := Value{Req: c.u32("req"), ID: c.id(), Status: Status(c.enum(1, "status")), Where: Where(c.enum(1, "where"))}
	m.Contained = c.list(c.u32("n_contained"), "contained")
	if m.Where == Inline {
		m.Value = c.rest()
		m.Size = uint64(len(m.Value))
		return m, c.tail(KindValue)
	}
	m.Offset, m.Size = c.u64("offset"), c.u64("size")
	return m, c.done(KindValue)
}

// AppendValue appends the frame.
func AppendValue(b []byte, m *Value) ([]byte, error) {
	at := len(b)
	b, err := AppendValueHeader(b, m, len(m.Value))
	if err == nil && m.Where == Inline {
		b = append(b, m.Value...)
	}
	if err != nil {
		return b[:at], err
	}
	return b, nil
}

// AppendValueHeader appends a VALUE frame without its inline value. The caller writes the value's inlineLen bytes right
// after what was appended (as a further buffer of one gathered write), so that the value is not copied.
func AppendValueHeader(b []byte, m *Value, inlineLen int) ([]byte, error) {
	at := len(b)
	b = append(le32(begin(b, KindValue), m.Req), m.ID[:]...)
	b = appendIDs(append(b, byte(m.Status), byte(m.Where)), m.Contained)
	if m.Where == Inline {
		return finish(b, at, inlineLen)
	}
	return finish(le64(le64(b, m.Offset), m.Size), at, 0)
}

// Ready tells which watched ids became ready.
type Ready struct {
	Req uint32
	IDs ids.List
}

// DecodeReady reads READY's body.
func DecodeReady(body []byte) (Ready, error) {
	c := cursor{b: body}
	m := Ready{Req: c.u32("req")}
	m.IDs = c.list(c.u32("n"), "ids")
	return m, c.done(KindReady)
}

// AppendReady appends the frame.
func AppendReady(b []byte, m *Ready) ([]byte, error) {
	at := len(b)
	return finish(appendIDs(le32(begin(b, KindReady), m.Req), m.IDs), at, 0)
}

// Created answers CREATE.
type Created struct {
	Req    uint32
	Offset uint64 // of the object's first byte in the arena
}

// DecodeCreated reads CREATED's body.
func DecodeCreated(body []byte) (Created, error) {
	c := cursor{b: body}
	m := Created{c.u32("req"), c.u64("offset")}
	return m, c.done(KindCreated)
}

// AppendCreated appends the frame.
func AppendCreated(b []byte, m Created) []byte {
	at := len(b)
	return fixed(le64(le32(begin(b, KindCreated), m.Req), m.Offset), at)
}

// Done ends a request.
type Done struct {
	Req  uint32
	Code uint8 // DoneAll or DoneCancelled
}

// DecodeDone reads DONE's body.
func DecodeDone(body []byte) (Done, error) {
	c := cursor{b: body}
	m := Done{c.u32("req"), c.u8("code")}
	return m, c.done(KindDone)
}

// AppendDone appends the frame.
func AppendDone(b []byte, m Done) []byte {
	at := len(b)
	return fixed(append(le32(begin(b, KindDone), m.Req), m.Code), at)
}

// Answer is ERROR or REPLY: a request's number and checked msgpack.
type Answer struct {
	Req uint32
	Map []byte
}

func decodeAnswer(body []byte, k Kind) (Answer, error) {
	c := cursor{b: body}
	m := Answer{Req: c.u32("req")}
	m.Map = c.rest()
	if err := c.tail(k); err != nil {
		return m, err
	}
	return m, checkMap(k, m.Map)
}

// DecodeError reads ERROR's body; see DecodeFault.
func DecodeError(body []byte) (Answer, error) { return decodeAnswer(body, KindError) }

// DecodeReply reads REPLY's body.
func DecodeReply(body []byte) (Answer, error) { return decodeAnswer(body, KindReply) }

func appendAnswer(b []byte, k Kind, m *Answer) ([]byte, error) {
	at := len(b)
	return finish(append(le32(begin(b, k), m.Req), m.Map...), at, 0)
}

// AppendError appends the frame; MarshalFault makes its map.
func AppendError(b []byte, m *Answer) ([]byte, error) { return appendAnswer(b, KindError, m) }

// AppendReply appends the frame.
func AppendReply(b []byte, m *Answer) ([]byte, error) { return appendAnswer(b, KindReply, m) }

// Dep is a task's argument that was a ref.
type Dep struct {
	ID        ids.ObjectID
	Status    Status
	Where     Where
	Contained ids.List
	Size      uint64 // bytes of the value
	Value     []byte // if Where is Inline
	Offset    uint64 // in the arena, if Where is Arena
}

// Deps are the deps of an EXECUTE, packed as on the wire. Those of a decoded EXECUTE have been checked.
type Deps struct {
	n   int
	raw []byte
}

// Len is the number of deps.
func (d Deps) Len() int { return d.n }

// Size is their bytes in the frame.
func (d Deps) Size() int { return len(d.raw) }

// All yields index and dep, in order.
func (d Deps) All() iter.Seq2[int, Dep] {
	return func(yield func(int, Dep) bool) {
		c := cursor{b: d.raw}
		for i := range d.n {
			if !yield(i, c.dep()) {
				return
			}
		}
	}
}

// Append adds a dep. An inline dep's Size is the length of its Value.
func (d *Deps) Append(p *Dep) {
	d.n++
	d.raw = append(d.raw, p.ID[:]...)
	d.raw = appendIDs(append(d.raw, byte(p.Status), byte(p.Where)), p.Contained)
	if p.Where == Inline {
		d.raw = append(le64(d.raw, uint64(len(p.Value))), p.Value...)
		return
	}
	d.raw = le64(le64(d.raw, p.Size), p.Offset)
}

// Reset empties d and keeps its memory.
func (d *Deps) Reset() { d.n, d.raw = 0, d.raw[:0] }

const minDep = ids.ObjectSize + 1 + 1 + 4 + 8

func (c *cursor) dep() (d Dep) {
	d.ID, d.Status, d.Where = c.id(), Status(c.enum(1, "status")), Where(c.enum(1, "where"))
	d.Contained = c.list(c.u32("n_contained"), "contained")
	d.Size = c.u64("size")
	if d.Where == Inline {
		d.Value = c.take(d.Size, "value")
	} else {
		d.Offset = c.u64("offset")
	}
	return d
}

// Execute tells a worker to run a task.
type Execute struct {
	Unique     ids.Unique
	Attempt    uint32
	Job        ids.Job
	Template   uint32
	NumReturns uint32
	Flags      uint16
	Overrides  []byte // msgpack; empty = none
	Deps       Deps
	Contained  ids.List
	Args       []byte
}

// ExecuteOverhead is the bytes of an EXECUTE frame besides overrides, deps, contained ids and args.
const ExecuteOverhead = HeaderSize + 8 + 4 + ids.JobSize + 4 + 4 + 2 + 4 + 4 + 4

// Size is the bytes of m's frame.
func (m *Execute) Size() int {
	return ExecuteOverhead + len(m.Overrides) + len(m.Deps.raw) + len(m.Contained) + len(m.Args)
}

// DecodeExecute reads EXECUTE's body.
func DecodeExecute(body []byte) (Execute, error) {
	c := cursor{b: body}
	m := Execute{Unique: c.unique(), Attempt: c.u32("attempt")}
	copy(m.Job[:], c.take(ids.JobSize, "job"))
	m.Template, m.NumReturns, m.Flags = c.u32("template"), c.u32("num_returns"), c.u16("flags")
	nd, no := c.u32("n_deps"), c.u32("len_overrides")
	m.Overrides = c.take(uint64(no), "overrides")
	if uint64(nd)*minDep > uint64(len(c.b)) {
		c.take(uint64(nd)*minDep, "deps")
		return m, c.tail(KindExecute)
	}
	deps := c.b
	for range nd {
		c.dep()
	}
	used := len(deps) - len(c.b)
	m.Deps = Deps{int(nd), deps[:used:used]}
	m.Contained = c.list(c.u32("n_contained"), "contained")
	m.Args = c.rest()
	return m, c.tail(KindExecute)
}

// AppendExecute appends the frame.
func AppendExecute(b []byte, m *Execute) ([]byte, error) {
	at := len(b)
	return finish(appendExecuteBody(begin(b, KindExecute), m), at, 0)
}

func appendExecuteBody(b []byte, m *Execute) []byte {
	b = le32(appendUnique(b, m.Unique), m.Attempt)
	b = le32(append(b, m.Job[:]...), m.Template)
	b = binary.LittleEndian.AppendUint16(le32(b, m.NumReturns), m.Flags)
	b = le32(le32(b, uint32(m.Deps.n)), uint32(len(m.Overrides)))
	b = append(b, m.Overrides...)
	b = append(b, m.Deps.raw...)
	b = appendIDs(b, m.Contained)
	return append(b, m.Args...)
}

// DecodeExit reads EXIT's body: the reason.
func DecodeExit(body []byte) (uint8, error) {
	c := cursor{b: body}
	v := c.u8("reason")
	return v, c.done(KindExit)
}

// AppendExit appends the frame.
func AppendExit(b []byte, reason uint8) []byte {
	at := len(b)
	return fixed(append(begin(b, KindExit), reason), at)
}

// DecodeExecDrop reads the body of a worker's TEMPLATE_DROP: the template's number.
func DecodeExecDrop(body []byte) (uint32, error) { return decodeU32(body, KindExecDrop, "no") }

// AppendExecDrop appends the frame.
func AppendExecDrop(b []byte, no uint32) []byte {
	at := len(b)
	return fixed(le32(begin(b, KindExecDrop), no), at)
}
