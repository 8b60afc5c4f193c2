package engine

import (
	"fmt"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
)

// Reason tells why an object is not ready.
type Reason struct {
	ID            ids.ObjectID
	State, Reason string
}

// Why tells for each id what it waits for.
func (e *Engine) Why(list []ids.ObjectID) []Reason {
	out := make([]Reason, 0, len(list))
	for _, id := range list {
		r := Reason{ID: id, State: "UNKNOWN", Reason: "this node does not know the object"}
		if i := e.find(id); i != 0 {
			r.State, r.Reason = e.why(i, 0)
		}
		out = append(out, r)
	}
	return out
}

func (e *Engine) why(i uint32, deep int) (state, reason string) {
	o := e.objs.at(i)
	switch {
	case o.local():
		return "READY", "it is ready on this node"
	case o.state == objElsewhere:
		return "READY", "its bytes are on other nodes"
	case o.state == objFetching:
		return "FETCHING", "its bytes are being copied here"
	case o.state == objUnknown:
		return "PENDING", fmt.Sprintf("owner %d, on another node, has not said that it is ready", o.id.Owner())
	case o.task == 0:
		return "CREATING", "its client is still writing it"
	}
	t := e.tasks.at(o.task)
	name := e.taskName(t)
	switch t.state {
	case taskWaiting:
		for _, d := range t.refs[:t.nDeps] {
			if !e.objs.at(d).ready() && deep < 3 {
				_, inner := e.why(d, deep+1)
				return t.state.String(), name + " waits for its argument " + e.objs.at(d).id.String() + ": " + inner
			}
		}
		return t.state.String(), name + " waits for its arguments"
	case taskQueued:
		sh := e.shapes[t.shape]
		return t.state.String(), fmt.Sprintf("%s waits with %d others for %s: %s", name, sh.backlog-1, e.cfg.Names.Format(sh.rs.Need), e.stuckText(sh))
	case taskAway:
		node := "another node"
		if p := e.peers[t.at]; p != nil {
			node = p.String()
		}
		return "RUNNING", name + " was sent to " + node
	case taskFetching:
		return t.state.String(), name + " waits for its arguments to be copied to this node"
	case taskAssigned:
		return t.state.String(), name + " waits for a worker process to start"
	case taskOrdered:
		return t.state.String(), name + " " + e.whyCall(o.task, t)
	}
	return "RUNNING", name + " is running on this node"
}

// whyCall tells why an actor's call was not sent yet.
func (e *Engine) whyCall(i uint32, t *task) string {
	a := t.call.a
	what := "actor " + a.id.String()
	if a.row.Class != "" {
		what += " (" + a.row.Class + ")"
	}
	switch {
	case t.lost:
		return "waits to hear whether " + what + " comes back: its process died while it had the call"
	case a.state == "":
		return "waits to hear where " + what + " is"
	case a.state != actor.Alive:
		return "waits until " + what + " lives: it is " + string(a.state)
	case t.call.next != i:
		return "waits for the calls before it to " + what
	}
	return fmt.Sprintf("waits until %s, which has %d calls of this caller, takes more", what, t.call.sent)
}

// stuckText tells why a shape's tasks wait.
func (e *Engine) stuckText(sh *shape) string {
	if sh.stuck != "" {
		return sh.stuck
	}
	if len(e.peers) == 0 && !e.res.Feasible(sh.rs.Need) {
		return "no node of the cluster has that much (this one has " + e.cfg.Names.Format(e.res.Total()) + "); add a node or ask for less"
	}
	return "all that the nodes have is in use"
}

// StoreInfo is what the object store of this node holds.
type StoreInfo struct {
	Capacity, Used int64
	Objects        int
	Holders        []Holder // the largest that cannot go
}

// Store tells how full the store is.
func (e *Engine) Store() StoreInfo {
	return StoreInfo{e.mem.Capacity(), e.mem.Used(), len(e.memObjs), e.holders(e.mem.Holders(maxHolders))}
}

// Location is where an object's bytes are.
type Location struct {
	ID    ids.ObjectID
	Nodes []ids.NodeID
	Size  uint64
}

// Locations tells where objects are, as far as this node knows.
func (e *Engine) Locations(list []ids.ObjectID) []Location {
	out := make([]Location, 0, len(list))
	for _, id := range list {
		l := Location{ID: id}
		if i := e.find(id); i != 0 {
			o := e.objs.at(i)
			l.Size = o.size
			if o.local() {
				l.Nodes = append(l.Nodes, e.cfg.Node)
			}
			if s := e.spread[i]; s != nil {
				for _, c := range s.sources {
					if p := e.peers[c.node]; p != nil && c.complete {
						l.Nodes = append(l.Nodes, p.id)
					}
				}
			}
		}
		out = append(out, l)
	}
	return out
}

// Demand is how many tasks of a shape wait here, and why.
type Demand struct {
	Resources  map[string]int64
	Count      int
	Infeasible bool
	Reason     string
}

// Load is what this node has free and what waits at it.
func (e *Engine) Load() (avail map[string]int64, queued int, demands []Demand) {
	avail = e.cfg.Names.Map(e.res.Avail())
	for _, sh := range e.active {
		queued += sh.backlog
		if len(demands) < maxDemands {
			d := Demand{Resources: e.cfg.Names.Map(sh.rs.Need), Count: sh.backlog, Reason: sh.stuck}
			d.Infeasible = sh.stuck != "" || (len(e.peers) == 0 && !e.res.Feasible(sh.rs.Need))
			if d.Infeasible && d.Reason == "" {
				d.Reason = e.stuckText(sh)
			}
			demands = append(demands, d)
		}
	}
	return avail, queued, demands
}

const maxDemands = 64
