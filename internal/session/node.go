package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gray/internal/core/fault"
	"gray/internal/core/ids"

	"golang.org/x/sys/unix"
)

// NodeFile tells local processes about a daemon that is ready: <session>/nodes/<node id>.json, mode 0600.
type NodeFile struct {
	NodeID            string             `json:"node_id"`
	NodeIP            string             `json:"node_ip"`
	GCSAddress        string             `json:"gcs_address"`
	Socket            string             `json:"socket"`
	PID               int                `json:"pid"`
	StartTime         int64              `json:"start_time"` // see StartTime
	Head              bool               `json:"head"`
	Private           bool               `json:"private"`
	Guest             bool               `json:"guest,omitempty"` // of one driver alone, which joined a cluster by it
	SessionName       string             `json:"session_name"`
	SessionDir        string             `json:"session_dir"`
	TokenFile         string             `json:"token_file"`
	DashboardURL      string             `json:"dashboard_url"`
	MetricsExportPort int                `json:"metrics_export_port"`
	ClientServerPort  int                `json:"ray_client_server_port,omitempty"` // 0: no ray:// clients
	ObjectStoreMemory int64              `json:"object_store_memory"`              // bytes
	NodeName          string             `json:"node_name"`
	Resources         map[string]float64 `json:"resources"`
	Labels            map[string]string  `json:"labels"`
	TLS               string             `json:"tls,omitempty"`      // "off" where --tls=off switched it off
	Warnings          []string           `json:"warnings,omitempty"` // what the user should know of how the node runs
}

// Alive reports whether the daemon that wrote the file is running.
func (n *NodeFile) Alive() bool { return Alive(n.PID, n.StartTime) }

func nodeFileName(id string) string { return filepath.Join("nodes", id+".json") }

// WriteNode announces a daemon that is ready.
func (d *Dir) WriteNode(n NodeFile) error {
	if _, err := ids.ParseNode(n.NodeID); err != nil {
		return &fault.Error{Op: "write node file", Ref: d.Path, Kind: fault.System, Err: err}
	}
	b, err := json.Marshal(n)
	if err != nil {
		return &fault.Error{Op: "write node file", Ref: n.NodeID, Kind: fault.System, Err: err}
	}
	return d.WriteFile(nodeFileName(n.NodeID), append(b, '\n'))
}

// RemoveNode takes the announcement back.
func (d *Dir) RemoveNode(nodeID string) error { return d.Remove(nodeFileName(nodeID)) }

// Nodes are the node files below the root, newest session first, whether their daemons live or not. Files that break the
// rules (foreign, symlinked, readable by others, unreadable) are left out and returned as errors, joined.
func (r *Root) Nodes() ([]NodeFile, error) {
	names, err := r.Sessions()
	if err != nil {
		return nil, err
	}
	var all []NodeFile
	var bad []error
	for _, name := range names {
		nodes, errs := r.sessionNodes(name)
		all = append(all, nodes...)
		bad = append(bad, errs...)
	}
	return all, errors.Join(bad...)
}

// LiveNodes are those of Nodes whose daemons run.
func (r *Root) LiveNodes() ([]NodeFile, error) {
	all, err := r.Nodes()
	return slices.DeleteFunc(all, func(n NodeFile) bool { return !n.Alive() }), err
}

func (r *Root) sessionNodes(name string) (nodes []NodeFile, bad []error) {
	fail := func(err error, path ...string) {
		if !errors.Is(err, os.ErrNotExist) { // gone since it was listed
			ref := filepath.Join(append([]string{r.Path, name}, path...)...)
			bad = append(bad, &fault.Error{Op: "read node file", Ref: ref, Kind: fault.System, Err: err})
		}
	}
	dir, err := openOwnDir(r.fd(), name)
	if err != nil {
		fail(err)
		return nil, bad
	}
	defer dir.Close()
	sub, err := openOwnDir(int(dir.Fd()), "nodes")
	if err != nil {
		fail(err, "nodes")
		return nil, bad
	}
	defer sub.Close()
	files, err := sub.Readdirnames(-1)
	if err != nil {
		fail(err, "nodes")
		return nil, bad
	}
	slices.Sort(files)
	for _, file := range files {
		id, ok := strings.CutSuffix(file, ".json")
		if !ok || strings.HasPrefix(file, ".") {
			continue
		}
		b, err := readFileAt(int(sub.Fd()), file)
		var n NodeFile
		if err == nil {
			err = json.Unmarshal(b, &n)
		}
		if err == nil && n.NodeID != id {
			err = fmt.Errorf("it says that it is about node %q", n.NodeID)
		}
		if err == nil && n.PID <= 0 {
			err = fmt.Errorf("it names process %d", n.PID)
		}
		if err != nil {
			fail(err, "nodes", file)
			continue
		}
		nodes = append(nodes, n)
	}
	return nodes, bad
}

// ForgetNode removes the file and the socket of a node that is dead; one that lives stays and is an error.
func (r *Root) ForgetNode(n NodeFile) error {
	if n.Alive() {
		return &fault.Error{Op: "remove node file", Ref: n.NodeID, Kind: fault.System, Detail: fmt.Sprintf("its daemon runs as process %d", n.PID)}
	}
	if _, err := ids.ParseNode(n.NodeID); err != nil || !ValidName(n.SessionName) {
		return &fault.Error{Op: "remove node file", Ref: n.NodeID, Kind: fault.System, Detail: "session " + n.SessionName, Err: err}
	}
	dir, err := openOwnDir(r.fd(), n.SessionName)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	sub, err := openOwnDir(int(dir.Fd()), "nodes")
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := unix.Unlinkat(int(sub.Fd()), n.NodeID+".json", 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return forgetSocket(dir, filepath.Base(n.Socket))
}

// forgetSocket removes a socket that nobody listens on any more.
func forgetSocket(dir *os.File, name string) error {
	sub, err := openOwnDir(int(dir.Fd()), "sockets")
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := unix.Flock(int(sub.Fd()), unix.LOCK_EX); err != nil { // as Listen; goes with sub
		return err
	}
	var st unix.Stat_t
	if unix.Fstatat(int(sub.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil
	}
	if !stale(sub, name) { // a head that takes a dead one's place listens under its name
		return nil
	}
	if err := unix.Unlinkat(int(sub.Fd()), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// Sessions are the names of the session folders below the root, newest first.
func (r *Root) Sessions() ([]string, error) {
	dir, err := openDir(r.fd(), ".")
	if err != nil {
		return nil, rootError(r.Path, "", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, rootError(r.Path, "", err)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !ValidName(n) })
	slices.Sort(names)
	slices.Reverse(names)
	return names, nil
}

// Clean removes the oldest sessions so that keep stay. One that a process holds is never removed.
func (r *Root) Clean(keep int) error {
	names, err := r.Sessions()
	if err != nil || len(names) <= keep {
		return err
	}
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", r.fd()))
	if err != nil {
		return rootError(r.Path, "", err)
	}
	defer root.Close()
	var bad []error
	for _, name := range names[keep:] {
		if err := r.cleanOne(root, name); err != nil {
			bad = append(bad, &fault.Error{Op: "remove old session", Ref: filepath.Join(r.Path, name), Kind: fault.System, Err: err})
		}
	}
	return errors.Join(bad...)
}

func (r *Root) cleanOne(root *os.Root, name string) error {
	dir, err := openOwnDir(r.fd(), name)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	defer dir.Close() // ends the lock, too
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil // alive
		}
		return err
	}
	return root.RemoveAll(name)
}
