package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
)

// Raw is encoded msgpack that is passed on as it came. Empty means nil.
type Raw = msgpack.RawMessage

const magic = "GRAY"

// Roles of HELLO.
const (
	RoleDriver        = "driver"
	RoleChannel       = "channel"
	RoleWorkerChannel = "worker-channel"
)

// Hello is a connection's first frame.
type Hello struct {
	Version uint16 `msgpack:"-"`

	Role  string `msgpack:"role"`
	Py    string `msgpack:"py"`  // Python minor version: "3.11"
	Ray   string `msgpack:"ray"` // version text of the SDK
	PID   int    `msgpack:"pid"`
	Nonce []byte `msgpack:"nonce,omitempty"` // NonceSize bytes
	Cred  []byte `msgpack:"cred,omitempty"`  // HMAC-SHA256(token, "gray-client-v1" | nonce), CredSize bytes

	Job     Raw    `msgpack:"job,omitempty"`     // of a driver; see DecodeJob
	Session []byte `msgpack:"session,omitempty"` // of a channel: SessionSize bytes
	Chan    uint32 `msgpack:"chan,omitempty"`    // of a channel
}

// DecodeHello reads HELLO's body. If only the protocol version differs from ours it returns a Hello with that Version and
// nothing else, and no error: the caller refuses it with both versions.
func DecodeHello(body []byte) (Hello, error) {
	var h Hello
	c := cursor{b: body}
	if m := c.take(uint64(len(magic)), "magic"); string(m) != magic {
		return h, malformed(KindHello, "does not start with the magic")
	}
	h.Version = c.u16("protocol version")
	if err := c.tail(KindHello); err != nil {
		return h, err
	}
	if h.Version != Version {
		return h, nil
	}
	if err := unmarshalMap(KindHello, c.b, &h); err != nil {
		return h, err
	}
	switch h.Role {
	case RoleDriver, RoleChannel, RoleWorkerChannel:
	default:
		return h, malformed(KindHello, "unknown role")
	}
	for _, f := range []struct {
		name string
		b    []byte
		size int
	}{{"nonce", h.Nonce, NonceSize}, {"cred", h.Cred, CredSize}, {"session", h.Session, SessionSize}} {
		if len(f.b) != 0 && len(f.b) != f.size {
			return h, malformed(KindHello, fmt.Sprintf("%s has %d bytes, want %d", f.name, len(f.b), f.size))
		}
	}
	return h, nil
}

// AppendHello appends the frame.
func AppendHello(b []byte, h *Hello) ([]byte, error) {
	at := len(b)
	b = append(begin(b, KindHello), magic...)
	b = binary.LittleEndian.AppendUint16(b, h.Version)
	return finishMap(b, at, h)
}

// finishMap appends v as msgpack to the frame that started at at, and ends it.
func finishMap(b []byte, at int, v any) ([]byte, error) {
	m, err := Marshal(v)
	if err != nil {
		return b[:at], err
	}
	return finish(append(b, m...), at, 0)
}

// Job is what a driver says of its job. The fields of type Raw are read with Unmarshal; all that is not here is carried in Hello.Job as it came.
type Job struct {
	Namespace  string   `msgpack:"namespace"`
	SysPath    []string `msgpack:"sys_path"`
	Cwd        string   `msgpack:"cwd"`
	Entrypoint string   `msgpack:"entrypoint"`
	Logging    Raw      `msgpack:"logging"`
	Metadata   Raw      `msgpack:"metadata"`
	RuntimeEnv Raw      `msgpack:"runtime_env"`
	DriverNode []byte   `msgpack:"driver_node"` // added by the driver's daemon: the node id
}

// DecodeJob reads Hello.Job.
func DecodeJob(raw Raw) (Job, error) {
	var j Job
	if len(raw) == 0 {
		return j, nil
	}
	return j, Unmarshal(raw, &j)
}

