"""What the state API is asked and returns."""

import os
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple, Union

from ray.util.state._lineage import DRIVER_TASK_ID_PREFIX, Link, NestedTaskSummary, TaskSummaries
from ray.util.state.exception import RayStateApiException

__all__ = [
    "DEFAULT_LIMIT",
    "DEFAULT_LOG_LIMIT",
    "DEFAULT_RPC_TIMEOUT",
    "DRIVER_TASK_ID_PREFIX",
    "RAY_MAX_LIMIT_FROM_API_SERVER",
    "RAY_MAX_LIMIT_FROM_DATA_SOURCE",
    "ActorState",
    "ClusterEventState",
    "GetApiOptions",
    "GetLogOptions",
    "Humanify",
    "JobState",
    "Link",
    "ListApiOptions",
    "NestedTaskSummary",
    "NodeState",
    "ObjectState",
    "PlacementGroupState",
    "PredicateType",
    "RuntimeEnvState",
    "StateResource",
    "StateSchema",
    "SummaryApiOptions",
    "SummaryResource",
    "SupportedFilterType",
    "TaskState",
    "TaskSummaries",
    "WorkerState",
    "resource_to_schema",
    "state_column",
]

DEFAULT_RPC_TIMEOUT = 30
DEFAULT_LIMIT = 100
DEFAULT_LOG_LIMIT = 1000
RAY_MAX_LIMIT_FROM_API_SERVER = 10_000
RAY_MAX_LIMIT_FROM_DATA_SOURCE = 10_000

PredicateType = str  # "=" or "!="
SupportedFilterType = Union[str, bool, int, float]
Filter = Tuple[str, PredicateType, SupportedFilterType]


class StateResource(Enum):
    """The kinds of things that are listed."""

    ACTORS = "actors"
    JOBS = "jobs"
    PLACEMENT_GROUPS = "placement_groups"
    NODES = "nodes"
    WORKERS = "workers"
    TASKS = "tasks"
    OBJECTS = "objects"
    RUNTIME_ENVS = "runtime_envs"
    CLUSTER_EVENTS = "cluster_events"


class SummaryResource(Enum):
    """The kinds of things of which there are summaries."""

    ACTORS = "actors"
    TASKS = "tasks"
    OBJECTS = "objects"


class BadFilter(RayStateApiException, ValueError):
    """A filter of a form that there is not."""


@dataclass
class ListApiOptions:
    """How a kind of things is listed.

    Attributes:
        limit: How many to return at most, up to 10,000.
        timeout: Seconds.
        detail: Whether to fill in the fields that are None otherwise.
        filters: ``(field, "=" or "!=", value)`` each; all must hold. Texts are compared without regard to case.
        exclude_driver: Whether to leave out the tasks that stand for drivers.
        server_timeout_multiplier: Which part of ``timeout`` the cluster may use.
    """

    limit: int = DEFAULT_LIMIT
    timeout: float = DEFAULT_RPC_TIMEOUT
    detail: bool = False
    filters: Optional[Sequence[Filter]] = field(default_factory=list)
    exclude_driver: bool = True
    server_timeout_multiplier: float = 0.8

    def __post_init__(self):
        if self.filters is None:
            self.filters = []
        for given in self.filters:
            if not isinstance(given, (tuple, list)) or len(given) != 3:
                raise BadFilter(f'Given filter {given!r} is not (field, "=" or "!=", value).')
            if given[1] not in ("=", "!="):
                raise BadFilter(f"Unsupported filter predicate {given[1]} is given. Available predicates: =, !=.")


@dataclass
class GetApiOptions:
    """How one thing is asked for.

    Attributes:
        timeout: Seconds.
        server_timeout_multiplier: Which part of ``timeout`` the cluster may use.
    """

    timeout: float = DEFAULT_RPC_TIMEOUT
    server_timeout_multiplier: float = 0.8


@dataclass
class SummaryApiOptions:
    """How a summary is asked for.

    Attributes:
        timeout: Seconds.
        filters: As of ListApiOptions.
        summary_by: "func_name" of tasks; None for the usual.
    """

    timeout: float = DEFAULT_RPC_TIMEOUT
    filters: Optional[Sequence[Filter]] = field(default_factory=list)
    summary_by: Optional[str] = None


