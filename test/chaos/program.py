"""A driver of the chaos run: rounds of callers on all nodes that call actors of all kinds. What happens is written to files.

Each incarnation of an actor writes the ids of the calls that it starts to ``runs/<actor>/<incarnation>``, and each caller
what it asked for and how that ended to ``calls/<caller>``, so that :mod:`check` can compare the two whoever was killed.
"""

import asyncio
import contextlib
import faulthandler
import json
import os
import pathlib
import random
import signal
import sys
import threading
import time

from cancels import Canceller

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

FOLDER = pathlib.Path(sys.argv[1])

# Kind: (flavour, max_restarts, max_task_retries). Those that come back for ever are told to fail less often.
KINDS = {
    "sync-0-0": ("sync", 0, 0),
    "sync-3-0": ("sync", 3, 0),
    "sync-inf-0": ("sync", -1, 0),
    "sync-3-2": ("sync", 3, 2),
    "sync-inf-inf": ("sync", -1, -1),
    "async-0-0": ("async", 0, 0),
    "async-inf-0": ("async", -1, 0),
    "async-inf-inf": ("async", -1, -1),
    "threads-inf-0": ("threads", -1, 0),
    "threads-3-2": ("threads", 3, 2),
    "threads-inf-inf": ("threads", -1, -1),
    "groups-0-0": ("groups", 0, 0),
    "groups-3-2": ("groups", 3, 2),
    "groups-inf-inf": ("groups", -1, -1),
}
HANG_S = float(os.environ.get("CHAOS_HANG_S", "120"))  # a call that takes longer hangs


class Log:
    """A file to which whole lines are added, each by one write: what was written outlives the process."""

    def __init__(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def add(self, *words):
        os.write(self._fd, (" ".join(map(str, words)) + "\n").encode())


class Base:
    def __init__(self, folder, name):
        self.mark = f"{time.time_ns()}-{os.getpid()}"
        self.log = Log(pathlib.Path(folder) / "runs" / name / self.mark)
        faulthandler.register(signal.SIGUSR1)

    def answer(self, call, size):
        return call, self.mark, bytes(size)

    def items(self, call, pause, size, n):
        self.log.add(call)
        for k in range(n):
            time.sleep(pause)
            yield (k, *self.answer(call, size))


class Sync(Base):
    def work(self, call, pause, size, late=None):
        self.log.add(call)
        time.sleep(pause)
        return self.answer(call, size)


class Async(Base):
    async def work(self, call, pause, size, late=None):
        self.log.add(call)
        await asyncio.sleep(pause)
        return self.answer(call, size)

    async def items(self, call, pause, size, n):
        self.log.add(call)
        for k in range(n):
            await asyncio.sleep(pause)
            yield (k, *self.answer(call, size))


class Groups(Base):
    """One method a group, and generators in the default one."""

    def work(self, call, pause, size, late=None):
        self.log.add(call)
        time.sleep(pause)
        return self.answer(call, size)

    @ray.method(concurrency_group="one")
    def one(self, *args):
        return self.work(*args)

    @ray.method(concurrency_group="more")
    def more(self, *args):
        return self.work(*args)


FLAVOURS = {
    "sync": ray.remote(Sync),
    "async": ray.remote(Async),
    "threads": ray.remote(max_concurrency=4)(Sync),
    "groups": ray.remote(concurrency_groups={"one": 1, "more": 3})(Groups),
}


@ray.remote(num_cpus=0, max_retries=-1)
def later(pause, size):
    time.sleep(pause)
    return bytes(size)


@ray.remote(num_cpus=0, max_retries=-1)
def stream(pause, size, n):
    for _ in range(n):
        time.sleep(pause)
        yield bytes(size)


def look(folder):
    """Have daemons and actors of a debugging build write down what they do, while the call still hangs."""
    if os.environ.get("CHAOS_DUMP"):
        for pid in json.loads((folder / "daemons").read_text()):
            os.kill(pid, signal.SIGUSR2)
        for path in (folder / "runs").glob("*/*"):
            pid = int(path.name.partition("-")[2])
            with contextlib.suppress(OSError):
                if pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):
                    os.kill(pid, signal.SIGUSR1)
        time.sleep(3)


class Hang(Exception):
    pass


