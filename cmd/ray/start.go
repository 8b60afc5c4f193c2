package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"gray/internal/core/fault"
	"gray/internal/rpc"
	"gray/internal/session"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func (a *app) startCommand() *cobra.Command {
	var f startFlags
	cmd := &cobra.Command{
		Use:   "start",
		Short: "Start Ray on this machine: a cluster's head, or a node that joins one.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := f.config(cmd)
			if err != nil {
				return err
			}
			return a.start(cfg, f.block)
		},
	}
	f.register(cmd.Flags())
	a.styleFlags(cmd)
	return cmd
}

// start starts a daemon, tells what to do next, and with block stays until it ends.
func (a *app) start(cfg *session.NodeConfig, block bool) error {
	p := a.printer()
	if cfg.Address == "auto" {
		address, err := currentAddress(cfg.TempDir)
		if err != nil {
			return err
		}
		cfg.Address = address
	}
	if n, err := localNode(cfg.TempDir, cfg.Address); err == nil && n != nil && !cfg.Head {
		cfg.Address = n.GCSAddress
	}
	if cfg.NodeIP == "" {
		cfg.NodeIP = rpc.LocalIP(cfg.Address)
	}
	if err := cfg.Override(os.Getenv); err != nil {
		return err
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	if cfg.Head {
		if err := refuseSecondHead(cfg); err != nil {
			return err
		}
	}
	if os.Getenv(session.EnvAuthMode) == "disabled" {
		p.warn("RAY_AUTH_MODE=disabled: whoever reaches this node's ports can run code on it. Unset it to have the cluster protected by a token.")
	}
	if cfg.TLS == "off" {
		p.warn("--tls=off: what this node and others say to each other can be read and changed on the network.")
	}
	p.print("Local node IP: %s", p.paint(bold, cfg.NodeIP))
	if block { // a daemon whose supervisor was killed must not stay behind
		start, err := session.StartTime(os.Getpid())
		if err != nil {
			return err
		}
		cfg.DriverPID, cfg.DriverStartTime = os.Getpid(), start
	}
	var sup *supervisor
	if block {
		sup = superviseSignals()
		defer sup.close()
	}
	for {
		pid, n, err := a.spawn(cfg, sup)
		if err != nil {
			if cfg.Head {
				return err
			}
			return joinError(cfg, err)
		}
		a.nextSteps(p, cfg, n)
		if !block {
			return nil
		}
		if err := sup.wait(p, pid, n); !errors.Is(err, errReplaced) {
			return err
		}
		p.print("The head has ended, or was replaced by one of a new cluster: this node joins the new one.")
	}
}

func joinError(cfg *session.NodeConfig, err error) error {
	switch fault.KindOf(err) {
	case fault.Auth, fault.Version, fault.Python, fault.Limit:
		return err
	}
	return connectionError("this node cannot join the cluster at %s: %v", cfg.Address, err)
}

// refuseSecondHead tells a user who starts a head where one runs already.
func refuseSecondHead(cfg *session.NodeConfig) error {
	port := session.DefaultPort
	if cfg.Port != nil {
		port = *cfg.Port
	}
	if port == 0 {
		return nil
	}
	address := net.JoinHostPort(cfg.NodeIP, strconv.Itoa(port))
	n, err := localNode(cfg.TempDir, address)
	if err != nil || n == nil || !n.Head || n.GCSAddress != address {
		return err
	}
	return connectionError("Ray is trying to start at %s, but is already running at %s. "+
		"Please specify a different port using the `--port` flag of `ray start` command.", address, address)
}

// spawn starts the daemon in a session of its own and waits until it is ready or has failed.
// sup is nil without --block.
func (a *app) spawn(cfg *session.NodeConfig, sup *supervisor) (pid int, n *session.NodeFile, err error) {
	text, err := json.Marshal(cfg)
	if err != nil {
		return 0, nil, err
	}
	configR, configW, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	defer configR.Close()
	defer configW.Close()
	readyR, readyW, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	defer readyR.Close()
	defer readyW.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, nil, err
	}
	defer null.Close()
	exe, err := os.Executable()
	if err != nil {
		return 0, nil, err
	}
	// What a script left open is not for a daemon that outlives it.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return 0, nil, fmt.Errorf("close_range: %w", err)
	}
	proc, err := os.StartProcess(exe, []string{os.Args[0], "daemon", "--config-fd", "3", "--ready-fd", "4"}, &os.ProcAttr{
		Dir: "/", Env: os.Environ(),
		Files: []*os.File{null, null, a.err, configR, readyW},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, nil, fmt.Errorf("start the daemon: %w", err)
	}
	pid = proc.Pid
	// Its end is told by the pipe; with --block, wait4 reaps it together with whatever else ends here.
	if err := proc.Release(); err != nil {
		return 0, nil, err
	}
	configR.Close()
	readyW.Close()
	if sup != nil {
		defer sup.passOn(pid)()
	}
	if _, err := configW.Write(text); err != nil && !errors.Is(err, unix.EPIPE) {
		return 0, nil, fmt.Errorf("configure the daemon: %w", err)
	}
	configW.Close()
	line, err := bufio.NewReader(readyR).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, nil, err
	}
	var answer struct {
		session.NodeFile
		readyError
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		var ws unix.WaitStatus
		if _, werr := unix.Wait4(pid, &ws, 0, nil); werr != nil {
			return 0, nil, fmt.Errorf("the daemon ended before it was ready: %w", werr)
		}
		return 0, nil, fmt.Errorf("the daemon ended before it was ready: %s", describe(ws))
	}
	if answer.Error != "" {
		return 0, nil, &fault.Error{Op: "start", Ref: "the daemon", Kind: answer.Kind, Err: errors.New(answer.Error)}
	}
	return pid, &answer.NodeFile, nil
}

