package extent

// key orders free spans.
type key struct{ a, b, c uint64 }

func (k key) less(o key) bool {
	if k.a != o.a {
		return k.a < o.a
	}
	if k.b != o.b {
		return k.b < o.b
	}
	return k.c < o.c
}

// tree is a treap of spans. Priorities come from a counter that is hashed, so the same calls build the same tree.
type tree struct {
	root  *node
	n     uint64
	spare *node // the last removed node: most removals are followed by an insertion
}

type node struct {
	key         key
	pri         uint64
	left, right *node
	span        *span
}

func (t *tree) insert(k key, s *span) {
	n := t.spare
	if n == nil {
		n = &node{}
	}
	t.spare = nil
	t.n++
	*n = node{key: k, pri: mix(t.n), span: s}
	at := &t.root
	for *at != nil && (*at).pri >= n.pri {
		if k.less((*at).key) {
			at = &(*at).left
		} else {
			at = &(*at).right
		}
	}
	// Split what hangs here around k, and put n on top of both parts.
	rest := *at
	*at = n
	l, r := &n.left, &n.right
	for rest != nil {
		if rest.key.less(k) {
			*l, l, rest = rest, &rest.right, rest.right
		} else {
			*r, r, rest = rest, &rest.left, rest.left
		}
	}
	*l, *r = nil, nil
}

func (t *tree) remove(k key) {
	at := &t.root
	for (*at).key != k { // a nil here is a broken index, and panics
		if k.less((*at).key) {
			at = &(*at).left
		} else {
			at = &(*at).right
		}
	}
	n := *at
	l, r := n.left, n.right
	for l != nil && r != nil {
		if l.pri > r.pri {
			*at, at, l = l, &l.right, l.right
		} else {
			*at, at, r = r, &r.left, r.left
		}
	}
	if l == nil {
		l = r
	}
	*at = l
	*n = node{}
	t.spare = n
}

// ceil is the span with the smallest key that is not less than k, or nil.
func (t *tree) ceil(k key) *span {
	var best *span
	for n := t.root; n != nil; {
		if n.key.less(k) {
			n = n.right
		} else {
			best = n.span
			n = n.left
		}
	}
	return best
}

// mix is a bijective hash of a counter (the finaliser of splitmix64).
func mix(x uint64) uint64 {
	x *= 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
