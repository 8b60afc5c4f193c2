package node

import (
	"fmt"

	"gray/internal/core/engine"
	"gray/internal/core/extent"
	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/wire"
)

// sink carries an engine's effects out. Its methods run under Node.mu.
type sink struct{ n *Node }

// maxListed is how many contained ids go into the frame of a value; the rest goes ahead of it.
const maxListed = 16 << 10

func (s *sink) box(ch engine.Chan) *outbox {
	c := s.n.clients[ch.Session]
	if c == nil {
		return nil
	}
	o := c.chans[ch.Chan]
	if o != nil && !o.queued {
		o.queued = true
		s.n.dirty = append(s.n.dirty, o)
	}
	return o
}

// add appends one frame for a channel. An encoding error is a bug of ours: the bounds are checked before.
func (s *sink) add(ch engine.Chan, f func(b []byte) ([]byte, error)) int {
	o := s.box(ch)
	if o == nil {
		return 0
	}
	unread := o.add(func(b []byte) []byte {
		b, err := f(b)
		if err != nil {
			s.n.log.Error("a frame could not be encoded", "err", err)
		}
		return b
	})
	if unread > outboxMax {
		o.drop()
		s.Refuse(ch.Session, fault.Limit, fmt.Sprintf("the client asks on channel %d and does not read the answers: over %d bytes of them wait", ch.Chan, outboxMax))
	}
	return unread
}

func pack(list []ids.ObjectID) ids.List {
	if len(list) == 0 {
		return nil
	}
	l := make(ids.List, 0, len(list)*ids.ObjectSize)
	for i := range list {
		l = append(l, list[i][:]...)
	}
	return l
}

func (s *sink) Value(ch engine.Chan, req uint32, v engine.Value) int {
	m := wire.Value{Req: req, ID: v.ID, Status: wire.Status(v.Status), Value: v.Inline}
	if v.Arena {
		m.Where, m.Offset, m.Size = wire.Arena, v.Off, v.Size
	}
	list := v.Contained
	return s.add(ch, func(b []byte) ([]byte, error) {
		var err error
		if b, list, err = spill(b, v.ID, list); err != nil {
			return b, err
		}
		m.Contained = pack(list)
		return wire.AppendValue(b, &m)
	})
}

// spill sends ids that do not fit into one frame ahead, and returns the rest.
func spill(b []byte, id ids.ObjectID, list []ids.ObjectID) ([]byte, []ids.ObjectID, error) {
	var err error
	for len(list) > maxListed && err == nil {
		b, err = wire.AppendIDs(b, &wire.IDs{ID: id, Contained: pack(list[:maxListed])})
		list = list[maxListed:]
	}
	return b, list, err
}

func (s *sink) Ready(ch engine.Chan, req uint32, ready []ids.ObjectID) {
	for {
		k := min(len(ready), maxListed)
		s.add(ch, func(b []byte) ([]byte, error) {
			return wire.AppendReady(b, &wire.Ready{Req: req, IDs: pack(ready[:k])})
		})
		if ready = ready[k:]; len(ready) == 0 {
			return
		}
	}
}

func (s *sink) Created(ch engine.Chan, req uint32, off uint64) {
	s.add(ch, func(b []byte) ([]byte, error) { return wire.AppendCreated(b, wire.Created{Req: req, Offset: off}), nil })
}

func (s *sink) Done(ch engine.Chan, req uint32, cancelled bool) {
	code := wire.DoneAll
	if cancelled {
		code = wire.DoneCancelled
	}
	s.add(ch, func(b []byte) ([]byte, error) { return wire.AppendDone(b, wire.Done{Req: req, Code: code}), nil })
}

func (s *sink) Fail(ch engine.Chan, req uint32, kind fault.Kind, text string) {
	s.add(ch, func(b []byte) ([]byte, error) {
		m, err := wire.MarshalFault(&wire.Fault{Kind: kind, Error: text})
		if err != nil {
			return b, err
		}
		return wire.AppendError(b, &wire.Answer{Req: req, Map: m})
	})
}

// reply answers a CALL.
func (s *sink) reply(ch engine.Chan, req uint32, v any) {
	m, err := wire.Marshal(v)
	if err == nil && len(m) > wire.MaxFrame-16 {
		err = fmt.Errorf("the answer has %d bytes, a frame holds %d", len(m), wire.MaxFrame)
	}
	if err != nil {
		s.Fail(ch, req, fault.System, err.Error())
		return
	}
	s.add(ch, func(b []byte) ([]byte, error) { return wire.AppendReply(b, &wire.Answer{Req: req, Map: m}) })
}

func (s *sink) Credit(ch engine.Chan, req uint32, limit uint64) {
	s.reply(ch, req, map[string]uint64{"limit": limit})
}

func (s *sink) Items(ch engine.Chan, req uint32, stream ids.ObjectID, first uint32, ended bool, items []engine.Value) {
	m := wire.Items{Req: req, ID: stream, First: first}
	if ended {
		m.Ended = 1
	}
	h := &s.n.handed
	h.Reset()
	for k := range items {
		v := &items[k]
		o := wire.HandedItem{Status: wire.Status(v.Status), Contained: pack(v.Contained), Value: v.Inline}
		switch {
		case v.Arena:
			o.Where = wire.Arena
		case v.Away:
			o.Where = wire.Elsewhere
		}
		h.Append(&o)
	}
	m.List = *h
	s.add(ch, func(b []byte) ([]byte, error) { return wire.AppendItems(b, &m) })
}

