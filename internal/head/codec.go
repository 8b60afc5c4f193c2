package head

import (
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/wire"
)

// Encode is a message as it travels: its kind in one byte, then msgpack. The result may be sent on several links and
// must not be changed.
func Encode(m headstate.Message) []byte {
	return appendArray([]byte{byte(m.Kind())}, m)
}

// appendArray appends v as msgpack, structs as arrays of their fields.
func appendArray(b []byte, v any) []byte {
	w := (*appender)(&b)
	e := msgpack.GetEncoder()
	defer msgpack.PutEncoder(e)
	e.Reset(w)
	e.UseArrayEncodedStructs(true)
	e.UseCompactInts(true)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("head: %T can't be encoded: %v", v, err)) // the structs hold nothing that can't be
	}
	return b
}

type appender []byte

func (a *appender) Write(p []byte) (int, error) {
	*a = append(*a, p...)
	return len(p), nil
}

func (a *appender) WriteByte(c byte) error {
	*a = append(*a, c)
	return nil
}

// IsMessage tells whether a message that came in on a link shared with other traffic is one between a daemon and a
// head, and which of them it is for.
func IsMessage(b []byte) (toHead, toNode bool) {
	if len(b) == 0 {
		return false, false
	}
	return b[0]&0xc0 == 0x80, b[0]&0xc0 == 0xc0
}

// DecodeToHead reads a message that a daemon sent.
func DecodeToHead(b []byte) (headstate.Message, error) { return decode(b, headstate.ToHead) }

// DecodeToNode reads a message that a head sent.
func DecodeToNode(b []byte) (headstate.Message, error) { return decode(b, headstate.ToNode) }

func decode(b []byte, empty func(headstate.Kind) headstate.Message) (headstate.Message, error) {
	if len(b) == 0 {
		return nil, &fault.Error{Op: "head.Decode", Kind: fault.Protocol, Detail: "an empty message"}
	}
	m := empty(headstate.Kind(b[0]))
	if m == nil {
		return nil, &fault.Error{Op: "head.Decode", Kind: fault.Protocol, Detail: fmt.Sprintf("kind 0x%02x is unknown", b[0])}
	}
	// It checks lengths first: the decoder alone would keep buffers as large as broken messages say.
	if err := wire.Unmarshal(b[1:], m); err != nil {
		return nil, &fault.Error{Op: "head.Decode", Kind: fault.Protocol, Detail: fmt.Sprintf("a broken %T", m), Err: err}
	}
	return m, nil
}
