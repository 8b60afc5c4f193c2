package api

import (
	"encoding/json"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
	"gray/internal/head"
	"gray/internal/rpc"
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
			want := head.ActorBrief
			if strings.Contains(tc.query, "detail") {
				want = len(head.ActorColumns)
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

func TestActorState(t *testing.T) {
	for i := range fakeActors {
		m := head.ActorState(&fakeActors[i])
		for _, c := range head.ActorColumns {
			if _, ok := m[c]; !ok {
				t.Errorf("no %s", c)
			}
		}
		if len(m) != len(head.ActorColumns) || m["job_id"] != "01000000" {
			t.Errorf("%d columns; job %v", len(m), m["job_id"])
		}
	}
	if r := head.ActorState(&fakeActors[0])["required_resources"]; !reflect.DeepEqual(r, map[string]float64{"CPU": 0.5}) {
		t.Errorf("resources %v", r)
	}
	for cause, want := range map[actor.Cause]string{
		actor.Killed: "actor_died_error_context RAY_KILL", actor.Unreferred: "actor_died_error_context OUT_OF_SCOPE",
		actor.InitFailed: "creation_task_failure_context <nil>", actor.Unplaceable: "actor_unschedulable_context <nil>",
	} {
		row := actor.Row{State: actor.Dead, Death: actor.Death{Cause: cause}}
		for kind, of := range head.ActorState(&row)["death_cause"].(map[string]any) {
			reason, _ := of.(map[string]any)["reason"].(string)
			if got := kind + " " + reason; got != strings.Replace(want, "<nil>", "", 1) {
				t.Errorf("%s: %s, want %s", cause, got, want)
			}
		}
	}
}
