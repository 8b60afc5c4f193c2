package head

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/core/ids"
	"gray/internal/state"
	"gray/internal/wire"
)

// asking is a question that was sent to daemons.
type asking struct {
	left    map[ids.NodeID]bool
	answers []*headstate.StateTold
	done    chan struct{} // closed when left is empty
}

const (
	// maxAsks is how many questions about tables may be under way.
	maxAsks = 100
	// stateTimeout is how long a question may take that names no time.
	stateTimeout = 30 * time.Second
)

// takeState takes a message about tables; false if m is none.
func (s *Service) takeState(from ids.NodeID, m headstate.Message) bool {
	switch m := m.(type) {
	case *headstate.StateQuery:
		go s.answerQuery(from, m)
	case *headstate.StateTold:
		if a := s.asked[m.Seq]; a != nil && a.left[from] {
			m.Node = from
			a.answers = append(a.answers, m)
			delete(a.left, from)
			if len(a.left) == 0 {
				close(a.done)
			}
		}
	default:
		return false
	}
	return true
}

// answerQuery answers a daemon's question.
func (s *Service) answerQuery(from ids.NodeID, m *headstate.StateQuery) {
	out := &headstate.StateAnswer{Req: m.Req}
	var q state.Question
	err := wire.Unmarshal(m.Question, &q)
	if err == nil {
		var a *state.Answer
		if a, err = s.State(context.Background(), &q); err == nil {
			out.Answer, err = wire.Marshal(a)
		}
	}
	if err != nil {
		_, out.Bad = err.(*state.BadQuestion) //nolint:errorlint // it is never wrapped
		out.Error = err.Error()
	}
	// A head that has ended answers nobody.
	_ = s.enter(input{query: func(time.Duration) {
		if c := s.conns[from]; c != nil {
			c.Send(Encode(out))
		}
	}})
}

// State answers a question about the cluster's tables. What daemons know they are asked for; those that do not answer in
// time are named in the answer.
func (s *Service) State(ctx context.Context, q *state.Question) (*state.Answer, error) {
	if _, err := q.Match(); err != nil {
		return nil, err
	}
	if s.asks.Add(1) > maxAsks {
		s.asks.Add(-1)
		return nil, &fault.Error{Op: "head.State", Kind: fault.Limit, Detail: fmt.Sprintf("%d questions about the state of the cluster are under way, which is the most at a time; ask again later", maxAsks)}
	}
	defer s.asks.Add(-1)
	limit := stateTimeout
	if q.Seconds > 0 {
		limit = time.Duration(q.Seconds * float64(time.Second))
	}
	ctx, stop := context.WithTimeout(ctx, limit)
	defer stop()
	switch q.Kind {
	case state.Tasks.Kind, state.Objects.Kind, state.Workers.Kind:
		return s.gather(ctx, q)
	case state.Actors.Kind:
		return s.ownRows(ctx, q, func() (rows []state.Row) {
			list := s.state.ActorRows()
			for i := range list {
				rows = append(rows, ActorState(&list[i]))
			}
			return rows
		})
	case state.Nodes.Kind:
		return s.ownRows(ctx, q, func() (rows []state.Row) {
			list := s.state.NodeRows()
			for i := range list {
				rows = append(rows, NodeState(&list[i]))
			}
			return rows
		})
	case state.Jobs.Kind:
		return s.ownRows(ctx, q, func() (rows []state.Row) {
			list := s.state.JobRows()
			for i := range list {
				rows = append(rows, JobState(&list[i]))
			}
			return rows
		})
	}
	if q.Kind == state.ClusterEvents.Kind {
		now := s.cfg.Clock.Now()
		return s.ownRows(ctx, q, func() (rows []state.Row) {
			for _, d := range s.state.Demands() {
				if d.Infeasible {
					rows = append(rows, infeasible(d.Shape, now))
				}
			}
			return rows
		})
	}
	return &state.Answer{}, nil // there are none in this version
}

// ownRows answers from the head's own tables.
func (s *Service) ownRows(ctx context.Context, q *state.Question, list func() []state.Row) (*state.Answer, error) {
	rows := make(chan []state.Row, 1)
	if err := s.query(ctx, func(time.Duration) { rows <- list() }); err != nil {
		return nil, err
	}
	if q.Want == state.Summary {
		all := <-rows
		return &state.Answer{Total: len(all), Kept: len(all), Filtered: len(all), Rows: []state.Row{state.SummarizeActors(all)}}, nil
	}
	a, err := q.Select(<-rows)
	if err == nil {
		a.Sort(state.Find(q.Kind), q.Limit)
	}
	return a, err
}

