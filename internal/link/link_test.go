package link

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"gray/internal/core/linkstate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// owner records what a Link tells.
type owner struct {
	*Link
	mu      sync.Mutex
	events  []string      // guarded by mu
	changed chan struct{} // guarded by mu; closed at the next event
	mark    int           // guarded by mu
	marked  chan struct{} // guarded by mu; closed and nil once there are mark events
	busy    atomic.Int32
}

func newOwner(t testing.TB, cfg linkstate.Config) *owner {
	t.Helper()
	o := &owner{changed: make(chan struct{})}
	l, err := New(cfg, Events{
		Message:   func(m []byte) { o.note("msg " + string(m)) },
		Up:        func(inc uint64) { o.note(fmt.Sprint("up ", inc)) },
		Down:      func(err error) { o.note("down " + err.Error()) },
		PeerReset: func(inc uint64, dropped int) { o.note(fmt.Sprint("reset ", inc, " ", dropped)) },
		Drained:   func() { o.note("drained") },
	})
	if err != nil {
		t.Fatal(err)
	}
	o.Link = l
	t.Cleanup(l.Close)
	return o
}

func (o *owner) note(e string) {
	if o.busy.Add(1) != 1 {
		e = "TWO EVENTS AT ONCE " + e
	}
	o.mu.Lock()
	o.events = append(o.events, e)
	close(o.changed)
	o.changed = make(chan struct{})
	if o.marked != nil && len(o.events) >= o.mark {
		close(o.marked)
		o.marked = nil
	}
	o.mu.Unlock()
	o.busy.Add(-1)
}

// after gives a channel that is closed after n more events. There is one at a time.
func (o *owner) after(n int) <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mark, o.marked = len(o.events)+n, make(chan struct{})
	return o.marked
}

// until waits until the events fulfil ok, and gives them.
func (o *owner) until(t testing.TB, what string, ok func([]string) bool) []string {
	t.Helper()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	for {
		o.mu.Lock()
		ev, changed := o.events, o.changed
		o.mu.Unlock()
		if ok(ev) {
			return ev
		}
		select {
		case <-changed:
		case <-limit.C:
			t.Fatalf("no %s; %d events, the last %.200q", what, len(ev), ev[max(0, len(ev)-5):])
		}
	}
}

func (o *owner) untilEvent(t testing.TB, prefix string) []string {
	t.Helper()
	return o.until(t, prefix, func(ev []string) bool {
		return len(ev) > 0 && strings.HasPrefix(ev[len(ev)-1], prefix)
	})
}

func (o *owner) send(t testing.TB, msgs ...string) {
	t.Helper()
	for _, m := range msgs {
		if err := o.Send([]byte(m)); err != nil {
			t.Fatal(err)
		}
	}
}

func messages(ev []string) (out []string) {
	for _, e := range ev {
		if m, ok := strings.CutPrefix(e, "msg "); ok {
			out = append(out, m)
		}
	}
	return out
}

// attach joins a and b by conns of the test's making.
func attach(t testing.TB, a, b *owner, x, y net.Conn) {
	t.Helper()
	if err := errors.Join(a.Attach(x), b.Attach(y)); err != nil {
		t.Fatal(err)
	}
}

// tcp is both ends of a loopback connection.
func tcp(t testing.TB) (net.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type res struct {
		c   net.Conn
		err error
	}
	got := make(chan res, 1)
	go func() { c, err := l.Accept(); got <- res{c, err} }()
	x, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	y := <-got
	if y.err != nil {
		t.Fatal(y.err)
	}
	return x, y.c
}

