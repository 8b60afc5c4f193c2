"""Remote functions as the engine sees them: a body that is put once a job, and templates that are registered once."""

from __future__ import annotations

import threading

from ray._core import refs, serialization, wire
from ray._core.state import connected, state

_WARN_SIZE = 10_000_000
_ERROR_SIZE = 100_000_000


class Function:
    """A function's body, exported when it is first needed and loaded when it is first run."""

    def __init__(self, callable, name: str, qualname: str, kind: str = "function"):
        """Wrap a Python callable; ``name`` is short, ``qualname`` is ``module.qualname``, ``kind`` what errors call it."""
        self.kind = kind
        self._callable = callable
        self.name = name
        self.qualname = qualname
        self.hash = b""
        self._ref = None
        self._export = None  # (client, ref, event that is set when the body is on its way)

    @classmethod
    def from_export(cls, ref, name: str, qualname: str, kind: str = "function") -> Function:
        """A function that another process exported as ``ref``."""
        self = cls(None, name, qualname, kind)
        self._ref = ref
        return self

    @property
    def callable(self):
        """The Python callable; loaded on first use if it came from elsewhere."""
        fn = self._callable
        if fn is None:
            fn = self._callable = connected().load_function(self._ref._id)
        return fn

    def export(self):
        """The ref of the function's body, put at the first call in this connection.

        The id exists before the body is pickled, so a body may mention itself.

        Raises:
            TypeError: The function cannot be pickled.
            ValueError: It is larger than 100 MB.
        """
        client = connected()
        made = self._export
        if made is not None and made[0] is client:
            return made[1]
        if self._ref is not None and self._callable is None:
            return self._ref
        if self._ref is not None and self._ref._w is not refs.CLOSED:
            return self._ref
        return self._put(client)

    def ready(self, client):
        """Export, and wait until the body's frame is buffered if another thread is at it."""
        ref = self.export()
        made = self._export
        if made is not None and made[0] is client and not made[2].is_set():
            made[2].wait()
            if self._export is None:
                return self.ready(client)
        return ref

    def _put(self, client):
        ref = client.table.own(client.next_id())
        event = threading.Event()
        with client.export_lock:
            made = self._export
            if made is not None and made[0] is client:
                return made[1]
            self._export = (client, ref, event)
            client.exporting.add(ref._id)
        try:
            payload = self._pickled()
            payload.refs = [r for r in payload.refs if r._id not in client.exporting]
            client.pinned.append((ref, payload.refs))  # a closure's refs live as long as the job
            client.put_payload(ref, payload)
        except BaseException:
            self._export = None
            raise
        finally:
            client.exporting.discard(ref._id)
            event.set()
        return ref

    def payload(self) -> bytes:
        """The body as a value, for who gets it with the call.

        Raises:
            TypeError: The function cannot be pickled.
            ValueError: It is larger than 100 MB.
        """
        payload = self._pickled()
        connected().pinned.append(payload.refs)  # nobody knows when the last copy is gone
        return payload.tobytes()

    def _pickled(self):
        import os
        import pickle

        try:
            payload = serialization.serialize(self._callable)
        except (TypeError, pickle.PicklingError) as e:
            raise TypeError(f"Could not serialize the {self.kind} {self.qualname}:\n{inspected(self._callable)}") from e
        limit = int(os.environ.get("FUNCTION_SIZE_ERROR_THRESHOLD", _ERROR_SIZE))
        what = f"remote function {self.qualname}" if self.kind == "function" else f"actor {self.name}"
        if payload.size > limit:
            raise ValueError(
                f"The {what} is too large ({payload.size >> 20} MiB > FUNCTION_SIZE_ERROR_THRESHOLD="
                f"{limit >> 20} MiB). Check that its definition is not implicitly capturing a large array or other object in "
                "scope. Tip: use ray.put() to put large objects in the Ray object store."
            )
        if payload.size > _WARN_SIZE:
            import logging

            logging.getLogger("ray").warning(
                "The %s is very large (%d MiB). Check that its definition is not implicitly capturing a large array "
                "or other object in scope. Tip: use ray.put() to put large objects in the Ray object store.",
                what,
                payload.size >> 20,
            )
        return payload


