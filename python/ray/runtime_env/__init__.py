"""Runtime environments: what a job's or a task's workers find around them.

``working_dir`` and ``py_modules`` come to every node as packages (see :mod:`ray.runtime_env._packages`), ``env_vars`` are
set, the modules of ``preload`` are loaded and the ``worker_process_setup_hook`` is run. The other fields that Ray has are
checked, kept, and refused with their names where they would have to act.
"""

import json
import os
from typing import Any, Dict, List, Optional, Union

from ray._missing import missing

__all__ = ["RuntimeEnv", "RuntimeEnvConfig"]

_PACKAGERS = ("pip", "uv", "conda")
_WITH_IMAGE = frozenset(("image_uri", "config", "env_vars"))
_HONOURED = frozenset(
    "env_vars preload config working_dir py_modules excludes worker_process_setup_hook _inject_current_ray _ray_release "
    "_ray_commit".split()
)
_SCHEMES = frozenset("gcs conda pip uv https s3 gs azure abfss file".split())
_REMOTE = ("https://", "s3://", "gs://", "azure://", "abfss://", "file://")
_ENDINGS = {
    "working_dir": (".zip", ".tar.gz", ".tgz", ".tar.xz"),
    "py_modules": (".zip", ".whl", ".tar.gz", ".tgz", ".tar.xz"),
}
_EXTENSIONS = frozenset(("_inject_current_ray", "_ray_commit", "_ray_release"))


class RuntimeEnvConfig(dict):
    """How an environment is set up.

    Args:
        setup_timeout_seconds: Seconds that the set-up may take; -1: as long as it likes.
        eager_install: Whether to set it up when the job starts, rather than for its first task.
        log_files: Files of the set-up's log.

    Raises:
        TypeError: A field of the wrong type.
        ValueError: ``setup_timeout_seconds`` is neither positive nor -1.
    """

    known_fields = frozenset(("setup_timeout_seconds", "eager_install", "log_files"))

    def __init__(
        self, setup_timeout_seconds: int = 600, eager_install: bool = True, log_files: Optional[List[str]] = None
    ):
        super().__init__()
        if not isinstance(setup_timeout_seconds, int):
            raise TypeError(f"setup_timeout_seconds must be of type int, got: {type(setup_timeout_seconds)}")
        if setup_timeout_seconds <= 0 and setup_timeout_seconds != -1:
            raise ValueError(
                f"setup_timeout_seconds must be greater than zero or equals to -1, got: {setup_timeout_seconds}"
            )
        if not isinstance(eager_install, bool):
            raise TypeError(f"eager_install must be a boolean. got {type(eager_install)}")
        if log_files is not None and not (isinstance(log_files, list) and all(isinstance(f, str) for f in log_files)):
            raise TypeError(
                f"log_files must be a list of strings or None, got {log_files} with type {type(log_files)}."
            )
        self["setup_timeout_seconds"] = setup_timeout_seconds
        self["eager_install"] = eager_install
        self["log_files"] = log_files or []

    @staticmethod
    def parse_and_validate_runtime_env_config(config: Union[Dict, "RuntimeEnvConfig"]) -> "RuntimeEnvConfig":
        """Make it from a dict; names that there are not are dropped with a warning."""
        if isinstance(config, RuntimeEnvConfig):
            return config
        if not isinstance(config, dict):
            raise TypeError(f"runtime_env['config'] must be of type dict or RuntimeEnvConfig, got: {type(config)}")
        unknown = set(config) - RuntimeEnvConfig.known_fields
        if unknown:
            import logging

            logging.getLogger("ray").warning(
                "The following unknown entries in the runtime_env_config dictionary will be ignored: %s.",
                unknown,
            )
        return RuntimeEnvConfig(**{k: v for k, v in config.items() if k not in unknown})

    @staticmethod
    def default_config() -> Dict[str, Any]:
        """The settings of an environment that has none."""
        return RuntimeEnvConfig()

    def to_dict(self) -> Dict[str, Any]:
        """The settings as a plain dict."""
        return dict(self)


