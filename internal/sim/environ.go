package sim

import "gray/internal/core/engine"

// A node's environments: asked for, unpacked. What is neither must not be worked in.
const (
	envAsked = 1 + iota
	envThere
)

// PrepareEnv unpacks an environment's packages; now and then that fails.
func (n *node) PrepareEnv(key string) {
	w := n.w
	if n.envs[key] != 0 {
		w.failf("node %d: environment %s is asked for twice", n.index, key)
	}
	n.envs[key] = envAsked
	w.after(10*w.delay(), func() {
		if !n.alive {
			return
		}
		w.hit()
		if w.faults && w.cfg.Crash > 0 && w.chance(0.1) { // far more seldom than a crash is it tried
			w.Stats.EnvFails++
			delete(n.envs, key)
			n.do(func(e *engine.Engine) { e.EnvFailed(key, "no such package") })
			return
		}
		w.Stats.Envs++
		n.envs[key] = envThere
		n.do(func(e *engine.Engine) { e.EnvReady(key) })
	})
}

// DropEnv gives an environment's packages up: nobody may work in it any more.
func (n *node) DropEnv(key string) {
	if n.envs[key] != envThere {
		n.w.failf("node %d: environment %s is dropped and is not there", n.index, key)
	}
	delete(n.envs, key)
	for _, sid := range sorted(n.procs) {
		if p := n.procs[sid]; p.alive && p.packages == key {
			n.w.failf("node %d: environment %s is dropped while session %d works in it", n.index, key, sid)
		}
	}
}

// enter notes a worker's environment.
func (n *node) enter(p *proc, key string) {
	if key != "" && n.envs[key] != envThere {
		n.w.failf("node %d: a worker of environment %s starts before that is there", n.index, key)
	}
	p.packages = key
}
