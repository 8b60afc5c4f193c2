"""``ray.init`` and ``ray.shutdown``: this process's way into a cluster, and out of it."""

import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any, Dict, Iterator, Optional

from ray import _address, _core, _daemon
from ray._missing import missing
from ray._version import version

logger = logging.getLogger("ray")
if not logger.level:
    logger.setLevel(logging.INFO)
if not logging.getLogger("ray.rllib").level:
    logging.getLogger("ray.rllib").setLevel(logging.WARNING)  # it says more than others

_lock = threading.RLock()
_private: Optional[_daemon.Daemon] = None  # the cluster that this process started; guarded by _lock
_context: Optional["RayContext"] = None  # guarded by _lock
_suspended: Optional[tuple] = None  # the local connection that a ray:// connection covers; guarded by _lock
_registered = False  # the atexit hook; guarded by _lock

_MIN_STORE = 75 * 1024 * 1024
_MAX_FILES = 65536

_HIDDEN = frozenset(
    "_system_config _temp_dir _node_name _node_ip_address _metrics_export_port _memory _redis_username _redis_password "
    "_plasma_directory object_spilling_directory _enable_object_reconstruction _tracing_startup_hook _skip_env_hook "
    "_driver_object_store_memory".split()
)
_CLIENT_ONLY = frozenset("allow_multiple _credentials _metadata".split())


class RayContext(Mapping):
    """What ``ray.init`` returns: facts on the connection, and a context manager that ends it.

    Attributes:
        dashboard_url: ``host:port`` of the dashboard; empty without one.
        python_version: Version of this interpreter.
        ray_version: Version of this package.
        ray_commit: Commit that it was built from.
        address_info: Addresses and paths of the cluster and of this process's node.
    """

    def __init__(self, address_info: Dict[str, Any]):
        from ray._commit import commit

        self.dashboard_url = address_info.get("webui_url") or ""
        self.python_version = ".".join(map(str, sys.version_info[:3]))
        self.ray_version = version
        self.ray_commit = commit
        self.address_info = address_info

    def __getitem__(self, key: str) -> Any:
        if key in self.address_info:
            import warnings

            warnings.warn(
                f'Accessing values through ctx["{key}"] is deprecated. Use ctx.address_info["{key}"] instead.',
                DeprecationWarning,
                stacklevel=2,
            )
        return self.address_info[key]

    def __len__(self) -> int:
        import warnings

        warnings.warn("len(ctx) is deprecated. Use len(ctx.address_info) instead.", stacklevel=2)
        return len(self.address_info)

    def __bool__(self) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, RayContext) and self.address_info == other.address_info

    def __iter__(self) -> Iterator[str]:
        return iter(self.address_info)

    def __repr__(self) -> str:
        return (
            f"RayContext(dashboard_url={self.dashboard_url!r}, python_version={self.python_version!r}, "
            f"ray_version={self.ray_version!r}, ray_commit={self.ray_commit!r})"
        )

    def _repr_html_(self) -> str:
        rows = {"Python version": self.python_version, "Ray version": self.ray_version, "Dashboard": self.dashboard_url}
        return (
            "<table>" + "".join(f"<tr><td><b>{k}:</b></td><td>{v}</td></tr>" for k, v in rows.items() if v) + "</table>"
        )

    def __enter__(self) -> "RayContext":
        return self

    def __exit__(self, *exc: Any) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        """End the connection, as ``ray.shutdown`` does."""
        shutdown()


