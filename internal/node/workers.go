package node

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gray/internal/core/engine"
	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/pool"
	"gray/internal/wire"
)

// startWorker forks a blank worker; the caller holds the lock.
func (n *Node) startWorker(sid engine.SessionID, preload string) {
	cl := &client{id: sid, readDone: make(chan struct{}), chans: map[uint32]*outbox{}, carry: map[carryKey][]ids.ObjectID{}}
	_, _ = rand.Read(cl.key[:]) // never fails
	_, _ = rand.Read(cl.wid[:])
	n.clients[sid] = cl
	n.byKey[cl.key] = sid
	modules, variables := forkSpec(preload)
	n.after = append(n.after, func() {
		n.pool.Fork(pool.WorkerSpec{ID: hex.EncodeToString(cl.wid[:]), Threads: 1, Preload: modules, Env: variables, Info: map[string]string{"socket": n.sock.Path}}, func(w *pool.Worker, err error) { n.forked(cl, w, err) })
	})
}

// forked takes over a worker that has started.
func (n *Node) forked(cl *client, w *pool.Worker, err error) {
	if err == nil {
		var o *outbox
		ch := engine.Chan{Session: cl.id}
		if cl.stream, cl.channel0, err = workerConns(w); err == nil {
			o, err = newOutbox(n.reactor, cl.channel0, func() { n.locked(func(e *engine.Engine) { e.Drained(ch) }) }, func() {})
		}
		if err == nil {
			n.locked(func(e *engine.Engine) {
				cl.worker, cl.chans[0] = w, o
				n.byWorker[w] = cl
				e.Introduce(cl.id, engine.WorkerID(cl.wid), w.Pid)
				e.WorkerStarted(cl.id)
			})
			n.spawn(func() {
				defer close(cl.readDone)
				n.read(cl, wire.NewStream(nil, 16<<10))
			})
			return
		}
		for _, c := range []*conn{cl.stream, cl.channel0} {
			if c != nil {
				_ = c.Close()
			}
		}
		w.Kill()
	}
	if errors.Is(err, pool.ErrStopped) {
		return
	}
	n.locked(func(e *engine.Engine) {
		delete(n.clients, cl.id)
		delete(n.byKey, cl.key)
		e.WorkerFailed(cl.id, fault.KindOf(err), err.Error())
	})
}

// workerConns takes a worker's sockets over.
func workerConns(w *pool.Worker) (stream, channel *conn, err error) {
	if stream, err = quiet(w.Stream); err != nil {
		return nil, nil, err
	}
	if channel, err = quiet(w.Channel); err != nil {
		return nil, nil, errors.Join(err, stream.Close())
	}
	w.Stream, w.Channel = nil, nil // closed by now; what is kept of dead workers, for their logs, need not hold them
	return stream, channel, nil
}

// died takes the end of a worker's process to the engine.
func (n *Node) died(w *pool.Worker, x pool.Exit) {
	n.mu.Lock()
	cl := n.byWorker[w]
	delete(n.byWorker, w)
	n.mu.Unlock()
	if cl == nil {
		n.logs.ended(w)
		_ = w.Close()
		return
	}
	kind := fault.WorkerCrashed
	if x.OOM {
		kind = fault.OutOfMemory
	}
	why := fmt.Sprintf("its worker process %d died: %s", w.Pid, x)
	if len(x.Stderr) > 0 {
		why += "; its last lines of stderr:\n  " + strings.Join(x.Stderr, "\n  ")
	}
	cl.stream.shutdown(unix.SHUT_RD) // what it had written is still read, to its end, even if a child of its holds the other end
	n.spawn(func() {
		if x.Signal != 0 && !x.Killed {
			n.noteSignal(w, x)
		}
		n.logs.ended(w) // its last lines go before the news of its death
		<-cl.readDone   // a result that it sent before it died counts
		n.locked(func(e *engine.Engine) { e.WorkerGone(cl.id, kind, why) })
		n.gone(cl)
		_, _ = cl.channel0.Close(), w.Close()
	})
}

// noteSignal writes into a worker's output what killed it, as its last line.
func (n *Node) noteSignal(w *pool.Worker, x pool.Exit) {
	_, path := w.Logs()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW, 0)
	if err == nil {
		_, err = fmt.Fprintf(f, "*** %s received at time=%d by process %d: %s ***\n", unix.SignalName(x.Signal), time.Now().Unix(), w.Pid, x)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		n.log.Warn("a worker's last line could not be written", "file", path, "err", err)
	}
}

