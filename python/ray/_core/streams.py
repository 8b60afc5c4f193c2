"""A generator's items on the side of its caller: what arrived and was not taken, and how more is asked for.

Items come in batches (ITEMS of docs/protocol.md). The channel that reads one puts it into the stream, not into what the
asker waits for: so a batch is there for whoever asks next, also when its asker was interrupted.
"""

from __future__ import annotations

import time

from ray._core import reasons, refs, wire
from ray._core.channel import remaining
from ray._core.refs import CLOSED, ObjectRef, Value

_FIRST = 2  # index of the first item's object; the stream's own has 1
_WARN_AFTER = 10.0
_types = []

# What stands for num_returns="streaming" and "dynamic": the negative of the flag of SUBMIT.
STREAMING, DYNAMIC = -wire.STREAM, -wire.DYNAMIC


class Stream:
    """The items of one generator. When it is collected, the daemon is told that nobody reads on.

    Attributes:
        ref: The ref of the stream's object, which is ready when the generator has ended.
        at: Index of the next item.
        end: Index after the last; None while it is not known.
        bounded: Whether the generator waits for items to be taken.
    """

    __slots__ = ("__weakref__", "_batch", "_batches", "_read", "at", "bounded", "client", "end", "ref", "stem")

    def __init__(self, client, ref, bounded: bool):
        self.client = client
        self.ref = ref
        self.stem = ref._id[:24]
        self.bounded = bounded
        self.at = _FIRST
        self.end = None
        self._read = 1
        self._batch = None
        self._batches = {}
        table = client.table
        claim = refs.StreamClaim(self, table.put)
        claim.key = ref._id
        table.held["stream", ref._id] = claim

    def arrived(self, batch, end):
        """Take what a channel has read; doing so twice changes nothing more."""
        if batch is not None:
            self._batches[batch.first] = batch
        if end:
            self.end = end

    def here(self) -> bool:
        """Whether the next item has arrived, or it is known that there is none."""
        return self.at == self.end or self._find() is not None

    def _find(self):
        at = self.at
        batch = self._batch
        if batch is not None and batch.first <= at < batch.end:
            return batch
        batches = self._batches
        for first, batch in list(batches.items()):
            if batch.end <= at:
                batches.pop(first, None)
            elif batch.first <= at:
                self._batch = batch
                return batch
        self._batch = None
        return None

    def take(self):
        """The next item's ref, or None if it has not arrived."""
        batch = self._batch
        at = self.at
        if batch is None or not batch.first <= at < batch.end:
            batch = self._find()
            if batch is None:
                return None
        table = self.client.table
        oid = self.stem + wire.pack_u32(at)
        value = batch.values[at - batch.first]
        ref = table.intern(oid, batch.lease)
        if ref._v is None:
            ref._v = value
            if type(value) is Value and len(value.data) > refs.COUNT_FROM:
                table.cached(oid, len(value.data))
        if self.bounded and at > self._read:
            self._read = at  # it was looked at before: the generator has not been told
            self.client.box.add(wire.next_items(0, 0, self.ref._id, at, at, wire.BESIDE))
        self.at = at + 1
        if at + 1 == batch.end:
            self._batch = None
            self._batches.pop(batch.first, None)
        return ref

    def ask(self, channel, req, take: bool, beside: bool):
        """Buffer a NEXT for the next item; ``take`` tells the generator that it is taken."""
        if take:
            self._read = self.at
        self.client.box.frames.append(
            wire.next_items(channel.no, req, self.ref._id, self.at, self._read, wire.BESIDE if beside else 0)
        )

    def check(self):
        """Raise if the stream's connection is closed."""
        if self.ref._w is CLOSED:
            from ray._core.serialization import stale

            raise stale(self.ref)

    def fetch(self, timeout=None, take=True) -> bool:
        """Wait until the next item or the end is here; whether it is, in time."""
        if self.here():
            return True
        self.check()
        client = self.client
        box = client.box
        channel = client.channel()
        req = channel.request()
        deadline = None if timeout is None else time.monotonic() + timeout
        self.ask(channel, req, take, False)
        cancelled = False
        while True:
            if not cancelled and remaining(deadline) == 0:
                box.frames.append(wire.cancel_req(channel.no, req))
                cancelled = True
            box.flush()
            while not self.here():
                answer = channel.answers.pop(req, None)
                if answer is not None:
                    if answer[0] == wire.ERROR:
                        client.reply(*answer)
                    if answer[0] == wire.DONE:
                        return False
                left = None if cancelled else remaining(deadline)
                if left == 0:
                    break
                pause = None if cancelled else _WARN_AFTER if left is None else min(left, _WARN_AFTER)
                if not channel.receive(pause) and pause == _WARN_AFTER:
                    reasons.tell(client, channel, _WARN_AFTER, [self.ref._id])
            else:
                return True

    def next(self, timeout=None):
        """The next item's ref; None if there is none in time.

        Raises:
            StopIteration: There are no more.
        """
        while True:
            ref = self.take()
            if ref is not None:
                return ref
            if self.at == self.end:
                raise StopIteration
            if not self.fetch(timeout):
                return None

    async def next_async(self):
        """The next item's ref, or None after the last."""
        import asyncio

        while True:
            ref = self.take()
            if ref is not None:
                return ref
            if self.at == self.end:
                return None
            self.check()
            loop = asyncio.get_running_loop()
            arrived = loop.create_future()

            def wake(error, loop=loop, arrived=arrived):
                def settle():
                    if not arrived.done():
                        if error is None:
                            arrived.set_result(None)
                        else:
                            arrived.set_exception(error)

                try:
                    loop.call_soon_threadsafe(settle)
                except RuntimeError:
                    pass  # the loop is closed: nobody awaits any more

            from ray._core import futures

            futures.deliverer(self.client).next(self, wake)
            await arrived


