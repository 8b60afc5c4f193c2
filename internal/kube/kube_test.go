package kube

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gray/internal/core/fault"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const (
	issuer    = "https://kubernetes.default.svc.cluster.local"
	namespace = "s1234567"
)

// signer is one of an API server's keys.
type signer struct {
	id  string
	alg jose.SignatureAlgorithm
	key crypto.Signer
}

func newSigner(t *testing.T, id string, alg jose.SignatureAlgorithm) signer {
	t.Helper()
	var key crypto.Signer
	var err error
	if alg == jose.RS256 {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	check(t, err)
	return signer{id, alg, key}
}

// body is a ServiceAccount token's claims; change alters them before they are signed.
func (s signer) token(t testing.TB, audience string, now time.Time, change func(map[string]any)) string {
	t.Helper()
	body := map[string]any{
		"iss": issuer, "aud": []string{audience}, "sub": "system:serviceaccount:" + namespace + ":default",
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{
			"namespace": namespace, "serviceaccount": map[string]any{"name": "default", "uid": "1"}, "pod": map[string]any{"name": "p", "uid": "2"},
		},
	}
	if change != nil {
		change(body)
	}
	sig, err := jose.NewSigner(jose.SigningKey{Algorithm: s.alg, Key: jose.JSONWebKey{Key: s.key, KeyID: s.id}}, nil)
	check(t, err)
	text, err := jwt.Signed(sig).Claims(body).Serialize()
	check(t, err)
	return text
}

// of sets whose the token is.
func of(namespace, name string) func(map[string]any) {
	return func(m map[string]any) {
		m["sub"] = "system:serviceaccount:" + namespace + ":" + name
		m["kubernetes.io"] = map[string]any{"namespace": namespace, "serviceaccount": map[string]any{"name": name}}
	}
}

// apiServer answers as one does, to who shows one of its tokens.
type apiServer struct {
	*httptest.Server
	mu       sync.Mutex
	keys     []signer          // guarded by mu
	hidden   bool              // guarded by mu; the keys are not shown
	broken   bool              // guarded by mu
	users    map[string]string // guarded by mu; by token, for reviews
	accepted string            // guarded by mu; the head's own token
	calls    map[string]int    // guarded by mu; by path
}

func (a *apiServer) set(f func()) { a.mu.Lock(); defer a.mu.Unlock(); f() }

func (a *apiServer) count(path string) int { a.mu.Lock(); defer a.mu.Unlock(); return a.calls[path] }

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls[r.URL.Path]++
	bearer := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	answer := func(kind string, v any) {
		if !strings.Contains(r.Header.Get("Accept"), kind) {
			http.Error(w, "only "+kind+" is served", http.StatusNotAcceptable)
			return
		}
		text, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(text) // the caller may be gone
	}
	switch {
	case a.broken:
		http.Error(w, "no", http.StatusInternalServerError)
	case r.URL.Path == reviewPath && r.Method == http.MethodPost:
		user, ok := a.users[bearer]
		if !ok {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		answer("application/json", map[string]any{"status": map[string]any{"userInfo": map[string]any{"username": user}}})
	case bearer != a.accepted:
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
	case a.hidden:
		http.Error(w, "Forbidden", http.StatusForbidden)
	case r.URL.Path == discoveryPath:
		answer("application/json", map[string]any{"issuer": issuer, "jwks_uri": "https://elsewhere.example/keys"})
	case r.URL.Path == keysPath:
		set := jose.JSONWebKeySet{}
		for _, k := range a.keys {
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.key.Public(), KeyID: k.id, Algorithm: string(k.alg), Use: "sig"})
		}
		answer("application/jwk-set+json", set)
	default:
		http.NotFound(w, r)
	}
}

// world is an API server and the head's pod.
type world struct {
	api *apiServer
	pod *Pod
	v   *Verifier
	now time.Time
}

