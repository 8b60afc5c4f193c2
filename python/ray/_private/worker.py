"""``global_worker``: what other packages read of this process's connection."""

from typing import Any, Dict

from ray import _core
from ray._api import SCRIPT_MODE, WORKER_MODE, get, is_initialized, put, wait
from ray._decorator import remote
from ray._ids import ActorID, JobID, NodeID
from ray._init import RayContext, init, shutdown

__all__ = [
    "RayContext",
    "SCRIPT_MODE",
    "WORKER_MODE",
    "Worker",
    "get",
    "global_worker",
    "init",
    "is_initialized",
    "print_worker_logs",
    "put",
    "remote",
    "shutdown",
    "wait",
]

_state = _core.state


def print_worker_logs(data: Dict[str, Any], print_file: Any) -> None:
    """Write lines that a worker printed as a driver shows them.

    Args:
        data: ``lines``, the ``pid`` and ``ip`` of who printed them, and ``actor_name`` or ``task_name`` if it has one.
        print_file: Where to.
    """
    name = data.get("actor_name") or data.get("task_name")
    who = f"{name} pid={data.get('pid')}" if name else f"pid={data.get('pid')}"
    if data.get("ip") != _state.node_ip:
        who += f", ip={data.get('ip')}"
    for line in data.get("lines") or ():
        print_file.write(f"({who}) {line}\n")
    print_file.flush()


class _Node:
    """The node that this process runs on."""

    @property
    def unique_id(self) -> str:
        return _state.node_id.hex()

    node_id = unique_id

    @property
    def node_ip_address(self) -> str:
        return _state.node_ip

    @property
    def gcs_address(self) -> str:
        return _state.gcs_address

    address = gcs_address

    @property
    def session_name(self) -> str:
        return _state.session_name

    @property
    def address_info(self) -> Any:
        from ray import _init

        return _init._address_info({})

    def get_session_dir_path(self) -> str:
        """The session's folder."""
        return _state.session_dir

    def get_logs_dir_path(self) -> str:
        """The session's folder of logs."""
        return f"{_state.session_dir}/logs"


class Worker:
    """This process as a client of its cluster."""

    _node = _Node()

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return _state.client is not None

    @property
    def mode(self):
        """0 for a driver, 1 for a worker, None without a connection."""
        return _state.mode

    @property
    def node(self):
        """The node; None without a connection."""
        return self._node if self.connected else None

    @property
    def worker_id(self) -> bytes:
        """This process's id."""
        return _state.worker_id

    @property
    def current_job_id(self) -> JobID:
        """The job's id; nil without a connection."""
        return JobID(_state.job_id) if _state.job_id else JobID.nil()

    @property
    def actor_id(self) -> ActorID:
        """The id of the actor that runs here; nil outside of actors."""
        return ActorID(_state.actor.id) if _state.actor is not None else ActorID.nil()

    @property
    def current_node_id(self) -> NodeID:
        """The node's id; nil without a connection."""
        return NodeID(_state.node_id) if _state.node_id else NodeID.nil()

    @property
    def node_ip_address(self) -> str:
        """The node's address."""
        return _state.node_ip

    @property
    def namespace(self) -> str:
        """The job's namespace."""
        return _state.namespace

    def check_connected(self) -> None:
        """Raise unless there is a connection.

        Raises:
            RaySystemError: There is none.
        """
        from ray._core.state import connected

        connected()


global_worker = Worker()
