package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"gray/internal/kube"
	"gray/internal/rpc"
	"gray/internal/session"

	"github.com/spf13/cobra"
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

// nodeAtCommand tells which cluster of this machine's nodes answers at an address that none of them knows: a Service's
// in front of the head, or another name of its machine. It prints the address by which the nodes know it.
func (a *app) nodeAtCommand() *cobra.Command {
	var address, tempDir string
	cmd := &cobra.Command{
		Use: "node-at", Hidden: true,
		Short: "Print the address under which this machine's nodes know the cluster at --address, as ray.init() asks.",
		RunE: func(*cobra.Command, []string) error {
			root, err := session.FindRoot(tempDir)
			if err != nil {
				return err
			}
			defer root.Close()
			nodes, err := root.LiveNodes()
			tried := map[string]bool{}
			for _, n := range nodes {
				if n.Private || n.Guest || tried[n.SessionName] {
					continue
				}
				tried[n.SessionName] = true
				same, why := answersAt(address, n)
				if same {
					fmt.Fprintln(a.out, n.GCSAddress)
					return nil
				}
				err = errors.Join(err, why)
			}
			return errors.Join(fmt.Errorf("no node of this machine is of the cluster at %s", address), err)
		},
	}
	cmd.Flags().StringVar(&address, "address", "", "host:port of a head")
	cmd.Flags().StringVar(&tempDir, "temp-dir", "", "folder of the sessions (default $RAY_TMPDIR/ray or /tmp/ray)")
	return cmd
}

// answersAt reports whether the head of a node's cluster answers at address. Both sides prove the cluster's token.
func answersAt(address string, n session.NodeFile) (bool, error) {
	token, err := session.ReadTokenFile(n.TokenFile)
	if err != nil {
		return false, err
	}
	d := &rpc.Dialer{Token: token}
	if n.TLS == "off" {
		d.TLS = rpc.TLSOff
	}
	status, body, err := fetch(d, address, "/api/version", false, askTimeout)
	if err != nil || status != http.StatusOK {
		return false, err
	}
	var answer struct {
		SessionName string `json:"session_name"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return false, err
	}
	return answer.SessionName != "" && answer.SessionName == n.SessionName, nil
}
