"""``du``: how much the runs and artifacts of each flow take."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from k8sflow import units
from k8sflow.cli import output
from k8sflow.cli.scope import Scope
from k8sflow.cli.show_errors import errors_shown

if TYPE_CHECKING:
    from k8sflow.storage.sizes import FlowSize


def command(scope: Scope) -> click.Command:
    """The command ``du``."""
    options: list[click.Parameter] = [output.JSON_OPTION]
    if scope.flow is None:
        options.append(scope.flow_argument())

    def callback(as_json: bool, flow: str | None = None) -> None:  # noqa: FBT001  click calls by name
        with errors_shown():
            found = _sizes(scope, flow or scope.flow)
            if as_json:
                output.print_json([{"store": url, **asdict(each), "total": each.total} for url, each in found])
            else:
                _print(found)

    return click.Command("du", callback=callback, params=options, help="Show how much each flow takes in its store.")


def _sizes(scope: Scope, flow: str | None) -> list[tuple[str, FlowSize]]:
    """The sizes of flows with the URLs of their stores, the largest first.

    Raises:
        NotFoundError: There is no such flow.
    """
    from k8sflow.storage.sizes import size_of  # noqa: PLC0415  --help reads no runs

    sizes = [(store.url, size_of(store, name)) for store, name in scope.folders_of(flow)]
    found = [each for each in sizes if flow is not None or not each[1].is_empty]
    return sorted(found, key=lambda each: each[1].total, reverse=True)


def _print(found: list[tuple[str, FlowSize]]) -> None:
    if not found:
        click.echo("No flow was found.", err=True)
        return
    head = ["flow", "runs", "records", "output", "cards", "checkpoints", "artifacts", "data", "total", "store"]
    rows = [
        [
            each.flow,
            f"{each.runs:,}",
            *(units.size(count) for count in (each.records, each.output, each.cards, each.checkpoints)),
            f"{units.size(each.blob_bytes)} ({each.blobs:,})",
            units.size(each.data),
            units.size(each.total),
            url,
        ]
        for url, each in found
    ]
    output.print_table(head, rows)
