"""Why objects are not there yet, as the daemon knows it: for errors, and for the log of who waits long."""

from __future__ import annotations

import time

from ray._core import wire

_WARN_LEAST = 600.0  # seconds after which the log says again at the latest what is waited for
_WARNED = 1000  # sets of refs of which is known that the log told of them
_WHY_A_CALL = 500
_EXPLAINED = 10000  # refs whose reason a GetTimeoutError tells


def timed_out(client, channel, ids, wanted):
    """Raise GetTimeoutError, with the reason of each ref."""
    from ray import exceptions

    missing = [oid for oid in ids if oid not in channel.values]
    found = why(client, channel, missing[:_EXPLAINED])
    unknown = f"not asked: the reasons of the first {_EXPLAINED} refs are"
    refs = {ref._id: ref for ref in wanted}
    shown = "; ".join(f"{refs[oid]!r}: {found[oid]}" for oid in missing[:3])
    error = exceptions.GetTimeoutError(
        f"Get timed out: some object(s) not ready. {len(missing)} of {len(ids)} that were asked for are missing: {shown}"
        f"{'; …' if len(missing) > 3 else ''}"
    )
    error.waiting = {refs[oid]: found.get(oid, unknown) for oid in missing}
    raise error


def why(client, channel, ids):
    """For each id the reason why it is not ready, as the daemon knows it."""
    import msgpack

    found = {}
    for i in range(0, len(ids), _WHY_A_CALL):
        part = ids[i : i + _WHY_A_CALL]
        req = next(channel._req)
        client.box.frames.append(wire.call(channel.no, req, msgpack.packb({"m": "why", "ids": part})))
        client.box.flush()
        kind, body = client.answer(channel, req)
        answer = msgpack.unpackb(body, strict_map_key=False)
        if kind == wire.ERROR:
            found.update(dict.fromkeys(part, answer.get("error")))
        else:
            for w in answer["why"]:
                late = "not here in time; by now " if w.get("state") == "READY" else ""
                found[w["id"]] = late + (w.get("reason") or w.get("state") or "")
    return found


def tell(client, channel, after, ids):
    """Log why refs are not ready, and again each time twice as much time has gone by."""
    import logging

    key = hash(frozenset(ids))
    now = time.monotonic()
    first, due = client._warned.get(key, (now - after, now))
    if now < due:
        return
    if key not in client._warned and len(client._warned) >= _WARNED:
        client._warned.clear()
    client._warned[key] = first, now + min(now - first, _WARN_LEAST) * 0.99  # a pause may end a little early
    text = "; ".join(f"ObjectRef({oid.hex()}): {reason}" for oid, reason in why(client, channel, ids[:10]).items())
    logging.getLogger("ray").warning("Waiting for %d object(s) for more than %.0f s: %s", len(ids), now - first, text)
