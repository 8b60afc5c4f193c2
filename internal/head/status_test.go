package head

import (
	"flag"
	"os"
	"testing"
	"time"

	"gray/internal/core/headstate"
	"gray/internal/core/ids"
)

var rewrite = flag.Bool("rewrite", false, "renew testdata")

func TestStatusText(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 123456000, time.Local)
	row := func(n byte, alive bool) headstate.NodeRow {
		r := headstate.NodeRow{Info: headstate.NodeInfo{ID: ids.NodeID{n}, IP: "10.0.0.1"}, Alive: alive}
		r.Info.Total = headstate.Resources{"CPU": 30000, "node:10.0.0.1": 10000}
		r.Available = headstate.Resources{"CPU": 25000}
		return r
	}
	dead := row(2, false)
	dead.DeathReason, dead.EndMs = headstate.UnexpectedTermination, now.Add(-time.Minute).UnixMilli()
	old := row(3, false)
	old.DeathReason, old.EndMs = headstate.UnexpectedTermination, now.Add(-time.Hour).UnixMilli()
	left := row(4, false)
	left.DeathReason, left.EndMs = headstate.ExpectedTermination, now.UnixMilli()
	for name, tc := range map[string]struct {
		sum     Summary
		verbose bool
	}{
		"empty": {sum: Summary{}},
		"busy": {verbose: true, sum: Summary{
			Nodes: []headstate.NodeRow{row(1, true), dead, old, left, row(5, true)},
			Total: headstate.Resources{
				"CPU": 60000, "foo": 20000, "GPU": 15000, "memory": 10000 * 175033700360 / 10, "object_store_memory": 10000 << 30,
				"node:10.0.0.1": 20000, "node:__internal_head__": 10000,
			},
			Available: headstate.Resources{
				"CPU": 0, "foo": 20000, "GPU": 10000, "memory": 10000 * (175033700360/10 - 100<<20), "object_store_memory": 10000 * (1<<30 - 1000),
			},
			Demands: []headstate.ShapeDemand{
				{Shape: headstate.Resources{"CPU": 5000}, Count: 5},
				{Shape: headstate.Resources{"CPU": 1000000}, Count: 1, Infeasible: true, Reason: "no node has 100 CPU, the largest has 3"},
				{Shape: headstate.Resources{"CPU": 10000, "nope": 20000}, Count: 1, Infeasible: true},
				{Shape: headstate.Resources{"CPU": 10000, "memory": 10000 * 100 << 20}, Count: 1, Reason: "all CPUs are in use"},
			},
			StoreError: "commit 1 changes to head.db: no space left on device",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.sum.Time = now
			got := tc.sum.Status(tc.verbose)
			file := "testdata/status_" + name + ".txt"
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("status is\n%s\nwant\n%s", got, want)
			}
		})
	}
}
