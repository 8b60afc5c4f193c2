package pool

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"gray/internal/core/fault"
)

func TestExit(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, tc := range []struct {
		name, code string
		want       Exit
		text       string
	}{
		{"returns", "packets.shutdown(socket.SHUT_RDWR)", Exit{Known: true}, "exit code 0"},
		{"exit code", "sys.exit(7)", Exit{Known: true, Code: 7}, "exit code 7"},
		{"exit message", "sys.exit('no more')", Exit{Known: true, Code: 1, Stderr: []string{"no more"}}, "exit code 1"},
		{"at once", "os._exit(3)", Exit{Known: true, Code: 3}, "exit code 3"},
		{"signal", "os.kill(os.getpid(), signal.SIGUSR1)", Exit{Known: true, Signal: unix.SIGUSR1}, "killed by SIGUSR1"},
		{"kill -9", "os.kill(os.getpid(), signal.SIGKILL)", Exit{Known: true, Signal: unix.SIGKILL}, "killed by SIGKILL"},
		{
			"last words", "for i in range(30): print('line', i, file=sys.stderr)\nos._exit(1)",
			Exit{Known: true, Code: 1, Stderr: lines(10, 30)},
			"exit code 1",
		},
		{
			"atexit runs, threads do not hold it",
			"import atexit; atexit.register(lambda: print('bye', file=sys.stderr))\nthreading.Thread(target=time.sleep, args=(600,)).start()\nsys.exit(0)",
			Exit{Known: true, Stderr: []string{"bye"}},
			"exit code 0",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := r.fork(WorkerSpec{})
			w.do(tc.code)
			got := w.exit()
			if fmt.Sprint(got.Stderr) != fmt.Sprint(tc.want.Stderr) {
				t.Errorf("stderr = %q, want %q", got.Stderr, tc.want.Stderr)
			}
			if got.Peak < 1<<20 || got.Peak > 1<<30 {
				t.Errorf("it had %d bytes at most", got.Peak)
			}
			got.Stderr, tc.want.Stderr, got.Peak = nil, nil, 0
			if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", tc.want) || got.String() != tc.text {
				t.Errorf("exit = %#v (%s), want %#v (%s)", got, got, tc.want, tc.text)
			}
		})
	}

	w := r.fork(WorkerSpec{})
	w.do("raise ValueError('of the worker')")
	got := w.exit()
	if n := len(got.Stderr); got.Code != 1 || n == 0 || got.Stderr[n-1] != "ValueError: of the worker" {
		t.Errorf("a worker that raised: %v, stderr %q", got, got.Stderr)
	}
}

func lines(from, to int) (out []string) {
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprint("line ", i))
	}
	return out
}

func TestKillTakesTheGroup(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, how := range []string{"killed", "exits"} {
		w := r.fork(WorkerSpec{})
		w.do("import subprocess; child = subprocess.Popen(['sleep', '600']); reply(child.pid)")
		pid, err := strconv.Atoi(w.line())
		check(t, err)
		gone := ends(t, pid)
		if how == "killed" {
			w.do("while True: pass")
			w.Kill()
			if e := w.exit(); !e.Killed || e.Signal != unix.SIGKILL || e.OOM || e.String() != "killed by SIGKILL from its node daemon" {
				t.Errorf("exit = %#v (%s)", e, e)
			}
			w.Kill() // of the dead: nothing happens
		} else {
			w.do("sys.exit(0)")
			if e := w.exit(); e.Killed || e.Code != 0 || e.Signal != 0 {
				t.Errorf("exit = %#v (%s)", e, e)
			}
		}
		gone()
		if err := w.Signal(unix.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("signal to the dead: %v", err)
		}
	}
}

