package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"strconv"
	"strings"

	"gray/internal/session"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// startFlags are the flags of `ray start`: Ray's of today, and those of 2020.
type startFlags struct {
	head, block                                       bool
	address, nodeIP, nodeName, tempDir                string
	port, redisPort                                   int
	numCPUs, numGPUs                                  int
	memory, objectStore                               int64
	resources, labels, labelsFile, plasma             string
	objectManagerPort, nodeManagerPort                int
	dashboardPort, agentPort, clientPort, metricsPort int
	dashboardHost, webuiHost                          string
	dashboard, webui                                  boolean
	minWorker, maxWorker                              int
	workerPorts, systemConfig                         string
	tls                                               choice
	preload, allowAccounts                            []string
}

// noops are accepted and change nothing, and why that is right.
var noops = []struct{ name, kind, why string }{
	{"redis-password", "string", "Gray has no Redis"},
	{"redis-username", "string", "Gray has no Redis"},
	{"redis-shard-ports", "string", "Gray has no Redis"},
	{"num-redis-shards", "int", "Gray has no Redis"},
	{"redis-max-memory", "int", "Gray has no Redis"},
	{"redis-max-clients", "int", "Gray has no Redis"},
	{"dashboard-agent-grpc-port", "int", "the daemon is its own agent"},
	{"dashboard-grpc-port", "int", "the daemon is its own dashboard server"},
	{"runtime-env-agent-port", "int", "the daemon is its own agent"},
	{"no-monitor", "flag", "there is no monitor process"},
	{"disable-usage-stats", "flag", "Gray reports nothing to anybody"},
	{"huge-pages", "flag", "a flag of 2020"},
	{"plasma-store-socket-name", "string", "a flag of 2020"},
	{"raylet-socket-name", "string", "a flag of 2020"},
	{"no-redirect-worker-output", "flag", "a flag of 2020"},
	{"no-redirect-output", "flag", "a flag of 2020"},
	{"include-java", "flag", "a flag of 2020"},
	{"java-worker-options", "string", "a flag of 2020"},
	{"internal-config", "string", "a flag of 2020"},
	{"load-code-from-local", "flag", "a flag of 2020"},
}

// missing are flags of features that are still to come: to accept them would promise what does not happen.
var missing = []struct{ name, kind, feature string }{
	{"autoscaling-config", "string", "the autoscaler"},
	{"object-spilling-directory", "string", "spilling of objects to disk"},
	{"tracing-startup-hook", "string", "tracing"},
	{"ray-debugger-external", "flag", "the remote debugger"},
	{"enable-object-reconstruction", "flag", "rebuilding of lost objects"},
	{"include-log-monitor", "string", "forwarding of worker logs"},
	{"proxy-server-url", "string", "a proxy in front of the dashboard"},
	{"enable-resource-isolation", "flag", "resource isolation by cgroups"},
	{"system-reserved-cpu", "string", "resource isolation by cgroups"},
	{"system-reserved-memory", "int", "resource isolation by cgroups"},
	{"cgroup-path", "string", "resource isolation by cgroups"},
}

