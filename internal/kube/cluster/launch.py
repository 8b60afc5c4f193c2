"""Runs a program in the head's pod for `ray kube run`, which passes this file to `python -c`.

What comes on stdin are messages: a letter, a length of 4 bytes, so many bytes. C: what to run, in JSON, first of all. F: the
files, a tar, before anything else. D: input for the program, which E ends. S: a signal, as a number in text. H: nothing, so that a user who has gone is noticed. When
the messages end or none comes for QUIET seconds, the program is ended, too: a program whose user has gone is nobody's.
"""

import base64
import io
import json
import os
import queue
import select
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading

QUIET = 60
GRACE = 5
AHEAD = 4096  # messages of input that wait for the program to read, at most


def read(size):
    data = b""
    while len(data) < size:
        if not select.select([0], [], [], QUIET)[0]:
            return None
        more = os.read(0, size - len(data))
        if not more:
            return None
        data += more
    return data


def message():
    head = read(5)
    if head is None:
        return None, b""
    body = read(struct.unpack(">I", head[1:])[0])
    return (None, b"") if body is None else (head[:1], body)


class Files(io.RawIOBase):
    """The bytes of F messages as one file; an empty F is its end."""

    def __init__(self):
        self.rest = b""
        self.over = False

    def readable(self):
        return True

    def readinto(self, into):
        while not self.rest and not self.over:
            kind, self.rest = message()
            if kind is None:
                raise EOFError("the connection ended before all files were here")
            self.over = kind == b"F" and not self.rest
            if kind != b"F":
                self.rest = b""
        n = min(len(into), len(self.rest))
        into[:n], self.rest = self.rest[:n], self.rest[n:]
        return n


def feed(child, pieces):
    """Gives the program its input, which it may read late or never."""
    for body in iter(pieces.get, None):
        try:
            child.stdin.write(body)
            child.stdin.flush()
        except OSError:  # it reads no more
            for _ in iter(pieces.get, None):
                pass
            break
    try:
        child.stdin.close()
    except OSError:
        pass


def hung_up():
    """Whether the messages have ended, also where some are still unread."""
    poll = select.poll()
    poll.register(0, select.POLLRDHUP)
    return bool(poll.poll(0))


def put(pieces, body):
    """Adds to the input when there is room; false if the connection ended before."""
    while True:
        try:
            pieces.put(body, timeout=1)
            return True
        except queue.Full:
            if hung_up():
                return False


def pass_on(child):
    """Carries messages to the program until it has ended."""
    pieces = queue.Queue(AHEAD)
    threading.Thread(target=feed, args=(child, pieces), daemon=True).start()
    more = True  # input may come
    while True:
        kind, body = message()
        if kind == b"D" and more:
            kind = kind if put(pieces, body) else None
        elif kind == b"E" and more:
            more = False
            kind = kind if put(pieces, None) else None
        elif kind == b"S":
            end(child, int(body))
        if kind is None:
            end(child, signal.SIGTERM)
            try:
                child.wait(GRACE)
            except subprocess.TimeoutExpired:
                end(child, signal.SIGKILL)
            return


def end(child, number):
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        pass


def main():
    kind, body = message()
    if kind != b"C":
        return 1  # the user has gone
    what = json.loads(body)
    folder = tempfile.mkdtemp(prefix="ray-run-")
    try:
        files = Files()
        with tarfile.open(fileobj=files, mode="r|") as tar:
            for member in tar:
                tar.extract(member, folder, set_attrs=member.isfile())
        while not files.over:
            files.read(65536)
        env = dict(os.environ, PYTHONUNBUFFERED="1")
        if what["job"]:
            env["RAY_JOB_CONFIG_JSON_ENV_VAR"] = what["job"]
        child = subprocess.Popen(
            [sys.executable, *map(base64.b64decode, what["command"])],
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        threading.Thread(target=pass_on, args=(child,), daemon=True).start()
        status = child.wait()
        return status if status >= 0 else 128 - status
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the thread still reads
