package node

import (
	"runtime"

	"gray/internal/core/engine"
	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/core/ids"
	"gray/internal/wire"
)

// callArgs are the arguments of all CALL methods.
type callArgs struct {
	IDs       []wire.Raw `msgpack:"ids"`
	NS        string     `msgpack:"ns"`
	Key       string     `msgpack:"key"`
	Value     []byte     `msgpack:"value"`
	Overwrite bool       `msgpack:"overwrite"`
	Prefix    string     `msgpack:"prefix"`
	ByPrefix  bool       `msgpack:"by_prefix"`
	Name      string     `msgpack:"name"`
	Actor     []byte     `msgpack:"actor"`
	NoRestart bool       `msgpack:"no_restart"`
	ID        []byte     `msgpack:"id"`
	Attempt   uint32     `msgpack:"attempt"`
	Index     uint32     `msgpack:"index"`
	Question  wire.Raw   `msgpack:"q"`
	Path      string     `msgpack:"path"`
	Text      string     `msgpack:"text"`
}

// call carries out a CALL; the caller holds the lock. Answers that need the head come later.
func (n *Node) call(cl *client, m wire.Call) error {
	method, err := m.Method()
	if err != nil {
		return err
	}
	var a callArgs
	if err := wire.Unmarshal(m.Map, &a); err != nil {
		return err
	}
	ch := engine.Chan{Session: cl.id, Chan: m.Chan}
	s := &sink{n}
	switch method {
	case "ids":
		s.reply(ch, m.Req, map[string]any{"ids": []uint64{uint64(n.eng.GiveIDs(cl.id, moreIDs)), moreIDs}})
	case "why":
		list, err := objectIDs(a.IDs)
		if err != nil {
			return err
		}
		n.why(ch, m.Req, list)
	case "explain":
		n.explainCall(ch, m.Req, a.Text)
	case "store":
		st := n.eng.Store()
		holders := make([]map[string]any, 0, len(st.Holders))
		for _, h := range st.Holders {
			holders = append(holders, map[string]any{"id": h.ID[:], "size": h.Size, "by": h.By})
		}
		s.reply(ch, m.Req, map[string]any{"capacity": st.Capacity, "used": st.Used, "objects": st.Objects, "holders": holders})
	case "tables":
		s.reply(ch, m.Req, n.tables())
	case "locations":
		list, err := objectIDs(a.IDs)
		if err != nil {
			return err
		}
		objs := make([]map[string]any, 0, len(list))
		for _, l := range n.eng.Locations(list) {
			nodes := make([][]byte, 0, len(l.Nodes))
			for _, id := range l.Nodes {
				nodes = append(nodes, append([]byte(nil), id[:]...))
			}
			objs = append(objs, map[string]any{"id": l.ID[:], "nodes": nodes, "size": l.Size})
		}
		s.reply(ch, m.Req, map[string]any{"objects": objs})
	case "actor_kill":
		return n.killActor(ch, m.Req, &a)
	case "actor_get":
		n.getActor(ch, m.Req, &a)
	case "actor_pending":
		if len(a.Actor) != ids.ActorSize {
			return protocolError("actor_pending", "an actor id has 16 bytes")
		}
		s.reply(ch, m.Req, map[string]any{"n": n.eng.PendingCalls(cl.id, ids.ActorID(a.Actor))})
	case "stream_credit":
		if len(a.ID) != ids.ObjectSize {
			return protocolError("stream_credit", "an object id has 28 bytes")
		}
		n.eng.StreamCredit(ch, m.Req, ids.ObjectID(a.ID), a.Attempt, a.Index)
	case "state":
		n.stateCall(ch, m.Req, a.Question)
	case "package_has", "package_part", "package_put":
		return n.packageCall(cl, ch, m.Req, method, &a)
	default:
		n.headCall(ch, m.Req, method, &a)
	}
	return nil
}

// tables says what the engine holds, the asker's own job and functions aside, and what the daemon does besides.
func (n *Node) tables() map[string]any {
	sizes := n.eng.Tables()
	sizes["clients"], sizes["goroutines"] = len(n.clients), runtime.NumGoroutine()
	left := ""
	if err := n.eng.Empty(true); err != nil {
		left = err.Error()
	}
	return map[string]any{"left": left, "sizes": sizes}
}

func objectIDs(raw []wire.Raw) ([]ids.ObjectID, error) {
	list := make([]ids.ObjectID, 0, len(raw))
	for _, r := range raw {
		var b []byte
		if err := wire.Unmarshal(r, &b); err != nil {
			return nil, err
		}
		if len(b) != ids.ObjectSize {
			return nil, protocolError("call", "an object id has 28 bytes")
		}
		list = append(list, ids.ObjectID(b))
	}
	return list, nil
}

