// Package deploy holds the manifest of a cluster on Kubernetes, as people apply it with kubectl and as `ray kube up` does.
package deploy

import _ "embed"

// ClusterYAML is ray-cluster.yaml.
//
//go:embed ray-cluster.yaml
var ClusterYAML string
