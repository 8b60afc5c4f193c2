"""Generators of object refs: what callers of remote generators get."""

from collections import deque


class ObjectRefGenerator:
    """The items of a remote generator, as refs, while it runs.

    An iterator and an asynchronous iterator: each step waits until the generator has yielded once more. An exception that
    the generator raises, or the death of who runs it, is the last item: its ref raises the error. Dropping this object
    frees the items that were not taken. It belongs to the process that called the generator, and can't be sent to others.
    """

    __slots__ = ("__weakref__", "_stream")

    def __init__(self, *args, **kwargs):
        raise TypeError("An ObjectRefGenerator is made by calling a remote generator function or method.")

    @classmethod
    def _of(cls, stream):
        self = object.__new__(cls)
        self._stream = stream
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self._stream.next()

    def __aiter__(self):
        return self

    async def __anext__(self):
        ref = await self._stream.next_async()
        if ref is None:
            raise StopAsyncIteration
        return ref

    def _next_sync(self, timeout_s=None):
        """The next item's ref; the nil ref if there is none within ``timeout_s`` seconds (None, or negative: for ever)."""
        ref = self._stream.next(None if timeout_s is None or timeout_s < 0 else timeout_s)
        if ref is None:
            from ray import ObjectRef

            return ObjectRef.nil()
        return ref

    @property
    def _generator_ref(self):
        return self._stream.ref

    # What ray.wait looks at, as it does with refs.

    @property
    def _id(self):
        return self._stream.ref._id

    @property
    def _v(self):
        return self if self._stream.here() else None

    def completed(self):
        """A ref that is ready when the generator has ended; its value is None."""
        return self._stream.ref

    def next_ready(self) -> bool:
        """Whether the next step would not wait; False after the last item."""
        stream = self._stream
        return stream.fetch(0, take=False) and stream.at != stream.end

    def is_finished(self) -> bool:
        """Whether the generator has ended and all its items were taken."""
        stream = self._stream
        return stream.fetch(0, take=False) and stream.at == stream.end

    def __reduce__(self):
        raise TypeError(
            "You cannot return or pass a generator to other task. Serializing a ObjectRefGenerator is not allowed."
        )

    def send(self, value):
        """Not possible on a remote generator."""
        raise NotImplementedError("`gen.send` is not supported.")

    def throw(self, value):
        """Not possible on a remote generator."""
        raise NotImplementedError("`gen.throw` is not supported.")

    def close(self):
        """Not possible on a remote generator."""
        raise NotImplementedError("`gen.close` is not supported.")

    async def asend(self, value):
        """Not possible on a remote generator."""
        raise NotImplementedError("`gen.asend` is not supported.")

    async def athrow(self, value):
        """Not possible on a remote generator."""
        raise NotImplementedError("`gen.athrow` is not supported.")

    async def aclose(self):
        """Not possible on a remote generator."""
        raise NotImplementedError("`gen.aclose` is not supported.")


ObjectRefGenerator.__module__ = "ray"


class DynamicObjectRefGenerator:
    """The value of a call with ``num_returns="dynamic"``: refs of all that the generator yielded.

    Iterating takes the refs out of it.
    """

    def __init__(self, refs):
        self._refs = deque(refs)

    def __iter__(self):
        while self._refs:
            yield self._refs.popleft()

    def __len__(self):
        return len(self._refs)
