"""What the tests of this folder share: a user's environment with its own clusters, drivers, and a look at what is left."""

import json
import os
import pathlib
import pwd
import select
import signal
import subprocess
import sys
import textwrap
import time

BOUND_S = 60  # for a broken program, not for a slow one


def until(true, what, bound=BOUND_S):
    """Poll until ``true()`` gives something, and return that."""
    deadline = time.monotonic() + bound
    while True:
        got = true()
        if got:
            return got
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what}: not within {bound} s")
        time.sleep(0.01)


def start_time(pid):
    """When a process started, in clock ticks; None once it has ended, also as a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def alive(process):
    """Whether a process of :func:`family` lives."""
    pid, start = process
    return start_time(pid) == start


def children(pid):
    """All living descendants of a process."""
    found, left = [], [pid]
    while left:
        parent = left.pop()
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as f:
                    kids = [int(p) for p in f.read().split()]
                found += kids
                left += kids
        except OSError:
            continue
    return found


def family(pid):
    """A process and its descendants as [(pid, start)], which :func:`alive` takes."""
    return [(p, start) for p in (pid, *children(pid)) for start in (start_time(p),) if start is not None]


def command_of(pid):
    """The command line of a process as one text."""
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def workers_of(pid):
    """The workers below a daemon, but not its zygote."""
    return [p for p in children(pid) if command_of(p).startswith("ray::")]


def zygote_of(pid):
    """The process that a daemon's workers are forked from."""
    (zygote,) = [p for p in children(pid) if "zygote" in command_of(p) and not command_of(p).startswith("ray::")]
    return zygote