func TestMessagesBothWays(t *testing.T) {
	a, b := newOwner(t, linkstate.Config{Incarnation: 1}), newOwner(t, linkstate.Config{Incarnation: 2})
	a.send(t, "before")
	x, y := tcp(t)
	attach(t, a, b, x, y)
	big := strings.Repeat("big", 1<<20) // over a frame
	a.send(t, big, "")
	b.send(t, "back")
	ev := b.until(t, "third message", func(ev []string) bool { return len(messages(ev)) == 3 })
	if m := messages(ev); ev[0] != "up 1" || m[0] != "before" || m[1] != big || m[2] != "" {
		t.Errorf("events %.300q", ev)
	}
	a.untilEvent(t, "msg back")
	if !a.Ready() || !b.Ready() {
		t.Error("not ready")
	}
	a.Close()
	if err := a.Send([]byte("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("Send after Close: %v", err)
	}
	p, q := net.Pipe()
	defer q.Close()
	if err := a.Attach(p); !errors.Is(err, ErrClosed) {
		t.Errorf("Attach after Close: %v", err)
	}
	if _, err := p.Write([]byte{1}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the connection that a closed link was given is still open: %v", err)
	}
	b.untilEvent(t, "down link: ")
	if ev := a.untilEvent(t, "msg back"); strings.HasPrefix(ev[len(ev)-1], "down") {
		t.Error("Close told Down")
	}
}

func TestReplacedAndReset(t *testing.T) {
	a, b := newOwner(t, linkstate.Config{Incarnation: 1}), newOwner(t, linkstate.Config{Incarnation: 2})
	x, y := tcp(t)
	attach(t, a, b, x, y)
	a.untilEvent(t, "up 2")
	b.untilEvent(t, "up 1")
	x, y = tcp(t)
	attach(t, a, b, x, y)
	ev := a.until(t, "second event", func(ev []string) bool { return len(ev) == 2 })
	if ev[1] != "up 2" { // not down: it was replaced
		t.Errorf("events %q", ev)
	}
	// b saw either its peer close the old connection, or that it was replaced.
	b.until(t, "second up", func(ev []string) bool { return len(ev) > 1 && ev[len(ev)-1] == "up 1" })
	b.Close()
	a.untilEvent(t, "down")
	a.send(t, "lost", "lost too")
	c := newOwner(t, linkstate.Config{Incarnation: 3})
	x, y = tcp(t)
	attach(t, a, c, x, y)
	ev = a.untilEvent(t, "up 3")
	if ev[len(ev)-2] != "reset 3 2" {
		t.Errorf("events %q, want a reset before up", ev)
	}
	a.send(t, "new")
	if m := messages(c.untilEvent(t, "msg")); len(m) != 1 || m[0] != "new" {
		t.Errorf("the new peer received %q", m)
	}
}

func TestStranger(t *testing.T) {
	a := newOwner(t, linkstate.Config{Incarnation: 1})
	x, y := tcp(t)
	if err := a.Attach(x); err != nil {
		t.Fatal(err)
	}
	if _, err := y.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, y); err != nil { // a reset would be one: there are unread bytes
		t.Logf("the stranger's connection ended with %v", err)
	}
	if err := y.Close(); err != nil {
		t.Fatal(err)
	}
	a.untilEvent(t, "down link.Receive: frame length")
	b := newOwner(t, linkstate.Config{Incarnation: 2})
	x, y = tcp(t)
	attach(t, a, b, x, y)
	if ev := a.untilEvent(t, "up"); len(ev) != 2 {
		t.Errorf("events %q", ev)
	}
}

// A peer that closes before its hello is told of as well, or nobody would dial again.
func TestClosedBeforeHello(t *testing.T) {
	a := newOwner(t, linkstate.Config{Incarnation: 1})
	for i := range 3 {
		x, y := tcp(t)
		if err := a.Attach(x); err != nil {
			t.Fatal(err)
		}
		if err := y.Close(); err != nil {
			t.Fatal(err)
		}
		a.until(t, "down", func(ev []string) bool { return len(ev) == i+1 && strings.HasPrefix(ev[i], "down ") })
	}
}

