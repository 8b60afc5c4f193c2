// Package transfer moves objects between the arenas of daemons, by HTTP: GET /objects/{id in hexadecimal}, with ranges.
//
// A Server sends an object's bytes from its arena, also those of an object that is itself still being fetched, as they arrive:
// so a broadcast grows as a chain or tree without anybody planning it. A Fetcher writes straight into the receiver's arena, over
// several streams when the object is large; it resumes what breaks, and gives up on a peer that is silent.
//
// Bytes are written to the socket from the mapping, which copies them, and not by sendfile: sendfile leaves references to the
// arena's pages in the socket after it returns, and on loopback until the peer has read; were the object freed and its bytes
// reused meanwhile, the peer would get another object's bytes. Nor was it faster: 0.7–1.7 GB/s against 1.4–2.3 GB/s for writes.
//
// Who may call is decided around the Server's handler. Sizes and offsets are bytes.
package transfer

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"gray/internal/core/ids"
)

// Headers of a response.
const (
	headerSize     = "Gray-Size"      // of the whole object
	headerMeta     = "Gray-Meta"      // base64, if short
	headerMetaSize = "Gray-Meta-Size" // if the metadata must be asked for with ?part=meta
)

const (
	// DefaultIdle is how long a peer may be silent.
	DefaultIdle = 10 * time.Second
	// metaInline is the longest metadata sent in a header.
	metaInline = 16 << 10
	// sendStep bounds one write, so that a slow peer can be told from a silent one.
	sendStep = 1 << 20
)

// Errors of a Source and of Fetch; match with errors.Is.
var (
	ErrGone    = errors.New("the node does not have the object")
	ErrChanged = errors.New("the object was made anew during the transfer")
	ErrSilent  = errors.New("the peer sent nothing for too long")
	ErrSize    = errors.New("the object has another size than expected")
)

// Object is one that can be sent.
type Object struct {
	Off, Size int64
	Version   uint64    // tells bytes of one id apart that may differ, such as results of two attempts; never used twice
	Meta      []byte    // what else the receiver must know; opaque
	Partial   *Progress // if it was still being fetched when it was opened, else nil
	Done      func()    // ends the pin; called once
}

// Source finds objects to send.
type Source interface {
	// Open pins an object's bytes until Done. ErrGone if it isn't here.
	Open(ctx context.Context, id ids.ObjectID) (Object, error)
}

// Memory shows the bytes of an arena.
type Memory interface {
	Bytes(off, size int64) []byte
}

// Server sends objects. It is an http.Handler whose paths end with the object's id.
type Server struct {
	source Source
	memory Memory
	idle   time.Duration
	stats  serverStats
}

type serverStats struct{ requests, bytes, active atomic.Int64 }

// ServerStats are figures since NewServer.
type ServerStats struct {
	Requests int64 // answered with bytes
	Bytes    int64 // sent
	Active   int64 // being answered now
}

// NewServer makes a Server. A peer that reads nothing for idle (0: DefaultIdle) is disconnected.
func NewServer(source Source, memory Memory, idle time.Duration) *Server {
	if idle <= 0 {
		idle = DefaultIdle
	}
	return &Server{source: source, memory: memory, idle: idle}
}

// Stats reads the figures.
func (s *Server) Stats() ServerStats {
	return ServerStats{s.stats.requests.Load(), s.stats.bytes.Load(), s.stats.active.Load()}
}

