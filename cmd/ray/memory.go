package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"gray/internal/session"
	"gray/internal/state"

	"github.com/spf13/cobra"
)

// memoryQuestion are the flags of `ray memory`.
type memoryQuestion struct {
	stateQuestion
	group, sort, units choice
	noFormat, stats    bool
	entries            int
}

func (a *app) memoryCommand() *cobra.Command {
	q := &memoryQuestion{
		group: choice{"NODE_ADDRESS", []string{"NODE_ADDRESS", "STACK_TRACE"}},
		sort:  choice{"OBJECT_SIZE", []string{"PID", "OBJECT_SIZE", "REFERENCE_TYPE"}},
		units: choice{"B", []string{"B", "KB", "MB", "GB"}},
	}
	cmd := &cobra.Command{
		Use: "memory", Short: "Print who holds which objects of the cluster, and how full its stores are.", Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return a.memory(q) },
	}
	q.cmd = cmd
	q.register(cmd)
	fs := cmd.Flags()
	fs.Var(&q.group, "group-by", "what references are put together by")
	fs.Var(&q.sort, "sort-by", "what they are sorted by, upwards")
	fs.Var(&q.units, "units", "of sizes")
	fs.BoolVar(&q.noFormat, "no-format", false, "do not align columns")
	fs.BoolVar(&q.stats, "stats-only", false, "print how full the stores are, and nothing else")
	fs.IntVar(&q.entries, "num-entries", 0, "references to print of each group (default all)")
	fs.IntVar(&q.entries, "n", 0, "the same")
	q.timeout = 30
	return cmd
}

const sitesHint = "To record callsite information for each ObjectRef created, set env variable RAY_record_ref_creation_sites=1"

func (a *app) memory(q *memoryQuestion) error {
	var usage stateAnswer[[]map[string]any]
	if err := askState(a, &q.stateQuestion, "/api/v0/objects/usage", &usage); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "======== Object references status: %s ========\n", time.Now().Format(stateTime))
	if !q.stats {
		q.limit = state.MaxLimit
		path, err := q.query("objects")
		if err != nil {
			return err
		}
		var answer stateAnswer[[]map[string]any]
		if err := askState(a, &q.stateQuestion, path, &answer); err != nil {
			return err
		}
		if n := answer.Data.Result.Filtered; n > len(answer.Data.Result.Result) {
			fmt.Fprintf(a.err, "There are %d references; %d are looked at.\n", n, len(answer.Data.Result.Result))
		}
		a.references(q, answer.Data.Result.Result)
	}
	var capacity, used, objects float64
	for _, r := range usage.Data.Result.Result {
		capacity, used, objects = capacity+floatOf(r["capacity"]), used+floatOf(r["used"]), objects+floatOf(r["objects"])
	}
	full := 0.0
	if capacity > 0 {
		full = 100 * used / capacity
	}
	fmt.Fprintf(a.out, "--- Aggregate object store stats across all nodes ---\nPlasma memory usage %d MiB, %d objects, %.2f%% full, %.2f%% needed\n\n",
		int64(used)>>20, int64(objects), full, full)
	return nil
}

func floatOf(v any) float64 {
	n, ok := v.(json.Number)
	if !ok {
		return 0
	}
	f, err := n.Float64()
	if err != nil {
		return 0
	}
	return f
}

