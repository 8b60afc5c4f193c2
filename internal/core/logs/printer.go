package logs

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// Stream is where a driver shows text.
type Stream uint8

// The streams of a driver.
const (
	Stdout Stream = iota
	Stderr
	Bars // states of progress bars, a line of JSON each
)

// Style is how a driver wants its workers' output.
type Style struct {
	Plain  bool   // without saying who printed
	Color  [2]int // of that, on Stdout and Stderr: one of the constants below
	IP     string // of the driver's node: what comes from there does not say where it comes from
	Dedup  bool   // one line for many processes' lines that are alike
	Window time.Duration
	Allow  func(line []byte) bool // nil, or which lines are never put together
	Skip   func(line []byte) bool // nil, or which lines are not shown
}

// Colors of prefixes.
const (
	NoColor = iota
	OneColor
	ColorByPid
)

// barMark is in lines that are states of progress bars; neverMark in those that tests want to see each time.
const (
	barMark   = `"__ray_tqdm_magic_token__"`
	neverMark = "__ray_testing_never_deduplicate__"
)

var colors = []string{"\x1b[36m", "\x1b[35m", "\x1b[32m", "\x1b[34m", "\x1b[94m", "\x1b[33m"}

// maxAlike bounds the kinds of lines that are remembered; the oldest go first.
const maxAlike = 4096

// Printer turns batches into lines for a driver.
type Printer struct {
	style  Style
	alike  [2]map[uint64]*alike // by stream and what makes lines alike
	oldest [2][]*alike          // in the order of their times
	hinted bool
	line   []byte // scratch
}

// alike is what is known of lines that differ in numbers at most.
type alike struct {
	key    uint64
	since  time.Duration
	source string // who printed the first
	shared bool   // somebody else did, too
	n      int    // that were not shown
	sample []byte // the last of these, with its prefix
}

// NewPrinter makes one.
func NewPrinter(s Style) *Printer {
	return &Printer{style: s, alike: [2]map[uint64]*alike{{}, {}}}
}

// Print appends what a batch looks like to out, by stream.
func (p *Printer) Print(now time.Duration, b *Batch, out func(s Stream, text []byte)) {
	s := Stdout
	if b.Err {
		s = Stderr
	}
	p.expire(now, s, out)
	prefix := p.prefix(s, b)
	if b.Dropped > 0 {
		where := b.Where
		if b.IP != p.style.IP {
			where += " on " + b.IP
		}
		out(s, fmt.Appendf(nil, "%s[%d bytes are not shown: they were printed faster than this program takes them; the latest of them are in %s]\n", prefix, b.Dropped, where))
	}
	source := strconv.Itoa(b.Pid) + " " + b.IP
	buf := p.line[:0]
	for text := b.Text; len(text) > 0; {
		var line []byte
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			line, text = text[:i], text[i+1:]
		} else {
			line, text = text, nil
		}
		line = bytes.TrimRight(line, "\r")
		if len(line) > 2 && line[0] == '{' && bytes.Contains(line, []byte(barMark)) {
			out(s, buf)
			buf = buf[:0]
			out(Bars, append(append([]byte(nil), line...), '\n'))
			continue
		}
		at := len(buf)
		buf = append(append(append(buf, prefix...), line...), '\n')
		if p.style.Dedup && !p.show(now, s, source, line, buf[at:len(buf)-1]) {
			buf = buf[:at]
		}
	}
	out(s, buf)
	p.line = buf[:0]
	if cap(buf) > 1<<20 {
		p.line = nil
	}
}

func (p *Printer) prefix(s Stream, b *Batch) string {
	if p.style.Plain {
		return ""
	}
	text := "pid=" + strconv.Itoa(b.Pid)
	if b.Name != "" {
		text = b.Name + " " + text
	}
	if b.IP != p.style.IP {
		text += ", ip=" + b.IP
	}
	switch p.style.Color[s] {
	case OneColor:
		return colors[0] + "(" + text + ")\x1b[0m "
	case ColorByPid:
		return colors[b.Pid%len(colors)] + "(" + text + ")\x1b[0m "
	}
	return "(" + text + ") "
}

// show decides whether a line is shown now; if not, it is counted. whole is the line with its prefix.
func (p *Printer) show(now time.Duration, s Stream, source string, line, whole []byte) bool {
	if p.style.Skip != nil && p.style.Skip(line) {
		return false
	}
	if p.style.Allow != nil && p.style.Allow(line) {
		return true
	}
	if bytes.Contains(line, []byte(neverMark)) {
		return true
	}
	key, ok := kind(line)
	if !ok {
		return true
	}
	a := p.alike[s][key]
	if a == nil {
		p.remember(now, s, &alike{key: key, since: now, source: source})
		return true
	}
	if a.source == source && !a.shared {
		return true
	}
	a.shared = true
	a.n++
	a.sample = append(a.sample[:0], whole...)
	return false
}

func (p *Printer) remember(now time.Duration, s Stream, a *alike) {
	p.alike[s][a.key] = a
	p.oldest[s] = append(p.oldest[s], a)
	for len(p.alike[s]) > maxAlike { // one that nothing is owed for goes unseen; another is told with what comes next
		a := p.oldest[s][0]
		if a.n > 0 {
			a.since = now - p.style.Window
			break
		}
		p.oldest[s] = p.oldest[s][1:]
		delete(p.alike[s], a.key)
	}
}

// Due is when lines that were not shown have to be told of; false if there are none.
func (p *Printer) Due() (at time.Duration, ok bool) {
	for s := range p.oldest {
		for _, a := range p.oldest[s] {
			if a.n > 0 {
				if t := a.since + p.style.Window; !ok || t < at {
					at, ok = t, true
				}
				break // later ones are due later
			}
		}
	}
	return at, ok
}

// Expire tells of lines whose time has come.
func (p *Printer) Expire(now time.Duration, out func(s Stream, text []byte)) {
	p.expire(now, Stdout, out)
	p.expire(now, Stderr, out)
}

// Flush tells of all lines that were not shown.
func (p *Printer) Flush(out func(s Stream, text []byte)) {
	p.Expire(1<<62, out)
}

func (p *Printer) expire(now time.Duration, s Stream, out func(s Stream, text []byte)) {
	for len(p.oldest[s]) > 0 {
		a := p.oldest[s][0]
		if a.since+p.style.Window > now {
			return
		}
		p.oldest[s] = p.oldest[s][1:]
		delete(p.alike[s], a.key)
		switch {
		case a.n == 1:
			out(s, append(a.sample, '\n'))
		case a.n > 1:
			text := fmt.Appendf(a.sample, " [repeated %dx across cluster]", a.n)
			if !p.hinted {
				p.hinted = true
				text = append(text, " (Ray shows lines that are alike once by default. Set RAY_DEDUP_LOGS=0 to see all of them.)"...)
			}
			out(s, append(text, '\n'))
		}
	}
}

// kind is a number that lines share which differ in words with digits at most; false for a line with no other words.
func kind(line []byte) (h uint64, ok bool) {
	const offset, prime = 14695981039346656037, 1099511628211
	h = offset
	for i := 0; i < len(line); {
		for i < len(line) && space(line[i]) {
			i++
		}
		word, digits := h, false
		from := i
		for i < len(line) && !space(line[i]) {
			c := line[i]
			digits = digits || '0' <= c && c <= '9'
			word = (word ^ uint64(c)) * prime
			i++
		}
		if i > from && !digits {
			h, ok = (word^' ')*prime, true
		}
	}
	return h, ok
}

func space(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }
