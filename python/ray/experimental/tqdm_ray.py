"""Progress bars that work in tasks and actors: all of them are drawn by the driver, together.

A bar in a worker prints its state as a line of JSON, which the driver does not show but draws; a bar in the driver is drawn
directly. :func:`instance` is the drawer. On something other than a terminal only the last state of each bar is written.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
import uuid
from typing import Any, Dict, Iterable, Iterator, List, Optional, TextIO, Tuple

__all__ = ["instance", "safe_print", "tqdm"]

RAY_TQDM_MAGIC = "__ray_tqdm_magic_token__"  # its key is "__magic_token__"
_FLUSH_INTERVAL_S = 1.0
_BAR = 10  # characters

State = Dict[str, Any]


def safe_print(*args: Any, **kwargs: Any) -> None:
    """Like ``print``, without disturbing the bars."""
    drawer = instance()
    drawer.hide_bars()
    try:
        print(*args, **kwargs)  # noqa: T201 - this is what it is for
    finally:
        drawer.unhide_bars()


class tqdm:
    """A progress bar, with the basic interface of the package tqdm.

    Example:
        >>> for x in tqdm(range(10), desc="squares"):
        ...     compute(x)
    """

    def __init__(
        self,
        iterable: Optional[Iterable] = None,
        desc: Optional[str] = None,
        total: Optional[int] = None,
        unit: Optional[str] = None,
        position: Optional[int] = None,
        flush_interval_s: Optional[float] = None,
    ):
        """Make a bar.

        Args:
            iterable: What to iterate over.
            desc: A text before the bar.
            total: How many steps there are; None: the length of ``iterable``, or unknown.
            unit: What a step is.
            position: The line among the bars of this process, from 0.
            flush_interval_s: The least time between two updates, in seconds; None: 1.
        """
        from ray.util import get_node_ip_address

        if total is None and hasattr(iterable, "__len__"):
            total = len(iterable)  # type: ignore[arg-type]
        self._iterable = iterable
        self._flush_interval_s = _FLUSH_INTERVAL_S if flush_interval_s is None else flush_interval_s
        self._last_flush = float("-inf")
        self._state: State = {
            "__magic_token__": RAY_TQDM_MAGIC,
            "x": 0,
            "pos": position or 0,
            "desc": desc or "",
            "total": total,
            "unit": unit or "it",
            "ip": get_node_ip_address(),
            "pid": os.getpid(),
            "uuid": uuid.uuid4().hex,
            "closed": False,
        }

    @property
    def n(self) -> int:
        """How many steps are done."""
        return self._state["x"]

    @n.setter
    def n(self, value: int) -> None:
        self._state["x"] = value

    @property
    def total(self) -> Optional[int]:
        """How many steps there are; None: unknown."""
        return self._state["total"]

    @total.setter
    def total(self, value: Optional[int]) -> None:
        self._state["total"] = value

    def set_description(self, desc: str) -> None:
        """Change the text before the bar; seen with the next update."""
        self._state["desc"] = desc

    def update(self, n: int = 1) -> None:
        """Say that further steps are done.

        Args:
            n: How many.
        """
        self._state["x"] += n
        now = time.monotonic()
        if now - self._last_flush >= self._flush_interval_s:
            self._last_flush = now
            self._flush()

    def refresh(self) -> None:
        """Show the state as it is now."""
        self._flush()

    def close(self) -> None:
        """End the bar; its last state stays to be seen."""
        if not self._state["closed"]:
            self._state["closed"] = True
            self._flush()

    def __iter__(self) -> Iterator[Any]:
        if self._iterable is None:
            raise ValueError("a progress bar without an iterable can't be iterated over")
        for item in self._iterable:
            yield item
            self.update(1)
        self.close()

    def _flush(self) -> None:
        if _in_worker():
            sys.stdout.write(json.dumps(self._state) + "\n")  # in one piece, or lines of several threads may mix
            sys.stdout.flush()
        else:
            instance().process_state_update(dict(self._state))


class _Drawer:
    """Draws the bars of a driver's processes below each other, in the last lines of the terminal."""

    def __init__(self, out: Optional[TextIO] = None):
        self._out = out
        self._lock = threading.RLock()
        self._bars: Dict[
            str, Tuple[State, float]
        ] = {}  # uuid -> its state and when it was first seen; guarded by _lock
        self._lines = 0  # drawn; guarded by _lock
        self._hidden = 0  # how many want them hidden; guarded by _lock

    def process_state_update(self, state: State) -> None:
        """Take a bar's state and draw it.

        Args:
            state: What the line of JSON says.
        """
        with self._lock:
            since = self._bars.get(state["uuid"], (None, time.monotonic()))[1]
            self._bars[state["uuid"]] = (state, since)
            if state["closed"]:
                self._erase()
                del self._bars[state["uuid"]]
                self._file().write(_line(state, since) + "\n")
            self._draw()

    def hide_bars(self) -> None:
        """Take the bars off the terminal, to write something else."""
        with self._lock:
            self._hidden += 1
            self._erase()
            self._file().flush()

    def unhide_bars(self) -> None:
        """Draw them again."""
        with self._lock:
            self._hidden -= 1
            self._draw()

    def _file(self) -> TextIO:
        return self._out if self._out is not None else sys.stderr

    def _erase(self) -> None:
        if self._lines:
            self._file().write("\r" + "\x1b[1A" * (self._lines - 1) + "\x1b[J")
            self._lines = 0

    def _draw(self) -> None:
        out = self._file()
        if out.isatty() and not self._hidden:
            self._erase()
            lines = self._text()
            out.write("\n".join(lines))
            self._lines = len(lines)
        out.flush()

    def _text(self) -> List[str]:
        # The bars of a process stay together, in the order of their positions; the driver's own come first.
        own = os.getpid()
        order = sorted(
            self._bars.values(),
            key=lambda bar: (bar[0]["pid"] != own, bar[0]["ip"], bar[0]["pid"], bar[0]["pos"], bar[1]),
        )
        width, height = shutil.get_terminal_size()
        return [_line(state, since, width - 1) for state, since in order[: max(height - 1, 1)]]