class RuntimeEnv(dict):
    """A runtime environment: a dict whose fields were checked.

    Beside Ray's fields it has ``preload``: names of modules that are loaded once on each node, in a process from which the
    workers are then forked. They must be installed on the nodes; what only the job's own folders hold is not found.

    Raises:
        TypeError: A field of the wrong type.
        ValueError: Fields that exclude each other, or a path that does not exist.
    """

    def __init__(
        self,
        *,
        py_modules: Optional[List[str]] = None,
        py_executable: Optional[str] = None,
        working_dir: Optional[str] = None,
        pip: Any = None,
        conda: Any = None,
        container: Optional[Dict[str, str]] = None,
        env_vars: Optional[Dict[str, str]] = None,
        worker_process_setup_hook: Any = None,
        nsight: Any = None,
        config: Any = None,
        _validate: bool = True,
        image_uri: Optional[str] = None,
        uv: Any = None,
        excludes: Optional[List[str]] = None,
        **kwargs,
    ):
        super().__init__()
        given = {
            "py_modules": py_modules,
            "py_executable": py_executable,
            "working_dir": working_dir,
            "pip": pip,
            "uv": uv,
            "conda": conda,
            "_nsight": nsight,
            "container": container,
            "env_vars": env_vars,
            "worker_process_setup_hook": worker_process_setup_hook,
            "config": config,
            "image_uri": image_uri,
            "excludes": excludes,
            **kwargs,
        }
        for name, value in given.items():
            if value is not None:
                value = _checked(name, value) if _validate else value
                if value != {} or name != "env_vars":
                    super().__setitem__(name, value)
        if not _validate:
            return
        if sum(self.get(name) is not None for name in _PACKAGERS) > 1:
            given_ones = "\n".join(f"specified {name} field: {given.get(name)}" for name in ("pip", "conda", "uv"))
            raise ValueError(
                "The 'pip' field, 'uv' field, and 'conda' field of runtime_env cannot be specified at the same time.\n"
                f"{given_ones}\nTo use pip with conda, please only set the 'conda' field, and put the pip dependencies into the "
                "conda environment's own description."
            )
        if self.get("image_uri") is not None:
            others = set(self) - _WITH_IMAGE
            if others:
                raise ValueError(
                    "The 'image_uri' field currently cannot be used together with other fields of runtime_env. "
                    f"Specified fields: {others}"
                )

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, _checked(name, value))

    def check_there(self) -> None:
        """Refuse what can't be set up yet, and tell of fields that mean nothing.

        Raises:
            NotImplementedError: Naming the field.
        """
        for name, value in self.items():
            if name in _HONOURED or value in (None, {}, []):
                continue
            if name in _KNOWN:
                raise missing(f"runtime environments with {name!r}")
            _warn_unknown(name)

    def to_dict(self) -> Dict[str, Any]:
        """The environment as a plain dict."""
        return {k: dict(v) if isinstance(v, dict) else v for k, v in self.items() if v not in ({}, [])}

    def serialize(self) -> str:
        """The environment as JSON, the same text for equal environments."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def deserialize(cls, serialized_runtime_env: str) -> "RuntimeEnv":
        """Make it from what :meth:`serialize` returned."""
        return cls(_validate=False, **json.loads(serialized_runtime_env))

    def set(self, name: str, value: Any) -> None:
        """Set a field.

        Raises:
            TypeError: A value of the wrong type.
        """
        self[name] = value

    def get(self, name, default=None, data_class=None):
        """A field; ``data_class`` makes an object of it."""
        value = super().get(name, default)
        return data_class(**value) if data_class is not None and isinstance(value, dict) else value

    def has_working_dir(self) -> bool:
        """Whether there is a working_dir."""
        return self.get("working_dir") is not None

    def working_dir(self) -> str:
        """The working_dir, or an empty text."""
        return self.get("working_dir", "")

    def working_dir_uri(self) -> Optional[str]:
        """The working_dir, or None."""
        return self.get("working_dir")

    def get_extension(self, key: str) -> Any:
        """A field that is for the cluster's own use.

        Raises:
            ValueError: There is no such field.
        """
        if key not in _EXTENSIONS:
            raise ValueError(f"Extension key must be one of {set(_EXTENSIONS)}, got: {key}")
        return self.get(key)

    def pip_uri(self) -> Optional[str]:
        """What names the pip field's environment, or None."""
        return _hashed_uri("pip", self.get("pip"))

    def uv_uri(self) -> Optional[str]:
        """What names the uv field's environment, or None."""
        return _hashed_uri("uv", self.get("uv"))

    def conda_uri(self) -> Optional[str]:
        """What names the conda field's environment, or None."""
        return _hashed_uri("conda", self.get("conda"))

    def plugin_uris(self) -> List[str]:
        """What names the environments of plugins: none, since there are no plugins."""
        return []

    def py_modules(self) -> List[str]:
        """The py_modules, or an empty list."""
        return list(self.get("py_modules", []))

    def py_modules_uris(self) -> List[str]:
        """The py_modules, or an empty list."""
        return self.py_modules()

    def py_executable(self) -> Optional[str]:
        """The command that starts workers, or None."""
        return self.get("py_executable")

    def env_vars(self) -> Dict[str, str]:
        """The environment variables."""
        return dict(self.get("env_vars", {}))

    def preload(self) -> List[str]:
        """The modules that workers are forked with."""
        return list(self.get("preload") or [])

    def has_pip(self) -> bool:
        """Whether there is a pip field."""
        return bool(self.get("pip"))

    def pip_config(self) -> Dict:
        """The pip field as a dict."""
        pip = self.get("pip", {})
        return {"packages": pip} if isinstance(pip, list) else dict(pip)

    def has_uv(self) -> bool:
        """Whether there is a uv field."""
        return bool(self.get("uv"))

    def uv_config(self) -> Dict:
        """The uv field as a dict."""
        uv = self.get("uv", {})
        return {"packages": uv} if isinstance(uv, list) else dict(uv)

    def has_conda(self) -> bool:
        """Whether there is a conda field."""
        return bool(self.get("conda"))

    def conda_env_name(self) -> Optional[str]:
        """The name of an existing conda environment, or None."""
        conda = self.get("conda")
        return conda if isinstance(conda, str) else None

    def conda_config(self) -> Optional[str]:
        """The description of a new conda environment as JSON, or None."""
        conda = self.get("conda")
        return json.dumps(conda, sort_keys=True) if isinstance(conda, dict) else None

    def image_uri(self) -> Optional[str]:
        """The container image, or None."""
        return self.get("image_uri")

    def has_py_container(self) -> bool:
        """Whether there is a container field."""
        return bool(self.get("container"))

    def py_container_image(self) -> Optional[str]:
        """The image of the container field, or None."""
        return (self.get("container") or {}).get("image")

    def py_container_worker_path(self) -> Optional[str]:
        """The worker_path of the container field, or None."""
        return (self.get("container") or {}).get("worker_path")

    def py_container_run_options(self) -> List[str]:
        """The run_options of the container field."""
        return list((self.get("container") or {}).get("run_options", []))

    def virtualenv_name(self) -> Optional[str]:
        """The name of an existing virtual environment, or None."""
        pip = self.get("pip")
        return pip if isinstance(pip, str) else None

    def rocprof_sys(self) -> Any:
        """The settings of the rocprof-sys profiler, or None."""
        return self.get("_rocprof_sys")

    def plugins(self) -> List:
        """The fields that plugins handle, as pairs of name and value."""
        return [(name, value) for name, value in self.items() if name not in _KNOWN]

    def java_jars(self) -> List[str]:
        """The Java archives."""
        return list(self.get("java_jars", []))

    def nsight(self) -> Any:
        """The settings of the Nsight profiler, or None."""
        return self.get("_nsight")


