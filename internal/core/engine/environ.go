package engine

import (
	"fmt"

	"gray/internal/core/fault"
)

// environ is an environment whose packages must lie unpacked on this node before a worker of it starts. It is held, so
// that the packages stay, while a worker of it lives or a task waits for one.
type environ struct {
	ready   bool
	workers int
}

// envReady tells whether a worker for a task may be specialised, and has its environment prepared if nobody did yet.
func (e *Engine) envReady(t *task) bool {
	key := e.templates[t.tmpl].spec.Packages
	if key == "" {
		return true
	}
	v := e.envs[key]
	if v == nil {
		v = &environ{}
		e.envs[key] = v
		e.envsLoose++
		e.sink.PrepareEnv(key)
	}
	return v.ready
}

// EnvReady says that an environment's packages are unpacked on this node.
func (e *Engine) EnvReady(key string) {
	v := e.envs[key]
	if v == nil || v.ready {
		return
	}
	v.ready = true
	if e.looseEnv(key, v) {
		e.dropEnv(key)
		return
	}
	e.serve()
}

// EnvFailed says that an environment cannot be had on this node, and why. Another task that wants it has it tried again.
func (e *Engine) EnvFailed(key, why string) {
	v := e.envs[key]
	if v == nil || v.ready {
		return
	}
	delete(e.envs, key)
	e.envsLoose--
	e.failPending(func(t *task) bool { return e.templates[t.tmpl].spec.Packages == key }, fault.RuntimeEnv, why)
}

// joinEnv counts a worker of an environment.
func (e *Engine) joinEnv(w *worker, key string) {
	if key == "" {
		return
	}
	w.packages = key
	v := e.envs[key]
	if v.workers++; v.workers == 1 {
		e.envsLoose--
	}
}

// leaveEnv counts one less.
func (e *Engine) leaveEnv(w *worker) {
	if w.packages == "" {
		return
	}
	v := e.envs[w.packages]
	if v.workers--; v.workers == 0 {
		e.envsLoose++
	}
}

// looseEnv tells whether nobody has, or waits for, a ready environment.
func (e *Engine) looseEnv(key string, v *environ) bool {
	if !v.ready || v.workers > 0 {
		return false
	}
	for _, i := range e.pool.pending {
		if e.templates[e.tasks.at(i).tmpl].spec.Packages == key {
			return false
		}
	}
	return true
}

func (e *Engine) dropEnv(key string) {
	delete(e.envs, key)
	e.envsLoose--
	e.sink.DropEnv(key)
}

// tickEnvs lets go of environments that nobody has or waits for any more.
func (e *Engine) tickEnvs() {
	if e.envsLoose == 0 {
		return
	}
	for _, key := range sortedKeys(e.envs) {
		if v := e.envs[key]; e.looseEnv(key, v) {
			e.dropEnv(key)
		}
	}
}

// environs looks at the environments.
func (c *checker) environs() {
	e := c.e
	count, loose := map[string]int{}, 0
	for _, w := range e.pool.all {
		if w.packages != "" {
			count[w.packages]++
		}
	}
	for key, v := range e.envs {
		if v.workers != count[key] || v.workers > 0 && !v.ready {
			c.failf("environment %q: %d workers are counted, %d there are; ready: %v", key, v.workers, count[key], v.ready)
		}
		delete(count, key)
		if v.workers == 0 {
			loose++
		}
	}
	if len(count) > 0 || loose != e.envsLoose {
		c.failf("workers of environments that are not held: %v; %d environments without workers, %d are counted", fmt.Sprint(count), loose, e.envsLoose)
	}
	for _, i := range e.pool.pending {
		if key := e.templates[e.tasks.at(i).tmpl].spec.Packages; key != "" && e.envs[key] == nil {
			c.failf("task %d waits for environment %q, which nobody prepares", i, key)
		}
	}
}
