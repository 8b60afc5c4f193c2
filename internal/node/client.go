package node

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gray/internal/core/engine"
	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/core/ids"
	"gray/internal/pool"
	"gray/internal/session"
	"gray/internal/version"
	"gray/internal/wire"
)

// client is a session's connections. All fields but the connections themselves are guarded by Node.mu.
type client struct {
	id       engine.SessionID
	key      [wire.SessionSize]byte
	wid      wire.WorkerID
	job      ids.Job
	pid      int // of a driver
	stream   *conn
	chans    map[uint32]*outbox
	channel0 *conn         // a worker's
	conns    []*conn       // channels' connections
	unwatch  func()        // of a driver's process
	over     bool          // its stream has ended
	readDone chan struct{} // closed when a worker's stream has been read to its end

	worker  *pool.Worker                // nil for a driver
	remote  *remote                     // of a driver elsewhere: ray://
	upload  string                      // file of a package that it sends in parts; "" = none
	backlog [][]byte                    // packets that the exec queue had no room for
	carry   map[carryKey][]ids.ObjectID // ids that went ahead of the frame with their object
	carried int                         // ids in it
	within  ids.Unique                  // the call that makes what comes next, of an actor's process
	pokes   bool                        // it runs tasks, which can be interrupted
	scratch scratch
}

// carryKey is what tells objects apart, whoever made them.
type carryKey struct {
	u     ids.Unique
	index uint32
}

func carryOf(id ids.ObjectID) carryKey { return carryKey{id.Unique(), id.Index()} }

// scratch is what decoding a stream's frames reuses.
type scratch struct {
	item engine.Output
	sub  engine.Submission
	call engine.ActorSubmission
	outs []engine.Output
	ids  []ids.ObjectID
}

const helloTimeout = 5 * time.Second

// greet takes a new connection on the client socket to its session, and returns when it has ended. known is called when the
// other end has shown its credential. rem is the session that the other end is half of, if it is a driver elsewhere.
func (n *Node) greet(c *net.UnixConn, known func(), rem *remote) {
	uid, err := session.PeerUID(c)
	if err != nil || uid != os.Getuid() {
		_ = c.Close() // a stranger is told nothing
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(helloTimeout))
	st := wire.NewStream(c, 4096)
	f, err := st.Next()
	if err != nil || f.Kind != wire.KindHello {
		_ = c.Close()
		return
	}
	h, err := wire.DecodeHello(f.Body)
	if err != nil {
		_ = c.Close()
		return
	}
	if kind, text := n.check(&h); text != "" {
		refuse(c, kind, text)
		return
	}
	known()
	_ = c.SetReadDeadline(time.Time{})
	switch h.Role {
	case wire.RoleDriver:
		n.openDriver(c, st, &h, rem)
	default:
		n.openChannel(c, &h)
	}
}

// check compares versions and the credential.
func (n *Node) check(h *wire.Hello) (fault.Kind, string) {
	if h.Version != wire.Version {
		return fault.Version, fmt.Sprintf("this node speaks client protocol %d (ray %s), the client speaks %d (ray %s); install the same version on both, for example pip install \"ray==%s\"",
			wire.Version, version.Version, h.Version, orUnknown(h.Ray), version.Version)
	}
	if !n.cfg.AuthDisabled {
		key := []byte(n.token.Reveal())
		if h.Role == wire.RoleWorkerChannel { // a worker has no token: its session's key was given to it alone
			key = h.Session
		}
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte("gray-client-v1"))
		mac.Write(h.Nonce)
		if len(h.Nonce) != wire.NonceSize || !hmac.Equal(mac.Sum(nil), h.Cred) {
			return fault.Auth, "the token of this client is not that of the cluster at " + n.file.GCSAddress + "; set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token, as `ray get-auth-token` prints it on the head's machine"
		}
	}
	if h.Role != wire.RoleDriver {
		return "", ""
	}
	if h.Ray != version.Version {
		return fault.Version, fmt.Sprintf("this node runs ray %s, the driver ray %s: values and functions cannot be exchanged; install the same version on both, for example pip install \"ray==%s\"",
			version.Version, orUnknown(h.Ray), version.Version)
	}
	if py := n.pythonMinor(); py != "" && h.Py != py {
		return fault.Python, fmt.Sprintf("this node's workers run Python %s, the driver runs Python %s: functions cannot be exchanged; run the driver with Python %s, or start the cluster with the driver's Python", py, h.Py, py)
	}
	return "", ""
}

