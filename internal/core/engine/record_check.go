package engine

// records looks at the books of what was: each process and each kind of task has as many users as it counts.
func (c *checker) records() {
	e := c.e
	procs, kinds := map[uint32]int{}, map[uint32]int{}
	for _, s := range e.sessions {
		procs[s.proc]++
	}
	for i := uint32(1); i < e.tasks.limit(); i++ {
		if t := e.tasks.at(i); t.state != taskNone {
			procs[t.proc]++
		}
	}
	for _, tm := range e.templates[1:] {
		kinds[tm.kind]++
	}
	blobs := 0
	for _, r := range []*ring{&e.rec.finished, &e.rec.failed} {
		for k := range r.len() {
			a := r.back(k)
			procs[a.proc]++
			kinds[a.kind]++
			if a.over.n > 0 {
				blobs++
			}
			if a.text.n > 0 {
				blobs++
			}
		}
	}
	for i := uint32(1); i < e.rec.procs.limit(); i++ {
		if p := e.rec.procs.at(i); p.uses != procs[i] {
			c.failf("process %d (%x) counts %d users and has %d", i, p.id[:4], p.uses, procs[i])
		}
	}
	for i := uint32(1); i < e.rec.kinds.limit(); i++ {
		if k := e.rec.kinds.at(i); k.uses != kinds[i] {
			c.failf("kind %d (%s) counts %d users and has %d", i, k.name, k.uses, kinds[i])
		}
	}
	live := 0
	for _, p := range e.rec.blobs.pages {
		live += int(p.live)
	}
	if live != blobs {
		c.failf("the books have %d texts and use %d", live, blobs)
	}
	if n := len(e.rec.procAt); n != e.rec.procs.live {
		c.failf("%d processes are known by their ids, of %d", n, e.rec.procs.live)
	}
	for u := range e.rec.notes {
		found := false
		for i := uint32(1); i < e.tasks.limit() && !found; i++ {
			t := e.tasks.at(i)
			found = t.state != taskNone && t.unique == u
		}
		if !found {
			c.failf("task %x has an error noted and has ended", uint64(u))
		}
	}
}
