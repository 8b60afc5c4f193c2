"""What a job's workers print, on its driver: a thread that shows the text that the node daemon sends.

The daemon has made lines for people of it already. It sends a bounded amount that this process has not shown yet; so a driver
that is slow, or whose terminal is, holds up nobody and fills no memory.
"""

from __future__ import annotations

import os
import sys
import threading

from ray._core import wire

_CHUNK = 256 << 10
_FLUSH_IDLE = 2.0  # seconds without a line after which flush gives up
_FLUSH_MOST = 30.0  # seconds that it waits at most


def settings() -> dict:
    """How this process wants its workers' output; a part of the protocol's ``job.logging``."""
    color = os.environ.get("RAY_COLOR_PREFIX")
    kind = 0 if color == "0" else 2 if color == "1" else 1
    return {
        "color": [kind if _colors(stream) else 0 for stream in (sys.stdout, sys.stderr)],
        "dedup": os.environ.get("RAY_DEDUP_LOGS", "1").lower() not in ("0", "false", "no"),
        "dedup_window": _number("RAY_DEDUP_LOGS_AGG_WINDOW_S", 5.0),
        "dedup_allow": os.environ.get("RAY_DEDUP_LOGS_ALLOW_REGEX") or "",
        "dedup_skip": os.environ.get("RAY_DEDUP_LOGS_SKIP_REGEX") or "",
    }


def _number(name: str, default: float) -> float:
    text = os.environ.get(name)
    if not text:
        return default
    try:
        return max(float(text), 0.0)
    except ValueError:
        raise ValueError(f"{name}={text!r} is not a number of seconds; correct it or unset the variable.") from None


def _colors(stream) -> bool:
    if "ipykernel" in sys.modules:
        return True  # a notebook shows colours, though it is no terminal
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


class DriverLogs:
    """The thread, and the connection that it reads."""

    def __init__(self, client):
        """Begin to show what comes."""
        self._client = client
        self._no = client.new_channel_number()
        self._taken = 0
        self._req = 0
        self._sock = None
        self._closed = False
        self._open = threading.Event()  # the daemon knows the channel, or the thread has given up
        self._flushed = threading.Event()
        self._moved = threading.Event()  # text has come since somebody last looked
        self._thread = threading.Thread(target=self._run, name="ray_print_logs", daemon=True)
        self._thread.start()

    def _ask(self, flags=0):
        box = self._client.box
        box.frames.append(wire.logs(self._no, self._req, self._taken, flags))
        box.flush()

    def _run(self):
        try:
            self._sock, _, _ = self._client.dial(self._no)
            self._open.set()
            self._ask()
            self._read()
        except (ConnectionError, OSError) as e:
            if not self._closed and not self._client.box.broken:
                self._show(wire.LOG_ERR, f"(ray) Workers' output is not shown any more: {e}\n")
        finally:
            self._open.set()
            self._flushed.set()

    def _read(self):
        pending = b""
        while True:
            data = self._sock.recv(_CHUNK)
            if not data:
                return
            pending = pending + data if pending else data
            at = 0
            shown = 0
            while len(pending) - at >= 9:
                length, kind, req = wire.head_u32.unpack_from(pending, at)
                end = at + 4 + length
                if end > len(pending):
                    break
                if kind == wire.LOG:
                    text = pending[at + 10 : end]
                    shown += len(text)
                    self._show(pending[at + 9], text.decode("utf-8", "replace"))
                elif kind == wire.LOGS_FLUSHED and req == self._req:
                    self._flushed.set()
                at = end
            pending = pending[at:]
            if shown:
                self._taken += shown
                self._moved.set()
                self._ask()

    def _show(self, stream, text):
        try:
            if stream == wire.LOG_BARS:
                self._bars(text)
                return
            out = sys.stderr if stream == wire.LOG_ERR else sys.stdout
            bars = sys.modules.get("ray.experimental.tqdm_ray")
            if bars is not None:
                bars.instance().hide_bars()
            try:
                out.write(text)
                out.flush()
            finally:
                if bars is not None:
                    bars.instance().unhide_bars()
        except (AttributeError, OSError, ValueError, UnicodeError):
            pass  # the stream is closed, or takes no such text: the job goes on

    def _bars(self, text):
        import json

        from ray.experimental import tqdm_ray

        for line in text.splitlines():
            try:
                state = json.loads(line)
            except ValueError:
                continue
            tqdm_ray.instance().process_state_update(state)

    def flush(self):
        """Wait until all is shown that tasks which have ended had printed; not for ever."""
        import time

        if self._closed or not self._thread.is_alive() or threading.current_thread() is self._thread:
            return
        if not self._open.wait(_FLUSH_IDLE) or self._sock is None:
            return  # nothing has been asked for yet
        self._flushed.clear()
        self._req += 1
        try:
            self._ask(wire.FLUSH)
        except ConnectionError:
            return  # the daemon is gone, and what it had not sent is
        deadline = time.monotonic() + _FLUSH_MOST
        while not self._flushed.wait(_FLUSH_IDLE):
            if not self._moved.is_set() or time.monotonic() > deadline:
                self._show(
                    wire.LOG_ERR,
                    "(ray) Some of what workers printed is not shown, as it did not come in time. The session's logs directory "
                    "has all of it.\n",
                )
                return
            self._moved.clear()

    def close(self):
        """End the thread."""
        self._closed = True
        sock = self._sock
        if sock is not None:
            import socket

            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the daemon was faster
        if threading.current_thread() is not self._thread:
            self._thread.join(1.0)
        if sock is not None:
            sock.close()
