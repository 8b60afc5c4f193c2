package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"gray/internal/core/engine"
	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/core/ids"
	"gray/internal/core/linkstate"
	"gray/internal/head"
	"gray/internal/link"
	"gray/internal/rpc"
	"gray/internal/wire"
)

// peerTable is what this daemon keeps of the others; guarded by Node.mu.
type peerTable struct {
	byID map[ids.NodeID]*peer
	byNo map[engine.NodeNo]*peer
	last engine.NodeNo
	dead map[ids.NodeID]bool
	// early is what waits for nodes that the head has not told of yet.
	early map[ids.NodeID][][]byte
}

// peer is another daemon and the link to it.
type peer struct {
	no      engine.NodeNo
	id      ids.NodeID
	owner   ids.Owner
	addr    string
	link    *link.Link
	jobs    map[ids.Job]bool // whose driver's settings it was sent
	dialing bool             // guarded by Node.mu, as all above
	up      bool
	retry   time.Duration // how long the next dial waits, since the last connections came to nothing
	stop    context.CancelFunc
}

// Waits before a peer is dialled again.
const (
	minRedial = 20 * time.Millisecond
	maxRedial = time.Second
)

// again is the wait after one of d.
func again(d time.Duration) time.Duration { return min(max(2*d, minRedial), maxRedial) }

func (t *peerTable) known() []ids.NodeID {
	list := make([]ids.NodeID, 0, len(t.byID))
	for id := range t.byID {
		list = append(list, id)
	}
	return list
}

// linkBytes bounds what may wait on a link for a peer that does not answer, until the head declares it dead.
const linkBytes = 1 << 30

// viewPut takes what the head says of a node.
func (n *Node) viewPut(v headstate.NodeView) {
	if v.ID == n.id || v.Info == nil {
		return
	}
	n.locked(func(e *engine.Engine) {
		p := n.peerLocked(v.ID, v.Owner, addressOf(v.Info.IP, v.Info.Port))
		if p == nil {
			return
		}
		e.PeerNamed(p.no, v.Info.Name)
		for _, b := range n.peers.early[v.ID] {
			n.sendPeerLocked(p, b)
		}
		delete(n.peers.early, v.ID)
		if v.Info.Guest {
			return // it ends with its driver: what needs no CPU is not to go there
		}
		total, err1 := n.names.Set(v.Info.Total)
		avail, err2 := n.names.Set(positive(v.Available))
		if err1 != nil || err2 != nil {
			n.log.Warn("a node's resources cannot be read", "node", v.ID.String(), "err", fmt.Sprint(err1, err2))
			return
		}
		e.NodeView(p.no, total, avail, v.Info.Labels, int(v.Queued))
	})
}

// positive leaves out what is overdrawn.
func positive(r headstate.Resources) headstate.Resources {
	m := make(headstate.Resources, len(r))
	for k, v := range r {
		if v > 0 {
			m[k] = v
		}
	}
	return m
}

func (n *Node) viewDrop(id ids.NodeID) {
	n.locked(func(e *engine.Engine) {
		if p := n.peers.byID[id]; p != nil {
			e.NodeViewDrop(p.no)
		}
	})
}

// peerLocked is the record of a node, made if it is new; nil for a dead one.
func (n *Node) peerLocked(id ids.NodeID, owner ids.Owner, addr string) *peer {
	if p := n.peers.byID[id]; p != nil {
		return p
	}
	if n.peers.dead[id] || n.closed {
		return nil
	}
	n.peers.last++
	p := &peer{no: n.peers.last, id: id, owner: owner, addr: addr, jobs: map[ids.Job]bool{}}
	l, err := link.New(linkstate.Config{Incarnation: uint64(n.started.UnixNano()), MaxUnacked: linkBytes, MaxMessage: linkBytes}, link.Events{
		Message: func(msg []byte) { n.receive(p, msg) },
		Up: func(uint64) {
			n.linkUp(p, true)
			n.mu.Lock()
			p.retry = 0
			n.mu.Unlock()
		},
		Down: func(err error) { n.linkDown(p, err) },
		PeerReset: func(uint64, int) {
			n.peerDead(id, []ids.Owner{owner}, "it started afresh")
		},
	})
	if err != nil {
		n.log.Error("no link can be made", "node", id.String(), "err", err)
		return nil
	}
	p.link = l
	n.peers.byID[id], n.peers.byNo[p.no] = p, p
	n.eng.PeerUp(p.no, id, owner)
	return p
}

func (n *Node) linkUp(p *peer, up bool) {
	n.mu.Lock()
	p.up = up
	n.mu.Unlock()
}

