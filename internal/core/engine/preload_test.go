package engine

import (
	"testing"

	"gray/internal/core/fault"
)

// What cannot be preloaded fails tasks and actors at once, here and elsewhere, whatever their retries and restarts.
func TestPreloadThatFails(t *testing.T) {
	why := "modules numpy,torch could not be preloaded: no module named torch"
	setUpThatFails(t, "preload", why, func(r *rig) {
		started := r.started
		r.started = nil
		for _, w := range started {
			if r.e.pool.all[w].preload == "" {
				r.do(func(e *Engine) { e.WorkerStarted(w) })
				continue
			}
			r.do(func(e *Engine) { e.WorkerFailed(w, fault.RuntimeEnv, "no module named torch") })
		}
	})
}
