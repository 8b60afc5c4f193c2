// Package rpc guards what a cluster's daemons say to each other and to users over TCP.
//
// A Server owns one port. The first bytes of a connection decide: a TLS hello, an HTTP request line, or anything else,
// which is closed without a byte. Every route stands in a Mux with the Role it needs. Who connects shows the token in one
// of three ways: as a bearer (REST, by users), by a Proof on the connection (the token does not travel), or by a
// certificate of the cluster's CA, which a daemon gets from the head by Join after a proof. On loopback there is no TLS,
// and every connection between daemons carries a proof; everywhere else there is TLS 1.3 and daemons show certificates.
//
// DialLink and LinkHandler turn a request into a raw connection between two daemons; Identity.HTTPClient is for object
// bytes. Both sides' versions are compared before either.
package rpc

import (
	"fmt"
	"net"
	"net/netip"

	"gray/internal/core/fault"
)

// Protocol is the version of what daemons say to each other and to clients.
const Protocol = 1

// Role is what a caller must have shown. The zero Role is none: a route without one does not start.
type Role uint8

const (
	Open  Role = iota + 1 // anybody
	Token                 // who knows the token
	Node                  // a daemon of this cluster
)

// String is the role's name.
func (r Role) String() string {
	switch r {
	case Open:
		return "open"
	case Token:
		return "token"
	case Node:
		return "node"
	default:
		return fmt.Sprintf("role %d", uint8(r))
	}
}

// TLSMode says where connections between machines are encrypted.
type TLSMode uint8

const (
	TLSOn  TLSMode = iota // everywhere but on loopback
	TLSOff                // nowhere: the network does it itself
)

// Hello is what daemons tell each other before anything else.
type Hello struct {
	Protocol    int    `json:"protocol"`
	Ray         string `json:"ray"`              // version text
	Python      string `json:"python,omitempty"` // minor version "3.11"; "" if the daemon has no Python workers
	ClusterID   string `json:"cluster_id,omitempty"`
	NodeID      string `json:"node_id"` // hexadecimal
	Incarnation uint64 `json:"incarnation,omitempty"`
}

// PeerInfo is a daemon that has been authenticated.
type PeerInfo struct {
	Hello
	Addr netip.AddrPort // as this side sees it
	TLS  bool
}

// Compatible compares a peer's hello with ours, where ours is the cluster's side.
func Compatible(ours, peer Hello) error {
	refuse := func(kind fault.Kind, format string, a ...any) error {
		return &fault.Error{Op: "connect", Ref: "node " + shortID(peer.NodeID), Kind: kind, Detail: fmt.Sprintf(format, a...)}
	}
	switch {
	case peer.Protocol != ours.Protocol:
		return refuse(fault.Version, "it has ray %s (protocol %d) and the cluster has ray %s (protocol %d); install the cluster's version there: pip install %q",
			peer.Ray, peer.Protocol, ours.Ray, ours.Protocol, "ray=="+ours.Ray)
	case peer.Python != "" && ours.Python != "" && peer.Python != ours.Python:
		return refuse(fault.Python, "it runs Python %s and the cluster runs Python %s; start it from a Python %s environment with: pip install %q",
			peer.Python, ours.Python, ours.Python, "ray=="+ours.Ray)
	case peer.ClusterID != "" && ours.ClusterID != "" && peer.ClusterID != ours.ClusterID:
		return refuse(fault.Cluster, "it belongs to cluster %s and this is cluster %s; start it afresh with ray stop and ray start",
			shortID(peer.ClusterID), shortID(ours.ClusterID))
	}
	return nil
}

func shortID(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

// addrPort is a connection end's address, with IPv4 as IPv4.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// wireError is how a refusal travels.
type wireError struct {
	Kind  fault.Kind `json:"kind"`
	Error string     `json:"error"`
}
