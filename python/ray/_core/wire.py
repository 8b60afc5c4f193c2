"""Frames of the client protocol (docs/protocol.md): kinds, fixed layouts, builders. No I/O and no state."""

from struct import Struct

PROTOCOL = 1
MAX_FRAME = 1 << 20
MAX_PACKET = 131072
ID = 28
OUTPUT = 14  # bytes of an output in RESULT, but for contained ids and an inline value
MAX_RETURNS = 65536  # of a task
_MOST_TEXT = 2048  # characters of a text for lists: the daemon keeps no more

IDS = 0x0F
HELLO, WELCOME, REFUSED = 0x01, 0x02, 0x03
TEMPLATE, TEMPLATE_DROP, SUBMIT, PUT, CREATE, SEAL, GET, WAIT = range(0x10, 0x18)
CANCEL_REQ, RELEASE, UNPIN, RESULT, CALL, CHANNEL_CLOSE, ABORT, CREDIT = range(0x18, 0x20)
ACTOR, ACTOR_CALL, ITEM, NEXT, STREAM_DROP = range(0x20, 0x25)
TASK_ERROR, CALL_SITE, PART = 0x2B, 0x2C, 0x3C
LOGS = 0x28
WITHIN, CANCEL_TASK = 0x26, 0x27
VALUE, READY, CREATED, DONE, ERROR, REPLY, ITEMS = range(0x30, 0x37)
LOG, LOGS_FLUSHED = 0x38, 0x39
EXECUTE, X_TEMPLATE, SETUP, EXIT, X_TEMPLATE_DROP, EXECUTE_AT, CANCEL = range(0x40, 0x47)

INLINE, ARENA, ELSEWHERE = 0, 1, 2
OK, FAILED = 0, 1
ARGS_IN_DEP0, WEAK_HANDLE, STREAM, DYNAMIC, CREATION, METHOD, ALONE = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40
VALUES, RAISED, RETRIABLE, LEAVES, ACTOR_EXITS = range(5)  # outcomes of RESULT
FETCH = 1
BESIDE = 1
FLUSH = 1
LOG_OUT, LOG_ERR, LOG_BARS = range(3)
FORCE, RECURSIVE, HEARD = 1, 2, 4

# Value formats.
PICKLE, PICKLE_BUFFERS, RAW, EXCEPTION, DAEMON_ERROR, MSGPACK = range(6)

_u32 = Struct("<I")
_u64 = Struct("<Q")
head = Struct("<IB")  # length, kind
head_u32 = Struct("<IBI")
_submit = Struct("<IBI8sIHIII")
_actor = Struct("<IBIII8sHIII")
_actor_call = Struct("<IBI8s16sIHIII")
call_tail = Struct("<16sIH12x")  # of an ACTOR_CALL that carries nothing: actor, num_returns, flags
_put = Struct("<IB28sBI")
_create = Struct("<IBII28sQ")
_ask = Struct("<IBIIBI")
_ask_one = Struct("<IBIIBI28s")
_wait = Struct("<IBIIIBI")
_two = Struct("<IBII")
_credit = Struct("<IBIIQ")
_id_n = Struct("<28sI")
_output = Struct("<BBI")
_result = Struct("<IB8sIBI")
value = Struct("<IBI28sBBI")  # up to n_contained; 46 bytes
execute = Struct("<8sI4sIIHII")  # up to len_overrides; 34 bytes
dep = Struct("<28sBBI")
unique = Struct(">Q")
_item = Struct("<IB8sII")
_next = Struct("<IBII28sIIB")
_logs = Struct("<IBIIQB")
items = Struct("<IBI28sIBI")  # up to n; 46 bytes
handed = Struct("<BBII")  # status, where, n_contained, size

u32 = _u32.unpack_from
u64 = _u64.unpack_from
pack_u32 = _u32.pack
pack_u64 = _u64.pack


class ProtocolError(Exception):
    """The other side sent a frame that the protocol does not allow."""


def frame(kind: int, body: bytes) -> bytes:
    """A whole frame of any kind."""
    return head.pack(1 + len(body), kind) + body


def submit(template, unique8, num_returns, flags, deps, contained, overrides, args) -> bytes:
    """SUBMIT; deps and contained are lists of ids, overrides and args bytes."""
    body = b"".join((*deps, *contained, overrides, args))
    return (
        _submit.pack(
            31 + len(body), SUBMIT, template, unique8, num_returns, flags, len(deps), len(contained), len(overrides)
        )
        + body
    )


def actor(chan, req, template, unique8, flags, deps, contained, spec, args) -> bytes:
    """ACTOR; spec and args are bytes."""
    body = b"".join((*deps, *contained, spec, args))
    return (
        _actor.pack(35 + len(body), ACTOR, chan, req, template, unique8, flags, len(deps), len(contained), len(spec))
        + body
    )


def actor_call(template, unique8, actor_id, num_returns, flags, deps, contained, overrides, args) -> bytes:
    """ACTOR_CALL; as SUBMIT, to an actor."""
    body = b"".join((*deps, *contained, overrides, args))
    return (
        _actor_call.pack(
            47 + len(body),
            ACTOR_CALL,
            template,
            unique8,
            actor_id,
            num_returns,
            flags,
            len(deps),
            len(contained),
            len(overrides),
        )
        + body
    )


