"""Async actors: an event loop on the main thread, and one in a thread for each concurrency group.

Packets are read by the main loop, coroutines start in the order of arrival, and what they return is sent once a turn of
their loop. Methods that are no coroutines run on the loop, which they hold up.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
import threading
from collections import deque

from ray import exceptions
from ray._core import printing, wire, yields
from ray._core.actor_threads import ThreadedActor
from ray._core.state import state
from ray._core.task import OURS

OURS.add(__file__)

_PACKETS_A_TURN = 64
_ENDED = object()  # the future of a call that was cancelled before it started
_EXITS = (SystemExit, exceptions.AsyncioActorExit)  # ends of the actor, which go before a cancellation


class LoopGroup:
    """The loop of one concurrency group. All but ``submit`` and ``cancel`` runs on it."""

    def __init__(self, actor: AsyncActor, name: str, limit: int):
        self.actor = actor
        self.limit = limit
        self.loop = asyncio.new_event_loop()
        self.running = 0
        self.waiting = deque()
        self.thread = None
        self._flush_due = False
        if name:
            self.thread = threading.Thread(target=self._run, name=f"AsyncIO Thread: {name}", daemon=True)
            self.thread.start()

    def _run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def submit(self, call, *arguments):
        """Start a call, or line it up if as many run as may."""
        if self.thread is None:
            self._start(call, *arguments)
        else:
            self.loop.call_soon_threadsafe(self._start, call, *arguments)

    def cancel(self, call):
        """Cancel a call that waits or runs here."""
        self.loop.call_soon_threadsafe(self._cancel, call)

    def _cancel(self, call):
        if call.future is None:
            call.future = _ENDED
            actor = self.actor
            actor.raised(call, actor._was_cancelled(call.unique8), None)
            self._flush_soon()
        elif call.future is not _ENDED and call.told:
            call.future.cancel()

    def _start(self, call, *arguments):
        if self.running >= self.limit:
            self.waiting.append((call, arguments))
            return
        if call.future is _ENDED:
            return
        self.running += 1
        actor = self.actor
        host = actor.worker
        context = state.context
        token = context.set(call)
        host.show(call.name)
        retry_types = None
        try:
            template = call.template
            method = template.function or actor.method(template)
            args, kwargs, retry_types = host.arguments(*arguments)
            result = method(*args, **(kwargs or {}))
            if inspect.iscoroutine(result):  # which a generator is not
                call.future = self.loop.create_task(self._drive(call, result, retry_types))
                return
            if call.flags & wire.STREAM and yields.is_async(result):
                call.future = self.loop.create_task(self._drive(call, self._iterate(call, result), retry_types))
                return
            if yields.is_async(result):
                if call.flags & wire.DYNAMIC:
                    raise ValueError('Functions with @ray.remote(num_returns="dynamic" must return a generator')
                raise TypeError("'async_generator' object is not iterable")
            actor.returned(call, result)
        except BaseException as e:
            actor.raised(call, e, retry_types)
        finally:
            context.reset(token)
        call.future = _ENDED
        self._ended()

    async def _drive(self, call, coroutine, retry_types):
        actor = self.actor
        try:
            if call.cancelled:
                coroutine.close()
                raise asyncio.CancelledError
            call.told = True  # from here on a cancellation reaches the coroutine
            result = await coroutine
            if call.cancelled:  # and it made nothing of that
                raise asyncio.CancelledError
            if call.flags & wire.STREAM:
                actor.answer(call, 0, result)
            else:
                actor.answer(call, 0, actor.worker.outputs(call.unique8, result, call.num_returns))
        except BaseException as e:
            if isinstance(e, asyncio.CancelledError) or call.cancelled and not isinstance(e, _EXITS):
                from ray._ids import TaskID

                e, retry_types = exceptions.TaskCancelledError(TaskID(call.task_id)), None
            actor.raised(call, e, retry_types)
        call.future = _ENDED
        self._ended()

    async def _iterate(self, call, generator):
        try:
            return await yields.run_async(self.actor.items(call), generator)
        except BaseException:
            await generator.aclose()
            raise

    def _ended(self):
        self.running -= 1
        if self.waiting:
            self.loop.call_soon(self._next)
            self._flush_soon()
        elif self.running:
            self._flush_soon()
        else:
            self._flush()
        if self.actor.worker.leaving:
            self.actor.stop_if_idle()

    def _next(self):
        while self.waiting and self.running < self.limit:
            call, arguments = self.waiting.popleft()
            self._start(call, *arguments)

    def _flush_soon(self):
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self._flush)

    def _flush(self):
        self._flush_due = False
        host = self.actor.worker
        printing.flush()
        host.box.flush()
        if not self.running and self.thread is None:
            host.show(self.actor.class_name)

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not self.running and not self.waiting


class AsyncActor(ThreadedActor):
    """An actor with coroutines among its methods."""

    def __init__(self, host, fields: dict):
        super().__init__(host, fields)
        self.loop = self.groups[""].loop
        self._early = []  # what came in one packet with SETUP
        self._serving = False
        host.serve = self.serve

    def group(self, name, limit) -> LoopGroup:
        """A new concurrency group."""
        return LoopGroup(self, name, limit)

    def serve(self) -> int:
        """Run the loop until the actor exits; returns the process's exit status."""
        loop = self.loop
        asyncio.set_event_loop(loop)
        host = self.worker
        loop.call_soon(self._begin)
        loop.add_reader(host.exec.fileno(), self._receive)
        loop.run_forever()
        loop.remove_reader(host.exec.fileno())
        return self.finish()

    def _begin(self):
        self._serving = True
        for early in self._early:
            self.execute(*early)
        self._early = []
        self.worker.box.flush()

    def _receive(self):
        host = self.worker
        receive, buffer = host.exec.recv_into, host.buffer
        for _ in range(_PACKETS_A_TURN):
            try:
                packet = bytes(memoryview(buffer)[: receive(buffer, 0, socket.MSG_DONTWAIT)])
            except BlockingIOError:
                break
            except ConnectionError:
                packet = b""
            if not packet:
                if not host.leaving:
                    self.status = 1  # the daemon is gone
                    self._abandon = True
                    host.leaving = True
                self.loop.stop()
                return
            host.handle(packet)
            if host.leaving:
                self.stop_if_idle()
                return

    def execute(self, buf, at, end):
        """Start the call of one EXECUTE."""
        if self._serving:
            super().execute(buf, at, end)
        else:
            self._early.append((buf, at, end))

    def awaits(self, nothing, then) -> bool:
        """A constructor may be a coroutine, too: no call arrives before it has ended."""
        if not inspect.iscoroutine(nothing):
            return False
        self.loop.create_task(self._construct(nothing, then))
        return True

    async def _construct(self, coroutine, then):
        try:
            await coroutine
        except BaseException as e:
            then(e)
        else:
            then(None)
        if self.worker.leaving:
            self.stop_if_idle()

    def stop_if_idle(self):
        """End the loop of an actor that leaves, once what was started is done."""
        if self._abandon or all(group.idle for group in self.groups.values()):
            self.loop.call_soon_threadsafe(self.loop.stop)

    def exit(self):
        """See ray.actor.exit_actor."""
        try:
            super().exit()
        except SystemExit:
            raise exceptions.AsyncioActorExit("exit_actor() is called.") from None

    def wake(self):
        """End the main loop."""
        self.loop.call_soon_threadsafe(self.loop.stop)

    def cancel(self, unique8):
        """A CANCEL arrived: a call that waits is not run, a coroutine that runs is cancelled."""
        call = self.running.get(unique8)
        if call is not None:
            call.cancelled = True
            self.groups.get(call.template.group, self.groups[""]).cancel(call)

    def is_cancelled(self, task) -> bool:
        """Not to be asked: the coroutine is told.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError("This method is not supported in an async actor.")

    def drain(self):
        """Nothing runs any more: the loop has seen to that."""

    def shut_down(self, shutdown):
        """Call the actor's __ray_shutdown__."""
        result = shutdown()
        if asyncio.iscoroutine(result):
            self.loop.run_until_complete(result)
