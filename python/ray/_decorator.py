"""``ray.remote``: turns a function into a remote function, and a class into an actor class."""

import types
from typing import Any, Dict

from ray import _options


def remote(*args, **kwargs):
    """Make a function or a class remote.

    Works bare (``@ray.remote``), with options (``@ray.remote(num_cpus=2, max_retries=0)``) and as a call
    (``ray.remote(f)``, ``ray.remote(num_gpus=1)(f)``).

    Returns:
        A ``RemoteFunction`` or an ``ActorClass``; with options, the decorator that makes one.

    Raises:
        AssertionError: Anything else than one function or class, or than keywords, was given.
        TypeError: What was decorated is neither a function nor a class, or an option has the wrong type.
        ValueError: An option that there is not, or one that is out of bounds.
    """
    if len(args) == 1 and not kwargs and callable(args[0]):
        return _make(args[0], {})
    if args or not kwargs:
        names = sorted({*_options.TASK_OPTIONS, *_options.ACTOR_OPTIONS})
        raise AssertionError(
            "The @ray.remote decorator must be applied either with no arguments and no parentheses, for example "
            f"'@ray.remote', or it must be applied using some of the arguments in the list {names}, for example "
            "'@ray.remote(num_returns=2, resources={\"CustomResource\": 1})'."
        )
    return lambda function_or_class: _make(function_or_class, kwargs)


def _make(function_or_class: Any, options: Dict[str, Any]):
    if isinstance(function_or_class, type):
        from ray.actor import ActorClass

        return ActorClass(function_or_class, options)
    if (
        isinstance(function_or_class, types.FunctionType)
        or type(function_or_class).__name__ == "cython_function_or_method"
    ):
        from ray.remote_function import RemoteFunction

        return RemoteFunction(function_or_class, options)
    raise TypeError("The @ray.remote decorator must be applied to either a function or a class.")