// gather asks all daemons and puts their answers together.
func (s *Service) gather(ctx context.Context, q *state.Question) (*state.Answer, error) {
	question, err := wire.Marshal(q)
	if err != nil {
		return nil, err
	}
	ask := &asking{left: map[ids.NodeID]bool{}, done: make(chan struct{})}
	var seq uint64
	missing := map[string]string{}
	err = s.query(ctx, func(time.Duration) {
		s.askSeq++
		seq = s.askSeq
		msg := Encode(&headstate.StateAsk{Seq: seq, Question: question})
		for _, n := range s.state.NodeRows() {
			if !n.Alive {
				continue
			}
			if c := s.conns[n.Info.ID]; c == nil {
				missing[n.Info.ID.String()] = "it has no link to the head"
			} else {
				ask.left[n.Info.ID] = true
				c.Send(msg)
			}
		}
		if len(ask.left) == 0 {
			close(ask.done)
			return
		}
		s.asked[seq] = ask
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-ask.done:
	case <-s.done:
	case <-ctx.Done():
	}
	var answers []*headstate.StateTold
	err = s.query(context.WithoutCancel(ctx), func(time.Duration) {
		delete(s.asked, seq)
		answers = ask.answers
		for id := range ask.left {
			missing[id.String()] = "it did not answer in time"
		}
	})
	if err != nil {
		return nil, err
	}
	return join(q, answers, missing)
}

// join makes one answer of those of daemons.
func join(q *state.Question, told []*headstate.StateTold, missing map[string]string) (*state.Answer, error) {
	all := &state.Answer{}
	nodes := len(missing) + len(told)
	for _, m := range told {
		var a state.Answer
		if m.Error != "" {
			missing[m.Node.String()] = m.Error
			continue
		}
		if err := wire.Unmarshal(m.Answer, &a); err != nil {
			return nil, &fault.Error{Op: "head.State", Kind: fault.Protocol, Ref: m.Node.String(), Detail: "a node's rows cannot be read", Err: err}
		}
		all.Join(&a)
	}
	if len(missing) > 0 {
		texts := make([]string, 0, len(missing))
		for id, why := range missing {
			texts = append(texts, id+": "+why)
		}
		slices.Sort(texts)
		all.Missing = fmt.Sprintf("The returned data may contain incomplete result: %d of %d nodes could not be asked (%s).", len(missing), nodes, strings.Join(texts, "; "))
	}
	t := state.Find(q.Kind)
	switch {
	case q.Want == state.Timeline || q.Want == state.Usage:
		return all, nil
	case q.Want == state.Summary && t == state.Tasks:
		all.Rows = []state.Row{state.SummarizeTasks(all.Rows)}
		return all, nil
	case q.Want == state.Summary:
		all.Rows = []state.Row{state.SummarizeObjects(all.Rows)}
		return all, nil
	case t == state.Tasks:
		if err := all.Merge(q); err != nil {
			return nil, err
		}
	}
	all.Sort(t, q.Limit)
	return all, nil
}

// infeasible is the event that work waits for what no node has.
func infeasible(shape headstate.Resources, now time.Time) state.Row {
	text := ShapeText(shape)
	id := sha256.Sum256([]byte(text))
	return state.Row{
		"severity": "ERROR", "time": now.Format("2006-01-02 15:04:05"), "source_type": "AUTOSCALER", "event_id": hex.EncodeToString(id[:18]),
		"message":       "Error: No available node types can fulfill resource request " + text + ". Add suitable node types to this cluster to resolve this issue.",
		"custom_fields": state.Row{},
	}
}

// NodeState is a node as the table of nodes has it.
func NodeState(n *headstate.NodeRow) state.Row {
	row := state.Row{
		"node_id": n.Info.ID.String(), "node_ip": n.Info.IP, "is_head_node": n.Info.Head, "state": "ALIVE", "state_message": nil,
		"node_name": n.Info.Name, "resources_total": units(n.Info.Total), "labels": texts(n.Info.Labels),
		"start_time_ms": n.StartMs, "end_time_ms": n.EndMs,
	}
	if !n.Alive {
		row["state"], row["resources_total"] = "DEAD", state.Row{}
	}
	if n.DeathMessage != "" {
		row["state_message"] = n.DeathMessage
	}
	return row
}

// JobState is a job as the table of jobs has it.
func JobState(j *headstate.JobRow) state.Row {
	row := state.Row{
		"job_id": j.ID.String(), "submission_id": nil, "entrypoint": j.Driver.Entrypoint, "type": "DRIVER", "status": string(j.State), "message": nil,
		"error_type": nil, "driver_info": state.Row{"id": j.ID.String(), "node_ip_address": j.Driver.IP, "pid": fmt.Sprint(j.Driver.PID)},
		"start_time": j.StartMs, "end_time": j.EndMs, "metadata": texts(j.Driver.Metadata), "runtime_env": state.Row{},
		"driver_agent_http_address": nil, "driver_node_id": j.Node.String(), "driver_exit_code": nil,
	}
	if j.Message != "" {
		row["message"] = j.Message
	}
	return row
}

func texts(m map[string]string) state.Row {
	row := make(state.Row, len(m))
	for k, v := range m {
		row[k] = v
	}
	return row
}

func units(r headstate.Resources) state.Row {
	row := make(state.Row, len(r))
	for k, v := range r {
		row[k] = float64(v) / 10000
	}
	return row
}
