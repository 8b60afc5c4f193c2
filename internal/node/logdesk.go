package node

import (
	"maps"
	"regexp"
	"slices"
	"sync"
	"time"

	"gray/internal/core/ids"
	"gray/internal/core/logs"
	"gray/internal/wire"
)

// logDesk is the shell around a driver's core/logs.Desk: what workers of the job print comes here from their nodes, and
// goes out on the channel that the driver reads.
type logDesk struct {
	n   *Node
	job ids.Job

	mu    sync.Mutex
	desk  *logs.Desk  // guarded by mu
	out   *outbox     // guarded by mu; nil until the driver asks
	req   uint32      // guarded by mu; of the driver's latest LOGS
	flush uint64      // guarded by mu; number of the flush under way, or of the last
	timer *time.Timer // guarded by mu
	kick  chan struct{}
	over  bool // guarded by mu
}

// logSettings is what a driver's job map says of logging.
type logSettings struct {
	ToDriver bool `msgpack:"to_driver"`
	// The following are of the driver's process, so only its own daemon heeds them.
	Plain  bool    `msgpack:"plain"`
	Color  []int   `msgpack:"color"`
	Dedup  bool    `msgpack:"dedup"`
	Window float64 `msgpack:"dedup_window"` // seconds
	Allow  string  `msgpack:"dedup_allow"`
	Skip   string  `msgpack:"dedup_skip"`
}

func decodeLogSettings(raw wire.Raw) (s logSettings, err error) {
	if len(raw) > 0 {
		err = wire.Unmarshal(raw, &s)
	}
	return s, err
}

// style is what settings mean; the error says which regular expression cannot be used.
func (s *logSettings) style(ip string) (logs.Style, error) {
	st := logs.Style{Plain: s.Plain, IP: ip, Dedup: s.Dedup, Window: time.Duration(s.Window * float64(time.Second))}
	copy(st.Color[:], s.Color)
	var err error
	for _, x := range []struct {
		text string
		to   *func([]byte) bool
	}{{s.Allow, &st.Allow}, {s.Skip, &st.Skip}} {
		if x.text == "" {
			continue
		}
		re, rerr := regexp.Compile(x.text)
		if rerr != nil {
			err = rerr
			continue
		}
		*x.to = re.Match
	}
	return st, err
}

// openDesk makes the desk of a driver of this node.
func (n *Node) openDesk(job ids.Job, s *logSettings) {
	style, err := s.style(n.ip)
	if err != nil {
		n.log.Warn("a driver's expression for its workers' output cannot be used", "job", job.String(), "err", err)
	}
	n.logMu.Lock()
	defer n.logMu.Unlock()
	d := &logDesk{n: n, job: job, desk: logs.NewDesk(style), kick: make(chan struct{}, 1)}
	n.desks[job] = d
	n.spawn(func() {
		for range d.kick {
			d.deliver()
		}
	})
}

func (n *Node) deskOf(job ids.Job) *logDesk {
	n.logMu.Lock()
	defer n.logMu.Unlock()
	return n.desks[job]
}

// closeDesk ends the desk of a driver that is gone.
func (n *Node) closeDesk(job ids.Job) {
	n.logMu.Lock()
	d := n.desks[job]
	delete(n.desks, job)
	n.logMu.Unlock()
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over, d.out = true, nil
	close(d.kick)
	if d.timer != nil {
		d.timer.Stop()
	}
}

// newJobInfo is what a driver's daemon says of its job.
func newJobInfo(raw wire.Raw) *jobInfo {
	info := &jobInfo{raw: raw}
	j, err := wire.DecodeJob(raw)
	if err != nil || len(j.DriverNode) != ids.NodeSize {
		return info
	}
	s, err := decodeLogSettings(j.Logging)
	info.namespace, info.driver, info.forward = j.Namespace, ids.NodeID(j.DriverNode), err == nil && s.ToDriver
	return info
}

func (n *Node) allDesks() []*logDesk {
	n.logMu.Lock()
	defer n.logMu.Unlock()
	return slices.Collect(maps.Values(n.desks))
}

// wantLogs takes a LOGS; the caller holds the lock.
func (n *Node) wantLogs(cl *client, m wire.Logs) {
	d, out := n.deskOf(cl.job), cl.chans[m.Chan]
	switch {
	case out == nil || cl.worker != nil:
	case d != nil:
		n.after = append(n.after, func() { d.logsWanted(out, m) })
	case m.Flags&wire.FlagFlush != 0: // this driver asked for no output
		out.add(func(b []byte) []byte { return wire.AppendLogsFlushed(b, m.Req) })
		n.after = append(n.after, out.flush)
	}
}

// logsWanted takes a driver's LOGS.
func (d *logDesk) logsWanted(out *outbox, m wire.Logs) {
	var ask []ids.NodeID
	d.mu.Lock()
	if d.over {
		d.mu.Unlock()
		return
	}
	d.out, d.req = out, m.Req
	d.desk.Taken(m.Taken)
	if m.Flags&wire.FlagFlush != 0 {
		d.flush++
		ask = d.desk.Flush()
	}
	no := d.flush
	d.mu.Unlock()
	for _, node := range ask {
		if !d.n.sendLog(node, &logFlush{Job: d.job, No: no}) {
			d.nodeGone(node)
		}
	}
	d.soon()
}

// soon delivers on the desk's own goroutine: to make lines of what has come takes longer than clients should wait.
func (d *logDesk) soon() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return
	}
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// change tells the desk something, and delivers what follows from it.
func (d *logDesk) change(f func(*logs.Desk)) {
	d.mu.Lock()
	f(d.desk)
	d.mu.Unlock()
	d.deliver()
}

func (d *logDesk) nodeGone(node ids.NodeID) {
	d.change(func(x *logs.Desk) { x.Gone(node) })
}

// deliver sends the driver what it has room for, and credit to where that came from.
func (d *logDesk) deliver() {
	d.mu.Lock()
	if d.out == nil || d.over {
		d.mu.Unlock()
		return
	}
	frames, flushed := d.desk.Pull(d.now())
	out := d.out
	for _, f := range frames {
		for text := f.Text; len(text) > 0; {
			k := min(len(text), wire.MaxFrame/2)
			out.add(func(b []byte) []byte {
				b, _ = wire.AppendLog(b, &wire.Log{Req: d.req, Stream: uint8(f.Stream), Text: text[:k]}) // of bounded size: cannot fail
				return b
			})
			text = text[k:]
		}
	}
	if flushed {
		out.add(func(b []byte) []byte { return wire.AppendLogsFlushed(b, d.req) })
	}
	back := d.desk.Returns()
	if at, ok := d.desk.Due(); ok {
		wait := max(at-d.now(), 0)
		if d.timer == nil {
			d.timer = time.AfterFunc(wait, d.soon)
		} else {
			d.timer.Reset(wait)
		}
	}
	d.mu.Unlock()
	out.flush()
	for _, r := range back {
		d.n.sendLog(r.Node, &logCredit{Job: d.job, N: r.N})
	}
}

func (d *logDesk) now() time.Duration { return time.Since(d.n.started) }
