package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gray/internal/core/fault"
	"gray/internal/session"
)

func TestProof(t *testing.T) {
	for _, always := range []bool{false, true} {
		c := newCluster(t, nil)
		right := &Dialer{Token: token(t, secret), always: always}
		conn, err := right.Dial(ctx10(t), c.addr)
		check(t, err)
		defer conn.Close()
		if conn.Ray != c.id.Ray || conn.ClusterID != c.id.ClusterID || conn.TLS != always {
			t.Errorf("learned %q %q, TLS %v", conn.Ray, conn.ClusterID, conn.TLS)
		}
		start := time.Now()
		_, err = (&Dialer{Token: token(t, "some-other-token"), always: always}).Dial(ctx10(t), c.addr)
		if err == nil {
			t.Fatal("a wrong token passed")
		}
		wantError(t, err, fault.Auth, "refuses the token from a test", "ray get-auth-token", "RAY_AUTH_TOKEN")
		if errors.Is(err, ErrUnreachable) || time.Since(start) > time.Second {
			t.Errorf("a wrong token must fail at once, for good: %v", err)
		}
	}
}

// TestProofIsOfThisConnection: who relays between a client and the server is found out.
func TestProofIsOfThisConnection(t *testing.T) {
	c := newCluster(t, nil)
	relay := func(t *testing.T, accept func(net.Conn) net.Conn, dial func() (net.Conn, error)) string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		check(t, err)
		var wg sync.WaitGroup
		t.Cleanup(func() { ln.Close(); wg.Wait() })
		wg.Go(func() {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			defer in.Close()
			out, err := dial()
			if err != nil {
				t.Error(err)
				return
			}
			defer out.Close()
			in = accept(in)
			wg.Go(func() { _, _ = io.Copy(out, in); out.Close() }) // either end may go first
			_, _ = io.Copy(in, out)
		})
		return ln.Addr().String()
	}
	t.Run("plain", func(t *testing.T) {
		addr := relay(t, func(in net.Conn) net.Conn { return in }, func() (net.Conn, error) { return net.Dial("tcp", c.addr) })
		_, err := (&Dialer{Token: token(t, secret)}).Dial(ctx10(t), addr)
		wantError(t, err, fault.Auth)
	})
	t.Run("tls", func(t *testing.T) {
		// A member of another cluster, with a certificate of its own.
		auth, err := NewAuthority(nil)
		check(t, err)
		id, err := auth.Identity(hello("e"), sessionName, token(t, "x"), TLSOn)
		check(t, err)
		addr := relay(t, func(in net.Conn) net.Conn { return tls.Server(in, id.serverTLS()) }, func() (net.Conn, error) {
			return tls.Dial("tcp", c.addr, &tls.Config{InsecureSkipVerify: true})
		})
		_, err = (&Dialer{Token: token(t, secret), always: true}).Dial(ctx10(t), addr)
		wantError(t, err, fault.Auth)
	})
}

// TestTokenStaysHome records all bytes of a join on a connection without TLS.
func TestTokenStaysHome(t *testing.T) {
	c := newCluster(t, nil)
	var sent logBuffer
	raw, err := net.Dial("tcp", c.addr)
	check(t, err)
	rec := &recorder{Conn: raw, b: &sent}
	conn, err := (&Dialer{Token: token(t, secret)}).authenticate(ctx10(t), rec, c.addr)
	check(t, err)
	defer conn.Close()
	if s := sent.String(); len(s) < 200 || strings.Contains(s, secret) {
		t.Errorf("recorded %d bytes; the token among them: %v", len(s), strings.Contains(s, secret))
	}
}

type recorder struct {
	net.Conn
	b *logBuffer
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	_, _ = r.b.Write(p[:n])
	return n, err
}

func (r *recorder) Write(p []byte) (int, error) {
	_, _ = r.b.Write(p)
	return r.Conn.Write(p)
}

