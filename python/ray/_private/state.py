"""The state of the cluster, under the names that other packages import."""

from typing import Dict, List

from ray._api import available_resources, cluster_resources, nodes

__all__ = [
    "available_resources",
    "available_resources_per_node",
    "cluster_resources",
    "node_ids",
    "nodes",
    "total_resources_per_node",
]


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
    """What is free on each node. Not there yet."""
    from ray._missing import missing

    raise missing("ray._private.state.available_resources_per_node()")
