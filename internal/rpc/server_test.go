package rpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"gray/internal/core/fault"
	"gray/internal/session"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if os.Getenv("RPC_TEST_ROLE") == "few-descriptors" {
		fewDescriptors()
		return
	}
	goleak.VerifyTestMain(m)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err error, kind fault.Kind, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one with %q", parts)
	}
	if got := fault.KindOf(err); got != kind {
		t.Errorf("kind = %s, want %s: %v", got, kind, err)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error = %q, lacks %q", err, p)
		}
	}
	if strings.Contains(err.Error(), secret) {
		t.Errorf("the error tells the token: %v", err)
	}
}

const secret = "the-clusters-own-token"

func token(t testing.TB, text string) session.Token {
	t.Helper()
	tok, err := session.NewToken(text, "a test")
	check(t, err)
	return tok
}

func nodeID(c string) string { return strings.Repeat(c, 56) }

func hello(node string) Hello {
	return Hello{Protocol: Protocol, Ray: "2.60.0+gray0.1.0", Python: "3.11", NodeID: nodeID(node)}
}

// logBuffer is a logger's text.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// cluster is a head with a CA, a link handler and a few routes.
type cluster struct {
	*Server
	auth  *Authority
	id    *Identity
	addr  string
	links chan link
	log   *logBuffer
}

type link struct {
	net.Conn
	peer PeerInfo
}

const sessionName = "session_2026-11-23_12-00-00_000000_1"

func newCluster(t *testing.T, change func(*ServerConfig)) *cluster {
	t.Helper()
	c := &cluster{links: make(chan link, 16), log: &logBuffer{}}
	var err error
	c.auth, err = NewAuthority(nil)
	check(t, err)
	h := hello("a")
	h.ClusterID = "cluster-one"
	c.id, err = c.auth.Identity(h, sessionName, token(t, secret), TLSOn)
	check(t, err)
	mux := &Mux{}
	text := func(s string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, s) }
	}
	mux.HandleFunc("GET /", Open, text("page"))
	mux.HandleFunc("GET /api/gcs_healthz", Open, text("success"))
	mux.HandleFunc("GET /api/status", Token, text("status"))
	mux.HandleFunc("POST /api/jobs/{id}", Token, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.PathValue("id")) })
	mux.HandleFunc("GET /objects/{id}", Node, text("bytes"))
	mux.Handle(JoinRoute, Token, JoinHandler(c.auth, c.id, nil))
	mux.Handle(LinkRoute, Node, LinkHandler(func() Hello { return h }, func(n net.Conn, p PeerInfo) { c.links <- link{n, p} }))
	cfg := ServerConfig{Name: "head", Mux: mux, Token: token(t, secret), Identity: c.id, Log: slog.New(slog.NewTextHandler(c.log, nil))}
	if change != nil {
		change(&cfg)
	}
	ln, err := Listen("127.0.0.1", 0, "--port")
	check(t, err)
	c.Server, err = Serve(ln, cfg)
	check(t, err)
	c.addr = c.Addr().String()
	t.Cleanup(func() {
		check(t, c.Close())
		if strings.Contains(c.log.String(), secret) {
			t.Errorf("the token is in the log: %s", c.log)
		}
	})
	return c
}

func ctx10(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// strangerTalk sends bytes and gives what comes back until the end.
func strangerTalk(t *testing.T, addr string, in []byte, wrap func(net.Conn) net.Conn) []byte {
	t.Helper()
	raw, err := net.Dial("tcp", addr)
	check(t, err)
	defer raw.Close()
	check(t, raw.SetDeadline(time.Now().Add(5*time.Second)))
	c := raw
	if wrap != nil {
		c = wrap(raw)
	}
	if _, err := c.Write(in); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		t.Fatal(err)
	}
	out, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%.40q: the connection stays open", in)
	}
	return out
}

