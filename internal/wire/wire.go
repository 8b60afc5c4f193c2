// Package wire is the codec of the client protocol (docs/protocol.md): frames, their bodies, and the msgpack maps in them.
//
// Decoding copies nothing: the byte slices and id lists of a decoded struct alias the frame's body and live as long as
// the buffer that the frame was read into. Everything in a frame is untrusted: a decoder checks each count against the
// bytes that are left before it uses it, and answers a *fault.Error of kind fault.Protocol that names the frame and
// what is wrong with it. Decoders of the hot kinds (SUBMIT, EXECUTE, RESULT, GET, RELEASE) allocate nothing.
//
// Encoders append one whole frame to the caller's slice and allocate only when that must grow. Those of kinds that can
// outgrow MaxFrame return an error then, and the slice as it was.
//
//	r := wire.NewReader(buf)
//	for {
//		f, err := r.Next() // ErrIncomplete: read more, then go on from r.Rest()
//		if err != nil {
//			break
//		}
//		if f.Kind == wire.KindSubmit {
//			s, err := wire.DecodeSubmit(f.Body)
//			…
//		}
//	}
package wire

import "fmt"

// Version is the protocol version of HELLO.
const Version = 1

const (
	// MaxFrame is the largest value of a frame's length field: kind and body, in bytes.
	MaxFrame = 1 << 20
	// MaxPacket is the most bytes of whole frames in one packet to a worker.
	MaxPacket = 128 << 10
	// InlineMax is the largest value, in bytes, that travels in a frame.
	InlineMax = 100 << 10
	// HeaderSize is the bytes of a frame before its body.
	HeaderSize = 5
	// SessionSize, NonceSize and CredSize are the sizes in bytes of HELLO's fields.
	SessionSize, NonceSize, CredSize = 16, 16, 32
)

// Kind is the kind byte of a frame.
type Kind uint8

// The kinds; docs/protocol.md has their bodies.
const (
	KindIDs          Kind = 0x0f
	KindHello        Kind = 0x01
	KindWelcome      Kind = 0x02
	KindRefused      Kind = 0x03
	KindTemplate     Kind = 0x10
	KindTemplateDrop Kind = 0x11
	KindSubmit       Kind = 0x12
	KindPut          Kind = 0x13
	KindCreate       Kind = 0x14
	KindSeal         Kind = 0x15
	KindGet          Kind = 0x16
	KindWait         Kind = 0x17
	KindCancelReq    Kind = 0x18
	KindRelease      Kind = 0x19
	KindUnpin        Kind = 0x1a
	KindResult       Kind = 0x1b
	KindCall         Kind = 0x1c
	KindChannelClose Kind = 0x1d
	KindAbort        Kind = 0x1e
	KindCredit       Kind = 0x1f
	KindActor        Kind = 0x20
	KindActorCall    Kind = 0x21
	KindItem         Kind = 0x22
	KindNext         Kind = 0x23
	KindStreamDrop   Kind = 0x24
	KindTaskError    Kind = 0x2b
	KindCallSite     Kind = 0x2c
	KindLogs         Kind = 0x28
	KindWithin       Kind = 0x26
	KindCancelTask   Kind = 0x27
	KindValue        Kind = 0x30
	KindReady        Kind = 0x31
	KindCreated      Kind = 0x32
	KindDone         Kind = 0x33
	KindError        Kind = 0x34
	KindReply        Kind = 0x35
	KindItems        Kind = 0x36
	KindPart         Kind = 0x3c
	KindLog          Kind = 0x38
	KindLogsFlushed  Kind = 0x39
	KindExecute      Kind = 0x40
	KindExecTemplate Kind = 0x41
	KindSetup        Kind = 0x42
	KindExit         Kind = 0x43
	KindExecDrop     Kind = 0x44
	KindExecuteAt    Kind = 0x45
	KindCancel       Kind = 0x46
)

