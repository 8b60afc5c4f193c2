package logs

import (
	"time"

	"gray/internal/core/ids"
)

// Unread is how much text a driver may have been sent that it has not taken.
const Unread = 512 << 10

// Return is credit for a node that sent output.
type Return struct {
	Node ids.NodeID
	N    int
}

// Frame is text for a driver.
type Frame struct {
	Stream Stream
	Text   []byte
}

// Desk is a driver's: the output that came for it, and how much of what it was sent it has taken. The zero value is not one:
// use NewDesk.
type Desk struct {
	printer *Printer
	nodes   map[ids.NodeID]bool // those that have output for it
	queue   []arrived
	notes   []string // of Gray's own
	sent    uint64
	taken   uint64
	owed    []owed
	flush   map[ids.NodeID]bool // nodes that a flush waits for
	flushes bool                // one is under way
}

type arrived struct {
	node  ids.NodeID
	batch Batch
}

type owed struct {
	at   uint64 // of sent
	node ids.NodeID
	n    int
}

// NewDesk makes one.
func NewDesk(s Style) *Desk {
	return &Desk{printer: NewPrinter(s), nodes: map[ids.NodeID]bool{}}
}

// From says that a node has output, or will have.
func (d *Desk) From(node ids.NodeID) { d.nodes[node] = true }

// Take takes a batch that a node sent. It belongs to the desk from now on.
func (d *Desk) Take(node ids.NodeID, b Batch) {
	d.nodes[node] = true
	d.queue = append(d.queue, arrived{node, b})
}

// Note takes a line of Gray's own for the driver. Who sends them sends few.
func (d *Desk) Note(text string) { d.notes = append(d.notes, text) }

// Taken says how much text the driver has taken in all.
func (d *Desk) Taken(total uint64) { d.taken = min(max(d.taken, total), d.sent) }

// Returns is the credit that goes back by now: for what the driver has taken, or was not shown.
func (d *Desk) Returns() (back []Return) {
	k := 0
	for k < len(d.owed) && d.owed[k].at <= d.taken {
		o := d.owed[k]
		if len(back) > 0 && back[len(back)-1].Node == o.node {
			back[len(back)-1].N += o.n
		} else {
			back = append(back, Return{o.node, o.n})
		}
		k++
	}
	d.owed = d.owed[k:]
	return back
}

// Pull returns what to send the driver now. flushed is true once for each flush, after all that it asked for.
func (d *Desk) Pull(now time.Duration) (frames []Frame, flushed bool) {
	out := func(s Stream, text []byte) {
		if len(text) == 0 {
			return
		}
		d.sent += uint64(len(text))
		if k := len(frames) - 1; k >= 0 && frames[k].Stream == s {
			frames[k].Text = append(frames[k].Text, text...)
			return
		}
		frames = append(frames, Frame{s, append([]byte(nil), text...)})
	}
	for _, text := range d.notes {
		out(Stderr, []byte("(ray) "+text+"\n"))
	}
	d.notes = nil
	d.printer.Expire(now, out)
	for len(d.queue) > 0 && d.sent-d.taken < Unread {
		a := d.queue[0]
		d.queue[0] = arrived{}
		d.queue = d.queue[1:]
		d.printer.Print(now, &a.batch, out)
		if n := len(a.batch.Text); n > 0 {
			d.owed = append(d.owed, owed{d.sent, a.node, n})
		}
	}
	if d.flushes && len(d.flush) == 0 && len(d.queue) == 0 {
		d.flushes, flushed = false, true
		d.printer.Flush(out)
	}
	return frames, flushed
}

// Due is when Pull has something to say though nothing else happened; false if there is no such time.
func (d *Desk) Due() (time.Duration, bool) { return d.printer.Due() }

// Flush begins to wait for all that the nodes have, and says which are to be asked.
func (d *Desk) Flush() (ask []ids.NodeID) {
	d.flushes, d.flush = true, map[ids.NodeID]bool{}
	for node := range d.nodes {
		d.flush[node] = true
		ask = append(ask, node)
	}
	return ask
}

// Flushed says that a node has sent all that it was asked for.
func (d *Desk) Flushed(node ids.NodeID) { delete(d.flush, node) }

// Gone says that a node is dead: nothing more comes from it.
func (d *Desk) Gone(node ids.NodeID) {
	delete(d.nodes, node)
	delete(d.flush, node)
}
