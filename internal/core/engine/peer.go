package engine

import (
	"cmp"
	"slices"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/core/resource"
)

// peer is another daemon.
type peer struct {
	no        NodeNo
	id        ids.NodeID
	owner     ids.Owner
	name      string              // for people
	templates map[uint32]uint32   // its numbers → ours
	held      map[uint32]*queue   // its tasks here without a slot, by its shape number
	idle      map[uint32][]uint32 // slots granted to it that run nothing
	shapeRes  map[uint32]resource.Set
}

// ask is an owner's standing wish for slots here.
type ask struct {
	node   NodeNo
	theirs uint32
	res    resource.Set
	want   int
}

// PeerUp tells of another daemon of the cluster.
func (e *Engine) PeerUp(no NodeNo, id ids.NodeID, owner ids.Owner) {
	if e.peers[no] != nil {
		return
	}
	e.peers[no] = &peer{
		no: no, id: id, owner: owner, templates: map[uint32]uint32{}, held: map[uint32]*queue{},
		idle: map[uint32][]uint32{}, shapeRes: map[uint32]resource.Set{},
	}
	e.peerIDs[id] = no
	e.OwnerAt(owner, no)
}

// PeerNamed tells what people call a node.
func (e *Engine) PeerNamed(no NodeNo, name string) {
	if p := e.peers[no]; p != nil {
		p.name = name
	}
}

func (p *peer) String() string {
	if p.name == "" {
		return "node " + p.id.String()
	}
	return "node " + p.id.String() + " (" + p.name + ")"
}

// OwnerAt tells which node has an owner number.
func (e *Engine) OwnerAt(owner ids.Owner, no NodeNo) {
	e.owners[owner] = no
	delete(e.deadOwners, owner) // a number that somebody made up before it was given out
	waiting := e.lookups[owner]
	delete(e.lookups, owner)
	for _, i := range waiting {
		if f := e.foreign[i]; f != nil && e.objs.at(i).id.Owner() == owner {
			f.subscribed = false
			e.subscribe(i)
			if c := f.cancel; c != nil {
				f.cancel = nil
				e.cancelAtOwner(i, f, *c)
			}
		}
	}
	e.claimDue(owner, no)
	e.dirtyQ = true
}

// OwnerDead says that no node will ever answer for an owner number again.
func (e *Engine) OwnerDead(owner ids.Owner, why string) {
	delete(e.owners, owner)
	delete(e.lookups, owner)
	e.deadOwners[owner] = why
	for _, d := range e.dueClaims[owner] {
		e.claimAck(d.seq)
	}
	delete(e.dueClaims, owner)
	for _, i := range sortedKeys(e.foreign) {
		o := e.objs.at(i)
		if o.id.Owner() != owner {
			continue
		}
		f := e.foreign[i]
		f.claimed, f.cover, f.unsettled = false, 0, 0
		e.ownerLost(i, o, why)
		if o.holds == 0 {
			e.freeList = append(e.freeList, i)
		}
	}
}

// ownerLost makes an object whose owner died an error. A primary copy that we kept for the owner goes too.
func (e *Engine) ownerLost(i uint32, o *object, why string) {
	if o.flags&flagPrimary != 0 {
		o.flags &^= flagPrimary
		e.unhold(i)
	}
	switch o.state {
	case objCreating, objPending, objInline:
		return // its writer is being stopped; or the value is here whole
	case objArena:
		return // readers may go on; it is freed with the last of them
	}
	e.loseValue(i, fault.OwnerDied, "object "+o.id.String()+": its owner died: "+why)
}

