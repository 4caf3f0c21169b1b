"""``run_flow``: runs a whole flow in this process, with the same loop as every other run."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from k8sflow.client import Run
from k8sflow.config import Settings
from k8sflow.executors.base import Finished, TaskEvent
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.spec import FlowSpec
from k8sflow.runtime.core.inbox import Inbox
from k8sflow.runtime.core.loop import Loop
from k8sflow.runtime.core.observer import Observer
from k8sflow.runtime.core.run_state import RunState
from k8sflow.runtime.placement import Placement
from k8sflow.task.failure import failure
from k8sflow.task.inside.task_runner import TaskRunner
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskSpec
from k8sflow.task.stored_results import write_outcome
from k8sflow.testing.memory_run import compiled, new_run, raised_by_user

_HERE = "here"


def run_flow(flow: type[FlowSpec], /, *, configs: Mapping[str, Any] | None = None, **parameters: Any) -> Run:
    """Runs a flow in this process, one task after the other, and returns the finished run as the client reads it.

    Retries, ``@catch`` and the decorators' wrappers work as in every run, but pauses are skipped, and ``@timeout`` does
    nothing. Values are pickled as in every run. Nothing is written to disk.

    Args:
        flow: The flow's class.
        configs: Values of configs by name, as steps read them; the others have their defaults.
        parameters: Values of parameters; the others have their defaults.

    Raises:
        FlowDefinitionError: The flow has mistakes; the error lists all of them.
        ParameterError: A parameter or a config is unknown or missing, or its value can't be used.
        BaseException: A step's own exception after its last retry, unchanged.
    """
    __tracebackhide__ = True
    with compiled(flow, configs) as definition:
        return _run(definition, parameters)


def _run(definition: FlowDefinition, parameters: Mapping[str, Any]) -> Run:
    __tracebackhide__ = True
    runner = new_run(definition, parameters)
    placement = Placement.of(definition, (), Settings())
    policies = {step: replace(policy, timeout_seconds=None) for step, policy in placement.policies.items()}
    runner = replace(runner, record=replace(runner.record, policies=policies))
    tasks = _Tasks(runner)
    loop = Loop(
        definition.graph,
        runner.run_store,
        state=lambda: RunState(definition.graph, runner.record.run, policies=policies),
        executors=lambda _: {_HERE: tasks},
        executor_of=lambda _: _HERE,
        observer=Observer(),
        clock=tasks,
    )
    result = loop.run()
    if result.failed is not None:
        raise tasks.errors[result.failed]
    return Run(runner.run_store)


class _Tasks:
    """Runs the tasks while the loop waits for events; also the loop's clock, which skips all pauses.

    Args:
        runner: Runs one task.
    """

    def __init__(self, runner: TaskRunner) -> None:
        self._runner = runner
        self._ready: deque[TaskSpec] = deque()
        self._now = 0.0
        self.errors: dict[TaskSpec, BaseException] = {}

    def submit(self, tasks: Sequence[TaskSpec]) -> None:
        """Queues tasks that became ready together."""
        self._ready.extend(tasks)

    def cancel(self) -> None:
        """Drops the queued tasks."""
        self._ready.clear()

    def end(self) -> None:
        """As ``cancel``."""
        self.cancel()

    def abandon(self) -> None:
        """Does nothing: tasks run in this thread."""

    def close(self) -> None:
        """Does nothing: there are no resources to free."""

    def now(self) -> float:
        """Virtual seconds since the start of the run; only pauses take time."""
        return self._now

    wall = now

    def wait(self, _inbox: Inbox, seconds: float | None) -> TaskEvent | None:
        """Runs the next task and returns how it ended; if none is queued, the wait is over at once."""
        if self._ready:
            task = self._ready.popleft()
            return Finished(task, self._run(task))
        self._now += seconds or 0.0
        return None

    def _run(self, task: TaskSpec) -> TaskResult:
        try:
            result = self._runner.execute(task)
        except (Exception, SystemExit) as error:  # noqa: BLE001  user code; Ctrl-C and the like end the test
            self.errors[task] = raised_by_user(error)
            result = failure(error)
        write_outcome(self._runner.run_store, task, result)
        return result
