"""A run's state machine: events in, actions out, and no input or output in between.

The loop performs the actions, and feeds the machine with what happens: tasks that end, pauses that are over, failures
that ``@catch`` has turned into results. So every order of events can be tried in a test without a store or a process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from k8sflow.errors import RunError
from k8sflow.executors.base import Finished
from k8sflow.flow.decorators.policy import StepPolicy
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.runtime.core.actions import (
    Action,
    CatchCommitted,
    CatchFailure,
    DoneBefore,
    End,
    Event,
    FailedBefore,
    Opened,
    PauseOver,
    Record,
    Retry,
    RunEnd,
    RunResult,
    Start,
    Submit,
)
from k8sflow.runtime.core.earlier import Earlier, Past, past_of, past_together
from k8sflow.runtime.core.retries import INFRASTRUCTURE, Again, Caught, Failed, decide
from k8sflow.runtime.core.scheduler import Scheduler, TaskGroup
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskName, TaskSpec
from k8sflow.task.stored_results import recorded_result


class State(Protocol):
    """A state machine that the loop can drive."""

    def handle(self, event: Event) -> list[Action]:
        """The actions that follow from an event, in their order; none once the run has ended."""


class OneTask:
    """The state of a single task without a run around it: it starts, and its end is the end."""

    def __init__(self, task: TaskSpec) -> None:
        self._task = task

    def handle(self, event: Event) -> list[Action]:
        """The actions that follow from an event."""
        match event:
            case Start():
                return [Submit([self._task])]
            case Finished(task, result) if result.transition is None:
                return [End(RunResult(RunEnd.FAILED, task, result))]
            case Finished():
                return [End(RunResult(RunEnd.SUCCEEDED))]
            case _:
                return []


class RunState:
    """The state of a run.

    Args:
        graph: The flow's graph.
        run: The run's id.
        policies: Retries and catch, by step.
        outlives: Whether the tasks of a step keep running when their driver dies, and are found by the next one.
        earlier: What earlier drivers did.
    """

    def __init__(
        self,
        graph: Graph,
        run: str,
        *,
        policies: Mapping[str, StepPolicy] | None = None,
        outlives: Callable[[str], bool] = lambda _: True,
        earlier: Earlier | None = None,
    ) -> None:
        self._policies = policies or {}
        self._outlives = outlives
        self._earlier = earlier or Earlier()
        self._scheduler = Scheduler(graph, run)
        self._failures: dict[TaskName, Counter[Outcome]] = {}
        self._together: dict[TaskName, list[tuple[TaskSpec, TaskResult]]] = {}
        self._wall = 0.0
        # Events that are to come: ends of tasks, and of pauses, and results of caught failures.
        self._awaited = 0
        self._actions: list[Action] = []
        self._has_ended = False

    def handle(self, event: Event) -> list[Action]:
        """The actions that follow from an event, in their order; none once the run has ended.

        Raises:
            RunError: The run has no task left, and has not reached its end.
        """
        if self._has_ended:
            return []
        self._actions = []
        match event:
            case Start(wall):
                self._wall = wall
                self._submit(self._scheduler.begin())
            case Finished(task, result):
                self._awaited -= 1
                self._finished(task, result)
            case PauseOver(tasks):
                self._awaited -= 1
                self._pass_on(tasks)
            case CatchCommitted(task, result):
                self._awaited -= 1
                self._continue(task, result)
        if self._scheduler.is_done and not self._has_ended:
            self._end(RunResult(RunEnd.SUCCEEDED))
        if not self._awaited and not self._has_ended:
            raise RunError("the run has no task left, but has not reached its end.", cause="This is a bug.")
        return self._actions

    def _finished(self, task: TaskSpec, result: TaskResult) -> None:
        if result.transition is None:
            self._actions.append(Record(task, result))
        ended = self._together.setdefault(task.first, [])
        ended.append((task, result))
        if len(ended) < task.nodes:
            return  # tasks that run together succeed, fail and run again as one
        del self._together[task.first]
        if any(found.transition is None for _, found in ended):
            outcome = _blamed(ended)[1].outcome
            self._failures.setdefault(task.first, Counter())[outcome] += 1
            self._failed(ended)
            return
        self._failures.pop(task.first, None)
        for each, found in ended:
            self._continue(each, found)

    def _failed(self, ended: Sequence[tuple[TaskSpec, TaskResult]], since: float = 0.0) -> None:
        """Acts on the failure, so many seconds ago, of a task or of all that run together."""
        task, result = _blamed(ended)
        policy = self._policies.get(task.name.step, StepPolicy())
        is_final = result.failure is not None and result.failure.is_final
        match decide(policy, result.outcome, self._failures[task.first], is_final=is_final):
            case Again() as again:
                following = [self._execution(each, task.attempt + 1) for each, _ in ended]
                self._awaited += 1
                self._actions.append(Retry(ended, again, max(0.0, again.pause_seconds - since), following))
            case Caught(catch):
                for each, found in ended:
                    if found.transition is None:
                        self._awaited += 1
                        self._actions.append(CatchFailure(each, result, catch))
                    else:
                        self._continue(each, found)
            case Failed(costless):
                self._end(RunResult(RunEnd.FAILED, task, _with_advice(result, policy, costless)))

    def _continue(self, task: TaskSpec, result: TaskResult) -> None:
        """Submits what becomes ready by a task's result."""
        if result.transition is not None:
            for group in self._scheduler.finished(task.name, result.transition):
                self._submit(group)

    def _submit(self, group: TaskGroup) -> None:
        """Passes a group on, less the tasks that have a result, or have failed, under an earlier driver."""
        if self._earlier.is_empty:
            self._open(group)
            self._pass_on(group)
            return
        waiting = [group]
        while waiting and not self._has_ended:
            ready, waiting = waiting, []
            for each in ready:
                for task in self._submit_rest(each):
                    waiting += self._scheduler.finished(task.name, self._earlier.transitions[str(task.name)])

    def _submit_rest(self, group: TaskGroup) -> list[TaskSpec]:
        """Passes on the tasks of a group that have no result yet; returns the others."""
        rest = [task for task in group if str(task.name) not in self._earlier.transitions]
        if rest:
            self._open(group)
        if rest and group.nodes > 1:
            self._submit_together(group)
            return []
        done = [task for task in group if str(task.name) in self._earlier.transitions]
        if done:
            self._actions.append(DoneBefore(done))
        if untouched := [task for task in rest if str(task.name) not in self._earlier.started]:
            self._pass_on(untouched)
        for task in rest:
            if str(task.name) in self._earlier.started and not self._has_ended:
                self._take_up(task)
        return done

    def _submit_together(self, tasks: Sequence[TaskSpec]) -> None:
        """Passes on tasks that run together, also those with a result: the others would wait for them for ever.

        The result of a later execution replaces that of an earlier one. Tasks that outlive their driver may still run
        as the last execution.
        """
        names = [str(task.name) for task in tasks]
        started = [self._earlier.started[name] for name in names if name in self._earlier.started]
        started += [0] * any(name in self._earlier.transitions for name in names)
        last = max(started, default=-1)
        past = past_together([self._earlier.ended.get(name, {}) for name in names])
        if past is not None:
            self._failures[tasks[0].first] = past.failures
            if past.last == last:
                self._failed_before([self._execution(task, last) for task in tasks], past)
                return
        is_over = any(self._has_failed(name, last) for name in names)
        may_run = last >= 0 and self._outlives(tasks[0].name.step) and not is_over
        self._pass_on([self._execution(task, last if may_run else last + 1) for task in tasks])

    def _has_failed(self, name: str, attempt: int) -> bool:
        record = self._earlier.ended.get(name, {}).get(attempt)
        return record is not None and record.outcome.is_failure

    def _take_up(self, task: TaskSpec) -> None:
        """Continues with a task that had executions; those whose end is recorded count."""
        started = self._earlier.started[str(task.name)]
        past = past_of(self._earlier.ended.get(str(task.name), {}))
        if past is not None:
            self._failures[task.name] = past.failures
        if not self._outlives(task.name.step) and (past is None or started > past.last):
            self._pass_on([self._execution(task, started + 1)])  # the last execution died with its driver
        elif past is None:
            self._pass_on([task])
        elif (outcome := past.record.outcome).is_paid_by_user or outcome in INFRASTRUCTURE:
            self._failed_before([self._execution(task, past.last)], past)
        else:  # a task that was cancelled has not failed by itself
            self._pass_on([self._execution(task, past.last + 1)])

    def _execution(self, task: TaskSpec, attempt: int) -> TaskSpec:
        """An execution of a task, with the memory that follows from the earlier ones."""
        policy = self._policies.get(task.name.step, StepPolicy())
        failures = self._failures.get(task.first, Counter())
        return replace(task, attempt=attempt, memory=policy.memory_after(failures[Outcome.OUT_OF_MEMORY]))

    def _failed_before(self, tasks: Sequence[TaskSpec], past: Past) -> None:
        """Acts on a failure on which no earlier driver has acted."""
        result = recorded_result(past.record)
        self._actions.append(FailedBefore(tasks, result))
        self._failed([(task, result) for task in tasks], max(0.0, self._wall - past.record.finished))

    def _open(self, group: TaskGroup) -> None:
        if group.opens and not self._has_ended:
            self._actions.append(Opened(group.step, group.opens))

    def _pass_on(self, tasks: Sequence[TaskSpec]) -> None:
        if not self._has_ended:
            self._awaited += len(tasks)
            self._actions.append(Submit(tasks))

    def _end(self, result: RunResult) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._actions.append(End(result))


def _with_advice(result: TaskResult, policy: StepPolicy, costless: int) -> TaskResult:
    """The failure for which no execution is left, with advice that says what was tried."""
    if costless:
        times = "once" if costless == 1 else f"{costless} times"
        said = f"It was run again {times} already, and failed each time. {result.explained.resolution}"
        return replace(result, failure=replace(result.explained, resolution=said.strip()))
    if result.outcome is not Outcome.OUT_OF_MEMORY or not policy.more_memory:
        return result
    advice = (
        f"It had {policy.more_memory[-1]}, the most that @resources(on_oom=…) may request for it: raise max_memory, "
        "or let the step hold less in memory at a time."
    )
    return replace(result, failure=replace(result.explained, resolution=advice))


def _blamed(ended: Sequence[tuple[TaskSpec, TaskResult]]) -> tuple[TaskSpec, TaskResult]:
    """The failure of tasks that run together: the others were ended because of it."""
    failures = [(task, result) for task, result in ended if result.transition is None]
    return next((found for found in failures if found[1].outcome is not Outcome.CANCELLED), failures[0])
