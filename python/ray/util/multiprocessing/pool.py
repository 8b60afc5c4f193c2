"""``Pool``: the interface of ``multiprocessing.Pool``; its processes are actors, anywhere in the cluster."""

from __future__ import annotations

import itertools
import logging
import operator
import os
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional

from ray.util.multiprocessing._crew import Batch, Crew, PoolTaskError
from ray.util.multiprocessing._results import AsyncResult, IMapIterator, OrderedIMapIterator, UnorderedIMapIterator

__all__ = ["Pool", "PoolTaskError"]

logger = logging.getLogger(__name__)


class Pool:
    """A pool of processes that run functions.

    Example:
        >>> with Pool(4) as pool:
        ...     pool.map(abs, [1, -2, 3])
        [1, 2, 3]
    """

    def __init__(
        self,
        processes: Optional[int] = None,
        initializer: Optional[Callable] = None,
        initargs: Optional[Iterable] = None,
        maxtasksperchild: Optional[int] = None,
        context: Any = None,
        ray_address: Optional[str] = None,
        ray_remote_args: Optional[Dict[str, Any]] = None,
    ):
        """Start the pool's processes; returns when all of them run.

        Args:
            processes: How many; None: one for each CPU of the cluster.
            initializer: Called first in each process.
            initargs: Its arguments.
            maxtasksperchild: How many tasks (batches of a map) a process runs before a new one takes its place.
            context: Has no meaning here.
            ray_address: The cluster to connect to, if this process is not connected; None: that of RAY_ADDRESS, or
                a new one with as many CPUs as processes.
            ray_remote_args: Options of the actors, as for ``.options()``.

        Raises:
            ValueError: There are fewer CPUs in the cluster than processes.
        """
        self._crew: Optional[Crew] = None
        if context is not None:
            logger.warning("The argument 'context' means nothing to pools on Ray.")
        if processes is not None:
            processes = operator.index(processes)
            if processes <= 0:
                raise ValueError("Processes in the pool must be >0.")
        if maxtasksperchild is not None and operator.index(maxtasksperchild) <= 0:
            raise ValueError("maxtasksperchild must be a positive int or None")
        self._size = _connect(processes, ray_address)
        initargs = () if initargs is None else tuple(initargs)
        self._crew = Crew(self._size, initializer, initargs, maxtasksperchild, ray_remote_args or {})
        self._crew.start()

    def apply(self, func: Callable, args: Optional[Iterable] = None, kwargs: Optional[Dict[str, Any]] = None) -> Any:
        """Call ``func(*args, **kwargs)`` in a process and wait for the result."""
        return self.apply_async(func, args, kwargs).get()

    def apply_async(
        self,
        func: Callable,
        args: Optional[Iterable] = None,
        kwargs: Optional[Dict[str, Any]] = None,
        callback: Optional[Callable[[Any], None]] = None,
        error_callback: Optional[Callable[[Exception], None]] = None,
    ) -> AsyncResult:
        """Call ``func(*args, **kwargs)`` in a process.

        Args:
            func: The function.
            args: Its arguments.
            kwargs: Its keyword arguments.
            callback: Called with the result, on a thread of this process.
            error_callback: Called with the error instead, if there is one.
        """
        crew = self._running()
        call = (() if args is None else tuple(args), {} if kwargs is None else dict(kwargs))
        result = AsyncResult(self, 1, callback, error_callback, single=True)
        crew.submit([Batch(result, 0, crew.shared(func), "apply", [call])])
        return result

    def map(self, func: Callable, iterable: Iterable, chunksize: Optional[int] = None) -> List[Any]:
        """Call ``func`` with each item and wait for the results.

        Args:
            func: The function.
            iterable: The items.
            chunksize: How many items make one task; None: such that each process gets about four.
        """
        return self._map(func, "map", iterable, chunksize).get()

    def map_async(
        self,
        func: Callable,
        iterable: Iterable,
        chunksize: Optional[int] = None,
        callback: Optional[Callable[[List], None]] = None,
        error_callback: Optional[Callable[[Exception], None]] = None,
    ) -> AsyncResult:
        """Like :meth:`map`, without waiting. Callbacks get the list of results, or the first error."""
        return self._map(func, "map", iterable, chunksize, callback, error_callback)

    def starmap(self, func: Callable, iterable: Iterable[Iterable], chunksize: Optional[int] = None) -> List[Any]:
        """Like :meth:`map`; each item is the arguments of a call."""
        return self._map(func, "starmap", iterable, chunksize).get()

    def starmap_async(
        self,
        func: Callable,
        iterable: Iterable[Iterable],
        callback: Optional[Callable[[List], None]] = None,
        error_callback: Optional[Callable[[Exception], None]] = None,
    ) -> AsyncResult:
        """Like :meth:`starmap`, without waiting."""
        return self._map(func, "starmap", iterable, None, callback, error_callback)

    def imap(self, func: Callable, iterable: Iterable, chunksize: Optional[int] = 1) -> IMapIterator:
        """Call ``func`` with each item; results come while others are computed, in the order of the items.

        An item whose call failed yields its error, a :class:`PoolTaskError`, in the place of a result.

        Args:
            func: The function.
            iterable: The items; they are taken as results are asked for, and may be endless.
            chunksize: How many items make one task.
        """
        return self._imap(OrderedIMapIterator, func, iterable, chunksize)

    def imap_unordered(self, func: Callable, iterable: Iterable, chunksize: Optional[int] = 1) -> IMapIterator:
        """Like :meth:`imap`, in the order in which results become ready."""
        return self._imap(UnorderedIMapIterator, func, iterable, chunksize)

    def close(self) -> None:
        """Accept no more work. The processes end when what there is is done; that includes all items of ``imap``."""
        if self._crew is not None:
            self._crew.close()

    def terminate(self) -> None:
        """End the processes at once, with what they do."""
        if self._crew is not None:
            self._crew.terminate()

    def join(self) -> None:
        """Wait until the processes have ended.

        Raises:
            ValueError: The pool was neither closed nor terminated.
        """
        if self._crew is None or not self._crew.closed:
            raise ValueError("Pool is still running")
        self._crew.join()

    def __enter__(self) -> Pool:
        self._running()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.terminate()

    def __del__(self):
        crew = getattr(self, "_crew", None)
        if crew is not None:
            crew.forget()

    def __reduce__(self):
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def _running(self) -> Crew:
        if self._crew is None or self._crew.closed:
            raise ValueError("Pool not running")
        return self._crew

    def _map(
        self,
        func: Callable,
        how: str,
        iterable: Iterable,
        chunksize: Optional[int],
        callback: Optional[Callable] = None,
        error_callback: Optional[Callable] = None,
    ) -> AsyncResult:
        crew = self._running()
        items = list(iterable)
        if chunksize is None:
            chunksize = max(1, -(-len(items) // (4 * self._size)))
        chunks = list(_chunks(items, chunksize))
        result = AsyncResult(self, len(chunks), callback, error_callback)
        if chunks:
            shared = crew.shared(func, always=len(chunks) > 1)
            crew.submit([Batch(result, i, shared, how, chunk) for i, chunk in enumerate(chunks)])
        else:
            crew.settle(result)
        return result

    def _imap(self, kind: type, func: Callable, iterable: Iterable, chunksize: Optional[int]) -> IMapIterator:
        crew = self._running()
        chunks = _chunks(iterable, 1 if chunksize is None else chunksize)
        iterator = kind(self, crew, crew.shared(func, always=True), chunks)
        iterator.feed(2 * self._size)
        return iterator


def _chunks(iterable: Iterable, size: int) -> Iterator[List[Any]]:
    if operator.index(size) < 1:
        raise ValueError(f"Chunksize must be 1+, not {size}")
    items = iter(iterable)
    return iter(lambda: list(itertools.islice(items, size)), [])


def _connect(processes: Optional[int], address: Optional[str]) -> int:
    """Connect to a cluster, unless this process is connected; returns how many processes the pool gets."""
    import ray

    if not ray.is_initialized():
        if address is None and not os.environ.get("RAY_ADDRESS"):
            ray.init(num_cpus=processes)
        else:
            ray.init(address=address)
    cpus = int(ray.cluster_resources().get("CPU", 0))
    if processes is None:
        return max(cpus, 1)
    if cpus < processes:
        raise ValueError(
            f"Tried to start a pool with {processes} processes on an existing ray cluster, but there are only {cpus} "
            "CPUs in the ray cluster."
        )
    return processes
