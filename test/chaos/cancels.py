"""What a driver of the chaos run cancels: tasks that wait, run, die again and again, fail, have children, or yield.

Each attempt writes that it starts, and when, to ``starts/<caller>``. One that goes on until it is stopped touches
``beats/<task>``, which holds its process, so that anybody sees whether it was.
"""

import os
import pathlib
import time

import ray

# What it does of itself, and its max_retries. "ends" ends by itself, all others only when they are cancelled.
KINDS = {
    "ends": 3,
    "spins-0": 0,
    "spins-inf": -1,
    "dies": -1,
    "raises": -1,
    "parent": 3,
    "yields": 3,
    "queued": 3,
    "waits": 3,
}
STOPPED_S = 60  # within which what was cancelled has stopped, wherever it runs


class Beat:
    """Says that a task still runs."""

    def __init__(self, folder, task):
        self.folder, self.task = pathlib.Path(folder), task
        starts(self.folder, task)
        self.path = self.folder / "beats" / task
        self.path.write_text(str(os.getpid()))

    def go_on(self):
        while True:
            os.utime(self.path)
            time.sleep(0.01)


def starts(folder, task):
    path = pathlib.Path(folder) / "starts" / task.rpartition(":")[0]
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{task} {time.time()}\n".encode())
    os.close(fd)


@ray.remote(num_cpus=0)
def ends(folder, task, seconds, late=None):
    starts(folder, task)
    time.sleep(seconds)
    return task


@ray.remote(num_cpus=0)
def spins(folder, task, seconds, late=None):
    Beat(folder, task).go_on()


@ray.remote(num_cpus=0)
def dies(folder, task, seconds):
    starts(folder, task)
    time.sleep(seconds)
    os._exit(3)


@ray.remote(num_cpus=0, retry_exceptions=True)
def raises(folder, task, seconds):
    starts(folder, task)
    time.sleep(seconds)
    raise ValueError(task)


@ray.remote(num_cpus=0)
def parent(folder, task, seconds):
    """Waits for a child that never ends, and has another that it does not wait for."""
    starts(folder, task)
    refs = [
        spins.options(name=f"{task}.child", max_retries=-1).remote(folder, f"{task}.{k}", 0)
        for k in (f"a{os.getpid()}", f"b{os.getpid()}")
    ]
    return ray.get(refs[0])


@ray.remote(num_cpus=0)
def yields(folder, task, seconds):
    beat = Beat(folder, task)
    yield task
    beat.go_on()


def make(rng, folder, task, kind):
    """Call a task of a kind; a ref or a generator of what it gives."""
    args = (folder, task, rng.choice((0, 0, 0.01, 0.1)))
    options = {"max_retries": KINDS[kind], "name": task}
    if rng.random() < 0.3:
        options["scheduling_strategy"] = "SPREAD"
    if kind == "queued":  # for ever, or until there is a CPU
        options.update({"resources": {"nowhere": 1}} if rng.random() < 0.5 else {"num_cpus": 2})
        return spins.options(**options).remote(*args)
    if kind == "waits":
        late = spins.options(num_cpus=0, name=f"{task}.child").remote(folder, f"{task}.arg", 0)
        return ends.options(**options).remote(*args, late), late
    function = {"spins-0": spins, "spins-inf": spins}.get(kind) or globals()[kind]
    return function.options(**options).remote(*args)


def stopped(folder, caller):
    """Wait until nothing that a caller has cancelled runs any more; what does so nevertheless."""
    deadline = time.monotonic() + STOPPED_S
    while True:
        seen = {p: p.stat().st_mtime_ns for p in (pathlib.Path(folder) / "beats").glob(f"{caller}:*")}
        time.sleep(0.5)
        lives = [p.name for p, then in seen.items() if p.stat().st_mtime_ns != then]
        if not lives or time.monotonic() > deadline:
            return lives


class Canceller:
    """Calls tasks in bursts, cancels them at random moments, and writes what becomes of them."""

    def __init__(self, folder, name, seed, log, hang_s, random):
        self.folder, self.name, self.log, self.hang_s = str(folder), name, log, hang_s
        self.rng = random.Random(seed)
        self.seq = 0

    def cancel(self, task, kind, ref):
        how = {"recursive": True}
        if kind == "ends":
            how["recursive"] = self.rng.random() < 0.5
        if self.rng.random() < 0.3:
            how["force"] = True
        self.log.add("cancels", task, time.time(), *sorted(how))
        for _ in range(self.rng.choice((1, 1, 1, 3))):
            ray.cancel(ref, **how)

    def result(self, ref):
        if isinstance(ref, ray.ObjectRef):
            return ray.get(ref, timeout=self.hang_s)
        for item in ref:  # the first is its name, the next that it was cancelled
            got = ray.get(item, timeout=self.hang_s)
        return got

    def settle(self, task, ref):
        try:
            word = "value" if self.result(ref) == task else "wrong"
        except ray.exceptions.GetTimeoutError as e:
            self.log.add("hangs", task, " ".join(str(e).split())[:400])
            return
        except ray.exceptions.LocalRayletDiedError:
            os._exit(1)
        except ray.exceptions.TaskCancelledError as e:
            word = f"error TaskCancelledError {' '.join(str(e).split())[-400:]}"
        except ray.exceptions.RayError as e:
            word = f"error {type(e).__name__} {' '.join(str(e).split())[:400]}"
        self.log.add("ends", task, word)

    def run(self, rounds):
        for _ in range(rounds):
            made = []
            for _ in range(self.rng.choice((1, 4, 8))):
                self.seq += 1
                kind = self.rng.choice(sorted(KINDS))
                task = f"{self.name}:{self.seq}"
                self.log.add("asks", task, kind)
                made.append((task, kind, make(self.rng, self.folder, task, kind)))
            time.sleep(self.rng.choice((0, 0, 0.002, 0.05, 0.3)))
            self.rng.shuffle(made)
            for task, kind, ref in made:
                if kind == "waits":
                    ref, late = ref
                    if self.rng.random() < 0.5:  # its argument is what is cancelled
                        self.cancel(task, kind, late)
                        continue
                    self.cancel(task, kind, ref)
                    ray.cancel(late)
                elif kind != "ends" or self.rng.random() < 0.7:
                    self.cancel(task, kind, ref)
                if self.rng.random() < 0.3:
                    time.sleep(self.rng.random() / 20)
            for task, _, ref in made:
                self.settle(task, ref[0] if isinstance(ref, tuple) else ref)
            del made, ref
        lives = stopped(self.folder, self.name)
        for task in lives:
            self.log.add("lives", task)
        self.log.add("done")
        return self.seq
