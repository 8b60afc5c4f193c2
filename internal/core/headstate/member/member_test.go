package member_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"gray/internal/core/actor"
	"gray/internal/core/headstate"
	"gray/internal/core/headstate/member"
	"gray/internal/core/ids"
)

// script drives a State; it answers no message by itself.
type script struct {
	t   *testing.T
	s   *member.State
	now time.Duration
	got []string // effects of the last step
	all []string
}

func newScript(t *testing.T) *script {
	return &script{t: t, s: member.New(member.Config{Head: "h:1", MaxPending: 2})}
}

func (c *script) step(ev member.Event) *script {
	c.got = nil
	for _, e := range c.s.Step(c.now, ev) {
		c.got = append(c.got, text(e))
	}
	c.all = append(c.all, c.got...)
	return c
}

func (c *script) hear(m headstate.Message) *script { return c.step(member.Received{Msg: m}) }

// at goes to a time, with all the ticks that are asked for on the way.
func (c *script) at(to time.Duration) *script {
	for i := 0; ; i++ {
		next, ok := c.s.Next()
		if !ok || next > to {
			break
		}
		if i > 100_000 {
			c.t.Fatalf("more than 100,000 ticks up to %v, now %v", to, c.now)
		}
		c.now = max(c.now, next)
		c.step(member.Tick{})
	}
	c.now = to
	return c.step(member.Tick{})
}

func (c *script) joined() *script {
	return c.step(member.LinkUp{}).hear(&headstate.Registered{Cluster: headstate.ClusterID{1}, Owner: 3, LeaseMs: 1000, DeadMs: 10000})
}

func (c *script) ack(seq uint64) *script { return c.hear(&headstate.LeaseAck{Seq: seq}) }

