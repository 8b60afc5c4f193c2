package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"gray/internal/rpc"
)

// smallState adds the state API of a head that knows three actors.
func smallState(mux *rpc.Mux) {
	brief := `"actor_id":"09df4e88a0d6ca4c9efd658201000000","class_name":"P","state":"PENDING_CREATION","job_id":"01000000","name":"","node_id":null,"pid":0,"ray_namespace":"4baead28-c623-425e-9b57-181d87e9453b"`
	alive := `"actor_id":"59341a8b5c4cd55f7b3ec57c01000000","class_name":"A","state":"ALIVE","job_id":"01000000","name":"one","node_id":"787da6295b12cdf221ce8f57c07a88e5f9a9919b67a9c3888d35c13d","pid":13254,"ray_namespace":"other"`
	more := `,"required_resources":{"none":1.5},"death_cause":{"actor_died_error_context":{"error_message":"a: b\nc","never_started":false}},"is_detached":true,"label_selector":{}`
	mux.HandleFunc("GET /api/v0/actors", rpc.Token, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		rows, total := []string{"{" + brief + "}", "{" + alive + "}"}, 2
		switch {
		case q.Get("limit") == "20000":
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, `{"result":false,"msg":"Given limit 20000 exceeds the supported limit 10000.","data":{}}`)
			return
		case q.Get("filter_keys") == "state" && q.Get("filter_predicates") == "!=" && q.Get("filter_values") == "ALIVE":
			rows, total = nil, 0
		case q.Get("filter_keys") == "actor_id" && q.Get("filter_values") == strings.Repeat("0", 32):
			rows, total = nil, 0
		case q.Get("detail") == "1":
			rows, total = []string{"{" + alive + more + "}"}, 1
		case q.Get("limit") == "1":
			rows = rows[:1]
		}
		fmt.Fprintf(w, `{"result":true,"msg":"","data":{"result":{"total":%d,"num_filtered":%d,"result":[%s]}}}`, total, total, strings.Join(rows, ","))
	})
	for path, body := range map[string]string{
		"tasks/summarize": `{"result":true,"data":{"result":{"result":{"node_id_to_summary":{"cluster":{"total_tasks":3,"summary_by":"func_name","summary":{` +
			`"f":{"func_or_class_name":"f","type":"NORMAL_TASK","state_counts":{"RUNNING":1,"FINISHED":2}}}}}}}}}`,
		"objects": `{"result":true,"data":{"result":{"num_filtered":2,"result":[` +
			`{"object_id":"aa","object_size":8000247,"task_status":"FINISHED","attempt_number":1,"reference_type":"PINNED_IN_MEMORY","call_site":"disabled","type":"WORKER","pid":8,"ip":"10.0.0.1"},` +
			`{"object_id":"ff","object_size":-1,"task_status":"NIL","attempt_number":1,"reference_type":"ACTOR_HANDLE","call_site":"disabled","type":"DRIVER","pid":7,"ip":"10.0.0.1"}]}}}`,
		"objects/usage":  `{"result":true,"data":{"result":{"result":[{"capacity":1024000000,"used":8000247,"objects":3}]}}}`,
		"tasks/timeline": `[{"ph":"X"}]`,
	} {
		mux.HandleFunc("GET /api/v0/"+path, rpc.Token, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) })
	}
	mux.HandleFunc("GET /api/v0/actors/summarize", rpc.Token, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"result":true,"msg":"","data":{"result":{"result":{"node_id_to_summary":{"cluster":{"total_actors":4,"summary_by":"class","summary":{`+
			`"P":{"class_name":"P","state_counts":{"PENDING_CREATION":1}},"A":{"class_name":"A","state_counts":{"ALIVE":2,"DEAD":1}}}}}}}}}`)
	})
}

// The tables and documents below are as Ray 2.60 prints them, but for the times.
const (
	wantTable = `
Stats:
------------------------------
Total: 2