// A peer that hangs: the link notices although its own writes block, within PeerTimeout, and not before.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newOwner(t, linkstate.Config{Incarnation: 1})
		x, y := net.Pipe()
		if err := a.Attach(x); err != nil {
			t.Fatal(err)
		}
		// Say hello, then neither read nor write any more.
		peer, err := linkstate.New(linkstate.Config{Incarnation: 2})
		if err != nil {
			t.Fatal(err)
		}
		hello := peer.Open(time.Now(), nil)
		if _, err := io.ReadFull(y, make([]byte, len(hello))); err != nil {
			t.Fatal(err)
		}
		if _, err := y.Write(hello); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		a.send(t, "never read")
		a.untilEvent(t, "down "+errSilent.Error())
		if d := time.Since(start); d != 15*time.Second {
			t.Errorf("noticed after %s, want 15s", d)
		}
		if err := y.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// Two sides with nothing to say keep their connection, and acknowledge what was said.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newOwner(t, linkstate.Config{Incarnation: 1}), newOwner(t, linkstate.Config{Incarnation: 2})
		x, y := net.Pipe()
		attach(t, a, b, x, y)
		a.send(t, "m")
		b.untilEvent(t, "msg m")
		time.Sleep(time.Hour) // of the bubble's clock
		synctest.Wait()
		if !a.Ready() || !b.Ready() {
			t.Error("the connection did not stay")
		}
		a.mu.Lock()
		n := len(a.events)
		a.mu.Unlock()
		if n != 1 || a.state.Unacked() != 0 {
			t.Errorf("%d events, %d bytes unacknowledged", n, a.state.Unacked())
		}
		a.Close()
		b.Close()
	})
}

func TestFullAndDrained(t *testing.T) {
	a, b := newOwner(t, linkstate.Config{Incarnation: 1, MaxUnacked: 100_000}), newOwner(t, linkstate.Config{Incarnation: 2})
	sent := 0
	msg := make([]byte, 1000)
	var err error
	for err == nil {
		if err = a.Send(msg); err == nil {
			sent++
		}
	}
	if !errors.Is(err, linkstate.ErrFull) || !a.Congested() || sent == 0 {
		t.Fatalf("after %d messages: %v, congested %t", sent, err, a.Congested())
	}
	x, y := tcp(t)
	attach(t, a, b, x, y)
	a.untilEvent(t, "drained")
	a.send(t, "room again")
	ev := b.untilEvent(t, "msg room again")
	if n := len(messages(ev)); n != sent+1 {
		t.Errorf("%d messages, want %d", n, sent+1)
	}
}

// cutter is a connection that breaks after a number of written bytes, which arrive; later ones do not.
type cutter struct {
	net.Conn
	gone chan struct{} // closed when it is cut
	mu   sync.Mutex
	left int // guarded by mu; -1 once it is cut
}

var errCut = errors.New("cut")

func (c *cutter) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left < 0 {
		return 0, errCut
	}
	n := min(len(p), c.left)
	c.left -= n
	if n > 0 {
		if n, err := c.Conn.Write(p[:n]); err != nil {
			return n, err
		}
	}
	if n < len(p) {
		c.left = -1
		close(c.gone)
		return n, errors.Join(errCut, c.Conn.Close())
	}
	return n, nil
}

