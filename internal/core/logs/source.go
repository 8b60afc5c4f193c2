package logs

import (
	"bytes"
	"slices"

	"gray/internal/core/ids"
)

// Sizes of what travels.
const (
	// MaxRead is the most bytes of a file that are read at once. A longer line is cut.
	MaxRead = 64 << 10
	// Window is what a source may send of a job before its desk has given anything back.
	Window = 256 << 10
)

// FileID numbers a worker's output files on its node.
type FileID uint64

// Batch is what one process printed under one name to one of its two streams.
type Batch struct {
	Job     ids.Job
	Pid     int
	IP      string
	Name    string
	Err     bool
	Text    []byte // whole lines; the last may lack its end
	Dropped int64  // bytes that the process had printed before Text, and that were not sent
	Where   string // the file's name, if some were dropped
}

// Read asks for bytes of a file.
type Read struct {
	File FileID
	Off  int64
	Max  int
}

// Source is a node's half: the files of its workers, and what their drivers may still be sent. The zero value is not one:
// use NewSource.
type Source struct {
	files map[FileID]*file
	flows map[ids.Job]*flow
	ready []*flow // those with files to read and with credit, each once
	last  FileID
	opens int // files with the begin of a line that waits for its end
}

type file struct {
	id      FileID
	flow    *flow
	pid     int
	err     bool
	name    string // in which the byte at off was printed
	off     int64
	size    int64 // as last heard
	ended   bool  // nobody writes it any more
	open    bool  // what was read of it last is the begin of a line
	late    bool  // it waits since before the last Tick
	force   bool  // the begin of a line goes out as it is
	queued  bool
	dropped int64
	where   string
}

// flow is a job's.
type flow struct {
	job     ids.Job
	on      bool // its driver wants the output
	credit  int
	queue   []*file
	files   int // that there are
	queued  bool
	flushes []flushing
}

type flushing struct {
	no    uint64
	until map[FileID]int64
}

// NewSource has no files.
func NewSource() *Source {
	return &Source{files: map[FileID]*file{}, flows: map[ids.Job]*flow{}}
}

// Open begins with a file of a worker that a job has got. forward tells whether the job's driver wants it; first, whether
// that driver's desk has to be told that this node has output for it.
func (s *Source) Open(job ids.Job, pid int, isErr, forward bool) (id FileID, first bool) {
	fl := s.flows[job]
	if fl == nil {
		fl = &flow{job: job, on: forward, credit: Window}
		s.flows[job], first = fl, forward
	}
	s.last++
	fl.files++
	s.files[s.last] = &file{id: s.last, flow: fl, pid: pid, err: isErr}
	return s.last, first
}

// Grew says how large a file is now.
func (s *Source) Grew(id FileID, size int64) {
	f := s.files[id]
	if f == nil || size <= f.size {
		return
	}
	f.size = size
	s.setOpen(f, false)
	s.queue(f)
}

// Ended says that a file's worker is dead, and how large the file is. It is forgotten once it is read.
func (s *Source) Ended(id FileID, size int64) {
	f := s.files[id]
	if f == nil {
		return
	}
	f.size, f.ended, f.force = max(size, f.size), true, true
	s.setOpen(f, false)
	s.queue(f)
	s.settle(f)
}

// Cut says that a file has lost its first n bytes, or, if it kept its size, that they cannot be read any more.
func (s *Source) Cut(id FileID, n int64, shorter bool, where string) {
	f := s.files[id]
	if f == nil {
		return
	}
	if f.off < n {
		if f.flow.on {
			f.dropped += n - f.off
			f.where = where
		}
		f.off = n
	}
	if shorter {
		f.off -= n
		f.size -= n
		for _, fl := range f.flow.flushes {
			fl.until[id] -= n
		}
	}
	s.settle(f)
}

// Credit lets a job's output flow: n bytes more may be sent.
func (s *Source) Credit(job ids.Job, n int) {
	if fl := s.flows[job]; fl != nil {
		fl.credit += n
		s.wake(fl)
	}
}

// Stop says that nobody wants a job's output.
func (s *Source) Stop(job ids.Job) {
	fl := s.flows[job]
	if fl == nil {
		return
	}
	fl.on, fl.queue, fl.flushes = false, nil, nil
	for _, f := range s.files {
		if f.flow == fl {
			f.queued, f.dropped = false, 0
			s.setOpen(f, false)
			s.settle(f)
		}
	}
}

// Flush asks to be told, by Took or at once, when all that is in a job's files by now has been sent.
func (s *Source) Flush(job ids.Job, no uint64) (done []uint64) {
	fl := s.flows[job]
	if fl == nil || !fl.on {
		return []uint64{no}
	}
	x := flushing{no: no, until: map[FileID]int64{}}
	for id, f := range s.files {
		if f.flow == fl && (f.off < f.size || f.dropped > 0) {
			x.until[id] = f.size
			f.force = true
			s.setOpen(f, false)
			s.queue(f)
		}
	}
	fl.flushes = append(fl.flushes, x)
	return s.flushed(fl)
}

