package headstate

import (
	"gray/internal/core/actor"
	"gray/internal/core/ids"
)

// Kind is the first byte of a message between a daemon and the head. Values go on the wire: append only. All have the
// top bit set, so that one link may carry other traffic beside them.
type Kind uint8

// Kinds of messages from a daemon to the head.
const (
	KindRegister Kind = 0x80 + iota
	KindLease
	KindLeave
	KindReport
	KindSubscribe
	KindViewAck
	KindKVGet
	KindKVPut
	KindKVDel
	KindKVExists
	KindKVList
	KindJobStart
	KindJobEnd
	KindLookup
	KindNodes
	KindJobs
	KindTotals
	KindActorRegister
	KindActorUpdate
	KindActorWatch
	KindActorGet
	KindActorList
	KindActorNames
	KindActorKill
)

// Kinds of messages from the head to a daemon.
const (
	KindRegistered Kind = 0xc0 + iota
	KindRefused
	KindRegisterAgain
	KindLeaseAck
	KindLeft
	KindNodeDead
	KindJobEnded
	KindSnapshot
	KindDelta
	KindKVValue
	KindKVAdded
	KindKVDeleted
	KindKVFound
	KindKVKeys
	KindJobStarted
	KindDone
	KindOwned
	KindNodeList
	KindJobList
	KindTotal
	KindFailed
	KindActorRegistered
	KindActorGot
	KindActorRows
	KindActorNameList
	KindActorChanged
	KindActorDo
	KindActorAdopt
)

// Message is what a daemon and the head send each other. Messages are pointers to the structs of this file and are not
// changed once they are sent. Their fields travel in the order in which they stand here.
type Message interface{ Kind() Kind }

// Call is a message that is answered by exactly one Answer with the same number.
type Call interface {
	Message
	Number() uint64
	// Numbered is a copy of the call with another number.
	Numbered(req uint64) Call
}

// Answer is the head's answer to a Call.
type Answer interface {
	Message
	Number() uint64
}

// Resources are quantities by resource name, in 1/10000 of a unit (bytes for memory and object_store_memory).
type Resources = map[string]int64

// ClusterID names a cluster for ever: its first head draws it, its store keeps it.
type ClusterID [28]byte

// NodeInfo is what a daemon says about itself; it stays the same for the daemon's life.
type NodeInfo struct {
	ID          ids.NodeID
	Epoch       uint64 // the daemon's incarnation
	IP          string
	Hostname    string
	Name        string
	Port        int // links of other daemons
	ObjectPort  int
	MetricsPort int
	AgentPort   int
	PID         int
	Head        bool // the daemon runs in the head's process
	Socket      string
	Total       Resources
	Labels      map[string]string
	Guest       bool // it is there for one driver, and runs nothing for others
}

// Inventory is what a daemon still holds when it registers. The head answers with what of it is gone.
type Inventory struct {
	Cluster ClusterID    // zero for a daemon that has never been registered
	Owner   ids.Owner    // its owner number, 0 for none yet
	Jobs    []ids.Job    // jobs of its drivers, its workers and its tasks
	Drivers []ids.Job    // jobs whose driver is connected to it
	Peers   []ids.NodeID // daemons that it has links, claims or tasks with
	Actors  []actor.Row  // those that it manages, none that is DEAD
}

// Register asks the head to take the daemon in, or to take it back after a link or the head was lost.
type Register struct {
	Node      NodeInfo
	Inventory Inventory
}

// Registered takes a daemon in.
type Registered struct {
	Cluster     ClusterID
	SessionName string
	Owner       ids.Owner
	LeaseMs     int64        // renew this often
	DeadMs      int64        // after this much silence the head declares the daemon dead
	EndedJobs   []ids.Job    // of the inventory: end what runs for them
	DeadPeers   []ids.NodeID // of the inventory: dead, or never known
}

// Reasons of a Refused.
const (
	RefusedFenced  = "fenced"  // declared dead: start afresh with a new node id
	RefusedCluster = "cluster" // this head leads another cluster: start afresh
	RefusedInvalid = "invalid" // the registration breaks a rule
	RefusedLimit   = "limit"
	RefusedEnded   = "ended" // the head was stopped, and its cluster with it: start afresh, and join the next one
)

// Refused tells a daemon that the head won't have it, for ever.
type Refused struct {
	Reason string
	Error  string // a sentence: why, and what to do
}

// RegisterAgain tells a daemon that the head heard from it before it (re-)registered.
type RegisterAgain struct{}

// Lease renews the daemon's lease.
type Lease struct {
	Seq uint64
}

