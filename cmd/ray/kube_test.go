package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestKubeCommandLines(t *testing.T) {
	home := t.TempDir()
	config := filepath.Join(home, "config")
	text := "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\ncontexts: [{name: x, context: {cluster: c}}]\ncurrent-context: x\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newShell(t).with("HOME="+home, "KUBECONFIG=", "KUBERNETES_SERVICE_HOST=", "HTTPS_PROXY=", "https_proxy=")
	for _, tc := range []struct {
		args   string
		status int
		parts  []string
	}{
		{"kube", 0, []string{"ray kube up --workers 3", "connect"}},
		{"kube what", 2, []string{"No such command 'what'", "Usage: ray kube [OPTIONS] COMMAND"}},
		{"kube up extra", 2, []string{"unexpected extra argument (extra)"}},
		{"kube up --workers -2", 2, []string{"Invalid value for '--workers'"}},
		{"kube up --workers many", 2, []string{"not a valid integer"}},
		{"kube up --dry-run -o json", 2, []string{"'json' is not one of 'yaml'"}},
		{"kube up --dry-run --name A", 1, []string{`--name "A" can't name a cluster`}},
		{"kube up --dry-run --cpus lots", 1, []string{`--cpus "lots" is no number of CPUs`}},
		{"kube status --name A", 1, []string{`--name "A" can't name a cluster`}},
		{"kube run", 2, []string{"Missing argument 'SCRIPT'.", "Usage: ray kube run [OPTIONS] SCRIPT [ARGS]..."}},
		{"kube status", 1, []string{"no Kubernetes cluster is configured", home + "/.kube/config does not exist"}},
		{"kube down --kubeconfig " + config, 1, []string{"connection refused", `context "x" of ` + config}},
		{"kube up --kubeconfig " + config, 1, []string{"connection refused"}},
		{"kube logs --kubeconfig " + config, 1, []string{"connection refused"}},
		{"kube connect --kubeconfig " + config, 1, []string{"connection refused"}},
		{"kube run --kubeconfig " + config + " " + config, 1, []string{"connection refused"}},
		{"kube status --context y --kubeconfig " + config, 1, []string{`no context "y"`}},
	} {
		start := time.Now()
		out, status := s.ray(strings.Split(tc.args, " ")...)
		if status != tc.status {
			t.Errorf("ray %s: status %d, want %d:\n%s", tc.args, status, tc.status, out)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("ray %s took %v", tc.args, took)
		}
		if status == 1 && strings.Count(out, "\n") != 1 {
			t.Errorf("ray %s says more than a line:\n%s", tc.args, out)
		}
		contains(t, out, tc.parts...)
	}
	out, status := s.ray("kube", "up", "--dry-run", "-o", "yaml")
	manifest, err := os.ReadFile("../../deploy/ray-cluster.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if status != 0 || out != string(manifest) {
		t.Errorf("status %d; --dry-run differs from deploy/ray-cluster.yaml:\n%s", status, out)
	}
}
