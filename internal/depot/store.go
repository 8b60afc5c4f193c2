// Package depot keeps packages of runtime environments, the archives of folders that a job's workers need, on disk and
// moves them: a Store at the head, which drivers' daemons fill and all daemons read, and Fetcher, which unpacks one into
// a folder of a node.
//
// A package's name holds the hash of its content, so one of a name is as good as another: the first to arrive stays.
// Which packages a node keeps is decided by core/packages. Sizes are bytes.
package depot

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"gray/internal/core/fault"
)

const (
	// Scheme is that of the URIs of packages in the Store: gcs://NAME.
	Scheme = "gcs://"
	// MaxPackage is the most that a package may have. Clients refuse larger ones earlier, with better advice.
	MaxPackage = 2 << 30
	// Grace is how long a package stays that no job refers to, in case its program is started again soon.
	Grace = 10 * time.Minute
	// maxUnused is the most that such packages may have together.
	maxUnused = 4 << 30
	part      = ".part"
)

// endings are those of archives that can be unpacked.
var endings = []string{".zip", ".tar.gz", ".tgz"}

// ValidName tells whether a package may have this name: it becomes a file's.
func ValidName(name string) bool {
	hash, ok := strings.CutPrefix(name, "_ray_pkg_")
	if !ok {
		return false
	}
	i := strings.IndexByte(hash, '.')
	if i < 0 || !slices.Contains(endings, hash[i:]) {
		return false
	}
	hash = hash[:i]
	return len(hash) >= 16 && len(hash) <= 64 && strings.Trim(hash, "0123456789abcdef") == ""
}

// NameOf is the name in a gcs:// URI.
func NameOf(uri string) (name string, ok bool) {
	name, ok = strings.CutPrefix(uri, Scheme)
	return name, ok && ValidName(name)
}

// Store is a folder of packages. Safe for concurrent use.
type Store struct {
	dir string
	now func() time.Time

	mu  sync.Mutex
	seq int // guarded by mu; numbers files that are being written
}

// OpenStore opens the store in dir, and makes it if it is missing. What a crash left half-written is removed.
func OpenStore(dir string) (*Store, error) {
	s := &Store{dir: dir, now: time.Now}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, storeError(dir, "", err)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, storeError(dir, "", err)
	}
	for _, e := range names {
		if strings.HasSuffix(e.Name(), part) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return nil, storeError(dir, "", err)
			}
		}
	}
	return s, nil
}

func storeError(ref, detail string, err error) error {
	return &fault.Error{Op: "package store", Ref: ref, Kind: fault.System, Detail: detail, Err: err}
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// Has tells whether a package is there; if so, it counts as used now.
func (s *Store) Has(name string) bool {
	if !ValidName(name) {
		return false
	}
	now := s.now()
	return os.Chtimes(s.path(name), now, now) == nil
}

// Put stores a package. One that is there already stays as it is.
func (s *Store) Put(name string, r io.Reader) (err error) {
	if !ValidName(name) {
		return storeError(name, "it is no package's name", nil)
	}
	if s.Has(name) {
		return nil
	}
	s.mu.Lock()
	s.seq++
	tmp := s.path(fmt.Sprintf("%s.%d%s", name, s.seq, part))
	s.mu.Unlock()
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return storeError(name, "", err)
	}
	defer func() {
		if err != nil {
			err = storeError(name, "", errors.Join(err, os.Remove(tmp)))
		}
	}()
	n, err := io.Copy(f, io.LimitReader(r, MaxPackage+1))
	if err == nil && n > MaxPackage {
		err = fmt.Errorf("it has more than %d bytes", int64(MaxPackage))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, s.path(name))
}

// Open opens a package for reading; a missing one is os.ErrNotExist.
func (s *Store) Open(name string) (*os.File, error) {
	if !s.Has(name) {
		return nil, storeError(name, "the head has no such package: it was never uploaded, or no job has used it for long", os.ErrNotExist)
	}
	return os.Open(s.path(name))
}

// Sweep removes packages that are not in use: those that were not used for the grace time, and the oldest where they are
// too large together. It returns how many packages that are not in use stay.
func (s *Store) Sweep(inUse map[string]bool) (left int, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return 0, storeError(s.dir, "", err)
	}
	var unused []os.FileInfo
	total := int64(0)
	for _, e := range entries {
		if !ValidName(e.Name()) || inUse[e.Name()] {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, storeError(e.Name(), "", err)
		}
		unused = append(unused, info)
		total += info.Size()
	}
	slices.SortFunc(unused, func(a, b os.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	var bad []error
	for _, info := range unused {
		if s.now().Sub(info.ModTime()) < Grace && total <= maxUnused {
			left++
			continue
		}
		total -= info.Size()
		if err := os.Remove(s.path(info.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			bad = append(bad, storeError(info.Name(), "", err))
		}
	}
	return left, errors.Join(bad...)
}

// ServeHTTP answers GET, HEAD and PUT of …/{name}.
func (s *Store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if !ValidName(name) {
		http.Error(w, "no package has such a name", http.StatusBadRequest)
		return
	}
	if r.Method == http.MethodPut {
		if err := s.Put(name, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
		return
	}
	f, err := s.Open(name)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	defer f.Close()
	http.ServeContent(w, r, "", time.Time{}, f)
}