def generator_type():
    """The class of what callers get; imported once it is asked for, since it needs this package."""
    if not _types:
        from ray._generators import ObjectRefGenerator

        _types.append(ObjectRefGenerator)
    return _types[0]


def generator(client, ref, template):
    """What the caller of a generator gets, whose stream's object is ``ref``."""
    return generator_type()._of(Stream(client, ref, template.bound > 0))


def wait_mixed(client, wanted, num_returns, timeout, fetch):
    """Client._wait where some of what is waited for are generators."""
    channel = client.channel()
    deadline = None if timeout is None else time.monotonic() + timeout
    mark = channel.no + 1 if fetch else -channel.no - 1
    plain = [r for r in wanted if type(r) is ObjectRef]
    streams = [g._stream for g in wanted if type(g) is not ObjectRef]
    asked = {}
    last = False
    for stream in streams:
        stream.check()
    try:
        while True:
            found = client._ready(wanted, num_returns, fetch)
            if len(found) >= num_returns or last:
                return found
            left = remaining(deadline)
            last = left == 0
            if plain:
                req = client._watch(channel, plain, num_returns - len(found), mark, fetch, last)
            else:
                req = channel.request()
            for stream in streams:
                if stream not in asked and not stream.here():
                    asked[stream] = next(channel._req)
                    stream.ask(channel, asked[stream], False, True)
                if last and stream in asked:
                    client.box.frames.append(wire.cancel_req(channel.no, asked[stream]))
            client.box.flush()
            answers = channel.answers
            if last:  # all answer at once
                while not all(s.here() or asked[s] in answers for s in streams) or plain and req not in answers:
                    channel.receive(None)
                continue
            while not answers and not any(s.here() for s in streams if s in asked):
                left = remaining(deadline)
                if left == 0 or not channel.receive(_WARN_AFTER if left is None else min(left, _WARN_AFTER)):
                    break
            for kind, body in answers.values():
                if kind == wire.ERROR:
                    client.reply(kind, body)
            for stream in [s for s in asked if s.here()]:
                del asked[stream]
    finally:
        for req in asked.values():
            client.box.add(wire.cancel_req(channel.no, req))