// A worker finds a process as if Python had just been started: nothing of its zygote is left.
func TestBlank(t *testing.T) {
	t.Parallel()
	arena, err := os.CreateTemp(t.TempDir(), "arena")
	check(t, err)
	t.Cleanup(func() { check(t, arena.Close()) })
	r := newRig(t, func(c *Config) { c.Arena = arena })
	first := r.fork(WorkerSpec{})
	w := r.fork(WorkerSpec{ID: "abc", Threads: 3, Env: map[string]string{"OF_THE_JOB": "a\nb=ä"}, Info: map[string]string{"kind": "blank"}})
	w.do(`
fds = {}
for fd in os.listdir('/proc/self/fd'):
    try: fds[int(fd)] = os.readlink('/proc/self/fd/' + fd)
    except OSError: pass
reply('\0'.join(f'{fd} {to}' for fd, to in fds.items()))`)
	var got []string
	for _, field := range strings.Split(w.line(), "\x00") {
		fd, to, _ := strings.Cut(field, " ")
		kind, _, _ := strings.Cut(to, ":")
		if n, err := strconv.Atoi(fd); err != nil || n > 2 {
			fd = "-"
		}
		got = append(got, fd+" "+kind)
	}
	sort.Strings(got)
	out, errs := w.Logs()
	want := []string{"- " + arena.Name(), "- pipe", "- socket", "- socket", "- socket", "0 /dev/null", "1 " + out, "2 " + errs}
	sort.Strings(want)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("descriptors:\n got %q\nwant %q", got, want)
	}

	for _, tc := range []struct{ expr, want string }{
		{"[exec_fd, stream_fd, channel_fd, arena_fd] == sorted({exec_fd, stream_fd, channel_fd, arena_fd})", "True"},
		{"os.readlink(f'/proc/self/fd/{arena_fd}')", arena.Name()},
		{"any(os.get_inheritable(fd) for fd in (exec_fd, stream_fd, channel_fd, arena_fd))", "False"},
		{"info == {'worker_id': 'abc', 'kind': 'blank'}", "True"},
		{"repr(os.environ['OF_THE_JOB'])", `'a\nb=ä'`},
		{"[os.environ[k] for k in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS')]", "['3', '3', '3']"},
		{"open('/proc/self/oom_score_adj').read().strip()", "900"},
		{"signal.pthread_sigmask(signal.SIG_BLOCK, [])", "set()"},
		{"signal.getsignal(signal.SIGINT) is signal.default_int_handler", "True"},
		{"{signal.getsignal(s).name for s in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP)}", "{'SIG_DFL'}"},
		{"signal.set_wakeup_fd(-1)", "-1"},
		{"os.getsid(0) == os.getpgrp() == os.getpid()", "True"},
		{"len(os.listdir('/proc/self/task'))", "1"},
		{"sys.argv", "['']"},
		{"[n for n in vars(sys.modules['__main__']) if not n.startswith('__')]", "[]"},
		{"'' in sys.path", "False"},
		{"sys.stdout.line_buffering and sys.stderr.line_buffering", "True"},
		{"__import__('gc').isenabled() and __import__('gc').get_freeze_count() > 1000", "True"},
		{"open('/proc/self/cmdline').read()", "ray::IDLE\x00"},
		{"(__import__('ray._core.title')._core.title.set_title('ray::f'), open('/proc/self/cmdline').read())[1]", "ray::f\x00"},
		{"(sys.modules['ray._core.title'].set_title('ü' * 1000), open('/proc/self/cmdline').read().strip('ü'))[1]", "\x00"},
		{"open('/proc/self/comm').read().strip()", "ray::worker"},
		{"(sys.modules['ray._core.zygote'].limit_threads(5), os.environ['OMP_NUM_THREADS'])", "(True, '5')"},
		{"any(m in sys.modules for m in ('numpy', 'pydantic', 'asyncio', 'logging'))", "False"},
	} {
		if got := w.ask(tc.expr); got != tc.want {
			t.Errorf("%s = %q, want %q", tc.expr, got, tc.want)
		}
	}
	w.do("print('to the log')\nreply(1)")
	w.line()
	if b, err := os.ReadFile(out); err != nil || string(b) != "to the log\n" {
		t.Errorf("%s holds %q (%v)", out, b, err)
	}
	if want := filepath.Join(r.dir, fmt.Sprintf("worker-abc-%d.out", w.Pid)); out != want {
		t.Errorf("log = %s, want %s", out, want)
	}
	check(t, w.Rename("01000000"))
	out, errs = w.Logs()
	for path, want := range map[string]string{out: "out", errs: "err"} {
		if want := filepath.Join(r.dir, fmt.Sprintf("worker-abc-01000000-%d.%s", w.Pid, want)); path != want {
			t.Errorf("log = %s, want %s", path, want)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	if got := first.ask("'OF_THE_JOB' in os.environ or 'OMP_NUM_THREADS' in os.environ"); got != "False" {
		t.Error("a worker sees another's environment")
	}
	if got := first.ask("__import__('gc').collect() >= 0"); got != "True" {
		t.Error(got)
	}
}

func TestRandomNumbersDiffer(t *testing.T) {
	t.Parallel()
	py := python(t)
	modules, draws := []string{"random"}, "random.random()"
	if exec.Command(py, "-c", "import numpy.random").Run() == nil {
		// One thread, or its library's own would forbid forking.
		modules, draws = append(modules, "numpy.random"), "random.random(), __import__('numpy').random.random()"
	}
	r := newRig(t, func(c *Config) {
		c.Preload = modules
		c.Env = append(c.Env, "OPENBLAS_NUM_THREADS=1")
	})
	var mu sync.Mutex
	seen := map[string]string{}
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			w, err := r.tryFork(WorkerSpec{ID: fmt.Sprintf("r%d", i)})
			if err != nil {
				t.Error(err)
				return
			}
			w.do("import random\nreply('|'.join(map(repr, [" + draws + "])))")
			line, err := w.lines.ReadString('\n')
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, n := range strings.Split(strings.TrimSpace(line), "|") {
				if other := seen[n]; other != "" {
					t.Errorf("workers %s and %s drew %s", other, w.ID, n)
				}
				seen[n] = w.ID
			}
		})
	}
	all.Wait()
	if len(seen) != 100*len(modules) {
		t.Errorf("%d different numbers, want %d", len(seen), 100*len(modules))
	}
	if strings.Contains(r.log.String(), "started, not forked") {
		t.Errorf("the workers were not forked: %s", r.log)
	}
}

