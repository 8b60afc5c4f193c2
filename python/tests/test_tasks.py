"""Tasks on a real daemon: arguments, results, nesting, waiting, time-outs, contexts."""

import asyncio
import concurrent.futures
import functools
import gc
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import pytest

import ray

pytestmark = pytest.mark.usefixtures("shared_ray")


@ray.remote
def add(a, b=10, *rest, c=100, **more):
    return a + b + sum(rest) + c + sum(more.values())


@ray.remote
def identity(x):
    return x


def repr_short(value):
    return repr(value)[:20]


def wait_for_file(path):
    """Block until a file is there; the test makes it, so nothing here depends on how fast anything is."""
    while not os.path.exists(path):
        time.sleep(0.005)


@ray.remote
def until(path, value=None):
    wait_for_file(path)
    return value


def test_arguments():
    assert ray.get(add.remote(1)) == 111
    assert ray.get(add.remote(1, 2)) == 103
    assert ray.get(add.remote(1, 2, 3, 4)) == 110
    assert ray.get(add.remote(b=1, a=2)) == 103
    assert ray.get(add.remote(1, c=0)) == 11
    assert ray.get(add.remote(1, x=5, y=6)) == 122


@pytest.mark.parametrize(
    "value",
    [None, True, 1, -(2**70), 1.5, "é", (b"x" * 300_000,), (1, [2, {"a": {3}}]), 1j, {"a": b""}],
    ids=repr_short,
)
def test_values(value):
    assert ray.get(identity.remote(value)) == value
    assert ray.get(ray.put(value)) == value


def test_refs_as_arguments():
    a, b = ray.put(1), add.remote(1)
    assert ray.get(add.remote(a, b, c=ray.put(0))) == 112
    big = ray.put(b"x" * 500_000)
    assert len(ray.get(identity.remote(big))) == 500_000


def test_refs_in_containers_stay_refs():
    inner = ray.put("inner")

    @ray.remote
    def look(box):
        (ref,) = box
        assert isinstance(ref, ray.ObjectRef)
        return ray.get(ref), box

    text, box = ray.get(look.remote([inner]))
    assert text == "inner" and ray.get(box[0]) == "inner" and box[0] == inner


def test_returned_ref():
    @ray.remote
    def make():
        return ray.put([1, 2])

    assert ray.get(ray.get(make.remote())) == [1, 2]


def test_several_returns():
    @ray.remote(num_returns=3)
    def three():
        return 1, 2, 3

    assert ray.get(three.remote()) == [1, 2, 3]
    assert ray.get(identity.options(num_returns=2).remote("ab")) == ["a", "b"]
    assert identity.options(num_returns=0).remote(1) is None
    (only,) = [three.options(num_returns=1).remote()]
    assert ray.get(only) == (1, 2, 3)


def test_wrong_number_of_returns():
    refs = identity.options(num_returns=2).remote([1, 2, 3])
    with pytest.raises(ValueError, match=r"Task returned 3 objects, but num_returns=2\."):
        ray.get(refs)


def test_nested_tasks():
    @ray.remote
    def fib(n):
        return n if n < 2 else sum(ray.get([fib.remote(n - 1), fib.remote(n - 2)]))

    assert ray.get(fib.remote(7)) == 13


def test_tasks_that_wait_for_tasks_deeper_than_there_are_cpus():
    @ray.remote
    def down(n):
        return 0 if n == 0 else 1 + ray.get(down.remote(n - 1))

    assert ray.get(down.remote(30)) == 30


def test_mutual_recursion_through_globals():
    namespace = {"ray": ray}
    source = """
        @ray.remote
        def even(n):
            return True if n == 0 else ray.get(odd.remote(n - 1))

        @ray.remote
        def odd(n):
            return False if n == 0 else ray.get(even.remote(n - 1))
    """
    exec(textwrap.dedent(source), namespace)
    assert ray.get(namespace["even"].remote(4)) is True


def test_a_function_defined_again():
    results = []
    for i in range(3):

        @ray.remote
        def f(i=i):
            return i

        results.append(f.remote())
    assert ray.get(results) == [0, 1, 2]


def test_decorated_and_wrapped():
    def twice(function):
        @functools.wraps(function)
        def both(*args):
            return 2 * function(*args)

        return both

    @ray.remote
    @twice
    def f(x):
        return x

    assert ray.get(f.remote(4)) == 8
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        f.remote()
    assert ray.get(ray.remote(lambda x: x + 1).remote(1)) == 2


