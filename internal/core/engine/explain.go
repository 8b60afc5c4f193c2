package engine

import (
	"fmt"
	"slices"

	"gray/internal/core/actor"
	"gray/internal/core/explain"
	"gray/internal/core/ids"
	"gray/internal/core/resource"
)

// How much of a kind a report lists.
const (
	maxVerdicts = 50
	maxMissing  = 20
	maxListed   = 50
)

// Explain tells all that this node's tables say of a task, an object or an actor; nil if they say nothing. It looks at all
// of them: people ask, not the hot path.
func (e *Engine) Explain(s explain.Subject) *explain.Report {
	w := &teller{e: e, steps: explainSteps}
	r := &explain.Report{Kind: s.Kind, ID: s.String(), Node: e.cfg.Node.String()}
	known := false
	switch s.Kind {
	case explain.Task:
		r.Job = s.Task.Job().String()
		known = w.aboutTask(r, s.Task)
	case explain.Object:
		r.Job = s.Object.Job().String()
		known = w.aboutObject(r, s.Object)
	case explain.Actor:
		r.Job = s.Actor.Job().String()
		known = w.aboutActor(r, s.Actor)
	}
	if !known {
		return nil
	}
	slices.SortFunc(r.Ask, func(a, b ids.NodeID) int { return slices.Compare(a[:], b[:]) })
	r.Ask = slices.Compact(r.Ask)
	return r
}

// findTask is the task with an id, or 0.
func (e *Engine) findTask(id ids.TaskID) (uint32, *task) {
	if i := e.find(id.Object(1)); i != 0 && e.objs.at(i).task != 0 {
		return e.objs.at(i).task, e.tasks.at(e.objs.at(i).task)
	}
	if i := e.remoteRun[runKey{id.Unique()}]; i != 0 {
		return i, e.tasks.at(i)
	}
	for i := uint32(1); i < e.tasks.limit(); i++ { // without outputs, or an actor's creation
		if t := e.tasks.at(i); t.state != taskNone && t.unique == id.Unique() {
			return i, t
		}
	}
	return 0, nil
}

func (w *teller) aboutTask(r *explain.Report, id ids.TaskID) bool {
	e := w.e
	i, t := e.findTask(id)
	if t == nil {
		return w.aboutEnded(r, id)
	}
	r.Name, r.Attempt = e.nameOf(t), t.attempt
	w.fillTask(r, i, t)
	return true
}

// aboutEnded tells of a task that has no record any more, by what it has left.
func (w *teller) aboutEnded(r *explain.Report, id ids.TaskID) bool {
	e := w.e
	for k := uint32(1); len(r.Returned) < maxMissing; k++ {
		i := e.find(id.Object(k))
		if i == 0 {
			break
		}
		o := e.objs.at(i)
		m := explain.Missing{ID: o.id.String(), State: o.state.String(), Why: fmt.Sprintf("%d bytes", o.size)}
		switch {
		case o.flags&flagPut != 0:
			m.Why = "it was put, not returned by a task"
		case o.ready() && o.status == statusError:
			m.Why = "the task failed: its value is an exception"
		}
		if tm := e.templates[o.tmpl]; o.tmpl != 0 && tm.spec.Job == id.Job() {
			r.Name = tm.spec.Name
		}
		if s := e.spread[i]; s != nil {
			w.askBorrowers(r, s)
		}
		r.Returned = append(r.Returned, m)
	}
	r.State, r.Why = "FINISHED", "it has ended; what it returned is still referenced"
	return len(r.Returned) > 0
}

