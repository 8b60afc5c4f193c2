// Package headlink is a daemon's membership in its cluster: member's decisions, carried out.
//
// The daemon dials the head, again and again while there is no link, and tells the Client what happens: Up, Down,
// HeadAbsent, Receive. The Client registers, renews the lease, follows the view and answers calls. It owns one
// goroutine; all its methods may be called from any goroutine, and none of them waits for the network except those
// that take a context. What it learns it tells its Handler, in order, on its own goroutine.
package headlink

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"gray/internal/core/actor"
	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/core/headstate/member"
	"gray/internal/core/ids"
	"gray/internal/head"
)

// Handler is told what the daemon must know. Its methods must not block; typically they put an event into the daemon's
// own queue.
type Handler interface {
	// Inventory asks for what the daemon holds at this moment; reply may be called later, from any goroutine, once.
	// Cluster and Owner of the inventory are filled in by the Client.
	Inventory(reply func(headstate.Inventory))
	// Registered: the daemon is a member, for the first time or again (then some jobs and peers may be gone).
	Registered(first bool, r *headstate.Registered)
	// LeaseLost: the head may soon declare the daemon dead. Stop all workers at once, start none.
	LeaseLost(why string)
	// LeaseBack: the daemon is safe from that; the first time this comes with the first registration.
	LeaseBack()
	// Refused is final: the daemon must end, or start afresh with a new node id.
	Refused(r *headstate.Refused)
	// NodeDead: a node is dead, and its owner numbers with it.
	NodeDead(d *headstate.NodeDead)
	// JobEnded: end what runs for a job.
	JobEnded(j *headstate.JobEnded)
	// ActorChanged: where an actor stands that is watched (WatchActor). With a DEAD one its watch is over.
	ActorChanged(row actor.Row)
	// ActorDo: kill an actor that the daemon manages; noRestart: for ever.
	ActorDo(id ids.ActorID, noRestart bool)
	// ActorAdopt: the daemon is the manager of a detached actor from now on; spec is what its creator registered. It may
	// come again until the daemon has told of the actor (TellActor, or its inventory).
	ActorAdopt(row actor.Row, spec []byte)
	// StateAsked: the head asks for this daemon's part of a table; answer by TellState.
	StateAsked(ask *headstate.StateAsk)
	// ViewPut: a live node as the head sees it, Info included. Told only while the view is followed.
	ViewPut(n headstate.NodeView)
	// ViewDrop: the view no longer has a node.
	ViewDrop(id ids.NodeID)
}

// Config is what a Client needs. Zero values mean the defaults.
type Config struct {
	Node        headstate.NodeInfo
	Head        string  // address of the head, for messages
	Handler     Handler // required
	Clock       head.Clock
	Log         *slog.Logger
	ReportEvery time.Duration // least time between two reports; default 100 ms
	AbsentLimit time.Duration // how long the head may be absent before it is given up; 0: for ever
}

// Client is a daemon's membership.
type Client struct {
	cfg   Config
	start time.Time
	wake  chan struct{}
	stop  chan struct{} // closed by Close
	done  chan struct{} // closed when run has returned
	once  sync.Once

	joined     chan struct{} // closed at the first registration
	registered *headstate.Registered
	end        chan struct{} // closed when left or refused
	refused    *headstate.Refused

	mu    sync.Mutex
	queue []func()              // guarded by mu; bounded by what the protocol lets the head say and by member's limits
	tag   uint64                // guarded by mu
	waits map[uint64]answerFunc // guarded by mu
	over  bool                  // guarded by mu: run has ended or is about to

	// The rest belongs to run.
	state  *member.State
	conn   head.Conn
	links  uint64 // counts links, so that a late inventory goes to none but its own
	armed  time.Duration
	disarm func() bool
}

type answerFunc func(headstate.Answer, error)