class Stream:
    """A generator's call, of which some items are read."""

    def __init__(self, items, some, n):
        self.items, self.some, self.n = items, some, n

    def read(self):
        """The answer in the last item that is read; each must be the next one."""
        answer = None
        for k in range(self.some):
            ready, _ = ray.wait([self.items], timeout=HANG_S, fetch_local=False)
            if not ready:
                raise ray.exceptions.GetTimeoutError(f"item {k} of {self.n} does not come")
            at, *answer = ray.get(next(self.items), timeout=HANG_S)
            if at != k:
                return f"item {at} in the place of {k}", "", b""
        if self.some == self.n and next(self.items, None) is not None:
            return f"more than {self.n} items", "", b""
        return answer


def result_of(ref):
    """The answer of a call."""
    return ref.read() if isinstance(ref, Stream) else ray.get(ref, timeout=HANG_S)


class Caller:
    """Makes a number of calls in bursts and writes what becomes of them."""

    def __init__(self, folder, name, seed, actors):
        self.folder = pathlib.Path(folder)
        self.log = Log(self.folder / "calls" / name)
        self.name = name
        self.rng = random.Random(seed)
        self.actors = actors  # [(name, handle)]
        self.seq = 0
        self.streams = True

    def submit(self):
        rng = self.rng
        actor, handle = rng.choice(self.actors)
        self.seq += 1
        call = f"{self.name}:{self.seq}"
        pause = rng.choice((0, 0, 0, 0.001, 0.01))
        size = 200_000 if rng.random() < 0.03 else 10
        draw = rng.random()
        late = None
        if draw < 0.05:
            late = later.remote(rng.random() / 20, 10)
        elif draw < 0.08:
            late = later.remote(rng.random() / 20, 150_000)
        elif draw < 0.1:
            late = bytes(150_000)
        elif draw < 0.12:  # an item of a generator that nobody reads to its end
            late = next(stream.remote(pause, rng.choice((10, 150_000)), 5))
        self.log.add("asks", call, actor)
        if draw > 0.95 and self.streams:
            n = rng.randrange(1, 30)
            items = handle.items.options(num_returns="streaming").remote(call, pause, size, n)
            return call, size, Stream(items, rng.randrange(1, n + 1) if rng.random() < 0.3 else n, n)
        method = rng.choice(("work", "one", "more")) if actor.startswith("groups") else "work"
        return call, size, getattr(handle, method).remote(call, pause, size, late)

    def cancel_some(self, made):
        """Cancel a few of the calls; those to actors that are not async go on if they run."""
        for call, _, ref in made:
            if self.rng.random() < 0.05:
                self.log.add("cancels", call)
                ray.cancel(ref.items if isinstance(ref, Stream) else ref, recursive=self.rng.random() < 0.5)

    def settle(self, call, size, get):
        try:
            got, mark, data = get()
            word = f"value {mark}" if got == call and len(data) == size else f"wrong {got}"
        except ray.exceptions.GetTimeoutError as e:
            self.log.add("hangs", call)
            look(self.folder)
            raise Hang(f"{call}: {e}") from None
        except ray.exceptions.LocalRayletDiedError:
            os._exit(1)  # this caller's own daemon was killed: it is about to be killed, too
        except ray.exceptions.TaskCancelledError:  # also if that is the cause of another
            word = "error TaskCancelledError"
        except ray.exceptions.RayError as e:
            word = f"error {type(e).__name__} {' '.join(str(e).split())[:400]}"
        self.log.add("ends", call, word)

    def run(self, calls):
        while calls > 0:
            burst = min(calls, self.rng.choice((1, 10, 60)))
            calls -= burst
            made = [self.submit() for _ in range(burst)]
            self.cancel_some(made)
            for call, size, ref in made:
                self.settle(call, size, lambda ref=ref: result_of(ref))
        self.log.add("done")
        return self.seq

    async def arun(self, calls):
        self.streams = False  # they are read by who may block
        while calls > 0:
            burst = min(calls, self.rng.choice((1, 10, 60)))
            calls -= burst
            made = [self.submit() for _ in range(burst)]
            self.cancel_some(made)
            for call, size, ref in made:
                value = failure = None
                try:
                    value = await asyncio.wait_for(ref, HANG_S)
                except asyncio.TimeoutError:
                    try:  # which says what it waits for
                        failure = ray.exceptions.GetTimeoutError(
                            f"awaited in vain; now {ray.get(ref, timeout=0.1)!r:.20}"
                        )
                    except Exception as e:
                        failure = e
                except Exception as e:
                    failure = e

                def get(value=value, failure=failure):
                    if failure is not None:
                        raise failure
                    return value

                self.settle(call, size, get)
        self.log.add("done")
        return self.seq


