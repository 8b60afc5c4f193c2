package pool

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

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
