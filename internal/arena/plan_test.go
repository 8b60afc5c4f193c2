package arena

import (
	"strings"
	"testing"

	"gray/internal/core/fault"
)

func TestPlan(t *testing.T) {
	const gib = 1 << 30
	for _, tc := range []struct {
		name              string
		c                 Config
		memory, shm, disk int64
		dir               string
		capacity          int64
		warns             bool
	}{
		{"default", Config{Fallback: "/f"}, 100 * gib, 100 * gib, gib, "/dev/shm", 30 * gib, false},
		{"default, at most 200 GB", Config{}, 4096 * gib, 4096 * gib, 0, "/dev/shm", 200_000_000_000, false},
		{"default, capped by shared memory", Config{Fallback: "/f"}, 100 * gib, 20 * gib, 900 * gib, "/dev/shm", 19 * gib, false},
		{"default in a container with 64 MiB", Config{Fallback: "/f"}, 100 * gib, 64 * mib, 900 * gib, "/f", 30 * gib, true},
		{"default, little disk too", Config{Fallback: "/f"}, 100 * gib, 64 * mib, 20 * gib, "/f", 10 * gib, true},
		{"asked for and there", Config{Capacity: 19 * gib, Fallback: "/f"}, 100 * gib, 20 * gib, 900 * gib, "/dev/shm", 19 * gib, false},
		{"asked for and not there", Config{Capacity: 20 * gib, Fallback: "/f"}, 100 * gib, 20 * gib, 900 * gib, "/f", 20 * gib, true},
		{"a folder of the user's", Config{Capacity: gib, ShmDir: "/x"}, 100 * gib, 20 * gib, 0, "/x", gib, false},
		{"a small machine", Config{Fallback: "/f"}, gib, gib / 2, 10 * gib, "/dev/shm", gib / 100 * 30, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.c.ShmDir == "" {
				tc.c.ShmDir = "/dev/shm"
			}
			p, err := plan(tc.c, tc.memory, tc.shm, tc.disk)
			if err != nil {
				t.Fatal(err)
			}
			if p.Dir != tc.dir || p.Capacity > tc.capacity || p.Capacity < tc.capacity-4096 || (p.Warning != "") != tc.warns {
				t.Errorf("plan = %+v, want %d bytes in %s", p, tc.capacity, tc.dir)
			}
			if tc.warns && (!strings.Contains(p.Warning, "/dev/shm has ") || !strings.Contains(p.Warning, "--shm-size")) {
				t.Errorf("warning %q does not say what is small and what to do", p.Warning)
			}
		})
	}
}

func TestNoRoomAnywhere(t *testing.T) {
	for _, c := range []Config{
		{Capacity: 20 << 30, ShmDir: "/dev/shm", Fallback: "/f"},
		{Capacity: 20 << 30, ShmDir: "/dev/shm"},
	} {
		_, err := plan(c, 100<<30, 64*mib, 1<<30)
		if fault.KindOf(err) != fault.StoreFull || !strings.Contains(err.Error(), "20.0 GiB") {
			t.Errorf("plan(%+v) = %v", c, err)
		}
	}
}

func TestMakePlanOnThisMachine(t *testing.T) {
	p, err := MakePlan(Config{Capacity: mib, Fallback: t.TempDir()})
	if err != nil || p.Capacity != mib {
		t.Errorf("MakePlan = %+v, %v", p, err)
	}
	if p, err = MakePlan(Config{Fallback: t.TempDir()}); err != nil || p.Capacity < 1<<20 {
		t.Errorf("default MakePlan = %+v, %v", p, err)
	}
	q, err := MakePlan(Config{Capacity: mib, ShmDir: "/nonexistent", Fallback: t.TempDir()})
	if err != nil || q.Warning == "" {
		t.Errorf("without shared memory: %+v, %v", q, err)
	}
	if _, err := MakePlan(Config{Fallback: "/nonexistent"}); err == nil {
		t.Error("no error for a session folder that does not exist")
	}
}
