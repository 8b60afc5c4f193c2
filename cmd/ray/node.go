package main

import (
	"context"
	"log/slog"

	"gray/internal/node"
	"gray/internal/session"
)

// runNode runs a daemon in this process.
func runNode(ctx context.Context, cfg session.NodeConfig, ready func(session.NodeFile) error) error {
	return node.Run(ctx, cfg, slog.Default(), ready)
}
