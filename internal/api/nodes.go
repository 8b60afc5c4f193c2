package api

import (
	"fmt"
	"net/http"
	"strings"

	"gray/internal/core/headstate"
	"gray/internal/head"
)

func (s *server) nodes(w http.ResponseWriter, r *http.Request) {
	view := r.URL.Query().Get("view")
	if view != "summary" && view != "hostNameList" {
		s.refuse(w, http.StatusInternalServerError, "Unknown view "+view)
		return
	}
	sum := s.summary(w, r)
	if sum == nil {
		return
	}
	if view == "hostNameList" {
		names, seen := []string{}, map[string]bool{}
		for _, n := range sum.Nodes {
			if n.Alive && !seen[n.Info.Hostname] {
				seen[n.Info.Hostname] = true
				names = append(names, n.Info.Hostname)
			}
		}
		s.envelope(w, "Node hostname list fetched.", object{"hostNameList": names})
		return
	}
	list, logical := []object{}, object{}
	for i := range sum.Nodes {
		n := &sum.Nodes[i]
		list = append(list, nodeData(sum, n))
		if n.Alive {
			logical[n.Info.ID.String()] = strings.Join(head.Usage(n.Info.Total, n.Available), "\n")
		}
	}
	s.envelope(w, "Node summary fetched.", object{"summary": list, "nodeLogicalResources": logical})
}

func (s *server) node(w http.ResponseWriter, r *http.Request) {
	sum := s.summary(w, r)
	if sum == nil {
		return
	}
	id := r.PathValue("id")
	for i := range sum.Nodes {
		if n := &sum.Nodes[i]; n.Info.ID.String() == id {
			s.envelope(w, "Node details fetched.", object{"detail": nodeData(sum, n)})
			return
		}
	}
	s.refuse(w, http.StatusNotFound, fmt.Sprintf("node %s is not known to this cluster", id))
}

func nodeData(sum *head.Summary, n *headstate.NodeRow) object {
	state := "ALIVE"
	if !n.Alive {
		state = "DEAD"
	}
	raylet := object{
		"nodeId": n.Info.ID.String(), "nodeName": n.Info.Name, "nodeManagerAddress": n.Info.IP, "nodeManagerHostname": n.Info.Hostname,
		"nodeManagerPort": n.Info.Port, "objectManagerPort": n.Info.ObjectPort, "rayletSocketName": n.Info.Socket,
		"metricsExportPort": n.Info.MetricsPort, "dashboardAgentListenPort": n.Info.AgentPort, "pid": n.Info.PID,
		"isHeadNode": n.Info.Head, "state": state, "stateMessage": nil, "resourcesTotal": floats(n.Info.Total, true),
		"labels": n.Info.Labels, "startTimeMs": fmt.Sprint(n.StartMs), "endTimeMs": fmt.Sprint(n.EndMs),
	}
	if n.DeathMessage != "" {
		raylet["stateMessage"] = n.DeathMessage
	}
	if total, ok := n.Info.Total["object_store_memory"]; ok && n.Alive {
		available := n.Available["object_store_memory"]
		raylet["objectStoreUsedMemory"] = (total - available) / 10000
		raylet["objectStoreAvailableMemory"] = available / 10000
	}
	return object{"now": float64(sum.Time.UnixMicro()) / 1e6, "hostname": n.Info.Hostname, "ip": n.Info.IP, "raylet": raylet}
}

// usage is [used, total] by resource name.
func usage(total, available headstate.Resources) object {
	m := object{}
	for name, t := range total {
		m[camel(name)] = [2]float64{float64(t-available[name]) / 10000, float64(t) / 10000}
	}
	return m
}

// floats are quantities in whole units; names keep their form in lists.
func floats(r headstate.Resources, camelKeys bool) map[string]float64 {
	m := make(map[string]float64, len(r))
	for name, q := range r {
		if camelKeys {
			name = camel(name)
		}
		m[name] = float64(q) / 10000
	}
	return m
}

// camel is a key in the form that Ray's dashboard gives it: object_store_memory becomes objectStoreMemory.
func camel(key string) string {
	parts := strings.Split(key, "_")
	for i, p := range parts[1:] {
		if p != "" {
			parts[i+1] = strings.ToUpper(p[:1]) + p[1:]
		}
	}
	return strings.Join(parts, "")
}
