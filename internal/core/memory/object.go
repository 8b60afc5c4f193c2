package memory

import (
	"fmt"
	"time"

	"gray/internal/core/extent"
)

// ObjectState is what an object's bytes are good for.
type ObjectState uint8

// The states. Spilling and Spilled have no transitions yet.
const (
	Writing   ObjectState = iota // not sealed: a client or a fetch writes
	Abandoned                    // a fetch that was told to stop, and has not said that it did
	Primary                      // sealed, the copy that must not be lost
	Copy                         // sealed, there is another elsewhere: evictable when nobody uses it
	Freed                        // needed by no ref; its bytes wait for pins, holders or its writer
	Gone                         // its bytes are free
	Spilling
	Spilled
)

var stateNames = [...]string{"writing", "abandoned", "primary", "copy", "freed", "gone", "spilling", "spilled"}

// String names the state.
func (o ObjectState) String() string { return stateNames[o] }

// transitions lists every change of state there is.
var transitions = map[[2]ObjectState]string{
	{Writing, Primary}:   "sealed by the client that made it",
	{Writing, Copy}:      "fetched",
	{Writing, Abandoned}: "nobody needs the fetch any more",
	{Writing, Freed}:     "its refs are gone before it is sealed",
	{Writing, Gone}:      "its writer gave up",
	{Abandoned, Copy}:    "the fetch was complete before it could stop",
	{Abandoned, Freed}:   "its refs are gone before the fetch has stopped",
	{Abandoned, Gone}:    "the fetch has stopped",
	{Primary, Copy}:      "another copy is the primary one now",
	{Primary, Freed}:     "its refs are gone, but somebody reads it",
	{Primary, Gone}:      "its refs are gone",
	{Copy, Primary}:      "this copy is the primary one now",
	{Copy, Freed}:        "its refs are gone, but somebody reads it",
	{Copy, Gone}:         "evicted, or its refs are gone",
	{Freed, Gone}:        "nobody reads or writes it any more",
}

// object is one copy's bytes.
type object struct {
	key        uint64
	size       int64
	at         extent.Extent
	state      ObjectState
	writer     bool // somebody may write to the bytes
	fetch      bool // the writer is a fetch
	told       bool // the fetch was told to stop
	bare       bool // its pages could not be made
	pins       int  // clients' views
	holds      int  // granted requests, running ones included
	running    int  // running requests
	prev, next *object
	listed     bool
}

// standing is what stands in the way of an object's bytes.
type standing uint8

const (
	evictable standing = iota // nothing
	held                      // arguments of tasks that have not started, gets and waits
	inUse                     // arguments of running tasks
	abandoned                 // a fetch that is being stopped
	creating                  // a client that writes
	primary                   // refs
	pinned                    // views of copies, or of what no ref names any more
	nStanding
)

func (o *object) standing() standing {
	switch {
	case o.writer && !o.fetch:
		return creating
	case o.writer && (o.told || o.holds == 0):
		return abandoned
	case o.state == Primary:
		return primary
	case o.pins > 0:
		return pinned
	case o.running > 0:
		return inUse
	case o.holds > 0:
		return held
	}
	return evictable
}

// change is the only way to alter an object: it keeps the sums and the eviction list true.
func (s *State) change(o *object, f func()) {
	was := o.standing()
	f()
	is := o.standing()
	if was == is {
		return
	}
	s.shares[was].add(-1, -o.at.Size)
	s.shares[is].add(1, o.at.Size)
	if was == evictable {
		s.lru.remove(o)
	}
	if is == evictable {
		s.lru.push(o)
	}
}

func (s *State) move(o *object, to ObjectState) {
	s.change(o, func() { s.moveInside(o, to) })
}

// moveInside is move for use inside change.
func (s *State) moveInside(o *object, to ObjectState) {
	if transitions[[2]ObjectState{o.state, to}] == "" {
		panic(fmt.Sprintf("memory: object %d (%d bytes at %d) can't go from %s to %s", o.key, o.size, o.at.Off, o.state, to))
	}
	o.state = to
}

// add enters an object that has just got bytes.
func (s *State) add(it Item, at extent.Extent, fetch bool) *object {
	o := &object{key: it.Key, size: it.Size, at: at, writer: true, fetch: fetch}
	if fetch {
		o.holds = 1
	}
	s.objects[it.Key] = o
	s.shares[o.standing()].add(1, at.Size)
	return o
}

// drop frees an object's bytes. Whether that is a release is the caller's to say: an eviction is none.
func (s *State) drop(o *object) {
	s.move(o, Gone)
	is := o.standing()
	s.shares[is].add(-1, -o.at.Size)
	if is == evictable {
		s.lru.remove(o)
	}
	delete(s.objects, o.key)
	if o.bare {
		s.alloc.Uncommitted(o.at.Off)
	} else {
		s.alloc.Free(o.at.Off)
	}
}

// settle does what is due when a user of o has gone.
func (s *State) settle(now time.Time, o *object, out []Effect) []Effect {
	if o.pins > 0 || o.holds > 0 {
		return out
	}
	switch {
	case o.writer && o.fetch && !o.told:
		o.told = true
		if o.state == Writing {
			s.move(o, Abandoned)
		}
		out = append(out, Effect{Kind: Abandon, Key: o.key})
	case o.writer:
	case o.state == Freed:
		s.drop(o)
		s.released(now)
	case o.state == Copy:
		s.released(now)
	}
	return out
}

func (s *State) released(now time.Time) {
	s.lastRelease = now
	s.releases++
}

func (s *State) hold(o *object) { s.change(o, func() { o.holds++ }) }

