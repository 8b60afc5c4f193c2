"""The logger "ray", and ``ray.LoggingConfig``."""

import logging
import sys
from typing import Any, Dict, List, Optional

DEFAULT_FORMAT = "%(asctime)s\t%(levelname)s %(filename)s:%(lineno)s -- %(message)s"

_ENCODINGS = ("TEXT", "JSON")
_ATTRIBUTES = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"asctime", "message"}

_handler: Optional[logging.Handler] = None


class _Handler(logging.StreamHandler):
    """Writes to what sys.stderr is at the moment, which tests and notebooks replace."""

    def __init__(self):
        logging.Handler.__init__(self)

    @property
    def stream(self):
        return sys.stderr

    @stream.setter
    def stream(self, value):
        raise AttributeError("the stream is sys.stderr")


def setup_logger(level: Any = "info", fmt: Optional[str] = None) -> None:
    """Give the logger "ray" a handler, a level and a format, as ``ray.init`` does.

    Raises:
        ValueError: There is no such level.
    """
    global _handler
    logger = logging.getLogger("ray")
    logger.setLevel(level.upper() if isinstance(level, str) else level)
    if _handler is None:
        _handler = _Handler()
        logger.addHandler(_handler)
        logger.propagate = False
    _handler.setFormatter(logging.Formatter(fmt or DEFAULT_FORMAT))


def configure_worker(settings: Dict[str, Any]) -> None:
    """Set up logging in a worker.

    Args:
        settings: What the driver chose: ``config``, the dict of a :class:`LoggingConfig` or None, and ``level``, that of the
            logger "ray".
    """
    setup_logger(settings.get("level") or "info")
    if settings.get("config"):
        LoggingConfig.from_dict(settings["config"])._apply()


class LoggingConfig:
    """How a job's processes log.

    Args:
        encoding: "TEXT" or "JSON".
        log_level: Level of the root logger.
        additional_log_standard_attrs: Names of further attributes of ``logging.LogRecord`` to write.

    Raises:
        ValueError: Another encoding, or an attribute that a record doesn't have.
    """

    def __init__(
        self,
        encoding: str = "TEXT",
        log_level: str = "INFO",
        additional_log_standard_attrs: Optional[List[str]] = None,
    ):
        if encoding not in _ENCODINGS:
            raise ValueError(f"Invalid encoding type: {encoding}. Valid encoding types are: {list(_ENCODINGS)}")
        for name in additional_log_standard_attrs or []:
            if name not in _ATTRIBUTES:
                raise ValueError(
                    f"Unknown python logging standard attribute: {name}. The valid attributes are: {sorted(_ATTRIBUTES)}"
                )
        self.encoding = encoding
        self.log_level = log_level
        self.additional_log_standard_attrs = list(additional_log_standard_attrs or [])

    def to_dict(self) -> Dict[str, Any]:
        """The settings as a dict."""
        return {
            "encoding": self.encoding,
            "log_level": self.log_level,
            "additional_log_standard_attrs": list(self.additional_log_standard_attrs),
        }

    @classmethod
    def from_dict(cls, d: Dict[str, Any]) -> "LoggingConfig":
        """Make it from what :meth:`to_dict` returned."""
        return cls(**d)

    def __repr__(self) -> str:
        return (
            f"LoggingConfig(encoding={self.encoding!r}, log_level={self.log_level!r}, "
            f"additional_log_standard_attrs={self.additional_log_standard_attrs!r})"
        )

    def __eq__(self, other) -> bool:
        return isinstance(other, LoggingConfig) and self.to_dict() == other.to_dict()

    def __hash__(self):
        return hash((self.encoding, self.log_level, tuple(self.additional_log_standard_attrs)))

    def _apply(self) -> None:
        """Set up the root logger and the logger "ray" of this process."""
        formatter = _JsonFormatter(self) if self.encoding == "JSON" else _TextFormatter(self)
        handler = _Handler()
        handler.setFormatter(formatter)
        root = logging.getLogger()
        for old in [h for h in root.handlers if isinstance(h, _Handler)]:
            root.removeHandler(old)
        root.addHandler(handler)
        root.setLevel(self.log_level)
        if _handler is not None:
            _handler.setFormatter(formatter)
        logging.getLogger("ray").setLevel(self.log_level)


def _where() -> Dict[str, str]:
    """The ids that a log line carries: those that are known in this process."""
    from ray import _core

    state = _core.state
    if state.client is None:
        return {}
    ids = {"job_id": state.job_id.hex(), "worker_id": state.worker_id.hex(), "node_id": state.node_id.hex()}
    if state.actor is not None:
        ids["actor_id"] = state.actor.id.hex()
    task = _core.current_task()
    if task is not None:
        ids.update(task_id=task.task_id.hex(), task_name=task.name, task_func_name=task.qualname)
    if state.actor is not None:
        ids["actor_name"] = state.actor.name
    return ids


def _more(record: logging.LogRecord, names: List[str]) -> Dict[str, Any]:
    """What a line says besides its message: chosen attributes, what the caller added, where it comes from, and when."""
    fields: Dict[str, Any] = {name: getattr(record, name, None) for name in names}
    for name, value in record.__dict__.items():
        if name not in _ATTRIBUTES and name not in fields:
            fields[name] = value
    fields.update(_where())
    fields["timestamp_ns"] = int(record.created * 1e9)
    return fields


class _JsonFormatter(logging.Formatter):
    def __init__(self, config: LoggingConfig):
        super().__init__()
        self._names = config.additional_log_standard_attrs

    def format(self, record: logging.LogRecord) -> str:
        import json

        fields: Dict[str, Any] = {
            "asctime": self.formatTime(record),
            "levelname": record.levelname,
            "message": record.getMessage(),
            "filename": record.filename,
            "lineno": record.lineno,
            "process": record.process,
        }
        if record.exc_info:
            fields["exc_text"] = self.formatException(record.exc_info)
        fields.update(_more(record, self._names))
        return json.dumps(fields, default=str)


class _TextFormatter(logging.Formatter):
    def __init__(self, config: LoggingConfig):
        super().__init__(DEFAULT_FORMAT)
        self._names = config.additional_log_standard_attrs

    def format(self, record: logging.LogRecord) -> str:
        pairs = " ".join(f"{k}={v}" for k, v in _more(record, self._names).items())
        return f"{super().format(record)} {pairs}"
