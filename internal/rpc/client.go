package rpc

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"gray/internal/core/fault"
	"gray/internal/session"
)

// Dialer connects to the servers of a cluster: as a member (Identity set), with a token only (a daemon that joins, a
// command), or with nothing (health checks; open routes only).
type Dialer struct {
	Identity *Identity
	Token    session.Token // where Identity is nil
	TLS      TLSMode       // where Identity is nil

	always bool // TLS on loopback, too: for tests
}

// Conn is a connection whose other end has shown that it belongs to the cluster, unless the dialer had no token.
type Conn struct {
	net.Conn
	r         *bufio.Reader
	TLS       bool
	Ray       string // the server's version, if there was a proof
	ClusterID string // likewise
}

func (c *Conn) Read(p []byte) (int, error) { return c.r.Read(p) }

// ReadFrom lets bytes of files go by sendfile where there is no TLS.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		return t.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{c.Conn}, r)
}

func dialError(addr, detail string, kind fault.Kind, err error) error {
	return &fault.Error{Op: "connect", Ref: addr, Kind: kind, Detail: detail, Err: err}
}

// ErrUnreachable is in the chain of errors after which a later try may succeed.
var ErrUnreachable = errors.New("unreachable")

// later marks err with ErrUnreachable and leaves its text alone.
type later struct{ error }

func (l later) Is(target error) bool { return target == ErrUnreachable }
func (l later) Unwrap() error        { return l.error }

// Dial connects to host:port and authenticates both sides.
func (d *Dialer) Dial(ctx context.Context, addr string) (*Conn, error) {
	var nd net.Dialer
	raw, err := nd.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, dialError(addr, "", fault.System, later{err})
	}
	// A dialer's context ends what it does; the connection outlives it.
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	c, err := d.authenticate(ctx, raw, addr)
	if !stop() && err == nil {
		err = dialError(addr, "", fault.System, context.Cause(ctx))
	}
	if err != nil {
		raw.Close()
		if ctx.Err() != nil {
			err = dialError(addr, "no answer in time", fault.System, later{context.Cause(ctx)})
		}
		return nil, err
	}
	return c, nil
}

func (d *Dialer) authenticate(ctx context.Context, raw net.Conn, addr string) (*Conn, error) {
	server := addrPort(raw.RemoteAddr())
	mode, token := d.TLS, d.Token
	if d.Identity != nil {
		mode, token = d.Identity.TLS, d.Identity.Token
	}
	if mode == TLSOff || server.Addr().IsLoopback() && !d.always {
		c := &Conn{Conn: raw, r: bufio.NewReaderSize(raw, 64<<10)}
		return c, c.prove(ctx, token, addr, addrBinding(server))
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true} // the proof is over its hash
	if d.Identity != nil {
		conf = d.Identity.clientTLS()
	}
	t := tls.Client(raw, conf)
	if err := t.HandshakeContext(ctx); err != nil {
		if errors.Is(err, errForeign) {
			return nil, dialError(addr, "it is not of this cluster", fault.Auth, err)
		}
		return nil, dialError(addr, "it does not answer as a Gray daemon with TLS; check the address, and that --tls is the same on all nodes",
			fault.Protocol, later{err})
	}
	c := &Conn{Conn: t, r: bufio.NewReaderSize(t, 64<<10), TLS: true}
	if d.Identity != nil {
		return c, nil
	}
	return c, c.prove(ctx, token, addr, certBinding(leaf(t)))
}

func leaf(t *tls.Conn) *x509.Certificate { return t.ConnectionState().PeerCertificates[0] }

// prove is the client's side of the proof.
func (c *Conn) prove(ctx context.Context, token session.Token, addr string, b binding) error {
	if token.IsZero() {
		return nil
	}
	mine := newNonce()
	var first, second proofReply
	if err := c.call(ctx, addr, token.Source, proofRequest{Nonce: mine[:]}, &first); err != nil {
		return err
	}
	if len(first.Nonce) != nonceSize {
		return notGray(addr, errors.New("bad nonce"))
	}
	theirs := nonce(first.Nonce)
	if err := c.call(ctx, addr, token.Source, proofRequest{MAC: proofMAC(token, clientLabel, b, mine, theirs)}, &second); err != nil {
		return err
	}
	if !hmac.Equal(second.MAC, proofMAC(token, serverLabel, b, mine, theirs)) {
		return dialError(addr, "it does not know the cluster's token, so it is not the head", fault.Auth, nil)
	}
	c.Ray, c.ClusterID = second.Ray, second.ClusterID
	return nil
}

func notGray(addr string, err error) error {
	return dialError(addr, "it answers, but not as a Gray daemon; check the address and port", fault.Protocol, err)
}

func (c *Conn) call(ctx context.Context, addr, source string, in proofRequest, out *proofReply) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+proofPath, bytes.NewReader(body))
	if err != nil {
		return dialError(addr, "", fault.System, err)
	}
	resp, err := c.roundTrip(req)
	if err != nil {
		return dialError(addr, "it closed the connection; check that this is the port of a Gray daemon, and that --tls is the same on all nodes",
			fault.Protocol, later{err})
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return dialError(addr, "", fault.System, later{err})
	}
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusForbidden:
		return dialError(addr, fmt.Sprintf("the cluster refuses the token from %s: run `ray get-auth-token` on the head and set %s to what it prints",
			source, session.EnvToken), fault.Auth, nil)
	case http.StatusTooManyRequests:
		return dialError(addr, "too many wrong tokens came from this machine; try again in a minute", fault.Limit, nil)
	default:
		return notGray(addr, fmt.Errorf("HTTP status %d", resp.StatusCode))
	}
	if err := json.Unmarshal(text, out); err != nil {
		return notGray(addr, err)
	}
	return nil
}

// roundTrip sends one request on the connection and reads the answer's head. The body must be read to its end before the
// next one.
func (c *Conn) roundTrip(req *http.Request) (*http.Response, error) {
	req.Header.Set("User-Agent", "gray")
	if err := req.Write(c.Conn); err != nil {
		return nil, err
	}
	return http.ReadResponse(c.r, req)
}

// Do sends one request on the connection, whose deadline is the request's context's. Its answer's body must be read to the
// end before the next one.
func (c *Conn) Do(req *http.Request) (*http.Response, error) {
	if end, ok := req.Context().Deadline(); ok {
		if err := c.SetDeadline(end); err != nil {
			return nil, err
		}
	}
	return c.roundTrip(req)
}

// HTTPClient makes requests to daemons' URLs, all with the scheme http: the dialer adds TLS where it is due.
func (d *Dialer) HTTPClient() *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
				c, err := d.Dial(ctx, addr)
				if err != nil {
					return nil, err
				}
				return c, nil
			},
			MaxIdleConnsPerHost:   16,
			IdleConnTimeout:       time.Minute,
			ResponseHeaderTimeout: 30 * time.Second,
			ReadBufferSize:        64 << 10,
			WriteBufferSize:       64 << 10,
			DisableCompression:    true,
		},
	}
}

// HTTPClient is for requests of role Node to the cluster's other daemons.
func (id *Identity) HTTPClient() *http.Client { return (&Dialer{Identity: id}).HTTPClient() }

// LocalIP is the address of this machine from which target (host:port) is reached; "" asks for the address that other
// machines most likely reach. No packet is sent. Without a network it is 127.0.0.1.
func LocalIP(target string) string {
	if target == "" {
		target = "8.8.8.8:53" // any address beyond the default route
	}
	c, err := (&net.Dialer{}).DialContext(context.Background(), "udp", target)
	if err != nil {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}).String()
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("").String()
}
