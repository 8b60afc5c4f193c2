package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"syscall"
	"time"

	"gray/internal/core/explain"
	"gray/internal/core/headstate"
	"gray/internal/head"
	"gray/internal/machine"
	"gray/internal/pool"
	"gray/internal/rpc"
	"gray/internal/session"
	"gray/internal/version"
)

// hello is what this daemon tells others before anything else.
func (n *Node) hello() rpc.Hello {
	return rpc.Hello{Protocol: rpc.Protocol, Ray: version.Version, Python: n.pythonMinor(), ClusterID: n.clusterID, NodeID: n.id.String(), Incarnation: uint64(n.started.UnixNano())}
}

func (n *Node) tlsMode() rpc.TLSMode {
	if n.cfg.TLS == "off" {
		return rpc.TLSOff
	}
	return rpc.TLSOn
}

// join makes this daemon a member of the cluster at cfg.Address.
func (n *Node) join(ctx context.Context, root *session.Root, faces Faces) error {
	var err error
	if n.cfg.AuthDisabled {
		n.token = session.DisabledToken()
	} else if n.cfg.Token == "" && n.cfg.Kubernetes && faces.Credential != nil {
		n.token = session.Token{} // the head hands it over
	} else if n.token, err = n.cfg.ClusterToken(); err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, n.joinTimeout())
	defer stop()
	var j *rpc.Joined
	if n.token.IsZero() {
		j, err = rpc.JoinByCredential(ctx, n.cfg.Address, n.tlsMode(), n.hello(), faces.Credential)
	} else {
		j, err = rpc.JoinRetry(ctx, n.cfg.Address, n.token, n.tlsMode(), n.hello())
	}
	if err != nil {
		return err
	}
	n.token = j.Token
	n.identity, n.clusterID, n.file.GCSAddress = j.Identity, j.ClusterID, n.cfg.Address
	if n.cfg.NodeIP == "" && j.YourIP != "" {
		n.ip = j.YourIP
	}
	n.dir, err = root.OpenOrCreate(j.SessionName)
	return err
}

// listen opens the node's port, and the head's where the head is here.
func (n *Node) listen(ctx context.Context, faces Faces) error {
	n.budget = rpc.DefaultBudget(n.log)
	if err := n.openEnvirons(); err != nil {
		return err
	}
	if n.cfg.Head {
		if err := n.startHead(faces); err != nil {
			return err
		}
	}
	mux := &rpc.Mux{}
	mux.Handle(rpc.LinkRoute, rpc.Node, rpc.LinkHandler(n.hello, n.takeLink))
	mux.Handle("GET /objects/{id}", rpc.Node, n.objects())
	n.asker = n.identity.HTTPClient()
	mux.HandleFunc("POST "+explainPath, rpc.Node, n.explainHere)
	mux.HandleFunc("GET "+logsPath, rpc.Node, n.logsHere)
	mux.HandleFunc("GET "+logPath, rpc.Node, n.logHere)
	ln, err := rpc.Listen(n.ip, n.cfg.NodeManagerPort, "--node-manager-port")
	if err != nil {
		return err
	}
	n.port = ln.Addr().(*net.TCPAddr).Port
	return n.servePort(ln, "node", mux, rpc.PlainLoopback, rpc.NoBrowsers)
}

func (n *Node) servePort(ln *net.TCPListener, name string, mux *rpc.Mux, plain rpc.PlainPolicy, browsers rpc.BrowserPolicy) error {
	if n.tlsMode() == rpc.TLSOff {
		plain = rpc.PlainAny
	}
	s, err := rpc.Serve(ln, rpc.ServerConfig{
		Name: name, Mux: mux, Token: n.token, AuthDisabled: n.cfg.AuthDisabled, Identity: n.identity,
		Plain: plain, Browsers: browsers, Budget: n.budget, Log: n.log,
	})
	if err == nil {
		n.servers = append(n.servers, s)
	}
	return err
}

