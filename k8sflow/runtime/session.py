"""An open run: its record, its flow, its store and where its steps run; opened in one place for every command."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from k8sflow import outages
from k8sflow.config import Settings
from k8sflow.errors import AccessError, StorageError
from k8sflow.executors.base import Executor, Report
from k8sflow.executors.by_name import EXECUTORS, make
from k8sflow.executors.context import RunContext
from k8sflow.flow.compile import compile_flow
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.runtime.core.actions import RunResult
from k8sflow.runtime.core.earlier import read_earlier
from k8sflow.runtime.core.loop import Loop
from k8sflow.runtime.core.observer import Observer
from k8sflow.runtime.core.run_state import OneTask, RunState, State
from k8sflow.runtime.placement import Placement
from k8sflow.runtime.request import code_folder
from k8sflow.runtime.tracing import Traced
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import OutcomeRecord, RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.recompile import redeclared
from k8sflow.task.spec import TaskSpec

if TYPE_CHECKING:
    from k8sflow.runtime.core.result_cache import ResultCache


@dataclass(frozen=True)
class Session:
    """An open run.

    Args:
        record: The run's record.
        run_store: The store with its state.
        placement: Where its steps run.
        settings: The settings.
        definition: The flow, with the configs of the run; None where its code is not at hand.
    """

    record: RunRecord
    run_store: RunStore
    placement: Placement
    settings: Settings
    definition: FlowDefinition | None = None

    @property
    def graph(self) -> Graph:
        """The graph that the run was started with."""
        return self.record.graph

    @property
    def store(self) -> ObjectStore:
        """The store in which the run is."""
        return self.run_store.store

    @property
    def pathspec(self) -> str:
        """``flow/run``."""
        return self.run_store.pathspec

    @property
    def artifacts(self) -> ArtifactStore:
        """The artifacts of the flow's runs."""
        return ArtifactStore(self.store, self.record.flow)

    @property
    def is_clone(self) -> bool:
        """True if the run takes over results of another one."""
        return self.record.origin_run_id is not None

    @property
    def executors(self) -> list[str]:
        """The names of the executors that the run's steps need, in the order in which they are to be made."""
        needed = {self.placement.executor_of(step) for step in self.graph.nodes}
        return [name for name in EXECUTORS if name in needed]

    def compiled(self) -> FlowDefinition:
        """The current code of the flow, compiled with the configs of the run.

        Raises:
            FlowDefinitionError: The flow has problems.
        """
        assert self.definition is not None, "the flow's code is not at hand"
        if self.definition.is_compiled:
            return self.definition
        return compile_flow(self.definition.flow, self.definition.configs, self.definition.attributes)

    def executor(
        self,
        name: str,
        report: Report,
        *,
        max_workers: int | None = None,
        lock: int | None = None,
        owner: dict[str, Any] | None = None,
        notice: outages.Report | None = None,
    ) -> Executor:
        """Makes an executor for the run; the arguments are those of ``RunContext``."""
        context = RunContext(
            report=report,
            record=self.record,
            run_store=self.run_store,
            settings=self.placement.inside(self.settings),
            pods=self.placement.pods,
            batch=self.placement.batch,
            policies=self.placement.policies,
            definition=self.definition,
            max_workers=max_workers,
            lock=lock,
            owner=owner,
            notice=notice,
        )
        return make(name, context)

    def drive(
        self,
        executors: Callable[[Report], Mapping[str, Executor]],
        observer: Observer,
        *,
        take_over: bool = False,
        task: TaskSpec | None = None,
    ) -> RunResult:
        """Drives the run to its end.

        Args:
            executors: Makes the executors, by name.
            observer: Watches the run.
            take_over: Whether an earlier driver may have done a part of it.
            task: The only task to drive; None for the whole run.

        Raises:
            KeyboardInterrupt: The user cancelled.
            K8sflowError: The run can't continue.
        """

        def state() -> State:
            if task is not None:
                return OneTask(task)
            return RunState(
                self.graph,
                self.record.run,
                policies=self.placement.policies,
                outlives=self.placement.outlives,
                earlier=read_earlier(self.run_store, self.graph) if take_over else None,
            )

        executor_of = self.placement.executor_of
        traced = Traced(observer, self.run_store) if self.record.is_traced else None
        loop = Loop(
            self.graph,
            self.run_store,
            state=state,
            executors=executors,
            executor_of=executor_of,
            observer=traced or observer,
            cache=self._cache() if task is None else None,
        )
        try:
            return loop.run()
        finally:
            if traced is not None:
                traced.close()

    def _cache(self) -> ResultCache | None:
        """Takes results of earlier runs; None if no step has ``@cache``."""
        if not self.record.cache:
            return None
        from k8sflow.runtime.core.result_cache import ResultCache  # noqa: PLC0415  few flows have @cache
        from k8sflow.task.cached import Keys  # noqa: PLC0415  as above

        folder = None if self.definition is None else code_folder(self.definition.flow)
        return ResultCache(Keys(self.record, self.run_store, self.graph), folder)

    def record_cancelled(self) -> None:
        """Writes that the run was cancelled, where its loop had not started, and so could not."""
        with contextlib.suppress(StorageError, AccessError):  # it is cancelled all the same, which the last lines say
            if self.run_store.read_run_outcome() is None:
                self.run_store.write_run_outcome(OutcomeRecord(Outcome.CANCELLED, time.time(), "cancelled"))


def open_session(run_store: RunStore, settings: Settings, declared: FlowDefinition | None = None) -> Session:
    """Opens a run that has a record, with the configs that it was started with where the command line gave none.

    Args:
        run_store: The run's records.
        settings: The settings.
        declared: What the flow declares, where its code is at hand.

    Raises:
        RunError: There is no such run.
        StorageError: Its record can't be read.
    """
    record = run_store.read()
    definition = redeclared(declared, record, run_store.store) if declared is not None else None
    return Session(record, run_store, Placement.of_record(record, settings), settings, definition)
