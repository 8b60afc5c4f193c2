package sim

import (
	"fmt"
	"slices"
	"strings"

	"gray/internal/core/actor"
	"gray/internal/core/engine"
	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/core/ids"
)

// actorInfo is what the world knows of an actor.
type actorInfo struct {
	id       ids.ActorID
	class    *class
	job      ids.Job // of its creator
	name     string
	detached bool
	restarts int32
	maker    *proc
	manager  *node // who makes its incarnations
	inHead   bool  // the head has registered it
	lives    []*life
	losses   int    // how many incarnations may have ended against its will
	doomed   string // why it may be dead for ever
}

// life is a process of an actor, from when its constructor starts.
type life struct {
	inc     uint32
	p       *proc
	manager *node
}

// callInfo is a call of an actor, as its caller sees it.
type callInfo struct {
	info    *actorInfo
	weak    bool
	from    *proc
	group   string
	ordered bool
	seq     int
	again   bool // an attempt asked for another
}

// void tells whether nobody counts on what runs on a node: it is dead or may be declared so.
func (n *node) void() bool { return !n.alive || n.fenced || n.leaving }

// housed checks what actors hold of a node, when a worker becomes an actor's.
func (w *World) housed(p *proc, s *engine.Setup) {
	sum := map[string]int64{}
	for _, o := range p.n.procs {
		if o.alive && o.body != nil {
			for k, q := range o.body.info.class.held {
				sum[k] += q
			}
		}
	}
	total := p.n.names.Map(p.n.total)
	for k, q := range sum {
		if k != "CPU" && q > total[k] {
			w.failf("%s: actor %s starts, and then living actors hold %d of %s; the node has %d", p, s.Actor.ID, q, k, total[k])
		}
	}
}

// born checks that an actor whose constructor starts has no other life, and that its name is its own.
func (w *World) born(p *proc, x *execute) {
	info := p.body.info
	w.Stats.Lives++
	w.tracef("%s: the constructor of %x starts, incarnation %d", p, uint64(x.u), x.attempt)
	for _, l := range info.lives {
		if l.p.alive && !l.p.n.void() && !l.manager.void() {
			w.failf("%s starts incarnation %d of actor %s, and %s is still incarnation %d", p, x.attempt, info.id, l.p, l.inc)
		}
		if l.inc >= x.attempt && !l.p.n.void() && !l.manager.void() {
			w.failf("%s starts incarnation %d of actor %s, which has had incarnation %d", p, x.attempt, info.id, l.inc)
		}
	}
	if info.restarts >= 0 && int32(x.attempt) > info.restarts {
		w.failf("%s starts incarnation %d of actor %s; it may be restarted %d times", p, x.attempt, info.id, info.restarts)
	}
	if info.name != "" {
		for _, o := range w.named[info.name] {
			if o == info || w.over[o.job] && !o.detached {
				continue
			}
			for _, l := range o.lives {
				if l.p.alive && !l.p.n.void() && !l.manager.void() {
					w.failf("%s starts actor %s with the name %q, which actor %s still has", p, info.id, info.name, o.id)
				}
			}
		}
	}
	l := &life{inc: x.attempt, p: p, manager: info.manager}
	p.body.life = l
	info.lives = append(info.lives, l)
}

// ordered checks the order in which a worker gets the calls of one caller and group.
func (w *World) ordered(p *proc, c *callInfo, x *execute) {
	if c == nil || p.body == nil || c.info != p.body.info {
		w.failf("%s gets call %x, which is not one of its actor", p, uint64(x.u))
		return
	}
	if !c.ordered {
		return
	}
	k := orderKey{c.from, c.group}
	if last := p.body.last[k]; c.seq <= last && !c.again {
		w.failf("%s gets call %x of %s, its %d. to actor %s, after the %d.", p, uint64(x.u), c.from, c.seq, c.info.id, last)
	}
	p.body.last[k] = max(p.body.last[k], c.seq)
}

