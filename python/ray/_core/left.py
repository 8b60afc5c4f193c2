"""What a daemon still keeps, from its own tables: for tests, and for who looks for a leak."""

from __future__ import annotations

import time


def of(node: dict) -> dict:
    """Ask the daemon with this node file, over a connection of its own that holds nothing.

    Returns:
        ``left``: what there is of tasks, objects, actors and bytes, in words, "" for nothing; ``sizes``: of the tables.
        The connection that asks is one of the sessions, and its job one of the jobs.

    Raises:
        ConnectionError, AuthenticationError: There is no such daemon, or it is another user's.
    """
    import ray
    from ray import _address
    from ray._core import client, greeting, outbox

    key = _address.token(node).encode()
    sock, welcome, _ = greeting.dial(node["socket"], "driver", key, version=ray.__version__, job={})
    box = outbox.Outbox(sock)
    mine = client.Client(box, None, welcome, node["socket"], key, ray.__version__, "channel")
    box.start()
    try:
        return mine.call("tables")
    finally:
        mine.close()


def until_empty(nodes, patience: float = 60.0) -> None:
    """Wait until no daemon of a cluster keeps a task, an object, an actor or a byte in its store.

    Raises:
        AssertionError: Some do, and what.
    """
    deadline = time.monotonic() + patience
    pause = 0.01
    while True:
        left = {}
        for node in nodes:
            found = of(node)
            used = found["sizes"].get("arena_bytes", 0)
            if found["left"] or used:
                left[node["node_ip"], node["node_id"][:8]] = found["left"] or f"{used} bytes of the store are in use"
        if not left:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"after {patience:g} s: {left}")
        time.sleep(pause)
        pause = min(pause * 1.5, 1.0)
