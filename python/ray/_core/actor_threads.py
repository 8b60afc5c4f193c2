"""Threaded actors: a pool of threads a concurrency group; the main thread receives calls and hands them out."""

from __future__ import annotations

import socket
import threading
from _contextvars import ContextVar
from _queue import Empty, SimpleQueue
from types import GeneratorType

import msgpack

from ray._core import printing, wire, yields
from ray._core.actor_worker import Actor, Call, Cancelled
from ray._core.actors import SYSTEM_GROUP
from ray._core.state import state
from ray._core.task import OURS, DependencyFailed, FunctionMissing

OURS.add(__file__)


class Group:
    """Threads that run the calls of one concurrency group."""

    def __init__(self, actor: ThreadedActor, name: str, limit: int):
        self.actor = actor
        self.name = name
        self.limit = limit
        self.calls = SimpleQueue()
        self.threads = []

    def submit(self, call, *arguments):
        """Give a call to a new thread until there are as many as may be, then to the first that is through with its own.

        As on Ray, calls that follow each other go to threads of their own as long as there are any: a program that keeps
        something in each thread finds it once in each.
        """
        if len(self.threads) < self.limit:
            self._start((call, arguments))
        else:
            self.calls.put((call, arguments))

    def _start(self, first):
        name = f"{self.name or 'default'}-{len(self.threads)}"
        thread = threading.Thread(target=self._run, args=(first,), name=name, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _run(self, item):
        calls = self.calls
        actor = self.actor
        box = actor.worker.box
        while item is not None:
            if not (actor.worker.leaving and actor._abandon):
                actor.run(item[0], *item[1])
            item = None
            try:
                item = calls.get_nowait()
            except Empty:
                printing.flush()
                box.flush()
                item = calls.get()
            else:
                if not box.armed:  # the flusher sees to it soon, however long the next call takes
                    box.armed = True
                    box.dead.put(None)

    def close(self):
        """Let the threads end after what is queued."""
        for _ in self.threads:
            self.calls.put(None)


class ThreadedActor(Actor):
    """An actor that runs several calls at once, each in a thread."""

    def __init__(self, host, fields: dict):
        super().__init__(host, fields)
        state.context = ContextVar("ray_call")
        self.groups = {"": self.group("", fields.get("max_concurrency") or 1)}
        for name, limit in (fields.get("groups") or {}).items():
            self.groups[name] = self.group(name, limit)
        self._exit_any = False
        self.running = {}  # calls that wait or run, by unique

    def group(self, name, limit) -> Group:
        """A new concurrency group."""
        return Group(self, name, limit)

    def _other(self, name) -> Group:
        if name != SYSTEM_GROUP:
            return self.groups[""]
        group = self.groups[name] = self.group(name, 1)
        return group

    def enter(self, task):
        """Make ``task`` the one that runs in this context; returns what ends that."""
        context = state.context
        token = context.set(task)
        return lambda: context.reset(token)

    def execute(self, buf, at, end):
        """Hand out the call of one EXECUTE."""
        host = self.worker
        unique8, attempt, _, no, num_returns, flags, n_deps, len_overrides = wire.execute.unpack_from(buf, at)
        at += 34
        template = host.templates[no]
        if flags & wire.CREATION:
            at += len_overrides
            self.create(unique8, attempt, template, buf, at, end, flags, n_deps)
            return
        name = template.name
        retry = template.retry
        group = template.group
        if len_overrides:
            overrides = msgpack.unpackb(buf[at : at + len_overrides], strict_map_key=False)
            at += len_overrides
            name = overrides.get("name") or name
            if overrides.get("retry_exceptions") is not None:
                retry = bool(overrides["retry_exceptions"])
        call = Call(unique8 + self.id, name, template.qualname, attempt, self.resources)
        call.unique8 = unique8
        call.template = template
        call.num_returns = num_returns
        call.flags = flags
        call.retry = retry
        call.cancelled = call.told = call.exits = False
        call.future = call.items = None
        self.running[unique8] = call
        (self.groups.get(group) or self._other(group)).submit(call, buf, at, end, flags, n_deps)

    def run(self, call, buf, at, end, flags, n_deps):
        """Run a call in this thread and send its RESULT."""
        host = self.worker
        state.context.set(call)
        host.show(call.name)
        retry_types = None
        try:
            if call.cancelled:
                raise self._was_cancelled(call.unique8)
            method = call.template.function or self.method(call.template)
            args, kwargs, retry_types = host.arguments(buf, at, end, flags, n_deps)
            result = method(*args, **(kwargs or {}))
            if call.told:
                raise self._was_cancelled(call.unique8)
            self.returned(call, result)
        except BaseException as e:
            self.raised(call, e, retry_types)
        state.context.set(None)

    def returned(self, call, result):
        """Send what a call returned, or yields."""
        host = self.worker
        if call.flags & wire.STREAM:
            outputs = yields.run(self.items(call), result)
            if call.told and call.cancelled:
                raise self._was_cancelled(call.unique8)
            self.answer(call, 0, outputs)
        elif type(result) is GeneratorType:
            *outputs, outcome = host.collected(
                call.unique8, result, call.num_returns, call.flags, call.name, call.retry
            )
            self.answer(call, outcome, outputs)
        else:
            self.answer(call, 0, host.outputs(call.unique8, result, call.num_returns))

    def items(self, call):
        """Where the items of a generator go."""
        call.items = yields.Items(self.worker, call.unique8, call.attempt, call.num_returns, call.template)
        return call.items

    def raised(self, call, error, retry_types):
        """Send what a call raised, unless it is a way out of the actor."""
        if isinstance(error, SystemExit) and not call.exits:
            self._leave(error.code)
            call.exits = self.exiting
        if call.exits or self.worker.leaving and self._abandon:
            self.answer(call, 0, None)
            return
        outcome = 1
        never = (DependencyFailed, FunctionMissing, Cancelled)
        if call.retry and not call.cancelled and isinstance(error, Exception) and not isinstance(error, never):
            outcome = 2 if not retry_types or isinstance(error, retry_types) else 1
        self.answer(
            call, outcome, self.failed(call.unique8, error, call.name, call.num_returns, call.flags, call.items)
        )

    def answer(self, call, outcome, outputs):
        """Buffer the RESULT of a call; the last one if the actor exits with it."""
        host = self.worker
        self.running.pop(call.unique8, None)
        if self._exit_any:
            call.exits = True
        if call.exits or host.leaving and self._abandon:
            if call.exits:
                self.leave_with(call.unique8, call.attempt, 1 if call.flags & wire.STREAM else call.num_returns)
            self.wake()
            return
        (ahead, parts), guards, keep = outputs
        host.box.frames.append(ahead + wire.result(call.unique8, call.attempt, outcome, parts))
        for oid, guard in guards:
            host.client.sealed(oid, guard)
        del keep

    def exit(self):
        """See ray.actor.exit_actor."""
        call = state.context.get(None)
        if call is not None:
            call.exits = True
        else:
            self._exit_any = True  # a thread of the program: with the next call that ends
        super().exit()

    def wake(self):
        """Let the main thread see that the actor is leaving."""
        try:
            self.worker.exec.shutdown(socket.SHUT_RD)
        except OSError:
            pass  # the daemon was faster

    def cancel(self, unique8):
        """A CANCEL arrived: a call that waits is not run, one that runs can ask."""
        call = self.running.get(unique8)
        if call is not None:
            call.cancelled = True

    def is_cancelled(self, task) -> bool:
        """Whether the running call was cancelled; what it returns after it has been told is dropped."""
        task.told = task.cancelled
        return task.told

    def _look(self):
        pass  # the main thread reads the socket

    def drain(self):
        """Wait for the calls that run and wait, unless the actor exits on purpose."""
        if self._abandon:
            return
        for group in self.groups.values():
            group.close()
        for group in self.groups.values():
            for thread in group.threads:
                thread.join()


class Beside(ThreadedActor):
    """Runs the calls of the system's group of an actor that else has only its main thread.

    The main thread hands them out: one that arrives while a method runs starts when that returns.
    """

    def __init__(self, actor: Actor):
        self.__dict__.update(actor.__dict__)
        self.main = actor
        if state.context is None:
            state.context = ContextVar("ray_call")
        self.groups = {"": Group(self, SYSTEM_GROUP, 1)}
        self.running = {}
        self._exit_any = False

    def _leave(self, code):
        super()._leave(code)
        self.main.status = self.status
