// Package headstate decides what the head of a cluster knows and says: nodes and their leases, owner numbers, jobs,
// actors and their names, the key-value store and the view of free resources.
//
// State is pure: Step takes one event and the time since the head's start and returns what must now happen. It never
// blocks, never reads a clock, and the same events always give the same effects. One goroutine owns a State: the head's
// service loop. Time is monotonic and counted from the head's own start, so a head that comes back gives every node a
// whole lease to be heard in.
//
// Nothing leaves before it is safe: whatever depends on a change is held until the store says that the change is
// committed (Persisted). A head that crashes before that has told nobody.
//
// A node goes through these states (and no others; see transitions):
//
//	absent   --Register------> JOINING   until its record is committed; seen by nobody
//	JOINING  --Persisted-----> ALIVE
//	RESTORED --Register------> ALIVE     RESTORED: read from the store after the head came back
//	any      --Leave---------> DEAD      expected
//	ALIVE, RESTORED --silence> DEAD      unexpected; a dead node that speaks again is fenced
//	DEAD     --pruned--------> absent    when more than MaxDead newer ones are kept
//
// Actors are made and restarted by their managers, the daemons whose clients created them; the head keeps the names, tells
// those who watch an actor where it stands, and finds a new manager for a detached one. Only detached actors are stored:
// of the others the managers tell a head that comes back, which gives no answer of the kind "there is none" until it has
// heard all of them.
//
// Resources are in 1/10000, wall times in milliseconds of Unix time.
package headstate

import (
	"container/list"
	"fmt"
	"time"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
)

// Config sets a State's limits. The zero value of a field means its default.
type Config struct {
	Cluster     ClusterID // used if the store holds none yet
	SessionName string    // used if the store holds none yet
	StartMs     int64     // wall time of the head's start, for what people see
	Pods        bool      // nodes are pods, for what people are told of their deaths

	LeaseEvery time.Duration // default 1 s
	DeadAfter  time.Duration // default 10 s
	FlushEvery time.Duration // least time between two views to one subscriber; default 50 ms
	RowsPerSec int           // rows of the view sent to all subscribers together; default 1,000,000
	MaxDead    int           // dead nodes kept; default 1,000
	MaxEnded   int           // ended jobs kept; default 1,000

	MaxDeadActors int // dead actors kept; default 10,000

	MaxValue    int   // bytes of a key and its value; default 1 GiB
	MaxKV       int64 // bytes of all keys and values; default 4 GiB
	MaxKeys     int   // default 1,000,000
	MaxUnstored int64 // bytes of changes that wait for the store before new ones are refused; default 256 MiB more than MaxValue
}

func (c *Config) setDefaults() {
	def := func(p *time.Duration, d time.Duration) {
		if *p == 0 {
			*p = d
		}
	}
	num := func(p *int, n int) {
		if *p == 0 {
			*p = n
		}
	}
	def(&c.LeaseEvery, time.Second)
	def(&c.DeadAfter, 10*time.Second)
	def(&c.FlushEvery, 50*time.Millisecond)
	num(&c.RowsPerSec, 1_000_000)
	num(&c.MaxDead, 1000)
	num(&c.MaxEnded, 1000)
	num(&c.MaxDeadActors, 10_000)
	num(&c.MaxValue, 1<<30)
	num(&c.MaxKeys, 1_000_000)
	if c.MaxKV == 0 {
		c.MaxKV = 4 << 30
	}
	if c.MaxUnstored == 0 {
		c.MaxUnstored = int64(c.MaxValue) + 256<<20
	}
}

// Event is what happened: Received, Persisted or Tick.
type Event interface{ event() }

// Received is a message from a daemon that has proved to be From.
type Received struct {
	From ids.NodeID
	Msg  Message
}

// Persisted says that all batches up to Seq are committed.
type Persisted struct{ Seq uint64 }

// Tick says that the time that Next named has come. More ticks do no harm.
type Tick struct{}

func (Received) event()  {}
func (Persisted) event() {}
func (Tick) event()      {}

