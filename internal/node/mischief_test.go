package node

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"gray/internal/core/engine"
	"gray/internal/core/ids"
	"gray/internal/core/resource"
	"gray/internal/wire"
)

// mischief makes frames that are well formed and name what there is, in an order that no client would choose. Its choices
// come from a text of bytes; where that ends, so does the story.
type mischief struct {
	b    *bench
	text []byte
	req  uint32
}

func (m *mischief) n(below int) int {
	if len(m.text) == 0 {
		return 0
	}
	c := m.text[0]
	m.text = m.text[1:]
	return int(c) % below
}

func (m *mischief) unique() ids.Unique { return ids.MakeUnique(benchOwner, badIDs+1+uint64(m.n(6))) }

func (m *mischief) id() ids.ObjectID {
	switch m.n(12) {
	case 0:
		return ids.MakeUnique(77, uint64(m.n(3))).Object(badJob, 1)
	case 1:
		return ids.MakeUnique(benchOwner, goodIDs+uint64(m.n(4))).Object(goodJob, 1)
	case 2:
		return ids.MakeUnique(benchOwner, badIDs).Object(badJob, 1)
	default:
		return m.unique().Object(badJob, uint32(1+m.n(3)))
	}
}

func (m *mischief) list(most int) ids.List {
	var l []ids.ObjectID
	for range m.n(most + 1) {
		l = append(l, m.id())
	}
	return pack(l)
}

// inner are ids for a value to contain. None of them is one of the driver's own but its function: objects that contain
// each other are never let go, in Ray neither, and this test would find nothing else.
func (m *mischief) inner(most int) ids.List {
	var l []ids.ObjectID
	for range m.n(most + 1) {
		switch m.n(3) {
		case 0:
			l = append(l, ids.MakeUnique(77, uint64(m.n(3))).Object(badJob, 1))
		case 1:
			l = append(l, ids.MakeUnique(benchOwner, goodIDs+uint64(m.n(4))).Object(goodJob, 1))
		default:
			l = append(l, ids.MakeUnique(benchOwner, badIDs).Object(badJob, 1))
		}
	}
	return pack(l)
}

func (m *mischief) count() uint32 { return []uint32{1, 1, 1, 2, 3, math.MaxUint32}[m.n(6)] }
func (m *mischief) size() uint64 {
	return []uint64{0, 1, 1 << 20, 1 << 20, 60 << 20, 127 << 20, 1 << 40, math.MaxUint64}[m.n(8)]
}

func (m *mischief) spec() []byte {
	return spec(ids.MakeUnique(benchOwner, badIDs).Object(badJob, 1), func(s *wire.Spec) {
		s.Resources = map[string]int64{"CPU": int64(m.n(6)) * quantum / 2}
		s.MaxRetries = int64(m.n(4)) - 1
		s.MaxCalls = int64(m.n(3))
		s.Strategy = []wire.Strategy{{}, {}, {Kind: resource.StrategySpread}, {Kind: resource.StrategyNode, Node: ids.NodeID{1}}, {Kind: resource.StrategyNode, Node: ids.NodeID{9}, Soft: true}, {Kind: resource.StrategyNode, Node: ids.NodeID{9}, Fail: true}}[m.n(6)]
	})
}

