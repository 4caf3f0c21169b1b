"""``python flow.py resume``, ``attach`` and ``spin``: commands that continue or repeat an earlier run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from k8sflow import config, debug_log
from k8sflow.cli import before_command, completion, own_options, run_options
from k8sflow.cli.scope import Scope
from k8sflow.cli.show_errors import errors_shown, leave
from k8sflow.flow.definition import FlowDefinition
from k8sflow.runtime.request import code_folder, with_default_decorators

if TYPE_CHECKING:
    from k8sflow.runtime.core.actions import RunEnd

# The commands that take the configs of an earlier run, so that the flow's mutators have to wait for these.
NAMES = ("resume", "attach", "spin")


def is_called(arguments: Sequence[str]) -> bool:
    """True if a command line is one of these commands."""
    return before_command.command_of(arguments) in NAMES


def commands(
    declared: FlowDefinition, shared: Sequence[click.Parameter], parameters: Sequence[click.Option]
) -> Iterator[click.Command]:
    """The commands of a flow.

    Args:
        declared: What the flow declares.
        shared: The options that ``run`` has too: those of configs and of the project.
        parameters: The options of the flow's parameters.
    """
    yield _resume_command(declared, shared, [_optional(option) for option in parameters])
    yield _attach_command(declared)
    yield _spin_command(declared)


def _resume_command(
    declared: FlowDefinition, shared: Sequence[click.Parameter], parameters: Sequence[click.Parameter]
) -> click.Command:
    own: list[click.Parameter] = [
        click.Argument(["step"], required=False, shell_complete=completion.steps_of(declared.flow)),
        click.Option(
            ["--origin-run-id", "origin"],
            help="The run to resume (default: the latest one).",
            shell_complete=completion.runs_in(Scope.of_flow(declared.flow)),
        ),
        click.Option(
            ["--dry-run"], is_flag=True, help="Print the plan, with the tasks to clone and to run, and the reasons."
        ),
        *run_options.options(),
        *shared,
    ]

    def callback(
        step: str | None,
        origin: str | None,
        dry_run: bool,  # noqa: FBT001  click calls by name
        **values: Any,
    ) -> None:
        context = click.get_current_context()
        with errors_shown():
            request = with_default_decorators(run_options.request(declared, values))
            if dry_run:
                run_options.refuse_page(request)
            given = [
                key.removeprefix("parameter_")
                for key in values
                if key.startswith("parameter_") and context.get_parameter_source(key) is ParameterSource.COMMANDLINE
            ]
            from k8sflow.runtime.commands.resume import resume  # noqa: PLC0415  --help needs no runtime

            leave(resume(request, origin, step, before_command.terminal(), given=given, dry_run=dry_run))

    return click.Command(
        "resume",
        callback=callback,
        params=[*own_options.making_way(own, declared.parameters.values()), *parameters],
        short_help="Resume an earlier run in a new one.",
        help="Resume an earlier run in a new one: clone its finished tasks and run the rest, or all from STEP on.\n\n"
        "Parameters come from the earlier run; the code is the current code.",
    )


def _attach_command(declared: FlowDefinition) -> click.Command:
    def attach(**values: Any) -> RunEnd:
        from k8sflow.runtime.commands.attach import attach  # noqa: PLC0415  --help needs no runtime

        return attach(declared, **values)

    return click.Command(
        "attach",
        callback=_timed(declared, attach),
        params=[
            click.Argument(["run"], shell_complete=completion.runs_in(Scope.of_flow(declared.flow))),
            click.Option(["--max-workers"], type=click.IntRange(min=1), help="How many tasks run at a time."),
        ],
        short_help="Take over a run whose driver died, or follow a run.",
        help="Take over RUN if its driver has died; follow it if its driver is alive.\n\n"
        "The exit code is that of the run.",
    )


def _spin_command(declared: FlowDefinition) -> click.Command:
    def spin(task: str, **values: Any) -> RunEnd:
        from k8sflow.runtime.commands.spin import spin  # noqa: PLC0415  --help needs no runtime

        return spin(declared, text=task, environment=before_command.environment(), **values)

    return click.Command(
        "spin",
        callback=_timed(declared, spin),
        params=[
            click.Argument(["task"], shell_complete=completion.names_in(Scope.of_flow(declared.flow))),
            click.Option(
                ["--pathspec-file"],
                type=click.Path(dir_okay=False),
                help="Write the pathspec of the task that runs to this file: Task(…) reads its results.",
            ),
        ],
        short_help="Re-run one step on its original inputs.",
        help="Re-run one step on the inputs that it had in an earlier run, with the current code.\n\n"
        "TASK is STEP, STEP/TASK, RUN/STEP or RUN/STEP/TASK; by default the latest run's task that has failed, or the "
        "first one. Its results are kept separately from all runs.",
    )


def _timed(declared: FlowDefinition, work: Callable[..., RunEnd]) -> Callable[..., None]:
    """The callback of a command: adds the settings, the terminal and the time of the request to the arguments."""

    def callback(**values: Any) -> None:
        asked_at = time.monotonic()
        with errors_shown():
            settings = debug_log.configure(config.load(code_folder(declared.flow)))
            leave(work(settings=settings, console=before_command.terminal(), asked_at=asked_at, **values))

    return callback


def _optional(option: click.Option) -> click.Option:
    """The option of a parameter, hidden and never required: usually the earlier run has the value."""
    option.required = False
    option.hidden = True
    return option
