package head

import (
	"gray/internal/core/actor"
	"gray/internal/core/ids"
	"gray/internal/core/resource"
)

// ActorState is an actor as the table of actors has it, nil where there is nothing to say or it is not known.
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
		"label_selector": texts(r.Labels), "fallback_strategy": fallback(r.Fallback),
	}
	if r.Site != "" {
		m["call_site"] = r.Site
	}
	if r.Node != (ids.NodeID{}) {
		m["node_id"] = r.Node.String()
	}
	if r.State == actor.Dead {
		m["death_cause"] = deathCause(r)
	}
	return m
}

// fallback is alternatives of labels as Ray lists them, nil if there are none.
func fallback(list []map[string]string) any {
	if len(list) == 0 {
		return nil
	}
	options := make([]any, 0, len(list))
	for _, m := range list {
		terms, err := resource.ParseSelector(m)
		if err != nil {
			continue // an engine wrote it: it cannot be
		}
		constraints := make([]any, 0, len(terms))
		for _, t := range terms {
			operator := "LABEL_OPERATOR_IN"
			if t.Not {
				operator = "LABEL_OPERATOR_NOT_IN"
			}
			constraints = append(constraints, map[string]any{"label_key": t.Key, "operator": operator, "label_values": t.Values})
		}
		options = append(options, map[string]any{"label_selector": map[string]any{"label_constraints": constraints}})
	}
	return map[string]any{"options": options}
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