// JobAt is a driver's Hello.Job with the node that the driver is on, as other nodes and workers are told it.
func JobAt(raw Raw, node ids.NodeID) (Raw, error) {
	m := map[string]Raw{}
	if len(raw) > 0 {
		if err := Unmarshal(raw, &m); err != nil {
			return nil, err
		}
	}
	id, err := Marshal(node[:])
	if err != nil {
		return nil, err
	}
	m["driver_node"] = id
	return Marshal(m)
}

// welcomeMap is Welcome as it travels: ids are binary, and what is zero stays away.
type welcomeMap struct {
	Session      []byte   `msgpack:"session,omitempty"`
	JobID        []byte   `msgpack:"job_id,omitempty"`
	NodeID       []byte   `msgpack:"node_id,omitempty"`
	NodeIP       string   `msgpack:"node_ip,omitempty"`
	GCSAddress   string   `msgpack:"gcs_address,omitempty"`
	SessionDir   string   `msgpack:"session_dir,omitempty"`
	SessionName  string   `msgpack:"session_name,omitempty"`
	Namespace    string   `msgpack:"namespace,omitempty"`
	DriverTask   []byte   `msgpack:"driver_task,omitempty"`
	WorkerID     []byte   `msgpack:"worker_id,omitempty"`
	ArenaSize    uint64   `msgpack:"arena_size,omitempty"`
	InlineMax    uint64   `msgpack:"inline_max,omitempty"`
	IDs          []uint64 `msgpack:"ids,omitempty"`
	Credit       uint64   `msgpack:"credit,omitempty"`
	DashboardURL string   `msgpack:"dashboard_url,omitempty"`
	Clients      int      `msgpack:"clients,omitempty"`
}

// WorkerID names a worker or driver process.
type WorkerID [28]byte

// IDBlock is a block of unused uniques.
type IDBlock struct {
	First ids.Unique
	Count uint64
}

// Welcome is the daemon's answer to HELLO. That of a channel is empty.
type Welcome struct {
	Session      [SessionSize]byte
	JobID        ids.Job
	NodeID       ids.NodeID
	NodeIP       string
	GCSAddress   string
	SessionDir   string
	SessionName  string
	Namespace    string
	DriverTask   ids.TaskID
	WorkerID     WorkerID
	ArenaSize    uint64 // bytes mapped
	InlineMax    uint64 // bytes
	IDs          IDBlock
	Credit       uint64 // bytes
	DashboardURL string
	Clients      int // sessions of ray://, where this is one
}

func (w *Welcome) toMap() welcomeMap {
	if *w == (Welcome{}) {
		return welcomeMap{}
	}
	return welcomeMap{
		Session: w.Session[:], JobID: w.JobID[:], NodeID: w.NodeID[:], NodeIP: w.NodeIP, GCSAddress: w.GCSAddress,
		SessionDir: w.SessionDir, SessionName: w.SessionName, Namespace: w.Namespace, DriverTask: w.DriverTask[:],
		WorkerID: w.WorkerID[:], ArenaSize: w.ArenaSize, InlineMax: w.InlineMax,
		IDs: []uint64{uint64(w.IDs.First), w.IDs.Count}, Credit: w.Credit, DashboardURL: w.DashboardURL,
		Clients: w.Clients,
	}
}

func (w *Welcome) fromMap(k Kind, m *welcomeMap) error {
	err := errors.Join(
		fill(k, "session", w.Session[:], m.Session), fill(k, "job_id", w.JobID[:], m.JobID),
		fill(k, "node_id", w.NodeID[:], m.NodeID), fill(k, "driver_task", w.DriverTask[:], m.DriverTask),
		fill(k, "worker_id", w.WorkerID[:], m.WorkerID),
	)
	w.NodeIP, w.GCSAddress, w.SessionDir, w.SessionName = m.NodeIP, m.GCSAddress, m.SessionDir, m.SessionName
	w.Namespace, w.ArenaSize, w.InlineMax, w.Credit = m.Namespace, m.ArenaSize, m.InlineMax, m.Credit
	w.DashboardURL, w.Clients = m.DashboardURL, m.Clients
	switch len(m.IDs) {
	case 0:
	case 2:
		w.IDs = IDBlock{ids.Unique(m.IDs[0]), m.IDs[1]}
	default:
		err = errors.Join(err, malformed(k, "ids is not [first, count]"))
	}
	return err
}

