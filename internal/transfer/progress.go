package transfer

import (
	"context"
	"sync"
)

// partSize is the unit of an object that one stream asks for at a time. Streams take parts in order, so that what has arrived
// is mostly a prefix, which can be passed on.
const partSize = 16 << 20

// Progress tells how much of an object has arrived while it is being fetched, so that it can be served at the same time. Its
// methods may be called from any goroutine.
type Progress struct {
	size int64

	mu      sync.Mutex
	have    []int64       // per part: how many of its bytes are here, from its start; guarded by mu
	total   int64         // guarded by mu
	err     error         // guarded by mu; set once
	readers int           // reading now; guarded by mu
	left    sync.Cond     // on mu: the last reader has left
	changed chan struct{} // closed at the next change; nil when nobody waits; guarded by mu
}

// NewProgress is the progress of an object of size bytes of which nothing is here.
func NewProgress(size int64) *Progress {
	p := &Progress{size: size, have: make([]int64, max(1, (size+partSize-1)/partSize))}
	p.left.L = &p.mu
	return p
}

// Bytes is how much has arrived.
func (p *Progress) Bytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total
}

// Fail ends all serving of the object, now and later, and returns once nobody reads its bytes any more: then they may be reused.
func (p *Progress) Fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
		p.wakeLocked()
	}
	for p.readers > 0 {
		p.left.Wait()
	}
}

// read runs f, which reads bytes that have arrived, unless the object has failed.
func (p *Progress) read(f func() error) error {
	p.mu.Lock()
	if p.err != nil {
		defer p.mu.Unlock()
		return p.err
	}
	p.readers++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.readers--; p.readers == 0 {
			p.left.Broadcast()
		}
	}()
	return f()
}

// Wait returns once the byte at off has arrived; all from off to end have then.
func (p *Progress) Wait(ctx context.Context, off int64) (end int64, err error) {
	for {
		p.mu.Lock()
		if p.err != nil {
			defer p.mu.Unlock()
			return 0, p.err
		}
		if end := p.endLocked(off); end > off {
			p.mu.Unlock()
			return end, nil
		}
		if p.changed == nil {
			p.changed = make(chan struct{})
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// endLocked is the end of what is here from off on.
func (p *Progress) endLocked(off int64) int64 {
	end := off
	for i := off / partSize; i < int64(len(p.have)); i++ {
		start := i * partSize
		if start+p.have[i] <= end {
			break
		}
		end = start + p.have[i]
		if p.have[i] < partSize {
			break
		}
	}
	return end
}

// add says that part i has n more bytes.
func (p *Progress) add(i int, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.have[i] += n
	p.total += n
	p.wakeLocked()
}

func (p *Progress) wakeLocked() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}
