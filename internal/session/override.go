package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
)

// Environment variables that win over what a node is told to have.
const (
	EnvResources = "RAY_OVERRIDE_RESOURCES" // JSON object: name to amount, CPU, GPU, memory and object_store_memory among them
	EnvLabels    = "RAY_OVERRIDE_LABELS"    // JSON object: key to value
)

// Override lets RAY_OVERRIDE_RESOURCES and RAY_OVERRIDE_LABELS win, name by name. Doing it twice changes nothing more.
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
	if c.Labels == nil {
		c.Labels = labels
	} else {
		maps.Copy(c.Labels, labels)
	}
	return errors.Join(bad...)
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
