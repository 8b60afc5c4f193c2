"""The process from which a node daemon forks its workers.

It imports what every worker needs once, then forks on request: a worker is there in about a millisecond and shares
those modules' memory. It has one thread, keeps no worker's socket, reaps its children and reports their exit status.
The daemon's half, and the only caller, is ``internal/pool``.

Messages are packets of NUL-separated ``key=value`` texts, as in an environment block.

======================  ===============================================================================================
daemon to zygote        first ``main`` ``preload`` ``oom``; then per worker ``req`` ``threads`` ``arena``, ``env:NAME``
                        and ``info:NAME``, with descriptors: exec, stream, channel, [arena,] stdout, stderr
zygote to daemon        ``ready`` ``py`` ``threads`` ``why``, or ``fatal``; per request ``req`` ``pid`` (with a pidfd)
                        or ``req`` ``errno`` ``error``; ``exit=pid status peak …`` (KiB resident)
======================  ===============================================================================================

Descriptor 3 is the control socket; 4 is the lifeline, a pipe whose other end only the daemon holds and never writes to.
"""

from __future__ import annotations

import ctypes
import faulthandler
import fcntl
import gc
import os
import select
import signal
import socket
import struct
import sys
from importlib import import_module

from ray._core import printing, title

_CONTROL_FD = 3
_LIFELINE_FD = 4
_F_SETSIG = 10
_SYS_PIDFD_OPEN = 434
_PR_SET_NAME = 15
_MAX_FATAL = 4096  # characters of an error that tells why there is no zygote; its log has all
_ALL_SIGNALS = signal.valid_signals()
_THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_caught: list = []  # signals that are caught or ignored in the zygote; asking for all of them costs a fork 0.2 ms
_threads_ours = False  # whether the thread-count variables are of our making, so ours to change


def main(once: bool = False) -> None:
    """Serve the daemon until it hangs up. Does not return.

    Args:
        once: Become the first worker asked for instead of forking it: for interpreters that must not fork.
    """
    namespace = vars(sys.modules["__main__"])
    for name in [name for name in namespace if not name.startswith("__")]:
        del namespace[name]  # workers show user code an empty __main__
    sys.argv[:] = [""]
    os.setsid()
    _reset_signals(_ALL_SIGNALS)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    title.claim()
    title.set_title("ray zygote")
    _set_name("ray zygote")
    os.set_inheritable(_LIFELINE_FD, False)
    _tie_to_daemon()
    control = socket.socket(fileno=_CONTROL_FD)
    control.set_inheritable(False)
    config = _unpack(control.recv(1 << 16))
    if not config:
        os._exit(0)
    try:
        run = _preload(config)
    except BaseException as e:
        import traceback

        traceback.print_exc()
        _send(control, fatal=f"{type(e).__name__}: {e}"[:_MAX_FATAL])
        os._exit(1)
    try:
        faulthandler.enable(file=2, all_threads=False)  # a worker that crashes says where
    except (AttributeError, OSError, ValueError):
        pass  # preloaded modules have closed it
    threads, why = _unforkable()
    _send(control, ready=1, py="%d.%d" % sys.version_info[:2], threads=threads, why=why)
    gc.collect()
    gc.freeze()
    try:
        request, descriptors = _serve(control, once)  # from here on this is a worker
        control.detach()
        info = _become_worker(request, descriptors, int(config.get("oom") or 0))
    except BaseException:
        _die()
    _run(run, descriptors, info)


def limit_threads(n: int) -> bool:
    """Tell numerical libraries that are loaded from now on to use ``n`` threads, unless the user has said otherwise.

    Args:
        n: Number of threads, at least 1.

    Returns:
        False if the user's own OMP_NUM_THREADS stands.
    """
    global _threads_ours
    if "OMP_NUM_THREADS" in os.environ and not _threads_ours:
        return False
    _threads_ours = True
    for name in _THREAD_COUNTS:
        os.environ[name] = str(n)
    return True


def _preload(config: dict):
    """Imports what workers share; returns the function that a worker runs."""
    gc.disable()  # until the freeze: a collection would only touch pages that are to be shared
    if config.get("preload"):
        limit_threads(1)  # libraries start no threads of their own, which no fork could take along
    module, _, function = config["main"].partition(":")
    run = getattr(import_module(module), function)
    for name in filter(None, config.get("preload", "").split(",")):
        import_module(name)
    return run


def _unforkable() -> tuple:
    """The number of threads, and why this process must not fork ("" if it may)."""
    names = []
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/comm") as f:
            names.append(f.read().strip())
    if len(names) > 1:
        return len(names), f"{len(names)} threads run after preloading: {', '.join(sorted(names))}"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return 1, "preloading has made a CUDA context"
    return 1, ""


def _serve(control: socket.socket, once: bool) -> tuple:
    """Answers the daemon; returns only in a worker: its request and descriptors."""
    wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler must exist for the wakeup to be written
    poll = select.poll()
    poll.register(control.fileno(), select.POLLIN)
    poll.register(wake, select.POLLIN)
    _caught.extend(n for n in _ALL_SIGNALS if callable(signal.getsignal(n)) or signal.getsignal(n) == signal.SIG_IGN)
    children: set = set()
    _reap(control, children)  # what preloading left behind
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if wake in ready:
            os.read(wake, 4096)
            _reap(control, children)
        if control.fileno() not in ready:
            continue
        request, descriptors = _receive(control)
        if request is None:
            os._exit(0)
        sys.stdout.flush()
        sys.stderr.flush()
        if once:
            _answer(control, request, os.getpid())
            return request, descriptors
        pid = _fork(control, request)
        if pid == 0:
            return request, descriptors
        if pid > 0:
            children.add(pid)
            _answer(control, request, pid)
        for fd in descriptors:
            os.close(fd)