def _line(state: State, since: float, width: Optional[int] = None) -> str:
    spent = time.monotonic() - since
    done, total, unit = state["x"], state["total"], state["unit"]
    rate = done / spent if spent > 0 else 0.0
    head = f"(pid={state['pid']}) " if state["pid"] != os.getpid() else ""
    text = f"{state['desc']}: " if state["desc"] else ""
    if total:
        share = min(max(done / total, 0.0), 1.0)
        left = _clock((total - done) / rate) if rate else "?"
        full = int(share * _BAR)
        text += f"{share:4.0%}|{'█' * full}{' ' * (_BAR - full)}| "
        text += f"{_short(done)}/{_short(total)} [{_clock(spent)}<{left}, {_short(rate)}{unit}/s]"
    else:
        text += f"{_short(done)}{unit} [{_clock(spent)}, {_short(rate)}{unit}/s]"
    if width is not None:
        text = text[: max(width - len(head), 0)]
    return f"\x1b[36m{head}\x1b[0m{text}" if head and width is not None else head + text


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"


def _short(number: float) -> str:
    """A number in about four characters: 7, 1.5, 12.3k."""
    for unit in ("", "k", "M", "G"):
        if abs(number) < 1000:
            return (f"{number}" if isinstance(number, int) else f"{number:.3g}") + unit
        number /= 1000
    return f"{number:.0f}T"


def _in_worker() -> bool:
    from ray._private.worker import WORKER_MODE, global_worker

    return global_worker.mode == WORKER_MODE


_drawer: Optional[_Drawer] = None
_making = threading.Lock()


def instance() -> _Drawer:
    """The drawer of this process."""
    global _drawer
    with _making:
        if _drawer is None:
            _drawer = _Drawer()
        return _drawer
