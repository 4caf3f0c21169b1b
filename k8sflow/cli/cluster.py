"""``python flow.py kubernetes``: the runs of a flow as the cluster has them."""

from __future__ import annotations

import shutil
import textwrap
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from k8sflow import config, debug_log, units
from k8sflow.cli import completion, logs, output, whose
from k8sflow.cli.errors import errors_shown
from k8sflow.cli.scope import Scope
from k8sflow.errors import K8sflowError, NotFoundError
from k8sflow.flow.definition import FlowDefinition
from k8sflow.runtime.request import code_folder

if TYPE_CHECKING:
    from k8sflow.kubernetes.live import LiveTask
    from k8sflow.runtime.commands.on_cluster import OnCluster

_TITLE_WIDTH = 15
_WIDEST = 120


def command(declared: FlowDefinition) -> click.Group:
    """The commands ``kubernetes list``, ``kill``, ``logs`` and ``describe``."""
    scope = Scope.of_flow(declared.flow)
    group = click.Group("kubernetes", help="Look at the Jobs of this flow's runs in the cluster, and end runs.")
    for made in (
        _list_command(declared, scope),
        _kill_command(declared, scope),
        _logs_command(declared, scope),
        _describe_command(declared, scope),
    ):
        group.add_command(made)
    return group


def _cluster(declared: FlowDefinition) -> OnCluster:
    from k8sflow.runtime.commands.on_cluster import OnCluster  # noqa: PLC0415  --help needs no cluster

    return OnCluster.of(declared, debug_log.configure(config.load(code_folder(declared.flow))))


def _list_command(declared: FlowDefinition, scope: Scope) -> click.Command:
    def callback(run_id: str | None, user: str | None, my_runs: bool, ended: bool, as_json: bool) -> None:  # noqa: FBT001
        with errors_shown():
            from k8sflow.runtime.commands.on_cluster import selected  # noqa: PLC0415  as above

            owner = whose.user(run_id, user, my_runs=my_runs)
            tasks = selected(_cluster(declared), run_id, owner, ended=ended)
            if as_json:
                output.print_json([_document(task) for task in tasks])
            elif tasks:
                _print_tasks(tasks)
            else:
                click.echo("No task was found." if ended else "No unfinished task was found.", err=True)

    return click.Command(
        "list", callback=callback,
        params=[
            *whose.options(scope),
            click.Option(["--all", "ended"], is_flag=True, help="Also finished tasks whose Jobs are still kept."),
            output.JSON_OPTION,
        ],
        short_help="List unfinished tasks in the cluster.",
        help="List the unfinished tasks of this flow's runs that have Jobs in the cluster.",
    )  # fmt: skip


def _document(task: LiveTask) -> dict[str, Any]:
    return {
        "run": task.run,
        "step": task.step,
        "task": task.task,
        "attempt": task.attempt,
        "state": task.phase,
        "why": None if task.why_waiting is None else task.why_waiting.explained.summary,
        "node": task.node or None,
        "job": task.job_name,
        "pod": task.pod_name or None,
        "created": output.utc_time(task.created),
    }


def _print_tasks(tasks: Sequence[LiveTask]) -> None:
    now = time.time()
    output.print_table(
        ["run", "task", "attempt", "state", "age", "node", "pod"],
        [
            [
                task.run,
                f"{task.step}/{task.task}",
                str(task.attempt),
                task.phase,
                units.duration(max(0.0, now - task.created)),
                task.node or "-",
                task.pod_name or "-",
            ]
            for task in tasks
        ],
    )
    for reason in dict.fromkeys(task.why_waiting.explained.summary for task in tasks if task.why_waiting is not None):
        click.secho(f"Waiting: {reason}", fg="yellow")


def _kill_command(declared: FlowDefinition, scope: Scope) -> click.Command:
    def callback(run_id: str | None, user: str | None, my_runs: bool, yes: bool) -> None:  # noqa: FBT001
        with errors_shown():
            from k8sflow.cli.terminal import Terminal  # noqa: PLC0415  --help needs no runtime
            from k8sflow.runtime.commands import on_cluster  # noqa: PLC0415  as above

            owner = whose.user(run_id, user, my_runs=my_runs)
            cluster = _cluster(declared)
            runs = on_cluster.runs_to_kill(cluster, run_id, owner)
            if not runs:
                click.echo("No run with unfinished tasks was found.", err=True)
                return
            names = ", ".join(run.pathspec for run in runs)
            if not yes and not whose.confirmed(f"Cancel {names}?"):
                return
            failures = [failure for run in runs if (failure := _killed(cluster, run, Terminal())) is not None]
            if failures:
                raise failures[0]

    return click.Command(
        "kill", callback=callback,
        params=[*whose.options(scope), click.Option(["--yes", "-y"], is_flag=True, help="Don't ask.")],
        short_help="Cancel runs, whichever machine drives them.",
        help="Cancel runs, whichever machine drives them: by default your latest one. Their Jobs are deleted, and the "
        "drivers end them as cancelled.",
    )  # fmt: skip


