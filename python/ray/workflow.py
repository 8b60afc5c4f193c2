"""Workflows were removed from Ray; using them says so."""


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    raise RuntimeError(f"ray.workflow.{name}: Ray Workflow has been removed; the last version that had it is Ray 2.47.")
