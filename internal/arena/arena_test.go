package arena

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"gray/internal/core/extent"
	"gray/internal/core/fault"
)

const mib = 1 << 20

// shared is a folder for small arenas: shared memory where there is some.
func shared(t testing.TB) string {
	t.Helper()
	if free, err := freeIn("/dev/shm"); err == nil && free > 256*mib {
		return "/dev/shm"
	}
	return t.TempDir()
}

func open(t testing.TB, p Plan) *Arena {
	t.Helper()
	a, err := Open(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func TestTheFileHasNoNameAndIsPrivate(t *testing.T) {
	for _, tc := range []struct {
		name string
		open func(dir string) (*os.File, error)
	}{{"O_TMPFILE", unnamed}, {"unlinked", namedOnce}} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			f, err := tc.open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var st unix.Stat_t
			if err := unix.Fstat(int(f.Fd()), &st); err != nil {
				t.Fatal(err)
			}
			if st.Nlink != 0 || st.Mode&0o777 != 0o600 {
				t.Errorf("links %d, mode %o, want none and 600", st.Nlink, st.Mode&0o777)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
				t.Errorf("left in the folder: %v, %v", entries, err)
			}
			flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
			if err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("the descriptor is inherited by whatever is exec'ed: flags %x, %v", flags, err)
			}
		})
	}
}

func TestPagesComeAndGo(t *testing.T) {
	for _, dir := range []string{shared(t), t.TempDir()} {
		a := open(t, Plan{Capacity: 16 * mib, Dir: dir})
		if a.Space() != SpaceFactor*a.Capacity() && !a.noPunch {
			t.Errorf("%s: the range is %d bytes for a capacity of %d", dir, a.Space(), a.Capacity())
		}
		resident := func() int64 { return a.Stats().Resident }
		if got := resident(); got != 0 {
			t.Errorf("%s: a new arena has %d bytes of pages", dir, got)
		}
		e := extent.Extent{Off: 40 * mib, Size: 8 * mib}
		if a.noPunch {
			e.Off = 4 * mib
		}
		if err := a.Ensure(e); err != nil {
			t.Fatal(err)
		}
		if got := resident(); got < e.Size || got > e.Size+mib {
			t.Errorf("%s: %d bytes of pages after Ensure of %d", dir, got, e.Size)
		}
		b := a.Bytes(e.Off, e.Size)
		if int64(len(b)) != e.Size || int64(cap(b)) != e.Size {
			t.Errorf("%s: Bytes gives %d bytes with room for %d, want %d", dir, len(b), cap(b), e.Size)
		}
		for i := range b {
			b[i] = byte(i)
		}
		got := make([]byte, 1000)
		if _, err := a.File().ReadAt(got, e.Off+12345); err != nil || !bytes.Equal(got, b[12345:13345]) {
			t.Errorf("%s: the file doesn't show what was written: %v", dir, err)
		}
		if a.noPunch {
			continue
		}
		if err := a.Punch(e); err != nil {
			t.Fatal(err)
		}
		if got := resident(); got > mib {
			t.Errorf("%s: %d bytes of pages after Punch", dir, got)
		}
		if b[5] != 0 {
			t.Errorf("%s: old bytes are visible after Punch", dir)
		}
	}
}

func TestFillMakesPagesWithoutFallocate(t *testing.T) {
	a := open(t, Plan{Capacity: 4 * mib, Dir: shared(t)})
	if err := a.fill(mib, 100_000); err != nil {
		t.Fatal(err)
	}
	if got := a.Stats().Resident; got < 100_000 {
		t.Errorf("%d bytes of pages, want at least 100000", got)
	}
}

func TestBytesOutsidePanic(t *testing.T) {
	a := open(t, Plan{Capacity: mib, Dir: shared(t)})
	for _, r := range [][2]int64{{a.Space(), 1}, {-1, 1}, {a.Space() - 1, 2}, {0, -1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Bytes(%d, %d) did not panic", r[0], r[1])
				}
			}()
			a.Bytes(r[0], r[1])
		}()
	}
}

func TestOpenErrorsNameTheFolder(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	for _, p := range []Plan{{Capacity: mib, Dir: missing}, {Capacity: 100, Dir: "/dev/shm"}} {
		if _, err := Open(p); err == nil || !strings.Contains(err.Error(), p.Dir) {
			t.Errorf("Open(%+v) = %v", p, err)
		}
	}
}

// TestFullTmpfs fills a tmpfs of 8 MiB, mounted in a namespace of the child's own.
func TestFullTmpfs(t *testing.T) {
	if dir := os.Getenv("GRAY_TEST_TMPFS"); dir != "" {
		fullTmpfs(t, dir)
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command(exe, "-test.run=^TestFullTmpfs$", "-test.v")
	cmd.Env = append(os.Environ(), "GRAY_TEST_TMPFS="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Skipf("this machine allows no user namespaces: %v", err)
	}
	if bytes.Contains(out, []byte("--- SKIP")) {
		t.Skipf("%s", out)
	}
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestFullTmpfs")) {
		t.Errorf("%v\n%s", err, out)
	}
}

func fullTmpfs(t *testing.T, dir string) {
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("this machine allows no mounts: %v", err)
	}
	a, err := Open(Plan{Capacity: 32 * mib, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	first := extent.Extent{Off: 0, Size: 5 * mib}
	if err := a.Ensure(first); err != nil {
		t.Fatal(err)
	}
	err = a.Ensure(extent.Extent{Off: 64 * mib, Size: 4 * mib})
	if fault.KindOf(err) != fault.StoreFull || !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("Ensure on a full tmpfs: %v", err)
	}
	if want := fmt.Sprintf("%s has 3.0 MiB free of 8.0 MiB", dir); !strings.Contains(err.Error(), want) {
		t.Errorf("%q does not say %q", err, want)
	}
	if got := a.Stats().Resident; got != first.Size {
		t.Errorf("%d bytes of pages, want the first extent's %d", got, first.Size)
	}
	if err := a.Punch(first); err != nil {
		t.Fatal(err)
	}
	if err := a.Ensure(extent.Extent{Off: 64 * mib, Size: 4 * mib}); err != nil {
		t.Errorf("after Punch made room: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

func BenchmarkEnsurePunch(b *testing.B) {
	a := open(b, Plan{Capacity: 256 * mib, Dir: shared(b)})
	for _, size := range []int64{64 << 10, mib, 64 * mib} {
		b.Run(extent.Human(size), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				e := extent.Extent{Size: size}
				if err := a.Ensure(e); err != nil {
					b.Fatal(err)
				}
				if err := a.Punch(e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
