package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"gray/internal/core/engine"
	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/core/headstate/member"
	"gray/internal/core/ids"
	"gray/internal/core/memory"
	"gray/internal/core/resource"
)

// node is a simulated daemon: a real engine and membership, and what internal/node does around them.
type node struct {
	w       *World
	index   int
	id      ids.NodeID
	alive   bool
	joined  bool
	born    time.Time
	eng     *engine.Engine
	mem     *memory.State
	names   *resource.Names
	total   resource.Set
	cpus    int
	mbr     *member.State
	up      *pipe // to the head
	tickAt  time.Duration
	ticking bool
	calls   map[uint64]func(headstate.Answer, error)
	lastTag uint64
	jobs    map[ids.Job]bool

	peers  map[ids.NodeID]engine.NodeNo
	byNo   map[engine.NodeNo]*node
	dead   map[ids.NodeID]bool
	lastNo engine.NodeNo

	procs   map[engine.SessionID]*proc
	store   store
	envs    map[string]int
	copies  map[uint64]*copying
	later   []func() // what sinks ask for that calls the engine again
	events  int
	fences  int
	fenced  bool
	leaving bool
}

func (w *World) newNode(index int) *node {
	n := &node{
		w: w, index: index, names: resource.NewNames(), calls: map[uint64]func(headstate.Answer, error){}, jobs: map[ids.Job]bool{},
		peers: map[ids.NodeID]engine.NodeNo{}, byNo: map[engine.NodeNo]*node{}, dead: map[ids.NodeID]bool{}, procs: map[engine.SessionID]*proc{}, envs: map[string]int{},
		copies: map[uint64]*copying{}, cpus: w.cfg.CPUs[index], tickAt: -1,
	}
	r := rand.New(rand.NewPCG(w.cfg.Seed, uint64(index)+77))
	for k := range n.id {
		n.id[k] = byte(r.IntN(256))
	}
	n.id[27] = byte(index)
	return n
}

// boot starts a daemon and has it join.
func (n *node) boot() {
	w := n.w
	n.alive, n.born = true, w.now
	res := map[string]int64{"CPU": int64(n.cpus) * resource.Unit}
	if w.cfg.Custom && (n.index == 0 || n.index == 2) {
		res["x"], res["GPU"] = 2*resource.Unit, 2*resource.Unit
	}
	if w.cfg.Actors > 0 && (n.index == 0 || n.index == 2) {
		res["y"] = 2 * resource.Unit
	}
	var err error
	if n.total, err = n.names.Set(res); err != nil {
		panic(err) // the names are constant
	}
	n.mbr = member.New(member.Config{Node: n.id, Head: "head"})
	n.relink()
	if w.cfg.NodeDeath && n.index > 0 && (w.cfg.Spared == 0 || !w.chance(w.cfg.Spared)) {
		w.after(time.Duration(w.rng.IntN(400))*time.Millisecond, n.misfortune)
	}
}

// relink makes a new link to the head, if there is one.
func (n *node) relink() {
	if n.w.head.absent {
		return // when it is back it is found by all
	}
	if n.up != nil {
		n.up.down = true
	}
	if p := n.w.head.down[n.id]; p != nil {
		p.down = true
	}
	n.up = &pipe{w: n.w}
	n.w.head.down[n.id] = &pipe{w: n.w}
	n.member(member.LinkUp{})
}

// cutHead breaks the link to the head.
func (n *node) cutHead() {
	if n.up == nil || n.up.down {
		return
	}
	n.up.down = true
	if p := n.w.head.down[n.id]; p != nil {
		p.down = true
		delete(n.w.head.down, n.id)
	}
	n.member(member.LinkDown{Cause: "cut"})
}

// misfortune is what happens to a node of a world where nodes die.
func (n *node) misfortune() {
	w := n.w
	if !w.faults || !n.alive {
		return
	}
	switch w.rng.IntN(5) {
	case 0:
		w.tracef("node %d dies", n.index)
		w.Stats.NodeDeaths++
		n.die()
		return
	case 1:
		w.tracef("node %d leaves", n.index)
		w.Stats.NodeDeaths++
		n.leaving = true
		n.member(member.Leaving{Message: "left"})
		return
	case 2, 3: // out of the head's reach: for a moment, for long enough to lose the lease, or for good
		w.tracef("node %d loses the head", n.index)
		n.cutHead()
		w.after([]time.Duration{time.Second, 9 * time.Second, 15 * time.Second}[w.rng.IntN(3)], func() {
			if n.alive {
				w.tracef("node %d finds the head", n.index)
				n.relink()
			}
		})
	}
	w.after(time.Duration(w.rng.IntN(1000))*time.Millisecond, n.misfortune)
}

