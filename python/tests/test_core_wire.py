"""The Python codec against the vectors that the Go codec also runs."""

import json
import os
import struct

import msgpack
import pytest

from ray._core import wire

_PATH = os.path.join(os.path.dirname(__file__), "..", "..", "internal", "wire", "testdata", "vectors.json")


def _vectors():
    with open(_PATH) as f:
        return json.load(f)["frames"]


VECTORS = _vectors()


def _bytes(text):
    return bytes.fromhex(text)


def _unique(n):
    return struct.pack(">Q", n)


def _ids(texts):
    return [bytes.fromhex(t) for t in texts]


def _overrides(frame, at):
    return frame[at : at + struct.unpack_from("<I", frame, 31)[0]]


def _submit(f, frame):
    n = struct.unpack_from("<I", frame, 31)[0]
    at = 35 + 28 * (len(f["deps"]) + len(f["contained"]))
    return wire.submit(
        f["template"], _unique(f["unique"]), f["num_returns"], f["flags"], _ids(f["deps"]), _ids(f["contained"]),
        frame[at : at + n], _bytes(f["args"]),
    )  # fmt: skip


def _actor(f, raw):
    n_spec = struct.unpack_from("<I", raw, 35)[0]
    at = 39 + 28 * (len(f["deps"]) + len(f["contained"]))
    return wire.actor(
        f["chan"], f["req"], f["template"], _unique(f["unique"]), f["flags"], _ids(f["deps"]), _ids(f["contained"]),
        raw[at : at + n_spec], _bytes(f["args"]),
    )  # fmt: skip


def _actor_call(f, raw):
    n_over = struct.unpack_from("<I", raw, 47)[0]
    at = 51 + 28 * (len(f["deps"]) + len(f["contained"]))
    return wire.actor_call(
        f["template"], _unique(f["unique"]), _bytes(f["actor"]), f["num_returns"], f["flags"], _ids(f["deps"]),
        _ids(f["contained"]), raw[at : at + n_over], _bytes(f["args"]),
    )  # fmt: skip


def _outputs(f):
    return [
        wire.output(o["status"], o["where"], _ids(o["contained"]), o["size"], _bytes(o.get("value") or ""))
        for o in f["outputs"]
    ]


