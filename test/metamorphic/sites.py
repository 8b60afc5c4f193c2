"""Where programs are carried out, and the comparison of what they answer: ``make metamorphic`` and ``make oracle``."""

import argparse
import contextlib
import json
import os
import pathlib
import random
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "cluster")]

import model  # noqa: E402
import programs  # noqa: E402
from machines import Home, children  # noqa: E402

BOUND_S = 180  # for one program, of which each get has a bound of its own


class Site:
    """A driver that carries out programs.

    Args:
        argv: Its interpreter.
        address: Of the cluster; "own" for one of the driver's own.
        ip: Of the node that it connects to.
    """

    def __init__(self, name, argv, folder, env, address="own", ip=None):
        self.name = name
        self._start = (argv, folder, env, [address] + ([ip] if ip else []))
        self._driver = None
        self.seconds = 0.0

    def _open(self):
        argv, folder, env, args = self._start
        self._err = open(pathlib.Path(folder) / f"{self.name}.err", "w+")
        self._driver = subprocess.Popen(
            [*argv, str(HERE / "remote.py"), *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._err,
            env=env,
            cwd=str(HERE),
        )
        self._said = b""
        assert self._answer(120) == "ready"

    def _answer(self, bound):
        while True:  # others print, too
            word, _, rest = self._line(bound).partition(" ")
            if word == "answer":
                return rest

    def _line(self, bound):
        deadline = time.monotonic() + bound
        while b"\n" not in self._said:
            ready, _, _ = select.select([self._driver.stdout], [], [], max(deadline - time.monotonic(), 0))
            chunk = os.read(self._driver.stdout.fileno(), 1 << 20) if ready else None
            if not chunk:
                self._err.seek(0)
                why = "ended" if ready else f"said nothing within {bound} s"
                raise AssertionError(f"{self.name}: the driver {why}; its stderr:\n{self._err.read()[-4000:]}")
            self._said += chunk
        text, _, self._said = self._said.partition(b"\n")
        return text.decode()

    def answers(self, program):
        """What a program answers here. If it hangs, or its driver dies, that is told as an answer, and the next one has a new driver."""
        try:
            if self._driver is None:
                self._open()
            self._driver.stdin.write(json.dumps(program).encode() + b"\n")
            self._driver.stdin.flush()
            got = json.loads(self._answer(BOUND_S))
        except (AssertionError, OSError) as e:
            self.close()
            return {"driver": str(e)}
        self.seconds += got["seconds"]
        if "hang" in got["answers"]:
            self.close()  # what hangs would be there still
        return got["answers"]

    def close(self):
        """End the driver."""
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.stdin.close()
            try:
                driver.wait(60)
            except subprocess.TimeoutExpired:
                driver.kill()
                driver.wait()
            driver.stdout.close()
            self._err.close()


@contextlib.contextmanager
def standstills(daemons, seed, most=0.15):
    """Have daemons, and processes below them, stand still for moments, so that what follows comes late."""
    rng, stop = random.Random(seed), threading.Event()

    def run():
        while not stop.wait(rng.uniform(0.01, 0.1)):
            pid = rng.choice(daemons)
            if rng.random() < 0.4:
                pid = rng.choice(children(pid) or [pid])
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                try:
                    stop.wait(rng.uniform(0.005, most))
                finally:
                    os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def modelled(program):
    """What the sequential model answers."""
    return json.loads(json.dumps(programs.Run(model.Api(), "model").body(program)))


def compare(seed, program, site, again=3):
    """Carry out a program at a site.

    Returns:
        None if it answers as the model does; else a text with the smallest program found that does not.
    """
    want = modelled(program)
    got = site.answers(program)
    if got == want:
        return None

    def fails(less):
        if not less:
            return False
        wanted = modelled(less)
        return any(site.answers(less) != wanted for _ in range(again))

    least = programs.shrink(program, fails)
    wanted = modelled(least)
    seen = (
        got
        if least == program
        else next((a for a in (site.answers(least) for _ in range(10)) if a != wanted), "what is wanted, ten times")
    )
    return (
        f"seed {seed} at {site.name}:\n{programs.shown(least)}\n  want {wanted}\n  got  {seen}\n"
        f"  the whole program, before: {differing(want, got)}"
    )


def differing(want, got):
    """Where answers differ."""
    return {k: (want.get(k), got.get(k)) for k in {*want, *got} if want.get(k) != got.get(k)}


def of_nodes(home, count, name):
    """A cluster of ``count`` nodes with 4 CPUs together at least, and a site on the last one."""
    nodes = [home.head(cpus=4 if count == 1 else 2)]
    nodes += [home.node(nodes[0]["gcs_address"], ip=f"127.0.0.{k}", cpus=2) for k in range(2, count + 1)]
    site = Site(name, [sys.executable], home.folder, home.env, nodes[0]["gcs_address"], nodes[-1]["node_ip"])
    return nodes, site


def main():
    """Compare seeds at the sites that are asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", help="of Gray")
    parser.add_argument("--ray", help="an interpreter that has Ray itself, to be compared with the model")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--size", type=int, default=40, help="statements of a program")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))  # by way of the clean-up
    wrong = []
    with tempfile.TemporaryDirectory(prefix="gray-metamorphic-") as folder:
        sites, homes, daemons = [], [], []
        try:
            if args.binary:
                for name, count in (("one node", 1), ("three nodes", 3), ("three nodes that stand still at times", 3)):
                    homes.append(Home(pathlib.Path(folder) / name.replace(" ", "-"), os.path.abspath(args.binary)))
                    nodes, site = of_nodes(homes[-1], count, name)
                    sites.append(site)
                    daemons.append([n["pid"] for n in nodes] if "still" in name else None)
            if args.ray:
                env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
                sites.append(Site("Ray", [args.ray], folder, {**env, "RAY_TMPDIR": folder}))
                daemons.append(None)
            for seed in range(args.first, args.first + args.seeds):
                program = programs.make(seed, args.size)
                for site, pids in zip(sites, daemons):
                    with standstills(pids, seed) if pids else contextlib.nullcontext():
                        text = compare(seed, program, site)
                    if text:
                        print(text, flush=True)
                        wrong.append((seed, site.name))
                print(f"seed {seed}: {len(programs.all_ids(program))} statements", flush=True)
        finally:
            for site in sites:
                site.close()
            for home in homes:
                home.close()
    print(json.dumps({site.name: f"{site.seconds:.1f} s" for site in sites}))
    print(f"{len(wrong)} of {args.seeds * len(sites)} differ from the model: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
