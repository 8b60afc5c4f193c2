package headstate

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"gray/internal/core/ids"
)

// world drives a State and plays its store.
type world struct {
	t      *testing.T
	s      *State
	now    time.Duration
	stored map[string]Record
	queue  []Persist // made, not committed
	got    []Effect  // of the last step, without Persist and Note
	notes  []string
}

func storeKey(r Record) string {
	switch r := r.(type) {
	case *Meta:
		return "m"
	case *NodeRow:
		return "n" + r.Info.ID.String()
	case *JobRow:
		return "j" + r.ID.String()
	case *KVRecord:
		return "k" + fmt.Sprintf("%q/%q", r.NS, r.Key)
	}
	switch r := r.(type) {
	case *ActorRecord:
		return "a" + r.Row.ID.String()
	case *ActorSpec:
		return "s" + r.ID.String()
	}
	panic("unknown record")
}

func newWorld(t *testing.T, cfg Config) *world {
	w := &world{t: t, stored: map[string]Record{}}
	cfg.Cluster, cfg.SessionName = ClusterID{1}, "session_x"
	w.boot(cfg)
	return w
}

func (w *world) boot(cfg Config) {
	var records []Record
	for _, r := range w.stored {
		records = append(records, r)
	}
	s, err := New(cfg, records)
	if err != nil {
		w.t.Fatal(err)
	}
	w.s, w.now, w.queue = s, 0, nil
	w.step(Tick{})
}

// restart crashes the head: what is not committed is lost.
func (w *world) restart() { w.boot(w.s.cfg) }

func (w *world) step(ev Event) {
	w.t.Helper()
	w.got = nil
	for _, e := range w.s.Step(w.now, ev) {
		switch e := e.(type) {
		case Persist:
			w.queue = append(w.queue, e)
		case Note:
			w.notes = append(w.notes, e.Text)
		default:
			w.got = append(w.got, e)
		}
	}
	w.s.check(w.t)
}

func (w *world) commit() {
	w.t.Helper()
	if len(w.queue) == 0 {
		w.got = nil
		return
	}
	for _, p := range w.queue {
		for _, op := range p.Ops {
			if op.Delete {
				delete(w.stored, storeKey(op.Rec))
			} else {
				w.stored[storeKey(op.Rec)] = op.Rec
			}
		}
	}
	last := w.queue[len(w.queue)-1].Seq
	w.queue = nil
	w.step(Persisted{last})
}

func (w *world) say(n byte, m Message) { w.t.Helper(); w.step(Received{nid(n), m}) }

// join registers a node and lets it in.
func (w *world) join(ns ...byte) {
	w.t.Helper()
	for _, n := range ns {
		w.say(n, &Register{Node: info(n)})
		w.commit()
	}
}

// pass lets time go by in steps that a head's ticks make, with leases from the nodes.
func (w *world) pass(d time.Duration, leases ...byte) {
	w.t.Helper()
	for end := w.now + d; w.now < end; {
		w.now += 500 * time.Millisecond
		for _, n := range leases {
			w.say(n, &Lease{})
		}
		w.step(Tick{})
	}
}

func nid(n byte) ids.NodeID { return ids.NodeID{n} }

func info(n byte) NodeInfo {
	return NodeInfo{
		ID: nid(n), Epoch: 1, IP: fmt.Sprintf("10.0.0.%d", n), Port: 1000 + int(n), ObjectPort: 2000 + int(n),
		Total: Resources{"CPU": 40000},
	}
}

