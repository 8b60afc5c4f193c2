package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// A WebSocket of Kubernetes carries messages whose first byte is their channel.
const (
	channelStdin  = 0
	channelStdout = 1
	channelStderr = 2
	channelError  = 3
	channelClose  = 255 // of v5: the channel in the second byte ends
)

const (
	protocolV5 = "v5.channel.k8s.io" // since Kubernetes 1.30: a channel can end
	protocolV4 = "v4.channel.k8s.io"
)

// maxData is how much one message carries. With its channel and header it must fit into the write buffer: a larger one goes
// out in pieces, and API servers take each piece for a message of its own.
const maxData = 32 << 10

// A ping goes out so often, and a peer that says nothing for longer than quiet is gone.
const (
	pingEvery = 10 * time.Second
	quiet     = 35 * time.Second
)

// errSilent: the peer has answered no ping.
var errSilent = fmt.Errorf("the API server has not answered for %v", quiet)

// socket is a WebSocket that pings.
type socket struct {
	*websocket.Conn
	mu   sync.Mutex // guards writing of messages
	stop chan struct{}
	done sync.WaitGroup
}

// connect opens a WebSocket. It is closed when ctx ends.
func (c *Client) connect(ctx context.Context, path string, query url.Values, protocols ...string) (*socket, error) {
	dialer := websocket.Dialer{
		Proxy: c.proxy, NetDialContext: c.dial, TLSClientConfig: c.tls.Clone(), HandshakeTimeout: answerTimeout,
		Subprotocols: protocols, ReadBufferSize: maxData, WriteBufferSize: maxData + 1024,
	}
	u := *c.base
	u.Scheme = map[string]string{"https": "wss", "http": "ws"}[u.Scheme]
	u.Path = strings.TrimSuffix(u.Path, "/")
	for again := false; ; again = true {
		header := http.Header{}
		if err := c.authorize(ctx, header); err != nil {
			return nil, err
		}
		conn, resp, err := dialer.DialContext(ctx, u.String()+path+"?"+query.Encode(), header)
		if err == nil {
			resp.Body.Close()
			return newSocket(ctx, conn), nil
		}
		if resp == nil || !errors.Is(err, websocket.ErrBadHandshake) {
			return nil, c.unreachable(ctx, err)
		}
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		resp.Body.Close()
		if err != nil {
			return nil, c.unreachable(ctx, err)
		}
		if resp.StatusCode == http.StatusUnauthorized && c.plugin != nil && !again {
			c.plugin.forget()
			continue
		}
		return nil, c.refused("connect to", path, resp.StatusCode, text)
	}
}

func newSocket(ctx context.Context, conn *websocket.Conn) *socket {
	s := &socket{Conn: conn, stop: make(chan struct{})}
	alive := func() error { return conn.SetReadDeadline(time.Now().Add(quiet)) }
	_ = alive() // fails on a closed connection only, as the next read will
	conn.SetPongHandler(func(string) error { return alive() })
	conn.SetReadLimit(16 << 20)
	s.done.Go(func() {
		t := time.NewTicker(pingEvery)
		defer t.Stop()
		for {
			select {
			case <-s.stop:
				return
			case <-ctx.Done():
				conn.Close()
				return
			case <-t.C:
				// A ping that can't be written is noticed by the reader, whose deadline passes.
				_ = conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(quiet))
			}
		}
	})
	return s
}

func (s *socket) close() {
	close(s.stop)
	s.Conn.Close()
	s.done.Wait()
}

// send writes one message to a channel: at most maxData bytes.
func (s *socket) send(channel byte, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, err := s.NextWriter(websocket.BinaryMessage)
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte{channel}); err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return err
	}
	return w.Close()
}

// next opens the next message and gives its channel.
func (s *socket) next() (byte, io.Reader, error) {
	for {
		_, r, err := s.NextReader()
		if err != nil {
			return 0, nil, err
		}
		if err := s.SetReadDeadline(time.Now().Add(quiet)); err != nil {
			return 0, nil, err
		}
		var channel [1]byte
		switch _, err := io.ReadFull(r, channel[:]); {
		case errors.Is(err, io.EOF): // an empty message says nothing
		case err != nil:
			return 0, nil, err
		default:
			return channel[0], r, nil
		}
	}
}

// ExitError is the status with which a program in a pod ended.
type ExitError struct{ Status int }

func (e *ExitError) Error() string { return fmt.Sprintf("exit status %d", e.Status) }

