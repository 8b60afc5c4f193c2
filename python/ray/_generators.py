"""Generators of object refs: the names; tasks that yield are not there yet."""

from ray._missing import missing


class ObjectRefGenerator:
    """What a remote generator function returns: an iterator of refs. Not there yet."""

    def __init__(self, *args, **kwargs):
        raise missing("generators (num_returns='streaming')")

    def __iter__(self):
        return self

    def __next__(self):
        raise missing("generators (num_returns='streaming')")

    def completed(self):
        """A ref that is ready when the task has ended."""
        raise missing("generators (num_returns='streaming')")

    def next_ready(self) -> bool:
        """Whether the next item is there."""
        raise missing("generators (num_returns='streaming')")

    def is_finished(self) -> bool:
        """Whether no more items will come."""
        raise missing("generators (num_returns='streaming')")

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


class DynamicObjectRefGenerator:
    """The value of a ref made with num_returns="dynamic". Not there yet."""

    def __init__(self, refs):
        raise missing("generators (num_returns='dynamic')")

    def __iter__(self):
        raise missing("generators (num_returns='dynamic')")

    def __len__(self):
        raise missing("generators (num_returns='dynamic')")
