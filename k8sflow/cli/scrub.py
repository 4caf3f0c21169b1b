"""``logs scrub``: removes the output of tasks for good."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from k8sflow.cli import completion
from k8sflow.cli.errors import errors_shown
from k8sflow.cli.scope import Scope, Selection
from k8sflow.errors import RunError

if TYPE_CHECKING:
    from k8sflow.client import Task


def command(scope: Scope, streams: list[click.Parameter]) -> click.Command:
    """The command ``logs scrub``.

    Args:
        scope: The runs.
        streams: The options ``--stdout`` and ``--stderr``.
    """
    place = "run/step/task" if scope.flow is not None else "flow/run/step/task"
    options: list[click.Parameter] = [
        click.Argument(["place"], metavar=place, shell_complete=completion.names_in(scope)),
        *streams,
        click.Option(["--attempt"], type=click.IntRange(min=0), help="Only this attempt."),
        click.Option(["--all/--latest", "is_all"], help="All attempts (default: the one that counts)."),
        click.Option(["--include-not-done"], is_flag=True, help="Also scrub tasks that have not finished."),
    ]

    def callback(
        place: str,
        only_stdout: bool,  # noqa: FBT001  click calls by name
        only_stderr: bool,  # noqa: FBT001
        attempt: int | None,
        is_all: bool,  # noqa: FBT001
        include_not_done: bool,  # noqa: FBT001
    ) -> None:
        with errors_shown():
            found = scope.select(place)
            if found.step is None:
                raise RunError(
                    f"no step or task of {found.pathspec} was given to scrub.",
                    advice="Name a step, or one of its tasks.",
                )
            wanted = {"stdout": only_stdout, "stderr": only_stderr}
            chosen = tuple(stream for stream, is_wanted in wanted.items() if is_wanted) or tuple(wanted)
            tasks = list(_attempts(found, attempt, is_all=is_all))
            done = [task for task in tasks if include_not_done or task.has_ended or found.run.has_ended]
            for task in done:
                count = task.scrub(chosen)
                what = f"{count} of {len(chosen)} streams scrubbed" if count else "nothing to scrub"
                click.echo(f"{task.pathspec}, attempt {task.current_attempt}: {what}.")
            if len(done) < len(tasks):
                raise RunError(
                    f"{len(tasks) - len(done)} of {len(tasks)} attempts of {found.pathspec} were not scrubbed.",
                    cause="They have not ended, so more output may come.",
                    advice="Wait for their end. If their driver has died, add --include-not-done.",
                )

    return click.Command(
        "scrub", callback=callback, params=options,
        help="Remove the output of a task, or of all tasks of a step. Readers see that it was removed.",
    )  # fmt: skip


def _attempts(place: Selection, attempt: int | None, *, is_all: bool) -> Iterator[Task]:
    """The selected attempts; a clone has none of its own, and is yielded as it is."""
    from k8sflow.client import Task  # noqa: PLC0415  --help reads no runs

    for task in place.tasks():
        if attempt is not None:
            if place.task is not None or attempt in task.attempts:
                yield Task(task.id, parent=task.parent, attempt=attempt)
        elif is_all and task.attempts:
            yield from (Task(task.id, parent=task.parent, attempt=each) for each in task.attempts)
        else:
            yield task
