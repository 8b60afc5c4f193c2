"""Measures Gray and Ray side by side: the same cases, taking turns, in one run.

    python bench/run.py --gray .venv/bin/python --ray RAYVENV/bin/python --out bench/FIGURES.md
    python bench/run.py --python .venv/bin/python --only "tasks sync" --seconds 0.5 --rounds 1

A round runs all cases on one engine and then on the other; the next round begins with the other engine. A ratio is
taken within a round, so what disturbs the machine for minutes disturbs both. Absolute figures say little on a busy machine.
"""

import argparse
import datetime
import json
import math
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import cases
from cases import RATE

HERE = os.path.dirname(os.path.abspath(__file__))
CASES_PY = os.path.join(HERE, "cases.py")

# Cases of `ray microbenchmark` that wait for a part that Gray does not have yet.
LATER = [
    ("placement group create/removal", "placement groups"),
]


class Engine:
    """An interpreter with a module named ray in it, and what it measured.

    Attributes:
        figures: Maps a case's name to its list of one list of values a round.
        errors: Maps a case's name to what went wrong.
    """

    def __init__(self, python, label=None):
        self.python = os.path.abspath(python)
        asked = subprocess.run(
            [self.python, "-c", "import ray, sys; print(ray.__version__, sys.version.split()[0])"],
            stdout=subprocess.PIPE,
            text=True,
        )
        if asked.returncode:
            sys.exit("%s cannot import ray; give an interpreter that has it" % self.python)
        self.version, self.python_version = asked.stdout.split()[-2:]
        self.label = label or ("Gray" if "gray" in self.version else "Ray")
        self.figures, self.errors = {}, {}
        self.more = {}  # environment variables

    def keep(self, name, values):
        self.figures.setdefault(name, []).append(values)

    def run(self, chosen, seconds, limit):
        """Runs the chosen cases once; a case that fails is noted and does not stop the rest."""
        chosen = [c for c in chosen if self.label == "Gray" or not c.alone]
        for c in chosen:
            if c.where == "bare":
                self.guard(c, lambda c=c: [c.run(self.python)])
            elif c.where == "go":
                self.guard(c, c.run)
        for where in ("fresh", "session", "heavy"):
            names = [c.name for c in chosen if c.where == where]
            if names:
                self.run_session(names, seconds, limit)
        names = [c.name for c in chosen if c.where == "client"]
        if names:
            self.run_client(names, seconds, limit)
        for c in chosen:
            if c.where == "cluster":
                self.guard(c, lambda c=c: [self.clustered(c, limit)])
        left = clear_descendants()
        if left:
            self.errors["processes left behind"] = ", ".join(left)

    def guard(self, c, measure):
        try:
            self.keep(c.name, measure())
        except Exception as e:
            self.errors[c.name] = "%s: %s" % (type(e).__name__, e)

    def run_client(self, names, seconds, limit):
        """Runs cases in a driver that is a client of a cluster, by ray://."""
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                port = s.getsockname()[1]
            try:
                if self.label == "Ray":  # whose client has no token at the first contact, and waits for ever with one
                    self.more = {"RAY_AUTH_MODE": "disabled"}
                cluster = Cluster(self, folder, limit, "--ray-client-server-port=%d" % port)
            except RuntimeError as e:
                self.errors.update((name, str(e)) for name in names)
                return
            finally:
                self.more = {}
            try:
                env = {**cluster.env, "RAY_ADDRESS": "ray://127.0.0.1:%d" % port}
                self.run_session(names, seconds, limit, env)
            finally:
                cluster.close()

    def run_session(self, names, seconds, limit, env=None):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            out = os.path.join(folder, "figures")
            open(out, "w").close()
            ended = run_limited(
                [self.python, CASES_PY, "--out", out, "--seconds", str(seconds), *names], env or self.env(folder), limit
            )
            with open(out) as f:
                lines = [json.loads(line) for line in f]
        for line in lines:
            if "error" in line:
                self.errors[line["case"]] = line["error"]
            else:
                self.keep(line["case"], line["values"])
        for name in set(names) - {line["case"] for line in lines}:
            self.errors.setdefault(name, "not reached: the driver ended with %s" % ended)

    def clustered(self, c, limit):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            cluster = Cluster(self, folder, limit)
            try:
                got = c.run(cluster)
                return c.times / got if c.kind == RATE else got
            finally:
                cluster.close()

    def env(self, folder):
        env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        env.update(
            self.more,
            RAY_TMPDIR=folder,
            RAY_USAGE_STATS_ENABLED="0",
            PATH=os.path.dirname(self.python) + ":" + os.environ["PATH"],
        )
        return env


