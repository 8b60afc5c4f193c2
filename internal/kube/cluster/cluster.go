package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"gray/internal/kube/client"
)

// manager is the name under which the API server notes what we said of a resource.
const manager = "ray-kube"

// Cluster is a cluster of one name in a client's namespace.
type Cluster struct {
	Client *client.Client
	Name   string
	Out    io.Writer // what is done, step by step
}

// groups are where the kinds of a manifest live.
var groups = map[string][2]string{"service": {"v1", "services"}, "deployment": {"apps/v1", "deployments"}}

func (c *Cluster) path(kind, name string) string {
	g := groups[kind]
	return c.Client.Path(g[0], g[1], name)
}

func (c *Cluster) say(format string, a ...any) { fmt.Fprintf(c.Out, format+"\n", a...) }

// Snapshot asks what is there.
func (c *Cluster) Snapshot(ctx context.Context) (*Snapshot, error) {
	s := &Snapshot{Name: c.Name, Namespace: c.Client.Namespace, Logs: map[string]string{}}
	label := url.Values{"labelSelector": {"app=" + c.Name}}
	var services client.List[client.Service]
	if err := c.Client.Get(ctx, c.Client.Path("v1", "services"), label, &services); err != nil {
		return nil, err
	}
	for i := range services.Items {
		if services.Items[i].Meta.Name == c.Name+"-head" {
			s.Service = &services.Items[i]
		}
	}
	var deployments client.List[client.Deployment]
	if err := c.Client.Get(ctx, c.Client.Path("apps/v1", "deployments"), label, &deployments); err != nil {
		return nil, err
	}
	for i := range deployments.Items {
		switch d := &deployments.Items[i]; d.Meta.Name {
		case c.Name + "-head":
			s.Head = d
		case c.Name + "-worker":
			s.Worker = d
		}
	}
	return s, c.pods(ctx, s)
}

// pods adds the pods, and for those that are not ready what is known of why.
func (c *Cluster) pods(ctx context.Context, s *Snapshot) error {
	q := url.Values{"labelSelector": {fmt.Sprintf("app=%s,component in (%s-head,%s-worker)", c.Name, c.Name, c.Name)}}
	var pods client.List[client.Pod]
	if err := c.Client.Get(ctx, c.Client.Path("v1", "pods"), q, &pods); err != nil {
		return err
	}
	s.Pods = pods.Items
	s.sort()
	asked := 0
	for i := range s.Pods {
		p := &s.Pods[i]
		if p.Ready() || p.Meta.Deleted != nil || asked >= 8 { // of hundreds that wait, a few say why
			continue
		}
		asked++
		var events client.List[client.Event]
		err := c.Client.Get(ctx, c.Client.Path("v1", "events"), url.Values{"fieldSelector": {"involvedObject.uid=" + p.Meta.UID}}, &events)
		if err != nil && !client.IsForbidden(err) { // without that right, the pods' conditions must do
			return err
		}
		s.Events = append(s.Events, events.Items...)
		for _, cs := range p.Status.Containers {
			if ended := cs.State.Terminated != nil; !cs.Ready && (ended || cs.Restarts > 0) {
				if s.Logs[p.Meta.Name], err = c.lastWords(ctx, p.Meta.Name, cs.Name, !ended); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// lastWords is the last line that a container's run wrote, this one or the one before; "" if it is not kept.
func (c *Cluster) lastWords(ctx context.Context, pod, container string, before bool) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	q := url.Values{"container": {container}, "previous": {strconv.FormatBool(before)}, "tailLines": {"5"}}
	r, err := c.Client.Stream(ctx, c.Client.Path("v1", "pods", pod, "log"), q)
	var refused *client.Error
	if errors.As(err, &refused) {
		return "", nil // rotated away, or not allowed: the exit status must do
	}
	if err != nil {
		return "", err
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, 64<<10))
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	last := oneLine(lines[len(lines)-1])
	if strings.HasPrefix(last, "unable to retrieve container logs") { // the kubelet's word for a log that it has removed
		return "", nil
	}
	return last, nil
}

// missing is the error of a cluster that is not there. A namespace that is not there is named first.
func (c *Cluster) missing(ctx context.Context) error {
	err := c.Client.Get(ctx, strings.TrimSuffix(c.Client.Path("v1", ""), "/"), nil, &struct{}{})
	if client.IsNotFound(err) {
		return err
	}
	up := "ray kube up"
	if c.Name != "ray" {
		up += " --name " + c.Name
	}
	return fmt.Errorf("there is no cluster %q in namespace %q; make it with `%s`, or name another by -n and --name", c.Name, c.Client.Namespace, up)
}

// headPod finds the head's pod that is ready, and says in one sentence why there is none.
func (c *Cluster) headPod(ctx context.Context) (*client.Pod, error) {
	s, err := c.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	if p := s.HeadPod(); p != nil {
		return p, nil
	}
	if s.Empty() {
		return nil, c.missing(ctx)
	}
	var why string
	switch {
	case s.Head == nil:
		why = fmt.Sprintf("Deployment %s is missing; `ray kube up` makes it", c.Name+"-head")
	case s.Head.Spec.Replicas == 0:
		why = fmt.Sprintf("Deployment %s is scaled to 0; `ray kube up` starts it", c.Name+"-head")
	default:
		why = Judge(s).Cause
	}
	if why == "" {
		why = "it is still starting or was just replaced: `ray kube status` shows it, and `ray kube up` waits for it"
	}
	return nil, fmt.Errorf("the head of cluster %q in namespace %q is not ready: %s", c.Name, c.Client.Namespace, why)
}

// each calls f now and then, twice a second, until it says that it is done or fails, or ctx ends.
func each(ctx context.Context, f func() (done bool, err error)) error {
	t := time.NewTicker(500 * time.Millisecond)
	defer t.Stop()
	for {
		if done, err := f(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.C:
		}
	}
}
