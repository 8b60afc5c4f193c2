"""What a worker prints: its standard streams, and the lines in its files that say in whose name it prints.

The node daemon reads the files and shows the lines to the job's driver, with the name of the task or actor that printed
them. The name is written into the file when something is printed that follows another name: tasks that print nothing cost
nothing. Just so each task's first line is preceded by one that says which task it is, by which a task's log is found.
Output that does not come by way of ``sys.stdout`` and ``sys.stderr`` (of C code, of processes that a task starts)
goes under the last name and task written, so these are also written beforehand when a task of another name begins after a
while, when a function is run here for the first time, and for functions that were seen to print by such ways.
"""

from __future__ import annotations

import io
import os
import sys
import time

_AHEAD = 0.001  # seconds between names that are written beforehand

_name = ("task_name", "")  # in whose name this process prints now: what it is, and what it is called
_files: list = []
_who = type(
    None
)  # returns which task or call runs: the unique part of its id and its attempt; false if that is not known
_written = 0.0  # when names were last written beforehand


class _File(io.FileIO):
    """A descriptor into which the current name goes ahead of what is printed in it."""

    last = ("task_name", "")  # the name that was written last
    who = None  # the task that was written last
    fresh = True  # the next byte begins a line
    end = 0  # the file's size when others were last seen to have written to it, and what was written here since

    def write(self, data):
        name = _name
        who = _who()
        if not who and self.who is not None:
            who = self.who  # what its task has left behind
        if name is self.last and who == self.who:
            n = super().write(data)
        else:
            head = _line(*name) if name is not self.last else b""
            if who != self.who:
                head += _mark(who)
            if not self.fresh and not self._at_begin():
                head = b"\n" + head
            whole = head + bytes(data)
            n = super().write(whole)
            while n < len(head):  # as good as never: of a file that is written to in pieces
                n += super().write(whole[n:])
            self.last, self.who = name, who
            self.end += len(head)
            n -= len(head)
        if n:
            self.end += n
            self.fresh = data[n - 1] == 10
        return n

    def ahead(self):
        """Write the current name and task, unless they stand there."""
        who = _who()
        if _name is not self.last or who != self.who and (who or self.who is None):
            self.write(b"")
            self.fresh = True

    def grown(self) -> bool:
        """Whether others have written to the file since this was asked last."""
        try:
            size = os.fstat(self.fileno()).st_size
        except (OSError, ValueError):
            return False  # user code has closed it
        grown = size > self.end  # it is less when the file's begin has been cut off
        self.end = size
        return grown

    def _at_begin(self) -> bool:
        """Whether the file ends with a whole line: somebody else may have ended ours."""
        try:
            with open(f"/proc/self/fd/{self.fileno()}", "rb", buffering=0) as file:
                return file.seek(-1, io.SEEK_END) < 0 or file.read(1) == b"\n"
        except OSError:
            return True  # it is empty, or no file


def open_streams():
    """Make ``sys.stdout`` and ``sys.stderr`` of this worker."""
    _files.clear()
    for name, fd in (("stdout", 1), ("stderr", 2)):
        old = getattr(sys, name)
        if type(old) is not io.TextIOWrapper:  # a preloaded module has put something else there
            continue
        raw = _File(fd, "wb", closefd=False)
        raw.name = f"<{name}>"
        stream = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=old.encoding,
            errors="backslashreplace",  # what cannot be encoded must not fail a task
            line_buffering=True,
        )
        stream.mode = "w"
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
        _files.append(raw)


def _line(kind: str, name: str) -> bytes:
    return f":{kind}:{' '.join(name.split())}\n".encode("utf-8", "backslashreplace")


def _mark(who: bytes) -> bytes:
    attempt = int.from_bytes(who[8:], "little")
    return f":task_id:{who[:8].hex()}{f' {attempt}' if attempt else ''}\n".encode()


def tell_apart(who):
    """From now on, ``who()`` says which task or call prints; None if they are not told apart."""
    global _who
    _who = who or type(None)
    for file in _files:
        file.who = None


def as_task(name: str, at_once: bool):
    """From now on a task of that name prints; with ``at_once``, its name and itself are written beforehand in any case."""
    global _name, _written
    if name != _name[1]:
        _name = ("task_name", name)
    now = time.perf_counter()
    if at_once or now - _written > _AHEAD:
        _written = now
        for file in _files:
            file.ahead()


def by_others() -> bool:
    """Whether something has come into the files by other ways than ``sys.stdout`` and ``sys.stderr`` since the last call."""
    return sum([file.grown() for file in _files]) > 0  # each is to look


def as_actor(name: str):
    """From now on an actor of that name, or that looks like that, prints."""
    global _name
    flush()  # what it printed under another name
    _name = ("actor_name", name)
    for file in _files:
        file.ahead()


def flush():
    """Let go of lines that have no end yet."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):
        pass  # closed or replaced by user code, or the disk is full: no reason to end the worker
