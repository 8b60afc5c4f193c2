package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"gray/internal/core/fault"
)

// Marks are lines that a worker writes into its files: in whose name, and for which attempt of which task, it prints what
// follows. The second has 16 digits, the task's own part of its id, and the attempt if it is not the first.
const (
	nameMark  = ":task_name:"
	actorMark = ":actor_name:"
	taskMark  = ":task_id:"
)

// maxMark is the length of the longest line that may be a mark: until its end has come it is held back.
const maxMark = 4096

// Attempt is one of a task, as marks name it.
type Attempt string

// AttemptOf is an attempt of the task with an id in hexadecimal digits.
func AttemptOf(task string, no uint32) (Attempt, error) {
	if len(task) < 16 {
		return "", fmt.Errorf("%q is no id of a task: those have 48 hexadecimal digits", task)
	}
	if _, err := strconv.ParseUint(task[:16], 16, 64); err != nil {
		return "", fmt.Errorf("%q is no id of a task: those have 48 hexadecimal digits", task)
	}
	a := task[:16]
	if no > 0 {
		a += " " + strconv.FormatUint(uint64(no), 10)
	}
	return Attempt(a), nil
}

// Only lets through what one attempt printed, without marks: what stands between its marks and those of others. Without W
// it counts.
type Only struct {
	W    io.Writer
	Want Attempt

	Bytes  int64 // that came through
	Marked bool  // there are marks of tasks, after the actor's name in an actor's file

	lines int64 // ends of lines that came through
	on    bool
	actor bool   // the process is an actor's
	mid   bool   // the next byte is not the first of its line
	open  bool   // what came through last has no end of line
	begin []byte // of a line that may be a mark
}

// Write takes more of the file; a line may lie across calls.
func (o *Only) Write(p []byte) (int, error) {
	rest := p
	if len(o.begin) > 0 {
		n := bytes.IndexByte(p, '\n') + 1
		if n == 0 {
			n = len(p)
		}
		o.begin = append(o.begin, p[:n]...)
		rest = p[n:]
		if o.begin[len(o.begin)-1] != '\n' && len(o.begin) < maxMark && mayMark(o.begin) {
			return len(p), nil
		}
		line := o.begin
		o.begin = nil
		if !o.mark(line) {
			if err := o.pass(line); err != nil {
				return 0, err
			}
		}
	}
	for len(rest) > 0 {
		if !o.mid && rest[0] == ':' {
			n := bytes.IndexByte(rest, '\n') + 1
			if n == 0 && len(rest) < maxMark && mayMark(rest) {
				o.begin = append([]byte(nil), rest...)
				break
			}
			if n > 0 && o.mark(rest[:n]) {
				rest = rest[n:]
				continue
			}
		}
		n := len(rest) // up to the next line that may be a mark
		if i := bytes.Index(rest, []byte("\n:")); i >= 0 {
			n = i + 1
		}
		if err := o.pass(rest[:n]); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(p), nil
}

// mayMark tells whether a line that begins so may be a mark.
func mayMark(b []byte) bool {
	for _, m := range []string{taskMark, nameMark, actorMark} {
		if n := min(len(b), len(m)); string(b[:n]) == m[:n] {
			return true
		}
	}
	return false
}

// mark takes a line if it is one.
func (o *Only) mark(line []byte) bool {
	if line[len(line)-1] != '\n' || len(line) > maxMark {
		return false
	}
	if who, ok := bytes.CutPrefix(line, []byte(taskMark)); ok {
		o.on = string(bytes.TrimSpace(who)) == string(o.Want)
		o.Marked = true
		return true
	}
	if bytes.HasPrefix(line, []byte(actorMark)) {
		if !o.actor { // what was before is of tasks that the process ran before it became an actor
			o.actor, o.on, o.Marked = true, false, false
		}
		return true
	}
	return bytes.HasPrefix(line, []byte(nameMark))
}

// Lines is how many came through; the begin of one is one.
func (o *Only) Lines() int64 {
	if o.open {
		return o.lines + 1
	}
	return o.lines
}

func (o *Only) pass(b []byte) error {
	o.mid = b[len(b)-1] != '\n'
	if !o.on {
		return nil
	}
	o.Bytes += int64(len(b))
	o.lines += int64(bytes.Count(b, []byte("\n")))
	o.open = o.mid
	if o.W == nil {
		return nil
	}
	_, err := o.W.Write(b)
	return err
}

// past drops the first bytes of what goes through it; max ends it.
type past struct {
	w     io.Writer
	bytes int64
	max   int64 // 0: no end
}

// errEnough says that no more is wanted.
var errEnough = errors.New("no more is wanted")

func (s *past) Write(p []byte) (int, error) {
	k := min(s.bytes, int64(len(p)))
	rest := p[k:]
	if s.bytes -= k; len(rest) == 0 {
		return len(p), nil
	}
	end := s.max > 0 && int64(len(rest)) >= s.max
	if end {
		rest = rest[:s.max]
	}
	if s.max > 0 {
		s.max -= int64(len(rest))
	}
	if _, err := s.w.Write(rest); err != nil {
		return 0, err
	}
	if end {
		return 0, errEnough
	}
	return len(p), nil
}

// until counts bytes up to the end of so many lines.
type until struct{ lines, bytes int64 }

func (u *until) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		if u.lines <= 0 {
			return 0, errEnough
		}
		i := bytes.IndexByte(rest, '\n') + 1
		if i == 0 {
			i = len(rest)
		} else {
			u.lines--
		}
		u.bytes += int64(i)
		rest = rest[i:]
	}
	return len(p), nil
}

