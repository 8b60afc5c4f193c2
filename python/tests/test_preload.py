"""``preload``: modules that workers are forked with."""

import os
import pathlib
import textwrap
import time

import pytest

from ray.exceptions import RuntimeEnvSetupError
from ray.runtime_env import RuntimeEnv, merge

MODULES = {
    "preload_one": """
        import os
        PID, THREADS = os.getpid(), [os.environ.get(f"{n}_NUM_THREADS") for n in ("OMP", "OPENBLAS", "MKL")]
    """,
    "preload_two": "import os; PID = os.getpid()",
    "preload_thread": """
        import os, threading, time
        PID = os.getpid()
        threading.Thread(target=time.sleep, args=(10000,), daemon=True).start()
    """,
    "preload_broken": "raise ValueError('broken on purpose')",
}


@pytest.fixture
def modules(own_env, tmp_path, monkeypatch):
    """Modules that are installed on the node, and not known to the driver."""
    folder = tmp_path / "installed"
    folder.mkdir()
    for name, text in MODULES.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(folder)))))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    return folder


def loaded():
    """Name of each of these modules that is loaded: whether another process loaded it, and what thread counts it saw."""
    import sys

    found = {n: sys.modules[n] for n in sorted(sys.modules) if n.startswith("preload_")}
    return {n: (m.PID != os.getpid(), getattr(m, "THREADS", None)) for n, m in found.items()}


ONE = {"preload_one": (True, ["1", "1", "1"])}


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ("numpy", TypeError, r"runtime_env\['preload'\] must be of type List\[str\]"),
        ([1], TypeError, r"runtime_env\['preload'\] must be of type List\[str\]"),
        (["a,b"], ValueError, "'a,b' is no module's name"),
        ([""], ValueError, "'' is no module's name"),
        (["a..b"], ValueError, "no module's name"),
    ],
)
def test_what_it_accepts(value, error, text):
    import ray

    with pytest.raises(error, match=text):
        RuntimeEnv(preload=value)
    with pytest.raises(error, match=text):
        ray.remote(lambda: 1).options(runtime_env={"preload": value})


def test_as_a_field():
    env = RuntimeEnv(preload=["a", "b.c"], env_vars={"X": "1"})
    assert env.preload() == ["a", "b.c"] and RuntimeEnv().preload() == [] and env.plugins() == []
    assert RuntimeEnv.deserialize(env.serialize()) == env
    assert merge({"preload": ["a"], "env_vars": {"X": "1"}}, {"preload": ["b"]}) == {
        "preload": ["b"],
        "env_vars": {"X": "1"},
    }


@pytest.mark.slow
def test_of_tasks_and_actors(modules):
    """Each kind of worker has its modules; tasks of a task inherit them, or have their own."""
    import ray

    ray.init(num_cpus=4, runtime_env={"env_vars": {"OF_JOB": "1"}})

    @ray.remote
    def look(inner=None):
        told = loaded(), os.environ.get("OF_JOB"), dict(ray.get_runtime_context().runtime_env)
        return told if inner is None else (told[0], ray.get(look.options(**inner).remote())[0])

    @ray.remote(runtime_env={"preload": ["preload_one"]})
    class A:
        def look(self):
            return loaded(), os.environ.get("OF_JOB"), os.getpid()

    variables = {"env_vars": {"OF_JOB": "1"}}
    assert ray.get(look.remote()) == ({}, "1", variables)
    one = look.options(runtime_env={"preload": ["preload_one"]})
    assert ray.get(one.remote()) == (ONE, "1", {**variables, "preload": ["preload_one"]})
    assert ray.get(one.remote({})) == (ONE, ONE)
    other = {"runtime_env": {"preload": ["preload_two"]}}
    assert ray.get(one.remote(other)) == (ONE, {"preload_two": (True, None)})
    actors = [A.remote() for _ in range(3)]
    told = ray.get([a.look.remote() for a in actors])
    assert [t[:2] for t in told] == [(ONE, "1")] * 3 and len({t[2] for t in told}) == 3
    assert ray.get(look.remote()) == ({}, "1", variables)


@pytest.mark.slow
def test_of_a_job(modules):
    import ray

    ray.init(num_cpus=2, runtime_env={"preload": ["preload_one"]})
    look = ray.remote(loaded)
    assert ray.get(look.remote()) == ONE
    assert ray.get(look.options(runtime_env={"preload": ["preload_two"]}).remote()) == {"preload_two": (True, None)}
    assert ray.get(look.options(runtime_env={"preload": []}).remote()) == {}
    actor = ray.remote(type("A", (), {"look": lambda self: loaded()})).remote()
    assert ray.get(actor.look.remote()) == ONE


@pytest.mark.slow
def test_that_must_not_fork(modules):
    """A module that starts a thread is loaded by each worker itself, and the daemon's log says why."""
    import ray

    info = ray.init(num_cpus=2)
    look = ray.remote(lambda: loaded()).options(runtime_env={"preload": ["preload_thread"]})
    assert ray.get(look.remote()) == {"preload_thread": (False, None)}
    logs = pathlib.Path(info["session_dir"]) / "logs"
    text = "".join(p.read_text() for p in logs.glob("raylet*.err"))
    assert "started, not forked" in text and "2 threads run after preloading" in text, text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [("preload_nowhere", "No module named 'preload_nowhere'"), ("preload_broken", "broken on purpose")],
)
def test_that_cannot_be_loaded(modules, name, words):
    """Tasks and actors end with RuntimeEnvSetupError whatever their retries and restarts; others go on."""
    import ray

    ray.init(num_cpus=2)
    env = {"preload": [name]}
    task = ray.remote(max_retries=-1, runtime_env=env)(lambda: 1)
    began = time.monotonic()
    with pytest.raises(RuntimeEnvSetupError, match=words) as told:
        ray.get(task.remote(), timeout=30)
    assert name in str(told.value) and time.monotonic() - began < 20
    A = ray.remote(max_restarts=-1, max_task_retries=-1, runtime_env=env)(type("A", (), {"f": lambda self: 1}))
    a = A.remote()
    for _ in range(2):
        with pytest.raises(RuntimeEnvSetupError, match=words):
            ray.get(a.f.remote(), timeout=30)
    assert ray.get(ray.remote(lambda: 2).remote()) == 2
