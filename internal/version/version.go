// Package version says which version this is.
//
// It is stated once, in python/ray/_version.py, so that the command, the daemon, the wheel and ray.__version__ cannot
// disagree. It is Ray's version whose API this is, plus a local part of our own: 2.60.0+gray0.1.0.
package version

import (
	"strings"

	"gray"
)

// Version is what `ray --version` and ray.__version__ say.
var Version = parse(gray.VersionFile)

// parse returns the quoted text of the line `version = "…"`. The file is part of the binary, so a file without that
// line is a broken build and panics.
func parse(file string) string {
	for line := range strings.Lines(file) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), `version = "`); ok {
			if v, ok := strings.CutSuffix(rest, `"`); ok && v != "" {
				return v
			}
		}
	}
	panic("version: python/ray/_version.py has no line: version = \"…\"")
}
