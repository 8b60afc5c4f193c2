package wire

import "gray/internal/core/ids"

// IDs carries contained ids that do not fit into the frame of the object's value; it goes before that frame.
type IDs struct {
	ID        ids.ObjectID
	Contained ids.List
}

// DecodeIDs reads IDS's body.
func DecodeIDs(body []byte) (IDs, error) {
	c := cursor{b: body}
	m := IDs{ID: c.id()}
	if len(c.b)%ids.ObjectSize != 0 {
		return m, malformed(KindIDs, "the list ends within an id")
	}
	m.Contained = ids.List(c.rest())
	return m, c.tail(KindIDs)
}

// AppendIDs appends the frame.
func AppendIDs(b []byte, m *IDs) ([]byte, error) {
	at := len(b)
	return finish(append(append(begin(b, KindIDs), m.ID[:]...), m.Contained...), at, 0)
}

// ExecuteAt names the arena bytes that hold an EXECUTE's body.
type ExecuteAt struct{ Offset, Size uint64 }

// DecodeExecuteAt reads EXECUTE_AT's body.
func DecodeExecuteAt(body []byte) (ExecuteAt, error) {
	c := cursor{b: body}
	m := ExecuteAt{c.u64("offset"), c.u64("size")}
	return m, c.done(KindExecuteAt)
}

// AppendExecuteAt appends the frame.
func AppendExecuteAt(b []byte, m ExecuteAt) []byte {
	at := len(b)
	return fixed(le64(le64(begin(b, KindExecuteAt), m.Offset), m.Size), at)
}

// ExecuteBody is the body of an EXECUTE of any length, for EXECUTE_AT.
func ExecuteBody(m *Execute) []byte { return appendExecuteBody(make([]byte, 0, m.Size()), m) }
