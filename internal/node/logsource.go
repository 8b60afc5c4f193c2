package node

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"gray/internal/core/ids"
	"gray/internal/core/logs"
	"gray/internal/logfile"
	"gray/internal/pool"
)

// logSource is the shell around this node's core/logs.Source: it hears which files of workers grow, reads them as far as
// their drivers have given credit, sends what it read, and cuts files that become too large.
//
// pumping is held by who reads and sends, so that a file's text goes in order; mu is taken within it, and never while the
// node's lock is held by the same goroutine.
type logSource struct {
	n     *Node
	limit logfile.Limit
	watch *logfile.Watcher // nil: files are looked at from time to time
	kick  chan struct{}
	quit  chan struct{}
	done  chan struct{}

	pumping sync.Mutex

	mu      sync.Mutex
	src     *logs.Source                 // guarded by mu
	files   map[logs.FileID]*logOutput   // guarded by mu
	watched map[int32]*logOutput         // guarded by mu
	dead    logfile.Keeper[*pool.Worker] // guarded by mu
	drivers map[ids.Job]ids.NodeID       // guarded by mu; where the drivers of jobs are whose output is wanted
	ticking bool                         // guarded by mu
	closed  bool                         // guarded by mu
}

// logOutput is a file of a worker, or of this daemon.
type logOutput struct {
	id     logs.FileID // 0 of the daemon's own
	w      *pool.Worker
	which  int    // 0: stdout, 1: stderr
	own    string // path of the daemon's own
	watch  int32  // 0: none
	hole   int64  // bytes at its beginning that a cut left as a hole
	ended  bool
	broken bool // it could not be cut, and the log says so
}

func (f *logOutput) path() string {
	if f.w == nil {
		return f.own
	}
	out, err := f.w.Logs()
	if f.which == 1 {
		return err
	}
	return out
}

// deadLogs is of how many dead workers the log files are kept.
const deadLogs = 1000

const (
	logLook = 100 * time.Millisecond // between looks at all files, where nothing tells that they grow
	logTick = 200 * time.Millisecond // after which the begin of a line is shown without its end
)

func startLogSource(n *Node, limit logfile.Limit) *logSource {
	l := &logSource{
		n: n, limit: limit, src: logs.NewSource(), files: map[logs.FileID]*logOutput{}, watched: map[int32]*logOutput{}, drivers: map[ids.Job]ids.NodeID{},
		kick: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
	l.dead = logfile.Keeper[*pool.Worker]{Most: deadLogs, Backups: limit.Backups, Files: func(w *pool.Worker) []string {
		stdout, stderr := w.Logs()
		return []string{stdout, stderr}
	}}
	var err error
	if l.watch, err = logfile.Watch(l.changed); err != nil {
		n.log.Warn("the system gives no watch of files, so workers' output is looked for ten times a second; raise fs.inotify.max_user_instances", "err", err)
	}
	go l.run()
	return l
}

// logLimit is how large log files become.
func (n *Node) logLimit() logfile.Limit {
	l := logfile.Limit{MaxBytes: 100 << 20, Backups: 5}
	if v := n.cfg.LogMaxBytes; v != nil {
		l.MaxBytes = *v
	}
	if v := n.cfg.LogBackups; v != nil {
		l.Backups = int(*v)
	}
	return l
}

// guard bounds the daemon's own log files as well.
func (l *logSource) guard() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, fd := range []string{"/proc/self/fd/1", "/proc/self/fd/2"} {
		if path, err := os.Readlink(fd); err == nil && filepath.Dir(path) == l.n.dir.LogDir() {
			l.add(&logOutput{own: path})
		}
	}
}

func (l *logSource) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	if l.watch != nil {
		l.watch.Close()
	}
	close(l.quit)
	<-l.done
}

// add watches a file; the caller holds mu.
func (l *logSource) add(f *logOutput) {
	if l.watch != nil && !l.closed {
		k, err := l.watch.Add(f.path())
		if err == nil {
			f.watch = k
			l.watched[k] = f
			return
		}
		l.n.log.Warn("a log file cannot be watched; it is looked at now and then", "file", f.path(), "err", err)
	}
	l.tickLocked()
}

// assign begins with the output of a worker that got a job.
func (l *logSource) assign(w *pool.Worker, job ids.Job, driver ids.NodeID, forward bool) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	tell := false
	for which := range 2 {
		f := &logOutput{w: w, which: which}
		var first bool
		f.id, first = l.src.Open(job, w.Pid, which == 1, forward)
		tell = tell || first
		l.files[f.id] = f
		l.add(f)
		l.lookLocked(f)
	}
	if forward {
		l.drivers[job] = driver
	}
	l.mu.Unlock()
	if tell {
		l.n.sendLog(driver, &logFrom{Job: job})
	}
	l.wake()
}

// ended takes the end of a worker; what it had printed has been sent when it returns, as far as there is credit.
func (l *logSource) ended(w *pool.Worker) {
	l.mu.Lock()
	found := false
	for _, f := range l.files {
		if f.w != w {
			continue
		}
		found = true
		f.ended = true
		size, err := logfile.Size(f.path())
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			l.n.log.Warn("a dead worker's output cannot be read", "file", f.path(), "err", err)
		}
		l.src.Ended(f.id, size)
	}
	if err := l.dead.Ended(w, l.readsLocked); err != nil {
		l.n.log.Warn("log files of workers that died long ago cannot be removed", "err", err)
	}
	l.mu.Unlock()
	if found {
		l.pump()
	}
}

