package node

import (
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"

	"gray/internal/rpc"
)

// dying is a connection on which writes fail, while its end is not read before it is let go.
type dying struct {
	net.Conn
	letGo chan struct{}
}

func (d *dying) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func (d *dying) Read([]byte) (int, error) {
	<-d.letGo
	return 0, io.EOF
}

// A client may be back before the daemon has seen the end of its old connection.
func TestAClientThatIsBackEarlyIsNotGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &Node{log: slog.New(slog.DiscardHandler)}
		n.remotes.by = map[string]*remote{}
		hello := rpc.ClientHello{Session: "0123456789abcdef", Incarnation: 5}
		a, _ := net.Pipe()
		old := &dying{a, make(chan struct{})}
		n.takeRemote(old, hello, netip.AddrPort{})
		synctest.Wait() // its writer has failed
		hello.Resume = true
		b, client := net.Pipe()
		defer client.Close()
		go func() { _, _ = io.Copy(io.Discard, client) }() // ends with the pipe
		back := make(chan struct{})
		go func() {
			defer close(back)
			n.takeRemote(b, hello, netip.AddrPort{})
		}()
		synctest.Wait() // it waits for the old one's end
		close(old.letGo)
		<-back
		n.remotes.mu.Lock()
		r := n.remotes.by[hello.Session]
		ends := r == nil || r.timer != nil
		n.remotes.mu.Unlock()
		if ends {
			t.Error("the session ends although its client is connected")
		}
		n.remotes.close()
	})
}
