"""``package``: the code package of a run, or the one that a new run would have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from k8sflow import config, units
from k8sflow.cli import output
from k8sflow.cli.scope import Scope
from k8sflow.cli.show_errors import errors_shown
from k8sflow.errors import PackageError
from k8sflow.flow.spec import FlowSpec
from k8sflow.runtime.request import code_folder, code_package

if TYPE_CHECKING:
    from k8sflow.client import Run
    from k8sflow.client.code import Code


def command(scope: Scope, flow: type[FlowSpec] | None = None) -> click.Group:
    """The commands ``package info``, ``list`` and ``save``.

    Args:
        scope: The runs.
        flow: The flow whose package is meant where no run is named.
    """
    group = click.Group("package", help="Look at the code package of a run on Kubernetes.")
    run: click.Parameter = click.Argument(["run"], metavar="FLOW/RUN")
    if flow is not None:
        run = click.Option(["--run-id", "run"], help="The run (default: the package that a new run would have).")

    def show(run: str | None, as_json: bool) -> None:  # noqa: FBT001  click calls by name
        with errors_shown():
            files = _files(_archive(scope, flow, run))
            if as_json:
                output.print_json([{"name": name, "size": size} for name, size in files])
                return
            for name, size in files:
                click.echo(f"{units.size(size):>10}  {name}")
            total = sum(size for _, size in files)
            click.echo(f"{units.count(len(files), 'file')}, {units.size(total)}.", err=True)

    def save(run: str | None, file: str) -> None:
        with errors_shown():
            archive = _archive(scope, flow, run)
            try:
                with Path(file).open("xb") as target:
                    target.write(archive)
            except FileExistsError as error:
                raise PackageError(f"{file} is there already.", advice="Give another name.") from error
            except OSError as error:
                raise PackageError(f"the package can't be written to {file}: {error.strerror}.") from error
            click.echo(f"{file}: {units.size(len(archive))}")

    group.add_command(_info_command(scope, flow, run))
    group.add_command(
        click.Command("list", callback=show, params=[run, output.JSON_OPTION], help="List the files of the package.")
    )
    group.add_command(
        click.Command(
            "save",
            callback=save,
            params=[run, click.Argument(["file"])],
            help="Write the package to a file, a tar.gz archive.",
        )
    )
    return group


def _archive(scope: Scope, flow: type[FlowSpec] | None, run: str | None) -> bytes:
    if run is None and flow is not None:
        found = code_package(flow, config.load(code_folder(flow)))
        if found.warning:
            click.echo(f"Warning: {found.warning}", err=True)
        return found.archive
    return code_of(scope.run(run)).archive


def code_of(run: Run) -> Code:
    """The code package of a run.

    Raises:
        PackageError: It has none.
    """
    if run.code is None:
        raise PackageError(
            f"the run {run.pathspec} has no code package.",
            cause=f"All of it ran on the machine where it was started, from {run.record.source or run.record.file}.",
            advice="A run with a step on Kubernetes has one.",
        )
    return run.code


def _info_command(scope: Scope, flow: type[FlowSpec] | None, parameter: click.Parameter) -> click.Command:
    def info(run: str | None, as_json: bool) -> None:  # noqa: FBT001  click calls by name
        with errors_shown():
            archive = _archive(scope, flow, run)
            _print_info(archive, len(_files(archive)), as_json=as_json)

    options = [parameter, output.JSON_OPTION]
    return click.Command("info", callback=info, params=options, help="Print the size and the hash of the package.")


def _print_info(archive: bytes, files: int, *, as_json: bool) -> None:
    import hashlib  # noqa: PLC0415  --help needs no hash

    facts = {"sha256": hashlib.sha256(archive).hexdigest(), "files": files, "size": len(archive)}
    if as_json:
        output.print_json(facts)
        return
    output.print_pair("sha256", str(facts["sha256"]))
    output.print_pair("files", str(files))
    output.print_pair("size", units.size(len(archive)))


def _files(archive: bytes) -> list[tuple[str, int]]:
    import io  # noqa: PLC0415  --help opens no archive
    import tarfile  # noqa: PLC0415

    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        return [(entry.name, entry.size) for entry in tar]
