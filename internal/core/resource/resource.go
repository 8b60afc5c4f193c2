// Package resource counts what nodes have and tasks need: named quantities, numbered accelerator slots, labels, and the
// shapes that tasks are queued by.
//
// Everything here is pure and belongs to one goroutine, the core's. Quantities are in 1/10000 of a resource's unit, as
// int64: one CPU is 10000, one byte of memory is 10000. Names are interned in a Names table, so that a Set is a short
// sorted slice and comparing two is a merge of small integers.
//
//	names := resource.NewNames()
//	total, _ := names.Set(map[string]int64{"CPU": 4 * resource.Unit, "GPU": 2 * resource.Unit})
//	node := resource.NewNode(names, total)
//	need, _ := names.Set(map[string]int64{"CPU": resource.Unit, "GPU": resource.Unit / 2})
//	a, ok := node.Alloc(need) // a.Instances: half of GPU 0
//	node.Free(&a)
package resource

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gray/internal/core/fault"
)

// Unit is one whole of a resource.
const Unit = 10000

// Name is the number of a resource's name in a Names table. Numbers of different tables have nothing to do with each other.
type Name uint32

// The names that every table has.
const (
	CPU Name = iota
	GPU
	Memory
	ObjectStoreMemory
)

// implicit marks the names of which every node has one whole, declared or not.
const implicit Name = 1 << 31

const implicitPrefix = "node:__internal_implicit_resource_"

// MaxNames bounds a table: names come from programs.
const MaxNames = 1 << 20

// accelerators are the resources that are handed out as numbered slots, besides GPU.
var accelerators = []string{"GPU", "TPU", "neuron_cores", "HPU", "NPU", "RBLN"}

// Names interns resource names.
type Names struct {
	byName map[string]Name
	names  []string
	slots  map[Name]bool // handed out as numbered slots
}

// NewNames makes a table with the predefined names.
func NewNames() *Names {
	n := &Names{byName: map[string]Name{}, slots: map[Name]bool{}}
	for _, s := range []string{"CPU", "GPU", "memory", "object_store_memory"} {
		n.intern(s)
	}
	for _, s := range accelerators {
		n.slots[n.intern(s)] = true
	}
	return n
}

func (n *Names) intern(s string) Name {
	if id, ok := n.byName[s]; ok {
		return id
	}
	id := Name(len(n.names))
	if strings.HasPrefix(s, implicitPrefix) {
		id |= implicit
	}
	n.byName[s] = id
	n.names = append(n.names, s)
	return id
}

// Intern is s's number, given now if s is new. It fails when the table is full.
func (n *Names) Intern(s string) (Name, error) {
	if id, ok := n.byName[s]; ok {
		return id, nil
	}
	if s == "" || len(n.names) >= MaxNames {
		return 0, &fault.Error{Op: "resource.Intern", Kind: fault.Limit, Ref: strconv.Quote(s), Detail: fmt.Sprintf("a resource needs a name, and one cluster has at most %d", MaxNames)}
	}
	return n.intern(s), nil
}

// Lookup is s's number if it has one.
func (n *Names) Lookup(s string) (Name, bool) { id, ok := n.byName[s]; return id, ok }

// Text is the name with number id.
func (n *Names) Text(id Name) string { return n.names[id&^implicit] }

// Slotted tells whether the resource is handed out as numbered instances.
func (n *Names) Slotted(id Name) bool { return n.slots[id] }

// Set makes a Set of quantities by name. Zero quantities are left out.
func (n *Names) Set(m map[string]int64) (Set, error) {
	s := make(Set, 0, len(m))
	for name, q := range m {
		if q < 0 {
			return nil, &fault.Error{Op: "resource.Set", Kind: fault.Protocol, Ref: name, Detail: fmt.Sprintf("the quantity %s is negative", number(q))}
		}
		if q == 0 {
			continue
		}
		id, err := n.Intern(name)
		if err != nil {
			return nil, err
		}
		s = append(s, Entry{id, q})
	}
	slices.SortFunc(s, func(a, b Entry) int { return int(int64(a.Name) - int64(b.Name)) })
	return s, nil
}

