package arena

import (
	"io"
	"net"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"gray/internal/core/extent"
)

// TestAKilledOwnerLeavesNothing passes an arena's descriptor to another process and is killed: no name is left, and whoever has
// the descriptor can still read.
func TestAKilledOwnerLeavesNothing(t *testing.T) {
	if dir := os.Getenv("GRAY_TEST_OWNER"); dir != "" {
		own(t, dir)
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	dir := t.TempDir()
	cmd := exec.Command(exe, "-test.run=^TestAKilledOwnerLeavesNothing$")
	cmd.Env = append(os.Environ(), "GRAY_TEST_OWNER="+dir)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	word, oob := make([]byte, 16), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(word, oob)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the owner was not killed")
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%d control messages, %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("descriptors %v, %v", fds, err)
	}
	f := os.NewFile(uintptr(fds[0]), "arena")
	defer f.Close()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	got := make([]byte, 5)
	if _, err := f.ReadAt(got, 2*mib); err != nil || string(got) != "hello" {
		t.Errorf("a reader sees %q, %v", got, err)
	}
}

// own is the process that is killed.
func own(t *testing.T, dir string) {
	a, err := Open(Plan{Capacity: 4 * mib, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Ensure(extent.Extent{Off: 2 * mib, Size: mib}); err != nil {
		t.Fatal(err)
	}
	copy(a.Bytes(2*mib, 5), "hello")
	conn, err := net.FileConn(os.NewFile(3, "parent"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.(*net.UnixConn).WriteMsgUnix([]byte("ready"), unix.UnixRights(int(a.File().Fd())), nil); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, conn) // until the parent kills us, or is gone
	os.Exit(1)
}
