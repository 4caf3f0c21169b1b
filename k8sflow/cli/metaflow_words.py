"""Options and commands of Metaflow's that k8sflow doesn't have: what to write instead."""

from __future__ import annotations

import click

from k8sflow.cli.show_errors import errors_shown
from k8sflow.errors import RunError

_OPTIONS = {
    "--artifacts-module": "k8sflow.testing.run_step(…, artifacts={…}) runs a step on others (docs/testing.md).",
    "--as-json": "--json prints JSON.",
    "--both": "logs shows both streams, unless --stdout or --stderr is given.",
    "--persist": "spin always keeps the results, and Task(…) reads them.",
    "--skip-decorators": "spin runs a step with its decorators; remove those that it should run without.",
    "--warnings": "check has no warnings: what it finds is a mistake.",
}
_COMMANDS = {
    "configure": "config set KEY VALUE writes a setting, and config import-metaflow those that Metaflow has.",
    "develop": "k8sflow has types inline, and editors need no stubs.",
    "status": "config shows the settings, doctor checks them, and runs lists the runs.",
    "tutorials": "Metaflow's tutorials run unchanged: python -m k8sflow.as_metaflow FILE run (docs/from-metaflow.md).",
}


def advice(error: click.ClickException) -> str | None:
    """The sentence about an option that a command line used; None for any other error."""
    if not isinstance(error, click.NoSuchOption):
        return None
    return _OPTIONS.get("--" + error.option_name.removeprefix("--").removeprefix("no-"))


def commands() -> list[click.Command]:
    """The commands of ``metaflow``, as errors that name the alternative."""
    return [_refused(name, sentence) for name, sentence in _COMMANDS.items()]


def _refused(name: str, sentence: str) -> click.Command:
    def refuse(words: tuple[str, ...]) -> None:
        with errors_shown():
            raise RunError(f"k8sflow has no command {' '.join((name, *words))}, which Metaflow has.", advice=sentence)

    return click.Command(
        name,
        callback=refuse,
        params=[click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
        hidden=True,
    )
