"""The errors that Ray programs see.

Every error is a :class:`RayError`. What user code raised in a task arrives as a :class:`RayTaskError` that is also an
instance of the original class, so ``except ValueError`` and ``except RayTaskError`` both catch it.
"""

from typing import Mapping, Optional, Union

from ray._ids import ActorID, TaskID
from ray._task_error import RayError, RayTaskError

# What state objects and error codes call the reasons (the numbers are Ray's).
_ERROR_TYPES = {
    0: "WORKER_DIED",
    1: "ACTOR_DIED",
    3: "TASK_EXECUTION_EXCEPTION",
    4: "OBJECT_IN_PLASMA",
    5: "TASK_CANCELLED",
    6: "ACTOR_CREATION_FAILED",
    7: "RUNTIME_ENV_SETUP_FAILED",
    8: "OBJECT_LOST",
    9: "OWNER_DIED",
    10: "OBJECT_DELETED",
    11: "DEPENDENCY_RESOLUTION_FAILED",
    12: "OBJECT_UNRECONSTRUCTABLE_MAX_ATTEMPTS_EXCEEDED",
    13: "OBJECT_UNRECONSTRUCTABLE_LINEAGE_EVICTED",
    14: "OBJECT_FETCH_TIMED_OUT",
    15: "LOCAL_RAYLET_DIED",
    16: "TASK_PLACEMENT_GROUP_REMOVED",
    17: "ACTOR_PLACEMENT_GROUP_REMOVED",
    18: "TASK_UNSCHEDULABLE_ERROR",
    19: "ACTOR_UNSCHEDULABLE_ERROR",
    20: "OUT_OF_DISK_ERROR",
    21: "OBJECT_FREED",
    22: "OUT_OF_MEMORY",
    23: "NODE_DIED",
    24: "END_OF_STREAMING_GENERATOR",
    25: "ACTOR_UNAVAILABLE",
    26: "GENERATOR_TASK_FAILED_FOR_OBJECT_RECONSTRUCTION",
    27: "OBJECT_UNRECONSTRUCTABLE_PUT",
    28: "OBJECT_UNRECONSTRUCTABLE_RETRIES_DISABLED",
    29: "OBJECT_UNRECONSTRUCTABLE_BORROWED",
    30: "OBJECT_UNRECONSTRUCTABLE_REF_NOT_FOUND",
    31: "OBJECT_UNRECONSTRUCTABLE_TASK_CANCELLED",
    32: "OBJECT_UNRECONSTRUCTABLE_LINEAGE_DISABLED",
    33: "WORKER_STARTUP_FAILED",
    34: "STREAMING_GENERATOR_REPLAY_INCONSISTENT",
}

_UNRECONSTRUCTABLE = {
    12: "its task has been run as often as max_retries allows. Raise it with `@ray.remote(max_retries=N)`.",
    13: "its lineage was evicted to keep memory in bounds. Raise RAY_max_lineage_bytes=<bytes> at `ray start`.",
    27: "it was created by ray.put(), which no task can repeat. Return the value from a task instead.",
    28: "its task was created with max_retries=0. Allow retries with `@ray.remote(max_retries=N)`.",
    29: "this process borrowed it, and only its owner can rebuild it.",
    30: "nothing is known any more about its reference.",
    31: "the task that would produce it was cancelled.",
    32: "reconstruction is switched off in this cluster (object_reconstruction_enabled=False).",
}


class CrossLanguageError(RayError):
    """A task in another language failed."""

    def __init__(self, ray_exception):
        super().__init__(
            f"An exception raised from {ray_exception.language}:\n{ray_exception.formatted_exception_string}"
        )

    def __reduce__(self):
        return _cross_language, self.args


def _cross_language(text):
    error = CrossLanguageError.__new__(CrossLanguageError, text)
    error.args = (text,)
    return error


class TaskCancelledError(RayError):
    """The task was cancelled."""

    def __init__(self, task_id: Optional[TaskID] = None, error_message: Optional[str] = None):
        self.task_id = task_id
        self.error_message = error_message

    def __str__(self):
        if self.task_id is None:
            return self.error_message or ""
        return f"Task: {self.task_id} was cancelled. {self.error_message or ''}"


class LocalRayletDiedError(RayError):
    """The node daemon of this machine died while the task ran."""

    def __str__(self):
        return (
            self.args[0]
            if self.args and isinstance(self.args[0], str)
            else ("The task's local raylet died. Check raylet.out for more information.")
        )


