package depot

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gray/internal/core/fault"
)

const name = "_ray_pkg_0123456789abcdef0123456789abcdef.zip"

type file struct {
	name, text string
	mode       os.FileMode
}

func zipped(t *testing.T, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range files {
		h := &zip.FileHeader{Name: f.name, Method: zip.Deflate}
		h.SetMode(f.mode)
		w, err := z.CreateHeader(h)
		if err == nil {
			_, err = io.WriteString(w, f.text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func tarred(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	g := gzip.NewWriter(&b)
	w := tar.NewWriter(g)
	for _, h := range entries {
		if h.Typeflag == tar.TypeReg {
			h.Size = 4
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, "text"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(w.Close(), g.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func onDisk(t *testing.T, b []byte) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err == nil {
		_, err = f.Write(b)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// tree lists what is below a folder.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if e.IsDir() {
			rel += "/"
		}
		all = append(all, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

func TestUnpack(t *testing.T) {
	plain := zipped(t, file{"a/", "", os.ModeDir | 0o755}, file{"a/b.py", "X = 1", 0o644}, file{"a/run.sh", "echo", 0o755}, file{"a/empty/", "", os.ModeDir | 0o755})
	dir := tar.Header{Name: "top/", Typeflag: tar.TypeDir, Mode: 0o755}
	inside := tar.Header{Name: "top/f.py", Typeflag: tar.TypeReg, Mode: 0o644}
	for _, tc := range []struct {
		what  string
		bytes []byte
		name  string
		strip bool
		limit int64
		want  string // the tree, or a part of the error after "!"
	}{
		{"a zip", plain, "x.zip", false, 1 << 20, "a/ a/b.py a/empty/ a/run.sh"},
		{"without its only folder", plain, "x.zip", true, 1 << 20, "b.py empty/ run.sh"},
		{"several at the top stay", zipped(t, file{"a/x", "1", 0o644}, file{"b", "2", 0o644}), "x.zip", true, 1 << 20, "a/ a/x b"},
		{"a file at the top stays", zipped(t, file{"b", "2", 0o644}), "x.zip", true, 1 << 20, "b"},
		{"a tar", tarred(t, dir, inside), "https://x/y.tar.gz", true, 1 << 20, "f.py"},
		{"a tar as it is", tarred(t, dir, inside), "y.tgz", false, 1 << 20, "top/ top/f.py"},
		{"a link in a zip is a file", zipped(t, file{"l", "/etc/passwd", os.ModeSymlink | 0o777}), "x.zip", false, 1 << 20, "l"},
		{"upwards", zipped(t, file{"../evil", "1", 0o644}), "x.zip", false, 1 << 20, "!is not the path"},
		{"upwards within", zipped(t, file{"a/../../evil", "1", 0o644}), "x.zip", false, 1 << 20, "!is not the path"},
		{"absolute", zipped(t, file{"/tmp/evil", "1", 0o644}), "x.zip", false, 1 << 20, "!is not the path"},
		{"a backslash", zipped(t, file{`..\evil`, "1", 0o644}), "x.zip", false, 1 << 20, "!is not the path"},
		{"twice the same", zipped(t, file{"a", "1", 0o644}, file{"a", "2", 0o644}), "x.zip", false, 1 << 20, "!exists"},
		{"a link in a tar", tarred(t, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/etc"}), "y.tgz", false, 1 << 20, "!neither a file nor a folder"},
		{"a device in a tar", tarred(t, tar.Header{Name: "d", Typeflag: tar.TypeChar}), "y.tgz", false, 1 << 20, "!neither a file nor a folder"},
		{"upwards in a tar", tarred(t, tar.Header{Name: "../evil", Typeflag: tar.TypeReg}), "y.tgz", false, 1 << 20, "!is not the path"},
		{"a bomb", zipped(t, file{"a", strings.Repeat("x", 100_000), 0o644}), "x.zip", false, 50_000, "!more than 50000 bytes"},
		{"no archive", []byte("hello"), "x.zip", false, 1 << 20, "!not a valid zip file"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "out")
			size, err := Unpack(onDisk(t, tc.bytes), tc.name, dir, tc.strip, tc.limit)
			if text, bad := strings.CutPrefix(tc.want, "!"); bad {
				if err == nil || !strings.Contains(err.Error(), text) {
					t.Fatalf("error %v, want one with %q", err, text)
				}
				if _, err := os.Lstat(filepath.Join(filepath.Dir(dir), "evil")); err == nil {
					t.Error("an entry left the folder")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := tree(t, dir); got != tc.want {
				t.Errorf("tree %q, want %q", got, tc.want)
			}
			if size == 0 {
				t.Error("size 0")
			}
		})
	}
	dirs := filepath.Join(t.TempDir(), "modes")
	if _, err := Unpack(onDisk(t, plain), "x.zip", dirs, true, 1<<20); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dirs, "run.sh")); err != nil || st.Mode().Perm()&0o100 == 0 {
		t.Errorf("a program is not executable any more: %v %v", st.Mode(), err)
	}
	if st, err := os.Stat(filepath.Join(dirs, "b.py")); err != nil || st.Mode().Perm()&0o111 != 0 {
		t.Errorf("a file has become executable: %v %v", st.Mode(), err)
	}
}

func TestValidName(t *testing.T) {
	for in, want := range map[string]bool{
		name: true, "_ray_pkg_0123456789abcdef.tar.gz": true, "_ray_pkg_0123456789abcdef.tgz": true,
		"_ray_pkg_0123.zip": false, "../" + name: false, "_ray_pkg_0123456789ABCDEF.zip": false, "_ray_pkg_0123456789abcdef": false,
		"_ray_pkg_0123456789abcdef.zip/x": false, "x": false, "": false, "_ray_pkg_0123456789abcdef.1.part": false,
	} {
		if got := ValidName(in); got != want {
			t.Errorf("ValidName(%q) = %v", in, got)
		}
	}
}

func TestStore(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name+".1"+part), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := tree(t, dir); got != "" {
		t.Errorf("what a crash left is still there: %s", got)
	}
	if s.Has(name) {
		t.Error("an empty store has a package")
	}
	if _, err := s.Open(name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if err := s.Put("../x", strings.NewReader("")); err == nil {
		t.Error("a bad name was taken")
	}
	if err := s.Put(name, io.MultiReader(strings.NewReader("ab"), broken{})); err == nil {
		t.Error("a broken upload was taken")
	}
	if got := tree(t, dir); got != "" {
		t.Errorf("a broken upload left %s", got)
	}
	for _, text := range []string{"first", "second"} {
		if err := s.Put(name, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := s.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err != nil || string(b) != "first" || f.Close() != nil {
		t.Errorf("got %q, %v", b, err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("cut") }

func TestSweep(t *testing.T) {
	s, err := OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	s.now = func() time.Time { return now }
	other := strings.Replace(name, "0", "1", 1)
	for _, n := range []string{name, other} {
		if err := s.Put(n, strings.NewReader(n)); err != nil {
			t.Fatal(err)
		}
		s.Has(n)
	}
	sweep := func(inUse ...string) int {
		m := map[string]bool{}
		for _, n := range inUse {
			m[n] = true
		}
		left, err := s.Sweep(m)
		if err != nil {
			t.Fatal(err)
		}
		return left
	}
	if left := sweep(name); left != 1 {
		t.Errorf("%d unused packages stay within the grace time, want 1", left)
	}
	now = now.Add(Grace)
	if left := sweep(name); left != 0 || s.Has(other) || !s.Has(name) {
		t.Errorf("%d unused stay; the unused one: %v, the one in use: %v", left, s.Has(other), s.Has(name))
	}
	if left := sweep(); left != 1 { // used just now
		t.Errorf("%d stay", left)
	}
}

func TestFetch(t *testing.T) {
	s, err := OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var asked, failures atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("/packages/{name}", func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if failures.Add(-1) >= 0 {
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		s.ServeHTTP(w, r)
	})
	head := httptest.NewServer(mux)
	defer head.Close()
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(zipped(t, file{"top/w.py", "", 0o644}))
	}))
	defer web.Close()
	src := filepath.Join(t.TempDir(), "src.zip")
	if err := os.WriteFile(src, zipped(t, file{"top/m.py", "X = 1", 0o644}), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &Fetcher{Dir: filepath.Join(t.TempDir(), "a", "b"), Head: head.Client(), HeadURL: head.URL + "/packages", Web: web.Client(), pause: time.Millisecond}
	ctx := t.Context()
	if has, err := f.Has(ctx, name); has || err != nil {
		t.Fatalf("has %v, %v", has, err)
	}
	if err := f.Upload(ctx, name, src); err != nil {
		t.Fatal(err)
	}
	if has, err := f.Has(ctx, name); !has || err != nil {
		t.Fatalf("has %v, %v", has, err)
	}
	failures.Store(2)
	for uri, want := range map[string]string{
		Scheme + name: "top/ top/m.py", "file://" + src: "m.py", web.URL + "/x.zip": "w.py",
	} {
		for range 2 { // a second time replaces it
			if _, err := f.Fetch(ctx, uri); err != nil {
				t.Fatal(err)
			}
		}
		if got := tree(t, f.Path(uri)); got != want {
			t.Errorf("%s: tree %q, want %q", uri, got, want)
		}
		if err := f.Remove(uri); err != nil {
			t.Fatal(err)
		}
	}
	if got := tree(t, f.Dir); got != "" {
		t.Errorf("%s is left", got)
	}
	for uri, want := range map[string]string{
		Scheme + strings.Replace(name, "0", "2", 1): "404",
		"file:///nonexistent/x.zip":                 "must be readable on each node",
		"file://host/x.zip":                         "names a file of the node",
		"s3://b/x.zip":                              "does not read s3:// yet",
		"https://x/y.tar.xz":                        "does not unpack others yet",
		"gcs://x.zip":                               "not the URI of an uploaded package",
		"x.zip":                                     "no URI",
	} {
		_, err := f.Fetch(ctx, uri)
		var e *fault.Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", uri, err, want)
		}
	}
	asked.Store(0)
	failures.Store(1000)
	if _, err := f.Fetch(ctx, Scheme+name); err == nil || !strings.Contains(err.Error(), "not now") || asked.Load() != attempts {
		t.Errorf("error %v after %d attempts", err, asked.Load())
	}
	over, cancel := context.WithCancelCause(ctx)
	cancel(errors.New("given up"))
	if _, err := f.Fetch(over, Scheme+name); err == nil {
		t.Error("a cancelled fetch went on")
	}
	if got := tree(t, f.Dir); got != "" {
		t.Errorf("failures left %s", got)
	}
}
