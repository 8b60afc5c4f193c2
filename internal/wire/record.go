package wire

import (
	"gray/internal/core/ids"
)

// TaskError says why the attempt of a task fails that a worker runs, before its RESULT.
type TaskError struct {
	Unique ids.Unique
	Text   []byte
}

// DecodeTaskError reads TASK_ERROR's body.
func DecodeTaskError(body []byte) (TaskError, error) {
	c := cursor{b: body}
	m := TaskError{Unique: c.unique()}
	m.Text = c.rest()
	return m, c.tail(KindTaskError)
}

// AppendTaskError appends the frame.
func AppendTaskError(b []byte, m *TaskError) ([]byte, error) {
	at := len(b)
	return finish(append(appendUnique(begin(b, KindTaskError), m.Unique), m.Text...), at, 0)
}

// CallSite says where in its program a client made the call, the put or the actor with this unique.
type CallSite struct {
	Unique ids.Unique
	Text   []byte
}

// DecodeCallSite reads CALL_SITE's body.
func DecodeCallSite(body []byte) (CallSite, error) {
	c := cursor{b: body}
	m := CallSite{Unique: c.unique()}
	m.Text = c.rest()
	return m, c.tail(KindCallSite)
}

// AppendCallSite appends the frame.
func AppendCallSite(b []byte, m *CallSite) ([]byte, error) {
	at := len(b)
	return finish(append(appendUnique(begin(b, KindCallSite), m.Unique), m.Text...), at, 0)
}

// Part is a piece of an answer that is too large for one frame; REPLY follows the last.
type Part struct {
	Req  uint32
	No   uint32 // from 0
	Data []byte
}

// DecodePart reads PART's body.
func DecodePart(body []byte) (Part, error) {
	c := cursor{b: body}
	m := Part{Req: c.u32("req"), No: c.u32("no")}
	m.Data = c.rest()
	return m, c.tail(KindPart)
}

// AppendPart appends the frame.
func AppendPart(b []byte, m *Part) ([]byte, error) {
	at := len(b)
	return finish(append(le32(le32(begin(b, KindPart), m.Req), m.No), m.Data...), at, 0)
}