// registered notes what the head said of an actor's name.
func (w *World) registered(n *node, u ids.Unique, r *headstate.ActorRegistered) {
	w.tracef("node %d: actor %x is registered: %v %x", n.index, uint64(u), r.Created, uint64(r.Row.ID.Unique()))
	if r.Created {
		w.actors[u].inHead = true
	}
}

// mayEnd tells whether something in this world explains that an actor is dead, or was for a moment.
func (w *World) mayEnd(info *actorInfo, forEver bool) bool {
	if info.doomed != "" || w.Stats.NodeDeaths > 0 || w.fenced() || w.Stats.StartFails > 0 || w.Stats.EnvFails > 0 || w.explained(string(fault.StoreFull)) {
		return true
	}
	if !info.detached && w.over[info.job] {
		return true
	}
	if b := info.maker.body; b != nil && !info.detached && (!info.maker.alive || w.mayEnd(b.info, false)) {
		return true // it ends with the actor that made it
	}
	if !info.maker.alive && !info.inHead && (info.name != "" || info.detached) {
		return true // it was not registered when its maker ended
	}
	if info.class.bound {
		return true
	}
	if !forEver {
		return info.losses > 0
	}
	return info.restarts >= 0 && info.losses > int(info.restarts)
}

// explainedOf tells whether an error of an object has its cause.
func (w *World) explainedOf(p *proc, v *val, kind string) bool {
	c := w.calls[v.id.Unique()]
	if w.over[v.id.Job()] {
		return true
	}
	switch {
	case kind == string(fault.TaskGone):
		return p.refs[v.id] == nil // a get that was given up
	case kind == string(fault.Cancelled):
		return w.explained(kind) || w.Stats.Cancels > 0 || w.Stats.Ends > 0 || len(w.over) > 0
	case c == nil || v.inline[0] == 3: // of an argument
		return w.explained(kind) || (kind == string(fault.ActorDied) || kind == string(fault.ActorUnavailable)) && w.Stats.Actors > 0
	case w.over[c.from.job]:
		return true
	case kind == string(fault.ActorDied):
		return w.mayEnd(c.info, true) || c.weak && !c.info.detached
	case kind == string(fault.ActorUnavailable):
		return w.mayEnd(c.info, false)
	}
	return w.explained(kind)
}

// endDetached checks that detached actors have survived whatever they need not have died of, and kills them.
func (w *World) endDetached() {
	if w.fail != nil {
		return
	}
	rows := map[ids.ActorID]actor.Row{}
	for _, r := range w.head.st.ActorRows() {
		rows[r.ID] = r
	}
	for _, u := range sorted(w.actors) {
		info := w.actors[u]
		if !info.detached || !info.inHead {
			continue
		}
		r := rows[info.id]
		switch {
		case w.mayEnd(info, true):
		case r.State == actor.Dead || r.State == "":
			w.failf("detached actor %s is dead: %s", info.id, r.Death.Text)
		case r.State != actor.Alive && !info.class.shaky && !info.class.bound:
			w.failf("detached actor %s is %s", info.id, r.State)
		}
		if r.State != actor.Dead {
			w.nodes[0].call(&headstate.ActorKill{ID: info.id, NoRestart: true}, func(headstate.Answer, error) {})
		}
	}
	w.hit()
}

// checkActors looks for actors that are left.
func (w *World) checkActors() {
	if w.fail != nil {
		return
	}
	var left []string
	for _, r := range w.head.st.ActorRows() {
		if r.State != actor.Dead {
			left = append(left, fmt.Sprintf("%x %s on %s, managed by %s", uint64(r.ID.Unique()), r.State, r.Node, r.Manager))
		}
	}
	for _, u := range sorted(w.actors) {
		for _, l := range w.actors[u].lives {
			if l.p.alive && l.p.n.alive {
				left = append(left, fmt.Sprintf("%x runs as %s", uint64(u), l.p))
			}
		}
	}
	if len(left) > 0 {
		slices.Sort(left)
		w.failf("actors are left: %s", strings.Join(left, "; "))
		w.tracef("%s", w.blocked())
	}
}
