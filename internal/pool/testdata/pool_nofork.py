"""Preloading this makes every fork fail as it does at a limit on processes."""

import errno
import os


def _refuse():
    raise OSError(errno.EAGAIN, "Resource temporarily unavailable")


os.fork = _refuse
