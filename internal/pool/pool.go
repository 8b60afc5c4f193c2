// Package pool gives a node daemon its worker processes.
//
// Workers are forked from a zygote, a Python process that has imported the SDK (python/ray/_core/zygote.py): one zygote
// a combination of interpreter, variables that only an exec applies (LD_*, PYTHON*, MALLOC_*) and modules to preload.
// An interpreter that must not fork (threads or a CUDA context after preloading) is started anew for each worker.
// When and what to start is decided by the daemon's core; the pool carries it out and reports what happened.
//
// Contract: no method of Pool or Worker blocks on a process, except Stop. Callbacks come from the pool's goroutines, one
// at a time for one worker and in order (started, then died); they must not block and must not call Stop. A worker's
// descriptors stay usable after its death, until Worker.Close. When the daemon dies, by whatever means, the kernel kills
// all zygotes and workers.
//
//	p, err := pool.Start(pool.Config{Python: python, LogDir: dir, Arena: f, Died: died})
//	p.Fork(pool.WorkerSpec{ID: id}, func(w *pool.Worker, err error) { … })
package pool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"gray/internal/core/fault"
	"gray/internal/machine"
)

const (
	defaultMain = "ray._core.worker:main"
	// maxInFlight bounds the fork requests that a zygote has not answered: their descriptors, and their bytes in its socket.
	maxInFlight = 16
	// maxZygotes bounds the zygotes kept for other environments than the pool's own.
	maxZygotes = 8
	// zygoteLogs is of how many zygotes that have ended the output is kept.
	zygoteLogs = 100
)

// ErrStopped is the failure of forks that Stop cut off.
var ErrStopped = errors.New("the worker pool is stopped")

// Config is what all workers of a daemon have in common. The zero value of a field that says no default is refused.
type Config struct {
	Python  string       // interpreter: a path, or a name on PATH; no default
	LogDir  string       // folder for the output of workers and zygotes; no default
	SDKDir  string       // folder that holds the package ray; "" is the interpreter's own
	Env     []string     // environment of zygotes and workers, "k=v"; nil is the daemon's own
	Preload []string     // modules that a zygote imports besides the SDK
	Main    string       // "module:function" that workers run; "" is ray._core.worker:main
	Arena   *os.File     // shared memory handed to each worker; may be nil
	Log     *slog.Logger // nil is slog.Default()

	// OOMScoreAdj makes the kernel prefer workers as victims when memory runs out: 0 leaves them as the daemon, and it is
	// added to what the daemon has. 1000 in sum is most.
	OOMScoreAdj int

	// Died tells that a worker's process is gone, after the fork's own callback. Required.
	Died func(*Worker, Exit)

	answerTime, startTime time.Duration // the constants, but for tests
}

// Validate lists every fault of c.
func (c *Config) Validate() error {
	var faults []error
	if c.Python == "" {
		faults = append(faults, errors.New("Python: no interpreter given"))
	}
	if c.LogDir == "" {
		faults = append(faults, errors.New("LogDir: no folder given"))
	}
	if c.Died == nil {
		faults = append(faults, errors.New("Died: no callback given"))
	}
	if c.Main != "" && !strings.Contains(c.Main, ":") {
		faults = append(faults, fmt.Errorf("Main: %q is not module:function", c.Main))
	}
	if c.OOMScoreAdj < -1000 || c.OOMScoreAdj > 1000 {
		faults = append(faults, fmt.Errorf("OOMScoreAdj: %d is not between -1000 and 1000", c.OOMScoreAdj))
	}
	return errors.Join(faults...)
}

// WorkerSpec describes one worker.
type WorkerSpec struct {
	ID      string            // hex worker id, in the names of its log files and in the worker's info["worker_id"]
	Python  string            // interpreter; "" is the pool's
	Env     map[string]string // variables on top of the pool's
	Preload []string          // modules to preload on top of the pool's
	Threads int               // OMP_NUM_THREADS and its like, unless the user set them; 0 leaves them
	Info    map[string]string // further entries for the worker's info
}

