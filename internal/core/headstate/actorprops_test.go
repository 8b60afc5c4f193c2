package headstate

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
)

func TestAThousandCreatorsOfOneName(t *testing.T) {
	for _, tc := range []struct{ exists, detached bool }{{true, false}, {false, false}, {true, true}, {false, true}} {
		w := actorWorld(t, Config{})
		created := map[ids.ActorID]int{}
		var winner ids.ActorID
		answers := 0
		count := func() {
			for _, e := range w.got {
				switch m := e.(Send).Msg.(type) {
				case *ActorRegistered:
					answers++
					created[m.Row.ID]++
					if m.Created {
						winner = m.Row.ID
					} else if !tc.exists {
						t.Fatal("told of another one without asking")
					}
				case *Failed:
					answers++
					if m.Fault != faultNameTaken || tc.exists {
						t.Fatalf("%+v", m)
					}
				}
			}
		}
		for i := range 1000 {
			n := byte(1 + i%3)
			row := named(arow(n, uint64(i+1), wait), "x")
			row.Detached = tc.detached
			w.say(n, &ActorRegister{Req: uint64(i), Row: row, GetIfExists: tc.exists})
			count()
			if i%100 == 99 {
				w.commit()
				count()
			}
		}
		want := map[ids.ActorID]int{winner: 1}
		if tc.exists {
			want[winner] = 1000
		}
		if answers != 1000 || !maps.Equal(created, want) {
			t.Errorf("%+v: %d answers, created %v", tc, answers, created)
		}
	}
}

// managerModel is a node of the property test, with the actors that it manages and what it knows of others.
type managerModel struct {
	up     bool
	linked bool // registered at the present head
	mine   map[ids.ActorID]actor.Row
	seen   map[ids.ActorID]actor.Row // watched
	calls  map[uint64]Call
	doomed map[ids.ActorID]bool // it was told to kill them; it takes its time
}