func newWorld(t *testing.T, key signer, allow ...string) *world {
	t.Helper()
	w := &world{now: time.Now()}
	own := key.token(t, issuer, w.now, nil)
	w.api = &apiServer{keys: []signer{key}, users: map[string]string{}, accepted: own, calls: map[string]int{}}
	w.api.Server = httptest.NewTLSServer(w.api)
	t.Cleanup(w.api.Close)
	dir := t.TempDir()
	write := func(name string, text []byte) { check(t, os.WriteFile(filepath.Join(dir, name), text, 0o600)) }
	write("ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.api.Certificate().Raw}))
	write("namespace", []byte(namespace))
	write("token", []byte(own))
	w.pod = &Pod{api: w.api.Listener.Addr().String(), account: dir, projected: filepath.Join(dir, "ray-token")}
	w.v = w.pod.Verifier(allow, slog.New(slog.DiscardHandler))
	w.v.now = func() time.Time { return w.now }
	return w
}

func (w *world) refused(t *testing.T, text string, parts ...string) {
	t.Helper()
	who, err := w.v.Verify(t.Context(), text)
	if err == nil {
		t.Fatalf("let in as %q; want a refusal with %q", who, parts)
	}
	if fault.KindOf(err) != fault.Auth {
		t.Errorf("kind = %s, want a refusal: %v", fault.KindOf(err), err)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error = %q, lacks %q", err, p)
		}
	}
	if sig := text[strings.LastIndex(text, ".")+1:]; sig != "" && strings.Contains(err.Error(), sig) {
		t.Errorf("the error tells the token: %v", err)
	}
}

func (w *world) letIn(t *testing.T, text, want string) {
	t.Helper()
	if who, err := w.v.Verify(t.Context(), text); err != nil || who != want {
		t.Errorf("Verify = %q, %v; want %q", who, err, want)
	}
}

func TestVerify(t *testing.T) {
	es, rs := newSigner(t, "es", jose.ES256), newSigner(t, "rs", jose.RS256)
	stranger := newSigner(t, "es", jose.ES256) // the same name, another key
	for _, key := range []signer{es, rs} {
		t.Run(string(key.alg), func(t *testing.T) {
			w := newWorld(t, key)
			now := w.now
			w.letIn(t, key.token(t, Audience, now, nil), namespace+"/default")
			w.letIn(t, key.token(t, issuer, now, of(namespace, "trainer")), namespace+"/trainer") // a pod's default token
			good := key.token(t, Audience, now, nil)
			for _, tc := range []struct {
				name, text string
				parts      []string
			}{
				{"expired", key.token(t, Audience, now.Add(-2*time.Hour), nil), []string{"expired at"}},
				{"not yet valid", key.token(t, Audience, now.Add(time.Hour), nil), []string{"not valid yet"}},
				{"never expires", key.token(t, Audience, now, func(m map[string]any) { delete(m, "exp") }), []string{"never expires"}},
				{"another audience", key.token(t, "vault", now, nil), []string{`made out to vault`}},
				{"no audience", key.token(t, Audience, now, func(m map[string]any) { delete(m, "aud") }), []string{"made out to"}},
				{"another namespace", key.token(t, Audience, now, of("other", "default")), []string{`namespace "other"`, namespace}},
				{"namespace and subject differ", key.token(t, Audience, now, func(m map[string]any) { m["sub"] = "system:serviceaccount:other:default" }), []string{"no ServiceAccount"}},
				{"a user", key.token(t, Audience, now, func(m map[string]any) { m["sub"] = "admin" }), []string{"no ServiceAccount"}},
				{"another issuer", key.token(t, Audience, now, func(m map[string]any) { m["iss"] = "https://elsewhere" }), []string{"issuer"}},
				{"signed by a stranger", stranger.token(t, Audience, now, nil), nil},
				{"an unknown key", newSigner(t, "new", key.alg).token(t, Audience, now, nil), []string{"not one of this cluster"}},
				{"no key named", signer{"", key.alg, key.key}.token(t, Audience, now, nil), []string{"does not name the key"}},
				{"signature cut off", good[:strings.LastIndex(good, ".")+1], nil},
				{"claims changed", strings.Replace(good, ".eyJ", ".eyK", 1), nil},
				{"no token at all", "abc", []string{"not a signed token"}},
				{"empty", "", []string{"not a signed token"}},
				{"very long", strings.Repeat("a", maxToken+1), []string{"longer than"}},
				{"unsigned", unsigned(good), []string{"not a signed token"}},
			} {
				t.Run(tc.name, func(t *testing.T) { w.refused(t, tc.text, tc.parts...) })
			}
		})
	}
}

// unsigned is a token's claims with the algorithm "none".
func unsigned(token string) string {
	parts := strings.Split(token, ".")
	return "eyJhbGciOiJub25lIn0." + parts[1] + "."
}

// A public key is no secret: who signs by HMAC with it must not get in.
func TestVerifyRefusesHMACWithThePublicKey(t *testing.T) {
	key := newSigner(t, "rs", jose.RS256)
	w := newWorld(t, key)
	text, err := json.Marshal(jose.JSONWebKey{Key: key.key.Public(), KeyID: "rs"})
	check(t, err)
	sig, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: text, KeyID: "rs"}}, nil)
	check(t, err)
	forged, err := jwt.Signed(sig).Claims(map[string]any{"iss": issuer}).Serialize()
	check(t, err)
	w.refused(t, forged, "not a signed token")
}

