package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"gray/internal/core/fault"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	leeway     = 10 * time.Second // between two machines' clocks
	keysAge    = 5 * time.Minute  // how long keys are believed without asking again
	keysPause  = 10 * time.Second // at least, between two fetches because of a key that is not known
	failPause  = time.Second      // after a fetch that failed: strangers must not make us ask and ask
	apiTimeout = 5 * time.Second
)

// algorithms are those that an API server signs with.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384, jose.ES512}

// Verifier checks ServiceAccount tokens for the head. It is safe for concurrent use.
type Verifier struct {
	pod   *Pod
	allow []string // names of ServiceAccounts; empty: all of the namespace
	log   *slog.Logger
	now   func() time.Time

	asks chan struct{} // a place for each question to the API server about one token

	mu     sync.Mutex
	keys   *keySet   // guarded by mu; nil: none yet
	next   time.Time // guarded by mu; no fetch for an unknown key before this
	failed error     // guarded by mu; of the last fetch, which holds until next
}

// Verifier checks tokens by what this pod can learn from the API server. allow narrows whom it lets in, by name.
func (p *Pod) Verifier(allow []string, log *slog.Logger) *Verifier {
	return &Verifier{pod: p, allow: allow, log: log, now: time.Now, asks: make(chan struct{}, 4)}
}

// claims are a ServiceAccount token's own.
type claims struct {
	Kubernetes struct {
		Namespace      string `json:"namespace"`
		ServiceAccount struct {
			Name string `json:"name"`
		} `json:"serviceaccount"`
		Pod struct {
			Name string `json:"name"`
		} `json:"pod"`
	} `json:"kubernetes.io"`
}

func denied(format string, a ...any) error {
	return &fault.Error{Op: "check ServiceAccount token", Kind: fault.Auth, Detail: fmt.Sprintf(format, a...)}
}

// Verify checks a token and tells whose it is. An error of kind Auth is a refusal, with its reason; one of kind System
// says that the token could not be checked now.
func (v *Verifier) Verify(ctx context.Context, text string) (string, error) {
	if len(text) > maxToken {
		return "", denied("it is longer than %d bytes", maxToken)
	}
	token, err := jwt.ParseSigned(text, algorithms)
	if err != nil || len(token.Headers) != 1 {
		return "", denied("it is not a signed token of a ServiceAccount")
	}
	ctx, stop := context.WithTimeout(ctx, apiTimeout)
	defer stop()
	keys, key, err := v.keyOf(ctx, token.Headers[0].KeyID)
	if errors.Is(err, errNoRight) {
		v.log.Debug("the API server's keys can't be read; it is asked about each token", "err", err)
		return v.review(ctx, text)
	}
	if err != nil {
		return "", err
	}
	var std jwt.Claims
	var own claims
	if err := token.Claims(key, &std, &own); err != nil {
		return "", denied("its signature is wrong")
	}
	switch err := std.ValidateWithLeeway(jwt.Expected{Issuer: keys.issuer, AnyAudience: keys.audiences, Time: v.now()}, leeway); {
	case errors.Is(err, jwt.ErrInvalidIssuer):
		return "", denied("it is of issuer %q, and this cluster's is %q", clip(std.Issuer), keys.issuer)
	case errors.Is(err, jwt.ErrInvalidAudience):
		return "", denied("it is made out to %s, which is neither %q nor this cluster's API server", clip(strings.Join(std.Audience, ", ")), Audience)
	case errors.Is(err, jwt.ErrExpired):
		return "", denied("it expired at %s", std.Expiry.Time().UTC().Format(time.RFC3339))
	case err != nil:
		return "", denied("it is not valid yet: check the machines' clocks")
	case std.Expiry == nil:
		return "", denied("it never expires; only tokens that do are taken")
	}
	k := own.Kubernetes
	if std.Subject != "system:serviceaccount:"+k.Namespace+":"+k.ServiceAccount.Name {
		return "", denied("it is of %q, which is no ServiceAccount", clip(std.Subject))
	}
	return v.admit(k.Namespace, k.ServiceAccount.Name)
}

// admit applies the rule who is let in.
func (v *Verifier) admit(namespace, name string) (string, error) {
	own, err := v.pod.namespace()
	if err != nil {
		return "", err
	}
	if namespace != own {
		return "", denied("it is of namespace %q, and this cluster is open to namespace %q only", clip(namespace), own)
	}
	if len(v.allow) > 0 && !slices.Contains(v.allow, name) {
		return "", denied("ServiceAccount %q may not join; --allow-service-account of the head allows %s", clip(name), strings.Join(v.allow, ", "))
	}
	return namespace + "/" + name, nil
}

// keyOf finds the key that a token names, and asks for the keys anew where they are old or it is not among them.
func (v *Verifier) keyOf(ctx context.Context, id string) (*keySet, *jose.JSONWebKey, error) {
	if id == "" {
		return nil, nil, denied("it does not name the key that signed it")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.now()
	find := func() (*keySet, *jose.JSONWebKey) {
		if v.keys != nil && now.Sub(v.keys.at) < keysAge {
			if k := v.keys.set.Key(id); len(k) == 1 && k[0].IsPublic() {
				return v.keys, &k[0]
			}
		}
		return v.keys, nil
	}
	keys, key := find()
	if key != nil {
		return keys, key, nil
	}
	if v.failed != nil && now.Before(v.next) {
		return nil, nil, v.failed
	}
	if keys == nil || now.Sub(keys.at) >= keysAge || !now.Before(v.next) {
		fresh, err := v.pod.fetchKeys(ctx, now)
		if v.failed = err; err != nil {
			v.next = now.Add(failPause)
			return nil, nil, err
		}
		v.keys, v.next = fresh, now.Add(keysPause)
		if keys, key = find(); key != nil {
			return keys, key, nil
		}
	}
	return nil, nil, denied("the key that signed it is not one of this cluster's API server")
}

// review asks the API server whose token it is, in the token's own name: that needs no right.
func (v *Verifier) review(ctx context.Context, text string) (string, error) {
	select {
	case v.asks <- struct{}{}:
		defer func() { <-v.asks }()
	case <-ctx.Done():
		return "", &fault.Error{Op: "check ServiceAccount token", Kind: fault.System, Detail: "too many are being checked", Err: ctx.Err()}
	}
	user, err := v.pod.whoIs(ctx, text)
	if err != nil {
		return "", err
	}
	namespace, name, ok := strings.Cut(strings.TrimPrefix(user, "system:serviceaccount:"), ":")
	if !ok || !strings.HasPrefix(user, "system:serviceaccount:") {
		return "", denied("it is of %q, which is no ServiceAccount", clip(user))
	}
	return v.admit(namespace, name)
}

// clip shortens what a stranger sent before it goes into a message.
func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

// accountToken is this pod's own token for the API server.
func (p *Pod) accountToken() (string, error) { return readToken(filepath.Join(p.account, "token")) }
