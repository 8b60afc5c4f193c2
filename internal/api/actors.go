package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"gray/internal/core/actor"
	"gray/internal/head"
)

// maxRows bounds the rows of one answer of the state API.
const maxRows = 10_000

// actorStates are what a filter may ask for.
var actorStates = map[string]bool{
	string(actor.Waiting): true, string(actor.Pending): true, string(actor.Alive): true, string(actor.Restarting): true, string(actor.Dead): true,
}

// actorFilters are the columns that filters may name, as in Ray.
var actorFilters = []string{
	"actor_id", "class_name", "state", "job_id", "name", "node_id", "pid", "ray_namespace", "placement_group_id", "repr_name",
}

func (s *server) actors(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit, err := limitOf(q)
	if err != nil {
		s.refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	keep, err := actorFilter(q)
	if err != nil {
		s.refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	rows, ok := s.actorRows(w, r)
	if !ok {
		return
	}
	columns := head.ActorColumns
	if !isTrue(q.Get("detail")) {
		columns = columns[:head.ActorBrief]
	}
	list, kept := []object{}, 0
	for i := range rows {
		row := head.ActorState(&rows[i])
		if !keep(row) {
			continue
		}
		kept++
		if len(list) == limit {
			continue
		}
		shown := make(object, len(columns))
		for _, c := range columns {
			shown[c] = row[c]
		}
		list = append(list, shown)
	}
	s.stateData(w, len(rows), kept, list)
}

func (s *server) actorSummary(w http.ResponseWriter, r *http.Request) {
	rows, ok := s.actorRows(w, r)
	if !ok {
		return
	}
	classes := map[string]object{}
	for i := range rows {
		name := rows[i].Class
		if classes[name] == nil {
			classes[name] = object{"class_name": name, "state_counts": map[string]int{}}
		}
		classes[name]["state_counts"].(map[string]int)[string(rows[i].State)]++
	}
	cluster := object{"summary": classes, "total_actors": len(rows), "summary_by": "class"}
	s.stateData(w, len(rows), len(rows), object{"node_id_to_summary": object{"cluster": cluster}})
}

// actorRows asks the head; if that fails, the caller has been told.
func (s *server) actorRows(w http.ResponseWriter, r *http.Request) ([]actor.Row, bool) {
	ctx, cancel := context.WithTimeout(r.Context(), askWithin)
	defer cancel()
	rows, err := s.Cluster.Actors(ctx)
	if err != nil {
		s.refuse(w, http.StatusInternalServerError, err.Error())
		return nil, false
	}
	return rows, true
}

// stateData is the envelope of the state API.
func (s *server) stateData(w http.ResponseWriter, total, filtered int, result any) {
	s.envelope(w, "", object{"result": object{
		"total": total, "num_after_truncation": total, "num_filtered": filtered, "result": result,
		"partial_failure_warning": "", "warnings": []string{},
	}})
}

func isTrue(s string) bool { return s == "1" || strings.EqualFold(s, "true") }

func limitOf(q url.Values) (int, error) {
	text := q.Get("limit")
	if text == "" {
		return 100, nil
	}
	n, err := strconv.Atoi(text)
	switch {
	case err != nil || n < 0:
		return 0, fmt.Errorf("the limit %q is not a number", text)
	case n > maxRows:
		return 0, fmt.Errorf("Given limit %d exceeds the supported limit %d. Use a lower limit.", n, maxRows) // Ray's words
	}
	return n, nil
}

// actorFilter is what the filters of a question ask for, all of them. Texts are compared without regard to case.
func actorFilter(q url.Values) (keep func(object) bool, err error) {
	keys, predicates, values := q["filter_keys"], q["filter_predicates"], q["filter_values"]
	if len(keys) != len(predicates) || len(keys) != len(values) {
		return nil, fmt.Errorf("there are %d filter_keys, %d filter_predicates and %d filter_values; want as many of each", len(keys), len(predicates), len(values))
	}
	for i, key := range keys {
		if !slices.Contains(actorFilters, key) {
			return nil, fmt.Errorf("The given filter column %s is not supported. Enter filters with --filter key=value or --filter key!=value Supported filter columns: %s", key, strings.Join(actorFilters, ", ")) // Ray's words
		}
		if predicates[i] != "=" && predicates[i] != "!=" {
			return nil, fmt.Errorf("Unsupported filter predicate %s is given. Available predicates: =, !=.", predicates[i]) // Ray's words
		}
		switch {
		case key == "pid":
			if _, err := strconv.Atoi(values[i]); err != nil {
				return nil, fmt.Errorf("Failed to convert a value %s of type <class 'str'> to <class 'int'>", values[i]) // Ray's words
			}
		case key == "state" && !actorStates[strings.ToUpper(values[i])]:
			return nil, fmt.Errorf("Invalid actor state for filtering: %s", strings.ToUpper(values[i])) // Ray's words
		}
	}
	return func(row object) bool {
		for i, key := range keys {
			value := ""
			if row[key] != nil {
				value = fmt.Sprint(row[key])
			}
			if strings.EqualFold(value, values[i]) != (predicates[i] == "=") {
				return false
			}
		}
		return true
	}, nil
}