_KNOWN = frozenset(
    "py_modules py_executable java_jars working_dir conda pip uv container excludes env_vars _nsight _rocprof_sys config "
    "worker_process_setup_hook image_uri preload".split()
)


def _checked(name: str, value: Any) -> Any:
    check = _CHECKS.get(name)
    return check(value) if check is not None else value


def _texts(name: str, value: Any) -> List[str]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise TypeError(f"runtime_env['{name}'] must be of type List[str], got {type(value)}")
    return value


def _is_uri(text: str) -> bool:
    scheme, mark, _ = text.partition("://")
    return bool(mark) and scheme in _SCHEMES


def _check_place(field: str, value: str) -> None:
    """Check a path or URI of a package."""
    if "://" not in value:
        if value and not os.path.exists(os.path.expanduser(value)):
            raise ValueError(f"{value} is not a valid path.")
        return
    if not _is_uri(value):
        raise ValueError(_NO_URI.format(value))
    endings = _ENDINGS[field]
    if value.startswith(_REMOTE) and not value.endswith(endings):
        raise ValueError(f"Only {', '.join(endings)} files are supported for {field} URIs; got {value}.")


_NO_URI = (
    "{} is not a valid URI. Passing directories or modules to be dynamically uploaded is only supported at the job level "
    "(i.e., passed to `ray.init`)."
)


