// Package member decides what a node daemon says to the head of its cluster: it registers, renews its lease, reports its
// load, follows the cluster view and asks questions, over a link that may break and to a head that may restart.
//
// State is pure, as headstate.State is, and is its counterpart: Step takes one event and the time since the daemon's
// start and returns what must now happen.
//
// The lease: a renewal that the head acknowledged counts from when it was sent, so the daemon's clock of its lease is
// never behind the head's. When 8/10 of the head's patience are over the daemon must stop its workers (LeaseLost),
// before the head may declare it dead and have its work done elsewhere. One proof that nobody declares anybody dead is
// as good as a renewal: the head's machine answers that nobody listens on the head's port (HeadAbsent). A head that
// starts later gives every node a whole lease, so a daemon whose head is down, and only down, works on for ever.
package member

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"

	"gray/internal/core/actor"
	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/core/ids"
)

// Config sets a State's times. The zero value of a field means its default.
type Config struct {
	Node        ids.NodeID
	Head        string        // address of the head, for messages
	ReportEvery time.Duration // least time between two reports; default 100 ms
	MaxPending  int           // unanswered calls; default 10,000
	// AbsentLimit is how long a head may be absent before it is given up, where one that ends does not come back as it was,
	// such as in a pod. 0: never.
	AbsentLimit time.Duration
}

// Phase is where the daemon stands with the head.
type Phase string

// Phases. AWAY and MEMBER alternate as the link breaks and comes back; FENCED and GONE are final.
const (
	Away   Phase = "AWAY"   // no link, or not registered on it
	Member Phase = "MEMBER" // registered
	Fenced Phase = "FENCED" // refused for ever
	Gone   Phase = "GONE"   // left
)

var transitions = map[Phase][]Phase{
	Away:   {Away, Member, Fenced, Gone},
	Member: {Away, Member, Fenced, Gone},
	Fenced: nil,
	Gone:   nil,
}

// Event is what happened.
type Event interface{ event() }

type (
	// LinkUp: there is a link to a head's process that has heard nothing from us yet.
	LinkUp struct{}
	// LinkDown: what was said on the link may be lost.
	LinkDown struct{ Cause string }
	// HeadAbsent: just now the head's machine said that nobody listens on the head's port.
	HeadAbsent struct{}
	// Received is a message from the head.
	Received struct{ Msg headstate.Message }
	// Loaded is the daemon's present load.
	Loaded struct{ Report *headstate.Report }
	// Follow asks for the cluster view, or no longer.
	Follow struct{ On bool }
	// ActorTold is news of an actor that the daemon manages. It is lost while there is no link: the inventory of the next
	// registration has the same news. What comes after that inventory is told once the head has taken the daemon in.
	ActorTold struct{ Row actor.Row }
	// ActorWatched asks to be told of an actor's changes until it is dead, or no longer.
	ActorWatched struct {
		ID ids.ActorID
		On bool
	}
	// Asked is a call for the head. Its number is of no matter; CallDone names the tag. One without a Timeout waits for
	// ever, one that has one waits less while there is no head.
	Asked struct {
		Tag     uint64
		Call    headstate.Call
		Timeout time.Duration
	}
	// Cancelled: nobody waits for the call any more. No CallDone follows.
	Cancelled struct{ Tag uint64 }
	// Leaving ends the membership.
	Leaving struct{ Message string }
	// Tick says that the time that Next named has come.
	Tick struct{}
)

func (LinkUp) event()       {}
func (LinkDown) event()     {}
func (HeadAbsent) event()   {}
func (Received) event()     {}
func (Loaded) event()       {}
func (Follow) event()       {}
func (ActorTold) event()    {}
func (ActorWatched) event() {}
func (Asked) event()        {}
func (Cancelled) event()    {}
func (Leaving) event()      {}
func (Tick) event()         {}

// Effect is what must happen now.
type Effect interface{ effect() }

