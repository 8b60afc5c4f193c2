"""What runs in a worker, and what may keep it from running."""

OURS = set()  # files whose frames stand above those of user code


class Task:
    """A running task.

    Attributes:
        task_id: 24 bytes.
        name: What the task is called in lists and titles.
        qualname: ``module.qualname`` of the function.
        attempt: 0 for the first.
        resources: Amounts it holds.
        cancelled: Whether somebody does not want it any more.
    """

    __slots__ = ("attempt", "cancelled", "name", "qualname", "resources", "task_id")

    def __init__(self, task_id, name, qualname, attempt, resources):
        self.task_id = task_id
        self.name = name
        self.qualname = qualname
        self.attempt = attempt
        self.resources = resources
        self.cancelled = False


class DependencyFailed(Exception):
    """An argument could not be computed."""

    def __init__(self, cause):
        self.cause = cause


class FunctionMissing(Exception):
    """The body could not be loaded."""
