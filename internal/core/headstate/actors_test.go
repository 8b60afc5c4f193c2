package headstate

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
)

// aid is the k-th actor that node n makes, of job 1.
func aid(n byte, k uint64) ids.ActorID {
	return ids.MakeUnique(ids.Owner(n), k).Actor(ids.JobFromInt(1))
}

// arow is that actor as its manager tells of it.
func arow(n byte, k uint64, st actor.State) actor.Row {
	return actor.Row{ID: aid(n, k), Job: ids.JobFromInt(1), Manager: nid(n), Class: "C", State: st}
}

func named(r actor.Row, name string) actor.Row { r.Name, r.Namespace = name, "ns"; return r }

func detached(r actor.Row, name string) actor.Row { r = named(r, name); r.Detached = true; return r }

// actorWorld is a head with nodes 1, 2 and 3, whose owner numbers are the same, and a job of node 3.
func actorWorld(t *testing.T, cfg Config) *world {
	w := newWorld(t, cfg)
	w.join(1, 2, 3)
	w.say(3, &JobStart{Req: 1, Key: [16]byte{1}})
	w.commit()
	return w
}

// back registers a node again, as after a broken link.
func (w *world) back(n byte, rows ...actor.Row) {
	w.t.Helper()
	inv := Inventory{Cluster: ClusterID{1}, Owner: ids.Owner(n), Actors: rows}
	if n == 3 {
		inv.Drivers = []ids.Job{ids.JobFromInt(1)}
	}
	w.say(n, &Register{Node: info(n), Inventory: inv})
}

// told is the ActorChanged that a step sent to a node about an actor, or nil.
func (w *world) told(n byte, id ids.ActorID) *actor.Row {
	w.t.Helper()
	var row *actor.Row
	for _, e := range w.got {
		s, ok := e.(Send)
		if !ok || s.To != nid(n) {
			continue
		}
		if m, ok := s.Msg.(*ActorChanged); ok && m.Row.ID == id {
			if row != nil {
				w.t.Fatalf("told twice in a step:\n%s", show(w.got))
			}
			row = &m.Row
		}
	}
	return row
}

// brief is a step's effects in short.
func (w *world) brief() []string {
	var out []string
	state := func(r actor.Row) string {
		s := fmt.Sprintf("%d/%d %s", r.ID.Unique().Owner(), r.ID.Unique().Counter(), r.State)
		if r.Death.Cause != "" {
			s += " " + string(r.Death.Cause)
		}
		return s
	}
	for _, e := range w.got {
		s, ok := e.(Send)
		if !ok {
			out = append(out, fmt.Sprintf("%T", e))
			continue
		}
		text := strings.TrimPrefix(fmt.Sprintf("%T", s.Msg), "*headstate.")
		switch m := s.Msg.(type) {
		case *ActorRegistered:
			text = fmt.Sprintf("created %v %s", m.Created, state(m.Row))
		case *ActorChanged:
			text = state(m.Row)
		case *ActorGot:
			text = "no such actor"
			if m.Found {
				text = "got " + state(m.Row)
			}
		case *ActorDo:
			text = fmt.Sprintf("kill %d/%d %v", m.ID.Unique().Owner(), m.ID.Unique().Counter(), m.NoRestart)
		case *ActorAdopt:
			text = fmt.Sprintf("adopt %s %s", state(m.Row), m.Spec)
		case *Failed:
			text = m.Fault
		case *ActorNameList:
			text = fmt.Sprint("names ", m.Names)
		case *JobEnded:
			text = "job ended " + m.Job.String()
		}
		out = append(out, fmt.Sprintf("%d: %s", s.To[0], text))
	}
	return out
}

