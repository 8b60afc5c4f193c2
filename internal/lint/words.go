package lint

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// MaxLines is how long a file of source may be before it asks to be two.
const MaxLines = 800

// Word is something that no file of the project says.
type Word struct {
	Match  *regexp.Regexp
	Except []string // paths where it is meant
	Reason string
}

// Words is the table. Patterns are written so that they do not match themselves.
var Words = []Word{
	{
		regexp.MustCompile(`(?i)proxy\.golang\.or[g]|sum\.golang\.or[g]|pypi\.or[g]|pythonhosted\.or[g]|registry\.npmjs\.or[g]`), nil,
		"a package is named by its name; where it comes from is the machine's business",
	},
	{
		regexp.MustCompile(`(^|[^a-zA-Z0-9_.])/(work|farm)/[a-z]|/roo[t]/\.|/home/[a-z]+/(src|go|dev)`), nil,
		"a path of one machine",
	},
	{
		regexp.MustCompile(`\bpkil[l]\b|\bkillal[l]\b`), nil,
		"processes are ended by the id that we started, never by a name that others may have too",
	},
	{
		regexp.MustCompile(`\b[Ii]ssue #?[0-9]`), nil,
		"the project speaks of itself alone: say the reason, not where it was discussed",
	},
	{
		regexp.MustCompile(`\.\./share[d]`),
		[]string{"Makefile"},
		"a folder beside the checkout, which others do not have",
	},
}

// unread are files whose words are not ours.
var unread = []string{"LICENSE", "go.sum"}

// CheckWords returns the forbidden words in a file's text, one line each. Binary files are passed over.
func CheckWords(path string, text []byte) []string {
	if slices.Contains(unread, path) || bytes.IndexByte(text[:min(len(text), 8192)], 0) >= 0 {
		return nil
	}
	var bad []string
	for _, w := range Words {
		if slices.Contains(w.Except, path) {
			continue
		}
		if at := w.Match.FindIndex(text); at != nil {
			line := 1 + bytes.Count(text[:at[0]], []byte("\n"))
			bad = append(bad, fmt.Sprintf("%s:%d says %q: %s", path, line, strings.TrimSpace(string(text[at[0]:at[1]])), w.Reason))
		}
	}
	return bad
}

// CheckLength returns a line if a source file is too long.
func CheckLength(path string, text []byte) []string {
	if !slices.ContainsFunc([]string{".go", ".py", ".ts", ".tsx", ".sh"}, func(ext string) bool { return strings.HasSuffix(path, ext) }) {
		return nil
	}
	if bytes.Contains(text[:min(len(text), 1024)], []byte("DO NOT EDIT")) {
		return nil
	}
	if n := bytes.Count(text, []byte("\n")); n > MaxLines {
		return []string{fmt.Sprintf("%s has %d lines, more than %d: it wants to be two files, one idea each", path, n, MaxLines)}
	}
	return nil
}
