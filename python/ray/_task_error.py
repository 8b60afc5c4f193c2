"""What all errors have in common, and the one that carries what user code raised.

Programs find both in :mod:`ray.exceptions`, which their ``__module__`` names.
"""

import os
import sys
from typing import Any, Mapping

_CYAN, _RESET = "\x1b[36m", "\x1b[39m"


class RayError(Exception):
    """Base of all errors of this package."""

    def to_bytes(self) -> bytes:
        """Serialise the error, so that :meth:`from_bytes` can make it anew in another process."""
        import pickle

        from ray import cloudpickle

        return pickle.dumps((_formatted(self), cloudpickle.dumps(self)), protocol=5)

    @staticmethod
    def from_bytes(b: bytes) -> "RayError":
        """Make the error that :meth:`to_bytes` serialised.

        Returns:
            The error; an :class:`UnserializableException` with the original text if its class can't be rebuilt here.
        """
        import pickle

        text, payload = pickle.loads(b)
        try:
            return pickle.loads(payload)
        except Exception:  # whatever a user's class raises while it is rebuilt
            from ray.exceptions import UnserializableException

            return UnserializableException(text)

    @staticmethod
    def from_ray_exception(ray_exception) -> Exception:
        """Make an error from its bytes, or from the map by which a daemon describes one (kind, error, …)."""
        if isinstance(ray_exception, Mapping):
            from ray.exceptions import from_daemon

            return from_daemon(ray_exception)
        return RayError.from_bytes(ray_exception)


def _formatted(exc: BaseException) -> str:
    text = str(exc)
    if isinstance(exc, RayTaskError):
        return text
    import traceback

    if exc.__traceback__ is None:
        return f"{type(exc).__name__}: {text}"
    return "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))


class RayTaskError(RayError):
    """User code raised while it ran in a task.

    ``ray.get`` raises an instance of a class that derives from this one and from the class of ``cause``.

    Attributes:
        function_name: Name of the remote function.
        traceback_str: The traceback as the worker formatted it.
        cause: The exception that the user's code raised.
        proctitle: Title of the worker process, such as ``ray::f``.
        pid: Process id of the worker.
        ip: Address of the worker's node.
        actor_repr: ``repr()`` of the actor; None for a plain task.
    """

    def __init__(
        self, function_name, traceback_str, cause, proctitle=None, pid=None, ip=None, actor_repr=None, actor_id=None
    ):
        super().__init__(function_name, traceback_str, cause, proctitle, pid, ip)
        self.proctitle = proctitle if proctitle else _proctitle()
        self.pid = pid or os.getpid()
        self.ip = ip or _node_ip()
        self.function_name = function_name
        self.traceback_str = traceback_str
        self.actor_repr = actor_repr
        self._actor_id = actor_id
        self.cause = _flattened(cause)
        try:
            from ray import cloudpickle

            cloudpickle.dumps(self.cause)
        except Exception as e:  # whatever a user's class raises while it is pickled
            name = _class_name(type(self.cause))
            import logging

            logging.getLogger("ray").error(
                "The original cause of the RayTaskError (%s) isn't serializable: %s.", name, e
            )
            self.cause = RayError(
                f"Exception {name} isn't serializable: {e}.\nOriginal exception details:\n{traceback_str}"
            )
            self.args = (function_name, traceback_str, self.cause, proctitle, pid, ip)

    def as_instanceof_cause(self) -> "RayTaskError":
        """Return an exception that is an instance of this class and of the cause's class.

        Where the cause's class can't be subclassed, or has nothing to add, the answer is this error itself.
        """
        cause_cls = type(self.cause)
        if not isinstance(self.cause, BaseException) or issubclass(RayTaskError, cause_cls):
            return self
        try:
            return self.make_dual_exception_instance()
        except Exception as e:  # whatever a user's metaclass or __init_subclass__ raises
            import logging

            logging.getLogger("ray").warning(
                "User exception type %s in RayTaskError can't be subclassed! This exception is raised as RayTaskError "
                "only. You can use `ray_task_error.cause` to access the user exception. Failure in subclassing: %s",
                cause_cls,
                e,
            )
            return self

    def make_dual_exception_instance(self) -> "RayTaskError":
        """Return this error as an instance of a new class that also derives from the cause's class."""
        cause = self.cause
        cause_cls = type(cause)
        name = f"RayTaskError({cause_cls.__name__})"
        # A user's exception may insist on arguments of its own; an instance is made whole below.
        cls: Any = type(
            name,
            (RayTaskError, cause_cls),
            {
                "__module__": "ray.exceptions",
                "__qualname__": name,
                "__init__": _ignore_arguments,
                "__getattr__": _of_cause,
                "__str__": _text_of_whole,
                "__reduce__": _reduce_dual,
            },
        )
        base = cls
        while base.__flags__ & 1 << 9:  # a class made by a class statement; the first other one owns the memory layout
            base = base.__base__
        group = getattr(base, "derive", None) is not None and issubclass(base, _BaseExceptionGroup)
        dual = base.__new__(cls, cause.message, cause.exceptions) if group else base.__new__(cls)
        dual.__dict__.update(cause=cause, _ray_task_error_args=(cause,), _ray_task_error=self)
        try:
            dual.args = (cause,)
        except AttributeError:  # the user's class has a property of that name
            pass
        for klass in base.__mro__:  # fields such as OSError.errno live outside __dict__
            if klass in (BaseException, object) or group:
                break
            for field, how in vars(klass).items():
                if type(how).__name__ in ("member_descriptor", "getset_descriptor"):
                    try:
                        setattr(dual, field, getattr(cause, field))
                    except (AttributeError, TypeError):  # read-only, or not set in the cause
                        continue
        return dual

    def __str__(self):
        return _visible(str(self.traceback_str), self._header())

    def _header(self) -> str:
        where = f"pid={self.pid}, ip={self.ip}"
        if self.actor_repr:
            where += f", actor_id={self._actor_id}, repr={self.actor_repr}"
        return f"{_CYAN}{self.proctitle}(){_RESET} ({where})"

    def __reduce__(self):
        return _rebuild, (type(self), self.args, self.__dict__.copy())


