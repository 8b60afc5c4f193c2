package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"gray/internal/kube/client"
)

// How long a known cause may stand before it is the answer.
const (
	shortPatience = 4 * time.Second
	longPatience  = 25 * time.Second
)

// Up makes the cluster as the settings say, or changes it, and waits until all of its pods are ready, at most for limit. With
// wait it goes on for so long even where the cause why pods do not get ready is known.
func (c *Cluster) Up(ctx context.Context, s Settings, limit, wait time.Duration) error {
	s.Name = c.Name
	text, err := s.Manifest()
	if err != nil {
		return err
	}
	resources, err := Resources(text)
	if err != nil {
		return err
	}
	for i, r := range resources {
		done, err := c.apply(ctx, r)
		if err != nil {
			return err
		}
		if i == 0 { // there is such a namespace, and it may be worked in
			c.say("Cluster %q in namespace %q of %s", c.Name, c.Client.Namespace, c.Client.Server())
		}
		c.say("  %s/%s %s", r.Kind, r.Name, done)
	}
	start := time.Now()
	v, err := c.await(ctx, start, limit, wait)
	if err != nil {
		return err
	}
	c.say("%d of %d pods are ready after %.1f s.", v.Have, v.Want, time.Since(start).Seconds())
	return nil
}

// apply brings one resource to what the manifest says, and gives what has changed.
func (c *Cluster) apply(ctx context.Context, r Resource) (string, error) {
	path := c.path(r.Kind, r.Name)
	var before, after client.Deployment // of a Service only the metadata is looked at
	err := c.Client.Get(ctx, path, nil, &before)
	there := err == nil
	if err != nil && !client.IsNotFound(err) {
		return "", err
	}
	if there && before.Meta.Labels["app"] != c.Name {
		return "", fmt.Errorf("namespace %q has a %s %q that is of no cluster of this kind (it lacks the label app=%s); take another --name", c.Client.Namespace, r.Kind, r.Name, c.Name)
	}
	if there && before.Meta.Deleted != nil {
		return "", fmt.Errorf("%s/%s is being deleted; `ray kube down` waits for its end, then `ray kube up` makes it anew", r.Kind, r.Name)
	}
	if err := c.Client.Apply(ctx, path, manager, r.Text, &after); err != nil {
		return "", err
	}
	if there && same(&before.Meta, &after.Meta) && after.Failed() != "" {
		return "unchanged; its pods could not be made, and are tried again", c.retry(ctx, path, r)
	}
	return change(r.Kind, there, &before, &after), nil
}

// retry has Kubernetes try at once to make pods that it could not make: after some failures it waits for minutes, in which a
// quota may have been raised. A change of an annotation wakes it; nothing else has a meaning there.
func (c *Cluster) retry(ctx context.Context, path string, r Resource) error {
	text, err := json.Marshal(map[string]any{
		"apiVersion": groups[r.Kind][0], "kind": "Deployment",
		"metadata": map[string]any{"name": r.Name, "annotations": map[string]string{"ray-kube/tried": time.Now().UTC().Format(time.RFC3339Nano)}},
	})
	if err != nil {
		return err
	}
	return c.Client.Apply(ctx, path, manager+"-retry", text, nil) // JSON is YAML
}

// same says whether what a resource shall be is as before. Its version differs when only its status was written meanwhile;
// its generation does not, where it has one.
func same(before, after *client.Meta) bool {
	return before.ResourceVersion == after.ResourceVersion || after.Generation > 0 && before.Generation == after.Generation
}

// change says what an apply did.
func change(kind string, there bool, before, after *client.Deployment) string {
	if there && same(&before.Meta, &after.Meta) {
		return "unchanged"
	}
	if kind != "deployment" {
		if there {
			return "configured"
		}
		return "created"
	}
	if !there {
		return fmt.Sprintf("created: %d x %s", after.Spec.Replicas, describe(after))
	}
	var parts []string
	if a, b := before.Spec.Replicas, after.Spec.Replicas; a != b {
		parts = append(parts, fmt.Sprintf("pods %d -> %d", a, b))
	}
	if a, b := describe(before), describe(after); a != b {
		parts = append(parts, a+" -> "+b)
	}
	if parts == nil {
		return "configured"
	}
	return "configured: " + strings.Join(parts, ", ")
}

