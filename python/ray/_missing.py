"""What Ray has and Gray does not have yet says so, by name."""


def missing(feature: str) -> NotImplementedError:
    """The error for a feature that is not there; the caller raises it."""
    return NotImplementedError(f"{feature}: Gray does not have this yet.")
