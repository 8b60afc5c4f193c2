package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"gray/internal/kube/client"
	"gray/internal/kube/cluster"

	"github.com/spf13/cobra"
)

// kubeCommand is the group `ray kube`: a cluster in a namespace of Kubernetes.
func (a *app) kubeCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "kube",
		Short: "Make and use a cluster in a namespace of Kubernetes.",
		Long: `Make and use a cluster in a namespace of Kubernetes.

  ray kube up --workers 3         make the cluster, or change it, and wait until it is ready
  ray kube run script.py ARGS     run a program on it
  ray kube status                 what Kubernetes and the cluster say
  ray kube logs -f                what head and workers print
  ray kube connect                lead a port of this machine to it, for ray.init("ray://...")
  ray kube down                   delete it

The kubeconfig is kubectl's: --kubeconfig, $KUBECONFIG, ~/.kube/config; in a pod without
one, the pod's ServiceAccount. The ClusterRole edit in the namespace is right enough.`,
		Args: cobra.ArbitraryArgs,
	}
	group.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return &usageError{cmd, fmt.Sprintf("No such command '%s'.", args[0])}
		}
		return cmd.Help()
	}
	group.AddCommand(a.kubeUp(), a.kubeRun(), a.kubeStatus(), a.kubeLogs(), a.kubeDown(), a.kubeConnect())
	return group
}

// kubeFlags say which cluster.
type kubeFlags struct {
	client.Options
	name string
}

func (f *kubeFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVarP(&f.Namespace, "namespace", "n", "", "namespace (default: the kubeconfig's, or the pod's own)")
	fs.StringVar(&f.Context, "context", "", "of the kubeconfig (default: its current one)")
	fs.StringVar(&f.Kubeconfig, "kubeconfig", "", "file (default $KUBECONFIG or ~/.kube/config)")
	fs.StringVar(&f.name, "name", cluster.Name, "of the cluster: several can live in a namespace")
}

// open finds the API server.
func (f *kubeFlags) open(a *app) (*cluster.Cluster, error) {
	if err := cluster.CheckName(f.name); err != nil {
		return nil, err
	}
	c, err := client.Load(f.Options)
	if err != nil {
		return nil, err
	}
	return &cluster.Cluster{Client: c, Name: f.name, Out: a.out}, nil
}

// interruptible is a context that Ctrl-C and SIGTERM end.
func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}

// orInterrupted has a command that was interrupted end as a shell expects.
func orInterrupted(ctx context.Context, err error, note string) error {
	if err != nil && ctx.Err() != nil {
		return &exitError{status: 128 + int(syscall.SIGINT), line: note}
	}
	return err
}

// on does something with the cluster, until it is interrupted; note is what is said then.
func (f *kubeFlags) on(a *app, note string, do func(context.Context, *cluster.Cluster) error) error {
	c, err := f.open(a)
	if err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	return orInterrupted(ctx, do(ctx, c), note)
}

