package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gray/internal/rpc"
	"gray/internal/session"
	"gray/internal/version"
)

// TestMain lets the test binary be the ray command: with the real daemon, or with a small one that has a head port and a
// node file and does what a test wants.
func TestMain(m *testing.M) {
	switch os.Getenv("CMD_TEST_RAY") {
	case "real":
		os.Exit(newApp(os.Stdin, os.Stdout, os.Stderr, runNode).main(os.Args[1:]))
	case "small":
		os.Exit(newApp(os.Stdin, os.Stdout, os.Stderr, smallNode).main(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// smallNode behaves as CMD_TEST_NODE says: "" serves, "crash" ends right after it is ready, "early" before that, "slow"
// ignores the end of its context, "orphan" leaves processes behind.
func smallNode(ctx context.Context, cfg session.NodeConfig, ready func(session.NodeFile) error) error {
	how := os.Getenv("CMD_TEST_NODE")
	if how == "early" {
		os.Exit(7)
	}
	root, err := session.OpenRoot(cfg.TempDir)
	if err != nil {
		return err
	}
	defer root.Close()
	token, err := cfg.ClusterToken()
	if err != nil {
		return err
	}
	start, err := session.StartTime(os.Getpid())
	if err != nil {
		return err
	}
	hello := rpc.Hello{Protocol: rpc.Protocol, Ray: version.Version, NodeID: strings.Repeat(fmt.Sprintf("%08x", os.Getpid()), 7)}
	if v := os.Getenv("CMD_TEST_VERSION"); v != "" {
		hello.Ray = v
	}
	n := session.NodeFile{NodeID: hello.NodeID, NodeIP: cfg.NodeIP, PID: os.Getpid(), StartTime: start, Head: cfg.Head, Resources: cfg.Resources, Labels: cfg.Labels}
	var dir *session.Dir
	if cfg.Head {
		if dir, err = root.Create(time.Now()); err != nil {
			return err
		}
		ln, err := rpc.Listen(cfg.NodeIP, *cfg.Port, "--port")
		if err != nil {
			return err
		}
		hello.ClusterID = "small"
		auth, err := rpc.NewAuthority(dir)
		if err != nil {
			return err
		}
		id, err := auth.Identity(hello, dir.Name, token, rpc.TLSOn)
		if err != nil {
			return err
		}
		mux := &rpc.Mux{}
		mux.HandleFunc("GET /api/gcs_healthz", rpc.Open, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "success") })
		mux.HandleFunc("GET /api/cluster_status", rpc.Token, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, `{"result":true,"msg":"","data":{"cluster_status":"======== Autoscaler status\nverbose=`+r.URL.Query().Get("verbose")+`\n"}}`)
		})
		smallState(mux)
		smallExplain(mux)
		mux.Handle(rpc.JoinRoute, rpc.Token, rpc.JoinHandler(auth, id, nil))
		s, err := rpc.Serve(ln, rpc.ServerConfig{Name: "head", Mux: mux, Token: token, Identity: id, Log: slog.Default()})
		if err != nil {
			return err
		}
		defer s.Close()
		n.GCSAddress = s.Addr().String()
		if err := root.SetCurrent(n.GCSAddress); err != nil {
			return err
		}
	} else {
		j, err := rpc.JoinRetry(ctx, cfg.Address, token, rpc.TLSOn, hello)
		if err != nil {
			return err
		}
		if dir, err = root.OpenOrCreate(j.SessionName); err != nil {
			return err
		}
		n.GCSAddress = cfg.Address
	}
	n.SessionName, n.SessionDir, n.Socket = dir.Name, dir.Path, filepath.Join(dir.Path, "sockets", "raylet")
	if n.TokenFile, err = dir.WriteToken(token); err != nil {
		return err
	}
	if err := dir.WriteNode(n); err != nil {
		return err
	}
	if err := ready(n); err != nil {
		return err
	}
	switch how {
	case "crash":
		fmt.Fprintln(os.Stderr, "the small node crashes")
		os.Exit(3)
	case "slow":
		select {}
	case "orphan": // a worker's child that nobody waits for
		if err := exec.Command("/bin/sh", "-c", "(exit 0) & (exit 0) & :").Run(); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return dir.RemoveNode(n.NodeID)
}

// shell is a user's environment: own home, own temp dir.
type shell struct {
	t    *testing.T
	env  []string
	temp string
	home string

	prefix []string // in front of each command line
}

func newShell(t *testing.T) *shell {
	t.Helper()
	s := &shell{t: t, home: t.TempDir(), temp: filepath.Join(t.TempDir(), "ray")}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "RAY_") && !strings.HasPrefix(kv, "HOME=") {
			s.env = append(s.env, kv)
		}
	}
	s.env = append(s.env, "CMD_TEST_RAY=small", "HOME="+s.home, "RAY_TMPDIR="+filepath.Dir(s.temp))
	t.Cleanup(func() {
		if out, status := s.ray("stop", "--force"); status != 0 {
			t.Errorf("stop: status %d: %s", status, out)
		}
	})
	return s
}

