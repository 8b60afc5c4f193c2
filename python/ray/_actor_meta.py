"""What a process must know of an actor's class to call it: its methods. Made once where the class is, sent with handles."""

import pickle
from types import FunctionType, MethodType
from typing import Any, Dict, Optional, Tuple

from ray import _core, _options, _signature

_MOST = 1 << 59
_KEPT = 1000  # metas that came from elsewhere

PLAIN, GENERATOR = 0, 1


class Method:
    """A method of an actor class.

    Attributes:
        name: Its name.
        arity: What its parameters demand, without the instance.
        num_returns: How many objects a call returns; None: one, or a stream for generators.
        max_task_retries: As ``@ray.method`` has it, or None.
        retry_exceptions: As ``@ray.method`` has it, or None.
        group: Its concurrency group; empty for the default one.
        kind: PLAIN or GENERATOR.
        backpressure: How many items of a generator may be there and not be taken, as ``@ray.method`` has it, or None.
        decorator: Its ``__ray_invocation_decorator__``, or None.
        events: Whether its calls are listed, as ``@ray.method`` has it, or None.
        per_yield: How many objects a generator makes of each thing it yields.
    """

    __slots__ = (
        "name",
        "arity",
        "num_returns",
        "max_task_retries",
        "retry_exceptions",
        "group",
        "kind",
        "backpressure",
        "decorator",
        "events",
        "per_yield",
    )

    def __init__(
        self,
        name,
        arity,
        num_returns=None,
        max_task_retries=None,
        retry_exceptions=None,
        group="",
        kind=0,
        backpressure=None,
        decorator=None,
        events=None,
        per_yield=1,
    ):
        self.name = name
        self.arity = arity
        self.num_returns = num_returns
        self.max_task_retries = max_task_retries
        self.retry_exceptions = retry_exceptions
        self.group = group
        self.kind = kind
        self.backpressure = backpressure
        self.decorator = decorator
        self.events = events
        self.per_yield = per_yield


class Meta:
    """An actor's class and those of its options that its callers must know.

    Attributes:
        class_name: The class's qualified name.
        short: Its name.
        shown: Its module and qualified name.
        methods: By name.
        groups: Names of the concurrency groups.
        ordered: Whether calls run in the order in which they are made.
        max_task_retries: How often a call is repeated after the actor was restarted; -1 for ever.
        max_pending_calls: How many calls of a process may be unfinished; 0 for any number.
        quiet: Whether its calls are not listed, unless the method says so.
        data: All of it as bytes.
    """

    def __init__(
        self, class_name, shown, methods, groups, ordered, max_task_retries, max_pending_calls, quiet=False, data=None
    ):
        self.class_name: str = class_name
        self.short: str = class_name.rpartition(".")[2]
        self.shown: str = shown
        self.methods: Dict[str, Method] = methods
        self.groups: Tuple[str, ...] = groups
        self.ordered: bool = ordered
        self.max_task_retries: int = max_task_retries
        self.max_pending_calls: int = max_pending_calls
        self.quiet: bool = quiet
        self.data: bytes = data if data is not None else self._dump()
        self._templates: Dict[Any, Any] = {}

    def _dump(self) -> bytes:
        methods = [
            (
                m.name,
                m.arity.__reduce__()[1],
                m.num_returns,
                m.max_task_retries,
                m.retry_exceptions,
                m.group,
                m.kind,
                m.backpressure,
                m.decorator,
                m.events,
                m.per_yield,
            )
            for m in self.methods.values()
        ]
        whole = (
            self.class_name,
            self.shown,
            methods,
            self.groups,
            self.ordered,
            self.max_task_retries,
            self.max_pending_calls,
            self.quiet,
        )
        if any(isinstance(m.retry_exceptions, tuple) or m.decorator for m in self.methods.values()):
            from ray import cloudpickle

            return cloudpickle.dumps(whole, protocol=5)
        return pickle.dumps(whole, protocol=5)

    @classmethod
    def load(cls, data: bytes) -> "Meta":
        """The meta of these bytes; the same object each time."""
        meta = _known.get(data)
        if meta is None:
            class_name, shown, methods, *rest = pickle.loads(data)
            meta = cls(
                class_name, shown, {m[0]: Method(m[0], _signature.Arity(*m[1]), *m[2:]) for m in methods}, *rest, data
            )
            meta.remember()
        return meta

    def remember(self) -> None:
        """Let :meth:`load` find this object."""
        if len(_known) >= _KEPT:
            _known.clear()
        _known[self.data] = self

    def template(self, method: Method, options: Dict[str, Any]):
        """The engine's template for calls of a method.

        Raises:
            ValueError: A concurrency group that there is not.
        """
        retries = options.get("max_task_retries")
        if retries is None:
            retries = method.max_task_retries if method.max_task_retries is not None else self.max_task_retries
        again = options.get("retry_exceptions")
        if again is None:
            again = method.retry_exceptions or False
        if isinstance(again, list):
            again = tuple(again)
        group = options.get("concurrency_group") or method.group
        if group and group not in self.groups and group != _core.actors.SYSTEM_GROUP:
            raise ValueError(
                f"The concurrency group {group!r} of {self.short}.{method.name} is not defined. The actor class has "
                f"the concurrency groups {list(self.groups)}; add it with @ray.remote(concurrency_groups={{{group!r}: 1}})."
            )
        _options.keep_per_yield(options, method.per_yield, "actor method", "method")
        bound = options.get("_generator_backpressure_num_objects")
        if bound is None:
            bound = method.backpressure
        bound = max(bound or 0, 0)
        events = options.get("enable_task_events")
        if events is None:
            events = method.events if method.events is not None else not self.quiet
        key = (method.name, retries, again, group, bound, events)
        template = self._templates.get(key)
        if template is None:
            if len(self._templates) >= 1000:
                self._templates.clear()
            template = self._templates[key] = _core.Template(
                None,
                name=f"{self.short}.{method.name}",
                qualname=f"{self.shown}.{method.name}",
                resources={},
                max_retries=retries,
                retry_exceptions=again,
                method=method.name,
                group=group,
                ordered=self.ordered,
                **({"backpressure": bound} if bound else {}),
                **({} if events else {"no_events": True}),
                **({"per_yield": method.per_yield} if method.per_yield > 1 else {}),
            )
        return template