func orUnknown(s string) string {
	if s == "" {
		return "of unknown version"
	}
	return s
}

func (n *Node) openDriver(c *net.UnixConn, st *wire.Stream, h *wire.Hello, rem *remote) {
	job, err := wire.DecodeJob(h.Job)
	if err != nil {
		refuse(c, fault.Protocol, err.Error())
		return
	}
	if len(h.Job) > maxJob {
		refuse(c, fault.Limit, fmt.Sprintf("what the driver says of its job, its runtime_env above all, has %d bytes; at most %d are possible", len(h.Job), maxJob))
		return
	}
	pid, ip := h.PID, n.ip
	var start uint64
	var err2 error
	if rem == nil {
		pid, start, err2 = peerProcess(c)
	} else if a := rem.addr.Addr(); !a.IsLoopback() {
		ip = a.String()
	}
	if err2 != nil {
		refuse(c, fault.System, "the driver's process cannot be watched: "+err2.Error())
		return
	}
	settings, err := decodeLogSettings(job.Logging)
	if err != nil {
		refuse(c, fault.Protocol, "the job's logging settings cannot be read: "+err.Error())
		return
	}
	raw, err := wire.JobAt(h.Job, n.id)
	if err != nil {
		refuse(c, fault.Protocol, err.Error())
		return
	}
	var key [16]byte
	_, _ = rand.Read(key[:]) // never fails
	id, err := n.newJob(&headstate.JobStart{Key: key, Driver: headstate.Driver{PID: pid, IP: ip, Namespace: job.Namespace, Entrypoint: job.Entrypoint}, Packages: n.jobPackages(h.Job, nil)})
	if err != nil {
		refuse(c, fault.System, "the head at "+n.file.GCSAddress+" gave no job id: "+err.Error())
		return
	}
	cl := &client{job: id, pid: pid, remote: rem, chans: map[uint32]*outbox{}, carry: map[carryKey][]ids.ObjectID{}}
	_, _ = rand.Read(cl.key[:])
	_, _ = rand.Read(cl.wid[:])
	copy(cl.wid[:], id[:])
	for k := 4; k < len(cl.wid); k++ {
		cl.wid[k] = 0xff // a driver's worker id is its job id, then ff, as Ray's
	}
	if settings.ToDriver {
		n.openDesk(id, &settings)
	}
	var first ids.Unique
	n.locked(func(e *engine.Engine) {
		cl.id, first = e.OpenDriver(id, driverIDs)
		e.Introduce(cl.id, engine.WorkerID(cl.wid), pid)
		n.clients[cl.id] = cl
		n.byKey[cl.key] = cl.id
		n.jobs[id] = newJobInfo(raw)
	})
	w := n.welcome(cl, id, wire.IDBlock{First: first, Count: driverIDs})
	if err := n.sendWelcome(c, &w); err != nil {
		n.gone(cl)
		_ = c.Close()
		return
	}
	unwatch := func() {} // a session of ray:// ends with its stream
	if rem == nil {
		if unwatch, err = n.pool.Watch(pid, start, func() { n.gone(cl) }); err != nil { // it died already
			n.gone(cl)
		}
	}
	q, err := quiet(c)
	if err != nil {
		n.log.Error("a driver's connection cannot be read", "err", err)
		n.gone(cl)
		_ = c.Close()
		return
	}
	n.mu.Lock()
	cl.unwatch, cl.stream = unwatch, q
	over := n.clients[cl.id] != cl
	n.mu.Unlock()
	if over { // it died meanwhile, or the daemon ends
		q.hangUp()
	}
	n.read(cl, st)
}

// A worker is told its job and its environment in one packet.
const (
	maxJob = 64 << 10
	maxEnv = 48 << 10
)

// newJob asks the head for a job id.
func (n *Node) newJob(c *headstate.JobStart) (id ids.Job, err error) {
	done := make(chan struct{})
	n.link.Go(c, headTimeout, func(a headstate.Answer, e error) {
		defer close(done)
		if err = e; e == nil {
			id = a.(*headstate.JobStarted).Job
		}
	})
	<-done
	return id, err
}