func TestVerifyNarrowsByName(t *testing.T) {
	key := newSigner(t, "es", jose.ES256)
	w := newWorld(t, key, "ray", "driver")
	w.letIn(t, key.token(t, Audience, w.now, of(namespace, "driver")), namespace+"/driver")
	w.refused(t, key.token(t, Audience, w.now, nil), `"default" may not join`, "--allow-service-account", "ray, driver")
}

func TestKeysRotate(t *testing.T) {
	before, after := newSigner(t, "1", jose.ES256), newSigner(t, "2", jose.RS256)
	w := newWorld(t, before)
	w.letIn(t, before.token(t, Audience, w.now, nil), namespace+"/default")
	w.letIn(t, before.token(t, Audience, w.now, nil), namespace+"/default")
	if n := w.api.count(keysPath); n != 1 {
		t.Errorf("the keys were fetched %d times for two tokens, want once", n)
	}
	// Strangers with keys of their own cannot make the head ask and ask.
	for range 20 {
		w.refused(t, newSigner(t, "x", jose.ES256).token(t, Audience, w.now, nil))
	}
	if n := w.api.count(keysPath); n != 1 {
		t.Errorf("the keys were fetched %d times within %v, want once", n, keysPause)
	}
	w.api.set(func() { w.api.keys = []signer{after} })
	w.now = w.now.Add(keysPause)
	w.letIn(t, after.token(t, Audience, w.now, nil), namespace+"/default")
	w.refused(t, before.token(t, Audience, w.now, nil), "not one of this cluster")
	// A key that was withdrawn is not believed for longer than keysAge.
	w.api.set(func() { w.api.keys = []signer{before} })
	w.now = w.now.Add(keysAge)
	w.refused(t, after.token(t, Audience, w.now, nil), "not one of this cluster")
}

func TestVerifyWhileTheAPIServerFails(t *testing.T) {
	key := newSigner(t, "es", jose.ES256)
	w := newWorld(t, key)
	w.api.set(func() { w.api.broken = true })
	text := key.token(t, Audience, w.now, nil)
	for range 5 {
		if _, err := w.v.Verify(t.Context(), text); fault.KindOf(err) != fault.System || !strings.Contains(err.Error(), "HTTP status 500") {
			t.Fatalf("Verify = %v; want that it can't be checked now", err)
		}
	}
	if n := w.api.count(discoveryPath); n != 1 {
		t.Errorf("asked %d times within %v, want once", n, failPause)
	}
	w.api.set(func() { w.api.broken = false })
	w.now = w.now.Add(failPause)
	w.letIn(t, text, namespace+"/default")
}

func TestVerifyByReviewWhereKeysAreHidden(t *testing.T) {
	key := newSigner(t, "es", jose.ES256)
	w := newWorld(t, key, "default")
	plain, own := key.token(t, issuer, w.now, nil), key.token(t, Audience, w.now, nil)
	other, user := key.token(t, issuer, w.now, of("other", "default")), key.token(t, issuer, w.now, of(namespace, "x"))
	w.api.set(func() {
		w.api.hidden = true
		w.api.users[plain] = "system:serviceaccount:" + namespace + ":default"
		w.api.users[other] = "system:serviceaccount:other:default"
		w.api.users[user] = "kubernetes-admin"
	})
	w.letIn(t, plain, namespace+"/default")
	w.refused(t, other, `namespace "other"`)
	w.refused(t, user, "no ServiceAccount")
	w.refused(t, own, "the API server does not accept it", "system:service-account-issuer-discovery")
}

// The API server's certificate must be of the CA that the pod was given.
func TestVerifyBelievesNoOtherAPIServer(t *testing.T) {
	key := newSigner(t, "es", jose.ES256)
	w := newWorld(t, key)
	fake := newWorld(t, newSigner(t, "es", jose.ES256))
	w.pod.api = fake.api.Listener.Addr().String()
	ca := filepath.Join(w.pod.account, "ca.crt")
	check(t, os.WriteFile(ca, otherCertificate(t), 0o600))
	if _, err := w.v.Verify(t.Context(), key.token(t, Audience, w.now, nil)); fault.KindOf(err) != fault.System || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("Verify = %v; want that the API server's certificate is not believed", err)
	}
	if n := fake.api.count(discoveryPath); n != 0 {
		t.Errorf("the token was shown to it %d times", n)
	}
}

