"""ObjectRef, and how the process tells the daemon what it no longer needs.

There is one ObjectRef an id and process, so identity is equality and hashing costs nothing. What the process owes to the
daemon hangs on weak references: each ref that this process made, each *lease* (the ids that came with one value) and each
pin of arena bytes has a claim, a weakref whose callback is the bound C method ``SimpleQueue.put``. A finalizer therefore
runs no Python code: it cannot be interrupted, re-entered or raise. Whoever flushes next turns dead claims into frames.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from weakref import WeakValueDictionary
from weakref import ref as _weakref

ID = 28
COUNT_FROM = 300  # bytes: smaller cached values are bounded by the refs that have them
CACHE_LIMIT = 64 << 20  # bytes of values that refs keep


class _Mark:
    __slots__ = ("_name",)

    def __init__(self, name):
        self._name = name

    def __repr__(self):
        return self._name


READY = _Mark("ready here")
READY_ELSEWHERE = _Mark("ready on some node")
UNCOUNTED = _Mark("not counted")
CLOSED = _Mark("of a connection that is closed")


class Claim(_weakref):
    """This process made the object and has one delivery of it."""

    __slots__ = ("key",)


class UncountedClaim(_weakref):
    """An id that came from outside the protocol: nothing is owed for it."""

    __slots__ = ("key",)


class LeaseClaim(_weakref):
    """The deliveries of ids that came in one frame."""

    __slots__ = ("ids", "key")


class PinClaim(_weakref):
    """One pin of an object's bytes in the arena."""

    __slots__ = ("key", "oid")


class CreateClaim(_weakref):
    """A CREATE whose SEAL is not sent yet."""

    __slots__ = ("key",)


class TemplateClaim(_weakref):
    """A registered template."""

    __slots__ = ("key",)


class StreamClaim(_weakref):
    """A generator's items that this process has not taken."""

    __slots__ = ("key",)


class ChannelClaim(_weakref):
    """A thread's reply channel."""

    __slots__ = ("key", "sock")


class Lease:
    """Holds the deliveries of the ids that came with one value; refs made from that value keep it alive."""

    __slots__ = ("__weakref__",)


class Value:
    """An object's bytes as this process has them."""

    __slots__ = ("data", "ids", "lease", "status")

    def __init__(self, data, status=0, ids=(), lease=None):
        self.data = data  # bytes, or a read-only memoryview of the arena that holds its pin
        self.status = status
        self.ids = ids
        self.lease = lease  # anything that keeps the contained ids alive


