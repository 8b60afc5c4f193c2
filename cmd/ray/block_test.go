package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func (s *shell) command(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	if exe, err := os.Executable(); err == nil {
		cmd.Path = exe
	}
	if len(s.prefix) > 0 {
		cmd = exec.Command(s.prefix[0], append(append(s.prefix[1:len(s.prefix):len(s.prefix)], cmd.Path), args...)...)
	}
	cmd.Env = s.env
	return cmd
}

// blocked is a running `ray start --block`.
type blocked struct {
	*exec.Cmd
	out  *bytes.Buffer // complete once read is closed
	read chan struct{}
}

func (s *shell) block(args ...string) *blocked {
	s.t.Helper()
	b := &blocked{Cmd: s.command(append([]string{"start", "--head", "--port=0", "--node-ip-address=127.0.0.1", "--block"}, args...)...), out: &bytes.Buffer{}, read: make(chan struct{})}
	r, w, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	b.Stdout, b.Stderr = w, w
	if err := b.Start(); err != nil {
		s.t.Fatal(err)
	}
	w.Close()
	blocking := make(chan struct{})
	var once sync.Once
	go func() {
		defer close(b.read)
		defer r.Close()
		defer once.Do(func() { close(blocking) })
		in := bufio.NewReader(r)
		for {
			line, err := in.ReadString('\n')
			b.out.WriteString(line)
			if strings.Contains(line, "ray_process_exit.log") {
				once.Do(func() { close(blocking) })
			}
			if err == io.EOF || err != nil {
				return
			}
		}
	}()
	select {
	case <-blocking:
	case <-time.After(20 * time.Second):
		s.t.Fatal("it does not start to block")
	}
	return b
}

// end waits for the exit status.
func (b *blocked) end(t *testing.T) int {
	t.Helper()
	timer := time.AfterFunc(20*time.Second, func() { _ = b.Process.Kill() }) // the status tells
	defer timer.Stop()
	_ = b.Wait() // an exit status other than 0 is no error here
	<-b.read
	return b.ProcessState.ExitCode()
}

func TestBlockSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			s := newShell(t)
			b := s.block()
			n := s.nodes()[0]
			if err := b.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if status := b.end(t); status != 1 {
				t.Errorf("status = %d, want 1:\n%s", status, b.out)
			}
			contains(t, b.out.String(), "This command will now block forever until terminated by a signal.", "ray_process_exit.log")
			if n.Alive() {
				t.Error("the daemon lives on")
			}
		})
	}
}

// Whoever reads what the supervisor says may end before it, as `ray start --block | head -20` does.
func TestBlockNobodyReads(t *testing.T) {
	s := newShell(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := s.command("start", "--head", "--port=0", "--node-ip-address=127.0.0.1", "--block")
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() }) // the status tells
	defer timer.Stop()
	for in := bufio.NewReader(r); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("it does not start to block: %v", err)
		}
		if strings.Contains(line, "ray_process_exit.log") {
			break
		}
	}
	r.Close()
	n := s.nodes()[0]
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // an exit status other than 0 is no error here
	if status := cmd.ProcessState.ExitCode(); status != 1 {
		t.Errorf("it ended with %v, want status 1", cmd.ProcessState)
	}
	if n.Alive() {
		t.Error("the daemon lives on")
	}
}

func TestBlockStopped(t *testing.T) {
	s := newShell(t)
	b := s.block()
	contains(t, s.must("stop"), "Stopped all 1 Ray processes.")
	if status := b.end(t); status != 0 {
		t.Errorf("status = %d, want 0:\n%s", status, b.out)
	}
}

func TestBlockDaemonDies(t *testing.T) {
	s := newShell(t)
	b := s.with("CMD_TEST_NODE=crash").block()
	if status := b.end(t); status != 1 {
		t.Errorf("status = %d, want 1", status)
	}
	contains(t, b.out.String(), "Some Ray subprocesses exited unexpectedly:", "exit code 3", "the small node crashes", "Remaining processes will be killed.")
	logs, err := filepath.Glob(filepath.Join(s.temp, "session_2*", "logs", "ray_process_exit.log"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("exit logs: %v, %v", logs, err)
	}
	text, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	contains(t, string(text), "exit code 3")
}

func TestBlockKilledDaemon(t *testing.T) {
	s := newShell(t)
	b := s.block()
	if err := syscall.Kill(s.nodes()[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if status := b.end(t); status != 1 {
		t.Errorf("status = %d, want 1", status)
	}
	contains(t, b.out.String(), "killed by signal 9")
}

// TestFirstProcess runs it as a container does: as process 1, which gets no signal that it does not handle and to which
// every orphan falls.
func TestFirstProcess(t *testing.T) {
	unshare, err := exec.LookPath("unshare")
	if err != nil || os.Getuid() != 0 {
		t.Skip("needs root and unshare(1) to make a pid namespace")
	}
	s := newShell(t)
	inner := s.with("CMD_TEST_NODE=orphan").command("start", "--head", "--port=0", "--node-ip-address=127.0.0.1", "--block")
	cmd := exec.Command(unshare, append([]string{"--pid", "--fork", "--mount-proc", "--kill-child", inner.Path}, inner.Args[1:]...)...)
	cmd.Env = inner.Env
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	in := bufio.NewReader(out)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("it does not start to block: %v, %s", err, stderr.String())
		}
		if strings.Contains(line, "ray_process_exit.log") {
			break
		}
	}
	mine := children(t, cmd.Process.Pid)
	if len(mine) != 1 {
		t.Fatalf("unshare has children %v", mine)
	}
	pid := mine[0] // process 1, as we see it
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		got := children(t, pid)
		if len(got) == 1 { // the daemon; the orphans have been reaped
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("process 1 has children %v; want the daemon only", got)
		}
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the status is looked at below
	if got := cmd.ProcessState.ExitCode(); got != 1 {
		t.Errorf("status = %d, want 1: %s %s", got, rest, stderr.String())
	}
}

// children lists a process's children, those that have ended and were not reaped among them.
func children(t *testing.T, pid int) (pids []int) {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // of each thread
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, child)
		}
	}
	return pids
}
