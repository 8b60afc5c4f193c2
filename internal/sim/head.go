package sim

import (
	"fmt"
	"time"

	"gray/internal/core/headstate"
	"gray/internal/core/headstate/member"
	"gray/internal/core/ids"
)

// head is the head role: the real state machine over a store that takes its time. In some worlds its process dies and is
// started again from what the store has.
type head struct {
	w      *World
	st     *headstate.State
	start  time.Time
	life   int
	absent bool
	down   map[ids.NodeID]*pipe // present links to members
	tickAt time.Duration
	store  map[string]headstate.Record
	queue  []headstate.Persist                   // batches that are not committed
	timed  func(ev headstate.Event, step func()) // in a benchmark: measures
}

func newHead(w *World) *head {
	h := &head{w: w, store: map[string]headstate.Record{}}
	h.rise()
	return h
}

// rise starts a head's process.
func (h *head) rise() {
	var records []headstate.Record
	for _, k := range sorted(h.store) {
		records = append(records, h.store[k])
	}
	st, err := headstate.New(headstate.Config{Cluster: headstate.ClusterID{1}, SessionName: "session", RowsPerSec: h.w.cfg.Rows, StartMs: 1 + h.w.now.Sub(h.w.start).Milliseconds()}, records)
	if err != nil {
		h.w.failf("the head cannot start from its store: %v", err)
		return
	}
	h.st, h.start, h.absent, h.tickAt, h.down = st, h.w.now, false, -1, map[ids.NodeID]*pipe{}
	h.life++
}

// mortal has the head die now and then, in a world that is so.
func (h *head) mortal() {
	w := h.w
	if !w.cfg.HeadDeath {
		return
	}
	w.after(time.Duration(w.rng.Int64N(int64(w.cfg.HeadEvery))), func() {
		if !w.faults || h.absent {
			return
		}
		h.die()
		life := h.life
		w.after([]time.Duration{w.delay(), 300 * time.Millisecond, 2 * time.Second, 13 * time.Second}[w.rng.IntN(4)], func() {
			if life == h.life {
				h.back()
			}
		})
		h.mortal()
	})
}

// die ends the head's process; of what it wrote last, a part is in the store.
func (h *head) die() {
	w := h.w
	w.tracef("the head dies")
	w.Stats.HeadDeaths++
	w.hit()
	if n := w.rng.IntN(len(h.queue) + 1); n > 0 {
		h.save(h.queue[n-1].Seq)
	}
	h.queue = nil
	h.life++
	h.absent = true
	for _, n := range w.nodes {
		if n.alive {
			n.cutHead()
			n.missHead(h.life)
		}
	}
}

// back starts the head again, if it is dead; all find it.
func (h *head) back() {
	w := h.w
	if !h.absent {
		return
	}
	w.tracef("the head is back")
	w.hit()
	h.rise()
	for _, n := range w.nodes {
		if n.alive {
			w.after(w.delay(), func() {
				if n.alive && (n.up == nil || n.up.down) {
					n.relink()
				}
			})
		}
	}
}

// missHead is what a node sees of a dead head: its machine says that nobody listens.
func (n *node) missHead(life int) {
	h := n.w.head
	if !n.alive || !h.absent || h.life != life {
		return
	}
	n.member(member.HeadAbsent{})
	n.w.after(300*time.Millisecond, func() { n.missHead(life) })
}

func (h *head) since() time.Duration { return h.w.now.Sub(h.start) }

func (h *head) step(ev headstate.Event) {
	if h.absent {
		return
	}
	life := h.life
	var effs []headstate.Effect
	if h.timed != nil {
		h.timed(ev, func() { effs = h.st.Step(h.since(), ev) })
	} else {
		effs = h.st.Step(h.since(), ev)
	}
	for _, eff := range effs {
		switch eff := eff.(type) {
		case headstate.Send:
			if p := h.down[eff.To]; p != nil {
				n, msg := h.w.byID[eff.To], eff.Msg
				p.send(func() { n.fromHead(msg) })
			}
		case headstate.Persist:
			h.queue = append(h.queue, eff)
			seq := eff.Seq
			h.w.after(h.w.delay(), func() {
				if life == h.life {
					h.save(seq)
					h.step(headstate.Persisted{Seq: seq})
				}
			})
		case headstate.Note:
			h.w.tracef("head: %s", eff.Text)
		}
	}
	if at, ok := h.st.Next(); ok && (h.tickAt < 0 || at < h.tickAt || h.tickAt < h.since()) {
		h.tickAt = at
		h.w.after(at-h.since(), func() {
			if life == h.life && h.tickAt == at {
				h.tickAt = -1
				h.step(headstate.Tick{})
			}
		})
	}
}

// save commits the batches up to one.
func (h *head) save(seq uint64) {
	for len(h.queue) > 0 && h.queue[0].Seq <= seq {
		for _, op := range h.queue[0].Ops {
			if k := recordKey(op.Rec); op.Delete {
				delete(h.store, k)
			} else {
				h.store[k] = op.Rec
			}
		}
		h.queue = h.queue[1:]
	}
}

// recordKey names a record of the store; one with the same key replaces it.
func recordKey(r headstate.Record) string {
	switch r := r.(type) {
	case *headstate.Meta:
		return "meta"
	case *headstate.NodeRow:
		return "node " + r.Info.ID.String()
	case *headstate.JobRow:
		return "job " + r.ID.String()
	case *headstate.KVRecord:
		return "kv " + r.NS + "\x00" + r.Key
	case *headstate.ActorRecord:
		return "actor " + r.Row.ID.String()
	case *headstate.ActorSpec:
		return "spec " + r.ID.String()
	}
	panic(fmt.Sprintf("sim: the head stores a %T", r))
}
