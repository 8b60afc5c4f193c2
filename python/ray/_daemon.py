"""Starting and stopping node daemons from Python: a private cluster, and the clusters of tests."""

import json
import os
import select
import signal
import sys
import time
from typing import Any, Dict, Optional

_READY_S = 30.0
_STOP_S = 5.0


class Daemon:
    """A node daemon that this process started.

    Attributes:
        pid: Its process id.
        info: What it said when it was ready: the content of its node file.
    """

    def __init__(self, pid: int, info: Dict[str, Any]):
        self.pid = pid
        self.info = info
        self._parent = os.getpid()
        self._pidfd: Optional[int] = _pidfd(pid)
        self._gone = False

    def stop(self, hard: bool = False) -> None:
        """End the daemon and wait until it has gone; a forked child of the process that started it does nothing.

        Args:
            hard: Kill it, as a crash would, rather than ask it to leave.
        """
        if self._gone or os.getpid() != self._parent:
            return
        self._gone = True
        _kill(self.pid, signal.SIGKILL if hard else signal.SIGTERM)
        if not self._wait(_STOP_S):
            _kill(self.pid, signal.SIGKILL)
            self._wait(_STOP_S)
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def leave(self) -> None:
        """Wait until it has ended by itself, for some seconds; later than that, it ends without us."""
        if self._gone or os.getpid() != self._parent:
            return
        self._gone = True
        self._wait(_STOP_S)
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def alive(self) -> bool:
        """Whether the daemon still runs."""
        return not self._gone and not self._wait(0)

    def _wait(self, seconds: float) -> bool:
        if self._pidfd is None:
            return _reaped(self.pid, seconds)
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not poll.poll(int(seconds * 1000)):
            return False
        return _reaped(self.pid, 1.0)


def _pidfd(pid: int) -> Optional[int]:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # an old kernel: _reaped polls
        return None


def _kill(pid: int, sig: int) -> None:
    try:
        os.kill(pid, sig)
    except ProcessLookupError:
        pass


def _reaped(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return True
        except ChildProcessError:  # the program reaps its children itself
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.001)


def binary() -> str:
    """The path of the Gray binary: that of GRAY_BIN, else the one in this package.

    Raises:
        FileNotFoundError: There is none.
    """
    path = os.environ.get("GRAY_BIN") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "_bin", "ray")
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"The Gray binary is not at {path}: install the wheel (`pip install ray`), or build it (`make build`) and name "
            "it in the environment variable GRAY_BIN."
        )
    return path


def start(
    config: Dict[str, Any],
    env: Optional[Dict[str, str]] = None,
    command: str = "daemon",
    control: Optional[int] = None,
    error=None,
) -> Daemon:
    """Start a node daemon and wait until it is ready.

    Args:
        config: What it shall be; travels by a pipe, so that nothing of it shows in argv.
        env: Environment variables for it, over those of this process.
        command: Of the binary.
        control: A descriptor that it gets as ``--control-fd``.
        error: Makes an exception of the kind and text of what it says instead of being ready.

    Raises:
        ValueError: It does not accept a value of ``config``.
        ConnectionError: It can't reach its cluster.
        RuntimeError: It can't start; the text says why.
        FileNotFoundError: There is no binary.
    """
    path = binary()
    if command == "daemon":
        config = {"python": sys.executable, **config}
    environ = {**os.environ, "GRAY_PYTHON": sys.executable, **(env or {})}
    fds = []
    try:
        config_r, config_w = os.pipe()
        fds += [config_r, config_w]
        ready_r, ready_w = os.pipe()
        fds += [ready_r, ready_w]
        stderr = os.memfd_create("ray-daemon-stderr") if hasattr(os, "memfd_create") else os.open(os.devnull, os.O_RDWR)
        fds.append(stderr)
        argv = [path, command, "--config-fd", str(config_r), "--ready-fd", str(ready_w)]
        keep = (config_r, ready_w)
        if control is not None:
            argv += ["--control-fd", str(control)]
            keep += (control,)
        pid = _spawn(argv, environ, keep=keep, stderr=stderr)
        for fd in (config_r, ready_w):
            os.close(fd)
            fds.remove(fd)
        daemon = Daemon(pid, {})
        try:
            _write_all(config_w, json.dumps(config).encode())
            os.close(config_w)
            fds.remove(config_w)
            daemon.info = _await_ready(daemon, ready_r, stderr, error or _error)
        except BaseException:
            daemon.stop(hard=True)
            raise
        return daemon
    finally:
        for fd in fds:
            os.close(fd)


def _spawn(argv, environ, keep, stderr) -> int:
    # posix_spawn rather than subprocess, whose import alone takes longer than the daemon's start
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, stderr, 2),
    ]
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            if fd > 2 and fd not in keep and os.get_inheritable(fd):
                actions.append((os.POSIX_SPAWN_CLOSE, fd))
        except OSError:  # the folder's own descriptor
            continue
    for fd in keep:
        os.set_inheritable(fd, True)
    return os.posix_spawn(
        argv[0],
        argv,
        environ,
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD),
    )


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BrokenPipeError:  # it is gone; reading its answer tells why
            return


def _await_ready(daemon: Daemon, fd: int, stderr: int, error) -> Dict[str, Any]:
    deadline = time.monotonic() + _READY_S
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    line = b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(int(left * 1000) + 1):
            raise RuntimeError(f"The node daemon was not ready within {_READY_S:g} s.{_said(stderr)}")
        chunk = os.read(fd, 65536)
        if not chunk:
            break
        line += chunk
    try:
        answer = json.loads(line)
    except ValueError:
        raise RuntimeError(f"The node daemon ended before it was ready.{_said(stderr)}") from None
    if "error" in answer:
        raise error(str(answer.get("kind", "")), str(answer["error"]))
    return answer


def _said(stderr: int) -> str:
    try:
        text = os.pread(stderr, 1 << 16, 0).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    return " It wrote:\n" + "\n".join(text.splitlines()[-20:]) if text else ""


def _error(kind: str, text: str) -> Exception:
    kind = kind.lower()
    if kind in ("value", "invalid"):
        return ValueError(text)
    if kind in ("connection", "unavailable", "transient", "lost"):
        return ConnectionError(text)
    if kind in ("auth", "denied"):
        from ray.exceptions import AuthenticationError

        return AuthenticationError(text)
    if kind == "not_implemented":
        return NotImplementedError(text)
    return RuntimeError(text)
