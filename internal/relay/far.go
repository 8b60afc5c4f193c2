package relay

import (
	"encoding/binary"
	"errors"
	"maps"
	"net"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"gray/internal/core/ids"
	"gray/internal/core/linkstate"
	"gray/internal/link"
	"gray/internal/wire"
)

// Host is the daemon that a far half is in.
type Host struct {
	Greet func(c *net.UnixConn)        // serves a client's connection until it ends
	Bytes func(off, size int64) []byte // of the arena
	Spawn func(f func())               // starts a goroutine that the daemon waits for
	Over  func()                       // the daemon has done with the driver; the near half is being told
	Down  func(err error)              // the connection broke; Attach brings another
	Gone  func(why error)              // the session is over
}

// Far is a session's half in the daemon.
type Far struct {
	tube
	host Host

	mu      sync.Mutex
	over    bool                    // guarded by mu; the arena is not touched any more
	streams map[uint32]*farStream   // guarded by mu
	asked   map[request]wire.Create // guarded by mu; CREATEs without an answer
	rooms   map[ids.ObjectID]*room  // guarded by mu; being written by the driver
	copies  map[ids.ObjectID]uint32 // guarded by mu; pins of what the near half has
	putSeen meter                   // the link's reader's own
}

type room struct {
	off, size, got int64
}

type farStream struct {
	no   uint32
	conn *net.UnixConn
	win  *window
	in   *queue // of the driver's stream: frames for the daemon
}

// NewFar makes a session's far half; Attach gives it its connection.
func NewFar(incarnation uint64, host Host) (*Far, error) {
	f := &Far{host: host, streams: map[uint32]*farStream{}, asked: map[request]wire.Create{}, rooms: map[ids.ObjectID]*room{}, copies: map[ids.ObjectID]uint32{}}
	f.init()
	var err error
	f.link, err = link.New(linkstate.Config{Incarnation: incarnation, MaxUnacked: MaxUnacked}, link.Events{
		Message: func(msg []byte) {
			if err := f.take(msg); err != nil {
				f.host.Spawn(func() { f.End(err) })
			}
		},
		Down:      f.host.Down,
		PeerReset: func(uint64, int) { f.host.Spawn(func() { f.End(errEnded) }) },
		Drained:   f.drained,
	})
	return f, err
}

// Attach gives the session a connection, the first or one in place of another.
func (f *Far) Attach(c net.Conn) error { return f.link.Attach(c) }

// Attached tells whether there is a connection that Host.Down has yet to be told of.
func (f *Far) Attached() bool { return f.link.Attached() }

// Stop ends all use of the arena, and the driver's connections to the daemon.
func (f *Far) Stop() {
	f.mu.Lock()
	f.over = true
	left := slices.Collect(maps.Values(f.streams))
	f.mu.Unlock()
	for _, s := range left {
		s.hangUp()
	}
}

// End ends the session and its link.
func (f *Far) End(why error) {
	f.Stop()
	f.close()
	f.link.Close()
	f.host.Gone(why)
}

func (s *farStream) hangUp() {
	s.win.close()
	if s.in != nil {
		s.in.end()
	}
	_ = s.conn.Close() // the daemon notices
}

func (f *Far) stream(no uint32) *farStream {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.streams[no]
}

// take carries out a message of the near half. It runs on the link's reader.
func (f *Far) take(msg []byte) error {
	kind, no, body, err := split(msg)
	if err != nil {
		return err
	}
	switch kind {
	case msgOpen:
		return f.open(no, body)
	case msgFrames:
		return f.frames(body)
	case msgBytes:
		return f.bytes(body)
	case msgCredit:
		if s := f.stream(no); s != nil && len(body) == 4 {
			s.win.give(int(binary.LittleEndian.Uint32(body)))
		}
	case msgClose:
		s := f.stream(no)
		switch {
		case s == nil: // it closed here at the same time
		case s.in != nil:
			s.in.end()
		default: // its reader goes on to the end, for the sake of pins that came
			s.win.close()
			_ = s.conn.CloseWrite() // it may be closed
		}
	default:
		return broken("message of kind %d", kind)
	}
	return nil
}

// maxStreams bounds a session's channels.
const maxStreams = 4096

// open makes a connection to the daemon, as the driver made one to the near half.
func (f *Far) open(no uint32, hello []byte) error {
	ours, theirs, err := pair()
	if err != nil {
		return err
	}
	s := &farStream{no: no, conn: ours, win: newWindow()}
	if no == driverStream {
		s.in = newQueue()
	}
	f.mu.Lock()
	bad := f.over || f.streams[no] != nil || len(f.streams) >= maxStreams
	if !bad {
		f.streams[no] = s
	}
	f.mu.Unlock()
	if bad {
		return errors.Join(broken("stream %d is open, or one too many", no), ours.Close(), theirs.Close())
	}
	f.host.Spawn(func() { f.host.Greet(theirs) })
	if s.in != nil {
		s.in.put(hello, 0)
		f.host.Spawn(func() { f.write(s) })
	} else if _, err := ours.Write(hello); err != nil {
		return err
	}
	f.host.Spawn(func() { f.read(s) })
	return nil
}

