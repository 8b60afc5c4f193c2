"""Four daemons, drivers that call actors and cancel what they called, and a hand that kills them at random: ``make chaos``.

CHAOS_SECONDS says for how long (600), CHAOS_SEED replays a run's choices.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "cluster"))

from check import check  # noqa: E402
from machines import Home, alive, until, workers_of  # noqa: E402

STARTER = "import runpy, sys; sys.path.insert(0, sys.argv[1]); sys.argv = sys.argv[2:]; runpy.run_path(sys.argv[0], run_name='__main__')"
SETTLE_S = 60  # within which daemons are down to what they had before the work


def anonymous(pid):
    """Bytes that a process has resident and does not share."""
    with open(f"/proc/{pid}/status") as f:
        return int(next(r for r in f if r.startswith("RssAnon")).split()[1]) << 10


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class Chaos:
    """One run."""

    def __init__(self, home, seed, seconds, say):
        self.home, self.seed, self.seconds, self.say = home, seed, seconds, say
        self.rng = random.Random(seed)
        self.folder = home.folder / "chaos"
        self.folder.mkdir()
        self.nodes_died = self.actors_died = self.drivers_died = self.tasks_died = 0
        self.drivers = {}
        self.count = 0

    def start(self):
        self.head = self.home.head(cpus=2)
        self.others = {k: self.join(k) for k in (2, 3, 4)}

    def join(self, k):
        node = self.home.node(self.head["gcs_address"], ip=f"127.0.0.{k}", cpus=2)
        (self.folder / "daemons").write_text(json.dumps([n["pid"] for n in self.home.nodes()]))
        return node

    def drive(self, seconds):
        """Start a driver; those with odd numbers are on a node that is not the head's and is not killed."""
        self.count += 1
        index = f"d{self.count}"
        ip = "127.0.0.2" if self.count % 2 else "127.0.0.1"
        args = [
            str(HERE),
            str(HERE / "program.py"),
            str(self.folder),
            self.head["gcs_address"],
            self.seed,
            index,
            seconds,
        ]
        err = open(self.folder / f"{index}.err", "w")
        process = subprocess.Popen(
            [sys.executable, "-c", STARTER, *map(str, args)],
            env={**self.home.env, "CHAOS_NODE_IP": ip},
            stdin=subprocess.DEVNULL,
            stdout=err,
            stderr=err,
            cwd=self.home.folder,
        )
        err.close()
        self.drivers[index] = process
        self.home_process(process)

    def home_process(self, process):
        self.processes = [*getattr(self, "processes", []), process]

    def kill_actor(self):
        """Kill the process of one of a driver's actors; which one, chance decides."""
        first, second = self.rng.random(), self.rng.random()
        living = sorted(k for k, p in self.drivers.items() if p.poll() is None)
        if not living:
            return
        path = self.folder / f"actors-{living[int(first * len(living))]}"
        if not path.exists():
            return
        names = json.loads(path.read_text())
        runs = self.folder / "runs" / names[int(second * len(names))]
        found = sorted(p.name for p in runs.iterdir()) if runs.exists() else []
        if not found:
            return
        pid = int(found[-1].partition("-")[2])
        with contextlib.suppress(OSError):
            if pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):
                os.kill(pid, signal.SIGKILL)
                self.actors_died += 1

    def kill_task(self):
        """Kill the process of a task that runs until it is cancelled."""
        draw, now = self.rng.random(), time.time()
        fresh = sorted(p for p in (self.folder / "beats").glob("*") if now - p.stat().st_mtime < 0.2)
        if not fresh:
            return
        pid = int(fresh[int(draw * len(fresh))].read_text() or 0)
        with contextlib.suppress(OSError):
            if pid and pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):
                os.kill(pid, signal.SIGKILL)
                self.tasks_died += 1

    def kill_node(self):
        k = self.rng.choice((3, 4))
        self.say(f"kill -9 of the daemon at 127.0.0.{k}")
        node = self.others[k]
        os.kill(node["pid"], signal.SIGKILL)
        self.nodes_died += 1
        until(lambda: not alive((node["pid"], node["start_time"])), "the end of the daemon")
        self.others[k] = self.join(k)

    def pause_node(self):
        """Have a daemon do nothing for a while, too short for it to be given up."""
        k, seconds = self.rng.choice((2, 3, 4)), self.rng.uniform(0.5, 4)
        self.say(f"the daemon at 127.0.0.{k} stands still for {seconds:.1f} s")
        pid = self.others[k]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)

    def kill_driver(self, left):
        living = sorted(k for k, p in self.drivers.items() if p.poll() is None)
        index = living[int(self.rng.random() * len(living))]
        self.say(f"kill -9 of driver {index}")
        self.drivers[index].kill()
        self.drivers[index].wait()
        del self.drivers[index]
        self.drivers_died += 1
        self.drive(left)

    def watch(self):
        """A driver that ended badly, or a daemon that nobody killed, ends the run."""
        for node in (self.head, *self.others.values()):
            if not alive((node["pid"], node["start_time"])):
                name = "raylet.err" if node is self.head else f"raylet.{node['node_id'][:8]}.err"
                text = (pathlib.Path(node["session_dir"]) / "logs" / name).read_text()
                raise AssertionError(f"the daemon at {node['node_ip']} ended by itself:\n{text[-4000:]}")
        for index, process in self.drivers.items():
            if process.poll() not in (None, 0):
                text = (self.folder / f"{index}.err").read_text()
                raise AssertionError(f"driver {index} ended with status {process.returncode}:\n{text[-4000:]}")

    def figures(self):
        return {
            pid: (anonymous(pid), descriptors(pid), len(workers_of(pid)))
            for pid in (self.head["pid"], self.others[2]["pid"])
        }

    def run(self):
        begun = time.monotonic()
        end = begun + self.seconds
        for _ in range(3):
            self.drive(self.seconds)
        next_node = begun + min(self.seconds / 2, self.rng.uniform(20, 50))
        next_pause = begun + self.rng.uniform(8, 30)
        next_driver = begun + min(self.seconds * 0.7, self.rng.uniform(30, 60))
        next_figures = begun + self.seconds / 3
        early = None
        while time.monotonic() < end:
            time.sleep(self.rng.uniform(0.05, 0.6))
            self.watch()
            self.kill_actor()
            self.kill_task()
            now = time.monotonic()
            if now > next_node and now < end - 2:
                self.kill_node()
                next_node = time.monotonic() + self.rng.uniform(20, 50)
            if now > next_pause and now < end - 2:
                self.pause_node()
                next_pause = time.monotonic() + self.rng.uniform(10, 40)
            if now > next_driver and now < end - 2:
                self.kill_driver(end - now)
                next_driver = now + self.rng.uniform(30, 60)
            if early is None and now > next_figures:
                early = self.figures()
        late = self.figures()
        for index, process in self.drivers.items():
            try:
                process.wait(240)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"driver {index} does not end") from None
        self.watch()
        return early or late, late

    def left(self):
        """What is left of the work on the daemons a while after it."""
        pids = [self.head["pid"], *(n["pid"] for n in self.others.values())]
        self.watch()
        until(lambda: all(len(workers_of(p)) <= 2 for p in pids), f"the end of the workers of {pids}", SETTLE_S)
        return [f"{p}: {descriptors(p)} descriptors" for p in pids if descriptors(p) > 60]

    def story(self):
        """What a run that failed looked like."""
        told = []
        for args in (("status", "-v"), ("list", "actors"), ("list", "tasks")):
            with contextlib.suppress(Exception):
                told.append(f"$ ray {' '.join(args)}\n{self.home.ray(*args, check=False).stdout[-6000:]}")
        for path in [*self.folder.glob("*.err"), self.folder / "hangs", self.folder / "lost"]:
            if path.exists() and path.stat().st_size:
                told.append(f"{path.name}:\n{path.read_text()[-3000:]}")
        return "\n".join(told)

    def close(self):
        for process in getattr(self, "processes", []):
            if process.poll() is None:
                process.kill()
            process.wait()


