package engine

import (
	"fmt"
	"slices"
	"strings"
)

// maxStories is how many objects Empty tells of.
const maxStories = 20

// Empty tells what is left of tasks, objects and everything about them. With jobs, jobs may be left, and their functions
// with what these close over.
func (e *Engine) Empty(jobs bool) error {
	var left []string
	add := func(name string, n int) {
		if n != 0 {
			left = append(left, fmt.Sprintf("%d %s", n, name))
		}
	}
	fns := 0
	for _, tm := range e.templates[1:] {
		if tm.key != "" {
			fns++
		}
	}
	objs := map[uint32]bool{}
	for i := uint32(1); i < e.objs.limit(); i++ {
		if o := e.objs.at(i); e.objIndex[keyOf(o.id)] == i {
			objs[i] = true
		}
	}
	if jobs {
		for _, tm := range e.templates[1:] {
			if tm.key != "" {
				e.without(objs, tm.fn) // 0 for methods
			}
		}
	} else {
		add("jobs", len(e.jobs))
		add("templates", fns)
		add("bytes in blobs", int(e.blobs.bytes))
	}
	for k, i := range sortedKeys(objs) {
		if k == maxStories {
			left = append(left, fmt.Sprintf("and %d more objects", len(objs)-k))
			break
		}
		left = append(left, e.story(i))
	}
	add("tasks", e.tasks.live)
	add("actors", len(e.actors))
	add("slots", e.slots.live)
	add("tasks waiting for workers", len(e.pool.pending))
	add("asks", len(e.asks))
	add("covered tasks", len(e.covered))
	add("keeps", len(e.keeps))
	add("results", len(e.results))
	add("settles", len(e.settles))
	add("claims to be made", len(e.dueClaims))
	add("streams", len(e.streams))
	add("generators of others", len(e.yields))
	add("remote tasks", len(e.remoteRun))
	add("lookups", len(e.lookups))
	add("bundles", len(e.bundles))
	add("fetches", len(e.fetches))
	add("commits", len(e.commits))
	add("copies under way", len(e.copying))
	add("copies to be tried anew", len(e.refetch))
	add("readers", len(e.readers))
	add("store requests", len(e.memWants))
	if e.mem != nil {
		u := e.mem.Usage()
		for _, s := range []struct {
			name string
			n    int
		}{{"held", u.Held.Objects}, {"used", u.InUse.Objects}, {"stopping", u.Stopping.Objects}, {"creating", u.Creating.Objects}, {"primary", u.Primary.Objects}, {"pinned", u.Pinned.Objects}, {"evictable", u.Evictable.Objects}} {
			add(s.name+" store objects", s.n)
		}
		add("waiting store requests", u.Waiting)
	}
	for _, j := range e.jobs {
		if j.bytes != 0 && !jobs {
			left = append(left, fmt.Sprintf("%d bytes of credit of job %s", j.bytes, j.id))
		}
		if j.tasks != 0 {
			left = append(left, fmt.Sprintf("%d tasks counted of job %s", j.tasks, j.id))
		}
	}
	for no, sh := range e.shapes {
		if sh != nil && len(sh.away) > 0 {
			left = append(left, fmt.Sprintf("slots of shape %d at %d nodes", no, len(sh.away)))
		}
	}
	if len(left) == 0 {
		return nil
	}
	return fmt.Errorf("there are left: %s", strings.Join(left, "; "))
}

// without takes an object from a set, and those in its value.
func (e *Engine) without(objs map[uint32]bool, i uint32) {
	if !objs[i] {
		return
	}
	delete(objs, i)
	for _, c := range e.contained[i] {
		e.without(objs, c)
	}
}

// Tables are the sizes of what the engine keeps, for those who look for a leak. What has its own bound is left out.
func (e *Engine) Tables() map[string]int {
	live := 0
	for _, tm := range e.templates[1:] {
		if tm.key != "" {
			live++
		}
	}
	m := map[string]int{
		"tasks": e.tasks.live, "objects": len(e.objIndex), "actors": len(e.actors), "sessions": len(e.sessions), "jobs": len(e.jobs),
		"templates": live, "shapes": e.shapeTable.Len(), "slots": e.slots.live, "streams": len(e.streams), "peers": len(e.peers),
		"foreign": len(e.foreign), "spread": len(e.spread), "waiters": e.waiters.live, "workers": len(e.pool.all), "blob_bytes": int(e.blobs.bytes),
		"task_room": int(e.tasks.limit()), "object_room": int(e.objs.limit()), "shape_room": len(e.shapes), "template_room": len(e.templates),
	}
	for _, s := range e.sessions {
		m["claims"] += s.nClaims
		m["pins"] += len(s.pins)
		m["creates"] += len(s.creates)
		m["channels"] += len(s.chans)
	}
	if e.mem != nil {
		m["arena_bytes"] = int(e.mem.Usage().Used)
	}
	return m
}

