"""The pickler for functions and classes that were defined in a script: the ``cloudpickle`` package under Ray's name."""

import pickle as pickle

from cloudpickle import *  # noqa: F403
from cloudpickle import cloudpickle as cloudpickle
from cloudpickle.cloudpickle import CloudPickler as CloudPickler
from cloudpickle.cloudpickle import Pickler as Pickler
from cloudpickle.cloudpickle import dump as dump
from cloudpickle.cloudpickle import dumps as dumps
from cloudpickle.cloudpickle import dynamic_subimport as dynamic_subimport
from cloudpickle.cloudpickle import instance as instance
from cloudpickle.cloudpickle import is_tornado_coroutine as is_tornado_coroutine
from cloudpickle.cloudpickle import list_registry_pickle_by_value as list_registry_pickle_by_value
from cloudpickle.cloudpickle import register_pickle_by_value as register_pickle_by_value
from cloudpickle.cloudpickle import subimport as subimport
from cloudpickle.cloudpickle import unregister_pickle_by_value as unregister_pickle_by_value

__all__ = [
    "CloudPickler",
    "Pickler",
    "cloudpickle",
    "dump",
    "dump_debug",
    "dumps",
    "dumps_debug",
    "dynamic_subimport",
    "instance",
    "is_tornado_coroutine",
    "list_registry_pickle_by_value",
    "load",
    "loads",
    "pickle",
    "register_pickle_by_value",
    "subimport",
    "unregister_pickle_by_value",
]

load, loads = pickle.load, pickle.loads


def _debug(function, obj, *args, **kwargs):
    try:
        return function(obj, *args, **kwargs)
    except (TypeError, pickle.PicklingError) as e:
        import io

        from ray.util import inspect_serializability

        report = io.StringIO()
        inspect_serializability(obj, print_file=report)
        raise TypeError(f"Could not serialize {obj!r}: {e}\n{report.getvalue()}") from e


def dumps_debug(obj, *args, **kwargs):
    """``dumps``, which says in its error what stands in the way.

    Raises:
        TypeError: ``obj`` can't be pickled.
    """
    return _debug(dumps, obj, *args, **kwargs)


def dump_debug(obj, *args, **kwargs):
    """``dump``, which says in its error what stands in the way.

    Raises:
        TypeError: ``obj`` can't be pickled.
    """
    return _debug(dump, obj, *args, **kwargs)
