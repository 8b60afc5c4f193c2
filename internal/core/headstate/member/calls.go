package member

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"gray/internal/core/fault"
	"gray/internal/core/headstate"
)

// ask takes a call in. Its number stays the same when it is sent again on another link, so the head knows it again.
func (s *State) ask(now time.Duration, ev Asked) {
	if len(s.calls) >= s.cfg.MaxPending {
		s.out = append(s.out, CallDone{Tag: ev.Tag, Err: &fault.Error{
			Op: opName(ev.Call), Kind: fault.Limit, Ref: s.cfg.Head,
			Detail: fmt.Sprintf("%d calls wait for the head already, the limit; try again later", len(s.calls)),
		}})
		return
	}
	c := &call{tag: ev.Tag, call: ev.Call.Numbered(s.nextReq), asked: now, deadline: never}
	if ev.Timeout > 0 {
		c.deadline = now + ev.Timeout
	}
	s.calls[s.nextReq] = c
	s.tags[ev.Tag] = s.nextReq
	s.nextReq++
	s.due = min(s.due, s.until(c))
	if s.phase == Member {
		s.send(c.call)
	}
}

func (s *State) answer(a headstate.Answer) {
	c := s.calls[a.Number()]
	if c == nil {
		return // timed out, cancelled, or answered on an older link
	}
	done := CallDone{Tag: c.tag, Answer: a}
	if f, ok := a.(*headstate.Failed); ok {
		done = CallDone{Tag: c.tag, Err: &fault.Error{Op: opName(c.call), Kind: fault.Kind(f.Fault), Ref: s.cfg.Head, Detail: f.Error}}
	}
	s.drop(c)
	s.out = append(s.out, done)
}

func (s *State) drop(c *call) {
	delete(s.calls, c.call.Number())
	delete(s.tags, c.tag)
}

// until is when a call is given up.
func (s *State) until(c *call) time.Duration {
	if c.deadline == never || s.phase == Member {
		return c.deadline
	}
	return min(c.deadline, max(c.asked, s.awayAt)+awayPatience)
}

func (s *State) timeouts(now time.Duration) {
	s.due = never
	for _, req := range slices.Sorted(maps.Keys(s.calls)) {
		c := s.calls[req]
		if at := s.until(c); now < at {
			s.due = min(s.due, at)
			continue
		}
		detail := "the head did not answer"
		if s.phase != Member {
			detail = "the head is unreachable"
			if s.cause != "" {
				detail += " (" + s.cause + ")"
			}
		}
		s.drop(c)
		s.out = append(s.out, CallDone{Tag: c.tag, Err: &fault.Error{
			Op: opName(c.call), Kind: fault.System, Ref: s.cfg.Head,
			Detail: fmt.Sprintf("%s within %.1f s; check that the head runs (ray status) and that its address can be reached from here", detail, (now - c.asked).Seconds()),
		}})
	}
}

func (s *State) failAll() {
	for _, req := range slices.Sorted(maps.Keys(s.calls)) {
		c := s.calls[req]
		s.drop(c)
		s.out = append(s.out, CallDone{Tag: c.tag, Err: s.ended(c.call)})
	}
}
