package sim

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"testing"
)

var scripts = flag.String("scripts", "testdata/scripts.jsonl", "file of scripts: what test/metamorphic/scripts.py writes")

// TestScripts plays programs whose answers do not depend on when things happen, on one node and on three, with delays and
// broken links by seed: the answers must be those of the sequential model, and in the end nothing is left.
func TestScripts(t *testing.T) {
	f, err := os.Open(*scripts)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var sum Stats
	played := 0
	in := bufio.NewScanner(f)
	in.Buffer(nil, 64<<20)
	for in.Scan() {
		var s struct {
			Seed    uint64
			Program json.RawMessage
			Answers map[string]any
		}
		if err := json.Unmarshal(in.Bytes(), &s); err != nil {
			t.Fatal(err)
		}
		for _, nodes := range []int{1, 3} {
			w := New(Scripted(s.Seed, nodes))
			if *trace && s.Seed == *one {
				w.trace = os.Stdout
			}
			if *one != 0 && s.Seed != *one {
				continue
			}
			got, err := w.Play(s.Program)
			if err != nil {
				t.Errorf("script %d on %d nodes: %v", s.Seed, nodes, err)
				continue
			}
			for _, id := range sorted(s.Answers) {
				if want, have := asJSON(t, s.Answers[id]), asJSON(t, got[id]); want != have {
					t.Errorf("script %d on %d nodes: %s gives %s, want %s", s.Seed, nodes, id, have, want)
				}
			}
			if len(got) != len(s.Answers) {
				t.Errorf("script %d on %d nodes: %d answers, want %d", s.Seed, nodes, len(got), len(s.Answers))
			}
			sum.add(&w.Stats)
			played++
		}
	}
	if err := in.Err(); err != nil || played == 0 {
		t.Fatal("no script was played: ", err)
	}
	t.Logf("%d played: %s", played, fmt.Sprintf("%+v", sum))
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
