// Package head is the head role of a daemon: the service around headstate's decisions, its stores, and what people are
// shown of the cluster.
//
// A Service's state belongs to one goroutine. Messages come in by Receive, which blocks while the inbox is full, so a
// flood is felt by the links that bring it; they go out by each daemon's Conn, whose Send must not block. Changes go to
// the Store, one batch under way and the next one gathering; what depends on them is held by headstate until they are
// safe. While the store fails (a full disk), the batch is tried again every second and the rest of the head works on.
package head

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/core/ids"
)

// Conn is an ordered link to a daemon.
type Conn interface {
	// Send queues a message and returns at once. The bytes may be shared with other links and must not be changed.
	Send(msg []byte)
	// Close ends the link.
	Close()
}

// Config is what a head needs. Zero values mean the defaults.
type Config struct {
	State headstate.Config // limits; Cluster and SessionName count only if the store is empty
	Store Store            // required
	Clock Clock
	Log   *slog.Logger
	Retry time.Duration // between two attempts at a batch that the store refused; default 1 s
}

// Service is a running head.
type Service struct {
	cfg   Config
	start time.Time
	inbox chan input
	tick  chan struct{}
	saved chan error
	stop  chan struct{} // closed by Close
	once  sync.Once
	done  chan struct{} // closed when run has returned
	err   error         // why; read after done

	cluster     headstate.ClusterID
	sessionName string

	// The rest belongs to run.
	state    *headstate.State
	fence    uint64
	conns    map[ids.NodeID]Conn
	armed    time.Duration // when tick is due
	disarm   func() bool
	ops      []headstate.Op // not yet given to the store
	opsSeq   uint64
	batch    []Op // given to the store, not yet safe
	batchSeq uint64
	saving   bool
	storeErr error
	toldAt   time.Duration
	retryAt  time.Duration
	lastMsg  headstate.Message
	lastEnc  []byte
	asked    map[uint64]*asking
	askSeq   uint64
	asks     atomic.Int32 // questions about tables under way
}

// input is one of: a message (of a link, if known), a link that is up (conn) or down (conn, down), a question.
type input struct {
	from  ids.NodeID
	msg   headstate.Message
	conn  Conn
	down  bool
	query func(now time.Duration)
}

const inboxSize = 4096

