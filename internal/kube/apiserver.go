package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"gray/internal/core/fault"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// keySet is what the API server publishes about the tokens that it signs.
type keySet struct {
	issuer    string
	audiences []string // ours, and the API server's own
	set       jose.JSONWebKeySet
	at        time.Time
}

// errNoRight: this pod may not read the API server's keys.
var errNoRight = errors.New("the API server does not show its keys to this pod")

// The paths at which an API server publishes its keys. Its jwks_uri may name another host, which is not asked.
const (
	discoveryPath = "/.well-known/openid-configuration"
	keysPath      = "/openid/v1/jwks"
	reviewPath    = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
)

// fetchKeys reads the API server's keys, and from this pod's own token what the API server's tokens are made out to.
func (p *Pod) fetchKeys(ctx context.Context, now time.Time) (*keySet, error) {
	own, err := p.accountToken()
	if err != nil {
		return nil, err
	}
	keys := &keySet{audiences: []string{Audience}, at: now}
	if t, err := jwt.ParseSigned(own, algorithms); err == nil {
		var c jwt.Claims
		if err := t.UnsafeClaimsWithoutVerification(&c); err == nil { // our own: who gave us that file is trusted
			keys.audiences = append(keys.audiences, c.Audience...)
		}
	}
	var discovery struct {
		Issuer string `json:"issuer"`
	}
	if err := p.call(ctx, http.MethodGet, discoveryPath, own, nil, &discovery); err != nil {
		return nil, err
	}
	if err := p.call(ctx, http.MethodGet, keysPath, own, nil, &keys.set); err != nil {
		return nil, err
	}
	if keys.issuer = discovery.Issuer; keys.issuer == "" {
		return nil, p.fail(discoveryPath, errors.New("it names no issuer"))
	}
	return keys, nil
}

// whoIs asks the API server for the user whose token text is.
func (p *Pod) whoIs(ctx context.Context, text string) (string, error) {
	var answer struct {
		Status struct {
			UserInfo struct {
				Username string `json:"username"`
			} `json:"userInfo"`
		} `json:"status"`
	}
	question := []byte(`{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`)
	err := p.call(ctx, http.MethodPost, reviewPath, text, question, &answer)
	if errors.Is(err, errNoRight) {
		return "", denied("the API server does not accept it, and this cluster's keys can't be read by the head, so that a token with audience %q "+
			"can't be checked; let system:serviceaccounts read them (ClusterRole system:service-account-issuer-discovery), or mount the default token only", Audience)
	}
	return answer.Status.UserInfo.Username, err
}

func (p *Pod) fail(path string, err error) error {
	return &fault.Error{Op: "ask the API server", Ref: "https://" + p.api + path, Kind: fault.System, Err: err}
}

// call asks the API server, whose certificate is checked by the CA that was mounted into this pod.
func (p *Pod) call(ctx context.Context, method, path, token string, body []byte, answer any) error {
	pem, err := os.ReadFile(filepath.Join(p.account, "ca.crt"))
	if err != nil {
		return p.fail(path, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return p.fail(path, fmt.Errorf("%s/ca.crt holds no certificate", p.account))
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}} // and no proxy
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+p.api+path, bytes.NewReader(body))
	if err != nil {
		return p.fail(path, err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/json, application/jwk-set+json") // the keys come as the latter only
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return p.fail(path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	switch {
	case err != nil:
		return p.fail(path, err)
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusNotFound:
		return p.fail(path, fmt.Errorf("%w: HTTP status %d", errNoRight, resp.StatusCode))
	case resp.StatusCode/100 != 2:
		return p.fail(path, fmt.Errorf("HTTP status %d", resp.StatusCode))
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return p.fail(path, err)
	}
	return nil
}
