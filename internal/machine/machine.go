// Package machine tells how much memory and how many CPUs this process may use: what the container was given, not what the
// machine has. It reads cgroups of version 1, 2 and mixtures of both, and the scheduler's affinity mask.
package machine

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Memory is the number of bytes of memory that this process and its children may use: the machine's, or the smallest limit of
// the cgroups it is in.
func Memory() (int64, error) {
	b, err := MemoryBound()
	return b.Bytes, err
}

// CPUs is the number of CPUs that this process may use, at least 1: those of its affinity mask (which includes cpusets), or
// its cgroups' quota, rounded down, if that is less.
func CPUs() (int, error) {
	var mask unix.CPUSet
	n := 0
	if err := unix.SchedGetaffinity(0, &mask); err == nil {
		n = mask.Count()
	}
	return tree{"/"}.cpus(n)
}

// InPod tells whether this process runs in a pod of a Kubernetes cluster.
func InPod() bool { return os.Getenv("KUBERNETES_SERVICE_HOST") != "" }

// tree is a file system that looks like "/": a test's own, or the real one.
type tree struct{ root string }

func (t tree) read(name string) ([]byte, error) { return os.ReadFile(filepath.Join(t.root, name)) }

func (t tree) bound() (Bound, error) {
	info, err := t.read("/proc/meminfo")
	if err != nil {
		return Bound{}, fmt.Errorf("how much memory the machine has: %w", err)
	}
	total := int64(0)
	if _, after, ok := bytes.Cut(info, []byte("MemTotal:")); ok {
		line, _, _ := bytes.Cut(after, []byte("\n"))
		if f := bytes.Fields(line); len(f) > 0 {
			kib, err := strconv.ParseInt(string(f[0]), 10, 64)
			if err == nil {
				total = kib << 10
			}
		}
	}
	if total <= 0 {
		return Bound{}, fmt.Errorf("how much memory the machine has: /proc/meminfo has no MemTotal")
	}
	b := Bound{Bytes: total}
	for _, g := range t.groups() {
		name := "memory.max"
		if g.v1 {
			if !g.controllers["memory"] {
				continue
			}
			name = "memory.limit_in_bytes"
		}
		for _, dir := range g.dirs {
			file := path.Join(dir, name)
			if limit, ok := t.number(file); ok && limit > 0 && limit < b.Bytes {
				b = Bound{Bytes: limit, File: file}
			}
		}
	}
	return b, nil
}

// cpus is affinity (0: unknown), lowered to the cgroups' quota.
func (t tree) cpus(affinity int) (int, error) {
	n := affinity
	if n <= 0 {
		info, err := t.read("/proc/cpuinfo")
		if err != nil {
			return 0, fmt.Errorf("how many CPUs the machine has: %w", err)
		}
		n = max(1, bytes.Count(info, []byte("\nprocessor"))+bytes.Count(info[:min(len(info), 9)], []byte("processor")))
	}
	for _, g := range t.groups() {
		for _, dir := range g.dirs {
			quota, period, ok := t.quota(g, dir)
			if ok && quota > 0 && period > 0 {
				n = min(n, int(max(1, quota/period)))
			}
		}
	}
	return n, nil
}

// quota is the CPU time, in microseconds, that a cgroup may use in each period.
func (t tree) quota(g group, dir string) (quota, period int64, ok bool) {
	if g.v1 {
		if !g.controllers["cpu"] {
			return 0, 0, false
		}
		quota, ok = t.number(path.Join(dir, "cpu.cfs_quota_us")) // -1: none
		if !ok {
			return 0, 0, false
		}
		period, ok = t.number(path.Join(dir, "cpu.cfs_period_us"))
		return quota, period, ok
	}
	b, err := t.read(path.Join(dir, "cpu.max"))
	if err != nil {
		return 0, 0, false
	}
	f := strings.Fields(string(b))
	if len(f) != 2 {
		return 0, 0, false
	}
	quota, err1 := strconv.ParseInt(f[0], 10, 64) // "max": none
	period, err2 := strconv.ParseInt(f[1], 10, 64)
	return quota, period, err1 == nil && err2 == nil
}

// number reads a file that holds one number. What is no number ("max") or does not exist (a root cgroup has no limits) is no
// limit.
func (t tree) number(name string) (int64, bool) {
	b, err := t.read(name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n, err == nil
}

// group is a hierarchy that this process is in.
type group struct {
	v1          bool
	controllers map[string]bool
	dirs        []string // the process's directory and those above it, as far as they can be seen
}

func (t tree) groups() []group {
	own, err := t.read("/proc/self/cgroup")
	if err != nil {
		return nil // no cgroups in this kernel
	}
	mounts, err := t.read("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var out []group
	lines := bufio.NewScanner(bytes.NewReader(own))
	for lines.Scan() {
		f := strings.SplitN(lines.Text(), ":", 3) // number:controllers:path
		if len(f) != 3 {
			continue
		}
		g := group{v1: f[1] != "", controllers: map[string]bool{}}
		for c := range strings.SplitSeq(f[1], ",") {
			g.controllers[c] = true
		}
		if g.v1 && !g.controllers["memory"] && !g.controllers["cpu"] {
			continue
		}
		root, point, ok := findMount(mounts, g)
		if !ok {
			continue
		}
		g.dirs = t.dirsOf(root, point, f[2])
		out = append(out, g)
	}
	return out
}

// findMount finds where a hierarchy is mounted, and which of its directories is the mount's root.
func findMount(mounts []byte, g group) (root, point string, ok bool) {
	lines := bufio.NewScanner(bytes.NewReader(mounts))
	for lines.Scan() {
		before, after, found := strings.Cut(lines.Text(), " - ")
		f, kind := strings.Fields(before), strings.Fields(after)
		if !found || len(f) < 5 || len(kind) < 3 {
			continue
		}
		switch {
		case !g.v1 && kind[0] == "cgroup2":
			return unescape(f[3]), unescape(f[4]), true
		case g.v1 && kind[0] == "cgroup":
			for option := range strings.SplitSeq(kind[2], ",") {
				if g.controllers[option] {
					return unescape(f[3]), unescape(f[4]), true
				}
			}
		}
	}
	return "", "", false
}

// dirsOf lists a cgroup's directory and its parents up to the mount point. A container often can't see its own path below the
// mount (no cgroup namespace, or another process's mount): then the mount point is the container's cgroup.
func (t tree) dirsOf(root, point, own string) []string {
	rel := own
	if root != "/" {
		trimmed, below := strings.CutPrefix(own, root)
		if !below || (trimmed != "" && trimmed[0] != '/') {
			return []string{point}
		}
		rel = trimmed
	}
	var dirs []string
	for rel = path.Clean("/" + rel); rel != "/"; rel = path.Dir(rel) {
		dir := path.Join(point, rel)
		if _, err := os.Stat(filepath.Join(t.root, dir)); err == nil {
			dirs = append(dirs, dir)
		}
	}
	return append(dirs, point)
}

// unescape undoes mountinfo's octal escapes of blanks.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