func text(e member.Effect) string {
	switch e := e.(type) {
	case member.Send:
		switch m := e.Msg.(type) {
		case *headstate.Lease:
			return fmt.Sprintf("lease %d", m.Seq)
		case *headstate.ActorWatch:
			return fmt.Sprintf("watch %d %v", m.ID[0], m.On)
		case headstate.Call:
			return fmt.Sprintf("%T %d", m, m.Number())
		}
		return fmt.Sprintf("%T", e.Msg)
	case member.Register:
		return fmt.Sprintf("register owner %d", e.Owner)
	case member.CallDone:
		if e.Err != nil {
			return fmt.Sprintf("call %d: %v", e.Tag, e.Err)
		}
		return fmt.Sprintf("call %d: %T", e.Tag, e.Answer)
	case member.Note:
		return "note: " + e.Text
	case member.LeaseLost:
		return "LeaseLost: " + e.Why
	case member.ViewPut:
		return fmt.Sprintf("put %d %v", e.Node.ID[0], e.Node.Available)
	case member.ViewDrop:
		return fmt.Sprintf("drop %d", e.Node[0])
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", e), "member.")
}

func TestMembership(t *testing.T) {
	get := func(tag uint64) member.Asked {
		return member.Asked{Tag: tag, Call: &headstate.KVGet{}, Timeout: 5 * time.Second}
	}
	watch := func(n byte, on bool) member.ActorWatched { return member.ActorWatched{ID: ids.ActorID{n}, On: on} }
	sec := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	for _, tc := range []struct {
		name string
		do   func(c *script)
		want []string // of the last step
	}{
		{"a link: register", func(c *script) { c.step(member.LinkUp{}) }, []string{"register owner 0"}},
		{"registered: the lease is held and renewed", func(c *script) { c.joined() }, []string{"Joined", "LeaseBack", "lease 1"}},
		{"one renewal a second", func(c *script) { c.joined().at(sec(0.999)).at(sec(1)) }, nil},
		{"the lease ends 8 s after the last acknowledged renewal was sent", func(c *script) {
			c.joined().at(sec(1.5)).ack(2)
			c.at(sec(9) - 1)
		}, nil},
		{"not later", func(c *script) {
			c.joined().at(sec(1.5)).ack(2)
			c.at(sec(9) - 1)
			c.now = sec(9)
			c.step(member.Tick{})
		}, []string{
			"note: the head at h:1 acknowledged no renewal of the lease for 8.0 s: workers are stopped, their tasks are run again later or elsewhere",
			"LeaseLost: the head at h:1 acknowledged no renewal of the lease for 8.0 s", "lease 10",
		}},
		{"a late acknowledgement does not bring it back", func(c *script) { c.joined().at(sec(20)).ack(2) }, []string{"note: the head at h:1 is back"}},
		{"a timely one does", func(c *script) { c.joined().at(sec(20)).ack(14) }, []string{"note: the head at h:1 is back", "LeaseBack"}},
		{"a head that is down takes no leases", func(c *script) {
			c.joined().step(member.LinkDown{Cause: "reset"})
			for s := 1.0; s < 300; s++ {
				c.at(sec(s)).step(member.HeadAbsent{})
			}
			if c.s.Phase() != member.Away || !c.s.HasLease() {
				c.t.Errorf("phase %s, lease %v", c.s.Phase(), c.s.HasLease())
			}
		}, nil},
		{"unless that is found out too late", func(c *script) {
			c.joined().step(member.LinkDown{Cause: "reset"}).at(sec(8)).step(member.HeadAbsent{})
			if c.s.HasLease() {
				c.t.Error("it has the lease")
			}
		}, nil},
		{"a new link: register with what is held", func(c *script) {
			c.joined().step(member.LinkDown{Cause: "reset"}).step(member.LinkUp{})
		}, []string{"register owner 3"}},
		{"a head that has forgotten us", func(c *script) { c.joined().hear(&headstate.RegisterAgain{}) }, []string{"register owner 3"}},
		{"and says so twice", func(c *script) {
			c.joined().hear(&headstate.RegisterAgain{}).hear(&headstate.RegisterAgain{})
		}, nil},
		{"calls wait for the registration", func(c *script) { c.step(get(7)) }, nil},
		{"and are sent then, again on each link", func(c *script) {
			c.step(get(7)).joined().step(member.LinkDown{}).joined()
		}, []string{"Joined", "*headstate.KVGet 1", "lease 2"}},
		{"an answer", func(c *script) {
			c.joined().step(get(7)).hear(&headstate.KVValue{Req: 1})
		}, []string{"call 7: *headstate.KVValue"}},
		{"is told once", func(c *script) {
			c.joined().step(get(7)).hear(&headstate.KVValue{Req: 1}).hear(&headstate.KVValue{Req: 1})
		}, nil},
		{"a failure", func(c *script) {
			c.joined().step(get(7)).hear(&headstate.Failed{Req: 1, Fault: "limit", Error: "too much"})
		}, []string{"call 7: head.KVGet h:1: too much"}},
		{"a cancelled call", func(c *script) {
			c.joined().step(get(7)).step(member.Cancelled{Tag: 7}).hear(&headstate.KVValue{Req: 1})
		}, nil},
		{"no answer in time", func(c *script) {
			c.joined().at(sec(1)).step(get(7))
			c.now = sec(6)
			c.step(member.Tick{})
			c.got = c.got[len(c.got)-1:]
		}, []string{"call 7: head.KVGet h:1: the head did not answer within 5.0 s; check that the head runs (ray status) and that its address can be reached from here"}},
		{"given up sooner without a head", func(c *script) {
			c.joined().at(sec(1)).step(member.Asked{Tag: 7, Call: &headstate.KVGet{NS: "n", Key: "k"}, Timeout: 30 * time.Second})
			c.at(sec(2)).step(member.LinkDown{Cause: "reset"}).at(sec(6) - 1)
			c.now = sec(6)
			c.step(member.Tick{})
			c.got = c.got[len(c.got)-1:]
		}, []string{"call 7: head.KVGet h:1: the head is unreachable (reset) within 5.0 s; check that the head runs (ray status) and that its address can be reached from here"}},
		{"no link in time", func(c *script) {
			c.step(get(7)).step(member.LinkDown{Cause: "no route"})
			c.now = sec(5)
			c.step(member.Tick{})
			c.got = c.got[len(c.got)-1:]
		}, []string{"call 7: head.KVGet h:1: the head is unreachable (no route) within 5.0 s; check that the head runs (ray status) and that its address can be reached from here"}},
		{"too many calls", func(c *script) {
			c.step(get(1)).step(get(2)).step(get(3))
		}, []string{"call 3: head.KVGet h:1: 2 calls wait for the head already, the limit; try again later"}},
		{"an unreachable head is told after 3 s and then each minute", func(c *script) {
			c.step(member.LinkDown{Cause: "no route"}).at(sec(130))
			c.got = c.all
		}, []string{
			"note: the head at h:1 is unreachable, silent for 3 s (no route); still trying",
			"note: the head at h:1 is unreachable, silent for 63 s (no route); still trying",
			"note: the head at h:1 is unreachable, silent for 123 s (no route); still trying",
		}},
		{"reports are coalesced", func(c *script) {
			c.joined()
			c.all = nil
			for range 10 {
				c.now += 10 * time.Millisecond
				c.step(member.Loaded{Report: &headstate.Report{}})
			}
			c.at(sec(0.9))
			c.got = c.all
		}, []string{"*headstate.Report", "*headstate.Report"}},
		{"the last report and the wish for the view are told to each head", func(c *script) {
			c.joined().step(member.Loaded{Report: &headstate.Report{}}).step(member.Follow{On: true})
			c.step(member.LinkDown{}).joined()
		}, []string{"Joined", "*headstate.Subscribe", "lease 2", "*headstate.Report"}},
		{"news of an actor", func(c *script) {
			c.joined().step(member.ActorTold{Row: actor.Row{ID: ids.ActorID{1}}})
		}, []string{"*headstate.ActorUpdate"}},
		{"are lost without a head: the inventory has them", func(c *script) {
			c.joined().step(member.LinkDown{}).step(member.ActorTold{Row: actor.Row{ID: ids.ActorID{1}}})
			c.joined()
		}, []string{"Joined", "lease 2"}},
		{"but not those that came after it", func(c *script) {
			c.joined().step(member.LinkDown{}).step(member.LinkUp{})
			for _, st := range []actor.State{actor.Alive, actor.Dead} {
				c.step(member.ActorTold{Row: actor.Row{ID: ids.ActorID{1}, State: st}})
			}
			c.hear(&headstate.Registered{Cluster: headstate.ClusterID{1}, Owner: 3, LeaseMs: 1000, DeadMs: 10000})
		}, []string{"Joined", "*headstate.ActorUpdate", "lease 2"}},
		{"watches are told to each head, once", func(c *script) {
			c.step(watch(2, true)).joined().step(watch(1, true)).step(watch(1, true))
			c.step(member.LinkDown{}).step(watch(3, true)).step(watch(2, false)).joined()
		}, []string{"Joined", "watch 1 true", "watch 3 true", "lease 2"}},
		{"no longer", func(c *script) { c.joined().step(watch(1, true)).step(watch(1, false)) }, []string{"watch 1 false"}},
		{"a change of an actor", func(c *script) {
			c.joined().step(watch(1, true)).hear(&headstate.ActorChanged{Row: actor.Row{ID: ids.ActorID{1}, State: actor.Alive}})
		}, []string{"ActorChanged"}},
		{"a death ends the watch", func(c *script) {
			c.joined().step(watch(1, true)).hear(&headstate.ActorChanged{Row: actor.Row{ID: ids.ActorID{1}, State: actor.Dead}})
			c.step(member.LinkDown{}).joined()
		}, []string{"Joined", "lease 2"}},
		{"what a manager must do", func(c *script) {
			c.joined().hear(&headstate.ActorDo{}).hear(&headstate.ActorAdopt{})
			c.got = c.all[len(c.all)-2:]
		}, []string{"ActorDo", "ActorAdopt"}},
		{"refused", func(c *script) {
			c.joined().step(get(7)).hear(&headstate.Refused{Reason: headstate.RefusedFenced, Error: "dead"})
		}, []string{
			"note: the head at h:1 refuses this daemon: dead", "LeaseLost: the head at h:1 refuses this daemon: dead", "Refused",
			"call 7: head.KVGet " + ids.NodeID{}.String() + ": this daemon is no longer a member of the cluster",
		}},
		{"refused is final", func(c *script) {
			c.joined().hear(&headstate.Refused{}).step(member.LinkUp{}).at(sec(100)).step(get(8))
		}, []string{"call 8: head.KVGet " + ids.NodeID{}.String() + ": this daemon is no longer a member of the cluster"}},
		{"a leave is told again on a new link", func(c *script) {
			c.joined().step(member.Leaving{}).step(member.LinkDown{}).joined()
		}, []string{"Joined", "*headstate.Leave", "lease 2"}},
		{"left", func(c *script) {
			c.joined().step(member.Leaving{}).hear(&headstate.Left{})
		}, []string{"Left"}},
		{"a dead node leaves the view", func(c *script) {
			c.followed().hear(&headstate.NodeDead{Node: ids.NodeID{1}})
		}, []string{"drop 1", "Died"}},
		{"a delta", func(c *script) {
			c.followed().hear(&headstate.Delta{
				From: 4, Version: 5, Changed: []headstate.NodeView{{ID: ids.NodeID{2}, Available: headstate.Resources{"CPU": 1}}},
				Gone: []ids.NodeID{{1}, {9}},
			})
		}, []string{"put 2 map[CPU:1]", "drop 1", "*headstate.ViewAck"}},
		{"a delta that does not follow", func(c *script) {
			c.followed().hear(&headstate.Delta{From: 5, Version: 6})
		}, []string{"note: the head at h:1 sent a delta that does not follow the last one; the view is fetched anew", "*headstate.Subscribe"}},
		{"a snapshot replaces", func(c *script) {
			c.followed().hear(&headstate.Snapshot{Version: 9, Nodes: []headstate.NodeView{{ID: ids.NodeID{2}, Info: &headstate.NodeInfo{}}}})
		}, []string{"drop 1", "put 2 map[]", "*headstate.ViewAck"}},
		{"a view that is no longer wanted", func(c *script) {
			c.followed().step(member.Follow{}).hear(&headstate.Delta{From: 4, Version: 5})
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newScript(t)
			tc.do(c)
			if !reflect.DeepEqual(c.got, tc.want) {
				t.Errorf("effects:\n  %s\nwant:\n  %s", strings.Join(c.got, "\n  "), strings.Join(tc.want, "\n  "))
			}
		})
	}
}

func (c *script) followed() *script {
	return c.joined().step(member.Follow{On: true}).hear(&headstate.Snapshot{Version: 4, Nodes: []headstate.NodeView{
		{ID: ids.NodeID{1}, Info: &headstate.NodeInfo{}}, {ID: ids.NodeID{2}, Info: &headstate.NodeInfo{}},
	}})
}