// fillTask tells of a task that has a record here.
func (w *teller) fillTask(r *explain.Report, i uint32, t *task) {
	e := w.e
	r.State, r.Why = w.task(i, t, 0)
	r.Why = "it " + r.Why
	w.refer(r)
	if t.owner == 0 && t.create == nil {
		retries := t.retries
		r.Retries = &retries
	}
	if t.call != nil {
		r.Actor = t.call.a.id.String()
	} else if t.create != nil {
		r.Actor = t.create.ID.String()
	}
	switch t.state {
	case taskQueued:
		w.fillQueue(r, i, t)
	case taskHeld:
		q := e.peers[t.owner].held[t.shape]
		r.Queue = &explain.Queue{Place: w.place(&q.chain, i), Of: q.n, Jobs: 1, Tasks: q.n, Needs: e.cfg.Names.Format(e.templates[t.tmpl].spec.Resources)}
	case taskAway:
		if p := e.peers[t.at]; p != nil {
			r.RunsOn = p.id.String()
		}
	case taskFetching, taskAssigned, taskSent:
		r.RunsOn = e.cfg.Node.String()
		r.Seconds = e.runsFor(t).Seconds()
		if t.state == taskSent {
			r.PID = e.sink.PID(t.worker)
			w.blockedOn(r, e.sessions[t.worker])
		}
	}
	for _, d := range t.refs[:t.nDeps] {
		o := e.objs.at(d)
		if o.ready() && (o.local() || t.state != taskFetching) {
			continue
		}
		if len(r.Missing) == maxMissing {
			r.Notes = append(r.Notes, "further arguments are missing")
			break
		}
		r.Missing = append(r.Missing, w.missing(d))
	}
}

// missing is an object that somebody waits for.
func (w *teller) missing(i uint32) explain.Missing {
	m := explain.Missing{ID: w.e.objs.at(i).id.String()}
	w.ask = ids.NodeID{}
	m.State, m.Why = w.object(i, 1)
	if w.ask != (ids.NodeID{}) {
		m.Ask, m.On = w.ask.String(), w.on.String()
	}
	w.ask = ids.NodeID{}
	return m
}

// blockedOn lists what a worker's gets wait for.
func (w *teller) blockedOn(r *explain.Report, s *session) {
	if s == nil {
		return
	}
	for _, c := range sortedKeys(s.chans) {
		ch := s.chans[c]
		if ch.get == nil {
			continue
		}
		for _, i := range ch.get.want {
			if len(r.Blocked) == maxMissing {
				return
			}
			if !w.e.objs.at(i).local() {
				r.Blocked = append(r.Blocked, w.missing(i))
			}
		}
	}
}

// refer has the node asked that the last sentence ended with.
func (w *teller) refer(r *explain.Report) {
	if w.ask != (ids.NodeID{}) {
		r.Ask = append(r.Ask, w.ask)
		w.ask = ids.NodeID{}
	}
}

func (w *teller) fillQueue(r *explain.Report, i uint32, t *task) {
	e := w.e
	sh := e.shapes[t.shape]
	q := sh.queueOf(t.job)
	r.Queue = &explain.Queue{
		Place: w.place(&q.chain, i), Of: q.n, Jobs: len(sh.queues), Tasks: sh.backlog, Needs: e.cfg.Names.Format(sh.rs.Need), Strategy: placing(sh.rs),
	}
	if e.seen != e.loadSeq {
		e.seen = e.loadSeq
		e.seeSelf()
	}
	list, more := e.view.Verdicts(sh.rs, maxVerdicts)
	r.More = more
	for _, v := range list {
		x := explain.Verdict{Node: v.Node.String(), Why: v.Why}
		if v.Node == e.cfg.Node {
			x.Name = "the task's owner"
		} else if p := e.peers[e.peerIDs[v.Node]]; p != nil {
			x.Name = p.name
			if a := sh.away[p.no]; a != nil && a.asked > 0 {
				x.Why += fmt.Sprintf("; %d places were asked for there", a.asked)
			}
		}
		r.Nodes = append(r.Nodes, x)
	}
}

