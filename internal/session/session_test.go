package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary stand in for other processes, some of them with another uid.
func TestMain(m *testing.M) {
	switch os.Getenv("SESSION_TEST_ROLE") {
	case "":
		os.Exit(m.Run())
	case "wait": // until stdin closes
		_, _ = os.Stdin.Read(make([]byte, 1)) // EOF is the signal
	case "open-root":
		r, err := openRootAt(os.Getenv("SESSION_TEST_ROOT"), os.Getenv("SESSION_TEST_GIVEN") != "", true)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(r.Path)
	}
	os.Exit(0)
}

func child(t *testing.T, role string, uid uint32, env ...string) *exec.Cmd {
	t.Helper()
	exe := "/proc/self/exe" // another uid may not reach the test binary's path
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), append(env, "SESSION_TEST_ROLE="+role)...)
	cmd.Dir = "/"
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	return cmd
}

// waiter starts a process that lives until the test ends or stop is called.
func waiter(t *testing.T) (cmd *exec.Cmd, stop func()) {
	t.Helper()
	cmd = child(t, "wait", 0)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("waiter: %v", err)
		}
	})
	t.Cleanup(stop)
	return cmd, stop
}

func root(t *testing.T) *Root {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ray")
	r, err := OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func mustCreate(t *testing.T, r *Root) *Dir {
	t.Helper()
	d, err := r.Create(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one with %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error = %q, lacks %q", err, p)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRootChoice(t *testing.T) {
	base := t.TempDir()
	t.Setenv("RAY_TMPDIR", base)
	r, err := OpenRoot("")
	check(t, err)
	defer r.Close()
	if r.Path != filepath.Join(base, "ray") {
		t.Errorf("path = %s, want RAY_TMPDIR/ray", r.Path)
	}
	st, err := os.Stat(r.Path)
	check(t, err)
	if st.Mode().Perm() != 0o700 {
		t.Errorf("mode = %v, want 0700", st.Mode())
	}
	given, err := OpenRoot(filepath.Join(base, "other", "deep"))
	check(t, err)
	defer given.Close()
	if given.Path != filepath.Join(base, "other", "deep") {
		t.Errorf("path = %s, want the one given", given.Path)
	}
	if _, err := FindRoot(filepath.Join(base, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("FindRoot of a missing dir = %v, want ErrNotExist", err)
	}
}

func TestRootRefused(t *testing.T) {
	base := t.TempDir()
	real := filepath.Join(base, "real")
	check(t, os.Mkdir(real, 0o700))
	check(t, os.Symlink(real, filepath.Join(base, "link")))
	check(t, os.WriteFile(filepath.Join(base, "file"), nil, 0o600))
	check(t, os.Mkdir(filepath.Join(base, "open"), 0o700))
	check(t, os.Chmod(filepath.Join(base, "open"), 0o777))
	for _, tc := range []struct{ name, path, want string }{
		{"symlink", "link", "not a symlink"},
		{"file", "file", "not a symlink or file"},
		{"others may write", "open", "chmod 700"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := OpenRoot(filepath.Join(base, tc.path))
			wantError(t, err, tc.want, filepath.Join(base, tc.path))
		})
	}
	t.Run("default is closed to others", func(t *testing.T) {
		r, err := openRootAt(filepath.Join(base, "open"), false, true)
		check(t, err)
		defer r.Close()
		st, err := os.Stat(r.Path)
		check(t, err)
		if st.Mode().Perm() != 0o700 {
			t.Errorf("mode = %v, want 0700", st.Mode())
		}
	})
}

func TestTwoUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become another user")
	}
	const other = 54321
	base, err := os.MkdirTemp("", "users") //nolint:usetesting // t.TempDir lies below a folder that only root may enter
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(base) })
	check(t, os.Chmod(base, 0o1777))
	path := filepath.Join(base, "ray")
	r, err := openRootAt(path, false, true)
	check(t, err)
	defer r.Close()
	d := mustCreate(t, r)

	t.Run("default falls back", func(t *testing.T) {
		out, err := child(t, "open-root", other, "SESSION_TEST_ROOT="+path).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != fmt.Sprintf("%s-%d", path, other) {
			t.Fatalf("other user got %q, %v", got, err)
		}
	})
	t.Run("given is refused", func(t *testing.T) {
		out, err := child(t, "open-root", other, "SESSION_TEST_ROOT="+path, "SESSION_TEST_GIVEN=1").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "belongs to uid 0") {
			t.Fatalf("other user got %q, %v; want a refusal that names the owner", out, err)
		}
	})
	t.Run("fallback planted by another", func(t *testing.T) {
		check(t, os.RemoveAll(fmt.Sprintf("%s-%d", path, other)))
		check(t, os.Symlink("/etc", fmt.Sprintf("%s-%d", path, other)))
		out, err := child(t, "open-root", other, "SESSION_TEST_ROOT="+path).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "symlink") {
			t.Fatalf("other user got %q, %v; want a refusal", out, err)
		}
	})
	t.Run("foreign session and node file do not count", func(t *testing.T) {
		foreign := filepath.Join(path, Name(time.Now(), 99))
		check(t, os.MkdirAll(filepath.Join(foreign, "nodes"), 0o700))
		check(t, os.WriteFile(filepath.Join(foreign, "nodes", nodeID('f')+".json"), []byte(`{}`), 0o600))
		check(t, os.Chown(foreign, other, other))
		check(t, d.WriteNode(liveNode(d, 'a')))
		planted := filepath.Join(d.Path, "nodes", nodeID('b')+".json")
		check(t, os.WriteFile(planted, []byte(`{}`), 0o600))
		check(t, os.Chown(planted, other, other))
		nodes, err := r.Nodes()
		wantError(t, err, foreign, planted, "belongs to uid 54321")
		if len(nodes) != 1 || nodes[0].NodeID != nodeID('a') {
			t.Errorf("nodes = %+v, want only our own", nodes)
		}
		wantError(t, r.Clean(0), foreign)
		if _, err := os.Stat(foreign); err != nil {
			t.Errorf("the foreign session was touched: %v", err)
		}
	})
}

