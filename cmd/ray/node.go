package main

import (
	"context"

	"gray/internal/core/fault"
	"gray/internal/session"
)

func runNode(context.Context, session.NodeConfig, func(session.NodeFile) error) error {
	return &fault.Error{Op: "start node", Kind: fault.NotImplemented, Detail: "this build has no node daemon"}
}
