// Package node is a machine's daemon: the shell around core/engine that serves clients, keeps workers, talks to the head
// and to other daemons.
//
// The engine's state belongs to whoever holds Node.mu. A reader goroutine takes the lock for each batch of frames that
// it has read, tells the engine, and flushes; so a task goes from one socket to the next without changing goroutines.
// What the engine decides is appended to outboxes under the lock and written outside of it.
package node

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"gray/internal/arena"
	"gray/internal/core/engine"
	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/core/ids"
	"gray/internal/core/memory"
	"gray/internal/core/resource"
	"gray/internal/head"
	"gray/internal/head/headlink"
	"gray/internal/pool"
	"gray/internal/rpc"
	"gray/internal/session"
	"gray/internal/transfer"
	"gray/internal/wire"
)

// Node is a running daemon.
type Node struct {
	cfg     session.NodeConfig
	log     *slog.Logger
	id      ids.NodeID
	ip      string
	dir     *session.Dir
	token   session.Token
	file    session.NodeFile
	arena   *arena.Arena
	pool    *pool.Pool
	names   *resource.Names
	total   resource.Set
	head    *head.Service // nil where the head is elsewhere
	store   head.Store
	link    *headlink.Client
	hangUp  context.CancelFunc // ends the connection to a head elsewhere
	sock    *session.Socket
	started time.Time
	minor   string // of the interpreter, if it was asked
	cancel  context.CancelCauseFunc
	running sync.WaitGroup

	clusterID string
	identity  *rpc.Identity
	servers   []*rpc.Server
	budget    *rpc.Budget
	port      int
	agentPort int
	fetcher   *transfer.Fetcher
	asker     *http.Client // of other daemons
	sender    *transfer.Server
	reactor   *reactor
	logs      *logSource
	envs      environs
	remotes   remotes

	registered chan *headstate.Registered

	logMu sync.Mutex           // taken within mu
	desks map[ids.Job]*logDesk // guarded by logMu; of the drivers here that want their workers' output

	mu        sync.Mutex
	eng       *engine.Engine
	clients   map[engine.SessionID]*client
	byWorker  map[*pool.Worker]*client
	byKey     map[[wire.SessionSize]byte]engine.SessionID
	jobs      map[ids.Job]*jobInfo
	dirty     []*outbox
	after     []func() // to run once the lock is released
	peers     peerTable
	fetches   map[uint64]*fetching
	headConns map[*headConn]bool
	ticking   bool
	reporting bool
	trim      *time.Timer
	closed    bool
	scratch   []byte
	handed    wire.Handed
	warnings  map[string]time.Time
}

// jobInfo is what workers must know of a job.
type jobInfo struct {
	raw       wire.Raw
	namespace string
	driver    ids.NodeID // where its driver is
	forward   bool       // the driver shows what workers print
}

// inlineMax is the largest value that travels in frames.
const inlineMax = wire.InlineMax

const (
	driverIDs = 1 << 20
	moreIDs   = 1 << 18
	jobCredit = 1 << 30
)

func newNodeID() (id ids.NodeID) {
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	return id
}

// now is the engine's clock.
func (n *Node) now() time.Time { return time.Now() }

// locked runs f on the engine and carries out what follows.
func (n *Node) locked(f func(e *engine.Engine)) {
	n.mu.Lock()
	if n.eng == nil {
		n.mu.Unlock()
		return
	}
	n.eng.Advance(n.now())
	f(n.eng)
	n.finishLocked()
}

// finishLocked flushes the engine, releases the lock, and writes.
func (n *Node) finishLocked() {
	n.eng.Flush()
	n.tickLocked()
	dirty, after := n.dirty, n.after
	n.dirty, n.after = nil, nil
	for _, o := range dirty {
		o.queued = false
	}
	n.mu.Unlock()
	for _, o := range dirty {
		o.flush()
	}
	for _, f := range after {
		f()
	}
}

// tickLocked keeps a timer running while the engine has anything to watch.
func (n *Node) tickLocked() {
	if n.closed {
		return
	}
	if !n.eng.Busy() {
		n.trimLocked()
		return
	}
	if n.ticking {
		return
	}
	n.ticking = true
	time.AfterFunc(engine.TickEvery, func() {
		n.mu.Lock()
		n.ticking = false
		n.mu.Unlock()
		n.locked(func(e *engine.Engine) { e.Tick() })
	})
}

