package main

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// network is two network namespaces with a cable between them: two machines, as far as TCP can tell.
type network struct {
	a, b   string // names; the addresses are 10.77.0.1 and 10.77.0.2
	tapped chan []byte
	stop   func()
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	ip, err := exec.LookPath("ip")
	if err != nil || os.Getuid() != 0 {
		t.Skip("needs root and ip(8) to make network namespaces")
	}
	var r [4]byte
	_, _ = rand.Read(r[:]) // never fails
	id := hex.EncodeToString(r[:])
	n := &network{a: "gray-a-" + id, b: "gray-b-" + id}
	run := func(args ...string) error {
		out, err := exec.Command(ip, args...).CombinedOutput()
		if err != nil {
			t.Logf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return err
	}
	for _, ns := range []string{n.a, n.b} {
		if err := run("netns", "add", ns); err != nil {
			t.Skip("this system makes no network namespaces")
		}
		t.Cleanup(func() {
			if err := run("netns", "del", ns); err != nil {
				t.Error(err)
			}
		})
	}
	for _, args := range []string{
		"-n " + n.a + " link add cable type veth peer name cable netns " + n.b,
		"-n " + n.a + " addr add 10.77.0.1/24 dev cable", "-n " + n.b + " addr add 10.77.0.2/24 dev cable",
		"-n " + n.a + " link set cable up", "-n " + n.b + " link set cable up",
		"-n " + n.a + " link set lo up", "-n " + n.b + " link set lo up",
	} {
		if err := run(strings.Fields(args)...); err != nil {
			t.Fatal(err)
		}
	}
	n.tap(t)
	return n
}

// tap reads all that passes on the cable until heard is called.
func (n *network) tap(t *testing.T) {
	t.Helper()
	type result struct {
		fd  int
		err error
	}
	opened := make(chan result)
	go func() { // its thread moves into the namespace and is not used again
		runtime.LockOSThread()
		fd, err := func() (int, error) {
			ns, err := os.Open("/var/run/netns/" + n.a)
			if err != nil {
				return -1, err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return -1, err
			}
			all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
			return unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all))
		}()
		opened <- result{fd, err}
	}()
	o := <-opened
	if o.err != nil {
		t.Fatal(o.err)
	}
	if err := errors.Join(
		unix.SetsockoptTimeval(o.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50000}),
		unix.SetsockoptInt(o.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)); err != nil {
		t.Fatal(err)
	}
	stopping := make(chan struct{})
	n.tapped = make(chan []byte, 1)
	n.stop = func() { close(stopping) }
	go func() {
		defer unix.Close(o.fd)
		var all []byte
		buf := make([]byte, 64<<10)
		for {
			got, from, err := unix.Recvfrom(o.fd, buf, 0)
			if l, ok := from.(*unix.SockaddrLinklayer); err == nil && ok && l.Hatype == unix.ARPHRD_ETHER { // not loopback
				all = append(all, buf[:got]...)
				continue
			}
			if err == nil || errors.Is(err, unix.EINTR) {
				continue
			}
			if !errors.Is(err, unix.EAGAIN) {
				t.Errorf("tap: %v", err)
			}
			select {
			case <-stopping:
				n.tapped <- all
				return
			default:
			}
		}
	}()
}

// heard ends the tap and gives its bytes.
func (n *network) heard() string {
	n.stop()
	return string(<-n.tapped)
}

// at is a shell on one of the machines.
func (s *shell) at(ns string) *shell {
	c := s.with("CMD_TEST_RAY=real")
	c.prefix = []string{"ip", "netns", "exec", ns}
	return c
}

func TestTwoMachines(t *testing.T) {
	n := newNetwork(t)
	a, b := newShell(t).at(n.a), newShell(t).at(n.b)
	out := a.must("start", "--head", "--port=6379", "--node-ip-address=10.77.0.1", "--num-cpus=1")
	contains(t, out, "ray start --address='10.77.0.1:6379'", "ray get-auth-token")
	token := a.must("get-auth-token")

	start := time.Now()
	text, status := b.ray("start", "--address=10.77.0.1:6379", "--num-cpus=1")
	if status != 1 || time.Since(start) > 5*time.Second {
		t.Errorf("without a token: status %d after %v", status, time.Since(start))
	}
	contains(t, text, "no authentication token found", "ray get-auth-token")
	start = time.Now()
	text, status = b.with("RAY_AUTH_TOKEN=wrong").ray("start", "--address=10.77.0.1:6379", "--num-cpus=1")
	if status != 1 || time.Since(start) > 5*time.Second {
		t.Errorf("with a wrong token: status %d after %v", status, time.Since(start))
	}
	contains(t, text, "refuses the token")

	right := b.with("RAY_AUTH_TOKEN=" + token)
	contains(t, right.must("start", "--address=10.77.0.1:6379", "--num-cpus=1"), "Local node IP: 10.77.0.2", "Ray runtime started.")
	if got := b.nodes(); len(got) != 1 || got[0].NodeIP != "10.77.0.2" {
		t.Errorf("nodes = %+v", got)
	}
	text = b.must("status") // the token of the local node's session
	if c := strings.Count(text, " 1 node_"); c != 2 {
		t.Errorf("%d nodes are active, want 2:\n%s", c, text)
	}
	right.must("health-check", "--address=10.77.0.1:6379")
	contains(t, b.must("stop"), "Stopped all 1 Ray processes.")
	contains(t, a.must("stop"), "Stopped all 1 Ray processes.")

	wire := n.heard()
	if len(wire) < 5000 {
		t.Fatalf("only %d bytes were heard on the cable", len(wire))
	}
	for _, secret := range []string{token, "HTTP/1.1", "/gray/", "node_id", net.IPv4(10, 77, 0, 2).String()} {
		if strings.Contains(wire, secret) {
			t.Errorf("%q can be read on the cable", secret)
		}
	}
}
