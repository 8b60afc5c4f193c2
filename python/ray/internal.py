"""Internals that Ray shows: freeing objects by hand, which is not there yet."""

from ray._missing import missing

__all__ = ["free"]


def free(object_refs, local_only: bool = False):
    """Free objects by hand. Not there yet; objects are freed when their refs are gone."""
    raise missing("ray.internal.free()")
