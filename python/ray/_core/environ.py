"""What a runtime environment changes in a worker, before its first task."""

import os
import sys
from typing import Optional

from ray._core.state import state

_OURS = (os.path.dirname(__file__) + os.sep, "<frozen importlib")


def enter(job: dict, fields: dict, variables: dict) -> None:
    """Set the working directory and the paths of modules.

    Args:
        job: What the driver said of its job.
        fields: The SETUP, with the folders of the environment's packages on this node.
        variables: The environment's own variables, which are set already.
    """
    folder = fields.get("working_dir")
    packages = [*(fields.get("py_modules") or ()), *([folder] if folder else ())]
    if folder:
        os.chdir(folder)
    elif job.get("cwd"):
        try:
            os.chdir(job["cwd"])
        except OSError:
            pass  # the driver's folder need not exist on this machine
    own = (
        [os.path.abspath(p) for p in os.environ["PYTHONPATH"].split(os.pathsep) if p]
        if "PYTHONPATH" in variables
        else []
    )
    wanted = [*(job.get("sys_path") or ()), *packages, *own]
    for entry in reversed(wanted):
        if entry not in sys.path:
            sys.path.insert(0, entry)
    if packages:  # programs that a task starts find the modules, too
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([*packages, *([before] if before else ())])


def run_hook(job: dict, runtime_env: dict) -> None:
    """Run the worker_process_setup_hook. What it raises ends the worker."""
    name = runtime_env["worker_process_setup_hook"]
    if job.get("hook") and (job.get("runtime_env") or {}).get("worker_process_setup_hook") == name:
        import pickle

        hook = pickle.loads(job["hook"])
    else:
        from importlib import import_module

        module, _, function = name.rpartition(".")
        if not module:
            raise ValueError(f"worker_process_setup_hook={name!r} is not the name of a function: module.function")
        hook = getattr(import_module(module), function)
    hook()


def unfit(error: BaseException, runtime_env: dict):
    """What a worker that could not be set up does with its first task: it dies, so that this counts as an attempt."""
    import traceback

    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(_OURS):
        tb = tb.tb_next
    what = runtime_env.get("worker_process_setup_hook")
    text = f"Failed to execute the setup hook method, {what}:" if what else "The runtime environment cannot be entered:"
    text += "\n" + "".join(traceback.format_exception(type(error), error, tb)) + advice(error)

    def execute(buf, at, end):
        sys.stderr.write(text + "\n")
        sys.exit(1)

    return execute


def advice(error: Optional[BaseException]) -> str:
    """What to do about a module that is not there, as lines after the traceback; "" for other errors."""
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__
    if error is None or not error.name:
        return ""
    job = state.job or {}
    folder = next(iter(job.get("sys_path") or ()), ".")
    if folder == job.get("cwd"):
        folder = "."
    text = f"\n{error.name!r} is not installed on node {state.node_ip}"
    if not (state.runtime_env or {}).get("working_dir"):
        text += (
            ". If it lies beside the driver's script, have all nodes get that folder: "
            f"ray.init(runtime_env={{'working_dir': {folder!r}}})."
        )
    else:
        text += ", and the working_dir of the runtime environment does not hold it either."
        if folder != ".":
            text += f" If it lies beside the driver's script, that folder is {folder!r}."
    return text + " If it is a package, install it on every node, or take an image that has it."
