// Package state is what the tables of a cluster have in common: their columns, the questions that may be asked of them,
// and how rows are chosen, counted and put together. Daemons, the head, the HTTP faces and the commands share it, so a
// kind of thing is one table here and one function where its rows come from.
//
// A row is a map from column to value: text, bool, int64, float64, nil, and maps and lists of these. It knows no clock and
// does no I/O.
package state

import "slices"

// Row is one thing in a table.
type Row = map[string]any

// Type is what a column's values are.
type Type uint8

// The types.
const (
	Text Type = iota
	Number
	Truth
	Other // a map or a list
)

// Shape says how people are shown a column's values; programs get them as they are.
type Shape uint8

// The shapes.
const (
	Plain    Shape = iota
	Moment         // milliseconds since 1970
	Size           // bytes
	Amounts        // resources by name, memory in bytes
	Stations       // states and when they began
)

// Column is a column of a table.
type Column struct {
	Name   string
	Type   Type
	Shape  Shape
	Detail bool // shown on request only
	Filter bool // a filter may name it
}

// Table is what is listed of a kind of thing.
type Table struct {
	Kind    string // "actors", as in paths and calls
	Title   string // of a summary
	ID      string // the column that names a thing
	IDSize  int    // of ids in hexadecimal, their bytes; 0 = any text
	Columns []Column
	States  []string // what a filter of the column "state" may ask for; nil = anything
}

func always(name string) Column { return Column{Name: name, Filter: true} }
func number(name string) Column { return Column{Name: name, Type: Number, Filter: true} }
func truth(name string) Column  { return Column{Name: name, Type: Truth, Filter: true} }
func detail(name string, t Type) Column {
	return Column{Name: name, Type: t, Detail: true}
}

func moment(name string) Column {
	return Column{Name: name, Type: Number, Shape: Moment, Detail: true}
}

func (c Column) unfiltered() Column { c.Filter = false; return c }
func (c Column) filtered() Column   { c.Filter = true; return c }
func (c Column) as(s Shape) Column  { c.Shape = s; return c }
func (c Column) typed(t Type) Column {
	c.Type = t
	return c
}

