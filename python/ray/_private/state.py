"""The state of the cluster, under the names that other packages import."""

from typing import Any, Dict, List, Optional

from ray._api import available_resources, cluster_resources, nodes, timeline

__all__ = [
    "actors",
    "available_resources",
    "available_resources_per_node",
    "cluster_resources",
    "jobs",
    "node_ids",
    "nodes",
    "timeline",
    "total_resources_per_node",
]


def actors(
    actor_id: Optional[str] = None, job_id: Any = None, actor_state_name: Optional[str] = None
) -> Dict[str, Dict[str, Any]]:
    """What the cluster knows of actors, with Ray's keys.

    Args:
        actor_id: Only this one; its facts themselves are returned, or an empty dict.
        job_id: Only those of a job, a ``JobID`` or its hexadecimal text.
        actor_state_name: Only those in this state.

    Returns:
        Facts by hexadecimal id.
    """
    from ray._api import _call_state

    rows = [_actor(row) for row in _call_state("actors")["actors"]]
    if actor_id is not None:
        return next((row for row in rows if row["ActorID"] == actor_id), {})
    if job_id is not None:
        job_id = job_id if isinstance(job_id, str) else job_id.hex()
    return {
        row["ActorID"]: row
        for row in rows
        if job_id in (None, row["JobID"]) and actor_state_name in (None, row["State"])
    }


def _actor(row: Dict[str, Any]) -> Dict[str, Any]:
    def shown(name):
        value = row.get(name)
        return value.hex() if isinstance(value, bytes) else value or ""

    where = {"IPAddress": row.get("ip") or "", "Port": row.get("port") or 0, "NodeID": shown("node_id")}
    return {
        "ActorID": shown("actor_id"),
        "ActorClassName": row.get("class_name") or "",
        "IsDetached": bool(row.get("is_detached")),
        "Name": row.get("name") or "",
        "RayNamespace": row.get("ray_namespace") or "",
        "JobID": shown("job_id"),
        "Address": where,
        "OwnerAddress": {"IPAddress": "", "Port": 0, "NodeID": ""},
        "State": row.get("state") or "",
        "NumRestarts": row.get("num_restarts") or 0,
        "Timestamp": float(row.get("end_ms") or row.get("start_ms") or 0),
        "StartTime": row.get("start_ms") or 0,
        "EndTime": row.get("end_ms") or 0,
        "DeathCause": row.get("death_cause"),
        "Pid": row.get("pid") or 0,
    }


def node_ids() -> List[str]:
    """The resources that stand for one node each: ``node:<ip>``."""
    return [
        name
        for node in nodes()
        for name in node["Resources"]
        if name.startswith("node:") and name != "node:__internal_head__"
    ]


def total_resources_per_node() -> Dict[str, Dict[str, float]]:
    """What each living node has, by node id."""
    return {n["NodeID"]: dict(n["Resources"]) for n in nodes() if n["Alive"]}


def available_resources_per_node() -> Dict[str, Dict[str, float]]:
    """What is free on each living node, by node id, as the head heard last."""
    from ray._api import _call_state

    return {
        n["node_id"].hex(): {k: v for k, v in n["available"].items() if v}
        for n in _call_state("nodes")["nodes"]
        if n["alive"]
    }


def jobs() -> List[Dict[str, Any]]:
    """The jobs of the cluster, with Ray's keys."""
    from ray.util.state import list_jobs

    return [
        {
            "JobID": job.job_id,
            "DriverIPAddress": job.driver_info.node_ip_address,
            "DriverPid": int(job.driver_info.pid),
            "Timestamp": job.end_time or job.start_time,
            "StartTime": job.start_time,
            "EndTime": job.end_time,
            "IsDead": job.status != "RUNNING",
            "Entrypoint": job.entrypoint,
        }
        for job in list_jobs(detail=True, limit=10_000)
    ]
