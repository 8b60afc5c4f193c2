package node

import (
	"bytes"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"gray/internal/core/ids"
	"gray/internal/core/logs"
	"gray/internal/wire"
)

// Messages on workers' output between a worker's node and the node of its job's driver; docs/protocol.md.
type (
	// logFrom: workers of the job are here.
	logFrom struct{ Job ids.Job }
	// logData is what one of them printed.
	logData struct {
		Job     ids.Job
		Pid     int
		IP      string
		Name    string
		Err     bool
		Text    []byte
		Dropped int64
		Where   string
	}
	// logCredit: N bytes more may be sent; Stop: none, for nobody wants them.
	logCredit struct {
		Job  ids.Job
		N    int
		Stop bool
	}
	// logFlush: send all that there is by now, then logFlushed.
	logFlush struct {
		Job ids.Job
		No  uint64
	}
	logFlushed struct {
		Job ids.Job
		No  uint64
	}
	// logNote is a line of a daemon's own for the job's driver.
	logNote struct {
		Job  ids.Job
		Text string
	}
)

// Kinds of these messages. They stand beside those of core/engine, which are numbered from 1.
const (
	kindLogFrom byte = 0x70 + iota
	kindLogData
	kindLogCredit
	kindLogFlush
	kindLogFlushed
	kindLogNote
)

func encodeLog(m any) ([]byte, error) {
	var buf bytes.Buffer
	switch m.(type) {
	case *logFrom:
		buf.WriteByte(kindLogFrom)
	case *logData:
		buf.WriteByte(kindLogData)
	case *logCredit:
		buf.WriteByte(kindLogCredit)
	case *logFlush:
		buf.WriteByte(kindLogFlush)
	case *logFlushed:
		buf.WriteByte(kindLogFlushed)
	case *logNote:
		buf.WriteByte(kindLogNote)
	}
	enc := msgpack.NewEncoder(&buf)
	enc.UseArrayEncodedStructs(true)
	enc.UseCompactInts(true)
	if err := enc.Encode(m); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func decodeLog(b []byte) (any, error) {
	var m any
	switch b[0] {
	case kindLogFrom:
		m = &logFrom{}
	case kindLogData:
		m = &logData{}
	case kindLogCredit:
		m = &logCredit{}
	case kindLogFlush:
		m = &logFlush{}
	case kindLogFlushed:
		m = &logFlushed{}
	case kindLogNote:
		m = &logNote{}
	default:
		return nil, fmt.Errorf("unknown kind %d of message", b[0])
	}
	return m, wire.Unmarshal(b[1:], m)
}

// sendLog sends a message to a node, which may be this one; false if there is no such node any more.
func (n *Node) sendLog(to ids.NodeID, m any) bool {
	if to == n.id {
		n.takeLog(n.id, m)
		return true
	}
	b, err := encodeLog(m)
	if err != nil {
		n.log.Error("a message cannot be encoded", "err", err)
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers.byID[to]
	switch {
	case p != nil:
		n.sendPeerLocked(p, b)
	case n.peers.dead[to] || n.closed:
		return false
	default: // its news have not come from the head yet; what waits is bounded by the credit for it
		n.peers.early[to] = append(n.peers.early[to], b)
	}
	return true
}

// takeLog takes a message of a node, which may be this one.
func (n *Node) takeLog(from ids.NodeID, m any) {
	switch m := m.(type) {
	case *logFrom:
		n.withDesk(from, m.Job, func(d *logs.Desk) { d.From(from) })
	case *logData:
		n.withDesk(from, m.Job, func(d *logs.Desk) {
			d.Take(from, logs.Batch{Job: m.Job, Pid: m.Pid, IP: m.IP, Name: m.Name, Err: m.Err, Text: m.Text, Dropped: m.Dropped, Where: m.Where})
		})
	case *logFlushed:
		if d := n.deskOf(m.Job); d != nil {
			d.flushed(from, m.No)
		}
	case *logNote:
		if d := n.deskOf(m.Job); d != nil {
			d.change(func(x *logs.Desk) { x.Note(m.Text) })
		}
	case *logCredit:
		if m.Stop {
			n.logs.stop(m.Job, false)
			return
		}
		n.logs.credit(m.Job, m.N)
	case *logFlush:
		n.logs.flush(from, m.Job, m.No)
	}
}

// withDesk tells a job's desk something; if there is none, whoever sends is told to stop.
func (n *Node) withDesk(from ids.NodeID, job ids.Job, f func(*logs.Desk)) {
	if d := n.deskOf(job); d != nil {
		d.change(f)
		return
	}
	n.sendLog(from, &logCredit{Job: job, Stop: true})
}

func (d *logDesk) flushed(node ids.NodeID, no uint64) {
	d.mu.Lock()
	if no == d.flush {
		d.desk.Flushed(node)
	}
	d.mu.Unlock()
	d.deliver()
}
