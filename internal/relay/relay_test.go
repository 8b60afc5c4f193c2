package relay

import (
	"bytes"
	"encoding/binary"
	"math/rand"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/wire"
)

// daemon is a node daemon as far as these tests go: an arena, objects by id, and the frames that came.
type daemon struct {
	t     *testing.T
	mem   []byte
	far   *Far
	ended chan error

	mu     sync.Mutex
	free   uint64
	chans  map[uint32]*net.UnixConn
	offs   map[ids.ObjectID]wire.Value
	pins   map[ids.ObjectID]int
	frames []wire.Kind    // on the stream
	seen   chan wire.Kind // likewise
}

func (d *daemon) greet(c *net.UnixConn) {
	st := wire.NewStream(c, 4096)
	f, err := st.Next()
	if err != nil {
		return
	}
	h, err := wire.DecodeHello(f.Body)
	if err != nil {
		d.t.Error(err)
		return
	}
	if h.Role == wire.RoleDriver {
		b, _ := wire.AppendWelcome(nil, &wire.Welcome{Session: [16]byte{1}, ArenaSize: 7})
		_, _ = c.Write(b)
		d.serve(c, st)
		return
	}
	b, _ := wire.AppendWelcome(nil, &wire.Welcome{})
	d.mu.Lock()
	d.chans[h.Chan] = c
	_, _ = c.Write(b)
	d.mu.Unlock()
	_, _ = st.Next() // its end
	_ = c.Close()
}

func (d *daemon) serve(c *net.UnixConn, st *wire.Stream) {
	defer func() {
		d.far.Stop()
		_ = c.Close()
	}()
	for {
		f, err := st.Next()
		if err != nil {
			return
		}
		d.mu.Lock()
		d.frames = append(d.frames, f.Kind)
		switch f.Kind {
		case wire.KindCreate:
			m, _ := wire.DecodeCreate(f.Body)
			if m.Size > uint64(len(d.mem)) {
				fault, _ := wire.MarshalFault(&wire.Fault{Kind: fault.StoreFull, Error: "too large"})
				b, _ := wire.AppendError(nil, &wire.Answer{Req: m.Req, Map: fault})
				_, err = d.chans[m.Chan].Write(b)
				break
			}
			d.offs[m.ID] = wire.Value{ID: m.ID, Where: wire.Arena, Offset: d.free, Size: m.Size}
			d.free += m.Size
			_, err = d.chans[m.Chan].Write(wire.AppendCreated(nil, wire.Created{Req: m.Req, Offset: d.offs[m.ID].Offset}))
		case wire.KindGet:
			m, _ := wire.DecodeGet(f.Body)
			v := d.offs[m.IDs.At(0)]
			v.Req = m.Req
			d.pins[v.ID]++
			b, _ := wire.AppendValue(nil, &v)
			_, err = d.chans[m.Chan].Write(append(b, wire.AppendDone(nil, wire.Done{Req: m.Req})...))
		case wire.KindUnpin:
			m, _ := wire.DecodeUnpin(f.Body)
			id, n := m.At(0)
			d.pins[id] -= int(n)
		}
		d.mu.Unlock()
		if err != nil {
			d.t.Error(err)
		}
		d.seen <- f.Kind
	}
}

// driver is the program's side of a session.
type driver struct {
	t       *testing.T
	control *net.UnixConn
	stream  *net.UnixConn
	mem     []byte
	near    *Near
	far     *Far
	daemon  *daemon
	cut     func()
}

func id(n byte) (o ids.ObjectID) {
	o[0], o[24] = n, 1
	return o
}

