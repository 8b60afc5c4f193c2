"""Job submission: the names. Submitting one is not there yet."""

from enum import Enum

from ray._missing import missing

__all__ = ["JobStatus", "JobSubmissionClient"]


class JobStatus(str, Enum):
    """The states of a submitted job."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    def __str__(self) -> str:
        return str(self.value)

    def is_terminal(self) -> bool:
        """Whether a job in this state has ended."""
        return self.value in {"STOPPED", "SUCCEEDED", "FAILED"}


class JobSubmissionClient:
    """Submits jobs. Not there yet."""

    def __init__(self, *args, **kwargs):
        raise missing("job submission (ray.job_submission)")