Table:
------------------------------
    ACTOR_ID                          CLASS_NAME    STATE               JOB_ID  NAME    NODE_ID                                                     PID  RAY_NAMESPACE
 0  09df4e88a0d6ca4c9efd658201000000  P             PENDING_CREATION  01000000                                                                        0  4baead28-c623-425e-9b57-181d87e9453b
 1  59341a8b5c4cd55f7b3ec57c01000000  A             ALIVE             01000000  one     787da6295b12cdf221ce8f57c07a88e5f9a9919b67a9c3888d35c13d  13254  other

`
	wantYAML = `---
-   actor_id: 59341a8b5c4cd55f7b3ec57c01000000
    class_name: A
    state: ALIVE
    job_id: '01000000'
    name: one
    node_id: 787da6295b12cdf221ce8f57c07a88e5f9a9919b67a9c3888d35c13d
    pid: 13254
    ray_namespace: other
    serialized_runtime_env: null
    required_resources:
        none: 1.5
    death_cause:
        actor_died_error_context:
            error_message: "a: b\nc"
            never_started: false
    is_detached: true
    placement_group_id: null
    repr_name: null
    num_restarts: null
    num_restarts_due_to_lineage_reconstruction: null
    num_restarts_due_to_node_preemption: null
    call_site: null
    label_selector: {}
    fallback_strategy: null
...

`
	wantSummary = `
Stats:
------------------------------------
total_actors: 4


Table (group by class):
------------------------------------
    CLASS_NAME    STATE_COUNTS
 0  A             ALIVE: 2
                  DEAD: 1
 1  P             PENDING_CREATION: 1

