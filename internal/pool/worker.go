package pool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"gray/internal/core/fault"
	"gray/internal/machine"
)

const (
	tailLines = 20
	tailBytes = 16 << 10
	// pidfdSignalProcessGroup is PIDFD_SIGNAL_PROCESS_GROUP (Linux 6.9): unlike a group's number it can't come to mean another.
	pidfdSignalProcessGroup = 4
)

// Worker is one worker process, blank until the daemon sends it SETUP.
type Worker struct {
	ID      string
	Pid     int
	Exec    *Conn         // packets to the worker
	Stream  *net.UnixConn // the worker's frames
	Channel *net.UnixConn // its channel 0

	p *Pool

	// Guarded by p.mu.
	z       *zygote // its parent; nil if that is this process
	pidfd   int     // -1 once the death has been reported
	killed  bool    // by Kill
	dead    bool    // its process has ended
	status  *unix.WaitStatus
	peak    int64 // bytes that it had resident at most, known with the status
	settled bool  // the death has been reported, or is being

	logMu sync.Mutex
	logs  [2]string // guarded by logMu; paths of stdout and stderr
}

// Exit tells how a worker ended.
type Exit struct {
	Known    bool           // false: the status was lost, because the zygote was killed while it held it
	Code     int            // exit code, if no signal ended it
	Signal   syscall.Signal // the signal that ended it, or 0
	CoreDump bool
	Killed   bool          // by Worker.Kill or Pool.Stop
	OOM      bool          // SIGKILL, not ours, and the kernel's count of out-of-memory kills here had grown
	Peak     int64         // bytes that the process had resident at most; 0 if that is not known
	Bound    machine.Bound // with OOM: what all processes here may have together
	Pod      bool          // with OOM: this is a pod of a Kubernetes cluster
	Stderr   []string      // last lines of its standard error, at most 20
}

// String says it in words, without the lines of output.
func (e Exit) String() string {
	switch {
	case !e.Known && e.Killed:
		return "killed by its node daemon"
	case !e.Known && e.OOM:
		return "killed, most likely by the kernel because memory ran out: its count of out-of-memory kills has grown" + e.memory()
	case !e.Known:
		return "ended with an unknown status (the process that could have told was killed as well)"
	case e.Signal == 0:
		return fmt.Sprintf("exit code %d", e.Code)
	}
	s := "killed by " + unix.SignalName(e.Signal)
	switch {
	case e.Killed:
		s += " from its node daemon"
	case e.OOM:
		s += ", most likely by the kernel because memory ran out: its count of out-of-memory kills has grown" + e.memory()
	case e.CoreDump:
		s += " (core dumped)"
	}
	return s
}

// memory says how much the process had, how much it might have had, and what to do.
func (e Exit) memory() string {
	s := ""
	if e.Peak > 0 {
		s = "; it had used up to " + machine.MiB(e.Peak)
	}
	s += "; " + e.Bound.String() + ", for all of its processes together. "
	if e.Pod {
		s += "Raise resources.limits.memory of the pod"
	} else {
		s += "Raise the limit"
	}
	return s + ", or let fewer tasks run here at a time (more num_cpus a task, or memory=BYTES in its options)"
}

// Kill ends the worker and the processes of its group with SIGKILL. Killing a dead worker does nothing.
func (w *Worker) Kill() {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	w.killLocked()
}

func (w *Worker) killLocked() {
	if w.pidfd < 0 {
		return
	}
	w.killed = w.killed || !w.dead
	w.signalLocked(unix.SIGKILL)
}

func (w *Worker) signalLocked(sig unix.Signal) {
	err := unix.PidfdSendSignal(w.pidfd, sig, nil, pidfdSignalProcessGroup)
	if errors.Is(err, unix.EINVAL) {
		err = unix.Kill(-w.Pid, sig)
	}
	if err != nil && !errors.Is(err, unix.ESRCH) {
		w.p.log.Error("signal a worker's process group", "pid", w.Pid, "signal", sig, "err", err)
	}
	// A worker that was forked this moment may not lead its group yet.
	if err := unix.PidfdSendSignal(w.pidfd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		w.p.log.Error("signal a worker", "pid", w.Pid, "signal", sig, "err", err)
	}
}

