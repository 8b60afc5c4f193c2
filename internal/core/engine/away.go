package engine

import (
	"fmt"
	"slices"
	"time"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/core/resource"
)

// slotGrant uses slots that another node granted, or returns them.
func (e *Engine) slotGrant(p *peer, m *SlotGrant) {
	if int(m.Shape) >= len(e.shapes) {
		return
	}
	sh := e.shapes[m.Shape]
	if sh == nil { // it was forgotten meanwhile
		e.sink.Peer(p.no, &SlotReturn{Shape: m.Shape, N: m.N})
		return
	}
	a := e.awayAt(sh, p.no)
	for k := range m.N {
		a.asked = max(a.asked-1, 0)
		meant := a.reserved > 0
		if meant {
			a.reserved--
			e.view.Unreserve(p.id, sh.rs.Need, 1)
		}
		a.slots++
		// An ask and a grant that crossed give more slots than were wanted.
		if !meant && sh.allMeant() || !e.sendNext(sh, p) {
			a.slots--
			e.sink.Peer(p.no, &SlotReturn{Shape: sh.no, N: m.N - k})
			e.dropAway(sh, p.no, a)
			return
		}
	}
	e.sendMore(sh, p)
}

func (e *Engine) awayAt(sh *shape, no NodeNo) *awaySlots {
	a := sh.away[no]
	if a == nil {
		a = &awaySlots{}
		sh.away[no] = a
	}
	return a
}

func (e *Engine) dropAway(sh *shape, no NodeNo, a *awaySlots) {
	if a.busy == 0 && a.asked == 0 {
		delete(sh.away, no)
	}
}

// allMeant tells whether all tasks of the shape that wait are meant for nodes that have not answered yet: a slot that is free
// again takes none of them, lest a node that is slow to answer gets nothing of what is to be spread.
func (sh *shape) allMeant() bool {
	if sh.rs.Strategy.Kind != resource.StrategySpread {
		return false
	}
	meant := 0
	for _, a := range sh.away {
		meant += a.reserved
	}
	return sh.backlog <= meant
}

// sendNext sends the shape's next task to a node that has a slot for it; false when none waits.
func (e *Engine) sendNext(sh *shape, p *peer) bool {
	if sh.backlog == 0 {
		return false
	}
	i, t := e.pop(sh)
	e.sendAway(p, sh, i, t)
	return true
}

// sendMore sends short tasks ahead, to hide the way there and back.
func (e *Engine) sendMore(sh *shape, p *peer) {
	a := e.awayAt(sh, p.no)
	for sh.backlog > 1 && a.busy > 0 && !sh.allMeant() {
		q := sh.queues[sh.turn%len(sh.queues)]
		tm := e.templates[e.tasks.at(q.head).tmpl]
		slots := max(a.slots, 1)
		if a.busy >= slots*e.depth(tm) || sh.backlog < slots {
			return
		}
		i, t := e.pop(sh)
		e.sendAway(p, sh, i, t)
	}
}

func (e *Engine) sendAway(p *peer, sh *shape, i uint32, t *task) {
	m := e.packRun(p, t)
	m.Shape, m.Create = sh.no, t.create
	e.toTask(t, taskAway)
	t.at = p.no
	e.remoteRun[runKey{t.unique}] = i
	e.awayAt(sh, p.no).busy++
	e.Counts.SentAway++
	e.Counts.Placed++
	sh.since, sh.stuck = e.now, ""
	e.sink.Peer(p.no, m)
}

// packRun builds a task's TaskRun for another node, which is told its template first.
func (e *Engine) packRun(p *peer, t *task) *TaskRun {
	tm := e.templates[t.tmpl]
	if _, ok := tm.known[p.no]; !ok {
		if tm.known == nil {
			tm.known = map[NodeNo]uint32{}
		}
		tm.known[p.no] = t.tmpl
		e.sink.Peer(p.no, &TemplateMsg{No: t.tmpl, Job: tm.spec.Job, Raw: tm.spec.Raw})
	}
	returns := t.returns
	if t.flags&flagStream != 0 {
		returns = e.itemsMade(t) - 1
	}
	m := &TaskRun{
		Unique: t.unique, Job: t.job, Attempt: t.attempt, Template: t.tmpl, Returns: returns, Flags: t.flags, Depth: t.depth,
		Over: slices.Clone(e.blobs.get(t.over)), Args: slices.Clone(e.blobs.get(t.args)),
	}
	for _, d := range t.refs[:t.nDeps] {
		m.Deps = append(m.Deps, e.info(d))
	}
	for _, c := range t.refs[t.nDeps:] {
		m.Contained = append(m.Contained, e.objs.at(c).id)
	}
	return m
}

