"""Logging that happens once, or now and then."""

import threading
import time
from typing import Dict

__all__ = ["disable_log_once_globally", "enable_periodic_logging", "log_once"]

_lock = threading.Lock()
_logged: Dict[str, float] = {}  # guarded by _lock
_disabled = False
_period_s = 0.0


def log_once(key: str) -> bool:
    """Whether the caller shall log: True for the first call with a key."""
    with _lock:
        if _disabled:
            return False
        now = time.monotonic()
        last = _logged.get(key)
        if last is None or _period_s and now - last > _period_s:
            _logged[key] = now
            return True
        return False


def disable_log_once_globally() -> None:
    """Make :func:`log_once` answer False from now on."""
    global _disabled
    _disabled = True


def enable_periodic_logging() -> None:
    """Make :func:`log_once` answer True again for a key after a minute."""
    global _period_s
    _period_s = 60.0