func (n *Node) linkDown(p *peer, err error) {
	n.linkUp(p, false)
	n.log.Info("the link to a node broke", "node", p.id.String(), "err", err)
	n.mu.Lock()
	defer n.mu.Unlock()
	// A peer that has not heard of this node yet hangs up, and then has no reason to dial: what it was to get brings us back.
	if n.iDial(p.id) || p.link.Owes() {
		p.retry = again(p.retry)
		n.dialLocked(p)
	}
}

// iDial tells whether, of this node and another, this one keeps the link up.
func (n *Node) iDial(other ids.NodeID) bool { return bytes.Compare(n.id[:], other[:]) < 0 }

// dialLocked connects to a peer in the background, until it is dead or a connection is up.
func (n *Node) dialLocked(p *peer) {
	if p.dialing || n.closed || n.peers.byID[p.id] != p {
		return
	}
	p.dialing = true
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	n.spawn(func() {
		defer stop()
		for {
			n.mu.Lock()
			wait := p.retry
			n.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
			n.mu.Lock()
			if n.closed || n.peers.byID[p.id] != p || p.up || ctx.Err() != nil {
				p.dialing = false
				n.mu.Unlock()
				return
			}
			p.retry = again(p.retry)
			n.mu.Unlock()
			dctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			c, _, err := rpc.DialLink(dctx, p.addr, n.identity, n.hello(), p.id.String())
			cancel()
			if err == nil {
				n.mu.Lock()
				p.dialing, p.up = false, true
				n.mu.Unlock()
				if err := p.link.Attach(c); err != nil {
					n.linkUp(p, false)
				}
				return
			}
			n.warn("dial "+p.id.String(), fmt.Sprintf("node %s at %s cannot be reached, trying on: %v", p.id, p.addr, err))
		}
	})
}

// takeLink takes a connection that another daemon opened. Where both dial, the lower node id's connection counts.
func (n *Node) takeLink(c net.Conn, info rpc.PeerInfo) {
	id, err := ids.ParseNode(info.NodeID)
	if err != nil {
		_ = c.Close()
		return
	}
	n.mu.Lock()
	p := n.peers.byID[id]
	keep := p != nil && !(n.iDial(id) && (p.dialing || p.up))
	if keep {
		p.up = true
	}
	n.mu.Unlock()
	if p == nil { // its news have not come from the head yet: it tries again
		_ = c.Close()
		return
	}
	if !keep {
		_ = c.Close()
		return
	}
	n.spawn(func() {
		if err := p.link.Attach(c); err != nil {
			n.linkUp(p, false)
		}
	})
}

// Peer sends an engine's message; the caller holds the lock.
func (s *sink) Peer(no engine.NodeNo, m engine.Msg) {
	n := s.n
	p := n.peers.byNo[no]
	if p == nil || n.closed {
		return // declared dead: the engine hears of it by PeerGone; or this node is, soon: that its workers end says nothing
	}
	if t, ok := m.(*engine.TemplateMsg); ok && !p.jobs[t.Job] {
		p.jobs[t.Job] = true
		if j := n.jobs[t.Job]; j != nil {
			c := *t
			c.JobInfo = j.raw
			m = &c
		}
	}
	b, err := encodeMsg(m)
	if err != nil {
		n.log.Error("a message cannot be encoded", "err", err)
		return
	}
	n.sendPeerLocked(p, b)
}

func (n *Node) sendPeerLocked(p *peer, b []byte) {
	if err := p.link.Send(b); err != nil && !n.closed {
		n.log.Error("a message to a node is lost", "node", p.id.String(), "err", err)
	}
	if !p.up && !p.dialing {
		n.dialLocked(p)
	}
}

