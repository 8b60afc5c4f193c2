package depot

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// entry is a file or folder of an archive.
type entry struct {
	name string // with slashes
	dir  bool
	mode os.FileMode
	open func() (io.ReadCloser, error)
}

// Unpack unpacks an archive, whose kind its name tells, into the new folder dir, and returns the bytes that it takes. With
// strip, a single folder that holds all of it is left out. The archive is not trusted: no entry gets outside of dir, and
// it may not grow beyond limit.
func Unpack(f *os.File, name, dir string, strip bool, limit int64) (size int64, err error) {
	u := &unpacker{dir: dir, left: limit, limit: limit}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return 0, err
	}
	switch {
	case strings.HasSuffix(name, ".tar.gz"), strings.HasSuffix(name, ".tgz"):
		err = u.tar(f, strip)
	default:
		err = u.zip(f, strip)
	}
	return limit - u.left, err
}

type unpacker struct {
	dir   string
	limit int64
	left  int64
}

func (u *unpacker) zip(f *os.File, strip bool) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	z, err := zip.NewReader(f, st.Size())
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return err
	}
	names := make([]string, 0, len(z.File))
	for _, e := range z.File {
		names = append(names, e.Name)
	}
	top := ""
	if strip {
		top = single(names)
	}
	for _, e := range z.File {
		mode := e.Mode()
		if mode&os.ModeSymlink != 0 {
			mode = 0o644 // a file that holds the path, as unpackers do that know no links
		}
		if err := u.add(entry{e.Name, strings.HasSuffix(e.Name, "/"), mode, e.Open}, top); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) tar(f *os.File, strip bool) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil { // it may just have been written
		return err
	}
	top := ""
	if strip {
		var names []string
		err := readTar(f, func(e entry) error { names = append(names, e.name); return nil })
		if err != nil {
			return err
		}
		top = single(names)
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	return readTar(f, func(e entry) error { return u.add(e, top) })
}

func readTar(f io.Reader, visit func(entry) error) error {
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	t := tar.NewReader(z)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return err
		}
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeDir:
		case tar.TypeXGlobalHeader:
			continue
		default:
			return fmt.Errorf("%q is neither a file nor a folder", h.Name)
		}
		e := entry{h.Name, h.Typeflag == tar.TypeDir, h.FileInfo().Mode(), func() (io.ReadCloser, error) { return io.NopCloser(t), nil }}
		if err := visit(e); err != nil {
			return err
		}
	}
}

// single is the one folder at the top that holds everything, with a slash, or "".
func single(names []string) string {
	top := ""
	for _, name := range names {
		first, _, ok := strings.Cut(strings.TrimPrefix(name, "./"), "/")
		if first == "" {
			continue
		}
		if !ok || top != "" && first != top {
			return ""
		}
		top = first
	}
	if top == "" {
		return ""
	}
	return top + "/"
}

// add unpacks one entry.
func (u *unpacker) add(e entry, top string) error {
	name := strings.TrimPrefix(strings.TrimPrefix(e.name, "./"), top)
	name = strings.TrimSuffix(name, "/")
	if name == "" {
		return nil
	}
	if !filepath.IsLocal(name) || strings.ContainsAny(name, "\\\x00") {
		return fmt.Errorf("%q is not the path of a file in the package", e.name)
	}
	path := filepath.Join(u.dir, filepath.FromSlash(name))
	if e.dir {
		return os.MkdirAll(path, 0o700)
	}
	if !e.mode.IsRegular() {
		return fmt.Errorf("%q is neither a file nor a folder", e.name)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	r, err := e.open()
	if err != nil {
		return err
	}
	defer r.Close()
	// Exclusively: two entries of one name would be told apart by their order alone.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, e.mode.Perm()&0o755|0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(r, u.left+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if u.left -= n; u.left < 0 {
		return fmt.Errorf("it unpacks to more than %d bytes", u.limit)
	}
	return nil
}