// readsLocked tells whether what a worker has printed is still to be sent.
func (l *logSource) readsLocked(w *pool.Worker) bool {
	for _, f := range l.files {
		if f.w == w {
			return true
		}
	}
	return false
}

func (l *logSource) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

func (l *logSource) run() {
	defer close(l.done)
	for {
		select {
		case <-l.kick:
			l.pump()
		case <-l.quit:
			return
		}
	}
}

// changed hears of files that have grown.
func (l *logSource) changed(watches map[int32]bool, all bool) {
	l.mu.Lock()
	for k, f := range l.watched {
		if all || watches[k] {
			l.lookLocked(f)
		}
	}
	l.mu.Unlock()
	l.pump()
	l.cut()
}

// lookLocked asks how large a file is.
func (l *logSource) lookLocked(f *logOutput) (size int64) {
	size, err := logfile.Size(f.path())
	if err == nil && f.id != 0 {
		l.src.Grew(f.id, size)
	}
	return size // of one that is gone nothing comes any more
}

// cut shortens what has become too large. What is read next may be what is cut, so it must not be read meanwhile.
func (l *logSource) cut() {
	l.pumping.Lock()
	defer l.pumping.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.watched {
		if f.broken || !l.limit.Due(l.lookLocked(f), f.hole) {
			continue
		}
		c, err := l.limit.Cut(f.path(), f.hole)
		if err != nil {
			f.broken = true
			l.n.log.Error("a log file could not be cut", "err", err)
			continue
		}
		if !c.Shorter {
			f.hole = c.To
		}
		if f.id != 0 && c.To > 0 {
			l.src.Cut(f.id, c.To, c.Shorter, filepath.Base(f.path())+".1")
		}
	}
}

// pump reads and sends for as long as there is something to read and credit for it.
func (l *logSource) pump() {
	l.pumping.Lock()
	defer l.pumping.Unlock()
	for {
		l.mu.Lock()
		r, ok := l.src.Next()
		if !ok {
			l.tickLocked()
			l.mu.Unlock()
			return
		}
		b, err := readAt(l.files[r.File].path(), r.Off, r.Max)
		if err != nil {
			l.n.log.Warn("a worker's output cannot be read", "err", err)
		}
		job, batches, flushes := l.src.Took(r.File, b)
		driver := l.drivers[job]
		l.forgetLocked(r.File)
		l.mu.Unlock()
		for k := range batches {
			l.n.sendLog(driver, &logData{Job: job, Pid: batches[k].Pid, IP: l.n.ip, Name: batches[k].Name, Err: batches[k].Err, Text: batches[k].Text, Dropped: batches[k].Dropped, Where: batches[k].Where})
		}
		for _, no := range flushes {
			l.n.sendLog(driver, &logFlushed{Job: job, No: no})
		}
	}
}

// forgetLocked drops a file that will not be read any more.
func (l *logSource) forgetLocked(id logs.FileID) {
	f := l.files[id]
	if f == nil || l.src.Known(id) {
		return
	}
	delete(l.files, id)
	if f.watch != 0 && l.watched[f.watch] == f {
		delete(l.watched, f.watch)
		if !l.closed {
			l.watch.Remove(f.watch)
		}
	}
}

// readAt reads up to n bytes of a file into memory that belongs to the caller.
func readAt(path string, off int64, n int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	b := make([]byte, n)
	k, err := f.ReadAt(b, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:k], errors.Join(err, f.Close())
}

// tickLocked keeps a timer running while something is to be looked at without being told.
func (l *logSource) tickLocked() {
	unwatched := l.watch == nil && len(l.files) > 0
	if !unwatched && l.watch != nil {
		for _, f := range l.files {
			if unwatched = f.watch == 0; unwatched {
				break
			}
		}
	}
	if l.ticking || l.closed || !unwatched && !l.src.Waits() {
		return
	}
	l.ticking = true
	every := logTick
	if unwatched {
		every = logLook
	}
	time.AfterFunc(every, func() {
		l.mu.Lock()
		l.ticking = false
		if l.closed {
			l.mu.Unlock()
			return
		}
		for _, f := range l.files {
			if f.watch == 0 {
				l.lookLocked(f)
			}
		}
		l.src.Tick()
		l.mu.Unlock()
		l.pump()
	})
}

// credit lets a job's output flow.
func (l *logSource) credit(job ids.Job, n int) {
	l.mu.Lock()
	l.src.Credit(job, n)
	l.mu.Unlock()
	l.wake()
}

// stop ends the forwarding of a job's output: its driver is gone, or does not want it.
func (l *logSource) stop(job ids.Job, over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if over {
		l.src.Over(job)
	} else {
		l.src.Stop(job)
	}
	delete(l.drivers, job)
	for id, f := range l.files {
		if f.ended {
			l.forgetLocked(id)
		}
	}
}

// nodeDead stops what went to a node.
func (l *logSource) nodeDead(node ids.NodeID) {
	l.mu.Lock()
	var jobs []ids.Job
	for job, at := range l.drivers {
		if at == node {
			jobs = append(jobs, job)
		}
	}
	l.mu.Unlock()
	for _, job := range jobs {
		l.stop(job, false)
	}
}

// flush sends all that a job's workers here have printed by now, and says so to the job's desk.
func (l *logSource) flush(desk ids.NodeID, job ids.Job, no uint64) {
	l.mu.Lock()
	for _, f := range l.files {
		if !f.ended {
			l.lookLocked(f)
		}
	}
	done := l.src.Flush(job, no)
	l.mu.Unlock()
	for _, no := range done {
		l.n.sendLog(desk, &logFlushed{Job: job, No: no})
	}
	l.wake()
}
