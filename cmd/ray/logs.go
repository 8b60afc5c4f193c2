package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"gray/internal/rpc"
	"gray/internal/session"

	"github.com/spf13/cobra"
)

// logsFlags are the flags of `ray logs`.
type logsFlags struct {
	stateQuestion
	nodeIP, nodeID, id string
	follow, stderr     bool
	tail, pid          int
	attempt            string // Ray has -a for the id of an actor, too
	interval           float64
	encoding           string
	encodingErrors     choice
}

// logsKinds are the words that may follow `ray logs`; any other is a file's name.
var logsKinds = []string{"cluster", "actor", "worker", "job", "task"}

// longNames writes out Ray's short flags of two letters, which would be read as two flags.
func longNames(args []string) {
	for i, s := range args {
		name, value, given := strings.Cut(s, "=")
		long, ok := map[string]string{"-ip": "--node-ip", "-id": "--node-id"}[name]
		if !ok {
			continue
		}
		if args[i] = long; given {
			args[i] += "=" + value
		}
	}
}

func (a *app) logsCommand() *cobra.Command {
	f := &logsFlags{encodingErrors: choice{"strict", []string{"strict", "ignore", "replace"}}}
	cmd := &cobra.Command{
		Use: "logs", Short: "List log files, or print one.",
		Annotations: map[string]string{usageNote: "[cluster] [GLOB] | actor --id ID | worker --pid PID | task --id ID"},
		Args:        cobra.ArbitraryArgs,
	}
	f.cmd = cmd
	cmd.RunE = func(_ *cobra.Command, args []string) error { return a.logs(f, args) }
	f.register(cmd)
	fs := cmd.Flags()
	fs.StringVar(&f.nodeIP, "node-ip", "", "the node, by its address (default: the head's)")
	fs.StringVar(&f.nodeID, "node-id", "", "the node")
	fs.StringVar(&f.id, "id", "", "of the actor or task")
	fs.IntVar(&f.pid, "pid", 0, "of the worker or actor, on the node")
	fs.StringVarP(&f.attempt, "attempt-number", "a", "", "of the task (default 0); -a is an actor's id, too")
	fs.BoolVarP(&f.follow, "follow", "f", false, "go on with what is written from now on")
	fs.IntVar(&f.tail, "tail", 1000, "lines to print from the end, -1 for all")
	fs.Float64Var(&f.interval, "interval", 0, "with --follow: seconds between looks at the file")
	fs.Float64Var(&f.timeout, "timeout", 30, "seconds to wait, without --follow")
	fs.BoolVar(&f.stderr, "err", false, "what was written to stderr")
	fs.StringVar(&f.encoding, "encoding", "utf-8", "of the file; bytes are printed as they are, so only utf-8 is taken")
	fs.Var(&f.encodingErrors, "encoding-errors", "accepted: bytes are printed as they are")
	return cmd
}

func (a *app) logs(f *logsFlags, args []string) error {
	kind := "cluster"
	if len(args) > 0 && slices.Contains(logsKinds, args[0]) {
		kind, args = args[0], args[1:]
	}
	if len(args) > 1 || kind != "cluster" && len(args) > 0 {
		return &usageError{f.cmd, fmt.Sprintf("Got unexpected extra argument (%s)", strings.Join(args[min(len(args)-1, 1):], " "))}
	}
	if e := strings.ToLower(strings.ReplaceAll(f.encoding, "-", "")); e != "utf8" {
		return &usageError{f.cmd, fmt.Sprintf("Invalid value for '--encoding': %q; bytes are printed as they are, so leave it out and convert what is printed.", f.encoding)}
	}
	v := url.Values{"lines": {strconv.Itoa(f.tail)}, "suffix": {"out"}}
	if f.stderr {
		v.Set("suffix", "err")
	}
	if f.interval > 0 {
		v.Set("interval", strconv.FormatFloat(f.interval, 'f', -1, 64))
	}
	node := func() error {
		v.Set("node_id", f.nodeID)
		v.Set("node_ip", f.nodeIP)
		if f.nodeID != "" || f.nodeIP != "" {
			return nil
		}
		id, err := a.headNode(f)
		v.Set("node_id", id)
		return err
	}
	switch kind {
	case "job":
		return errors.New("`ray logs job` is not in this version of Gray yet: jobs are not")
	case "task", "actor":
		if kind == "actor" && f.id == "" {
			f.id = f.attempt
		}
		if kind == "actor" && f.id == "" && f.pid != 0 {
			break
		}
		if f.id == "" {
			return &usageError{f.cmd, fmt.Sprintf("Missing option '--id' of the %s.", kind)}
		}
		v.Set(kind+"_id", f.id)
		if kind == "task" {
			if _, err := strconv.ParseUint(f.attempt, 10, 31); err != nil && f.attempt != "" {
				return &usageError{f.cmd, fmt.Sprintf("Invalid value for '--attempt-number': '%s' is not a number.", f.attempt)}
			}
			v.Set("attempt_number", f.attempt)
		}
		return a.printLog(f, v)
	case "worker":
		if f.pid == 0 {
			return &usageError{f.cmd, "Missing option '--pid'."}
		}
	}
	if err := node(); err != nil {
		return err
	}
	if kind != "cluster" {
		v.Set("pid", strconv.Itoa(f.pid))
		return a.printLog(f, v)
	}
	glob := "*"
	if len(args) > 0 {
		glob = args[0]
	}
	if !strings.ContainsAny(glob, "*?[") {
		v.Set("filename", glob)
		return a.printLog(f, v)
	}
	v.Set("glob", glob)
	return a.listLogs(f, v)
}

