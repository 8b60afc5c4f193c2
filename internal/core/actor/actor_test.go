package actor

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestStatesDoc compares docs/states.md with the table.
func TestStatesDoc(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/states.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(doc), "<!-- actors -->\n")
	table, _, ok2 := strings.Cut(rest, "<!-- end -->")
	if !ok || !ok2 {
		t.Fatal("docs/states.md has no table of actors")
	}
	seen := 0
	for _, line := range strings.Split(strings.TrimSpace(table), "\n")[2:] {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if len(cells) != 3 {
			t.Fatalf("line %q has %d cells, want 3", line, len(cells))
		}
		seen++
		from := State(cells[0])
		for to := range next {
			if to == "" {
				continue
			}
			if says := slices.Contains(strings.Split(cells[2], ", "), string(to)); says != from.CanGo(to) {
				t.Errorf("%s to %s: the document says %v, the code %v", from, to, says, from.CanGo(to))
			}
		}
		if _, ok := next[from]; !ok || !State("").CanGo(from) {
			t.Errorf("%q is no state", from)
		}
	}
	if seen != len(next)-1 {
		t.Errorf("the document has %d states, the code %d", seen, len(next)-1)
	}
}
