"""``spin``: re-runs one step on the inputs of a task of an earlier run, with the current code.

Its result is kept beside the flow's runs and not among them: no step follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from k8sflow.config import Settings
from k8sflow.environments.lock import Lock
from k8sflow.errors import RunError
from k8sflow.executors.base import Executor, Report
from k8sflow.executors.by_name import LOCAL, check_local
from k8sflow.flow.decorators.policy import StepPolicy
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.flow.problems import did_you_mean
from k8sflow.runtime.commands import id_files, next_steps
from k8sflow.runtime.commands.create import fixed_values, new_record
from k8sflow.runtime.commands.interrupts import interrupts
from k8sflow.runtime.commands.lock_environments import lock_environments
from k8sflow.runtime.core.actions import RunEnd, RunResult
from k8sflow.runtime.core.earlier import list_executions, past_of, read_ended
from k8sflow.runtime.core.resume_plan import Kept, Rerun, plan
from k8sflow.runtime.lookup import RunReference, runs_of
from k8sflow.runtime.placement import Placement
from k8sflow.runtime.progress import Reporter
from k8sflow.runtime.progress.console import Console, Tone
from k8sflow.runtime.request import RunRequest
from k8sflow.runtime.session import Session, open_session
from k8sflow.storage.artifacts import ArtifactRef, ArtifactStore
from k8sflow.storage.clones import put_commits
from k8sflow.storage.run_store import SPINS, RunStore
from k8sflow.storage.tables import Tables
from k8sflow.task.inherited import inherited_by
from k8sflow.task.safe_repr import safe_repr
from k8sflow.task.spec import TaskName, TaskSpec

_SHOWN_CHARACTERS = 60
_PATHSPEC = "the task's pathspec"


def spin(
    declared: FlowDefinition,
    settings: Settings,
    text: str,
    console: Console,
    asked_at: float,
    pathspec_file: str | None = None,
    *,
    environment: str | None = None,
) -> RunEnd:
    """Runs one task on this machine and shows the artifacts that it set.

    Args:
        declared: What the flow declares.
        settings: The settings.
        text: ``step``, ``step/task``, ``run/step`` or ``run/step/task``.
        console: Shows the task.
        asked_at: When the user asked, by time.monotonic().
        pathspec_file: File for the pathspec of the task that runs.
        environment: As of ``RunRequest``.

    Raises:
        K8sflowError: There is no such task, its inputs don't exist, or the file can't be written.
    """
    check_local()
    if pathspec_file is not None:
        id_files.check(Path(pathspec_file), _PATHSPEC)
    known, runs = list(declared.steps), runs_of(declared.flow, settings)
    reference = runs.resolve(text, runs.latest_own, known)
    step = _step_of(text, reference, known)
    origin = open_session(reference.run, settings, declared)
    definition = origin.compiled()
    spec, needed = _task(origin, definition.graph, step, reference.task)
    request = RunRequest(definition, settings, decorators=origin.record.decorators, environment=environment)
    here = Placement({}, settings.kubernetes_namespace)
    locks = lock_environments(request, definition, here, origin.store, console, origin.record, step)
    session = _session(origin, definition, step, locks)
    put_commits(session.run_store, (kept.clone(origin.pathspec) for kept in needed))
    console.say(f"{spec.name} again, on its inputs in {origin.pathspec}.", Tone.DIM)
    spec = replace(spec, run=session.record.run)
    pathspec = f"{session.pathspec}/{spec.name}"
    if pathspec_file is not None:
        id_files.write(Path(pathspec_file), _PATHSPEC, pathspec)
    output = f"{session.pathspec}/{{}}"
    reporter = console.reporter(asked_at, lambda task: next_steps.output(output.format(task)), pathspec, [step])
    result = _drive(session, spec, reporter)
    _show(session, spec, result, console, reporter)
    return result.end


def _show(session: Session, spec: TaskSpec, result: RunResult, console: Console, reporter: Reporter) -> None:
    """Shows the task's end, and the artifacts that it set."""
    pathspec = f"{session.pathspec}/{spec.name}"
    match result:
        case RunResult(RunEnd.CANCELLED):
            reporter.summary(pathspec, "was cancelled", "", result.usage, good=False)
        case RunResult(RunEnd.FAILED, task, found) if task is not None and found is not None:
            reporter.failure(replace(task, run=session.pathspec.partition("/")[2]), found)
            reporter.summary(pathspec, "failed", "", result.usage, good=False)
        case _:
            for line in _artifact_lines(session, spec):
                console.say(line)
            hint = f'Results: k8sflow.Run("{session.pathspec}")["{spec.name.step}"]["{spec.name.id}"].data'
            reporter.summary(pathspec, "succeeded", hint, result.usage, good=True)


def _step_of(text: str, reference: RunReference, known: list[str]) -> str:
    """The step that a reference names.

    Raises:
        RunError: It names none.
    """
    if reference.step in known and reference.artifact is None:
        return str(reference.step)
    raise RunError(
        f"{text!r} names no step of this flow.",
        cause=f"Its steps are {', '.join(known)}. {did_you_mean(reference.step or '', known)}".strip(),
        advice="Name a step, or a task of a run: train, train/3, RUN/train, RUN/train/3.",
    )


