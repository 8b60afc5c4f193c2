package session

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// DefaultPort is the head's.
const DefaultPort = 6379

// NodeConfig is what a daemon is started with: one JSON object on a descriptor, so that no secret stands in an argv.
// A nil pointer or an empty value means "the default"; port 0 means "any free one".
type NodeConfig struct {
	Head    bool   `json:"head"`
	Private bool   `json:"private,omitempty"` // loopback only, a random token, ends with its driver
	Guest   bool   `json:"guest,omitempty"`   // joined for one driver alone: other programs of the machine don't see it
	Address string `json:"address,omitempty"` // head to join, host:port

	TempDir     string   `json:"temp_dir,omitempty"`
	SessionName string   `json:"session_name,omitempty"`
	NodeIP      string   `json:"node_ip,omitempty"`
	NodeName    string   `json:"node_name,omitempty"`
	Namespace   string   `json:"namespace,omitempty"`
	Python      string   `json:"python,omitempty"`      // interpreter of the workers
	PythonPath  string   `json:"python_path,omitempty"` // folder that holds their ray package; "" = the interpreter finds it
	Preload     []string `json:"preload,omitempty"`     // modules that workers are forked with

	NumCPUs           *float64           `json:"num_cpus,omitempty"`
	NumGPUs           *float64           `json:"num_gpus,omitempty"`
	Memory            *int64             `json:"memory,omitempty"`              // bytes
	ObjectStoreMemory *int64             `json:"object_store_memory,omitempty"` // bytes
	Resources         map[string]float64 `json:"resources,omitempty"`
	Labels            map[string]string  `json:"labels,omitempty"`
	PlasmaDirectory   string             `json:"plasma_directory,omitempty"` // where the object store's file is

	Port              *int   `json:"port,omitempty"` // head's
	NodeManagerPort   int    `json:"node_manager_port,omitempty"`
	ObjectManagerPort int    `json:"object_manager_port,omitempty"`
	Dashboard         *bool  `json:"dashboard,omitempty"`
	DashboardHost     string `json:"dashboard_host,omitempty"`
	DashboardPort     *int   `json:"dashboard_port,omitempty"`
	AgentPort         *int   `json:"dashboard_agent_listen_port,omitempty"`
	MetricsExportPort int    `json:"metrics_export_port,omitempty"`
	ClientServerPort  *int   `json:"ray_client_server_port,omitempty"` // for ray:// clients; nil: 10001 on a head that is not private

	DriverPID       int    `json:"driver_pid,omitempty"`        // the daemon ends when this process does, private or not
	DriverStartTime int64  `json:"driver_start_time,omitempty"` // see StartTime
	TLS             string `json:"tls,omitempty"`               // "" or "on": always off loopback; "off"
	Token           string `json:"token,omitempty"`             // "": found or made by the daemon
	TokenSource     string `json:"token_source,omitempty"`      // where Token was found, for errors
	AuthDisabled    bool   `json:"auth_disabled,omitempty"`

	LogMaxBytes *int64 `json:"log_max_bytes,omitempty"` // of a file of output, before its beginning goes to a backup; nil: 100 MiB, 0: it may grow
	LogBackups  *int64 `json:"log_backups,omitempty"`   // of each such file; nil: 5

	// Kubernetes says that the head lets pods in by their ServiceAccount tokens, and that a joining node without a token
	// asks the head for it. The daemon settles it by where it runs.
	Kubernetes           bool     `json:"kubernetes,omitempty"`
	AllowServiceAccounts []string `json:"allow_service_accounts,omitempty"` // names; none: all of the head's namespace

	SystemConfig map[string]any `json:"system_config,omitempty"`
}

// ClusterToken is Token with its source; none is an error.
func (c *NodeConfig) ClusterToken() (Token, error) {
	source := c.TokenSource
	if source == "" {
		source = "the daemon's configuration"
	}
	return NewToken(c.Token, source)
}

// reserved resource names have options of their own.
var reserved = map[string]string{
	"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory", "object_store_memory": "object_store_memory",
}

