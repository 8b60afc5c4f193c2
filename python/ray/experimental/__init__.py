"""Experimental parts of Ray's interface."""

from typing import Any, Dict, List

from ray._missing import missing

__all__ = ["get_local_object_locations", "get_object_locations"]


def get_object_locations(obj_refs: List, timeout_ms: int = -1) -> Dict[Any, Dict[str, Any]]:
    """Where objects are.

    Args:
        obj_refs: A list of ``ObjectRef``.
        timeout_ms: Must be -1: the answer is what is known now.

    Returns:
        For each ref ``{"node_ids": [hex], "object_size": bytes or None, "did_spill": False}``.
    """
    from ray import _core
    from ray._api import ensure_initialized

    if timeout_ms != -1:
        raise missing("get_object_locations(timeout_ms=...)")
    ensure_initialized()
    by_id = {ref.binary(): ref for ref in obj_refs}
    answer = _core.call("locations", ids=list(by_id))
    return {
        by_id[o["id"]]: {
            "node_ids": [n.hex() if isinstance(n, bytes) else n for n in o.get("nodes") or []],
            "object_size": o.get("size"),
            "did_spill": False,
        }
        for o in answer["objects"]
        if o["id"] in by_id
    }


def get_local_object_locations(obj_refs: List) -> Dict[Any, Dict[str, Any]]:
    """Where objects are, as far as this process knows without asking. Not there yet."""
    raise missing("get_local_object_locations()")