func (f *startFlags) register(fs *pflag.FlagSet) {
	f.tls = choice{"on", []string{"on", "off"}}
	fs.SortFlags = false
	fs.BoolVar(&f.head, "head", false, "start the head: the first node of a new cluster")
	fs.StringVar(&f.address, "address", "", "host:port of the head to join; \"auto\" for the one that was started here last")
	fs.IntVar(&f.port, "port", 0, "the head's port (default RAY_GCS_SERVER_PORT or 6379); 0: any free one")
	fs.StringVar(&f.nodeIP, "node-ip-address", "", "address at which other nodes reach this one (default: found)")
	fs.StringVar(&f.nodeName, "node-name", "", "name of this node (default: its address)")
	fs.IntVar(&f.numCPUs, "num-cpus", 0, "CPUs to offer (default: those of the machine or container)")
	fs.IntVar(&f.numGPUs, "num-gpus", 0, "GPUs to offer")
	fs.StringVar(&f.resources, "resources", "", `custom resources to offer, as JSON: '{"name": 2}'`)
	fs.Int64Var(&f.memory, "memory", 0, "bytes of memory to offer to tasks (default: what is left)")
	fs.Int64Var(&f.objectStore, "object-store-memory", 0, "bytes of shared memory for objects (default: 30 % of memory)")
	fs.StringVar(&f.labels, "labels", "", `labels of this node: "key=value,key2=value2"`)
	fs.StringVar(&f.labelsFile, "labels-file", "", "YAML file with labels of this node, one \"key: value\" a line")
	fs.BoolVar(&f.block, "block", false, "stay in the foreground until the node ends or a signal comes")
	fs.IntVar(&f.objectManagerPort, "object-manager-port", 0, "port for objects; 0: any free one")
	fs.IntVar(&f.nodeManagerPort, "node-manager-port", 0, "port for other nodes; 0: any free one")
	fs.IntVar(&f.minWorker, "min-worker-port", 10002, "accepted: Gray's workers listen on no port")
	fs.IntVar(&f.maxWorker, "max-worker-port", 19999, "accepted: Gray's workers listen on no port")
	fs.StringVar(&f.workerPorts, "worker-port-list", "", "accepted: Gray's workers listen on no port")
	fs.Var(&f.dashboard, "include-dashboard", "whether the head serves the dashboard port")
	fs.StringVar(&f.dashboardHost, "dashboard-host", "", "address of the dashboard port (default 127.0.0.1)")
	fs.IntVar(&f.dashboardPort, "dashboard-port", 0, "port of the dashboard (default 8265)")
	fs.IntVar(&f.agentPort, "dashboard-agent-listen-port", 0, "port of this node's health routes (default 52365)")
	fs.IntVar(&f.clientPort, "ray-client-server-port", 0, "port for ray:// clients; 0: any free one (default 10001 on the head, none elsewhere)")
	fs.IntVar(&f.metricsPort, "metrics-export-port", 0, "port of this node's metrics; 0: any free one")
	fs.StringVar(&f.tempDir, "temp-dir", "", "folder for sessions (default $RAY_TMPDIR/ray or /tmp/ray)")
	fs.StringVar(&f.plasma, "plasma-directory", "", "folder for the object store's file (default /dev/shm)")
	fs.StringVar(&f.systemConfig, "system-config", "", "settings of the head as JSON")
	fs.Var(&f.tls, "tls", "encrypt what goes between machines; off only where the network does it, on all nodes")
	fs.StringSliceVar(&f.allowAccounts, "allow-service-account", nil, "on Kubernetes: let only pods of these ServiceAccounts in (default: all of the head's namespace)")
	fs.StringSliceVar(&f.preload, "preload", nil, "modules that workers have loaded from the start: numpy,torch")
	fs.IntVar(&f.redisPort, "redis-port", 0, "old name of --port")
	fs.StringVar(&f.webuiHost, "webui-host", "", "old name of --dashboard-host")
	fs.Var(&f.webui, "include-webui", "old name of --include-dashboard")
	fs.String("redis-address", "", "old name of --address")
	hide := []string{"memory", "system-config", "redis-port", "webui-host", "include-webui", "redis-address"}
	add := func(name, kind, usage string) {
		switch kind {
		case "flag":
			fs.Bool(name, false, usage)
		case "int":
			fs.Int64(name, 0, usage)
		default:
			fs.String(name, "", usage)
		}
		hide = append(hide, name)
	}
	for _, n := range noops {
		add(n.name, n.kind, "accepted: "+n.why)
	}
	for _, m := range missing {
		add(m.name, m.kind, "not there yet: "+m.feature)
	}
	for _, name := range hide {
		fs.Lookup(name).Hidden = true
	}
}

