package rpc

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"

	"gray/internal/core/fault"
	"gray/internal/session"
)

// ClientProtocol is the version of what the halves of a ray:// session say to each other.
const ClientProtocol = 1

const (
	clientPath  = "/gray/client"
	clientProto = "gray-client/1"
)

// ClientRoute is where ClientHandler belongs, with role Token.
const ClientRoute = "POST " + clientPath

// ClientHello is what a ray:// client says of itself.
type ClientHello struct {
	Protocol    int    `json:"protocol"`
	Ray         string `json:"ray"`         // version text
	Session     string `json:"session"`     // of its own making: a connection that breaks is followed by another with the same
	Incarnation uint64 `json:"incarnation"` // of its link
	Resume      bool   `json:"resume"`      // the session must be there already
}

func (h ClientHello) encode() (string, error) {
	b, err := json.Marshal(h)
	return base64.StdEncoding.EncodeToString(b), err
}

// ClientHandler takes the connections of ray:// clients that have proved that they know the token. admit may refuse one;
// take owns the raw connection.
func ClientHandler(ray string, admit func(ClientHello) error, take func(net.Conn, ClientHello, netip.AddrPort)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := connOf(r.Context())
		if !c.proved.Load() || !c.secure { // a bearer proves nothing about this connection
			http.Error(w, "Forbidden: a ray:// client must prove that it knows the token, behind TLS", http.StatusForbidden)
			return
		}
		var hello ClientHello
		b, err := base64.StdEncoding.DecodeString(r.Header.Get(helloHeader))
		if err == nil {
			err = json.Unmarshal(b, &hello)
		}
		switch {
		case err != nil || r.Header.Get("Upgrade") != clientProto:
			refuse(w, http.StatusBadRequest, &fault.Error{Op: "ray client", Kind: fault.Protocol, Err: errors.Join(errors.New("bad hello"), err)})
			return
		case hello.Protocol != ClientProtocol || hello.Ray != ray:
			refuse(w, http.StatusConflict, &fault.Error{
				Op: "ray client", Kind: fault.Version,
				Detail: fmt.Sprintf("the cluster has ray %s and the client ray %s: values and functions cannot be exchanged; install the cluster's version on the client, pip install %q", ray, hello.Ray, "ray=="+ray),
			})
			return
		}
		if err := admit(hello); err != nil {
			refuse(w, http.StatusConflict, err)
			return
		}
		if raw := upgrade(w, clientProto, ""); raw != nil {
			take(raw, hello, c.remote)
		}
	})
}

// DialClient opens a ray:// client's connection to the daemon at addr, always behind TLS.
func DialClient(ctx context.Context, addr string, token session.Token, hello ClientHello) (net.Conn, error) {
	text, err := hello.encode()
	if err != nil {
		return nil, err
	}
	c, err := (&Dialer{Token: token, always: true}).Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+clientPath, nil)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", clientProto)
	req.Header.Set(helloHeader, text)
	stop := context.AfterFunc(ctx, func() { c.Close() })
	resp, err := c.roundTrip(req)
	if err != nil || !stop() {
		c.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, dialError(addr, "it closed the connection", fault.System, later{err})
	}
	defer resp.Body.Close() // of a 101 it is empty; what follows is the link's
	switch resp.StatusCode {
	case http.StatusSwitchingProtocols:
		return c, nil
	case http.StatusNotFound:
		err = dialError(addr, "this port of the cluster is not that of ray:// clients, which is 10001 unless `ray start --ray-client-server-port` chose another", fault.Protocol, nil)
	default:
		err = refusal("ray client", addr, resp.StatusCode, resp.Body)
	}
	c.Close()
	return nil, err
}
