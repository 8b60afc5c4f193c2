// Package engine is the deterministic heart of a node daemon: it owns the daemon's tasks, objects, references, queues
// and workers' occupation, and decides what happens next.
//
// An Engine has no goroutine, clock, socket or file. Each method is an event (what a client asked, what a worker or a
// peer did); its effects go to the Sink, in order, before the method returns. After one or more events the caller calls
// Flush, which answers waits, dispatches tasks and plans with the rest of the cluster. One caller at a time: the daemon
// holds a lock around a batch of events and its Flush; the simulator is single-threaded anyhow.
//
// Units: resources in 1/10000, sizes in bytes.
package engine

import (
	"time"

	"gray/internal/core/ids"
	"gray/internal/core/memory"
	"gray/internal/core/resource"
	"gray/internal/core/schedule"
)

type (
	// SessionID numbers a client's session in this daemon's life; 0 is none.
	SessionID uint32
	// Chan names a channel of a session.
	Chan struct {
		Session SessionID
		Chan    uint32
	}
)

// Config is what an Engine is made from.
type Config struct {
	Node     ids.NodeID
	Owner    ids.Owner
	Names    *resource.Names
	Total    resource.Set      // this node's resources
	Labels   map[string]string // this node's labels
	Memory   *memory.State     // the store's admission
	Inline   int               // largest value kept in frames, bytes
	CPUs     int               // workers to keep warm
	Credit   int64             // bytes of unfinished SUBMIT and PUT frames that a job may have here
	IdleTime time.Duration     // a surplus worker leaves after this long without work
	Seed     uint64            // for choices among equals
}

// Engine is the state. Its zero value is not ready: use New.
type Engine struct {
	cfg  Config
	sink Sink
	now  time.Time
	us   int64 // now, in microseconds since 1970
	rec  records

	nextUnique uint64
	blobs      blobs
	objs       slab[object]
	objIndex   map[objKey]uint32
	contained  map[uint32][]uint32 // what an object's value, or a task's arguments, hold; key: object
	foreign    map[uint32]*foreign // of objects that others own
	spread     map[uint32]*spread  // of own objects that others know
	waiters    slab[waiter]

	tasks      slab[task]
	remoteRun  map[runKey]uint32 // tasks here that others own, and own tasks that run elsewhere
	templates  []*template       // index 0 unused
	tmplIndex  map[string]uint32 // content hash
	freeTmpl   []uint32          // numbers of removed templates
	shapes     []*shape
	shapeTable *resource.Shapes
	shapeNo    map[resource.ShapeID]uint32

	sessions map[SessionID]*session
	lastSess SessionID
	jobs     map[ids.Job]*job
	overJobs map[ids.Job]bool // that have ended; the oldest are forgotten
	overList []ids.Job

	slots   slab[slot]
	active  []*shape // with a backlog
	turnAt  int
	asks    []*ask              // of other owners, for slots here
	covered map[uint32][]uint32 // a foreign task's refs, kept alive by its owner while it runs
	keeps   map[ids.Unique]*keep
	results map[objKey]*keep // what outputs and items contain

	pool    workers
	res     *resource.Node
	cpu     resource.Name
	peers   map[NodeNo]*peer
	peerIDs map[ids.NodeID]NodeNo
	owners  map[ids.Owner]NodeNo
	lookups map[ids.Owner][]uint32 // objects waiting to learn where their owner is
	settles map[uint64]*settle
	// dueClaims are claims to owners that are not known yet.
	dueClaims map[ids.Owner][]dueClaim
	nextSeq   uint64
	// deadOwners says why an owner number will never answer again.
	deadOwners map[ids.Owner]string

	actors      map[ids.Unique]*actorRec // by the unique of their creation
	dirtyActors []*actorRec

	envs      map[string]*environ // by TemplateSpec.Packages
	envsLoose int                 // of them, how many have no worker

	mem      *memory.State
	memBusy  bool
	bundles  map[uint32]*bundle  // of tasks that run here; key: task
	fetches  map[uint32]uint64   // requests for room for a get or a wait; key: object
	commits  map[uint64]placedAt // pages being made; key: memory key
	readers  map[uint64]int      // nodes that copy bytes which are still arriving here; key: memory key
	memKey   uint64
	memObjs  map[uint64]uint32  // memory key → object
	memWants map[uint64]memWant // memory request → who asked
	memActs  []memAct
	refetch  []refetch
	copying  map[uint64]bool // copies under way; key: memory key

	streams      map[ids.Unique]*stream // of our own generators
	yields       map[ids.Unique]*yield  // of others' that run here
	dirtyStreams []*stream
	scratchV     []Value

	dirtyChans []*channel
	dirtyQ     bool
	freeList   []uint32 // objects whose holds reached zero in this step
	scratchX   Execute
	scratchW   []*worker
	scratchS   []*shape
	spareQ     *queue // an empty one
	scratchP   []schedule.Placement
	loadDirty  bool
	demands    uint64               // what waited when the load was last looked at, as a sum
	demandsAt  time.Time            // when that was
	told       map[ids.Job]*notices // of failed attempts
	loadSeq    uint64               // counts changes of what is free here
	seen       uint64               // the one that the view shows
	rand       uint64
	fenced     bool
	view       *schedule.View
	Counts     Counts
}