// config turns the flags into a daemon's configuration.
func (f *startFlags) config(cmd *cobra.Command) (*session.NodeConfig, error) {
	fs := cmd.Flags()
	given := fs.Changed
	for _, m := range missing {
		if given(m.name) {
			return nil, fmt.Errorf("--%s: %s is not in this version of Gray yet; leave the flag out", m.name, m.feature)
		}
	}
	if given("redis-address") {
		return nil, errors.New("--redis-address is no longer an option: use --address")
	}
	if !f.head {
		if f.address == "" {
			return nil, errors.New("`--address` is a required flag unless starting a head node with `--head`.")
		}
		for _, name := range []string{"port", "redis-port", "redis-shard-ports", "include-dashboard", "include-webui", "system-config", "allow-service-account"} {
			if given(name) {
				return nil, fmt.Errorf("`--%s` should only be specified when starting head node with `--head`.", name)
			}
		}
		if f.address != "auto" {
			if host, port, err := net.SplitHostPort(f.address); err != nil || host == "" || port == "" {
				text := fmt.Sprintf("Invalid value for '--address': '%s' is not host:port.", f.address)
				if f.address == ":" { // of $RAY_HEAD_SERVICE_HOST:$RAY_HEAD_SERVICE_PORT_REDIS_PRIMARY
					text += " On Kubernetes the head's Service is not there, or came after this container."
				}
				return nil, &usageError{cmd, text}
			}
		}
	} else {
		if f.address != "" {
			return nil, errors.New("`--address` should not be specified when starting a head node with `--head`: a head makes a new cluster.")
		}
		if os.Getenv("RAY_REDIS_ADDRESS") != "" {
			return nil, errors.New("RAY_REDIS_ADDRESS: a head whose state lives in Redis is not in this version of Gray; unset it")
		}
	}
	cfg := &session.NodeConfig{
		Head: f.head, Address: f.address, TempDir: f.tempDir, NodeIP: f.nodeIP, NodeName: f.nodeName,
		PlasmaDirectory: f.plasma, ObjectManagerPort: f.objectManagerPort, NodeManagerPort: f.nodeManagerPort,
		MetricsExportPort: f.metricsPort, DashboardHost: f.dashboardHost, Dashboard: f.dashboard.value,
		Python: os.Getenv("GRAY_PYTHON"), Preload: f.preload, AllowServiceAccounts: f.allowAccounts,
	}
	if f.tls.value == "off" {
		cfg.TLS = "off"
	}
	if f.nodeIP == "localhost" {
		cfg.NodeIP = "127.0.0.1"
	}
	if cfg.DashboardHost == "" {
		cfg.DashboardHost = f.webuiHost
	}
	if cfg.Dashboard == nil {
		cfg.Dashboard = f.webui.value
	}
	for name, to := range map[string]func(){
		"num-cpus":                    func() { v := float64(f.numCPUs); cfg.NumCPUs = &v },
		"num-gpus":                    func() { v := float64(f.numGPUs); cfg.NumGPUs = &v },
		"memory":                      func() { cfg.Memory = &f.memory },
		"object-store-memory":         func() { cfg.ObjectStoreMemory = &f.objectStore },
		"dashboard-port":              func() { cfg.DashboardPort = &f.dashboardPort },
		"dashboard-agent-listen-port": func() { cfg.AgentPort = &f.agentPort },
		"ray-client-server-port":      func() { cfg.ClientServerPort = &f.clientPort },
	} {
		if given(name) {
			to()
		}
	}
	if f.head {
		port, err := f.headPort(given)
		if err != nil {
			return nil, err
		}
		cfg.Port = &port
	}
	if err := f.workerRange(cmd); err != nil {
		return nil, err
	}
	var err error
	if cfg.Resources, err = jsonObject[float64](cmd, "resources", f.resources); err != nil {
		return nil, err
	}
	if cfg.Labels, err = f.allLabels(cmd); err != nil {
		return nil, err
	}
	if f.systemConfig != "" {
		if err := json.Unmarshal([]byte(f.systemConfig), &cfg.SystemConfig); err != nil {
			return nil, &usageError{cmd, fmt.Sprintf("Invalid value for '--system-config': not a JSON object: %v", err)}
		}
	}
	return cfg, nil
}

func (f *startFlags) headPort(given func(string) bool) (int, error) {
	switch {
	case given("port"):
		return f.port, nil
	case given("redis-port"):
		return f.redisPort, nil
	}
	text := os.Getenv("RAY_GCS_SERVER_PORT")
	if text == "" {
		return session.DefaultPort, nil
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("RAY_GCS_SERVER_PORT=%q is not a port", text)
	}
	return port, nil
}

