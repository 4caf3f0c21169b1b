"""Prints results: tables for people, JSON for programs."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import click

from k8sflow.task.result import escaped

_TITLE_WIDTH = 15
_WIDEST = 120
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


def print_pair(title: str, text: str) -> None:
    """Prints a title and beside it a text, wrapped to the terminal."""
    width = max(min(shutil.get_terminal_size().columns, _WIDEST) - _TITLE_WIDTH, 30)
    lines = [
        wrapped
        for line in text.splitlines()
        for wrapped in textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""]
    ]
    click.echo(click.style(title.ljust(_TITLE_WIDTH), bold=True) + f"\n{' ' * _TITLE_WIDTH}".join(lines))


def utc_time(seconds: float | None) -> str | None:
    """A time, in seconds since 1970, in RFC 3339 format with milliseconds."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"
