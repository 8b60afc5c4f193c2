package pool

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gray/internal/machine"
)

// Whatever the worker does meanwhile: each packet is received by it, or taken back, never both, and in order.
func TestTakeBackIsExact(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for round := range 20 {
		w := r.fork(WorkerSpec{})
		const sent = 100
		for i := range sent {
			w.do(fmt.Sprintf("reply(%d)", i))
		}
		for range round { // the worker is somewhere in the middle
			w.line()
		}
		if round%2 == 1 {
			w.Kill()
			if e := w.exit(); !e.Killed {
				t.Fatalf("exit = %#v", e)
			}
		}
		back, err := w.Exec.TakeBack()
		check(t, err)
		taken := map[int]bool{}
		last := -1
		for _, packet := range back {
			i, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(string(packet), "reply("), ")"))
			if err != nil || i <= last || i < round {
				t.Fatalf("%s came back after %d; %d had been answered", packet, last, round)
			}
			last, taken[i] = i, true
		}
		if round%2 == 1 {
			// The dead can have received the first packets only: no gap.
			if len(back) > 0 && (!taken[sent-1] || !taken[sent-len(back)]) {
				t.Fatalf("what a dead worker left has a gap: %q", back)
			}
			continue
		}
		w.do("reply('end')")
		for i := round; i < sent; i++ {
			if taken[i] {
				continue
			}
			if got := w.line(); got != fmt.Sprint(i) {
				t.Fatalf("the worker did %s, want %d; taken back: %q", got, i, back)
			}
		}
		if got := w.line(); got != "end" {
			t.Fatalf("the worker did %s, which was taken back", got)
		}
	}
}

func TestConn(t *testing.T) {
	t.Parallel()
	p, err := openPoller()
	check(t, err)
	t.Cleanup(p.close)
	c, err := newConn(p)
	check(t, err)
	if err := c.Send(nil); !errors.Is(err, ErrPacket) {
		t.Errorf("empty packet: %v", err)
	}
	if err := c.Send(make([]byte, MaxPacket+1)); !errors.Is(err, ErrPacket) {
		t.Errorf("too large a packet: %v", err)
	}
	big := bytes.Repeat([]byte{7}, MaxPacket)
	var sent [][]byte
	for i := 0; ; i++ {
		packet := []byte(strconv.Itoa(i))
		if i == 0 {
			packet = big
		}
		err := c.Send(packet)
		if errors.Is(err, ErrFull) {
			break
		}
		check(t, err)
		sent = append(sent, packet)
	}
	if len(sent) < 32 {
		t.Errorf("the queue holds only %d packets", len(sent))
	}
	room := make(chan struct{})
	check(t, c.NotifyWritable(func() { close(room) }))
	back, err := c.TakeBack()
	if err != nil || !reflect.DeepEqual(back, sent) {
		t.Errorf("%d packets came back of %d (%v)", len(back), len(sent), err)
	}
	select {
	case <-room:
	case <-time.After(patience):
		t.Fatal("nobody said that there is room again")
	}
	check(t, c.Send(big))
	check(t, c.Close())
	check(t, c.Close())
	if err := c.Send(big); !errors.Is(err, os.ErrClosed) {
		t.Errorf("send after close: %v", err)
	}
	if _, err := c.TakeBack(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("take back after close: %v", err)
	}
	if err := c.NotifyWritable(func() {}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("notify after close: %v", err)
	}
}

func BenchmarkSend(b *testing.B) {
	p, err := openPoller()
	check(b, err)
	b.Cleanup(p.close)
	c, err := newConn(p)
	check(b, err)
	packet := make([]byte, 200)
	buf := make([]byte, 256)
	b.ReportAllocs()
	for b.Loop() {
		check(b, c.Send(packet))
		if _, err := unix.Read(c.worker, buf); err != nil {
			b.Fatal(err)
		}
	}
	check(b, c.Close())
}

func TestWatch(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	cmd := exec.Command("sleep", "600")
	check(t, cmd.Start())
	start, err := StartTime(cmd.Process.Pid)
	check(t, err)
	died, other := make(chan struct{}), make(chan struct{})
	_, err = r.pool.Watch(cmd.Process.Pid, start, func() { close(died) })
	check(t, err)
	cancel, err := r.pool.Watch(cmd.Process.Pid, 0, func() { close(other) })
	check(t, err)
	if _, err := r.pool.Watch(cmd.Process.Pid, start+1, func() {}); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("a process that started at another time: %v", err)
	}
	cancel()
	cancel()
	check(t, cmd.Process.Kill())
	select {
	case <-died:
	case <-time.After(patience):
		t.Fatal("the death was not told")
	}
	if err := cmd.Wait(); err == nil { // its status is left to us by the reaper
		t.Error("a killed process ended well")
	}
	if _, err := r.pool.Watch(cmd.Process.Pid, start, func() {}); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("a dead process: %v", err)
	}
	if _, err := StartTime(cmd.Process.Pid); err == nil {
		t.Error("a dead process has a start time")
	}
	select {
	case <-other:
		t.Error("a cancelled watch called")
	default:
	}
}

