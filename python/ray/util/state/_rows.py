"""What all lists of the state API have in common: limits and filters."""

import warnings
from typing import Any, Callable, Iterable, List, Sequence, Tuple, TypeVar

from ray.util.state.exception import RayStateApiException

Filter = Tuple[str, str, Any]
Row = TypeVar("Row")

MAX_LIMIT = 10_000


class BadFilter(RayStateApiException, ValueError):
    """A filter of a form that there is not."""


def check_limit(limit: int) -> None:
    """Refuse what is no limit, or too large a one."""
    if not 0 < limit <= MAX_LIMIT:
        raise RayStateApiException(f"Given limit {limit} is not between 1 and the supported limit {MAX_LIMIT}.")


def cut(rows: List[Row], limit: int) -> List[Row]:
    """At most ``limit`` rows, with a warning if that is not all."""
    if len(rows) > limit:
        warnings.warn(
            f"Limit last {limit} entries (Total {len(rows)}). Use `--filter` to reduce the amount of data to return or "
            "setting a higher limit with `--limit` to see all data.",
            stacklevel=3,
        )
    return rows[:limit]


def filter_test(given: Filter, fields: Iterable[str]) -> Callable[[Any], bool]:
    """The test that a filter stands for. Texts are compared without regard to case."""
    if not isinstance(given, (tuple, list)) or len(given) != 3:
        raise BadFilter(f'Given filter {given!r} is not (field, "=" or "!=", value).')
    field, operator, value = given
    if operator not in ("=", "!="):
        raise BadFilter(f"Unsupported filter predicate {operator} is given. Available predicates: =, !=.")
    if field not in fields:
        raise BadFilter(
            f"The given filter column {field} is not supported. Enter filters with --filter key=value or --filter "
            f"key!=value Supported filter columns: {', '.join(fields)}"
        )
    wanted = _text(value)
    return lambda row: (_text(row[field]) == wanted) == (operator == "=")


def filter_tests(given: "Sequence[Filter] | None", fields: Iterable[str]) -> List[Callable[[Any], bool]]:
    """The tests that filters stand for; all must hold."""
    return [filter_test(f, fields) for f in given or ()]


def _text(value: Any) -> str:
    return "" if value is None else str(value).lower()
