package version

import (
	"regexp"
	"testing"
)

func TestVersionIsRaysPlusOurs(t *testing.T) {
	if !regexp.MustCompile(`^2\.\d+\.\d+\+gray\d+\.\d+\.\d+$`).MatchString(Version) {
		t.Errorf("Version = %q, want Ray's version plus a local part, like 2.60.0+gray0.1.0", Version)
	}
}

func TestParseRefusesAFileWithoutOne(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("parse accepted a file without a version")
		}
	}()
	parse("commit = \"abc\"\n")
}
