package wire

import (
	"fmt"

	"gray/internal/core/ids"
	"gray/internal/core/resource"
)

// codec decodes a body of one kind and encodes what came out.
type codec struct {
	decode func([]byte) (any, error)
	encode func([]byte, any) ([]byte, error)
	exact  bool // encoding what was decoded gives the same bytes
}

func exact[T any](dec func([]byte) (T, error), enc func([]byte, *T) ([]byte, error)) codec {
	c := loose(dec, enc)
	c.exact = true
	return c
}

func loose[T any](dec func([]byte) (T, error), enc func([]byte, *T) ([]byte, error)) codec {
	return codec{
		decode: func(b []byte) (any, error) { return dec(b) },
		encode: func(b []byte, v any) ([]byte, error) { t := v.(T); return enc(b, &t) },
	}
}

func small[T any](enc func([]byte, T) []byte) func([]byte, *T) ([]byte, error) {
	return func(b []byte, v *T) ([]byte, error) { return enc(b, *v), nil }
}

func byValue[T any](enc func([]byte, T) ([]byte, error)) func([]byte, *T) ([]byte, error) {
	return func(b []byte, v *T) ([]byte, error) { return enc(b, *v) }
}

var codecs = map[Kind]codec{
	KindHello:        loose(DecodeHello, AppendHello),
	KindWelcome:      loose(DecodeWelcome, AppendWelcome),
	KindRefused:      loose(DecodeRefused, AppendRefused),
	KindTemplate:     exact(DecodeTemplate, AppendTemplate),
	KindTemplateDrop: exact(DecodeTemplateDrop, small(AppendTemplateDrop)),
	KindSubmit:       exact(DecodeSubmit, AppendSubmit),
	KindPut:          exact(DecodePut, AppendPut),
	KindCreate:       exact(DecodeCreate, small(AppendCreate)),
	KindSeal:         exact(DecodeSeal, AppendSeal),
	KindGet:          exact(DecodeGet, AppendGet),
	KindWait:         exact(DecodeWait, AppendWait),
	KindCancelReq:    exact(DecodeCancelReq, small(AppendCancelReq)),
	KindRelease:      exact(DecodeRelease, byValue(AppendRelease)),
	KindUnpin:        exact(DecodeUnpin, byValue(AppendUnpin)),
	KindResult:       exact(DecodeResult, AppendResult),
	KindCall:         exact(DecodeCall, AppendCall),
	KindChannelClose: exact(DecodeChannelClose, small(AppendChannelClose)),
	KindAbort:        exact(DecodeAbort, small(AppendAbort)),
	KindCredit:       exact(DecodeCredit, small(AppendCredit)),
	KindValue:        exact(DecodeValue, AppendValue),
	KindReady:        exact(DecodeReady, AppendReady),
	KindCreated:      exact(DecodeCreated, small(AppendCreated)),
	KindDone:         exact(DecodeDone, small(AppendDone)),
	KindError:        exact(DecodeError, AppendError),
	KindReply:        exact(DecodeReply, AppendReply),
	KindExecute:      exact(DecodeExecute, AppendExecute),
	KindExecTemplate: exact(DecodeExecTemplate, AppendExecTemplate),
	KindSetup:        loose(DecodeSetup, AppendSetup),
	KindExit:         exact(DecodeExit, small(AppendExit)),
	KindIDs:          exact(DecodeIDs, AppendIDs),
	KindExecuteAt:    exact(DecodeExecuteAt, small(AppendExecuteAt)),
	KindActor:        exact(DecodeActor, AppendActor),
	KindActorCall:    exact(DecodeActorCall, AppendActorCall),
	KindCancel:       exact(DecodeCancel, small(AppendCancel)),
	KindExecDrop:     exact(DecodeExecDrop, small(AppendExecDrop)),
	KindItem:         exact(DecodeItem, AppendItem),
	KindNext:         exact(DecodeNext, small(AppendNext)),
	KindStreamDrop:   exact(DecodeStreamDrop, small(AppendStreamDrop)),
	KindLogs:         exact(DecodeLogs, small(AppendLogs)),
	KindLog:          exact(DecodeLog, AppendLog),
	KindLogsFlushed:  exact(DecodeLogsFlushed, small(AppendLogsFlushed)),
	KindItems:        exact(DecodeItems, AppendItems),
	KindTaskError:    exact(DecodeTaskError, AppendTaskError),
	KindCallSite:     exact(DecodeCallSite, AppendCallSite),
	KindPart:         exact(DecodePart, AppendPart),
	KindWithin:       exact(DecodeWithin, small(AppendWithin)),
	KindCancelTask:   exact(DecodeCancelTask, small(AppendCancelTask)),
}