// Effect is what must happen now: Send, Persist or Note.
type Effect interface{ effect() }

// Send sends a message to a daemon, or drops it if the daemon has no link: it will register anew.
type Send struct {
	To  ids.NodeID
	Msg Message
}

// Persist commits a batch to the store, after those with a smaller Seq. Several may be committed at once.
type Persist struct {
	Seq uint64
	Ops []Op
}

// Note is for the head's log.
type Note struct {
	Warn bool
	Text string
}

func (Send) effect()    {}
func (Persist) effect() {}
func (Note) effect()    {}

// Op puts a record into the store, or deletes the record with the same key.
type Op struct {
	Rec    Record
	Delete bool
}

// Record is one of Meta, NodeRow, JobRow, KVRecord, ActorRecord and ActorSpec.
type Record interface{ record() }

// Meta is the one record of the cluster itself.
type Meta struct {
	Cluster     ClusterID
	SessionName string
	NextOwner   ids.Owner // never given out
	NextJob     uint32    // never given out
	OwnerMoves  uint64    // version of the owner map
}

// KVRecord is one key's record. By and Req name the put that made it, so that the same put sent twice is known.
type KVRecord struct {
	NS, Key string
	Value   []byte
	By      ids.NodeID
	Req     uint64
	Fresh   bool // the key was not there before the put
}

// ActorRecord is a detached actor's row.
type ActorRecord struct {
	Row      actor.Row
	Heard    bool // its manager has told of it since it registered it
	Adopting bool // its manager has not told of it since it should adopt it
}

// ActorSpec is what a daemon needs to make a detached actor; it stays as it was registered.
type ActorSpec struct {
	ID   ids.ActorID
	Spec []byte
}

func (*Meta) record()        {}
func (*NodeRow) record()     {}
func (*JobRow) record()      {}
func (*KVRecord) record()    {}
func (*ActorRecord) record() {}
func (*ActorSpec) record()   {}

// State is the head's state.
type State struct {
	cfg  Config
	meta Meta

	nodes    map[ids.NodeID]*node
	joined   *list.List // of *node, in the order in which they joined
	dead     *list.List // of *node, the longest dead first
	owners   map[ids.Owner]*node
	live     int           // nodes ALIVE or RESTORED
	restored int           // nodes RESTORED
	floor    time.Duration // no lease counts as older: the head's own pauses are not the nodes' silence
	scan     time.Duration // no lease ends before
	lastStep time.Duration

	jobs    map[ids.Job]*job
	jobKeys map[[16]byte]ids.Job
	ended   *list.List // of ids.Job, the longest ended first

	kv        map[string]*namespace
	kvBytes   int64
	kvKeys    int
	kvEmptied uint64 // last batch that emptied a namespace

	actors actors

	view view

	committed uint64 // batches up to this one are safe
	next      uint64 // number of the batch that this Step makes, if it makes one
	sizes     []int64
	unstored  int64 // bytes of batches that are not committed
	held      [][]heldItem
	ops       []Op
	out       []Effect
}

// heldItem waits for a commit: an effect, or a node that is let in.
type heldItem struct {
	effect Effect
	join   *node
	inv    Inventory
}

// New is the state of a head whose store holds records, in any order; it has none at a cluster's first start.
func New(cfg Config, records []Record) (*State, error) {
	cfg.setDefaults()
	s := &State{
		cfg: cfg, nodes: map[ids.NodeID]*node{}, owners: map[ids.Owner]*node{}, joined: list.New(), dead: list.New(),
		jobs: map[ids.Job]*job{}, jobKeys: map[[16]byte]ids.Job{}, ended: list.New(), kv: map[string]*namespace{},
		next: 1,
	}
	s.actors.init()
	s.view.init()
	if err := s.load(records); err != nil {
		return nil, err
	}
	return s, nil
}

// Cluster is the cluster's id.
func (s *State) Cluster() ClusterID { return s.meta.Cluster }

// SessionName is the cluster's session name.
func (s *State) SessionName() string { return s.meta.SessionName }