func (s *shell) with(env ...string) *shell {
	c := *s
	c.env = append(append([]string(nil), s.env...), env...)
	return &c
}

// ray runs one command and gives what it prints and its status.
func (s *shell) ray(args ...string) (string, int) {
	s.t.Helper()
	cmd := s.command(args...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// must is ray for commands that succeed.
func (s *shell) must(args ...string) string {
	s.t.Helper()
	out, status := s.ray(args...)
	if status != 0 {
		s.t.Fatalf("ray %s: status %d:\n%s", strings.Join(args, " "), status, out)
	}
	return out
}

func (s *shell) nodes() []session.NodeFile {
	s.t.Helper()
	root, err := session.FindRoot(s.temp)
	if err != nil {
		s.t.Fatal(err)
	}
	defer root.Close()
	nodes, err := root.LiveNodes()
	if err != nil {
		s.t.Fatal(err)
	}
	return nodes
}

// head starts a head on a free port and gives its address as the output tells it.
func (s *shell) head(args ...string) string {
	s.t.Helper()
	out := s.must(append([]string{"start", "--head", "--port=0", "--node-ip-address=127.0.0.1"}, args...)...)
	_, rest, found := strings.Cut(out, "ray start --address='")
	address, _, ok := strings.Cut(rest, "'")
	if !found || !ok || !strings.Contains(out, "Ray runtime started.") {
		s.t.Fatalf("the output names no address:\n%s", out)
	}
	return address
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("output lacks %q:\n%s", p, text)
		}
	}
}

