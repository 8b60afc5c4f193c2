"""A worker that the kernel kills because its cgroup's memory runs out, in a real cgroup of version 1 or 2."""

import os
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import pytest

LIMIT = 400 << 20


def memory_cgroup():
    """A new memory cgroup with a limit, below this process's own, or why there can be none."""
    own = Path("/proc/self/cgroup").read_text().splitlines()
    paths = {controllers: path for _, controllers, path in (line.split(":", 2) for line in own)}
    v1 = Path("/sys/fs/cgroup/memory")
    if v1.is_dir():
        parent = v1 / paths.get("memory", "/").lstrip("/")
        parent, name = (parent if parent.is_dir() else v1), "memory.limit_in_bytes"
    else:
        parent, name = Path("/sys/fs/cgroup") / paths.get("", "/").lstrip("/"), "memory.max"
    folder = parent / f"gray-test-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
    except OSError as e:
        pytest.skip(f"no cgroup can be made here: {e}")
    try:
        (folder / name).write_text(str(LIMIT))
    except OSError as e:
        folder.rmdir()
        pytest.skip(f"no memory limit can be set here: {e}")
    return folder


@pytest.fixture
def limited(tmp_path):
    """Runs a program in a cgroup with a memory limit, and gives what it printed."""
    folder = memory_cgroup()

    def run(text):
        done = subprocess.run(
            ["/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', folder, sys.executable, "-c", textwrap.dedent(text)],
            env={**os.environ, "PYTHONUNBUFFERED": "1"}, text=True, timeout=100, check=False, cwd=tmp_path,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    yield run
    procs = folder / "cgroup.procs"
    left = procs.read_text().split()
    assert not left, f"processes {left} of the cluster have outlived it"
    folder.rmdir()


def test_what_runs_out_of_memory_is_named(limited):
    out = limited("""
        import os, ray
        ray.init(num_cpus=1, log_to_driver=False, object_store_memory=80 << 20)

        def eat():
            return len(bytearray(b"x") * (1 << 30))

        @ray.remote(max_retries=1)
        def task(path):
            with open(path, "a") as f:
                f.write("ran\\n")
            return eat()

        @ray.remote
        class Eater:
            def eat(self):
                return eat()

        path = os.path.abspath("ran")
        try:
            ray.get(task.remote(path))
        except ray.exceptions.OutOfMemoryError as e:
            print("task:", e)
        print("attempts:", len(open(path).readlines()))
        try:
            ray.get(Eater.remote().eat.remote())
        except ray.exceptions.ActorDiedError as e:
            print("actor:", e)

        @ray.remote(max_retries=0)
        def killed():
            os.kill(os.getpid(), 9)

        try:
            ray.get(killed.remote())
        except ray.exceptions.WorkerCrashedError as e:
            print("killed:", e)
        print("then:", ray.get(ray.remote(lambda: 42).remote()))
    """)
    task, _, rest = out.partition("\nattempts: 2\n")
    actor, _, rest = rest.partition("\nkilled:")
    for text in (task, actor):
        assert "killed by SIGKILL, most likely by the kernel because memory ran out" in text, out
        assert (
            f"limit is {LIMIT >> 20} MiB (/sys/fs/cgroup/" in text and "Raise the limit, or let fewer tasks run" in text
        ), out
        used = int(text.partition("it had used up to ")[2].split()[0])
        assert LIMIT >> 21 < used <= LIMIT >> 20, out
    assert "task: Task " in task and "attempt 1" in task, out
    assert "NODE_OUT_OF_MEMORY" in actor and "Eater" in actor, out
    assert "memory ran out" not in rest and rest.endswith("then: 42\n"), out
