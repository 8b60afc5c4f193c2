"""The internal names of Ray that other packages import, as far as they mean something here. Thin, and not for new code."""

import importlib
import importlib.util


def __getattr__(name):
    # Ray imports all of these with ``ray`` itself, so programs reach them as attributes
    if not name.startswith("_") and importlib.util.find_spec("ray._private." + name) is not None:
        return importlib.import_module("ray._private." + name)
    raise AttributeError(f"module 'ray._private' has no attribute {name!r}")
