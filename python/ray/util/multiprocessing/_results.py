"""What a pool's asynchronous calls return: results to come. Processes fill them in by way of the crew's thread."""

from __future__ import annotations

import collections
import multiprocessing
import threading
import time
from typing import Any, Callable, Deque, Dict, Iterator, List, Optional

from ray.util.multiprocessing._crew import Batch, Crew, Outcome, PoolTaskError

_LATE = "The result is not ready in time"


class AsyncResult:
    """The result of :meth:`Pool.apply_async`, ``map_async`` or ``starmap_async``."""

    def __init__(
        self,
        pool: Any,
        batches: int,
        callback: Optional[Callable] = None,
        error_callback: Optional[Callable] = None,
        single: bool = False,
    ):
        """Made by the pool."""
        self._pool = pool  # lives as long as there is something to wait for
        self._outcomes: List[Optional[Outcome]] = [None] * batches
        self._left = batches
        self._single = single
        self._callback = callback
        self._error_callback = error_callback
        self._done = threading.Event()
        self._value: Any = None
        self._error: Optional[Exception] = None

    def wait(self, timeout: Optional[float] = None) -> None:
        """Wait for the result.

        Args:
            timeout: Seconds to wait; None: as long as it takes.
        """
        self._done.wait(timeout)

    def get(self, timeout: Optional[float] = None) -> Any:
        """The result.

        Args:
            timeout: Seconds to wait for it; None: as long as it takes.

        Raises:
            TimeoutError: It is not there in time (``multiprocessing.TimeoutError``).
            Exception: What the function raised.
        """
        self.wait(timeout)
        if not self._done.is_set():
            raise multiprocessing.TimeoutError(_LATE)
        if self._error is not None:
            raise self._error
        return self._value

    def ready(self) -> bool:
        """Whether the result, or an error, is there."""
        return self._done.is_set()

    def successful(self) -> bool:
        """Whether there was no error.

        Raises:
            ValueError: The result is not there.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._error is None

    def deliver(self, index: int, outcome: Outcome) -> bool:
        """Take what a batch came to; the crew's thread calls it. Returns whether that was the last one."""
        self._outcomes[index] = outcome
        self._left -= 1
        return self._left == 0

    def settle(self) -> None:
        """Make the result of the batches, after the callbacks; the crew's threads call it."""
        values: List[Any] = []
        failure: Optional[Exception] = None
        for outcome in self._outcomes:
            if outcome.broken is not None:
                failure = failure or outcome.broken
            elif outcome.errors:
                failure = failure or PoolTaskError(outcome.errors[min(outcome.errors)])
            else:
                values.extend(outcome.values)
        self._outcomes = []
        self._pool = None
        try:
            if failure is not None:
                self._error = failure.underlying if isinstance(failure, PoolTaskError) else failure
                if self._error_callback is not None:
                    self._error_callback(failure)
            else:
                self._value = values[0] if self._single else values
                if self._callback is not None:
                    self._callback(self._value)
        finally:
            self._callback = self._error_callback = None
            self._done.set()

    @property
    def calls_back(self) -> bool:
        """Whether :meth:`settle` runs code of the user."""
        return self._callback is not None or self._error_callback is not None


class IMapIterator:
    """Results of :meth:`Pool.imap` or ``imap_unordered``."""

    def __init__(self, pool: Any, crew: Crew, function: Any, chunks: Iterator[List[Any]]):
        """Made by the pool."""
        self._pool = pool  # lives as long as somebody iterates
        self._crew = crew
        self._function = function
        self._chunks: Optional[Iterator[List[Any]]] = chunks  # None: used up; guarded by _feeding
        self._feeding = threading.Lock()
        self._feed_error: Optional[Exception] = None
        self._fed = 0  # batches submitted
        self._taken = 0  # batches whose results were asked for
        self._items: Deque[Any] = collections.deque()  # results of the batch taken last
        self._changed = threading.Condition()
        crew.iterators.add(self)

    def __iter__(self) -> IMapIterator:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: Optional[float] = None) -> Any:
        """The next result.

        Args:
            timeout: Seconds to wait for it; None: as long as it takes.

        Returns:
            The result, or a :class:`PoolTaskError` where the function raised.

        Raises:
            StopIteration: There are no more.
            TimeoutError: It is not there in time (``multiprocessing.TimeoutError``).
        """
        if not self._items:
            if self._taken == self._fed:
                self._end()
            self._items.extend(_as_items(self._wait(timeout)))
            self._taken += 1
            self.feed(1)
        return self._items.popleft()

    def feed(self, count: Optional[int]) -> None:
        """Submit further batches. An error of the iterable is told when all results before it were.

        Args:
            count: How many; None: all.
        """
        with self._feeding:
            while self._chunks is not None and count != 0:
                try:
                    chunk = next(self._chunks, None)
                except Exception as e:
                    self._feed_error = e
                    chunk = None
                if chunk is None:
                    self._chunks = None
                    return
                # Counted first: whoever asks for the result must not see fewer batches than there are.
                index, self._fed = self._fed, self._fed + 1
                self._crew.submit([Batch(self, index, self._function, "map", chunk)])
                count = None if count is None else count - 1

    calls_back = False

    def deliver(self, index: int, outcome: Outcome) -> bool:
        """Take what a batch came to; the crew's thread calls it."""
        with self._changed:
            self._store(index, outcome)
            self._changed.notify_all()
        return False

    def settle(self) -> None:
        """Nothing to do at the end."""

    def _end(self) -> None:
        error, self._feed_error = self._feed_error, None
        if error is not None:
            raise error
        raise StopIteration

    def _wait(self, timeout: Optional[float]) -> Outcome:
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._there():
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise multiprocessing.TimeoutError(_LATE)
                self._changed.wait(left)
            return self._pop()

    def _store(self, index: int, outcome: Outcome) -> None:
        raise NotImplementedError

    def _there(self) -> bool:
        raise NotImplementedError

    def _pop(self) -> Outcome:
        raise NotImplementedError


class OrderedIMapIterator(IMapIterator):
    """Results in the order of the items."""

    def __init__(self, *args: Any):
        """Made by the pool."""
        self._by_index: Dict[int, Outcome] = {}
        super().__init__(*args)

    def _store(self, index: int, outcome: Outcome) -> None:
        self._by_index[index] = outcome

    def _there(self) -> bool:
        return self._taken in self._by_index

    def _pop(self) -> Outcome:
        return self._by_index.pop(self._taken)


class UnorderedIMapIterator(IMapIterator):
    """Results in the order in which they became ready."""

    def __init__(self, *args: Any):
        """Made by the pool."""
        self._ready: Deque[Outcome] = collections.deque()
        super().__init__(*args)

    def _store(self, index: int, outcome: Outcome) -> None:
        self._ready.append(outcome)

    def _there(self) -> bool:
        return bool(self._ready)

    def _pop(self) -> Outcome:
        return self._ready.popleft()


def _as_items(outcome: Outcome) -> List[Any]:
    if outcome.broken is not None:
        return [outcome.broken] * outcome.size
    return [
        PoolTaskError(outcome.errors[i]) if i in outcome.errors else value for i, value in enumerate(outcome.values)
    ]
