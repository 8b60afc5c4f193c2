"""Tasks as a tree: below each task those that it called, below each actor its calls."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Set

DRIVER_TASK_ID_PREFIX = "ffffffffffffffffffffffffffffffffffffffff"

_FINISHED = "FINISHED"
_FAILED = "FAILED"
_INIT = ".__init__"


@dataclass
class Link:
    """What a node of the tree stands for.

    Attributes:
        type: "actor" or "task".
        id: Its id.
    """

    type: str
    id: str


@dataclass(init=True)
class NestedTaskSummary:
    """A node of the tree.

    Attributes:
        name: The task's name, the actor's class, or the name that all of a group have.
        key: What tells the node from its siblings.
        type: A task's type, "ACTOR" or "GROUP".
        timestamp: When the task was called, or the first below it; milliseconds since 1970.
        state_counts: How many tasks, this one and those below it, are in each state.
        children: The nodes below it.
        link: The task or actor; None of a group.
    """

    name: str
    key: str
    type: str
    timestamp: Optional[int] = None
    state_counts: Dict[str, int] = field(default_factory=dict)
    children: List["NestedTaskSummary"] = field(default_factory=list)
    link: Optional[Link] = None


def tree(tasks: List[Dict[str, Any]], actors: List[Dict[str, Any]]) -> List[NestedTaskSummary]:
    """The nodes at the top: what drivers called, and what was called by tasks that are not known."""
    by_id = {}
    for task in sorted(tasks, key=lambda t: t.get("attempt_number") or 0):
        by_id[task["task_id"]] = task  # the last attempt counts
    actor_rows = {a["actor_id"]: a for a in actors}
    creations = {t["actor_id"]: t for t in by_id.values() if t["type"] == "ACTOR_CREATION_TASK"}
    below: Dict[Optional[str], List[NestedTaskSummary]] = defaultdict(list)
    nodes: Dict[str, NestedTaskSummary] = {}

    def parent_of(task) -> Optional[str]:
        parent = task.get("parent_task_id")
        return parent if parent in by_id and not parent.startswith(DRIVER_TASK_ID_PREFIX) else None

    actor_nodes: Dict[str, NestedTaskSummary] = {}
    for task in by_id.values():
        nodes[task["task_id"]] = NestedTaskSummary(
            name=task["name"],
            key=task["task_id"],
            type=task["type"],
            timestamp=task["creation_time_ms"],
            state_counts={task["state"]: 1},
            link=Link("task", task["task_id"]),
        )
        actor = task["actor_id"]
        if actor is None or task["type"] not in ("ACTOR_TASK", "ACTOR_CREATION_TASK"):
            below[parent_of(task)].append(nodes[task["task_id"]])
            continue
        node = actor_nodes.get(actor)
        if node is None:
            creation = creations.get(actor)
            node = actor_nodes[actor] = NestedTaskSummary(
                name=_class_name(actor, creation, actor_rows, task),
                key=f"actor:{actor}",
                type="ACTOR",
                timestamp=creation["creation_time_ms"] if creation else task["creation_time_ms"],
                link=Link("actor", actor),
            )
            below[parent_of(creation or task)].append(node)
        below[node.key].append(nodes[task["task_id"]])

    seen: Set[str] = set()

    def finish(key: Optional[str]) -> List[NestedTaskSummary]:
        children = below.pop(key, [])
        for node in children:
            if node.key in seen:
                continue
            seen.add(node.key)
            node.children = finish(node.key)
            for child in node.children:
                _add(node.state_counts, child.state_counts)
        return _sorted(_grouped(children))

    return finish(None)


def _class_name(actor, creation, actor_rows, task) -> str:
    row = actor_rows.get(actor)
    if row is not None and (row.get("repr_name") or row.get("class_name")):
        return row.get("repr_name") or row["class_name"]
    name = (creation or task)["func_or_class_name"]
    return name[: -len(_INIT)] if name.endswith(_INIT) else name.split(".")[0]


def _add(counts: Dict[str, int], more: Dict[str, int]) -> None:
    for state, n in more.items():
        counts[state] = counts.get(state, 0) + n


def _grouped(nodes: List[NestedTaskSummary]) -> List[NestedTaskSummary]:
    names: Dict[str, List[NestedTaskSummary]] = defaultdict(list)
    for node in nodes:
        names[node.name].append(node)
    out = []
    for name, members in names.items():
        if len(members) == 1:
            out.append(members[0])
            continue
        times = [m.timestamp for m in members if m.timestamp is not None]
        group = NestedTaskSummary(name=name, key=name, type="GROUP", timestamp=min(times) if times else None)
        group.children = _sorted(members)
        for member in members:
            _add(group.state_counts, member.state_counts)
        out.append(group)
    return out


def _sorted(nodes: List[NestedTaskSummary]) -> List[NestedTaskSummary]:
    """First what runs most, then what waits, then what failed; else by time."""

    def order(node):
        counts = node.state_counts
        running = sum(n for s, n in counts.items() if s.startswith("RUNNING"))
        done, failed = counts.get(_FINISHED, 0), counts.get(_FAILED, 0)
        waiting = sum(counts.values()) - running - done - failed
        return (-running, -waiting, -failed, node.timestamp if node.timestamp is not None else float("inf"))

    return sorted(nodes, key=order)


@dataclass
class TaskSummaries:
    """A summary of tasks.

    Attributes:
        summary: The tree, or figures by function.
        total_tasks: How many attempts of plain tasks there are.
        total_actor_tasks: How many calls of actors.
        total_actor_scheduled: How many creations of actors.
        summary_by: "lineage" or "func_name".
    """

    summary: Any
    total_tasks: int
    total_actor_tasks: int
    total_actor_scheduled: int
    summary_by: str = "func_name"

    @classmethod
    def to_summary_by_lineage(cls, *, tasks: List[Dict[str, Any]], actors: List[Dict[str, Any]]) -> "TaskSummaries":
        """The tree of these rows of ``list_tasks(detail=True)`` and ``list_actors(detail=True)``."""
        types: Dict[str, int] = defaultdict(int)
        for task in tasks:
            types[task["type"]] += 1
        return cls(
            summary=tree(tasks, actors),
            total_tasks=types["NORMAL_TASK"],
            total_actor_tasks=types["ACTOR_TASK"],
            total_actor_scheduled=types["ACTOR_CREATION_TASK"],
            summary_by="lineage",
        )
