"""What the state API returns."""

from dataclasses import asdict, dataclass
from typing import Any, Dict, Optional

__all__ = ["NodeState"]


@dataclass
class NodeState:
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

    def __getitem__(self, key: str) -> Any:
        return asdict(self)[key]

    def get(self, key: str, default: Any = None) -> Any:
        """The field with this name, or ``default``."""
        return asdict(self).get(key, default)