func (a *app) kubeUp() *cobra.Command {
	var f kubeFlags
	var s cluster.Settings
	var dryRun bool
	var timeout, wait float64
	output := choice{"yaml", []string{"yaml"}}
	cmd := &cobra.Command{
		Use: "up", Short: "Make the cluster, or change it, and wait until it is ready.",
		Long: `Make the cluster, or change it, and wait until it is ready.

What is not said by an option is as deploy/ray-cluster.yaml has it, also when the cluster is there already: its
image gray:local, 3 workers, a tenth of a CPU and 512Mi for each pod. When pods can't get ready and the cause
is known, the cause is printed at once; what was made stays, and Kubernetes goes on trying.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s.Name = f.name
			if s.Workers < 0 && cmd.Flags().Changed("workers") {
				return &usageError{cmd, fmt.Sprintf("Invalid value for '--workers': %d is less than 0.", s.Workers)}
			}
			if dryRun {
				text, err := s.Manifest()
				if err == nil {
					fmt.Fprint(a.out, text)
				}
				return err
			}
			c, err := f.open(a)
			if err != nil {
				return err
			}
			ctx, stop := interruptible()
			defer stop()
			err = c.Up(ctx, s, seconds(timeout), seconds(wait))
			if err != nil {
				return orInterrupted(ctx, err, "Interrupted; what was made stays: `ray kube status` shows it, `ray kube down` deletes it.")
			}
			fmt.Fprintf(a.out, "\nRun a program on it:\n  ray kube run%s script.py\n", f.spoken())
			return nil
		},
	}
	f.register(cmd)
	fs := cmd.Flags()
	fs.StringVar(&s.Image, "image", "", "of head and workers (default gray:local)")
	fs.IntVar(&s.Workers, "workers", -1, "number of worker pods (default 3)")
	fs.StringVar(&s.CPUs, "cpus", "", "that each pod asks for, such as 2 or 500m (default 100m)")
	fs.StringVar(&s.Memory, "memory", "", "that each pod asks for, such as 4Gi (default 512Mi)")
	fs.BoolVar(&dryRun, "dry-run", false, "print what would be applied, and ask no API server")
	fs.VarP(&output, "output", "o", "form of --dry-run")
	fs.Float64Var(&timeout, "timeout", 600, "seconds to wait for the pods")
	fs.Float64Var(&wait, "wait", 0, "seconds to wait even where it is known why pods do not get ready")
	return cmd
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// spoken are the options that say which cluster, as they were given.
func (f *kubeFlags) spoken() string {
	text := ""
	for _, o := range [][2]string{{"--kubeconfig", f.Kubeconfig}, {"--context", f.Context}, {"-n", f.Namespace}, {"--name", f.name}} {
		if o[1] != "" && o != [2]string{"--name", cluster.Name} {
			text += " " + o[0] + " " + o[1]
		}
	}
	return text
}

func (a *app) kubeDown() *cobra.Command {
	var f kubeFlags
	var timeout float64
	cmd := &cobra.Command{
		Use: "down", Short: "Delete the cluster, and wait until it is gone.", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			return f.on(a, "Interrupted; Kubernetes goes on deleting what it was asked to.", func(ctx context.Context, c *cluster.Cluster) error { return c.Down(ctx, seconds(timeout)) })
		},
	}
	f.register(cmd)
	cmd.Flags().Float64Var(&timeout, "timeout", 120, "seconds to wait for the end of the pods")
	return cmd
}

func (a *app) kubeStatus() *cobra.Command {
	var f kubeFlags
	cmd := &cobra.Command{
		Use: "status", Short: "Show Service, Deployments and pods, and `ray status` of the head.", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			return f.on(a, "", func(ctx context.Context, c *cluster.Cluster) error { return c.Status(ctx) })
		},
	}
	f.register(cmd)
	return cmd
}

func (a *app) kubeLogs() *cobra.Command {
	var f kubeFlags
	var tail int
	var follow bool
	cmd := &cobra.Command{
		Use: "logs", Short: "Print what head and workers have written, each line with its pod.", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			return f.on(a, "", func(ctx context.Context, c *cluster.Cluster) error { return c.Logs(ctx, tail, follow) })
		},
	}
	f.register(cmd)
	cmd.Flags().IntVar(&tail, "tail", -1, "lines from the end of each pod's log, -1 for all")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is written from now on, until Ctrl-C")
	return cmd
}

func (a *app) kubeRun() *cobra.Command {
	var f kubeFlags
	var folder string
	cmd := &cobra.Command{
		Use: "run", Short: "Run a Python program in the head's pod.",
		Long: `Run a Python program in the head's pod. The script is copied there, with the folder of --working-dir if that is
given, into a new folder that is deleted when the program has ended. What it prints comes here, what is typed or
piped goes there, Ctrl-C interrupts it, and its exit status is this command's. If this command or the connection
ends, the program is ended, too.

ray.init() in it finds the cluster. With --working-dir tasks and actors on all nodes have the folder.`,
		Annotations: map[string]string{usageNote: "SCRIPT [ARGS]..."},
		Args:        cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{cmd, "Missing argument 'SCRIPT'."}
			}
			c, err := f.open(a)
			if err != nil {
				return err
			}
			signals := make(chan os.Signal, 4)
			signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer signal.Stop(signals)
			p := cluster.Program{Script: args[0], Args: args[1:], Folder: folder, In: a.in, Out: a.out, Err: a.err, Signals: signals}
			if folder != "" {
				env, err := json.Marshal(map[string]any{"runtime_env": map[string]any{"working_dir": "."}})
				if err != nil {
					return err
				}
				p.Env = string(env)
			}
			err = c.Run(context.Background(), p)
			var exit *client.ExitError
			if errors.As(err, &exit) {
				return &exitError{status: exit.Status}
			}
			return err
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&folder, "working-dir", "", "folder to send along; SCRIPT is a file in it")
	cmd.Flags().SetInterspersed(false) // what follows SCRIPT is the program's
	return cmd
}

func (a *app) kubeConnect() *cobra.Command {
	var f kubeFlags
	var port, remote int
	cmd := &cobra.Command{
		Use: "connect", Short: "Lead a port of this machine to the head, until Ctrl-C or while a command runs.",
		Long: `Lead a port of this machine to the head, and get the cluster's credential. Without a command, the environment that
programs need is written to a file that only you can read, and the port stays until Ctrl-C. With one, the command
runs with that environment, and its exit status is this command's:

  ray kube connect -- python script.py

When the head's pod is replaced, later connections go to the new one.`,
		Annotations: map[string]string{usageNote: "[-- COMMAND [ARGS]...]"},
		Args:        cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.open(a)
			if err != nil {
				return err
			}
			if len(args) > 0 {
				c.Out = a.err // the command's output is its own
				if !cmd.Flags().Changed("port") {
					port = 0
				}
			}
			ctx, stop := interruptible()
			defer stop()
			n, err := c.Connect(ctx, port, remote)
			if err != nil {
				return orInterrupted(ctx, err, "")
			}
			if len(args) > 0 {
				return a.beside(ctx, n, args)
			}
			file, err := environmentFile(c)
			if err != nil {
				return err
			}
			if err := n.Save(file); err != nil {
				return err
			}
			defer os.Remove(file) // the credential is of no use when the port is closed
			fmt.Fprintf(a.out, "Port %d of this machine leads to port %d of cluster %q in namespace %q. In another terminal:\n\n", n.Port(), remote, c.Name, c.Client.Namespace)
			fmt.Fprintf(a.out, "  . %s\n  python -c 'import ray; ray.init(\"%s\"); print(ray.cluster_resources())'\n\nCtrl-C ends it.\n", file, n.Address())
			return n.Serve(ctx)
		},
	}
	f.register(cmd)
	cmd.Flags().IntVar(&port, "port", 10001, "of this machine; 0: any that is free, which is the default with a command")
	cmd.Flags().IntVar(&remote, "remote-port", 10001, "of the head")
	return cmd
}

// environmentFile is where the environment of a connection is kept.
func environmentFile(c *cluster.Cluster) (string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("there is no place for the credential: %w", err)
	}
	return filepath.Join(home, ".ray", "kube", c.Client.Namespace+"-"+c.Name+".env"), nil
}

// beside runs a command while the connection is served.
func (a *app) beside(ctx context.Context, n *cluster.Connection, args []string) error {
	serve, stop := context.WithCancel(context.WithoutCancel(ctx)) // Ctrl-C is the command's, too: it ends first
	served := make(chan error, 1)
	go func() { served <- n.Serve(serve) }()
	cmd := exec.CommandContext(serve, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), n.Environment()...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.out, a.err
	err := cmd.Start()
	if err != nil {
		stop()
		return errors.Join(fmt.Errorf("can't start the command: %w", err), <-served)
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(terminated)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for running := true; running; {
		select {
		case err = <-ended:
			running = false
		case sig := <-terminated:
			_ = cmd.Process.Signal(sig) // it may have ended just now
		}
	}
	stop()
	lost := <-served
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status := exit.ExitCode()
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			status = 128 + int(ws.Signal())
		}
		return &exitError{status: status}
	}
	return errors.Join(err, lost)
}
