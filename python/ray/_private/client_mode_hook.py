"""Ray Client's hooks, under the names that other packages import; there is no client mode here."""

import contextlib

__all__ = ["client_mode_hook", "client_mode_should_convert", "disable_client_hook", "is_client_mode_enabled"]

is_client_mode_enabled = False


def client_mode_should_convert() -> bool:
    """Whether calls go through Ray Client: never."""
    return False


def client_mode_hook(func):
    """Return the function as it is: there is no client mode to divert it to."""
    return func


@contextlib.contextmanager
def disable_client_hook():
    """Run a block without client mode."""
    yield
