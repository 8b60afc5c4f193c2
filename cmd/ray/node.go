package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"gray/internal/api"
	"gray/internal/kube"
	"gray/internal/node"
	"gray/internal/pool"
	"gray/internal/rpc"
	"gray/internal/session"
)

// runNode is the daemon of this machine. It logs to stderr: until the node is ready that is the terminal of who starts it,
// which gets warnings only; from then on it is a log file of the session.
func runNode(ctx context.Context, cfg session.NodeConfig, ready func(session.NodeFile) error) error {
	level, err := logLevel(os.Getenv("RAY_LOGGER_LEVEL"))
	if err != nil {
		return err
	}
	var shown slog.LevelVar
	shown.Set(max(level, slog.LevelWarn))
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: &shown}))
	slog.SetDefault(log)
	stop, err := pool.Reap(log) // workers whose zygote was killed become ours
	if err != nil {
		return err
	}
	defer stop()
	faces := node.Faces{Head: face(api.State), Dashboard: face(api.Dashboard), Agent: face(api.Agent)}
	if pod := kube.Here(os.Environ()); pod != nil && cfg.Kubernetes {
		faces.Credential, faces.Verify = pod.Credential, pod.Verifier(cfg.AllowServiceAccounts, log).Verify
	}
	return node.Run(ctx, cfg, log, faces, func(n session.NodeFile) error {
		err := ready(n)
		shown.Set(level)
		if cfg.AuthDisabled && !cfg.Private { // for the log; `ray start` has told the terminal
			log.Warn("RAY_AUTH_MODE=disabled: whoever reaches this node's ports can run code on it")
		}
		if cfg.TLS == "off" {
			log.Warn("--tls=off: what nodes say to each other can be read and changed on the network")
		}
		return err
	})
}

// logLevel reads RAY_LOGGER_LEVEL.
func logLevel(text string) (slog.Level, error) {
	switch strings.ToLower(text) {
	case "debug":
		return slog.LevelDebug, nil
	case "", "info":
		return slog.LevelInfo, nil
	case "warning", "warn":
		return slog.LevelWarn, nil
	case "error", "critical", "fatal":
		return slog.LevelError, nil
	default:
		return 0, fmt.Errorf("RAY_LOGGER_LEVEL=%q: want debug, info, warning, error or critical", text)
	}
}

// face hands a port's routes what they may ask of the daemon.
func face(routes func(*rpc.Mux, api.Config)) func(*rpc.Mux, node.FaceConfig) {
	return func(m *rpc.Mux, c node.FaceConfig) {
		a := api.Config{SessionName: c.SessionName, AuthDisabled: c.AuthDisabled, Local: c.Local, Explain: c.Explain, Logs: c.Logs, Log: c.Log}
		if c.Head != nil {
			a.Cluster = c.Head
		}
		routes(m, a)
	}
}