func TestZygoteKilled(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	old := r.fork(WorkerSpec{})
	zygote := r.zygotePid(old)
	gone := ends(t, zygote)
	check(t, unix.Kill(zygote, unix.SIGKILL))
	gone()
	if got := old.ask("6 * 7"); got != "42" {
		t.Errorf("the worker answers %s", got)
	}
	w := r.fork(WorkerSpec{})
	if now := r.zygotePid(w); now == zygote || now == os.Getpid() {
		t.Errorf("the new worker's parent is %d, the dead zygote's pid is %d, ours %d", now, zygote, os.Getpid())
	}
	eventually(t, "the orphan's parent is this process", func() bool { return old.ask("os.getppid()") == fmt.Sprint(os.Getpid()) })
	old.do("sys.exit(9)")
	if e := old.exit(); !e.Known || e.Code != 9 {
		t.Errorf("the orphan's exit = %#v", e)
	}
	w.do("os.abort()")
	if e := w.exit(); e.Signal != unix.SIGABRT {
		t.Errorf("exit = %#v", e)
	}
}

// Zygotes die again and again while workers are forked and end: each fork is answered, each death told exactly once.
func TestZygoteKilledWhileForking(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	zygotes := make(chan int, 1000)
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 25 {
				w, err := r.tryFork(WorkerSpec{ID: fmt.Sprintf("g%d-%d", g, i)})
				if err != nil {
					if !strings.Contains(err.Error(), "died twice") && !strings.Contains(err.Error(), "signal: killed") {
						t.Error(err)
					}
					continue
				}
				w.do("reply(os.getppid())")
				line, err := w.lines.ReadString('\n')
				if err != nil {
					t.Error(err)
					return
				}
				if ppid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && ppid != os.Getpid() && i%8 == 7 {
					zygotes <- ppid
				}
				w.do("os._exit(5)")
				if e := w.exit(); e.Known && e.Code != 5 {
					t.Errorf("exit = %#v", e)
				}
			}
		})
	}
	var killer sync.WaitGroup
	killer.Go(func() {
		killed := map[int]bool{}
		for pid := range zygotes {
			if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); !killed[pid] && err == nil && string(name) == "ray zygote\n" {
				killed[pid] = true
				if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
					t.Error(err)
				}
			}
		}
		if len(killed) == 0 {
			t.Error("no zygote was killed")
		}
	})
	all.Wait()
	close(zygotes)
	killer.Wait()
}

// A zygote that has stopped is replaced: what was asked of it, a fork and how a worker died, is answered all the same.
func TestZygoteThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *Config) { c.answerTime = 2 * time.Second })
	old, dying := r.fork(WorkerSpec{}), r.fork(WorkerSpec{})
	zygote := r.zygotePid(old)
	check(t, unix.Kill(zygote, unix.SIGSTOP))
	dying.do("os._exit(3)")
	if e := dying.exit(); !e.Known || e.Code != 3 {
		t.Errorf("exit = %#v", e)
	}
	if now := r.zygotePid(r.fork(WorkerSpec{})); now == zygote {
		t.Error("the zygote that was stopped was not replaced")
	}

	zygote = r.zygotePid(r.fork(WorkerSpec{}))
	check(t, unix.Kill(zygote, unix.SIGSTOP))
	if now := r.zygotePid(r.fork(WorkerSpec{})); now == zygote {
		t.Error("the zygote that was stopped was not replaced for a fork")
	}
	if got := old.ask("6 * 7"); got != "42" {
		t.Errorf("a worker of the first zygote answers %s", got)
	}
	if n := strings.Count(r.log.String(), "does not answer"); n < 2 {
		t.Errorf("%d times said that a zygote does not answer, not twice:\n%s", n, r.log)
	}
}

