"""A slice of the random programs, and that a difference is found and made small. `make metamorphic` and `make oracle` do more."""

import contextlib
import importlib.util
import json
import os
import pathlib

import model
import programs
import pytest
import scripts
import sites
from machines import Home

from ray._core.left import until_empty

FIRST = int(os.environ.get("METAMORPHIC_FIRST", "1"))
SEEDS = int(os.environ.get("METAMORPHIC_SEEDS", "25"))


@pytest.fixture
def home(tmp_path):
    """A user's environment with the Gray binary under test."""
    spec = importlib.util.find_spec("ray")
    places = [os.environ.get("GRAY_BIN"), spec and str(pathlib.Path(spec.origin).parent / "_bin" / "ray")]
    found = [p for p in places if p and os.path.isfile(p)]
    if not found:
        pytest.fail("no Gray binary: run `make build`, or name it in GRAY_BIN")
    made = Home(tmp_path, found[0])
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize(("count", "still"), [(1, False), (3, False), (3, True)], ids=["one", "three", "still"])
def test_the_same_answers(home, count, still):
    """On one node, on three, and while daemons and workers stand still for moments; then nothing is left."""
    nodes, site = sites.of_nodes(home, count, "site")
    try:
        for seed in range(FIRST, FIRST + SEEDS):
            pids = [n["pid"] for n in nodes]
            with sites.standstills(pids, seed) if still else contextlib.nullcontext():
                text = sites.compare(seed, programs.make(seed), site)
            assert text is None, text
        until_empty(nodes)
    finally:
        site.close()


def test_programs_are_made_of_everything():
    ops = {s.rstrip("0123456789") for seed in range(60) for s in programs.all_ids(programs.make(seed))}
    assert ops == {name[3:] for name in dir(programs.Run) if name.startswith("do_")}
    kinds = [a for seed in range(60) for a in sites.modelled(programs.make(seed)).values()]
    assert {"Failed", "Cancelled", "Dead"} <= {k for k in kinds if isinstance(k, str)}
    assert json.dumps(programs.make(7)) == json.dumps(programs.make(7)) != json.dumps(programs.make(8))


def test_the_simulator_plays_the_same():
    """What internal/sim carries out is what the generator makes, and the model's answers."""
    with open(
        os.path.join(os.path.dirname(__file__), "../../internal/sim/testdata/scripts.jsonl"), encoding="utf-8"
    ) as f:
        kept = f.read().splitlines()
    assert kept == list(scripts.lines(1, 20)), "renew it: python test/metamorphic/scripts.py 1 20 > the file"


class Wrong:
    """A site that is the model, but for one thing."""

    name = "a wrong one"

    def __init__(self, differs):
        self.differs = differs

    def answers(self, program):
        return {k: 0 if self.differs(k) else v for k, v in sites.modelled(program).items()}


def test_a_difference_is_found_and_made_small():
    seed = next(s for s in range(100) if any(i.startswith("read") for i in sites.modelled(programs.make(s))))
    program = programs.make(seed)
    assert sites.compare(seed, program, Wrong(lambda name: False)) is None
    text = sites.compare(seed, program, Wrong(lambda name: name.startswith("read")))
    lines = [row for row in text.splitlines() if row[0].isalpha()][1:]
    assert len(lines) == 2 and lines[0].startswith("gen") and lines[1].startswith("read"), text


def test_the_model_is_sequential():
    """An actor's sum and chain, and who is dead, by hand."""
    program = [
        {"id": "actor1", "op": "actor", "kind": "sync", "named": False, "spread": False},
        {"id": "method2", "op": "method", "of": "actor1", "method": "chain", "args": [{"int": 1}], "wait": False},
        {"id": "method3", "op": "method", "of": "actor1", "method": "fail", "args": [], "wait": False},
        {
            "id": "method4",
            "op": "method",
            "of": "actor1",
            "method": "add",
            "args": [{"value": "method3"}],
            "wait": False,
        },
        {"id": "get5", "op": "get", "of": "method3"},
        {"id": "total6", "op": "total", "of": "actor1", "after": []},
        {"id": "kill7", "op": "kill", "of": "actor1", "after": []},
        {"id": "get8", "op": "get", "of": "gone"},
    ]
    chained = programs.digest([0, "method2", [programs.digest(1)]])
    answers = programs.Run(model.Api(), "test").body(program)
    total = programs.Run(model.Api(), "test").followed([0, chained])
    assert answers == {"get5": "Failed", "total6": total, "kill7": "Dead"}
