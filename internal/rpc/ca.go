package rpc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"time"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/session"
)

// caFile keeps the CA in the head's session folder, so that a restarted head is the same cluster.
const caFile = "cluster_ca.pem"

// Certificates outlive any cluster, whatever the machines' clocks say: a node is shut out by the head, not by a date.
var (
	notBefore = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC)
)

// Authority is a cluster's CA; the head has it.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes a cluster's CA, or takes up the one that dir keeps. A nil dir keeps nothing.
func NewAuthority(dir *session.Dir) (*Authority, error) {
	if dir != nil {
		text, err := dir.ReadFile(caFile)
		if err == nil {
			return parseAuthority(text)
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil, &fault.Error{Op: "read cluster CA", Ref: dir.Path, Kind: fault.System, Err: err}
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make cluster CA: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "gray cluster CA"},
		NotBefore: notBefore, NotAfter: notAfter,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make cluster CA: %w", err)
	}
	a := &Authority{cert: cert, key: key}
	if dir != nil {
		text, err := a.pem()
		if err != nil {
			return nil, err
		}
		if err := dir.WriteFile(caFile, text); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *Authority) pem() ([]byte, error) {
	key, err := x509.MarshalECPrivateKey(a.key)
	if err != nil {
		return nil, fmt.Errorf("write cluster CA: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
	return append(text, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key})...), nil
}

func parseAuthority(text []byte) (*Authority, error) {
	certBlock, rest := pem.Decode(text)
	keyBlock, _ := pem.Decode(rest)
	if certBlock == nil || keyBlock == nil {
		return nil, &fault.Error{Op: "read cluster CA", Ref: caFile, Kind: fault.System, Detail: "it lacks a certificate or a key; start a new session"}
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, &fault.Error{Op: "read cluster CA", Ref: caFile, Kind: fault.System, Err: err}
	}
	key, err := x509.ParseECPrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, &fault.Error{Op: "read cluster CA", Ref: caFile, Kind: fault.System, Err: err}
	}
	return &Authority{cert: cert, key: key}, nil
}

func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[0] &= 0x7f           // positive
	b[15] |= 1             // not zero
	return new(big.Int).SetBytes(b[:])
}

func sign(template, parent *x509.Certificate, pub crypto.PublicKey, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Issue makes a node's certificate.
func (a *Authority) Issue(nodeID string, pub crypto.PublicKey) (*x509.Certificate, error) {
	if _, err := ids.ParseNode(nodeID); err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	if p, ok := pub.(*ecdsa.PublicKey); !ok || p.Curve != elliptic.P256() {
		return nil, fmt.Errorf("issue certificate: want a P-256 key, got %T", pub)
	}
	return sign(&x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: nodeID},
		NotBefore: notBefore, NotAfter: notAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, pub, a.key)
}

// Identity is a daemon as a member of a cluster: what it shows and what it expects of others.
type Identity struct {
	Hello                     // ours; ClusterID and NodeID are set
	SessionName string        // the head's
	Token       session.Token // proves connections without TLS
	TLS         TLSMode
	cert        tls.Certificate
	ca          *x509.CertPool
}

// Identity makes the head's own.
func (a *Authority) Identity(hello Hello, sessionName string, token session.Token, mode TLSMode) (*Identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make node key: %w", err)
	}
	cert, err := a.Issue(hello.NodeID, key.Public())
	if err != nil {
		return nil, err
	}
	return newIdentity(hello, sessionName, token, mode, cert, key, a.cert), nil
}

func newIdentity(hello Hello, sessionName string, token session.Token, mode TLSMode, cert *x509.Certificate, key *ecdsa.PrivateKey, ca *x509.Certificate) *Identity {
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return &Identity{
		Hello: hello, SessionName: sessionName, Token: token, TLS: mode, ca: pool,
		cert: tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert},
	}
}

// errForeign: a certificate of another CA, or none.
var errForeign = errors.New("the peer is of another cluster")

// IsForeign reports whether a dial was answered by a daemon of another cluster.
func IsForeign(err error) bool {
	return errors.Is(err, errForeign) || fault.KindOf(err) == fault.Cluster
}

// verify checks that the peer's certificate is of this cluster and gives its node id.
func (id *Identity) verify(cs tls.ConnectionState, usage x509.ExtKeyUsage) (string, error) {
	if len(cs.PeerCertificates) == 0 {
		return "", fmt.Errorf("%w: it shows no certificate", errForeign)
	}
	leaf := cs.PeerCertificates[0]
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: id.ca, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
		return "", fmt.Errorf("%w: %w", errForeign, err)
	}
	return leaf.Subject.CommonName, nil
}

func (id *Identity) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{id.cert},
		ClientAuth:             tls.RequestClientCert,
		SessionTicketsDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return nil // a client that will prove itself, or ask for an open route
			}
			_, err := id.verify(cs, x509.ExtKeyUsageClientAuth)
			return err
		},
	}
}

// clientTLS: names and addresses are not in our certificates; that the CA is the cluster's is what counts.
func (id *Identity) clientTLS() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{id.cert},
		InsecureSkipVerify: true, // verified below
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := id.verify(cs, x509.ExtKeyUsageServerAuth)
			return err
		},
	}
}
