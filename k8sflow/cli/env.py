"""``env``: the environments of steps: those of a run, those that a run would have, and those on this machine."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from k8sflow import units
from k8sflow.cli import before_command, completion, output, run_options
from k8sflow.cli.scope import Scope
from k8sflow.cli.show_errors import errors_shown
from k8sflow.errors import DependencyError, NotFoundError
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.problems import did_you_mean
from k8sflow.runtime.request import with_default_decorators

if TYPE_CHECKING:
    from k8sflow.client import Run
    from k8sflow.environments.lock import Lock, LockedPackage

_DAYS = 30
_OUTPUT = click.Option(
    ["--output", "-o", "folder"],
    type=click.Path(file_okay=False),
    help="Write the locks into this folder, as pylock.STEP.toml, which uv and pip can install.",
)


def command(
    scope: Scope, definition: FlowDefinition | None = None, shared_options: Sequence[click.Parameter] = ()
) -> click.Group:
    """The commands ``env show``, ``diff``, ``lock`` and ``prune``.

    Args:
        scope: The runs.
        definition: The flow whose file was called; None where ``lock`` takes the name of a file.
        shared_options: The options of that flow's commands.
    """
    group = click.Group("env", help="Look at the packages of steps with @pypi, and look after their environments.")
    group.add_command(_show_command(scope))
    group.add_command(_diff_command(scope))
    group.add_command(_lock_command(definition, shared_options) if definition is not None else _lock_file_command())
    group.add_command(_prune_command())
    return group


def _run_argument(scope: Scope, name: str) -> click.Argument:
    what = name.upper() if scope.flow is not None else f"FLOW/{name.upper()}"
    return click.Argument([name], metavar=what, shell_complete=completion.runs_in(scope))


def _show_command(scope: Scope) -> click.Command:
    def show(run: str, step: str | None, folder: str | None, as_json: bool) -> None:  # noqa: FBT001  click calls by name
        with errors_shown():
            found = scope.run(run)
            locks = found.record.environments
            if step is not None:
                _check_step(found, step)
                locks = {step: locks[step]}
            _report(locks, f"No step of {found.pathspec} has packages of its own.", folder, as_json=as_json)

    step = click.Argument(
        ["step"], required=False, metavar="[STEP]", shell_complete=completion.steps_with_packages(scope)
    )
    params = [_run_argument(scope, "run"), step, _OUTPUT, output.JSON_OPTION]
    return click.Command("show", callback=show, params=params, help="Show the locked packages of a run's steps.")


def _check_step(run: Run, step: str) -> None:
    """Refuses a step whose packages can't be shown.

    Raises:
        NotFoundError: The run has no such step, or the step has no packages of its own.
    """
    steps, having = run.record.steps, list(run.record.environments)
    if step not in steps:
        advice = f"{did_you_mean(step, steps)} Its steps are {', '.join(steps)}.".strip()
        raise NotFoundError(f"{run.pathspec} has no step {step!r}.", advice=advice)
    if step not in having:
        raise NotFoundError(
            f"step {step} of {run.pathspec} has no packages of its own: it runs with those of the Python that runs it.",
            advice=f"Those with packages are {', '.join(having)}." if having else "No step of this run has any.",
        )


def _diff_command(scope: Scope) -> click.Command:
    def diff(run: str, other: str, as_json: bool) -> None:  # noqa: FBT001  click calls by name
        with errors_shown():
            _print_differences(scope.run(run), scope.run(other), as_json=as_json)

    params = [_run_argument(scope, "run"), _run_argument(scope, "other"), output.JSON_OPTION]
    return click.Command("diff", callback=diff, params=params, help="Show how the packages of two runs' steps differ.")


def _print_differences(first: Run, second: Run, *, as_json: bool) -> None:
    from k8sflow.environments.comparison import differences  # noqa: PLC0415  --help needs none of it

    found = differences(first.record.environments, second.record.environments)
    if as_json:
        output.print_json([{**vars(each), "change": each.change} for each in found])
    elif found:
        rows = [[each.step, each.name, each.change, each.before or "-", each.after or "-"] for each in found]
        output.print_table(["step", "package", "change", first.pathspec, second.pathspec], rows)
    elif first.record.environments:
        click.echo(f"{first.pathspec} and {second.pathspec} have the same packages.", err=True)
    else:
        click.echo(f"No step of {first.pathspec} and {second.pathspec} has packages of its own.", err=True)


def _lock_command(definition: FlowDefinition, shared_options: Sequence[click.Parameter]) -> click.Command:
    def lock(folder: str | None, as_json: bool, **values: Any) -> None:  # noqa: FBT001  click calls by name
        with errors_shown():
            no_run = {"namespace": None, "tags": ()}
            request = with_default_decorators(run_options.request(definition, {**no_run, **values}))
            from k8sflow.runtime.commands.lock_environments import locks_of_flow  # noqa: PLC0415  --help needs none

            _report(
                locks_of_flow(request, before_command.terminal()),
                f"No step of {definition.name} has packages of its own.",
                folder,
                as_json=as_json,
            )

    wanted = {"decorators", "refresh_environments"}
    options = [option for option in run_options.options() if option.name in wanted]
    params = [*options, *shared_options, _OUTPUT, output.JSON_OPTION]
    text = "Resolve the packages of the steps as a run would, without running anything, and show them."
    return click.Command("lock", callback=lock, params=params, help=text)


def _lock_file_command() -> click.Command:
    def lock(file: str, options: Sequence[str]) -> None:
        with errors_shown():
            _run_file(file, ["env", "lock", *options])
            raise DependencyError(
                f"{file} runs no flow: nothing was locked.",
                advice="Name the file that `python FILE run` starts; at its end, it makes an instance of the flow.",
            )

    params: list[click.Parameter] = [
        click.Argument(["file"], type=click.Path(exists=True, dir_okay=False)),
        click.Argument(["options"], nargs=-1, type=click.UNPROCESSED),
    ]
    return click.Command(
        "lock",
        callback=lock,
        params=params,
        context_settings={"ignore_unknown_options": True},
        options_metavar="",
        help=(
            "Resolve the packages of a flow's steps as a run would, without running anything, and show them. "
            "The options are those of `python FILE env lock`: --with, --refresh-environments, --output FOLDER, --json."
        ),
    )


def _run_file(file: str, words: Sequence[str]) -> None:
    """Runs a flow's file as `python` does; returns only if it has no flow.

    Raises:
        DependencyError: It is not Python.
    """
    import runpy  # noqa: PLC0415  one command needs it

    from k8sflow import shadowing  # noqa: PLC0415

    sys.argv = [file, *words]
    folder = str(Path(file).resolve().parent)
    shadowing.protect(folder)
    sys.path.insert(0, folder)
    try:
        runpy.run_path(file, run_name="__main__")
    except SyntaxError as error:
        raise DependencyError(
            f"{error.filename or file} can't be read as Python: line {error.lineno}: {error.msg}.",
            advice="Name the file that `python FILE run` starts.",
        ) from error


def _prune_command() -> click.Command:
    def prune(days: int) -> None:
        from k8sflow.environments.pruning import prune as remove  # noqa: PLC0415  --help needs none of it

        with errors_shown():
            count, size = remove(days)
            things = units.count(count, "environment")
            click.echo(f"Removed {things} and {units.size(size)} of files. `uv cache prune` removes uv's own cache.")

    days = click.Option(
        ["--unused-for", "days"],
        type=click.IntRange(min=0),
        default=_DAYS,
        show_default=True,
        help="Remove what no run has used for so many days; 0 for everything.",
    )
    text = "Remove environments and wheels from the cache. A run that needs one creates it again, from its lock."
    return click.Command("prune", callback=prune, params=[days], help=text)


def _report(locks: Mapping[str, Lock], none: str, folder: str | None, *, as_json: bool) -> None:
    """Shows locks, and writes them into a folder, if one was named."""
    if folder is not None and locks:
        _write(locks, Path(folder))
    if as_json:
        output.print_json([_document(lock, steps) for lock, steps in _grouped(locks)])
    elif not locks:
        click.echo(none, err=True)
    else:
        _print(locks)


def _write(locks: Mapping[str, Lock], folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for step, lock in locks.items():
            (folder / f"pylock.{step}.toml").write_text(lock.text, encoding="utf-8")
    except OSError as error:
        raise DependencyError(f"the locks can't be written to {folder}: {error.strerror}.") from error
    click.echo(f"{folder}: {units.count(len(locks), 'lock')}, for `uv pip sync`.", err=True)


def _grouped(locks: Mapping[str, Lock]) -> list[tuple[Lock, list[str]]]:
    """The locks with the steps that have each of them."""
    return [
        (lock, [step for step in locks if locks[step] == lock])
        for index, lock in enumerate(locks.values())
        if lock not in list(locks.values())[:index]
    ]


def _print(locks: Mapping[str, Lock]) -> None:
    for number, (lock, steps) in enumerate(_grouped(locks)):
        count = units.count(len(lock.packages), "package")
        title = f"{', '.join(steps)}: Python {lock.python}, {lock.platform}, {count}"
        click.echo(("\n" if number else "") + click.style(title, bold=True))
        asked = ", ".join(lock.requirements)
        click.echo(f"asked for: {asked or 'nothing'}")
        if lock.packages:
            output.print_table(["package", "version", "size", "from"], [_row(found) for found in lock.packages])


def _row(package: LockedPackage) -> list[str]:
    wheel = package.wheel
    if wheel is None:
        return [package.name, package.shown, "", "built from its source"]
    return [package.name, package.shown, units.size(wheel.size) if wheel.size else "", wheel.name]


def _document(lock: Lock, steps: Sequence[str]) -> dict[str, Any]:
    return {
        "steps": list(steps),
        "python": lock.python,
        "platform": lock.platform,
        "requirements": list(lock.requirements),
        "packages": [
            {
                "name": found.name,
                "version": found.version or None,
                "file": found.wheel.name if found.wheel else None,
                "sha256": (found.wheel.sha256 or None) if found.wheel else None,
                "size": (found.wheel.size or None) if found.wheel else None,
            }
            for found in lock.packages
        ],
        "pylock": lock.text,
    }
