package headstate

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"gray/internal/core/ids"
)

// load takes in what the store holds. Nodes that were alive are RESTORED: they have a whole lease to register again.
func (s *State) load(records []Record) error {
	stored := false
	var rows []*NodeRow
	var ended []*job
	var actors []*ActorRecord
	specs := map[ids.ActorID][]byte{}
	for _, r := range records {
		switch r := r.(type) {
		case *Meta:
			s.meta, stored = *r, true
		case *NodeRow:
			rows = append(rows, r)
		case *JobRow:
			j := &job{row: *r}
			s.jobs[r.ID] = j
			if !r.Virtual && compareJobs(s.jobKeys[r.Key], r.ID) < 0 { // the last of a key counts
				s.jobKeys[r.Key] = r.ID
			}
			if r.State != JobRunning {
				ended = append(ended, j)
			}
		case *KVRecord:
			s.loadKV(r)
		case *ActorRecord:
			actors = append(actors, r)
		case *ActorSpec:
			specs[r.ID] = r.Spec
		default:
			return fmt.Errorf("headstate: the store holds a record of unknown type %T", r)
		}
	}
	if !stored {
		if len(records) > 0 {
			return fmt.Errorf("headstate: the store holds %d records but not the cluster's own; it is damaged or another program's", len(records))
		}
		s.meta = Meta{Cluster: s.cfg.Cluster, SessionName: s.cfg.SessionName, NextOwner: 1, NextJob: 1}
		s.putMeta()
	}
	slices.SortFunc(ended, func(a, b *job) int {
		return cmp.Or(cmp.Compare(a.row.EndMs, b.row.EndMs), compareJobs(a.row.ID, b.row.ID))
	})
	for _, j := range ended {
		s.ended.PushBack(j.row.ID)
	}
	s.loadNodes(rows)
	for _, j := range s.jobs {
		if n := binary.LittleEndian.Uint32(j.row.ID[:]); n >= s.meta.NextJob {
			return fmt.Errorf("headstate: the store holds job %s but says that the next one is %d", j.row.ID, s.meta.NextJob)
		}
	}
	for o := range s.owners {
		if o >= s.meta.NextOwner {
			return fmt.Errorf("headstate: the store holds owner number %d but says that the next one is %d", o, s.meta.NextOwner)
		}
	}
	return s.loadActors(actors, specs)
}

func (s *State) loadNodes(rows []*NodeRow) {
	slices.SortFunc(rows, func(a, b *NodeRow) int { return cmp.Compare(a.Owner, b.Owner) })
	var dead []*node
	for _, r := range rows {
		n := &node{row: *r}
		s.nodes[n.id()] = n
		s.owners[r.Owner] = n
		n.inJoined = s.joined.PushBack(n)
		if r.Alive {
			n.to(Restored)
			s.live++
			s.restored++
			s.view.changed(n, true)
		} else {
			n.to(Dead)
			dead = append(dead, n)
		}
	}
	slices.SortStableFunc(dead, func(a, b *node) int { return cmp.Compare(a.row.EndMs, b.row.EndMs) })
	for _, n := range dead {
		n.inDead = s.dead.PushBack(n)
	}
	s.scan = s.cfg.DeadAfter
}

func (s *State) loadKV(r *KVRecord) {
	ns := s.kv[r.NS]
	if ns == nil {
		ns = &namespace{keys: map[string]*entry{}}
		s.kv[r.NS] = ns
	}
	e := &entry{rec: r}
	ns.keys[r.Key] = e
	s.kvBytes += e.size()
	s.kvKeys++
}

func compareJobs(a, b ids.Job) int {
	return cmp.Compare(binary.LittleEndian.Uint32(a[:]), binary.LittleEndian.Uint32(b[:]))
}

// shapeKey is the same for equal shapes only.
func shapeKey(r Resources) string {
	names := make([]string, 0, len(r))
	for k := range r {
		names = append(names, k)
	}
	slices.Sort(names)
	var b bytes.Buffer
	for _, k := range names {
		b.WriteString(k)
		b.WriteByte(0)
		b.Write(binary.LittleEndian.AppendUint64(nil, uint64(r[k])))
	}
	return b.String()
}
