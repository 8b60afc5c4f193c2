package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"gray/internal/core/headstate"
	"gray/internal/logfile"
	"gray/internal/state"
)

// LogAsker asks the daemon at an address for a path of its log routes.
type LogAsker func(ctx context.Context, address, path string) (*http.Response, error)

// maxLogList bounds a daemon's list of files.
const maxLogList = 4 << 20

// components are Ray's categories of log files; a list that was not narrowed names them all, so that programs which look
// one up find it, be it empty: here one daemon is what is several processes in Ray.
var components = []string{"worker_out", "worker_err", "core_worker", "driver", "raylet", "gcs_server", "internal", "autoscaler", "agent", "dashboard"}

// logError is a request that can't be answered.
type logError struct {
	status int
	text   string
}

func (e *logError) Error() string { return e.text }

func logFail(format string, a ...any) error {
	return &logError{http.StatusInternalServerError, fmt.Sprintf(format, a...)}
}

// listLogs lists a node's log files.
func (s *server) listLogs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	status := func(err error) int {
		var e *logError
		if errors.As(err, &e) {
			return e.status
		}
		return http.StatusInternalServerError
	}
	if q.Get("node_id") == "" && q.Get("node_ip") == "" {
		s.refuse(w, http.StatusBadRequest, "Both node id and node ip are not provided. Please provide at least one of them.")
		return
	}
	node, err := s.logNode(r.Context(), q.Get("node_id"), q.Get("node_ip"))
	if err != nil {
		s.refuse(w, status(err), err.Error())
		return
	}
	pattern := q.Get("glob")
	names, err := s.logNames(r.Context(), node, url.Values{"glob": {pattern}})
	if err != nil {
		s.refuse(w, status(err), err.Error())
		return
	}
	result := map[string][]string{}
	if pattern == "" || pattern == "*" {
		for _, c := range components {
			result[c] = []string{}
		}
	}
	for _, name := range names {
		c := logfile.Component(name)
		result[c] = append(result[c], name)
	}
	s.envelope(w, "", object{"result": result})
}

