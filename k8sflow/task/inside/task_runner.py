"""Runs one task in this process: reads its inputs, calls the user's function, saves and commits what it left."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace

from k8sflow.errors import ArtifactError
from k8sflow.flow.current import current
from k8sflow.flow.decorators.policy import StepPolicy
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.outcome import Outcome
from k8sflow.flow.spec import CONTEXT, FlowSpec
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.checkpoints import discard, discard_below
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import Commit, KeptRecord, RunRecord
from k8sflow.storage.run_store import RUNS, RunStore
from k8sflow.storage.zstd import check_installed
from k8sflow.task import moments
from k8sflow.task.environments import explained
from k8sflow.task.failure import failure, said
from k8sflow.task.inherited import Inherited, inherited_by
from k8sflow.task.inside import exit_hooks
from k8sflow.task.inside.call_step import call_step
from k8sflow.task.inside.cards import Cards, cards_of
from k8sflow.task.inside.current_facts import current_facts
from k8sflow.task.inside.gang import environment_set
from k8sflow.task.inside.inputs import Inputs
from k8sflow.task.inside.measure import usage_so_far
from k8sflow.task.inside.task_context import Context
from k8sflow.task.inside.time_limit import limited
from k8sflow.task.inside.transition import as_written
from k8sflow.task.result import TaskResult, Transition
from k8sflow.task.spec import EXIT_HOOK_STEP, TaskSpec
from k8sflow.task.stored_results import committed_result, write_outcome


@dataclass(frozen=True)
class TaskRunner:
    """Runs the tasks of one run.

    Args:
        definition: The flow.
        record: What was asked for when the run was started.
        store: Where the run's state is.
        folder: The folder of the flow in which the run is.
        is_own_process: True if this process was started for one task, so that what it uses is the task's.
        compression: The compression of artifacts: ``none`` or ``zstd``.
    """

    definition: FlowDefinition
    record: RunRecord
    store: ObjectStore
    folder: str = RUNS
    is_own_process: bool = False
    compression: str = "none"

    @property
    def run_store(self) -> RunStore:
        """The records of the run."""
        return RunStore(self.store, self.record.flow, self.record.run, self.folder)

    def run(self, spec: TaskSpec) -> TaskResult:
        """Runs a task; whatever happens in the user's code becomes a result, and is written to the store."""
        moments.note("entered")
        cards = None
        try:
            cards = cards_of(self.definition, self.record, self.run_store, spec, is_own_process=self.is_own_process)
            result = self.execute(spec, cards)
        except BaseException as error:  # noqa: BLE001  the boundary to the user's code: also SystemExit and Ctrl-C
            result = explained(failure(error), error, spec.name.step, self.record.environments)
        write_outcome(self.run_store, spec, result)
        if cards is not None:  # the task has its result: its cards can't change that
            cards.finish()
        if self.record.is_traced:
            moments.store(self.run_store, spec)
        return result

    def execute(self, spec: TaskSpec, cards: Cards | None = None) -> TaskResult:
        """Runs a task and commits what it left.

        Args:
            spec: The task.
            cards: Its cards, if its step has any.

        Raises:
            BaseException: What the user's code raises, as it is.
        """
        facts = current_facts(self.definition, self.record, self.run_store, spec)
        if cards is not None:
            facts = replace(facts, more={**facts.more, "card": cards})
        try:
            together = nullcontext() if facts.parallel is None else environment_set(spec, facts.parallel)
            with current.running(facts), together:
                if spec.name.step == EXIT_HOOK_STEP:
                    exit_hooks.call(self.definition, spec)
                    return TaskResult(Outcome.SUCCEEDED, Transition())
                result = self._run(spec)
            self._discard_checkpoints(spec, is_used=facts.checkpoint is not None and facts.checkpoint.is_used)
            return result
        finally:
            if facts.checkpoint is not None:
                facts.checkpoint.close()

    def _discard_checkpoints(self, spec: TaskSpec, *, is_used: bool) -> None:
        """Deletes those that no execution needs any more.

        One of several processes that work together runs again with the others, although it has a result. So its
        checkpoint is deleted by the step that follows.
        """
        if spec.nodes == 1 and (spec.attempt or is_used):
            discard(self.run_store, spec.name.step, spec.name.id)
        for found in spec.inputs:
            if not self.definition.graph[found.step].is_parallel:
                continue
            if found.width is None:
                discard(self.run_store, found.step, found[0].id)
            else:
                discard_below(self.run_store, found.step, found.path)

    def _run(self, spec: TaskSpec) -> TaskResult:
        inherited = inherited_by(self.definition.graph, self.run_store, spec)
        flow, context = self._prepare(spec, inherited)
        arguments = []
        if self.definition.graph[spec.name.step].is_join:
            arguments.append(self._inputs(spec))
        policy = self._policy(spec.name.step)
        started = time.time()
        try:
            with limited(policy.time_limit), moments.of_step():
                self._call(spec.name.step, flow, context, arguments)
            finished = time.time()
            context.freeze(flow)
            left = context.persist(flow)
        except BaseException as error:  # the boundary to the user's code; raised again below
            if policy.catch is not None and not policy.is_run_again(failure(error).outcome, spec.attempt):
                self._keep(spec, flow, context, started)
            raise
        transition = context.transition or Transition()
        commit = Commit(
            attempt=spec.attempt,
            steps=transition.steps,
            artifacts=left.own,
            stack=context.stack,
            foreach=context.foreach,
            started=started,
            finished=finished,
            layers=left.layers,
            without=left.without,
            usage=usage_so_far() if self.is_own_process else None,
        )
        if not self.run_store.commit(spec.name.step, spec.name.id, commit, is_one_of_several=spec.nodes > 1):
            return committed_result(self.run_store, spec) or TaskResult(Outcome.STORAGE_ERROR)
        moments.note("committed")
        if (plan := self.record.cache.get(spec.name.step)) is not None and self.folder == RUNS:
            from k8sflow.task.cached import Keys, Result  # noqa: PLC0415  few steps have @cache
            from k8sflow.task.inside.kept_result import keep_result  # noqa: PLC0415  as above

            keys = Keys(self.record, self.run_store, self.definition.graph)
            keep_result(self.definition.flow, keys, plan, spec, Result(inherited, commit, context.left))
        return TaskResult(Outcome.SUCCEEDED, transition)

    def _call(self, step: str, flow: FlowSpec, context: Context, arguments: list[Inputs]) -> None:
        """Calls the step inside of its decorators; one that put something in its place need not say where to go on."""
        decorations = self.definition.decorations_of(step, self.definition.added(self.record.decorators))
        has_run = call_step(step, self.definition.steps[step].function, flow, arguments, decorations)
        node = self.definition.graph[step]
        if not has_run and context.transition is None and node.next:
            context.next(flow, as_written(node, flow))

    def _policy(self, step: str) -> StepPolicy:
        """The policy that the step's decorators, and those of ``--with``, ask for."""
        return self.record.policies.get(step, StepPolicy())

    def _keep(self, spec: TaskSpec, flow: FlowSpec, context: Context, started: float) -> None:
        """Keeps what a failed step has set, for ``@catch``; what can't be saved is left out, and its task says so.

        Raises:
            StorageError: The store refuses.
        """
        left, left_out = context.persist_what_can_be(flow)
        for name, error in left_out.items():
            why = error.summary if isinstance(error, ArtifactError) else said(error)
            message = f"@catch on step {spec.name.step} leaves out self.{name}, which can't be saved: {why}"
            print(message, file=sys.stderr)  # noqa: T201  a line of the task's own output
        record = KeptRecord(left.own, started, left.layers, left.without)
        self.run_store.write_kept(spec.name.step, spec.name.id, spec.attempt, record)

    def _prepare(self, spec: TaskSpec, inherited: Inherited) -> tuple[FlowSpec, Context]:
        """The ``self`` of the step, with the artifacts of the step before it."""
        if self.compression == "zstd":
            check_installed()
        context = Context(
            self.definition,
            spec.name,
            ArtifactStore(self.store, self.record.flow, self.compression),
            inherited=inherited,
            run_values=dict(self.record.parameters),
            max_num_splits=self.record.max_num_splits,
        )
        flow = self.definition.flow.__new__(self.definition.flow)
        flow.__dict__[CONTEXT] = context
        context.begin(flow)
        return flow, context

    def _inputs(self, spec: TaskSpec) -> Inputs:
        artifacts = ArtifactStore(self.store, self.record.flow)
        return Inputs(
            spec.inputs,
            self.run_store,
            dict(self.record.parameters),
            artifacts,
            self.definition,
            spec.name.step,
        )