func TestUsage(t *testing.T) {
	s := newShell(t)
	for _, tc := range []struct {
		args   string
		status int
		parts  []string
	}{
		{"--version", 0, []string{"ray, version " + version.Version + "\n"}},
		{"--help", 0, []string{"start", "stop", "status", "--version"}},
		{"", 0, []string{"start", "stop"}},
		{"start --help", 0, []string{"--head", "--num-cpus", "--object-store-memory"}},
		{"frobnicate", 2, []string{"No such command 'frobnicate'", "Usage: ray [OPTIONS] COMMAND"}},
		{"start --frobnicate", 2, []string{"Usage: ray start [OPTIONS]", "Try 'ray start --help' for help.", "No such option: --frobnicate"}},
		{"start --head --port", 2, []string{"Option '--port' requires an argument."}},
		{"start --head --num-cpus=x", 2, []string{"Invalid value for '--num-cpus': 'x' is not a valid integer."}},
		{"start --head --include-dashboard=maybe", 2, []string{"'maybe' is not a valid boolean"}},
		{"start --head --log-style=loud", 2, []string{"'loud' is not one of 'auto', 'record', 'pretty'"}},
		{"start --head extra", 2, []string{"unexpected extra argument (extra)"}},
		{"start --head --resources=[1]", 2, []string{"--resources", "not a valid JSON object"}},
		{"start --head --labels=a", 2, []string{"Invalid value for '--labels': 'a': Label string is not a key-value pair. Valid values look like this: --labels=\"key1=val1,key2=val2\""}},
		{"start --head --labels={\"a\":1}", 2, []string{"Label string is not a key-value pair."}},
		{"start --head --labels=a=b=c", 2, []string{"Label string is not a key-value pair."}},
		{"start --address=nowhere", 2, []string{"'nowhere' is not host:port"}},
		{"start --address=:", 2, []string{"':' is not host:port. On Kubernetes the head's Service is not there"}},
		{"start --head --min-worker-port=9 --max-worker-port=8", 2, []string{"--min-worker-port 9"}},
		{"start", 1, []string{"`--address` is a required flag unless starting a head node with `--head`."}},
		{"start --address=127.0.0.1:1 --port=5", 1, []string{"`--port` should only be specified when starting head node with `--head`."}},
		{"start --head --num-cpus=-1 --port=70000", 1, []string{"num_cpus = -1", "port = 70000"}},
		{"start --head --object-store-memory=1", 1, []string{"at least 78643200"}},
		{"start --head --autoscaling-config=x", 1, []string{"--autoscaling-config", "the autoscaler is not in this version"}},
		{"start --head --ray-client-server-port=70000", 1, []string{"ray_client_server_port = 70000: want 0 (any free port) to 65535"}},
		{"start --address=127.0.0.1:1 --redis-address=x", 1, []string{"use --address"}},
		{"start --address=auto", 1, []string{"ConnectionError: Could not find any running Ray instance."}},
		{"list", 2, []string{"Usage: ray list [OPTIONS] {actors|jobs|", "Missing argument '{actors|jobs|", "Choose from:\n\tactors,\n\tjobs,"}},
		{"list what", 2, []string{"Invalid value for '{actors|jobs|", "'what' is not one of 'actors', 'jobs', 'placement-groups'"}},
		{"list actors more", 2, []string{"Got unexpected extra argument (more)"}},
		{"list placement_groups", 1, []string{"ConnectionError: Could not find any running Ray instance."}},
		{"list actors --format what", 2, []string{"Invalid value for '--format': 'what' is not one of 'default', 'json', 'yaml', 'table'."}},
		{"list actors --filter state~x", 2, []string{"The format of a given filter state~x is invalid"}},
		{"list actors --filter colour=x", 2, []string{"Invalid filter key 'colour' for resource 'actors'. Available filter keys are: actor_id, class_name,"}},
		{"list actors", 1, []string{"ConnectionError: Could not find any running Ray instance."}},
		{"get actors", 2, []string{"Missing argument '[ID]'", "Usage: ray get [OPTIONS] {actors|placement-groups|nodes|workers|tasks|objects|cluster-events} [ID]"}},
		{"get actors 00", 2, []string{"want 32 hexadecimal digits"}},
		{"summary tasks", 1, []string{"ConnectionError: Could not find any running Ray instance."}},
		{"memory --units=TB", 2, []string{"'TB' is not one of 'B', 'KB', 'MB', 'GB'"}},
		{"status", 1, []string{"ConnectionError: Could not find any running Ray instance. Please specify the one to connect to by setting `--address` flag or `RAY_ADDRESS` environment variable."}},
		{"status --address=127.0.0.1:1", 1, []string{"no authentication token found"}},
		{"health-check --address=127.0.0.1:1", 1, []string{"ConnectionError: no Ray cluster answers at 127.0.0.1:1", "refused"}},
		{"health_check --address=127.0.0.1:1", 1, []string{"ConnectionError"}},
		{"status --address=ray://127.0.0.1:1", 1, []string{"ray://"}},
		{"job submit --working-dir . -- python x.py", 1, []string{"`ray job` is not in this version of Gray yet"}},
		{"stop", 0, []string{"Did not find any active Ray processes."}},
		{"daemon", 2, []string{"--config-fd"}},
	} {
		var args []string
		if tc.args != "" {
			args = strings.Split(tc.args, " ")
		}
		out, status := s.ray(args...)
		if status != tc.status {
			t.Errorf("ray %s: status %d, want %d:\n%s", tc.args, status, tc.status, out)
		}
		contains(t, out, tc.parts...)
	}
}

