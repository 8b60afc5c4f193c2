package wire

import (
	"encoding/binary"
	"iter"

	"gray/internal/core/ids"
)

// Submit asks for a task to be run.
type Submit struct {
	Template   uint32
	Unique     ids.Unique
	NumReturns uint32
	Flags      uint16
	Deps       ids.List // awaited, handed over by value
	Contained  ids.List // refs that travel inside Args
	Overrides  []byte   // msgpack, see DecodeOverrides; empty = none
	Args       []byte
}

// DecodeSubmit reads SUBMIT's body.
func DecodeSubmit(body []byte) (Submit, error) {
	c := cursor{b: body}
	s := Submit{Template: c.u32("template"), Unique: c.unique(), NumReturns: c.u32("num_returns"), Flags: c.u16("flags")}
	nd, nc, no := c.u32("n_deps"), c.u32("n_contained"), c.u32("len_overrides")
	s.Deps, s.Contained = c.list(nd, "deps"), c.list(nc, "contained")
	s.Overrides = c.take(uint64(no), "overrides")
	s.Args = c.rest()
	return s, c.tail(KindSubmit)
}

// AppendSubmit appends the frame.
func AppendSubmit(b []byte, s *Submit) ([]byte, error) {
	at := len(b)
	b = le32(begin(b, KindSubmit), s.Template)
	b = le32(appendUnique(b, s.Unique), s.NumReturns)
	b = binary.LittleEndian.AppendUint16(b, s.Flags)
	b = le32(b, uint32(s.Deps.Len()))
	b = le32(b, uint32(s.Contained.Len()))
	b = le32(b, uint32(len(s.Overrides)))
	b = append(b, s.Deps...)
	b = append(b, s.Contained...)
	b = append(b, s.Overrides...)
	b = append(b, s.Args...)
	return finish(b, at, 0)
}

// Put makes an object of a small value.
type Put struct {
	ID        ids.ObjectID
	Status    Status
	Contained ids.List
	Value     []byte // at most InlineMax
}

// DecodePut reads PUT's body.
func DecodePut(body []byte) (Put, error) {
	c := cursor{b: body}
	p := Put{ID: c.id(), Status: Status(c.enum(1, "status"))}
	p.Contained = c.list(c.u32("n_contained"), "contained")
	p.Value = c.rest()
	if err := c.tail(KindPut); err != nil {
		return p, err
	}
	if len(p.Value) > InlineMax {
		return p, malformed(KindPut, "value is larger than inline_max")
	}
	return p, nil
}

// AppendPut appends the frame.
func AppendPut(b []byte, p *Put) ([]byte, error) {
	at := len(b)
	b = append(begin(b, KindPut), p.ID[:]...)
	b = appendIDs(append(b, byte(p.Status)), p.Contained)
	return finish(append(b, p.Value...), at, 0)
}

// Create asks for arena space for an object. It is answered by CREATED or ERROR.
type Create struct {
	Chan, Req uint32
	ID        ids.ObjectID
	Size      uint64 // bytes
}

// DecodeCreate reads CREATE's body.
func DecodeCreate(body []byte) (Create, error) {
	c := cursor{b: body}
	m := Create{c.u32("chan"), c.u32("req"), c.id(), c.u64("size")}
	return m, c.done(KindCreate)
}

// AppendCreate appends the frame.
func AppendCreate(b []byte, m Create) []byte {
	at := len(b)
	b = le32(le32(begin(b, KindCreate), m.Chan), m.Req)
	return fixed(le64(append(b, m.ID[:]...), m.Size), at)
}

// Seal ends the writing of a created object.
type Seal struct {
	ID        ids.ObjectID
	Status    Status
	Contained ids.List
}

// DecodeSeal reads SEAL's body.
func DecodeSeal(body []byte) (Seal, error) {
	c := cursor{b: body}
	m := Seal{ID: c.id(), Status: Status(c.enum(1, "status"))}
	m.Contained = c.list(c.u32("n_contained"), "contained")
	return m, c.done(KindSeal)
}

// AppendSeal appends the frame.
func AppendSeal(b []byte, m *Seal) ([]byte, error) {
	at := len(b)
	b = append(begin(b, KindSeal), m.ID[:]...)
	return finish(appendIDs(append(b, byte(m.Status)), m.Contained), at, 0)
}

// Get asks for values.
type Get struct {
	Chan, Req uint32
	Flags     uint8
	IDs       ids.List
}

