"""``ray._common.test_utils``: what tests of programs use."""

import asyncio
import subprocess

import pytest

import ray
from ray._common.test_utils import (
    Semaphore,
    SignalActor,
    async_wait_for_condition,
    run_string_as_driver,
    wait_for_condition,
)


def test_signal(shared_ray):
    signal = SignalActor.remote()
    waiting = [signal.wait.remote() for _ in range(3)]
    wait_for_condition(lambda: ray.get(signal.cur_num_waiters.remote()) == 3)
    assert ray.get(signal.wait.remote(should_wait=False)) is None
    assert ray.wait(waiting, timeout=0)[0] == []
    ray.get(signal.send.remote())
    assert ray.get(waiting, timeout=30) == [None] * 3
    assert ray.get(signal.cur_num_waiters.remote()) == 0
    ray.get(signal.wait.remote(), timeout=30)  # it stays sent


def test_signal_that_is_cleared(shared_ray):
    signal = SignalActor.remote()
    first = signal.wait.remote()
    wait_for_condition(lambda: ray.get(signal.cur_num_waiters.remote()) == 1)
    ray.get(signal.send.remote(clear=True))
    ray.get(first, timeout=30)
    second = signal.wait.remote()
    assert ray.wait([second], timeout=0.1)[0] == []
    ray.get(signal.send.remote())
    ray.get(second, timeout=30)


def test_semaphore(shared_ray):
    semaphore = Semaphore.remote(value=2)
    ray.get([semaphore.acquire.remote() for _ in range(2)], timeout=30)
    assert ray.get(semaphore.locked.remote())
    third = semaphore.acquire.remote()
    assert ray.wait([third], timeout=0.1)[0] == []
    ray.get(semaphore.release.remote())
    ray.get(third, timeout=30)
    ray.get([semaphore.release.remote() for _ in range(2)])
    assert not ray.get(semaphore.locked.remote())


def test_wait_for_condition():
    tries = iter([False, ZeroDivisionError, True])

    def condition(by):
        answer = next(tries)
        if answer is ZeroDivisionError:
            raise answer
        return answer

    wait_for_condition(condition, retry_interval_ms=1, by="name")
    with pytest.raises(RuntimeError, match="wasn't met before the timeout expired.$"):
        wait_for_condition(lambda: False, timeout=0.02, retry_interval_ms=5)
    with pytest.raises(RuntimeError, match="(?s)wasn't met.*division by zero"):
        wait_for_condition(lambda: 1 / 0, timeout=0.02, retry_interval_ms=5)
    with pytest.raises(ZeroDivisionError):
        wait_for_condition(lambda: 1 / 0, raise_exceptions=True)


def test_async_wait_for_condition():
    async def yes(x):
        return x

    asyncio.run(async_wait_for_condition(yes, x=True))
    asyncio.run(async_wait_for_condition(lambda: True))
    with pytest.raises(RuntimeError, match="wasn't met"):
        asyncio.run(async_wait_for_condition(yes, timeout=0.02, retry_interval_ms=5, x=False))
    with pytest.raises(RuntimeError, match="division by zero"):
        asyncio.run(async_wait_for_condition(lambda: 1 / 0, timeout=0.02, retry_interval_ms=5))


def test_run_string_as_driver():
    script = "import os, sys; print(os.environ.get('X')); sys.stdout.flush(); print('err', file=sys.stderr)"
    assert run_string_as_driver(script, env={"X": "1"}) == "1\nerr\n"
    with pytest.raises(subprocess.CalledProcessError) as e:
        run_string_as_driver("print('before'); 1 / 0")
    assert "before" in e.value.output and "ZeroDivisionError" in e.value.output
    with pytest.raises(subprocess.TimeoutExpired):
        run_string_as_driver("import time; time.sleep(60)", timeout=0.2)
