// Package cluster makes, shows, uses and ends a cluster of Gray in a namespace of Kubernetes: what `ray kube` does.
//
// The manifest is deploy/ray-cluster.yaml, the same that people apply with kubectl. What is known of a cluster is read
// anew each time it is needed; Judge decides from that alone whether the cluster is ready, may become so, or why not.
package cluster

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"gray/deploy"

	"go.yaml.in/yaml/v3"
)

// Name is the cluster that is meant if none is named.
const Name = "ray"

// Settings are what can be chosen of a cluster. "" and -1 leave what the manifest says.
type Settings struct {
	Name    string // of its Service and Deployments: NAME-head, NAME-worker
	Image   string
	Workers int
	CPUs    string // that each pod asks for
	Memory  string
}

// Resource is one document of a manifest.
type Resource struct {
	Kind string // "service" or "deployment"
	Name string
	Text []byte // YAML
}

// form is a regular expression that is compiled when it is first asked for: other commands of the program do not pay for it.
func form(expr string) func(string) bool {
	re := sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
	return func(s string) bool { return re().MatchString(s) }
}

// isName keeps names short enough for the pods' own, which add 17 letters.
var (
	isName  = form(`^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$`)
	isImage = form(`^[A-Za-z0-9][A-Za-z0-9._:/@-]*$`)
	isCPU   = form(`^([0-9]+m|[0-9]+(\.[0-9]{1,3})?)$`)
	isBytes = form(`^[0-9]+(\.[0-9]+)?([kMGTPE]|[KMGTPE]i)?$`)
)

// CheckName says what is wrong with a cluster's name.
func CheckName(name string) error {
	if !isName(name) {
		return fmt.Errorf("--name %q can't name a cluster: take 1 to 40 small letters, digits and -, the first a letter, the last no -", name)
	}
	return nil
}

// Manifest is the YAML that makes the cluster. It is deploy/ray-cluster.yaml with the settings put into their places: for
// no settings, that file byte for byte.
func (s Settings) Manifest() (string, error) {
	if s.Name == "" {
		s.Name = Name
	}
	if err := CheckName(s.Name); err != nil {
		return "", err
	}
	var edits []edit
	if s.Name != Name {
		variable := strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
		edits = append(edits, edit{"ray-head", s.Name + "-head"}, edit{"ray-worker", s.Name + "-worker"},
			edit{"app: ray,", "app: " + quoted(s.Name) + ","}, edit{"app: ray}", "app: " + quoted(s.Name) + "}"}, edit{"$RAY_HEAD_", "$" + variable + "_HEAD_"})
	}
	if s.Image != "" {
		if !isImage(s.Image) {
			return "", fmt.Errorf("--image %q is no name of an image, such as registry.example/gray:1", s.Image)
		}
		edits = append(edits, edit{"image: gray:local", "image: " + s.Image})
	}
	if s.Workers >= 0 {
		edits = append(edits, edit{"replicas: 3", "replicas: " + strconv.Itoa(s.Workers)})
	}
	if s.CPUs != "" {
		if !isCPU(s.CPUs) {
			return "", fmt.Errorf("--cpus %q is no number of CPUs, such as 2, 0.5 or 500m", s.CPUs)
		}
		edits = append(edits, edit{"requests: {cpu: 100m", "requests: {cpu: " + s.CPUs})
	}
	if s.Memory != "" {
		if !isBytes(s.Memory) {
			return "", fmt.Errorf("--memory %q is no amount of memory, such as 512Mi or 2Gi", s.Memory)
		}
		edits = append(edits, edit{"memory: 512Mi}", "memory: " + s.Memory + "}"})
	}
	return apply(deploy.ClusterYAML, edits)
}

// quoted keeps YAML from reading a name such as "no" or "y" as something else than a text.
func quoted(name string) string {
	var v any
	if yaml.Unmarshal([]byte(name), &v) == nil {
		if _, ok := v.(string); ok && len(name) > 3 {
			return name
		}
	}
	return strconv.Quote(name)
}

// edit replaces a text wherever it stands in the manifest.
type edit struct{ old, new string }

// apply makes the edits. One that finds nothing to replace means that the manifest was changed without it.
func apply(text string, edits []edit) (string, error) {
	for _, e := range edits {
		if !strings.Contains(text, e.old) {
			return "", fmt.Errorf("deploy/ray-cluster.yaml does not say %q: this program was built from a manifest that it can't fill in", e.old)
		}
		text = strings.ReplaceAll(text, e.old, e.new)
	}
	return text, nil
}

// Resources are the documents of a manifest.
func Resources(manifest string) ([]Resource, error) {
	var out []Resource
	d := yaml.NewDecoder(strings.NewReader(manifest))
	for {
		var node yaml.Node
		err := d.Decode(&node)
		if err == io.EOF { //nolint:errorlint // the decoder's own word
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("the manifest is no YAML: %w", err)
		}
		var head struct {
			Kind     string
			Metadata struct{ Name string }
		}
		if err := node.Decode(&head); err != nil {
			return nil, fmt.Errorf("the manifest holds something that is no resource: %w", err)
		}
		var text bytes.Buffer
		e := yaml.NewEncoder(&text)
		if err := e.Encode(&node); err != nil {
			return nil, err
		}
		if err := e.Close(); err != nil {
			return nil, err
		}
		out = append(out, Resource{strings.ToLower(head.Kind), head.Metadata.Name, text.Bytes()})
	}
}
