package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"gray/internal/core/ids"
	"gray/internal/head"

	"github.com/spf13/cobra"
)

// kinds are what the state commands know, in Ray's order; only those of stated can be asked for in this version.
var (
	listKinds    = []string{"actors", "jobs", "placement-groups", "nodes", "workers", "tasks", "objects", "runtime-envs", "cluster-events"}
	getKinds     = []string{"actors", "placement-groups", "nodes", "workers", "tasks", "objects", "cluster-events"}
	summaryKinds = []string{"tasks", "actors", "objects"}
	stated       = []string{"actors"}
)

// stateQuestion are the flags of a state command, and what it asks for.
type stateQuestion struct {
	where
	format  choice
	filters []string
	limit   int
	detail  bool
	timeout float64
	cmd     *cobra.Command
}

// stateCommand makes a command whose first argument is one of kinds.
func (a *app) stateCommand(name, short string, kinds []string, args int, q *stateQuestion, run func(args []string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: name, Short: short,
		Annotations: map[string]string{usageNote: "{" + strings.Join(kinds, "|") + "}"},
		Args:        cobra.ArbitraryArgs,
	}
	cmd.RunE = func(_ *cobra.Command, got []string) error {
		metavar := cmd.Annotations[usageNote]
		switch {
		case len(got) == 0:
			return &usageError{cmd, fmt.Sprintf("Missing argument '%s'. Choose from:\n\t%s", metavar, strings.Join(kinds, ",\n\t"))}
		case len(got) > args:
			return &usageError{cmd, fmt.Sprintf("Got unexpected extra argument (%s)", strings.Join(got[args:], " "))}
		}
		got[0] = strings.ReplaceAll(got[0], "_", "-")
		if !slices.Contains(kinds, got[0]) {
			return &usageError{cmd, fmt.Sprintf("Invalid value for '%s': '%s' is not one of '%s'.", metavar, got[0], strings.Join(kinds, "', '"))}
		}
		if !slices.Contains(stated, got[0]) {
			return fmt.Errorf("`ray %s %s` is not in this version of Gray yet", name, got[0])
		}
		return run(got)
	}
	q.cmd = cmd
	q.register(cmd)
	cmd.Flags().Float64Var(&q.timeout, "timeout", 30, "seconds to wait for the head")
	return cmd
}

func (a *app) listCommand() *cobra.Command {
	q := &stateQuestion{format: choice{"default", []string{"default", "json", "yaml", "table"}}}
	cmd := a.stateCommand("list", "List what is in the cluster.", listKinds, 1, q, func(args []string) error { return a.list(args[0], q) })
	fs := cmd.Flags()
	fs.Var(&q.format, "format", "how to print it; default is a table, or YAML with --detail")
	fs.StringArrayVarP(&q.filters, "filter", "f", nil, "\"key=value\" or \"key!=value\"; all of several must hold")
	fs.IntVar(&q.limit, "limit", 100, "rows to print at most, up to 10,000")
	fs.BoolVar(&q.detail, "detail", false, "more columns")
	return cmd
}

func (a *app) getCommand() *cobra.Command {
	q := &stateQuestion{}
	cmd := a.stateCommand("get", "Print all that is known of one thing in the cluster.", getKinds, 2, q, func(args []string) error {
		if len(args) < 2 {
			return &usageError{q.cmd, "Missing argument '[ID]'."}
		}
		return a.get(args[1], q)
	})
	cmd.Annotations[usageNote] += " [ID]"
	return cmd
}

func (a *app) summaryCommand() *cobra.Command {
	q := &stateQuestion{}
	return a.stateCommand("summary", "Print what is in the cluster in figures.", summaryKinds, 1, q, func([]string) error { return a.summary(q) })
}

// stateAnswer is the head's answer to a question of the state API.
type stateAnswer[T any] struct {
	Result bool   `json:"result"`
	Msg    string `json:"msg"`
	Data   struct {
		Result struct {
			Filtered int `json:"num_filtered"`
			Result   T   `json:"result"`
		} `json:"result"`
	} `json:"data"`
}

// askState asks the head for path; what it refuses is a mistake of the one who asks.
func askState[T any](q *stateQuestion, path string, answer *stateAnswer[T]) error {
	address, d, err := q.find(true)
	if err != nil {
		return err
	}
	status, body, err := fetch(d, address, path, true, time.Duration(q.timeout*float64(time.Second)))
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	err = dec.Decode(answer)
	switch {
	case err == nil && answer.Msg != "" && !answer.Result:
		return &usageError{q.cmd, answer.Msg}
	case status != http.StatusOK:
		return fmt.Errorf("the head at %s answers with HTTP status %d: %s", address, status, strings.TrimSpace(string(body)))
	case err != nil:
		return fmt.Errorf("the head at %s answers with something else than its state: %w", address, err)
	}
	return nil
}

