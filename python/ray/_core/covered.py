"""Connections by ray://, and the local one that such a connection may cover for a while."""

from __future__ import annotations

import os

from ray._core.state import state

_suspended = []  # clients


def far() -> bool:
    """Whether this process is connected to a daemon far away."""
    client = state.client
    return client is not None and type(client.socket_path) is not str


def suspend() -> dict:
    """Take this process's connection away for a while, in favour of another; see resume."""
    _suspended.append(state.client)
    return state.suspend()


def resume(kept: dict):
    """Use a suspended connection again; there is no other."""
    _suspended.remove(kept["client"])
    state.resume(kept)


def _after_fork():
    for client in _suspended:
        client.abandon()
    _suspended.clear()


os.register_at_fork(after_in_child=_after_fork)
