package engine

import (
	"strings"
	"testing"
	"time"

	"gray/internal/core/ids"
)

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q does not say %q", text, p)
		}
	}
}

// A full store says how large the objects in the way are, and which processes and tasks keep them.
func TestFullStoreNamesWhoHoldsIt(t *testing.T) {
	const mb = 1 << 20
	r := newRig(t, settings{owner: 1, cpus: 1, store: 16 * mb})
	c := r.driver(1)
	put := func(size uint64) ids.ObjectID {
		id := c.id()
		r.do(func(e *Engine) { e.Create(c.ch, 1, id, size) })
		r.do(func(e *Engine) { e.Seal(c.sid, id, 0, nil) })
		return id
	}
	arg, viewed, inner := put(6*mb), put(4*mb), put(3*mb)
	c.get(viewed)
	c.put("box", inner)
	c.release(inner)
	r.workers()
	out := c.call("sleep", arg)
	w := onlyWorker(t, r)
	r.take(w)
	r.do(func(e *Engine) { e.Get(Chan{w, 0}, 1, pack([]ids.ObjectID{out})) }) // so that it can release nothing
	r.do(func(e *Engine) { e.Create(c.ch, 2, c.id(), 8*mb) })
	r.pass(30 * time.Second)
	text := r.failed
	contains(t, text, "needs 8.0 MiB", "the largest: 6.0 MiB ObjectRef("+arg.String()+") (",
		"refs in process 1", "read by process 2, which runs task sleep (", "argument of task sleep (",
		"4.0 MiB ObjectRef("+viewed.String()+") (read by process 1; refs in process 1)", "3.0 MiB ObjectRef("+inner.String()+") (in ObjectRef(")
	if st := r.e.Store(); len(st.Holders) != 3 || st.Holders[0].ID != arg {
		t.Errorf("the store's holders are %+v", st.Holders)
	}
}

func TestLostObjectNamesTaskAndNode(t *testing.T) {
	a, b, c := pair(t)
	out := c.call("train")
	quieten(a, b)
	w := onlyWorker(t, b)
	x := b.take(w)
	b.do(func(e *Engine) { e.Create(Chan{w, 0}, 1, out, 1<<20) })
	b.do(func(e *Engine) { e.Result(w, x.Unique, 0, OutcomeValues, []Output{{Arena: true, Size: 1 << 20}}) })
	d := newRig(t, settings{owner: 3, cpus: 1})
	meet(a, d)
	other := d.driver(2)
	other.put("holder", out)
	quieten(a, b, d)
	a.do(func(e *Engine) { e.PeerNamed(2, "gpu-box") })
	a.do(func(e *Engine) { e.PeerGone(2, "silent") })
	contains(t, a.failed, "object "+out.String()+", made by task train (", "lost with node "+b.e.cfg.Node.String()+" (gpu-box): silent")
	// Another node learns the same when it wants a copy.
	a.failed = ""
	other.get(out)
	quieten(a, d)
	d.want("value", "value 1/1/1 1.1:1 = !OBJECT_LOST []")
}

func TestNameOfACall(t *testing.T) {
	long := strings.Repeat("n", 40)
	for in, want := range map[string]string{
		"": "", "\x81": "", "\x81\xa4name": "", "\x81\xa4name\xa3abc": "abc", "\x82\xa4name\xa1x\xabmax_retries\x01": "x", "\x81\xa4name\xa3ab": "",
		"\x81\xa4name\xd9\x28" + long: long, "\x81\xa4name\xda\x00\x28" + long: long, "\x81\xa4name\xda\x00": "", "\x81\xabmax_retries\x01": "", "\x81\xa4name\xc0": "",
	} {
		if got := nameIn([]byte(in)); got != want {
			t.Errorf("%q has the name %q, want %q", in, got, want)
		}
	}
}
