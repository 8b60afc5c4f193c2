"""What a driver sees of a task that fails: class, fields and text."""

import os
import re
import sys
import threading

import pytest

import ray
from ray.exceptions import RayTaskError, UnserializableException, WorkerCrashedError

pytestmark = pytest.mark.usefixtures("shared_ray", "leaves_nothing")


def scrubbed(error):
    text = re.sub(r"\x1b\[\d+m", "", str(error))
    text = re.sub(r"pid=\d+", "pid=P", text)
    text = re.sub(r"ip=[\d.]+", "ip=A", text)
    text = re.sub(r'File ".*", line \d+', "File F", text)
    return re.sub(r"^\s+[~^]+\n", "", text, flags=re.MULTILINE)


@ray.remote
def fail(kind=ValueError, *args):
    raise kind(*args)


@ray.remote
def take(*args):
    return args


def test_classes():
    with pytest.raises(ValueError) as e:
        ray.get(fail.remote(ValueError, 7))
    assert isinstance(e.value, RayTaskError) and isinstance(e.value.cause, ValueError)
    assert type(e.value).__name__ == "RayTaskError(ValueError)" and e.value.cause.args == (7,)
    assert e.value.function_name == "fail"


def test_text():
    def g(a):
        raise ValueError(a)

    @ray.remote
    def f():
        return g(7)

    with pytest.raises(ValueError) as e:
        ray.get(f.remote())
    assert scrubbed(e.value) == (
        "ray::f() (pid=P, ip=A)\n  File F, in f\n    return g(7)\n  File F, in g\n    raise ValueError(a)\nValueError: 7"
    )
    assert str(e.value).startswith("\x1b[36mray::f()\x1b[39m (pid=")


def test_text_of_a_nested_failure():
    @ray.remote
    def inner():
        return 1 / 0

    @ray.remote
    def outer():
        return ray.get(inner.remote())

    with pytest.raises(ZeroDivisionError) as e:
        ray.get(outer.remote())
    assert scrubbed(e.value) == (
        "ray::outer() (pid=P, ip=A)\n"
        "  File F, in outer\n    return ray.get(inner.remote())\n"
        "ray.exceptions.RayTaskError(ZeroDivisionError): ray::inner() (pid=P, ip=A)\n"
        "  File F, in inner\n    return 1 / 0\n"
        "ZeroDivisionError: division by zero"
    )
    assert type(e.value.cause) is ZeroDivisionError


def test_text_of_a_failed_dependency():
    @ray.remote
    def a():
        raise ValueError("a failed")

    @ray.remote
    def b(x):
        pass

    @ray.remote
    def c(x, y):
        pass

    with pytest.raises(ValueError) as e:
        ray.get(c.remote(b.remote(a.remote()), a.remote()))
    assert scrubbed(e.value) == (
        "ray::c() (pid=P, ip=A)\n"
        "  At least one of the input arguments for this task could not be computed:\n"
        "ray.exceptions.RayTaskError: ray::b() (pid=P, ip=A)\n"
        "  At least one of the input arguments for this task could not be computed:\n"
        "ray.exceptions.RayTaskError: ray::a() (pid=P, ip=A)\n"
        '  File F, in a\n    raise ValueError("a failed")\n'
        "ValueError: a failed"
    )
    assert type(e.value.cause) is ValueError


def test_name_in_the_text():
    with pytest.raises(ValueError, match=r"ray::fail\(\)"):
        ray.get(fail.remote())


class Mine(Exception):
    def __init__(self, a, b):
        super().__init__(a, b)
        self.a, self.b = a, b

    def both(self):
        return self.a + self.b


def test_own_exception():
    with pytest.raises(Mine) as e:
        ray.get(fail.remote(Mine, 1, 2))
    assert e.value.both() == 3 and e.value.cause.b == 2


def test_the_first_error_in_order_is_raised(tmp_path):
    refs = [ray.put(1), fail.remote(KeyError), fail.remote(ValueError)]
    ray.wait(refs, num_returns=3)
    with pytest.raises(KeyError):
        ray.get(refs)