// DecodeGet reads GET's body.
func DecodeGet(body []byte) (Get, error) {
	c := cursor{b: body}
	m := Get{Chan: c.u32("chan"), Req: c.u32("req"), Flags: c.u8("flags")}
	m.IDs = c.list(c.u32("n"), "ids")
	return m, c.done(KindGet)
}

// AppendGet appends the frame.
func AppendGet(b []byte, m *Get) ([]byte, error) {
	at := len(b)
	b = le32(le32(begin(b, KindGet), m.Chan), m.Req)
	return finish(appendIDs(append(b, m.Flags), m.IDs), at, 0)
}

// Wait adds ids to a channel's watch set and asks to be told of Need that are ready.
type Wait struct {
	Chan, Req, Need uint32
	Flags           uint8
	IDs             ids.List
}

// DecodeWait reads WAIT's body.
func DecodeWait(body []byte) (Wait, error) {
	c := cursor{b: body}
	m := Wait{Chan: c.u32("chan"), Req: c.u32("req"), Need: c.u32("need"), Flags: c.u8("flags")}
	m.IDs = c.list(c.u32("n"), "ids")
	return m, c.done(KindWait)
}

// AppendWait appends the frame.
func AppendWait(b []byte, m *Wait) ([]byte, error) {
	at := len(b)
	b = le32(le32(le32(begin(b, KindWait), m.Chan), m.Req), m.Need)
	return finish(appendIDs(append(b, m.Flags), m.IDs), at, 0)
}

// CancelReq withdraws a request.
type CancelReq struct{ Chan, Req uint32 }

// DecodeCancelReq reads CANCEL_REQ's body.
func DecodeCancelReq(body []byte) (CancelReq, error) {
	c := cursor{b: body}
	m := CancelReq{c.u32("chan"), c.u32("req")}
	return m, c.done(KindCancelReq)
}

// AppendCancelReq appends the frame.
func AppendCancelReq(b []byte, m CancelReq) []byte {
	at := len(b)
	return fixed(le32(le32(begin(b, KindCancelReq), m.Chan), m.Req), at)
}

func decodeCounts(body []byte, k Kind) (Counts, error) {
	c := cursor{b: body}
	n := c.u32("n")
	l := Counts(c.take(uint64(n)*countSize, "counts"))
	return l, c.done(k)
}

func appendCounts(b []byte, k Kind, l Counts) ([]byte, error) {
	at := len(b)
	b = le32(begin(b, k), uint32(l.Len()))
	return finish(append(b, l...), at, 0)
}

// DecodeRelease reads RELEASE's body: ids and the deliveries consumed of each.
func DecodeRelease(body []byte) (Counts, error) { return decodeCounts(body, KindRelease) }

// AppendRelease appends the frame.
func AppendRelease(b []byte, l Counts) ([]byte, error) { return appendCounts(b, KindRelease, l) }

// DecodeUnpin reads UNPIN's body: ids and the pins consumed of each.
func DecodeUnpin(body []byte) (Counts, error) { return decodeCounts(body, KindUnpin) }

// AppendUnpin appends the frame.
func AppendUnpin(b []byte, l Counts) ([]byte, error) { return appendCounts(b, KindUnpin, l) }

// Output is one output of a RESULT.
type Output struct {
	Status    Status
	Where     Where
	Contained ids.List
	Size      uint64 // bytes of the value
	Value     []byte // if Where is Inline
}

// Outputs are the outputs of a RESULT, packed as on the wire. Those of a decoded RESULT have been checked.
type Outputs struct {
	n   int
	raw []byte
}

// Len is the number of outputs.
func (o Outputs) Len() int { return o.n }

// All yields index and output, in order.
func (o Outputs) All() iter.Seq2[int, Output] {
	return func(yield func(int, Output) bool) {
		c := cursor{b: o.raw}
		for i := range o.n {
			if !yield(i, c.output()) {
				return
			}
		}
	}
}

// Append adds an output. An inline output's Size is the length of its Value.
func (o *Outputs) Append(out *Output) {
	o.n++
	o.raw = append(o.raw, byte(out.Status), byte(out.Where))
	o.raw = appendIDs(o.raw, out.Contained)
	if out.Where == Inline {
		o.raw = append(le64(o.raw, uint64(len(out.Value))), out.Value...)
		return
	}
	o.raw = le64(o.raw, out.Size)
}

// Reset empties o and keeps its memory.
func (o *Outputs) Reset() { o.n, o.raw = 0, o.raw[:0] }

