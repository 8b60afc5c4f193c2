package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// execEntry is a user's exec: a program that gives credentials, as clouds have them.
type execEntry struct {
	APIVersion string `yaml:"apiVersion"`
	Command    string
	Args       []string
	Env        []struct{ Name, Value string }
	Hint       string `yaml:"installHint"`
	Info       bool   `yaml:"provideClusterInfo"`
	Mode       string `yaml:"interactiveMode"`
}

// plugin keeps the credentials that such a program gave until they expire.
type plugin struct {
	entry   execEntry
	cluster clusterEntry
	ca      []byte
	source  string
	user    string

	mu     sync.Mutex
	token  string           // guarded by mu
	pair   *tls.Certificate // guarded by mu
	until  time.Time        // guarded by mu; zero: as long as this process lives
	filled bool             // guarded by mu
}

// credential is client.authentication.k8s.io's ExecCredential.
type credential struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Spec       *struct {
		Interactive bool           `json:"interactive"`
		Cluster     map[string]any `json:"cluster,omitempty"`
	} `json:"spec,omitempty"`
	Status *struct {
		Expires time.Time `json:"expirationTimestamp"`
		Token   string    `json:"token"`
		Cert    string    `json:"clientCertificateData"`
		Key     string    `json:"clientKeyData"`
	} `json:"status,omitempty"`
}

// get runs the program unless it has been run and its answer still holds.
func (p *plugin) get(ctx context.Context) (string, *tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.filled && (p.until.IsZero() || time.Until(p.until) > 10*time.Second) {
		return p.token, p.pair, nil
	}
	answer, err := p.run(ctx)
	if err != nil {
		return "", nil, err
	}
	p.token, p.pair, p.until, p.filled = answer.Status.Token, nil, answer.Status.Expires, true
	if answer.Status.Cert != "" {
		pair, err := tls.X509KeyPair([]byte(answer.Status.Cert), []byte(answer.Status.Key))
		if err != nil {
			return "", nil, p.fail(err)
		}
		p.pair = &pair
	}
	return p.token, p.pair, nil
}

// forget has the next get run the program again.
func (p *plugin) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.filled = false
}

// certificate is tls.Config's GetClientCertificate.
func (p *plugin) certificate(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	_, pair, err := p.get(info.Context())
	if err != nil || pair == nil {
		return &tls.Certificate{}, err
	}
	return pair, nil
}

func (p *plugin) run(ctx context.Context) (*credential, error) {
	e := p.entry
	ask := credential{APIVersion: e.APIVersion, Kind: "ExecCredential"}
	ask.Spec = &struct {
		Interactive bool           `json:"interactive"`
		Cluster     map[string]any `json:"cluster,omitempty"`
	}{}
	_, err := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS)
	ask.Spec.Interactive = err == nil && e.Mode != "Never"
	if e.Info {
		ask.Spec.Cluster = map[string]any{"server": p.cluster.Server, "insecure-skip-tls-verify": p.cluster.Insecure}
		if p.cluster.ServerName != "" {
			ask.Spec.Cluster["tls-server-name"] = p.cluster.ServerName
		}
		if p.ca != nil {
			ask.Spec.Cluster["certificate-authority-data"] = base64.StdEncoding.EncodeToString(p.ca)
		}
		if p.cluster.Proxy != "" {
			ask.Spec.Cluster["proxy-url"] = p.cluster.Proxy
		}
	}
	text, err := json.Marshal(ask)
	if err != nil {
		return nil, p.fail(err)
	}
	cmd := exec.CommandContext(ctx, e.Command, e.Args...)
	cmd.Env = append(os.Environ(), "KUBERNETES_EXEC_INFO="+string(text))
	for _, v := range e.Env {
		cmd.Env = append(cmd.Env, v.Name+"="+v.Value)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if ask.Spec.Interactive {
		cmd.Stdin = os.Stdin
	}
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) && e.Hint != "" {
			return nil, p.fail(fmt.Errorf("%w; %s", err, oneLine(e.Hint)))
		}
		return nil, p.fail(err)
	}
	answer := &credential{}
	switch err := json.Unmarshal(out.Bytes(), answer); {
	case err != nil:
		return nil, p.fail(fmt.Errorf("its answer is no JSON: %w", err))
	case answer.APIVersion != e.APIVersion || answer.Kind != "ExecCredential":
		return nil, p.fail(fmt.Errorf("it answers with %s %s, and the kubeconfig says %s", answer.APIVersion, answer.Kind, e.APIVersion))
	case answer.Status == nil || answer.Status.Token == "" && answer.Status.Cert == "":
		return nil, p.fail(errors.New("its answer holds no token and no certificate"))
	}
	return answer, nil
}

func (p *plugin) fail(err error) error {
	return fmt.Errorf("`%s`, which gives the credentials of user %q in %s, failed: %w; run it by hand, or log in again", p.entry.Command, p.user, p.source, err)
}
