"""The functions of ``ray`` that work on objects and on the cluster as a whole."""

import os
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from ray import _core
from ray._missing import missing

if TYPE_CHECKING:
    from ray._core import ObjectRef

SCRIPT_MODE = 0
WORKER_MODE = 1

_state = _core.state


def ensure_initialized() -> None:
    """Connect this process if it is not connected yet, as every call that needs a cluster does."""
    if _state.client is not None:
        return
    if _state.forked or os.environ.get("RAY_ENABLE_AUTO_CONNECT", "1") == "0":
        from ray._core.state import connected

        connected()  # raises, and knows why
    from ray._init import auto_init

    auto_init()


def is_initialized() -> bool:
    """Whether this process is connected to a cluster."""
    return _state.client is not None


def get(object_refs, *, timeout: Optional[float] = None, _use_object_store: bool = False) -> Any:
    """Wait for objects and return their values.

    Args:
        object_refs: One ``ObjectRef``, or a list of n of them.
        timeout: Seconds to wait for all of them together; ``None`` or -1 waits for ever, 0 only looks.

    Returns:
        The value, or a list of n values in the order of ``object_refs``. Large arrays are read-only views of shared memory,
        without a copy; they stay valid for as long as they are held.

    Raises:
        GetTimeoutError: Not all were ready in time.
        RayTaskError: The task raised; also an instance of the original class, with the remote traceback.
        ObjectLostError: Every copy is gone.
        ValueError: ``object_refs`` is neither an ``ObjectRef`` nor a list.
        TypeError: The list holds something else than ``ObjectRef``.
    """
    if _state.client is None:
        ensure_initialized()
    if timeout is not None and timeout < 0:
        timeout = None
    if _use_object_store:
        raise missing("ray.get(_use_object_store=True)")
    if _state.context is not None:
        _warn_if_blocking("ray.get")
    return _core.get(object_refs, timeout)


_warned = set()


def _warn_if_blocking(what: str) -> None:
    """Tell, once a process, that a call of an async actor holds up all its coroutines."""
    import asyncio

    if what in _warned or asyncio._get_running_loop() is None:
        return
    _warned.add(what)
    if os.environ.get("RAY_WARN_BLOCKING_GET_INSIDE_ASYNC", "1") == "0":
        return
    import logging
    import sys

    frame = sys._getframe(2)
    where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    instead = "`await ref`, or `await asyncio.gather(*refs)`," if what == "ray.get" else "`await asyncio.wait(refs)`"
    logging.getLogger("ray").warning(
        "Using blocking %s inside async actor. This blocks the event loop. Please use `await` on object ref with "
        "asyncio.gather if you want to yield execution to the event loop instead: write %s at %s.",
        what,
        instead,
        where,
    )


def put(value: Any, *, _owner=None, _tensor_transport: Optional[str] = None) -> "ObjectRef":
    """Store a value and return a reference to it.

    Raises:
        TypeError: ``value`` is an ``ObjectRef``, or can't be serialised.
        ObjectStoreFullError: The store has no room, and nothing in it can go.
    """
    if _state.client is None:
        ensure_initialized()
    if _owner is not None:
        raise ValueError("The experimental `_owner` argument to `ray.put` has been removed in Ray 2.56.")
    if _tensor_transport is not None:
        raise missing("ray.put(_tensor_transport=...)")
    return _core.put(value)


def wait(
    ray_waitables: List["ObjectRef"],
    *,
    num_returns: int = 1,
    timeout: Optional[float] = None,
    fetch_local: bool = True,
) -> Tuple[List["ObjectRef"], List["ObjectRef"]]:
    """Wait until some of a list of objects are ready.

    Args:
        ray_waitables: A list of different ``ObjectRef``.
        num_returns: How many to wait for.
        timeout: Seconds to wait at most; ``None`` waits for ever, 0 only looks.
        fetch_local: Whether ready means that the value is on this node; False: that it exists anywhere.

    Returns:
        The ready ones, at most ``num_returns``, and all others, both in the order of ``ray_waitables``. Failed objects
        are ready.

    Raises:
        TypeError: ``ray_waitables`` is not a list of ``ObjectRef``.
        ValueError: It holds a ref twice, ``num_returns`` is not between 1 and its length, or ``timeout`` is negative.
    """
    if _state.client is None:
        ensure_initialized()
    if _state.context is not None:
        _warn_if_blocking("ray.wait")
    return _core.wait(ray_waitables, num_returns, timeout, fetch_local)


