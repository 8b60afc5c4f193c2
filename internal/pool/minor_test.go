package pool

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An interpreter that hangs is given up, also if a script has started it.
func TestMinorGivesUp(t *testing.T) {
	dir := t.TempDir()
	path, pid := filepath.Join(dir, "python"), filepath.Join(dir, "pid")
	if err := unix.Mkfifo(pid, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\nsleep 1000 & echo $! >"+pid+"; wait"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := Minor(ctx, path)
		failed <- err
	}()
	text, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	sleeper, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	gone := ends(t, sleeper)
	stop()
	select {
	case err := <-failed:
		if err == nil || !strings.Contains(err.Error(), "it does not answer") {
			t.Errorf("error %v, want that it does not answer", err)
		}
	case <-time.After(patience):
		t.Fatal("it still waits for an answer")
	}
	gone()
}

func TestMinor(t *testing.T) {
	script := func(text string) string {
		path := filepath.Join(t.TempDir(), "python")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tc := range []struct{ name, python, want, fails string }{
		{"a version", script("echo 3.12"), "3.12", ""},
		{"python 2", script("echo 2.7"), "", `it answers "2.7", not a version of Python 3`},
		{"another program", script("echo hello; echo you"), "", "not a version of Python 3"},
		{"it fails", script("echo no such thing >&2; exit 3"), "", "exit status 3: no such thing"},
		{"none", filepath.Join(t.TempDir(), "python9"), "", "no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Minor(t.Context(), tc.python)
			if got != tc.want || (err == nil) != (tc.fails == "") {
				t.Fatalf("%q, %v; want %q", got, err, tc.want)
			}
			if err != nil && !(strings.Contains(err.Error(), tc.fails) && strings.Contains(err.Error(), tc.python)) {
				t.Errorf("error %v, want %q in it", err, tc.fails)
			}
		})
	}
}
