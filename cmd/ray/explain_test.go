package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"gray/internal/rpc"
)

// smallExplain explains one task, and does not know any other.
func smallExplain(mux *rpc.Mux) {
	mux.HandleFunc("GET /api/v0/explain/{id}", rpc.Token, func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") != strings.Repeat("a", 48) {
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, `{"result":false,"msg":"the tables are upset","data":{}}`)
			return
		}
		fmt.Fprint(w, `{"result":true,"msg":"","data":{"report":{"kind":"task","state":"RUNNING"},"text":"task f: RUNNING\n  it runs\n"}}`)
	})
}

func TestExplainCommand(t *testing.T) {
	s := newShell(t)
	s.head()
	id := strings.Repeat("a", 48)
	if out := s.must("explain", id); out != "task f: RUNNING\n  it runs\n" {
		t.Errorf("text: %q", out)
	}
	if out := s.must("explain", id, "--format=json"); out != "{\n  \"kind\": \"task\",\n  \"state\": \"RUNNING\"\n}\n" {
		t.Errorf("json: %q", out)
	}
	for _, tc := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"explain"}, 2, "Error: Missing argument 'ID': the id of a task, an object or an actor."},
		{[]string{"explain", id, "x"}, 2, "Error: Got unexpected extra argument (x)"},
		{[]string{"explain", "xyz"}, 2, `Invalid value for 'ID': "xyz" is not the id of a task (48 hexadecimal digits)`},
		{[]string{"explain", id, "--format=yaml"}, 2, "'--format'"},
		{[]string{"explain", strings.Repeat("b", 48)}, 1, "the tables are upset"},
	} {
		out, status := s.ray(tc.args...)
		if status != tc.status {
			t.Errorf("%v: status %d", tc.args, status)
		}
		contains(t, out, tc.want)
	}
}
