package machine

import "testing"

func TestOOMKills(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  uint64
	}{
		{"nothing counts", nil, 0},
		{"no cgroups: the machine's count", map[string]string{"proc/vmstat": "nr_free_pages 1\noom_kill 4\n"}, 4},
		{
			"version 2",
			map[string]string{
				"proc/self/cgroup": "0::/pod/c\n", "proc/self/mountinfo": mountV2, "proc/vmstat": "oom_kill 9\n",
				"sys/fs/cgroup/pod/c/memory.events": "low 0\nhigh 0\nmax 31\noom 2\noom_kill 2\noom_group_kill 0\n",
				"sys/fs/cgroup/pod/memory.events":   "oom 5\noom_kill 5\n",
			},
			2,
		},
		{
			"version 2 in a container with a cgroup namespace",
			map[string]string{
				"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2, "proc/vmstat": "oom_kill 9\n",
				"sys/fs/cgroup/memory.events": "oom_kill 3\n",
			},
			3,
		},
		{
			"version 2, its root, which counts nothing",
			map[string]string{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2, "proc/vmstat": "oom_kill 9\n"},
			9,
		},
		{
			"version 1",
			map[string]string{
				"proc/self/cgroup": "4:memory:/job\n3:cpu,cpuacct:/x\n", "proc/self/mountinfo": mountMemory + mountCPU, "proc/vmstat": "oom_kill 9\n",
				"sys/fs/cgroup/memory/job/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n",
				"sys/fs/cgroup/memory/memory.oom_control":     "oom_kill_disable 0\nunder_oom 0\noom_kill 8\n",
			},
			7,
		},
		{
			"version 1 in a container that sees the host's path",
			map[string]string{
				"proc/self/cgroup":                        "4:memory:/kubepods/pod1/abc\n",
				"proc/self/mountinfo":                     "35 31 0:32 /kubepods/pod1/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
				"sys/fs/cgroup/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
			},
			1,
		},
		{
			"a mixture, memory in version 1",
			map[string]string{
				"proc/self/cgroup":                        "0::/a\n4:memory:/\n",
				"proc/self/mountinfo":                     mountMemory + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
				"sys/fs/cgroup/memory/memory.oom_control": "oom_kill 6\n",
			},
			6,
		},
		{
			"a file that is no count",
			map[string]string{
				"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2, "proc/vmstat": "oom_kill 2\n",
				"sys/fs/cgroup/memory.events": "oom_kill many\n",
			},
			2,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := fake(t, tc.files).oomKills(); got != tc.want {
				t.Errorf("oomKills = %d, want %d", got, tc.want)
			}
		})
	}
}

func TestBound(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"the machine", map[string]string{"proc/meminfo": meminfo}, "this machine has 16384 MiB"},
		{
			"the tightest limit",
			map[string]string{
				"proc/meminfo": meminfo, "proc/self/cgroup": "0::/pod/c\n", "proc/self/mountinfo": mountV2,
				"sys/fs/cgroup/pod/c/memory.max": "8589934592\n", "sys/fs/cgroup/pod/memory.max": "4294967296\n",
			},
			"this container's, or cgroup's, limit is 4096 MiB (/sys/fs/cgroup/pod/memory.max)",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := fake(t, tc.files).bound()
			if err != nil || got.String() != tc.want {
				t.Errorf("bound = %s, %v, want %s", got, err, tc.want)
			}
		})
	}
	if got := (Bound{}).String(); got != "how much memory there is could not be read" {
		t.Error(got)
	}
}