def test_captured_values_and_functions():
    factor, ref = 3, ray.put(5)

    @ray.remote
    def inner(x):
        return x * factor

    @ray.remote
    def outer(x):
        return ray.get(inner.remote(x)) + ray.get(ref)

    assert ray.get(outer.remote(2)) == 11


def test_many_tasks():
    assert ray.get([identity.remote(i) for i in range(2000)]) == list(range(2000))


def test_chain():
    ref = ray.put(0)
    for _ in range(200):
        ref = add.remote(ref, 1, c=0)
    assert ray.get(ref) == 200


def test_many_arguments():
    @ray.remote
    def total(*xs):
        return sum(xs)

    assert ray.get(total.remote(*[ray.put(i) for i in range(500)])) == 124750


def test_object_of_many_refs():
    refs = [ray.put(i) for i in range(1000)]
    outer = ray.put(refs)
    del refs
    assert ray.get(ray.get(outer)) == list(range(1000))


def test_wait(tmp_path):
    slow = [until.remote(str(tmp_path / str(i)), i) for i in range(3)]
    done = ray.put("done")
    assert ray.wait([slow[0], done]) == ([done], [slow[0]])
    assert ray.wait(slow, timeout=0) == ([], slow)
    assert ray.wait(slow, timeout=0.05) == ([], slow)
    (tmp_path / "1").touch()
    assert ray.wait(slow) == ([slow[1]], [slow[0], slow[2]])
    (tmp_path / "0").touch()
    (tmp_path / "2").touch()
    assert ray.wait(slow, num_returns=3) == (slow, [])
    assert ray.wait(slow, num_returns=2) == (slow[:2], slow[2:])


def test_wait_checks_a_list_that_looks_like_its_last_answer():
    _, rest = ray.wait([ray.put(i) for i in range(3)])
    one = rest[0]
    rest[:] = [one, one]  # at the address of the list that it returned, and as long
    with pytest.raises(ValueError, match="unique"):
        ray.wait(rest)
    rest[:] = [one, 5]
    with pytest.raises(TypeError, match="containing <class 'int'>"):
        ray.wait(rest)
    assert ray.wait([one]) == ([one], []) and ray.wait([one]) == ([one], [])


def test_wait_takes_failures_for_ready():
    @ray.remote
    def fail():
        raise ValueError

    ref = fail.remote()
    assert ray.wait([ref]) == ([ref], [])


@pytest.mark.parametrize(
    "call,error,text",
    [
        (lambda r: ray.wait(r), TypeError, r"wait\(\) expected a list of ray.ObjectRef .* got a single ray.ObjectRef"),
        (lambda r: ray.wait([1]), TypeError, r"got list containing <class 'int'>"),
        (lambda r: ray.wait((r,)), TypeError, r"got <class 'tuple'>"),
        (lambda r: ray.wait([r, r]), ValueError, r"Wait requires a list of unique ray_waitables\."),
        (lambda r: ray.wait([r], num_returns=0), ValueError, r"Invalid number of objects to return 0\."),
        (
            lambda r: ray.wait([r], num_returns=2),
            ValueError,
            r"num_returns cannot be greater than the number of ray_waitables",
        ),
        (lambda r: ray.wait([r], timeout=-1), ValueError, r"The 'timeout' argument must be nonnegative\. Received -1"),
        (
            lambda r: ray.get((r,)),
            ValueError,
            r"Invalid type of object refs, <class 'tuple'>, is given\. 'object_refs' must either",
        ),
        (lambda r: ray.get(3), ValueError, r"Invalid type of object refs, <class 'int'>, is given"),
        (
            lambda r: ray.get([r, 3]),
            TypeError,
            r"Attempting to call `get` on the value 3, which is not an ray\.ObjectRef\.",
        ),
        (lambda r: ray.put(r), TypeError, r"Calling 'put' on an ray\.ObjectRef is not allowed\."),
        (lambda r: ray.put(1, _owner=3), ValueError, r"_owner"),
        (lambda r: ray.put(threading.Lock()), TypeError, r"Could not serialize the put value <unlocked _thread.lock"),
        (
            lambda r: identity.remote(threading.Lock()),
            TypeError,
            r"Could not serialize the argument <unlocked .*identity",
        ),
        (lambda r: ray.cancel(5), TypeError, r"ray\.cancel\(\) only supported for object refs"),
        (lambda r: ray.kill(5), ValueError, r"ray\.kill\(\) only supported for actors"),
        (lambda r: ray.get_actor("x"), ValueError, r"Failed to look up actor"),
        (lambda r: ray.get_actor(""), ValueError, r"non-empty value"),
    ],
)
def test_wrong_calls(call, error, text):
    with pytest.raises(error, match=text):
        call(ray.put(1))


