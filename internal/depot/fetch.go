package depot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"gray/internal/core/fault"
)

// MaxUnpacked is the most that one package may take on a node's disk.
const MaxUnpacked = 16 << 30

// Fetcher brings packages to a folder of a node, each into a folder of its own.
type Fetcher struct {
	Dir string // made when it is needed
	// Own opens a package of the store where that is in this process; else nil, and Head is asked.
	Own func(name string) (*os.File, error)
	// Head are requests to the head at HeadURL, authenticated.
	Head    *http.Client
	HeadURL string
	// Web is for https URIs; nil is http.DefaultClient.
	Web *http.Client

	pause time.Duration // tests shorten firstPause
}

// Path is the folder of a package's content once it is fetched.
func (f *Fetcher) Path(uri string) string {
	if name, ok := NameOf(uri); ok {
		stem, _, _ := strings.Cut(name, ".")
		return filepath.Join(f.Dir, stem)
	}
	scheme, _, _ := strings.Cut(uri, "://")
	sum := sha256.Sum256([]byte(uri))
	return filepath.Join(f.Dir, scheme+"_"+hex.EncodeToString(sum[:20]))
}

// Supported tells why a URI can never be fetched, or nil.
func Supported(uri string) error {
	scheme, _, ok := strings.Cut(uri, "://")
	switch {
	case !ok:
		return uriError(uri, fault.RuntimeEnv, "it is no URI", nil)
	case scheme == "gcs":
		if _, ok := NameOf(uri); !ok {
			return uriError(uri, fault.RuntimeEnv, "it is not the URI of an uploaded package, gcs://_ray_pkg_<hash>.zip", nil)
		}
	case scheme != "file" && scheme != "https":
		return uriError(uri, fault.NotImplemented, "packages are read from gcs://, file:// and https:// URIs only; Gray does not read "+scheme+":// yet", nil)
	}
	if slices.ContainsFunc(endings, func(end string) bool { return strings.HasSuffix(uri, end) }) {
		return nil
	}
	return uriError(uri, fault.NotImplemented, "packages are .zip, .tar.gz and .tgz archives; Gray does not unpack others yet", nil)
}

func uriError(uri string, kind fault.Kind, detail string, err error) error {
	return &fault.Error{Op: "set up runtime environment", Ref: uri, Kind: kind, Detail: detail, Err: err}
}

// Fetch unpacks a package at its Path and returns the bytes that it takes there. What is there already of a former,
// interrupted attempt is replaced.
func (f *Fetcher) Fetch(ctx context.Context, uri string) (size int64, err error) {
	if err := Supported(uri); err != nil {
		return 0, err
	}
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return 0, uriError(uri, fault.System, "its folder cannot be made", err)
	}
	archive, err := f.archive(ctx, uri)
	if err != nil {
		return 0, err
	}
	defer archive.Close()
	path := f.Path(uri)
	tmp := path + part
	if err := errors.Join(os.RemoveAll(tmp), os.RemoveAll(path)); err != nil {
		return 0, uriError(uri, fault.System, "what is left of it cannot be removed", err)
	}
	_, own := NameOf(uri)
	if size, err = Unpack(archive, uri, tmp, !own, MaxUnpacked); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return 0, uriError(uri, fault.RuntimeEnv, "the package cannot be unpacked", errors.Join(err, os.RemoveAll(tmp)))
	}
	return size, nil
}

// Remove removes a package's folder.
func (f *Fetcher) Remove(uri string) error { return os.RemoveAll(f.Path(uri)) }

// archive opens a package's archive.
func (f *Fetcher) archive(ctx context.Context, uri string) (*os.File, error) {
	if name, ok := NameOf(uri); ok {
		if f.Own != nil {
			return f.Own(name)
		}
		return f.download(ctx, f.Head, f.HeadURL+"/"+name, uri)
	}
	if strings.HasPrefix(uri, "https://") {
		client := f.Web
		if client == nil {
			client = http.DefaultClient
		}
		return f.download(ctx, client, uri, uri)
	}
	u, err := url.Parse(uri)
	if err != nil || u.Host != "" && u.Host != "localhost" {
		return nil, uriError(uri, fault.RuntimeEnv, "a file URI names a file of the node: file:///folder/package.zip", err)
	}
	file, err := os.OpenFile(u.Path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // what is no file must not make this wait
	if err != nil {
		return nil, uriError(uri, fault.RuntimeEnv, "it must be readable on each node", err)
	}
	if st, err := file.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, uriError(uri, fault.RuntimeEnv, "it is not a file", errors.Join(err, file.Close()))
	}
	return file, nil
}

// Waits between attempts at a download.
const (
	attempts   = 4
	firstPause = 200 * time.Millisecond
)

// download gets an archive into a file without a name, and tries again where another attempt may fare better.
func (f *Fetcher) download(ctx context.Context, client *http.Client, from, uri string) (*os.File, error) {
	file, err := os.CreateTemp(f.Dir, "download-*"+part)
	if err != nil {
		return nil, uriError(uri, fault.System, "", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, uriError(uri, fault.System, "", errors.Join(err, file.Close()))
	}
	pause := f.pause
	if pause == 0 {
		pause = firstPause
	}
	for k := 1; ; k++ {
		again, err := get(ctx, client, from, file)
		if err == nil {
			return file, nil
		}
		if !again || k == attempts || ctx.Err() != nil {
			return nil, uriError(uri, fault.RuntimeEnv, "it cannot be downloaded", errors.Join(err, file.Close()))
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
		}
		pause *= 4
	}
}

func get(ctx context.Context, client *http.Client, from string, to *os.File) (again bool, err error) {
	if err := to.Truncate(0); err != nil {
		return false, err
	}
	if _, err := to.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, http.NoBody)
	if err != nil {
		return false, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return true, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // what it says is a help, no more
		return resp.StatusCode >= 500, fmt.Errorf("HTTP status %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	n, err := io.Copy(to, io.LimitReader(resp.Body, MaxPackage+1))
	if err == nil && n > MaxPackage {
		return false, fmt.Errorf("it has more than %d bytes", int64(MaxPackage))
	}
	return true, err
}

// Upload sends a package to the head's store, unless it is there.
func (f *Fetcher) Upload(ctx context.Context, name, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return uriError(Scheme+name, fault.RuntimeEnv, "", err)
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return uriError(Scheme+name, fault.RuntimeEnv, "", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, f.HeadURL+"/"+name, file)
	if err != nil {
		return uriError(Scheme+name, fault.System, "", err)
	}
	req.ContentLength = st.Size()
	req.GetBody = func() (io.ReadCloser, error) { return os.Open(path) } // where a connection turns out to be closed
	return f.ask(req, name)
}

// Has asks the head whether it has a package.
func (f *Fetcher) Has(ctx context.Context, name string) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, f.HeadURL+"/"+name, http.NoBody)
	if err != nil {
		return false, uriError(Scheme+name, fault.System, "", err)
	}
	resp, err := f.Head.Do(req)
	if err != nil {
		return false, uriError(Scheme+name, fault.System, "the head cannot be asked for it", err)
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK, nil
}

func (f *Fetcher) ask(req *http.Request, name string) error {
	resp, err := f.Head.Do(req)
	if err != nil {
		return uriError(Scheme+name, fault.System, "it cannot be sent to the head", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // what it says is a help, no more
		return uriError(Scheme+name, fault.System, fmt.Sprintf("the head does not take it: HTTP status %s: %s", resp.Status, strings.TrimSpace(string(text))), nil)
	}
	return nil
}