// TestStrangersHearNothing goes through the kinds of port with what comes from other programs.
func TestStrangersHearNothing(t *testing.T) {
	short := func(c *ServerConfig) { c.Timeout = 300 * time.Millisecond }
	for name, change := range map[string]func(*ServerConfig){
		"head": short,
		"dashboard": func(c *ServerConfig) {
			short(c)
			c.Identity, c.Plain = nil, PlainAny
		},
		"agent with tls": func(c *ServerConfig) { short(c); c.Plain = PlainAny },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, change)
			random := make([]byte, 70000)
			for i := range random {
				random[i] = byte(i*i>>3) | 0x80
			}
			for what, in := range map[string]string{
				"redis":             "PING\r\n",
				"redis array":       "*1\r\n$4\r\nPING\r\n",
				"ssh":               "SSH-2.0-OpenSSH_9.6\r\n",
				"grpc":              "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
				"tls garbage":       "\x16\x03\x01\x00\x05hello",
				"tls long garbage":  "\x16\x03\x01\xff\xff" + strings.Repeat("x", 70000),
				"half a tls record": "\x16\x03\x01\x02\x00\x01\x00",
				"old ssl":           "\x80\x2e\x01\x03\x01",
				"client protocol":   "\x20\x00\x00\x00\x01GRAY\x01\x00",
				"random":            string(random),
				"lower case":        "get / http/1.1\r\n\r\n",
				"half a request":    "GET / HT",
				"nothing":           "",
				"endless line":      "GET /" + strings.Repeat("a", 100000),
				"proxy":             "CONNECT evil:1 HTTP/1.1\r\n\r\n",
				"absolute":          "GET http://evil/ HTTP/1.1\r\n\r\n",
			} {
				t.Run(what, func(t *testing.T) {
					if out := strangerTalk(t, c.addr, []byte(in), nil); len(out) > 0 {
						t.Errorf("answered %q", out)
					}
				})
			}
			t.Run("half a header", func(t *testing.T) { // it is HTTP, so net/http may say so; nothing more
				out := string(strangerTalk(t, c.addr, []byte("GET / HTTP/1.1\r\nHost: x\r\nX"), nil))
				if out != "" && !strings.HasPrefix(out, "HTTP/1.1 4") {
					t.Errorf("answered %q", out)
				}
			})
		})
	}
	t.Run("inside tls", func(t *testing.T) {
		c := newCluster(t, nil)
		wrap := func(raw net.Conn) net.Conn { return tls.Client(raw, &tls.Config{InsecureSkipVerify: true}) }
		for _, in := range []string{"PING\r\n", "SSH-2.0\r\n", "\x00\x01"} {
			if out := strangerTalk(t, c.addr, []byte(in), wrap); len(out) > 0 {
				t.Errorf("%q: answered %q", in, out)
			}
		}
	})
	t.Run("tls 1.2", func(t *testing.T) {
		c := newCluster(t, nil)
		if _, err := tls.Dial("tcp", c.addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
			t.Error("spoke TLS 1.2")
		}
	})
}

