package client

import "time"

// The few fields of Kubernetes' resources that are asked for, under Kubernetes' names.

// Meta is metadata.
type Meta struct {
	Name            string            `json:"name"`
	UID             string            `json:"uid"`
	ResourceVersion string            `json:"resourceVersion"`
	Generation      int64             `json:"generation"`
	Labels          map[string]string `json:"labels"`
	Created         time.Time         `json:"creationTimestamp"`
	Deleted         *time.Time        `json:"deletionTimestamp"`
	Owners          []Owner           `json:"ownerReferences"`
}

// Owner is what a resource belongs to.
type Owner struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// Condition is one of a resource's conditions.
type Condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// List is a list of resources.
type List[T any] struct {
	Items []T `json:"items"`
}

// Container is what a pod's template says of a container.
type Container struct {
	Name      string `json:"name"`
	Image     string `json:"image"`
	Resources struct {
		Requests map[string]string `json:"requests"`
	} `json:"resources"`
}

// Deployment is apps/v1's.
type Deployment struct {
	Meta Meta `json:"metadata"`
	Spec struct {
		Replicas int `json:"replicas"`
		Template struct {
			Spec struct {
				Containers []Container `json:"containers"`
			} `json:"spec"`
		} `json:"template"`
	} `json:"spec"`
	Status struct {
		ObservedGeneration int64       `json:"observedGeneration"`
		Replicas           int         `json:"replicas"`
		Updated            int         `json:"updatedReplicas"`
		Ready              int         `json:"readyReplicas"`
		Available          int         `json:"availableReplicas"`
		Conditions         []Condition `json:"conditions"`
	} `json:"status"`
}

// Failed says why pods can't be made; "" if that is not so.
func (d *Deployment) Failed() string {
	for _, c := range d.Status.Conditions {
		if c.Type == "ReplicaFailure" && c.Status == "True" {
			return c.Message
		}
	}
	return ""
}

// Service is v1's.
type Service struct {
	Meta Meta `json:"metadata"`
	Spec struct {
		ClusterIP string `json:"clusterIP"`
		Ports     []struct {
			Name string `json:"name"`
			Port int    `json:"port"`
		} `json:"ports"`
	} `json:"spec"`
}

// ContainerState says what a container is at.
type ContainerState struct {
	Waiting *struct {
		Reason  string `json:"reason"`
		Message string `json:"message"`
	} `json:"waiting"`
	Running    *struct{} `json:"running"`
	Terminated *struct {
		Reason   string `json:"reason"`
		Message  string `json:"message"`
		ExitCode int    `json:"exitCode"`
	} `json:"terminated"`
}

// ContainerStatus is what a node says of a container.
type ContainerStatus struct {
	Name     string         `json:"name"`
	Image    string         `json:"image"`
	Ready    bool           `json:"ready"`
	Restarts int            `json:"restartCount"`
	State    ContainerState `json:"state"`
	Last     ContainerState `json:"lastState"`
}

// Pod is v1's.
type Pod struct {
	Meta Meta `json:"metadata"`
	Spec struct {
		Node       string      `json:"nodeName"`
		Containers []Container `json:"containers"`
	} `json:"spec"`
	Status struct {
		Phase      string            `json:"phase"`
		Reason     string            `json:"reason"`
		Message    string            `json:"message"`
		Conditions []Condition       `json:"conditions"`
		Containers []ContainerStatus `json:"containerStatuses"`
	} `json:"status"`
}

// Condition is the pod's condition of a type, or an empty one.
func (p *Pod) Condition(kind string) Condition {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return Condition{}
}

// Ready says whether the pod is ready and not about to end.
func (p *Pod) Ready() bool { return p.Meta.Deleted == nil && p.Condition("Ready").Status == "True" }

// Event is what happened to a resource.
type Event struct {
	Meta   Meta   `json:"metadata"`
	Type   string `json:"type"` // Normal or Warning
	Reason string `json:"reason"`
	Text   string `json:"message"`
	Object struct {
		Kind string `json:"kind"`
		Name string `json:"name"`
		UID  string `json:"uid"`
	} `json:"involvedObject"`
}