def _call_state(method: str) -> Dict:
    if _state.client is None:
        from ray.exceptions import RaySystemError

        raise RaySystemError("Ray has not been started yet. Trying to use state API before ray.init() has been called.")
    return _core.call(method)


def nodes() -> List[Dict]:
    """The nodes of the cluster, dead ones included, as dicts with Ray's keys (``NodeID``, ``Alive``, ``Resources``, …).

    Raises:
        RaySystemError: This process is not connected.
    """
    return [_node(n) for n in _call_state("nodes")["nodes"]]


def _node(n: Dict) -> Dict:
    alive = bool(n["alive"])
    socket = n.get("socket", "")
    return {
        "NodeID": _hex(n["node_id"]),
        "Alive": alive,
        "NodeManagerAddress": n.get("ip", ""),
        "NodeManagerHostname": n.get("hostname", ""),
        "NodeManagerPort": n.get("port", 0),
        "ObjectManagerPort": n.get("object_port", 0),
        "ObjectStoreSocketName": socket,
        "RayletSocketName": socket,
        "MetricsExportPort": n.get("metrics_port", 0),
        "MetricsAgentPort": n.get("agent_port", 0),
        "DashboardAgentListenPort": n.get("agent_port", 0),
        "NodeName": n.get("name", "") or n.get("ip", ""),
        "RuntimeEnvAgentPort": n.get("agent_port", 0),
        "DeathReason": n.get("death_reason", 0) or 0,
        "DeathReasonMessage": n.get("death_message", "") or "",
        "alive": alive,
        "Resources": dict(n.get("resources") or {}) if alive else {},
        "Labels": dict(n.get("labels") or {}),
    }


def _hex(value) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def cluster_resources() -> Dict[str, float]:
    """The resources of all living nodes together, name to quantity.

    Raises:
        RaySystemError: This process is not connected.
    """
    return {k: float(v) for k, v in _call_state("resources")["total"].items()}


def available_resources() -> Dict[str, float]:
    """The resources that nothing uses now; what is used up is absent.

    Raises:
        RaySystemError: This process is not connected.
    """
    return {k: float(v) for k, v in _call_state("resources")["available"].items() if v}


def timeline(filename: Optional[str] = None):
    """What ran when: the events of the cluster's tasks, as Chrome's trace viewer (chrome://tracing, ui.perfetto.dev) reads them.

    Args:
        filename: A file to write them to, as JSON; None returns them.

    Raises:
        RuntimeError: This process is not connected.
    """
    if _state.client is None:
        raise RuntimeError(
            "Ray has not been started yet. Timeline requires Ray to be initialized first: call ray.init()."
        )
    from ray.util.state.api import StateApiClient

    events = StateApiClient().timeline()
    if filename is None:
        return events
    import json

    with open(filename, "w", encoding="utf-8") as f:
        json.dump(events, f)
    return None


def get_gpu_ids() -> List:
    """The ids of the GPUs that the running task may use; on a driver an empty list.

    Returns:
        Ints, or the strings of CUDA_VISIBLE_DEVICES where the node names its GPUs otherwise.
    """
    ensure_initialized()
    ids = (getattr(_state, "accelerators", None) or {}).get("GPU", [])
    return [int(i) if isinstance(i, int) or str(i).isdigit() else i for i in ids]


