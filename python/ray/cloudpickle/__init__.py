"""The pickler for functions and classes that were defined in a script: the ``cloudpickle`` package under Ray's name.

It knows of :func:`ray.util.register_serializer`, so that errors of a class that needs one can be raised in tasks.
"""

import io
import pickle as pickle

from cloudpickle import *  # noqa: F403
from cloudpickle import cloudpickle as cloudpickle
from cloudpickle.cloudpickle import dynamic_subimport as dynamic_subimport
from cloudpickle.cloudpickle import instance as instance
from cloudpickle.cloudpickle import is_tornado_coroutine as is_tornado_coroutine
from cloudpickle.cloudpickle import list_registry_pickle_by_value as list_registry_pickle_by_value
from cloudpickle.cloudpickle import register_pickle_by_value as register_pickle_by_value
from cloudpickle.cloudpickle import subimport as subimport
from cloudpickle.cloudpickle import unregister_pickle_by_value as unregister_pickle_by_value

from ray import _core

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


class Pickler(cloudpickle.Pickler):
    """Pickles what Python's own can't, and instances of classes with a registered serializer."""

    def reducer_override(self, obj):
        """See ``pickle.Pickler.reducer_override``."""
        reduced = _core.serialization.registered(obj)
        return super().reducer_override(obj) if reduced is None else reduced


CloudPickler = Pickler


def dump(obj, file, protocol=None, buffer_callback=None):
    """Pickle ``obj`` into a file; see ``pickle.dump``."""
    Pickler(file, protocol=protocol, buffer_callback=buffer_callback).dump(obj)


def dumps(obj, protocol=None, buffer_callback=None):
    """Pickle ``obj``; see ``pickle.dumps``."""
    file = io.BytesIO()
    dump(obj, file, protocol, buffer_callback)
    return file.getvalue()


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