class Cluster:
    """Nodes on this machine, started by the command and kept in its foreground, so that ending them ends only them."""

    def __init__(self, engine, folder, limit, *more):
        self.engine, self.env, self.limit = engine, engine.env(folder), limit
        self.folder, self.nodes = folder, []
        self.start(
            "--head", "--port=0", "--include-dashboard=false", "--num-cpus=2", "--node-ip-address=127.0.0.1", *more
        )

    def start(self, *args):
        """Starts a node and waits until it is up; returns its process."""
        command = [os.path.join(os.path.dirname(self.engine.python), "ray"), "start", "--block", *args]
        with open(os.path.join(self.folder, "node%d.log" % len(self.nodes)), "w+") as log:
            node = subprocess.Popen(
                command,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.nodes.append(node)
            deadline = time.monotonic() + 60
            while True:
                log.seek(0)
                text = log.read()
                if "terminated by a signal" in text:  # what --block says once the node is up
                    return node
                if node.poll() is not None or time.monotonic() > deadline:
                    self.close()
                    raise RuntimeError("`%s` did not start a node:\n%s" % (" ".join(command), text[-2000:]))
                time.sleep(0.05)

    def drivers(self, n, what="driver"):
        """Starts n drivers, lets them go at once; returns the seconds until the last was done."""
        return self.timed(n, what, lambda: None)

    def broadcast(self):
        """Starts three more nodes, sends them 1 GB; returns how many times that many bytes left the head's daemon."""
        with open(os.path.join(self.folder, "ray", "ray_current_cluster")) as f:
            address = f.read().strip()
        for i in (2, 3, 4):
            self.start("--address=" + address, "--num-cpus=1", "--node-ip-address=127.0.0.%d" % i)
        sent = []
        self.timed(1, "broadcast", lambda: sent.append(written(self.nodes[0].pid)))
        return round((sent[1] - sent[0]) / 1e9, 2)  # what is written beside the object is some thousandths

    def timed(self, n, what, look):
        """Runs n drivers of cases.py; ``look`` is called when they are warm and when they are done."""
        command = [self.engine.python, CASES_PY, what]
        drivers = [
            subprocess.Popen(command, env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(n)
        ]
        timer = Alarm(self.limit, drivers)
        try:
            self.expect(drivers, "warm")
            look()
            t = time.perf_counter()
            self.tell(drivers)
            self.expect(drivers, "done")
            seconds = time.perf_counter() - t
            look()
            self.tell(drivers)
            for d in drivers:
                d.wait()
            return seconds
        finally:
            timer.cancel()
            for d in drivers:
                d.kill()
                d.wait()

    @staticmethod
    def expect(drivers, word):
        for d in drivers:
            line = ""
            for line in d.stdout:  # noqa: B007
                if line.strip() == word:
                    break
            else:
                raise RuntimeError("a driver ended before it was %s (status %s)" % (word, d.wait()))

    @staticmethod
    def tell(drivers):
        for d in drivers:
            d.stdin.write("go\n")
            d.stdin.flush()

    def close(self):
        for node in reversed(self.nodes):
            node.send_signal(signal.SIGTERM)
            try:
                node.wait(30)
            except subprocess.TimeoutExpired:
                node.kill()
                node.wait()


def written(pid):
    """Returns the bytes that a process and those below it have written, to sockets too, by write and sendfile."""
    total = 0
    for p in [pid, *cases.below(pid)]:
        try:
            with open("/proc/%d/io" % p) as f:
                total += sum(int(line.split()[1]) for line in f if line.startswith("wchar:"))
        except OSError:
            continue  # it ended meanwhile
    return total


class Alarm:
    """Kills processes when a time is over, so that whoever reads from them goes on."""

    def __init__(self, seconds, processes):
        import threading

        self.timer = threading.Timer(seconds, lambda: [p.kill() for p in processes])
        self.timer.daemon = True
        self.timer.start()

    def cancel(self):
        self.timer.cancel()


def run_limited(command, env, limit):
    """Runs a command; returns how it ended, in words."""
    p = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        return "status %d" % p.wait(limit)
    except subprocess.TimeoutExpired:
        p.kill()
        p.wait()
        return "a kill after %d s" % limit


def descendants():
    """Returns {pid: command line} of all living descendants of this process."""
    children, zombies = {}, set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % pid) as f:
                fields = f.read().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(pid))
        if fields[0] == "Z":
            zombies.add(int(pid))
    found, todo = {}, [os.getpid()]
    while todo:
        for pid in children.get(todo.pop(), ()):
            todo.append(pid)
            if pid in zombies:
                continue
            try:
                with open("/proc/%d/cmdline" % pid, "rb") as f:
                    found[pid] = f.read().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue
    return found


