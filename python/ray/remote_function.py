"""Remote functions: what ``@ray.remote`` makes of a function."""

import os
import sys
import weakref
from typing import Any, Callable, Dict, Optional

from ray import _core, _options, _signature
from ray._missing import missing

__all__ = ["RemoteFunction"]

_state = _core.state
_submit = _core.submit

# More sets of options than these are forgotten, and made anew when they are used again.
_KEPT_TEMPLATES = 128


def _nobody():
    """Stands for the client of a function that was never called; differs from every client, and from None."""
    return _nobody


class _Submitter:
    """A function with one set of options, made ready for the connection of the moment."""

    _owner: "RemoteFunction"
    _options: Dict[str, Any]
    _client: Callable
    _template: Any
    _overrides: Optional[Dict[str, Any]]
    _returned: int
    _least: int
    _most: int

    def remote(self, /, *args, **kwargs):
        """Start a task and return its ref or refs at once."""
        if self._client() is not _state.client:
            self._prepare()
        if kwargs or not self._least <= len(args) <= self._most:
            self._owner._arity.check(self._owner._load, args, kwargs)
        return _submit(self._template, args, kwargs or None, self._returned, self._overrides)

    def bind(self, /, *args, **kwargs):
        """Not there yet: make a node of a task graph."""
        raise missing("task graphs (ray.dag, .bind())")

    def _decorate(self, decorator: Callable) -> None:
        """Let calls go through the ``__ray_invocation_decorator__`` of the function."""
        call = self.remote

        def remote(*args, **kwargs):
            return decorator(lambda args, kwargs: call(*args, **kwargs))(args, kwargs)

        self.remote = remote  # type: ignore[method-assign]

    def _prepare(self) -> None:
        if _state.client is None:
            from ray._api import ensure_initialized

            ensure_initialized()
        owner, options = self._owner, self._options
        self._returned = owner._returns(options)
        self._template, self._overrides = owner._template_of(options)
        self._client = weakref.ref(_state.client)


class _WithOptions(_Submitter):
    def __init__(self, owner: "RemoteFunction", options: Dict[str, Any]):
        self._owner = owner
        self._options = options
        self._least = owner._least
        self._most = owner._most
        self._client = _nobody
        if "decorator" in owner._about:
            self._decorate(owner._about["decorator"])


