"""What tests of programs on Ray use: actors to synchronise with, waits for conditions, programs run as drivers.

A package, since pytest takes a file of the name test_*.py for tests and has its way with it.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import time
import traceback
from typing import Any, Awaitable, Callable, Dict, Optional, Union

import ray

__all__ = ["Semaphore", "SignalActor", "async_wait_for_condition", "run_string_as_driver", "wait_for_condition"]

_NOT_MET = "The condition wasn't met before the timeout expired."


@ray.remote(num_cpus=0)
class SignalActor:
    """An event: some wait for it, one sends it."""

    def __init__(self):
        """Not sent yet."""
        self._event: Optional[asyncio.Event] = None  # made where its event loop runs
        self._waiters = 0

    def _signal(self) -> asyncio.Event:
        if self._event is None:
            self._event = asyncio.Event()
        return self._event

    async def send(self, clear: bool = False) -> None:
        """Let those who wait go on.

        Args:
            clear: Whether those who come later wait for the next time.
        """
        self._signal().set()
        if clear:
            self._signal().clear()

    async def wait(self, should_wait: bool = True) -> None:
        """Return when the event was sent.

        Args:
            should_wait: False: return at once.
        """
        if not should_wait:
            return
        self._waiters += 1
        try:
            await self._signal().wait()
        finally:
            self._waiters -= 1

    async def cur_num_waiters(self) -> int:
        """How many wait now."""
        return self._waiters


@ray.remote(num_cpus=0)
class Semaphore:
    """A semaphore that tasks share."""

    def __init__(self, value: int = 1):
        """Make it.

        Args:
            value: How many may hold it at a time.
        """
        self._value = value
        self._semaphore: Optional[asyncio.Semaphore] = None  # made where its event loop runs

    def _own(self) -> asyncio.Semaphore:
        if self._semaphore is None:
            self._semaphore = asyncio.Semaphore(self._value)
        return self._semaphore

    async def acquire(self) -> None:
        """Return when the caller is one of those who hold it."""
        await self._own().acquire()

    async def release(self) -> None:
        """Let another one in."""
        self._own().release()

    async def locked(self) -> bool:
        """Whether it can't be acquired at once."""
        return self._own().locked()


def wait_for_condition(
    condition_predictor: Callable[..., bool],
    timeout: float = 10,
    retry_interval_ms: float = 100,
    raise_exceptions: bool = False,
    **kwargs: Any,
) -> None:
    """Wait until a condition is met.

    Args:
        condition_predictor: Says whether it is.
        timeout: Seconds to wait.
        retry_interval_ms: How often to ask.
        raise_exceptions: Whether an exception ends the wait; otherwise it means "not yet".
        kwargs: Arguments of ``condition_predictor``.

    Raises:
        RuntimeError: It was not met in time.
    """
    error = ""
    deadline = time.monotonic() + timeout
    while time.monotonic() <= deadline:
        try:
            if condition_predictor(**kwargs):
                return
            error = ""
        except Exception:
            if raise_exceptions:
                raise
            error = traceback.format_exc()
        time.sleep(retry_interval_ms / 1000)
    raise RuntimeError(_NOT_MET + (f" Last exception: {error}" if error else ""))


async def async_wait_for_condition(
    condition_predictor: Callable[..., Union[bool, Awaitable[bool]]],
    timeout: float = 10,
    retry_interval_ms: float = 100,
    **kwargs: Any,
) -> None:
    """Like :func:`wait_for_condition`, for coroutines.

    Args:
        condition_predictor: A function or coroutine function that says whether the condition is met.
        timeout: Seconds to wait.
        retry_interval_ms: How often to ask.
        kwargs: Arguments of ``condition_predictor``.
    """
    error: Optional[Exception] = None
    deadline = time.monotonic() + timeout
    while time.monotonic() <= deadline:
        try:
            met = condition_predictor(**kwargs)
            if inspect.isawaitable(met):
                met = await met
            if met:
                return
            error = None
        except Exception as e:
            error = e
        await asyncio.sleep(retry_interval_ms / 1000)
    raise RuntimeError(_NOT_MET + (f" Last exception: {error}" if error is not None else ""))


def run_string_as_driver(
    driver_script: str, env: Optional[Dict[str, str]] = None, encode: str = "utf-8", timeout: Optional[float] = 300
) -> str:
    """Run a program in an interpreter of its own.

    Args:
        driver_script: The text of the program.
        env: Its whole environment; None: that of this process.
        encode: The encoding of the program and its output.
        timeout: Seconds that it may take; None: any number.

    Returns:
        What it wrote, stdout and stderr together.

    Raises:
        subprocess.CalledProcessError: It failed; ``.output`` is what it wrote.
        subprocess.TimeoutExpired: It took too long.
    """
    done = subprocess.run(
        [sys.executable, "-"],
        input=driver_script.encode(encode),
        env=dict(os.environ if env is None else env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
    )
    output = done.stdout.decode(encode)
    if done.returncode:
        sys.stderr.write(output)
        raise subprocess.CalledProcessError(done.returncode, done.args, output, None)
    return output