// frame is one of a driver's or a worker's; ch is a channel that it has.
func (m *mischief) frame(ch uint32) []byte {
	m.req++
	switch m.n(15) {
	case 0:
		return must(wire.AppendTemplate(nil, &wire.Template{No: uint32(m.n(3)), Map: m.spec()}))
	case 1:
		return wire.AppendTemplateDrop(nil, uint32(m.n(3)))
	case 2, 3, 4:
		return must(wire.AppendSubmit(nil, &wire.Submit{Template: uint32(m.n(3)), Unique: m.unique(), NumReturns: uint32(m.n(4)), Deps: m.list(2), Contained: m.list(2), Args: []byte("args")}))
	case 5:
		return must(wire.AppendPut(nil, &wire.Put{ID: m.id(), Contained: m.inner(2), Value: []byte("\x00value")}))
	case 6:
		return wire.AppendCreate(nil, wire.Create{Chan: ch, Req: m.req, ID: m.id(), Size: m.size()})
	case 7:
		return must(wire.AppendSeal(nil, &wire.Seal{ID: m.id(), Status: wire.Status(m.n(2)), Contained: m.inner(2)}))
	case 8:
		return wire.AppendAbort(nil, m.id())
	case 9:
		return must(wire.AppendGet(nil, &wire.Get{Chan: ch, Req: m.req, IDs: m.list(4)}))
	case 10:
		return must(wire.AppendWait(nil, &wire.Wait{Chan: ch, Req: m.req, Need: uint32(m.n(2)), Flags: uint8(m.n(2)), IDs: m.list(4)}))
	case 11:
		return must(wire.AppendRelease(nil, wire.Counts(nil).Append(m.id(), m.count())))
	case 12:
		return must(wire.AppendUnpin(nil, wire.Counts(nil).Append(m.id(), m.count())))
	case 13:
		return wire.AppendCancelReq(nil, wire.CancelReq{Chan: ch, Req: m.req - 1})
	default:
		return must(wire.AppendIDs(nil, &wire.IDs{ID: m.id(), Contained: m.inner(3)}))
	}
}

// result answers a task as its worker may, or as none would.
func (m *mischief) result(r ran) []byte {
	w := wire.Result{Unique: r.x.Unique, Attempt: r.x.Attempt, Outcome: wire.Outcome(m.n(4))}
	returns := r.x.Returns
	if m.n(8) == 0 {
		returns = uint32(m.n(4))
	}
	for range returns {
		o := wire.Output{Value: []byte("\x00out"), Contained: m.inner(2)}
		if m.n(3) == 0 {
			o = wire.Output{Where: wire.Arena, Size: m.size(), Contained: m.inner(1)}
		}
		w.Outputs.Append(&o)
	}
	return must(wire.AppendResult(nil, &w))
}

func (m *mischief) play() {
	b := m.b
	b.feed(b.bad, put(ids.MakeUnique(benchOwner, badIDs).Object(badJob, 1), []byte("\x00code")))
	b.feed(b.bad, must(wire.AppendTemplate(nil, &wire.Template{No: 1, Map: spec(ids.MakeUnique(benchOwner, badIDs).Object(badJob, 1), nil)})))
	for k := 0; len(m.text) > 0; k++ {
		var worker *client
		var last ran
		if len(b.badRan) > 0 {
			last = b.badRan[m.n(len(b.badRan))]
			worker = b.n.clients[last.worker]
		}
		switch what := m.n(10); {
		case what < 5:
			b.feed(b.bad, m.frame(1))
		case what == 5:
			b.pass(time.Duration(m.n(20)) * 100 * time.Millisecond)
		case worker == nil:
		case what < 8:
			b.feed(worker, m.result(last))
		case what == 8:
			b.feed(worker, m.frame(0))
		case m.n(4) == 0:
			b.event(func(*engine.Engine) { b.dying = append(b.dying, worker.id) })
		}
		b.check("on the way")
	}
}

// TestMischief plays some stories of each length; FuzzMischief looks for more.
func TestMischief(t *testing.T) {
	link := noHead()
	stories := 3000
	if testing.Short() {
		stories = 300
	}
	for seed := range stories {
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		text := make([]byte, 20+r.IntN(400))
		for k := range text {
			text[k] = byte(r.Uint32())
		}
		func() {
			defer func() {
				if t.Failed() {
					t.Logf("that was story %d", seed)
				}
			}()
			b := newBench(t, link)
			b.misbehaves((&mischief{b: b, text: text}).play)
		}()
	}
}

// FuzzMischief is FuzzStreams with frames that are well formed.
func FuzzMischief(f *testing.F) {
	link := noHead()
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 20 {
		text := make([]byte, n*20)
		for k := range text {
			text[k] = byte(r.Uint32())
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 2000 {
			t.Skip("a long story")
		}
		b := newBench(t, link)
		b.misbehaves((&mischief{b: b, text: text}).play)
	})
}
