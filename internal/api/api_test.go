package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gray/internal/core/headstate"
	"gray/internal/core/ids"
	"gray/internal/head"
	"gray/internal/rpc"
	"gray/internal/session"
	"gray/internal/version"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeCluster is a head with two nodes, or one that does not answer.
type fakeCluster struct{ err error }

func (f fakeCluster) Healthy(context.Context) error { return f.err }

func (f fakeCluster) Summary(context.Context) (*head.Summary, error) {
	if f.err != nil {
		return nil, f.err
	}
	total := headstate.Resources{"CPU": 40000, "object_store_memory": 10000 << 20, "node:__internal_head__": 10000}
	available := headstate.Resources{"CPU": 25000, "object_store_memory": 10000 * (1<<20 - 100), "node:__internal_head__": 10000}
	return &head.Summary{
		Time: time.UnixMilli(1_700_000_000_500), Cluster: headstate.ClusterID{0xab}, Total: total, Available: available,
		Nodes: []headstate.NodeRow{
			{
				Info:  headstate.NodeInfo{ID: ids.NodeID{1}, IP: "10.0.0.1", Hostname: "h1", Head: true, Total: total, Labels: map[string]string{"a": "b"}},
				Alive: true, Available: available, StartMs: 5,
			},
			{
				Info:        headstate.NodeInfo{ID: ids.NodeID{2}, IP: "10.0.0.2", Hostname: "h2"},
				DeathReason: headstate.UnexpectedTermination, DeathMessage: "silent", EndMs: 7,
			},
		},
		Demands: []headstate.ShapeDemand{{Shape: headstate.Resources{"CPU": 1000000}, Count: 3, Infeasible: true}},
	}, nil
}

type client struct {
	t    *testing.T
	base string
	http http.Client
}

// token is a well-formed one, for these tests only.
var token = session.RandomToken()

