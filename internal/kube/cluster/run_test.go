package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gray/internal/kube/client"

	"github.com/gorilla/websocket"
)

// aCluster is one whose API server is made up: it has a head's pod, and runs on this machine what is to be run there.
func aCluster(t *testing.T) *Cluster {
	t.Helper()
	pod := `{"metadata": {"name": "h", "labels": {"app": "ray", "component": "ray-head"}}, "status": {` + ready + `}}`
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/namespaces/lab/pods", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"items": [%s]}`, pod) })
	mux.HandleFunc("GET /api/v1/namespaces/lab/services", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{}`) })
	mux.HandleFunc("GET /apis/apps/v1/namespaces/lab/deployments", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{}`) })
	up := websocket.Upgrader{Subprotocols: []string{"v5.channel.k8s.io"}}
	var running sync.WaitGroup
	t.Cleanup(running.Wait)
	mux.HandleFunc("GET /api/v1/namespaces/lab/pods/h/exec", func(w http.ResponseWriter, r *http.Request) {
		running.Add(1)
		defer running.Done()
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		execute(t, conn, r.URL.Query()["command"])
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	config := filepath.Join(t.TempDir(), "config")
	text := fmt.Sprintf("clusters: [{name: c, cluster: {server: %q}}]\ncontexts: [{name: x, context: {cluster: c, namespace: lab}}]\ncurrent-context: x\n", srv.URL)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := client.Load(client.Options{Kubeconfig: config})
	if err != nil {
		t.Fatal(err)
	}
	return &Cluster{Client: c, Name: "ray", Out: io.Discard}
}

// execute is a kubelet: a program whose streams are the channels of a WebSocket.
func execute(t *testing.T, conn *websocket.Conn, command []string) {
	if command[0] == "python" {
		command[0] = "python3"
		if p := os.Getenv("GRAY_PYTHON"); p != "" {
			command[0] = p
		}
		if len(command) != 3 {
			t.Errorf("the URL of the launcher, which an API server may log, tells of the program: %q", command[3:])
		}
	}
	cmd := exec.Command(command[0], command[1:]...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Error(err)
		return
	}
	var mu sync.Mutex
	cmd.Stdout, cmd.Stderr = channel{conn, &mu, 1}, channel{conn, &mu, 2}
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return
	}
	var reader sync.WaitGroup
	reader.Go(func() {
		defer in.Close()
		for {
			_, m, err := conn.ReadMessage()
			if err != nil || len(m) == 0 || m[0] != 0 {
				return
			}
			if _, err := in.Write(m[1:]); err != nil {
				return
			}
		}
	})
	status := `{"status": "Success"}`
	var exit *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &exit) {
		status = fmt.Sprintf(`{"status": "Failure", "details": {"causes": [{"reason": "ExitCode", "message": "%d"}]}}`, exit.ExitCode())
	}
	io.WriteString(channel{conn, &mu, 3}, status)
	conn.Close()
	reader.Wait()
}

type channel struct {
	conn   *websocket.Conn
	mu     *sync.Mutex
	number byte
}

func (c channel) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.conn.WriteMessage(websocket.BinaryMessage, append([]byte{c.number}, p...)) // nobody may read any more; the program goes on
	return len(p), nil
}

// program writes a script and gives what runs it.
func program(t *testing.T, text string) Program {
	t.Helper()
	path := filepath.Join(t.TempDir(), "main.py")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Program{Script: path}
}

func TestRunCarriesInputOutputAndStatus(t *testing.T) {
	c := aCluster(t)
	p := program(t, "import os, sys\nprint(list(map(os.fsencode, sys.argv)), len(sys.stdin.read()))\nprint('why', file=sys.stderr)\nsys.exit(7)\n")
	var out, complaint strings.Builder
	p.Args, p.In, p.Out, p.Err = []string{"-x", "a b", "\xff"}, strings.NewReader(strings.Repeat("x", 300_000)), &out, &complaint
	err := c.Run(t.Context(), p)
	var exit *client.ExitError
	if !errors.As(err, &exit) || exit.Status != 7 {
		t.Errorf("error %v, want status 7", err)
	}
	if got, want := out.String(), `[b'main.py', b'-x', b'a b', b'\xff'] 300000`+"\n"; got != want || complaint.String() != "why\n" {
		t.Errorf("printed %q and %q, want %q", got, complaint.String(), want)
	}
}

func TestRunSendsAFolder(t *testing.T) {
	c := aCluster(t)
	folder := t.TempDir()
	for name, text := range map[string]string{"sub/main.py": "import os\nprint(os.path.getsize('big'), open('link').read(), sorted(os.listdir('.')), os.environ['RAY_JOB_CONFIG_JSON_ENV_VAR'])\n", "big": strings.Repeat("y", 2_000_000), "small": "s", ".git/config": "no", "__pycache__/x": "no"} {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("small", filepath.Join(folder, "link")); err != nil {
		t.Fatal(err)
	}
	for _, script := range []string{"sub/main.py", filepath.Join(folder, "sub", "main.py")} {
		var out strings.Builder
		p := Program{Script: script, Folder: folder, Env: "{}", Out: &out, Err: &out}
		if err := c.Run(t.Context(), p); err != nil {
			t.Fatal(err, out.String())
		}
		if got, want := out.String(), "2000000 s ['big', 'link', 'small', 'sub'] {}\n"; got != want {
			t.Errorf("printed %q, want %q", got, want)
		}
	}
	for _, script := range []string{"no.py", "../main.py", "sub"} {
		if err := c.Run(t.Context(), Program{Script: script, Folder: folder}); err == nil || !strings.Contains(err.Error(), "there is no program") {
			t.Errorf("script %s: %v", script, err)
		}
	}
	if err := c.Run(t.Context(), Program{Script: folder}); err == nil || !strings.Contains(err.Error(), "is no file") {
		t.Errorf("a folder as script: %v", err)
	}
}

// waits tells where it is and goes on until it is interrupted.
const waits = `
import json, os, sys, threading
try:
    print(json.dumps([os.getpid(), os.getcwd()]), flush=True)
    threading.Event().wait(600)
except KeyboardInterrupt:
    sys.exit(3)
`

// started reads what waits tells, and has the rest read, too.
func started(t *testing.T, r io.Reader) (pid int, folder string) {
	t.Helper()
	var said []any
	if err := json.NewDecoder(r).Decode(&said); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, r) // ends with the pipe
	return int(said[0].(float64)), said[1].(string)
}

