"""``ActorPool``: hands pieces of work to a fixed set of actors, one piece an actor at a time."""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, Optional, Tuple, TypeVar

__all__ = ["ActorPool", "V"]

V = TypeVar("V")

_NOTHING_LEFT = "No more results to get"
_TOO_SLOW = "Timed out waiting for result"


def _first_ref(result: Any) -> Any:
    """What to wait for: a call with several returns makes them ready together."""
    return result[0] if isinstance(result, list) else result


class ActorPool:
    """A pool of actors, and the work under way on them.

    An actor is busy from the submission of its piece of work until the result was asked for.

    Example:
        >>> pool = ActorPool([Worker.remote() for _ in range(4)])
        >>> list(pool.map(lambda actor, value: actor.double.remote(value), [1, 2, 3]))
        [2, 4, 6]
    """

    def __init__(self, actors: Iterable[Any]):
        """Make a pool.

        Args:
            actors: Handles of actors.
        """
        self._idle: Deque[Any] = deque(actors)
        self._busy: Dict[int, Tuple[Any, Any]] = {}  # number of the piece -> (its refs, its actor), in order
        self._queued: Deque[Tuple[int, Callable[[Any, Any], Any], Any]] = deque()
        self._submitted = 0  # numbers given out
        self._next = 0  # the number that get_next() is to return

    def map(self, fn: Callable[[Any, V], Any], values: Iterable[V]) -> Iterator[Any]:
        """Apply ``fn`` to all values, at once; results come in the order of the values.

        Args:
            fn: Called with an actor and a value; returns what ``actor.method.remote(...)`` returns.
            values: The values.

        Returns:
            An iterator over the results. Results of earlier submissions are forgotten.
        """
        self._submit_all(fn, values)
        return self._results(self.get_next)

    def map_unordered(self, fn: Callable[[Any, V], Any], values: Iterable[V]) -> Iterator[Any]:
        """Like :meth:`map`, with the results in the order in which they become ready."""
        self._submit_all(fn, values)
        return self._results(self.get_next_unordered)

    def submit(self, fn: Callable[[Any, V], Any], value: V) -> None:
        """Run ``fn(actor, value)`` on an idle actor, or as soon as one becomes idle.

        Args:
            fn: Called with an actor and a value; returns what ``actor.method.remote(...)`` returns.
            value: The value.
        """
        number = self._submitted
        if self._idle:
            actor = self._idle.popleft()
            try:
                self._busy[number] = (fn(actor, value), actor)
            except BaseException:
                self._idle.append(actor)
                raise
        else:
            self._queued.append((number, fn, value))
        self._submitted += 1

    def has_next(self) -> bool:
        """Whether a result is outstanding."""
        return bool(self._busy)

    def get_next(self, timeout: Optional[float] = None, ignore_if_timedout: bool = False) -> Any:
        """The next result, in the order of submission.

        Args:
            timeout: Seconds to wait; None: as long as it takes.
            ignore_if_timedout: Whether a result that is late is skipped and its actor used again.

        Raises:
            StopIteration: Nothing is outstanding.
            TimeoutError: The result is late.
            ValueError: It was already returned by :meth:`get_next_unordered`.
        """
        if not self._busy:
            raise StopIteration(_NOTHING_LEFT)
        number = self._next
        if number not in self._busy:
            raise ValueError("It is not allowed to call get_next() after get_next_unordered().")
        refs = self._busy[number][0]
        if timeout is not None:
            self._wait([_first_ref(refs)], timeout, number if ignore_if_timedout else None)
        return self._take(number)

    def get_next_unordered(self, timeout: Optional[float] = None, ignore_if_timedout: bool = False) -> Any:
        """The next result that is ready.

        Args:
            timeout: Seconds to wait; None: as long as it takes.
            ignore_if_timedout: Whether, when none is ready in time, the oldest is skipped and its actor used again.

        Raises:
            StopIteration: Nothing is outstanding.
            TimeoutError: No result is ready in time.
        """
        if not self._busy:
            raise StopIteration(_NOTHING_LEFT)
        numbers = {_first_ref(refs): number for number, (refs, _) in self._busy.items()}
        oldest = next(iter(self._busy))
        ready = self._wait(list(numbers), timeout, oldest if ignore_if_timedout else None)
        return self._take(numbers[ready])

    def has_free(self) -> bool:
        """Whether an actor is idle and nothing waits for one."""
        return bool(self._idle) and not self._queued

    def pop_idle(self) -> Any:
        """Take an idle actor out of the pool.

        Returns:
            The actor; None if none is idle.
        """
        return self._idle.popleft() if self.has_free() else None

    def push(self, actor: Any) -> None:
        """Put an actor into the pool.

        Args:
            actor: Its handle.

        Raises:
            ValueError: It is in the pool.
        """
        if actor in self._idle or any(actor == busy for _, busy in self._busy.values()):
            raise ValueError("Actor already belongs to current ActorPool")
        self._free(actor)

    def _submit_all(self, fn: Callable[[Any, V], Any], values: Iterable[V]) -> None:
        while self._busy:  # earlier work runs, but nobody will ask for its results
            self._forget(next(iter(self._busy)))
        for value in values:
            self.submit(fn, value)

    def _results(self, get: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield get()

    def _wait(self, refs: List[Any], timeout: Optional[float], skip: Optional[int]) -> Any:
        import ray

        ready, _ = ray.wait(refs, num_returns=1, timeout=timeout)
        if ready:
            return ready[0]
        if skip is None:
            raise TimeoutError(_TOO_SLOW)
        skipped, _ = self._forget(skip)
        raise TimeoutError(f"{_TOO_SLOW}. The task {skipped} has been ignored.")

    def _take(self, number: int) -> Any:
        import ray

        return ray.get(self._forget(number)[0])

    def _forget(self, number: int) -> Tuple[Any, Any]:
        refs, actor = self._busy.pop(number)
        self._next = max(self._next, number + 1)
        self._free(actor)
        return refs, actor

    def _free(self, actor: Any) -> None:
        if not self._queued:
            self._idle.append(actor)
            return
        number, fn, value = self._queued.popleft()
        try:
            self._busy[number] = (fn(actor, value), actor)
        except BaseException:
            self._idle.append(actor)
            raise
