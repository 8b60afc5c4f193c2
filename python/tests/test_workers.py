"""What a forked worker has of its own: random numbers, thread counts, signal handlers, descriptors."""

import os
import signal
import sys

import pytest

import ray


@pytest.fixture
def many(own_env):
    """A private cluster with so many CPUs that each of 100 tasks at once has a worker of its own."""
    yield ray.init(num_cpus=100, object_store_memory=100 << 20)
    ray.shutdown()


@ray.remote
def meet(folder, n):
    """Wait until n tasks run at the same time, each in a process of its own, and draw numbers."""
    import random
    import time

    import numpy

    draws = random.getrandbits(64), int(numpy.random.randint(1 << 60)), os.urandom(8)
    open(os.path.join(folder, str(os.getpid())), "w").close()
    deadline = time.monotonic() + 60
    while len(os.listdir(folder)) < n:
        assert time.monotonic() < deadline, f"{len(os.listdir(folder))} of {n} workers have started"
        time.sleep(0.01)
    return (os.getpid(), *draws)


@pytest.mark.slow
def test_100_workers_draw_100_different_numbers(many, tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    rows = ray.get([meet.remote(str(folder), 100) for _ in range(100)], timeout=90)
    for column in zip(*rows):
        assert len(set(column)) == 100


def test_tasks_one_after_another_draw_different_numbers(ray_2):
    """Also where one worker runs them all."""

    @ray.remote
    def draw():
        import random

        return random.random()

    assert len(set(ray.get([draw.remote() for _ in range(20)]))) == 20


@ray.remote
def threads():
    return [os.environ.get(n) for n in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")]


def test_thread_counts_follow_num_cpus(own_env, monkeypatch, tmp_path):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (tmp_path / "asks_at_import.py").write_text("import os\nomp = os.environ.get('OMP_NUM_THREADS')\n")
    ray.init(num_cpus=4, object_store_memory=100 << 20)

    def at_import():
        sys.path.insert(0, str(tmp_path))
        import asks_at_import

        return asks_at_import.omp

    for cpus, text in ((3, "3"), (1, "1"), (0.5, "1"), (0, "1")):
        assert ray.get(threads.options(num_cpus=cpus).remote()) == [text] * 3
    fresh = ray.remote(max_calls=1)(at_import)
    assert ray.get(fresh.options(num_cpus=2).remote()) == "2"


@pytest.mark.parametrize("where", ["environment", "runtime_env"])
def test_the_users_thread_count_stands(own_env, monkeypatch, where):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    env = {}
    if where == "environment":
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
    else:
        env = {"env_vars": {"OMP_NUM_THREADS": "7"}}
    ray.init(num_cpus=4, object_store_memory=100 << 20, runtime_env=env)
    for cpus in (3, 1):
        assert ray.get(threads.options(num_cpus=cpus).remote())[0] == "7"


def test_signals_are_as_in_any_python(ray_2):
    @ray.remote
    def look():
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        handlers = {
            int(n): getattr(signal.getsignal(n), "__name__", None) or int(signal.getsignal(n))
            for n in signal.valid_signals()
            if n not in (signal.SIGKILL, signal.SIGSTOP) and n < signal.SIGRTMIN
        }
        return handlers, sorted(map(int, blocked)), signal.set_wakeup_fd(-1)

    handlers, blocked, wakeup = ray.get(look.remote())
    odd = {n: h for n, h in handlers.items() if h != int(signal.SIG_DFL)}
    assert odd == {
        int(signal.SIGINT): "default_int_handler",
        int(signal.SIGPIPE): int(signal.SIG_IGN),
        int(signal.SIGXFSZ): int(signal.SIG_IGN),
        # The worker's own: to leave in order, and to cancel a task.
        **{n: h for n, h in odd.items() if n in (signal.SIGTERM, signal.SIGURG)},
    }
    assert blocked == [] and wakeup == -1


def test_no_descriptor_of_others_is_inherited(own_env):
    """Neither the driver's files nor the sockets of other workers are open in a worker."""
    secret = own_env / "secret"
    secret.write_text("x")
    with open(secret) as held:
        os.set_inheritable(held.fileno(), True)
        ray.init(num_cpus=4, object_store_memory=100 << 20)

    @ray.remote
    def open_files(path):
        import time

        open(os.path.join(path, str(os.getpid())), "w").close()
        deadline = time.monotonic() + 60
        while len(os.listdir(path)) < 4:  # all four live, so that a leaked socket of another would show
            assert time.monotonic() < deadline
            time.sleep(0.01)
        found = {}
        for fd in os.listdir("/proc/self/fd"):
            try:
                found[int(fd)] = os.readlink("/proc/self/fd/" + fd)
            except OSError:
                continue  # the listing's own
        return os.getpid(), found

    folder = own_env / "here"
    folder.mkdir()
    rows = ray.get([open_files.remote(str(folder)) for _ in range(4)], timeout=60)
    assert len({pid for pid, _ in rows}) == 4
    sockets = [{t for t in found.values() if t.startswith("socket:")} for _, found in rows]
    for i, (_, found) in enumerate(rows):
        assert str(secret) not in found.values()
        assert found[0] == "/dev/null"
        for j in range(i):
            assert not sockets[i] & sockets[j]
    mine = {
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    }
    for theirs in sockets:
        assert not theirs & mine
