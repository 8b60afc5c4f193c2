package logfile

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// logFolder is a folder of logs, with a secret beside it and ways that could lead there.
func logFolder(t *testing.T) string {
	t.Helper()
	top := t.TempDir()
	dir := filepath.Join(top, "logs")
	if err := os.MkdirAll(filepath.Join(dir, "old"), 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(top, "secret"), "secret\n")
	put(t, filepath.Join(dir, "raylet.out"), "1\n2\n3\n")
	put(t, filepath.Join(dir, "worker-ab-7.out"), "")
	put(t, filepath.Join(dir, "old", "raylet.err"), "x")
	for name, to := range map[string]string{"up": "../secret", "abs": filepath.Join(top, "secret"), "dir": ".."} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestList(t *testing.T) {
	dir := logFolder(t)
	for pattern, want := range map[string][]string{
		"": {"raylet.out", "worker-ab-7.out"}, "*": {"raylet.out", "worker-ab-7.out"}, "ray*": {"raylet.out"}, "old/*": {"old/raylet.err"},
		"../*": nil, "dir/*": nil, "/*": nil,
	} {
		if got, err := List(dir, pattern); err != nil || !slices.Equal(got, want) {
			t.Errorf("List(%q) = %q, %v; want %q", pattern, got, err, want)
		}
	}
	if _, err := List(dir, "[a"); err == nil {
		t.Error("a broken pattern is taken")
	}
}

func TestNewest(t *testing.T) {
	dir := logFolder(t)
	put(t, filepath.Join(dir, "worker-zz-7.out"), "")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "worker-zz-7.out"), old, old); err != nil {
		t.Fatal(err)
	}
	for pattern, want := range map[string]string{"worker-*-7.out": "worker-ab-7.out", "worker-*-8.out": ""} {
		if got, err := Newest(dir, pattern); got != want || err != nil {
			t.Errorf("Newest(%q) = %q, %v; want %q", pattern, got, err, want)
		}
	}
}

func TestOpenStaysInTheFolder(t *testing.T) {
	dir := logFolder(t)
	for _, name := range []string{
		"../secret", "old/../../secret", "/etc/passwd", filepath.Join(filepath.Dir(dir), "secret"), "up", "abs", "dir/secret", "", ".", "old", "pipe",
		"none", "raylet.out\x00", "..",
	} {
		r, err := Open(dir, name)
		if err == nil {
			t.Errorf("%q is opened", name)
			_ = r.Close()
		}
	}
}

func TestTail(t *testing.T) {
	long := strings.Repeat(strings.Repeat("y", 99)+"\n", 5000) // more than one block that is read at once
	for _, c := range []struct {
		text string
		n    int
		want string
	}{
		{"1\n2\n3\n", -1, "1\n2\n3\n"},
		{"1\n2\n3\n", 0, ""},
		{"1\n2\n3\n", 1, "3\n"},
		{"1\n2\n3\n", 2, "2\n3\n"},
		{"1\n2\n3\n", 3, "1\n2\n3\n"},
		{"1\n2\n3\n", 9, "1\n2\n3\n"},
		{"1\n2\n3", 1, "3"},
		{"1\n\n\n", 2, "\n\n"},
		{"", 3, ""},
		{long, 4000, long[:4000*100]},
		{long, 5001, long},
	} {
		dir := t.TempDir()
		put(t, filepath.Join(dir, "f"), c.text)
		r, err := Open(dir, "f")
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Tail(c.n); err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := r.Stream(context.Background(), &got, false, 0, func() {}); err != nil || got.String() != c.want {
			t.Errorf("the last %d lines of %.20q (%d bytes) are %.40q (%d bytes), %v", c.n, c.text, len(c.text), got.String(), got.Len(), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestTailPassesAHole(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("end\n"), 1<<20); err != nil {
		t.Fatal(err)
	}
	r, err := Open(dir, "f")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Tail(-1); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := r.Stream(context.Background(), &got, false, 0, func() {}); err != nil || got.String() != "end\n" {
		t.Errorf("got %d bytes, %v; want the text without the hole", got.Len(), err)
	}
}

type lines chan string

func (l lines) Write(p []byte) (int, error) { l <- string(p); return len(p), nil }

func TestFollow(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	put(t, path, "1\n2\n")
	r, err := Open(dir, "f")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Tail(1); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	got, done := make(lines), make(chan error)
	go func() { done <- r.Stream(ctx, got, true, time.Millisecond, func() {}) }()
	if s := <-got; s != "2\n" {
		t.Errorf("first comes %q", s)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("3\n"); err != nil {
		t.Fatal(err)
	}
	if s := <-got; s != "3\n" {
		t.Errorf("then comes %q", s)
	}
	if err := os.Truncate(path, 0); err != nil { // as a cut does
		t.Fatal(err)
	}
	put(t, path, "4\n")
	if s := <-got; s != "4\n" {
		t.Errorf("after a cut comes %q", s)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestComponent(t *testing.T) {
	for name, want := range map[string]string{
		"worker-ab-01000000-7.out": "worker_out", "worker-ab-7.err": "worker_err", "raylet.1.out": "raylet", "gcs_server.out": "gcs_server",
		"dashboard_agent.log": "agent", "dashboard.log": "dashboard", "zygote-1-1.log": "internal", "monitor.log": "autoscaler",
	} {
		if got := Component(name); got != want {
			t.Errorf("%s is of %s, want %s", name, got, want)
		}
	}
}

func TestPlainText(t *testing.T) {
	const text = "a\x1b[31;1mred\x1b[0m\x1b(b\n"
	for size := 1; size <= len(text); size++ {
		var got bytes.Buffer
		p := &PlainText{W: &got}
		for rest := text; rest != ""; {
			k := min(size, len(rest))
			if n, err := p.Write([]byte(rest[:k])); n != k || err != nil {
				t.Fatal(n, err)
			}
			rest = rest[k:]
		}
		if got.String() != "aredb\n" {
			t.Errorf("in pieces of %d: %q", size, got.String())
		}
	}
}
