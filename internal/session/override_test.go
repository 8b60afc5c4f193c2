package session

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
)

func TestOverride(t *testing.T) {
	for _, tc := range []struct {
		name, config, resources, labels, want, fails string
		env                                          map[string]string
	}{
		{name: "nothing set", config: `{"num_cpus":1}`, want: `{"num_cpus":1}`},
		{
			name: "name by name", config: `{"num_cpus":1,"resources":{"a":3,"c":3}}`, resources: `{"a":1,"b":2,"CPU":3,"GPU":1}`,
			want: `{"num_cpus":3,"num_gpus":1,"resources":{"a":1,"b":2,"c":3}}`,
		},
		{
			name: "bytes", config: `{}`, resources: `{"memory":1000,"object_store_memory":80000000}`,
			want: `{"memory":1000,"object_store_memory":80000000}`,
		},
		{name: "labels", config: `{"labels":{"a":"1","b":"1"}}`, labels: `{"b":"2"}`, want: `{"labels":{"a":"1","b":"2"}}`},
		{name: "labels alone", config: `{}`, labels: `{"b":"2"}`, want: `{"labels":{"b":"2"}}`},
		{
			name: "labels of every node", config: `{"resources":{"TPU":4},"labels":{"ray.io/availability-zone":"mine"}}`,
			labels: `{"ray.io/node-group":"over"}`,
			env: map[string]string{
				"RAY_NODE_MARKET_TYPE": "spot", "RAY_NODE_TYPE_NAME": "workers", "RAY_NODE_REGION": "eu", "RAY_NODE_ZONE": "eu-1",
				"TPU_ACCELERATOR_TYPE": "v4-16",
			},
			want: `{"resources":{"TPU":4},"labels":{"ray.io/market-type":"spot","ray.io/node-group":"over","ray.io/availability-region":"eu",` +
				`"ray.io/availability-zone":"mine","ray.io/accelerator-type":"TPU-V4"}}`,
		},
		{name: "no TPU", config: `{}`, env: map[string]string{"TPU_ACCELERATOR_TYPE": "v4-16"}, want: `{}`},
		{name: "no JSON", config: `{}`, resources: `CPU=1`, fails: "RAY_OVERRIDE_RESOURCES=CPU=1: want a JSON object"},
		{name: "null", config: `{}`, labels: `null`, fails: "RAY_OVERRIDE_LABELS=null: want a JSON object"},
		{name: "half a byte", config: `{}`, resources: `{"memory":0.5}`, fails: "memory = 0.5: want a whole number of bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got, want NodeConfig
			if err := json.Unmarshal([]byte(tc.config), &got); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(tc.want), &want); err != nil && tc.fails == "" {
				t.Fatal(err)
			}
			env := map[string]string{EnvResources: tc.resources, EnvLabels: tc.labels}
			maps.Copy(env, tc.env)
			for range 2 {
				err := got.Override(func(name string) string { return env[name] })
				if tc.fails != "" {
					if err == nil || !strings.Contains(err.Error(), tc.fails) {
						t.Fatalf("error %v, want %q in it", err, tc.fails)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				is, _ := json.Marshal(got)
				should, _ := json.Marshal(want)
				if string(is) != string(should) {
					t.Errorf("%s, want %s", is, should)
				}
			}
		})
	}
}
