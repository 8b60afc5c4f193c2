package resource

import (
	"encoding/binary"
	"fmt"

	"gray/internal/core/ids"
)

// StrategyKind is the kind of a scheduling strategy.
type StrategyKind uint8

// The strategies.
const (
	StrategyDefault StrategyKind = iota
	StrategySpread
	StrategyNode
)

// Strategy says where a task should run.
type Strategy struct {
	Kind StrategyKind
	Node ids.NodeID // of StrategyNode
	Soft bool       // run elsewhere if the node is gone or can't ever run it
	// Spill: run elsewhere if the node is merely busy (needs Soft). Fail: fail rather than wait if the node is busy.
	Spill, Fail bool
}

type (
	// ShapeID numbers a shape; a number is never given twice.
	ShapeID uint64
	// ClassID numbers a class: all shapes with the same resources and labels, which hence fit the same nodes.
	ClassID uint64
)

// Shape is all that decides where a task can run. Tasks of one shape are exchangeable in a queue.
type Shape struct {
	ID       ShapeID
	Class    ClassID
	Need     Set
	Strategy Strategy
	Labels   Selector
	Env      string // hash of the runtime environment; "" if there is none
	// Else are what to look for where Labels leave no node that is free, in this order: the same but for the labels.
	Else []*Shape

	uses int
	key  string
}

// Shapes interns shapes.
type Shapes struct {
	byKey     map[string]*Shape
	classes   map[string]*class
	nextShape ShapeID
	nextClass ClassID
}

type class struct {
	id   ClassID
	uses int
}

// NewShapes makes an empty table.
func NewShapes() *Shapes {
	return &Shapes{byKey: map[string]*Shape{}, classes: map[string]*class{}}
}

// Suits tells whether a node with these labels may run the shape, be it by one of its alternatives.
func (s *Shape) Suits(labels map[string]string) bool {
	if s.Labels.Match(labels) {
		return true
	}
	for _, e := range s.Else {
		if e.Labels.Match(labels) {
			return true
		}
	}
	return false
}

// Anywhere tells whether any node with the resources will do.
func (s *Shape) Anywhere() bool {
	return s.Strategy.Kind != StrategyNode && len(s.Labels) == 0 && len(s.Else) == 0
}

// Intern is the shape of these properties, the same one for the same properties, and counts one use of it. need, labels
// and their alternatives must not change afterwards.
func (t *Shapes) Intern(need Set, strategy Strategy, labels Selector, env string, alternatives ...Selector) *Shape {
	ck := classKey(need, labels)
	key := string(fmt.Appendf(nil, "%d:%s%d %x %t%t%t ", len(ck), ck, strategy.Kind, strategy.Node, strategy.Soft, strategy.Spill, strategy.Fail))
	for _, l := range alternatives {
		ek := classKey(nil, l)
		key += fmt.Sprintf("%d:%s", len(ek), ek)
	}
	key += " " + env
	if s := t.byKey[key]; s != nil {
		s.uses++
		return s
	}
	c := t.classes[ck]
	if c == nil {
		t.nextClass++
		c = &class{id: t.nextClass}
		t.classes[ck] = c
	}
	c.uses++
	t.nextShape++
	s := &Shape{ID: t.nextShape, Class: c.id, Need: need, Strategy: strategy, Labels: labels, Env: env, uses: 1, key: key}
	t.byKey[key] = s
	for _, l := range alternatives {
		s.Else = append(s.Else, t.Intern(need, strategy, l, env))
	}
	return s
}

// Release ends one use of s; the last one forgets it.
func (t *Shapes) Release(s *Shape) {
	if s.uses--; s.uses > 0 {
		return
	}
	if s.uses < 0 {
		panic(fmt.Sprintf("resource: shape %d released more often than interned", s.ID))
	}
	delete(t.byKey, s.key)
	for _, e := range s.Else {
		t.Release(e)
	}
	ck := classKey(s.Need, s.Labels)
	c := t.classes[ck]
	if c.uses--; c.uses == 0 {
		delete(t.classes, ck)
	}
}

// Forget ends all uses of s.
func (t *Shapes) Forget(s *Shape) {
	s.uses = 1
	t.Release(s)
}

// Len is the number of shapes in use.
func (t *Shapes) Len() int { return len(t.byKey) }

func classKey(need Set, labels Selector) string {
	b := make([]byte, 0, 12*len(need)+16)
	b = binary.AppendUvarint(b, uint64(len(need)))
	for _, e := range need {
		b = binary.AppendUvarint(b, uint64(e.Name))
		b = binary.AppendVarint(b, e.Amount)
	}
	for _, t := range labels {
		b = fmt.Appendf(b, "%q%t%q", t.Key, t.Not, t.Values)
	}
	return string(b)
}
