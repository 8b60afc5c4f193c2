"""Actors in the state API."""

from typing import Any, Dict, List, Optional, Sequence

from ray._missing import missing
from ray.util.state._rows import BadFilter, Filter, check_limit, cut, filter_tests
from ray.util.state.common import ActorState
from ray.util.state.exception import RayStateApiException

_FILTERS = (
    "actor_id",
    "class_name",
    "state",
    "job_id",
    "name",
    "node_id",
    "pid",
    "ray_namespace",
    "placement_group_id",
    "repr_name",
)
_STATES = ("DEPENDENCIES_UNREADY", "PENDING_CREATION", "ALIVE", "RESTARTING", "DEAD")
_ID_BYTES = 16


def list_actors(
    address: Optional[str] = None,
    filters: Optional[Sequence[Filter]] = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> List[ActorState]:
    """The actors of the cluster that this process is connected to: those that live, and the last 10,000 that died.

    Args:
        address: Another cluster. Not there yet.
        filters: ``(field, "=" or "!=", value)`` each; all must hold. Texts are compared without regard to case.
        limit: How many to return at most, up to 10,000.
        timeout: Accepted as in Ray; how long the head may take is its daemon's business.
        detail: Whether to fill in the fields that are None otherwise.
        raise_on_missing_output: Accepted as in Ray; nothing is ever missing.

    Raises:
        RaySystemError: This process is not connected.
        RayStateApiException: ``limit`` is too large, or a filter has another form.
    """
    if address is not None:
        raise missing("the state API of another cluster (list_actors(address=...))")
    check_limit(limit)
    tests = filter_tests(filters, _FILTERS)
    for field, _, value in filters or ():
        if field == "state" and str(value).upper() not in _STATES:
            raise BadFilter(f"Invalid actor state for filtering: {str(value).upper()}")
        if field == "pid":
            _number(value)
    found = [row for row in _actors() if all(test(row) for test in tests)]
    return [ActorState._of(row, detail) for row in cut(found, limit)]


def get_actor(
    id: str,  # noqa: A002
    address: Optional[str] = None,
    timeout: int = 30,
    _explain: bool = False,
) -> Optional[ActorState]:
    """The actor with this id (32 hexadecimal digits) with all that is known of it, or None. See :func:`list_actors`."""
    if address is not None:
        raise missing("the state API of another cluster (get_actor(address=...))")
    try:
        size = len(bytes.fromhex(id))
    except ValueError:
        raise RayStateApiException(f"{id!r} is not the hexadecimal form of an actor's id.") from None
    if size != _ID_BYTES:
        raise RayStateApiException(f"ID string needs to have length {_ID_BYTES}, got {size}")
    for row in _actors():
        if row["actor_id"] == id.lower():
            return ActorState._of(row, detail=True)
    return None


def summarize_actors(
    address: Optional[str] = None,
    timeout: int = 30,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> Dict:
    """How many actors of each class are in each state: ``{"cluster": {"summary": …, "total_actors": …}}``."""
    if address is not None:
        raise missing("the state API of another cluster (summarize_actors(address=...))")
    classes: Dict[str, Dict] = {}
    rows = _actors()
    for row in rows:
        name = row["class_name"]
        counts = classes.setdefault(name, {"class_name": name, "state_counts": {}})["state_counts"]
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    return {"cluster": {"summary": classes, "total_actors": len(rows), "summary_by": "class"}}


def _actors() -> List[Dict]:
    from ray._api import _call_state

    return _call_state("actors")["actors"]


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise BadFilter(f"Failed to convert a value {value} of type {type(value)} to <class 'int'>") from None
