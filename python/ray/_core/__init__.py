"""The engine-facing part of the SDK: frames, references, serialization and the worker loop. Private.

The public layer is written against the names below and nothing else of this package. Everything here is safe to call from
any thread, and safe against exceptions that a signal handler raises at any point.

State (one a process)::

    state                    # ray._core.state: one object, attributes below, changed by connect/disconnect
      .client                # Client, or None while not connected: the test that the public layer makes for auto-init
      .mode                  # None, SCRIPT_MODE (driver, 0) or WORKER_MODE (1)
      .job_id .node_id .worker_id .driver_task   # bytes (4, 28, 28, 24)
      .node_ip .gcs_address .session_dir .session_name .namespace .dashboard_url    # str
      .job                   # the job map of HELLO (in a worker: the driver's), .runtime_env {}, .accelerators {"GPU": [..]}
      .actor                 # in an actor's process: .id .name .namespace .class_name .incarnation .meta .resources .instance
                             # .exit() .is_cancelled(task); else None
      .context               # in an actor that runs several calls at once: the ContextVar of the running one; else None
    current_task()           # the running Task, or None: .task_id (24 bytes) .name .qualname .attempt .resources {str: float}

Connection (driver)::

    connect(socket_path, token, job, *, ray_version) -> Client
        token: bytes or str. job: the job map of the protocol's HELLO. Raises ConnectionError, RuntimeError (versions),
        ray.exceptions.AuthenticationError.
    disconnect()             # sends what is buffered, closes; refs of this connection become useless, views stay readable

Objects::

    get(refs, timeout=None)  # ObjectRef -> value, list -> list; Ray's ValueError/TypeError/GetTimeoutError
    put(value) -> ObjectRef
    wait(refs, num_returns, timeout, fetch_local) -> (ready, not_ready)   # validates its arguments as Ray does
    ObjectRef                # one object an id a process: identity is equality; .future(), await

Tasks::

    fn = Function(callable, name, qualname)       # one a remote function; exported on first use, once a connection
    fn.export() -> ObjectRef                      # what a RemoteFunction's __reduce__ puts into its state …
    Function.from_export(ref, name, qualname)     # … and how it comes back; .callable loads it
    tm = Template(fn, *, name, qualname, resources, max_retries, retry_exceptions, strategy=None, env=None, max_calls=0, labels=None)
        resources {str: int in 1/10000}; retry_exceptions bool or tuple of classes; strategy and env as in docs/protocol.md.
        Keep it with the function or its options: registered once a connection, dropped when collected.
    submit(tm, args, kwargs, num_returns=1, overrides=None)
        -> ObjectRef (1, DYNAMIC), list of ObjectRef (n > 1), None (0), ObjectRefGenerator (STREAMING). args tuple, kwargs dict or None; refs at top level are dependencies.
        overrides: None or {"name", "max_retries", "retry_exceptions", "strategy"} of this call.

Actors (``ray._core.actors``)::

    tm = Template(fn, name, …, actor={held, max_concurrency, groups, is_async, class_name, meta})   # fn None: the spec has a body
    target, answer = actors.create(tm, args, kwargs, spec, ask)   # spec: packed map; answer None unless asked for
    actors.Target(actor_id, ref)                  # an actor to be called: .id .ref (of its handle object; None: weak)
    mt = Template(None, name, …, method=…, group=…, ordered=…)
    actors.call(target, mt, args, kwargs, num_returns, overrides)   # as submit

Rest::

    cancel(id, force, recursive)                  # of the task that makes the object; says nothing of what came of it
    call(method, **arguments) -> dict             # CALL of docs/protocol.md; errors as Ray's classes
    serialize(value) -> Payload; deserialize(bytes-like)
    register_serializer(cls, serializer, deserializer); deregister_serializer(cls)

``ray.exceptions`` is imported on use: RayTaskError(function_name, traceback_str, cause, proctitle, pid, ip) with
.as_instanceof_cause(); daemon errors are made by ``ray._core.errors``.
"""

from ray._core import actors as actors
from ray._core.client import call as call
from ray._core.client import cancel as cancel
from ray._core.client import connect as connect
from ray._core.client import disconnect as disconnect
from ray._core.client import get as get
from ray._core.client import put as put
from ray._core.client import wait as wait
from ray._core.covered import far as far
from ray._core.covered import resume as resume
from ray._core.covered import suspend as suspend
from ray._core.refs import ObjectRef as ObjectRef
from ray._core.serialization import deregister_serializer as deregister_serializer
from ray._core.serialization import deserialize as deserialize
from ray._core.serialization import register_serializer as register_serializer
from ray._core.serialization import serialize as serialize
from ray._core.state import current_task as current_task
from ray._core.state import state as state
from ray._core.streams import DYNAMIC as DYNAMIC
from ray._core.streams import STREAMING as STREAMING
from ray._core.tasks import Function as Function
from ray._core.tasks import Template as Template
from ray._core.tasks import submit as submit
