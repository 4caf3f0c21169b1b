"""``logs scrub``: the output of tasks is removed for good."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from k8sflow.cli import completion
from k8sflow.cli.errors import told
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
        click.Option(["--attempt"], type=click.IntRange(min=0), help="Only this execution."),
        click.Option(["--all/--latest", "is_all"], help="All executions; by default the one that counts."),
        click.Option(["--include-not-done"], is_flag=True, help="Also of tasks that nobody has seen the end of."),
    ]

    def callback(
        place: str,
        only_stdout: bool,  # noqa: FBT001  click calls by name
        only_stderr: bool,  # noqa: FBT001
        attempt: int | None,
        is_all: bool,  # noqa: FBT001
        include_not_done: bool,  # noqa: FBT001
    ) -> None:
        with told():
            found = scope.select(place)
            if found.step is None:
                raise RunError(
                    f"what of {found.pathspec} is to be scrubbed was not said.", advice="Name a step, or a task of it."
                )
            wanted = {"stdout": only_stdout, "stderr": only_stderr}
            chosen = tuple(stream for stream, is_wanted in wanted.items() if is_wanted) or tuple(wanted)
            tasks = list(_executions(found, attempt, is_all=is_all))
            done = [task for task in tasks if include_not_done or task.has_ended or found.run.has_ended]
            for task in done:
                count = task.scrub(chosen)
                what = f"{count} of {len(chosen)} streams scrubbed" if count else "there was nothing to scrub"
                click.echo(f"{task.pathspec}, execution {task.current_attempt}: {what}.")
            if len(done) < len(tasks):
                raise RunError(
                    f"{len(tasks) - len(done)} of {len(tasks)} executions of {found.pathspec} were left as they are.",
                    cause="They have not ended, so more output may come.",
                    advice="Wait for their end. Where their driver has died: --include-not-done.",
                )

    return click.Command(
        "scrub", callback=callback, params=options,
        help="Remove what a task wrote, or all tasks of a step. Whoever reads it sees that it was removed.",
    )  # fmt: skip


def _executions(place: Selection, attempt: int | None, *, is_all: bool) -> Iterator[Task]:
    """The executions that are meant; a clone has none of its own, and is told as it is."""
    from k8sflow.client import Task  # noqa: PLC0415  --help reads no runs

    for task in place.tasks():
        if attempt is not None:
            if place.task is not None or attempt in task.attempts:
                yield Task(task.id, parent=task.parent, attempt=attempt)
        elif is_all and task.attempts:
            yield from (Task(task.id, parent=task.parent, attempt=each) for each in task.attempts)
        else:
            yield task