// PeerGone says that a node was declared dead: everything that hung on it ends.
func (e *Engine) PeerGone(no NodeNo, why string) {
	p := e.peers[no]
	if p == nil {
		return
	}
	delete(e.peers, no)
	delete(e.peerIDs, p.id)
	for _, k := range sortedKeys(p.templates) {
		e.unuseTemplate(p.templates[k])
	}
	e.asks = slices.DeleteFunc(e.asks, func(a *ask) bool { return a.node == no })
	e.view.Remove(p.id)
	for _, sh := range e.shapes[1:] {
		if sh != nil {
			delete(sh.away, no)
		}
	}
	for _, q := range sortedKeys(p.idle) {
		for _, n := range p.idle[q] {
			e.freeSlot(n)
		}
	}
	e.OwnerDead(p.owner, p.String()+": "+why)
	e.actorsOf(no, p.id, why)
	for i := uint32(1); i < e.tasks.limit(); i++ {
		t := e.tasks.at(i)
		switch {
		case t.state == taskNone:
		case t.owner == no:
			e.dropForeignTask(i, t, "the node that owned it died: "+why)
		case t.state == taskAway && t.at == no && t.call != nil:
			inc := t.inc
			e.callBack(t)
			e.lostCall(i, t, inc)
		case t.state == taskAway && t.at == no && t.create != nil:
			delete(e.remoteRun, runKey{t.unique})
			t.at = 0
			e.lostCreation(i, t, deathOf(fault.NodeDied, "Node Id: "+p.id.String()+": "+why))
		case t.state == taskAway && t.at == no:
			delete(e.remoteRun, runKey{t.unique})
			t.at = 0 // for another attempt, or its failure
			e.crashed(i, t, fault.WorkerCrashed, p.String()+", which ran it, died: "+why)
		}
	}
	for _, i := range sortedKeys(e.spread) {
		s := e.spread[i]
		if s == nil {
			continue
		}
		e.dropCopy(i, s, no, p.String()+": "+why)
		if s.borrowers[no] {
			delete(s.borrowers, no)
			e.unhold(i)
		}
	}
	for _, u := range sortedKeys(e.keeps) {
		if k := e.keeps[u]; k.node == no {
			e.endKeep(u)
		}
	}
	e.endResultsOf(no)
	e.endAsksOf(no)
	for _, s := range sortedKeys(e.settles) {
		if st := e.settles[s]; st.with[s] == no {
			e.claimAck(s)
		}
	}
	e.dirtyQ = true
}

