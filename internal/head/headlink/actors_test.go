package headlink_test

import (
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"gray/internal/core/actor"
	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/core/ids"
	"gray/internal/head"
)

func TestActorsAcrossARestartOfTheHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := head.NewMemStore()
		h := startHead(t, store, &logs{})
		a, b := newDaemon(t, 1), newDaemon(t, 2)
		ctx := within(t, time.Minute)
		link(t, h, a)
		must[*headstate.Registered](t)(a.Joined(ctx))
		link(t, h, b)
		must[*headstate.Registered](t)(b.Joined(ctx))
		job := must[ids.Job](t)(a.JobStart(ctx, [16]byte{1}, headstate.Driver{}))

		row := actor.Row{ID: ids.MakeUnique(1, 1).Actor(job), Job: job, Manager: a.id, Name: "x", Namespace: "ns", State: actor.Pending}
		register := &headstate.ActorRegister{Row: row, Spec: []byte("spec")}
		if created, got, err := a.RegisterActor(ctx, register); !created || err != nil || got.ID != row.ID {
			t.Fatalf("registered: %v %+v %v", created, got, err)
		}
		other := *register
		other.Row.ID[0]++
		if _, _, err := b.RegisterActor(ctx, &other); fault.KindOf(err) != "NAME_TAKEN" {
			t.Errorf("the same name: %v", err)
		}
		det := actor.Row{ID: ids.MakeUnique(1, 2).Actor(job), Job: job, Manager: a.id, Detached: true, State: actor.Pending}
		_, det, err := a.RegisterActor(ctx, &headstate.ActorRegister{Row: det, Spec: []byte("spec")})
		if err != nil || det.Job == job {
			t.Fatalf("a detached one: %+v, %v", det, err)
		}

		b.WatchActor(row.ID, true)
		synctest.Wait()
		row.State = actor.Alive
		a.TellActor(row)
		wantEvents(t, b, "registered 2 true ended 0 dead 0", "lease back", "actor 0 PENDING_CREATION", "actor 0 ALIVE")

		closeHead(t, h)
		h = startHead(t, store, &logs{})
		defer closeHead(t, h)
		det.State = actor.Alive
		a.jobs, a.drivers, a.actors = []ids.Job{job}, []ids.Job{job}, []actor.Row{row, det}
		link(t, h, b)
		synctest.Wait()
		link(t, h, a)
		wantEvents(t, b, "registered 2 false ended 0 dead 0", "actor 0 ALIVE")
		rows := must[[]actor.Row](t)(b.Actors(ctx))
		var names []string
		for _, r := range rows {
			names = append(names, r.Name+" "+string(r.State))
		}
		if want := []string{"x ALIVE", " ALIVE"}; !reflect.DeepEqual(names, want) {
			t.Errorf("actors %q, want %q", names, want)
		}
		a.take()
		if _, err := b.Call(ctx, &headstate.ActorKill{ID: row.ID, NoRestart: true}); err != nil {
			t.Error(err)
		}
		wantEvents(t, a, "kill actor 0 true")
		if err := a.Leave(ctx, "bye"); err != nil {
			t.Error(err)
		}
		wantEvents(t, b, "ended 01000000", "dead 1 [1] 1", "adopt actor 0 spec", "actor 0 DEAD")
	})
}
