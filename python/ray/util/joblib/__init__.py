"""joblib on a cluster.

from ray.util.joblib import register_ray

register_ray()
with joblib.parallel_backend("ray"):
    ...
"""

from __future__ import annotations

__all__ = ["register_ray"]


def register_ray() -> None:
    """Make "ray" a backend of joblib.

    Raises:
        ImportError: joblib is not installed.
    """
    try:
        from joblib import register_parallel_backend
    except ImportError as e:
        raise ImportError("register_ray() needs joblib; install it with `pip install joblib`.") from e
    from ray.util.joblib.ray_backend import RayBackend

    register_parallel_backend("ray", RayBackend)