def _working_dir(value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"`working_dir` must be a string, got {type(value)}.")
    value = os.fspath(value)
    _check_place("working_dir", value)
    return value


def _py_modules(value: Any) -> list:
    if not isinstance(value, list):
        raise TypeError(f"`py_modules` must be a list of strings, got {type(value)}.")
    for module in value:
        if not isinstance(module, str):
            raise TypeError(f"`py_module` must be a string, got {type(module)}.")
        _check_place("py_modules", module)
    return value


def _hashed_uri(kind: str, config: Any) -> Optional[str]:
    if not config:
        return None
    if kind == "conda" and isinstance(config, str):
        return f"conda://{config}"
    import hashlib

    return f"{kind}://{hashlib.sha1(json.dumps(config, sort_keys=True).encode()).hexdigest()}"


_told: set = set()


def _warn_unknown(name: str) -> None:
    if name not in _told and len(_told) < 100:
        _told.add(name)
        import logging

        logging.getLogger("ray").warning("The field %r of the runtime_env has no meaning here and is ignored.", name)


def _env_vars(value: Any) -> Dict[str, str]:
    if not value:
        return {}
    if not isinstance(value, dict):
        raise TypeError(f"runtime_env['env_vars'] must be of type Dict[str, str], got {type(value)}")
    for key, text in value.items():
        if not isinstance(key, str):
            raise TypeError(
                f"runtime_env['env_vars'] must be of type Dict[str, str], but the key {key} is of type {type(key)}"
            )
        if not isinstance(text, str):
            raise TypeError(
                f"runtime_env['env_vars'] must be of type Dict[str, str], but the value {text} is of type {type(text)}"
            )
        if not key or "=" in key or "\0" in key + text:
            raise ValueError(
                f"runtime_env['env_vars'] has {key!r}: {text!r}, which can't be an environment variable: a name is not empty and "
                "has no '=', and neither name nor value has a zero character"
            )
    return dict(value)


def _preload(value: Any) -> List[str]:
    for module in _texts("preload", value):
        if not all(part.isidentifier() for part in module.split(".")):
            raise ValueError(f"runtime_env['preload'] must name modules, but {module!r} is no module's name")
    return list(value)


def _requirements(name: str):
    def check(value: Any) -> Dict:
        if isinstance(value, str):
            if not os.path.isfile(os.path.expanduser(value)):
                raise ValueError(f"{value} is not a valid file")
            with open(os.path.expanduser(value), encoding="utf-8") as f:
                value = [line for line in map(str.strip, f) if line and not line.startswith("#")]
        if isinstance(value, list):
            return {"packages": _texts(name, value)}
        if not isinstance(value, dict):
            raise TypeError(f"runtime_env['{name}'] must be of type str or List[str], got {type(value)}")
        if "packages" not in value:
            raise ValueError(f"runtime_env['{name}'] must include the field 'packages', but got {sorted(value)}")
        return dict(value)

    return check


