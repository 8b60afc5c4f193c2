package state

// A task that was sent to another node is in two daemons' tables: its owner has the row, its host knows how it goes there.
// Rows carry two marks for that, which people are not shown.
const (
	Away    = "_away"    // its owner's row: the host knows better
	Foreign = "_foreign" // its host's row: there is one of its owner's, too
)

// hostKnows are the columns that a host's row says better.
var hostKnows = []string{"state", "node_id", "worker_id", "worker_pid", "start_time_ms", "events", "task_log_info", "profiling_data"}

// Merge puts owners' and hosts' rows of tasks together, and asks the filters again of those that became others by that.
func (a *Answer) Merge(q *Question) error {
	match, err := q.Match()
	if err != nil {
		return err
	}
	hosts := map[string]Row{}
	rows := a.Rows[:0:0]
	key := func(r Row) string { return Str(r["task_id"]) + "." + text(r["attempt_number"]) }
	for _, r := range a.Rows {
		if r[Foreign] == true {
			hosts[key(r)] = r
		}
	}
	seen := map[string]int{}
	for _, r := range a.Rows {
		if r[Foreign] == true {
			continue
		}
		k := key(r)
		if r[Away] == true {
			if h := hosts[k]; h != nil {
				for _, c := range hostKnows {
					if v, ok := h[c]; ok {
						r[c] = v
					}
				}
			}
			if !match(func(c string) any { return r[c] }) {
				a.Filtered--
				continue
			}
		}
		if at, ok := seen[k]; ok { // it ended while it was looked for: what is said last is right
			rows[at] = r
			a.Filtered--
			continue
		}
		seen[k] = len(rows)
		rows = append(rows, r)
	}
	for _, r := range rows {
		delete(r, Away)
	}
	a.Rows = rows
	return nil
}

// Group is what attempts have in common that a daemon's summary of tasks counts together.
type Group struct{ Name, Type, State string }

// AwayState is the state of attempts in a summary that another daemon's groups count, too, by the state they have there.
const AwayState = "AWAY"

// Groups makes rows of counts.
func Groups(counts map[Group]int, foreign bool) []Row {
	rows := make([]Row, 0, len(counts))
	for g, n := range counts {
		r := Row{"name": g.Name, "type": g.Type, "state": g.State, "count": int64(n)}
		if foreign {
			r[Foreign] = true
		}
		rows = append(rows, r)
	}
	return rows
}

// SummarizeTasks is Ray's summary of tasks, from daemons' groups.
func SummarizeTasks(groups []Row) Row {
	type function struct {
		kind    string
		counts  map[string]int64
		foreign int64
	}
	all := map[string]*function{}
	for _, r := range groups {
		name := Str(r["name"])
		f := all[name]
		if f == nil {
			f = &function{kind: Str(r["type"]), counts: map[string]int64{}}
			all[name] = f
		}
		n := Int(r["count"])
		f.counts[Str(r["state"])] += n
		if r[Foreign] == true {
			f.foreign += n
		}
	}
	summary := Row{}
	totals := map[string]int64{}
	for name, f := range all {
		if away := f.counts[AwayState] - f.foreign; away > 0 { // on its way to a node that has not got it yet
			f.counts["SUBMITTED_TO_WORKER"] += away
		}
		delete(f.counts, AwayState)
		if len(f.counts) == 0 {
			continue
		}
		counts := Row{}
		for s, n := range f.counts {
			counts[s] = n
			totals[f.kind] += n
		}
		summary[name] = Row{"func_or_class_name": name, "type": f.kind, "state_counts": counts}
	}
	return Row{
		"summary": summary, "total_tasks": totals["NORMAL_TASK"], "total_actor_tasks": totals["ACTOR_TASK"],
		"total_actor_scheduled": totals["ACTOR_CREATION_TASK"], "summary_by": "func_name",
	}
}

// SummarizeActors is Ray's summary of actors.
func SummarizeActors(rows []Row) Row {
	classes := Row{}
	for _, r := range rows {
		name := Str(r["class_name"])
		if classes[name] == nil {
			classes[name] = Row{"class_name": name, "state_counts": Row{}}
		}
		counts := classes[name].(Row)["state_counts"].(Row)
		counts[Str(r["state"])] = Int(counts[Str(r["state"])]) + 1
	}
	return Row{"summary": classes, "total_actors": int64(len(rows)), "summary_by": "class"}
}

// SitesOff is the call site of an object while sites are not recorded.
const SitesOff = "disabled"

// SummarizeObjects is Ray's summary of objects, from rows that stand for "count" references of together "object_size" bytes.
func SummarizeObjects(rows []Row) Row {
	type site struct {
		objects, size          int64
		workers, nodes         map[string]bool
		states, attempts, refs Row
	}
	sites := map[string]*site{}
	total, size, enabled := int64(0), int64(0), true
	for _, r := range rows {
		name := Str(r["call_site"])
		s := sites[name]
		if s == nil {
			s = &site{workers: map[string]bool{}, nodes: map[string]bool{}, states: Row{}, attempts: Row{}, refs: Row{}}
			sites[name] = s
		}
		n, bytes := Int(r["count"]), Int(r["object_size"])
		s.objects += n
		s.size += bytes
		total += n
		size += bytes
		s.workers[text(r["ip"])+" "+text(r["pid"])] = true
		s.nodes[text(r["ip"])] = true
		add := func(m Row, key string) { m[key] = Int(m[key]) + n }
		add(s.states, Str(r["task_status"]))
		add(s.attempts, text(r["attempt_number"]))
		add(s.refs, Str(r["reference_type"]))
		enabled = enabled && name != SitesOff
	}
	summary := Row{}
	for name, s := range sites {
		summary[name] = Row{
			"total_objects": s.objects, "total_size_mb": float64(s.size) / (1 << 20), "total_num_workers": int64(len(s.workers)),
			"total_num_nodes": int64(len(s.nodes)), "task_state_counts": s.states, "task_attempt_number_counts": s.attempts, "ref_type_counts": s.refs,
		}
	}
	return Row{
		"summary": summary, "total_objects": total, "total_size_mb": float64(size) / (1 << 20), "callsite_enabled": enabled, "summary_by": "callsite",
	}
}