class ObjectRef:
    """A reference to an object that exists, or will exist, somewhere in the cluster."""

    __slots__ = ("__weakref__", "_id", "_lease", "_v", "_w")

    def __new__(cls, id_bytes: bytes):
        """Find or make the ref of 28 id bytes.

        Raises:
            TypeError: ``id_bytes`` is not bytes.
            ValueError: It does not have 28 bytes.
        """
        if not isinstance(id_bytes, bytes):
            raise TypeError(f"Unsupported type: {type(id_bytes)}")
        if len(id_bytes) != ID:
            raise ValueError(f"ID string needs to have length {ID}, got {len(id_bytes)}")
        return intern(id_bytes, UNCOUNTED)

    def __init_subclass__(cls, **_):
        raise TypeError("type 'ray.ObjectRef' is not an acceptable base type")

    def __class_getitem__(cls, item):
        """``ObjectRef[int]`` for annotations."""
        from types import GenericAlias

        return GenericAlias(cls, item)

    @classmethod
    def from_binary(cls, id_bytes: bytes) -> ObjectRef:
        """The ref of 28 id bytes."""
        return cls(id_bytes)

    @classmethod
    def from_hex(cls, hex_id) -> ObjectRef:
        """The ref of an id in hexadecimal (str or ASCII bytes)."""
        return cls(bytes.fromhex(hex_id.decode("ascii") if isinstance(hex_id, bytes) else hex_id))

    @classmethod
    def from_random(cls) -> ObjectRef:
        """A ref of random bytes that names no object."""
        return cls(os.urandom(ID))

    @classmethod
    def nil(cls) -> ObjectRef:
        """The ref that names nothing."""
        return cls(b"\xff" * ID)

    @classmethod
    def size(cls) -> int:
        """Number of bytes of the id: 28."""
        return ID

    def binary(self) -> bytes:
        """The id's 28 bytes."""
        return self._id

    def hex(self) -> str:
        """The id in hexadecimal."""
        return self._id.hex()

    def is_nil(self) -> bool:
        """Whether this is the nil ref."""
        return self._id == b"\xff" * ID

    def task_id(self):
        """The TaskID of the task (or put) that makes the object."""
        from ray._ids import TaskID

        return TaskID(self._id[:24])

    def job_id(self):
        """The JobID of the job that the object belongs to."""
        from ray._ids import JobID

        return JobID(self._id[20:24])

    def call_site(self) -> str:
        """Where the ref was made; not recorded."""
        return ""

    def owner_address(self) -> bytes:
        """Empty: objects belong to daemons, and a client needs no address of theirs."""
        return b""

    def tensor_transport(self):
        """None: the value is in the object store, not in the memory of a device."""

    def future(self):
        """A ``concurrent.futures.Future`` of the object's value (or its error)."""
        from ray._core import futures

        return futures.future(self)

    def as_future(self, _internal: bool = False):
        """An asyncio future of the object's value, on the running loop, else on the one set for this thread."""
        from ray._core import futures

        return futures.asyncio_future(self)

    def __await__(self):
        from ray._core import futures

        return futures.asyncio_future(self).__await__()

    def _on_completed(self, callback):
        """Call ``callback(value or exception)`` once, on another thread, when the object is there."""
        from ray._core import futures

        futures.on_completed(self, callback)

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __repr__(self):
        return f"ObjectRef({self._id.hex()})"

    def __lt__(self, other):
        return self._id < other._id if isinstance(other, ObjectRef) else NotImplemented

    def __reduce__(self):
        # Only outside Ray's own serializer, which lists its refs instead.
        listed = getattr(_listing, "refs", None)
        if listed is not None:
            listed.append(self)
            return ObjectRef, (self._id,)
        # Nobody will tell us when the copy is gone.
        if os.environ.get("RAY_allow_out_of_band_object_ref_serialization") == "0":
            from ray import exceptions

            raise exceptions.OufOfBandObjectRefSerializationException(
                f"It is not allowed to serialize {self!r} outside of Ray's own serialization, since its object could not be kept "
                "alive for the copy. Pass the ref to a task, or put it into an object; or unset "
                "RAY_allow_out_of_band_object_ref_serialization."
            )
        _pinned.append(self)
        return ObjectRef, (self._id,)


ObjectRef.__module__ = "ray"


def _drop(live, oid, dead):
    """Remove an entry unless another thread has replaced it."""
    try:
        # No call stands between the two: no other thread runs there. (A lock could be lost to an exception in Python 3.9.)
        if live[oid] is dead:
            del live[oid]
    except KeyError:
        pass  # gone already


class Listing:
    """While it is entered, refs that this thread pickles outside of Ray's serializer are listed in ``refs``, not pinned."""

    def __enter__(self):
        """Begin."""
        self._outer = getattr(_listing, "refs", None)
        self.refs = _listing.refs = []
        return self

    def __exit__(self, *exc):
        """End; each ref is in the list once."""
        _listing.refs = self._outer
        self.refs = list(dict.fromkeys(self.refs))


_listing = threading.local()
_pinned: list = []
_new = object.__new__


