package node

import (
	"context"
	"net/http"

	"gray/internal/core/engine"
	"gray/internal/core/ids"
	"gray/internal/transfer"
)

// fetching is a copy under way.
type fetching struct {
	stop     context.CancelFunc
	progress *transfer.Progress
	id       ids.ObjectID
	off      uint64
	size     uint64
}

// Fetch copies an object's bytes; the caller holds the lock.
func (s *sink) Fetch(key uint64, id ids.ObjectID, from engine.NodeNo, off, size uint64) {
	n := s.n
	p := n.peers.byNo[from]
	if p == nil || n.closed {
		n.after = append(n.after, func() { n.locked(func(e *engine.Engine) { e.Fetched(key, false) }) })
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	f := &fetching{stop: stop, progress: transfer.NewProgress(int64(size)), id: id, off: off, size: size}
	n.fetches[key] = f
	url := "http://" + p.addr + "/objects/" + id.String()
	n.after = append(n.after, func() {
		n.spawn(func() {
			defer stop()
			_, err := n.fetcher.Fetch(ctx, url, n.arena.Bytes(int64(off), int64(size)), f.progress)
			if err != nil && ctx.Err() == nil {
				n.log.Warn("copying an object failed", "object", id.String(), "from", url, "err", err)
			}
			n.locked(func(e *engine.Engine) {
				if n.fetches[key] == f {
					delete(n.fetches, key)
				}
				e.Fetched(key, err == nil)
			})
		})
	})
}

// CancelFetch stops a copy; its end is reported all the same.
func (s *sink) CancelFetch(key uint64) {
	if f := s.n.fetches[key]; f != nil {
		f.stop()
	}
}

// objects serves object bytes to other daemons.
func (n *Node) objects() http.Handler {
	n.fetcher = &transfer.Fetcher{Client: n.identity.HTTPClient()}
	n.sender = transfer.NewServer((*source)(n), n.memory(), 0)
	return n.sender
}

// memoryView gives the arena to the server, which starts before it is known to be there.
type memoryView struct{ n *Node }

func (m memoryView) Bytes(off, size int64) []byte { return m.n.arena.Bytes(off, size) }

func (n *Node) memory() transfer.Memory { return memoryView{n} }

// source finds the bytes of objects for other daemons, also of those that are being copied here.
type source Node

// Open pins an object while it is sent.
func (s *source) Open(_ context.Context, id ids.ObjectID) (transfer.Object, error) {
	n := (*Node)(s)
	var o transfer.Object
	err := transfer.ErrGone
	n.locked(func(e *engine.Engine) {
		v, ok := e.Serve(id)
		if !ok {
			return
		}
		o = transfer.Object{Off: int64(v.Off), Size: int64(v.Size), Version: v.Key, Done: func() { n.locked(func(e *engine.Engine) { e.Served(id, v.Key) }) }}
		if v.Partial {
			f := n.fetches[v.Key]
			if f == nil {
				e.Served(id, v.Key)
				return
			}
			o.Partial = f.progress
		}
		err = nil
	})
	return o, err
}
