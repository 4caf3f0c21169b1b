"""``python flow.py …``: the commands of a flow."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from k8sflow import config, debug_log, metaflow_modules, shadowing
from k8sflow.cli import (
    batch,
    before_command,
    cache,
    completion,
    datastore,
    env,
    graphs,
    kubernetes,
    metaflow_commands,
    metaflow_words,
    own_options,
    reading,
    resume,
    run_options,
    runner_call,
)
from k8sflow.cli.scope import Scope
from k8sflow.cli.show_errors import errors_shown, execute, leave
from k8sflow.errors import ParameterError
from k8sflow.flow import missing_module
from k8sflow.flow.compile import declared, refuse_unusable
from k8sflow.flow.config_expressions import run_with
from k8sflow.flow.config_set import ConfigSet
from k8sflow.flow.decorators.mutators import mutated
from k8sflow.flow.decorators.project import branch_name
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.parameters import Parameter
from k8sflow.flow.spec import FlowSpec
from k8sflow.runtime.request import code_folder, with_default_decorators
from k8sflow.task import streams

if TYPE_CHECKING:
    from k8sflow.storage.cache_plan import CachePlan


def main(instance: FlowSpec) -> None:
    """Runs the command line of a flow; does not return.

    Args:
        instance: What the flow's file has made of its class.
    """
    flow = type(instance)
    missing_module.is_imported()
    streams.take_up()
    shadowing.protect()  # the flow's file may have added folders to sys.path
    with errors_shown():
        if (call := runner_call.received(sys.argv[1:])) is not None:
            sys.argv[1:] = [*call.words, call.command]
        command, parameters = _commands(flow, vars(instance))
        if call is not None:
            sys.argv[1:] = runner_call.expanded(command, call, parameters)
        execute(
            command,
            advice=metaflow_words.advice,
            prog_name=" ".join(["python", *metaflow_modules.interpreter_options(), sys.argv[0]]),
            auto_envvar_prefix="K8SFLOW",
            complete_var=completion.variable(completion.program_of(sys.argv[0])),
        )


def _commands(flow: type[FlowSpec], attributes: Mapping[str, Any]) -> tuple[click.Group, Mapping[str, Parameter]]:
    """The commands of a flow, and its parameters.

    Raises:
        FlowDefinitionError: A parameter or config is so wrong that there can be no command line.
        ParameterError: A config on the command line is unknown, or its value can't be read.
    """
    is_step = sys.argv[1:2] in (["step"], ["tasks"])  # a task takes the configs that its run was started with
    configs = ConfigSet(flow)
    if not is_step:
        configs = ConfigSet.from_arguments(flow, own_options.config_words(flow, sys.argv[1:]))
    run_with(configs)
    definition = declared(flow, configs, attributes)
    if not is_step and not resume.is_called(sys.argv[1:]):
        definition = mutated(definition)
    refuse_unusable(definition)
    return _group(definition), definition.parameters


def _group(definition: FlowDefinition) -> click.Group:
    """The commands of a flow.

    Args:
        definition: What the flow declares; the commands that need more compile it.
    """
    flow = definition.flow

    @click.pass_context
    def begin(context: click.Context) -> None:
        if context.invoked_subcommand is None:
            context.invoke(group.commands["check"], as_json=False)
            click.echo(f"{context.command_path} --help lists the commands.")
        before_command.refuse_misplaced(context)

    group = click.Group(
        help=(flow.__doc__ or f"The flow {flow.__name__}.").strip(),
        params=[*_shared_options(definition), *before_command.options()],
        callback=begin,
        invoke_without_command=True,
    )
    group.add_command(_run_command(definition))
    program = completion.program_of(sys.argv[0])
    parameters = [_parameter_option(parameter) for parameter in definition.parameters.values()]
    continuing = resume.commands(definition, _shared_options(definition), parameters)
    for command in (
        *continuing,
        *graphs.commands(definition),
        kubernetes.command(definition),
        batch.command(definition),
        cache.group(Scope.of_flow(flow), lambda step: _current_plan(definition, step)),
        *reading.commands(flow),
        env.command(Scope.of_flow(flow), definition, _shared_options(definition)),
        completion.command(group, program),
        *_commands_of_pods(definition),
    ):
        group.add_command(command)
    for command in metaflow_commands.commands(definition, group):
        group.add_command(command)
    datastore.add_to(group)
    return group


def _commands_of_pods(definition: FlowDefinition) -> list[click.Command]:
    """The commands run by the agent in a pod, and by hand when debugging."""
    return [
        click.Command(
            "step",
            callback=lambda task, store, folder: _step(definition, task, store, folder),
            params=[
                click.Argument(["task"]),
                click.Option(["--store"], required=True),
                click.Option(["--folder"]),
            ],
            hidden=True,
            help="Run one task, given as JSON, in this process.",
        ),
        click.Command(
            "tasks",
            callback=lambda **values: _tasks(definition, **values),
            params=[
                click.Argument(["tasks"]),
                click.Option(["--store"], required=True),
                click.Option(["--at-a-time"], type=int, default=1),
                click.Option(["--finish-within"], type=float, default=0.0),
            ],
            hidden=True,
            help="Run tasks, given as JSON, as processes in a pod that they share.",
        ),
    ]


def _current_plan(definition: FlowDefinition, step: str) -> CachePlan | None:
    """The plan of ``@cache`` for a step that follows from the current code."""
    from k8sflow.runtime.caching.current import plan_of_current_code  # noqa: PLC0415  --help needs no runtime

    return plan_of_current_code(definition, step)


def _run_command(definition: FlowDefinition) -> click.Command:
    parameters = definition.parameters.values()
    own = [
        *run_options.options(),
        click.Option(["--dry-run", "is_dry_run"], is_flag=True, help="Only print its manifests and requests to AWS."),
        *_shared_options(definition),
    ]
    options = [*own_options.making_way(own, parameters), *map(_parameter_option, parameters)]

    def callback(*, is_dry_run: bool, **values: Any) -> None:
        with errors_shown():
            request = with_default_decorators(run_options.request(definition, values))
            if is_dry_run:
                run_options.refuse_page(request)
                from k8sflow.runtime.commands.manifests import manifests  # noqa: PLC0415  --help needs no runtime

                click.echo(manifests(request), nl=False)
                return
            from k8sflow.runtime.commands.run import run  # noqa: PLC0415  --help needs no runtime

            leave(run(request, before_command.terminal()))

    return click.Command("run", callback=callback, params=options, help=f"Run {definition.name} from its start.")


def _shared_options(definition: FlowDefinition) -> list[click.Parameter]:
    """The options that may be before the command or after it."""
    return [*_config_options(definition), *_project_options(definition)]


def _config_options(definition: FlowDefinition) -> list[click.Parameter]:
    """The options that give configs, which are read before all others; they may be before the command or after it."""
    listed = "; ".join(definition.configs.help())
    of_flow = f" This flow has {listed}." if listed else ""
    return [
        click.Option(
            ["--config"],
            nargs=2,
            multiple=True,
            expose_value=False,
            metavar="NAME FILE",
            help=f"Read a config.{of_flow}",
        ),
        click.Option(
            ["--config-value"], nargs=2, multiple=True, expose_value=False, metavar="NAME JSON", help="Set a config."
        ),
    ]


def _project_options(definition: FlowDefinition) -> list[click.Parameter]:
    """The options of a flow in a project; they may be before the command or after it."""
    if not any(decoration.name == "project" for decoration in definition.decorations):
        return []

    def keep(context: click.Context, option: click.Parameter, value: Any) -> None:
        if value is None:
            return
        if option.name == "branch":
            try:
                branch_name(value)
            except ValueError as error:
                raise click.BadParameter(f"{error}.", context, option) from error
        context.meta.setdefault(run_options.PROJECT, {})[option.name] = value

    return [
        click.Option(["--branch"], callback=keep, expose_value=False, help="The branch of the project."),
        click.Option(
            ["--production/--no-production"],
            default=None,
            callback=keep,
            expose_value=False,
            help="Run as the project's production.",
        ),
    ]


def _parameter_option(parameter: Parameter) -> click.Option:
    # click takes a flag that is not given for False, and an option with a default for one that is given.
    default: dict[str, Any] = {"default": None} if parameter.is_flag else {}
    return click.Option(
        [*own_options.spellings(parameter), f"parameter_{parameter.attribute}"],
        hidden=parameter.hidden,
        metavar=None if parameter.is_flag else parameter.type_name.upper(),
        multiple=parameter.multiple,
        required=parameter.required and parameter.default is None and not parameter.is_late,
        help=f"{parameter.help} {_note(parameter)}".strip(),
        envvar=_variable(parameter),
        allow_from_autoenv=False,
        callback=_converted(parameter),
        **default,
    )


def _variable(parameter: Parameter) -> str | None:
    """The environment variable that gives the parameter; None where there can't be one of this name."""
    name = f"K8SFLOW_RUN_{parameter.name.replace('-', '_').upper()}"
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # the C locale has ASCII alone
        return None
    return name


