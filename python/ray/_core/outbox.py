"""The one ordered stream of frames from this process to its daemon.

Frames are built whole, appended to a deque, and sent by whoever flushes. An exception may leave ``flush`` at any byte (a
signal handler that raises, Ctrl-C); every step that must not be lost or done twice is one call into C that also records
that it was done, and the next flush goes on from there.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from _queue import Empty, SimpleQueue
from _thread import RLock, allocate_lock, start_new_thread
from collections import deque
from itertools import repeat, starmap

from ray._core import refs, wire

FLUSH_AT = 32  # frames
_CLAIMS_AT = 32  # dead claims (and pokes) that a flush waits for before it sees to them: nobody waits for that
_CLAIMS_LATE = 4  # rounds of the flusher after which they have waited for long enough
_LINGER = 0.0015  # seconds that the flusher lets a batch grow
_AWAKE = 32  # rounds without work after which the flusher parks
_LAST_FLUSH = 1.0  # seconds that close gives a daemon that does not read
_NEVER = object()


def _nested() -> bool:
    """Whether this thread is inside a flush already."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code is Outbox.flush.__code__:
            return True
        frame = frame.f_back
    return False


def _last_word(sock):
    """Why the daemon ended the session, if it said so before it closed the connection."""
    try:
        data = sock.recv(65536, socket.MSG_DONTWAIT)
    except OSError:
        return None
    if len(data) <= 5 or data[4] != wire.REFUSED:
        return None
    import msgpack

    return f"The node daemon ended this session: {msgpack.unpackb(data[5 : 4 + wire.u32(data)[0]]).get('error')}"


class _Round:
    """What one flush has taken, and how much of it is sent."""

    __slots__ = ("blocked", "claims", "data", "frames", "last", "pieces", "sent")

    def __init__(self):
        self.claims = []
        self.last = None  # the frames made from claims
        self.frames = []
        self.data = None
        self.pieces = {}  # (offset, failed attempts) -> what to send there, an iterator that gives it out once
        self.sent = []
        self.blocked = []