// Step takes one event in and gives the effects, which are valid until the next Step. now never goes back.
func (s *State) Step(now time.Duration, ev Event) []Effect {
	s.out = s.out[:0]
	if s.live > 0 && now-s.lastStep > stallAfter {
		s.floor = now
		s.note(true, "head: it stood still for %.1f s; all leases start anew", (now - s.lastStep).Seconds())
	}
	s.lastStep = now
	switch ev := ev.(type) {
	case Received:
		s.receive(now, ev.From, ev.Msg)
	case Persisted:
		s.persisted(now, ev.Seq)
	case Tick:
	default:
		panic(fmt.Sprintf("headstate: unknown event %T", ev))
	}
	if now >= s.scan {
		s.expire(now)
	}
	s.flush(now)
	s.tellWatchers(now)
	s.seal()
	return s.out
}

// stallAfter is how late a Step may come while nodes live (one is due every second) before the head blames itself.
const stallAfter = 3 * time.Second

// Next is the time of the next Tick that is needed, if any.
func (s *State) Next() (time.Duration, bool) {
	at, ok := s.view.due()
	if s.live > 0 {
		if t := s.lastStep + time.Second; !ok || t < at {
			at, ok = t, true
		}
	}
	return at, ok
}

// receive routes a message. Whatever a node says renews its lease on life; only what Lease gets answered lets the node
// count on it.
func (s *State) receive(now time.Duration, from ids.NodeID, msg Message) {
	if m, ok := msg.(*Register); ok {
		s.register(now, from, m)
		return
	}
	n := s.nodes[from]
	switch {
	case n == nil, n.state == Restored:
		if n != nil {
			n.heard = now
		}
		s.send(from, &RegisterAgain{})
		return
	case n.state == Joining:
		if _, ok := msg.(*Leave); !ok {
			s.note(true, "head: node %s sent %T before it was registered; it is ignored", from, msg)
			return
		}
	case n.state == Dead:
		s.refuseDead(n)
		return
	}
	n.heard = now
	switch m := msg.(type) {
	case *Lease:
		s.send(from, &LeaseAck{Seq: m.Seq})
	case *Leave:
		s.leave(now, n, m)
	case *Report:
		s.report(n, m)
	case *Subscribe:
		s.subscribe(n, m.On)
	case *ViewAck:
		s.viewAck(n, m.Version)
	case *ActorUpdate:
		s.actorUpdate(now, n, m.Row)
	case *ActorWatch:
		s.actorWatch(now, n, m)
	case Call:
		s.call(now, n, m)
	default:
		s.note(true, "head: node %s sent %T, which is not for a head; it is ignored", from, msg)
	}
}

func (s *State) call(now time.Duration, n *node, c Call) {
	if s.changes(c) && s.unstored > s.cfg.MaxUnstored {
		s.fail(n, c, faultLimit, "the head's store is %d bytes behind (limit %d): its disk is full or slow, see the head's log; try again later", s.unstored, s.cfg.MaxUnstored)
		return
	}
	switch m := c.(type) {
	case *KVGet:
		s.kvGet(n, m)
	case *KVPut:
		s.kvPut(n, m)
	case *KVDel:
		s.kvDel(n, m)
	case *KVExists:
		s.kvExists(n, m)
	case *KVList:
		s.kvList(n, m)
	case *JobStart:
		s.jobStart(now, n, m)
	case *JobEnd:
		s.jobEnd(now, n, m)
	case *Jobs:
		s.send(n.id(), &JobList{Req: m.Req, Jobs: s.JobRows()})
	case *Lookup:
		s.lookup(n, m)
	case *Nodes:
		s.send(n.id(), &NodeList{Req: m.Req, Nodes: s.NodeRows()})
	case *ActorRegister:
		s.actorRegister(now, n, m)
	case *ActorGet:
		s.actorGet(n, m)
	case *ActorList:
		s.sendAfter(s.actors.safe, n.id(), &ActorRows{Req: m.Req, Rows: s.ActorRows()})
	case *ActorNames:
		s.actorNames(n, m)
	case *ActorKill:
		s.actorKill(n, m)
	case *Totals:
		total, available := s.Totals()
		s.send(n.id(), &Total{Req: m.Req, Total: total, Available: available})
	}
}