// The tables, with Ray's columns in Ray's order.
var (
	Actors = &Table{
		Kind: "actors", Title: "Actors", ID: "actor_id", IDSize: 16,
		States: []string{"DEPENDENCIES_UNREADY", "PENDING_CREATION", "ALIVE", "RESTARTING", "DEAD"},
		Columns: []Column{
			always("actor_id"), always("class_name"), always("state"), always("job_id"), always("name"), always("node_id"), number("pid"),
			always("ray_namespace"), detail("serialized_runtime_env", Text), detail("required_resources", Other), detail("death_cause", Other),
			detail("is_detached", Truth), detail("placement_group_id", Text).filtered(), detail("repr_name", Text).filtered(), detail("num_restarts", Number),
			detail("num_restarts_due_to_lineage_reconstruction", Number), detail("num_restarts_due_to_node_preemption", Number),
			detail("call_site", Text), detail("label_selector", Other), detail("fallback_strategy", Other),
		},
	}
	Tasks = &Table{
		Kind: "tasks", Title: "Tasks", ID: "task_id", IDSize: 24,
		States: []string{
			"NIL", "PENDING_ARGS_AVAIL", "PENDING_NODE_ASSIGNMENT", "PENDING_OBJ_STORE_MEM_AVAIL", "PENDING_ARGS_FETCH", "SUBMITTED_TO_WORKER",
			"PENDING_ACTOR_TASK_ARGS_FETCH", "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY", "RUNNING", "RUNNING_IN_RAY_GET", "RUNNING_IN_RAY_WAIT",
			"FINISHED", "FAILED", "GETTING_AND_PINNING_ARGS",
		},
		Columns: []Column{
			always("task_id"), number("attempt_number"), always("name"), always("state"), always("job_id"), always("actor_id"), always("type"),
			always("func_or_class_name"), always("parent_task_id"), always("node_id"), always("worker_id"), number("worker_pid"), always("error_type"),
			detail("language", Text).filtered(), detail("required_resources", Other), detail("runtime_env_info", Other),
			detail("placement_group_id", Text).filtered(), detail("events", Other).as(Stations), detail("profiling_data", Other), moment("creation_time_ms"),
			moment("start_time_ms"), moment("end_time_ms"), detail("task_log_info", Other), detail("error_message", Text),
			detail("is_debugger_paused", Truth).filtered(), detail("call_site", Text), detail("label_selector", Other), detail("fallback_strategy", Other),
		},
	}
	Objects = &Table{
		Kind: "objects", Title: "Object", ID: "object_id", IDSize: 28,
		Columns: []Column{
			always("object_id"), number("object_size").as(Size), always("task_status"), number("attempt_number"), always("reference_type"),
			always("call_site"), always("type"), number("pid"), always("ip"),
		},
	}
	Workers = &Table{
		Kind: "workers", ID: "worker_id", IDSize: 28,
		Columns: []Column{
			always("worker_id"), truth("is_alive"), always("worker_type"), always("exit_type"), always("node_id"), always("ip"), number("pid"),
			detail("exit_detail", Text), moment("worker_launch_time_ms"), moment("worker_launched_time_ms"), moment("start_time_ms"),
			moment("end_time_ms"), detail("debugger_port", Number).filtered(), detail("num_paused_threads", Number).filtered(),
		},
	}
	Nodes = &Table{
		Kind: "nodes", ID: "node_id", IDSize: 28,
		Columns: []Column{
			always("node_id"), always("node_ip"), truth("is_head_node"), always("state"), always("state_message").unfiltered(), always("node_name"),
			always("resources_total").typed(Other).unfiltered().as(Amounts), always("labels").typed(Other).unfiltered(), moment("start_time_ms"), moment("end_time_ms"),
		},
	}
	Jobs = &Table{
		Kind: "jobs", ID: "job_id", IDSize: 4,
		Columns: []Column{
			always("job_id"), always("submission_id"), always("entrypoint").unfiltered(), always("type"), always("status"), always("message").unfiltered(),
			always("error_type").unfiltered(), always("driver_info").typed(Other).unfiltered(), detail("start_time", Number), detail("end_time", Number), detail("metadata", Other),
			detail("runtime_env", Other), detail("driver_agent_http_address", Text), detail("driver_node_id", Text), detail("driver_exit_code", Number),
		},
	}
	PlacementGroups = &Table{
		Kind: "placement_groups", ID: "placement_group_id", IDSize: 18,
		Columns: []Column{
			always("placement_group_id"), always("name"), always("creator_job_id"), always("state"), detail("bundles", Other),
			detail("is_detached", Truth).filtered(), detail("stats", Other), detail("topology_strategy", Other), detail("topology_assignments", Other),
		},
	}
	RuntimeEnvs = &Table{
		Kind: "runtime_envs", ID: "runtime_env",
		Columns: []Column{
			always("runtime_env").typed(Other), truth("success"), number("creation_time_ms").unfiltered(), always("node_id"), detail("ref_cnt", Number),
			detail("error", Text).filtered(),
		},
	}
	ClusterEvents = &Table{
		Kind: "cluster_events", ID: "event_id",
		Columns: []Column{
			always("severity"), always("time").unfiltered(), always("source_type"), always("message").unfiltered(), always("event_id"), detail("custom_fields", Other),
		},
	}
)

// Tables are all of them, in Ray's order.
var Tables = []*Table{Actors, Jobs, PlacementGroups, Nodes, Workers, Tasks, Objects, RuntimeEnvs, ClusterEvents}

// Find is the table of a kind, or nil.
func Find(kind string) *Table {
	if i := slices.IndexFunc(Tables, func(t *Table) bool { return t.Kind == kind }); i >= 0 {
		return Tables[i]
	}
	return nil
}

// Column is a column by its name, or nil.
func (t *Table) Column(name string) *Column {
	if i := slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == name }); i >= 0 {
		return &t.Columns[i]
	}
	return nil
}

// Names are the names of the columns: all, or those that are shown without being asked for.
func (t *Table) Names(all bool) []string {
	names := []string{}
	for _, c := range t.Columns {
		if all || !c.Detail {
			names = append(names, c.Name)
		}
	}
	return names
}

// Filters are the names of the columns that filters may name.
func (t *Table) Filters() []string {
	names := []string{}
	for _, c := range t.Columns {
		if c.Filter {
			names = append(names, c.Name)
		}
	}
	return names
}

// Build makes a row of the columns that get knows.
func (t *Table) Build(all bool, get func(column string) any) Row {
	row := make(Row, len(t.Columns))
	for i := range t.Columns {
		if c := &t.Columns[i]; all || !c.Detail {
			row[c.Name] = get(c.Name)
		}
	}
	return row
}
