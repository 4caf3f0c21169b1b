"""``dump``: the artifacts of tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from k8sflow import units
from k8sflow.cli import completion, output
from k8sflow.cli.scope import Scope, Selection
from k8sflow.cli.show_errors import errors_shown
from k8sflow.errors import ArtifactError, K8sflowError
from k8sflow.task.safe_repr import safe_repr

if TYPE_CHECKING:
    from k8sflow.client import DataArtifact, Task

_DEFAULT_SIZE = 1000


def command(scope: Scope) -> click.Command:
    """The command ``dump``."""
    options: list[click.Parameter] = [
        completion.pathspec_argument(scope, is_required=False),
        click.Option(
            ["--max-value-size"],
            type=click.IntRange(min=0),
            default=_DEFAULT_SIZE,
            show_default=True,
            help="Print values up to this many bytes; larger ones show type and size only.",
        ),
        click.Option(["--include"], default="", metavar="NAMES", help="Comma-separated names to include."),
        click.Option(["--private"], is_flag=True, help="Include artifacts whose names start with _."),
        click.Option(
            ["--file"],
            type=click.Path(dir_okay=False),
            help="Write the values to this file, as a pickled dictionary of dictionaries, by pathspec and by name.",
        ),
        output.JSON_OPTION,
    ]

    def callback(
        pathspec: str | None,
        max_value_size: int,
        include: str,
        private: bool,  # noqa: FBT001  click calls by name
        file: str | None,
        as_json: bool,  # noqa: FBT001
    ) -> None:
        with errors_shown():
            found = scope.select(pathspec)
            names = {name.strip() for name in include.split(",") if name.strip()}
            chosen = {task.pathspec: _chosen(task, found, names, private=private) for task in found.tasks()}
            _refuse_unknown(names, chosen, found)
            if file is not None:
                _write(Path(file), chosen)
            elif as_json:
                output.print_json(
                    {task: {a.id: _document(a, max_value_size) for a in each} for task, each in chosen.items()}
                )
            else:
                for task, each in chosen.items():
                    _print(task, each, max_value_size)

    return click.Command(
        "dump",
        callback=callback,
        params=options,
        help="Show the artifacts of a task, or of all tasks of a step or a run (by default the latest one).",
    )


def _chosen(task: Task, selection: Selection, names: set[str], *, private: bool) -> list[DataArtifact]:
    """The selected artifacts of a task.

    Raises:
        NotFoundError: A named one doesn't exist.
    """
    if selection.artifact is not None:
        return [task[selection.artifact]]
    if names:
        # If there are several tasks, each shows those that it has.
        return [task[name] for name in sorted(names) if selection.task is not None or name in task]
    found = sorted(task, key=lambda artifact: artifact.id)
    return [artifact for artifact in found if private or not artifact.id.startswith("_")]


def _refuse_unknown(names: set[str], chosen: dict[str, list[DataArtifact]], selection: Selection) -> None:
    """Refuses the name of an artifact that none of the tasks has.

    Raises:
        ArtifactError: There is one.
    """
    found = {artifact.id for each in chosen.values() for artifact in each}
    if selection.artifact is None and (missing := sorted(names - found)):
        raise ArtifactError(
            f"no task of {selection.pathspec} has an artifact {missing[0]!r}.",
            advice=f"To list them: {click.get_current_context().command_path} {selection.pathspec}",
        )


def _print(pathspec: str, artifacts: list[DataArtifact], most: int) -> None:
    click.echo(click.style(pathspec, bold=True))
    longest = max((len(artifact.id) for artifact in artifacts), default=0)
    for artifact in artifacts:
        kind = artifact.type.removeprefix("builtins.")
        head = f"  {artifact.id:{longest}}  [{kind}, {units.size(artifact.size)}]"
        try:
            value = safe_repr(artifact.data) if artifact.size <= most else ""
        except K8sflowError as error:
            value = click.style(f"({error.summary})", fg="red")
        lines = value.splitlines()
        click.echo(head if not lines else f"{head}  {lines[0]}")
        for line in lines[1:]:
            click.echo(f"  {'':{longest}}  {line}")


def _document(artifact: DataArtifact, most: int) -> dict[str, Any]:
    document: dict[str, Any] = {"type": artifact.type, "size": artifact.size, "sha256": artifact.sha}
    if artifact.size > most:
        return document
    try:
        value = artifact.data
    except K8sflowError as error:
        return {**document, "error": str(error)}
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return {**document, "repr": safe_repr(value)}
    return {**document, "value": value}


def _write(file: Path, chosen: dict[str, list[DataArtifact]]) -> None:
    from k8sflow.client.artifact_classes import dumps  # noqa: PLC0415  --help reads no runs

    values = {pathspec: {artifact.id: artifact.data for artifact in each} for pathspec, each in chosen.items()}
    try:
        file.write_bytes(dumps(values))
    except OSError as error:
        raise ArtifactError(f"the values can't be written to {file}: {error.strerror}.") from error
    except Exception as error:  # a value's class is the user's code
        raise ArtifactError(
            f"the values can't be pickled: {type(error).__name__}: {error}.",
            cause="A class of one of them fails when its instances are pickled again.",
            advice="Leave it out: --include names the artifacts to write.",
        ) from error
    count = sum(map(len, values.values()))
    click.echo(
        f"{count} artifact{'' if count == 1 else 's'} of {len(values)} task{'' if len(values) == 1 else 's'} "
        f"written to {file}."
    )
