package rpc

import (
	"container/list"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// conn is one accepted connection, behind TLS or not, with what its other end has shown.
type conn struct {
	net.Conn // *net.TCPConn or *tls.Conn
	tcp      *net.TCPConn
	srv      *Server
	head     []byte // read by the sniffer, not yet by the server
	remote   netip.AddrPort
	local    netip.AddrPort
	secure   bool
	certNode string // node id of a verified certificate

	proved  atomic.Bool  // the token, by a proof on this connection
	awaited atomic.Int32 // step of the proof; see proofHandler
	client  nonce        // of the proof; only its handler touches them, and a connection's requests run one by one
	server  nonce

	stranger *list.Element // guarded by srv.mu; nil once trusted
	timer    *time.Timer   // closes a stranger
	closed   sync.Once
}

func (c *conn) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		if c.head = c.head[n:]; len(c.head) == 0 {
			c.head = nil
		}
		return n, nil
	}
	return c.Conn.Read(p)
}

// ReadFrom lets object bytes go by sendfile where there is no TLS.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	if !c.secure {
		return c.tcp.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{c.Conn}, r)
}

// CloseWrite ends our direction, so that a last answer is read before the reset.
func (c *conn) CloseWrite() error {
	if t, ok := c.Conn.(*tls.Conn); ok {
		return t.CloseWrite()
	}
	return c.tcp.CloseWrite()
}

func (c *conn) Close() (err error) {
	c.closed.Do(func() {
		c.timer.Stop()
		c.srv.forget(c)
		err = c.Conn.Close()
		c.srv.cfg.Budget.Release()
	})
	return err
}

// drop closes without a word: not even a TLS goodbye.
func (c *conn) drop() {
	c.closed.Do(func() {
		c.timer.Stop()
		c.srv.forget(c)
		_ = c.tcp.Close() // nothing is owed to who is dropped
		c.srv.cfg.Budget.Release()
	})
}

// trust takes c off the list of strangers: its other end has shown a credential.
func (c *conn) trust() {
	c.timer.Stop()
	c.srv.forget(c)
}

// mutedConn writes nothing until the other end has sent a whole TLS hello: no alert answers garbage.
type mutedConn struct {
	net.Conn
	speak bool // set by the handshake's own goroutine
}

func (m *mutedConn) Write(p []byte) (int, error) {
	if !m.speak {
		return len(p), nil
	}
	return m.Conn.Write(p)
}

// prefixConn gives back what was read ahead.
type prefixConn struct {
	net.Conn
	head []byte
}

func (p *prefixConn) Read(b []byte) (int, error) {
	if len(p.head) > 0 {
		n := copy(b, p.head)
		p.head = p.head[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

var errNotHTTP = errors.New("not an HTTP request")

// maxRequestLine bounds the first line of a request.
const maxRequestLine = 8 << 10

// sniffRequest reads until the whole first line is there and gives all that was read. It ends at the first byte that no
// HTTP/1 request line has there.
func sniffRequest(r io.Reader) ([]byte, error) {
	buf := make([]byte, 0, 1024)
	for {
		if len(buf) == cap(buf) {
			if len(buf) >= maxRequestLine {
				return nil, errNotHTTP
			}
			buf = append(buf, make([]byte, len(buf))...)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch requestLine(buf) {
		case lineWhole:
			return buf, nil
		case lineBad:
			return nil, errNotHTTP
		}
		if err != nil {
			return nil, err
		}
	}
}

const (
	linePart = iota
	lineWhole
	lineBad
)

// requestLine judges the start of a stream: "METHOD /path HTTP/1.x\r\n".
func requestLine(b []byte) int {
	i := 0
	for i < len(b) && b[i] >= 'A' && b[i] <= 'Z' {
		i++
	}
	if i == len(b) && i <= 16 {
		return linePart
	}
	if i == 0 || i > 16 || b[i] != ' ' {
		return lineBad
	}
	i++
	if i < len(b) && b[i] != '/' {
		return lineBad
	}
	for i < len(b) && b[i] > ' ' && b[i] < 0x7f {
		i++
	}
	if i == len(b) {
		return linePart
	}
	const version = " HTTP/1."
	rest := b[i:]
	for j := range min(len(rest), len(version)) {
		if rest[j] != version[j] {
			return lineBad
		}
	}
	if len(rest) <= len(version) {
		return linePart
	}
	rest = rest[len(version):]
	if rest[0] != '0' && rest[0] != '1' {
		return lineBad
	}
	for k, c := range rest[1:] {
		switch {
		case c == '\n':
			return lineWhole
		case k > 0 || c != '\r':
			return lineBad
		}
	}
	return linePart
}
