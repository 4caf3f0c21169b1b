"""Prints results: tables for people, JSON for programs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import click

from k8sflow.task.result import escaped

JSON_OPTION = click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, for programs.")


def print_json(document: Any) -> None:
    """Prints a document that a program reads."""
    click.echo(escaped(json.dumps(document, indent=2, ensure_ascii=False)).encode())


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table; on a terminal, the last column is cut to fit."""
    from rich.cells import cell_len  # noqa: PLC0415  few commands print a table

    columns = [max(cell_len(row[index]) for row in [head, *rows]) for index in range(len(head))]
    room = shutil.get_terminal_size().columns - sum(columns[:-1]) - 2 * (len(columns) - 1)
    for number, row in enumerate([head, *rows]):
        last = row[-1]
        if sys.stdout is not None and sys.stdout.isatty() and cell_len(last) > max(room, 10):
            last = last[: max(room, 10) - 1] + "…"
        cells = [cell + " " * (columns[index] - cell_len(cell)) for index, cell in enumerate(row[:-1])]
        line = "  ".join([*cells, last]).rstrip()
        click.echo(click.style(line, bold=True) if number == 0 else line)


def utc_time(seconds: float | None) -> str | None:
    """A time, in seconds since 1970, in RFC 3339 format with milliseconds."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"