// LeaseAck answers a Lease.
type LeaseAck struct {
	Seq uint64
}

// Leave ends a daemon's membership in an orderly way; Left answers it.
type Leave struct {
	Message string
}

// Left says that the daemon is no longer a member.
type Left struct{}

// DeathReason says why a node is dead. Values are those that Ray's ray.nodes() shows.
type DeathReason uint8

// Death reasons.
const (
	NotDead               DeathReason = 0
	ExpectedTermination   DeathReason = 1
	UnexpectedTermination DeathReason = 2
)

// NodeDead tells every daemon that a node is dead, and which owner numbers died with it.
type NodeDead struct {
	Node    ids.NodeID
	Owners  []ids.Owner
	Reason  DeathReason
	Message string
}

// Demand is the number of tasks of one shape that wait at a daemon.
type Demand struct {
	Shape      Resources
	Count      int64
	Infeasible bool   // no node that the daemon knows could ever run it
	Reason     string // why it waits, for people
}

// Report is a daemon's load. A daemon sends one when something changed, coalesced.
type Report struct {
	Available Resources
	Queued    int64 // tasks that wait at this daemon
	Demands   []Demand
}

// Subscribe starts or ends the flow of the cluster view to the daemon: a Snapshot, then Deltas.
type Subscribe struct {
	On bool
}

// ViewAck says that the view up to Version is applied; the head sends the next Delta only then.
type ViewAck struct {
	Version uint64
}

// NodeView is what the view says of a live node.
type NodeView struct {
	ID        ids.NodeID
	Info      *NodeInfo // nil in a Delta if the receiver has it already
	Owner     ids.Owner
	Available Resources
	Queued    int64
}

// Snapshot is the whole view; it replaces what the receiver had.
type Snapshot struct {
	Version uint64
	Nodes   []NodeView
}

// Delta is what changed in the view since the version that the receiver acknowledged last.
type Delta struct {
	From    uint64
	Version uint64
	Changed []NodeView
	Gone    []ids.NodeID
}

// KVGet asks for a value; answered by KVValue.
type KVGet struct {
	Req     uint64
	NS, Key string
}

// KVPut stores a value; answered by KVAdded once it is safe.
type KVPut struct {
	Req       uint64
	NS, Key   string
	Value     []byte
	Overwrite bool
}

// KVDel removes a key, or all keys with a prefix; answered by KVDeleted once it is safe.
type KVDel struct {
	Req     uint64
	NS, Key string
	Prefix  bool
}

// KVExists asks whether a key is there; answered by KVFound.
type KVExists struct {
	Req     uint64
	NS, Key string
}

// KVList asks for the keys with a prefix; answered by KVKeys.
type KVList struct {
	Req        uint64
	NS, Prefix string
}

// KVValue answers KVGet.
type KVValue struct {
	Req   uint64
	Found bool
	Value []byte
}

// KVAdded answers KVPut: Added is true if the key was not there before.
type KVAdded struct {
	Req   uint64
	Added bool
}

// KVDeleted answers KVDel with the number of keys that were removed.
type KVDeleted struct {
	Req     uint64
	Deleted int64
}

// KVFound answers KVExists.
type KVFound struct {
	Req    uint64
	Exists bool
}

// KVKeys answers KVList, sorted.
type KVKeys struct {
	Req  uint64
	Keys []string
}

// Driver is what is kept of a job's driver.
type Driver struct {
	PID        int
	IP         string
	Namespace  string
	Entrypoint string
	Metadata   map[string]string
}

// JobStart asks for a job id; answered by JobStarted once the id is safe. The same Key gives the same job again.
type JobStart struct {
	Req    uint64
	Key    [16]byte
	Driver Driver
	// Packages are the names of the packages of its environment, which stay as long as the job runs.
	Packages []string
}

// JobStarted answers JobStart.
type JobStarted struct {
	Req uint64
	Job ids.Job
}

// JobEnd ends a job; answered by Done. Ending an ended job changes nothing.
type JobEnd struct {
	Req     uint64
	Job     ids.Job
	Failed  bool
	Message string
}

// JobEnded tells every daemon that a job is over.
type JobEnded struct {
	Job     ids.Job
	Message string
}

// Done answers a call that has nothing to say.
type Done struct {
	Req uint64
}

// Lookup asks which node holds an owner number's table or, with Owner 0, where a node is; answered by Owned.
type Lookup struct {
	Req   uint64
	Owner ids.Owner
	Node  ids.NodeID
}