func (s *State) changes(c Call) bool {
	switch c := c.(type) {
	case *KVPut, *KVDel, *JobStart, *JobEnd:
		return true
	case *ActorRegister:
		return c.Row.Detached
	}
	return false
}

const (
	faultLimit     = "limit"
	faultSystem    = "SYSTEM"
	faultNameTaken = "NAME_TAKEN"
)

func (s *State) send(to ids.NodeID, m Message) { s.out = append(s.out, Send{to, m}) }

func (s *State) fail(n *node, c Call, kind, format string, args ...any) {
	s.send(n.id(), &Failed{Req: c.Number(), Fault: kind, Error: fmt.Sprintf(format, args...)})
}

func (s *State) note(warn bool, format string, args ...any) {
	s.out = append(s.out, Note{warn, fmt.Sprintf(format, args...)})
}

func (s *State) put(r Record)    { s.ops = append(s.ops, Op{Rec: r}) }
func (s *State) remove(r Record) { s.ops = append(s.ops, Op{Rec: r, Delete: true}) }

func (s *State) putMeta() {
	m := s.meta
	s.put(&m)
}

// after holds an effect until batch seq is committed.
func (s *State) after(seq uint64, h heldItem) {
	if seq <= s.committed {
		if h.join != nil {
			panic("headstate: a join waits for a batch that is committed")
		}
		s.out = append(s.out, h.effect)
		return
	}
	i := int(seq - s.committed - 1)
	for len(s.held) <= i {
		s.held = append(s.held, nil)
	}
	s.held[i] = append(s.held[i], h)
}

func (s *State) sendAfter(seq uint64, to ids.NodeID, m Message) {
	s.after(seq, heldItem{effect: Send{to, m}})
}

// broadcastAfter tells all who are members when batch seq is committed.
func (s *State) broadcastAfter(seq uint64, m Message) {
	s.after(seq, heldItem{effect: broadcast{m}})
}

// broadcast is a Send to each live node at the time when it leaves the held queue.
type broadcast struct{ Msg Message }

func (broadcast) effect() {}

// seal makes the changes of this Step a batch.
func (s *State) seal() {
	if len(s.ops) == 0 {
		return
	}
	var size int64
	for _, op := range s.ops {
		size += 256
		switch r := op.Rec.(type) {
		case *KVRecord:
			size += int64(len(r.Value) + len(r.Key))
		case *ActorRecord:
			size += int64(len(r.Row.Meta) + len(r.Row.Death.Pickled))
		case *ActorSpec:
			size += int64(len(r.Spec))
		}
	}
	s.sizes = append(s.sizes, size)
	s.unstored += size
	s.out = append(s.out, Persist{Seq: s.next, Ops: s.ops})
	s.ops = nil
	s.next++
}

func (s *State) persisted(now time.Duration, seq uint64) {
	if seq >= s.next {
		panic(fmt.Sprintf("headstate: batch %d is committed, but the last one made is %d", seq, s.next-1))
	}
	for s.committed < seq {
		s.committed++
		s.unstored -= s.sizes[0]
		s.sizes = s.sizes[1:]
		if len(s.held) == 0 {
			continue
		}
		items := s.held[0]
		s.held = s.held[1:]
		for _, h := range items {
			if h.join != nil {
				s.letIn(now, h.join, h.inv)
				continue
			}
			b, ok := h.effect.(broadcast)
			if !ok {
				s.out = append(s.out, h.effect)
				continue
			}
			for e := s.joined.Front(); e != nil; e = e.Next() {
				if n := e.Value.(*node); n.state == Alive {
					s.send(n.id(), b.Msg)
				}
			}
		}
	}
}

func (s *State) wallMs(now time.Duration) int64 { return s.cfg.StartMs + now.Milliseconds() }
