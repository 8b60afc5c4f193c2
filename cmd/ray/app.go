package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"gray/internal/session"
	"gray/internal/version"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// nodeRunner is the daemon: it runs until ctx ends (nil) or it cannot go on (why). It calls ready once, when the node
// file is written and clients are served.
type nodeRunner func(ctx context.Context, cfg session.NodeConfig, ready func(session.NodeFile) error) error

// app is the command line with what it touches.
type app struct {
	in       *os.File
	out, err *os.File
	run      nodeRunner
	style    string // of the group's --log-style, or a command's
	color    string
}

func newApp(in, out, err *os.File, run nodeRunner) *app {
	return &app{in: in, out: out, err: err, run: run, style: "auto", color: "auto"}
}

// usageError is a mistake in the command line: exit status 2, as click has it.
type usageError struct {
	cmd  *cobra.Command
	text string
}

func (u *usageError) Error() string { return u.text }

// usageNote is the annotation of a command that has arguments: how they are shown.
const usageNote = "arguments"

// exitError ends the program with a status and, if it has one, a line of its own form.
type exitError struct {
	status int
	line   string // whole line for stderr; "" = all is said
}

func (e *exitError) Error() string { return e.line }

// connectionError is what Ray's users know as a ConnectionError.
func connectionError(format string, a ...any) error {
	return &exitError{status: 1, line: "ConnectionError: " + fmt.Sprintf(format, a...)}
}

// main runs one command line and gives the exit status.
func (a *app) main(args []string) int {
	if len(args) == 1 && args[0] == "--version" {
		fmt.Fprintf(a.out, "ray, version %s\n", version.Version) // before anything is built
		return 0
	}
	root := a.root()
	root.SetArgs(dashed(args))
	err := root.Execute()
	var usage *usageError
	var exit *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if exit.line != "" {
			fmt.Fprintln(a.err, exit.line)
		}
		return exit.status
	case errors.As(err, &usage):
		path := usage.cmd.CommandPath()
		what := " [OPTIONS]"
		if usage.cmd.HasSubCommands() {
			what = " [OPTIONS] COMMAND [ARGS]..."
		}
		if note := usage.cmd.Annotations[usageNote]; note != "" {
			what += " " + note
		}
		fmt.Fprintf(a.err, "Usage: %s%s\nTry '%s --help' for help.\n\nError: %s\n", path, what, path, usage.text)
		return 2
	default:
		fmt.Fprintf(a.err, "Error: %v\n", err)
		return 1
	}
}

// dashed lets commands be written with underscores, as Ray does for many.
func dashed(args []string) []string {
	for i, s := range args {
		if !strings.HasPrefix(s, "-") {
			args = append([]string(nil), args...)
			args[i] = strings.ReplaceAll(s, "_", "-")
			if s == "logs" {
				longNames(args[i+1:])
			}
			break
		}
	}
	return args
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:               "ray",
		Short:             "Run Python functions and objects on many machines (this is Gray, Ray rebuilt in Go).",
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &usageError{cmd, fmt.Sprintf("No such command '%s'.", args[0])}
			}
			return cmd.Help()
		},
		Args: cobra.ArbitraryArgs,
	}
	root.Version = version.Version
	root.SetVersionTemplate("ray, version {{.Version}}\n")
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetHelpCommand(&cobra.Command{Hidden: true})
	root.SetFlagErrorFunc(flagError)
	level := choice{"info", []string{"debug", "info", "warning", "error", "critical"}}
	root.Flags().Var(&level, "logging-level", "accepted: the commands log nothing that a level would change")
	root.Flags().String("logging-format", "", "accepted, like --logging-level")
	for _, c := range []*cobra.Command{a.startCommand(), a.stopCommand(), a.statusCommand(), a.healthCommand(), a.tokenCommand(), a.nodeAtCommand(), a.daemonCommand(), a.clientRelayCommand()} {
		c.Args = noArgs
		root.AddCommand(c)
	}
	root.AddCommand(a.listCommand(), a.getCommand(), a.summaryCommand(), a.memoryCommand(), a.timelineCommand(), a.explainCommand(), a.logsCommand(), a.kubeCommand())
	for _, name := range later {
		root.AddCommand(&cobra.Command{
			Use: name, Hidden: true, DisableFlagParsing: true,
			RunE: func(*cobra.Command, []string) error {
				return fmt.Errorf("`ray %s` is not in this version of Gray yet", name)
			},
		})
	}
	return root
}

