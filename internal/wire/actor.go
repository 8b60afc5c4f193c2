package wire

import (
	"encoding/binary"

	"gray/internal/core/ids"
)

// Actor asks for an actor to be created. It is answered by REPLY or ERROR if Req is not 0.
type Actor struct {
	Chan, Req uint32
	Template  uint32
	Unique    ids.Unique
	Flags     uint16
	Deps      ids.List
	Contained ids.List
	Spec      []byte // msgpack, see DecodeActorSpec
	Args      []byte
}

// DecodeActor reads ACTOR's body.
func DecodeActor(body []byte) (Actor, error) {
	c := cursor{b: body}
	m := Actor{Chan: c.u32("chan"), Req: c.u32("req"), Template: c.u32("template"), Unique: c.unique(), Flags: c.u16("flags")}
	nd, nc, ns := c.u32("n_deps"), c.u32("n_contained"), c.u32("len_spec")
	m.Deps, m.Contained = c.list(nd, "deps"), c.list(nc, "contained")
	m.Spec = c.take(uint64(ns), "spec")
	m.Args = c.rest()
	return m, c.tail(KindActor)
}

// AppendActor appends the frame.
func AppendActor(b []byte, m *Actor) ([]byte, error) {
	at := len(b)
	b = le32(le32(le32(begin(b, KindActor), m.Chan), m.Req), m.Template)
	b = binary.LittleEndian.AppendUint16(appendUnique(b, m.Unique), m.Flags)
	b = le32(le32(le32(b, uint32(m.Deps.Len())), uint32(m.Contained.Len())), uint32(len(m.Spec)))
	b = append(b, m.Deps...)
	b = append(b, m.Contained...)
	b = append(b, m.Spec...)
	return finish(append(b, m.Args...), at, 0)
}

// ActorSpec is what an ACTOR says of the actor.
type ActorSpec struct {
	Name        string `msgpack:"name"`
	Namespace   string `msgpack:"namespace"`
	Detached    bool   `msgpack:"detached"`
	GetIfExists bool   `msgpack:"get_if_exists"`
	MaxRestarts int64  `msgpack:"max_restarts"` // -1 = for ever
	ClassName   string `msgpack:"class_name"`
	Meta        []byte `msgpack:"meta"` // opaque: what clients need to make a handle
	Body        []byte `msgpack:"body"` // of a detached actor: the class, a value
}

// DecodeActorSpec reads Actor.Spec.
func DecodeActorSpec(b []byte) (ActorSpec, error) {
	var s ActorSpec
	if err := unmarshalMap(KindActor, b, &s); err != nil {
		return s, err
	}
	if s.MaxRestarts < -1 {
		return s, malformed(KindActor, "max_restarts is below -1")
	}
	return s, nil
}

// ActorCall asks for a method of an actor to be run.
type ActorCall struct {
	Template   uint32
	Unique     ids.Unique
	Actor      ids.ActorID
	NumReturns uint32
	Flags      uint16
	Deps       ids.List
	Contained  ids.List
	Overrides  []byte
	Args       []byte
}

// DecodeActorCall reads ACTOR_CALL's body.
func DecodeActorCall(body []byte) (ActorCall, error) {
	c := cursor{b: body}
	m := ActorCall{Template: c.u32("template"), Unique: c.unique()}
	copy(m.Actor[:], c.take(ids.ActorSize, "actor"))
	m.NumReturns, m.Flags = c.u32("num_returns"), c.u16("flags")
	nd, nc, no := c.u32("n_deps"), c.u32("n_contained"), c.u32("len_overrides")
	m.Deps, m.Contained = c.list(nd, "deps"), c.list(nc, "contained")
	m.Overrides = c.take(uint64(no), "overrides")
	m.Args = c.rest()
	return m, c.tail(KindActorCall)
}

// AppendActorCall appends the frame.
func AppendActorCall(b []byte, m *ActorCall) ([]byte, error) {
	at := len(b)
	b = appendUnique(le32(begin(b, KindActorCall), m.Template), m.Unique)
	b = le32(append(b, m.Actor[:]...), m.NumReturns)
	b = binary.LittleEndian.AppendUint16(b, m.Flags)
	b = le32(le32(le32(b, uint32(m.Deps.Len())), uint32(m.Contained.Len())), uint32(len(m.Overrides)))
	b = append(b, m.Deps...)
	b = append(b, m.Contained...)
	b = append(b, m.Overrides...)
	return finish(append(b, m.Args...), at, 0)
}

// Cancel tells a worker that a call's result is not wanted.
type Cancel struct {
	Unique  ids.Unique
	Attempt uint32
}

// DecodeCancel reads CANCEL's body.
func DecodeCancel(body []byte) (Cancel, error) {
	c := cursor{b: body}
	m := Cancel{c.unique(), c.u32("attempt")}
	return m, c.done(KindCancel)
}

// AppendCancel appends the frame.
func AppendCancel(b []byte, m Cancel) []byte {
	at := len(b)
	return fixed(le32(appendUnique(begin(b, KindCancel), m.Unique), m.Attempt), at)
}

// ActorLimits is what a creation's TEMPLATE says of the actor: the field `actor`.
type ActorLimits struct {
	Held           map[string]int64 `msgpack:"held"` // in 1/10000, while it lives
	MaxConcurrency int64            `msgpack:"max_concurrency"`
	Groups         map[string]int64 `msgpack:"groups"`
	IsAsync        bool             `msgpack:"is_async"`
	ClassName      string           `msgpack:"class_name"`
}

// SetupActor is what SETUP says to the worker of an actor.
type SetupActor struct {
	ID             []byte           `msgpack:"id"`
	Name           string           `msgpack:"name"`
	Namespace      string           `msgpack:"namespace"`
	ClassName      string           `msgpack:"class_name"`
	Incarnation    uint32           `msgpack:"incarnation"`
	MaxConcurrency int64            `msgpack:"max_concurrency"`
	Groups         map[string]int64 `msgpack:"groups"`
	IsAsync        bool             `msgpack:"is_async"`
	Body           []byte           `msgpack:"body"`
}

// CreatedActor is the output of an actor's creation: a msgpack map.
type CreatedActor struct {
	OK      bool   `msgpack:"ok"`
	Repr    string `msgpack:"repr"`
	Error   string `msgpack:"error"`
	Pickled []byte `msgpack:"pickled"`
}

// DecodeCreatedActor reads the value of a creation's output, format byte included.
func DecodeCreatedActor(value []byte) (CreatedActor, error) {
	var m CreatedActor
	if len(value) == 0 || value[0] != FormatMsgpack {
		return m, malformed(KindResult, "a creation's output is no msgpack map")
	}
	return m, unmarshalMap(KindResult, value[1:], &m)
}