// fill copies an id out of a map; absent leaves zeros.
func fill(k Kind, name string, dst, src []byte) error {
	if len(src) != 0 && len(src) != len(dst) {
		return malformed(k, fmt.Sprintf("%s has %d bytes, want %d", name, len(src), len(dst)))
	}
	copy(dst, src)
	return nil
}

// DecodeWelcome reads WELCOME's body.
func DecodeWelcome(body []byte) (Welcome, error) {
	var w Welcome
	var m welcomeMap
	if err := unmarshalMap(KindWelcome, body, &m); err != nil {
		return w, err
	}
	return w, w.fromMap(KindWelcome, &m)
}

// AppendWelcome appends the frame; the zero Welcome is an empty map.
func AppendWelcome(b []byte, w *Welcome) ([]byte, error) {
	at := len(b)
	return finishMap(begin(b, KindWelcome), at, w.toMap())
}

// Refused is the last frame before the daemon closes.
type Refused struct {
	Kind  fault.Kind `msgpack:"kind"`
	Error string     `msgpack:"error"` // one sentence with what to do
}

// DecodeRefused reads REFUSED's body.
func DecodeRefused(body []byte) (Refused, error) {
	var m Refused
	return m, unmarshalMap(KindRefused, body, &m)
}

// AppendRefused appends the frame.
func AppendRefused(b []byte, m *Refused) ([]byte, error) {
	at := len(b)
	return finishMap(begin(b, KindRefused), at, m)
}

// Setup specialises a worker.
type Setup struct {
	Welcome
	Job          Raw              // the driver's HELLO job
	RuntimeEnv   Raw              // the environment as its template has it; empty: the job's own
	WorkingDir   string           // folder of the environment's working_dir on this node
	PyModules    []string         // and those of its py_modules
	Accelerators map[string][]int // assigned instances, by resource
	Resources    map[string]int64 // in 1/10000
	Actor        *SetupActor      // of an actor's worker
}

type setupMap struct {
	welcomeMap
	Job          Raw              `msgpack:"job,omitempty"`
	RuntimeEnv   Raw              `msgpack:"runtime_env,omitempty"`
	WorkingDir   string           `msgpack:"working_dir,omitempty"`
	PyModules    []string         `msgpack:"py_modules,omitempty"`
	Accelerators map[string][]int `msgpack:"accelerators,omitempty"`
	Resources    map[string]int64 `msgpack:"resources,omitempty"`
	Actor        *SetupActor      `msgpack:"actor,omitempty"`
}

// DecodeSetup reads SETUP's body.
func DecodeSetup(body []byte) (Setup, error) {
	var m setupMap
	if err := unmarshalMap(KindSetup, body, &m); err != nil {
		return Setup{}, err
	}
	s := Setup{Job: m.Job, RuntimeEnv: m.RuntimeEnv, WorkingDir: m.WorkingDir, PyModules: m.PyModules, Accelerators: m.Accelerators, Resources: m.Resources, Actor: m.Actor}
	return s, s.fromMap(KindSetup, &m.welcomeMap)
}

// AppendSetup appends the frame.
func AppendSetup(b []byte, s *Setup) ([]byte, error) {
	at := len(b)
	m := setupMap{s.toMap(), s.Job, s.RuntimeEnv, s.WorkingDir, s.PyModules, s.Accelerators, s.Resources, s.Actor}
	return finishMap(begin(b, KindSetup), at, &m)
}