def clear_descendants():
    """Ends what an engine left running 5 s after its driver; returns the command lines."""
    deadline = time.monotonic() + 5
    left = descendants()
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = descendants()
    names = sorted(" ".join(line.split()[:2]) for line in left.values())
    while left:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)
        left = descendants()
    reap()
    return names


def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


# --- what is printed ---


def best_is_more(c):
    return c.kind == RATE


def number(x):
    return "%.0f" % x if x >= 100 else "%.1f" % x if x >= 10 else "%.2f" % x if x >= 1 else "%.3f" % x


def with_commas(x):
    return format(int(round(x)), ",") if x >= 1000 else number(x)


def figure(rounds):
    values = [v for r in rounds for v in r]
    text = with_commas(statistics.mean(values))
    return text + " ± " + with_commas(statistics.stdev(values)) if len(values) > 1 else text


def ratios(c, gray, ray):
    """Returns how many times better Gray was, once a round."""
    means = [(statistics.mean(g), statistics.mean(r)) for g, r in zip(gray, ray)]
    return [g / r if best_is_more(c) else r / g for g, r in means]


def goal(c):
    if c.must:
        return "%gx" % c.must
    return "%s %s %s" % ("≥" if best_is_more(c) else "≤", format(c.limit, ",g"), c.unit) if c.limit else ""


def reached(c, gray, ratio):
    if c.must and ratio:
        return "yes" if statistics.median(ratio) >= c.must else "no"
    if c.limit and gray:
        got = statistics.median([v for r in gray for v in r])
        return "yes" if (got >= c.limit if best_is_more(c) else got <= c.limit) else "no"
    return ""


def table(chosen, engines):
    """Returns the rows of the table, the heading first."""
    by = {e.label: e for e in engines}
    both = "Gray" in by and "Ray" in by
    rows = [["case", "unit"] + [e.label for e in engines] + (["ratio (least–most)"] if both else [])]
    rows[0] += ["goal", "reached"] if "Gray" in by else []
    for c in chosen:
        row = [c.name, c.unit]
        for e in engines:
            if c.name in e.errors:
                row.append("failed")
            elif c.name in e.figures:
                row.append(figure(e.figures[c.name]))
            else:
                row.append("")
        if both:
            gray, ray = by["Gray"].figures.get(c.name, []), by["Ray"].figures.get(c.name, [])
            r = ratios(c, gray, ray) if gray and ray else []
            row.append("%sx (%s–%s)" % (number(statistics.median(r)), number(min(r)), number(max(r))) if r else "")
        if "Gray" in by:
            row += [goal(c), reached(c, by["Gray"].figures.get(c.name, []), r if both else [])]
        rows.append(row)
    return rows


def overall(chosen, engines):
    """Returns a line with the geometric mean of the ratios of all cases that are to be better than Ray."""
    by = {e.label: e for e in engines}
    if not ("Gray" in by and "Ray" in by):
        return ""
    logs = []
    for c in chosen:
        gray, ray = by["Gray"].figures.get(c.name), by["Ray"].figures.get(c.name)
        if c.must and gray and ray:
            logs.append(math.log(statistics.median(ratios(c, gray, ray))))
    if not logs:
        return ""
    return "Geometric mean of the %d ratios that have a goal: %sx" % (
        len(logs),
        number(math.exp(statistics.mean(logs))),
    )


