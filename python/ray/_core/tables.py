"""The cluster's tables: tasks, objects, workers, nodes, jobs, actors."""

from __future__ import annotations

from ray._core import wire
from ray._core.state import connected


def ask(question: dict) -> dict:
    """Ask for rows of a table (docs/protocol.md, ``state``).

    Returns:
        The answer's map, or ``{"bad": text}`` if the question has none.

    Raises:
        RayError: What the daemon answered, as Ray's class.
    """
    import msgpack

    client = connected()
    channel = client.channel()
    req = channel.request()
    client.box.frames.append(wire.call(channel.no, req, msgpack.packb({"m": "state", "q": question})))
    client.box.flush(claims=True)
    last = client.reply(*client.answer(channel, req))
    if last:
        return last
    answers = channel.answers
    parts = [answers[key] for key in sorted(k for k in answers if type(k) is tuple and k[0] == req)]
    answers.clear()
    return msgpack.unpackb(b"".join(parts), strict_map_key=False)
