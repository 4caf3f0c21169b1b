"""Commands under Metaflow's names: ``output-dot``, ``help``, ``version``, and those of other schedulers."""

from __future__ import annotations

import click

import k8sflow
from k8sflow.cli import output
from k8sflow.cli.show_errors import errors_shown
from k8sflow.errors import RunError
from k8sflow.flow.compile import checked
from k8sflow.flow.definition import FlowDefinition

_SCHEDULERS = {
    "argo-workflows": "Argo Workflows",
    "step-functions": "AWS Step Functions",
    "airflow": "Airflow",
}


def commands(definition: FlowDefinition, group: click.Group) -> list[click.Command]:
    """The commands.

    Args:
        definition: The flow.
        group: The commands of the flow.
    """

    def output_dot() -> None:
        from k8sflow.drawing import markup  # noqa: PLC0415  the other commands draw nothing

        with errors_shown():
            click.echo(markup.dot(checked(definition).graph), nl=False)

    return [
        click.Command("output-dot", callback=output_dot, help="The same as graph --format dot.", hidden=True),
        click.Command(
            "output-raw",
            callback=group.commands["show"].callback,
            params=[output.JSON_OPTION],
            help="The same as show.",
            hidden=True,
        ),
        _help(group),
        click.Command("version", callback=_version, help="Print the version of k8sflow.", hidden=True),
        *(_refused(name, system) for name, system in _SCHEDULERS.items()),
    ]


def _version() -> None:
    click.echo(f"k8sflow {k8sflow.__version__}")


def _help(group: click.Group) -> click.Command:
    @click.pass_context
    def show(context: click.Context, name: str | None) -> None:
        outer = context.parent
        assert outer is not None
        if name is None:
            click.echo(group.get_help(outer))
            return
        if (named := group.commands.get(name)) is None:
            raise click.UsageError(f"there is no command {name!r}.", outer)
        with click.Context(named, info_name=name, parent=outer) as inner:
            click.echo(named.get_help(inner))

    argument = click.Argument(["name"], required=False, metavar="[COMMAND]")
    return click.Command("help", callback=show, params=[argument], help="The same as --help.", hidden=True)


def _refused(name: str, system: str) -> click.Command:
    """A command of Metaflow's for another scheduler, which says how a flow is deployed here."""

    def refuse(words: tuple[str, ...]) -> None:
        with errors_shown():
            raise RunError(
                f"k8sflow doesn't deploy flows to {system}: {' '.join([name, *words])}.",
                advice="run --with kubernetes --detach starts a run that k8sflow's controller sees to in the cluster; "
                "kubernetes list shows such runs and kubernetes kill ends them (docs/operators.md). A CronJob starts "
                "runs by the clock: its container calls the flow's file.",
            )

    return click.Command(
        name,
        callback=refuse,
        params=[click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True},
        add_help_option=False,
        hidden=True,
    )
