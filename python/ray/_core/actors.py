"""Actors as their callers see them: creation, calls, and what keeps an actor alive."""

from __future__ import annotations

from ray._core import refs, streams, wire
from ray._core.state import connected, state

_new = object.__new__
_ObjectRef = refs.ObjectRef
_Claim = refs.Claim
_ONE = b"\x01\x00\x00\x00"
# A concurrency group that every actor has, for calls that must not wait for the program's own; one at a time, in a thread.
SYSTEM_GROUP = "_ray_system"


class Target:
    """An actor that can be called.

    Attributes:
        id: The ActorID's 16 bytes.
        ref: The ref of its handle object, which keeps the actor alive; None for a weak target.
    """

    __slots__ = ("flags", "id", "ref", "suffix1", "tail")

    def __init__(self, actor_id: bytes, ref):
        self.id = actor_id
        self.ref = ref
        self.flags = wire.WEAK_HANDLE if ref is None else 0
        self.suffix1 = actor_id + _ONE
        self.tail = wire.call_tail.pack(actor_id, 1, self.flags)


def handle_object(actor_id: bytes) -> bytes:
    """The id of the object that is counted for an actor's handles."""
    return actor_id[:8] + actor_id + _ONE


def create(template, args, kwargs, spec: bytes, ask: bool):
    """Create an actor.

    Args:
        template: A Template with the field ``actor``.
        args: Positional arguments of the constructor.
        kwargs: Keyword arguments, or None.
        spec: The packed map of docs/protocol.md (ACTOR).
        ask: Whether to wait until the head has registered it.

    Returns:
        The Target and the daemon's answer; the answer is None if it was not asked for. Where it says that another actor has
        the name, the target is that actor's, and weak.

    Raises:
        ActorAlreadyExistsError: The name is taken.
    """
    client = state.client
    if client is None:
        client = connected()
    if template._client is not client:
        template.register(client)
    unique8 = client.next_unique()
    actor_id = unique8 + b"\x00\x00\x00\x00" + client.suffix[12:]
    out1 = unique8 + actor_id + _ONE
    flags, deps, contained, data, ahead, keep = client.arguments(template, args, kwargs, out1)
    if len(deps) * wire.ID + len(contained) * wire.ID + len(spec) + len(data) > wire.MAX_FRAME - 4096:
        raise ValueError(
            f"The actor {template.qualname} is too large to be created: its class takes {len(spec)} bytes and its arguments "
            f"{len(data)}, of 1 MiB in sum. Put large objects with ray.put() and pass their refs."
        )
    ref = client.table.own(out1)
    if not ask:
        frame = ahead + wire.actor(0, 0, template.no, unique8, flags, deps, contained, spec, data)
        client.spend(len(frame))
        client.box.add(frame)
        del keep
        return Target(actor_id, ref), None
    channel = client.channel()
    client.spend(len(ahead) + len(deps) * wire.ID + len(contained) * wire.ID + len(spec) + len(data) + 40)
    req = channel.request()
    client.box.frames.append(
        ahead + wire.actor(channel.no, req, template.no, unique8, flags, deps, contained, spec, data)
    )
    client.box.flush()
    answer = client.reply(*client.answer(channel, req))
    del keep
    if not answer["created"]:
        return Target(answer["actor_id"], None), answer
    return Target(actor_id, ref), answer


def call(target: Target, template, args, kwargs=None, num_returns: int = 1, overrides=None):
    """Call a method.

    Returns:
        An ObjectRef for ``num_returns`` 1 or DYNAMIC, a list of them for more, None for 0, a generator for STREAMING.
    """
    client = state.client
    if client is None:
        client = connected()
    if template._client is not client:
        template.register(client)
    if args or kwargs or overrides or num_returns != 1 or template.retry_types:
        return _call(client, target, template, args, kwargs, num_returns, overrides)
    unique8 = client.next_unique()
    # What Table.own does, in line: this is the hottest path of a driver.
    oid = unique8 + target.suffix1
    ref = _new(_ObjectRef)
    ref._id = oid
    ref._v = ref._lease = ref._w = None
    table = client.table
    claim = _Claim(ref, table.put)
    claim.key = oid
    table.live[oid] = claim
    client.credit_left -= 435  # the frame's bytes, and client._CALL_COST
    if client.credit_left < 0:
        client.wait_for_credit()
    client.submit_frame(template._head + unique8 + target.tail)
    return ref


def _call(client, target, template, args, kwargs, num_returns, overrides):
    unique8 = client.next_unique()
    actor_id = target.id
    flags, deps, contained, data, ahead, keep = client.arguments(template, args, kwargs, unique8 + target.suffix1)
    kind = num_returns
    if num_returns < 0:
        flags |= -num_returns
        num_returns = 1
    frame = ahead + wire.actor_call(
        template.no, unique8, actor_id, num_returns, flags | target.flags, deps, contained, wire.packed(overrides), data
    )
    out = client.send_call(frame, unique8 + actor_id, num_returns, keep)
    return streams.generator(client, out, template) if kind == streams.STREAMING else out
