"""Values that are delivered instead of waited for: ``ref.future()``, ``await ref`` and callbacks.

One channel and one daemon thread serve all of them, started on first use. The channel has one request open at a time: WAIT
while refs are pending, GET for those that became ready.
"""

from __future__ import annotations

import threading
from collections import deque

from ray._core import wire
from ray._core.refs import CLOSED, Value
from ray._core.state import connected

_BATCH = 30000  # ids a frame


class Futures:
    """The deliverer of one connection."""

    def __init__(self, client):
        """Open its channel and start its thread."""
        self.client = client
        self.channel = client.open_channel()
        self.lock = threading.Lock()
        self.waiting = {}  # id -> (ref, [callbacks]); guarded by lock
        self.fresh = deque()  # ids that the daemon has not been told of; guarded by lock
        self.busy = False  # a GET is under way; guarded by lock
        self.closed = False
        self._ready = []  # ids that are ready and not asked for yet
        self._get = 0  # the GET's request number
        self._nexts = {}  # NEXT's request number -> callback
        self.thread = threading.Thread(target=self._run, name="ray-futures", daemon=True)
        self.thread.start()

    def add(self, ref, callback):
        """Call ``callback(error or None, value)`` on the deliverer's thread when the object is there."""
        with self.lock:
            if self.closed:
                raise ConnectionError("The connection to the cluster is closed.")
            entry = self.waiting.get(ref._id)
            if entry is not None:
                entry[1].append(callback)
                return
            self.waiting[ref._id] = (ref, [callback])
            self.fresh.append(ref._id)
            if not self.busy:
                self._watch()
        self.client.box.flush()

    def next(self, stream, callback):
        """Ask for a stream's next item, and call ``callback(error or None)`` on the deliverer's thread when it is here."""
        channel = self.channel
        with self.lock:
            if self.closed:
                raise ConnectionError("The connection to the cluster is closed.")
            req = next(channel._req)
            self._nexts[req] = callback
            stream.ask(channel, req, True, True)
        self.client.box.flush()

    def _watch(self):
        # Called with the lock held: tell the daemon of fresh ids, and ask for whatever is ready.
        ids = []
        while self.fresh and len(ids) < _BATCH:
            ids.append(self.fresh.popleft())
        channel = self.channel
        self.client.box.frames.append(wire.wait(channel.no, next(channel._req), 1, wire.FETCH, ids))

    def _run(self):
        channel = self.channel
        try:
            while True:
                channel.receive(None)
                self._turn(channel)
        except ConnectionError as e:
            self._fail(e)
        except Exception as e:  # a frame we do not understand: nobody else would say so
            self._fail(ConnectionError(f"The channel for futures broke: {e!r}"))

    def _turn(self, channel):
        ready = []
        got = False
        for req in list(channel.answers):
            kind, body = channel.answers.pop(req)
            callback = self._nexts.pop(req, None)
            if callback is not None:
                callback(self._refused(body) if kind == wire.ERROR else None)
            elif kind == wire.READY:
                ready.extend(wire.split_ids(body))
            elif kind == wire.DONE and req == self._get:
                got = True
            elif kind == wire.ERROR:
                raise wire.ProtocolError(f"the daemon refused to deliver: {body!r}")
        done = []
        with self.lock:
            for oid in list(channel.values):
                value = channel.values.pop(oid)
                entry = self.waiting.pop(oid, None)
                if entry is not None:
                    done.append((entry, value))
            if got:
                self.busy = False
            self._ready.extend(oid for oid in ready if oid in self.waiting)
            if not self.busy:
                if self._ready:
                    ids, self._ready = self._ready[:_BATCH], self._ready[_BATCH:]
                    self._get = next(channel._req)
                    self.busy = True
                    self.client.box.frames.append(wire.get(channel.no, self._get, ids))
                elif self.waiting and (got or ready or self.fresh):
                    self._watch()
        self.client.box.flush()
        for (ref, callbacks), value in done:
            _deliver(ref, callbacks, value)

    def _refused(self, body):
        from ray import exceptions

        try:
            self.client.reply(wire.ERROR, body)
        except exceptions.RayError as e:
            return e

    def _fail(self, error):
        with self.lock:
            self.closed = True
            left = list(self.waiting.values())
            self.waiting.clear()
            nexts = list(self._nexts.values())
            self._nexts.clear()
        for callback in nexts:
            callback(error)
        for _, callbacks in left:
            for callback in callbacks:
                callback(error, None)

    def close(self):
        """End the thread; what is still waited for fails."""
        import socket

        with self.lock:
            self.closed = True
        try:
            self.channel.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the daemon closed it first
        if self.thread is not threading.current_thread():
            self.thread.join(1.0)


def _deliver(ref, callbacks, value):
    for callback in callbacks:
        error = result = None
        try:
            if value.status:
                from ray._core.client import as_exception

                error = as_exception(value, ref._id)
            else:
                from ray._core.serialization import load

                result = load(value)
        except Exception as e:  # the value cannot be rebuilt here: whoever waits is told
            error = e
        callback(error, result)


def when_done(ref, callback):
    """Call ``callback(error or None, value)`` once, perhaps at once, when the object is there."""
    client = connected()
    value = ref._v
    if type(value) is Value:
        _deliver(ref, (callback,), value)
        return
    if ref._w is CLOSED:
        from ray._core.serialization import stale

        raise stale(ref)
    deliverer(client).add(ref, callback)


def deliverer(client) -> Futures:
    """The deliverer of a connection."""
    found = client.futures
    if found is None:
        with client.export_lock:
            found = client.futures
            if found is None:
                found = client.futures = Futures(client)
    return found


def future(ref):
    """See ObjectRef.future."""
    from concurrent.futures import Future

    out = Future()

    def callback(error, value):
        if not out.set_running_or_notify_cancel():
            return
        if error is not None:
            out.set_exception(error)
        else:
            out.set_result(value)

    out.object_ref = ref
    when_done(ref, callback)
    return out


def asyncio_future(ref):
    """See ObjectRef.as_future."""
    import asyncio

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = asyncio.get_event_loop()
    out = loop.create_future()

    def settle(error, value):
        if out.done():
            return  # cancelled by the program
        if isinstance(error, StopIteration):
            error = RuntimeError(f"the task raised {error!r}, which a future cannot carry")
        if error is not None:
            out.set_exception(error)
        else:
            out.set_result(value)

    def callback(error, value):
        try:
            loop.call_soon_threadsafe(settle, error, value)
        except RuntimeError:
            pass  # the loop is closed: nobody awaits any more

    value = ref._v
    if type(value) is Value:
        _deliver(ref, (settle,), value)
    else:
        when_done(ref, callback)
    return out


def on_completed(ref, callback):
    """See ObjectRef._on_completed."""
    when_done(ref, lambda error, value: callback(error if error is not None else value))
