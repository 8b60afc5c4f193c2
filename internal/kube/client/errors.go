package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"syscall"
)

// Error is the API server's refusal of a request.
type Error struct {
	Status int    // HTTP's
	Reason string // Kubernetes' word: NotFound, Forbidden, …
	Text   string // the sentence for people
}

func (e *Error) Error() string { return e.Text }

// IsNotFound says whether the thing itself is not there.
func IsNotFound(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusNotFound
}

// IsForbidden says whether the user may not do it.
func IsForbidden(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusForbidden
}

// status is Kubernetes' answer when something fails.
type status struct {
	Kind    string `json:"kind"`
	Status  string `json:"status"`
	Message string `json:"message"`
	Reason  string `json:"reason"`
	Details struct {
		Name   string `json:"name"`
		Kind   string `json:"kind"`
		Causes []struct {
			Reason  string `json:"reason"`
			Message string `json:"message"`
		} `json:"causes"`
	} `json:"details"`
}

// lazy compiles when it is first asked: other commands of the program do not pay for it.
func lazy(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

var (
	noRight = lazy(`User "([^"]*)" cannot (\S+) resource "([^"]*)"(?: in API group "([^"]*)")?`)
	quota   = lazy(`exceeded quota: ([^,]+), requested: (.+), used: (.+), limited: ([^\s;]+)`)
)

// refused words the refusal of a request.
func (c *Client) refused(method, path string, code int, body []byte) error {
	var s status
	if err := json.Unmarshal(body, &s); err != nil || s.Kind != "Status" {
		s = status{Message: fmt.Sprintf("HTTP status %d", code)}
		if text := oneLine(string(body)); text != "" && len(text) < 300 {
			s.Message += ": " + text
		}
	}
	e := &Error{Status: code, Reason: s.Reason}
	message := oneLine(s.Message)
	switch {
	case code == http.StatusUnauthorized:
		e.Text = fmt.Sprintf("the API server %s does not accept the credentials of %q in %s: they have expired or were taken back; log in again, or get a new kubeconfig", c.Server(), c.User, c.Source)
	case code == http.StatusForbidden && quota().MatchString(message):
		e.Text = Quota(c.Namespace, message)
	case code == http.StatusForbidden && noRight().MatchString(message):
		m := noRight().FindStringSubmatch(message)
		what := m[3]
		if m[4] != "" {
			what += "." + m[4]
		}
		e.Text = fmt.Sprintf("user %q may not %s %s in namespace %q; choose a namespace of yours by -n, or ask its administrator for the ClusterRole edit in it", m[1], m[2], what, c.Namespace)
	case code == http.StatusForbidden && strings.Contains(message, "is being terminated"):
		e.Text = fmt.Sprintf("namespace %q is being deleted, so nothing can be made in it; wait until it is gone and made anew, or choose another by -n", c.Namespace)
	case code == http.StatusNotFound && s.Details.Kind == "namespaces":
		e.Text = fmt.Sprintf("there is no namespace %q at %s; choose one by -n, or have it made: kubectl create namespace %s", c.Namespace, c.Server(), c.Namespace)
	case code == http.StatusNotFound && s.Reason == "":
		e.Text = fmt.Sprintf("%s knows no %s: it is no Kubernetes API server, or one of another kind; check the server of context %q in %s", c.Server(), path, c.Context, c.Source)
	default:
		if message == "" {
			message = fmt.Sprintf("HTTP status %d", code)
		}
		e.Text = fmt.Sprintf("the API server %s refuses %s %s: %s", c.Server(), method, path, message)
	}
	return e
}

// Quota words that a namespace has no room left; "" if that is not what message says.
func Quota(namespace, message string) string {
	m := quota().FindStringSubmatch(oneLine(message))
	if m == nil {
		return ""
	}
	return fmt.Sprintf("quota %q of namespace %q is used up: one more pod takes %s, %s of %s are taken; ask for fewer --workers, smaller --cpus or --memory, end other pods, or have the quota raised", m[1], namespace, m[2], m[3], m[4])
}

// unreachable words that no answer came. What ended the caller's own context is returned as it is.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	where := fmt.Sprintf("the API server %s (context %q of %s)", c.Server(), c.Context, c.Source)
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var alert tls.AlertError
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &unknown), errors.As(err, &host):
		return fmt.Errorf("%s shows a certificate that is not of this cluster: %w; check that nothing stands between you and it, and that the kubeconfig is not an older cluster's", where, err)
	case errors.As(err, &invalid):
		return fmt.Errorf("%s shows a certificate that is not valid: %w; check this machine's clock, or ask the cluster's administrator", where, err)
	case errors.As(err, &alert):
		return fmt.Errorf("%s does not accept the certificate of %q: %w; log in again, or get a new kubeconfig", where, c.User, err)
	case errors.As(err, &dns):
		return fmt.Errorf("%s can't be found: %s; check the network (a VPN?) and the kubeconfig", where, oneLine(dns.Error()))
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing listens at %s: connection refused; check that the cluster is up and that this is the right kubeconfig", where)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%s does not answer within %v; check the network (a VPN? a firewall?) and that the cluster is up", where, answerTimeout)
	}
	return fmt.Errorf("can't speak with %s: %s; check the network and that the cluster is up", where, oneLine(err.Error()))
}