func object(owner ids.Owner, counter uint64, index uint32) ids.ObjectID {
	return ids.MakeUnique(owner, counter).Object(ids.JobFromInt(1), index)
}

func list(l ...ids.ObjectID) ids.List {
	var out ids.List
	for _, o := range l {
		out = append(out, o[:]...)
	}
	return out
}

func counts(n ...uint32) Counts {
	var c Counts
	for i, k := range n {
		c = c.Append(object(5, uint64(i), 1), k)
	}
	return c
}

func repeat(b byte, n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = b + byte(i)
	}
	return out
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type frameCase struct {
	name string
	kind Kind
	v    any
}

// cases has at least one frame of each kind.
func cases() []frameCase {
	a, b, c := object(1, 7, 1), object(1, 8, 2), object(0xabcdef, 0x123456789a, 0xffffffff)
	two := int64(2)
	yes := true
	name := "renamed"
	overrides := must(Marshal(&Overrides{Name: &name, MaxRetries: &two, RetryExceptions: &yes, Strategy: &Strategy{Kind: resource.StrategySpread}}))
	spec := must((&Spec{
		Fn: a, FnHash: repeat(9, 20), Name: "f", Qualname: "m.f", Resources: map[string]int64{"CPU": 10000}, MaxRetries: 3,
		Strategy: Strategy{Kind: resource.StrategyNode, Node: ids.NodeID(repeat(3, 28)), Soft: true},
	}).Marshal())
	bare := must((&Spec{MaxRetries: -1, Env: must(Marshal(map[string]any{"env_vars": map[string]string{"A": "1"}}))}).Marshal())
	method := must((&Spec{Name: "A.m", Qualname: "m.A.m", MaxRetries: -1, Method: "m", Group: "io", Ordered: true}).Marshal())
	creation := must((&Spec{Fn: a, Name: "A.__init__", Qualname: "m.A.__init__", Resources: map[string]int64{"CPU": 10000}, Actor: &ActorLimits{
		Held: map[string]int64{}, MaxConcurrency: 1000, Groups: map[string]int64{"io": 2}, IsAsync: true, ClassName: "A",
	}}).Marshal())
	actorSpec := must(Marshal(&ActorSpec{Name: "n", Namespace: "ns", Detached: true, GetIfExists: true, MaxRestarts: -1, ClassName: "A", Meta: []byte("meta"), Body: []byte("\x00body")}))
	job := must(Marshal(map[string]any{
		"namespace": "n", "sys_path": []string{"/a"}, "cwd": "/a", "entrypoint": "x.py",
		"logging": nil, "metadata": map[string]any{}, "runtime_env": map[string]any{},
	}))
	welcome := Welcome{
		Session: [16]byte(repeat(1, 16)), JobID: ids.JobFromInt(1), NodeID: ids.NodeID(repeat(2, 28)), NodeIP: "127.0.0.1",
		GCSAddress: "127.0.0.1:6379", SessionDir: "/tmp/ray/session_x", SessionName: "session_x", Namespace: "n",
		DriverTask: ids.MakeUnique(1, 1).Task(ids.JobFromInt(1)), WorkerID: WorkerID(repeat(4, 28)), ArenaSize: 1 << 33,
		InlineMax: InlineMax, IDs: IDBlock{ids.MakeUnique(1, 1000), 1 << 20}, Credit: 64 << 20, DashboardURL: "127.0.0.1:8265",
	}
	var outputs, empty Outputs
	outputs.Append(&Output{Contained: list(a, b), Value: []byte("\x00abc")})
	outputs.Append(&Output{Where: Arena, Contained: list(c), Size: 1 << 32})
	outputs.Append(&Output{Status: StatusError, Value: []byte{}})
	var deps Deps
	deps.Append(&Dep{ID: a, Contained: list(b), Value: []byte("dep")})
	deps.Append(&Dep{ID: c, Status: StatusError, Where: Arena, Size: 12345, Offset: 64})
	var handed Handed
	handed.Append(&HandedItem{Contained: list(b, c), Value: []byte("\x00item")})
	handed.Append(&HandedItem{Where: Arena})
	handed.Append(&HandedItem{Status: StatusError, Where: Elsewhere})
	unlisted := must((&Spec{Fn: a, Name: "q", Qualname: "m.q", NoEvents: true}).Marshal())
	stream := must((&Spec{Fn: a, Name: "g", Qualname: "m.g", Resources: map[string]int64{"CPU": 10000}, Backpressure: 3}).Marshal())
	fault := must(MarshalFault(&Fault{Kind: "OBJECT_LOST", Error: "gone", More: map[string]any{"node": "n1"}}))

	return []frameCase{
		{"hello driver", KindHello, Hello{Version: 1, Role: RoleDriver, Py: "3.11", Ray: "2.60.0", PID: 4242, Nonce: repeat(0, 16), Cred: repeat(0x80, 32), Job: job}},
		{"hello channel", KindHello, Hello{Version: 1, Role: RoleChannel, Py: "3.9", Ray: "2.60.0", PID: 1, Session: repeat(7, 16), Chan: 3}},
		{"hello of another version", KindHello, Hello{Version: 2}},
		{"welcome", KindWelcome, welcome},
		{"welcome channel", KindWelcome, Welcome{}},
		{"refused", KindRefused, Refused{"python", "Python 3.9 client, 3.11 cluster: install 3.11"}},
		{"template", KindTemplate, Template{7, spec}},
		{"template bare", KindTemplate, Template{0xffffffff, bare}},
		{"template drop", KindTemplateDrop, uint32(7)},
		{"submit", KindSubmit, Submit{Template: 7, Unique: ids.MakeUnique(1, 9), NumReturns: 1, Deps: list(a, b), Contained: list(c), Overrides: overrides, Args: []byte("\x00args")}},
		{"submit nothing", KindSubmit, Submit{Deps: list(), Contained: list(), Overrides: []byte{}, Args: []byte{}}},
		{"submit args in dep", KindSubmit, Submit{Template: 1, Unique: ids.MakeUnique(ids.MaxOwner, 1<<40-1), NumReturns: 2, Flags: FlagArgsInDep, Deps: list(c)}},
		{"put", KindPut, Put{ID: a, Contained: list(b, c), Value: []byte("\x02raw")}},
		{"put error", KindPut, Put{ID: a, Status: StatusError, Value: []byte("\x03")}},
		{"create", KindCreate, Create{1, 2, a, 1 << 40}},
		{"seal", KindSeal, Seal{ID: a, Contained: list(b)}},
		{"get", KindGet, Get{Chan: 3, Req: 4, IDs: list(a, b, c)}},
		{"wait", KindWait, Wait{Chan: 3, Req: 5, Need: 1, Flags: FlagFetch, IDs: list(a)}},
		{"wait no new", KindWait, Wait{Chan: 3, Req: 6, Need: 2, IDs: list()}},
		{"cancel req", KindCancelReq, CancelReq{3, 4}},
		{"release", KindRelease, counts(1, 2, 0xffffffff)},
		{"unpin", KindUnpin, counts(1)},
		{"result", KindResult, Result{Unique: ids.MakeUnique(1, 9), Attempt: 1, Outcome: OutcomeLeaving, Outputs: outputs}},
		{"result none", KindResult, Result{Unique: ids.MakeUnique(1, 9), Attempt: 2, Outcome: OutcomeRetriable, Outputs: empty}},
		{"call", KindCall, Call{1, 9, must(Marshal(map[string]any{"m": "kv_get", "ns": "fun", "key": []byte{1, 2}}))}},
		{"channel close", KindChannelClose, uint32(3)},
		{"abort", KindAbort, a},
		{"credit", KindCredit, Credit{1, 10, 1 << 33}},
		{"value inline", KindValue, Value{Req: 4, ID: a, Contained: list(b), Value: []byte("\x00v"), Size: 2}},
		{"value arena", KindValue, Value{Req: 4, ID: a, Status: StatusError, Where: Arena, Contained: list(), Offset: 128, Size: 1 << 30}},
		{"ready", KindReady, Ready{5, list(a, c)}},
		{"created", KindCreated, Created{2, 4096}},
		{"done", KindDone, Done{4, DoneCancelled}},
		{"error", KindError, Answer{2, fault}},
		{"reply", KindReply, Answer{9, must(Marshal(map[string]any{"value": nil, "x": 1.5, "n": -3}))}},
		{"execute", KindExecute, Execute{Unique: ids.MakeUnique(1, 9), Attempt: 3, Job: ids.JobFromInt(2), Template: 7, NumReturns: 1, Overrides: overrides, Deps: deps, Contained: list(a), Args: []byte("args")}},
		{"execute bare", KindExecute, Execute{Unique: ids.MakeUnique(1, 9), NumReturns: 0}},
		{"exec template", KindExecTemplate, Template{1, spec}},
		{"setup", KindSetup, Setup{Welcome: welcome, Job: job, RuntimeEnv: job, WorkingDir: "/w", PyModules: []string{"/m"}, Accelerators: map[string][]int{"GPU": {0, 3}}, Resources: map[string]int64{"CPU": 10000}}},
		{"setup actor", KindSetup, Setup{Welcome: welcome, Actor: &SetupActor{ID: repeat(1, 16), Name: "n", Namespace: "ns", ClassName: "A", Incarnation: 2, MaxConcurrency: 1, Groups: map[string]int64{"io": 2}, IsAsync: true, Body: []byte("\x00body")}}},
		{"exit", KindExit, uint8(2)},
		{"exec template drop", KindExecDrop, uint32(1)},
		{"ids", KindIDs, IDs{a, list(b, c)}},
		{"ids none", KindIDs, IDs{a, list()}},
		{"actor", KindActor, Actor{Chan: 1, Req: 2, Template: 7, Unique: ids.MakeUnique(1, 9), Flags: FlagArgsInDep, Deps: list(a), Contained: list(b, c), Spec: actorSpec, Args: []byte("\x00args")}},
		{"actor bare", KindActor, Actor{Unique: ids.MakeUnique(1, 9), Deps: list(), Contained: list(), Spec: []byte{}, Args: []byte{}}},
		{"actor call", KindActorCall, ActorCall{Template: 7, Unique: ids.MakeUnique(1, 10), Actor: ids.MakeUnique(1, 9).Actor(ids.JobFromInt(1)), NumReturns: 1, Flags: FlagWeak, Deps: list(a), Contained: list(b), Overrides: overrides, Args: []byte("\x00args")}},
		{"actor call bare", KindActorCall, ActorCall{Deps: list(), Contained: list(), Overrides: []byte{}, Args: []byte{}}},
		{"cancel", KindCancel, Cancel{ids.MakeUnique(1, 10), 2}},
		{"template method", KindTemplate, Template{8, method}},
		{"template creation", KindTemplate, Template{9, creation}},
		{"execute at", KindExecuteAt, ExecuteAt{1 << 33, 200_000}},
		{"submit stream", KindSubmit, Submit{Template: 7, Unique: ids.MakeUnique(1, 9), NumReturns: 1, Flags: FlagStream, Deps: list(), Contained: list(), Overrides: []byte{}, Args: []byte{}}},
		{"template stream", KindTemplate, Template{10, stream}},
		{"item", KindItem, Item{Unique: ids.MakeUnique(1, 9), Attempt: 1, Index: 2, Output: Output{Contained: list(a), Size: 5, Value: []byte("\x00item")}}},
		{"item arena", KindItem, Item{Unique: ids.MakeUnique(1, 9), Index: 0xffffffff, Output: Output{Status: StatusError, Where: Arena, Contained: list(), Size: 1 << 32}}},
		{"next", KindNext, Next{Chan: 1, Req: 7, ID: a, From: 2, Read: 1, Flags: FlagBeside}},
		{"stream drop", KindStreamDrop, a},
		{"logs", KindLogs, Logs{Chan: 3, Req: 1, Taken: 1 << 33, Flags: FlagFlush}},
		{"log", KindLog, Log{Req: 1, Stream: LogErr, Text: []byte("(f pid=1) line\n")}},
		{"log empty", KindLog, Log{Req: 1, Text: []byte{}}},
		{"logs flushed", KindLogsFlushed, uint32(1)},
		{"within", KindWithin, ids.MakeUnique(1, 10)},
		{"cancel task", KindCancelTask, CancelTask{a, CancelForce | CancelRecursive}},
		{"items", KindItems, Items{Req: 7, ID: a, First: 2, List: handed}},
		{"items none", KindItems, Items{Req: 8, ID: a, First: 5, Ended: 1}},
		{"task error", KindTaskError, TaskError{ids.MakeUnique(1, 9), []byte("ValueError: no")}},
		{"task error empty", KindTaskError, TaskError{Unique: ids.MakeUnique(1, 9), Text: []byte{}}},
		{"call site", KindCallSite, CallSite{ids.MakeUnique(1, 9), []byte("a.py:f:3")}},
		{"part", KindPart, Part{9, 1, []byte("piece")}},
		{"template unlisted", KindTemplate, Template{11, unlisted}},
	}
}