class Outbox:
    """Frames on their way to the daemon, and the thread that sends what nobody else does."""

    def __init__(self, sock: socket.socket):
        """Own a connected stream socket."""
        sock.setblocking(False)
        self.sock = sock
        self._send = sock.send
        self.frames = deque()
        self.dead = SimpleQueue()  # dead claims, and None to wake the flusher
        self.table = refs.Table(self.dead.put)
        self.armed = False
        self.congested = False  # the socket is full and someone waits for it
        self.broken = None  # why nothing can be sent any more
        self._late = deque()  # claims that the flusher took
        self._round = _Round()
        self._lock = RLock()
        self._stopped = allocate_lock()
        self._stopped.acquire()
        self._flushing = False
        self._flushes = 0
        self._parked = False

    def start(self):
        """Start the flusher thread."""
        self._flushing = True
        start_new_thread(self._run, ())

    def add(self, frame: bytes):
        """Buffer whole frames; they leave within about a millisecond."""
        frames = self.frames
        frames.append(frame)
        if len(frames) >= FLUSH_AT and not self.congested:
            self.flush(block=False)
        elif not self.armed:
            self.armed = True
            self.dead.put(None)

    def flush(self, block: bool = True, claims: bool = False):
        """Send what is buffered.

        Args:
            block: Whether to wait while the socket is full; else the flusher goes on.
            claims: Whether to tell of dead claims, too, however few there are.

        Raises:
            ConnectionError: The daemon is gone.
        """
        lock = self._lock
        if lock._is_owned() and not _nested():
            while lock._is_owned():
                lock.release()  # Python 3.9 can leave a with statement by an exception and not call __exit__
        self._flushes += 1
        if self._parked:
            self.dead.put(None)  # to be taken by the flusher: see _take_claims
        with lock:
            try:
                while self._step(block, claims):
                    pass
            except ConnectionError:
                raise
            except BaseException:
                self.dead.put(None)  # what the exception left behind must not wait for the next call
                raise

    def _step(self, block, claims) -> bool:
        # Wherever memory is allocated the collector may run a program's finalizer, and that may call ray and flush: all of
        # this may have been done meanwhile by a call inside this one. So whatever commits is made first, then what it
        # relies on is looked at, then it is stored; nothing is allocated between the last two.
        rnd = self._round
        begun = rnd.data is not None or rnd.last is not None
        if rnd.data is None:
            if rnd.last is None:
                self.armed = False  # pokes are taken with the claims
                if claims or self._late or self.dead.qsize() >= _CLAIMS_AT:
                    self._take_claims(rnd)
                last = self._last_words(rnd.claims) if rnd.claims else b""
                n = len(rnd.claims)
                if rnd.last is None and n == len(rnd.claims):
                    rnd.last = last
                else:
                    return True
            # Claims first, frames second: so a claim's frames follow all that was buffered while its object lived.
            frames = self.frames
            moves = starmap(frames.popleft, repeat((), len(frames)))
            try:
                if self._round is rnd and rnd.data is None:
                    rnd.frames.extend(moves)
            except IndexError:
                pass  # a call inside this one was faster
            n = len(rnd.frames)
            data = b"".join(rnd.frames) + rnd.last
            if not data:
                if not rnd.claims:
                    rnd.last = None
                    return False
                fresh = _Round()  # nothing but pokes
                if self._round is rnd:
                    self._round = fresh
                return False
            if rnd.data is None and len(rnd.frames) == n:
                rnd.data = data
            else:
                return True
        data = rnd.data
        sent = rnd.sent
        size = len(data)
        while True:
            at = sum(sent)
            if at == size:
                break
            piece = rnd.pieces.setdefault((at, len(rnd.blocked)), iter((memoryview(data)[at:] if at else data,)))
            try:
                sent.extend(map(self._send, piece))
                if sum(sent) == at:
                    rnd.blocked.append(None)  # this try was used up by an exception
            except BlockingIOError:
                rnd.blocked.append(None)
                if not block:
                    self.congested = True
                    self.dead.put(None)
                    return False
                self._wait_writable()
            except OSError as e:
                self.broken = (
                    self.broken
                    or _last_word(self.sock)
                    or (
                        f"The connection to the node daemon broke ({e}): it was stopped or killed. Its log is raylet.err in the session's "
                        "logs directory; after ray.shutdown(), ray.init() starts or finds another."
                    )
                )
                from ray import exceptions

                raise exceptions.daemon_gone(self.broken) from e
        self.congested = False
        fresh = _Round()
        if self._round is rnd:
            self._round = fresh
        return bool(begun or self.frames)

    def _wait_writable(self):
        self.congested = True
        poll = select.poll()
        poll.register(self.sock.fileno(), select.POLLOUT)
        poll.poll(1000)

    def _take_claims(self, rnd):
        into = rnd.claims
        late = self._late
        if late:
            moves = starmap(late.popleft, repeat((), len(late)))
            try:
                if rnd.last is None:
                    into.extend(moves)
            except IndexError:
                pass  # a call inside this one was faster
        # While the flusher waits on the queue it is left alone: each claim would wake it, and this leave it nothing.
        if not self._parked and not self.dead.empty():
            moves = iter(self.dead.get_nowait, _NEVER)
            try:
                if rnd.last is None:
                    into.extend(moves)
            except Empty:
                pass

    def _last_words(self, claims) -> bytes:
        """The frames that tell of dead claims. Doing it twice changes nothing more."""
        table = self.table
        held = table.held
        release = {}
        unpin = {}
        rest = []
        gone = []
        for c in claims:
            key = getattr(c, "key", None)
            if key is None:
                continue  # a poke, or a claim whose making was interrupted
            kind = type(c)
            if kind is refs.Claim:
                release[key] = release.get(key, 0) + 1
                gone.append(key)
            elif kind is refs.LeaseClaim:
                for oid in c.ids:
                    release[oid] = release.get(oid, 0) + 1
                gone.extend(c.ids)
                held.pop(key, None)
            elif kind is refs.PinClaim:
                unpin[c.oid] = unpin.get(c.oid, 0) + 1
                held.pop(key, None)
            elif kind is refs.UncountedClaim:
                gone.append(key)
            elif kind is refs.CreateClaim:
                rest.append(wire.abort(key))
                held.pop(("create", key), None)
            elif kind is refs.TemplateClaim:
                rest.append(wire.template_drop(key))
                held.pop(("template", key), None)
            elif kind is refs.StreamClaim:
                rest.append(wire.stream_drop(key))
                held.pop(("stream", key), None)
            elif kind is refs.ChannelClaim:
                rest.append(wire.channel_close(key))
                c.sock.close()
                held.pop(("channel", key), None)
        if gone:
            table.forget(gone)
        if release:
            rest.append(wire.counts(wire.RELEASE, release.items()))
        if unpin:
            rest.append(wire.counts(wire.UNPIN, unpin.items()))
        return b"".join(rest)

    def _run(self):
        dead = self.dead
        try:
            while self._flushing:
                self._parked = True
                item = dead.get()
                self._parked = False
                if item is not None:
                    self._late.append(item)
                self._watch()
        except ConnectionError:
            pass  # whoever calls next is told; .broken says why
        self._stopped.release()

    def _watch(self):
        # While there is work this thread looks now and then and nobody wakes it: a put on a queue on which it waits would
        # cost every task of a loop of gets a change of threads. Claims alone go with the next frames if some come soon.
        idle = 0
        seen = -1
        waiting = 0  # rounds for which claims have
        while self._flushing and idle < _AWAKE:
            time.sleep(_LINGER)
            idle += 1
            waiting = waiting + 1 if self._late or not self.dead.empty() else 0
            if self.armed or self.congested or waiting and (seen == self._flushes or waiting > _CLAIMS_LATE):
                self.armed = False
                waiting = 0
                self.flush(claims=True)
            if seen != self._flushes:
                seen = self._flushes
                idle = 0

    def close(self):
        """Send what is buffered, end the flusher and close the socket."""
        if self._flushing:
            self._flushing = False
            deadline = time.monotonic() + _LAST_FLUSH
            try:
                while not self.broken and time.monotonic() < deadline:
                    self.flush(block=False, claims=True)
                    if not self.congested:
                        break
                    self._wait_writable()
            except ConnectionError:
                pass  # the daemon went first: nobody is left to tell
            while not self._stopped.acquire(True, 0.02) and time.monotonic() < deadline + _LAST_FLUSH:
                self.dead.put(None)  # another thread's flush may have taken the last one
        self.sock.close()

    def abandon(self):
        """In a forked child: drop the socket without a byte."""
        self._flushing = False
        self.broken = "this process was forked from the one that is connected"
        self.sock.close()
