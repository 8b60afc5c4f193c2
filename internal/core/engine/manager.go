package engine

import (
	"fmt"
	"slices"

	"gray/internal/core/actor"
	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/core/resource"
)

// managed is what the daemon whose client created an actor keeps of it.
type managed struct {
	create *CreatePart
	spec   ActorSpec
	job    ids.Job
	tmpl   uint32 // of the creation; counted

	// The constructor's call, for as long as it may have to be made again.
	args  blob
	flags uint16
	refs  []uint32 // held; arguments first
	nDeps uint32
	bytes uint32

	left        int32  // restarts that it still may have; negative = without end
	task        uint32 // the creation under way
	ch          Chan   // who waits to hear that it is registered
	req         uint32
	registering bool
	lived       bool // some incarnation was alive
	handle      bool // somebody has a handle that counts
	killing     *actor.Death
	by          caller
	depth       uint8      // in the chain of calls
	past        []pastLife // incarnations that ended, the latest last
}

// pastLife is how an incarnation ended.
type pastLife struct {
	inc   uint32
	node  ids.NodeID
	pid   int
	death actor.Death
}

// maxPast is how many incarnations that ended are remembered of an actor.
const maxPast = 10

// ended remembers how an incarnation ended.
func (m *managed) ended(a *actorRec, death *actor.Death) {
	d := *death
	d.Pickled = nil
	if len(m.past) == maxPast {
		m.past = append(m.past[:0], m.past[1:]...)
	}
	p := pastLife{inc: a.inc, death: d}
	if a.state == actor.Alive { // else it was still being made
		p.node, p.pid = a.row.Node, a.row.PID
	}
	m.past = append(m.past, p)
}

// ActorSpec is what an ACTOR says of the actor, but for its name and class.
type ActorSpec struct {
	Detached, GetIfExists bool
	MaxRestarts           int32
	Meta                  []byte
}

// ActorCreation is a decoded ACTOR. Slices are valid during the call only.
type ActorCreation struct {
	Submission
	Spec                   ActorSpec
	Name, Namespace, Class string
	Body                   []byte
	Chan, Req              uint32
}

// StoredActor is what another daemon needs to take a detached actor over.
type StoredActor struct {
	Template  []byte // raw
	JobInfo   []byte // what workers must know of the job; the shell's
	Flags     uint16
	Deps      []ids.ObjectID
	Contained []ids.ObjectID
	Args      []byte
	Body      []byte
}

func ownerDied(what string) *actor.Death {
	return &actor.Death{Cause: actor.OwnerDied, ExitType: "INTENDED_SYSTEM_EXIT", Text: "The actor is dead because its owner has died. Owner: " + what + "."}
}

