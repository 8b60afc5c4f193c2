package state

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestFilters(t *testing.T) {
	rows := []Row{
		{"worker_id": "aa", "is_alive": true, "pid": int64(7), "exit_type": nil},
		{"worker_id": "BB", "is_alive": false, "pid": 8, "exit_type": "SYSTEM_ERROR"},
	}
	for _, tc := range []struct {
		filters []Filter
		want    []string
		bad     string
	}{
		{nil, []string{"aa", "BB"}, ""},
		{[]Filter{{"worker_id", "=", "bb"}}, []string{"BB"}, ""},
		{[]Filter{{"WORKER_ID", "!=", "bb"}}, []string{"aa"}, ""},
		{[]Filter{{"is_alive", "=", "1"}}, []string{"aa"}, ""},
		{[]Filter{{"is_alive", "!=", "True"}}, []string{"BB"}, ""},
		{[]Filter{{"pid", "=", " 8"}}, []string{"BB"}, ""},
		{[]Filter{{"pid", "=", "8"}, {"is_alive", "=", "true"}}, nil, ""},
		{[]Filter{{"exit_type", "=", ""}}, []string{"aa"}, ""},
		{[]Filter{{"pid", "=", "x"}}, nil, "Failed to convert a value x"},
		{[]Filter{{"is_alive", "=", "maybe"}}, nil, "for a boolean type column"},
		{[]Filter{{"exit_detail", "=", "x"}}, nil, "filter column exit_detail is not supported"},
		{[]Filter{{"pid", ">", "1"}}, nil, "Unsupported filter predicate >"},
	} {
		q := &Question{Kind: "workers", Limit: 10, Filters: tc.filters}
		a, err := q.Select(rows)
		if tc.bad != "" {
			var b *BadQuestion
			if !errors.As(err, &b) || !strings.Contains(b.Text, tc.bad) {
				t.Errorf("%v: %v, want %q", tc.filters, err, tc.bad)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range a.Rows {
			got = append(got, Str(r["worker_id"]))
			if len(r) != len(Workers.Names(false)) {
				t.Errorf("%d columns", len(r))
			}
		}
		if !slices.Equal(got, tc.want) || a.Filtered != len(tc.want) || a.Total != 2 {
			t.Errorf("%v: %v %+v, want %v", tc.filters, got, a, tc.want)
		}
	}
	for _, q := range []*Question{{Kind: "colours"}, {Kind: "tasks", Limit: MaxLimit + 1}, {Kind: "tasks", Limit: -1}, {Kind: "actors", Filters: []Filter{{"state", "=", "sad"}}}} {
		if _, err := q.Match(); err == nil {
			t.Errorf("%+v is answered", q)
		}
	}
}

// Of a task that runs elsewhere the host knows better, and filters are asked of both halves together.
func TestMerge(t *testing.T) {
	rows := func() []Row {
		return []Row{
			{"task_id": "a", "attempt_number": int64(0), "state": "SUBMITTED_TO_WORKER", "name": "f", Away: true},
			{"task_id": "b", "attempt_number": int64(0), "state": "SUBMITTED_TO_WORKER", "name": "g", Away: true},
			{"task_id": "c", "attempt_number": int64(0), "state": "RUNNING", "name": "h"},
			{"task_id": "a", "attempt_number": int64(0), "state": "RUNNING", "worker_pid": int64(5), Foreign: true},
			{"task_id": "z", "attempt_number": int64(0), "state": "RUNNING", Foreign: true},
			{"task_id": "c", "attempt_number": int64(0), "state": "FINISHED", "name": "h"},
		}
	}
	for _, tc := range []struct {
		filters []Filter
		want    []string
	}{
		{nil, []string{"a RUNNING f", "b SUBMITTED_TO_WORKER g", "c FINISHED h"}},
		{[]Filter{{"state", "=", "RUNNING"}}, []string{"a RUNNING f", "c FINISHED h"}}, // c is not asked again: its daemon did that
		{[]Filter{{"worker_pid", "=", "5"}, {"name", "=", "f"}}, []string{"a RUNNING f", "c FINISHED h"}},
	} {
		a := &Answer{Rows: rows(), Filtered: 4}
		if err := a.Merge(&Question{Kind: "tasks", Filters: tc.filters}); err != nil {
			t.Fatal(err)
		}
		a.Sort(Tasks, 100)
		var got []string
		for _, r := range a.Rows {
			got = append(got, Str(r["task_id"])+" "+Str(r["state"])+" "+Str(r["name"]))
			if _, ok := r[Away]; ok {
				t.Error("people see the mark of a row")
			}
		}
		if !slices.Equal(got, tc.want) || a.Filtered != len(tc.want) {
			t.Errorf("%v: %q (%d), want %q", tc.filters, got, a.Filtered, tc.want)
		}
	}
}

func TestSort(t *testing.T) {
	a := &Answer{Rows: []Row{
		{"task_id": "b", "attempt_number": int8(0)}, {"task_id": "a", "attempt_number": uint16(0)}, {"task_id": "a", "attempt_number": 1},
	}}
	a.Sort(Tasks, 2)
	if want := []Row{{"task_id": "a", "attempt_number": 1}, {"task_id": "a", "attempt_number": uint16(0)}}; !reflect.DeepEqual(a.Rows, want) {
		t.Errorf("%v, want %v", a.Rows, want)
	}
}

func TestSummaries(t *testing.T) {
	own := Groups(map[Group]int{{"f", "NORMAL_TASK", AwayState}: 3, {"f", "NORMAL_TASK", "FINISHED"}: 2, {"A.m", "ACTOR_TASK", "FAILED"}: 1}, false)
	theirs := Groups(map[Group]int{{"f", "NORMAL_TASK", "RUNNING"}: 2}, true)
	got := SummarizeTasks(append(own, theirs...))
	want := Row{
		"summary": Row{
			"f":   Row{"func_or_class_name": "f", "type": "NORMAL_TASK", "state_counts": Row{"RUNNING": int64(2), "SUBMITTED_TO_WORKER": int64(1), "FINISHED": int64(2)}},
			"A.m": Row{"func_or_class_name": "A.m", "type": "ACTOR_TASK", "state_counts": Row{"FAILED": int64(1)}},
		},
		"total_tasks": int64(5), "total_actor_tasks": int64(1), "total_actor_scheduled": int64(0), "summary_by": "func_name",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	got = SummarizeObjects([]Row{
		{"call_site": "a.py:1", "count": int64(2), "object_size": int64(1 << 20), "ip": "1", "pid": int64(1), "task_status": "FINISHED", "attempt_number": int64(1), "reference_type": "LOCAL_REFERENCE"},
		{"call_site": "a.py:1", "count": int64(1), "object_size": int64(0), "ip": "2", "pid": int64(1), "task_status": "NIL", "attempt_number": int64(1), "reference_type": "PINNED_IN_MEMORY"},
	})
	want = Row{
		"summary": Row{"a.py:1": Row{
			"total_objects": int64(3), "total_size_mb": 1.0, "total_num_workers": int64(2), "total_num_nodes": int64(2),
			"task_state_counts": Row{"FINISHED": int64(2), "NIL": int64(1)}, "task_attempt_number_counts": Row{"1": int64(3)},
			"ref_type_counts": Row{"LOCAL_REFERENCE": int64(2), "PINNED_IN_MEMORY": int64(1)},
		}},
		"total_objects": int64(3), "total_size_mb": 1.0, "callsite_enabled": true, "summary_by": "callsite",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Tables have Ray's columns; each that is always shown stands before those that are not.
func TestTables(t *testing.T) {
	for _, table := range Tables {
		detail := false
		names := map[string]bool{}
		for _, c := range table.Columns {
			if detail && !c.Detail {
				t.Errorf("%s: %s is shown always and stands behind one that is not", table.Kind, c.Name)
			}
			detail = c.Detail
			if names[c.Name] {
				t.Errorf("%s: two columns %s", table.Kind, c.Name)
			}
			names[c.Name] = true
		}
		if Find(table.Kind) != table || !names[table.ID] {
			t.Errorf("%s: not found, or without its id", table.Kind)
		}
	}
}