@dataclass
class GetLogOptions:
    """Which log is asked for, and how.

    Attributes:
        timeout: Seconds.
        node_id: The node that has the file.
        node_ip: Its address.
        media_type: "file" for what is there, "stream" to follow it.
        filename: The file.
        download_filename: What a browser calls it.
        actor_id: The actor whose log it is.
        task_id: The task.
        attempt_number: Of that task.
        lines: How many of the last lines.
        interval: Seconds between two looks.
        suffix: "out" or "err".
        pid: The process whose log it is.
        submission_id: The job.
        encoding: Of the file.
        errors: What to do with bytes that are no text.
    """

    timeout: int = DEFAULT_RPC_TIMEOUT
    node_id: Optional[str] = None
    node_ip: Optional[str] = None
    media_type: str = "file"
    filename: Optional[str] = None
    download_filename: str = "file.txt"
    actor_id: Optional[str] = None
    task_id: Optional[str] = None
    attempt_number: int = 0
    lines: int = DEFAULT_LOG_LIMIT
    interval: Optional[float] = None
    suffix: str = "out"
    pid: Optional[int] = None
    submission_id: Optional[str] = None
    encoding: Optional[str] = "utf-8"
    errors: Optional[str] = "strict"


class Humanify:
    """Values as tables show them."""

    @staticmethod
    def timestamp(x: Any) -> str:
        """Milliseconds since 1970 as a local date and time."""
        return str(datetime.fromtimestamp(x / 1000))

    @staticmethod
    def memory(x: float) -> str:
        """Bytes in the largest unit of which there is one."""
        for unit in ("B", "KiB", "MiB"):
            if x < 1024:
                return f"{x:.3f} {unit}"
            x /= 1024
        return f"{x:.3f} GiB"

    @staticmethod
    def duration(x: float) -> str:
        """Milliseconds as hours, minutes and seconds."""
        return str(timedelta(milliseconds=x))

    @staticmethod
    def node_resources(resources: Dict[str, Any]) -> Dict[str, Any]:
        """Resources with memory in readable units."""
        return {k: Humanify.memory(v) if "memory" in k else v for k, v in resources.items()}

    @staticmethod
    def row(schema: Any, row: Dict[str, Any]) -> Dict[str, Any]:
        """A row whose columns with a ``format_fn`` are formatted by it."""
        row = dict(row)
        for f in fields(schema):
            form = f.metadata.get("format_fn")
            if form is not None and row.get(f.name) is not None:
                row[f.name] = form(row[f.name])
        return row


def state_column(*, filterable: bool, detail: bool = False, format_fn: Any = None, **kwargs: Any):
    """A field of a row.

    Args:
        filterable: Whether a filter may name it.
        detail: Whether it is shown on request only.
        format_fn: How people are shown it.
        kwargs: Those of ``dataclasses.field``.
    """
    return field(metadata={"filter": filterable, "detail": detail, "format_fn": format_fn}, **kwargs)


def _always(filterable: bool = True):
    return state_column(filterable=filterable, default=None)


def _detail(filterable: bool = False):
    return state_column(filterable=filterable, detail=True, default=None)


