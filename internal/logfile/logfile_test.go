package logfile

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// writer appends numbered lines to a file until it is closed, as a process that knows nothing of cuts.
func writer(t *testing.T, path string) (stop func() int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	quit, done := make(chan struct{}), make(chan int)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-quit:
				_ = f.Close()
				done <- n
				return
			default:
			}
			if _, err := fmt.Fprintf(f, "%d\n", n); err != nil {
				t.Error(err)
			}
		}
	}()
	return func() int { close(quit); return <-done }
}

// TestCutLosesNothing cuts a file while it is written to: the cut parts and the rest are all lines, each once, in order.
func TestCutLosesNothing(t *testing.T) {
	for _, dir := range []string{t.TempDir(), "/dev/shm"} { // most file systems take beginnings out, shared memory makes holes
		path := filepath.Join(dir, fmt.Sprintf("gray-cut-%d.out", os.Getpid()))
		t.Cleanup(func() { _ = os.Remove(path); _ = os.Remove(path + ".1") })
		stop := writer(t, path)
		l := Limit{MaxBytes: 20_000, Backups: 1}
		var whole []byte
		hole := int64(0)
		for cuts := 0; cuts < 5; {
			size, err := Size(path)
			if err != nil || !l.Due(size, hole) {
				continue
			}
			c, err := l.Cut(path, hole)
			if err != nil {
				t.Fatal(err)
			}
			part, err := os.ReadFile(path + ".1")
			if err != nil || int64(len(part)) != c.To-c.From {
				t.Fatalf("a cut of %d bytes has a backup of %d, %v", c.To-c.From, len(part), err)
			}
			whole = append(whole, part...)
			if cuts++; !c.Shorter {
				hole = c.To
			}
		}
		n := stop()
		rest, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		whole = append(whole, rest[hole:]...)
		lines := strings.Fields(string(whole))
		if len(lines) != n {
			t.Fatalf("%s: %d lines, %d were written", dir, len(lines), n)
		}
		for k, line := range lines {
			if line != strconv.Itoa(k) {
				t.Fatalf("%s: line %d is %q", dir, k, line)
			}
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || st.Blocks*512 > int64(len(rest))-hole+8192 {
			t.Errorf("%s: %d bytes of disk for %d bytes, %v", dir, st.Blocks*512, int64(len(rest))-hole, err)
		}
	}
}

func TestBackupsAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.out")
	l := Limit{MaxBytes: 8192, Backups: 2}
	for k := range 4 {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(bytes.Repeat([]byte{byte('a' + k)}, 8193)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Cut(path, 0); err != nil {
			t.Fatal(err)
		}
	}
	names, err := filepath.Glob(path + "*")
	if err != nil || len(names) != 3 {
		t.Errorf("files: %v, %v; want the file and two backups", names, err)
	}
	if b, err := os.ReadFile(path + ".1"); err != nil || b[len(b)-1] != 'd' {
		t.Errorf("the latest backup ends with %q, %v; want the latest text", b[max(0, len(b)-1):], err)
	}
}

func TestLimitDue(t *testing.T) {
	for _, tc := range []struct {
		limit       Limit
		size, start int64
		want        bool
	}{
		{Limit{MaxBytes: 10}, 10, 0, false},
		{Limit{MaxBytes: 10}, 11, 0, true},
		{Limit{MaxBytes: 10}, 25, 20, false},
		{Limit{}, 1 << 40, 0, false},
	} {
		if got := tc.limit.Due(tc.size, tc.start); got != tc.want {
			t.Errorf("%+v: Due(%d, %d) = %v", tc.limit, tc.size, tc.start, got)
		}
	}
}

func TestWatch(t *testing.T) {
	dir := t.TempDir()
	heard := make(chan map[int32]bool, 1000)
	w, err := Watch(func(files map[int32]bool, _ bool) { heard <- files })
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	numbers := map[string]int32{}
	for _, name := range []string{"a", "b"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if numbers[name], err = w.Add(path); err != nil {
			t.Fatal(err)
		}
	}
	wait := func(name string) {
		t.Helper()
		for deadline := time.After(30 * time.Second); ; {
			select {
			case files := <-heard:
				if files[numbers[name]] {
					return
				}
			case <-deadline:
				t.Fatalf("nobody says that %s has grown", name)
			}
		}
	}
	grow := func(path string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString("x\n"); err != nil {
			t.Fatal(err)
		}
	}
	grow(filepath.Join(dir, "a"))
	wait("a")
	if err := os.Rename(filepath.Join(dir, "b"), filepath.Join(dir, "c")); err != nil {
		t.Fatal(err)
	}
	grow(filepath.Join(dir, "c"))
	wait("b")
	w.Remove(numbers["a"])
	if _, err := w.Add(filepath.Join(dir, "none")); err == nil {
		t.Error("a file that is not there is watched")
	}
}