// Both sides send all the time while connections are cut after random numbers of bytes, and replaced. Everything
// arrives once and in order.
func TestCutsAtAnyByte(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	const total = 1000
	cfg := linkstate.Config{Chunk: 700, AckBytes: 2000, MaxUnacked: 1 << 20}
	ends := make([]*owner, 2)
	for i := range ends {
		c := cfg
		c.Incarnation = uint64(i + 1)
		ends[i] = newOwner(t, c)
	}
	var wg sync.WaitGroup
	text := func(i int) string { return fmt.Sprintf("%d:%s", i, strings.Repeat("x", i*37%2500)) }
	for _, e := range ends {
		wg.Go(func() {
			for i := 0; i < total; {
				switch err := e.Send([]byte(text(i))); {
				case err == nil:
					i++
				case errors.Is(err, linkstate.ErrFull):
					e.until(t, "room", func([]string) bool { return !e.Congested() })
				default:
					t.Error(err)
					return
				}
			}
		})
		wg.Go(func() {
			e.until(t, "all messages", func(ev []string) bool { return len(messages(ev)) >= total })
		})
	}
	all := make(chan struct{})
	go func() { wg.Wait(); close(all) }()
	rounds := 0
	for over := false; !over; rounds++ {
		x, y := tcp(t)
		cx := &cutter{Conn: x, gone: make(chan struct{}), left: 40 + rng.IntN(200_000)}
		cy := &cutter{Conn: y, gone: make(chan struct{}), left: 40 + rng.IntN(200_000)}
		attach(t, ends[0], ends[1], cx, cy)
		select {
		case <-cx.gone:
		case <-cy.gone:
		case <-ends[0].after(1 + rng.IntN(1000)): // replaced although it works
		case <-all:
			over = true
		}
	}
	for i, e := range ends {
		e.mu.Lock()
		ev := e.events
		e.mu.Unlock()
		got := messages(ev)
		if len(got) != total {
			t.Fatalf("side %d received %d messages, want %d", i, len(got), total)
		}
		for k, m := range got {
			if m != text(k) {
				t.Fatalf("side %d, message %d is %.20q, want %.20q", i, k, m, text(k))
			}
		}
		for _, e := range ev {
			if strings.HasPrefix(e, "TWO") || strings.HasPrefix(e, "reset") {
				t.Fatalf("side %d: %.100s", i, e)
			}
		}
	}
	t.Logf("%d connections; %+v", rounds, ends[0].Stats())
}

// Attach and Close from several goroutines at once end what they started.
func TestAttachRaces(t *testing.T) {
	a := newOwner(t, linkstate.Config{Incarnation: 1})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			x, y := net.Pipe()
			b := newOwner(t, linkstate.Config{Incarnation: uint64(i + 2)})
			if err := b.Attach(y); err != nil {
				t.Error(err)
			}
			if err := a.Attach(x); err != nil && !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
			if i == 5 {
				a.Close()
			}
			b.Close()
		})
	}
	wg.Wait()
}

// What is queued goes out in few writes.
func TestWritesCoalesce(t *testing.T) {
	a := newOwner(t, linkstate.Config{Incarnation: 1})
	for range 1000 {
		a.send(t, "small")
	}
	b := newOwner(t, linkstate.Config{Incarnation: 2})
	x, y := tcp(t)
	cx := &counter{Conn: x}
	attach(t, a, b, cx, y)
	b.until(t, "all", func(ev []string) bool { return len(messages(ev)) == 1000 })
	a.Close()
	if n := cx.writes.Load(); n > 10 {
		t.Errorf("%d writes for 1000 messages", n)
	}
}

type counter struct {
	net.Conn
	writes atomic.Int64
}

func (c *counter) Write(p []byte) (int, error) { c.writes.Add(1); return c.Conn.Write(p) }

func BenchmarkLink(b *testing.B) {
	var n atomic.Int64
	target := int64(0)
	reached := make(chan struct{}, 1)
	recv, err := New(linkstate.Config{Incarnation: 2}, Events{Message: func([]byte) {
		if n.Add(1) == atomic.LoadInt64(&target) {
			reached <- struct{}{}
		}
	}})
	if err != nil {
		b.Fatal(err)
	}
	defer recv.Close()
	room := make(chan struct{}, 1)
	send, err := New(linkstate.Config{Incarnation: 1}, Events{Drained: func() {
		select {
		case room <- struct{}{}:
		default:
		}
	}})
	if err != nil {
		b.Fatal(err)
	}
	defer send.Close()
	x, y := tcp(b)
	if err := errors.Join(send.Attach(x), recv.Attach(y)); err != nil {
		b.Fatal(err)
	}
	atomic.StoreInt64(&target, int64(b.N))
	msg := bytes.Repeat([]byte{1}, 200)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		for {
			err := send.Send(msg)
			if err == nil {
				break
			}
			if !errors.Is(err, linkstate.ErrFull) {
				b.Fatal(err)
			}
			<-room
		}
	}
	<-reached
}