// describe says of what kind a deployment's pods are.
func describe(d *client.Deployment) string {
	var parts []string
	for _, c := range d.Spec.Template.Spec.Containers {
		parts = append(parts, fmt.Sprintf("%s (cpu %s, memory %s)", c.Image, c.Resources.Requests["cpu"], c.Resources.Requests["memory"]))
	}
	return strings.Join(parts, ", ")
}

// await waits for the pods and shows what changes.
func (c *Cluster) await(ctx context.Context, start time.Time, limit, wait time.Duration) (v Verdict, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, max(limit, wait), errTimeout)
	defer cancel()
	p := progress{shown: map[string]string{}}
	err = each(ctx, func() (bool, error) {
		s, err := c.Snapshot(ctx)
		if err != nil {
			return false, err
		}
		v = Judge(s)
		for _, line := range p.news(v) {
			c.say("  %5.1f s  %s", time.Since(start).Seconds(), line)
		}
		if v.Ready {
			return true, nil
		}
		now := time.Now()
		if p.stuck(v, now) && now.Sub(start) >= wait {
			return false, errors.New(v.Cause)
		}
		return false, nil
	})
	if errors.Is(err, errTimeout) {
		why := first(v.Cause, "`ray kube status` shows them")
		err = fmt.Errorf("after %.0f s only %d of %d pods are ready: %s", time.Since(start).Seconds(), v.Have, v.Want, why)
	}
	return v, err
}

var errTimeout = errors.New("the time that was allowed is over")

// progress remembers what was shown, and since when nothing has changed.
type progress struct {
	shown map[string]string
	print string
	since time.Time
}

// news are the pods whose state has changed, in words.
func (p *progress) news(v Verdict) []string {
	var lines []string
	here := map[string]bool{}
	for _, s := range v.States {
		here[s.Pod] = true
		text := s.State
		if s.Reason != "" {
			text += ": " + s.Reason
		}
		if key := family(s.State) + s.Reason; p.shown[s.Pod] != key {
			p.shown[s.Pod] = key
			lines = append(lines, s.Pod+"  "+text)
		}
	}
	for pod := range p.shown {
		if !here[pod] {
			delete(p.shown, pod)
			lines = append(lines, pod+"  gone")
		}
	}
	return lines
}

// stuck says whether the verdict's cause has stood long enough, with nothing else changing.
func (p *progress) stuck(v Verdict, now time.Time) bool {
	if v.Fingerprint != p.print {
		p.print, p.since = v.Fingerprint, now
	}
	switch v.Patience {
	case Short:
		return now.Sub(p.since) >= shortPatience
	case Long:
		return now.Sub(p.since) >= longPatience
	}
	return false
}

// Down deletes what Up made, and waits until it is gone.
func (c *Cluster) Down(ctx context.Context, limit time.Duration) error {
	s, err := c.Snapshot(ctx)
	if err != nil {
		return err
	}
	if s.Empty() {
		return c.missing(ctx)
	}
	c.say("Cluster %q in namespace %q of %s", c.Name, c.Client.Namespace, c.Client.Server())
	remove := func(kind, name string) error {
		err := c.Client.Delete(ctx, c.path(kind, name))
		if err == nil {
			c.say("  %s/%s deleted", kind, name)
		}
		if client.IsNotFound(err) { // somebody else was quicker
			return nil
		}
		return err
	}
	for _, d := range []*client.Deployment{s.Worker, s.Head} {
		if d != nil {
			err = errors.Join(err, remove("deployment", d.Meta.Name))
		}
	}
	if s.Service != nil {
		err = errors.Join(err, remove("service", s.Service.Meta.Name))
	}
	if err != nil {
		return err
	}
	start := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errTimeout)
	defer cancel()
	err = each(ctx, func() (bool, error) {
		s, err = c.Snapshot(ctx)
		return err == nil && s.Empty(), err
	})
	if errors.Is(err, errTimeout) {
		var left []string
		for _, p := range s.Pods {
			left = append(left, p.Meta.Name+" on "+p.Spec.Node)
		}
		return fmt.Errorf("after %.0f s there is still something left of cluster %q: %s; a node that does not answer keeps its pods: its administrator can delete them by force", limit.Seconds(), c.Name, strings.Join(left, ", "))
	}
	if err == nil {
		c.say("All is gone after %.1f s.", time.Since(start).Seconds())
	}
	return err
}
