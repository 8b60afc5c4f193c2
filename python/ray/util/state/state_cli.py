"""The commands `ray list`, `ray get` and `ray summary` as click has them, for programs that call them in their own process.

They run the command `ray`. In a process that is connected to a cluster they ask that one, if no address is given. click is
needed for this module, and for nothing else of the SDK.
"""

import json
import os
import re
import subprocess
import sys
import warnings
from enum import Enum, unique
from typing import Any, List, Tuple

import click

from ray.util.state.common import Humanify, StateSchema

_WARNING = "UserWarning: "


@unique
class AvailableFormat(Enum):
    """How `ray list` prints."""

    DEFAULT = "default"
    JSON = "json"
    YAML = "yaml"
    TABLE = "table"


def _parse_filter(filter: str) -> Tuple[str, str, str]:  # noqa: A002
    """The (key, predicate, value) of ``key=value`` or ``key!=value``.

    Raises:
        ValueError: It has another form.
    """
    if filter is None:
        raise ValueError("The filter is missing.")
    found = re.match(r"(.*?)(!=|=)(.*)$", filter, re.DOTALL)
    if found is None:
        raise ValueError(
            f"The format of a given filter {filter} is invalid: Cannot find the predicate. Please provide key=val or key!=val "
            "format string."
        )
    return found.group(1), found.group(2), found.group(3)


def format_list_api_output(
    state_data: List[StateSchema],
    *,
    schema: Any = None,
    format: AvailableFormat = AvailableFormat.DEFAULT,  # noqa: A002
    detail: bool = False,
) -> str:
    """Rows as JSON; other forms are what the command `ray list` prints."""
    rows = [row.asdict() if isinstance(row, StateSchema) else dict(row) for row in state_data]
    if schema is not None:
        rows = [Humanify.row(schema, row) for row in rows]
    if format != AvailableFormat.JSON:
        raise NotImplementedError(f"format_list_api_output() knows JSON only; run `ray list --format {format.value}`.")
    return json.dumps(rows)


def _run(name: str, args: List[str]) -> None:
    from ray._core import state

    binary = os.environ.get("GRAY_BIN") or os.path.join(
        os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "_bin", "ray"
    )
    command = [binary, name, *args]
    if state.client is not None and not any(a.split("=")[0] == "--address" for a in args):
        command += ["--address", state.gcs_address]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    click.echo(done.stdout, nl=False)
    for line in done.stderr.splitlines():
        if line.startswith(_WARNING):
            warnings.warn(line[len(_WARNING) :], stacklevel=2)
        else:
            click.echo(line, err=True)
    if done.returncode:
        sys.exit(done.returncode)


def _command(name: str, doc: str) -> click.Command:
    @click.command(
        name=name,
        help=doc,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    )
    @click.argument("args", nargs=-1, type=click.UNPROCESSED)
    def run(args):
        _run(name, list(args))

    return run


ray_list = _command("list", "List what is in the cluster.")
ray_get = _command("get", "Print all that is known of one thing in the cluster.")
summary_state_cli_group = _command("summary", "Print what is in the cluster in figures.")
logs_state_cli_group = _command("logs", "Print log files of the cluster.")