func TestDialErrors(t *testing.T) {
	d := &Dialer{Token: token(t, secret)}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	addr := ln.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() { // another program
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("-ERR unknown command\r\n"))
			c.Close()
		}
	})
	_, err = d.Dial(ctx10(t), addr)
	wantError(t, err, fault.Protocol, addr, "Gray daemon")
	check(t, ln.Close())
	wg.Wait()
	_, err = d.Dial(ctx10(t), addr)
	wantError(t, err, fault.System, addr, "refused")
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("want one line: %v", err)
	}
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v: want ErrUnreachable", err)
	}

	silent, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer silent.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = d.Dial(ctx, silent.Addr().String())
	wantError(t, err, fault.System, "no answer in time")
}

func TestJoinAndLink(t *testing.T) {
	for _, always := range []bool{false, true} {
		c := newCluster(t, nil)
		j, err := Join(ctx10(t), c.addr, token(t, secret), TLSOn, hello("b"))
		check(t, err)
		if j.ClusterID != "cluster-one" || j.SessionName != sessionName || j.Head.NodeID != nodeID("a") || j.YourIP != "127.0.0.1" {
			t.Errorf("joined %+v", j)
		}
		h := j.Hello
		h.Incarnation = 7
		dialer := &Dialer{Identity: j.Identity, always: always}
		conn, peer, err := dialLink(ctx10(t), dialer, c.addr, h, nodeID("a"))
		check(t, err)
		defer conn.Close()
		got := <-c.links
		defer got.Close()
		if got.peer.NodeID != nodeID("b") || got.peer.Incarnation != 7 || got.peer.TLS != always || peer.NodeID != nodeID("a") || peer.ClusterID != "cluster-one" {
			t.Errorf("peers = %+v and %+v", got.peer, peer)
		}
		for _, way := range [][2]net.Conn{{conn, got}, {got, conn}} {
			_, err = way[0].Write([]byte("hello, daemon"))
			check(t, err)
			buf := make([]byte, 13)
			_, err = io.ReadFull(way[1], buf)
			check(t, err)
			if string(buf) != "hello, daemon" {
				t.Errorf("got %q", buf)
			}
		}
		_, _, err = dialLink(ctx10(t), dialer, c.addr, h, nodeID("c"))
		wantError(t, err, fault.Protocol, "node aaaaaaaaaaaa answers there, not cccccccccccc")
		(<-c.links).Close()

		client := dialer.HTTPClient()
		resp, err := client.Get("http://" + c.addr + "/objects/1")
		check(t, err)
		body, err := io.ReadAll(resp.Body)
		check(t, errors.Join(err, resp.Body.Close()))
		if string(body) != "bytes" {
			t.Errorf("object = %q", body)
		}
		client.CloseIdleConnections()
	}
}

func TestImpostors(t *testing.T) {
	c := newCluster(t, nil)
	j, err := Join(ctx10(t), c.addr, token(t, secret), TLSOn, hello("b"))
	check(t, err)
	t.Run("another node's name", func(t *testing.T) {
		_, _, err := dialLink(ctx10(t), &Dialer{Identity: j.Identity, always: true}, c.addr, hello("c"), "")
		wantError(t, err, fault.Auth, "the certificate is another node's")
	})
	t.Run("another cluster's certificate", func(t *testing.T) {
		auth, err := NewAuthority(nil)
		check(t, err)
		id, err := auth.Identity(hello("b"), sessionName, token(t, secret), TLSOn)
		check(t, err)
		_, _, err = dialLink(ctx10(t), &Dialer{Identity: id, always: true}, c.addr, hello("b"), "")
		wantError(t, err, fault.Auth, "not of this cluster")
	})
	t.Run("token but no certificate", func(t *testing.T) {
		client := (&Dialer{Token: token(t, secret), always: true}).HTTPClient()
		defer client.CloseIdleConnections()
		resp, err := client.Get("http://" + c.addr + "/objects/1")
		check(t, err)
		defer resp.Body.Close()
		if resp.StatusCode != 403 {
			t.Errorf("status = %d, want 403", resp.StatusCode)
		}
	})
}

