package wire

import (
	"bytes"
	"errors"
	"testing"

	"gray/internal/core/fault"
)

// fuzzKind: a decoder never panics, answers errors of kind protocol only, and what it accepts encodes to a frame that
// decodes to the same again.
func fuzzKind(f *testing.F, k Kind) {
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) >= MaxFrame {
			t.Skip("no frame is so large")
		}
		c := codecs[k]
		v, err := c.decode(body)
		if err != nil {
			if fault.KindOf(err) != fault.Protocol {
				t.Fatalf("%v is of kind %s", err, fault.KindOf(err))
			}
			return
		}
		again, err := c.encode(nil, v)
		if err != nil {
			t.Fatalf("what was decoded does not encode: %v", err)
		}
		fr, err := NewReader(again).Next()
		if err != nil || fr.Kind != k {
			t.Fatalf("Next: %s, %v", fr.Kind, err)
		}
		if c.exact {
			if !bytes.Equal(fr.Body, body) {
				t.Fatalf("%x became %x", body, fr.Body)
			}
			return
		}
		w, err := c.decode(fr.Body)
		if err != nil {
			t.Fatalf("decoding again: %v", err)
		}
		if a, b := asJSONText(v), asJSONText(w); a != b {
			t.Fatalf("%s became %s", a, b)
		}
	})
}

func FuzzReader(f *testing.F) {
	f.Fuzz(func(t *testing.T, buf []byte) {
		r := NewReader(buf)
		used := 0
		for {
			fr, err := r.Next()
			if err != nil {
				if !errors.Is(err, ErrIncomplete) && fault.KindOf(err) != fault.Protocol {
					t.Fatal(err)
				}
				break
			}
			used += fr.Size()
			if _, err := codecs[fr.Kind].decode(fr.Body); err != nil && fault.KindOf(err) != fault.Protocol {
				t.Fatal(err)
			}
		}
		if used+len(r.Rest()) != len(buf) {
			t.Fatalf("%d used and %d left of %d bytes", used, len(r.Rest()), len(buf))
		}
	})
}

func FuzzMaps(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, dec := range []func() error{
			func() error { _, err := DecodeSpec(b); return err },
			func() error { _, err := DecodeOverrides(b); return err },
			func() error { _, err := DecodeActorSpec(b); return err },
			func() error { _, err := DecodeCreatedActor(b); return err },
			func() error { _, err := DecodeJob(b); return err },
			func() error { _, err := DecodeFault(b); return err },
			func() error { _, err := Call{Map: b}.Method(); return err },
			func() error { _, err := unmarshalAny(b); return err },
		} {
			if err := dec(); err != nil && fault.KindOf(err) != fault.Protocol {
				t.Fatalf("%v is of kind %s", err, fault.KindOf(err))
			}
		}
		if s, err := DecodeSpec(b); err == nil {
			if _, err := s.Marshal(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzHello(f *testing.F) { fuzzKind(f, KindHello) }

func FuzzWelcome(f *testing.F) { fuzzKind(f, KindWelcome) }

func FuzzRefused(f *testing.F) { fuzzKind(f, KindRefused) }

func FuzzTemplate(f *testing.F) { fuzzKind(f, KindTemplate) }

func FuzzTemplateDrop(f *testing.F) { fuzzKind(f, KindTemplateDrop) }

func FuzzSubmit(f *testing.F) { fuzzKind(f, KindSubmit) }

func FuzzPut(f *testing.F) { fuzzKind(f, KindPut) }

func FuzzCreate(f *testing.F) { fuzzKind(f, KindCreate) }

func FuzzSeal(f *testing.F) { fuzzKind(f, KindSeal) }

func FuzzGet(f *testing.F) { fuzzKind(f, KindGet) }

func FuzzWait(f *testing.F) { fuzzKind(f, KindWait) }

func FuzzCancelReq(f *testing.F) { fuzzKind(f, KindCancelReq) }

func FuzzRelease(f *testing.F) { fuzzKind(f, KindRelease) }

func FuzzUnpin(f *testing.F) { fuzzKind(f, KindUnpin) }

func FuzzResult(f *testing.F) { fuzzKind(f, KindResult) }

func FuzzCall(f *testing.F) { fuzzKind(f, KindCall) }

func FuzzChannelClose(f *testing.F) { fuzzKind(f, KindChannelClose) }

func FuzzAbort(f *testing.F) { fuzzKind(f, KindAbort) }

func FuzzCredit(f *testing.F) { fuzzKind(f, KindCredit) }

func FuzzValue(f *testing.F) { fuzzKind(f, KindValue) }

func FuzzReady(f *testing.F) { fuzzKind(f, KindReady) }

func FuzzCreated(f *testing.F) { fuzzKind(f, KindCreated) }

func FuzzDone(f *testing.F) { fuzzKind(f, KindDone) }

func FuzzError(f *testing.F) { fuzzKind(f, KindError) }

func FuzzReply(f *testing.F) { fuzzKind(f, KindReply) }

func FuzzExecute(f *testing.F) { fuzzKind(f, KindExecute) }

func FuzzExecTemplate(f *testing.F) { fuzzKind(f, KindExecTemplate) }

func FuzzSetup(f *testing.F) { fuzzKind(f, KindSetup) }

func FuzzExit(f *testing.F) { fuzzKind(f, KindExit) }

func FuzzExecTemplateDrop(f *testing.F) { fuzzKind(f, KindExecDrop) }

func FuzzIds(f *testing.F) { fuzzKind(f, KindIDs) }

func FuzzActor(f *testing.F) { fuzzKind(f, KindActor) }

func FuzzActorCall(f *testing.F) { fuzzKind(f, KindActorCall) }

func FuzzCancel(f *testing.F) { fuzzKind(f, KindCancel) }

func FuzzExecuteAt(f *testing.F) { fuzzKind(f, KindExecuteAt) }

func FuzzItem(f *testing.F) { fuzzKind(f, KindItem) }

func FuzzNext(f *testing.F) { fuzzKind(f, KindNext) }

func FuzzStreamDrop(f *testing.F) { fuzzKind(f, KindStreamDrop) }

func FuzzLogs(f *testing.F) { fuzzKind(f, KindLogs) }

func FuzzLog(f *testing.F) { fuzzKind(f, KindLog) }

func FuzzLogsFlushed(f *testing.F) { fuzzKind(f, KindLogsFlushed) }

func FuzzWithin(f *testing.F) { fuzzKind(f, KindWithin) }

func FuzzCancelTask(f *testing.F) { fuzzKind(f, KindCancelTask) }

func FuzzItems(f *testing.F) { fuzzKind(f, KindItems) }
