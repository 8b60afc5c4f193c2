package engine

// chain is a list of tasks, linked through their next and prev. A task is in one at most.
type chain struct {
	head, tail uint32
	n          int
}

// insert puts a task before another one of the chain, or at its end where before is 0.
func (e *Engine) insert(c *chain, i uint32, t *task, before uint32) {
	t.prev, t.next = c.tail, before
	if before != 0 {
		b := e.tasks.at(before)
		t.prev, b.prev = b.prev, i
	} else {
		c.tail = i
	}
	if t.prev != 0 {
		e.tasks.at(t.prev).next = i
	} else {
		c.head = i
	}
	c.n++
}

func (e *Engine) unlink(c *chain, t *task) {
	if t.prev != 0 {
		e.tasks.at(t.prev).next = t.next
	} else {
		c.head = t.next
	}
	if t.next != 0 {
		e.tasks.at(t.next).prev = t.prev
	} else {
		c.tail = t.prev
	}
	t.prev, t.next = 0, 0
	c.n--
}
