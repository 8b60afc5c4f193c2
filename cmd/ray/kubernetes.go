package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"gray/internal/kube"
	"gray/internal/session"
)

// podIdentity is this pod, where pods are known by their ServiceAccount tokens: on Kubernetes, unless the user chose
// tokens. nil elsewhere.
func podIdentity() *kube.Pod {
	if mode := os.Getenv(session.EnvAuthMode); mode != "" && mode != "k8s" {
		return nil
	}
	return kube.Here(os.Environ())
}

// findToken finds or makes a node's token, and settles whether its cluster goes by ServiceAccounts. A joining node that
// does so has no token yet.
func findToken(cfg *session.NodeConfig) (session.Token, error) {
	pod := podIdentity()
	must := os.Getenv(session.EnvAuthMode) == "k8s"
	given, ok, err := session.GivenToken()
	switch {
	case err != nil:
		return session.Token{}, err
	case must && ok:
		return session.Token{}, fmt.Errorf("%s=k8s lets pods in by their ServiceAccount tokens, and %s gives the cluster a token: unset one of them", session.EnvAuthMode, given.Source)
	case must && pod == nil:
		return session.Token{}, fmt.Errorf("%s=k8s is for pods of a Kubernetes cluster, and this is none: KUBERNETES_SERVICE_HOST is not set", session.EnvAuthMode)
	case ok:
		return given, nil
	case cfg.Head && pod != nil && cfg.TLS != "off" && pod.CanVerify():
		cfg.Kubernetes = true
		return session.RandomToken(), nil // known to nobody before the head hands it over
	case cfg.Head && must:
		return session.Token{}, errors.New("with " + session.EnvAuthMode + "=k8s the head must have its default ServiceAccount token mounted (automountServiceAccountToken: true), and --tls must be on")
	case cfg.Head:
		if pod != nil {
			slog.Warn("this pod has no ServiceAccount token, or --tls is off, so that other pods can't join by theirs: mount one (automountServiceAccountToken: true), or give all pods the same RAY_AUTH_TOKEN from a Secret")
		}
		return session.HeadToken()
	}
	t, err := session.FindToken(localTokenFile(cfg.TempDir, cfg.Address))
	if pod != nil && (must || errors.Is(err, session.ErrNoToken)) {
		cfg.Kubernetes = true
		return session.Token{}, nil
	}
	return t, err
}
