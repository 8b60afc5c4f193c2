package engine

import (
	"strings"
	"testing"

	"gray/internal/core/actor"
	"gray/internal/core/fault"
)

// lose ends a worker, which has received nothing or one task first.
func (r *rig) lose(w SessionID, received bool) {
	r.t.Helper()
	if received {
		r.take(w)
	}
	r.do(func(e *Engine) { e.WorkerGone(w, fault.WorkerCrashed, "exit code 7; it says boom") })
	r.workers()
}

// busy is the worker that has an EXECUTE to receive.
func (r *rig) busy() SessionID {
	for w, list := range r.execs {
		if len(list) > 0 && r.e.pool.all[w] != nil {
			return w
		}
	}
	return 0
}

// Workers that die before they have received a task are replaced; those of one kind not without end.
func TestWorkersThatDieBeforeTheirFirstTask(t *testing.T) {
	for _, tc := range []struct {
		name   string
		fn     string
		deaths string // of each worker: n before it received its task, t with it, v after it had a value
		want   string // prefix of the task's value; "" if it goes on
		tries  uint64
	}{
		{"twice by chance", "f retries=1", "nnv", "v", 0},
		{"again and again, without an environment", "f retries=0", "nnn", "!WORKER_CRASHED", 0},
		{"again and again, that costs retries then", "f retries=1", "nnnn", "!WORKER_CRASHED", 1},
		{"again and again, in an environment: retries are of no use", "f retries=-1 packages=p", "nnn", "!RUNTIME_ENV", 0},
		{"one that received its task shows that they can", "f retries=9", "nntnn", "", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, settings{owner: 1, cpus: 1})
			c := r.driver(1)
			id := c.call(tc.fn)
			if strings.Contains(tc.fn, "packages") {
				r.do(func(e *Engine) { e.EnvReady("p") })
			}
			r.workers()
			for _, how := range tc.deaths {
				w := r.busy()
				if w == 0 {
					t.Fatalf("no worker has the task; told %q", r.told())
				}
				if how == 'v' {
					r.run(w, "v")
					continue
				}
				r.lose(w, how == 't')
			}
			r.told()
			c.get(id)
			got := strings.Join(r.told(), "\n")
			if want := "= " + tc.want; tc.want == "" && strings.Contains(got, "value") || tc.want != "" && !strings.Contains(got, want) {
				t.Errorf("told %q, want %q", got, want)
			}
			if strings.HasPrefix(tc.want, "!") && !strings.Contains(r.failed, "exit code 7; it says boom") {
				t.Errorf("%q does not say what the workers die of", r.failed)
			}
			if r.e.Counts.Retried != tc.tries {
				t.Errorf("%d retries, want %d", r.e.Counts.Retried, tc.tries)
			}
			if tc.want != "" && tc.deaths[len(tc.deaths)-1] == 'n' && r.busy() != 0 {
				t.Error("a worker has the task still")
			}
		})
	}
}

// An actor whose process cannot live in its environment is dead, however often it may be restarted.
func TestAnActorsWorkersDieBeforeItsConstructor(t *testing.T) {
	r, c := solo(t, 2)
	h := c.actor("restarts=-1 packages=p")
	r.do(func(e *Engine) { e.EnvReady("p") })
	r.workers()
	for range maxEarly {
		w := h.e.actors[h.id.Unique()].host.w
		r.lose(w.s.id, false)
	}
	if row := r.e.actors[h.id.Unique()].row; row.State != actor.Dead || row.Death.Cause != actor.NoEnv || !strings.Contains(row.Death.Text, "it says boom") {
		t.Errorf("the actor is %+v, %+v", row, row.Death)
	}
}
