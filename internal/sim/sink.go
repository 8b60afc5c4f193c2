package sim

import (
	"fmt"
	"slices"

	"gray/internal/core/engine"
	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/core/ids"
)

var _ engine.Sink = (*node)(nil)

// thread is the thread that reads a channel; nil when its process is dead.
func (n *node) thread(ch engine.Chan) *thread {
	p := n.procs[ch.Session]
	if p == nil || !p.alive {
		return nil
	}
	return p.threads[ch.Chan]
}

// tell sends something on a channel; f runs in the client when it arrives.
func (n *node) tell(ch engine.Chan, f func(t *thread)) {
	if t := n.thread(ch); t != nil {
		t.pipe.send(func() {
			n.w.hit()
			f(t)
			t.resume()
		})
	}
}

// Value sends a value. Now and then the client is said not to read.
func (n *node) Value(ch engine.Chan, req uint32, v engine.Value) int {
	t := n.thread(ch)
	if t == nil {
		return 0
	}
	c := copyVal(&v)
	n.w.tracef("node %d answers %v %d: %s %q", n.index, ch, req, short(c.id), c.errorKind())
	n.tell(ch, func(t *thread) {
		t.p.take(c)
		if t.cur != nil && t.cur.req == req {
			t.cur.vals = append(t.cur.vals, c)
		} else {
			t.p.discard(c)
		}
	})
	if n.w.chance(0.03) {
		n.w.tracef("session %d channel %d is said to be full", ch.Session, ch.Chan)
		n.w.after(n.w.delay(), func() { n.do(func(e *engine.Engine) { e.Drained(ch) }) })
		return 2 << 20
	}
	return len(v.Inline)
}

// Ready answers a wait.
func (n *node) Ready(ch engine.Chan, req uint32, ready []ids.ObjectID) {
	if len(ready) == 0 {
		n.w.failf("node %d: a wait was answered with nothing", n.index)
	}
	ready = slices.Clone(ready)
	n.tell(ch, func(t *thread) {
		for _, id := range ready {
			if t.watched[id] {
				t.ready[id] = true
			}
		}
		if t.cur != nil && t.cur.req == req {
			t.cur.done = true
		}
	})
}

// Created answers a create.
func (n *node) Created(ch engine.Chan, req uint32, off uint64) {
	n.tell(ch, func(t *thread) {
		if t.cur != nil && t.cur.req == req {
			t.cur.created, t.cur.off = true, off
		}
	})
}

// Done ends a get or a cancelled request.
func (n *node) Done(ch engine.Chan, req uint32, _ bool) {
	n.tell(ch, func(t *thread) {
		if t.cur != nil && t.cur.req == req {
			t.cur.done = true
		}
	})
}

// Fail refuses a request.
func (n *node) Fail(ch engine.Chan, req uint32, kind fault.Kind, text string) {
	n.w.tracef("node %d: request failed: %s: %s", n.index, kind, text)
	switch kind {
	case fault.StoreFull:
		n.w.Stats.Full++
	case fault.NameTaken:
	default:
		if n.w.Stats.HeadDeaths > 0 || n.w.fenced() || n.w.cfg.NodeDeath || n.w.over[n.procs[ch.Session].job] {
			break // the head was out of reach for too long, or the job has ended
		}
		n.w.failf("node %d: request failed: %s: %s", n.index, kind, text)
	}
	n.tell(ch, func(t *thread) {
		if t.cur != nil && t.cur.req == req {
			t.cur.failed, t.cur.done = kind, true
		}
	})
}

// Credit lets a client go on.
func (n *node) Credit(ch engine.Chan, req uint32, limit uint64) {
	n.tell(ch, func(t *thread) {
		if t.cur != nil && t.cur.req == req {
			t.cur.limit = limit
		}
	})
}

// Items hands over what a stream has.
func (n *node) Items(ch engine.Chan, req uint32, stream ids.ObjectID, first uint32, ended bool, items []engine.Value) {
	var list []*val
	for k := range items {
		c := copyVal(&items[k])
		if items[k].Arena || items[k].Away {
			c.arena, c.inline, c.away = false, nil, true
		}
		if c.id != stream.Task().Object(first+uint32(k)) {
			n.w.failf("node %d: item %d of %s is %s", n.index, first+uint32(k), short(stream), short(c.id))
		}
		list = append(list, c)
	}
	n.w.tracef("node %d hands over %s from %d: %d, ended %v", n.index, short(stream), first, len(list), ended)
	n.tell(ch, func(t *thread) {
		ours := t.cur != nil && t.cur.req == req
		if ours {
			t.cur.done, t.cur.ended = true, ended
		}
		for _, c := range list {
			t.p.deliver(c.id)
			if !c.away {
				t.p.discard(t.p.take(c))
			}
			if ours {
				t.cur.items = append(t.cur.items, c.id)
			} else {
				t.p.drop(c.id)
			}
		}
	})
}

// Refuse is never deserved here.
func (n *node) Refuse(s engine.SessionID, kind fault.Kind, text string) {
	n.w.failf("node %d: session %d was refused: %s: %s", n.index, s, kind, text)
}

// introduce names a client's process.
func (n *node) introduce(sid engine.SessionID) {
	n.do(func(e *engine.Engine) {
		id := engine.WorkerID(n.id)
		id[25], id[26], id[27] = byte(sid>>16), byte(sid>>8), byte(sid)
		e.Introduce(sid, id, int(sid))
	})
}

