"""``spin``: one step again, on the inputs of a task of an earlier run, with the code as it is now.

What it leaves is kept beside the flow's runs and not among them: it is nobody's result, and no step follows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click

from k8sflow.config import Settings
from k8sflow.errors import RunError
from k8sflow.executors.base import Finished
from k8sflow.executors.local import LocalExecutor
from k8sflow.flow.decorators.policy import StepPolicy
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.graph import Graph
from k8sflow.flow.problems import did_you_mean
from k8sflow.flow.spec import steps
from k8sflow.runtime import lookup
from k8sflow.runtime.commands import id_files, next_steps
from k8sflow.runtime.commands.interrupts import interrupts
from k8sflow.runtime.commands.run import fixed_values
from k8sflow.runtime.core.clock import RealClock
from k8sflow.runtime.core.inbox import Inbox
from k8sflow.runtime.core.resume_plan import Kept, Rerun, plan
from k8sflow.runtime.core.retries import look, read_past
from k8sflow.runtime.placement import Placement
from k8sflow.runtime.progress import Reporter, reporter
from k8sflow.runtime.recorded import recompiled
from k8sflow.runtime.request import code_file, code_folder
from k8sflow.storage import package
from k8sflow.storage.artifacts import ArtifactRef, ArtifactStore
from k8sflow.storage.clones import put_commits
from k8sflow.storage.records import RunRecord, new_run_id, python_version
from k8sflow.storage.run_store import SPINS, RunStore
from k8sflow.storage.tables import Tables
from k8sflow.task.inherited import inherited_by
from k8sflow.task.inside.runner import TaskRunner
from k8sflow.task.outcome import Outcome
from k8sflow.task.result import TaskResult
from k8sflow.task.safe_repr import safe_repr
from k8sflow.task.spec import TaskName, TaskSpec
from k8sflow.user import current_user
from k8sflow.version import VERSION

_SHOWN_CHARACTERS = 60
_PATHSPEC = "the task's pathspec"


@dataclass(frozen=True)
class _Wanted:
    """What the user has named.

    Args:
        step: The step.
        run: The run; None for the latest.
        task: The task's id; None for any.
    """

    step: str
    run: str | None = None
    task: str | None = None


def spin(
    declared: FlowDefinition, settings: Settings, text: str, began: float, pathspec_file: str | None = None
) -> bool | None:
    """Runs one task on this machine and tells what it left; whether it succeeded, or None after Ctrl-C.

    Args:
        declared: What the flow declares.
        settings: The settings that hold.
        text: ``step``, ``step/task``, ``run/step`` or ``run/step/task``.
        began: When the user asked, by time.monotonic().
        pathspec_file: File for the pathspec of the task that runs.

    Raises:
        K8sflowError: There is no such task, its inputs are not there, or the file can't be written.
    """
    if pathspec_file is not None:
        id_files.check(Path(pathspec_file), _PATHSPEC)
    flow = declared.flow
    words = text.strip("/").removeprefix(f"{flow.__name__}/").split("/")
    wanted = _wanted(words, list(steps(flow)))
    origin = lookup.run_of(flow, settings, wanted.run) if wanted.run else lookup.latest_of(flow, settings)
    before = origin.read()
    artifacts = ArtifactStore(origin.store, before.flow)
    definition = recompiled(declared, before, origin.store)
    graph = definition.graph
    spec, needed = _task(origin, before, graph, wanted)
    policy = Placement.of(definition, (), settings).policies.get(wanted.step, StepPolicy())
    record = replace(_record(definition, before, artifacts, wanted.step), policies={wanted.step: policy.to_document()})
    run_store = RunStore(origin.store, record.flow, record.run, SPINS)
    run_store.create(record)
    put_commits(
        run_store, ((kept.name.step, kept.name.id, kept.commit.clone(origin.pathspec, kept.steps)) for kept in needed)
    )
    click.secho(f"{spec.name} again, on its inputs in {origin.pathspec}.", dim=True)
    spec = replace(spec, run=record.run)
    pathspec = f"{run_store.pathspec}/{spec.name}"
    if pathspec_file is not None:
        id_files.write(Path(pathspec_file), _PATHSPEC, pathspec)
    seen = reporter(began, partial(next_steps.logs, record), pathspec, [wanted.step])
    runner = TaskRunner(definition, record, origin.store, SPINS)
    result = _run(runner, spec, seen, policy)
    if result is None:
        seen.summary(pathspec, "was cancelled", "", good=False)
        return None
    if result.transition is None:
        seen.failure(spec, result)
        seen.summary(pathspec, "failed", "", good=False)
        return False
    for line in _left(run_store, graph, spec, artifacts):
        click.echo(line)
    hint = f'Results: k8sflow.Run("{run_store.pathspec}")["{spec.name.step}"]["{spec.name.id}"].data'
    seen.summary(pathspec, "succeeded", hint, good=True)
    return True


def _wanted(words: list[str], known: list[str]) -> _Wanted:
    """What ``step``, ``step/task``, ``run/step`` or ``run/step/task`` names.

    Raises:
        RunError: There is no such step.
    """
    match words:
        case [step] if step in known:
            return _Wanted(step)
        case [step, task] if step in known:
            return _Wanted(step, task=task)
        case [run, step] if step in known:
            return _Wanted(step, run)
        case [run, step, task] if step in known:
            return _Wanted(step, run, task)
    named = words[0] if len(words) == 1 else words[1] if len(words) > 1 else ""
    raise RunError(
        f"{'/'.join(words)!r} names no step of this flow.",
        cause=f"Its steps are {', '.join(known)}. {did_you_mean(named, known)}".strip(),
        advice="Name a step, or a task of a run: train, train/3, RUN/train, RUN/train/3.",
    )


def _record(definition: FlowDefinition, before: RunRecord, artifacts: ArtifactStore, step: str) -> RunRecord:
    """What the task knows of its run: all that a task of the earlier run knew."""
    flow = definition.flow
    return RunRecord(
        flow=before.flow,
        run=new_run_id(),
        file=code_file(flow),
        parameters=fixed_values(definition, {}, artifacts, before.parameters),
        graph=definition.graph.to_document(),
        flow_decorators=before.flow_decorators,
        user=current_user(),
        created=time.time(),
        source=str(code_folder(flow) / code_file(flow)),
        python_version=python_version(),
        k8sflow_version=VERSION,
        namespace=before.namespace,
        origin_run_id=before.run,
        origin_step=step,
        max_num_splits=before.max_num_splits,
        modules=package.modules(code_folder(flow)),
        code_hashes=package.code_hashes(code_folder(flow), code_file(flow)),
    )


def _task(origin: RunStore, record: RunRecord, graph: Graph, wanted: _Wanted) -> tuple[TaskSpec, list[Kept]]:
    """The task to run, and the results that it reads.

    Raises:
        RunError: There is no such task, or its inputs are not there.
    """

    def again(name: TaskName) -> bool:
        return name.step == wanted.step and wanted.task in {None, name.id}

    found = plan(origin, Graph.from_document(record.flow, record.graph), graph, again)
    tasks = {rerun.task.name.id: rerun for rerun in found.reruns if again(rerun.task.name)}
    if not tasks:
        what = f"{wanted.step}/{wanted.task}" if wanted.task else f"the step {wanted.step}"
        raise RunError(
            f"{origin.pathspec} has no inputs for {what}.",
            cause="The run has no such task, has not come so far, or what comes before has another place in the graph.",
            advice="Name another run (RUN/STEP), or run what comes before: resume does.",
        )
    spec = _first(origin, list(tasks.values())).task
    if spec.nodes > 1:
        raise RunError(
            f"{spec.name} is one of {spec.nodes} processes that know each other, which can't run alone.",
            advice=f"Run all of them again: resume {wanted.step}",
        )
    if graph[spec.name.step].is_join:
        around = spec.name.path
        needed = [kept for kept in found.kept if kept.name.path[: len(around)] == around]
    else:
        inputs = {parent[0] for parent in spec.inputs}
        needed = [kept for kept in found.kept if kept.name in inputs]
    layers = {layer for kept in needed for layer in kept.commit.layers} - {str(kept.name) for kept in needed}
    return spec, [*needed, *(kept for kept in found.kept if str(kept.name) in layers)]


def _first(origin: RunStore, reruns: list[Rerun]) -> Rerun:
    """The first that has failed, since that is what a person looks into; else without a result; else the first."""
    left = look(origin)
    without = [rerun for rerun in reruns if rerun.why is None]
    for rerun in without:
        name = rerun.task.name
        past = read_past(origin, name.step, name.id, left.ended.get(str(name), []))
        if past is not None and past.record.outcome != Outcome.CANCELLED.value:
            return rerun
    return (without or reruns)[0]


def _run(runner: TaskRunner, spec: TaskSpec, seen: Reporter, policy: StepPolicy) -> TaskResult | None:
    """Runs the task as a process of its own; None where the user cancelled it."""
    inbox, clock = Inbox(), RealClock()
    executor = LocalExecutor(inbox.put, runner, 1, limit_of=lambda _: policy.time_limit)
    with interrupts(seen.cancelling), closing(seen):
        try:
            seen.submitted([spec])
            executor.submit([spec])
            while True:
                event = clock.wait(inbox, None)
                if event is None:
                    continue
                if isinstance(event, Exception):
                    raise event
                seen.event(event)
                if isinstance(event, Finished):
                    executor.close()
                    return event.result
        except KeyboardInterrupt:
            executor.cancel()
            return None


def _left(run_store: RunStore, graph: Graph, spec: TaskSpec, artifacts: ArtifactStore) -> Iterator[str]:
    """What the task has set, or changed, in lines."""
    commit = run_store.read_commit(spec.name.step, spec.name.id)
    inherited = inherited_by(graph, run_store, spec).artifacts()
    found = {} if commit is None else Tables(run_store).table(str(spec.name), commit).refs()
    new = {name: ref for name, ref in found.items() if name not in inherited or inherited[name].blob != ref.blob}
    width = max(map(len, new), default=0)
    for name, ref in sorted(new.items()):
        yield f"  {name:{width}}  {_described(ref, name, artifacts)}"


def _described(ref: ArtifactRef, name: str, artifacts: ArtifactStore) -> str:
    """A small value itself, and of a large one the type and the size."""
    kind = ref.type.removeprefix("builtins.")
    if ref.inline is None:
        return f"{kind} of {ref.size} bytes"
    text = safe_repr(artifacts.load(ref, name))
    return f"{kind}  {text if len(text) <= _SHOWN_CHARACTERS else f'{text[:_SHOWN_CHARACTERS]}…'}"