def test_get_timeout_tells_why(tmp_path):
    refs = [until.remote(str(tmp_path / "go"), i) for i in range(4)]
    later = add.remote(refs[0])
    never = add.options(resources={"unobtainium": 1}).remote(1)
    while not os.listdir(tmp_path):
        with pytest.raises(ray.exceptions.GetTimeoutError) as e:
            ray.get([ray.put(1), *refs, later, never], timeout=0.05)
        waiting = e.value.waiting
        if " is running on this node" in waiting[refs[0]]:
            (tmp_path / "seen").touch()
    assert list(waiting) == [*refs, later, never]
    assert waiting[refs[0]].startswith("task ") and "until" in waiting[refs[0]]
    assert f"waits for its argument {refs[0].hex()}: " in waiting[later]
    assert "unobtainium" in waiting[never]
    assert f"{refs[0]!r}: {waiting[refs[0]]}" in str(e.value)
    copy = pickle.loads(pickle.dumps(e.value))
    assert str(copy) == str(e.value) and not copy.waiting
    (tmp_path / "go").touch()
    assert ray.get(later) == 110


def test_many_returns():
    few = ray.remote(lambda n, size: [bytes([i % 256]) * size for i in range(n)])
    for n, size in ((20_000, 40), (65_536, 1), (200, 60_000)):  # each more than a RESULT of values can hold
        refs = few.options(num_returns=n).remote(n, size)
        assert len(refs) == n and ray.get(refs[-1]) == bytes([(n - 1) % 256]) * size
        assert ray.get(refs[::97]) == [bytes([i % 256]) * size for i in range(0, n, 97)]
    with pytest.raises(ValueError, match="num_returns=16777216: a task returns at most 65536 objects"):
        few.options(num_returns=1 << 24).remote(1, 1)
    refs = [ray.put(i) for i in range(3000)]
    outs = ray.remote(lambda refs: [list(refs)] * 30).options(num_returns=30).remote(refs)  # 30 * 84 KB of ids
    assert ray.get(ray.get(outs[29])[2999]) == 2999


def test_empty_lists():
    assert ray.get([]) == [] and ray.wait([]) == ([], [])


def test_get_with_timeout(tmp_path):
    ref = until.remote(str(tmp_path / "go"), 5)
    for timeout in (0, 0.05):
        with pytest.raises(ray.exceptions.GetTimeoutError, match=r"Get timed out: some object\(s\) not ready"):
            ray.get(ref, timeout=timeout)
    with pytest.raises(TimeoutError):
        ray.get([ray.put(1), ref], timeout=0)
    (tmp_path / "go").touch()
    assert ray.get(ref, timeout=-1) == 5
    assert ray.get(ref, timeout=0) == 5
    assert ray.get([ref, ref], timeout=60) == [5, 5]


def test_functions_that_cant_be_pickled():
    lock = threading.Lock()

    @ray.remote
    def f():
        return lock

    with pytest.raises(TypeError, match=r"Could not serialize the function .*f[.:]"):
        f.remote()


def test_futures_and_await(tmp_path):
    ref = until.remote(str(tmp_path / "go"), 7)
    future = ref.future()
    assert isinstance(future, concurrent.futures.Future) and not future.done()

    async def main():
        (tmp_path / "go").touch()
        both = await asyncio.gather(ref, identity.remote(8))
        return both, await ref, await asyncio.wrap_future(identity.remote(9).future())

    assert asyncio.run(main()) == ([7, 8], 7, 9)
    assert future.result(30) == 7


def test_threads_share_a_driver():
    def work(n):
        return [ray.get(identity.remote((n, i))) for i in range(30)]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    assert results == [[(n, i) for i in range(30)] for n in range(8)]


def test_a_function_is_shipped_once():
    loads = ray.put(0)
    assert ray.get(loads) == 0

    class Heavy:
        pickled = 0

        def __reduce__(self):
            Heavy.pickled += 1
            return (int, ())

    heavy = Heavy()

    @ray.remote
    def f():
        return heavy

    assert ray.get([f.remote() for _ in range(20)]) == [0] * 20
    assert Heavy.pickled == 1