// Map is s by name, in 1/10000.
func (n *Names) Map(s Set) map[string]int64 {
	m := make(map[string]int64, len(s))
	for _, e := range s {
		m[n.Text(e.Name)] = e.Amount
	}
	return m
}

// Floats is s by name, in whole units, as users see it.
func (n *Names) Floats(s Set) map[string]float64 {
	m := make(map[string]float64, len(s))
	for _, e := range s {
		m[n.Text(e.Name)] = float64(e.Amount) / Unit
	}
	return m
}

// Format shows s as a Python dict: {'CPU': 1.0, 'GPU': 0.5}, in the order of the names' text.
func (n *Names) Format(s Set) string {
	byText := slices.Clone(s)
	slices.SortFunc(byText, func(a, b Entry) int { return strings.Compare(n.Text(a.Name), n.Text(b.Name)) })
	var b strings.Builder
	b.WriteByte('{')
	for i, e := range byText {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("'" + n.Text(e.Name) + "': " + number(e.Amount))
	}
	b.WriteByte('}')
	return b.String()
}

// number shows a quantity as Python shows a float: 1.0, 0.5.
func number(q int64) string {
	s := strconv.FormatFloat(float64(q)/Unit, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// Entry is one quantity of a Set.
type Entry struct {
	Name   Name
	Amount int64
}

// Set is named quantities, sorted by Name. As a need it holds no zeros; as what a node has free it may hold zeros and,
// of CPUs lent by blocked workers and taken back, negative amounts.
type Set []Entry

// Get is the quantity of name: 0 if it is not in s, one whole of an implicit resource.
func (s Set) Get(name Name) int64 {
	for _, e := range s {
		if e.Name == name {
			return e.Amount
		}
		if e.Name > name {
			break
		}
	}
	if name&implicit != 0 {
		return Unit
	}
	return 0
}

// Has tells whether name stands in s, with whatever quantity.
func (s Set) Has(name Name) bool {
	_, ok := s.find(name)
	return ok
}

func (s Set) find(name Name) (int, bool) {
	return slices.BinarySearchFunc(s, name, func(e Entry, n Name) int { return int(int64(e.Name) - int64(n)) })
}

// Fits tells whether s holds at least need.
func (s Set) Fits(need Set) bool {
	i := 0
	for _, n := range need {
		for i < len(s) && s[i].Name < n.Name {
			i++
		}
		switch {
		case i < len(s) && s[i].Name == n.Name:
			if s[i].Amount < n.Amount {
				return false
			}
		case n.Name&implicit != 0:
			if n.Amount > Unit {
				return false
			}
		case n.Amount > 0:
			return false
		}
	}
	return true
}

// Sub takes need from s, below zero if it must, and returns s, which it changes.
func (s Set) Sub(need Set) Set { return s.add(need, -1) }

// Add gives more to s and returns s, which it changes.
func (s Set) Add(more Set) Set { return s.add(more, 1) }

func (s Set) add(d Set, sign int64) Set {
	i := 0
	for _, e := range d {
		for i < len(s) && s[i].Name < e.Name {
			i++
		}
		if i < len(s) && s[i].Name == e.Name {
			s[i].Amount += sign * e.Amount
			continue
		}
		var base int64
		if e.Name&implicit != 0 {
			base = Unit
		}
		s = slices.Insert(s, i, Entry{e.Name, base + sign*e.Amount})
	}
	return s
}

// IsZero tells whether no quantity differs from 0.
func (s Set) IsZero() bool {
	for _, e := range s {
		if e.Amount != 0 {
			return false
		}
	}
	return true
}

// Clone is a copy that shares nothing.
func (s Set) Clone() Set { return slices.Clone(s) }

// Equal tells whether both have the same entries.
func (s Set) Equal(o Set) bool { return slices.Equal(s, o) }

// CPUOnly is the part of s that a blocked worker lends.
func (s Set) CPUOnly() Set {
	if len(s) > 0 && s[0].Name == CPU {
		return s[:1:1]
	}
	return nil
}
