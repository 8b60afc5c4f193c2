"""When nobody holds anything any more, no daemon keeps anything: not a record, not a byte.

Each test is a driver that makes objects reach all corners of a cluster, drops them, and stays. Then the tables of each
daemon must be empty. The cluster is the same for all, so what one leaves behind another one meets.
"""

import os
import signal

import pytest
from machines import Home, line, tell, until, workers_of

from ray._core.left import of, until_empty

pytestmark = pytest.mark.slow

BEGIN = """
    import asyncio, gc, os, signal, sys, time, ray
    from ray.exceptions import RayActorError, RayError, RayTaskError, WorkerCrashedError
    ray.init(address=sys.argv[1], _node_ip_address=sys.argv[2], log_to_driver=False, namespace="refs")
    A, B, C = ({"num_cpus": 0.25, "resources": {name: 0.001}} for name in "abc")  # places, which may be one node
    BIG, SMALL = bytes(300_000), b"abc"  # not to be named in remote functions, which would carry them
    both = (BIG, SMALL)

    @ray.remote
    class Keeper:
        def __init__(self, *kept):
            self.kept = list(kept)
        def keep(self, what):
            self.kept.append(what)
            return len(self.kept)
        def give(self):
            return self.kept
        def lengths(self):
            def of(x):
                return of(ray.get(x)) if isinstance(x, ray.ObjectRef) else [of(y) for y in x] if isinstance(x, list) else len(x)
            return of(self.kept)
        def drop(self):
            self.kept.clear()
        def pid(self):
            return os.getpid()

    @ray.remote
    def length(x):
        return len(x)

    @ray.remote
    def length_in(x):
        return len(ray.get(x[0]))

    @ray.remote
    def made(x):
        return ray.put(x)

    @ray.remote
    def passed(x, *places):
        "Refs go from place to place, each task's ref in the next one's answer."
        if not places:
            return x
        return [passed.options(**places[0]).remote(x, *places[1:])]

    def opened(x):
        while isinstance(x, (ray.ObjectRef, list)):
            x = ray.get(x) if isinstance(x, ray.ObjectRef) else x[0]
        return x

    def program():
"""
END = """
    program()
    gc.collect()
    print("dropped", flush=True)
    input()
"""

