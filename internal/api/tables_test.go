package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"gray/internal/core/actor"
	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/head"
	"gray/internal/rpc"
	"gray/internal/state"
)

var fakeActors = []actor.Row{
	{
		ID: ids.Unique(1).Actor(ids.JobFromInt(1)), Job: ids.JobFromInt(7), Class: "A", State: actor.Alive, Name: "one", Namespace: "ns",
		Detached: true, Node: ids.NodeID{1}, PID: 12, Resources: map[string]int64{"CPU": 5000}, Incarnation: 2, Repr: "me",
	},
	{
		ID: ids.Unique(2).Actor(ids.JobFromInt(1)), Class: "A", State: actor.Dead, PID: 13, IP: "10.0.0.1",
		Death: actor.Death{Cause: actor.Killed, Text: "killed"},
	},
	{ID: ids.Unique(3).Actor(ids.JobFromInt(1)), Class: "B", State: actor.Pending},
}

type actorList struct {
	Result bool
	Msg    string
	Data   struct {
		Result struct {
			Total    int
			After    int `json:"num_after_truncation"`
			Filtered int `json:"num_filtered"`
			Result   []map[string]any
		}
	}
}

func TestActors(t *testing.T) {
	c := serve(t, Dashboard, Config{Cluster: fakeCluster{}}, rpc.BrowsersRead)
	for _, tc := range []struct {
		query    string
		want     []float64 // pids
		filtered int
	}{
		{"", []float64{12, 13, 0}, 3},
		{"limit=1", []float64{12}, 3},
		{filters("state", "=", "dead"), []float64{13}, 1},
		{filters("state", "!=", "DEAD"), []float64{12, 0}, 2},
		{filters("class_name", "=", "a", "state", "=", "alive"), []float64{12}, 1},
		{filters("pid", "=", "13"), []float64{13}, 1},
		{filters("job_id", "=", "01000000", "node_id", "!=", ids.NodeID{1}.String()), []float64{13, 0}, 2},
		{filters("repr_name", "=", "me") + "&detail=1", []float64{12}, 1},
	} {
		status, body := c.get("/api/v0/actors?" + tc.query)
		var a actorList
		if err := json.Unmarshal([]byte(body), &a); err != nil || status != 200 || !a.Result {
			t.Fatalf("%s: %d %v\n%s", tc.query, status, err, body)
		}
		var pids []float64
		for _, row := range a.Data.Result.Result {
			pids = append(pids, row["pid"].(float64))
			want := len(state.Actors.Names(false))
			if strings.Contains(tc.query, "detail") {
				want = len(state.Actors.Names(true))
			}
			if len(row) != want {
				t.Errorf("%s: a row of %d columns, want %d", tc.query, len(row), want)
			}
		}
		if !slices.Equal(pids, tc.want) || a.Data.Result.Filtered != tc.filtered || a.Data.Result.Total != 3 {
			t.Errorf("%s: %v, %+v; want %v of %d", tc.query, pids, a.Data.Result, tc.want, tc.filtered)
		}
	}
	for query, want := range map[string]string{
		"limit=10001":                    "exceeds the supported limit 10000",
		"limit=x":                        "is not a number",
		filters("colour", "=", "x"):      "filter column colour is not supported",
		filters("is_detached", "=", "1"): "is not supported",
		filters("state", "=", "x"):       "Invalid actor state for filtering: X",
		filters("state", ">", "DEAD"):    "Unsupported filter predicate >",
		filters("pid", "=", "abc"):       "Failed to convert a value abc",
		"filter_keys=state":              "want as many of each",
	} {
		status, body := c.get("/api/v0/actors?" + query)
		if status != 500 || !strings.Contains(body, want) || !strings.Contains(body, `"result":false`) {
			t.Errorf("%s: %d %s", query, status, body)
		}
	}
	if status, _, _ := c.do("GET", "/api/v0/actors"); status != 401 {
		t.Errorf("without a token: %d", status)
	}
}

