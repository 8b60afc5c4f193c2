"""A slice of the chaos run, and that its check finds what it is there for."""

import importlib.util
import os
import pathlib
import random

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def binary():
    """The Gray binary under test."""
    spec = importlib.util.find_spec("ray")
    places = [os.environ.get("GRAY_BIN"), spec and str(pathlib.Path(spec.origin).parent / "_bin" / "ray")]
    found = [p for p in places if p and os.path.isfile(p)]
    return found[0] if found else pytest.fail("no Gray binary: run `make build`, or name it in GRAY_BIN")


def test_thirty_seconds(binary, tmp_path):
    from chaos import chaos
    from machines import Home

    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1 << 32))
    home = Home(tmp_path, binary)
    try:
        wrong, figures = chaos(home, seed, float(os.environ.get("CHAOS_SECONDS") or 30), lambda text: None)
    finally:
        home.close()
    assert not wrong, "\n".join([f"CHAOS_SEED={seed} {figures}", *wrong])
    assert figures["calls"] > 100 and figures["killed_actors"] > 0 and figures["killed_nodes"] > 0, (seed, figures)
    assert figures["tasks"]["TaskCancelledError"] > 20 and figures["killed_tasks"] > 0, (seed, figures)


def _told(tmp_path, calls, runs, nodes_died=0):
    from check import check

    for folder, files in (("calls", calls), ("runs", runs)):
        for name, rows in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(row + "\n" for row in rows))
    return check(tmp_path, nodes_died)


A = "sync-inf-0.d1.1"


@pytest.mark.parametrize(
    ("actor", "calls", "runs", "words"),
    [
        (A, ["asks c:1 {}", "ends c:1 value 1-2", "done"], {"1-2": ["c:1"]}, []),
        (A, ["asks c:1 {}", "done"], {"1-2": ["c:1"]}, ["never ended"]),
        (A, ["asks c:1 {}", "hangs c:1"], {"1-2": ["c:1"]}, ["hangs"]),
        (A, ["asks c:1 {}", "ends c:1 value 1-2"], {"1-2": [], "3-4": []}, ["has a value"]),
        (A, ["asks c:1 {}", "ends c:1 value 1-2"], {"1-2": ["c:1"], "3-4": ["c:1"]}, ["ran 2 times"]),
        (A, ["asks c:1 {}", "ends c:1 value 1-2"], {"1-2": ["c:1", "c:1"]}, ["ran after", "ran 2 times"]),
        (A, ["asks c:1 {}", "asks c:2 {}"], {"1-2": ["c:2", "c:1"]}, ["ran after"]),
        (A, ["asks c:1 {}", "ends c:1 error ActorUnavailableError it restarts"], {"1-2": ["c:1"]}, []),
        (
            A,
            ["asks c:1 {}", "ends c:1 error ObjectLostError x"],
            {"1-2": ["c:1"]},
            ["ended with error ObjectLostError"],
        ),
        ("sync-0-0.d1.1", ["asks c:1 {}", "ends c:1 error ActorUnavailableError x"], {"1-2": []}, ["Unavailable"]),
        ("sync-inf-inf.d1.1", ["asks c:1 {}", "ends c:1 value 3-4"], {"1-2": ["c:1"], "3-4": ["c:1"]}, []),
        ("async-inf-0.d1.1", ["asks c:1 {}", "asks c:2 {}"], {"1-2": ["c:2", "c:1"]}, []),
    ],
)
def test_check(tmp_path, actor, calls, runs, words):
    wrong, _ = _told(tmp_path, {"c": [r.format(actor) for r in calls]}, {f"{actor}/{k}": v for k, v in runs.items()})
    assert len(wrong) == len(words) and all(w in text for w, text in zip(words, wrong)), wrong


@pytest.mark.parametrize("error", ["ObjectLostError", "RayTaskError(ObjectLostError)"])
@pytest.mark.parametrize("died", [0, 1])
def test_check_of_what_a_node_took_along(tmp_path, error, died):
    wrong, _ = _told(tmp_path, {"c": [f"asks c:1 {A}", f"ends c:1 error {error} x"]}, {f"{A}/1-2": []}, died)
    assert len(wrong) == 1 - died, wrong


@pytest.mark.parametrize(
    ("rows", "starts", "words"),
    [
        (
            ["asks c:1 spins-inf", "cancels c:1 100 recursive", "ends c:1 error TaskCancelledError x", "done"],
            ["c:1 99"],
            [],
        ),
        (["asks c:1 dies", "cancels c:1 100", "ends c:1 error TaskCancelledError"], ["c:1 99", "c:1 103"], []),
        (["asks c:1 dies", "cancels c:1 100", "ends c:1 error TaskCancelledError"], ["c:1 116"], ["16.0 s after"]),
        (["asks c:1 ends", "cancels c:1 100", "ends c:1 value"], ["c:1 99"], []),
        (["asks c:1 ends", "ends c:1 error TaskCancelledError"], [], ["ended with error TaskCancelledError"]),
        (["asks c:1 spins-0", "cancels c:1 100", "ends c:1 value"], [], ["ended with value"]),
        (["asks c:1 spins-0", "cancels c:1 100", "ends c:1 error WorkerCrashedError"], [], []),
        (["asks c:1 spins-inf", "cancels c:1 100", "ends c:1 error WorkerCrashedError"], [], ["WorkerCrashedError"]),
        (["asks c:1 queued", "cancels c:1 100", "hangs c:1 is not ready"], [], ["hangs"]),
        (["asks c:1 parent", "cancels c:1 100", "lives c:1.a5"], [], ["lives"]),
        (["asks c:1 waits", "cancels c:1 100", "done"], [], ["never ended"]),
    ],
)
def test_check_of_tasks(tmp_path, rows, starts, words):
    from check import check_tasks

    for folder, lines in (("tasks", rows), ("starts", starts)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "c").write_text("".join(row + "\n" for row in lines))
    wrong, _ = check_tasks(tmp_path, 0)
    assert len(wrong) == len(words) and all(w in text for w, text in zip(words, wrong)), wrong
