"""``runs``: a list of runs, with their status."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from k8sflow import units
from k8sflow.cli import output
from k8sflow.cli.scope import Scope
from k8sflow.cli.show_errors import errors_shown
from k8sflow.errors import RunError, StorageError

if TYPE_CHECKING:
    from k8sflow.client import Run

_STATUSES = ("running", "succeeded", "failed", "cancelled")


def command(scope: Scope) -> click.Command:
    """The command ``runs``."""
    options: list[click.Parameter] = [
        click.Option(
            ["--limit"], type=click.IntRange(min=1), default=20, show_default=True, help="The maximum number of runs."
        ),
        click.Option(["--tag", "tags"], multiple=True, help="Only runs with this tag (repeatable: with all of them)."),
        click.Option(["--namespace"], help="Only runs of this namespace: user:NAME, or another tag."),
        click.Option(["--status"], type=click.Choice(_STATUSES), help="Only runs with this status."),
        output.JSON_OPTION,
    ]
    if scope.flow is None:
        options.append(click.Argument(["flow"], required=False))

    def callback(
        limit: int,
        tags: tuple[str, ...],
        namespace: str | None,
        status: str | None,
        as_json: bool,  # noqa: FBT001  click calls by name
        flow: str | None = None,
    ) -> None:
        with errors_shown():
            wanted = {*tags, *([namespace] if namespace else [])}
            found = list(itertools.islice(_found(scope, flow or scope.flow, wanted, status), min(limit, sys.maxsize)))
            if as_json:
                output.print_json(found)
            else:
                _print(found, with_flow=scope.flow is None)
                _print_older_folders(found, scope)

    return click.Command("runs", callback=callback, params=options, help="List runs, the newest first.")


def _found(scope: Scope, flow: str | None, tags: set[str], status: str | None) -> Iterator[dict[str, Any]]:
    for run in _described(scope, flow):
        if tags <= {*run["tags"], *run["system_tags"]} and status in {None, run["status"]}:
            yield run


def _described(scope: Scope, flow: str | None) -> Iterator[dict[str, Any]]:
    """The runs of a flow, or of all, the newest first; read in parallel if the store allows it."""
    names = [flow] if flow is not None else scope.flows()
    flows = [scope.runs_of(name) for name in names]
    runs = iter(flows[0]) if len(flows) == 1 else iter(_by_time([run for each in flows for run in each]))
    first = next(runs, None)
    if first is None:
        return
    at_once = first.run_store.store.parallel_reads
    runs = itertools.chain([first], runs)
    if at_once == 1:
        yield from map(_describe, runs)
        return
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  as above

    with ThreadPoolExecutor(at_once) as pool:
        while page := list(itertools.islice(runs, at_once)):
            yield from pool.map(_describe, page)


def _by_time(runs: list[Run]) -> list[Run]:
    from k8sflow.runtime.lookup import started  # noqa: PLC0415  --help reads no runs

    return sorted(runs, key=lambda run: started(run.run_store), reverse=True)


def _describe(run: Run) -> dict[str, Any]:
    try:
        end, created = run.end, run.created
        status, ended = run.status_after(end), end.finished if end is not None else None
        seconds = (ended if ended is not None else time.time()) - created
        return {
            "pathspec": run.pathspec,
            "flow": run.run_store.flow,
            "run": run.id,
            "store": run.run_store.store.url,
            "status": status,
            "driver_is_dead": status == "running" and run.has_dead_driver,
            "outcome": end.outcome if end is not None else None,
            "user": run.user_name,
            "created": output.utc_time(created),
            "finished": output.utc_time(ended),
            "duration_seconds": round(seconds, 3),
            "usage": usage.to_document() if (usage := end.usage if end is not None else None) is not None else None,
            "tags": sorted(run.user_tags),
            "system_tags": sorted(run.system_tags),
            "origin": run.origin_pathspec,
        }
    except (RunError, StorageError) as error:  # one run that can't be read must not hide the others
        unknown = dict.fromkeys(("outcome", "user", "created", "finished", "duration_seconds", "usage", "origin"))
        return {
            "pathspec": run.pathspec,
            "flow": run.run_store.flow,
            "run": run.id,
            "store": run.run_store.store.url,
            "status": "unreadable",
            **unknown,
            "tags": [],
            "system_tags": [],
            "error": str(error),
        }


def _print(found: list[dict[str, Any]], *, with_flow: bool) -> None:
    if not found:
        click.echo("No run was found.", err=True)
        return
    output.print_table(
        ["run", "status", "started (UTC)", "duration", "memory", "CPU", "user", "tags"],
        [
            [
                run["pathspec"] if with_flow else run["run"],
                "no driver" if run.get("driver_is_dead") else run["status"],
                (run["created"] or "")[:19].replace("T", " "),
                "" if run["duration_seconds"] is None else units.duration(run["duration_seconds"]),
                *_used(run["usage"]),
                run["user"] or "",
                run["error"].splitlines()[0] if "error" in run else " ".join(map(_quoted, run["tags"])),
            ]
            for run in found
        ],
    )


def _print_older_folders(found: list[dict[str, Any]], scope: Scope) -> None:
    """Says which runs are in another folder than new ones: beside the flow, as in older versions."""
    if not found:
        return
    new, *others = scope.stores()
    for store in others:
        count = sum(run["store"] == store.url for run in found)
        if count and not store.is_shared:
            click.echo(f"{count} of them in {store.url}, beside the flow; new runs are kept in {new.url}.", err=True)


def _used(usage: dict[str, Any] | None) -> tuple[str, str]:
    """The largest peak of a task's memory, and the CPU time of all tasks."""
    if usage is None:
        return "", ""
    memory, cpu = usage["memory_bytes"], usage["cpu_seconds"]
    at_least = "≥ " if usage["is_partial"] else ""
    return "" if memory is None else at_least + units.size(memory), "" if cpu is None else units.duration(cpu)


def _quoted(tag: str) -> str:
    """A tag in a list of tags, quoted if its end would not be visible."""
    return json.dumps(tag, ensure_ascii=False) if " " in tag or '"' in tag else tag
