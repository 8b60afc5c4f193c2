"""``ActorPool``: the name. Actors are not there yet."""

from ray._missing import missing

__all__ = ["ActorPool"]


class ActorPool:
    """Hands work to a set of actors. Not there yet."""

    def __init__(self, actors):
        raise missing("actors (ray.util.ActorPool)")

    def get_next(self, timeout=None, ignore_if_timedout=False):
        """The next result, in the order of submission. Not there yet."""
        raise missing("actors (ray.util.ActorPool.get_next)")

    def get_next_unordered(self, timeout=None, ignore_if_timedout=False):
        """The next result that is ready. Not there yet."""
        raise missing("actors (ray.util.ActorPool.get_next_unordered)")

    def has_free(self):
        """Whether an actor is idle. Not there yet."""
        raise missing("actors (ray.util.ActorPool.has_free)")

    def has_next(self):
        """Whether results are outstanding. Not there yet."""
        raise missing("actors (ray.util.ActorPool.has_next)")

    def map(self, fn, values):
        """Results of ``fn`` on values, in order. Not there yet."""
        raise missing("actors (ray.util.ActorPool.map)")

    def map_unordered(self, fn, values):
        """Results of ``fn`` on values, as they come. Not there yet."""
        raise missing("actors (ray.util.ActorPool.map_unordered)")

    def pop_idle(self):
        """Take an idle actor out. Not there yet."""
        raise missing("actors (ray.util.ActorPool.pop_idle)")

    def push(self, actor):
        """Put an actor in. Not there yet."""
        raise missing("actors (ray.util.ActorPool.push)")

    def submit(self, fn, value):
        """Start ``fn(actor, value)`` on an idle actor. Not there yet."""
        raise missing("actors (ray.util.ActorPool.submit)")
