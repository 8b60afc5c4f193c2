// Package memory decides who gets bytes of a node's object store, in which order, and what has to go for it.
//
// State is pure: calls say what happened and at what time, and append to a slice of effects what must now be done. One
// goroutine owns a State. Bytes are counted and placed by core/extent; the shell makes pages exist, moves bytes and talks to
// clients.
//
// # Requests
//
// A Request asks for a bundle of objects to be here, all of them at once or none: a bundle that waits holds nothing. Requests
// are admitted in the order (class, age): creates by running tasks, gets, waits, arguments of tasks that have not started. A
// Create is over when it is granted: from then on there is only the object, until Seal or Abort. All others hold their bundle
// until End; each item with fresh bytes must be fetched and sealed. When a task whose arguments were admitted starts, Running
// says so: from then on its bundle can't be displaced.
//
// If the first in line doesn't fit, unpinned copies are evicted, oldest first; then bundles of arguments behind it in line whose
// tasks have not started give way, youngest first. Later requests may pass it with what is free, but only so many bytes (at
// least its own size), unless it waits for something that lasts anyway, such as refs in a driver. When nothing was released for
// StallAfter, passing is allowed anew; if nothing passes either and no running task could release anything, the oldest create
// fails (else the oldest get; after ArgsPatience, waits and arguments), with the sizes of what is in the way.
//
// # Objects
//
// A Key names one copy's bytes, not the object: a second attempt to make an object is another key. Bytes are reused when the
// object is freed or evicted, nobody pins it, no request holds it and its writer is done; a pin of a client that is no longer
// connected but not dead either is simply kept (its process may still read).
package memory

import (
	"fmt"
	"slices"
	"time"

	"gray/internal/core/extent"
)

// StallAfter is how long nothing must have been released before a create fails.
const StallAfter = 5 * time.Second

// ArgsPatience is how long nothing must have been released before a wait, or the arguments of a task, fail: what is in
// their way may be refs that only they and their task hold.
const ArgsPatience = 60 * time.Second

// Class orders requests: lower first.
type Class uint8

// The classes.
const (
	Create Class = iota // a running task or a driver writes an object
	Get                 // a client blocks on it
	Wait                // a client wants it fetched
	Args                // a task can't start without it
)

var classNames = [...]string{"create", "get", "wait", "arguments"}

// String names the class.
func (c Class) String() string { return classNames[c] }

// Item is an object of a bundle.
type Item struct {
	Key  uint64
	Size int64 // bytes
}

// Req is a request.
type Req struct {
	ID     uint64 // chosen by the caller, unique among live requests
	Class  Class
	Since  time.Time // its age in line: a retry may keep its place
	Owner  uint64    // the process that will write the bytes, for warm pages; 0: the daemon
	Bundle []Item    // one item for a Create
}

// Placed is an object that has just got bytes.
type Placed struct {
	Key uint64
	extent.Granted
}

// EffectKind tells what an Effect asks for.
type EffectKind uint8

// The effects, to be carried out in the order given.
const (
	// Punch: give the pages of At back to the system.
	Punch EffectKind = iota
	// Grant: request ID has its bundle. Placed lists the items that got bytes: make the pages of each Commit exist, then write or
	// fetch, then Seal. Items not listed are here already, or on their way for another request.
	Grant
	// Evict: the copy Key is gone from this node.
	Evict
	// Displace: request ID lost its bundle and waits in line again. It will be granted anew.
	Displace
	// Abandon: nobody needs Key any more while it is being fetched: stop, and call Abort when nothing writes to it any more.
	Abandon
	// Fail: request ID is over; Full says why.
	Fail
)

var effectNames = [...]string{"punch", "grant", "evict", "displace", "abandon", "fail"}

// String names the effect.
func (k EffectKind) String() string { return effectNames[k] }

// Effect is one thing to be done.
type Effect struct {
	Kind   EffectKind
	ID     uint64        // Grant, Displace, Fail
	Key    uint64        // Evict, Abandon
	At     extent.Extent // Punch
	Placed []Placed      // Grant
	Full   *Full         // Fail
}

// Status is where a request stands.
type Status uint8

