package node

import (
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"

	"gray/internal/core/engine"
	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/core/ids"
	"gray/internal/state"
	"gray/internal/wire"
)

// scanChunk is how many tasks are looked at before the lock is released for others.
const scanChunk = 1024

// StateAsked answers the head's question for this node's rows.
func (h *handler) StateAsked(ask *headstate.StateAsk) {
	n := h.n
	n.spawn(func() {
		told := &headstate.StateTold{Seq: ask.Seq}
		var q state.Question
		err := wire.Unmarshal(ask.Question, &q)
		if err == nil {
			var a *state.Answer
			if a, err = n.rows(&q); err == nil {
				told.Answer, err = wire.Marshal(a)
			}
		}
		if err != nil {
			told.Error = err.Error()
		}
		n.link.TellState(told)
	})
}

// rows answers a question about what this daemon knows itself.
func (n *Node) rows(q *state.Question) (*state.Answer, error) {
	match, err := q.Match()
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	ready := n.eng != nil
	n.mu.Unlock()
	switch {
	case !ready:
		return &state.Answer{}, nil
	case q.Want == state.Timeline:
		return n.timeline(q), nil
	case q.Want == state.Usage:
		return n.storeUsage(), nil
	case q.Kind == state.Tasks.Kind && q.Want == state.Summary:
		return n.taskGroups(), nil
	case q.Kind == state.Tasks.Kind:
		return n.taskRows(q, match), nil
	case q.Kind == state.Objects.Kind:
		return n.objectRows(q, match), nil
	case q.Kind == state.Workers.Kind:
		return n.workerRows(q)
	}
	return nil, &fault.Error{Op: "node.State", Kind: fault.System, Detail: "a daemon has no table of " + q.Kind}
}

// scanTasks hands all attempts out, a chunk at a time under the lock.
func (n *Node) scanTasks(take func(*engine.TaskRow)) (known, dropped uint64) {
	var at engine.TaskScan
	for more := true; more; {
		n.mu.Lock()
		more = n.eng.ScanTasks(&at, scanChunk, take)
		known, dropped = n.eng.TaskCounts()
		n.mu.Unlock()
	}
	return known, dropped
}

func (n *Node) taskRows(q *state.Question, match state.Match) *state.Answer {
	a := &state.Answer{}
	job, ofJob := q.Wanted("job_id")
	_, dropped := n.scanTasks(func(r *engine.TaskRow) {
		if !r.Foreign {
			a.Total++
		}
		if ofJob && r.Job.String() != strings.ToLower(job) {
			return
		}
		get := func(c string) any { return n.taskColumn(r, c) }
		// A row whose other half is elsewhere is tested when both are together.
		if !r.Foreign && !r.Away && !match(get) {
			return
		}
		if !r.Foreign {
			a.Filtered++
			if len(a.Rows) >= q.Limit+1 && !r.Away { // more are counted only
				return
			}
		}
		if len(a.Rows) >= 2*state.MaxLimit {
			return
		}
		row := state.Tasks.Build(q.Detail, get)
		if r.Away {
			row[state.Away] = true
		}
		if r.Foreign {
			row[state.Foreign] = true
		}
		for _, f := range q.Filters { // of what is not shown, for those tests
			if key := strings.ToLower(f.Key); r.Away || r.Foreign {
				row[key] = n.taskColumn(r, key)
			}
		}
		a.Rows = append(a.Rows, row)
	})
	a.Kept, a.Dropped = a.Total, dropped
	return a
}

func (n *Node) taskGroups() *state.Answer {
	own, foreign := map[state.Group]int{}, map[state.Group]int{}
	a := &state.Answer{}
	_, a.Dropped = n.scanTasks(func(r *engine.TaskRow) {
		g := state.Group{Name: taskName(r), Type: r.Type.String(), State: r.State}
		switch {
		case r.Foreign:
			foreign[g]++
			return
		case r.Away:
			g.State = state.AwayState
		}
		own[g]++
		a.Total++
	})
	a.Kept, a.Filtered = a.Total, a.Total
	a.Rows = append(state.Groups(own, false), state.Groups(foreign, true)...)
	return a
}

// faultNames are Ray's names of what made an attempt fail, where they are others than ours.
var faultNames = map[fault.Kind]string{
	fault.WorkerCrashed: "WORKER_DIED", fault.Cancelled: "TASK_CANCELLED", fault.Unschedulable: "TASK_UNSCHEDULABLE_ERROR",
	fault.RuntimeEnv: "RUNTIME_ENV_SETUP_FAILED", fault.StoreFull: "OUT_OF_DISK_ERROR", fault.System: "TASK_EXECUTION_EXCEPTION",
}