class _DaemonGone(LocalRayletDiedError, ConnectionError):
    # What a process is told whose own daemon has gone: Ray's class, and the one that Python has for it.
    def __reduce__(self):
        return daemon_gone, self.args


_DaemonGone.__name__ = _DaemonGone.__qualname__ = LocalRayletDiedError.__name__


def daemon_gone(text: str) -> LocalRayletDiedError:
    """The error of a call whose connection to the node daemon broke: a ``LocalRayletDiedError`` and ``ConnectionError``."""
    return _DaemonGone(text)


class WorkerCrashedError(RayError):
    """The worker process died while it ran the task, and no retry was left."""

    def __str__(self):
        more = self.args[0] if self.args and isinstance(self.args[0], str) else None
        return "The worker died unexpectedly while executing this task. " + (
            more or "Check python-core-worker-*.log files for more information."
        )


class RayActorError(RayError):
    """An actor could not finish a task.

    Attributes:
        actor_id: The actor's id as hexadecimal text, or None.
        error_msg: What happened.
    """

    BASE_ERROR_MSG = "The actor experienced an error before finishing this task."

    def __init__(
        self,
        actor_id: Optional[str] = None,
        error_msg: str = BASE_ERROR_MSG,
        actor_init_failed: bool = False,
        preempted: bool = False,
    ):
        self.actor_id = actor_id
        self.error_msg = error_msg
        self._actor_init_failed = actor_init_failed
        self._preempted = preempted

    def __str__(self):
        return self.error_msg

    def __repr__(self):
        return f"{type(self).__name__}({self.error_msg!r})"

    @property
    def preempted(self) -> bool:
        """Whether the actor died because its node was taken away."""
        return self._preempted

    @property
    def actor_init_failed(self) -> bool:
        """Whether the actor's constructor raised."""
        return self._actor_init_failed


class ActorDiedError(RayActorError):
    """The actor is dead and will not come back.

    Args:
        cause: The error of its constructor, or a map with ``error_message`` and what is known of the actor:
            ``actor_id`` (bytes), ``class_name``, ``pid``, ``name``, ``ray_namespace``, ``node_ip_address``,
            ``never_started``, ``preempted``.
    """

    BASE_ERROR_MSG = "The actor died unexpectedly before finishing this task."

    def __init__(self, cause: Union[RayTaskError, Mapping, None] = None):
        if cause is None:
            super().__init__(None, self.BASE_ERROR_MSG)
            return
        if isinstance(cause, RayTaskError):
            text = f"The actor died because of an error raised in its creation task, {cause}"
            super().__init__(cause._actor_id, text, actor_init_failed=True)
            return
        lines = [self.BASE_ERROR_MSG]
        actor_id = ActorID(cause["actor_id"]).hex() if cause.get("actor_id") else None
        shown = {
            "class_name": cause.get("class_name"),
            "actor_id": actor_id,
            "pid": cause.get("pid"),
            "name": cause.get("name"),
            "namespace": cause.get("ray_namespace"),
            "ip": cause.get("node_ip_address"),
        }
        lines += [f"\t{key}: {value}" for key, value in shown.items() if value]
        lines.append(cause.get("error_message", ""))
        if cause.get("never_started"):
            lines.append("The actor never ran - it was cancelled before it started running.")
        super().__init__(actor_id, "\n".join(lines), preempted=bool(cause.get("preempted")))

    @staticmethod
    def from_task_error(task_error: RayTaskError) -> "ActorDiedError":
        """The error of an actor whose constructor raised ``task_error``."""
        return ActorDiedError(task_error)


class ActorUnavailableError(RayActorError):
    """The actor can't be reached now, but may come back."""

    def __init__(self, error_message: str, actor_id: Optional[bytes]):
        text = ActorID(actor_id).hex() if actor_id is not None else None
        super().__init__(
            text,
            f"The actor {text} is unavailable: {error_message}. "
            "The task may or may not have been executed on the actor.",
        )


class RaySystemError(RayError):
    """Ray itself failed, or was used in a state that does not allow it."""

    def __init__(self, client_exc, traceback_str=None):
        self.client_exc = client_exc
        self.traceback_str = traceback_str

    def __str__(self):
        text = f"System error: {self.client_exc}"
        return f"{text}\ntraceback: {self.traceback_str}" if self.traceback_str else text


