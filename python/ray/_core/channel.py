"""A thread's reply channel: the daemon's answers to what this thread asked.

Reading survives an exception at any byte. Bytes are received by one C call that also stores them; a frame is done with by
one attribute store; whatever happens in between can happen twice.
"""

from __future__ import annotations

import socket
import time
from itertools import count
from struct import Struct

from ray._core import refs, wire
from ray._core.refs import Lease, LeaseClaim, PinClaim, Value

_CHUNK = 65536
_SMALL = 8192  # what is asked for while answers are small: a buffer of this size costs next to nothing
_timeval = Struct("@ll")
_parse_value = wire.value.unpack_from
_parse_head = wire.head_u32.unpack_from
_VALUE = wire.VALUE
_HEAD = wire.value.size  # 46
_lease_keys = count()
lease_key = _lease_keys.__next__  # numbers the claims of leases; those of pins are the complements


class _Received:
    """Bytes received, and how far they are parsed."""

    __slots__ = ("buf", "chunks", "item", "parsed", "pos", "seen")

    def __init__(self, buf):
        self.buf = buf
        self.pos = 0
        self.chunks = []
        self.parsed = not buf  # all complete frames of buf are handled
        self.seen = 0  # chunks that were looked at and left: the frame is not complete
        self.item = None  # a frame that carries deliveries: committed, perhaps not applied


class _Item:
    """ITEMS, IDS, or a VALUE with contained ids or a pin: what must be applied exactly once."""

    __slots__ = ("end", "ended", "first", "ids", "key", "kind", "lease", "oid", "pin", "req", "value", "view")


class Batch:
    """Items of a stream that came in one frame: those with the indexes first … end-1.

    Attributes:
        lease: Holds their deliveries.
        values: Their values, or refs.READY and refs.READY_ELSEWHERE for those that are to be asked for.
    """

    __slots__ = ("end", "first", "lease", "values")

    def __init__(self, first, values, lease):
        self.first = first
        self.end = first + len(values)
        self.values = values
        self.lease = lease