// startHead starts the head role and its port.
func (n *Node) startHead(faces Faces) error {
	var cluster headstate.ClusterID
	_, _ = rand.Read(cluster[:]) // never fails
	var err error
	if n.cfg.Private {
		n.store = head.Discard{}
	} else if n.store, err = head.OpenBolt(filepath.Join(n.dir.Path, "head.db")); err != nil {
		return err
	}
	n.head, err = head.Start(head.Config{
		State: headstate.Config{Cluster: cluster, SessionName: filepath.Base(n.dir.Path), StartMs: time.Now().UnixMilli(), Pods: machine.InPod()},
		Store: n.store, Clock: head.SystemClock{}, Log: n.log,
	})
	if err != nil {
		return err
	}
	id := n.head.Cluster()
	n.clusterID = hex.EncodeToString(id[:])
	dir := n.dir
	if n.cfg.Private {
		dir = nil
	}
	ca, err := rpc.NewAuthority(dir)
	if err != nil {
		return err
	}
	if n.identity, err = ca.Identity(n.hello(), n.head.SessionName(), n.token, n.tlsMode()); err != nil {
		return err
	}
	port := session.DefaultPort
	if n.cfg.Port != nil {
		port = *n.cfg.Port
	} else if n.cfg.Private {
		port = 0
	}
	ln, err := rpc.Listen(n.ip, port, "--port")
	if err != nil {
		return err
	}
	n.file.GCSAddress = addressOf(n.ip, ln.Addr().(*net.TCPAddr).Port)
	mux := &rpc.Mux{}
	mux.Handle(rpc.JoinRoute, rpc.Token, rpc.JoinHandler(ca, n.identity, func(h rpc.Hello, _ netip.AddrPort) error { return rpc.Compatible(n.hello(), h) }))
	mux.Handle(rpc.LinkRoute, rpc.Node, rpc.LinkHandler(n.hello, n.takeHeadLink))
	n.packageRoutes(mux)
	mux.HandleFunc("GET /api/gcs_healthz", rpc.Open, n.healthz)
	mux.HandleFunc("GET /api/cluster_status", rpc.Token, n.clusterStatus)
	mux.HandleFunc("GET /api/version", rpc.Token, n.versionInfo)
	if n.cfg.Kubernetes && faces.Verify != nil {
		mux.Handle(rpc.TokenRoute, rpc.Open, rpc.TokenHandler(n.token, faces.Verify, n.log))
	}
	if faces.Head != nil {
		faces.Head(mux, n.faceConfig())
	}
	return n.servePort(ln, "head", mux, rpc.PlainLoopback, rpc.NoBrowsers)
}

// Faces add the routes of the HTTP ports that people and probes ask: the head's own for commands, its dashboard, and each
// node's agent. They lie over this package, so the program hands them in.
type Faces struct {
	Head      func(*rpc.Mux, FaceConfig)
	Dashboard func(*rpc.Mux, FaceConfig)
	Agent     func(*rpc.Mux, FaceConfig)

	// Where pods are known by their ServiceAccount tokens: this one's, for the head at an address, and the check of
	// others'. nil elsewhere.
	Credential func(address string) (string, error)
	Verify     func(ctx context.Context, credential string) (string, error)
}

// FaceConfig is what they may ask.
type FaceConfig struct {
	Head         *head.Service // nil on a node without the head
	SessionName  string
	AuthDisabled bool
	Local        func(context.Context) error // nil while this daemon works
	Explain      func(ctx context.Context, id string) (*explain.Report, error)
	Logs         func(ctx context.Context, address, path string) (*http.Response, error)
	Log          *slog.Logger
}

// Default ports of the faces.
const (
	dashboardPort = 8265
	agentPort     = 52365
)

func (n *Node) faceConfig() FaceConfig {
	return FaceConfig{Head: n.head, SessionName: filepath.Base(n.dir.Path), AuthDisabled: n.cfg.AuthDisabled, Log: n.log, Local: n.local, Explain: n.Explain, Logs: n.askLogs}
}

// face opens the HTTP ports: the agent's on nodes of clusters that were started by a command, the dashboard's on the head
// unless it is switched off; a private cluster has them only if asked.
func (n *Node) face(f Faces) error {
	c := n.faceConfig()
	if n.head != nil && f.Dashboard != nil && (n.cfg.Dashboard == nil && !n.cfg.Private || n.cfg.Dashboard != nil && *n.cfg.Dashboard) {
		mux := &rpc.Mux{}
		f.Dashboard(mux, c)
		host := n.cfg.DashboardHost
		if host == "" {
			host = "127.0.0.1"
		}
		port, err := n.openFace("dashboard", mux, host, n.cfg.DashboardPort, dashboardPort, "--dashboard-port", rpc.BrowsersRead)
		if err != nil {
			return err
		}
		if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
			host = n.ip // what a browser can be given
		}
		n.file.DashboardURL = addressOf(host, port)
	}
	if f.Agent == nil || n.cfg.Private {
		return nil
	}
	mux := &rpc.Mux{}
	f.Agent(mux, c)
	var err error
	if n.agentPort, err = n.openFace("agent", mux, n.ip, n.cfg.AgentPort, agentPort, "--dashboard-agent-listen-port", rpc.NoBrowsers); err != nil {
		return err
	}
	return n.openLocal("agent", mux)
}