func describe(ws unix.WaitStatus) string {
	if ws.Signaled() {
		return fmt.Sprintf("killed by signal %d (%s)", int(ws.Signal()), ws.Signal())
	}
	return fmt.Sprintf("exit code %d", ws.ExitStatus())
}

// nextSteps is what users and tools read: the line with --address='…' is parsed by many.
func (a *app) nextSteps(p *printer, cfg *session.NodeConfig, n *session.NodeFile) {
	p.print("")
	p.box("Ray runtime started.")
	p.print("")
	if cfg.Head {
		if n.ClientServerPort == 0 {
			p.warn("ray:// clients are not served: port 10001 is taken, or cannot be opened. --ray-client-server-port chooses another.")
		}
		p.heading("Next steps")
		p.print("  To add another node to this Ray cluster, run")
		p.command("  ray start --address='" + n.GCSAddress + "'")
		if _, given, err := session.GivenToken(); podIdentity() != nil && !given && err == nil {
			p.print("  in a pod of this namespace, which shows who it is by its ServiceAccount token")
		} else if ip, err := netip.ParseAddr(n.NodeIP); err == nil && !ip.IsLoopback() {
			p.print("  there, with this cluster's token (`ray get-auth-token`) in RAY_AUTH_TOKEN or ~/.ray/auth_token")
		}
		p.print("")
		p.print("  To connect to this Ray cluster:")
		p.command("  import ray")
		p.command("  ray.init()")
		p.print("")
		p.print("  To terminate the Ray runtime, run")
		p.command("  ray stop")
		p.print("")
		p.print("  To view the status of the cluster, use")
		p.command("  ray status")
		if n.DashboardURL != "" {
			p.print("")
			p.print("  To look at the cluster in a browser, open the dashboard at")
			p.command("  http://" + strings.TrimPrefix(n.DashboardURL, "http://"))
		}
		return
	}
	p.print("To terminate the Ray runtime, run")
	p.command("ray stop")
}
