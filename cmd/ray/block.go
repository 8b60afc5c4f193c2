package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"gray/internal/session"

	"golang.org/x/sys/unix"
)

// stopGrace is how long a daemon may take to end after a signal to its supervisor; Kubernetes allows a pod 30 s.
const stopGrace = 20 * time.Second

// supervisor is `ray start --block`: it waits for the daemon, passes signals on, and reaps what is left to it. As a
// container's first process it is the only one that can.
type supervisor struct {
	signals chan os.Signal
}

// superviseSignals takes the signals before the daemon exists, so that none is lost in between. A node does not end because
// nobody reads any more what its supervisor says.
func superviseSignals() *supervisor {
	signal.Ignore(syscall.SIGPIPE)
	s := &supervisor{signals: make(chan os.Signal, 8)}
	signal.Notify(s.signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	return s
}

func (s *supervisor) close() { signal.Stop(s.signals) }

// passOn has a signal end the daemon while it is not ready yet, and keeps it for wait. The function it gives ends that.
func (s *supervisor) passOn(pid int) func() {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case sig := <-s.signals:
			// Not reaped before this has ended, so the number is its own. It may have ended by itself.
			_ = unix.Kill(pid, unix.SIGTERM)
			s.signals <- sig
		case <-stop:
		}
	}()
	return func() { close(stop); <-done }
}

// errReplaced: the daemon ended because its head was replaced by one of a new cluster.
var errReplaced = errors.New("the head was replaced by one of a new cluster")

// wait returns when the daemon has ended: nil if somebody stopped it, exit status 1 if it was by our signal or it failed.
func (s *supervisor) wait(p *printer, pid int, n *session.NodeFile) error {
	logs := filepath.Join(n.SessionDir, "logs")
	report := filepath.Join(logs, "ray_process_exit.log")
	p.print("")
	p.heading("--block")
	p.print("  This command will now block forever until terminated by a signal.")
	p.print("  Running subprocesses are monitored and a message will be printed if any of them terminate unexpectedly. Details are written to %s.", report)

	ended := make(chan unix.WaitStatus, 1)
	failed := make(chan error, 1)
	go func() {
		for {
			var ws unix.WaitStatus
			got, err := unix.Wait4(-1, &ws, 0, nil)
			switch {
			case errors.Is(err, unix.EINTR):
			case err != nil:
				failed <- fmt.Errorf("wait for process %d: %w", pid, err)
				return
			case got == pid:
				ended <- ws
				return
			}
		}
	}()
	proc, err := session.OpenProcess(pid, n.StartTime)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err == nil {
		defer proc.Close()
	}
	signalled := false
	var grace <-chan time.Time
	send := func(sig unix.Signal) {
		if proc != nil {
			if err := proc.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
				p.fail("signal %v to process %d: %v", sig, pid, err)
			}
		}
	}
	for {
		select {
		case sig := <-s.signals:
			if signalled {
				send(unix.SIGKILL)
				break
			}
			signalled = true
			grace = time.After(stopGrace)
			p.print("Got %v, stopping the node.", sig)
			send(unix.SIGTERM)
		case <-grace:
			send(unix.SIGKILL)
		case err := <-failed:
			return err
		case ws := <-ended:
			return s.ended(p, ws, signalled, n, report)
		}
	}
}

func (s *supervisor) ended(p *printer, ws unix.WaitStatus, signalled bool, n *session.NodeFile, report string) error {
	expected := ws.Exited() && ws.ExitStatus() == 0 || ws.Signaled() && ws.Signal() == unix.SIGTERM
	if signalled {
		return &exitError{status: 1}
	}
	if expected {
		return nil
	}
	if ws.Exited() && ws.ExitStatus() == replacedStatus {
		return errReplaced
	}
	text := fmt.Sprintf("Some Ray subprocesses exited unexpectedly:\n  raylet [%s]", describe(ws))
	if tail := logTail(n); tail != "" {
		text += "\n  last lines of its log:\n" + tail
	}
	p.fail("%s", text)
	p.fail("Remaining processes will be killed.") // they are children of the daemon, and end with it
	f, err := os.OpenFile(report, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
	if err == nil {
		_, err = fmt.Fprintf(f, "%s %s\n", time.Now().Format(time.RFC3339), text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		p.fail("%v", err)
	}
	return &exitError{status: 1}
}

// logTail is the last 20 lines of the daemon's stderr, indented.
func logTail(n *session.NodeFile) string {
	suffix := strings.TrimPrefix(filepath.Base(n.Socket), "raylet")
	f, err := os.Open(filepath.Join(n.SessionDir, "logs", "raylet"+suffix+".err"))
	if err != nil {
		return ""
	}
	defer f.Close()
	if end, err := f.Seek(0, 2); err != nil || end > 64<<10 {
		if _, err := f.Seek(-64<<10, 2); err != nil {
			return ""
		}
	} else if _, err := f.Seek(0, 0); err != nil {
		return ""
	}
	var lines []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if lines = append(lines, "    "+sc.Text()); len(lines) > 20 {
			lines = lines[1:]
		}
	}
	return strings.Join(lines, "\n")
}
