package explain

import (
	"fmt"
	"strings"
)

// Text is the report for people, with a line's end after each line.
func (r *Report) Text() string {
	w := &writer{}
	name := r.Name
	if name != "" {
		name += " "
	}
	w.line(0, "%s %s(%s): %s", r.Kind, name, r.ID, r.State)
	w.line(1, "%s", r.Why)
	r.where(w)
	r.queue(w, 1)
	w.missing(1, "missing arguments", r.Missing)
	w.missing(1, "its ray.get waits for", r.Blocked)
	w.missing(1, "what it returned", r.Returned)
	r.object(w)
	if r.Life != nil {
		r.life(w)
	}
	for _, o := range r.Elsewhere {
		w.line(1, "node %s: %s: %s", o.Node, o.State, o.Why)
		o.queue(w, 2)
		w.missing(2, "missing arguments", o.Missing)
		w.missing(2, "its ray.get waits for", o.Blocked)
	}
	for _, n := range r.Notes {
		w.line(1, "note: %s", n)
	}
	return w.String()
}

type writer struct{ strings.Builder }

func (w *writer) line(deep int, format string, args ...any) {
	w.WriteString(strings.Repeat("  ", deep))
	fmt.Fprintf(w, format, args...)
	w.WriteByte('\n')
}

func (w *writer) missing(deep int, title string, list []Missing) {
	if len(list) == 0 {
		return
	}
	w.line(deep, "%s:", title)
	for _, m := range list {
		w.line(deep+1, "ObjectRef(%s): %s: %s", m.ID, m.State, m.Why)
	}
}

// where says whose it is and where it runs.
func (r *Report) where(w *writer) {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if r.Job != "" {
		add("job %s", r.Job)
	}
	if r.Kind == Task && r.Retries != nil {
		add("attempt %d, %s", r.Attempt, left(*r.Retries, "retries left", "retries without end"))
	}
	if r.Actor != "" {
		add("of actor %s", r.Actor)
	}
	if r.RunsOn != "" {
		add("on node %s", r.RunsOn)
	}
	if r.PID != 0 {
		add("process %d", r.PID)
	}
	if r.Seconds >= 0.1 {
		add("for %.1f s", r.Seconds)
	}
	if r.Size > 0 {
		add("%d bytes", r.Size)
	}
	if r.Kind != Actor && r.Node != "" {
		add("told by node %s", r.Node)
	}
	if len(parts) > 0 {
		w.line(1, "%s", strings.Join(parts, "; "))
	}
}

func left(n int32, some, endless string) string {
	if n < 0 {
		return endless
	}
	return fmt.Sprintf("%d %s", n, some)
}

func (r *Report) queue(w *writer, deep int) {
	if q := r.Queue; q != nil {
		place := "far behind"
		if q.Place > 0 {
			place = fmt.Sprintf("number %d", q.Place)
		}
		text := fmt.Sprintf("queue: %s of %d with the same needs: %s", place, q.Of, q.Needs)
		if q.Strategy != "" {
			text += ", " + q.Strategy
		}
		if q.Jobs > 1 {
			text += fmt.Sprintf("; %d jobs with %d such tasks take turns", q.Jobs, q.Tasks)
		}
		w.line(deep, "%s", text)
	}
	if len(r.Nodes) == 0 {
		return
	}
	w.line(deep, "nodes:")
	for _, v := range r.Nodes {
		name := ""
		if v.Name != "" {
			name = " (" + v.Name + ")"
		}
		w.line(deep+1, "%s%s: %s", v.Node, name, v.Why)
	}
	if r.More > 0 {
		w.line(deep+1, "and %d more", r.More)
	}
}

func (r *Report) object(w *writer) {
	if len(r.Copies) > 0 {
		w.line(1, "copies:")
		for _, c := range r.Copies {
			kind := ""
			if c.Primary {
				kind = ", which must keep it"
			} else if c.Partial {
				kind = ", still arriving"
			}
			w.line(2, "node %s%s", c.Node, kind)
		}
	}
	w.holders("held by", r.Holders)
	w.holders("waited for by", r.Waiters)
}

func (w *writer) holders(title string, list []Holder) {
	if len(list) == 0 {
		return
	}
	w.line(1, "%s:", title)
	for _, h := range list {
		w.line(2, "%s (node %s)", h.What, h.Node)
	}
}

func (r *Report) life(w *writer) {
	l := r.Life
	if l.Name != "" {
		w.line(1, "name %q in namespace %q", l.Name, l.Namespace)
	}
	text := fmt.Sprintf("incarnation %d; max_restarts %d", l.Incarnation, l.MaxRestarts)
	if l.Left != nil {
		text += "; " + left(*l.Left, "restarts left", "restarts without end")
	}
	if l.Detached {
		text += "; detached"
	}
	if l.Manager != "" {
		text += "; managed by node " + l.Manager
	}
	w.line(1, "%s", text)
	if len(l.Past) > 0 {
		w.line(1, "incarnations that ended:")
		for _, p := range l.Past {
			w.line(2, "%s", p.sentence())
		}
	}
	if len(l.Running) > 0 {
		w.line(1, "its process has:")
		for _, c := range l.Running {
			w.line(2, "%s", c)
		}
	}
	if len(l.Callers) > 0 {
		w.line(1, "calls that have not ended:")
		for _, c := range l.Callers {
			group := ""
			if c.Group != "" {
				group = ", group " + c.Group
			}
			w.line(2, "of %s (node %s)%s: %d sent, %d waiting", c.Caller, c.Node, group, c.Sent, c.Waiting)
		}
	}
	if c := l.Creation; c != nil {
		w.line(1, "its creation: %s: %s", c.State, c.Why)
		c.queue(w, 2)
		w.missing(2, "missing arguments", c.Missing)
	}
}

func (p *Past) sentence() string {
	at := ""
	if p.Node != "" {
		at = fmt.Sprintf(" on node %s", p.Node)
	}
	if p.PID != 0 {
		at += fmt.Sprintf(", process %d", p.PID)
	}
	return fmt.Sprintf("%d%s: %s: %s", p.Incarnation, at, p.Cause, p.Text)
}
