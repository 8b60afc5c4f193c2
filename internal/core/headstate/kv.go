package headstate

import (
	"slices"
	"strings"
)

// namespace holds the keys of one namespace.
type namespace struct {
	keys    map[string]*entry
	changed uint64 // last batch that changed it: answers about it wait for that one
}

// MaxKey bounds the bytes of a namespace and a key together; stores have limits of their own above it.
const MaxKey = 16 << 10

type entry struct{ rec *KVRecord }

func (e *entry) size() int64 { return int64(len(e.rec.Key) + len(e.rec.Value)) }

// ns is a namespace to read from. One that is empty is not kept, so what is said of it waits for the last that went.
func (s *State) ns(name string) *namespace {
	if n := s.kv[name]; n != nil {
		return n
	}
	return &namespace{changed: s.kvEmptied}
}

func (s *State) kvGet(n *node, m *KVGet) {
	ns := s.ns(m.NS)
	a := &KVValue{Req: m.Req}
	if e := ns.keys[m.Key]; e != nil {
		a.Found, a.Value = true, e.rec.Value
	}
	s.sendAfter(ns.changed, n.id(), a)
}

func (s *State) kvExists(n *node, m *KVExists) {
	ns := s.ns(m.NS)
	s.sendAfter(ns.changed, n.id(), &KVFound{Req: m.Req, Exists: ns.keys[m.Key] != nil})
}

func (s *State) kvList(n *node, m *KVList) {
	ns := s.ns(m.NS)
	s.sendAfter(ns.changed, n.id(), &KVKeys{Req: m.Req, Keys: ns.withPrefix(m.Prefix)})
}

func (ns *namespace) withPrefix(prefix string) []string {
	keys := []string{}
	for k := range ns.keys {
		if strings.HasPrefix(k, prefix) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

func (s *State) kvPut(n *node, m *KVPut) {
	ns := s.kv[m.NS]
	if ns == nil {
		ns = &namespace{keys: map[string]*entry{}, changed: s.kvEmptied}
	}
	old := ns.keys[m.Key]
	if old != nil && old.rec.By == n.id() && old.rec.Req == m.Req {
		// The same put again, after its answer was lost with a link.
		s.sendAfter(ns.changed, n.id(), &KVAdded{Req: m.Req, Added: old.rec.Fresh})
		return
	}
	if old != nil && !m.Overwrite {
		s.sendAfter(ns.changed, n.id(), &KVAdded{Req: m.Req})
		return
	}
	e := &entry{rec: &KVRecord{NS: m.NS, Key: m.Key, Value: m.Value, By: n.id(), Req: m.Req, Fresh: old == nil}}
	grow := e.size()
	if old != nil {
		grow -= old.size()
	}
	switch {
	case len(m.NS)+len(m.Key) > MaxKey:
		s.fail(n, m, faultLimit, "head.KVPut: namespace and key have %d bytes, the limit is %d; use a shorter key", len(m.NS)+len(m.Key), MaxKey)
		return
	case e.size() > int64(s.cfg.MaxValue):
		s.fail(n, m, faultLimit, "head.KVPut %.100q in %q: key and value have %d bytes, the limit is %d; put large values into the object store (ray.put)", m.Key, m.NS, e.size(), s.cfg.MaxValue)
		return
	case s.kvBytes+grow > s.cfg.MaxKV:
		s.fail(n, m, faultLimit, "head.KVPut %.100q in %q: %d bytes more than the %d stored would pass the limit of %d; delete keys", m.Key, m.NS, grow, s.kvBytes, s.cfg.MaxKV)
		return
	case old == nil && s.kvKeys >= s.cfg.MaxKeys:
		s.fail(n, m, faultLimit, "head.KVPut %.100q in %q: there are %d keys, the limit; delete keys", m.Key, m.NS, s.kvKeys)
		return
	}
	s.kv[m.NS] = ns
	ns.keys[m.Key] = e
	ns.changed = s.next
	s.kvBytes += grow
	if old == nil {
		s.kvKeys++
	}
	s.put(e.rec)
	s.sendAfter(s.next, n.id(), &KVAdded{Req: m.Req, Added: old == nil})
}

func (s *State) kvDel(n *node, m *KVDel) {
	ns := s.ns(m.NS)
	keys := []string{m.Key}
	if m.Prefix {
		keys = ns.withPrefix(m.Key)
	}
	var deleted int64
	for _, k := range keys {
		e := ns.keys[k]
		if e == nil {
			continue
		}
		deleted++
		delete(ns.keys, k)
		s.kvBytes -= e.size()
		s.kvKeys--
		s.remove(&KVRecord{NS: m.NS, Key: k})
	}
	if deleted > 0 {
		ns.changed = s.next
		if len(ns.keys) == 0 {
			delete(s.kv, m.NS)
			s.kvEmptied = s.next
		}
	}
	s.sendAfter(ns.changed, n.id(), &KVDeleted{Req: m.Req, Deleted: deleted})
}