// logNode finds a living node by its id or address.
func (s *server) logNode(ctx context.Context, id, ip string) (*headstate.NodeInfo, error) {
	if s.Logs == nil || s.Cluster == nil {
		return nil, logFail("this daemon shows no logs; ask the head")
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	sum, err := s.Cluster.Summary(ctx)
	if err != nil {
		return nil, err
	}
	for i := range sum.Nodes {
		n := &sum.Nodes[i]
		if id != "" && n.Info.ID.String() != strings.ToLower(id) || id == "" && n.Info.IP != ip {
			continue
		}
		if n.Alive {
			return &n.Info, nil
		}
		if id != "" {
			return nil, logFail("The node %s is dead, so its logs cannot be read from here; they are in the session's folder on its machine.", id)
		}
	}
	if id != "" {
		return nil, logFail("Given node id %s is not available. It's either the node is dead, or it is not registered. Use `ray list nodes` to see the node status.", id)
	}
	return nil, &logError{http.StatusNotFound, fmt.Sprintf("Cannot find matching node_id for a given node ip %s: no living node has it. Use `ray list nodes` to see them.", ip)}
}

func address(n *headstate.NodeInfo) string { return net.JoinHostPort(n.IP, strconv.Itoa(n.Port)) }

func (s *server) logNames(ctx context.Context, n *headstate.NodeInfo, q url.Values) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	resp, err := s.Logs(ctx, address(n), "/logs?"+q.Encode())
	if err != nil {
		return nil, logFail("the node %s does not list its logs: %v", n.ID, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxLogList))
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, logFail("the node %s does not list its logs: %s", n.ID, strings.TrimSpace(fmt.Sprint(string(body), " ", errText(err))))
	}
	var names []string
	if err := json.Unmarshal(body, &names); err != nil {
		return nil, logFail("the node %s answers with something else than a list of its logs: %v", n.ID, err)
	}
	return names, nil
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// findLog says which file of which node is meant, and which part of it: what one attempt of a task printed, or all.
func (s *server) findLog(ctx context.Context, q url.Values) (n *headstate.NodeInfo, name string, part url.Values, err error) {
	suffix := q.Get("suffix")
	if suffix == "" {
		suffix = "out"
	}
	if suffix != "out" && suffix != "err" {
		return nil, "", nil, logFail("Invalid suffix: %s. Must be one of out or err.", suffix)
	}
	ext := "." + suffix
	switch {
	case q.Get("submission_id") != "":
		return nil, "", nil, logFail("Logs of submitted jobs are not in this version of Gray yet: jobs are not; ask for a file, an actor, a task or a pid.")
	case q.Get("actor_id") != "":
		row, err := s.logRow(ctx, state.Actors, "actor_id", q.Get("actor_id"), "")
		if err != nil {
			return nil, "", nil, err
		}
		if row == nil {
			return nil, "", nil, logFail("Actor ID %s not found. Use `ray list actors` to see the actors.", q.Get("actor_id"))
		}
		pid := fmt.Sprint(row["pid"])
		node, _ := row["node_id"].(string)
		if node == "" || pid == "0" || row["pid"] == nil {
			return nil, "", nil, logFail("Worker of actor %s not found: the actor is %v, and has no process. Use `ray get actors %s`.", q.Get("actor_id"), row["state"], q.Get("actor_id"))
		}
		n, name, err = s.workerLog(ctx, node, "", "*-"+pid+ext, "of the actor "+q.Get("actor_id"))
		return n, name, nil, err
	case q.Get("task_id") != "":
		attempt := q.Get("attempt_number")
		if attempt == "" {
			attempt = "0"
		}
		row, err := s.logRow(ctx, state.Tasks, "task_id", q.Get("task_id"), attempt)
		if err != nil {
			return nil, "", nil, err
		}
		if row == nil {
			return nil, "", nil, logFail("Could not find log file for task: %s (attempt %s): there is no such attempt. Use `ray list tasks` to see them.", q.Get("task_id"), attempt)
		}
		node, _ := row["node_id"].(string)
		worker, _ := row["worker_id"].(string)
		if actor := row["actor_id"]; (node == "" || worker == "") && actor != nil {
			return nil, "", nil, askActor(actor)
		}
		if node == "" || worker == "" {
			return nil, "", nil, logFail("Could not find log file for task: %s (attempt %s): it is %v, and no worker has it yet.", q.Get("task_id"), attempt, row["state"])
		}
		n, name, err = s.workerLog(ctx, node, "", worker+"-*-"+fmt.Sprint(row["worker_pid"])+ext, "of the task "+q.Get("task_id"))
		part = url.Values{"task": {q.Get("task_id")}, "attempt": {attempt}}
		if row["type"] == "ACTOR_TASK" || row["type"] == "ACTOR_CREATION_TASK" {
			part.Set("actor", fmt.Sprint(row["actor_id"]))
		}
		return n, name, part, err
	}
	if q.Get("node_id") == "" && q.Get("node_ip") == "" {
		return nil, "", nil, logFail("node_id or node_ip must be provided with filename or pid.")
	}
	if pid := q.Get("pid"); pid != "" {
		if _, err := strconv.ParseUint(pid, 10, 31); err != nil {
			return nil, "", nil, logFail("the pid %q is not a number", pid)
		}
		n, name, err = s.workerLog(ctx, q.Get("node_id"), q.Get("node_ip"), "*-"+pid+ext, "of the worker with pid "+pid)
		return n, name, nil, err
	}
	if q.Get("filename") == "" {
		return nil, "", nil, logFail("None of filename, actor_id, task_id, pid or submission_id is given: say which log is wanted.")
	}
	n, err = s.logNode(ctx, q.Get("node_id"), q.Get("node_ip"))
	if q.Get("task") != "" { // who read the log of a task reads on
		part = url.Values{"task": {q.Get("task")}, "attempt": {q.Get("attempt")}}
	}
	return n, q.Get("filename"), part, err
}

// askActor says that a call has no log of its own, and where its output is.
func askActor(id any) error {
	return logFail("For actor task, please query actor log for actor(%v): e.g. ray logs actor --id %v . An actor's tasks share its file; they are told apart if it has RAY_ENABLE_RECORD_ACTOR_TASK_LOGGING=1 in the env_vars of its runtime_env.", id, id)
}

