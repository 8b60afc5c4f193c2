package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"gray/internal/core/actor"
	"gray/internal/core/engine"
	"gray/internal/core/explain"
	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/core/ids"
)

// Who is asked why something is where it is asks the daemons that know: the owner, which the id names, then those that
// the owner names, and for an actor those that the head names. What a daemon says comes from its own tables.

const (
	explainPath    = "/gray/explain"
	explainTimeout = 3 * time.Second        // for one daemon's report
	whyTimeout     = 500 * time.Millisecond // for one daemon's reasons, for a client whose time is over
	maxExplainBody = 8 << 20
	maxWhy         = 1000 // ids of one question
)

// explainAsk is what one daemon asks another: for a report of one subject, or why objects are not ready.
type explainAsk struct {
	ID  string   `json:"id,omitempty"`
	Why []string `json:"why,omitempty"`
}

// explainTold is the answer. Report is nil if that daemon's tables say nothing.
type explainTold struct {
	Report *explain.Report `json:"report,omitempty"`
	Why    []whyTold       `json:"why,omitempty"`
}

type whyTold struct {
	ID     string `json:"id"`
	State  string `json:"state"`
	Reason string `json:"reason"`
	Ask    string `json:"ask,omitempty"` // a node that may know more, about the object On
	On     string `json:"on,omitempty"`
}

// explainHere answers another daemon from this one's tables.
func (n *Node) explainHere(w http.ResponseWriter, r *http.Request) {
	var ask explainAsk
	if err := json.NewDecoder(io.LimitReader(r.Body, maxExplainBody)).Decode(&ask); err != nil || len(ask.Why) > maxWhy {
		http.Error(w, "this is no question that a daemon asks", http.StatusBadRequest)
		return
	}
	var told explainTold
	if ask.ID != "" {
		s, err := explain.Parse(ask.ID)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if told.Report = n.explainLocal(s); told.Report != nil {
			told.Report.PrepareToSend()
		}
	}
	list := make([]ids.ObjectID, 0, len(ask.Why))
	for _, text := range ask.Why {
		id, err := ids.ParseObject(text)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		list = append(list, id)
	}
	if len(list) > 0 {
		n.locked(func(e *engine.Engine) {
			for _, y := range e.Why(list) {
				told.Why = append(told.Why, whyTold{y.ID.String(), y.State, y.Reason, explain.Hex(y.Ask), y.On.String()})
			}
		})
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(&told); err != nil {
		n.log.Debug("an answer did not reach its caller", "err", err)
	}
}

func (n *Node) explainLocal(s explain.Subject) (r *explain.Report) {
	n.locked(func(e *engine.Engine) { r = e.Explain(s) })
	return r
}

// askDaemon puts a question to another daemon.
func (n *Node) askDaemon(ctx context.Context, id ids.NodeID, ask *explainAsk) (*explainTold, error) {
	addr, err := n.addressOfNode(ctx, id)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(ask)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+explainPath, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := n.asker.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers with HTTP status %d", resp.StatusCode)
	}
	told := &explainTold{}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxExplainBody)).Decode(told); err != nil {
		return nil, err
	}
	if told.Report != nil {
		return told, told.Report.Received()
	}
	return told, nil
}

// addressOfNode is where a daemon answers; the head is asked for one that is new here.
func (n *Node) addressOfNode(ctx context.Context, id ids.NodeID) (string, error) {
	n.mu.Lock()
	p := n.peers.byID[id]
	n.mu.Unlock()
	if p != nil {
		return p.addr, nil
	}
	r, err := askHead[*headstate.Owned](ctx, n, &headstate.Lookup{Node: id})
	switch {
	case err != nil:
		return "", err
	case !r.Alive:
		return "", errors.New("it is dead: " + r.Message)
	}
	return addressOf(r.IP, r.Port), nil
}