// Signal sends sig to the worker's process alone. It fails with os.ErrProcessDone if that is gone.
func (w *Worker) Signal(sig syscall.Signal) error {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	if w.dead || w.pidfd < 0 {
		return os.ErrProcessDone
	}
	err := unix.PidfdSendSignal(w.pidfd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	return os.NewSyscallError("pidfd_send_signal", err)
}

// Close closes the daemon's descriptors of the worker. A living worker then ends when it notices; see Kill.
func (w *Worker) Close() error {
	var errs []error
	if w.Exec != nil {
		errs = append(errs, w.Exec.Close())
	}
	for _, c := range []*net.UnixConn{w.Stream, w.Channel} {
		if c == nil {
			continue
		}
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Logs are the paths of the worker's standard output and error.
func (w *Worker) Logs() (stdout, stderr string) {
	w.logMu.Lock()
	defer w.logMu.Unlock()
	return w.logs[0], w.logs[1]
}

// Rename puts a job (hex) into the names of the worker's log files, once it is known for whom the worker works.
func (w *Worker) Rename(job string) error {
	return w.renameLogs(fmt.Sprintf("worker-%s-%s-%d", w.ID, job, w.Pid))
}

func (w *Worker) renameLogs(name string) error {
	w.logMu.Lock()
	defer w.logMu.Unlock()
	var errs []error
	for i, ext := range []string{".out", ".err"} {
		to := filepath.Join(w.p.cfg.LogDir, name+ext)
		if err := os.Rename(w.logs[i], to); err != nil {
			errs = append(errs, err)
			continue
		}
		w.logs[i] = to
	}
	return errors.Join(errs...)
}

// newWorker makes what a worker is started with. The files are for the worker, in the order of the protocol without the
// arena; the caller closes them.
func (p *Pool) newWorker(spec WorkerSpec) (w *Worker, files []*os.File, err error) {
	w = &Worker{ID: spec.ID, p: p, pidfd: -1}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(files), w.discard())
			w, files = nil, nil
		}
	}()
	if w.Exec, err = newConn(p.poll); err != nil {
		return w, files, err
	}
	fd, err := unix.FcntlInt(uintptr(w.Exec.worker), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return w, files, os.NewSyscallError("fcntl", err)
	}
	files = append(files, os.NewFile(uintptr(fd), "exec"))
	for _, conn := range []**net.UnixConn{&w.Stream, &w.Channel} {
		theirs, ours, err := streamPair()
		if err != nil {
			return w, files, err
		}
		*conn, files = ours, append(files, theirs)
	}
	for i, ext := range []string{".out", ".err"} {
		path := filepath.Join(p.cfg.LogDir, "worker-"+spec.ID+ext)
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return w, files, err
		}
		w.logs[i], files = path, append(files, f)
	}
	return w, files, nil
}

// discard undoes newWorker, for a worker that never ran.
func (w *Worker) discard() error {
	errs := []error{w.Close()}
	for _, path := range w.logs {
		if path != "" {
			errs = append(errs, os.Remove(path))
		}
	}
	return errors.Join(errs...)
}

func streamPair() (theirs *os.File, ours *net.UnixConn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "worker")
	if ours, err = unixConn(fds[0]); err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return theirs, ours, nil
}

