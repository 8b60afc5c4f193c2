"""Handles of actors and their methods."""

import weakref
from typing import Any, Callable, Dict, Optional

from ray import _core
from ray._actor_meta import Meta, Method, returns_of
from ray._missing import missing
from ray._options import check_method_options

_state = _core.state
_call = _core.actors.call


def _nobody():
    """Stands for the client of what was never used; differs from every client, and from None."""
    return _nobody


class ActorMethod:
    """A method of an actor, to be called with ``remote``."""

    __slots__ = (
        "_arity",
        "_client",
        "_least",
        "_meta",
        "_method",
        "_most",
        "_options",
        "_overrides",
        "_owner",
        "_returned",
        "_target",
        "_template",
    )

    def __init__(self, target, owner: Callable, meta: Meta, method: Method, options: Dict[str, Any]):
        self._target = target
        self._owner = owner  # the client that the actor belongs to, as a weak reference
        self._meta = meta
        self._method = method
        self._options = options
        self._arity = method.arity
        self._least = method.arity.least
        self._most = method.arity.most
        self._client: Callable = _nobody
        self._template: Any = None
        self._overrides: Optional[Dict[str, Any]] = None
        self._returned = 1

    def remote(self, /, *args, **kwargs):
        """Start a call and return its ref or refs at once."""
        if self._client() is not _state.client:
            self._prepare()
        if kwargs or not self._least <= len(args) <= self._most:
            self._arity.check_call(args, kwargs)
        return _call(self._target, self._template, args, kwargs or None, self._returned, self._overrides)

    def options(self, **options) -> "ActorMethod":
        """This method with other options.

        Args:
            options: ``name num_returns max_task_retries retry_exceptions concurrency_group enable_task_events`` and
                others of ``@ray.method``; each replaces the method's own.

        Returns:
            An object with ``remote`` and ``bind``, which can be used many times.
        """
        return type(self)(self._target, self._owner, self._meta, self._method, {**self._options, **options})

    def bind(self, /, *args, **kwargs):
        """Not there yet: make a node of a task graph."""
        raise missing("task graphs (ray.dag, .bind())")

    def _remote(self, args=None, kwargs=None, **options):
        """Start a call; ``args`` and ``kwargs`` are those of the method, the rest are options."""
        method = self.options(**options) if options else self
        return method.remote(*(args or ()), **(kwargs or {}))

    def __reduce__(self):
        return _rebuild_method, (ActorHandle(self._target, self._meta, self._owner), self._method.name, self._options)

    def __call__(self, /, *args, **kwargs):
        name = self._method.name
        raise TypeError(
            f"Actor methods cannot be called directly. Instead of running 'object.{name}()', try 'object.{name}.remote()'."
        )

    def _prepare(self) -> None:
        client = _belongs_here(self._owner, self._target)
        options = self._options
        check_method_options(options)
        self._returned = returns_of(self._method, options, f"{self._meta.short}.{self._method.name}")
        self._template = self._meta.template(self._method, options)
        name = options.get("name")
        self._overrides = {"name": name} if name else None
        self._client = weakref.ref(client)


class _LimitedMethod(ActorMethod):
    """A method of an actor with ``max_pending_calls``."""

    __slots__ = ()

    def remote(self, /, *args, **kwargs):
        """Start a call unless too many are unfinished."""
        if self._client() is not _state.client:
            self._prepare()
        limit, actor = self._meta.max_pending_calls, self._target.id
        if _core.call("actor_pending", actor=actor)["n"] >= limit:
            from ray.exceptions import PendingCallsLimitExceeded

            raise PendingCallsLimitExceeded(
                f"The task {self._method.name} could not be submitted to Actor({self._meta.class_name}, {actor.hex()}) "
                f"because more than {limit} tasks are queued on the actor. This limit can be adjusted with the "
                "`max_pending_calls` actor option."
            )
        return super().remote(*args, **kwargs)


class _DecoratedMethod(ActorMethod):
    """A method with an ``__ray_invocation_decorator__``."""

    __slots__ = ()

    def remote(self, /, *args, **kwargs):
        """Start a call through the decorator."""
        call = super().remote
        return self._method.decorator(lambda args, kwargs: call(*args, **kwargs))(args, kwargs)


