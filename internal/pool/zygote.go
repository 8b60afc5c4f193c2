package pool

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gray/internal/core/fault"
)

const (
	// boot replaces the working directory, which must not shadow modules, with the SDK's folder and starts the zygote.
	boot = `import sys; sys.path[:] = [d for d in sys.argv[1:2] if d] + sys.path[sys.path[:1] == [""]:]
from ray._core.zygote import main; main(sys.argv[2] == "once")`
	// titleRoom is what a title can take at least, in bytes.
	titleRoom = 240
	// maxMessage is the most that a zygote reads at once.
	maxMessage = 60 << 10
	// maxSpawning bounds the interpreters that are being started at a time, each of which takes a CPU.
	maxSpawning = 4
	// stopGrace is how long a zygote may take to answer what it was asked before it was told to stop.
	stopGrace = 2 * time.Second
	// restartAfter is the age from which a zygote that dies is replaced at once rather than at the next fork.
	restartAfter = time.Second
	// answerTime is how long a zygote may say nothing though a fork or a dead worker's status is asked of it. It takes
	// milliseconds; one that takes this long is stopped, or hangs in what it has preloaded, and would hang all tasks with it.
	answerTime = 30 * time.Second
	// startTime is how long an interpreter may import what it preloads, as long as Ray lets an environment be set up. The
	// tasks that wait for it hold their CPUs meanwhile.
	startTime = 10 * time.Minute
)

// source is where workers of one kind come from.
type source struct {
	key     string
	python  string
	env     []string
	preload []string
	own     bool // the pool's own kind, never evicted

	// Guarded by Pool.mu.
	used  uint64
	queue []*request
	z     *zygote          // whom to ask; nil if there is none now
	procs map[*zygote]bool // z, interpreters that are becoming workers, and those that are ending
	spawn string           // why its interpreter must not fork; "" if it may
}

type request struct {
	spec   WorkerSpec
	done   func(*Worker, error)
	worker *Worker // while it is in flight
	again  bool    // it was in flight when a zygote died
}

// failure is a request that is to be told its error; failures are collected under the lock and reported without it.
type (
	failure struct {
		r   *request
		err error
	}
	failures []failure
)

func (f failures) report() {
	for _, one := range f {
		one.r.done(nil, one.err)
	}
}

// zygote is a zygote process, or (once) an interpreter that becomes its first worker.
type zygote struct {
	p    *Pool
	src  *source
	once bool
	log  string // path of its output

	// Guarded by p.mu.
	ctl      *net.UnixConn // nil until its process runs
	proc     *os.Process
	unwatch  func() // ends the watch of its process
	stopping bool
	grace    *time.Timer // kills it if it doesn't stop
	owes     *time.Timer // kills it if it doesn't answer, or get ready; nil while nothing is asked of it
	ready    time.Time   // zero while it imports
	fatal    string      // why it could not
	replied  bool        // once: it is the worker now
	inflight map[uint64]*request
	workers  map[int]*Worker
}

func (src *source) idle() bool {
	for z := range src.procs {
		if len(z.inflight) > 0 || z.ready.IsZero() {
			return false
		}
	}
	return true
}

func (p *Pool) startZygoteLocked(src *source, once bool) *zygote {
	p.zygotes++
	z := &zygote{
		p: p, src: src, once: once, inflight: map[uint64]*request{}, workers: map[int]*Worker{},
		log: filepath.Join(p.cfg.LogDir, fmt.Sprintf("zygote-%d-%d.log", os.Getpid(), p.zygotes)),
	}
	src.procs[z] = true
	if !once {
		src.z = z
	}
	p.running.Go(z.run)
	return z
}

func (z *zygote) run() {
	ctl, err := z.start()
	if err == nil {
		z.read(ctl)
	}
	z.ended(err)
}

