package head

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"gray/internal/core/headstate"
)

// Summary is the cluster at one moment.
type Summary struct {
	Time        time.Time
	Cluster     headstate.ClusterID
	SessionName string
	Nodes       []headstate.NodeRow
	Jobs        []headstate.JobRow
	Total       headstate.Resources
	Available   headstate.Resources
	Demands     []headstate.ShapeDemand
	StoreError  string // why the store fails; empty while it works
}

// Summary is the cluster now.
func (s *Service) Summary(ctx context.Context) (*Summary, error) {
	sum := make(chan *Summary, 1)
	err := s.query(ctx, func(time.Duration) {
		m := &Summary{
			Time: s.cfg.Clock.Now(), Cluster: s.cluster, SessionName: s.sessionName,
			Nodes: s.state.NodeRows(), Jobs: s.state.JobRows(), Demands: s.state.Demands(),
		}
		m.Total, m.Available = s.state.Totals()
		if s.storeErr != nil {
			m.StoreError = s.storeErr.Error()
		}
		sum <- m
	})
	if err != nil {
		return nil, err
	}
	return <-sum, nil
}

// Status is the text of `ray status`.
func (s *Service) Status(ctx context.Context, verbose bool) (string, error) {
	sum, err := s.Summary(ctx)
	if err != nil {
		return "", err
	}
	return sum.Status(verbose), nil
}

// Packages are the names of the packages that running jobs need.
func (s *Service) Packages(ctx context.Context) (map[string]bool, error) {
	inUse := make(chan map[string]bool, 1)
	if err := s.query(ctx, func(time.Duration) { inUse <- s.state.Packages() }); err != nil {
		return nil, err
	}
	return <-inUse, nil
}

// Healthy is nil while the head answers.
func (s *Service) Healthy(ctx context.Context) error {
	return s.query(ctx, func(time.Duration) {})
}

const rule = "---------------------------------------------------------------\n"

// recentFailures is how long a node's unexpected end is shown.
const recentFailures = 30 * time.Minute

// Status renders the summary in the layout of Ray's `ray status`, which people's scripts read. What Ray has no line
// for comes last: why work waits, and a store that fails. There is no newline at its end.
func (m *Summary) Status(verbose bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "======== Autoscaler status: %s ========\n", m.Time.Format("2006-01-02 15:04:05.000000"))
	b.WriteString("Node status\n" + rule + "Active:\n")
	active := 0
	for _, n := range m.Nodes {
		if n.Alive {
			active++
			fmt.Fprintf(&b, " 1 node_%s\n", n.Info.ID)
		}
	}
	if active == 0 {
		b.WriteString(" (no active nodes)\n")
	}
	b.WriteString("Pending:\n (no pending nodes)\nRecent failures:\n")
	failures := 0
	for _, n := range m.Nodes {
		if n.DeathReason == headstate.UnexpectedTermination && m.Time.Sub(time.UnixMilli(n.EndMs)) < recentFailures {
			failures++
			fmt.Fprintf(&b, " node_%s: NodeTerminated (ip: %s)\n", n.Info.ID, n.Info.IP)
		}
	}
	if failures == 0 {
		b.WriteString(" (no failures)\n")
	}
	b.WriteString("\nResources\n" + rule + "Total Usage:\n")
	writeUsage(&b, " ", m.Total, m.Available)
	b.WriteString("\nFrom request_resources:\n (none)\nPending Demands:\n")
	if len(m.Demands) == 0 {
		b.WriteString(" (no resource demands)\n")
	}
	for _, d := range m.Demands {
		fmt.Fprintf(&b, " %s: %d+ pending tasks/actors\n", ShapeText(d.Shape), d.Count)
	}
	m.writeWhy(&b)
	if verbose {
		for _, n := range m.Nodes {
			if n.Alive {
				fmt.Fprintf(&b, "\nNode: %s (node_%s)\n Usage:\n", n.Info.ID, n.Info.ID)
				writeUsage(&b, "  ", n.Info.Total, n.Available)
			}
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (m *Summary) writeWhy(b *strings.Builder) {
	title := "Why Pending:\n"
	for _, d := range m.Demands {
		reason := d.Reason
		switch {
		case d.Infeasible && reason == "":
			reason = "infeasible: no node of the cluster could ever run it"
		case d.Infeasible:
			reason = "infeasible: " + reason
		case reason == "":
			continue
		}
		b.WriteString(title)
		title = ""
		fmt.Fprintf(b, " %s: %s\n", ShapeText(d.Shape), reason)
	}
	if m.StoreError != "" {
		fmt.Fprintf(b, "Head Store:\n failing, changes wait for it: %s\n", m.StoreError)
	}
}

func writeUsage(b *strings.Builder, indent string, total, available headstate.Resources) {
	for _, line := range Usage(total, available) {
		b.WriteString(indent + line + "\n")
	}
}

// Usage is a line "used/total NAME" for each resource that people know of, by name.
func Usage(total, available headstate.Resources) []string {
	var lines []string
	for _, name := range sortedNames(total) {
		if strings.HasPrefix(name, "node:") {
			continue
		}
		text := quantityText
		if name == "memory" || name == "object_store_memory" {
			text = bytesText
		}
		t := total[name]
		lines = append(lines, text(max(0, t-available[name]))+"/"+text(t)+" "+name)
	}
	return lines
}

func sortedNames(r headstate.Resources) []string {
	names := make([]string, 0, len(r))
	for name := range r {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// ShapeText is a shape as Ray writes it: {'CPU': 1.0}.
func ShapeText(r headstate.Resources) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, name := range sortedNames(r) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "'%s': %s", name, quantityText(r[name]))
	}
	b.WriteByte('}')
	return b.String()
}

// quantityText is n/10000 as Python writes a float.
func quantityText(n int64) string {
	s := strconv.FormatFloat(float64(n)/10000, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

func bytesText(n int64) string {
	v := float64(n) / 10000
	for _, u := range []struct {
		unit string
		size float64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if v >= u.size {
			return fmt.Sprintf("%.2f%s", v/u.size, u.unit)
		}
	}
	return fmt.Sprintf("%.0fB", v)
}