// TaskLog is what is kept of a file, with what was cut off it, of which one attempt's part is read.
type TaskLog struct {
	files []*Reading // the oldest first
	want  Attempt
}

// maxKept bounds the files that are looked at.
const maxKept = 1000

// OpenTask opens a worker's file and what was cut off it.
func OpenTask(folder, file string, want Attempt) (*TaskLog, error) {
	for range 10 {
		t, whole, err := openKept(folder, file, want)
		if err != nil || whole {
			return t, err
		}
		t.Close() // it was cut meanwhile
	}
	return nil, &fault.Error{Op: "read a task's log", Kind: fault.System, Ref: file, Detail: "the file is cut faster than it is opened; ask again"}
}

func openKept(folder, file string, want Attempt) (t *TaskLog, whole bool, err error) {
	t = &TaskLog{want: want}
	r, err := Open(folder, file)
	if err != nil {
		return nil, false, err
	}
	t.files = []*Reading{r}
	// The latest first: what is cut off while files are opened is then found later, or what was found moves on.
	for k := 1; k < maxKept; k++ {
		r, err := Open(folder, name(file, k))
		if errors.Is(err, os.ErrNotExist) {
			break
		}
		if err != nil {
			t.Close()
			return nil, false, err
		}
		t.files = append([]*Reading{r}, t.files...)
	}
	for k, r := range t.files[:len(t.files)-1] {
		same, err := r.isStill(filepath.Join(folder, name(file, len(t.files)-1-k)))
		if err != nil {
			t.Close()
			return nil, false, err
		}
		if !same {
			return t, false, nil
		}
	}
	_, err = os.Lstat(filepath.Join(folder, name(file, len(t.files))))
	return t, errors.Is(err, os.ErrNotExist) || len(t.files) == maxKept, nil
}

// isStill tells whether a path still names the file.
func (r *Reading) isStill(path string) (bool, error) {
	now, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	was, err := r.f.Stat()
	return err == nil && os.SameFile(was, now), err
}

// Close closes the files.
func (t *TaskLog) Close() {
	for _, r := range t.files {
		_ = r.Close() // they were only read
	}
}

// through reads all files once, from their begins.
func (t *TaskLog) through(o *Only) error {
	buf := make([]byte, 256<<10)
	for _, r := range t.files {
		if err := r.Tail(-1); err != nil {
			return err
		}
		for {
			n, err := r.Read(buf)
			if n > 0 {
				if _, err := o.Write(buf[:n]); err != nil {
					return err
				}
				continue
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			break
		}
	}
	return nil
}

// Last is where the last n lines of what the attempt printed begin; 0 if n is negative. marked tells whether the file tells
// tasks apart.
func (t *TaskLog) Last(n int64) (off int64, marked bool, err error) {
	o := &Only{Want: t.want}
	if err := t.through(o); err != nil {
		return 0, false, err
	}
	if n < 0 || n >= o.Lines() {
		return 0, o.Marked, nil
	}
	u := &until{lines: o.Lines() - n}
	if err := t.through(&Only{Want: t.want, W: u}); err != nil && !errors.Is(err, errEnough) {
		return 0, false, err
	}
	return u.bytes, o.Marked, nil
}

// Part reads up to most bytes from an offset in what the attempt printed.
func (t *TaskLog) Part(off int64, most int) ([]byte, error) {
	var b bytes.Buffer
	err := t.through(&Only{Want: t.want, W: &past{w: &b, bytes: off, max: int64(most)}})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return b.Bytes(), err
}

// Stream writes what the attempt printed from an offset on, and with follow what comes, as Reading.Stream.
func (t *TaskLog) Stream(ctx context.Context, w io.Writer, off int64, follow bool, every time.Duration, flush func()) error {
	o := &Only{Want: t.want, W: &past{w: w, bytes: off}}
	if err := t.through(o); err != nil {
		return err
	}
	flush()
	if !follow {
		return nil
	}
	return t.files[len(t.files)-1].Stream(ctx, o, true, every, flush)
}
