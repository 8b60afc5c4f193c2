// Package gray is the root of the module. It only hands the file that states the version to internal/version: a Go
// program can embed nothing above its own folder.
package gray

import _ "embed"

// VersionFile is the text of python/ray/_version.py.
//
//go:embed python/ray/_version.py
var VersionFile string
