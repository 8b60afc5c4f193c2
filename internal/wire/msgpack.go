package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"sync"

	"github.com/vmihailenco/msgpack/v5"

	"gray/internal/core/fault"
)

// maxDepth is how deep msgpack from a client may nest.
const maxDepth = 64

// Marshal encodes v as msgpack: struct fields by their `msgpack` tags, integers as short as they go, and the keys of
// map[string]string, map[string]bool and map[string]any sorted (a map of another type in the runtime's random order).
func Marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	e := msgpack.GetEncoder()
	defer msgpack.PutEncoder(e)
	e.Reset(&buf)
	e.UseCompactInts(true)
	e.UseCompactFloats(false)
	e.SetSortMapKeys(true)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("wire.Marshal %T: %w", v, err)
	}
	return buf.Bytes(), nil
}

type decoder struct {
	d *msgpack.Decoder
	r bytes.Reader
}

var decoders = sync.Pool{New: func() any { return &decoder{d: msgpack.NewDecoder(nil)} }}

// Unmarshal checks that b is exactly one msgpack value (see Check) and decodes it into v, which shares no memory with b.
// A *any or *map[string]any gets nil, bool, int64 (uint64 beyond its range), float64, string, []byte, []any and
// map[string]any; of structs use fields of definite types, or Raw. What does not fit is an error of kind fault.Protocol.
func Unmarshal(b []byte, v any) error {
	if err := Check(b); err != nil {
		return err
	}
	var err error
	switch v := v.(type) {
	case *any:
		*v, _, err = decodeAny(b)
	case *map[string]any:
		var a any
		if a, _, err = decodeAny(b); err == nil {
			var ok bool
			if *v, ok = a.(map[string]any); !ok && a != nil {
				err = fmt.Errorf("want a map, got %T", a)
			}
		}
	default:
		d := decoders.Get().(*decoder)
		defer decoders.Put(d)
		d.r.Reset(b)
		d.d.Reset(&d.r)
		err = d.d.Decode(v)
	}
	if err != nil {
		return &fault.Error{Op: "wire.Unmarshal", Kind: fault.Protocol, Detail: "msgpack is not of the shape wanted", Err: err}
	}
	return nil
}

// decodeAny decodes the first value of checked msgpack and gives what follows it.
func decodeAny(b []byte) (any, []byte, error) {
	skip, items, _ := head(b)
	c, p, rest := b[0], b[:skip], b[skip:]
	switch {
	case c <= 0x7f:
		return int64(c), rest, nil
	case c >= 0xe0:
		return int64(int8(c)), rest, nil
	case c <= 0x8f, c == 0xde, c == 0xdf:
		m := make(map[string]any, items/2)
		for range items / 2 {
			var k, v any
			var err error
			if k, rest, err = decodeAny(rest); err != nil {
				return nil, nil, err
			}
			if v, rest, err = decodeAny(rest); err != nil {
				return nil, nil, err
			}
			name, ok := k.(string)
			if !ok {
				return nil, nil, fmt.Errorf("want text for a map's key, got %T", k)
			}
			m[name] = v
		}
		return m, rest, nil
	case c <= 0x9f, c == 0xdc, c == 0xdd:
		l := make([]any, 0, items)
		for range items {
			var v any
			var err error
			if v, rest, err = decodeAny(rest); err != nil {
				return nil, nil, err
			}
			l = append(l, v)
		}
		return l, rest, nil
	case c <= 0xbf:
		return string(p[1:]), rest, nil
	}
	switch be := binary.BigEndian; c {
	case 0xc2, 0xc3:
		return c == 0xc3, rest, nil
	case 0xc4, 0xc5, 0xc6:
		return bytes.Clone(p[1+1<<(c-0xc4):]), rest, nil
	case 0xd9, 0xda, 0xdb:
		return string(p[1+1<<(c-0xd9):]), rest, nil
	case 0xca:
		return float64(math.Float32frombits(be.Uint32(p[1:]))), rest, nil
	case 0xcb:
		return math.Float64frombits(be.Uint64(p[1:])), rest, nil
	case 0xcc:
		return int64(p[1]), rest, nil
	case 0xcd:
		return int64(be.Uint16(p[1:])), rest, nil
	case 0xce:
		return int64(be.Uint32(p[1:])), rest, nil
	case 0xcf:
		if n := be.Uint64(p[1:]); n > math.MaxInt64 {
			return n, rest, nil
		}
		return int64(be.Uint64(p[1:])), rest, nil
	case 0xd0:
		return int64(int8(p[1])), rest, nil
	case 0xd1:
		return int64(int16(be.Uint16(p[1:]))), rest, nil
	case 0xd2:
		return int64(int32(be.Uint32(p[1:]))), rest, nil
	case 0xd3:
		return int64(be.Uint64(p[1:])), rest, nil
	}
	return nil, rest, nil // 0xc0; Check lets nothing else by
}