PROGRAMS = {
    "borrowers": """
        for value in both:
            ref = ray.put(value)
            assert ray.get([length_in.options(**p).remote([ref]) for p in (A, B, C) for _ in range(3)]) == [len(value)] * 9
            keepers = [Keeper.options(**p).remote([ref]) for p in (A, B, C)]
            assert ray.get([k.lengths.remote() for k in keepers]) == [[[len(value)]]] * 3
            del ref
            assert ray.get([k.lengths.remote() for k in keepers]) == [[[len(value)]]] * 3
            chain = ray.get(keepers[0].give.remote())
            assert ray.get(keepers[1].keep.remote(chain)) == 2
            ray.get([k.drop.remote() for k in keepers[1:]])
            assert opened(chain) == value
    """,
    "objects_in_objects": """
        for value in both:
            x = value
            for place in (A, B, C, A):
                x = [ray.put(x), made.options(**place).remote(x)]
            assert opened(x) == opened(x[1]) == value
            inner = ray.get(x[1])
            del x
            assert opened(inner) == value
    """,
    "returned_refs": """
        for value in both:
            for way in ((B, C, A), (A, C), (C, B, A, B, C)):
                for arg in (value, ray.put(value), [ray.put(value)], [made.options(**B).remote(value)]):
                    assert opened(passed.options(**way[0]).remote(arg, *way[1:])) == value
            unread = [passed.options(**B).remote([ray.put(value)], C, A) for _ in range(20)]
        del unread
    """,
    "many_returns": """
        @ray.remote(num_returns=4)
        def four(x, fail):
            if fail:
                raise ValueError("as asked")
            return x, [ray.put(x)], len(x), [made.remote(x)]
        for value in both:
            for place in (A, B, C):
                a, b, c, d = four.options(**place).remote(value, False)
                del a, c
                assert opened(ray.get(b)[0]) == opened(ray.get(d)[0]) == value
                for ref in four.options(**place).remote(value, True)[:2]:
                    try:
                        ray.get(ref)
                        raise AssertionError
                    except ValueError:
                        pass
    """,
    "errors_that_hold_refs": """
        class Held(Exception):
            def __init__(self, ref):
                super().__init__(ref)
                self.ref = ref
        @ray.remote(max_retries=0)
        def fails(x):
            raise Held(ray.put(x))
        for value in both:
            for place in (A, B, C):
                try:
                    ray.get(fails.options(**place).remote(value))
                    raise AssertionError
                except Held as e:
                    assert ray.get(e.ref) == value
                after = length.remote(fails.options(**place).remote(value))
                try:
                    ray.get(after)
                    raise AssertionError
                except RayTaskError:
                    pass
    """,
    "generators": """
        @ray.remote
        def items(x, n, fail):
            for k in range(n):
                yield [ray.put(x), k] if k % 2 else x
            if fail:
                raise ValueError("as asked")
        for value in both:
            for place in (A, B, C):
                for n, read, fail in ((6, 6, False), (6, 3, False), (6, 0, False), (4, 4, True), (0, 0, False)):
                    gen = items.options(**place).remote(value, n, fail)
                    for k in range(read):
                        got = ray.get(next(gen))
                        assert (ray.get(got[0]) if k % 2 else got) == value
                    if read == n:
                        try:
                            last = next(gen, None)
                            ray.get(last) if fail else None
                            assert not fail and last is None
                        except ValueError:
                            assert fail
                bounded = items.options(_generator_backpressure_num_objects=2, **place).remote(value, 50, False)
                next(bounded)
                del bounded, gen
                dynamic = items.options(num_returns="dynamic", **place).remote(value, 5, False)
                assert len(list(ray.get(dynamic))) == 5
                kept = list(ray.get(dynamic))[0]
                del dynamic
                assert ray.get(kept) == value
                ray.get([length.options(**B).remote(ref) for ref in items.options(**place).remote(value, 4, False)])
    """,
    "state_of_actors": """
        for value in both:
            keepers = [Keeper.options(max_restarts=1, **p).remote() for p in (A, B, C)]
            for k in keepers:
                ray.get([k.keep.remote([ray.put(value)]), k.keep.remote([made.options(**B).remote(value)])])
            assert ray.get([k.lengths.remote() for k in keepers]) == [[[len(value)], [len(value)]]] * 3
            given = ray.get([k.give.remote() for k in keepers])
            assert ray.get(keepers[0].keep.remote(given)) == 3
            for k, how in zip(keepers, ("kill", "restart", "crash")):
                if how == "crash":
                    os.kill(ray.get(k.pid.remote()), signal.SIGKILL)
                else:
                    ray.kill(k, no_restart=how == "kill")
            assert opened(given[2]) == value
    """,
    "handles": """
        @ray.remote
        class Holder:
            def __init__(self, others):
                self.others = others
            def total(self):
                return sum(ray.get([k.keep.remote(b"x") for k in self.others]))
            def others_of(self):
                return self.others
        @ray.remote
        def make_one(place):
            k = Keeper.options(**place).remote([ray.put(bytes(300_000))])
            return k, ray.put(k), k.keep.remote(ray.put(b"abc"))
        for place in (A, B, C):
            one, stored, count = ray.get(make_one.options(**place).remote(B))
            assert ray.get(count) == 2
            holder = Holder.options(**place).remote([one, ray.get(stored)])
            del one, stored
            assert ray.get(holder.total.remote()) == 7
            again = ray.get(holder.others_of.remote())
            del holder
            assert ray.get(again[0].keep.remote(b"y")) == 5
            named = Keeper.options(name="named", **place).remote()
            ray.get(ray.get_actor("named").keep.remote([ray.put(BIG)]))
            ray.kill(named)
    """,
    "async_and_threads": """
        @ray.remote(max_concurrency=4)
        class Async:
            def __init__(self):
                self.kept = []
            async def look(self, refs):
                self.kept += refs
                return sum(map(len, await asyncio.gather(*refs)))
            async def items(self, refs):
                for ref in refs:
                    yield [ref, await ref]
        @ray.remote(max_concurrency=3, concurrency_groups={"more": 2})
        class Threads:
            @ray.method(concurrency_group="more")
            def look(self, refs):
                return sum(map(len, ray.get(refs)))
        for place in (A, B, C):
            a, t = Async.options(**place).remote(), Threads.options(**place).remote()
            refs = [ray.put(v) for v in both] + [made.options(**B).remote(BIG)]
            total = len(BIG) + len(SMALL)
            assert ray.get([a.look.remote(refs[:2]) for _ in range(5)] + [t.look.remote(refs[:2]) for _ in range(5)]) == [total] * 10
            for item in a.items.remote(refs):
                ray.get(item)
            next(a.items.remote(refs))
            async def mine():
                return await asyncio.gather(*[a.look.remote(refs[:2]) for _ in range(5)])
            assert asyncio.run(mine()) == [total] * 5
            refs[0].future().result(30)
    """,
    "waits_and_views": """
        @ray.remote
        def late(x, pause):
            time.sleep(pause)
            return x
        for value in both:
            refs = [late.options(**p).remote(value, k / 50) for k in range(5) for p in (A, B, C)]
            ready, rest = ray.wait(refs, num_returns=4)
            some, _ = ray.wait(rest, num_returns=2, timeout=0.01)
            never = late.options(**B).remote(value, 1.0)
            try:
                ray.get(never, timeout=0.01)
                raise AssertionError
            except ray.exceptions.GetTimeoutError:
                pass
            views = ray.get(refs)
            del refs, ready, rest, some
            assert views == [value] * 15
            ray.get([length.options(**C).remote(v) for v in views])
    """,
    "workers_die": """
        @ray.remote(max_retries=1)
        def dies(refs, mark):
            big = bytes(300_000)
            more = [ray.put(big), made.options(**B).remote(big), Keeper.options(**C).remote([ray.put(big)])]
            ray.get(more[2].keep.remote(more[:2]))
            if not ray.get(mark.keep.remote(1)) % 2:
                return more, refs
            os.kill(os.getpid(), signal.SIGKILL)
        @ray.remote(max_retries=0)
        def dies_in_the_middle(refs):
            for k in range(10):
                yield [ray.put(bytes(300_000)), *refs]
                if k == 5:
                    os.kill(os.getpid(), signal.SIGKILL)
        mark = Keeper.remote()
        for place in (A, B, C):
            ref = ray.put(BIG)
            more, refs = ray.get(dies.options(**place).remote([ref], mark))
            assert opened(more[1]) == opened(refs) == BIG
            del more, refs
            try:
                for item in dies_in_the_middle.options(**place).remote([ref]):
                    ray.get(item)
                raise AssertionError
            except WorkerCrashedError:
                pass
            lost = [dies_in_the_middle.options(**place).remote([ref]) for _ in range(2)]
            k = Keeper.options(**place).remote([ref])
            calls = [k.keep.remote([ref]) for _ in range(20)]
            ray.kill(k)
            for call in calls:
                try:
                    ray.get(call)
                except RayActorError:
                    pass
    """,
    "a_name_that_outlives_nobody": """
        for place in (B, C):
            k = Keeper.options(name="detached", lifetime="detached", **place).remote()
            ray.get(k.keep.remote([ray.put(BIG), made.options(**A).remote(BIG)]))
            del k
            found = ray.get_actor("detached")
            assert len(ray.get(found.give.remote())) == 1
            ray.kill(found)
    """,
    "calls_given_up": """
        @ray.remote(max_concurrency=2)
        class Slow:
            async def wait(self, refs):
                await asyncio.sleep(3600)
        for place in (A, B, C):
            slow = Slow.options(**place).remote()
            calls = [slow.wait.remote([ray.put(BIG)]) for _ in range(6)]
            for call in calls[1:5]:
                ray.cancel(call)
            for call in calls[1:5]:
                try:
                    ray.get(call)
                    raise AssertionError
                except ray.exceptions.TaskCancelledError:
                    pass
            ray.kill(slow)
    """,
}