BUILD = {
    "TEMPLATE": lambda f, raw: wire.template(struct.unpack_from("<I", raw, 5)[0], raw[9:]),
    "TEMPLATE_DROP": lambda f, raw: wire.template_drop(f),
    "SUBMIT": _submit,
    "ACTOR": _actor,
    "ACTOR_CALL": _actor_call,
    "PUT": lambda f, raw: wire.put(_bytes(f["id"]), f["status"], _ids(f["contained"]), _bytes(f["value"])),
    "CREATE": lambda f, raw: wire.create(f["chan"], f["req"], _bytes(f["id"]), f["size"]),
    "SEAL": lambda f, raw: wire.seal(_bytes(f["id"]), f["status"], _ids(f["contained"])),
    "GET": lambda f, raw: wire.get(f["chan"], f["req"], _ids(f["ids"])),
    "WAIT": lambda f, raw: wire.wait(f["chan"], f["req"], f["need"], f["flags"], _ids(f["ids"])),
    "CANCEL_REQ": lambda f, raw: wire.cancel_req(f["chan"], f["req"]),
    "WITHIN": lambda f, raw: wire.within(_unique(f)),
    "CANCEL_TASK": lambda f, raw: wire.cancel_task(_bytes(f["id"]), f["flags"]),
    "RELEASE": lambda f, raw: wire.counts(wire.RELEASE, [(_bytes(i), n) for i, n in f]),
    "UNPIN": lambda f, raw: wire.counts(wire.UNPIN, [(_bytes(i), n) for i, n in f]),
    "RESULT": lambda f, raw: wire.result(_unique(f["unique"]), f["attempt"], f["outcome"], _outputs(f)),
    "CALL": lambda f, raw: wire.call(f["chan"], f["req"], raw[13:]),
    "CHANNEL_CLOSE": lambda f, raw: wire.channel_close(f),
    "ABORT": lambda f, raw: wire.abort(_bytes(f)),
    "LOGS": lambda f, raw: wire.logs(f["chan"], f["req"], f["taken"], f["flags"]),
    "CREDIT": lambda f, raw: wire.credit(f["chan"], f["req"], f["total"]),
    "TASK_ERROR": lambda f, raw: wire.task_error(_unique(f["unique"]), _bytes(f["text"]).decode()),
    "CALL_SITE": lambda f, raw: wire.call_site(_unique(f["unique"]), _bytes(f["text"]).decode()),
}


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["kind"] in BUILD], ids=lambda v: v["name"])
def test_frames_that_python_writes(vector):
    raw = _bytes(vector["frame"])
    assert raw[4] == vector["code"]
    assert BUILD[vector["kind"]](vector["fields"], raw) == raw


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["kind"] == "VALUE"], ids=lambda v: v["name"])
def test_values_that_python_reads(vector):
    raw, fields = _bytes(vector["frame"]), vector["fields"]
    length, kind, req, oid, status, where, n = wire.value.unpack_from(raw)
    assert (length, kind, req, oid.hex(), status, where) == (
        len(raw) - 4, wire.VALUE, fields["req"], fields["id"], fields["status"], fields["where"],
    )  # fmt: skip
    at = wire.value.size + n * wire.ID
    assert wire.split_ids(raw[wire.value.size : at]) == _ids(fields["contained"])
    if where == wire.INLINE:
        assert raw[at:] == _bytes(fields["value"])
    else:
        assert (wire.u64(raw, at)[0], wire.u64(raw, at + 8)[0]) == (fields["offset"], fields["size"])


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["kind"] == "EXECUTE"], ids=lambda v: v["name"])
def test_executes_that_python_reads(vector):
    raw, f = _bytes(vector["frame"]), vector["fields"]
    unique8, attempt, job, template, num_returns, flags, n_deps, n_over = wire.execute.unpack_from(raw, 5)
    assert (unique8, attempt, job.hex(), template, num_returns, flags, n_deps) == (
        _unique(f["unique"]), f["attempt"], f["job"], f["template"], f["num_returns"], f["flags"], len(f["deps"]),
    )  # fmt: skip
    at = 39 + n_over
    for dep in f["deps"]:
        oid, status, where, n = wire.dep.unpack_from(raw, at)
        assert (oid.hex(), status, where, n) == (dep["id"], dep["status"], dep["where"], len(dep["contained"]))
        at += wire.dep.size + n * wire.ID
        size = wire.u64(raw, at)[0]
        at += 8 + (size if where == wire.INLINE else 8)
    n = wire.u32(raw, at)[0]
    assert wire.split_ids(raw[at + 4 : at + 4 + n * wire.ID]) == _ids(f["contained"])
    assert raw[at + 4 + n * wire.ID :] == _bytes(f["args"])


def test_a_call_without_arguments_from_its_parts():
    for flags in (0, wire.WEAK_HANDLE):
        actor_id, unique8 = b"a" * 16, _unique(5)
        head = wire.head_u32.pack(47, wire.ACTOR_CALL, 7)
        tail = wire.call_tail.pack(actor_id, 1, flags)
        assert head + unique8 + tail == wire.actor_call(7, unique8, actor_id, 1, flags, [], [], b"", b"")


def test_cancels_that_python_reads():
    (vector,) = [v for v in VECTORS if v["kind"] == "CANCEL"]
    raw = _bytes(vector["frame"])
    assert raw[4] == wire.CANCEL and raw[5:13] == _unique(vector["fields"]["unique"])


def test_maps_that_python_reads():
    seen = set()
    for vector in VECTORS:
        if vector["kind"] in ("WELCOME", "REFUSED", "SETUP"):
            fields = msgpack.unpackb(_bytes(vector["frame"])[5:], strict_map_key=False)
            assert isinstance(fields, dict)
            seen.add(vector["kind"])
    assert seen == {"WELCOME", "REFUSED", "SETUP"}


def test_long_lists_are_split():
    many = [bytes([i % 256]) * 28 for i in range(80000)]
    ahead, rest = wire.split_contained(b"o" * 28, many, 1000)
    assert rest == []
    got = []
    at = 0
    while at < len(ahead):
        length = wire.u32(ahead, at)[0]
        assert length <= wire.MAX_FRAME
        assert ahead[at + 4] == wire.IDS
        got += wire.split_ids(ahead[at + 33 : at + 4 + length])
        at += 4 + length
    assert got == many
    assert wire.split_contained(b"o" * 28, many[:3], 1000) == (b"", many[:3])