def init(
    address: Optional[str] = None,
    *,
    num_cpus: Optional[int] = None,
    num_gpus: Optional[int] = None,
    resources: Optional[Dict[str, float]] = None,
    labels: Optional[Dict[str, str]] = None,
    object_store_memory: Optional[int] = None,
    local_mode: bool = False,
    ignore_reinit_error: bool = False,
    include_dashboard: Optional[bool] = None,
    dashboard_host: str = "127.0.0.1",
    dashboard_port: Optional[int] = None,
    job_config=None,
    configure_logging: bool = True,
    logging_level="info",
    logging_format: Optional[str] = None,
    logging_config=None,
    log_to_driver: Optional[bool] = None,
    namespace: Optional[str] = None,
    runtime_env=None,
    enable_resource_isolation: bool = False,
    cgroup_path: Optional[str] = None,
    system_reserved_cpu: Optional[float] = None,
    system_reserved_memory: Optional[int] = None,
    proxy_server_url: Optional[str] = None,
    **kwargs,
) -> RayContext:
    """Connect this process to a cluster, or start one for it.

    Args:
        address: ``host:port`` of a cluster's head; "auto": the cluster of RAY_ADDRESS, else the one that `ray start` last
            started on this machine, else, in a pod, that of the Service ``ray-head``; "local": always a new one; None: as
            "auto", and a new one where there is none.
        num_cpus: CPUs of a new cluster; None: those that this machine or container has.
        num_gpus: GPUs of a new cluster; None: those that this machine has.
        resources: Custom resources of a new cluster, name to quantity.
        labels: Labels of a new cluster's node.
        object_store_memory: Bytes of shared memory of a new cluster, at least 75 MB; None: 30 % of memory.
        local_mode: Gone.
        ignore_reinit_error: Whether a second call returns the connection that there is instead of raising.
        include_dashboard: Whether a new cluster serves the dashboard; not there yet.
        dashboard_host: Where the dashboard listens.
        dashboard_port: Where the dashboard listens.
        job_config: A ``ray.job_config.JobConfig``.
        configure_logging: Whether to set up the logger "ray".
        logging_level: Its level, a name or a number.
        logging_format: Its format.
        logging_config: A ``ray.LoggingConfig`` for this process and the job's workers.
        log_to_driver: Whether what workers print shows here.
        namespace: Scope of actors' names; None: one of this job alone.
        runtime_env: The job's runtime environment.
        enable_resource_isolation: Not there yet.
        cgroup_path: Not there yet.
        system_reserved_cpu: Not there yet.
        system_reserved_memory: Not there yet.
        proxy_server_url: Not there yet.
        kwargs: ``_temp_dir``, ``_node_name``, ``_node_ip_address``, ``_memory`` (bytes), and others that are not there yet.

    Returns:
        A :class:`RayContext`.

    Raises:
        RuntimeError: Already connected; an unknown keyword; versions that don't match; a cluster that can't start.
        ConnectionError: No cluster at the address.
        ValueError: An argument is out of bounds, or makes no sense with an existing cluster.
        AuthenticationError: The cluster does not accept this process's token.
        NotImplementedError: An argument whose feature is not there yet.
    """
    given = dict(locals())
    del given["kwargs"], given["address"]
    given.update(kwargs)
    unknown = [k for k in kwargs if k not in _HIDDEN and k not in _CLIENT_ONLY]
    if unknown:
        raise RuntimeError(f"Unknown keyword argument(s): {', '.join(unknown)}")
    with _lock:
        return _init(address, given)


def auto_init() -> None:
    """Connect as ``ray.init()`` does, unless another thread just did."""
    with _lock:
        if _core.state.client is None:
            init()