// CreateActor takes an actor that a client of this node creates; this daemon manages it.
func (e *Engine) CreateActor(sid SessionID, m *ActorCreation) {
	s := e.sessions[sid]
	if s == nil || e.overJobs[s.job] {
		return
	}
	tn, ok := s.templates[m.Template]
	switch {
	case !ok || e.templates[tn].spec.Actor == nil:
		e.refuse(s, fmt.Sprintf("actor: template %d was not registered on this stream, or creates no actor", m.Template))
		return
	case !e.templates[tn].spec.Resources.Fits(e.templates[tn].spec.Actor.Held):
		e.refuse(s, fmt.Sprintf("actor: template %d is placed with less than its actor holds", m.Template))
		return
	case !s.ownsID(m.Unique) || e.outputsTaken(m.Unique, 1) || e.actors[m.Unique] != nil:
		e.refuse(s, fmt.Sprintf("actor: %x is not an unused id of this session's blocks", uint64(m.Unique)))
		return
	}
	tm := e.templates[tn]
	tm.uses++
	id := m.Unique.Actor(s.job)
	a := e.actorOf(id)
	a.state = actor.Waiting
	a.row = actor.Row{
		ID: id, Job: s.job, Manager: e.cfg.Node, Name: m.Name, Namespace: m.Namespace, Class: m.Class, Detached: m.Spec.Detached,
		Labels: tm.spec.Labels.Map(), Fallback: resource.Maps(tm.spec.Fallback), Site: e.rec.sites[m.Unique], MaxRestarts: m.Spec.MaxRestarts, Meta: append([]byte(nil), m.Spec.Meta...), Resources: e.cfg.Names.Map(tm.spec.Actor.Held),
	}
	mg := &managed{
		create: &CreatePart{ID: id, Name: m.Name, Namespace: m.Namespace, Class: m.Class, Body: append([]byte(nil), m.Body...), Detached: m.Spec.Detached},
		spec:   m.Spec, job: s.job, tmpl: tn, args: e.blobs.put(m.Args), flags: m.Flags & flagArgsInDep, bytes: m.Bytes,
		left: m.Spec.MaxRestarts, handle: true, nDeps: uint32(len(m.Deps)),
	}
	mg.by, mg.depth = e.callerOf(s), e.depthBelow(s)
	a.mgr = mg
	e.credit(s.job, int64(m.Bytes))
	mg.refs = append(e.holdAll(m.Deps), e.holdAll(m.Contained)...)
	e.makeHandle(s, a)
	if s.worker != nil && s.worker.host != nil && !m.Spec.Detached {
		s.worker.host.makes(e, m.Unique)
	}
	if m.Name == "" && !m.Spec.Detached {
		e.startActor(a)
		return
	}
	mg.registering, mg.ch, mg.req = true, Chan{sid, m.Chan}, m.Req
	var stored *StoredActor
	if m.Spec.Detached {
		stored = &StoredActor{Template: tm.spec.Raw, Flags: mg.flags, Deps: m.Deps, Contained: m.Contained, Args: m.Args, Body: m.Body}
	}
	a.row.State = a.state
	row := a.row
	e.sink.RegisterActor(&row, m.Spec.GetIfExists, stored)
}

// makeHandle makes the object that counts an actor's handles, with one delivery to its creator.
func (e *Engine) makeHandle(s *session, a *actorRec) {
	i, o := e.create(a.id.Handle(), objPending)
	o.flags |= flagHandle
	e.claim(s, i, 1)
	if a.mgr.spec.Detached {
		e.hold(i) // until it is dead
	}
	e.setInline(i, 0, noneValue, nil)
}

// noneValue is a pickled None (docs/protocol.md, "Values").
var noneValue = []byte("\x00N.")

// ActorRegistered is the head's answer to RegisterActor. With text the head refused it.
func (e *Engine) ActorRegistered(u ids.Unique, created bool, row *actor.Row, kind fault.Kind, text string) {
	a := e.actors[u]
	if a == nil || a.mgr == nil || !a.mgr.registering {
		return
	}
	m := a.mgr
	m.registering = false
	if text != "" {
		e.sink.Fail(m.ch, m.req, kind, text)
		row := a.row
		e.notTaken(a)
		if kind != fault.NameTaken { // the head may have taken it, and its answer be lost
			row.State, row.Death = actor.Dead, actor.Death{Cause: actor.Killed, Text: text, Never: true}
			e.sink.ActorUpdate(&row)
		}
		return
	}
	e.sink.ActorReply(m.ch, m.req, created, row)
	if !created {
		e.notTaken(a)
		return
	}
	if m.spec.Detached {
		spec := e.templates[m.tmpl].spec
		spec.Job = row.Job
		tn := e.addTemplate(spec)
		e.templates[tn].uses++
		e.unuseTemplate(m.tmpl)
		m.tmpl = tn
		e.credit(m.job, -int64(m.bytes))
		m.bytes = 0
		m.job, a.row.Job = row.Job, row.Job
		e.jobOf(m.job)
	} else if e.sessions[m.ch.Session] == nil && m.killing == nil {
		m.killing = ownerDied("the process that had created it ended")
	}
	if m.killing != nil {
		e.actorDead(a, m.killing)
		return
	}
	e.startActor(a)
}