func nodeID(c byte) string { return strings.Repeat(string([]byte{c}), 56) }

func liveNode(d *Dir, c byte) NodeFile {
	start, err := StartTime(os.Getpid())
	if err != nil {
		panic(err)
	}
	return NodeFile{NodeID: nodeID(c), PID: os.Getpid(), StartTime: start, SessionName: d.Name, SessionDir: d.Path, Head: true, GCSAddress: "127.0.0.1:6379"}
}

func TestSession(t *testing.T) {
	r := root(t)
	d := mustCreate(t, r)
	if !ValidName(d.Name) || !strings.HasSuffix(d.Name, fmt.Sprintf("_%d", os.Getpid())) {
		t.Errorf("name = %q", d.Name)
	}
	for _, p := range []string{"", "logs", "sockets", "nodes"} {
		st, err := os.Stat(filepath.Join(d.Path, p))
		check(t, err)
		if st.Mode().Perm() != 0o700 {
			t.Errorf("%q: mode = %v, want 0700", p, st.Mode())
		}
	}
	check(t, r.SetLatest(d.Name))
	second := mustCreate(t, r)
	check(t, r.SetLatest(second.Name))
	if got, err := os.Readlink(filepath.Join(r.Path, LatestLink)); err != nil || got != second.Path {
		t.Errorf("session_latest -> %q, %v", got, err)
	}
	joined, err := r.OpenOrCreate(d.Name)
	check(t, err)
	defer joined.Close()
	if joined.Path != d.Path {
		t.Errorf("joined %s, want %s", joined.Path, d.Path)
	}
	for _, bad := range []string{"", "x", "../x", "session_2026-01-02_03-04-05_000006_7/../..", "session_latest"} {
		if _, err := r.OpenOrCreate(bad); err == nil {
			t.Errorf("OpenOrCreate(%q) succeeded", bad)
		}
	}
	names, err := r.Sessions()
	check(t, err)
	if want := []string{second.Name, d.Name}; !slices.Equal(names, want) {
		t.Errorf("sessions = %q, want %q", names, want)
	}
}

func TestValidName(t *testing.T) {
	if name := Name(time.Now(), 12345); !ValidName(name) {
		t.Errorf("%q is not valid", name)
	}
	const good = "session_2026-01-02_03-04-05_000006_7"
	for _, bad := range []string{
		"", good[:len(good)-1], good + "x", good + "/", good + strings.Repeat("1", 64), "x" + good, strings.Replace(good, "-", "_", 1),
		strings.Replace(good, "2026", "x026", 1), strings.ToUpper(good),
	} {
		if ValidName(bad) {
			t.Errorf("%q is valid", bad)
		}
	}
	if !ValidName(good) {
		t.Errorf("%q is not valid", good)
	}
}

