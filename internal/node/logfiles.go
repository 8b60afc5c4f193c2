package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"gray/internal/core/engine"
	"gray/internal/core/fault"
	"gray/internal/logfile"
	"gray/internal/state"
	"gray/internal/wire"
)

// Routes by which the daemon of the head asks others for their log files. Names are in the query: they may have slashes.
const (
	logsPath = "/logs"
	logPath  = "/logs/file"
)

// offsetHeader tells where to read on.
const offsetHeader = "Log-Offset"

// maxLogPart bounds what is read into memory at once.
const maxLogPart = 256 << 10

// maxLogsBody bounds an answer that is kept in memory: a list of the most files that are told, or a part of one.
const maxLogsBody = 4 << 20

// headsLog is the name that Ray gives the head's log. The head runs in a node's daemon here, which writes one.
const headsLog = "gcs_server"

// logName is the file that is meant by a name.
func (n *Node) logName(name string) string {
	if ext, ok := strings.CutPrefix(name, headsLog+"."); ok && n.head != nil {
		return "raylet." + ext
	}
	return name
}

// logsHere lists this session's log files on this machine.
func (n *Node) logsHere(w http.ResponseWriter, r *http.Request) {
	pattern := r.URL.Query().Get("glob")
	var names []string
	var err error
	if r.URL.Query().Get("newest") != "" {
		var name string
		if name, err = logfile.Newest(n.dir.LogDir(), pattern); name != "" {
			names = []string{name}
		}
	} else {
		names, err = logfile.List(n.dir.LogDir(), pattern)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(names); err != nil {
		n.log.Debug("a list of logs did not reach its caller", "err", err)
	}
}

// logHere sends a log file of this machine: its last lines, with follow what comes, too; or with max a part at an offset.
func (n *Node) logHere(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	number := func(key string, without int64) (int64, error) {
		if q.Get(key) == "" {
			return without, nil
		}
		x, err := strconv.ParseInt(q.Get(key), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s=%q is not a whole number", key, q.Get(key))
		}
		return x, nil
	}
	lines, err1 := number("lines", -1)
	off, err2 := number("offset", -1)
	most, err3 := number("max", 0)
	seconds, err4 := 0.0, error(nil)
	if x := q.Get("interval"); x != "" {
		if seconds, err4 = strconv.ParseFloat(x, 64); err4 != nil || seconds < 0 || seconds > 3600 {
			err4 = fmt.Errorf("the interval %q is not a number of seconds between 0 and 3600", x)
		}
	}
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	if q.Get("task") != "" {
		n.taskLogHere(w, r, lines, max(off, 0), most, time.Duration(seconds*float64(time.Second)))
		return
	}
	f, err := logfile.Open(n.dir.LogDir(), n.logName(q.Get("name")))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer f.Close()
	if off >= 0 {
		f.SeekTo(off)
	} else if err := f.Tail(int(lines)); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	if most > 0 {
		buf := make([]byte, min(most, maxLogPart))
		k, err := f.Read(buf)
		if err != nil && !errors.Is(err, io.EOF) {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set(offsetHeader, strconv.FormatInt(f.Offset(), 10))
		if _, err := w.Write(buf[:k]); err != nil {
			n.log.Debug("a part of a log did not reach its caller", "err", err)
		}
		return
	}
	flush := n.flusher(w)
	flush()
	if err := f.Stream(r.Context(), w, q.Get("follow") != "", time.Duration(seconds*float64(time.Second)), flush); err != nil {
		n.log.Debug("a log did not reach its caller to the end", "err", err)
	}
}

// maxTaskPart is maxLogPart for the log of a task: each part of it is looked for from the file's begin.
const maxTaskPart = 2 << 20

// taskLogHere sends what one attempt of a task printed into a worker's file. Of an actor's calls that is known only if the
// actor asked for it.
func (n *Node) taskLogHere(w http.ResponseWriter, r *http.Request, lines, off, most int64, every time.Duration) {
	q := r.URL.Query()
	fail := func(err error, status int) { http.Error(w, err.Error(), status) }
	no, err := strconv.ParseUint(q.Get("attempt"), 10, 32)
	if err != nil {
		fail(fmt.Errorf("attempt=%q is not a whole number", q.Get("attempt")), http.StatusInternalServerError)
		return
	}
	want, err := logfile.AttemptOf(q.Get("task"), uint32(no))
	if err != nil {
		fail(err, http.StatusInternalServerError)
		return
	}
	t, err := logfile.OpenTask(n.dir.LogDir(), q.Get("name"), want)
	if err != nil {
		fail(err, http.StatusInternalServerError)
		return
	}
	defer t.Close()
	if q.Get("offset") == "" {
		from, marked, err := t.Last(lines)
		if err == nil && q.Get("actor") != "" && !marked {
			http.Error(w, "the actor does not tell apart what its calls print", http.StatusNotFound)
			return
		}
		if err != nil {
			fail(err, http.StatusInternalServerError)
			return
		}
		off = from
	}
	w.Header().Set("Content-Type", "text/plain")
	if most > 0 {
		b, err := t.Part(off, int(min(most, maxTaskPart)))
		if err != nil {
			fail(err, http.StatusInternalServerError)
			return
		}
		w.Header().Set(offsetHeader, strconv.FormatInt(off+int64(len(b)), 10))
		if _, err := w.Write(b); err != nil {
			n.log.Debug("a part of a log did not reach its caller", "err", err)
		}
		return
	}
	flush := n.flusher(w)
	flush()
	if err := t.Stream(r.Context(), w, off, q.Get("follow") != "", every, flush); err != nil {
		n.log.Debug("a log did not reach its caller to the end", "err", err)
	}
}

// flusher sends what has been written so far, each time that it is called.
func (n *Node) flusher(w http.ResponseWriter) func() {
	return func() {
		if err := http.NewResponseController(w).Flush(); err != nil {
			n.log.Debug("a log is not sent at once", "err", err)
		}
	}
}

// askLogs asks another daemon of the cluster; path is one of the routes above, with its query.
func (n *Node) askLogs(ctx context.Context, address, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return nil, err
	}
	return n.asker.Do(req)
}

// logsCall is a client's question about log files: the head is asked over HTTP, and what it answers goes to the client. A
// file comes a part at a time, so neither this daemon nor the client keeps a whole one.
func (n *Node) logsCall(ch engine.Chan, req uint32, q *state.Question) {
	path := "/api/v0/logs?" + q.Query
	if q.Want == "file" {
		path = "/api/v0/logs/file?" + q.Query + "&max=" + strconv.Itoa(maxTaskPart) // of a file it is maxLogPart at most
	}
	within := headTimeout
	if q.Seconds > 0 && q.Seconds < 3600 {
		within = time.Duration(q.Seconds * float64(time.Second))
	}
	n.spawn(func() {
		ctx, stop := context.WithTimeout(context.Background(), within)
		defer stop()
		body, err := n.logsAnswer(ctx, path)
		n.locked(func(*engine.Engine) {
			if err != nil {
				(&sink{n}).Fail(ch, req, fault.System, "the head at "+n.file.GCSAddress+" did not answer a question about logs: "+err.Error())
				return
			}
			n.sendParts(ch, req, body)
			(&sink{n}).reply(ch, req, map[string]any{})
		})
	})
}

func (n *Node) logsAnswer(ctx context.Context, path string) ([]byte, error) {
	resp, err := n.askLogs(ctx, n.file.GCSAddress, path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxLogsBody))
	if err != nil {
		return nil, err
	}
	return wire.Marshal(map[string]any{
		"status": resp.StatusCode, "body": body, "offset": resp.Header.Get(offsetHeader), "node_id": resp.Header.Get("Log-Node"), "filename": resp.Header.Get("Log-Name"),
	})
}
