"""Ctrl-C, from a terminal: in a script, in a prompt, and in a notebook's cell."""

import os
import pty
import re
import select
import signal
import sys
import textwrap
import time

import pytest

INIT = "import ray\nray.init(address='local', num_cpus=1, object_store_memory=80 << 20)\n"


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, folder, args, code=None):
        if code is not None:
            path = folder / "program.py"
            path.write_text(INIT + textwrap.dedent(code))
            args = [str(path), *args]
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [sys.executable, *args], {**os.environ, "TERM": "dumb", "PYTHONUNBUFFERED": "1"})
        self.seen = ""
        self.status = None

    def until(self, text, seconds=60):
        """What is printed up to and with some text, which has to come."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            left = end - time.monotonic()
            assert left > 0, f"{text!r} was not printed, but {self.seen!r}"
            if select.select([self.fd], [], [], left)[0]:
                more = self._read()
                assert more, f"it ended without {text!r}: {self.seen!r}"
        before, self.seen = self.seen.split(text, 1)
        return before + text

    def _read(self):
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # nobody has the other end open
            return ""
        self.seen += data.decode(errors="replace").replace("\r", "")
        return data

    def type(self, text):
        os.write(self.fd, text.encode())

    def ctrl_c(self):
        self.type("\x03")

    def end(self, seconds=60):
        """Wait for its end; returns the rest of what it printed."""
        end = time.monotonic() + seconds
        while select.select([self.fd], [], [], max(0, end - time.monotonic()))[0] and self._read():
            pass
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status) if sys.version_info >= (3, 9) else status
            else:
                assert time.monotonic() < end, f"it does not end: {self.seen!r}"
                time.sleep(0.01)
        return self.seen

    def close(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.end()
        os.close(self.fd)


@pytest.fixture
def terminal(own_env):
    made = []

    def start(*args, code=None):
        made.append(Terminal(own_env, args, code))
        return made[-1]

    yield start
    for t in made:
        t.close()
    until_gone(str(own_env))


def until_gone(folder):
    """Wait until no process of a test's clusters is left."""
    end = time.monotonic() + 60
    while True:
        left = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as f:
                    if f"RAY_TMPDIR={folder}".encode() in f.read() and int(pid) != os.getpid():
                        left.append(pid)
            except OSError:
                continue
        if not left:
            return
        assert time.monotonic() < end, f"processes are left: {left}"
        time.sleep(0.02)


def test_a_script_goes_on_after_it(terminal):
    t = terminal(
        code="""
        import time, traceback
        @ray.remote
        def slow():
            time.sleep(3600)
        @ray.remote(num_cpus=0, num_returns="streaming")
        def generator():
            time.sleep(3600)
            yield
        @ray.remote(num_cpus=0)
        def quick(x):
            return x
        ref = slow.remote()
        stream = generator.remote()
        def say(what):
            print("waits in", what)
        for what, wait in {
            "get": lambda: say("get") or ray.get(ref),
            "timeout": lambda: say("timeout") or ray.get(ref, timeout=3000),
            "many": lambda: say("many") or ray.get([ref] * 3),
            "wait": lambda: say("wait") or ray.wait([ref]),
            "next": lambda: say("next") or next(stream),
        }.items():
            try:
                wait()
            except KeyboardInterrupt as e:
                print("came in", traceback.extract_tb(e.__traceback__)[1].line)
            print("goes on", ray.get(quick.remote(what)))
        ray.cancel(ref)
        """
    )
    for what in ("get", "timeout", "many", "wait", "next"):
        t.until(f"waits in {what}\n")
        t.ctrl_c()
        assert f'say("{what}") or' in t.until(f"goes on {what}\n")
    t.end()
    assert t.status == 0


def test_a_script_without_a_handler_ends(terminal):
    t = terminal(
        code="""
        import time
        @ray.remote
        def slow():
            time.sleep(3600)
        ref = slow.remote()
        print("waits") or ray.get(ref)  # the line of the user
        """
    )
    t.until("waits\n")
    t.ctrl_c()
    out = t.end()
    assert "ray.get(ref)  # the line of the user" in out
    assert out.rstrip().endswith("KeyboardInterrupt")
    assert t.status == -signal.SIGINT


def test_the_second_one_leaves_at_once(terminal):
    """The first one is handled by a program that takes its time, in the middle of the end of its session."""
    t = terminal(
        code="""
        import atexit, time
        @ray.remote
        def slow():
            time.sleep(3600)
        @atexit.register
        def slowly():
            print("cleans up")
            time.sleep(3600)
        print("waits")
        ray.get(slow.remote())
        """
    )
    t.until("waits\n")
    t.ctrl_c()
    t.until("cleans up\n")
    t.ctrl_c()
    t.end(seconds=30)
    assert t.status in (-signal.SIGINT, 1)


def test_a_prompt_stays_usable(terminal):
    t = terminal("-i", "-q")
    t.until(">>> ")
    t.type("import time, ray; ray.init(address='local', num_cpus=1); f = ray.remote(lambda x: x + 1)\n")
    t.type("g = ray.remote(lambda: time.sleep(3600)); print('rea' + 'dy')\n")
    t.until("ready\n")
    for _ in range(3):
        t.type("r = g.options(num_cpus=0).remote(); print('wai' + 'ts'); ray.get(r)\n")
        t.until("waits\n")
        t.ctrl_c()
        t.until("KeyboardInterrupt")
        t.until(">>> ")
        t.type("print('value', ray.get(f.remote(1)))\n")
        t.until("value 2\n")
    t.type("exit()\n")
    t.end()
    assert t.status == 0


def test_a_cell_of_a_notebook(terminal):
    """IPython runs a cell with `await` in a loop of its own, the others outside of one."""
    pytest.importorskip("IPython")
    t = terminal(
        code="""
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance(colors="NoColor")
        def cell(text):
            result = shell.run_cell(text)
            print("cell", type(result.error_in_exec).__name__, result.result)
        cell("import ray, time")
        cell("f, g = ray.remote(lambda x: x + 1), ray.remote(num_cpus=0)(lambda: time.sleep(3600))")
        cell("await f.remote(1)")
        for text in (
            "print('waits') or ray.get(g.remote())", "print('waits') or ray.wait([g.remote()])",
            "await f.remote(1)\\nprint('waits') or ray.get(g.remote())", "print('waits') or await g.remote()",
        ):
            cell(text)
            cell("[await f.remote(2), ray.get(f.remote(3))]")
        """
    )
    t.until("cell NoneType 2\n")
    for cell in range(4):
        t.until("waits\n")
        t.ctrl_c()
        shown = t.until("cell KeyboardInterrupt None\n")
        if cell < 3:  # in `await`, IPython's own loop is all that there is to be shown
            assert re.search(r"----> \d .*ray\.(get|wait)\(.*g\.remote\(\)", shown), shown
        t.until("cell NoneType [3, 4]\n")
    t.end()
    assert t.status == 0
