package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"strconv"
	"strings"
)

// Environment variables that win over what a node is told to have.
const (
	EnvResources = "RAY_OVERRIDE_RESOURCES" // JSON object: name to amount, CPU, GPU, memory and object_store_memory among them
	EnvLabels    = "RAY_OVERRIDE_LABELS"    // JSON object: key to value

	EnvLogMaxBytes = "RAY_ROTATION_MAX_BYTES"
	EnvLogBackups  = "RAY_ROTATION_BACKUP_COUNT"
)

// defaultLabels are the environment variables that say where a node is, and the labels that they become.
var defaultLabels = []struct{ env, label string }{
	{"RAY_NODE_MARKET_TYPE", "ray.io/market-type"},
	{"RAY_NODE_TYPE_NAME", "ray.io/node-group"},
	{"RAY_NODE_REGION", "ray.io/availability-region"},
	{"RAY_NODE_ZONE", "ray.io/availability-zone"},
}

// Override lets RAY_OVERRIDE_RESOURCES and RAY_OVERRIDE_LABELS win, name by name, adds the labels that the environment has
// for every node, and reads how large log files become. Doing it twice changes nothing more.
func (c *NodeConfig) Override(getenv func(string) string) error {
	resources, err := objectOf[float64](EnvResources, getenv(EnvResources))
	if err != nil {
		return err
	}
	labels, err := objectOf[string](EnvLabels, getenv(EnvLabels))
	if err != nil {
		return err
	}
	var bad []error
	for name, to := range map[string]**int64{EnvLogMaxBytes: &c.LogMaxBytes, EnvLogBackups: &c.LogBackups} {
		text := getenv(name)
		if text == "" {
			continue
		}
		v, err := strconv.ParseInt(text, 10, 64)
		if err != nil || v < 0 || name == EnvLogBackups && v > 1000 {
			bad = append(bad, fmt.Errorf("%s=%q: want a whole number from 0 on (at most 1000 backups)", name, text))
			continue
		}
		*to = &v
	}
	for _, name := range sortedKeys(resources) {
		v := resources[name]
		switch name {
		case "CPU":
			c.NumCPUs = &v
		case "GPU":
			c.NumGPUs = &v
		case "memory", "object_store_memory":
			if v != math.Trunc(v) || v < 0 || v > 1e15 {
				bad = append(bad, fmt.Errorf("%s: %s = %v: want a whole number of bytes", EnvResources, name, v))
				continue
			}
			bytes := int64(v)
			if name == "memory" {
				c.Memory = &bytes
			} else {
				c.ObjectStoreMemory = &bytes
			}
		default:
			if c.Resources == nil {
				c.Resources = map[string]float64{}
			}
			c.Resources[name] = v
		}
	}
	if labels == nil {
		labels = map[string]string{}
	}
	for _, d := range defaultLabels {
		c.addLabel(labels, d.label, getenv(d.env))
	}
	if c.Resources["TPU"] > 0 { // "v4-16" is 16 chips of kind TPU-V4
		if kind, _, _ := strings.Cut(getenv("TPU_ACCELERATOR_TYPE"), "-"); kind != "" {
			c.addLabel(labels, "ray.io/accelerator-type", "TPU-"+strings.ToUpper(kind))
		}
	}
	if c.Labels == nil {
		c.Labels = labels
	} else {
		maps.Copy(c.Labels, labels)
	}
	return errors.Join(bad...)
}

// addLabel adds a label to m unless m or the configuration has it.
func (c *NodeConfig) addLabel(m map[string]string, key, value string) {
	_, given := c.Labels[key]
	if _, over := m[key]; value != "" && !given && !over {
		m[key] = value
	}
}

func objectOf[V any](name, text string) (map[string]V, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var m map[string]V
	if err := json.Unmarshal([]byte(text), &m); err != nil || m == nil {
		return nil, fmt.Errorf(`%s=%s: want a JSON object such as {"name": 1}`, name, text)
	}
	return m, nil
}