func TestStartStop(t *testing.T) {
	s := newShell(t)
	address := s.head()
	out := s.must("start", "--address="+address, "--num-cpus=1", "--node-ip-address=127.0.0.2", "--resources={\"a\": 1}", "--labels={\"k\":\"v\"}")
	contains(t, out, "Local node IP: 127.0.0.2", "Ray runtime started.", "ray stop")
	s.with("RAY_OVERRIDE_RESOURCES={\"b\": 2}").must("start", "--address=auto")
	nodes := s.nodes()
	if len(nodes) != 3 {
		t.Fatalf("%d nodes, want 3", len(nodes))
	}
	res := map[string]float64{}
	for _, n := range nodes {
		if n.SessionName != nodes[0].SessionName {
			t.Errorf("sessions differ: %s, %s", n.SessionName, nodes[0].SessionName)
		}
		for k, v := range n.Resources {
			res[k] = v
		}
	}
	if res["a"] != 1 || res["b"] != 2 {
		t.Errorf("resources = %v", res)
	}

	contains(t, s.must("status"), "======== Autoscaler status", "verbose=\n")
	contains(t, s.must("status", "-v", "--address="+address), "verbose=1")
	s.must("health-check")
	s.must("health-check", "--address", address)
	contains(t, s.must("start", "--head", "--port=0", "--node-ip-address=127.0.0.1"), "Ray runtime started.") // a second cluster

	// Another user's or another temp dir's cluster is not touched.
	other := newShell(t)
	other.head()
	contains(t, s.must("stop"), "Stopped all 4 Ray processes.")
	if left := s.nodes(); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
	if n := len(other.nodes()); n != 1 {
		t.Errorf("the other cluster has %d nodes, want 1", n)
	}
	contains(t, s.must("stop"), "Did not find any active Ray processes.")
	if _, err := os.Stat(filepath.Join(s.temp, session.CurrentCluster)); !os.IsNotExist(err) {
		t.Errorf("ray_current_cluster: %v, want it gone", err)
	}
}

// On the head's machine 127.0.0.1 means the head, whichever address it listens on: KubeRay sets RAY_ADDRESS so.
func TestLoopbackMeansTheLocalHead(t *testing.T) {
	s := newShell(t)
	out := s.must("start", "--head", "--port=0", "--node-ip-address=127.0.0.3")
	_, rest, _ := strings.Cut(out, "ray start --address='127.0.0.3:")
	port, _, _ := strings.Cut(rest, "'")
	contains(t, s.with("RAY_ADDRESS=127.0.0.1:"+port).must("status"), "======== Autoscaler status")
	s.must("health-check", "--address=localhost:"+port)
	s.must("start", "--address=127.0.0.1:"+port)
	for _, n := range s.nodes() {
		if n.GCSAddress != "127.0.0.3:"+port {
			t.Errorf("a node names its head %s, want 127.0.0.3:%s", n.GCSAddress, port)
		}
	}
}

func TestStartProblems(t *testing.T) {
	s := newShell(t)
	address := s.head()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("second head", func(t *testing.T) {
		out, status := s.ray("start", "--head", "--port="+port, "--node-ip-address=127.0.0.1")
		if status != 1 {
			t.Errorf("status = %d", status)
		}
		contains(t, out, "ConnectionError: Ray is trying to start at "+address+", but is already running at "+address+". Please specify a different port using the `--port` flag")
	})
	t.Run("busy port", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		_, busy, err := net.SplitHostPort(ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		out, status := s.ray("start", "--head", "--port="+busy, "--node-ip-address=127.0.0.1")
		if status != 1 {
			t.Errorf("status = %d", status)
		}
		contains(t, out, "in use by another process", "--port")
	})
	t.Run("wrong token", func(t *testing.T) {
		start := time.Now()
		out, status := s.with("RAY_AUTH_TOKEN=wrong-token").ray("start", "--address="+address)
		if status != 1 || time.Since(start) > 5*time.Second {
			t.Errorf("status = %d after %v", status, time.Since(start))
		}
		contains(t, out, "refuses the token from RAY_AUTH_TOKEN", "ray get-auth-token")
		if strings.Contains(out, "wrong-token") {
			t.Errorf("the token is printed: %s", out)
		}
		out, status = s.with("RAY_AUTH_TOKEN=wrong-token").ray("status")
		if status != 1 {
			t.Errorf("status = %d", status)
		}
		contains(t, out, "refuses the token")
	})
	t.Run("early death", func(t *testing.T) {
		out, status := s.with("CMD_TEST_NODE=early").ray("start", "--head", "--port=0", "--node-ip-address=127.0.0.1")
		if status != 1 {
			t.Errorf("status = %d", status)
		}
		contains(t, out, "the daemon ended before it was ready: exit code 7")
	})
	t.Run("other version", func(t *testing.T) {
		o := newShell(t)
		at := o.with("CMD_TEST_VERSION=2.59.0+gray0.0.1").head()
		out, status := o.ray("status")
		if status != 1 {
			t.Errorf("status = %d", status)
		}
		contains(t, out, "Ray version mismatch: cluster has Ray version 2.59.0+gray0.0.1 but local Ray version is "+version.Version)
		if _, status := o.ray("health-check", "--address", at); status != 1 {
			t.Errorf("health-check: status = %d, want 1", status)
		}
		o.must("health-check", "--skip-version-check")
	})
}

