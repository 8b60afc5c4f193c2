"""Helpers around Ray. Submodules are imported on use."""

from typing import Any, Dict, List, Optional

# Imported at once: a function and a module have one name, and the one that is bound last stays.
from ray.util.placement_group import placement_group

_WHERE = {
    "inspect_serializability": "ray.util.check_serialize",
    "register_serializer": "ray.util.serialization",
    "deregister_serializer": "ray.util.serialization",
    "log_once": "ray.util.debug",
    "disable_log_once_globally": "ray.util.debug",
    "enable_periodic_logging": "ray.util.debug",
    "PublicAPI": "ray.util.annotations",
    "get_current_placement_group": "ray.util.placement_group",
    "get_placement_group": "ray.util.placement_group",
    "placement_group_table": "ray.util.placement_group",
    "remove_placement_group": "ray.util.placement_group",
    "ActorPool": "ray.util.actor_pool",
    "as_completed": "ray.util._completion",
    "map_unordered": "ray.util._completion",
}
_MODULES = frozenset(
    "accelerators actor_pool annotations check_serialize client debug joblib metrics multiprocessing placement_group queue "
    "scheduling_strategies serialization state".split()
)

__all__ = [
    "ActorPool",
    "accelerators",
    "as_completed",
    "connect",
    "deregister_serializer",
    "disable_log_once_globally",
    "disconnect",
    "enable_periodic_logging",
    "get_current_placement_group",
    "get_node_instance_id",
    "get_node_ip_address",
    "get_placement_group",
    "inspect_serializability",
    "list_named_actors",
    "log_once",
    "map_unordered",
    "placement_group",
    "placement_group_table",
    "register_serializer",
    "remove_placement_group",
]


def __getattr__(name):
    import importlib

    where = _WHERE.get(name)
    if where is not None:
        value = getattr(importlib.import_module(where), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module("ray.util." + name)
    raise AttributeError(f"module 'ray.util' has no attribute {name!r}")


def get_node_ip_address(address: Optional[str] = None) -> str:
    """The address of the node that this process runs on.

    Args:
        address: Where to ask from, ``host:port``, in a process that is not connected; None: any place outside.
    """
    from ray import _core

    if _core.state.node_ip:
        return _core.state.node_ip
    import socket

    host, _, port = (address or "192.0.2.1:53").rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect((host, int(port)))  # sends nothing: it only chooses the interface
            return s.getsockname()[0]
        except OSError:  # no route: this machine stands alone
            return "127.0.0.1"


def get_node_instance_id() -> str:
    """What the environment variable RAY_CLOUD_INSTANCE_ID says of this machine, or an empty text."""
    import os

    return os.environ.get("RAY_CLOUD_INSTANCE_ID", "")


def list_named_actors(all_namespaces: bool = False) -> List:
    """The names of living actors.

    Args:
        all_namespaces: Whether to list those of all namespaces, not only of this job's.

    Returns:
        Names; of all namespaces, dicts with ``name`` and ``namespace``.
    """
    from ray import _core
    from ray._api import ensure_initialized

    ensure_initialized()
    if all_namespaces:
        return [{"name": n, "namespace": ns} for ns, n in _core.call("actor_names", ns="")["names"]]
    return [n for _, n in _core.call("actor_names", ns=_core.state.namespace)["names"]]


def connect(
    conn_str: str,
    secure: bool = False,
    metadata: Optional[List] = None,
    connection_retries: int = 3,
    job_config=None,
    namespace: Optional[str] = None,
    *,
    ignore_version: bool = False,
    _credentials=None,
    ray_init_kwargs: Optional[Dict[str, Any]] = None,
):
    """Connect to a cluster from afar, as ``ray.init("ray://…")`` does.

    Args:
        conn_str: ``host:port`` of its port for clients.
        secure: Accepted: a connection is always encrypted and checked.
        metadata: Accepted: the cluster's token is all that there is to show.
        connection_retries: Accepted: a connection that breaks is made again.
        job_config: As for ``ray.init``.
        namespace: As for ``ray.init``.
        ignore_version: Accepted: other versions can't exchange values.
        _credentials: Accepted, as ``secure``.
        ray_init_kwargs: Further arguments of ``ray.init``.

    Returns:
        Facts on the connection, a dict.
    """
    import ray

    context = ray.init(f"ray://{conn_str}", job_config=job_config, namespace=namespace, **(ray_init_kwargs or {}))
    return {
        "num_clients": context._num_clients,
        "python_version": context.python_version,
        "ray_version": context.ray_version,
        "ray_commit": context.ray_commit,
        "protocol_version": context.protocol_version,
    }


def disconnect():
    """End a connection of :func:`connect`."""
    from ray.util.client import ray as far

    far.disconnect()
