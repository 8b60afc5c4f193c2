package rpc

import (
	"container/list"
	"context"
	"crypto/hmac"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"gray/internal/core/fault"
	"gray/internal/session"

	"golang.org/x/sys/unix"
)

// PlainPolicy says from where a port takes connections without TLS.
type PlainPolicy uint8

const (
	PlainLoopback PlainPolicy = iota // the ports between daemons
	PlainAny                         // dashboard, agent and metrics, whose users speak plain HTTP; and --tls=off
)

// ServerConfig is what a Server is made of. Name, Mux, Token and Log must be set.
type ServerConfig struct {
	Name         string // in log lines: "head", "dashboard"
	Mux          *Mux
	Token        session.Token
	AuthDisabled bool
	Identity     *Identity // for TLS and proofs; nil: plain HTTP with bearers only
	Plain        PlainPolicy
	Browsers     BrowserPolicy
	Hosts        []string // names besides addresses, localhost and the host's own by which browsers may call
	Budget       *Budget  // shared by the process's servers; nil: one of its own
	MaxStrangers int      // connections that have shown no credential; 0: 1024. The oldest gives way to a new one
	Timeout      time.Duration
	Log          *slog.Logger
}

// strangerTimeout is how long a connection may take to show a credential or be answered without one.
const strangerTimeout = 10 * time.Second

// Validate lists what is missing.
func (c *ServerConfig) Validate() error {
	var bad []error
	if c.Name == "" || c.Mux == nil || c.Log == nil {
		bad = append(bad, errors.New("rpc server: Name, Mux and Log must be set"))
	}
	if c.Token.IsZero() {
		bad = append(bad, errors.New("rpc server: it must have a token, even where authentication is off"))
	}
	if c.Identity == nil && c.Plain != PlainAny {
		bad = append(bad, errors.New("rpc server: without an identity it has no TLS, so Plain must be PlainAny"))
	}
	return errors.Join(bad...)
}

// Server serves one port.
type Server struct {
	cfg   ServerConfig
	ln    *net.TCPListener
	http  *http.Server
	ready chan *conn
	limit limiter
	stop  context.CancelFunc
	done  sync.WaitGroup // every goroutine

	mu        sync.Mutex
	strangers *list.List // guarded by mu; *conn, oldest first
}

