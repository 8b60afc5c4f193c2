package relay

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/core/linkstate"
	"gray/internal/link"
	"gray/internal/wire"
)

// Near is a session's half beside its driver.
type Near struct {
	tube
	store *store
	down  func(err error)
	done  chan struct{} // closed when the session is over
	once  sync.Once
	why   *wire.Refused // what the driver is told at the end; set before done is closed, nil: nothing
	puts  *window
	up    *window
	jobs  *list // of values to send, and what must not overtake them

	writers sync.WaitGroup // of the driver's connections

	mu     sync.Mutex
	driver bool                         // guarded by mu; the driver has said something
	conns  map[uint32]*nearConn         // guarded by mu
	asked  map[request]wire.Create      // guarded by mu
	rooms  map[ids.ObjectID]wire.Create // guarded by mu; being written; Chan and Req are not used
	offs   map[ids.ObjectID]int64       // guarded by mu; of rooms
	copies map[ids.ObjectID]*kept       // guarded by mu

	lacking map[ids.ObjectID]struct{} // guarded by mu; had no room, and the far half may not know yet
}

// kept is a value that the driver has pins of, or had until just now.
type kept struct {
	off  int64
	size int64
	pins uint32
}

// nearConn is one of the driver's connections.
type nearConn struct {
	no   uint32
	conn *net.UnixConn
	out  *queue
	seen meter // guarded by Near.mu
	lost bool  // guarded by Near.mu; its driver has closed it: what still comes for it is given back

	// What comes in by pieces; the link's reader's own.
	value *wire.Value
	off   int64 // -1: there is no room for it
	got   int64
}

// NewNear makes a session's half for one driver. It keeps up to capacity bytes of large values. down is told of each
// connection that broke; Attach brings another.
func NewNear(incarnation uint64, capacity int64, down func(error)) (*Near, error) {
	n := &Near{
		down: down, done: make(chan struct{}), puts: newWindow(), up: newWindow(), jobs: newList(),
		conns: map[uint32]*nearConn{}, asked: map[request]wire.Create{}, rooms: map[ids.ObjectID]wire.Create{},
		offs: map[ids.ObjectID]int64{}, copies: map[ids.ObjectID]*kept{},
		lacking: map[ids.ObjectID]struct{}{},
	}
	n.init()
	var err error
	if n.store, err = openStore(capacity); err != nil {
		return nil, err
	}
	n.link, err = link.New(linkstate.Config{Incarnation: incarnation, MaxUnacked: MaxUnacked}, link.Events{
		Message: func(msg []byte) {
			if err := n.take(msg); err != nil {
				n.Finish(&wire.Refused{Kind: fault.Protocol, Error: err.Error()})
			}
		},
		Down: down,
		PeerReset: func(uint64, int) {
			n.Finish(&wire.Refused{Kind: fault.System, Error: "the cluster has forgotten this session"})
		},
		Drained: n.drained,
	})
	return n, err
}

// Attach gives the session a connection, the first or one in place of another.
func (n *Near) Attach(c net.Conn) error { return n.link.Attach(c) }

// Done is closed when the session is over.
func (n *Near) Done() <-chan struct{} { return n.done }

// Finish ends the session; the driver is told why on each of its connections, unless why is nil.
func (n *Near) Finish(why *wire.Refused) {
	n.once.Do(func() {
		n.why = why
		close(n.done)
	})
}

// Close ends all connections once what there is to say on them is said. It is called after Done.
func (n *Near) Close() {
	var last []byte
	if n.why != nil {
		last, _ = wire.AppendRefused(nil, n.why) // of bounded size
	}
	n.close()
	n.puts.close()
	n.up.close()
	n.jobs.end()
	n.link.Close()
	n.mu.Lock()
	left := make([]*nearConn, 0, len(n.conns))
	for _, c := range n.conns {
		left = append(left, c)
	}
	n.mu.Unlock()
	for _, c := range left {
		c.out.put(last, 0)
		c.out.end()
		_ = c.conn.SetWriteDeadline(time.Now().Add(lastWords)) // of one that does not read
	}
	n.writers.Wait()
}

// lastWords is how long the driver has to take what it is told at the end.
const lastWords = time.Second

