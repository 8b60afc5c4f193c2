package engine

import (
	"fmt"
	"strings"
	"testing"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
)

// A worker of an environment is specialised once its packages are there, and they stay while it lives.
func TestEnvironmentIsPreparedOnce(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 2})
	c := r.driver(1)
	r.workers()
	one, two := c.call("f packages=a"), c.call("g packages=a")
	if r.envs["a"] != 1 || len(r.execs) != 0 || len(r.started) != 0 {
		t.Fatalf("asked for %v, %d workers run, %d start; want one of the environment and no worker before it is there", r.envs, len(r.execs), len(r.started))
	}
	r.do(func(e *Engine) { e.EnvReady("a") })
	r.workers()
	if len(r.execs) != 2 {
		t.Fatalf("%d workers run, want 2", len(r.execs))
	}
	for w := range r.execs {
		r.run(w, "v")
	}
	c.get(one, two)
	three := c.call("h packages=a") // an idle worker of the environment is there
	c.release(one, two, three)
	if r.envs["a"] != 1 {
		t.Error("the environment was let go, or asked for again, while its workers live")
	}
	c.call("f packages=b")
	r.do(func(e *Engine) { e.JobEnded(c.job) })
	r.do(func(e *Engine) { e.EnvReady("b") }) // nobody wants it any more
	for w, s := range r.e.pool.all {
		if s.state == workLeaving {
			r.do(func(e *Engine) { e.WorkerGone(w, "", "killed") })
		}
	}
	r.do(func(e *Engine) { e.Tick() })
	if r.envs["a"] != 0 || r.envs["b"] != 0 || len(r.e.envs) != 0 {
		t.Errorf("environments that nobody uses stay: %v", r.envs)
	}
}

// Workers of different environments do not mix, and one whose packages are not there holds up no other.
func TestEnvironmentsDoNotMix(t *testing.T) {
	r := newRig(t, settings{owner: 1, cpus: 2})
	c := r.driver(1)
	r.workers()
	c.call("f packages=a")
	c.call("f")
	if len(r.execs) != 1 {
		t.Fatalf("%d workers run, want the one without an environment", len(r.execs))
	}
	first := onlyWorker(t, r)
	r.run(first, "v")
	delete(r.execs, first)
	r.do(func(e *Engine) { e.EnvReady("a") })
	r.workers()
	if w := onlyWorker(t, r); w == first {
		t.Error("a worker of no environment ran a task of one")
	}
}

// What cannot be set up fails tasks and actors at once, here and elsewhere, whatever their retries; the next one has it
// tried again.
func TestEnvironmentThatFails(t *testing.T) {
	setUpThatFails(t, "packages=p", "no such package", func(r *rig) {
		r.workers()
		if r.envs["p"] > 0 {
			delete(r.envs, "p")
			r.do(func(e *Engine) { e.EnvFailed("p", "no such package") })
		}
	})
}

// setUpThatFails has tasks and an actor with these words tried, twice, where fail lets a node's setting-up fail.
func setUpThatFails(t *testing.T, words, why string, fail func(*rig)) {
	t.Helper()
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprintf("away %v", away), func(t *testing.T) {
			a, b, c := pair(t)
			words := words
			if !away {
				words += " cpu=0"
			}
			tryAll := func() {
				for range 3 {
					carry(a, b)
					fail(a)
					fail(b)
				}
				carry(a, b)
			}
			h := c.actor(words + " restarts=-1")
			call := h.call("m retries=-1")
			task := c.call("f retries=-1 " + words)
			tryAll()
			a.wantState(h.id, actor.Dead, 0, actor.NoEnv)
			if text := a.row(h.id).Death.Text; !strings.Contains(text, why) {
				t.Errorf("death %q, want %q in it", text, why)
			}
			c.wantValues([]ids.ObjectID{call, task}, "!ACTOR_DIED RUNTIME_ENV_SETUP_FAILED", "!RUNTIME_ENV")
			again := c.call("f " + words)
			tryAll()
			c.wantValues([]ids.ObjectID{again}, "!RUNTIME_ENV")
			h.drop()
			c.release(call, task, again)
			quieten(a, b)
			allEmpty(t, a, b)
		})
	}
}
