package sim

import (
	"time"

	"gray/internal/core/engine"
	"gray/internal/core/extent"
	"gray/internal/core/ids"
)

// store is a node's arena: instead of bytes it keeps a stamp for each kilobyte and one at the end of an extent.
type store struct{ stamps []uint64 }

func (s *store) init(space int64) { s.stamps = make([]uint64, space/64) }

func (s *store) write(off, size, stamp uint64) {
	for at := off; at < off+size; at += 1024 {
		s.stamps[at/64] = stamp
	}
	s.stamps[(off+max(size, 1)-1)/64] = stamp
}

// read is the stamp of an extent; false if it is not the same everywhere.
func (s *store) read(off, size uint64) (uint64, bool) {
	stamp := s.stamps[off/64]
	for at := off; at < off+size; at += 1024 {
		if s.stamps[at/64] != stamp {
			return 0, false
		}
	}
	return stamp, s.stamps[(off+max(size, 1)-1)/64] == stamp
}

// copying is a copy of an object's bytes from another node.
type copying struct {
	n, src  *node
	key     uint64
	id      ids.ObjectID
	off     uint64
	size    uint64
	serving engine.Serving
	opened  bool
	stopped bool
	over    bool
	failed  bool
}

// Fetch starts a copy.
func (n *node) Fetch(key uint64, id ids.ObjectID, from engine.NodeNo, off, size uint64) {
	n.w.tracef("node %d fetches %s (%d bytes, key %d)", n.index, short(id), size, key)
	if n.copies[key] != nil {
		n.w.failf("node %d: two copies of %s under key %d at once", n.index, id, key)
		return
	}
	n.w.Stats.Fetches++
	c := &copying{n: n, src: n.byNo[from], key: key, id: id, off: off, size: size}
	n.copies[key] = c
	n.w.after(n.w.delay(), c.open)
}

// CancelFetch stops a copy; its end is told all the same.
func (n *node) CancelFetch(key uint64) {
	if c := n.copies[key]; c != nil {
		c.stopped = true
		n.w.after(n.w.delay(), func() { c.end(false) })
	}
}

func (c *copying) open() {
	w := c.n.w
	if c.over {
		return
	}
	if c.src == nil || !c.src.alive || (w.faults && w.chance(w.cfg.BadCopy)) {
		w.after(w.delay(), func() { c.end(false) })
		return
	}
	c.src.do(func(e *engine.Engine) { c.serving, c.opened = e.Serve(c.id) })
	if !c.opened || c.serving.Size != c.size {
		if c.opened {
			w.failf("node %d: %s has %d bytes here and %d at its source", c.n.index, c.id, c.size, c.serving.Size)
		}
		w.after(w.delay(), func() { c.end(false) })
		return
	}
	if c.serving.Partial {
		if c.src.copies[c.serving.Key] == nil { // not yet, or no longer, under way
			w.after(w.delay(), func() { c.end(false) })
			return
		}
		c.follow(c.src.copies[c.serving.Key])
		return
	}
	w.after(c.duration(), c.finish)
}

func (c *copying) duration() time.Duration {
	return c.n.w.delay() + time.Duration(c.size)*time.Nanosecond
}

// follow waits for the copy from which this one copies.
func (c *copying) follow(other *copying) {
	switch {
	case c.over:
	case !other.over:
		c.n.w.after(200*time.Microsecond, func() { c.follow(other) })
	case other.failed:
		c.end(false)
	default:
		c.n.w.after(c.duration(), c.finish)
	}
}

func (c *copying) finish() {
	w := c.n.w
	if c.over {
		return
	}
	if !c.src.alive || (w.faults && w.chance(w.cfg.BadCopy)) {
		c.end(false)
		return
	}
	stamp, ok := c.src.store.read(c.serving.Off, c.size)
	if !ok {
		w.failf("node %d: the bytes of %s at node %d changed while they were sent", c.n.index, c.id, c.src.index)
		return
	}
	c.n.store.write(c.off, c.size, stamp)
	c.end(true)
}

// end tells both ends, once.
func (c *copying) end(ok bool) {
	if c.over {
		return
	}
	c.n.w.hit()
	c.over, c.failed = true, !ok
	if c.opened && c.src.alive {
		c.src.do(func(e *engine.Engine) { e.Served(c.id, c.serving.Key) })
	}
	if c.n.copies[c.key] == c {
		delete(c.n.copies, c.key)
	}
	c.n.do(func(e *engine.Engine) { e.Fetched(c.key, ok) })
}

// orphan ends a copy whose receiver is dead.
func (c *copying) orphan() {
	c.n.w.after(c.n.w.delay(), func() { c.end(false) })
}

// Commit makes pages, sometimes later, and in some worlds not always.
func (n *node) Commit(key uint64, _ extent.Extent) engine.Commit {
	w := n.w
	made := !w.faults || !w.chance(w.cfg.NoPages)
	switch {
	case w.cfg.SlowPages && w.chance(0.5):
		w.after(w.delay(), func() {
			w.hit()
			n.do(func(e *engine.Engine) { e.Committed(key, made) })
		})
		return engine.CommitLater
	case !made:
		return engine.CommitFailed
	}
	return engine.CommitDone
}

// Punch gives pages back: what is read there is no longer what was written.
func (n *node) Punch(at extent.Extent) {
	for off := at.Off; off < at.End(); off += 64 {
		n.store.stamps[off/64] = 0
	}
}