func TestPlainIsRefusedOffLoopback(t *testing.T) {
	ip := LocalIP("")
	if netip.MustParseAddr(ip).IsLoopback() {
		t.Skip("this machine has only loopback")
	}
	ln, err := Listen(ip, 0, "--port")
	check(t, err)
	c := newCluster(t, nil)
	s, err := Serve(ln, c.Server.cfg)
	check(t, err)
	defer s.Close()
	if out := strangerTalk(t, s.Addr().String(), []byte("GET /api/gcs_healthz HTTP/1.1\r\nHost: x\r\n\r\n"), nil); len(out) > 0 {
		t.Errorf("answered %q", out)
	}
	j, err := Join(ctx10(t), s.Addr().String(), token(t, secret), TLSOn, hello("b"))
	check(t, err)
	conn, peer, err := DialLink(ctx10(t), s.Addr().String(), j.Identity, j.Hello, nodeID("a"))
	check(t, err)
	defer conn.Close()
	got := <-c.links
	defer got.Close()
	if !peer.TLS || !got.peer.TLS || got.peer.NodeID != nodeID("b") {
		t.Errorf("peers = %+v, %+v; want TLS", peer, got.peer)
	}
	t.Run("tls off", func(t *testing.T) {
		bare := newCluster(t, func(c *ServerConfig) { c.Plain, c.Identity.TLS = PlainAny, TLSOff })
		ln, err := Listen(ip, 0, "--port")
		check(t, err)
		s, err := Serve(ln, bare.Server.cfg)
		check(t, err)
		defer s.Close()
		j, err := Join(ctx10(t), s.Addr().String(), token(t, secret), TLSOff, hello("b"))
		check(t, err)
		conn, peer, err := DialLink(ctx10(t), s.Addr().String(), j.Identity, j.Hello, nodeID("a"))
		check(t, err)
		defer conn.Close()
		(<-bare.links).Close()
		if peer.TLS {
			t.Error("TLS, although it is off")
		}
		_, err = Join(ctx10(t), s.Addr().String(), token(t, "wrong"), TLSOff, hello("b"))
		wantError(t, err, fault.Auth, "refuses the token")
	})
	_, err = (&Dialer{Token: token(t, secret), TLS: TLSOff}).Dial(ctx10(t), s.Addr().String())
	wantError(t, err, fault.Protocol, "--tls is the same on all nodes")
}

