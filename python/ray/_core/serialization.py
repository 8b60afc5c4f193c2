"""Values to bytes and back: the formats of docs/protocol.md.

Refs inside a value are listed beside it. They are pickled as calls of ``_contained(id)``; the reader resolves that name to a
C method of a dict of refs, so that a list of 10,000 refs costs little. Buffers go out of band and come back as read-only
views of the bytes they lie in.
"""

from __future__ import annotations

import io
import pickle
from struct import Struct
from types import CodeType, FunctionType

from ray._core import refs, wire
from ray._core.refs import CLOSED, ObjectRef, Value
from ray._core.task import OURS

OURS.add(__file__)

PLAIN = frozenset((int, float, str, bool, type(None)))
_ALIGN = 64
_buffers_head = Struct("<B3xIQ")
_buffer_at = Struct("<QQ")
_dumps = pickle.dumps
_loads = pickle.loads
_FMT_PICKLE = b"\x00"
_FMT_RAW = b"\x02"
_FMT_EXCEPTION = b"\x03"


class Payload:
    """A serialized value, not yet contiguous.

    Attributes:
        size: Bytes of the whole value.
        status: 0 value, 1 error.
        refs: The ObjectRefs in it, held until the frame that lists them is buffered.
    """

    __slots__ = ("pieces", "refs", "size", "status")

    def __init__(self, pieces, size, contained=(), status=0):
        self.pieces = pieces  # list of (offset, bytes-like) in order; gaps are zero
        self.size = size
        self.refs = contained
        self.status = status

    @property
    def ids(self) -> list:
        """The contained ids."""
        return [r._id for r in self.refs]

    def tobytes(self) -> bytes:
        """The value as bytes."""
        pieces = self.pieces
        if len(pieces) == 1:
            piece = pieces[0][1]
            return piece if type(piece) is bytes else bytes(piece)
        out = []
        at = 0
        for offset, piece in pieces:
            if offset > at:
                out.append(bytes(offset - at))
            out.append(piece)
            at = offset + len(piece)
        return b"".join(out)


class _NotPlain(Exception):
    pass


def stale(ref):
    """The error for a ref of a connection that is closed: its id may be that of another object by now."""
    from ray import exceptions

    return exceptions.of_closed_session(
        f"{ref!r} belongs to a cluster connection that was closed by ray.shutdown(); its object is gone. Make it again."
    )


def _contained(oid):
    """What a ref is pickled as; only reached where the reader did not come through deserialize."""
    return refs.intern(oid, refs.UNCOUNTED)


_with_refs: dict = {}
_by_name = {_contained}  # functions that are pickled by name


def with_refs(cls, rebuild):
    """Pickle instances of exactly ``cls`` by their ``__reduce__``, a call of ``rebuild`` with builtins and refs."""
    _with_refs[cls] = rebuild
    _by_name.add(rebuild)


class _RefPickler(pickle.Pickler):
    """Containers of builtins and refs. Anything else needs cloudpickle, whose start-up and calls cost more."""

    def __init__(self, file, contained):
        super().__init__(file, 5, buffer_callback=_not_in_band)
        self.contained = contained

    def reducer_override(self, obj):
        t = type(obj)
        if t is ObjectRef:
            if obj._w is CLOSED:
                raise stale(obj)
            self.contained.append(obj)
            return _contained, (obj._id,)
        if t in _with_refs:
            return obj.__reduce__()
        if t is FunctionType and obj in _by_name:
            return NotImplemented
        raise _NotPlain


_custom: dict = {}
_pickler_class = None


_NO_FILE = "<dynamic-code>"


def _with_file(code, make, args):
    """What cloudpickle makes of code, but with its file: 3.1.3 leaves that out, and tracebacks show lines by it."""
    return make, tuple("".join(code.co_filename) if type(a) is str and a == _NO_FILE else a for a in args)


def _make_pickler():
    """The cloudpickle subclass; made on first use, for cloudpickle takes milliseconds to import."""
    global _pickler_class
    import cloudpickle

    base_override = cloudpickle.Pickler.reducer_override
    reduce_code = cloudpickle.Pickler.dispatch_table[CodeType]

    class Pickler(cloudpickle.Pickler):
        def __init__(self, file, contained, buffers):
            super().__init__(file, 5, buffers.append if buffers is not None else None)
            self.contained = contained

        def reducer_override(self, obj):
            t = type(obj)
            if t is ObjectRef:
                if obj._w is CLOSED:
                    raise stale(obj)
                self.contained.append(obj)
                return _contained, (obj._id,)
            if _custom and t in _custom:
                return registered(obj)
            if t is FunctionType or isinstance(obj, type):
                return base_override(self, obj)
            if t is CodeType:
                return _with_file(obj, *reduce_code(obj))
            return NotImplemented

    _pickler_class = Pickler
    return Pickler