// die is the end of a daemon and of all its clients.
func (n *node) die() {
	n.alive = false
	for _, sid := range sorted(n.procs) {
		n.procs[sid].kill(false)
	}
	if p := n.w.head.down[n.id]; p != nil {
		p.down = true
		delete(n.w.head.down, n.id)
	}
	if n.up != nil {
		n.up.down = true
	}
	for _, l := range n.w.sortedLinks() {
		if l.half[0].from == n || l.half[1].from == n {
			l.end()
		}
	}
	for _, key := range sorted(n.copies) {
		n.copies[key].orphan()
	}
}

func (n *node) since() time.Duration { return n.w.now.Sub(n.born) }

// member takes an event to the membership and carries its effects out.
func (n *node) member(ev member.Event) {
	if !n.alive {
		return
	}
	effs := append([]member.Effect(nil), n.mbr.Step(n.since(), ev)...)
	for _, eff := range effs {
		n.memberEffect(eff)
	}
	if at, ok := n.mbr.Next(); ok && (n.tickAt < 0 || at < n.tickAt || n.tickAt < n.since()) {
		n.tickAt = at
		n.w.after(at-n.since(), func() {
			if n.tickAt == at {
				n.tickAt = -1
				n.member(member.Tick{})
			}
		})
	}
}

func (n *node) toHead(m headstate.Message) {
	n.up.send(func() { n.w.head.step(headstate.Received{From: n.id, Msg: m}) })
}

func (n *node) fromHead(m headstate.Message) { n.member(member.Received{Msg: m}) }

func (n *node) memberEffect(eff member.Effect) {
	switch eff := eff.(type) {
	case member.Register:
		inv := headstate.Inventory{Cluster: eff.Cluster, Owner: eff.Owner, Jobs: sortedJobs(n.jobs)}
		for _, sid := range sorted(n.procs) {
			if p := n.procs[sid]; p.driver && p.alive {
				inv.Drivers = append(inv.Drivers, p.job)
			}
		}
		for _, no := range sorted(n.byNo) {
			if p := n.byNo[no]; !n.dead[p.id] {
				inv.Peers = append(inv.Peers, p.id)
			}
		}
		if n.eng != nil {
			inv.Actors = n.eng.Actors()
		}
		n.toHead(&headstate.Register{Node: headstate.NodeInfo{ID: n.id, Epoch: 1, IP: fmt.Sprintf("10.0.0.%d", n.index), Port: 1, Total: n.names.Map(n.total)}, Inventory: inv})
	case member.Send:
		n.toHead(eff.Msg)
	case member.Joined:
		if eff.First {
			n.join(eff.Registered)
			return
		}
		for _, j := range eff.EndedJobs {
			n.jobEnded(j)
		}
		for _, p := range eff.DeadPeers {
			n.peerDead(p, nil, "it was declared dead while this node could not reach the head")
		}
	case member.LeaseLost:
		if n.eng != nil {
			n.fences++
			n.fenced = true
			n.do(func(e *engine.Engine) { e.Fence(true) })
		}
	case member.LeaseBack:
		n.fenced = false
		if n.eng != nil {
			n.do(func(e *engine.Engine) { e.Fence(false) })
		}
	case member.Refused, member.Left:
		n.w.tracef("node %d ends: %T", n.index, eff)
		n.die()
	case member.Died:
		n.peerDead(eff.Node, eff.Owners, eff.Message)
	case member.JobEnded:
		n.jobEnded(eff.Job)
	case member.ActorChanged:
		row := eff.Row
		n.withNode(row, func(e *engine.Engine, no engine.NodeNo) { e.ActorChanged(&row, no) })
	case member.ActorDo:
		n.do(func(e *engine.Engine) { e.KillActor(eff.ID, eff.NoRestart) })
	case member.ActorAdopt:
		n.adopt(eff.Row, eff.Spec)
	case member.ViewPut:
		n.viewPut(eff.Node)
	case member.ViewDrop:
		if no := n.peers[eff.Node]; no != 0 {
			n.do(func(e *engine.Engine) { e.NodeViewDrop(no) })
		}
	case member.CallDone:
		f := n.calls[eff.Tag]
		delete(n.calls, eff.Tag)
		f(eff.Answer, eff.Err)
	}
}

// call asks the head.
func (n *node) call(c headstate.Call, f func(headstate.Answer, error)) {
	n.lastTag++
	n.calls[n.lastTag] = f
	n.member(member.Asked{Tag: n.lastTag, Call: c})
}

func (n *node) join(r *headstate.Registered) {
	w := n.w
	n.joined = true
	n.mem = memory.New(4*w.cfg.Capacity, w.cfg.Capacity)
	n.store.init(4 * w.cfg.Capacity)
	n.eng = engine.New(engine.Config{
		Node: n.id, Owner: r.Owner, Names: n.names, Total: n.total, Memory: n.mem, Inline: inlineMax,
		CPUs: n.cpus, Credit: w.cfg.Credit, IdleTime: time.Second, Seed: w.rng.Uint64(),
	}, n)
	n.member(member.Follow{On: w.cfg.Each == 0 || n.index < w.cfg.Drivers}) // who places nothing need not know the others
	n.do(func(e *engine.Engine) { e.Prestart(n.cpus) })
	w.joined(n)
}