// Serve takes the driver's connections from control, on which it passes them as descriptors, until the session is over.
func (n *Near) Serve(control *net.UnixConn) error {
	go n.sendJobs()
	b, oob := make([]byte, 16), make([]byte, unix.CmsgSpace(4*8))
	for {
		_, on, _, _, err := control.ReadMsgUnix(b, oob)
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		if on == 0 { // the driver closed it
			return nil
		}
		msgs, err := unix.ParseSocketControlMessage(oob[:on])
		if err != nil {
			return err
		}
		for k := range msgs {
			fds, err := unix.ParseUnixRights(&msgs[k])
			if err != nil {
				return err
			}
			for _, fd := range fds {
				unix.CloseOnExec(fd)
				c, err := unixConn(fd)
				if err != nil {
					return err
				}
				go n.greet(c)
			}
		}
	}
}

// greet opens a connection of the driver's at the far half.
func (n *Near) greet(c *net.UnixConn) {
	st := wire.NewStream(c, 4096)
	f, err := st.Next()
	if err != nil || f.Kind != wire.KindHello {
		_ = c.Close()
		return
	}
	h, err := wire.DecodeHello(f.Body)
	if err != nil {
		_ = c.Close()
		return
	}
	no := uint32(driverStream)
	if h.Role != wire.RoleDriver {
		no = streamOf(h.Chan)
	}
	nc := &nearConn{no: no, conn: c, out: newQueue()}
	n.mu.Lock()
	taken := n.conns[no] != nil
	if n.driver = n.driver || no == driverStream; !taken {
		n.conns[no] = nc
	}
	n.mu.Unlock()
	if taken {
		_ = c.Close()
		return
	}
	select {
	case <-n.done:
		if n.why != nil {
			b, _ := wire.AppendRefused(nil, n.why) // of bounded size
			nc.out.put(b, 0)
		}
		nc.out.end()
	default:
	}
	n.writers.Add(1)
	go n.write(nc)
	if err := n.tube.send(append(message(msgOpen, no, len(f.Body)+wire.HeaderSize), whole(nil, f)...)); err != nil {
		return // the session is over
	}
	if no == driverStream {
		n.read(st)
		n.jobs.put(job{end: true})
		return
	}
	var b [1]byte
	_, _ = c.Read(b[:]) // a client writes nothing more: this is the end
	n.mu.Lock()
	nc.lost = true
	n.mu.Unlock()
	_ = n.say(msgClose, no)
}

// write writes to a connection of the driver's what came for it. One that the driver has closed is there until the far half
// knows: what is on its way by then counts as read, and its pins are given back.
func (n *Near) write(c *nearConn) {
	defer n.writers.Done()
	defer func() {
		n.mu.Lock()
		if n.conns[c.no] == c {
			delete(n.conns, c.no)
		}
		n.mu.Unlock()
		_ = c.conn.Close()
	}()
	var b []byte
	for {
		var ok bool
		if b, _, ok = c.out.take(b); !ok {
			return
		}
		if done, err := n.writeOut(c, b); err != nil { // its reader tells
			n.giveBack(c, b, done)
		}
		n.count(c, len(b))
	}
}

// giveBack gives up the pins of what could not be written to a connection beyond its first bytes.
func (n *Near) giveBack(c *nearConn, b []byte, done int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c.lost = true
	r := wire.NewReader(b)
	for len(r.Rest()) > 0 {
		f, err := r.Next()
		if err != nil {
			return // the driver's last words, cut
		}
		if f.Kind != wire.KindValue || len(b)-len(r.Rest()) <= done {
			continue
		}
		if v, err := wire.DecodeValue(f.Body); err == nil && v.Where == wire.Arena {
			if h := n.copies[v.ID]; h != nil && h.pins > 0 {
				h.pins--
				n.unpin(v.ID)
			}
		}
	}
}

// unpin tells the far half of a pin that the driver never had.
func (n *Near) unpin(id ids.ObjectID) {
	b, _ := wire.AppendUnpin(nil, wire.Counts{}.Append(id, 1)) // one is never too many
	n.jobs.put(job{frame: b})
}