def _note(parameter: Parameter) -> str:
    if parameter.required:
        return "[required]"
    if not parameter.show_default:
        return ""
    if parameter.is_late:
        return "[default: made when the run starts]"
    return f"[default: {parameter.default_text}]" if parameter.default is not None else "[no default]"


def _converted(parameter: Parameter) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def convert(context: click.Context, option: click.Parameter, text: Any) -> Any:
        if text is None or (parameter.multiple and not text):  # not given
            return None
        source = context.get_parameter_source(str(option.name))
        where = f"{option.envvar}, which is" if source is ParameterSource.ENVIRONMENT else "the value"
        try:
            return parameter.convert(text, where)
        except ParameterError as error:
            raise click.BadParameter(f"{error.summary} {error.advice}", context, option) from error

    return convert


def _step(definition: FlowDefinition, task: str, store: str, folder: str | None) -> None:
    from k8sflow.runtime.commands.step import run_task  # noqa: PLC0415  --help needs no runtime
    from k8sflow.storage.run_store import RUNS  # noqa: PLC0415  as above

    with errors_shown():
        settings = debug_log.configure(config.load(code_folder(definition.flow)))
        sys.exit(run_task(definition, settings, task, store, folder or RUNS))


def _tasks(definition: FlowDefinition, **values: Any) -> None:
    from k8sflow.runtime.commands.tasks import Request, run_tasks  # noqa: PLC0415  --help needs no runtime

    with errors_shown():
        settings = debug_log.configure(config.load(code_folder(definition.flow)))
        sys.exit(run_tasks(definition, settings, Request(**values)))