// references prints who holds what, group by group.
func (a *app) references(q *memoryQuestion, rows []map[string]any) {
	by, key, title := "node address", "ip", "all"
	if q.group.value == "STACK_TRACE" {
		by, key = "stack trace", "call_site"
	}
	if q.entries > 0 {
		title = strconv.Itoa(q.entries)
	}
	fmt.Fprintf(a.out, "Grouping by %s...        Sorting by %s...        Display %s entries per group...\n\n\n",
		by, strings.ToLower(strings.ReplaceAll(q.sort.value, "_", " ")), title)
	groups := map[string][]map[string]any{}
	off := false
	for _, r := range rows {
		off = off || r["call_site"] == state.SitesOff
		groups[fmt.Sprint(r[key])] = append(groups[fmt.Sprint(r[key])], r)
	}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		g := groups[name]
		slices.SortStableFunc(g, func(x, y map[string]any) int {
			switch q.sort.value {
			case "PID":
				return int(floatOf(x["pid"]) - floatOf(y["pid"]))
			case "REFERENCE_TYPE":
				return strings.Compare(fmt.Sprint(x["reference_type"]), fmt.Sprint(y["reference_type"]))
			}
			return int(min(max(floatOf(x["object_size"])-floatOf(y["object_size"]), -1), 1))
		})
		fmt.Fprintf(a.out, "--- Summary for %s: %s ---\n%s\n\n--- Object references for %s: %s ---\n", by, name, q.figures(g), by, name)
		q.line(a, "IP Address", "PID", "Type", "Call Site", "Status", "Attempt", "Size", "Reference Type", "Object Ref")
		for i, r := range g {
			if q.entries > 0 && i == q.entries {
				break
			}
			size, status := "?", fmt.Sprint(r["task_status"])
			if n := floatOf(r["object_size"]); n >= 0 {
				size = q.size(n)
			}
			if status == "NIL" {
				status = "-"
			}
			kind := "Worker"
			if r["type"] == "DRIVER" {
				kind = "Driver"
			}
			fmt.Fprintln(a.out)
			q.line(a, fmt.Sprint(r["ip"]), fmt.Sprint(r["pid"]), kind, fmt.Sprint(r["call_site"]), status, fmt.Sprint(r["attempt_number"]), size,
				fmt.Sprint(r["reference_type"]), fmt.Sprint(r["object_id"]))
			fmt.Fprintln(a.out)
		}
	}
	if off {
		fmt.Fprintln(a.out, sitesHint)
	}
	fmt.Fprintln(a.out)
}

// line prints a row of references.
func (q *memoryQuestion) line(a *app, cells ...string) {
	if !q.noFormat {
		for i, w := range []int{13, 8, 7, 9, 9, 8, 8, 14, 0} {
			cells[i] = fmt.Sprintf("%-*s", w, cells[i])
		}
	}
	fmt.Fprintln(a.out, strings.Join(cells, " | "))
}

// size is a number of bytes in the units that are asked for, as Python writes a float.
func (q *memoryQuestion) size(n float64) string {
	div := map[string]float64{"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9}[q.units.value]
	text := strconv.FormatFloat(n/div, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text + " " + q.units.value
}

// figures are a group's counts and sizes by type of reference.
func (q *memoryQuestion) figures(rows []map[string]any) string {
	total := 0.0
	count, size := map[string]int{}, map[string]float64{}
	for _, r := range rows {
		n, ref := max(floatOf(r["object_size"]), 0), fmt.Sprint(r["reference_type"])
		total += n
		count[ref]++
		size[ref] += n
	}
	header := []string{"Mem Used by Objects"}
	cells := []string{q.size(total)}
	for _, c := range [][2]string{
		{"Local References", "LOCAL_REFERENCE"},
		{"Pinned", "PINNED_IN_MEMORY"},
		{"Used by task", "USED_BY_PENDING_TASK"},
		{"Captured in Objects", "CAPTURED_IN_OBJECT"},
		{"Actor Handles", "ACTOR_HANDLE"},
	} {
		header = append(header, c[0])
		cells = append(cells, fmt.Sprintf("%d, (%s)", count[c[1]], q.size(size[c[1]])))
	}
	var b strings.Builder
	for _, line := range [][]string{header, cells} {
		for i, cell := range line {
			fmt.Fprintf(&b, "%-*s  ", []int{19, 16, 12, 13, 19, 13}[i], cell)
		}
		b.WriteString("\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (a *app) timelineCommand() *cobra.Command {
	q := &stateQuestion{}
	cmd := &cobra.Command{
		Use: "timeline", Short: "Write what ran when to a file for Chrome's trace viewer.", Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return a.timeline(q) },
	}
	q.cmd, q.timeout = cmd, 60
	q.register(cmd)
	return cmd
}

func (a *app) timeline(q *stateQuestion) error {
	address, status, body, err := q.fetch("/api/v0/tasks/timeline")
	if err != nil {
		return err
	}
	p := a.printer()
	p.print("Connected to Ray instance at %s.", address)
	if status != http.StatusOK {
		return fmt.Errorf("the head at %s answers with HTTP status %d: %s", address, status, strings.TrimSpace(string(body)))
	}
	root, err := session.OpenRoot(q.tempDir)
	if err != nil {
		return err
	}
	defer root.Close()
	path := filepath.Join(root.Path, "ray-timeline-"+time.Now().Format("2006-01-02_15-04-05")+".json")
	if err := os.WriteFile(path, body, 0o600); err != nil {
		return fmt.Errorf("the trace can't be written: %w", err)
	}
	p.print("Trace file written to %s.", path)
	p.print("You can open this with chrome://tracing in the Chrome browser.")
	return nil
}