// start starts the process and tells it what to import.
func (z *zygote) start() (*net.UnixConn, error) {
	p := z.p
	python, err := exec.LookPath(z.src.python)
	if err != nil {
		return nil, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "control")
	defer theirs.Close()
	ctl, err := unixConn(fds[0])
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*net.UnixConn, error) { return nil, errors.Join(err, ctl.Close()) }
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fail(err)
	}
	defer null.Close()
	out, err := os.OpenFile(z.log, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fail(err)
	}
	defer out.Close()

	mode := "fork"
	if z.once {
		mode = "once"
	}
	var env []string
	for _, kv := range p.cfg.Env {
		name, _, _ := strings.Cut(kv, "=")
		overridden := false
		for _, own := range z.src.env {
			overridden = overridden || strings.HasPrefix(own, name+"=")
		}
		if !overridden {
			env = append(env, kv)
		}
	}
	proc, err := StartProcess(python,
		[]string{z.src.python, "-c", boot, p.cfg.SDKDir, mode, strings.Repeat(" ", titleRoom)},
		&os.ProcAttr{Env: append(env, z.src.env...), Files: []*os.File{null, out, out, theirs, p.lifeline[0]}})
	if err != nil {
		return fail(err)
	}

	// What a preloaded module has forked may hold the other end of the socket, so the process's own end must end the reading,
	// too: what it has said before is still read.
	pidfd, err := unix.PidfdOpen(proc.Pid, 0)
	var unwatch func()
	if err == nil {
		unwatch, err = p.poll.watch(pidfd, unix.EPOLLIN, true, func() {
			if err := ctl.CloseRead(); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, unix.ENOTCONN) {
				p.log.Error("end the reading from a zygote that is gone", "pid", proc.Pid, "err", err)
			}
		})
	}

	p.mu.Lock()
	z.ctl, z.proc, z.unwatch = ctl, proc, unwatch
	z.owes = time.AfterFunc(p.cfg.startTime, z.silent)
	if err != nil {
		p.mu.Unlock()
		return ctl, os.NewSyscallError("watch the interpreter", err)
	}
	if z.stopping || p.stopping {
		z.stopLocked()
	}
	p.mu.Unlock()
	config := message{"main": p.cfg.Main, "preload": strings.Join(z.src.preload, ","), "oom": strconv.Itoa(p.oomScoreAdj())}
	if _, err := ctl.Write(config.pack()); err != nil && !errors.Is(err, unix.EPIPE) {
		return ctl, err // a closed pipe is found by reading, with what the process has said before
	}
	return ctl, nil
}

// stopLocked makes the process go away once it has answered what it was asked.
func (z *zygote) stopLocked() {
	z.stopping = true
	if z.src.z == z {
		z.src.z = nil
	}
	switch {
	case z.proc == nil || z.replied:
	case z.ready.IsZero():
		z.kill() // it may be importing for minutes
	default:
		if err := z.ctl.CloseWrite(); err != nil && !errors.Is(err, unix.ENOTCONN) {
			z.p.log.Error("hang up on a zygote", "pid", z.proc.Pid, "err", err)
		}
		z.grace = time.AfterFunc(stopGrace, z.kill)
	}
}

func (z *zygote) kill() {
	if err := z.proc.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		z.p.log.Error("kill a zygote", "pid", z.proc.Pid, "err", err)
	}
}

// askedLocked begins to wait for an answer, unless that has begun.
func (z *zygote) askedLocked() {
	if z.owes == nil {
		z.owes = time.AfterFunc(z.p.cfg.answerTime, z.silent)
	}
}

// heardLocked takes a sign of life: the wait for whatever is still to be answered begins anew.
func (z *zygote) heardLocked() {
	if z.owes == nil {
		return
	}
	z.owes.Stop()
	z.owes = nil
	dead := false
	for _, w := range z.workers {
		dead = dead || w.dead
	}
	if dead || len(z.inflight) > 0 {
		z.askedLocked()
	}
}

// silent ends a process that does not answer; what was asked of it is asked of the next one.
func (z *zygote) silent() {
	z.p.mu.Lock()
	defer z.p.mu.Unlock()
	if z.owes == nil || z.replied {
		return
	}
	if z.ready.IsZero() {
		z.fatal = fmt.Sprintf("it was not ready after %v; what it imports at its start hangs or takes too long", z.p.cfg.startTime)
		z.kill()
		return
	}
	z.p.log.Error("a worker zygote does not answer, so it is killed and replaced", "pid", z.proc.Pid, "waited", z.p.cfg.answerTime,
		"forks asked for", len(z.inflight), "workers", len(z.workers), "log", z.log)
	z.kill()
}

