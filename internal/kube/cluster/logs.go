package cluster

import (
	"context"
	"errors"
	"io"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"gray/internal/kube/client"
)

// locked makes a writer safe for several.
type locked struct {
	mu sync.Mutex
	w  io.Writer // guarded by mu
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// Logs prints what the head's and the workers' containers have written, the last tail lines of each (-1: all), and with
// follow goes on, with pods that come later too, until ctx ends.
func (c *Cluster) Logs(ctx context.Context, tail int, follow bool) error {
	s, err := c.Snapshot(ctx)
	if err != nil {
		return err
	}
	if s.Empty() {
		return c.missing(ctx)
	}
	q := url.Values{}
	if tail >= 0 {
		q.Set("tailLines", strconv.Itoa(tail))
	}
	out := &locked{w: c.Out}
	for i := range s.Pods {
		if p := &s.Pods[i]; !slices.ContainsFunc(p.Status.Containers, hasLog) {
			state, cause, _ := s.pod(p)
			c.say("[%s] has no log yet: %s", p.Meta.Name, first(cause, state.Reason, state.State))
		}
	}
	if !follow {
		for i := range s.Pods {
			for _, cs := range s.Pods[i].Status.Containers {
				if _, err := c.log(ctx, s.Pods[i].Meta.Name, cs, q, out); err != nil {
					return err
				}
			}
		}
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel(nil)
	f := follower{c: c, query: q, out: out, at: map[string]int{}, busy: map[string]bool{}}
	return each(ctx, func() (bool, error) {
		f.mu.Lock()
		for i := range s.Pods {
			pod := s.Pods[i].Meta.Name
			for _, cs := range s.Pods[i].Status.Containers {
				if f.wants(pod, cs, hasBegun(cs)) {
					readers.Go(func() { f.follow(ctx, pod, cs, cancel) })
				}
			}
		}
		f.mu.Unlock()
		s.Pods = nil
		return false, c.pods(ctx, s)
	})
}

func hasBegun(c client.ContainerStatus) bool {
	return c.State.Running != nil || c.State.Terminated != nil
}

func hasLog(c client.ContainerStatus) bool { return hasBegun(c) || c.Restarts > 0 }

// follower knows which runs of which containers are read.
type follower struct {
	c     *Cluster
	query url.Values
	out   io.Writer

	mu   sync.Mutex
	at   map[string]int  // guarded by mu: one more than the run that was read last, by pod
	busy map[string]bool // guarded by mu
}

// wants notes that a container's run is read if it is not yet. It is called with mu held.
func (f *follower) wants(pod string, cs client.ContainerStatus, started bool) bool {
	if !started || f.busy[pod] || f.at[pod] > cs.Restarts {
		return false
	}
	f.busy[pod], f.at[pod] = true, cs.Restarts+1
	return true
}

func (f *follower) follow(ctx context.Context, pod string, cs client.ContainerStatus, fail context.CancelCauseFunc) {
	q := cloned(f.query, "follow", "true")
	for {
		last := &lastWrite{w: f.out, at: time.Now()}
		whole, err := f.c.log(ctx, pod, cs, q, last)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			fail(err)
			return
		case whole:
			f.mu.Lock()
			f.busy[pod] = false
			f.mu.Unlock()
			return
		}
		// The connection broke off, as idle ones do: go on from where it did, by the node's clock.
		q.Del("tailLines")
		q.Set("sinceSeconds", strconv.Itoa(1+int(time.Since(last.at).Seconds())))
	}
}

// lastWrite knows when something was written last.
type lastWrite struct {
	w  io.Writer
	at time.Time
}

func (l *lastWrite) Write(p []byte) (int, error) {
	l.at = time.Now()
	return l.w.Write(p)
}

// log prints the log of a container's run, and says whether it came to its end.
func (c *Cluster) log(ctx context.Context, pod string, cs client.ContainerStatus, q url.Values, out io.Writer) (whole bool, err error) {
	q = cloned(q, "container", cs.Name)
	r, err := c.Client.Stream(ctx, c.Client.Path("v1", "pods", pod, "log"), q)
	var refused *client.Error
	if errors.As(err, &refused) && (client.IsNotFound(err) || refused.Status == 400) {
		return true, nil // the pod has just gone, or its container has not written yet
	}
	if err != nil {
		return false, err
	}
	defer r.Close()
	p := &prefixed{to: out, prefix: "[" + pod + "] "}
	_, err = io.Copy(p, r)
	if e := p.end(); err == nil {
		err = e
	}
	if err != nil && q.Get("follow") != "" && !errors.Is(err, io.ErrShortWrite) {
		return false, nil // a broken connection: the caller goes on
	}
	return true, err
}

func cloned(q url.Values, key, value string) url.Values {
	out := url.Values{key: {value}}
	for k, v := range q {
		out[k] = v
	}
	return out
}
