package head

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"gray/internal/core/headstate"
	"gray/internal/core/ids"
	"gray/internal/state"
	"gray/internal/wire"
)

// answering is a daemon that answers questions about tables with rows, or does not.
type answering struct {
	t    *testing.T
	head *Service
	id   ids.NodeID
	rows []state.Row // nil: it does not answer
	fail string
	got  chan *headstate.StateAnswer
	in   chan bool // it is a member
	said sync.WaitGroup
}

func (a *answering) Close() {}

func (a *answering) Send(msg []byte) {
	m, err := DecodeToNode(msg)
	if err != nil {
		a.t.Error(err)
		return
	}
	switch m := m.(type) {
	case *headstate.Registered:
		a.in <- true
	case *headstate.StateAsk:
		if a.rows == nil && a.fail == "" {
			return
		}
		b, err := wire.Marshal(&state.Answer{Total: len(a.rows), Kept: len(a.rows), Filtered: len(a.rows), Rows: a.rows})
		if err != nil {
			a.t.Error(err)
		}
		told := &headstate.StateTold{Seq: m.Seq, Answer: b, Error: a.fail}
		a.said.Go(func() { // Send must not wait for the head
			for range 2 { // a second answer counts for nothing
				if err := a.head.Receive(a.id, Encode(told)); err != nil {
					a.t.Error(err)
				}
			}
		})
	case *headstate.StateAnswer:
		a.got <- m
	}
}

// daemons starts a head with daemons that answer so.
func daemons(t *testing.T, list ...*answering) *Service {
	t.Helper()
	s, err := Start(Config{Store: Discard{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, a := range list {
			a.said.Wait()
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	for k, a := range list {
		a.t, a.head, a.id, a.got = t, s, ids.NodeID{byte(k + 1)}, make(chan *headstate.StateAnswer, 1)
		a.in = make(chan bool, 1)
		if err := s.Connect(a.id, a); err != nil {
			t.Fatal(err)
		}
		if err := s.Receive(a.id, Encode(&headstate.Register{Node: headstate.NodeInfo{ID: a.id, IP: fmt.Sprintf("10.0.0.%d", k+1), Head: k == 0}})); err != nil {
			t.Fatal(err)
		}
		<-a.in
	}
	return s
}

func row(id, task string) state.Row {
	return state.Row{"task_id": id, "attempt_number": int64(0), "state": "FINISHED", "name": task}
}

func TestRowsOfAllDaemons(t *testing.T) {
	s := daemons(t, &answering{rows: []state.Row{row("b", "f"), row("d", "g")}}, &answering{rows: []state.Row{row("a", "f"), row("c", "g")}})
	a, err := s.State(t.Context(), &state.Question{Kind: "tasks", Limit: 3})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range a.Rows {
		got = append(got, state.Str(r["task_id"]))
	}
	if strings.Join(got, "") != "abc" || a.Total != 4 || a.Filtered != 4 || a.Missing != "" {
		t.Errorf("%q, %+v", got, a)
	}
	if _, err := s.State(t.Context(), &state.Question{Kind: "tasks", Limit: 20_000}); err == nil {
		t.Error("a wrong question was answered")
	}
	nodes, err := s.State(t.Context(), &state.Question{Kind: "nodes", Limit: 10, Filters: []state.Filter{{Key: "is_head_node", Predicate: "=", Value: "true"}}})
	if err != nil || len(nodes.Rows) != 1 || nodes.Rows[0]["node_ip"] != "10.0.0.1" || nodes.Total != 2 {
		t.Errorf("nodes: %+v, %v", nodes, err)
	}
}

func TestADaemonThatDoesNotAnswer(t *testing.T) {
	s := daemons(t, &answering{rows: []state.Row{row("b", "f")}}, &answering{}, &answering{fail: "it is ending"})
	a, err := s.State(t.Context(), &state.Question{Kind: "tasks", Limit: 3, Seconds: 0.05})
	if err != nil || len(a.Rows) != 1 {
		t.Fatalf("%+v, %v", a, err)
	}
	for _, want := range []string{"2 of 3 nodes", ids.NodeID{2}.String() + ": it did not answer in time", ids.NodeID{3}.String() + ": it is ending"} {
		if !strings.Contains(a.Missing, want) {
			t.Errorf("%q lacks %q", a.Missing, want)
		}
	}
	if len(s.asked) != 0 {
		t.Errorf("%d questions are kept", len(s.asked))
	}
}

func TestADaemonAsks(t *testing.T) {
	d := &answering{rows: []state.Row{row("b", "f")}}
	s := daemons(t, d)
	ask := func(q *state.Question) *headstate.StateAnswer {
		b, err := wire.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Receive(d.id, Encode(&headstate.StateQuery{Req: 7, Question: b})); err != nil {
			t.Fatal(err)
		}
		select {
		case m := <-d.got:
			return m
		case <-t.Context().Done():
			t.Fatal(context.Cause(t.Context()))
			return nil
		}
	}
	m := ask(&state.Question{Kind: "tasks", Limit: 3})
	var a state.Answer
	if err := wire.Unmarshal(m.Answer, &a); err != nil || m.Req != 7 || m.Error != "" || len(a.Rows) != 1 || a.Rows[0]["name"] != "f" {
		t.Errorf("%+v %+v, %v", m, a, err)
	}
	if m := ask(&state.Question{Kind: "colours"}); !m.Bad || !strings.Contains(m.Error, "colours") {
		t.Errorf("a wrong question: %+v", m)
	}
}