func faultName(k fault.Kind) string {
	if name, ok := faultNames[k]; ok {
		return name
	}
	return string(k)
}

// taskName is a call's name: its own, or its function's.
func taskName(r *engine.TaskRow) string {
	if len(r.Over) > 0 {
		if o, err := wire.DecodeOverrides(r.Over); err == nil && o.Name != nil && *o.Name != "" {
			return *o.Name
		}
	}
	return r.Name
}

// taskColumn is a column of the table of tasks; nil where there is nothing to say.
func (n *Node) taskColumn(r *engine.TaskRow, column string) any {
	switch column {
	case "task_id":
		return r.ID.String()
	case "attempt_number":
		return int64(r.Attempt)
	case "name":
		return taskName(r)
	case "state":
		return r.State
	case "job_id":
		return r.Job.String()
	case "actor_id":
		if r.Actor != (ids.ActorID{}) {
			return r.Actor.String()
		}
	case "type":
		return r.Type.String()
	case "func_or_class_name":
		return r.Func
	case "parent_task_id":
		return r.Parent.String()
	case "node_id":
		if r.Node != (ids.NodeID{}) {
			return r.Node.String()
		}
	case "worker_id":
		if r.PID != 0 {
			return hex.EncodeToString(r.Worker[:])
		}
	case "worker_pid":
		if r.PID != 0 {
			return int64(r.PID)
		}
	case "error_type":
		if r.Fault != "" {
			return faultName(r.Fault)
		}
	default:
		return n.taskDetail(r, column)
	}
	return nil
}

// taskDetail is a column that is shown on request.
func (n *Node) taskDetail(r *engine.TaskRow, column string) any {
	switch column {
	case "language":
		return "PYTHON"
	case "required_resources":
		return amounts(r.Resources)
	case "runtime_env_info":
		return map[string]any{"serialized_runtime_env": envText(r.Env), "runtime_env_config": map[string]any{
			"setup_timeout_seconds": 600, "eager_install": true, "log_files": []any{},
		}}
	case "events":
		return stations(r)
	case "profiling_data":
		return n.profile(r)
	case "creation_time_ms":
		return millis(r.Created)
	case "start_time_ms":
		return millis(r.Began)
	case "end_time_ms":
		return millis(r.Ended)
	case "task_log_info":
		if r.PID != 0 && r.Node == n.id && r.Type != engine.ActorTask {
			stem := filepath.Join(n.dir.Path, "logs", fmt.Sprintf("worker-%x-%s-%d", r.Worker[:], r.Job, r.PID))
			return map[string]any{"stdout_file": stem + ".out", "stderr_file": stem + ".err"}
		}
	case "error_message":
		if r.Fault != "" {
			return string(r.Error)
		}
	case "call_site":
		if r.Site != "" {
			return r.Site
		}
	case "label_selector":
		m := map[string]any{}
		for k, v := range r.Labels {
			m[k] = v
		}
		return m
	case "fallback_strategy":
		return map[string]any{"options": []any{}}
	}
	return nil
}

// envText is an environment as JSON; "{}" for the job's own.
func envText(env string) string {
	if env == "" {
		return "{}"
	}
	var m map[string]any
	if err := wire.Unmarshal([]byte(env), &m); err != nil {
		return "{}"
	}
	return jsonText(m)
}

func amounts(m map[string]int64) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[k] = float64(v) / 10000
	}
	return out
}

// millis is a time in milliseconds since 1970, or nil.
func millis(micros int64) any {
	if micros == 0 {
		return nil
	}
	return micros / 1000
}

// stations are the states that an attempt went through, as Ray lists them.
func stations(r *engine.TaskRow) []any {
	list := []any{}
	add := func(s string, at int64) {
		if at != 0 {
			list = append(list, map[string]any{"state": s, "created_ms": float64(at / 1000)})
		}
	}
	add("PENDING_ARGS_AVAIL", r.Created)
	add("PENDING_NODE_ASSIGNMENT", r.Ready)
	add("SUBMITTED_TO_WORKER", r.Sent)
	add("RUNNING", r.Began)
	if r.Ended != 0 {
		add(r.State, r.Ended)
	}
	return list
}

