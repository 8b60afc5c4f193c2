package node

import (
	"encoding/hex"
	"encoding/json"
	"net"

	"gray/internal/core/engine"
	"gray/internal/core/ids"
	"gray/internal/state"
)

// Colours of Chrome's trace viewer that Ray gives the phases of a task.
var traceColours = map[string]string{
	"task:deserialize_arguments": "rail_load", "task:execute": "rail_animation", "task:store_outputs": "rail_idle",
}

// timeline is the trace of the attempts of this daemon's own tasks that began: for each the whole of it, and what is known
// of its phases.
func (n *Node) timeline(q *state.Question) *state.Answer {
	a := &state.Answer{}
	now := n.now().UnixMicro()
	ips := n.addresses()
	_, a.Dropped = n.scanTasks(func(r *engine.TaskRow) {
		if r.Began == 0 || r.Foreign || q.Job != "" && r.Job.String() != q.Job {
			return
		}
		a.Total++
		end := r.Ended
		if end == 0 {
			end = now
		}
		name := taskName(r)
		id := r.ID.String()
		event := func(cat, name, colour string, args map[string]any) {
			a.Rows = append(a.Rows, state.Row{
				"cat": cat, "name": name, "pid": ips[r.Node], "tid": "worker:" + hex.EncodeToString(r.Worker[:]),
				"ts": float64(r.Began), "dur": float64(max(end-r.Began, 0)), "ph": "X", "cname": colour, "args": args,
			})
		}
		args := map[string]any{}
		if r.Fault != "" {
			args["type"], args["value"] = faultName(r.Fault), string(r.Error)
		}
		event("task:execute", "task:execute", traceColours["task:execute"], args)
		event("task::"+name, name, "generic_work", map[string]any{"name": name, "task_id": id})
	})
	a.Kept, a.Filtered = a.Total, a.Total
	return a
}

// addresses are those of the nodes that this one knows.
func (n *Node) addresses() map[ids.NodeID]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := map[ids.NodeID]string{n.id: n.ip}
	for id, p := range n.peers.byID {
		m[id] = hostOf(p.addr)
	}
	return m
}

// profile is what is known of an attempt's phases, in the form of Ray's profiling_data.
func (n *Node) profile(r *engine.TaskRow) map[string]any {
	if r.Began == 0 || r.Ended == 0 {
		return map[string]any{}
	}
	name := taskName(r)
	phase := func(event string, extra map[string]any) map[string]any {
		return map[string]any{"event_name": event, "start_time": float64(r.Began) / 1000, "end_time": float64(r.Ended) / 1000, "extra_data": extra}
	}
	return map[string]any{
		"component_type": "worker", "component_id": hex.EncodeToString(r.Worker[:]), "node_ip_address": n.ip,
		"events": []any{phase("task:execute", map[string]any{}), phase("task::"+name, map[string]any{"name": name, "task_id": r.ID.String()})},
	}
}

// hostOf is an address without its port.
func hostOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return host
}

func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "{}"
	}
	return string(b)
}
