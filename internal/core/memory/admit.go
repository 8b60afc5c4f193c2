package memory

import "time"

const (
	// lookPast bounds how many requests behind the first in line are tried each time.
	lookPast = 64
	// maxReliefs bounds how often a stalled request lets others pass before it fails.
	maxReliefs = 3
)

// pump admits what can be admitted.
func (s *State) pump(now time.Time, out []Effect) []Effect {
	var first *req // the first that must wait
	looked := 0
	for i := 0; i < len(s.line); {
		r := s.line[i]
		var ok bool
		if first == nil {
			ok, out = s.admitFirst(now, r, out)
			if !ok {
				if s.stopping(r) || s.shares[abandoned].Bytes > 0 {
					return out // bytes are on their way to it
				}
				first = r
			}
		} else {
			if looked++; looked > lookPast {
				return out
			}
			ok, out = s.admitPast(now, first, r, out)
		}
		if !ok {
			i++
		}
		// A granted r has left the line, so i is the next one; what was displaced for it stands further back.
	}
	return out
}

// admitFirst admits the first in line if it can be done by evicting copies and displacing bundles behind it.
func (s *State) admitFirst(now time.Time, r *req, out []Effect) (bool, []Effect) {
	if s.stopping(r) {
		return false, out
	}
	missing, lack := s.lack(r)
	if lack > 0 {
		coming := s.shares[abandoned].Bytes
		if lack <= coming {
			return false, out
		}
		var give []*req
		if give, lack = s.givers(r, lack-coming); lack > 0 {
			return false, out // it would not help
		}
		if r.displaced == s.releases {
			return false, out // it was tried already, and did not help
		}
		r.displaced = s.releases
		for _, g := range give {
			out = s.displace(now, g, out)
		}
		// What was shared with r's bundle, or still being fetched, is known only now.
		if missing, lack = s.lack(r); lack > 0 || s.stopping(r) {
			return false, out
		}
	}
	ok, out := s.grant(r, missing, out)
	if ok || len(missing) == len(r.Bundle) {
		return ok, out
	}
	// Small items of r that are here may each keep a chunk of their own: fetched anew they share.
	for _, it := range r.Bundle {
		if o := s.objects[it.Key]; o != nil && o.listed {
			s.drop(o)
			out = append(out, Effect{Kind: Evict, Key: o.key})
		}
	}
	missing, _ = s.lack(r)
	return s.grant(r, missing, out)
}

// admitPast admits r before first, which must wait, if that doesn't harm first for long.
func (s *State) admitPast(now time.Time, first, r *req, out []Effect) (bool, []Effect) {
	if s.stopping(r) {
		return false, out
	}
	missing, lack := s.lack(r)
	if lack > 0 {
		return false, out
	}
	bytes := int64(0)
	for _, it := range missing {
		bytes += needs(it.Size)
	}
	// What r takes comes back when its task is done, or is evictable then. If first could not be admitted even then, because of
	// refs and views that last, r takes nothing from it.
	lasting := s.shares[primary].Bytes + s.shares[pinned].Bytes + s.shares[creating].Bytes
	if r.Class == Create || lasting+first.need <= s.alloc.Capacity() {
		if first.passed+bytes > max(first.need, s.alloc.Capacity()/8) {
			return false, out
		}
	}
	ok, out := s.grant(r, missing, out)
	if ok {
		first.passed += bytes
	}
	return ok, out
}

// stopping reports whether an item of r is here but on its way out, so that r must wait until it has gone.
func (s *State) stopping(r *req) bool {
	for _, it := range r.Bundle {
		if o := s.objects[it.Key]; o != nil && (o.state == Abandoned || o.state == Freed || r.Class == Create) {
			return true
		}
	}
	return false
}

// lack finds which items of r aren't here, and how many bytes for them can't be had by eviction. It is hopeful: it takes slots
// in chunks for free bytes, though a chunk is free only when all of its slots are. So what it allows may still fail in grant.
func (s *State) lack(r *req) (missing []Item, bytes int64) {
	have := s.alloc.Capacity() - s.blocked()
	need := int64(0)
	for _, it := range r.Bundle {
		if o := s.objects[it.Key]; o == nil {
			missing = append(missing, it)
			need += needs(it.Size)
		} else if o.listed {
			have -= o.at.Size // will be held
		}
	}
	return missing, max(0, need-have)
}

// blocked is the number of bytes that can't be had by eviction.
func (s *State) blocked() (n int64) {
	for is := evictable + 1; is < nStanding; is++ {
		n += s.shares[is].Bytes
	}
	return n
}

// givers picks displaceable bundles behind r in line, youngest first, until they give lack bytes; less is what they can't give.
func (s *State) givers(r *req, lack int64) (give []*req, less int64) {
	wanted := map[uint64]bool{}
	for _, it := range r.Bundle {
		wanted[it.Key] = true // stays: it will be held again
	}
	taken := map[uint64]int{} // holds of an object that go with those picked
	for i := len(s.idle) - 1; i >= 0 && lack > 0 && r.before(s.idle[i]); i-- {
		g := s.idle[i]
		useful := false
		for _, it := range g.Bundle {
			o := s.objects[it.Key]
			if wanted[it.Key] {
				if useful = !o.writer; !useful {
					break // r wants what is being fetched for g: let it come
				}
				continue
			}
			useful = useful || o.standing() == held
		}
		if !useful {
			continue
		}
		for _, it := range g.Bundle {
			o := s.objects[it.Key]
			if taken[it.Key]++; o.standing() == held && taken[it.Key] == o.holds && !wanted[it.Key] {
				lack -= o.at.Size
			}
		}
		give = append(give, g)
	}
	return give, max(0, lack)
}

