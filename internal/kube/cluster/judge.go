package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"gray/internal/kube/client"
)

// Snapshot is what Kubernetes says of a cluster at one moment.
type Snapshot struct {
	Name         string // of the cluster
	Namespace    string
	Service      *client.Service    // nil: there is none
	Head, Worker *client.Deployment // nil: there is none
	Pods         []client.Pod       // heads first, then by age
	Events       []client.Event     // Warnings of pods that are not ready
	Logs         map[string]string  // last words of containers that failed, by pod
}

// Empty says whether nothing of the cluster is there.
func (s *Snapshot) Empty() bool {
	return s.Service == nil && s.Head == nil && s.Worker == nil && len(s.Pods) == 0
}

// HeadPod is the head's pod that is ready; nil if none is.
func (s *Snapshot) HeadPod() *client.Pod {
	for i := range s.Pods {
		if p := &s.Pods[i]; s.isHead(p) && p.Ready() {
			return p
		}
	}
	return nil
}

func (s *Snapshot) isHead(p *client.Pod) bool { return p.Meta.Labels["component"] == s.Name+"-head" }

// sort puts heads first, then the oldest.
func (s *Snapshot) sort() {
	slices.SortStableFunc(s.Pods, func(a, b client.Pod) int {
		if x, y := s.isHead(&a), s.isHead(&b); x != y {
			if x {
				return -1
			}
			return 1
		}
		return cmp.Or(a.Meta.Created.Compare(b.Meta.Created), strings.Compare(a.Meta.Name, b.Meta.Name))
	})
}

// Patience says how long a cause may stand before it counts as the reason to give up, with no pod made or gone meanwhile; and
// if it is Long, with no other pod getting on.
type Patience int

const (
	None  Patience = iota // no cause is known
	Short                 // it does not go away by itself as a rule
	Long                  // it often does: a volume that is not there yet
)

// Verdict is what is to be thought of a snapshot.
type Verdict struct {
	Ready       bool // all that was asked for is there and ready, and nothing else
	Have, Want  int  // pods
	States      []PodState
	Cause       string // a sentence; "" = it may become ready
	Patience    Patience
	Fingerprint string // differs when something has changed
}

// PodState is one pod in words.
type PodState struct {
	Pod    string
	State  string // "ready", "ContainerCreating", …
	Reason string // why it is not ready, as far as it is known
}

// Judge says how far a cluster is.
func Judge(s *Snapshot) Verdict {
	v := Verdict{}
	leaving := 0
	var made, moved []string // which pods there are; how far they are
	for i := range s.Pods {
		p := &s.Pods[i]
		state, cause, patience := s.pod(p)
		v.States = append(v.States, state)
		made, moved = append(made, p.Meta.Name), append(moved, family(state.State))
		if p.Meta.Deleted != nil {
			leaving++
		}
		if p.Ready() {
			v.Have++
		}
		v.blame(cause, patience)
	}
	settled := s.Service != nil
	for _, d := range []*client.Deployment{s.Head, s.Worker} {
		if d == nil {
			settled = false
			continue
		}
		v.Want += d.Spec.Replicas
		st := &d.Status
		current := st.ObservedGeneration >= d.Meta.Generation
		settled = settled && current && st.Updated == d.Spec.Replicas && st.Replicas == d.Spec.Replicas && st.Ready == d.Spec.Replicas
		made = append(made, fmt.Sprint(d.Meta.Generation, current, st.Replicas, st.Updated))
		if current && st.Updated < d.Spec.Replicas {
			patience := Short
			if st.Updated < st.Replicas { // pods of before make room one by one, as new ones get ready
				patience = Long
			}
			v.blame(s.failure(d), patience)
		}
	}
	v.Ready = settled && leaving == 0 && v.Have == v.Want
	if v.Ready || leaving > 0 { // what a pod that is about to end holds may be what the others wait for
		v.Cause, v.Patience = "", None
	}
	if v.Patience != Long { // that other pods go on does not mend what Short is said of
		moved = nil
	}
	v.Fingerprint = fmt.Sprint(made, moved, v.Patience)
	return v
}

