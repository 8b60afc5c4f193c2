"""Which kind of actor a worker becomes."""

from __future__ import annotations

from ray._core.actor_async import AsyncActor
from ray._core.actor_threads import ThreadedActor
from ray._core.actor_worker import Actor
from ray._core.state import state


def become(host, fields: dict):
    """Make a worker that has taken on its job the worker of an actor.

    Args:
        host: The worker.
        fields: The map ``actor`` of its SETUP.
    """
    concurrency = fields.get("max_concurrency") or 1
    if fields.get("is_async"):
        kind = AsyncActor
    elif concurrency > 1 or fields.get("groups"):
        kind = ThreadedActor
    else:
        kind = Actor
    actor = kind(host, fields)
    host.actor = state.actor = actor
    host.suffix = actor.id
    host.execute = actor.execute
    host.idle_title = "ray::" + actor.class_name
    host.show(actor.class_name)