type (
	// Register sends a headstate.Register with the present inventory; Cluster and Owner are what goes into it.
	Register struct {
		Cluster headstate.ClusterID
		Owner   ids.Owner
	}
	// Send sends a message to the head.
	Send struct{ Msg headstate.Message }
	// Joined: the head took the daemon in, for the first time or again.
	Joined struct {
		First bool
		*headstate.Registered
	}
	// LeaseLost: stop the workers now; start nothing.
	LeaseLost struct{ Why string }
	// LeaseBack: workers may be started again.
	LeaseBack struct{}
	// Refused is final: the daemon must start afresh with a new node id, or end.
	Refused struct{ *headstate.Refused }
	// Left is final: the head knows that the daemon leaves.
	Left struct{}
	// Died: a node is dead.
	Died struct{ *headstate.NodeDead }
	// JobEnded: a job is over.
	JobEnded struct{ *headstate.JobEnded }
	// ActorChanged: where a watched actor stands. With a DEAD one its watch is over.
	ActorChanged struct{ Row actor.Row }
	// ActorDo: kill an actor that the daemon manages.
	ActorDo struct{ *headstate.ActorDo }
	// ActorAdopt: the daemon is the actor's manager from now on. It may come again.
	ActorAdopt struct{ *headstate.ActorAdopt }
	// ViewPut: a live node, with Info always set.
	ViewPut struct{ Node headstate.NodeView }
	// ViewDrop: the view no longer has the node.
	ViewDrop struct{ Node ids.NodeID }
	// CallDone ends a call, once.
	CallDone struct {
		Tag    uint64
		Answer headstate.Answer
		Err    error
	}
	// Note is for the daemon's log.
	Note struct {
		Warn bool
		Text string
	}
)

func (Register) effect()     {}
func (Send) effect()         {}
func (Joined) effect()       {}
func (LeaseLost) effect()    {}
func (LeaseBack) effect()    {}
func (Refused) effect()      {}
func (Left) effect()         {}
func (Died) effect()         {}
func (JobEnded) effect()     {}
func (ActorChanged) effect() {}
func (ActorDo) effect()      {}
func (ActorAdopt) effect()   {}
func (ViewPut) effect()      {}
func (ViewDrop) effect()     {}
func (CallDone) effect()     {}
func (Note) effect()         {}

// Times that are not the head's to set.
const (
	quietAfter  = 3 * time.Second // silence of the head before it is called unreachable
	quietEvery  = time.Minute     // how often that is said
	maxRenewals = 16              // unacknowledged renewals under way

	// awayPatience is how long a call that does not wait for ever waits for a head that is not there: long enough for one
	// that is being restarted, short enough for who wants to know.
	awayPatience = 4 * time.Second
)

// State is what a daemon knows of its membership.
type State struct {
	cfg   Config
	phase Phase
	link  bool
	cause string // why there is no link

	awayAt time.Duration // since when it is not MEMBER

	cluster     headstate.ClusterID
	owner       ids.Owner
	leaseEvery  time.Duration
	fenceAfter  time.Duration
	held        bool          // the lease
	from        time.Duration // what the lease counts from
	registering bool
	registerAt  time.Duration // when the oldest unanswered Register was sent
	renewals    []renewal
	renewSeq    uint64
	renewAt     time.Duration

	absent     time.Duration // since when the head's machine has said at each attempt that nobody listens; -1 = it has not
	absentLast time.Duration // when it said so last

	heard time.Duration // last word of the head
	quiet bool          // it was called unreachable
	sayAt time.Duration // when to say so (again)

	report   *headstate.Report
	unsent   bool
	reportAt time.Duration

	follow  bool
	version uint64
	view    map[ids.NodeID]headstate.NodeView

	watches map[ids.ActorID]struct{}  // told to each head
	news    map[ids.ActorID]actor.Row // since the inventory of the present registration

	leaving string // message of a Leave that is not answered
	calls   map[uint64]*call
	tags    map[uint64]uint64 // tag to number
	nextReq uint64
	due     time.Duration // no call's deadline is earlier

	out []Effect
}

type renewal struct {
	seq uint64
	at  time.Duration
}

type call struct {
	tag      uint64
	call     headstate.Call
	asked    time.Duration
	deadline time.Duration
}