def test_an_error_does_not_wait_for_the_others(tmp_path):
    @ray.remote
    def hang(path):
        import time

        while not os.path.exists(path):
            time.sleep(0.005)

    hanging = hang.remote(str(tmp_path / "go"))
    with pytest.raises(ValueError):
        ray.get([hanging, fail.remote()], timeout=60)
    (tmp_path / "go").touch()
    ray.get(hanging)


def test_every_return_fails():
    refs = fail.options(num_returns=2).remote()
    for ref in refs:
        with pytest.raises(ValueError):
            ray.get(ref)


def test_unpicklable_exception():
    class Locked(Exception):
        def __init__(self):
            self.lock = threading.Lock()

    with pytest.raises(RayTaskError) as e:
        ray.get(fail.remote(Locked))
    assert "isn't serializable" in str(e.value.cause)


def test_exception_that_cant_be_rebuilt():
    class Odd(Exception):
        def __init__(self, a, b):
            super().__init__(a)

    with pytest.raises(UnserializableException, match="Failed to deserialize exception"):
        ray.get(fail.remote(Odd, 1, 2))


def test_keyboard_interrupt_is_a_task_error():
    with pytest.raises(RayTaskError):
        ray.get(fail.options(max_retries=0).remote(KeyboardInterrupt))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with 3.11")
def test_exception_group():
    @ray.remote
    def group():
        raise ExceptionGroup("g", [ValueError(1), KeyError(2)])  # noqa: F821

    with pytest.raises(ExceptionGroup) as e:  # noqa: F821
        ray.get(group.remote())
    assert [type(x) for x in e.value.exceptions] == [ValueError, KeyError]


def count(path):
    with open(path, "a") as f:
        f.write("x")
    return os.path.getsize(path)


@pytest.mark.parametrize(
    "retry,retries,runs",
    [(False, 3, 1), (True, 1, 2), ([ValueError], 2, 3), ([KeyError], 2, 1), (True, 0, 1)],
)
def test_retried_exceptions(tmp_path, retry, retries, runs):
    path = str(tmp_path / "runs")

    @ray.remote(retry_exceptions=retry, max_retries=retries)
    def f():
        count(path)
        raise ValueError

    with pytest.raises(ValueError):
        ray.get(f.remote())
    assert os.path.getsize(path) == runs


def test_retry_that_succeeds(tmp_path):
    path = str(tmp_path / "runs")

    @ray.remote(retry_exceptions=True)
    def f():
        if count(path) < 3:
            raise ValueError
        return "done"

    assert ray.get(f.remote()) == "done"


@pytest.mark.parametrize("end", [lambda: os._exit(3), lambda: os.kill(os.getpid(), 9), lambda: sys.exit(4)])
def test_a_worker_that_dies(tmp_path, end):
    path = str(tmp_path / "runs")

    @ray.remote(max_retries=1)
    def f():
        count(path)
        print("last words", file=sys.stderr, flush=True)
        end()

    with pytest.raises(WorkerCrashedError) as e:
        ray.get(f.remote())
    assert os.path.getsize(path) == 2
    assert re.search(r"exit code [34]|signal 9|SIGKILL", str(e.value))


def test_max_calls(tmp_path):
    @ray.remote(max_calls=1)
    def pid():
        return os.getpid()

    pids = [ray.get(pid.remote()) for _ in range(4)]
    assert len(set(pids)) == 4


def test_the_cluster_goes_on_after_failures():
    assert ray.get(take.remote(1, 2)) == (1, 2)


def test_keyboard_interrupt_in_an_actor_is_a_cancellation():
    @ray.remote
    class Actor:
        def stop(self):
            raise KeyboardInterrupt

        def on(self):
            return 1

    actor = Actor.remote()
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(actor.stop.remote())
    assert ray.get(actor.on.remote()) == 1


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class Made(Exception):
    def __new__(cls, a, b):
        return super().__new__(cls, a, b)

    def __init__(self, a, b):
        self.a = a


