package pool

import (
	"os"
	"strconv"
	"strings"
	"sync"
)

// oomCounter tells of processes that died by SIGKILL whether the kernel can have killed them because memory ran out.
type oomCounter struct {
	kills func() uint64 // how many it has killed so far

	mu    sync.Mutex
	last  uint64 // guarded by mu
	spare uint64 // guarded by mu; kills counted but not yet ascribed to a death
}

// read takes the present count as the base.
func (c *oomCounter) read() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last, c.spare = c.kills(), 0
}

// struck says whether a process that just died by SIGKILL can have been a victim: each kill counted explains one death.
func (c *oomCounter) struck() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.kills()
	if now > c.last {
		c.spare += now - c.last
	}
	c.last = now
	if c.spare == 0 {
		return false
	}
	c.spare--
	return true
}

// oomScoreAdj is what workers get, 0 for no change: the daemon's own, as a container's may be high already and only more
// is allowed to everyone, and what the configuration adds.
func (p *Pool) oomScoreAdj() int {
	if p.cfg.OOMScoreAdj == 0 {
		return 0
	}
	own := 0
	if b, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil {
		own, err = strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			own = 0
		}
	}
	return min(own+p.cfg.OOMScoreAdj, 1000)
}
