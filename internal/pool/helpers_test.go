package pool

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must happen, on a machine that may be busy with other things.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	if dir := os.Getenv("POOL_TEST_PARENT"); dir != "" {
		parentMain(dir)
		return
	}
	stop, err := Reap(slog.Default())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	stop()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// interpreter is the path of the Python that the tests use, or "".
var interpreter = sync.OnceValue(func() string {
	for _, name := range []string{os.Getenv("GRAY_TEST_PYTHON"), "../../.venv/bin/python", "python3"} {
		if name == "" {
			continue
		}
		// A version manager's launcher is no interpreter: ask it for the real one.
		out, err := exec.Command(name, "-c", "import sys; print(sys.executable)").Output()
		if err == nil {
			return strings.TrimSpace(string(out))
		}
	}
	return ""
})

func python(tb testing.TB) string {
	tb.Helper()
	path := interpreter()
	if path == "" {
		tb.Fatal("no Python found: set GRAY_TEST_PYTHON")
	}
	return path
}

// sdk makes a folder with as much of the package ray as a zygote needs, and the modules of testdata.
func sdk(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	core := filepath.Join(dir, "ray", "_core")
	check(tb, os.MkdirAll(core, 0o700))
	for _, empty := range []string{filepath.Join(dir, "ray"), core} {
		check(tb, os.WriteFile(filepath.Join(empty, "__init__.py"), nil, 0o600))
	}
	files, err := filepath.Glob("testdata/*.py")
	check(tb, err)
	for _, from := range append(files, "../../python/ray/_core/zygote.py", "../../python/ray/_core/title.py", "../../python/ray/_core/printing.py") {
		b, err := os.ReadFile(from)
		check(tb, err)
		to := filepath.Join(core, filepath.Base(from))
		if strings.HasPrefix(from, "testdata/") {
			to = filepath.Join(dir, filepath.Base(from))
		}
		check(tb, os.WriteFile(to, b, 0o600))
	}
	return dir
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// rig is a pool with the test double as its worker.
type rig struct {
	tb   testing.TB
	pool *Pool
	dir  string // logs
	log  *lockedBuffer

	mu    sync.Mutex
	exits map[string]chan Exit // guarded by mu; by worker id
	next  int                  // guarded by mu
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newRig(tb testing.TB, change func(*Config)) *rig {
	tb.Helper()
	r := &rig{tb: tb, dir: tb.TempDir(), log: &lockedBuffer{}, exits: map[string]chan Exit{}}
	cfg := Config{
		Python: python(tb), LogDir: r.dir, SDKDir: sdk(tb), Main: "pool_double:main", OOMScoreAdj: 900,
		Log: slog.New(slog.NewTextHandler(r.log, nil)),
		Died: func(w *Worker, e Exit) {
			r.exitOf(w.ID) <- e
		},
	}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "OMP_NUM_THREADS=") {
			cfg.Env = append(cfg.Env, kv)
		}
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	r.pool, err = Start(cfg)
	check(tb, err)
	tb.Cleanup(r.pool.Stop)
	return r
}

func (r *rig) exitOf(id string) chan Exit {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.exits[id] == nil {
		r.exits[id] = make(chan Exit, 1)
	}
	return r.exits[id]
}

// worker is a worker of the rig, to be talked to in Python.
type worker struct {
	*Worker
	r     *rig
	lines *bufio.Reader
}

func (r *rig) fork(spec WorkerSpec) *worker {
	r.tb.Helper()
	w, err := r.tryFork(spec)
	check(r.tb, err)
	return w
}

func (r *rig) tryFork(spec WorkerSpec) (*worker, error) {
	r.tb.Helper()
	if spec.ID == "" {
		r.mu.Lock()
		r.next++
		spec.ID = fmt.Sprintf("w%d", r.next)
		r.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	w, err := r.pool.ForkWait(ctx, spec)
	if err != nil {
		return nil, err
	}
	r.tb.Cleanup(func() { check(r.tb, w.Close()) })
	check(r.tb, w.Stream.SetDeadline(time.Now().Add(patience)))
	return &worker{w, r, bufio.NewReader(w.Stream)}, nil
}

func (w *worker) do(code string) {
	w.r.tb.Helper()
	check(w.r.tb, w.Exec.Send([]byte(code)))
}

func (w *worker) line() string {
	w.r.tb.Helper()
	line, err := w.lines.ReadString('\n')
	if err != nil {
		_, path := w.Logs()
		stderr, rerr := os.ReadFile(path)
		w.r.tb.Fatalf("no line from worker %s: %v\nstderr: %s (%v)\npool: %s", w.ID, err, stderr, rerr, w.r.log)
	}
	return strings.TrimSuffix(line, "\n")
}

// ask evaluates a Python expression in the worker.
func (w *worker) ask(expr string) string {
	w.r.tb.Helper()
	w.do("reply(" + expr + ")")
	return w.line()
}

func (w *worker) exit() Exit {
	w.r.tb.Helper()
	select {
	case e := <-w.r.exitOf(w.ID):
		return e
	case <-time.After(patience):
		w.r.tb.Fatalf("the death of worker %s is not reported\npool: %s", w.ID, w.r.log)
		return Exit{}
	}
}

// ends returns a function that waits until pid, which runs now, is gone.
func ends(tb testing.TB, pid int) func() {
	tb.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	check(tb, err)
	return func() {
		tb.Helper()
		defer func() { check(tb, unix.Close(fd)) }()
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
			if err == unix.EINTR {
				continue
			}
			if n != 1 {
				tb.Fatalf("process %d is still there: %v", pid, err)
			}
			return
		}
	}
}

// zygotePid is the process that the rig's workers are forked from.
func (r *rig) zygotePid(w *worker) int {
	r.tb.Helper()
	pid, err := strconv.Atoi(w.ask("os.getppid()"))
	check(r.tb, err)
	return pid
}

// eventually waits for a state that nothing announces.
func eventually(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !is() {
		select {
		case <-tick.C:
		case <-late:
			tb.Fatal("still not: " + what)
		}
	}
}

// parentMain is a process with a pool, for a test to kill: it prints the pids of its children and waits.
func parentMain(dir string) {
	died := func(*Worker, Exit) {}
	p, err := Start(Config{Python: os.Getenv("POOL_TEST_PYTHON"), LogDir: dir, SDKDir: os.Getenv("POOL_TEST_SDK"), Main: "pool_double:main", Died: died})
	if err != nil {
		panic(err)
	}
	for i := range 3 {
		w, err := p.ForkWait(context.Background(), WorkerSpec{ID: fmt.Sprintf("w%d", i)})
		if err != nil {
			panic(err)
		}
		// Busy, deaf to signals, and with a child: what a task can be.
		code := "reply(f'{os.getpid()} {os.getppid()}')\n" +
			"signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n" +
			"pid = os.fork()\n" +
			"if pid: reply(pid)\n" +
			"while True: pass\n"
		if i == 0 {
			code = "reply(f'{os.getpid()} {os.getppid()}')\nreply(os.getpid())"
		}
		if err := w.Exec.Send([]byte(code)); err != nil {
			panic(err)
		}
		lines := bufio.NewReader(w.Stream)
		for range 2 {
			line, err := lines.ReadString('\n')
			if err != nil {
				panic(err)
			}
			fmt.Print(line)
		}
	}
	fmt.Println("ready")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil { // ends with the test, whatever becomes of it
		panic(err)
	}
}
