"""Experimental parts of Ray's interface."""

from typing import Any, Dict, List

from ray.experimental.direct import (
    CommunicatorMetadata,
    TensorTransportManager,
    TensorTransportMetadata,
    deregister_nixl_memory,
    register_nixl_memory,
    register_nixl_memory_pool,
    register_tensor_transport,
    set_nixl_cuda_stream,
    set_target_device_for_ref,
    set_target_for_ref,
    wait_tensor_freed,
)

__all__ = [
    "CommunicatorMetadata",
    "TensorTransportManager",
    "TensorTransportMetadata",
    "deregister_nixl_memory",
    "get_local_object_locations",
    "get_object_locations",
    "register_nixl_memory",
    "register_nixl_memory_pool",
    "register_tensor_transport",
    "set_nixl_cuda_stream",
    "set_resource",
    "set_target_device_for_ref",
    "set_target_for_ref",
    "wait_tensor_freed",
]


def get_object_locations(obj_refs: List, timeout_ms: int = -1) -> Dict[Any, Dict[str, Any]]:
    """Where objects are.

    Args:
        obj_refs: A list of ``ObjectRef``.
        timeout_ms: For programs that give it: the answer is what is known now, and comes at once.

    Returns:
        For each ref ``{"node_ids": [hex], "object_size": bytes or None, "did_spill": False}``.
    """
    from ray import _core
    from ray._api import ensure_initialized

    ensure_initialized()
    by_id = {ref.binary(): ref for ref in obj_refs}
    answer = _core.call("locations", ids=list(by_id))
    return {
        by_id[o["id"]]: {
            "node_ids": [n.hex() if isinstance(n, bytes) else n for n in o.get("nodes") or []],
            "object_size": o.get("size") or None,
            "did_spill": False,
        }
        for o in answer["objects"]
        if o["id"] in by_id
    }


def get_local_object_locations(obj_refs: List) -> Dict[Any, Dict[str, Any]]:
    """Where objects are, as far as this machine knows: the same as :func:`get_object_locations`, which asks nobody else."""
    return get_object_locations(obj_refs)


def set_resource(resource_name, capacity, node_id=None):
    """Not possible: the resources of a node are those that it was started with.

    Raises:
        DeprecationWarning: Always, as in Ray.
    """
    raise DeprecationWarning(
        "Dynamic custom resources are deprecated. Give resources to a node when it is started: `ray start --resources=...`."
    )
