"""A run that is driven: its executors, its driver, and its last lines."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from k8sflow.config import Settings
from k8sflow.errors import StorageError
from k8sflow.executors.base import Executor
from k8sflow.executors.local import LocalExecutor
from k8sflow.flow.decorators.pod_options import DEFAULT_OPTIONS, RESOURCES, merge
from k8sflow.flow.decorators.policy import StepPolicy, TimeLimit
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.graph import Graph
from k8sflow.runtime import remote
from k8sflow.runtime.commands import exit_hooks, next_steps
from k8sflow.runtime.core.loop import Driver, Observer, Report, RunResult
from k8sflow.runtime.placement import Placement
from k8sflow.runtime.progress import Reporter, reporter
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import OutcomeRecord, RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.inside.exit_hooks import HookCall
from k8sflow.task.inside.runner import TaskRunner
from k8sflow.task.outcome import Outcome
from k8sflow.task.spec import EXIT_HOOK_STEP

LOCAL, KUBERNETES = "local", "kubernetes"


@dataclass(frozen=True)
class ActiveRun:
    """A run that is being driven here."""

    record: RunRecord
    graph: Graph
    store: ObjectStore
    placement: Placement
    settings: Settings

    @property
    def run_store(self) -> RunStore:
        """The run's records."""
        return RunStore(self.store, self.record.flow, self.record.run)

    def local(self, report: Report, definition: FlowDefinition, max_workers: int | None, lock: int | None) -> Executor:
        """The executor for the steps on this machine; it forks, so it comes before anything that starts a thread."""
        runner = TaskRunner(definition, self.record, self.store)
        workers = max_workers or os.cpu_count() or 1
        patience = self.settings.storage_patience
        return LocalExecutor(report, runner, workers, limit_of=self.limit_of, lock=lock, log_patience=patience)

    def kubernetes(self, report: Report, max_jobs: int | None, owner: dict[str, Any] | None = None) -> Executor:
        """The executor for the steps on Kubernetes."""
        return remote.executor(report, self.record, self.store, self.placement, self.settings, max_jobs, owner)

    @cached_property
    def policies(self) -> dict[str, StepPolicy]:
        """Retries, timeout and catch, by step."""
        return {step: StepPolicy.from_document(found) for step, found in self.record.policies.items()}

    def limit_of(self, step: str) -> TimeLimit | None:
        """How long an execution of a step's task may take; None for any time."""
        return self.policies[step].time_limit if step in self.policies else None

    def driver(self, executors: Callable[[Report], Mapping[str, Executor]], observers: Sequence[Observer]) -> Driver:
        """The run's driver."""
        return Driver(
            self.graph,
            self.run_store,
            executors=executors,
            executor_of=lambda step: KUBERNETES if step in self.placement.pods else LOCAL,
            observers=observers,
            policies=self.policies,
            outlives=lambda step: step in self.placement.pods,
        )

    def reporter(self, began: float) -> Reporter:
        """Who tells of the run.

        Args:
            began: When the user asked, by time.monotonic().
        """
        seen = reporter(began, partial(next_steps.logs, self.record), self.run_store.pathspec, list(self.graph.nodes))
        self.store.report_outages(seen.notice)
        return seen

    def call_exit_hooks(self, definition: FlowDefinition, *, is_success: bool) -> None:
        """Calls the functions of ``@exit_hook``, on this machine."""

        def local(report: Report, _hook: HookCall) -> Executor:
            return self.local(report, definition, 1, None)

        exit_hooks.call(self.record, self.run_store, local, is_success=is_success)

    def call_exit_hooks_in_pods(self, owner: dict[str, Any], *, is_success: bool) -> None:
        """Calls the functions of ``@exit_hook``, each in a pod like that of the end step, without its resources.

        An earlier driver may have made some of the calls.
        """
        own = replace(self.placement.pods[self.graph.end], **dict.fromkeys(RESOURCES))

        def pod(report: Report, hook: HookCall) -> Executor:
            options = merge(own if hook.image is None else replace(own, image=hook.image), DEFAULT_OPTIONS)
            active = replace(self, placement=replace(self.placement, pods={EXIT_HOOK_STEP: options}))
            return active.kubernetes(report, None, owner)

        exit_hooks.call(self.record, self.run_store, pod, is_success=is_success, go_on=True)

    def note_cancelled(self) -> None:
        """Writes that the run was cancelled, where its driver had not begun, and so could not."""
        with contextlib.suppress(StorageError):  # it is cancelled all the same, which the last lines say
            if self.run_store.read_run_outcome() is None:
                self.run_store.write_run_outcome(OutcomeRecord(Outcome.CANCELLED.value, time.time(), "cancelled"))

    def conclude(self, seen: Reporter, result: RunResult | None) -> bool | None:
        """Prints the last lines; returns what the exit code follows from.

        Args:
            seen: Who has told of the run.
            result: How it ended; None where it was cancelled.
        """
        pathspec = self.run_store.pathspec
        go_on = f"  to go on:    {next_steps.resume(self.record)}"
        if result is None:
            seen.summary(pathspec, "was cancelled", go_on, good=False)
            return None
        if result.failed is not None and result.result is not None:
            seen.failure(result.failed, result.result)
            output = f"  its output:  {next_steps.logs(self.record, result.failed.name)}\n"
            seen.summary(pathspec, "failed", output + go_on, good=False)
            return False
        hint = f'Results: k8sflow.Flow("{self.record.flow}")["{self.record.run}"].data'
        seen.summary(pathspec, "succeeded", hint, good=True)
        return True
