"""What a program can ask about where it runs: ``ray.get_runtime_context()``."""

import json
import os
import warnings
from typing import Any, Dict, List, Optional

from ray import _core
from ray._ids import ActorID, JobID, NodeID, PlacementGroupID, TaskID

__all__ = ["RuntimeContext", "get_runtime_context"]

_ACCELERATORS = ("GPU", "TPU", "neuron_cores", "HPU", "NPU", "RBLN", "FURIOSA", "MBLT", "TTNPU")

_state = _core.state


def get_runtime_context() -> "RuntimeContext":
    """Return the context of the running task, or of the driver; connects this process if it is not connected yet."""
    from ray._api import ensure_initialized

    if _state.client is None and os.environ.get("RAY_ENABLE_AUTO_CONNECT", "1") != "0":
        ensure_initialized()
    return _context


def _deprecated(instead: str) -> None:
    warnings.warn(f"This API is deprecated. Use {instead} instead.", DeprecationWarning, stacklevel=3)


class RuntimeContext:
    """Where the caller runs: job, node, worker, task, resources."""

    def get(self) -> Dict[str, Any]:
        """Deprecated: the ids of job, node and task, and the namespace, in one dict."""
        _deprecated("the get_…_id() methods")
        self._connected("Job ID")
        context: Dict[str, Any] = {
            "job_id": JobID(_state.job_id),
            "node_id": NodeID(_state.node_id),
            "namespace": self.namespace,
        }
        task = _core.current_task()
        if task is not None:
            context["task_id"] = TaskID(task.task_id)
        if _state.actor is not None:
            context["actor_id"] = ActorID(_state.actor.id)
        return context

    def _connected(self, what: str) -> None:
        if _state.client is None:
            raise RuntimeError(f"{what} is not available because Ray has not been initialized.")

    def _in_worker(self) -> bool:
        return _state.mode == 1

    def _only_in_worker(self) -> str:
        return f"This method is only available when the process is a worker. Current mode: {_state.mode}"

    def _warn_on_driver(self) -> bool:
        if self._in_worker():
            return False
        import logging

        logging.getLogger("ray").warning(self._only_in_worker())
        return True

    def get_job_id(self) -> str:
        """The job's id, 8 hexadecimal digits."""
        self._connected("Job ID")
        return _state.job_id.hex()

    def get_node_id(self) -> str:
        """The id of the node that this process runs on, 56 hexadecimal digits."""
        self._connected("Node ID")
        return _state.node_id.hex()

    def get_worker_id(self) -> str:
        """This process's id, 56 hexadecimal digits."""
        self._connected("Worker ID")
        return _state.worker_id.hex()

    def get_task_id(self) -> Optional[str]:
        """The running task's id, 48 hexadecimal digits; None, with a warning, on a driver."""
        if self._warn_on_driver():
            return None
        task = _core.current_task()
        return task.task_id.hex() if task is not None else None

    def get_task_name(self) -> Optional[str]:
        """The running task's name; None, with a warning, on a driver."""
        if self._warn_on_driver():
            return None
        task = _core.current_task()
        return task.name if task is not None else None

    def get_task_function_name(self) -> Optional[str]:
        """Module and qualified name of the running function; None, with a warning, on a driver."""
        if self._warn_on_driver():
            return None
        task = _core.current_task()
        return task.qualname if task is not None else None

    def get_actor_id(self) -> Optional[str]:
        """The id of the actor that runs here, 32 hexadecimal digits; None outside of actors."""
        if self._warn_on_driver():
            return None
        actor = _state.actor
        return actor.id.hex() if actor is not None else None

    def get_actor_name(self) -> Optional[str]:
        """The name of the actor that runs here, empty if it has none; None outside of actors."""
        if self._warn_on_driver():
            return None
        actor = _state.actor
        return actor.name if actor is not None else None

    @property
    def namespace(self) -> str:
        """The job's namespace."""
        self._connected("The namespace")
        return _state.namespace

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether the actor that runs here was restarted.

        Raises:
            AssertionError: On a driver.
            RuntimeError: In a task that is not an actor's.
        """
        if not self._in_worker():
            raise AssertionError(self._only_in_worker())
        return self._actor().incarnation > 0

    def _actor(self):
        actor = _state.actor
        if actor is None:
            raise RuntimeError("This method is only available in an actor.")
        return actor

    @property
    def current_actor(self):
        """A handle of the actor that runs here, which does not keep it alive.

        Raises:
            RuntimeError: Outside of actors.
        """
        actor = self._actor()
        from ray import _actor_handle

        return _actor_handle.weak(actor.id, actor.meta)

    def get_assigned_resources(self) -> Dict[str, float]:
        """What the running task holds, name to quantity.

        Raises:
            AssertionError: On a driver.
        """
        if not self._in_worker():
            raise AssertionError(self._only_in_worker())
        if _state.actor is not None:
            return dict(_state.actor.resources)
        task = _core.current_task()
        return dict(task.resources) if task is not None else {}

    def get_accelerator_ids(self) -> Dict[str, List[str]]:
        """The ids of the devices that the running task may use, one list for each kind of device."""
        held = getattr(_state, "accelerators", None) or {}
        return {kind: [str(i) for i in held.get(kind, [])] for kind in dict.fromkeys((*_ACCELERATORS, *held))}

    def get_resource_ids(self) -> Dict[str, List[str]]:
        """Deprecated: see :meth:`get_accelerator_ids`."""
        _deprecated("get_accelerator_ids()")
        return self.get_accelerator_ids()

    def get_placement_group_id(self) -> Optional[str]:
        """The id of the placement group that this task runs in; None, since there are none yet."""
        return None

    @property
    def current_placement_group_id(self) -> PlacementGroupID:
        """Deprecated: see :meth:`get_placement_group_id`."""
        _deprecated("get_placement_group_id()")
        return PlacementGroupID.nil()

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """Whether tasks started here go to this task's placement group; False, since there are none yet."""
        return False

    @property
    def runtime_env(self):
        """The runtime environment of the running task, or of the job: a ``RuntimeEnv``."""
        from ray.runtime_env import RuntimeEnv

        return RuntimeEnv.deserialize(self.get_runtime_env_string())

    def get_runtime_env_string(self) -> str:
        """The runtime environment as JSON."""
        self._connected("The runtime environment")
        return json.dumps(_state.runtime_env or {}, sort_keys=True)

    @property
    def gcs_address(self) -> str:
        """The head's address, ``ip:port``."""
        self._connected("The GCS address")
        return _state.gcs_address

    def get_session_name(self) -> str:
        """The cluster's session, ``session_<time>_<pid>``."""
        self._connected("The session name")
        return _state.session_name

    def get_temp_dir(self) -> str:
        """The folder that holds the sessions."""
        self._connected("The temp dir")
        return os.path.dirname(_state.session_dir)

    def get_node_labels(self) -> Dict[str, str]:
        """The labels of the node that this process runs on."""
        self._connected("The node's labels")
        for node in _core.call("nodes")["nodes"]:
            if node["node_id"] == _state.node_id:
                return dict(node.get("labels") or {})
        raise RuntimeError(
            f"The cluster does not list this process's node {_state.node_id.hex()} (is it shutting down?)."
        )

    def is_canceled(self) -> bool:
        """Whether the running task, or call of an actor's method, was cancelled.

        Raises:
            RuntimeError: On a driver, and in an async actor, where coroutines are told.
        """
        if not self._in_worker():
            raise RuntimeError(self._only_in_worker())
        actor, task = _state.actor, _core.current_task()
        if actor is None or task is None:
            return task is not None and task.cancelled
        return actor.is_cancelled(task)

    @property
    def job_id(self) -> JobID:
        """Deprecated: see :meth:`get_job_id`."""
        _deprecated("get_job_id()")
        self._connected("Job ID")
        return JobID(_state.job_id)

    @property
    def node_id(self) -> NodeID:
        """Deprecated: see :meth:`get_node_id`."""
        _deprecated("get_node_id()")
        self._connected("Node ID")
        return NodeID(_state.node_id)

    @property
    def task_id(self) -> TaskID:
        """Deprecated: see :meth:`get_task_id`."""
        _deprecated("get_task_id()")
        if not self._in_worker():
            raise AssertionError(self._only_in_worker())
        task = _core.current_task()
        return TaskID(task.task_id) if task is not None else TaskID.nil()

    @property
    def actor_id(self) -> Optional[ActorID]:
        """Deprecated: see :meth:`get_actor_id`."""
        _deprecated("get_actor_id()")
        if not self._in_worker():
            raise AssertionError(self._only_in_worker())
        actor = _state.actor
        return ActorID(actor.id) if actor is not None else None


_context = RuntimeContext()
