package headlink_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/core/ids"
	"gray/internal/head"
	"gray/internal/head/headlink"
)

func closeHead(t *testing.T, h *head.Service) {
	t.Helper()
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}

func wantEvents(t *testing.T, d *daemon, want ...string) {
	t.Helper()
	synctest.Wait()
	if got := d.take(); !reflect.DeepEqual(got, want) && len(got)+len(want) > 0 {
		t.Errorf("node %d was told %q, want %q", d.id[0], got, want)
	}
}

func TestCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHead(t, head.NewMemStore(), &logs{})
		defer closeHead(t, h)
		a, b := newDaemon(t, 1), newDaemon(t, 2)
		link(t, h, a)
		ctx := within(t, 5*time.Second)
		r := must[*headstate.Registered](t)(a.Joined(ctx))
		if r.Owner != 1 || r.Cluster != h.Cluster() || r.SessionName != "session_x" || h.SessionName() != "session_x" {
			t.Errorf("registered: %+v", r)
		}
		link(t, h, b)
		must[*headstate.Registered](t)(b.Joined(ctx))

		if added := must[bool](t)(a.KVPut(ctx, "ns", "k", []byte("v"), false)); !added {
			t.Error("not added")
		}
		if added := must[bool](t)(b.KVPut(ctx, "ns", "k", []byte("w"), false)); added {
			t.Error("added twice")
		}
		if v, found, err := b.KVGet(ctx, "ns", "k"); string(v) != "v" || !found || err != nil {
			t.Errorf("get: %q %v %v", v, found, err)
		}
		if _, found, err := b.KVGet(ctx, "other", "k"); found || err != nil {
			t.Errorf("get of nothing: %v %v", found, err)
		}
		if ok := must[bool](t)(b.KVExists(ctx, "ns", "k")); !ok {
			t.Error("it does not exist")
		}
		if keys := must[[]string](t)(a.KVList(ctx, "ns", "")); !reflect.DeepEqual(keys, []string{"k"}) {
			t.Errorf("keys %v", keys)
		}
		if n := must[int64](t)(a.KVDel(ctx, "ns", "k", false)); n != 1 {
			t.Errorf("%d deleted", n)
		}

		job := must[ids.Job](t)(a.JobStart(ctx, [16]byte{1}, headstate.Driver{PID: 7, Entrypoint: "x.py"}))
		if job != ids.JobFromInt(1) {
			t.Errorf("job %s", job)
		}
		if err := a.JobEnd(ctx, job, false, ""); err != nil {
			t.Error(err)
		}
		if err := a.JobEnd(ctx, ids.JobFromInt(9), false, ""); fault.KindOf(err) != fault.System {
			t.Errorf("end of an unknown job: %v", err)
		}
		if jobs := must[[]headstate.JobRow](t)(b.Jobs(ctx)); len(jobs) != 1 || jobs[0].State != headstate.JobSucceeded || jobs[0].Driver.PID != 7 {
			t.Errorf("jobs %+v", jobs)
		}
		wantEvents(t, b, "registered 2 true ended 0 dead 0", "lease back", "ended 01000000")

		if o := must[*headstate.Owned](t)(a.Lookup(ctx, 2)); !o.Alive || o.Node != b.id || o.IP != "10.0.0.2" {
			t.Errorf("owner 2: %+v", o)
		}
		if o := must[*headstate.Owned](t)(a.LookupNode(ctx, b.id)); !o.Alive || o.Owner != 2 || o.IP != "10.0.0.2" {
			t.Errorf("node 2: %+v", o)
		}
		if nodes := must[[]headstate.NodeRow](t)(a.Nodes(ctx)); len(nodes) != 2 || nodes[1].Info.ID != b.id || !nodes[1].Alive {
			t.Errorf("nodes %+v", nodes)
		}
		b.Report(&headstate.Report{
			Available: headstate.Resources{"CPU": 10000},
			Demands:   []headstate.Demand{{Shape: headstate.Resources{"GPU": 10000}, Count: 3, Infeasible: true, Reason: "no GPU"}},
		})
		synctest.Wait()
		total, available, err := a.Resources(ctx)
		if err != nil || total["CPU"] != 80000 || available["CPU"] != 50000 {
			t.Errorf("resources %v, %v, %v", total, available, err)
		}
		status := must[string](t)(h.Status(ctx, false))
		for _, line := range []string{" 1 node_" + b.id.String(), " 3.0/8.0 CPU", " {'GPU': 1.0}: 3+ pending tasks/actors", " {'GPU': 1.0}: infeasible: no GPU"} {
			if !strings.Contains(status+"\n", line+"\n") {
				t.Errorf("status lacks %q:\n%s", line, status)
			}
		}
		if err := b.Leave(ctx, ""); err != nil {
			t.Error(err)
		}
		wantEvents(t, a, "registered 1 true ended 0 dead 0", "lease back", "ended 01000000", "dead 2 [2] 1")
		if _, err := b.Jobs(ctx); fault.KindOf(err) != fault.NodeDied {
			t.Errorf("a call after leaving: %v", err)
		}
	})
}

func TestTheViewIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHead(t, head.NewMemStore(), &logs{})
		defer closeHead(t, h)
		var ds []*daemon
		for n := byte(1); n <= 5; n++ {
			d := newDaemon(t, n)
			link(t, h, d)
			must[*headstate.Registered](t)(d.Joined(within(t, time.Second)))
			ds = append(ds, d)
		}
		ds[0].Follow(true)
		for i := range 200 {
			d := ds[i%5]
			d.Report(&headstate.Report{Available: headstate.Resources{"CPU": int64(i)}})
			time.Sleep(7 * time.Millisecond)
		}
		if err := ds[4].Leave(within(t, time.Second), ""); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got, want := ds[0].nodes(), (map[byte]int64{1: 195, 2: 196, 3: 197, 4: 198}); !maps.Equal(got, want) {
			t.Errorf("view %v, want %v", got, want)
		}
		if got := ds[1].nodes(); len(got) != 0 {
			t.Errorf("one that does not follow sees %v", got)
		}
	})
}

func TestSilenceFencesBothSides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHead(t, head.NewMemStore(), &logs{})
		defer closeHead(t, h)
		a, b := newDaemon(t, 1), newDaemon(t, 2)
		var v valve
		linkThrough(t, h, a, &v)
		must[*headstate.Registered](t)(a.Joined(within(t, time.Second)))
		link(t, h, b)
		time.Sleep(3 * time.Second)
		wantEvents(t, a, "registered 1 true ended 0 dead 0", "lease back")
		wantEvents(t, b, "registered 2 true ended 0 dead 0", "lease back")
		v.set(true)
		time.Sleep(7900 * time.Millisecond)
		wantEvents(t, a)
		time.Sleep(200 * time.Millisecond)
		wantEvents(t, a, "lease lost")
		wantEvents(t, b)
		v.set(false) // in time
		wantEvents(t, a, "lease back")
		v.set(true)
		time.Sleep(11 * time.Second)
		wantEvents(t, a, "lease lost")
		wantEvents(t, b, "dead 1 [1] 2")
		v.set(false)
		wantEvents(t, a, "refused fenced")
		if n := a.log.count("is unreachable"); n != 2 {
			t.Errorf("%d lines say that the head is unreachable, want one for each time", n)
		}
		if n := a.log.count("is back"); n != 2 {
			t.Errorf("%d lines say that it is back", n)
		}
		if _, err := a.KVExists(within(t, time.Second), "", ""); fault.KindOf(err) != fault.NodeDied {
			t.Errorf("a call of a fenced node: %v", err)
		}
	})
}

func TestARestartedHeadTakesItsNodesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := head.NewMemStore()
		h := startHead(t, store, &logs{})
		cluster := h.Cluster()
		a := newDaemon(t, 1)
		link(t, h, a)
		ctx := within(t, time.Hour)
		running := must[ids.Job](t)(a.JobStart(ctx, [16]byte{1}, headstate.Driver{}))
		must[ids.Job](t)(a.JobStart(ctx, [16]byte{2}, headstate.Driver{}))
		a.events.jobs, a.events.drivers = []ids.Job{running}, []ids.Job{running}
		closeHead(t, h)
		a.Down(nil, "not the link")
		got := make(chan error, 1)
		go func() {
			_, err := a.KVPut(ctx, "ns", "k", nil, false)
			got <- err
		}()
		for range 100 { // the head's machine says each second that nobody listens
			a.HeadAbsent()
			time.Sleep(time.Second)
		}
		wantEvents(t, a, "registered 1 true ended 0 dead 0", "lease back")

		h = startHead(t, store, &logs{})
		defer closeHead(t, h)
		link(t, h, a)
		if err := <-got; err != nil {
			t.Error(err)
		}
		wantEvents(t, a, "ended 02000000", "registered 1 false ended 0 dead 0")
		if h.Cluster() != cluster {
			t.Error("it is another cluster")
		}

		// A head without its store is another cluster.
		other := startHead(t, head.NewMemStore(), &logs{})
		defer closeHead(t, other)
		link(t, other, a)
		wantEvents(t, a, "lease lost", "refused cluster")
	})
}

func TestAStoreThatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		store := &faultyStore{MemStore: head.NewMemStore()}
		store.fail = func(int) (bool, error) {
			if full.Load() {
				return false, syscall.ENOSPC
			}
			return true, nil
		}
		log := &logs{}
		h := startHead(t, store, log)
		defer closeHead(t, h)
		a := newDaemon(t, 1)
		link(t, h, a)
		must[*headstate.Registered](t)(a.Joined(within(t, time.Second)))
		synctest.Wait()
		full.Store(true)
		got := make(chan error, 1)
		go func() {
			_, err := a.KVPut(t.Context(), "ns", "k", nil, false)
			got <- err
		}()
		time.Sleep(150 * time.Second)
		synctest.Wait()
		select {
		case err := <-got:
			t.Fatalf("the put was answered: %v", err)
		default:
		}
		if n := log.count("the head's store fails"); n != 3 {
			t.Errorf("%d lines in 150 s say that the store fails", n)
		}
		if s := must[string](t)(h.Status(within(t, time.Second), false)); !strings.Contains(s, "Head Store:\n failing, changes wait for it: no space left on device") {
			t.Errorf("status:\n%s", s)
		}
		wantEvents(t, a, "registered 1 true ended 0 dead 0", "lease back") // it is still a member
		full.Store(false)
		if err := <-got; err != nil {
			t.Error(err)
		}
		if n := log.count("works again"); n != 1 {
			t.Errorf("%d lines say that the store works again", n)
		}
	})
}

func TestWhatComesLateOnAnOldLinkIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHead(t, head.NewMemStore(), &logs{})
		defer closeHead(t, h)
		answers := make(chan string, 10)
		conn := func(name string) head.Conn {
			return connect(func(b []byte) { answers <- fmt.Sprintf("%s %#x", name, b[0]) })
		}
		old, current := conn("old"), conn("new")
		id := ids.NodeID{1}
		say := func(c head.Conn, m headstate.Message) {
			if err := h.ReceiveOn(id, c, head.Encode(m)); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		for _, c := range []head.Conn{old, current} {
			if err := h.Connect(id, c); err != nil {
				t.Fatal(err)
			}
		}
		say(current, &headstate.Register{Node: info(1)})
		say(old, &headstate.Lease{Seq: 1})
		say(current, &headstate.Lease{Seq: 2})
		h.Disconnect(id, old) // no longer its business
		say(current, &headstate.Lease{Seq: 3})
		h.Disconnect(id, current)
		say(nil, &headstate.Lease{Seq: 4}) // heard, but there is no link for an answer
		close(answers)
		var got []string
		for a := range answers {
			got = append(got, a)
		}
		if want := []string{"new 0xc0", "new 0xc3", "new 0xc3"}; !reflect.DeepEqual(got, want) {
			t.Errorf("answers %q, want %q", got, want)
		}
	})
}

func TestAFencedHeadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := head.NewMemStore()
		first := startHead(t, store, &logs{})
		synctest.Wait()
		second := startHead(t, store, &logs{})
		defer closeHead(t, second)
		a := newDaemon(t, 1)
		link(t, first, a)
		<-first.Done()
		if err := first.Err(); !errors.Is(err, head.ErrFenced) {
			t.Errorf("the first head ended by %v", err)
		}
		if err := first.Receive(a.id, head.Encode(&headstate.Lease{})); !errors.Is(err, head.ErrFenced) {
			t.Errorf("Receive: %v", err)
		}
		if _, err := first.Status(within(t, time.Second), false); !errors.Is(err, head.ErrFenced) {
			t.Errorf("Status: %v", err)
		}
		link(t, second, a)
		must[*headstate.Registered](t)(a.Joined(within(t, time.Second)))
	})
}

// The head's process dies at every append, before it or after it; what was acknowledged is there, nothing is given twice.
func TestCrashAtAnyAppend(t *testing.T) {
	crash := errors.New("the process died")
	for at := 1; at <= 12; at++ {
		for _, applied := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d applied %v", at, applied), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					mem := head.NewMemStore()
					down := make(chan struct{})
					dead := false
					store := &faultyStore{MemStore: mem, fail: func(n int) (bool, error) {
						if n < at {
							return true, nil
						}
						if !dead {
							dead = true
							close(down)
						}
						return applied && n == at, crash
					}}
					h := startHead(t, store, &logs{})
					owners := map[ids.Owner]ids.NodeID{}
					var ds []*daemon
					for n := byte(1); n <= 3; n++ {
						d := newDaemon(t, n)
						link(t, h, d)
						ds = append(ds, d)
					}
					finished := make(chan struct{})
					go func() {
						defer close(finished)
						workload(t, ds)
					}()
					select {
					case <-down:
						if err := h.Close(); !errors.Is(err, crash) {
							t.Errorf("Close: %v", err)
						}
						h = startHead(t, mem, &logs{})
						for _, d := range ds {
							link(t, h, d)
						}
						<-finished
					case <-finished:
					}
					for _, d := range ds {
						r := must[*headstate.Registered](t)(d.Joined(within(t, time.Second)))
						if o, ok := owners[r.Owner]; ok {
							t.Errorf("owner number %d was given to nodes %d and %d", r.Owner, o[0], d.id[0])
						}
						owners[r.Owner] = d.id
					}
					closeHead(t, h)
				})
			})
		}
	}
}