// Pool starts workers and watches processes. Safe for concurrent use.
type Pool struct {
	cfg      Config
	log      *slog.Logger
	poll     *poller
	oom      oomCounter
	lifeline [2]*os.File // pipe that is never written to; the write end closes when this process is gone

	running sync.WaitGroup // goroutines
	alive   sync.WaitGroup // workers whose death has not been reported

	mu       sync.Mutex
	stopping bool               // guarded by mu
	sources  map[string]*source // guarded by mu
	workers  map[*Worker]bool   // guarded by mu; those whose death has not been reported
	requests uint64             // guarded by mu; number of the last request
	uses     uint64             // guarded by mu; clock of source.used
	zygotes  int                // guarded by mu; number of the last zygote
	logs     []string           // guarded by mu; of zygotes that have ended, oldest first
	minor    string             // guarded by mu; the interpreter's version, "" until a zygote is ready
}

// PythonMinor is the interpreter's minor version, such as "3.11"; "" until the first zygote is ready.
func (p *Pool) PythonMinor() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.minor
}

// Start makes a pool and starts its zygote in the background.
func Start(cfg Config) (*Pool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, &fault.Error{Op: "pool.Start", Kind: fault.System, Err: err}
	}
	if cfg.Env == nil {
		cfg.Env = os.Environ()
	}
	if cfg.Main == "" {
		cfg.Main = defaultMain
	}
	if cfg.answerTime == 0 {
		cfg.answerTime = answerTime
	}
	if cfg.startTime == 0 {
		cfg.startTime = startTime
	}
	p := &Pool{cfg: cfg, log: cfg.Log, sources: map[string]*source{}, workers: map[*Worker]bool{}}
	if p.log == nil {
		p.log = slog.Default()
	}
	var err error
	if p.lifeline[0], p.lifeline[1], err = os.Pipe(); err != nil {
		return nil, &fault.Error{Op: "pool.Start", Kind: fault.Limit, Err: err}
	}
	if p.poll, err = openPoller(); err != nil {
		return nil, errors.Join(err, p.lifeline[0].Close(), p.lifeline[1].Close())
	}
	p.oom.kills = machine.OOMKills
	p.oom.read()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.startZygoteLocked(p.sourceLocked(WorkerSpec{}), false)
	return p, nil
}

// Fork starts a worker. done is called once: with the worker when its process runs, or with why there is none.
func (p *Pool) Fork(spec WorkerSpec, done func(*Worker, error)) {
	if err := spec.check(); err != nil {
		done(nil, err)
		return
	}
	p.mu.Lock()
	if p.stopping {
		p.mu.Unlock()
		done(nil, ErrStopped)
		return
	}
	src := p.sourceLocked(spec)
	src.queue = append(src.queue, &request{spec: spec, done: done})
	p.uses++
	src.used = p.uses
	failed := p.pumpLocked(src)
	p.evictLocked()
	p.mu.Unlock()
	failed.report()
}

// ForkWait is Fork for callers that may block. If ctx ends first, the worker is killed as soon as it exists.
func (p *Pool) ForkWait(ctx context.Context, spec WorkerSpec) (*Worker, error) {
	type outcome struct {
		w   *Worker
		err error
	}
	var settled atomic.Bool // by whichever comes first
	ready := make(chan outcome, 1)
	p.Fork(spec, func(w *Worker, err error) {
		if settled.CompareAndSwap(false, true) {
			ready <- outcome{w, err}
		} else if w != nil {
			w.Kill()
			if err := w.Close(); err != nil {
				p.log.Error("close a worker that nobody waited for", "worker", w.ID, "err", err)
			}
		}
	})
	select {
	case o := <-ready:
		return o.w, o.err
	case <-ctx.Done():
		if settled.CompareAndSwap(false, true) {
			return nil, context.Cause(ctx)
		}
		o := <-ready
		return o.w, o.err
	}
}