def register_serializer(cls, serializer, deserializer):
    """Pickle instances of exactly ``cls`` as ``deserializer(serializer(obj))``, in this process."""
    _custom[cls] = (serializer, deserializer)


def registered(obj):
    """What ``obj`` is pickled as by the serializer of its class; None if there is none."""
    found = _custom.get(type(obj))
    if found is None:
        return None
    serializer, deserializer = found
    return deserializer, (serializer(obj),)


def deregister_serializer(cls):
    """Undo register_serializer; nothing happens if there was none."""
    _custom.pop(cls, None)


def serialize(value) -> Payload:
    """Serialize any value. A ``RayError`` becomes an error: who gets it has it raised, as from a task that failed with it.

    Raises:
        TypeError, pickle.PicklingError, …: Whatever the value's own pickling raises.
    """
    t = type(value)
    if t in PLAIN:
        data = _FMT_PICKLE + _dumps(value, 5)
        return Payload([(0, data)], len(data))
    if t is bytes:
        return Payload([(0, _FMT_RAW), (1, value)], 1 + len(value))
    if isinstance(value, BaseException):
        from ray._task_error import RayError

        if isinstance(value, RayError):
            return serialize_error(value)
    try:
        return _serialize_whole(value)
    except RecursionError as e:
        raise pickle.PicklingError("Could not pickle object as excessively deep recursion required.") from e


def serialize_error(error) -> Payload:
    """Serialize a ``RayError`` as what is raised where it is got."""
    error = error.__dict__.get("_ray_task_error", error)  # its class is made anew by the reader
    with refs.Listing() as held:
        data = _FMT_EXCEPTION + error.to_bytes()
    return Payload([(0, data)], len(data), held.refs, wire.FAILED)


def _not_in_band(buffer):
    raise _NotPlain


def _serialize_whole(value) -> Payload:
    contained = []
    file = io.BytesIO()
    file.write(_FMT_PICKLE)
    if not _custom:
        try:
            _RefPickler(file, contained).dump(value)
        except _NotPlain:
            contained = []
            file.seek(1)
            file.truncate()
        else:
            data = file.getvalue()
            return Payload([(0, data)], len(data), contained)
    buffers = []
    (_pickler_class or _make_pickler())(file, contained, buffers).dump(value)
    data = file.getvalue()
    if not buffers:
        return Payload([(0, data)], len(data), contained)
    return _with_buffers(memoryview(data)[1:], buffers, contained)


def _with_buffers(pickled, buffers, contained) -> Payload:
    raws = [b.raw() for b in buffers]
    at = _buffers_head.size + _buffer_at.size * len(raws) + len(pickled)
    index = []
    pieces = []
    for raw in raws:
        at = (at + _ALIGN - 1) & -_ALIGN
        index.append(_buffer_at.pack(at, raw.nbytes))
        pieces.append((at, raw))
        at += raw.nbytes
    header = b"".join((_buffers_head.pack(wire.PICKLE_BUFFERS, len(raws), len(pickled)), *index, pickled))
    return Payload([(0, header), *pieces], at, contained)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file, resolve, buffers=None):
        super().__init__(file, buffers=buffers)
        self.resolve = resolve

    def find_class(self, module, name):
        if name == "_contained" and module == __name__:
            return self.resolve
        return super().find_class(module, name)


class _Resolver(dict):
    """Refs by id; an id that was not listed is made on the way."""

    __slots__ = ("lease",)

    def __missing__(self, oid):
        ref = self[oid] = refs.intern(oid, self.lease or refs.UNCOUNTED)
        return ref


def _load_pickle(data, ids, lease, buffers=None):
    if not ids:
        return _loads(data, buffers=buffers)
    from ray._core.state import state

    resolver = _Resolver(state.client.table.intern_all(ids, lease)) if state.client is not None else _Resolver()
    resolver.lease = lease
    return _Unpickler(io.BytesIO(data), resolver.__getitem__, buffers).load()