// Start starts a membership; it does nothing before the first Up.
func Start(cfg Config) *Client {
	if cfg.Clock == nil {
		cfg.Clock = head.SystemClock{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	c := &Client{
		cfg: cfg, start: cfg.Clock.Now(), wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		joined: make(chan struct{}), end: make(chan struct{}), waits: map[uint64]answerFunc{},
		state: member.New(member.Config{Node: cfg.Node.ID, Head: cfg.Head, ReportEvery: cfg.ReportEvery, AbsentLimit: cfg.AbsentLimit}),
	}
	go c.run()
	return c
}

// Up tells of a link to the head, on which nothing has been said yet.
func (c *Client) Up(conn head.Conn) {
	c.do(func() {
		if c.conn != nil {
			c.conn.Close()
			c.step(member.LinkDown{Cause: "replaced by a new link"})
		}
		c.conn = conn
		c.links++
		c.step(member.LinkUp{})
	})
}

// Down tells that what was said on a link may be lost. It does nothing if conn is no longer the link.
func (c *Client) Down(conn head.Conn, cause string) {
	c.do(func() {
		if c.conn == conn {
			c.conn = nil
			c.step(member.LinkDown{Cause: cause})
		}
	})
}

// HeadAbsent tells that a dial was refused just now: the head's machine answers, and nobody listens on the head's port.
// Only that; a time-out or an unreachable network is no such proof.
func (c *Client) HeadAbsent() { c.do(func() { c.step(member.HeadAbsent{}) }) }

// Receive takes in a message from the head. After an error the link should be closed: the head speaks another protocol.
func (c *Client) Receive(msg []byte) error {
	m, err := head.DecodeToNode(msg)
	if err != nil {
		return err
	}
	if ask, ok := m.(*headstate.StateAsk); ok {
		c.do(func() { c.cfg.Handler.StateAsked(ask) })
		return nil
	}
	c.do(func() { c.step(member.Received{Msg: m}) })
	return nil
}

// Report sets the daemon's load; the newest is sent, at most one every Config.ReportEvery. r must not be changed after.
func (c *Client) Report(r *headstate.Report) { c.do(func() { c.step(member.Loaded{Report: r}) }) }

// Follow asks for the cluster view, or no longer. What was seen stays as it was when it is no longer followed.
func (c *Client) Follow(on bool) { c.do(func() { c.step(member.Follow{On: on}) }) }

// TellActor tells where an actor stands that the daemon manages. It is lost while the daemon is not registered: the
// inventory of the next registration says the same. row must not be changed after.
func (c *Client) TellActor(row actor.Row) { c.do(func() { c.step(member.ActorTold{Row: row}) }) }

// TellState answers StateAsked. It is lost with the link; the head asks nobody twice.
func (c *Client) TellState(m *headstate.StateTold) {
	c.do(func() {
		if c.conn != nil {
			c.conn.Send(head.Encode(m))
		}
	})
}

// WatchActor asks for ActorChanged, at once and whenever the actor changes until it is dead, or for no more of it. It
// lasts across lost links and restarts of the head.
func (c *Client) WatchActor(id ids.ActorID, on bool) {
	c.do(func() { c.step(member.ActorWatched{ID: id, On: on}) })
}

// Go sends a call; done is called once, on the Client's goroutine, and must not block. 0 waits for ever; a call that has a
// timeout is given up sooner when there is no head. cancel makes it likely that done is not called.
func (c *Client) Go(call headstate.Call, timeout time.Duration, done func(headstate.Answer, error)) (cancel func()) {
	c.mu.Lock()
	if c.over {
		c.mu.Unlock()
		done(nil, errClosed("head.Call"))
		return func() {}
	}
	c.tag++
	tag := c.tag
	c.waits[tag] = done
	c.mu.Unlock()
	c.do(func() { c.step(member.Asked{Tag: tag, Call: call, Timeout: timeout}) })
	return func() {
		c.mu.Lock()
		delete(c.waits, tag)
		c.mu.Unlock()
		c.do(func() { c.step(member.Cancelled{Tag: tag}) })
	}
}

func errClosed(op string) error {
	return &fault.Error{Op: op, Kind: fault.System, Detail: "this daemon is ending"}
}

// Joined waits for the first registration, and gives what the head said, or why it never will.
func (c *Client) Joined(ctx context.Context) (*headstate.Registered, error) {
	select {
	case <-c.joined:
		return c.registered, nil
	case <-c.end:
		return nil, c.ended()
	case <-c.done:
		return nil, errClosed("head.Join")
	case <-ctx.Done():
		return nil, &fault.Error{Op: "head.Join", Kind: fault.System, Ref: c.cfg.Head, Detail: "the head did not take this daemon in; check its address and that it runs", Err: context.Cause(ctx)}
	}
}

func (c *Client) ended() error {
	if c.refused == nil {
		return &fault.Error{Op: "head.Join", Kind: fault.NodeDied, Ref: c.cfg.Head, Detail: "this daemon has left the cluster"}
	}
	return &fault.Error{Op: "head.Join", Kind: fault.NodeDied, Ref: c.cfg.Head, Detail: c.refused.Error}
}

// Leave ends the membership and waits until the head has noted it. A daemon that has been refused has left already.
func (c *Client) Leave(ctx context.Context, message string) error {
	c.do(func() { c.step(member.Leaving{Message: message}) })
	select {
	case <-c.end:
		return nil
	case <-c.done:
		return errClosed("head.Leave")
	case <-ctx.Done():
		return &fault.Error{Op: "head.Leave", Kind: fault.System, Ref: c.cfg.Head, Detail: "the head did not answer; it will declare this daemon dead", Err: context.Cause(ctx)}
	}
}

// Close ends the Client's goroutine and its link; calls that wait fail.
func (c *Client) Close() {
	c.once.Do(func() { close(c.stop) })
	<-c.done
}

// do queues f for run.
func (c *Client) do(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return // Close answers what waits
	}
	c.queue = append(c.queue, f)
	select {
	case c.wake <- struct{}{}:
	default: // run is awake already
	}
}

func (c *Client) run() {
	defer c.finish()
	for {
		select {
		case <-c.stop:
			return
		case <-c.wake:
		}
		c.mu.Lock()
		queue := c.queue
		c.queue = nil
		c.mu.Unlock()
		for _, f := range queue {
			f()
		}
		c.arm()
	}
}

func (c *Client) finish() {
	if c.disarm != nil {
		c.disarm()
	}
	if c.conn != nil {
		c.conn.Close()
	}
	c.mu.Lock()
	c.over, c.queue = true, nil
	waits := c.waits
	c.waits = nil
	c.mu.Unlock()
	for _, done := range waits {
		done(nil, errClosed("head.Call"))
	}
	close(c.done)
}

func (c *Client) now() time.Duration { return c.cfg.Clock.Now().Sub(c.start) }

// arm sees to it that a Tick comes when the state needs it.
func (c *Client) arm() {
	at, ok := c.state.Next()
	if !ok || c.disarm != nil && c.armed <= at {
		return
	}
	if c.disarm != nil {
		c.disarm()
	}
	c.armed = at
	c.disarm = c.cfg.Clock.AfterFunc(max(0, at-c.now()), func() {
		c.do(func() {
			c.disarm = nil
			if at, ok := c.state.Next(); ok && c.now() >= at {
				c.step(member.Tick{})
			}
		})
	})
}

func (c *Client) step(ev member.Event) {
	h := c.cfg.Handler
	for _, e := range c.state.Step(c.now(), ev) {
		switch e := e.(type) {
		case member.Send:
			c.send(e.Msg)
		case member.Register:
			c.askInventory(e)
		case member.Joined:
			if e.First {
				c.registered = e.Registered
				close(c.joined)
			}
			h.Registered(e.First, e.Registered)
		case member.LeaseLost:
			h.LeaseLost(e.Why)
		case member.LeaseBack:
			h.LeaseBack()
		case member.Refused:
			c.refused = e.Refused
			close(c.end)
			h.Refused(e.Refused)
		case member.Left:
			close(c.end)
		case member.Died:
			h.NodeDead(e.NodeDead)
		case member.JobEnded:
			h.JobEnded(e.JobEnded)
		case member.ActorChanged:
			h.ActorChanged(e.Row)
		case member.ActorDo:
			h.ActorDo(e.ID, e.NoRestart)
		case member.ActorAdopt:
			h.ActorAdopt(e.Row, e.Spec)
		case member.ViewPut:
			h.ViewPut(e.Node)
		case member.ViewDrop:
			h.ViewDrop(e.Node)
		case member.CallDone:
			c.mu.Lock()
			done := c.waits[e.Tag]
			delete(c.waits, e.Tag)
			c.mu.Unlock()
			if done != nil {
				done(e.Answer, e.Err)
			}
		case member.Note:
			level := slog.LevelInfo
			if e.Warn {
				level = slog.LevelWarn
			}
			c.cfg.Log.Log(context.Background(), level, e.Text)
		}
	}
}

func (c *Client) send(m headstate.Message) {
	if c.conn != nil {
		c.conn.Send(head.Encode(m))
	}
}

func (c *Client) askInventory(e member.Register) {
	link := c.links
	c.cfg.Handler.Inventory(func(inv headstate.Inventory) {
		inv.Cluster, inv.Owner = e.Cluster, e.Owner
		c.do(func() {
			if c.links == link {
				c.send(&headstate.Register{Node: c.cfg.Node, Inventory: inv})
			}
		})
	})
}
