package sim

import (
	"encoding/binary"
	"time"

	"gray/internal/core/engine"
	"gray/internal/core/linkstate"
)

// linkKey names a link by its ends' indexes, the lower first.
type linkKey struct{ a, b int }

// link carries messages between two nodes, in order, while both live.
type link struct {
	w    *World
	key  linkKey
	half [2]*half // to the node with the higher index, and to the lower
	up   bool
	mach [2]*linkstate.State
	wire [2]*pipe // of the present connection
	buf  [2][]byte
	gen  int
	dead bool
}

// half is one direction.
type half struct {
	to, from *node
	queue    []engine.Msg // sent; delivered in order when the link is up
	pumping  bool
	box      map[uint64]engine.Msg // lossy: messages by number
	next     uint64
}

func (w *World) linkOf(a, b *node) (*link, int) {
	k, dir := linkKey{a.index, b.index}, 0
	if b.index < a.index {
		k, dir = linkKey{b.index, a.index}, 1
	}
	l := w.links[k]
	if l == nil {
		lo, hi := w.nodes[k.a], w.nodes[k.b]
		l = &link{w: w, key: k, half: [2]*half{{to: hi, from: lo, box: map[uint64]engine.Msg{}}, {to: lo, from: hi, box: map[uint64]engine.Msg{}}}}
		w.links[k] = l
		if w.cfg.Lossy {
			for s := range l.mach {
				l.mach[s] = newMachine(uint64(s) + 1)
			}
		}
		w.after(w.delay(), l.connect)
		if (w.cfg.Cuts || w.cfg.Lossy) && (w.cfg.Spared == 0 || !w.chance(w.cfg.Spared)) {
			w.after(time.Duration(w.rng.IntN(500))*time.Millisecond, l.cut)
		}
	}
	return l, dir
}

func newMachine(incarnation uint64) *linkstate.State {
	s, err := linkstate.New(linkstate.Config{Incarnation: incarnation, Chunk: 24})
	if err != nil {
		panic(err) // the settings are constant
	}
	return s
}

// connect brings the link up once both ends know each other.
func (l *link) connect() {
	a, b := l.half[0].from, l.half[1].from
	if l.dead || l.up {
		return
	}
	if a.alive && b.alive && a.eng != nil && b.eng != nil { // who is called is told by whom
		for _, end := range [][2]*node{{a, b}, {b, a}} {
			if n, o := end[0], end[1]; n.knows(o) && !o.knows(n) {
				o.do(func(*engine.Engine) { o.peer(n.id, n.mbr.Owner()) })
			}
		}
	}
	if !a.alive || !b.alive || !a.knows(b) || !b.knows(a) {
		if a.alive && b.alive && !a.dead[b.id] && !b.dead[a.id] {
			l.w.after(20*time.Millisecond, l.connect)
		}
		return
	}
	l.up = true
	l.gen++
	if l.w.cfg.Lossy {
		for s := range l.wire {
			l.wire[s], l.buf[s] = &pipe{w: l.w}, nil
			l.write(s, l.mach[s].Open(l.w.now, nil))
		}
		l.keep(l.gen)
		return
	}
	l.pump(0)
	l.pump(1)
}

func (l *link) send(dir int, m engine.Msg) {
	h := l.half[dir]
	if !l.w.cfg.Lossy {
		h.queue = append(h.queue, m)
		l.pump(dir)
		return
	}
	h.next++
	h.box[h.next] = m
	body := make([]byte, 8+l.w.rng.IntN(60))
	binary.LittleEndian.PutUint64(body, h.next)
	if err := l.mach[dir].Send(body); err != nil {
		l.w.failf("link: %v", err)
	}
	l.flush(dir)
}

// pump delivers what is queued in one direction, one after the other.
func (l *link) pump(dir int) {
	h := l.half[dir]
	if h.pumping || !l.up || len(h.queue) == 0 || l.dead {
		return
	}
	h.pumping = true
	l.w.after(l.w.delay(), func() {
		h.pumping = false
		if !l.up || l.dead {
			return
		}
		n := 1 + l.w.rng.IntN(len(h.queue))
		batch := h.queue[:n:n]
		h.queue = h.queue[n:]
		for _, m := range batch {
			h.to.receive(h.from, m)
		}
		l.pump(dir)
	})
}

