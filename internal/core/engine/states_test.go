package engine

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "renew docs/states.md from the tables")

const statesDoc = "../../../docs/states.md"

// table is a transition table as it stands in the document.
func table[S interface {
	comparable
	fmt.Stringer
}](next [][]S, states []S, means map[string]string) string {
	var b strings.Builder
	b.WriteString("| state | means | may become |\n| --- | --- | --- |\n")
	for k, s := range states {
		var to []string
		for _, n := range next[k] {
			to = append(to, n.String())
		}
		if len(to) == 0 {
			to = []string{"–"}
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", s, means[s.String()], strings.Join(to, ", "))
	}
	return b.String()
}

func upTo[S ~uint8](n int) []S {
	l := make([]S, n)
	for k := range l {
		l[k] = S(k)
	}
	return l
}

// TestStatesDocument compares the tables in docs/states.md with those that the engine obeys. After a change:
//
//	go test ./internal/core/engine -run TestStatesDocument -rewrite
func TestStatesDocument(t *testing.T) {
	b, err := os.ReadFile(statesDoc)
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)
	for name, want := range map[string]string{
		"tasks": table(taskNext[:], upTo[taskState](len(taskNext)), map[string]string{
			"NIL":                     "there is no record: not submitted yet, or ended",
			"PENDING_ARGS_AVAIL":      "at its owner: some argument is not ready",
			"PENDING_NODE_ASSIGNMENT": "at its owner, in the queue of its job and shape: waits for a slot on some node",
			"AWAY":                    "at its owner: sent to another node",
			"HELD":                    "at the node that will run it: sent ahead, has no slot yet",
			"PENDING_ARGS_FETCH":      "has a slot; waits for room or for arguments to be copied here",
			"PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY": "an actor's call, its arguments are ready: waits behind the caller's earlier calls, for room at the actor, or for the actor",
			"PENDING_WORKER":      "has a slot and its arguments; waits for a worker process",
			"SUBMITTED_TO_WORKER": "sent to a worker, which may be running it",
		}),
		"objects": table(objNext[:], upTo[objState](len(objNext)), map[string]string{
			"UNKNOWN":   "another daemon's; its owner has not told anything yet",
			"PENDING":   "its task has not ended",
			"CREATING":  "a client writes it into the arena",
			"INLINE":    "ready; the value is in the daemon's memory",
			"ARENA":     "ready; the bytes are in this node's arena",
			"ELSEWHERE": "ready; the bytes are in arenas of other nodes only",
			"FETCHING":  "ready; the bytes are being copied here",
		}),
		"workers": table(workNext[:], upTo[workState](len(workNext)), map[string]string{
			"STARTING": "asked for; no process yet",
			"BLANK":    "forked, for no job yet",
			"IDLE":     "of a job, without a task",
			"BUSY":     "of a job, with tasks; blocked or not is a mark beside",
			"LEAVING":  "told to leave, or killed; gone with its process",
		}),
	} {
		start, end := "<!-- "+name+" -->\n", "<!-- end -->"
		i := strings.Index(doc, start)
		if i < 0 {
			t.Errorf("%s has no place for the table of %s", statesDoc, name)
			continue
		}
		i += len(start)
		n := strings.Index(doc[i:], end)
		if n < 0 {
			t.Fatalf("the table of %s in %s has no end", name, statesDoc)
		}
		if doc[i:i+n] != want && !*rewrite {
			t.Errorf("the table of %s in %s is not the engine's; renew it with -rewrite. Want\n%s", name, statesDoc, want)
		}
		doc = doc[:i] + want + doc[i+n:]
	}
	if *rewrite {
		if err := os.WriteFile(statesDoc, []byte(doc), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
