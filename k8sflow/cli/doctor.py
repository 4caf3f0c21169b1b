"""``k8sflow doctor``: a checklist of everything that a run on Kubernetes or AWS Batch needs."""

from __future__ import annotations

import shutil
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from k8sflow import config, debug_log
from k8sflow.cli import output
from k8sflow.cli.show_errors import errors_shown

if TYPE_CHECKING:
    from k8sflow.runtime.doctor.checklist import ChecklistRow

_MARKS = {"ok": ("ok", "green"), "warning": ("warn", "yellow"), "failed": ("FAIL", "red"), "skipped": ("-", None)}
_MARK_WIDTH = 4
_TITLE_WIDTH = 15
_WIDEST = 120


@click.command(name="doctor")
@click.option("--pod/--no-pod", "with_pod", default=True, help="Try the bucket from inside a pod too (default).")
@click.option(
    "--timeout",
    "timeout_seconds",
    type=click.FloatRange(min=1),
    default=120,
    show_default=True,
    help="Seconds that this pod may take.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def command(with_pod: bool, timeout_seconds: float, as_json: bool) -> None:  # noqa: FBT001  click calls by name
    """Check settings, cluster, job queue and bucket, without a run.

    Nothing is left behind: the test object and the pod that tries the bucket are deleted. The exit code is 1 if
    something fails.
    """
    from k8sflow.runtime.doctor.examine import examine  # noqa: PLC0415  --help needs no cluster

    with errors_shown():
        settings = debug_log.configure(config.load_here())
        folder = config.working_folder() or Path("/")
        found: list[ChecklistRow] = []
        for row in examine(settings, folder, with_pod=with_pod, timeout_seconds=timeout_seconds):
            if not as_json:
                _print(row, found[-1] if found else None)
            found.append(row)
        failed = [row for row in found if row.status.value == "failed"]
        if as_json:
            output.print_json([asdict(row) for row in found])
        else:
            _print_end(found)
        sys.exit(1 if failed else 0)


def _print(row: ChecklistRow, last: ChecklistRow | None) -> None:
    if last is None or last.section != row.section:
        click.secho(("\n" if last is not None else "") + row.section, bold=True)
    mark, color = _MARKS[row.status.value]
    title = "" if last is not None and (last.section, last.title) == (row.section, row.title) else row.title
    indent = 2 + _MARK_WIDTH + 2 + _TITLE_WIDTH + 2
    head = f"  {click.style(mark.ljust(_MARK_WIDTH), fg=color)}  {title.ljust(_TITLE_WIDTH)}  "
    lines = [line for part in (row.text, row.advice) for line in _wrapped(part, indent)]
    click.echo(head + f"\n{' ' * indent}".join(lines))


def _wrapped(text: str, indent: int) -> list[str]:
    width = max(min(shutil.get_terminal_size().columns, _WIDEST) - indent, 30)
    return [
        wrapped
        for line in text.splitlines()
        for wrapped in textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""]
    ]


def _print_end(found: list[ChecklistRow]) -> None:
    counts = {status: sum(row.status.value == status for row in found) for status in ("failed", "warning")}
    click.echo()
    if counts["failed"]:
        click.secho(f"{counts['failed']} of {len(found)} checks failed.", fg="red", bold=True)
    elif counts["warning"]:
        click.secho(f"Nothing failed; {counts['warning']} of {len(found)} checks have a warning.", fg="yellow")
    else:
        sections = {row.section for row in found if row.status.value == "ok"}
        systems = [name for name, section in (("Kubernetes", "Cluster"), ("AWS Batch",) * 2) if section in sections]
        click.secho(f"Runs on {' and '.join(systems)} can start.", fg="green")