// unixConn makes a net.UnixConn of fd and closes fd.
func unixConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "socket")
	c, err := net.FileConn(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

func closeAll(files []*os.File) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// watchWorker begins to wait for w's end.
func (p *Pool) watchWorker(w *Worker) {
	_, err := p.poll.watch(w.pidfd, unix.EPOLLIN, false, func() { p.gone(w) })
	if err == nil {
		return
	}
	// A worker whose death could go unseen must not run.
	p.log.Error("cannot watch a worker, so it is killed", "pid", w.Pid, "err", err)
	w.Kill()
	for {
		if _, err = unix.Poll([]unix.PollFd{{Fd: int32(w.pidfd), Events: unix.POLLIN}}, -1); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	p.gone(w)
}

// gone records that w's process has ended, and reports it if the status is known or can no longer come to be.
func (p *Pool) gone(w *Worker) {
	p.mu.Lock()
	w.dead = true
	report := p.settleLocked(w)
	p.mu.Unlock()
	report()
}

// settleLocked decides whether w's death can be reported now, and returns what reports it.
func (p *Pool) settleLocked(w *Worker) (report func()) {
	if !w.dead || w.settled {
		return func() {}
	}
	if w.status == nil && w.z != nil {
		w.z.askedLocked()
		return func() {} // its zygote will tell, or will be found dead
	}
	w.settled = true
	if w.status == nil {
		w.status, w.peak = reapOwn(w.Pid)
	}
	disown(w.Pid)
	delete(p.workers, w)
	if w.z != nil && w.z.workers[w.Pid] == w { // not the next one with its number
		delete(w.z.workers, w.Pid)
	}
	w.signalLocked(unix.SIGKILL) // what it started and left behind
	if err := unix.Close(w.pidfd); err != nil {
		p.log.Error("close a pidfd", "pid", w.Pid, "err", err)
	}
	w.pidfd = -1
	killed, status, peak := w.killed, w.status, w.peak
	return func() {
		p.cfg.Died(w, p.exit(w, status, peak, killed))
		p.alive.Done()
	}
}

func (p *Pool) exit(w *Worker, status *unix.WaitStatus, peak int64, killed bool) Exit {
	e := Exit{Killed: killed, Peak: peak}
	if status != nil {
		e.Known = true
		if status.Signaled() {
			e.Signal, e.CoreDump = status.Signal(), status.CoreDump()
		} else {
			e.Code = status.ExitStatus()
		}
	}
	if (e.Signal == unix.SIGKILL || !e.Known) && !killed {
		e.OOM = p.oom.struck()
	}
	if e.OOM {
		e.Pod = machine.InPod()
		if bound, err := machine.MemoryBound(); err == nil { // else its words say that it could not be read
			e.Bound = bound
		}
	}
	_, path := w.Logs()
	lines, err := tail(path)
	if err != nil {
		lines = []string{"(its output cannot be read: " + err.Error() + ")"}
	}
	e.Stderr = lines
	return e
}

// tail reads the last lines of a file.
func tail(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	from := max(0, size-tailBytes)
	b, err := io.ReadAll(io.NewSectionReader(f, from, size-from))
	if err != nil {
		return nil, err
	}
	lines := bytes.Split(bytes.TrimRight(b, "\n"), []byte("\n"))
	if from > 0 && len(lines) > 1 {
		lines = lines[1:] // cut in its middle
	}
	lines = lines[max(0, len(lines)-tailLines):]
	out := make([]string, 0, len(lines))
	for _, line := range lines {
		if !isMark(line) && (len(lines) > 1 || len(line) > 0) {
			out = append(out, string(bytes.ToValidUTF8(line, []byte("\ufffd"))))
		}
	}
	return out, nil
}

// isMark tells whether a worker's line says in whose name it prints, instead of being printed.
func isMark(line []byte) bool {
	return bytes.HasPrefix(line, []byte(":task_name:")) || bytes.HasPrefix(line, []byte(":task_id:")) || bytes.HasPrefix(line, []byte(":actor_name:"))
}

func forkFault(spec WorkerSpec, kind fault.Kind, detail string, err error) error {
	return &fault.Error{Op: "pool.Fork", Kind: kind, Ref: "worker " + spec.ID, Detail: detail, Err: err}
}