var kindNames = [256]string{
	KindIDs: "IDS", KindExecuteAt: "EXECUTE_AT", KindWithin: "WITHIN", KindCancelTask: "CANCEL_TASK",
	KindHello: "HELLO", KindWelcome: "WELCOME", KindRefused: "REFUSED",
	KindTemplate: "TEMPLATE", KindTemplateDrop: "TEMPLATE_DROP", KindSubmit: "SUBMIT", KindPut: "PUT",
	KindCreate: "CREATE", KindSeal: "SEAL", KindGet: "GET", KindWait: "WAIT", KindCancelReq: "CANCEL_REQ",
	KindRelease: "RELEASE", KindUnpin: "UNPIN", KindResult: "RESULT", KindCall: "CALL",
	KindChannelClose: "CHANNEL_CLOSE", KindAbort: "ABORT", KindCredit: "CREDIT",
	KindValue: "VALUE", KindReady: "READY", KindCreated: "CREATED", KindDone: "DONE", KindError: "ERROR",
	KindReply: "REPLY", KindExecute: "EXECUTE", KindExecTemplate: "EXEC_TEMPLATE", KindSetup: "SETUP", KindExit: "EXIT",
	KindExecDrop: "EXEC_TEMPLATE_DROP", KindActor: "ACTOR", KindActorCall: "ACTOR_CALL", KindCancel: "CANCEL",
	KindItem: "ITEM", KindNext: "NEXT", KindStreamDrop: "STREAM_DROP", KindItems: "ITEMS",
	KindTaskError: "TASK_ERROR", KindCallSite: "CALL_SITE", KindPart: "PART",
	KindLogs: "LOGS", KindLog: "LOG", KindLogsFlushed: "LOGS_FLUSHED",
}

// Known tells whether k is a kind of this protocol version.
func (k Kind) Known() bool { return kindNames[k] != "" }

// String is the kind's name in docs/protocol.md.
func (k Kind) String() string {
	if s := kindNames[k]; s != "" {
		return s
	}
	return fmt.Sprintf("0x%02x", uint8(k))
}

// Status tells a value from an error.
type Status uint8

// The statuses of an object.
const (
	StatusValue Status = 0
	StatusError Status = 1
)

// Where tells how a value travels.
type Where uint8

// A value is in the frame, in the arena, or (ITEMS) in the arenas of other nodes.
const (
	Inline    Where = 0
	Arena     Where = 1
	Elsewhere Where = 2
)

// Outcome says how an execution ended.
type Outcome uint8

// The outcomes of RESULT.
const (
	OutcomeValues    Outcome = 0 // values were returned
	OutcomeRaised    Outcome = 1 // the task raised; every output holds the error
	OutcomeRetriable Outcome = 2 // the task raised what its retry_exceptions names
	OutcomeLeaving   Outcome = 3 // values were returned, and the worker leaves now (max_calls)
	OutcomeExit      Outcome = 4 // an actor leaves with this call, because it wants to
)

// Flags and codes.
const (
	FlagArgsInDep uint16 = 1 << 0 // SUBMIT, EXECUTE: the args are the value of dep 0
	FlagWeak      uint16 = 1 << 1 // ACTOR_CALL: the handle does not keep the actor alive
	FlagStream    uint16 = 1 << 2 // SUBMIT, ACTOR_CALL, EXECUTE: what the generator yields is sent item by item
	FlagDynamic   uint16 = 1 << 3 // SUBMIT, ACTOR_CALL, EXECUTE: the output is a list of what the generator yields
	FlagCreation  uint16 = 1 << 4 // EXECUTE: an actor is created
	FlagAlone     uint16 = 1 << 6 // EXECUTE: the worker was sent nothing else that it has not answered
	FlagCall      uint16 = 1 << 5 // EXECUTE: a method of the worker's actor
	FlagFetch     uint8  = 1 << 0 // WAIT: ready means ready on this machine
	FlagBeside    uint8  = 1 << 0 // NEXT: it stands beside the channel's other requests
	FlagFlush     uint8  = 1 << 0 // LOGS: LOGS_FLUSHED is wanted after all that was printed so far

	DoneAll       uint8 = 0 // DONE: all was answered
	DoneCancelled uint8 = 1 // DONE: the request was cancelled
)

// First bytes of a value: its format.
const (
	FormatPickle    = 0
	FormatBuffers   = 1
	FormatRaw       = 2
	FormatException = 3
	FormatFault     = 4
	FormatMsgpack   = 5
)