// gone waits for the end of a program and its folder: aCluster's cleanup waits for the launcher, which has removed both.
func gone(t *testing.T, pid int, folder string) {
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the program %d is still there: %v", pid, err)
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("its folder %s is still there: %v", folder, err)
	}
}

func TestRunPassesSignalsOn(t *testing.T) {
	for _, tc := range []struct {
		name    string
		ignores string
		signals []os.Signal
		want    int
	}{
		{"Ctrl-C", "", []os.Signal{os.Interrupt}, 3},
		{"SIGTERM", "", []os.Signal{syscall.SIGTERM}, 128 + 15},
		{"the third kills", "import signal\nsignal.signal(2, signal.SIG_IGN)\n", []os.Signal{os.Interrupt, os.Interrupt, os.Interrupt}, 128 + 9},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := aCluster(t)
			p := program(t, tc.ignores+waits)
			r, w := io.Pipe()
			signals := make(chan os.Signal)
			p.Out, p.Err, p.Signals = w, io.Discard, signals
			done := make(chan error, 1)
			go func() { done <- c.Run(t.Context(), p) }()
			pid, folder := started(t, r)
			for _, s := range tc.signals {
				signals <- s
			}
			err := <-done
			w.Close()
			var exit *client.ExitError
			if !errors.As(err, &exit) || exit.Status != tc.want {
				t.Errorf("error %v, want status %d", err, tc.want)
			}
			gone(t, pid, folder)
		})
	}
}

// atEnd reads nothing, and tells so.
type atEnd func()

func (f atEnd) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

// A program need not read its input: signals and the user's end must not wait behind that.
func TestInputThatIsNotReadHoldsNothingUp(t *testing.T) {
	for _, tc := range []struct {
		name  string
		leave bool
		want  int
	}{
		{"Ctrl-C", false, 3},
		{"the user is gone", true, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var pid int
			var folder string
			t.Run("connection", func(t *testing.T) { // its clean-up waits for the launcher's end
				c := aCluster(t)
				p := program(t, waits)
				r, w := io.Pipe()
				signals, sent := make(chan os.Signal), make(chan struct{})
				p.In = io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20)), atEnd(func() { close(sent) }))
				p.Out, p.Err, p.Signals = w, io.Discard, signals
				ctx, leave := context.WithCancelCause(t.Context())
				done := make(chan error, 1)
				go func() { done <- c.Run(ctx, p) }()
				pid, folder = started(t, r)
				late := time.AfterFunc(30*time.Second, func() {
					t.Error("the program goes on")
					_ = syscall.Kill(pid, syscall.SIGKILL)
				})
				t.Cleanup(func() { late.Stop() })
				<-sent
				if tc.leave {
					leave(io.ErrClosedPipe)
				} else {
					signals <- os.Interrupt
				}
				err := <-done
				leave(nil)
				w.Close()
				var exit *client.ExitError
				if errors.As(err, &exit) == tc.leave || exit != nil && exit.Status != tc.want {
					t.Errorf("error %v, want status %d", err, tc.want)
				}
			})
			gone(t, pid, folder)
		})
	}
}

func TestAProgramWhoseUserHasGoneIsEnded(t *testing.T) {
	var pid int
	var folder string
	t.Run("connection", func(t *testing.T) { // its clean-up waits for the launcher's end
		c := aCluster(t)
		p := program(t, waits)
		r, w := io.Pipe()
		p.Out, p.Err = w, io.Discard
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx, p) }()
		pid, folder = started(t, r)
		cancel(io.ErrClosedPipe)
		if err := <-done; !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("error %v, want the cause of the end", err)
		}
		w.Close()
	})
	gone(t, pid, folder)
}

func TestAnInterruptWhileFilesAreSentGivesUp(t *testing.T) {
	signals, urgent, over := make(chan os.Signal), make(chan []byte, 8), make(chan error, 1)
	go watchSignals(t.Context(), signals, make(chan struct{}), urgent, func(err error) { over <- err })
	signals <- os.Interrupt
	if err := <-over; !errors.Is(err, errInterrupted) || len(urgent) > 0 {
		t.Errorf("gave %v, and %d signals are passed on", err, len(urgent))
	}
	sent := make(chan struct{})
	close(sent)
	go watchSignals(t.Context(), signals, sent, urgent, func(err error) { over <- err })
	for range 4 {
		signals <- syscall.SIGTERM
	}
	<-over
	for _, want := range []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM, syscall.SIGKILL} {
		if got := string(<-urgent); got != strconv.Itoa(int(want)) {
			t.Errorf("passed on %s, want %d", got, want)
		}
	}
}
