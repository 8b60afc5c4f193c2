package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// printer writes a command's story in Ray's two styles: pretty for people, and records "date\tLEVEL file:line -- text".
type printer struct {
	w      io.Writer
	record bool
	color  bool
	now    func() time.Time
}

func (a *app) printer() *printer {
	tty := isTerminal(a.out)
	return &printer{
		w:      a.out,
		record: a.style == "record" || a.style == "auto" && !tty,
		color:  a.color == "true" || a.color == "auto" && tty && os.Getenv("NO_COLOR") == "",
		now:    time.Now,
	}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

const (
	bold  = "1"
	green = "32"
	red   = "31"
	cyan  = "36"
)

func (p *printer) paint(code, text string) string {
	if !p.color || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p *printer) write(level, text string) {
	if p.record {
		if strings.TrimSpace(text) == "" {
			return
		}
		_, file, line, _ := runtime.Caller(2)
		fmt.Fprintf(p.w, "%s\t%s %s:%d -- %s\n", strings.Replace(p.now().Format("2006-01-02 15:04:05.000"), ".", ",", 1), level, filepath.Base(file), line, text)
		return
	}
	fmt.Fprintln(p.w, text)
}

func (p *printer) print(format string, a ...any) { p.write("INFO", fmt.Sprintf(format, a...)) }
func (p *printer) command(text string)           { p.write("INFO", "  "+p.paint(bold, text)) }
func (p *printer) heading(text string)           { p.write("INFO", p.paint(cyan, text)) }
func (p *printer) warn(format string, a ...any)  { p.write("WARNING", fmt.Sprintf(format, a...)) }
func (p *printer) fail(format string, a ...any) {
	p.write("ERR", p.paint(red, fmt.Sprintf(format, a...)))
}

func (p *printer) success(format string, a ...any) {
	p.write("SUCC", p.paint(green, fmt.Sprintf(format, a...)))
}

// box is a success between two lines of dashes.
func (p *printer) box(text string) {
	line := strings.Repeat("-", len(text))
	p.write("SUCC", p.paint(green, line))
	p.write("SUCC", p.paint(green, text))
	p.write("SUCC", p.paint(green, line))
}
