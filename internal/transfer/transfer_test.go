package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"gray/internal/arena"
	"gray/internal/core/extent"
	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

const mib = 1 << 20

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var theID = ids.MakeUnique(1, 7).Object(ids.JobFromInt(1), 1)

// memory is an arena on the heap.
type memory []byte

func (m memory) Bytes(off, size int64) []byte { return m[off : off+size : off+size] }

// source serves one object, and counts pins.
type source struct {
	mu     sync.Mutex
	object Object
	err    error
	pins   atomic.Int64
	closed chan struct{} // a pin has ended
}

func newSource(o Object) *source { return &source{object: o, closed: make(chan struct{}, 1)} }

func (s *source) Open(_ context.Context, id ids.ObjectID) (Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return Object{}, s.err
	}
	if id != theID {
		return Object{}, ErrGone
	}
	s.pins.Add(1)
	o := s.object
	o.Done = func() {
		s.pins.Add(-1)
		select {
		case s.closed <- struct{}{}:
		default: // it is told already
		}
	}
	return o, nil
}

// idle waits until no request is being answered: the last bytes may arrive before the server has counted them.
func (s *source) idle() {
	for s.pins.Load() > 0 {
		<-s.closed
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = r.Read(b)
	return b
}

// serve starts an HTTP server; it ends, with all its handlers, before the test does.
func serve(t testing.TB, h http.Handler) (url string) {
	t.Helper()
	srv := httptest.NewServer(h)
	srv.Config.ErrorLog = nil
	t.Cleanup(srv.Close)
	return srv.URL + "/objects/" + theID.String()
}

// serveObject serves content and checks at the end that nothing stays pinned.
func serveObject(t testing.TB, content []byte, o Object) (url string, srv *Server, src *source) {
	t.Helper()
	o.Off, o.Size = 0, int64(len(content))
	src = newSource(o)
	srv = NewServer(src, memory(content), 0)
	t.Cleanup(func() {
		if n := src.pins.Load(); n != 0 {
			t.Errorf("%d pins are left", n)
		}
	})
	return serve(t, srv), srv, src
}

func newFetcher(t testing.TB) *Fetcher {
	t.Helper()
	tr := &http.Transport{MaxIdleConnsPerHost: 8, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &Fetcher{Client: &http.Client{Transport: tr}, pause: time.Millisecond}
}

func TestEverySizeArrives(t *testing.T) {
	for _, size := range []int{0, 1, 1000, partSize - 1, partSize, partSize + 1, largeObject + 12345} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			content := random(size)
			url, srv, src := serveObject(t, content, Object{Version: 3, Meta: []byte("status and ids")})
			f := newFetcher(t)
			f.Streams = 3
			dst, p := make([]byte, size), NewProgress(int64(size))
			meta, err := f.Fetch(t.Context(), url, dst, p)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(dst, content) {
				t.Error("the bytes differ")
			}
			if string(meta) != "status and ids" {
				t.Errorf("metadata %q", meta)
			}
			src.idle()
			if p.Bytes() != int64(size) || f.Stats().Bytes != int64(size) || srv.Stats().Bytes != int64(size) {
				t.Errorf("progress %d, received %d, sent %d, want %d", p.Bytes(), f.Stats().Bytes, srv.Stats().Bytes, size)
			}
		})
	}
}

func TestLongMetadata(t *testing.T) {
	meta := random(10_000 * ids.ObjectSize)
	url, _, _ := serveObject(t, []byte("small"), Object{Meta: meta})
	got, err := newFetcher(t).Fetch(t.Context(), url, make([]byte, 5), nil)
	if err != nil || !bytes.Equal(got, meta) {
		t.Errorf("%d bytes of metadata, %v, want %d", len(got), err, len(meta))
	}
}