// read takes what the process says until it hangs up.
func (z *zygote) read(ctl *net.UnixConn) {
	buf, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := ctl.ReadMsgUnix(buf, oob)
		if err != nil || n == 0 {
			return // however it ended, ended finds out more
		}
		pidfd := -1
		if oobn > 0 {
			if pidfd, err = oneRight(oob[:oobn]); err != nil {
				z.p.log.Error("a zygote's answer is broken", "err", err)
				return
			}
		}
		z.handle(unpack(buf[:n]), pidfd)
	}
}

func oneRight(oob []byte) (int, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return -1, os.NewSyscallError("recvmsg", err)
	}
	if len(messages) != 1 {
		return -1, fmt.Errorf("%d control messages in place of 1", len(messages))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("%d descriptors in place of 1 (%w)", len(fds), err)
	}
	return fds[0], nil
}

func (z *zygote) handle(m message, pidfd int) {
	p := z.p
	var failed failures
	var reports []func()
	var born *request
	var worker *Worker

	p.mu.Lock()
	switch {
	case m["fatal"] != "":
		z.fatal = strings.ToValidUTF8(m["fatal"], "\ufffd")
	case m["ready"] != "":
		z.ready = time.Now()
		if z.src.python == p.cfg.Python {
			p.minor = m["py"]
		}
		switch why := m["why"]; {
		case why != "" && !z.once:
			p.log.Warn("workers are started, not forked, which takes longer", "python", z.src.python, "why", why)
			z.src.spawn = why
			z.stopLocked()
		case z.once:
			failed = p.giveLocked(z)
		}
		failed = append(failed, p.pumpLocked(z.src)...)
	case m["req"] != "":
		number, err := strconv.ParseUint(m["req"], 10, 64)
		r := z.inflight[number]
		if err != nil || r == nil {
			break
		}
		delete(z.inflight, number)
		worker, r.worker = r.worker, nil
		pid, err := strconv.Atoi(m["pid"])
		if err != nil || pid <= 0 || pidfd < 0 {
			failed = append(failed, failure{r, p.refused(r.spec, m, worker)})
		} else {
			born = r
			worker.Pid, worker.pidfd, pidfd = pid, pidfd, -1
			own(pid)
			p.workers[worker] = true
			p.alive.Add(1)
			if z.once {
				z.replied = true
			} else {
				worker.z = z
				z.workers[pid] = worker
			}
		}
		failed = append(failed, p.pumpLocked(z.src)...)
	case m["exit"] != "":
		words := strings.Fields(m["exit"])
		for i := 0; i+2 < len(words); i += 3 {
			pid, err1 := strconv.Atoi(words[i])
			status, err2 := strconv.Atoi(words[i+1])
			peak, err3 := strconv.ParseInt(words[i+2], 10, 64)
			if w := z.workers[pid]; w != nil && err1 == nil && err2 == nil && err3 == nil {
				ws := unix.WaitStatus(status)
				w.status, w.peak = &ws, peak<<10
				reports = append(reports, p.settleLocked(w))
			}
		}
	}
	z.heardLocked()
	p.mu.Unlock()

	if pidfd >= 0 {
		if err := unix.Close(pidfd); err != nil {
			p.log.Error("close a pidfd", "err", err)
		}
	}
	failed.report()
	for _, report := range reports {
		report()
	}
	if born != nil {
		if err := worker.renameLogs(fmt.Sprintf("worker-%s-%d", worker.ID, worker.Pid)); err != nil {
			p.log.Error("rename a worker's log files", "worker", worker.ID, "err", err)
		}
		born.done(worker, nil)
		p.watchWorker(worker)
	}
}

// refused is the error of a fork that the system did not grant.
func (p *Pool) refused(spec WorkerSpec, m message, w *Worker) error {
	err := w.discard()
	if n, aerr := strconv.Atoi(m["errno"]); aerr == nil {
		err = errors.Join(unix.Errno(n), err)
	}
	return forkFault(spec, fault.Limit, "the system refuses to fork (see ulimit -u, the pids limit of the cgroup, and free memory)", err)
}