def _session(origin: Session, definition: FlowDefinition, step: str, locks: Mapping[str, Lock]) -> Session:
    """Creates the trial run of one task, with all that a task of the earlier run knew of its run."""
    before = origin.record
    policy = Placement.of(definition, (), origin.settings).policies.get(step, StepPolicy())
    record = replace(
        new_record(definition, fixed_values(definition, {}, origin.artifacts, before.parameters)),
        flow_decorators=before.flow_decorators,
        policies={step: policy},
        namespace=before.namespace,
        origin_run_id=before.run,
        origin_step=step,
        max_num_splits=before.max_num_splits,
        environments=locks,
    )
    placement = Placement({}, origin.settings.kubernetes_namespace, {step: policy})
    run_store = RunStore(origin.store, record.flow, record.run, SPINS)
    run_store.create(record)
    run_store.hold_origin(record)
    return Session(record, run_store, placement, origin.settings, definition)


def _task(origin: Session, graph: Graph, step: str, task: str | None) -> tuple[TaskSpec, list[Kept]]:
    """The task to run, and the results that it reads.

    Raises:
        RunError: There is no such task, or its inputs don't exist.
    """

    def again(name: TaskName) -> bool:
        return name.step == step and task in {None, name.id}

    found = plan(origin.run_store, origin.graph, graph, again)
    tasks = {rerun.task.name.id: rerun for rerun in found.reruns if again(rerun.task.name)}
    if not tasks:
        what = f"{step}/{task}" if task else f"the step {step}"
        raise RunError(
            f"{origin.pathspec} has no inputs for {what}.",
            cause="The run has no such task, has not come so far, or what comes before has moved in the graph.",
            advice="Name another run (RUN/STEP), or run what comes before: resume does.",
        )
    spec = _first(origin, list(tasks.values())).task
    if spec.nodes > 1:
        raise RunError(
            f"{spec.name} is one of {spec.nodes} processes that know each other, which can't run alone.",
            advice=f"Run all of them again: resume {step}",
        )
    if graph[spec.name.step].is_join:
        around = spec.name.path
        needed = [kept for kept in found.kept if kept.name.path[: len(around)] == around]
    else:
        inputs = {parent[0] for parent in spec.inputs}
        needed = [kept for kept in found.kept if kept.name in inputs]
    layers = {layer for kept in needed for layer in kept.commit.layers} - {str(kept.name) for kept in needed}
    return spec, [*needed, *(kept for kept in found.kept if str(kept.name) in layers)]


def _first(origin: Session, reruns: list[Rerun]) -> Rerun:
    """The first that has failed, since a person looks into that; else the first without a result; else the first."""
    listing = list_executions(origin.run_store, origin.graph.nodes)
    without = [rerun for rerun in reruns if rerun.why is None]
    for rerun in without:
        step, task = rerun.task.name.step, rerun.task.name.id
        ended = [attempt for attempt, is_over in listing.attempts.get((step, task), {}).items() if is_over]
        past = past_of(read_ended(origin.run_store, step, task, ended))
        if past is not None and past.record.outcome != Outcome.CANCELLED:
            return rerun
    return (without or reruns)[0]


def _drive(session: Session, spec: TaskSpec, reporter: Reporter) -> RunResult:
    """Runs the task as a process of its own."""

    def executors(report: Report) -> dict[str, Executor]:
        return {LOCAL: session.executor(LOCAL, report, max_workers=1)}

    with interrupts(reporter.cancelling), closing(reporter):
        try:
            return session.drive(executors, reporter, task=spec)
        except KeyboardInterrupt:
            return RunResult(RunEnd.CANCELLED)


def _artifact_lines(session: Session, spec: TaskSpec) -> Iterator[str]:
    """The artifacts that the task has set, or changed, in lines."""
    run_store = session.run_store
    commit = run_store.read_commit(spec.name.step, spec.name.id)
    inherited = inherited_by(session.graph, run_store, spec).artifacts()
    found = {} if commit is None else Tables(run_store).table(str(spec.name), commit).refs()
    new = {
        name: ref
        for name, ref in found.items()
        if name not in inherited or inherited[name].value_hash != ref.value_hash
    }
    width = max(map(len, new), default=0)
    for name, ref in sorted(new.items()):
        yield f"  {name:{width}}  {_described(ref, name, session.artifacts)}"


def _described(ref: ArtifactRef, name: str, artifacts: ArtifactStore) -> str:
    """A small value itself, and of a large one the type and the size."""
    kind = ref.type.removeprefix("builtins.")
    if ref.inline is None:
        return f"{kind} of {ref.value_size} bytes"
    text = safe_repr(artifacts.load(ref, name))
    return f"{kind}  {text if len(text) <= _SHOWN_CHARACTERS else f'{text[:_SHOWN_CHARACTERS]}…'}"
