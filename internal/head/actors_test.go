package head

import (
	"fmt"
	"testing"

	"gray/internal/core/actor"
	"gray/internal/core/headstate"
	"gray/internal/core/ids"
	"gray/internal/state"
)

type nowhere struct{}

func (nowhere) Send([]byte) {}
func (nowhere) Close()      {}

// BenchmarkActorService is the head's work for an actor with its messages read and written: registered by name, watched by
// another node, alive, dead. The goroutine that makes the messages takes part in the figure.
func BenchmarkActorService(b *testing.B) {
	s, err := Start(Config{Store: Discard{}})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	}()
	const nodes = 2000
	node := func(i int) ids.NodeID { return ids.NodeID{byte(i), byte(i >> 8), 1} }
	say := func(i int, m headstate.Message) {
		if err := s.Receive(node(i), Encode(m)); err != nil {
			b.Fatal(err)
		}
	}
	for i := range nodes {
		if err := s.Connect(node(i), nowhere{}); err != nil {
			b.Fatal(err)
		}
		say(i, &headstate.Register{Node: headstate.NodeInfo{ID: node(i), IP: "10.0.0.1"}})
	}
	say(0, &headstate.JobStart{Req: 1})
	job := ids.JobFromInt(1)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		at := i % nodes
		row := actor.Row{
			ID: ids.MakeUnique(ids.Owner(at+1), uint64(i)).Actor(job), Job: job, Manager: node(at), Name: fmt.Sprint("actor", i), Namespace: "ns",
			Class: "C", State: actor.Pending, Meta: make([]byte, 300), Resources: map[string]int64{"CPU": 10000},
		}
		say(at, &headstate.ActorRegister{Req: uint64(i), Row: row})
		say((at+1)%nodes, &headstate.ActorWatch{ID: row.ID, On: true})
		row.State, row.Node, row.PID, row.IP = actor.Alive, node(at), 4711, "10.0.0.1"
		say(at, &headstate.ActorUpdate{Row: row})
		row.State, row.Death = actor.Dead, actor.Death{Cause: actor.Killed, Text: "The actor is dead because it was killed by `ray.kill`."}
		say(at, &headstate.ActorUpdate{Row: row})
	}
	a, err := s.State(b.Context(), &state.Question{Kind: state.Actors.Kind, Limit: 1})
	if err != nil || len(a.Rows) == 0 || a.Rows[0]["state"] != string(actor.Dead) {
		b.Fatalf("%+v, %v", a, err)
	}
}

func TestFallbackAsListed(t *testing.T) {
	if got := fallback(nil); got != nil {
		t.Errorf("no alternatives: %v", got)
	}
	got := fmt.Sprint(fallback([]map[string]string{{"zone": "in(a,b)"}, {"zone": "!c"}}))
	want := "map[options:[map[label_selector:map[label_constraints:[map[label_key:zone label_values:[a b] operator:LABEL_OPERATOR_IN]]]]" +
		" map[label_selector:map[label_constraints:[map[label_key:zone label_values:[c] operator:LABEL_OPERATOR_NOT_IN]]]]]]"
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}