func TestThreadsForbidForking(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *Config) { c.Preload = []string{"pool_threads"} })
	var all sync.WaitGroup
	for i := range 3 {
		all.Go(func() {
			w, err := r.tryFork(WorkerSpec{ID: fmt.Sprintf("t%d", i), Threads: 2})
			if err != nil {
				t.Error(err)
				return
			}
			w.do("reply((os.getppid(), os.environ['OMP_NUM_THREADS'], open('/proc/self/cmdline').read(), threading.active_count()))")
			line, err := w.lines.ReadString('\n')
			if want := fmt.Sprintf("(%d, '2', 'ray::IDLE\\x00', 2)\n", os.Getpid()); err != nil || line != want {
				t.Errorf("worker says %q (%v), want %q", line, err, want)
			}
			w.do(fmt.Sprintf("os._exit(%d)", 10+i))
			if e := w.exit(); !e.Known || e.Code != 10+i {
				t.Errorf("exit = %#v", e)
			}
		})
	}
	all.Wait()
	if !strings.Contains(r.log.String(), "2 threads run after preloading") {
		t.Errorf("the log does not say why: %s", r.log)
	}
}

func TestForkFails(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		change func(*Config)
		spec   WorkerSpec
		kind   fault.Kind
		want   string
	}{
		{"no such interpreter", func(c *Config) { c.Python = "/nowhere/python" }, WorkerSpec{ID: "a"}, fault.RuntimeEnv, "/nowhere/python"},
		{"another that does not exist", nil, WorkerSpec{ID: "a", Python: "/nowhere/python"}, fault.RuntimeEnv, "/nowhere/python"},
		{"no SDK", func(c *Config) { c.SDKDir = os.DevNull }, WorkerSpec{ID: "a"}, fault.RuntimeEnv, "No module named 'ray'"},
		{"no such preload", nil, WorkerSpec{ID: "a", Preload: []string{"no_such_module"}}, fault.RuntimeEnv, "ModuleNotFoundError: No module named 'no_such_module'"},
		{"no such main", func(c *Config) { c.Main = "pool_double:nothing" }, WorkerSpec{ID: "a"}, fault.RuntimeEnv, "has no attribute 'nothing'"},
		{"a preload whose error is no UTF-8", nil, WorkerSpec{ID: "a", Preload: []string{"pool_raises"}}, fault.RuntimeEnv, "RuntimeError: no \ufffd luck"},
		{"a preload that leaves a process and ends", nil, WorkerSpec{ID: "a", Preload: []string{"pool_forks", "pool_exits"}}, fault.RuntimeEnv, "exit status 7 (whole"},
		{"a preload that hangs", func(c *Config) { c.startTime = 2 * time.Second }, WorkerSpec{ID: "a", Preload: []string{"pool_hangs"}}, fault.RuntimeEnv, "not ready after 2s"},
		{"fork refused", func(c *Config) { c.Preload = []string{"pool_nofork"} }, WorkerSpec{ID: "a"}, fault.Limit, "resource temporarily unavailable"},
		{"no log folder", func(c *Config) { c.LogDir += "/gone" }, WorkerSpec{ID: "a"}, fault.RuntimeEnv, "no such file"},
		{"bad id", nil, WorkerSpec{ID: "../a"}, fault.System, "letters and digits"},
		{"bad variable", nil, WorkerSpec{ID: "a", Env: map[string]string{"a=b": ""}}, fault.System, `"a=b"`},
		{"huge environment", nil, WorkerSpec{ID: "a", Env: map[string]string{"A": strings.Repeat("x", 70000)}}, fault.RuntimeEnv, "at most 61440"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(c *Config) {
				if tc.name == "no SDK" {
					c.Env = append(c.Env, "PYTHONNOUSERSITE=1")
					c.Python = bare(t)
				}
				if tc.change != nil {
					tc.change(c)
				}
			})
			_, err := r.tryFork(tc.spec)
			if err != nil && !utf8.ValidString(err.Error()) {
				t.Errorf("%q is no UTF-8", err)
			}
			if err == nil || fault.KindOf(err) != tc.kind || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(tc.want)) {
				t.Errorf("error = %v (kind %s), want %q (kind %s)", err, fault.KindOf(err), tc.want, tc.kind)
			}
			left, err := filepath.Glob(filepath.Join(r.dir, "worker-*"))
			if err != nil || len(left) > 0 {
				t.Errorf("files of workers that never were: %v (%v)", left, err)
			}
		})
	}
}