// workerRange checks ports that nothing uses, so that a mistake in a manifest is found here, too.
func (f *startFlags) workerRange(cmd *cobra.Command) error {
	bad := func(p int) bool { return p != 0 && (p < 1024 || p > 65535) }
	if bad(f.minWorker) || bad(f.maxWorker) || f.maxWorker != 0 && f.minWorker > f.maxWorker {
		return &usageError{cmd, fmt.Sprintf("--min-worker-port %d and --max-worker-port %d: want 1024 to 65535, in this order.", f.minWorker, f.maxWorker)}
	}
	if f.workerPorts == "" {
		return nil
	}
	for _, s := range strings.Split(f.workerPorts, ",") {
		if p, err := strconv.Atoi(strings.TrimSpace(s)); err != nil || bad(p) || p == 0 {
			return &usageError{cmd, fmt.Sprintf("Invalid value for '--worker-port-list': '%s' is not a port of 1024 to 65535.", s)}
		}
	}
	return nil
}

// jsonObject reads a JSON object of a flag; without one it is empty.
func jsonObject[V any](cmd *cobra.Command, flag, text string) (map[string]V, error) {
	m := map[string]V{}
	if strings.TrimSpace(text) == "" {
		return m, nil
	}
	if err := json.Unmarshal([]byte(text), &m); err != nil || m == nil {
		return nil, &usageError{cmd, fmt.Sprintf(`Invalid value for '--%s': %s is not a valid JSON object; try '{"name": 1}'`, flag, text)}
	}
	return m, nil
}

// allLabels joins --labels-file and --labels, the later over the earlier.
func (f *startFlags) allLabels(cmd *cobra.Command) (map[string]string, error) {
	labels := map[string]string{}
	add := func(flag, text, separator string) error {
		for _, item := range strings.Split(text, separator) {
			k, v, err := labelItem(item, flag)
			if err != nil {
				return &usageError{cmd, err.Error()}
			}
			if k != "" {
				labels[k] = v
			}
		}
		return nil
	}
	if f.labelsFile != "" {
		text, err := os.ReadFile(f.labelsFile)
		if err != nil {
			return nil, fmt.Errorf("--labels-file: %w", err)
		}
		if err := add("--labels-file", string(text), "\n"); err != nil {
			return nil, err
		}
	}
	if old, ok := jsonLabels(f.labels); ok {
		maps.Copy(labels, old)
	} else if err := add("--labels", f.labels, ","); err != nil {
		return nil, err
	}
	return labels, nil
}

// jsonLabels reads the older form of --labels, a JSON object; ok is false for any other text.
func jsonLabels(text string) (m map[string]string, ok bool) {
	if json.Unmarshal([]byte(text), &m) != nil {
		return nil, false
	}
	for key := range m {
		if strings.HasPrefix(key, "ray.io/") {
			return nil, false
		}
	}
	return m, len(m) > 0
}

// labelItem reads "key=value" of --labels, or a line "key: value" of a flat YAML mapping.
func labelItem(item, flag string) (key, value string, err error) {
	separator := "="
	if flag == "--labels-file" {
		separator = ":"
		if i := strings.Index(item, " #"); i >= 0 {
			item = item[:i]
		}
		if t := strings.TrimSpace(item); strings.HasPrefix(t, "#") || t == "---" {
			return "", "", nil
		}
	}
	if strings.TrimSpace(item) == "" {
		return "", "", nil
	}
	key, value, found := strings.Cut(item, separator)
	key, value = strings.TrimSpace(key), strings.TrimSpace(value)
	if flag == "--labels-file" {
		key, value = unquote(key), unquote(value)
	}
	if !found || key == "" || separator == "=" && strings.Contains(value, "=") {
		example := `--labels="key1=val1,key2=val2"`
		if flag == "--labels-file" {
			example = "key1: val1"
		}
		return "", "", fmt.Errorf("Invalid value for '%s': '%s': Label string is not a key-value pair. Valid values look like this: %s", flag, strings.TrimSpace(item), example) // click's and Ray's words
	}
	return key, value, nil
}

func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}