@pytest.fixture(scope="module", params=[1, 3])
def nodes(request, binary, tmp_path_factory):
    """A cluster of one daemon or of three, with the places a, b and c."""
    home = Home(tmp_path_factory.mktemp(f"nodes{request.param}"), binary)
    try:
        yield home, cluster(home, request.param)
    finally:
        home.close()


def cluster(home, count):
    if count == 1:
        return [home.head('--resources={"a": 1, "b": 1, "c": 1}', cpus=4)]
    head = home.head('--resources={"a": 1}', cpus=2)
    return [head] + [
        home.node(head["gcs_address"], f'--resources={{"{name}": 1}}', ip=f"127.0.0.{k}", cpus=2)
        for k, name in ((2, "b"), (3, "c"))
    ]


def drive(home, node, code):
    return home.driver(BEGIN + code + END, node["gcs_address"], node["node_ip"])


def no_jobs(nodes):
    """Wait until every daemon is as it was before it had a driver, but for the connection that asks."""
    until_empty(nodes)
    for node in nodes:
        until(lambda n=node: of(n)["sizes"]["jobs"] <= 1, f"{of(node)['sizes']} at {node['node_ip']} without jobs")


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("at", ["head", "last"])
def test_nothing_is_left(nodes, name, at):
    home, daemons = nodes
    if at == "last" and len(daemons) == 1:
        pytest.skip("one node is both")
    driver = drive(home, daemons[0 if at == "head" else -1], PROGRAMS[name])
    assert line(driver, 120) == "dropped"
    until_empty(daemons)
    tell(driver)
    assert driver.wait(60) == 0
    no_jobs(daemons)


CLOSURE = """
        for value in both:
            ref = ray.put(value)
            @ray.remote
            def inner():
                return len(ray.get(ref))
            @ray.remote
            class Inner:
                def look(self):
                    return len(ray.get(ref)), ray.get(inner.remote())
            assert ray.get([inner.options(**p).remote() for p in (A, B, C)]) == [len(value)] * 3
            assert ray.get(Inner.options(**B).remote().look.remote()) == (len(value), len(value))
"""