def _belongs_here(owner: Callable, target):
    """The client of this process, which must be the one that the actor belongs to."""
    if _state.client is None:
        from ray._api import ensure_initialized

        ensure_initialized()
    client = _state.client
    known = owner()
    if known is client:
        return client
    if owner is _nobody and (target.ref is None or target.ref._w is not _core.refs.CLOSED):
        return client  # a handle that arrived while there was no connection
    from ray.exceptions import ActorHandleNotFoundError

    raise ActorHandleNotFoundError(
        f"ActorHandle objects are not valid across Ray sessions. The actor {target.id.hex()} was created in job "
        f"{target.id[-4:].hex()} of a session that has ended; the current job is {_state.job_id.hex()}. This typically happens "
        "when an actor handle is used again after ray.shutdown() and ray.init(). Please create a new actor handle in the "
        "current session."
    )


class ActorHandle:
    """A reference to an actor. Its methods are its attributes.

    The actor lives for as long as any process has a handle, unless it is detached; handles of :func:`ray.get_actor` and of
    the actor itself don't count.
    """

    def __init__(self, target, meta: Meta, owner: Callable):
        self._ray_target = target
        self._ray_meta = meta
        self._ray_owner = owner

    def __getattr__(self, name: str) -> ActorMethod:
        try:
            meta = self.__dict__["_ray_meta"]
        except KeyError:  # not made yet
            raise AttributeError(name) from None
        method = meta.methods.get(name)
        if method is None:
            raise AttributeError(f"'ActorHandle' object has no attribute '{name}'")
        kind = _LimitedMethod if meta.max_pending_calls > 0 else _DecoratedMethod if method.decorator else ActorMethod
        # The method holds what keeps the actor alive, not this handle: no cycle, so that dropping a handle shows at once.
        found = self.__dict__[name] = kind(self._ray_target, self._ray_owner, meta, method, {})
        return found

    def __class_getitem__(cls, item):
        """``ActorHandle[A]`` for annotations."""
        from types import GenericAlias

        return GenericAlias(cls, item)

    @property
    def _actor_id(self):
        from ray._ids import ActorID

        return ActorID(self._ray_target.id)

    _ray_actor_id = _actor_id

    @property
    def _ray_is_cross_language(self) -> bool:
        return False

    @property
    def _ray_method_signatures(self) -> Dict[str, list]:
        return {name: list(m.arity.signature().parameters.values()) for name, m in self._ray_meta.methods.items()}

    def _actor_method_call(self, method_name: str, args=None, kwargs=None, **options):
        return getattr(self, method_name)._remote(args, kwargs, **options)

    def __dir__(self):
        return sorted({"__init__", *self._ray_meta.methods})

    def __eq__(self, other):
        return isinstance(other, ActorHandle) and self._ray_target.id == other._ray_target.id

    def __hash__(self):
        return hash(self._ray_target.id)

    def __repr__(self):
        return f"Actor({self._ray_meta.class_name}, {self._ray_target.id.hex()})"

    def __reduce__(self):
        target = self._ray_target
        if target.ref is not None and target.ref._w is _core.refs.CLOSED:
            _belongs_here(self._ray_owner, target)
        return _rebuild, (target.id, self._ray_meta.data, target.ref)


def make(target, meta: Meta) -> ActorHandle:
    """A handle in the connection of this process."""
    client = _state.client
    return ActorHandle(target, meta, weakref.ref(client) if client is not None else _nobody)


def _rebuild(actor_id: bytes, data: bytes, ref) -> ActorHandle:
    return make(_core.actors.Target(actor_id, ref), Meta.load(data))


_core.serialization.with_refs(ActorHandle, _rebuild)


def _rebuild_method(handle: ActorHandle, name: str, options: Dict[str, Any]) -> ActorMethod:
    method = getattr(handle, name)
    return method.options(**options) if options else method


def weak(actor_id: bytes, data: bytes) -> ActorHandle:
    """A handle that does not keep its actor alive."""
    return _rebuild(actor_id, data, None)


def checked(actor: ActorHandle) -> bytes:
    """The id of an actor of this connection.

    Raises:
        ActorHandleNotFoundError: The handle belongs to another.
    """
    _belongs_here(actor._ray_owner, actor._ray_target)
    return actor._ray_target.id