// openLocal has the agent answer on localhost, too, where probes ask that run beside this daemon. Not on all addresses:
// what nobody asked for stays closed. Another daemon of the machine may have the port there; then that one answers.
func (n *Node) openLocal(name string, mux *rpc.Mux) error {
	if ip, err := netip.ParseAddr(n.ip); err == nil && ip.IsLoopback() {
		return nil // nodes of a test cluster on loopback have an address each, and the port there
	}
	for _, host := range []string{"127.0.0.1", "::1"} {
		ln, err := rpc.Listen(host, n.agentPort, "--dashboard-agent-listen-port")
		if err != nil {
			n.log.Info("a port does not answer on localhost", "for", name, "err", err)
			continue
		}
		if err := n.servePort(ln, name, mux, rpc.PlainAny, rpc.NoBrowsers); err != nil {
			return err
		}
	}
	return nil
}

// openFace opens a port; the default one gives way to any other when it is taken.
func (n *Node) openFace(name string, mux *rpc.Mux, host string, asked *int, usual int, flag string, b rpc.BrowserPolicy) (int, error) {
	port := usual
	if asked != nil {
		port = *asked
	}
	ln, err := rpc.Listen(host, port, flag)
	if err != nil && asked == nil {
		n.log.Info("the usual port is taken, another is used", "port", usual, "for", name)
		ln, err = rpc.Listen(host, 0, flag)
	}
	if err != nil {
		return 0, err
	}
	port = ln.Addr().(*net.TCPAddr).Port
	return port, n.servePort(ln, name, mux, rpc.PlainAny, b)
}

// local is nil while this daemon serves its clients.
func (n *Node) local(context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || n.eng == nil {
		return errors.New("the node daemon is starting or ending")
	}
	return nil
}

func (n *Node) closePorts() {
	for _, s := range n.servers {
		if err := s.Close(); err != nil {
			n.log.Warn("a port did not close", "err", err)
		}
	}
}

// healthz says whether the head answers.
func (n *Node) healthz(w http.ResponseWriter, r *http.Request) {
	if err := n.head.Healthy(r.Context()); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("success")) // the caller may be gone
}

// interpreterTimeout bounds what the workers' interpreter takes to say its version.
const interpreterTimeout = 5 * time.Second

// askPython learns the interpreter's version before anybody can ask for it. A private cluster's interpreter is its
// driver's, and what it says when the first worker is forked is soon enough.
func (n *Node) askPython(ctx context.Context) (err error) {
	if n.cfg.Private {
		return nil
	}
	ctx, stop := context.WithTimeout(ctx, interpreterTimeout)
	defer stop()
	n.minor, err = pool.Minor(ctx, n.python())
	return err
}

// pythonMinor is the workers' Python minor version, "" if it is not known.
func (n *Node) pythonMinor() string {
	if n.minor == "" && n.pool != nil {
		return n.pool.PythonMinor()
	}
	return n.minor
}

// clusterStatus is the text of `ray status`.
func (n *Node) clusterStatus(w http.ResponseWriter, r *http.Request) {
	text, err := n.head.Status(r.Context(), r.URL.Query().Get("verbose") != "")
	status := http.StatusOK
	out := map[string]any{"result": err == nil, "msg": "Got formatted cluster status.", "data": map[string]any{"cluster_status": text}}
	if err != nil {
		out["msg"] = err.Error()
		status = http.StatusInternalServerError
	}
	n.writeJSON(w, status, out)
}

func (n *Node) versionInfo(w http.ResponseWriter, _ *http.Request) {
	n.writeJSON(w, http.StatusOK, map[string]any{"version": "4", "ray_version": version.Version, "session_name": n.file.SessionName})
}

func (n *Node) writeJSON(w http.ResponseWriter, status int, v map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		n.log.Debug("an answer did not reach its caller", "err", err)
	}
}

// refusedNow tells whether a dial was answered by nobody listening.
func refusedNow(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