def _init(address: Optional[str], given: Dict[str, Any]) -> RayContext:
    global _context, _private
    if given["configure_logging"]:
        from ray._logging import setup_logger

        setup_logger(given["logging_level"], given["logging_format"])
    _check(given)
    if given.get("allow_multiple") and (address or "").startswith("ray://"):
        return _one_more(address, given)
    covers = _core.state.mode == 0 and _suspended is None and not _core.far() and (address or "").startswith("ray://")
    if _core.state.client is not None and not covers:
        over = _core.state.client.box.broken
        only = (
            f" Here only ray.shutdown() helps, for what this program was connected to is gone: {over}" if over else ""
        )
        if given["ignore_reinit_error"]:
            logger.log(
                logging.WARNING if over else logging.INFO,
                "Calling ray.init() again after it has already been called.%s",
                only,
            )
            return _context or RayContext(_address_info({}))
        raise RuntimeError(
            "Maybe you called ray.init twice by accident? This error can be suppressed by passing in "
            f"'ignore_reinit_error=True' or by calling 'ray.shutdown()' prior to 'ray.init()'.{only}"
        )
    root = _address.root_dir(given.get("_temp_dir"))
    address, origin = _resolve(address, root)
    far = None
    if address is not None and "://" in address:
        far = client_address(address)
    if covers and _core.state.client is not None:
        return _cover(far, given)
    job, packages = _job(given)
    if origin is not None:
        logger.info("Using address %s %s", address, origin)
    if far is not None:
        from ray._core import relay

        _check_existing(given)
        daemon = relay.start(far)
        node = {}
    elif address is None:
        _raise_file_limit()
        daemon = _daemon.start(_config(given))
        node = daemon.info
    else:
        _check_existing(given)
        _address.split(address)
        logger.info("Connecting to existing Ray cluster at address: %s...", address)
        node_ip = given.get("_node_ip_address")
        _raise_file_limit()
        daemon, node = _enter(root, address, node_ip and _address.ip_of(node_ip))
    try:
        if far is not None:
            _core.connect(daemon, daemon.token, job, ray_version=_said_version())
        else:
            _core.connect(node["socket"], _address.token(node), job, ray_version=_said_version())
        if packages:
            _upload(packages, far is None)
    except BaseException:
        _core.disconnect()
        if daemon is not None:
            daemon.stop()
        raise
    _private = daemon
    if daemon is not None:
        for warning in node.get("warnings") or ():
            logger.warning(warning)
    if far is None:
        _context = RayContext(_address_info(node))
    else:
        from ray.client_builder import ClientContext

        _context = ClientContext._connected(_core.state)
    if job["logging"]["to_driver"]:
        from ray._core import driver_logs

        _core.state.client.logs = driver_logs.DriverLogs(_core.state.client)
    _settle(given["logging_config"] or getattr(given["job_config"], "py_logging_config", None))
    started = "Started a local Ray instance." if address is None else "Connected to Ray cluster."
    if _context.dashboard_url:
        started += f" View the dashboard at \x1b[1m\x1b[32mhttp://{_context.dashboard_url} \x1b[39m\x1b[22m"
    logger.info(started)
    return _context


def _cover(far: str, given: Dict[str, Any]):
    """Connect to a cluster far away beside the local connection, which is used again after the next shutdown, as in Ray."""
    global _suspended, _private, _context
    before = (_core.suspend(), _private, _context)
    _private = _context = None
    _suspended = before
    try:
        return _init(f"ray://{far}", given)
    except BaseException:
        _uncover()
        raise


_more: Dict[Any, Any] = {}  # the processes of further ray:// connections by their contexts; guarded by _lock


def _one_more(address: str, given: Dict[str, Any]):
    """Connect once more, by ray://, for those who enter the context that is returned."""
    global _private, _context
    from ray._core import contexts

    before = (_private, _context)
    contexts.enable()
    fields = contexts.fields()
    try:
        with contexts.within(fields):
            context = _init(address, {**given, "allow_multiple": False})
            contexts.connected()
        context._fields = fields
        _more[context] = _private
        return context
    finally:
        _private, _context = before


def end_one(context) -> None:
    """End a connection that was made with allow_multiple; a second time nothing happens."""
    from ray._core import contexts

    with _lock:
        process = _more.pop(context, None)
        if process is None:
            return
        try:
            with contexts.within(context._fields):
                client = _core.state.client
                _core.disconnect()
                contexts.ended(client)
        finally:
            process.stop()


def _uncover() -> None:
    global _suspended, _private, _context
    if _suspended is not None:
        kept, _private, _context = _suspended
        _suspended = None
        _core.resume(kept)


def client_address(address: str) -> str:
    """The ``host:port`` of a ``ray://`` address.

    Raises:
        RuntimeError: It is of another scheme.
    """
    scheme, _, rest = address.partition("://")
    if scheme != "ray":
        raise RuntimeError(f"Module: {scheme} does not exist.\nThis module was parsed from Address: {address}")
    return rest


def _upload(packages, here: bool) -> None:
    if not here:
        for package in packages:
            package.upload(_core.call, None)
        return
    folder = os.path.join(_core.state.session_dir, "runtime_resources")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for package in packages:
        package.upload(_core.call, folder)