func (s *sink) Refuse(sid engine.SessionID, kind fault.Kind, text string) {
	if c := s.n.clients[sid]; c != nil {
		s.n.after = append(s.n.after, func() { s.n.refuse(c, kind, text) })
	}
}

func (s *sink) StartWorker(sid engine.SessionID, preload string) { s.n.startWorker(sid, preload) }

func (s *sink) Setup(w engine.SessionID, setup engine.Setup) { s.n.setup(w, setup) }

func (s *sink) Template(w engine.SessionID, no uint32) {
	s.exec(w, func(b []byte) ([]byte, error) {
		return wire.AppendExecTemplate(b, &wire.Template{No: no, Map: s.n.eng.Template(no)})
	})
}

// exec sends a packet to a worker.
func (s *sink) exec(w engine.SessionID, f func(b []byte) ([]byte, error)) {
	c := s.n.clients[w]
	if c == nil || c.worker == nil {
		return // it is dying: WorkerGone follows
	}
	b, err := f(s.n.scratch[:0])
	if err != nil {
		s.n.log.Error("a frame for a worker could not be encoded", "err", err)
		return
	}
	s.n.scratch = b
	c.send(s.n, b)
}

func toWire(x *engine.Execute) *wire.Execute {
	m := &wire.Execute{
		Unique: x.Unique, Attempt: x.Attempt, Job: x.Job, Template: x.Template, NumReturns: x.Returns, Flags: x.Flags,
		Overrides: x.Overrides, Contained: pack(x.Contained), Args: x.Args,
	}
	for k := range x.Deps {
		d := &x.Deps[k]
		w := wire.Dep{ID: d.ID, Status: wire.Status(d.Status), Contained: pack(d.Contained), Size: uint64(len(d.Inline)), Value: d.Inline}
		if d.Arena {
			w.Where, w.Size, w.Offset = wire.Arena, d.Size, d.Off
		}
		m.Deps.Append(&w)
	}
	return m
}

func (s *sink) Execute(w engine.SessionID, x *engine.Execute) {
	s.exec(w, func(b []byte) ([]byte, error) { return wire.AppendExecute(b, toWire(x)) })
}

func (s *sink) ExecuteAt(w engine.SessionID, x *engine.Execute, off, size uint64) {
	body := wire.ExecuteBody(toWire(x))
	if uint64(len(body)) > size {
		panic(fmt.Sprintf("node: an EXECUTE of %d bytes was given room for %d", len(body), size))
	}
	copy(s.n.arena.Bytes(int64(off), int64(size)), body)
	s.exec(w, func(b []byte) ([]byte, error) {
		return wire.AppendExecuteAt(b, wire.ExecuteAt{Offset: off, Size: uint64(len(body))}), nil
	})
}

func (s *sink) TakeBack(w engine.SessionID) []ids.Unique {
	if c := s.n.clients[w]; c != nil && c.worker != nil {
		return c.takeBack(s.n)
	}
	return nil
}

func (s *sink) ExitWorker(w engine.SessionID) {
	s.exec(w, func(b []byte) ([]byte, error) { return wire.AppendExit(b, 0), nil })
}

func (s *sink) KillWorker(w engine.SessionID, _ string) {
	if c := s.n.clients[w]; c != nil && c.worker != nil {
		c.worker.Kill()
	}
}

func (s *sink) Commit(key uint64, at extent.Extent) engine.Commit {
	if at.Size <= quickCommit {
		if err := s.n.arena.Ensure(at); err != nil {
			s.Warn("the object store could not grow: " + err.Error())
			return engine.CommitFailed
		}
		return engine.CommitDone
	}
	s.n.after = append(s.n.after, func() {
		s.n.spawn(func() {
			err := s.n.arena.Ensure(at)
			if err != nil {
				s.n.warn("commit", "the object store could not grow: "+err.Error())
			}
			s.n.locked(func(e *engine.Engine) { e.Committed(key, err == nil) })
		})
	})
	return engine.CommitLater
}

// quickCommit is how many bytes of pages are made under the lock.
const quickCommit = 1 << 20

func (s *sink) Punch(at extent.Extent) {
	if err := s.n.arena.Punch(at); err != nil {
		s.n.after = append(s.n.after, func() { s.n.warn("punch", "free store pages could not be given back: "+err.Error()) })
	}
}

func (s *sink) ErrorValue(kind fault.Kind, text string) []byte {
	m, err := wire.MarshalFault(&wire.Fault{Kind: kind, Error: text})
	if err != nil {
		panic("node: an error cannot be encoded: " + err.Error())
	}
	return append([]byte{wire.FormatFault}, m...)
}

func (s *sink) Process(sid engine.SessionID) string {
	switch c := s.n.clients[sid]; {
	case c == nil:
		return "a process that is gone"
	case c.worker != nil:
		return fmt.Sprintf("worker %d", c.worker.Pid)
	default:
		return fmt.Sprintf("driver %d", c.pid)
	}
}

func (s *sink) Notice(job ids.Job, text string) {
	if j := s.n.jobs[job]; j != nil && j.forward {
		s.n.after = append(s.n.after, func() { s.n.sendLog(j.driver, &logNote{Job: job, Text: text}) })
	}
}

func (s *sink) Warn(text string) {
	s.n.after = append(s.n.after, func() { s.n.warn(text, text) })
}