// later are Ray's commands that are still to come.
var later = []string{
	"job", "microbenchmark", "debug", "stack", "kill-actor",
	"drain-node", "global-gc", "check-open-ports", "symmetric-run", "metrics", "kuberay-autoscaler", "up", "down", "attach",
	"exec", "submit", "rsync-up", "rsync-down", "monitor", "dashboard", "get-head-ip", "get-worker-ips", "kill-random-node",
	"local-dump", "cluster-dump", "disable-usage-stats", "enable-usage-stats", "cpp", "sanity-check", "serve",
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &usageError{cmd, fmt.Sprintf("Got unexpected extra argument (%s)", strings.Join(args, " "))}
	}
	return nil
}

// flagError words a flag's mistake as click does.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var empty *pflag.ValueRequiredError
	var value *pflag.InvalidValueError
	text := err.Error()
	switch {
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		if unknown.GetSpecifiedShortnames() == "" {
			name = "--" + name
		} else {
			name = "-" + name
		}
		text = "No such option: " + name
	case errors.As(err, &empty):
		text = fmt.Sprintf("Option '--%s' requires an argument.", empty.GetFlag().Name)
	case errors.As(err, &value):
		why := value.Unwrap().Error()
		if errors.Is(err, strconv.ErrSyntax) || errors.Is(err, strconv.ErrRange) {
			why = fmt.Sprintf("'%s' is not a valid integer.", value.GetValue())
		}
		text = fmt.Sprintf("Invalid value for '--%s': %s", value.GetFlag().Name, why)
	}
	return &usageError{cmd, text}
}

// choice is a flag with a fixed set of values.
type choice struct {
	value string
	of    []string
}

func (c *choice) String() string { return c.value }
func (c *choice) Type() string   { return "[" + strings.Join(c.of, "|") + "]" }
func (c *choice) Set(s string) error {
	for _, o := range c.of {
		if s == o {
			c.value = s
			return nil
		}
	}
	quoted := make([]string, len(c.of))
	for i, o := range c.of {
		quoted[i] = "'" + o + "'"
	}
	return fmt.Errorf("'%s' is not one of %s.", s, strings.Join(quoted, ", ")) // click's words
}

// boolean is click's BOOL: a flag that takes its value as a word.
type boolean struct{ value *bool }

func (b *boolean) Type() string { return "BOOLEAN" }
func (b *boolean) String() string {
	if b.value == nil {
		return ""
	}
	return strconv.FormatBool(*b.value)
}

func (b *boolean) Set(s string) error {
	var v bool
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "1", "true", "t", "yes", "y", "on":
		v = true
	case "0", "false", "f", "no", "n", "off":
	default:
		return fmt.Errorf("'%s' is not a valid boolean.", s) // click's words
	}
	b.value = &v
	return nil
}

// styleFlags adds the flags of output that most commands have.
func (a *app) styleFlags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.Var(&choiceOf{&a.style, []string{"auto", "record", "pretty"}}, "log-style", "pretty on a terminal, else one record a line")
	fs.Var(&choiceOf{&a.color, []string{"auto", "false", "true"}}, "log-color", "colours; auto: on a terminal")
	fs.CountP("verbose", "v", "say more")
}

// choiceOf is a choice kept elsewhere.
type choiceOf struct {
	p  *string
	of []string
}

func (c *choiceOf) String() string {
	if c.p == nil {
		return ""
	}
	return *c.p
}
func (c *choiceOf) Type() string { return "[" + strings.Join(c.of, "|") + "]" }
func (c *choiceOf) Set(s string) error {
	ch := choice{of: c.of}
	err := ch.Set(s)
	if err == nil {
		*c.p = s
	}
	return err
}