func TestRanges(t *testing.T) {
	content := random(1000)
	url, _, _ := serveObject(t, content, Object{})
	client := newFetcher(t).Client
	for _, tc := range []struct {
		header   string
		status   int
		from, to int
	}{
		{"", 200, 0, 1000},
		{"bytes=0-", 206, 0, 1000},
		{"bytes=10-19", 206, 10, 20},
		{"bytes=999-999", 206, 999, 1000},
		{"bytes=990-5000", 206, 990, 1000},
		{"bytes=-10", 206, 990, 1000},
		{"bytes=-5000", 206, 0, 1000},
		{"bytes=1000-", 416, 0, 0},
		{"bytes=-0", 416, 0, 0},
		{"bytes=20-10", 200, 0, 1000},
		{"bytes=0-1,5-6", 200, 0, 1000},
		{"lines=0-1", 200, 0, 1000},
		{"bytes=x-y", 200, 0, 1000},
		{"bytes=99999999999999999999-", 200, 0, 1000},
	} {
		req, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tc.header != "" {
			req.Header.Set("Range", tc.header)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tc.status || err != nil {
			t.Errorf("%q: %s, %v, want %d", tc.header, resp.Status, err, tc.status)
			continue
		}
		if tc.status < 300 && !bytes.Equal(body, content[tc.from:tc.to]) {
			t.Errorf("%q: %d bytes that are not %d to %d", tc.header, len(body), tc.from, tc.to)
		}
		want := ""
		switch tc.status {
		case 206:
			want = fmt.Sprintf("bytes %d-%d/1000", tc.from, tc.to-1)
		case 416:
			want = "bytes */1000"
		}
		if got := resp.Header.Get("Content-Range"); got != want {
			t.Errorf("%q: Content-Range %q, want %q", tc.header, got, want)
		}
	}
}

func TestAnyRangeHeaderGivesARangeOfTheObject(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		header := rapid.OneOf(rapid.String(), rapid.StringMatching(`bytes=-?[0-9]{0,20}-?[0-9]{0,20}`)).Draw(t, "header")
		size := rapid.Int64Range(0, 1<<40).Draw(t, "size")
		from, to, status := rangeOf(header, size)
		if from < 0 || to < from || to > size || (status == 206 && from == to) {
			t.Fatalf("rangeOf(%q, %d) = %d, %d, %d", header, size, from, to, status)
		}
	})
}

func TestMethodsAndNames(t *testing.T) {
	url, _, _ := serveObject(t, []byte("abc"), Object{Version: 16})
	client := newFetcher(t).Client
	for _, tc := range []struct {
		method, url string
		status      int
	}{
		{"HEAD", url, 200},
		{"POST", url, 405},
		{"GET", url[:len(url)-2], 400},
		{"GET", strings.Replace(url, theID.String(), strings.Repeat("ab", ids.ObjectSize), 1), 404},
	} {
		req, err := http.NewRequest(tc.method, tc.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tc.status {
			t.Errorf("%s %s: %s, want %d", tc.method, tc.url, resp.Status, tc.status)
		}
		if tc.method == "HEAD" && (resp.ContentLength != 3 || resp.Header.Get("ETag") != `"10"`) {
			t.Errorf("HEAD: %v", resp.Header)
		}
	}
}

// cutter passes requests on, and cuts an answer's connection after some bytes.
type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(b []byte) (int, error) {
	if len(b) > c.left {
		if _, err := c.ResponseWriter.Write(b[:c.left]); err != nil {
			return 0, err
		}
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= len(b)
	return c.ResponseWriter.Write(b)
}

func TestBrokenStreamsGoOnWhereTheyBroke(t *testing.T) {
	content := random(largeObject + 7)
	src := newSource(Object{Size: int64(len(content)), Version: 5})
	srv := NewServer(src, memory(content), 0)
	var n atomic.Int64
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if k := n.Add(1); k%2 == 1 {
			w = &cutter{w, int(k) * 700_001}
		}
		srv.ServeHTTP(w, r)
	}))
	f := newFetcher(t)
	f.Streams = 2
	dst, p := make([]byte, len(content)), NewProgress(int64(len(content)))
	if _, err := f.Fetch(t.Context(), url, dst, p); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(dst, content) {
		t.Error("the bytes differ")
	}
	if st := f.Stats(); st.Resumed == 0 || st.Bytes != int64(len(content)) || p.Bytes() != st.Bytes {
		t.Errorf("%+v, want some streams resumed and each byte once", st)
	}
}

