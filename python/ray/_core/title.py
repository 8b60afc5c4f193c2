"""The title under which this process is listed by ``ps``, written in place.

Linux shows a process's arguments straight out of the process's own memory. Workers are started with a padded argument
vector (see ``zygote``), so a title is one copy of a few bytes: no system call, about 0.2 µs.
"""

from __future__ import annotations

import ctypes

_area = None  # the argument vector as a ctypes array, once claim() has found it
_room = 0  # bytes a title may take


def claim() -> bool:
    """Take over this process's argument vector, so that ``set_title`` works from here on, forked children included.

    Only for a process whose arguments nobody else reads: a worker or its zygote.

    Returns:
        Whether the vector was found. If not, titles are not shown and nothing else changes.
    """
    global _area, _room
    try:
        with open("/proc/self/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
        start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, proc(5)
    except (OSError, ValueError, IndexError):
        return False
    if start <= 0 or end - start < 16:
        return False
    area = (ctypes.c_char * (end - start)).from_address(start)
    ctypes.memset(start, 0, end - start)
    # A last byte that is not zero tells the kernel that the vector now holds one string: readers get it without padding.
    area[end - start - 1] = b"\x01"
    _area, _room = area, end - start - 2
    return True


def set_title(title: str) -> None:
    """Show ``title`` as this process's command line; cut to the room that there is (about 250 bytes).

    Does nothing in a process that has not called ``claim``, such as a driver.

    Args:
        title: New title, such as ``"ray::f"``.
    """
    if _area is not None:
        text = title.encode("utf-8", "replace")
        if len(text) > _room:
            text = text[:_room].decode("utf-8", "ignore").encode()  # cut between characters
        _area.value = text