// headTimeout bounds a client's wait for the head.
const headTimeout = 30 * time.Second

func (n *Node) welcome(cl *client, job ids.Job, block wire.IDBlock) wire.Welcome {
	w := wire.Welcome{
		Session: cl.key, JobID: job, NodeID: n.id, NodeIP: n.ip, GCSAddress: n.file.GCSAddress, SessionDir: n.dir.Path,
		SessionName: n.file.SessionName, WorkerID: cl.wid, ArenaSize: uint64(n.arena.Space()), InlineMax: inlineMax, IDs: block,
		Credit: jobCredit / 4, DashboardURL: n.file.DashboardURL,
	}
	if cl.remote != nil {
		w.Clients = n.remotes.count()
	}
	n.mu.Lock()
	if j := n.jobs[job]; j != nil {
		w.Namespace = j.namespace
	}
	n.mu.Unlock()
	for k := range 20 {
		w.DriverTask[k] = 0xff
	}
	copy(w.DriverTask[20:], job[:])
	return w
}

// sendWelcome answers a driver, with the arena's descriptor.
func (n *Node) sendWelcome(c *net.UnixConn, w *wire.Welcome) error {
	b, err := wire.AppendWelcome(nil, w)
	if err != nil {
		return err
	}
	_, _, err = c.WriteMsgUnix(b, unix.UnixRights(int(n.arena.File().Fd())), nil)
	return err
}

// peerProcess is the process at the other end, and its start time.
func peerProcess(c *net.UnixConn) (pid int, start uint64, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(cerr, err); err != nil {
		return 0, 0, err
	}
	start, err = pool.StartTime(int(cred.Pid))
	return int(cred.Pid), start, err
}

// openChannel attaches a connection to a session as one of its channels.
func (n *Node) openChannel(c *net.UnixConn, h *wire.Hello) {
	var key [wire.SessionSize]byte
	copy(key[:], h.Session)
	n.mu.Lock()
	cl := n.clients[n.byKey[key]]
	n.mu.Unlock()
	if cl == nil || len(h.Session) != wire.SessionSize {
		refuse(c, fault.Auth, "this node has no such session: its driver was shut down, or its daemon started anew; call ray.shutdown() and ray.init() again")
		return
	}
	ch := engine.Chan{Session: cl.id, Chan: h.Chan}
	q, err := quiet(c)
	if err != nil {
		_ = c.Close()
		return
	}
	defer func() { _ = q.Close() }()
	ended := make(chan struct{})
	o, err := newOutbox(n.reactor, q, func() { n.locked(func(e *engine.Engine) { e.Drained(ch) }) }, func() { close(ended) })
	if err != nil {
		n.log.Error("a channel cannot be watched", "err", err)
		return
	}
	ok := false
	n.locked(func(e *engine.Engine) {
		if ok = e.OpenChannel(ch); !ok {
			return
		}
		cl.chans[h.Chan] = o
		cl.conns = append(cl.conns, q)
		o.add(func(b []byte) []byte { b, _ = wire.AppendWelcome(b, &wire.Welcome{}); return b }) // of constant size: cannot fail
		o.queued = true
		n.dirty = append(n.dirty, o)
	})
	if !ok {
		o.add(func(x []byte) []byte {
			x, _ = wire.AppendRefused(x, &wire.Refused{Kind: fault.Protocol, Error: fmt.Sprintf("channel %d is taken, or its session has ended", h.Chan)}) // of bounded size
			return x
		})
		o.flush()
		o.watch.end()
		return
	}
	<-ended // a client never writes here
	n.locked(func(e *engine.Engine) {
		if cl.chans[h.Chan] == o {
			delete(cl.chans, h.Chan)
			e.CloseChannel(ch)
		}
		cl.conns = slices.DeleteFunc(cl.conns, func(x *conn) bool { return x == q })
	})
}