def _said_version() -> str:
    import ray

    return ray.__version__


def _resolve(address: Optional[str], root: str):
    """The cluster's address or None for a new one, and where the address was found if the caller did not give it."""
    if address is None or address == "auto":
        from_env = os.environ.get("RAY_ADDRESS")
        if from_env and from_env != "auto":
            if from_env != "local":
                return from_env, "set in the environment variable RAY_ADDRESS"
            if address is None:
                return None, None
        elif from_env:
            address = "auto"
    if address == "local":
        return None, None
    if address is not None and address != "auto":
        return address, None
    current = _address.current_cluster(root)
    if current is not None:
        return current, None
    service = _address.service_address()
    if service is not None:
        return service, "of the Service ray-head"
    if address == "auto":
        raise ConnectionError(_address.NO_CLUSTER)
    return None, None


def _enter(root: str, address: str, node_ip: Optional[str]):
    """This machine's node of a cluster, and the daemon to stop at the end if it was started for this process.

    In a pod that has no node, such as a notebook's, one without CPUs joins: all pods reach each other, and a pod's
    ServiceAccount lets it in. Elsewhere neither is sure, so there the user has to start one.
    """
    if not _address.in_pod():
        return None, _address.find_node(root, address, node_ip)
    node = _address.look_for_node(root, address, node_ip, patience_s=0)
    if node is not None:
        return None, node
    _address.check_answers(address)
    pid = os.getpid()
    config = {
        "guest": True,
        "address": address,
        "num_cpus": 0,
        "num_gpus": 0,
        "temp_dir": root,
        "node_ip": node_ip,
        "driver_pid": pid,
        "driver_start_time": _address.start_time(pid),
    }
    daemon = _daemon.start({k: v for k, v in config.items() if v is not None})
    return daemon, daemon.info


def _check(given: Dict[str, Any]) -> None:
    if given["local_mode"]:
        raise RuntimeError(
            "`local_mode` is no longer supported. For interactive debugging, use the debugger in the driver."
        )
    system_config = given.get("_system_config")
    if system_config is not None and not isinstance(system_config, dict):
        raise TypeError("The _system_config must be a dict.")
    if given["namespace"] is not None:
        check_namespace(given["namespace"])
    there_later = {
        "the dashboard (include_dashboard)": given["include_dashboard"],
        "the dashboard (dashboard_port)": given["dashboard_port"] if given["include_dashboard"] is not False else None,
        "the dashboard (dashboard_host)": given["dashboard_host"] != "127.0.0.1"
        and given["include_dashboard"] is not False,
        "resource isolation (enable_resource_isolation)": given["enable_resource_isolation"],
        "resource isolation (cgroup_path)": given["cgroup_path"],
        "resource isolation (system_reserved_cpu)": given["system_reserved_cpu"],
        "resource isolation (system_reserved_memory)": given["system_reserved_memory"],
        "the dashboard (proxy_server_url)": given["proxy_server_url"],
        f"internal settings (_system_config={system_config})": system_config,
        "metrics (_metrics_export_port)": given.get("_metrics_export_port"),
        "the option _plasma_directory": given.get("_plasma_directory"),
        "spilling (object_spilling_directory)": given.get("object_spilling_directory"),
        "object reconstruction (_enable_object_reconstruction)": given.get("_enable_object_reconstruction"),
        "tracing (_tracing_startup_hook)": given.get("_tracing_startup_hook"),
    }
    # For an existing cluster the sentence that says so comes first, as in Ray.
    given["_there_later"] = [name for name, value in there_later.items() if value]
    if given.get("labels") is not None:
        from ray._labels import check_labels

        check_labels(given["labels"], reserved=True)


def check_namespace(namespace: Any) -> None:
    """Check a namespace.

    Raises:
        TypeError: It is no text.
        ValueError: It is empty.
    """
    if not isinstance(namespace, str):
        raise TypeError(f"namespace must be None or a string, got {type(namespace)}.")
    if namespace == "":
        raise ValueError('"" is not a valid namespace. Pass None to not specify a namespace.')


