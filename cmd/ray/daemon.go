package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"gray/internal/core/fault"
	"gray/internal/session"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// replacedStatus is a daemon's exit status when its head was replaced by one of a new cluster: its supervisor starts
// another, which joins that. (EX_TEMPFAIL of sysexits.h.)
const replacedStatus = 75

// maxConfig bounds the configuration that a daemon reads.
const maxConfig = 1 << 20

// readyError is what a daemon that cannot start tells on its ready descriptor, in place of its node file.
type readyError struct {
	Error string     `json:"error"`
	Kind  fault.Kind `json:"kind"`
}

func (a *app) daemonCommand() *cobra.Command {
	var configFD, readyFD int
	cmd := &cobra.Command{
		Use: "daemon", Hidden: true,
		Short: "Run a node daemon in the foreground, as `ray start` and ray.init() start it.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if configFD < 0 || readyFD < 0 {
				return &usageError{cmd, "Missing option '--config-fd' or '--ready-fd'."}
			}
			return a.daemon(configFD, readyFD)
		},
	}
	cmd.Flags().IntVar(&configFD, "config-fd", -1, "descriptor from which the JSON configuration is read to its end")
	cmd.Flags().IntVar(&readyFD, "ready-fd", -1, "descriptor to which one JSON line is written: the node file, or {error, kind}")
	return cmd
}

// daemon runs a node until SIGTERM. Ctrl-C and hang-ups at the terminal that started it are not for it.
func (a *app) daemon(configFD, readyFD int) error {
	unix.CloseOnExec(configFD)
	unix.CloseOnExec(readyFD)
	ready := os.NewFile(uintptr(readyFD), "ready")
	defer ready.Close()
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()

	err := func() error {
		if err := session.HideMemory(); err != nil { // before the token is in it
			return err
		}
		cfg, err := readConfig(configFD)
		if err != nil {
			return err
		}
		return a.run(ctx, *cfg, func(n session.NodeFile) error {
			if err := redirectOutput(n); err != nil {
				return err
			}
			return sayReady(ready, n)
		})
	}()
	if err == nil {
		return nil
	}
	// Before the node was ready its starter hears of the error; afterwards the descriptor is closed, and the log does.
	if werr := sayReady(ready, readyError{Error: err.Error(), Kind: fault.KindOf(err)}); werr == nil {
		return &exitError{status: 1}
	}
	if fault.KindOf(err) == fault.Cluster {
		return &exitError{status: replacedStatus, line: fmt.Sprintf("Error: %v", err)}
	}
	return err
}

func sayReady(ready *os.File, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		_, err = ready.Write(append(b, '\n'))
	}
	return errors.Join(err, ready.Close())
}

func readConfig(fd int) (*session.NodeConfig, error) {
	f := os.NewFile(uintptr(fd), "config")
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("read the daemon's configuration: %w", err)
	}
	if len(text) > maxConfig {
		return nil, fmt.Errorf("the daemon's configuration is over %d bytes", maxConfig)
	}
	var cfg session.NodeConfig
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&cfg); err != nil {
		return nil, fmt.Errorf("read the daemon's configuration: %w", err)
	}
	if err := cfg.Override(os.Getenv); err != nil {
		return nil, err
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &cfg, resolveToken(&cfg)
}

// resolveToken finds the cluster's token, and takes it out of the environment that workers inherit.
func resolveToken(cfg *session.NodeConfig) error {
	off, err := session.AuthDisabled()
	if err != nil {
		return err
	}
	cfg.AuthDisabled = cfg.AuthDisabled || off
	if cfg.Token == "" && !cfg.Private && !cfg.AuthDisabled {
		t, err := findToken(cfg)
		if err != nil {
			return err
		}
		if t.Notice != "" {
			slog.Warn(t.Notice)
		}
		cfg.Token, cfg.TokenSource = t.Reveal(), t.Source
	}
	if len(cfg.AllowServiceAccounts) > 0 && !cfg.Kubernetes {
		return fmt.Errorf("--allow-service-account narrows whom the head lets in by a ServiceAccount token, and this head lets in nobody by it: " +
			"it must be a pod with its default token mounted, and RAY_AUTH_TOKEN must not be set")
	}
	if err := os.Unsetenv(session.EnvToken); err != nil {
		return err
	}
	if cfg.Python == "" {
		cfg.Python = os.Getenv("GRAY_PYTHON")
	}
	return nil
}

// localTokenFile is the token file of the cluster at address if this user runs a node of it on this machine.
func localTokenFile(tempDir, address string) string {
	n, err := localNode(tempDir, address)
	if err != nil || n == nil {
		return ""
	}
	return n.TokenFile
}

// localNode is a live node of this user and machine whose head is at address; nil if there is none. On the head's own
// machine 127.0.0.1 means the head, too, whichever address it listens on.
func localNode(tempDir, address string) (*session.NodeFile, error) {
	root, err := session.FindRoot(tempDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	nodes, bad := root.LiveNodes()
	for i := range nodes {
		if nodes[i].GCSAddress == address {
			return &nodes[i], nil
		}
	}
	host, port, err := net.SplitHostPort(address)
	if ip, perr := netip.ParseAddr(host); err == nil && (host == "localhost" || perr == nil && ip.IsLoopback()) {
		for i := range nodes {
			if _, p, err := net.SplitHostPort(nodes[i].GCSAddress); err == nil && p == port && nodes[i].Head && !nodes[i].Private {
				return &nodes[i], nil
			}
		}
	}
	return nil, bad
}

// redirectOutput turns stdout and stderr into the session's log files, so that nothing holds the terminal or pipe of who
// started the daemon.
func redirectOutput(n session.NodeFile) error {
	suffix := strings.TrimPrefix(filepath.Base(n.Socket), "raylet") // "" or ".1", ".2" for more daemons of a machine
	for fd, ext := range map[int]string{1: ".out", 2: ".err"} {
		path := filepath.Join(n.SessionDir, "logs", "raylet"+suffix+ext)
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return &fault.Error{Op: "open log", Ref: path, Kind: fault.System, Err: err}
		}
		err = unix.Dup3(int(f.Fd()), fd, 0)
		f.Close()
		if err != nil {
			return &fault.Error{Op: "redirect output", Ref: path, Kind: fault.System, Err: err}
		}
	}
	return nil
}
