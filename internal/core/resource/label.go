package resource

import (
	"fmt"
	"slices"
	"strings"

	"gray/internal/core/fault"
)

// Term is one condition on a node's label.
type Term struct {
	Key    string
	Not    bool     // the label must have none of Values, or be absent
	Values []string // sorted; one of them must be the label's value; none: any value will do
}

// Selector is conditions that must all hold, sorted by key.
type Selector []Term

// Map is the selector as ParseSelector reads it; nil if it has no conditions.
func (s Selector) Map() map[string]string {
	if len(s) == 0 {
		return nil
	}
	m := make(map[string]string, len(s))
	for _, t := range s {
		text := strings.Join(t.Values, ",")
		switch len(t.Values) {
		case 0:
			text = "*"
		case 1:
		default:
			text = "in(" + text + ")"
		}
		if t.Not {
			text = "!" + text
		}
		if first, ok := m[t.Key]; ok {
			text = first + "&" + text
		}
		m[t.Key] = text
	}
	return m
}

// Maps are the selectors' maps.
func Maps(list []Selector) []map[string]string {
	var maps []map[string]string
	for _, s := range list {
		maps = append(maps, s.Map())
	}
	return maps
}

// ParseSelector reads a label_selector: label → "v", "!v", "in(a,b)" or "!in(a,b)"; "*" is any value, "!*" no label. Of
// several conditions, with "&" between them, all must hold.
func ParseSelector(m map[string]string) (Selector, error) {
	var s Selector
	for key, expr := range m {
		for part := range strings.SplitSeq(expr, "&") {
			t, err := parseTerm(key, part)
			if err != nil {
				return nil, err
			}
			s = append(s, t)
		}
	}
	slices.SortStableFunc(s, func(a, b Term) int { return strings.Compare(a.Key, b.Key) })
	return s, nil
}

func parseTerm(key, expr string) (Term, error) {
	bad := func(why string) (Term, error) {
		return Term{}, &fault.Error{Op: "resource.ParseSelector", Kind: fault.Protocol, Ref: key, Detail: fmt.Sprintf("label selector %q %s; want v, !v, in(a,b) or !in(a,b)", expr, why)}
	}
	t := Term{Key: key}
	rest := strings.TrimSpace(expr)
	if r, ok := strings.CutPrefix(rest, "!"); ok {
		t.Not, rest = true, strings.TrimSpace(r)
	}
	if inner, ok := strings.CutPrefix(rest, "in("); ok {
		inner, ok = strings.CutSuffix(inner, ")")
		if !ok {
			return bad("lacks its closing parenthesis")
		}
		for v := range strings.SplitSeq(inner, ",") {
			if v = strings.TrimSpace(v); v == "" {
				return bad("has an empty value")
			}
			t.Values = append(t.Values, v)
		}
	} else if rest != "*" {
		t.Values = []string{rest}
	}
	if key == "" {
		return bad("has no label")
	}
	if strings.ContainsAny(strings.Join(t.Values, ""), "!() ,") {
		return bad("has a value with a character that labels can't have")
	}
	slices.Sort(t.Values)
	t.Values = slices.Compact(t.Values)
	return t, nil
}

// Match tells whether labels meet every term.
func (s Selector) Match(labels map[string]string) bool {
	_, ok := s.Mismatch(labels)
	return !ok
}

// Mismatch is the first term that labels do not meet.
func (s Selector) Mismatch(labels map[string]string) (Term, bool) {
	for _, t := range s {
		v, ok := labels[t.Key]
		if (ok && (len(t.Values) == 0 || slices.Contains(t.Values, v))) == t.Not {
			return t, true
		}
	}
	return Term{}, false
}

// String is the term as in a label_selector: "region: !in(a,b)".
func (t Term) String() string {
	v := strings.Join(t.Values, ",")
	switch {
	case len(t.Values) == 0:
		v = "*"
	case len(t.Values) > 1:
		v = "in(" + v + ")"
	}
	if t.Not {
		v = "!" + v
	}
	return t.Key + ": " + v
}