// dropForeignTask ends a task here whose owner is gone.
func (e *Engine) dropForeignTask(i uint32, t *task, why string) {
	switch t.state {
	case taskHeld:
		if p := e.peers[t.owner]; p != nil {
			if q := p.held[t.shape]; q != nil {
				e.unlink(&q.chain, t)
			}
		}
		e.endForeign(i, t)
	case taskOrdered:
		e.endForeign(i, t)
	case taskFetching, taskAssigned:
		if t.create != nil {
			e.stopHost(e.actors[t.create.ID.Unique()].host, ownerDied(why), false)
			return
		}
		e.stopFetching(i, t)
		if q := t.call; q != nil {
			e.endForeign(i, t)
			e.offer(q)
			return
		}
		e.pool.pending = slices.DeleteFunc(e.pool.pending, func(k uint32) bool { return k == i })
		slot := t.slot
		t.slot = 0
		e.endForeign(i, t)
		e.slotDone(slot, nil, nil)
	case taskSent:
		t.gone = true
		switch {
		case t.create != nil:
			e.stopHost(e.actors[t.create.ID.Unique()].host, ownerDied(why), false)
		case t.call != nil:
			e.sink.CancelRun(t.worker, t.unique, t.attempt, false)
		default:
			e.killFor(t, why)
		}
	}
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Receive takes a message from another daemon.
func (e *Engine) Receive(from NodeNo, m Msg) {
	p := e.peers[from]
	if p == nil {
		return // declared dead: whatever it still says is void
	}
	switch m := m.(type) {
	case *SlotAsk:
		e.slotAsk(p, m)
	case *SlotGrant:
		e.slotGrant(p, m)
	case *SlotReturn:
		for range m.N {
			e.returned(p, m.Shape)
		}
	case *TaskRun:
		e.taskRun(p, m)
	case *TaskDone:
		e.taskDone(p, m)
	case *TaskCancel:
		if i := e.remoteRun[runKey{m.Unique}]; i != 0 {
			switch t := e.tasks.at(i); {
			case t.owner != from:
			case m.Cancelled && t.create == nil:
				e.cancelledHere(i, t, Cancelling{m.Force, m.Recursive})
			default:
				e.cancelForeign(p, i, t)
			}
		}
	case *ActorStop, *ActorGone, *ActorMine:
		e.receiveActor(p, m)
	case *Settled:
		if k := e.keeps[m.Unique]; k != nil && k.node == from {
			e.endKeep(m.Unique)
		}
	case *ResultSettled:
		key := objKey{m.Unique, m.Index}
		if k := e.results[key]; k != nil && k.node == from {
			e.endResult(key)
		}
	case *StreamItem, *StreamAsk, *StreamCredit:
		e.receiveStream(p, m)
	default:
		e.receiveRef(p, m)
	}
}

// returned ends one of the slots of an owner's shape that run nothing.
func (e *Engine) returned(p *peer, shape uint32) {
	if l := p.idle[shape]; len(l) > 0 {
		p.idle[shape] = l[:len(l)-1]
		e.freeSlot(l[len(l)-1])
	}
}

// PeerTemplate takes a decoded TemplateMsg.
func (e *Engine) PeerTemplate(from NodeNo, no uint32, spec TemplateSpec) {
	p := e.peers[from]
	if p == nil {
		return
	}
	if old := p.templates[no]; old != 0 { // of a job that has ended, of which this node has not heard yet
		delete(p.templates, no)
		e.unuseTemplate(old)
	}
	if !e.overJobs[spec.Job] {
		e.jobOf(spec.Job) // it lives here too, until JobEnded
		t := e.addTemplate(spec)
		e.templates[t].uses++
		p.templates[no] = t
	}
}

// slotAsk notes how many slots an owner wants here.
func (e *Engine) slotAsk(p *peer, m *SlotAsk) {
	k := slices.IndexFunc(e.asks, func(a *ask) bool { return a.node == p.no && a.theirs == m.Shape })
	if m.Want <= 0 {
		if k >= 0 {
			e.asks = slices.Delete(e.asks, k, k+1)
		}
		return
	}
	res, err := e.cfg.Names.Set(m.Res)
	if err != nil {
		e.sink.Warn("node " + p.id.String() + " asks for slots: " + err.Error())
		return
	}
	p.shapeRes[m.Shape] = res
	if k >= 0 {
		e.asks[k].want = m.Want
	} else {
		e.asks = append(e.asks, &ask{node: p.no, theirs: m.Shape, res: res, want: m.Want})
	}
	e.dirtyQ = true
}

// grantAsks gives one slot to each owner that asks, and tells whether any got one.
func (e *Engine) grantAsks() bool {
	any := false
	if len(e.asks) == 0 || e.fenced {
		return false
	}
	for _, a := range slices.Clone(e.asks) {
		n, s := e.newSlot(a.res)
		if s == nil {
			continue
		}
		any = true
		s.owner, s.theirs = a.node, a.theirs
		p := e.peers[a.node]
		if q := p.held[a.theirs]; q != nil && q.n > 0 { // a task sent ahead needs it first
			i := q.head
			t := e.tasks.at(i)
			e.unlink(&q.chain, t)
			e.lowerAsk(a)
			e.runHere(i, t, n)
			continue
		}
		p.idle[a.theirs] = append(p.idle[a.theirs], n)
		e.lowerAsk(a)
		e.sink.Peer(a.node, &SlotGrant{Shape: a.theirs, N: 1})
	}
	return any
}

func (e *Engine) lowerAsk(a *ask) {
	if a.want--; a.want <= 0 {
		e.asks = slices.DeleteFunc(e.asks, func(b *ask) bool { return b == a })
	}
}

// taskRun takes a task of another owner.
func (e *Engine) taskRun(p *peer, m *TaskRun) {
	if a := e.actors[m.Unique]; a != nil && a.host != nil && m.Create != nil {
		a.host.next = &successor{p.no, m}
		return
	}
	i, t := e.tasks.alloc()
	t.unique, t.job, t.attempt, t.returns, t.flags = m.Unique, m.Job, m.Attempt, m.Returns, m.Flags
	t.owner, t.tmpl, t.depth = p.no, p.templates[m.Template], m.Depth
	if m.Actor == nil {
		t.shape, t.create = m.Shape, m.Create
	}
	if t.tmpl == 0 || m.Create != nil && e.templates[t.tmpl].spec.Actor == nil || e.remoteRun[runKey{m.Unique}] != 0 {
		done := &TaskDone{Unique: m.Unique, Attempt: m.Attempt, Lost: string(fault.System), Why: "the task names a template that was not sent, or runs here already"}
		if e.overJobs[m.Job] {
			done.Lost, done.Why = string(fault.Cancelled), "its job has ended"
		}
		e.sink.Peer(p.no, done)
		e.tasks.release(i)
		if m.Actor == nil {
			e.returned(p, m.Shape) // the answer ends the slot that the task came for
		}
		return
	}
	e.templates[t.tmpl].uses++
	e.remoteRun[runKey{m.Unique}] = i
	if t.flags&flagStream != 0 {
		t.returns = 1
		if e.yields == nil {
			e.yields = map[ids.Unique]*yield{}
		}
		e.yields[m.Unique] = &yield{made: m.Returns + 1}
	}
	t.args, t.over = e.blobs.put(m.Args), e.blobs.put(m.Over)
	t.nDeps = uint32(len(m.Deps))
	for k := range m.Deps {
		d := e.learn(p, &m.Deps[k], t)
		t.refs = append(t.refs, d)
	}
	for _, id := range m.Contained {
		t.refs = append(t.refs, e.cover(id, t))
	}
	for _, r := range t.refs {
		e.hold(r)
	}
	if m.Actor != nil {
		e.actorRun(p, i, t, m.Actor)
		return
	}
	e.toTask(t, taskHeld)
	if l := p.idle[m.Shape]; len(l) > 0 {
		p.idle[m.Shape] = l[:len(l)-1]
		e.runHere(i, t, l[len(l)-1])
		return
	}
	e.holdQueue(i, t, false)
}

// holdTask puts a foreign task back among those that wait here for a slot.
func (e *Engine) holdTask(i uint32, t *task, front bool) {
	e.toTask(t, taskHeld)
	e.holdQueue(i, t, front)
}

// holdQueue lines a foreign task up; it counts as its owner's wish for a slot.
func (e *Engine) holdQueue(i uint32, t *task, front bool) {
	p := e.peers[t.owner]
	q := p.held[t.shape]
	if q == nil {
		q = &queue{}
		p.held[t.shape] = q
	}
	e.push(q, i, t, front)
	for _, a := range e.asks {
		if a.node == t.owner && a.theirs == t.shape {
			a.want = max(a.want, q.n)
			e.dirtyQ = true
			return
		}
	}
	e.asks = append(e.asks, &ask{node: t.owner, theirs: t.shape, res: e.templates[t.tmpl].spec.Resources, want: q.n})
	e.dirtyQ = true
}

// cancelForeign stops a task whose owner does not want it any more, as its job has ended.
func (e *Engine) cancelForeign(p *peer, i uint32, t *task) {
	done := &TaskDone{Unique: t.unique, Attempt: t.attempt, Lost: string(fault.Cancelled), Why: "its job has ended"}
	if t.create != nil && t.state != taskHeld {
		e.dropForeignTask(i, t, "its job has ended")
		return
	}
	if t.call != nil && t.state == taskSent {
		e.sink.CancelRun(t.worker, t.unique, t.attempt, false)
		return
	}
	if t.state != taskSent {
		e.sink.Peer(p.no, done)
	}
	e.dropForeignTask(i, t, "its job has ended")
}

// collectOutputs readies a foreign task's outputs for its owner. Refs inside them are held here until it has claimed them.
func (e *Engine) collectOutputs(t *task, s *session, outs []Output, done *TaskDone) {
	task := e.taskID(t)
	done.Micros = uint32(max(e.us-t.started, 0))
	for k := range outs {
		id := task.Object(uint32(k + 1))
		if k > 0 && t.flags&flagStream != 0 {
			id = task.Object(e.yields[t.unique].made + 1)
		}
		done.Outputs = append(done.Outputs, e.collectOutput(t, s, id, &outs[k]))
	}
}

// collectOutput readies one output, or an item, of a foreign task.
func (e *Engine) collectOutput(t *task, s *session, id ids.ObjectID, out *Output) ObjInfo {
	info := ObjInfo{ID: id, Status: out.Status, Arena: out.Arena, Size: out.Size, Contained: slices.Clone(out.Contained)}
	i := e.find(id)
	switch {
	case out.Arena && i != 0 && e.objs.at(i).state == objCreating && s.wrote(i, e.objs.at(i), out):
		o := e.objs.at(i)
		o.size, o.status = out.Size, out.Status
		e.sealed(s, i, o, true)
		e.hold(i)                          // for the owner, until ObjFree
		e.freeList = append(e.freeList, i) // nobody else may want it here
		e.setContained(i, e.holdAll(out.Contained))
		e.wake(i)
	case out.Arena:
		info.Arena, info.Status = false, statusError
		info.Value = e.notWritten(id)
		if i != 0 && e.objs.at(i).state == objCreating {
			e.abortCreate(s, i)
		}
	default:
		info.Value = slices.Clone(out.Value)
		if i != 0 && e.objs.at(i).state == objCreating {
			e.abortCreate(s, i)
		}
	}
	if len(out.Contained) > 0 {
		key := objKey{t.unique, e.resultIndex(t, id)}
		r := e.results[key]
		if r == nil {
			r = &keep{node: t.owner}
			e.results[key] = r
		}
		r.refs = append(r.refs, e.holdAll(out.Contained)...)
	}
	return info
}

// resultIndex is under which index the executor keeps what an output contains: each item of a stream is settled for itself.
func (e *Engine) resultIndex(t *task, id ids.ObjectID) uint32 {
	if y := e.yields[t.unique]; y != nil && id.Index() > 1 && id.Index() <= y.made {
		return id.Index()
	}
	return 1
}

// sendDone answers a foreign task's owner and drops the task. Refs that stay in use here are claimed first.
func (e *Engine) sendDone(i uint32, t *task, done *TaskDone) {
	owner, unique := t.owner, t.unique
	kept := e.endForeign(i, t)
	if e.peers[owner] == nil {
		e.endResult(objKey{unique, 1})
		for k := range done.Outputs {
			e.ownerFreed(done.Outputs[k].ID)
		}
		return
	}
	done.Kept = e.claimKept(unique, owner, kept)
	e.sink.Peer(owner, done)
}

// endForeign drops the record of a foreign task and tells which of the refs it brought live on.
func (e *Engine) endForeign(i uint32, t *task) []ids.ObjectID {
	cov := e.covered[i]
	delete(e.covered, i)
	var list []ids.ObjectID
	for _, c := range cov {
		list = append(list, e.objs.at(c).id)
		if f := e.foreign[c]; f != nil && f.cover > 0 {
			f.cover--
		}
		e.freeList = append(e.freeList, c)
	}
	delete(e.remoteRun, runKey{t.unique})
	e.leaves(t)
	e.noted(t)
	if t.flags&flagStream != 0 {
		delete(e.yields, t.unique)
	}
	if t.call != nil {
		e.unlinkCall(i, t)
	}
	for _, r := range t.refs {
		e.unhold(r)
	}
	e.blobs.drop(t.args)
	e.blobs.drop(t.over)
	e.toTask(t, taskNone)
	e.unuseTemplate(t.tmpl)
	e.tasks.release(i)
	if len(list) == 0 {
		return nil
	}
	e.sweep()
	return slices.DeleteFunc(list, func(id ids.ObjectID) bool {
		i := e.find(id)
		f := e.foreign[i]
		if f == nil || f.claimed || f.cover > 0 {
			return true
		}
		o := e.objs.at(i) // a copy that is here for its owner only needs no claim
		return o.holds == 1 && o.flags&flagPrimary != 0 && f.unsettled == 0
	})
}
