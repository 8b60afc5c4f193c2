package wire

import (
	"encoding/json"
	"testing"

	"gray/internal/core/ids"
)

func asJSONText(v any) string { return string(must(json.Marshal(describe(v)))) }

func hotFrames() map[string]struct {
	kind Kind
	body []byte
	run  func([]byte) error
} {
	var outs Outputs
	outs.Append(&Output{Value: make([]byte, 20)})
	var deps Deps
	deps.Append(&Dep{Value: make([]byte, 20)})
	body := func(b []byte, err error) []byte { return must(b, err)[HeaderSize:] }
	type hot = struct {
		kind Kind
		body []byte
		run  func([]byte) error
	}
	return map[string]hot{
		"submit": {KindSubmit, body(AppendSubmit(nil, &Submit{Deps: make(ids.List, 56), Args: make([]byte, 100)})), func(b []byte) error {
			_, err := DecodeSubmit(b)
			return err
		}},
		"result": {KindResult, body(AppendResult(nil, &Result{Outputs: outs})), func(b []byte) error {
			r, err := DecodeResult(b)
			for _, o := range r.Outputs.All() {
				sink += len(o.Value)
			}
			return err
		}},
		"release": {KindRelease, body(AppendRelease(nil, counts(1, 1, 1, 1))), func(b []byte) error {
			c, err := DecodeRelease(b)
			for i := range c.Len() {
				_, n := c.At(i)
				sink += int(n)
			}
			return err
		}},
		"get": {KindGet, body(AppendGet(nil, &Get{IDs: make(ids.List, 280)})), func(b []byte) error {
			_, err := DecodeGet(b)
			return err
		}},
		"execute": {KindExecute, body(AppendExecute(nil, &Execute{Deps: deps, Args: make([]byte, 100)})), func(b []byte) error {
			e, err := DecodeExecute(b)
			for _, d := range e.Deps.All() {
				sink += len(d.Value)
			}
			return err
		}},
	}
}

var sink int

func TestHotDecodersAllocateNothing(t *testing.T) {
	for name, h := range hotFrames() {
		if n := testing.AllocsPerRun(100, func() {
			if err := h.run(h.body); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("decoding %s allocates %v times", name, n)
		}
	}
	buf := make([]byte, 0, 4096)
	s := Submit{Args: make([]byte, 100)}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := AppendSubmit(buf, &s); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("encoding submit allocates %v times", n)
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, h := range hotFrames() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := h.run(h.body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendSubmit(b *testing.B) {
	buf := make([]byte, 0, 4096)
	s := Submit{Args: make([]byte, 100), Deps: make(ids.List, 56)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := AppendSubmit(buf, &s); err != nil {
			b.Fatal(err)
		}
	}
}
