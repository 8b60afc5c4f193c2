package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// maxForwards bounds the connections that are carried at once.
const maxForwards = 256

// Connection is a port of this machine that leads to the head's.
type Connection struct {
	c      *Cluster
	listen net.Listener
	port   int
	env    string // file with the environment, or ""

	mu    sync.Mutex
	pod   string // guarded by mu; the head's, "" while there is none
	token string // guarded by mu
}

// Connect opens a port of this machine (0: any) that leads to a port of the head's pod, and asks for the credential.
func (c *Cluster) Connect(ctx context.Context, local, remote int) (*Connection, error) {
	pod, err := c.headPod(ctx)
	if err != nil {
		return nil, err
	}
	token, err := c.output(ctx, pod.Meta.Name, "ray", "get-auth-token")
	if err != nil {
		return nil, fmt.Errorf("can't get the cluster's credential: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(local)))
	if err != nil {
		return nil, fmt.Errorf("port %d of this machine can't be used: %w; choose another by --port, 0 for any that is free", local, err)
	}
	return &Connection{c: c, listen: l, port: remote, pod: pod.Meta.Name, token: strings.TrimSpace(token)}, nil
}

// Port is the one of this machine.
func (n *Connection) Port() int { return n.listen.Addr().(*net.TCPAddr).Port }

// Address is what ray.init takes.
func (n *Connection) Address() string { return fmt.Sprintf("ray://127.0.0.1:%d", n.Port()) }

// Environment is what a program needs, as NAME=VALUE.
func (n *Connection) Environment() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return []string{"RAY_ADDRESS=" + n.Address(), "RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN=" + n.token}
}

// Save writes the environment for a shell to a file that only this user can read, and keeps it true.
func (n *Connection) Save(path string) error {
	n.env = path
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("can't keep the credential: %w", err)
	}
	var text strings.Builder
	for _, v := range n.Environment() {
		name, value, _ := strings.Cut(v, "=")
		fmt.Fprintf(&text, "export %s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`))
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".env-*") // mode 0600
	if err != nil {
		return fmt.Errorf("can't keep the credential: %w", err)
	}
	_, err = f.WriteString(text.String())
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("can't keep the credential: %w", err)
	}
	return nil
}

// Serve carries connections until ctx ends, and follows the head from pod to pod.
func (n *Connection) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	parts.Go(func() {
		<-ctx.Done()
		n.listen.Close()
	})
	parts.Go(func() { n.watch(ctx) })
	room := make(chan struct{}, maxForwards)
	for {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := n.listen.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("can't take connections at 127.0.0.1:%d: %w", n.Port(), err)
		}
		parts.Go(func() {
			n.carry(ctx, conn)
			<-room
		})
	}
}

// carry takes one connection to the head.
func (n *Connection) carry(ctx context.Context, conn net.Conn) {
	n.mu.Lock()
	pod := n.pod
	n.mu.Unlock()
	if pod == "" {
		n.c.say("a connection was refused: the cluster has no head that is ready")
		conn.Close()
		return
	}
	if err := n.c.Client.Forward(ctx, pod, n.port, conn); err != nil && ctx.Err() == nil {
		n.c.say("a connection to the head failed: %v", err)
	}
}

// watch notices that the head's pod is another one.
func (n *Connection) watch(ctx context.Context) {
	complaint := ""
	_ = each(ctx, func() (bool, error) { // only ctx ends it
		err := n.look(ctx)
		if ctx.Err() != nil {
			return false, nil //nolint:nilerr // each sees that ctx has ended
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != complaint {
			if complaint = text; text != "" {
				n.c.say("%s", sentence(text))
			}
		}
		return false, nil
	})
}

func (n *Connection) look(ctx context.Context) error {
	s := &Snapshot{Name: n.c.Name, Namespace: n.c.Client.Namespace, Logs: map[string]string{}}
	if err := n.c.pods(ctx, s); err != nil {
		return err
	}
	p := s.HeadPod()
	n.mu.Lock()
	old := n.pod
	if p == nil {
		n.pod = ""
	}
	n.mu.Unlock()
	switch {
	case p == nil && old == "":
		return nil
	case p == nil:
		return fmt.Errorf("head %s is gone or not ready; programs that were connected have lost it, and connections are possible again as soon as another is ready", old)
	case p.Meta.Name == old:
		return nil
	}
	token, err := n.c.output(ctx, p.Meta.Name, "ray", "get-auth-token")
	if err != nil {
		return fmt.Errorf("can't get the credential of the new head: %w", err)
	}
	token = strings.TrimSpace(token)
	n.mu.Lock()
	changed := token != n.token
	n.pod, n.token = p.Meta.Name, token
	n.mu.Unlock()
	n.c.say("Connected with head %s.", p.Meta.Name)
	if !changed {
		return nil
	}
	if n.env == "" {
		n.c.say("It is a new cluster with a new credential: start `ray kube connect` again for programs to come.")
		return nil
	}
	n.c.say("It is a new cluster with a new credential: read %s again.", n.env)
	return n.Save(n.env)
}
