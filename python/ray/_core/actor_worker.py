"""Actors as their own process sees them: construction, method calls, and the ways out.

There are three kinds. A plain actor runs one call after the other on the main thread, in the loop that also runs tasks. A
threaded one (``max_concurrency`` above 1, or concurrency groups) has a pool of threads a group; the main thread only hands
out. An async one (a coroutine among its methods) runs an event loop on the main thread, and one more in a thread of its own
for each concurrency group.
"""

from __future__ import annotations

import inspect
import logging
import socket
import sys
import time
import traceback
from types import GeneratorType

import msgpack

from ray import exceptions
from ray._core import environ, printing, serialization, wire, yields, zygote
from ray._core.actors import SYSTEM_GROUP
from ray._core.state import state
from ray._core.task import OURS, DependencyFailed, FunctionMissing, Task

OURS.add(__file__)

_SHORT = 0.0002  # seconds: calls of a shorter mean may run before the results of others are sent
_LONG = 0.001  # seconds: after such a call it is worth looking whether others were cancelled meanwhile
_EMPTY = wire.output(wire.OK, wire.INLINE, (), 0)


class Call(Task):
    """A method call that was sent here.

    Attributes:
        unique8: First bytes of its task's id.
        template: What is constant for the method.
        num_returns: How many outputs it has; of a stream, how many items are there already.
        flags: Those of its EXECUTE.
        items: Where a generator's items go; None before it runs.
        retry: Whether its own exceptions lead to another attempt.
        told: Whether its body has learned that.
        exits: Whether the actor is to exit with it.
    """

    __slots__ = (
        "exits",
        "flags",
        "future",
        "items",
        "num_returns",
        "retry",
        "template",
        "told",
        "unique8",
    )