func TestSessionPlanted(t *testing.T) {
	r := root(t)
	name := Name(time.Now(), 7)
	target := t.TempDir()
	check(t, os.Symlink(target, filepath.Join(r.Path, name)))
	_, err := r.OpenOrCreate(name)
	wantError(t, err, "symlink")
	check(t, os.Remove(filepath.Join(r.Path, name)))

	check(t, os.Mkdir(filepath.Join(r.Path, name), 0o700))
	check(t, os.Symlink(target, filepath.Join(r.Path, name, "logs")))
	_, err = r.OpenOrCreate(name)
	wantError(t, err, "logs", "symlink")
	if left, err := os.ReadDir(target); err != nil || len(left) != 0 {
		t.Errorf("the symlink's target was written to: %v %v", left, err)
	}
}

func TestCurrent(t *testing.T) {
	r := root(t)
	if got, err := r.Current(); got != "" || err != nil {
		t.Fatalf("current of a new root = %q, %v", got, err)
	}
	check(t, r.SetCurrent("127.0.0.1:6379"))
	if got, err := r.Current(); got != "127.0.0.1:6379" || err != nil {
		t.Fatalf("current = %q, %v", got, err)
	}
	check(t, r.ClearCurrent("127.0.0.1:1"))
	if got, err := r.Current(); got == "" || err != nil {
		t.Fatalf("cleared for another address: %q, %v", got, err)
	}
	check(t, r.ClearCurrent("127.0.0.1:6379"))
	if got, err := r.Current(); got != "" || err != nil {
		t.Fatalf("current after clearing = %q, %v", got, err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	check(t, os.WriteFile(secret, []byte("10.6.6.6:1"), 0o600))
	check(t, os.Symlink(secret, filepath.Join(r.Path, CurrentCluster)))
	if got, err := r.Current(); err == nil {
		t.Errorf("followed a symlink to %q", got)
	}
}

func TestNodeFiles(t *testing.T) {
	r := root(t)
	d := mustCreate(t, r)
	alive := liveNode(d, 'a')
	alive.Resources = map[string]float64{"CPU": 2}
	check(t, d.WriteNode(alive))
	st, err := os.Stat(filepath.Join(d.Path, "nodes", nodeID('a')+".json"))
	check(t, err)
	if st.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, want 0600", st.Mode())
	}

	cmd, stop := waiter(t)
	start, err := StartTime(cmd.Process.Pid)
	check(t, err)
	dying := NodeFile{NodeID: nodeID('b'), PID: cmd.Process.Pid, StartTime: start, SessionName: d.Name}
	check(t, d.WriteNode(dying))
	reused := dying // the pid lives, but it is not the process that wrote the file
	reused.NodeID, reused.StartTime = nodeID('c'), start+1
	check(t, d.WriteNode(reused))

	live := func() (idsOf []string) {
		nodes, err := r.LiveNodes()
		check(t, err)
		for _, n := range nodes {
			idsOf = append(idsOf, n.NodeID[:1])
		}
		return idsOf
	}
	if got := live(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("live = %v, want a b", got)
	}
	wantError(t, r.ForgetNode(dying), "its daemon runs")
	stop()
	if got := live(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("live after the death = %v, want a", got)
	}
	check(t, r.ForgetNode(dying))
	check(t, r.ForgetNode(dying)) // again: no error
	check(t, d.RemoveNode(nodeID('a')))
	nodes, err := r.Nodes()
	check(t, err)
	if len(nodes) != 1 || nodes[0].NodeID != nodeID('c') {
		t.Errorf("nodes = %+v, want only c", nodes)
	}
}

func TestNodeFilesPlanted(t *testing.T) {
	r := root(t)
	d := mustCreate(t, r)
	check(t, d.WriteNode(liveNode(d, 'a')))
	good, err := os.ReadFile(filepath.Join(d.Path, "nodes", nodeID('a')+".json"))
	check(t, err)
	elsewhere := filepath.Join(t.TempDir(), "n.json")
	check(t, os.WriteFile(elsewhere, good, 0o600))
	in := func(name string) string { return filepath.Join(d.Path, "nodes", name) }
	check(t, os.Symlink(elsewhere, in(nodeID('b')+".json")))
	check(t, os.WriteFile(in(nodeID('c')+".json"), good, 0o644))
	check(t, os.Chmod(in(nodeID('c')+".json"), 0o644))
	check(t, os.WriteFile(in(nodeID('d')+".json"), []byte("{"), 0o600))
	check(t, os.WriteFile(in(nodeID('e')+".json"), good, 0o600)) // about another node
	check(t, unix.Mkfifo(in(nodeID('f')+".json"), 0o600))
	check(t, os.WriteFile(in("notes.txt"), good, 0o600))
	nodes, err := r.Nodes()
	if len(nodes) != 1 || nodes[0].NodeID != nodeID('a') {
		t.Errorf("nodes = %+v, want only a", nodes)
	}
	wantError(t, err, nodeID('b'), nodeID('c'), nodeID('d'), nodeID('e'), nodeID('f'))
}

func TestClean(t *testing.T) {
	r := root(t)
	outside := filepath.Join(t.TempDir(), "keep")
	check(t, os.WriteFile(outside, nil, 0o600))
	var dirs []*Dir
	old := time.Now().Add(-time.Hour)
	for i := range 14 {
		d, err := r.Create(old.Add(time.Duration(i) * time.Second))
		check(t, err)
		check(t, os.WriteFile(filepath.Join(d.LogDir(), "x.log"), nil, 0o600))
		check(t, os.Symlink(filepath.Dir(outside), filepath.Join(d.LogDir(), "link")))
		dirs = append(dirs, d)
	}
	for i, d := range dirs {
		if i != 1 { // the second oldest stays alive
			check(t, d.Close())
		}
	}
	defer dirs[1].Close()
	check(t, r.Clean(Keep))
	names, err := r.Sessions()
	check(t, err)
	var want []string
	for i := 13; i >= 4; i-- {
		want = append(want, dirs[i].Name)
	}
	want = append(want, dirs[1].Name)
	if !slices.Equal(names, want) {
		t.Errorf("sessions = %q,\nwant %q", names, want)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("cleaning followed a symlink: %v", err)
	}
}

func TestCreateWhileCleaning(t *testing.T) {
	r := root(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				d, err := r.Create(time.Now())
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := os.Stat(d.LogDir()); err != nil {
					t.Errorf("a held session vanished: %v", err)
				}
				if err := errors.Join(d.Close(), r.Clean(0)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestStartTime(t *testing.T) {
	cmd, stop := waiter(t)
	pid := cmd.Process.Pid
	start, err := StartTime(pid)
	check(t, err)
	if !Alive(pid, start) || Alive(pid, start+1) {
		t.Error("Alive does not tell processes apart by their start")
	}
	p, err := OpenProcess(pid, start)
	check(t, err)
	defer p.Close()
	if p.Wait(0) {
		t.Error("a living process is said to have ended")
	}
	if _, err := OpenProcess(pid, start+1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("OpenProcess with another start = %v", err)
	}
	stop()
	if !p.Wait(time.Second) {
		t.Error("an ended process is said to live")
	}
	if err := p.Signal(unix.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal to an ended process = %v", err)
	}
	if Alive(pid, start) {
		t.Error("Alive after the end")
	}
}

func TestSockets(t *testing.T) {
	for _, depth := range []int{1, 12} { // 12: a path longer than a sockaddr
		t.Run(fmt.Sprint(depth), func(t *testing.T) {
			r, err := OpenRoot(filepath.Join(t.TempDir(), strings.Repeat("0123456789/", depth)))
			check(t, err)
			defer r.Close()
			d := mustCreate(t, r)
			a, err := d.Listen("raylet")
			check(t, err)
			b, err := d.Listen("raylet")
			check(t, err)
			defer b.Close()
			if filepath.Base(a.Path) != "raylet" || filepath.Base(b.Path) != "raylet.1" {
				t.Fatalf("paths = %s, %s", a.Path, b.Path)
			}
			st, err := os.Lstat(a.Path)
			check(t, err)
			if st.Mode().Perm() != 0o600 || st.Mode().Type() != os.ModeSocket {
				t.Errorf("mode = %v, want a socket with 0600", st.Mode())
			}
			c, err := Dial(context.Background(), a.Path)
			check(t, err)
			defer c.Close()
			s, err := a.AcceptUnix()
			check(t, err)
			defer s.Close()
			if uid, err := PeerUID(s); err != nil || uid != os.Getuid() {
				t.Errorf("peer uid = %d, %v", uid, err)
			}
			// A daemon that died leaves its socket: its name is taken over.
			check(t, a.UnixListener.Close())
			again, err := d.Listen("raylet")
			check(t, err)
			if again.Path != a.Path {
				t.Errorf("path = %s, want the stale one's", again.Path)
			}
			check(t, again.Close())
			if _, err := os.Lstat(again.Path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("socket after Close: %v", err)
			}
			a.dir.Close()
		})
	}
}

func TestSocketsTogether(t *testing.T) {
	r := root(t)
	d := mustCreate(t, r)
	dead, err := d.Listen("raylet")
	check(t, err)
	check(t, dead.UnixListener.Close()) // all of them meet a stale one
	dead.dir.Close()
	paths := make(chan string, 20)
	var wg sync.WaitGroup
	for range cap(paths) {
		wg.Go(func() {
			s, err := d.Listen("raylet")
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { s.Close() })
			paths <- s.Path
		})
	}
	wg.Wait()
	close(paths)
	seen := map[string]bool{}
	for p := range paths {
		if seen[p] {
			t.Errorf("%s was given twice", p)
		}
		seen[p] = true
		if c, err := net.Dial("unix", p); err != nil {
			t.Errorf("%s: %v", p, err)
		} else {
			c.Close()
		}
	}
}

func TestConfigJSON(t *testing.T) {
	// The keys are a contract with the Python SDK.
	var c NodeConfig
	in := `{"head":true,"private":true,"temp_dir":"/x","num_cpus":2,"num_gpus":1,"resources":{"a":1},"labels":{"k":"v"},
	 "memory":1,"object_store_memory":80000000,"node_ip":"127.0.0.1","node_name":"n","port":0,"python":"/p","driver_pid":5,
	 "driver_start_time":6,"namespace":"ns","dashboard":false,"dashboard_host":"h","dashboard_port":1,"session_name":""}`
	dec := json.NewDecoder(strings.NewReader(in))
	dec.DisallowUnknownFields()
	check(t, dec.Decode(&c))
	check(t, c.Validate())
	if *c.NumCPUs != 2 || *c.Port != 0 || c.DriverStartTime != 6 || *c.Dashboard {
		t.Errorf("decoded %+v", c)
	}
}

func TestConfigValidate(t *testing.T) {
	num := func(f float64) *float64 { return &f }
	size := func(i int64) *int64 { return &i }
	port := func(i int) *int { return &i }
	for _, tc := range []struct {
		name string
		c    NodeConfig
		want []string // of each fault, a part; none = valid
	}{
		{"head", NodeConfig{Head: true}, nil},
		{"worker", NodeConfig{Address: "1.2.3.4:6379", NumCPUs: num(0), Labels: map[string]string{"ray.io/zone": "eu-1"}}, nil},
		{"neither", NodeConfig{}, []string{"address is missing"}},
		{"both", NodeConfig{Head: true, Address: "x:1"}, []string{"exclude each other"}},
		{"private without driver", NodeConfig{Head: true, Private: true}, []string{"driver_pid"}},
		{"all at once", NodeConfig{
			Head: true, NumCPUs: num(-1), NumGPUs: num(0.5), Memory: size(0), ObjectStoreMemory: size(1),
			Resources: map[string]float64{"CPU": 1, "": 2, "x": -1}, Labels: map[string]string{"a b": "c d"},
			Port: port(70000), MetricsExportPort: -1, TLS: "maybe", NodeIP: "0.0.0.0", SessionName: "../x", Token: "a b",
		}, []string{
			"num_cpus = -1", "num_gpus = 0.5: want a whole", "memory = 0", "at least 78643200", `"CPU" is set by num_cpus`,
			"a name is empty", "resources[x] = -1", `key "a b"`, `value "c d"`, "port = 70000", "metrics_export_port = -1",
			`tls "maybe"`, `node_ip "0.0.0.0"`, `session_name "../x"`, "spaces",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.c.Validate()
			if len(tc.want) == 0 {
				check(t, err)
				return
			}
			wantError(t, err, tc.want...)
			if n := strings.Count(err.Error(), "\n") + 1; n != len(tc.want) {
				t.Errorf("%d faults, want %d:\n%v", n, len(tc.want), err)
			}
		})
	}
}