// The output of zygotes that could not start is not kept without end.
func TestOutputOfZygotesIsBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.pool.mu.Lock()
	for k := range zygoteLogs {
		path := filepath.Join(r.dir, fmt.Sprintf("zygote-0-%d.log", k))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Error(err)
		}
		r.pool.logs = append(r.pool.logs, path)
	}
	r.pool.mu.Unlock()
	for k := range 2 {
		if _, err := r.tryFork(WorkerSpec{ID: "a", Preload: []string{fmt.Sprintf("no_such_module_%d", k)}}); err == nil {
			t.Fatal("a module that does not exist was preloaded")
		}
	}
	left, err := filepath.Glob(filepath.Join(r.dir, "zygote-0-*.log"))
	if err != nil || len(left) != zygoteLogs-2 || slices.Contains(left, filepath.Join(r.dir, "zygote-0-1.log")) {
		t.Errorf("%d of %d files are left, %v", len(left), zygoteLogs, err)
	}
}

// bare is an interpreter without the package ray: a virtual environment with nothing in it.
func bare(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command(python(t), "-m", "venv", "--without-pip", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return filepath.Join(dir, "bin", "python")
}

func TestKinds(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *Config) { c.Env = append(c.Env, "OMP_NUM_THREADS=8", "PYTHONHASHSEED=1") })
	plain := r.fork(WorkerSpec{Threads: 2})
	same := r.fork(WorkerSpec{Env: map[string]string{"A": "1"}})
	other := r.fork(WorkerSpec{Env: map[string]string{"PYTHONHASHSEED": "2", "A": "1"}})
	if a, b := r.zygotePid(plain), r.zygotePid(same); a != b {
		t.Errorf("an ordinary variable made another zygote: %d, %d", a, b)
	}
	if a, b := r.zygotePid(plain), r.zygotePid(other); a == b {
		t.Error("PYTHONHASHSEED was set without an exec")
	}
	for w, want := range map[*worker]string{plain: "1", same: "1", other: "2"} {
		if got := w.ask("os.environ['PYTHONHASHSEED']"); got != want {
			t.Errorf("PYTHONHASHSEED = %s, want %s", got, want)
		}
	}
	if got := plain.ask("(os.environ['OMP_NUM_THREADS'], 'MKL_NUM_THREADS' in os.environ)"); got != "('8', False)" {
		t.Errorf("the user's OMP_NUM_THREADS became %s", got)
	}
	if got := same.ask("hash('gray')") == other.ask("hash('gray')"); got {
		t.Error("the hash seed has no effect")
	}
}

func TestEviction(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	oldest := r.fork(WorkerSpec{Env: map[string]string{"PYTHONHASHSEED": "100"}})
	gone := ends(t, r.zygotePid(oldest))
	for i := range maxZygotes {
		r.fork(WorkerSpec{Env: map[string]string{"PYTHONHASHSEED": fmt.Sprint(i)}})
	}
	gone()
	if got := oldest.ask("6 * 7"); got != "42" {
		t.Errorf("the worker of an evicted zygote answers %s", got)
	}
	oldest.do("os._exit(4)")
	if e := oldest.exit(); !e.Known || e.Code != 4 {
		t.Errorf("exit = %#v", e)
	}
	r.fork(WorkerSpec{Env: map[string]string{"PYTHONHASHSEED": "100"}})
}