// notTaken forgets an actor that the head did not take.
func (e *Engine) notTaken(a *actorRec) {
	m := a.mgr
	e.releaseSpec(m)
	a.mgr = nil
	a.state, a.death = actor.Dead, actor.Death{Cause: actor.Killed, Text: "its name was taken", Never: true}
	if i := e.find(a.id.Handle()); i != 0 {
		if m.spec.Detached {
			e.unhold(i)
		}
		if s := e.sessions[m.ch.Session]; s != nil {
			e.unclaim(s, i, 1)
		}
	}
	e.pump(a)
	e.forgetActor(a)
}

// startActor makes an incarnation's creation, a task of ours.
func (e *Engine) startActor(a *actorRec) {
	m := a.mgr
	if e.overJobs[m.job] {
		e.actorDead(a, ownerDied("its job has ended"))
		return
	}
	tm := e.templates[m.tmpl]
	tm.uses++
	i, t := e.tasks.alloc()
	t.unique, t.job, t.tmpl, t.shape, t.flags = a.id.Unique(), m.job, m.tmpl, tm.shape, m.flags|flagCreation
	t.attempt, t.create, t.by, t.depth = a.inc, m.create, m.by, m.depth
	e.renew(t)
	if tm.spec.NoEvents {
		t.flags |= flagQuiet
	}
	e.jobOf(t.job).tasks++
	m.task = i
	if m.left == 0 { // it is made once: the call is the task's
		t.args, t.refs, t.nDeps, t.bytes = m.args, m.refs, m.nDeps, m.bytes
		m.args, m.refs, m.nDeps, m.bytes = blob{}, nil, 0, 0
	} else {
		t.args, t.nDeps = e.blobs.put(e.blobs.get(m.args)), m.nDeps
		t.refs = append([]uint32(nil), m.refs...)
		for _, r := range t.refs {
			e.hold(r)
		}
	}
	if !m.lived {
		a.state = actor.Waiting
	}
	e.awaitDeps(i, t) // tells if it need not wait
	if t.state == taskWaiting || m.lived {
		e.tellActor(a)
	}
}

// creationQueued notes that a constructor's arguments are there.
func (e *Engine) creationQueued(t *task) {
	if a := e.actors[t.unique]; a != nil && a.mgr != nil && a.state == actor.Waiting && a.mgr.task != 0 && e.tasks.at(a.mgr.task) == t {
		a.state = actor.Pending
		e.tellActor(a)
	}
}

// actorUp notes that an actor lives.
func (e *Engine) actorUp(a *actorRec, node NodeNo, up *ActorUp) {
	m := a.mgr
	m.task, m.lived = 0, true
	a.state, a.node = actor.Alive, node
	a.row.PID, a.row.Repr, a.row.Node = up.PID, up.Repr, e.cfg.Node
	if p := e.peers[node]; p != nil {
		a.row.Node = p.id
	}
	if m.left == 0 {
		e.releaseSpec(m)
	}
	e.tellActor(a)
	e.verdict(a)
	if m.killing != nil {
		e.stopIncarnation(a, m.killing, true)
	}
}

// lostCreation ends a creation of ours that came to nothing.
func (e *Engine) lostCreation(i uint32, t *task, death *actor.Death) {
	a := e.actors[t.unique]
	t.slot = 0
	e.record(t, deathKind(death), death.Text)
	e.endTask(i, t)
	if a != nil && a.mgr != nil && a.mgr.task == i {
		a.mgr.task = 0
		e.incarnationLost(a, death)
	}
}

