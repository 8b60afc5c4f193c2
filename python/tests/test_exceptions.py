"""Errors: bases, fields, texts, and how the error of a task is also an instance of its cause."""

import pickle
import sys
import threading
import traceback
import types

import pytest

import ray
from ray import exceptions as e

TRACEBACK = """Traceback (most recent call last):
  File "/lib/site-packages/ray/_core/worker.py", line 5, in execute
    function(*args)
    ~~~~~~~~^^^^^^^
  File "/home/u/x.py", line 7, in f
    return g(c)
           ^^^^
  File "/lib/site-packages/ray/_api.py", line 5, in get
    return _core.get(refs)
  File "/home/u/x.py", line 8, in g
    raise ValueError(a)
ValueError: 7
"""

SHOWN = """\x1b[36mray::f()\x1b[39m (pid=12, ip=1.2.3.4)
  File "/home/u/x.py", line 7, in f
    return g(c)
           ^^^^
  File "/home/u/x.py", line 8, in g
    raise ValueError(a)
ValueError: 7"""


def task_error(cause, text=TRACEBACK):
    return e.RayTaskError("f", text, cause, "ray::f", 12, "1.2.3.4")


def test_text():
    assert str(task_error(ValueError(7))) == SHOWN
    assert str(task_error(ValueError(7)).as_instanceof_cause()) == SHOWN


def test_text_of_an_actor():
    text = str(e.RayTaskError("f", TRACEBACK, ValueError(7), "ray::A.f", 12, "1.2.3.4", "REPR", "ab"))
    assert text.splitlines()[0] == "\x1b[36mray::A.f()\x1b[39m (pid=12, ip=1.2.3.4, actor_id=ab, repr=REPR)"


def test_text_of_several_tracebacks():
    text = TRACEBACK + "\nDuring handling of the above exception, another exception occurred:\n\n" + TRACEBACK
    shown = SHOWN + "\n\nDuring handling of the above exception, another exception occurred:\n\n" + SHOWN
    assert str(task_error(ValueError(7), text)) == shown


def test_text_of_a_failed_dependency():
    text = (
        "\x1b[36mray::f()\x1b[39m (pid=1, ip=1.1.1.1)\n"
        "  At least one of the input arguments for this task could not be computed:\n"
        f"ray.exceptions.RayTaskError: {SHOWN}"
    )
    assert str(task_error(ValueError(7), text)) == text


def test_dual_class():
    error = task_error(ZeroDivisionError("by zero"))
    dual = error.as_instanceof_cause()
    assert isinstance(dual, e.RayTaskError) and isinstance(dual, ZeroDivisionError) and isinstance(dual, e.RayError)
    assert type(dual).__name__ == type(dual).__qualname__ == "RayTaskError(ZeroDivisionError)"
    assert type(dual).__module__ == "ray.exceptions"
    assert dual.args == (dual.cause,) and dual.cause is error.cause
    assert repr(dual) == "RayTaskError(ZeroDivisionError)(ZeroDivisionError('by zero'))"
    with pytest.raises(ZeroDivisionError):
        raise dual
    last = traceback.format_exception_only(type(dual), dual)[0]
    assert last.startswith("ray.exceptions.RayTaskError(ZeroDivisionError): \x1b[36mray::f()")


class Picky(Exception):
    def __new__(cls, a, b):
        return super().__new__(cls)

    def __init__(self, a, b):
        self.a, self.b = a, b

    def method(self):
        return self.a + self.b


def test_attributes_of_the_cause():
    dual = task_error(Picky(1, 2)).as_instanceof_cause()
    assert (dual.a, dual.b, dual.method()) == (1, 2, 3)
    assert dual.function_name == "f" and dual.pid == 12 and dual.ip == "1.2.3.4"
    with pytest.raises(AttributeError):
        dual.nothing  # noqa: B018