func request(t *testing.T, method, url string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx10(t), method, url, nil)
	check(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
	check(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	check(t, err)
	return resp.StatusCode, strings.TrimSpace(string(body))
}

func TestRoutesNeedTheirRole(t *testing.T) {
	c := newCluster(t, func(c *ServerConfig) { c.Browsers = BrowsersRead })
	const missingText, wrongText = "Unauthorized: Missing authentication token", "Forbidden: Invalid authentication token"
	for _, tc := range []struct {
		method, path string
		header       []string
		status       int
		body         string
	}{
		{"GET", "/", nil, 200, "page"},
		{"GET", "/api/gcs_healthz", nil, 200, "success"},
		{"GET", "/api/gcs_healthz", []string{"Authorization", "Bearer wrong"}, 200, "success"},
		{"GET", "/api/status", nil, 401, missingText},
		{"GET", "/api/status", []string{"Authorization", "Bearer wrong"}, 403, wrongText},
		{"GET", "/api/status", []string{"Authorization", "Basic " + secret}, 401, missingText},
		{"GET", "/api/status", []string{"Authorization", "Bearer " + secret}, 200, "status"},
		{"GET", "/api/status", []string{"authorization", "bearer " + secret}, 200, "status"},
		{"GET", "/api/status", []string{"X-Ray-Authorization", "Bearer " + secret}, 200, "status"},
		{"GET", "/api/status", []string{"Cookie", "ray-authentication-token=" + secret}, 200, "status"},
		{"GET", "/api/status", []string{"Authorization", "Bearer wrong", "X-Ray-Authorization", "Bearer " + secret}, 403, wrongText},
		{"GET", "/api/status", []string{"Cookie", "ray-authentication-token=" + secret, "User-Agent", "Mozilla/5.0"}, 200, "status"},
		{"POST", "/api/jobs/x", []string{"Cookie", "ray-authentication-token=" + secret, "User-Agent", "Mozilla/5.0"}, 405, ""},
		{"POST", "/api/jobs/x", []string{"Authorization", "Bearer " + secret}, 200, "x"},
		{"PUT", "/api/status", nil, 401, missingText},
		{"PUT", "/api/status", []string{"Authorization", "Bearer " + secret}, 405, "Method Not Allowed"},
		{"GET", "/unknown", nil, 401, missingText},
		{"GET", "/unknown", []string{"Authorization", "Bearer wrong"}, 403, wrongText},
		{"GET", "/unknown", []string{"Authorization", "Bearer " + secret}, 404, "404 page not found"},
		{"GET", "/api/status/", nil, 401, missingText},
		{"GET", "//api/status", nil, 401, missingText},
		{"GET", "/api/%73tatus", nil, 401, missingText},
		{"GET", "/objects/1", nil, 401, missingText},
		{"GET", "/objects/1", []string{"Authorization", "Bearer " + secret}, 403, "Forbidden: only for nodes of this cluster"},
		{"POST", "/gray/link", nil, 401, missingText},
		{"POST", "/gray/link", []string{"Authorization", "Bearer " + secret}, 403, ""},
		{"POST", "/gray/join", nil, 401, missingText},
		{"POST", "/gray/join", []string{"Authorization", "Bearer " + secret}, 403, "Forbidden: joining needs a proof"},
		{"POST", "/gray/proof", nil, 403, "Forbidden"},
		{"GET", "/gray/proof", nil, 403, "Forbidden"},
	} {
		status, body := request(t, tc.method, "http://"+c.addr+tc.path, tc.header...)
		if status != tc.status || tc.body != "" && body != tc.body {
			t.Errorf("%s %s %q: %d %q, want %d %q", tc.method, tc.path, tc.header, status, body, tc.status, tc.body)
		}
	}
}

func TestAuthDisabled(t *testing.T) {
	c := newCluster(t, func(c *ServerConfig) {
		c.AuthDisabled, c.Token, c.Identity.Token = true, session.DisabledToken(), session.DisabledToken()
	})
	if status, _ := request(t, "GET", "http://"+c.addr+"/api/status"); status != 200 {
		t.Errorf("status = %d, want 200", status)
	}
	if status, _ := request(t, "POST", "http://"+c.addr+"/api/jobs/1", "Origin", "http://evil"); status != 403 {
		t.Errorf("a foreign page may write: %d", status)
	}
	if status, _ := request(t, "GET", "http://"+c.addr+"/objects/1"); status != 403 {
		t.Errorf("objects without a proof: %d", status)
	}
	_, err := Join(ctx10(t), c.addr, session.DisabledToken(), TLSOn, hello("b"))
	check(t, err)
}

func TestIdleConnectionsGiveWay(t *testing.T) {
	const idle = 300
	c := newCluster(t, func(c *ServerConfig) { c.MaxStrangers = 32 })
	j, err := Join(ctx10(t), c.addr, token(t, secret), TLSOn, hello("b"))
	check(t, err)
	member := j.HTTPClient()
	defer member.CloseIdleConnections()
	get := func() {
		t.Helper()
		resp, err := member.Get("http://" + c.addr + "/objects/1")
		check(t, err)
		_, err = io.Copy(io.Discard, resp.Body)
		check(t, errors.Join(err, resp.Body.Close()))
	}
	get()
	var strangers []net.Conn
	for range idle {
		s, err := net.Dial("tcp", c.addr)
		check(t, err)
		defer s.Close()
		strangers = append(strangers, s)
	}
	get() // the member's connection is still there, and new ones come through
	member.CloseIdleConnections()
	get()
	for i, s := range strangers[:idle-32-1] {
		check(t, s.SetReadDeadline(time.Now().Add(5*time.Second)))
		if _, err := s.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("stranger %d of %d is still there", i, idle)
		}
	}
}

func TestStrangerTimesOut(t *testing.T) {
	c := newCluster(t, func(c *ServerConfig) { c.Timeout = 100 * time.Millisecond })
	start := time.Now()
	strangerTalk(t, c.addr, nil, nil)
	if d := time.Since(start); d < 90*time.Millisecond {
		t.Errorf("closed after %v", d)
	}
}

