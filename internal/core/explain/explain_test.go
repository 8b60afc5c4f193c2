package explain

import (
	"strings"
	"testing"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
)

func TestParse(t *testing.T) {
	job := ids.JobFromInt(1)
	task := ids.Unique(5).Task(job)
	for _, tc := range []struct {
		text string
		kind Kind
	}{
		{task.String(), Task},
		{task.Object(1).String(), Object},
		{ids.Unique(5).Actor(job).String(), Actor},
		{"ObjectRef(" + task.Object(1).String() + ")", Object},
		{"Actor(Counter, " + ids.Unique(5).Actor(job).String() + ")", Actor},
		{" " + task.String() + " ", Task},
		{"", ""},
		{"abc", ""},
		{"zz" + task.String()[2:], ""},
		{task.String() + "00", ""},
	} {
		s, err := Parse(tc.text)
		if (err == nil) != (tc.kind != "") || s.Kind != tc.kind {
			t.Errorf("%q: %q, %v", tc.text, s.Kind, err)
		}
		if err == nil && (!strings.Contains(tc.text, s.String()) || s.Unique() != 5) {
			t.Errorf("%q: read as %s, unique %d", tc.text, s, s.Unique())
		}
	}
}

func TestJoin(t *testing.T) {
	a, b := ids.NodeID{1}.String(), ids.NodeID{2}.String()
	obj := &Report{Kind: Object, Node: a, Holders: []Holder{{a, "x"}}}
	obj.Join(&Report{Kind: Object, Node: b, State: "FETCHING", Why: "its bytes are being copied here", Holders: []Holder{{b, "y"}}})
	if len(obj.Holders) != 2 || len(obj.Notes) != 1 || len(obj.Elsewhere) != 0 {
		t.Errorf("objects: %+v", obj)
	}
	mgr := &Report{Kind: Actor, Node: a, Life: &Life{}}
	mgr.Join(&Report{Kind: Actor, Node: ids.NodeID{3}.String(), Life: &Life{Callers: []Calls{{Caller: "one"}}}})
	if len(mgr.Life.Callers) != 1 || len(mgr.Elsewhere) != 0 {
		t.Errorf("a caller's daemon: %+v", mgr)
	}
	mgr.Join(&Report{Kind: Actor, Node: b, RunsOn: b, PID: 7, State: "ALIVE", Why: "it lives", Life: &Life{Running: []string{"m"}}})
	if mgr.PID != 7 || len(mgr.Life.Running) != 1 || len(mgr.Elsewhere) != 1 {
		t.Errorf("with its host: %+v", mgr)
	}
	if text := mgr.Text(); !strings.Contains(text, "node "+b+": ALIVE: it lives") {
		t.Error(text)
	}
}

func TestAskTravels(t *testing.T) {
	r := &Report{Ask: []ids.NodeID{{1}, {2}}}
	r.PrepareToSend()
	got := &Report{AskHex: r.AskHex}
	if err := got.Received(); err != nil || len(got.Ask) != 2 || got.Ask[1] != (ids.NodeID{2}) || got.AskHex != nil {
		t.Errorf("%+v, %v", got, err)
	}
	if err := (&Report{AskHex: []string{"zz"}}).Received(); err == nil {
		t.Error("a node id that is none was taken")
	}
}

func TestRowsInWords(t *testing.T) {
	id := ids.Unique(9).Actor(ids.JobFromInt(2))
	for _, tc := range []struct {
		row  actor.Row
		want []string
	}{
		{
			actor.Row{ID: id, Class: "A", State: actor.Dead, Incarnation: 3, Death: actor.Death{Cause: actor.Killed, Text: "it was killed."}},
			[]string{"actor A (" + id.String() + "): DEAD", "dead for ever (KILLED): it was killed.", "incarnation 3"},
		},
		{
			actor.Row{ID: id, State: actor.Alive, Node: ids.NodeID{4}, PID: 12, Name: "n", Namespace: "ns", Detached: true, MaxRestarts: -1},
			[]string{"on node 04", "process 12", `name "n" in namespace "ns"`, "max_restarts -1; detached"},
		},
		{actor.Row{ID: id, State: actor.Pending}, []string{"PENDING_CREATION"}},
		{actor.Row{ID: id, State: actor.Alive, Dying: true}, []string{"is being ended for ever"}},
	} {
		text := OfRow(&tc.row).Text()
		for _, w := range tc.want {
			if !strings.Contains(text, w) {
				t.Errorf("%q is not in\n%s", w, text)
			}
		}
	}
}

func TestWholeReportInWords(t *testing.T) {
	retries, left := int32(-1), int32(2)
	r := &Report{
		Kind: Task, ID: "ab", Name: "f", Job: "01000000", State: "PENDING_NODE_ASSIGNMENT", Why: "it waits", Node: "n1", Retries: &retries,
		Queue:   &Queue{Of: 9, Jobs: 2, Tasks: 12, Needs: "{'CPU': 1.0}", Strategy: "SPREAD"},
		Nodes:   []Verdict{{"n1", "one", "has free only 0"}, {"n2", "", "draining"}},
		More:    3,
		Missing: []Missing{{ID: "cd", State: "PENDING", Why: "why"}},
		Copies:  []Copy{{"n1", true, false}, {"n2", false, true}},
		Waiters: []Holder{{"n1", "ray.get in driver 5"}},
		Notes:   []string{"node n3 did not answer"},
		Life: &Life{
			MaxRestarts: 2, Left: &left, Past: []Past{{0, "n1", 12, "WORKER_DIED", "killed"}}, Running: []string{"task m"},
			Callers: []Calls{{"n1", "driver 5", "io", 2, 1}}, Creation: &Report{State: "AWAY", Why: "it was sent"},
		},
	}
	want := `task f (ab): PENDING_NODE_ASSIGNMENT
  it waits
  job 01000000; attempt 0, retries without end; told by node n1
  queue: far behind of 9 with the same needs: {'CPU': 1.0}, SPREAD; 2 jobs with 12 such tasks take turns
  nodes:
    n1 (one): has free only 0
    n2: draining
    and 3 more
  missing arguments:
    ObjectRef(cd): PENDING: why
  copies:
    node n1, which must keep it
    node n2, still arriving
  waited for by:
    ray.get in driver 5 (node n1)
  incarnation 0; max_restarts 2; 2 restarts left
  incarnations that ended:
    0 on node n1, process 12: WORKER_DIED: killed
  its process has:
    task m
  calls that have not ended:
    of driver 5 (node n1), group io: 1 sent, 2 waiting
  its creation: AWAY: it was sent
  note: node n3 did not answer
`
	if got := r.Text(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestOpenReasons(t *testing.T) {
	open := Missing{ID: "a", Ask: "n", On: "o"}
	r := &Report{
		Missing: []Missing{open, {ID: "b"}}, Blocked: []Missing{open}, Life: &Life{Creation: &Report{Missing: []Missing{open}}},
		Elsewhere: []*Report{{Blocked: []Missing{{ID: "c"}, open}}},
	}
	list := r.Open()
	if len(list) != 4 {
		t.Fatalf("%d reasons are open, want 4", len(list))
	}
	for _, m := range list {
		m.Ask = ""
	}
	if len(r.Open()) != 0 {
		t.Error("what was answered stays open")
	}
}