// bad are frames that must be refused.
func badFrames() []struct {
	name string
	raw  []byte
} {
	a := object(1, 7, 1)
	body := func(k Kind, parts ...any) []byte {
		b := begin(nil, k)
		for _, p := range parts {
			switch p := p.(type) {
			case int:
				b = le32(b, uint32(p))
			case byte:
				b = append(b, p)
			case uint64:
				b = le64(b, p)
			case string:
				b = append(b, p...)
			case ids.ObjectID:
				b = append(b, p[:]...)
			default:
				panic(fmt.Sprintf("%T", p))
			}
		}
		return fixed(b, 0)
	}
	return []struct {
		name string
		raw  []byte
	}{
		{"length 0", []byte{0, 0, 0, 0, 0x10}},
		{"length over the limit", []byte{1, 0, 0x10, 0, 0x12}},
		{"length 4 GiB", []byte{0xff, 0xff, 0xff, 0xff, 0x12}},
		{"unknown kind", []byte{1, 0, 0, 0, 0x7f}},
		{"kind 0", []byte{1, 0, 0, 0, 0}},
		{"hello other magic", body(KindHello, "RAYG\x01\x00\x80")},
		{"hello no map", body(KindHello, "GRAY\x01\x00")},
		{"hello unknown role", body(KindHello, "GRAY\x01\x00\x81\xa4role\xa1x")},
		{"hello short nonce", body(KindHello, "GRAY\x01\x00\x82\xa4role\xa6driver\xa5nonce\xc4\x01\x00")},
		{"submit truncated", body(KindSubmit, 1, 2)},
		{"submit more deps than bytes", body(KindSubmit, 1, uint64(0), 1, byte(0), byte(0), -1, 0, 0)},
		{"submit overrides too long", body(KindSubmit, 1, uint64(0), 1, byte(0), byte(0), 0, 0, 5, "abcd")},
		{"get more ids than bytes", body(KindGet, 1, 1, byte(0), 1000000)},
		{"get trailing byte", body(KindGet, 1, 1, byte(0), 0, byte(9))},
		{"wait truncated id", body(KindWait, 1, 1, 1, byte(0), 1, "short")},
		{"release count wraps", body(KindRelease, 0x08000001, a, 1)},
		{"result bad outcome", body(KindResult, uint64(0), 1, byte(5), 0)},
		{"result more outputs than bytes", body(KindResult, uint64(0), 1, byte(0), -1)},
		{"result huge inline size", body(KindResult, uint64(0), 1, byte(0), 1, byte(0), byte(0), 0, ^uint64(0))},
		{"result bad where", body(KindResult, uint64(0), 1, byte(0), 1, byte(0), byte(2), 0, uint64(0))},
		{"put bad status", body(KindPut, a, byte(2), 0)},
		{"seal trailing", body(KindSeal, a, byte(0), 0, "x")},
		{"value bad where", body(KindValue, 1, a, byte(0), byte(2), 0)},
		{"execute more deps than bytes", body(KindExecute, uint64(0), 1, "job1", 1, 1, byte(0), byte(0), -1, 0)},
		{"call no map", body(KindCall, 1, 1, "\x01")},
		{"call empty", body(KindCall, 1, 1)},
		{"call map too short", body(KindCall, 1, 1, "\x82\xa1m\xa1x")},
		{"call two values", body(KindCall, 1, 1, "\x80\x80")},
		{"reply array of 4 billion", body(KindReply, 1, "\x81\xa1x\xdd\xff\xff\xff\xff")},
		{"template no map", body(KindTemplate, 1, "\xc0")},
		{"done truncated", body(KindDone, 1)},
		{"exit empty", body(KindExit)},
		{"abort short", body(KindAbort, "abc")},
		{"ids cut within an id", body(KindIDs, a, "abc")},
		{"ids empty", body(KindIDs)},
		{"actor call short", body(KindActorCall, 1, uint64(0), "short")},
		{"actor spec too long", body(KindActor, 1, 1, 1, uint64(0), byte(0), byte(0), 0, 0, 5, "abcd")},
		{"cancel trailing", body(KindCancel, uint64(0), 1, "x")},
		{"execute at short", body(KindExecuteAt, uint64(1))},
		{"item of index 1", body(KindItem, uint64(0), 1, 1, byte(0), byte(0), 0, uint64(0))},
		{"item truncated", body(KindItem, uint64(0), 1, 2, byte(0), byte(0), 0, uint64(5), "abcd")},
		{"next from 1", body(KindNext, 1, 1, a, 1, 1, byte(0))},
		{"items more than bytes", body(KindItems, 1, a, 2, byte(0), -1)},
		{"items bad where", body(KindItems, 1, a, 2, byte(0), 1, byte(0), byte(3), 0, 0)},
		{"stream drop short", body(KindStreamDrop, "abc")},
		{"task error short", body(KindTaskError, "abc")},
		{"call site short", body(KindCallSite, "abc")},
		{"part short", body(KindPart, 1, "abc")},
		{"logs short", body(KindLogs, 1, 1, byte(0))},
		{"log bad stream", body(KindLog, 1, byte(3), "text")},
		{"logs flushed trailing", body(KindLogsFlushed, 1, "x")},
		{"within short", body(KindWithin, "abc")},
		{"cancel task without flags", body(KindCancelTask, a)},
	}
}