def cancel(ray_waitable, *, force: bool = False, recursive: bool = True) -> None:
    """Cancel a task or a call of an actor's method. It is not retried, and ``ray.get`` of it raises ``TaskCancelledError``.

    One that waits is dropped. In a task that runs, ``KeyboardInterrupt`` is raised; a coroutine is cancelled. What else
    runs can ask :meth:`~ray.runtime_context.RuntimeContext.is_canceled`. What has ended, or was put, stays as it is.

    Args:
        ray_waitable: An ``ObjectRef``, or an ``ObjectRefGenerator``.
        force: Whether to kill the process that runs the task.
        recursive: Whether to cancel what the task has called, too, and so on.

    Raises:
        TypeError: ``ray_waitable`` is neither an ``ObjectRef`` nor an ``ObjectRefGenerator``.
        ValueError: ``force`` with a call of an actor's method.
    """
    ensure_initialized()
    from ray._generators import ObjectRefGenerator

    if isinstance(ray_waitable, ObjectRefGenerator):
        ray_waitable = ray_waitable._generator_ref
    if not isinstance(ray_waitable, _core.ObjectRef):
        raise TypeError(
            f"ray.cancel() only supported for object refs. For actors, try ray.kill(). Got: {type(ray_waitable)}."
        )
    oid = ray_waitable.binary()
    if force and oid[8:20] != b"\xff" * 12:
        raise ValueError("force=True is not supported for actor tasks.")
    _core.cancel(oid, bool(force), bool(recursive))


def kill(actor, *, no_restart: bool = True) -> None:
    """Kill an actor at once, without letting it clean up.

    Args:
        actor: Its handle.
        no_restart: Whether it stays dead; False: it is restarted as ``max_restarts`` allows.

    Raises:
        ValueError: ``actor`` is not an actor handle, or one of a session that has ended.
    """
    ensure_initialized()
    from ray import _actor_handle

    if not isinstance(actor, _actor_handle.ActorHandle):
        raise ValueError(f"ray.kill() only supported for actors. For tasks, try ray.cancel(). Got: {type(actor)}.")
    _core.call("actor_kill", actor=_actor_handle.checked(actor), no_restart=bool(no_restart))


def get_actor(name: str, namespace: Optional[str] = None):
    """Look up a named actor.

    Args:
        name: Its name.
        namespace: Where it was created; None: the namespace of this job.

    Returns:
        A handle that does not keep the actor alive.

    Raises:
        ValueError: There is none, or ``name`` or ``namespace`` is empty.
    """
    if not name:
        raise ValueError("Please supply a non-empty value to get_actor")
    if not isinstance(name, str):
        raise TypeError(f"The name of an actor must be a string, got {type(name)}.")
    if namespace is not None:
        from ray._init import check_namespace

        check_namespace(namespace)
    ensure_initialized()
    from ray import _actor_handle

    try:
        found = _core.call("actor_get", name=name, ns=namespace or _state.namespace or "")
    except ValueError:
        raise ValueError(
            f"Failed to look up actor with name '{name}'. This could because 1. You are trying to look up a named actor you "
            "didn't create. 2. The named actor died. 3. You did not use a namespace matching the namespace of the actor."
        ) from None
    return _actor_handle.weak(found["actor_id"], found["meta"])


class Language:
    """A language that remote functions can be written in."""

    def __init__(self, number: int):
        self._number = number

    def value(self) -> int:
        """The language's number."""
        return self._number

    def __eq__(self, other):
        return isinstance(other, Language) and self._number == other._number

    def __hash__(self):
        return hash(self._number)

    def __repr__(self):
        return ("PYTHON", "JAVA", "CPP")[self._number]


Language.PYTHON, Language.JAVA, Language.CPP = Language(0), Language(1), Language(2)  # type: ignore[attr-defined]


def client(address: Optional[str] = None, _deprecation_warn_enabled: bool = True):
    """A builder of a connection to a cluster at ``address``, such as ``ray://host:10001``."""
    from ray.client_builder import client as builder

    return builder(address, _deprecation_warn_enabled)


def java_function(class_name: str, function_name: str):
    """Not there: Java is not supported."""
    raise missing("Java functions (ray.java_function)")


def java_actor_class(class_name: str):
    """Not there: Java is not supported."""
    raise missing("Java actors (ray.java_actor_class)")


def cpp_function(function_name: str):
    """Not there: C++ is not supported."""
    raise missing("C++ functions (ray.cpp_function)")
