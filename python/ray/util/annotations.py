"""Decorators that say how stable an interface is. They mark; they don't change what they decorate."""

from typing import Any, Optional

__all__ = ["Deprecated", "DeveloperAPI", "PublicAPI", "RayDeprecationWarning"]

_STABILITIES = ("alpha", "beta", "stable")


class RayDeprecationWarning(DeprecationWarning):
    """Something that will be removed was used."""


def _mark(obj: Any, kind: str, group: Optional[str]) -> Any:
    obj._annotated = getattr(obj, "__name__", None)
    obj._annotated_type = kind
    obj._annotated_api_group = group
    return obj


def PublicAPI(*args, stability: str = "stable", api_group: str = "Others"):
    """Mark an interface that users may rely on; with or without arguments.

    Args:
        args: What is decorated.
        stability: "alpha", "beta" or "stable".
        api_group: A heading for documentation.
    """
    if stability not in _STABILITIES:
        raise ValueError(f"stability must be one of {_STABILITIES}, got {stability!r}")
    if args and callable(args[0]):
        return PublicAPI(stability="stable", api_group=api_group)(args[0])
    return lambda obj: _mark(obj, "PublicAPI", api_group)


def DeveloperAPI(*args, api_group: str = "Others"):
    """Mark an interface for those who build on Ray; with or without arguments."""
    if args and callable(args[0]):
        return DeveloperAPI()(args[0])
    return lambda obj: _mark(obj, "DeveloperAPI", api_group)


def Deprecated(*args, message: str = "", warning: bool = False):
    """Mark an interface that will be removed; with or without arguments.

    Args:
        args: What is decorated.
        message: What to use instead.
        warning: Whether calling it warns.
    """
    if args and callable(args[0]):
        return Deprecated()(args[0])

    def mark(obj):
        if warning and not isinstance(obj, type):
            import functools
            import warnings

            @functools.wraps(obj)
            def warned(*a, **k):
                warnings.warn(f"{obj.__name__} is deprecated. {message}".strip(), RayDeprecationWarning, stacklevel=2)
                return obj(*a, **k)

            return _mark(warned, "Deprecated", None)
        return _mark(obj, "Deprecated", None)

    return mark