def _check_existing(given: Dict[str, Any]) -> None:
    if given["num_cpus"] is not None or given["num_gpus"] is not None:
        raise ValueError("When connecting to an existing cluster, num_cpus and num_gpus must not be provided.")
    names = (
        "resources",
        "labels",
        "object_store_memory",
        "_system_config",
        "_enable_object_reconstruction",
        "_node_name",
    )
    for name in (*names, "_memory"):
        if given.get(name):
            raise ValueError(f"When connecting to an existing cluster, {name} must not be provided.")
    _check_there(given)


def _check_there(given: Dict[str, Any]) -> None:
    if given["_there_later"]:
        raise missing(given["_there_later"][0])


def check_node_resources(
    num_cpus: Optional[float],
    num_gpus: Optional[float],
    resources: Optional[Dict[str, float]],
    object_store_memory: Optional[int],
) -> None:
    """Check what a node shall have.

    Raises:
        AssertionError: A custom resource is called as one that every node has.
        TypeError: A quantity is no number.
        ValueError: A quantity is negative, or not whole, or the object store is too small.
    """
    if resources is not None and not isinstance(resources, dict):
        raise TypeError(f"resources must be a dict of names and quantities, got {type(resources)}.")
    for name, flag in {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "_memory", "object_store_memory": ""}.items():
        if name in (resources or {}):
            raise AssertionError(
                f"`{name}` cannot be a custom resource because it is one of the default resources "
                f"(CPU, GPU, memory, object_store_memory). Use `{flag or name}` instead."
            )
    for name, quantity in {"CPU": num_cpus, "GPU": num_gpus, **(resources or {})}.items():
        if quantity is None:
            continue
        if isinstance(quantity, bool) or not isinstance(quantity, (int, float)):
            raise TypeError(f"The quantity of resource '{name}' must be a number, got {quantity!r}.")
        if quantity < 0:
            raise ValueError(f"Resource quantities must be nonnegative. Violated by resource '{name}': {quantity}.")
        if quantity != int(quantity):
            raise ValueError(
                f"Resource quantities must all be whole numbers. Violated by resource '{name}': {quantity}."
            )
    if object_store_memory is not None and object_store_memory < _MIN_STORE:
        raise ValueError(
            f"Attempting to cap object store memory usage at {object_store_memory} bytes, but the minimum allowed is "
            f"{_MIN_STORE} bytes."
        )


def _config(given: Dict[str, Any]) -> Dict[str, Any]:
    _check_there(given)
    check_node_resources(given["num_cpus"], given["num_gpus"], given["resources"], given["object_store_memory"])
    pid = os.getpid()
    config = {
        "head": True,
        "private": True,
        "temp_dir": given.get("_temp_dir"),
        "num_cpus": given["num_cpus"],
        "num_gpus": given["num_gpus"],
        "resources": given["resources"],
        "labels": given["labels"],
        "memory": given.get("_memory"),
        "object_store_memory": given["object_store_memory"],
        "node_ip": given.get("_node_ip_address") and _address.ip_of(given["_node_ip_address"]),
        "node_name": given.get("_node_name"),
        "driver_pid": pid,
        "driver_start_time": _address.start_time(pid),
        "dashboard": False,
    }
    whole = ("num_cpus", "num_gpus", "memory", "object_store_memory")
    return {k: int(v) if k in whole else v for k, v in config.items() if v is not None}


