"""The state API: what is in the cluster. All of it is asked of the cluster that this process is connected to, or of the
dashboard of the one at ``address`` (see :class:`StateApiClient`)."""

from typing import Any, Dict, Generator, List, Optional, Sequence, Union

from ray.util.state._explain import Explanation, explain
from ray.util.state.api import StateApiClient
from ray.util.state.common import (
    ActorState,
    ClusterEventState,
    Filter,
    GetApiOptions,
    JobState,
    ListApiOptions,
    NodeState,
    ObjectState,
    PlacementGroupState,
    RuntimeEnvState,
    StateResource,
    SummaryApiOptions,
    SummaryResource,
    TaskState,
    WorkerState,
    sites_recorded,
)

__all__ = [
    "Explanation",
    "StateApiClient",
    "explain",
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


def _list(resource: StateResource, address, filters, limit, timeout, detail, raise_on_missing_output):
    options = ListApiOptions(limit=limit, timeout=timeout, filters=filters, detail=detail)
    return StateApiClient(address).list(resource, options, raise_on_missing_output)


def _get(resource: StateResource, id, address, timeout):  # noqa: A002
    return StateApiClient(address).get(resource, id, GetApiOptions(timeout=timeout))


def list_actors(
    address: Optional[str] = None,
    filters: Optional[Sequence[Filter]] = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> List[ActorState]:
    """The actors of the cluster: those that live, and the last 10,000 that died.

    Args:
        address: Another cluster than the one that this process is connected to: see :class:`StateApiClient`.
        filters: ``(field, "=" or "!=", value)`` each; all must hold. Texts are compared without regard to case.
        limit: How many to return at most, up to 10,000.
        timeout: Seconds to wait.
        detail: Whether to fill in the fields that are None otherwise.
        raise_on_missing_output: Whether it is an error when a node does not answer; else a warning.

    Raises:
        RayStateApiException: ``limit`` is too large, a filter has another form, or a node did not answer.
        ServerUnavailable: There is no such cluster.
    """
    return _list(StateResource.ACTORS, address, filters, limit, timeout, detail, raise_on_missing_output)


def list_tasks(
    address: Optional[str] = None,
    filters: Optional[Sequence[Filter]] = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> List[TaskState]:
    """The tasks of the cluster: those that have not ended, and of each node the last that did; see :func:`list_actors` for the arguments."""
    return _list(StateResource.TASKS, address, filters, limit, timeout, detail, raise_on_missing_output)


def list_nodes(
    address: Optional[str] = None,
    filters: Optional[Sequence[Filter]] = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> List[NodeState]:
    """The nodes of the cluster, dead ones included; see :func:`list_actors` for the arguments."""
    return _list(StateResource.NODES, address, filters, limit, timeout, detail, raise_on_missing_output)


def list_jobs(
    address: Optional[str] = None,
    filters: Optional[Sequence[Filter]] = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> List[JobState]:
    """The jobs of the cluster; see :func:`list_actors` for the arguments."""
    return _list(StateResource.JOBS, address, filters, limit, timeout, detail, raise_on_missing_output)


def list_workers(
    address: Optional[str] = None,
    filters: Optional[Sequence[Filter]] = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> List[WorkerState]:
    """The worker processes and drivers of the cluster: those that live, and of each node the last that ended; see :func:`list_actors` for the arguments."""
    return _list(StateResource.WORKERS, address, filters, limit, timeout, detail, raise_on_missing_output)


def list_objects(
    address: Optional[str] = None,
    filters: Optional[Sequence[Filter]] = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> List[ObjectState]:
    """The references to objects that the cluster's processes hold; see :func:`list_actors` for the arguments."""
    found = _list(StateResource.OBJECTS, address, filters, limit, timeout, detail, raise_on_missing_output)
    _warn_of_sites()
    return found


def list_placement_groups(
    address: Optional[str] = None,
    filters: Optional[Sequence[Filter]] = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> List[PlacementGroupState]:
    """The placement groups of the cluster: none yet; see :func:`list_actors` for the arguments."""
    return _list(StateResource.PLACEMENT_GROUPS, address, filters, limit, timeout, detail, raise_on_missing_output)


def list_runtime_envs(
    address: Optional[str] = None,
    filters: Optional[Sequence[Filter]] = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> List[RuntimeEnvState]:
    """The runtime environments of the cluster: none yet; see :func:`list_actors` for the arguments."""
    return _list(StateResource.RUNTIME_ENVS, address, filters, limit, timeout, detail, raise_on_missing_output)


def list_cluster_events(
    address: Optional[str] = None,
    filters: Optional[Sequence[Filter]] = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> List[ClusterEventState]:
    """The events of the cluster: none yet; see :func:`list_actors` for the arguments."""
    return _list(StateResource.CLUSTER_EVENTS, address, filters, limit, timeout, detail, raise_on_missing_output)


def get_actor(
    id: str,  # noqa: A002
    address: Optional[str] = None,
    timeout: int = 30,
    _explain: bool = False,
) -> Optional[ActorState]:
    """The actor with this id (32 hexadecimal digits) with all that is known of it, or None."""
    return _get(StateResource.ACTORS, id, address, timeout)


def get_task(
    id: Union[str, Any],  # noqa: A002
    address: Optional[str] = None,
    timeout: int = 30,
    _explain: bool = False,
) -> Union[TaskState, List[TaskState], None]:
    """The task with this id, or that makes this ``ObjectRef``, or None; a list if it has had several attempts."""
    if not isinstance(id, str):
        id = id.task_id().hex()  # noqa: A001
    return _get(StateResource.TASKS, id, address, timeout)


def get_node(
    id: str,  # noqa: A002
    address: Optional[str] = None,
    timeout: int = 30,
    _explain: bool = False,
) -> Optional[NodeState]:
    """The node with this id (56 hexadecimal digits), or None."""
    return _get(StateResource.NODES, id, address, timeout)


def get_job(
    id: str,  # noqa: A002
    address: Optional[str] = None,
    timeout: int = 30,
    _explain: bool = False,
) -> Optional[JobState]:
    """The job with this id or submission id, or None."""
    return _get(StateResource.JOBS, id, address, timeout)


def get_worker(
    id: str,  # noqa: A002
    address: Optional[str] = None,
    timeout: int = 30,
    _explain: bool = False,
) -> Optional[WorkerState]:
    """The worker process or driver with this id, or None."""
    return _get(StateResource.WORKERS, id, address, timeout)


def get_objects(
    id: str,  # noqa: A002
    address: Optional[str] = None,
    timeout: int = 30,
    _explain: bool = False,
) -> List[ObjectState]:
    """The references to an object."""
    return _get(StateResource.OBJECTS, id, address, timeout)


def get_placement_group(
    id: str,  # noqa: A002
    address: Optional[str] = None,
    timeout: int = 30,
    _explain: bool = False,
) -> Optional[PlacementGroupState]:
    """The placement group with this id, or None."""
    return _get(StateResource.PLACEMENT_GROUPS, id, address, timeout)


def summarize_tasks(
    address: Optional[str] = None,
    timeout: int = 30,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> Dict:
    """How many attempts of each function are in each state: ``{"cluster": {"summary": …, "total_tasks": …}}``."""
    return StateApiClient(address).summary(
        SummaryResource.TASKS,
        options=SummaryApiOptions(timeout=timeout),
        raise_on_missing_output=raise_on_missing_output,
    )


def summarize_actors(
    address: Optional[str] = None,
    timeout: int = 30,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> Dict:
    """How many actors of each class are in each state: ``{"cluster": {"summary": …, "total_actors": …}}``."""
    return StateApiClient(address).summary(
        SummaryResource.ACTORS,
        options=SummaryApiOptions(timeout=timeout),
        raise_on_missing_output=raise_on_missing_output,
    )


def summarize_objects(
    address: Optional[str] = None,
    timeout: int = 30,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> Dict:
    """How many references there are by the place where they were made: ``{"cluster": {"summary": …, "total_objects": …}}``."""
    _warn_of_sites()
    return StateApiClient(address).summary(
        SummaryResource.OBJECTS,
        options=SummaryApiOptions(timeout=timeout),
        raise_on_missing_output=raise_on_missing_output,
    )


def _warn_of_sites() -> None:
    if not sites_recorded():
        import warnings

        warnings.warn(
            "Callsite is not being recorded. To record callsite information for each ObjectRef created, set env variable "
            "RAY_record_ref_creation_sites=1 during `ray start` and `ray.init`.",
            stacklevel=3,
        )


def list_logs(
    address: Optional[str] = None,
    node_id: Optional[str] = None,
    node_ip: Optional[str] = None,
    glob_filter: Optional[str] = None,
    timeout: int = 30,
) -> Dict[str, List[str]]:
    """The log files of a node by who writes them: ``{"raylet": ["raylet.out", …], "worker_out": […], …}``.

    Args:
        address: Of the cluster, as for :func:`list_actors`.
        node_id: The node.
        node_ip: The node, by its address; one of the two is needed.
        glob_filter: A pattern that the files' names match; None is all of them.
        timeout: In seconds.

    Raises:
        RayStateApiException: The cluster refuses; where the package ``requests`` is installed, it is a
            ``requests.HTTPError``, too.
    """
    from ray.util.state import _logs

    return _logs.names(StateApiClient(address), node_id, node_ip, glob_filter, timeout)


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
) -> Generator[str, None, None]:
    """The text of a log file, a piece at a time.

    The file is one that :func:`list_logs` names, on a node (``filename`` and ``node_id`` or ``node_ip``); that of an
    actor's process; or of the worker with a pid on a node. Or it is what one attempt of a task printed; of an actor's
    task only if the actor has ``RAY_ENABLE_RECORD_ACTOR_TASK_LOGGING=1`` in the ``env_vars`` of its ``runtime_env``.

    Args:
        address: Of the cluster, as for :func:`list_actors`.
        node_id: The node that has the file.
        node_ip: The same, by its address.
        filename: The file's name.
        actor_id: The actor whose file it is.
        task_id: The task.
        pid: The worker's pid.
        follow: Go on with what is written from now on, without end.
        tail: How many of the last lines; -1 is the whole file.
        timeout: In seconds, of each question; ignored with ``follow``.
        suffix: "out" or "err", where a worker's file is meant.
        encoding: Of the file; None yields bytes.
        errors: What to do with bytes that are no text, as of ``bytes.decode``.
        submission_id: Of a submitted job: not there yet.
        attempt_number: Which attempt of the task.
        _interval: With ``follow``: seconds between looks at the file.
        filter_ansi_code: Take out the colors of terminals.

    Raises:
        RayStateApiException: There is no such file, or the question is wrong.
    """
    from ray.util.state import _logs

    asked = {
        "node_id": node_id,
        "node_ip": node_ip,
        "filename": filename,
        "actor_id": actor_id,
        "task_id": task_id,
        "attempt_number": attempt_number,
        "pid": pid,
        "submission_id": submission_id,
        "suffix": suffix,
        "lines": tail,
        "interval": _interval,
        "filter_ansi_code": filter_ansi_code,
    }
    return _logs.text(StateApiClient(address), asked, follow, timeout, encoding, errors)
