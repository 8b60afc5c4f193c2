package explain

import (
	"fmt"

	"gray/internal/core/actor"
	"gray/internal/core/ids"
)

// OfRow is what the head's row says of an actor.
func OfRow(row *actor.Row) *Report {
	r := &Report{
		Kind: Actor, ID: row.ID.String(), Name: row.Class, Job: row.ID.Job().String(), State: string(row.State), PID: row.PID,
		Life: &Life{
			Name: row.Name, Namespace: row.Namespace, Detached: row.Detached, Manager: Hex(row.Manager), Incarnation: row.Incarnation,
			MaxRestarts: row.MaxRestarts,
		},
	}
	if row.Node != (ids.NodeID{}) {
		r.RunsOn = row.Node.String()
	}
	switch {
	case row.State == actor.Dead:
		r.Life.Death = PastOf(row.Incarnation, row.Node, row.PID, &row.Death)
		r.Why = fmt.Sprintf("it is dead for ever (%s): %s", row.Death.Cause, row.Death.Text)
	case row.Dying:
		r.Why = "it is being ended for ever"
	case row.State == actor.Alive:
		r.Why = "it lives and takes calls"
	default:
		r.Why = "its manager says nothing more of it"
	}
	return r
}

// PastOf is how an incarnation ended.
func PastOf(inc uint32, node ids.NodeID, pid int, d *actor.Death) *Past {
	return &Past{Incarnation: inc, Node: Hex(node), PID: pid, Cause: string(d.Cause), Text: d.Text}
}

// Hex is a node's id, "" for none.
func Hex(id ids.NodeID) string {
	if id == (ids.NodeID{}) {
		return ""
	}
	return id.String()
}
