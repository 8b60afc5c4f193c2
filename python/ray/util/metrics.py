"""Metrics of a program: the names. They are not there yet."""

from ray._missing import missing

__all__ = ["Counter", "Gauge", "Histogram"]


class Counter:
    """A count that only grows. Not there yet."""

    def __init__(self, name: str, description: str = "", tag_keys=None):
        raise missing("metrics (ray.util.metrics.Counter)")

    def inc(self, value=1.0, tags=None):
        """Add to the count. Not there yet."""
        raise missing("metrics (ray.util.metrics.Counter.inc)")

    def set_default_tags(self, default_tags):
        """Give all values tags that are not said each time. Not there yet."""
        raise missing("metrics (ray.util.metrics.Counter.set_default_tags)")

    @property
    def info(self):
        """Name, description, tag keys and default tags. Not there yet."""
        raise missing("metrics (ray.util.metrics.Counter.info)")


class Gauge:
    """A value that goes up and down. Not there yet."""

    def __init__(self, name: str, description: str = "", tag_keys=None):
        raise missing("metrics (ray.util.metrics.Gauge)")

    def set(self, value, tags=None):
        """Set the value. Not there yet."""
        raise missing("metrics (ray.util.metrics.Gauge.set)")

    def set_default_tags(self, default_tags):
        """Give all values tags that are not said each time. Not there yet."""
        raise missing("metrics (ray.util.metrics.Gauge.set_default_tags)")

    @property
    def info(self):
        """Name, description, tag keys and default tags. Not there yet."""
        raise missing("metrics (ray.util.metrics.Gauge.info)")


class Histogram:
    """How often values fell into ranges. Not there yet."""

    def __init__(self, name: str, description: str = "", boundaries=None, tag_keys=None):
        raise missing("metrics (ray.util.metrics.Histogram)")

    def observe(self, value, tags=None):
        """Count one value. Not there yet."""
        raise missing("metrics (ray.util.metrics.Histogram.observe)")

    def set_default_tags(self, default_tags):
        """Give all values tags that are not said each time. Not there yet."""
        raise missing("metrics (ray.util.metrics.Histogram.set_default_tags)")

    @property
    def info(self):
        """Name, description, tag keys and default tags. Not there yet."""
        raise missing("metrics (ray.util.metrics.Histogram.info)")
