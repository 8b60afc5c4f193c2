package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"gray/internal/arena"
	"gray/internal/core/engine"
	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/core/ids"
	"gray/internal/core/resource"
	"gray/internal/head"
	"gray/internal/head/headlink"
	"gray/internal/machine"
	"gray/internal/pool"
	"gray/internal/rpc"
	"gray/internal/session"
	"gray/internal/wire"
)

// joinTimeout is how long a daemon waits for the head it was told to join: one that runs under a supervisor, which may
// have been started with the head, waits longer than one whose user sits and waits.
func (n *Node) joinTimeout() time.Duration {
	if n.cfg.DriverPID != 0 {
		return 60 * time.Second
	}
	return 4500 * time.Millisecond
}

// registerTimeout is how long the head may take to register a node that it let in.
const registerTimeout = 60 * time.Second

// keptSessions is how many session folders stay in the temp dir.
const keptSessions = 10

// Run runs a daemon until ctx ends or it must stop. ready is called once clients can connect.
func Run(ctx context.Context, cfg session.NodeConfig, log *slog.Logger, faces Faces, ready func(session.NodeFile) error) error {
	if err := cfg.Validate(); err != nil {
		return &fault.Error{Op: "node.Run", Kind: fault.System, Detail: "the configuration is not valid", Err: err}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	n := &Node{
		cfg: cfg, log: log, id: newNodeID(), names: resource.NewNames(), started: time.Now(), cancel: cancel,
		clients: map[engine.SessionID]*client{}, byKey: map[[wire.SessionSize]byte]engine.SessionID{}, byWorker: map[*pool.Worker]*client{},
		peers: peerTable{byID: map[ids.NodeID]*peer{}, byNo: map[engine.NodeNo]*peer{}, dead: map[ids.NodeID]bool{}, early: map[ids.NodeID][][]byte{}}, fetches: map[uint64]*fetching{}, headConns: map[*headConn]bool{}, desks: map[ids.Job]*logDesk{},
		remotes: remotes{by: map[string]*remote{}},
		jobs:    map[ids.Job]*jobInfo{}, warnings: map[string]time.Time{}, registered: make(chan *headstate.Registered, 1),
	}
	if err := n.start(ctx, faces); err != nil {
		n.abandon()
		return err
	}
	n.log.Info("node is ready", "node", n.id.String(), "address", n.file.GCSAddress, "socket", n.file.Socket)
	if err := ready(n.file); err != nil {
		n.log.Warn("the program that started this daemon is gone", "err", err)
	}
	n.logs.guard() // the daemon's output goes there only now
	n.Prestart()
	<-ctx.Done()
	err := context.Cause(ctx)
	n.Close(err)
	n.running.Wait()
	n.reactor.close()
	n.release()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Prestart warms workers up once the daemon serves.
func (n *Node) Prestart() {
	if n.cfg.Private {
		n.locked(func(e *engine.Engine) { e.Prestart(int(n.cpus())) })
	}
}

func (n *Node) start(ctx context.Context, faces Faces) error {
	root, err := session.OpenRoot(n.cfg.TempDir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	if n.ip = n.cfg.NodeIP; n.ip == "" {
		n.ip = "127.0.0.1"
		if !n.cfg.Private {
			n.ip = rpc.LocalIP(n.cfg.Address)
		}
	}
	if err := n.askPython(ctx); err != nil {
		return err
	}
	if n.cfg.Head {
		if n.cfg.SessionName != "" {
			n.dir, err = root.OpenOrCreate(n.cfg.SessionName)
		} else {
			n.dir, err = root.Create(n.started)
		}
		if err != nil {
			return err
		}
		if err := n.headToken(); err != nil {
			return err
		}
	} else if err := n.join(ctx, root, faces); err != nil {
		return err
	}
	if n.reactor, err = startReactor(); err != nil {
		return err
	}
	if err := n.machinery(); err != nil {
		return err
	}
	if err := n.listen(ctx, faces); err != nil {
		return err
	}
	if err := n.face(faces); err != nil {
		return err
	}
	return n.announce(ctx, root)
}

// headToken finds or makes the cluster's token.
func (n *Node) headToken() (err error) {
	switch {
	case n.cfg.AuthDisabled:
		n.token = session.DisabledToken()
	case n.cfg.Token != "":
		n.token, err = n.cfg.ClusterToken()
	case n.cfg.Private:
		n.token = session.RandomToken()
	default:
		n.token, err = session.HeadToken()
	}
	return err
}

// machinery makes the store and the workers' zygote; it starts in the background while the rest goes on.
func (n *Node) machinery() error {
	n.sizes()
	capacity := int64(0)
	if n.cfg.ObjectStoreMemory != nil {
		capacity = *n.cfg.ObjectStoreMemory
	}
	if dir := n.cfg.PlasmaDirectory; dir != "" {
		if st, err := os.Stat(dir); err != nil || !st.IsDir() {
			return &fault.Error{Op: "open object store", Ref: dir, Kind: fault.System, Err: err, Detail: "--plasma-directory must be a folder that exists; name another, or leave it out"}
		}
	}
	plan, err := arena.MakePlan(arena.Config{Capacity: capacity, ShmDir: n.cfg.PlasmaDirectory, Fallback: n.dir.Path})
	if err != nil {
		return err
	}
	if plan.Warning != "" {
		n.log.Warn(plan.Warning)
		n.file.Warnings = append(n.file.Warnings, plan.Warning) // a program that started this daemon sees no log
	}
	if n.arena, err = arena.Open(plan); err != nil {
		return err
	}
	n.logs = startLogSource(n, n.logLimit())
	n.pool, err = pool.Start(pool.Config{
		Python: n.python(), LogDir: n.dir.LogDir(), SDKDir: sdkDir(), Preload: n.cfg.Preload, Env: workerEnv(n), Arena: n.arena.File(),
		Log: n.log, OOMScoreAdj: 500, Died: n.died,
	})
	return err
}

// workerEnv is the environment of workers: the daemon's, without what is secret.
func workerEnv(n *Node) []string {
	env := make([]string, 0, len(os.Environ())+4)
	for _, kv := range os.Environ() {
		switch name, _, _ := cut(kv); name {
		case "RAY_AUTH_TOKEN", "GRAY_PYTHON":
		default:
			env = append(env, kv)
		}
	}
	return append(env, "RAY_NODE_ID="+n.id.String(), "RAY_RAYLET_PID="+strconv.Itoa(os.Getpid()))
}

func cut(kv string) (name, value string, ok bool) {
	for i := 1; i < len(kv); i++ {
		if kv[i] == '=' {
			return kv[:i], kv[i+1:], true
		}
	}
	return kv, "", false
}

// python is the interpreter of the workers.
func (n *Node) python() string {
	if n.cfg.Python != "" {
		return n.cfg.Python
	}
	if p := os.Getenv("GRAY_PYTHON"); p != "" {
		return p
	}
	return "python3"
}

// sdkDir is the folder with the package ray that this binary came with, if it stands in one.
func sdkDir() string {
	exe, err := os.Executable()
	if err != nil {
		return ""
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil {
		return ""
	}
	dir := filepath.Dir(filepath.Dir(filepath.Dir(exe))) // …/ray/_bin/ray
	if _, err := os.Stat(filepath.Join(dir, "ray", "_core", "zygote.py")); err != nil {
		return ""
	}
	return dir
}

func (n *Node) cpus() float64 {
	if n.cfg.NumCPUs != nil {
		return *n.cfg.NumCPUs
	}
	c, err := machine.CPUs()
	if err != nil {
		n.warn("cpus", "the number of CPUs could not be read, 1 is assumed: "+err.Error())
		return 1
	}
	return float64(c)
}

const quantum = 10000

// sizes settles the node's resources.
func (n *Node) sizes() {
	m := map[string]int64{"CPU": int64(math.Round(n.cpus() * quantum))}
	if n.cfg.NumGPUs != nil {
		m["GPU"] = int64(math.Round(*n.cfg.NumGPUs * quantum))
	}
	store := int64(0)
	if plan, err := arena.MakePlan(arena.Config{}); err == nil {
		store = plan.Capacity
	}
	if n.cfg.ObjectStoreMemory != nil {
		store = *n.cfg.ObjectStoreMemory
	}
	n.file.ObjectStoreMemory = store
	m["object_store_memory"] = store * quantum
	if n.cfg.Memory != nil {
		m["memory"] = *n.cfg.Memory * quantum
	} else if total, err := machine.Memory(); err == nil {
		m["memory"] = max((total-store)*7/10, 0) * quantum
	}
	for k, v := range n.cfg.Resources {
		m[k] = int64(math.Round(v * quantum))
	}
	m["node:"+n.ip] = quantum
	if n.cfg.Head {
		m["node:__internal_head__"] = quantum
	}
	if n.cfg.Labels == nil {
		n.cfg.Labels = map[string]string{}
	}
	n.cfg.Labels["ray.io/node-id"] = n.id.String()
	set, err := n.names.Set(m)
	if err != nil {
		n.log.Error("resources", "err", err)
	}
	n.total = set
}

// announce registers with the head, opens the client socket and writes the node file.
func (n *Node) announce(ctx context.Context, root *session.Root) error {
	name := "raylet"
	if !n.cfg.Head {
		name += "." + n.id.String()[:8]
	}
	var err error
	if n.sock, err = n.dir.Listen(name); err != nil {
		return err
	}
	tokenFile, err := n.dir.WriteToken(n.token) // where authentication is disabled, the token that says so
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		host = n.ip
	}
	n.file.NodeID, n.file.NodeIP, n.file.Socket, n.file.PID = n.id.String(), n.ip, n.sock.Path, os.Getpid()
	if n.file.StartTime, err = session.StartTime(os.Getpid()); err != nil {
		return err
	}
	n.file.Head, n.file.Private, n.file.Guest, n.file.SessionDir, n.file.TokenFile = n.cfg.Head, n.cfg.Private, n.cfg.Guest, n.dir.Path, tokenFile
	n.file.SessionName, n.file.TLS = filepath.Base(n.dir.Path), n.cfg.TLS
	n.file.NodeName, n.file.Labels = orDefault(n.cfg.NodeName, n.ip), n.cfg.Labels
	n.file.Resources = floats(n.names.Map(n.total))
	info := headstate.NodeInfo{
		ID: n.id, Epoch: uint64(n.started.UnixNano()), IP: n.ip, Hostname: host, Name: n.file.NodeName,
		Port: n.port, ObjectPort: n.port, MetricsPort: n.file.MetricsExportPort, AgentPort: n.agentPort, PID: os.Getpid(), Head: n.cfg.Head,
		Socket: n.sock.Path, Total: n.names.Map(n.total), Labels: n.cfg.Labels, Guest: n.cfg.Guest,
	}
	n.link = headlink.Start(headlink.Config{Node: info, Head: n.file.GCSAddress, Handler: &handler{n}, Clock: head.SystemClock{}, Log: n.log, AbsentLimit: absentLimit()})
	if n.head != nil {
		if err := headlink.Local(n.head, n.id, n.link); err != nil {
			return err
		}
	} else {
		// It outlives ctx: the head is told when this daemon ends.
		link, hangUp := context.WithCancel(context.WithoutCancel(ctx))
		n.hangUp = hangUp
		n.spawn(func() { n.dialHead(link) })
	}
	select {
	case r := <-n.registered:
		n.startEngine(r, int(n.cpus()))
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(registerTimeout):
		return &fault.Error{Op: "node.join", Kind: fault.System, Ref: n.file.GCSAddress, Detail: "the head accepted the connection but did not register this node within 60 s; see its log"}
	}
	n.link.Follow(true)
	if err := n.openClientPort(); err != nil {
		return err
	}
	clients := &door{n: n}
	n.spawn(func() { clients.serve(ctx) })
	if err := n.dir.WriteNode(n.file); err != nil {
		return err
	}
	if err := root.SetLatest(n.file.SessionName); err != nil {
		n.log.Warn("session_latest could not be set", "err", err)
	}
	if !n.cfg.Private && !n.cfg.Guest {
		if err := root.SetCurrent(n.file.GCSAddress); err != nil {
			n.log.Warn("ray_current_cluster could not be set", "err", err)
		}
	}
	if err := root.Clean(keptSessions); err != nil {
		n.log.Warn("old sessions could not be cleaned", "err", err)
	}
	return n.watchDriver()
}

// absentLimit is how long a head may be absent. In a pod what a head knew is gone with its container, so one that ended
// does not come back; elsewhere it may be started again with its session.
func absentLimit() time.Duration {
	if machine.InPod() {
		return 3 * time.Second
	}
	return 0
}

func orDefault(s, d string) string {
	if s != "" {
		return s
	}
	return d
}

// watchDriver ends a private cluster or a guest with its driver, and a daemon of `ray start --block` with its supervisor.
func (n *Node) watchDriver() error {
	if n.cfg.DriverPID == 0 {
		return nil
	}
	_, err := n.pool.Watch(n.cfg.DriverPID, uint64(n.cfg.DriverStartTime), func() { n.cancel(nil) })
	if err != nil {
		return &fault.Error{Op: "node.start", Kind: fault.System, Detail: "the process that asked for this daemon is gone", Err: err}
	}
	return nil
}

// abandon gives back what a failed start had taken.
func (n *Node) abandon() {
	if n.sock != nil {
		_ = n.sock.Close()
	}
	if n.pool != nil {
		n.pool.Stop()
	}
	if n.logs != nil {
		n.logs.close()
	}
	n.closeEnvirons()
	if n.hangUp != nil {
		n.hangUp()
	}
	if n.link != nil {
		n.link.Close()
	}
	if n.head != nil {
		_ = n.head.Close() // nobody was told anything yet
		_ = n.store.Close()
	}
	n.closePorts()
	if n.reactor != nil {
		n.reactor.close()
	}
	n.release()
}

// release gives back memory and descriptors once nothing uses them.
func (n *Node) release() {
	if n.arena != nil {
		if err := n.arena.Close(); err != nil {
			n.log.Warn("the object store did not close", "err", err)
		}
	}
	if n.dir != nil {
		_ = n.dir.Close()
	}
}

// handler takes what the head says to the engine.
type handler struct{ n *Node }

func (h *handler) Inventory(reply func(headstate.Inventory)) {
	n := h.n
	n.mu.Lock()
	inv := headstate.Inventory{}
	for j := range n.jobs {
		inv.Jobs = append(inv.Jobs, j)
	}
	for _, c := range n.clients {
		if c.worker == nil && c.id != 0 && c.readDone == nil && !c.over {
			inv.Drivers = append(inv.Drivers, c.job)
		}
	}
	inv.Peers = n.peers.known()
	if n.eng != nil {
		inv.Actors = n.eng.Actors()
		for k := range inv.Actors {
			n.place(&inv.Actors[k])
		}
	}
	n.mu.Unlock()
	reply(inv)
}

func (h *handler) Registered(first bool, r *headstate.Registered) {
	if first {
		h.n.registered <- r
		return
	}
	for _, j := range r.EndedJobs {
		h.n.jobEnded(j)
	}
	for _, p := range r.DeadPeers {
		h.n.peerDead(p, nil, "it was declared dead while this node could not reach the head")
	}
}

// LeaseLost ends all work before the head may give it to others.
func (h *handler) LeaseLost(why string) {
	h.n.log.Error("this node stops its workers: it could not renew its lease and may be declared dead", "why", why)
	h.n.locked(func(e *engine.Engine) { e.Fence(true) })
}

func (h *handler) LeaseBack() { h.n.locked(func(e *engine.Engine) { e.Fence(false) }) }

func (h *handler) Refused(r *headstate.Refused) {
	if r.Reason == headstate.RefusedEnded {
		h.n.cancel(&fault.Error{Op: "node.member", Kind: fault.Cluster, Ref: h.n.file.GCSAddress, Detail: r.Error + ", and the cluster with it; this node ends, too"})
		return
	}
	h.n.cancel(&fault.Error{Op: "node.register", Kind: fault.System, Ref: h.n.file.GCSAddress, Detail: fmt.Sprintf("the head refused this node (%s): %s; start it again", r.Reason, r.Error)})
}

func (h *handler) NodeDead(d *headstate.NodeDead) { h.n.peerDead(d.Node, d.Owners, d.Message) }

func (h *handler) JobEnded(j *headstate.JobEnded) { h.n.jobEnded(j.Job) }

// jobEnded ends what runs for a job, and forgets it.
func (n *Node) jobEnded(j ids.Job) {
	n.locked(func(e *engine.Engine) {
		e.JobEnded(j)
		delete(n.jobs, j)
		n.after = append(n.after, func() { n.logs.stop(j, true) })
		for _, p := range n.peers.byID {
			delete(p.jobs, j)
		}
	})
}

func (h *handler) ViewPut(v headstate.NodeView) { h.n.viewPut(v) }

func (h *handler) ViewDrop(id ids.NodeID) { h.n.viewDrop(id) }

// addressOf is host:port.
func addressOf(ip string, port int) string { return net.JoinHostPort(ip, strconv.Itoa(port)) }

// leave tells the head that this daemon ends, if it is elsewhere and answers soon.
func (n *Node) leave() {
	if n.head != nil {
		return
	}
	ctx, stop := context.WithTimeout(context.Background(), time.Second)
	defer stop()
	if err := n.link.Leave(ctx, "Expected termination: received SIGTERM"); err != nil {
		n.log.Warn("the head was not told that this node ends", "err", err)
	}
}
