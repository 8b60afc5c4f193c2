"""What this process is to the cluster: one State object, filled by connecting and emptied by disconnecting."""

SCRIPT_MODE = 0
WORKER_MODE = 1


class State:
    """The process's connection and identity. Fields are None while not connected."""

    __slots__ = (
        "accelerators",
        "actor",
        "client",
        "context",
        "dashboard_url",
        "driver_task",
        "forked",
        "gcs_address",
        "job",
        "job_id",
        "mode",
        "namespace",
        "node_id",
        "node_ip",
        "resources",
        "runtime_env",
        "session_dir",
        "session_name",
        "task",
        "worker_id",
    )

    def __init__(self):
        self.forked = False
        self.clear()

    def clear(self):
        """Forget the connection."""
        for name in State.__slots__:
            if name != "forked":
                setattr(self, name, None)

    def suspend(self) -> dict:
        """Forget the connection, and give what resume() makes it known again from."""
        kept = {name: getattr(self, name) for name in State.__slots__ if name != "forked"}
        self.clear()
        return kept

    def resume(self, kept: dict):
        """Take a suspended connection up again."""
        for name, value in kept.items():
            setattr(self, name, value)

    def fill(self, mode, client, welcome: dict, job: dict):
        """Take over what WELCOME or SETUP says."""
        for name in (
            "job_id node_id worker_id driver_task node_ip gcs_address session_dir session_name namespace dashboard_url"
        ).split():
            setattr(self, name, welcome.get(name))
        self.runtime_env = welcome.get("runtime_env") or job.get("runtime_env") or {}
        self.accelerators = welcome.get("accelerators") or {}
        self.resources = welcome.get("resources") or {}
        self.job = job
        self.mode = mode
        self.client = client


state = State()


def connected():
    """The client of this process.

    Raises:
        RaySystemError: There is none.
    """
    client = state.client
    if client is None:
        from ray import exceptions

        if state.forked:
            raise exceptions.RaySystemError(
                "This process was forked from one that is connected to Ray, and a connection cannot be shared. Call "
                "ray.init() here, or start processes with the multiprocessing method 'spawn'."
            )
        raise exceptions.RaySystemError("Ray has not been started yet. You can start Ray with 'ray.init()'.")
    return client


def current_task():
    """The task that the caller runs in, or None."""
    task = state.task
    if task is None and state.context is not None:
        return state.context.get(None)  # an actor that runs several calls at once
    return task
