"""What a generator yields, on its way from the worker that runs it to its caller."""

from __future__ import annotations

import sys
import time
from types import AsyncGeneratorType, GeneratorType

from ray._core import serialization, wire
from ray._core.task import OURS

OURS.add(__file__)

_SHORT = 0.0002  # seconds: items that come faster are sent together
_AHEAD = 1 << 16  # items that a generator without a bound may make before it asks whether it may go on
_ASK_AFTER = 16 << 20  # bytes of small items after which it asks, too
_MOST_FRAMES = 64  # that wait in the outbox
_NONE = wire.output(wire.OK, wire.INLINE, (), 3, b"\x00N.")


class Items:
    """The items of one attempt of a generator.

    Attributes:
        index: Of the last item that was sent; 1 = none.
    """

    __slots__ = (
        "_asked",
        "_attempt",
        "_client",
        "_last",
        "_limit",
        "_skip",
        "_stem",
        "_unique8",
        "host",
        "index",
        "per_yield",
    )

    def __init__(self, host, unique8, attempt, skip, template):
        self.host = host
        self._client = host.client
        self._unique8 = unique8
        self._stem = unique8 + host.suffix
        self._attempt = attempt
        self._skip = skip + 1  # items up to this index are there, from an earlier attempt
        self._limit = 1 + (template.bound or _AHEAD)
        self.per_yield = template.per_yield
        self._asked = 0  # bytes sent since
        self._last = 0.0
        self.index = 1

    def after(self) -> int:
        """Index of what comes after the last item that is there."""
        return max(self.index, self._skip) + 1

    def must_ask(self) -> bool:
        """Whether the next item is one that the daemon has to allow."""
        return (self.index >= self._limit or self._asked > _ASK_AFTER) and self.index >= self._skip

    def ask(self):
        """Wait until the next item may be made."""
        self._limit = self._client.call(
            "stream_credit", id=self._stem + b"\x01\x00\x00\x00", attempt=self._attempt, index=self.index + 1
        )["limit"]
        self._asked = 0

    def send(self, value):
        """Send the next item."""
        index = self.index + 1
        if index > self._skip:
            self._send(index, serialization.serialize(value))
        self.index = index

    def _send(self, index, payload):
        client = self._client
        box = client.box
        oid = self._stem + wire.pack_u32(index)
        ids = payload.ids if payload.refs else ()
        ahead = b""
        if ids:
            ahead, ids = wire.split_contained(oid, ids, wire.MAX_FRAME - (256 << 10))
        if payload.size <= client.inline_max:
            part = wire.output(payload.status, wire.INLINE, ids, payload.size, payload.tobytes())
            frame = ahead + wire.item(self._unique8, self._attempt, index, part)
            self._asked += len(frame)
            now = time.monotonic()
            if now - self._last > _SHORT or len(box.frames) >= _MOST_FRAMES:
                box.frames.append(frame)
                box.flush()
            else:
                box.add(frame)
            self._last = now
            return
        guard = client.create(oid, payload)
        part = wire.output(payload.status, wire.ARENA, ids, payload.size)
        box.frames.append(ahead + wire.item(self._unique8, self._attempt, index, part))
        client.sealed(oid, guard)
        box.flush()


def _parts(value, n):
    """The ``n`` objects that a generator has yielded together (its option _num_objects_per_yield)."""
    if not isinstance(value, (tuple, list)) or len(value) != n:
        raise ValueError(
            f"Streaming generator tasks with _num_objects_per_yield={n} must yield a tuple or list of length {n}."
        )
    return value


def _split(generator, n):
    for value in generator:
        yield from _parts(value, n)


async def _split_async(generator, n):
    async for value in generator:
        for part in _parts(value, n):
            yield part


def run(items, generator):
    """Send all that a generator yields; returns what its RESULT says."""
    if items.per_yield > 1:
        generator = _split(generator, items.per_yield)
    host = items.host
    for value in generator:
        host.running = None
        items.send(value)
        host.running = host.named
        if host._poked and host.running:
            host.heed()
        if items.must_ask():
            items.ask()
    return ENDED


async def run_async(items, generator):
    """As run, of an async generator."""
    import asyncio

    if items.per_yield > 1:
        generator = _split_async(generator, items.per_yield)
    async for value in generator:
        items.send(value)
        if items.must_ask():
            await asyncio.get_running_loop().run_in_executor(None, items.ask)
    return ENDED


def failed(outputs, guards, keep):
    """The outputs of a generator that raised: its stream has ended, and the error is the last item."""
    ahead, parts = outputs
    return (ahead, (_NONE, *parts)), guards, keep


def is_async(result) -> bool:
    """Whether a method has returned an async generator."""
    return isinstance(result, AsyncGeneratorType)


def collected(host, generator, name, unique8, retry):
    """The value of a generator with ``num_returns="dynamic"``: refs of what it yields, and of the error that ends it."""
    from ray._generators import DynamicObjectRefGenerator

    if not isinstance(generator, GeneratorType):
        raise ValueError('Functions with @ray.remote(num_returns="dynamic" must return a generator')
    client = host.client
    out = []

    def put(payload):
        ref = client.table.own(client.next_id())
        client.put_payload(ref, payload)
        out.append(ref)

    try:
        for value in generator:
            put(serialization.serialize(value))
    except Exception as e:
        if retry:
            raise
        put(host.error_payload(e, name, unique8))
    return DynamicObjectRefGenerator(out)


def taken(host, generator, num_returns, name, unique8, retry):
    """Payloads of the first items that a generator yields, for a call with that many returns, and whether it failed."""
    payloads = []
    try:
        for value in generator:
            if len(payloads) == num_returns:
                raise ValueError(f"Task returned more than num_returns={num_returns} objects.")
            payloads.append(serialization.serialize(value))
        if len(payloads) == num_returns:
            return payloads, False
        raise ValueError(f"Task returned {len(payloads)} objects, but num_returns={num_returns}.")
    except Exception as e:
        if len(payloads) == num_returns:
            sys.stderr.write(
                f"Unhandled error: Task threw exception, but all {num_returns} return values already created. This should "
                f"only occur when using generator tasks.\n{host.task_error(e, name, unique8)}\n"
            )
            return payloads, False
        if retry:
            raise
        error = host.error_payload(e, name, unique8)
        return payloads + [error] * (num_returns - len(payloads)), True


ENDED = ((b"", (_NONE,)), (), None)
