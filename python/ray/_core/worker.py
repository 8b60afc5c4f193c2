"""The loop of a worker process: take tasks from the daemon, run them, send back what they return.

Packets arrive on a socket of their own, results leave through the process's outbox. A result waits in the outbox while more
short tasks are at hand, so that many of them share a write; it never waits for a task that takes long or is not known yet.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
import time
import traceback
from itertools import starmap
from types import GeneratorType

# Used later or only by tasks: imported once, before workers are forked.
import cloudpickle.cloudpickle  # noqa: F401
import msgpack

import ray._logging
import ray.remote_function
import ray.runtime_context
import ray.util  # noqa: F401
from ray import exceptions
from ray._core import environ, printing, refs, serialization, sites, wire, yields, zygote
from ray._core.actor_kinds import become
from ray._core.arena import Arena
from ray._core.client import Client, as_exception
from ray._core.outbox import Outbox
from ray._core.refs import Lease, LeaseClaim, PinClaim, Value
from ray._core.state import WORKER_MODE, current_task, state
from ray._core.task import OURS, DependencyFailed, FunctionMissing, Task

OURS.add(__file__)

_SHORT = 0.0002  # seconds: tasks of a shorter mean may run before the results of others are sent
_LOOK = 0.001  # seconds: after a task that took longer it is seen whether its children or C code printed
_RESULT_ROOM = wire.MAX_FRAME - 65536  # bytes of inline outputs in one RESULT

# Variables by which the runtimes of accelerators are told which devices to use.
_VISIBLE = {
    "GPU": ("CUDA_VISIBLE_DEVICES",),
    "TPU": ("TPU_VISIBLE_CHIPS",),
    "neuron_cores": ("NEURON_RT_VISIBLE_CORES",),
    "HPU": ("HABANA_VISIBLE_MODULES",),
    "NPU": ("ASCEND_RT_VISIBLE_DEVICES",),
    "RBLN": ("RBLN_DEVICES",),
}


class _Template:
    __slots__ = (
        "actor",
        "aloud",
        "bound",
        "calls",
        "fn",
        "function",
        "group",
        "max_calls",
        "mean",
        "method",
        "name",
        "per_yield",
        "qualname",
        "resources",
        "retry",
        "threads",
    )

    def __init__(self, fields: dict):
        self.fn = fields["fn"]
        self.name = fields.get("name") or ""
        self.qualname = fields.get("qualname") or self.name
        self.resources = {k: v / 10000 for k, v in (fields.get("resources") or {}).items()}
        self.threads = max(1, int(self.resources.get("CPU", 0)))
        self.retry = bool(fields.get("retry_exceptions"))
        self.max_calls = fields.get("max_calls") or 0
        self.method = fields.get("method")
        self.group = fields.get("group") or ""
        self.actor = fields.get("actor")
        self.bound = fields.get("backpressure") or 0
        self.per_yield = fields.get("per_yield") or 1
        self.function = None
        self.calls = 0
        self.aloud = False  # it was seen to print by other ways than sys.stdout
        self.mean = None  # seconds a call


class Worker:
    """One worker process, from SETUP to its end."""

    def __init__(self, exec_sock, stream, channel, arena_fd: int, info: dict):
        """Take over the sockets that the process was started with."""
        self.exec = exec_sock
        self.stream = stream
        self.channel_sock = channel
        self.arena_fd = arena_fd
        self.info = info
        self.templates = {}
        self.client = None
        self.box = None
        self.leaving = False
        self.actor = None
        self.serve = None  # what goes on in the place of this loop
        self.suffix = b""  # of the ids of tasks and outputs, after their unique
        self._packets = []
        self.buffer = bytearray(wire.MAX_PACKET)
        self._sizes = []  # of a packet that is in the buffer
        self.alone = False  # nothing more was on its way when the last call was sent
        self._title = None
        self.named = None  # unique and attempt of the task that runs
        self.running = None  # the same, while its code may be interrupted; else None
        self._poked = False  # a CANCEL may have come while nothing could be interrupted
        self._cancelled = set()  # what was cancelled and has not been run
        self._threads = 0  # that OMP_NUM_THREADS and its like say; None if that is the user's business
        try:
            from ray._core.title import set_title
        except ImportError:
            set_title = None
        self._set_title = set_title
        self.idle_title = "ray::IDLE"

    def run(self) -> int:
        """Serve until the daemon says to leave or is gone.

        Returns:
            The exit status.
        """
        packets = self._packets
        sizes = self._sizes
        buffer = self.buffer
        view = memoryview(buffer)
        # Into one buffer, then copied: a new one of the largest size for each packet costs more than all else here.
        receive = self.exec.recv_into
        while not self.leaving:
            try:
                if self.alone:
                    self.alone = False
                    raise BlockingIOError
                if not sizes:
                    sizes.extend(map(receive, (buffer,), (0,), (socket.MSG_DONTWAIT,)))
            except BlockingIOError:
                self._idle()
                if not sizes:
                    sizes.extend(map(receive, (buffer,)))
            except ConnectionError:
                return 1
            # One call in C takes the size away and stores the packet: no exception comes between the two.
            packets.extend(map(bytes, map(view.__getitem__, map(slice, starmap(sizes.pop, ((),))))))
            while packets:
                packet = packets.pop(0)
                if not packet and not self.leaving:
                    return 1  # the daemon is gone
                if not packet:
                    break
                self.handle(packet)
            if self.serve is not None:
                return self.serve()
        if self.actor is not None:
            return self.actor.finish()
        if self.box is not None:
            self.box.flush()
        return 0

    def _idle(self):
        if self.box is not None:
            printing.flush()  # before the caller hears that the task has ended
            self.box.flush()
            if self._cancelled:
                self._cancelled.clear()  # nothing waits here
            if self._title is not None:
                self._title = None
                if self._set_title is not None:
                    self._set_title(self.idle_title)

    def show(self, name):
        """Let the process's title tell what runs."""
        if name != self._title and self._set_title is not None:
            self._title = name
            self._set_title("ray::" + name)

    def handle(self, packet):
        """Do what the frames of a packet say."""
        at = 0
        size = len(packet)
        while at < size:
            length, kind = wire.head.unpack_from(packet, at)
            start = at + 5
            at += 4 + length
            if kind == wire.EXECUTE:
                self.execute(packet, start, at)
            elif kind == wire.X_TEMPLATE:
                no = wire.u32(packet, start)[0]
                self.templates[no] = _Template(msgpack.unpackb(packet[start + 4 : at], strict_map_key=False))
            elif kind == wire.EXECUTE_AT:
                offset, n = wire.u64(packet, start)[0], wire.u64(packet, start + 8)[0]
                self.execute(self.client.arena.look(offset, n), 0, n)
            elif kind == wire.SETUP:
                self.setup(msgpack.unpackb(packet[start:at], strict_map_key=False))
            elif kind == wire.X_TEMPLATE_DROP:
                self.templates.pop(wire.u32(packet, start)[0], None)
            elif kind == wire.EXIT:
                self.leaving = True
                return
            elif kind == wire.CANCEL:
                if self.actor is not None:
                    self.actor.cancel(bytes(packet[start : start + 8]))
                self._poked = False  # it came too late: what was sent before it has been run
            else:
                raise wire.ProtocolError(f"the daemon sent a worker a frame of kind 0x{kind:02x}")

    # becoming a worker of a job

    def setup(self, fields: dict):
        """Take on a job: its connection, paths, environment and devices."""
        job = fields.get("job") or {}
        arena = None
        if self.arena_fd >= 0 and fields.get("arena_size"):
            arena = Arena(self.arena_fd, fields["arena_size"])
        self.box = Outbox(self.stream)
        path = (
            fields.get("socket") or self.info.get("socket") or os.path.join(fields["session_dir"], "sockets", "raylet")
        )
        key = fields.get("token") or self.info.get("token") or fields["session"]
        if isinstance(key, str):
            key = key.encode()
        from ray._version import version

        self.client = Client(self.box, arena, fields, path, key, version, "worker-channel")
        self.client.adopt_channel(self.channel_sock)
        self.box.start()
        fields["accelerators"] = _show_devices(fields.get("accelerators") or {})
        fields["resources"] = {k: v / 10000 for k, v in (fields.get("resources") or {}).items()}
        state.fill(WORKER_MODE, self.client, fields, job)
        os.environ["RAY_JOB_ID"] = state.job_id.hex()
        env = state.runtime_env.get("env_vars") or {}
        os.environ.update([(k, expanded(v)) for k, v in env.items()])
        sites.enable(self.client)
        if "OMP_NUM_THREADS" in env:
            self._threads = None
        if "TZ" in os.environ:
            time.tzset()
        if job.get("logging"):
            ray._logging.configure_worker(job["logging"])
        self.suffix = self.client.suffix
        try:
            environ.enter(job, fields, env)
            if state.runtime_env.get("worker_process_setup_hook"):
                environ.run_hook(job, state.runtime_env)
        except Exception as e:
            self.execute = environ.unfit(e, state.runtime_env)
            return
        printing.tell_apart(self._named)
        if fields.get("actor"):
            become(self, fields["actor"])
            self.client.submit_frame = self._submit_frame
        else:
            signal.signal(signal.SIGURG, self._interrupted)

    def _named(self):
        return self.named

    def _submit_frame(self, frame):
        """In an actor: send what a call submits, and say which call that is."""
        task = current_task()
        self.client.box.add(frame if task is None else wire.within(task.task_id[:8]) + frame)

    def _submit_heard(self, frame):
        """In a cancelled task: send what it submits first after the interrupt, and that it knew."""
        box = self.client.box
        self.client.submit_frame = box.add
        box.add(wire.cancel_task(state.task.task_id + wire.pack_u32(1), wire.HEARD) + frame)

    # cancelling

    def _interrupted(self, signum, frame):
        """SIGURG: a CANCEL lies in the queue. Raise in the code of the task that it names, as Ctrl-C would."""
        if self.running is None:
            self._poked = True
        else:
            self.heed(frame)

    def heed(self, frame=None):
        """Read the CANCELs that have come; the caller is in the code of a task."""
        self._poked = False
        start = bytearray(17)
        while True:
            try:
                # Tasks stay in the queue: the daemon may want them back. It had taken back those before a CANCEL.
                n = self.exec.recv_into(start, 17, socket.MSG_DONTWAIT | socket.MSG_PEEK)
                if n == 0 or start[4] not in (wire.CANCEL, wire.X_TEMPLATE, wire.X_TEMPLATE_DROP):
                    return
                packet = self.exec.recv(wire.MAX_PACKET, socket.MSG_DONTWAIT)
            except (BlockingIOError, ConnectionError):
                return
            if not packet or packet[4] != wire.CANCEL:
                self._packets.append(packet)
                if not packet:
                    return
                continue
            named = packet[5:17]
            if named == self.running:
                state.task.cancelled = True
                # Not sent from here: the interrupted code may be sending.
                self.client.submit_frame = self._submit_heard
                handler = signal.getsignal(signal.SIGINT)
                if callable(handler):
                    handler(signal.SIGINT, frame)
            elif self._packets:
                self._cancelled.add(named)

    def _unless_cancelled(self, unique8, attempt):
        named = unique8 + wire.pack_u32(attempt)
        if named in self._cancelled:
            self._cancelled.discard(named)
            state.task.cancelled = True
            raise KeyboardInterrupt

    # running a task

    def execute(self, buf, at, end):
        """Run one EXECUTE and buffer its RESULT."""
        unique8, attempt, _, no, num_returns, flags, n_deps, len_overrides = wire.execute.unpack_from(buf, at)
        at += 34
        template = self.templates[no]
        client = self.client
        box = self.box
        name = template.name
        retry = template.retry
        if len_overrides:
            overrides = msgpack.unpackb(buf[at : at + len_overrides], strict_map_key=False)
            at += len_overrides
            name = overrides.get("name") or name
            if overrides.get("retry_exceptions") is not None:
                retry = bool(overrides["retry_exceptions"])
        if box.frames and (template.mean is None or template.mean > _SHORT):
            box.flush()
        elif box.frames and not box.armed:
            box.armed = True
            box.dead.put(None)
        self.named = unique8 + wire.pack_u32(attempt)
        state.task = Task(unique8 + client.suffix, name, template.qualname, attempt, template.resources)
        if name != self._title:
            self._title = name
            if self._set_title is not None:
                self._set_title("ray::" + name)
            printing.as_task(name, template.aloud or template.mean is None)
        if template.threads != self._threads and self._threads is not None:
            self._threads = template.threads if zygote.limit_threads(template.threads) else None
        retry_types = items = None
        outcome = 0
        started = time.perf_counter()
        try:
            try:
                if self._cancelled:
                    self._unless_cancelled(unique8, attempt)
                function = template.function or self._load(template)
                args, kwargs, retry_types = self.arguments(buf, at, end, flags, n_deps)
                if kwargs:
                    result = function(*args, **kwargs)
                else:
                    result = function(*args)
                if flags & wire.STREAM:
                    items = yields.Items(self, unique8, attempt, num_returns, template)
                    outputs, guards, keep = yields.run(items, result)
                elif type(result) is GeneratorType:
                    outputs, guards, keep, outcome = self.collected(unique8, result, num_returns, flags, name, retry)
                else:
                    self.running = None
                    outputs, guards, keep = self.outputs(unique8, result, num_returns)
            finally:
                self.running = None
        except SystemExit:
            box.flush()
            raise
        except BaseException as e:
            outcome = 2 if retry and isinstance(e, Exception) and (not retry_types or isinstance(e, retry_types)) else 1
            if isinstance(e, (DependencyFailed, FunctionMissing)):
                outcome = 1
            if flags & wire.STREAM:
                last = items.after() if items is not None else num_returns + 2
                outputs, guards, keep = yields.failed(*self.error_outputs(unique8, e, name, 1, last))
            else:
                outputs, guards, keep = self.error_outputs(unique8, e, name, num_returns)
        took = time.perf_counter() - started
        template.mean = took if template.mean is None else 0.8 * template.mean + 0.2 * took
        if template.max_calls:
            template.calls += 1
            if template.calls >= template.max_calls:
                self.leaving = True
                if outcome == 0:
                    outcome = 3
        ahead, parts = outputs
        box.frames.append(ahead + wire.result(unique8, attempt, outcome, parts))
        for oid, guard in guards:
            client.sealed(oid, guard)
        if state.task.cancelled:
            client.submit_frame = box.add
        state.task = None
        self.alone = bool(flags & wire.ALONE)
        if len(box.frames) >= 32 or took > _SHORT:
            printing.flush()
            if took > _LOOK and printing.by_others():
                template.aloud = True
            if template.aloud:
                self._title = ""  # so the next says beforehand that it prints
            box.flush()  # now: to drop the arguments may take as long as the task

    def _load(self, template):
        try:
            function = self.client.load_function(template.fn)
        except Exception as e:
            raise FunctionMissing(
                f"The remote function failed to import on the worker: {template.qualname}. This may be because needed "
                f"library dependencies are not installed in the worker environment or cannot be found on sys.path {sys.path}:\n\n"
                f"{traceback.format_exc()}{environ.advice(e)}"
            ) from e
        template.function = function
        return function

    def arguments(self, buf, at, end, flags, n_deps):
        """Read what follows the overrides.

        Returns:
            args, kwargs, retry types

        Raises:
            DependencyFailed: An argument is an error, or can't be rebuilt here.
        """
        deps = []
        for _ in range(n_deps):
            value, at = self._dep(buf, at)
            deps.append(value)
        n = wire.u32(buf, at)[0]
        at += 4
        ids = wire.split_ids(bytes(buf[at : at + n * wire.ID])) if n else ()
        at += n * wire.ID
        self.running = self.named  # from here on the user's code runs, be it that of an argument's class
        if self._poked and self.running:
            self.heed()
        try:
            if flags & wire.ARGS_IN_DEP0:
                holder = deps.pop(0)
                if holder.status:
                    raise DependencyFailed(as_exception(holder))
                call = serialization.load(holder)
            elif at == end:
                return (), None, None
            else:
                lease = self._lease(ids) if ids else None
                call = serialization.deserialize(_kept(buf[at:end]), ids, lease)
            if len(call) == 2:
                return call[0], call[1], None
            args, kwargs, positions, keywords, retry_types = call
            values = []
            for dep in deps:
                if dep.status:
                    raise DependencyFailed(as_exception(dep))
                values.append(serialization.load(dep))
        except DependencyFailed:
            raise
        except Exception as e:  # whatever the classes of an argument raise while it is rebuilt
            raise DependencyFailed(serialization.unreadable(e)) from e
        args = list(args)
        kwargs = dict(kwargs) if kwargs else {}
        for i, position in enumerate(positions):
            args[position] = values[i]
        for i, keyword in enumerate(keywords, len(positions)):
            kwargs[keyword] = values[i]
        return args, kwargs, retry_types

    def _dep(self, buf, at):
        oid, status, where, n = wire.dep.unpack_from(buf, at)
        at += 34
        ids = wire.split_ids(bytes(buf[at : at + n * wire.ID])) if n else ()
        at += n * wire.ID
        size = wire.u64(buf, at)[0]
        at += 8
        lease = self._lease(ids) if ids else None
        if where == wire.INLINE:
            return Value(_kept(buf[at : at + size]), status, ids, lease), at + size
        from ray._core.channel import lease_key, readable

        table = self.client.table
        pin = self.client.arena.exporter(wire.u64(buf, at)[0], size)
        claim = PinClaim(pin, table.put)
        claim.oid = oid
        claim.key = key = ~lease_key()
        table.held[key] = claim
        return Value(readable(pin, size), status, ids, lease), at + 8

    def _lease(self, ids):
        from ray._core.channel import lease_key

        table = self.client.table
        lease = Lease()
        claim = LeaseClaim(lease, table.put)
        claim.ids = ids
        claim.key = key = lease_key()
        table.held[key] = claim
        return lease

    # what comes of it

    def outputs(self, unique8, result, num_returns):
        """A result in the form of its frame: (frames ahead and outputs), what to seal, what must live until then."""
        if num_returns == 1:
            if result is None:
                return (b"", (NONE,)), (), None
            return self.encode(unique8, (serialization.serialize(result),))
        if num_returns == 0:
            if result is not None:
                logging.getLogger("ray").warning(
                    "Task with num_returns=0 returned a value other than None; it is dropped."
                )
            return (b"", ()), (), None
        n = len(result)
        if n != num_returns:
            raise ValueError(f"Task returned {n} objects, but num_returns={num_returns}.")
        return self.encode(unique8, [serialization.serialize(r) for r in result])

    def collected(self, unique8, generator, num_returns, flags, name, retry):
        """As outputs, of a generator that runs to its end here or is cut off; and the outcome."""
        if flags & wire.DYNAMIC:
            value = yields.collected(self, generator, name, unique8, retry)
            return (*self.encode(unique8, (serialization.serialize(value),)), 0)
        if num_returns == 0:
            return (*self.outputs(unique8, generator, 0), 0)
        payloads, failed = yields.taken(self, generator, num_returns, name, unique8, retry)
        return (*self.encode(unique8, payloads), int(failed))

    def encode(self, unique8, payloads, first=1):
        """As outputs, of what is serialized; ``first`` is the index of the first."""
        client = self.client
        stem = unique8 + self.suffix
        inline_max = client.inline_max
        guards = []
        parts = []
        ahead = b""
        room = _RESULT_ROOM - len(payloads) * wire.OUTPUT
        for i, payload in enumerate(payloads, first):
            ids = payload.ids if payload.refs else ()
            oid = stem + i.to_bytes(4, "little")
            inline = payload.size <= inline_max and payload.size <= room
            if inline:
                room -= payload.size
            if ids:
                more, ids = wire.split_contained(oid, ids, room)
                ahead += more
                room -= len(ids) * wire.ID
            if inline:
                parts.append(wire.output(payload.status, wire.INLINE, ids, payload.size, payload.tobytes()))
            else:
                guards.append((oid, client.create(oid, payload)))
                parts.append(wire.output(payload.status, wire.ARENA, ids, payload.size))
        return (ahead, parts), guards, payloads

    def error_outputs(self, unique8, error, name, num_returns, first=1):
        """As outputs, of an error."""
        payload, failure = self.failure(error, name, unique8)
        self.box.frames.append(wire.task_error(unique8, told(failure)))
        try:
            return self.encode(unique8, [payload] * num_returns, first)
        except Exception as e:  # the store is full, say: the error must still arrive
            data = self.error_payload(e, name, unique8).tobytes()[: self.client.inline_max]
            payload = serialization.Payload([(0, data)], len(data), (), wire.FAILED)
            return self.encode(unique8, [payload] * num_returns)

    def error_payload(self, error, name, unique8) -> serialization.Payload:
        """The error of a task as a value, with the refs that it holds."""
        return self.failure(error, name, unique8)[0]

    def failure(self, error, name, unique8):
        """The error of a task as a value, and as its caller sees it."""
        with refs.Listing():  # an error is pickled when it is made, to see whether it can be
            failure = self.task_error(error, name, unique8)
            return serialization.serialize_error(failure), failure

    def task_error(self, error, name, unique8) -> exceptions.RayTaskError:
        """The error of a task as its caller sees it."""
        if isinstance(error, DependencyFailed):
            cause = error.cause
            shown = (
                "ray.exceptions.RayTaskError" if isinstance(cause, exceptions.RayTaskError) else _full_name(type(cause))
            )
            text = (
                "Traceback (most recent call last):\n  At least one of the input arguments for this task could not be "
                f"computed:\n{shown}: {cause}"
            )
        elif isinstance(error, FunctionMissing):
            cause = RuntimeError(str(error))
            text = f"Traceback (most recent call last):\nRuntimeError: {error}"
        else:
            cause = error
            if isinstance(error, KeyboardInterrupt):
                from ray._ids import TaskID

                cause = exceptions.TaskCancelledError(TaskID(unique8 + self.suffix))
            tb = error.__traceback__
            while tb is not None and tb.tb_frame.f_code.co_filename in OURS:
                tb = tb.tb_next
            if tb is None:
                text = "Traceback (most recent call last):\n" + "".join(
                    traceback.format_exception_only(type(cause), cause)
                )
            else:
                text = "".join(traceback.format_exception(type(cause), cause, tb))
            text += environ.advice(cause)
        of_actor = self.actor.described() if self.actor is not None else {}
        return exceptions.RayTaskError(
            name, text, cause, proctitle="ray::" + name, pid=os.getpid(), ip=state.node_ip, **of_actor
        )