// checkActors holds the actor table against its indexes.
func (s *State) checkActors(t *testing.T) {
	t.Helper()
	tab := &s.actors
	if len(tab.changed) > 0 {
		t.Fatalf("%d rows were not told of", len(tab.changed))
	}
	names, dead, restored := 0, 0, 0
	for _, of := range tab.names {
		names += len(of)
		if len(of) == 0 {
			t.Fatal("an empty namespace is kept")
		}
	}
	for id, r := range tab.byID {
		if r.row.ID != id || r.dirty {
			t.Fatalf("actor %s stands for %s, dirty %v", id, r.row.ID, r.dirty)
		}
		n := s.nodes[r.row.Manager]
		if r.row.State == actor.Dead {
			dead++
			if r.row.EndMs == 0 && s.cfg.StartMs > 0 || r.row.Meta != nil || r.spec != nil || r.inDead == nil || tab.watched[id] != nil {
				t.Fatalf("the dead actor %s is kept as if it lived: %+v", id, r)
			}
			continue
		}
		if tab.named(r.row.Namespace, r.row.Name) == r {
			names--
		}
		_, orphan := tab.orphans[id]
		if orphan != (n == nil || n.state == Dead) || !orphan && n.managed[id] != r {
			t.Fatalf("actor %s: orphan %v, manager %s", id, orphan, r.row.Manager)
		}
		if r.row.Detached {
			if j := s.jobs[r.row.Job]; j == nil || !j.row.Virtual || j.row.State != JobRunning {
				t.Fatalf("the detached actor %s has no job of its own", id)
			}
		} else if tab.byJob[r.row.Job][id] != r || s.jobOver(r.row.Job) {
			t.Fatalf("actor %s is not in its job, or that is over", id)
		}
	}
	if names != 0 || dead != tab.dead.Len() || dead > s.cfg.MaxDeadActors {
		t.Fatalf("%d names of nobody; %d dead, %d listed, limit %d", names, dead, tab.dead.Len(), s.cfg.MaxDeadActors)
	}
	for id, w := range tab.watched {
		if len(w.by) == 0 || (w.elem != nil) != (tab.byID[id] == nil) {
			t.Fatalf("actor %s is watched by %d, unknown %v", id, len(w.by), w.elem != nil)
		}
		for _, n := range w.by {
			if n.watches[id] != w || n.state != Alive {
				t.Fatalf("actor %s is watched by %s, which is %s", id, n.id(), n.state)
			}
		}
	}
	managed, ofJobs := 0, 0
	for _, n := range s.nodes {
		managed += len(n.managed)
		if n.state == Restored {
			restored++
		}
		if n.state == Dead && len(n.managed)+len(n.watches) > 0 {
			t.Fatalf("dead node %s manages %d actors and watches %d", n.id(), len(n.managed), len(n.watches))
		}
	}
	for _, of := range tab.byJob {
		ofJobs += len(of)
	}
	if live := len(tab.byID) - dead; managed+len(tab.orphans) != live || ofJobs > live {
		t.Fatalf("%d live actors, %d managed, %d orphans, %d of jobs", live, managed, len(tab.orphans), ofJobs)
	}
	if restored != s.restored || restored == 0 && len(tab.parked) > 0 {
		t.Fatalf("%d nodes are RESTORED, counted %d; %d calls parked", restored, s.restored, len(tab.parked))
	}
}

const (
	alive = actor.Alive
	gone  = actor.Dead
	wait  = actor.Pending
	again = actor.Restarting
)

