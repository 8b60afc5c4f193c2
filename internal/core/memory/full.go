package memory

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"gray/internal/core/extent"
)

// Share is how many objects, and bytes, are in the store for one reason.
type Share struct {
	Objects int
	Bytes   int64
}

func (s *Share) add(objects int, bytes int64) {
	s.Objects += objects
	s.Bytes += bytes
}

// Holder is an object that is in the way.
type Holder struct {
	Key   uint64
	Size  int64
	State ObjectState
	Pins  int // clients' views
	Holds int // granted requests
}

// Usage is what the store is full of. Its parts sum up to the objects' bytes; Used counts whole pages.
type Usage struct {
	Capacity, Used int64
	Evictable      Share // copies that nobody uses
	Held           Share // for tasks that have not started, gets and waits
	InUse          Share // arguments of running tasks
	Stopping       Share // fetches that are being stopped
	Creating       Share // not sealed yet
	Primary        Share // refs name them
	Pinned         Share // views show them
	Waiting        int   // requests in line
}

// Usage tells what the store is full of.
func (s *State) Usage() Usage {
	return Usage{
		Capacity: s.alloc.Capacity(), Used: s.alloc.Used(),
		Evictable: s.shares[evictable], Held: s.shares[held], InUse: s.shares[inUse], Stopping: s.shares[abandoned],
		Creating: s.shares[creating], Primary: s.shares[primary], Pinned: s.shares[pinned], Waiting: len(s.line),
	}
}

// Holders lists the n largest objects that can't be evicted, largest first. It looks at every object.
func (s *State) Holders(n int) []Holder {
	hs := make([]Holder, 0, n+1)
	for _, o := range s.objects {
		if o.listed || (len(hs) == n && (n == 0 || o.size < hs[n-1].Size)) {
			continue
		}
		h := Holder{o.key, o.size, o.state, o.pins, o.holds}
		i, _ := slices.BinarySearchFunc(hs, h, func(a, b Holder) int {
			if a.Size != b.Size {
				return cmp.Compare(b.Size, a.Size)
			}
			return cmp.Compare(a.Key, b.Key)
		})
		hs = slices.Insert(hs, i, h)
		hs = hs[:min(n, len(hs))]
	}
	return hs
}

// Full is why a request can't be admitted.
type Full struct {
	Class   Class
	Need    int64 // bytes of the whole bundle
	Items   int
	TooBig  bool // more than the capacity: it can never be admitted
	NoPages bool // the system has less memory than the store's capacity
	Waited  time.Duration
	Usage   Usage
	Holders []Holder // the largest that are in the way, if it failed for them
}

func (s *State) full(now time.Time, r *req) *Full {
	need := int64(0)
	for _, it := range r.Bundle {
		need += it.Size
	}
	return &Full{Class: r.Class, Need: need, Items: len(r.Bundle), Waited: now.Sub(r.asked), Usage: s.Usage()}
}

// String says what was wanted, what is in the way and what to do, without naming objects, whose names the State doesn't know.
func (f *Full) String() string {
	what := extent.Human(f.Need)
	if f.Items > 1 {
		what = fmt.Sprintf("%s in %d objects", what, f.Items)
	}
	u := f.Usage
	switch {
	case f.TooBig:
		return fmt.Sprintf("needs %s at once, more than this node's whole object store of %s; start the node with a larger --object-store-memory, or use smaller objects",
			what, extent.Human(u.Capacity))
	case f.NoPages:
		return fmt.Sprintf("needs %s; the object store may have %s, but the system has not that much memory left; start the node with a smaller --object-store-memory",
			what, extent.Human(u.Capacity))
	}
	var parts []string
	for _, p := range []struct {
		Share
		why string
	}{
		{u.Primary, "that refs name"},
		{u.Pinned, "that views in use show"},
		{u.InUse, "that running tasks have as arguments"},
		{u.Creating, "that are being written"},
		{u.Held, "held for tasks, gets or waits that come first"},
		{u.Stopping, "whose transfer is being stopped"},
	} {
		if p.Objects > 0 {
			parts = append(parts, fmt.Sprintf("%s in %d objects %s", extent.Human(p.Bytes), p.Objects, p.why))
		}
	}
	free := u.Capacity - u.Used + u.Evictable.Bytes
	text := fmt.Sprintf("needs %s; %s of %s can be had", what, extent.Human(min(free, u.Capacity)), extent.Human(u.Capacity))
	if len(parts) > 0 {
		text += "; there are " + strings.Join(parts, ", ")
	}
	if f.Waited > 0 {
		text += fmt.Sprintf("; waited %s", f.Waited.Round(100*time.Millisecond))
	}
	return text + "; drop refs and arrays that are no longer needed (see ray memory), or start the node with a larger --object-store-memory"
}

// Error makes a Full an error.
func (f *Full) Error() string { return f.String() }

// Why says what a live request waits for; empty if it doesn't.
func (s *State) Why(now time.Time, id uint64) string {
	r := s.reqs[id]
	if r == nil || r.status != Waiting {
		return ""
	}
	ahead := 0
	for ahead < len(s.line) && s.line[ahead] != r {
		ahead++
	}
	text := "waits for room in the object store: " + s.full(now, r).String()
	if ahead > 0 {
		text += fmt.Sprintf(" (%d requests come before it)", ahead)
	}
	return text
}
