package session

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// StartTime is field 22 of /proc/<pid>/stat: clock ticks from boot to the process's start. With the pid it names a
// process for good, where the pid alone may have been given to another. A zombie has no start time: os.ErrNotExist.
func StartTime(pid int) (int64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		if errors.Is(err, unix.ESRCH) {
			err = fmt.Errorf("process %d: %w", pid, os.ErrNotExist)
		}
		return 0, err
	}
	// The second field is the command in brackets and may hold brackets and spaces itself.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return 0, fmt.Errorf("/proc/%d/stat: no command in %q", pid, b)
	}
	f := bytes.Fields(b[i+1:]) // f[0] is field 3
	if len(f) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields after the command", pid, len(f))
	}
	if s := f[0][0]; s == 'Z' || s == 'X' {
		return 0, fmt.Errorf("process %d has ended: %w", pid, os.ErrNotExist)
	}
	return strconv.ParseInt(string(f[19]), 10, 64)
}

// Alive reports whether the very process that started at start is running.
func Alive(pid int, start int64) bool {
	t, err := StartTime(pid)
	return err == nil && t == start
}

// Process is a handle on one process that a reused pid cannot redirect.
type Process struct {
	Pid int
	fd  int
}

// OpenProcess opens the process pid that started at start; os.ErrNotExist if it is gone.
func OpenProcess(pid int, start int64) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		if errors.Is(err, unix.ESRCH) {
			err = fmt.Errorf("process %d: %w", pid, os.ErrNotExist)
		}
		return nil, err
	}
	p := &Process{Pid: pid, fd: fd}
	if !Alive(pid, start) { // after the open: from here on the descriptor means this process
		p.Close()
		return nil, fmt.Errorf("process %d: %w", pid, os.ErrNotExist)
	}
	return p, nil
}

// Signal sends sig; os.ErrProcessDone if the process has ended.
func (p *Process) Signal(sig unix.Signal) error {
	err := unix.PidfdSendSignal(p.fd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// Wait reports whether the process ended within the timeout. Someone else reaps it.
func (p *Process) Wait(timeout time.Duration) bool {
	end := time.Now().Add(timeout)
	for {
		ms := max(0, int(time.Until(end).Milliseconds()))
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, ms)
		if n > 0 {
			return true
		}
		if err != nil && !errors.Is(err, unix.EINTR) || err == nil && ms == 0 {
			return false
		}
	}
}

// Close lets the handle go.
func (p *Process) Close() error { return unix.Close(p.fd) }
