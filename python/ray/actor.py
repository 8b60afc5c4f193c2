"""Actors: the names. Classes can be decorated and their options are checked; making an actor is not there yet."""

from typing import Any, Dict, Optional

from ray import _options
from ray._missing import missing

__all__ = ["ActorClass", "ActorClassInheritanceException", "ActorHandle", "ActorMethod", "exit_actor", "method"]

_METHOD_OPTIONS = (
    "num_returns",
    "concurrency_group",
    "max_task_retries",
    "retry_exceptions",
    "_generator_backpressure_num_objects",
    "_num_objects_per_yield",
    "enable_task_events",
    "tensor_transport",
)


class ActorClassInheritanceException(TypeError):
    """A class tried to derive from an actor class."""


class ActorClass:
    """A class whose instances live in processes of their own. Making one is not there yet."""

    def __init__(self, cls: type, options: Optional[Dict[str, Any]] = None):
        _options.check_actor_options(options or {})
        self.__ray_actor_class__ = cls
        self._default_options = dict(options or {})
        self.__module__ = cls.__module__
        self.__name__ = cls.__name__
        self.__qualname__ = cls.__qualname__
        self.__doc__ = cls.__doc__

    def __mro_entries__(self, bases):
        raise ActorClassInheritanceException(
            f"'{self.__name__}' is an actor class; inheriting from it is not supported. Inherit from the original class "
            "that was decorated, and decorate the new one."
        )

    def __call__(self, *args, **kwargs):
        raise TypeError(
            f"Actors cannot be instantiated directly. Instead of '{self.__name__}()', use '{self.__name__}.remote()'."
        )

    def remote(self, *args, **kwargs):
        """Make an actor. Not there yet."""
        raise missing(f"actors ({self.__name__}.remote())")

    def options(self, **actor_options) -> "ActorClass":
        """This class with other options."""
        _options.check_actor_options(actor_options)
        return ActorClass(self.__ray_actor_class__, {**self._default_options, **actor_options})

    def bind(self, *args, **kwargs):
        """Make a node of a task graph. Not there yet."""
        raise missing("task graphs (ray.dag, .bind())")


class ActorHandle:
    """A reference to an actor. Not there yet."""

    def __init__(self, *args, **kwargs):
        raise missing("actors (ActorHandle)")


class ActorMethod:
    """A method of an actor. Not there yet."""

    def __init__(self, *args, **kwargs):
        raise missing("actors (ActorMethod)")

    def remote(self, *args, **kwargs):
        """Call it."""
        raise missing("actors (ActorMethod.remote())")

    def options(self, **options):
        """This method with other options."""
        raise missing("actors (ActorMethod.options())")

    def bind(self, *args, **kwargs):
        """Make a node of a task graph."""
        raise missing("task graphs (ray.dag, .bind())")


def method(*args, **kwargs):
    """Give a method of an actor class options of its own.

    Raises:
        AssertionError: Without keywords, or with one that there is not.
    """
    if args or not kwargs:
        raise AssertionError(
            "The @ray.method decorator must be applied using at least one of the arguments in the list "
            f"{list(_METHOD_OPTIONS)}, for example '@ray.method(num_returns=2)'."
        )
    for name in kwargs:
        if name not in _METHOD_OPTIONS:
            raise AssertionError(
                f"Unexpected keyword argument to @ray.method: '{name}'. The supported keyword arguments are "
                f"{list(_METHOD_OPTIONS)}"
            )

    def annotate(function):
        for name, value in kwargs.items():
            setattr(function, f"__ray_{name.lstrip('_')}__", value)
        return function

    return annotate


def exit_actor():
    """End the actor that runs here.

    Raises:
        TypeError: Outside of actors.
    """
    from ray import _core

    raise TypeError(
        f"exit_actor API is called on a non-actor worker, {_core.state.mode}. Call this API inside an actor method if you'd "
        "like to exit the actor gracefully."
    )