func TestCredential(t *testing.T) {
	dir := t.TempDir()
	environ := []string{
		"HOME=/root", "KUBERNETES_SERVICE_HOST=10.0.0.1", "KUBERNETES_SERVICE_PORT=6443", "RAY_HEAD_SERVICE_HOST=10.0.7.7", "EMPTY_SERVICE_HOST=",
	}
	if p := Here([]string{"HOME=/root"}); p != nil {
		t.Errorf("Here = %+v outside of Kubernetes", p)
	}
	p := Here(environ)
	if p == nil || p.api != "10.0.0.1:6443" || !slices.Equal(p.services, []string{"10.0.0.1", "10.0.7.7"}) {
		t.Fatalf("Here = %+v", p)
	}
	p.account, p.projected = dir, filepath.Join(dir, "projected")
	refused := func(address string, parts ...string) {
		t.Helper()
		text, err := p.Credential(address)
		for _, part := range parts {
			if err == nil || fault.KindOf(err) != fault.Auth || !strings.Contains(err.Error(), part) {
				t.Errorf("Credential(%q) = %q, %v; want an error with %q", address, text, err, part)
			}
		}
	}
	refused("10.0.7.7:6379", "no ServiceAccount token is mounted", "RAY_AUTH_TOKEN from a Secret")
	if p.CanVerify() {
		t.Error("a pod without a token can't ask the API server")
	}
	check(t, os.WriteFile(filepath.Join(dir, "namespace"), []byte(namespace), 0o600))
	check(t, os.WriteFile(filepath.Join(dir, "token"), []byte("default\n"), 0o600))
	// The default token opens the API server: only this namespace's Services get to see it.
	for _, address := range []string{"10.0.7.7:6379", "ray-head:6379", "ray-head." + namespace + ":6379", "ray-head." + namespace + ".svc.cluster.local:6379"} {
		if text, err := p.Credential(address); text != "default" {
			t.Errorf("Credential(%q) = %q, %v", address, text, err)
		}
	}
	for _, address := range []string{"10.0.9.9:6379", "ray-head.other:6379", "ray-head.other.svc:6379", "example.com:6379", "a." + namespace + ".example.com:6379", "localhost:6379", "10.0.7.7", ""} {
		refused(address, "sent only to a Service of this namespace")
	}
	check(t, os.WriteFile(p.projected, []byte("ours\n"), 0o600))
	for _, address := range []string{"10.0.7.7:6379", "10.0.9.9:6379"} {
		if text, err := p.Credential(address); text != "ours" {
			t.Errorf("Credential(%q) = %q, %v", address, text, err)
		}
	}
	check(t, os.WriteFile(p.projected, nil, 0o600))
	refused("10.0.7.7:6379", "empty")
	check(t, os.WriteFile(p.projected, []byte(strings.Repeat("x", maxToken+1)), 0o600))
	refused("10.0.7.7:6379", fmt.Sprint(maxToken))
}

func TestVerifyStopsWithItsCaller(t *testing.T) {
	key := newSigner(t, "es", jose.ES256)
	w := newWorld(t, key)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := w.v.Verify(ctx, key.token(t, Audience, w.now, nil)); fault.KindOf(err) != fault.System {
		t.Errorf("Verify = %v; want that it was not checked", err)
	}
}

// otherCertificate is one that signed nothing here.
func otherCertificate(t *testing.T) []byte {
	t.Helper()
	key := newSigner(t, "", jose.ES256).key
	der, err := selfSigned(key)
	check(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestServiceAddress(t *testing.T) {
	const in = "KUBERNETES_SERVICE_HOST=10.0.0.254"
	for _, tc := range []struct {
		environ []string
		want    string
	}{
		{nil, ""},
		{[]string{"RAY_HEAD_SERVICE_HOST=10.0.0.1"}, ""},
		{[]string{in}, ""},
		{[]string{in, "RAY_HEAD_SERVICE_HOST=10.0.0.1"}, "10.0.0.1:6379"},
		{[]string{in, "RAY_HEAD_SERVICE_HOST=10.0.0.1", "RAY_HEAD_SERVICE_PORT=10001", "RAY_HEAD_SERVICE_PORT_GCS_SERVER=7"}, "10.0.0.1:7"},
		{[]string{in, "RAY_HEAD_SERVICE_HOST=fd00::1", "RAY_HEAD_SERVICE_PORT_REDIS_PRIMARY=8", "RAY_HEAD_SERVICE_PORT_GCS_SERVER=7"}, "[fd00::1]:8"},
	} {
		if got := ServiceAddress(tc.environ); got != tc.want {
			t.Errorf("ServiceAddress(%q) = %q, want %q", tc.environ, got, tc.want)
		}
	}
}