def test_fields_that_live_outside_the_dict():
    assert task_error(OSError(2, "gone", "x")).as_instanceof_cause().errno == 2
    assert isinstance(task_error(OSError(2, "gone")).as_instanceof_cause(), FileNotFoundError)
    assert task_error(UnicodeDecodeError("utf8", b"x", 0, 1, "r")).as_instanceof_cause().reason == "r"
    assert task_error(StopIteration(5)).as_instanceof_cause().value == 5
    assert task_error(SystemExit(3)).as_instanceof_cause().code == 3


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with 3.11")
def test_exception_group():
    group = ExceptionGroup("g", [ValueError(1), KeyError(2)])  # noqa: F821
    dual = task_error(group).as_instanceof_cause()
    assert isinstance(dual, ExceptionGroup)  # noqa: F821
    assert dual.exceptions == group.exceptions and dual.message == "g"
    assert dual.args == (group,)
    match, rest = dual.split(ValueError)
    assert len(match.exceptions) == len(rest.exceptions) == 1
    assert pickle.loads(pickle.dumps(dual)).message == "g"


class Final(Exception):
    def __init_subclass__(cls, **kwargs):
        raise TypeError("no subclass")


def test_cause_that_cant_be_subclassed(caplog):
    error = task_error(Final(1))
    ray_logger_propagates(caplog)
    with caplog.at_level("WARNING", logger="ray"):
        dual = error.as_instanceof_cause()
    assert dual is error and isinstance(dual.cause, Final)
    assert "can't be subclassed" in caplog.text
    assert task_error(dual).cause is dual.cause  # as it passes through another task


def ray_logger_propagates(caplog):
    import logging

    logging.getLogger("ray").addHandler(caplog.handler)


class Locked(Exception):
    def __init__(self):
        self.lock = threading.Lock()


def test_cause_that_cant_be_pickled():
    error = task_error(Locked())
    assert type(error.cause) is e.RayError
    assert "Locked isn't serializable: cannot pickle" in str(error.cause)
    assert "Original exception details:\nTraceback" in str(error.cause)
    assert error.as_instanceof_cause() is error


def test_flattened():
    dual = task_error(KeyError("a")).as_instanceof_cause()
    again = task_error(dual).as_instanceof_cause()
    assert again.cause is dual.cause and isinstance(again, KeyError)
    assert not isinstance(again.cause, e.RayTaskError)


@pytest.mark.parametrize("dual", [False, True])
def test_pickled(dual):
    error = task_error(Picky(1, 2))
    if dual:
        error = error.as_instanceof_cause()
    # Picky's own __new__ takes arguments that pickle does not give it
    error.cause.__class__.__reduce__ = lambda self: (Picky, (self.a, self.b))
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == SHOWN and again.cause.b == 2
    assert type(again).__name__ == type(error).__name__


def test_bytes():
    error = e.RayError.from_bytes(task_error(ValueError(7)).to_bytes())
    assert type(error) is e.RayTaskError and str(error) == SHOWN and error.cause.args == (7,)
    assert isinstance(e.RayError.from_bytes(e.WorkerCrashedError("why").to_bytes()), e.WorkerCrashedError)


class Unloadable(Exception):
    def __init__(self, a):
        super().__init__(a, "more")

    def __reduce__(self):
        return Unloadable, (1, 2, 3)


def test_error_that_cant_be_rebuilt():
    error = e.RayError.from_bytes(task_error(Unloadable(1)).to_bytes())
    assert type(error) is e.UnserializableException
    text = str(error)
    assert text.startswith("Failed to deserialize exception. Refer to https://docs.ray.io/")
    assert "\nOriginal exception:\n\x1b[36mray::f()" in text


