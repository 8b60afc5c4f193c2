package node

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"gray/internal/core/fault"
	"gray/internal/relay"
	"gray/internal/rpc"
	"gray/internal/version"
)

// remotes are the sessions of drivers on other machines: ray://.
type remotes struct {
	mu     sync.Mutex
	by     map[string]*remote // guarded by mu; by the key that their clients chose
	closed bool               // guarded by mu
}

// remote is one of them. It outlives its connection by the grace period, so that the client can make another.
type remote struct {
	n    *Node
	key  string
	addr netip.AddrPort // where the client was when it came
	far  *relay.Far

	over  bool        // guarded by remotes.mu; the driver is gone, and what is left is to tell the client
	timer *time.Timer // guarded by remotes.mu; ends the session
}

const (
	clientPort  = 10001
	lastWords   = 5 * time.Second // that a client has to take the end of its session
	maxSessions = 10000
)

// openClientPort serves ray:// clients: on the head of a cluster that was started by a command, and wherever it was asked
// for. On localhost, too, which is where tunnels such as those of kubectl end.
func (n *Node) openClientPort() error {
	asked := n.cfg.ClientServerPort
	if asked == nil && (!n.cfg.Head || n.cfg.Private) {
		return nil
	}
	port := clientPort
	if asked != nil {
		port = *asked
	}
	const flag = "--ray-client-server-port"
	ln, err := rpc.Listen(n.ip, port, flag)
	if err != nil && asked == nil {
		n.log.Warn("ray:// clients are not served: the usual port cannot be opened; choose another with "+flag, "port", port, "err", err)
		return nil
	}
	if err != nil {
		return err
	}
	mux := &rpc.Mux{}
	mux.Handle(rpc.ClientRoute, rpc.Token, rpc.ClientHandler(version.Version, n.admitRemote, n.takeRemote))
	n.file.ClientServerPort = ln.Addr().(*net.TCPAddr).Port
	if err := n.servePort(ln, "ray client", mux, rpc.PlainLoopback, rpc.NoBrowsers); err != nil {
		return err
	}
	if ip, err := netip.ParseAddr(n.ip); err == nil && ip.IsLoopback() {
		return nil
	}
	for _, host := range []string{"127.0.0.1", "::1"} {
		ln, err := rpc.Listen(host, n.file.ClientServerPort, flag)
		if err != nil {
			n.log.Info("a port does not answer on localhost", "for", "ray client", "err", err)
			continue
		}
		if err := n.servePort(ln, "ray client", mux, rpc.PlainLoopback, rpc.NoBrowsers); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) admitRemote(h rpc.ClientHello) error {
	fail := func(kind fault.Kind, detail string) error {
		return &fault.Error{Op: "ray client", Kind: kind, Detail: detail}
	}
	if len(h.Session) < 16 || len(h.Session) > 64 || h.Incarnation == 0 {
		return fail(fault.Protocol, "the session's name is too short or too long")
	}
	n.remotes.mu.Lock()
	defer n.remotes.mu.Unlock()
	switch {
	case n.remotes.closed:
		return fail(fault.System, "this daemon ends")
	case h.Resume && n.remotes.by[h.Session] == nil:
		return fail(fault.NotFound, "the cluster has ended this session, as it was without a connection for too long or the head was started anew; call ray.shutdown() and ray.init() again")
	case !h.Resume && len(n.remotes.by) >= maxSessions:
		return fail(fault.Limit, "this daemon serves as many ray:// clients as it can; end some")
	}
	return nil
}

// takeRemote gives a connection to its session, which it may begin.
func (n *Node) takeRemote(c net.Conn, h rpc.ClientHello, addr netip.AddrPort) {
	r, err := n.remoteOf(h, addr)
	if err == nil {
		if err = r.far.Attach(c); err == nil {
			r.attached()
		}
	}
	if err != nil {
		n.log.Warn("a ray:// client was not served", "client", addr.String(), "err", err)
		_ = c.Close()
	}
}

func (n *Node) remoteOf(h rpc.ClientHello, addr netip.AddrPort) (*remote, error) {
	n.remotes.mu.Lock()
	defer n.remotes.mu.Unlock()
	if r := n.remotes.by[h.Session]; r != nil {
		return r, nil
	}
	if h.Resume || n.remotes.closed {
		return nil, errors.New("its session is over")
	}
	r := &remote{n: n, key: h.Session, addr: addr}
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	var err error
	r.far, err = relay.NewFar(binary.LittleEndian.Uint64(b[:])|1, relay.Host{
		Greet: r.greet,
		Bytes: n.arena.Bytes,
		Spawn: n.spawn,
		Down:  r.down,
		Over:  r.driverOver,
		Gone:  r.gone,
	})
	if err != nil {
		return nil, err
	}
	n.remotes.by[h.Session] = r
	return r, nil
}

// greet serves one of the driver's connections.
func (r *remote) greet(c *net.UnixConn) {
	if !r.n.budget.Acquire() {
		r.n.budget.Refuse("ray client", "too many connections")
		refuse(c, fault.Limit, "the node daemon has as many connections as it can; end some clients, or raise ulimit -n on the head")
		return
	}
	defer r.n.budget.Release()
	r.n.greet(c, func() {}, r)
}

// attached lets a session go on: another connection took the place of the one whose end was, maybe only just now, told.
func (r *remote) attached() {
	r.n.remotes.mu.Lock()
	defer r.n.remotes.mu.Unlock()
	if r.timer != nil && !r.over && r.far.Attached() { // else its own end sets, or has set, the timer
		r.timer.Stop()
		r.timer = nil
	}
}

// down gives a client whose connection broke some time to make another.
func (r *remote) down(err error) {
	r.n.remotes.mu.Lock()
	defer r.n.remotes.mu.Unlock()
	switch {
	case r.over:
		r.endAfterLocked(0)
	case r.timer == nil:
		r.n.log.Info("the connection to a ray:// client broke", "client", r.addr.String(), "err", err)
		r.endAfterLocked(relay.Grace())
	}
}

func (r *remote) endAfterLocked(d time.Duration) {
	if r.timer != nil {
		r.timer.Stop()
	}
	r.timer = time.AfterFunc(d, func() { r.far.End(errors.New("it did not come back in time")) })
}

// driverOver is told when the daemon has done with the driver.
func (r *remote) driverOver() {
	r.n.remotes.mu.Lock()
	defer r.n.remotes.mu.Unlock()
	r.over = true
	r.endAfterLocked(lastWords)
}

// gone forgets a session that has ended.
func (r *remote) gone(why error) {
	m := &r.n.remotes
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.by[r.key] == r {
		delete(m.by, r.key)
		r.n.log.Debug("a ray:// session is over", "client", r.addr.String(), "why", why)
	}
	if r.timer != nil {
		r.timer.Stop()
	}
}

// count is how many sessions there are.
func (m *remotes) count() (k int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.by {
		if !r.over {
			k++
		}
	}
	return k
}

// close ends all sessions.
func (m *remotes) close() {
	m.mu.Lock()
	m.closed = true
	left := slices.Collect(maps.Values(m.by))
	m.mu.Unlock()
	for _, r := range left {
		r.far.End(errors.New("the daemon ends"))
	}
}