// writeOut writes frames; behind the arena's size in a driver's WELCOME comes its descriptor.
func (n *Near) writeOut(c *nearConn, b []byte) (int, error) {
	if len(b) > 4 && wire.Kind(b[4]) == wire.KindWelcome && c.no == driverStream {
		done, _, err := c.conn.WriteMsgUnix(b, unix.UnixRights(int(n.store.file.Fd())), nil)
		return done, err
	}
	return c.conn.Write(b)
}

// count counts what has found its reader.
func (n *Near) count(c *nearConn, size int) {
	n.mu.Lock()
	tell := c.seen.add(size)
	n.mu.Unlock()
	if tell != nil {
		_ = n.say(msgCredit, c.no, tell...) // no link: nobody to tell
	}
}

// take carries out a message of the far half. It runs on the link's reader.
func (n *Near) take(msg []byte) error {
	kind, no, body, err := split(msg)
	if err != nil {
		return err
	}
	n.mu.Lock()
	c := n.conns[no]
	n.mu.Unlock()
	switch kind {
	case msgFrames:
		if c != nil {
			return n.frames(c, body)
		}
	case msgBytes:
		if c != nil {
			return n.bytes(c, body)
		}
	case msgCredit:
		if len(body) == 4 {
			w := n.up
			if no == puts {
				w = n.puts
			}
			w.give(int(binary.LittleEndian.Uint32(body)))
		}
	case msgClose:
		if c != nil {
			n.cutOff(c)
			c.out.end()
		}
	case msgDrop:
		if len(body) != ids.ObjectSize {
			return broken("an id of %d bytes", len(body))
		}
		n.drop(ids.ObjectID(body))
	case msgEnd:
		n.Finish(nil)
	default:
		return broken("message of kind %d", kind)
	}
	return nil
}

// frames takes what the daemon says to the driver, but for what concerns this arena.
func (n *Near) frames(c *nearConn, body []byte) error {
	r := wire.NewReader(body)
	start := 0
	pass := func(end int) {
		if end > start {
			c.out.put(body[start:end], 0)
		}
	}
	for len(r.Rest()) > 0 {
		at := len(body) - len(r.Rest())
		f, err := r.Next()
		if err != nil {
			return err
		}
		switch f.Kind {
		case wire.KindWelcome, wire.KindCreated, wire.KindError:
		case wire.KindValue:
			const where = 4 + ids.ObjectSize + 1
			if len(f.Body) <= where {
				return broken("value of %d bytes", len(f.Body))
			}
			if f.Body[where] != byte(wire.Arena) {
				continue
			}
		default:
			continue
		}
		pass(at)
		start = len(body) - len(r.Rest())
		if err := n.frame(c, f); err != nil {
			return err
		}
	}
	pass(len(body))
	return nil
}

func (n *Near) frame(c *nearConn, f wire.Frame) error {
	switch f.Kind {
	case wire.KindWelcome:
		if c.no != driverStream {
			c.out.put(whole(nil, f), 0)
			return nil
		}
		w, err := wire.DecodeWelcome(f.Body)
		if err != nil {
			return err
		}
		w.ArenaSize = uint64(len(n.store.mem))
		b, err := wire.AppendWelcome(nil, &w)
		c.out.put(b, 0)
		return err
	case wire.KindCreated:
		m, err := wire.DecodeCreated(f.Body)
		if err != nil {
			return err
		}
		return n.created(c, m)
	case wire.KindError:
		m, err := wire.DecodeError(f.Body)
		if err != nil {
			return err
		}
		n.mu.Lock()
		delete(n.asked, request{c.no, m.Req}) // if it was a CREATE, there is no room
		n.mu.Unlock()
		c.out.put(whole(nil, f), 0)
		return nil
	default:
		v, err := wire.DecodeValue(f.Body)
		if err != nil {
			return err
		}
		return n.value(c, &v)
	}
}

// created makes room here for what the daemon has made room for.
func (n *Near) created(c *nearConn, m wire.Created) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := request{c.no, m.Req}
	a, ok := n.asked[k]
	if !ok { // it was given up: nobody reads this answer
		c.out.put(wire.AppendCreated(nil, m), 0)
		return nil
	}
	delete(n.asked, k)
	off, ok := n.store.room(int64(a.Size))
	if !ok {
		text := n.store.full(int64(a.Size))
		n.jobs.put(job{frame: wire.AppendAbort(nil, a.ID)})
		b, err := wire.MarshalFault(&wire.Fault{Kind: fault.StoreFull, Error: text})
		if err != nil {
			return err
		}
		b, err = wire.AppendError(nil, &wire.Answer{Req: m.Req, Map: b})
		c.out.put(b, 0)
		return err
	}
	n.rooms[a.ID], n.offs[a.ID] = a, off
	m.Offset = uint64(off)
	c.out.put(wire.AppendCreated(nil, m), 0)
	return nil
}

