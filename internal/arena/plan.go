package arena

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"gray/internal/core/extent"
	"gray/internal/core/fault"
	"gray/internal/machine"
)

const (
	// MinCapacity is the smallest object store that ray.init and ray start accept.
	MinCapacity = 75 << 20
	// maxDefault is the largest capacity that nobody asked for.
	maxDefault = 200_000_000_000
	// memoryPercent of the memory is the default capacity.
	memoryPercent = 30
	// shmSpare: one part in so many of what /dev/shm has free is left alone.
	shmSpare = 20
)

// Config says what a caller wants of an arena.
type Config struct {
	Capacity int64  // bytes; 0: 30 % of the memory, at most 200 GB and what /dev/shm has
	ShmDir   string // default /dev/shm
	Fallback string // a folder of the session, for when ShmDir is too small
}

// Plan is where an arena will be and how large.
type Plan struct {
	Capacity int64 // bytes
	Dir      string
	Warning  string // a sentence for the user, or empty
}

// MakePlan decides size and place. A file on disk is used only if shared memory has less room than was asked for, or, when
// nobody asked, less than a quarter of what is usual: disk works, but the kernel writes every object to it.
func MakePlan(c Config) (Plan, error) {
	memory, err := machine.Memory()
	if err != nil {
		return Plan{}, err
	}
	if c.ShmDir == "" {
		c.ShmDir = "/dev/shm"
	}
	disk := int64(0)
	if c.Fallback != "" {
		if disk, err = freeIn(c.Fallback); err != nil {
			return Plan{}, &fault.Error{Op: "arena.MakePlan", Kind: fault.System, Ref: c.Fallback, Err: err, Detail: "can't tell how much is free"}
		}
	}
	shm, err := freeIn(c.ShmDir)
	if err != nil {
		shm = 0 // no shared memory: the fallback's business
	}
	return plan(c, memory, shm, disk)
}

// plan is MakePlan's decision: memory of the container, free bytes of shared memory and of the fallback's disk.
func plan(c Config, memory, shm, disk int64) (Plan, error) {
	room := shm - shm/shmSpare
	want := c.Capacity
	if want <= 0 {
		usual := min(memory/100*memoryPercent, maxDefault)
		if room >= max(usual/4, MinCapacity) {
			return Plan{Capacity: min(usual, room), Dir: c.ShmDir}, nil
		}
		want = usual
		if c.Fallback != "" {
			want = min(want, disk/2) // nobody asked for all of the disk
		}
	}
	if want <= room {
		return Plan{Capacity: want, Dir: c.ShmDir}, nil
	}
	small := fmt.Sprintf("%s has %s free, too little for an object store of %s", c.ShmDir, extent.Human(shm), extent.Human(want))
	more := "give the container more shared memory (docker run --shm-size=…, on Kubernetes an emptyDir of medium Memory at /dev/shm)"
	if c.Fallback == "" || want > disk {
		return Plan{}, &fault.Error{
			Op: "arena.MakePlan", Kind: fault.StoreFull, Ref: c.Fallback,
			Detail: fmt.Sprintf("%s, and so has the session's folder with %s; %s, or ask for a smaller --object-store-memory", small, extent.Human(disk), more),
		}
	}
	return Plan{
		Capacity: want, Dir: c.Fallback,
		Warning: fmt.Sprintf("%s: objects go to a file in %s instead, which is slower. To avoid this, %s.", small, c.Fallback, more),
	}, nil
}

func freeIn(dir string) (int64, error) {
	var fs unix.Statfs_t
	if err := interruptible(func() error { return unix.Statfs(dir, &fs) }); err != nil {
		return 0, err
	}
	if fs.Blocks == 0 {
		return math.MaxInt64 / 2, nil // a tmpfs without a limit
	}
	return int64(fs.Bavail) * fs.Bsize, nil
}