// Check tells whether b is exactly one well-formed msgpack value: no count in it exceeds the bytes that follow, it does
// not nest deeper than 64, it has no extension types, and nothing comes after it. It allocates nothing.
func Check(b []byte) error {
	var left [maxDepth]uint64 // values still to come, per level
	depth := 0
	left[0] = 1
	i := 0
	for {
		for left[depth] == 0 {
			if depth == 0 {
				if i != len(b) {
					return badMsgpack("%d bytes after the value", len(b)-i)
				}
				return nil
			}
			depth--
		}
		left[depth]--
		if i >= len(b) {
			return badMsgpack("truncated at byte %d", i)
		}
		skip, items, ok := head(b[i:])
		if !ok {
			return badMsgpack("bad or truncated value at byte %d", i)
		}
		if skip > uint64(len(b)-i) || items > uint64(len(b)-i-int(skip)) {
			return badMsgpack("value at byte %d is longer than the %d bytes there are", i, len(b)-i)
		}
		i += int(skip)
		if items > 0 {
			if depth+1 == maxDepth {
				return badMsgpack("nests deeper than %d", maxDepth)
			}
			depth++
			left[depth] = items
		}
	}
}

// head reads the head of the value at b[0]: the bytes it takes besides its items, and how many values follow as its items.
func head(b []byte) (skip, items uint64, ok bool) {
	num := func(n int) uint64 { // the n-byte length after the code
		if len(b) < 1+n {
			ok = false
			return 0
		}
		switch n {
		case 1:
			return uint64(b[1])
		case 2:
			return uint64(binary.BigEndian.Uint16(b[1:]))
		}
		return uint64(binary.BigEndian.Uint32(b[1:]))
	}
	ok = true
	switch c := b[0]; {
	case c <= 0x7f, c >= 0xe0, c == 0xc0, c == 0xc2, c == 0xc3:
		return 1, 0, true
	case c <= 0x8f:
		return 1, 2 * uint64(c&0x0f), true
	case c <= 0x9f:
		return 1, uint64(c & 0x0f), true
	case c <= 0xbf:
		return 1 + uint64(c&0x1f), 0, true
	case c == 0xc4, c == 0xd9:
		return 2 + num(1), 0, ok
	case c == 0xc5, c == 0xda:
		return 3 + num(2), 0, ok
	case c == 0xc6, c == 0xdb:
		return 5 + num(4), 0, ok
	case c == 0xca, c == 0xce, c == 0xd2:
		return 5, 0, true
	case c == 0xcb, c == 0xcf, c == 0xd3:
		return 9, 0, true
	case c == 0xcc, c == 0xd0:
		return 2, 0, true
	case c == 0xcd, c == 0xd1:
		return 3, 0, true
	case c == 0xdc:
		return 3, num(2), ok
	case c == 0xdd:
		return 5, num(4), ok
	case c == 0xde:
		return 3, 2 * num(2), ok
	case c == 0xdf:
		return 5, 2 * num(4), ok
	}
	return 0, 0, false // 0xc1 and extension types
}

func badMsgpack(format string, args ...any) error {
	return &fault.Error{Op: "wire.Check", Kind: fault.Protocol, Detail: "msgpack: " + fmt.Sprintf(format, args...)}
}

// checkMap checks that b is one msgpack map.
func checkMap(k Kind, b []byte) error {
	if err := Check(b); err != nil {
		return &fault.Error{Op: "wire.Decode", Kind: fault.Protocol, Ref: k.String(), Err: err}
	}
	if c := b[0]; c&0xf0 != 0x80 && c != 0xde && c != 0xdf {
		return malformed(k, "want a msgpack map")
	}
	return nil
}

func unmarshalMap(k Kind, b []byte, v any) error {
	if err := checkMap(k, b); err != nil {
		return err
	}
	if err := Unmarshal(b, v); err != nil {
		return &fault.Error{Op: "wire.Decode", Kind: fault.Protocol, Ref: k.String(), Err: err}
	}
	return nil
}
