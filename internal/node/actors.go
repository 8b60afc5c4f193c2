package node

import (
	"net"

	"github.com/vmihailenco/msgpack/v5"

	"gray/internal/core/actor"
	"gray/internal/core/engine"
	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/core/ids"
	"gray/internal/head"
	"gray/internal/wire"
)

// actor takes an ACTOR to the engine; the caller holds the lock.
func (n *Node) actor(cl *client, f wire.Frame) error {
	m, err := wire.DecodeActor(f.Body)
	if err != nil {
		return err
	}
	spec, err := wire.DecodeActorSpec(m.Spec)
	if err != nil {
		return err
	}
	c := &engine.ActorCreation{
		Submission: engine.Submission{
			Template: m.Template, Unique: m.Unique, Flags: m.Flags, Deps: unpack(nil, m.Deps), Contained: unpack(nil, m.Contained),
			Args: m.Args, Bytes: uint32(f.Size()),
		},
		Spec: engine.ActorSpec{
			Detached: spec.Detached, GetIfExists: spec.GetIfExists, MaxRestarts: int32(min(spec.MaxRestarts, 1<<30)), Meta: spec.Meta,
		},
		Name: spec.Name, Namespace: spec.Namespace, Class: spec.ClassName, Body: spec.Body, Chan: m.Chan, Req: m.Req,
	}
	c.Contained = cl.takeCarry(m.Unique, c.Contained)
	n.eng.CreateActor(cl.id, c)
	return nil
}

// actorCall takes an ACTOR_CALL to the engine; the caller holds the lock.
func (n *Node) actorCall(cl *client, f wire.Frame) error {
	m, err := wire.DecodeActorCall(f.Body)
	if err != nil {
		return err
	}
	s := &cl.scratch.call
	*s = engine.ActorSubmission{
		Submission: engine.Submission{
			Template: m.Template, Unique: m.Unique, Returns: m.NumReturns, Flags: m.Flags,
			Deps: unpack(s.Deps[:0], m.Deps), Contained: unpack(s.Contained[:0], m.Contained), Args: m.Args, Bytes: uint32(f.Size()),
		},
		Actor: m.Actor, Weak: m.Flags&wire.FlagWeak != 0,
	}
	s.By, cl.within = cl.within, 0
	s.Contained = cl.takeCarry(m.Unique, s.Contained)
	if len(m.Overrides) > 0 {
		if err := overrides(&s.Submission, m.Overrides); err != nil {
			return err
		}
	}
	n.eng.CallActor(cl.id, s)
	return nil
}

// storedActor is a StoredActor as the head keeps it.
type storedActor struct {
	Template  []byte
	JobInfo   []byte
	Flags     uint16
	Deps      []ids.ObjectID
	Contained []ids.ObjectID
	Args      []byte
	Body      []byte
}

// RegisterActor asks the head for a name.
func (s *sink) RegisterActor(row *actor.Row, getIfExists bool, stored *engine.StoredActor) {
	n := s.n
	call := &headstate.ActorRegister{Row: *row, GetIfExists: getIfExists}
	var info *jobInfo
	if stored != nil {
		st := storedActor(*stored)
		if info = n.jobs[row.Job]; info != nil {
			st.JobInfo = info.raw
		}
		b, err := msgpack.Marshal(&st)
		if err != nil {
			panic("node: an actor cannot be encoded: " + err.Error()) // it holds nothing that cannot be
		}
		call.Spec, call.Packages = b, n.jobPackages(st.JobInfo, st.Template)
	}
	id := row.ID
	n.after = append(n.after, func() {
		n.link.Go(call, headTimeout, func(x headstate.Answer, err error) {
			n.locked(func(e *engine.Engine) {
				if err != nil {
					if fault.KindOf(err) != fault.NameTaken { // it may have the name nevertheless
						row := call.Row
						row.State, row.Death = actor.Dead, actor.Death{Cause: actor.Killed, Text: "its registration was given up", Never: true}
						n.link.TellActor(row)
					}
					e.ActorRegistered(id.Unique(), false, &actor.Row{}, fault.KindOf(err), registerText(n, err))
					return
				}
				r := x.(*headstate.ActorRegistered)
				if r.Created && r.Row.Job != row.Job && info != nil {
					n.jobs[r.Row.Job] = info
				}
				e.ActorRegistered(id.Unique(), r.Created, &r.Row, "", "")
			})
		})
	})
}