func (s *State) unhold(now time.Time, o *object, running bool, out []Effect) []Effect {
	s.change(o, func() {
		o.holds--
		if running {
			o.running--
		}
	})
	return s.settle(now, o, out)
}

// Seal says that an object's bytes are written, and won't be written to again. False if there is no such unsealed object.
func (s *State) Seal(now time.Time, key uint64, isPrimary bool, out []Effect) (bool, []Effect) {
	o := s.objects[key]
	if o == nil || !o.writer {
		return false, out
	}
	s.change(o, func() {
		o.writer = false
		switch {
		case o.state == Freed:
		case o.state == Writing && isPrimary:
			s.moveInside(o, Primary)
		default:
			s.moveInside(o, Copy)
		}
	})
	out = s.settle(now, o, out)
	return true, s.pump(now, out)
}

// Abort says that whoever wrote an unsealed object has stopped, and its bytes are void. Requests that hold it wait in line
// again; so a caller that won't try another source ends them first. False if there is no such unsealed object.
func (s *State) Abort(now time.Time, key uint64, out []Effect) (bool, []Effect) {
	o := s.objects[key]
	if o == nil || !o.writer {
		return false, out
	}
	stopped := o.state == Abandoned // bytes that move from one request to another are no progress
	s.change(o, func() { o.writer = false })
	for _, r := range s.holders(o) {
		out = s.displace(now, r, out)
	}
	if s.objects[key] == o { // a freed one has gone with its last holder
		s.drop(o)
	}
	if !stopped {
		s.released(now)
	}
	return true, s.pump(now, out)
}

// Uncommitted says that the pages of an object that was just granted could not be made: the system has less memory than the
// store's capacity. The object is gone; requests that hold it fail (a Create's creator is told by the caller).
func (s *State) Uncommitted(now time.Time, key uint64, out []Effect) []Effect {
	o := s.objects[key]
	if o == nil || !o.writer {
		return out
	}
	s.change(o, func() { o.writer, o.bare = false, true })
	for _, r := range s.holders(o) {
		f := s.full(now, r)
		f.NoPages = true
		out = append(out, Effect{Kind: Fail, ID: r.ID, Full: f})
		delete(s.reqs, r.ID)
		out = s.letGo(now, r, out)
	}
	if s.objects[key] == o {
		s.drop(o)
	}
	return s.pump(now, out)
}

// holders are the requests that hold o, in no order that matters to them. It scans: aborts are rare.
func (s *State) holders(o *object) []*req {
	if o.holds == 0 {
		return nil
	}
	var rs []*req
	for _, r := range s.reqs {
		if r.status == Waiting {
			continue
		}
		for _, it := range r.Bundle {
			if it.Key == o.key {
				rs = insert(rs, r)
			}
		}
	}
	return rs
}

// Pin counts n views of a sealed object. False if there is none: it was evicted or freed meanwhile.
func (s *State) Pin(key uint64, n int) bool {
	o := s.objects[key]
	if o == nil || o.writer || n < 0 {
		return false
	}
	s.change(o, func() { o.pins += n })
	return true
}

// Unpin takes n views back. Taking back more than there are is a bug of the caller, which counts them per client.
func (s *State) Unpin(now time.Time, key uint64, n int, out []Effect) []Effect {
	o := s.objects[key]
	if o == nil || n < 0 || o.pins < n {
		panic(fmt.Sprintf("memory: %d pins of object %d are taken back: %+v", n, key, o))
	}
	s.change(o, func() { o.pins -= n })
	out = s.settle(now, o, out)
	return s.pump(now, out)
}

// Free says that no ref needs an object. Its bytes are free as soon as nobody reads or writes them.
func (s *State) Free(now time.Time, key uint64, out []Effect) []Effect {
	o := s.objects[key]
	if o == nil || o.state == Freed {
		return out
	}
	s.move(o, Freed)
	out = s.settle(now, o, out)
	return s.pump(now, out)
}

// Promote makes a copy the primary one. False if there is no such copy.
func (s *State) Promote(key uint64) bool {
	o := s.objects[key]
	if o == nil || (o.state != Copy && o.state != Primary) {
		return false
	}
	if o.state == Copy {
		s.move(o, Primary)
	}
	return true
}

// Demote says that the primary copy is elsewhere: this one may be evicted.
func (s *State) Demote(now time.Time, key uint64, out []Effect) []Effect {
	o := s.objects[key]
	if o == nil || o.state != Primary {
		return out
	}
	s.move(o, Copy)
	out = s.settle(now, o, out)
	return s.pump(now, out)
}

// Object is what is known of an object.
type Object struct {
	State   ObjectState
	Size    int64
	At      extent.Extent
	Pins    int
	Holders int  // granted requests
	Sealed  bool // nobody writes to it
}

// Lookup finds an object.
func (s *State) Lookup(key uint64) (Object, bool) {
	o := s.objects[key]
	if o == nil {
		return Object{}, false
	}
	return Object{o.state, o.size, o.at, o.pins, o.holds, !o.writer}, true
}

// list is the eviction list: coldest first.
type list struct {
	first, last *object
	bytes       int64
}

func (l *list) push(o *object) {
	o.prev, o.next, o.listed = l.last, nil, true
	if l.last != nil {
		l.last.next = o
	} else {
		l.first = o
	}
	l.last = o
	l.bytes += o.at.Size
}

func (l *list) remove(o *object) {
	if !o.listed {
		panic(fmt.Sprintf("memory: object %d is not in the eviction list", o.key))
	}
	if o.prev != nil {
		o.prev.next = o.next
	} else {
		l.first = o.next
	}
	if o.next != nil {
		o.next.prev = o.prev
	} else {
		l.last = o.prev
	}
	o.prev, o.next, o.listed = nil, nil, false
	l.bytes -= o.at.Size
}
