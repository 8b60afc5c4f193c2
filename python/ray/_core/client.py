"""The connection of this process: ids, objects, tasks and calls over one outbox and a reply channel a thread."""

from __future__ import annotations

import os
import threading
import time
from itertools import count

from ray._core import reasons, refs, serialization, streams, wire
from ray._core.channel import Channel, remaining
from ray._core.refs import CLOSED, READY_ELSEWHERE, ObjectRef, Value
from ray._core.serialization import stale
from ray._core.state import SCRIPT_MODE, connected, state

_WARN_AFTER = 10.0  # seconds of waiting after which the log says what for
_ARGS_INLINE = 64 << 10  # bytes of arguments in a SUBMIT; more go into an object of their own
_IDS_A_FRAME = 30000
_CALL_COST = 384  # bytes of credit for each call besides its frame: what the daemon's records of it take
_RETURN_COST = 128  # bytes of credit for each return of a task beyond the first: the daemon keeps a record of it
_load = serialization.load


class Client:
    """A live connection to the node daemon."""

    def __init__(self, box, arena, welcome: dict, socket_path: str, key: bytes, version: str, role: str):
        """Take over a greeted stream. Use connect()."""
        self.box = box
        self.submit_frame = box.add  # of a task or a call; an actor's process says which call makes it
        self.table = box.table
        self.arena = arena
        self.session = welcome["session"]
        self.inline_max = welcome.get("inline_max", 102400)
        self.credit_left = self.credit_limit = welcome.get("credit", 64 << 20)
        self.socket_path = socket_path  # or the Relay of a daemon far away
        self.clients = welcome.get("clients")  # how many a daemon far away has
        self.version = version
        self.role = role  # of further channels
        self.template_numbers = count(1)
        self.exporting = set()
        self.export_lock = threading.Lock()
        self.pinned = []
        self.functions = {}
        self.suffix = b"\xff" * 12 + welcome["job_id"]
        self.suffix1 = self.suffix + b"\x01\x00\x00\x00"
        self.futures = None
        self.logs = None  # a DriverLogs, where workers' output is shown
        self._key = key
        self._local = threading.local()
        self._channels = count(1)
        self._warned = {}  # refs of which the log told: since when they are waited for, and when to tell again
        self._rest = None  # what the last wait returned, and for how many
        self._ids_lock = threading.Lock()
        first, n = welcome["ids"]
        self._uniques = map(wire.unique.pack, range(first, first + n))

    # ids

    def next_unique(self) -> bytes:
        """8 bytes that no other task or put of the cluster has."""
        try:
            return next(self._uniques)
        except StopIteration:
            with self._ids_lock:
                for unique8 in self._uniques:
                    return unique8
                first, n = self.call("ids")["ids"]
                self._uniques = map(wire.unique.pack, range(first, first + n))
            return self.next_unique()

    def next_id(self) -> bytes:
        """The id of a new put."""
        return self.next_unique() + self.suffix1

    # channels

    def channel(self) -> Channel:
        """This thread's reply channel."""
        try:
            return self._local.channel
        except AttributeError:
            made = self._local.channel = self.open_channel()
            return made

    def adopt_channel(self, sock):
        """Use an inherited, greeted socket as channel 0 of this thread."""
        self._local.channel = Channel(sock, 0, self.box, self.arena)

    def open_channel(self) -> Channel:
        """Connect a further channel; CHANNEL_CLOSE follows when it is collected."""
        no = self.new_channel_number()
        sock, _, _ = self.dial(no)
        channel = Channel(sock, no, self.box, self.arena)
        claim = refs.ChannelClaim(channel, self.table.put)
        claim.sock = sock
        claim.key = no
        self.table.held["channel", no] = claim
        return channel

    def new_channel_number(self) -> int:
        """A number that no other channel of this session has."""
        return next(self._channels)

    def dial(self, no):
        """Connect to the daemon as this session's channel ``no``; see greeting.dial."""
        from ray._core import greeting

        return greeting.dial(
            self.socket_path, self.role, self._key, version=self.version, session=self.session, chan=no
        )

    def answer(self, channel, req, timeout=None):
        """Wait for the one answer of a request."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while req not in channel.answers:
            left = remaining(deadline)
            if left == 0 or not channel.receive(left):
                raise TimeoutError
        return channel.answers.pop(req)

    def call(self, method: str, **arguments) -> dict:
        """Ask the daemon.

        Raises:
            RayError: What the daemon answered, as Ray's class.
            ConnectionError: It is gone.
        """
        import msgpack

        channel = self.channel()
        req = channel.request()
        self.box.frames.append(wire.call(channel.no, req, msgpack.packb({"m": method, **arguments})))
        self.box.flush(claims=True)  # it may ask for what depends on them
        return self.reply(*self.answer(channel, req))

    def reply(self, kind, body) -> dict:
        """What a REPLY says; what an ERROR says is raised."""
        import msgpack

        answer = msgpack.unpackb(body, strict_map_key=False)
        if kind == wire.ERROR:
            from ray import exceptions

            raise exceptions.from_daemon(answer)
        return answer

    def wait_for_credit(self):
        """Block until the daemon takes more SUBMIT and PUT bytes."""
        channel = self.channel()
        while self.credit_left < 0:
            req = channel.request()
            self.box.frames.append(wire.credit(channel.no, req, self.credit_limit - self.credit_left))
            self.box.flush()
            limit = self.reply(*self.answer(channel, req))["limit"]
            self.credit_left += limit - self.credit_limit
            self.credit_limit = limit

    def spend(self, size):
        """Take ``size`` bytes from the credit; block while there is none."""
        self.credit_left -= size
        if self.credit_left < 0:
            self.wait_for_credit()

    # put

    def put(self, value) -> ObjectRef:
        """Store a value; see ray.put."""
        if type(value) is ObjectRef:
            raise TypeError(
                "Calling 'put' on an ray.ObjectRef is not allowed. If you really want to do this, you can wrap the "
                "ray.ObjectRef in a list and call 'put' on it."
            )
        payload = self.pickled(value, lambda: f"the put value {value!r}")
        ref = self.table.own(self.next_id())
        self.put_payload(ref, payload)
        return ref

    def pickled(self, value, what):
        """Serialize a user's value, with a TypeError that tells what in it cannot be."""
        import pickle

        try:
            return serialization.serialize(value)
        except (TypeError, pickle.PicklingError) as e:
            if isinstance(e.__cause__, RecursionError):
                raise  # what is too deep for pickle is too deep for repr()
            from ray._core.tasks import inspected

            raise TypeError(f"Could not serialize {what()}:\n{inspected(value)}") from e

    def put_payload(self, ref, payload):
        """Send a payload as the object ``ref``."""
        oid = ref._id
        contained = [r._id for r in payload.refs] if payload.refs else ()
        if payload.size <= self.inline_max:
            data = payload.tobytes()
            ahead, listed = (
                wire.split_contained(oid, contained, wire.MAX_FRAME - 64 - len(data)) if contained else (b"", ())
            )
            frame = ahead + wire.put(oid, payload.status, listed, data)
            ref._v = Value(data, payload.status, contained, payload.refs or None)
            if len(data) > refs.COUNT_FROM:
                self.table.cached(oid, len(data))
            self.spend(len(frame))
            self.box.add(frame)
        else:
            guard = self.create(oid, payload)
            ahead, listed = wire.split_contained(oid, contained, wire.MAX_FRAME - 64)
            self.box.add(ahead + wire.seal(oid, payload.status, listed))
            self.sealed(oid, guard)
            ref._v = refs.READY

    def create(self, oid, payload):
        """CREATE an arena object and write it; unless sealed() is called it is given up when the guard dies."""
        channel = self.channel()
        req = channel.request()
        guard = refs.Lease()
        claim = refs.CreateClaim(guard, self.table.put)
        claim.key = oid
        self.table.held["create", oid] = claim
        self.box.frames.append(wire.create(channel.no, req, oid, payload.size))
        self.box.flush(claims=True)  # what was dropped makes room, of pages that are warm
        kind, body = self.answer(channel, req)
        if kind == wire.ERROR:
            del self.table.held["create", oid]
            self.reply(kind, body)
        self.arena.write(wire.u64(body)[0], payload)
        return guard

    def sealed(self, oid, guard):
        """The frame that seals is buffered: the object is no longer given up with its guard."""
        del self.table.held["create", oid]
        del guard

    # get

    def get(self, wanted, timeout=None):
        """The value of a ref, or the values of a list of refs; see ray.get."""
        if type(wanted) is ObjectRef:
            value = wanted._v
            if type(value) is Value and not value.status:
                return _load(value)
            if value is None and timeout is None and wanted._w is None:
                return self._get_one(wanted._id)
            channel = self._fetch((wanted,), timeout)
            try:
                return self._result(wanted, channel)
            finally:
                if channel is not None and channel.values:
                    channel.values.clear()
        if not isinstance(wanted, list):
            if type(wanted) is streams.generator_type():
                return wanted
            raise ValueError(
                f"Invalid type of object refs, {type(wanted)}, is given. 'object_refs' must either be an ObjectRef or a list "
                "of ObjectRefs. "
            )
        for ref in wanted:
            if type(ref) is not ObjectRef:
                raise TypeError(f"Attempting to call `get` on the value {ref!r}, which is not an ray.ObjectRef.")
        cached = [ref._v for ref in wanted]  # held: what comes in may push them out of the refs
        channel = self._fetch(wanted, timeout)
        try:
            out = []
            append = out.append
            for ref, value in zip(wanted, cached):
                if type(value) is Value and not value.status:
                    append(_load(value))
                else:
                    append(self._result(ref, channel))
            return out
        finally:
            if channel is not None and channel.values:
                channel.values.clear()

    def _get_one(self, oid):
        """The value of one object, however long it takes: what a loop of calls and gets does all the time."""
        channel = self.channel()
        req = channel.request()
        values = channel.values
        box = self.box
        box.frames.append(wire.get_one(channel.no, req, oid))
        box.flush()
        try:
            while True:
                value = values.get(oid)
                if value is not None:
                    if value.status:
                        raise as_exception(value, oid)
                    return _load(value)
                if req in channel.answers:
                    kind, body = channel.answers[req]
                    if kind == wire.ERROR:
                        self.reply(kind, body)
                if not channel.receive(_WARN_AFTER):
                    reasons.tell(self, channel, _WARN_AFTER, [oid])
        finally:
            if values:
                values.clear()

    def _result(self, ref, channel):
        value = ref._v
        if type(value) is not Value:
            value = channel.values[ref._id]
        if value.status:
            raise as_exception(value, ref._id)
        return _load(value)

    def _fetch(self, wanted, timeout):
        """Wait until every ref has a value, in itself or on the channel that is returned; raise the first known error."""
        missing = {}
        for ref in wanted:
            value = ref._v
            if type(value) is Value:
                if value.status:
                    raise as_exception(value, ref._id)
            else:
                if ref._w is CLOSED:
                    raise stale(ref)
                missing[ref._id] = ref
        _check_number(timeout)
        if not missing:
            return None
        channel = self.channel()
        ids = list(missing)
        if len(ids) > _IDS_A_FRAME:
            deadline = None if timeout is None else time.monotonic() + timeout
            kept = {}
            for i in range(0, len(ids), _IDS_A_FRAME):
                part = ids[i : i + _IDS_A_FRAME]
                self._fetch_some(channel, part, [missing[oid] for oid in part], remaining(deadline))
                kept.update(channel.values)  # which a later request forgets
            channel.values.update(kept)
        else:
            self._fetch_some(channel, ids, wanted, timeout)
        return channel

    def _fetch_some(self, channel, ids, wanted, timeout):
        req = channel.request()
        values = channel.values
        answers = channel.answers
        need = len(ids)
        started = 0.0
        box = self.box
        box.frames.append(wire.get(channel.no, req, ids))
        if timeout is not None:
            deadline = time.monotonic() + timeout
            if timeout <= 0:
                box.frames.append(wire.cancel_req(channel.no, req))
        else:
            deadline = None
        box.flush()
        cancelled = timeout is not None and timeout <= 0
        while True:
            if channel.failed:
                self._raise_first(wanted, values)
            if len(values) >= need and self._all_there(ids, values):
                return
            if req in answers:
                kind, body = answers[req]
                if kind == wire.ERROR:
                    self.reply(kind, body)
                if kind == wire.DONE:
                    reasons.timed_out(self, channel, ids, wanted)
            pause = _WARN_AFTER
            if deadline is not None and not cancelled:
                left = deadline - time.monotonic()
                if left <= 0:
                    box.frames.append(wire.cancel_req(channel.no, req))
                    box.flush()
                    cancelled = True
                elif left < pause:
                    pause = left
            if not channel.receive(None if cancelled else pause) and pause == _WARN_AFTER:
                started += pause
                reasons.tell(self, channel, _WARN_AFTER, [oid for oid in ids if oid not in values])

    def _all_there(self, ids, values):
        return all(oid in values for oid in ids)

    def _raise_first(self, wanted, values):
        for ref in wanted:
            value = values.get(ref._id) or ref._v
            if type(value) is Value and value.status:
                raise as_exception(value, ref._id)

    # wait

    def wait(self, wanted, num_returns=1, timeout=None, fetch_local=True):
        """Split refs into ready and not ready; see ray.wait."""
        # A loop that waits for the rest of the last wait is the common case, and checking 1,000 refs takes longer than all
        # else: the list that we returned is not checked again unless we have to ask the daemon.
        try:
            same = (id(wanted), num_returns, *_ends(wanted)) == self._rest
        except (TypeError, AttributeError, LookupError):
            same = False
        if not same or timeout is not None and timeout < 0 or len(wanted) < num_returns:
            if _check_wait(wanted, num_returns, timeout):
                return [], []
            num_returns = int(num_returns)
            checked = True
        else:
            checked = False
        try:
            found = self._ready(wanted, num_returns, fetch_local)
        except AttributeError:
            _check_wait(wanted, num_returns, timeout)
            raise
        if len(found) < num_returns:
            if not checked:
                _check_wait(wanted, num_returns, timeout)
            found = self._wait(wanted, num_returns, timeout, fetch_local)
        rest = list(wanted)
        if len(found) == 1:
            ready = [rest.pop(found[0])]
        elif not found:
            return [], rest
        elif len(found) == len(rest):
            return rest, []
        else:
            ready = [wanted[i] for i in found]
            for i in reversed(found) if len(found) < 16 else ():
                del rest[i]
            if len(found) >= 16:
                chosen = set(ready)
                rest = [r for r in rest if r not in chosen]
        self._rest = (id(rest), num_returns, *_ends(rest)) if rest else None
        return ready, rest

    def _ready(self, wanted, most, fetch):
        """Indexes of up to ``most`` refs that are known to be ready."""
        found = []
        i = 0
        for ref in wanted:
            value = ref._v
            if value is not None and not (fetch and value is READY_ELSEWHERE):
                found.append(i)
                if len(found) == most:
                    break
            i += 1
        return found

    def _wait(self, wanted, num_returns, timeout, fetch):
        if streams.generator_type() in set(map(type, wanted)):
            return streams.wait_mixed(self, wanted, num_returns, timeout, fetch)
        channel = self.channel()
        deadline = None if timeout is None else time.monotonic() + timeout
        mark = channel.no + 1 if fetch else -channel.no - 1
        asked = last = False
        while True:
            found = self._ready(wanted, num_returns, fetch)
            if len(found) >= num_returns or last:
                return found
            left = remaining(deadline)
            last = left == 0
            req = self._watch(channel, wanted, num_returns - len(found), mark, fetch, last)
            self.box.flush()
            asked = self._await_ready(channel, req, wanted, deadline, last)
            if not asked:
                continue

    def _watch(self, channel, wanted, need, mark, fetch, last):
        """Buffer the WAIT for refs that are not ready; returns the number of the request that is answered."""
        new = []
        for ref in wanted:
            value = ref._v
            if (value is None or (fetch and value is READY_ELSEWHERE)) and ref._w != mark:
                if ref._w is CLOSED:
                    raise stale(ref)
                new.append(ref)
        req = channel.request()
        ids = [r._id for r in new]
        for i in range(_IDS_A_FRAME, len(ids), _IDS_A_FRAME):
            self.box.frames.append(wire.wait(channel.no, req, 1, int(fetch), ids[i : i + _IDS_A_FRAME]))
            req = channel.request()
        self.box.frames.append(wire.wait(channel.no, req, 0 if last else need, int(fetch), ids[:_IDS_A_FRAME]))
        for ref in new:
            ref._w = mark
        return req

    def _await_ready(self, channel, req, wanted, deadline, last):
        while req not in channel.answers:
            left = None if last else remaining(deadline)
            if left == 0:
                return False
            pause = None if last else _WARN_AFTER if left is None else min(left, _WARN_AFTER)
            if not channel.receive(pause) and pause == _WARN_AFTER:
                reasons.tell(self, channel, _WARN_AFTER, [r._id for r in wanted if r._v is None])
        kind, body = channel.answers[req]
        if kind == wire.ERROR:
            self.reply(kind, body)
        return True

    # tasks

    def submit(self, template, args, kwargs, num_returns, overrides):
        """The general form of tasks.submit."""
        unique8 = self.next_unique()
        flags, deps, contained, data, ahead, keep = self.arguments(template, args, kwargs, unique8 + self.suffix1)
        kind = num_returns
        if num_returns < 0:
            flags |= -num_returns
            num_returns = 1
        frame = ahead + wire.submit(
            template.no, unique8, num_returns, flags, deps, contained, wire.packed(overrides), data
        )
        out = self.send_call(frame, unique8 + self.suffix, num_returns, keep)
        return streams.generator(self, out, template) if kind == streams.STREAMING else out

    def arguments(self, template, args, kwargs, out1):
        """Bring the arguments of a call into the form of its frame.

        Args:
            template: Of the call.
            args: Positional arguments.
            kwargs: Keyword arguments, or None.
            out1: The id of the call's first output.

        Returns:
            flags, ids of dependencies, contained ids, the payload, frames that go ahead, and what must live until the
            frame is buffered.
        """
        try:
            deps, payload = serialization.serialize_args(args, kwargs, template.retry_types)
        except Exception as e:
            self._blame_argument(template, args, kwargs, e)
            raise
        for ref in deps:
            if ref._w is CLOSED:
                raise stale(ref)
        flags = 0
        contained = ()
        data = ahead = b""
        if payload is not None:
            if payload.size > _ARGS_INLINE:
                flags = wire.ARGS_IN_DEP0
                holder = self.table.own(self.next_id())
                self.put_payload(holder, payload)
                holder._v = None
                deps = [holder, *deps]
            else:
                data = payload.tobytes()
                if payload.refs:
                    room = wire.MAX_FRAME - len(data) - 1024 - len(deps) * wire.ID
                    ahead, contained = wire.split_contained(out1, payload.ids, room)
        if len(deps) * wire.ID + len(data) > wire.MAX_FRAME - 4096:
            raise ValueError(
                f"{template.qualname} was called with {len(deps)} refs as arguments of their own; at most about 35,000 fit into a "
                "call. Pass them in a list, and get them in the task."
            )
        return flags, [r._id for r in deps], contained, data, ahead, (deps, payload)

    def send_call(self, frame, stem, num_returns, keep):
        """Buffer the frame of a call whose outputs have ids that begin with ``stem``.

        Returns:
            Its ref, or a list of refs, or None for no outputs.
        """
        own = self.table.own
        if num_returns == 1:
            out = own(stem + b"\x01\x00\x00\x00")
        else:
            out = [own(stem + i.to_bytes(4, "little")) for i in range(1, num_returns + 1)] or None
        self.spend(len(frame) + _CALL_COST + (_RETURN_COST * (num_returns - 1) if num_returns > 1 else 0))
        self.submit_frame(frame)
        del keep
        return out

    def _blame_argument(self, template, args, kwargs, error):
        """Raise the TypeError that names the argument that cannot be pickled."""
        import pickle

        if not isinstance(error, (TypeError, pickle.PicklingError)) or isinstance(error.__cause__, RecursionError):
            return
        for value in (*args, *(kwargs or {}).values()):
            try:
                serialization.serialize(value)
            except (TypeError, pickle.PicklingError):
                from ray._core.tasks import inspected

                raise TypeError(
                    f"Could not serialize the argument {value!r} for a task or actor {template.qualname}:\n{inspected(value)}"
                ) from error

    def cancel(self, oid, force, recursive):
        """Cancel the task that makes the object ``oid``."""
        self.box.frames.append(
            wire.cancel_task(oid, (wire.FORCE if force else 0) | (wire.RECURSIVE if recursive else 0))
        )
        self.box.flush()

    def load_function(self, oid):
        """The callable whose body is the object ``oid``."""
        fn = self.functions.get(oid)
        if fn is None:
            fn = self.functions[oid] = self.get(self.table.intern(oid, refs.UNCOUNTED))
        return fn

    # end

    def close(self):
        """Send what is buffered and leave. Views of the arena stay readable."""
        if self.logs is not None:
            self.logs.flush()
            self.logs.close()
            self.logs = None  # it knows this client: without the cycle the arena is unmapped now
        if self.futures is not None:
            self.futures.close()
        self.table.close()
        self.pinned.clear()
        self.functions.clear()
        self.box.close()
        for key, claim in list(self.table.held.items()):
            if type(claim) is refs.ChannelClaim:
                del self.table.held[key]
                claim.sock.close()
        self._local = threading.local()

    def abandon(self):
        """In a forked child: close every descriptor, say nothing."""
        self.box.abandon()
        for claim in list(self.table.held.values()):
            if type(claim) is refs.ChannelClaim:
                claim.sock.close()
        self.table.held.clear()
        channel = getattr(self._local, "channel", None)
        if channel is not None:
            channel.close()
        if type(self.socket_path) is not str:
            self.socket_path.abandon()


