package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gray/internal/core/engine"
	"gray/internal/core/fault"
	"gray/internal/core/packages"
	"gray/internal/depot"
	"gray/internal/pool"
	"gray/internal/rpc"
	"gray/internal/wire"
)

// environs are the runtime environments that need packages: what of them this node has unpacked, and at the head's node
// the packages themselves.
type environs struct {
	fetch *depot.Fetcher
	store *depot.Store    // nil where the head is elsewhere
	ctx   context.Context //nolint:containedctx // of what is under way until the daemon ends
	stop  context.CancelFunc

	state  *packages.State        // guarded by Node.mu
	limits map[string]*time.Timer // guarded by Node.mu; of environments that are being set up, by key

	sweeping sync.Mutex
	sweep    *time.Timer // guarded by sweeping; when the store is looked through next
	closed   bool        // guarded by sweeping
}

// envCacheVar sets how many GB of unpacked packages a node keeps though nobody uses them.
const (
	envCacheVar     = "RAY_RUNTIME_ENV_WORKING_DIR_CACHE_SIZE_GB"
	envCacheDefault = 10
)

// openEnvirons makes the folders' paths; nothing is on disk before it is needed.
func (n *Node) openEnvirons() error {
	gigabytes := float64(envCacheDefault)
	if text := os.Getenv(envCacheVar); text != "" {
		var err error
		if gigabytes, err = strconv.ParseFloat(text, 64); err != nil || gigabytes < 0 {
			return &fault.Error{Op: "node.start", Kind: fault.System, Ref: envCacheVar, Detail: fmt.Sprintf("%q is not a number of gigabytes", text)}
		}
	}
	e := &n.envs
	e.ctx, e.stop = context.WithCancel(context.Background())
	e.state, e.limits = packages.New(int64(gigabytes*1e9)), map[string]*time.Timer{}
	resources := filepath.Join(n.dir.Path, "runtime_resources")
	e.fetch = &depot.Fetcher{Dir: filepath.Join(resources, n.id.String()[:16])}
	if !n.cfg.Head {
		e.fetch.Head, e.fetch.HeadURL = n.identity.HTTPClient(), "http://"+n.file.GCSAddress+"/packages"
		return nil
	}
	e.fetch.Own = func(name string) (*os.File, error) {
		s, err := n.packageStore()
		if err != nil {
			return nil, err
		}
		return s.Open(name)
	}
	return nil
}

// packageStore is the head's store, opened when it is used first: most clusters never do.
func (n *Node) packageStore() (*depot.Store, error) {
	e := &n.envs
	e.sweeping.Lock()
	defer e.sweeping.Unlock()
	if e.store == nil {
		s, err := depot.OpenStore(n.storeDir())
		if err != nil {
			return nil, err
		}
		e.store = s
		n.sweepLaterLocked()
	}
	return e.store, nil
}

func (n *Node) storeDir() string { return filepath.Join(n.dir.Path, "runtime_resources", "packages") }

// closeEnvirons ends what is under way and removes what this node had unpacked; its workers are gone.
func (n *Node) closeEnvirons() {
	e := &n.envs
	if e.stop == nil {
		return
	}
	e.stop()
	n.mu.Lock()
	for _, t := range e.limits {
		t.Stop()
	}
	n.mu.Unlock()
	e.sweeping.Lock()
	e.closed = true
	if e.sweep != nil {
		e.sweep.Stop()
	}
	e.sweeping.Unlock()
	gone := []string{e.fetch.Dir}
	if n.cfg.Private {
		gone = append(gone, n.storeDir())
	}
	for _, dir := range gone {
		if err := os.RemoveAll(dir); err != nil {
			n.log.Warn("packages of runtime environments stay behind", "err", err)
		}
	}
}