// pumpLocked asks for the workers in src's queue, as far as it may.
func (p *Pool) pumpLocked(src *source) (failed failures) {
	for len(src.queue) > 0 && !p.stopping {
		switch {
		case src.spawn != "":
			spawning := 0
			for z := range src.procs {
				if z.once && !z.replied && !z.stopping {
					spawning++
				}
			}
			if spawning >= min(maxSpawning, len(src.queue)) {
				return failed // each takes one from the queue when it is ready
			}
			p.startZygoteLocked(src, true)
		case src.z == nil:
			p.startZygoteLocked(src, false)
		case src.z.ready.IsZero() || len(src.z.inflight) >= maxInFlight:
			return failed
		default:
			r := src.queue[0]
			src.queue = src.queue[1:]
			again, err := p.askLocked(src.z, r)
			if err != nil {
				failed = append(failed, failure{r, err})
			}
			if again {
				src.queue = append([]*request{r}, src.queue...)
				return failed
			}
		}
	}
	return failed
}

// giveLocked gives an interpreter that is to become a worker the first request of the queue, or sends it away.
func (p *Pool) giveLocked(z *zygote) (failed failures) {
	for len(z.src.queue) > 0 && !z.stopping {
		r := z.src.queue[0]
		z.src.queue = z.src.queue[1:]
		again, err := p.askLocked(z, r)
		if err == nil && !again {
			return failed
		}
		if again {
			err = forkFault(r.spec, fault.System, "", unix.EAGAIN)
		}
		failed = append(failed, failure{r, err})
	}
	z.stopLocked()
	return failed
}

// askLocked sends a request to a process that is ready. again: it must be tried again after an answer.
func (p *Pool) askLocked(z *zygote, r *request) (again bool, err error) {
	p.requests++
	m := message{"req": strconv.FormatUint(p.requests, 10), "info:worker_id": r.spec.ID}
	if r.spec.Threads > 0 {
		m["threads"] = strconv.Itoa(r.spec.Threads)
	}
	for k, v := range r.spec.Info {
		m["info:"+k] = v
	}
	for k, v := range r.spec.Env {
		if !ExecOnly(k) {
			m["env:"+k] = v
		}
	}
	packet := m.pack()
	if len(packet) > maxMessage {
		return false, forkFault(r.spec, fault.RuntimeEnv,
			fmt.Sprintf("its environment variables take %d bytes; at most %d are possible", len(packet), maxMessage), nil)
	}
	w, files, err := p.newWorker(r.spec)
	if err != nil {
		return false, forkFault(r.spec, fault.Limit, "its descriptors or log files cannot be made", err)
	}
	rights := make([]int, 0, 6)
	for i, f := range files {
		if i == 3 && p.cfg.Arena != nil {
			rights = append(rights, int(p.cfg.Arena.Fd()))
		}
		rights = append(rights, int(f.Fd()))
	}
	raw, err := z.ctl.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) {
			err = unix.Sendmsg(int(fd), packet, unix.UnixRights(rights...), nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		})
		err = errors.Join(err, cerr)
	}
	if cerr := closeAll(files); cerr != nil {
		p.log.Error("close a worker's descriptors", "err", cerr)
	}
	switch {
	case err == nil, errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
		// A process that has just died is found by its reader, which asks anew for what was in flight.
		r.worker = w
		z.inflight[p.requests] = r
		z.askedLocked()
		return false, nil
	case errors.Is(err, unix.EAGAIN) && len(z.inflight) > 0:
		return true, w.discard()
	}
	return false, forkFault(r.spec, fault.System, "its zygote cannot be asked", errors.Join(err, w.discard()))
}

