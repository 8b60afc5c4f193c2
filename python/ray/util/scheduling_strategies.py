"""Where a task or an actor may run."""

from typing import Any, Dict, Optional, Tuple, Union

from ray._ids import NodeID
from ray._missing import missing

__all__ = [
    "DoesNotExist",
    "Exists",
    "In",
    "NodeAffinitySchedulingStrategy",
    "NodeLabelSchedulingStrategy",
    "NotIn",
    "PlacementGroupSchedulingStrategy",
]

# What a strategy means for the engine: its own part, and the label selectors that must hold and that should.
_Place = Tuple[Any, Dict[str, str], Dict[str, str]]


class PlacementGroupSchedulingStrategy:
    """Run in a placement group. Not there yet: using it raises NotImplementedError.

    Args:
        placement_group: The group; None: explicitly none.
        placement_group_bundle_index: Which bundle; -1: any.
        placement_group_capture_child_tasks: Whether tasks started there go to the group, too.
    """

    def __init__(
        self,
        placement_group,
        placement_group_bundle_index: int = -1,
        placement_group_capture_child_tasks: Optional[bool] = None,
    ):
        self.placement_group = placement_group
        self.placement_group_bundle_index = placement_group_bundle_index
        self.placement_group_capture_child_tasks = placement_group_capture_child_tasks

    def _for_engine(self) -> _Place:
        if self.placement_group is None:
            return None, {}, {}
        raise missing("placement groups (PlacementGroupSchedulingStrategy)")


class NodeAffinitySchedulingStrategy:
    """Run on one node.

    Args:
        node_id: The node's id as hexadecimal text (``ray.nodes()`` lists them).
        soft: Whether another node will do where that one is gone or can never run it.
        _spill_on_unavailable: Whether another node will do where that one is busy; only with ``soft``.
        _fail_on_unavailable: Whether to fail where that one is busy; only without ``soft``.

    Raises:
        ValueError: ``node_id`` is no node id, or the last two don't fit ``soft``.
    """

    def __init__(
        self,
        node_id: Union[str, bytes],
        soft: bool,
        _spill_on_unavailable: bool = False,
        _fail_on_unavailable: bool = False,
    ):
        if _spill_on_unavailable and not soft:
            raise ValueError(
                "_spill_on_unavailable cannot be set when soft is False. Please set soft to True to use _spill_on_unavailable."
            )
        if _fail_on_unavailable and soft:
            raise ValueError(
                "_fail_on_unavailable cannot be set when soft is True. Please set soft to False to use _fail_on_unavailable."
            )
        text = node_id.hex() if isinstance(node_id, (bytes, NodeID)) else node_id
        try:
            binary = NodeID.from_hex(text)
            if binary.is_nil():
                raise ValueError
        except (TypeError, ValueError, AttributeError):
            raise ValueError(
                f"Invalid node_id '{text}'. Node ID must be a valid hex string. To get a list of all nodes and their IDs in "
                "your cluster, use ray.nodes(). See https://docs.ray.io/en/latest/ray-core/miscellaneous.html#node-information "
                "for more details."
            ) from None
        self.node_id = text
        self.soft = soft
        self._spill_on_unavailable = _spill_on_unavailable
        self._fail_on_unavailable = _fail_on_unavailable

    def _for_engine(self) -> _Place:
        strategy = {
            "node": bytes.fromhex(self.node_id),
            "soft": bool(self.soft),
            "spill": bool(self._spill_on_unavailable),
            "fail": bool(self._fail_on_unavailable),
        }
        return strategy, {}, {}


class _Operator:
    def __init__(self, *values: str):
        for i, value in enumerate(values):
            if not isinstance(value, str):
                name = type(self).__name__
                raise ValueError(
                    f'Type of value in position {i} for the {name} operator must be str (e.g. {name}("value1", "value2")) but '
                    f"got {value} of type {type(value)}."
                )
        self.values = list(values)

    def _selector(self) -> str:
        raise NotImplementedError


class In(_Operator):
    """The label has one of these values."""

    def __init__(self, *values: str):
        if not values:
            raise ValueError(
                'The variadic parameter of the In operator must be a non-empty tuple: e.g. In("value1", "value2").'
            )
        super().__init__(*values)

    def _selector(self) -> str:
        return f"in({','.join(self.values)})"


class NotIn(_Operator):
    """The label has none of these values."""

    def __init__(self, *values: str):
        if not values:
            raise ValueError(
                'The variadic parameter of the NotIn operator must be a non-empty tuple: e.g. NotIn("value1", "value2").'
            )
        super().__init__(*values)

    def _selector(self) -> str:
        return f"!in({','.join(self.values)})"


class Exists(_Operator):
    """The node has the label."""

    def __init__(self):
        super().__init__()

    def _selector(self) -> str:
        return "*"


class DoesNotExist(_Operator):
    """The node does not have the label."""

    def __init__(self):
        super().__init__()

    def _selector(self) -> str:
        return "!*"


def _checked(name: str, rules: Any) -> Dict[str, _Operator]:
    if rules is None:
        return {}
    if not isinstance(rules, dict):
        raise ValueError(
            f'The {name} parameter must be a map (e.g. {{"key1": In("value1")}}) but got type {type(rules)}.'
        )
    for key, rule in rules.items():
        if not isinstance(key, str):
            raise ValueError(
                f'The map key of the {name} parameter must be of type str (e.g. {{"key1": In("value1")}}) but got {key} of type '
                f"{type(key)}."
            )
        if not isinstance(rule, _Operator):
            raise ValueError(
                f"The map value for key {key} of the {name} parameter must be one of the `In`, `NotIn`, `Exists` or "
                f'`DoesNotExist` operator (e.g. {{"key1": In("value1")}}) but got {rule} of type {type(rule)}.'
            )
    return dict(rules)


class NodeLabelSchedulingStrategy:
    """Run on nodes with certain labels.

    Args:
        hard: Label to operator; all must hold.
        soft: Label to operator; of the nodes that are free, those where all of them hold come first.

    Raises:
        ValueError: Both are empty, or of another form.
    """

    def __init__(self, hard: Dict[str, _Operator], *, soft: Optional[Dict[str, _Operator]] = None):
        self.hard = _checked("hard", hard)
        self.soft = _checked("soft", soft)
        if not (self.hard or self.soft):
            raise ValueError("The `hard` and `soft` parameter of NodeLabelSchedulingStrategy cannot both be empty.")

    def _for_engine(self) -> _Place:
        hard, soft = ({key: rule._selector() for key, rule in rules.items()} for rules in (self.hard, self.soft))
        return None, hard, soft
