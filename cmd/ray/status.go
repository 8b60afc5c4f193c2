package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"gray/internal/kube"
	"gray/internal/rpc"
	"gray/internal/session"
	"gray/internal/version"

	"github.com/spf13/cobra"
)

// askTimeout bounds a question to the head.
const askTimeout = 5 * time.Second

const noCluster = "Could not find any running Ray instance. Please specify the one to connect to by setting `--address` flag or `RAY_ADDRESS` environment variable."

// where are the flags by which commands find a cluster.
type where struct {
	address, tempDir string
	tls              choice
}

func (w *where) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	w.tls = choice{"on", []string{"on", "off"}}
	fs.StringVar(&w.address, "address", "", "host:port of the head (default RAY_ADDRESS, or the cluster started here last)")
	fs.StringVar(&w.tempDir, "temp-dir", "", "folder of the sessions (default $RAY_TMPDIR/ray or /tmp/ray)")
	fs.Var(&w.tls, "tls", "off for a cluster that was started with --tls=off")
}

// find gives the head's address and a dialer for it.
func (w *where) find(needToken bool) (string, *rpc.Dialer, error) {
	address := w.address
	if address == "" {
		address = os.Getenv("RAY_ADDRESS")
	}
	if address == "" || address == "auto" {
		var err error
		if address, err = currentAddress(w.tempDir); err != nil {
			return "", nil, err
		}
	}
	if scheme, _, ok := strings.Cut(address, "://"); ok {
		return "", nil, fmt.Errorf("--address %s: this command asks the head itself; give its host:port without %s://", address, scheme)
	}
	n, err := localNode(w.tempDir, address)
	if err != nil {
		return "", nil, err
	}
	d := &rpc.Dialer{}
	if w.tls.value == "off" {
		d.TLS = rpc.TLSOff
	}
	tokenFile := ""
	if n != nil {
		tokenFile, address = n.TokenFile, n.GCSAddress
		if n.TLS == "off" {
			d.TLS = rpc.TLSOff
		}
	}
	d.Token, err = session.FindToken(tokenFile)
	if errors.Is(err, session.ErrNoToken) && !needToken {
		err = nil
	}
	if errors.Is(err, session.ErrNoToken) {
		if pod := podIdentity(); pod != nil {
			ctx, stop := context.WithTimeout(context.Background(), askTimeout)
			defer stop()
			d.Token, err = rpc.AskToken(ctx, address, d.TLS, pod.Credential)
		}
	}
	return address, d, err
}

// currentAddress is the cluster that was started on this machine last; in a pod without one, that of the head's Service.
func currentAddress(tempDir string) (string, error) {
	address, err := lastStarted(tempDir)
	if err == nil && address == "" {
		address = kube.ServiceAddress(os.Environ())
	}
	if err == nil && address == "" {
		err = connectionError("%s", noCluster)
	}
	return address, err
}

func lastStarted(tempDir string) (string, error) {
	root, err := session.FindRoot(tempDir)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer root.Close()
	return root.Current()
}

func (a *app) statusCommand() *cobra.Command {
	var w where
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Print what the cluster has, uses and waits for.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			verbose, err := cmd.Flags().GetCount("verbose")
			if err != nil {
				return err
			}
			return a.status(&w, verbose > 0)
		},
	}
	w.register(cmd)
	cmd.Flags().CountP("verbose", "v", "more about each node")
	return cmd
}

// clusterStatus is the part of the head's answer that `ray status` prints.
type clusterStatus struct {
	Result bool   `json:"result"`
	Msg    string `json:"msg"`
	Data   struct {
		Text string `json:"cluster_status"`
	} `json:"data"`
}

func (a *app) status(w *where, verbose bool) error {
	address, d, err := w.find(true)
	if err != nil {
		return err
	}
	path := "/api/cluster_status?format=1"
	if verbose {
		path += "&verbose=1"
	}
	body, err := ask(d, address, path, true)
	if err != nil {
		return err
	}
	var answer clusterStatus
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("the head at %s answers with something else than a status: %w", address, err)
	}
	if !answer.Result {
		return fmt.Errorf("the head at %s has no status: %s", address, answer.Msg)
	}
	if answer.Data.Text == "" {
		answer.Data.Text = "No cluster status. It may take a few seconds for the Ray internal services to start up."
	}
	fmt.Fprintln(a.out, strings.TrimRight(answer.Data.Text, "\n"))
	return nil
}

func (a *app) healthCommand() *cobra.Command {
	var w where
	var component string
	var skip bool
	cmd := &cobra.Command{
		Use: "health-check", Hidden: true,
		Short: "Exit with 0 if the head can be reached and has this version.",
		RunE: func(*cobra.Command, []string) error {
			if component != "" {
				return fmt.Errorf("--component: health reports of single components are not in this version of Gray yet")
			}
			address, d, err := w.find(false)
			if err != nil {
				return err
			}
			_, err = ask(d, address, "/api/gcs_healthz", !skip)
			return err
		},
	}
	w.register(cmd)
	cmd.Flags().StringVar(&component, "component", "", "ask for the health of one component")
	cmd.Flags().BoolVar(&skip, "skip-version-check", false, "do not compare versions")
	return cmd
}

// ask gets a path from the head.
func ask(d *rpc.Dialer, address, path string, sameVersion bool) ([]byte, error) {
	status, body, err := fetch(d, address, path, sameVersion, askTimeout)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("the head at %s answers with HTTP status %d: %s", address, status, strings.TrimSpace(string(body)))
	}
	return body, nil
}

// fetch gets a path from the head, over a connection on which both sides have proved the token if there is one.
func fetch(d *rpc.Dialer, address, path string, sameVersion bool, timeout time.Duration) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := d.Dial(ctx, address)
	if errors.Is(err, rpc.ErrUnreachable) {
		return 0, nil, connectionError("no Ray cluster answers at %s: %v", address, err)
	}
	if err != nil {
		return 0, nil, err
	}
	defer conn.Close()
	if sameVersion && conn.Ray != "" && conn.Ray != version.Version {
		return 0, nil, &exitError{status: 1, line: fmt.Sprintf("RuntimeError: Ray version mismatch: cluster has Ray version %s but local Ray version is %s", conn.Ray, version.Version)}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := conn.Do(req)
	if err != nil {
		return 0, nil, connectionError("the head at %s does not answer: %v", address, err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return 0, nil, connectionError("the head at %s does not answer: %v", address, err)
	}
	return resp.StatusCode, body, nil
}