class StateSchema:
    """A row whose fields are also keys: ``row["state"]``. Fields that are shown on request only are None otherwise."""

    def __getitem__(self, key: str) -> Any:
        if key not in self.__dataclass_fields__:  # type: ignore[attr-defined]
            raise KeyError(key)
        return getattr(self, key)

    def get(self, key: str, default: Any = None) -> Any:
        """The field with this name, or ``default``."""
        return getattr(self, key) if key in self.__dataclass_fields__ else default  # type: ignore[attr-defined]

    def asdict(self) -> Dict[str, Any]:
        """All fields."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def columns(cls) -> Set[str]:
        """The names of all fields."""
        return {f.name for f in fields(cls)}  # type: ignore[arg-type]

    @classmethod
    def list_columns(cls, detail: bool = True) -> List[str]:
        """The names of the fields in their order; all, or those that are always shown."""
        return [f.name for f in fields(cls) if detail or not f.metadata.get("detail")]  # type: ignore[arg-type]

    @classmethod
    def base_columns(cls) -> Set[str]:
        """The names of the fields that are always shown."""
        return set(cls.list_columns(detail=False))

    @classmethod
    def detail_columns(cls) -> Set[str]:
        """The names of the fields that are shown with ``detail``: all."""
        return cls.columns()

    @classmethod
    def filterable_columns(cls) -> Set[str]:
        """The names of the fields that a filter may name."""
        return {f.name for f in fields(cls) if f.metadata.get("filter")}  # type: ignore[arg-type]

    @classmethod
    def _of(cls, row: Dict[str, Any]):
        return cls(**{f.name: row.get(f.name) for f in fields(cls)})  # type: ignore[arg-type]


@dataclass
class ActorState(StateSchema):
    """An actor.

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
        call_site: Where in its program it was created, if that is recorded (RAY_record_task_actor_creation_sites).
        label_selector: Which labels its node must have.
        fallback_strategy: Not recorded.
    """

    actor_id: Optional[str] = _always()
    class_name: Optional[str] = _always()
    state: Optional[str] = _always()
    job_id: Optional[str] = _always()
    name: Optional[str] = _always()
    node_id: Optional[str] = _always()
    pid: Optional[int] = _always()
    ray_namespace: Optional[str] = _always()
    serialized_runtime_env: Optional[str] = _detail()
    required_resources: Optional[Dict[str, float]] = _detail()
    death_cause: Optional[Dict[str, Any]] = _detail()
    is_detached: Optional[bool] = _detail()
    placement_group_id: Optional[str] = _detail(True)
    repr_name: Optional[str] = _detail(True)
    num_restarts: Optional[int] = _detail()
    num_restarts_due_to_lineage_reconstruction: Optional[int] = _detail()
    num_restarts_due_to_node_preemption: Optional[int] = _detail()
    call_site: Optional[str] = _detail()
    label_selector: Optional[Dict[str, str]] = _detail()
    fallback_strategy: Optional[Any] = _detail()


@dataclass
class TaskState(StateSchema):
    """An attempt of a task.

    Attributes:
        task_id: Its id, 48 hexadecimal digits.
        attempt_number: 0 for the first.
        name: The call's name: that of its options, or the function's.
        state: Such as "PENDING_NODE_ASSIGNMENT", "RUNNING", "FINISHED" or "FAILED".
        job_id: Its job.
        actor_id: The actor that it creates or is a call of.
        type: "NORMAL_TASK", "ACTOR_CREATION_TASK" or "ACTOR_TASK".
        func_or_class_name: The function, or class and method.
        parent_task_id: The task that called it, or the driver's.
        node_id: Where it runs or ran.
        worker_id: In which process.
        worker_pid: That process.
        error_type: Why it failed.
        language: "PYTHON".
        required_resources: Name to quantity.
        runtime_env_info: Its environment.
        placement_group_id: Its placement group.
        events: The states that it went through, with times.
        profiling_data: What is known of its phases.
        creation_time_ms: When it was called.
        start_time_ms: When it began to run.
        end_time_ms: When it ended.
        task_log_info: The files that its process writes to.
        error_message: What it failed of.
        is_debugger_paused: Not recorded.
        call_site: Where in its program it was called, if that is recorded (RAY_record_task_actor_creation_sites).
        label_selector: Which labels its node must have.
        fallback_strategy: Not recorded.
    """

    task_id: Optional[str] = _always()
    attempt_number: Optional[int] = _always()
    name: Optional[str] = _always()
    state: Optional[str] = _always()
    job_id: Optional[str] = _always()
    actor_id: Optional[str] = _always()
    type: Optional[str] = _always()
    func_or_class_name: Optional[str] = _always()
    parent_task_id: Optional[str] = _always()
    node_id: Optional[str] = _always()
    worker_id: Optional[str] = _always()
    worker_pid: Optional[int] = _always()
    error_type: Optional[str] = _always()
    language: Optional[str] = _detail(True)
    required_resources: Optional[Dict[str, float]] = _detail()
    runtime_env_info: Optional[Dict[str, Any]] = _detail()
    placement_group_id: Optional[str] = _detail(True)
    events: Optional[List[Dict[str, Any]]] = _detail()
    profiling_data: Optional[Dict[str, Any]] = _detail()
    creation_time_ms: Optional[int] = _detail()
    start_time_ms: Optional[int] = _detail()
    end_time_ms: Optional[int] = _detail()
    task_log_info: Optional[Dict[str, Any]] = _detail()
    error_message: Optional[str] = _detail()
    is_debugger_paused: Optional[bool] = _detail(True)
    call_site: Optional[str] = _detail()
    label_selector: Optional[Dict[str, str]] = _detail()
    fallback_strategy: Optional[Any] = _detail()


@dataclass
class NodeState(StateSchema):
    """A node.

    Attributes:
        node_id: Its id, 56 hexadecimal digits.
        node_ip: Its address.
        is_head_node: Whether the head role runs on it.
        state: "ALIVE" or "DEAD".
        state_message: Why it is dead.
        node_name: Its name.
        resources_total: Name to quantity; memory in bytes. Empty for a dead node.
        labels: Its labels.
        start_time_ms: When it joined.
        end_time_ms: When it died; 0 while it lives.
    """

    node_id: Optional[str] = _always()
    node_ip: Optional[str] = _always()
    is_head_node: Optional[bool] = _always()
    state: Optional[str] = _always()
    state_message: Optional[str] = _always(False)
    node_name: Optional[str] = _always()
    resources_total: Optional[Dict[str, float]] = _always(False)
    labels: Optional[Dict[str, str]] = _always(False)
    start_time_ms: Optional[int] = _detail()
    end_time_ms: Optional[int] = _detail()


@dataclass
class DriverInfo(StateSchema):
    """The driver of a job.

    Attributes:
        id: The job's id.
        node_ip_address: Where it runs.
        pid: Its process, as text.
    """

    id: Optional[str] = _always()
    node_ip_address: Optional[str] = _always()
    pid: Optional[str] = _always()

    def __iter__(self):
        """Pairs of names and values, so that ``dict(driver_info)`` works."""
        return iter(vars(self).items())


@dataclass
class JobState(StateSchema):
    """A job: a driver, or what was submitted.

    Attributes:
        job_id: Its id, 8 hexadecimal digits.
        submission_id: None for a driver.
        entrypoint: The command.
        type: "DRIVER" or "SUBMISSION".
        status: "RUNNING", "SUCCEEDED" or "FAILED", and those of submitted jobs.
        message: What its end says.
        error_type: Not recorded.
        driver_info: Its driver.
        start_time: Milliseconds since 1970.
        end_time: The same; 0 while it runs.
        metadata: What its submitter said of it.
        runtime_env: Not recorded.
        driver_agent_http_address: Not recorded.
        driver_node_id: The driver's node.
        driver_exit_code: Not recorded.
    """

    job_id: Optional[str] = _always()
    submission_id: Optional[str] = _always()
    entrypoint: Optional[str] = _always(False)
    type: Optional[str] = _always()
    status: Optional[str] = _always()
    message: Optional[str] = _always(False)
    error_type: Optional[str] = _always(False)
    driver_info: Optional[DriverInfo] = _always(False)
    start_time: Optional[int] = _detail()
    end_time: Optional[int] = _detail()
    metadata: Optional[Dict[str, str]] = _detail()
    runtime_env: Optional[Dict[str, Any]] = _detail()
    driver_agent_http_address: Optional[str] = _detail()
    driver_node_id: Optional[str] = _detail()
    driver_exit_code: Optional[int] = _detail()

    @classmethod
    def _of(cls, row: Dict[str, Any]):
        self = super()._of(row)
        if isinstance(self.driver_info, dict):
            self.driver_info = DriverInfo._of(self.driver_info)
        return self


@dataclass
class WorkerState(StateSchema):
    """A worker process, or a driver.

    Attributes:
        worker_id: Its id, 56 hexadecimal digits.
        is_alive: Whether it lives.
        worker_type: "WORKER" or "DRIVER".
        exit_type: How it ended: "SYSTEM_ERROR", "INTENDED_SYSTEM_EXIT", "USER_ERROR", "INTENDED_USER_EXIT" or
            "NODE_OUT_OF_MEMORY".
        node_id: Its node.
        ip: That node's address.
        pid: The process.
        exit_detail: Why it ended.
        worker_launch_time_ms: When it was forked.
        worker_launched_time_ms: The same.
        start_time_ms: The same.
        end_time_ms: When it ended; 0 while it lives.
        debugger_port: Not recorded.
        num_paused_threads: Not recorded.
    """

    worker_id: Optional[str] = _always()
    is_alive: Optional[bool] = _always()
    worker_type: Optional[str] = _always()
    exit_type: Optional[str] = _always()
    node_id: Optional[str] = _always()
    ip: Optional[str] = _always()
    pid: Optional[int] = _always()
    exit_detail: Optional[str] = _detail()
    worker_launch_time_ms: Optional[int] = _detail()
    worker_launched_time_ms: Optional[int] = _detail()
    start_time_ms: Optional[int] = _detail()
    end_time_ms: Optional[int] = _detail()
    debugger_port: Optional[int] = _detail(True)
    num_paused_threads: Optional[int] = _detail(True)


@dataclass
class ObjectState(StateSchema):
    """A reference to an object that a process holds.

    Attributes:
        object_id: The object's id, 56 hexadecimal digits.
        object_size: Its bytes; -1 while that is not known.
        task_status: The state of the task that makes it; "FINISHED" of a put.
        attempt_number: Of that task, from 1.
        reference_type: "LOCAL_REFERENCE", "PINNED_IN_MEMORY", "USED_BY_PENDING_TASK", "CAPTURED_IN_OBJECT",
            "ACTOR_HANDLE" or "UNKNOWN_STATUS".
        call_site: Where it was made; "disabled" while that is not recorded (RAY_record_ref_creation_sites).
        type: "DRIVER" or "WORKER".
        pid: The process.
        ip: Its node's address.
    """

    object_id: Optional[str] = _always()
    object_size: Optional[int] = _always()
    task_status: Optional[str] = _always()
    attempt_number: Optional[int] = _always()
    reference_type: Optional[str] = _always()
    call_site: Optional[str] = _always()
    type: Optional[str] = _always()
    pid: Optional[int] = _always()
    ip: Optional[str] = _always()


@dataclass
class PlacementGroupState(StateSchema):
    """A placement group. There are none yet."""

    placement_group_id: Optional[str] = _always()
    name: Optional[str] = _always()
    creator_job_id: Optional[str] = _always()
    state: Optional[str] = _always()
    bundles: Optional[List[Dict[str, Any]]] = _detail()
    is_detached: Optional[bool] = _detail(True)
    stats: Optional[Dict[str, Any]] = _detail()
    topology_strategy: Optional[Any] = _detail()
    topology_assignments: Optional[Any] = _detail()


@dataclass
class RuntimeEnvState(StateSchema):
    """A runtime environment on a node. There are none yet."""

    runtime_env: Optional[Dict[str, Any]] = _always()
    success: Optional[bool] = _always()
    creation_time_ms: Optional[float] = _always(False)
    node_id: Optional[str] = _always()
    ref_cnt: Optional[int] = _detail()
    error: Optional[str] = _detail(True)


@dataclass
class ClusterEventState(StateSchema):
    """An event of the cluster. There are none yet."""

    severity: Optional[str] = _always()
    time: Optional[str] = _always(False)
    source_type: Optional[str] = _always()
    message: Optional[str] = _always(False)
    event_id: Optional[str] = _always()
    custom_fields: Optional[Dict[str, Any]] = _detail()


_SCHEMAS = {
    StateResource.ACTORS: ActorState,
    StateResource.JOBS: JobState,
    StateResource.PLACEMENT_GROUPS: PlacementGroupState,
    StateResource.NODES: NodeState,
    StateResource.WORKERS: WorkerState,
    StateResource.TASKS: TaskState,
    StateResource.OBJECTS: ObjectState,
    StateResource.RUNTIME_ENVS: RuntimeEnvState,
    StateResource.CLUSTER_EVENTS: ClusterEventState,
}


def resource_to_schema(resource: StateResource):
    """The class of a kind's rows."""
    return _SCHEMAS[resource]


def sites_recorded() -> bool:
    """Whether this process records where references are made."""
    return os.environ.get("RAY_record_ref_creation_sites", "").lower() in ("1", "true")
