package head

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"gray/internal/core/actor"
	"gray/internal/core/fault"
	"gray/internal/core/headstate"
	"gray/internal/core/ids"
)

func load(t *testing.T, s Store) (map[string]string, uint64) {
	t.Helper()
	got := map[string]string{}
	fence, err := s.LoadAll(func(k, v []byte) error { got[string(k)] = string(v); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return got, fence
}

func appendTo(s Store, b Batch) error {
	done := make(chan error, 1)
	s.Append(b, func(err error) { done <- err })
	return <-done
}

func TestStores(t *testing.T) {
	path := filepath.Join(t.TempDir(), "head.db")
	mem := NewMemStore()
	for name, open := range map[string]func() Store{
		"bolt": func() Store {
			s, err := OpenBolt(path)
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		"memory": func() Store { return mem },
	} {
		t.Run(name, func(t *testing.T) {
			s := open()
			got, first := load(t, s)
			if len(got) != 0 {
				t.Fatalf("a new store holds %v", got)
			}
			put := func(k, v string) Op { return Op{Key: []byte(k), Value: []byte(v)} }
			for _, ops := range [][]Op{{put("a", "1"), put("b", "2"), put("c", "")}, {put("a", "3"), {Key: []byte("b"), Delete: true}}} {
				if err := appendTo(s, Batch{first, ops}); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open()
			defer s.Close()
			got, second := load(t, s)
			if want := map[string]string{"a": "3", "c": ""}; !maps.Equal(got, want) {
				t.Errorf("store holds %v, want %v", got, want)
			}
			if second <= first {
				t.Errorf("fence %d after %d", second, first)
			}
			if err := appendTo(s, Batch{second, nil}); err != nil {
				t.Fatal(err)
			}
			if err := appendTo(s, Batch{first, []Op{put("a", "4")}}); !errors.Is(err, ErrFenced) {
				t.Errorf("append with an old fence: %v", err)
			}
		})
	}
}

func TestBoltFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "head.db")
	s, err := OpenBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	if _, err := OpenBolt(path); fault.KindOf(err) != fault.System || !bytes.Contains([]byte(fmt.Sprint(err)), []byte("another head has it open")) {
		t.Errorf("second open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenBolt(path); err == nil {
		t.Error("a damaged file was opened")
	}
}

func TestRecordsSurviveTheStore(t *testing.T) {
	records := []headstate.Record{
		&headstate.Meta{Cluster: headstate.ClusterID{1, 2}, SessionName: "s", NextOwner: 3, NextJob: 4, OwnerMoves: 5},
		&headstate.NodeRow{
			Info: headstate.NodeInfo{
				ID: ids.NodeID{1}, Epoch: 1 << 60, IP: "::1", Port: 65535, Head: true,
				Total: headstate.Resources{"CPU": 5000, "memory": 1 << 60}, Labels: map[string]string{"a": "b"},
			},
			Owner: 2, DeathReason: headstate.UnexpectedTermination, DeathMessage: "why", StartMs: 1, EndMs: 2,
		},
		&headstate.JobRow{
			ID: ids.JobFromInt(7), Key: [16]byte{9}, Node: ids.NodeID{1}, State: headstate.JobFailed,
			Driver: headstate.Driver{PID: 1, Namespace: "n", Metadata: map[string]string{"k": "v"}},
		},
		&headstate.KVRecord{NS: "a\xff", Key: "\x00k", Value: []byte{0, 1, 0xff}, By: ids.NodeID{3}, Req: 1 << 63, Fresh: true},
		&headstate.KVRecord{NS: "", Key: "", Value: []byte{}},
		&headstate.ActorRecord{
			Row: actor.Row{
				ID: ids.ActorID{1}, Job: ids.JobFromInt(7), Manager: ids.NodeID{2}, Name: "n", Detached: true, MaxRestarts: -1,
				Meta: []byte{1}, Resources: map[string]int64{"CPU": 10000}, State: actor.Alive, Incarnation: 3, Death: actor.Death{Text: "t"},
			},
			Heard: true,
		},
		&headstate.ActorSpec{ID: ids.ActorID{1}, Spec: []byte("spec")},
	}
	keys := map[string]bool{}
	for _, r := range records {
		op := encodeOps([]headstate.Op{{Rec: r}})[0]
		got, err := decodeRecord(op.Key, op.Value)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%T: %+v, %v", r, got, err)
		}
		if keys[string(op.Key)] {
			t.Errorf("key %x is not its own", op.Key)
		}
		keys[string(op.Key)] = true
	}
	a := encodeKey(&headstate.KVRecord{NS: "a", Key: "bc"})
	b := encodeKey(&headstate.KVRecord{NS: "ab", Key: "c"})
	if slices.Equal(a, b) {
		t.Error("two keys are one")
	}
	for _, key := range [][]byte{nil, {'z'}, {'m'}} {
		if _, err := decodeRecord(key, []byte{0xc1}); err == nil {
			t.Errorf("key %q: no error", key)
		}
	}
}

func TestMessagesSurviveTheWire(t *testing.T) {
	seen := 0
	for k := 0; k < 256; k++ {
		for _, dir := range []struct {
			empty  func(headstate.Kind) headstate.Message
			decode func([]byte) (headstate.Message, error)
			toHead bool
		}{{headstate.ToHead, DecodeToHead, true}, {headstate.ToNode, DecodeToNode, false}} {
			m := dir.empty(headstate.Kind(k))
			if m == nil {
				if _, err := dir.decode([]byte{byte(k), 0x90}); err == nil {
					t.Errorf("kind %d: no error", k)
				}
				continue
			}
			seen++
			fill(reflect.ValueOf(m).Elem(), 1)
			b := Encode(m)
			if toHead, toNode := IsMessage(b); b[0] != byte(k) || toHead != dir.toHead || toNode == dir.toHead {
				t.Errorf("%T: kind %d, to head %v, to node %v", m, b[0], toHead, toNode)
			}
			got, err := dir.decode(b)
			if err != nil || !reflect.DeepEqual(got, m) {
				t.Errorf("%T:\n got %+v, %v\nwant %+v", m, got, err, m)
			}
			for cut := 1; cut < len(b); cut++ {
				if _, err := dir.decode(b[:cut]); err == nil {
					t.Errorf("%T cut to %d of %d bytes: no error", m, cut, len(b))
				}
			}
			if c, ok := m.(headstate.Call); ok && c.Numbered(77).Number() != 77 {
				t.Errorf("%T can't be numbered", m)
			}
		}
	}
	if seen != 56 {
		t.Errorf("%d kinds of messages, want 56", seen)
	}
	if _, err := DecodeToHead(nil); fault.KindOf(err) != fault.Protocol {
		t.Errorf("empty message: %v", err)
	}
}

// fill gives every field a value that is not its zero.
func fill(v reflect.Value, n int) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), n+i)
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), n+i)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(k, n)
		fill(e, n)
		v.SetMapIndex(k, e)
	case reflect.String:
		v.SetString(fmt.Sprint("s", n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(int64(n) << 20)
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(n))
	default:
		panic("no value for " + v.Type().String())
	}
}

