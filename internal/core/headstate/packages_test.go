package headstate

import (
	"slices"
	"strings"
	"testing"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
)

// The packages of a job are needed while it runs, those of a detached actor while it lives; a head that comes back knows.
func TestPackages(t *testing.T) {
	w := newWorld(t, Config{})
	inUse := func(want ...string) {
		t.Helper()
		var got []string
		for name := range w.s.Packages() {
			got = append(got, name)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("in use: %v, want %v", got, want)
		}
	}
	w.join(1, 2)
	w.say(1, &JobStart{Req: 1, Key: [16]byte{1}, Packages: []string{"a", "b"}})
	w.say(2, &JobStart{Req: 1, Key: [16]byte{2}, Packages: []string{"b", "c"}})
	w.commit()
	inUse("a", "b", "c")
	w.say(1, &ActorRegister{Req: 2, Row: detached(arow(1, 1, actor.Pending), "x"), Spec: []byte("spec"), Packages: []string{"a"}})
	w.commit()
	w.say(1, &JobEnd{Req: 3, Job: ids.JobFromInt(1)})
	w.commit()
	inUse("a", "b", "c") // the detached actor keeps a, the other job b
	w.say(2, &JobEnd{Req: 2, Job: ids.JobFromInt(2)})
	w.commit()
	inUse("a")
	w.restart()
	inUse("a")
	w.join(3)
	w.back(1, detached(arow(1, 1, actor.Pending), "x"))
	w.commit()
	dead := detached(arow(1, 1, actor.Dead), "x")
	w.say(1, &ActorUpdate{Row: dead})
	w.commit()
	inUse()
	w.say(3, &JobStart{Req: 1, Key: [16]byte{3}, Packages: make([]string, maxPackages+1)})
	if f, ok := w.got[len(w.got)-1].(Send).Msg.(*Failed); !ok || !strings.Contains(f.Error, "1001 packages; at most 1000") {
		t.Errorf("got %s", show(w.got))
	}
}
