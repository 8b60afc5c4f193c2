package head

import (
	"context"
	"time"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
)

// ActorColumns are what people see of an actor, in Ray's order: the first ActorBrief always, the rest on request.
var ActorColumns = []string{
	"actor_id", "class_name", "state", "job_id", "name", "node_id", "pid", "ray_namespace",
	"serialized_runtime_env", "required_resources", "death_cause", "is_detached", "placement_group_id", "repr_name",
	"num_restarts", "num_restarts_due_to_lineage_reconstruction", "num_restarts_due_to_node_preemption", "call_site",
	"label_selector", "fallback_strategy",
}

// ActorBrief is the number of columns that are shown without being asked for.
const ActorBrief = 8

// ActorState is an actor with a value for each of ActorColumns, nil where there is none or it is not known.
func ActorState(r *actor.Row) map[string]any {
	resources := make(map[string]float64, len(r.Resources))
	for name, q := range r.Resources {
		resources[name] = float64(q) / 10000
	}
	m := map[string]any{
		// The job that made it, as its id says; that a detached one has a job of its own is nobody's business.
		"actor_id": r.ID.String(), "class_name": r.Class, "state": string(r.State), "job_id": r.ID.Job().String(), "name": r.Name,
		"node_id": nil, "pid": r.PID, "ray_namespace": r.Namespace,
		"serialized_runtime_env": nil, "required_resources": resources, "death_cause": nil, "is_detached": r.Detached,
		"placement_group_id": nil, "repr_name": r.Repr, "num_restarts": r.Incarnation,
		"num_restarts_due_to_lineage_reconstruction": 0, "num_restarts_due_to_node_preemption": 0, "call_site": nil,
		"label_selector": map[string]any{}, "fallback_strategy": nil,
	}
	if r.Node != (ids.NodeID{}) {
		m["node_id"] = r.Node.String()
	}
	if r.State == actor.Dead {
		m["death_cause"] = deathCause(r)
	}
	return m
}

// reasons are Ray's names where it has others than ours.
var reasons = map[actor.Cause]string{actor.Killed: "RAY_KILL", actor.Exited: "WORKER_DIED"}

func deathCause(r *actor.Row) map[string]any {
	switch r.Death.Cause {
	case actor.InitFailed:
		return map[string]any{"creation_task_failure_context": map[string]any{
			"formatted_exception_string": r.Death.Text, "language": "PYTHON",
		}}
	case actor.NoEnv:
		return map[string]any{"runtime_env_failed_context": map[string]any{"error_message": r.Death.Text}}
	case actor.Unplaceable:
		return map[string]any{"actor_unschedulable_context": map[string]any{"error_message": r.Death.Text}}
	}
	reason := reasons[r.Death.Cause]
	if reason == "" {
		reason = string(r.Death.Cause)
	}
	return map[string]any{"actor_died_error_context": map[string]any{
		"error_message": r.Death.Text, "node_ip_address": r.IP, "pid": r.PID, "name": r.Name, "ray_namespace": r.Namespace,
		"class_name": r.Class, "actor_id": r.ID.String(), "reason": reason, "never_started": r.Death.Never,
	}}
}

// Actors are all actors that live and those that died last, by id.
func (s *Service) Actors(ctx context.Context) ([]actor.Row, error) {
	rows := make(chan []actor.Row, 1)
	if err := s.query(ctx, func(time.Duration) { rows <- s.state.ActorRows() }); err != nil {
		return nil, err
	}
	return <-rows, nil
}
