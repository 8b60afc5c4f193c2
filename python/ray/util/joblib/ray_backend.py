"""The backend "ray" of joblib: its processes are a :class:`ray.util.multiprocessing.Pool`."""

from __future__ import annotations

from typing import Any, Dict, Optional

from joblib._parallel_backends import FallbackToBackend, MultiprocessingBackend, SequentialBackend

__all__ = ["RayBackend"]


class RayBackend(MultiprocessingBackend):
    """Runs joblib's batches in actors of a cluster."""

    supports_timeout = True
    default_n_jobs = -1

    def __init__(self, *args: Any, ray_remote_args: Optional[Dict[str, Any]] = None, **kwargs: Any):
        """Make the backend; joblib does.

        Args:
            args: joblib's.
            ray_remote_args: Options of the actors, as for ``.options()``.
            kwargs: joblib's.
        """
        super().__init__(*args, **kwargs)
        self.ray_remote_args = ray_remote_args

    def effective_n_jobs(self, n_jobs: Optional[int]) -> int:
        """How many processes are meant; negative numbers count down from the cluster's CPUs, -1 being all of them."""
        import ray

        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        if n_jobs > 0:
            return n_jobs
        if not ray.is_initialized():
            ray.init()
        return max(int(ray.cluster_resources().get("CPU", 1)) + 1 + n_jobs, 1)

    def configure(
        self, n_jobs: int = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **_: Any
    ) -> int:
        """Start the processes; joblib calls it when a ``Parallel`` begins."""
        from ray.util.multiprocessing import Pool

        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self._pool = Pool(n_jobs, ray_remote_args=self.ray_remote_args)
        self.parallel = parallel
        return n_jobs

    def retrieve_result_callback(self, result: Any) -> Any:
        """What a batch returned; raises what kept it from returning."""
        if isinstance(result, Exception):  # the process died, or something could not be serialised
            raise getattr(result, "underlying", result)
        return super().retrieve_result_callback(result)