MAKERS = [
    (
        e.WorkerCrashedError(),
        "The worker died unexpectedly while executing this task. Check python-core-worker-*.log files",
    ),
    (
        e.WorkerCrashedError("killed by SIGKILL"),
        "The worker died unexpectedly while executing this task. killed by SIGKILL",
    ),
    (e.LocalRayletDiedError(), "The task's local raylet died. Check raylet.out for more information."),
    (e.TaskCancelledError(), ""),
    (e.TaskCancelledError(ray.TaskID.nil()), f"Task: TaskID({'ff' * 24}) was cancelled. "),
    (e.TaskCancelledError(ray.TaskID.nil(), "why"), f"Task: TaskID({'ff' * 24}) was cancelled. why"),
    (e.RayActorError(), "The actor experienced an error before finishing this task."),
    (e.RayActorError(actor_id="ab", error_msg="zz"), "zz"),
    (e.ActorDiedError(), "The actor died unexpectedly before finishing this task."),
    (
        e.ActorDiedError(task_error(ValueError(7))),
        "The actor died because of an error raised in its creation task, " + SHOWN,
    ),
    (
        e.ActorUnavailableError("msg", b"\1" * 16),
        f"The actor {'01' * 16} is unavailable: msg. The task may or may not have been executed on the actor.",
    ),
    (e.RaySystemError("msg"), "System error: msg"),
    (e.RaySystemError("msg", "tb"), "System error: msg\ntraceback: tb"),
    (
        e.ObjectStoreFullError("x"),
        "x\nThe local object store is full of objects that are still in scope and cannot be evicted.",
    ),
    (e.OutOfDiskError("x"), "x\nThe object cannot be created because the local object store is full"),
    (e.OutOfMemoryError("x"), "x"),
    (e.NodeDiedError("x"), "x"),
    (e.RuntimeEnvSetupError(), "Failed to set up runtime environment."),
    (e.RuntimeEnvSetupError("x"), "Failed to set up runtime environment.\nx"),
    (e.TaskPlacementGroupRemoved(), "The placement group corresponding to this task has been removed."),
    (e.ActorPlacementGroupRemoved(), "The placement group corresponding to this Actor has been removed."),
    (e.TaskUnschedulableError("x"), "The task is not schedulable: x"),
    (e.ActorUnschedulableError("x"), "The actor is not schedulable: x"),
    (e.ObjectLostError("ab", None, ""), "Failed to retrieve object ab."),
    (e.ObjectLostError("ab", None, "here"), "Failed to retrieve object ab. The ObjectRef was created at: here"),
    (e.OwnerDiedError("ab", None, ""), "Failed to retrieve object ab."),
    (e.ObjectReconstructionFailedError("ab", 12, "why"), "Failed to retrieve object ab."),
    (e.RpcError("m", 5), "m"),
    (e.GetTimeoutError("x"), "x"),
    (e.ActorAlreadyExistsError("x"), "x"),
    (e.ActorHandleNotFoundError("x"), "x"),
    (e.UserCodeException("x"), "x"),
]


@pytest.mark.parametrize("error,text", MAKERS, ids=[f"{i}-{type(m[0]).__name__}" for i, m in enumerate(MAKERS)])
def test_texts(error, text):
    assert str(error).startswith(text)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error)
    assert {k: str(v) for k, v in vars(again).items()} == {k: str(v) for k, v in vars(error).items()}
    assert isinstance(error, e.RayError)


def test_reconstruction_reasons():
    assert "[OBJECT_UNRECONSTRUCTABLE_MAX_ATTEMPTS_EXCEEDED] why" in str(
        e.ObjectReconstructionFailedError("ab", 12, "why")
    )
    assert "[OBJECT_UNRECONSTRUCTABLE_PUT] The object cannot be reconstructed because" in str(
        e.ObjectReconstructionFailedError("ab", 27)
    )
    assert "[UNKNOWN]" in str(e.ObjectReconstructionFailedError("ab"))


@pytest.mark.parametrize(
    "cls,base",
    [
        (e.GetTimeoutError, TimeoutError),
        (e.ReferenceCountingAssertionError, AssertionError),
        (e.ActorAlreadyExistsError, ValueError),
        (e.RayChannelTimeoutError, TimeoutError),
        (e.RayChannelError, e.RaySystemError),
        (e.ObjectFreedError, e.ObjectLostError),
        (e.ActorDiedError, e.RayActorError),
    ],
)
def test_bases(cls, base):
    assert issubclass(cls, base) and issubclass(cls, e.RayError)


def test_dead_actor_is_described():
    error = e.ActorDiedError(
        {
            "error_message": "It was killed.",
            "actor_id": b"\1" * 16,
            "class_name": "A",
            "pid": 5,
            "ray_namespace": "n",
            "never_started": True,
        }
    )
    lines = str(error).splitlines()
    assert lines[0] == "The actor died unexpectedly before finishing this task."
    assert lines[1:5] == ["\tclass_name: A", f"\tactor_id: {'01' * 16}", "\tpid: 5", "\tnamespace: n"]
    assert lines[5] == "It was killed." and "never ran" in lines[6]
    assert error.actor_id == "01" * 16 and not error.actor_init_failed


