"""Actors: classes whose instances live in processes of their own, and the handles by which they are called."""

from ray import _core
from ray._actor_class import ActorClass, ActorClassInheritanceException
from ray._actor_handle import ActorHandle, ActorMethod
from ray._options import check_per_yield

__all__ = ["ActorClass", "ActorClassInheritanceException", "ActorHandle", "ActorMethod", "exit_actor", "method"]

for _public in (ActorClass, ActorClassInheritanceException, ActorHandle, ActorMethod):
    _public.__module__ = __name__

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


def method(*args, **kwargs):
    """Give a method of an actor class options of its own.

    Raises:
        AssertionError: A keyword that there is not.
    """
    for name in kwargs:
        if name not in _METHOD_OPTIONS:
            raise AssertionError(
                f"Unexpected keyword argument to @ray.method: '{name}'. The supported keyword arguments are "
                f"{list(_METHOD_OPTIONS)}"
            )
    check_per_yield(kwargs)

    def annotate(function):
        for name, value in kwargs.items():
            setattr(function, f"__ray_{name.lstrip('_')}__", value)
        return function

    if len(args) == 1 and callable(args[0]) and not kwargs:
        return annotate(args[0])
    if args:
        raise AssertionError(
            "The @ray.method decorator must be applied using at least one of the arguments in the list "
            f"{list(_METHOD_OPTIONS)}, for example '@ray.method(num_returns=2)'."
        )
    return annotate


def exit_actor():
    """End the actor that runs here: this call and those that wait fail, and it is not restarted.

    What this raises may be caught; the actor exits all the same, when the method is done.

    Raises:
        TypeError: Outside of actors.
    """
    actor = _core.state.actor
    if actor is None:
        raise TypeError(
            f"exit_actor API is called on a non-actor worker, {_core.state.mode}. Call this API inside an actor method if "
            "you'd like to exit the actor gracefully."
        )
    actor.exit()
