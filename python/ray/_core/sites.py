"""Where in a program calls, puts and actors are made: recorded on request only, for it costs more than a call does."""

from __future__ import annotations

import os
import sys

from ray._core import wire

# Ray's variables: the first records references for `ray memory`, the second tasks and actors.
_SWITCHES = ("RAY_record_ref_creation_sites", "RAY_record_task_actor_creation_sites")
_DEPTH = 8  # frames of the program that are told
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

_KINDS = {
    "_api.py": "(put object) ",
    "remote_function.py": "(task call) ",
    "_actor_handle.py": "(actor call) ",
    "_actor_class.py": "(actor creation) ",
}


def wanted() -> bool:
    """Whether the environment asks for it."""
    return any(os.environ.get(name, "").lower() in ("1", "true") for name in _SWITCHES)


def enable(client) -> None:
    """Have a client tell the daemon of the place of each id that it takes, if the environment asks for that."""
    if not wanted():
        return
    take, frames = client.next_unique, client.box.frames

    def next_unique():
        unique8 = take()
        frames.append(wire.call_site(unique8, here()))
        return unique8

    client.next_unique = next_unique


def here() -> str:
    """The place in the program that called ray, innermost frame first."""
    frame = sys._getframe(1)
    kind, lines = "", []
    while frame is not None and len(lines) < _DEPTH:
        code = frame.f_code
        if code.co_filename.startswith(_OURS):
            if not lines:
                kind = _KINDS.get(os.path.basename(code.co_filename), kind)
        else:
            lines.append(f"{code.co_filename}:{code.co_name}:{frame.f_lineno}")
        frame = frame.f_back
    return kind + " | ".join(lines)