// setup tells a blank worker its job; the caller holds the lock.
func (n *Node) setup(sid engine.SessionID, s engine.Setup) {
	cl := n.clients[sid]
	if cl == nil || cl.worker == nil {
		return
	}
	cl.job = s.Job
	m := wire.Setup{
		Welcome: wire.Welcome{
			Session: cl.key, JobID: s.Job, NodeID: n.id, NodeIP: n.ip, GCSAddress: n.file.GCSAddress,
			SessionDir: n.dir.Path, SessionName: n.file.SessionName, WorkerID: cl.wid, ArenaSize: uint64(n.arena.Space()), InlineMax: inlineMax,
			IDs: wire.IDBlock{First: s.IDs, Count: s.IDCount}, Credit: jobCredit / 4, DashboardURL: n.file.DashboardURL,
		},
		Accelerators: s.Accelerators, Resources: s.Resources,
	}
	if c := s.Actor; c != nil {
		m.Actor = &wire.SetupActor{
			ID: c.ID[:], Name: c.Name, Namespace: c.Namespace, ClassName: c.Class, Incarnation: s.Incarnation,
			MaxConcurrency: int64(s.Limits.MaxConcurrency), Groups: map[string]int64{}, IsAsync: s.Limits.Async, Body: c.Body,
		}
		for name, k := range s.Limits.Groups {
			m.Actor.Groups[name] = int64(k)
		}
	}
	var info jobInfo
	if j := n.jobs[s.Job]; j != nil {
		m.Job, m.Namespace, info = j.raw, j.namespace, *j
	}
	if s.Env != "" {
		n.enter(&m, s.Env)
	}
	b, err := wire.AppendSetup(nil, &m)
	if err != nil {
		n.log.Error("SETUP could not be encoded", "err", err)
		return
	}
	cl.send(n, b)
	job := s.Job
	if s.Actor != nil {
		job = s.Actor.ID.Job() // of a detached actor it is its creator's: nobody is shown the job that it has for itself
	}
	n.after = append(n.after, func() {
		if err := cl.worker.Rename(job.String()); err != nil && !isClosedErr(err) {
			n.warn("rename", "a worker's log files keep their names without a job: "+err.Error())
		}
		n.logs.assign(cl.worker, job, info.driver, info.forward)
	})
}

// send puts a packet on a worker's exec queue, or lines it up; the caller holds the lock.
func (cl *client) send(n *Node, packet []byte) {
	if len(cl.backlog) == 0 {
		err := cl.worker.Exec.Send(packet)
		if err == nil {
			cl.poke(n, packet)
			return
		}
		if !errors.Is(err, pool.ErrFull) {
			return // the worker is gone: its death is reported by the pool
		}
		n.watchExec(cl)
	}
	cl.backlog = append(cl.backlog, append([]byte(nil), packet...))
}

// poke disturbs the main thread of a worker that runs tasks when a CANCEL lies in its queue, each time that it is put there.
func (cl *client) poke(n *Node, packet []byte) {
	if !cl.pokes || wire.Kind(packet[4]) != wire.KindCancel {
		return
	}
	if err := cl.worker.Signal(unix.SIGURG); err != nil && !errors.Is(err, os.ErrProcessDone) {
		n.log.Warn("a worker cannot be told that its task is cancelled", "pid", cl.worker.Pid, "err", err)
	}
}

// watchExec goes on with the backlog when the worker has read some.
func (n *Node) watchExec(cl *client) {
	err := cl.worker.Exec.NotifyWritable(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		for len(cl.backlog) > 0 {
			if err := cl.worker.Exec.Send(cl.backlog[0]); err != nil {
				if errors.Is(err, pool.ErrFull) {
					n.watchExec(cl)
				}
				return
			}
			cl.poke(n, cl.backlog[0])
			cl.backlog = cl.backlog[1:]
		}
	})
	if err != nil && !isClosedErr(err) {
		n.log.Warn("a worker's exec queue cannot be watched", "err", err)
	}
}

// takeBack withdraws the EXECUTEs that a worker has not received; other frames are sent again, in order.
func (cl *client) takeBack(n *Node) []ids.Unique {
	packets, err := cl.worker.Exec.TakeBack()
	if err != nil && !isClosedErr(err) {
		n.log.Warn("what was sent to a worker cannot be taken back", "err", err)
	}
	packets = append(packets, cl.backlog...)
	cl.backlog = nil
	var back []ids.Unique
	for _, p := range packets {
		r := wire.NewReader(p)
		f, err := r.Next()
		if err == nil && f.Kind == wire.KindExecute {
			if x, err := wire.DecodeExecute(f.Body); err == nil {
				back = append(back, x.Unique)
				continue
			}
		}
		if err == nil && f.Kind == wire.KindExecuteAt {
			if at, err := wire.DecodeExecuteAt(f.Body); err == nil {
				if x, err := wire.DecodeExecute(n.arena.Bytes(int64(at.Offset), int64(at.Size))); err == nil {
					back = append(back, x.Unique)
					continue
				}
			}
		}
		cl.send(n, p)
	}
	return back
}
