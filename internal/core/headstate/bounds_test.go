package headstate

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"gray/internal/core/ids"
)

func failure(t *testing.T, w *world) string {
	t.Helper()
	if len(w.got) != 1 {
		t.Fatalf("effects:\n%s", show(w.got))
	}
	f, ok := w.got[0].(Send).Msg.(*Failed)
	if !ok || f.Fault != faultLimit {
		t.Fatalf("effects:\n%s", show(w.got))
	}
	return f.Error
}

func TestKVLimits(t *testing.T) {
	w := newWorld(t, Config{MaxValue: 10, MaxKV: 25, MaxKeys: 4})
	w.join(1)
	req := uint64(0)
	put := func(key, value string) {
		req++
		w.say(1, &KVPut{Req: req, NS: "n", Key: key, Value: []byte(value), Overwrite: true})
	}
	put("k", "0123456789")
	if got := failure(t, w); !strings.Contains(got, "have 11 bytes, the limit is 10") {
		t.Error(got)
	}
	put(strings.Repeat("k", MaxKey), "")
	if got := failure(t, w); !strings.Contains(got, "use a shorter key") {
		t.Error(got)
	}
	put("a", "123456789")
	put("b", "123456789")
	put("c", "123456789")
	if got := failure(t, w); !strings.Contains(got, "10 bytes more than the 20 stored would pass the limit of 25") {
		t.Error(got)
	}
	put("b", "1") // makes room
	put("c", "1")
	put("d", "1")
	put("e", "1")
	if got := failure(t, w); !strings.Contains(got, "there are 4 keys, the limit") {
		t.Error(got)
	}
	w.commit()
	w.restart()
	if w.s.kvKeys != 4 || w.s.kvBytes != 10+2+2+2 {
		t.Errorf("after a restart: %d keys, %d bytes", w.s.kvKeys, w.s.kvBytes)
	}
}

func TestChangesAreRefusedWhileTheStoreIsFarBehind(t *testing.T) {
	w := newWorld(t, Config{MaxUnstored: 1000})
	w.join(1)
	w.say(1, &KVPut{Req: 1, NS: "n", Key: "a", Value: make([]byte, 1000)})
	w.say(1, &KVPut{Req: 2, NS: "n", Key: "b"})
	if got := failure(t, w); !strings.Contains(got, "disk is full or slow") {
		t.Error(got)
	}
	w.say(1, &KVGet{Req: 3, NS: "other", Key: "b"})
	if want := []Effect{Send{nid(1), &KVValue{Req: 3}}}; !reflect.DeepEqual(w.got, want) {
		t.Errorf("a question meanwhile:\n%s", show(w.got))
	}
	w.commit()
	w.say(1, &KVPut{Req: 4, NS: "n", Key: "b"})
	w.commit()
	if want := []Effect{Send{nid(1), &KVAdded{Req: 4, Added: true}}}; !reflect.DeepEqual(w.got, want) {
		t.Errorf("afterwards:\n%s", show(w.got))
	}
}

func TestTheDeadAndTheEndedAreForgotten(t *testing.T) {
	w := newWorld(t, Config{MaxDead: 2, MaxEnded: 2})
	w.join(100)
	for n := byte(1); n <= 5; n++ {
		w.join(n)
		w.say(n, &JobStart{Req: 1, Key: [16]byte{n}})
		w.say(n, &Leave{})
		w.commit()
	}
	check := func() {
		t.Helper()
		var dead []ids.Owner
		for _, r := range w.s.NodeRows() {
			if !r.Alive {
				dead = append(dead, r.Owner)
			}
		}
		if want := []ids.Owner{5, 6}; !reflect.DeepEqual(dead, want) {
			t.Errorf("dead nodes' owner numbers %v, want %v", dead, want)
		}
		var jobs []ids.Job
		for _, j := range w.s.JobRows() {
			jobs = append(jobs, j.ID)
		}
		if want := []ids.Job{ids.JobFromInt(4), ids.JobFromInt(5)}; !reflect.DeepEqual(jobs, want) {
			t.Errorf("jobs %v, want %v", jobs, want)
		}
		if len(w.stored) != 1+1+2+2 { // meta, the live node, dead nodes, jobs
			t.Errorf("%d records are stored", len(w.stored))
		}
	}
	check()
	w.say(100, &Lookup{Req: 1, Owner: 3})
	if want := []Effect{Send{nid(100), &Owned{Req: 1, Owner: 3, Message: "its node died long ago", Version: 11}}}; !reflect.DeepEqual(w.got, want) {
		t.Errorf("lookup of a forgotten owner:\n%s", show(w.got))
	}
	w.restart()
	check()
}

