package member_test

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gray/internal/core/headstate"
	"gray/internal/core/headstate/member"
	"gray/internal/core/ids"
)

// cluster is a head and its daemons in one thread, with a store, links that break and one clock.
type cluster struct {
	t     *rapid.T
	now   time.Duration
	cfg   headstate.Config
	head  *headstate.State // nil while it is down
	start time.Duration    // of the head

	stored map[string]headstate.Record
	queue  []headstate.Persist

	nodes   []*daemon
	lastID  byte
	lastTag uint64
	owners  map[ids.Owner]ids.NodeID // every number that a daemon was told
	jobs    map[ids.Job][16]byte     // every job id that a daemon was told
	keys    map[string]string        // every put that was acknowledged
	deaths  map[ids.NodeID]bool      // every death that the head decided and did not forget in a crash
}

// daemon is a node with its link.
type daemon struct {
	info    headstate.NodeInfo
	m       *member.State
	start   time.Duration
	link    bool
	toHead  []headstate.Message
	toNode  []headstate.Message
	free    int64
	follow  bool
	fenced  bool
	view    map[ids.NodeID]headstate.NodeView
	waiting map[uint64]headstate.Call
	leases  int // LeaseBack less LeaseLost
}

func key(r headstate.Record) string {
	switch r := r.(type) {
	case *headstate.Meta:
		return "meta"
	case *headstate.NodeRow:
		return "node " + r.Info.ID.String()
	case *headstate.JobRow:
		return "job " + r.ID.String()
	case *headstate.KVRecord:
		return "kv " + r.NS + "/" + r.Key
	}
	switch r := r.(type) {
	case *headstate.ActorRecord:
		return "actor " + r.Row.ID.String()
	case *headstate.ActorSpec:
		return "spec " + r.ID.String()
	}
	panic("unknown record")
}

func newCluster(t *rapid.T) *cluster {
	c := &cluster{
		t: t, cfg: headstate.Config{Cluster: headstate.ClusterID{7}, SessionName: "s", MaxDead: 3, MaxEnded: 3},
		stored: map[string]headstate.Record{}, owners: map[ids.Owner]ids.NodeID{}, jobs: map[ids.Job][16]byte{},
		keys: map[string]string{}, deaths: map[ids.NodeID]bool{},
	}
	c.boot()
	return c
}

func (c *cluster) boot() {
	var records []headstate.Record
	for _, r := range c.stored {
		records = append(records, r)
	}
	s, err := headstate.New(c.cfg, records)
	if err != nil {
		c.t.Fatal(err)
	}
	c.head, c.start, c.queue = s, c.now, nil
	c.headStep(headstate.Tick{})
	for k, v := range c.keys {
		r, ok := c.stored["kv n/"+k].(*headstate.KVRecord)
		if !ok || string(r.Value) != v {
			c.t.Fatalf("key %q was acknowledged and is lost", k)
		}
	}
}

// crash ends the head's process: what is not committed is gone, and so is every link.
func (c *cluster) crash() {
	c.head, c.queue = nil, nil
	for _, d := range c.nodes {
		c.unlink(d, "connection reset")
	}
}

func (c *cluster) unlink(d *daemon, cause string) {
	if d.link {
		d.link, d.toHead, d.toNode = false, nil, nil
		c.nodeStep(d, member.LinkDown{Cause: cause})
	}
}

// dial is what a daemon without a link does all the time.
func (c *cluster) dial(d *daemon) {
	switch {
	case d.link:
	case c.head == nil:
		c.nodeStep(d, member.HeadAbsent{})
	default:
		d.link = true
		c.nodeStep(d, member.LinkUp{})
	}
}

func (c *cluster) headStep(ev headstate.Event) {
	for _, e := range c.head.Step(c.now-c.start, ev) {
		switch e := e.(type) {
		case headstate.Persist:
			c.queue = append(c.queue, e)
		case headstate.Send:
			for _, d := range c.nodes {
				if d.info.ID == e.To && d.link {
					d.toNode = append(d.toNode, e.Msg)
				}
			}
		}
	}
	for _, row := range c.head.NodeRows() {
		if row.DeathReason != headstate.UnexpectedTermination {
			continue
		}
		for _, d := range c.nodes {
			if d.info.ID == row.Info.ID && d.m.HasLease() {
				c.t.Fatalf("node %d is declared dead while it counts on its lease", d.info.ID[0])
			}
		}
	}
}

// commit makes the first n batches safe.
func (c *cluster) commit(n int) {
	if c.head == nil || n == 0 || len(c.queue) == 0 {
		return
	}
	n = min(n, len(c.queue))
	for _, p := range c.queue[:n] {
		for _, op := range p.Ops {
			if op.Delete {
				delete(c.stored, key(op.Rec))
			} else {
				c.stored[key(op.Rec)] = op.Rec
			}
		}
	}
	seq := c.queue[n-1].Seq
	c.queue = c.queue[n:]
	c.headStep(headstate.Persisted{Seq: seq})
}

