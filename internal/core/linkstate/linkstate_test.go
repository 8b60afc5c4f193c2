package linkstate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gray/internal/core/fault"
)

var t0 = time.Unix(1000, 0)

func mustNew(t testing.TB, cfg Config) *State {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// end is one side of a pair in a test: a State, the bytes on their way to it, and what it has received.
type end struct {
	*State
	inc  uint64
	wire []byte   // written by the other side, not yet read
	got  []string // messages
	ins  []Input  // with Ready or Reset
}

type pair struct {
	t    testing.TB
	now  time.Time
	cfg  Config
	a, b *end
	incs uint64
}

func newPair(t testing.TB, cfg Config) *pair {
	p := &pair{t: t, now: t0, cfg: cfg}
	p.a, p.b = p.fresh(), p.fresh()
	return p
}

func (p *pair) fresh() *end {
	p.incs++
	cfg := p.cfg
	cfg.Incarnation = p.incs
	return &end{State: mustNew(p.t, cfg), inc: p.incs}
}

func (p *pair) connect() {
	p.b.wire = p.a.Open(p.now, nil)
	p.a.wire = p.b.Open(p.now, nil)
}

// cut loses what is on its way.
func (p *pair) cut() {
	for _, e := range []*end{p.a, p.b} {
		e.Broke()
		e.wire = nil
	}
}

func (p *pair) other(e *end) *end {
	if e == p.a {
		return p.b
	}
	return p.a
}

// flush writes what e has to say.
func (p *pair) flush(e *end, budget int) {
	o := p.other(e)
	o.wire = e.Output(p.now, o.wire, budget)
}

// read lets e read the first n bytes on their way; an incomplete frame stays. It cuts the connection on an error.
func (p *pair) read(e *end, n int) error {
	n = min(n, len(e.wire))
	seen := e.wire[:n]
	for {
		ty, body, used, err := Cut(seen)
		if err == nil && used == 0 {
			return nil
		}
		var in Input
		if err == nil {
			in, err = e.Receive(p.now, ty, bytes.Clone(body))
		}
		if err != nil {
			p.cut()
			return err
		}
		if in.HasMessage {
			e.got = append(e.got, string(in.Message))
		}
		if in.Ready {
			e.ins = append(e.ins, in)
		}
		seen, e.wire = seen[used:], e.wire[used:]
	}
}

// settle lets both sides talk until neither has anything to say.
func (p *pair) settle() {
	p.t.Helper()
	for range 10_000 {
		p.flush(p.a, 1000)
		p.flush(p.b, 1000)
		if len(p.a.wire)+len(p.b.wire) == 0 {
			return
		}
		for _, e := range []*end{p.a, p.b} {
			if err := p.read(e, len(e.wire)); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	p.t.Fatal("the two never stop talking")
}

func (p *pair) send(e *end, msgs ...string) {
	p.t.Helper()
	for _, m := range msgs {
		if err := e.Send([]byte(m)); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (e *end) want(t testing.TB, want ...string) {
	t.Helper()
	if fmt.Sprint(e.got) != fmt.Sprint(want) {
		t.Errorf("received %q, want %q", e.got, want)
	}
}

func TestScripts(t *testing.T) {
	small := Config{Chunk: 4}
	for _, tc := range []struct {
		name string
		run  func(t *testing.T, p *pair)
	}{
		{"in order, both ways, empty ones too", func(t *testing.T, p *pair) {
			p.connect()
			p.send(p.a, "1", "", "3")
			p.send(p.b, "x")
			p.settle()
			p.b.want(t, "1", "", "3")
			p.a.want(t, "x")
		}},
		{"sent before the first connection", func(t *testing.T, p *pair) {
			p.send(p.a, "early")
			p.flush(p.a, 100)
			if len(p.b.wire) != 0 {
				t.Error("wrote without a connection")
			}
			p.connect()
			p.settle()
			p.b.want(t, "early")
		}},
		{"chunks", func(t *testing.T, p *pair) {
			p.connect()
			p.send(p.a, "a message of many chunks", "1234", "12345")
			p.settle()
			p.b.want(t, "a message of many chunks", "1234", "12345")
		}},
		{"resent after a cut", func(t *testing.T, p *pair) {
			p.connect()
			p.settle()
			p.send(p.a, "lost on its way")
			p.flush(p.a, 100)
			p.cut()
			p.connect()
			p.settle()
			p.b.want(t, "lost on its way")
			if p.a.Stats().Resent == 0 || p.b.Stats().Duplicates != 0 {
				t.Errorf("stats %+v, %+v", p.a.Stats(), p.b.Stats())
			}
		}},
		{"not resent when it had arrived", func(t *testing.T, p *pair) {
			p.connect()
			p.settle()
			p.send(p.a, "abcd", "efgh")
			p.flush(p.a, 100)
			if err := p.read(p.b, 1000); err != nil {
				t.Fatal(err)
			}
			p.cut() // before any ack
			p.connect()
			p.settle()
			p.b.want(t, "abcd", "efgh")
			if p.a.Stats().Resent != 0 || p.a.Unacked() != 0 {
				t.Errorf("stats %+v, %d unacknowledged", p.a.Stats(), p.a.Unacked())
			}
		}},
		{"half a message before the cut, half after", func(t *testing.T, p *pair) {
			p.connect()
			p.settle()
			p.send(p.a, "12345678")
			p.flush(p.a, 1) // one chunk
			if err := p.read(p.b, 1000); err != nil {
				t.Fatal(err)
			}
			p.cut()
			p.connect()
			p.settle()
			p.b.want(t, "12345678")
			if p.a.Stats().Resent != 0 {
				t.Error("the first half was sent again")
			}
		}},
		{"the peer restarts", func(t *testing.T, p *pair) {
			p.connect()
			p.settle()
			p.send(p.a, "one", "two, which is lost")
			p.flush(p.a, 1000)
			p.send(p.b, "from the old one")
			p.cut()
			p.b = p.fresh()
			p.connect()
			p.settle()
			if n := len(p.a.ins); n != 2 || !p.a.ins[1].Reset || p.a.ins[1].Dropped != 2 {
				t.Errorf("hellos %+v, want a reset that dropped 2", p.a.ins)
			}
			if p.b.ins[0].Reset {
				t.Error("the restarted side takes its peer for restarted")
			}
			p.send(p.a, "three")
			p.send(p.b, "hello")
			p.settle()
			p.b.want(t, "three")
			p.a.want(t, "hello")
		}},
		{"the peer restarts amid a message", func(t *testing.T, p *pair) {
			p.connect()
			p.settle()
			p.send(p.b, "12345678")
			p.flush(p.b, 1)
			if err := p.read(p.a, 1000); err != nil {
				t.Fatal(err)
			}
			p.cut()
			p.b = p.fresh()
			p.connect()
			p.send(p.b, "new")
			p.settle()
			p.a.want(t, "new")
		}},
		{"both restart", func(t *testing.T, p *pair) {
			p.connect()
			p.settle()
			p.cut()
			p.a, p.b = p.fresh(), p.fresh()
			p.connect()
			p.send(p.a, "new")
			p.settle()
			p.b.want(t, "new")
		}},
		{"a restarted peer whose first hello was lost", func(t *testing.T, p *pair) {
			p.connect()
			p.send(p.a, "1")
			p.settle()
			p.cut()
			p.b = p.fresh()
			p.connect()
			if err := p.read(p.b, 1000); err != nil { // the new one learns of a, a not of the new one
				t.Fatal(err)
			}
			p.send(p.b, "2")
			p.cut()
			p.connect()
			p.settle()
			p.a.want(t, "2")
		}},
		{"an ack comes alone after a delay", func(t *testing.T, p *pair) {
			p.connect()
			p.settle()
			p.send(p.a, "m")
			p.settle()
			if p.a.Unacked() == 0 {
				t.Fatal("acknowledged at once")
			}
			p.now = p.b.Deadline()
			if got := p.now.Sub(t0); got != 10*time.Millisecond {
				t.Errorf("the ack is due after %s, want 10ms", got)
			}
			p.settle()
			if p.a.Unacked() != 0 {
				t.Error("not acknowledged after the delay")
			}
		}},
		{"an ack rides on data", func(t *testing.T, p *pair) {
			p.connect()
			p.send(p.a, "m")
			p.settle()
			p.send(p.b, "n")
			p.settle()
			if p.a.Unacked() != 0 {
				t.Error("not acknowledged")
			}
		}},
		{"keepalive and silence", func(t *testing.T, p *pair) {
			p.connect()
			p.settle()
			for range 10 {
				p.now = p.now.Add(5 * time.Second)
				p.settle()
			}
			if p.a.Expired(p.now) || p.b.Expired(p.now) {
				t.Error("a link with keepalives expired")
			}
			p.now = p.now.Add(14 * time.Second)
			if p.a.Expired(p.now) {
				t.Error("expired after 14 s")
			}
			p.now = p.now.Add(time.Second)
			if !p.a.Expired(p.now) || p.a.Deadline().After(p.now) {
				t.Error("not expired after 15 s")
			}
		}},
		{"a newer connection replaces one that is only half dead", func(t *testing.T, p *pair) {
			p.connect()
			p.settle()
			p.send(p.a, "m")
			p.flush(p.a, 100)
			p.connect()
			p.settle()
			p.b.want(t, "m")
		}},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.run(t, newPair(t, small)) })
	}
}

func TestBackpressure(t *testing.T) {
	p := newPair(t, Config{MaxUnacked: 10_000, MaxMessage: 20_000})
	p.connect()
	p.settle()
	msg := make([]byte, 1000-chunkCost)
	for i := range 10 {
		if err := p.a.Send(msg); err != nil {
			t.Fatal(err)
		}
		if p.a.Congested() != (i >= 4) {
			t.Errorf("congested %t with %d bytes of 10000", p.a.Congested(), p.a.Unacked())
		}
	}
	if err := p.a.Send([]byte{1}); !errors.Is(err, ErrFull) {
		t.Fatalf("err = %v, want ErrFull", err)
	}
	if err := p.a.Send(make([]byte, 20_001)); fault.KindOf(err) != fault.Limit {
		t.Fatalf("err = %v, want one of kind limit", err)
	}
	drained := 0
	for range 10 {
		p.flush(p.a, 1)
		if err := p.read(p.b, 1<<20); err != nil {
			t.Fatal(err)
		}
		p.now = p.now.Add(time.Second)
		p.flush(p.b, 1)
		before := p.a.Congested()
		ty, body, n, err := Cut(p.a.wire)
		if err != nil || n == 0 {
			t.Fatalf("no ack: %v", err)
		}
		in, err := p.a.Receive(p.now, ty, body)
		if err != nil {
			t.Fatal(err)
		}
		p.a.wire = p.a.wire[n:]
		if in.Drained {
			drained++
			if p.a.Unacked() > 2500 {
				t.Errorf("drained at %d bytes", p.a.Unacked())
			}
		}
		if in.Drained != (before && !p.a.Congested()) {
			t.Error("Drained and Congested disagree")
		}
	}
	if drained != 1 || len(p.b.got) != 10 {
		t.Errorf("drained %d times, %d messages; want 1, 10", drained, len(p.b.got))
	}
	if err := p.a.Send(make([]byte, 19_000)); err != nil {
		t.Errorf("a message larger than MaxUnacked on an empty link: %v", err)
	}
}

func TestBadInput(t *testing.T) {
	hello := func(version uint16, v ...uint64) []byte {
		b := binary.LittleEndian.AppendUint16([]byte(magic), version)
		for _, x := range v {
			b = binary.LittleEndian.AppendUint64(b, x)
		}
		return b
	}
	data := func(n, ack uint64, more byte, d string) []byte {
		b := binary.LittleEndian.AppendUint64(nil, n)
		return append(append(binary.LittleEndian.AppendUint64(b, ack), more), d...)
	}
	good := hello(Version, 7, 0, 0)
	type in struct {
		t Type
		b []byte
	}
	for _, tc := range []struct {
		name string
		ins  []in // the last one is refused
		kind fault.Kind
		text string
	}{
		{"data before the hello", []in{{TypeData, data(1, 0, 0, "x")}}, fault.Protocol, "hello had come: false"},
		{"other magic", []in{{TypeHello, append([]byte("HTTP"), good[4:]...)}}, fault.Protocol, "does not start"},
		{"short hello", []in{{TypeHello, good[:10]}}, fault.Protocol, "does not start"},
		{"version", []in{{TypeHello, hello(9, 7, 0, 0)}}, fault.Version, "protocol 9, this daemon 1"},
		{"incarnation 0", []in{{TypeHello, hello(Version, 0, 0, 0)}}, fault.Protocol, "incarnation is 0"},
		{"received what was never sent", []in{{TypeHello, hello(Version, 7, 1, 5)}}, fault.Protocol, "up to 5"},
		{"two hellos", []in{{TypeHello, good}, {TypeHello, good}}, fault.Protocol, "type 1"},
		{"unknown type", []in{{TypeHello, good}, {9, nil}}, fault.Protocol, "type 9"},
		{"short data", []in{{TypeHello, good}, {TypeData, make([]byte, dataHead-1)}}, fault.Protocol, "type 2"},
		{"long ack", []in{{TypeHello, good}, {TypeAck, make([]byte, 9)}}, fault.Protocol, "type 3"},
		{"a gap", []in{{TypeHello, good}, {TypeData, data(2, 0, 0, "x")}}, fault.Protocol, "chunk 2 came after 0"},
		{"ack of what was not sent", []in{{TypeHello, good}, {TypeData, data(1, 1, 0, "x")}}, fault.Protocol, "acknowledges 1"},
		{"flags", []in{{TypeHello, good}, {TypeData, data(1, 0, 2, "x")}}, fault.Protocol, "flags 2"},
		{"too large a message", []in{{TypeHello, good}, {TypeData, data(1, 0, 1, strings.Repeat("x", 60))}, {TypeData, data(2, 0, 0, strings.Repeat("x", 60))}}, fault.Protocol, "more than 100 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := mustNew(t, Config{Incarnation: 1, MaxMessage: 100})
			s.Open(t0, nil)
			for i, in := range tc.ins {
				_, err := s.Receive(t0, in.t, in.b)
				if i < len(tc.ins)-1 {
					if err != nil {
						t.Fatal(err)
					}
					continue
				}
				if fault.KindOf(err) != tc.kind || err == nil || !strings.Contains(err.Error(), tc.text) {
					t.Fatalf("err = %v, want %q of kind %s", err, tc.text, tc.kind)
				}
			}
		})
	}
	s := mustNew(t, Config{Incarnation: 1})
	if _, err := s.Receive(t0, TypeHello, good); err == nil {
		t.Error("took a frame without a connection")
	}
	for _, cfg := range []Config{{}, {Incarnation: 1, Chunk: MaxChunk + 1}, {Incarnation: 1, MaxUnacked: -1}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("New took %+v", cfg)
		}
	}
	for _, b := range [][]byte{{0, 0, 0, 0}, {1, 0, 0x10, 0}, {255, 255, 255, 255}} {
		if _, _, _, err := Cut(b); err == nil {
			t.Errorf("Cut took length %x", b)
		}
	}
}

// One message stream, cut at every single byte in turn: nothing is lost, doubled or out of order.
func TestCutAtEveryByte(t *testing.T) {
	want := []string{"one", "two is longer than a chunk", "", "four"}
	total := func() int {
		p := newPair(t, Config{Chunk: 8})
		p.connect()
		p.send(p.a, want...)
		if err := p.read(p.a, 1000); err != nil {
			t.Fatal(err)
		}
		p.flush(p.a, 1<<20)
		return len(p.b.wire)
	}()
	for at := range total + 1 {
		p := newPair(t, Config{Chunk: 8})
		p.connect()
		p.send(p.a, want...)
		if err := p.read(p.a, 1000); err != nil {
			t.Fatal(err)
		}
		p.flush(p.a, 1<<20)
		if err := p.read(p.b, at); err != nil {
			t.Fatal(err)
		}
		p.cut()
		p.connect()
		p.settle()
		p.b.want(t, want...)
	}
}

// Random histories of sends, reads of any length, cuts and restarts. Messages are "life/number": what one life of a
// side receives of one life of the other are consecutive numbers, from the first if it is the other's first peer.
func TestOnceAndInOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := newPair(t, Config{Chunk: rapid.IntRange(1, 20).Draw(rt, "chunk"), AckBytes: rapid.IntRange(1, 500).Draw(rt, "ack"), MaxUnacked: 1000})
		counts := map[uint64]int{}
		var lives []*end
		check := func(e *end) {
			last := map[string]int{}
			for _, m := range e.got {
				var life uint64
				var n int
				if _, err := fmt.Sscanf(m, "%d/%d", &life, &n); err != nil {
					rt.Fatalf("message %q: %v", m, err)
				}
				k := fmt.Sprint(life)
				if prev, ok := last[k]; ok && n != prev+1 {
					rt.Fatalf("life %d received %q", e.inc, e.got)
				}
				last[k] = n
			}
		}
		for range rapid.IntRange(1, 150).Draw(rt, "steps") {
			e := p.a
			if rapid.Bool().Draw(rt, "side b") {
				e = p.b
			}
			switch op := rapid.IntRange(0, 20).Draw(rt, "op"); {
			case op < 8:
				m := fmt.Sprintf("%d/%d%s", e.inc, counts[e.inc]+1, strings.Repeat("-", rapid.IntRange(0, 30).Draw(rt, "pad")))
				err := e.Send([]byte(m))
				if err == nil {
					counts[e.inc]++
				} else if !errors.Is(err, ErrFull) {
					rt.Fatal(err)
				}
			case op < 12:
				p.flush(e, rapid.IntRange(1, 300).Draw(rt, "budget"))
			case op < 17:
				if err := p.read(e, rapid.IntRange(0, 200).Draw(rt, "n")); err != nil {
					rt.Fatal(err)
				}
			case op == 17:
				p.now = p.now.Add(time.Duration(rapid.IntRange(1, 20).Draw(rt, "ms")) * time.Millisecond)
			case op == 18:
				p.cut()
				p.connect()
			case op == 19:
				p.connect()
			default:
				p.cut()
				lives = append(lives, e)
				if e == p.a {
					p.a = p.fresh()
				} else {
					p.b = p.fresh()
				}
				p.connect()
			}
			check(e)
		}
		p.cut()
		p.connect()
		p.settle()
		// Quiet now: what is sent from here on all arrives.
		na, nb := len(p.a.got), len(p.b.got)
		p.send(p.a, fmt.Sprintf("%d/%d", p.a.inc, counts[p.a.inc]+1))
		p.send(p.b, fmt.Sprintf("%d/%d", p.b.inc, counts[p.b.inc]+1))
		p.settle()
		p.now = p.now.Add(time.Second)
		p.settle()
		if len(p.a.got) != na+1 || len(p.b.got) != nb+1 || p.a.Unacked()+p.b.Unacked() != 0 {
			rt.Fatalf("in the end %q and %q; %d, %d bytes unacknowledged", p.a.got, p.b.got, p.a.Unacked(), p.b.Unacked())
		}
		for _, e := range append(lives, p.a, p.b) {
			check(e)
		}
		if len(lives) == 0 && (len(p.a.got) != counts[p.b.inc]+1 || len(p.b.got) != counts[p.a.inc]+1) {
			rt.Fatalf("%d and %d received, %d and %d sent", len(p.a.got), len(p.b.got), counts[p.b.inc]+1, counts[p.a.inc]+1)
		}
	})
}