// headCall asks the head and answers when it does.
func (n *Node) headCall(ch engine.Chan, req uint32, method string, a *callArgs) {
	var c headstate.Call
	var answer func(headstate.Answer) any
	switch method {
	case "nodes":
		c, answer = &headstate.Nodes{}, func(x headstate.Answer) any { return map[string]any{"nodes": nodeRows(x.(*headstate.NodeList).Nodes)} }
	case "resources":
		c, answer = &headstate.Totals{}, func(x headstate.Answer) any {
			t := x.(*headstate.Total)
			return map[string]any{"total": floats(t.Total), "available": floats(t.Available)}
		}
	case "actors":
		c, answer = &headstate.ActorList{}, func(x headstate.Answer) any {
			return map[string]any{"actors": actorRows(x.(*headstate.ActorRows).Rows)}
		}
	case "actor_names":
		c, answer = &headstate.ActorNames{Namespace: a.NS}, func(x headstate.Answer) any {
			return map[string]any{"names": x.(*headstate.ActorNameList).Names}
		}
	case "kv_get":
		c, answer = &headstate.KVGet{NS: a.NS, Key: a.Key}, func(x headstate.Answer) any {
			v := x.(*headstate.KVValue)
			if !v.Found {
				return map[string]any{"value": nil}
			}
			return map[string]any{"value": v.Value}
		}
	case "kv_put":
		c, answer = &headstate.KVPut{NS: a.NS, Key: a.Key, Value: a.Value, Overwrite: a.Overwrite}, func(x headstate.Answer) any {
			return map[string]any{"added": x.(*headstate.KVAdded).Added}
		}
	case "kv_del":
		c, answer = &headstate.KVDel{NS: a.NS, Key: a.Key, Prefix: a.ByPrefix}, func(x headstate.Answer) any {
			return map[string]any{"deleted": x.(*headstate.KVDeleted).Deleted}
		}
	case "kv_exists":
		c, answer = &headstate.KVExists{NS: a.NS, Key: a.Key}, func(x headstate.Answer) any {
			return map[string]any{"exists": x.(*headstate.KVFound).Exists}
		}
	case "kv_list":
		c, answer = &headstate.KVList{NS: a.NS, Prefix: a.Prefix}, func(x headstate.Answer) any {
			found := x.(*headstate.KVKeys).Keys
			keys := make([][]byte, len(found)) // any bytes, which texts of msgpack may not be
			for i, k := range found {
				keys[i] = []byte(k)
			}
			return map[string]any{"keys": keys}
		}
	default:
		(&sink{n}).Fail(ch, req, fault.NotImplemented, "call "+method+": this daemon has no such method; the client may be newer than the daemon")
		return
	}
	n.ask(ch, req, method, c, answer)
}

// ask asks the head and answers a client with what answer makes of it: a map, or an error.
func (n *Node) ask(ch engine.Chan, req uint32, method string, c headstate.Call, answer func(headstate.Answer) any) {
	n.after = append(n.after, func() {
		n.link.Go(c, headTimeout, func(x headstate.Answer, err error) {
			n.locked(func(*engine.Engine) {
				if err != nil {
					(&sink{n}).Fail(ch, req, fault.KindOf(err), "the head at "+n.file.GCSAddress+" did not answer "+method+": "+err.Error())
					return
				}
				v := answer(x)
				if f, ok := v.(*fault.Error); ok {
					(&sink{n}).Fail(ch, req, f.Kind, f.Error())
					return
				}
				(&sink{n}).reply(ch, req, v)
			})
		})
	})
}

func floats(r headstate.Resources) map[string]float64 {
	m := make(map[string]float64, len(r))
	for k, v := range r {
		m[k] = float64(v) / 10000
	}
	return m
}

func nodeRows(rows []headstate.NodeRow) []map[string]any {
	out := make([]map[string]any, 0, len(rows))
	for i := range rows {
		r := &rows[i]
		res := map[string]float64{}
		if r.Alive {
			res = floats(r.Info.Total)
		}
		out = append(out, map[string]any{
			"node_id": r.Info.ID[:], "alive": r.Alive, "ip": r.Info.IP, "hostname": r.Info.Hostname, "port": r.Info.Port,
			"object_port": r.Info.ObjectPort, "resources": res, "labels": r.Info.Labels, "name": r.Info.Name, "head": r.Info.Head,
			"death_reason": r.DeathReason, "death_message": r.DeathMessage, "socket": r.Info.Socket, "metrics_port": r.Info.MetricsPort, "agent_port": r.Info.AgentPort,
			"available": floats(r.Available),
		})
	}
	return out
}