func TestAPeerThatOnlyBreaks(t *testing.T) {
	var n atomic.Int64
	url := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		n.Add(1)
		panic(http.ErrAbortHandler)
	}))
	f := newFetcher(t)
	p := NewProgress(10)
	_, err := f.Fetch(t.Context(), url, make([]byte, 10), p)
	if fault.KindOf(err) != fault.ObjectLost || !strings.Contains(err.Error(), "got 0 of 10 bytes") {
		t.Errorf("error %v", err)
	}
	if n.Load() < attempts {
		t.Errorf("%d requests, want at least %d", n.Load(), attempts)
	}
	if _, err := p.Wait(t.Context(), 0); err == nil {
		t.Error("those who wait for the bytes were not told")
	}
	if st := f.Stats(); st.Failures != 1 || st.Active != 0 {
		t.Errorf("%+v", st)
	}
}

func TestRefusals(t *testing.T) {
	head := func(status int, headers ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "0123456789")
		}
	}
	for _, tc := range []struct {
		name    string
		handler http.Handler
		want    error
	}{
		{"gone", head(404), ErrGone},
		{"changed", head(412), ErrChanged},
		{"too short a range", head(416), ErrSize},
		{"another size", head(200, headerSize, "11"), ErrSize},
		{"no size", head(200), ErrSize},
		{"not allowed", head(403), errRefused},
		{"elsewhere", head(302, "Location", "/x"), errRefused},
		{"part of it", head(206, headerSize, "10"), errRefused},
		{"more than it has", head(200, headerSize, "10", "Content-Length", "20"), errRefused},
		{"broken metadata", head(200, headerSize, "10", "Content-Length", "10", headerMeta, "%"), errRefused},
		{"absurd metadata", head(200, headerSize, "10", "Content-Length", "10", headerMetaSize, "99999999999"), errRefused},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var n atomic.Int64
			url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n.Add(1)
				tc.handler.ServeHTTP(w, r)
			}))
			f := newFetcher(t)
			f.Client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			if _, err := f.Fetch(t.Context(), url, make([]byte, 10), nil); !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
			if n.Load() != 1 {
				t.Errorf("%d requests after a refusal", n.Load())
			}
		})
	}
}

func TestABusyPeerIsAskedAgain(t *testing.T) {
	url0, _, src := serveObject(t, []byte("abc"), Object{})
	src.err = errors.New("no room to serve now")
	var n atomic.Int64
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 2 {
			src.mu.Lock()
			src.err = nil
			src.mu.Unlock()
		}
		NewServer(src, memory("abc"), 0).ServeHTTP(w, r)
	}))
	dst := make([]byte, 3)
	if _, err := newFetcher(t).Fetch(t.Context(), url, dst, nil); err != nil || string(dst) != "abc" {
		t.Errorf("%q, %v", dst, err)
	}
	_ = url0
}

func TestAVersionIsNotMixedWithAnother(t *testing.T) {
	content := random(partSize + 100)
	src := newSource(Object{Size: int64(len(content)), Version: 1})
	srv := NewServer(src, memory(content), 0)
	var n atomic.Int64
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 2 { // between two parts the object is made anew
			src.mu.Lock()
			src.object.Version = 2
			src.mu.Unlock()
		}
		srv.ServeHTTP(w, r)
	}))
	if _, err := newFetcher(t).Fetch(t.Context(), url, make([]byte, len(content)), nil); !errors.Is(err, ErrChanged) {
		t.Errorf("error %v, want %v", err, ErrChanged)
	}
}

func TestASilentPeer(t *testing.T) {
	for _, tc := range []struct {
		name string
		say  func(w http.ResponseWriter)
		got  string
	}{
		{"from the start", func(http.ResponseWriter) {}, "got 0 of 10 bytes"},
		{"after some bytes", func(w http.ResponseWriter) {
			w.Header().Set(headerSize, "10")
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "0123")
			_ = http.NewResponseController(w).Flush()
		}, "got 4 of 10 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				tc.say(w)
				<-r.Context().Done()
			}))
			f := newFetcher(t)
			f.Idle = 2 * time.Second // a loaded machine needs some to get the first bytes
			_, err := f.Fetch(t.Context(), url, make([]byte, 10), nil)
			if !errors.Is(err, ErrSilent) || !strings.Contains(err.Error(), tc.got) {
				t.Errorf("error %v, want %v and %q", err, ErrSilent, tc.got)
			}
		})
	}
}

