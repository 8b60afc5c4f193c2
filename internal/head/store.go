package head

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"gray/internal/core/headstate"
	"gray/internal/wire"
)

// Op changes one key of a store.
type Op struct {
	Key    []byte
	Value  []byte
	Delete bool
}

// Batch is applied whole or not at all.
type Batch struct {
	Fence uint64
	Ops   []Op
}

// ErrFenced says that another head has opened the store since: this one must end.
var ErrFenced = errors.New("another head has taken over this store")

// Store keeps what a head must not forget.
type Store interface {
	// LoadAll calls yield with each key and value, in any order, and gives the fence that this head's batches must
	// carry. key and value are the callee's to keep. It is called once, before Append.
	LoadAll(yield func(key, value []byte) error) (fence uint64, err error)
	// Append starts to commit a batch, without waiting for a disk, and calls done once, from any goroutine: with nil
	// when the batch is safe, or with an error when none of it is known to be. The head appends the next batch only
	// then; it may append the same batch again. done does not block.
	Append(b Batch, done func(error))
	// Close waits for the batch under way.
	Close() error
}

// Tables are the first byte of a key.
const (
	tableMeta = 'm'
	tableNode = 'n'
	tableJob  = 'j'
	tableKV   = 'k'

	tableActor     = 'a'
	tableActorSpec = 's'
)

func encodeKey(r headstate.Record) []byte {
	switch r := r.(type) {
	case *headstate.Meta:
		return []byte{tableMeta}
	case *headstate.NodeRow:
		return append([]byte{tableNode}, r.Info.ID[:]...)
	case *headstate.JobRow:
		return append([]byte{tableJob}, r.ID[:]...)
	case *headstate.ActorRecord:
		return append([]byte{tableActor}, r.Row.ID[:]...)
	case *headstate.ActorSpec:
		return append([]byte{tableActorSpec}, r.ID[:]...)
	case *headstate.KVRecord:
		k := binary.AppendUvarint([]byte{tableKV}, uint64(len(r.NS)))
		return append(append(k, r.NS...), r.Key...)
	}
	panic(fmt.Sprintf("head: a record of unknown type %T", r))
}

func encodeOps(ops []headstate.Op) []Op {
	out := make([]Op, len(ops))
	for i, op := range ops {
		out[i] = Op{Key: encodeKey(op.Rec), Delete: op.Delete}
		if op.Delete {
			continue
		}
		out[i].Value = appendArray(nil, op.Rec)
	}
	return out
}

func decodeRecord(key, value []byte) (headstate.Record, error) {
	if len(key) == 0 {
		return nil, errors.New("an empty key")
	}
	var r headstate.Record
	switch key[0] {
	case tableMeta:
		r = new(headstate.Meta)
	case tableNode:
		r = new(headstate.NodeRow)
	case tableJob:
		r = new(headstate.JobRow)
	case tableKV:
		r = new(headstate.KVRecord)
	case tableActor:
		r = new(headstate.ActorRecord)
	case tableActorSpec:
		r = new(headstate.ActorSpec)
	default:
		return nil, fmt.Errorf("a key of unknown table %q", key[0])
	}
	if err := wire.Unmarshal(value, r); err != nil {
		return nil, fmt.Errorf("key %x: %w", key, err)
	}
	return r, nil
}

// MemStore keeps everything in memory, for tests and simulations in which a head restarts.
type MemStore struct {
	mu    sync.Mutex
	data  map[string][]byte // guarded by mu
	fence uint64            // guarded by mu
}

// NewMemStore is an empty store.
func NewMemStore() *MemStore { return &MemStore{data: map[string][]byte{}} }

// LoadAll implements Store.
func (m *MemStore) LoadAll(yield func(key, value []byte) error) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fence++
	for k, v := range m.data {
		if err := yield([]byte(k), v); err != nil {
			return 0, err
		}
	}
	return m.fence, nil
}

// Append implements Store.
func (m *MemStore) Append(b Batch, done func(error)) {
	done(m.apply(b))
}

func (m *MemStore) apply(b Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b.Fence != m.fence {
		return ErrFenced
	}
	for _, op := range b.Ops {
		if op.Delete {
			delete(m.data, string(op.Key))
		} else {
			m.data[string(op.Key)] = op.Value
		}
	}
	return nil
}

// Close implements Store.
func (m *MemStore) Close() error { return nil }

// Discard is the store of a head that nobody restarts, because its cluster ends with it: it keeps nothing.
type Discard struct{}

// LoadAll implements Store.
func (Discard) LoadAll(func(key, value []byte) error) (uint64, error) { return 0, nil }

// Append implements Store.
func (Discard) Append(_ Batch, done func(error)) { done(nil) }

// Close implements Store.
func (Discard) Close() error { return nil }