def shared_memory():
    """Inodes of the object stores that any process of this machine maps or holds: {(device, inode): pids}."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                link = f"/proc/{pid}/fd/{fd}"
                target = os.readlink(link)
                if target.startswith("/dev/shm/") or "ray-objects" in target:
                    st = os.stat(link)
                    found.setdefault((st.st_dev, st.st_ino), set()).add(int(pid))
        except OSError:
            continue
    return found


class Home:
    """A user's environment: an own home, an own temp dir, and the clusters in it."""

    def __init__(self, folder, binary, user=None, netns=None, temp=None):
        self.folder = pathlib.Path(folder)
        self.temp = pathlib.Path(temp) if temp else self.folder / "t"
        self.binary = binary
        self.user = user
        self.netns = netns
        self.drivers = []
        for made in (self.folder, self.temp):
            made.mkdir(parents=True, exist_ok=True)
            if user is not None:
                entry = pwd.getpwnam(user)
                os.chown(made, entry.pw_uid, entry.pw_gid)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "GRAY_"))}
        self.env.update(HOME=str(self.folder), RAY_TMPDIR=str(self.temp), GRAY_BIN=binary, GRAY_PYTHON=sys.executable)
        self.env["PYTHONUNBUFFERED"] = "1"

    @property
    def root(self):
        """The folder of the sessions."""
        return self.temp / "ray"

    def _argv(self, argv):
        if self.user is not None:
            entry = pwd.getpwnam(self.user)
            argv = ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", *argv]
        if self.netns is not None:
            argv = ["ip", "netns", "exec", self.netns, *argv]
        return argv

    def ray(self, *args, env=None, check=True, timeout=60):
        """Run a ``ray`` command to its end; what it printed is in ``.stdout``."""
        done = subprocess.run(
            self._argv([self.binary, *args]),
            env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"ray {' '.join(args)}: status {done.returncode}:\n{done.stdout}")
        return done

    def nodes(self):
        """The node files of living daemons."""
        found = []
        for path in self.root.glob("session_2*/nodes/*.json"):
            try:
                node = json.loads(path.read_text())
            except OSError:
                continue
            if alive((node["pid"], node["start_time"])):
                found.append(node)
        return found

    def head(self, *args, ip="127.0.0.1", cpus=1, **kwargs):
        """Start a head on free ports; returns its node file."""
        known = {n["node_id"] for n in self.nodes()}
        ports = [] if "--port" in " ".join(args) else ["--port=0"]
        self.ray(
            "start", "--head", *ports, f"--node-ip-address={ip}", f"--num-cpus={cpus}", "--include-dashboard=false",
            "--dashboard-agent-listen-port=0", *self._store(args), *args, **kwargs,
        )  # fmt: skip
        return self._new(known)

    def node(self, address, *args, ip="127.0.0.1", cpus=1, **kwargs):
        """Start a daemon that joins; returns its node file."""
        known = {n["node_id"] for n in self.nodes()}
        where = [f"--node-ip-address={ip}"] if ip else []
        self.ray(
            "start", f"--address={address}", *where, f"--num-cpus={cpus}", "--dashboard-agent-listen-port=0",
            *self._store(args), *args, **kwargs,
        )  # fmt: skip
        return self._new(known)

    @staticmethod
    def _store(args):
        return [] if any(a.startswith("--object-store-memory") for a in args) else ["--object-store-memory=209715200"]

    def _new(self, known):
        (node,) = [n for n in self.nodes() if n["node_id"] not in known]
        return node

    def driver(self, code, *args, env=None, **kwargs):
        """Start a Python program whose stdin and stdout are pipes of text."""
        process = subprocess.Popen(
            self._argv([sys.executable, "-c", textwrap.dedent(code), *map(str, args)]),
            env={**self.env, **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=str(self.folder),
            **kwargs,
        )
        self.drivers.append(process)
        return process

    def python(self, code, *args, env=None, timeout=BOUND_S, status=0):
        """Run a Python program to its end and return what it printed."""
        driver = self.driver(code, *args, env=env)
        out, err = driver.communicate(timeout=timeout)
        assert driver.returncode == status, f"status {driver.returncode}\n{out}\n{err}"
        return out if status == 0 else out + err

    def close(self):
        """End what is still running."""
        for driver in self.drivers:
            if driver.poll() is None:
                driver.kill()
            driver.wait()
            for pipe in (driver.stdin, driver.stdout, driver.stderr):
                pipe.close()
        left = self.nodes()
        for node in left:
            os.kill(node["pid"], signal.SIGCONT)
        self.ray("stop", "--force")
        for node in left:  # those of private clusters end with their drivers
            until(lambda n=node: not alive((n["pid"], n["start_time"])), f"the end of daemon {node['pid']}", 10)


def restart(home, head):
    """Start a head again in the place of one that was killed: same session, store and port."""
    config = {
        "head": True, "private": False, "node_ip": head["node_ip"], "session_name": head["session_name"], "num_cpus": 1,
        "port": int(head["gcs_address"].rpartition(":")[2]), "dashboard": False, "dashboard_agent_listen_port": 0,
        "object_store_memory": 200 << 20, "python": sys.executable,
    }  # fmt: skip
    config_r, config_w = os.pipe()
    ready_r, ready_w = os.pipe()
    argv = [home.binary, "daemon", "--config-fd", str(config_r), "--ready-fd", str(ready_w)]
    err = open(home.folder / "restarted.err", "w")
    daemon = subprocess.Popen(
        argv,
        env=home.env,
        pass_fds=(config_r, ready_w),
        stdin=subprocess.DEVNULL,
        stdout=err,
        stderr=err,
        start_new_session=True,
    )
    os.close(config_r)
    os.close(ready_w)
    with os.fdopen(config_w, "w") as f:
        json.dump(config, f)
    with os.fdopen(ready_r) as f:
        answer = json.loads(f.readline() or '{"error": "no answer"}')
    assert "error" not in answer, answer
    return daemon, answer


def line(driver, bound=BOUND_S):
    """The next line that a driver prints; its stderr if it has ended instead."""
    deadline = time.monotonic() + bound
    said = driver.__dict__.setdefault("said", bytearray())
    while b"\n" not in said:
        ready, _, _ = select.select([driver.stdout], [], [], max(deadline - time.monotonic(), 0))
        assert ready, f"the driver printed nothing within {bound} s, after {bytes(said)!r}"
        chunk = os.read(driver.stdout.fileno(), 65536)
        if not chunk:
            _, err = driver.communicate(timeout=BOUND_S)
            raise AssertionError(f"the driver ended with status {driver.returncode}:\n{err}")
        said += chunk
    text, _, rest = bytes(said).partition(b"\n")
    said[:] = rest
    return text.decode()


def tell(driver, text=""):
    """Send a line to a driver."""
    driver.stdin.write(text + "\n")
    driver.stdin.flush()