def _killed(cluster: OnCluster, run: Any, terminal: Any) -> K8sflowError | None:
    """Ends one of several runs; the error if that fails, so that the others are ended too."""
    from k8sflow.runtime.commands.on_cluster import kill  # noqa: PLC0415  as above

    try:
        kill(cluster, run, terminal)
    except K8sflowError as error:
        return error
    return None


def _place(scope: Scope) -> click.Parameter:
    return click.Argument(["place"], metavar="[RUN/]STEP[/TASK]", shell_complete=completion.names_in(scope))


def _found(cluster: OnCluster, place: str) -> tuple[str, list[LiveTask], str]:
    """The namespace, the tasks with Jobs that a person means, the latest attempt last, and their pathspec.

    Raises:
        NotFoundError: There is no such run, or no step was named.
    """
    reference = cluster.runs.resolve(place, cluster.runs.latest_own)
    run = reference.run
    if reference.step is None or reference.artifact is not None:
        raise NotFoundError(f"{place!r} is not a task.", advice="Name one, as STEP/TASK or RUN/STEP/TASK.")
    known = run.read().steps
    if reference.step not in known:
        raise NotFoundError(f"{run.pathspec} has no step {reference.step!r}.", advice=f"Its steps: {', '.join(known)}.")
    tasks = [
        task for task in cluster.tasks(run.run)
        if task.step == reference.step and (reference.task is None or task.has(reference.task))
    ]  # fmt: skip
    pathspec = "/".join(filter(None, [run.pathspec, reference.step, reference.task]))
    return cluster.namespace_of(run), sorted(tasks, key=lambda task: (task.task, task.attempt)), pathspec


def _logs_command(declared: FlowDefinition, scope: Scope) -> click.Command:
    def callback(place: str, follow: bool) -> None:  # noqa: FBT001  click calls by name
        with errors_shown():
            cluster = _cluster(declared)
            namespace, tasks, pathspec = _found(cluster, place)
            last = tasks[-1] if tasks else None
            if last is not None and len({task.task for task in tasks}) > 1:
                listed = ", ".join(f"{task.step}/{task.task}" for task in tasks[:5])
                raise NotFoundError(f"{pathspec} has several tasks: {listed}, …", advice="Name one of them.")
            # The log of a pod with several tasks has the lines of all of them.
            if (
                last is None
                or last.pod is None
                or len(last.tasks) > 1
                or not _shown(cluster, namespace, last, follow=follow)
            ):
                click.echo(f"{pathspec} has no pod with a log of its own; this is its output in the bucket.", err=True)
                logs.print_stored(scope, place, follow=follow)

    return click.Command(
        "logs", callback=callback,
        params=[
            _place(scope),
            click.Option(["--follow", "-f"], is_flag=True, help="Print new output until the pod ends."),
        ],
        short_help="Print the output of a task's pod.",
        help="Print the output of a task from its pod, as it is written; without a pod, what the bucket has.",
    )  # fmt: skip


def _shown(cluster: OnCluster, namespace: str, task: LiveTask, *, follow: bool) -> bool:
    from k8sflow.runtime.commands.pod_output import show_output  # noqa: PLC0415  as above

    def show(stream: str, data: bytes) -> None:
        click.echo(data, nl=False, err=stream == "stderr")

    return cluster.ask(lambda api: show_output(api, namespace, task, show, follow=follow))


def _describe_command(declared: FlowDefinition, scope: Scope) -> click.Command:
    def callback(place: str, as_json: bool) -> None:  # noqa: FBT001  click calls by name
        with errors_shown():
            cluster = _cluster(declared)
            namespace, tasks, pathspec = _found(cluster, place)
            if not tasks:
                raise NotFoundError(
                    f"{pathspec} has no Job in namespace {namespace!r}.",
                    advice="It hasn't started, or its Job was deleted: an hour after its end, or "
                    f"when the run failed or was cancelled. `logs {place}` shows its output.",
                )
            if as_json:
                output.print_json([_described_document(cluster, namespace, task) for task in tasks])
                return
            for number, task in enumerate(tasks):
                if number:
                    click.echo()
                _print_described(cluster, namespace, task)

    return click.Command(
        "describe", callback=callback, params=[_place(scope), output.JSON_OPTION],
        short_help="Describe a task's Job and pod.",
        help="Describe a task's Job and pod: state, diagnosis, node, requests, conditions and events.",
    )  # fmt: skip


def _described_document(cluster: OnCluster, namespace: str, task: LiveTask) -> dict[str, Any]:
    from k8sflow.runtime.commands.describe import document  # noqa: PLC0415  as above

    return _document(task) | cluster.ask(lambda api: document(api, namespace, task))


def _print_described(cluster: OnCluster, namespace: str, task: LiveTask) -> None:
    from k8sflow.runtime.commands.describe import describe  # noqa: PLC0415  as above

    for title, text in cluster.ask(lambda api: describe(api, namespace, task)):
        _print_pair(title, text)


def _print_pair(title: str, text: str) -> None:
    width = max(min(shutil.get_terminal_size().columns, _WIDEST) - _TITLE_WIDTH, 30)
    lines = [
        wrapped
        for line in text.splitlines()
        for wrapped in textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""]
    ]
    click.echo(click.style(title.ljust(_TITLE_WIDTH), bold=True) + f"\n{' ' * _TITLE_WIDTH}".join(lines))
