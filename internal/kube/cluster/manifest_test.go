package cluster

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"gray/deploy"

	"go.yaml.in/yaml/v3"
)

// leaves are the values of a manifest by their paths.
func leaves(t *testing.T, text string) map[string]string {
	t.Helper()
	out := map[string]string{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, e := range v {
				walk(path+"."+k, e)
			}
		case []any:
			for i, e := range v {
				walk(fmt.Sprint(path, ".", i), e)
			}
		default:
			out[path] = fmt.Sprintf("%T %v", v, v)
		}
	}
	for i, doc := range strings.Split(text, "\n---\n") {
		var v any
		if err := yaml.Unmarshal([]byte(doc), &v); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		walk(fmt.Sprint(i), v)
	}
	return out
}

func TestWithoutSettingsTheManifestIsTheFile(t *testing.T) {
	text, err := Settings{Workers: -1}.Manifest()
	if err != nil || text != deploy.ClusterYAML {
		t.Errorf("%v; the manifest differs from deploy/ray-cluster.yaml:\n%s", err, text)
	}
	if text, err = (Settings{Name: Name, Workers: 3, Image: "gray:local", CPUs: "100m", Memory: "512Mi"}).Manifest(); err != nil || text != deploy.ClusterYAML {
		t.Errorf("%v; with the file's own settings the manifest differs from it:\n%s", err, text)
	}
}

func TestSettingsChangeTheirPlacesAndNoOthers(t *testing.T) {
	before := leaves(t, deploy.ClusterYAML)
	for _, tc := range []struct {
		name     string
		settings Settings
		want     map[string]string // path: value
	}{
		{"workers", Settings{Workers: 7}, map[string]string{"2.spec.replicas": "int 7"}},
		{"none", Settings{Workers: 0}, map[string]string{"2.spec.replicas": "int 0"}},
		{"image", Settings{Workers: -1, Image: "reg.example:5000/a/b:1@sha256:ab"}, map[string]string{
			"1.spec.template.spec.containers.0.image": "string reg.example:5000/a/b:1@sha256:ab",
			"2.spec.template.spec.containers.0.image": "string reg.example:5000/a/b:1@sha256:ab",
		}},
		{"sizes", Settings{Workers: -1, CPUs: "2", Memory: "4Gi"}, map[string]string{
			"1.spec.template.spec.containers.0.resources.requests.cpu": "int 2", "1.spec.template.spec.containers.0.resources.requests.memory": "string 4Gi",
			"2.spec.template.spec.containers.0.resources.requests.cpu": "int 2", "2.spec.template.spec.containers.0.resources.requests.memory": "string 4Gi",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text, err := tc.settings.Manifest()
			if err != nil {
				t.Fatal(err)
			}
			after := leaves(t, text)
			got := map[string]string{}
			for path, v := range after {
				if before[path] != v {
					got[path] = v
				}
			}
			if !maps.Equal(got, tc.want) || len(after) != len(before) {
				t.Errorf("changed %v of %d values, want %v of %d", got, len(after), tc.want, len(before))
			}
		})
	}
}

func TestAnotherNameLeavesNothingOfTheFirst(t *testing.T) {
	for _, name := range []string{"two", "on", "y", "a-1", "null"} {
		text, err := Settings{Name: name, Workers: -1}.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		for path, v := range leaves(t, text) {
			if strings.Contains(v, "ray-head") || strings.Contains(v, "ray-worker") || strings.Contains(v, "RAY_HEAD") || v == "string ray" && !strings.HasSuffix(path, ".audience") {
				t.Errorf("name %s: %s is still %q", name, path, v)
			}
			if strings.HasSuffix(path, ".app") && v != "string "+name {
				t.Errorf("name %s: label %s is %q", name, path, v)
			}
		}
		if want := "$" + strings.ToUpper(strings.ReplaceAll(name, "-", "_")) + "_HEAD_SERVICE_HOST:"; !strings.Contains(text, want) {
			t.Errorf("name %s: workers do not look for the head at %s", name, want)
		}
	}
}

func TestSettingsThatAreNone(t *testing.T) {
	for _, s := range []Settings{
		{Name: "Big"},
		{Name: "1st"},
		{Name: "a-"},
		{Name: "a_b"},
		{Name: strings.Repeat("a", 41)},
		{Name: "a}\n"},
		{Image: "a b"},
		{Image: "a\nb"},
		{Image: "-x"},
		{CPUs: "two"},
		{CPUs: "-1"},
		{CPUs: "1}"},
		{CPUs: "0.0005"},
		{Memory: "1GB"},
		{Memory: "1 Gi"},
		{Memory: "x"},
	} {
		if text, err := s.Manifest(); err == nil {
			t.Errorf("%+v gives\n%s", s, text)
		} else if !strings.Contains(err.Error(), "--") {
			t.Errorf("%+v: error %q names no option", s, err)
		}
	}
}

func TestResourcesOfTheManifest(t *testing.T) {
	rs, err := Resources(deploy.ClusterYAML)
	if err != nil {
		t.Fatal(err)
	}
	var names, texts []string
	for _, r := range rs {
		names = append(names, r.Kind+"/"+r.Name)
		texts = append(texts, string(r.Text))
		if _, ok := groups[r.Kind]; !ok {
			t.Errorf("a %s has no place at the API server", r.Kind)
		}
	}
	if want := []string{"service/ray-head", "deployment/ray-head", "deployment/ray-worker"}; !slices.Equal(names, want) {
		t.Errorf("resources %v, want %v", names, want)
	}
	if !maps.Equal(leaves(t, strings.Join(texts, "\n---\n")), leaves(t, deploy.ClusterYAML)) {
		t.Error("what is sent is not what the file says")
	}
}