func TestVersions(t *testing.T) {
	c := newCluster(t, nil)
	protocol := hello("b")
	protocol.Protocol, protocol.Ray = 2, "2.61.0+gray0.9.0"
	python := hello("b")
	python.Python = "3.12"
	other := hello("b")
	other.ClusterID = "cluster-two"
	none := hello("b")
	none.Python = ""
	for _, tc := range []struct {
		name  string
		h     Hello
		kind  fault.Kind // "" = accepted
		parts []string
	}{
		{"protocol", protocol, fault.Version, []string{"2.61.0+gray0.9.0", "2.60.0+gray0.1.0", "protocol 2", "protocol 1", `pip install "ray==2.60.0+gray0.1.0"`}},
		{"python", python, fault.Python, []string{"3.12", "3.11", "pip install"}},
		{"cluster", other, fault.Cluster, []string{"cluster-one", "cluster-two"}},
		{"no python", none, "", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			start := time.Now()
			_, err := Join(ctx10(t), c.addr, token(t, secret), TLSOn, tc.h)
			if tc.kind == "" {
				check(t, err)
				return
			}
			wantError(t, err, tc.kind, tc.parts...)
			if strings.Contains(err.Error(), "\n") || time.Since(start) > time.Second {
				t.Errorf("want one sentence within a second: %v", err)
			}
			j, err := Join(ctx10(t), c.addr, token(t, secret), TLSOn, hello("b"))
			check(t, err)
			_, _, err = DialLink(ctx10(t), c.addr, j.Identity, tc.h, "")
			wantError(t, err, tc.kind, tc.parts...)
		})
	}
}

func TestJoinRetry(t *testing.T) {
	c := newCluster(t, nil)
	_, err := JoinRetry(ctx10(t), c.addr, token(t, "wrong"), TLSOn, hello("b"))
	wantError(t, err, fault.Auth, "refuses the token")

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	addr := ln.Addr().String()
	check(t, ln.Close())
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	_, err = JoinRetry(ctx, addr, token(t, secret), TLSOn, hello("b"))
	wantError(t, err, fault.System, addr)

	joined := make(chan error, 1) // the head comes up while the daemon waits
	go func() {
		_, err := JoinRetry(ctx10(t), addr, token(t, secret), TLSOn, hello("b"))
		joined <- err
	}()
	late, err := Listen("127.0.0.1", ln.Addr().(*net.TCPAddr).Port, "--port")
	check(t, err)
	s, err := Serve(late, c.Server.cfg)
	check(t, err)
	defer s.Close()
	check(t, <-joined)
}

func TestAuthorityIsKept(t *testing.T) {
	root, err := session.OpenRoot(filepath.Join(t.TempDir(), "ray"))
	check(t, err)
	defer root.Close()
	dir, err := root.Create(time.Now())
	check(t, err)
	defer dir.Close()
	first, err := NewAuthority(dir)
	check(t, err)
	second, err := NewAuthority(dir)
	check(t, err)
	a, err := first.Identity(hello("a"), dir.Name, token(t, secret), TLSOn)
	check(t, err)
	b, err := second.Identity(hello("b"), dir.Name, token(t, secret), TLSOn)
	check(t, err)
	p, q := net.Pipe()
	defer p.Close()
	defer q.Close()
	server, client := tls.Server(p, a.serverTLS()), tls.Client(q, b.clientTLS())
	done := make(chan error, 1)
	go func() { done <- server.HandshakeContext(ctx10(t)) }()
	check(t, client.HandshakeContext(ctx10(t)))
	check(t, <-done)
	check(t, dir.WriteFile(caFile, []byte("garbage")))
	if _, err := NewAuthority(dir); err == nil {
		t.Error("took a garbled CA")
	}
}
