"""What ``@ray.remote`` makes of a class."""

import weakref
from typing import Any, Callable, Dict, Optional

from ray import _actor_handle, _actor_meta, _core, _options
from ray._missing import missing
from ray.remote_function import _env, _env_key, _module_name, _nobody

_state = _core.state
_KEPT = 128  # templates and prepared sets of options; more are made anew when they are used again


class ActorClassInheritanceException(TypeError):
    """A class tried to derive from an actor class."""


class _Metadata:
    """What ``ActorClass.__ray_metadata__`` tells."""

    def __init__(self, owner: "ActorClass"):
        self._owner = weakref.ref(owner)
        self.class_name = owner.__name__
        self.is_cross_language = False

    @property
    def modified_class(self) -> type:
        return self._owner().__ray_actor_class__  # type: ignore[union-attr]

    def __getattr__(self, name: str) -> Any:
        if name in _options.ACTOR_OPTIONS:
            return self._owner()._default_options.get(name)  # type: ignore[union-attr]
        raise AttributeError(name)


class _Creation:
    """A class with one set of options, made ready for the connection of the moment."""

    __slots__ = ("ask", "client", "meta", "spec", "template")

    def __init__(self, client, template, meta, spec: bytes, ask: bool):
        self.client = client  # a weak reference
        self.template = template
        self.meta = meta
        self.spec = spec
        self.ask = ask


class _Creator:
    """Something with ``remote`` that makes actors."""

    _owner: "ActorClass"
    _options: Dict[str, Any]
    _made: Optional[_Creation]

    def remote(self, /, *args, **kwargs):
        """Make an actor and return its handle at once."""
        made = self._made
        if made is None or made.client() is not _state.client:
            made = self._made = self._owner._prepare(self._options)
        arity = self._owner._arity
        if kwargs or not arity.least <= len(args) <= arity.most:
            arity.check_call(args, kwargs)
        target, answer = _core.actors.create(made.template, args, kwargs or None, made.spec, made.ask)
        if answer is not None and not answer["created"]:
            return _actor_handle.weak(target.id, answer["meta"])
        return _actor_handle.ActorHandle(target, made.meta, made.client)

    def bind(self, /, *args, **kwargs):
        """Not there yet: make a node of a task graph."""
        raise missing("task graphs (ray.dag, .bind())")


class _WithOptions(_Creator):
    def __init__(self, owner: "ActorClass", options: Dict[str, Any]):
        self._owner = owner
        self._options = options
        self._made = None