_known: Dict[bytes, Meta] = {}


def methods_of(cls: type) -> Dict[str, Method]:
    """The methods of an actor class, with those that every actor has."""
    methods = {}
    for name in dir(cls):
        function = getattr(cls, name, None)
        if not _is_function(function) or getattr(object, name, None) is function:
            continue
        # from the class, classmethods come bound and staticmethods need no instance; all others take it first
        raw = next((vars(c)[name] for c in cls.__mro__ if name in vars(c)), None)
        arity = _arity(function, not isinstance(raw, (staticmethod, classmethod)), isinstance(raw, classmethod))
        again = getattr(function, "__ray_retry_exceptions__", None)
        _options.check_method_options(
            {"max_task_retries": getattr(function, "__ray_max_task_retries__", None), "retry_exceptions": again}
        )
        methods[name] = Method(
            name,
            arity,
            getattr(function, "__ray_num_returns__", None),
            getattr(function, "__ray_max_task_retries__", None),
            tuple(again) if isinstance(again, list) else again,
            getattr(function, "__ray_concurrency_group__", None) or "",
            GENERATOR if _signature.is_generator(function) else PLAIN,
            getattr(function, "__ray_generator_backpressure_num_objects__", None),
            getattr(function, "__ray_invocation_decorator__", None),
            getattr(function, "__ray_enable_task_events__", None),
            getattr(function, "__ray_num_objects_per_yield__", None) or 1,
        )
    for name, arity in _BUILT_IN.items():
        methods[name] = Method(name, arity)
    return methods


def check_returns(cls: type) -> None:
    """Check the numbers of results that ``@ray.method`` names.

    Raises:
        ValueError: A number that makes no sense, or a stream of a method that is no generator.
    """
    for name in dir(cls):
        function = getattr(cls, name, None)
        value = getattr(function, "__ray_num_returns__", None)
        if value is not None and _is_function(function):
            kind = GENERATOR if _signature.is_generator(function) else PLAIN
            returns_of(Method(name, _ANY, value, kind=kind), {})


def is_async(cls: type) -> bool:
    """Whether a class has methods that are coroutines or async generators."""
    return any(_signature.is_async(getattr(cls, name, None)) for name in dir(cls))


def _is_function(value: Any) -> bool:
    return isinstance(value, (FunctionType, MethodType)) or type(value).__name__ == "cython_function_or_method"


def _arity(function, instance: bool, bound: bool) -> _signature.Arity:
    try:
        arity = _signature.arity(function.__func__ if bound else function)
    except (TypeError, ValueError):  # nobody can say
        return _ANY
    return arity.without_first() if instance or bound else arity


def constructor_arity(cls: type) -> _signature.Arity:
    """What the constructor of a class demands."""
    init = cls.__init__  # type: ignore[misc]
    if init is object.__init__:
        return _NOTHING if cls.__new__ is object.__new__ else _ANY
    return _arity(init, True, False) if _is_function(init) else _ANY


_NOTHING = _signature.Arity(0, 0, (), frozenset(), frozenset(), False)
_ANY = _signature.Arity(0, _MOST, (), frozenset(), frozenset(), True)
_BUILT_IN = {
    "__ray_ready__": _NOTHING,
    "__ray_terminate__": _NOTHING,
    "__ray_call__": _signature.Arity(1, _MOST, ("fn",), frozenset(("fn",)), frozenset(("fn",)), True),
}


def returns_of(method: Method, options: Dict[str, Any], shown: Optional[str] = None):
    """How many objects a call returns.

    Raises:
        ValueError: A number that makes no sense, or a stream of a method that is no generator.
        TypeError: What is no number at all.
    """
    value = options.get("num_returns")
    if value is None:
        value = method.num_returns
    if value is None:
        value = "streaming" if method.kind == GENERATOR else 1
    if value in ("streaming", "dynamic"):
        if method.kind != GENERATOR:
            raise ValueError(
                f"num_returns={value!r} can only be used with generator functions (functions that use 'yield'). "
                "The decorated function is not a generator function."
            )
        return _core.STREAMING if value == "streaming" else _core.DYNAMIC
    if not isinstance(value, int):
        raise TypeError(f"num_returns must be an integer, 'streaming' or 'dynamic', but got {value!r}.")
    if value < 0:
        raise ValueError(f"num_returns must be >= 0, but got {value}.")
    return value
