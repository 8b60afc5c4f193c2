package sim

import (
	"math/rand/v2"
	"time"
)

// Config is what a seed makes of a world.
type Config struct {
	Seed      uint64
	Nodes     int
	Late      int // of these, how many join later
	Drivers   int
	Ops       int // of each driver
	CPUs      []int
	Capacity  int64 // of each store, bytes
	Large     int   // largest value, bytes
	Heavy     bool  // half of the values are large
	Credit    int64
	Crash     float64 // that a worker dies in a step of its program
	NodeDeath bool    // nodes die, leave, or lose their lease
	Cuts      bool    // links break and come back
	Lossy     bool    // links are linkstate machines over a network that loses and duplicates
	BadCopy   float64 // that a copy fails
	SlowPages bool    // pages take a while to be made
	NoPages   float64 // that pages cannot be made
	Strategy  bool    // tasks with SPREAD and node affinity
	Custom    bool    // tasks with custom resources and GPUs
	Depth     int     // of nested calls
	Frozen    bool    // drivers die rather than end
	Check     int     // every how many events of an engine its structure is checked
	Cancel    float64 // of what programs do, how much is cancelling
	Actors    float64 // of what programs do, how much is about actors
	Murder    float64 // that an actor's process is killed from outside while it lives
	HeadDeath bool    // the head is started again from its store

	MaxActors int           // made in the world, about
	Names     int           // that actors have
	Each      int           // actors that each driver makes, in a world that is about nothing else
	Spared    float64       // of nodes and links, how many nothing happens to
	HeadEvery time.Duration // about how long a head lives
	MaxEvents int           // more than any such world needs that ends
	Rows      int           // of the cluster view a second; 0 = the head's default
}

// MakeConfig draws a world from a seed. The lowest bits choose what goes wrong, so that a run of seeds has every mix.
func MakeConfig(seed uint64) Config {
	r := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	c := Config{
		Seed: seed, Nodes: 1 + r.IntN(4), Drivers: 1 + r.IntN(3), Ops: 10 + r.IntN(40), Capacity: 64 << 20, Large: 300_000, Credit: 16 << 20,
		Depth: r.IntN(4), Check: 1, MaxActors: 60, Names: 3, HeadEvery: 700 * time.Millisecond, MaxEvents: 1_000_000,
	}
	if seed%8 == 0 {
		c.Nodes = 1
	}
	for range c.Nodes {
		c.CPUs = append(c.CPUs, 1+r.IntN(3))
	}
	multi := c.Nodes > 1
	if multi && r.IntN(3) == 0 {
		c.Late = 1 + r.IntN(c.Nodes-1)
	}
	c.Strategy, c.Custom = multi && r.IntN(2) == 0, r.IntN(2) == 0
	c.Cuts, c.SlowPages = multi && r.IntN(3) == 0, r.IntN(3) == 0
	c.Lossy = multi && r.IntN(4) == 0
	if seed%2 == 1 { // faults
		if r.IntN(2) == 0 {
			c.Crash = []float64{0.002, 0.01, 0.03}[r.IntN(3)]
		}
		c.NodeDeath = multi && r.IntN(2) == 0
		if r.IntN(3) == 0 {
			c.BadCopy = 0.1
		}
		if r.IntN(4) == 0 {
			c.NoPages = 0.05
		}
		c.Frozen = r.IntN(3) == 0
	}
	c.Heavy = r.IntN(2) == 0
	switch r.IntN(5) {
	case 0:
		c.Capacity, c.Heavy = 1<<20, true
	case 1:
		c.Capacity = 2 << 20
	case 2:
		c.Capacity = 6 << 20
	}
	if r.IntN(4) == 0 {
		c.Credit = 1 << 20
	}
	if r.IntN(3) > 0 {
		c.Actors = []float64{0.1, 0.3, 0.6}[r.IntN(3)]
		c.HeadDeath = r.IntN(4) == 0
		if seed%2 == 1 && r.IntN(2) == 0 {
			c.Murder = []float64{0.1, 0.4}[r.IntN(2)]
		}
	}
	if r.IntN(2) == 0 {
		c.Cancel = []float64{0.03, 0.15}[r.IntN(2)]
	}
	return c
}

// limit is how long nothing may happen, but time pass, while somebody waits.
const limit = 200 * time.Second
