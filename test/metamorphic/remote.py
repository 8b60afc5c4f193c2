"""Carries programs out on a cluster: ``python remote.py ADDRESS NODE_IP`` reads them, one JSON a line, and prints their answers.

Only what Ray has, too, is used.
"""

import asyncio
import contextlib
import json
import os
import sys
import threading
import time

import programs

import ray

PATIENCE_S = float(os.environ.get("METAMORPHIC_PATIENCE_S", "60"))  # after which a get hangs


class Hang(BaseException):
    """Something did not come in time."""


class Api:
    """What :class:`programs.Run` needs, by way of ray."""

    def kind(self, error):
        """The word for an error."""
        if isinstance(error, programs.Failed):
            return "Failed"
        if isinstance(error, ray.exceptions.TaskCancelledError):
            return "Cancelled"
        if isinstance(error, ray.exceptions.RayActorError):
            return "Dead"
        cause = getattr(error, "cause", None)
        if cause is not None and cause is not error:
            return self.kind(cause)
        return f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"

    def is_ref(self, value):
        """Whether a value is a ref."""
        return isinstance(value, ray.ObjectRef)

    def put(self, value):
        """As ray.put."""
        return ray.put(value)

    def get(self, ref):
        """As ray.get, with a bound."""
        try:
            return ray.get(ref, timeout=PATIENCE_S)
        except ray.exceptions.GetTimeoutError as e:
            raise Hang(str(e)) from None

    def wait(self, refs, n):
        """As ray.wait."""
        ready, rest = ray.wait(refs, num_returns=n, timeout=PATIENCE_S)
        if len(ready) < n:
            raise Hang(f"{len(ready)} of {len(refs)} are ready, not {n}")
        return ready, rest

    def call(self, s, run, args):
        """Call a task."""
        options = {"num_cpus": s["cpus"], "num_returns": s["returns"]}
        if s["spread"]:
            options["scheduling_strategy"] = "SPREAD"
        return task.options(**options).remote(s, run, *args)

    def actor(self, s, run):
        """Make an actor."""
        options = {"num_cpus": 0}
        if s["named"]:
            options["name"] = f"{run}-{s['id']}"
        if s["spread"]:
            options["scheduling_strategy"] = "SPREAD"
        made = CLASSES[s["kind"]].options(**options).remote()
        return ray.get_actor(options["name"]) and made if s["named"] else made

    def method(self, actor, method, name, args):
        """Call a method."""
        return getattr(actor, method).remote(name, *args)

    def gen(self, actor, s, args):
        """Call a generator."""
        options = {"num_returns": "streaming"}
        if s["bound"]:
            options["_generator_backpressure_num_objects"] = s["bound"]
            if actor is None:
                options["num_cpus"] = 0  # it may wait for its reader as long as the program lives
        call = generate if actor is None else actor.items
        return call.options(**options).remote(s, *args)

    def flaky(self, actor, s):
        """Call a task that fails for some attempts."""
        return flaky.options(max_retries=s["retries"], retry_exceptions=True).remote(actor, s["id"], s["n"])

    def cancelled(self, s, args, run):
        """Cancel something that never ends, and say what becomes of it."""
        blocker = Blocker.options(num_cpus=0).remote()
        never = blocker.block.remote()
        victim = never
        if s["what"] == "waits":  # a task that waits for its argument
            victim = after.remote(never)
        elif s["what"] == "blocked":  # a task that waits for it in a get
            victim = waits.remote([never])
            self.get(blocker.reached.remote())
        ray.cancel(victim)
        try:
            return run.value(victim)
        finally:
            ray.kill(blocker)  # which would do what it was asked first

    def kill(self, actor):
        """As ray.kill."""
        ray.kill(actor)


@ray.remote(max_retries=3)
def task(s, run, *args):
    """A task of a program."""
    return programs.in_task(Api(), s, run, list(args))


@ray.remote
def generate(s, *args):
    """A generator of a program."""
    yield from programs.items(None, s, args)


@ray.remote
def flaky(actor, name, n):
    """Fails n times."""
    if Api().get(actor.tried.remote(name)) <= n:
        raise programs.Failed(name)
    return name


@ray.remote
def after(never):
    """Is never run."""
    raise AssertionError("what it waits for does not exist")


@ray.remote
def waits(refs):
    """Never ends."""
    return ray.get(refs)


@ray.remote
class Blocker:
    """Keeps others waiting."""

    async def block(self):
        """Never ends."""
        await asyncio.Event().wait()

    async def reached(self):
        """Says that it is there."""


class Sync:
    """An actor that does one thing at a time."""

    def __init__(self):
        self.state = programs.State(contextlib.nullcontext())

    def chain(self, name, *args):
        return self.state.chain(name, list(args))

    def add(self, name, *args):
        return self.state.add(name, args)

    def fail(self, name, *args):
        return self.state.fail(name, args)

    def total(self, name):
        return self.state.total(name, ())

    def tried(self, name):
        return self.state.tried(name)

    def items(self, s, *args):
        yield from programs.items(None, s, args)


class Async:
    """One that does many."""

    def __init__(self):
        self.state = programs.State(contextlib.nullcontext())

    async def chain(self, name, *args):
        return self.state.chain(name, list(args))

    async def add(self, name, *args):
        await asyncio.sleep(0)
        return self.state.add(name, args)

    async def fail(self, name, *args):
        return self.state.fail(name, args)

    async def total(self, name):
        return self.state.total(name, ())

    async def tried(self, name):
        return self.state.tried(name)

    async def items(self, s, *args):
        for item in programs.items(None, s, args):
            await asyncio.sleep(0)
            yield item


class Threads(Sync):
    """One that does some, in threads."""

    def __init__(self):
        self.state = programs.State(threading.Lock())


CLASSES = {"sync": ray.remote(Sync), "async": ray.remote(Async), "threads": ray.remote(max_concurrency=3)(Threads)}


def main():
    """Answer programs until stdin ends."""
    options = {"_node_ip_address": sys.argv[2]} if len(sys.argv) > 2 else {}
    address = sys.argv[1] if sys.argv[1] != "own" else None
    if address is None:
        options = {"num_cpus": 4}
    ray.init(address=address, log_to_driver=False, namespace="metamorphic", **options)
    print("answer ready", flush=True)
    for k, text in enumerate(sys.stdin):
        begun = time.monotonic()
        try:
            run = programs.Run(Api(), f"{os.getpid()}-{k}")
            answers = run.body(json.loads(text))
        except Hang as e:
            answers = {**run.answers, "hang": str(e)}
        del run
        print("answer", json.dumps({"answers": answers, "seconds": round(time.monotonic() - begun, 3)}), flush=True)


if __name__ == "__main__":
    main()