func TestActors(t *testing.T) {
	job := ids.JobFromInt(1)
	reg := func(req uint64, row actor.Row) *ActorRegister {
		return &ActorRegister{Req: req, Row: row, Spec: []byte("spec")}
	}
	up := func(row actor.Row) *ActorUpdate { return &ActorUpdate{Row: row} }
	watch := func(id ids.ActorID) *ActorWatch { return &ActorWatch{ID: id, On: true} }
	inc := func(row actor.Row, n uint32) actor.Row { row.Incarnation = n; return row }
	died := func(row actor.Row, c actor.Cause) actor.Row {
		row.State, row.Death = gone, actor.Death{Cause: c, Text: "it died"}
		return row
	}
	x := named(arow(1, 1, wait), "x")
	det := detached(arow(1, 1, wait), "d")
	for _, tc := range []struct {
		name string
		do   func(w *world)
		want []string // of the last step
	}{
		{"a named actor is registered at once", func(w *world) { w.say(1, reg(5, x)) }, []string{"1: created true 1/1 PENDING_CREATION"}},
		{"again: the same", func(w *world) { w.say(1, reg(5, x)); w.say(1, reg(5, x)) }, []string{"1: created true 1/1 PENDING_CREATION"}},
		{"by another node", func(w *world) { w.say(1, reg(5, x)); w.say(2, reg(5, x)) }, []string{"2: SYSTEM"}},
		{"of a job that has ended", func(w *world) {
			w.say(3, &JobEnd{Req: 9, Job: job})
			w.commit()
			w.say(1, reg(5, x))
		}, []string{"1: SYSTEM"}},
		{"a name is taken", func(w *world) {
			w.say(1, reg(5, x))
			w.say(2, reg(6, named(arow(2, 1, wait), "x")))
			if f := w.got[0].(Send).Msg.(*Failed); f.Error != "The name x (namespace=ns) is already taken. Please use a different name or get the existing actor using ray.get_actor('x', namespace='ns')" {
				w.t.Error(f.Error)
			}
		}, []string{"2: NAME_TAKEN"}},
		{"but not in another namespace", func(w *world) {
			w.say(1, reg(5, x))
			o := named(arow(2, 1, wait), "x")
			o.Namespace = "other"
			w.say(2, reg(6, o))
		}, []string{"2: created true 2/1 PENDING_CREATION"}},
		{"the one that has it will do", func(w *world) {
			w.say(1, reg(5, x))
			w.say(2, &ActorRegister{Req: 6, Row: named(arow(2, 1, wait), "x"), GetIfExists: true})
		}, []string{"2: created false 1/1 PENDING_CREATION"}},
		{"a restarting one keeps it", func(w *world) {
			w.say(1, reg(5, x))
			w.say(1, up(named(arow(1, 1, alive), "x")))
			w.say(1, up(named(arow(1, 1, again), "x")))
			w.say(2, reg(6, named(arow(2, 1, wait), "x")))
		}, []string{"2: NAME_TAKEN"}},
		{"a dead one does not", func(w *world) {
			w.say(1, reg(5, x))
			w.say(1, up(died(x, actor.Killed)))
			w.say(2, reg(6, named(arow(2, 1, wait), "x")))
		}, []string{"2: created true 2/1 PENDING_CREATION"}},
		{"a name freed by a death that is not safe", func(w *world) {
			w.say(1, reg(5, x))
			w.say(1, &Leave{})
			w.say(2, reg(6, named(arow(2, 1, wait), "x")))
		}, nil},
		{"is given when it is", func(w *world) {
			w.say(1, reg(5, x))
			w.say(1, &Leave{})
			w.say(2, reg(6, named(arow(2, 1, wait), "x")))
			w.commit()
		}, []string{"2: NodeDead", "3: NodeDead", "1: Left", "2: created true 2/1 PENDING_CREATION"}},
		{"names are listed", func(w *world) {
			w.say(1, reg(5, x))
			w.say(2, reg(6, named(arow(2, 1, wait), "b")))
			w.say(2, reg(7, named(arow(2, 2, wait), "c")))
			w.say(2, up(died(arow(2, 2, wait), actor.Killed)))
			w.say(2, &ActorNames{Req: 8})
		}, []string{"2: names [[ns b] [ns x]]"}},
		{"of one namespace", func(w *world) {
			w.say(1, reg(5, x))
			w.say(2, &ActorNames{Req: 8, Namespace: "other"})
		}, []string{"2: names []"}},
		{"found by name", func(w *world) {
			w.say(1, reg(5, x))
			w.say(2, &ActorGet{Req: 8, Name: "x", Namespace: "ns"})
		}, []string{"2: got 1/1 PENDING_CREATION"}},
		{"not when it is dead", func(w *world) {
			w.say(1, reg(5, x))
			w.say(1, up(died(x, actor.Killed)))
			w.say(2, &ActorGet{Req: 8, Name: "x", Namespace: "ns"})
		}, []string{"2: no such actor"}},
		{"but by id", func(w *world) {
			w.say(1, reg(5, x))
			w.say(1, up(died(x, actor.Killed)))
			w.say(2, &ActorGet{Req: 8, ID: x.ID})
		}, []string{"2: got 1/1 DEAD KILLED"}},

		{"first news of an actor without a name", func(w *world) {
			w.say(1, up(arow(1, 2, alive)))
			w.say(2, watch(aid(1, 2)))
		}, []string{"2: 1/2 ALIVE"}},
		{"who watches is told", func(w *world) {
			w.say(1, up(arow(1, 2, wait)))
			w.say(2, watch(aid(1, 2)))
			w.say(3, watch(aid(1, 2)))
			w.say(1, up(arow(1, 2, alive)))
		}, []string{"2: 1/2 ALIVE", "3: 1/2 ALIVE"}},
		{"not when nothing changed", func(w *world) {
			w.say(1, up(arow(1, 2, alive)))
			w.say(2, watch(aid(1, 2)))
			w.say(1, up(arow(1, 2, alive)))
		}, nil},
		{"not any more", func(w *world) {
			w.say(1, up(arow(1, 2, wait)))
			w.say(2, watch(aid(1, 2)))
			w.say(2, &ActorWatch{ID: aid(1, 2)})
			w.say(1, up(arow(1, 2, alive)))
		}, nil},
		{"of a death, once", func(w *world) {
			w.say(1, up(arow(1, 2, wait)))
			w.say(2, watch(aid(1, 2)))
			w.say(1, up(died(arow(1, 2, alive), actor.WorkerDied)))
		}, []string{"2: 1/2 DEAD WORKER_DIED"}},
		{"a dead one is told and not watched", func(w *world) {
			w.say(1, up(died(arow(1, 2, alive), actor.WorkerDied)))
			w.say(2, watch(aid(1, 2)))
		}, []string{"2: 1/2 DEAD WORKER_DIED"}},
		{"news by another node", func(w *world) {
			w.say(1, up(arow(1, 2, wait)))
			w.say(2, watch(aid(1, 2)))
			w.say(2, up(arow(1, 2, alive)))
			if !strings.Contains(strings.Join(w.notes, "\n"), "which node "+nid(1).String()+" manages; it is ignored") {
				w.t.Errorf("notes: %q", w.notes)
			}
		}, nil},
		{"news of no state", func(w *world) { w.say(1, up(arow(1, 2, "WHAT"))); w.say(2, &ActorGet{Req: 1, ID: aid(1, 2)}) }, []string{"2: no such actor"}},
		{"a step that can't be", func(w *world) {
			w.say(1, up(arow(1, 2, alive)))
			w.say(1, up(arow(1, 2, wait)))
			w.say(2, watch(aid(1, 2)))
		}, []string{"2: 1/2 ALIVE"}},
		{"an older incarnation", func(w *world) {
			w.say(1, up(inc(arow(1, 2, alive), 2)))
			w.say(1, up(inc(arow(1, 2, again), 1)))
			w.say(2, watch(aid(1, 2)))
		}, []string{"2: 1/2 ALIVE"}},
		{"a newer one, whose restart was not heard of", func(w *world) {
			w.say(1, up(arow(1, 2, alive)))
			w.say(2, watch(aid(1, 2)))
			w.say(1, up(inc(arow(1, 2, alive), 1)))
		}, []string{"2: 1/2 ALIVE"}},
		{"one that never lived is tried again", func(w *world) {
			w.say(1, up(arow(1, 2, wait)))
			w.say(2, watch(aid(1, 2)))
			w.say(1, up(inc(arow(1, 2, wait), 1)))
		}, []string{"2: 1/2 PENDING_CREATION"}},
		{"one that lived is not as if it had not", func(w *world) {
			w.say(1, up(arow(1, 2, alive)))
			w.say(2, watch(aid(1, 2)))
			w.say(1, up(inc(arow(1, 2, wait), 1)))
		}, nil},
		{"after death nothing comes", func(w *world) {
			w.say(1, up(died(arow(1, 2, alive), actor.WorkerDied)))
			w.say(1, up(inc(arow(1, 2, alive), 3)))
			w.say(2, watch(aid(1, 2)))
		}, []string{"2: 1/2 DEAD WORKER_DIED"}},
		{"an unknown actor of a dead node", func(w *world) {
			w.say(1, &Leave{})
			w.commit()
			w.say(2, watch(aid(1, 7)))
			if r := w.told(2, aid(1, 7)); r.Death.Text != "The actor is dead because its owner has died. Owner Id: "+nid(1).String() {
				w.t.Error(r.Death.Text)
			}
		}, []string{"2: 1/7 DEAD OWNER_DIED"}},
		{"an unknown actor of a node that lives: its news may be on their way", func(w *world) { w.say(2, watch(aid(1, 7))) }, nil},
		{"they come", func(w *world) { w.say(2, watch(aid(1, 7))); w.say(1, up(arow(1, 7, alive))) }, []string{"2: 1/7 ALIVE"}},
		{"they don't", func(w *world) {
			w.say(2, watch(aid(1, 7)))
			w.pass(9500*time.Millisecond, 1, 2, 3)
			w.now += 500 * time.Millisecond
			w.step(Tick{})
		}, []string{"2: 1/7 DEAD OWNER_DIED"}},
		{"they can't any more", func(w *world) {
			w.say(2, watch(aid(1, 7)))
			w.say(1, &Leave{})
			w.commit()
		}, []string{"2: NodeDead", "3: NodeDead", "1: Left", "2: 1/7 DEAD OWNER_DIED"}},

		{"a kill goes to the manager", func(w *world) {
			w.say(1, up(arow(1, 2, alive)))
			w.say(2, &ActorKill{Req: 4, ID: aid(1, 2), NoRestart: true})
		}, []string{"1: kill 1/2 true", "2: Done"}},
		{"of a dead actor", func(w *world) {
			w.say(1, up(died(arow(1, 2, alive), actor.WorkerDied)))
			w.say(2, &ActorKill{Req: 4, ID: aid(1, 2), NoRestart: true})
		}, []string{"2: Done"}},
		{"of one that the head has not heard of: to its maker", func(w *world) { w.say(2, &ActorKill{Req: 4, ID: aid(1, 2)}) }, []string{"1: kill 1/2 false", "2: Done"}},
		{"of one of a stranger", func(w *world) { w.say(2, &ActorKill{Req: 4, ID: aid(9, 2)}) }, []string{"2: Done"}},
		{"a kill is told again on a new link", func(w *world) {
			w.say(1, up(arow(1, 2, alive)))
			w.say(2, &ActorKill{Req: 4, ID: aid(1, 2), NoRestart: true})
			w.back(1, arow(1, 2, alive))
		}, []string{"1: Registered", "1: kill 1/2 true"}},
		{"unless it is done", func(w *world) {
			w.say(1, up(arow(1, 2, alive)))
			w.say(2, &ActorKill{Req: 4, ID: aid(1, 2)})
			w.back(1, inc(arow(1, 2, again), 1))
		}, []string{"1: Registered"}},

		{"actors die with their manager", func(w *world) {
			w.say(1, up(arow(1, 2, alive)))
			w.say(2, watch(aid(1, 2)))
			w.say(1, &Leave{})
			w.commit()
		}, []string{"2: NodeDead", "3: NodeDead", "1: Left", "2: 1/2 DEAD OWNER_DIED"}},
		{"not with their host", func(w *world) {
			r := arow(1, 2, alive)
			r.Node = nid(2)
			w.say(1, up(r))
			w.say(2, &Leave{})
			w.commit()
			w.say(3, watch(aid(1, 2)))
		}, []string{"3: 1/2 ALIVE"}},
		{"and with their job", func(w *world) {
			w.say(1, up(arow(1, 2, alive)))
			w.say(2, watch(aid(1, 2)))
			w.say(3, &JobEnd{Req: 9, Job: job})
			w.commit()
		}, []string{"1: job ended 01000000", "2: job ended 01000000", "3: job ended 01000000", "3: Done", "2: 1/2 DEAD OWNER_DIED"}},
		{"also those that are heard of later", func(w *world) {
			w.say(3, &JobEnd{Req: 9, Job: job})
			w.commit()
			w.say(1, up(arow(1, 2, alive)))
			w.say(2, watch(aid(1, 2)))
		}, []string{"2: 1/2 DEAD OWNER_DIED"}},

		{"a detached actor is registered when it is safe", func(w *world) { w.say(1, reg(5, det)) }, nil},
		{"then", func(w *world) {
			w.say(1, reg(5, det))
			w.commit()
			if m := w.got[0].(Send).Msg.(*ActorRegistered); m.Row.Job != ids.JobFromInt(2) || m.Row.ID != det.ID {
				w.t.Errorf("row %+v", m.Row)
			}
			if rows := w.s.JobRows(); len(rows) != 1 {
				w.t.Errorf("jobs %+v", rows)
			}
		}, []string{"1: created true 1/1 PENDING_CREATION"}},
		{"twice before that: twice the same", func(w *world) {
			w.say(1, reg(5, det))
			w.say(1, reg(5, det))
			w.commit()
		}, []string{"1: created true 1/1 PENDING_CREATION", "1: created true 1/1 PENDING_CREATION"}},
		{"nobody is told of it before", func(w *world) {
			w.say(1, reg(5, det))
			w.say(2, reg(6, named(arow(2, 1, wait), "d")))
			w.say(2, &ActorGet{Req: 7, Name: "d", Namespace: "ns"})
		}, nil},
		{"a crash before: as if it had not been", func(w *world) {
			w.say(1, reg(5, det))
			w.restart()
			w.back(1)
			w.back(2)
			w.back(3)
			w.say(2, reg(6, named(arow(2, 1, wait), "d")))
		}, []string{"2: created true 2/1 PENDING_CREATION"}},
		{"its job outlives the one that made it", func(w *world) {
			w.say(1, reg(5, det))
			w.say(2, watch(det.ID))
			w.say(3, &JobEnd{Req: 9, Job: job})
			w.commit()
			w.say(2, &ActorGet{Req: 1, ID: det.ID})
		}, []string{"2: got 1/1 PENDING_CREATION"}},
		{"and ends with it", func(w *world) {
			w.say(1, reg(5, det))
			w.commit()
			w.say(1, up(died(det, actor.Killed)))
			w.commit()
			if n := len(w.s.jobs); n != 1 {
				w.t.Errorf("%d jobs", n)
			}
		}, []string{"1: job ended 02000000", "2: job ended 02000000", "3: job ended 02000000"}},
		{"nobody else ends it", func(w *world) {
			w.say(1, reg(5, det))
			w.commit()
			w.say(2, &JobEnd{Req: 9, Job: ids.JobFromInt(2)})
		}, []string{"2: SYSTEM"}},
		{"actors that it made die with it", func(w *world) {
			w.say(1, reg(5, det))
			w.commit()
			child := arow(2, 4, alive)
			child.Job = ids.JobFromInt(2)
			w.say(2, up(child))
			w.say(1, up(died(det, actor.Killed)))
			w.commit()
			w.say(3, watch(child.ID))
		}, []string{"3: 2/4 DEAD OWNER_DIED"}},
		{"it is adopted when its manager dies", func(w *world) {
			w.say(1, reg(5, det))
			w.commit()
			w.say(1, up(detached(arow(1, 1, alive), "d")))
			w.say(3, watch(det.ID))
			w.commit()
			w.say(1, &Leave{})
			w.commit()
		}, []string{"2: NodeDead", "3: NodeDead", "2: adopt 1/1 ALIVE spec", "1: Left", "3: 1/1 ALIVE"}},
		{"by the head's own node", func(w *world) {
			n := info(4)
			n.Head = true
			w.say(4, &Register{Node: n})
			w.say(1, reg(5, det))
			w.commit()
			w.say(1, &Leave{})
			w.commit()
		}, []string{"2: NodeDead", "3: NodeDead", "4: NodeDead", "4: adopt 1/1 PENDING_CREATION spec", "1: Left"}},
		{"who adopts may tell of it", func(w *world) {
			w.say(1, reg(5, det))
			w.commit()
			w.say(1, &Leave{})
			w.commit()
			r := detached(arow(2, 1, again), "d")
			r.ID = det.ID
			w.say(2, up(inc(r, 1)))
			w.commit()
			w.say(3, watch(det.ID))
		}, []string{"3: 1/1 RESTARTING"}},
		{"is told again until it does", func(w *world) {
			w.say(1, reg(5, det))
			w.commit()
			w.say(1, &Leave{})
			w.commit()
			w.back(2)
		}, []string{"2: Registered", "2: adopt 1/1 PENDING_CREATION spec"}},
		{"also after a restart of the head", func(w *world) {
			w.say(1, reg(5, det))
			w.commit()
			w.say(1, &Leave{})
			w.commit()
			w.restart()
			w.back(2)
		}, []string{"2: Registered", "2: adopt 1/1 PENDING_CREATION spec"}},
		{"with a kill that came meanwhile", func(w *world) {
			w.say(1, reg(5, det))
			w.commit()
			w.say(1, &Leave{})
			w.say(3, &ActorKill{Req: 1, ID: det.ID, NoRestart: true})
			w.back(2)
			w.commit()
		}, []string{
			"2: NodeDead", "3: NodeDead", "2: adopt 1/1 PENDING_CREATION spec", "1: Left", "2: kill 1/1 true",
			"2: Registered", "2: adopt 1/1 PENDING_CREATION spec", "2: kill 1/1 true",
		}},
		{"by the next that joins if nobody is left", func(w *world) {
			w.say(1, reg(5, det))
			w.commit()
			for _, n := range []byte{2, 3, 1} {
				w.say(n, &Leave{})
			}
			w.commit()
			w.say(1, &Leave{})
			w.say(4, &Register{Node: info(4)})
			w.commit() // it is in, and now the adoption is stored
			w.commit()
		}, []string{"4: adopt 1/1 PENDING_CREATION spec"}},
		{"one that is known lives on when the head comes back", func(w *world) {
			w.say(1, reg(5, det))
			w.commit()
			w.say(1, up(detached(arow(1, 1, alive), "d")))
			w.commit()
			w.restart()
			w.back(2)
			w.say(2, &ActorGet{Req: 7, Name: "d", Namespace: "ns"})
		}, []string{"2: got 1/1 ALIVE"}},

		{"a link breaks: an inventory without an actor is its end", func(w *world) {
			w.say(1, up(arow(1, 2, alive)))
			w.say(2, watch(aid(1, 2)))
			w.back(1)
		}, []string{"1: Registered", "2: 1/2 DEAD OWNER_DIED"}},
		{"news by inventory", func(w *world) {
			w.say(1, up(arow(1, 2, wait)))
			w.say(2, watch(aid(1, 2)))
			w.back(1, arow(1, 2, alive))
		}, []string{"1: Registered", "2: 1/2 ALIVE"}},
		{"a registration whose answer was lost comes again", func(w *world) {
			w.say(1, reg(5, x))
			w.back(1)
			w.say(1, reg(5, x))
		}, []string{"1: created true 1/1 PENDING_CREATION"}},
		{"or of a detached one", func(w *world) {
			w.say(1, reg(5, det))
			w.commit()
			w.back(1)
			w.say(1, reg(5, det))
			w.commit()
		}, []string{"1: job ended 02000000", "2: job ended 02000000", "3: job ended 02000000", "1: Registered", "1: created true 1/1 PENDING_CREATION"}},
		{"if the inventory had it, too", func(w *world) {
			w.say(1, reg(5, x))
			w.back(1, x)
			w.say(1, reg(5, x))
		}, []string{"1: created true 1/1 PENDING_CREATION"}},
		{"an inventory does not take a name", func(w *world) {
			w.say(2, reg(6, named(arow(2, 1, wait), "x")))
			w.back(1, x) // its registration follows
			w.say(1, reg(5, x))
		}, []string{"1: NAME_TAKEN"}},
		{"unless it is free by then", func(w *world) {
			w.say(2, reg(6, named(arow(2, 1, wait), "x")))
			w.back(1, x)
			w.say(2, up(died(named(arow(2, 1, wait), "x"), actor.Killed)))
			w.say(1, reg(5, x))
			w.say(2, &ActorGet{Req: 7, Name: "x", Namespace: "ns"})
		}, []string{"2: got 1/1 PENDING_CREATION"}},
		{"a watch is asked for anew with each registration", func(w *world) {
			w.say(1, up(arow(1, 2, wait)))
			w.say(2, watch(aid(1, 2)))
			w.back(2)
			w.say(1, up(arow(1, 2, alive)))
		}, nil},

		{"after a restart a name is known again", func(w *world) {
			w.say(1, reg(5, x))
			w.restart()
			w.back(1, named(arow(1, 1, alive), "x"))
			w.back(2)
			w.back(3)
			w.say(2, reg(6, named(arow(2, 1, wait), "x")))
		}, []string{"2: NAME_TAKEN"}},
		{"what its manager may still say is waited for", func(w *world) {
			w.restart()
			w.back(2)
			w.back(3)
			w.say(2, &ActorGet{Req: 7, Name: "x", Namespace: "ns"})
			w.say(2, reg(8, named(arow(2, 1, wait), "x")))
			w.say(2, &ActorNames{Req: 9})
			w.say(2, &ActorKill{Req: 10, ID: aid(1, 1)})
			w.say(2, watch(aid(1, 1)))
			if w.got != nil {
				w.t.Errorf("too early:\n%s", show(w.got))
			}
			w.back(1, x)
		}, []string{
			"1: Registered", "2: got 1/1 PENDING_CREATION", "2: NAME_TAKEN", "2: names [[ns x]]", "1: kill 1/1 false", "2: Done",
			"2: 1/1 PENDING_CREATION",
		}},
		{"not longer than it lives", func(w *world) {
			w.restart()
			w.back(2)
			w.back(3)
			w.say(2, &ActorGet{Req: 7, Name: "x", Namespace: "ns"})
			w.say(2, reg(8, named(arow(2, 1, wait), "x")))
			w.say(2, watch(aid(1, 1)))
			w.pass(10*time.Second, 2, 3)
			w.commit()
		}, []string{"2: NodeDead", "3: NodeDead", "2: no such actor", "2: created true 2/1 PENDING_CREATION", "2: 1/1 DEAD OWNER_DIED"}},
		{"a registration that waits may be given up", func(w *world) {
			w.restart()
			w.back(2)
			w.back(3)
			w.say(2, reg(8, named(arow(2, 1, wait), "x")))
			w.say(2, up(died(named(arow(2, 1, wait), "x"), actor.Killed)))
			w.back(1)
			w.say(3, &ActorGet{Req: 9, Name: "x", Namespace: "ns"})
		}, []string{"3: no such actor"}},
		{"a call that waits and is sent again is answered once", func(w *world) {
			w.restart()
			w.back(2)
			w.back(3)
			w.say(2, &ActorGet{Req: 7, Name: "x", Namespace: "ns"})
			w.back(2)
			w.say(2, &ActorGet{Req: 7, Name: "x", Namespace: "ns"})
			w.back(1)
		}, []string{"1: Registered", "2: no such actor"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := actorWorld(t, Config{})
			tc.do(w)
			if got := w.brief(); !slices.Equal(got, tc.want) {
				t.Errorf("effects:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(tc.want, "\n  "))
			}
		})
	}
}

func TestActorRows(t *testing.T) {
	w := actorWorld(t, Config{MaxDeadActors: 2, StartMs: 1000})
	w.now = time.Second
	for k := uint64(1); k <= 4; k++ {
		r := arow(1, k, alive)
		r.Meta, r.Repr = []byte("meta"), "me"
		w.say(1, &ActorUpdate{Row: r})
		w.say(2, &ActorWatch{ID: r.ID, On: true})
		if got := w.told(2, r.ID); string(got.Meta) != "meta" || got.StartMs != 2000 || got.EndMs != 0 {
			t.Errorf("row %+v", got)
		}
		r.Meta, r.PID = nil, 7
		w.say(1, &ActorUpdate{Row: r})
		if got := w.told(2, r.ID); string(got.Meta) != "meta" || got.PID != 7 {
			t.Errorf("an update without meta: %+v", got)
		}
	}
	w.now = 2 * time.Second
	for k := uint64(1); k <= 3; k++ {
		r := arow(1, k, gone)
		r.Death.Pickled = make([]byte, maxPickled*int(k))
		w.say(1, &ActorUpdate{Row: r})
		if got := w.told(2, r.ID); got.Meta != nil || got.EndMs != 3000 || len(got.Death.Pickled) != maxPickled*int(k) {
			t.Errorf("row %+v", got)
		}
	}
	w.say(2, &ActorGet{Req: 1, ID: aid(1, 3)})
	if m := w.got[0].(Send).Msg.(*ActorGot); m.Row.Death.Pickled != nil {
		t.Errorf("%d bytes of an exception are kept", len(m.Row.Death.Pickled))
	}
	w.say(2, &ActorList{Req: 1})
	rows := w.got[0].(Send).Msg.(*ActorRows).Rows
	var got []string
	for _, r := range rows {
		if r.Meta != nil || r.Death.Pickled != nil {
			t.Errorf("a row for people has bulk: %+v", r)
		}
		got = append(got, fmt.Sprint(r.ID.Unique().Counter(), r.State))
	}
	if want := []string{"2DEAD", "3DEAD", "4ALIVE"}; !slices.Equal(got, want) {
		t.Errorf("rows %v, want %v", got, want)
	}
}

func TestDetachedActorsSurviveTheHead(t *testing.T) {
	w := actorWorld(t, Config{MaxDeadActors: 1})
	for k := uint64(1); k <= 4; k++ {
		r := detached(arow(1, k, wait), fmt.Sprint("d", k))
		w.say(1, &ActorRegister{Req: k, Row: r, Spec: []byte("spec")})
		r.State, r.Meta = alive, []byte("meta")
		w.say(1, &ActorUpdate{Row: r})
	}
	for k := uint64(1); k <= 2; k++ {
		w.say(1, &ActorUpdate{Row: detached(arow(1, k, gone), fmt.Sprint("d", k))})
	}
	w.commit()
	before := w.s.ActorRows()
	w.restart()
	if after := w.s.ActorRows(); !reflect.DeepEqual(after, before) || len(after) != 3 {
		t.Errorf("rows\n%+v\nwant\n%+v", after, before)
	}
	r := w.s.actors.byID[aid(1, 3)]
	if string(r.spec) != "spec" || string(r.row.Meta) != "meta" {
		t.Errorf("spec %q, meta %q", r.spec, r.row.Meta)
	}
	actors, specs := 0, 0
	for k := range w.stored {
		switch k[0] {
		case 'a':
			actors++
		case 's':
			specs++
		}
	}
	if actors != 3 || specs != 2 {
		t.Errorf("%d actors and %d specs are stored", actors, specs)
	}
	two := &ActorRecord{Row: before[1]}
	two.Row.ID[7]++
	for name, records := range map[string][]Record{
		"no job":    {&Meta{NextJob: 9}, &ActorRecord{Row: before[1]}},
		"two names": {&Meta{NextJob: 9}, &JobRow{ID: before[1].Job, Virtual: true, State: JobRunning}, &ActorRecord{Row: before[1]}, two},
	} {
		if _, err := New(Config{}, records); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
