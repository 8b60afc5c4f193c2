package rpc

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"net/netip"

	"gray/internal/session"
)

// The proof, in two exchanges on one connection: the client sends a nonce; the server answers with its own; the client
// sends its HMAC; the server, if that is right, answers with its. Both HMACs are over a label of the direction, the
// binding and the two nonces. The binding ties the proof to this connection: behind TLS the hash of the server's
// certificate, so that who sits between two TLS sessions cannot pass proofs on; without TLS the server's address, so that
// a listener on another port cannot. The client goes first, because servers answer strangers and clients do not.

const nonceSize = 32

type nonce [nonceSize]byte

func newNonce() (n nonce) {
	_, _ = rand.Read(n[:]) // never fails: crypto/rand ends the process if the system has no randomness
	return n
}

type binding [sha256.Size]byte

func certBinding(cert *x509.Certificate) binding { return sha256.Sum256(cert.Raw) }

// addrBinding binds to the server's address on loopback. Elsewhere (TLS is switched off) there may be address
// translation between the two sides, so nothing is left to bind to.
func addrBinding(server netip.AddrPort) binding {
	if !server.Addr().IsLoopback() {
		return binding{}
	}
	return sha256.Sum256([]byte("gray-proof-1 address " + server.String()))
}

const (
	clientLabel = "gray-proof-1 client\x00"
	serverLabel = "gray-proof-1 server\x00"
)

func proofMAC(t session.Token, label string, b binding, client, server nonce) []byte {
	h := hmac.New(sha256.New, []byte(t.Reveal()))
	h.Write([]byte(label))
	h.Write(b[:])
	h.Write(client[:])
	h.Write(server[:])
	return h.Sum(nil)
}

// proofRequest is a client's half of either exchange.
type proofRequest struct {
	Nonce []byte `json:"nonce,omitempty"`
	MAC   []byte `json:"mac,omitempty"`
}

// proofReply is the server's half. Ray and ClusterID come only after the client's proof.
type proofReply struct {
	Nonce     []byte `json:"nonce,omitempty"`
	MAC       []byte `json:"mac,omitempty"`
	Ray       string `json:"ray,omitempty"`
	ClusterID string `json:"cluster_id,omitempty"`
}

const proofPath = "/gray/proof"
