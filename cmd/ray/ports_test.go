package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// openRoutes are those that Ray's documentation names as open, and what they may be asked for.
var openRoutes = []string{"/", "/api/authentication_mode", "/api/gcs_healthz", "/api/local_raylet_healthz", "/api/healthz"}

// TestEveryPort goes through every port that a real cluster opens, as a stranger.
func TestEveryPort(t *testing.T) {
	s := newShell(t).with("CMD_TEST_RAY=real")
	address := s.head("--num-cpus=1", "--dashboard-port=0", "--dashboard-agent-listen-port=0")
	s.must("start", "--address="+address, "--node-ip-address=127.0.0.2", "--num-cpus=1", "--dashboard-agent-listen-port=0")
	nodes := s.nodes()
	if len(nodes) != 2 {
		t.Fatalf("%d nodes, want 2", len(nodes))
	}
	if out := s.must("list", "actors"); out != "No resource in the cluster\n" {
		t.Errorf("a cluster without actors lists\n%s", out)
	}
	token := s.must("get-auth-token")
	var ports []string
	for _, n := range nodes {
		mine := listening(t, n.PID)
		if len(mine) == 0 {
			t.Errorf("node %s opens no port", n.NodeIP)
		}
		ports = append(ports, mine...)
	}
	if !slices.Contains(ports, address) {
		t.Errorf("ports %v lack the head's, %s", ports, address)
	}
	for _, port := range ports {
		t.Run(port, func(t *testing.T) {
			if !netip.MustParseAddrPort(port).Addr().IsLoopback() {
				t.Errorf("%s is open to the network, and the nodes have loopback addresses", port)
			}
			for _, in := range []string{"PING\r\n", "*1\r\n$4\r\nPING\r\n", "SSH-2.0-x\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x00\x05hello", "\x00\x00\x00\x01GRAY", "\xff\xfe\xfd"} {
				if out := stranger(t, port, in); out != "" {
					t.Errorf("%q is answered %q", in, out)
				}
			}
			answered := 0
			for _, path := range append([]string{
				"/api/version", "/api/cluster_status", "/nodes", "/api/v0/tasks", "/api/v0/actors", "/api/v0/actors/summarize", "/api/jobs/", "/objects/00", "/gray/link", "/gray/join",
				"/gray/proof", "/metrics", "/debug/pprof/", "/api/nothing", "/..", "//",
			}, openRoutes...) {
				for _, method := range []string{"GET", "POST"} {
					for what, header := range map[string]string{"none": "", "wrong": "Authorization: Bearer wrong\r\n"} {
						out := stranger(t, port, method+" "+path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n"+header+"\r\n")
						resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(out)), nil)
						if err != nil {
							t.Errorf("%s %s: %q: %v", method, path, out, err)
							continue
						}
						resp.Body.Close()
						want := http.StatusUnauthorized
						if what == "wrong" || path == "/gray/proof" {
							want = http.StatusForbidden
						}
						switch {
						case resp.StatusCode == want:
						case method == "GET" && slices.Contains(openRoutes, path) && resp.StatusCode == http.StatusOK:
							answered++
						default:
							t.Errorf("%s %s, token %s: %s", method, path, what, resp.Status)
						}
					}
				}
			}
			t.Logf("%d answers of open routes", answered)
		})
	}
	s.must("stop")
	for _, n := range nodes {
		if n.Alive() {
			t.Errorf("node %s lives after stop", n.NodeIP)
		}
	}
	// The token is where it belongs and nowhere else.
	err := filepath.WalkDir(s.temp, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == "auth_token" {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(b), token) {
			t.Errorf("%s holds the token", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// stranger sends text and gives all that comes back.
func stranger(t *testing.T, addr, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		return ""
	}
	if w, ok := c.(*net.TCPConn); ok && !strings.Contains(text, " HTTP/1.1\r\n") {
		if err := w.CloseWrite(); err != nil {
			return ""
		}
	}
	out, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%q: the connection stays open", text)
	}
	return string(out)
}

// listening are the TCP addresses on which a process listens.
func listening(t *testing.T, pid int) (addrs []string) {
	t.Helper()
	sockets := map[string]bool{}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if inode, ok := strings.CutPrefix(target, "socket:["); err == nil && ok {
			sockets[strings.TrimSuffix(inode, "]")] = true
		}
	}
	for _, table := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(text), "\n")[1:] {
			f := strings.Fields(line)
			const listen = "0A"
			if len(f) > 9 && f[3] == listen && sockets[f[9]] {
				addrs = append(addrs, procAddr(t, f[1]))
			}
		}
	}
	return addrs
}

// procAddr reads an address of /proc/net/tcp: each 32 bits of it are little-endian.
func procAddr(t *testing.T, text string) string {
	t.Helper()
	ip, port, _ := strings.Cut(text, ":")
	b, err := hex.DecodeString(ip)
	p, perr := strconv.ParseUint(port, 16, 16)
	if err != nil || perr != nil {
		t.Fatalf("address %q: %v, %v", text, err, perr)
	}
	for i := 0; i < len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(p)).String()
}
