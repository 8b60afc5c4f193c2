"""Several ``ray://`` connections of one process (``allow_multiple``): each thread says which one it means.

State then finds its fields by thread. Only a process that asks for it pays for that: its State object changes its class.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager

from ray._core.client import Client
from ray._core.state import State, state

_NAMES = tuple(name for name in State.__slots__ if name != "forked")
_here = threading.local()  # .fields: those of the connection that this thread means; absent or None: the process's own
_clients = []  # of all such connections


def _field(name):
    own = getattr(State, name)

    def get(self):
        fields = getattr(_here, "fields", None)
        return own.__get__(self) if fields is None else fields[name]

    def put(self, value):
        fields = getattr(_here, "fields", None)
        if fields is None:
            own.__set__(self, value)
        else:
            fields[name] = value

    return property(get, put)


_ByThread = type("_ByThread", (State,), {"__slots__": (), **{name: _field(name) for name in _NAMES}})


class _Strict(Client):
    # It knows its own refs: those of another connection would be found in the same cluster.

    def get(self, wanted, timeout=None):
        self._check([wanted] if not isinstance(wanted, list) else wanted)
        return super().get(wanted, timeout)

    def wait(self, wanted, num_returns=1, timeout=None, fetch_local=True):
        if isinstance(wanted, list):
            self._check(wanted)
        return super().wait(wanted, num_returns, timeout, fetch_local)

    def _check(self, wanted):
        for ref in wanted:
            oid = getattr(ref, "_id", None)
            if oid is not None:
                known = self.table.live.get(oid)
                if known is None or known() is not ref:
                    raise ValueError(
                        f"{ref!r} is of another ray:// connection of this process: use it within `with context:` of that one."
                    )


def enable():
    """From now on, threads may mean connections of their own."""
    if type(state) is State:
        state.__class__ = _ByThread
    if state.client is not None:
        state.client.__class__ = _Strict


def enabled() -> bool:
    """Whether this process uses that."""
    return type(state) is not State


def enter(fields):
    """From now on, until leave(), this thread means the connection that fields() made and connect() filled."""
    _here.__dict__.setdefault("before", []).append(getattr(_here, "fields", None))
    _here.fields = fields


def leave():
    """Mean what this thread meant before enter()."""
    _here.fields = _here.before.pop()


@contextmanager
def within(fields):
    """A block between enter() and leave()."""
    enter(fields)
    try:
        yield
    finally:
        leave()


def fields() -> dict:
    """Room for what is known of one more connection."""
    return dict.fromkeys(_NAMES)


def connected():
    """The connection that this thread means is there."""
    state.client.__class__ = _Strict
    _clients.append(state.client)


def ended(client):
    """A connection is closed."""
    if client in _clients:
        _clients.remove(client)


def count() -> int:
    """How many such connections there are."""
    return len(_clients)


def _after_fork():
    for client in _clients:
        client.abandon()
    _clients.clear()


os.register_at_fork(after_in_child=_after_fork)
