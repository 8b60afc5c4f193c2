package logfile

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestKeeper(t *testing.T) {
	for _, tc := range []struct {
		name   string
		ended  int
		needed []int
		want   []string
	}{
		{"as many as are kept", 2, nil, []string{"1.err", "1.out", "1.out.1", "2.err", "2.out", "2.out.1", "other"}},
		{"the oldest go, with their backups", 4, nil, []string{"3.err", "3.out", "3.out.1", "4.err", "4.out", "4.out.1", "other"}},
		{"what is read stays", 3, []int{1}, []string{"1.err", "1.out", "1.out.1", "3.err", "3.out", "3.out.1", "other"}},
		{"until it was read", 5, []int{1, 2}, []string{"1.err", "1.out", "1.out.1", "2.err", "2.out", "2.out.1", "other"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			make := func(name string) {
				if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			make("other")
			k := Keeper[int]{Most: 2, Backups: 1, Files: func(w int) []string {
				return []string{filepath.Join(dir, fmt.Sprintf("%d.out", w)), filepath.Join(dir, fmt.Sprintf("%d.err", w))}
			}}
			for w := 1; w <= tc.ended; w++ {
				for _, ext := range []string{".out", ".out.1", ".err"} {
					make(fmt.Sprintf("%d%s", w, ext))
				}
				if err := k.Ended(w, func(w int) bool { return slices.Contains(tc.needed, w) }); err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			entries, err := os.ReadDir(dir)
			for _, e := range entries {
				got = append(got, e.Name())
			}
			if err != nil || !slices.Equal(got, tc.want) {
				t.Errorf("left: %q, %v; want %q", got, err, tc.want)
			}
			if len(k.ended) != 2 {
				t.Errorf("%d are remembered", len(k.ended))
			}
		})
	}
}
