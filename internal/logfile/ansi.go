package logfile

import "io"

// PlainText takes the sequences that color terminals (ESC [ … letter) out of what goes through it.
type PlainText struct {
	W     io.Writer
	state byte // 0: text, 1: after ESC, 2: within a sequence
}

// Write writes p without them; a sequence may lie across two calls.
func (t *PlainText) Write(p []byte) (int, error) {
	out := make([]byte, 0, len(p))
	for _, c := range p {
		switch {
		case t.state == 0 && c == 0x1b:
			t.state = 1
		case t.state == 0:
			out = append(out, c)
		case t.state == 1 && c == '[':
			t.state = 2
		case t.state == 1: // another kind: two bytes
			t.state = 0
		case c >= 0x40 && c <= 0x7e:
			t.state = 0
		}
	}
	if len(out) > 0 {
		if _, err := t.W.Write(out); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
