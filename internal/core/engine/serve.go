package engine

import "gray/internal/core/ids"

// Serving is an object's bytes that are being sent to another node.
type Serving struct {
	Off, Size uint64
	Status    uint8
	Key       uint64 // of these bytes
	Partial   bool   // they are still arriving here
}

// Serve pins an object's bytes for sending them to another node, also while they arrive. Served ends it.
func (e *Engine) Serve(id ids.ObjectID) (Serving, bool) {
	i := e.find(id)
	if i == 0 {
		return Serving{}, false
	}
	o := e.objs.at(i)
	s := Serving{Off: o.off, Size: o.size, Status: o.status, Key: o.mem}
	switch o.state {
	case objArena:
		e.hold(i)
		o.pins++
		e.memPin(o)
	case objFetching:
		if o.mem == 0 {
			return Serving{}, false
		}
		e.hold(i)
		e.readers[o.mem]++
		s.Partial = true
	default:
		return Serving{}, false
	}
	return s, true
}

// Served ends a Serve of the bytes with this key.
func (e *Engine) Served(id ids.ObjectID, key uint64) {
	if n := e.readers[key]; n > 0 { // they never arrived, or are still arriving
		if e.readers[key]--; n == 1 {
			delete(e.readers, key)
		}
		if i := e.find(id); i != 0 {
			e.unhold(i)
		}
		return
	}
	if i := e.find(id); i != 0 {
		o := e.objs.at(i)
		o.pins--
		e.memUnpin(o)
		e.unhold(i)
	}
}

// pinReaders turns those who read arriving bytes into readers of bytes that are here.
func (e *Engine) pinReaders(o *object) {
	for n := e.readers[o.mem]; n > 0; n-- {
		o.pins++
		e.memPin(o)
	}
	delete(e.readers, o.mem)
}