def plain(rows):
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(r, widths)).rstrip() for r in rows)


def markdown(rows):
    lines = ["| " + " | ".join(r) + " |" for r in rows]
    lines.insert(1, "| " + " | ".join(["---"] * 2 + ["---:"] * (len(rows[0]) - 2)) + " |")
    return "\n".join(lines)


def machine():
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return "%d cores, %.0f GiB" % (len(os.sched_getaffinity(0)), gib)


def sections(path):
    """What a file of figures has besides the table: the sections that others wrote into it."""
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8") as f:
        _, found, text = f.read().partition("\n## ")
    return found + text


def report(args, chosen, engines):
    """Returns the text of FIGURES.md."""
    lines = [
        "# Figures",
        "",
        "Gray and Ray, the same cases on the same interpreter version, taking turns in one run. The ratio is how many times better",
        "Gray was: the median of the rounds, with the least and the most. Each engine's own figure is a mean ± standard deviation.",
        "",
        "- Machine: %s" % (args.machine or machine()),
        "- Date: %s" % datetime.date.today().isoformat(),
        "- Command: `make bench%s` (%d round%s, at least %g s a timed round)"
        % (
            " ARGS='--only \"%s\"'" % args.only if args.only else "",
            args.rounds,
            "s"[: args.rounds != 1],
            args.seconds,
        ),
    ]
    lines += ["- %s: `ray` %s, Python %s" % (e.label, e.version, e.python_version) for e in engines]
    lines += ["", markdown(table(chosen, engines)), "", overall(chosen, engines), ""]
    errors = [
        "- %s, %s: %s" % (e.label, n, t.split("\n")[0][:300]) for e in engines for n, t in sorted(e.errors.items())
    ]
    if errors:
        lines += ["What failed:", "", *errors, ""]
    lines += ["Not measured yet, for want of a part:", "", *("- %s: %s" % row for row in LATER), ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gray", help="interpreter with Gray's ray")
    parser.add_argument("--ray", help="interpreter with Ray's ray")
    parser.add_argument("--python", help="only this interpreter, whichever it has")
    parser.add_argument("--only", help="only cases with this text in their name; several: a|b")
    parser.add_argument("--skip", help="no cases with this text in their name; several: a|b")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="the least time of a timed round")
    parser.add_argument("--limit", type=float, default=900, help="seconds after which a driver is ended")
    parser.add_argument("--machine", help="how to describe this machine")
    parser.add_argument("--out", help="write the table here too, as Markdown")
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    args = parser.parse_args()

    chosen = cases.CASES
    if args.only:
        chosen = [c for c in chosen if any(t.strip() in c.name for t in args.only.split("|"))]
    if args.skip:
        chosen = [c for c in chosen if not any(t.strip() in c.name for t in args.skip.split("|"))]
    if args.list or not chosen:
        print("\n".join("%s (%s)" % (c.name, c.unit) for c in (chosen or cases.CASES)))
        return 0 if chosen else 2
    if args.python:
        engines = [Engine(args.python)]
    else:
        engines = [Engine(p, label) for p, label in ((args.gray, "Gray"), (args.ray, "Ray")) if p]
    if not engines:
        parser.error("give --gray and --ray, or --python")

    cases.be_subreaper()
    for i in range(args.rounds):
        for e in engines if i % 2 == 0 else engines[::-1]:
            t = time.monotonic()
            e.run(chosen, args.seconds, args.limit)
            print(
                "round %d of %d, %s: %.0f s" % (i + 1, args.rounds, e.label, time.monotonic() - t),
                file=sys.stderr,
                flush=True,
            )
    engines.sort(key=lambda e: e.label, reverse=True)  # Ray first: it is what the ratio divides by
    for e in engines:
        for name, text in sorted(e.errors.items()):
            print("%s, %s: %s" % (e.label, name, text), file=sys.stderr)
    print(plain(table(chosen, engines)))
    print(overall(chosen, engines))
    if args.out:
        fresh = args.out + ".new"
        with open(fresh, "w", encoding="utf-8") as f:
            f.write(report(args, chosen, engines).rstrip() + "\n" + sections(args.out))
        shutil.move(fresh, args.out)
    return 1 if any(e.errors for e in engines) else 0


if __name__ == "__main__":
    sys.exit(main())