// The statuses of a live request.
const (
	Waiting Status = iota // in line, holds nothing
	Granted               // holds its bundle, may be displaced if its class is Args
	Running               // its task runs: holds its bundle to the end
)

var statusNames = [...]string{"waiting", "granted", "running"}

// String names the status.
func (s Status) String() string { return statusNames[s] }

// req is a live request.
type req struct {
	Req
	asked     time.Time // when it came
	status    Status
	need      int64  // bytes of all its items
	passed    int64  // bytes that others got before it while it was the first in line
	displaced uint64 // the release count when others were displaced for it
	reliefs   int    // how often others were let past it after a stall
}

// before is the order of the line.
func (r *req) before(o *req) bool { return compare(r, o) < 0 }

func compare(r, o *req) int {
	if r.Class != o.Class {
		return int(r.Class) - int(o.Class)
	}
	if c := r.Since.Compare(o.Since); c != 0 {
		return c
	}
	switch {
	case r.ID < o.ID:
		return -1
	case r.ID > o.ID:
		return 1
	}
	return 0
}

// State is a node's object store as far as decisions go.
type State struct {
	alloc       *extent.Alloc
	objects     map[uint64]*object
	reqs        map[uint64]*req
	line        []*req // waiting, in order
	idle        []*req // granted Args, in order: may be displaced
	lru         list   // evictable copies, coldest first
	shares      [nStanding]Share
	lastRelease time.Time
	releases    uint64 // counts them, from 1
	lastRelief  time.Time
}

// New makes the State of a store of capacity bytes in an address range of space bytes.
func New(space, capacity int64) *State {
	return &State{alloc: extent.New(space, capacity), objects: map[uint64]*object{}, reqs: map[uint64]*req{}, releases: 1}
}

// Capacity is the store's size in bytes.
func (s *State) Capacity() int64 { return s.alloc.Capacity() }

// Used is the number of bytes of it that hold objects, evictable ones included.
func (s *State) Used() int64 { return s.alloc.Used() }

// Request asks for a bundle. The answer is a Grant or a Fail, now or later.
func (s *State) Request(now time.Time, q Req, out []Effect) []Effect {
	if s.reqs[q.ID] != nil {
		panic(fmt.Sprintf("memory: request %d comes twice", q.ID))
	}
	r := &req{Req: q, asked: now}
	r.Bundle = distinct(q.Bundle)
	if q.Class == Create {
		if len(r.Bundle) != 1 || s.objects[r.Bundle[0].Key] != nil {
			panic(fmt.Sprintf("memory: create %d of %v: one new key is wanted", q.ID, r.Bundle))
		}
	}
	pages := s.pages(r.Bundle)
	for _, it := range r.Bundle {
		r.need += needs(it.Size)
	}
	if pages > s.alloc.Capacity() {
		f := s.full(now, r)
		f.TooBig = true
		return append(out, Effect{Kind: Fail, ID: q.ID, Full: f})
	}
	s.reqs[q.ID] = r
	s.enqueue(r)
	return s.pump(now, out)
}

// Take is a Create that doesn't wait: false means that there is no room, or that others wait for it. For small values, which
// the daemon can keep elsewhere.
func (s *State) Take(now time.Time, it Item, owner uint64, out []Effect) (Placed, bool, []Effect) {
	if s.objects[it.Key] != nil {
		panic(fmt.Sprintf("memory: key %d is taken twice", it.Key))
	}
	if len(s.line) > 0 || it.Size < 0 || needs(it.Size) > s.alloc.Capacity()-s.blocked() {
		return Placed{}, false, out
	}
	var placed []Placed
	placed, out = s.place([]Item{it}, owner, out)
	if placed == nil {
		return Placed{}, false, out
	}
	s.add(it, placed[0].Extent, false)
	return placed[0], true, out
}

// End ends a request in whatever status it is; of an unknown one (a granted Create, a failed one) it does nothing. What the
// request held becomes evictable, unless something else keeps it.
func (s *State) End(now time.Time, id uint64, out []Effect) []Effect {
	r := s.reqs[id]
	if r == nil {
		return out
	}
	delete(s.reqs, id)
	out = s.letGo(now, r, out)
	return s.pump(now, out)
}