class _ClosedSession(RaySystemError, ValueError):
    # What a ref of an earlier session is worth: a ValueError in Ray.
    def __reduce__(self):
        return of_closed_session, (self.client_exc, self.traceback_str)


_ClosedSession.__name__ = _ClosedSession.__qualname__ = RaySystemError.__name__


def of_closed_session(text: str, traceback_str=None) -> RaySystemError:
    """The error of a call with a ref of a session that has ended: a ``RaySystemError`` and ``ValueError``."""
    return _ClosedSession(text, traceback_str)


class AuthenticationError(RayError):
    """The cluster does not accept this process's token."""

    def __init__(self, message: str):
        self.message = message
        super().__init__(message)

    def __str__(self):
        return (
            f"{self.message.rstrip('. ')}. The token is looked for in the environment variable RAY_AUTH_TOKEN, in the "
            "file that RAY_AUTH_TOKEN_PATH names, and in ~/.ray/auth_token; `ray get-auth-token` prints the one of this "
            "machine. For more information, see: https://docs.ray.io/en/latest/ray-security/token-auth.html"
        )


class UserCodeException(RayError):
    """User code raised outside of a task's body, such as in a setup hook."""


class ObjectStoreFullError(RayError):
    """The object store has no room for an object, and nothing that it holds can go."""

    def __str__(self):
        return super().__str__() + (
            "\nThe local object store is full of objects that are still in scope and cannot be evicted. "
            "Tip: Use the `ray memory` command to list active objects in the cluster."
        )


class OutOfDiskError(RayError):
    """The object store is full, and so is the disk."""

    def __str__(self):
        return super().__str__() + (
            "\nThe object cannot be created because the local object store is full and the local disk's utilization is "
            "over capacity (95% by default). Tip: Use `df` on this node to check disk usage and `ray memory` to check "
            "object store memory usage."
        )


class OutOfMemoryError(RayError):
    """The node ran out of memory, and the task was killed to free some."""

    def __init__(self, message):
        self.message = message
        super().__init__(message)

    def __str__(self):
        return self.message


class NodeDiedError(RayError):
    """The node that ran the task died."""

    def __init__(self, message):
        self.message = message
        super().__init__(message)

    def __str__(self):
        return self.message


class ObjectLostError(RayError):
    """All copies of an object are gone, and it can't be rebuilt.

    Attributes:
        object_ref_hex: The object's id.
        owner_address: Who owned it, where that is known.
        call_site: Where its ref was created, where that was recorded.
    """

    def __init__(
        self, object_ref_hex: str, owner_address: Optional[bytes] = None, call_site: str = "", detail: str = ""
    ):
        super().__init__(object_ref_hex, owner_address, call_site)
        self.object_ref_hex = object_ref_hex
        self.owner_address = owner_address
        self.call_site = call_site
        if detail:
            self._detail = detail

    def _base_str(self) -> str:
        text = (
            f"Failed to retrieve object {self.object_ref_hex}."
            if self.object_ref_hex
            else "Failed to retrieve an object."
        )
        if self.call_site:
            text += f" The ObjectRef was created at: {self.call_site}"
        return text

    def _reason(self) -> str:
        return f"All copies of {self.object_ref_hex} have been lost due to node failure."

    def __str__(self):
        return f"{self._base_str()}\n\n{getattr(self, '_detail', None) or self._reason()}"


class ObjectFetchTimedOutError(ObjectLostError):
    """No node that holds the object answered in time."""

    def _reason(self):
        return f"Fetch for object {self.object_ref_hex} timed out because no locations were found for the object."


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    """An object was deleted although it was still referenced: a bug in Gray."""

    def _reason(self):
        return "The object has already been deleted by the reference counting protocol. This should not happen."


class ObjectFreedError(ObjectLostError):
    """The object was freed by hand."""

    def _reason(self):
        return (
            "The object was manually freed using the internal `free` call. "
            "Please ensure that `free` is only called once the object is no longer needed."
        )


class OwnerDiedError(ObjectLostError):
    """The process or daemon that owned the object is gone."""

    def _reason(self):
        return (
            "The object's owner has exited: what first created the ObjectRef via `.remote()` or `ray.put()`, or the "
            "node daemon that kept its record."
        )


