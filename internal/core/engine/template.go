package engine

import (
	"fmt"
	"slices"
	"time"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/core/resource"
)

// Strategy is how a task chooses its node.
type Strategy = resource.Strategy

// TemplateSpec is what is constant for a remote function.
type TemplateSpec struct {
	Raw        []byte // as the client sent it; handed on to workers and nodes
	Job        ids.Job
	Fn         ids.ObjectID // the function's body
	Name       string
	Func       string // as its module has it
	Resources  resource.Set
	MaxRetries int32
	Strategy   Strategy
	Labels     resource.Selector
	Fallback   []resource.Selector // tried in order where no node with Labels is free
	Env        string              // canonical; "" = the job's own
	MaxCalls   uint32
	// Preload is how its workers are forked: with modules, joined by commas, then variables, each after a zero byte; "" = as the node's own.
	Preload  string
	Packages string       // of Env: what must be unpacked here before its workers start; "" = nothing
	Method   string       // of an actor; then there is no Fn
	Group    string       // the method's concurrency group
	Ordered  bool         // calls of one caller run in their order
	Actor    *ActorLimits // of a template that creates an actor
	// Backpressure is how many items of its streams may be unread; 0 = as many as memory allows.
	Backpressure uint32
	NoEvents     bool // its attempts are not listed
}

// template is a registered TemplateSpec, one for each content.
type template struct {
	spec TemplateSpec
	key  string
	// workers names the workers that may run it, but for accelerators: its job's four bytes, then its environment.
	workers string
	shape   uint32
	fn      uint32 // held
	uses    int    // sessions and tasks
	mean    time.Duration
	kind    uint32            // in records.kinds
	overs   map[uint8]*over   // by the depth of calls
	known   map[NodeNo]uint32 // numbers under which other nodes were told
}

// RegisterTemplate gives a session's number to a template.
func (e *Engine) RegisterTemplate(sid SessionID, no uint32, spec TemplateSpec) {
	s := e.sessions[sid]
	if s == nil {
		return
	}
	if _, ok := s.templates[no]; ok || len(s.templates) >= maxTemplates {
		e.refuse(s, fmt.Sprintf("template: number %d is taken, or over %d are registered", no, maxTemplates))
		return
	}
	t := e.addTemplate(spec)
	e.templates[t].uses++
	s.templates[no] = t
}

const maxTemplates = 1 << 20

// DropTemplate ends a session's use of a number.
func (e *Engine) DropTemplate(sid SessionID, no uint32) {
	if s := e.sessions[sid]; s != nil {
		if t, ok := s.templates[no]; ok {
			delete(s.templates, no)
			e.unuseTemplate(t)
		}
	}
}

func (e *Engine) addTemplate(spec TemplateSpec) uint32 {
	key := string(spec.Job[:]) + string(spec.Raw)
	if t := e.tmplIndex[key]; t != 0 {
		return t
	}
	raw := append([]byte(nil), spec.Raw...)
	spec.Raw = raw
	tm := &template{spec: spec, key: key, workers: string(spec.Job[:]) + spec.Env, shape: e.shapeOf(&spec)}
	if spec.Fn != (ids.ObjectID{}) {
		tm.fn = e.know(spec.Fn)
		e.hold(tm.fn)
	}
	var t uint32
	if n := len(e.freeTmpl); n > 0 {
		t = e.freeTmpl[n-1]
		e.freeTmpl = e.freeTmpl[:n-1]
		e.templates[t] = tm
	} else {
		e.templates = append(e.templates, tm)
		t = uint32(len(e.templates) - 1)
	}
	e.tmplIndex[key] = t
	return t
}

// unuseTemplate counts one user less. A template without users stays for its job, so that a function called again soon
// is not sent to workers anew; endJob drops it.
func (e *Engine) unuseTemplate(t uint32) {
	tm := e.templates[t]
	tm.uses--
	if j := e.jobs[tm.spec.Job]; tm.uses == 0 && (j == nil || j.ended) {
		e.removeTemplate(t)
	}
}

// removeTemplate drops a template and frees its number. The workers that know it by that are of its job, and leave, but
// for those of actors that another job called; they, and other nodes, are told what the number means by then.
func (e *Engine) removeTemplate(t uint32) {
	tm := e.templates[t]
	if e.tmplIndex[tm.key] != t {
		return
	}
	delete(e.tmplIndex, tm.key)
	e.rec.dropKind(tm.kind)
	if tm.fn != 0 {
		e.unhold(tm.fn)
	}
	if tm.spec.Method != "" {
		for _, w := range e.pool.all {
			if w.host != nil {
				delete(w.known, t)
			}
		}
	}
	*tm = template{}
	e.freeTmpl = append(e.freeTmpl, t)
}

// Template is the raw content of a template, for a worker that does not know it.
func (e *Engine) Template(no uint32) []byte { return e.templates[no].spec.Raw }

// measure notes how long a task took, to tell how many to send ahead.
func (e *Engine) measure(w *worker, t *task) {
	d := e.now.Sub(w.headSince)
	w.headSince = e.now
	tm := e.templates[t.tmpl]
	if tm.mean == 0 {
		tm.mean = max(d, time.Microsecond)
		return
	}
	tm.mean += (d - tm.mean) / 8
	tm.mean = max(tm.mean, time.Microsecond)
}

