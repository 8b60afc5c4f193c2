package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"gray/internal/core/fault"
	"gray/internal/session"
)

// Where something outside of the cluster vouches for who a caller is (on Kubernetes, the API server for a pod), nobody
// has to bring the cluster's token: the caller shows its credential, and the head hands the token over. From then on all
// is as with a token that was brought: proofs on every connection, both ways. A credential is a bearer's, so it is sent
// behind TLS 1.3 only; that the one at the other end is the head must be known by its address (docs/security.md).

const tokenPath = "/gray/token"

// TokenRoute is where TokenHandler belongs, with role Open: what it asks for is in the request.
const TokenRoute = "POST " + tokenPath

// maxCredential bounds a credential, in bytes.
const maxCredential = 16 << 10

type tokenRequest struct {
	Credential string `json:"credential"`
}

type tokenReply struct {
	Token string `json:"token"`
}

// TokenHandler hands the cluster's token to who shows a credential that verify accepts. verify tells who it is; its
// errors of kind Auth are refusals, others mean that it could not find out now.
func TokenHandler(token session.Token, verify func(ctx context.Context, credential string) (string, error), log *slog.Logger) http.Handler {
	limit := limiter{now: time.Now}
	var mu sync.Mutex
	var told time.Time                      // guarded by mu
	warn := func(msg string, args ...any) { // callers come again and again, and strangers as often as they like
		mu.Lock()
		defer mu.Unlock()
		level := slog.LevelDebug
		if now := time.Now(); now.Sub(told) >= time.Second {
			told, level = now, slog.LevelWarn
		}
		log.Log(context.Background(), level, msg, args...)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := connOf(r.Context())
		if !c.secure {
			refuse(w, http.StatusForbidden, &fault.Error{Op: "hand over the token", Kind: fault.Auth, Detail: "a credential is taken over TLS only"})
			return
		}
		who := c.remote.Addr().String()
		if limit.blocked(who) {
			refuse(w, http.StatusTooManyRequests, &fault.Error{Op: "hand over the token", Kind: fault.Limit, Detail: "too many wrong credentials came from this address; try again in a minute"})
			return
		}
		var req tokenRequest
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCredential+1<<10)).Decode(&req); err != nil || req.Credential == "" {
			limit.fail(who)
			refuse(w, http.StatusBadRequest, &fault.Error{Op: "hand over the token", Kind: fault.Protocol, Detail: "the request holds no credential"})
			return
		}
		name, err := verify(r.Context(), req.Credential)
		switch {
		case fault.KindOf(err) == fault.Auth:
			limit.fail(who)
			warn("a credential was refused", "from", who, "why", err)
			refuse(w, http.StatusForbidden, err)
			return
		case err != nil:
			warn("a credential could not be checked", "from", who, "why", err)
			refuse(w, http.StatusServiceUnavailable, err)
			return
		}
		log.Info("the cluster's token was handed over", "to", name, "from", who)
		w.Header().Set("Cache-Control", "no-store")
		writeJSON(w, http.StatusOK, tokenReply{Token: token.Reveal()})
	})
}

// AskToken gets the cluster's token from the head at addr by a credential that was given for this address.
func AskToken(ctx context.Context, addr string, mode TLSMode, credential func(addr string) (string, error)) (session.Token, error) {
	fail := func(kind fault.Kind, detail string, err error) (session.Token, error) {
		return session.Token{}, &fault.Error{Op: "ask for the cluster's token", Ref: addr, Kind: kind, Detail: detail, Err: err}
	}
	if mode == TLSOff {
		return fail(fault.Auth, "a pod's identity is sent over TLS only: leave out --tls=off, or give all pods the same RAY_AUTH_TOKEN", nil)
	}
	text, err := credential(addr)
	if err != nil {
		return session.Token{}, err
	}
	body, err := json.Marshal(tokenRequest{Credential: text})
	if err != nil {
		return fail(fault.System, "", err)
	}
	client := (&Dialer{always: true}).HTTPClient()
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+tokenPath, bytes.NewReader(body))
	if err != nil {
		return fail(fault.Protocol, "", err)
	}
	req.Header.Set("User-Agent", "gray")
	resp, err := client.Do(req)
	if err != nil {
		var fe *fault.Error
		if errors.As(err, &fe) {
			return session.Token{}, fe // without the URL that net/http puts in front
		}
		return fail(fault.System, "", later{err})
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusServiceUnavailable:
		return fail(fault.System, "", later{refusal("show this pod's identity", addr, resp.StatusCode, resp.Body)})
	case http.StatusUnauthorized: // no such route: who has no token is not told of routes
		return fail(fault.Auth, "this cluster takes its token only, and does not go by ServiceAccounts: set "+session.EnvToken+" to the token of the head (`ray get-auth-token` prints it there)", nil)
	default:
		return session.Token{}, refusal("show this pod's identity", addr, resp.StatusCode, resp.Body)
	}
	var reply tokenReply
	if err := json.NewDecoder(io.LimitReader(resp.Body, 16<<10)).Decode(&reply); err != nil {
		return fail(fault.System, "", later{err})
	}
	return session.NewToken(reply.Token, "the head at "+addr)
}

// JoinByCredential is JoinRetry for who has no token: it asks the head for it each time, because a head that was
// replaced meanwhile has another.
func JoinByCredential(ctx context.Context, addr string, mode TLSMode, hello Hello, credential func(addr string) (string, error)) (*Joined, error) {
	return retry(ctx, func(ctx context.Context) (*Joined, error) {
		token, err := AskToken(ctx, addr, mode, credential)
		if err != nil {
			return nil, err
		}
		j, err := Join(ctx, addr, token, mode, hello)
		if fault.KindOf(err) == fault.Auth {
			err = later{err} // another head answered than the one that handed the token over
		}
		return j, err
	})
}