// What a preloaded module has forked holds the zygote's socket for as long as it lives.
func TestZygoteWithAChild(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *Config) { c.Preload = []string{"pool_forks"} })
	w := r.fork(WorkerSpec{})
	zygote := r.zygotePid(w)
	check(t, unix.Kill(zygote, unix.SIGKILL))
	if now := r.zygotePid(r.fork(WorkerSpec{})); now == zygote {
		t.Error("the zygote that was killed was not replaced")
	}
	r.pool.Stop()
	if !w.exit().Killed {
		t.Error("a worker outlived its pool")
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a, b := r.fork(WorkerSpec{}), r.fork(WorkerSpec{})
	waits := []func(){ends(t, a.Pid), ends(t, b.Pid), ends(t, r.zygotePid(a))}
	b.do("signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\nwhile True: pass")
	answered := make(chan error, 50)
	for i := range cap(answered) { // Stop meets forks in every state
		r.pool.Fork(WorkerSpec{ID: fmt.Sprintf("s%d", i)}, func(w *Worker, err error) {
			if w != nil {
				err = w.Close()
			}
			answered <- err
		})
	}
	var both sync.WaitGroup
	both.Go(r.pool.Stop)
	r.pool.Stop()
	both.Wait()
	for range cap(answered) {
		if err := <-answered; err != nil && !errors.Is(err, ErrStopped) {
			t.Error(err)
		}
	}
	for _, w := range []*worker{a, b} {
		if e := w.exit(); !e.Killed {
			t.Errorf("exit = %#v", e)
		}
	}
	for _, wait := range waits {
		wait()
	}
	if _, err := r.tryFork(WorkerSpec{}); !errors.Is(err, ErrStopped) {
		t.Errorf("fork after stop: %v", err)
	}
	if strings.Contains(r.log.String(), "level=ERROR") {
		t.Errorf("stopping was not clean: %s", r.log)
	}
}

// Not parallel: it counts what the whole process holds open.
func TestNoDescriptorIsLeft(t *testing.T) {
	open := func() map[string]bool {
		names, err := filepath.Glob("/proc/self/fd/*")
		check(t, err)
		set := map[string]bool{}
		for _, name := range names {
			// Neither the listing's own nor what the reaper is reading this moment.
			if to, err := os.Readlink(name); err == nil && !strings.HasPrefix(to, "/proc/") {
				set[filepath.Base(name)+" "+to] = true
			}
		}
		return set
	}
	round := func() {
		r := newRig(t, nil)
		for i := range 5 {
			w := r.fork(WorkerSpec{})
			if i == 2 {
				gone := ends(t, r.zygotePid(w))
				check(t, unix.Kill(r.zygotePid(w), unix.SIGKILL))
				gone()
			}
			if i%2 == 0 {
				w.Kill()
				w.exit()
			}
			check(t, w.Close())
		}
		_, err := r.tryFork(WorkerSpec{Preload: []string{"no_such_module"}})
		if err == nil {
			t.Error("no error")
		}
		spawned := r.fork(WorkerSpec{Preload: []string{"pool_threads"}})
		check(t, spawned.Close())
		if e := spawned.exit(); !e.Known || e.Code != 0 { // it ends when its sockets are closed
			t.Errorf("exit = %#v", e)
		}
		r.pool.Stop()
	}
	round() // opens what Go's runtime keeps
	before := open()
	round()
	for fd := range open() {
		if !before[fd] {
			t.Errorf("left open: %s", fd)
		}
	}
}

func TestForkWaitGivesUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for i := range 10 {
		id := fmt.Sprintf("c%d", i)
		w, err := r.pool.ForkWait(ctx, WorkerSpec{ID: id})
		if err == nil {
			check(t, w.Close())
			continue
		}
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if e := <-r.exitOf(id); !e.Killed {
			t.Errorf("exit = %#v", e)
		}
	}
}

// The daemon is killed: within moments nothing of it is left, whatever its workers were doing.
func TestParentKilled(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	check(t, err)
	cmd := exec.Command(exe)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.Env = append(os.Environ(), "POOL_TEST_PARENT="+t.TempDir(), "POOL_TEST_PYTHON="+python(t), "POOL_TEST_SDK="+sdk(t))
	stdin, err := cmd.StdinPipe()
	check(t, err)
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	pids := map[int]bool{}
	said := bufio.NewScanner(stdout)
	ready := false
	for !ready && said.Scan() {
		for _, word := range strings.Fields(said.Text()) {
			pid, err := strconv.Atoi(word)
			if ready = err != nil; !ready {
				pids[pid] = true
			}
		}
	}
	if !ready || len(pids) != 6 { // three workers, two children, one zygote
		t.Fatalf("the process started %v: %s", pids, &stderr)
	}
	var waits []func()
	for pid := range pids {
		waits = append(waits, ends(t, pid))
	}
	check(t, cmd.Process.Kill())
	for _, wait := range waits {
		wait()
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		t.Errorf("the process ended otherwise: %v", err)
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	_, err := Start(Config{Main: "main", OOMScoreAdj: 2000})
	for _, want := range []string{"Python", "LogDir", "Died", "module:function", "2000"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want all faults, %s too", err, want)
		}
	}
}
