"""``gc``: deletes old runs, and the artifacts that no run needs any more."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from k8sflow import units
from k8sflow.cli import output
from k8sflow.cli.scope import Scope
from k8sflow.cli.show_errors import errors_shown

if TYPE_CHECKING:
    from k8sflow.storage.garbage import KnownRun
    from k8sflow.storage.records import RunRecord
    from k8sflow.storage.run_store import RunStore
    from k8sflow.storage.sweep import Collected

_UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_MOST_LISTED = 20


def _seconds(_context: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    """The length of a time in seconds: ``12h``, ``30d``.

    Raises:
        click.BadParameter: The text is none.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is not an age: write 30d, 12h, 45m or 2w.")
    return float(match[1]) * _UNITS[match[2]]


def command(scope: Scope) -> click.Command:
    """The command ``gc``."""
    options: list[click.Parameter] = [
        click.Option(
            ["--older-than"], metavar="AGE", callback=_seconds, help="Delete runs that ended longer ago: 30d, 12h, 2w."
        ),
        click.Option(["--keep"], type=click.IntRange(min=0), help="Keep so many of the latest runs of each flow."),
        click.Option(["--tag", "tags"], multiple=True, help="Delete only runs with this tag (repeatable: with all)."),
        click.Option(["--dry-run", "is_dry_run"], is_flag=True, help="Only show what would be deleted."),
        output.JSON_OPTION,
    ]
    if scope.flow is None:
        options.append(scope.flow_argument())

    def callback(
        older_than: float | None,
        keep: int | None,
        tags: tuple[str, ...],
        is_dry_run: bool,  # noqa: FBT001  click calls by name
        as_json: bool,  # noqa: FBT001
        flow: str | None = None,
    ) -> None:
        with errors_shown():
            selection = _Selection(older_than, keep, frozenset(tags))
            found = _collected(scope, flow or scope.flow, selection, is_dry_run=is_dry_run)
            if as_json:
                output.print_json([{"store": url, **asdict(each)} for url, each in found])
            for url, each in [] if as_json else found:
                _print(url, each, is_dry_run=is_dry_run)
            if not as_json and not found:
                click.echo("No flow was found.", err=True)
            if any(each.problem for _, each in found):
                sys.exit(1)

    return click.Command(
        "gc",
        callback=callback,
        params=options,
        short_help="Delete old runs, and artifacts that no run needs.",
        help="Delete the runs that meet all of --older-than, --keep and --tag, and then the artifacts that no run "
        "needs. Without these options, no run is deleted. A run that has not ended, or that another run resumes, is "
        "kept.",
    )


class _Selection:
    """The runs that a user selects.

    Args:
        older_than: The seconds since their end; None for any.
        keep: The number of latest runs that are kept; None for none.
        tags: The tags that they have.
    """

    def __init__(self, older_than: float | None, keep: int | None, tags: frozenset[str]) -> None:
        self._older_than = older_than
        self._keep = keep
        self._tags = tags

    def __call__(self, runs: Sequence[KnownRun]) -> list[KnownRun]:
        """The selected ones of a flow's runs; trial tasks of ``spin`` are counted by themselves."""
        if self._older_than is None and self._keep is None and not self._tags:
            return []
        found: list[KnownRun] = []
        for folder in {run.run_store.folder for run in runs}:
            newest = sorted((run for run in runs if run.run_store.folder == folder), key=_created, reverse=True)
            found += newest[self._keep or 0 :]
        before = time.time() - (self._older_than or 0.0)
        since = (run for run in found if self._tags <= run.tags)
        return [run for run in since if (_created(run) if run.ended is None else run.ended) <= before]


def _created(run: KnownRun) -> float:
    """The start time of a run, by which the command ``runs`` sorts."""
    from k8sflow.storage.records import started_at  # noqa: PLC0415  --help reads no runs

    try:
        return started_at(run.run_store.run).timestamp()
    except ValueError:  # the user chose the id
        return run.record.created


def _collected(
    scope: Scope, flow: str | None, selection: _Selection, *, is_dry_run: bool
) -> list[tuple[str, Collected]]:
    """The garbage of each flow, with the URL of its store.

    Raises:
        NotFoundError: There is no such flow.
    """
    from k8sflow.storage.garbage import GarbageCollector  # noqa: PLC0415  --help reads no runs

    found = []
    for store, name in scope.folders_of(flow):
        collector = GarbageCollector(store, name, selection, _tags, is_dry_run=is_dry_run)
        collected = collector.collect()
        if flow is not None or collector.is_flow:
            found.append((store.url, collected))
    return found


def _tags(run_store: RunStore, record: RunRecord) -> frozenset[str]:
    from k8sflow.storage.tags import system_tags  # noqa: PLC0415  as above

    return system_tags(record) | set(run_store.read_tags())


def _print(url: str, found: Collected, *, is_dry_run: bool) -> None:
    verb = "would be deleted" if is_dry_run else "deleted"
    run_bytes = sum(found.runs.values())
    click.echo(click.style(f"{found.flow} in {url}", bold=True))
    for run, size in list(found.runs.items())[:_MOST_LISTED]:
        click.echo(f"  {run}  {units.size(size)}")
    if len(found.runs) > _MOST_LISTED:
        click.echo(f"  … and {len(found.runs) - _MOST_LISTED:,} more")
    click.echo(f"  {units.count(len(found.runs), 'run')} {verb}, {units.size(run_bytes)} of records and output")
    click.echo(f"  {units.count(found.blobs, 'blob')} of artifacts {verb}, {units.size(found.blob_bytes)}")
    if found.uploads:
        uploads = f"{units.count(found.uploads, 'unfinished upload')} {verb}, {units.size(found.upload_bytes)}"
        click.echo(f"  {uploads} of parts: they were started more than a day ago")
    if found.leftovers:
        others = units.count(found.leftovers, "other object")
        click.echo(f"  {others} {verb}: remains of runs that no longer exist, and of uploads")
    if found.young_blobs:
        young = f"{units.count(found.young_blobs, 'blob')} ({units.size(found.young_bytes)})"
        click.echo(f"  {young} that no run needs stay for now: they are younger than a day")
    for run, why in list(found.needed.items())[:_MOST_LISTED]:
        click.echo(f"  kept: {run}, {why}")
    if len(found.needed) > _MOST_LISTED:
        click.echo(f"  … and {len(found.needed) - _MOST_LISTED:,} more are kept")
    if found.problem:
        click.echo(click.style(f"  {found.problem}", fg="red"), err=True)
