package engine

import (
	"strings"
	"testing"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
)

// What cannot be preloaded fails tasks and actors at once, here and elsewhere, whatever their retries and restarts.
func TestPreloadThatFails(t *testing.T) {
	for _, tc := range []struct {
		name string
		away bool
	}{{"here", false}, {"on another node", true}} {
		t.Run(tc.name, func(t *testing.T) {
			a, b, c := pair(t)
			words := "preload"
			if !tc.away {
				words += " cpu=0"
			}
			h := c.actor(words + " restarts=-1")
			call := h.call("m retries=-1")
			task := c.call("f retries=-1 " + words)
			for range 3 {
				carry(a, b)
				for _, r := range []*rig{a, b} {
					started := r.started
					r.started = nil
					for _, w := range started {
						if r.e.pool.all[w].preload == "" {
							r.do(func(e *Engine) { e.WorkerStarted(w) })
							continue
						}
						r.do(func(e *Engine) { e.WorkerFailed(w, "no module named torch") })
					}
				}
			}
			carry(a, b)
			a.wantState(h.id, actor.Dead, 0, actor.NoEnv)
			if text := a.row(h.id).Death.Text; !strings.Contains(text, "modules numpy,torch could not be preloaded: no module named torch") {
				t.Errorf("death %q", text)
			}
			c.wantValues([]ids.ObjectID{call, task}, "!ACTOR_DIED RUNTIME_ENV_SETUP_FAILED", "!RUNTIME_ENV")
			h.drop()
			c.release(call, task)
			quieten(a, b)
			allEmpty(t, a, b)
		})
	}
}
