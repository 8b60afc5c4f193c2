package client

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// write makes a file in a new folder.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// config is a kubeconfig of one context.
func config(server, user string) string {
	return fmt.Sprintf("clusters: [{name: c, cluster: {server: %q}}]\nusers: [{name: ann, user: %s}]\n"+
		"contexts: [{name: here, context: {cluster: c, user: ann, namespace: lab}}]\ncurrent-context: here\n", server, user)
}

// alone keeps this machine's own kubeconfig and pod out of a test.
func alone(t *testing.T) (home string) {
	t.Helper()
	home = t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("KUBECONFIG", "")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for _, v := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		t.Setenv(v, "")
	}
	return home
}

func load(t *testing.T, server, user string) *Client {
	t.Helper()
	alone(t)
	c, err := Load(Options{Kubeconfig: write(t, "config", config(server, user))})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mentions(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that says %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q is more than a line", err)
	}
}

func TestRefusalsAreSentences(t *testing.T) {
	forbidden := func(message string) string {
		return fmt.Sprintf(`{"kind":"Status","status":"Failure","reason":"Forbidden","code":403,"message":%q}`, message)
	}
	for _, tc := range []struct {
		name string
		code int
		body string
		want []string
	}{
		{"expired", 401, `{"kind":"Status","reason":"Unauthorized","message":"Unauthorized"}`, []string{"does not accept the credentials of \"ann\"", "log in again"}},
		{
			"no right", 403, forbidden(`deployments.apps "ray-head" is forbidden: User "ann" cannot patch resource "deployments" in API group "apps" in the namespace "lab"`),
			[]string{`user "ann" may not patch deployments.apps in namespace "lab"`, "-n", "edit"},
		},
		{
			"no right in the core group", 403, forbidden(`pods is forbidden: User "system:serviceaccount:lab:x" cannot list resource "pods" in API group "" in the namespace "lab"`),
			[]string{`user "system:serviceaccount:lab:x" may not list pods in namespace`},
		},
		{
			"quota", 403, forbidden(`services "ray-head" is forbidden: exceeded quota: small, requested: services=1, used: services=2, limited: services=2`),
			[]string{`quota "small" of namespace "lab" is used up`, "services=1", "have the quota raised"},
		},
		{
			"ending namespace", 403, forbidden(`services "ray-head" is forbidden: unable to create new content in namespace lab because it is being terminated`),
			[]string{"is being deleted"},
		},
		{
			"no namespace", 404, `{"kind":"Status","reason":"NotFound","message":"namespaces \"lab\" not found","details":{"name":"lab","kind":"namespaces"}}`,
			[]string{`there is no namespace "lab"`, "-n"},
		},
		{"something else", 404, "<html>no such page</html>", []string{"no Kubernetes API server"}},
		{"broken", 500, `{"kind":"Status","message":"etcd leader changed"}`, []string{"refuses", "etcd leader changed"}},
		{"a proxy", 502, "bad\ngateway", []string{"HTTP status 502: bad gateway"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tc.code)
				io.WriteString(w, tc.body)
			}))
			defer srv.Close()
			c := load(t, srv.URL, "{token: secret-token}")
			err := c.Get(t.Context(), c.Path("v1", "pods"), nil, &struct{}{})
			mentions(t, err, tc.want...)
			if strings.Contains(err.Error(), "secret-token") {
				t.Errorf("error %q holds the credential", err)
			}
			var refused *Error
			if !errors.As(err, &refused) || refused.Status != tc.code {
				t.Errorf("error %#v, want status %d", err, tc.code)
			}
			mentions(t, c.Exec(t.Context(), "pod", "c", []string{"true"}, nil, io.Discard, io.Discard), tc.want[0])
		})
	}
}

func TestServersThatCannotBeReached(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "https://" + l.Addr().String()
	l.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	for _, tc := range []struct{ name, server, want string }{
		{"nothing listens", closed, "connection refused"},
		{"another's certificate", secure.URL, "certificate that is not of this cluster"},
		{"no such host", "https://no-such-host.invalid", "can't be found"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			start := time.Now()
			c := load(t, tc.server, "{token: t}")
			mentions(t, c.Get(t.Context(), "/api", nil, nil), tc.want, `context "here"`, "check")
			mentions(t, c.Exec(t.Context(), "pod", "c", []string{"true"}, nil, io.Discard, io.Discard), tc.want)
			if took := time.Since(start); took > 2*answerTimeout {
				t.Errorf("two requests took %v", took)
			}
		})
	}
	c := load(t, secure.URL, "{token: t}")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrClosedPipe)
	if err := c.Get(ctx, "/api", nil, nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a call whose context has ended gives %v, want its cause", err)
	}
}