// value hands a large value over, or begins to take it in.
func (n *Near) value(c *nearConn, v *wire.Value) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	v.Contained = append(ids.List(nil), v.Contained...)
	if v.Offset == held {
		h := n.copies[v.ID]
		if _, known := n.lacking[v.ID]; h == nil && known {
			return n.noRoom(c, v)
		}
		if h == nil {
			return broken("a value that is not here")
		}
		return n.hand(c, v, h)
	}
	c.value, c.got, c.off = v, 0, -1
	if off, ok := n.store.room(int64(v.Size)); ok {
		c.off = off
	}
	return nil
}

// cutOff frees the room of a value whose rest does not come any more.
func (n *Near) cutOff(c *nearConn) {
	if c.value == nil {
		return
	}
	c.value = nil
	if c.off >= 0 {
		n.mu.Lock()
		n.store.free(c.off)
		n.mu.Unlock()
	}
}

// hand gives the driver a pin of a copy. If its connection is closed by now, the far half is told that there is none.
func (n *Near) hand(c *nearConn, v *wire.Value, h *kept) error {
	if c.lost {
		n.unpin(v.ID)
		return nil
	}
	h.pins++
	v.Offset = uint64(h.off)
	b, err := wire.AppendValue(nil, v)
	c.out.put(b, 0)
	return err
}

// bytes takes a piece of a value in.
func (n *Near) bytes(c *nearConn, data []byte) error {
	v := c.value
	if v == nil || uint64(len(data)) > v.Size-uint64(c.got) {
		return broken("bytes of no value")
	}
	if c.off >= 0 { // the driver does not know of it yet
		copy(n.store.bytes(c.off+c.got, int64(len(data))), data)
	}
	c.got += int64(len(data))
	n.count(c, len(data))
	if uint64(c.got) < v.Size {
		return nil
	}
	c.value = nil
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.copies[v.ID]
	switch {
	case h != nil: // it came on another channel meanwhile
		if c.off >= 0 {
			n.store.free(c.off)
		}
	case c.off < 0:
		return n.noRoom(c, v)
	default:
		h = &kept{off: c.off, size: int64(v.Size)}
		n.copies[v.ID] = h
	}
	return n.hand(c, v, h)
}

// noRoom hands an error over in the place of a value, and lets the far half know that it is not here.
func (n *Near) noRoom(c *nearConn, v *wire.Value) error {
	b, err := wire.MarshalFault(&wire.Fault{Kind: fault.StoreFull, Error: n.store.full(int64(v.Size))})
	if err != nil {
		return err
	}
	e := wire.Value{Req: v.Req, ID: v.ID, Status: wire.StatusError, Contained: v.Contained, Value: append([]byte{wire.FormatFault}, b...)}
	out, err := wire.AppendValue(nil, &e)
	if err != nil {
		return err
	}
	c.out.put(out, 0)
	n.lacking[v.ID] = struct{}{}
	n.unpin(v.ID)
	return nil
}

// drop ends a copy that the driver has no pin of.
func (n *Near) drop(id ids.ObjectID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.lacking, id)
	if h := n.copies[id]; h != nil && h.pins == 0 {
		delete(n.copies, id)
		n.store.free(h.off)
	}
}

// DriverGone says that the driver's process is dead, whoever else has its sockets.
func (n *Near) DriverGone() {
	n.mu.Lock()
	c := n.conns[driverStream]
	said := n.driver
	n.mu.Unlock()
	if !said {
		n.Finish(nil)
	}
	if c != nil {
		_ = c.conn.CloseRead() // its reader comes to the end
	}
}

// Unheard ends the session of a driver that gave up before it said anything.
func (n *Near) Unheard() {
	n.mu.Lock()
	said := n.driver
	n.mu.Unlock()
	if !said {
		n.Finish(nil)
	}
}