def _aligned(view):
    """A read-only copy of bytes at an address that is a multiple of 64."""
    import ctypes

    size = len(view)
    room = bytearray(size + _ALIGN)
    skip = -ctypes.addressof(ctypes.c_char.from_buffer(room)) % _ALIGN
    copy = memoryview(room)[skip : skip + size]
    copy[:] = view
    return copy.toreadonly()


def deserialize(data, ids=(), lease=None):
    """The Python value of serialized bytes (formats 0, 1, 2, 5).

    Args:
        data: Bytes, or a read-only memoryview whose owner keeps the memory.
        ids: The ids contained in the value.
        lease: What keeps the contained ids alive; each ref in the value will hold it.
    """
    fmt = data[0]
    if fmt == wire.PICKLE:
        if ids:
            return _load_pickle(memoryview(data)[1:], ids, lease)
        return _loads(memoryview(data)[1:])
    if fmt == wire.RAW:
        return bytes(memoryview(data)[1:])
    if fmt == wire.PICKLE_BUFFERS:
        view = memoryview(data)
        if type(view.obj) is bytes:  # inline: only the arena's extents lie where vector code wants them
            view = _aligned(view)
        _, n, length = _buffers_head.unpack_from(view)
        at = _buffers_head.size
        buffers = []
        for i in range(n):
            offset, size = _buffer_at.unpack_from(view, at + i * _buffer_at.size)
            buffers.append(view[offset : offset + size])
        at += n * _buffer_at.size
        return _load_pickle(view[at : at + length], ids, lease, buffers)
    if fmt == wire.MSGPACK:
        import msgpack

        return msgpack.unpackb(memoryview(data)[1:], strict_map_key=False)
    raise wire.ProtocolError(f"a value of unknown format {fmt}")


def load(value: Value):
    """The Python value of a Value that is no error.

    Raises:
        RaySystemError: What was pickled can't be rebuilt here.
    """
    data = value.data
    try:
        if data[0] == 0 and not value.ids:
            return _loads(memoryview(data)[1:])
        return deserialize(data, value.ids, value.lease)
    except Exception as e:  # whatever the classes of a value raise while it is rebuilt
        raise unreadable(e) from e


def unreadable(error: Exception):
    """What is raised because a value could not be rebuilt: a RayError as it is, others as a RaySystemError."""
    import traceback

    from ray import exceptions

    if isinstance(error, exceptions.RayError):
        return error
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename in OURS:
        tb = tb.tb_next
    text = "".join(traceback.format_exception(type(error), error, tb))
    return exceptions.RaySystemError(str(error) or type(error).__name__, text)


def serialize_args(args, kwargs, retry_types=None):
    """Serialize a call.

    Returns:
        (deps, payload): The top-level refs in order, and a Payload or None for a call without arguments. The payload is a
        pickled ``(args, kwargs)``, or ``(args, kwargs, positions, keywords, retry_types)`` when there are dependencies or
        retriable exception classes: position or keyword i takes dependency i.
    """
    deps = []
    positions = keywords = ()
    plain = True
    for a in args:
        t = type(a)
        if t not in PLAIN:
            plain = False
            if t is ObjectRef:
                deps.append(a)
    if deps:
        positions = [i for i, a in enumerate(args) if type(a) is ObjectRef]
        args = [None if type(a) is ObjectRef else a for a in args]
    if kwargs:
        for a in kwargs.values():
            t = type(a)
            if t not in PLAIN:
                plain = False
                if t is ObjectRef:
                    deps.append(a)
        if len(deps) > len(positions):
            keywords = [k for k, a in kwargs.items() if type(a) is ObjectRef]
            kwargs = {k: a for k, a in kwargs.items() if type(a) is not ObjectRef}
    elif not args and not retry_types:
        return deps, None
    call = (args, kwargs, positions, keywords, retry_types) if deps or retry_types else (args, kwargs)
    if plain and not retry_types:
        data = _FMT_PICKLE + _dumps(call, 5)
        return deps, Payload([(0, data)], len(data))
    if not _only_plain_or_refs(call):
        return deps, serialize(call)
    data = _FMT_PICKLE + _dumps(call, 5)
    return deps, Payload([(0, data)], len(data))


def _only_plain_or_refs(call):
    # After the refs have been taken out, a call of plain values and refs needs no special pickler.
    if len(call) == 5 and call[4]:
        return False
    for a in call[0]:
        if type(a) not in PLAIN:
            return False
    if call[1]:
        for a in call[1].values():
            if type(a) not in PLAIN:
                return False
    return True