// ServeHTTP answers GET and HEAD.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "objects are read with GET", http.StatusMethodNotAllowed)
		return
	}
	id, err := ids.ParseObject(path.Base(r.URL.Path))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	o, err := s.source.Open(r.Context(), id)
	if errors.Is(err, ErrGone) {
		http.Error(w, ErrGone.Error(), http.StatusNotFound)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer o.Done()
	tag := fmt.Sprintf(`"%x"`, o.Version)
	if want := r.Header.Get("If-Match"); want != "" && want != tag {
		http.Error(w, ErrChanged.Error(), http.StatusPreconditionFailed)
		return
	}
	h := w.Header()
	h.Set("ETag", tag)
	h.Set("Content-Type", "application/octet-stream")
	h.Set(headerSize, strconv.FormatInt(o.Size, 10))
	if r.URL.Query().Get("part") == "meta" {
		h.Set("Content-Length", strconv.Itoa(len(o.Meta)))
		s.send(w, r, func(yield func([]byte) error) error { return yield(o.Meta) })
		return
	}
	if len(o.Meta) > metaInline {
		h.Set(headerMetaSize, strconv.Itoa(len(o.Meta)))
	} else if len(o.Meta) > 0 {
		h.Set(headerMeta, base64.StdEncoding.EncodeToString(o.Meta))
	}
	from, to, status := rangeOf(r.Header.Get("Range"), o.Size)
	if status == http.StatusRequestedRangeNotSatisfiable {
		h.Set("Content-Range", fmt.Sprintf("bytes */%d", o.Size))
		http.Error(w, fmt.Sprintf("the object has %d bytes; %q is not a range of it", o.Size, r.Header.Get("Range")), status)
		return
	}
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Length", strconv.FormatInt(to-from, 10))
	if status == http.StatusPartialContent {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, o.Size))
	}
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	s.stats.requests.Add(1)
	s.send(w, r, func(yield func([]byte) error) error {
		for at := from; at < to; {
			end := to
			if o.Partial != nil {
				if err := flush(w); err != nil { // what is written so far must not wait for the next bytes
					return err
				}
				here, err := o.Partial.Wait(r.Context(), at)
				if err != nil {
					return err
				}
				end = min(end, here)
			}
			for at < end {
				n := min(sendStep, end-at)
				write := func() error { return yield(s.memory.Bytes(o.Off+at, n)) }
				if o.Partial != nil {
					err = o.Partial.read(write)
				} else {
					err = write()
				}
				if err != nil {
					return err
				}
				s.stats.bytes.Add(n)
				at += n
			}
		}
		return nil
	})
}

// send writes what produce yields. The length is promised by then: what can't be sent is told by cutting the connection.
func (s *Server) send(w http.ResponseWriter, r *http.Request, produce func(yield func([]byte) error) error) {
	s.stats.active.Add(1)
	defer s.stats.active.Add(-1)
	rc := http.NewResponseController(w)
	deadlines := true
	err := produce(func(b []byte) error {
		if deadlines {
			// Recorders and the like have no deadlines; real connections do.
			deadlines = !errors.Is(rc.SetWriteDeadline(time.Now().Add(s.idle)), http.ErrNotSupported)
		}
		_, err := w.Write(b)
		return err
	})
	if err == nil && r.Method != http.MethodHead {
		err = flush(w)
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if deadlines {
		_ = rc.SetWriteDeadline(time.Time{}) // the connection may serve others; if it is broken, the next use says so
	}
}

func flush(w http.ResponseWriter) error {
	err := http.NewResponseController(w).Flush()
	if errors.Is(err, http.ErrNotSupported) {
		return nil // a recorder
	}
	return err
}

// rangeOf reads a Range header with one range. What isn't one asks for everything, as HTTP has it.
func rangeOf(header string, size int64) (from, to int64, status int) {
	spec, ok := strings.CutPrefix(header, "bytes=")
	if !ok || strings.Contains(spec, ",") {
		return 0, size, http.StatusOK
	}
	first, last, ok := strings.Cut(spec, "-")
	if !ok {
		return 0, size, http.StatusOK
	}
	if first == "" { // the last so many bytes
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil || n < 0 {
			return 0, size, http.StatusOK
		}
		if n == 0 || size == 0 {
			return 0, 0, http.StatusRequestedRangeNotSatisfiable
		}
		return max(0, size-n), size, http.StatusPartialContent
	}
	from, err := strconv.ParseInt(first, 10, 64)
	if err != nil || from < 0 {
		return 0, size, http.StatusOK
	}
	to = size
	if last != "" {
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil || n < from {
			return 0, size, http.StatusOK
		}
		if n < size {
			to = n + 1
		}
	}
	if from >= size {
		return 0, 0, http.StatusRequestedRangeNotSatisfiable
	}
	return from, to, http.StatusPartialContent
}