// pair is a connected pair of Unix sockets.
func pair() (a, b *net.UnixConn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	a, err = unixConn(fds[0])
	b, err2 := unixConn(fds[1])
	return a, b, errors.Join(err, err2)
}

// unixConn makes a connection of a descriptor, which it owns.
func unixConn(fd int) (*net.UnixConn, error) {
	file := os.NewFile(uintptr(fd), "client")
	defer func() { _ = file.Close() }()
	c, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(broken("a descriptor that is no Unix socket"), c.Close())
	}
	return u, nil
}

// frames takes the driver's frames to the daemon, but for what concerns the near half's arena.
func (f *Far) frames(body []byte) error {
	s := f.stream(driverStream)
	if s == nil {
		return nil // it has just ended
	}
	out := make([]byte, 0, len(body))
	r := wire.NewReader(body)
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(r.Rest()) > 0 {
		fr, err := r.Next()
		if err != nil {
			return err
		}
		switch fr.Kind {
		case wire.KindCreate:
			m, err := wire.DecodeCreate(fr.Body)
			if err != nil {
				return err
			}
			f.asked[request{streamOf(m.Chan), m.Req}] = m
		case wire.KindSeal:
			m, err := wire.DecodeSeal(fr.Body)
			if err != nil {
				return err
			}
			if r := f.rooms[m.ID]; r == nil || r.got != r.size {
				return broken("SEAL of an object whose bytes are not here")
			}
			delete(f.rooms, m.ID)
		case wire.KindAbort:
			id, err := wire.DecodeAbort(fr.Body)
			if err != nil {
				return err
			}
			delete(f.rooms, id)
			for k, c := range f.asked {
				if c.ID == id {
					delete(f.asked, k)
				}
			}
		case wire.KindUnpin: // the daemon's pins were given back when the bytes were sent
			if err := f.unpin(fr.Body); err != nil {
				return err
			}
			continue
		}
		out = whole(out, fr)
	}
	s.in.put(out, len(body)-len(out))
	return nil
}

// unpin counts what the driver lets go; the caller holds the lock.
func (f *Far) unpin(body []byte) error {
	list, err := wire.DecodeUnpin(body)
	if err != nil {
		return err
	}
	for k := range list.Len() {
		if err := f.unpinOne(list.At(k)); err != nil {
			return err
		}
	}
	return nil
}

func (f *Far) unpinOne(id ids.ObjectID, n uint32) error {
	have := f.copies[id]
	switch {
	case have < n:
		return broken("UNPIN of %d pins where there are %d", n, have)
	case have == n:
		delete(f.copies, id)
		return f.say(msgDrop, 0, id[:]...)
	}
	f.copies[id] = have - n
	return nil
}

// bytes writes a piece of a driver's put into the arena.
func (f *Far) bytes(body []byte) error {
	if len(body) < ids.ObjectSize {
		return broken("a piece of %d bytes", len(body))
	}
	id, data := ids.ObjectID(body[:ids.ObjectSize]), body[ids.ObjectSize:]
	f.mu.Lock()
	r := f.rooms[id]
	if f.over {
		f.mu.Unlock()
		return nil
	}
	if r == nil || int64(len(data)) > r.size-r.got {
		f.mu.Unlock()
		return broken("bytes of an object that was not created")
	}
	copy(f.host.Bytes(r.off+r.got, int64(len(data))), data)
	r.got += int64(len(data))
	f.mu.Unlock()
	if tell := f.putSeen.add(len(data)); tell != nil {
		return f.say(msgCredit, puts, tell...)
	}
	return nil
}

// write writes the driver's frames to the daemon.
func (f *Far) write(s *farStream) {
	var seen meter
	var b []byte
	for {
		var skipped int
		var ok bool
		if b, skipped, ok = s.in.take(b); !ok {
			_ = s.conn.CloseWrite() // it may be closed
			return
		}
		if _, err := s.conn.Write(b); err != nil {
			return // its reader tells
		}
		if tell := seen.add(len(b) + skipped); tell != nil {
			_ = f.say(msgCredit, driverStream, tell...) // no link: nobody to tell
		}
	}
}