class ObjectReconstructionFailedError(ObjectLostError):
    """The object was lost, and running its task again is not possible.

    Attributes:
        reason: Ray's number of the reason, or None.
        reason_message: The reason in words.
    """

    def __init__(
        self,
        object_ref_hex: str,
        reason: Optional[int] = None,
        reason_message: Optional[str] = None,
        owner_address: Optional[bytes] = None,
        call_site: str = "",
    ):
        super().__init__(object_ref_hex, owner_address, call_site)
        self.args = (object_ref_hex, reason, reason_message, owner_address, call_site)
        self.reason = reason
        if reason_message is None:
            why = _UNRECONSTRUCTABLE.get(reason) if reason is not None else None
            reason_message = f"The object cannot be reconstructed because {why}" if why else "Unknown error reason."
        self.reason_message = reason_message

    def _reason(self):
        name = _ERROR_TYPES.get(self.reason, "UNKNOWN") if self.reason is not None else "UNKNOWN"
        return f"[{name}] {self.reason_message}"


class GetTimeoutError(RayError, TimeoutError):
    """Not all objects were ready in time.

    Attributes:
        waiting: For each ref that is not ready, why; empty where that is not known, as in a copy of the error from another
            process.
    """

    waiting: Mapping = {}

    def __reduce__(self):
        return type(self), self.args


class PlasmaObjectNotAvailable(RayError):
    """The object is not in this node's store."""


class AsyncioActorExit(RayError):
    """Raised inside an async actor to end it."""


class RuntimeEnvSetupError(RayError):
    """A runtime environment could not be set up."""

    def __init__(self, error_message: Optional[str] = None):
        super().__init__(error_message)
        self.error_message = error_message

    def __str__(self):
        text = "Failed to set up runtime environment."
        return f"{text}\n{self.error_message}" if self.error_message else text


class TaskPlacementGroupRemoved(RayError):
    """The placement group of the task was removed."""

    def __str__(self):
        return "The placement group corresponding to this task has been removed."


class ActorPlacementGroupRemoved(RayError):
    """The placement group of the actor was removed."""

    def __str__(self):
        return "The placement group corresponding to this Actor has been removed."


class PendingCallsLimitExceeded(RayError):
    """More calls are unfinished than max_pending_calls of the actor allows."""


class TaskUnschedulableError(RayError):
    """No node can run the task, and none ever will."""

    def __init__(self, error_message: str):
        super().__init__(error_message)
        self.error_message = error_message

    def __str__(self):
        return f"The task is not schedulable: {self.error_message}"


class ActorUnschedulableError(RayError):
    """No node can run the actor, and none ever will."""

    def __init__(self, error_message: str):
        super().__init__(error_message)
        self.error_message = error_message

    def __str__(self):
        return f"The actor is not schedulable: {self.error_message}"


class ObjectRefStreamEndOfStreamError(RayError):
    """A generator has no more items."""


class OufOfBandObjectRefSerializationException(RayError):
    """An ObjectRef was pickled outside of Ray's serializer, and that is not allowed here."""


class RpcError(RayError):
    """A call between parts of the cluster failed.

    Attributes:
        message: What failed.
        rpc_code: The status code of the transport, or None.
    """

    def __init__(self, message, rpc_code=None):
        self.message = message
        self.rpc_code = rpc_code

    def __str__(self):
        return self.message


class RayChannelError(RaySystemError):
    """A channel of a compiled graph failed."""


class RayChannelTimeoutError(RayChannelError, TimeoutError):
    """A channel of a compiled graph did not answer in time."""

    def __reduce__(self):  # that of OSError forgets the arguments of an __init__ of one's own
        return type(self), (self.client_exc, self.traceback_str)


class RayCgraphCapacityExceeded(RaySystemError):
    """A compiled graph has as many executions in flight as it may."""


class RayDirectTransportError(RaySystemError):
    """A direct transfer of tensors failed."""


class StreamingGeneratorReplayInconsistentError(RaySystemError):
    """A generator that was run again did not yield what it had yielded before."""


class UnserializableException(RayError):
    """The exception that a task raised can't be rebuilt in this process; its text is kept."""

    def __init__(self, original_stack_trace: str):
        super().__init__(original_stack_trace)
        self._original_stack_trace = original_stack_trace

    def __str__(self):
        return (
            "Failed to deserialize exception. Refer to https://docs.ray.io/en/latest/ray-core/objects/"
            "serialization.html#custom-serializers-for-exceptions for more information.\n"
            f"Original exception:\n{self._original_stack_trace}"
        )