// placing words where a shape may run; "" is anywhere.
func placing(s *resource.Shape) string {
	text := ""
	add := func(part string) {
		if text != "" {
			text += ", "
		}
		text += part
	}
	switch s.Strategy.Kind {
	case resource.StrategySpread:
		add("SPREAD")
	case resource.StrategyNode:
		kind := "only"
		if s.Strategy.Soft {
			kind = "if possible"
		}
		add("on node " + s.Strategy.Node.String() + " " + kind)
	}
	for _, t := range s.Labels {
		add("label " + t.String())
	}
	for _, f := range s.Else {
		add("else")
		for _, t := range f.Labels {
			add("label " + t.String())
		}
	}
	return text
}

func (w *teller) aboutObject(r *explain.Report, id ids.ObjectID) bool {
	e := w.e
	i := e.find(id)
	if i == 0 {
		return false
	}
	o := e.objs.at(i)
	r.State, r.Why = w.object(i, 0)
	r.Size, r.Error = o.size, o.ready() && o.status == statusError
	if o.ready() {
		r.Why = e.madeBy(o) + "; " + r.Why
	}
	w.refer(r)
	if o.task != 0 {
		r.Name = e.nameOf(e.tasks.at(o.task))
	}
	if o.local() {
		r.Copies = append(r.Copies, explain.Copy{Node: e.cfg.Node.String(), Primary: o.flags&flagCopy == 0})
	}
	if s := e.spread[i]; s != nil {
		for _, c := range s.sources {
			if p := e.peers[c.node]; p != nil {
				r.Copies = append(r.Copies, explain.Copy{Node: p.id.String(), Primary: c.primary, Partial: !c.complete})
			}
		}
		w.askBorrowers(r, s)
	}
	node := e.cfg.Node.String()
	n := 0
	e.keepers(map[uint32]int{i: 0}, func(_ uint32, format string, args ...any) {
		if n++; n <= maxListed {
			r.Holders = append(r.Holders, explain.Holder{Node: node, What: fmt.Sprintf(format, args...)})
		}
	})
	if n > maxListed {
		r.Holders = append(r.Holders, explain.Holder{Node: node, What: fmt.Sprintf("and %d more", n-maxListed)})
	}
	w.waiters(r, o)
	for ti := uint32(1); ti < e.tasks.limit(); ti++ { // whoever runs a task that has it may hold it without a claim of its own
		if t := e.tasks.at(ti); t.state == taskAway && slices.Contains(t.refs, i) {
			if p := e.peers[t.at]; p != nil {
				r.Ask = append(r.Ask, p.id)
			}
		}
	}
	return true
}

func (w *teller) askBorrowers(r *explain.Report, s *spread) {
	for _, no := range sortedKeys(s.borrowers) {
		if p := w.e.peers[no]; p != nil {
			r.Ask = append(r.Ask, p.id)
		}
	}
	for _, c := range s.sources {
		if p := w.e.peers[c.node]; p != nil {
			r.Ask = append(r.Ask, p.id)
		}
	}
}

// waiters tells who waits for an object here.
func (w *teller) waiters(r *explain.Report, o *object) {
	e := w.e
	for n := o.waiters; n != 0 && len(r.Waiters) < maxListed; n = e.waiters.at(n).next {
		p := e.waiters.at(n)
		what := ""
		switch p.kind {
		case waitDep, waitRun:
			what = e.taskName(e.tasks.at(p.a)) + ", which has it as an argument"
		case waitGet, waitWatch, waitHere:
			call := "ray.get"
			if p.kind != waitGet {
				call = "ray.wait"
			}
			if s := e.sessions[SessionID(p.a)]; s != nil {
				what = call + " in " + e.process(s)
			}
		case waitPeer, waitAsk:
			if q := e.peers[NodeNo(p.a)]; q != nil {
				what = q.String()
				r.Ask = append(r.Ask, q.id)
			}
		}
		if what != "" {
			r.Waiters = append(r.Waiters, explain.Holder{Node: r.Node, What: what})
		}
	}
}