// cut breaks the connection, for a while.
func (l *link) cut() {
	if l.dead {
		return
	}
	if l.up && l.w.faults {
		l.w.Stats.Cuts++
		l.broke()
		l.w.after(time.Duration(l.w.rng.IntN(400))*time.Millisecond, l.connect)
	}
	if l.w.faults {
		l.w.after(time.Duration(50+l.w.rng.IntN(1500))*time.Millisecond, l.cut)
	}
}

func (l *link) broke() {
	l.up = false
	l.gen++
	if l.w.cfg.Lossy {
		for s := range l.wire {
			l.wire[s].down = true
			l.mach[s].Broke()
		}
	}
}

// flush writes what a machine has to write.
func (l *link) flush(side int) {
	if !l.up {
		return
	}
	if b := l.mach[side].Output(l.w.now, nil, 1<<16); len(b) > 0 {
		l.write(side, b)
	}
}

// write sends frames to the other side; the network may double some, or lose some and all that follow, until the
// connection is seen to be broken.
func (l *link) write(side int, b []byte) {
	var out []byte
	for len(b) > 0 {
		_, _, n, err := linkstate.Cut(b)
		if err != nil || n == 0 {
			l.w.failf("link: a machine wrote half a frame: %v", err)
			return
		}
		if !l.w.faults || !l.w.chance(0.02) {
			out = append(out, b[:n]...)
		} else if l.w.chance(0.5) {
			out = append(append(out, b[:n]...), b[:n]...)
		} else {
			l.lose(side, out)
			return
		}
		b = b[n:]
	}
	gen := l.gen
	l.wire[side].send(func() { l.arrive(1-side, gen, out) })
}

// lose delivers what is left of the connection's life.
func (l *link) lose(side int, out []byte) {
	gen := l.gen
	l.wire[side].send(func() { l.arrive(1-side, gen, out) })
	l.wire[side] = &pipe{w: l.w, down: true}
	l.w.after(l.w.delay(), func() {
		if gen == l.gen && !l.dead {
			l.w.Stats.Cuts++
			l.broke()
			l.w.after(l.w.delay(), l.connect)
		}
	})
}

// arrive feeds bytes to the machine of a side.
func (l *link) arrive(side, gen int, b []byte) {
	if gen != l.gen || l.dead {
		return
	}
	l.buf[side] = append(l.buf[side], b...)
	m := l.mach[side]
	for {
		t, body, n, err := linkstate.Cut(l.buf[side])
		if err == nil && n > 0 {
			l.buf[side] = l.buf[side][n:]
			var in linkstate.Input
			if in, err = m.Receive(l.w.now, t, body); err == nil && in.HasMessage {
				l.deliver(side, in.Message)
			}
		}
		if err != nil {
			l.broke()
			l.w.after(l.w.delay(), l.connect)
			return
		}
		if n == 0 || gen != l.gen {
			break
		}
	}
	l.flush(side)
}

func (l *link) deliver(side int, msg []byte) {
	h := l.half[1-side] // the direction that ends here
	no := binary.LittleEndian.Uint64(msg)
	m, ok := h.box[no]
	if !ok {
		l.w.failf("link: message %d came twice, or was never sent", no)
		return
	}
	delete(h.box, no)
	h.to.receive(h.from, m)
}

// keep runs a connection's timers.
func (l *link) keep(gen int) {
	if gen != l.gen || l.dead {
		return
	}
	for s := range l.mach {
		if l.mach[s].Expired(l.w.now) {
			l.broke()
			l.w.after(l.w.delay(), l.connect)
			return
		}
		l.flush(s)
	}
	l.w.after(10*time.Millisecond, func() { l.keep(gen) })
}

// end drops a link whose one end is dead.
func (l *link) end() { l.dead = true }