// Exec runs a program in a pod's container until it ends, ctx ends or the connection breaks. The end of stdin is passed on
// where the cluster can do that (since Kubernetes 1.30). A program that ends with a status other than 0 is an *ExitError.
func (c *Client) Exec(ctx context.Context, pod, container string, command []string, stdin io.Reader, stdout, stderr io.Writer) error {
	q := url.Values{"container": {container}, "command": command, "stdout": {"true"}, "stderr": {"true"}}
	if stdin != nil {
		q.Set("stdin", "true")
	}
	s, err := c.connect(ctx, c.Path("v1", "pods", pod, "exec"), q, protocolV5, protocolV4)
	if err != nil {
		return err
	}
	defer s.close()
	if stdin != nil {
		go func() { // ends when stdin does, or with the first write after the connection's end
			buf := make([]byte, maxData)
			for {
				n, err := stdin.Read(buf)
				if n > 0 && s.send(channelStdin, buf[:n]) != nil {
					return // the reader below says why
				}
				if err != nil {
					if s.Subprotocol() == protocolV5 {
						_ = s.send(channelClose, []byte{channelStdin}) // as above
					}
					return
				}
			}
		}()
	}
	for {
		channel, r, err := s.next()
		if err != nil {
			return c.broke(ctx, "the connection to pod "+pod, err)
		}
		switch channel {
		case channelStdout:
			_, err = io.Copy(stdout, r)
		case channelStderr:
			_, err = io.Copy(stderr, r)
		case channelError:
			return c.ended(r, pod)
		}
		if err != nil {
			return fmt.Errorf("can't pass on what pod %s says: %w", pod, err)
		}
	}
}

// broke words the end of a connection that worked.
func (c *Client) broke(ctx context.Context, what string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		err = errSilent
	}
	return fmt.Errorf("%s in namespace %q broke off: %w; see `ray kube status` whether the pod still runs", what, c.Namespace, err)
}

// ended reads how a program ended.
func (c *Client) ended(r io.Reader, pod string) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	var s status
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("pod %s says how its program ended in an unknown form: %w", pod, err)
	}
	if s.Status == "Success" {
		return nil
	}
	for _, cause := range s.Details.Causes {
		if cause.Reason == "ExitCode" {
			code, err := strconv.Atoi(cause.Message)
			if err != nil {
				return fmt.Errorf("pod %s says that its program ended with status %q", pod, cause.Message)
			}
			return &ExitError{code}
		}
	}
	return fmt.Errorf("a program can't be run in pod %s: %s", pod, oneLine(s.Message))
}

// Forward carries bytes between conn and a port of a pod until one side ends, and closes conn. The error is what the pod's
// side says of its own ("connection refused"); that a connection ended, however, is for the two who spoke on it to judge.
func (c *Client) Forward(ctx context.Context, pod string, port int, conn io.ReadWriteCloser) error {
	defer conn.Close()
	s, err := c.connect(ctx, c.Path("v1", "pods", pod, "portforward"), url.Values{"ports": {strconv.Itoa(port)}}, protocolV4)
	if err != nil {
		return err
	}
	var sender sync.WaitGroup
	sender.Go(func() {
		defer s.Conn.Close() // this protocol can't end one direction alone
		buf := make([]byte, maxData)
		for {
			n, err := conn.Read(buf)
			if n > 0 && s.send(0, buf[:n]) != nil {
				return
			}
			if err != nil { // EOF as a rule
				return
			}
		}
	})
	message := s.receive(conn)
	conn.Close() // ends the sender
	s.close()
	sender.Wait()
	if message != "" && context.Cause(ctx) == nil {
		return fmt.Errorf("pod %s, port %d: %s", pod, port, message)
	}
	return nil
}

// receive copies what comes from a forwarded port until the connection ends, and gives what the pod's side says of why. Each
// of the two channels begins with the port in two bytes.
func (s *socket) receive(conn io.Writer) string {
	skip := [2]int64{2, 2}
	for {
		channel, r, err := s.next()
		if err != nil {
			return ""
		}
		if channel > 1 {
			continue
		}
		got, err := io.CopyN(io.Discard, r, skip[channel])
		skip[channel] -= got
		if errors.Is(err, io.EOF) {
			continue
		}
		if channel == 0 {
			if _, err := io.Copy(conn, r); err != nil {
				return ""
			}
			continue
		}
		text, err := io.ReadAll(io.LimitReader(r, 64<<10))
		if message := oneLine(string(text)); message != "" || err != nil {
			return message
		}
	}
}
