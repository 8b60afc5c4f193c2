package pool

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// oomCounter reads how many processes the kernel has killed because memory ran out: those of this process's memory
// cgroup, or of the machine if the cgroup does not count.
type oomCounter struct {
	kills func() uint64

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

func oomKills() uint64 {
	for _, path := range oomFiles() {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // another layout of cgroups: the next file is tried
		}
		for line := range strings.Lines(string(b)) {
			if name, value, _ := strings.Cut(strings.TrimSpace(line), " "); name == "oom_kill" {
				if n, err := strconv.ParseUint(value, 10, 64); err == nil {
					return n
				}
			}
		}
	}
	return 0
}

// oomFiles are where a count may be found, the closest first. In a container the cgroup's own path may not be mounted.
func oomFiles() []string {
	var files []string
	b, err := os.ReadFile("/proc/self/cgroup")
	if err == nil {
		for line := range strings.Lines(string(b)) {
			parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
			switch {
			case len(parts) != 3:
			case parts[1] == "memory":
				files = append(files,
					filepath.Join("/sys/fs/cgroup/memory", parts[2], "memory.oom_control"), "/sys/fs/cgroup/memory/memory.oom_control")
			case parts[0] == "0":
				files = append(files,
					filepath.Join("/sys/fs/cgroup", parts[2], "memory.events"), "/sys/fs/cgroup/memory.events")
			}
		}
	}
	return append(files, "/proc/vmstat")
}