def _job(given: Dict[str, Any]):
    """The job map of the client protocol's HELLO, and the packages to upload once there is a connection."""
    import json

    from ray._core import driver_logs
    from ray.job_config import JobConfig

    job_config = given["job_config"]
    if job_config is not None and not isinstance(job_config, JobConfig):
        raise TypeError(f"job_config must be a ray.job_config.JobConfig, got {type(job_config)}.")
    submitted = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    config = job_config or JobConfig.from_json(submitted)
    env, hook, packages = _job_env(given, config, submitted if job_config is None else {})
    namespace = given["namespace"] or config.ray_namespace or _random_namespace()
    logging_config = given["logging_config"] or config.py_logging_config
    if logging_config is not None:
        from ray._logging import LoggingConfig

        if not isinstance(logging_config, LoggingConfig):
            raise TypeError(f"logging_config must be a ray.LoggingConfig, got {type(logging_config)}.")
    to_driver = given["log_to_driver"]
    if to_driver is None:
        to_driver = os.environ.get("RAY_LOG_TO_DRIVER", "1") != "0"
    job = {
        "namespace": namespace,
        "sys_path": _sys_path(not env.get("working_dir")),
        "cwd": os.getcwd(),
        "entrypoint": " ".join(getattr(sys, "orig_argv", None) or [sys.executable, *sys.argv]),
        "logging": {
            "to_driver": bool(to_driver),
            "level": logger.level if given["configure_logging"] else "info",
            "config": logging_config.to_dict() if logging_config is not None else None,
            "plain": logging_config is not None,
            **driver_logs.settings(),
        },
        "metadata": dict(config.metadata),
        "runtime_env": env,
        "default_actor_lifetime": config._default_actor_lifetime,
    }
    if hook is not None:
        job["hook"] = hook
    return job, packages


def _random_namespace() -> str:
    # a UUID of version 4, made here since importing uuid costs more than all else of this module
    bits = int.from_bytes(os.urandom(16), "big") & ~(0xF << 76) & ~(0x3 << 62) | 4 << 76 | 2 << 62
    text = f"{bits:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _job_env(given: Dict[str, Any], config, submitted: Dict[str, Any]):
    """The job's environment with URIs for paths, the pickled set-up hook or None, and the packages to upload."""
    env = given["runtime_env"]
    if env is not None and not isinstance(env, dict):
        raise TypeError(f"runtime_env must be a dict or a ray.runtime_env.RuntimeEnv, got {type(env)}.")
    hook = os.environ.get("RAY_RUNTIME_ENV_HOOK")
    if hook and not given.get("_skip_env_hook"):
        import importlib

        module, _, name = hook.rpartition(".")
        env = getattr(importlib.import_module(module), name)(dict(env or {}))
    if not env and not config.runtime_env:
        return {}, None, []
    from ray.runtime_env import RuntimeEnv, check_size, merge, resolved

    if submitted and env:
        if os.environ.get("RAY_OVERRIDE_JOB_RUNTIME_ENV") == "1":
            env = merge(config.runtime_env, env)
        else:
            env = merge(config.runtime_env, env, strict=True)
    else:
        env = env if env is not None else config.runtime_env
    if not env:
        return {}, None, []
    env, packages = dict(env), []
    if any(env.get(name) for name in ("working_dir", "py_modules", "excludes")):
        from ray.runtime_env._packages import replace_paths

        packages = replace_paths(env)
    hook = env.get("worker_process_setup_hook")
    if hook is not None and not isinstance(hook, str):
        env["worker_process_setup_hook"] = getattr(hook, "__name__", type(hook).__name__)
        hook = _pickled_hook(hook)
    else:
        hook = None
    whole = RuntimeEnv(**env)
    whole.check_there()
    check_size(whole)
    return resolved(whole, None) or {}, hook, packages


# bytes that a worker_process_setup_hook may have: it goes to each worker with what else is said of the job
_MAX_HOOK = 32 << 10


def _pickled_hook(hook) -> bytes:
    from ray import cloudpickle
    from ray.exceptions import RuntimeEnvSetupError

    if not callable(hook):
        raise TypeError(f"worker_process_setup_hook must be a function, got {type(hook)}.")
    try:
        data = cloudpickle.dumps(hook)
    except Exception as e:
        raise RuntimeEnvSetupError(f"Failed to export the setup function. {type(e).__name__}: {e}") from e
    if len(data) > _MAX_HOOK:
        raise RuntimeEnvSetupError(
            f"Failed to export the setup function. It has {len(data)} bytes when pickled; at most {_MAX_HOOK} are "
            "possible. Load what it needs from a file, or make it a module's function and pass its name."
        )
    return data


