"""``ray.experimental.tqdm_ray``: bars of the driver and of workers."""

import contextlib
import io
import json

import pytest

import ray
from ray.experimental import tqdm_ray


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(params=[Terminal, io.StringIO], ids=["terminal", "file"])
def drawer(request, monkeypatch):
    made = tqdm_ray._Drawer(request.param())
    monkeypatch.setattr(tqdm_ray, "_drawer", made)
    return made


def written(drawer):
    return drawer._out.getvalue()


def test_an_iterable(drawer):
    assert list(tqdm_ray.tqdm(range(3), desc="rows")) == [0, 1, 2]
    assert "rows: 100%|██████████| 3/3 [00:00<00:00, " in written(drawer)
    assert written(drawer).endswith("it/s]\n")


def test_updates_are_drawn_now_and_then(drawer):
    bar = tqdm_ray.tqdm(total=10_000, unit="B")
    for _ in range(1000):
        bar.update(3)
    assert (bar.n, bar.total) == (3000, 10_000)
    assert written(drawer).count("\n") == 0
    assert written(drawer).count("B/s") == drawer._out.isatty()
    bar.set_description("loading")
    bar.refresh()
    bar.close()
    bar.close()
    assert written(drawer).count("loading:  30%|███       | 3k/10k [") == (2 if drawer._out.isatty() else 1)


def test_an_unknown_total(drawer):
    bar = tqdm_ray.tqdm(iter([1]))
    assert bar.total is None
    list(bar)
    assert written(drawer).splitlines()[-1].rpartition("\x1b[J")[2].startswith("1it [00:00, ")
    with pytest.raises(ValueError, match="without an iterable"):
        list(tqdm_ray.tqdm(total=3))


def test_bars_stand_below_each_other():
    drawer = tqdm_ray._Drawer(Terminal())
    state = {"x": 1, "total": 4, "unit": "it", "ip": "10.0.0.1", "closed": False}
    for pid, pos in ((2, 1), (1, 0), (2, 0)):
        drawer.process_state_update({**state, "pid": pid, "pos": pos, "desc": f"{pid}.{pos}", "uuid": f"{pid}{pos}"})
    last = written(drawer).rpartition("\x1b[J")[2]
    assert [line.split(": ")[0].split("\x1b[0m")[1] for line in last.split("\n")] == ["1.0", "2.0", "2.1"]
    drawer.process_state_update({**state, "pid": 2, "pos": 0, "desc": "end", "uuid": "20", "closed": True})
    rest = written(drawer)[len(written(drawer)) - len(written(drawer).rpartition("end")[2]) :]
    assert "1.0" in rest and "2.1" in rest and "2.0" not in rest


def test_safe_print(drawer, capsys):
    bar = tqdm_ray.tqdm(total=2, desc="bar")
    bar.update()
    tqdm_ray.safe_print("a", "b", sep="-")
    assert capsys.readouterr().out == "a-b\n"
    if drawer._out.isatty():
        assert written(drawer).count("bar:") == 2  # hidden, and drawn again
    bar.close()


def test_workers_print_their_state(shared_ray):
    @ray.remote
    def work():
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            list(tqdm_ray.tqdm(range(3), desc="rows", position=2, flush_interval_s=0))
        return out.getvalue()

    states = [json.loads(line) for line in ray.get(work.remote()).splitlines()]
    assert [s["x"] for s in states] == [1, 2, 3, 3]
    assert [s["closed"] for s in states] == [False, False, False, True]
    assert len({(s["uuid"], s["pid"], s["ip"]) for s in states}) == 1
    kept = {k: states[0][k] for k in ("__magic_token__", "pos", "desc", "total", "unit")}
    assert kept == {
        "__magic_token__": "__ray_tqdm_magic_token__",
        "pos": 2,
        "desc": "rows",
        "total": 3,
        "unit": "it",
    }