// deathOf words the loss of a creation or an incarnation by its kind.
func deathOf(kind fault.Kind, why string) *actor.Death {
	d := workerDeath(kind, why)
	switch kind {
	case fault.Cancelled:
		d = ownerDied(why)
	case fault.Unschedulable, fault.StoreFull: // another attempt would wait for the same
		*d = actor.Death{Cause: actor.Unplaceable, ExitType: "INTENDED_SYSTEM_EXIT", Text: why, Never: true}
	case fault.RuntimeEnv:
		*d = actor.Death{Cause: actor.NoEnv, ExitType: "INTENDED_SYSTEM_EXIT", Text: why, Never: true}
	case fault.NodeDied:
		d.Cause, d.Text = actor.NodeDied, "The actor died because its node has died. "+why
	}
	return d
}

// workerDeath words the death of an actor's process.
func workerDeath(kind fault.Kind, why string) *actor.Death {
	exit := "SYSTEM_ERROR"
	if kind == fault.OutOfMemory {
		exit = "NODE_OUT_OF_MEMORY"
	}
	return &actor.Death{Cause: actor.WorkerDied, ExitType: exit, Text: "The actor is dead because its worker process has died. Worker exit type: " + exit + " Worker exit detail: " + why}
}

// incarnationLost decides what becomes of an actor whose incarnation, or whose making, has ended.
func (e *Engine) incarnationLost(a *actorRec, death *actor.Death) {
	m := a.mgr
	if m.killing != nil {
		death = m.killing
	}
	m.ended(a, death)
	final := m.killing != nil || m.left == 0 || e.overJobs[m.job]
	switch death.Cause {
	case actor.Exited, actor.InitFailed, actor.Unplaceable, actor.NoEnv, actor.OwnerDied:
		final = true
	}
	if final {
		e.actorDead(a, death)
		return
	}
	if m.left > 0 {
		m.left--
	}
	a.inc++
	a.node = NoNode
	if m.lived {
		a.state = actor.Restarting
	}
	e.startActor(a)
	e.verdict(a)
}

// actorDead ends an actor for ever: there is no process of it any more.
func (e *Engine) actorDead(a *actorRec, death *actor.Death) {
	m := a.mgr
	d := *death
	d.Never = d.Never || !m.lived && d.Cause != actor.InitFailed && d.Cause != actor.WorkerDied && d.Cause != actor.Exited
	a.state, a.death, a.node = actor.Dead, d, NoNode
	e.releaseSpec(m)
	e.tellActor(a)
	a.row.Meta, a.row.Dying = nil, false
	e.verdict(a)
	if m.spec.Detached {
		m.spec.Detached = false
		if i := e.find(a.id.Handle()); i != 0 && e.mine(a.id.Handle()) {
			e.unhold(i)
		}
	}
	if !m.handle {
		e.markActor(a)
		a.mgr = nil
		e.pump(a)
		e.forgetActor(a)
	}
}

// releaseSpec drops what was kept to create an actor anew.
func (e *Engine) releaseSpec(m *managed) {
	e.blobs.drop(m.args)
	m.args = blob{}
	for _, r := range m.refs {
		e.unhold(r)
	}
	m.refs, m.nDeps = nil, 0
	if m.bytes > 0 {
		e.credit(m.job, -int64(m.bytes))
		m.bytes = 0
	}
	if m.tmpl != 0 {
		e.unuseTemplate(m.tmpl)
		m.tmpl = 0
	}
	m.create = nil
}

// handleGone notes that nobody has a counted handle of an actor any more.
func (e *Engine) handleGone(id ids.ObjectID) {
	a := e.actors[id.Unique()]
	if a == nil || a.mgr == nil {
		return
	}
	a.mgr.handle = false
	if a.state == actor.Dead {
		a.mgr = nil
		e.forgetActor(a)
		return
	}
	e.stopActor(a, &actor.Death{Cause: actor.Unreferred, ExitType: "INTENDED_SYSTEM_EXIT", Text: "The actor is dead because all references to the actor were removed."}, true)
}

// forgetActor drops an actor's record, and the queues of callers that have no calls.
func (e *Engine) forgetActor(a *actorRec) {
	for _, q := range append([]*callq(nil), a.order...) {
		if q.idle() {
			e.dropQueue(q)
		}
	}
	e.dropActor(a)
}