// workerLog finds a worker's file by the rest of its name.
func (s *server) workerLog(ctx context.Context, id, ip, rest, what string) (*headstate.NodeInfo, string, error) {
	n, err := s.logNode(ctx, id, ip)
	if err != nil {
		return nil, "", err
	}
	names, err := s.logNames(ctx, n, url.Values{"glob": {"worker-" + rest}, "newest": {"1"}})
	if err != nil {
		return nil, "", err
	}
	if len(names) == 0 {
		return nil, "", logFail("Could not find log file %s on node %s: no file matches worker-%s.", what, n.ID, rest)
	}
	return n, names[0], nil
}

// logRow asks for the row of an actor or of an attempt of a task; nil if there is none.
func (s *server) logRow(ctx context.Context, t *state.Table, column, id, attempt string) (state.Row, error) {
	q := &state.Question{Kind: t.Kind, Limit: 2, Detail: true, Drivers: true, Filters: []state.Filter{{Key: column, Predicate: "=", Value: id}}}
	if attempt != "" {
		q.Filters = append(q.Filters, state.Filter{Key: "attempt_number", Predicate: "=", Value: attempt})
	}
	a, err := s.Cluster.State(ctx, q)
	if err != nil || len(a.Rows) == 0 {
		return nil, err
	}
	return a.Rows[0], nil
}

// log sends a log file as it is read: all, its last lines, or (media "stream") also what comes.
func (s *server) log(w http.ResponseWriter, r *http.Request) {
	media := r.PathValue("media")
	if media != "file" && media != "stream" {
		http.Error(w, "Invalid media type: "+media+"; want file or stream.", http.StatusNotFound)
		return
	}
	q := r.URL.Query()
	n, name, part, err := s.findLog(r.Context(), q)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	ask := url.Values{"name": {name}, "lines": {"1000"}}
	for key := range part {
		ask.Set(key, part.Get(key))
	}
	for _, key := range []string{"lines", "interval", "offset", "max"} {
		if x := q.Get(key); x != "" && x != "None" {
			ask.Set(key, x)
		}
	}
	if media == "stream" {
		ask.Set("follow", "1")
	}
	resp, err := s.Logs(r.Context(), address(n), "/logs/file?"+ask.Encode())
	if err != nil {
		http.Error(w, fmt.Sprintf("the node %s does not send its log %s: %v", n.ID, name, err), http.StatusInternalServerError)
		return
	}
	defer resp.Body.Close()
	if actor := part.Get("actor"); actor != "" && resp.StatusCode == http.StatusNotFound {
		http.Error(w, askActor(actor).Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	if resp.StatusCode == http.StatusOK {
		h.Set("Content-Disposition", "attachment; filename="+strconv.Quote(download(q.Get("download_filename"), name)))
		h.Set("Log-Node", n.ID.String())
		h.Set("Log-Name", name)
		if off := resp.Header.Get("Log-Offset"); off != "" {
			h.Set("Log-Offset", off)
		}
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(resp.StatusCode)
	s.copyLog(w, resp.Body, isTrue(q.Get("filter_ansi_code")))
}

// download is the name under which a browser keeps a file.
func download(asked, name string) string {
	if asked == "" {
		asked = name
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == '/' || c == '"' || c == '\\' || c == 0x7f {
			return '_'
		}
		return c
	}, asked)
}

// copyLog hands on what comes as soon as it comes.
func (s *server) copyLog(w http.ResponseWriter, from io.Reader, plain bool) {
	var to io.Writer = w
	if plain {
		to = &logfile.PlainText{W: w}
	}
	control := http.NewResponseController(w)
	buf := make([]byte, 64<<10)
	for {
		k, err := from.Read(buf)
		if k > 0 {
			_, werr := to.Write(buf[:k])
			if werr == nil {
				werr = control.Flush()
			}
			if werr != nil {
				s.Log.Debug("a reader of a log left before its end", "err", werr)
				return
			}
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			// The answer has begun, so its status can't tell; cutting it short does.
			s.Log.Warn("a log could not be read to its end", "err", err)
			panic(http.ErrAbortHandler)
		}
	}
}