def put(oid, status, contained, data) -> bytes:
    """PUT of a value that fits into a frame."""
    ids = b"".join(contained)
    return _put.pack(34 + len(ids) + len(data), PUT, oid, status, len(contained)) + ids + data


def create(chan, req, oid, size) -> bytes:
    """CREATE of an arena object of size bytes."""
    return _create.pack(45, CREATE, chan, req, oid, size)


def seal(oid, status, contained) -> bytes:
    """SEAL of a created object."""
    return _put.pack(34 + ID * len(contained), SEAL, oid, status, len(contained)) + b"".join(contained)


def get(chan, req, ids) -> bytes:
    """GET of a list of ids."""
    return _ask.pack(14 + ID * len(ids), GET, chan, req, 0, len(ids)) + b"".join(ids)


def get_one(chan, req, oid) -> bytes:
    """GET of one id."""
    return _ask_one.pack(42, GET, chan, req, 0, 1, oid)


def wait(chan, req, need, flags, ids) -> bytes:
    """WAIT with the ids that this channel does not watch yet."""
    return _wait.pack(18 + ID * len(ids), WAIT, chan, req, need, flags, len(ids)) + b"".join(ids)


def cancel_req(chan, req) -> bytes:
    """CANCEL_REQ."""
    return _two.pack(9, CANCEL_REQ, chan, req)


def call(chan, req, body) -> bytes:
    """CALL; body is the packed map."""
    return _two.pack(9 + len(body), CALL, chan, req) + body


def credit(chan, req, total) -> bytes:
    """CREDIT."""
    return _credit.pack(17, CREDIT, chan, req, total)


def abort(oid) -> bytes:
    """ABORT."""
    return head.pack(29, ABORT) + oid


def channel_close(chan) -> bytes:
    """CHANNEL_CLOSE."""
    return head_u32.pack(5, CHANNEL_CLOSE, chan)


def template(no, body) -> bytes:
    """TEMPLATE; body is the packed map."""
    return head_u32.pack(5 + len(body), TEMPLATE, no) + body


def template_drop(no) -> bytes:
    """TEMPLATE_DROP."""
    return head_u32.pack(5, TEMPLATE_DROP, no)


def counts(kind, pairs) -> bytes:
    """RELEASE or UNPIN of (id, n) pairs; as many frames as they need."""
    pairs = list(pairs)
    most = 30000
    if len(pairs) <= most:
        body = b"".join([_id_n.pack(i, n) for i, n in pairs])
        return head_u32.pack(5 + len(body), kind, len(pairs)) + body
    return b"".join([counts(kind, pairs[i : i + most]) for i in range(0, len(pairs), most)])


def output(status, where, contained, size, data=b"") -> bytes:
    """One output of RESULT."""
    return b"".join((_output.pack(status, where, len(contained)), *contained, pack_u64(size), data))


def result(unique8, attempt, outcome, outputs) -> bytes:
    """RESULT of a task."""
    body = b"".join(outputs)
    return _result.pack(18 + len(body), RESULT, unique8, attempt, outcome, len(outputs)) + body


def item(unique8, attempt, index, part) -> bytes:
    """ITEM of a generator; part is an output."""
    return _item.pack(17 + len(part), ITEM, unique8, attempt, index) + part


def next_items(chan, req, oid, start, read, flags) -> bytes:
    """NEXT of a stream, from index start on; items up to read are taken."""
    return _next.pack(46, NEXT, chan, req, oid, start, read, flags)


def stream_drop(oid) -> bytes:
    """STREAM_DROP."""
    return head.pack(29, STREAM_DROP) + oid


def task_error(unique8, text: str) -> bytes:
    """TASK_ERROR: why the attempt of a task fails whose RESULT follows."""
    return frame(TASK_ERROR, unique8 + _utf8(text))


def call_site(unique8, text: str) -> bytes:
    """CALL_SITE: where in the program the call or put with this unique is made."""
    return frame(CALL_SITE, unique8 + _utf8(text))


def _utf8(text):
    return text[-_MOST_TEXT:].encode("utf-8", "replace")


def logs(chan, req, taken, flags) -> bytes:
    """LOGS: taken bytes of text in all were shown."""
    return _logs.pack(18, LOGS, chan, req, taken, flags)


def within(unique8) -> bytes:
    """WITHIN."""
    return head.pack(9, WITHIN) + unique8


def cancel_task(oid, flags) -> bytes:
    """CANCEL_TASK."""
    return head.pack(30, CANCEL_TASK) + oid + bytes((flags,))


def split_contained(oid, contained, room):
    """Bring a list of contained ids into a frame: (IDS frames to go before it, the ids that stay in it).

    room is how many bytes of ids the frame can take.
    """
    if len(contained) * ID <= room:
        return b"", contained
    most = (MAX_FRAME - 64) // ID
    frames = []
    for i in range(0, len(contained), most):
        frames.append(frame(IDS, oid + b"".join(contained[i : i + most])))
    return b"".join(frames), []


def split_ids(raw) -> list:
    """Cut joined ids into a list."""
    return [raw[i : i + ID] for i in range(0, len(raw), ID)]


def packed(overrides) -> bytes:
    """A call's overrides as they stand in its frame."""
    if not overrides:
        return b""
    import msgpack

    return msgpack.packb(overrides)
