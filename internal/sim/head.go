package sim

import (
	"time"

	"gray/internal/core/headstate"
	"gray/internal/core/ids"
)

// head is the head role: the real state machine over a store that takes its time.
type head struct {
	w      *World
	st     *headstate.State
	down   map[ids.NodeID]*pipe // present links to members
	tickAt time.Duration
}

func newHead(w *World) *head {
	st, err := headstate.New(headstate.Config{Cluster: headstate.ClusterID{1}, SessionName: "session", StartMs: 1}, nil)
	if err != nil {
		panic(err) // nothing was loaded
	}
	return &head{w: w, st: st, down: map[ids.NodeID]*pipe{}, tickAt: -1}
}

func (h *head) since() time.Duration { return h.w.now.Sub(h.w.start) }

func (h *head) step(ev headstate.Event) {
	for _, eff := range h.st.Step(h.since(), ev) {
		switch eff := eff.(type) {
		case headstate.Send:
			if p := h.down[eff.To]; p != nil {
				n, msg := h.w.byID[eff.To], eff.Msg
				p.send(func() { n.fromHead(msg) })
			}
		case headstate.Persist:
			seq := eff.Seq
			h.w.after(h.w.delay(), func() { h.step(headstate.Persisted{Seq: seq}) })
		case headstate.Note:
			h.w.tracef("head: %s", eff.Text)
		}
	}
	if at, ok := h.st.Next(); ok && (h.tickAt < 0 || at < h.tickAt || h.tickAt < h.since()) {
		h.tickAt = at
		h.w.after(at-h.since(), func() {
			if h.tickAt == at {
				h.tickAt = -1
				h.step(headstate.Tick{})
			}
		})
	}
}