@ray.remote(num_cpus=0, max_retries=0)
def call_from_task(*args):
    *args, calls = args
    return Caller(*args).run(calls)


def canceller(folder, name, seed):
    return Canceller(folder, name, seed, Log(pathlib.Path(folder) / "tasks" / name), HANG_S, random)


@ray.remote(num_cpus=0, max_retries=0)
def cancel_from_task(folder, name, seed):
    return canceller(folder, name, seed).run(4)


@ray.remote(num_cpus=0, max_restarts=0)
class CallingActor:
    async def run(self, *args):
        *args, calls = args
        return await Caller(*args).arun(calls)


def main():
    folder, address, seed, index, seconds = FOLDER, sys.argv[2], int(sys.argv[3]), sys.argv[4], float(sys.argv[5])
    rng = random.Random(f"{seed}/{index}")
    ray.init(address=address, log_to_driver=False, _node_ip_address=os.environ.get("CHAOS_NODE_IP"))
    deadline = time.monotonic() + seconds
    actors = {}
    made = rounds = 0
    for name in ("starts", "beats"):
        (folder / name).mkdir(exist_ok=True)
    hangs = Log(folder / "hangs")
    while time.monotonic() < deadline:
        rounds += 1
        nodes = [n["NodeID"] for n in ray.nodes() if n["Alive"]]
        for kind, (flavour, restarts, retries) in KINDS.items():
            draw = rng.random()
            if kind in actors and draw < 0.1:
                ray.kill(actors[kind][1], no_restart=draw < 0.05)
            if kind in actors and (draw < 0.2 or restarts >= 0 and rng.random() < 0.5):
                del actors[kind]  # what it is asked is done; then it ends
            if kind not in actors:
                made += 1
                name = f"{kind}.{index}.{made}"
                options = {"max_restarts": restarts, "max_task_retries": retries, "num_cpus": 0}
                options["scheduling_strategy"] = rng.choice(
                    ("SPREAD", NodeAffinitySchedulingStrategy(rng.choice(nodes), soft=True))
                )
                if rng.random() < 0.3:
                    options["name"] = name
                actors[kind] = (name, FLAVOURS[flavour].options(**options).remote(str(folder), name))
        table = list(actors.values())
        (folder / f"actors-{index}.new").write_text(json.dumps([name for name, _ in table]))
        os.replace(folder / f"actors-{index}.new", folder / f"actors-{index}")
        refs = []
        for k in range(3):
            where = NodeAffinitySchedulingStrategy(rng.choice(nodes), soft=True)
            name = f"{index}.{rounds}.{k}"
            args = (str(folder), name, rng.random(), table, rng.randrange(50, 200))
            if k == 2:
                refs.append(CallingActor.options(scheduling_strategy=where).remote().run.remote(*args))
            else:
                refs.append(call_from_task.options(scheduling_strategy=where).remote(*args))
        where = NodeAffinitySchedulingStrategy(rng.choice(nodes), soft=True)
        refs.append(
            cancel_from_task.options(scheduling_strategy=where).remote(str(folder), f"{index}.{rounds}.c", rng.random())
        )
        failed = []

        def stop(name, seed, failed=failed):
            try:
                canceller(folder, name, seed).run(6)
            except BaseException as e:
                failed.append(e)  # noqa: B023

        def mine(name, seed, calls, table=table, failed=failed):
            try:
                Caller(str(folder), name, seed, table).run(calls)
            except BaseException as e:
                failed.append(e)  # noqa: B023

        threads = [
            threading.Thread(target=mine, args=(f"{index}.{rounds}.t{k}", rng.random(), rng.randrange(50, 200)))
            for k in range(2)
        ]
        threads.append(threading.Thread(target=stop, args=(f"{index}.{rounds}.tc", rng.random())))
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for e in failed:
            hangs.add(index, repr(e))
            raise e
        for k, ref in enumerate(refs):
            try:
                ray.get(ref, timeout=HANG_S + 60)
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.RayActorError) as e:
                (Log(folder / "lost")).add(f"{index}.{rounds}.{k}", type(e).__name__, " ".join(str(e).split())[:300])
            except ray.exceptions.RayError as e:
                hangs.add(index, f"{index}.{rounds}.{k}", repr(e))
                raise
    Log(folder / "rounds").add(index, rounds)


if __name__ == "__main__":
    main()