const minOutput = 1 + 1 + 4 + 8

func (c *cursor) output() (o Output) {
	o.Status, o.Where = Status(c.enum(1, "status")), Where(c.enum(1, "where"))
	o.Contained = c.list(c.u32("n_contained"), "contained")
	o.Size = c.u64("size")
	if o.Where == Inline {
		o.Value = c.take(o.Size, "value")
	}
	return o
}

// Result is a worker's answer to EXECUTE.
type Result struct {
	Unique  ids.Unique
	Attempt uint32
	Outcome Outcome
	Outputs Outputs
}

// DecodeResult reads RESULT's body.
func DecodeResult(body []byte) (Result, error) {
	c := cursor{b: body}
	m := Result{Unique: c.unique(), Attempt: c.u32("attempt"), Outcome: Outcome(c.enum(4, "outcome"))}
	n := c.u32("n")
	if uint64(n)*minOutput > uint64(len(c.b)) {
		c.take(uint64(n)*minOutput, "outputs")
		return m, c.tail(KindResult)
	}
	m.Outputs = Outputs{int(n), c.b}
	for range n {
		c.output()
	}
	return m, c.done(KindResult)
}

// AppendResult appends the frame.
func AppendResult(b []byte, m *Result) ([]byte, error) {
	at := len(b)
	b = le32(appendUnique(begin(b, KindResult), m.Unique), m.Attempt)
	b = le32(append(b, byte(m.Outcome)), uint32(m.Outputs.n))
	return finish(append(b, m.Outputs.raw...), at, 0)
}

// Call is a named request. Map is checked msgpack; see Call.Method and Unmarshal.
type Call struct {
	Chan, Req uint32
	Map       []byte
}

// DecodeCall reads CALL's body.
func DecodeCall(body []byte) (Call, error) {
	c := cursor{b: body}
	m := Call{Chan: c.u32("chan"), Req: c.u32("req")}
	m.Map = c.rest()
	if err := c.tail(KindCall); err != nil {
		return m, err
	}
	return m, checkMap(KindCall, m.Map)
}

// AppendCall appends the frame.
func AppendCall(b []byte, m *Call) ([]byte, error) {
	at := len(b)
	b = le32(le32(begin(b, KindCall), m.Chan), m.Req)
	return finish(append(b, m.Map...), at, 0)
}

func decodeU32(body []byte, k Kind, what string) (uint32, error) {
	c := cursor{b: body}
	v := c.u32(what)
	return v, c.done(k)
}

// DecodeChannelClose reads CHANNEL_CLOSE's body: the channel.
func DecodeChannelClose(body []byte) (uint32, error) {
	return decodeU32(body, KindChannelClose, "chan")
}

// AppendChannelClose appends the frame.
func AppendChannelClose(b []byte, channel uint32) []byte {
	at := len(b)
	return fixed(le32(begin(b, KindChannelClose), channel), at)
}

// DecodeTemplateDrop reads TEMPLATE_DROP's body: the template's number.
func DecodeTemplateDrop(body []byte) (uint32, error) { return decodeU32(body, KindTemplateDrop, "no") }

// AppendTemplateDrop appends the frame.
func AppendTemplateDrop(b []byte, no uint32) []byte {
	at := len(b)
	return fixed(le32(begin(b, KindTemplateDrop), no), at)
}

// DecodeAbort reads ABORT's body: the id of a CREATE that will not be sealed.
func DecodeAbort(body []byte) (ids.ObjectID, error) {
	c := cursor{b: body}
	o := c.id()
	return o, c.done(KindAbort)
}

// AppendAbort appends the frame.
func AppendAbort(b []byte, o ids.ObjectID) []byte {
	at := len(b)
	return fixed(append(begin(b, KindAbort), o[:]...), at)
}

// Credit asks to be told when more bytes of SUBMIT and PUT may be sent.
type Credit struct {
	Chan, Req uint32
	Total     uint64 // bytes sent so far
}

// DecodeCredit reads CREDIT's body.
func DecodeCredit(body []byte) (Credit, error) {
	c := cursor{b: body}
	m := Credit{c.u32("chan"), c.u32("req"), c.u64("total")}
	return m, c.done(KindCredit)
}

// AppendCredit appends the frame.
func AppendCredit(b []byte, m Credit) []byte {
	at := len(b)
	return fixed(le64(le32(le32(begin(b, KindCredit), m.Chan), m.Req), m.Total), at)
}