func TestBudget(t *testing.T) {
	log := &logBuffer{}
	b := NewBudget(3, slog.New(slog.NewTextHandler(log, nil)))
	c := newCluster(t, func(c *ServerConfig) { c.Budget = b })
	dial := func() (*Conn, error) { return (&Dialer{Token: token(t, secret)}).Dial(ctx10(t), c.addr) }
	var conns []*Conn
	for range 3 {
		conn, err := dial()
		check(t, err)
		conns = append(conns, conn)
	}
	for range 5 { // no stranger to give way: refused at once
		if conn, err := dial(); err == nil {
			conn.Close()
			t.Fatal("a connection over the budget was served")
		}
	}
	if n := strings.Count(log.String(), "at the connection limit"); n != 1 {
		t.Errorf("%d log lines, want 1: %s", n, log)
	}
	check(t, conns[0].Close())
	deadline := ctx10(t)
	for { // the server sees the close when it sees it
		conn, err := dial()
		if err == nil {
			defer conn.Close()
			break
		}
		if deadline.Err() != nil {
			t.Fatal("never recovered")
		}
	}
	for _, conn := range conns[1:] {
		check(t, conn.Close())
	}
}

func TestDescriptorLimit(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "RPC_TEST_ROLE=few-descriptors")
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	check(t, cmd.Start())
	buf := make([]byte, 64)
	n, err := out.Read(buf)
	check(t, err)
	addr := strings.TrimSpace(string(buf[:n]))
	var idle []net.Conn
	for range 200 {
		c, err := net.Dial("tcp", addr)
		check(t, err)
		idle = append(idle, c)
	}
	for i, c := range idle[:200-64] { // the oldest make room
		check(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
		if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("connection %d of 200 is still there", i)
		}
	}
	conn, err := (&Dialer{Token: token(t, secret)}).Dial(ctx10(t), addr)
	check(t, err)
	conn.Close()
	for _, c := range idle {
		c.Close()
	}
	in.Close()
	check(t, cmd.Wait())
	if n := strings.Count(stderr.String(), "at the connection limit"); n != 1 {
		t.Errorf("%d log lines, want 1: %s", n, stderr.String())
	}
}

// fewDescriptors is a server in a process that runs out of them, although its budget says otherwise.
func fewDescriptors() {
	fatal := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	fatal(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64}))
	tok, err := session.NewToken(secret, "test")
	fatal(err)
	auth, err := NewAuthority(nil)
	fatal(err)
	id, err := auth.Identity(hello("a"), sessionName, tok, TLSOn)
	fatal(err)
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ln, err := Listen("127.0.0.1", 0, "--port")
	fatal(err)
	s, err := Serve(ln, ServerConfig{Name: "head", Mux: &Mux{}, Token: tok, Identity: id, Log: log, Budget: NewBudget(100000, log)})
	fatal(err)
	fmt.Println(s.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test has finished
	fatal(s.Close())
}

func TestListenErrors(t *testing.T) {
	ln, err := Listen("127.0.0.1", 0, "--port")
	check(t, err)
	defer ln.Close()
	_, err = Listen("127.0.0.1", ln.Addr().(*net.TCPAddr).Port, "--port")
	wantError(t, err, fault.System, "in use", "--port", ln.Addr().String())
	_, err = Listen("192.0.2.77", 0, "--port")
	wantError(t, err, fault.System, "--node-ip-address")
}

func TestLimiter(t *testing.T) {
	now := time.Unix(0, 0)
	l := limiter{now: func() time.Time { return now }}
	for range limitBurst {
		if l.blocked("10.0.0.1") {
			t.Fatal("blocked too early")
		}
		l.fail("10.0.0.1")
	}
	if !l.blocked("10.0.0.1") || l.blocked("10.0.0.2") {
		t.Error("want 10.0.0.1 blocked and 10.0.0.2 not")
	}
	now = now.Add(limitWindow)
	if l.blocked("10.0.0.1") {
		t.Error("blocked after the window")
	}
	for i := range limitAddrs + 10 {
		l.fail(fmt.Sprint(i))
	}
	if n := len(l.failed); n > limitAddrs+1 {
		t.Errorf("%d addresses remembered", n)
	}
}
