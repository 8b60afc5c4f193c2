package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"gray/internal/session"
	"gray/internal/state"

	"github.com/spf13/cobra"
)

// kinds are what the state commands know, in Ray's order.
var (
	listKinds    = []string{"actors", "jobs", "placement-groups", "nodes", "workers", "tasks", "objects", "runtime-envs", "cluster-events"}
	getKinds     = []string{"actors", "placement-groups", "nodes", "workers", "tasks", "objects", "cluster-events"}
	summaryKinds = []string{"tasks", "actors", "objects"}
)

// tableOf is the table of a kind as the commands name it.
func tableOf(kind string) *state.Table { return state.Find(strings.ReplaceAll(kind, "-", "_")) }

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
		return a.get(args[0], args[1], q)
	})
	cmd.Annotations[usageNote] += " [ID]"
	return cmd
}

func (a *app) summaryCommand() *cobra.Command {
	q := &stateQuestion{}
	return a.stateCommand("summary", "Print what is in the cluster in figures.", summaryKinds, 1, q, func(args []string) error { return a.summary(args[0], q) })
}

// stateAnswer is the head's answer to a question of the state API.
type stateAnswer[T any] struct {
	Result bool   `json:"result"`
	Msg    string `json:"msg"`
	Data   struct {
		Result struct {
			Total    int      `json:"total"`
			Filtered int      `json:"num_filtered"`
			Missing  string   `json:"partial_failure_warning"`
			Warnings []string `json:"warnings"`
			Result   T        `json:"result"`
		} `json:"result"`
	} `json:"data"`
}

// askState asks the head for path; what it refuses is a mistake of the one who asks.
func askState[T any](a *app, q *stateQuestion, path string, answer *stateAnswer[T]) error {
	address, status, body, err := q.fetch(path)
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
	for _, w := range append([]string{answer.Data.Result.Missing}, answer.Data.Result.Warnings...) {
		if w != "" {
			fmt.Fprintln(a.err, "UserWarning: "+w)
		}
	}
	return nil
}

// fetch gets a path of the state API: from the head, or, if the address is that of a dashboard, from there.
func (q *stateQuestion) fetch(path string) (address string, status int, body []byte, err error) {
	timeout := time.Duration(q.timeout * float64(time.Second))
	url := q.address
	if url == "" {
		url = os.Getenv("RAY_API_SERVER_ADDRESS")
	}
	if strings.HasPrefix(url, "http://") || strings.HasPrefix(url, "https://") {
		status, body, err = fetchURL(strings.TrimSuffix(url, "/"), path, timeout)
		return url, status, body, err
	}
	address, d, err := q.find(true)
	if err == nil {
		status, body, err = fetch(d, address, path, true, timeout)
	}
	return address, status, body, err
}

// fetchURL gets a path from a dashboard, with the cluster's token as far as this user knows it.
func fetchURL(base, path string, timeout time.Duration) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		return 0, nil, fmt.Errorf("--address %s: %w", base, err)
	}
	token, err := session.FindToken("")
	switch {
	case err == nil:
		req.Header.Set("Authorization", "Bearer "+token.Reveal())
	case !errors.Is(err, session.ErrNoToken): // a server that wants one says so
		return 0, nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, connectionError("Failed to make request to %s: %v. Check that the cluster runs and that the address is that of its dashboard.", base, err)
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(io.LimitReader(resp.Body, 64<<20)); err != nil {
		return 0, nil, connectionError("the dashboard at %s does not answer: %v", base, err)
	}
	return resp.StatusCode, body, nil
}

func (q *stateQuestion) query(kind string) (string, error) {
	v := url.Values{"limit": {strconv.Itoa(q.limit)}, "timeout": {strconv.FormatFloat(max(q.timeout*0.8, 0.1), 'f', -1, 64)}}
	if q.detail {
		v.Set("detail", "1")
	}
	t := tableOf(kind)
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
		if t.Column(key) == nil {
			return "", &usageError{q.cmd, fmt.Sprintf("Invalid value: Invalid filter key '%s' for resource '%s'. Available filter keys are: %s", key, kind, strings.Join(t.Names(true), ", "))}
		}
		v.Add("filter_keys", key)
		v.Add("filter_predicates", predicate)
		v.Add("filter_values", value)
	}
	return "/api/v0/" + t.Kind + "?" + v.Encode(), nil
}

