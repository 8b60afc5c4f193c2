"""``ActorPool``: the name. Actors are not there yet."""

from ray._missing import missing

__all__ = ["ActorPool"]


class ActorPool:
    """Hands work to a set of actors. Not there yet."""

    def __init__(self, actors):
        raise missing("actors (ray.util.ActorPool)")