// workload makes changes one after the other; each must come true exactly once.
func workload(t *testing.T, ds []*daemon) {
	ctx := t.Context()
	jobs := map[ids.Job]bool{}
	for i, d := range ds {
		for j := range 3 {
			k := fmt.Sprintf("%d.%d", i, j)
			if added, err := d.KVPut(ctx, "ns", k, []byte(k), false); !added || err != nil {
				t.Errorf("put %s: added %v, %v", k, added, err)
			}
			job, err := d.JobStart(ctx, [16]byte{byte(i), byte(j), 1}, headstate.Driver{})
			if jobs[job] || err != nil {
				t.Errorf("job %s is not new, %v", job, err)
			}
			jobs[job] = true
			for i := range i + 1 {
				if v, found, err := d.KVGet(ctx, "ns", fmt.Sprintf("%d.0", i)); !found || err != nil || string(v) != fmt.Sprintf("%d.0", i) {
					t.Errorf("get: %q %v %v", v, found, err)
				}
			}
		}
	}
}

func TestCallsEndWithTheirContextAndTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newDaemon(t, 1)
		_, _, err := a.KVGet(within(t, time.Second), "ns", "k")
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "head.KVGet head:1: the head did not answer in time") {
			t.Errorf("a call without a head: %v", err)
		}
		if _, err := a.Joined(within(t, time.Second)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Joined without a head: %v", err)
		}
		got := make(chan error, 1)
		a.Go(&headstate.Nodes{}, 0, func(_ headstate.Answer, err error) { got <- err })
		a.Close()
		if err := <-got; fault.KindOf(err) != fault.System || !strings.Contains(err.Error(), "ending") {
			t.Errorf("a call under way at Close: %v", err)
		}
		if _, err := a.Nodes(within(t, time.Second)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a call after Close: %v", err)
		}
		if err := a.Receive([]byte{1, 2}); fault.KindOf(err) != fault.Protocol {
			t.Errorf("garbage: %v", err)
		}
	})
}

func TestOnDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "head.db")
	ctx := within(t, 30*time.Second)
	secret := bytes.Repeat([]byte("value"), 1<<18)
	for round := range 3 {
		s, err := head.OpenBolt(path)
		if err != nil {
			t.Fatal(err)
		}
		h := startHead(t, s, &logs{})
		d := newDaemon(t, byte(round+1))
		link(t, h, d)
		if r := must[*headstate.Registered](t)(d.Joined(ctx)); r.Owner != ids.Owner(round+1) {
			t.Errorf("round %d: owner number %d", round, r.Owner)
		}
		if added := must[bool](t)(d.KVPut(ctx, "ns", "k", secret, false)); added != (round == 0) {
			t.Errorf("round %d: added %v", round, added)
		}
		if v, _, err := d.KVGet(ctx, "ns", "k"); !bytes.Equal(v, secret) || err != nil {
			t.Errorf("round %d: got %d bytes, %v", round, len(v), err)
		}
		if err := d.Leave(ctx, ""); err != nil {
			t.Error(err)
		}
		d.Close()
		closeHead(t, h)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if fi, err := os.Stat(path); err != nil || fi.Size() > 16<<20 {
		t.Errorf("the file has %d bytes, %v", fi.Size(), err)
	}
}

func BenchmarkLease(b *testing.B) {
	h, err := head.Start(head.Config{Store: head.NewMemStore()})
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	const nodes = 2000
	acks := make(chan struct{}, 1<<16)
	for i := range nodes {
		n := info(1)
		n.ID = ids.NodeID{byte(i), byte(i >> 8), 1}
		if err := h.Connect(n.ID, connect(func([]byte) { acks <- struct{}{} })); err != nil {
			b.Fatal(err)
		}
		if err := h.Receive(n.ID, head.Encode(&headstate.Register{Node: n})); err != nil {
			b.Fatal(err)
		}
		<-acks
	}
	lease := head.Encode(&headstate.Lease{Seq: 1})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := h.Receive(ids.NodeID{byte(i % nodes), byte(i % nodes >> 8), 1}, lease); err != nil {
			b.Fatal(err)
		}
		<-acks
	}
}

var _ headlink.Handler = (*events)(nil)