// Start loads the store and starts the head. The caller closes the store after Close.
func Start(cfg Config) (*Service, error) {
	if cfg.Clock == nil {
		cfg.Clock = SystemClock{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Retry == 0 {
		cfg.Retry = time.Second
	}
	s := &Service{
		cfg: cfg, start: cfg.Clock.Now(), inbox: make(chan input, inboxSize), tick: make(chan struct{}, 1),
		saved: make(chan error, 1), stop: make(chan struct{}), done: make(chan struct{}), conns: map[ids.NodeID]Conn{}, asked: map[uint64]*asking{},
		toldAt: -storeSayEvery,
	}
	if s.cfg.State.Cluster == (headstate.ClusterID{}) {
		if _, err := rand.Read(s.cfg.State.Cluster[:]); err != nil {
			return nil, &fault.Error{Op: "head.Start", Kind: fault.System, Detail: "the system gives no random bytes", Err: err}
		}
	}
	s.cfg.State.StartMs = s.start.UnixMilli()
	var records []headstate.Record
	fence, err := cfg.Store.LoadAll(func(key, value []byte) error {
		r, err := decodeRecord(key, value)
		records = append(records, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.fence = fence
	s.state, err = headstate.New(s.cfg.State, records)
	if err != nil {
		return nil, &fault.Error{Op: "head.Start", Kind: fault.System, Detail: "the store can't be used; move it away to start an empty cluster", Err: err}
	}
	s.cluster, s.sessionName = s.state.Cluster(), s.state.SessionName()
	go s.run()
	return s, nil
}

// Cluster is the cluster's id.
func (s *Service) Cluster() headstate.ClusterID { return s.cluster }

// SessionName is the cluster's session name: of its first head, if the store has outlived it.
func (s *Service) SessionName() string { return s.sessionName }

// Connect tells of a link to a daemon that has proved to be node; it replaces the node's former link.
func (s *Service) Connect(node ids.NodeID, c Conn) error {
	return s.enter(input{from: node, conn: c})
}

// Disconnect tells that a link is gone for good. It does nothing if c is no longer the node's link, or the head has
// ended.
func (s *Service) Disconnect(node ids.NodeID, c Conn) {
	_ = s.enter(input{from: node, conn: c, down: true}) // a head that has ended has no links to forget
}

// Receive takes in a message from a daemon. It blocks while the inbox is full. After an error the link should be
// closed: the daemon speaks another protocol, or the head has ended.
func (s *Service) Receive(from ids.NodeID, msg []byte) error { return s.ReceiveOn(from, nil, msg) }

// ReceiveOn is Receive for a message that came on the link c. It is dropped if c has been replaced by another link of
// the node: what was said there is said again on the new one, and old news must not follow new ones.
func (s *Service) ReceiveOn(from ids.NodeID, c Conn, msg []byte) error {
	m, err := DecodeToHead(msg)
	if err != nil {
		return err
	}
	return s.enter(input{from: from, conn: c, msg: m})
}

func (s *Service) enter(in input) error {
	select {
	case <-s.done: // first: the inbox may have room that nobody empties
		return s.ended()
	default:
	}
	select {
	case s.inbox <- in:
		return nil
	case <-s.done:
		return s.ended()
	}
}

func (s *Service) ended() error {
	return &fault.Error{Op: "head.Receive", Kind: fault.System, Detail: "the head has ended", Err: s.err}
}

// Done is closed when the head has ended, by Close or because it must (see Err).
func (s *Service) Done() <-chan struct{} { return s.done }

// Err tells why the head ended by itself; nil after Close. Valid once Done is closed.
func (s *Service) Err() error { return s.err }

// Close ends the head after what it decided is safe, and tells whether it is.
func (s *Service) Close() error {
	s.once.Do(func() { close(s.stop) })
	<-s.done
	return s.err
}

// query runs f on the head's goroutine.
func (s *Service) query(ctx context.Context, f func(now time.Duration)) error {
	ready := make(chan struct{})
	in := input{query: func(now time.Duration) { f(now); close(ready) }}
	select {
	case s.inbox <- in:
	case <-s.done:
		return s.ended()
	case <-ctx.Done():
		return &fault.Error{Op: "head.Query", Kind: fault.System, Detail: "the head is too busy to answer", Err: context.Cause(ctx)}
	}
	select {
	case <-ready:
		return nil
	case <-s.done:
		return s.ended()
	case <-ctx.Done():
		return &fault.Error{Op: "head.Query", Kind: fault.System, Detail: "the head is too busy to answer", Err: context.Cause(ctx)}
	}
}

func (s *Service) now() time.Duration { return s.cfg.Clock.Now().Sub(s.start) }

func (s *Service) run() {
	defer close(s.done)
	s.step(s.now(), headstate.Tick{})
	for {
		select {
		case in := <-s.inbox:
			s.take(in)
		case <-s.tick:
			s.disarm = nil
			now := s.now()
			if at, ok := s.state.Next(); ok && now >= at {
				s.step(now, headstate.Tick{})
			}
			s.retry()
		case err := <-s.saved:
			if !s.commit(err) {
				return
			}
		case <-s.stop:
			s.finish()
			return
		}
		s.arm()
	}
}

func (s *Service) take(in input) {
	switch {
	case in.query != nil:
		in.query(s.now())
	case in.msg != nil && in.conn != nil && s.conns[in.from] != in.conn:
	case in.msg != nil && s.takeState(in.from, in.msg):
	case in.msg != nil:
		s.step(s.now(), headstate.Received{From: in.from, Msg: in.msg})
	case in.down:
		if s.conns[in.from] == in.conn {
			delete(s.conns, in.from)
		}
	default:
		if old := s.conns[in.from]; old != nil && old != in.conn {
			old.Close()
		}
		s.conns[in.from] = in.conn
	}
}

func (s *Service) step(now time.Duration, ev headstate.Event) {
	for _, e := range s.state.Step(now, ev) {
		switch e := e.(type) {
		case headstate.Send:
			if c := s.conns[e.To]; c != nil {
				c.Send(s.encode(e.Msg))
			}
		case headstate.Persist:
			s.ops = append(s.ops, e.Ops...)
			s.opsSeq = e.Seq
		case headstate.Note:
			level := slog.LevelInfo
			if e.Warn {
				level = slog.LevelWarn
			}
			s.cfg.Log.Log(context.Background(), level, e.Text)
		}
	}
	if !s.saving && len(s.batch) == 0 {
		s.save()
	}
}

// encode encodes a message once for all who get it in one step.
func (s *Service) encode(m headstate.Message) []byte {
	if m != s.lastMsg {
		s.lastMsg, s.lastEnc = m, Encode(m)
	}
	return s.lastEnc
}

// arm sees to it that tick comes when the state or the store needs it.
func (s *Service) arm() {
	at, ok := s.state.Next()
	if len(s.batch) > 0 && !s.saving {
		if !ok || s.retryAt < at {
			at, ok = s.retryAt, true
		}
	}
	if !ok || s.disarm != nil && s.armed <= at {
		return
	}
	if s.disarm != nil {
		s.disarm()
	}
	s.armed = at
	s.disarm = s.cfg.Clock.AfterFunc(max(0, at-s.now()), func() {
		select {
		case s.tick <- struct{}{}:
		default: // one is waiting already
		}
	})
}