// read brings what the daemon says on a connection to the near half.
func (f *Far) read(s *farStream) {
	st := wire.NewStream(s.conn, 64<<10)
	_ = f.readFrames(s, st) // whatever it was: the connection has ended
	f.giveUp(st)
	f.mu.Lock()
	if f.streams[s.no] == s {
		delete(f.streams, s.no)
	}
	f.mu.Unlock()
	s.hangUp()
	_ = f.say(msgClose, s.no) // no link: nobody to tell
	if s.no == driverStream {
		_ = f.say(msgEnd, 0)
		f.host.Over()
	}
}

// giveUp gives back the pins of values that nobody waits for any more, to the connection's end.
func (f *Far) giveUp(st *wire.Stream) {
	for {
		fr, err := st.Next()
		if err != nil {
			return
		}
		if fr.Kind != wire.KindValue {
			continue
		}
		if v, err := wire.DecodeValue(fr.Body); err == nil && v.Where == wire.Arena {
			_ = f.giveBack(v.ID) // one is never too many
		}
	}
}

func (f *Far) readFrames(s *farStream, st *wire.Stream) error {
	out := message(msgFrames, s.no, 4096)
	flush := func() error {
		if len(out) == msgHead {
			return nil
		}
		if !s.win.take(len(out) - msgHead) {
			return errEnded
		}
		msg := out
		out = message(msgFrames, s.no, 4096)
		return f.send(msg)
	}
	for {
		fr, err := st.Next()
		if err != nil {
			return errors.Join(err, flush())
		}
		switch fr.Kind {
		case wire.KindCreated:
			m, err := wire.DecodeCreated(fr.Body)
			if err != nil {
				return err
			}
			f.created(s.no, m)
			out = whole(out, fr)
		case wire.KindError:
			m, err := wire.DecodeError(fr.Body)
			if err != nil {
				return err
			}
			f.mu.Lock()
			delete(f.asked, request{s.no, m.Req}) // if it was a CREATE, there is no room
			f.mu.Unlock()
			out = whole(out, fr)
		case wire.KindValue:
			v, err := wire.DecodeValue(fr.Body)
			if err != nil {
				return err
			}
			if v.Where != wire.Arena {
				out = whole(out, fr)
				break
			}
			if err = flush(); err == nil {
				err = f.value(s, &v)
			}
			if back := f.giveBack(v.ID); err != nil || back != nil {
				return errors.Join(err, back)
			}
		default:
			out = whole(out, fr)
		}
		if !st.Buffered() || len(out) >= batch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

// created notes where the driver's bytes go once the daemon has made room for them.
func (f *Far) created(no uint32, m wire.Created) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := request{no, m.Req}
	if c, ok := f.asked[k]; ok { // else it was given up
		delete(f.asked, k)
		f.rooms[c.ID] = &room{off: int64(m.Offset), size: int64(c.Size)}
	}
}

// value sends a value of the arena, unless the near half has it.
func (f *Far) value(s *farStream, v *wire.Value) error {
	head := *v
	send := func(offset uint64) error {
		head.Offset = offset
		msg, err := wire.AppendValue(message(msgFrames, s.no, 256+len(v.Contained)), &head)
		if err != nil {
			return err
		}
		if !s.win.take(len(msg) - msgHead) {
			return errEnded
		}
		return f.send(msg)
	}
	f.mu.Lock()
	have := f.copies[v.ID] > 0
	if have { // the near half keeps it until it hears otherwise, behind this
		f.copies[v.ID]++
	}
	f.mu.Unlock()
	if have {
		err := send(held)
		if err != nil { // it does not hear of this pin
			f.mu.Lock()
			err = errors.Join(err, f.unpinOne(v.ID, 1))
			f.mu.Unlock()
		}
		return err
	}
	if err := send(fresh); err != nil {
		return err
	}
	for off, left := int64(v.Offset), int64(v.Size); left > 0; {
		n := min(left, piece)
		if !s.win.take(int(n)) || !f.wait() {
			return errEnded
		}
		msg := message(msgBytes, s.no, int(n))
		f.mu.Lock()
		if f.over {
			f.mu.Unlock()
			return errEnded
		}
		msg = append(msg, f.host.Bytes(off, n)...)
		var err error
		if n == left { // whoever sees the count finds the bytes sent, and whoever has them the count
			f.copies[v.ID]++
			err = f.link.Send(msg)
		}
		f.mu.Unlock()
		if n < left {
			err = f.send(msg)
		}
		if err != nil {
			return err
		}
		off, left = off+n, left-n
	}
	return nil
}

// giveBack ends a pin of the daemon's object.
func (f *Far) giveBack(id ids.ObjectID) error {
	s := f.stream(driverStream)
	if s == nil {
		return nil // with the session all pins end
	}
	b, err := wire.AppendUnpin(nil, wire.Counts{}.Append(id, 1))
	if err == nil {
		s.in.put(b, -len(b)) // the near half has not sent it
	}
	return err
}