// depth is how many tasks of a template a worker may have at once, the running one included: about a millisecond's worth.
func (e *Engine) depth(tm *template) int {
	if tm.mean == 0 || tm.spec.MaxCalls > 0 {
		return 1
	}
	return int(min(max(time.Millisecond/tm.mean, 1), 32))
}

// job is what the engine keeps of a job.
type job struct {
	id     ids.Job
	driver SessionID
	bytes  int64 // of unfinished submits and inline puts
	tasks  int
	ended  bool
	credit []creditWait
}

type creditWait struct {
	ch    Chan
	req   uint32
	total uint64
}

func (e *Engine) jobOf(id ids.Job) *job {
	j := e.jobs[id]
	if j == nil {
		j = &job{id: id}
		e.jobs[id] = j
	}
	return j
}

// credit changes the bytes that a job has unfinished here, and lets clients go on that wait for room.
func (e *Engine) credit(id ids.Job, n int64) {
	j := e.jobs[id]
	if j == nil {
		if n <= 0 || e.overJobs[id] {
			return
		}
		j = e.jobOf(id)
	}
	j.bytes += n
	if n < 0 && len(j.credit) > 0 && j.bytes <= e.cfg.Credit*3/4 {
		ws := j.credit
		j.credit = nil
		for _, w := range ws {
			e.NeedCredit(w.ch, w.req, w.total)
		}
	}
}

// NeedCredit answers a client that has sent total bytes with the total to which it may go, when there is room.
func (e *Engine) NeedCredit(c Chan, req uint32, total uint64) {
	s := e.sessions[c.Session]
	ch := e.channelOf(c.Session, c.Chan)
	if ch == nil {
		return
	}
	j := e.jobs[s.job]
	if j != nil && j.bytes > e.cfg.Credit*3/4 {
		j.credit = slices.DeleteFunc(j.credit, func(w creditWait) bool { return w.ch == c }) // a channel waits for one answer
		j.credit = append(j.credit, creditWait{c, req, total})
		if s.worker != nil && c.Chan == 0 {
			e.setBlocked(s.worker, true)
		}
		return
	}
	e.sink.Credit(c, req, total+uint64(e.cfg.Credit/4))
	e.noteBlocked(ch)
}

// endJob ends what a driver had going: its waiting tasks are cancelled, its workers go.
func (e *Engine) endJob(id ids.Job) {
	e.over(id)
	j := e.jobs[id]
	if j == nil || j.ended {
		return
	}
	j.ended, j.driver, j.credit = true, 0, nil
	e.endActors(id)
	for i := uint32(1); i < e.tasks.limit(); i++ {
		t := e.tasks.at(i)
		if t.state == taskNone || t.job != id {
			continue
		}
		switch {
		case t.create != nil && t.owner == 0:
			// endActors saw to it
		case t.call != nil && t.owner == 0:
			t.gone = true
			e.cancelCall(i, t, e.failure(fault.Cancelled, "the driver that had called it has ended"))
		case t.call != nil:
			// its owner takes it back, or is dead
		case t.owner == 0 && (t.state == taskQueued || t.state == taskWaiting):
			e.cancel(i, t, "the driver that had called it has ended")
		case t.owner == 0 && t.state == taskAway:
			t.gone = true
			e.sink.Peer(t.at, &TaskCancel{Unique: t.unique})
		case t.owner == 0 && (t.state == taskFetching || t.state == taskAssigned):
			e.stopFetching(i, t)
			slot := t.slot
			t.slot = 0
			e.failTask(i, t, fault.Cancelled, "the driver that had called it has ended")
			e.slotDone(slot, nil, nil)
		case t.owner != 0 && t.state != taskSent && e.peers[t.owner] != nil:
			e.cancelForeign(e.peers[t.owner], i, t)
		default:
			t.gone = true
		}
	}
	e.pool.endJob(e, id)
	for _, no := range sortedKeys(e.peers) {
		p := e.peers[no]
		for _, k := range sortedKeys(p.templates) {
			if t := p.templates[k]; e.templates[t].spec.Job == id {
				delete(p.templates, k)
				e.unuseTemplate(t)
			}
		}
	}
	for t := 1; t < len(e.templates); t++ {
		if tm := e.templates[t]; tm.spec.Job == id && tm.uses == 0 {
			e.removeTemplate(uint32(t))
		}
	}
	e.sweepShapes()
	if j.tasks == 0 {
		delete(e.jobs, id)
	}
}

// JobEnded says that a job's driver, on whatever node, has ended. What comes of it later, from nodes that have not heard
// so yet, is refused.
func (e *Engine) JobEnded(id ids.Job) { e.endJob(id) }

// JobOver tells whether a job is known to have ended.
func (e *Engine) JobOver(id ids.Job) bool { return e.overJobs[id] }

// over remembers an ended job, and forgets the oldest.
func (e *Engine) over(id ids.Job) {
	if e.overJobs[id] {
		return
	}
	e.overJobs[id] = true
	e.overList = append(e.overList, id)
	if len(e.overList) > maxOver {
		delete(e.overJobs, e.overList[0])
		e.overList = e.overList[1:]
	}
}

// maxOver is how many ended jobs are remembered.
const maxOver = 10_000
