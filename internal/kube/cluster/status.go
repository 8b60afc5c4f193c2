package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"gray/internal/kube/client"
)

// Status shows what Kubernetes has of the cluster, and what the cluster says of itself.
func (c *Cluster) Status(ctx context.Context) error {
	s, err := c.Snapshot(ctx)
	if err != nil {
		return err
	}
	if s.Empty() {
		return c.missing(ctx)
	}
	v := Judge(s)
	c.say("Cluster %q in namespace %q of %s\n", c.Name, c.Client.Namespace, c.Client.Server())
	if s.Service == nil {
		c.say("Service      %s-head is missing: workers can't find the head; `ray kube up` makes it", c.Name)
	} else {
		var ports []string
		for _, p := range s.Service.Spec.Ports {
			ports = append(ports, fmt.Sprintf("%d (%s)", p.Port, p.Name))
		}
		c.say("Service      %s at %s: %s", s.Service.Meta.Name, s.Service.Spec.ClusterIP, strings.Join(ports, ", "))
	}
	for i, d := range []*client.Deployment{s.Head, s.Worker} {
		if d == nil {
			c.say("Deployment   %s-%s is missing; `ray kube up` makes it", c.Name, []string{"head", "worker"}[i])
			continue
		}
		c.say("Deployment   %s: %d of %d ready, %s", d.Meta.Name, d.Status.Ready, d.Spec.Replicas, describe(d))
	}
	fmt.Fprintln(c.Out)
	t := tabwriter.NewWriter(c.Out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "POD\tSTATE\tRESTARTS\tAGE\tNODE\tWHY")
	for i := range s.Pods {
		p, restarts := &s.Pods[i], 0
		for _, cs := range p.Status.Containers {
			restarts += cs.Restarts
		}
		age := time.Since(p.Meta.Created).Truncate(time.Second)
		fmt.Fprintf(t, "%s\t%s\t%d\t%v\t%s\t%s\n", p.Meta.Name, v.States[i].State, restarts, age, first(p.Spec.Node, "-"), v.States[i].Reason)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if v.Cause != "" {
		c.say("\n%s", sentence(v.Cause))
	}
	pod := s.HeadPod()
	if pod == nil {
		c.say("\nThe head is not ready, so it can't say more.")
		return nil
	}
	fmt.Fprintln(c.Out)
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, errors.New("`ray status` in the head's pod gave no answer within 20 s; see `ray kube logs`"))
	defer cancel()
	return c.Client.Exec(ctx, pod.Meta.Name, c.Name+"-head", []string{"ray", "status"}, nil, c.Out, c.Out)
}

// sentence begins with a capital letter and ends with a full stop.
func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }

// output runs a short program in the head's pod and gives what it prints.
func (c *Cluster) output(ctx context.Context, pod string, command ...string) (string, error) {
	name := strings.Join(command, " ")
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, fmt.Errorf("`%s` in pod %s gave no answer within 20 s", name, pod))
	defer cancel()
	var out, complaint bytes.Buffer
	err := c.Client.Exec(ctx, pod, c.Name+"-head", command, nil, &out, &complaint)
	var exit *client.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("`%s` in pod %s failed with status %d: %s", name, pod, exit.Status, oneLine(complaint.String()))
	}
	return out.String(), err
}

// prefixed writes whole lines, each with a prefix, to a writer that it shares with others.
type prefixed struct {
	to     io.Writer // whose Write is safe for several
	prefix string
	rest   []byte
}

// maxLine is where a line without an end is cut in two, so that memory stays bounded.
const maxLine = 64 << 10

func (p *prefixed) Write(b []byte) (int, error) {
	var out []byte
	for rest := b; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			p.rest, rest = append(p.rest, rest...), nil
			if len(p.rest) < maxLine {
				break
			}
		} else {
			p.rest, rest = append(p.rest, rest[:i]...), rest[i+1:]
		}
		out = append(append(append(out, p.prefix...), p.rest...), '\n')
		p.rest = p.rest[:0]
	}
	if out == nil {
		return len(b), nil
	}
	_, err := p.to.Write(out)
	return len(b), err
}

// end writes a last line that has no end.
func (p *prefixed) end() error {
	if len(p.rest) == 0 {
		return nil
	}
	_, err := p.Write([]byte{'\n'})
	return err
}
