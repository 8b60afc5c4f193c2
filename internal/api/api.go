// Package api is the HTTP face of a cluster: what Ray's dashboard and its agents answer, with our own figures.
//
// Handlers only look; they change nothing but a browser's cookie. Two styles of answers, as in Ray: the plain JSON of
// the thing, and an envelope {"result", "msg", "data"} whose data has camel-case keys. Times are Unix times in
// milliseconds where the key says Ms, else in seconds; quantities are floats, memory in bytes. A figure that we do not
// have is left out rather than made up.
package api

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"gray/internal/core/headstate"
	"gray/internal/head"
	"gray/internal/rpc"
	"gray/internal/state"
	"gray/internal/version"
)

// jobAPIVersion is what job clients compare; older ones than theirs are refused by them.
const jobAPIVersion = "4"

// cookieAge is how long a browser stays logged in.
const cookieAge = 30 * 24 * time.Hour

// Cluster is what the head knows; a *head.Service is one.
type Cluster interface {
	Summary(ctx context.Context) (*head.Summary, error)
	State(ctx context.Context, q *state.Question) (*state.Answer, error)
	Healthy(ctx context.Context) error
}

// Config is what the handlers need.
type Config struct {
	Cluster      Cluster                     // of a dashboard; nil on an agent's machine without the head
	SessionName  string                      // for /api/version
	AuthDisabled bool                        // RAY_AUTH_MODE=disabled
	Local        func(context.Context) error // nil while the daemon of this machine works
	Explain      Explainer                   // nil: nothing is explained
	Logs         LogAsker                    // nil: no logs are shown
	Log          *slog.Logger                // nil: the default one
}

type server struct{ Config }

// healthWithin bounds a health check: whoever asks has patience of his own, often 1 to 5 s.
const healthWithin = 2 * time.Second

// askWithin bounds any other question to the head.
const askWithin = 10 * time.Second

// Dashboard adds the routes of the head's HTTP port.
func Dashboard(m *rpc.Mux, c Config) {
	s := newServer(c)
	m.HandleFunc("GET /", rpc.Open, s.page)
	m.HandleFunc("GET /api/authentication_mode", rpc.Open, s.authenticationMode)
	m.HandleFunc("POST /api/authenticate", rpc.Token, s.authenticate, rpc.BrowserMayWrite)
	m.HandleFunc("GET /api/gcs_healthz", rpc.Open, s.headHealth)
	m.HandleFunc("GET /api/version", rpc.Token, s.version)
	m.HandleFunc("GET /api/ray/version", rpc.Token, s.version)
	m.HandleFunc("GET /api/cluster_status", rpc.Token, s.clusterStatus)
	m.HandleFunc("GET /cluster_id", rpc.Token, s.clusterID)
	m.HandleFunc("GET /nodes", rpc.Token, s.nodes)
	m.HandleFunc("GET /nodes/{id}", rpc.Token, s.node)
	State(m, c)
}

// State adds the routes of the state API, which the head's own port has for commands, too.
func State(m *rpc.Mux, c Config) {
	s := newServer(c)
	s.tableRoutes(m)
	m.HandleFunc("GET /api/v0/explain/{id}", rpc.Token, s.explain)
	m.HandleFunc("GET /api/v0/logs", rpc.Token, s.listLogs)
	m.HandleFunc("GET /api/v0/logs/{media}", rpc.Token, s.log)
}

// Agent adds the routes of each node's HTTP port. Probes can't show a token.
func Agent(m *rpc.Mux, c Config) {
	s := newServer(c)
	m.HandleFunc("GET /api/local_raylet_healthz", rpc.Open, s.localHealth)
	m.HandleFunc("GET /api/healthz", rpc.Open, s.unifiedHealth)
}

func newServer(c Config) *server {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &server{c}
}

const page = `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Gray</title></head>
<body><h1>Gray</h1><p>This cluster's head is running. On its machine, <code>ray status</code> shows what it does.</p></body></html>
`

func (s *server) page(w http.ResponseWriter, _ *http.Request) {
	s.write(w, http.StatusOK, "text/html; charset=utf-8", []byte(page))
}

func (s *server) write(w http.ResponseWriter, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil {
		s.Log.Debug("an HTTP client left before its answer", "err", err)
	}
}

func (s *server) json(w http.ResponseWriter, status int, v any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		s.Log.Error("an answer can't be written as JSON", "err", err)
		http.Error(w, "Internal Server Error", http.StatusInternalServerError)
		return
	}
	s.write(w, status, "application/json; charset=utf-8", b.Bytes())
}

type object = map[string]any

func (s *server) envelope(w http.ResponseWriter, msg string, data object) {
	s.json(w, http.StatusOK, object{"result": true, "msg": msg, "data": data})
}

func (s *server) refuse(w http.ResponseWriter, status int, msg string) {
	s.json(w, status, object{"result": false, "msg": msg, "data": object{}})
}

func (s *server) authenticationMode(w http.ResponseWriter, _ *http.Request) {
	mode := "token"
	if s.AuthDisabled {
		mode = "disabled"
	}
	s.json(w, http.StatusOK, object{"authentication_mode": mode})
}

// authenticate turns a bearer token, which the server has checked, into a browser's cookie.
func (s *server) authenticate(w http.ResponseWriter, r *http.Request) {
	if token := bearer(r); token != "" {
		http.SetCookie(w, &http.Cookie{
			Name: "ray-authentication-token", Value: token, Path: "/", MaxAge: int(cookieAge.Seconds()),
			HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil,
		})
	}
	s.json(w, http.StatusOK, object{"status": "authenticated", "message": "Token is valid"})
}

func bearer(r *http.Request) string {
	for _, name := range []string{"Authorization", "X-Ray-Authorization"} {
		if scheme, token, ok := strings.Cut(r.Header.Get(name), " "); ok && strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(token)
		}
	}
	return ""
}

// health answers a probe. Strangers may ask, so they don't learn the reason: the log does.
func (s *server) health(w http.ResponseWriter, what string, err error) {
	if err == nil {
		s.write(w, http.StatusOK, "text/plain; charset=utf-8", []byte("success"))
		return
	}
	s.Log.Warn("a health check failed", "of", what, "err", err)
	s.write(w, http.StatusServiceUnavailable, "text/plain; charset=utf-8", []byte(what+" does not answer"))
}

func (s *server) checkHead(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healthWithin)
	defer cancel()
	return s.Cluster.Healthy(ctx)
}

func (s *server) checkLocal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healthWithin)
	defer cancel()
	return s.Local(ctx)
}

func (s *server) headHealth(w http.ResponseWriter, r *http.Request) {
	s.health(w, "the head", s.checkHead(r.Context()))
}

func (s *server) localHealth(w http.ResponseWriter, r *http.Request) {
	s.health(w, "the node's daemon", s.checkLocal(r.Context()))
}

func (s *server) unifiedHealth(w http.ResponseWriter, r *http.Request) {
	status := http.StatusOK
	line := func(name string, err error) string {
		if err == nil {
			return name + ": success"
		}
		s.Log.Warn("a health check failed", "of", name, "err", err)
		status = http.StatusServiceUnavailable
		return name + ": does not answer"
	}
	lines := []string{line("raylet", s.checkLocal(r.Context()))}
	if s.Cluster == nil {
		lines = append(lines, "gcs: success (no local gcs)")
	} else {
		lines = append(lines, line("gcs", s.checkHead(r.Context())))
	}
	s.write(w, status, "text/plain; charset=utf-8", []byte(strings.Join(lines, "\n")))
}

func (s *server) version(w http.ResponseWriter, _ *http.Request) {
	s.json(w, http.StatusOK, object{
		"version": jobAPIVersion, "ray_version": version.Version, "ray_commit": "", "session_name": s.SessionName,
	})
}

// summary asks the head; if it fails, the caller has been told.
func (s *server) summary(w http.ResponseWriter, r *http.Request) *head.Summary {
	ctx, cancel := context.WithTimeout(r.Context(), askWithin)
	defer cancel()
	sum, err := s.Cluster.Summary(ctx)
	if err != nil {
		s.refuse(w, http.StatusInternalServerError, err.Error())
		return nil
	}
	return sum
}

func (s *server) clusterID(w http.ResponseWriter, r *http.Request) {
	if sum := s.summary(w, r); sum != nil {
		s.envelope(w, "Fetched cluster id", object{"clusterId": hex.EncodeToString(sum.Cluster[:])})
	}
}

// clusterStatus answers under both of the names that clients look for: documents say cluster_status, servers of Ray
// send clusterStatus.
func (s *server) clusterStatus(w http.ResponseWriter, r *http.Request) {
	sum := s.summary(w, r)
	if sum == nil {
		return
	}
	if r.URL.Query().Get("format") == "1" {
		text := sum.Status(r.URL.Query().Get("verbose") == "1")
		s.envelope(w, "Got formatted cluster status.", object{"clusterStatus": text, "cluster_status": text})
		return
	}
	status := statusData(sum)
	s.envelope(w, "Got cluster status.", object{
		"autoscalingStatus": nil, "autoscalingError": nil, "clusterStatus": status, "cluster_status": status,
	})
}

func statusData(sum *head.Summary) object {
	active, types, byNode := object{}, object{}, object{}
	nodeTypes := [][]any{}
	failed := [][]string{}
	for _, n := range sum.Nodes {
		id := n.Info.ID.String()
		switch {
		case n.Alive:
			active["node_"+id] = 1
			types[id] = "node_" + id
			byNode[id] = usage(n.Info.Total, n.Available)
			nodeTypes = append(nodeTypes, []any{floats(n.Info.Total, false), 1})
		case n.DeathReason == headstate.UnexpectedTermination:
			failed = append(failed, []string{n.Info.IP, "node_" + id})
		}
	}
	demand := [][]any{}
	for _, d := range sum.Demands {
		demand = append(demand, []any{floats(d.Shape, false), d.Count})
	}
	return object{
		"time": float64(sum.Time.UnixMicro()) / 1e6,
		"autoscalerReport": object{
			"activeNodes": active, "pendingNodes": []any{}, "pendingLaunches": object{}, "failedNodes": failed, "nodeTypeMapping": types,
		},
		"loadMetricsReport": object{
			"usage": usage(sum.Total, sum.Available), "usageByNode": byNode, "resourceDemand": demand,
			"pgDemand": []any{}, "requestDemand": []any{}, "nodeTypes": nodeTypes,
		},
	}
}