func TestOwnerNumbersRunOut(t *testing.T) {
	w := newWorld(t, Config{})
	w.s.meta.NextOwner = ids.MaxOwner
	w.join(1)
	w.say(2, &Register{Node: info(2)})
	if r, ok := w.got[0].(Send).Msg.(*Refused); !ok || r.Reason != RefusedLimit {
		t.Errorf("effects:\n%s", show(w.got))
	}
}

func TestDamagedStores(t *testing.T) {
	meta := &Meta{Cluster: ClusterID{1}, NextOwner: 2, NextJob: 2}
	for name, records := range map[string][]Record{
		"no meta":       {&JobRow{ID: ids.JobFromInt(1)}},
		"job too high":  {meta, &JobRow{ID: ids.JobFromInt(2)}},
		"owner unknown": {meta, &NodeRow{Info: info(1), Owner: 2}},
	} {
		if _, err := New(Config{}, records); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestNextIsEverySecondWhileNodesLive(t *testing.T) {
	w := newWorld(t, Config{})
	if at, ok := w.s.Next(); ok {
		t.Errorf("an empty head wants a tick at %v", at)
	}
	w.join(1)
	if at, ok := w.s.Next(); !ok || at != time.Second {
		t.Errorf("next tick %v, %v", at, ok)
	}
	w.say(1, &Leave{})
	if at, ok := w.s.Next(); ok {
		t.Errorf("a head whose last node left wants a tick at %v", at)
	}
}

func TestView(t *testing.T) {
	w := newWorld(t, Config{FlushEvery: 50 * time.Millisecond})
	w.join(1, 2, 3)
	view := func(n byte) Message {
		t.Helper()
		var m Message
		for _, e := range w.got {
			if s := e.(Send); s.To == nid(n) {
				if m != nil {
					t.Fatalf("two messages:\n%s", show(w.got))
				}
				m = s.Msg
			}
		}
		return m
	}
	later := func() { w.now += 50 * time.Millisecond; w.step(Tick{}) }

	w.say(2, &Report{Available: Resources{"CPU": 1}})
	if w.got != nil {
		t.Fatalf("nobody has subscribed:\n%s", show(w.got))
	}
	w.say(1, &Subscribe{On: true})
	snap, ok := view(1).(*Snapshot)
	if !ok || len(snap.Nodes) != 3 || snap.Nodes[1].Available["CPU"] != 1 || snap.Nodes[1].Info.IP != "10.0.0.2" {
		t.Fatalf("effects:\n%s", show(w.got))
	}
	w.say(2, &Report{Available: Resources{"CPU": 2}})
	later()
	if m := view(1); m != nil {
		t.Fatalf("sent before the snapshot was acknowledged: %+v", m)
	}
	w.say(3, &Report{Available: Resources{"CPU": 3}, Queued: 7})
	w.say(3, &Report{Available: Resources{"CPU": 3}, Queued: 8})
	w.say(1, &ViewAck{Version: snap.Version})
	d, ok := view(1).(*Delta)
	want := &Delta{From: snap.Version, Version: snap.Version + 3, Changed: []NodeView{
		{ID: nid(3), Owner: 3, Available: Resources{"CPU": 3}, Queued: 8},
		{ID: nid(2), Owner: 2, Available: Resources{"CPU": 2}},
	}}
	if !ok || !reflect.DeepEqual(d, want) {
		t.Fatalf("effects:\n%s", show(w.got))
	}
	w.say(1, &ViewAck{Version: d.Version})
	w.say(2, &Report{Available: Resources{"CPU": 2}}) // no change
	later()
	if m := view(1); m != nil {
		t.Fatalf("sent though nothing changed: %+v", m)
	}
	if at, ok := w.s.Next(); !ok || at != w.now+time.Second {
		t.Errorf("next tick at %v, %v; now %v", at, ok, w.now)
	}
	w.say(3, &Leave{})
	d, ok = view(1).(*Delta)
	if !ok || !reflect.DeepEqual(d.Gone, []ids.NodeID{nid(3)}) || d.Changed != nil {
		t.Fatalf("after a node left:\n%s", show(w.got))
	}
	w.commit()
	w.say(1, &ViewAck{Version: d.Version})
	w.join(4)
	later()
	d, ok = view(1).(*Delta)
	if !ok || d.Gone != nil || len(d.Changed) != 1 || d.Changed[0].Info == nil || d.Changed[0].Info.ID != nid(4) {
		t.Fatalf("after a node joined:\n%s", show(w.got))
	}
	w.say(1, &ViewAck{Version: d.Version})
	w.say(1, &Subscribe{})
	w.say(2, &Report{Available: Resources{"CPU": 5}})
	later()
	if m := view(1); m != nil {
		t.Errorf("sent to one that does not follow any more: %+v", m)
	}
}

func TestNewsComeLaterWhenTheyAreMany(t *testing.T) {
	w := newWorld(t, Config{FlushEvery: 50 * time.Millisecond, RowsPerSec: 10})
	w.join(1, 2, 3)
	w.say(1, &Subscribe{On: true})
	w.say(1, &ViewAck{Version: w.got[0].(Send).Msg.(*Snapshot).Version})
	w.say(2, &Report{Available: Resources{"CPU": 1}})
	if at, ok := w.s.Next(); !ok || at != 300*time.Millisecond { // three rows at 10 a second
		t.Errorf("next tick at %v, %v", at, ok)
	}
	w.now = 299 * time.Millisecond
	if w.step(Tick{}); w.got != nil {
		t.Errorf("too early:\n%s", show(w.got))
	}
	w.now = 300 * time.Millisecond
	w.step(Tick{})
	if d, ok := w.got[0].(Send).Msg.(*Delta); !ok || len(d.Changed) != 1 {
		t.Errorf("effects:\n%s", show(w.got))
	}
}

func TestDemandsAddUp(t *testing.T) {
	w := newWorld(t, Config{})
	w.join(1, 2)
	cpu, gpu := Resources{"CPU": 10000}, Resources{"CPU": 10000, "GPU": 10000}
	w.say(1, &Report{Demands: []Demand{{Shape: gpu, Count: 1, Infeasible: true, Reason: "no node has a GPU"}, {Shape: cpu, Count: 2, Reason: "busy"}}})
	w.say(2, &Report{Demands: []Demand{{Shape: Resources{"CPU": 10000}, Count: 3}}})
	want := []ShapeDemand{
		{Shape: cpu, Count: 5, Reason: "busy", Node: nid(1)},
		{Shape: gpu, Count: 1, Infeasible: true, Reason: "no node has a GPU", Node: nid(1)},
	}
	if got := w.s.Demands(); !reflect.DeepEqual(got, want) {
		t.Errorf("demands %+v, want %+v", got, want)
	}
	w.say(1, &Leave{})
	if got := w.s.Demands(); len(got) != 1 || got[0].Count != 3 {
		t.Errorf("demands after a node left: %+v", got)
	}
}

func BenchmarkLeases2000(b *testing.B) {
	s, err := New(Config{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	const nodes = 2000
	id := func(i int) ids.NodeID { return ids.NodeID{byte(i), byte(i >> 8), 1} }
	for i := range nodes {
		n := info(1)
		n.ID = id(i)
		s.Step(0, Received{n.ID, &Register{Node: n}})
		s.Step(0, Persisted{uint64(i + 1)})
	}
	now := time.Duration(0)
	lease := &Lease{Seq: 1}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		now += time.Second / nodes
		s.Step(now, Received{id(i % nodes), lease})
	}
	if s.live != nodes {
		b.Fatalf("%d nodes live", s.live)
	}
}

func TestWhoMissedAForgottenNodeGetsAWholeView(t *testing.T) {
	w := newWorld(t, Config{MaxDead: 1})
	w.join(1, 2, 3)
	w.say(1, &Subscribe{On: true})
	snap := w.got[0].(Send).Msg.(*Snapshot)
	for _, n := range []byte{2, 3} { // 2 is forgotten when 3 leaves
		w.say(n, &Leave{})
		w.commit()
	}
	w.now += time.Second
	w.say(1, &ViewAck{Version: snap.Version})
	if s, ok := w.got[0].(Send).Msg.(*Snapshot); !ok || len(s.Nodes) != 1 {
		t.Errorf("effects:\n%s", show(w.got))
	}
}

func BenchmarkViewOf2000(b *testing.B) {
	s, err := New(Config{RowsPerSec: 1 << 40}, nil)
	if err != nil {
		b.Fatal(err)
	}
	const nodes, followers = 2000, 100
	id := func(i int) ids.NodeID { return ids.NodeID{byte(i), byte(i >> 8), 1} }
	for i := range nodes {
		n := info(1)
		n.ID = id(i)
		s.Step(0, Received{n.ID, &Register{Node: n}})
		s.Step(0, Persisted{uint64(i + 1)})
	}
	var acks []Received
	now := time.Duration(0)
	step := func(ev Event) {
		for _, e := range s.Step(now, ev) {
			if e, ok := e.(Send); ok {
				switch m := e.Msg.(type) {
				case *Snapshot:
					acks = append(acks, Received{e.To, &ViewAck{Version: m.Version}})
				case *Delta:
					acks = append(acks, Received{e.To, &ViewAck{Version: m.Version}})
				}
			}
		}
	}
	for i := range followers {
		step(Received{id(i), &Subscribe{On: true}})
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ { // one report; every 50 ms and 200 reports, the news to all followers
		if i%200 == 0 {
			now += 50 * time.Millisecond
			all := acks
			acks = nil
			for _, a := range all {
				step(a)
			}
		}
		step(Received{id(i % nodes), &Report{Available: Resources{"CPU": int64(i)}}})
	}
}
