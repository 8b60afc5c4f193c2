package machine

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

// OOMKills is how many processes the kernel has killed because memory ran out: those of this process's own memory cgroup,
// or of the whole machine if no cgroup counts. Only its growth says something.
func OOMKills() uint64 { return tree{"/"}.oomKills() }

// Bound is what this process and its children may have of memory at most, and what says so.
type Bound struct {
	Bytes int64
	File  string // the cgroup's file that holds the limit; "" if it is the machine that has no more
}

// String words it for a message.
func (b Bound) String() string {
	switch {
	case b.Bytes <= 0:
		return "how much memory there is could not be read"
	case b.File == "":
		return "this machine has " + MiB(b.Bytes)
	}
	return fmt.Sprintf("this container's, or cgroup's, limit is %s (%s)", MiB(b.Bytes), b.File)
}

// MiB words a number of bytes in whole MiB.
func MiB(bytes int64) string { return strconv.FormatInt(bytes>>20, 10) + " MiB" }

// MemoryBound is as Memory, and says where the number comes from.
func MemoryBound() (Bound, error) { return tree{"/"}.bound() }

// oomKills reads oom_kill of memory.oom_control (version 1), of memory.events (version 2), or of /proc/vmstat.
func (t tree) oomKills() uint64 {
	for _, g := range t.groups() {
		name := "memory.events"
		if g.v1 {
			if !g.controllers["memory"] {
				continue
			}
			name = "memory.oom_control"
		}
		if n, ok := t.counter(path.Join(g.dirs[0], name)); ok {
			return n
		}
	}
	n, _ := t.counter("/proc/vmstat") // a kernel that counts nothing never says that it killed: 0 is all that is known
	return n
}

// counter finds oom_kill in a file of names and numbers.
func (t tree) counter(name string) (uint64, bool) {
	b, err := t.read(name)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if key, value, _ := strings.Cut(strings.TrimSpace(line), " "); key == "oom_kill" {
			n, err := strconv.ParseUint(value, 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