// headNode is the node that is meant if none is named.
func (a *app) headNode(f *logsFlags) (string, error) {
	var answer stateAnswer[[]map[string]any]
	q := url.Values{"filter_keys": {"is_head_node"}, "filter_predicates": {"="}, "filter_values": {"True"}}
	if err := askState(a, &f.stateQuestion, "/api/v0/nodes?"+q.Encode(), &answer); err != nil {
		return "", err
	}
	for _, r := range answer.Data.Result.Result {
		if id, ok := r["node_id"].(string); ok && r["state"] == "ALIVE" {
			return id, nil
		}
	}
	return "", errors.New("the cluster names no head node; pass --node-id or --node-ip")
}

func (a *app) listLogs(f *logsFlags, v url.Values) error {
	address, status, body, err := f.fetch("/api/v0/logs?" + v.Encode())
	if err != nil {
		return err
	}
	var answer struct {
		Result bool   `json:"result"`
		Msg    string `json:"msg"`
		Data   struct {
			Result map[string][]string `json:"result"`
		} `json:"data"`
	}
	switch err := json.Unmarshal(body, &answer); {
	case err == nil && !answer.Result && answer.Msg != "":
		return errors.New(answer.Msg)
	case status != http.StatusOK:
		return fmt.Errorf("the head at %s answers with HTTP status %d: %s", address, status, strings.TrimSpace(string(body)))
	case err != nil:
		return fmt.Errorf("the head at %s answers with something else than a list of logs: %w", address, err)
	}
	found := false
	for _, component := range slices.Sorted(maps.Keys(answer.Data.Result)) {
		names := answer.Data.Result[component]
		if len(names) == 0 {
			continue
		}
		found = true
		fmt.Fprintf(a.out, "%s:\n", component)
		for _, name := range names {
			fmt.Fprintf(a.out, "- %s\n", name)
		}
	}
	if !found {
		return fmt.Errorf("no log file of the node matches %q", v.Get("glob"))
	}
	return nil
}

// printLog prints a file as it comes.
func (a *app) printLog(f *logsFlags, v url.Values) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	media := "stream"
	if !f.follow {
		media = "file"
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(f.timeout*float64(time.Second)))
		defer cancel()
	}
	address, resp, err := f.open(ctx, "/api/v0/logs/"+media+"?"+v.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		return errors.Join(errors.New(strings.TrimSpace(string(text))), err)
	}
	_, err = io.Copy(a.out, resp.Body)
	if err != nil && f.follow && ctx.Err() != nil {
		return nil // the user has seen enough
	}
	if err != nil {
		return fmt.Errorf("%s did not send the log to its end: %w", address, err)
	}
	return nil
}

// open asks for a path and leaves the answer's body to be read.
func (q *stateQuestion) open(ctx context.Context, path string) (string, *http.Response, error) {
	base := q.address
	if base == "" {
		base = os.Getenv("RAY_API_SERVER_ADDRESS")
	}
	if strings.HasPrefix(base, "http://") || strings.HasPrefix(base, "https://") {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base, "/")+path, nil)
		if err != nil {
			return base, nil, fmt.Errorf("--address %s: %w", base, err)
		}
		token, err := session.FindToken("")
		switch {
		case err == nil:
			req.Header.Set("Authorization", "Bearer "+token.Reveal())
		case !errors.Is(err, session.ErrNoToken): // a server that wants one says so
			return base, nil, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return base, nil, connectionError("Failed to make request to %s: %v. Check that the cluster runs and that the address is that of its dashboard.", base, err)
		}
		return base, resp, nil
	}
	address, d, err := q.find(true)
	if err != nil {
		return address, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return address, nil, err
	}
	resp, err := d.HTTPClient().Do(req)
	if errors.Is(err, rpc.ErrUnreachable) {
		return address, nil, connectionError("no Ray cluster answers at %s: %v", address, err)
	}
	return address, resp, err
}