func TestConfigFiles(t *testing.T) {
	first := config("https://one", "{token: a}")
	second := strings.NewReplacer("here", "there", "one", "two", "lab", "hall").Replace(first)
	for _, tc := range []struct {
		name    string
		files   []string
		options Options
		want    string // server, namespace; or what the error says
	}{
		{"one file", []string{first}, Options{}, "https://one lab"},
		{"another namespace", []string{first}, Options{Namespace: "other"}, "https://one other"},
		{"no namespace", []string{strings.Replace(first, ", namespace: lab", "", 1)}, Options{}, "https://one default"},
		{"of two the first wins", []string{first, second}, Options{}, "https://one lab"},
		{"a context of the second has the first's cluster of that name", []string{first, second}, Options{Context: "there"}, "https://one hall"},
		{"no such context", []string{first}, Options{Context: "x"}, `no context "x"; it has: here`},
		{"no current context", []string{strings.Replace(first, "current-context: here", "", 1)}, Options{}, "no current context; choose one by --context: here"},
		{"no YAML", []string{"a: [b"}, Options{}, "no valid YAML"},
		{"no cluster", []string{strings.Replace(first, "name: c,", "name: d,", 1)}, Options{}, `cluster "c", which has no server`},
		{"no user", []string{strings.Replace(first, "name: ann,", "name: bob,", 1)}, Options{}, `user "ann", who is not in that file`},
		{"a server without a scheme", []string{config("host:6443", "{}")}, Options{}, "no http(s) address"},
		{"empty", []string{""}, Options{}, "no Kubernetes cluster is configured"},
		{"a certificate that is none", []string{config("https://one", "{client-certificate-data: AAAA, client-key-data: AAAA}")}, Options{}, "client certificate"},
		{"a file that is not there", []string{config("https://one", "{client-certificate: no.crt}")}, Options{}, "no such file"},
		{"auth-provider", []string{config("https://one", "{auth-provider: {name: gcp}}")}, Options{}, "given up"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			alone(t)
			paths := []string{"/no/such/file"}
			for _, text := range tc.files {
				paths = append(paths, write(t, "config", text))
			}
			t.Setenv("KUBECONFIG", strings.Join(paths, string(filepath.ListSeparator)))
			c, err := Load(tc.options)
			if err != nil {
				mentions(t, err, tc.want)
				return
			}
			if got := c.Server() + " " + c.Namespace; got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestWithoutConfig(t *testing.T) {
	home := alone(t)
	_, err := Load(Options{})
	mentions(t, err, "no Kubernetes cluster is configured", home+"/.kube/config does not exist")
	_, err = Load(Options{Kubeconfig: "/no/such/file"})
	mentions(t, err, "/no/such/file", "no such file")

	old := accountDir
	defer func() { accountDir = old }()
	accountDir = t.TempDir()
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
	t.Setenv("KUBERNETES_SERVICE_PORT", "443")
	_, err = Load(Options{})
	mentions(t, err, "no ServiceAccount token", "automountServiceAccountToken")

	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%q", r.Header.Get("Authorization"))
	}))
	defer srv.Close()
	for name, text := range map[string]string{"token": "first\n", "namespace": "lab", "ca.crt": pemOf(srv)} {
		if err := os.WriteFile(filepath.Join(accountDir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	host, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	t.Setenv("KUBERNETES_SERVICE_HOST", host)
	t.Setenv("KUBERNETES_SERVICE_PORT", port)
	c, err := Load(Options{})
	if err != nil || c.Namespace != "lab" {
		t.Fatalf("a pod's client: %+v, %v", c, err)
	}
	for _, want := range []string{"first", "renewed"} {
		if err := os.WriteFile(filepath.Join(accountDir, "token"), []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		var got string
		if err := c.Get(t.Context(), "/", nil, &got); err != nil || got != "Bearer "+want {
			t.Errorf("sent %q, %v; want the token that the file has now", got, err)
		}
	}
}

func TestCredentialsOfAProgram(t *testing.T) {
	calls := filepath.Join(t.TempDir(), "calls")
	program := write(t, "login", "#!/bin/sh\necho x >> "+calls+"\n"+
		`n=$(wc -l < `+calls+`); echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"t'$n'"}}'`)
	if err := os.Chmod(program, 0o700); err != nil {
		t.Fatal(err)
	}
	var seen []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Get("Authorization"))
		if len(seen) == 3 {
			w.WriteHeader(http.StatusUnauthorized) // t1 has expired before its time
			return
		}
		io.WriteString(w, "{}")
	}))
	defer srv.Close()
	user := "{exec: {apiVersion: client.authentication.k8s.io/v1, command: " + program + ", interactiveMode: Never}}"
	c := load(t, srv.URL, user)
	for range 3 {
		if err := c.Get(t.Context(), "/", nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := strings.Join(seen, ","), "Bearer t1,Bearer t1,Bearer t1,Bearer t2"; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
	c = load(t, srv.URL, "{exec: {apiVersion: v, command: no-such-login, installHint: get it from the shop}}")
	mentions(t, c.Get(t.Context(), "/", nil, nil), "no-such-login", "get it from the shop", "log in")
	c = load(t, srv.URL, "{exec: {apiVersion: v, command: echo, interactiveMode: Never}}")
	mentions(t, c.Get(t.Context(), "/", nil, nil), "`echo`", "no JSON")
}

// pod serves WebSockets as API servers do.
func pod(t *testing.T, serve func(*websocket.Conn, url.Values)) *Client {
	t.Helper()
	up := websocket.Upgrader{Subprotocols: []string{protocolV5, protocolV4}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		serve(conn, r.URL.Query())
	}))
	t.Cleanup(srv.Close)
	return load(t, srv.URL, "{token: t}")
}