// New is the state of a daemon that has never seen its head.
func New(cfg Config) *State {
	if cfg.ReportEvery == 0 {
		cfg.ReportEvery = 100 * time.Millisecond
	}
	if cfg.MaxPending == 0 {
		cfg.MaxPending = 10_000
	}
	return &State{
		cfg: cfg, phase: Away, cause: "no connection yet", sayAt: quietAfter,
		view: map[ids.NodeID]headstate.NodeView{}, calls: map[uint64]*call{}, tags: map[uint64]uint64{}, nextReq: 1,
		watches: map[ids.ActorID]struct{}{}, news: map[ids.ActorID]actor.Row{},
		absent: -1, due: never, reportAt: -cfg.ReportEvery,
	}
}

const never = time.Duration(1<<63 - 1)

// Phase is where the daemon stands.
func (s *State) Phase() Phase { return s.phase }

// Owner is the daemon's owner number, 0 before it is registered.
func (s *State) Owner() ids.Owner { return s.owner }

// HasLease tells whether workers may run.
func (s *State) HasLease() bool { return s.held }

// Step takes one event in and gives the effects, which are valid until the next Step. now never goes back.
func (s *State) Step(now time.Duration, ev Event) []Effect {
	s.out = s.out[:0]
	if s.final() {
		s.afterEnd(ev)
		return s.out
	}
	switch ev := ev.(type) {
	case LinkUp:
		s.link, s.cause, s.absent = true, "", -1
		s.away(now)
		s.register(now)
	case LinkDown:
		s.link, s.cause = false, ev.Cause
		s.away(now)
	case HeadAbsent:
		if s.link {
			break // about another attempt than the one that succeeded
		}
		s.cause = "nobody listens there"
		if s.held && now < s.fenceAt() {
			s.from = max(s.from, now)
		}
		s.giveUp(now)
	case Received:
		s.receive(now, ev.Msg)
	case Loaded:
		s.report, s.unsent = ev.Report, true
	case Follow:
		if s.follow != ev.On {
			s.follow = ev.On
			if s.phase == Member {
				s.send(&headstate.Subscribe{On: ev.On})
			}
		}
	case ActorTold:
		switch {
		case s.phase == Member:
			s.send(&headstate.ActorUpdate{Row: ev.Row})
		case s.link:
			s.news[ev.Row.ID] = ev.Row // the last is all that counts
		}
	case ActorWatched:
		s.watch(ev)
	case Asked:
		s.ask(now, ev)
	case Cancelled:
		if req, ok := s.tags[ev.Tag]; ok {
			delete(s.tags, ev.Tag)
			delete(s.calls, req)
		}
	case Leaving:
		s.leave(ev.Message)
	case Tick:
	default:
		panic(fmt.Sprintf("member: unknown event %T", ev))
	}
	if !s.final() {
		s.timers(now)
	}
	return s.out
}

// absentGap is how far apart two answers may be that nobody listens, to count as one absence: between them other attempts
// may have ended in other ways.
const absentGap = 3 * time.Second

// giveUp ends the membership when the head has been absent for too long.
func (s *State) giveUp(now time.Duration) {
	if s.absent < 0 || now-s.absentLast > absentGap {
		s.absent = now
	}
	s.absentLast = now
	if s.cfg.AbsentLimit == 0 || now-s.absent < s.cfg.AbsentLimit {
		return
	}
	s.refused(&headstate.Refused{
		Reason: headstate.RefusedEnded,
		Error:  fmt.Sprintf("the head at %s has ended: its connection broke, and for %.1f s nobody has listened there", s.cfg.Head, (now - s.absent).Seconds()),
	})
}

// refused ends the membership for ever.
func (s *State) refused(m *headstate.Refused) {
	s.to(Fenced)
	text := fmt.Sprintf("the head at %s refuses this daemon: %s", s.cfg.Head, m.Error)
	if m.Reason == headstate.RefusedEnded {
		text = "this cluster is over: " + m.Error
	}
	s.note(true, "%s", text)
	s.loseLease(text)
	s.out = append(s.out, Refused{m})
	s.failAll()
}

func (s *State) final() bool { return s.phase == Fenced || s.phase == Gone }