// Stop kills all workers and zygotes and returns when they are gone and their deaths have been reported.
func (p *Pool) Stop() {
	p.mu.Lock()
	if p.stopping {
		p.mu.Unlock()
		p.running.Wait()
		return
	}
	p.stopping = true
	var cut failures
	for _, src := range p.sources {
		for _, r := range src.queue {
			cut = append(cut, failure{r, ErrStopped})
		}
		src.queue = nil
		for z := range src.procs {
			z.stopLocked()
		}
	}
	p.mu.Unlock()
	cut.report()
	p.killAll()
	p.running.Wait() // no zygote is left, and every fork has been answered
	p.killAll()
	p.alive.Wait()
	p.poll.close()
	// What escaped, forked but never reported, is killed by the kernel now.
	for _, end := range p.lifeline {
		if err := end.Close(); err != nil {
			p.log.Error("close the workers' lifeline", "err", err)
		}
	}
}

func (p *Pool) killAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := range p.workers {
		w.killLocked()
	}
}

// Watch calls died, once and from a goroutine of the pool, when the process pid that started at start (field 22 of
// /proc/pid/stat; 0 if unknown) is gone. A process that is gone already is an error that matches os.ErrProcessDone.
// The returned function ends the watch; a call of died that is under way may still finish.
func (p *Pool) Watch(pid int, start uint64, died func()) (cancel func(), err error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		err = os.ErrProcessDone
	}
	if err != nil {
		return nil, &fault.Error{Op: "pool.Watch", Kind: fault.System, Ref: fmt.Sprintf("process %d", pid), Err: err}
	}
	if start != 0 {
		now, err := StartTime(pid) // the pidfd is held: if the start matches, it is of this very process
		if err != nil || now != start {
			return nil, errors.Join(&fault.Error{
				Op: "pool.Watch", Kind: fault.System, Ref: fmt.Sprintf("process %d", pid), Err: os.ErrProcessDone,
				Detail: "another process has its number now",
			}, unix.Close(fd))
		}
	}
	return p.poll.watch(fd, unix.EPOLLIN, true, died)
}

func (s *WorkerSpec) check() error {
	bad := func(detail string) error {
		return &fault.Error{Op: "pool.Fork", Kind: fault.System, Ref: "worker " + s.ID, Detail: detail}
	}
	if s.ID == "" || strings.Trim(s.ID, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_") != "" {
		return bad("a worker id is made of letters and digits")
	}
	for k, v := range s.Env {
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.Contains(v, "\x00") {
			return bad(fmt.Sprintf("environment variable %q: a name has no '=', neither it nor its value a zero byte", k))
		}
	}
	for k, v := range s.Info {
		if strings.ContainsAny(k, "=\x00") || strings.Contains(v, "\x00") {
			return bad(fmt.Sprintf("info %q holds a zero byte or '='", k))
		}
	}
	return nil
}

// ExecOnly says whether a variable acts only on a program that starts with it. PYTHONPATH can be made up for later.
func ExecOnly(name string) bool {
	return strings.HasPrefix(name, "LD_") || strings.HasPrefix(name, "PYTHON") && name != "PYTHONPATH" ||
		strings.HasPrefix(name, "MALLOC_") || name == "GLIBC_TUNABLES"
}

// sourceLocked is the source of spec's kind of worker.
func (p *Pool) sourceLocked(spec WorkerSpec) *source {
	src := &source{python: spec.Python, preload: append(append([]string{}, p.cfg.Preload...), spec.Preload...)}
	if src.python == "" {
		src.python = p.cfg.Python
	}
	for k, v := range spec.Env {
		if ExecOnly(k) {
			src.env = append(src.env, k+"="+v)
		}
	}
	sort.Strings(src.env)
	src.key = strings.Join(append(append([]string{src.python}, src.env...), "\x00"+strings.Join(src.preload, ",")), "\x00")
	if have := p.sources[src.key]; have != nil {
		return have
	}
	src.own = len(p.sources) == 0
	src.procs = map[*zygote]bool{}
	p.sources[src.key] = src
	return src
}

// evictLocked lets go of the zygotes that were least recently used, if there are too many. Their workers go on.
func (p *Pool) evictLocked() {
	for len(p.sources) > 1+maxZygotes {
		var oldest *source
		for _, src := range p.sources {
			if !src.own && len(src.queue) == 0 && src.idle() && (oldest == nil || src.used < oldest.used) {
				oldest = src
			}
		}
		if oldest == nil {
			return // all are at work; the next fork tries again
		}
		delete(p.sources, oldest.key)
		for z := range oldest.procs {
			z.stopLocked()
		}
	}
}
