"""Results as they come: ``as_completed`` and ``map_unordered``."""

from __future__ import annotations

from typing import Any, Iterable, Iterator, List, Optional, Tuple

__all__ = ["as_completed", "map_unordered"]


def as_completed(refs: Iterable, *, chunk_size: int = 10, yield_obj_refs: bool = False, **kwargs: Any) -> Iterator[Any]:
    """Yield the values of refs as they become ready.

    Args:
        refs: ``ObjectRef`` to wait for.
        chunk_size: How many to wait for at a time, at most.
        yield_obj_refs: Whether to yield refs instead of values.
        kwargs: Further arguments of ``ray.wait``.

    Yields:
        A value or a ref. With ``chunk_size=1`` each comes as soon as it is ready.

    Raises:
        ValueError: ``chunk_size`` is less than 1, or ``num_returns`` is given.
    """
    _check(chunk_size, kwargs)
    waiting = list(refs)
    while waiting:
        ready, waiting = _next_chunk(waiting, chunk_size, yield_obj_refs, kwargs)
        yield from ready


def map_unordered(
    fn: Any,
    items: Iterable,
    *,
    backpressure_size: Optional[int] = 100,
    chunk_size: int = 10,
    yield_obj_refs: bool = False,
    **kwargs: Any,
) -> Iterator[Any]:
    """Run a remote function on items and yield the results as they become ready.

    Args:
        fn: A remote function, or the method of an actor.
        items: Its arguments, one a call; may be endless.
        backpressure_size: How many calls may be under way; None: all at once.
        chunk_size: How many to wait for at a time, at most.
        yield_obj_refs: Whether to yield refs instead of values.
        kwargs: Further arguments of ``ray.wait``.

    Yields:
        A value or a ref.

    Raises:
        ValueError: A size is less than 1, or ``num_returns`` is given.
    """
    if backpressure_size is not None and backpressure_size < 1:
        raise ValueError("backpressure_size must be positive.")
    _check(chunk_size, kwargs)
    waiting: List[Any] = []
    for item in items:
        waiting.append(fn.remote(item))
        if len(waiting) == backpressure_size:
            ready, waiting = _next_chunk(waiting, chunk_size, yield_obj_refs, kwargs)
            yield from ready
    yield from as_completed(waiting, chunk_size=chunk_size, yield_obj_refs=yield_obj_refs, **kwargs)


def _check(chunk_size: int, wait_options: dict) -> None:
    if chunk_size < 1:
        raise ValueError("`chunk_size` must be >= 1")
    if "num_returns" in wait_options:
        raise ValueError("Use the `chunk_size` argument instead of `num_returns`.")


def _next_chunk(waiting: List, size: int, as_refs: bool, wait_options: dict) -> Tuple[List, List]:
    import ray

    ready, waiting = ray.wait(waiting, num_returns=min(size, len(waiting)), **wait_options)
    return (ready if as_refs else ray.get(ready)), waiting