def _fork(control: socket.socket, request: dict) -> int:
    """As os.fork; -1 if the system refused, which the daemon has then been told."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _ALL_SIGNALS)  # the child unblocks them once no handler of ours is left
    try:
        pid = os.fork()
    except OSError as e:
        pid = -1
        _send(control, req=request["req"], errno=e.errno, error=e.strerror)
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return pid


def _answer(control: socket.socket, request: dict, pid: int) -> None:
    # The pidfd is opened before the child can be reaped: unlike its number it can never come to mean another process.
    pidfd = _pidfd_open(pid)
    try:
        _send(control, pidfd, req=request["req"], pid=pid)
    finally:
        os.close(pidfd)


def _reap(control: socket.socket, children: set) -> None:
    exits = []
    while True:
        try:
            pid, status, used = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            break
        if pid in children:
            children.remove(pid)
            exits.append(f"{pid} {status} {used.ru_maxrss}")
    for i in range(0, len(exits), 256):
        _send(control, exit=" ".join(exits[i : i + 256]))


def _become_worker(request: dict, descriptors: list, oom_score_adj: int) -> dict:
    """Turns a fresh fork into a worker without ties to its zygote; returns what the daemon told about it."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    signal.set_wakeup_fd(-1)
    _reset_signals(_caught)
    lifeline = _tie_to_daemon()
    os.dup2(descriptors.pop(-2), 1)
    os.dup2(descriptors.pop(-1), 2)
    keep = {0, 1, 2, lifeline, *descriptors}
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            try:
                os.close(int(name))
            except OSError:
                pass  # the listing's own descriptor
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if oom_score_adj:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, b"%d" % oom_score_adj)
        os.close(fd)
    os.environ.update((key[4:], value) for key, value in request.items() if key.startswith("env:"))
    if "threads" in request:
        limit_threads(int(request["threads"]))
    _reseed()
    printing.open_streams()
    title.set_title("ray::IDLE")
    _set_name("ray::worker")
    gc.enable()
    return {key[5:]: value for key, value in request.items() if key.startswith("info:")}


def _run(run, descriptors: list, info: dict) -> None:
    """Runs a worker to its end. Does not return: threads that user code left behind must not keep it alive."""
    exec_fd, stream_fd, channel_fd = descriptors[:3]
    arena_fd = descriptors[3] if len(descriptors) > 3 else -1
    try:
        code = run(exec_fd, stream_fd, channel_fd, arena_fd, info)
    except SystemExit as e:
        code = e.code
        if code is not None and not isinstance(code, int):
            sys.stderr.write(f"{code}\n")
            code = 1
    except BaseException:
        _die()
    import atexit

    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        _die()
    os._exit((code or 0) & 0xFF)


def _die() -> None:
    import traceback

    try:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)


def _reset_signals(numbers) -> None:
    """Gives these signals the handlers that a freshly started Python has, whatever was inherited."""
    for number in numbers:
        have = signal.getsignal(number)
        want = signal.SIG_DFL
        if number == signal.SIGINT:
            want = signal.default_int_handler
        elif number in (signal.SIGPIPE, signal.SIGXFSZ):
            want = signal.SIG_IGN
        if have is not None and have != want:  # None is a handler of native code, such as faulthandler's
            signal.signal(number, want)


def _tie_to_daemon() -> int:
    """Has the kernel kill this process group the moment the daemon is gone, whatever user code is doing.

    Returns:
        The descriptor that must stay open for it. Each process opens the pipe anew: whom to signal is a property of
        the open file, which a mere duplicate shares.
    """
    lifeline = os.open(f"/proc/self/fd/{_LIFELINE_FD}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    gone = select.poll()
    gone.register(lifeline, 0)
    if gone.poll(0):  # the daemon went before the signal was ordered
        os._exit(1)
    return lifeline


def _reseed() -> None:
    """Random generators that were loaded before the fork; later ones seed themselves."""
    for name, function in (("random", "seed"), ("numpy.random", "seed"), ("torch", "seed")):
        module = sys.modules.get(name)
        if module is not None:
            getattr(module, function)()


def _set_name(name: str) -> None:
    _prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def _pidfd_open(pid: int) -> int:
    if hasattr(os, "pidfd_open"):
        return os.pidfd_open(pid)
    fd = _libc.syscall(_SYS_PIDFD_OPEN, pid, 0)
    if fd < 0:
        raise OSError(ctypes.get_errno(), f"pidfd_open {pid}")
    os.set_inheritable(fd, False)
    return fd


def _receive(control: socket.socket) -> tuple:
    """One request and its descriptors; (None, []) when the daemon has hung up."""
    space = socket.CMSG_SPACE(8 * 4)
    data, ancillary, flags, _ = control.recvmsg(1 << 16, space, socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None, []
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise RuntimeError("a fork request did not fit: the descriptor limit (ulimit -n) of the zygote is too low")
    descriptors: list = []
    for _, _, rights in ancillary:
        descriptors.extend(struct.unpack(f"{len(rights) // 4}i", rights))
    return _unpack(data), descriptors


def _send(control: socket.socket, *descriptors: int, **fields) -> None:
    data = "\0".join(f"{key}={value}".replace("\0", " ") for key, value in fields.items())
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(descriptors)}i", *descriptors))]
    control.sendmsg([data.encode("utf-8", "surrogateescape")], rights if descriptors else [])


def _unpack(data: bytes) -> dict:
    text = data.decode("utf-8", "surrogateescape")
    return dict(field.split("=", 1) for field in text.split("\0") if field)