// askHead waits for the head's answer.
func askHead[T headstate.Answer](ctx context.Context, n *Node, c headstate.Call) (T, error) {
	type result struct {
		answer headstate.Answer
		err    error
	}
	done := make(chan result, 1)
	n.link.Go(c, headTimeout, func(x headstate.Answer, err error) { done <- result{x, err} })
	var none T
	select {
	case r := <-done:
		if r.err != nil {
			return none, r.err
		}
		return r.answer.(T), nil
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}

// Explain says why a task, an object or an actor is where it is, by what all daemons say that know of it.
func (n *Node) Explain(ctx context.Context, id string) (*explain.Report, error) {
	s, err := explain.Parse(id)
	if err != nil {
		return nil, &fault.Error{Op: "explain", Kind: fault.NotFound, Detail: err.Error()}
	}
	var first *explain.Report
	var nodes []ids.NodeID
	note := ""
	if s.Kind == explain.Actor {
		got, err := askHead[*headstate.ActorGot](ctx, n, &headstate.ActorGet{ID: s.Actor})
		switch {
		case err != nil:
			note = "the head did not say what it knows of the actor: " + err.Error()
		case got.Found:
			first = explain.OfRow(&got.Row)
			nodes = append(append(nodes, got.Row.Manager), got.Watchers...)
			if got.Row.State == actor.Alive {
				nodes = append(nodes, got.Row.Node)
			}
		}
	}
	owner := s.Unique().Owner()
	o, err := askHead[*headstate.Owned](ctx, n, &headstate.Lookup{Owner: owner})
	switch {
	case err != nil:
		note = fmt.Sprintf("the head did not say who has owner number %d of the id: %v", owner, err)
	case o.Alive:
		nodes = append([]ids.NodeID{o.Node}, nodes...)
	case first == nil:
		note = fmt.Sprintf("its owner, node %s, is dead: %s", o.Node, o.Message)
	}
	nodes = append(nodes, n.id)
	r := n.gather(ctx, s, first, nodes)
	if r == nil {
		r = &explain.Report{Kind: s.Kind, ID: s.String(), Job: jobOf(s).String(), State: "UNKNOWN", Why: "no daemon knows of it: it ended and nothing references it any more, or it never was in this cluster"}
	}
	if note != "" {
		r.Notes = append(r.Notes, note)
	}
	n.complete(ctx, r)
	return r, nil
}

// complete adds to a report's reasons what the nodes say to which they lead.
func (n *Node) complete(ctx context.Context, r *explain.Report) {
	ctx, stop := context.WithTimeout(ctx, explainTimeout)
	defer stop()
	for _, m := range r.Open() {
		m.Why += n.further(ctx, &whyTold{Ask: m.Ask, On: m.On})
		m.Ask, m.On = "", ""
	}
}

func jobOf(s explain.Subject) ids.Job {
	switch s.Kind {
	case explain.Task:
		return s.Task.Job()
	case explain.Object:
		return s.Object.Job()
	}
	return s.Actor.Job()
}

// gather joins what daemons say, the first one's report before the others'. Who they name is asked, too, once.
func (n *Node) gather(ctx context.Context, s explain.Subject, first *explain.Report, nodes []ids.NodeID) *explain.Report {
	ctx, stop := context.WithTimeout(ctx, explainTimeout)
	defer stop()
	asked := map[ids.NodeID]bool{}
	var notes []string
	for range 3 {
		var now []ids.NodeID
		for _, id := range nodes {
			if !asked[id] && id != (ids.NodeID{}) {
				asked[id] = true
				now = append(now, id)
			}
		}
		nodes = nil
		for k, o := range n.reports(ctx, s, now) {
			switch {
			case o.err != nil:
				notes = append(notes, fmt.Sprintf("node %s did not say what it knows: %v", now[k], o.err))
				continue
			case o.report == nil:
				continue
			}
			nodes = append(nodes, o.report.Ask...)
			switch {
			case first == nil:
				first = o.report
			case first.Node == "" && o.report.Life.Manager == o.report.Node: // better than the head's row
				o.report.Life.Death = first.Life.Death
				first = o.report
			default:
				first.Join(o.report)
			}
		}
	}
	if first != nil {
		first.Notes = append(first.Notes, notes...)
	}
	return first
}

type reported struct {
	report *explain.Report
	err    error
}

// reports asks daemons at once and returns their answers in the order of nodes.
func (n *Node) reports(ctx context.Context, s explain.Subject, nodes []ids.NodeID) []reported {
	out := make([]reported, len(nodes))
	var all sync.WaitGroup
	for k, id := range nodes {
		if id == n.id {
			out[k].report = n.explainLocal(s)
			continue
		}
		all.Go(func() {
			told, err := n.askDaemon(ctx, id, &explainAsk{ID: s.String()})
			if err != nil {
				out[k].err = err
				return
			}
			out[k].report = told.Report
		})
	}
	all.Wait()
	return out
}

// explainCall answers a client's CALL; the caller holds the lock.
func (n *Node) explainCall(ch engine.Chan, req uint32, id string) {
	n.after = append(n.after, func() {
		n.spawn(func() {
			ctx, stop := context.WithTimeout(context.Background(), 2*headTimeout)
			defer stop()
			r, err := n.Explain(ctx, id)
			var raw []byte
			if err == nil {
				raw, err = json.Marshal(r)
			}
			n.locked(func(*engine.Engine) {
				if err != nil {
					(&sink{n}).Fail(ch, req, fault.KindOf(err), detail(err))
					return
				}
				(&sink{n}).reply(ch, req, map[string]any{"report": string(raw), "text": r.Text()})
			})
		})
	})
}

// why answers a client that wants to know why objects are not ready; the caller holds the lock. Other daemons that may know
// more are asked, for a moment.
func (n *Node) why(ch engine.Chan, req uint32, list []ids.ObjectID) {
	why := n.eng.Why(list)
	byNode := map[ids.NodeID][]int{}
	for k := range why {
		if why[k].Ask != (ids.NodeID{}) {
			byNode[why[k].Ask] = append(byNode[why[k].Ask], k)
		}
	}
	if len(byNode) == 0 {
		n.tellWhy(ch, req, why)
		return
	}
	n.after = append(n.after, func() {
		n.spawn(func() {
			ctx, stop := context.WithTimeout(context.Background(), whyTimeout)
			defer stop()
			var all sync.WaitGroup
			for id, which := range byNode { // each has reasons of its own
				all.Go(func() { n.askWhy(ctx, id, why, which) })
			}
			all.Wait()
			n.locked(func(*engine.Engine) { n.tellWhy(ch, req, why) })
		})
	})
}

// askWhy adds to some of the reasons what another daemon says.
func (n *Node) askWhy(ctx context.Context, id ids.NodeID, why []engine.Reason, which []int) {
	which = which[:min(len(which), maxWhy)]
	ask := &explainAsk{}
	for _, k := range which {
		ask.Why = append(ask.Why, why[k].On.String())
	}
	told, err := n.askDaemon(ctx, id, ask)
	if err != nil || len(told.Why) != len(which) {
		for _, k := range which {
			why[k].Reason += fmt.Sprintf("; that node did not say more: %v", err)
		}
		return
	}
	for j, k := range which {
		if t := &told.Why[j]; t.State != "UNKNOWN" {
			why[k].Reason += "; there, " + t.Reason + n.further(ctx, t)
		}
	}
}

// further is what the daemon says to which another one's reason leads: not more than one step, for nodes may wait for each
// other.
func (n *Node) further(ctx context.Context, t *whyTold) string {
	id, err := ids.ParseNode(t.Ask)
	on, err2 := ids.ParseObject(t.On)
	if err != nil || err2 != nil {
		return ""
	}
	if id == n.id {
		text := ""
		n.locked(func(e *engine.Engine) { text = e.Why([]ids.ObjectID{on})[0].Reason })
		return "; here, " + text
	}
	told, err := n.askDaemon(ctx, id, &explainAsk{Why: []string{t.On}})
	if err != nil || len(told.Why) != 1 {
		return ""
	}
	return "; there, " + told.Why[0].Reason
}

func (n *Node) tellWhy(ch engine.Chan, req uint32, why []engine.Reason) {
	out := make([]map[string]any, 0, len(why))
	for k := range why {
		out = append(out, map[string]any{"id": why[k].ID[:], "state": why[k].State, "reason": why[k].Reason})
	}
	(&sink{n}).reply(ch, req, map[string]any{"why": out})
}
