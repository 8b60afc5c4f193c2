"""Clusters of several node daemons on this machine, for tests."""

import atexit
import os
import time
from typing import Any, Dict, List, Optional

from ray import _address, _daemon
from ray._missing import missing

__all__ = ["AutoscalingCluster", "Cluster", "Node", "cluster_not_supported"]

cluster_not_supported = False  # Ray's name for "this is Windows or a Mac"

_DEFAULT_STORE = 150 * 1024 * 1024

# Ray's ports of processes that Gray does not have: its daemon serves all of them at one. Checked, then not needed.
_FOLDED_PORTS = (
    "object_manager_port",
    "node_manager_port",
    "metrics_agent_port",
    "metrics_export_port",
    "runtime_env_agent_port",
    "ray_client_server_port",
    "dashboard_port",
    "dashboard_agent_listen_port",
)
_HEAD_PORTS = ("redis_port", "gcs_server_port")
_WORKER_PORTS = ("min_worker_port", "max_worker_port", "worker_port_list")
_PASSED = {
    "num_cpus": "num_cpus",
    "num_gpus": "num_gpus",
    "resources": "resources",
    "labels": "labels",
    "memory": "memory",
    "_memory": "memory",
    "object_store_memory": "object_store_memory",
    "node_ip_address": "node_ip",
    "_node_ip_address": "node_ip",
    "node_name": "node_name",
    "_node_name": "node_name",
    "port": "port",
}
_NOTHING = ("include_dashboard", "include_log_monitor", "log_to_driver", "dashboard_host", "redirect_output")


class Node:
    """A node daemon of a :class:`Cluster`."""

    def __init__(self, daemon: _daemon.Daemon, head: bool):
        self._daemon = daemon
        self._info = daemon.info
        self.head = head

    @property
    def node_id(self) -> str:
        """The node's id, 56 hexadecimal digits."""
        return self._info["node_id"]

    unique_id = node_id

    @property
    def node_ip_address(self) -> str:
        """The node's address."""
        return self._info["node_ip"]

    @property
    def address(self) -> str:
        """The head's ``ip:port``."""
        return self._info["gcs_address"]

    gcs_address = address

    @property
    def address_info(self) -> Dict[str, Any]:
        """What the daemon said of itself when it was ready."""
        return dict(self._info)

    @property
    def raylet_socket_name(self) -> str:
        """The socket on which it serves the processes of its machine."""
        return self._info["socket"]

    plasma_store_socket_name = raylet_socket_name

    @property
    def session_name(self) -> str:
        """The cluster's session."""
        return self._info["session_name"]

    @property
    def all_processes(self) -> Dict[str, List[int]]:
        """Kind to process ids: one daemon is all of them."""
        return {"raylet": [self._daemon.pid]} if self._daemon.alive() else {}

    def get_session_dir_path(self) -> str:
        """The session's folder."""
        return self._info["session_dir"]

    def get_logs_dir_path(self) -> str:
        """The session's folder of logs."""
        return os.path.join(self._info["session_dir"], "logs")

    def is_head(self) -> bool:
        """Whether the head role runs in this daemon."""
        return self.head

    def remaining_processes_alive(self) -> bool:
        """Whether the daemon still runs."""
        return self._daemon.alive()

    def any_processes_alive(self) -> bool:
        """Whether the daemon still runs."""
        return self._daemon.alive()

    def kill_raylet(self, check_alive: bool = True) -> None:
        """Kill the daemon as a crash would."""
        self._daemon.stop(hard=True)

    def kill_all_processes(self, check_alive: bool = True, allow_graceful: bool = False, wait: bool = True) -> None:
        """End the daemon."""
        self._daemon.stop(hard=not allow_graceful)


