"""What the state API returns."""

from dataclasses import dataclass, fields
from typing import Any, Dict, Optional

__all__ = ["ActorState", "NodeState"]


class _State:
    """A row whose fields are also keys: ``row["state"]``."""

    def __getitem__(self, key: str) -> Any:
        if key not in self.__dataclass_fields__:
            raise KeyError(key)
        return getattr(self, key)

    def get(self, key: str, default: Any = None) -> Any:
        """The field with this name, or ``default``."""
        return getattr(self, key) if key in self.__dataclass_fields__ else default

    @classmethod
    def columns(cls) -> set:
        """The names of all fields."""
        return {f.name for f in fields(cls)}


@dataclass
class ActorState(_State):
    """An actor. Fields are also keys: ``actor["state"]``. From ``serialized_runtime_env`` on they are None unless asked for.

    Attributes:
        actor_id: Its id, 32 hexadecimal digits.
        class_name: The name of its class.
        state: "DEPENDENCIES_UNREADY", "PENDING_CREATION", "ALIVE", "RESTARTING" or "DEAD".
        job_id: The job that made it.
        name: Its name, or "".
        node_id: The node it runs on, or ran on last.
        pid: Its process, 0 before it has one.
        ray_namespace: The scope of its name.
        serialized_runtime_env: Not known to the head.
        required_resources: Name to quantity.
        death_cause: How it died: one key that says what kind of end it was, with a dict.
        is_detached: Whether it outlives its job.
        placement_group_id: Its placement group.
        repr_name: What its ``__repr__`` gave, if its class has one of its own.
        num_restarts: How often it was started again.
        num_restarts_due_to_lineage_reconstruction: Always 0.
        num_restarts_due_to_node_preemption: Always 0.
        call_site: Not recorded.
        label_selector: Which labels its node must have.
        fallback_strategy: Not recorded.
    """

    actor_id: str
    class_name: str
    state: str
    job_id: str
    name: Optional[str]
    node_id: Optional[str]
    pid: Optional[int]
    ray_namespace: Optional[str]
    serialized_runtime_env: Optional[str] = None
    required_resources: Optional[Dict[str, float]] = None
    death_cause: Optional[Dict[str, Any]] = None
    is_detached: Optional[bool] = None
    placement_group_id: Optional[str] = None
    repr_name: Optional[str] = None
    num_restarts: Optional[int] = None
    num_restarts_due_to_lineage_reconstruction: Optional[int] = None
    num_restarts_due_to_node_preemption: Optional[int] = None
    call_site: Optional[str] = None
    label_selector: Optional[Dict[str, str]] = None
    fallback_strategy: Optional[Any] = None

    @classmethod
    def _of(cls, row: Dict, detail: bool) -> "ActorState":
        return cls(**{f.name: row.get(f.name) for f in fields(cls) if detail or f.default is not None})


@dataclass
class NodeState(_State):
    """A node. Fields are also keys: ``node["node_id"]``.

    Attributes:
        node_id: Its id, 56 hexadecimal digits.
        node_ip: Its address.
        is_head_node: Whether the head role runs on it.
        state: "ALIVE" or "DEAD".
        state_message: Why it is dead.
        node_name: Its name.
        resources_total: Name to quantity; memory in bytes. Empty for a dead node.
        labels: Its labels.
    """

    node_id: str
    node_ip: str
    is_head_node: bool
    state: str
    state_message: Optional[str]
    node_name: str
    resources_total: Dict[str, float]
    labels: Dict[str, str]