def _conda(value: Any) -> Any:
    if not isinstance(value, (str, dict, os.PathLike)):
        raise TypeError(f"runtime_env['conda'] must be of type dict or str, got {type(value)}")
    return value


_CHECKS = {
    "working_dir": _working_dir,
    "py_modules": _py_modules,
    "excludes": lambda value: _texts("excludes", value),
    "env_vars": _env_vars,
    "preload": _preload,
    "pip": _requirements("pip"),
    "uv": _requirements("uv"),
    "conda": _conda,
    "config": RuntimeEnvConfig.parse_and_validate_runtime_env_config,
}


def check_task_env(value: Dict[str, Any]) -> None:
    """Check the runtime environment of a task or actor.

    Raises:
        ValueError: A local path, which only a whole job can bring.
        TypeError: A field of the wrong type.
        NotImplementedError: A field that can't be set up yet.
    """
    env = RuntimeEnv(**value)
    for path in [env.working_dir(), *env.py_modules()]:
        if path and not _is_uri(path):
            raise ValueError(_NO_URI.format(path))
    check_size(env)
    env.check_there()


# A worker is told its job's environment, its own and the job's set-up hook in one packet of 128 KiB.
_MAX_JSON = 24 << 10


def check_size(env: RuntimeEnv) -> None:
    """Check that nodes can be told an environment.

    Raises:
        TypeError: A value has no JSON form.
        ValueError: It is too large.
    """
    size = len(env.serialize())
    if size > _MAX_JSON:
        raise ValueError(
            f"The runtime_env has {size} bytes as JSON; at most {_MAX_JSON} are possible. Put long values of env_vars into "
            "a file of the working_dir."
        )


def merge(parent: Optional[Dict], child: Optional[Dict], strict: bool = False) -> Dict[str, Any]:
    """Put one environment over another: the child's fields replace the parent's, but ``env_vars`` are joined.

    Args:
        parent: The outer environment.
        child: The inner one.
        strict: Whether a field, or a variable, that both have with different values is an error.

    Raises:
        ValueError: There is one, and ``strict``.
    """
    parent, child = dict(parent or {}), dict(child or {})
    variables = {**(parent.get("env_vars") or {}), **(child.get("env_vars") or {})}
    if strict:
        clashes = [k for k in parent if k != "env_vars" and k in child and child[k] != parent[k]]
        mine = child.get("env_vars") or {}
        clashes += [f"env_vars[{k!r}]" for k, v in (parent.get("env_vars") or {}).items() if k in mine and mine[k] != v]
        if clashes:
            raise ValueError(
                f"Failed to merge the Job's runtime env {parent} with a ray.init's runtime env {child} because of a conflict "
                f"in {', '.join(clashes)}. Drop it from one of them, or set RAY_OVERRIDE_JOB_RUNTIME_ENV=1 so that ray.init's wins."
            )
    merged = {**parent, **child}
    if variables:
        merged["env_vars"] = variables
    return merged


def resolved(parent: Optional[Dict], child: Optional[Dict]) -> Optional[Dict[str, Any]]:
    """The environment that a task or actor works in, as nodes are told it.

    Args:
        parent: The environment that its caller works in.
        child: What its options say.

    Returns:
        A dict of plain values, equal environments in the same order; None for an empty one.
    """
    if child:
        child = {name: value for name, value in RuntimeEnv(**child).items() if name != "excludes"}
        parent = merge(parent, child)
    env = {
        name: dict(sorted(value.items())) if isinstance(value, dict) else value
        for name, value in sorted((parent or {}).items())
        if value not in (None, {}, [], "")
    }
    return env or None