class Cluster:
    """A cluster of daemons on this machine, each with its own resources.

    Args:
        initialize_head: Whether to start the head at once.
        connect: Whether this process connects to it.
        head_node_args: Arguments of :meth:`add_node` for the head.
        shutdown_at_exit: Whether the cluster ends with this process.
    """

    def __init__(
        self,
        initialize_head: bool = False,
        connect: bool = False,
        head_node_args: Optional[Dict[str, Any]] = None,
        shutdown_at_exit: bool = True,
    ):
        if not initialize_head and connect:
            raise RuntimeError("Cannot connect to uninitialized cluster.")
        self.head_node: Optional[Node] = None
        self.worker_nodes: Dict[str, Node] = {}
        self.connected = False
        self._root: Optional[str] = None
        self._atexit = shutdown_at_exit
        if shutdown_at_exit:
            atexit.register(self.shutdown)
        if initialize_head:
            self.add_node(**(head_node_args or {}))
            if connect:
                self.connect()

    @property
    def gcs_address(self) -> Optional[str]:
        """The head's ``ip:port``; None while there is none."""
        return self.head_node.address if self.head_node is not None else None

    @property
    def address(self) -> Optional[str]:
        """The head's ``ip:port``; None while there is none."""
        return self.gcs_address

    @property
    def global_state(self) -> "GlobalState":
        """What the head knows."""
        return GlobalState(self)

    @property
    def webui_url(self) -> Optional[str]:
        """``host:port`` of the dashboard, or None."""
        return (self.head_node._info.get("dashboard_url") or None) if self.head_node is not None else None

    def add_node(self, wait: bool = True, **node_args) -> Node:
        """Start a daemon; the first one is the head.

        Args:
            wait: Whether to wait until the cluster lists the node.
            node_args: ``num_cpus`` (default 1), ``num_gpus`` (0), ``resources``, ``labels``, ``object_store_memory`` (150 MiB),
                ``memory``, ``node_name``, ``node_ip_address``, ``env_vars``, ``_temp_dir`` (of the head).

        Raises:
            ValueError: An argument is out of bounds.
            NotImplementedError: An argument whose feature is not there yet.
        """
        head = self.head_node is None
        config = self._config(head, dict(node_args))
        env = dict(node_args.get("env_vars") or {})
        if not head:
            token = _address.token(self.head_node._info)  # type: ignore[union-attr]
            env.setdefault("RAY_AUTH_TOKEN", token)
        node = Node(_daemon.start(config, env), head)
        if head:
            self.head_node = node
        else:
            self.worker_nodes[node.node_id] = node
        if wait and self.connected:
            self._wait_for_node(node)
        return node

    def _config(self, head: bool, args: Dict[str, Any]) -> Dict[str, Any]:
        from ray._init import check_node_resources

        args.pop("env_vars", None)
        config: Dict[str, Any] = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": _DEFAULT_STORE}
        _check_ports(args)
        for name in _NOTHING:
            if args.pop(name, None) and name == "include_dashboard":
                raise missing("the dashboard (include_dashboard)")
        temp_dir = args.pop("_temp_dir", None) or args.pop("temp_dir", None)
        if args.pop("_system_config", None):
            raise missing("internal settings (_system_config)")
        client_port = args.get("ray_client_server_port")
        port = next((args.pop(name) for name in _HEAD_PORTS if args.get(name)), None)
        for name in (*_HEAD_PORTS, *_FOLDED_PORTS, *_WORKER_PORTS):
            args.pop(name, None)
        for name in list(args):
            if name not in _PASSED:
                raise missing(f"Cluster.add_node({name}=...)")
            config[_PASSED[name]] = args.pop(name)
        check_node_resources(
            config["num_cpus"], config["num_gpus"], config.get("resources"), config["object_store_memory"]
        )
        if config.get("labels"):
            from ray._labels import check_labels

            check_labels(config["labels"], reserved=True)
        config["node_ip"] = _address.ip_of(config.get("node_ip") or "127.0.0.1")
        config["dashboard"] = False
        if head:
            config["port"] = port or config.get("port") or 0
            self._root = temp_dir
            config.update(head=True, private=False, ray_client_server_port=int(client_port or 0))
        else:
            config.update(head=False, private=False, address=self.address)
        config["temp_dir"] = self._root
        whole = ("num_cpus", "num_gpus", "memory", "object_store_memory")
        return {k: int(v) if k in whole else v for k, v in config.items() if v is not None}

    def remove_node(self, node: Node, allow_graceful: bool = True) -> None:
        """End a daemon.

        Args:
            node: Which one; removing the head ends the cluster for all others.
            allow_graceful: Whether it may leave in order; False: as a crash.
        """
        node._daemon.stop(hard=not allow_graceful)
        if node is self.head_node:
            self.head_node = None
        else:
            self.worker_nodes.pop(node.node_id, None)

    def connect(self, namespace: Optional[str] = None) -> None:
        """Connect this process to the head."""
        import ray

        if self.address is None:
            raise RuntimeError("The cluster has no head: call add_node() first.")
        ray.init(address=self.address, namespace=namespace, ignore_reinit_error=True, _temp_dir=self._root)
        self.connected = True

    def _listed(self) -> List[Dict[str, Any]]:
        """What the head lists, asked by a connection of this process's own where it has none."""
        import ray

        if ray.is_initialized():
            return ray.nodes()
        self._assert_head()
        from ray import _core
        from ray._version import version

        info = self.head_node._info  # type: ignore[union-attr]
        job = {
            "namespace": "cluster-utils",
            "sys_path": [],
            "cwd": "/",
            "entrypoint": "",
            "logging": {},
        }
        _core.connect(
            info["socket"], _address.token(info), {**job, "metadata": {}, "runtime_env": {}}, ray_version=version
        )
        try:
            return ray.nodes()
        finally:
            _core.disconnect()

    def _assert_head(self) -> None:
        if self.head_node is None:
            raise RuntimeError("The cluster has no head: call add_node() first.")

    def _wait_for_node(self, node: Node, timeout: float = 30) -> None:
        """Wait until the cluster lists a node as alive.

        Raises:
            TimeoutError: It does not within ``timeout`` seconds.
        """
        self._wait(lambda alive: node.node_id in alive, timeout, f"node {node.node_id}")

    def wait_for_nodes(self, timeout: float = 30) -> None:
        """Wait until the cluster lists exactly the nodes that were added and not removed.

        Raises:
            TimeoutError: It does not within ``timeout`` seconds.
        """
        wanted = {n.node_id for n in self.list_all_nodes()}
        self._wait(lambda alive: alive == wanted, timeout, f"{len(wanted)} nodes")

    def _wait(self, done, timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        while True:
            alive = {n["NodeID"] for n in self._listed() if n["Alive"]}
            if done(alive):
                return
            if time.monotonic() >= deadline:
                raise TimeoutError(
                    f"Timed out after {timeout:g} s while waiting for {what}; the cluster lists {sorted(alive)}."
                )
            time.sleep(0.02)

    def list_all_nodes(self) -> List[Node]:
        """The nodes that were added and not removed, the head first."""
        return [n for n in (self.head_node, *self.worker_nodes.values()) if n is not None]

    def remaining_processes_alive(self) -> bool:
        """Whether all daemons still run."""
        return all(n.remaining_processes_alive() for n in self.list_all_nodes())

    def shutdown(self) -> None:
        """End all daemons, and this process's connection if :meth:`connect` made it."""
        if self.connected:
            import ray

            ray.shutdown()
            self.connected = False
        for node in list(self.worker_nodes.values()):
            self.remove_node(node)
        if self.head_node is not None:
            self.remove_node(self.head_node)
        if self._atexit:
            atexit.unregister(self.shutdown)


class GlobalState:
    """What the head of a :class:`Cluster` knows."""

    def __init__(self, cluster: Cluster):
        self._cluster = cluster

    def node_table(self) -> List[Dict[str, Any]]:
        """The nodes, as ``ray.nodes()`` has them."""
        return self._cluster._listed()


def _check_ports(args: Dict[str, Any]) -> None:
    chosen: Dict[int, str] = {}
    for name in (*_HEAD_PORTS, *_FOLDED_PORTS):
        port = args.get(name)
        if not port:
            continue
        if port in chosen:
            raise ValueError(
                f"Ray component {name} is trying to use a port number {port} that is used by {chosen[port]}. Give each its own."
            )
        chosen[port] = name
    listed = [int(p) for p in str(args.get("worker_port_list") or "").split(",") if p]
    low, high = args.get("min_worker_port") or 0, args.get("max_worker_port") or 0
    for port, name in chosen.items():
        if port in listed:
            raise ValueError(
                f"Ray component {name} is trying to use a port number {port} that is used by worker_ports. Its list is {listed}."
            )
        if low and high and low <= port <= high:
            raise ValueError(
                f"Ray component {name} is trying to use a port number {port} that is used by worker_ports, which are all "
                f"from {low} to {high}."
            )


class AutoscalingCluster:
    """A cluster that grows and shrinks. Not there yet."""

    def __init__(self, head_resources: Dict[str, Any], worker_node_types: Dict[str, Any], **config_kwargs):
        raise missing("autoscaling (AutoscalingCluster)")

    def start(self, _system_config=None, override_env: Optional[Dict] = None):
        """Start it."""
        raise missing("autoscaling (AutoscalingCluster)")

    def shutdown(self):
        """End it."""
        raise missing("autoscaling (AutoscalingCluster)")
