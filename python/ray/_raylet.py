"""The names that other packages import from ``ray._raylet``, as far as they mean something here."""

from ray._core import ObjectRef
from ray._generators import DynamicObjectRefGenerator, ObjectRefGenerator
from ray._ids import (
    ActorClassID,
    ActorID,
    BaseID,
    ClusterID,
    FunctionID,
    JobID,
    NodeID,
    PlacementGroupID,
    TaskID,
    UniqueID,
    WorkerID,
)

ObjectID = ObjectRef
StreamingObjectRefGenerator = ObjectRefGenerator
RAY_NODE_ID_KEY = "ray.io/node-id"

__all__ = [
    "ActorClassID",
    "ActorID",
    "BaseID",
    "ClusterID",
    "DynamicObjectRefGenerator",
    "FunctionID",
    "JobID",
    "NodeID",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "PlacementGroupID",
    "RAY_NODE_ID_KEY",
    "StreamingObjectRefGenerator",
    "TaskID",
    "UniqueID",
    "WorkerID",
]