func (w *teller) aboutActor(r *explain.Report, id ids.ActorID) bool {
	e := w.e
	a := e.actors[id.Unique()]
	if a == nil {
		return false
	}
	row := a.row
	row.ID, row.State, row.Incarnation, row.Death = id, a.state, a.inc, a.death
	x := explain.OfRow(&row)
	x.Node = r.Node
	*r = *x
	if a.state == "" {
		r.State, r.Why = "UNKNOWN", "this node waits to hear from the head what became of it"
	}
	w.callers(r.Life, a)
	if h := a.host; h != nil {
		w.hosted(r, h)
	}
	if m := a.mgr; m != nil {
		w.managed(r, a, m)
	}
	return true
}

// callers tells which callers have calls that have not ended, as far as they are here.
func (w *teller) callers(l *explain.Life, a *actorRec) {
	e := w.e
	for _, q := range a.order {
		if q.idle() || len(l.Callers) == maxListed {
			continue
		}
		c := explain.Calls{Node: e.cfg.Node.String(), Group: q.key.group, Sent: q.sent, Waiting: q.n - q.sent + q.late.n}
		if p := e.peers[q.key.peer]; q.key.peer != 0 && p != nil {
			c.Caller = "a client of " + p.String()
		} else if s := e.sessions[SessionID(q.key.caller)]; s != nil {
			c.Caller = e.process(s)
		} else {
			c.Caller = "a process that is gone"
		}
		l.Callers = append(l.Callers, c)
	}
}

// hosted tells of an actor whose process is here.
func (w *teller) hosted(r *explain.Report, h *host) {
	e := w.e
	r.RunsOn = e.cfg.Node.String()
	if h.w != nil {
		r.PID = e.sink.PID(h.w.s.id)
		w.blockedOn(r, h.w.s)
	}
	for _, u := range sortedKeys(h.calls) {
		if len(r.Life.Running) == maxListed {
			break
		}
		t := e.tasks.at(h.calls[u])
		r.Life.Running = append(r.Life.Running, e.taskName(t)+" "+w.running(h.calls[u], t, 0))
	}
	switch {
	case h.task != 0:
		w.creation(r, h.task)
	case h.death != nil && !h.leaving:
		r.Why = "its process is being ended: " + h.death.Text
	case h.leaving || !h.since.IsZero():
		r.Why = fmt.Sprintf("it leaves when the %d calls that it was sent are done", len(h.calls))
	case h.up && len(h.calls) == 0:
		r.Why = "it lives, and no call is sent to it: it is idle"
	case h.up:
		r.Why = fmt.Sprintf("it lives and has %d calls", len(h.calls))
	}
}

// creation tells of the incarnation that is being made.
func (w *teller) creation(r *explain.Report, i uint32) {
	e := w.e
	t := e.tasks.at(i)
	c := &explain.Report{Kind: explain.Task, ID: e.taskID(t).String(), Name: e.templates[t.tmpl].spec.Name, Job: r.Job, Node: r.Node}
	w.fillTask(c, i, t)
	r.Ask = append(r.Ask, c.Ask...)
	r.Life.Creation = c
	r.Why = "its creation " + c.Why[len("it "):]
}

// managed tells of an actor that this node makes.
func (w *teller) managed(r *explain.Report, a *actorRec, m *managed) {
	e := w.e
	left := m.left
	if a.state != actor.Dead {
		r.Life.Left = &left
	}
	r.Life.Manager = e.cfg.Node.String()
	for k := range m.past {
		p := &m.past[k]
		r.Life.Past = append(r.Life.Past, *explain.PastOf(p.inc, p.node, p.pid, &p.death))
	}
	switch {
	case m.registering:
		r.Why = "the head has not answered its registration yet"
	case m.task != 0 && a.host == nil:
		w.creation(r, m.task)
	}
	if m.killing != nil && a.state != actor.Dead {
		r.Why += "; it is being ended: " + m.killing.Text
	}
	if p := e.peers[a.node]; a.state == actor.Alive && a.node != 0 && p != nil {
		r.Ask = append(r.Ask, p.id)
	}
}