class Silent(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class Outside(BaseException):
    pass


@pytest.mark.parametrize(
    "kind, args", [(Slotted, (5,)), (Made, (1, 2)), (Silent, ()), (Outside, ("b",)), (GeneratorExit, ())]
)
def test_odd_classes(kind, args):
    with pytest.raises(kind) as e:
        ray.get(fail.remote(kind, *args))
    assert isinstance(e.value, RayTaskError) and "ray::fail()" in scrubbed(e.value) and kind.__name__ in str(e.value)
    assert type(e.value.cause).__name__ == kind.__name__


def test_chains_of_causes_pass_through_tasks():
    @ray.remote
    def leaf():
        try:
            {}["a"]
        except KeyError as e:
            raise ValueError("leaf") from e

    @ray.remote
    class Middle:
        def call(self):
            try:
                return ray.get(leaf.remote())
            except ValueError as e:
                raise OSError(5, "middle") from e

    @ray.remote
    def top(actor):
        return ray.get(actor.call.remote())

    with pytest.raises(OSError, match="middle") as e:
        ray.get(top.remote(Middle.remote()))
    lines = [line for line in scrubbed(e.value).split("\n") if "ray::" in line or "Error: " in line]
    assert [re.sub(r", actor_id=\w+, repr=.*", ")", line) for line in lines] == [
        "ray::top() (pid=P, ip=A)",
        "ray.exceptions.RayTaskError(OSError): ray::Middle.call() (pid=P, ip=A)",
        "ray.exceptions.RayTaskError(ValueError): ray::leaf() (pid=P, ip=A)",
        "KeyError: 'a'",
        "ray::leaf() (pid=P, ip=A)",
        "ValueError: leaf",
        "ray::Middle.call() (pid=P, ip=A)",
        "OSError: [Errno 5] middle",
    ]
    assert e.value.errno == 5 and type(e.value.cause) is OSError


class Gives:
    """Gives back the error that it has caught."""

    def caught(self):
        try:
            ray.get(fail.remote(ValueError, 7))
        except RayTaskError as e:
            return e.with_traceback(None)  # whose frames would hold the ref in a cycle until a garbage collection

    async def later(self):
        return self.caught()

    def several(self):
        yield 1
        yield self.caught()
        yield 3


def caught():
    return Gives().caught()


@pytest.mark.parametrize("how", ["put", "task", "second result", "actor", "async actor"])
def test_a_ray_error_as_a_value_is_raised_where_it_is_got(how):
    if how == "put":
        r = ray.put(caught())
    elif how == "task":
        r = ray.remote(caught).remote()
    elif how == "second result":
        r = ray.remote(num_returns=2)(lambda: (1, caught())).remote()[1]
    else:
        a = ray.remote(Gives).remote()
        r = a.caught.remote() if how == "actor" else a.later.remote()
    for got in (ray.get, lambda r: ray.get([ray.put(1), r]), lambda r: r.future().result(60)):
        with pytest.raises(ValueError) as e:
            got(r)
        assert type(e.value).__name__ == "RayTaskError(ValueError)" and e.value.cause.args == (7,)
        assert scrubbed(e.value).splitlines()[0] == "ray::fail() (pid=P, ip=A)"
    with pytest.raises(ValueError, match="At least one of the input arguments for this task could not be computed"):
        ray.get(take.remote(r))
    assert isinstance(ray.get(ray.put([caught()]))[0], ValueError)  # inside of a value it is a value


def test_a_ray_error_among_the_items_of_a_generator():
    one, error, three = ray.remote(Gives).remote().several.remote()
    assert ray.get([one, three]) == [1, 3]
    with pytest.raises(RayTaskError):
        ray.get(error)


def test_which_errors_are_raised_where_they_are_got():
    with pytest.raises(WorkerCrashedError):
        ray.get(ray.put(WorkerCrashedError("here")))
    assert repr(ray.get(ray.put(ValueError("plain")))) == "ValueError('plain')"
