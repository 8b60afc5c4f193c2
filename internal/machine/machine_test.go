package machine

import (
	"os"
	"path/filepath"
	"testing"
)

const gib = 1 << 30

const meminfo = "MemTotal:       16777216 kB\nMemFree:         8388608 kB\n"

const (
	mountV2     = "31 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
	mountMemory = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
	mountCPU    = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
)

// fake writes files below a folder of the test's own.
func fake(t *testing.T, files map[string]string) tree {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		full := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return tree{root}
}

func TestLimits(t *testing.T) {
	for _, tc := range []struct {
		name     string
		files    map[string]string
		affinity int
		memory   int64
		cpus     int
	}{
		{
			"no cgroups at all",
			map[string]string{"proc/meminfo": meminfo},
			8, 16 * gib, 8,
		},
		{
			"version 2, no limits",
			map[string]string{
				"proc/meminfo": meminfo, "proc/self/cgroup": "0::/user.slice\n", "proc/self/mountinfo": mountV2,
				"sys/fs/cgroup/user.slice/memory.max": "max\n", "sys/fs/cgroup/user.slice/cpu.max": "max 100000\n",
			},
			8, 16 * gib, 8,
		},
		{
			"version 2, the parent is tighter",
			map[string]string{
				"proc/meminfo": meminfo, "proc/self/cgroup": "0::/pod/c\n", "proc/self/mountinfo": mountV2,
				"sys/fs/cgroup/pod/c/memory.max": "8589934592\n", "sys/fs/cgroup/pod/c/cpu.max": "400000 100000\n",
				"sys/fs/cgroup/pod/memory.max": "4294967296\n", "sys/fs/cgroup/pod/cpu.max": "250000 100000\n",
			},
			8, 4 * gib, 2,
		},
		{
			"version 2 in a container with a cgroup namespace",
			map[string]string{
				"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2,
				"sys/fs/cgroup/memory.max": "2147483648\n", "sys/fs/cgroup/cpu.max": "50000 100000\n",
			},
			8, 2 * gib, 1,
		},
		{
			"version 1",
			map[string]string{
				"proc/meminfo":        meminfo,
				"proc/self/cgroup":    "4:memory:/job\n3:cpu,cpuacct:/job\n1:name=systemd:/x\n",
				"proc/self/mountinfo": mountMemory + mountCPU,
				"sys/fs/cgroup/memory/memory.limit_in_bytes":      "9223372036854771712\n",
				"sys/fs/cgroup/memory/job/memory.limit_in_bytes":  "3221225472\n",
				"sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us":  "300000\n",
				"sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
				"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us":      "-1\n",
				"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us":     "100000\n",
			},
			8, 3 * gib, 3,
		},
		{
			"version 1 in a container that sees the host's path",
			map[string]string{
				"proc/meminfo":        meminfo,
				"proc/self/cgroup":    "4:memory:/kubepods/pod1/abc\n",
				"proc/self/mountinfo": "35 31 0:32 /kubepods/pod1/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
				"sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n",
			},
			2, gib, 2,
		},
		{
			"version 1 path that can't be seen",
			map[string]string{
				"proc/meminfo":        meminfo,
				"proc/self/cgroup":    "4:memory:/docker/abc\n",
				"proc/self/mountinfo": mountMemory,
				"sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n",
			},
			2, gib, 2,
		},
		{
			"a mixture: memory in version 1, CPU in version 2",
			map[string]string{
				"proc/meminfo":        meminfo,
				"proc/self/cgroup":    "4:memory:/\n0::/a\n",
				"proc/self/mountinfo": mountMemory + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
				"sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n",
				"sys/fs/cgroup/unified/a/cpu.max":            "600000 100000\n",
			},
			16, gib, 6,
		},
		{
			"no affinity: counted in cpuinfo",
			map[string]string{"proc/meminfo": meminfo, "proc/cpuinfo": "processor\t: 0\nmodel: x\n\nprocessor\t: 1\n"},
			0, 16 * gib, 2,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := fake(t, tc.files)
			if got, err := m.bound(); err != nil || got.Bytes != tc.memory {
				t.Errorf("memory = %d, %v, want %d", got.Bytes, err, tc.memory)
			}
			if got, err := m.cpus(tc.affinity); err != nil || got != tc.cpus {
				t.Errorf("cpus = %d, %v, want %d", got, err, tc.cpus)
			}
		})
	}
}

func TestNoProc(t *testing.T) {
	if _, err := fake(t, nil).bound(); err == nil {
		t.Error("no error without /proc/meminfo")
	}
	if _, err := fake(t, nil).cpus(0); err == nil {
		t.Error("no error without affinity and /proc/cpuinfo")
	}
}

func TestThisMachine(t *testing.T) {
	if m, err := Memory(); err != nil || m < 64<<20 {
		t.Errorf("Memory() = %d, %v", m, err)
	}
	if n, err := CPUs(); err != nil || n < 1 {
		t.Errorf("CPUs() = %d, %v", n, err)
	}
}