// sweepLaterLocked has the store looked through once packages may have been unused for long.
func (n *Node) sweepLaterLocked() {
	e := &n.envs
	if e.closed || e.sweep != nil {
		return
	}
	e.sweep = time.AfterFunc(depot.Grace+time.Second, n.sweepPackages)
}

// sweepPackages removes packages from the store that no running job needs.
func (n *Node) sweepPackages() {
	e := &n.envs
	e.sweeping.Lock()
	defer e.sweeping.Unlock()
	if e.closed || e.store == nil {
		return
	}
	if e.sweep != nil {
		e.sweep.Stop()
		e.sweep = nil
	}
	ctx, cancel := context.WithTimeout(e.ctx, headTimeout)
	defer cancel()
	inUse, err := n.head.Packages(ctx)
	if err == nil {
		_, err = e.store.Sweep(inUse)
	}
	if err != nil && e.ctx.Err() == nil {
		n.log.Warn("packages of ended jobs could not be removed, trying again later", "err", err)
	}
	n.sweepLaterLocked()
}

// environment is the env map of a template, as far as daemons read it.
type environment struct {
	EnvVars    map[string]string `msgpack:"env_vars"`
	Preload    []string          `msgpack:"preload"`
	WorkingDir string            `msgpack:"working_dir"`
	PyModules  []string          `msgpack:"py_modules"`
	Config     struct {
		Timeout float64 `msgpack:"setup_timeout_seconds"`
	} `msgpack:"config"`
}

// uris are its packages.
func (v *environment) uris() []string {
	uris := slices.Clone(v.PyModules)
	if v.WorkingDir != "" {
		uris = append(uris, v.WorkingDir)
	}
	return uris
}

// readEnv reads a template's or a job's environment.
func readEnv(raw wire.Raw) (v environment, err error) {
	if len(raw) == 0 || raw[0] == 0xc0 {
		return v, nil
	}
	return v, wire.Unmarshal(raw, &v)
}