class Table:
    """The refs and claims of one connection."""

    def __init__(self, put):
        self.live = {}  # id -> weakref of its ObjectRef
        self.held = {}  # claims of everything else, by an int of our own; a claim that is in no dict never fires
        self.put = put  # the callback of claims
        self.kept = deque()  # (id, bytes) of cached values, oldest first, those of some dead refs too
        self.kept_bytes = 0
        self.kept_most = 1024  # entries, above which those of dead refs go

    def own(self, oid) -> ObjectRef:
        """A ref to an object that this process is making: fresh id, one delivery."""
        ref = _new(ObjectRef)
        ref._id = oid
        ref._v = ref._lease = ref._w = None
        claim = Claim(ref, self.put)
        claim.key = oid
        self.live[oid] = claim
        return ref

    def intern(self, oid, lease) -> ObjectRef:
        """The ref of an id that arrived under a lease."""
        live = self.live
        known = live.get(oid)
        if known is not None:
            ref = known()
            if ref is not None:
                if ref._lease is UNCOUNTED and lease is not UNCOUNTED:
                    ref._lease = lease
                return ref
        ref = _new(ObjectRef)
        ref._id = oid
        ref._v = ref._w = None
        ref._lease = lease
        if lease is UNCOUNTED:
            claim = UncountedClaim(ref, self.put)
            claim.key = oid
        else:
            claim = _weakref(ref)  # goes when the lease goes
        while True:
            known = live.setdefault(oid, claim)
            if known is claim:
                return ref
            winner = known()
            if winner is not None:
                return winner
            _drop(live, oid, known)

    def intern_all(self, ids, lease) -> dict:
        """The refs of many ids, as a dict by id."""
        live = self.live
        find = live.get
        add = live.setdefault
        out = {}
        for oid in ids:
            known = find(oid)
            if known is not None:
                ref = known()
                if ref is None or ref._lease is UNCOUNTED:
                    ref = self.intern(oid, lease)
            else:
                ref = _new(ObjectRef)
                ref._id = oid
                ref._v = ref._w = None
                ref._lease = lease
                claim = _weakref(ref)
                if add(oid, claim) is not claim:
                    ref = self.intern(oid, lease)
            out[oid] = ref
        return out

    def cached(self, oid, size):
        """Count a value that its ref keeps, and make room by dropping the oldest: they can be asked for again."""
        self.kept.append((oid, size))
        self.kept_bytes += size
        if len(self.kept) > self.kept_most:
            self._tidy()
        while self.kept_bytes > CACHE_LIMIT:
            try:
                oid, size = self.kept.popleft()
            except IndexError:  # another thread was faster
                return
            self.kept_bytes -= size
            known = self.live.get(oid)
            ref = known() if known is not None else None
            if ref is not None and type(ref._v) is Value:
                ref._v = READY

    def _tidy(self):
        # Entries of refs that are gone count bytes that nobody keeps, and take room: each time that they may be the half.
        kept = self.kept
        for _ in range(len(kept)):
            try:
                entry = kept.popleft()
            except IndexError:  # another thread was faster
                break
            known = self.live.get(entry[0])
            if known is not None and known() is not None:
                kept.append(entry)
            else:
                self.kept_bytes -= entry[1]
        self.kept_most = 2 * len(kept) + 1024

    def forget(self, ids):
        """Drop the entries of ids whose refs are gone."""
        live = self.live
        for oid in ids:
            known = live.get(oid)
            if known is not None and known() is None:
                _drop(live, oid, known)

    def close(self):
        """Make all refs of this connection useless."""
        for known in list(self.live.values()):
            ref = known()
            if ref is not None:
                ref._w = CLOSED
                ref._v = None
        self.live = {}


_orphans = WeakValueDictionary()  # refs made while there is no connection


def intern(oid, lease) -> ObjectRef:
    """The ref of an id in the connection of this process, or of none."""
    from ray._core.state import state

    client = state.client
    if client is not None:
        return client.table.intern(oid, lease)
    ref = _new(ObjectRef)
    ref._id = oid
    ref._v = ref._w = None
    ref._lease = lease
    return _orphans.setdefault(oid, ref)
