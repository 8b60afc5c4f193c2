package transfer

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"gray/internal/core/fault"
)

const (
	// largeObject is the size from which several streams fetch one object.
	largeObject = 64 << 20
	// attempts is how often in a row a stream may break without having got a byte.
	attempts = 4
	// firstPause is the wait after the first such break; it grows fivefold.
	firstPause = 20 * time.Millisecond
	// maxMeta bounds the metadata that is taken from a peer.
	maxMeta = 64 << 20
)

// Fetcher fetches objects. Its zero value with a Client works.
type Fetcher struct {
	Client  *http.Client  // authenticated; without a timeout of its own
	Idle    time.Duration // how long a peer may be silent; 0: DefaultIdle
	Streams int           // for large objects; 0: as many as CPUs, at most 4

	pause time.Duration // tests shorten firstPause

	fetches, failures, resumed, bytes, active atomic.Int64
}

// FetcherStats are figures since the start.
type FetcherStats struct {
	Fetches  int64 // begun
	Failures int64
	Resumed  int64 // broken streams that went on
	Bytes    int64 // received
	Active   int64 // running now
}

// Stats reads the figures.
func (f *Fetcher) Stats() FetcherStats {
	return FetcherStats{f.fetches.Load(), f.failures.Load(), f.resumed.Load(), f.bytes.Load(), f.active.Load()}
}

// Fetch reads the object at url (…/objects/{id}) into dst, whose length is the object's size, and returns its metadata. Progress,
// made with NewProgress(len(dst)), tells others meanwhile what is there. When Fetch has returned, nothing writes to dst any more;
// when it has failed, progress has too, and nothing that a Server sends reads from dst.
func (f *Fetcher) Fetch(ctx context.Context, url string, dst []byte, progress *Progress) (meta []byte, err error) {
	f.fetches.Add(1)
	f.active.Add(1)
	defer f.active.Add(-1)
	if progress == nil {
		progress = NewProgress(int64(len(dst)))
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	j := &job{Fetcher: f, url: url, dst: dst, progress: progress, idle: f.Idle}
	if j.idle <= 0 {
		j.idle = DefaultIdle
	}
	streams := 1
	if len(dst) >= largeObject {
		if streams = f.Streams; streams <= 0 {
			streams = min(4, runtime.GOMAXPROCS(0))
		}
	}
	// The first stream learns the version and the metadata before the others start.
	err = j.parts(ctx, func() {
		for range streams - 1 {
			j.others.Go(func() {
				if err := j.parts(ctx, nil); err != nil {
					stop(err)
				}
			})
		}
	})
	if err != nil {
		stop(err)
	}
	j.others.Wait()
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil && j.metaSize > 0 {
		err = j.longMeta(ctx)
	}
	if err != nil {
		f.failures.Add(1)
		err = &fault.Error{
			Op: "transfer.Fetch", Kind: fault.ObjectLost, Ref: url, Err: err,
			Detail: fmt.Sprintf("got %d of %d bytes", progress.Bytes(), len(dst)),
		}
		progress.Fail(err)
		return nil, err
	}
	return j.meta, nil
}

// job is one object being fetched.
type job struct {
	*Fetcher
	url      string
	dst      []byte
	progress *Progress
	idle     time.Duration
	next     atomic.Int64 // part to be taken next
	others   sync.WaitGroup

	// Set from the first response, before other streams start.
	tag      string
	meta     []byte
	metaSize int64
}

// parts fetches parts until none is left. started is called once the first response's head is here.
func (j *job) parts(ctx context.Context, started func()) error {
	for {
		i := j.next.Add(1) - 1
		start := i * partSize
		if start >= int64(len(j.dst)) && (i > 0 || started == nil) {
			return nil
		}
		if err := j.part(ctx, int(i), j.dst[start:min(start+partSize, int64(len(j.dst)))], &started); err != nil {
			return err
		}
	}
}

// part fetches one part, and goes on where a stream broke.
func (j *job) part(ctx context.Context, i int, dst []byte, started *func()) error {
	off, failed, pause := int64(i)*partSize, 0, j.firstPause()
	for {
		n, err := j.stream(ctx, i, off, dst, started)
		dst, off = dst[n:], off+n
		if err == nil {
			return nil
		}
		if n > 0 {
			failed, pause = 0, j.firstPause()
		}
		failed++
		if final(err) || failed == attempts || ctx.Err() != nil {
			return err
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return context.Cause(ctx)
		}
		pause *= 5
		j.resumed.Add(1)
	}
}

func (f *Fetcher) firstPause() time.Duration {
	if f.pause > 0 {
		return f.pause
	}
	return firstPause
}

// final reports whether another attempt at the same peer is useless.
func final(err error) bool {
	return errors.Is(err, ErrGone) || errors.Is(err, ErrChanged) || errors.Is(err, ErrSize) || errors.Is(err, ErrSilent) || errors.Is(err, errRefused)
}

var errRefused = errors.New("the peer refused")

// stream asks once for the bytes of dst, which is at off, and returns how many came.
func (j *job) stream(ctx context.Context, part int, off int64, dst []byte, started *func()) (n int64, err error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	silence := time.AfterFunc(j.idle, func() { stop(fmt.Errorf("%w (%s)", ErrSilent, j.idle)) })
	defer silence.Stop()
	resp, err := j.open(ctx, j.url, func(h http.Header) {
		if int64(len(dst)) != int64(len(j.dst)) {
			h.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+int64(len(dst))-1))
		}
		if j.tag != "" {
			h.Set("If-Match", j.tag)
		}
	})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if err := j.check(resp, off, int64(len(dst))); err != nil {
		return 0, err
	}
	if *started != nil {
		if err := j.learn(resp.Header); err != nil {
			return 0, err
		}
		start := *started
		*started = nil
		start()
	}
	for n < int64(len(dst)) {
		k, err := resp.Body.Read(dst[n:])
		if k > 0 {
			silence.Reset(j.idle)
			n += int64(k)
			j.bytes.Add(int64(k))
			j.progress.add(part, int64(k))
		}
		if err != nil {
			if n == int64(len(dst)) {
				return n, nil
			}
			return n, because(ctx, err)
		}
	}
	// Reading to the end lets the connection be used again.
	var rest [1]byte
	_, _ = resp.Body.Read(rest[:]) // an error here costs the connection, nothing else: all bytes are here
	return n, nil
}