func TestActorsKeepTheirPromises(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := actorWorld(t, Config{MaxDeadActors: 3})
		nodes := map[byte]*managerModel{}
		for n := byte(1); n <= 3; n++ {
			nodes[n] = &managerModel{up: true, linked: true, mine: map[ids.ActorID]actor.Row{}, seen: map[ids.ActorID]actor.Row{}, calls: map[uint64]Call{}, doomed: map[ids.ActorID]bool{}}
		}
		last, req := uint64(0), uint64(1)
		deliver := func() {
			for _, e := range w.got {
				s, ok := e.(Send)
				if !ok {
					continue
				}
				n := nodes[s.To[0]]
				if n == nil || !n.up {
					continue
				}
				switch m := s.Msg.(type) {
				case *ActorChanged:
					if old, ok := n.seen[m.Row.ID]; ok {
						if old.State == gone && m.Row.State != gone { // an answer to an earlier watch may be the same
							rt.Fatalf("node %d hears of actor %s after its death", s.To[0], m.Row.ID)
						}
						n.seen[m.Row.ID] = m.Row
					}
				case *ActorDo:
					n.doomed[m.ID] = n.doomed[m.ID] || m.NoRestart
				case *ActorAdopt:
					if _, known := n.mine[m.Row.ID]; !known {
						r := m.Row
						r.State, r.Incarnation = again, r.Incarnation+1
						if m.Row.State == wait {
							r.State, r.Incarnation = wait, m.Row.Incarnation
						}
						n.mine[r.ID] = r
					}
				case *ActorRegistered:
					if n.calls[m.Req] == nil {
						rt.Fatalf("call %d is answered twice", m.Req)
					}
					if m.Created {
						n.mine[m.Row.ID] = m.Row
					}
					delete(n.calls, m.Req)
				case Answer:
					if n.calls[m.Number()] == nil {
						rt.Fatalf("call %d is answered twice", m.Number())
					}
					delete(n.calls, m.Number())
				}
			}
		}
		say := func(n byte, m Message) { w.say(n, m); deliver() }
		obey := func(n byte) {
			m := nodes[n]
			for _, id := range slices.SortedFunc(maps.Keys(m.mine), func(a, b ids.ActorID) int { return bytes.Compare(a[:], b[:]) }) {
				if r := m.mine[id]; m.doomed[id] {
					r.State, r.Death = gone, actor.Death{Cause: actor.Killed, Text: "killed"}
					delete(m.mine, id)
					say(n, &ActorUpdate{Row: r})
				}
			}
		}
		commit := func() { w.commit(); deliver() }
		back := func(n byte) {
			m := nodes[n]
			m.linked = true
			var rows []actor.Row
			for _, id := range slices.SortedFunc(maps.Keys(m.mine), func(a, b ids.ActorID) int { return bytes.Compare(a[:], b[:]) }) {
				rows = append(rows, m.mine[id])
			}
			w.back(n, rows...)
			deliver()
			for _, id := range slices.SortedFunc(maps.Keys(m.seen), func(a, b ids.ActorID) int { return bytes.Compare(a[:], b[:]) }) {
				if m.seen[id].State != gone {
					say(n, &ActorWatch{ID: id, On: true})
				}
			}
			for _, r := range slices.Sorted(maps.Keys(m.calls)) {
				say(n, m.calls[r])
			}
		}
		ask := func(n byte, c Call) {
			req++
			c = c.Numbered(req)
			nodes[n].calls[req] = c
			if nodes[n].linked {
				say(n, c)
			}
		}
		live := func(rt *rapid.T) byte {
			var up []byte
			for n := byte(1); n <= 3; n++ {
				if nodes[n].up {
					up = append(up, n)
				}
			}
			return rapid.SampledFrom(up).Draw(rt, "node")
		}
		any := func(rt *rapid.T) ids.ActorID {
			return aid(byte(rapid.IntRange(1, 3).Draw(rt, "maker")), rapid.Uint64Range(1, last+1).Draw(rt, "actor"))
		}
		rt.Repeat(map[string]func(*rapid.T){
			"": func(rt *rapid.T) {
				for id, row := range w.s.actors.names["ns"] {
					if row.row.Name != id || row.row.State == gone {
						rt.Fatalf("name %q is %+v", id, row.row)
					}
				}
			},
			"register": func(rt *rapid.T) {
				n := live(rt)
				last++
				row := named(arow(n, last, wait), rapid.SampledFrom([]string{"x", "y", ""}).Draw(rt, "name"))
				row.Detached = rapid.Bool().Draw(rt, "detached")
				ask(n, &ActorRegister{Row: row, GetIfExists: rapid.Bool().Draw(rt, "exists"), Spec: []byte("spec")})
			},
			"tell": func(rt *rapid.T) {
				n := live(rt)
				m := nodes[n]
				if len(m.mine) == 0 {
					last++
					r := arow(n, last, wait)
					m.mine[r.ID] = r
				}
				id := rapid.SampledFrom(slices.SortedFunc(maps.Keys(m.mine), func(a, b ids.ActorID) int { return bytes.Compare(a[:], b[:]) })).Draw(rt, "mine")
				r := m.mine[id]
				to := rapid.SampledFrom([]actor.State{wait, alive, again, gone}).Draw(rt, "to")
				if !r.State.CanGo(to) {
					to = r.State
				}
				if to == again {
					r.Incarnation++
				}
				r.State = to
				if to == gone {
					delete(m.mine, id)
					r.Death = actor.Death{Cause: actor.Killed, Text: "killed"}
				} else {
					m.mine[id] = r
				}
				if m.linked {
					say(n, &ActorUpdate{Row: r})
				}
			},
			"watch": func(rt *rapid.T) {
				n, id := live(rt), any(rt)
				if _, ok := nodes[n].seen[id]; ok {
					return
				}
				nodes[n].seen[id] = actor.Row{}
				if nodes[n].linked {
					say(n, &ActorWatch{ID: id, On: true})
				}
			},
			"unwatch": func(rt *rapid.T) {
				n, id := live(rt), any(rt)
				delete(nodes[n].seen, id)
				if nodes[n].linked {
					say(n, &ActorWatch{ID: id})
				}
			},
			"get":   func(rt *rapid.T) { ask(live(rt), &ActorGet{Name: "x", Namespace: "ns"}) },
			"kill":  func(rt *rapid.T) { ask(live(rt), &ActorKill{ID: any(rt), NoRestart: rapid.Bool().Draw(rt, "forever")}) },
			"names": func(rt *rapid.T) { ask(live(rt), &ActorNames{}) },
			"commit": func(*rapid.T) {
				commit()
			},
			"cut": func(rt *rapid.T) { // what is held for it is lost with the link in these worlds only if it is sent before it is back
				n := live(rt)
				commit()
				commit()
				back(n)
			},
			"die": func(rt *rapid.T) {
				n := live(rt)
				if n == 3 || !nodes[n].linked { // the job's driver is there
					return
				}
				say(n, &Leave{})
				nodes[n].up, nodes[n].linked = false, false
			},
			"crash": func(rt *rapid.T) {
				commit()
				commit()
				w.restart()
				for n := byte(1); n <= 3; n++ {
					nodes[n].linked = false
				}
				for n := byte(1); n <= 3; n++ {
					if nodes[n].up && rapid.Bool().Draw(rt, "soon") {
						back(n)
					}
				}
			},
			"back": func(*rapid.T) {
				for n := byte(1); n <= 3; n++ {
					if nodes[n].up && !nodes[n].linked {
						back(n)
					}
				}
			},
		})
		for n := byte(1); n <= 3; n++ {
			if nodes[n].up && !nodes[n].linked {
				back(n)
			}
		}
		for range 3 {
			commit()
		}
		for range 25 { // more than the time for which news are waited for
			w.now += 500 * time.Millisecond
			for n := byte(1); n <= 3; n++ {
				if nodes[n].up {
					say(n, &Lease{})
					obey(n)
				}
			}
			w.step(Tick{})
			deliver()
			commit()
		}
		for n, m := range nodes {
			if !m.up {
				continue
			}
			if len(m.calls) > 0 {
				rt.Fatalf("node %d still waits for %#v", n, slices.Collect(maps.Values(m.calls)))
			}
			for id, row := range m.seen {
				r := w.s.actors.byID[id]
				if r == nil && row.State != gone || r != nil && (r.row.State != row.State || r.row.Incarnation != row.Incarnation || r.row.Manager != row.Manager) {
					rt.Fatalf("node %d sees actor %s %s, the head has %+v", n, id, row.State, r)
				}
			}
			for id, row := range m.mine {
				if r := w.s.actors.byID[id]; r != nil && r.row.State != gone && r.row.Manager == nid(n) && !r.adopting && r.heard && r.row.State != row.State {
					rt.Fatalf("node %d says that actor %s is %s, the head %s", n, id, row.State, r.row.State)
				}
			}
		}
	})
}

