"""Placement groups: the names. Making one is not there yet."""

from typing import Dict, List, Optional

from ray._missing import missing

__all__ = [
    "PlacementGroup",
    "check_placement_group_index",
    "get_current_placement_group",
    "get_placement_group",
    "placement_group",
    "placement_group_table",
    "remove_placement_group",
    "validate_placement_group",
]

_STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")


class PlacementGroup:
    """A handle of a placement group. Only the empty one is there yet."""

    def __init__(self, id, bundle_cache: Optional[List[Dict]] = None):
        self.id = id
        self.bundle_cache = bundle_cache

    @staticmethod
    def empty() -> "PlacementGroup":
        """The group that stands for none."""
        from ray._ids import PlacementGroupID

        return PlacementGroup(PlacementGroupID.nil(), [])

    @property
    def is_empty(self) -> bool:
        """Whether this is :meth:`empty`."""
        return self.id.is_nil()

    @property
    def bundle_specs(self) -> List[Dict]:
        """The bundles' resources."""
        return list(self.bundle_cache or [])

    @property
    def bundle_count(self) -> int:
        """How many bundles there are."""
        return len(self.bundle_specs)

    def ready(self):
        """A ref that is ready when the group is. Not there yet."""
        raise missing("placement groups (PlacementGroup.ready)")

    def wait(self, timeout_seconds: float = 30) -> bool:
        """Wait for the group. Not there yet."""
        raise missing("placement groups (PlacementGroup.wait)")

    def __eq__(self, other) -> bool:
        return isinstance(other, PlacementGroup) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)


def validate_placement_group(
    bundles: List[Dict[str, float]],
    strategy: Optional[str] = None,
    lifetime: Optional[str] = None,
    _soft_target_node_id: Optional[str] = None,
    bundle_label_selector: Optional[List[Dict[str, str]]] = None,
    topology_strategy=None,
) -> bool:
    """Check the arguments of :func:`placement_group`.

    Raises:
        ValueError: One of them is out of bounds.
    """
    if strategy not in (None, *_STRATEGIES):
        raise ValueError(f"Invalid placement group strategy {strategy}. Supported strategies are: {list(_STRATEGIES)}.")
    if not isinstance(bundles, list):
        raise ValueError(f"Placement group bundles must be a list, got {type(bundles)}.")
    if not bundles:
        raise ValueError(
            "Bundles must be a non-empty list of resource dictionaries. For example: `[{'CPU': 1.0}, {'GPU': 1.0}]`."
        )
    for bundle in bundles:
        if not isinstance(bundle, dict) or not bundle or not any(bundle.values()):
            raise ValueError(
                f"Bundles must be non-empty resource dictionaries with positive quantities, got {bundle!r}."
            )
        if any(quantity < 0 for quantity in bundle.values()):
            raise ValueError(f"Quantities of bundles cannot be negative, got {bundle!r}.")
    if lifetime not in (None, "detached"):
        raise ValueError("placement group `lifetime` argument must be either `None` or 'detached'.")
    return True


def placement_group(
    bundles: List[Dict[str, float]],
    strategy: Optional[str] = None,
    name: str = "",
    lifetime: Optional[str] = None,
    _soft_target_node_id: Optional[str] = None,
    bundle_label_selector: Optional[List[Dict[str, str]]] = None,
    topology_strategy=None,
) -> PlacementGroup:
    """Reserve bundles of resources. Not there yet; the arguments are checked."""
    validate_placement_group(
        bundles, strategy, lifetime, _soft_target_node_id, bundle_label_selector, topology_strategy
    )
    raise missing("placement groups (ray.util.placement_group)")


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Remove a placement group. Not there yet."""
    raise missing("placement groups (remove_placement_group)")


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """Look up a placement group. Not there yet."""
    if not placement_group_name:
        raise ValueError("Please supply a non-empty value to get_placement_group")
    raise missing("placement groups (get_placement_group)")


def placement_group_table(placement_group: Optional[PlacementGroup] = None) -> Dict:
    """Describe placement groups. Not there yet."""
    raise missing("placement groups (placement_group_table)")


def get_current_placement_group() -> Optional[PlacementGroup]:
    """The placement group that this task runs in; None, since there are none yet."""
    from ray._api import ensure_initialized

    ensure_initialized()
    return None


def check_placement_group_index(placement_group: PlacementGroup, bundle_index: int) -> None:
    """Check the index of a bundle.

    Raises:
        ValueError: The group has no such bundle.
    """
    if placement_group.id.is_nil():
        if bundle_index != -1:
            raise ValueError("If placement group is not set, the value of bundle index must be -1.")
    elif bundle_index >= placement_group.bundle_count or bundle_index < -1:
        raise ValueError(
            f"placement group bundle index {bundle_index} is invalid. Valid placement group indexes: "
            f"0-{placement_group.bundle_count}"
        )
