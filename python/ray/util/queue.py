"""``Queue``: a first-in, first-out queue that tasks, actors and drivers share. It lives in an actor."""

from __future__ import annotations

import functools
import queue
from collections.abc import Iterable
from typing import Any, Dict, List, Optional

__all__ = ["Empty", "Full", "Queue"]

# Callers that wait inside the queue at the same time: a put must never wait for a place behind those who wait to get.
_WAITERS = 100_000


class Empty(queue.Empty):
    """There was nothing to take."""


class Full(queue.Full):
    """There was no room."""


class Queue:
    """A queue with the interface of ``queue.Queue``. It can be passed to tasks and actors.

    Example:
        >>> q = Queue(maxsize=10)
        >>> q.put("item")
        >>> q.get(timeout=1)
        'item'
    """

    def __init__(self, maxsize: int = 0, actor_options: Optional[Dict[str, Any]] = None) -> None:
        """Start the queue's actor.

        Args:
            maxsize: How many items it holds; 0 or less: any number.
            actor_options: Options of the actor that holds the items, as for ``.options()``.
        """
        import ray

        self.maxsize = maxsize
        options = {"max_concurrency": _WAITERS, **(actor_options or {})}
        self.actor: Any = ray.remote(_QueueActor).options(**options).remote(maxsize)

    def __len__(self) -> int:
        return self.size()

    def size(self) -> int:
        """The number of items."""
        import ray

        return ray.get(self.actor.qsize.remote())

    def qsize(self) -> int:
        """The number of items."""
        return self.size()

    def empty(self) -> bool:
        """Whether there are no items."""
        import ray

        return ray.get(self.actor.empty.remote())

    def full(self) -> bool:
        """Whether there is no room for another item."""
        import ray

        return ray.get(self.actor.full.remote())

    def put(self, item: Any, block: bool = True, timeout: Optional[float] = None) -> None:
        """Append an item.

        Args:
            item: The item.
            block: Whether to wait for room.
            timeout: Seconds to wait; None: as long as it takes.

        Raises:
            Full: There is no room, in time.
            ValueError: ``timeout`` is negative.
        """
        _call(_put(self.actor, item, block, timeout))

    async def put_async(self, item: Any, block: bool = True, timeout: Optional[float] = None) -> None:
        """Like :meth:`put`, for coroutines."""
        await _acall(_put(self.actor, item, block, timeout))

    def get(self, block: bool = True, timeout: Optional[float] = None) -> Any:
        """Take the oldest item.

        Args:
            block: Whether to wait for one.
            timeout: Seconds to wait; None: as long as it takes.

        Returns:
            The item.

        Raises:
            Empty: There is none, in time.
            ValueError: ``timeout`` is negative.
        """
        return _call(_get(self.actor, block, timeout))

    async def get_async(self, block: bool = True, timeout: Optional[float] = None) -> Any:
        """Like :meth:`get`, for coroutines."""
        return await _acall(_get(self.actor, block, timeout))

    def put_nowait(self, item: Any) -> None:
        """Append an item, or raise :class:`Full` at once."""
        self.put(item, block=False)

    def put_nowait_batch(self, items: Iterable) -> None:
        """Append several items: all, or none.

        Args:
            items: The items.

        Raises:
            Full: There is no room for all of them.
        """
        if not isinstance(items, Iterable):
            raise TypeError("Argument 'items' must be an Iterable")
        _call(self.actor.put_nowait_batch.remote(list(items)))

    def get_nowait(self) -> Any:
        """Take the oldest item, or raise :class:`Empty` at once."""
        return self.get(block=False)

    def get_nowait_batch(self, num_items: int) -> List[Any]:
        """Take several items: that many, or none.

        Args:
            num_items: How many.

        Returns:
            The items, oldest first.

        Raises:
            Empty: There are fewer.
        """
        if not isinstance(num_items, int):
            raise TypeError("Argument 'num_items' must be an int")
        if num_items < 0:
            raise ValueError("'num_items' must be nonnegative")
        return _call(self.actor.get_nowait_batch.remote(num_items))

    def shutdown(self, force: bool = False, grace_period_s: int = 5) -> None:
        """End the queue's actor. The queue is of no use afterwards.

        Args:
            force: Whether to end it at once, with calls under way.
            grace_period_s: How long it may take to finish calls under way, otherwise; then it is ended.
        """
        import ray

        actor, self.actor = self.actor, None
        if actor is None:
            return
        if not force:
            ended = actor.__ray_terminate__.remote()
            if ray.wait([ended], num_returns=1, timeout=grace_period_s)[0]:
                return
        ray.kill(actor, no_restart=True)


def _put(actor: Any, item: Any, block: bool, timeout: Optional[float]) -> Any:
    if not block:
        return actor.put_nowait.remote(item)
    return actor.put.remote(item, _checked(timeout))


def _get(actor: Any, block: bool, timeout: Optional[float]) -> Any:
    if not block:
        return actor.get_nowait.remote()
    return actor.get.remote(_checked(timeout))


def _checked(timeout: Optional[float]) -> Optional[float]:
    if timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return timeout


def _plain(error: Exception) -> Exception:
    """The error without the actor's traceback, which says nothing that a caller can use."""
    kind = Full if isinstance(error, Full) else Empty
    return kind(*getattr(getattr(error, "cause", error), "args", ()))


def _call(ref: Any) -> Any:
    import ray

    try:
        return ray.get(ref)
    except (Full, Empty) as e:
        error = _plain(e)
    raise error


async def _acall(ref: Any) -> Any:
    try:
        return await ref
    except (Full, Empty) as e:
        error = _plain(e)
    raise error


class _QueueActor:
    """Holds the items. It has coroutines, so that callers may wait in it without holding up others."""

    def __init__(self, maxsize: int):
        self.maxsize = maxsize

    @functools.cached_property
    def queue(self):
        # Made on first use: up to Python 3.9 a queue belongs to the event loop that is current when it is made.
        import asyncio

        return asyncio.Queue(self.maxsize)

    def qsize(self) -> int:
        return self.queue.qsize()

    def empty(self) -> bool:
        return self.queue.empty()

    def full(self) -> bool:
        return self.queue.full()

    async def put(self, item: Any, timeout: Optional[float] = None) -> None:
        import asyncio

        if not self.queue.full():
            self.queue.put_nowait(item)
            return
        try:
            await asyncio.wait_for(self.queue.put(item), timeout)
        except asyncio.TimeoutError:
            raise Full from None

    async def get(self, timeout: Optional[float] = None) -> Any:
        import asyncio

        if not self.queue.empty():
            return self.queue.get_nowait()
        try:
            return await asyncio.wait_for(self.queue.get(), timeout)
        except asyncio.TimeoutError:
            raise Empty from None

    def put_nowait(self, item: Any) -> None:
        if self.queue.full():
            raise Full
        self.queue.put_nowait(item)

    def put_nowait_batch(self, items: List[Any]) -> None:
        if 0 < self.maxsize < self.qsize() + len(items):
            raise Full(
                f"Cannot add {len(items)} items to a queue of size {self.qsize()} and maximum size {self.maxsize}."
            )
        for item in items:
            self.queue.put_nowait(item)

    def get_nowait(self) -> Any:
        if self.queue.empty():
            raise Empty
        return self.queue.get_nowait()

    def get_nowait_batch(self, num_items: int) -> List[Any]:
        if num_items > self.qsize():
            raise Empty(f"Cannot get {num_items} items from a queue of size {self.qsize()}.")
        return [self.queue.get_nowait() for _ in range(num_items)]