class Actor:
    """The actor of this process, one call at a time.

    Attributes:
        id: The ActorID's 16 bytes.
        name: Its name; empty if it has none.
        namespace: Where the name is known.
        class_name: Its class's name.
        incarnation: How often it was restarted.
        meta: What a handle needs.
        resources: Amounts that it holds.
        instance: The object itself; None until its class is loaded.
        exiting: Whether it is to exit after the call that runs.
    """

    def __init__(self, host, fields: dict):
        self.worker = host
        self.id = fields["id"]
        self.name = fields.get("name") or ""
        self.namespace = fields.get("namespace") or ""
        self.class_name = (fields.get("class_name") or "").rpartition(".")[2]
        self.incarnation = fields.get("incarnation") or 0
        self.meta = None
        self.resources = {}
        self.instance = None
        self.exiting = False
        self.status = 0
        self._body = fields.get("body")
        self._cancelled = set()  # calls that wait in the socket
        self._made = False  # whether the constructor has returned
        self._abandon = False  # whether calls that still run are left behind
        self._beside = None  # what runs the calls of the system's group

    # a call

    def execute(self, buf, at, end):
        """Run one EXECUTE and buffer its RESULT."""
        host = self.worker
        unique8, attempt, _, no, num_returns, flags, n_deps, len_overrides = wire.execute.unpack_from(buf, at)
        template = host.templates[no]
        if template.group == SYSTEM_GROUP:
            self._run_beside(buf, at, end)
            return
        at += 34
        name = template.name
        retry = template.retry
        if len_overrides:
            overrides = msgpack.unpackb(buf[at : at + len_overrides], strict_map_key=False)
            at += len_overrides
            name = overrides.get("name") or name
            if overrides.get("retry_exceptions") is not None:
                retry = bool(overrides["retry_exceptions"])
        if flags & wire.CREATION:
            self.create(unique8, attempt, template, buf, at, end, flags, n_deps)
            return
        box = host.box
        if box.frames and (template.mean is None or template.mean > _SHORT):
            box.flush()
        elif box.frames and not box.armed:
            box.armed = True
            box.dead.put(None)
        task = state.task = Call(unique8 + self.id, name, template.qualname, attempt, self.resources)
        task.cancelled = task.told = False
        host.show(name)
        retry_types = items = None
        outcome = 0
        started = time.perf_counter()
        try:
            if self._cancelled and unique8 in self._cancelled:
                raise self._was_cancelled(unique8)
            method = template.function or self.method(template)
            args, kwargs, retry_types = host.arguments(buf, at, end, flags, n_deps)
            if kwargs:
                result = method(*args, **kwargs)
            else:
                result = method(*args)
            if task.told:
                raise self._was_cancelled(unique8)
            if flags & wire.STREAM:
                items = yields.Items(host, unique8, attempt, num_returns, template)
                outputs, guards, keep = yields.run(items, result)
                if task.told:
                    raise self._was_cancelled(unique8)
            elif type(result) is GeneratorType:
                outputs, guards, keep, outcome = host.collected(unique8, result, num_returns, flags, name, retry)
            else:
                outputs, guards, keep = host.outputs(unique8, result, num_returns)
        except BaseException as e:
            outcome = 1
            if isinstance(e, SystemExit) and not self.exiting:
                self._leave(e.code)
            elif (
                retry and isinstance(e, Exception) and not isinstance(e, (DependencyFailed, FunctionMissing, Cancelled))
            ):
                outcome = 2 if not retry_types or isinstance(e, retry_types) else 1
            if not host.leaving and not self.exiting:
                outputs, guards, keep = self.failed(unique8, e, name, num_returns, flags, items)
        took = time.perf_counter() - started
        template.mean = took if template.mean is None else 0.8 * template.mean + 0.2 * took
        state.task = None
        if self.exiting or host.leaving:
            self.leave_with(unique8, attempt, 1 if flags & wire.STREAM else num_returns)
            return
        ahead, parts = outputs
        box.frames.append(ahead + wire.result(unique8, attempt, outcome, parts))
        for oid, guard in guards:
            host.client.sealed(oid, guard)
        host.alone = bool(flags & wire.ALONE)
        if len(box.frames) >= 32:
            printing.flush()
            box.flush()
        if took > _LONG:
            self._look()

    def _run_beside(self, buf, at, end):
        if self._beside is None:
            from ray._core.actor_threads import Beside

            self._beside = Beside(self)
        self._beside.execute(buf, at, end)

    def method(self, template):
        """The bound method that a template names."""
        name = template.method
        instance = self.instance
        built_in = _BUILT_IN.get(name)
        if name in getattr(instance, "__dict__", ()) and hasattr(type(instance), name):
            # An attribute of the same name does not hide it from callers.
            cls = type(instance)
            function = inspect.getattr_static(cls, name).__get__(instance, cls)
        else:
            function = getattr(instance, name, None)
        if built_in is not None and function is None:
            function = built_in.__get__(self)
        elif function is None:
            raise AttributeError(f"'{self.class_name}' object has no attribute '{name}'")
        template.function = function
        return function

    def failed(self, unique8, error, name, num_returns, flags, items=None):
        """The outputs of a call that raised; ``items`` are those of a stream."""
        first = 1
        if flags & wire.STREAM:
            first = items.after() if items is not None else num_returns + 2
            num_returns = 1
        if isinstance(error, Cancelled):
            data = b"\x03" + error.args[0].to_bytes()
            payload = serialization.Payload([(0, data)], len(data), (), wire.FAILED)
            outputs = self.worker.encode(unique8, [payload] * num_returns, first)
        else:
            outputs = self.worker.error_outputs(unique8, error, name, num_returns, first)
        return yields.failed(*outputs) if flags & wire.STREAM else outputs

    def _was_cancelled(self, unique8):
        self._cancelled.discard(unique8)
        return Cancelled(exceptions.TaskCancelledError(None, f"Task: {(unique8 + self.id).hex()} was cancelled."))

    def described(self) -> dict:
        """What errors of the actor's methods tell of it."""
        return {"actor_repr": self.repr(), "actor_id": self.id.hex()}

    def repr(self) -> str:
        """What the actor calls itself."""
        try:
            return repr(self.instance)
        except Exception:  # half-made, say: its attributes are not there yet
            return object.__repr__(self.instance)

    # cancelling

    def cancel(self, unique8):
        """A CANCEL arrived: what waits must not run, what runs can ask."""
        task = state.task
        if self._beside is not None and unique8 in self._beside.running:
            self._beside.cancel(unique8)
        elif task is not None and task.task_id[:8] == unique8:
            task.cancelled = True
        else:
            if len(self._cancelled) > 10000:
                self._cancelled.clear()  # of calls that had ended before
            self._cancelled.add(unique8)

    def is_cancelled(self, task) -> bool:
        """Whether the running call was cancelled; what it returns after it has been told is dropped."""
        self._look()
        task.told = task.cancelled
        return task.told

    def _look(self):
        """Take what has arrived from the socket, and heed what it says of calls that were cancelled."""
        host = self.worker
        packets = host._packets
        try:
            while len(packets) < 1000:
                size = host.exec.recv_into(host.buffer, 0, socket.MSG_DONTWAIT)
                packet = bytes(memoryview(host.buffer)[:size])
                packets.append(packet)
                if not packet:
                    return
                if wire.head.unpack_from(packet)[1] == wire.CANCEL:
                    self.cancel(packet[5:13])
        except (BlockingIOError, ConnectionError):
            pass

    # construction

    def create(self, unique8, attempt, template, buf, at, end, flags, n_deps):
        """Run the constructor and send what came of it."""
        host = self.worker
        actor = template.actor or {}
        self.resources = {k: v / 10000 for k, v in (actor.get("held") or {}).items() if v}
        self.meta = actor.get("meta")
        if host._threads is not None:  # else it is the user's business
            zygote.limit_threads(max(1, int(self.resources.get("CPU", 0))))
        task = Call(unique8 + self.id, template.name, template.qualname, attempt, self.resources)
        task.cancelled = task.told = task.exits = False
        host.show(template.name)
        printing.as_actor(self.class_name)
        undo = self.enter(task)
        try:
            cls = self._class(template)
            plain = cls.__new__ is object.__new__
            if plain:
                self.instance = cls.__new__(cls)
            args, kwargs, _ = host.arguments(buf, at, end, flags, n_deps)
            if not plain:
                self.instance = cls.__new__(cls, *args, **(kwargs or {}))
            nothing = self.instance.__init__(*args, **(kwargs or {}))
            later = self.awaits(nothing, lambda error: self._constructed(unique8, attempt, template.name, error))
            if nothing is not None and not later:
                raise TypeError(f"__init__() should return None, not {type(nothing).__name__!r}")
        except BaseException as e:
            self._constructed(unique8, attempt, template.name, e, undo)
        else:
            if later:
                undo()
            else:
                self._constructed(unique8, attempt, template.name, None, undo)

    def awaits(self, nothing, then) -> bool:
        """Whether what a constructor returned is waited for, and ``then`` called with its error or None."""
        return False

    def _constructed(self, unique8, attempt, name, error, undo=None):
        host = self.worker
        outcome, answer = 0, None
        if error is None:
            try:
                answer = {
                    "ok": True,
                    "repr": self.repr() if type(self.instance).__repr__ is not object.__repr__ else "",
                }
            except BaseException as e:
                error = e
        if error is not None:
            if isinstance(error, SystemExit) and not self.exiting:
                self._leave(error.code)
            elif not self.exiting:
                outcome, answer = 1, self._not_made(error, name, unique8)
        if answer is not None and answer.get("repr"):
            printing.as_actor(answer["repr"])
        if undo is not None:
            undo()
        if self.exiting or host.leaving:
            self.leave_with(unique8, attempt, 1)
            return
        self._made = outcome == 0
        data = b"\x05" + msgpack.packb(answer)
        if len(data) > 500000:
            answer.pop("pickled", None)
            answer["error"] = answer.get("error", "")[:400000]
            data = b"\x05" + msgpack.packb(answer)
        output = wire.output(wire.OK, wire.INLINE, (), len(data), data)
        printing.flush()
        host.box.frames.append(wire.result(unique8, attempt, outcome, (output,)))
        host.box.flush()
        host.show(self.class_name)

    def _class(self, template):
        try:
            if self._body is not None:
                return serialization.deserialize(self._body)
            return self.worker.client.load_function(template.fn)
        except Exception as e:
            raise FunctionMissing(
                f"The actor with name {self.class_name} failed to import on the worker. This may be because needed library "
                "dependencies are not installed in the worker environment or cannot be found on sys.path "
                f"{sys.path}:\n\n{traceback.format_exc()}{environ.advice(e)}"
            ) from e

    def _not_made(self, error, name, unique8) -> dict:
        wrapped = self.worker.task_error(error, name, unique8)
        text = str(wrapped)
        sys.stderr.write(
            f"Exception raised in creation task: The actor died because of an error raised in its creation task, {text}\n"
        )
        return {"ok": False, "error": text, "pickled": wrapped.to_bytes()}

    def enter(self, task):
        """Make ``task`` the one that runs; returns what ends that."""
        state.task = task

        def leave():
            state.task = None

        return leave

    # the ways out

    def exit(self):
        """See ray.actor.exit_actor."""
        self.exiting = True
        error = SystemExit(0)
        error.ray_terminate_msg = "exit_actor() is called."
        raise error

    def _leave(self, code):
        """A method called sys.exit: leave with that status; without one it is on purpose, as exit_actor."""
        if code is None or code == 0 and not isinstance(code, str):
            self.exiting = True
            return
        if not isinstance(code, int):
            sys.stderr.write(f"{code}\n")
            code = 1
        self.status = code
        self._abandon = True
        self.worker.leaving = True

    def leave_with(self, unique8, attempt, num_returns):
        """The call of which this is the RESULT is the actor's last."""
        host = self.worker
        if self.exiting:
            host.box.frames.append(wire.result(unique8, attempt, wire.ACTOR_EXITS, [_EMPTY] * num_returns))
        host.box.flush()
        self._abandon = True
        host.leaving = True

    def finish(self) -> int:
        """Let the actor clean up; returns the process's exit status."""
        self.drain()
        shutdown = (
            getattr(self.instance, "__ray_shutdown__", None) if self._made or self.exiting or self.status else None
        )
        if shutdown is not None:
            try:
                self.shut_down(shutdown)
            except BaseException:
                logging.getLogger("ray").exception("Error during actor __ray_shutdown__ method")
        try:
            self.worker.box.flush()
        except ConnectionError:
            pass  # the daemon went first
        return self.status

    def drain(self):
        """Wait for calls that run, unless they are to be left behind."""

    def shut_down(self, shutdown):
        """Call the actor's __ray_shutdown__."""
        shutdown()


class Cancelled(Exception):
    """Carries the error of a call that was cancelled."""


def _ready(self):
    return True


def _call(self, fn, *args, **kwargs):
    return fn(self.instance, *args, **kwargs)


def _terminate(self):
    self.exit()


_BUILT_IN = {"__ray_ready__": _ready, "__ray_call__": _call, "__ray_terminate__": _terminate}
