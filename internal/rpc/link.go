package rpc

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

const (
	linkPath    = "/gray/link"
	linkProto   = "gray-link/1"
	helloHeader = "Gray-Hello"
)

func (h Hello) encode() (string, error) {
	b, err := json.Marshal(h)
	return base64.StdEncoding.EncodeToString(b), err
}

func decodeHello(text string) (h Hello, err error) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(b, &h)
	}
	if err == nil {
		_, err = ids.ParseNode(h.NodeID)
	}
	if err != nil {
		return h, fmt.Errorf("bad hello: %w", err)
	}
	return h, nil
}

// LinkRoute is where LinkHandler belongs, with role Node.
const LinkRoute = "POST " + linkPath

// LinkHandler takes a daemon's request for a link and gives the raw connection to take, which owns it from then on and
// must not block. ours is asked for each time, for an incarnation may change.
func LinkHandler(ours func() Hello, take func(net.Conn, PeerInfo)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := connOf(r.Context())
		peer, err := decodeHello(r.Header.Get(helloHeader))
		switch {
		case err != nil:
			refuse(w, http.StatusBadRequest, &fault.Error{Op: "link", Kind: fault.Protocol, Err: err})
			return
		case r.Header.Get("Upgrade") != linkProto:
			refuse(w, http.StatusUpgradeRequired, &fault.Error{Op: "link", Kind: fault.Version, Detail: "want Upgrade: " + linkProto})
			return
		case c.certNode != "" && c.certNode != peer.NodeID:
			refuse(w, http.StatusForbidden, &fault.Error{Op: "link", Kind: fault.Auth, Detail: "the certificate is another node's"})
			return
		}
		mine := ours()
		if err := Compatible(mine, peer); err != nil {
			refuse(w, http.StatusConflict, err)
			return
		}
		text, err := mine.encode()
		if err != nil {
			refuse(w, http.StatusInternalServerError, err)
			return
		}
		raw := upgrade(w, linkProto, helloHeader+": "+text+"\r\n")
		if raw == nil {
			return
		}
		take(raw, PeerInfo{Hello: peer, Addr: c.remote, TLS: c.secure})
	})
}

// upgrade takes a connection over from HTTP, with further lines of the answer's header; nil if the client is gone, or broke
// the protocol.
func upgrade(w http.ResponseWriter, proto, more string) net.Conn {
	raw, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return nil
	}
	if buffered.Reader.Buffered() > 0 { // sent before our answer: breaks the protocol
		raw.Close()
		return nil
	}
	answer := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + proto + "\r\n" + more + "\r\n"
	if _, err := raw.Write([]byte(answer)); err != nil {
		raw.Close()
		return nil
	}
	return raw
}

// DialLink opens a link to the daemon at addr. wantNode, if not "", is the node that must answer.
func DialLink(ctx context.Context, addr string, id *Identity, hello Hello, wantNode string) (net.Conn, PeerInfo, error) {
	return dialLink(ctx, &Dialer{Identity: id}, addr, hello, wantNode)
}

func dialLink(ctx context.Context, d *Dialer, addr string, hello Hello, wantNode string) (net.Conn, PeerInfo, error) {
	fail := func(kind fault.Kind, detail string, err error) (net.Conn, PeerInfo, error) {
		return nil, PeerInfo{}, &fault.Error{Op: "link", Ref: addr, Kind: kind, Detail: detail, Err: err}
	}
	text, err := hello.encode()
	if err != nil {
		return fail(fault.System, "", err)
	}
	c, err := d.Dial(ctx, addr)
	if err != nil {
		return nil, PeerInfo{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+linkPath, nil)
	if err != nil {
		c.Close()
		return fail(fault.Protocol, "", err)
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", linkProto)
	req.Header.Set(helloHeader, text)
	stop := context.AfterFunc(ctx, func() { c.Close() })
	resp, err := c.roundTrip(req)
	if err != nil {
		stop()
		c.Close()
		var alert tls.AlertError
		if errors.As(err, &alert) { // after a handshake in TLS 1.3 the server's refusal of our certificate comes as this
			return fail(fault.Auth, "it takes this node for one of another cluster", err)
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fail(fault.System, "", later{err})
	}
	defer resp.Body.Close() // of a 101 it is empty; what follows is the link's
	if resp.StatusCode != http.StatusSwitchingProtocols {
		err := refusal("link", addr, resp.StatusCode, resp.Body)
		stop()
		c.Close()
		return nil, PeerInfo{}, err
	}
	peer, err := decodeHello(resp.Header.Get(helloHeader))
	if err == nil && wantNode != "" && peer.NodeID != wantNode {
		err = fmt.Errorf("node %s answers there, not %s", shortID(peer.NodeID), shortID(wantNode))
	}
	if t, ok := c.Conn.(*tls.Conn); ok && err == nil && leaf(t).Subject.CommonName != peer.NodeID {
		err = fmt.Errorf("its certificate is another node's")
	}
	if !stop() {
		err = errors.Join(err, context.Cause(ctx))
	}
	if err != nil {
		c.Close()
		return fail(fault.Protocol, "", err)
	}
	return c, PeerInfo{Hello: peer, Addr: addrPort(c.RemoteAddr()), TLS: c.TLS}, nil
}