def _ends(refs):
    """What a list of different refs is known by, besides its address, which another list may have by now."""
    return len(refs), refs[0]._id, refs[-1]._id


def _check_number(timeout):
    """Refuse a timeout that no clock can reach and no comparison finds."""
    if timeout is not None and timeout != timeout:
        raise ValueError("The 'timeout' argument must be a number of seconds. Received nan")


def _check_wait(wanted, num_returns, timeout) -> bool:
    """Check the arguments of wait; whether there is nothing to wait for."""
    if type(wanted) is not list:
        if type(wanted) is ObjectRef or type(wanted) is streams.generator_type():
            raise TypeError(
                "wait() expected a list of ray.ObjectRef or ray.ObjectRefGenerator, got a single ray.ObjectRef or "
                f"ray.ObjectRefGenerator {wanted}"
            )
        if not isinstance(wanted, list):
            raise TypeError(f"wait() expected a list of ray.ObjectRef or ray.ObjectRefGenerator, got {type(wanted)}")
    if timeout is not None and timeout < 0:
        raise ValueError(f"The 'timeout' argument must be nonnegative. Received {timeout}")
    _check_number(timeout)
    for kind in set(map(type, wanted)):
        if kind is not ObjectRef and kind is not streams.generator_type():
            raise TypeError(
                f"wait() expected a list of ray.ObjectRef or ray.ObjectRefGenerator, got list containing {kind}"
            )
    if not wanted:
        return True
    if len(set(wanted)) != len(wanted):
        raise ValueError("Wait requires a list of unique ray_waitables.")
    if num_returns <= 0:
        raise ValueError(f"Invalid number of objects to return {num_returns}.")
    if num_returns > len(wanted):
        raise ValueError("num_returns cannot be greater than the number of ray_waitables provided to ray.wait.")
    return False


