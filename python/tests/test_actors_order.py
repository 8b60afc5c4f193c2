"""In which order calls run, how many may wait, and what is retried."""

import os
import time

import pytest

import ray

pytestmark = pytest.mark.usefixtures("shared_ray")


@ray.remote
class Log:
    def __init__(self):
        self.seen = []

    def add(self, x):
        self.seen.append(x)

    def get(self):
        return self.seen

    def wait(self, path):
        while not os.path.exists(path):
            time.sleep(0.005)


@ray.remote
def late(x, path):
    while not os.path.exists(path):
        time.sleep(0.005)
    return x


def test_a_caller_s_calls_run_in_order():
    log = Log.remote()
    for i in range(2000):
        log.add.remote(i)
    assert ray.get(log.get.remote()) == list(range(2000))


def test_late_arguments_hold_up_later_calls(tmp_path):
    log = Log.remote()
    path = str(tmp_path / "go")
    log.add.remote(0)
    log.add.remote(late.remote(1, path))
    log.add.remote(2)
    seen = log.get.remote()
    assert ray.wait([seen], timeout=0.2) == ([], [seen])
    open(path, "w").close()
    assert ray.get(seen) == [0, 1, 2]


def test_out_of_order(tmp_path):
    log = Log.options(allow_out_of_order_execution=True).remote()
    path = str(tmp_path / "go")
    last = log.add.remote(late.remote(1, path))
    log.add.remote(2)
    deadline = time.monotonic() + 20
    while ray.get(log.get.remote()) != [2]:
        assert time.monotonic() < deadline
    open(path, "w").close()
    ray.get(last)
    assert ray.get(log.get.remote()) == [2, 1]


def test_callers_of_their_own_are_in_order():
    @ray.remote
    def call(log, who):
        for i in range(200):
            log.add.remote((who, i))
        return ray.get(log.get.remote()) and True

    log = Log.remote()
    ray.get([call.remote(log, k) for k in range(3)])
    seen = ray.get(log.get.remote())
    for k in range(3):
        assert [i for who, i in seen if who == k] == list(range(200))


def test_calls_before_the_actor_is_there(tmp_path):
    path = str(tmp_path / "go")

    @ray.remote
    class Slow:
        def __init__(self, path):
            while not os.path.exists(path):
                time.sleep(0.005)
            self.n = 0

        def add(self):
            self.n += 1
            return self.n

    slow = Slow.remote(path)
    refs = [slow.add.remote() for _ in range(50)]
    assert ray.wait(refs, timeout=0.1)[0] == []
    open(path, "w").close()
    assert ray.get(refs) == list(range(1, 51))


def test_max_pending_calls(tmp_path):
    path = str(tmp_path / "go")
    log = Log.options(max_pending_calls=3).remote()
    refs = [log.wait.remote(path) for _ in range(3)]
    with pytest.raises(ray.exceptions.PendingCallsLimitExceeded, match="because more than 3 tasks are queued"):
        log.add.remote(1)

    @ray.remote
    def call(log):
        return ray.get(log.get.remote())  # another caller's count

    open(path, "w").close()
    ray.get(refs)
    ray.get(log.add.remote(1))
    assert ray.get(call.remote(log)) == [1]


def test_retry_of_exceptions():
    @ray.remote
    class Flaky:
        def __init__(self):
            self.tries = 0

        @ray.method(max_task_retries=2, retry_exceptions=[ZeroDivisionError])
        def divide(self, at):
            self.tries += 1
            if self.tries < at:
                raise ZeroDivisionError(self.tries)
            return self.tries

        def other(self):
            self.tries += 1
            raise ValueError(self.tries)

    flaky = Flaky.remote()
    assert ray.get(flaky.divide.remote(3)) == 3
    with pytest.raises(ZeroDivisionError):
        ray.get(flaky.divide.options(max_task_retries=0).remote(100))
    with pytest.raises(ValueError, match="5"):
        ray.get(flaky.other.remote())
    with pytest.raises(ValueError, match="7"):
        ray.get(flaky.other.options(max_task_retries=1, retry_exceptions=True).remote())


def test_a_call_that_is_repeated_goes_behind_the_others():
    @ray.remote
    class Log:
        def __init__(self):
            self.seen = []

        def add(self, i, go):
            while not os.path.exists(go):
                time.sleep(0.01)
            self.seen.append(i)
            if i == 1 and self.seen.count(1) <= 2:
                raise ValueError(i)
            return i

        def all(self):
            return self.seen

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        go = os.path.join(folder, "go")
        log = Log.remote()
        add = log.add.options(max_task_retries=5, retry_exceptions=True)
        refs = [add.remote(i, go) for i in range(5)]
        open(go, "w").close()
        assert ray.get(refs) == [0, 1, 2, 3, 4]
        assert ray.get(log.all.remote()) == [0, 1, 2, 3, 4, 1, 1]


def test_restart():
    @ray.remote(max_restarts=1, max_task_retries=-1)
    class Phoenix:
        def __init__(self, start):
            self.n = start

        def add(self):
            self.n += 1
            return self.n

        def die(self, path):
            if not os.path.exists(path):
                open(path, "w").close()
                os._exit(1)
            return "alive"

        def was_restarted(self):
            return ray.get_runtime_context().was_current_actor_reconstructed

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        phoenix = Phoenix.remote(10)
        assert ray.get([phoenix.add.remote(), phoenix.add.remote()]) == [11, 12]
        assert ray.get(phoenix.was_restarted.remote()) is False
        died = phoenix.die.remote(os.path.join(folder, "dead"))
        refs = [phoenix.add.remote() for _ in range(3)]
        assert ray.get(died) == "alive"
        assert sorted(ray.get(refs)) == [11, 12, 13]  # calls that are repeated may change places
        assert ray.get(phoenix.was_restarted.remote()) is True