// stopActor ends an actor for ever: at once, or when what it was sent is done.
func (e *Engine) stopActor(a *actorRec, death *actor.Death, graceful bool) {
	m := a.mgr
	if a.state == actor.Dead || m.killing != nil && graceful {
		return
	}
	m.killing = death
	if m.registering {
		return // it ends when the head has answered
	}
	if !a.row.Dying {
		a.row.Dying = true
		e.tellActor(a)
	}
	e.stopIncarnation(a, death, graceful)
}

// stopIncarnation ends the present incarnation, or its making.
func (e *Engine) stopIncarnation(a *actorRec, death *actor.Death, graceful bool) {
	m := a.mgr
	if m.task == 0 {
		switch {
		case a.state != actor.Alive:
		case a.node == 0 && a.host == nil: // its process has died in this very step: incarnationLost finds that it is to end
		case a.node == 0:
			e.stopHost(a.host, death, graceful)
		case e.peers[a.node] != nil:
			e.sink.Peer(a.node, &ActorStop{ID: a.id, Incarnation: a.inc, Death: *death, Graceful: graceful})
		}
		return
	}
	i := m.task
	t := e.tasks.at(i)
	switch t.state {
	case taskWaiting:
		e.unwaitDeps(i, t)
		e.lostCreation(i, t, death)
	case taskQueued:
		e.unqueue(t)
		e.lostCreation(i, t, death)
	case taskAway:
		e.sink.Peer(t.at, &ActorStop{ID: a.id, Incarnation: a.inc, Death: *death})
	default:
		e.stopHost(a.host, death, false)
	}
}

// KillActor is ray.kill; it is false if this daemon does not manage the actor.
func (e *Engine) KillActor(id ids.ActorID, noRestart bool) bool {
	a := e.actors[id.Unique()]
	if a == nil || a.mgr == nil {
		return false
	}
	death := &actor.Death{Cause: actor.Killed, ExitType: "INTENDED_SYSTEM_EXIT", Text: "The actor is dead because it was killed by `ray.kill`."}
	if noRestart || a.mgr.left == 0 {
		e.stopActor(a, death, false)
	} else if !a.mgr.registering && a.state != actor.Dead {
		e.stopIncarnation(a, death, false)
	}
	return true
}

// endActors ends the actors of a job that is over.
func (e *Engine) endActors(job ids.Job) {
	for _, u := range sortedKeys(e.actors) {
		a := e.actors[u]
		if a == nil {
			continue
		}
		death := ownerDied("job " + job.String() + " has ended")
		if a.host != nil && a.host.job == job && (a.mgr == nil || a.mgr.job != job) {
			e.stopHost(a.host, death, false)
		}
		if m := a.mgr; m != nil && m.job == job && !(m.registering && m.spec.Detached) { // that one gets a job of its own
			e.stopActor(a, death, false)
		}
	}
}