def as_exception(value: Value, oid=None) -> BaseException:
    """The exception that an error value, that of the object ``oid``, stands for."""
    from ray import exceptions

    data = value.data
    if data[0] == wire.EXCEPTION:
        # Known before the error is made, so that the refs in it are counted ones.
        held = connected().table.intern_all(value.ids, value.lease) if value.ids else None
        error = exceptions.RayError.from_bytes(bytes(memoryview(data)[1:]))
        del held
        return error.as_instanceof_cause() if isinstance(error, exceptions.RayTaskError) else error
    if data[0] == wire.DAEMON_ERROR:
        import msgpack

        return exceptions.from_daemon(
            {"object": oid or b"", **msgpack.unpackb(memoryview(data)[1:], strict_map_key=False)}
        )
    return exceptions.RaySystemError(f"an error value of unknown format {data[0]}")


def connect(socket_path, token, job: dict, *, ray_version: str) -> Client:
    """Connect this process as a driver.

    Args:
        socket_path: The node daemon's Unix socket, or the Relay of a daemon far away.
        token: The cluster's token.
        job: The map ``job`` of the protocol's HELLO.
        ray_version: What ``ray.__version__`` says.

    Raises:
        ConnectionError: Nobody listens, or the daemon is no daemon of ours.
        RuntimeError: The cluster has another version of Ray or of Python.
        AuthenticationError: The token is wrong.
    """
    from ray._core import greeting, sites
    from ray._core.arena import Arena
    from ray._core.outbox import Outbox

    if state.client is not None:
        raise RuntimeError("This process is connected already.")
    key = token.encode() if isinstance(token, str) else bytes(token)
    sock, welcome, fd = greeting.dial(socket_path, "driver", key, version=ray_version, want_fd=True, job=job)
    try:
        arena = Arena(fd, welcome["arena_size"]) if fd is not None else None
        box = Outbox(sock)
        client = Client(box, arena, welcome, socket_path, key, ray_version, "channel")
        box.start()
    except BaseException:
        sock.close()
        raise
    state.forked = False
    state.fill(SCRIPT_MODE, client, welcome, job)
    sites.enable(client)
    return client


def disconnect():
    """End this process's connection, if it has one."""
    client = state.client
    if client is not None:
        state.clear()
        client.close()


def get(wanted, timeout=None):
    """See Client.get."""
    client = state.client
    return (client if client is not None else connected()).get(wanted, timeout)


def put(value) -> ObjectRef:
    """See Client.put."""
    client = state.client
    return (client if client is not None else connected()).put(value)


def wait(wanted, num_returns=1, timeout=None, fetch_local=True):
    """See Client.wait."""
    client = state.client
    return (client if client is not None else connected()).wait(wanted, num_returns, timeout, fetch_local)


def cancel(oid, force: bool, recursive: bool):
    """See Client.cancel."""
    connected().cancel(oid, force, recursive)


def call(method: str, **arguments) -> dict:
    """See Client.call."""
    return connected().call(method, **arguments)


def _after_fork():
    client = state.client
    if client is not None:
        state.clear()
        state.forked = True
        client.abandon()


os.register_at_fork(after_in_child=_after_fork)