// session is both halves of a session, over a pipe that can be cut.
func session(t *testing.T, capacity int64) *driver {
	t.Helper()
	d := &daemon{t: t, mem: make([]byte, 64<<20), ended: make(chan error, 4), chans: map[uint32]*net.UnixConn{}, offs: map[ids.ObjectID]wire.Value{}, pins: map[ids.ObjectID]int{}, seen: make(chan wire.Kind, 1<<16)}
	x := &driver{t: t, daemon: d}
	broke := make(chan struct{}, 16)
	var work sync.WaitGroup
	far, err := NewFar(11, Host{
		Greet: d.greet,
		Bytes: func(off, size int64) []byte { return d.mem[off : off+size] },
		Spawn: func(f func()) { work.Go(f) },
		Over:  func() {},
		Down:  func(error) {},
		Gone:  func(err error) { d.ended <- err },
	})
	if err != nil {
		t.Fatal(err)
	}
	near, err := NewNear(12, capacity, func(error) { broke <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	d.far, x.far, x.near = far, far, near
	var a net.Conn
	var mu sync.Mutex
	connect := func() {
		mu.Lock()
		defer mu.Unlock()
		var b net.Conn
		a, b = net.Pipe()
		if err := far.Attach(b); err != nil {
			return
		}
		_ = near.Attach(a)
	}
	connect()
	x.cut = func() {
		mu.Lock()
		_ = a.Close()
		mu.Unlock()
		<-broke
		connect()
	}
	ours, theirs, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	x.control = ours
	go func() { _ = near.Serve(theirs) }()
	t.Cleanup(func() {
		near.Finish(nil)
		near.Close()
		far.End(nil)
		_ = ours.Close()
		_ = theirs.Close()
		if x.stream != nil {
			_ = x.stream.Close()
		}
		work.Wait()
	})
	return x
}

// open makes a connection as the driver does.
func (x *driver) open(h wire.Hello) (*net.UnixConn, wire.Welcome) {
	x.t.Helper()
	ours, theirs, err := pair()
	if err != nil {
		x.t.Fatal(err)
	}
	raw, err := theirs.File()
	if err != nil {
		x.t.Fatal(err)
	}
	if _, _, err := x.control.WriteMsgUnix([]byte("c"), unix.UnixRights(int(raw.Fd())), nil); err != nil {
		x.t.Fatal(err)
	}
	_, _ = raw.Close(), theirs.Close()
	h.Version = wire.Version
	b, err := wire.AppendHello(nil, &h)
	if err != nil {
		x.t.Fatal(err)
	}
	if _, err := ours.Write(b); err != nil {
		x.t.Fatal(err)
	}
	buf, oob := make([]byte, 4096), make([]byte, 64)
	n, on, _, _, err := ours.ReadMsgUnix(buf, oob)
	if err != nil {
		x.t.Fatal(err)
	}
	f, err := wire.NewReader(buf[:n]).Next()
	if err != nil || f.Kind != wire.KindWelcome {
		x.t.Fatalf("%v, %v", f.Kind, err)
	}
	w, err := wire.DecodeWelcome(f.Body)
	if err != nil {
		x.t.Fatal(err)
	}
	if on > 0 {
		msgs, _ := unix.ParseSocketControlMessage(oob[:on])
		fds, err := unix.ParseUnixRights(&msgs[0])
		if err != nil {
			x.t.Fatal(err)
		}
		x.mem, err = unix.Mmap(fds[0], 0, int(w.ArenaSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			x.t.Fatal(err)
		}
		_ = unix.Close(fds[0])
		x.t.Cleanup(func() { _ = unix.Munmap(x.mem) })
	}
	return ours, w
}

// channel is one of the driver's reply channels.
type channel struct {
	*wire.Stream
	no   uint32
	conn *net.UnixConn
}

// begin greets the daemon and opens so many channels.
func (x *driver) begin(channels int) []*channel {
	x.t.Helper()
	var w wire.Welcome
	x.stream, w = x.open(wire.Hello{Role: wire.RoleDriver})
	if w.ArenaSize != uint64(len(x.mem)) || w.Session != [16]byte{1} {
		x.t.Fatalf("welcome %+v", w)
	}
	var list []*channel
	for k := range channels {
		no := uint32(k + 1)
		c, _ := x.open(wire.Hello{Role: wire.RoleChannel, Session: make([]byte, 16), Chan: no})
		list = append(list, &channel{wire.NewStream(c, 4096), no, c})
		x.t.Cleanup(func() { _ = c.Close() })
	}
	return list
}

func (x *driver) say(b []byte, err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
	if _, err := x.stream.Write(b); err != nil {
		x.t.Fatal(err)
	}
}

func (x *driver) next(c *channel, want wire.Kind) wire.Frame {
	x.t.Helper()
	f, err := c.Next()
	if err != nil || f.Kind != want {
		x.t.Fatalf("%v, %v; want %v", f.Kind, err, want)
	}
	return f
}

func (x *driver) put(c *channel, o ids.ObjectID, req uint32, data []byte) {
	x.t.Helper()
	x.say(wire.AppendCreate(nil, wire.Create{Chan: c.no, Req: req, ID: o, Size: uint64(len(data))}), nil)
	m, err := wire.DecodeCreated(x.next(c, wire.KindCreated).Body)
	if err != nil {
		x.t.Fatal(err)
	}
	copy(x.mem[m.Offset:], data)
	x.say(wire.AppendSeal(nil, &wire.Seal{ID: o}))
}

func (x *driver) get(c *channel, o ids.ObjectID, req uint32) wire.Value {
	x.t.Helper()
	x.say(wire.AppendGet(nil, &wire.Get{Chan: c.no, Req: req, IDs: ids.List(o[:])}))
	v, err := wire.DecodeValue(x.next(c, wire.KindValue).Body)
	if err != nil {
		x.t.Fatal(err)
	}
	v.Contained = nil
	v.Value = append([]byte(nil), v.Value...)
	x.next(c, wire.KindDone)
	return v
}

// until waits until the daemon has seen a frame.
func (d *daemon) until(k wire.Kind) {
	d.t.Helper()
	for {
		select {
		case got := <-d.seen:
			if got == k {
				return
			}
		case <-time.After(30 * time.Second):
			d.t.Fatalf("no %v came", k)
		}
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewSource(int64(n)))
	_, _ = r.Read(b) // never fails
	return b
}

func TestValuesTravelBothWays(t *testing.T) {
	x := session(t, 64<<20)
	c := x.begin(1)[0]
	for k, size := range []int{1, piece, piece + 1, 5_000_000} {
		o, data := id(byte(k+1)), noise(size)
		x.put(c, o, uint32(2*k+1), data)
		x.daemon.until(wire.KindSeal)
		at := x.daemon.offs[o].Offset
		if !bytes.Equal(x.daemon.mem[at:at+uint64(size)], data) {
			t.Fatalf("the daemon got other bytes of %d", size)
		}
		v := x.get(c, o, uint32(2*k+2))
		if v.Where != wire.Arena || !bytes.Equal(x.mem[v.Offset:v.Offset+v.Size], data) {
			t.Fatalf("the driver got other bytes of %d", size)
		}
		x.say(wire.AppendUnpin(nil, wire.Counts{}.Append(o, 1)))
	}
	x.settled()
}

// settled waits until neither half nor the daemon keeps anything of values.
func (x *driver) settled() {
	x.t.Helper()
	end := time.Now().Add(30 * time.Second)
	for {
		x.near.mu.Lock()
		used, copies, rooms := x.near.store.alloc.Used(), len(x.near.copies), len(x.near.rooms)+len(x.near.asked)
		x.near.mu.Unlock()
		x.far.mu.Lock()
		far := len(x.far.copies) + len(x.far.rooms) + len(x.far.asked)
		x.far.mu.Unlock()
		pins := 0
		x.daemon.mu.Lock()
		for _, n := range x.daemon.pins {
			pins += n
		}
		x.daemon.mu.Unlock()
		if used == 0 && copies == 0 && rooms == 0 && far == 0 && pins == 0 {
			return
		}
		if time.Now().After(end) {
			x.t.Fatalf("left: %d bytes, %d copies, %d rooms here, %d there, %d pins", used, copies, rooms, far, pins)
		}
		<-time.After(time.Millisecond) // nobody tells of counts
	}
}

func TestOneCopyForAllPins(t *testing.T) {
	x := session(t, 64<<20)
	c := x.begin(2)
	o := id(1)
	x.put(c[0], o, 1, noise(3_000_000))
	a, b := x.get(c[0], o, 2), x.get(c[1], o, 1)
	if a.Offset != b.Offset {
		t.Errorf("two copies, at %d and %d", a.Offset, b.Offset)
	}
	x.say(wire.AppendUnpin(nil, wire.Counts{}.Append(o, 1)))
	if again := x.get(c[1], o, 3); again.Offset != a.Offset {
		t.Error("a copy that was pinned was not used again")
	}
	x.say(wire.AppendUnpin(nil, wire.Counts{}.Append(o, 2)))
	x.settled()
}

func TestReleaseDoesNotOvertakeAValueAndOthersDo(t *testing.T) {
	x := session(t, 64<<20)
	c := x.begin(1)[0]
	x.near.puts.take(windowSize) // no byte of the value may leave
	x.put(c, id(1), 1, noise(1_000_000))
	x.say(wire.AppendRelease(nil, wire.Counts{}.Append(id(2), 1)))
	x.say(wire.AppendTemplateDrop(nil, 1), nil)
	x.daemon.until(wire.KindTemplateDrop)
	x.near.puts.give(windowSize)
	x.daemon.until(wire.KindRelease)
	x.daemon.mu.Lock()
	defer x.daemon.mu.Unlock()
	want := []wire.Kind{wire.KindCreate, wire.KindTemplateDrop, wire.KindSeal, wire.KindRelease}
	if len(x.daemon.frames) != len(want) {
		t.Fatalf("frames %v", x.daemon.frames)
	}
	for k, kind := range want {
		if x.daemon.frames[k] != kind {
			t.Fatalf("frames %v, want %v", x.daemon.frames, want)
		}
	}
}

func TestConnectionsMayBreakAtAnyTime(t *testing.T) {
	x := session(t, 64<<20)
	c := x.begin(1)[0]
	stop := make(chan struct{})
	var cutter sync.WaitGroup
	cutter.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(3 * time.Millisecond):
				x.cut()
			}
		}
	})
	for k := range 12 {
		o, data := id(byte(k+1)), noise(1_500_000)
		x.put(c, o, uint32(2*k+1), data)
		x.daemon.until(wire.KindSeal)
		v := x.get(c, o, uint32(2*k+2))
		if !bytes.Equal(x.mem[v.Offset:v.Offset+v.Size], data) {
			t.Fatal("other bytes came back")
		}
		x.say(wire.AppendUnpin(nil, wire.Counts{}.Append(o, 1)))
	}
	close(stop)
	cutter.Wait()
	x.settled()
}

