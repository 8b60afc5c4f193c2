// Package kube lets the pods of a Kubernetes namespace know each other by their ServiceAccount tokens.
//
// A Pod is this process's own place: its namespace, its tokens, and the API server. Pod.Credential gives the token by
// which it shows who it is; a Verifier, at the head, checks the tokens of others. Neither keeps a token: files are read
// anew each time, because Kubernetes replaces them. What a token is sent over is the caller's business (package rpc:
// TLS 1.3 only).
package kube

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"gray/internal/core/fault"
)

// Audience is what tokens for this purpose are made out to. They are worth nothing at the API server.
const Audience = "ray"

// Where Kubernetes puts what a pod is given.
const (
	projectedToken = "/var/run/secrets/ray/token"
	accountDir     = "/var/run/secrets/kubernetes.io/serviceaccount"
)

// maxToken bounds a ServiceAccount token's length in bytes; they have about 1,000.
const maxToken = 16 << 10

// Pod is this process's place in a Kubernetes cluster.
type Pod struct {
	api       string   // the API server's host:port
	projected string   // file of the token with our audience
	account   string   // folder of the default token, the API server's CA and the namespace
	services  []string // addresses of Services, as this pod was given them
}

// Here is the pod that this process runs in; nil if it does not run in one. environ is os.Environ().
func Here(environ []string) *Pod {
	p := &Pod{projected: projectedToken, account: accountDir}
	var host, port string
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case value == "":
			continue
		case name == "KUBERNETES_SERVICE_HOST":
			host = value
		case name == "KUBERNETES_SERVICE_PORT":
			port = value
		}
		if strings.HasSuffix(name, "_SERVICE_HOST") {
			p.services = append(p.services, value)
		}
	}
	if host == "" {
		return nil
	}
	if port == "" {
		port = "443"
	}
	p.api = net.JoinHostPort(host, port)
	return p
}

// ServiceAddress is the head's address (host:port) where Kubernetes tells this pod of a Service ray-head; else "".
func ServiceAddress(environ []string) string {
	env := map[string]string{}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		env[name] = value
	}
	host := env["RAY_HEAD_SERVICE_HOST"]
	if host == "" || env["KUBERNETES_SERVICE_HOST"] == "" {
		return ""
	}
	port := cmp.Or(env["RAY_HEAD_SERVICE_PORT_REDIS_PRIMARY"], env["RAY_HEAD_SERVICE_PORT_GCS_SERVER"], "6379")
	return net.JoinHostPort(host, port)
}

// mountHint is what to do where a pod has no token.
const mountHint = `mount one (automountServiceAccountToken: true, or a projected token with audience "ray" at ` + projectedToken +
	`), or give all pods of the cluster the same RAY_AUTH_TOKEN from a Secret`

// Credential is the token by which this pod shows who it is to the head at address (host:port): the one with audience
// "ray" if it is mounted, else the default one. That one is good for the API server, too, so it is sent to nobody but a
// Service of this namespace.
func (p *Pod) Credential(address string) (string, error) {
	text, err := readToken(p.projected)
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return text, err
	}
	path := filepath.Join(p.account, "token")
	text, err = readToken(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", &fault.Error{
			Op: "show this pod's identity", Ref: address, Kind: fault.Auth,
			Detail: "no ServiceAccount token is mounted in this pod, and RAY_AUTH_TOKEN is not set; " + mountHint,
		}
	}
	if err != nil {
		return "", err
	}
	if !p.ownService(address) {
		return "", &fault.Error{
			Op: "show this pod's identity", Ref: address, Kind: fault.Auth,
			Detail: "this pod's only token is good for the API server, too, so it is sent only to a Service of this namespace, by its name or " +
				`its address in the environment, and this is none; mount a projected token with audience "ray" at ` + projectedToken + ", or set RAY_AUTH_TOKEN",
		}
	}
	return text, nil
}

// CanVerify reports whether this pod can check others' tokens: it needs its own, to know its namespace and to ask the
// API server.
func (p *Pod) CanVerify() bool {
	_, err := readToken(filepath.Join(p.account, "token"))
	return err == nil
}

// ownService reports whether address names a Service of this pod's namespace.
func (p *Pod) ownService(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if _, err := netip.ParseAddr(host); err == nil {
		for _, s := range p.services {
			if s == host {
				return true
			}
		}
		return false
	}
	namespace, err := p.namespace()
	if err != nil {
		return false
	}
	// service, service.namespace, service.namespace.svc, service.namespace.svc.cluster.domain
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	return len(labels) == 1 && labels[0] != "localhost" ||
		len(labels) == 2 && labels[1] == namespace ||
		len(labels) > 2 && labels[1] == namespace && labels[2] == "svc"
}

func (p *Pod) namespace() (string, error) {
	path := filepath.Join(p.account, "namespace")
	b, err := os.ReadFile(path)
	if err != nil {
		return "", &fault.Error{Op: "find this pod's namespace", Ref: path, Kind: fault.System, Err: err}
	}
	return strings.TrimSpace(string(b)), nil
}

func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", &fault.Error{Op: "read ServiceAccount token", Ref: path, Kind: fault.Auth, Err: err}
	}
	defer f.Close()
	b := make([]byte, maxToken+1)
	n, err := f.Read(b)
	text := strings.TrimSpace(string(b[:n]))
	switch {
	case err != nil && n == 0:
		return "", &fault.Error{Op: "read ServiceAccount token", Ref: path, Kind: fault.Auth, Detail: "it can't be read, or is empty", Err: err}
	case n > maxToken:
		return "", &fault.Error{Op: "read ServiceAccount token", Ref: path, Kind: fault.Auth, Detail: fmt.Sprintf("it is longer than %d bytes", maxToken)}
	case text == "":
		return "", &fault.Error{Op: "read ServiceAccount token", Ref: path, Kind: fault.Auth, Detail: "it is empty"}
	}
	return text, nil
}
