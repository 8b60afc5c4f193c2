package api

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"gray/internal/core/explain"
	"gray/internal/core/fault"
	"gray/internal/rpc"
)

func TestExplain(t *testing.T) {
	c := serve(t, State, Config{Cluster: fakeCluster{}, Explain: func(_ context.Context, id string) (*explain.Report, error) {
		switch id {
		case "task":
			return &explain.Report{Kind: explain.Task, ID: "ab", State: "RUNNING", Why: "it is running"}, nil
		case "bad":
			return nil, &fault.Error{Op: "explain", Kind: fault.NotFound, Detail: "no id"}
		}
		return nil, errors.New("broken")
	}}, rpc.NoBrowsers)
	status, body := c.get("/api/v0/explain/task")
	var a struct {
		Result bool
		Data   struct {
			Report explain.Report
			Text   string
		}
	}
	if err := json.Unmarshal([]byte(body), &a); err != nil || status != 200 || !a.Result || a.Data.Report.Why != "it is running" || !strings.HasPrefix(a.Data.Text, "task (ab): RUNNING\n") {
		t.Errorf("%d %v: %s", status, err, body)
	}
	for id, want := range map[string]int{"bad": 400, "broken": 500} {
		if status, body := c.get("/api/v0/explain/" + id); status != want || !strings.Contains(body, `"result":false`) {
			t.Errorf("%s: %d %s", id, status, body)
		}
	}
}

// A daemon without the means says so.
func TestNothingToExplainWith(t *testing.T) {
	c := serve(t, State, Config{Cluster: fakeCluster{}}, rpc.NoBrowsers)
	if status, _ := c.get("/api/v0/explain/task"); status != 404 {
		t.Errorf("status %d", status)
	}
}
