"""``code``: the code of a run, compared with a folder or with that of another run, and copied."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from k8sflow.cli.packages import code_of
from k8sflow.cli.scope import Scope
from k8sflow.cli.show_errors import errors_shown
from k8sflow.errors import PackageError

if TYPE_CHECKING:
    from k8sflow.client import Run

_FOLDER = click.Path(file_okay=False)


def command(scope: Scope) -> click.Group:
    """The commands ``code diff``, ``diff-runs`` and ``pull``."""
    group = click.Group("code", help="Compare and copy the code of runs that have a code package.")
    what = "RUN" if scope.flow is not None else "FLOW/RUN"
    run = click.Argument(["run"], metavar=what)

    def diff(run: str, folder: str) -> None:
        with errors_shown():
            found = scope.run(run)
            files = _files(found)
            here = {name: text for name in files if (text := _text_in(Path(folder) / name)) is not None}
            _print(files, here, found.pathspec, folder)

    def diff_runs(run: str, other: str) -> None:
        with errors_shown():
            first, second = scope.run(run), scope.run(other)
            _print(_files(first), _files(second), first.pathspec, second.pathspec)

    def pull(run: str, folder: str | None) -> None:
        with errors_shown():
            found = scope.run(run)
            code = code_of(found)
            target = Path(folder or found.pathspec.replace("/", "-").lower())
            if target.exists() and any(target.iterdir()):
                raise PackageError(f"the folder {target} is not empty.", advice="Give another one: --dir FOLDER.")
            code.extract(target)
            click.echo(f"{target}: the code of {found.pathspec}")

    where = click.Option(
        ["--dir", "folder"], type=_FOLDER, default=".", show_default=True, help="The folder with the flow's file."
    )
    target = click.Option(["--dir", "folder"], type=_FOLDER, help="The new folder (default: FLOW-RUN).")
    other = click.Argument(["other"], metavar=what)
    for made in (
        click.Command(
            "diff", callback=diff, params=[run, where], help="Show how the files of a run differ from a folder's."
        ),
        click.Command(
            "diff-runs", callback=diff_runs, params=[run, other], help="Show how the code of two runs differs."
        ),
        click.Command("pull", callback=pull, params=[run, target], help="Copy the code of a run into a new folder."),
    ):
        group.add_command(made)
    return group


def _files(run: Run) -> dict[str, str]:
    """The files of a run's code package by name; those that are not text are described by their hash.

    Raises:
        PackageError: It has none.
    """
    with code_of(run).tarball as tar:
        found = ((entry.name, tar.extractfile(entry)) for entry in tar if entry.isfile())
        return {name: _text(file.read()) for name, file in found if file is not None}


def _text_in(file: Path) -> str | None:
    """The content of a file; None if it doesn't exist.

    Raises:
        PackageError: It can't be read.
    """
    try:
        return _text(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PackageError(f"{file} can't be read: {error.strerror}.") from error


def _text(data: bytes) -> str:
    import hashlib  # noqa: PLC0415  as above

    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return f"binary, sha256 {hashlib.sha256(data).hexdigest()}\n"


def _print(before: Mapping[str, str], after: Mapping[str, str], first: str, second: str) -> None:
    for line in _differences(before, after, first, second):
        click.echo(line)


def _differences(before: Mapping[str, str], after: Mapping[str, str], first: str, second: str) -> Iterator[str]:
    """The lines of a unified diff; none where all files are the same."""
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        yield from difflib.unified_diff(
            (old or "").splitlines(),
            (new or "").splitlines(),
            "/dev/null" if old is None else f"{first}/{name}",
            "/dev/null" if new is None else f"{second}/{name}",
            lineterm="",
        )
