package head

import "time"

// Clock tells the time and wakes. Tests and the simulator have their own.
type Clock interface {
	// Now is the time with its monotonic part.
	Now() time.Time
	// AfterFunc calls f once, d from now, on a goroutine of its own, unless stop is called before.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// SystemClock is the machine's clock.
type SystemClock struct{}

// Now is time.Now.
func (SystemClock) Now() time.Time { return time.Now() }

// AfterFunc is time.AfterFunc.
func (SystemClock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	return time.AfterFunc(d, f).Stop
}