func registerText(n *Node, err error) string {
	if fault.KindOf(err) == fault.NameTaken {
		return detail(err)
	}
	return "the head at " + n.file.GCSAddress + " did not register the actor: " + err.Error()
}

// detail is what an error says, without what was tried.
func detail(err error) string {
	if f, ok := err.(*fault.Error); ok && f.Detail != "" { //nolint:errorlint // only its own words count
		return f.Detail
	}
	return err.Error()
}

// ActorReply tells a client that its actor is registered, or which other one has the name.
func (s *sink) ActorReply(ch engine.Chan, req uint32, created bool, row *actor.Row) {
	s.reply(ch, req, handleMap(row, created))
}

func handleMap(row *actor.Row, created bool) map[string]any {
	return map[string]any{"created": created, "actor_id": row.ID[:], "class_name": row.Class, "meta": row.Meta, "namespace": row.Namespace}
}

// ActorUpdate tells the head how an actor stands.
func (s *sink) ActorUpdate(row *actor.Row) {
	n := s.n
	if n.closed { // its end is no news of the actor: the head decides when it hears that this node has left
		return
	}
	n.place(row)
	n.link.TellActor(*row) // at once: what waits for the lock's release comes in any order
}

// place fills in the address of the node where an actor lives; the caller holds the lock.
func (n *Node) place(row *actor.Row) {
	if row.Node == n.id {
		row.IP = n.ip
	} else if p := n.peers.byID[row.Node]; p != nil {
		row.IP, _, _ = net.SplitHostPort(p.addr)
	}
}

// WatchActor has the head tell of an actor, or no longer.
func (s *sink) WatchActor(id ids.ActorID, on bool) {
	s.n.link.WatchActor(id, on) // at once, as ActorUpdate
}

// CancelRun tells a worker that a task or a call that it has is cancelled.
func (s *sink) CancelRun(w engine.SessionID, u ids.Unique, attempt uint32, interrupt bool) {
	if c := s.n.clients[w]; c != nil && interrupt {
		c.pokes = true
	}
	s.exec(w, func(b []byte) ([]byte, error) {
		return wire.AppendCancel(b, wire.Cancel{Unique: u, Attempt: attempt}), nil
	})
}

// PID is the process of a worker.
func (s *sink) PID(w engine.SessionID) int {
	if c := s.n.clients[w]; c != nil && c.worker != nil {
		return c.worker.Pid
	}
	return 0
}

// CreationResult reads the output of an actor's constructor.
func (s *sink) CreationResult(value []byte) (repr, text string, pickled []byte) {
	m, err := wire.DecodeCreatedActor(value)
	if err != nil {
		return "", "the constructor's result cannot be read: " + err.Error(), nil
	}
	return m.Repr, m.Error, m.Pickled
}

// ActorError is the value of an error about an actor.
func (s *sink) ActorError(kind fault.Kind, row *actor.Row, death *actor.Death) []byte {
	more := map[string]any{"actor_id": row.ID[:]}
	switch death.Cause {
	case actor.NoEnv:
		kind = fault.RuntimeEnv
	case actor.Unplaceable:
		kind = fault.Unschedulable
	}
	if kind == fault.ActorDied {
		if row.IP == "" { // the manager's own row has no address
			copied := *row
			s.n.place(&copied)
			row = &copied
		}
		more["class_name"], more["name"], more["ray_namespace"] = row.Class, row.Name, row.Namespace
		more["pid"], more["node_ip_address"], more["node_id"] = row.PID, row.IP, row.Node.String()
		more["never_started"], more["init_failed"], more["preempted"] = death.Never, death.Cause == actor.InitFailed, false
		if len(death.Pickled) > 0 {
			more["pickled"] = death.Pickled
		}
	}
	m, err := wire.MarshalFault(&wire.Fault{Kind: kind, Error: death.Text, More: more})
	if err != nil {
		panic("node: an error cannot be encoded: " + err.Error())
	}
	return append([]byte{wire.FormatFault}, m...)
}

