package node

import (
	"container/list"
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxGuests is how many connections on the client socket may be without a HELLO at a time.
const maxGuests = 256

// door lets clients in on the Unix socket. A connection is a guest until it has shown its credential; guests are few and
// have little time, and the one that has been silent for longest gives way to the next.
type door struct {
	n      *Node
	mu     sync.Mutex
	guests list.List // guarded by mu; *guest, oldest first
}

// serve accepts clients until the socket is closed.
func (d *door) serve(ctx context.Context) {
	// At the descriptor limit accept fails and the connection stays in the queue: giving up the spare makes room to take
	// it and close it.
	spare, _ := os.Open(os.DevNull) // without it we only wait
	defer func() {
		if spare != nil {
			_ = spare.Close()
		}
	}()
	for {
		c, err := d.n.sock.AcceptUnix()
		switch {
		case err == nil:
			d.enter(c)
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE):
			d.n.budget.Refuse("clients", "no file descriptors left")
			if d.dropOldest() {
				continue
			}
			if spare != nil {
				_ = spare.Close()
				if c, err := d.n.sock.AcceptUnix(); err == nil {
					_ = c.Close()
				}
			}
			if spare, err = os.Open(os.DevNull); err != nil {
				spare = nil
				pause(ctx, 50*time.Millisecond)
			}
		default: // a connection that was reset while it waited
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

// guest is a connection, and what is given back once when it ends.
type guest struct {
	conn  *net.UnixConn
	place *list.Element
	left  sync.Once
}

// enter greets a new connection, if there is room for it.
func (d *door) enter(c *net.UnixConn) {
	for !d.n.budget.Acquire() {
		d.n.budget.Refuse("clients", "too many connections")
		if !d.dropOldest() {
			_ = c.Close()
			return
		}
	}
	g := &guest{conn: c}
	d.mu.Lock()
	full := d.guests.Len() >= maxGuests
	g.place = d.guests.PushBack(g)
	d.mu.Unlock()
	if full {
		d.dropOldest()
	}
	d.n.spawn(func() {
		d.n.greet(c, func() { d.known(g) }, nil)
		d.known(g)
		g.left.Do(d.n.budget.Release)
	})
}

// known takes a connection off the list of guests.
func (d *door) known(g *guest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.guests.Remove(g.place) // does nothing the second time
}

// dropOldest closes the guest that has been there for longest; false if there is none.
func (d *door) dropOldest() bool {
	d.mu.Lock()
	first := d.guests.Front()
	if first == nil {
		d.mu.Unlock()
		return false
	}
	g := d.guests.Remove(first).(*guest)
	d.mu.Unlock()
	_ = g.conn.Close() // its greeter returns
	g.left.Do(d.n.budget.Release)
	return true
}
