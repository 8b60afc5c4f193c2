package rpc

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/session"
)

const joinPath = "/gray/join"

// JoinRoute is where JoinHandler belongs, with role Token.
const JoinRoute = "POST " + joinPath

type joinRequest struct {
	Hello Hello  `json:"hello"`
	Key   []byte `json:"key"` // PKIX, P-256
}

type joinReply struct {
	Head        Hello  `json:"head"`
	SessionName string `json:"session_name"`
	Cert        []byte `json:"cert"`
	CA          []byte `json:"ca"`
	YourIP      string `json:"your_ip"`
}

// JoinHandler lets daemons that have proved the token become members. admit may refuse one (its error travels); nil
// admits all whose versions fit.
func JoinHandler(a *Authority, id *Identity, admit func(Hello, netip.AddrPort) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := connOf(r.Context())
		if !c.proved.Load() { // a bearer proves nothing about this connection
			http.Error(w, "Forbidden: joining needs a proof", http.StatusForbidden)
			return
		}
		var req joinRequest
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 16<<10)).Decode(&req); err != nil {
			refuse(w, http.StatusBadRequest, &fault.Error{Op: "join", Kind: fault.Protocol, Err: err})
			return
		}
		err := Compatible(id.Hello, req.Hello)
		if err == nil && admit != nil {
			err = admit(req.Hello, c.remote)
		}
		if err != nil {
			refuse(w, http.StatusConflict, err)
			return
		}
		reply := joinReply{Head: id.Hello, SessionName: id.SessionName, CA: a.cert.Raw, YourIP: c.remote.Addr().String()}
		pub, err := x509.ParsePKIXPublicKey(req.Key)
		var cert *x509.Certificate
		if err == nil {
			cert, err = a.Issue(req.Hello.NodeID, pub)
		}
		if err != nil {
			refuse(w, http.StatusBadRequest, &fault.Error{Op: "join", Kind: fault.Protocol, Err: err})
			return
		}
		reply.Cert = cert.Raw
		writeJSON(w, http.StatusOK, reply)
	})
}

func refuse(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Connection", "close")
	writeJSON(w, status, wireError{Kind: fault.KindOf(err), Error: err.Error()})
}

// refusal reads what refuse wrote.
func refusal(op, addr string, status int, body io.Reader) error {
	text, err := io.ReadAll(io.LimitReader(body, 16<<10))
	if err != nil {
		return &fault.Error{Op: op, Ref: addr, Kind: fault.System, Err: later{err}}
	}
	var we wireError
	if json.Unmarshal(text, &we) == nil && we.Error != "" {
		return &fault.Error{Op: op, Ref: addr, Kind: we.Kind, Detail: "refused", Err: errors.New(we.Error)}
	}
	kind := fault.Protocol
	if status == http.StatusUnauthorized || status == http.StatusForbidden {
		kind = fault.Auth
	}
	return &fault.Error{Op: op, Ref: addr, Kind: kind, Detail: fmt.Sprintf("refused with HTTP status %d", status), Err: errors.New(string(bytes.TrimSpace(text)))}
}

// Joined is what a daemon learns by joining.
type Joined struct {
	*Identity
	Head   Hello
	YourIP string // this machine as the head sees it
}

// Join makes this daemon a member of the cluster whose head is at addr. It tries once; see JoinRetry.
func Join(ctx context.Context, addr string, token session.Token, mode TLSMode, hello Hello) (*Joined, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make node key: %w", err)
	}
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("make node key: %w", err)
	}
	body, err := json.Marshal(joinRequest{Hello: hello, Key: pub})
	if err != nil {
		return nil, err
	}
	fail := func(kind fault.Kind, err error) (*Joined, error) {
		return nil, &fault.Error{Op: "join", Ref: addr, Kind: kind, Err: err}
	}
	client := (&Dialer{Token: token, TLS: mode}).HTTPClient()
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+joinPath, bytes.NewReader(body))
	if err != nil {
		return fail(fault.Protocol, err)
	}
	req.Header.Set("User-Agent", "gray")
	resp, err := client.Do(req)
	if err != nil {
		var fe *fault.Error
		if errors.As(err, &fe) {
			return nil, fe // without the URL that net/http puts in front
		}
		return fail(fault.System, later{err})
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, refusal("join", addr, resp.StatusCode, resp.Body)
	}
	var reply joinReply
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&reply); err != nil {
		return fail(fault.System, later{err})
	}
	cert, err := x509.ParseCertificate(reply.Cert)
	if err != nil {
		return fail(fault.Protocol, err)
	}
	ca, err := x509.ParseCertificate(reply.CA)
	if err != nil {
		return fail(fault.Protocol, err)
	}
	if _, err := ids.ParseNode(reply.Head.NodeID); err != nil || !session.ValidName(reply.SessionName) {
		return fail(fault.Protocol, fmt.Errorf("the head names session %q, node %q", reply.SessionName, reply.Head.NodeID))
	}
	hello.ClusterID = reply.Head.ClusterID
	return &Joined{Identity: newIdentity(hello, reply.SessionName, token, mode, cert, key, ca), Head: reply.Head, YourIP: reply.YourIP}, nil
}

// JoinRetry joins as soon as the head can be reached; ctx bounds the wait. A refusal (token, version) ends it at once.
func JoinRetry(ctx context.Context, addr string, token session.Token, mode TLSMode, hello Hello) (*Joined, error) {
	return retry(ctx, func(ctx context.Context) (*Joined, error) { return Join(ctx, addr, token, mode, hello) })
}

func retry(ctx context.Context, join func(context.Context) (*Joined, error)) (*Joined, error) {
	wait := 50 * time.Millisecond
	for {
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		j, err := join(try)
		cancel()
		if err == nil || !errors.Is(err, ErrUnreachable) {
			return j, err
		}
		select {
		case <-time.After(wait):
			wait = min(2*wait, time.Second)
		case <-ctx.Done():
			return nil, err
		}
	}
}
