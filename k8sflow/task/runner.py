"""Runs one task in this process: reads its inputs, calls the user's function, saves and commits what it left."""

from __future__ import annotations

import bisect
import os
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from k8sflow.errors import ArtifactError, K8sflowError, StorageError
from k8sflow.flow.graph import Graph
from k8sflow.flow.spec import CONTEXT, FlowSpec, steps
from k8sflow.storage.artifacts import ArtifactRef, ArtifactStore
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import Commit, ForeachFrame, OutcomeRecord, RunRecord, RunStore
from k8sflow.task.context import Context
from k8sflow.task.inputs import Inputs
from k8sflow.task.outcome import Diagnosis, Outcome
from k8sflow.task.result import TaskResult, Transition
from k8sflow.task.spec import TaskInput, TaskSpec

_OUR_FILES = f"{Path(__file__).resolve().parent.parent}{os.sep}"


@dataclass(frozen=True)
class TaskRunner:
    """What is the same for all tasks of a run.

    Args:
        flow: The flow's class.
        graph: Its graph.
        record: What was asked for when the run was started.
        store: Where the run's state is.
    """

    flow: type[FlowSpec]
    graph: Graph
    record: RunRecord
    store: ObjectStore

    @property
    def run_store(self) -> RunStore:
        """The records of the run."""
        return RunStore(self.store, self.record.flow, self.record.run)

    def run(self, spec: TaskSpec) -> TaskResult:
        """Runs a task; whatever happens in the user's code becomes a result, and is written to the store."""
        try:
            result = self._run(spec)
        except StorageError as error:
            result = TaskResult(Outcome.STORAGE_ERROR, diagnosis=_explained(error, Outcome.STORAGE_ERROR))
        except K8sflowError as error:
            result = TaskResult(Outcome.USER_ERROR, diagnosis=_explained(error, Outcome.USER_ERROR))
        except BaseException as error:  # noqa: BLE001  the boundary to the user's code: also SystemExit and Ctrl-C
            result = TaskResult(Outcome.USER_ERROR, diagnosis=diagnose(error))
        write_outcome(self.run_store, spec, result)
        return result

    def _run(self, spec: TaskSpec) -> TaskResult:
        flow, context = self._prepare(spec)
        arguments = []
        if self.graph[spec.name.step].is_join:
            arguments.append(self._inputs(spec))
        started = time.time()
        steps(self.flow)[spec.name.step](flow, *arguments)
        finished = time.time()
        context.freeze(flow)
        artifacts = context.persist(flow)
        transition = context.transition or Transition()
        commit = Commit(
            attempt=spec.attempt,
            steps=transition.steps,
            artifacts=artifacts,
            stack=context.stack,
            foreach=context.foreach,
            started=started,
            finished=finished,
        )
        if not self.run_store.commit(spec.name.step, spec.name.id, commit):
            return committed_result(self.run_store, spec) or TaskResult(Outcome.STORAGE_ERROR)
        return TaskResult(Outcome.SUCCEEDED, transition)

    def _prepare(self, spec: TaskSpec) -> tuple[FlowSpec, Context]:
        """The ``self`` of the step, with the artifacts of the step before it."""
        node = self.graph[spec.name.step]
        inherited: dict[str, ArtifactRef] = {}
        stack: tuple[ForeachFrame, ...] = ()
        if node.is_join:
            # What surrounds a join is what surrounded the split; of its inputs there may be none.
            split = self._read(TaskInput(str(node.joins), spec.name.path))
            stack = split.stack
        elif spec.inputs:
            parent = self._read(spec.inputs[0])
            inherited, stack = dict(parent.artifacts), parent.stack
            if parent.foreach is not None:
                stack = (*stack, _frame(spec, parent))
        context = Context(
            self.graph,
            spec.name,
            ArtifactStore(self.store, self.record.flow),
            inherited=inherited,
            run_values=dict(self.record.parameters),
            stack=stack,
        )
        flow = self.flow.__new__(self.flow)
        flow.__dict__[CONTEXT] = context
        return flow, context

    def _inputs(self, spec: TaskSpec) -> Inputs:
        artifacts = ArtifactStore(self.store, self.record.flow)
        return Inputs(spec.inputs, self.run_store, dict(self.record.parameters), artifacts)

    def _read(self, parent: TaskInput) -> Commit:
        name = parent[0]
        commit = self.run_store.read_commit(name.step, name.id)
        if commit is None:
            raise ArtifactError(
                f"the task {name} has no result in {self.store.url}.", cause="It was removed since it finished."
            )
        return commit


def committed_result(run_store: RunStore, spec: TaskSpec) -> TaskResult | None:
    """The result of a task that the store has a commit of, whoever wrote it; else None."""
    commit = run_store.read_commit(spec.name.step, spec.name.id)
    if commit is None:
        return None
    width = commit.foreach.width if commit.foreach is not None else None
    return TaskResult(Outcome.SUCCEEDED, Transition(commit.steps, width))


def write_outcome(run_store: RunStore, spec: TaskSpec, result: TaskResult) -> None:
    """Writes how an execution ended; a store that can't take it must not hide the result itself."""
    diagnosis = result.diagnosis or Diagnosis(result.outcome, "")
    record = OutcomeRecord(result.outcome.value, time.time(), diagnosis.summary, diagnosis.detail, diagnosis.resolution)
    try:
        run_store.write_outcome(spec.name.step, spec.name.id, spec.attempt, record)
    except StorageError:
        # A success is in the commit, and a failure reaches the driver with the result.
        return


def diagnose(error: BaseException) -> Diagnosis:
    """What a person is told about an exception in a step: their frames, without ours."""
    if isinstance(error, SystemExit):
        return Diagnosis(
            Outcome.USER_ERROR,
            f"the step called sys.exit({error.code if error.code is not None else ''}) before it was finished",
            detail=_traceback(error),
            resolution="Return from the step, or raise an exception where it has failed.",
        )
    try:
        message = str(error)
    except Exception as broken:  # noqa: BLE001  the error's class is the user's code too
        message = f"(its __str__ raised {type(broken).__name__})"
    kind = type(error).__name__
    return Diagnosis(Outcome.USER_ERROR, f"{kind}: {message}" if message else kind, detail=_traceback(error))


def _explained(error: K8sflowError, outcome: Outcome) -> Diagnosis:
    """An error of ours in its parts; with the traceback where a line of the user's led to it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = all(frame.filename.startswith(_OUR_FILES) for frame in frames)
    detail = error.cause if ours else "\n".join(filter(None, [error.cause, _traceback(error)]))
    return Diagnosis(outcome, error.summary, detail=detail, resolution=error.advice)


def _traceback(error: BaseException) -> str:
    """The traceback without the frames of this package above the user's code."""
    told = traceback.TracebackException.from_exception(error)
    seen: traceback.TracebackException | None = told
    while seen is not None:
        frames = [frame for frame in seen.stack if not frame.filename.startswith(_OUR_FILES)]
        if frames:
            seen.stack = traceback.StackSummary.from_list(frames)
        seen = seen.__cause__ or seen.__context__
    return "".join(told.format()).rstrip()


def _frame(spec: TaskSpec, parent: Commit) -> ForeachFrame:
    """This branch's place in the foreach that its parent opened."""
    assert parent.foreach is not None
    index = spec.name.path[-1]
    position = bisect.bisect_right([first for first, _ in parent.foreach.chunks], index) - 1
    first, chunk = parent.foreach.chunks[position]
    return ForeachFrame(spec.inputs[0].step, index, parent.foreach.width, chunk, index - first)