// BenchmarkActor is the head's work for actors over 2,000 nodes, each registered with a name, watched, told alive and
// dead; 40,000 of them live at any time.
func BenchmarkActor(b *testing.B) {
	s, err := New(Config{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	const nodes, window = 2000, 40_000
	node := func(i int) ids.NodeID { return ids.NodeID{byte(i), byte(i >> 8), 1} }
	seq := uint64(0)
	step := func(from int, m Message) {
		for _, e := range s.Step(0, Received{node(from), m}) {
			if p, ok := e.(Persist); ok {
				seq = p.Seq
			}
		}
	}
	for i := range nodes {
		n := info(1)
		n.ID = node(i)
		step(i, &Register{Node: n})
		s.Step(0, Persisted{seq})
	}
	step(0, &JobStart{Req: 1, Key: [16]byte{1}})
	s.Step(0, Persisted{seq})
	job := ids.JobFromInt(1)
	row := func(i int, st actor.State) actor.Row {
		return actor.Row{
			ID: ids.MakeUnique(ids.Owner(1+i%nodes), uint64(i)).Actor(job), Job: job, Manager: node(i % nodes), Name: fmt.Sprint("actor", i),
			Namespace: "ns", Class: "C", State: st, Node: node((i + 7) % nodes), PID: 1, Meta: []byte("meta"),
		}
	}
	start := func(i int) {
		r := row(i, actor.Pending)
		step(i%nodes, &ActorRegister{Req: uint64(i), Row: r})
		step((i+1)%nodes, &ActorWatch{ID: r.ID, On: true})
		r.State = actor.Alive
		step(i%nodes, &ActorUpdate{Row: r})
	}
	for i := range window {
		start(i)
	}
	b.ReportAllocs()
	b.ResetTimer()
	i := window
	for b.Loop() {
		start(i)
		step((i-window)%nodes, &ActorUpdate{Row: row(i-window, actor.Dead)})
		i++
	}
	if live := len(s.actors.byID) - s.actors.dead.Len(); live != window {
		b.Fatalf("%d actors live", live)
	}
}
