"""The cases that end something before it is done: ray.cancel, and Ctrl-C."""

import os
import signal
import statistics
import threading
import time

from cases import TIME, case

_TIMES = 9  # of which the median counts


def _ends(ray, ref):
    """Returns the milliseconds from a cancel to the error."""
    t = time.perf_counter()
    ray.cancel(ref)
    try:
        ray.get(ref, timeout=60)
    except ray.exceptions.TaskCancelledError:
        return (time.perf_counter() - t) * 1e3
    raise RuntimeError("a cancelled task returned a value")


@case("cancel of a queued task", "ms", TIME, limit=5)
def cancel_queued(session):
    ray = session.ray

    @ray.remote(num_cpus=0, resources={"nobody has this": 1})
    def never():
        pass

    return statistics.median([_ends(ray, never.remote()) for _ in range(_TIMES)])


@case("cancel of 1,000 queued tasks", "ms", TIME)
def cancel_many(session):
    ray = session.ray

    @ray.remote(num_cpus=0, resources={"nobody has this": 1})
    def never():
        pass

    refs = [never.remote() for _ in range(1000)]
    t = time.perf_counter()
    for ref in refs:
        ray.cancel(ref)
    ray.wait(refs, num_returns=1000)
    return (time.perf_counter() - t) * 1e3


@case("cancel of running Python code", "ms", TIME, limit=100)
def cancel_running(session):
    ray = session.ray

    @ray.remote(num_cpus=0)
    class Started:
        def __init__(self):
            self.n = 0

        def say(self):
            self.n += 1

        def said(self):
            return self.n

    @ray.remote
    def busy(started):
        ray.get(started.say.remote())
        while True:
            time.sleep(0.001)

    started = Started.remote()
    took = []
    for k in range(_TIMES):
        ref = busy.remote(started)
        while ray.get(started.said.remote()) <= k:
            time.sleep(0.01)
        took.append(_ends(ray, ref))
    return statistics.median(took)


@case("Ctrl-C while a get waits, to the program's next line", "ms", TIME, limit=100)
def ctrl_c(session):
    ray = session.ray

    @ray.remote(num_cpus=0, resources={"nobody has this": 1})
    def never():
        pass

    ref = never.remote()
    sent = []

    def interrupt():
        time.sleep(0.3)  # until the get waits
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    took = []
    for _ in range(_TIMES):
        threading.Thread(target=interrupt).start()
        try:
            ray.get(ref)
        except KeyboardInterrupt:
            took.append((time.perf_counter() - sent.pop()) * 1e3)
    ray.cancel(ref)
    return statistics.median(took)
