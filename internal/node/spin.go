package node

import "time"

const (
	// spinLimit is how long a wait is spun for at most. A client that calls and waits, again and again, lets 20–40 µs pass
	// between two frames, an event loop up to 80.
	spinLimit = 100 * time.Microsecond
	// shortWait is a wait that would have been spun through: sleeping and waking add to what is measured.
	shortWait = 200 * time.Microsecond
	// spinAfter is how many short waits in a row make it worth a try.
	spinAfter = 16
	// spinCost is how many short waits one spin in vain takes back.
	spinCost = 8
)

// spinner decides whether a thread that waits for frames spins before it sleeps. To sleep and be woken costs each side of a
// call more than the call itself, so between calls that follow each other at once it pays to stay awake; where frames come
// less often, or others need the CPU, it does not.
type spinner struct {
	alone bool // one CPU only: who spins keeps the others from running
	score int  // short waits that are believed to come
}

// spins says whether to spin now.
func (s *spinner) spins() bool { return s.score >= spinAfter }

// slept notes a wait without spinning.
func (s *spinner) slept(d time.Duration) {
	switch {
	case s.alone:
	case d > shortWait:
		s.score = 0
	case s.score < spinAfter:
		s.score++
	}
}

// spun notes a wait that began with spinning: whether frames came before the limit.
func (s *spinner) spun(hit bool) {
	switch {
	case !hit:
		s.score -= spinCost
	case s.score < spinAfter+3*spinCost:
		s.score++
	}
}
