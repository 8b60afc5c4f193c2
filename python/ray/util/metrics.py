"""Metrics of a program: the names. They are not there yet."""

from ray._missing import missing

__all__ = ["Counter", "Gauge", "Histogram"]


class Counter:
    """A count that only grows. Not there yet."""

    def __init__(self, name: str, description: str = "", tag_keys=None):
        raise missing("metrics (ray.util.metrics.Counter)")


class Gauge:
    """A value that goes up and down. Not there yet."""

    def __init__(self, name: str, description: str = "", tag_keys=None):
        raise missing("metrics (ray.util.metrics.Gauge)")


class Histogram:
    """How often values fell into ranges. Not there yet."""

    def __init__(self, name: str, description: str = "", boundaries=None, tag_keys=None):
        raise missing("metrics (ray.util.metrics.Histogram)")
