"""``ray.util.client.ray``: what libraries ask whether this process is a client of a cluster far away."""

from ray import _core

__all__ = ["RayAPIStub", "num_connected_contexts", "ray"]


class RayAPIStub:
    """The API of a ``ray://`` connection. There is one API for all connections, so all but what is here is module ray's."""

    def is_connected(self) -> bool:
        """Whether this process is connected by ``ray://``."""
        return _core.far()

    def connect(self, conn_str: str, **kwargs):
        """Connect to ``host:port``, with the arguments of ``ray.init``."""
        import ray as module

        return module.init(f"ray://{conn_str}", **kwargs)

    def disconnect(self) -> None:
        """End the connection, if it is one by ``ray://``."""
        import ray as module

        if self.is_connected():
            module.shutdown()

    def __getattr__(self, name: str):
        import ray as module

        return getattr(module, name)


ray = RayAPIStub()


def num_connected_contexts() -> int:
    """How many ``ray://`` connections this process has."""
    from ray._core import contexts

    return contexts.count() + int(_core.state.client is not None and _core.far())
