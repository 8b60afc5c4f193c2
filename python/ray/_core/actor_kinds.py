"""Which kind of actor a worker becomes."""

from __future__ import annotations

import os

from ray._core import printing
from ray._core.actor_async import AsyncActor
from ray._core.actor_threads import ThreadedActor
from ray._core.actor_worker import Actor
from ray._core.state import current_task, state
from ray._core.wire import pack_u32


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
    apart = os.environ.get("RAY_ENABLE_RECORD_ACTOR_TASK_LOGGING", "").lower() in ("1", "true")
    printing.tell_apart(_call if apart else None)


def _call() -> bytes:
    """Which call runs here: the unique part of its id and its attempt; empty if none does."""
    task = current_task()
    return b"" if task is None else task.task_id[:8] + pack_u32(task.attempt)