// StartWorker forks a worker; now and then that fails.
func (n *node) StartWorker(sid engine.SessionID, _ string) {
	w := n.w
	w.after(5*w.delay(), func() {
		w.hit()
		if w.faults && w.chance(w.cfg.Crash) {
			w.Stats.StartFails++
			n.do(func(e *engine.Engine) { e.WorkerFailed(sid, fault.RuntimeEnv, "no process could be started") })
			return
		}
		if !n.alive {
			return
		}
		p := w.newProc(n, sid, false)
		n.procs[sid] = p
		t := p.start(0, p.work)
		n.introduce(sid)
		n.do(func(e *engine.Engine) { e.WorkerStarted(sid) })
		t.resume()
	})
}

// push puts a packet on a worker's exec queue.
func (n *node) push(sid engine.SessionID, k *packet) {
	p := n.procs[sid]
	if p == nil || !p.alive {
		return
	}
	p.exec = append(p.exec, k)
	n.w.after(n.w.delay(), func() {
		if p.alive {
			p.threads[0].resume()
		}
	})
}

// Setup specialises a worker.
func (n *node) Setup(sid engine.SessionID, s engine.Setup) {
	if p := n.procs[sid]; p != nil {
		p.job, p.next = s.Job, s.IDs
		p.limit = uint64(n.w.cfg.Credit / 4)
		n.enter(p, s.Packages)
		if s.Actor != nil {
			p.embody(&s)
		}
	}
	n.push(sid, &packet{kind: packSetup})
}

// Template tells a worker a template.
func (n *node) Template(sid engine.SessionID, no uint32) {
	n.push(sid, &packet{kind: packTemplate, no: no})
}

// Execute sends a worker a task.
func (n *node) Execute(sid engine.SessionID, x *engine.Execute) {
	n.push(sid, &packet{kind: packExecute, x: copyExecute(x)})
}

// ExecuteAt sends a worker a task whose body lies in the arena.
func (n *node) ExecuteAt(sid engine.SessionID, x *engine.Execute, off, size uint64) {
	stamp := n.w.rng.Uint64()
	n.store.write(off, size, stamp)
	n.push(sid, &packet{kind: packExecute, x: copyExecute(x), at: off, size: size, stamp: stamp})
}

func copyExecute(x *engine.Execute) *execute {
	c := &execute{u: x.Unique, attempt: x.Attempt, tmpl: x.Template, returns: x.Returns, flags: x.Flags, stream: x.Flags&engine.FlagStream != 0, job: x.Job, contained: slices.Clone(x.Contained), args: slices.Clone(x.Args)}
	for k := range x.Deps {
		c.deps = append(c.deps, copyVal(&x.Deps[k]))
	}
	return c
}

// TakeBack withdraws what the worker has not received.
func (n *node) TakeBack(sid engine.SessionID) []ids.Unique {
	p := n.procs[sid]
	if p == nil {
		return nil
	}
	var back []ids.Unique
	p.exec = slices.DeleteFunc(p.exec, func(k *packet) bool {
		if k.kind == packExecute {
			back = append(back, k.x.u)
		}
		return k.kind == packExecute
	})
	return back
}

// ExitWorker lets a worker leave after what it has.
func (n *node) ExitWorker(sid engine.SessionID) { n.push(sid, &packet{kind: packExit}) }

// KillWorker ends a worker's process.
func (n *node) KillWorker(sid engine.SessionID, why string) {
	if p := n.procs[sid]; p != nil {
		n.w.tracef("node %d kills session %d: %s", n.index, sid, why)
		n.w.after(n.w.delay(), func() { p.kill(true) })
	}
}

// Peer sends a message to another daemon.
func (n *node) Peer(no engine.NodeNo, m engine.Msg) {
	o := n.byNo[no]
	if o == nil || n.dead[o.id] {
		return
	}
	l, dir := n.w.linkOf(n, o)
	l.send(dir, m)
}

// FindOwner asks the head who has an owner number.
func (n *node) FindOwner(o ids.Owner) {
	n.later = append(n.later, func() {
		n.call(&headstate.Lookup{Owner: o}, func(a headstate.Answer, err error) {
			if err != nil {
				n.w.tracef("node %d: lookup of owner %d: %v", n.index, o, err) // it has left
				return
			}
			r := a.(*headstate.Owned)
			n.do(func(e *engine.Engine) {
				if !r.Alive {
					e.OwnerDead(o, r.Message)
				} else if no := n.peer(r.Node, o); no != 0 {
					e.OwnerAt(o, no)
				}
			})
		})
	})
}

// Load reports to the head.
func (n *node) Load() {
	avail, queued, _ := n.eng.Load()
	n.later = append(n.later, func() { n.reportLoad(avail, queued) })
}

// ErrorValue is the value of an error.
func (n *node) ErrorValue(kind fault.Kind, text string) []byte { return errorValue(kind, text) }

// Warn is for the log.
// Process names a client.
func (n *node) Process(s engine.SessionID) string { return fmt.Sprintf("process %d", s) }

func (n *node) Warn(text string) { n.w.tracef("node %d: %s", n.index, text) }

func (n *node) Notice(job ids.Job, text string) {
	n.w.tracef("node %d to job %s: %s", n.index, job, text)
}