func TestAPeerThatReadsNothingLosesItsPin(t *testing.T) {
	content := random(64 * mib) // more than the sockets hold
	src := newSource(Object{Size: int64(len(content))})
	url := serve(t, NewServer(src, memory(content), 100*time.Millisecond))
	resp, err := newFetcher(t).Client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	select {
	case <-src.closed:
	case <-time.After(20 * time.Second):
		t.Fatal("the object is still pinned")
	}
	if n, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Errorf("%d bytes came, as if that were all", n)
	}
}

func TestCancelStopsAllWriting(t *testing.T) {
	content := random(largeObject)
	src := newSource(Object{Size: int64(len(content))})
	srv := NewServer(src, memory(content), 0)
	why := errors.New("nobody needs it any more")
	ctx, cancel := context.WithCancelCause(t.Context())
	var n atomic.Int64
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 3 {
			cancel(why)
		}
		srv.ServeHTTP(w, r)
	}))
	f := newFetcher(t)
	f.Streams = 3
	dst := make([]byte, len(content))
	_, err := f.Fetch(ctx, url, dst, nil)
	if !errors.Is(err, why) {
		t.Errorf("error %v, want %v", err, why)
	}
	clear(dst) // the race detector and the check below see a late writer
	f.Client.CloseIdleConnections()
	src.idle()
	for i, b := range dst {
		if b != 0 {
			t.Fatalf("byte %d was written after Fetch had returned", i)
		}
	}
}

// gate lets a server's bytes through as they are allowed.
type gate struct {
	*Progress
	arrived func(n int64)
}

func newGate(size int64) gate {
	p := NewProgress(size)
	done := int64(0)
	return gate{p, func(n int64) {
		for n > 0 {
			i := done / partSize
			k := min(n, (i+1)*partSize-done)
			p.add(int(i), k)
			done, n = done+k, n-k
		}
	}}
}

