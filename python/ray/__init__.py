"""Gray: remote functions, actors and immutable objects in shared memory, behind Ray's interface.

    import ray

    @ray.remote
    def square(x):
        return x * x

    print(ray.get([square.remote(i) for i in range(4)]))

Names are imported on use, so that ``import ray`` itself costs next to nothing.
"""

from ray._version import version as __version__

TYPE_CHECKING = False  # typing's own costs more to import than all of this module
if TYPE_CHECKING:
    from ray import actor as actor
    from ray import cloudpickle as cloudpickle
    from ray import exceptions as exceptions
    from ray import util as util
    from ray._api import SCRIPT_MODE as SCRIPT_MODE
    from ray._api import WORKER_MODE as WORKER_MODE
    from ray._api import Language as Language
    from ray._api import available_resources as available_resources
    from ray._api import cancel as cancel
    from ray._api import client as client
    from ray._api import cluster_resources as cluster_resources
    from ray._api import cpp_function as cpp_function
    from ray._api import get as get
    from ray._api import get_actor as get_actor
    from ray._api import get_gpu_ids as get_gpu_ids
    from ray._api import is_initialized as is_initialized
    from ray._api import java_actor_class as java_actor_class
    from ray._api import java_function as java_function
    from ray._api import kill as kill
    from ray._api import nodes as nodes
    from ray._api import put as put
    from ray._api import timeline as timeline
    from ray._api import wait as wait
    from ray._core import ObjectRef as ObjectRef
    from ray._decorator import remote as remote
    from ray._generators import DynamicObjectRefGenerator as DynamicObjectRefGenerator
    from ray._generators import ObjectRefGenerator as ObjectRefGenerator
    from ray._ids import ActorClassID as ActorClassID
    from ray._ids import ActorID as ActorID
    from ray._ids import ClusterID as ClusterID
    from ray._ids import FunctionID as FunctionID
    from ray._ids import JobID as JobID
    from ray._ids import NodeID as NodeID
    from ray._ids import PlacementGroupID as PlacementGroupID
    from ray._ids import TaskID as TaskID
    from ray._ids import UniqueID as UniqueID
    from ray._ids import WorkerID as WorkerID
    from ray._init import init as init
    from ray._init import shutdown as shutdown
    from ray._logging import LoggingConfig as LoggingConfig
    from ray.actor import method as method
    from ray.client_builder import ClientBuilder as ClientBuilder
    from ray.runtime_context import get_runtime_context as get_runtime_context

    ObjectID = ObjectRef

# name -> (module, its name there)
_WHERE = {
    name: (module, name)
    for module, names in {
        "ray._api": "Language SCRIPT_MODE WORKER_MODE available_resources cancel client cluster_resources cpp_function "
        "get get_actor get_gpu_ids is_initialized java_actor_class java_function kill nodes put timeline wait",
        "ray._core": "ObjectRef",
        "ray._decorator": "remote",
        "ray._generators": "DynamicObjectRefGenerator ObjectRefGenerator",
        "ray._ids": "ActorClassID ActorID ClusterID FunctionID JobID NodeID PlacementGroupID TaskID UniqueID WorkerID",
        "ray._init": "init shutdown",
        "ray._logging": "LoggingConfig",
        "ray.actor": "method",
        "ray.client_builder": "ClientBuilder",
        "ray.runtime_context": "get_runtime_context",
    }.items()
    for name in names.split()
}
_WHERE["ObjectID"] = ("ray._core", "ObjectRef")
_WHERE["__commit__"] = ("ray._commit", "commit")

_MODULES = frozenset(
    "_private _raylet actor client_builder cloudpickle cluster_utils dag exceptions experimental internal job_config "
    "job_submission remote_function runtime_context runtime_env types util workflow".split()
)

__all__ = [
    "__version__",
    "ActorClassID",
    "ActorID",
    "ClientBuilder",
    "DynamicObjectRefGenerator",
    "FunctionID",
    "JobID",
    "Language",
    "LoggingConfig",
    "NodeID",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "PlacementGroupID",
    "SCRIPT_MODE",
    "TaskID",
    "UniqueID",
    "WORKER_MODE",
    "WorkerID",
    "actor",
    "available_resources",
    "cancel",
    "client",
    "cluster_resources",
    "cpp_function",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "java_actor_class",
    "java_function",
    "kill",
    "method",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "timeline",
    "util",
    "wait",
]


def __getattr__(name):
    where = _WHERE.get(name)
    if where is not None:
        import importlib

        value = getattr(importlib.import_module(where[0]), where[1])
        globals()[name] = value
        return value
    if name in _MODULES:
        import importlib

        return importlib.import_module("ray." + name)
    raise AttributeError(f"module 'ray' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_WHERE, *_MODULES})
