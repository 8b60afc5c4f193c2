package relay

import (
	"sync"

	"gray/internal/core/ids"
	"gray/internal/wire"
)

// job is a value to send, or a frame that must not overtake those before it, or the end of the driver's frames.
type job struct {
	id    ids.ObjectID
	off   int64
	size  int64
	frame []byte // SEAL, of a value
	value bool
	end   bool
}

// list is jobs in their order.
type list struct {
	mu     sync.Mutex
	change *sync.Cond
	jobs   []job // guarded by mu; the first one may be under way
	ended  bool  // guarded by mu
}

func newList() *list {
	l := &list{}
	l.change = sync.NewCond(&l.mu)
	return l
}

func (l *list) put(j job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.jobs = append(l.jobs, j)
	l.change.Broadcast()
}

// behind adds a frame if there is anything that it must not overtake.
func (l *list) behind(frame []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.jobs) == 0 {
		return false
	}
	l.jobs = append(l.jobs, job{frame: frame})
	return true
}

func (l *list) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.change.Broadcast()
}

// first waits for a job, which stays in the list until done.
func (l *list) first() (job, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.jobs) == 0 && !l.ended {
		l.change.Wait()
	}
	if l.ended {
		return job{}, false
	}
	return l.jobs[0], true
}

func (l *list) done() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.jobs[0] = (job{}); len(l.jobs) == 1 {
		l.jobs = nil
		return
	}
	l.jobs = l.jobs[1:]
}

// sendJobs sends large values one by one, and what follows them.
func (n *Near) sendJobs() {
	for {
		j, ok := n.jobs.first()
		if !ok {
			return
		}
		if err := n.sendJob(&j); err != nil {
			return // the session is over
		}
		n.jobs.done()
	}
}

func (n *Near) sendJob(j *job) error {
	if j.end {
		return n.say(msgClose, driverStream)
	}
	if j.value {
		for at := int64(0); at < j.size; {
			k := min(j.size-at, piece)
			if !n.puts.take(int(k)) {
				return errEnded
			}
			msg := append(message(msgBytes, puts, ids.ObjectSize+int(k)), j.id[:]...)
			msg = append(msg, n.store.bytes(j.off+at, k)...)
			if err := n.send(msg); err != nil {
				return err
			}
			at += k
		}
		n.mu.Lock()
		n.store.free(j.off)
		n.mu.Unlock()
	}
	return n.sendFrames(append(message(msgFrames, driverStream, len(j.frame)), j.frame...))
}

func (n *Near) sendFrames(msg []byte) error {
	if !n.up.take(len(msg) - msgHead) {
		return errEnded
	}
	return n.send(msg)
}

// read brings the driver's frames to the far half until the driver's stream ends.
func (n *Near) read(st *wire.Stream) {
	out := message(msgFrames, driverStream, 4096)
	for {
		f, err := st.Next()
		if err != nil {
			return // what was sent before went out, as nothing stays here while nothing is buffered
		}
		b, err := n.frameUp(out, f)
		if err != nil {
			return // what the daemon would not take, either
		}
		out = b
		if len(out) > msgHead && (!st.Buffered() || len(out) >= batch) {
			if n.sendFrames(out) != nil {
				return
			}
			out = message(msgFrames, driverStream, 4096)
		}
	}
}

// frameUp appends a frame to those that are sent, but for what waits behind large values.
func (n *Near) frameUp(out []byte, f wire.Frame) ([]byte, error) {
	switch f.Kind {
	case wire.KindCreate:
		m, err := wire.DecodeCreate(f.Body)
		if err != nil {
			return out, err
		}
		n.mu.Lock()
		n.asked[request{streamOf(m.Chan), m.Req}] = m
		n.mu.Unlock()
	case wire.KindSeal:
		m, err := wire.DecodeSeal(f.Body)
		if err != nil {
			return out, err
		}
		n.mu.Lock()
		a, ok := n.rooms[m.ID]
		off := n.offs[m.ID]
		delete(n.rooms, m.ID)
		delete(n.offs, m.ID)
		n.mu.Unlock()
		if ok {
			n.jobs.put(job{value: true, id: m.ID, off: off, size: int64(a.Size), frame: whole(nil, f)})
			return out, nil
		}
	case wire.KindAbort:
		id, err := wire.DecodeAbort(f.Body)
		if err != nil {
			return out, err
		}
		n.abort(id)
	case wire.KindRelease:
		if b := whole(nil, f); n.jobs.behind(b) {
			return out, nil
		}
	case wire.KindUnpin:
		list, err := wire.DecodeUnpin(f.Body)
		if err != nil {
			return out, err
		}
		n.mu.Lock()
		for k := range list.Len() {
			id, pins := list.At(k)
			if h := n.copies[id]; h != nil {
				h.pins -= min(pins, h.pins)
			}
		}
		n.mu.Unlock()
	}
	return whole(out, f), nil
}

// abort gives up what the driver does not write to its end.
func (n *Near) abort(id ids.ObjectID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, c := range n.asked {
		if c.ID == id {
			delete(n.asked, k)
		}
	}
	if _, ok := n.rooms[id]; ok {
		n.store.free(n.offs[id])
		delete(n.rooms, id)
		delete(n.offs, id)
	}
}
