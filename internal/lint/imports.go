package lint

import (
	"fmt"
	"slices"
	"strings"
)

// Layer says what the packages at and below a folder may import of the module. The first layer that matches counts.
type Layer struct {
	Dir    string
	May    []string // folders, each with what is below it
	Std    []string // if not nil: the only packages outside the module that it may import
	Reason string
}

// pure are the standard packages that compute and do nothing else.
var pure = []string{
	"bytes", "cmp", "container/heap", "container/list", "encoding/binary", "encoding/hex", "errors", "fmt", "hash/crc32",
	"hash/fnv", "hash/maphash", "iter", "maps", "math", "math/bits", "slices", "sort", "strconv", "strings", "time",
	"unicode/utf8", "unsafe",
}

// Layers is the folder map as rules: imports point down it.
var Layers = []Layer{
	{"internal/core", []string{"internal/core"}, pure, "the core decides and does nothing else, so that the simulator can drive it"},
	{"internal/version", []string{""}, nil, "the version is read from the root package"},
	{"internal/lint", nil, nil, "rules look at files, not at packages"},
	{"internal/state", nil, nil, "tables are spoken by every part, from the daemon to the commands"},
	{"internal/machine", []string{"internal/core/fault"}, nil, "facts of the machine; everything may ask for them"},
	{"internal/wire", []string{"internal/core/ids", "internal/core/fault", "internal/core/resource"}, nil, "frames are spoken by clients too, which have no core: only its plain values"},
	{"internal/session", []string{"internal/core/ids", "internal/core/fault", "internal/machine", "internal/version"}, nil, "files of a session, read by every command"},
	{"internal/rpc", []string{"internal/core/ids", "internal/core/fault", "internal/session", "internal/version", "internal/machine"}, nil, "who may call, on what connection; what is said there is others' business"},
	{"internal/arena", []string{"internal/core", "internal/machine"}, nil, "memory knows no network and no client"},
	{"internal/transfer", []string{"internal/core", "internal/arena", "internal/rpc", "internal/machine", "internal/wire"}, nil, "bytes between arenas"},
	{"internal/link", []string{"internal/core", "internal/wire", "internal/rpc", "internal/machine"}, nil, "messages between daemons; what they mean is the core's business"},
	{"internal/relay", []string{"internal/core", "internal/wire", "internal/link"}, nil, "a driver's frames over a link; what they mean is the daemon's business"},
	{"internal/depot", []string{"internal/core/fault"}, nil, "packages on disk and on their way; who keeps which is the core's business"},
	{"internal/pool", []string{"internal/core", "internal/wire", "internal/session", "internal/machine"}, nil, "processes; what runs in them is the core's business"},
	{"internal/head", []string{"internal/core", "internal/state", "internal/wire", "internal/rpc", "internal/session", "internal/machine", "internal/version"}, nil, "the head role does not know the node it runs beside"},
	{"internal/logfile", []string{"internal/core/fault"}, nil, "files that grow; what stands in them is others' business"},
	{"internal/sim", []string{"internal/core", "internal/wire"}, nil, "a simulation runs the core, never a shell around it"},
	{"internal/node", []string{"internal"}, nil, "the shell around the core; may use every part below it"},
	{"internal/api", []string{"internal"}, nil, "a face over node and head"},
	{"internal/kube/client", nil, nil, "speaks with an API server; what is said is others' business"},
	{"internal/kube/cluster", []string{"internal/kube/client", "deploy"}, nil, "a cluster seen from a user's machine: through Kubernetes alone"},
	{"internal/kube", []string{"internal"}, nil, "a face over node and head, and who a pod is"},
	{"deploy", nil, nil, "files, built into the program"},
	{"ray", []string{"ray", "internal/wire", "internal/core/ids", "internal/core/fault", "internal/session", "internal/version"}, nil, "the Go SDK is a client: it speaks the protocol"},
	{"cmd", []string{"internal", "cmd", "deploy", ""}, nil, "flags in, calls out"},
	{"bench", []string{"internal"}, nil, "measures any part"},
	{"test", []string{"internal", "test"}, nil, "tests any part"},
}

// upward are imports that a folder's broad permission would allow and the map does not: from, to, reason.
var upward = [][3]string{
	{"internal", "cmd", "nothing imports a command"},
	{"internal", "internal/lint", "rules are no part of the program"},
	{"cmd", "internal/lint", "rules are no part of the program"},
	{"internal/node", "internal/sim", "the daemon does not simulate"},
	{"internal/node", "internal/api", "faces lie over the node, not under it"},
	{"internal/node", "internal/kube", "faces lie over the node, not under it"},
}

// within says whether a folder is dir or below it. The root package is only itself.
func within(folder, dir string) bool {
	return folder == dir || dir != "" && strings.HasPrefix(folder, dir+"/")
}

// CheckImports returns what the file imports against the map, one line each. Tests may import more from outside the
// module (test libraries), and their own package's test helpers.
func CheckImports(f *File) []string {
	dir := f.Dir()
	if dir == "" {
		return nil // the root package: its own rule is that it is tiny
	}
	i := slices.IndexFunc(Layers, func(l Layer) bool { return within(dir, l.Dir) })
	if i < 0 {
		return []string{fmt.Sprintf("%s: folder %s is not in internal/lint's Layers: add a line that says what it may import, and why", f.Path, dir)}
	}
	layer := Layers[i]
	var bad []string
	for _, name := range f.Imports {
		ours, isOurs := strings.CutPrefix(name+"/", Module+"/")
		ours = strings.TrimSuffix(ours, "/")
		switch {
		case !isOurs:
			if layer.Std != nil && !f.Test && !slices.Contains(layer.Std, name) {
				bad = append(bad, fmt.Sprintf("%s imports %q: %s. Move what needs it into a shell, or make it an effect", f.Path, name, layer.Reason))
			}
		case ours == dir:
			// an external test of the package itself
		case !slices.ContainsFunc(layer.May, func(d string) bool { return within(ours, d) }) && !within(ours, layer.Dir):
			bad = append(bad, fmt.Sprintf("%s imports %q, which %s may not: %s", f.Path, name, layer.Dir, layer.Reason))
		default:
			for _, rule := range upward {
				if within(dir, rule[0]) && within(ours, rule[1]) {
					bad = append(bad, fmt.Sprintf("%s imports %q: %s", f.Path, name, rule[2]))
				}
			}
		}
	}
	return bad
}