func (n *node) jobEnded(j ids.Job) {
	if n.eng == nil {
		return
	}
	n.do(func(e *engine.Engine) { e.JobEnded(j) })
	delete(n.jobs, j)
}

func (n *node) knows(o *node) bool { return n.peers[o.id] != 0 && !n.dead[o.id] }

// peer is the number of another node, given when it is first heard of; 0 for a dead one.
func (n *node) peer(id ids.NodeID, owner ids.Owner) engine.NodeNo {
	if n.dead[id] || id == n.id || n.eng == nil {
		return 0
	}
	if no := n.peers[id]; no != 0 {
		return no
	}
	n.lastNo++
	no := n.lastNo
	n.peers[id], n.byNo[no] = no, n.w.byID[id]
	n.eng.PeerUp(no, id, owner)
	return no
}

func (n *node) viewPut(v headstate.NodeView) {
	if v.ID == n.id || n.eng == nil {
		return
	}
	n.do(func(e *engine.Engine) {
		no := n.peer(v.ID, v.Owner)
		if no == 0 {
			return
		}
		total, err1 := n.names.Set(v.Info.Total)
		avail := map[string]int64{}
		for k, q := range v.Available {
			if q > 0 {
				avail[k] = q
			}
		}
		free, err2 := n.names.Set(avail)
		if err1 != nil || err2 != nil {
			n.w.failf("view: %v %v", err1, err2)
			return
		}
		e.NodeView(no, total, free, nil, int(v.Queued))
	})
}

func (n *node) peerDead(id ids.NodeID, owners []ids.Owner, why string) {
	if n.eng == nil {
		n.dead[id] = true
		return
	}
	no := n.peers[id]
	if !n.dead[id] {
		n.w.tracef("node %d hears that node %d is dead", n.index, n.w.byID[id].index)
	}
	n.dead[id] = true
	delete(n.peers, id)
	if no != 0 {
		if l, _ := n.w.linkOf(n, n.w.byID[id]); l != nil {
			l.end()
		}
	}
	n.do(func(e *engine.Engine) {
		for _, o := range owners {
			e.OwnerDead(o, why)
		}
		if no != 0 {
			e.PeerGone(no, why)
			e.NodeViewDrop(no)
		}
	})
	delete(n.byNo, no)
}

// receive takes a message of another daemon.
func (n *node) receive(from *node, m engine.Msg) {
	no := n.peers[from.id]
	if !n.alive || no == 0 {
		return
	}
	n.w.hit()
	if n.w.trace != nil {
		n.w.tracef("node %d <- %d: %s", n.index, from.index, msgText(m))
	}
	n.do(func(e *engine.Engine) {
		t, ok := m.(*engine.TemplateMsg)
		if !ok {
			e.Receive(no, m)
			return
		}
		n.jobs[t.Job] = true
		e.PeerTemplate(no, t.No, n.w.specFor(n, string(t.Raw), t.Job))
	})
}

// msgText shows a message, without addresses: a seed's story is always the same.
func msgText(m engine.Msg) string {
	switch m := m.(type) {
	case *engine.TaskRun:
		c := *m
		c.Actor, c.Create = nil, nil
		s := fmt.Sprintf("%T %+v", m, c)
		if m.Actor != nil {
			s += fmt.Sprintf(" %+v", *m.Actor)
		}
		if m.Create != nil {
			s += fmt.Sprintf(" %+v", *m.Create)
		}
		return s
	case *engine.TaskDone:
		c := *m
		c.Up = nil
		s := fmt.Sprintf("%T %+v", m, c)
		if m.Up != nil {
			s += fmt.Sprintf(" pid %d %q", m.Up.PID, m.Up.Repr)
			if m.Up.Death != nil {
				s += fmt.Sprintf(" %+v", *m.Up.Death)
			}
		}
		return s
	}
	return fmt.Sprintf("%T %+v", m, m)
}

// do runs f on the engine as internal/node does: the time, events, Flush, then what sinks put off.
func (n *node) do(f func(e *engine.Engine)) {
	if !n.alive || n.eng == nil || n.w.fail != nil {
		return
	}
	n.eng.Advance(n.w.now)
	f(n.eng)
	n.eng.Flush()
	n.tick()
	later := n.later
	n.later = nil
	n.events++
	if n.events%n.w.cfg.Check == 0 {
		if err := n.eng.Check(); err != nil {
			n.w.failf("node %d: %v", n.index, err)
		}
	}
	for _, f := range later {
		f()
	}
}

func (n *node) tick() {
	if n.ticking || !n.eng.Busy() {
		return
	}
	n.ticking = true
	n.w.after(engine.TickEvery, func() {
		n.ticking = false
		n.do(func(e *engine.Engine) { e.Tick() })
	})
}

// errorValue is how a daemon's error looks in this world.
func errorValue(kind fault.Kind, text string) []byte {
	return append(append([]byte{4}, kind...), "\x00"+text...)
}
