"""Small helpers that other packages import."""

import asyncio
import contextlib
import os
import signal
import threading

__all__ = [
    "DeferSigint",
    "binary_to_hex",
    "decode",
    "detect_fate_sharing_support",
    "get_num_cpus",
    "get_or_create_event_loop",
    "get_system_memory",
    "hex_to_binary",
]


class DeferSigint:
    """In its block SIGINT, and so a task's cancellation, is only noted; it is delivered at the block's end. For main threads."""

    def __init__(self):
        self.task_cancelled = False
        self.orig_sigint_handler = None

    @classmethod
    def create_if_main_thread(cls):
        """A DeferSigint in the main thread, a context manager that does nothing in others."""
        return cls() if threading.current_thread() is threading.main_thread() else contextlib.nullcontext()

    def _note(self, signum, frame):
        self.task_cancelled = True

    def __enter__(self):
        self.task_cancelled = False
        self.orig_sigint_handler = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, exc_type, exc, tb):
        signal.signal(signal.SIGINT, self.orig_sigint_handler)
        if self.task_cancelled and exc_type is None:
            signal.raise_signal(signal.SIGINT)


def binary_to_hex(identifier: bytes) -> str:
    """Bytes as hexadecimal text."""
    return identifier.hex()


def hex_to_binary(hex_identifier: str) -> bytes:
    """Hexadecimal text as bytes."""
    return bytes.fromhex(hex_identifier)


def decode(byte_str, allow_none: bool = False, encode_type: str = "utf-8") -> str:
    """Bytes as text.

    Raises:
        ValueError: ``byte_str`` is not bytes.
    """
    if byte_str is None and allow_none:
        return ""
    if not isinstance(byte_str, bytes):
        raise ValueError(f"The argument {byte_str!r} must be a bytes object.")
    return byte_str.decode(encode_type)


def detect_fate_sharing_support() -> bool:
    """Whether a node's processes end with the process that started it, however that ends: always."""
    return True


def get_num_cpus() -> int:
    """The CPUs that this process may run on."""
    return len(os.sched_getaffinity(0))


def get_system_memory() -> int:
    """The machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def get_or_create_event_loop() -> asyncio.AbstractEventLoop:
    """The running event loop, or a new one that becomes this thread's."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        return loop
