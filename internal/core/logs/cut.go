// Package logs decides how what workers print goes to their jobs' drivers.
//
// Source is the half of a worker's node: which file is read next, and how far. Desk is the half of the driver's node: what
// is shown when, and who may send more. A Source sends no more than a Desk has given it credit for, and a Desk gives credit
// back once the driver has taken what came of it; so a slow driver leaves the output in the files, and nothing grows.
// Printer, a part of Desk, makes lines for people: a prefix that says who printed, and one line for many that are alike.
//
// Neither reads a file, a clock or a socket: the caller tells what happened and carries out what comes back. Sizes are bytes.
package logs

import "bytes"

// Marks are lines that a worker writes into its own files, to say in whose name it prints what follows. They are not shown.
const (
	taskMark  = ":task_name:"
	actorMark = ":actor_name:"
	jobMark   = ":job_id:"
	idMark    = ":task_id:" // for which attempt of which task: for those who ask for a task's log
)

// Piece is text that one task or actor printed: whole lines, but for the last, which may lack its end.
type Piece struct {
	Name string
	Text []byte
}

// Cut splits bytes that begin a line into pieces, without the marks, and tells in whose name the next byte is printed.
// Pieces alias b. Of b, only the first used bytes are cut: up to the last end of a line, or all if whole is set.
func Cut(name string, b []byte, whole bool) (pieces []Piece, next string, used int) {
	if !whole {
		b = b[:bytes.LastIndexByte(b, '\n')+1]
	}
	used = len(b)
	for len(b) > 0 {
		if b[0] == ':' {
			line := b
			if i := bytes.IndexByte(b, '\n'); i >= 0 {
				line = b[:i+1]
			}
			if to, ok := mark(name, line); ok {
				name, b = to, b[len(line):]
				continue
			}
		}
		n := 0 // up to the next line that may be a mark
		for {
			i := bytes.Index(b[n:], []byte("\n:"))
			if i < 0 {
				n = len(b)
				break
			}
			n += i + 1
			rest := b[n:]
			if j := bytes.IndexByte(rest, '\n'); j >= 0 {
				rest = rest[:j+1]
			}
			if _, ok := mark(name, rest); ok {
				break
			}
		}
		pieces = append(pieces, Piece{name, b[:n]})
		b = b[n:]
	}
	return pieces, name, used
}

// mark tells whether a line is one, and in whose name it says that what follows is printed.
func mark(name string, line []byte) (string, bool) {
	line = bytes.TrimRight(line, "\r\n")
	if rest, ok := bytes.CutPrefix(line, []byte(taskMark)); ok {
		return string(rest), true
	}
	if rest, ok := bytes.CutPrefix(line, []byte(actorMark)); ok {
		return string(rest), true
	}
	return name, bytes.HasPrefix(line, []byte(jobMark)) || bytes.HasPrefix(line, []byte(idMark))
}
