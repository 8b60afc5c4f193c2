package node

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gray/internal/session"
)

// patience is how long a test waits for what must happen, on a machine that may be busy with other things.
const patience = 60 * time.Second

// interpreter is a Python that has the package's dependencies: that of `make`.
func interpreter(t *testing.T) string {
	t.Helper()
	for _, name := range []string{os.Getenv("GRAY_PYTHON"), "../../.venv/bin/python"} {
		if name == "" {
			continue
		}
		out, err := exec.Command(name, "-c", "import cloudpickle, msgpack, sys; print(sys.executable)").Output()
		if err == nil {
			return strings.TrimSpace(string(out))
		}
	}
	t.Skip("no Python with cloudpickle and msgpack: run `make build`, or name one in GRAY_PYTHON")
	return ""
}

// daemon is a head in this process, with workers in others.
type daemon struct {
	t    *testing.T
	file session.NodeFile
	env  []string
	py   string
	stop func()
}

func startDaemon(t *testing.T) *daemon {
	t.Helper()
	d := &daemon{t: t, py: interpreter(t)}
	home := t.TempDir()
	t.Setenv("HOME", home)
	sources, err := filepath.Abs("../../python")
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "RAY_") && !strings.HasPrefix(kv, "GRAY_") && !strings.HasPrefix(kv, "PYTHONPATH=") {
			d.env = append(d.env, kv)
		}
	}
	t.Setenv("PYTHONPATH", sources) // of the workers
	d.env = append(d.env, "PYTHONPATH="+sources, "RAY_TMPDIR="+home)
	port, cpus, store, no := 0, 2.0, int64(80<<20), false
	cfg := session.NodeConfig{
		Head: true, TempDir: filepath.Join(home, "ray"), NodeIP: "127.0.0.1", Python: d.py, NumCPUs: &cpus, Port: &port, ObjectStoreMemory: &store,
		Dashboard: &no, Token: strings.Repeat("t0ken", 8), TokenSource: "the test",
	}
	d.env = append(d.env, "RAY_AUTH_TOKEN="+cfg.Token)
	log, err := os.Create(filepath.Join(home, "log"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan session.NodeFile, 1), make(chan error, 1)
	go func() {
		ended <- Run(ctx, cfg, slog.New(slog.NewTextHandler(log, nil)), Faces{}, func(f session.NodeFile) error { ready <- f; return nil })
	}()
	select {
	case d.file = <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		_ = log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("the daemon's log:\n%s", text)
		}
	})
	t.Cleanup(d.stop)
	return d
}

// driver is a Python program that is connected to the daemon. It ends when its stdin does.
type driver struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (d *daemon) driver(code string) *driver {
	d.t.Helper()
	cmd := exec.Command(d.py, "-c", code, d.file.GCSAddress)
	cmd.Env, cmd.Stderr = d.env, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	return &driver{cmd, in, bufio.NewReader(out)}
}

func (p *driver) line() (string, error) {
	s, err := p.out.ReadString('\n')
	return strings.TrimSpace(s), err
}

func (p *driver) end() error {
	_ = p.in.Close()
	return p.cmd.Wait()
}

func descriptors(t *testing.T) int {
	t.Helper()
	l, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(l)
}

// settles waits until f is at most want; it tells how far it came.
func settles(f func() int, want int) (got int, ok bool) {
	for end := time.Now().Add(patience); ; {
		if got = f(); got <= want {
			return got, true
		}
		if time.Now().After(end) {
			return got, false
		}
		<-time.After(20 * time.Millisecond)
	}
}

const work = `
import sys, threading, ray
ray.init(sys.argv[1], log_to_driver=False)
f = ray.remote(lambda x: x)
def some(n):
    assert ray.get([f.remote(k) for k in range(n)]) == list(range(n))
threads = [threading.Thread(target=some, args=(10,)) for _ in range(3)]
for t in threads: t.start()
for t in threads: t.join()
big = ray.put(bytes(1 << 20))
assert len(ray.get(f.remote(big))) == 1 << 20
print("ready", flush=True)
for line in sys.stdin:
    some(int(line))
    print("done", flush=True)
`

// TestDriversLeaveNothing: after 50 drivers and 1,000 tasks a daemon has the goroutines and descriptors that it had
// after the first, and when it has ended, none.
func TestDriversLeaveNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("starts 52 interpreters")
	}
	none := goleak.IgnoreCurrent()
	before := descriptors(t)
	d := startDaemon(t)
	first := d.driver(work)
	if s, err := first.line(); err != nil || s != "ready" {
		t.Fatalf("the first driver said %q: %v", s, err)
	}
	// Both are counted while no second driver is there, and its workers are gone.
	workers := func() int { return d.processes(first.cmd.Process.Pid) }
	const warm = 3 // the zygote and as many workers as there are CPUs
	if n, ok := settles(workers, warm); !ok {
		t.Fatalf("%d processes besides the driver, want %d", n, warm)
	}
	routines, fds := runtime.NumGoroutine(), descriptors(t)

	for round := range 10 {
		var drivers []*driver
		for range 5 {
			drivers = append(drivers, d.driver(work))
		}
		for k, p := range drivers {
			if s, err := p.line(); err != nil || s != "ready" {
				t.Fatalf("driver %d of round %d said %q: %v", k, round, s, err)
			}
			if k%2 == 0 { // without ray.shutdown, in the middle of things
				_ = p.cmd.Process.Kill()
				_ = p.end() // it was killed
			} else if err := p.end(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := fmt.Fprintln(first.in, 1000); err != nil {
		t.Fatal(err)
	}
	if s, err := first.line(); err != nil || s != "done" {
		t.Fatalf("the first driver said %q: %v", s, err)
	}
	if n, ok := settles(workers, warm); !ok {
		t.Errorf("%d processes besides the driver, want %d", n, warm)
	}
	if n, ok := settles(runtime.NumGoroutine, routines); !ok {
		t.Errorf("%d goroutines, there were %d", n, routines)
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
	}
	if n, ok := settles(func() int { return descriptors(t) }, fds); !ok {
		t.Errorf("%d descriptors, there were %d", n, fds)
	}
	if err := first.end(); err != nil {
		t.Error(err)
	}
	d.stop()
	if n, ok := settles(func() int { return descriptors(t) }, before); !ok {
		t.Errorf("%d descriptors after the daemon's end, %d before its start", n, before)
	}
	goleak.VerifyNone(t, none)
}

// processes counts this process's descendants without one of its children.
func (d *daemon) processes(without int) (n int) {
	left := []int{os.Getpid()}
	for len(left) > 0 {
		pid := left[0]
		left = left[1:]
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
		for _, f := range files {
			b, _ := os.ReadFile(f) // a thread that has just ended has none
			for _, kid := range strings.Fields(string(b)) {
				var k int
				if _, err := fmt.Sscan(kid, &k); err == nil && k != without {
					left = append(left, k)
					n++
				}
			}
		}
	}
	return n
}
