"""``Queue``: the name. It needs actors, which are not there yet."""

import queue

from ray._missing import missing

__all__ = ["Empty", "Full", "Queue"]


class Empty(queue.Empty):
    """There was nothing to take."""


class Full(queue.Full):
    """There was no room."""


class Queue:
    """A queue that tasks share. Not there yet."""

    def __init__(self, maxsize: int = 0, actor_options=None):
        raise missing("actors (ray.util.queue.Queue)")
