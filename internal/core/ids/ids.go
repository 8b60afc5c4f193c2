// Package ids holds the binary identifiers of jobs, tasks, objects and nodes, sized and shown as Ray's.
//
// A TaskID is 8 unique bytes followed by 16 bytes that name the actor (12 bytes, all ff for a plain task) and the job
// (4 bytes). The unique bytes, read big-endian, are 24 bits of owner number and 40 bits of counter: whoever holds an
// ObjectID knows which daemon owns it without asking a directory.
package ids

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// Sizes in bytes.
const (
	JobSize    = 4
	ActorSize  = 16
	TaskSize   = 24
	ObjectSize = 28
	NodeSize   = 28
)

// CounterBits is the width of a unique's counter; the bits above it are the owner number.
const CounterBits = 40

// MaxOwner is the largest owner number.
const MaxOwner = 1<<24 - 1

type (
	// Unique is the cluster-wide unique part of a task or put: owner number and counter.
	Unique uint64
	// Owner is the number of a daemon's owner table. 0 is never given out.
	Owner uint32
	// Job is a job's 4 bytes as they stand in ids.
	Job [JobSize]byte
	// TaskID names a task.
	TaskID [TaskSize]byte
	// ObjectID names one output of a task, or a put.
	ObjectID [ObjectSize]byte
	// NodeID names a daemon's life.
	NodeID [NodeSize]byte
	// ActorID names an actor: the unique of its creation, four zero bytes, and its job.
	ActorID [ActorSize]byte
)

// MakeUnique joins an owner number and a counter.
func MakeUnique(o Owner, counter uint64) Unique {
	return Unique(uint64(o)<<CounterBits | counter&(1<<CounterBits-1))
}

// Owner is the number of the owner table that u belongs to.
func (u Unique) Owner() Owner { return Owner(u >> CounterBits) }

// Counter is u without its owner number.
func (u Unique) Counter() uint64 { return uint64(u) & (1<<CounterBits - 1) }

// Task is the id of the plain task (or put) u of a job.
func (u Unique) Task(job Job) TaskID {
	var t TaskID
	binary.BigEndian.PutUint64(t[:8], uint64(u))
	for i := 8; i < 20; i++ {
		t[i] = 0xff
	}
	copy(t[20:], job[:])
	return t
}

// Object is the id of output index (from 1) of the plain task (or put) u of a job.
func (u Unique) Object(job Job, index uint32) ObjectID {
	t := u.Task(job)
	return t.Object(index)
}

// Actor is the id of the actor whose creation is u.
func (u Unique) Actor(job Job) (a ActorID) {
	binary.BigEndian.PutUint64(a[:8], uint64(u))
	copy(a[12:], job[:])
	return a
}

// Unique is the unique part of the actor's creation.
func (a ActorID) Unique() Unique { return Unique(binary.BigEndian.Uint64(a[:8])) }

// Job is the job part of the id.
func (a ActorID) Job() Job { return Job(a[12:]) }

// Task is the id of the call u of the actor.
func (a ActorID) Task(u Unique) (t TaskID) {
	binary.BigEndian.PutUint64(t[:8], uint64(u))
	copy(t[8:], a[:])
	return t
}

// Handle is the id of the object that counts the actor's handles.
func (a ActorID) Handle() ObjectID { t := a.Task(a.Unique()); return t.Object(1) }

// String is the id in hexadecimal.
func (a ActorID) String() string { return hex.EncodeToString(a[:]) }

// Unique is the unique part of the id.
func (t TaskID) Unique() Unique { return Unique(binary.BigEndian.Uint64(t[:8])) }

// Job is the job part of the id.
func (t TaskID) Job() Job { return Job(t[20:24]) }

// Object is the id of the task's output index, counted from 1.
func (t TaskID) Object(index uint32) ObjectID {
	var o ObjectID
	copy(o[:], t[:])
	binary.LittleEndian.PutUint32(o[TaskSize:], index)
	return o
}

// String is the id in hexadecimal.
func (t TaskID) String() string { return hex.EncodeToString(t[:]) }

// Unique is the unique part of the id.
func (o ObjectID) Unique() Unique { return Unique(binary.BigEndian.Uint64(o[:8])) }

// Owner is the owner number in the id.
func (o ObjectID) Owner() Owner { return o.Unique().Owner() }

// Job is the job part of the id.
func (o ObjectID) Job() Job { return Job(o[20:24]) }

// Index is the output's number, from 1.
func (o ObjectID) Index() uint32 { return binary.LittleEndian.Uint32(o[TaskSize:]) }

// Task is the id of the task (or put) that makes the object.
func (o ObjectID) Task() TaskID { return TaskID(o[:TaskSize]) }

// String is the id in hexadecimal.
func (o ObjectID) String() string { return hex.EncodeToString(o[:]) }

// String is the id in hexadecimal.
func (n NodeID) String() string { return hex.EncodeToString(n[:]) }

// String is the job in hexadecimal.
func (j Job) String() string { return hex.EncodeToString(j[:]) }

// JobFromInt is the job with number n.
func JobFromInt(n uint32) (j Job) {
	binary.LittleEndian.PutUint32(j[:], n)
	return j
}

// ParseNode reads a NodeID's hexadecimal form.
func ParseNode(s string) (n NodeID, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != NodeSize {
		return n, fmt.Errorf("node id %q: want %d hexadecimal digits", s, 2*NodeSize)
	}
	return NodeID(b), nil
}

// ParseObject reads an ObjectID's hexadecimal form.
func ParseObject(s string) (o ObjectID, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != ObjectSize {
		return o, fmt.Errorf("object id %q: want %d hexadecimal digits", s, 2*ObjectSize)
	}
	return ObjectID(b), nil
}

// ParseActor reads an ActorID's hexadecimal form.
func ParseActor(s string) (a ActorID, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != ActorSize {
		return a, fmt.Errorf("actor id %q: want %d hexadecimal digits", s, 2*ActorSize)
	}
	return ActorID(b), nil
}

// List is a packed list of object ids that aliases the frame it came in.
type List []byte

// Len is the number of ids.
func (l List) Len() int { return len(l) / ObjectSize }

// At is the i-th id.
func (l List) At(i int) ObjectID { return ObjectID(l[i*ObjectSize : (i+1)*ObjectSize]) }