@pytest.mark.parametrize(
    "kind,cls",
    [
        ("WORKER_CRASHED", e.WorkerCrashedError),
        ("OBJECT_LOST", e.ObjectLostError),
        ("OWNER_DIED", e.OwnerDiedError),
        ("STORE_FULL", e.ObjectStoreFullError),
        ("CANCELLED", e.TaskCancelledError),
        ("UNSCHEDULABLE", e.TaskUnschedulableError),
        ("OUT_OF_MEMORY", e.OutOfMemoryError),
        ("NODE_DIED", e.NodeDiedError),
        ("RUNTIME_ENV", e.RuntimeEnvSetupError),
        ("SYSTEM", e.RaySystemError),
        ("TASK_GONE", e.RaySystemError),
        ("SOMETHING_NEW", e.RaySystemError),
        ("NOT_IMPLEMENTED", NotImplementedError),
    ],
)
def test_errors_of_daemons(kind, cls):
    error = e.from_daemon({"kind": kind, "error": "the sentence", "object": b"\1" * 28, "task": b"\2" * 24})
    assert type(error) is cls
    assert "the sentence" in str(error)
    if isinstance(error, e.ObjectLostError):
        assert error.object_ref_hex == "01" * 28


def test_authentication_error_says_where_tokens_are():
    text = str(e.AuthenticationError("Token is missing"))
    assert text.startswith("Token is missing. ")
    assert "RAY_AUTH_TOKEN_PATH" in text and "https://docs.ray.io/en/latest/ray-security/token-auth.html" in text


_ARGUMENTS = {
    "TaskCancelledError": (ray.TaskID.nil(), "m"),
    "RayActorError": ("ab", "m", True, True),
    "ActorDiedError": ({"actor_id": b"a" * 16, "error_message": "m", "preempted": True},),
    "ActorUnavailableError": ("m", b"a" * 16),
    "RaySystemError": ("e", "tb"),
    "RayChannelTimeoutError": ("e", "tb"),
    "ObjectReconstructionFailedError": ("ab", 12),
    "RpcError": ("m", 3),
    "RayTaskError": ("f", "tb", ValueError(1), "ray::f", 3, "1.2.3.4"),
    "CrossLanguageError": (types.SimpleNamespace(language="J", formatted_exception_string="x"),),
}


@pytest.mark.parametrize(
    "cls",
    sorted(
        (c for c in vars(e).values() if isinstance(c, type) and issubclass(c, e.RayError)), key=lambda c: c.__name__
    ),
    ids=lambda c: c.__name__,
)
def test_every_error_can_be_pickled(cls):
    error = cls(*_ARGUMENTS.get(cls.__name__, ("m",)))
    for back in (pickle.loads(pickle.dumps(error)), e.RayError.from_bytes(error.to_bytes())):
        assert type(back) is type(error) and str(back) == str(error)
        ours, theirs = (dict(vars(x)) for x in (error, back))
        assert {k: repr(v) for k, v in ours.items()} == {k: repr(v) for k, v in theirs.items()}


def test_a_dual_class_has_two_bases():
    whole = e.RayTaskError("f", "tb", KeyError("k"), "ray::f", 3, "1.2.3.4")
    assert type(whole.as_instanceof_cause()).__bases__ == (e.RayTaskError, KeyError)


def test_a_cause_whose_args_are_a_property():
    class Odd(Exception):
        @property
        def args(self):
            return (1, 2)

    dual = e.RayTaskError("f", "tb", Odd(), "ray::f", 3, "1.2.3.4").as_instanceof_cause()
    assert isinstance(dual, Odd) and dual.args == (1, 2) and dual.cause.args == (1, 2)


def test_the_text_of_a_group_says_where():
    text = "  + Exception Group Traceback (most recent call last):\n  | ExceptionGroup: g (1 sub-exception)\n"
    assert str(e.RayTaskError("f", text, ValueError(), "ray::f", 3, "1.2.3.4")).startswith(
        "\x1b[36mray::f()\x1b[39m (pid=3, ip="
    )
