"""``python flow.py kubernetes``: the runs of a flow as the cluster has them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from k8sflow import config, debug_log, units
from k8sflow.cli import logs, output, remote_runs
from k8sflow.cli.scope import Scope
from k8sflow.cli.show_errors import errors_shown
from k8sflow.errors import NotFoundError
from k8sflow.flow.definition import FlowDefinition
from k8sflow.runtime.request import code_folder

if TYPE_CHECKING:
    from k8sflow.kubernetes.live import LiveTask
    from k8sflow.runtime.commands.on_cluster import OnCluster
    from k8sflow.storage.run_store import RunStore

_LOOK_SECONDS = 1.0


def command(declared: FlowDefinition) -> click.Group:
    """The commands ``kubernetes list``, ``kill``, ``logs`` and ``describe``."""
    scope = Scope.of_flow(declared.flow)
    group = click.Group("kubernetes", help="Look at the Jobs of this flow's runs in the cluster, and end runs.")
    ended = "Also finished tasks whose Jobs are still kept."
    effect = "Their Jobs are deleted, and the drivers end them as cancelled."

    def cluster() -> OnCluster:
        return _cluster(declared)

    for made in (
        remote_runs.list_command(
            scope, cluster, document=_document, show=_print_tasks, noun="task", ended=ended, where="in the cluster"
        ),
        remote_runs.kill_command(scope, cluster, noun="task", effect=effect),
        _logs_command(declared, scope),
        _describe_command(declared, scope),
    ):
        group.add_command(made)
    return group


def _cluster(declared: FlowDefinition) -> OnCluster:
    from k8sflow.runtime.commands.on_cluster import OnCluster  # noqa: PLC0415  --help needs no cluster

    return OnCluster.of(declared, debug_log.configure(config.load(code_folder(declared.flow))))


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


@dataclass(frozen=True)
class _Found:
    """The task or step that a person means by a place.

    Args:
        run: The run.
        step: The step.
        task: The task's id; None where only the step was named.
        namespace: The namespace of its Jobs.
        jobs: Its Jobs with their pods, the latest attempt last.
    """

    run: RunStore
    step: str
    task: str | None
    namespace: str
    jobs: list[LiveTask]

    @property
    def pathspec(self) -> str:
        return "/".join(filter(None, [self.run.pathspec, self.step, self.task]))

    @property
    def is_in_store(self) -> bool:
        """True if the store has anything of the task, or only the step was named."""
        if self.task is None:
            return True
        return bool(self.run.attempts(self.step, self.task)) or self.run.read_commit(self.step, self.task) is not None


def _found(cluster: OnCluster, place: str) -> _Found:
    """The Jobs that a person means.

    Raises:
        NotFoundError: There is no such run, or no step was named.
    """
    run, step, task_id = remote_runs.named_task(cluster.runs, place)
    jobs = [
        task for task in cluster.work(run.run) if task.step == step and (task_id is None or task.has(task_id))
    ]  # fmt: skip
    jobs.sort(key=lambda task: (task.task, task.attempt))
    return _Found(run, step, task_id, cluster.namespace_of(run), jobs)


def _logs_command(declared: FlowDefinition, scope: Scope) -> click.Command:
    def callback(place: str, follow: bool) -> None:  # noqa: FBT001  click calls by name
        with errors_shown():
            cluster = _cluster(declared)
            found = _found(cluster, place)
            if (last := _last(found)) is not None:
                # The log of a pod with several tasks has the lines of all of them.
                if len(last.tasks) == 1 and last.pod is not None and _shown(cluster, found, last, follow=follow):
                    return
                if not last.is_over and not found.is_in_store and (silence := _silence(cluster, found, last)):
                    click.echo(f"{found.pathspec} {silence}", err=True)
                    if not follow or not _comes(found):
                        return
            click.echo(
                f"{found.pathspec} has no pod with a log of its own; this is its output in the bucket.", err=True
            )
            logs.print_stored(scope, place, follow=follow)

    return click.Command(
        "logs", callback=callback,
        params=[
            remote_runs.task_argument(scope),
            click.Option(["--follow", "-f"], is_flag=True, help="Print new output until the pod ends."),
        ],
        short_help="Print the output of a task's pod.",
        help="Print the output of a task from its pod, as it is written; without a pod, what the bucket has.",
    )  # fmt: skip


def _last(found: _Found) -> LiveTask | None:
    """The Job of the latest attempt of the one task that is meant; None if there is no Job.

    Raises:
        NotFoundError: There are several tasks.
    """
    if len({job.task for job in found.jobs}) > 1 and found.task is None:
        listed = ", ".join(f"{job.step}/{job.task}" for job in found.jobs[:5])
        raise NotFoundError(f"{found.pathspec} has several tasks: {listed}, …", advice="Name one of them.")
    return max(found.jobs, key=lambda job: job.attempt, default=None)


def _silence(cluster: OnCluster, found: _Found, last: LiveTask) -> str:
    """Why a task has no output yet; empty if that is not known."""
    from k8sflow.runtime.commands.pod_output import why_silent  # noqa: PLC0415  as above

    task = found.task or last.tasks[0].name.id
    return cluster.ask(lambda api: why_silent(api, found.namespace, last, task))


def _comes(found: _Found) -> bool:
    """Waits until the store has something of a task; False if the run ends before that."""
    while not found.is_in_store:
        if found.run.read_run_outcome() is not None:
            return found.is_in_store
        time.sleep(max(found.run.store.poll_seconds, _LOOK_SECONDS))
    return True


def _shown(cluster: OnCluster, found: _Found, task: LiveTask, *, follow: bool) -> bool:
    from k8sflow.runtime.commands.pod_output import show_output  # noqa: PLC0415  as above

    def show(stream: str, data: bytes) -> None:
        click.echo(data, nl=False, err=stream == "stderr")

    return cluster.ask(lambda api: show_output(api, found.namespace, task, show, follow=follow))


def _describe_command(declared: FlowDefinition, scope: Scope) -> click.Command:
    def callback(place: str, as_json: bool) -> None:  # noqa: FBT001  click calls by name
        with errors_shown():
            cluster = _cluster(declared)
            found = _found(cluster, place)
            if not found.jobs:
                raise NotFoundError(
                    f"{found.pathspec} has no Job in namespace {found.namespace!r}.",
                    advice="It hasn't started, or its Job was deleted: some time after its end "
                    "(kubernetes_job_ttl_seconds), or when it was ended because the run failed or was cancelled. "
                    f"`logs {place}` shows its output.",
                )
            if as_json:
                output.print_json([_described_document(cluster, found.namespace, task) for task in found.jobs])
                return
            for number, task in enumerate(found.jobs):
                if number:
                    click.echo()
                _print_described(cluster, found.namespace, task)

    return click.Command(
        "describe", callback=callback, params=[remote_runs.task_argument(scope), output.JSON_OPTION],
        short_help="Describe a task's Job and pod.",
        help="Describe a task's Job and pod: state, diagnosis, node, requests, conditions and events.",
    )  # fmt: skip


def _described_document(cluster: OnCluster, namespace: str, task: LiveTask) -> dict[str, Any]:
    from k8sflow.runtime.commands.describe import document  # noqa: PLC0415  as above

    return _document(task) | cluster.ask(lambda api: document(api, namespace, task))


def _print_described(cluster: OnCluster, namespace: str, task: LiveTask) -> None:
    from k8sflow.runtime.commands.describe import describe  # noqa: PLC0415  as above

    for title, text in cluster.ask(lambda api: describe(api, namespace, task)):
        output.print_pair(title, text)