// Owned answers Lookup. Version grows whenever any owner number changes hands or dies.
type Owned struct {
	Req        uint64
	Owner      ids.Owner
	Alive      bool // false: the owner is dead, Message says how
	Node       ids.NodeID
	IP         string
	Port       int
	ObjectPort int
	Message    string
	Version    uint64
}

// Nodes asks for the node table; answered by NodeList.
type Nodes struct {
	Req uint64
}

// NodeRow is a node in NodeList: live ones, and the last 1,000 dead.
type NodeRow struct {
	Info         NodeInfo
	Owner        ids.Owner
	Alive        bool
	DeathReason  DeathReason
	DeathMessage string
	StartMs      int64 // Unix time
	EndMs        int64 // Unix time, 0 while alive
	Available    Resources
}

// NodeList answers Nodes, in the order in which the nodes joined.
type NodeList struct {
	Req   uint64
	Nodes []NodeRow
}

// Jobs asks for the job table; answered by JobList.
type Jobs struct {
	Req uint64
}

// JobRow is a job in JobList.
type JobRow struct {
	ID      ids.Job
	Key     [16]byte
	Node    ids.NodeID
	Driver  Driver
	State   JobState
	Message string
	StartMs int64 // Unix time
	EndMs   int64 // Unix time, 0 while running
	Virtual bool  // a detached actor's own: people aren't shown it, and it ends with the actor
	// Packages are those that the job needs while it runs.
	Packages []string
}

// JobList answers Jobs, by job id.
type JobList struct {
	Req  uint64
	Jobs []JobRow
}

// Totals asks for the sums over all live nodes; answered by Total.
type Totals struct {
	Req uint64
}

// Total answers Totals.
type Total struct {
	Req       uint64
	Total     Resources
	Available Resources
}

// Failed answers a call that could not be done.
type Failed struct {
	Req   uint64
	Fault string // a fault.Kind
	Error string
}

// ActorRegister tells of an actor that has a name or is detached, before it is made; answered by ActorRegistered, or by
// Failed with the fault NAME_TAKEN. The same actor may be registered again: a call is sent again on a new link.
type ActorRegister struct {
	Req         uint64
	Row         actor.Row
	GetIfExists bool     // the one that has the name will do
	Spec        []byte   // of a detached actor: what another daemon needs to make it
	Packages    []string // of a detached actor: as those of a job
}

// ActorRegistered answers ActorRegister. If Created, Row is the registered actor's, and its Job is the job that it
// belongs to: a detached one gets a job of its own. If not, Row is that of the actor that has the name.
type ActorRegistered struct {
	Req     uint64
	Created bool
	Row     actor.Row
}

// ActorUpdate says where an actor stands, from its manager. An empty Meta leaves what is known.
type ActorUpdate struct {
	Row actor.Row
}

// ActorWatch asks to be told where an actor stands, now and whenever that changes, or no longer. A watch ends with the
// actor's death and with the registration of the daemon.
type ActorWatch struct {
	ID ids.ActorID
	On bool
}

// ActorGet asks for an actor, by its id or, if that is zero, by name; answered by ActorGot.
type ActorGet struct {
	Req             uint64
	ID              ids.ActorID
	Name, Namespace string
}

// ActorGot answers ActorGet. A dead actor is found by its id only. Watchers are nodes whose clients call it.
type ActorGot struct {
	Req      uint64
	Found    bool
	Row      actor.Row
	Watchers []ids.NodeID
}

// ActorList asks for the actor table; answered by ActorRows.
type ActorList struct {
	Req uint64
}

// ActorRows answers ActorList, by id: actors that live, and those that died last. Without what only machines read: Meta
// and pickled exceptions.
type ActorRows struct {
	Req  uint64
	Rows []actor.Row
}

// ActorNames asks for the names in use in a namespace ("" = all); answered by ActorNameList.
type ActorNames struct {
	Req       uint64
	Namespace string
}

// ActorNameList answers ActorNames: namespace and name of each, sorted.
type ActorNameList struct {
	Req   uint64
	Names [][2]string
}

// ActorKill ends an actor, or only its present incarnation; answered by Done when its manager is being told.
type ActorKill struct {
	Req       uint64
	ID        ids.ActorID
	NoRestart bool
}

// ActorChanged tells who watches an actor where it stands.
type ActorChanged struct {
	Row actor.Row
}

// ActorDo tells an actor's manager to kill it.
type ActorDo struct {
	ID        ids.ActorID
	NoRestart bool
}

// ActorAdopt makes a daemon the manager of a detached actor whose manager died. It may come again while the daemon has
// not spoken of the actor.
type ActorAdopt struct {
	Row  actor.Row
	Spec []byte
}
