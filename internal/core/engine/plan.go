package engine

// localNext tells whether the shape's next task may start on this node, if it fits.
func (e *Engine) localNext(*shape) bool { return true }

// roomAway tells whether other nodes have slots free for the shape.
func (e *Engine) roomAway(*shape) bool { return false }

// lookAway asks other nodes for slots for what this node cannot start.
func (e *Engine) lookAway(*shape) {}