func TestOrphansAreReaped(t *testing.T) {
	t.Parallel()
	if _, err := Reap(slog.Default()); err == nil {
		t.Error("a second reaper was started")
	}
	r := newRig(t, nil)
	w := r.fork(WorkerSpec{})
	// A daemon of the user's: a session of its own, its parent gone. It outlives the worker and is ours then.
	w.do(`
r1, w1 = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(w1, str(os.getpid()).encode())
        signal.pause()
    os._exit(0)
os.wait()
reply(os.read(r1, 100).decode())`)
	pid, err := strconv.Atoi(w.line())
	check(t, err)
	w.do("os._exit(0)")
	w.exit()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	check(t, err)
	if fields := strings.Fields(string(stat)); fields[3] != fmt.Sprint(os.Getpid()) {
		t.Errorf("the orphan is not adopted: %s", stat)
	}
	check(t, unix.Kill(pid, unix.SIGKILL))
	eventually(t, "the orphan is no zombie", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
		return errors.Is(err, os.ErrNotExist)
	})
}

func TestTail(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100)
	var many, last []string
	for i := range 1000 {
		many = append(many, fmt.Sprint(i, long))
	}
	last = many[len(many)-tailLines:]
	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		{"empty", "", []string{}},
		{"one line", "a\n", []string{"a"}},
		{"no newline at its end", "a\nb", []string{"a", "b"}},
		{"an empty line within", "a\n\nb\n", []string{"a", "", "b"}},
		{"no text", "a\xff\n", []string{"a\ufffd"}},
		{"the last of many", strings.Join(many, "\n") + "\n", last},
		{"one endless line", strings.Repeat("y", 3*tailBytes), []string{strings.Repeat("y", tailBytes)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			check(t, os.WriteFile(path, []byte(tc.text), 0o600))
			got, err := tail(path)
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("tail = %q (%v), want %q", got, err, tc.want)
			}
		})
	}
	if _, err := tail(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestExitText(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		exit Exit
		want string
	}{
		{Exit{Known: true, Signal: unix.SIGSEGV, CoreDump: true}, "killed by SIGSEGV (core dumped)"},
		{
			Exit{Known: true, Signal: unix.SIGKILL, OOM: true, Peak: 300 << 20, Pod: true, Bound: machine.Bound{Bytes: 512 << 20, File: "/sys/fs/cgroup/memory.max"}},
			"killed by SIGKILL, most likely by the kernel because memory ran out: its count of out-of-memory kills has grown; it had used up to 300 MiB; " +
				"this container's, or cgroup's, limit is 512 MiB (/sys/fs/cgroup/memory.max), for all of its processes together. Raise resources.limits.memory of the pod, " +
				"or let fewer tasks run here at a time (more num_cpus a task, or memory=BYTES in its options)",
		},
		{
			Exit{OOM: true, Bound: machine.Bound{Bytes: 8 << 30}},
			"killed, most likely by the kernel because memory ran out: its count of out-of-memory kills has grown; this machine has 8192 MiB, for all of its processes together. " +
				"Raise the limit, or let fewer tasks run here at a time (more num_cpus a task, or memory=BYTES in its options)",
		},
		{Exit{Killed: true}, "killed by its node daemon"},
		{Exit{}, "ended with an unknown status (the process that could have told was killed as well)"},
	} {
		if got := tc.exit.String(); got != tc.want {
			t.Errorf("%#v: %q, want %q", tc.exit, got, tc.want)
		}
	}
}

func TestOOMCounter(t *testing.T) {
	t.Parallel()
	kills := uint64(5)
	c := oomCounter{kills: func() uint64 { return kills }}
	c.read()
	for i, step := range []struct {
		more uint64
		want bool
	}{
		{0, false}, // what was before the pool is no reason
		{1, true},
		{0, false},
		{2, true}, // two victims, whose deaths are told one after the other
		{0, true},
		{0, false},
	} {
		kills += step.more
		if got := c.struck(); got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
}

func TestMessage(t *testing.T) {
	t.Parallel()
	m := message{"a": "1", "env:X": "p=q\nr", "empty": "", "ä": "ö"}
	if got := unpack(m.pack()); !reflect.DeepEqual(got, m) {
		t.Errorf("%q came back as %q", m, got)
	}
	if got := unpack(nil); len(got) != 0 {
		t.Errorf("nothing came back as %q", got)
	}
}
