package cluster

import (
	"archive/tar"
	"context"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"gray/internal/kube/client"
)

// launcher is the program that runs another one in the pod. It is sent with each run, so that any image with a Python will do.
//
//go:embed launch.py
var launcher string

// beat is how often the launcher hears that somebody is there.
const beat = 15 * time.Second

// Program is what Run runs.
type Program struct {
	Script  string   // a file of this machine
	Args    []string // its arguments
	Folder  string   // to be sent along; "" = the script alone
	Env     string   // RAY_JOB_CONFIG_JSON_ENV_VAR
	In      io.Reader
	Out     io.Writer
	Err     io.Writer
	Signals <-chan os.Signal // to pass on
}

// Run copies a program into the head's pod and runs it there. A status other than 0 is a client.ExitError.
func (c *Cluster) Run(ctx context.Context, p Program) error {
	files, entry, err := p.files()
	if err != nil {
		return err
	}
	pod, err := c.headPod(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, w := io.Pipe()
	out := &messages{w: w}
	var senders sync.WaitGroup
	sent := make(chan struct{})
	senders.Go(func() {
		err := out.command(p, entry)
		if err == nil {
			err = out.files(files)
		}
		if err != nil {
			w.CloseWithError(err)
			return
		}
		close(sent)
	})
	urgent := make(chan []byte, 8)
	senders.Go(func() { out.signals(ctx, urgent) })
	senders.Go(func() { watchSignals(ctx, p.Signals, sent, urgent, cancel) })
	go func() { // ends with the input, or with the first write after the program's end
		select {
		case <-sent:
			out.input(p.In)
		case <-ctx.Done():
		}
	}()
	// The command is part of a URL, which the API server's audit log may keep: what may be secret goes as a message.
	err = c.Client.Exec(ctx, pod.Meta.Name, c.Name+"-head", []string{"python", "-c", launcher}, r, p.Out, p.Err)
	cancel(nil)
	r.CloseWithError(errEnded)
	senders.Wait()
	if out.failed != nil {
		return out.failed
	}
	return err
}

// errEnded: nobody reads messages any more.
var errEnded = errors.New("the program has ended")

// errInterrupted: the user has given up.
var errInterrupted = &client.ExitError{Status: 128 + int(syscall.SIGINT)}

// watchSignals has signals passed on. It gives up at the fourth, or at once while the program has not even been sent: the
// launcher ends what its connection leaves behind.
func watchSignals(ctx context.Context, from <-chan os.Signal, sent <-chan struct{}, urgent chan<- []byte, giveUp func(error)) {
	for count := 1; ; count++ {
		select {
		case <-ctx.Done():
			return
		case sig := <-from:
			number, _ := sig.(syscall.Signal)
			if count == 3 {
				number = syscall.SIGKILL
			}
			select {
			case <-sent:
				if count < 4 {
					urgent <- []byte(strconv.Itoa(int(number))) // has room for so many
					continue
				}
			default:
			}
			giveUp(errInterrupted)
			return
		}
	}
}

// signals sends signals, and tells the launcher that we are there.
func (m *messages) signals(ctx context.Context, urgent <-chan []byte) {
	t := time.NewTicker(beat)
	defer t.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			err = m.send('H', nil)
		case number := <-urgent:
			err = m.send('S', number)
		}
		if err != nil {
			return // the program has ended
		}
	}
}

// messages writes the launcher's messages.
type messages struct {
	mu     sync.Mutex
	w      io.Writer // guarded by mu
	failed error     // why the files can't be sent; read when the sender has ended
}

func (m *messages) send(kind byte, body []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)))
	_, err := m.w.Write(append(head, body...))
	return err
}

// Write is a piece of the files.
func (m *messages) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return len(p), m.send('F', p)
}

// input sends what the user types or pipes in.
func (m *messages) input(in io.Reader) {
	buf := make([]byte, 16<<10)
	for in != nil {
		n, err := in.Read(buf)
		if n > 0 && m.send('D', buf[:n]) != nil {
			return // the program has ended
		}
		if err != nil {
			break
		}
	}
	_ = m.send('E', nil) // as above
}

// command sends what is to run: the program's name and arguments, and its job's configuration.
func (m *messages) command(p Program, entry string) error {
	words := [][]byte{[]byte(entry)} // any bytes: in base64
	for _, a := range p.Args {
		words = append(words, []byte(a))
	}
	b, err := json.Marshal(map[string]any{"command": words, "job": p.Env})
	if err != nil {
		return err
	}
	return m.send('C', b)
}

// packed is one file to be sent.
type packed struct {
	name, path string
	info       fs.FileInfo
}

func (m *messages) files(files []packed) error {
	t := tar.NewWriter(m)
	for _, f := range files {
		switch err := add(t, f); {
		case errors.Is(err, errEnded):
			return err
		case err != nil:
			m.failed = fmt.Errorf("can't send %s: %w", f.path, err)
			return m.failed
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return m.send('F', nil)
}

func add(t *tar.Writer, f packed) error {
	link := ""
	if f.info.Mode()&fs.ModeSymlink != 0 {
		var err error
		if link, err = os.Readlink(f.path); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(f.info, link)
	if err != nil {
		return err
	}
	h.Name, h.Uname, h.Gname, h.Uid, h.Gid = f.name, "", "", 0, 0
	if err := t.WriteHeader(h); err != nil || !f.info.Mode().IsRegular() {
		return err
	}
	r, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.CopyN(t, r, f.info.Size())
	if errors.Is(err, io.EOF) {
		return errors.New("it became shorter while it was read")
	}
	return err
}

// files lists what is to be sent, and the script's name among it. As with Ray's working_dir, .git and __pycache__ stay here.
func (p *Program) files() ([]packed, string, error) {
	if p.Folder == "" {
		info, err := os.Stat(p.Script)
		if err != nil {
			return nil, "", fmt.Errorf("can't read the program: %w", err)
		}
		if !info.Mode().IsRegular() {
			return nil, "", fmt.Errorf("%s is no file; name a Python program, and the folder that it needs by --working-dir", p.Script)
		}
		name := filepath.Base(p.Script)
		return []packed{{name, p.Script, info}}, name, nil
	}
	entry, err := p.inside()
	if err != nil {
		return nil, "", err
	}
	var out []packed
	err = filepath.WalkDir(p.Folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(p.Folder, path)
		if err != nil || name == "." {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "__pycache__" || d.Name() == ".venv") {
			return filepath.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if m := info.Mode(); m.IsRegular() || m.IsDir() || m&fs.ModeSymlink != 0 { // no sockets and pipes
			out = append(out, packed{filepath.ToSlash(name), path, info})
		}
		return nil
	})
	if err != nil {
		return nil, "", fmt.Errorf("can't read the folder of --working-dir: %w", err)
	}
	return out, entry, nil
}

// inside is the script's path in the folder: as seen from here, or from there.
func (p *Program) inside() (string, error) {
	folder, err := filepath.Abs(p.Folder)
	if err != nil {
		return "", err
	}
	for _, path := range []string{p.Script, filepath.Join(p.Folder, p.Script)} {
		full, err := filepath.Abs(path)
		if err != nil {
			return "", err
		}
		rel, err := filepath.Rel(folder, full)
		if err != nil || rel == ".." || strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
			continue
		}
		if info, err := os.Stat(full); err == nil && info.Mode().IsRegular() {
			return filepath.ToSlash(rel), nil
		}
	}
	return "", fmt.Errorf("there is no program %s in the folder %s; give its path from here, or from there", p.Script, p.Folder)
}