// Compiled on first use: commands that start no node pay nothing.
var (
	labelKey = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?/)?[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?$`)
	})
	moduleName = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$`)
	})
	labelValue = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?)?$`)
	})
)

// minObjectStore is the smallest object store Ray accepts, in bytes.
const minObjectStore = 75 << 20

// Validate lists every fault of the configuration, one a line.
func (c *NodeConfig) Validate() error {
	var bad []error
	fault := func(format string, a ...any) { bad = append(bad, fmt.Errorf(format, a...)) }
	if c.Head && c.Address != "" {
		fault("head and address exclude each other: a head makes a cluster, an address joins one")
	}
	if !c.Head && c.Address == "" {
		fault("address is missing: a node that is not the head needs the head's host:port")
	}
	if c.Private && !c.Head {
		fault("private needs head: a private cluster is one daemon")
	}
	if c.Private && c.DriverPID == 0 {
		fault("private needs driver_pid: a private cluster ends with its driver")
	}
	if c.Guest && (c.Head || c.DriverPID == 0) {
		fault("guest needs address and driver_pid: it joins a cluster for one driver, and ends with it")
	}
	if c.SessionName != "" && !ValidName(c.SessionName) {
		fault("session_name %q: want session_<date>_<time>_<microseconds>_<pid>", c.SessionName)
	}
	if c.NodeIP != "" {
		if a, err := netip.ParseAddr(c.NodeIP); err != nil || a.IsUnspecified() || a.IsMulticast() {
			fault("node_ip %q: want the IP address at which other nodes reach this one", c.NodeIP)
		}
	}
	for _, m := range c.Preload {
		if !moduleName().MatchString(m) {
			fault("preload: %q is not the name of a Python module", m)
		}
	}
	amount := func(name string, v float64, whole bool) {
		switch {
		case math.IsNaN(v) || math.IsInf(v, 0) || v < 0:
			fault("%s = %v: want a number that is not negative", name, v)
		case v > 1e15:
			fault("%s = %v is too large", name, v)
		case whole && v != math.Trunc(v):
			fault("%s = %v: want a whole number", name, v)
		}
	}
	if c.NumCPUs != nil {
		amount("num_cpus", *c.NumCPUs, false)
	}
	if c.NumGPUs != nil {
		amount("num_gpus", *c.NumGPUs, true)
	}
	if c.Memory != nil && *c.Memory <= 0 {
		fault("memory = %d: want a number of bytes over 0", *c.Memory)
	}
	if m := c.ObjectStoreMemory; m != nil && *m < minObjectStore {
		fault("object_store_memory = %d bytes: it must be at least %d (75 MiB)", *m, minObjectStore)
	}
	for _, name := range sortedKeys(c.Resources) {
		switch option := reserved[name]; {
		case name == "":
			fault("resources: a name is empty")
		case option != "":
			fault("resources: %q is set by %s", name, option)
		default:
			amount("resources["+name+"]", c.Resources[name], false)
		}
	}
	for _, k := range sortedKeys(c.Labels) {
		if !labelKey().MatchString(k) {
			fault("labels: key %q: want letters, digits, '-', '_', '.', with an optional prefix/", k)
		}
		if v := c.Labels[k]; !labelValue().MatchString(v) {
			fault("labels: value %q of %s: want up to 63 letters, digits, '-', '_', '.'", v, k)
		}
	}
	port := func(name string, p int) {
		if p < 0 || p > 65535 {
			fault("%s = %d: want 0 (any free port) to 65535", name, p)
		}
	}
	for _, p := range []struct {
		name string
		port *int
	}{
		{"port", c.Port},
		{"node_manager_port", &c.NodeManagerPort},
		{"object_manager_port", &c.ObjectManagerPort},
		{"dashboard_port", c.DashboardPort},
		{"dashboard_agent_listen_port", c.AgentPort},
		{"ray_client_server_port", c.ClientServerPort},
		{"metrics_export_port", &c.MetricsExportPort},
	} {
		if p.port != nil {
			port(p.name, *p.port)
		}
	}
	if len(c.AllowServiceAccounts) > 0 && !c.Head {
		fault("allow_service_accounts is for the head: it lets others in")
	}
	if c.TLS != "" && c.TLS != "on" && c.TLS != "off" {
		fault("tls %q: want on or off", c.TLS)
	}
	if c.Token != "" {
		if _, err := NewToken(c.Token, "configuration"); err != nil {
			bad = append(bad, err)
		}
	}
	return errors.Join(bad...)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, strings.Compare)
	return keys
}
