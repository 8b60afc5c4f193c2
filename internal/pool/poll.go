package pool

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"gray/internal/core/fault"
)

// poller waits for any number of descriptors with one goroutine, which holds no thread while it waits.
type poller struct {
	epoll *os.File
	raw   syscall.RawConn
	done  chan struct{} // closed when run has returned

	mu      sync.Mutex
	closed  bool             // guarded by mu
	tokens  uint64           // guarded by mu; the last one given out
	watches map[uint64]watch // guarded by mu
}

type watch struct {
	fd    int
	owned bool // the watch closes fd when it ends
	call  func()
}

func openPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(fd, true) // an epoll descriptor can be polled itself: Go's runtime does
	}
	if err != nil {
		return nil, &fault.Error{Op: "pool.poller", Kind: fault.Limit, Err: err}
	}
	p := &poller{epoll: os.NewFile(uintptr(fd), "epoll"), done: make(chan struct{}), watches: map[uint64]watch{}}
	if p.raw, err = p.epoll.SyscallConn(); err != nil {
		return nil, errors.Join(err, p.epoll.Close())
	}
	go p.run()
	return p, nil
}

// watch calls f once when fd is ready. It closes fd at its end, if owned, and also if it fails.
func (p *poller) watch(fd int, events uint32, owned bool, f func()) (cancel func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		err = ErrStopped
	} else {
		p.tokens++
		// The token, not the descriptor, names the watch: an event may be under way when its descriptor is closed.
		ev := unix.EpollEvent{Events: events | unix.EPOLLONESHOT, Fd: int32(uint32(p.tokens)), Pad: int32(p.tokens >> 32)}
		err = p.control(unix.EPOLL_CTL_ADD, fd, &ev)
	}
	if err != nil {
		if owned {
			err = errors.Join(err, unix.Close(fd))
		}
		return nil, err
	}
	token := p.tokens
	p.watches[token] = watch{fd, owned, f}
	return func() { p.take(token) }, nil
}

// take ends a watch; false if it has ended already.
func (p *poller) take(token uint64) (watch, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.watches[token]
	if !ok {
		return w, false
	}
	delete(p.watches, token)
	if err := p.control(unix.EPOLL_CTL_DEL, w.fd, nil); err != nil {
		panic("pool: a watched descriptor was closed by someone else: " + err.Error())
	}
	if w.owned {
		if err := unix.Close(w.fd); err != nil {
			panic("pool: a watched descriptor was closed by someone else: " + err.Error())
		}
	}
	return w, true
}

func (p *poller) control(op, fd int, ev *unix.EpollEvent) (err error) {
	cerr := p.raw.Control(func(epoll uintptr) { err = unix.EpollCtl(int(epoll), op, fd, ev) })
	if cerr != nil {
		return cerr
	}
	return os.NewSyscallError("epoll_ctl", err)
}

func (p *poller) run() {
	defer close(p.done)
	var events [64]unix.EpollEvent
	for {
		var n int
		var err error
		rerr := p.raw.Read(func(epoll uintptr) bool {
			n, err = unix.EpollWait(int(epoll), events[:], 0)
			return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
		})
		if rerr != nil {
			return // closed
		}
		if err != nil {
			panic("pool: epoll_wait: " + err.Error())
		}
		for _, ev := range events[:n] {
			if w, ok := p.take(uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32); ok {
				w.call()
			}
		}
	}
}

// close ends all watches and returns when no callback runs any more.
func (p *poller) close() {
	p.mu.Lock()
	p.closed = true
	tokens := make([]uint64, 0, len(p.watches))
	for token := range p.watches {
		tokens = append(tokens, token)
	}
	p.mu.Unlock()
	for _, token := range tokens {
		p.take(token)
	}
	if err := p.epoll.Close(); err != nil {
		panic("pool: close epoll: " + err.Error())
	}
	<-p.done
}