class Channel:
    """One socket on which answers arrive. Belongs to one thread."""

    def __init__(self, sock, no: int, box, arena):
        """Own a connected blocking socket, already greeted."""
        self.sock = sock
        self.no = no
        self.box = box
        self.table = box.table
        self.arena = arena
        self.values = {}  # id -> Value, of the request under way
        self.answers = {}  # req -> (kind, body); (req, n) -> the n-th part of its answer
        self.failed = False  # an error is among values
        self._req = count(1)
        self._recv = sock.recv
        self._timeout = None
        self._room = _SMALL
        self._in = _Received(b"")
        self._ids = {}  # id -> ids that came ahead in IDS frames, with the _Item

    def request(self) -> int:
        """Forget answers to earlier requests, and number a new one."""
        if self.answers:
            self.answers.clear()
        if self.values:
            self.values.clear()
        self.failed = False
        return next(self._req)

    def receive(self, timeout):
        """Wait for bytes and handle the frames that are complete.

        Args:
            timeout: Seconds to wait, or None.

        Returns:
            False if nothing came in time.

        Raises:
            LocalRayletDiedError: The daemon is gone; a ConnectionError, too.
        """
        if timeout != self._timeout:
            self._set_timeout(timeout)
        st = self._in
        chunks = st.chunks
        if len(chunks) == st.seen and st.parsed:
            try:
                chunks.extend(map(self._recv, (self._room,)))
            except (BlockingIOError, TimeoutError):
                return False
            except ConnectionError as e:
                raise self._gone() from e
            self._room = _SMALL if len(chunks[-1]) < _SMALL else _CHUNK
        self._digest()
        return True

    def _set_timeout(self, timeout):
        # The kernel counts the time: one system call a receive instead of two.
        if timeout is None:
            raw = _timeval.pack(0, 0)
        else:
            micros = max(int(timeout * 1e6), 1)
            raw = _timeval.pack(micros // 1000000, micros % 1000000)
        self._timeout = -1.0  # unknown, should an exception come between the two
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, raw)
        self._timeout = timeout

    def _gone(self):
        from ray import exceptions

        return exceptions.daemon_gone(
            self.box.broken
            or "The node daemon closed the connection: it was stopped or killed, or it ended this session. Its log is raylet.err "
            "in the session's logs directory; after ray.shutdown(), ray.init() starts or finds another."
        )

    def _digest(self):
        """Handle all complete frames among the bytes received."""
        st = self._in
        chunks = st.chunks
        if chunks:
            if not chunks[-1]:
                raise self._gone()
            if st.item is not None:
                self._apply(st)
            buf = st.buf
            rest = len(buf) - st.pos
            if not rest:
                self._in = st = _Received(chunks[0] if len(chunks) == 1 else b"".join(chunks))
            else:
                if rest >= 4:
                    need = wire.u32(buf, st.pos)[0] + 4
                    if rest + sum(map(len, chunks)) < need:
                        st.seen = len(chunks)
                        return
                self._in = st = _Received(b"".join((buf[st.pos :], *chunks)))
        self._parse(st)
        st.parsed = True

    def _parse(self, st):
        if st.item is not None:
            self._apply(st)
        buf = st.buf
        size = len(buf)
        live = self.table.live
        values = self.values
        pos = st.pos
        while size - pos >= 9:
            if size - pos >= _HEAD:
                length, kind, req, oid, status, where, n = _parse_value(buf, pos)
            else:
                length, kind, req = _parse_head(buf, pos)
                n = where = 0
            end = pos + 4 + length
            if end > size:
                return
            if kind == _VALUE:
                if n or where or oid in self._ids:
                    st.item = self._value_item(buf, pos, end, oid, status, where, n)
                    self._apply(st)
                else:
                    value = Value(buf[pos + _HEAD : end], status)
                    known = live.get(oid)
                    ref = known() if known is not None else None
                    if ref is not None:
                        ref._v = value
                        if length > refs.COUNT_FROM:
                            self.table.cached(oid, length)
                    values[oid] = value
                    if status:
                        self.failed = True
                    st.pos = end
            elif kind == wire.READY:
                for oid in wire.split_ids(buf[pos + 13 : end]):
                    known = live.get(oid)
                    ref = known() if known is not None else None
                    if ref is not None:
                        self.on_ready(ref)
                self.answers[req] = (kind, buf[pos + 13 : end])
                st.pos = end
            elif kind == wire.IDS:
                item = _Item()
                item.kind = kind
                item.key = lease_key()
                item.end = end
                item.oid = buf[pos + 5 : pos + 33]
                item.ids = wire.split_ids(buf[pos + 33 : end])
                st.item = item
                self._apply(st)
            elif kind == wire.ITEMS:
                st.item = self._items_item(buf, pos, end, req)
                self._apply(st)
            elif kind == wire.PART:
                self.answers[req, wire.u32(buf, pos + 9)[0]] = buf[pos + 13 : end]
                st.pos = end
            elif kind == wire.REFUSED:
                self._refused(buf[pos + 5 : end])
            else:
                self.answers[req] = (kind, buf[pos + 9 : end])
                st.pos = end
            pos = end

    def _refused(self, body):
        import msgpack

        self.box.broken = f"The node daemon ended this session: {msgpack.unpackb(body).get('error')}"
        raise self._gone()

    def on_ready(self, ref):
        """Note that a watched ref is ready."""
        w = ref._w
        if w is refs.CLOSED:
            return
        if ref._v is None or ref._v is refs.READY_ELSEWHERE:
            ref._v = refs.READY_ELSEWHERE if w is not None and w < 0 else refs.READY
        ref._w = None

    def _value_item(self, buf, pos, end, oid, status, where, n):
        item = _Item()
        item.kind = _VALUE
        item.end = end
        item.oid = oid
        item.key = lease_key()
        at = pos + _HEAD
        item.ids = wire.split_ids(buf[at : at + n * wire.ID])
        at += n * wire.ID
        item.lease = Lease() if n or oid in self._ids else None
        if where:
            offset, size = wire.u64(buf, at)[0], wire.u64(buf, at + 8)[0]
            item.pin = self.arena.exporter(offset, size)
            item.view = size
            item.value = Value(None, status, item.ids, item.lease)
        else:
            item.pin = None
            item.value = Value(buf[at:end], status, item.ids, item.lease)
        return item

    def _items_item(self, buf, pos, end, req):
        item = _Item()
        item.kind = wire.ITEMS
        item.end = end
        item.req = req
        item.key = lease_key()
        _, _, _, oid, first, item.ended, n = wire.items.unpack_from(buf, pos)
        item.oid = oid
        item.ids = ids = []
        item.lease = lease = Lease() if n else None
        item.value = values = []
        stem = oid[:24]
        at = pos + wire.items.size
        parse = wire.handed.unpack_from
        for index in range(first, first + n):
            status, where, n_contained, size = parse(buf, at)
            at += 10
            ids.append(stem + wire.pack_u32(index))
            if where != wire.INLINE:
                values.append(refs.READY if where == wire.ARENA else refs.READY_ELSEWHERE)
            elif n_contained:
                inner = wire.split_ids(buf[at : at + n_contained * wire.ID])
                ids.extend(inner)
                at += n_contained * wire.ID
                values.append(Value(buf[at : at + size], status, inner, lease))
            else:
                values.append(Value(buf[at : at + size], status))
            at += size
        item.first = first
        return item

    def _apply(self, st):
        # Runs again from the top after an exception: claims replace claims of the same key, and nothing else counts.
        item = st.item
        oid = item.oid
        if item.kind == wire.IDS:
            self._ids.setdefault(oid, {})[item.key] = item.ids
        elif item.kind == wire.ITEMS:
            held = self.table.held
            batch = None
            if item.lease is not None:
                claim = LeaseClaim(item.lease, self.table.put)
                claim.ids = item.ids
                claim.key = item.key
                held[item.key] = claim
                batch = Batch(item.first, item.value, item.lease)
            known = held.get(("stream", oid))
            stream = known() if known is not None else None
            if stream is not None:
                stream.arrived(batch, item.first + len(item.value) if item.ended else None)
            self.answers[item.req] = (wire.ITEMS, b"")
        else:
            value = item.value
            held = self.table.held
            put = self.table.put
            if item.lease is not None:
                early = self._ids.get(oid)
                if early is not None and value.ids is item.ids:
                    value.ids = [i for ids in (*early.values(), item.ids) for i in ids]
                claim = LeaseClaim(item.lease, put)
                claim.ids = value.ids
                claim.key = item.key
                held[item.key] = claim
                self._ids.pop(oid, None)
            if item.pin is not None:
                claim = PinClaim(item.pin, put)
                claim.oid = oid
                claim.key = ~item.key
                held[~item.key] = claim
                value.data = readable(item.pin, item.view)
            known = self.table.live.get(oid)
            ref = known() if known is not None else None
            if ref is not None and (ref._v is None or type(ref._v) is not Value):
                # Arena bytes are not kept by the ref: it would pin them for as long as it lives.
                ref._v = value if item.pin is None else refs.READY
                if item.pin is None:
                    self.table.cached(oid, len(value.data) + 60 * len(value.ids))
            self.values[oid] = value
            if value.status:
                self.failed = True
        st.pos = item.end
        st.item = None

    def close(self):
        """Close the socket."""
        self.sock.close()


def readable(exporter, size):
    """A flat read-only view of the first ``size`` bytes of an arena exporter."""
    from pickle import PickleBuffer

    return PickleBuffer(exporter).raw()[:size].toreadonly()


def remaining(deadline):
    """Seconds left, never negative; None for no deadline."""
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)
