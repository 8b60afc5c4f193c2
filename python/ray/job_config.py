"""``JobConfig``: settings of a whole job, for ``ray.init(job_config=…)``."""

from typing import Any, Dict, List, Optional

from ray._missing import missing

__all__ = ["JobConfig"]

_LIFETIMES = ("detached", "non_detached")


class JobConfig:
    """Settings of a job.

    Args:
        jvm_options: Not there: Java is not supported.
        code_search_path: Not there: Java and C++ are not supported.
        runtime_env: The job's runtime environment.
        metadata: Texts that are kept with the job.
        ray_namespace: Scope of actors' names.
        default_actor_lifetime: "non_detached", or "detached": they outlive the job.
    """

    def __init__(
        self,
        jvm_options: Optional[List[str]] = None,
        code_search_path: Optional[List[str]] = None,
        runtime_env: Optional[dict] = None,
        _client_job: bool = False,
        metadata: Optional[dict] = None,
        ray_namespace: Optional[str] = None,
        default_actor_lifetime: str = "non_detached",
        _py_driver_sys_path: Optional[List[str]] = None,
    ):
        if code_search_path is not None and not isinstance(code_search_path, (list, tuple)):
            raise TypeError(f"The type of code search path is incorrect: {type(code_search_path)}")
        if jvm_options or code_search_path:
            raise missing("Java and C++ (jvm_options, code_search_path)")
        self.jvm_options: List[str] = []
        self.code_search_path: List[str] = []
        self._client_job = _client_job
        self._py_driver_sys_path = list(_py_driver_sys_path or [])
        self.metadata: Dict[str, str] = dict(metadata or {})
        self.ray_namespace = ray_namespace
        self.runtime_env: Dict[str, Any] = {}
        self.py_logging_config = None
        self.set_runtime_env(runtime_env)
        self.set_default_actor_lifetime(default_actor_lifetime)

    def set_metadata(self, key: str, value: str) -> None:
        """Keep a text with the job."""
        self.metadata[key] = value

    def set_ray_namespace(self, ray_namespace: str) -> None:
        """Set the scope of actors' names."""
        self.ray_namespace = ray_namespace

    def set_runtime_env(self, runtime_env: Optional[dict], validate: bool = False) -> None:
        """Set the runtime environment.

        Args:
            runtime_env: A dict or ``RuntimeEnv``; None for an empty one.
            validate: Whether to check it now rather than at ``ray.init``.
        """
        if validate:
            from ray.runtime_env import RuntimeEnv

            runtime_env = RuntimeEnv(**(runtime_env or {})).to_dict()
        self.runtime_env = dict(runtime_env or {})

    def set_py_logging_config(self, logging_config=None) -> None:
        """Set how the job's processes log."""
        self.py_logging_config = logging_config

    def ensure_logging_config(self, logging_config=None) -> None:
        """Set how the job's processes log, unless that is set already."""
        if self.py_logging_config is None:
            self.py_logging_config = logging_config

    def set_default_actor_lifetime(self, default_actor_lifetime: str) -> None:
        """Set how long actors live that don't say so.

        Raises:
            ValueError: Neither "detached" nor "non_detached".
        """
        if default_actor_lifetime not in _LIFETIMES:
            raise ValueError("Default actor lifetime must be one of `detached`, `non_detached`")
        self._default_actor_lifetime = default_actor_lifetime

    @classmethod
    def from_json(cls, job_config_json: Dict[str, Any]) -> "JobConfig":
        """Make it from a dict with Ray's names of the settings."""
        return cls(
            jvm_options=job_config_json.get("jvm_options"),
            code_search_path=job_config_json.get("code_search_path"),
            runtime_env=job_config_json.get("runtime_env"),
            metadata=job_config_json.get("metadata"),
            ray_namespace=job_config_json.get("ray_namespace"),
            _client_job=job_config_json.get("client_job", False),
            _py_driver_sys_path=job_config_json.get("py_driver_sys_path"),
        )
