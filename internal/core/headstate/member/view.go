package member

import (
	"bytes"
	"maps"
	"slices"

	"gray/internal/core/headstate"
	"gray/internal/core/ids"
)

// snapshot replaces the view; who asked for it sees only what is different.
func (s *State) snapshot(m *headstate.Snapshot) {
	if !s.follow || s.phase != Member {
		return
	}
	fresh := make(map[ids.NodeID]headstate.NodeView, len(m.Nodes))
	for _, n := range m.Nodes {
		if n.Info == nil {
			s.resubscribe("a snapshot that lacks the data of node " + n.ID.String())
			return
		}
		fresh[n.ID] = n
	}
	gone := slices.SortedFunc(maps.Keys(s.view), compareNodes)
	for _, id := range gone {
		if _, ok := fresh[id]; !ok {
			s.out = append(s.out, ViewDrop{id})
		}
	}
	s.view, s.version = fresh, m.Version
	for _, n := range m.Nodes {
		s.out = append(s.out, ViewPut{n})
	}
	s.send(&headstate.ViewAck{Version: m.Version})
}

func (s *State) delta(m *headstate.Delta) {
	if !s.follow || s.phase != Member {
		return
	}
	if m.From != s.version {
		s.resubscribe("a delta that does not follow the last one")
		return
	}
	for i := range m.Changed {
		n := m.Changed[i]
		if n.Info == nil {
			known, ok := s.view[n.ID]
			if !ok {
				s.resubscribe("a delta that lacks the data of node " + n.ID.String())
				return
			}
			n.Info = known.Info
		}
		s.view[n.ID] = n
		s.out = append(s.out, ViewPut{n})
	}
	for _, id := range m.Gone {
		if _, ok := s.view[id]; ok {
			delete(s.view, id)
			s.out = append(s.out, ViewDrop{id})
		}
	}
	s.version = m.Version
	s.send(&headstate.ViewAck{Version: m.Version})
}

// resubscribe gets a whole view: this one has a hole.
func (s *State) resubscribe(why string) {
	s.note(true, "the head at %s sent %s; the view is fetched anew", s.cfg.Head, why)
	s.version = 0
	s.send(&headstate.Subscribe{On: true})
}

// View is the last known view of a node.
func (s *State) View(id ids.NodeID) (headstate.NodeView, bool) {
	n, ok := s.view[id]
	return n, ok
}

// Viewed is the number of nodes in the view.
func (s *State) Viewed() int { return len(s.view) }

func compareNodes(a, b ids.NodeID) int { return bytes.Compare(a[:], b[:]) }
