package memory

import (
	"fmt"
	"slices"
)

// Check verifies every invariant; it costs time proportional to what there is.
func (s *State) Check() error {
	if err := s.alloc.Check(); err != nil {
		return err
	}
	var shares [nStanding]Share
	holds, running := map[uint64]int{}, map[uint64]int{}
	waiting, idle := 0, 0
	for id, r := range s.reqs {
		switch r.status {
		case Waiting:
			waiting++
			if !slices.Contains(s.line, r) {
				return fmt.Errorf("request %d waits, but not in line", id)
			}
			continue
		case Running:
			for _, it := range r.Bundle {
				running[it.Key]++
			}
		case Granted:
			if r.Class == Args {
				idle++
			}
		}
		if r.Class == Create {
			return fmt.Errorf("create %d is still here after its grant", id)
		}
		for _, it := range r.Bundle {
			if holds[it.Key]++; s.objects[it.Key] == nil {
				return fmt.Errorf("%s request %d lacks object %d", r.status, id, it.Key)
			}
		}
	}
	if waiting != len(s.line) || idle != len(s.idle) || !slices.IsSortedFunc(s.line, compare) || !slices.IsSortedFunc(s.idle, compare) {
		return fmt.Errorf("%d requests wait (%d in line), %d may be displaced (%d listed)", waiting, len(s.line), idle, len(s.idle))
	}
	for key, o := range s.objects {
		shares[o.standing()].add(1, o.at.Size)
		if o.holds != holds[key] || o.running != running[key] || o.pins < 0 {
			return fmt.Errorf("object %d counts %d holds (%d), %d running (%d), %d pins", key, o.holds, holds[key], o.running, running[key], o.pins)
		}
		unused := o.pins == 0 && o.holds == 0
		if want := o.state == Copy && !o.writer && unused; o.listed != want || (o.standing() == evictable) != want {
			return fmt.Errorf("%s object %d: in the eviction list %v, want %v", o.state, key, o.listed, want)
		}
		switch o.state {
		case Writing, Abandoned:
			if !o.writer || o.pins > 0 || (o.state == Abandoned) != o.told || (o.fetch && !o.told && o.holds == 0) {
				return fmt.Errorf("%s object %d: %+v", o.state, key, *o)
			}
		case Primary, Copy:
			if o.writer {
				return fmt.Errorf("%s object %d has a writer", o.state, key)
			}
		case Freed:
			if unused && !o.writer {
				return fmt.Errorf("freed object %d is still here", key)
			}
		default:
			return fmt.Errorf("object %d is %s", key, o.state)
		}
	}
	if shares != s.shares {
		return fmt.Errorf("shares are %v, counted %v", s.shares, shares)
	}
	listed := int64(0)
	for o := s.lru.first; o != nil; o = o.next {
		listed += o.at.Size
	}
	if listed != s.lru.bytes || listed != shares[evictable].Bytes {
		return fmt.Errorf("eviction list has %d bytes, counted %d", s.lru.bytes, listed)
	}
	return nil
}