// AdoptActor makes this daemon the manager of a detached actor whose former one is dead. node is where it lives, NoNode
// for a node that is dead to us too.
func (e *Engine) AdoptActor(row *actor.Row, st *StoredActor, spec TemplateSpec, node NodeNo) {
	a := e.actorOf(row.ID)
	if a.mgr != nil {
		return
	}
	if a.state == actor.Dead { // this daemon saw its end
		a.row.Manager = e.cfg.Node
		e.tellActor(a)
		return
	}
	e.jobOf(row.Job)
	tn := e.addTemplate(spec)
	e.templates[tn].uses++
	a.row, a.inc = *row, row.Incarnation
	a.row.Manager = e.cfg.Node
	m := &managed{
		create: &CreatePart{ID: row.ID, Name: row.Name, Namespace: row.Namespace, Class: row.Class, Body: st.Body, Detached: true},
		spec:   ActorSpec{Detached: true, MaxRestarts: row.MaxRestarts}, job: row.Job, tmpl: tn, args: e.blobs.put(st.Args), flags: st.Flags,
		nDeps: uint32(len(st.Deps)), left: row.MaxRestarts, lived: row.State == actor.Alive || row.State == actor.Restarting,
	}
	if row.MaxRestarts >= 0 {
		m.left = max(row.MaxRestarts-int32(row.Incarnation), 0)
	}
	m.refs = append(e.holdAll(st.Deps), e.holdAll(st.Contained)...)
	e.claimAll(slices.Concat(st.Deps, st.Contained), NoNode)
	if a.watch {
		a.watch = false
		e.sink.WatchActor(a.id, false)
	}
	a.mgr = m
	switch {
	case row.State != actor.Alive:
		a.state = row.State
		if a.host != nil { // it was made here, of which its manager had not heard
			e.stopHost(a.host, ownerDied("its manager died"), false)
		} else {
			e.startActor(a)
		}
	case a.host != nil:
		a.host.mgr = 0
		a.state, a.node = actor.Alive, 0
		e.tellActor(a)
	case node != NoNode && e.peers[node] != nil:
		a.state, a.node = actor.Alive, node
		e.sink.Peer(node, &ActorMine{ID: a.id, Incarnation: a.inc})
		e.tellActor(a)
	default:
		a.state = actor.Alive
		e.incarnationLost(a, deathOf(fault.NodeDied, "Node Id: "+row.Node.String()))
	}
}

// receiveActor takes a message about actors.
func (e *Engine) receiveActor(p *peer, m Msg) {
	switch m := m.(type) {
	case *ActorStop:
		e.actorStop(p, m)
	case *ActorGone:
		if a := e.actors[m.ID.Unique()]; a != nil && a.mgr != nil && a.state == actor.Alive && a.inc == m.Incarnation && a.node == p.no {
			e.incarnationLost(a, &m.Death)
		}
	case *ActorMine:
		a := e.actors[m.ID.Unique()]
		if a != nil && a.host != nil && a.host.up && a.inc == m.Incarnation {
			a.host.mgr = p.no
			return
		}
		e.sink.Peer(p.no, &ActorGone{ID: m.ID, Incarnation: m.Incarnation, Death: *deathOf(fault.WorkerCrashed, "it was gone when its new manager asked")})
	}
}

// actorStop ends an actor here for its manager elsewhere.
func (e *Engine) actorStop(p *peer, m *ActorStop) {
	if a := e.actors[m.ID.Unique()]; a != nil && a.host != nil && a.host.inc == m.Incarnation && a.host.mgr == p.no {
		e.stopHost(a.host, &m.Death, m.Graceful)
		return
	}
	i := e.remoteRun[runKey{m.ID.Unique()}]
	if i == 0 {
		return // it is gone, and its end is on its way
	}
	if t := e.tasks.at(i); t.create != nil && t.owner == p.no && t.state == taskHeld {
		e.unlink(&p.held[t.shape].chain, t)
		e.sendDone(i, t, &TaskDone{Unique: t.unique, Attempt: t.attempt, Lost: string(fault.ActorDied), Why: m.Death.Text, Up: &ActorUp{Death: &m.Death}})
	}
}

// actorsOf sees to the actors that had to do with a node that is dead.
func (e *Engine) actorsOf(no NodeNo, id ids.NodeID, why string) {
	for _, u := range sortedKeys(e.actors) {
		a := e.actors[u]
		if a == nil {
			continue
		}
		if h := a.host; h != nil && h.mgr == no && h.task == 0 {
			if h.mgr = NoNode; h.own {
				e.watchActor(a) // the head says whether it goes on
			} else {
				e.stopHost(h, ownerDied("Owner Id: "+id.String()+", its node, died: "+why), false)
			}
		}
		if a.node != no || a.state != actor.Alive {
			continue
		}
		if a.mgr != nil {
			e.incarnationLost(a, deathOf(fault.NodeDied, "Node Id: "+id.String()+": "+why))
		} else {
			e.lostIncarnation(a)
		}
	}
}
