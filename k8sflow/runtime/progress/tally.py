"""The one tally of a run: counted from its loop's events, by step, with the same work for every event.

The terminal, the log and the FlowRun show it; other threads may read it while the loop's thread counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from k8sflow.executors.base import Finished, Queued, Started, TaskEvent
from k8sflow.flow.outcome import Outcome
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskName, TaskSpec

# How many tasks have to be done before the remaining time is estimated from theirs.
_ENOUGH_TO_ESTIMATE = 4


@dataclass
class StepTally:
    """The tasks of one step.

    Args:
        name: The step.
        began: When its first task became ready, by the tally's clock.
        total: How many tasks there are so far, without those that were done before.
        running: How many of them run.
        done: How many are done.
        cached: How many of these have a result of an earlier run.
        failed: How many have failed or were cancelled, and do not run again.
        cancelled: How many of these were cancelled.
        before: How many tasks had a result when the run's driver came: cloned ones, or those of an earlier driver.
        retries: How often one of them was run again.
        ended: When the last of them ended, as long as all have.
        is_loop: Whether the step has come back to itself, so that the number of its tasks is unknown.
    """

    name: str
    began: float
    total: int = 0
    running: int = 0
    done: int = 0
    cached: int = 0
    failed: int = 0
    cancelled: int = 0
    before: int = 0
    retries: int = 0
    ended: float | None = None
    is_loop: bool = False

    @property
    def has_share(self) -> bool:
        """True if it is known which share of its tasks is done."""
        return self.total + self.before > 1 and not self.is_loop

    @property
    def waiting(self) -> int:
        """The number of tasks that are ready, and not running yet."""
        return max(0, self.total - self.running - self.done - self.failed)

    @property
    def is_over(self) -> bool:
        """True if all known tasks have ended."""
        return self.done + self.failed >= self.total

    def elapsed(self, now: float) -> float:
        """Seconds since the first task became ready, until the last one ended."""
        return (now if self.ended is None else self.ended) - self.began

    def remaining(self, now: float) -> float | None:
        """Seconds until the remaining tasks are done, at the same speed; None where too little is known."""
        if self.is_over or not self.has_share or self.done < _ENOUGH_TO_ESTIMATE:
            return None
        return (self.total - self.done - self.failed) * self.elapsed(now) / self.done


@dataclass
class Tally:
    """The steps of a run, in the order in which they began.

    Args:
        clock: The time in seconds.
        steps: The tally of each step that has started, by name.
        unfinished: The lines without an end so far of running tasks, as a progress bar is one, by task and stream.
        waiting: A task that waits for more than a free worker, and why.
        notes: Notes of results, which the end of the run reports.
    """

    clock: Callable[[], float] = time.monotonic
    steps: dict[str, StepTally] = field(default_factory=dict)
    unfinished: dict[tuple[TaskName, str], bytes] = field(default_factory=dict)
    waiting: tuple[TaskName, str] | None = None
    notes: list[tuple[TaskName, str]] = field(default_factory=list)
    _running: set[TaskName] = field(default_factory=set)
    _again: set[TaskName] = field(default_factory=set)
    _cancelled: set[TaskName] = field(default_factory=set)

    def submitted(self, group: Sequence[TaskSpec]) -> StepTally:
        """Counts tasks that became ready; another execution of a task is not another task."""
        first = group[0].name
        step = self.steps.setdefault(first.step, StepTally(first.step, self.clock()))
        if first in self._again:  # by itself, or all that run together
            self._again.difference_update(task.name for task in group)
        else:
            step.total += len(group)
            step.is_loop |= first.turn > 0
            step.ended = None
        return step

    def done_before(self, tasks: Sequence[TaskSpec]) -> None:
        """Counts tasks of one step that have a result from before."""
        name = tasks[0].name.step
        step = self.steps.setdefault(name, StepTally(name, self.clock()))
        step.before += len(tasks)
        step.is_loop |= any(task.name.turn for task in tasks)
        self._look_at_end(step)

    def cached(self, task: TaskSpec) -> None:
        """Counts a task whose result was taken from an earlier run."""
        step = self.steps[task.name.step]
        step.done += 1
        step.cached += 1
        self._look_at_end(step)

    def event(self, event: TaskEvent) -> None:
        """Counts a task's event."""
        name = event.task.name
        step = self.steps.get(name.step)
        if step is None:
            return
        match event:
            case Queued(_, reason) if reason:
                self.waiting = (name, reason)
            case Started():
                self._no_longer_waits(name)
                if name not in self._running:
                    self._running.add(name)
                    step.running += 1
            case Finished(_, result):
                self._no_longer_waits(name)
                self._stopped(step, name)
                if result.note:
                    self.notes.append((name, result.note))
                if result.outcome is Outcome.SUCCEEDED:
                    step.done += 1
                else:
                    step.failed += 1
                    if result.outcome is Outcome.CANCELLED:
                        step.cancelled += 1
                        self._cancelled.add(name)
                self._look_at_end(step)
            case _:
                pass

    def retried(self, task: TaskSpec, result: TaskResult) -> None:
        """Takes back an end after which the task runs again."""
        step = self.steps.setdefault(task.name.step, StepTally(task.name.step, self.clock()))
        self._again.add(task.name)
        if result.outcome is Outcome.SUCCEEDED:
            step.done -= 1
        else:
            self._take_back(step, task.name)
        step.retries += 1
        step.ended = None

    def caught(self, task: TaskSpec) -> None:
        """Counts a failure that @catch has taken as done."""
        step = self.steps[task.name.step]
        self._take_back(step, task.name)
        step.done += 1
        self._look_at_end(step)

    @property
    def done(self) -> int:
        """The number of tasks that are done, without those that were done before."""
        return sum(step.done for step in list(self.steps.values()))

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """The numbers of tasks that are known, running, done (also before), and failed."""
        total = running = done = failed = 0
        for step in list(self.steps.values()):
            before = step.before
            total += step.total + before
            running += step.running
            done += step.done + before
            failed += step.failed
        return total, running, done, failed

    def _no_longer_waits(self, name: TaskName) -> None:
        if self.waiting is not None and self.waiting[0] == name:
            self.waiting = None

    def _stopped(self, step: StepTally, name: TaskName) -> None:
        if name in self._running:
            self._running.discard(name)
            step.running -= 1

    def _take_back(self, step: StepTally, name: TaskName) -> None:
        """Counts a task that has failed, or was cancelled, no longer as such."""
        step.failed = max(0, step.failed - 1)
        if name in self._cancelled:
            self._cancelled.discard(name)
            step.cancelled -= 1

    def _look_at_end(self, step: StepTally) -> None:
        if step.is_over:
            step.ended = self.clock()