`
)

func TestStateCommands(t *testing.T) {
	s := newShell(t)
	s.head()
	timeless := func(out, title string) string {
		t.Helper()
		before, rest, ok := strings.Cut(out, "\n======== "+title+": ")
		_, after, ok2 := strings.Cut(rest, " ========")
		if !ok || !ok2 || before != "" {
			t.Fatalf("no title %q:\n%s", title, out)
		}
		return after
	}
	same := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s prints\n%s\nwant\n%s", what, got, want)
		}
	}
	same("list", timeless(s.must("list", "actors"), "List"), wantTable)
	same("list --format table", timeless(s.must("list", "actors", "--format=table"), "List"), wantTable)
	same("list --detail", s.must("list", "actors", "--detail"), wantYAML)
	same("get", s.must("get", "actors", "59341a8b5c4cd55f7b3ec57c01000000"), wantYAML)
	same("get", s.must("get", "actors", strings.Repeat("0", 32)), "Resource with id="+strings.Repeat("0", 32)+" not found in the cluster.\n")
	same("summary", timeless(s.must("summary", "actors"), "Actors Summary"), wantSummary)
	same("list -f", s.must("list", "actors", "-f", "state!=ALIVE"), "No resource in the cluster\n")
	same("list -f --format yaml", s.must("list", "actors", "-f", "STATE!=ALIVE", "--format=yaml"), "---\n[]\n...\n\n")
	contains(t, s.must("list", "actors", "--limit=1"), "Limit last 1 entries (Total 2).", "Total: 1\n")

	out := s.must("list", "actors", "--format=json")
	var rows []map[string]any
	if err := json.Unmarshal([]byte(out), &rows); err != nil || len(rows) != 2 || len(rows[0]) != 20 {
		t.Errorf("json: %v\n%s", err, out)
	}
	if !strings.HasPrefix(out, `[{"actor_id": "09df4e88a0d6ca4c9efd658201000000", "class_name": "P", "state": "PENDING_CREATION"`) {
		t.Error(out)
	}
	out, status := s.ray("list", "actors", "--limit=20000")
	if status != 2 {
		t.Errorf("status %d", status)
	}
	contains(t, out, "Error: Given limit 20000 exceeds the supported limit 10000.")
}

func TestYAMLText(t *testing.T) {
	for in, want := range map[string]string{
		"": "''", "a": "a", "01000000": "'01000000'", "12e45": "'12e45'", "0xab": "'0xab'", "true": "'true'", "No": "'No'", "null": "'null'",
		"a: b": "'a: b'", "a #b": "'a #b'", "a:": "'a:'", "it's": "it's", "'x": "'''x'", "-x": "'-x'", "a\nb": `"a\nb"`, "ü": `"ü"`, "aü": "aü", "\u2028": `"\u2028"`,
		"09df4e88a0d6ca4c9efd658201000000": "09df4e88a0d6ca4c9efd658201000000", "The actor died by `ray.kill`.": "The actor died by `ray.kill`.",
		"4baead28-c623-425e-9b57-181d87e9453b": "4baead28-c623-425e-9b57-181d87e9453b", "2001-01-01": "'2001-01-01'", "/tmp/x": "/tmp/x",
	} {
		if got := yamlText(in); got != want {
			t.Errorf("%q is %s, want %s", in, got, want)
		}
	}
}

func TestPlainTable(t *testing.T) {
	got := plainTable([]string{"", "NAME", "N"}, [][]string{{"0", "a", "1"}, {"1", "", "200"}, {"10", "bcdefgh\ni", ""}})
	want := []string{"    NAME       N", " 0  a          1", " 1           200", "10  bcdefgh", "    i"}
	if lines := strings.Split(got, "\n"); !reflect.DeepEqual(lines, want) {
		t.Errorf("%q, want %q", lines, want)
	}
}

func TestSummaryAndMemory(t *testing.T) {
	s := newShell(t)
	s.head()
	out := s.must("summary", "tasks")
	contains(t, out, "======== Tasks Summary: ", "total_tasks: 3\n", "Table (group by func_name):", "    FUNC_OR_CLASS_NAME    STATE_COUNTS    TYPE\n 0  f                     FINISHED: 2     NORMAL_TASK\n                          RUNNING: 1\n")
	out = s.must("list", "objects")
	contains(t, out, "7.630 MiB", "-1.000 B", "UserWarning: Callsite is not being recorded.")
	out = s.must("memory", "--units", "KB", "--sort-by=PID")
	contains(t, out,
		"Grouping by node address...        Sorting by pid...        Display all entries per group...\n",
		"--- Summary for node address: 10.0.0.1 ---\nMem Used by Objects  Local References  Pinned",
		"8000.247 KB          0, (0.0 KB)       1, (8000.247 KB)  0, (0.0 KB)    0, (0.0 KB)          1, (0.0 KB)",
		"\n10.0.0.1      | 7        | Driver  | disabled  | -         | 1        | ?        | ACTOR_HANDLE   | ff\n\n\n10.0.0.1      | 8        | Worker  | disabled  | FINISHED  | 1        | 8000.247 KB | PINNED_IN_MEMORY | aa\n",
		"To record callsite information for each ObjectRef created, set env variable RAY_record_ref_creation_sites=1\n",
		"--- Aggregate object store stats across all nodes ---\nPlasma memory usage 7 MiB, 3 objects, 0.78% full, 0.78% needed\n",
	)
	out = s.must("memory", "--stats-only")
	if strings.Contains(out, "Grouping by") {
		t.Error(out)
	}
	if out = s.must("memory", "--num-entries=1", "--group-by=STACK_TRACE"); strings.Contains(out, "| aa") || !strings.Contains(out, "--- Summary for stack trace: disabled ---") {
		t.Error(out)
	}
	out = s.must("timeline")
	contains(t, out, "Trace file written to "+s.temp+"/ray-timeline-", "You can open this with chrome://tracing in the Chrome browser.")
	files, err := filepath.Glob(s.temp + "/ray-timeline-*.json")
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if b, err := os.ReadFile(files[0]); err != nil || string(b) != `[{"ph":"X"}]` {
		t.Errorf("%s, %v", b, err)
	}
	out, status := s.ray("memory", "--sort-by=COLOUR")
	if status != 2 {
		t.Errorf("status %d: %s", status, out)
	}
}