func TestWithoutRoomThereIsAnError(t *testing.T) {
	x := session(t, 1<<20)
	c := x.begin(1)[0]
	x.daemon.mu.Lock()
	x.daemon.offs[id(1)] = wire.Value{ID: id(1), Where: wire.Arena, Size: 2 << 20}
	x.daemon.mu.Unlock()
	v := x.get(c, id(1), 1)
	if v.Status != wire.StatusError || !bytes.Contains(v.Value, []byte("memory of this ray:// client")) {
		t.Errorf("got %+v", v)
	}
	x.say(wire.AppendCreate(nil, wire.Create{Chan: 1, Req: 2, ID: id(2), Size: 2 << 20}), nil)
	if a, err := wire.DecodeError(x.next(c, wire.KindError).Body); err != nil || a.Req != 2 {
		t.Errorf("%+v, %v", a, err)
	}
	x.daemon.until(wire.KindAbort)
	x.say(wire.AppendCreate(nil, wire.Create{Chan: 1, Req: 4, ID: id(4), Size: 1 << 40}), nil) // that is the daemon's answer
	x.next(c, wire.KindError)
	x.put(c, id(3), 5, noise(1<<19))
	x.daemon.until(wire.KindSeal)
	x.settled()
}

// ask asks for values without waiting for them.
func (x *driver) ask(c *channel, req uint32, os ...ids.ObjectID) {
	x.t.Helper()
	for _, o := range os {
		x.say(wire.AppendGet(nil, &wire.Get{Chan: c.no, Req: req, IDs: ids.List(o[:])}))
		x.daemon.until(wire.KindGet)
	}
}

