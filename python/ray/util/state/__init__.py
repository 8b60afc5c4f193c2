"""The state API: what is in the cluster. Nodes and actors so far; the rest says that it is not there yet."""

from typing import Any, Dict, List, Optional, Sequence

from ray._missing import missing
from ray.util.state._actors import get_actor, list_actors, summarize_actors
from ray.util.state._rows import Filter, check_limit, filter_tests
from ray.util.state.common import NodeState

__all__ = [
    "StateApiClient",
    "get_actor",
    "get_job",
    "get_log",
    "get_node",
    "get_objects",
    "get_placement_group",
    "get_task",
    "get_worker",
    "list_actors",
    "list_cluster_events",
    "list_jobs",
    "list_logs",
    "list_nodes",
    "list_objects",
    "list_placement_groups",
    "list_runtime_envs",
    "list_tasks",
    "list_workers",
    "summarize_actors",
    "summarize_objects",
    "summarize_tasks",
]

_NODE_FILTERS = ("node_id", "node_ip", "is_head_node", "state", "node_name")


def list_nodes(
    address: Optional[str] = None,
    filters: Optional[Sequence[Filter]] = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> List[NodeState]:
    """The nodes of the cluster that this process is connected to, dead ones included.

    Args:
        address: Another cluster. Not there yet.
        filters: ``(field, "=" or "!=", value)`` each; all must hold. Texts are compared without regard to case.
        limit: How many to return at most, up to 10,000.
        timeout: Accepted as in Ray; how long the head may take is its daemon's business.
        detail: Whether to add when nodes started and ended. Not there yet.
        raise_on_missing_output: Accepted as in Ray; nothing is ever missing.

    Raises:
        RaySystemError: This process is not connected.
        RayStateApiException: ``limit`` is too large, or a filter has another form.
    """
    if address is not None:
        raise missing("the state API of another cluster (list_nodes(address=...))")
    if detail:
        raise missing("the start and end of nodes (list_nodes(detail=True))")
    check_limit(limit)
    tests = filter_tests(filters, _NODE_FILTERS)
    found = [n for n in _nodes() if all(test(n) for test in tests)]
    return found[:limit]


def get_node(
    id: str,  # noqa: A002
    address: Optional[str] = None,
    timeout: int = 30,
    _explain: bool = False,
) -> Optional[NodeState]:
    """The node with this id (56 hexadecimal digits), or None. See :func:`list_nodes`."""
    found = list_nodes(address, [("node_id", "=", id)], timeout=timeout)
    return found[0] if found else None


def _nodes() -> List[NodeState]:
    from ray._api import nodes

    return [
        NodeState(
            node_id=n["NodeID"],
            node_ip=n["NodeManagerAddress"],
            is_head_node="node:__internal_head__" in n["Resources"],
            state="ALIVE" if n["Alive"] else "DEAD",
            state_message=n["DeathReasonMessage"] or None,
            node_name=n["NodeName"],
            resources_total=n["Resources"],
            labels=n["Labels"],
        )
        for n in nodes()
    ]


class StateApiClient:
    """A client of a cluster's state API. Not there yet."""

    def __init__(self, *args: Any, **kwargs: Any):
        raise missing("the state API (StateApiClient)")

    def get(self, resource, id, options, _explain: bool = False):  # noqa: A002
        """One thing of a kind."""
        raise missing("the state API (StateApiClient.get)")

    def list(self, resource, options, raise_on_missing_output: bool, _explain: bool = False):
        """All things of a kind."""
        raise missing("the state API (StateApiClient.list)")

    def summary(self, resource, *, options, raise_on_missing_output: bool, _explain: bool = False) -> Dict:
        """A kind in figures."""
        raise missing("the state API (StateApiClient.summary)")


def _get_later(name: str):
    def get(id: str, address: Optional[str] = None, timeout: int = 30, _explain: bool = False):  # noqa: A002
        raise missing(f"the state API (ray.util.state.{name})")

    return _named(get, name)


def _list_later(name: str):
    def list_(
        address: Optional[str] = None,
        filters: Optional[Sequence[Filter]] = None,
        limit: int = 100,
        timeout: int = 30,
        detail: bool = False,
        raise_on_missing_output: bool = True,
        _explain: bool = False,
    ):
        raise missing(f"the state API (ray.util.state.{name})")

    return _named(list_, name)


def _summarize_later(name: str):
    def summarize(
        address: Optional[str] = None, timeout: int = 30, raise_on_missing_output: bool = True, _explain: bool = False
    ):
        raise missing(f"the state API (ray.util.state.{name})")

    return _named(summarize, name)


def _named(function, name: str):
    function.__name__ = function.__qualname__ = name
    function.__doc__ = "Not there yet."
    return function


get_job = _get_later("get_job")
get_objects = _get_later("get_objects")
get_placement_group = _get_later("get_placement_group")
get_task = _get_later("get_task")
get_worker = _get_later("get_worker")
list_cluster_events = _list_later("list_cluster_events")
list_jobs = _list_later("list_jobs")
list_objects = _list_later("list_objects")
list_placement_groups = _list_later("list_placement_groups")
list_runtime_envs = _list_later("list_runtime_envs")
list_tasks = _list_later("list_tasks")
list_workers = _list_later("list_workers")
summarize_objects = _summarize_later("summarize_objects")
summarize_tasks = _summarize_later("summarize_tasks")


def list_logs(
    address: Optional[str] = None,
    node_id: Optional[str] = None,
    node_ip: Optional[str] = None,
    glob_filter: Optional[str] = None,
    timeout: int = 30,
) -> Dict[str, List[str]]:
    """Not there yet: the log files of a node."""
    raise missing("the state API (ray.util.state.list_logs)")


def get_log(
    address: Optional[str] = None,
    node_id: Optional[str] = None,
    node_ip: Optional[str] = None,
    filename: Optional[str] = None,
    actor_id: Optional[str] = None,
    task_id: Optional[str] = None,
    pid: Optional[int] = None,
    follow: bool = False,
    tail: int = -1,
    timeout: int = 30,
    suffix: str = "out",
    encoding: Optional[str] = "utf-8",
    errors: Optional[str] = "strict",
    submission_id: Optional[str] = None,
    attempt_number: int = 0,
    _interval: Optional[float] = None,
    filter_ansi_code: bool = False,
):
    """Not there yet: the lines of a log file."""
    raise missing("the state API (ray.util.state.get_log)")