// story tells what is known of an object, for a failing test.
func (e *Engine) story(i uint32) string {
	o := e.objs.at(i)
	s := fmt.Sprintf("object %x:%d %s holds %d pins %d task %d claim of %d mem %d", uint64(o.id.Unique()), o.id.Index(), o.state, o.holds, o.pins, o.task, o.claimS, o.mem)
	if f := e.foreign[i]; f != nil {
		s += fmt.Sprintf(" foreign%+v", *f)
	}
	if sp := e.spread[i]; sp != nil {
		s += fmt.Sprintf(" spread%+v", *sp)
	}
	for _, sid := range sortedKeys(e.sessions) {
		if n := e.sessions[sid].claims[i]; n > 0 {
			s += fmt.Sprintf(" claimed %d times by session %d", n, sid)
		}
	}
	for _, k := range sortedKeys(e.contained) {
		if slices.Contains(e.contained[k], i) {
			s += fmt.Sprintf(" in %x:%d", uint64(e.objs.at(k).id.Unique()), e.objs.at(k).id.Index())
		}
	}
	return s
}

// Dump tells what the engine holds, for a failing test.
func (e *Engine) Dump() string {
	var b strings.Builder
	for i := uint32(1); i < e.tasks.limit(); i++ {
		if t := e.tasks.at(i); t.state != taskNone {
			fmt.Fprintf(&b, "\n  task %x %s owner %d at %d slot %d worker %d missing %d attempt %d of %d lost %v gone %v refs %v", uint64(t.unique), t.state, t.owner, t.at, t.slot, t.worker, t.missing, t.attempt, t.inc, t.lost, t.gone, t.refs)
		}
	}
	for _, u := range sortedKeys(e.actors) {
		a := e.actors[u]
		fmt.Fprintf(&b, "\n  actor %s %q node %d incarnation %d watched %v managed %v", a.id, a.state, a.node, a.inc, a.watch, a.mgr != nil)
		if h := a.host; h != nil {
			fmt.Fprintf(&b, " hosted up %v death %v leaving %v manager %d creation %d calls %v", h.up, h.death, h.leaving, h.mgr, h.task, h.calls)
		}
		for _, q := range a.order {
			fmt.Fprintf(&b, "\n    calls of %+v: %d, sent %d, head %d next %d tail %d listed %v", q.key, q.n, q.sent, q.head, q.next, q.tail, q.listed)
		}
	}
	for i := uint32(1); i < e.objs.limit(); i++ {
		if o := e.objs.at(i); e.objIndex[keyOf(o.id)] == i {
			fmt.Fprintf(&b, "\n  %d: %s", i, e.story(i))
		}
	}
	for _, sid := range sortedKeys(e.sessions) {
		for _, c := range sortedKeys(e.sessions[sid].chans) {
			if ch := e.sessions[sid].chans[c]; ch.get != nil || ch.waiting || ch.full {
				fmt.Fprintf(&b, "\n  session %d channel %d get %v %+v waiting %v full %v queue %v ready %d", sid, c, ch.get != nil, ch.own, ch.waiting, ch.full, ch.queue, len(ch.ready))
			}
		}
	}
	for _, sid := range e.pool.sorted() {
		w := e.pool.all[sid]
		fmt.Fprintf(&b, "\n  worker %d %s fifo %v blocked %v leaving %v", sid, w.state, w.fifo, w.blocked, w.leaving)
	}
	for _, u := range sortedKeys(e.actors) {
		fmt.Fprintf(&b, "\n  %s", e.actors[u].story())
	}
	for _, sh := range e.active {
		fmt.Fprintf(&b, "\n  shape %d backlog %d slots %d stuck %q", sh.no, sh.backlog, sh.slots, sh.stuck)
		for _, no := range sortedKeys(sh.away) {
			fmt.Fprintf(&b, " away %d %+v", no, *sh.away[no])
		}
	}
	for n := uint32(1); n < e.slots.limit(); n++ {
		if s := e.slots.at(n); !s.since.IsZero() {
			fmt.Fprintf(&b, "\n  slot %d owner %d shape %d theirs %d task %d need %v", n, s.owner, s.shape, s.theirs, s.task, s.alloc.Need)
		}
	}
	for _, a := range e.asks {
		fmt.Fprintf(&b, "\n  ask of node %d for %v: %d", a.node, a.res, a.want)
	}
	fmt.Fprintf(&b, "\n  free %v of %v; fenced %v; fetches %v wants %v", e.res.Avail(), e.res.Total(), e.fenced, e.fetches, e.memWants)
	if e.mem != nil {
		fmt.Fprintf(&b, "\n  store %+v", e.mem.Usage())
	}
	return b.String()
}

// story tells what is known of an actor, for a failing test.
func (a *actorRec) story() string {
	s := fmt.Sprintf("actor %x %s at %d incarnation %d watch %v", uint64(a.id.Unique()), a.state, a.node, a.inc, a.watch)
	if m := a.mgr; m != nil {
		s += fmt.Sprintf("; managed: left %d task %d registering %v handle %v killing %v", m.left, m.task, m.registering, m.handle, m.killing != nil)
	}
	if h := a.host; h != nil {
		s += fmt.Sprintf("; here: slot %d task %d for %d up %v leaving %v death %v calls %d", h.slot, h.task, h.mgr, h.up, h.leaving, h.death != nil, len(h.calls))
	}
	for _, q := range a.order {
		s += fmt.Sprintf("; queue %v: %d calls, %d sent, next %d listed %v", q.key, q.n, q.sent, q.next, q.listed)
	}
	return s
}