// filters are the query of key, predicate and value of each.
func filters(f ...string) string {
	q := url.Values{}
	for i := 0; i < len(f); i += 3 {
		q.Add("filter_keys", f[i])
		q.Add("filter_predicates", f[i+1])
		q.Add("filter_values", f[i+2])
	}
	return q.Encode()
}

func TestActorSummary(t *testing.T) {
	c := serve(t, Dashboard, Config{Cluster: fakeCluster{}}, rpc.BrowsersRead)
	status, body := c.get("/api/v0/actors/summarize")
	want := `"result":{"node_id_to_summary":{"cluster":{"summary":{"A":{"class_name":"A","state_counts":{"ALIVE":1,"DEAD":1}},"B":{"class_name":"B","state_counts":{"PENDING_CREATION":1}}},"summary_by":"class","total_actors":3}}}`
	if status != 200 || !strings.Contains(body, want) {
		t.Errorf("%d %s", status, body)
	}
}

// fakeState answers as the head does, from the fake actors and what a test says of tasks.
func (f fakeCluster) State(_ context.Context, q *state.Question) (*state.Answer, error) {
	if f.err != nil {
		return nil, f.err
	}
	if _, err := q.Match(); err != nil {
		return nil, err
	}
	if q.Kind != state.Actors.Kind {
		row := state.Row{"task_id": "aa", "state": fmt.Sprintf("%d %v %v %v %v %s %s", q.Limit, q.Detail, q.Seconds, q.Drivers, q.Filters, q.Want, q.Job)}
		return &state.Answer{Total: 1, Kept: 1, Filtered: 1, Rows: []state.Row{row}, Missing: "a node is missing", Dropped: 3}, nil
	}
	var rows []state.Row
	for i := range fakeActors {
		rows = append(rows, head.ActorState(&fakeActors[i]))
	}
	if q.Want == state.Summary {
		return &state.Answer{Total: 3, Rows: []state.Row{state.SummarizeActors(rows)}}, nil
	}
	return q.Select(rows)
}

func TestQuestions(t *testing.T) {
	c := serve(t, Dashboard, Config{Cluster: fakeCluster{}}, rpc.BrowsersRead)
	for path, want := range map[string]string{
		"/api/v0/tasks": `"state":"100 false 0 false []  "`,
		"/api/v0/tasks?limit=5&detail=true&timeout=2.5&exclude_driver=false&" + filters("name", "!=", "f"): `"state":"5 true 2.5 true [{name != f}]  "`,
		"/api/v0/tasks/timeline?job_id=01000000":                                                           `timeline 01000000"`,
		"/api/v0/tasks/summarize?summary_by=func_name":                                                     `"node_id_to_summary":{"cluster":{"state":`,
		"/api/v0/objects": `"partial_failure_warning":"a node is missing"`,
		"/api/v0/workers": `"num_after_truncation":1`,
	} {
		status, body := c.get(path)
		if status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s; want %s in it", path, status, body, want)
		}
	}
	if _, body := c.get("/api/v0/tasks"); !strings.Contains(body, "3 task attempts that ended earlier are not listed any more") {
		t.Errorf("what was dropped is not told: %s", body)
	}
	for path, want := range map[string]string{
		"/api/v0/tasks?timeout=0":                                "is not a number of seconds",
		"/api/v0/tasks/summarize?summary_by=colour":              "summary_by must be one of",
		"/api/v0/tasks/summarize?summary_by=lineage":             "lineage",
		"/api/v0/nodes?" + filters("is_head_node", "=", "maybe"): "for a boolean type column",
	} {
		if status, body := c.get(path); status != 500 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s; want %s in it", path, status, body, want)
		}
	}
	for _, table := range state.Tables {
		if status, _, _ := c.do("GET", "/api/v0/"+table.Kind); status != 401 {
			t.Errorf("%s without a token: %d", table.Kind, status)
		}
	}
	busy := serve(t, Dashboard, Config{Cluster: fakeCluster{&fault.Error{Op: "x", Kind: fault.Limit}}}, rpc.BrowsersRead)
	if status, _ := busy.get("/api/v0/tasks"); status != 429 {
		t.Errorf("too many questions: %d", status)
	}
}
