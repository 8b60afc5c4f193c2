package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"gray/internal/session"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func (a *app) stopCommand() *cobra.Command {
	var force bool
	var grace int
	var tempDir string
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "Stop every Ray cluster of this user on this machine, below the temp dir.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if grace < 0 {
				return &usageError{cmd, fmt.Sprintf("Invalid value for '--grace-period': %d is negative.", grace)}
			}
			return a.stop(tempDir, force, time.Duration(grace)*time.Second)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "kill (SIGKILL) instead of asking")
	cmd.Flags().IntVarP(&grace, "grace-period", "g", 16, "seconds to wait for nodes to end before they are killed")
	cmd.Flags().StringVar(&tempDir, "temp-dir", "", "folder of the sessions (default $RAY_TMPDIR/ray or /tmp/ray)")
	a.styleFlags(cmd)
	return cmd
}

// target is a daemon to stop.
type target struct {
	node session.NodeFile
	proc *session.Process
	done bool
}

// stop ends the daemons that node files name, first those that joined, then the heads.
func (a *app) stop(tempDir string, force bool, grace time.Duration) error {
	p := a.printer()
	root, err := session.FindRoot(tempDir)
	if errors.Is(err, os.ErrNotExist) {
		p.print("Did not find any active Ray processes.")
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	nodes, err := root.Nodes()
	if err != nil {
		p.warn("left alone: %v", err)
	}
	var targets []*target
	for _, n := range nodes {
		proc, err := session.OpenProcess(n.PID, n.StartTime)
		switch {
		case errors.Is(err, os.ErrNotExist):
			if err := root.ForgetNode(n); err != nil {
				p.warn("%v", err)
			}
		case err != nil:
			return fmt.Errorf("open process %d of node %s: %w", n.PID, n.NodeID, err)
		default:
			defer proc.Close()
			targets = append(targets, &target{node: n, proc: proc})
		}
	}
	current, err := root.Current()
	if err != nil {
		p.warn("%v", err)
	}
	if len(targets) == 0 {
		p.print("Did not find any active Ray processes.")
		return root.ClearCurrent("")
	}
	slices.SortStableFunc(targets, func(x, y *target) int { return rank(x) - rank(y) })
	sig := unix.SIGTERM
	if force {
		sig = unix.SIGKILL
	}
	deadline := time.Now().Add(grace)
	stopped := 0
	for _, group := range [][]*target{ofRank(targets, 0), ofRank(targets, 1)} {
		for _, t := range group {
			if err := t.proc.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
				p.fail("signal %v to process %d: %v", sig, t.node.PID, err)
			}
		}
		for _, t := range group {
			if t.done = t.proc.Wait(time.Until(deadline)); t.done {
				stopped++
			}
		}
	}
	if stopped == len(targets) {
		p.success("Stopped all %d Ray processes.", stopped)
	} else {
		var left []int
		for _, t := range targets {
			if !t.done {
				left = append(left, t.node.PID)
			}
		}
		p.warn("Stopped only %d out of %d Ray processes within the grace period %d seconds. Remaining processes %v will be forcefully terminated.",
			stopped, len(targets), int(grace.Seconds()), left)
		p.warn("You can also use `--force` to forcefully terminate processes or set higher `--grace-period` to wait longer time for proper termination.")
	}
	return errors.Join(kill(p, targets), clean(root, targets, current))
}

func rank(t *target) int {
	if t.node.Head {
		return 1
	}
	return 0
}

func ofRank(all []*target, r int) (some []*target) {
	for _, t := range all {
		if rank(t) == r {
			some = append(some, t)
		}
	}
	return some
}

// kill ends those that did not end by themselves.
func kill(p *printer, targets []*target) error {
	var bad []error
	for _, t := range targets {
		if t.done {
			continue
		}
		if err := t.proc.Signal(unix.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			bad = append(bad, fmt.Errorf("kill process %d of node %s: %w", t.node.PID, t.node.NodeID, err))
			continue
		}
		if !t.proc.Wait(5 * time.Second) {
			bad = append(bad, fmt.Errorf("process %d of node %s does not end, even when killed", t.node.PID, t.node.NodeID))
		}
	}
	return errors.Join(bad...)
}

// clean removes what stopped daemons left.
func clean(root *session.Root, targets []*target, current string) error {
	var bad []error
	for _, t := range targets {
		if !t.node.Alive() {
			bad = append(bad, root.ForgetNode(t.node))
		}
		if t.node.GCSAddress == current {
			bad = append(bad, root.ClearCurrent(current))
		}
	}
	return errors.Join(bad...)
}