// displace takes a granted bundle back and puts its request in line again.
func (s *State) displace(now time.Time, r *req, out []Effect) []Effect {
	out = append(out, Effect{Kind: Displace, ID: r.ID})
	at, n := s.lastRelease, s.releases
	out = s.letGo(now, r, out)
	s.lastRelease, s.releases = at, n // moving bytes from one request to another is no progress
	s.enqueue(r)
	return out
}

// grant gives r its bundle. False: no stretch of addresses is long enough, which with an address range of several capacities is
// rare; r then waits for the next release.
func (s *State) grant(r *req, missing []Item, out []Effect) (bool, []Effect) {
	for _, it := range r.Bundle {
		if o := s.objects[it.Key]; o != nil {
			s.hold(o)
		}
	}
	var placed []Placed
	if len(missing) > 0 {
		placed, out = s.place(missing, r.Owner, out)
		if placed == nil {
			for _, it := range r.Bundle {
				if o := s.objects[it.Key]; o != nil {
					s.change(o, func() { o.holds-- })
				}
			}
			return false, out
		}
	}
	for i, it := range missing {
		s.add(it, placed[i].Extent, r.Class != Create)
	}
	s.line = remove(s.line, r)
	r.passed, r.reliefs = 0, 0
	switch r.Class {
	case Create:
		delete(s.reqs, r.ID)
	case Args:
		r.status = Granted
		s.idle = insert(s.idle, r)
	default:
		r.status = Granted
	}
	return true, append(out, Effect{Kind: Grant, ID: r.ID, Placed: placed})
}

// place finds bytes for all items or for none, and evicts for them as few copies as it can.
func (s *State) place(items []Item, owner uint64, out []Effect) ([]Placed, []Effect) {
	placed := make([]Placed, 0, len(items))
	for _, it := range items {
		g, ok := s.alloc.Allocate(it.Size, owner)
		for !ok && s.lru.first != nil {
			victim := s.lru.first
			s.drop(victim)
			out = append(out, Effect{Kind: Evict, Key: victim.key})
			g, ok = s.alloc.Allocate(it.Size, owner)
		}
		if !ok {
			for i := len(placed) - 1; i >= 0; i-- {
				if p := placed[i]; p.Commit.Size > 0 {
					s.alloc.Uncommitted(p.Off)
				} else {
					s.alloc.Free(p.Off)
				}
			}
			return nil, s.punches(out)
		}
		placed = append(placed, Placed{it.Key, g})
	}
	return placed, s.punches(out)
}

// Tick must be called about once a second while requests wait (see Deadline). couldRelease says that some task is running which
// does not itself wait for this store, so that bytes may yet come free.
func (s *State) Tick(now time.Time, couldRelease bool, out []Effect) []Effect {
	if len(s.line) == 0 {
		return out
	}
	first := s.line[0]
	stalled := func(r *req) bool { return now.Sub(latest(r.asked, s.lastRelease, s.lastRelief)) >= StallAfter }
	if !stalled(first) {
		return out
	}
	if first.reliefs < maxReliefs {
		first.reliefs++
		first.passed = 0
		waiting := len(s.line)
		out = s.pump(now, out)
		if len(s.line) < waiting {
			s.lastRelief = now
			return out
		}
	}
	if couldRelease {
		return out
	}
	for _, class := range []Class{Create, Get} {
		for _, r := range s.line {
			if r.Class != class {
				continue
			}
			if !stalled(r) {
				break
			}
			f := s.full(now, r)
			f.Holders = s.Holders(5)
			out = append(out, Effect{Kind: Fail, ID: r.ID, Full: f})
			s.line = remove(s.line, r)
			delete(s.reqs, r.ID)
			return s.pump(now, out)
		}
	}
	// Only waits and arguments are left. Refs may go at any time, so they have more patience; let others try before them.
	for _, r := range s.line {
		if now.Sub(latest(r.asked, s.lastRelease)) >= ArgsPatience {
			f := s.full(now, r)
			f.Holders = s.Holders(5)
			out = append(out, Effect{Kind: Fail, ID: r.ID, Full: f})
			s.line = remove(s.line, r)
			delete(s.reqs, r.ID)
			return s.pump(now, out)
		}
	}
	first.reliefs = 0
	return out
}

// Deadline is the earliest time at which Tick may have something to do; false while nothing waits.
func (s *State) Deadline() (time.Time, bool) {
	if len(s.line) == 0 {
		return time.Time{}, false
	}
	return latest(s.line[0].asked, s.lastRelease, s.lastRelief).Add(StallAfter), true
}

func latest(a time.Time, others ...time.Time) time.Time {
	for _, o := range others {
		if o.After(a) {
			a = o
		}
	}
	return a
}
