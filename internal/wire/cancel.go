package wire

import "gray/internal/core/ids"

// Bits of CANCEL_TASK's flags.
const (
	CancelForce     uint8 = 1 << 0
	CancelRecursive uint8 = 1 << 1
	CancelHeard     uint8 = 1 << 2 // from its worker: its code knows
)

// CancelTask cancels the task that makes an object.
type CancelTask struct {
	ID    ids.ObjectID
	Flags uint8
}

// DecodeCancelTask reads CANCEL_TASK's body.
func DecodeCancelTask(body []byte) (CancelTask, error) {
	c := cursor{b: body}
	m := CancelTask{c.id(), c.u8("flags")}
	return m, c.done(KindCancelTask)
}

// AppendCancelTask appends the frame.
func AppendCancelTask(b []byte, m CancelTask) []byte {
	at := len(b)
	b = append(begin(b, KindCancelTask), m.ID[:]...)
	return fixed(append(b, m.Flags), at)
}

// DecodeWithin reads WITHIN's body: the actor's call that makes what the next SUBMIT or ACTOR_CALL submits.
func DecodeWithin(body []byte) (ids.Unique, error) {
	c := cursor{b: body}
	u := c.unique()
	return u, c.done(KindWithin)
}

// AppendWithin appends the frame.
func AppendWithin(b []byte, u ids.Unique) []byte {
	at := len(b)
	return fixed(appendUnique(begin(b, KindWithin), u), at)
}
