package cluster

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"gray/internal/kube/client"
)

// from reads a resource as the API server would give it.
func from[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

const (
	ready     = `"conditions": [{"type": "Ready", "status": "True"}]`
	unready   = `"conditions": [{"type": "Ready", "status": "False"}]`
	container = `{"name": "w", "image": "i:1", "resources": {"requests": {"cpu": "900", "memory": "1Gi"}}}`
)

func aPod(name, status string) string {
	return `{"metadata": {"name": "` + name + `", "uid": "u-` + name + `"}, "spec": {"nodeName": "n1", "containers": [` + container + `]}, "status": {` + status + `}}`
}

func waiting(reason, message string) string {
	return `"phase": "Pending", "containerStatuses": [{"name": "w", "image": "i:1", "state": {"waiting": {"reason": "` + reason + `", "message": "` + message + `"}}}]`
}

func deployment(name string, want, have int, more string) string {
	d := map[string]any{
		"metadata": map[string]any{"name": name, "generation": 2},
		"spec":     map[string]any{"replicas": want},
		"status":   map[string]any{"observedGeneration": 2, "replicas": have, "updatedReplicas": have, "readyReplicas": have},
	}
	text, err := json.Marshal(d)
	if err != nil {
		panic(err)
	}
	return strings.Replace(string(text), `"readyReplicas"`, more+`"readyReplicas"`, 1)
}

func TestJudge(t *testing.T) {
	failure := func(message string) string {
		return `"conditions": [{"type": "ReplicaFailure", "status": "True", "message": ` + string(must(json.Marshal(message))) + `}], `
	}
	good := []string{aPod("h", ready), aPod("w", ready)}
	for _, tc := range []struct {
		name     string
		worker   string
		pods     []string
		events   string
		ready    bool
		patience Patience
		cause    []string
		state    string // of the last pod
	}{
		{name: "all is there", pods: good, ready: true, state: "ready"},
		{name: "the deployment's change is not seen yet", worker: strings.Replace(deployment("ray-worker", 1, 1, ""), `"generation":2`, `"generation":3`, 1), pods: good, state: "ready"},
		{name: "a pod is about to end", pods: append(good, `{"metadata": {"name": "old", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {`+ready+`}}`), state: "Terminating"},
		{name: "it is being made", pods: []string{aPod("w", waiting("ContainerCreating", ""))}, state: "ContainerCreating"},
		{
			name: "quota", worker: deployment("ray-worker", 3, 1, failure(`pods "ray-worker-x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2`)),
			pods: good, patience: Short, state: "ready", cause: []string{`quota "small" of namespace "lab"`, "one more pod takes pods=1", "--workers"},
		},
		{
			name: "an old failure, and all pods are there", worker: deployment("ray-worker", 1, 1, failure(`exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2`)),
			pods: good, ready: true, state: "ready",
		},
		{
			name: "quota, while new pods take the place of old ones", worker: strings.Replace(deployment("ray-worker", 2, 2, failure(`exceeded quota: small, requested: pods=1, used: pods=3, limited: pods=3`)), `"updatedReplicas":2`, `"updatedReplicas":1`, 1),
			pods: good, patience: Long, state: "ready", cause: []string{`quota "small"`},
		},
		{
			name: "quota, while old pods still hold theirs", worker: deployment("ray-worker", 3, 1, failure(`exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2`)),
			pods: append(good, `{"metadata": {"name": "old", "deletionTimestamp": "2026-01-01T00:00:00Z"}}`), state: "Terminating",
		},
		{
			name: "pod security", worker: deployment("ray-worker", 3, 1, failure(`pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true`)),
			pods: good, patience: Short, state: "ready", cause: []string{"does not allow these pods", "restricted:latest"},
		},
		{
			name: "no room", pods: []string{aPod("w", `"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient cpu. preemption: no."}]`)},
			patience: Short, state: "Pending", cause: []string{"no node takes pod w", "cpu 900, memory 1Gi", "3 Insufficient cpu;", "--cpus"},
		},
		{
			name: "no room, but a node is being added", pods: []string{aPod("w", `"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]`)},
			events: `[{"type": "Normal", "reason": "TriggeredScaleUp", "message": "pod triggered scale-up", "involvedObject": {"uid": "u-w"}}]`, state: "Pending",
		},
		{
			name: "image", pods: []string{aPod("w", waiting("ErrImagePull", "failed to pull: no such host"))},
			patience: Short, state: "ErrImagePull", cause: []string{`image "i:1" can't be pulled for pod w: failed to pull: no such host`, "--image"},
		},
		{
			name: "image, told later", pods: []string{aPod("w", waiting("ImagePullBackOff", `Back-off pulling image \"i:1\"`))},
			events:   `[{"type": "Warning", "reason": "Failed", "message": "Failed to pull image \"i:1\": not found", "involvedObject": {"uid": "u-w"}}]`,
			patience: Short, state: "ImagePullBackOff", cause: []string{`for pod w: not found;`},
		},
		{
			name: "it does not stay up", pods: []string{aPod("w", `"containerStatuses": [{"name": "w", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 9, "reason": "Error"}}}]`)},
			patience: Short, state: "CrashLoopBackOff", cause: []string{"pod w does not stay up", "4 times", "ended with status 9: last words"},
		},
		{name: "a secret that is not there", pods: []string{aPod("w", waiting("CreateContainerConfigError", "secret not found"))}, patience: Long, state: "CreateContainerConfigError", cause: []string{"secret not found"}},
		{
			name: "a volume", pods: []string{aPod("w", waiting("ContainerCreating", ""))}, patience: Long, state: "ContainerCreating",
			events: `[{"type": "Warning", "reason": "FailedMount", "message": "timed out", "involvedObject": {"uid": "u-w"}}]`, cause: []string{"FailedMount: timed out", "node n1"},
		},
		{
			name: "a probe that fails is no cause", pods: []string{aPod("w", `"phase": "Running", `+unready+`, "containerStatuses": [{"name": "w", "state": {"running": {}}}]`)}, state: "started",
			events: `[{"type": "Warning", "reason": "Unhealthy", "message": "Readiness probe failed", "involvedObject": {"uid": "u-w"}}]`,
		},
		{name: "evicted", pods: []string{aPod("w", `"phase": "Failed", "reason": "Evicted", "message": "low on memory"`)}, state: "Evicted"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			worker := tc.worker
			if worker == "" {
				worker = deployment("ray-worker", 1, 1, "")
			}
			head, w := from[client.Deployment](t, deployment("ray-head", 1, 1, "")), from[client.Deployment](t, worker)
			s := &Snapshot{Name: "ray", Namespace: "lab", Service: &client.Service{}, Head: &head, Worker: &w, Logs: map[string]string{"w": "last words"}}
			for _, p := range tc.pods {
				s.Pods = append(s.Pods, from[client.Pod](t, p))
			}
			if tc.events != "" {
				s.Events = from[[]client.Event](t, tc.events)
			}
			v := Judge(s)
			if v.Ready != tc.ready || v.Patience != tc.patience || (v.Cause == "") != (tc.cause == nil) {
				t.Errorf("verdict %+v, want ready %v, patience %v", v, tc.ready, tc.patience)
			}
			for _, words := range tc.cause {
				if !strings.Contains(v.Cause, words) {
					t.Errorf("cause %q does not say %q", v.Cause, words)
				}
			}
			if got := v.States[len(v.States)-1].State; got != tc.state {
				t.Errorf("state %q, want %q", got, tc.state)
			}
		})
	}
	if v := Judge(&Snapshot{Name: "ray"}); v.Ready {
		t.Error("nothing at all counts as ready")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestOtherPodsDoNotMendACauseOfTheirOwn(t *testing.T) {
	judge := func(failing, other string) string {
		head, worker := from[client.Deployment](t, deployment("ray-head", 1, 1, "")), from[client.Deployment](t, deployment("ray-worker", 1, 1, ""))
		s := &Snapshot{Name: "ray", Head: &head, Worker: &worker}
		s.Pods = []client.Pod{from[client.Pod](t, aPod("a", failing)), from[client.Pod](t, aPod("b", other))}
		return Judge(s).Fingerprint
	}
	making := waiting("ContainerCreating", "")
	if judge(waiting("ErrImagePull", "x"), making) != judge(waiting("ImagePullBackOff", "y"), ready) {
		t.Error("an image that can't be pulled waits for another pod")
	}
	if judge(waiting("CreateContainerError", "x"), making) == judge(waiting("CreateContainerError", "x"), ready) {
		t.Error("what often mends itself is not given time as long as other pods get on")
	}
	if judge(making, making) == judge(waiting("ErrImagePull", "x"), making) {
		t.Error("a cause that is new looks as old as what was before it")
	}
}

func TestStuckOnlyWhereNothingMoves(t *testing.T) {
	var p progress
	t0 := time.Unix(0, 0)
	at := func(s float64) time.Time { return t0.Add(time.Duration(s * float64(time.Second))) }
	for _, tc := range []struct {
		seconds  float64
		patience Patience
		print    string
		want     bool
	}{
		{0, None, "a", false},
		{60, None, "a", false},
		{61, Short, "b", false},
		{64, Short, "b", false},
		{64.5, Short, "c", false}, // a pod more
		{68, Short, "c", false},
		{68.6, Short, "c", true},
		{69, Long, "d", false},
		{90, Long, "d", false},
		{94.1, Long, "d", true},
	} {
		if got := p.stuck(Verdict{Patience: tc.patience, Fingerprint: tc.print}, at(tc.seconds)); got != tc.want {
			t.Errorf("at %v s: %v, want %v", tc.seconds, got, tc.want)
		}
	}
}

func TestOnlyNewsIsShown(t *testing.T) {
	p := progress{shown: map[string]string{}}
	for i, tc := range []struct {
		states []PodState
		want   []string
	}{
		{[]PodState{{"a", "Pending", ""}, {"b", "Pending", "no room"}}, []string{"a  Pending", "b  Pending: no room"}},
		{[]PodState{{"a", "Pending", ""}, {"b", "Pending", "no room"}}, nil},
		{[]PodState{{"a", "ErrImagePull", ""}}, []string{"a  ErrImagePull", "b  gone"}},
		{[]PodState{{"a", "ImagePullBackOff", ""}}, nil}, // they take turns
	} {
		if got := p.news(Verdict{States: tc.states}); !slices.Equal(got, tc.want) {
			t.Errorf("step %d: %q, want %q", i, got, tc.want)
		}
	}
}

func TestLinesGetTheirPrefix(t *testing.T) {
	var out strings.Builder
	p := &prefixed{to: &out, prefix: "[p] "}
	for _, part := range []string{"one\ntw", "o\n\nthr", "ee", ""} {
		if n, err := p.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "[p] one\n[p] two\n[p] \n[p] three\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	out.Reset()
	for range 3 * maxLine / 1000 {
		p.Write(make([]byte, 1000))
	}
	if got := strings.Count(out.String(), "\n"); got < 2 || len(p.rest) > maxLine {
		t.Errorf("a line without end: %d pieces written, %d bytes kept", got, len(p.rest))
	}
}

func TestWhatAnApplyChanged(t *testing.T) {
	d := func(version string, generation, replicas int, image string) *client.Deployment {
		var d client.Deployment
		d.Meta.ResourceVersion, d.Meta.Generation, d.Spec.Replicas = version, int64(generation), replicas
		d.Spec.Template.Spec.Containers = []client.Container{{Image: image}}
		return &d
	}
	for _, tc := range []struct {
		kind          string
		there         bool
		before, after *client.Deployment
		want          string
	}{
		{"service", false, d("", 0, 0, ""), d("1", 0, 0, ""), "created"},
		{"service", true, d("1", 0, 0, ""), d("1", 0, 0, ""), "unchanged"},
		{"service", true, d("1", 0, 0, ""), d("2", 0, 0, ""), "configured"},
		{"deployment", false, d("", 0, 0, ""), d("1", 1, 3, "i"), "created: 3 x i (cpu , memory )"},
		{"deployment", true, d("1", 1, 3, "i"), d("2", 1, 3, "i"), "unchanged"}, // its status was written
		{"deployment", true, d("1", 1, 3, "i"), d("2", 2, 5, "i"), "configured: pods 3 -> 5"},
		{"deployment", true, d("1", 1, 3, "i"), d("2", 2, 3, "j"), "configured: i (cpu , memory ) -> j (cpu , memory )"},
		{"deployment", true, d("1", 1, 3, "i"), d("2", 2, 3, "i"), "configured"},
	} {
		if got := change(tc.kind, tc.there, tc.before, tc.after); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.kind, got, tc.want)
		}
	}
}