// letGo takes r out of the line, or its bundle from it.
func (s *State) letGo(now time.Time, r *req, out []Effect) []Effect {
	switch r.status {
	case Waiting:
		s.line = remove(s.line, r)
		return out
	case Granted:
		if r.Class == Args {
			s.idle = remove(s.idle, r)
		}
	case Running:
	}
	for _, it := range r.Bundle {
		out = s.unhold(now, s.objects[it.Key], r.status == Running, out)
	}
	r.status = Waiting
	return out
}

// Running says that the task of a granted request starts. False: it isn't granted (any more), so the task must not start.
func (s *State) Running(id uint64) bool {
	r := s.reqs[id]
	if r == nil || r.status == Waiting {
		return false
	}
	if r.status == Granted {
		if r.Class == Args {
			s.idle = remove(s.idle, r)
		}
		r.status = Running
		for _, it := range r.Bundle {
			o := s.objects[it.Key]
			s.change(o, func() { o.running++ })
		}
	}
	return true
}

// Idle takes Running back: the task was taken back from its worker before it started.
func (s *State) Idle(now time.Time, id uint64, out []Effect) []Effect {
	r := s.reqs[id]
	if r == nil || r.status != Running {
		return out
	}
	r.status = Granted
	if r.Class == Args {
		s.idle = insert(s.idle, r)
	}
	for _, it := range r.Bundle {
		o := s.objects[it.Key]
		s.change(o, func() { o.running-- })
	}
	return s.pump(now, out)
}

// StatusOf is where a request stands; false if there is none (any more).
func (s *State) StatusOf(id uint64) (Status, bool) {
	r := s.reqs[id]
	if r == nil {
		return 0, false
	}
	return r.status, true
}

// Forget says that a process is dead: its warm pages are anybody's. Its pins and unsealed objects are the caller's to undo.
func (s *State) Forget(owner uint64) { s.alloc.Forget(owner) }

// Trim gives pages of free bytes back to the system until at most keep warm bytes are left: for an idle node.
func (s *State) Trim(keep int64, out []Effect) []Effect {
	s.alloc.Trim(keep)
	return s.punches(out)
}

func (s *State) punches(out []Effect) []Effect {
	for _, e := range s.alloc.Punched() {
		out = append(out, Effect{Kind: Punch, At: e})
	}
	return out
}

func (s *State) enqueue(r *req) { s.line = insert(s.line, r) }

func insert(l []*req, r *req) []*req {
	i, _ := slices.BinarySearchFunc(l, r, compare)
	return slices.Insert(l, i, r)
}

func remove(l []*req, r *req) []*req {
	i, found := slices.BinarySearchFunc(l, r, compare)
	if !found {
		panic(fmt.Sprintf("memory: %s request %d (%s) is not in its line", r.status, r.ID, r.Class))
	}
	return slices.Delete(l, i, i+1)
}

// distinct copies a bundle without repetitions: a task may get one object as several arguments.
func distinct(bundle []Item) []Item {
	if len(bundle) == 1 {
		return []Item{bundle[0]}
	}
	seen := make(map[uint64]bool, len(bundle))
	out := make([]Item, 0, len(bundle))
	for _, it := range bundle {
		if !seen[it.Key] {
			seen[it.Key] = true
			out = append(out, it)
		}
	}
	return out
}

// pages is what a bundle takes of the capacity when it is alone; more than the capacity if that is absurd.
func (s *State) pages(bundle []Item) int64 {
	if len(bundle) == 1 && bundle[0].Size > extent.SmallMax && bundle[0].Size <= s.alloc.Capacity() {
		return extent.Rounded(bundle[0].Size)
	}
	left := s.alloc.Capacity()
	for _, it := range bundle {
		if it.Size < 0 || it.Size > left {
			return s.alloc.Capacity() + 1
		}
		left -= it.Size
	}
	return extent.Pages(func(yield func(int64) bool) {
		for _, it := range bundle {
			if !yield(it.Size) {
				return
			}
		}
	})
}

// needs is what an item adds to the bytes used: about its size if it shares a chunk with others.
func needs(size int64) int64 {
	if size <= extent.SmallMax {
		return max(size, extent.Align)
	}
	return extent.Rounded(size)
}