const (
	trimAfter = 10 * time.Second // of idleness
	trimKeep  = 64 << 20         // bytes of warm store pages that an idle node keeps
)

// trimLocked gives warm store pages back some time after the last work.
func (n *Node) trimLocked() {
	if n.trim == nil {
		n.trim = time.AfterFunc(trimAfter, func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			if !n.closed && !n.eng.Busy() {
				n.eng.Trim(trimKeep)
			}
		})
		return
	}
	n.trim.Reset(trimAfter)
}

func (n *Node) spawn(f func()) {
	n.running.Add(1)
	go func() {
		defer n.running.Done()
		f()
	}()
}

// startEngine makes the engine once the head has given an owner number.
func (n *Node) startEngine(r *headstate.Registered, cpus int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.eng = engine.New(engine.Config{
		Node: n.id, Owner: r.Owner, Names: n.names, Total: n.total, Labels: n.cfg.Labels,
		Memory: memory.New(n.arena.Space(), n.arena.Capacity()), Inline: inlineMax, CPUs: max(cpus, 1), Credit: jobCredit,
		IdleTime: time.Second, Seed: uint64(time.Now().UnixNano()),
	}, &sink{n})
	n.eng.Advance(n.now())
}

// maxWarnings bounds the texts that are remembered.
const maxWarnings = 1000

// warn logs a text once a minute for each key.
func (n *Node) warn(key, text string) {
	n.mu.Lock()
	last, seen := n.warnings[key]
	now := time.Now()
	if seen && now.Sub(last) < time.Minute {
		n.mu.Unlock()
		return
	}
	if len(n.warnings) >= maxWarnings {
		clear(n.warnings)
	}
	n.warnings[key] = now
	n.mu.Unlock()
	n.log.Warn(text)
}

// Close ends the daemon: clients, workers, links, and what it kept in the temp dir but its logs. Its drivers, and where it
// is the head the other nodes, are told why.
func (n *Node) Close(why error) {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return
	}
	n.closed = true
	if n.trim != nil {
		n.trim.Stop()
	}
	clients := make([]*client, 0, len(n.clients))
	for _, c := range n.clients {
		clients = append(clients, c)
	}
	links := make([]*peer, 0, len(n.peers.byID))
	for _, p := range n.peers.byID {
		links = append(links, p)
		if p.stop != nil {
			p.stop()
		}
	}
	for _, f := range n.fetches {
		f.stop()
	}
	n.mu.Unlock()
	_ = n.sock.Close() // accepting ends; nobody is left to tell
	for _, c := range clients {
		if c.worker == nil && c.stream != nil {
			n.refuse(c, fault.System, endText(why))
		}
		c.close()
	}
	n.remotes.close()
	n.pool.Stop()
	n.logs.close()
	n.closeEnvirons()
	n.leave() // now that nothing runs here: its actors may be made elsewhere as soon as the head hears of it
	if n.hangUp != nil {
		n.hangUp()
	}
	for _, p := range links {
		p.link.Close()
	}
	n.farewell()
	n.closePorts()
	n.asker.CloseIdleConnections()
	if sent := n.sender.Stats(); sent.Bytes > 0 {
		n.log.Info("objects were sent to other nodes", "bytes", sent.Bytes, "requests", sent.Requests)
	}
	n.link.Close()
	if n.head != nil {
		if err := n.head.Close(); err != nil {
			n.log.Error("the head's last changes may be lost", "err", err)
		}
		if err := n.store.Close(); err != nil {
			n.log.Error("the head's store did not close", "err", err)
		}
	}
	if err := n.dir.RemoveNode(n.id.String()); err != nil && !os.IsNotExist(err) {
		n.log.Warn("the node file stays behind", "err", err)
	}
	if n.cfg.Private { // no other daemon shares the session
		if err := n.dir.Remove(session.TokenFile); err != nil {
			n.log.Warn("the token stays behind", "err", err)
		}
	}
}

// refuse answers a connection with one sentence and closes it.
func refuse(c net.Conn, kind fault.Kind, text string) {
	b, err := wire.AppendRefused(nil, &wire.Refused{Kind: kind, Error: text})
	if err == nil {
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = c.Write(b) // the other end may be gone
	}
	_ = c.Close()
}