def chaos(home, seed, seconds, say):
    """Run it.

    Returns:
        (what is wrong as texts, figures)
    """
    run = Chaos(home, seed, seconds, say)
    try:
        run.start()
        try:
            early, late = run.run()
            wrong, figures = check(run.folder, run.nodes_died)
            wrong += run.left()
        except AssertionError as e:
            story = run.story()
            run.close()  # what goes on changes the files that are looked at
            wrong, figures = check(run.folder, run.nodes_died)
            return [*wrong[:50], str(e), story], figures
        if wrong:
            wrong.append(run.story())
        for pid, (then, fds, _) in early.items():
            now, fds_now, _ = late[pid]
            figures[f"daemon {pid}"] = f"{then >> 20} MiB {fds} fds -> {now >> 20} MiB {fds_now} fds"
            if now > then * 1.5 + (48 << 20):
                wrong.append(f"daemon {pid} grew from {then >> 20} to {now >> 20} MiB")
        figures.update(killed_actors=run.actors_died, killed_tasks=run.tasks_died, killed_nodes=run.nodes_died)
        figures.update(killed_drivers=run.drivers_died)
        return wrong, figures
    finally:
        run.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--keep", action="store_true", help="keep the run's folder")
    args = parser.parse_args()
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1 << 32))
    seconds = float(os.environ.get("CHAOS_SECONDS") or 600)
    print(f"CHAOS_SEED={seed} CHAOS_SECONDS={seconds:g}", flush=True)
    folder = tempfile.mkdtemp(prefix="gray-chaos-")
    home = Home(folder, os.path.abspath(args.binary))
    begun = time.monotonic()
    try:
        wrong, figures = chaos(
            home, seed, seconds, lambda text: print(f"{time.monotonic() - begun:6.1f} {text}", flush=True)
        )
    finally:
        home.close()
    print(json.dumps(figures, indent=1))
    for text in wrong:
        print(text)
    if wrong or args.keep:
        print(f"the run's files: {folder}")
    else:
        import shutil

        shutil.rmtree(folder)
    print(f"{'FAILED' if wrong else 'ok'}: CHAOS_SEED={seed}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
