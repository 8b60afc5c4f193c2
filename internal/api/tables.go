package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"gray/internal/core/fault"
	"gray/internal/rpc"
	"gray/internal/state"
)

// maxStateTime bounds what a question may ask to be waited for.
const maxStateTime = time.Hour

// tableRoutes adds the routes of each table, and of the summaries.
func (s *server) tableRoutes(m *rpc.Mux) {
	for _, t := range state.Tables {
		m.HandleFunc("GET /api/v0/"+t.Kind, rpc.Token, func(w http.ResponseWriter, r *http.Request) { s.table(w, r, t) })
		if t.Title != "" {
			m.HandleFunc("GET /api/v0/"+t.Kind+"/summarize", rpc.Token, func(w http.ResponseWriter, r *http.Request) { s.summarize(w, r, t) })
		}
	}
	m.HandleFunc("GET /api/v0/objects/usage", rpc.Token, s.usage)
	m.HandleFunc("GET /api/v0/tasks/timeline", rpc.Token, s.timeline)
}

// table answers a question about rows.
func (s *server) table(w http.ResponseWriter, r *http.Request, t *state.Table) {
	values := r.URL.Query()
	q, err := questionOf(t, values)
	if err != nil {
		s.refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	a := s.ask(w, r, q)
	if a == nil {
		return
	}
	rows := a.Rows
	if rows == nil {
		rows = []state.Row{}
	}
	notes := append([]string{}, a.Notes...)
	if t == state.Tasks && a.Dropped > 0 {
		notes = append(notes, droppedText(a.Dropped))
	}
	s.envelope(w, "", object{"result": object{
		"total": a.Total, "num_after_truncation": a.Kept, "num_filtered": a.Filtered, "result": rows,
		"partial_failure_warning": a.Missing, "warnings": notes,
	}})
}

// droppedText tells that not all attempts are in the table any more.
func droppedText(n uint64) string {
	return fmt.Sprintf("%d task attempts that ended earlier are not listed any more: each node keeps the last 32768 that finished and the last 8192 that failed.", n)
}

func (s *server) summarize(w http.ResponseWriter, r *http.Request, t *state.Table) {
	values := r.URL.Query()
	q, err := questionOf(t, values)
	if err != nil {
		s.refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	by := values.Get("summary_by")
	if t == state.Tasks && by == "lineage" {
		s.refuse(w, http.StatusInternalServerError, "A summary by lineage is not in this version of Gray yet; ask for summary_by=func_name.")
		return
	}
	if t == state.Tasks && by != "" && by != "func_name" {
		s.refuse(w, http.StatusInternalServerError, `summary_by must be one of "func_name" or "lineage".`)
		return
	}
	q.Want = state.Summary
	a := s.ask(w, r, q)
	if a == nil {
		return
	}
	cluster := state.Row{}
	if len(a.Rows) > 0 {
		cluster = a.Rows[0]
	}
	s.envelope(w, "", object{"result": object{
		"total": a.Total, "num_after_truncation": a.Kept, "num_filtered": a.Filtered, "partial_failure_warning": a.Missing, "warnings": a.Notes,
		"result": object{"node_id_to_summary": object{"cluster": cluster}},
	}})
}

// usage tells how full the object stores are; a route of ours, for `ray memory`.
func (s *server) usage(w http.ResponseWriter, r *http.Request) {
	a := s.ask(w, r, &state.Question{Kind: state.Objects.Kind, Want: state.Usage})
	if a == nil {
		return
	}
	s.envelope(w, "", object{"result": object{"result": a.Rows, "partial_failure_warning": a.Missing, "warnings": a.Notes}})
}

// timeline is a trace for Chrome's viewer: a plain list, which it reads as it is.
func (s *server) timeline(w http.ResponseWriter, r *http.Request) {
	values := r.URL.Query()
	a := s.ask(w, r, &state.Question{Kind: state.Tasks.Kind, Want: state.Timeline, Job: values.Get("job_id"), Limit: state.MaxLimit})
	if a == nil {
		return
	}
	if a.Rows == nil {
		a.Rows = []state.Row{}
	}
	b, err := json.Marshal(a.Rows)
	if err != nil {
		s.refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	if isTrue(values.Get("download")) {
		name := "timeline-" + time.Now().Format("2006-01-02_15-04-05") + ".json"
		w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
	}
	s.write(w, http.StatusOK, "application/json; charset=utf-8", b)
}

// ask asks the head; if that fails, the caller has been told.
func (s *server) ask(w http.ResponseWriter, r *http.Request, q *state.Question) *state.Answer {
	a, err := s.Cluster.State(r.Context(), q)
	if err == nil {
		return a
	}
	status := http.StatusInternalServerError
	var f *fault.Error
	if errors.As(err, &f) && f.Kind == fault.Limit {
		status = http.StatusTooManyRequests
	}
	s.refuse(w, status, err.Error())
	return nil
}

// questionOf reads a question from a path's query.
func questionOf(t *state.Table, v url.Values) (*state.Question, error) {
	q := &state.Question{Kind: t.Kind, Limit: 100, Detail: isTrue(v.Get("detail"))}
	if x := v.Get("exclude_driver"); x != "" && !isTrue(x) {
		q.Drivers = true
	}
	if x := v.Get("limit"); x != "" {
		n, err := strconv.Atoi(x)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("the limit %q is not a number", x)
		}
		q.Limit = n
	}
	if x := v.Get("timeout"); x != "" {
		n, err := strconv.ParseFloat(x, 64)
		if err != nil || n <= 0 || n > maxStateTime.Seconds() {
			return nil, fmt.Errorf("the timeout %q is not a number of seconds between 0 and %.0f", x, maxStateTime.Seconds())
		}
		q.Seconds = n
	}
	keys, predicates, values := v["filter_keys"], v["filter_predicates"], v["filter_values"]
	if len(keys) != len(predicates) || len(keys) != len(values) {
		return nil, fmt.Errorf("there are %d filter_keys, %d filter_predicates and %d filter_values; want as many of each", len(keys), len(predicates), len(values))
	}
	for i := range keys {
		q.Filters = append(q.Filters, state.Filter{Key: keys[i], Predicate: predicates[i], Value: values[i]})
	}
	return q, nil
}

func isTrue(s string) bool { return s == "1" || strings.EqualFold(s, "true") }
