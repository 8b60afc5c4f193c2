"""The processes of a pool, and who of them does what.

Each actor has one batch at a time; the others wait here and go to whoever is idle first, so a long batch holds up nobody. A
thread takes in results and hands out batches; a second one, started when somebody wants it, runs callbacks.
"""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections import deque
from queue import SimpleQueue
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional, Set

logger = logging.getLogger(__name__)

_EXIT_S = 10.0  # how long join() waits for processes that were told to end
_TERMINATED = "The pool was terminated before this was done."


class PoolTaskError(Exception):
    """A call of a pool's function raised.

    Attributes:
        underlying: What it raised.
    """

    def __init__(self, underlying: Exception):
        """Wrap an error."""
        super().__init__(underlying)
        self.underlying = underlying


class RemoteTraceback(Exception):
    """The cause of an error that was raised in another process: the text of its traceback."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class Batch(NamedTuple):
    """A piece of work for one process.

    Attributes:
        result: Whom to tell: an ``AsyncResult`` or ``IMapIterator``.
        index: Its number there.
        function: The function, or a ref of it.
        how: "apply", "map" or "starmap": what is in ``calls``.
        calls: Arguments of calls.
    """

    result: Any
    index: int
    function: Any
    how: str
    calls: List[Any]


class Outcome(NamedTuple):
    """What a batch came to.

    Attributes:
        size: How many calls it had.
        values: What they returned; None where one raised.
        errors: What they raised, by position.
        broken: Why there is nothing of these: the process died, or something could not be serialised.
    """

    size: int
    values: List[Any]
    errors: Dict[int, Exception]
    broken: Optional[Exception] = None


class _Worker:
    def __init__(self, actor: Any, batches: Optional[int]):
        self.actor = actor
        self.left = batches  # until it is replaced; None: it never is


class Crew:
    """The actors of a pool. It knows nothing of the pool, so that a forgotten pool can end."""

    def __init__(
        self,
        size: int,
        initializer: Optional[Callable],
        initargs: tuple,
        batches_each: Optional[int],
        options: Dict[str, Any],
    ):
        """Say what it shall be; :meth:`start` makes it."""
        self.size = size
        self.closed = False
        self.iterators: weakref.WeakSet = weakref.WeakSet()  # of imap: they may have more to submit
        self._initializer = initializer
        self._initargs = initargs
        self._batches_each = batches_each
        self._options = options
        self._lock = threading.Lock()
        self._idle: Deque[_Worker] = deque()  # guarded by _lock
        self._busy: Set[_Worker] = set()  # guarded by _lock
        self._queued: Deque[Batch] = deque()  # guarded by _lock
        self._terminated = False  # guarded by _lock
        self._feeding = False  # close() still submits; guarded by _lock
        self._leaving: List[Any] = []  # refs of processes' ends; guarded by _lock
        self._functions: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # function -> ref; guarded by _lock
        self._events: SimpleQueue = SimpleQueue()  # what the dispatching thread shall call; None: the end
        self._callbacks: Optional[SimpleQueue] = None  # of the dispatching thread only
        self._caller: Optional[threading.Thread] = None
        self._thread = threading.Thread(target=self._run, name="ray-pool", daemon=True)
        self._unfinished = 0  # batches whose outcome was not delivered; guarded by _lock

    def start(self) -> None:
        """Start the processes and wait for them."""
        import ray

        workers = [self._hire() for _ in range(self.size)]
        ray.get([worker.actor.ready.remote() for worker in workers])  # raises what an initializer raised
        self._idle.extend(workers)
        self._thread.start()

    def shared(self, function: Callable, always: bool = False) -> Any:
        """The function in a form for many batches.

        A function of ``def`` or ``lambda`` is serialised once a pool, as a remote function is. What holds variables of its
        own may change from call to call.

        Args:
            function: The function.
            always: Whether many batches follow at once.
        """
        import types

        import ray

        fixed = isinstance(function, types.FunctionType) and not function.__closure__
        if not fixed:
            return ray.put(function) if always else function
        with self._lock:
            ref = self._functions.get(function)
        if ref is None:
            ref = ray.put(function)
            with self._lock:
                ref = self._functions.setdefault(function, ref)
        return ref

    def submit(self, batches: List[Batch]) -> None:
        """Have batches done, after those submitted before."""
        with self._lock:
            if not self._terminated:
                self._unfinished += len(batches)
                self._queued.extend(batches)
                self._dispatch()
                return
        for batch in batches:  # there may be no thread left that could
            if batch.result.deliver(batch.index, _broken(batch, _terminated())):
                batch.result.settle()

    def settle(self, result: Any) -> None:
        """Have a result settled that waits for nothing."""
        with self._lock:
            self._unfinished += 1
        self._events.put(functools.partial(self._finish, result))

    def forget(self) -> None:
        """Terminate, on the crew's thread: a finalizer must not wait for a lock that its own thread may hold."""
        self._events.put(self.terminate)

    def close(self) -> None:
        """End the processes when all is done."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            self._feeding = True
        try:
            for iterator in list(self.iterators):
                iterator.feed(None)
        finally:
            with self._lock:
                self._feeding = False
                self._end_if_done()

    def terminate(self) -> None:
        """End the processes now; what is not done fails."""
        import ray

        with self._lock:
            if self._terminated:
                return
            self.closed = self._terminated = True
            workers = [*self._idle, *self._busy]
            self._idle.clear()
            queued = list(self._queued)
            self._queued.clear()
            for batch in queued:
                self._fail(batch, _terminated())
        for worker in workers if ray.is_initialized() else ():
            try:
                ray.kill(worker.actor)
                self._leaving.append(worker.actor.ready.remote())  # fails when it is gone
            except Exception as e:  # of another session, or gone
                logger.debug("a process of a pool could not be ended: %r", e)
        with self._lock:
            self._end_if_done()

    def join(self) -> None:
        """Wait for the end of the threads and processes."""
        import ray

        if self._thread.ident is not None:
            self._thread.join()
        if self._caller is not None and self._caller is not threading.current_thread():
            self._caller.join()
        if self._leaving and ray.is_initialized():
            ray.wait(self._leaving, num_returns=len(self._leaving), timeout=_EXIT_S)
            self._leaving = []

    # --- with the lock held ---

    def _hire(self) -> _Worker:
        import ray

        kind = ray.remote(PoolActor)
        if self._options:
            kind = kind.options(**self._options)
        return _Worker(kind.remote(self._initializer, self._initargs), self._batches_each)

    def _dismiss(self, worker: _Worker) -> None:
        self._leaving.append(worker.actor.__ray_terminate__.remote())

    def _dispatch(self) -> None:
        while self._queued and self._idle:
            worker = self._idle.popleft()
            batch = self._queued.popleft()
            try:
                future = worker.actor.run.remote(batch.function, batch.how, batch.calls).future()
            except Exception as e:  # the arguments can't be serialised
                self._idle.appendleft(worker)
                self._fail(batch, e)
                continue
            self._busy.add(worker)
            future.add_done_callback(functools.partial(self._done, worker, batch))

    def _done(self, worker: _Worker, batch: Batch, future: Any) -> None:
        # On a thread of Ray's, or with the lock held: it only says so.
        error = future.exception()
        outcome = _broken(batch, error) if error is not None else _received(batch, future.result())
        self._events.put(functools.partial(self._returned, worker, batch, outcome))

    def _fail(self, batch: Batch, error: Exception) -> None:
        self._events.put(functools.partial(self._deliver, batch, _broken(batch, error)))

    def _end_if_done(self) -> None:
        if self.closed and not self._feeding and not self._unfinished:
            while self._idle:
                self._dismiss(self._idle.popleft())
            self._events.put(None)

    # --- the dispatching thread ---

    def _run(self) -> None:
        while True:
            event = self._events.get()
            if event is None:
                break
            try:
                event()
            except Exception:
                logger.exception("a pool's thread could not do its work")
        if self._callbacks is not None:
            self._callbacks.put(None)

    def _returned(self, worker: _Worker, batch: Batch, outcome: Outcome) -> None:
        try:
            self._back(worker, outcome)
        finally:
            self._deliver(batch, outcome)

    def _back(self, worker: _Worker, outcome: Outcome) -> None:
        """A process has finished its batch: it gets another one, unless its life is over."""
        import ray
        from ray.exceptions import RayActorError

        with self._lock:
            self._busy.discard(worker)
            if self._terminated or not ray.is_initialized():
                return
            dead = isinstance(outcome.broken, RayActorError)
            if worker.left is not None:
                worker.left -= 1
            if dead or worker.left == 0:
                if not dead:
                    self._dismiss(worker)
                worker = self._hire()
            self._idle.append(worker)
            self._dispatch()

    def _deliver(self, batch: Batch, outcome: Outcome) -> None:
        last = batch.result.deliver(batch.index, outcome)
        self._finish(batch.result if last else None)

    def _finish(self, result: Any) -> None:
        """A batch is done; ``result`` is complete, if it is not None."""
        try:
            if result is not None:
                self._settle(result)
        finally:
            with self._lock:
                self._unfinished -= 1
                self._end_if_done()

    def _settle(self, result: Any) -> None:
        if not result.calls_back:
            result.settle()
            return
        if self._callbacks is None:
            self._callbacks = SimpleQueue()
            self._caller = threading.Thread(
                target=_call_back, args=(self._callbacks,), name="ray-pool-callbacks", daemon=True
            )
            self._caller.start()
        self._callbacks.put(result)


def _call_back(results: SimpleQueue) -> None:
    while True:
        result = results.get()
        if result is None:
            return
        try:
            result.settle()
        except Exception:
            logger.exception("a callback of a pool raised")


def _terminated() -> Exception:
    from ray.exceptions import RayActorError

    return RayActorError(None, _TERMINATED)


def _broken(batch: Batch, error: Exception) -> Outcome:
    return Outcome(len(batch.calls), [], {}, error)


def _received(batch: Batch, answer: tuple) -> Outcome:
    values, raised = answer
    errors = {}
    for i, (error, text) in raised.items():
        error.__cause__ = RemoteTraceback(text)
        errors[i] = error
    return Outcome(len(batch.calls), values, errors)


def _apply(function: Callable, call: tuple) -> Any:
    args, kwargs = call
    return function(*args, **kwargs)


def _starmap(function: Callable, call: tuple) -> Any:
    return function(*call)


class PoolActor:
    """A process of a pool."""

    def __init__(self, initializer: Optional[Callable], initargs: tuple):
        if initializer is not None:
            initializer(*initargs)

    def ready(self) -> None:
        """Returns when the initializer has."""

    def run(self, function: Callable, how: str, calls: List[Any]) -> tuple:
        """Do a batch: what the calls returned, and what they raised, by position."""
        if how == "apply":
            function = functools.partial(_apply, function)
        elif how == "starmap":
            function = functools.partial(_starmap, function)
        values: List[Any] = []
        raised = {}
        for call in calls:
            try:
                values.append(function(call))
            except Exception as e:
                raised[len(values)] = _portable(e)
                values.append(None)
        return values, raised


def _portable(error: Exception) -> tuple:
    import pickle
    import traceback

    from ray import cloudpickle

    frames = error.__traceback__.tb_next or error.__traceback__  # ours is of no interest
    text = "".join(traceback.format_exception(type(error), error, frames))
    try:
        pickle.loads(cloudpickle.dumps(error))
    except Exception:  # whatever a user's class raises
        error = RuntimeError(repr(error))
    return error, text
