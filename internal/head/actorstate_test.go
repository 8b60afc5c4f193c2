package head

import (
	"reflect"
	"strings"
	"testing"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
	"gray/internal/state"
)

func TestActorState(t *testing.T) {
	rows := []actor.Row{
		{
			ID: ids.Unique(1).Actor(ids.JobFromInt(1)), Job: ids.JobFromInt(7), Class: "A", State: actor.Alive, Name: "one", Namespace: "ns",
			Detached: true, Node: ids.NodeID{1}, PID: 12, Resources: map[string]int64{"CPU": 5000}, Incarnation: 2, Repr: "me",
		},
		{ID: ids.Unique(2).Actor(ids.JobFromInt(1)), Class: "A", State: actor.Dead, Death: actor.Death{Cause: actor.Killed, Text: "killed"}},
	}
	for i := range rows {
		m := ActorState(&rows[i])
		for _, c := range state.Actors.Names(true) {
			if _, ok := m[c]; !ok {
				t.Errorf("no %s", c)
			}
		}
		if len(m) != len(state.Actors.Columns) || m["job_id"] != "01000000" {
			t.Errorf("%d columns; job %v", len(m), m["job_id"])
		}
	}
	if r := ActorState(&rows[0])["required_resources"]; !reflect.DeepEqual(r, map[string]float64{"CPU": 0.5}) {
		t.Errorf("resources %v", r)
	}
	for cause, want := range map[actor.Cause]string{
		actor.Killed: "actor_died_error_context RAY_KILL", actor.Unreferred: "actor_died_error_context OUT_OF_SCOPE",
		actor.InitFailed: "creation_task_failure_context <nil>", actor.Unplaceable: "actor_unschedulable_context <nil>",
	} {
		row := actor.Row{State: actor.Dead, Death: actor.Death{Cause: cause}}
		for kind, of := range ActorState(&row)["death_cause"].(map[string]any) {
			reason, _ := of.(map[string]any)["reason"].(string)
			if got := kind + " " + reason; got != strings.Replace(want, "<nil>", "", 1) {
				t.Errorf("%s: %s, want %s", cause, got, want)
			}
		}
	}
}