# The methods of all classes made by make_dual_exception_instance.


def _ignore_arguments(self, *args, **kwargs):
    pass


def _of_cause(self, name):
    cause = self.__dict__.get("cause")
    if cause is None or name.startswith("__") and name != "__notes__":
        raise AttributeError(name)
    try:
        return getattr(cause, name)
    except AttributeError:
        whole = self.__dict__["_ray_task_error"]
        if name in whole.__dict__:
            return whole.__dict__[name]
        raise


def _text_of_whole(self):
    return str(self.__dict__["_ray_task_error"])


def _reduce_dual(self):
    return _rebuild_dual, (self.__dict__["_ray_task_error"],)


_BaseExceptionGroup: Any = getattr(__import__("builtins"), "BaseExceptionGroup", ())


def _rebuild(cls, args, state):
    exc = cls.__new__(cls, *args)
    exc.args = args
    exc.__dict__.update(state)
    return exc


def _rebuild_dual(whole: RayTaskError):
    return whole.as_instanceof_cause()


def _flattened(cause):
    # a failure that passed through several tasks keeps its first cause
    while isinstance(cause, RayTaskError):
        cause = cause.__dict__["cause"]
    return cause


def _class_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}" if cls.__module__ != "builtins" else cls.__qualname__


def _proctitle() -> str:
    return " ".join([sys.executable, *sys.argv]) if getattr(sys, "argv", None) else sys.executable


def _node_ip() -> str:
    from ray.util import get_node_ip_address

    return get_node_ip_address()


_HIDDEN = ("/ray/_core/", "/ray/_private/", "/ray/_api.py", "/ray/remote_function.py", "/ray/_raylet.py")


def _visible(text: str, header: str) -> str:
    """The worker's traceback with its first lines named by process, and without frames of this package."""
    out, hidden = [], False
    for line in text.strip("\n").split("\n"):
        if line.startswith("Traceback (most recent call last):"):
            hidden = False
            out.append(header)
        elif line.startswith('  File "'):
            path = line[8:].split('"', 1)[0]
            hidden = any(mark in path for mark in _HIDDEN)
            if not hidden:
                out.append(line)
        elif not (hidden and line.startswith("    ")):
            hidden = False
            out.append(line)
    if out[0].startswith("  + Exception Group Traceback"):  # the first line of a group's own traceback
        out.insert(0, header)
    return "\n".join(out)


RayError.__module__ = RayTaskError.__module__ = "ray.exceptions"