def _sys_path(with_cwd: bool):
    # what a worker needs to import the modules beside the script, and those of the folder that it was started in
    # (A notebook has no script: its kernel was started by one that lies among the installed packages.)
    there = bool(sys.argv and sys.argv[0] and hasattr(sys.modules.get("__main__"), "__file__"))
    script = os.path.dirname(os.path.realpath(sys.argv[0])) if there else None
    paths = [script] if script is not None and script in sys.path else []
    if with_cwd:
        paths.append(os.getcwd())
    if (
        not getattr(sys.flags, "safe_path", False) and sys.path
    ):  # where a script is run by another, such as a test runner
        paths.append(os.path.abspath(sys.path[0] or os.getcwd()))
    return list(dict.fromkeys(paths))


def _address_info(node: Dict[str, Any]) -> Dict[str, Any]:
    state = _core.state
    socket = node.get("socket", "")
    return {
        "node_ip_address": node.get("node_ip") or state.node_ip,
        "redis_address": None,
        "object_store_address": socket,
        "raylet_socket_name": socket,
        "webui_url": dashboard_url(node.get("dashboard_url")),
        "session_dir": node.get("session_dir") or state.session_dir,
        "metrics_export_port": node.get("metrics_export_port", 0),
        "gcs_address": node.get("gcs_address") or state.gcs_address,
        "address": node.get("gcs_address") or state.gcs_address,
        "dashboard_agent_listen_port": node.get("agent_port", 0),
        "node_id": node.get("node_id") or state.node_id.hex(),
    }


def dashboard_url(of_node: Optional[str]) -> str:
    """``host:port`` of the dashboard, as far as it is known."""
    # behind a proxy the dashboard's users need another address than the one it listens on
    url = os.environ.get("RAY_OVERRIDE_DASHBOARD_URL") or _core.state.dashboard_url or of_node or ""
    return url.split("://", 1)[-1]


def _raise_file_limit() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(_MAX_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _settle(logging_config) -> None:
    """What a connected driver changes in its process."""
    global _registered
    if not _registered:
        atexit.register(shutdown, _exiting_interpreter=True)
        _Forks()
        _registered = True
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _on_sigterm)
    import faulthandler

    if not faulthandler.is_enabled():
        try:
            faulthandler.enable(all_threads=False)
        except (AttributeError, OSError, ValueError):  # stderr is no real file: nothing to write a crash to
            pass
    if logging_config is not None:
        logging_config._apply()


def _on_sigterm(signum, frame):
    sys.exit(signum)


class _Forks:
    """Gives forks of a driver the SIGTERM of any process: they have no session to end.

    Who forks, such as multiprocessing's Pool, counts on their death. With our handler a SIGTERM might be lost: while it is
    young, a process forgets signals that a handler waits for, and what is raised in a hook of os.register_at_fork, too. So
    the signal is held back until the child has its own.
    """

    def __init__(self):
        self._mask = threading.local()
        os.register_at_fork(before=self._before, after_in_parent=self._after, after_in_child=self._in_child)

    def _before(self):
        self._mask.old = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))

    def _after(self):
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask.old)

    def _in_child(self):
        if signal.getsignal(signal.SIGTERM) is _on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._after()


def shutdown(wait_for_processes: bool = False, _exiting_interpreter: bool = False) -> None:
    """End the connection, and the cluster if this process started it. Without a connection nothing happens.

    Refs of the connection become useless; arrays that were got stay readable. Remote functions work again after the next
    ``ray.init``.

    Args:
        wait_for_processes: Accepted as in Ray; the processes have always gone when this returns.
        _exiting_interpreter: Whether the interpreter is ending.
    """
    global _private, _context
    with _lock:
        if _core.state.mode == 1:
            return  # a worker's connection is its daemon's
        daemon, _private, _context = _private, None, None
        try:
            if _core.state.client is not None:
                _core.disconnect()
        finally:
            if daemon is not None:
                daemon.stop()
            covered = _suspended is not None
            _uncover()
            if _exiting_interpreter:
                for context in list(_more):
                    end_one(context)
        if covered and _exiting_interpreter:
            shutdown(wait_for_processes, _exiting_interpreter)
