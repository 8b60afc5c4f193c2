package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"gray/internal/core/fault"
)

// vouching adds the route of tokens to a cluster: "pod-1" is let in, "later" can't be checked.
func vouching(log *logBuffer) func(*ServerConfig) {
	return func(c *ServerConfig) {
		verify := func(_ context.Context, credential string) (string, error) {
			switch credential {
			case "pod-1":
				return "s1/default", nil
			case "later":
				return "", &fault.Error{Op: "ask the API server", Kind: fault.System, Detail: "HTTP status 500"}
			default:
				return "", &fault.Error{Op: "check ServiceAccount token", Kind: fault.Auth, Detail: "it expired"}
			}
		}
		c.Mux.Handle(TokenRoute, Open, TokenHandler(c.Token, verify, slog.New(slog.NewTextHandler(log, nil))))
	}
}

func shows(text string) func(string) (string, error) {
	return func(string) (string, error) { return text, nil }
}

func TestAskToken(t *testing.T) {
	var log logBuffer
	c := newCluster(t, vouching(&log))
	tok, err := AskToken(ctx10(t), c.addr, TLSOn, shows("pod-1"))
	check(t, err)
	if !tok.Equal(secret) {
		t.Error("it is not the cluster's token")
	}
	_, err = AskToken(ctx10(t), c.addr, TLSOn, shows("forged"))
	wantError(t, err, fault.Auth, "show this pod's identity", c.addr, "it expired")
	_, err = AskToken(ctx10(t), c.addr, TLSOn, shows("later"))
	wantError(t, err, fault.System, "HTTP status 500")
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("a later try may succeed: %v", err)
	}
	if _, err := AskToken(ctx10(t), c.addr, TLSOff, shows("pod-1")); err == nil || !strings.Contains(err.Error(), "TLS only") {
		t.Errorf("without TLS: %v", err)
	}
	no := &fault.Error{Op: "show", Kind: fault.Auth, Detail: "no token is mounted"}
	if _, err := AskToken(ctx10(t), c.addr, TLSOn, func(string) (string, error) { return "", no }); !errors.Is(err, no) {
		t.Errorf("without a credential: %v", err)
	}
	if text := log.String(); strings.Contains(text, "pod-1") || strings.Contains(text, secret) || !strings.Contains(text, "s1/default") {
		t.Errorf("the log = %s; want who was let in, and no secret", text)
	}
	plain := newCluster(t, nil)
	_, err = AskToken(ctx10(t), plain.addr, TLSOn, shows("pod-1"))
	wantError(t, err, fault.Auth, "takes its token only", "RAY_AUTH_TOKEN")
}

// A credential that goes over the network in the clear is refused, so that no client gets used to it.
func TestTokenIsHandedOverBehindTLSOnly(t *testing.T) {
	c := newCluster(t, vouching(&logBuffer{}))
	resp, err := http.Post("http://"+c.addr+tokenPath, "application/json", strings.NewReader(`{"credential":"pod-1"}`))
	check(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	check(t, err)
	if resp.StatusCode != http.StatusForbidden || !bytes.Contains(text, []byte("TLS only")) || bytes.Contains(text, []byte(secret)) {
		t.Errorf("answer %d: %s", resp.StatusCode, text)
	}
}

func TestWrongCredentialsAreLimited(t *testing.T) {
	c := newCluster(t, vouching(&logBuffer{}))
	client := (&Dialer{always: true}).HTTPClient()
	defer client.CloseIdleConnections()
	ask := func(body string) int {
		resp, err := client.Post("http://"+c.addr+tokenPath, "application/json", strings.NewReader(body))
		check(t, err)
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		check(t, err)
		return resp.StatusCode
	}
	for _, body := range []string{"", "{", `{"credential":""}`, strings.Repeat("x", 1<<20)} {
		if got := ask(body); got != http.StatusBadRequest {
			t.Errorf("body %.20q: status %d", body, got)
		}
	}
	for range limitBurst {
		ask(`{"credential":"forged"}`)
	}
	if got := ask(`{"credential":"pod-1"}`); got != http.StatusTooManyRequests {
		t.Errorf("after %d wrong ones: status %d", limitBurst, got)
	}
}

func TestJoinByCredential(t *testing.T) {
	c := newCluster(t, vouching(&logBuffer{}))
	j, err := JoinByCredential(ctx10(t), c.addr, TLSOn, hello("b"), shows("pod-1"))
	check(t, err)
	if j.ClusterID != "cluster-one" || !j.Token.Equal(secret) {
		t.Errorf("joined %+v", j)
	}
	// A refusal ends it at once; a head that can't tell is asked again.
	_, err = JoinByCredential(ctx10(t), c.addr, TLSOn, hello("b"), shows("forged"))
	wantError(t, err, fault.Auth, "it expired")
	ctx, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	asked := 0
	_, err = JoinByCredential(ctx, c.addr, TLSOn, hello("b"), func(string) (string, error) { asked++; return "later", nil })
	if err == nil || asked < 2 {
		t.Errorf("asked %d times: %v", asked, err)
	}
}