// lost waits until the near half knows that it writes to a connection in vain.
func (x *driver) lost(c *nearConn) {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); <-time.After(time.Millisecond) { // nobody tells
		x.near.mu.Lock()
		gone := c.lost || x.near.conns[c.no] == nil
		x.near.mu.Unlock()
		if gone {
			return
		}
	}
	x.t.Fatal("it writes on and on")
}

// leave closes a channel, with what has come on it.
func (x *driver) leave(c *channel) {
	x.t.Helper()
	_ = c.conn.CloseRead()
	for {
		f, err := c.Next()
		if err != nil {
			break
		}
		if v, err := wire.DecodeValue(f.Body); f.Kind == wire.KindValue && err == nil {
			x.say(wire.AppendUnpin(nil, wire.Counts{}.Append(v.ID, 1)))
		}
	}
	_ = c.conn.Close()
}

func (x *driver) holds(o ids.ObjectID, size uint64) {
	x.daemon.mu.Lock()
	defer x.daemon.mu.Unlock()
	x.daemon.offs[o] = wire.Value{ID: o, Where: wire.Arena, Size: size}
}

// A thread may end while what it asked for, in vain by then, is on its way.
func TestAChannelThatClosesLeavesNothing(t *testing.T) {
	for _, size := range []uint64{100, 3 * piece, 3 * windowSize} {
		x := session(t, 64<<20)
		c := x.begin(2)
		for k := range 5 {
			x.holds(id(byte(k+1)), size)
		}
		x.ask(c[0], 1, id(1), id(2), id(3), id(4), id(5), id(1))
		x.leave(c[0])
		for k := range 5 {
			o := id(byte(k + 1))
			if v := x.get(c[1], o, uint32(k+1)); v.Where != wire.Arena {
				t.Fatalf("got %+v", v)
			}
			x.say(wire.AppendUnpin(nil, wire.Counts{}.Append(o, 1)))
		}
		x.settled()
	}
}

