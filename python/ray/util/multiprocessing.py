"""``multiprocessing.Pool`` on a cluster: the names. It needs actors, which are not there yet."""

from multiprocessing import TimeoutError

from ray._missing import missing

__all__ = ["JoinableQueue", "Pool", "TimeoutError"]


class Pool:
    """A pool of processes. Not there yet."""

    def __init__(
        self,
        processes=None,
        initializer=None,
        initargs=None,
        maxtasksperchild=None,
        context=None,
        ray_address=None,
        ray_remote_args=None,
    ):
        raise missing("actors (ray.util.multiprocessing.Pool)")


def JoinableQueue(maxsize: int = 0):
    """A queue whose items are acknowledged. Not there yet."""
    raise missing("actors (ray.util.multiprocessing.JoinableQueue)")
