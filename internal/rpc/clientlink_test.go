package rpc

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"gray/internal/core/fault"
)

const clientRay = "2.60.0+gray0.1.0"

func clientHello() ClientHello {
	return ClientHello{Protocol: ClientProtocol, Ray: clientRay, Session: "0123456789abcdef", Incarnation: 3}
}

// clientPort is a server of ray:// clients; what it takes comes out of the channel.
func clientPort(t *testing.T) (*cluster, chan net.Conn) {
	t.Helper()
	taken := make(chan net.Conn, 1)
	c := newCluster(t, func(cfg *ServerConfig) {
		cfg.Mux.Handle(ClientRoute, Token, ClientHandler(clientRay, func(h ClientHello) error {
			if h.Resume {
				return &fault.Error{Op: "ray client", Kind: fault.NotFound, Detail: "no such session"}
			}
			return nil
		}, func(conn net.Conn, _ ClientHello, _ netip.AddrPort) { taken <- conn }))
	})
	return c, taken
}

func TestClientsConnectBehindTLSOnLoopback(t *testing.T) {
	c, taken := clientPort(t)
	conn, err := DialClient(ctx10(t), c.addr, token(t, secret), clientHello())
	check(t, err)
	defer conn.Close()
	server := <-taken
	defer server.Close()
	if !conn.(*Conn).TLS {
		t.Error("the connection is not behind TLS")
	}
	_, err = conn.Write([]byte("hi"))
	check(t, err)
	got := make([]byte, 2)
	check(t, server.SetDeadline(time.Now().Add(10*time.Second)))
	if _, err = io.ReadFull(server, got); err != nil || string(got) != "hi" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestClientsAreRefused(t *testing.T) {
	c, _ := clientPort(t)
	for _, tc := range []struct {
		name, token string
		change      func(*ClientHello)
		kind        fault.Kind
		text        string
	}{
		{"another token", "some-other-token", func(*ClientHello) {}, fault.Auth, "run `ray get-auth-token` on the head"},
		{"another version", secret, func(h *ClientHello) { h.Ray = "1.0" }, fault.Version, "the client ray 1.0"},
		{"another protocol", secret, func(h *ClientHello) { h.Protocol = 9 }, fault.Version, "install the cluster's version"},
		{"a session that is over", secret, func(h *ClientHello) { h.Resume = true }, fault.NotFound, "no such session"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := clientHello()
			tc.change(&h)
			_, err := DialClient(ctx10(t), c.addr, token(t, tc.token), h)
			wantError(t, err, tc.kind, tc.text)
			if errors.Is(err, ErrUnreachable) {
				t.Error("it would be tried again")
			}
		})
	}
	_, err := DialClient(ctx10(t), "127.0.0.1:1", token(t, secret), clientHello())
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("where nobody listens: %v", err)
	}
}

// TestABearerIsNoClient: a bearer says nothing of who else is on the connection, and without TLS neither does a proof.
func TestABearerIsNoClient(t *testing.T) {
	c, _ := clientPort(t)
	text, err := clientHello().encode()
	check(t, err)
	for _, scheme := range []string{"http", "https"} {
		req, err := http.NewRequestWithContext(ctx10(t), http.MethodPost, scheme+"://"+c.addr+clientPath, nil)
		check(t, err)
		req.Header.Set("Authorization", "Bearer "+secret)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", clientProto)
		req.Header.Set(helloHeader, text)
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
		resp, err := tr.RoundTrip(req)
		check(t, err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: status %d", scheme, resp.StatusCode)
		}
	}
	plain, err := (&Dialer{Token: token(t, secret)}).Dial(ctx10(t), c.addr)
	check(t, err)
	defer plain.Close()
	req, err := http.NewRequestWithContext(ctx10(t), http.MethodPost, "http://"+c.addr+clientPath, nil)
	check(t, err)
	req.Header.Set("Upgrade", clientProto)
	req.Header.Set(helloHeader, base64.StdEncoding.EncodeToString([]byte("{}")))
	resp, err := plain.Do(req)
	check(t, err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("proved without TLS: status %d", resp.StatusCode)
	}
}