// Each name of 2020 and each no-op is accepted with the value its manifest gives it.
func TestOldFlags(t *testing.T) {
	s := newShell(t)
	out := s.must("start", "--head", "--node-ip-address=127.0.0.1", "--redis-port=0", "--redis-shard-ports=6380,6381", "--num-cpus=1",
		"--object-manager-port=12345", "--node-manager-port=12346", "--redis-password=x", "--num-redis-shards=2", "--redis-max-memory=1",
		"--webui-host=127.0.0.1", "--include-webui=false", "--dashboard-agent-grpc-port=8078", "--no-monitor", "--huge-pages",
		"--min-worker-port=10002", "--max-worker-port=19999", "--log-color=false", "--disable-usage-stats", "--no-redirect-output")
	contains(t, out, "Ray runtime started.")
}

func TestNothingHoldsTheTerminal(t *testing.T) {
	s := newShell(t)
	cmd := s.command("start", "--head", "--port=0", "--node-ip-address=127.0.0.1")
	// CombinedOutput of a pipe returns when every holder of it has gone: a daemon that kept it would hang here.
	done := make(chan error, 1)
	go func() {
		_, err := cmd.CombinedOutput()
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the daemon holds the output of the command that started it")
	}
	n := s.nodes()[0]
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n.PID))
	if err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(n.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.TrimSpace(string(token))
	if len(secret) != 64 || strings.Contains(string(text), secret) {
		t.Errorf("argv %q, token of %d characters", text, len(secret))
	}
	if got := s.must("get-auth-token"); got != secret {
		t.Errorf("get-auth-token prints %q", got)
	}
}

func TestGetAuthToken(t *testing.T) {
	s := newShell(t)
	out, status := s.ray("get-auth-token")
	if status != 1 {
		t.Errorf("status = %d, want 1", status)
	}
	contains(t, out, "--generate")
	made := s.must("get-auth-token", "--generate")
	if len(made) != 64 || s.must("get-auth-token") != made || s.must("get-auth-token", "--generate") != made {
		t.Errorf("token %q is not kept", made)
	}
	if got := s.with("RAY_AUTH_TOKEN=abc").must("get-auth-token"); got != "abc" {
		t.Errorf("with RAY_AUTH_TOKEN: %q", got)
	}
}

func TestStopKillsWhoDoesNotEnd(t *testing.T) {
	s := newShell(t)
	s.with("CMD_TEST_NODE=slow").head()
	contains(t, s.must("stop", "--grace-period=0"), "Stopped only 0 out of 1 Ray processes within the grace period 0 seconds", "forcefully")
	if n := s.nodes(); len(n) != 0 {
		t.Errorf("left: %+v", n)
	}
	contains(t, s.must("stop"), "Did not find any active")
}

func TestStopLeavesReusedPids(t *testing.T) {
	s := newShell(t)
	s.head()
	n := s.nodes()[0]
	planted := n
	planted.NodeID, planted.PID, planted.StartTime = strings.Repeat("a", 56), os.Getpid(), 1 // this test's pid, another start
	b, err := json.Marshal(planted)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.SessionDir, "nodes", planted.NodeID+".json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	contains(t, s.must("stop"), "Stopped all 1 Ray processes.")
}
