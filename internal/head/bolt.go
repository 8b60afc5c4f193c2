package head

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"gray/internal/core/fault"
)

// BoltStore keeps a head's state in one file. A batch is one transaction, on the disk (fsync) before it counts as
// done: the head tells nobody of what a power cut could take back. The free list is kept in the file, so that opening
// a file of several GiB does not read all of it.
type BoltStore struct {
	db      *bolt.DB
	batches chan boltAppend
	done    chan struct{} // closed when run has returned
}

type boltAppend struct {
	batch Batch
	done  func(error)
}

var (
	boltData  = []byte("gray-head-v1")
	boltFence = []byte("gray-fence")
)

// openBoltWithin bounds the wait for another head's lock on the file.
const openBoltWithin = time.Second

// OpenBolt opens the store in the file path, made 0600 if it is not there.
func OpenBolt(path string) (*BoltStore, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: openBoltWithin, FreelistType: bolt.FreelistMapType})
	if err != nil {
		detail := "check that the file is readable and its disk is not full, or move it away to start an empty cluster"
		if errors.Is(err, bolterrors.ErrTimeout) {
			detail = "another head has it open: stop that one first (ray stop), or start this one with another --temp-dir"
		}
		return nil, &fault.Error{Op: "head.OpenBolt", Kind: fault.System, Ref: path, Detail: detail, Err: err}
	}
	s := &BoltStore{db: db, batches: make(chan boltAppend, 1), done: make(chan struct{})}
	go s.run()
	return s, nil
}

// LoadAll implements Store. The fence is in the file from the first batch on; until then the lock keeps others out.
func (s *BoltStore) LoadAll(yield func(key, value []byte) error) (uint64, error) {
	var fence uint64
	err := s.db.View(func(tx *bolt.Tx) error {
		fence = readFence(tx) + 1
		b := tx.Bucket(boltData)
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			// bbolt's memory is valid only in the transaction.
			return yield(append([]byte(nil), k...), append([]byte(nil), v...))
		})
	})
	if err != nil {
		return 0, &fault.Error{Op: "head.LoadAll", Kind: fault.System, Ref: s.db.Path(), Detail: "the file is damaged or of another version; move it away to start an empty cluster", Err: err}
	}
	return fence, nil
}

func readFence(tx *bolt.Tx) uint64 {
	if b := tx.Bucket(boltFence); b != nil {
		if v := b.Get(boltFence); len(v) == 8 {
			return binary.BigEndian.Uint64(v)
		}
	}
	return 0
}

// Append implements Store.
func (s *BoltStore) Append(b Batch, done func(error)) { s.batches <- boltAppend{b, done} }

func (s *BoltStore) run() {
	defer close(s.done)
	for a := range s.batches {
		a.done(s.apply(a.batch))
	}
}

func (s *BoltStore) apply(b Batch) error {
	err := s.db.Update(func(tx *bolt.Tx) error {
		switch stored := readFence(tx); {
		case stored > b.Fence:
			return ErrFenced
		case stored < b.Fence:
			f, err := tx.CreateBucketIfNotExists(boltFence)
			if err != nil {
				return err
			}
			if err := f.Put(boltFence, binary.BigEndian.AppendUint64(nil, b.Fence)); err != nil {
				return err
			}
		}
		data, err := tx.CreateBucketIfNotExists(boltData)
		if err != nil {
			return err
		}
		for _, op := range b.Ops {
			if op.Delete {
				err = data.Delete(op.Key)
			} else {
				err = data.Put(op.Key, op.Value)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, ErrFenced) {
		return fmt.Errorf("commit %d changes to %s: %w", len(b.Ops), s.db.Path(), err)
	}
	return err
}

// Close implements Store.
func (s *BoltStore) Close() error {
	close(s.batches)
	<-s.done
	return s.db.Close()
}
