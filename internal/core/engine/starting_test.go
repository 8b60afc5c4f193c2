package engine

import (
	"strings"
	"testing"
	"time"

	"gray/internal/core/fault"
)

// While no worker can be started though an actor lives here, tries are few, and tasks and actors do not wait for ever; at a
// limit they do, as it may be lifted.
func TestNoWorkerCanBeStarted(t *testing.T) {
	for _, tc := range []struct {
		name    string
		kind    fault.Kind
		waits   time.Duration
		ends    bool
		mostTry int
	}{
		{"for a while", fault.RuntimeEnv, failingTime / 2, false, 12},
		{"for long", fault.RuntimeEnv, failingTime + 2*time.Second, true, 30},
		{"for long, at a limit", fault.Limit, failingTime * 4, false, 60},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, c := solo(t, 1)
			live(c.actor("x cpu=0"))
			tries := 0
			fail := func() {
				started := r.started
				r.started = nil
				for _, w := range started {
					tries++
					r.do(func(e *Engine) { e.WorkerFailed(w, tc.kind, "no space left") })
				}
			}
			for _, w := range r.e.pool.blank {
				r.do(func(e *Engine) { e.WorkerGone(w.s.id, fault.WorkerCrashed, "killed") })
			}
			task := c.call("f retries=0")
			second := c.actor("x cpu=0")
			call := second.call("m retries=0")
			for end := r.now.Add(tc.waits); r.now.Before(end); r.pass(TickEvery) {
				fail()
			}
			if tries > tc.mostTry {
				t.Errorf("%d tries in %v, want %d at most", tries, tc.waits, tc.mostTry)
			}
			r.told()
			c.get(task)
			c.get(call)
			told := strings.Join(r.told(), "\n")
			if ended := strings.Count(told, "= !"); tc.ends && ended != 2 || !tc.ends && ended != 0 {
				t.Errorf("%d of 2 have ended: %s", ended, told)
			}
			if tc.ends {
				return
			}
			for end := r.now.Add(2 * maxStartPause); r.now.Before(end); r.pass(TickEvery) {
				r.workers()
			}
			if r.busy() == 0 {
				t.Error("the task has no worker though one could be started")
			}
		})
	}
}