func encodeMsg(m engine.Msg) ([]byte, error) {
	var buf bytes.Buffer
	buf.WriteByte(byte(m.Kind()))
	enc := msgpack.NewEncoder(&buf)
	enc.UseArrayEncodedStructs(true)
	enc.UseCompactInts(true)
	if err := enc.Encode(m); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func decodeMsg(b []byte) (engine.Msg, error) {
	if len(b) == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	m := engine.NewMsg(engine.MsgKind(b[0]))
	if m == nil {
		return nil, fmt.Errorf("unknown kind %d of message", b[0])
	}
	return m, wire.Unmarshal(b[1:], m)
}

// receive takes a peer's message to the engine.
func (n *Node) receive(p *peer, b []byte) {
	if len(b) > 0 && b[0] >= kindLogFrom {
		m, err := decodeLog(b)
		if err != nil {
			n.log.Error("a node sent what cannot be read", "node", p.id.String(), "err", err)
			return
		}
		n.takeLog(p.id, m)
		return
	}
	m, err := decodeMsg(b)
	if err != nil {
		n.log.Error("a node sent what cannot be read", "node", p.id.String(), "err", err)
		return
	}
	n.locked(func(e *engine.Engine) {
		t, ok := m.(*engine.TemplateMsg)
		if !ok {
			e.Receive(p.no, m)
			return
		}
		if len(t.JobInfo) > 0 && n.jobs[t.Job] == nil && !e.JobOver(t.Job) {
			n.jobs[t.Job] = newJobInfo(t.JobInfo)
		}
		spec, err := n.spec(t.Job, t.Raw)
		if err != nil {
			n.log.Error("a node sent a template that cannot be read", "node", p.id.String(), "err", err)
			return
		}
		e.PeerTemplate(p.no, t.No, spec)
	})
}

// peerDead ends everything that hung on a node.
func (n *Node) peerDead(id ids.NodeID, owners []ids.Owner, why string) {
	n.mu.Lock()
	n.peers.dead[id] = true
	p := n.peers.byID[id]
	delete(n.peers.byID, id)
	delete(n.peers.early, id)
	if p != nil {
		delete(n.peers.byNo, p.no)
		if p.stop != nil {
			p.stop()
		}
	}
	n.mu.Unlock()
	n.locked(func(e *engine.Engine) {
		for _, o := range owners {
			e.OwnerDead(o, "node "+id.String()+": "+why)
		}
		if p != nil {
			e.PeerGone(p.no, why)
			e.NodeViewDrop(p.no)
		}
	})
	if p != nil {
		n.spawn(p.link.Close) // not on the link's own goroutine
	}
	n.logs.nodeDead(id)
	for _, d := range n.allDesks() {
		d.nodeGone(id)
	}
}

// FindOwner asks the head which node has an owner number.
func (s *sink) FindOwner(o ids.Owner) {
	n := s.n
	n.after = append(n.after, func() {
		n.link.Go(&headstate.Lookup{Owner: o}, 0, func(a headstate.Answer, err error) {
			if err != nil {
				n.log.Warn("the head did not say who has an owner number", "owner", o, "err", err)
				if fault.KindOf(err) == fault.System { // it was never given out
					n.locked(func(e *engine.Engine) { e.OwnerDead(o, err.Error()) })
				}
				return
			}
			r := a.(*headstate.Owned)
			n.locked(func(e *engine.Engine) {
				if !r.Alive {
					e.OwnerDead(o, "node "+r.Node.String()+": "+r.Message)
					return
				}
				if p := n.peerLocked(r.Node, o, addressOf(r.IP, r.Port)); p != nil {
					e.OwnerAt(o, p.no)
				}
			})
		})
	})
}

// reportEvery is how long changes of a node's load gather before the head hears of them: a task that comes and goes
// changes it twice.
const reportEvery = 50 * time.Millisecond

// Load notes that what this node has free or wants has changed.
func (s *sink) Load() {
	n := s.n
	if n.reporting || n.closed {
		return
	}
	n.reporting = true
	time.AfterFunc(reportEvery, n.report)
}

// report tells the head what this node has free and what waits here.
func (n *Node) report() {
	n.mu.Lock()
	n.reporting = false
	if n.closed {
		n.mu.Unlock()
		return
	}
	avail, queued, demands := n.eng.Load()
	n.mu.Unlock()
	r := &headstate.Report{Available: avail, Queued: int64(queued)}
	for _, d := range demands {
		r.Demands = append(r.Demands, headstate.Demand{Shape: d.Resources, Count: int64(d.Count), Infeasible: d.Infeasible, Reason: d.Reason})
	}
	n.link.Report(r)
}

// headConn is a daemon's connection to the head, or the head's to a daemon: length-prefixed messages.
type headConn struct {
	conn net.Conn
	mu   sync.Mutex
	buf  []byte // guarded by mu
	kick chan struct{}
	last bool // guarded by mu: what is in buf ends the connection
	done chan struct{}
	once sync.Once
}

// headMessage bounds a message on it, in bytes.
const headMessage = 1<<30 + 1<<20

func newHeadConn(c net.Conn) *headConn {
	h := &headConn{conn: c, kick: make(chan struct{}, 1), done: make(chan struct{})}
	go h.write()
	return h
}

// Send queues a message.
func (h *headConn) Send(msg []byte) {
	h.mu.Lock()
	h.buf = binary.LittleEndian.AppendUint32(h.buf, uint32(len(msg)))
	h.buf = append(h.buf, msg...)
	h.mu.Unlock()
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

// Close ends the connection.
func (h *headConn) Close() {
	h.once.Do(func() {
		close(h.done)
		_ = h.conn.Close()
	})
}

// part sends a last message and ends the connection once that is written, or can't be in time.
func (h *headConn) part(msg []byte, timeout time.Duration) {
	if err := h.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		h.Close()
		return
	}
	h.mu.Lock()
	h.last = true
	h.mu.Unlock()
	h.Send(msg)
	<-h.done
}

func (h *headConn) write() {
	for {
		select {
		case <-h.kick:
		case <-h.done:
			return
		}
		h.mu.Lock()
		b, last := h.buf, h.last
		h.buf = nil
		h.mu.Unlock()
		if _, err := h.conn.Write(b); err != nil {
			h.Close()
			return
		}
		if last {
			h.Close()
			return
		}
	}
}

// read gives each message to take until the connection or take fails.
func (h *headConn) read(take func([]byte) error) error {
	var size [4]byte
	for {
		if _, err := io.ReadFull(h.conn, size[:]); err != nil {
			return err
		}
		k := binary.LittleEndian.Uint32(size[:])
		if k > headMessage {
			return fmt.Errorf("a message of %d bytes; at most %d are taken", k, headMessage)
		}
		var b bytes.Buffer // grows with what comes, not with what is announced
		if _, err := io.CopyN(&b, h.conn, int64(k)); err != nil {
			return err
		}
		if err := take(b.Bytes()); err != nil {
			return err
		}
	}
}

// takeHeadLink links a daemon that joined to the head's service.
func (n *Node) takeHeadLink(c net.Conn, info rpc.PeerInfo) {
	id, err := ids.ParseNode(info.NodeID)
	if err != nil {
		_ = c.Close()
		return
	}
	h := newHeadConn(c)
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		h.Close()
		return
	}
	n.headConns[h] = true
	n.mu.Unlock()
	n.spawn(func() {
		err := n.head.Connect(id, h)
		if err == nil {
			err = h.read(func(b []byte) error { return n.head.ReceiveOn(id, h, b) })
			n.head.Disconnect(id, h)
		}
		h.Close()
		n.mu.Lock()
		delete(n.headConns, h)
		n.mu.Unlock()
		n.log.Info("the link of a node to the head ended", "node", id.String(), "err", err)
	})
}