def test_refs_are_objects_of_their_own():
    ref = ray.put(1)
    assert ref == ray.get(ray.put([ref]))[0] and hash(ref) == hash(ray.get(ray.put([ref]))[0])
    assert {ref: 1}[ref] == 1 and len(ref.hex()) == 56
    assert repr(ref) == f"ObjectRef({ref.hex()})"
    assert ref.job_id().hex() == ray.get_runtime_context().get_job_id()
    assert pickle.loads(ray.cloudpickle.dumps(ref)) == ref


def test_custom_serializer():
    class Locked:
        def __init__(self, x):
            self.x, self.lock = x, threading.Lock()

    ray.util.register_serializer(Locked, serializer=lambda o: o.x, deserializer=lambda x: Locked(x))
    try:
        assert ray.get(ray.put(Locked(5))).x == 5
        assert ray.get(ray.remote(lambda o: o.x).remote(Locked(6))) == 6  # the deserializer travels with the value
    finally:
        ray.util.deregister_serializer(Locked)
    with pytest.raises(TypeError):
        ray.put(Locked(1))


def test_arrays_are_views():
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(100_000).reshape(100, 1000)
    for got in (ray.get(ray.put(array)), ray.get(identity.remote(array))):
        assert (got == array).all() and not got.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            got[0, 0] = 1
    view = ray.get(ray.put(array))
    alive = weakref.ref(view)
    part = view[50:, ::2]
    del view
    gc.collect()
    assert part.sum() == array[50:, ::2].sum()
    del part, alive


def test_runtime_context():
    @ray.remote
    def look():
        c = ray.get_runtime_context()
        return {
            "job": c.get_job_id(),
            "node": c.get_node_id(),
            "worker": c.get_worker_id(),
            "task": c.get_task_id(),
            "name": c.get_task_name(),
            "function": c.get_task_function_name(),
            "resources": c.get_assigned_resources(),
            "actor": c.get_actor_id(),
            "namespace": c.namespace,
            "gcs": c.gcs_address,
            "session": c.get_session_name(),
            "cancelled": c.is_canceled(),
            "gpus": ray.get_gpu_ids(),
            "ip": ray.util.get_node_ip_address(),
            "labels": c.get_node_labels(),
            "environment": {k: os.environ.get(k) for k in ("RAY_JOB_ID", "RAY_NODE_ID")},
        }

    mine = ray.get_runtime_context()
    ref = look.remote()
    seen = ray.get(ref)
    assert seen["job"] == mine.get_job_id() and seen["node"] == mine.get_node_id() == ray.nodes()[0]["NodeID"]
    assert seen["environment"] == {"RAY_JOB_ID": mine.get_job_id(), "RAY_NODE_ID": mine.get_node_id()}
    assert seen["task"] == ref.task_id().hex() and seen["name"] == "look"
    assert seen["function"].endswith("test_tasks.test_runtime_context.<locals>.look")
    assert seen["resources"] == {"CPU": 1.0} and seen["actor"] is None and seen["gpus"] == []
    assert seen["worker"] != mine.get_worker_id() and mine.get_worker_id() == mine.get_job_id() + "f" * 48
    assert (seen["namespace"], seen["gcs"]) == (mine.namespace, mine.gcs_address)
    assert seen["session"] == mine.get_session_name() and seen["cancelled"] is False
    assert seen["ip"] == ray.util.get_node_ip_address() == ray.nodes()[0]["NodeManagerAddress"]
    assert seen["labels"]["ray.io/node-id"] == seen["node"]
    assert ray.get(look.options(name="other").remote())["name"] == "other"
    assert ray.get(look.options(num_cpus=2).remote())["resources"] == {"CPU": 2.0}


def test_runtime_context_of_a_driver(caplog):
    import logging

    c = ray.get_runtime_context()
    logging.getLogger("ray").addHandler(caplog.handler)
    try:
        assert c.get_task_id() is None and c.get_task_name() is None and c.get_actor_id() is None
    finally:
        logging.getLogger("ray").removeHandler(caplog.handler)
    assert "This method is only available when the process is a worker. Current mode: 0" in caplog.text
    with pytest.raises(AssertionError, match="only available when the process is a worker. Current mode: 0"):
        c.get_assigned_resources()
    with pytest.raises(RuntimeError, match="Current mode: 0"):
        c.is_canceled()
    assert c.get_temp_dir() == os.path.join(os.environ["RAY_TMPDIR"], "ray")
    assert ray.get_gpu_ids() == [] and c.get_accelerator_ids()["GPU"] == []