// Tick lets begins of lines go that wait since before the Tick before: a progress bar ends its line when all is done. It is to be called from time to time while
// Waits.
func (s *Source) Tick() {
	for _, f := range s.files {
		switch {
		case !f.open:
		case f.late:
			f.force = true
			s.setOpen(f, false)
			s.queue(f)
		default:
			f.late = true
		}
	}
}

// Waits tells whether the begin of a line waits for its end.
func (s *Source) Waits() bool {
	return s.opens > 0
}

func (s *Source) setOpen(f *file, open bool) {
	if f.open != open {
		if f.open = open; open {
			s.opens++
		} else {
			s.opens--
		}
	}
}

// Behind is how many bytes of a file have not been sent; 0 if nobody wants them.
func (s *Source) Behind(id FileID) int64 {
	if f := s.files[id]; f != nil && f.flow.on {
		return f.size - f.off
	}
	return 0
}

// Known tells whether a file is still to be read or written.
func (s *Source) Known(id FileID) bool { return s.files[id] != nil }

// Next says what to read now: of jobs in turn, and of a job's files in turn.
func (s *Source) Next() (r Read, ok bool) {
	for len(s.ready) > 0 {
		fl := s.ready[0]
		if !fl.on || fl.credit <= 0 || len(fl.queue) == 0 {
			fl.queued = false
			s.ready = s.ready[1:]
			continue
		}
		f := fl.queue[0]
		return Read{f.id, f.off, int(min(MaxRead, max(f.size-f.off, 0)))}, true
	}
	return r, false
}

// Took takes the answer of Next: what the file has from there on, which may be less. It returns what to send, whose texts
// alias b, and which of the job's flushes are done with that.
func (s *Source) Took(id FileID, b []byte) (job ids.Job, out []Batch, done []uint64) {
	f := s.files[id]
	if f == nil || len(f.flow.queue) == 0 || f.flow.queue[0] != f {
		return job, nil, nil
	}
	fl := f.flow
	fl.queue = fl.queue[1:]
	f.queued = false
	if len(fl.queue) > 0 && len(s.ready) > 1 && s.ready[0] == fl {
		s.ready = append(s.ready[1:], fl)
	}
	if f.dropped > 0 { // the line that is cut is not shown in part
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			f.off, f.dropped, b = f.off+int64(i)+1, f.dropped+int64(i)+1, b[i+1:]
		}
		out = append(out, Batch{Job: fl.job, Pid: f.pid, Name: f.name, Err: f.err, Dropped: f.dropped, Where: f.where})
		f.dropped, f.where = 0, ""
	}
	last := f.off+int64(len(b)) >= f.size
	pieces, name, used := Cut(f.name, b, last && f.force)
	if used == 0 && len(b) >= MaxRead {
		pieces, name, used = Cut(f.name, b, true)
	}
	for _, p := range pieces {
		out = append(out, Batch{Job: fl.job, Pid: f.pid, Name: p.Name, Err: f.err, Text: p.Text})
		fl.credit -= len(p.Text)
	}
	if f.name, f.off = name, f.off+int64(used); used > 0 {
		f.late = false
	}
	switch {
	case len(b) == 0: // it is shorter than was heard
		f.size, f.force = f.off, false
	case f.off >= f.size:
		f.force = false
	case used < len(b) && last:
		s.setOpen(f, true)
	default:
		s.queue(f)
	}
	s.settle(f)
	return fl.job, out, s.flushed(fl)
}

func (s *Source) queue(f *file) {
	if f.queued || !f.flow.on || f.off >= f.size && f.dropped == 0 {
		return
	}
	f.queued = true
	f.flow.queue = append(f.flow.queue, f)
	s.wake(f.flow)
}

func (s *Source) wake(fl *flow) {
	if !fl.queued && fl.on && fl.credit > 0 && len(fl.queue) > 0 {
		fl.queued = true
		s.ready = append(s.ready, fl)
	}
}

// settle forgets a file that nobody writes and that needs no reading, and a job without files.
func (s *Source) settle(f *file) {
	if s.files[f.id] != f || !f.ended || f.flow.on && (f.off < f.size || f.dropped > 0) {
		return
	}
	delete(s.files, f.id)
	s.setOpen(f, false)
	if f.queued {
		f.flow.queue = slices.DeleteFunc(f.flow.queue, func(x *file) bool { return x == f })
	}
	if f.flow.files--; f.flow.files == 0 && len(f.flow.flushes) == 0 && !f.flow.on {
		delete(s.flows, f.flow.job)
	}
}

// flushed takes the flushes that are done off a job's list.
func (s *Source) flushed(fl *flow) (done []uint64) {
	fl.flushes = slices.DeleteFunc(fl.flushes, func(x flushing) bool {
		for id, until := range x.until {
			if f := s.files[id]; f != nil && (f.off < until || f.dropped > 0) {
				return false
			}
		}
		done = append(done, x.no)
		return true
	})
	return done
}

// Over says that a job has ended: its driver wants nothing more, and it is forgotten with its last file.
func (s *Source) Over(job ids.Job) {
	s.Stop(job)
	if fl := s.flows[job]; fl != nil && fl.files == 0 {
		delete(s.flows, job)
	}
}
