package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"gray/internal/core/actor"
	"gray/internal/core/engine"
	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/core/headstate/member"
	"gray/internal/core/ids"
)

// The half of a node that connects its engine and the head about actors, as internal/node does.

// headPatience is how long a client's question waits for the head.
const headPatience = 30 * time.Second

// askHead asks the head when the engine is through, and gives the answer to the engine.
func (n *node) askHead(c headstate.Call, f func(e *engine.Engine, a headstate.Answer, err error)) {
	n.later = append(n.later, func() {
		n.lastTag++
		n.calls[n.lastTag] = func(a headstate.Answer, err error) { n.do(func(e *engine.Engine) { f(e, a, err) }) }
		n.member(member.Asked{Tag: n.lastTag, Call: c, Timeout: headPatience})
	})
}

// stored is what the head keeps to have a detached actor made by another node.
type stored struct {
	engine.StoredActor
	raw string
}

// RegisterActor asks the head for an actor's name.
func (n *node) RegisterActor(row *actor.Row, getIfExists bool, st *engine.StoredActor) {
	call := &headstate.ActorRegister{Row: *row, GetIfExists: getIfExists}
	if st != nil {
		n.w.lastSpec++
		call.Spec = fmt.Appendf(nil, "%d", n.w.lastSpec)
		n.w.stored[string(call.Spec)] = &stored{
			StoredActor: engine.StoredActor{Flags: st.Flags, Deps: slices.Clone(st.Deps), Contained: slices.Clone(st.Contained), Args: slices.Clone(st.Args), Body: slices.Clone(st.Body)},
			raw:         string(st.Template),
		}
	}
	u := row.ID.Unique()
	n.askHead(call, func(e *engine.Engine, a headstate.Answer, err error) {
		if err != nil {
			n.w.tracef("node %d: actor %x is not registered: %v", n.index, uint64(u), err)
			e.ActorRegistered(u, false, &actor.Row{}, fault.KindOf(err), err.Error())
			return
		}
		r := a.(*headstate.ActorRegistered)
		n.w.registered(n, u, r)
		if r.Created && r.Row.Detached {
			n.jobs[r.Row.Job] = true
		}
		e.ActorRegistered(u, r.Created, &r.Row, "", "")
	})
}

// ActorReply tells a client what the head said.
func (n *node) ActorReply(ch engine.Chan, req uint32, created bool, row *actor.Row) {
	n.reply(ch, req, actorReply{created, row.ID})
}

type actorReply struct {
	created bool
	id      ids.ActorID
}

// reply answers a question of a client.
func (n *node) reply(ch engine.Chan, req uint32, v any) {
	n.tell(ch, func(t *thread) {
		if t.cur != nil && t.cur.req == req {
			t.cur.reply = v
		}
	})
}

// ActorUpdate tells the head how an actor stands.
func (n *node) ActorUpdate(row *actor.Row) {
	r := *row
	n.w.tracef("node %d tells that actor %x is %s, incarnation %d %s", n.index, uint64(r.ID.Unique()), r.State, r.Incarnation, r.Death.Text)
	n.later = append(n.later, func() { n.member(member.ActorTold{Row: r}) })
}

// WatchActor has the head tell of an actor.
func (n *node) WatchActor(id ids.ActorID, on bool) {
	n.later = append(n.later, func() { n.member(member.ActorWatched{ID: id, On: on}) })
}

// PID is the process of a worker.
func (n *node) PID(w engine.SessionID) int { return int(w) }

// ActorError is the value of an error about an actor.
func (n *node) ActorError(kind fault.Kind, row *actor.Row, death *actor.Death) []byte {
	return errorValue(kind, fmt.Sprintf("actor %x: %s", uint64(row.ID.Unique()), death.Text))
}

// CreationResult reads the output of a constructor.
func (n *node) CreationResult(v []byte) (repr, text string, pickled []byte) {
	if string(v) == "ok" {
		return "", "", nil
	}
	return "", string(v), []byte("pickled")
}

// withNode calls f with the number of the node where an actor lives; if that is new here, the head is asked.
func (n *node) withNode(row actor.Row, f func(*engine.Engine, engine.NodeNo)) {
	if n.eng == nil {
		return
	}
	if no, known := n.nodeNo(row.Node); known || row.State != actor.Alive {
		n.do(func(e *engine.Engine) { f(e, no) })
		return
	}
	n.call(&headstate.Lookup{Node: row.Node}, func(a headstate.Answer, err error) {
		if err != nil {
			n.w.tracef("node %d: lookup of an actor's node: %v", n.index, err)
			return
		}
		r := a.(*headstate.Owned)
		n.do(func(e *engine.Engine) {
			if r.Alive {
				n.peer(r.Node, r.Owner)
			}
			no, _ := n.nodeNo(row.Node)
			f(e, no)
		})
	})
}

func (n *node) nodeNo(id ids.NodeID) (engine.NodeNo, bool) {
	if id == n.id {
		return 0, true
	}
	if no := n.peers[id]; no != 0 {
		return no, true
	}
	return engine.NoNode, n.dead[id]
}

// adopt makes this node the manager of a detached actor.
func (n *node) adopt(row actor.Row, spec []byte) {
	w := n.w
	st := w.stored[string(spec)]
	w.tracef("node %d adopts actor %x, which is %s", n.index, uint64(row.ID.Unique()), row.State)
	n.withNode(row, func(e *engine.Engine, no engine.NodeNo) {
		w.Stats.Adoptions++
		w.actors[row.ID.Unique()].manager = n
		n.jobs[row.Job] = true
		t := w.specFor(n, st.raw, row.Job)
		s := st.StoredActor
		e.AdoptActor(&row, &s, t, no)
	})
}

// killActor is ray.kill: done by the manager here, or by way of the head.
func (n *node) killActor(e *engine.Engine, ch engine.Chan, req uint32, id ids.ActorID, noRestart bool) {
	if e.KillActor(id, noRestart) {
		n.reply(ch, req, true)
		return
	}
	n.question(ch, req, &headstate.ActorKill{ID: id, NoRestart: noRestart})
}

// question asks the head for a client, whose reply is the answer or the error.
func (n *node) question(ch engine.Chan, req uint32, c headstate.Call) {
	n.askHead(c, func(_ *engine.Engine, a headstate.Answer, err error) {
		if err != nil {
			var f *fault.Error
			if !errors.As(err, &f) {
				n.w.failf("node %d: the head answers %T with %v", n.index, c, err)
			}
			n.reply(ch, req, f)
			return
		}
		n.reply(ch, req, a)
	})
}