// check holds every invariant that a State can tell of itself.
func (s *State) check(t *testing.T) {
	t.Helper()
	s.checkActors(t)
	live, listed := 0, 0
	for e := s.joined.Front(); e != nil; e = e.Next() {
		n := e.Value.(*node)
		listed++
		if n.state == Alive || n.state == Restored {
			live++
		}
		if n.row.Alive != (n.state != Dead) {
			t.Fatalf("node %s is %s but its row says alive %v", n.id(), n.state, n.row.Alive)
		}
		if s.nodes[n.id()] != n || s.owners[n.row.Owner] != n {
			t.Fatalf("node %s is not in every table", n.id())
		}
	}
	joining := 0
	for _, n := range s.nodes {
		if n.state == Joining {
			joining++
		}
		if n.row.Owner >= s.meta.NextOwner || n.row.Owner == 0 {
			t.Fatalf("owner number %d, next is %d", n.row.Owner, s.meta.NextOwner)
		}
	}
	if live != s.live || listed+joining != len(s.nodes) || len(s.nodes) != len(s.owners) {
		t.Fatalf("live %d, want %d; listed %d + joining %d of %d nodes, %d owners", s.live, live, listed, joining, len(s.nodes), len(s.owners))
	}
	if s.dead.Len() > s.cfg.MaxDead || s.ended.Len() > s.cfg.MaxEnded {
		t.Fatalf("%d dead nodes and %d ended jobs are kept", s.dead.Len(), s.ended.Len())
	}
	var bytes int64
	keys := 0
	for name, ns := range s.kv {
		if len(ns.keys) == 0 {
			t.Fatalf("namespace %q is empty", name)
		}
		for _, e := range ns.keys {
			bytes += e.size()
			keys++
		}
	}
	if bytes != s.kvBytes || keys != s.kvKeys {
		t.Fatalf("kv counts %d bytes, %d keys; want %d, %d", s.kvBytes, s.kvKeys, bytes, keys)
	}
	if len(s.held) > int(s.next-s.committed) || len(s.sizes) != int(s.next-1-s.committed) {
		t.Fatalf("%d held, %d sizes, next %d, committed %d", len(s.held), len(s.sizes), s.next, s.committed)
	}
}

func registered(owner ids.Owner) *Registered {
	return &Registered{Cluster: ClusterID{1}, SessionName: "session_x", Owner: owner, LeaseMs: 1000, DeadMs: 10000}
}