// blame keeps the surest cause.
func (v *Verdict) blame(cause string, patience Patience) {
	if cause != "" && patience != None && (v.Cause == "" || patience < v.Patience) {
		v.Cause, v.Patience = cause, patience
	}
}

// family is one word for states that take turns with no progress.
func family(state string) string {
	if slices.Contains(pullFailures, state) {
		return pullFailures[0]
	}
	return state
}

var pullFailures = []string{"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable", "ImageInspectError", "SignatureValidationFailed"}

// failure says why a deployment's pods can't be made; "" if that is not so.
func (s *Snapshot) failure(d *client.Deployment) string {
	message := oneLine(d.Failed())
	if message == "" {
		return ""
	}
	if text := client.Quota(s.Namespace, message); text != "" {
		return text
	}
	if _, rest, ok := strings.Cut(message, "violates PodSecurity "); ok {
		return fmt.Sprintf("namespace %q does not allow these pods: PodSecurity %s; ask its administrator", s.Namespace, rest)
	}
	return fmt.Sprintf("pods of %s can't be made in namespace %q: %s", d.Meta.Name, s.Namespace, message)
}

// pod says what a pod is at, and why it will not get ready, as far as that can be known.
func (s *Snapshot) pod(p *client.Pod) (state PodState, cause string, patience Patience) {
	state = PodState{Pod: p.Meta.Name, State: p.Status.Phase}
	if p.Meta.Deleted != nil {
		state.State = "Terminating"
		return state, "", None
	}
	if p.Ready() {
		state.State = "ready"
		return state, "", None
	}
	if p.Status.Phase == "Failed" || p.Status.Phase == "Succeeded" { // another takes its place
		state.State, state.Reason = first(p.Status.Reason, p.Status.Phase), oneLine(p.Status.Message)
		return state, "", None
	}
	if c := p.Condition("PodScheduled"); c.Status == "False" {
		state.State, state.Reason = "Pending", oneLine(c.Message)
		if e := s.event(p, "TriggeredScaleUp"); e != nil {
			state.Reason += "; a node is being added: " + oneLine(e.Text)
			return state, "", None
		}
		if c.Reason == "Unschedulable" {
			return state, s.unschedulable(p, state.Reason), Short
		}
		return state, "", None
	}
	for i := range p.Status.Containers {
		if c := &p.Status.Containers[i]; !c.Ready {
			return s.container(p, c)
		}
	}
	state.Reason = s.warning(p)
	return state, s.stuck(p, state.Reason), Long
}

func (s *Snapshot) container(p *client.Pod, c *client.ContainerStatus) (PodState, string, Patience) {
	state := PodState{Pod: p.Meta.Name, State: p.Status.Phase}
	switch w := c.State.Waiting; {
	case w == nil && c.State.Terminated != nil:
		state.State, state.Reason = "ended", s.words(p, &c.State)
	case w == nil && c.Restarts > 1:
		state.State, state.Reason = "started again", s.words(p, &c.Last)
		return state, s.failed(p, c), Long
	case w == nil:
		state.State = "started"
	case slices.Contains(pullFailures, w.Reason):
		state.State, state.Reason = w.Reason, oneLine(w.Message)
		return state, s.pull(p, c), Short
	case w.Reason == "CrashLoopBackOff":
		state.State, state.Reason = w.Reason, s.words(p, &c.Last)
		return state, s.failed(p, c), Short
	case w.Reason == "ContainerCreating" || w.Reason == "PodInitializing":
		state.State, state.Reason = w.Reason, s.warning(p)
		return state, s.stuck(p, state.Reason), Long
	default: // CreateContainerConfigError and the like
		state.State, state.Reason = w.Reason, oneLine(w.Message)
		return state, fmt.Sprintf("pod %s can't be started: %s: %s; mend that, then `ray kube up` again", p.Meta.Name, w.Reason, state.Reason), Long
	}
	return state, "", None
}

