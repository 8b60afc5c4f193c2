package main

import (
	"os"
	"strings"
	"testing"

	"gray/internal/session"
)

// TestFindToken goes through what decides whether a node's cluster goes by ServiceAccounts. This machine has no such
// tokens, so of a head only what it lacks can be seen; test/kubernetes has the rest.
func TestFindToken(t *testing.T) {
	node, head := session.NodeConfig{Address: "10.0.7.7:6379"}, session.NodeConfig{Head: true}
	for _, tc := range []struct {
		name       string
		env        map[string]string
		cfg        session.NodeConfig
		kubernetes bool
		token      string // "any": one that was made
		err        string
	}{
		{name: "no Kubernetes, no token", cfg: node, err: "no authentication token found"},
		{name: "no Kubernetes, a head makes one", cfg: head, token: "any"},
		{name: "a pod asks the head", env: map[string]string{"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, cfg: node, kubernetes: true},
		{name: "a token that was given comes first", env: map[string]string{"KUBERNETES_SERVICE_HOST": "10.0.0.1", "RAY_AUTH_TOKEN": "mine"}, cfg: node, token: "mine"},
		{name: "tokens only", env: map[string]string{"KUBERNETES_SERVICE_HOST": "10.0.0.1", "RAY_AUTH_MODE": "token"}, cfg: node, err: "no authentication token found"},
		{name: "a head without its own token", env: map[string]string{"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, cfg: head, token: "any"},
		{name: "insisting where there is no Kubernetes", env: map[string]string{"RAY_AUTH_MODE": "k8s"}, cfg: node, err: "KUBERNETES_SERVICE_HOST is not set"},
		{name: "insisting, with a token", env: map[string]string{"RAY_AUTH_MODE": "k8s", "KUBERNETES_SERVICE_HOST": "10.0.0.1", "RAY_AUTH_TOKEN": "mine"}, cfg: node, err: "unset one of them"},
		{name: "insisting, on a head without its own token", env: map[string]string{"RAY_AUTH_MODE": "k8s", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, cfg: head, err: "automountServiceAccountToken"},
		{name: "narrowing nothing", cfg: session.NodeConfig{Head: true, AllowServiceAccounts: []string{"a"}}, err: "--allow-service-account"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, k := range []string{"KUBERNETES_SERVICE_HOST", session.EnvAuthMode, session.EnvToken, session.EnvTokenPath} {
				t.Setenv(k, tc.env[k])
			}
			t.Setenv("HOME", t.TempDir())
			t.Setenv("RAY_TMPDIR", t.TempDir())
			cfg := tc.cfg
			err := resolveToken(&cfg)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("error = %v, lacks %q", err, tc.err)
				}
				return
			}
			if err != nil || cfg.Kubernetes != tc.kubernetes || tc.token != "any" && cfg.Token != tc.token || tc.token == "any" && cfg.Token == "" {
				t.Errorf("kubernetes = %t, token %q, error %v", cfg.Kubernetes, cfg.Token, err)
			}
			if _, set := os.LookupEnv(session.EnvToken); set {
				t.Error("the token stays in the environment that workers inherit")
			}
		})
	}
}
