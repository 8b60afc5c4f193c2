package pool

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"gray/internal/core/fault"
)

// The children of this process are one set for the whole process, hence the package variables.
var (
	// starting is read-locked while a process is started, so that the reaper meets no child that is not yet in owned.
	starting sync.RWMutex

	ownedMu sync.Mutex
	owned   = map[int]bool{} // guarded by ownedMu; children whose status somebody here waits for
	reaping bool             // guarded by ownedMu
)

// StartProcess is os.StartProcess for processes whose exit status the caller takes itself. A program that reaps orphans
// (see Reap) must start processes in sessions of their own by it.
func StartProcess(name string, argv []string, attr *os.ProcAttr) (*os.Process, error) {
	starting.RLock()
	defer starting.RUnlock()
	proc, err := os.StartProcess(name, argv, attr)
	if err == nil {
		own(proc.Pid)
	}
	return proc, err
}

func own(pid int) {
	ownedMu.Lock()
	defer ownedMu.Unlock()
	owned[pid] = true
}

func disown(pid int) {
	ownedMu.Lock()
	defer ownedMu.Unlock()
	delete(owned, pid)
}

// reapOwn takes the exit status of a child that has ended, and how many bytes it had resident at most; nil if it is no
// child of ours.
func reapOwn(pid int) (status *unix.WaitStatus, peak int64) {
	var ws unix.WaitStatus
	var used unix.Rusage
	for {
		got, err := unix.Wait4(pid, &ws, unix.WNOHANG, &used)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || got != pid:
			return nil, 0
		default:
			return &ws, used.Maxrss << 10
		}
	}
}

// Reap makes this process adopt the orphans among its descendants and takes their exit statuses, so that none stays a
// zombie. It leaves alone children started by StartProcess, and those in this process's own session, whose starter waits
// for them. A process calls it once, before it starts workers; stop returns when the reaper has ended.
func Reap(log *slog.Logger) (stop func(), err error) {
	ownedMu.Lock()
	defer ownedMu.Unlock()
	if reaping {
		return nil, &fault.Error{Op: "pool.Reap", Kind: fault.System, Detail: "this process has a reaper already"}
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, &fault.Error{Op: "pool.Reap", Kind: fault.System, Err: os.NewSyscallError("prctl", err)}
	}
	reaping = true
	chld := make(chan os.Signal, 1)
	signal.Notify(chld, unix.SIGCHLD)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			if err := reapOrphans(); err != nil {
				log.Error("look for orphans", "err", err)
			}
			select {
			case <-chld:
			case <-quit:
				return
			}
		}
	}()
	var once sync.Once
	return func() {
		once.Do(func() {
			signal.Stop(chld)
			close(quit)
			<-done
			ownedMu.Lock()
			reaping = false
			ownedMu.Unlock()
		})
	}, nil
}

func reapOrphans() error {
	starting.Lock()
	defer starting.Unlock()
	session, err := unix.Getsid(0)
	if err != nil {
		return os.NewSyscallError("getsid", err)
	}
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return err
	}
	if len(lists) == 0 {
		return errors.New("/proc/self/task/*/children is missing: the kernel lacks CONFIG_PROC_CHILDREN, orphans stay zombies")
	}
	for _, path := range lists {
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			return err
		}
		for _, word := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(word)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			stat, err := readStat(pid)
			if err != nil || stat.state != 'Z' || stat.session == session {
				continue // alive, or reaped by who owns it
			}
			ownedMu.Lock()
			if !owned[pid] {
				reapOwn(pid)
			}
			ownedMu.Unlock()
		}
	}
	return nil
}

type procStat struct {
	state   byte
	session int
	start   uint64
}

func readStat(pid int) (s procStat, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return s, err
	}
	// The name, in parentheses, may hold anything; fields are counted from what follows it, number 3.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 {
		return s, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	s.state = fields[0][0]
	if s.session, err = strconv.Atoi(string(fields[3])); err != nil {
		return s, err
	}
	s.start, err = strconv.ParseUint(string(fields[19]), 10, 64)
	return s, err
}

// StartTime is field 22 of /proc/pid/stat: with the pid it names one process of this boot. It fails for a zombie.
func StartTime(pid int) (uint64, error) {
	s, err := readStat(pid)
	if err == nil && s.state == 'Z' {
		err = os.ErrProcessDone
	}
	return s.start, err
}
