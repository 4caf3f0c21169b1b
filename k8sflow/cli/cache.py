"""``cache why``: what the key of a cached result is made of, and what differs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from k8sflow.cli import output
from k8sflow.cli.scope import Scope
from k8sflow.cli.show_errors import errors_shown
from k8sflow.errors import NotFoundError

if TYPE_CHECKING:
    from k8sflow.storage.cache_index import CacheEntry
    from k8sflow.storage.cache_plan import CachePlan

# The plan of the current code: its parts are those of a key apart from those of a task, or of the place where it ran.
Current = Callable[[str], "CachePlan | None"]


def group(scope: Scope, current: Current = lambda _: None) -> click.Group:
    """The command ``cache``, with its command ``why``.

    Args:
        scope: The runs.
        current: The plan of a step that follows from the current code; None where it is not at hand.
    """
    found = click.Group("cache", help="Explain the results that @cache keeps.")
    found.add_command(_why(scope, current))
    return found


def _why(scope: Scope, current: Current) -> click.Command:
    what = "STEP or STEP/TASK" if scope.flow is not None else "FLOW/STEP or FLOW/STEP/TASK"

    def callback(step: str, as_json: bool) -> None:  # noqa: FBT001  click calls by name
        with errors_shown():
            flow, name, task = _named(scope, step)
            now = current(name)
            last, before = _entries(scope, flow, name, task, now)
            if as_json:
                output.print_json(_document(flow, last, before, now))
            else:
                _print(flow, last, before, now)

    return click.Command(
        "why",
        callback=callback,
        params=[click.Argument(["step"], metavar=what.upper().replace(" OR ", "|")), output.JSON_OPTION],
        short_help="Show what a step's key is made of, and what changed.",
        help=f"Show what the key of the newest cached result is made of ({what}), and what of it differs from the "
        "result before, and from the current code.",
    )


def _named(scope: Scope, text: str) -> tuple[str, str, str | None]:
    """The flow, the step and the task that a user names.

    Raises:
        NotFoundError: There is too little or too much of it.
    """
    words = [word for word in text.split("/") if word]
    if scope.flow is not None and words[:1] != [scope.flow]:
        words = [scope.flow, *words]
    if len(words) not in {2, 3}:
        raise NotFoundError(f"{text!r} is not a step.", advice="Name it as STEP or STEP/TASK, after the flow.")
    return words[0], words[1], words[2] if words[2:] else None


def _entries(
    scope: Scope, flow: str, step: str, task: str | None, now: CachePlan | None
) -> tuple[CacheEntry, CacheEntry | None]:
    """The newest result of a step, and the newest one of the same task of another run.

    Raises:
        NotFoundError: No result of the step was kept.
    """
    from k8sflow.storage.cache_index import newest_entries  # noqa: PLC0415  --help reads no runs

    for store in scope.stores():
        last = next(newest_entries(store, flow, step, task), None)
        if last is not None:
            others = newest_entries(store, flow, step, last.task)
            return last, next((entry for entry in others if entry.run != last.run), None)
    raise NotFoundError(
        f"no result of {flow}/{step}{f'/{task}' if task else ''} is kept.",
        cause=f"The step is not cached: {'; '.join(now.refused)}."
        if now is not None and now.refused
        else "The step is not under @cache, has not finished since, or its output says why its result is not kept.",
        advice="Look at its output with the command logs.",
    )


def differences(parts: Mapping[str, str], before: Mapping[str, str]) -> dict[str, str]:
    """The parts that differ, and how: ``changed``, ``new`` or ``missing``."""
    found = {}
    for part in sorted(parts.keys() | before.keys()):
        if part not in before:
            found[part] = "new"
        elif part not in parts:
            found[part] = "missing"
        elif parts[part] != before[part]:
            found[part] = "changed"
    return found


def _of_code(plan: CachePlan, last: CacheEntry) -> dict[str, str]:
    """The differences of the current code; the inputs of a task are not known before it runs."""
    now = {part: found for part, found in plan.parts.items() if part != "current"}
    before = {part: found for part, found in last.parts.items() if part in now or not part.startswith(_OF_TASKS)}
    is_in_pod = any(part.startswith("pod: ") for part in last.parts)
    if is_in_pod:
        # The packages of a pod are locked for its platform.
        now, before = (
            {part: found for part, found in parts.items() if not part.startswith(_OF_PLACES)} for parts in (now, before)
        )
    return differences(now, before)


_OF_TASKS = (
    "self.", "inputs", "code that the inputs may use", "packages that the inputs may use", "pod: ", "current",
)  # fmt: skip
_OF_PLACES = (
    "python", "platform", "package ", "module ", "variable $", "all environment variables", "file /", "time zone",
    "cores and memory", "packages of @pypi",
)  # fmt: skip


def _document(flow: str, last: CacheEntry, before: CacheEntry | None, now: CachePlan | None) -> dict[str, Any]:
    return {
        "task": _pathspec(flow, last),
        "parts": dict(last.parts),
        "before": None if before is None else _pathspec(flow, before),
        "differences": None if before is None else differences(last.parts, before.parts),
        "differences_of_current_code": None if now is None else _of_code(now, last),
        "current_code_is_not_cached": [] if now is None else list(now.refused),
    }


def _print(flow: str, last: CacheEntry, before: CacheEntry | None, now: CachePlan | None) -> None:
    click.echo(f"The key of {_pathspec(flow, last)} is made of:")
    for part, found in last.parts.items():
        click.echo(f"  {found[:12]:<12}  {part}")
    if before is None:
        click.echo("No earlier result is kept to compare it with.")
    else:
        _print_differences(f"from that of {_pathspec(flow, before)}", differences(last.parts, before.parts))
    if now is not None:
        _print_differences("from the current code and its environment", _of_code(now, last))
        for reason in now.refused:
            click.echo(f"The current code is not cached: {reason}.")


def _print_differences(what: str, found: Mapping[str, str]) -> None:
    if not found:
        click.echo(f"It doesn't differ {what}.")
        return
    click.echo(f"It differs {what}:")
    for kind, parts in itertools.groupby(sorted(found, key=lambda part: (found[part], part)), key=found.__getitem__):
        for part in parts:
            click.echo(f"  {kind:<8}  {part}")


def _pathspec(flow: str, entry: CacheEntry) -> str:
    return f"{flow}/{entry.run}/{entry.step}/{entry.task}"
