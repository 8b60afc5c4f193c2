"""Identifiers: fixed-size byte strings, one class for each kind.

Sizes and text forms are Ray's. An id equals only an id of its own class with the same bytes; all bits set is *nil*.
"""

import os

__all__ = [
    "ActorClassID",
    "ActorID",
    "BaseID",
    "ClusterID",
    "FunctionID",
    "JobID",
    "NodeID",
    "PlacementGroupID",
    "TaskID",
    "UniqueID",
    "WorkerID",
]


class BaseID:
    """An immutable identifier of ``size()`` bytes."""

    __slots__ = ("_bytes", "__weakref__")
    _size = 28

    def __init__(self, id_bytes: bytes = b""):
        self._bytes = self._checked(id_bytes)

    @classmethod
    def _checked(cls, id_bytes) -> bytes:
        if not isinstance(id_bytes, bytes):
            raise TypeError(f"Unsupported type: {type(id_bytes)}, expected bytes")
        if len(id_bytes) != cls._size:
            raise ValueError(f"ID string needs to have length {cls._size}, got {len(id_bytes)}")
        return id_bytes

    @classmethod
    def from_binary(cls, id_bytes: bytes):
        """Make an id from its bytes.

        Raises:
            TypeError: ``id_bytes`` is not bytes.
            ValueError: It has another length than ``size()``.
        """
        return cls(id_bytes)

    @classmethod
    def from_hex(cls, hex_id):
        """Make an id from its hexadecimal text (str or ASCII bytes).

        Raises:
            ValueError: The text is not hexadecimal, or has another length than ``2 * size()``.
        """
        text = hex_id.decode("ascii") if isinstance(hex_id, bytes) else hex_id
        return cls(bytes.fromhex(text))

    @classmethod
    def from_random(cls):
        """Make an id of random bytes."""
        return cls(os.urandom(cls._size))

    @classmethod
    def nil(cls):
        """The id that stands for nothing: all bits set."""
        return cls(b"\xff" * cls._size)

    @classmethod
    def size(cls) -> int:
        """Number of bytes of every id of this class."""
        return cls._size

    def binary(self) -> bytes:
        """The id's bytes."""
        return self._bytes

    def hex(self) -> str:
        """The id's bytes as lower-case hexadecimal text."""
        return self._bytes.hex()

    def is_nil(self) -> bool:
        """Whether this is the nil id."""
        return self._bytes == b"\xff" * self._size

    def __eq__(self, other):
        return type(self) is type(other) and self._bytes == other._bytes

    def __ne__(self, other):
        return not self == other

    def __lt__(self, other):
        if type(self) is not type(other):
            return NotImplemented
        return self._bytes < other._bytes

    def __hash__(self):
        return hash(self._bytes)

    def __bytes__(self):
        return self._bytes

    def __repr__(self):
        return f"{type(self).__name__}({self._bytes.hex()})"

    __str__ = __repr__

    def __reduce__(self):
        return type(self), (self._bytes,)


class UniqueID(BaseID):
    """28 bytes with no inner structure."""

    __slots__ = ()


class NodeID(UniqueID):
    """A node daemon, from its start to its end."""

    __slots__ = ()


class WorkerID(UniqueID):
    """A worker process; a driver's begins with its job id, the rest is all ones."""

    __slots__ = ()

    @classmethod
    def _for_driver(cls, job_id: "JobID") -> "WorkerID":
        return cls(job_id.binary() + b"\xff" * 24)


class FunctionID(UniqueID):
    """A remote function's body."""

    __slots__ = ()


class ActorClassID(UniqueID):
    """An actor class's body."""

    __slots__ = ()


class ClusterID(UniqueID):
    """A cluster, from the first start of its head."""

    __slots__ = ()


class JobID(BaseID):
    """A driver's job: 4 bytes, a little-endian number that grows from 1."""

    __slots__ = ()
    _size = 4

    @classmethod
    def from_int(cls, value: int) -> "JobID":
        """Make the id of job number ``value`` (0 to 4294967295)."""
        if not 0 <= value < 1 << 32:
            raise ValueError(f"JobID: a job number lies between 0 and 4294967295, got {value}")
        return cls(value.to_bytes(4, "little"))

    def int(self) -> int:
        """The job's number."""
        return _int.from_bytes(self._bytes, "little")


_int = int


class ActorID(BaseID):
    """An actor: 12 unique bytes and the job id."""

    __slots__ = ()
    _size = 16

    @classmethod
    def of(cls, job_id: JobID, parent_task_id: "TaskID", parent_task_counter: _int) -> "ActorID":
        """The id of the ``parent_task_counter``-th actor that a task makes."""
        return cls(_digest(parent_task_id.binary(), parent_task_counter)[:12] + job_id.binary())

    @property
    def job_id(self) -> JobID:
        """The job that the actor belongs to."""
        return JobID(self._bytes[-4:])


class TaskID(BaseID):
    """A task: 8 unique bytes and the id of its actor (of a plain task: all ones and the job id)."""

    __slots__ = ()
    _size = 24

    def job_id(self) -> JobID:
        """The job that the task belongs to."""
        return JobID(self._bytes[-4:])

    def actor_id(self) -> ActorID:
        """The actor that runs the task; for a plain task an id of ones and the job id."""
        return ActorID(self._bytes[8:])

    @classmethod
    def for_driver_task(cls, job_id: JobID) -> "TaskID":
        """The id of the driver itself, taken as a task."""
        return cls(b"\xff" * 20 + job_id.binary())

    @classmethod
    def for_fake_task(cls, job_id: JobID) -> "TaskID":
        """A random id that belongs to no task that runs."""
        return cls(os.urandom(8) + b"\xff" * 12 + job_id.binary())

    @classmethod
    def for_normal_task(cls, job_id: JobID, parent_task_id: "TaskID", parent_task_counter: _int) -> "TaskID":
        """The id of the ``parent_task_counter``-th plain task of a parent."""
        return cls(_digest(parent_task_id.binary(), parent_task_counter)[:8] + b"\xff" * 12 + job_id.binary())

    @classmethod
    def for_actor_creation_task(cls, actor_id: ActorID) -> "TaskID":
        """The id of the task that runs an actor's constructor."""
        return cls(b"\xff" * 8 + actor_id.binary())

    @classmethod
    def for_actor_task(
        cls, job_id: JobID, parent_task_id: "TaskID", parent_task_counter: _int, actor_id: ActorID
    ) -> "TaskID":
        """The id of the ``parent_task_counter``-th method call that a parent makes, on ``actor_id``."""
        return cls(_digest(parent_task_id.binary(), parent_task_counter)[:8] + actor_id.binary())


class PlacementGroupID(BaseID):
    """A placement group: 14 unique bytes and the job id."""

    __slots__ = ()
    _size = 18

    @classmethod
    def of(cls, job_id: JobID) -> "PlacementGroupID":
        """A new id that belongs to a job."""
        return cls(os.urandom(14) + job_id.binary())


def _digest(parent: bytes, counter: _int) -> bytes:
    import hashlib

    return hashlib.sha256(parent + counter.to_bytes(8, "little")).digest()