func TestTransitions(t *testing.T) {
	put := &KVPut{Req: 7, NS: "a", Key: "k", Value: []byte("v")}
	for _, tc := range []struct {
		name string
		do   func(w *world)
		want []Effect // of the last step
	}{
		{"a registration is answered only when it is safe", func(w *world) {
			w.say(1, &Register{Node: info(1)})
		}, nil},
		{"then it gets owner number 1", func(w *world) {
			w.join(1)
		}, []Effect{Send{nid(1), registered(1)}}},
		{"the next one gets 2", func(w *world) {
			w.join(1, 2)
		}, []Effect{Send{nid(2), registered(2)}}},
		{"a lease is acknowledged", func(w *world) {
			w.join(1)
			w.say(1, &Lease{Seq: 5})
		}, []Effect{Send{nid(1), &LeaseAck{Seq: 5}}}},
		{"a stranger is asked to register", func(w *world) {
			w.say(3, &Lease{Seq: 5})
		}, []Effect{Send{nid(3), &RegisterAgain{}}}},
		{"a node that registers again keeps its number", func(w *world) {
			w.join(1)
			w.say(1, &Register{Node: info(1), Inventory: Inventory{Cluster: ClusterID{1}, Owner: 1}})
		}, []Effect{Send{nid(1), registered(1)}}},
		{"a node that registers twice before the commit is answered once", func(w *world) {
			w.say(1, &Register{Node: info(1)})
			w.say(1, &Register{Node: info(1)})
			w.commit()
		}, []Effect{Send{nid(1), registered(1)}}},
		{"a certificate of another node", func(w *world) {
			w.say(2, &Register{Node: info(1)})
		}, []Effect{Send{nid(2), &Refused{Reason: RefusedInvalid, Error: "it registers as node " + nid(1).String() + ", but its certificate says " + nid(2).String()}}}},
		{"a daemon of another cluster", func(w *world) {
			w.say(1, &Register{Node: info(1), Inventory: Inventory{Cluster: ClusterID{9}, Owner: 1}})
		}, []Effect{Send{nid(1), &Refused{Reason: RefusedCluster, Error: "it belongs to another cluster; the head at this address was started anew, so the daemon must be, too"}}}},
		{"a daemon that the head has forgotten", func(w *world) {
			w.say(1, &Register{Node: info(1), Inventory: Inventory{Cluster: ClusterID{1}, Owner: 1}})
		}, []Effect{Send{nid(1), &Refused{Reason: RefusedFenced, Error: "the head no longer knows it, so it was declared dead long ago; start it anew"}}}},
		{"a second life under one id", func(w *world) {
			w.join(1)
			second := info(1)
			second.Epoch = 2
			w.say(1, &Register{Node: second})
		}, []Effect{Send{nid(1), &Refused{Reason: RefusedFenced, Error: "its node id is in use by another incarnation (1, now 2); start it with a new node id"}}}},
		{"9.5 s of silence are borne", func(w *world) {
			w.join(1, 2)
			w.pass(9500*time.Millisecond, 2)
		}, nil},
		{"10 s are not: all are told, when it is safe", func(w *world) {
			w.join(1, 2)
			w.pass(10*time.Second, 2)
			w.commit()
		}, []Effect{Send{nid(2), &NodeDead{Node: nid(1), Owners: []ids.Owner{1}, Reason: UnexpectedTermination, Message: "the head heard nothing from it for 10 s; " + silenceAdvice}}}},
		{"of a pod it is said how to find out", func(w *world) {
			w.s.cfg.Pods = true
			w.join(2)
			w.say(1, &Register{Node: NodeInfo{ID: nid(1), IP: "10.0.0.1", Hostname: "ray-worker-1"}})
			w.commit()
			w.pass(10*time.Second, 2)
			w.commit()
		}, []Effect{Send{nid(2), &NodeDead{Node: nid(1), Owners: []ids.Owner{2}, Reason: UnexpectedTermination, Message: "the head heard nothing from it for 10 s; whether its container ended, " +
			"and why (OOMKilled is want of memory), says: kubectl get pod ray-worker-1 -o jsonpath='{.status.containerStatuses[*].lastState}'; if that pod is gone: kubectl get events"}}}},
		{"a dead node that speaks is fenced", func(w *world) {
			w.join(1, 2)
			w.pass(10*time.Second, 2)
			w.commit()
			w.say(1, &Lease{Seq: 1})
		}, []Effect{Send{nid(1), &Refused{Reason: RefusedFenced, Error: "the head declared it dead (the head heard nothing from it for 10 s; " + silenceAdvice + "); what it owned is gone, so it must start afresh with a new node id"}}}},
		{"but not before its death is safe", func(w *world) {
			w.join(1, 2)
			w.pass(10*time.Second, 2)
			w.say(1, &Lease{Seq: 1})
		}, nil},
		{"a node leaves", func(w *world) {
			w.join(1, 2)
			w.say(1, &Leave{Message: "bye"})
			w.commit()
		}, []Effect{Send{nid(2), &NodeDead{Node: nid(1), Owners: []ids.Owner{1}, Reason: ExpectedTermination, Message: "bye"}}, Send{nid(1), &Left{}}}},
		{"the head's own pause is nobody's silence", func(w *world) {
			w.join(1)
			w.now += time.Minute
			w.step(Tick{})
		}, nil},
		{"after a restart the number goes on", func(w *world) {
			w.join(1)
			w.restart()
			w.join(2)
		}, []Effect{Send{nid(2), registered(2)}}},
		{"a number that nobody saw may be given again", func(w *world) {
			w.say(1, &Register{Node: info(1)})
			w.restart()
			w.join(2)
		}, []Effect{Send{nid(2), registered(1)}}},
		{"after a restart a node must register first", func(w *world) {
			w.join(1)
			w.restart()
			w.say(1, &Lease{Seq: 1})
		}, []Effect{Send{nid(1), &RegisterAgain{}}}},
		{"after a restart silence is counted from the start", func(w *world) {
			w.join(1)
			w.pass(9*time.Second, 1)
			w.restart()
			w.pass(9500 * time.Millisecond)
		}, nil},
		{"an inventory is checked", func(w *world) {
			w.join(1, 2, 3)
			w.say(2, &Leave{})
			w.commit()
			w.say(1, &Register{Node: info(1), Inventory: Inventory{
				Cluster: ClusterID{1}, Owner: 1, Jobs: []ids.Job{ids.JobFromInt(4)}, Peers: []ids.NodeID{nid(2), nid(3), nid(9)},
			}})
		}, []Effect{Send{nid(1), &Registered{
			Cluster: ClusterID{1}, SessionName: "session_x", Owner: 1, LeaseMs: 1000, DeadMs: 10000,
			EndedJobs: []ids.Job{ids.JobFromInt(4)}, DeadPeers: []ids.NodeID{nid(2), nid(9)},
		}}}},
		{"a put is answered when it is safe", func(w *world) {
			w.join(1)
			w.say(1, put)
		}, nil},
		{"added", func(w *world) {
			w.join(1)
			w.say(1, put)
			w.commit()
		}, []Effect{Send{nid(1), &KVAdded{Req: 7, Added: true}}}},
		{"a get waits for the put before it", func(w *world) {
			w.join(1, 2)
			w.say(1, put)
			w.say(2, &KVGet{Req: 1, NS: "a", Key: "k"})
			w.commit()
		}, []Effect{Send{nid(1), &KVAdded{Req: 7, Added: true}}, Send{nid(2), &KVValue{Req: 1, Found: true, Value: []byte("v")}}}},
		{"a get of another namespace does not", func(w *world) {
			w.join(1, 2)
			w.say(1, put)
			w.say(2, &KVGet{Req: 1, NS: "b", Key: "k"})
		}, []Effect{Send{nid(2), &KVValue{Req: 1}}}},
		{"the same put again is the same put", func(w *world) {
			w.join(1)
			w.say(1, put)
			w.commit()
			w.say(1, put)
		}, []Effect{Send{nid(1), &KVAdded{Req: 7, Added: true}}}},
		{"also after a restart", func(w *world) {
			w.join(1)
			w.say(1, put)
			w.commit()
			w.restart()
			w.say(1, &Register{Node: info(1), Inventory: Inventory{Cluster: ClusterID{1}, Owner: 1}})
			w.say(1, put)
		}, []Effect{Send{nid(1), &KVAdded{Req: 7, Added: true}}}},
		{"a key that is there stays", func(w *world) {
			w.join(1)
			w.say(1, put)
			w.commit()
			w.say(1, &KVPut{Req: 8, NS: "a", Key: "k", Value: []byte("w")})
		}, []Effect{Send{nid(1), &KVAdded{Req: 8, Added: false}}}},
		{"unless it is to be overwritten", func(w *world) {
			w.join(1)
			w.say(1, put)
			w.say(1, &KVPut{Req: 8, NS: "a", Key: "k", Value: []byte("w"), Overwrite: true})
			w.say(1, &KVGet{Req: 9, NS: "a", Key: "k"})
			w.commit()
		}, []Effect{Send{nid(1), &KVAdded{Req: 7, Added: true}}, Send{nid(1), &KVAdded{Req: 8, Added: false}}, Send{nid(1), &KVValue{Req: 9, Found: true, Value: []byte("w")}}}},
		{"keys are listed and deleted by prefix", func(w *world) {
			w.join(1)
			for i, k := range []string{"ab", "aa", "b"} {
				w.say(1, &KVPut{Req: uint64(i), NS: "a", Key: k})
			}
			w.commit()
			w.say(1, &KVList{Req: 4, NS: "a", Prefix: "a"})
			if want := []Effect{Send{nid(1), &KVKeys{Req: 4, Keys: []string{"aa", "ab"}}}}; !reflect.DeepEqual(w.got, want) {
				w.t.Errorf("list = %s", show(w.got))
			}
			w.say(1, &KVDel{Req: 5, NS: "a", Key: "a", Prefix: true})
			w.say(1, &KVExists{Req: 6, NS: "a", Key: "aa"})
			w.commit()
		}, []Effect{Send{nid(1), &KVDeleted{Req: 5, Deleted: 2}}, Send{nid(1), &KVFound{Req: 6, Exists: false}}}},
		{"an emptied namespace is not believed before it is safe", func(w *world) {
			w.join(1)
			w.say(1, put)
			w.commit()
			w.say(1, &KVDel{Req: 8, NS: "a", Key: "k"})
			w.say(1, &KVExists{Req: 9, NS: "a", Key: "k"})
		}, nil},
		{"a job gets an id", func(w *world) {
			w.join(1)
			w.say(1, &JobStart{Req: 1, Key: [16]byte{1}})
			w.commit()
		}, []Effect{Send{nid(1), &JobStarted{Req: 1, Job: ids.JobFromInt(1)}}}},
		{"the same key gets the same id", func(w *world) {
			w.join(1)
			w.say(1, &JobStart{Req: 1, Key: [16]byte{1}})
			w.commit()
			w.say(1, &JobStart{Req: 1, Key: [16]byte{1}})
		}, []Effect{Send{nid(1), &JobStarted{Req: 1, Job: ids.JobFromInt(1)}}}},
		{"ids go on after a restart", func(w *world) {
			w.join(1)
			w.say(1, &JobStart{Req: 1, Key: [16]byte{1}})
			w.commit()
			w.restart()
			w.join(2)
			w.say(2, &JobStart{Req: 1, Key: [16]byte{2}})
			w.commit()
		}, []Effect{Send{nid(2), &JobStarted{Req: 1, Job: ids.JobFromInt(2)}}}},
		{"the end of a job is told to all", func(w *world) {
			w.join(1, 2)
			w.say(1, &JobStart{Req: 1, Key: [16]byte{1}})
			w.commit()
			w.say(1, &JobEnd{Req: 2, Job: ids.JobFromInt(1), Message: "done"})
			w.commit()
		}, []Effect{
			Send{nid(1), &JobEnded{Job: ids.JobFromInt(1), Message: "done"}},
			Send{nid(2), &JobEnded{Job: ids.JobFromInt(1), Message: "done"}},
			Send{nid(1), &Done{Req: 2}},
		}},
		{"ended twice is told once", func(w *world) {
			w.join(1)
			w.say(1, &JobStart{Req: 1, Key: [16]byte{1}})
			w.commit()
			w.say(1, &JobEnd{Req: 2, Job: ids.JobFromInt(1)})
			w.commit()
			w.say(1, &JobEnd{Req: 3, Job: ids.JobFromInt(1)})
		}, []Effect{Send{nid(1), &Done{Req: 3}}}},
		{"an unknown job", func(w *world) {
			w.join(1)
			w.say(1, &JobEnd{Req: 2, Job: ids.JobFromInt(8)})
		}, []Effect{Send{nid(1), &Failed{Req: 2, Fault: faultSystem, Error: "head.JobEnd: job 08000000 is not known to this cluster"}}}},
		{"jobs end with their driver's node", func(w *world) {
			w.join(1, 2)
			w.say(1, &JobStart{Req: 1, Key: [16]byte{1}})
			w.commit()
			w.say(1, &Leave{Message: "bye"})
			w.commit()
		}, []Effect{
			Send{nid(2), &JobEnded{Job: ids.JobFromInt(1), Message: "the driver's node is dead: bye"}},
			Send{nid(2), &NodeDead{Node: nid(1), Owners: []ids.Owner{1}, Reason: ExpectedTermination, Message: "bye"}},
			Send{nid(1), &Left{}},
		}},
		{"jobs end whose driver ended while the head was away", func(w *world) {
			w.join(1)
			w.say(1, &JobStart{Req: 1, Key: [16]byte{1}})
			w.commit()
			w.restart()
			w.say(1, &Register{Node: info(1), Inventory: Inventory{Cluster: ClusterID{1}, Owner: 1, Jobs: []ids.Job{ids.JobFromInt(1)}}})
			w.commit()
		}, []Effect{
			Send{nid(1), &JobEnded{Job: ids.JobFromInt(1), Message: "the driver ended while the head was away"}}, Send{nid(1), registered(1)},
		}},
		{"a driver that was not told of its job before the link broke gets another", func(w *world) {
			w.join(1)
			w.say(1, &JobStart{Req: 1, Key: [16]byte{1}})
			w.commit()
			w.say(1, &Register{Node: info(1), Inventory: Inventory{Cluster: ClusterID{1}, Owner: 1}})
			w.commit()
			w.say(1, &JobStart{Req: 1, Key: [16]byte{1}})
			w.commit()
			w.restart()
			one := []ids.Job{ids.JobFromInt(2)}
			w.say(1, &Register{Node: info(1), Inventory: Inventory{Cluster: ClusterID{1}, Owner: 1, Jobs: one, Drivers: one}})
			w.say(1, &JobStart{Req: 1, Key: [16]byte{1}})
		}, []Effect{Send{nid(1), &JobStarted{Req: 1, Job: ids.JobFromInt(2)}}}},
		{"jobs go on whose driver is still there", func(w *world) {
			w.join(1)
			w.say(1, &JobStart{Req: 1, Key: [16]byte{1}})
			w.commit()
			w.restart()
			one := []ids.Job{ids.JobFromInt(1)}
			w.say(1, &Register{Node: info(1), Inventory: Inventory{Cluster: ClusterID{1}, Owner: 1, Jobs: one, Drivers: one}})
		}, []Effect{Send{nid(1), registered(1)}}},
		{"an owner is found", func(w *world) {
			w.join(1, 2)
			w.say(1, &Lookup{Req: 1, Owner: 2})
		}, []Effect{Send{nid(1), &Owned{Req: 1, Owner: 2, Alive: true, Node: nid(2), IP: "10.0.0.2", Port: 1002, ObjectPort: 2002, Version: 2}}}},
		{"a dead owner", func(w *world) {
			w.join(1, 2)
			w.say(2, &Leave{Message: "bye"})
			w.commit()
			w.say(1, &Lookup{Req: 1, Owner: 2})
		}, []Effect{Send{nid(1), &Owned{Req: 1, Owner: 2, Node: nid(2), IP: "10.0.0.2", Message: "bye", Version: 3}}}},
		{"a node is found", func(w *world) {
			w.join(1, 2)
			w.say(1, &Lookup{Req: 1, Node: nid(2)})
		}, []Effect{Send{nid(1), &Owned{Req: 1, Owner: 2, Alive: true, Node: nid(2), IP: "10.0.0.2", Port: 1002, ObjectPort: 2002, Version: 2}}}},
		{"a node that is not in yet", func(w *world) {
			w.join(1)
			w.say(2, &Register{Node: info(2)})
			w.say(1, &Lookup{Req: 1, Node: nid(2)})
		}, []Effect{Send{nid(1), &Owned{Req: 1, Node: nid(2), Message: "no such node is known to the head, or it died long ago", Version: 2}}}},
		{"a dead owner whose death is not safe yet", func(w *world) {
			w.join(1, 2)
			w.say(2, &Leave{Message: "bye"})
			w.say(1, &Lookup{Req: 1, Owner: 2})
		}, nil},
		{"neither owner nor node", func(w *world) {
			w.join(1)
			w.say(1, &Lookup{Req: 1})
		}, []Effect{Send{nid(1), &Failed{Req: 1, Fault: faultSystem, Error: "head.Lookup: owner number 0 was never given out by this cluster (the last one is 1); the reference comes from another cluster"}}}},
		{"an owner number of nobody", func(w *world) {
			w.join(1)
			w.say(1, &Lookup{Req: 1, Owner: 2})
		}, []Effect{Send{nid(1), &Failed{Req: 1, Fault: faultSystem, Error: "head.Lookup: owner number 2 was never given out by this cluster (the last one is 1); the reference comes from another cluster"}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, Config{})
			tc.do(w)
			if len(w.got) != len(tc.want) || len(tc.want) > 0 && !reflect.DeepEqual(w.got, tc.want) {
				t.Errorf("effects:\n%swant:\n%s", show(w.got), show(tc.want))
			}
		})
	}
}

func show(es []Effect) string {
	var b strings.Builder
	for _, e := range es {
		if s, ok := e.(Send); ok {
			fmt.Fprintf(&b, "  to %d: %T%+v\n", s.To[0], s.Msg, reflect.ValueOf(s.Msg).Elem().Interface())
		} else {
			fmt.Fprintf(&b, "  %T%+v\n", e, e)
		}
	}
	return b.String()
}
