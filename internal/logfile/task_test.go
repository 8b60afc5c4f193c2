package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	one = "00000100000000010000000000000000000000000001000000"
	two = "00000100000000020000000000000000000000000001000000"
)

func attempt(t *testing.T, task string, no uint32) Attempt {
	t.Helper()
	a, err := AttemptOf(task, no)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestOnly: what passes, however the file is cut into pieces.
func TestOnly(t *testing.T) {
	m1, m1again, m2 := ":task_id:0000010000000001\n", ":task_id:0000010000000001 1\n", ":task_id:0000010000000002\n"
	long := ":task_id:" + strings.Repeat("x", 2*maxMark) + "\n"
	for _, c := range []struct {
		name, file, want string
		lines            int64
		marked           bool
	}{
		{"nothing", "", "", 0, false},
		{"no marks", "a\n:b\n", "", 0, false},
		{"between others", "x\n" + m2 + "a\n" + m1 + "b\nc\n" + m2 + "d\n", "b\nc\n", 2, true},
		{"again and again", m1 + "a\n" + m2 + "b\n" + m1 + "c\n", "a\nc\n", 2, true},
		{"another attempt", m1 + "a\n" + m1again + "b\n", "a\n", 1, true},
		{"names", ":task_name:f\n" + m1 + "a\n:task_name:g\nb\n", "a\nb\n", 2, true},
		{"no end", m1 + "a\nb", "a\nb", 2, true},
		{"empty lines", m1 + "\n\na", "\n\na", 3, true},
		{"colons", m1 + ":\n:task\n:task_i:\na:task_id:x\n", ":\n:task\n:task_i:\na:task_id:x\n", 4, true},
		{"a line that begins as a mark", m1 + "a\n:task_", "a\n", 1, true},
		{"too long for a mark", m1 + "a\n" + long + "b\n", "a\n" + long + "b\n", 3, true},
		{"was a worker of tasks", m1 + "a\n:actor_name:A\nb\n", "a\n", 1, false},
		{"an actor that tells", ":actor_name:A\n:task_id:\nb\n", "", 0, true},
		{"an actor that has another name then", ":actor_name:A\n:task_id:\n" + m1 + "b\n:actor_name:B\nc\n", "b\nc\n", 2, true},
	} {
		for _, size := range []int{1, 2, 3, 7, 1000, 1 << 20} {
			var b bytes.Buffer
			o := &Only{W: &b, Want: attempt(t, one, 0)}
			for p := []byte(c.file); len(p) > 0; {
				n := min(size, len(p))
				if k, err := o.Write(p[:n]); k != n || err != nil {
					t.Fatal(k, err)
				}
				p = p[n:]
			}
			if b.String() != c.want || o.Bytes != int64(len(c.want)) || o.Lines() != c.lines || o.Marked != c.marked {
				t.Errorf("%s by %d: %q, %d bytes, %d lines, marked %v; want %q, %d, %v", c.name, size, b.String(), o.Bytes, o.Lines(), o.Marked, c.want, c.lines, c.marked)
			}
		}
	}
}

func TestNoIdOfATask(t *testing.T) {
	for _, id := range []string{"", "12", strings.Repeat("g", 48), "../../../../../../etc/passwd"} {
		if a, err := AttemptOf(id, 0); err == nil {
			t.Errorf("%q is %q", id, a)
		}
	}
	if a := attempt(t, two, 3); a != "0000010000000002 3" {
		t.Error(a)
	}
}

// TestTaskOfACutFile: a task's part lies over backups and the file; its last lines, and parts of any size.
func TestTaskOfACutFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "w.out")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	write := func(text string) {
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	var want strings.Builder
	limit := Limit{MaxBytes: 1, Backups: 9}
	start := int64(0)
	for k := range 4 {
		write(fmt.Sprintf(":task_id:%s\n", two[:16]) + strings.Repeat("other\n", 1500))
		write(fmt.Sprintf(":task_id:%s\n", one[:16]))
		for i := range 2000 {
			line := fmt.Sprintf("line %d of %d\n", i, k)
			want.WriteString(line)
			write(line)
		}
		c, err := limit.Cut(path, start)
		if err != nil {
			t.Fatal(err)
		}
		if !c.Shorter {
			start = c.To
		}
	}
	log, err := OpenTask(dir, "w.out", attempt(t, one, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if len(log.files) != 5 {
		t.Fatalf("%d files", len(log.files))
	}
	whole := want.String()
	for _, n := range []int64{-1, 0, 1, 10, 7999, 8000, 9000} {
		off, marked, err := log.Last(n)
		if err != nil || !marked {
			t.Fatal(marked, err)
		}
		if got := int64(strings.Count(whole[off:], "\n")); n >= 0 && got != min(n, 8000) || n < 0 && off != 0 {
			t.Errorf("the last %d: %d", n, got)
		}
		var b bytes.Buffer
		if err := log.Stream(context.Background(), &b, off, false, 0, func() {}); err != nil || b.String() != whole[off:] {
			t.Errorf("the last %d: %v, %d bytes of %d", n, err, b.Len(), len(whole)-int(off))
		}
	}
	var all []byte
	for {
		b, err := log.Part(int64(len(all)), 10_007)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) == 0 {
			break
		}
		all = append(all, b...)
	}
	if string(all) != whole {
		t.Errorf("parts are %d bytes, the whole %d", len(all), len(whole))
	}

	// What comes is followed, and what others print is not.
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	got := make(chan string, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- log.Stream(ctx, writeFunc(func(p []byte) { got <- string(p) }), int64(len(whole)), true, time.Millisecond, func() {})
	}()
	write("more\n:task_id:" + two[:16] + "\nother\n:task_id:" + one[:16] + "\nlast\n")
	for _, line := range []string{"more\n", "last\n"} {
		if x := <-got; x != line {
			t.Errorf("%q instead of %q", x, line)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := OpenTask(dir, "../w.out", attempt(t, one, 0)); err == nil {
		t.Error("a name led out of the folder")
	}
	if _, err := OpenTask(dir, "none", attempt(t, one, 0)); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

type writeFunc func([]byte)

func (w writeFunc) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

func BenchmarkOnly(b *testing.B) {
	var file bytes.Buffer
	for i := range 20_000 {
		fmt.Fprintf(&file, ":task_id:%016x\nsome line that a task prints\n", i)
	}
	b.SetBytes(int64(file.Len()))
	for b.Loop() {
		if _, err := (&Only{Want: "0000000000000001"}).Write(file.Bytes()); err != nil {
			b.Fatal(err)
		}
	}
}