func serve(t *testing.T, add func(*rpc.Mux, Config), c Config, browsers rpc.BrowserPolicy) *client {
	t.Helper()
	ln, err := rpc.Listen("127.0.0.1", 0, "--dashboard-port")
	if err != nil {
		t.Fatal(err)
	}
	c.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	mux := &rpc.Mux{}
	add(mux, c)
	s, err := rpc.Serve(ln, rpc.ServerConfig{Name: "test", Mux: mux, Token: token, Plain: rpc.PlainAny, Browsers: browsers, Log: c.Log})
	if err != nil {
		t.Fatal(err)
	}
	cl := &client{t: t, base: "http://" + ln.Addr().String()}
	t.Cleanup(func() {
		cl.http.CloseIdleConnections()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return cl
}

func (c *client) do(method, path string, header ...string) (int, string, http.Header) {
	c.t.Helper()
	r, err := http.NewRequest(method, c.base+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	a, err := c.http.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return a.StatusCode, string(b), a.Header
}

func (c *client) get(path string) (int, string) {
	status, body, _ := c.do("GET", path, "Authorization", "Bearer "+token.Reveal())
	return status, body
}

// data is the data of an envelope that says that all is well.
func (c *client) data(path string) map[string]any {
	c.t.Helper()
	status, body := c.get(path)
	var e struct {
		Result bool
		Data   map[string]any
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil || status != 200 || !e.Result {
		c.t.Fatalf("%s: %d %s %v", path, status, body, err)
	}
	return e.Data
}

// at walks down maps and lists.
func at(v any, keys ...any) any {
	for _, k := range keys {
		switch k := k.(type) {
		case string:
			v = v.(map[string]any)[k]
		case int:
			v = v.([]any)[k]
		}
	}
	return v
}

func TestOnlyTheOpenRoutesAreOpen(t *testing.T) {
	open := map[string]string{
		"/": "<h1>Gray</h1>", "/api/gcs_healthz": "success", "/api/authentication_mode": `{"authentication_mode":"token"}`,
	}
	c := serve(t, Dashboard, Config{Cluster: fakeCluster{}}, rpc.BrowsersRead)
	for path, want := range open {
		if status, body, _ := c.do("GET", path); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
	mux := &rpc.Mux{}
	Dashboard(mux, Config{})
	for _, pattern := range mux.Routes(rpc.Open) {
		if _, ok := open[strings.TrimPrefix(pattern, "GET ")]; !ok {
			t.Errorf("%s is open", pattern)
		}
	}
	for _, pattern := range mux.Routes(rpc.Token) {
		method, path, _ := strings.Cut(pattern, " ")
		if status, body, _ := c.do(method, path); status != 401 || strings.TrimSpace(body) != "Unauthorized: Missing authentication token" {
			t.Errorf("%s without a token: %d %q", pattern, status, body)
		}
		if status, body, _ := c.do(method, path, "Authorization", "Bearer x"); status != 403 || strings.TrimSpace(body) != "Forbidden: Invalid authentication token" {
			t.Errorf("%s with a wrong one: %d %q", pattern, status, body)
		}
	}
}

func TestLogIn(t *testing.T) {
	c := serve(t, Dashboard, Config{Cluster: fakeCluster{}}, rpc.BrowsersRead)
	status, body, header := c.do("POST", "/api/authenticate", "Authorization", "Bearer "+token.Reveal(), "User-Agent", "Mozilla/5.0")
	if status != 200 || strings.TrimSpace(body) != `{"message":"Token is valid","status":"authenticated"}` {
		t.Fatalf("%d %q", status, body)
	}
	cookie := header.Get("Set-Cookie")
	for _, part := range []string{"ray-authentication-token=" + token.Reveal(), "HttpOnly", "SameSite=Strict", "Max-Age=2592000", "Path=/"} {
		if !strings.Contains(cookie, part) {
			t.Errorf("cookie %q lacks %q", strings.ReplaceAll(cookie, token.Reveal(), "[token]"), strings.ReplaceAll(part, token.Reveal(), "[token]"))
		}
	}
	name, _, _ := strings.Cut(cookie, ";")
	if status, body, _ := c.do("GET", "/api/version", "Cookie", name); status != 200 {
		t.Errorf("with the cookie: %d %q", status, body)
	}
}

func TestDashboard(t *testing.T) {
	c := serve(t, Dashboard, Config{Cluster: fakeCluster{}, SessionName: "session_x"}, rpc.BrowsersRead)
	if status, body := c.get("/api/version"); status != 200 || strings.TrimSpace(body) != `{"ray_commit":"","ray_version":"`+version.Version+`","session_name":"session_x","version":"4"}` {
		t.Errorf("version: %d %s", status, body)
	}
	text := c.data("/api/cluster_status?format=1")
	sum, _ := fakeCluster{}.Summary(t.Context())
	if text["clusterStatus"] != sum.Status(false) || text["cluster_status"] != sum.Status(false) {
		t.Errorf("status text: %v", text)
	}
	if got := c.data("/api/cluster_status?format=1&verbose=1")["clusterStatus"]; got != sum.Status(true) || got == sum.Status(false) {
		t.Errorf("verbose status: %v", got)
	}
	one, two := ids.NodeID{1}.String(), ids.NodeID{2}.String()
	status := c.data("/api/cluster_status")["clusterStatus"]
	nodes := c.data("/nodes?view=summary")
	for i, tc := range []struct{ got, want any }{
		{at(status, "time"), 1_700_000_000.5},
		{at(status, "autoscalerReport", "activeNodes", "node_"+one), 1.0},
		{at(status, "autoscalerReport", "failedNodes", 0, 1), "node_" + two},
		{at(status, "loadMetricsReport", "usage", "CPU", 0), 1.5},
		{at(status, "loadMetricsReport", "usageByNode", one, "objectStoreMemory", 0), 100.0},
		{at(status, "loadMetricsReport", "resourceDemand", 0, 0, "CPU"), 100.0},
		{at(status, "loadMetricsReport", "resourceDemand", 0, 1), 3.0},
		{at(nodes, "summary", 0, "raylet", "nodeId"), one},
		{at(nodes, "summary", 0, "raylet", "state"), "ALIVE"},
		{at(nodes, "summary", 0, "raylet", "resourcesTotal", "node:InternalHead"), 1.0},
		{at(nodes, "summary", 0, "raylet", "objectStoreUsedMemory"), 100.0},
		{at(nodes, "summary", 0, "raylet", "startTimeMs"), "5"},
		{at(nodes, "summary", 1, "raylet", "state"), "DEAD"},
		{at(nodes, "summary", 1, "raylet", "stateMessage"), "silent"},
		{at(nodes, "nodeLogicalResources", one), "1.5/4.0 CPU\n100B/1.00MiB object_store_memory"},
		{at(c.data("/nodes?view=hostNameList"), "hostNameList", 0), "h1"},
		{at(c.data("/nodes/"+two), "detail", "ip"), "10.0.0.2"},
		{at(c.data("/cluster_id"), "clusterId"), "ab" + strings.Repeat("0", 54)},
	} {
		if tc.got != tc.want {
			t.Errorf("figure %d is %v, want %v", i, tc.got, tc.want)
		}
	}
	if status, body := c.get("/nodes?view=x"); status != 500 || !strings.Contains(body, `"msg":"Unknown view x"`) {
		t.Errorf("unknown view: %d %s", status, body)
	}
	if status, body := c.get("/nodes/ff"); status != 404 || !strings.Contains(body, `"result":false`) {
		t.Errorf("unknown node: %d %s", status, body)
	}
}

func TestAHeadThatDoesNotAnswer(t *testing.T) {
	c := serve(t, Dashboard, Config{Cluster: fakeCluster{errors.New("stuck at secret place")}}, rpc.BrowsersRead)
	if status, body, _ := c.do("GET", "/api/gcs_healthz"); status != 503 || body != "the head does not answer" {
		t.Errorf("health: %d %q", status, body)
	}
	if status, body := c.get("/api/cluster_status?format=1"); status != 500 || !strings.Contains(body, "stuck at secret place") {
		t.Errorf("status: %d %q", status, body)
	}
}

func TestAgent(t *testing.T) {
	down := func(context.Context) error { return errors.New("down") }
	up := func(context.Context) error { return nil }
	for _, tc := range []struct {
		name          string
		c             Config
		local, all    int
		localS, allOf string
	}{
		{"worker", Config{Local: up}, 200, 200, "success", "raylet: success\ngcs: success (no local gcs)"},
		{"head", Config{Local: up, Cluster: fakeCluster{}}, 200, 200, "success", "raylet: success\ngcs: success"},
		{"no head", Config{Local: up, Cluster: fakeCluster{errors.New("x")}}, 200, 503, "success", "raylet: success\ngcs: does not answer"},
		{"no daemon", Config{Local: down}, 503, 503, "the node's daemon does not answer", "raylet: does not answer\ngcs: success (no local gcs)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := serve(t, Agent, tc.c, rpc.NoBrowsers)
			if status, body, _ := c.do("GET", "/api/local_raylet_healthz"); status != tc.local || body != tc.localS {
				t.Errorf("local: %d %q", status, body)
			}
			if status, body, _ := c.do("GET", "/api/healthz"); status != tc.all || body != tc.allOf {
				t.Errorf("unified: %d %q", status, body)
			}
			if status, body, _ := c.do("GET", "/api/healthz", "User-Agent", "Mozilla/5.0"); status != 403 || strings.TrimSpace(body) != "Browser requests not allowed." {
				t.Errorf("a browser: %d %q", status, body)
			}
		})
	}
}

func TestCamel(t *testing.T) {
	for in, want := range map[string]string{
		"CPU": "CPU", "object_store_memory": "objectStoreMemory", "node:__internal_head__": "node:InternalHead", "": "",
	} {
		if got := camel(in); got != want {
			t.Errorf("camel(%q) = %q, want %q", in, got, want)
		}
	}
}
