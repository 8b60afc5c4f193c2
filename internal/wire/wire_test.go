package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"gray/internal/core/fault"
	"gray/internal/core/ids"
	"gray/internal/core/resource"
)

var update = flag.Bool("update", false, "rewrite testdata/vectors.json and the fuzz seeds")

const vectorsFile = "testdata/vectors.json"

// vectors is what testdata/vectors.json holds. Bytes and ids are hexadecimal. In maps, binary is {"hex": "…"}.
type vectors struct {
	About  string   `json:"about"`
	Frames []vector `json:"frames"`
	Bad    []struct {
		Name  string `json:"name"`
		Frame string `json:"frame"`
	} `json:"bad"`
}

type vector struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`
	Code   int    `json:"code"`
	Frame  string `json:"frame"`
	Fields any    `json:"fields"`
}

// describe turns a decoded frame into what stands in vectors.json.
func describe(v any) any {
	switch v := v.(type) {
	case ids.List:
		out := []any{}
		for i := range v.Len() {
			out = append(out, v.At(i).String())
		}
		return out
	case Counts:
		out := []any{}
		for i := range v.Len() {
			id, n := v.At(i)
			out = append(out, []any{id.String(), n})
		}
		return out
	case Outputs:
		out := []any{}
		for _, o := range v.All() {
			out = append(out, describe(o))
		}
		return out
	case Handed:
		out := []any{}
		for _, o := range v.All() {
			out = append(out, describe(o))
		}
		return out
	case Deps:
		out := []any{}
		for _, d := range v.All() {
			out = append(out, describe(d))
		}
		return out
	case Raw:
		return describe([]byte(v))
	case ids.Unique:
		return uint64(v)
	case fault.Kind:
		return string(v)
	}
	rv := reflect.ValueOf(v)
	switch rv.Kind() {
	case reflect.Struct:
		m := map[string]any{}
		for i := range rv.NumField() {
			f := rv.Type().Field(i)
			m[snake(f.Name)] = describeField(f.Name, rv.Field(i).Interface())
		}
		return m
	case reflect.Array, reflect.Slice:
		if rv.Type().Elem().Kind() == reflect.Uint8 {
			b := make([]byte, rv.Len())
			reflect.Copy(reflect.ValueOf(b), rv)
			return hex.EncodeToString(b)
		}
	}
	return v
}

// describeField shows msgpack as what it holds.
func describeField(name string, v any) any {
	b, packed := v.([]byte)
	if r, ok := v.(Raw); ok {
		b, packed, name = r, true, "Map"
	}
	if !packed || name != "Map" && name != "Overrides" && name != "Spec" {
		return describe(v)
	}
	if len(b) == 0 {
		return nil
	}
	a, err := unmarshalAny(b)
	if err != nil { // Go passes on what it can't represent, such as maps with numbers for keys
		return "undecoded " + hex.EncodeToString(b)
	}
	return plain(a)
}

func unmarshalAny(b []byte) (v any, err error) { return v, Unmarshal(b, &v) }

func plain(v any) any {
	switch v := v.(type) {
	case []byte:
		return map[string]any{"hex": hex.EncodeToString(v)}
	case map[string]any:
		m := map[string]any{}
		for k, e := range v {
			m[k] = plain(e)
		}
		return m
	case []any:
		l := []any{}
		for _, e := range v {
			l = append(l, plain(e))
		}
		return l
	}
	return v
}

func snake(s string) string {
	switch s {
	case "ID":
		return "id"
	case "IDs":
		return "ids"
	case "PID":
		return "pid"
	}
	var b strings.Builder
	for i, r := range s {
		if r >= 'A' && r <= 'Z' {
			if i > 0 && !(s[i-1] >= 'A' && s[i-1] <= 'Z') {
				b.WriteByte('_')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestVectors(t *testing.T) {
	want := vectors{About: "Frames of the client protocol (docs/protocol.md), whole, with the length. fields: ids and bytes are hexadecimal, in msgpack maps binary is {\"hex\": …}. bad: each must be refused. Made by go test ./internal/wire -update; run by the Go and the Python codec."}
	for _, c := range cases() {
		raw, err := codecs[c.kind].encode(nil, c.v)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		want.Frames = append(want.Frames, vector{c.name, c.kind.String(), int(c.kind), hex.EncodeToString(raw), describe(c.v)})
	}
	for _, b := range badFrames() {
		want.Bad = append(want.Bad, struct {
			Name  string `json:"name"`
			Frame string `json:"frame"`
		}{b.name, hex.EncodeToString(b.raw)})
	}
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(vectorsFile, []byte(asJSON(t, want)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		writeSeeds(t)
	}
	got, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != asJSON(t, want)+"\n" {
		t.Errorf("%s is not what the codec makes: if the protocol was meant to change, run go test ./internal/wire -run TestVectors -update", vectorsFile)
	}
	var file vectors
	if err := json.Unmarshal(got, &file); err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for i, v := range file.Frames {
		t.Run(v.Name, func(t *testing.T) {
			seen[v.Code] = true
			raw, err := hex.DecodeString(v.Frame)
			if err != nil {
				t.Fatal(err)
			}
			r := NewReader(raw)
			f, err := r.Next()
			if err != nil || len(r.Rest()) != 0 {
				t.Fatalf("Next: %v, %d bytes left", err, len(r.Rest()))
			}
			if f.Size() != len(raw) {
				t.Errorf("Size = %d, want %d", f.Size(), len(raw))
			}
			dec, err := codecs[f.Kind].decode(f.Body)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := asJSON(t, describe(dec)), asJSON(t, want.Frames[i].Fields); got != want {
				t.Errorf("decoded %s\nwant %s", got, want)
			}
			for n := range raw {
				if _, err := NewReader(raw[:n]).Next(); !errors.Is(err, ErrIncomplete) {
					t.Fatalf("%d of %d bytes: %v, want ErrIncomplete", n, len(raw), err)
				}
			}
		})
	}
	for k := range kindNames {
		if Kind(k).Known() && !seen[k] {
			t.Errorf("no vector for %s", Kind(k))
		}
	}
}

func TestBadFramesAreRefused(t *testing.T) {
	for _, b := range badFrames() {
		t.Run(b.name, func(t *testing.T) {
			f, err := NewReader(b.raw).Next()
			if err == nil {
				_, err = codecs[f.Kind].decode(f.Body)
			}
			if fault.KindOf(err) != fault.Protocol {
				t.Fatalf("err = %v, want one of kind protocol", err)
			}
		})
	}
}

// Every frame that loses bytes at its end, with the length set right, is either refused or decodes to itself.
func TestTruncatedBodies(t *testing.T) {
	for _, c := range cases() {
		raw := must(codecs[c.kind].encode(nil, c.v))
		body := raw[HeaderSize:]
		for n := range body {
			v, err := codecs[c.kind].decode(body[:n:n])
			if err != nil {
				if fault.KindOf(err) != fault.Protocol {
					t.Errorf("%s cut to %d: %v", c.name, n, err)
				}
				continue
			}
			again := must(codecs[c.kind].encode(nil, v))
			if codecs[c.kind].exact && !bytes.Equal(again[HeaderSize:], body[:n]) {
				t.Errorf("%s cut to %d decodes to another frame", c.name, n)
			}
		}
	}
}

func TestStream(t *testing.T) {
	var all []byte
	cs := cases()
	big := make([]byte, MaxFrame-64)
	all = must(AppendSubmit(all, &Submit{Args: big}))
	for _, c := range cs {
		all = must(codecs[c.kind].encode(all, c.v))
	}
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(all), "one byte": iotest.OneByteReader(bytes.NewReader(all)),
		"half": iotest.HalfReader(bytes.NewReader(all)), "data with EOF": iotest.DataErrReader(bytes.NewReader(all)),
	} {
		t.Run(name, func(t *testing.T) {
			s := NewStream(r, 100)
			var got []byte
			n := 0
			for {
				f, err := s.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				got = append(le32(got, uint32(1+len(f.Body))), byte(f.Kind))
				got = append(got, f.Body...)
				n++
			}
			if n != len(cs)+1 || !bytes.Equal(got, all) {
				t.Errorf("%d frames, %d bytes; want %d, %d", n, len(got), len(cs)+1, len(all))
			}
		})
	}
	if _, err := NewStream(bytes.NewReader(all[:len(all)-1]), 64).Next(); err != nil {
		t.Errorf("first frame of a cut stream: %v", err)
	}
	if _, err := NewStream(bytes.NewReader(all[:7]), 64).Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half a frame: %v, want ErrUnexpectedEOF", err)
	}
	if _, err := NewStream(bytes.NewReader([]byte{0, 0, 0, 0, 1}), 64).Next(); fault.KindOf(err) != fault.Protocol {
		t.Errorf("bad frame: %v", err)
	}
}

func TestTooLargeFramesAreNotMade(t *testing.T) {
	b := []byte("before")
	for name, err := range map[string]error{
		"submit": second(AppendSubmit(b, &Submit{Args: make([]byte, MaxFrame)})),
		"value":  second(AppendValue(b, &Value{Value: make([]byte, MaxFrame)})),
		"header": second(AppendValueHeader(b, &Value{}, MaxFrame)),
		"ready":  second(AppendReady(b, &Ready{IDs: make(ids.List, 40000*ids.ObjectSize)})),
	} {
		if fault.KindOf(err) != fault.Protocol {
			t.Errorf("%s: %v", name, err)
		}
	}
	got, err := AppendSubmit(b, &Submit{Args: make([]byte, MaxFrame)})
	if string(got) != "before" || err == nil {
		t.Errorf("a refused append left %d bytes", len(got))
	}
}

func second[T any](_ T, err error) error { return err }

func TestValueHeaderIsTheFrameWithoutTheValue(t *testing.T) {
	v := Value{Req: 3, ID: object(1, 2, 1), Contained: list(object(1, 3, 1)), Value: []byte("a large value")}
	whole := must(AppendValue(nil, &v))
	header := must(AppendValueHeader(nil, &v, len(v.Value)))
	if !bytes.Equal(append(header, v.Value...), whole) {
		t.Error("header and value do not join to the frame")
	}
}

func TestSpec(t *testing.T) {
	node := ids.NodeID(repeat(3, 28))
	for _, tc := range []struct {
		name string
		in   any
		want Spec
		bad  string
	}{
		{name: "empty", in: map[string]any{}, want: Spec{}},
		{name: "named default", in: map[string]any{"strategy": "DEFAULT"}, want: Spec{}},
		{name: "spread", in: map[string]any{"strategy": "SPREAD", "fn_hash": "abc"}, want: Spec{Strategy: Strategy{Kind: resource.StrategySpread}, FnHash: []byte("abc")}},
		{name: "nil fields", in: map[string]any{"strategy": nil, "env": nil, "labels": nil, "resources": nil}, want: Spec{}},
		{name: "affinity", in: map[string]any{"strategy": map[string]any{"node": node[:], "soft": true, "spill": true}}, want: Spec{Strategy: Strategy{resource.StrategyNode, node, true, true, false}}},
		{name: "labels", in: map[string]any{"labels": map[string]string{"a": "!b"}, "unknown": 1}, want: Spec{Labels: map[string]string{"a": "!b"}}},
		{name: "unknown strategy", in: map[string]any{"strategy": "PACK"}, bad: "unknown scheduling strategy"},
		{name: "short node", in: map[string]any{"strategy": map[string]any{"node": []byte{1}}}, bad: "node has 1 bytes"},
		{name: "negative", in: map[string]any{"resources": map[string]int64{"CPU": -1}}, bad: "-1"},
		{name: "no name", in: map[string]any{"resources": map[string]int64{"": 1}}, bad: "resources"},
		{name: "retries", in: map[string]any{"max_retries": -2}, bad: "max_retries"},
		{name: "wrong type", in: map[string]any{"name": []int{1}}, bad: "msgpack"},
		{name: "short fn", in: map[string]any{"fn": []byte{1}}, bad: "fn has 1 bytes"},
		{name: "no map", in: 3, bad: "map"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := DecodeSpec(must(Marshal(tc.in)))
			if tc.bad != "" {
				if fault.KindOf(err) != fault.Protocol || !strings.Contains(err.Error(), tc.bad) {
					t.Fatalf("err = %v, want %q", err, tc.bad)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Fatalf("got %+v, %v; want %+v", got, err, tc.want)
			}
			again, err := DecodeSpec(must(got.Marshal()))
			if err != nil || asJSON(t, describe(again)) != asJSON(t, describe(got)) {
				t.Errorf("after a round trip %+v, %v", again, err)
			}
		})
	}
}

func TestOverridesCallFaultJob(t *testing.T) {
	if o, err := DecodeOverrides(nil); err != nil || o != (Overrides{}) {
		t.Errorf("no overrides: %+v, %v", o, err)
	}
	o, err := DecodeOverrides(must(Marshal(map[string]any{"strategy": "SPREAD", "max_retries": 0})))
	if err != nil || o.Strategy == nil || o.Strategy.Kind != resource.StrategySpread || o.MaxRetries == nil || *o.MaxRetries != 0 || o.Name != nil {
		t.Errorf("overrides: %+v, %v", o, err)
	}
	if _, err := DecodeOverrides(must(Marshal(map[string]any{"max_retries": -5}))); fault.KindOf(err) != fault.Protocol {
		t.Errorf("max_retries -5: %v", err)
	}
	c := Call{Map: must(Marshal(map[string]any{"m": "ids"}))}
	if m, err := c.Method(); m != "ids" || err != nil {
		t.Errorf("Method = %q, %v", m, err)
	}
	if _, err := (Call{Map: []byte{0x80}}).Method(); fault.KindOf(err) != fault.Protocol {
		t.Errorf("no method: %v", err)
	}
	f := Fault{Kind: fault.OwnerDied, Error: "why", More: map[string]any{"node": "n", "n": int64(3)}}
	if got, err := DecodeFault(must(MarshalFault(&f))); err != nil || !reflect.DeepEqual(got, f) {
		t.Errorf("fault: %+v, %v", got, err)
	}
	if _, err := DecodeFault(must(Marshal(map[string]any{"kind": 1}))); fault.KindOf(err) != fault.Protocol {
		t.Errorf("fault without text: %v", err)
	}
	for _, c := range cases() {
		if h, ok := c.v.(Hello); ok && len(h.Job) > 0 {
			j, err := DecodeJob(h.Job)
			if err != nil || j.Namespace != "n" || len(j.SysPath) != 1 {
				t.Errorf("job: %+v, %v", j, err)
			}
		}
	}
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name string
		b    string
		ok   bool
	}{
		{"nil", "\xc0", true},
		{"nothing", "", false},
		{"two values", "\xc0\xc0", false},
		{"nested", "\x81\xa1a\x92\x01\xc4\x02ab", true},
		{"63 deep", strings.Repeat("\x91", 63) + "\x01", true},
		{"64 deep", strings.Repeat("\x91", 64) + "\x01", false},
		{"a million deep", strings.Repeat("\x91", 1<<20), false},
		{"empty after items", "\x92\x90\x80", true},
		{"4 billion items", "\xdd\xff\xff\xff\xff\x01", false},
		{"map of 4 billion", "\xdf\xff\xff\xff\xff\x01", false},
		{"4 GiB of text", "\xdb\xff\xff\xff\xffa", false},
		{"cut length", "\xdb\xff", false},
		{"cut float", "\xcb\x00", false},
		{"ext", "\xd4\x01\x01", false},
		{"reserved", "\xc1", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := Check([]byte(tc.b)); (err == nil) != tc.ok {
				t.Errorf("Check = %v, want ok = %t", err, tc.ok)
			}
		})
	}
}

func TestMarshalledIsWellFormed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := anyValue(t, 3)
		b, err := Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := Check(b); err != nil {
			t.Fatalf("%v of %x", err, b)
		}
		got, err := unmarshalAny(b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, v) {
			t.Fatalf("%#v became %#v", v, got)
		}
	})
}

func anyValue(t *rapid.T, depth int) any {
	top := 5
	if depth > 0 {
		top = 7
	}
	switch rapid.IntRange(0, top).Draw(t, "what") {
	case 0:
		return nil
	case 1:
		return rapid.Bool().Draw(t, "bool")
	case 2:
		return rapid.Int64().Draw(t, "int")
	case 3:
		return rapid.String().Draw(t, "text")
	case 4:
		return rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes")
	case 5:
		return rapid.Float64Range(-1e300, 1e300).Draw(t, "float")
	case 6:
		l := []any{}
		for range rapid.IntRange(0, 20).Draw(t, "len") {
			l = append(l, anyValue(t, depth-1))
		}
		return l
	}
	m := map[string]any{}
	for range rapid.IntRange(0, 20).Draw(t, "len") {
		m[rapid.String().Draw(t, "key")] = anyValue(t, depth-1)
	}
	return m
}

func drawList(t *rapid.T, name string) ids.List {
	n := rapid.IntRange(0, 5).Draw(t, name)
	return ids.List(rapid.SliceOfN(rapid.Byte(), n*ids.ObjectSize, n*ids.ObjectSize).Draw(t, name))
}

func drawBytes(t *rapid.T, name string) []byte {
	return rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, name)
}

func TestDecodeUndoesAppend(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u32 := func(n string) uint32 { return rapid.Uint32().Draw(t, n) }
		u64 := func(n string) uint64 { return rapid.Uint64().Draw(t, n) }
		id := ids.ObjectID(rapid.SliceOfN(rapid.Byte(), 28, 28).Draw(t, "id"))
		status := Status(rapid.IntRange(0, 1).Draw(t, "status"))
		where := Where(rapid.IntRange(0, 1).Draw(t, "where"))
		var outs Outputs
		var deps Deps
		for range rapid.IntRange(0, 4).Draw(t, "n") {
			outs.Append(&Output{Status: status, Where: where, Contained: drawList(t, "oc"), Size: u64("size"), Value: drawBytes(t, "ov")})
			deps.Append(&Dep{ID: id, Status: status, Where: where, Contained: drawList(t, "dc"), Size: u64("size"), Value: drawBytes(t, "dv"), Offset: u64("off")})
		}
		var cs Counts
		for range rapid.IntRange(0, 5).Draw(t, "pairs") {
			cs = cs.Append(id, u32("count"))
		}
		val := Value{Req: u32("req"), ID: id, Status: status, Where: where, Contained: drawList(t, "vc")}
		if where == Inline {
			val.Value = drawBytes(t, "v")
			val.Size = uint64(len(val.Value))
		} else {
			val.Offset, val.Size = u64("offset"), u64("size")
		}
		frames := []frameCase{
			{"", KindSubmit, Submit{u32("t"), ids.Unique(u64("u")), u32("n"), uint16(u32("f")), drawList(t, "d"), drawList(t, "c"), drawBytes(t, "o"), drawBytes(t, "a")}},
			{"", KindPut, Put{id, status, drawList(t, "c"), drawBytes(t, "v")}},
			{"", KindCreate, Create{u32("c"), u32("r"), id, u64("s")}},
			{"", KindSeal, Seal{id, status, drawList(t, "c")}},
			{"", KindGet, Get{u32("c"), u32("r"), uint8(u32("f")), drawList(t, "i")}},
			{"", KindWait, Wait{u32("c"), u32("r"), u32("n"), uint8(u32("f")), drawList(t, "i")}},
			{"", KindRelease, cs},
			{"", KindUnpin, cs},
			{"", KindResult, Result{ids.Unique(u64("u")), u32("a"), Outcome(u32("o") % 4), outs}},
			{"", KindCredit, Credit{u32("c"), u32("r"), u64("t")}},
			{"", KindValue, val},
			{"", KindReady, Ready{u32("r"), drawList(t, "i")}},
			{"", KindCreated, Created{u32("r"), u64("o")}},
			{"", KindExecute, Execute{ids.Unique(u64("u")), u32("a"), ids.JobFromInt(u32("j")), u32("t"), u32("n"), uint16(u32("f")), drawBytes(t, "o"), deps, drawList(t, "c"), drawBytes(t, "args")}},
			{"", KindExit, uint8(u32("r"))},
			{"", KindAbort, id},
			{"", KindIDs, IDs{id, drawList(t, "i")}},
			{"", KindExecuteAt, ExecuteAt{u64("o"), u64("s")}},
		}
		for _, c := range frames {
			raw, err := codecs[c.kind].encode(nil, c.v)
			if err != nil {
				t.Fatal(err)
			}
			f, err := NewReader(raw).Next()
			if err != nil {
				t.Fatal(err)
			}
			got, err := codecs[f.Kind].decode(f.Body)
			if err != nil {
				t.Fatalf("%s: %v", f.Kind, err)
			}
			if e, ok := c.v.(Execute); ok && e.Size() != len(raw) {
				t.Fatalf("Execute.Size = %d, frame has %d", e.Size(), len(raw))
			}
			if e, ok := c.v.(Execute); ok && !bytes.Equal(ExecuteBody(&e), f.Body) {
				t.Fatal("ExecuteBody is not the frame's body")
			}
			if a, b := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", c.v); a != b {
				t.Fatalf("%s: %s became %s", f.Kind, b, a)
			}
		}
	})
}

func writeSeeds(t *testing.T) {
	write := func(target, name string, body []byte) {
		dir := filepath.Join("testdata", "fuzz", target)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		name = strings.ReplaceAll(name, " ", "-")
		if err := os.WriteFile(filepath.Join(dir, name), fmt.Appendf(nil, "go test fuzz v1\n[]byte(%q)\n", body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range cases() {
		raw := must(codecs[c.kind].encode(nil, c.v))
		write("Fuzz"+fuzzName(c.kind), c.name, raw[HeaderSize:])
		write("FuzzReader", c.name, raw)
		switch v := c.v.(type) {
		case Template:
			write("FuzzMaps", c.name, v.Map)
		case Submit:
			write("FuzzMaps", c.name, v.Overrides)
		case Call:
			write("FuzzMaps", c.name, v.Map)
		case Answer:
			write("FuzzMaps", c.name, v.Map)
		case Hello:
			write("FuzzMaps", c.name, v.Job)
		}
	}
	for _, b := range badFrames() {
		write("FuzzReader", "bad "+b.name, b.raw)
		if k := Kind(b.raw[4]); k.Known() && b.raw[0] > 0 {
			write("Fuzz"+fuzzName(k), "bad "+b.name, b.raw[HeaderSize:])
		}
	}
}

// fuzzName is "ExecTemplate" for EXEC_TEMPLATE.
func fuzzName(k Kind) string {
	var b strings.Builder
	for w := range strings.SplitSeq(k.String(), "_") {
		b.WriteString(w[:1] + strings.ToLower(w[1:]))
	}
	return b.String()
}

func TestStrategyIsTheCores(t *testing.T) {
	s := Strategy{Kind: resource.StrategyNode, Node: ids.NodeID{1}, Soft: true}
	if got := resource.Strategy(s); got.Node != s.Node || !got.Soft {
		t.Errorf("converted to %+v", got)
	}
}
