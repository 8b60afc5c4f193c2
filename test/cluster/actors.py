"""What the tests of actors share: beginnings of drivers, and a cluster of four nodes."""

import json

HEAD = """
    import os, sys, time, ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as Affinity
    ray.init("auto", log_to_driver=False)
    def here():
        return ray.get_runtime_context().get_node_id()
"""
# A driver on the daemon whose address is its first argument; the head's is the second.
ON = HEAD.replace('ray.init("auto", ', "ray.init(address=sys.argv[2], _node_ip_address=sys.argv[1], ")


def actors_of(home, *more):
    """What ``ray list actors`` prints, as a list of dicts."""
    out = home.ray("list", "actors", "--format", "json", "--limit", "10000", *more).stdout
    return json.loads(out[out.index("[") :])


def four(home, **kwargs):
    """A head and three more nodes with a resource each: b, c, d."""
    head = home.head(**kwargs)
    return [head] + [
        home.node(head["gcs_address"], "--resources", json.dumps({name: 100}), ip=f"127.0.0.{k}", **kwargs)
        for k, name in ((2, "b"), (3, "c"), (4, "d"))
    ]