// Serve answers on ln, which it owns, until Close.
func Serve(ln *net.TCPListener, cfg ServerConfig) (*Server, error) {
	if cfg.MaxStrangers == 0 {
		cfg.MaxStrangers = 1024
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = strangerTimeout
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Budget == nil {
		cfg.Budget = DefaultBudget(cfg.Log)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{cfg: cfg, ln: ln, ready: make(chan *conn), limit: limiter{now: time.Now}, stop: stop, strangers: list.New()}
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: cfg.Timeout,
		IdleTimeout:       5 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	s.done.Go(func() { s.accept(ctx) })
	s.done.Go(func() { _ = s.http.Serve(sniffed{s, ctx.Done()}) }) // ends with ErrServerClosed
	return s, nil
}

type connKey struct{}

func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

// Addr is where the server listens.
func (s *Server) Addr() *net.TCPAddr { return s.ln.Addr().(*net.TCPAddr) }

// Close ends the port and its connections, those that a handler took over excepted, and waits for all goroutines.
func (s *Server) Close() error {
	s.stop()
	err := errors.Join(s.ln.Close(), s.http.Close())
	s.mu.Lock()
	var left []*conn
	for e := s.strangers.Front(); e != nil; e = e.Next() {
		left = append(left, e.Value.(*conn))
	}
	s.mu.Unlock()
	for _, c := range left {
		c.drop()
	}
	s.done.Wait()
	return err
}

// sniffed is the listener that net/http sees: connections that have sent a request line.
type sniffed struct {
	s    *Server
	done <-chan struct{}
}

func (l sniffed) Accept() (net.Conn, error) {
	select {
	case c := <-l.s.ready:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l sniffed) Close() error   { return nil }
func (l sniffed) Addr() net.Addr { return l.s.ln.Addr() }

func (s *Server) accept(ctx context.Context) {
	// At the process's descriptor limit accept fails and the connection stays in the queue for ever. Giving up the spare
	// makes room to take it and close it.
	spare, _ := os.Open(os.DevNull) // without it we only wait
	defer func() {
		if spare != nil {
			spare.Close()
		}
	}()
	for {
		tcp, err := s.ln.AcceptTCP()
		switch {
		case err == nil:
			s.admit(ctx, tcp)
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE):
			s.cfg.Budget.refuse(s.cfg.Name, "no file descriptors left")
			if s.dropOldest() {
				continue
			}
			if spare != nil {
				spare.Close()
				if tcp, err := s.ln.AcceptTCP(); err == nil {
					tcp.Close()
				} else if errors.Is(err, net.ErrClosed) {
					return
				}
			}
			if spare, err = os.Open(os.DevNull); err != nil {
				spare = nil
				pause(ctx, 50*time.Millisecond)
			}
		default: // a connection that was reset while it waited, mostly
			pause(ctx, 5*time.Millisecond)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (s *Server) admit(ctx context.Context, tcp *net.TCPConn) {
	s.mu.Lock()
	full := s.strangers.Len() >= s.cfg.MaxStrangers
	s.mu.Unlock()
	if full {
		s.dropOldest()
	}
	for !s.cfg.Budget.Acquire() {
		s.cfg.Budget.refuse(s.cfg.Name, "too many connections")
		if !s.dropOldest() {
			_ = tcp.SetLinger(0) // best effort: no TIME_WAIT for who is refused
			tcp.Close()
			return
		}
	}
	c := &conn{Conn: tcp, tcp: tcp, srv: s, remote: addrPort(tcp.RemoteAddr()), local: addrPort(tcp.LocalAddr())}
	c.timer = time.AfterFunc(time.Hour, c.drop)
	c.timer.Reset(s.cfg.Timeout) // not before c.timer is set, which drop reads
	s.mu.Lock()
	c.stranger = s.strangers.PushBack(c)
	s.mu.Unlock()
	if ctx.Err() != nil { // Close may have missed it
		c.drop()
		return
	}
	s.done.Go(func() {
		if err := s.prepare(ctx, c); err != nil {
			c.drop()
			return
		}
		select {
		case s.ready <- c:
		case <-ctx.Done():
			c.drop()
		}
	})
}

// dropOldest makes room by ending the stranger that has been silent for longest; false if there is none.
func (s *Server) dropOldest() bool {
	s.mu.Lock()
	e := s.strangers.Front()
	s.mu.Unlock()
	if e == nil {
		return false
	}
	e.Value.(*conn).drop()
	return true
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.stranger != nil {
		s.strangers.Remove(c.stranger)
		c.stranger = nil
	}
}

// prepare brings a connection to its first request line.
func (s *Server) prepare(ctx context.Context, c *conn) error {
	first := make([]byte, 1)
	if _, err := c.tcp.Read(first); err != nil {
		return err
	}
	var in net.Conn = &prefixConn{Conn: c.tcp, head: first}
	const tlsHandshake = 0x16
	if first[0] == tlsHandshake && s.cfg.Identity != nil {
		t, err := s.handshake(ctx, in)
		if err != nil {
			return err
		}
		c.Conn, c.secure, in = t, true, t
		if cs := t.ConnectionState(); len(cs.PeerCertificates) > 0 {
			c.certNode = cs.PeerCertificates[0].Subject.CommonName // verified by serverTLS
		}
	} else if s.cfg.Plain == PlainLoopback && !c.local.Addr().IsLoopback() {
		return errNotHTTP
	}
	head, err := sniffRequest(in)
	c.head = head
	return err
}

func (s *Server) handshake(ctx context.Context, in net.Conn) (*tls.Conn, error) {
	muted := &mutedConn{Conn: in}
	conf := s.cfg.Identity.serverTLS()
	conf.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		muted.speak = true
		return nil, nil
	}
	t := tls.Server(muted, conf)
	return t, t.HandshakeContext(ctx)
}

// level is what a request has shown.
type level uint8

const (
	missing level = iota
	wrong
	blocked
	known    // the token
	nodeKind // a daemon
)

func (s *Server) level(c *conn, r *http.Request) level {
	switch {
	case c.certNode != "":
		return nodeKind
	case c.proved.Load():
		// Behind TLS a daemon has a certificate, and a proof is only good for getting one.
		if !c.secure {
			return nodeKind
		}
		return known
	case s.cfg.AuthDisabled:
		return known
	}
	text, ok := credential(r)
	if !ok {
		return missing
	}
	who, limited := c.remote.Addr().String(), !c.remote.Addr().IsLoopback()
	if limited && s.limit.blocked(who) {
		return blocked
	}
	if s.cfg.Token.Equal(text) {
		return known
	}
	if limited {
		s.limit.fail(who)
	}
	return wrong
}

// tokenCookie is the log-in cookie.
const tokenCookie = "ray-authentication-token"

// credential finds the token in a request. The first place that holds one counts.
func credential(r *http.Request) (string, bool) {
	for _, name := range []string{"Authorization", "X-Ray-Authorization"} {
		scheme, text, ok := strings.Cut(r.Header.Get(name), " ")
		if text = strings.TrimSpace(text); ok && strings.EqualFold(scheme, "Bearer") && text != "" {
			return text, true
		}
	}
	if c, err := r.Cookie(tokenCookie); err == nil && c.Value != "" {
		return c.Value, true
	}
	return "", false
}

// ServeHTTP checks who asks before it looks for what.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := connOf(r.Context())
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	if r.URL.Path == proofPath && s.cfg.Identity != nil {
		s.prove(c, w, r)
		return
	}
	rt, methods := s.cfg.Mux.find(r)
	if status, text := guardBrowser(r, s.cfg.Browsers, rt != nil && rt.browser, s.cfg.Hosts); status != 0 {
		h.Set("Connection", "close")
		http.Error(w, text, status)
		return
	}
	lv := s.level(c, r)
	if lv >= known {
		c.trust()
	} else {
		h.Set("Connection", "close")
	}
	switch {
	case rt != nil && rt.role == Open:
	case lv == missing:
		h.Set("WWW-Authenticate", "Bearer")
		http.Error(w, "Unauthorized: Missing authentication token", http.StatusUnauthorized)
		return
	case lv == wrong:
		http.Error(w, "Forbidden: Invalid authentication token", http.StatusForbidden)
		return
	case lv == blocked:
		http.Error(w, "Too Many Requests: too many invalid tokens from this address; try again in a minute", http.StatusTooManyRequests)
		return
	case rt == nil && len(methods) > 0:
		h.Set("Allow", strings.Join(methods, ", "))
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return
	case rt == nil:
		http.NotFound(w, r)
		return
	case rt.role == Node && lv != nodeKind:
		http.Error(w, "Forbidden: only for nodes of this cluster", http.StatusForbidden)
		return
	}
	rt.handler.ServeHTTP(w, r)
}

// prove is the server's side of the proof.
func (s *Server) prove(c *conn, w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, text string) {
		w.Header().Set("Connection", "close")
		http.Error(w, text, status)
	}
	var req proofRequest
	// Without TLS on a network, whoever sits between could take the connection over after the proof.
	bare := !c.secure && !c.local.Addr().IsLoopback() && s.cfg.Identity.TLS == TLSOn
	if r.Method != http.MethodPost || browserLike(r.Header) || bare {
		refuse(http.StatusForbidden, "Forbidden")
		return
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&req); err != nil {
		refuse(http.StatusForbidden, "Forbidden")
		return
	}
	who, limited := c.remote.Addr().String(), !c.remote.Addr().IsLoopback()
	var reply proofReply
	switch {
	case c.awaited.CompareAndSwap(0, 1) && len(req.Nonce) == nonceSize:
		c.client, c.server = nonce(req.Nonce), newNonce()
		reply.Nonce = c.server[:]
	case c.awaited.CompareAndSwap(1, 2) && len(req.MAC) > 0:
		if limited && s.limit.blocked(who) {
			refuse(http.StatusTooManyRequests, "Too Many Requests: too many invalid tokens from this address; try again in a minute")
			return
		}
		b := addrBinding(c.local)
		if c.secure {
			b = certBinding(s.cfg.Identity.cert.Leaf)
		}
		if !hmac.Equal(req.MAC, proofMAC(s.cfg.Token, clientLabel, b, c.client, c.server)) {
			if limited {
				s.limit.fail(who)
			}
			refuse(http.StatusForbidden, "Forbidden: Invalid authentication token")
			return
		}
		c.proved.Store(true)
		c.trust()
		reply = proofReply{
			MAC: proofMAC(s.cfg.Token, serverLabel, b, c.client, c.server),
			Ray: s.cfg.Identity.Ray, ClusterID: s.cfg.Identity.ClusterID,
		}
	default:
		refuse(http.StatusForbidden, "Forbidden")
		return
	}
	writeJSON(w, http.StatusOK, reply)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "Internal Server Error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // who asked has gone
}

// Peer tells a handler of role Node who calls; the hello is filled in only for links.
func Peer(r *http.Request) PeerInfo {
	c := connOf(r.Context())
	return PeerInfo{Hello: Hello{NodeID: c.certNode}, Addr: c.remote, TLS: c.secure}
}

// Listen opens a TCP port; 0 is any free one. A busy one is one sentence that names the flag to change.
func Listen(host string, port int, flag string) (*net.TCPListener, error) {
	addr := net.JoinHostPort(host, fmt.Sprint(port))
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", addr)
	if err == nil {
		return l.(*net.TCPListener), nil
	}
	detail := ""
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		detail = fmt.Sprintf("the port is in use by another process; choose another with %s, or 0 for any free one", flag)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		detail = "this machine has no such address; choose one of its own with --node-ip-address"
	case errors.Is(err, unix.EACCES):
		detail = fmt.Sprintf("this user may not open the port; choose one over 1023 with %s", flag)
	}
	return nil, &fault.Error{Op: "listen", Ref: addr, Kind: fault.System, Detail: detail, Err: err}
}
