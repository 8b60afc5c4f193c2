package logfile

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// numbered are so many lines of 100 bytes, from a number on.
func numbered(from, n int) string {
	var b strings.Builder
	for k := range n {
		fmt.Fprintf(&b, "%099d\n", from+k)
	}
	return b.String()
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// Whoever reads a file reads each byte once, however it is cut meanwhile, as far as backups are kept.
func TestReadersGoOnWhereTheyWere(t *testing.T) {
	const each = 500                                // lines between two cuts: 50,000 bytes
	for _, base := range []string{"", "/dev/shm"} { // most file systems take beginnings out, shared memory makes holes
		for _, tc := range []struct {
			name    string
			backups int
			read    []int // bytes that are read before each cut
			lost    bool
		}{
			{"all was read", 2, []int{50_000, 50_000, 50_000}, false},
			{"a part was read", 2, []int{100, 70_000, 50_001}, false},
			{"a part was read, one backup", 1, []int{49_990, 49_990, 49_990}, false},
			{"it is one cut behind", 2, []int{0, 50_000, 0}, false},
			{"it is too far behind", 2, []int{10, 0, 0, 0}, true},
			{"there are no backups", 0, []int{10}, true},
		} {
			t.Run(tc.name+base, func(t *testing.T) {
				dir := t.TempDir()
				if base != "" {
					var err error
					//nolint:usetesting // it is to be on another file system
					if dir, err = os.MkdirTemp(base, "gray-readers-"); err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = os.RemoveAll(dir) })
				}
				path := filepath.Join(dir, "f")
				appendTo(t, path, numbered(0, each))
				r, err := Open(dir, "f")
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				if err := r.Tail(-1); err != nil {
					t.Fatal(err)
				}
				l := Limit{MaxBytes: 20_000, Backups: tc.backups}
				var got bytes.Buffer
				written, hole := each, int64(0)
				for _, n := range tc.read {
					for n > 0 {
						b := make([]byte, n)
						k, err := r.Read(b)
						if err != nil {
							t.Fatal(err)
						}
						got.Write(b[:k])
						n -= k
					}
					c, err := l.Cut(path, hole)
					if err != nil {
						t.Fatal(err)
					}
					if !c.Shorter {
						hole = c.To
					}
					appendTo(t, path, numbered(written, each)) // longer than it was: a reader can't see the cut
					written += each
				}
				if err := r.Stream(context.Background(), &got, false, 0, func() {}); err != nil {
					t.Fatal(err)
				}
				want := numbered(0, written)
				if !tc.lost {
					if got.String() != want {
						t.Errorf("%d bytes were read, not the %d that were written, or not in their order", got.Len(), len(want))
					}
					return
				}
				begin, rest, told := strings.Cut(got.String(), "\n[")
				number, after, _ := strings.Cut(rest, " ")
				_, after, _ = strings.Cut(after, "]\n")
				lost := len(want) - len(begin) - len(after)
				if !told || number != fmt.Sprint(lost) || !strings.HasPrefix(want, begin) || !strings.HasSuffix(want, after) {
					t.Errorf("it is told that %q bytes are lost, and %d are; %d begin it and %d end it", number, lost, len(begin), len(after))
				}
			})
		}
	}
	if len(readers) != 0 {
		t.Errorf("%d files have readers still", len(readers))
	}
}