func (a *app) list(kind string, q *stateQuestion) error {
	path, err := q.query(kind)
	if err != nil {
		return err
	}
	var answer stateAnswer[[]map[string]any]
	if err := askState(a, q, path, &answer); err != nil {
		return err
	}
	t := tableOf(kind)
	rows := answer.Data.Result.Result
	if n := answer.Data.Result.Filtered; n > len(rows) {
		fmt.Fprintf(a.err, "Limit last %d entries (Total %d). Use `--filter` to reduce the amount of data to return or setting a higher limit with `--limit` to see all data.\n", len(rows), n)
	}
	if t == state.Objects && slices.ContainsFunc(rows, func(r map[string]any) bool { return r["call_site"] == state.SitesOff }) {
		fmt.Fprintln(a.err, sitesOff)
	}
	format := q.format.value
	if format == "default" {
		format = "table"
		if q.detail {
			format = "yaml"
		}
	}
	for _, r := range rows {
		humanify(t, r)
	}
	switch format {
	case "json":
		return a.printJSON(t, rows)
	case "yaml":
		fmt.Fprintln(a.out, yamlRows(rows, t.Names(true)))
		return nil
	}
	if len(rows) == 0 {
		fmt.Fprintln(a.out, "No resource in the cluster")
		return nil
	}
	line := strings.Repeat("-", 30)
	fmt.Fprintf(a.out, "\n======== List: %s ========\nStats:\n%s\nTotal: %d\n\nTable:\n%s\n%s\n\n",
		time.Now().Format(stateTime), line, len(rows), line, stateTable(t.Names(q.detail), rows))
	return nil
}

const (
	stateTime = "2006-01-02 15:04:05.000000"
	sitesOff  = "UserWarning: Callsite is not being recorded. To record callsite information for each ObjectRef created, set env variable RAY_record_ref_creation_sites=1 during `ray start` and `ray.init`."
)

// printJSON prints rows as one JSON list, keys in the order of the columns; what was not asked for is null.
func (a *app) printJSON(t *state.Table, rows []map[string]any) error {
	var b bytes.Buffer
	b.WriteByte('[')
	for i, row := range rows {
		if i > 0 {
			b.WriteString(", ")
		}
		for j, c := range t.Names(true) {
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

func (a *app) get(kind, id string, q *stateQuestion) error {
	t := tableOf(kind)
	if b, err := hex.DecodeString(id); t == state.Actors && (err != nil || len(b) != t.IDSize) {
		return &usageError{q.cmd, fmt.Sprintf("'%s' is not the id of an actor: want %d hexadecimal digits.", id, 2*t.IDSize)}
	}
	q.filters, q.limit, q.detail = []string{t.ID + "=" + id}, 100, true
	path, err := q.query(kind)
	if err != nil {
		return err
	}
	var answer stateAnswer[[]map[string]any]
	if err := askState(a, q, path, &answer); err != nil {
		return err
	}
	rows := answer.Data.Result.Result
	if len(rows) == 0 {
		fmt.Fprintf(a.out, "Resource with id=%s not found in the cluster.\n", id)
		return nil
	}
	for _, r := range rows {
		humanify(t, r)
	}
	fmt.Fprintln(a.out, yamlRows(rows, t.Names(true)))
	return nil
}

// stateSummary is the head's answer to a summary.
type stateSummary struct {
	Nodes struct {
		Cluster map[string]any `json:"cluster"`
	} `json:"node_id_to_summary"`
}

func (a *app) summary(kind string, q *stateQuestion) error {
	t := tableOf(kind)
	var answer stateAnswer[stateSummary]
	if err := askState(a, q, "/api/v0/"+t.Kind+"/summarize", &answer); err != nil {
		return err
	}
	sum := answer.Data.Result.Result.Nodes.Cluster
	groups, _ := sum["summary"].(map[string]any)
	by, _ := sum["summary_by"].(string)
	delete(sum, "summary")
	delete(sum, "summary_by")
	if t == state.Objects && sum["callsite_enabled"] == false {
		fmt.Fprintln(a.err, sitesOff)
	}
	line := strings.Repeat("-", 36)
	fmt.Fprintf(a.out, "\n======== %s Summary: %s ========\nStats:\n%s\n", t.Title, time.Now().Format(stateTime), line)
	for _, name := range slices.Sorted(maps.Keys(sum)) {
		fmt.Fprintf(a.out, "%s: %v\n", name, sum[name])
	}
	names := slices.Sorted(maps.Keys(groups))
	if t == state.Objects {
		fmt.Fprintf(a.out, "\n\nTable (group by %s)\n%s\n", by, line)
		for _, name := range names {
			fmt.Fprintf(a.out, "%s\n%s\n\n\n\n", name, groupTable([]string{name}, groups))
		}
		return nil
	}
	fmt.Fprintf(a.out, "\n\nTable (group by %s):\n%s\n%s\n\n", by, line, groupTable(names, groups))
	return nil
}

// groupTable is a summary's groups, one a row.
func groupTable(names []string, groups map[string]any) string {
	var header []string
	cells := [][]string{}
	for i, name := range names {
		g, _ := groups[name].(map[string]any)
		columns := slices.Sorted(maps.Keys(g))
		if header == nil {
			header = []string{""}
			for _, c := range columns {
				header = append(header, strings.ToUpper(c))
			}
		}
		row := []string{strconv.Itoa(i)}
		for _, c := range columns {
			row = append(row, cellText(g[c]))
		}
		cells = append(cells, row)
	}
	return plainTable(header, cells)
}