// open sends one GET.
func (j *job) open(ctx context.Context, url string, set func(http.Header)) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	set(req.Header)
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := j.Client.Do(req)
	if err != nil {
		return nil, because(ctx, err)
	}
	return resp, nil
}

// because prefers why a context was cancelled to how that looked from below.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// check refuses an answer that isn't the bytes asked for.
func (j *job) check(resp *http.Response, off, n int64) error {
	switch resp.StatusCode {
	case http.StatusOK, http.StatusPartialContent:
	case http.StatusNotFound, http.StatusGone:
		return ErrGone
	case http.StatusPreconditionFailed:
		return ErrChanged
	case http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("%w: %s", ErrSize, text(resp))
	case http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusBadGateway:
		return fmt.Errorf("the peer answered %s: %s", resp.Status, text(resp))
	default:
		return fmt.Errorf("%w with %s: %s", errRefused, resp.Status, text(resp))
	}
	if size, err := strconv.ParseInt(resp.Header.Get(headerSize), 10, 64); err != nil || size != int64(len(j.dst)) {
		return fmt.Errorf("%w: the peer has %q bytes, expected %d", ErrSize, resp.Header.Get(headerSize), len(j.dst))
	}
	whole := n == int64(len(j.dst))
	if got := resp.Header.Get("Content-Range"); !whole && got != fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, len(j.dst)) {
		return fmt.Errorf("%w: asked for %d bytes at %d, got %s %q", errRefused, n, off, resp.Status, got)
	}
	if whole && resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: asked for everything, got %s", errRefused, resp.Status)
	}
	if resp.ContentLength != n {
		return fmt.Errorf("%w: asked for %d bytes, got %d", errRefused, n, resp.ContentLength)
	}
	return nil
}

// text is the start of an error's body.
func text(resp *http.Response) string {
	b, err := io.ReadAll(io.LimitReader(resp.Body, 300))
	if err != nil && len(b) == 0 {
		return err.Error()
	}
	return string(b)
}

// learn takes what the first response says about the object.
func (j *job) learn(h http.Header) error {
	j.tag = h.Get("ETag")
	if s := h.Get(headerMetaSize); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 || n > maxMeta {
			return fmt.Errorf("%w: metadata of %q bytes", errRefused, s)
		}
		j.metaSize = n
		return nil
	}
	meta, err := base64.StdEncoding.DecodeString(h.Get(headerMeta))
	if err != nil {
		return fmt.Errorf("%w: metadata: %w", errRefused, err)
	}
	j.meta = meta
	return nil
}

// longMeta asks for metadata that is too long for a header.
func (j *job) longMeta(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	silence := time.AfterFunc(j.idle, func() { stop(fmt.Errorf("%w (%s)", ErrSilent, j.idle)) })
	defer silence.Stop()
	resp, err := j.open(ctx, j.url+"?part=meta", func(h http.Header) { h.Set("If-Match", j.tag) })
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ContentLength != j.metaSize {
		return fmt.Errorf("%w: metadata: %s with %d bytes", errRefused, resp.Status, resp.ContentLength)
	}
	j.meta = make([]byte, j.metaSize)
	if _, err := io.ReadFull(resp.Body, j.meta); err != nil {
		return because(ctx, err)
	}
	return nil
}