class ActorAlreadyExistsError(ValueError, RayError):
    """An actor of that name lives already in the namespace."""

    def __init__(self, error_message: str):
        super().__init__(error_message)
        self.error_message = error_message

    def __str__(self):
        return self.error_message


class ActorHandleNotFoundError(ValueError, RayError):
    """The actor handle belongs to another session."""

    def __init__(self, error_message: str):
        super().__init__(error_message)
        self.error_message = error_message

    def __str__(self):
        return self.error_message


def from_daemon(fields: Mapping) -> Exception:
    """Make the error that a daemon describes.

    Args:
        fields: ``kind`` (docs/protocol.md lists them), ``error`` (a sentence), and where they are known ``task``
            (24 bytes), ``object`` (28 bytes), ``name`` and ``call_site``.

    Returns:
        An instance of Ray's class for that kind.
    """
    kind, text = fields.get("kind"), str(fields.get("error", ""))
    object_hex = fields["object"].hex() if isinstance(fields.get("object"), bytes) else str(fields.get("object", ""))
    if kind in ("OBJECT_LOST", "OWNER_DIED"):
        lost = ObjectLostError if kind == "OBJECT_LOST" else OwnerDiedError
        return lost(object_hex, None, str(fields.get("call_site", "")), detail=text)
    if kind == "CANCELLED":
        task = fields.get("task")
        return TaskCancelledError(TaskID(task) if isinstance(task, bytes) else None, text)
    if kind == "NOT_IMPLEMENTED":
        return NotImplementedError(text)
    if kind == "ACTOR_DIED":
        return _actor_died(fields, text)
    if kind == "ACTOR_UNAVAILABLE":
        return ActorUnavailableError(text.rstrip("."), fields.get("actor_id"))
    if kind == "NOT_FOUND":
        return ValueError(text)
    if kind == "UNSCHEDULABLE" and fields.get("actor_id"):
        return ActorUnschedulableError(text)
    simple = {
        "WORKER_CRASHED": WorkerCrashedError,
        "STORE_FULL": ObjectStoreFullError,
        "UNSCHEDULABLE": TaskUnschedulableError,
        "OUT_OF_MEMORY": OutOfMemoryError,
        "NODE_DIED": NodeDiedError,
        "RUNTIME_ENV": RuntimeEnvSetupError,
        "NAME_TAKEN": ActorAlreadyExistsError,
        "PENDING_LIMIT": PendingCallsLimitExceeded,
    }.get(str(kind))
    if simple is not None:
        return simple(text)
    return RaySystemError(text or f"a daemon reported an error of kind {kind}")


def _actor_died(fields: Mapping, text: str) -> ActorDiedError:
    pickled = fields.get("pickled")
    if pickled:
        error = RayError.from_bytes(bytes(pickled))
        if isinstance(error, RayTaskError):
            return ActorDiedError(error)
    if fields.get("init_failed"):
        died = ActorDiedError()
        actor_id = ActorID(fields["actor_id"]).hex() if fields.get("actor_id") else None
        RayActorError.__init__(
            died,
            actor_id,
            f"The actor died because of an error raised in its creation task, {text}",
            actor_init_failed=True,
        )
        return died
    return ActorDiedError({**fields, "error_message": text})


RAY_EXCEPTION_TYPES = [
    PlasmaObjectNotAvailable,
    RayError,
    RayTaskError,
    WorkerCrashedError,
    RayActorError,
    ObjectStoreFullError,
    ObjectLostError,
    ObjectFetchTimedOutError,
    ReferenceCountingAssertionError,
    ObjectReconstructionFailedError,
    OwnerDiedError,
    GetTimeoutError,
    AsyncioActorExit,
    RuntimeEnvSetupError,
    TaskPlacementGroupRemoved,
    ActorPlacementGroupRemoved,
    PendingCallsLimitExceeded,
    LocalRayletDiedError,
    TaskUnschedulableError,
    ActorDiedError,
    ActorUnschedulableError,
    ActorUnavailableError,
    RayChannelError,
    RayChannelTimeoutError,
    OufOfBandObjectRefSerializationException,
    RayCgraphCapacityExceeded,
    UnserializableException,
    ActorAlreadyExistsError,
    ActorHandleNotFoundError,
    AuthenticationError,
]
