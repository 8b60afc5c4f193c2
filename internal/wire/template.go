package wire

import (
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/core/resource"
)

// Template registers what is constant for a remote function. Map is checked msgpack: it is sent to workers as it came,
// and DecodeSpec reads it.
type Template struct {
	No  uint32
	Map []byte
}

func decodeTemplate(body []byte, k Kind) (Template, error) {
	c := cursor{b: body}
	m := Template{No: c.u32("no")}
	m.Map = c.rest()
	if err := c.tail(k); err != nil {
		return m, err
	}
	return m, checkMap(k, m.Map)
}

// DecodeTemplate reads the body of a client's TEMPLATE.
func DecodeTemplate(body []byte) (Template, error) { return decodeTemplate(body, KindTemplate) }

// DecodeExecTemplate reads the body of a worker's TEMPLATE.
func DecodeExecTemplate(body []byte) (Template, error) { return decodeTemplate(body, KindExecTemplate) }

func appendTemplate(b []byte, k Kind, m *Template) ([]byte, error) {
	at := len(b)
	return finish(append(le32(begin(b, k), m.No), m.Map...), at, 0)
}

// AppendTemplate appends the frame of a client.
func AppendTemplate(b []byte, m *Template) ([]byte, error) { return appendTemplate(b, KindTemplate, m) }

// AppendExecTemplate appends the frame for a worker.
func AppendExecTemplate(b []byte, m *Template) ([]byte, error) {
	return appendTemplate(b, KindExecTemplate, m)
}

// Spec is a template's content.
type Spec struct {
	Fn              ids.ObjectID // the function's object; zero for a method
	FnHash          []byte
	Name            string
	Qualname        string
	Resources       map[string]int64 // in 1/10000
	MaxRetries      int64            // -1 = for ever
	RetryExceptions bool
	Strategy        Strategy
	Env             Raw // a msgpack map or empty
	MaxCalls        int64
	Labels          map[string]string   // label selectors
	Method          string              // of an actor: its template names no function
	Group           string              // the method's concurrency group
	Ordered         bool                // calls of one caller run in their order
	Actor           *ActorLimits        // of a template that creates an actor
	NoEvents        bool                // its attempts are not listed
	Backpressure    int64               // items of its streams that may be unread; 0 = as many as memory allows
	Fallback        []map[string]string // selectors that are tried in order where no node with Labels is free
}

type specMap struct {
	Fn              []byte              `msgpack:"fn"`
	FnHash          []byte              `msgpack:"fn_hash"`
	Name            string              `msgpack:"name"`
	Qualname        string              `msgpack:"qualname"`
	Resources       map[string]int64    `msgpack:"resources"`
	MaxRetries      int64               `msgpack:"max_retries"`
	RetryExceptions bool                `msgpack:"retry_exceptions"`
	Strategy        Strategy            `msgpack:"strategy"`
	Env             Raw                 `msgpack:"env"`
	MaxCalls        int64               `msgpack:"max_calls"`
	Labels          map[string]string   `msgpack:"labels"`
	Method          string              `msgpack:"method,omitempty"`
	Group           string              `msgpack:"group,omitempty"`
	Ordered         bool                `msgpack:"ordered,omitempty"`
	Actor           *ActorLimits        `msgpack:"actor,omitempty"`
	Backpressure    int64               `msgpack:"backpressure,omitempty"`
	NoEvents        bool                `msgpack:"no_events,omitempty"`
	Fallback        []map[string]string `msgpack:"fallback,omitempty"`
}

// maxFallbacks bounds how often a task's place is looked for each time.
const maxFallbacks = 64

// DecodeSpec reads a template's map. Quantities are checked: none is negative, and max_retries is at least -1.
func DecodeSpec(b []byte) (Spec, error) {
	var m specMap
	if err := unmarshalMap(KindTemplate, b, &m); err != nil {
		return Spec{}, err
	}
	s := Spec{
		FnHash: m.FnHash, Name: m.Name, Qualname: m.Qualname, Resources: m.Resources, MaxRetries: m.MaxRetries,
		RetryExceptions: m.RetryExceptions, Strategy: m.Strategy, Env: m.Env, MaxCalls: m.MaxCalls, Labels: m.Labels,
		Method: m.Method, Group: m.Group, Ordered: m.Ordered, Actor: m.Actor, Backpressure: m.Backpressure, NoEvents: m.NoEvents, Fallback: m.Fallback,
	}
	if len(s.Env) == 1 && s.Env[0] == 0xc0 {
		s.Env = nil
	}
	for name, q := range s.Resources {
		if name == "" || q < 0 {
			return s, malformed(KindTemplate, fmt.Sprintf("resources: quantity %d of %q", q, name))
		}
	}
	if len(s.Fallback) > maxFallbacks {
		return s, malformed(KindTemplate, fmt.Sprintf("%d alternatives of labels; at most %d are taken", len(s.Fallback), maxFallbacks))
	}
	if s.MaxRetries < -1 || s.MaxCalls < 0 || s.Backpressure < 0 {
		return s, malformed(KindTemplate, "max_retries is below -1, or max_calls or backpressure below 0")
	}
	return s, fill(KindTemplate, "fn", s.Fn[:], m.Fn)
}

