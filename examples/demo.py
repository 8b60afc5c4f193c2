"""What `make demo` does: a cluster of four nodes on this machine, by the commands a user would type, and hop.py on it.

The nodes have the loopback addresses 127.0.0.1 to 127.0.0.4, one CPU each, and a temporary folder of their own, so
this neither sees nor stops other clusters of the same user. The cluster is stopped whatever happens.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
NODES = ["127.0.0.%d" % i for i in range(1, 5)]
PAIR = re.compile(r"\('([\d.]+)', '([\d.]+)'\)")


class Failed(Exception):
    """The demo did not do what it shows."""


def ray(env, *args):
    """Runs one ray command, shown as a user would type it; its output is shown only if it fails."""
    command = os.path.join(os.path.dirname(sys.executable), "ray")
    line = "ray " + " ".join(args)
    print("$ " + line, flush=True)
    done = subprocess.run(
        [command, *args],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )
    if done.returncode:
        raise Failed("%s\n`%s` ended with status %d" % (done.stdout.decode(errors="replace"), line, done.returncode))


def start(env):
    """Starts the head and three more nodes; returns the head's address."""
    common = ["--num-cpus=1", "--dashboard-agent-listen-port=0"]
    ray(env, "start", "--head", "--port=0", "--node-ip-address=" + NODES[0], "--include-dashboard=false", *common)
    with open(os.path.join(env["RAY_TMPDIR"], "ray", "ray_current_cluster")) as f:
        address = f.read().strip()
    for ip in NODES[1:]:
        ray(env, "start", "--address=" + address, "--node-ip-address=" + ip, *common)
    return address


def hop(env):
    """Runs hop.py, shows what it prints and returns the pairs of nodes in it."""
    print("$ python examples/hop.py", flush=True)
    pairs, last = set(), ""
    with subprocess.Popen(
        [sys.executable, os.path.join(HERE, "hop.py")],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        for line in program.stdout:
            print(line, end="", flush=True)
            pairs.update(PAIR.findall(line))
            last = line.strip()
    if program.returncode or last != "Success!":
        raise Failed("hop.py ended with status %d and the last line %r" % (program.returncode, last))
    return pairs


def main():
    folder = tempfile.mkdtemp(prefix="demo-")
    # Set in here only: where the cluster keeps its session, and how hop.py finds the cluster.
    env = dict(os.environ, RAY_TMPDIR=folder, PYTHONUNBUFFERED="1")
    env.pop("RAY_ADDRESS", None)
    try:
        try:
            address = start(env)
            pairs = hop(dict(env, RAY_ADDRESS=address))
        finally:
            ray(env, "stop")
        missing = sorted({(a, b) for a in NODES for b in NODES} - pairs)
        if missing:
            raise Failed("tasks did not hop from and to every node; not seen: %s" % missing)
        print("All %d pairs of the %d nodes were seen." % (len(pairs), len(NODES)))
    except (Failed, OSError, subprocess.TimeoutExpired) as e:
        print("demo failed: %s\nThe logs are below %s" % (e, folder), file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