func TestExecCarriesStreamsAndStatus(t *testing.T) {
	c := pod(t, func(conn *websocket.Conn, q url.Values) {
		if q["command"][1] != "a b" || q.Get("stdin") != "true" || q.Get("container") != "main" {
			t.Errorf("asked for %v", q)
		}
		var in []byte
		for {
			_, m, err := conn.ReadMessage()
			if err != nil || len(m) > maxData+1 {
				t.Errorf("a message of %d bytes, %v", len(m), err)
				return
			}
			if m[0] == channelClose {
				break
			}
			in = append(in, m[1:]...)
		}
		conn.WriteMessage(websocket.BinaryMessage, append([]byte{channelStdout}, in...))
		conn.WriteMessage(websocket.BinaryMessage, []byte{channelStdout}) // as servers do: nothing on a channel
		conn.WriteMessage(websocket.BinaryMessage, []byte("\x02why"))
		conn.WriteMessage(websocket.BinaryMessage, []byte("\x03"+`{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}`))
	})
	text := strings.Repeat("0123456789", 50_000)
	var out, complaint strings.Builder
	err := c.Exec(t.Context(), "p", "main", []string{"echo", "a b"}, strings.NewReader(text), &out, &complaint)
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Status != 7 {
		t.Errorf("error %v, want exit status 7", err)
	}
	if out.String() != text || complaint.String() != "why" {
		t.Errorf("stdout has %d of %d bytes, stderr is %q", out.Len(), len(text), complaint.String())
	}
}

func TestExecThatBreaksOff(t *testing.T) {
	c := pod(t, func(*websocket.Conn, url.Values) {})
	err := c.Exec(t.Context(), "p", "main", []string{"x"}, nil, io.Discard, io.Discard)
	mentions(t, err, "connection to pod p", "broke off", "ray kube status")
	c = pod(t, func(conn *websocket.Conn, _ url.Values) {
		conn.WriteMessage(websocket.BinaryMessage, []byte("\x03"+`{"status":"Failure","message":"container not found (\"main\")"}`))
	})
	mentions(t, c.Exec(t.Context(), "p", "main", []string{"x"}, nil, io.Discard, io.Discard), "can't be run in pod p", "container not found")
}

func TestForward(t *testing.T) {
	c := pod(t, func(conn *websocket.Conn, q url.Values) {
		port := q.Get("ports")
		conn.WriteMessage(websocket.BinaryMessage, []byte{0, 0x11, 0x27})
		conn.WriteMessage(websocket.BinaryMessage, []byte{1, 0x11, 0x27})
		if port == "2" {
			conn.WriteMessage(websocket.BinaryMessage, []byte("\x01connection refused"))
			return
		}
		for {
			_, m, err := conn.ReadMessage()
			if err != nil {
				return
			}
			conn.WriteMessage(websocket.BinaryMessage, append([]byte{0}, strings.ToUpper(string(m[1:]))...))
		}
	})
	ours, theirs := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- c.Forward(t.Context(), "p", 10001, theirs) }()
	for _, word := range []string{"hello", "again"} {
		io.WriteString(ours, word)
		got := make([]byte, len(word))
		if _, err := io.ReadFull(ours, got); err != nil || string(got) != strings.ToUpper(word) {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	ours.Close()
	if err := <-done; err != nil {
		t.Errorf("a connection that our side ends: %v", err)
	}
	ours, theirs = net.Pipe()
	go func() { done <- c.Forward(t.Context(), "p", 2, theirs) }()
	if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("our side reads %v, want EOF", err)
	}
	mentions(t, <-done, "pod p, port 2", "connection refused")
	ctx, cancel := context.WithCancel(t.Context())
	_, theirs = net.Pipe()
	go func() { done <- c.Forward(ctx, "p", 10001, theirs) }()
	cancel()
	<-done // it ends
}

func TestAnswersThatAreNoJSON(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }))
	defer srv.Close()
	c := load(t, srv.URL, "{}")
	var v map[string]any
	mentions(t, c.Get(t.Context(), "/", nil, &v), "is it an API server?")
	var syntax *json.SyntaxError
	if err := c.Get(t.Context(), "/", nil, &v); !errors.As(err, &syntax) {
		t.Errorf("%v does not wrap its cause", err)
	}
}

func pemOf(srv *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
}
