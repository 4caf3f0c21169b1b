"""``logs``: the output of tasks, also while they run; and ``logs scrub``, which removes it for good."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from k8sflow.cli import completion, output
from k8sflow.cli.scope import Scope, Selection
from k8sflow.cli.show_errors import errors_shown
from k8sflow.errors import RunError
from k8sflow.task.result import escaped

if TYPE_CHECKING:
    from k8sflow.client import Task
    from k8sflow.client.logs import LogLine

# How many times as long as a look at the store took, the follower pauses at least.
_REST = 10.0


class _Logs(click.Group):
    """``logs PATHSPEC`` is ``logs show PATHSPEC``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Adds the command if the user has named none."""
        is_named = bool(args) and (args[0] in self.commands or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if is_named else ["show", *args])


def command(scope: Scope) -> click.Group:
    """The commands ``logs``, which is ``logs show``, and ``logs scrub``."""
    group = _Logs(
        "logs",
        short_help="Print the output of tasks, or remove it.",
        help="Print the output of tasks (logs show; show can be omitted), or remove it.",
    )
    group.add_command(_show_command(scope))
    group.add_command(_scrub_command(scope))
    return group


def _streams() -> list[click.Parameter]:
    return [
        click.Option(["--stdout", "only_stdout"], is_flag=True, help="Only the standard output."),
        click.Option(["--stderr", "only_stderr"], is_flag=True, help="Only the standard error."),
    ]


def _chosen(*, only_stdout: bool, only_stderr: bool) -> tuple[str, ...]:
    wanted = {"stdout": only_stdout, "stderr": only_stderr}
    return tuple(stream for stream, is_wanted in wanted.items() if is_wanted) or tuple(wanted)


def _show_command(scope: Scope) -> click.Command:
    options: list[click.Parameter] = [
        completion.pathspec_argument(scope, is_required=scope.flow is None),
        *_streams(),
        click.Option(["--follow", "-f"], is_flag=True, help="Keep printing new output until the run or task ends."),
        click.Option(["--attempt"], type=click.IntRange(min=0), help="The attempt (default: the one that counts)."),
        click.Option(["--timestamps", "-t"], is_flag=True, help="Start each line with its time (UTC)."),
        output.JSON_OPTION,
    ]

    def callback(
        pathspec: str | None,
        only_stdout: bool,  # noqa: FBT001  click calls by name
        only_stderr: bool,  # noqa: FBT001
        follow: bool,  # noqa: FBT001
        attempt: int | None,
        timestamps: bool,  # noqa: FBT001
        as_json: bool,  # noqa: FBT001
    ) -> None:
        with errors_shown():
            found = scope.select(pathspec)
            streams = _chosen(only_stdout=only_stdout, only_stderr=only_stderr)
            printer = _Printer(found, timestamps=timestamps, as_json=as_json)
            if follow:
                _follow(found, streams, attempt, printer)
            else:
                _show(found, streams, attempt, printer)

    return click.Command(
        "show",
        callback=callback,
        params=options,
        help="Print the output of a task, or of all tasks of a step or a run (by default the latest one).",
    )


def print_stored(scope: Scope, pathspec: str, *, follow: bool) -> None:
    """Prints the output of a task as the store has it.

    Raises:
        NotFoundError: There is none.
    """
    found = scope.select(pathspec)
    printer = _Printer(found, timestamps=False, as_json=False)
    streams = ("stdout", "stderr")
    if follow:
        _follow(found, streams, None, printer)
    else:
        _show(found, streams, None, printer)


class _Printer:
    """Prints the lines of one task as they are, those of several tasks with their names."""

    def __init__(self, selection: Selection, *, timestamps: bool, as_json: bool) -> None:
        self._selection = selection
        self._timestamps = timestamps
        self.as_json = as_json
        self._has_names = selection.task is None
        self.count = 0

    @property
    def is_plain(self) -> bool:
        """True if lines are printed as they were written."""
        return not (self._timestamps or self.as_json or self._has_names)

    def lines(self, lines: Iterable[LogLine]) -> None:
        for line in lines:
            self.count += 1
            if self.as_json:
                click.echo(escaped(json.dumps(self._document(line), ensure_ascii=False)).encode())
            else:
                click.echo(self._head(line) + (line.data if self.is_plain else _settled(line.data)))

    def raw(self, data: bytes) -> None:
        """Prints bytes exactly as they were written."""
        self.count += bool(data)
        click.echo(data, nl=False)

    def _head(self, line: LogLine) -> bytes:
        parts = []
        if self._timestamps:
            parts.append(output.utc_time(line.at) or "-" * 24)
        if self._has_names:
            parts.append(f"[{line.step}/{line.task}]")
        return "".join(f"{part} " for part in parts).encode()

    def _document(self, line: LogLine) -> dict[str, object]:
        return {
            "pathspec": f"{self._selection.run.pathspec}/{line.step}/{line.task}",
            "attempt": line.attempt,
            "stream": line.stream,
            "time": output.utc_time(line.at),
            "text": line.text,
        }


def _settled(line: bytes) -> bytes:
    """The final text of a line: a progress bar rewrites it with carriage returns."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]