// Values that come behind one that could not be written to a channel are still known to the far half as being here.
func TestAValueForAClosedChannelIsThereForOthers(t *testing.T) {
	x := session(t, 64<<20)
	c := x.begin(2)
	x.near.mu.Lock()
	a := x.near.conns[streamOf(1)]
	x.near.mu.Unlock()
	value := func(o ids.ObjectID, offset uint64) []byte {
		b, err := wire.AppendValue(message(msgFrames, a.no, 64), &wire.Value{Req: 1, ID: o, Where: wire.Arena, Offset: offset, Size: 10})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	come := func(o ids.ObjectID) {
		x.far.mu.Lock()
		x.far.copies[o]++
		x.far.mu.Unlock()
		for _, msg := range [][]byte{value(o, fresh), append(message(msgBytes, a.no, 10), noise(10)...)} {
			if err := x.near.take(msg); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = c[0].conn.CloseRead() // what is written fails, and its reader does not know
	come(id(1))
	x.lost(a)
	come(id(2))
	x.holds(id(2), 10)
	if v := x.get(c[1], id(2), 1); v.Where != wire.Arena {
		t.Fatalf("got %+v", v)
	}
	x.say(wire.AppendUnpin(nil, wire.Counts{}.Append(id(2), 1)))
	x.settled()
}

// Two threads get what has no room here: the far half learns late that the first one did not get it.
func TestWithoutRoomThereIsAnErrorForEach(t *testing.T) {
	x := session(t, 1<<20)
	c := x.begin(2)
	x.holds(id(1), 2<<20)
	for k := range 20 {
		x.ask(c[0], uint32(k), id(1))
		x.ask(c[1], uint32(k), id(1))
	}
	for range 20 {
		for _, c := range c {
			if v, err := wire.DecodeValue(x.next(c, wire.KindValue).Body); err != nil || v.Status != wire.StatusError {
				t.Fatalf("got %+v, %v", v, err)
			}
			x.next(c, wire.KindDone)
		}
	}
	x.settled()
}

func TestAGivenUpCreateLeavesNothing(t *testing.T) {
	x := session(t, 8<<20)
	c := x.begin(1)[0]
	x.say(wire.AppendCreate(nil, wire.Create{Chan: 1, Req: 1, ID: id(1), Size: 1 << 20}), nil)
	x.next(c, wire.KindCreated)
	x.say(wire.AppendAbort(nil, id(1)), nil)
	x.say(wire.AppendAbort(wire.AppendCreate(nil, wire.Create{Chan: 1, Req: 2, ID: id(2), Size: 1 << 20}), id(2)), nil)
	x.daemon.until(wire.KindAbort)
	x.daemon.until(wire.KindAbort)
	x.settled()
}

func TestTheDriversEndIsTheSessions(t *testing.T) {
	x := session(t, 8<<20)
	c := x.begin(1)[0]
	x.put(c, id(1), 1, noise(3_000_000))
	if err := x.stream.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-x.near.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the session goes on")
	}
	x.daemon.until(wire.KindSeal) // what was sealed has come
}

func TestWhyItEndedIsSaidOnEachConnection(t *testing.T) {
	x := session(t, 8<<20)
	c := x.begin(2)
	x.near.Finish(&wire.Refused{Kind: fault.System, Error: "the network is gone"})
	x.near.Close()
	for _, c := range append(c, &channel{Stream: wire.NewStream(x.stream, 64)}) {
		if r, err := wire.DecodeRefused(x.next(c, wire.KindRefused).Body); err != nil || r.Error != "the network is gone" {
			t.Errorf("%+v, %v", r, err)
		}
	}
}

// TestNoMessageBreaksTheDaemon: a client that is not ours may know the token.
func TestNoMessageBreaksTheDaemon(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for range 300 {
		x := &daemon{t: t, mem: make([]byte, 1<<20), ended: make(chan error, 1)}
		var work sync.WaitGroup
		far, err := NewFar(1, Host{
			Greet: func(c *net.UnixConn) { _ = c.Close() }, Bytes: func(off, size int64) []byte { return x.mem[off : off+size] },
			Spawn: func(f func()) { work.Go(f) }, Over: func() {}, Down: func(error) {}, Gone: func(error) {},
		})
		if err != nil {
			t.Fatal(err)
		}
		far.rooms[id(1)] = &room{off: 0, size: 100}
		far.copies[id(2)] = 1
		for range 20 {
			msg := message(byte(msgOpen+r.Intn(8)), uint32(r.Intn(3)), 64)
			switch r.Intn(4) {
			case 0:
				o := id(byte(r.Intn(3)))
				msg = append(append(msg, o[:]...), make([]byte, r.Intn(90))...)
			case 1:
				msg = append(msg, wire.AppendAbort(nil, id(byte(r.Intn(3))))...)
			case 2:
				b, _ := wire.AppendUnpin(nil, wire.Counts{}.Append(id(byte(r.Intn(3))), uint32(r.Intn(3))))
				msg = append(msg, b...)
			default:
				junk := make([]byte, r.Intn(40))
				_, _ = r.Read(junk) // never fails
				if len(junk) > 4 {
					binary.LittleEndian.PutUint32(junk, uint32(r.Intn(30)))
				}
				msg = append(msg, junk...)
			}
			if far.take(msg[:r.Intn(len(msg)+1)]) != nil || far.take(msg) != nil {
				break // the session ends
			}
		}
		far.End(os.ErrClosed)
		work.Wait()
	}
}