// ActorChanged takes the head's news of an actor that clients of this node call.
func (h *handler) ActorChanged(row actor.Row) {
	n := h.n
	n.withNode(row, func(e *engine.Engine, no engine.NodeNo) {
		n.place(&row)
		e.ActorChanged(&row, no)
	})
}

// withNode calls f with the number of the node where an actor lives, which the head is asked for if it is new here.
func (n *Node) withNode(row actor.Row, f func(*engine.Engine, engine.NodeNo)) {
	known := false
	n.locked(func(e *engine.Engine) {
		no, ok := n.nodeNo(row.Node)
		if known = ok || row.State != actor.Alive; known {
			f(e, no)
		}
	})
	if known {
		return
	}
	n.link.Go(&headstate.Lookup{Node: row.Node}, 0, func(x headstate.Answer, err error) {
		if err != nil {
			n.log.Warn("the head did not say where an actor's node is", "node", row.Node.String(), "err", err)
			return
		}
		r := x.(*headstate.Owned)
		n.locked(func(e *engine.Engine) {
			if r.Alive {
				n.peerLocked(r.Node, r.Owner, addressOf(r.IP, r.Port))
			}
			no, _ := n.nodeNo(row.Node)
			f(e, no)
		})
	})
}

// nodeNo is the engine's number of a node; the caller holds the lock.
func (n *Node) nodeNo(id ids.NodeID) (engine.NodeNo, bool) {
	if id == n.id {
		return 0, true
	}
	if p := n.peers.byID[id]; p != nil {
		return p.no, true
	}
	return engine.NoNode, n.peers.dead[id]
}

// ActorDo kills an actor that this node manages.
func (h *handler) ActorDo(id ids.ActorID, noRestart bool) {
	h.n.locked(func(e *engine.Engine) { e.KillActor(id, noRestart) })
}

// ActorAdopt makes this node the manager of a detached actor.
func (h *handler) ActorAdopt(row actor.Row, spec []byte) {
	n := h.n
	var st storedActor
	if err := wire.Unmarshal(spec, &st); err != nil {
		n.log.Error("an actor that the head hands over cannot be read", "actor", row.ID.String(), "err", err)
		return
	}
	n.withNode(row, func(e *engine.Engine, no engine.NodeNo) {
		if n.jobs[row.Job] == nil {
			n.jobs[row.Job] = newJobInfo(st.JobInfo)
		}
		t, err := n.spec(row.Job, st.Template)
		if err != nil {
			n.log.Error("an actor that the head hands over cannot be created", "actor", row.ID.String(), "err", err)
			return
		}
		e.AdoptActor(&row, (*engine.StoredActor)(&st), t, no)
	})
}

// killActor is ray.kill: done here by the manager, or by way of the head.
func (n *Node) killActor(ch engine.Chan, req uint32, a *callArgs) error {
	if len(a.Actor) != ids.ActorSize {
		return protocolError("actor_kill", "an actor id has 16 bytes")
	}
	id := ids.ActorID(a.Actor)
	if n.eng.KillActor(id, a.NoRestart) {
		(&sink{n}).reply(ch, req, map[string]any{})
		return nil
	}
	n.ask(ch, req, "actor_kill", &headstate.ActorKill{ID: id, NoRestart: a.NoRestart}, func(headstate.Answer) any { return map[string]any{} })
	return nil
}

// getActor looks an actor up by its name.
func (n *Node) getActor(ch engine.Chan, req uint32, a *callArgs) {
	call := &headstate.ActorGet{Name: a.Name, Namespace: a.NS}
	n.ask(ch, req, "actor_get", call, func(x headstate.Answer) any {
		g := x.(*headstate.ActorGot)
		if !g.Found {
			return &fault.Error{Op: "actor_get", Kind: fault.NotFound, Ref: a.Name, Detail: "no actor of this name lives in namespace " + a.NS}
		}
		return handleMap(&g.Row, false)
	})
}

// actorRows are actors as the state API shows them, and when and where they ran.
func actorRows(rows []actor.Row) []map[string]any {
	out := make([]map[string]any, 0, len(rows))
	for i := range rows {
		r := &rows[i]
		m := head.ActorState(r)
		m["start_ms"], m["end_ms"], m["ip"] = r.StartMs, r.EndMs, r.IP
		out = append(out, m)
	}
	return out
}
