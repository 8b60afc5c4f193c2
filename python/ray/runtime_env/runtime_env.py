"""Where Ray keeps the classes of ``ray.runtime_env``."""

from ray.runtime_env import RuntimeEnv, RuntimeEnvConfig

__all__ = ["RuntimeEnv", "RuntimeEnvConfig"]