func FuzzReceive(f *testing.F) {
	p := newPair(f, Config{Chunk: 8})
	p.connect()
	first := bytes.Clone(p.a.wire)
	f.Add(first)
	p.send(p.b, "a message of several chunks", "x")
	if err := p.read(p.b, 1000); err != nil {
		f.Fatal(err)
	}
	p.flush(p.b, 1<<20)
	f.Add(bytes.Clone(p.a.wire))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := mustNew(t, Config{Incarnation: 1, MaxMessage: 1000})
		if err := s.Send([]byte("m")); err != nil {
			t.Fatal(err)
		}
		s.Open(t0, nil)
		for {
			ty, body, n, err := Cut(b)
			if err != nil || n == 0 {
				return
			}
			b = b[n:]
			in, err := s.Receive(t0, ty, body)
			if err != nil {
				if k := fault.KindOf(err); k != fault.Protocol && k != fault.Version {
					t.Fatalf("%v is of kind %s", err, k)
				}
				return
			}
			if len(in.Message) > 1000 {
				t.Fatal("a message over the limit")
			}
			s.Output(t0, nil, 1000)
		}
	})
}

func BenchmarkSendReceive(b *testing.B) {
	p := newPair(b, Config{})
	p.connect()
	p.settle()
	msg := make([]byte, 200)
	b.ReportAllocs()
	for b.Loop() {
		for range 100 {
			if err := p.a.Send(msg); err != nil {
				b.Fatal(err)
			}
		}
		out := p.a.Output(p.now, p.b.wire[:0], 1<<20)
		p.b.wire = out
		for len(out) > 0 {
			ty, body, n, err := Cut(out)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := p.b.Receive(p.now, ty, body); err != nil {
				b.Fatal(err)
			}
			out = out[n:]
		}
		p.now = p.now.Add(time.Second)
		p.a.wire = p.b.Output(p.now, p.a.wire[:0], 1)
		ty, body, _, err := Cut(p.a.wire)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.a.Receive(p.now, ty, body); err != nil {
			b.Fatal(err)
		}
	}
}