// afterEnd answers calls that nobody will answer.
func (s *State) afterEnd(ev Event) {
	if ev, ok := ev.(Asked); ok {
		s.out = append(s.out, CallDone{Tag: ev.Tag, Err: s.ended(ev.Call)})
	}
}

func (s *State) ended(c headstate.Call) error {
	why := "this daemon has left the cluster"
	if s.phase == Fenced {
		why = "this daemon is no longer a member of the cluster"
	}
	return &fault.Error{Op: opName(c), Kind: fault.NodeDied, Ref: s.cfg.Node.String(), Detail: why}
}

// opName is head.KVGet for a *headstate.KVGet.
func opName(c headstate.Call) string { return "head." + fmt.Sprintf("%T", c)[len("*headstate."):] }

func (s *State) to(p Phase) {
	if !slices.Contains(transitions[s.phase], p) {
		panic(fmt.Sprintf("member: can't go from %s to %s", s.phase, p))
	}
	s.phase = p
}

// away notes since when calls wait for nothing that answers.
func (s *State) away(now time.Duration) {
	if s.phase == Member {
		s.awayAt = now
		s.due = min(s.due, now+awayPatience)
	}
	s.to(Away)
}

func (s *State) send(m headstate.Message) { s.out = append(s.out, Send{m}) }

func (s *State) note(warn bool, format string, args ...any) {
	s.out = append(s.out, Note{warn, fmt.Sprintf(format, args...)})
}

func (s *State) register(now time.Duration) {
	if !s.registering {
		s.registering, s.registerAt = true, now
	}
	s.renewals = nil
	clear(s.news)
	s.out = append(s.out, Register{Cluster: s.cluster, Owner: s.owner})
}

func (s *State) receive(now time.Duration, msg headstate.Message) {
	if !s.link {
		return // from before the link was called broken
	}
	s.heard = now
	if s.quiet {
		s.quiet = false
		s.note(false, "the head at %s is back", s.cfg.Head)
	}
	s.sayAt = now + quietAfter
	switch m := msg.(type) {
	case *headstate.Registered:
		s.registered(now, m)
	case *headstate.RegisterAgain:
		if s.phase == Member {
			s.away(now)
			s.register(now)
		}
	case *headstate.Refused:
		s.refused(m)
	case *headstate.LeaseAck:
		for len(s.renewals) > 0 && s.renewals[0].seq <= m.Seq {
			if s.renewals[0].seq == m.Seq {
				s.renewed(now, s.renewals[0].at)
			}
			s.renewals = s.renewals[1:]
		}
	case *headstate.Left:
		s.to(Gone)
		s.held = false
		s.out = append(s.out, Left{})
		s.failAll()
	case *headstate.NodeDead:
		if _, ok := s.view[m.Node]; ok {
			delete(s.view, m.Node)
			s.out = append(s.out, ViewDrop{m.Node})
		}
		s.out = append(s.out, Died{m})
	case *headstate.JobEnded:
		s.out = append(s.out, JobEnded{m})
	case *headstate.ActorChanged:
		if m.Row.State == actor.Dead {
			delete(s.watches, m.Row.ID) // nothing can follow
		}
		s.out = append(s.out, ActorChanged{m.Row})
	case *headstate.ActorDo:
		s.out = append(s.out, ActorDo{m})
	case *headstate.ActorAdopt:
		s.out = append(s.out, ActorAdopt{m})
	case *headstate.Snapshot:
		s.snapshot(m)
	case *headstate.Delta:
		s.delta(m)
	case headstate.Answer:
		s.answer(m)
	default:
		s.note(true, "the head sent %T, which is not for a daemon; it is ignored", msg)
	}
}