// packageNames are those of the environment that the head's store has.
func (v *environment) packageNames() []string {
	var names []string
	for _, uri := range v.uris() {
		if name, ok := depot.NameOf(uri); ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// forkedWith is TemplateSpec.Preload: modules, and variables that act only on a program that starts with them.
func (v *environment) forkedWith() string {
	parts := []string{strings.Join(v.Preload, ",")}
	for name, value := range v.EnvVars {
		if pool.ExecOnly(name) {
			parts = append(parts, name+"="+expand(value))
		}
	}
	slices.Sort(parts[1:])
	return strings.Join(parts, "\x00")
}

// expand puts this daemon's variables, which are its workers', for ${NAME} and $NAME; one that is not there is empty.
func expand(value string) string {
	if !strings.Contains(value, "$") {
		return value
	}
	return os.Expand(value, os.Getenv)
}

// forkSpec reads it back.
func forkSpec(spec string) (modules []string, variables map[string]string) {
	parts := strings.Split(spec, "\x00")
	if parts[0] != "" {
		modules = strings.Split(parts[0], ",")
	}
	for _, kv := range parts[1:] {
		if variables == nil {
			variables = map[string]string{}
		}
		name, value, _ := strings.Cut(kv, "=")
		variables[name] = value
	}
	return modules, variables
}

// needs is what TemplateSpec.Packages says: the same text for environments with the same packages.
type needs struct {
	URIs    []string
	Timeout float64 `json:",omitempty"` // seconds; 0 = the default, -1 = none
}

// setupTimeout is how long the set-up of an environment may take that does not say so itself.
const setupTimeout = 600 * time.Second

// packagesKey is TemplateSpec.Packages.
func (v *environment) packagesKey() (string, error) {
	uris := v.uris()
	if len(uris) == 0 {
		return "", nil
	}
	b, err := json.Marshal(needs{uris, v.Config.Timeout})
	return string(b), err
}

// PrepareEnv has an environment's packages unpacked; the caller holds the lock.
func (s *sink) PrepareEnv(key string) {
	n := s.n
	var need needs
	if err := json.Unmarshal([]byte(key), &need); err != nil {
		panic("node: an environment's packages cannot be read: " + err.Error()) // packagesKey wrote them
	}
	timeout := setupTimeout
	if need.Timeout > 0 {
		timeout = time.Duration(need.Timeout * float64(time.Second))
	}
	if need.Timeout >= 0 {
		n.envs.limits[key] = time.AfterFunc(timeout, func() { n.envLate(key, timeout) })
	}
	n.carryPackages(n.envs.state.Want(key, need.URIs))
}

// DropEnv gives them up; the caller holds the lock.
func (s *sink) DropEnv(key string) { s.n.carryPackages(s.n.envs.state.Drop(key)) }

// envLate gives up an environment whose set-up takes too long. A package that is on its way is kept when it comes.
func (n *Node) envLate(key string, after time.Duration) {
	n.locked(func(e *engine.Engine) {
		if n.envs.limits[key] == nil {
			return
		}
		delete(n.envs.limits, key)
		n.carryPackages(n.envs.state.Drop(key))
		e.EnvFailed(key, n.envText(fmt.Sprintf("its set-up took longer than setup_timeout_seconds=%g; set a larger one in runtime_env['config']", after.Seconds())))
	})
}

func (n *Node) envText(why string) string {
	return fmt.Sprintf("[Node %s] %s", n.ip, why)
}

// carryPackages does what core/packages decided; the caller holds the lock.
func (n *Node) carryPackages(effects []packages.Effect) {
	for _, effect := range effects {
		switch x := effect.(type) {
		case packages.Fetch:
			n.spawn(func() { n.fetchPackage(x.URI) })
		case packages.Remove:
			n.spawn(func() { n.removePackage(x.URI) })
		case packages.Ready:
			n.envDone(x.Key, func(e *engine.Engine) { e.EnvReady(x.Key) })
		case packages.Failed:
			n.envDone(x.Key, func(e *engine.Engine) { e.EnvFailed(x.Key, n.envText(x.Why)) })
		}
	}
}

// envDone tells the engine of an environment's set-up, once it has gone on from what it was doing.
func (n *Node) envDone(key string, tell func(*engine.Engine)) {
	if t := n.envs.limits[key]; t != nil {
		t.Stop()
		delete(n.envs.limits, key)
	}
	n.after = append(n.after, func() { n.locked(tell) })
}

func (n *Node) fetchPackage(uri string) {
	size, err := n.envs.fetch.Fetch(n.envs.ctx, uri)
	why := ""
	if err != nil {
		if why = err.Error(); n.envs.ctx.Err() == nil {
			n.log.Warn("a package of a runtime environment could not be set up", "uri", uri, "err", err)
		}
	}
	n.locked(func(*engine.Engine) { n.carryPackages(n.envs.state.Fetched(uri, size, why)) })
}

func (n *Node) removePackage(uri string) {
	if err := n.envs.fetch.Remove(uri); err != nil {
		n.log.Warn("a package that nobody uses could not be removed", "uri", uri, "err", err)
	}
	n.locked(func(*engine.Engine) { n.carryPackages(n.envs.state.Removed(uri)) })
}

// enter fills in where a worker finds its environment's packages.
func (n *Node) enter(m *wire.Setup, raw string) {
	env, err := readEnv(wire.Raw(raw))
	if err != nil {
		n.log.Warn("a runtime environment could not be read", "err", err)
		return
	}
	m.RuntimeEnv = wire.Raw(raw)
	if env.WorkingDir != "" {
		m.WorkingDir = n.envs.fetch.Path(env.WorkingDir)
	}
	for _, uri := range env.PyModules {
		if path := n.envs.fetch.Path(uri); !slices.Contains(m.PyModules, path) {
			m.PyModules = append(m.PyModules, path)
		}
	}
}

// jobPackages are the names of the packages of a job's environment, and of a template's.
func (n *Node) jobPackages(job, template wire.Raw) []string {
	var names []string
	add := func(raw wire.Raw) {
		env, err := readEnv(raw)
		if err != nil {
			n.log.Warn("a runtime environment could not be read", "err", err)
		}
		names = append(names, env.packageNames()...)
	}
	if j, err := wire.DecodeJob(job); err == nil {
		add(j.RuntimeEnv)
	}
	if len(template) > 0 {
		if m, err := wire.DecodeSpec(template); err == nil {
			add(m.Env)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// uploadTimeout bounds what a client waits for its package to be at the head.
const uploadTimeout = 10 * time.Minute

// packageCall answers package_has, package_part and package_put, which need the disk and maybe the head; the caller holds
// the lock.
func (n *Node) packageCall(cl *client, ch engine.Chan, req uint32, method string, a *callArgs) error {
	name := a.Name
	if !depot.ValidName(name) {
		return protocolError(method, fmt.Sprintf("%q is not a package's name", name))
	}
	path, sent := a.Path, ""
	if path == "" && method != "package_has" { // it comes, or came, in parts
		sent = filepath.Join(n.dir.Path, "runtime_resources", fmt.Sprintf("upload-%x.part", cl.key))
		path, cl.upload = sent, sent
	}
	value, first := slices.Clone(a.Value), a.Index == 0
	n.spawn(func() {
		ctx, cancel := context.WithTimeout(n.envs.ctx, uploadTimeout)
		defer cancel()
		var v map[string]any
		var err error
		switch method {
		case "package_has":
			var has bool
			has, err = n.hasPackage(ctx, name)
			v = map[string]any{"has": has}
		case "package_part":
			err = addPart(path, value, first)
			v = map[string]any{}
		default:
			err = n.putPackage(ctx, name, path)
			v = map[string]any{}
			if sent != "" {
				err = errors.Join(err, os.Remove(sent))
			}
		}
		n.locked(func(*engine.Engine) {
			if err != nil {
				(&sink{n}).Fail(ch, req, fault.RuntimeEnv, err.Error())
				return
			}
			(&sink{n}).reply(ch, req, v)
		})
	})
	return nil
}

// maxUpload bounds what a client may leave on the disk that is no package yet, in bytes.
const maxUpload = 1 << 30

// addPart appends to the archive that a client without a folder in common with this daemon sends.
func addPart(path string, part []byte, first bool) error {
	flags := os.O_WRONLY | os.O_APPEND
	if first {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		flags |= os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return err
	}
	if st, err := f.Stat(); err != nil || st.Size()+int64(len(part)) > maxUpload {
		return errors.Join(fmt.Errorf("the archive has over %d bytes", maxUpload), err, f.Close())
	}
	_, err = f.Write(part)
	return errors.Join(err, f.Close())
}

func (n *Node) hasPackage(ctx context.Context, name string) (bool, error) {
	if n.head == nil {
		return n.envs.fetch.Has(ctx, name)
	}
	s, err := n.packageStore()
	if err != nil {
		return false, err
	}
	return s.Has(name), nil
}

func (n *Node) putPackage(ctx context.Context, name, path string) error {
	if n.head == nil {
		return n.envs.fetch.Upload(ctx, name, path)
	}
	s, err := n.packageStore()
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = s.Put(name, f)
	n.sweepPackages()
	return errors.Join(err, f.Close())
}

// packageRoutes serves the head's store of packages to other daemons.
func (n *Node) packageRoutes(mux *rpc.Mux) {
	serve := func(w http.ResponseWriter, r *http.Request) {
		s, err := n.packageStore()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		s.ServeHTTP(w, r)
		if r.Method == http.MethodPut {
			n.sweepPackages()
		}
	}
	mux.HandleFunc("GET /packages/{name}", rpc.Node, serve)
	mux.HandleFunc("PUT /packages/{name}", rpc.Node, serve)
}
