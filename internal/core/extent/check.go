package extent

import "fmt"

// Check verifies every invariant of the allocator; it costs time proportional to the number of extents.
func (a *Alloc) Check() error {
	var at, usedBytes, warmBytes, spans int64
	free := map[*span]bool{}
	var prev *span
	for s := a.first; s != nil; prev, s = s, s.next {
		spans++
		if s.off != at || s.prev != prev || s.size <= 0 || s.off%Page != 0 || s.size%Page != 0 {
			return fmt.Errorf("span at %d (%d bytes) follows %d", s.off, s.size, at)
		}
		at += s.size
		if prev != nil && prev.state == s.state && s.state != used && (s.state == hole || prev.owner == s.owner) {
			return fmt.Errorf("spans at %d and %d should be one", prev.off, s.off)
		}
		switch s.state {
		case hole:
			free[s] = true
			if a.holes.ceil(key{0, uint64(s.size), uint64(s.off)}) != s {
				return fmt.Errorf("hole at %d is not indexed", s.off)
			}
		case warm:
			free[s] = true
			warmBytes += s.size
			if a.owned.ceil(key{s.owner, uint64(s.size), ^s.seq}) != s || a.anyWarm.ceil(key{0, uint64(s.size), ^s.seq}) != s {
				return fmt.Errorf("warm span at %d is not indexed", s.off)
			}
		case used:
			usedBytes += s.size
			if a.byOff[s.off] != s {
				return fmt.Errorf("used span at %d is not indexed", s.off)
			}
		}
	}
	if at != a.space {
		return fmt.Errorf("spans cover %d of %d bytes", at, a.space)
	}
	if usedBytes != a.usedBytes || warmBytes != a.warmB || usedBytes+warmBytes > a.capacity {
		return fmt.Errorf("used %d (counted %d), warm %d (counted %d), capacity %d", a.usedBytes, usedBytes, a.warmB, warmBytes, a.capacity)
	}
	if n := a.holes.len() + a.anyWarm.len(); n != len(free) || a.anyWarm.len() != a.owned.len() {
		return fmt.Errorf("%d free spans, %d indexed", len(free), n)
	}
	var last *span
	for s := a.coldest; s != nil; last, s = s, s.newer {
		if s.state != warm || s.older != last || (last != nil && last.seq > s.seq) {
			return fmt.Errorf("the list of warm spans is broken at %d", s.off)
		}
		delete(free, s)
	}
	if last != a.hottest {
		return fmt.Errorf("the list of warm spans ends early")
	}
	for s := range free {
		if s.state == warm {
			return fmt.Errorf("warm span at %d is not in the list", s.off)
		}
	}
	return nil
}

func (t *tree) len() int {
	var count func(n *node) int
	count = func(n *node) int {
		if n == nil {
			return 0
		}
		return 1 + count(n.left) + count(n.right)
	}
	return count(t.root)
}
