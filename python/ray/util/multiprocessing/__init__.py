"""``multiprocessing.Pool`` on a cluster.

Programs change one import:

    from ray.util.multiprocessing import Pool
"""

from __future__ import annotations

from multiprocessing import JoinableQueue, TimeoutError

from ray.util.multiprocessing.pool import Pool

__all__ = ["JoinableQueue", "Pool", "TimeoutError"]