func (c *cluster) addNode() {
	c.lastID++
	d := &daemon{
		info: headstate.NodeInfo{
			ID: ids.NodeID{c.lastID}, Epoch: uint64(c.lastID), IP: "10.0.0." + fmt.Sprint(c.lastID),
			Total: headstate.Resources{"CPU": 40000},
		},
		start: c.now, view: map[ids.NodeID]headstate.NodeView{}, waiting: map[uint64]headstate.Call{}, free: 40000,
	}
	d.m = member.New(member.Config{Node: d.info.ID, Head: "head"})
	c.nodes = append(c.nodes, d)
}

func (c *cluster) nodeStep(d *daemon, ev member.Event) {
	send := func(m headstate.Message) {
		if d.link {
			d.toHead = append(d.toHead, m)
		}
	}
	for _, e := range d.m.Step(c.now-d.start, ev) {
		switch e := e.(type) {
		case member.Register:
			inv := headstate.Inventory{Cluster: e.Cluster, Owner: e.Owner}
			for _, o := range c.nodes {
				inv.Peers = append(inv.Peers, o.info.ID)
			}
			send(&headstate.Register{Node: d.info, Inventory: inv})
		case member.Send:
			send(e.Msg)
		case member.Joined:
			if other, ok := c.owners[e.Owner]; ok && other != d.info.ID {
				c.t.Fatalf("owner number %d was given to nodes %d and %d", e.Owner, other[0], d.info.ID[0])
			}
			c.owners[e.Owner] = d.info.ID
		case member.LeaseBack:
			d.leases++
		case member.LeaseLost:
			d.leases--
		case member.Refused:
			d.fenced = true
		case member.ViewPut:
			if e.Node.Info == nil {
				c.t.Fatal("a node in the view has no data")
			}
			d.view[e.Node.ID] = e.Node
		case member.ViewDrop:
			delete(d.view, e.Node)
		case member.CallDone:
			c.answered(d, e)
		}
	}
	if held := d.leases == 1; held != d.m.HasLease() || d.leases < 0 || d.leases > 1 {
		c.t.Fatalf("the lease came %d times more than it went; held %v", d.leases, d.m.HasLease())
	}
}

func (c *cluster) answered(d *daemon, e member.CallDone) {
	call, ok := d.waiting[e.Tag]
	if !ok {
		c.t.Fatalf("call %d ended twice, or was never made", e.Tag)
	}
	delete(d.waiting, e.Tag)
	if e.Err != nil {
		return
	}
	switch a := e.Answer.(type) {
	case *headstate.KVAdded:
		put := call.(*headstate.KVPut)
		if !a.Added {
			c.t.Fatalf("put of %q, which only this call makes, was not added", put.Key)
		}
		c.keys[put.Key] = string(put.Value)
	case *headstate.KVValue:
		get := call.(*headstate.KVGet)
		if want, ok := c.keys[get.Key]; ok && (!a.Found || string(a.Value) != want) {
			c.t.Fatalf("get of %q = %q, %v; want %q", get.Key, a.Value, a.Found, want)
		}
		if a.Found {
			c.keys[get.Key] = string(a.Value) // who has seen it must see it for ever
		}
	case *headstate.JobStarted:
		k := call.(*headstate.JobStart).Key
		if other, ok := c.jobs[a.Job]; ok && other != k {
			c.t.Fatalf("job %s was given twice", a.Job)
		}
		c.jobs[a.Job] = k
	default:
		c.t.Fatalf("%T was answered with %T", call, a)
	}
}

func (c *cluster) ask(d *daemon, call headstate.Call) {
	c.lastTag++
	d.waiting[c.lastTag] = call
	c.nodeStep(d, member.Asked{Tag: c.lastTag, Call: call, Timeout: 30 * time.Second})
}

// deliver brings the oldest message of a link to where it goes.
func (c *cluster) deliver(d *daemon, up bool) bool {
	switch {
	case up && len(d.toHead) > 0 && c.head != nil:
		m := d.toHead[0]
		d.toHead = d.toHead[1:]
		c.headStep(headstate.Received{From: d.info.ID, Msg: m})
	case !up && len(d.toNode) > 0:
		m := d.toNode[0]
		d.toNode = d.toNode[1:]
		c.nodeStep(d, member.Received{Msg: m})
	default:
		return false
	}
	return true
}

func (c *cluster) pass(d time.Duration) {
	c.now += d
	for _, n := range c.nodes {
		c.nodeStep(n, member.Tick{})
	}
	if c.head != nil {
		c.headStep(headstate.Tick{})
	}
}

// settle repairs everything and lets all come to rest.
func (c *cluster) settle() {
	if c.head == nil {
		c.boot()
	}
	for range 40 {
		for busy := true; busy; {
			busy = false
			for _, d := range c.nodes {
				c.dial(d)
				for c.deliver(d, true) || c.deliver(d, false) {
					busy = true
				}
			}
			busy = busy || len(c.queue) > 0
			c.commit(len(c.queue))
		}
		c.pass(500 * time.Millisecond)
	}
}

func TestClusterKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster(t)
		for range 3 {
			c.addNode()
		}
		pick := func(t *rapid.T) *daemon { return c.nodes[rapid.IntRange(0, len(c.nodes)-1).Draw(t, "node")] }
		burst := func(t *rapid.T) {
			for _, d := range c.nodes {
				for rapid.IntRange(0, 3).Draw(t, "n") > 0 && (c.deliver(d, true) || c.deliver(d, false)) {
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"":         func(*rapid.T) {},
			"deliver":  burst,
			"deliver2": burst,
			"commit":   func(t *rapid.T) { c.commit(rapid.IntRange(1, 4).Draw(t, "batches")) },
			"pass": func(t *rapid.T) {
				c.pass(time.Duration(rapid.IntRange(1, 1000).Draw(t, "ms")) * time.Millisecond)
			},
			"flow": func(t *rapid.T) { // a good second
				for range 4 {
					for _, d := range c.nodes {
						for c.deliver(d, true) || c.deliver(d, false) {
						}
					}
					c.commit(len(c.queue))
					c.pass(300 * time.Millisecond)
				}
			},
			"dial": func(t *rapid.T) { c.dial(pick(t)) },
			"cut":  func(t *rapid.T) { c.unlink(pick(t), "cut") },
			"silence": func(t *rapid.T) { // one node's link is slow; the others go on
				slow := pick(t)
				for range rapid.IntRange(1, 14).Draw(t, "seconds") {
					for _, d := range c.nodes {
						for d != slow && (c.deliver(d, true) || c.deliver(d, false)) {
						}
					}
					c.commit(len(c.queue))
					c.pass(time.Second)
				}
			},
			"crash": func(t *rapid.T) {
				c.crash()
				for range rapid.IntRange(0, 12).Draw(t, "seconds down") {
					c.pass(time.Second)
					for _, d := range c.nodes {
						if rapid.Bool().Draw(t, "dials") {
							c.dial(d)
						}
					}
				}
				c.boot()
			},
			"node": func(t *rapid.T) {
				if len(c.nodes) < 6 {
					c.addNode()
				}
			},
			"kill": func(t *rapid.T) {
				d := pick(t)
				if len(c.nodes) > 1 {
					c.unlink(d, "killed")
					c.nodes = deleteNode(c.nodes, d)
				}
			},
			"put": func(t *rapid.T) {
				k := fmt.Sprintf("key%d", c.lastTag)
				c.ask(pick(t), &headstate.KVPut{NS: "n", Key: k, Value: []byte(k + "!")})
			},
			"get": func(t *rapid.T) {
				k := fmt.Sprintf("key%d", rapid.Uint64Range(0, c.lastTag).Draw(t, "key"))
				c.ask(pick(t), &headstate.KVGet{NS: "n", Key: k})
			},
			"job": func(t *rapid.T) {
				c.ask(pick(t), &headstate.JobStart{Key: [16]byte{byte(c.lastTag), byte(c.lastTag >> 8), 1}})
			},
			"report": func(t *rapid.T) {
				d := pick(t)
				d.free = rapid.Int64Range(0, 4).Draw(t, "cpus") * 10000
				c.nodeStep(d, member.Loaded{Report: &headstate.Report{Available: headstate.Resources{"CPU": d.free}}})
			},
			"follow": func(t *rapid.T) {
				d := pick(t)
				d.follow = rapid.Bool().Draw(t, "on")
				c.nodeStep(d, member.Follow{On: d.follow})
			},
		})
		c.settle()
		c.atRest()
	})
}

func deleteNode(nodes []*daemon, d *daemon) []*daemon {
	var rest []*daemon
	for _, n := range nodes {
		if n != d {
			rest = append(rest, n)
		}
	}
	return rest
}

// atRest checks what must hold when nothing is under way.
func (c *cluster) atRest() {
	want := map[ids.NodeID]string{}
	for _, d := range c.nodes {
		if d.fenced {
			continue
		}
		if d.m.Phase() != member.Member || !d.m.HasLease() {
			c.t.Fatalf("node %d is %s, lease %v", d.info.ID[0], d.m.Phase(), d.m.HasLease())
		}
		want[d.info.ID] = fmt.Sprint(headstate.Resources{"CPU": d.free})
	}
	got := map[ids.NodeID]string{}
	for _, row := range c.head.NodeRows() {
		if row.Alive {
			got[row.Info.ID] = fmt.Sprint(row.Available)
		}
	}
	if !maps.Equal(got, want) {
		c.t.Fatalf("the head sees %v, want %v", got, want)
	}
	for _, d := range c.nodes {
		if len(d.waiting) > 0 {
			c.t.Fatalf("node %d still waits for %v", d.info.ID[0], d.waiting)
		}
		if d.fenced || !d.follow {
			continue
		}
		seen := map[ids.NodeID]string{}
		for id, n := range d.view {
			seen[id] = fmt.Sprint(n.Available)
		}
		if !maps.Equal(seen, want) {
			c.t.Fatalf("node %d sees %v, want %v", d.info.ID[0], seen, want)
		}
	}
}