// unschedulable words that no node takes a pod.
func (s *Snapshot) unschedulable(p *client.Pod, why string) string {
	var asks []string
	for _, c := range p.Spec.Containers {
		for _, what := range []string{"cpu", "memory"} {
			if q := c.Resources.Requests[what]; q != "" {
				asks = append(asks, what+" "+q)
			}
		}
	}
	why, _, _ = strings.Cut(why, " preemption:")
	return fmt.Sprintf("no node takes pod %s, which asks for %s: %s; ask for less by --cpus, --memory or --workers, or wait for room (--wait SECONDS)",
		p.Meta.Name, strings.Join(asks, ", "), strings.TrimSuffix(why, "."))
}

// pull words that an image can't be had.
func (s *Snapshot) pull(p *client.Pod, c *client.ContainerStatus) string {
	image := c.Image
	for _, spec := range p.Spec.Containers {
		if spec.Name == c.Name {
			image = spec.Image // the status may have another form of it
		}
	}
	why := oneLine(c.State.Waiting.Message)
	if c.State.Waiting.Reason == "ImagePullBackOff" { // its message only repeats the name; the event before it says why
		why = s.pullEvent(p)
	}
	text := fmt.Sprintf("image %q can't be pulled for pod %s", image, p.Meta.Name)
	if why != "" {
		text += ": " + why
	}
	return text + "; name another by --image, or load it into the nodes (docs/kubernetes.md, \"The image\")"
}

func (s *Snapshot) pullEvent(p *client.Pod) string {
	for i := len(s.Events) - 1; i >= 0; i-- {
		e := &s.Events[i]
		if e.Object.UID == p.Meta.UID && e.Reason == "Failed" && strings.HasPrefix(e.Text, "Failed to pull image") {
			_, why, _ := strings.Cut(oneLine(e.Text), "\": ")
			return why
		}
	}
	return ""
}

// failed words that a container does not stay up.
func (s *Snapshot) failed(p *client.Pod, c *client.ContainerStatus) string {
	return fmt.Sprintf("pod %s does not stay up: it was started %d times, and its last run %s; see `ray kube logs`", p.Meta.Name, c.Restarts+1, s.words(p, &c.Last))
}

// words say how a run of a container ended.
func (s *Snapshot) words(p *client.Pod, state *client.ContainerState) string {
	t := state.Terminated
	if t == nil {
		return "ended"
	}
	text := fmt.Sprintf("ended with status %d", t.ExitCode)
	if t.Reason != "" && t.Reason != "Error" && t.Reason != "Completed" {
		text += " (" + t.Reason + ")"
	}
	if last := first(s.Logs[p.Meta.Name], oneLine(t.Message)); last != "" {
		text += ": " + last
	}
	return text
}

// stuck words that a pod's container can't be made because of what an event says.
func (s *Snapshot) stuck(p *client.Pod, why string) string {
	if why == "" {
		return ""
	}
	return fmt.Sprintf("pod %s can't be started on node %s: %s; the cluster's administrator may know more", p.Meta.Name, p.Spec.Node, why)
}

// warning is the last warning of a pod. That a probe fails only means that the pod is not ready yet.
func (s *Snapshot) warning(p *client.Pod) string {
	for i := len(s.Events) - 1; i >= 0; i-- {
		if e := &s.Events[i]; e.Object.UID == p.Meta.UID && e.Type == "Warning" && e.Reason != "Unhealthy" && e.Reason != "FailedScheduling" {
			return e.Reason + ": " + oneLine(e.Text)
		}
	}
	return ""
}

func (s *Snapshot) event(p *client.Pod, reason string) *client.Event {
	for i := range s.Events {
		if e := &s.Events[i]; e.Object.UID == p.Meta.UID && e.Reason == reason {
			return e
		}
	}
	return nil
}

func first(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