// farewellTimeout is how long the head waits for a node to take its last word.
const farewellTimeout = time.Second

// farewell ends the head's links to the nodes. Where the head is not to come back (it has a session of its own name each
// time) it tells them that the cluster is over, so that nobody waits for it.
func (n *Node) farewell() {
	n.mu.Lock()
	conns := slices.Collect(maps.Keys(n.headConns))
	n.mu.Unlock()
	var told sync.WaitGroup
	for _, h := range conns {
		told.Go(func() {
			if n.cfg.SessionName != "" {
				h.Close()
				return
			}
			h.part(head.Encode(&headstate.Refused{Reason: headstate.RefusedEnded, Error: "the head at " + n.file.GCSAddress + " was stopped"}), farewellTimeout)
		})
	}
	told.Wait()
}

// endText is what drivers are told when their daemon ends.
func endText(why error) string {
	text := "it was told to stop"
	var f *fault.Error
	switch {
	case errors.As(why, &f) && f.Detail != "":
		text = f.Detail
	case why != nil && !errors.Is(why, context.Canceled):
		text = why.Error()
	}
	return text + ". After ray.shutdown(), ray.init() starts or finds another"
}

// foreignLimit is how many times in a row another cluster's head must answer before this node gives up on its own: once
// may be a mistake of the moment, while addresses change hands.
const foreignLimit = 3

// dialHead keeps a link to the head, for as long as this daemon lives.
func (n *Node) dialHead(ctx context.Context) {
	wait := 50 * time.Millisecond
	foreign := 0
	for ctx.Err() == nil {
		dctx, stop := context.WithTimeout(ctx, 5*time.Second)
		c, _, err := rpc.DialLink(dctx, n.file.GCSAddress, n.identity, n.hello(), "")
		stop()
		if err == nil {
			wait, foreign = 50*time.Millisecond, 0
			h := newHeadConn(c)
			unhook := context.AfterFunc(ctx, h.Close)
			n.link.Up(h)
			err = h.read(n.link.Receive)
			unhook()
			h.Close()
			n.link.Down(h, err.Error())
			continue
		}
		if refusedNow(err) {
			n.link.HeadAbsent()
		}
		if foreign++; rpc.IsForeign(err) {
			wait = 100 * time.Millisecond // somebody listens: what comes next is soon known
		} else {
			foreign = 0
		}
		if foreign == foreignLimit {
			n.cancel(&fault.Error{
				Op: "node.reconnect", Kind: fault.Cluster, Ref: n.file.GCSAddress, Err: err,
				Detail: "the head was replaced by one of a new cluster, which does not know this node; it ends; `ray start --block` starts another, which joins the new one",
			})
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, time.Second)
	}
}