func FuzzDecodeToHead(f *testing.F) {
	f.Add([]byte{})
	for k := 0; k < 256; k++ {
		if m := headstate.ToHead(headstate.Kind(k)); m != nil {
			fill(reflect.ValueOf(m).Elem(), 1)
			f.Add(Encode(m))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeToHead(b)
		if err == nil && m.Kind() != headstate.Kind(b[0]) {
			t.Errorf("kind %d was read as %d", b[0], m.Kind())
		}
	})
}

func FuzzDecodeToNode(f *testing.F) {
	f.Add([]byte{})
	for k := 0; k < 256; k++ {
		if m := headstate.ToNode(headstate.Kind(k)); m != nil {
			fill(reflect.ValueOf(m).Elem(), 1)
			f.Add(Encode(m))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeToNode(b)
		if err == nil && m.Kind() != headstate.Kind(b[0]) {
			t.Errorf("kind %d was read as %d", b[0], m.Kind())
		}
	})
}

func BenchmarkBoltOpenAndStart(b *testing.B) {
	dir := b.TempDir()
	for i := 0; b.Loop(); i++ {
		s, err := OpenBolt(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			b.Fatal(err)
		}
		h, err := Start(Config{Store: s})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := errors.Join(h.Close(), s.Close()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkDiscardStart(b *testing.B) {
	for b.Loop() {
		h, err := Start(Config{Store: Discard{}})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := h.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
