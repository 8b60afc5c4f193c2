package rpc

import (
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Budget bounds the connections that all servers of a process hold, so that files, workers and the arena keep their
// descriptors whatever comes in from outside.
type Budget struct {
	max int
	log *slog.Logger

	mu       sync.Mutex
	used     int       // guarded by mu
	refused  int       // guarded by mu; since the last line
	lastLine time.Time // guarded by mu
}

// quiet is the shortest time between two lines about refused connections.
const quiet = 30 * time.Second

// NewBudget allows max connections.
func NewBudget(max int, log *slog.Logger) *Budget { return &Budget{max: max, log: log} }

// DefaultBudget leaves a quarter of the process's descriptors, at least 128 and at most 4096, for what isn't a
// connection.
func DefaultBudget(log *slog.Logger) *Budget {
	limit := 1024
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err == nil {
		limit = int(min(r.Cur, 1<<20))
	}
	reserve := min(max(limit/4, 128), 4096)
	return NewBudget(max(limit-reserve, limit/2), log)
}

// Acquire takes one descriptor, or reports that there is none left.
func (b *Budget) Acquire() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used >= b.max {
		return false
	}
	b.used++
	return true
}

// Release gives one back.
func (b *Budget) Release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used--
}

// Used is how many are taken.
func (b *Budget) Used() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Refuse counts a connection that another listener of this process turned away.
func (b *Budget) Refuse(server, why string) { b.refuse(server, why) }

// refuse counts a connection that was turned away, and says so once in a while.
func (b *Budget) refuse(server, why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refused++
	now := time.Now()
	if now.Sub(b.lastLine) < quiet {
		return
	}
	b.log.Warn("at the connection limit: those that show no credential give way, then new ones are refused; if they are wanted, raise ulimit -n",
		"server", server, "why", why, "open", b.used, "limit", b.max, "refused", b.refused)
	b.lastLine, b.refused = now, 0
}

// limiter stops the guessing of tokens: an address that shows more than burst wrong ones within a window is not listened
// to for the rest of it. Loopback is exempt, or any local user could lock out the others; there the token's 256 bits do.
type limiter struct {
	now func() time.Time

	mu     sync.Mutex
	start  time.Time      // guarded by mu
	failed map[string]int // guarded by mu; by address, since start
}

const (
	limitBurst  = 100
	limitWindow = time.Minute
	limitAddrs  = 10000 // addresses remembered; beyond that strangers share one count
)

func (l *limiter) key(addr string) string {
	if now := l.now(); l.failed == nil || now.Sub(l.start) >= limitWindow {
		l.start, l.failed = now, map[string]int{}
	}
	if _, ok := l.failed[addr]; !ok && len(l.failed) >= limitAddrs {
		return ""
	}
	return addr
}

func (l *limiter) blocked(addr string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed[l.key(addr)] >= limitBurst
}

func (l *limiter) fail(addr string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed[l.key(addr)]++
}