// taskDone takes the end of a task of ours that ran elsewhere.
func (e *Engine) taskDone(p *peer, m *TaskDone) {
	i := e.remoteRun[runKey{m.Unique}]
	var t *task
	if i != 0 {
		t = e.tasks.at(i)
	}
	if t == nil || t.owner != 0 || t.at != p.no || t.attempt != m.Attempt || t.state != taskAway {
		return
	}
	if t.call != nil {
		e.callDone(p, i, t, m)
		return
	}
	sh := e.shapes[t.shape]
	a := e.awayAt(sh, p.no)
	a.busy = max(a.busy-1, 0)
	delete(e.remoteRun, runKey{m.Unique})
	t.at = 0
	e.heard(p, t, &m.Ran)
	tm := e.templates[t.tmpl]
	if d := time.Duration(m.Micros) * time.Microsecond; m.Lost == "" && t.create == nil {
		if tm.mean == 0 {
			tm.mean = max(d, time.Microsecond)
		} else {
			tm.mean = max(tm.mean+(d-tm.mean)/8, time.Microsecond)
		}
	}
	e.settleResult(p, m)
	switch {
	case t.create != nil:
		e.creationDone(p, i, t, m)
	case m.Lost != "":
		e.crashed(i, t, fault.Kind(m.Lost), m.Why+" (on "+p.String()+")")
	case m.Outcome == OutcomeRetry && t.retries != 0 && !t.gone:
		e.failedOnce(t, taskError, e.noted(t))
		e.retry(i, t)
	case !t.counts(len(m.Outputs)):
		e.failTask(i, t, fault.System, fmt.Sprintf("node %s returned %d outputs for a task with %d", p.id, len(m.Outputs), t.returns))
	default:
		e.recordResult(t, m.Outcome)
		e.takeOutputs(p, t, m)
		if len(m.Kept) > 0 { // its refs stay until the executor's claims on them are registered
			e.keeps[t.unique] = &keep{node: p.no, refs: t.refs}
			t.refs, t.nDeps = nil, 0
		}
		e.endTask(i, t)
	}
	e.nextAway(sh, p, a, m.Keep)
}

// creationDone takes the end of a creation of ours that ran elsewhere.
func (e *Engine) creationDone(p *peer, i uint32, t *task, m *TaskDone) {
	a := e.actors[t.unique]
	if m.Lost != "" || m.Up == nil {
		death := deathOf(fault.Kind(m.Lost), m.Why+" (on node "+p.id.String()+")")
		if m.Up != nil && m.Up.Death != nil {
			death = m.Up.Death
		}
		e.lostCreation(i, t, death)
		return
	}
	if len(m.Kept) > 0 {
		e.keeps[t.unique] = &keep{node: p.no, refs: t.refs}
		t.refs, t.nDeps = nil, 0
	}
	e.record(t, "", "")
	e.endTask(i, t)
	if a != nil && a.mgr != nil && a.mgr.task == i {
		e.actorUp(a, p.no, m.Up)
	}
}

// settleResult claims what the outputs contain and tells the executor when that is done.
func (e *Engine) settleResult(p *peer, m *TaskDone) {
	e.settleContained(p, m.Outputs, m.Unique, 1)
}

func (e *Engine) settleContained(p *peer, outs []ObjInfo, u ids.Unique, index uint32) {
	var list []ids.ObjectID
	any := false
	for k := range outs {
		for _, id := range outs[k].Contained {
			any = true
			if e.foreign[e.know(id)] != nil {
				list = append(list, id)
			}
		}
	}
	if !any {
		return
	}
	if st := e.claimAll(list, p.no); st != nil {
		st.node, st.msg = p.no, &ResultSettled{Unique: u, Index: index}
		return
	}
	e.sink.Peer(p.no, &ResultSettled{Unique: u, Index: index})
}

func (e *Engine) takeOutputs(p *peer, t *task, m *TaskDone) {
	if m.Outcome == OutcomeValues || m.Outcome == OutcomeLeaving {
		e.Counts.Finished++
	} else {
		e.Counts.Failed++
	}
	for k := range m.Outputs {
		if k > 0 && t.flags&flagStream != 0 {
			e.lastItem(t, func(i uint32, o *object) { e.takeOutput(p, i, o, &m.Outputs[k]) })
			continue
		}
		oi := e.output(t, uint32(k+1))
		o := e.objs.at(oi)
		o.task = 0
		e.takeOutput(p, oi, o, &m.Outputs[k])
		if o.holds == 0 {
			e.freeList = append(e.freeList, oi)
		}
	}
}

// takeOutput gives an object of ours the value that another node made.
func (e *Engine) takeOutput(p *peer, oi uint32, o *object, d *ObjInfo) {
	inner := e.holdAll(d.Contained)
	if d.Arena {
		o.status, o.size = d.Status, d.Size
		s := e.spreadOf(oi)
		s.sources = append(s.sources, source{node: p.no, complete: true, primary: true})
		e.setContained(oi, inner)
		e.to(oi, o, objElsewhere)
		e.wake(oi)
	} else {
		e.setInline(oi, d.Status, d.Value, inner)
	}
}

// nextAway uses a slot at another node again, or lets it go.
func (e *Engine) nextAway(sh *shape, p *peer, a *awaySlots, keep bool) {
	if keep && (sh.allMeant() || !e.sendNext(sh, p)) {
		e.sink.Peer(p.no, &SlotReturn{Shape: sh.no, N: 1})
		keep = false
	}
	if !keep {
		a.slots = max(a.slots-1, 0)
	}
	e.sendMore(sh, p)
	e.dropAway(sh, p.no, a)
	if sh.backlog > 0 {
		e.dirtyQ = true
	}
}