def test_closures(nodes):
    """What a function or a class closes over lives as long as its job: nobody can tell who will call it again."""
    home, daemons = nodes
    driver = drive(home, daemons[0], CLOSURE)
    assert line(driver, 120) == "dropped"
    assert of(daemons[0])["sizes"]["objects"] >= 6
    tell(driver)
    assert driver.wait(60) == 0
    no_jobs(daemons)


TWO = """
        if sys.argv[3] == "first":
            k = Keeper.options(name="between", lifetime="detached", **B).remote()
            ray.get([k.keep.remote([ray.put(v)]) for v in both])
            ray.get(k.keep.remote([made.options(**C).remote(BIG)]))
            print("kept", flush=True)
            input()
            return
        k = ray.get_actor("between")
        refs = ray.get(k.give.remote())
        assert [len(ray.get(r[0])) for r in refs[:2]] == [len(v) for v in both]
        mine = ray.put(BIG)
        ray.get(k.keep.remote([mine, refs]))
        assert ray.get(length_in.options(**C).remote([mine])) == len(BIG)
        print("held", flush=True)
        input()
        ray.kill(k)
"""


@pytest.mark.parametrize("how", ["ends", "dies"])
def test_two_drivers(nodes, how):
    """Refs go from one driver through a detached actor to another, and their maker goes."""
    home, daemons = nodes
    first = home.driver(BEGIN + TWO + END, daemons[0]["gcs_address"], daemons[0]["node_ip"], "first")
    assert line(first) == "kept"
    second = home.driver(BEGIN + TWO + END, daemons[0]["gcs_address"], daemons[-1]["node_ip"], "second")
    assert line(second) == "held"
    if how == "dies":
        first.kill()
        first.wait()
    else:
        tell(first)
        assert line(first) == "dropped"
        tell(first)
        assert first.wait(60) == 0
    tell(second)
    assert line(second) == "dropped"
    until_empty(daemons)
    tell(second)
    assert second.wait(60) == 0
    no_jobs(daemons)


BUSY = """
        @ray.remote
        def slow(x, pause):
            time.sleep(pause)
            return [ray.put(x), x]
        @ray.remote
        def many(x):
            for k in range(1000):
                yield [ray.put(x)]
                time.sleep(0.01)
        kept = [ray.put(v) for v in both]
        keepers = [Keeper.options(**p).remote(kept) for p in (A, B, C)]
        work = [slow.options(**p).remote(BIG, 0.02 * k) for k in range(20) for p in (A, B, C)]
        deep = [slow.options(**p).remote(w, 0.01) for w in work for p in (B, C)]
        gens = [many.options(**p).remote(BIG) for p in (A, B, C)]
        items = [next(g) for g in gens]
        calls = [k.keep.remote([w, kept]) for k in keepers for w in work]
        ray.get(work[:5] + items)
        print("busy", flush=True)
        ray.get(deep)
        time.sleep(3600)
"""


def test_a_driver_dies(nodes):
    """A driver is killed while tasks, generators, calls and copies are under way everywhere."""
    home, daemons = nodes
    for daemon in daemons:
        driver = drive(home, daemon, BUSY)
        assert line(driver, 120) == "busy"
        driver.kill()
        driver.wait()
        no_jobs(daemons)


def test_a_node_dies(binary, tmp_path):
    """What was on a node, and what that node had from others, is gone when the node is."""
    home = Home(tmp_path, binary)
    try:
        daemons = cluster(home, 3)
        driver = drive(
            home,
            daemons[1],
            """
        kept = [ray.put(v) for v in both]
        keepers = [Keeper.options(**p).remote([kept]) for p in (A, B, C)]
        far = [made.options(max_retries=0, **p).remote(v) for p in (A, C) for v in both]
        gens = [passed.options(**C).remote(kept, B, C, A) for _ in range(10)]
        ray.get([k.keep.remote([far, kept]) for k in keepers] + far)
        assert [opened(g) for g in gens] == [BIG] * 10  # what needs c would wait for it without end
        print("ready", flush=True)
        input()
        for ref in [k.keep.remote([far]) for k in keepers]:
            try:
                ray.get(ref)
            except RayError:
                pass
            """,
        )
        assert line(driver) == "ready"
        os.kill(daemons[2]["pid"], signal.SIGKILL)
        tell(driver)
        assert line(driver) == "dropped"
        until_empty(daemons[:2])
        tell(driver)
        assert driver.wait(60) == 0
        no_jobs(daemons[:2])
        for node in daemons[:2]:
            until(lambda n=node: len(workers_of(n["pid"])) <= 2, "the surplus workers leave")
            assert of(node)["sizes"]["peers"] <= 1
    finally:
        home.close()