func (q *stateQuestion) query(kind string) (string, error) {
	v := url.Values{"limit": {strconv.Itoa(q.limit)}}
	if q.detail {
		v.Set("detail", "1")
	}
	for _, f := range q.filters {
		key, value, ok := strings.Cut(f, "=")
		predicate := "="
		if k, not := strings.CutSuffix(key, "!"); not {
			key, predicate = k, "!="
		}
		if !ok || key == "" {
			return "", &usageError{q.cmd, fmt.Sprintf("The format of a given filter %s is invalid: Cannot find the predicate. Please provide key=val or key!=val format string.", f)}
		}
		key = strings.ToLower(strings.TrimSpace(key))
		if !slices.Contains(head.ActorColumns, key) {
			return "", &usageError{q.cmd, fmt.Sprintf("Invalid value: Invalid filter key '%s' for resource '%s'. Available filter keys are: %s", key, kind, strings.Join(head.ActorColumns, ", "))}
		}
		v.Add("filter_keys", key)
		v.Add("filter_predicates", predicate)
		v.Add("filter_values", value)
	}
	return "/api/v0/" + strings.ReplaceAll(kind, "-", "_") + "?" + v.Encode(), nil
}

func (a *app) list(kind string, q *stateQuestion) error {
	path, err := q.query(kind)
	if err != nil {
		return err
	}
	var answer stateAnswer[[]map[string]any]
	if err := askState(q, path, &answer); err != nil {
		return err
	}
	rows := answer.Data.Result.Result
	if n := answer.Data.Result.Filtered; n > len(rows) {
		fmt.Fprintf(a.err, "Limit last %d entries (Total %d). Use `--filter` to reduce the amount of data to return or setting a higher limit with `--limit` to see all data.\n", len(rows), n)
	}
	format := q.format.value
	if format == "default" {
		format = "table"
		if q.detail {
			format = "yaml"
		}
	}
	switch format {
	case "json":
		return a.printJSON(rows)
	case "yaml":
		fmt.Fprintln(a.out, yamlRows(rows, head.ActorColumns))
		return nil
	}
	if len(rows) == 0 {
		fmt.Fprintln(a.out, "No resource in the cluster")
		return nil
	}
	columns := head.ActorColumns
	if !q.detail {
		columns = columns[:head.ActorBrief]
	}
	line := strings.Repeat("-", 30)
	fmt.Fprintf(a.out, "\n======== List: %s ========\nStats:\n%s\nTotal: %d\n\nTable:\n%s\n%s\n\n",
		time.Now().Format(stateTime), line, len(rows), line, stateTable(columns, rows))
	return nil
}

const stateTime = "2006-01-02 15:04:05.000000"

// printJSON prints rows as one JSON list, keys in the order of the columns; what was not asked for is null.
func (a *app) printJSON(rows []map[string]any) error {
	var b bytes.Buffer
	b.WriteByte('[')
	for i, row := range rows {
		if i > 0 {
			b.WriteString(", ")
		}
		for j, c := range head.ActorColumns {
			open := ", "
			if j == 0 {
				open = "{"
			}
			v, err := json.Marshal(row[c])
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%s%q: %s", open, c, v)
		}
		b.WriteByte('}')
	}
	b.WriteByte(']')
	fmt.Fprintln(a.out, b.String())
	return nil
}

func (a *app) get(id string, q *stateQuestion) error {
	if b, err := hex.DecodeString(id); err != nil || len(b) != ids.ActorSize {
		return &usageError{q.cmd, fmt.Sprintf("'%s' is not the id of an actor: want %d hexadecimal digits.", id, 2*ids.ActorSize)}
	}
	q.filters, q.limit, q.detail = []string{"actor_id=" + id}, 1, true
	path, err := q.query("actors")
	if err != nil {
		return err
	}
	var answer stateAnswer[[]map[string]any]
	if err := askState(q, path, &answer); err != nil {
		return err
	}
	if len(answer.Data.Result.Result) == 0 {
		fmt.Fprintf(a.out, "Resource with id=%s not found in the cluster.\n", id)
		return nil
	}
	fmt.Fprintln(a.out, yamlRows(answer.Data.Result.Result, head.ActorColumns))
	return nil
}

// actorSummary is the part of the head's answer that `ray summary actors` prints.
type actorSummary struct {
	Nodes struct {
		Cluster struct {
			Total   int `json:"total_actors"`
			Summary map[string]struct {
				Class  string         `json:"class_name"`
				States map[string]int `json:"state_counts"`
			} `json:"summary"`
		} `json:"cluster"`
	} `json:"node_id_to_summary"`
}

func (a *app) summary(q *stateQuestion) error {
	var answer stateAnswer[actorSummary]
	if err := askState(q, "/api/v0/actors/summarize", &answer); err != nil {
		return err
	}
	sum := answer.Data.Result.Result.Nodes.Cluster
	classes := []string{}
	for name := range sum.Summary {
		classes = append(classes, name)
	}
	slices.Sort(classes)
	rows := [][]string{}
	for i, name := range classes {
		states := []string{}
		for s, n := range sum.Summary[name].States {
			states = append(states, fmt.Sprintf("%s: %d", s, n))
		}
		slices.Sort(states)
		rows = append(rows, []string{strconv.Itoa(i), name, strings.Join(states, "\n")})
	}
	line := strings.Repeat("-", 36)
	fmt.Fprintf(a.out, "\n======== Actors Summary: %s ========\nStats:\n%s\ntotal_actors: %d\n\n\nTable (group by class):\n%s\n%s\n\n",
		time.Now().Format(stateTime), line, sum.Total, line, plainTable([]string{"", "CLASS_NAME", "STATE_COUNTS"}, rows))
	return nil
}