// Marshal is the template's map.
func (s *Spec) Marshal() ([]byte, error) {
	env := s.Env
	if len(env) == 0 {
		env = Raw{0xc0}
	}
	return Marshal(&specMap{
		s.Fn[:], s.FnHash, s.Name, s.Qualname, s.Resources, s.MaxRetries, s.RetryExceptions, s.Strategy, env, s.MaxCalls, s.Labels,
		s.Method, s.Group, s.Ordered, s.Actor, s.Backpressure, s.NoEvents, s.Fallback,
	})
}

// Strategy says where a task should run. It converts to a resource.Strategy.
type Strategy struct {
	Kind        resource.StrategyKind
	Node        ids.NodeID
	Soft        bool
	Spill, Fail bool
}

type strategyMap struct {
	Node  []byte `msgpack:"node"`
	Soft  bool   `msgpack:"soft"`
	Spill bool   `msgpack:"spill"`
	Fail  bool   `msgpack:"fail"`
}

// EncodeMsgpack writes nil, "SPREAD" or a map.
func (s Strategy) EncodeMsgpack(e *msgpack.Encoder) error {
	switch s.Kind {
	case resource.StrategySpread:
		return e.EncodeString("SPREAD")
	case resource.StrategyNode:
		return e.Encode(&strategyMap{s.Node[:], s.Soft, s.Spill, s.Fail})
	}
	return e.EncodeNil()
}

// DecodeMsgpack reads nil, "DEFAULT", "SPREAD" or a map.
func (s *Strategy) DecodeMsgpack(d *msgpack.Decoder) error {
	*s = Strategy{}
	c, err := d.PeekCode()
	if err != nil {
		return err
	}
	if c&0xf0 == 0x80 || c == 0xde || c == 0xdf {
		var m strategyMap
		if err := d.Decode(&m); err != nil {
			return err
		}
		if len(m.Node) != ids.NodeSize {
			return fmt.Errorf("strategy: node has %d bytes, want %d", len(m.Node), ids.NodeSize)
		}
		*s = Strategy{resource.StrategyNode, ids.NodeID(m.Node), m.Soft, m.Spill, m.Fail}
		return nil
	}
	if c == 0xc0 {
		return d.DecodeNil()
	}
	name, err := d.DecodeString()
	if err != nil {
		return err
	}
	switch name {
	case "DEFAULT":
	case "SPREAD":
		s.Kind = resource.StrategySpread
	default:
		return fmt.Errorf("unknown scheduling strategy %q", name)
	}
	return nil
}

// Overrides are what a SUBMIT changes in its template; nil means the template's.
type Overrides struct {
	Name            *string   `msgpack:"name,omitempty"`
	MaxRetries      *int64    `msgpack:"max_retries,omitempty"`
	RetryExceptions *bool     `msgpack:"retry_exceptions,omitempty"`
	Strategy        *Strategy `msgpack:"strategy,omitempty"`
	Events          *bool     `msgpack:"events,omitempty"` // false: the call is not listed
}

// DecodeOverrides reads Submit.Overrides; empty bytes are no overrides.
func DecodeOverrides(b []byte) (Overrides, error) {
	var o Overrides
	if len(b) == 0 {
		return o, nil
	}
	if err := unmarshalMap(KindSubmit, b, &o); err != nil {
		return o, err
	}
	if o.MaxRetries != nil && *o.MaxRetries < -1 {
		return o, malformed(KindSubmit, "max_retries is below -1")
	}
	return o, nil
}

// Method is the name of a CALL's method; its arguments are read with Unmarshal into a struct with `msgpack` tags.
func (c Call) Method() (string, error) {
	var m struct {
		M string `msgpack:"m"`
	}
	if err := unmarshalMap(KindCall, c.Map, &m); err != nil {
		return "", err
	}
	if m.M == "" {
		return "", malformed(KindCall, "names no method (m)")
	}
	return m.M, nil
}

// Fault is an error as it travels: the map of ERROR, and of a value of FormatFault behind its format byte.
type Fault struct {
	Kind  fault.Kind     `msgpack:"kind"`
	Error string         `msgpack:"error"`
	More  map[string]any `msgpack:"-"` // the map's other keys
}

// MarshalFault encodes f as one map.
func MarshalFault(f *Fault) ([]byte, error) {
	m := make(map[string]any, len(f.More)+2)
	for k, v := range f.More {
		m[k] = v
	}
	m["kind"], m["error"] = string(f.Kind), f.Error
	return Marshal(m)
}

// DecodeFault reads a map made by MarshalFault.
func DecodeFault(b []byte) (Fault, error) {
	var m map[string]any
	if err := unmarshalMap(KindError, b, &m); err != nil {
		return Fault{}, err
	}
	kind, ok1 := m["kind"].(string)
	text, ok2 := m["error"].(string)
	if !ok1 || !ok2 {
		return Fault{}, malformed(KindError, "kind and error must be text")
	}
	delete(m, "kind")
	delete(m, "error")
	return Fault{fault.Kind(kind), text, m}, nil
}
