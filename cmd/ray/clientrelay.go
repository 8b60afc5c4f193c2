package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"gray/internal/core/fault"
	"gray/internal/machine"
	"gray/internal/relay"
	"gray/internal/rpc"
	"gray/internal/session"
	"gray/internal/version"
	"gray/internal/wire"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// relayConfig is what a driver starts its half of a ray:// session with.
type relayConfig struct {
	Address         string `json:"address"`
	Token           string `json:"token"`
	TokenSource     string `json:"token_source"`
	DriverPID       int    `json:"driver_pid"`
	DriverStartTime int64  `json:"driver_start_time"`
}

func (a *app) clientRelayCommand() *cobra.Command {
	var configFD, readyFD, controlFD int
	cmd := &cobra.Command{
		Use: "client-relay", Hidden: true,
		Short: "Connect a driver to a cluster far away, as ray.init(\"ray://…\") starts it.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if configFD < 0 || readyFD < 0 || controlFD < 0 {
				return &usageError{cmd, "Missing option '--config-fd', '--ready-fd' or '--control-fd'."}
			}
			return a.clientRelay(configFD, readyFD, controlFD)
		},
		Args: noArgs,
	}
	cmd.Flags().IntVar(&configFD, "config-fd", -1, "descriptor from which the JSON configuration is read to its end")
	cmd.Flags().IntVar(&readyFD, "ready-fd", -1, "descriptor to which one JSON line is written: {}, or {error, kind}")
	cmd.Flags().IntVar(&controlFD, "control-fd", -1, "socket on which the driver passes its connections")
	return cmd
}

// clientRelay serves a driver until that has ended, or the cluster has.
func (a *app) clientRelay(configFD, readyFD, controlFD int) error {
	for _, fd := range []int{configFD, readyFD, controlFD} {
		unix.CloseOnExec(fd)
	}
	ready := os.NewFile(uintptr(readyFD), "ready")
	defer ready.Close()
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	r, err := openRelay(ctx, configFD, controlFD)
	if err == nil {
		err = sayReady(ready, struct{}{})
	}
	if err != nil {
		if werr := sayReady(ready, readyError{Error: err.Error(), Kind: fault.KindOf(err)}); werr != nil {
			return err
		}
		return &exitError{status: 1}
	}
	return r.run(ctx)
}

// relaying is a relay that has its first connection.
type relaying struct {
	cfg     relayConfig
	token   session.Token
	hello   rpc.ClientHello
	near    *relay.Near
	control *net.UnixConn
	broken  chan error
}

// firstTimeout bounds the first connection.
const firstTimeout = 10 * time.Second

func openRelay(ctx context.Context, configFD, controlFD int) (*relaying, error) {
	if err := session.HideMemory(); err != nil { // before the token is in it
		return nil, err
	}
	f := os.NewFile(uintptr(configFD), "config")
	text, err := io.ReadAll(io.LimitReader(f, maxConfig))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	r := &relaying{broken: make(chan error, 1)}
	if err := json.Unmarshal(text, &r.cfg); err != nil {
		return nil, fmt.Errorf("read the relay's configuration: %w", err)
	}
	if r.token, err = session.NewToken(r.cfg.Token, r.cfg.TokenSource); err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(controlFD), "control")
	c, err := net.FileConn(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	r.control = c.(*net.UnixConn)
	total, err := machine.Memory()
	if err != nil {
		return nil, err
	}
	var b [24]byte
	_, _ = rand.Read(b[:]) // never fails
	incarnation := binary.LittleEndian.Uint64(b[16:]) | 1
	r.hello = rpc.ClientHello{Protocol: rpc.ClientProtocol, Ray: version.Version, Session: hex.EncodeToString(b[:16]), Incarnation: incarnation}
	if r.near, err = relay.NewNear(incarnation, total/2, func(err error) { r.broken <- err }); err != nil {
		return nil, err
	}
	first, stop := context.WithTimeout(ctx, firstTimeout)
	defer stop()
	conn, err := rpc.DialClient(first, r.cfg.Address, r.token, r.hello)
	if err != nil {
		return nil, err
	}
	r.hello.Resume = true
	return r, r.near.Attach(conn)
}

// run serves the driver. A connection that breaks is followed by another.
func (r *relaying) run(ctx context.Context) error {
	dead, err := watchProcess(r.cfg.DriverPID, r.cfg.DriverStartTime)
	if err != nil {
		return err
	}
	left := make(chan struct{})
	go func() {
		_ = r.near.Serve(r.control) // it ends when the driver wants no more connections
		close(left)
	}()
	for {
		select {
		case <-r.near.Done():
			r.near.Close()
			return nil
		case <-ctx.Done():
			r.near.Finish(&wire.Refused{Kind: fault.System, Error: "the process that connects this driver to the cluster was told to end"})
		case <-left:
			left = nil
			r.near.Unheard()
		case <-dead:
			dead = nil
			r.near.DriverGone()
		case why := <-r.broken:
			r.again(ctx, why)
		}
	}
}

// again makes another connection, within the grace period.
func (r *relaying) again(ctx context.Context, why error) {
	ctx, stop := context.WithTimeout(ctx, relay.Grace())
	defer stop()
	wait := 50 * time.Millisecond
	for {
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		conn, err := rpc.DialClient(try, r.cfg.Address, r.token, r.hello)
		cancel()
		if err == nil {
			if r.near.Attach(conn) == nil {
				return
			}
			err = errOver
		}
		if !errors.Is(err, rpc.ErrUnreachable) {
			r.near.Finish(&wire.Refused{Kind: fault.System, Error: fmt.Sprintf("the connection to ray://%s broke (%v), and there is no way back: %v", r.cfg.Address, why, err)})
			return
		}
		select {
		case <-time.After(wait):
			wait = min(2*wait, time.Second)
		case <-r.near.Done():
			return
		case <-ctx.Done():
			r.near.Finish(&wire.Refused{Kind: fault.System, Error: fmt.Sprintf("the connection to ray://%s broke (%v) and could not be made again within %v (RAY_CLIENT_RECONNECT_GRACE_PERIOD): %v", r.cfg.Address, why, relay.Grace(), err)})
			return
		}
	}
}

var errOver = errors.New("the session is over")

// watchProcess tells when a process is dead.
func watchProcess(pid int, started int64) (<-chan struct{}, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	if !session.Alive(pid, started) {
		return nil, errors.Join(fmt.Errorf("process %d, which started this relay, is gone", pid), unix.Close(fd))
	}
	dead := make(chan struct{})
	go func() {
		defer close(dead)
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			if _, err := unix.Poll(p, -1); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}()
	return dead, nil
}