def _show(selection: Selection, streams: tuple[str, ...], attempt: int | None, printer: _Printer) -> None:
    from k8sflow.runtime.progress.output_lines import settled  # noqa: PLC0415  --help shows no output

    for task in _executions(selection, attempt):
        if len(streams) == 1 and printer.is_plain:
            printer.raw(task.log(streams[0]))
        else:
            printer.lines(task.lines(streams))
        if selection.task is not None and task.failure and not printer.as_json:
            click.echo(f"{task.pathspec} failed: {settled(task.failure)}", err=True)
    if not printer.count:
        click.echo(f"{selection.pathspec} wrote nothing to {' or '.join(streams)}.", err=True)


def _executions(selection: Selection, attempt: int | None) -> Iterable[Task]:
    """The tasks in the selected attempt; those without it are skipped, unless it was asked for."""
    from k8sflow.client import Task  # noqa: PLC0415  --help reads no runs

    if attempt is None:
        return selection.tasks()
    if selection.task is not None:
        return [Task(selection.task.id, parent=selection.task.parent, attempt=attempt)]
    return [
        Task(task.id, parent=task.parent, attempt=attempt) for task in selection.tasks() if attempt in task.attempts
    ]


def _follow(selection: Selection, streams: tuple[str, ...], attempt: int | None, printer: _Printer) -> None:
    from k8sflow.client.logs import QUIET_POLLS, Follower  # noqa: PLC0415  as above

    run_store = selection.run.run_store
    if attempt is None and selection.task is not None:
        attempt = selection.task.current_attempt if selection.task.finished else None
    follower = Follower(
        run_store,
        selection.step.id if selection.step is not None else None,
        selection.task.id if selection.task is not None else None,
        streams,
        attempt,
    )
    quiet = 0
    while True:
        began = time.monotonic()
        is_over = _has_ended(selection, is_quiet=quiet >= QUIET_POLLS)
        lines = follower.poll(to_the_end=is_over)
        printer.lines(lines)
        if is_over:
            return
        quiet = 0 if lines else quiet + 1
        time.sleep(max(run_store.store.poll_seconds, _REST * (time.monotonic() - began)))


def _has_ended(selection: Selection, *, is_quiet: bool) -> bool:
    """True if no more output can come: the driver recorded the end, or there is a result and a quiet time since."""
    run = selection.run
    if run.outcome is not None:
        return True
    if selection.task is None:
        return is_quiet and run.finished
    return is_quiet and run.run_store.read_commit(selection.task.parent.id, selection.task.id) is not None


def _scrub_command(scope: Scope) -> click.Command:
    options: list[click.Parameter] = [
        completion.pathspec_argument(scope, is_required=True),
        *_streams(),
        click.Option(["--attempt"], type=click.IntRange(min=0), help="Only this attempt."),
        click.Option(["--all/--latest", "is_all"], help="All attempts (default: the one that counts)."),
        click.Option(["--include-not-done"], is_flag=True, help="Also scrub tasks that have not finished."),
    ]

    def callback(
        pathspec: str,
        only_stdout: bool,  # noqa: FBT001  click calls by name
        only_stderr: bool,  # noqa: FBT001
        attempt: int | None,
        is_all: bool,  # noqa: FBT001
        include_not_done: bool,  # noqa: FBT001
    ) -> None:
        with errors_shown():
            found = scope.select(pathspec)
            if found.step is None:
                raise RunError(
                    f"no step or task of {found.pathspec} was given to scrub.",
                    advice="Name a step, or one of its tasks.",
                )
            chosen = _chosen(only_stdout=only_stdout, only_stderr=only_stderr)
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
        "scrub",
        callback=callback,
        params=options,
        help="Remove the output of a task, or of all tasks of a step. Readers see that it was removed.",
    )


def _attempts(selection: Selection, attempt: int | None, *, is_all: bool) -> Iterator[Task]:
    """The selected attempts; a clone has none of its own, and is yielded as it is."""
    from k8sflow.client import Task  # noqa: PLC0415  --help reads no runs

    for task in selection.tasks():
        if attempt is not None:
            if selection.task is not None or attempt in task.attempts:
                yield Task(task.id, parent=task.parent, attempt=attempt)
        elif is_all and task.attempts:
            yield from (Task(task.id, parent=task.parent, attempt=each) for each in task.attempts)
        else:
            yield task