def inspected(value) -> str:
    """What stands in the way of pickling a value, in words."""
    import io

    from ray.util import inspect_serializability

    out = io.StringIO()
    inspect_serializability(value, print_file=out)
    return out.getvalue()


class Template:
    """All that is constant from one call of a function to the next. Keep it: it is registered once a connection."""

    __slots__ = (
        "__weakref__",
        "_client",
        "_fields",
        "_head",
        "_tail",
        "bound",
        "function",
        "name",
        "no",
        "qualname",
        "resources",
        "retry_types",
    )

    def __init__(
        self,
        function: Function | None,
        *,
        name: str,
        qualname: str,
        resources: dict,
        max_retries: int,
        retry_exceptions,
        strategy=None,
        env=None,
        max_calls: int = 0,
        labels=None,
        **more,
    ):
        """Describe calls; see docs/protocol.md (TEMPLATE) for the fields.

        Args:
            function: The body; None where the template names a method, or the class comes with the call.
            name: What the task is called in lists and titles.
            qualname: ``module.qualname`` of the function.
            resources: Amounts in 1/10000.
            max_retries: How often a crashed attempt is repeated; -1 for ever.
            retry_exceptions: A bool, or a tuple of the exception classes that are retried.
            strategy: Where to run.
            env: The environment's map.
            max_calls: After how many tasks a worker leaves; 0 for never.
            labels: Labels a node must have.
            more: What actors need: ``method`` ``group`` ``ordered``, or ``actor``; ``backpressure`` and
                ``per_yield`` of a generator.
        """
        self.function = function
        self.name = name
        self.qualname = qualname
        self.resources = resources
        types = retry_exceptions if isinstance(retry_exceptions, (tuple, list)) else ()
        self.retry_types = tuple(types)
        self._fields = {
            "name": name,
            "qualname": qualname,
            "resources": resources,
            "max_retries": max_retries,
            "retry_exceptions": bool(retry_exceptions),
            "strategy": strategy,
            "env": env,
            "max_calls": max_calls,
            "labels": labels,
            **more,
        }
        self.bound = more.get("backpressure") or 0
        self._client = None
        self.no = 0

    def register(self, client):
        """Send the template on this connection; doing so twice leaves the second number in use."""
        import msgpack

        function = self.function
        fn, fn_hash = (function.ready(client)._id, function.hash) if function is not None else (None, b"")
        no = next(client.template_numbers)
        body = msgpack.packb({"fn": fn, "fn_hash": fn_hash, **self._fields})
        if len(body) + 16 > wire.MAX_FRAME:
            raise ValueError(f"The options of {self.qualname} are too large: {len(body)} bytes, at most 1 MiB.")
        claim = refs.TemplateClaim(self, client.table.put)
        claim.key = no
        client.table.held["template", no] = claim
        client.box.frames.append(wire.template(no, body))
        self.no = no
        # A call without arguments differs from the next one in its unique bytes only.
        if "method" in self._fields:
            self._head = wire.head_u32.pack(47, wire.ACTOR_CALL, no)
        else:
            self._head = wire.head_u32.pack(31, wire.SUBMIT, no)
        self._tail = b"\x01\x00\x00\x00" + bytes(14)
        self._client = client


def submit(template: Template, args, kwargs=None, num_returns: int = 1, overrides=None):
    """Start a task.

    Returns:
        An ObjectRef for ``num_returns`` 1 or DYNAMIC, a list of them for more, None for 0, a generator for STREAMING.
    """
    client = state.client
    if client is None:
        client = connected()
    if template._client is not client:
        template.register(client)
    if args or kwargs or overrides or num_returns != 1 or template.retry_types:
        return client.submit(template, args, kwargs, num_returns, overrides)
    unique8 = client.next_unique()
    # What Table.own does, in line: this is the hottest path of a driver.
    oid = unique8 + client.suffix1
    ref = _new(_ObjectRef)
    ref._id = oid
    ref._v = ref._lease = ref._w = None
    table = client.table
    claim = _Claim(ref, table.put)
    claim.key = oid
    table.live[oid] = claim
    client.credit_left -= 419  # the frame's bytes, and client._CALL_COST
    if client.credit_left < 0:
        client.wait_for_credit()
    client.submit_frame(template._head + unique8 + template._tail)
    return ref


_new = object.__new__
_ObjectRef = refs.ObjectRef
_Claim = refs.Claim