func (s *State) registered(now time.Duration, m *headstate.Registered) {
	first := s.owner == 0
	if !first && (m.Cluster != s.cluster || m.Owner != s.owner) {
		// The head checks the inventory for this, so such an answer is older than the question.
		s.note(true, "the head's registration names owner number %d of another life; it is ignored", m.Owner)
		return
	}
	s.cluster, s.owner = m.Cluster, m.Owner
	s.leaseEvery = max(time.Duration(m.LeaseMs)*time.Millisecond, 10*time.Millisecond)
	s.fenceAfter = time.Duration(m.DeadMs) * time.Millisecond * 8 / 10
	s.to(Member)
	s.registering = false
	s.out = append(s.out, Joined{First: first, Registered: m})
	s.renewed(now, s.registerAt)
	s.renewAt = now // the next one at once: the registration may have taken long
	if s.leaving != "" {
		s.send(&headstate.Leave{Message: s.leaving})
		return
	}
	s.version = 0
	if s.follow {
		s.send(&headstate.Subscribe{On: true})
	}
	if s.report != nil {
		s.unsent, s.reportAt = true, now-s.cfg.ReportEvery
	}
	for _, id := range slices.SortedFunc(maps.Keys(s.news), compareActors) {
		s.send(&headstate.ActorUpdate{Row: s.news[id]})
	}
	clear(s.news)
	for _, id := range slices.SortedFunc(maps.Keys(s.watches), compareActors) {
		s.send(&headstate.ActorWatch{ID: id, On: true})
	}
	for _, req := range slices.Sorted(maps.Keys(s.calls)) {
		s.send(s.calls[req].call)
	}
}

func (s *State) watch(ev ActorWatched) {
	if _, on := s.watches[ev.ID]; on == ev.On {
		return
	}
	if ev.On {
		s.watches[ev.ID] = struct{}{}
	} else {
		delete(s.watches, ev.ID)
	}
	if s.phase == Member {
		s.send(&headstate.ActorWatch{ID: ev.ID, On: ev.On})
	}
}

func compareActors(a, b ids.ActorID) int { return bytes.Compare(a[:], b[:]) }

func (s *State) renewed(now, sent time.Duration) {
	s.from = max(s.from, sent)
	if !s.held && now < s.fenceAt() {
		s.held = true
		s.out = append(s.out, LeaseBack{})
	}
}

func (s *State) fenceAt() time.Duration { return s.from + s.fenceAfter }

func (s *State) loseLease(why string) {
	if s.held {
		s.held = false
		s.out = append(s.out, LeaseLost{Why: why})
	}
}

func (s *State) leave(message string) {
	if message == "" {
		message = "the daemon was stopped"
	}
	s.leaving = message
	if s.phase == Member {
		s.send(&headstate.Leave{Message: message})
	}
}

// timers does what is due and nothing else.
func (s *State) timers(now time.Duration) {
	if s.held && now >= s.fenceAt() {
		text := fmt.Sprintf("the head at %s acknowledged no renewal of the lease for %.1f s", s.cfg.Head, (now - s.from).Seconds())
		s.note(true, "%s: workers are stopped, their tasks are run again later or elsewhere", text)
		s.loseLease(text)
	}
	if s.phase == Member && now >= s.renewAt {
		s.renewAt = now + s.leaseEvery
		if len(s.renewals) < maxRenewals {
			s.renewSeq++
			s.renewals = append(s.renewals, renewal{s.renewSeq, now})
			s.send(&headstate.Lease{Seq: s.renewSeq})
		}
	}
	if s.unsent && s.phase == Member && now >= s.reportAt+s.cfg.ReportEvery {
		s.unsent, s.reportAt = false, now
		s.send(s.report)
	}
	if now >= s.sayAt {
		s.sayAt = now + quietEvery
		s.quiet = true
		cause := s.cause
		if s.link {
			cause = "it does not answer"
		}
		s.note(true, "the head at %s is unreachable, silent for %.0f s (%s); still trying", s.cfg.Head, (now - s.heard).Seconds(), cause)
	}
	if now >= s.due {
		s.timeouts(now)
	}
}

// Next is the time of the next Tick that is needed, if any.
func (s *State) Next() (time.Duration, bool) {
	if s.final() {
		return 0, false
	}
	at := min(s.due, s.sayAt)
	if s.held {
		at = min(at, s.fenceAt())
	}
	if s.phase == Member {
		at = min(at, s.renewAt)
		if s.unsent {
			at = min(at, s.reportAt+s.cfg.ReportEvery)
		}
	}
	return at, true
}
