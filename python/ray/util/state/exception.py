"""Errors of the state API."""

__all__ = ["DataSourceUnavailable", "RayStateApiException", "ServerUnavailable"]


class RayStateApiException(Exception):
    """A call of the state API failed."""


class ServerUnavailable(RayStateApiException):
    """The server of the state API can't be reached."""


class DataSourceUnavailable(Exception):
    """A source of the state API can't be reached."""
