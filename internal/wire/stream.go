package wire

import (
	"iter"

	"gray/internal/core/ids"
)

// Item is a value that a generator yielded, from the worker that runs it.
type Item struct {
	Unique  ids.Unique
	Attempt uint32
	Index   uint32 // of the object: 2 for the first item
	Output  Output
}

// FirstItem is the index of a stream's first item; index 1 is the stream's own object.
const FirstItem = 2

// DecodeItem reads ITEM's body.
func DecodeItem(body []byte) (Item, error) {
	c := cursor{b: body}
	m := Item{Unique: c.unique(), Attempt: c.u32("attempt"), Index: c.u32("index")}
	m.Output = c.output()
	if err := c.done(KindItem); err != nil {
		return m, err
	}
	if m.Index < FirstItem {
		return m, malformed(KindItem, "index is below 2")
	}
	return m, nil
}

// AppendItem appends the frame. An inline output's Size is the length of its Value.
func AppendItem(b []byte, m *Item) ([]byte, error) {
	at := len(b)
	b = le32(le32(appendUnique(begin(b, KindItem), m.Unique), m.Attempt), m.Index)
	o := Outputs{raw: b}
	o.Append(&m.Output)
	return finish(o.raw, at, 0)
}

// Next asks for a stream's items from index From on. It is answered by ITEMS, DONE or ERROR, if Req is not 0.
type Next struct {
	Chan, Req uint32
	ID        ids.ObjectID // of the stream's object
	From      uint32
	Read      uint32 // items up to this index are read: what a bounded generator waits for
	Flags     uint8  // FlagBeside
}

// DecodeNext reads NEXT's body.
func DecodeNext(body []byte) (Next, error) {
	c := cursor{b: body}
	m := Next{Chan: c.u32("chan"), Req: c.u32("req"), ID: c.id(), From: c.u32("from"), Read: c.u32("read"), Flags: c.u8("flags")}
	if err := c.done(KindNext); err != nil {
		return m, err
	}
	if m.From < FirstItem {
		return m, malformed(KindNext, "from is below 2")
	}
	return m, nil
}

// AppendNext appends the frame.
func AppendNext(b []byte, m Next) []byte {
	at := len(b)
	b = append(le32(le32(begin(b, KindNext), m.Chan), m.Req), m.ID[:]...)
	return fixed(append(le32(le32(b, m.From), m.Read), m.Flags), at)
}

// DecodeStreamDrop reads STREAM_DROP's body: the id of the stream's object.
func DecodeStreamDrop(body []byte) (ids.ObjectID, error) {
	c := cursor{b: body}
	o := c.id()
	return o, c.done(KindStreamDrop)
}

// AppendStreamDrop appends the frame.
func AppendStreamDrop(b []byte, o ids.ObjectID) []byte {
	at := len(b)
	return fixed(append(begin(b, KindStreamDrop), o[:]...), at)
}

// Items answers NEXT: one delivery of each of the stream's objects First, First+1, …
type Items struct {
	Req   uint32
	ID    ids.ObjectID
	First uint32
	Ended uint8 // 1: there are no more after these
	List  Handed
}

// HandedItem is one of the objects of ITEMS.
type HandedItem struct {
	Status    Status
	Where     Where // Elsewhere, too; only an inline value comes along
	Contained ids.List
	Value     []byte
}

// Handed are the objects of ITEMS, packed as on the wire. Those of a decoded ITEMS have been checked.
type Handed struct {
	n   int
	raw []byte
}

// Len is the number of objects.
func (h Handed) Len() int { return h.n }

// Size is their bytes in the frame.
func (h Handed) Size() int { return len(h.raw) }

// All yields index and object, in order.
func (h Handed) All() iter.Seq2[int, HandedItem] {
	return func(yield func(int, HandedItem) bool) {
		c := cursor{b: h.raw}
		for i := range h.n {
			if !yield(i, c.handed()) {
				return
			}
		}
	}
}

// Append adds an object.
func (h *Handed) Append(o *HandedItem) {
	h.n++
	h.raw = le32(le32(append(h.raw, byte(o.Status), byte(o.Where)), uint32(o.Contained.Len())), uint32(len(o.Value)))
	h.raw = append(append(h.raw, o.Contained...), o.Value...)
}

// Reset empties h and keeps its memory.
func (h *Handed) Reset() { h.n, h.raw = 0, h.raw[:0] }

// HandedOverhead is the bytes of an object in ITEMS, but for contained ids and its value.
const HandedOverhead = 1 + 1 + 4 + 4

func (c *cursor) handed() (o HandedItem) {
	o.Status, o.Where = Status(c.enum(1, "status")), Where(c.enum(2, "where"))
	n, size := c.u32("n_contained"), c.u32("size")
	o.Contained = c.list(n, "contained")
	o.Value = c.take(uint64(size), "value")
	return o
}

// DecodeItems reads ITEMS's body.
func DecodeItems(body []byte) (Items, error) {
	c := cursor{b: body}
	m := Items{Req: c.u32("req"), ID: c.id(), First: c.u32("first"), Ended: c.enum(1, "ended")}
	n := c.u32("n")
	if uint64(n)*HandedOverhead > uint64(len(c.b)) {
		c.take(uint64(n)*HandedOverhead, "items")
		return m, c.tail(KindItems)
	}
	m.List = Handed{int(n), c.b}
	for range n {
		c.handed()
	}
	return m, c.done(KindItems)
}

// AppendItems appends the frame.
func AppendItems(b []byte, m *Items) ([]byte, error) {
	at := len(b)
	b = append(le32(begin(b, KindItems), m.Req), m.ID[:]...)
	b = le32(append(le32(b, m.First), m.Ended), uint32(m.List.n))
	return finish(append(b, m.List.raw...), at, 0)
}
