"""Threads and forks of a driver; processes that tasks start."""

import asyncio
import os
import subprocess
import sys
import textwrap
import threading

import pytest

import ray


@ray.remote
def inc(x):
    return x + 1


def test_threads_of_a_driver(shared_ray):
    got, wrong = [], []

    def work(k):
        try:
            refs = [inc.remote(k * 100 + i) for i in range(50)]
            ready, rest = ray.wait(refs, num_returns=25, timeout=60)
            got.extend(ray.get(ready) + [ray.get(ref) for ref in rest])
        except BaseException as e:
            wrong.append(e)

    for _ in range(3):  # each thread has a channel of its own, which ends with it
        got.clear()
        threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not wrong
        assert sorted(got) == [k * 100 + i + 1 for k in range(8) for i in range(50)]


def test_threads_and_loops_share_refs(shared_ray):
    refs = [inc.remote(i) for i in range(20)]

    async def gathered():
        return await asyncio.gather(*refs)

    out = []
    threads = [threading.Thread(target=lambda: out.append(asyncio.run(gathered()))) for _ in range(4)]
    for t in threads:
        t.start()
    assert ray.get(refs) == list(range(1, 21))
    for t in threads:
        t.join()
    assert out == [list(range(1, 21))] * 4


def in_child(do):
    """What ``do`` says in a fork of this process that then ends as a program does; and its exit code."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.write(w, do().encode())
            code = 0
        finally:
            ray.shutdown()  # as atexit would
            os._exit(code)
    os.close(w)
    with os.fdopen(r, "rb") as f:
        said = f.read().decode()
    return said, os.waitpid(pid, 0)[1] >> 8


def said_by(do):
    try:
        return f"value {do()}"
    except Exception as e:
        return f"{type(e).__name__}: {e}"


def test_a_fork_of_a_driver(shared_ray):
    ref, value = inc.remote(1), ray.put([1] * 50000)
    for do in (
        lambda: ray.get(ref),
        lambda: inc.remote(1),
        lambda: ray.put(1),
        lambda: ray.wait([ref]),
        lambda: ray.cancel(ref),
    ):
        said, code = in_child(lambda do=do: said_by(do))
        assert said.startswith("RaySystemError"), said
        assert "forked" in said and "ray.init()" in said
        assert code == 0
        assert ray.get(inc.remote(2)) == 3  # the child's end is not ours
    assert ray.get(ref) == 2
    assert len(ray.get(value)) == 50000


def test_multiprocessing_in_a_driver(own_env, tmp_path):
    code = """
        import multiprocessing, ray, sys
        if __name__ == "__main__":
            ray.init(address="local", num_cpus=1, object_store_memory=80 << 20)
            f = ray.remote(lambda x: x + 1)
            for method in ("fork", "spawn", "forkserver"):
                with multiprocessing.get_context(method).Pool(2) as pool:
                    assert pool.map(abs, [-1, -2]) == [1, 2]
                assert ray.get(f.remote(1)) == 2
            print("went well")
    """
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(code))
    out = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=120)
    assert "went well" in out.stdout, out.stderr


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_in_a_task(shared_ray, method):
    @ray.remote
    def sums(method):
        import multiprocessing

        with multiprocessing.get_context(method).Pool(2) as pool:
            return sum(pool.map(abs, range(-100, 0)))

    assert ray.get(sums.remote(method), timeout=120) == 5050


def test_a_fork_in_a_task(shared_ray):
    @ray.remote
    def forks(refs):
        said, code = in_child_of_a_task(lambda: ray.get(refs[0]))
        return said, code, ray.get(refs[0])

    def in_child_of_a_task(do):
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                do()
                os.write(w, b"a value")
            except Exception as e:
                os.write(w, f"{type(e).__name__}: {e}".encode())
            finally:
                os._exit(3)
        os.close(w)
        with os.fdopen(r, "rb") as f:
            said = f.read().decode()
        return said, os.waitpid(pid, 0)[1] >> 8

    said, code, value = ray.get(forks.remote([inc.remote(1)]), timeout=60)
    assert said.startswith("RaySystemError") and "forked" in said
    assert (code, value) == (3, 2)