// Counts are totals since the start.
type Counts struct {
	Submitted, Finished, Failed, Retried, Dispatched, Placed, SentAway uint64
}

type objKey struct {
	u ids.Unique
	i uint32
}

type runKey struct {
	u ids.Unique
}

// New makes an Engine that tells its effects to sink.
func New(cfg Config, sink Sink) *Engine {
	e := &Engine{
		cfg: cfg, sink: sink, mem: cfg.Memory,
		objIndex: map[objKey]uint32{}, contained: map[uint32][]uint32{}, foreign: map[uint32]*foreign{},
		spread: map[uint32]*spread{}, remoteRun: map[runKey]uint32{}, tmplIndex: map[string]uint32{},
		shapeTable: resource.NewShapes(), shapeNo: map[resource.ShapeID]uint32{},
		bundles: map[uint32]*bundle{}, fetches: map[uint32]uint64{}, commits: map[uint64]placedAt{}, readers: map[uint64]int{}, copying: map[uint64]bool{}, sessions: map[SessionID]*session{}, jobs: map[ids.Job]*job{}, overJobs: map[ids.Job]bool{},
		peers: map[NodeNo]*peer{}, peerIDs: map[ids.NodeID]NodeNo{}, owners: map[ids.Owner]NodeNo{},
		lookups: map[ids.Owner][]uint32{}, settles: map[uint64]*settle{}, dueClaims: map[ids.Owner][]dueClaim{},
		memObjs: map[uint64]uint32{}, memWants: map[uint64]memWant{},
		covered: map[uint32][]uint32{}, keeps: map[ids.Unique]*keep{}, results: map[objKey]*keep{}, deadOwners: map[ids.Owner]string{},
		envs: map[string]*environ{}, actors: map[ids.Unique]*actorRec{}, templates: []*template{nil}, shapes: []*shape{nil}, nextUnique: 1,
	}
	e.res = resource.NewNode(cfg.Names, cfg.Total)
	e.cpu, _ = cfg.Names.Intern("CPU")
	e.pool.init()
	e.rec.init()
	e.view, e.rand = schedule.NewView(cfg.Names), cfg.Seed
	e.seeSelf()
	return e
}

// Advance tells the time; it never goes back.
func (e *Engine) Advance(now time.Time) {
	if now.After(e.now) {
		e.now, e.us = now, now.UnixMicro()
	}
}

// IDs reserves count unused uniques of this owner, in a row.
func (e *Engine) IDs(count uint64) ids.Unique {
	u := ids.MakeUnique(e.cfg.Owner, e.nextUnique)
	e.nextUnique += count
	return u
}

// Flush carries out what the events before it made possible.
func (e *Engine) Flush() {
	for {
		e.sweep()
		e.flushActors()
		if len(e.dirtyStreams) > 0 {
			e.flushStreams()
		}
		e.flushChans()
		if e.dirtyQ {
			e.dirtyQ = false
			e.dispatch()
		} else if len(e.dirtyActors) == 0 && len(e.dirtyStreams) == 0 && len(e.freeList) == 0 && len(e.dirtyChans) == 0 {
			break
		}
	}
	if e.loadDirty {
		e.loadDirty = false
		e.sink.Load()
	}
}
