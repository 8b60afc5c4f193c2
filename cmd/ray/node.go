package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"gray/internal/node"
	"gray/internal/session"
)

// runNode is the daemon of this machine. It logs to stderr, which turns into a log file of the session when it is ready.
func runNode(ctx context.Context, cfg session.NodeConfig, ready func(session.NodeFile) error) error {
	level, err := logLevel(os.Getenv("RAY_LOGGER_LEVEL"))
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(log)
	return node.Run(ctx, cfg, log, ready)
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