class RemoteFunction(_Submitter):
    """A function that runs as a task.

    Attributes:
        _function: The function itself.
        _function_name: Its module and name.
    """

    def __init__(self, function: Callable, options: Dict[str, Any]):
        _options.check_task_options(options, in_options=False)
        if _signature.is_coroutine(function):
            raise ValueError(
                "'async def' should not be used for remote tasks. You can wrap the async function with `asyncio.run(f())`. "
                "See more at:https://docs.ray.io/en/latest/ray-core/actors/async_api.html "
            )
        module = getattr(function, "__module__", None) or "__main__"
        name = getattr(function, "__name__", "unknown")
        shown = f"{_module_name(module)}.{getattr(function, '__qualname__', name)}"
        decorator = getattr(function, "__ray_invocation_decorator__", None)
        self._setup(
            _core.Function(function, name, shown),
            {
                "options": dict(options),
                "module": module,
                "name": name,
                "qualname": getattr(function, "__qualname__", name),
                "shown": shown,
                "doc": getattr(function, "__doc__", None),
                "arity": _signature.arity(function),
                "generator": _signature.is_generator(function),
                **({"decorator": decorator} if decorator is not None else {}),
            },
        )
        self._check_returns(options)

    def _setup(self, body, about: Dict[str, Any]) -> None:
        self._body = body
        self._about = about
        self._default_options = about["options"]
        self._arity = about["arity"]
        self.__module__ = about["module"]
        self.__name__ = about["name"]
        self.__qualname__ = about["qualname"]
        self.__doc__ = about["doc"]
        self._function_name = f"{about['module']}.{about['name']}"
        self._templates: Dict[Any, Any] = {}
        self._templates_client: Callable = _nobody
        self._options = self._default_options
        self._least = self._arity.least
        self._most = self._arity.most
        self._client = _nobody
        if "decorator" in about:
            self._decorate(about["decorator"])

    @property
    def _owner(self) -> "RemoteFunction":  # type: ignore[override]  # an attribute would make a cycle
        return self

    def __reduce__(self):
        return _rebuild, (self._body.export(), self._about)

    def __call__(self, /, *args, **kwargs):
        raise TypeError(
            f"Remote functions cannot be called directly. Instead of running '{self._function_name}()', try "
            f"'{self._function_name}.remote()'."
        )

    @property
    def _function(self) -> Callable:
        return self._load()

    @property
    def __signature__(self):
        import inspect

        return inspect.signature(self._load())

    @property
    def _num_returns(self):
        return self._default_options.get("num_returns")

    @property
    def _max_retries(self) -> int:
        return _options.max_retries(self._default_options)

    def _load(self) -> Callable:
        return self._body.callable

    def options(self, **task_options) -> _WithOptions:
        """This function with other options.

        Args:
            task_options: Any of the decorator's options but ``max_calls``; each replaces the decorator's of that name.

        Returns:
            An object with ``remote`` and ``bind``, which can be used many times.

        Raises:
            ValueError: An option that there is not, or one that is out of bounds.
            TypeError: An option of the wrong type.
        """
        _options.check_task_options(task_options, in_options=True)
        self._check_call(task_options)
        return _WithOptions(self, {**self._default_options, **task_options})

    def _remote(self, args=None, kwargs=None, **task_options):
        """Start a task; ``args`` and ``kwargs`` are those of the function, the rest are options."""
        _options.check_task_options(task_options, in_options=False)
        self._check_call(task_options)
        options = {**self._default_options, **task_options}
        return _WithOptions(self, options).remote(*(args or ()), **(kwargs or {}))

    def _check_call(self, options: Dict[str, Any]) -> None:
        _options.keep_per_yield(options, self._default_options.get("_num_objects_per_yield"), "task", "remote")
        self._check_returns(options)

    def _check_returns(self, options: Dict[str, Any]) -> None:
        value = options.get("num_returns")
        if value in ("streaming", "dynamic") and not self._about["generator"]:
            raise ValueError(
                f"num_returns={value!r} can only be used with generator functions (functions that use 'yield'). "
                "The decorated function is not a generator function."
            )

    def _returns(self, options: Dict[str, Any]) -> int:
        value = options.get("num_returns")
        if value is None:
            value = "streaming" if self._about["generator"] else 1
        if isinstance(value, str):
            return _core.STREAMING if value == "streaming" else _core.DYNAMIC
        return value

    def _template_of(self, options: Dict[str, Any]):
        """The engine's template for a set of options, and what of it is said with each call instead."""
        _options.check_there(options)
        if self._templates_client() is not _state.client:
            self._templates.clear()
            self._templates_client = weakref.ref(_state.client)
        resources = _options.task_resources(options)
        place = _options.placement(options)
        env = _env(options.get("runtime_env"))
        retries, again = _options.max_retries(options), _options.retry_exceptions(options)
        calls = _options.max_calls(options)
        bound = _options.backpressure(options)
        quiet = options.get("enable_task_events") is False
        per_yield = options.get("_num_objects_per_yield") or 1  # as defined: it is the same in all templates
        key = (
            tuple(sorted(resources.items())),
            place.key,
            _env_key(env),
            retries,
            again,
            calls,
            bound,
            quiet,
        )
        template = self._templates.get(key)
        if template is None:
            if len(self._templates) >= _KEPT_TEMPLATES:
                self._templates.clear()
            template = self._templates[key] = _core.Template(
                self._body,
                name=self._default_options.get("name") or self._about["name"],
                qualname=self._about["shown"],
                resources=resources,
                max_retries=retries,
                retry_exceptions=again,
                env=env,
                max_calls=calls,
                **place.fields(),
                **({"backpressure": bound} if bound else {}),
                **({"no_events": True} if quiet else {}),
                **({"per_yield": per_yield} if per_yield > 1 else {}),
            )
        name = options.get("name")
        if name and name != self._default_options.get("name"):
            return template, {"name": name}
        return template, None


def _rebuild(ref, about: Dict[str, Any]) -> RemoteFunction:
    self = RemoteFunction.__new__(RemoteFunction)
    self._setup(_core.Function.from_export(ref, about["name"], about["shown"]), about)
    return self


def _env(runtime_env: Optional[Dict]) -> Optional[Dict[str, Any]]:
    """The ``env`` of a template: this process's own environment, and over it that of the task or actor."""
    own = _state.runtime_env
    if not own and not runtime_env:
        return None
    from ray.runtime_env import resolved

    return resolved(own, runtime_env)


def _env_key(env: Optional[Dict[str, Any]]):
    """What tells one environment of :func:`_env` from another."""
    if env is None:
        return None
    import json

    return json.dumps(env)


def _module_name(module: str) -> str:
    # a script is called by its file's name, since workers have another __main__
    if module != "__main__":
        return module
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return os.path.splitext(os.path.basename(path))[0] if path else module