// read takes a client's frames to the engine until its stream ends.
func (n *Node) read(cl *client, st *wire.Stream) {
	err := n.readFrames(cl, st)
	var f *fault.Error
	if errors.As(err, &f) {
		n.refuse(cl, f.Kind, f.Error())
		n.log.Warn("a client broke the protocol and was disconnected", "session", cl.id, "err", err)
	}
	_ = cl.stream.Close()
	if cl.readDone != nil {
		return // a worker's end is its process's, which the pool reports
	}
	maps := false
	n.locked(func(e *engine.Engine) {
		e.SessionEnded(cl.id)
		maps, cl.over = e.Maps(cl.id), true
	})
	n.endJob(cl.job)
	if cl.remote != nil { // nobody but its far half had mapped anything
		cl.remote.far.Stop()
		maps = false
	}
	if !maps { // else what it has mapped stays until its process ends
		n.gone(cl)
	}
}

func (n *Node) readFrames(cl *client, st *wire.Stream) error {
	st.Use(cl.stream)
	if st.Buffered() { // came with HELLO
		if err := n.take(cl, st); err != nil {
			return err
		}
	}
	end := make(chan error, 1)
	var w *watch
	ready := make(chan struct{}) // closed when w is set
	w, err := n.reactor.add(cl.stream, unix.EPOLLIN|unix.EPOLLRDHUP, func(uint32) {
		if err := n.take(cl, st); err != nil {
			<-ready
			w.end()
			end <- err
		}
	})
	close(ready)
	if err == nil {
		err = <-end
	}
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// take brings the frames that have arrived to the engine.
func (n *Node) take(cl *client, st *wire.Stream) error {
	f, err := st.Next()
	if errors.Is(err, errAgain) {
		return nil
	}
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.eng.Advance(n.now())
	err = n.handle(cl, f)
	for err == nil && st.Buffered() {
		if f, err = st.Next(); err == nil {
			err = n.handle(cl, f)
		}
	}
	n.finishLocked()
	return err
}

// close ends a client's connection; its end is noticed by its reader.
func (cl *client) close() {
	if cl.stream != nil {
		cl.stream.hangUp()
	}
}

// refuse tells a client why it is disconnected, on every channel that it may be reading.
func (n *Node) refuse(cl *client, kind fault.Kind, text string) {
	n.mu.Lock()
	chans := make([]*outbox, 0, len(cl.chans))
	for _, o := range cl.chans {
		chans = append(chans, o)
	}
	n.mu.Unlock()
	b, err := wire.AppendRefused(nil, &wire.Refused{Kind: kind, Error: text})
	if err != nil {
		return
	}
	if cl.stream != nil { // what does not fit at once is lost: the client is told on its channels, too
		_, _ = cl.stream.send(b)
		cl.stream.shutdown(unix.SHUT_RD) // its reader comes to the end, and the client cannot send any more
	}
	for _, o := range chans {
		o.add(func(x []byte) []byte { return append(x, b...) })
		o.flush()
		o.end()
	}
}

// gone says that a client's process is dead, or that nothing of the session's is left in it.
func (n *Node) gone(cl *client) {
	n.mu.Lock()
	if n.clients[cl.id] != cl {
		n.mu.Unlock()
		return
	}
	delete(n.clients, cl.id)
	delete(n.byKey, cl.key)
	conns := slices.Clone(cl.conns)
	if cl.stream != nil {
		conns = append(conns, cl.stream)
	}
	ends, unwatch := cl.worker == nil && !cl.over, cl.unwatch
	n.mu.Unlock()
	if unwatch != nil {
		unwatch()
	}
	for _, c := range conns {
		c.hangUp()
	}
	upload := ""
	n.locked(func(e *engine.Engine) {
		e.SessionGone(cl.id)
		upload = cl.upload
	})
	if upload != "" {
		if err := os.Remove(upload); err != nil && !errors.Is(err, os.ErrNotExist) {
			n.log.Warn("what a client had sent of a package stays behind", "path", upload, "err", err)
		}
	}
	if ends {
		n.endJob(cl.job)
	}
}

// endJob tells the cluster that a job's driver is gone.
func (n *Node) endJob(job ids.Job) {
	n.mu.Lock()
	delete(n.jobs, job)
	closed := n.closed
	n.mu.Unlock()
	n.closeDesk(job)
	if closed {
		return
	}
	n.link.Go(&headstate.JobEnd{Job: job}, 0, func(_ headstate.Answer, err error) {
		if err != nil {
			n.log.Warn("the head was not told of a job's end", "job", job.String(), "err", err)
		}
	})
}