class ActorClass(_Creator):
    """A class whose instances live in processes of their own.

    Attributes:
        __ray_actor_class__: The class itself.
    """

    def __init__(self, cls: type, options: Optional[Dict[str, Any]] = None):
        options = dict(options or {})
        _options.check_actor_options(options, in_options=False)
        _actor_meta.check_returns(cls)
        shown = f"{_module_name(cls.__module__)}.{cls.__qualname__}"
        about = {
            "options": options,
            "module": cls.__module__,
            "name": cls.__name__,
            "qualname": cls.__qualname__,
            "shown": shown,
            "doc": cls.__doc__,
            "arity": _actor_meta.constructor_arity(cls),
            "async": _actor_meta.is_async(cls),
        }
        self._setup(_core.Function(cls, cls.__name__, shown, "actor class"), about)

    def _setup(self, body, about: Dict[str, Any]) -> None:
        self._body = body
        self._about = about
        self._arity = about["arity"]
        self._default_options = self._options = about["options"]
        self._made = None
        self._templates: Dict[Any, Any] = {}
        self._templates_client: Callable = _nobody
        self._metas: Dict[Any, Any] = {}
        self.__module__ = about["module"]
        self.__name__ = about["name"]
        self.__qualname__ = about["qualname"]
        self.__doc__ = about["doc"]

    @property
    def _owner(self) -> "ActorClass":  # type: ignore[override]  # an attribute would make a cycle
        return self

    @property
    def __ray_actor_class__(self) -> type:
        return self._body.callable

    @property
    def __ray_metadata__(self) -> _Metadata:
        return _Metadata(self)

    def __getattr__(self, name: str) -> Any:
        # the class's own attributes show through, for type checkers and for programs that read constants
        if name.startswith("_") and "_body" not in self.__dict__:
            raise AttributeError(name)
        cls = self._body.callable
        for base in cls.__mro__[:-1]:
            if name in vars(base):
                value = vars(base)[name]
                if isinstance(value, classmethod):
                    return value.__get__(None, cls)
                return value.__get__(self, cls) if hasattr(value, "__get__") else value
        raise AttributeError(f"'ActorClass({self.__name__})' object has no attribute '{name}'")

    def __dir__(self):
        return sorted({*super().__dir__(), *dir(self._body.callable)})

    def __mro_entries__(self, bases):
        raise ActorClassInheritanceException(
            f"Attempted to define a subclass of actor class '{self.__name__}'. Inheriting from actor classes is not currently "
            "supported. You can instead inherit from a non-actor base class and make the derived class an actor class "
            "(with @ray.remote)."
        )

    def __class_getitem__(cls, item):
        """``ActorClass[A]`` for annotations."""
        from types import GenericAlias

        return GenericAlias(cls, item)

    def __reduce__(self):
        return _rebuild, (self._body.export(), self._about)

    def __call__(self, /, *args, **kwargs):
        raise TypeError(
            f"Actors cannot be instantiated directly. Instead of '{self.__name__}()', use '{self.__name__}.remote()'."
        )

    def options(self, **actor_options) -> _WithOptions:
        """This class with other options.

        Args:
            actor_options: Any of the decorator's options but ``concurrency_groups``; each replaces the decorator's of that
                name.

        Returns:
            An object with ``remote`` and ``bind``, which can be used many times.

        Raises:
            ValueError: An option that there is not, or one that is out of bounds.
            TypeError: An option of the wrong type.
        """
        _options.check_actor_options(actor_options, in_options=True)
        options = {**self._default_options, **actor_options}
        _options.check_actor_name(options)
        return _WithOptions(self, options)

    def _remote(self, args=None, kwargs=None, **actor_options):
        """Make an actor; ``args`` and ``kwargs`` are those of the constructor, the rest are options."""
        _options.check_actor_options(actor_options, in_options=False)
        options = {**self._default_options, **actor_options}
        return _WithOptions(self, options).remote(*(args or ()), **(kwargs or {}))

    def _meta(self, options: Dict[str, Any], ordered: bool, groups: Dict[str, int]) -> _actor_meta.Meta:
        limit = max(options.get("max_pending_calls") or 0, 0)
        retries = options.get("max_task_retries") or 0
        quiet = options.get("enable_task_events") is False
        key = (ordered, tuple(groups), retries, limit, quiet)
        meta = self._metas.get(key)
        if meta is None:
            cls = self._body.callable
            methods = _actor_meta.methods_of(cls)
            meta = self._metas[key] = _actor_meta.Meta(
                self.__qualname__, self._about["shown"], methods, tuple(groups), ordered, retries, limit, quiet
            )
            meta.remember()
        return meta

    def _prepare(self, options: Dict[str, Any]) -> _Creation:
        """Make the template and all else that is the same for every actor with these options.

        Raises:
            ValueError: Options that don't go together.
        """
        if _state.client is None:
            from ray._api import ensure_initialized

            ensure_initialized()
        client = _state.client
        if self._templates_client() is not client:
            self._templates.clear()
            self._templates_client = weakref.ref(client)
        _options.check_actor_name(options)
        _options.check_there(options)
        asynchronous = self._about["async"]
        groups = _options.concurrency_groups(options)
        concurrency = options.get("max_concurrency") or (1000 if asynchronous else 1)
        ordered = _options.in_order(options, asynchronous, concurrency)
        meta = self._meta(options, ordered, groups)
        name = options.get("name")
        detached = _options.is_detached(options, _state.job)
        namespace = options.get("namespace") or _state.namespace or ""
        spec: Dict[str, Any] = {
            "name": name or "",
            "namespace": namespace,
            "detached": detached,
            "get_if_exists": bool(options.get("get_if_exists")),
            "max_restarts": options.get("max_restarts") or 0,
            "class_name": self.__qualname__,
            "meta": meta.data,
        }
        if detached:
            spec["body"] = self._body.payload()
        template = self._template(options, meta, asynchronous, concurrency, groups, detached)
        import msgpack

        return _Creation(weakref.ref(client), template, meta, msgpack.packb(spec), bool(name) or detached)

    def _template(self, options, meta, asynchronous: bool, concurrency: int, groups: Dict[str, int], detached: bool):
        needed, held = _options.actor_resources(options)
        place = _options.placement(options)
        env = _env(options.get("runtime_env"))
        key = (
            tuple(sorted(needed.items())),
            tuple(sorted(held.items())),
            place.key,
            _env_key(env),
            concurrency,
            detached,
            meta.data,
            options.get("enable_task_events"),
        )
        template = self._templates.get(key)
        if template is None:
            if len(self._templates) >= _KEPT:
                self._templates.clear()
            template = self._templates[key] = _core.Template(
                None if detached else self._body,
                name=f"{self.__name__}.__init__",
                qualname=f"{self._about['shown']}.__init__",
                resources=needed,
                max_retries=0,
                retry_exceptions=False,
                env=env,
                **({"no_events": True} if options.get("enable_task_events") is False else {}),
                **place.fields(),
                actor={
                    "held": held,
                    "max_concurrency": concurrency,
                    "groups": groups,
                    "is_async": asynchronous,
                    "class_name": self.__name__,
                    "meta": meta.data,
                },
            )
        return template


def _rebuild(ref, about: Dict[str, Any]) -> ActorClass:
    self = ActorClass.__new__(ActorClass)
    self._setup(_core.Function.from_export(ref, about["name"], about["shown"], "actor class"), about)
    return self