// ended takes stock after the process has gone: err is why it could not be started, if so.
func (z *zygote) ended(err error) {
	p := z.p
	p.mu.Lock()
	z.src.drop(z)
	proc, ctl, unwatch, replied := z.proc, z.ctl, z.unwatch, z.replied
	if z.grace != nil {
		z.grace.Stop()
	}
	p.mu.Unlock()
	if unwatch != nil {
		unwatch()
	}
	var how string
	if replied {
		if rerr := proc.Release(); rerr != nil { // it is a worker now, watched and reaped as such
			p.log.Error("release a worker's process", "err", rerr)
		}
	}
	if proc != nil && !replied {
		z.kill()
		state, werr := proc.Wait() // from here on its children are ours
		disown(proc.Pid)
		if werr != nil {
			how = werr.Error()
		} else {
			how = state.String()
		}
	}
	if ctl != nil {
		if cerr := ctl.Close(); cerr != nil {
			p.log.Error("close a zygote's control socket", "err", cerr)
		}
	}

	p.mu.Lock()
	lost := z.inflight
	z.inflight = nil
	var failed failures
	startFailed := z.ready.IsZero() && !z.stopping
	switch {
	case startFailed:
		err = z.whyNot(err, how)
		p.log.Error("a worker zygote could not be started", "python", z.src.python, "err", err)
		take := z.src.queue
		if z.once && len(take) > 1 {
			take = take[:1] // others may fare better
		}
		for _, r := range take {
			failed = append(failed, failure{r, err})
		}
		z.src.queue = z.src.queue[len(take):]
	case !z.stopping && !replied:
		p.log.Warn("a worker zygote died; its workers go on", "pid", proc.Pid, "how", how, "workers", len(z.workers))
	}
	for _, r := range lost {
		// If it was forked, it ends when it finds its sockets closed.
		if derr := r.worker.discard(); derr != nil {
			p.log.Error("give up a worker", "worker", r.spec.ID, "err", derr)
		}
		r.worker = nil
		switch {
		case p.stopping:
			failed = append(failed, failure{r, ErrStopped})
		case r.again:
			failed = append(failed, failure{r, forkFault(r.spec, fault.System, "its zygote died twice while starting it: "+how, nil)})
		default:
			r.again = true
			z.src.queue = append([]*request{r}, z.src.queue...)
		}
	}
	if p.logs = append(p.logs, z.log); len(p.logs) > zygoteLogs {
		if rerr := os.Remove(p.logs[0]); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			p.log.Warn("the output of a zygote that ended long ago cannot be removed", "file", p.logs[0], "err", rerr)
		}
		p.logs = p.logs[1:]
	}
	reports := z.orphanLocked()
	if !p.stopping && z.src.own && !z.once && z.src.spawn == "" && !z.stopping &&
		!z.ready.IsZero() && time.Since(z.ready) >= restartAfter && z.src.z == nil {
		p.startZygoteLocked(z.src, false)
	}
	failed = append(failed, p.pumpLocked(z.src)...)
	p.mu.Unlock()
	failed.report()
	for _, report := range reports {
		report()
	}
}

// orphanLocked makes the workers of a dead zygote our own children, which the kernel has done, and reports the dead.
func (z *zygote) orphanLocked() (reports []func()) {
	if z.owes != nil {
		z.owes.Stop()
	}
	for pid, w := range z.workers {
		delete(z.workers, pid)
		w.z = nil
		reports = append(reports, z.p.settleLocked(w))
	}
	return reports
}

func (src *source) drop(z *zygote) {
	delete(src.procs, z)
	if src.z == z {
		src.z = nil
	}
}

// whyNot is the error of a process that did not come to serve.
func (z *zygote) whyNot(err error, how string) error {
	detail := "the interpreter cannot start workers"
	if z.fatal != "" {
		detail += ": " + z.fatal
	} else if err == nil {
		lines, terr := tail(z.log)
		if terr != nil {
			lines = []string{terr.Error()}
		}
		detail += ": " + how
		if len(lines) > 0 {
			detail += ": " + strings.Join(lines[max(0, len(lines)-6):], " | ")
		}
	}
	detail += fmt.Sprintf(" (whole output: %s)", z.log)
	if len(z.src.preload) == 0 {
		detail += "; is the package ray installed for it?"
	}
	return &fault.Error{Op: "pool.Fork", Kind: fault.RuntimeEnv, Ref: z.src.python, Detail: detail, Err: err}
}
