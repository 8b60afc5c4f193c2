// Package client speaks to a Kubernetes API server with the credentials of a user's kubeconfig or of a pod: requests,
// programs run in pods, and connections to their ports.
//
// It is small on purpose: Kubernetes' own client library adds 11 to 34 MB to a program and milliseconds to the start of
// each of its commands (ARCHITECTURE.md has the figures). All errors are sentences that say what to do. A request that is
// not answered fails within 10 s.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// How long to wait for an API server: together under 10 s.
const (
	dialTimeout   = 4 * time.Second
	answerTimeout = 9 * time.Second
)

// maxAnswer bounds the memory that an answer takes.
const maxAnswer = 64 << 20

// Client is an API server, a user and a namespace. Its methods may be called from several goroutines.
type Client struct {
	Context   string // of the kubeconfig
	User      string
	Source    string // files
	Namespace string

	base   *url.URL
	user   userEntry
	plugin *plugin // or nil
	tls    *tls.Config
	proxy  func(*http.Request) (*url.URL, error)
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	http   *http.Client
}

// Server is the API server's address.
func (c *Client) Server() string { return c.base.String() }

// Path is where a resource of the namespace lives: Path("apps/v1", "deployments", "ray-head"). The core group is "v1".
func (c *Client) Path(group string, parts ...string) string {
	root := "/apis/" + group
	if group == "v1" {
		root = "/api/v1"
	}
	p := root + "/namespaces/" + url.PathEscape(c.Namespace)
	for _, s := range parts {
		p += "/" + url.PathEscape(s)
	}
	return p
}

// authorize adds the user's credentials to a request's headers.
func (c *Client) authorize(ctx context.Context, h http.Header) error {
	u := &c.user
	token := u.Token
	if u.TokenFile != "" { // read each time: the kubelet renews it
		text, err := os.ReadFile(u.TokenFile)
		if err != nil {
			return c.broken("the token file", err)
		}
		token = strings.TrimSpace(string(text))
	}
	if c.plugin != nil && token == "" {
		var err error
		if token, _, err = c.plugin.get(ctx); err != nil {
			return err
		}
	}
	switch {
	case token != "":
		h.Set("Authorization", "Bearer "+token)
	case u.Username != "":
		r := http.Request{Header: h}
		r.SetBasicAuth(u.Username, u.Password)
	}
	if u.As != "" {
		h.Set("Impersonate-User", u.As)
	}
	if u.AsUID != "" {
		h.Set("Impersonate-Uid", u.AsUID)
	}
	for _, g := range u.AsGroups {
		h.Add("Impersonate-Group", g)
	}
	for k, vs := range u.AsExtra {
		for _, v := range vs {
			h.Add("Impersonate-Extra-"+url.PathEscape(k), v)
		}
	}
	return nil
}

// Get reads a resource or a list into answer.
func (c *Client) Get(ctx context.Context, path string, query url.Values, answer any) error {
	return c.call(ctx, http.MethodGet, path, query, "", nil, answer)
}

// Delete asks for a resource's end and what belongs to it; it does not wait for it.
func (c *Client) Delete(ctx context.Context, path string) error {
	body := []byte(`{"apiVersion":"v1","kind":"DeleteOptions","propagationPolicy":"Background"}`)
	return c.call(ctx, http.MethodDelete, path, nil, "application/json", body, nil)
}

// Apply says what a resource shall be, in YAML; the API server merges it with what others say of it.
func (c *Client) Apply(ctx context.Context, path, manager string, text []byte, answer any) error {
	q := url.Values{"fieldManager": {manager}, "force": {"true"}}
	return c.call(ctx, http.MethodPatch, path, q, "application/apply-patch+yaml", text, answer)
}

func (c *Client) call(ctx context.Context, method, path string, query url.Values, kind string, body []byte, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	resp, err := c.open(ctx, method, path, query, kind, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return c.unreachable(ctx, err)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("%s answers to %s %s with something else than Kubernetes' JSON (%w); is it an API server?", c.Server(), method, path, err)
	}
	return nil
}

// Stream reads what comes as long as ctx lasts: a log that is followed. The caller closes it.
func (c *Client) Stream(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	late := time.AfterFunc(answerTimeout, func() { cancel(context.DeadlineExceeded) })
	resp, err := c.open(ctx, http.MethodGet, path, query, "", nil) //nolint:bodyclose // the caller closes it by the stream
	late.Stop()
	if err != nil {
		cancel(err)
		return nil, err
	}
	return &stream{resp.Body, cancel}, nil
}

type stream struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (s *stream) Close() error {
	s.cancel(context.Canceled)
	return s.ReadCloser.Close()
}

// open sends a request and returns the answer if it is one of success. Credentials that a program gave are asked for once
// more if the API server does not take them.
func (c *Client) open(ctx context.Context, method, path string, query url.Values, kind string, body []byte) (*http.Response, error) {
	for again := false; ; again = true {
		u := *c.base
		u.Path = strings.TrimSuffix(u.Path, "/")
		req, err := http.NewRequestWithContext(ctx, method, u.String()+path, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.URL.RawQuery = query.Encode()
		req.Header.Set("Accept", "application/json, */*") // logs are text
		if kind != "" {
			req.Header.Set("Content-Type", kind)
		}
		if err := c.authorize(ctx, req.Header); err != nil {
			return nil, err
		}
		resp, err := c.http.Do(req)
		if err != nil {
			return nil, c.unreachable(ctx, err)
		}
		if resp.StatusCode/100 == 2 {
			return resp, nil
		}
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		resp.Body.Close()
		if err != nil {
			return nil, c.unreachable(ctx, err)
		}
		if resp.StatusCode == http.StatusUnauthorized && c.plugin != nil && !again {
			c.plugin.forget()
			c.http.CloseIdleConnections() // they have shown the old certificate
			continue
		}
		return nil, c.refused(method, path, resp.StatusCode, text)
	}
}