func (n *Node) workerRows(q *state.Question) (*state.Answer, error) {
	var rows []state.Row
	n.mu.Lock()
	n.eng.ScanWorkers(func(w *engine.WorkerRow) {
		row := state.Row{
			"worker_id": hex.EncodeToString(w.ID[:]), "is_alive": w.Alive, "worker_type": "WORKER", "exit_type": nil, "node_id": w.Node.String(), "ip": n.ip,
			"pid": int64(w.PID), "exit_detail": nil, "worker_launch_time_ms": w.Since / 1000, "worker_launched_time_ms": w.Since / 1000,
			"start_time_ms": w.Since / 1000, "end_time_ms": w.Ended / 1000, "debugger_port": nil, "num_paused_threads": nil,
		}
		if w.Driver {
			row["worker_type"] = "DRIVER"
		}
		if !w.Alive {
			row["exit_type"], row["exit_detail"] = w.Exit, w.Detail
		}
		rows = append(rows, row)
	})
	n.mu.Unlock()
	limited := *q
	limited.Limit = state.MaxLimit // the head cuts, once all are sorted
	return limited.Select(rows)
}

func (n *Node) objectRows(q *state.Question, match state.Match) *state.Answer {
	a := &state.Answer{}
	type group struct {
		site, status, ref string
		attempt           int64
		pid               int
	}
	groups := map[group]state.Row{}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.eng.ScanObjects(func(o *engine.ObjectRow) {
		a.Total++
		get := func(c string) any { return n.objectColumn(o, c) }
		if !match(get) {
			return
		}
		a.Filtered++
		if q.Want == state.Summary {
			g := group{site(o), o.Status, o.Ref, int64(o.Attempt) + 1, o.PID}
			if groups[g] == nil {
				groups[g] = state.Objects.Build(false, get)
				groups[g]["count"], groups[g]["object_size"] = int64(0), int64(0)
			}
			groups[g]["count"] = groups[g]["count"].(int64) + 1
			groups[g]["object_size"] = groups[g]["object_size"].(int64) + max(o.Size, 0)
			return
		}
		if len(a.Rows) < state.MaxLimit {
			a.Rows = append(a.Rows, state.Objects.Build(q.Detail, get))
		}
	})
	for _, r := range groups {
		a.Rows = append(a.Rows, r)
	}
	a.Kept = a.Total
	return a
}

// storeUsage tells how full this node's object store is.
func (n *Node) storeUsage() *state.Answer {
	n.mu.Lock()
	defer n.mu.Unlock()
	st := n.eng.Store()
	row := state.Row{"node_id": n.id.String(), "capacity": st.Capacity, "used": st.Used, "objects": int64(st.Objects)}
	return &state.Answer{Total: 1, Kept: 1, Filtered: 1, Rows: []state.Row{row}}
}

func site(o *engine.ObjectRow) string {
	if o.Site == "" {
		return state.SitesOff
	}
	return o.Site
}

func (n *Node) objectColumn(o *engine.ObjectRow, column string) any {
	switch column {
	case "object_id":
		return o.ID.String()
	case "object_size":
		return o.Size
	case "task_status":
		return o.Status
	case "attempt_number":
		return int64(o.Attempt) + 1
	case "reference_type":
		return o.Ref
	case "call_site":
		return site(o)
	case "type":
		if o.Driver {
			return "DRIVER"
		}
		return "WORKER"
	case "pid":
		return int64(o.PID)
	case "ip":
		return n.ip
	}
	return nil
}

// partSize is how much of a large answer goes into one frame.
const partSize = 256 << 10

// maxState bounds the answer that a client is given, in bytes.
const maxState = 64 << 20

// stateCall is a client's question about the cluster's tables.
func (n *Node) stateCall(ch engine.Chan, req uint32, question wire.Raw) {
	var q state.Question
	if err := wire.Unmarshal(question, &q); err == nil && q.Kind == state.Logs {
		n.logsCall(ch, req, &q)
		return
	}
	n.ask(ch, req, "state", &headstate.StateQuery{Question: append([]byte(nil), question...)}, func(x headstate.Answer) any {
		m := x.(*headstate.StateAnswer)
		switch {
		case m.Bad:
			return map[string]any{"bad": m.Error}
		case m.Error != "":
			return &fault.Error{Op: "state", Kind: fault.System, Detail: m.Error}
		case len(m.Answer) > maxState:
			return &fault.Error{Op: "state", Kind: fault.Limit, Detail: fmt.Sprintf("the answer has %d bytes, and at most %d are sent; ask for fewer rows or columns", len(m.Answer), maxState)}
		}
		n.sendParts(ch, req, m.Answer)
		return map[string]any{}
	})
}

// sendParts sends an answer ahead of the reply that ends it; the caller holds the lock.
func (n *Node) sendParts(ch engine.Chan, req uint32, rest []byte) {
	s := &sink{n}
	for no := uint32(0); len(rest) > 0; no++ {
		k := min(len(rest), partSize)
		s.add(ch, func(b []byte) ([]byte, error) {
			return wire.AppendPart(b, &wire.Part{Req: req, No: no, Data: rest[:k]})
		})
		rest = rest[k:]
	}
}
