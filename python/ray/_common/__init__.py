"""Parts that Ray's libraries and their tests share."""

from importlib import import_module


def __getattr__(name):
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