def test_env_vars():
    @ray.remote
    def read():
        return os.environ.get("A_OF_TEST"), os.environ.get("B_OF_TEST")

    @ray.remote
    def nested():
        return ray.get(read.options(runtime_env={"env_vars": {"B_OF_TEST": "2"}}).remote())

    assert ray.get(read.remote()) == (None, None)
    one = {"env_vars": {"A_OF_TEST": "1"}}
    assert ray.get(read.options(runtime_env=one).remote()) == ("1", None)
    assert ray.get(nested.options(runtime_env=one).remote()) == ("1", "2")


def test_cluster_state():
    (node,) = ray.nodes()
    assert node["Alive"] and node["alive"] and node["Resources"]["CPU"] == 4
    assert len(node["NodeID"]) == 56
    total = ray.cluster_resources()
    assert (
        total["CPU"] == 4 and total[f"node:{node['NodeManagerAddress']}"] == 1 and total["node:__internal_head__"] == 1
    )
    assert total["memory"] > 0 and total["object_store_memory"] > 0
    assert set(ray.available_resources()) <= set(total)


def test_worker_has_the_drivers_modules():
    @ray.remote
    def where():
        return os.getcwd(), sys.path[0:3], sys.version_info[:2]

    cwd, paths, version = ray.get(where.remote())
    assert cwd == os.getcwd() and version == sys.version_info[:2]
    assert os.path.dirname(os.path.abspath(__file__)) in ray.get(ray.remote(lambda: list(sys.path)).remote())


def test_workers_load_nothing_heavy():
    @ray.remote
    def loaded():
        return [m for m in ("numpy", "pydantic", "pandas", "torch") if m in sys.modules]

    got = ray.get(loaded.options(runtime_env={"env_vars": {"FRESH": "1"}}).remote())
    assert got == []


def test_map_unordered_and_as_completed():
    assert sorted(ray.util.map_unordered(identity, range(25), backpressure_size=10)) == list(range(25))
    assert sorted(ray.util.as_completed([identity.remote(i) for i in range(25)])) == list(range(25))
    assert list(ray.util.map_unordered(identity, [1], backpressure_size=5, chunk_size=10)) == [1]
    with pytest.raises(ValueError, match="backpressure_size must be positive"):
        list(ray.util.map_unordered(identity, [1], backpressure_size=0))


def test_forked_child_is_refused():
    code = """
        import os, ray
        ray.init(num_cpus=1)
        ref = ray.put(1)
        pid = os.fork()
        if pid == 0:
            try:
                ray.get(ref)
            except ray.exceptions.RaySystemError as e:
                os._exit(7 if "fork" in str(e) else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7 if hasattr(os, "waitstatus_to_exitcode") else True
        assert ray.get(ref) == 1
        print("fine")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "fine\n", done.stderr


def test_refs_that_are_of_no_cluster():
    for oid in (b"\x00\x00\xff" + os.urandom(25), bytes(28)):
        stranger = ray.ObjectRef(oid)
        with pytest.raises(ray.exceptions.OwnerDiedError, match="was never given out by this cluster"):
            ray.get(identity.remote(stranger), timeout=30)
        with pytest.raises(ray.exceptions.RayError, match="does not come from this cluster|was never given out"):
            ray.get(stranger, timeout=30)


def test_a_function_that_is_too_large(monkeypatch):
    monkeypatch.setenv("FUNCTION_SIZE_ERROR_THRESHOLD", "1000000")
    large = bytes(2_000_000)

    @ray.remote
    def f():
        return large

    @ray.remote
    class Large:
        def get(self):
            return large

    with pytest.raises(ValueError, match=r"The remote function .*f is too large \(1 MiB"):
        f.remote()
    with pytest.raises(ValueError, match="The actor Large is too large"):
        Large.remote()


def test_arguments_of_any_name():
    def take(**kwargs):
        return kwargs

    class Takes:
        def __init__(this, **kwargs):
            this.kwargs = kwargs

        def take(this, **kwargs):
            return kwargs, this.kwargs

    names = {"self": 1, "args": 2, "kwargs": 3, "name": 4}
    assert ray.get(ray.remote(take).remote(**names)) == names
    assert ray.get(ray.remote(take).options(num_cpus=0).remote(**names)) == names
    a = ray.remote(Takes).remote(**names)
    assert ray.get(a.take.remote(**names)) == (names, names)