func TestAReceiverServesWhatItHas(t *testing.T) {
	size := int64(partSize + 5*mib)
	content := random(int(size))
	first := newGate(size) // the owner's copy is itself still coming
	src := newSource(Object{Size: size, Partial: first.Progress})
	owner := NewServer(src, memory(content), 0)
	ownerURL := serve(t, owner)

	const nodes = 3
	dst, progress, urls := [nodes][]byte{}, [nodes]*Progress{}, [nodes]string{}
	servers := [nodes]*Server{}
	for i := range nodes {
		dst[i], progress[i] = make([]byte, size), NewProgress(size)
		servers[i] = NewServer(newSource(Object{Size: size, Partial: progress[i]}), memory(dst[i]), 0)
		urls[i] = serve(t, servers[i])
	}
	errs := make(chan error, nodes)
	for i := range nodes {
		from := ownerURL
		if i > 0 {
			from = urls[i-1] // a chain
		}
		f := newFetcher(t)
		go func() {
			_, err := f.Fetch(t.Context(), from, dst[i], progress[i])
			errs <- err
		}()
	}
	first.arrived(3 * mib)
	if end, err := progress[nodes-1].Wait(t.Context(), 3*mib-1); err != nil || end != 3*mib {
		t.Fatalf("the last of the chain has %d bytes, %v, want %d while the first still waits", end, err, 3*mib)
	}
	first.arrived(size - 3*mib)
	for range nodes {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	for i := range nodes {
		if !bytes.Equal(dst[i], content) {
			t.Errorf("node %d has other bytes", i)
		}
	}
	src.idle()
	if sent := owner.Stats().Bytes; sent != size {
		t.Errorf("%d bytes left the owner, want each once: %d", sent, size)
	}
}

func TestAFailedFetchFailsThoseWhoReadFromIt(t *testing.T) {
	size := int64(mib)
	partial := NewProgress(size)
	src := newSource(Object{Size: size, Partial: partial})
	url := serve(t, NewServer(src, make(memory, size), 0))
	f := newFetcher(t)
	progress := NewProgress(size)
	errs := make(chan error, 1)
	go func() {
		_, err := f.Fetch(t.Context(), url, make([]byte, size), progress)
		errs <- err
	}()
	partial.add(0, 1000)
	if _, err := progress.Wait(t.Context(), 999); err != nil {
		t.Fatal(err)
	}
	src.mu.Lock()
	src.err = ErrGone
	src.mu.Unlock()
	partial.Fail(errors.New("its source died"))
	if err := <-errs; !errors.Is(err, ErrGone) {
		t.Errorf("error %v, want %v", err, ErrGone)
	}
	<-src.closed
}

// slowMemory reports when its bytes are looked at, and shows them when it may.
type slowMemory struct {
	memory
	asked, may chan struct{}
}

func (m slowMemory) Bytes(off, size int64) []byte {
	m.asked <- struct{}{}
	<-m.may
	return m.memory.Bytes(off, size)
}

func TestFailWaitsForReaders(t *testing.T) {
	partial := NewProgress(1000)
	partial.add(0, 1000)
	m := slowMemory{make(memory, 1000), make(chan struct{}), make(chan struct{})}
	url := serve(t, NewServer(newSource(Object{Size: 1000, Partial: partial}), m, 0))
	fetched := make(chan error, 1)
	f := newFetcher(t)
	go func() {
		_, err := f.Fetch(t.Context(), url, make([]byte, 1000), nil)
		fetched <- err
	}()
	<-m.asked
	failed := make(chan struct{})
	go func() {
		partial.Fail(errors.New("cancelled"))
		close(failed)
	}()
	for failing := false; !failing; { // Fail has begun
		partial.mu.Lock()
		failing = partial.err != nil
		partial.mu.Unlock()
		runtime.Gosched()
	}
	select {
	case <-failed:
		t.Error("Fail returned while a reader was at the bytes")
	default:
	}
	close(m.may)
	<-failed
	if err := <-fetched; err != nil {
		t.Error(err) // what was being written is whole
	}
	if err := partial.read(func() error { t.Error("read after Fail"); return nil }); err == nil {
		t.Error("a reader got in after Fail")
	}
}

func TestProgress(t *testing.T) {
	p := NewProgress(3*partSize - 1)
	p.add(1, 100)
	if end, err := p.Wait(t.Context(), partSize); err != nil || end != partSize+100 {
		t.Errorf("Wait in the second part: %d, %v", end, err)
	}
	p.add(0, partSize)
	if end, err := p.Wait(t.Context(), 5); err != nil || end != partSize+100 {
		t.Errorf("Wait over two parts: %d, %v", end, err)
	}
	p.add(1, partSize-100)
	p.add(2, partSize-1)
	if end, err := p.Wait(t.Context(), 0); err != nil || end != 3*partSize-1 || p.Bytes() != end {
		t.Errorf("Wait for all: %d, %v", end, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if _, err := NewProgress(10).Wait(ctx, 0); !errors.Is(err, why) {
		t.Errorf("a cancelled Wait: %v", err)
	}
	q := NewProgress(10)
	q.Fail(why)
	q.Fail(errors.New("a later reason"))
	if _, err := q.Wait(t.Context(), 0); !errors.Is(err, why) {
		t.Errorf("Wait after Fail: %v", err)
	}
}

func TestArenaToArena(t *testing.T) {
	const size = 20*mib + 77
	plan, err := arena.MakePlan(arena.Config{Capacity: 32 * mib, Fallback: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	arenas := [2]*arena.Arena{}
	for i := range arenas {
		if arenas[i], err = arena.Open(plan); err != nil {
			t.Fatal(err)
		}
		defer arenas[i].Close()
		if err := arenas[i].Ensure(extent.Extent{Off: 0, Size: 21 * mib}); err != nil {
			t.Fatal(err)
		}
	}
	content := random(size)
	copy(arenas[0].Bytes(4096, size), content)
	src := newSource(Object{Off: 4096, Size: size})
	url := serve(t, NewServer(src, arenas[0], 0))
	if _, err := newFetcher(t).Fetch(t.Context(), url, arenas[1].Bytes(0, size), nil); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, size)
	if _, err := arenas[1].File().ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the bytes differ, %v", err)
	}
}

func BenchmarkFetch(b *testing.B) {
	for _, bc := range []struct{ size, streams int }{{mib, 1}, {256 * mib, 1}, {256 * mib, 2}, {256 * mib, 4}} {
		b.Run(fmt.Sprintf("%dMiB/%d", bc.size/mib, bc.streams), func(b *testing.B) {
			content := random(bc.size)
			url, _, _ := serveObject(b, content, Object{})
			f := newFetcher(b)
			f.Streams = bc.streams
			dst := make([]byte, bc.size)
			b.SetBytes(int64(bc.size))
			for b.Loop() {
				if _, err := f.Fetch(b.Context(), url, dst, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