NONE = wire.output(wire.OK, wire.INLINE, (), 3, b"\x00N.")


def told(error) -> str:
    """The error of a task as lists of tasks show it."""
    return "User exception:\n" + re.sub(r"\x1b\[[0-9;]*m", "", str(error))


def _kept(data):
    """A value of an EXECUTE. One in the arena is read in place, for it goes with the task's RESULT, unless views of it may last."""
    return bytes(data) if type(data) is memoryview and data[0] == wire.PICKLE_BUFFERS else data


def expanded(text: str) -> str:
    """The value of an environment variable with ``${NAME}`` and ``$NAME`` from this process's environment, as Ray does it.

    A ``${NAME}`` that is not there is empty.
    """
    return re.sub(r"\$\{[A-Za-z0-9_]+\}", "", os.path.expandvars(text)) if "$" in text else text


def _full_name(cls):
    return f"{cls.__module__}.{cls.__qualname__}"


def _show_devices(assigned: dict) -> dict:
    """Set the variables that restrict this process to its devices; the ids as the node's own variables number them."""
    shown = {}
    for resource, ids in assigned.items():
        ids = [str(i) for i in ids]
        for variable in _VISIBLE.get(resource, ()):
            preset = [v.strip() for v in os.environ.get(variable, "").split(",") if v.strip()]
            if preset:
                ids = [preset[int(i)] if i.isdigit() and int(i) < len(preset) else i for i in ids]
            os.environ[variable] = ",".join(ids)
        shown[resource] = [int(i) if i.isdigit() else i for i in ids]
    return shown


def main(exec_fd: int, stream_fd: int, channel_fd: int, arena_fd: int, info: dict) -> int:
    """Run a worker on inherited descriptors until its daemon tells it to leave or is gone.

    Args:
        exec_fd: Receiving end of the SOCK_SEQPACKET pair.
        stream_fd: The worker's stream to the daemon.
        channel_fd: Channel 0.
        arena_fd: The arena, or -1.
        info: What the pool says: ``socket``, ``token`` if it has them.

    Returns:
        The exit status.
    """
    refs._pinned.clear()
    return Worker(
        socket.socket(fileno=exec_fd), socket.socket(fileno=stream_fd), socket.socket(fileno=channel_fd), arena_fd, info
    ).run()
